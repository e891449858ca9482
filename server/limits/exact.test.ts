import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { startApp } from '../app.ts'
import { loadConfig } from '../config.ts'
import { sql } from '../db/pool.ts'
import { auditLedger } from '../ledger/audit.ts'
import { isUsageConflict, takeUsage } from '../ledger/usage.ts'
import { createLogger } from '../observe/log.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { type Cap, NO_USAGE, usage, usageName } from './usage.ts'

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
const person = (name: string, tier?: string) =>
  call('PUT', `/api/users/${name}`, {
    attributes: { tier },
    addresses: [
      { channel: 'email', address: `${name}@example.org`, verified: true },
      { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
    ],
  })

const WRITERS = 8
/** Every writer sends its messages one after the other, beside all others. */
const everybody = (each: number, send: (writer: number, n: number) => Promise<unknown>) =>
  Promise.all(
    Array.from({ length: WRITERS }, async (_, writer) => {
      for (let n = 0; n < each; n++) await send(writer, n)
    }),
  )
/** What each window of the limit's counters holds, in their order. */
const counted = async (name: string): Promise<number[]> => {
  const { rows } = await t.db.pool.query<{ n: number }>(
    `select c.count::int as n from limits l join counters c on c.tenant_id = l.tenant_id and c.key like 'limit:' || l.id || ':%'
     where l.name = $1 order by c.key, c.window_at`,
    [name],
  )
  return rows.map(({ n }) => n)
}
const sum = (list: readonly number[]) => list.reduce((a, b) => a + b, 0)

const cap = (max: number, more: Partial<Cap> = {}): Cap => ({
  key: 'shared',
  max,
  window: 'hour',
  zone: 'UTC',
  cost: 1,
  per: 'delivery',
  overflow: 'hold',
  bypass: false,
  reason: 'limit',
  label: '',
  ...more,
})

// covers: DIC-093, PFM-143
test('whatever was counted meanwhile, a batch is taken exactly when each of its decisions still holds', async () => {
  const read = sql('test_counter', `select count::int as n from counters where tenant_id = $1 and key = $2`)
  let run = 0
  await fc.assert(
    fc.asyncProperty(
      fc.nat(12),
      fc.nat(6),
      fc.array(fc.record({ max: fc.integer({ min: 1, max: 15 }), cost: fc.nat(3), bypass: fc.boolean() }), {
        minLength: 1,
        maxLength: 8,
      }),
      async (before, meanwhile, wishes) => {
        const key = `law:${run++}`
        const tenantId = t.tenant.id
        const window = Date.UTC(2026, 0, 1)
        const book = usage({ ...NO_USAGE, counts: new Map([[usageName(tenantId, key, window), before]]) })
        let taken = 0
        let holds = true
        for (const { max, cost, bypass } of wishes) {
          if (!bypass && book.used(tenantId, key, window) + cost > max) continue
          if (!bypass && before + meanwhile + taken + cost > max) holds = false
          taken += cost
          book.take(tenantId, cap(max, { key, cost, bypass }), window, {})
        }
        await t.db.pool.query(
          'insert into counters (tenant_id, key, window_at, count) values ($1, $2, $3, $4)',
          [tenantId, key, new Date(window), before + meanwhile],
        )
        const used = book.taken()
        const took =
          used === null ||
          (await t.db.pool.query(takeUsage(used)).then(
            () => true,
            error => {
              assert.ok(isUsageConflict(error), String(error))
              return false
            },
          ))
        assert.equal(took, holds)
        const after = await t.db.one<{ n: number }>(read, [tenantId, key])
        assert.equal(after!.n, before + meanwhile + (took ? taken : 0))
      },
    ),
    { numRuns: 150 },
  )
})

test('any key and note is taken as it is', async () => {
  const tenantId = t.tenant.id
  await fc.assert(
    fc.asyncProperty(
      fc.uniqueArray(fc.string({ unit: 'binary', maxLength: 40 }), { minLength: 1, maxLength: 5 }),
      fc.string({ unit: 'binary', maxLength: 40 }),
      async (names, anything) => {
        // PostgreSQL's texts have no NUL, and what comes in over HTTP has none either.
        const keys = names.map(name => `any:${name.replaceAll('\0', '')}`)
        const note = anything.replaceAll('\0', '')
        const book = usage(NO_USAGE)
        for (const key of new Set(keys)) {
          book.take(tenantId, cap(9, { key, bypass: true }), Date.UTC(2026, 0, 1), {})
          book.claim(tenantId, key, 1_767_225_600_123, {}, note)
        }
        const client = await t.db.connect('test')
        try {
          await client.query('begin')
          await client.query(takeUsage(book.taken()!))
          const { rows } = await client.query(
            `select k.key, k.note, (extract(epoch from k.until) * 1000)::float8 as until from counters c
             join claims k on k.key = c.key where c.key like 'any:%'`,
          )
          assert.deepEqual(new Set(rows.map(row => row.key)), new Set(keys))
          for (const row of rows) assert.deepEqual([row.note, row.until], [note, 1_767_225_600_123])
        } finally {
          await client.query('rollback')
          await client.end()
        }
      },
    ),
    { numRuns: 30 },
  )
})

test('of one bound that priorities have different shares of, a batch of all of them takes what each may', async () => {
  await person('share')
  await call('POST', '/api/limits', {
    name: 'shares',
    scope: 'user',
    categories: ['shares'],
    max: 10,
    shares: { LOW: 0.3, NORMAL: 0.5 },
    window: 'month',
    overflow: 'skip',
  })
  const priorities = ['LOW', 'NORMAL', 'HIGH', 'CRITICAL']
  await everybody(2, () =>
    call('POST', '/api/notifications/bulk', {
      notifications: Array.from({ length: 8 }, (_, i) => ({
        recipientId: 'share',
        category: 'shares',
        channels: ['email'],
        priority: priorities[i % 4],
        body: 'Hi',
      })),
    }),
  )
  const { rows } = await t.db.pool.query(
    `select priority, count(*)::int as n from notifications where recipient_id = 'share' group by 1 order by 1`,
  )
  const told = new Map(rows.map((row: Loose) => [row.priority, row.n]))
  assert.equal(told.get(0), 32, 'what is critical passes')
  assert.ok((told.get(3) ?? 0) <= 3 && (told.get(2) ?? 0) <= 5 && (told.get(1) ?? 0) <= 10)
  assert.ok((told.get(1) ?? 0) + (told.get(2) ?? 0) + (told.get(3) ?? 0) <= 10)
  assert.deepEqual(await auditLedger(t.db), [])
})

// covers: ALP-158
test('of one text that many say to one person at once, exactly so many go in ten minutes', async () => {
  for (const name of ['echo', 'other']) await person(name)
  await call('POST', '/api/limits', {
    name: 'same text',
    scope: 'content',
    categories: ['said'],
    max: 5,
    window: 'minute',
    every: 10,
    reason: 'throttled',
  })
  const say = (recipientId: string, body: string) =>
    call('POST', '/api/notifications', { recipientId, category: 'said', channels: ['email'], body })
  await everybody(3, (_, n) => say('echo', n === 0 ? 'Buy now!' : n === 1 ? 'BUY   NOW' : 'buy, now…'))
  const windows = await counted('same text')
  assert.equal(sum(windows), 24, 'case, spaces and punctuation make no other text')
  assert.ok(windows.every(n => n <= 5))
  assert.ok(windows.slice(1, -1).every(n => n === 5))
  const { rows } = await t.db.pool.query(`select distinct j.reason from jobs j where reason <> 'retry'`)
  assert.deepEqual(
    rows.map((row: Loose) => row.reason),
    ['throttled'],
  )
  await say('other', 'Buy now!')
  assert.equal((await counted('same text')).length, windows.length + 1, 'another person is another counter')
})

// covers: ALP-152
test('a quota is used up by cost, and never overdrawn', async () => {
  await person('payer')
  await call('POST', '/api/limits', {
    name: 'quota',
    scope: 'user',
    categories: ['priced'],
    max: 10,
    costs: { email: 3, webhook: 2 },
    window: 'day',
    criticalPasses: false,
  })
  await everybody(3, () =>
    call('POST', '/api/notifications', {
      recipientId: 'payer',
      category: 'priced',
      channels: ['email', 'webhook', 'in_app'],
      body: 'x',
    }),
  )
  const days = await counted('quota')
  assert.equal(sum(days), 24 * 5)
  assert.ok(
    days.every(n => n <= 10),
    String(days),
  )
  assert.ok(
    days.slice(0, -1).every(n => n > 8),
    'no day is left where another one would have fitted',
  )
})

// covers: AUR-084, AUR-088, AUR-095
test('readers have as many a day as their plan says, whoever writes at once', async () => {
  const people = { fred: 'free', pat: 'PERSONAL', bob: 'business', una: 'platinum' }
  for (const [name, tier] of Object.entries(people)) await person(name, tier)
  const made = [
    { tiers: ['free'], max: 1 },
    { tiers: ['personal'], max: 4 },
    { tiers: ['other'], max: 6 },
  ]
  for (const one of made) {
    await call('POST', '/api/limits', {
      name: `plan ${one.tiers[0]}`,
      scope: 'user',
      categories: ['plans'],
      window: 'day',
      per: 'notification',
      overflow: 'skip',
      ...one,
    })
  }
  await everybody(1, () =>
    call('POST', '/api/notifications/bulk', {
      notifications: Object.keys(people).flatMap(recipientId => [
        { recipientId, category: 'plans', channels: ['email', 'webhook'], body: 'x' },
      ]),
    }),
  )
  assert.deepEqual(
    [await counted('plan free'), await counted('plan personal'), await counted('plan other')],
    [[1], [4], [6]],
  )
  const { rows } = await t.db.pool.query(
    `select recipient_id as id, count(*)::int as n from notifications where category = 'plans' group by 1 order by 1`,
  )
  assert.deepEqual(Object.fromEntries(rows.map((row: Loose) => [row.id, row.n])), {
    bob: 8,
    fred: 1,
    pat: 4,
    una: 6,
  })
})

// covers: DIC-093, PFM-143
test('several processes keep one budget: what each interrupts, and what joins the one summary', async () => {
  const key = { CARILLON_MASTER_KEY: randomBytes(32).toString('hex'), OUTBOUND_ALLOW: '127.0.0.1/32' }
  const dir = await mkdtemp(join(tmpdir(), 'carillon-limits-'))
  const first = await testApp(key)
  const others = await Promise.all(
    Array.from({ length: 3 }, () =>
      startApp({
        config: loadConfig({
          ...key,
          CARILLON_DATA_DIR: dir,
          PORT: '0',
          MAILBOX_PORT: '0',
          LOG_LEVEL: 'error',
          CARILLON_LIMIT_PER_KEY: '10000000',
        }),
        databaseUrl: first.databaseUrl,
        log: createLogger({ level: 'error' }),
      }),
    ),
  )
  try {
    const ask = async (url: string, method: string, path: string, body: object): Promise<Loose> => {
      const response = await fetch(url + path, {
        method,
        headers: { authorization: `Bearer ${first.tenant.adminKey}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      const text = await response.text()
      assert.ok(response.ok, `${method} ${path}: ${response.status} ${text}`)
      return JSON.parse(text)
    }
    await ask(first.url, 'PUT', '/api/users/ann', {
      addresses: [
        { channel: 'email', address: 'ann@example.org', verified: true },
        { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
      ],
    })
    await ask(first.url, 'POST', '/api/limits', {
      name: 'budget',
      scope: 'user',
      max: 10,
      window: 'month',
      per: 'notification',
      overflow: 'digest',
      shares: { LOW: 0.5 },
      reason: 'attention',
    })
    const urls = [first.url, ...others.map(({ url }) => url!)]
    await everybody(6, (writer, n) =>
      ask(urls[writer % urls.length]!, 'POST', '/api/notifications', {
        recipientId: 'ann',
        channels: ['email', 'webhook', 'in_app'],
        priority: n % 3 === 0 ? 'LOW' : 'HIGH',
        body: `${writer} ${n}`,
      }),
    )
    const { rows: budget } = await first.db.pool.query(
      `select count::int as n from counters where key like 'limit:%'`,
    )
    assert.deepEqual(budget, [{ n: 10 }])
    const { rows: planned } = await first.db.pool.query(
      `select (select count(*)::int from feed) as inbox, (select count(*)::int from digest_items) as gathered`,
    )
    assert.deepEqual(planned, [{ inbox: WRITERS * 6, gathered: 2 * (WRITERS * 6 - 10) }])
    assert.deepEqual(await auditLedger(first.db), [])
  } finally {
    await Promise.all(others.map(app => app.stop()))
    await first.stop()
    await rm(dir, { recursive: true, force: true })
  }
})

// Limits of deliveries are counted where deliveries are written: Redis may help others, and nothing here waits for it.
// covers: DIC-092
test('without the Redis that is configured, notifications go and limits hold', async () => {
  const alone = await testApp({ REDIS_URL: 'redis://127.0.0.1:1', LOG_LEVEL: 'silent' })
  try {
    const ask = async (method: string, path: string, body: object): Promise<Loose> => {
      const answer = await alone.call(method, path, { as: alone.tenant.adminKey, body })
      assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
      return answer.body
    }
    await ask('POST', '/api/limits', { name: 'one', scope: 'user', max: 1, window: 'month' })
    await ask('PUT', '/api/users/ann', {
      addresses: [{ channel: 'email', address: 'ann@example.org', verified: true }],
    })
    const send = { recipientId: 'ann', channels: ['email', 'in_app'], body: 'Hi' }
    for (let n = 0; n < 3; n++) await ask('POST', '/api/notifications', send)
    const { rows } = await alone.db.pool.query(
      `select count(*)::int as windows, max(count)::int as most from counters where key like 'limit:%'`,
    )
    assert.deepEqual(rows, [{ windows: 3, most: 1 }])
  } finally {
    await alone.stop()
  }
})
