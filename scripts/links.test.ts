import assert from 'node:assert/strict'
import { existsSync, globSync, readFileSync, statSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { test } from 'node:test'

const ROOT = join(import.meta.dirname, '..')
const files = globSync('{*.md,{docs,server,cli,bench,scripts,solutions,deploy}/**/*.md}', {
  cwd: ROOT,
  exclude: ['**/node_modules/**'],
})

/** Text without code, where brackets mean something else. */
const prose = (file: string) =>
  readFileSync(join(ROOT, file), 'utf8')
    .replaceAll(/^(```+).*?^\1/gms, '')
    .replaceAll(/`[^`\n]*`/g, '')

/** A heading as its place in the page: lower case, blanks as hyphens, marks left out. */
const anchor = (heading: string) =>
  heading
    .toLowerCase()
    .replaceAll(/[^\p{L}\p{N}\s_-]/gu, '')
    .trim()
    .replaceAll(/\s/g, '-')

const anchorsOf = (file: string) =>
  new Set([...readFileSync(file, 'utf8').matchAll(/^#{1,6} (.+)$/gm)].map(match => anchor(match[1]!)))

/** What is wrong with a link of a file; undefined when it leads somewhere. */
function broken(file: string, link: string): string | undefined {
  const [path, place] = link.split('#') as [string, string | undefined]
  const target = path === '' ? join(ROOT, file) : join(ROOT, dirname(file), decodeURI(path))
  if (relative(ROOT, target).startsWith('..')) return `${file}: ${link} leads out of the repository`
  if (!existsSync(target)) return `${file}: ${link} does not exist`
  if (place !== undefined && statSync(target).isFile() && !anchorsOf(target).has(place)) {
    return `${file}: ${link} names no heading`
  }
  return undefined
}

test('every relative link in the documentation leads somewhere', () => {
  const links = files.flatMap(file =>
    [...prose(file).matchAll(/\]\(([^)\s]+)(?: "[^"]*")?\)/g)]
      .map(match => match[1]!)
      .filter(link => !/^[a-z][a-z0-9+.-]*:/i.test(link))
      .map(link => ({ file, link })),
  )
  assert.ok(files.includes('README.md') && links.length > 20, 'links are found at all')
  assert.deepEqual(links.map(({ file, link }) => broken(file, link)).filter(Boolean), [])
})

test('a broken link is seen', () => {
  assert.match(broken('README.md', 'docs/guides/nowhere.md')!, /does not exist/)
  assert.match(broken('README.md', 'ARCHITECTURE.md#no-such-heading')!, /names no heading/)
  assert.match(broken('README.md', '../elsewhere.md')!, /leads out/)
  assert.equal(broken('README.md', 'ARCHITECTURE.md#the-ledger'), undefined)
})
