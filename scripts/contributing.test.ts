import assert from 'node:assert/strict'
import { existsSync, globSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { APPOINTMENTS, CHECKS, TIMES } from '../server/decide/decide.ts'
import { REASONS } from '../server/reasons.ts'

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')
const GUIDE = read('CONTRIBUTING.md')

/** The table of files under a heading, first column. */
function filesOf(heading: string): string[] {
  const section = GUIDE.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0]
  assert.ok(section, `CONTRIBUTING.md has no section "${heading}"`)
  return [...section.matchAll(/^\| `([^`]+)` \|/gm)].map(match => match[1]!)
}

test('every path the guide names exists', () => {
  const named = [...GUIDE.matchAll(/`((?:server|scripts|docs|cli|bench|solutions)\/[^`\s]*)`/g)].map(
    match => match[1]!,
  )
  assert.ok(named.length > 15, 'the guide names its files between backticks')
  const missing = named.filter(path => !path.includes('<') && !existsSync(join(ROOT, path)))
  assert.deepEqual(missing, [])
})

test('every command the guide names is a script', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }
  for (const [, name] of GUIDE.matchAll(/npm run ([\w:]+)/g)) assert.ok(scripts[name!], `npm run ${name}`)
})

test('each provider folder holds exactly the files that the guide lists, and has its line', () => {
  const folder = 'server/deliver/providers'
  const listed = filesOf('Add a provider').filter(path => path.includes('/<id>/'))
  const index = read(`${folder}/index.ts`)
  const providers = readdirSync(join(ROOT, folder), { withFileTypes: true }).filter(entry =>
    entry.isDirectory(),
  )
  assert.ok(providers.length >= 2)
  for (const { name: id } of providers) {
    assert.deepEqual(
      globSync(`${folder}/${id}/**/*`, { cwd: ROOT }).sort(),
      listed.map(path => path.replaceAll('<id>', id)).sort(),
    )
    assert.equal(index.split(`from './${id}/${id}.ts'`).length, 2, `one line for ${id} in index.ts`)
  }
  const lines = index.split('\n').filter(line => line.startsWith('export'))
  assert.equal(lines.length, providers.length, 'index.ts has a line for each folder and no other')
})

test('every check stands in the order of decide.ts, once', () => {
  const written = globSync('server/decide/*.ts', { cwd: ROOT })
    .filter(file => !file.endsWith('.test.ts'))
    .flatMap(file => [...read(file).matchAll(/^export const (\w+): Check\b/gm)].map(match => match[1]!))
  const lists = read('server/decide/decide.ts').matchAll(
    /const (?:CHECKS|APPOINTMENTS|TIMES)[^=]*= \[([^\]]*)\]/g,
  )
  const listed = [...lists]
    .flatMap(([, names]) => names!.split(','))
    .map(name => name.trim())
    .filter(Boolean)
  assert.deepEqual(listed.toSorted(), written.toSorted())
  assert.equal(new Set([...CHECKS, ...APPOINTMENTS, ...TIMES]).size, written.length)
})

test('every reason of a decision is in the table, and the table holds none that nothing uses', () => {
  const code = globSync('server/**/*.ts', { cwd: ROOT, exclude: ['server/test/**'] }).filter(
    file => !file.endsWith('.test.ts') && file !== 'server/reasons.ts',
  )
  const decided = code
    .filter(file => file.startsWith('server/decide/'))
    .flatMap(file => [...read(file).matchAll(/reason: '(\w+)'/g)].map(match => match[1]!))
  assert.ok(decided.length >= 8)
  assert.deepEqual(
    decided.filter(reason => !Object.hasOwn(REASONS, reason)),
    [],
  )
  const text = code.map(read).join('\n')
  const unused = Object.keys(REASONS).filter(reason => !new RegExp(`'${reason}'|\\b${reason}:`).test(text))
  // Said by other means today. Whoever uses one, or drops it, takes it off this list.
  assert.deepEqual(unused, [])
})

test('the guide to a reason names what a reason takes', () => {
  assert.deepEqual(filesOf('Add a reason'), [
    'server/decide/<reason>.ts',
    'server/decide/decide.ts',
    'server/reasons.ts',
    'server/decide/decide.test.ts',
    'docs/reference/reasons.md',
  ])
})
