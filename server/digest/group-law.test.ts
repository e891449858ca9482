import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type { Db } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { auditLedger } from '../ledger/audit.ts'
import { ledgerWriter } from '../ledger/commit.ts'
import { testPlan, testTenant } from '../ledger/test-ledger.ts'
import { createRule } from '../match/rules-store.ts'
import { ruleDefinition } from '../match/rules.ts'
import type { PeopleFacts, UserFacts } from '../people/facts.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Id, TenantId } from '../types.ts'
import { type Closer, closer } from './closer.ts'
import { digestWish } from './wish.ts'

const keys = openSealer(randomBytes(32).toString('hex'))
const dataKey = keys.unwrap(keys.newDataKey())
const DAY_MS = 86_400_000

let database: TestDatabase
let db: Db
before(async () => {
  database = await testDatabase()
  db = database.db
})
after(() => database?.drop())

type Move =
  | { do: 'resolve'; alert: number }
  /** Ends by itself after so many seconds. */
  | { do: 'fire'; alert: number; lasts: number }
  | { do: 'wait'; seconds: number; crash: 'none' | 'before the items' | 'before the events' }

const move: fc.Arbitrary<Move> = fc.oneof(
  fc.record({ do: fc.constant('resolve' as const), alert: fc.nat(2) }),
  fc.record({
    do: fc.constant('fire' as const),
    alert: fc.nat(2),
    lasts: fc.constantFrom(100, 1_500, 86_400),
  }),
  fc.record({
    do: fc.constant('wait' as const),
    seconds: fc.oneof(fc.integer({ min: 1, max: 120 }), fc.integer({ min: 1, max: 3_000 })),
    crash: fc.constantFrom('none' as const, 'before the items' as const, 'before the events' as const),
  }),
)

interface Word {
  ms: number
  alert: number
  /** Until when it fires; 0: it does not. */
  untilMs: number
  notificationId: Id
}

test('law: a group is told again while something fires and only then, of just that, whoever dies meanwhile', async () => {
  const clock = { ms: Date.now() }
  const state = { crash: 'none' as string }
  const closers = [0, 1].map(who => openCloser(who, state, clock))
  const writer = ledgerWriter(1)
  let batches = 0
  let runs = 0
  let repeats = 0

  await fc.assert(
    fc.asyncProperty(
      fc.array(move, { minLength: 2, maxLength: 12 }),
      fc.integer({ min: 0, max: 60 }),
      fc.integer({ min: 1, max: 300 }),
      fc.integer({ min: 300, max: 900 }),
      async (moves, waitSeconds, intervalSeconds, repeatSeconds) => {
        const tenantId = await testTenant(db, `run-${runs++}`)
        const actor = { tenantId, kind: 'system' } as const
        const definition = ruleDefinition(
          { name: 'group', channels: ['email'], recipients: { users: ['ann'] } },
          new Date(0),
        )
        const { rule } = await db.tx(tx => createRule(tx, actor, definition, new Date()))
        const words: Word[] = []

        const say = async (alert: number, lasts: number): Promise<void> => {
          const now = new Date(clock.ms)
          const untilMs = lasts === 0 ? 0 : clock.ms + lasts * 1000
          const wish = digestWish(
            {
              ruleId: rule.id,
              eventType: 'alert',
              policy: { group: { by: ['x'], waitSeconds, intervalSeconds, repeatSeconds } },
              key: 'all',
              preference: null,
              channel: 'email',
              zone: 'UTC',
            },
            now,
          )!
          const body = { to: 'ann@example.org', subject: `alert ${alert}`, body: 'text' }
          const sealed = keys.seal(dataKey, JSON.stringify({ email: body }))
          const collects = [{ channel: 'email' as const, wish }]
          const plan = testPlan(tenantId, [
            { channels: ['email'], recipientId: 'ann', collects, sealed, ruleId: rule.id },
          ])
          plan.alerts = [
            {
              key: `alert:${alert}`,
              status: untilMs > 0 ? 'firing' : 'resolved',
              labels: {},
              at: now,
              startedAt: now,
              endsAt: untilMs > 0 ? new Date(untilMs) : null,
            },
          ]
          const client = await db.pool.connect()
          try {
            await writer.commit(client, [plan], {
              owner: 77,
              nextBatchId: () => 77 * 0x1_0000_0000 + batches++,
              leaseSeconds: 30,
              roomFor: () => true,
              insertEvents: true,
              inTransaction: false,
              nowMs: clock.ms,
            })
          } finally {
            client.release()
          }
          words.push({ ms: clock.ms, alert, untilMs, notificationId: plan.notifications[0]!.id })
        }
        /** Lets time pass; what is due closes at its time, by one closer that may die and then by whoever comes first. */
        const pass = async (seconds: number, crash: string): Promise<void> => {
          const until = clock.ms + seconds * 1000
          for (;;) {
            const { rows } = await db.pool.query<{ at: Date | null }>(
              `select min(closes_at) as at from digests where tenant_id = $1 and state = 'open' and closes_at <= $2`,
              [tenantId, new Date(until)],
            )
            const at = rows[0]!.at
            if (at === null) break
            clock.ms = Math.max(clock.ms, at.getTime())
            state.crash = crash
            if (crash !== 'none') await assert.rejects(closers[0]!.runOnce(), /dead/)
            state.crash = 'none'
            await Promise.all(closers.map(one => one.runOnce()))
          }
          // What is said next comes after what closed in this very moment.
          clock.ms = until + 1
        }

        for (const one of moves) {
          if (one.do === 'wait') await pass(one.seconds, one.crash)
          else await say(one.alert, one.do === 'fire' ? one.lasts : 0)
        }
        await pass(2 * repeatSeconds + intervalSeconds, 'none')
        for (const alert of [0, 1, 2])
          if (fires(lastWord(words, alert, clock.ms), clock.ms)) await say(alert, 0)
        await pass((3 * DAY_MS) / 1000, 'none')
        repeats += await check(tenantId, words, { waitSeconds, intervalSeconds, repeatSeconds })
        assert.deepEqual(await auditLedger(db, { tenantId }), [])
      },
    ),
    {
      numRuns: 25,
      examples: [
        // An alert ends in the moment in which it is told again.
        [
          [
            { do: 'fire', alert: 0, lasts: 86_400 },
            { do: 'wait', seconds: 1, crash: 'none' },
            { do: 'resolve', alert: 1 },
          ],
          1,
          1,
          300,
        ],
      ],
    },
  )
  assert.ok(repeats > 0, 'something was told again at all')
})

