import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { MAX_WAITS, RETRY } from '../server/deliver/retry.ts'
import { LIVE, OUTCOME_RANK } from '../server/ledger/status.ts'
import { testDatabase } from '../server/test/database.ts'

const ROOT = join(import.meta.dirname, '..')
const read = (file: string) => readFileSync(join(ROOT, file), 'utf8')

/** Rows of the tables below a heading, cells without backticks; the head row left out. */
function rowsBelow(text: string, heading: string): string[][] {
  const section = text.split(`\n## ${heading}\n`)[1]?.split('\n## ')[0]
  assert.ok(section, `no section "${heading}"`)
  return section
    .split('\n')
    .filter(line => line.startsWith('| '))
    .slice(1)
    .map(line =>
      line
        .slice(1, -1)
        .split('|')
        .map(cell => cell.trim().replaceAll('`', '')),
    )
}

test('the state machine page has exactly the states of the code, with their ranks', () => {
  const page = read('docs/operate/state-machine.md')
  assert.deepEqual(
    rowsBelow(page, 'Alive').map(([state]) => state),
    [...LIVE],
  )
  assert.deepEqual(
    Object.fromEntries(rowsBelow(page, 'Ended').map(([state, rank]) => [state, Number(rank)])),
    OUTCOME_RANK,
  )
  const drawing = /```\n([\s\S]*?)```/.exec(page)![1]!
  for (const state of [...LIVE, ...Object.keys(OUTCOME_RANK)]) {
    assert.match(drawing, new RegExp(`\\b${state}\\b`), `${state} in the drawing`)
  }
})

test('the state machine page has the retry table of the code', () => {
  const page = read('docs/operate/state-machine.md')
  assert.deepEqual(
    rowsBelow(page, 'Tries'),
    Object.entries(RETRY).map(([channel, policy]) => [
      channel,
      String(policy.attempts),
      `${policy.firstMs / 1000} s`,
      `× ${policy.factor}`,
      `${policy.capMs / 1000} s`,
      policy.unknown === 'resend' ? 'again' : 'stop as unknown',
    ]),
  )
  assert.ok(page.includes(`up to ${MAX_WAITS} of them in all`))
})

test('the glossary has every name of server/types.ts', () => {
  const words = read('docs/reference/glossary.md')
    .split('\n')
    .filter(line => line.startsWith('| '))
    .flatMap(line => line.split('|')[1]!.split(','))
    .map(word => word.trim())
  const names = [...read('server/types.ts').matchAll(/^export (?:type|interface) (\w+)/gm)].map(
    match => match[1]!,
  )
  assert.ok(names.length > 10)
  assert.deepEqual(
    names.filter(name => !words.includes(name)),
    [],
  )
})

test('every column that docs/reference/tables.md names exists', async t => {
  const database = await testDatabase()
  t.after(() => database.drop())
  const { rows } = await database.db.pool.query<{ name: string }>(
    `select table_name || '.' || column_name as name from information_schema.columns where table_schema = 'public'`,
  )
  const columns = new Set(rows.map(row => row.name))
  const stored = read('docs/reference/tables.md')
    .split('\n')
    .filter(line => line.startsWith('| '))
    .flatMap(line => [...line.split('|')[2]!.matchAll(/`(\w+\.\w+)`/g)].map(match => match[1]!))
  assert.ok(stored.length > 40)
  assert.deepEqual(
    stored.filter(name => !columns.has(name)),
    [],
  )
})
