import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { sealer as openSealer } from '../db/seal.ts'
import { auditLedger } from '../ledger/audit.ts'
import { type TestLedger, testLedger, testPlan, testTenant } from '../ledger/test-ledger.ts'
import type { PeopleFacts } from '../people/facts.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { JsonObject, Priority, TenantId } from '../types.ts'
import { type Closer, closer } from './closer.ts'

const keys = openSealer(randomBytes(32).toString('hex'))
const dataKey = keys.unwrap(keys.newDataKey())
const ERASED = 'erased'

let database: TestDatabase
let ledger: TestLedger
let digests: Closer
/** What `onClosed` was told, summed up. */
const told = { events: 0, released: 0 }
before(async () => {
  database = await testDatabase()
  ledger = testLedger(database.db)
  let batches = 0
  digests = closer({
    db: database.db,
    sealer: keys,
    people: {
      load: async () => ({
        get: (_: TenantId, userId: string) => ({
          userId,
          locale: 'en',
          dataKey: userId === ERASED ? undefined : dataKey,
        }),
      }),
    } as unknown as PeopleFacts,
    look: async () => {},
    tenantKey: () => undefined,
    ledger: () => ({
      owner: 300,
      nextBatchId: () => 300 * 0x1_0000_0000 + batches++,
      leaseSeconds: 30,
      roomFor: () => true,
    }),
    onClosed(events, released) {
      told.events += events
      told.released += released
    },
    now: () => new Date(Date.now() + 120_000),
    pollMs: 1_000,
    onError: error => assert.fail(String(error)),
  })
})
after(() => database?.drop())

interface Item {
  priority?: Priority
  expired?: boolean
}

let names = 0
/** Collects these, closes, and says what became of the digest and of each item, in their order. */
async function closed(items: Item[], spec: JsonObject = {}, recipientId = 'ann') {
  const { db } = database
  const tenantId = await testTenant(db, `tenant-${names++}`)
  const due = new Date(Date.now() + 60_000)
  const wish = {
    key: 'k',
    ruleId: null,
    reason: 'digest' as const,
    closesAt: due,
    latestAt: due,
    quietSeconds: null,
    maxItems: 100,
    spec,
  }
  const plan = testPlan(
    tenantId,
    items.map(({ priority = 'NORMAL' }) => ({
      channels: ['email' as const],
      recipientId,
      priority,
      collects: [{ channel: 'email' as const, wish }],
      sealed: keys.seal(dataKey, JSON.stringify({ email: { to: 'ann@example.org', body: 'text' } })),
    })),
  )
  for (const [at, { expired }] of items.entries()) {
    if (expired) plan.notifications[at]!.expiresAt = new Date(Date.now() + 30_000)
  }
  const ids = plan.notifications.map(({ id }) => id)
  await ledger.commit([plan])
  Object.assign(told, { events: 0, released: 0 })
  while (await digests.runOnce());
  const { rows } = await db.pool.query<{
    id: string
    state: string
    code: string | null
    digest: string
    event: boolean
  }>(
    `select i.notification_id as id, i.state, a.code, d.state as digest, d.event_id is not null as event
     from digest_items i join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id
     left join attempts a on a.tenant_id = i.tenant_id and a.notification_id = i.notification_id
     where i.tenant_id = $1`,
    [tenantId],
  )
  assert.deepEqual(await auditLedger(db, { tenantId }), [])
  const { digest, event } = rows[0]!
  assert.equal(told.events, event ? 1 : 0)
  return {
    digest,
    event,
    items: ids.map(id => {
      const { state, code } = rows.find(row => row.id === id)!
      return code === null ? state : `${state} ${code}`
    }),
  }
}

test('several go as one', async () => {
  assert.deepEqual(await closed([{}, {}]), {
    digest: 'closed',
    event: true,
    items: ['closed in_digest', 'closed in_digest'],
  })
})

test('one goes as itself, or as a digest of one', async () => {
  assert.deepEqual(await closed([{}]), { digest: 'released', event: false, items: ['released'] })
  assert.equal(told.released, 1)
  assert.deepEqual(await closed([{}], { single: 'digest' }), {
    digest: 'closed',
    event: true,
    items: ['closed in_digest'],
  })
})

test('what expired meanwhile is not told; when nothing is left nobody is', async () => {
  assert.deepEqual(await closed([{ expired: true }, {}]), {
    digest: 'released',
    event: false,
    items: ['expired expired', 'released'],
  })
  assert.deepEqual(await closed([{ expired: true }, { expired: true }]), {
    digest: 'closed',
    event: false,
    items: ['expired expired', 'expired expired'],
  })
})

test('the first, the last or the most urgent is kept, and goes as itself', async () => {
  const items: Item[] = [
    { priority: 'LOW' },
    { priority: 'HIGH' },
    { priority: 'HIGH' },
    { priority: 'NORMAL' },
  ]
  for (const [retain, kept] of [
    ['first', 0],
    ['highest', 1],
    ['last', 3],
  ] as const) {
    assert.deepEqual(await closed(items, { retain }), {
      digest: 'released',
      event: false,
      items: items.map((_, at) => (at === kept ? 'released' : 'closed not_retained')),
    })
  }
})

test('what was collected for somebody who was erased since ends as cancelled', async () => {
  assert.deepEqual(await closed([{}, {}], {}, ERASED), {
    digest: 'closed',
    event: false,
    items: ['cancelled user_erased', 'cancelled user_erased'],
  })
})

test('the audit finds an item whose job is gone, and a job that no digest knows', async () => {
  const { db } = database
  const tenantId = await testTenant(db, 'tampered')
  const due = new Date(Date.now() + 3_600_000)
  const wish = {
    key: 'k',
    ruleId: null,
    reason: 'digest' as const,
    closesAt: due,
    latestAt: due,
    quietSeconds: null,
    maxItems: 100,
    spec: {},
  }
  const plan = testPlan(tenantId, [
    { channels: ['email'], collects: [{ channel: 'email', wish }] },
    { channels: ['email'], collects: [{ channel: 'email', wish }] },
  ])
  await ledger.commit([plan])
  const what = async () => (await auditLedger(db, { tenantId })).map(d => `${d.what} ${d.counted} ${d.found}`)
  assert.deepEqual(await what(), [])
  const [first, second] = plan.notifications.map(({ id }) => id)
  await db.pool.query(`update jobs set kind = 'held' where notification_id = $1`, [first])
  assert.deepEqual(await what(), ['digest.waiting 2 1'])
  await db.pool.query(`update digest_items set state = 'released' where notification_id = $1`, [first])
  assert.deepEqual(await what(), [])
  await db.pool.query('delete from digest_items where notification_id = $1', [second])
  assert.deepEqual(await what(), ['digest.jobs 1 0'])
})
