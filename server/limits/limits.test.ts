import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { decide, use } from '../decide/decide.ts'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { candidate } from '../test/candidate.ts'
import { PRIORITIES } from '../types.ts'
import { type LimitQuestion, allCaps } from './limit-book.ts'
import type { LimitDefinition } from './store.ts'
import { type CapWindow, NO_USAGE, capWindow, usage, usageName } from './usage.ts'

const limit = (more: Partial<LimitDefinition> = {}) => ({
  id: 'l',
  name: 'limit',
  scope: 'user' as const,
  channels: [],
  categories: [],
  eventTypes: [],
  tiers: [],
  max: 3,
  costs: {},
  window: 'hour' as const,
  every: 1,
  gapSeconds: null,
  per: 'delivery' as const,
  overflow: 'hold' as const,
  criticalPasses: true,
  shares: {},
  reason: null,
  enabled: true,
  ...more,
})
const question = (more: Partial<LimitQuestion> = {}): LimitQuestion => ({
  tenantId: 1,
  userId: 'ann',
  address: 'ann@example.org',
  channel: 'email',
  category: 'orders',
  eventType: 'shop.order',
  priority: 'NORMAL',
  ruleId: 'r',
  preference: null,
  zone: 'UTC',
  attributes: {},
  summary: false,
  said: () => null,
  ...more,
})

// covers: DIC-086, ALP-152
test('a limit concerns its channels and categories, and counts what its scope says', () => {
  const keys = (definition: Partial<LimitDefinition>, more: Partial<LimitQuestion> = {}) =>
    allCaps([limit(definition)], question(more)).map(cap => cap.key)
  assert.deepEqual(keys({}), ['limit:l:ann'])
  assert.deepEqual(keys({}, { userId: null }), [])
  assert.deepEqual(keys({ scope: 'address' }), ['limit:l:email:ann@example.org'])
  assert.deepEqual(keys({ scope: 'category' }), ['limit:l:orders'])
  assert.deepEqual(keys({ scope: 'tenant' }), ['limit:l:'])
  assert.deepEqual(keys({ channels: ['sms'] }), [])
  assert.deepEqual(keys({ categories: ['news'] }), [])
  assert.deepEqual(keys({}, { channel: 'in_app' }), [])
  const [low] = allCaps([limit({ max: 10, shares: { LOW: 0.5 } })], question({ priority: 'LOW' }))
  assert.equal(low!.max, 5)
  // A share of little is not nothing, and what tells of those held back is not held back for its own priority.
  const [little] = allCaps([limit({ max: 1, shares: { LOW: 0.1 } })], question({ priority: 'LOW' }))
  assert.equal(little!.max, 1)
  const [summary] = allCaps(
    [limit({ max: 10, shares: { LOW: 0 } })],
    question({ priority: 'LOW', summary: true }),
  )
  assert.equal(summary!.max, 10)
  assert.deepEqual(keys({ eventTypes: ['shop.*'] }), ['limit:l:ann'])
  assert.deepEqual(keys({ eventTypes: ['shop.*'] }, { eventType: 'shopping' }), [])
  assert.deepEqual(keys({ eventTypes: ['shop.order'] }, { eventType: 'shop.order.late' }), [])
  const long = { scope: 'address' as const }
  const [one, other] = ['a', 'b'].map(end => keys(long, { address: 'x'.repeat(600) + end })[0]!)
  assert.ok(one!.length <= 500)
  assert.notEqual(one, other, 'what is too long for a key is not cut off')
  const [critical] = allCaps([limit()], question({ priority: 'CRITICAL' }))
  assert.equal(critical!.bypass, true)
})

