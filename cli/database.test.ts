import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'
import { ensureFirstTenant } from '../server/admin/tenants.ts'
import { sealer } from '../server/db/seal.ts'
import { testDatabase } from '../server/test/database.ts'

const KEY = randomBytes(32).toString('hex')

/** Runs a command against a database, with nothing of this machine's own settings. */
function carillon(args: string[], url: string, env: NodeJS.ProcessEnv = {}) {
  return new Promise<{ code: number; out: string; err: string }>(resolve => {
    execFile(
      process.execPath,
      [join(import.meta.dirname, 'carillon.ts'), ...args],
      { env: { PATH: process.env.PATH, DATABASE_URL: url, CARILLON_MASTER_KEY: KEY, PORT: '0', ...env } },
      (error, out, err) =>
        resolve({ code: Number(error?.code ?? 0), out: stripVTControlCharacters(out), err }),
    )
  })
}

test('migrate says what it would do, does it, and then has nothing to do', async t => {
  const database = await testDatabase({ empty: true })
  t.after(() => database.drop())
  const before = await carillon(['migrate', '--check'], database.url)
  assert.equal(before.code, 1)
  assert.match(before.out, /^pending {2}0001_core\.sql$/m)
  const applied = await carillon(['migrate', '--json'], database.url)
  assert.equal(applied.code, 0, applied.err)
  assert.equal((JSON.parse(applied.out) as { applied: string[] }).applied[0], '0001_core.sql')
  assert.deepEqual(await carillon(['migrate'], database.url), {
    code: 0,
    out: 'Nothing to apply.\n',
    err: '',
  })
  assert.equal((await carillon(['migrate', '--check'], database.url)).code, 0)
})

test('doctor reads the server, its clock, its migrations, and proves the master key', async t => {
  const database = await testDatabase()
  t.after(() => database.drop())
  await ensureFirstTenant(database.db, sealer(KEY))
  const right = await carillon(['doctor'], database.url)
  for (const line of [
    /ok {4}database {6}PostgreSQL 1\d/,
    /ok {4}clock {9}\d+ ms apart/,
    /ok {4}migrations {4}all applied/,
    /ok {4}master key {4}opens what is in the database/,
    /warn {2}mail .*\n.*Set SMTP_HOST/,
    /warn {2}address .*localhost/,
  ]) {
    assert.match(right.out, line)
  }
  const wrong = await carillon(['doctor', '--json'], database.url, {
    CARILLON_MASTER_KEY: randomBytes(32).toString('hex'),
  })
  assert.equal(wrong.code, 1)
  const { findings } = JSON.parse(wrong.out) as { findings: { name: string; state: string }[] }
  assert.equal(findings.find(one => one.name === 'master key')?.state, 'fail')
})

test('doctor tells a database that must not be trusted, or is not there', async t => {
  const database = await testDatabase({ empty: true })
  t.after(() => database.drop())
  // The test server runs without fsync: exactly what has to be found.
  const { rows } = await database.db.pool.query<{ fsync: string }>('show fsync')
  const { out, code } = await carillon(['doctor'], database.url)
  assert.match(out, /warn {2}migrations {4}\d+ to apply: 0001_core\.sql/)
  if (rows[0]!.fsync === 'off') {
    assert.equal(code, 1)
    assert.match(out, /fail {2}durability .*fsync/)
  }
  const away = await carillon(['doctor'], 'postgres://u:canary@127.0.0.1:9/d')
  assert.equal(away.code, 1)
  assert.match(away.out, /fail {2}database {6}.*127\.0\.0\.1:9/)
  assert.doesNotMatch(away.out, /canary/)
})
