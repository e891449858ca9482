import assert from 'node:assert/strict'
import { test } from 'node:test'
import { pendingMigrations } from '../db/migrate.ts'
import { sql } from '../db/pool.ts'
import { testDatabase } from './database.ts'

const names = sql('list_databases', 'select datname from pg_database')

test('every call gives a migrated database of its own', async () => {
  const [a, b] = await Promise.all([testDatabase(), testDatabase()])
  try {
    assert.notEqual(a.url, b.url)
    assert.deepEqual(await pendingMigrations(a.db), [])

    await a.db.pool.query('create table only_here (id int)')
    await assert.rejects(b.db.pool.query('select * from only_here'), { code: '42P01' })
  } finally {
    await Promise.all([a.drop(), b.drop()])
  }
})

test('drop removes the database even when a test left a connection open', async () => {
  const [gone, watcher] = await Promise.all([testDatabase(), testDatabase()])
  const forgotten = await gone.db.connect('forgotten')
  const name = new URL(gone.url).pathname.slice(1)
  await gone.drop()
  const left = (await watcher.db.rows<{ datname: string }>(names)).map(row => row.datname)
  assert.ok(!left.includes(name))
  await forgotten.end().catch(() => {})
  await watcher.drop()
})
