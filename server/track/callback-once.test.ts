import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { ensureFirstTenant } from '../admin/tenants.ts'
import { sealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { callbackOnce } from './callback-once.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase()
  await ensureFirstTenant(database.db, sealer('0'.repeat(64)))
})
after(() => database.drop())

// covers: DIC-103
test('a token speaks for one event, in every process and after a restart, until it ends', async () => {
  const clock = { at: Date.UTC(2026, 10, 21, 12) }
  // Each as a process of its own would have it.
  const process = () => callbackOnce(database.db, () => new Date(clock.at))
  const once = (event: string, token = 'a'.repeat(50)) => ({
    token,
    event,
    until: new Date(Date.UTC(2026, 10, 21, 21)),
  })
  assert.equal(await process()('mailgun', once('1 delivered')), true)
  assert.equal(await process()('mailgun', once('1 delivered')), true, 'repeated by the vendor')
  assert.equal(await process()('mailgun', once('1 complained')), false)
  assert.equal(await process()('mailgun', once('2 delivered')), false)
  // Another provider, another token: nothing to do with it.
  assert.equal(await process()('mailgun.second', once('2 delivered')), true)
  assert.equal(await process()('mailgun', once('2 delivered', 'b'.repeat(50))), true)
  // Whoever is first among many at once.
  const all = await Promise.all(
    Array.from({ length: 10 }, (_, n) => process()('mailgun', once(`${n}`, 'c'.repeat(50)))),
  )
  assert.equal(all.filter(Boolean).length, 1)
  clock.at = Date.UTC(2026, 10, 21, 21, 0, 1)
  assert.equal(await process()('mailgun', once('2 delivered')), true)
})
