import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import type { Db } from '../db/pool.ts'
import { sql } from '../db/pool.ts'
import { testDatabase } from '../test/database.ts'
import { claimDueJobs, claimSpilled, nextJobAt, sweepDeadOwners } from './claim.ts'
import { claimOwner } from './owner.ts'
import { LEASE_LOST } from './settle.ts'
import { ended, testLedger, testPlan, testTenant } from './test-ledger.ts'
import type { TestLedger } from './test-ledger.ts'

let database: Awaited<ReturnType<typeof testDatabase>>
let db: Db
let ledger: TestLedger
let busy: number
let quiet: number
let serial = 0
before(async () => {
  database = await testDatabase()
  db = database.db
})
after(() => database.drop())
beforeEach(async () => {
  ledger = testLedger(db)
  serial++
  busy = await testTenant(db, `busy-${serial}`)
  quiet = await testTenant(db, `quiet-${serial}`)
  await db.pool.query('delete from batches')
  await db.pool.query('delete from jobs')
})

// Ours is in milliseconds, the database's in microseconds: what was written just now is due within this one.
const now = () => new Date(Date.now() + 1)
const one = (tenant: number, more: object = {}) => testPlan(tenant, [{ channels: ['webhook'], ...more }])
const owners = () =>
  db.rows<{ owner: number; n: number }>(
    sql('test_owners', 'select owner, count(*)::int as n from batches group by 1 order by 1'),
  )

// covers: ALP-062
test('each tenant gets its share of a claim, and the urgent come first', async () => {
  for (let i = 0; i < 30; i++) await ledger.commit([one(busy, { priority: 'LOW' })], { spill: true })
  await ledger.commit([one(busy, { priority: 'CRITICAL' })], { spill: true })
  await ledger.commit([one(quiet)], { spill: true })

  const claimed = await claimSpilled(db, { owner: 5, now: now(), perTenant: 3, most: 10 })
  const of = (tenant: number) => claimed.flatMap(batch => batch.deliveries).filter(d => d.tenantId === tenant)
  assert.equal(of(quiet).length, 1)
  assert.equal(of(busy).length, 3)
  assert.ok(of(busy).some(delivery => delivery.priority === 'CRITICAL'))
  assert.deepEqual(await owners(), [
    { owner: 0, n: 28 },
    { owner: 5, n: 4 },
  ])
})

test('however many large backlogs there are, a single message of one more is served with the first claim', async () => {
  const crowd = await Promise.all(Array.from({ length: 7 }, (_, i) => testTenant(db, `crowd-${i}`)))
  const last = await testTenant(db, 'last')
  const due = new Date()
  for (const tenant of crowd) {
    for (let i = 0; i < 8; i++) {
      await ledger.commit([one(tenant)], { spill: true })
      await ledger.commit([testPlan(tenant, [{ channels: ['webhook'], holds: [hold('webhook', due)] }])])
    }
  }
  await ledger.commit([one(last)], { spill: true })
  await ledger.commit([testPlan(last, [{ channels: ['webhook'], holds: [hold('webhook', due)] }])])
  assert.deepEqual(await nextJobAt(db, new Date(due.getTime() - 1)), due)
  assert.equal(
    await nextJobAt(db, due),
    null,
    'what is due already is there to be claimed, and comes next no more',
  )

  const options = { owner: 5, now: now(), perTenant: 8, most: 16 }
  const batches = (await claimSpilled(db, options)).flatMap(({ deliveries }) => deliveries)
  const jobs = await claimDueJobs(db, { ...options, channels: ['webhook'] })
  for (const claimed of [batches, jobs]) {
    assert.equal(claimed.length, 15)
    for (const tenant of [...crowd, last]) {
      const n = claimed.filter(({ tenantId }) => tenantId === tenant).length
      assert.equal(n, tenant === last ? 1 : 2)
    }
  }
  const rest = await claimSpilled(db, { ...options, most: 100, except: crowd.slice(1) })
  assert.deepEqual(
    new Set(rest.flatMap(({ deliveries }) => deliveries.map(d => d.tenantId))),
    new Set([crowd[0]]),
  )

  // More tenants than places: all of them get theirs within a few claims.
  const served = new Set<number>()
  for (let i = 0; i < 20; i++) {
    for (const { tenantId } of await claimDueJobs(db, { ...options, most: 2, channels: ['webhook'] })) {
      served.add(tenantId)
    }
  }
  assert.deepEqual(served, new Set(crowd))
})

