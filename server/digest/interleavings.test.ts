import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { openDb } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import { auditLedger } from '../ledger/audit.ts'
import { cancelNotification } from '../ledger/cancel.ts'
import { type TestLedger, testLedger, testPlan, testTenant } from '../ledger/test-ledger.ts'
import type { PeopleFacts, UserFacts } from '../people/facts.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Id, TenantId } from '../types.ts'
import { type Closer, closer } from './closer.ts'
import { DIGEST_EVENT } from './compose.ts'
import { cancelDigest, cancelItem, lockOpenDigest, releaseDigest, releaseOne } from './store.ts'

const keys = openSealer(randomBytes(32).toString('hex'))
const dataKey = keys.unwrap(keys.newDataKey())

let database: TestDatabase
let db: Db
let ledger: TestLedger
const pools: Db[] = []
before(async () => {
  database = await testDatabase()
  db = database.db
  ledger = testLedger(db)
})
after(async () => {
  for (const pool of pools) await pool.close()
  await database?.drop()
})

/** How a closer's process dies in the middle of closing: its connection breaks, or it gets no further. */
type Crash = 'none' | 'connection' | 'before the items' | 'before the ledger' | 'before the events'
const CRASHES: Crash[] = ['none', 'connection', 'before the items', 'before the ledger', 'before the events']

type Move =
  | { do: 'collect'; person: number; key: number; count: number; lane: number; most: number; quiet: boolean }
  | { do: 'cancel notification' | 'take out' | 'send ahead'; pick: number }
  | { do: 'release digest' | 'cancel digest'; pick: number }
  | { do: 'wait'; seconds: number }
  | { do: 'close'; who: number; crash: Crash }

const pick = fc.nat(1_000)
const move: fc.Arbitrary<Move> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('collect' as const),
      person: fc.nat(1),
      key: fc.nat(1),
      count: fc.integer({ min: 1, max: 4 }),
      lane: fc.integer({ min: 1, max: 3 }),
      most: fc.constantFrom(3, 100),
      quiet: fc.boolean(),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      do: fc.constantFrom('cancel notification' as const, 'take out' as const, 'send ahead' as const),
      pick,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('release digest' as const, 'cancel digest' as const), pick }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('wait' as const), seconds: fc.integer({ min: 1, max: 90 }) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('close' as const),
      who: fc.nat(1),
      crash: fc.constantFrom(...CRASHES, 'none' as const),
    }),
  },
)
/** Moves of one round are made at once, each over a connection of its own. */
const story = fc.array(fc.array(move, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 10 })

const WINDOW_MS = 60_000

// covers: DIC-097
test('law: whatever meets whatever, and wherever a closer dies, each item is told once or ended once', async () => {
  let runs = 0
  const clock = { ms: Date.now() }
  const crashing = [{ crash: 'none' as Crash }, { crash: 'none' as Crash }]
  const closers = crashing.map((state, who) => openCloser(who, state, clock))

  await fc.assert(
    fc.asyncProperty(story, async rounds => {
      const tenantId = await testTenant(db, `run-${runs++}`)
      // Digests of another run are never due here: every run closes its own.
      clock.ms = Math.max(clock.ms, Date.now())
      lanes.length = turns.length = 0
      for (const round of rounds)
        await Promise.all(round.map(one => make(one, tenantId, closers, crashing, clock)))
      for (const state of crashing) state.crash = 'none'
      clock.ms += 2 * WINDOW_MS
      while (await anyOpen(tenantId)) await Promise.all(closers.map(one => one.runOnce()))

      assert.deepEqual(await auditLedger(db, { tenantId }), [])
      await checkItems(tenantId)
    }),
    {
      numRuns: 40,
      // Each way to die, met for certain. A connection that broke between two statements ended the process once.
      examples: CRASHES.map((crash): [Move[][]] => [
        [
          [{ do: 'collect', person: 0, key: 0, count: 2, lane: 1, most: 100, quiet: false }],
          [{ do: 'wait', seconds: 90 }],
          [{ do: 'close', who: 0, crash }],
        ],
      ]),
    },
  )
  assert.deepEqual(died, new Set(CRASHES.slice(1)))
})

