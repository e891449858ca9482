import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { sql } from '../db/pool.ts'
import { testDatabase } from '../test/database.ts'
import type { TestDatabase } from '../test/database.ts'
import { CHANNELS, OUTCOMES } from '../types.ts'
import type { Channel, Outcome, TenantId } from '../types.ts'
import { auditLedger } from './audit.ts'
import { cancelNotification } from './cancel.ts'
import { redriveLetters } from './dead-letters.ts'
import type { Batch } from './commit.ts'
import { OUTCOME_RANK, deliveriesOf } from './status.ts'
import { dayOfId, ended, testLedger, testPlan, testTenant, triedAgain } from './test-ledger.ts'
import type { TestLedger } from './test-ledger.ts'

let database: TestDatabase
let ledger: TestLedger
let tenants: TenantId[]

before(async () => {
  database = await testDatabase()
  ledger = testLedger(database.db)
  tenants = [await testTenant(database.db, 'one'), await testTenant(database.db, 'two')]
})
after(() => database?.drop())

const ENDINGS: Outcome[] = ['delivered', 'sent', 'failed', 'bounced', 'rejected', 'unknown', 'expired']

/** One move: who acts is chosen by numbers, so that a failing run shrinks to a short story. */
type Move =
  | {
      do: 'plan'
      tenant: number
      people: number
      channels: Channel[]
      fallback: boolean
      hold: boolean
      spill: boolean
      suppressed: number
    }
  | { do: 'settle'; batch: number; outcomes: (Outcome | 'again')[] }
  | { do: 'claim'; outcomes: (Outcome | 'again')[] }
  | { do: 'jobs'; outcomes: (Outcome | 'again')[] }
  | { do: 'cancel'; pick: number }
  | { do: 'redrive'; pick: number }

const outcomes = fc.array(fc.constantFrom<Outcome | 'again'>(...ENDINGS, 'again'), {
  minLength: 1,
  maxLength: 6,
})
const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constant('plan' as const),
      tenant: fc.integer({ min: 0, max: 1 }),
      people: fc.integer({ min: 1, max: 4 }),
      channels: fc.uniqueArray(fc.constantFrom<Channel>('in_app', 'email', 'webhook'), { minLength: 1 }),
      fallback: fc.boolean(),
      hold: fc.boolean(),
      spill: fc.boolean(),
      suppressed: fc.integer({ min: 0, max: 3 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('settle' as const), batch: fc.nat(50), outcomes }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constantFrom<'claim' | 'jobs'>('claim', 'jobs'), outcomes }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('cancel' as const, 'redrive' as const), pick: fc.nat(50) }),
  },
)

// covers: DIC-140
test('whatever happens, the rows and the counters agree and nothing is lost', async () => {
  const { db } = database
  await fc.assert(
    fc.asyncProperty(fc.array(move, { minLength: 1, maxLength: 25 }), async moves => {
      const open: Batch[] = []
      const known: { tenantId: TenantId; id: string }[] = []
      for (const [at, step] of moves.entries()) {
        const lane = 1 + (at % 3)
        if (step.do === 'plan') {
          const plan = testPlan(
            tenants[step.tenant]!,
            Array.from({ length: step.people }, (_, person) => ({
              channels: step.channels,
              recipientId: `person-${person}`,
              fallback: step.fallback ? ['sms' as const] : [],
              holds: step.hold
                ? [{ channel: step.channels[0]!, until: new Date(), reason: 'scheduled' as const }]
                : [],
            })),
            { suppressed: step.suppressed },
          )
          known.push(...plan.notifications)
          open.push(...(await ledger.commit([plan], { lane, spill: step.spill })).filter(b => !b.spilled))
        } else if (step.do === 'settle') {
          const batch = open.splice(step.batch % Math.max(1, open.length), 1)[0]
          if (batch) await settleAll(ledger.deliveriesOf(batch), step.outcomes, lane)
        } else if (step.do === 'claim') await settleAll(await ledger.claimBatches(), step.outcomes, lane)
        else if (step.do === 'jobs') {
          await settleAll(await ledger.claimJobs(new Date(Date.now() + 1000)), step.outcomes, lane)
        } else if (step.do === 'cancel') {
          const target = known[step.pick % Math.max(1, known.length)]
          if (target) {
            const { tenantId, id } = target
            await db
              .tx(tx => cancelNotification(tx, tenantId, id, new Date(), lane))
              .catch(error => assert.equal(error.code, 'conflict'))
          }
        } else if (step.do === 'redrive')
          await db.tx(tx =>
            redriveLetters(tx, tenants[step.pick % 2]!, { limit: step.pick }, new Date(), lane),
          )
        assert.deepEqual(await auditLedger(db), [])
      }
      // The set-based derivation of the audit and the view that pages are read from say the same.
      const [view] = await db.rows<{ lost: number }>(
        sql('test_view_lost', `select count(*)::int as lost from deliveries where status = 'lost'`),
      )
      assert.equal(view!.lost, 0)
    }),
    { numRuns: 25 },
  )
})

async function settleAll(
  deliveries: Parameters<typeof ended>[0][],
  how: (Outcome | 'again')[],
  lane: number,
): Promise<void> {
  const settlements = deliveries.map((delivery, at) => {
    const outcome = how[at % how.length]!
    return outcome === 'again' ? triedAgain(delivery, new Date()) : ended(delivery, outcome)
  })
  if (settlements.length > 0) await ledger.settle(settlements, lane)
}