// covers: DIC-136
test('two that claim at the same time never get the same', async () => {
  for (let i = 0; i < 20; i++) await ledger.commit([one(busy)], { spill: true })
  const claims = await Promise.all(
    [1, 2, 3, 4].map(owner => claimSpilled(db, { owner, now: now(), perTenant: 5, most: 5 })),
  )
  const ids = claims.flat().map(batch => batch.id)
  assert.equal(new Set(ids).size, ids.length)
  assert.ok(ids.length > 0)
})

// covers: PFM-188
test('a job is claimed when it is due, by somebody who delivers its channel', async () => {
  const due = new Date(Date.now() + 60_000)
  await ledger.commit([
    testPlan(busy, [{ channels: ['webhook', 'email'], holds: [hold('webhook', due), hold('email', due)] }]),
  ])
  const claim = (at: Date) =>
    claimDueJobs(db, { owner: 5, now: at, perTenant: 10, most: 10, channels: ['webhook'] })
  assert.deepEqual(await claim(now()), [])
  const claimed = await claim(due)
  assert.deepEqual(
    claimed.map(job => [job.channel, job.job]),
    [['webhook', { kind: 'held', reason: 'scheduled', state: {} }]],
  )
  assert.deepEqual(await claim(due), [], 'it is leased')
})

test('what a dead process held is given back; what a living one holds is not', async () => {
  const living = await claimOwner(db, { roles: ['test'], version: '0' })
  const dying = await claimOwner(db, { roles: ['test'], version: '0' })
  const self = await claimOwner(db, { roles: ['test'], version: '0' })
  for (let i = 0; i < 4; i++) await ledger.commit([one(busy)], { spill: true })
  const { rows } = await db.pool.query<{ id: string }>('select id from batches order by id')
  const give = (owner: number, ids: string[]) =>
    db.pool.query(
      `update batches set owner = $1, lease_until = now() + interval '1 hour' where id = any ($2::int8[])`,
      [owner, ids],
    )
  await give(living.number, [rows[0]!.id])
  await give(dying.number, [rows[1]!.id, rows[2]!.id])
  await give(self.number, [rows[3]!.id])

  // The server drops the lock with the connection, however the process ended.
  await db.pool.query(
    `select pg_terminate_backend(l.pid, 5000) from pg_locks l
     where l.locktype = 'advisory' and l.classid = 7 and l.objid = $1
       and l.database = (select oid from pg_database where datname = current_database())`,
    [dying.number],
  )
  assert.equal(await sweepDeadOwners(db, self.number), 2)
  assert.deepEqual(await owners(), [
    { owner: 0, n: 2 },
    { owner: living.number, n: 1 },
    { owner: self.number, n: 1 },
  ])
  // A connection that hangs half-open keeps its lock; then the lease decides.
  await db.pool.query(`update batches set lease_until = now() - interval '1 second' where owner = $1`, [
    living.number,
  ])
  assert.equal(await sweepDeadOwners(db, self.number), 1)
  await living.close()
  await self.close()
})

test('whoever lost a lease settles nothing', async () => {
  const [batch] = await ledger.commit([one(busy)])
  await db.pool.query('update batches set owner = 4711 where id = $1', [batch!.id])
  const counted = () =>
    db.rows(
      sql('test_counted', 'select sum(delivered)::int as n from ledger_counters where tenant_id = $1'),
      [busy],
    )
  const before = await counted()
  await assert.rejects(ledger.settle(ledger.deliveriesOf(batch!).map(each => ended(each, 'delivered'))), {
    code: LEASE_LOST,
  })
  assert.deepEqual(await counted(), before)
  const { rows } = await db.pool.query('select count(*)::int as n from attempts where tenant_id = $1', [busy])
  assert.equal(rows[0].n, 0)
})

const hold = (channel: 'webhook' | 'email', until: Date) => ({ channel, until, reason: 'scheduled' as const })