async function make(
  move: Move,
  tenantId: TenantId,
  closers: readonly Closer[],
  crashing: readonly { crash: Crash }[],
  clock: { ms: number },
): Promise<void> {
  const now = new Date(clock.ms)
  const anItem = (n: number) =>
    pickOf<{ id: Id; digest_id: Id }>(
      `select notification_id as id, digest_id from digest_items where tenant_id = $1 order by notification_id`,
      tenantId,
      n,
    )
  const aDigest = (n: number) =>
    pickOf<{ id: Id }>(`select id from digests where tenant_id = $1 order by id`, tenantId, n)
  switch (move.do) {
    case 'collect': {
      const wish = {
        key: `key ${move.key}`,
        ruleId: null,
        reason: 'digest' as const,
        closesAt: new Date(clock.ms + (move.quiet ? 20_000 : WINDOW_MS)),
        latestAt: new Date(clock.ms + WINDOW_MS),
        quietSeconds: move.quiet ? 20 : null,
        maxItems: move.most,
        spec: {},
      }
      const sealed = keys.seal(dataKey, JSON.stringify({ email: { to: 'x@example.org', body: 'text' } }))
      const planned = testPlan(
        tenantId,
        Array.from({ length: move.count }, () => ({
          channels: ['email' as const],
          recipientId: `person ${move.person}`,
          collects: [{ channel: 'email' as const, wish }],
          sealed,
        })),
      )
      // A lane is one connection: its batches go one after the other.
      await (lanes[move.lane] = (lanes[move.lane] ?? Promise.resolve()).then(async () => {
        await ledger.commit([planned], { lane: move.lane })
      }))
      return
    }
    case 'wait':
      clock.ms += move.seconds * 1000
      return
    case 'close': {
      // A process closes one batch after the other.
      await (turns[move.who] = (turns[move.who] ?? Promise.resolve()).then(async () => {
        crashing[move.who]!.crash = move.crash
        try {
          await closers[move.who]!.runOnce()
        } catch (error) {
          if (move.crash === 'none' && !overtaken(error)) throw error
          if (move.crash !== 'none') died.add(move.crash)
        }
      }))
      return
    }
    case 'cancel notification': {
      const item = await anItem(move.pick)
      if (item) await unlessOver(db.tx(tx => cancelNotification(tx, tenantId, item.id, now, 5)))
      return
    }
    case 'take out':
    case 'send ahead': {
      const item = await anItem(move.pick)
      if (!item) return
      await unlessOver(
        db.tx(async tx => {
          await lockOpenDigest(tx, tenantId, item.digest_id)
          if (move.do === 'take out') await cancelItem(tx, tenantId, item.digest_id, item.id, now, 6)
          else await releaseOne(tx, tenantId, item.digest_id, item.id, now)
        }),
      )
      return
    }
    case 'release digest':
    case 'cancel digest': {
      const digest = await aDigest(move.pick)
      if (!digest) return
      await unlessOver(
        db.tx(async tx => {
          await lockOpenDigest(tx, tenantId, digest.id)
          if (move.do === 'cancel digest') await cancelDigest(tx, tenantId, digest.id, now, 7)
          else await releaseDigest(tx, tenantId, digest.id, now)
        }),
      )
    }
  }
}
const lanes: Promise<void>[] = []
const turns: Promise<void>[] = []
const died = new Set<Crash>()

/** What was closed, or cancelled, before us is no failure. */
async function unlessOver(work: Promise<unknown>): Promise<void> {
  try {
    await work
  } catch (error) {
    if (!(error instanceof AppError && ['conflict', 'not_found'].includes(error.code)) && !overtaken(error))
      throw error
  }
}
/** Two that met: PostgreSQL let one of them go on (deadlock_detected). */
const overtaken = (error: unknown) => (error as { code?: string }).code === '40P01'

