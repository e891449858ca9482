import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, beforeEach, test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { sealer } from '../db/seal.ts'
import type { Receipt } from '../deliver/provider.ts'
import { auditLedger } from '../ledger/audit.ts'
import type { Settlement } from '../ledger/settle.ts'
import { OUTCOME_RANK, deliveriesOf } from '../ledger/status.ts'
import { ended, testLedger, testPlan, testTenant } from '../ledger/test-ledger.ts'
import type { TestLedger } from '../ledger/test-ledger.ts'
import { eventually } from '../test/app.ts'
import { testDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import type { Channel, Event, Id, Outcome, TenantId } from '../types.ts'
import { SOFT_BOUNCES, receipts } from './receipts.ts'
import type { Receipts } from './receipts.ts'

const KEY = randomBytes(32)
const PROVIDER = 'testmail'
const TO = 'ann@example.org'
const AT = new Date('2026-03-01T12:00:00Z')

let database: TestDatabase
let ledger: TestLedger
let tenant: TenantId
let tracked: Receipts
let fallbacks: number
let told: Event[]
const errors: unknown[] = []

before(async () => {
  database = await testDatabase()
  ledger = testLedger(database.db)
})
beforeEach(async () => {
  tenant = await testTenant(database.db, `t${newId()}`)
  told = []
  fallbacks = 0
  await tracked?.close()
  tracked = open()
})
const open = (): Receipts =>
  receipts({
    db: database.db,
    seal: { sealer: sealer(randomBytes(32).toString('hex')), keys: [KEY] },
    onFallback: () => void fallbacks++,
    addressOf: async () => TO,
    // As the acceptor does it: what bears an id that came before is a duplicate.
    async publish(event) {
      const fresh = !told.some(one => one.tenantId === event.tenantId && one.externalId === event.externalId)
      if (fresh) told.push(event)
      return fresh
    },
    now: () => AT,
    shard: 9,
    onError: error => errors.push(error),
  })
after(async () => {
  await tracked?.close()
  await database?.drop()
  assert.deepEqual(errors, [])
})

/** A delivery by e-mail, planned and not sent yet. */
async function planned(fallback: Channel[] = []): Promise<Settlement> {
  const [batch] = await ledger.commit([testPlan(tenant, [{ channels: ['email'], fallback }])])
  return ledger.deliveriesOf(batch!)[0]!
}

/** The vendor's answer is recorded, with its id of the message. */
async function settle(delivery: Settlement, outcome: Outcome, messageId: string): Promise<Id> {
  const settlement = ended(delivery, outcome)
  for (const attempt of settlement.attempts) attempt.messageId = messageId
  await ledger.settle([settlement])
  return delivery.notificationId
}

const sent = async (messageId: string = newId()): Promise<{ id: Id; messageId: string }> => ({
  id: await settle(await planned(), 'sent', messageId),
  messageId,
})

const statusOf = async (id: Id): Promise<string> =>
  (await deliveriesOf(database.db, tenant, [id])).get(id)![0]!.status
const take = (...list: Omit<Receipt, 'at'>[]) =>
  tracked.take(
    PROVIDER,
    'email',
    list.map(one => ({ at: AT, ...one })),
  )
const suppressions = async (): Promise<{ address: string; reason: string }[]> =>
  (
    await database.db.pool.query('select address, reason from suppressions where tenant_id = $1 order by 1', [
      tenant,
    ])
  ).rows

const KINDS = ['delivered', 'failed', 'bounced', 'deferred', 'opened', 'clicked', 'complained'] as const
const MEANS: Record<(typeof KINDS)[number], Outcome> = {
  delivered: 'delivered',
  failed: 'failed',
  bounced: 'bounced',
  deferred: 'sent',
  opened: 'delivered',
  clicked: 'delivered',
  complained: 'delivered',
}

// covers: PFM-220, PFM-223, DIC-103
test('receipts in any order and number end at the furthest of them, with the books in balance', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(fc.constantFrom(...KINDS), { maxLength: 5 }), { minLength: 1, maxLength: 4 }),
      async posts => {
        const { id, messageId } = await sent()
        for (const kinds of posts) {
          await take(
            ...kinds.map(kind => ({ kind, providerMessageId: messageId, receiptId: `${id} ${kind}` })),
          )
          assert.deepEqual(await auditLedger(database.db), [])
        }
        const furthest = posts
          .flat()
          .map(kind => MEANS[kind])
          .reduce((a, b) => (OUTCOME_RANK[b] > OUTCOME_RANK[a] ? b : a), 'sent' as Outcome)
        assert.equal(await statusOf(id), furthest)
        // However often it was said.
        const { rows } = await database.db.pool.query(
          'select kind, count(*)::int as n from engagement where tenant_id = $1 and notification_id = $2 group by 1',
          [tenant, id],
        )
        for (const { kind, n } of rows) assert.equal(n, 1, kind)
      },
    ),
    { numRuns: 25 },
  )
})