// covers: DIC-093, DIC-096
test('law: no window ever holds more than its bound, CRITICAL passes and is counted, and nothing vanishes', () => {
  const windows = ['minute', 'hour', 'day'] as const
  fc.assert(
    fc.property(
      fc.array(
        fc
          .record({
            max: fc.integer({ min: 0, max: 4 }),
            window: fc.constantFrom(...windows),
            every: fc.integer({ min: 1, max: 7 }),
            costs: fc.record({ email: fc.nat(3), webhook: fc.nat(3) }, { requiredKeys: [] }),
            shares: fc.record({ LOW: fc.double({ min: 0, max: 1, noNaN: true }) }, { requiredKeys: [] }),
            per: fc.constantFrom('delivery' as const, 'notification' as const),
          })
          .map(one => ({ ...one, every: one.window === 'day' ? 1 : one.every })),
        { minLength: 1, maxLength: 3 },
      ),
      fc.array(
        fc.record({ at: fc.integer({ min: 0, max: 3 * 86_400 }), priority: fc.constantFrom(...PRIORITIES) }),
        { maxLength: 30 },
      ),
      (limits, sends) => {
        const definitions = limits.map((one, i) => ({ ...limit(one), id: String(i) }))
        const book = usage(NO_USAGE)
        const bounded = new Map<string, number>()
        for (const { at, priority } of sends.toSorted((a, b) => a.at - b.at)) {
          const now = new Date(Date.UTC(2026, 0, 5) + at * 1000)
          const telling = {}
          for (const channel of ['email', 'webhook'] as const) {
            const caps = allCaps(definitions, question({ priority, channel }))
            const one = candidate({ priority, channel, caps, usage: book, telling })
            const decision = decide(one, now)
            assert.ok(decision.kind === 'send' || decision.kind === 'hold' || decision.kind === 'skip')
            if (priority === 'CRITICAL') assert.equal(decision.kind, 'send')
            if (decision.kind === 'skip') {
              assert.equal(decision.reason, 'over_limit')
              assert.ok(caps.some(({ max, cost }) => cost > max))
              continue
            }
            const goes = decision.kind === 'hold' ? decision.until : now
            if (decision.kind === 'hold') assert.ok(decision.until > now)
            for (const place of use(one, goes)) {
              const name = usageName(1, place.key, place.windowMs)
              const cap = caps.find(({ key }) => key === place.key)!
              const { start, end } = capWindow(cap.window as CapWindow, cap, goes.getTime())
              assert.equal(place.windowMs, start)
              assert.ok(goes.getTime() < end)
              if (priority === 'CRITICAL') continue
              bounded.set(name, (bounded.get(name) ?? 0) + place.n)
              assert.ok(bounded.get(name)! <= cap.max)
              assert.ok(
                place.n === 0 || book.used(1, place.key, start) <= cap.max,
                'also with those that passed',
              )
            }
          }
        }
      },
    ),
  )
})

test('law: what waits goes with the first window that has room, however many before it are full', () => {
  fc.assert(
    fc.property(
      fc.array(fc.boolean(), { minLength: 1, maxLength: 600 }),
      fc.nat(59_999),
      fc.integer({ min: 1, max: 3 }),
      (filled, offset, ask) => {
        const start = Date.UTC(2026, 0, 5)
        const definition = { ...limit({ window: 'minute', max: 2 }), id: 'l' }
        const counts = new Map(
          filled.flatMap((full, minute) =>
            full ? [[usageName(1, 'limit:l:ann', start + minute * 60_000), 2] as const] : [],
          ),
        )
        const book = usage({ ...NO_USAGE, counts })
        const now = new Date(start + offset)
        const free = Array.from({ length: 10 }, (_, i) => i + filled.length)
        const open = [...filled.keys()].filter(minute => !filled[minute]).concat(free)
        for (let n = 0; n < ask * 2; n++) {
          const caps = allCaps([definition], question())
          const one = candidate({ caps, usage: book, telling: {} })
          const decision = decide(one, now)
          const minute = open[n >> 1]!
          const at = Math.max(now.getTime(), start + minute * 60_000)
          assert.equal(decision.kind === 'hold' ? decision.until.getTime() : now.getTime(), at)
          use(one, new Date(at))
        }
      },
    ),
  )
})

let t: TestApp
before(async () => {
  t = await testApp({ CARILLON_INGEST_LANES: '4' })
})
after(() => t.stop())
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

