/**
 * `npm run coverage:requirements`: which requirements of docs/requirements a test cites, by `// covers: AUR-001, …`
 * above it. Exit code 1 when a test cites what does not exist.
 */
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'

export interface Coverage {
  /** One per system, by its letters. Ids in the order of the documents. */
  systems: { name: string; covered: string[]; missing: string[] }[]
  /** Citations that are no id of any document. */
  unknown: { file: string; line: number; id: string }[]
}

interface Text {
  file: string
  text: string
}

/** Ids are defined where they stand bold, `**AUR-001**`. */
export function coverage(documents: Text[], tests: Text[]): Coverage {
  const defined = new Set(
    documents.flatMap(({ text }) => [...text.matchAll(/\*\*([A-Z]{3}-\d{3})\*\*/g)].map(match => match[1]!)),
  )
  const cited = tests.flatMap(({ file, text }) =>
    text.split('\n').flatMap((content, index) => {
      const list = /^\s*(?:\/\/|\/?\*)\s*covers:(.*)$/.exec(content)?.[1] ?? ''
      const ids = list.split(/[\s,]+/).filter(id => id !== '')
      return ids.map(id => ({ file, line: index + 1, id }))
    }),
  )
  const covered = new Set(cited.map(citation => citation.id))

  return {
    systems: [...new Set([...defined].map(system))].sort().map(name => {
      const ids = [...defined].filter(id => system(id) === name)
      return {
        name,
        covered: ids.filter(id => covered.has(id)),
        missing: ids.filter(id => !covered.has(id)),
      }
    }),
    unknown: cited.filter(({ id }) => !defined.has(id)),
  }
}

/** `AUR-001`, `AUR-002`, `AUR-003`, `AUR-007` → `001–003, 007`. */
export function ranges(ids: string[]): string {
  const numbers = ids.map(id => Number(id.slice(4))).sort((a, b) => a - b)
  const starts = numbers.filter((number, index) => numbers[index - 1] !== number - 1)
  const ends = numbers.filter((number, index) => numbers[index + 1] !== number + 1)
  const text = (number: number) => String(number).padStart(3, '0')
  return starts
    .map((start, index) => (start === ends[index] ? text(start) : `${text(start)}–${text(ends[index]!)}`))
    .join(', ')
}

/** The details first, the table last: the end of a long output is what one sees. */
export function report({ systems, unknown }: Coverage): string {
  const row = (name: string, covered: number, missing: number) => {
    const total = covered + missing
    const percent = total === 0 ? 0 : Math.round((100 * covered) / total)
    return `${name.padEnd(5)} ${String(covered).padStart(5)} of ${String(total).padStart(5)}  ${String(percent).padStart(3)} %`
  }
  const sum = (of: 'covered' | 'missing') => systems.reduce((total, one) => total + one[of].length, 0)
  return [
    ...systems.flatMap(({ name, covered, missing }) => [
      `${name} covered: ${ranges(covered) || 'none'}`,
      `${name} missing: ${ranges(missing) || 'none'}`,
      '',
    ]),
    ...unknown.map(({ file, line, id }) => `${file}:${line}: there is no requirement ${id}`),
    ...systems.map(({ name, covered, missing }) => row(name, covered.length, missing.length)),
    row('all', sum('covered'), sum('missing')),
  ].join('\n')
}

const system = (id: string) => id.slice(0, 3)

if (import.meta.main) {
  const root = join(import.meta.dirname, '..')
  const read = (pattern: string): Text[] =>
    globSync(pattern, { cwd: root, exclude: ['**/node_modules'] })
      .sort()
      .map(file => ({ file, text: readFileSync(join(root, file), 'utf8') }))
  const found = coverage(read('docs/requirements/*.md'), read('**/*.test.{ts,tsx}'))
  console.log(report(found))
  if (found.unknown.length > 0) process.exitCode = 1
}