// covers: PFM-220
test('a receipt that cannot be used does not hold up the others of its request', async () => {
  const one = await sent()
  const two = await sent()
  const found = await take(
    { kind: 'delivered', providerMessageId: one.messageId },
    { kind: 'delivered', notificationId: 'not-one-of-ours' },
    { kind: 'bounced', address: 'no address at all' },
    { kind: 'delivered', notificationId: two.id },
  )
  assert.ok(found >= 2)
  assert.equal(await statusOf(one.id), 'delivered')
  assert.equal(await statusOf(two.id), 'delivered')
})

// covers: PFM-215
test('a message id that is not ours changes nothing, not even for its address', async () => {
  await take({ kind: 'bounced', providerMessageId: 'of another application', address: TO })
  assert.deepEqual(await suppressions(), [])
  assert.deepEqual(told, [])
})

test('a receipt that overtakes our own record is taken once that is written', async () => {
  const delivery = await planned()
  assert.equal(await take({ kind: 'delivered', providerMessageId: 'early' }), 0)
  const id = await settle(delivery, 'sent', 'early')
  await eventually('the delivery moves', async () => (await statusOf(id)) === 'delivered')
  assert.deepEqual(await auditLedger(database.db), [])
})

test('an early receipt outlives the process that took it, tells no address to the database, and is given up in the end', async () => {
  await database.db.pool.query('delete from early_receipts')
  const delivery = await planned()
  await take(
    { kind: 'delivered', providerMessageId: 'over a crash', address: TO },
    { kind: 'delivered', providerMessageId: 'of another application' },
    { kind: 'bounced', address: 'no address at all' },
  )
  // As when the process dies: nothing of it is in memory any more.
  await tracked.close()
  const { rows } = await database.db.pool.query('select receipt, round from early_receipts')
  assert.equal(rows.length, 2)
  for (const { receipt } of rows) assert.ok(!receipt.toString('latin1').includes('ann@'))
  const id = await settle(delivery, 'sent', 'over a crash')
  tracked = open()
  tracked.start()
  await eventually('the delivery moves', async () => (await statusOf(id)) === 'delivered')
  const left = async () => (await database.db.pool.query('select 1 from early_receipts')).rows.length
  assert.equal(await left(), 1)
  // The last of its looks.
  await database.db.pool.query('update early_receipts set round = 3, due_at = now()')
  tracked.start()
  await eventually('the stranger is forgotten', async () => (await left()) === 0)
})

// covers: PFM-174
test('a price that the vendor names later stands at its try', async () => {
  const { id, messageId } = await sent()
  const cost = async () =>
    (await database.db.pool.query('select cost from attempts where notification_id = $1', [id])).rows[0].cost
  await take({ kind: 'delivered', providerMessageId: messageId })
  assert.equal(await cost(), null)
  await take({
    kind: 'delivered',
    providerMessageId: messageId,
    cost: { amount: 0.0079, currency: 'USD' },
  })
  assert.equal(Number(await cost()), 0.0079)
  // Without the vendor's id it is the try that ended the delivery.
  await take({ kind: 'delivered', notificationId: id, cost: { amount: 0.01, currency: 'USD' } })
  assert.equal(Number(await cost()), 0.01)
})

test('a failure told later is a dead letter, once, and the next channel stands in', async () => {
  const id = await settle(await planned(['sms']), 'sent', 'fails later')
  const letters = async () =>
    (
      await database.db.pool.query(
        'select code, error, channel from dead_letters where tenant_id = $1 and notification_id = $2',
        [tenant, id],
      )
    ).rows
  await take({ kind: 'deferred', providerMessageId: 'fails later' })
  assert.deepEqual([await letters(), fallbacks], [[], 0])
  await take({ kind: 'failed', providerMessageId: 'fails later', code: 'refused', detail: 'not today' })
  await take({ kind: 'bounced', providerMessageId: 'fails later' })
  assert.deepEqual(await letters(), [{ code: 'refused', error: 'not today', channel: 1 }])
  assert.equal(fallbacks, 1)
  const { rows } = await database.db.pool.query('select channel, kind from jobs where notification_id = $1', [
    id,
  ])
  assert.deepEqual(rows, [{ channel: 2, kind: 'fallback' }])
  assert.deepEqual(await auditLedger(database.db), [])
})

// covers: AUR-185
test('whoever said stop may say start; a bounce is not theirs to take back', async () => {
  await take({ kind: 'unsubscribed', address: TO, receiptId: 'stop' })
  await take({ kind: 'resubscribed', address: TO, receiptId: 'start' })
  await take({ kind: 'resubscribed', address: TO, receiptId: 'start' })
  assert.deepEqual(await suppressions(), [])
  const types = told.filter(({ tenantId }) => tenantId === tenant).map(({ type }) => type)
  assert.deepEqual(types, ['carillon.address.suppressed', 'carillon.address.restored'])
  // A START that comes again does not undo the STOP that came since.
  await take({ kind: 'unsubscribed', address: TO, receiptId: 'stop again' })
  await take({ kind: 'resubscribed', address: TO, receiptId: 'start' })
  assert.deepEqual(await suppressions(), [{ address: TO, reason: 'unsubscribe' }])
  await take({ kind: 'resubscribed', address: TO, receiptId: 'another start' })
  assert.deepEqual(await suppressions(), [])

  const { messageId } = await sent()
  await take({ kind: 'bounced', providerMessageId: messageId })
  await take({ kind: 'resubscribed', address: TO, receiptId: 'start again' })
  assert.deepEqual(await suppressions(), [{ address: TO, reason: 'hard_bounce' }])
})

