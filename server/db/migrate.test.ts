import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, beforeEach, test } from 'node:test'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { migrate, pendingMigrations, readMigrations } from './migrate.ts'

let database: TestDatabase | undefined
let dir = ''

beforeEach(async () => {
  await clean()
  dir = await mkdtemp(join(tmpdir(), 'migrations-'))
  database = await testDatabase({ empty: true })
})
after(clean)

async function clean(): Promise<void> {
  await database?.drop()
  if (dir !== '') await rm(dir, { recursive: true })
}

const db = () => database!.db
const file = (name: string, text: string) => writeFile(join(dir, name), text)
const ask = async (text: string) => (await db().pool.query<Record<string, unknown>>(text)).rows

test('applies files in order, once, and says which', async () => {
  await file('0001_one.sql', 'create table steps (n int); insert into steps values (1);')
  await file('0002_two.sql', 'insert into steps select max(n) + 1 from steps;')
  assert.deepEqual(await pendingMigrations(db(), dir), ['0001_one.sql', '0002_two.sql'])

  assert.deepEqual(await migrate(db(), dir), ['0001_one.sql', '0002_two.sql'])
  assert.deepEqual(await pendingMigrations(db(), dir), [])
  assert.deepEqual(await migrate(db(), dir), [])
  assert.deepEqual(await ask('select n from steps order by n'), [{ n: 1 }, { n: 2 }])

  await file('0003_three.sql', 'insert into steps values (3);')
  assert.deepEqual(await migrate(db(), dir), ['0003_three.sql'])
})

test('of many at once, one works and the others find it done', async () => {
  await file('0001_one.sql', 'create table steps (n int); select pg_sleep(0.2);')
  await file('0002_two.sql', '-- no-transaction\ncreate index concurrently on steps (n);')
  const results = await Promise.all([1, 2, 3, 4].map(() => migrate(db(), dir)))
  assert.deepEqual(results.flat(), ['0001_one.sql', '0002_two.sql'])
})

test('a file that fails leaves nothing of itself, keeps what came before, and is named with its line', async () => {
  await file('0001_good.sql', 'create table good (n int);')
  await file('0002_bad.sql', 'create table half (n int);\n\ninsert into nowhere values (1);')
  await assert.rejects(
    migrate(db(), dir),
    /Migration 0002_bad\.sql, line 3: relation "nowhere" does not exist/,
  )
  assert.deepEqual(await ask(`select to_regclass('good') is not null as good, to_regclass('half') as half`), [
    { good: true, half: null },
  ])

  await file('0002_bad.sql', 'create table half (n int);')
  assert.deepEqual(await migrate(db(), dir), ['0002_bad.sql'])
})

test('a file with the marker runs outside a transaction', async () => {
  await file('0001_table.sql', 'create table wide (n int);')
  await file('0002_index.sql', 'create index concurrently wide_n on wide (n);')
  await assert.rejects(migrate(db(), dir), /0002_index\.sql.*cannot run inside a transaction block/)
  await file('0002_index.sql', '-- no-transaction\ncreate index concurrently wide_n on wide (n);')
  assert.deepEqual(await migrate(db(), dir), ['0002_index.sql'])
})

test('an applied file that was changed is an error; other line ends are no change', async () => {
  await file('0001_one.sql', 'create table one (\n  n int\n);\n')
  await migrate(db(), dir)
  await file('0001_one.sql', 'create table one (\r\n  n int\r\n);\r\n')
  assert.deepEqual(await migrate(db(), dir), [])

  await file('0001_one.sql', 'create table one (\n  n bigint\n);\n')
  await assert.rejects(migrate(db(), dir), /0001_one\.sql was changed/)
  await assert.rejects(pendingMigrations(db(), dir), /0001_one\.sql was changed/)
})

test('a database newer than the code is an error', async () => {
  await file('0001_one.sql', 'select 1;')
  await file('0002_two.sql', 'select 2;')
  await migrate(db(), dir)
  await rm(join(dir, '0002_two.sql'))
  await assert.rejects(migrate(db(), dir), /database is newer.*0002_two\.sql/)
})

test('names that are no migrations, twins and gaps are errors', async () => {
  await file('0001_one.sql', '')
  for (const name of ['0003_gap.sql', '0001_twin.sql', 'notes.sql', '2_short.sql', '0002-Dash.sql']) {
    await file(name, '')
    await assert.rejects(readMigrations(dir), new RegExp('expected a file named 000[12]_'), name)
    await rm(join(dir, name))
  }
  await file('readme.md', 'not SQL, not ours')
  assert.deepEqual(
    (await readMigrations(dir)).map(migration => migration.name),
    ['0001_one.sql'],
  )
})

test("the project's own files are well formed", async () => {
  assert.ok((await readMigrations()).every(migration => migration.text.trim() !== ''))
})