test('under many writers exactly as many as the limit go at once; the rest waits, and the books balance', async () => {
  await call('POST', '/api/limits', {
    name: 'shop',
    scope: 'tenant',
    channels: ['webhook'],
    max: 25,
    window: 'day',
  })
  await call('POST', '/api/limits', {
    name: 'each',
    scope: 'user',
    channels: ['email'],
    max: 2,
    window: 'day',
  })
  for (const name of ['ann', 'bob', 'eve']) {
    await call('PUT', `/api/users/${name}`, {
      addresses: [
        { channel: 'email', address: `${name}@example.org`, verified: true },
        { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
      ],
    })
  }
  const writers = Array.from({ length: 8 }, async (_, w) => {
    for (let i = 0; i < 10; i++) {
      await call('POST', '/api/notifications', {
        recipientId: ['ann', 'bob', 'eve'][(w + i) % 3],
        channels: ['email', 'webhook', 'in_app'],
        body: `${w} ${i}`,
      })
    }
  })
  await Promise.all(writers)
  const { rows } = await t.db.pool.query<{ key: string; count: number; windows: number }>(
    `select key, max(count)::int as count, count(*)::int as windows from counters where key like 'limit:%' group by key`,
  )
  assert.equal(rows.length, 4, 'one for the tenant and one a person')
  const [tenant] = rows.filter(row => row.key.endsWith(':'))
  // 80 of them, 25 a day: today and three days more.
  assert.deepEqual([tenant!.count, tenant!.windows], [25, 4])
  for (const row of rows) if (row !== tenant) assert.equal(row.count, 2)
  const { rows: inbox } = await t.db.pool.query('select count(*)::int as n from feed')
  assert.equal(inbox[0].n, 80, 'the inbox has everything')
  const { rows: held } = await t.db.pool.query(
    `select channel, count(*)::int as n from jobs where reason = 'limit' and run_at > now() + interval '1 minute' group by 1 order by 1`,
  )
  assert.deepEqual(
    held.map(row => row.n),
    [80 - 3 * 2, 80 - 25],
  )
  assert.deepEqual(await auditLedger(t.db), [])
})

test('what is cancelled gives its place in a later window back, and the next takes it', async () => {
  await call('POST', '/api/limits', {
    name: 'one',
    scope: 'user',
    channels: ['email'],
    max: 1,
    window: 'month',
  })
  await call('POST', '/api/limits', {
    name: 'once for all channels',
    scope: 'user',
    categories: ['shared'],
    max: 1,
    window: 'month',
    per: 'notification',
  })
  await call('PUT', '/api/users/sam', {
    addresses: [
      { channel: 'email', address: 'sam@example.org', verified: true },
      { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
    ],
  })
  const send = (more: object = {}) =>
    call('POST', '/api/notifications', { recipientId: 'sam', channels: ['email'], body: 'Hi', ...more })
  const windows = async (key: string): Promise<number[]> => {
    const { rows } = await t.db.pool.query(
      `select count::int as n from counters where key = (select 'limit:' || id || ':sam' from limits where name = $1) order by window_at`,
      [key],
    )
    return rows.map(row => row.n)
  }
  await send()
  const second = await send()
  assert.deepEqual(await windows('one'), [1, 1])
  const idOf = async ({ eventId }: Loose): Promise<string> => {
    const { rows } = await t.db.pool.query('select id from notifications where event_id = $1', [eventId])
    return rows[0].id
  }
  await call('POST', `/api/notifications/${await idOf(second)}/cancel`)
  assert.deepEqual(await windows('one'), [1, 0])
  const third = await send()
  assert.deepEqual(await windows('one'), [1, 1])
  // Cancelled once, given back once.
  const again = await t.call('POST', `/api/notifications/${await idOf(second)}/cancel`, {
    as: t.tenant.adminKey,
  })
  assert.equal(again.status, 409)
  assert.deepEqual(await windows('one'), [1, 1])
  assert.ok(await idOf(third))

  const shared = { category: 'shared', channels: ['webhook', 'in_app'] }
  await send(shared)
  const waiting = await send(shared)
  assert.deepEqual(await windows('once for all channels'), [1, 1])
  await call('POST', `/api/notifications/${await idOf(waiting)}/cancel`)
  assert.deepEqual(await windows('once for all channels'), [1, 0], 'the inbox has it, and does not count')
  assert.deepEqual(await auditLedger(t.db), [])
})

test('limits are set, changed, listed and lifted; what contradicts itself is refused with its field', async () => {
  const made = await call('POST', '/api/limits', {
    name: 'pause',
    scope: 'user',
    window: 'gap',
    gapSeconds: 300,
  })
  assert.deepEqual([made.max, made.gapSeconds, made.overflow, made.criticalPasses], [1, 300, 'hold', true])
  const changed = await call('PUT', `/api/limits/${made.id}`, {
    name: 'pause',
    scope: 'user',
    window: 'hour',
    max: 5,
  })
  assert.deepEqual([changed.revision, changed.gapSeconds, changed.max], [2, null, 5])
  const { items } = await call('GET', '/api/limits?limit=1')
  assert.deepEqual(
    items.map((one: Loose) => one.name),
    ['pause'],
  )
  const refused = async (body: object) => {
    const { status, body: problem } = await t.call('POST', '/api/limits', { as: t.tenant.adminKey, body })
    return `${status} ${problem.errors?.[0]?.field}`
  }
  assert.deepEqual(
    [
      await refused({ name: 'x', scope: 'user', window: 'gap' }),
      await refused({ name: 'x', scope: 'user', window: 'hour' }),
      await refused({ name: 'x', scope: 'user', window: 'hour', max: -1 }),
      await refused({ name: 'x', scope: 'user', window: 'century', max: 1 }),
      await refused({ name: 'x', scope: 'user', window: 'day', max: 1, channels: ['in_app'] }),
      await refused({ name: 'pause', scope: 'user', window: 'day', max: 1 }),
    ],
    ['400 /gapSeconds', '400 /max', '400 /max', '400 /window', '400 /channels/0', '409 /name'],
  )
  assert.equal((await t.call('DELETE', `/api/limits/${made.id}`, { as: t.tenant.adminKey })).status, 204)
  assert.equal((await t.call('GET', `/api/limits/${made.id}`, { as: t.tenant.adminKey })).status, 404)
})