// covers: PFM-213, PFM-214, PFM-222
for (const [kind, reason] of [
  ['bounced', 'hard_bounce'],
  ['complained', 'complaint'],
  ['unsubscribed', 'unsubscribe'],
] as const) {
  test(`an address is kept from more once it ${kind}, and the application hears of it once`, async () => {
    const { messageId, id } = await sent()
    const receipt = { kind, providerMessageId: messageId, address: TO, receiptId: `${kind} 1` }
    await take(receipt)
    await take(receipt, receipt)
    assert.deepEqual(await suppressions(), [{ address: TO, reason }])
    assert.deepEqual(
      told.map(({ type, data }) => [type, data.address, data.reason, data.notificationId]),
      [['carillon.address.suppressed', TO, reason, id]],
    )
  })
}

test('what happens between telling and suppressing is mended when the vendor repeats', async () => {
  const { messageId } = await sent()
  const receipt = { kind: 'bounced', providerMessageId: messageId, receiptId: 'b1' } as const
  await take(receipt)
  // As after a crash: told, and not kept.
  await database.db.pool.query('delete from suppressions where tenant_id = $1', [tenant])
  await take(receipt)
  assert.equal((await suppressions()).length, 1)
  assert.equal(told.length, 1)
})

// covers: DIC-103
test('the bounce of a copy keeps that address away and leaves the delivery alone', async () => {
  const { id, messageId } = await sent()
  await take({ kind: 'bounced', providerMessageId: messageId, address: 'Copy@Example.org' })
  assert.equal(await statusOf(id), 'sent')
  assert.deepEqual(await suppressions(), [{ address: 'Copy@example.org', reason: 'hard_bounce' }])
})

test('only messages that were put off in a row make an address dead, each counted once', async () => {
  const putOff = async () => {
    const { messageId } = await sent()
    // A vendor reports every one of its own tries.
    for (const n of [1, 2, 3]) {
      await take({ kind: 'deferred', providerMessageId: messageId, receiptId: `${messageId} ${n}` })
    }
    return messageId
  }
  for (let n = 1; n < SOFT_BOUNCES; n++) await putOff()
  assert.deepEqual(await suppressions(), [])
  // The last of them arrives after all: it begins anew.
  const messageId = await putOff().then(async last => {
    assert.equal((await suppressions()).length, 1)
    return last
  })
  await database.db.pool.query('delete from suppressions where tenant_id = $1', [tenant])
  await take({ kind: 'delivered', providerMessageId: messageId })
  for (let n = 1; n < SOFT_BOUNCES; n++) await putOff()
  assert.deepEqual(await suppressions(), [])
  await putOff()
  assert.deepEqual(await suppressions(), [{ address: TO, reason: 'hard_bounce' }])
  // Nothing that outlives the person names the address.
  const { rows } = await database.db.pool.query('select key from counters where tenant_id = $1', [tenant])
  assert.ok(rows.length > 0)
  assert.ok(rows.every(({ key }) => !key.includes('ann')))
})

// covers: DIC-115
test('a pressed button or an answer is an event for the application, once', async () => {
  const { id, messageId } = await sent()
  const receipt = {
    kind: 'replied',
    providerMessageId: messageId,
    receiptId: 'r1',
    detail: 'approve: 42',
  } as const
  await take(receipt)
  await take(receipt)
  assert.deepEqual(
    told.map(({ type, data }) => [type, data]),
    [
      [
        'carillon.interaction',
        {
          channel: 'email',
          provider: PROVIDER,
          reply: 'approve: 42',
          at: AT.toISOString(),
          notificationId: id,
          recipient: { type: 'user', id: 'alice' },
        },
      ],
    ],
  )
  assert.equal(await statusOf(id), 'sent')
})

test('who tells the installation to stop is kept from every tenant that it serves', async () => {
  const other = await testTenant(database.db, `o${newId()}`)
  await take({ kind: 'unsubscribed', address: TO, receiptId: 'stop' })
  assert.deepEqual(await suppressions(), [{ address: TO, reason: 'unsubscribe' }])
  assert.ok(told.some(one => one.tenantId === other))
  // Whose customer answered cannot be known: no tenant reads another's.
  told.length = 0
  await take({ kind: 'replied', address: TO, receiptId: 'hello', detail: 'hello' })
  assert.deepEqual(told, [])
})