const fires = (word: Word | undefined, ms: number): word is Word => word !== undefined && word.untilMs > ms

const lastWord = (words: readonly Word[], alert: number, ms: number): Word | undefined =>
  words.findLast(word => word.alert === alert && word.ms <= ms)

async function check(
  tenantId: TenantId,
  words: readonly Word[],
  group: { waitSeconds: number; intervalSeconds: number; repeatSeconds: number },
): Promise<number> {
  const { rows } = await db.pool.query<{
    state: string
    items: number
    closed_at: Date
    data: Buffer | null
    held: Id[]
  }>(
    `select d.state, d.items, d.closed_at, e.data,
       array(select i.notification_id from digest_items i where i.tenant_id = d.tenant_id and i.digest_id = d.id) as held
     from digests d left join events e on e.tenant_id = d.tenant_id and e.id = d.event_id
     where d.tenant_id = $1 order by d.closed_at`,
    [tenantId],
  )
  assert.ok(
    rows.every(row => row.state !== 'open'),
    'nothing fires, so nothing waits',
  )
  let repeats = 0
  let before: { ms: number; told: Set<Id> } = { ms: 0, told: new Set() }
  const ever = new Set<Id>()
  for (const { state, items, closed_at, data, held } of rows) {
    const ms = closed_at.getTime()
    if (data === null && state !== 'released') {
      assert.equal(items, 0)
      assert.equal(firingOf(words, before.told, ms).length, 0, 'what is not told again has ended')
      before = { ms, told: new Set() }
      continue
    }
    for (const id of held) {
      ever.add(id)
      const waited = ms - words.find(word => word.notificationId === id)!.ms
      const most = Math.max(group.waitSeconds, group.intervalSeconds)
      assert.ok(waited <= most * 1000, `a word waited ${waited} ms`)
    }
    const firing = firingOf(words, ever, ms)
    if (items === 0) {
      repeats++
      const { items: said } = (
        JSON.parse(keys.open(dataKey, data!).toString('utf8')) as {
          data: { items: { notificationId: Id }[] }
        }
      ).data
      assert.ok(firing.length > 0, 'it is told again while something fires')
      assert.deepEqual(
        said.map(one => one.notificationId).sort(),
        firing.sort(),
        'of all that fires, and only that',
      )
      assert.equal(ms - before.ms, group.repeatSeconds * 1000, 'after its interval')
    }
    if (before.told.size > 0) {
      const most = Math.max(group.repeatSeconds + group.waitSeconds, group.intervalSeconds)
      assert.ok(ms - before.ms <= most * 1000, `nothing was said for ${ms - before.ms} ms`)
    }
    before = { ms, told: new Set(firing) }
  }
  assert.equal(before.told.size, 0, 'the last message left nothing')
  assert.equal(ever.size, words.length, 'each word was told')
  return repeats
}

/** Of these, the last words about alerts that fire. */
const firingOf = (words: readonly Word[], among: ReadonlySet<Id>, ms: number): Id[] =>
  [0, 1, 2].flatMap(alert => {
    const word = lastWord(words, alert, ms)
    return fires(word, ms) && among.has(word.notificationId) ? [word.notificationId] : []
  })

function openCloser(who: number, state: { crash: string }, clock: { ms: number }): Closer {
  const people = {
    load: async () => ({
      get: (_: TenantId, userId: string) => ({ dataKey, locale: 'en', userId }) as UserFacts,
    }),
  } as unknown as PeopleFacts
  let batches = 0
  let calls = 0
  const made = closer({
    db,
    sealer: keys,
    people,
    look: async () => {},
    tenantKey: () => undefined,
    ledger() {
      calls++
      if (who === 0 && calls === 1 && state.crash === 'before the items') throw new Error('dead')
      // What settles comes after the digests are closed and opened again.
      if (who === 0 && calls === 2 && state.crash === 'before the events') throw new Error('dead')
      return {
        owner: 300 + who,
        nextBatchId: () => (300 + who) * 0x1_0000_0000 + batches++,
        leaseSeconds: 30,
        roomFor: () => true,
      }
    },
    onClosed() {},
    now: () => new Date(clock.ms),
    pollMs: 1_000,
    onError: error => assert.fail(String(error)),
  })
  return {
    ...made,
    runOnce() {
      calls = 0
      return made.runOnce()
    },
  }
}
