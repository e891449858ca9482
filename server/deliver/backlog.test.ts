import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sealer } from '../db/seal.ts'
import type { Settlement } from '../ledger/settle.ts'
import { TEST_OWNER, testLedger, testPlan, testTenant, triedAgain } from '../ledger/test-ledger.ts'
import { testDatabase } from '../test/database.ts'
import { backlog } from './backlog.ts'
import type { BacklogParts } from './backlog.ts'

let database: Awaited<ReturnType<typeof testDatabase>>
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

test('what some devices show ends as sent, and what nobody has as cancelled, when its reader was erased', async () => {
  const { db } = database
  const ledger = testLedger(db)
  const tenantId = await testTenant(db, 'erased')
  const plans = [1, 2].map(() => testPlan(tenantId, [{ channels: ['push'] }]))
  const [some, none] = plans.map(({ notifications }) => notifications[0]!.id)
  const past = new Date(Date.now() - 1000)
  for (const batch of await ledger.commit(plans)) {
    await ledger.settle(
      ledger.deliveriesOf(batch).map(delivery => {
        const tried = triedAgain(delivery, past)
        if (delivery.notificationId !== some) return tried
        return { ...tried, again: { ...tried.again!, state: { devices: { taken: ['phone'], ended: [] } } } }
      }),
    )
  }

  const settled: Settlement[] = []
  const nobody = { get: () => undefined, tenantDefaults: () => [] }
  const parts: Partial<BacklogParts> = {
    db,
    loop: { room: 100, full: () => [], push: list => assert.deepEqual(list, []) } as Partial<
      BacklogParts['loop']
    > as BacklogParts['loop'],
    sealer: sealer('0'.repeat(64)),
    people: { load: async () => nobody } as Partial<BacklogParts['people']> as BacklogParts['people'],
    look: async () => {},
    settle: settlement => void settled.push(settlement),
    owner: () => TEST_OWNER,
    now: () => new Date(),
    channels: ['push'],
    claimJobs: 100,
    claimBatches: 10,
  }
  assert.equal(await backlog(parts as BacklogParts).runOnce(), true)
  const ends = new Map(settled.map(one => [one.notificationId, one.attempts.at(-1)!]))
  assert.deepEqual([ends.get(some!)!.outcome, ends.get(some!)!.code], ['sent', 'user_erased'])
  assert.deepEqual([ends.get(none!)!.outcome, ends.get(none!)!.code], ['cancelled', 'user_erased'])
})