test('one tampered row or counter is found, by day, channel and figure', async () => {
  const { db } = await fresh()
  const books = testLedger(db.db)
  const tenant = await testTenant(db.db, 'three')
  const plan = testPlan(tenant, [{ channels: ['in_app', 'email'] }, { channels: ['email', 'webhook'] }], {
    suppressed: 2,
  })
  const [batch] = await books.commit([plan])
  await books.settle(
    books.deliveriesOf(batch!).map(d => ended(d, d.channel === 'webhook' ? 'failed' : 'sent')),
  )
  assert.deepEqual(await auditLedger(db.db), [])
  const id = plan.notifications[1]!.id
  const day = dayOfId(id)

  const tampering: [text: string, back: string, expected: object[]][] = [
    [
      `update ledger_counters set sent = sent + 1 where channel = 1`,
      `update ledger_counters set sent = sent - 1 where channel = 1`,
      [
        { channel: 'email', what: 'sent', counted: 3, found: 2 },
        { channel: 'email', what: 'live', counted: -1, found: 0 },
      ],
    ],
    [
      `update attempts set outcome = 0 where channel = 8`,
      `update attempts set outcome = 2 where channel = 8`,
      [
        { channel: 'webhook', what: 'failed', counted: 1, found: 0 },
        { channel: 'webhook', what: 'delivered', counted: 0, found: 1 },
      ],
    ],
    [
      `update attempts set final = false where channel = 8`,
      `update attempts set final = true where channel = 8`,
      [
        { channel: 'webhook', what: 'failed', counted: 1, found: 0 },
        { channel: 'webhook', what: 'lost', counted: 0, found: 1, ids: [`${id} webhook`] },
      ],
    ],
    [
      `update events set suppressed = 1`,
      `update events set suppressed = 2`,
      [
        { channel: null, what: 'planned', counted: 2, found: 1 },
        { channel: null, what: 'suppressed', counted: 2, found: 1 },
      ],
    ],
    [
      `update event_counters set received = received + 4`,
      `update event_counters set received = received - 4`,
      [{ channel: null, what: 'events.received', counted: 5, found: 1 }],
    ],
    [
      `update notifications set channels = '\\x0108' where length(channels) = 2 and get_byte(channels, 0) = 0`,
      `update notifications set channels = '\\x0001' where id <> '${id}'`,
      [
        { channel: 'in_app', what: 'planned', counted: 1, found: 0 },
        { channel: 'in_app', what: 'delivered', counted: 1, found: 0 },
        { channel: 'webhook', what: 'planned', counted: 1, found: 2 },
        {
          channel: 'webhook',
          what: 'lost',
          counted: 0,
          found: 1,
          ids: [`${plan.notifications[0]!.id} webhook`],
        },
      ],
    ],
  ]
  for (const [text, back, expected] of tampering) {
    await db.db.pool.query(text)
    const found = await auditLedger(db.db, { tenantId: tenant })
    const key = (d: object) => JSON.stringify(d)
    const wanted = expected.map(e => ({ tenantId: tenant, day, ...e }))
    assert.deepEqual(new Set(found.map(f => key(sorted(f)))), new Set(wanted.map(w => key(sorted(w)))), text)
    assert.deepEqual(await auditLedger(db.db, { tenantId: tenant + 1 }), [])
    assert.deepEqual(await auditLedger(db.db, { to: new Date(Date.now() - 3 * 86_400_000) }), [])
    await db.db.pool.query(back)
    assert.deepEqual(await auditLedger(db.db), [])
  }
  await db.drop()
})

const sorted = (value: object) =>
  Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)))
const fresh = async () => ({ db: await testDatabase() })

test('the database and the code rank outcomes alike', async () => {
  const rows = await database.db.rows<{ name: Outcome; rank: number }>(
    sql(
      'test_ranks',
      `select outcome_name(i::int2) as name, outcome_rank(i::int2) as rank from generate_series(0, $1::int - 1) i`,
    ),
    [OUTCOMES.length],
  )
  assert.deepEqual(
    rows.map(row => row.name),
    [...OUTCOMES],
  )
  assert.deepEqual(Object.fromEntries(rows.map(row => [row.name, row.rank])), OUTCOME_RANK)
})

test('a receipt moves a delivery forward and never back', async () => {
  const tenant = tenants[0]!
  const plan = testPlan(tenant, [{ channels: ['email'] }])
  const id = plan.notifications[0]!.id
  const [batch] = await ledger.commit([plan])
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'sent')))
  const standing = async () => (await deliveriesOf(database.db, tenant, [id])).get(id)![0]!.status
  const receipt = (outcome: Outcome) =>
    database.db.pool.query(
      `insert into delivery_state (tenant_id, notification_id, channel, outcome, at) values ($1, $2, $3, $4, now())
       on conflict (tenant_id, notification_id, channel) do update set outcome = excluded.outcome`,
      [tenant, id, CHANNELS.indexOf('email'), OUTCOMES.indexOf(outcome)],
    )
  assert.equal(await standing(), 'sent')
  await receipt('unknown')
  assert.equal(await standing(), 'sent')
  await receipt('delivered')
  assert.equal(await standing(), 'delivered')
  await receipt('bounced')
  assert.equal(await standing(), 'bounced')
})
