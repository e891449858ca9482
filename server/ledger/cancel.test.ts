import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from '../db/pool.ts'
import { testDatabase } from '../test/database.ts'
import { auditLedger } from './audit.ts'
import { cancelNotification } from './cancel.ts'
import { claimDueJobs } from './claim.ts'
import { deliveriesOf } from './status.ts'
import { TEST_OWNER, testLedger, testPlan, testTenant, triedAgain } from './test-ledger.ts'

let database: Awaited<ReturnType<typeof testDatabase>>
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

test('a job keeps what a try came to, through each try; cancelled then, it stays sent where some have it', async () => {
  const { db } = database
  const ledger = testLedger(db)
  const tenantId = await testTenant(db, 'devices')
  const plan = testPlan(tenantId, [{ channels: ['push', 'email'] }])
  const { id } = plan.notifications[0]!
  const [batch] = await ledger.commit([plan])
  const past = new Date(Date.now() - 1000)
  const kept = { devices: { taken: ["one'", 'two\\'], ended: [] } }
  await ledger.settle(
    ledger.deliveriesOf(batch!).map(delivery => {
      const tried = triedAgain(delivery, past)
      return delivery.channel === 'push' ? { ...tried, again: { ...tried.again!, state: kept } } : tried
    }),
  )
  const claim = () =>
    claimDueJobs(db, {
      owner: TEST_OWNER,
      now: new Date(),
      perTenant: 10,
      most: 10,
      channels: ['push', 'email'],
    })
  const states = (jobs: Awaited<ReturnType<typeof claim>>) =>
    Object.fromEntries(jobs.map(({ channel, job }) => [channel, job!.state]))
  const first = await claim()
  assert.deepEqual(states(first), { push: kept, email: {} })

  // A try that changes nothing of it says nothing of it.
  const settlements = first.map(job => ({ ...job, batch: null, attempts: [], again: null }))
  await ledger.settle(settlements.map(job => triedAgain(job, past)))
  assert.deepEqual(states(await claim()), { push: kept, email: {} })
  await db.run(sql('test_free_jobs', 'update jobs set owner = 0, lease_until = null where tenant_id = $1'), [
    tenantId,
  ])

  const { cancelled } = await db.tx(tx => cancelNotification(tx, tenantId, id, new Date(), 1))
  assert.deepEqual(cancelled.toSorted(), ['email', 'push'])
  const stands = (await deliveriesOf(db, tenantId, [id])).get(id)!
  assert.deepEqual(Object.fromEntries(stands.map(({ channel, status }) => [channel, status])), {
    email: 'cancelled',
    push: 'sent',
  })
  assert.deepEqual(await auditLedger(db, {}), [])
})