async function pickOf<R>(statement: string, tenantId: TenantId, n: number): Promise<R | undefined> {
  const { rows } = await db.pool.query(statement, [tenantId])
  return rows[n % rows.length] as R | undefined
}

const anyOpen = async (tenantId: TenantId) =>
  (await pickOf(`select id from digests where tenant_id = $1 and state = 'open'`, tenantId, 0)) !== undefined

async function checkItems(tenantId: TenantId): Promise<void> {
  const { rows: notifications } = await db.pool.query<{ id: Id }>(
    'select id from notifications where tenant_id = $1',
    [tenantId],
  )
  const { rows: items } = await db.pool.query<{
    id: Id
    state: string
    event_id: Id | null
    max_items: number
    job: string | null
    codes: string[]
  }>(
    `select i.notification_id as id, i.state, d.event_id, d.max_items, j.kind as job,
       array(select a.code from attempts a where a.tenant_id = i.tenant_id and a.notification_id = i.notification_id) as codes
     from digest_items i join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id
     left join jobs j on j.tenant_id = i.tenant_id and j.notification_id = i.notification_id
     where i.tenant_id = $1`,
    [tenantId],
  )
  assert.equal(items.length, notifications.length)
  const { rows: events } = await db.pool.query<{ id: Id; data: Buffer }>(
    'select id, data from events where tenant_id = $1 and type = $2',
    [tenantId, DIGEST_EVENT],
  )
  const told = new Map<Id, Id[]>()
  for (const event of events) {
    const { data } = JSON.parse(keys.open(dataKey, event.data).toString('utf8')) as {
      data: { count: number; more: number; items: { notificationId: Id }[] }
    }
    const gone = items.filter(item => item.state === 'closed' && item.event_id === event.id)
    // What one batch brings past the bound is counted in the message, not listed.
    assert.equal(data.count, gone.length)
    assert.equal(data.items.length, Math.min(gone.length, gone[0]!.max_items))
    assert.equal(data.more, data.count - data.items.length)
    for (const { notificationId } of data.items) {
      told.set(notificationId, [...(told.get(notificationId) ?? []), event.id])
    }
  }
  for (const { id, state, event_id, job, codes } of items) {
    const story = JSON.stringify({ id, state, event_id, job, codes })
    if (state === 'closed') {
      assert.ok(
        events.some(event => event.id === event_id),
        story,
      )
      assert.deepEqual(told.get(id) ?? [event_id], [event_id], story)
      assert.deepEqual([job, codes], [null, ['in_digest']], story)
    } else {
      assert.equal(told.get(id), undefined, story)
      // Sent by itself, unless somebody cancelled it after it was let go.
      if (state === 'released')
        assert.deepEqual([job, codes], job ? ['held', []] : [null, ['cancelled']], story)
      else assert.deepEqual([state, job, codes], ['cancelled', null, ['cancelled']], story)
    }
  }
}

/** A closer as in a process of its own: its own connections, its own number, and it may die. */
function openCloser(who: number, state: { crash: Crash }, clock: { ms: number }): Closer {
  const name = `closer ${who}`
  const own = openDb(database.url, { max: 3, applicationName: name })
  pools.push(own)
  const facts = { dataKey, locale: 'en' } as UserFacts
  let batches = 0
  let calls = 0
  const people = {
    load: async () => ({ get: (_: TenantId, userId: string) => ({ ...facts, userId }) }),
  } as unknown as PeopleFacts
  const dies = (point: Crash) => {
    if (state.crash === point) throw new Error(`dead ${point}`)
  }
  const made = closer({
    db: own,
    sealer: keys,
    people,
    async look() {
      if (state.crash !== 'connection') return
      await db.pool.query(
        `select pg_terminate_backend(pid) from pg_stat_activity
         where datname = current_database() and application_name = $1 and state = 'idle in transaction'`,
        [name],
      )
    },
    tenantKey: () => undefined,
    ledger() {
      // Asked once to take the items, once to settle them, once to write the events.
      calls++
      if (calls === 1) dies('before the items')
      if (calls === 2) dies('before the ledger')
      if (calls === 3) dies('before the events')
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
