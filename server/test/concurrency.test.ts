import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { createKey } from '../admin/keys.ts'
import { ensureFirstTenant } from '../admin/tenants.ts'
import type { Db } from '../db/pool.ts'
import { sealer } from '../db/seal.ts'
import { auditLedger } from '../ledger/audit.ts'
import { upsertUsers } from '../people/users.ts'
import { type Loose, eventually } from './app.ts'
import { testDatabase } from './database.ts'
import { openSink } from './sink.ts'
import { type Running, killStarted, startProcess } from './process.ts'

const PROCESSES = 4
const WRITERS = 8
const KILLS = 5
/** Batches of each writer, in one epoch; each epoch has people of its own, so that there is room to fight for till the end. */
const ROUNDS = 4
const EPOCHS = 6
const BATCH = 20
const PEOPLE = 4

// Which moments are hit is chance; the seed says which, though not what the machine did meanwhile.
const seed = Number(process.env.FAULT_SEED ?? Date.now() % 1_000_000)
let state = seed
const random = () => {
  state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
  return state / 2_147_483_648
}
const among = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!

const person = (epoch: number, n: number) => `u${epoch}-${n}`
/** An endpoint for two people. */
const endpoint = (epoch: number, n: number) => `${epoch}-${n >> 1}`

const PER_USER = 3
const PER_ADDRESS = 4
const PER_TENANT = 150
const PER_MINUTE = 2
const MAX_ITEMS = 5

interface Kind {
  limit?: object
  policy?: object
  /** How many may be told in all, and are, since far more are asked for; null: see below. */
  told: number | null
}
const skipped = { overflow: 'skip', channels: ['webhook'], criticalPasses: false }
const everyone = EPOCHS * PEOPLE
const KINDS: Record<string, Kind> = {
  user: { limit: { ...skipped, scope: 'user', max: PER_USER, window: 'month' }, told: everyone * PER_USER },
  address: {
    limit: { ...skipped, scope: 'address', max: PER_ADDRESS, window: 'month' },
    told: (everyone / 2) * PER_ADDRESS,
  },
  tenant: { limit: { ...skipped, scope: 'tenant', max: PER_TENANT, window: 'month' }, told: PER_TENANT },
  gap: { limit: { ...skipped, scope: 'user', max: 1, window: 'gap', gapSeconds: 86_400 }, told: everyone },
  cooldown: { policy: { cooldown: { seconds: 86_400, key: ['event.data.k'] } }, told: everyone * 2 },
  once: {
    policy: { cooldown: { per: 'rule', key: ['event.data.epoch'] } },
    told: EPOCHS,
  },
  hold: {
    limit: { scope: 'user', channels: ['webhook'], max: PER_MINUTE, window: 'minute', overflow: 'hold' },
    told: null,
  },
  digest: {
    policy: { digest: { key: ['event.data.k'], windowSeconds: 3, maxItems: MAX_ITEMS } },
    told: null,
  },
}
const NAMES = Object.keys(KINDS)

// covers: DIC-045, DIC-093, DIC-097, PFM-060, PFM-143
test(`${WRITERS} writers, ${PROCESSES} processes, ${KILLS} of them killed: no cap over by one, each item in one digest`, async context => {
  const database = await testDatabase()
  const dir = mkdtempSync(join(tmpdir(), 'carillon-concurrency-'))
  const processes: (Running | undefined)[] = []
  const sink = await openSink(() => random() * 10)
  try {
    const { db } = database
    const masterKey = randomBytes(32).toString('hex')
    const keys = sealer(masterKey)
    const { tenant } = await ensureFirstTenant(db, keys)
    const { key } = await createKey(
      db,
      { tenantId: tenant.id, kind: 'system' },
      { name: 'load', role: 'admin' },
    )
    await db.tx(tx =>
      upsertUsers(
        tx,
        keys,
        tenant.id,
        Array.from({ length: EPOCHS * PEOPLE }, (_, i) => {
          const [epoch, n] = [Math.floor(i / PEOPLE), i % PEOPLE]
          return {
            userId: person(epoch, n),
            addresses: [
              { channel: 'webhook' as const, address: `${sink.url}/${endpoint(epoch, n)}`, verified: true },
            ],
          }
        }),
      ),
    )
    const start = (slot: number) =>
      startProcess({
        DATABASE_URL: database.url,
        CARILLON_MASTER_KEY: masterKey,
        CARILLON_DATA_DIR: join(dir, String(slot)),
        CARILLON_DB_POOL: '4',
        CARILLON_LANES: '2',
      })
    processes.push(...(await Promise.all(Array.from({ length: PROCESSES }, (_, slot) => start(slot)))))
    const living = () => processes.filter(one => one !== undefined)

    /** Asked of any process that lives, again and again until one answers. */
    const ask = async (method: string, path: string, body?: unknown): Promise<Loose> => {
      for (const deadline = Date.now() + 120_000; ; ) {
        assert.ok(Date.now() < deadline, `nobody answers ${method} ${path}`)
        const process = living().length > 0 ? among(living()) : undefined
        try {
          const response = await fetch(`${process?.url}${path}`, {
            method,
            headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
            body: body === undefined ? undefined : JSON.stringify(body),
          })
          const text = await response.text()
          if (response.status < 500) return { status: response.status, body: text && JSON.parse(text) }
          // The one that is allowed: it asks to be tried again.
          assert.equal(response.status, 503, text)
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error
        }
        unanswered++
        await delay(100)
      }
    }
    let unanswered = 0
    const made = async (path: string, body: object) => {
      const answer = await ask('POST', path, body)
      assert.equal(answer.status, 201, JSON.stringify(answer.body))
      return answer.body
    }
    const limits: Record<string, string> = {}
    for (const [name, { limit, policy }] of Object.entries(KINDS)) {
      await made('/api/rules', {
        name,
        eventTypes: [`load.${name}`],
        category: name,
        channels: ['webhook'],
        recipientSelector: { expression: 'event.data.userId' },
        policy,
      })
      if (limit) limits[name] = (await made('/api/limits', { name, categories: [name], ...limit })).id
    }

    // Told by the product itself, in the transactions of others: every batch is a beat, every writer crosses the bound.
    await made('/api/thresholds', { name: 'epochs', stream: 'epochs', when: 'above', bounds: [0] })
    assert.equal(
      (await ask('PUT', '/api/heartbeats/load', { everySeconds: 2, eventTypes: ['load.*'] })).status,
      201,
    )

    // ---- the load
    let batches = 0
    let serial = 0
    const acknowledged: { id: string; eventId: string; kind: string }[] = []
    const write = async (writer: number) => {
      for (let epoch = 0; epoch < EPOCHS; epoch++) {
        for (let round = 0; round < ROUNDS; round++) {
          const events = Array.from({ length: BATCH }, (_, i) => {
            const kind = NAMES[(i + round) % NAMES.length]!
            const id = `e${serial++}`
            const userId = person(epoch, (i + writer) % PEOPLE)
            const data = { userId, epoch: `${epoch}`, k: `${i % 2}`, message: id }
            return { type: `load.${kind}`, source: 'load', id, data }
          })
          const { status, body } = await ask('POST', '/api/events/batch', { events })
          assert.equal(status, 202, JSON.stringify(body))
          for (const [i, result] of body.results.entries()) {
            assert.equal(result.error, undefined)
            const { id, type } = events[i]!
            acknowledged.push({ id, eventId: result.eventId, kind: type.slice('load.'.length) })
          }
          batches++
        }
        const samples = [{ series: `${epoch}`, value: 1 + writer }]
        assert.equal((await ask('POST', '/api/streams/epochs/samples', { samples })).status, 200)
      }
    }
    const total = WRITERS * EPOCHS * ROUNDS

    /** Somebody who takes digests and items in hand while they fill. */
    let writing = true
    const meddle = async () => {
      while (writing) {
        const { body } = await ask('GET', '/api/digests?state=open&limit=20')
        const digest = body.items.length > 0 ? among<Loose>(body.items) : undefined
        if (digest) {
          const what = random()
          if (what < 0.2) await ask('POST', `/api/digests/${digest.id}/release`)
          else if (what < 0.3) await ask('POST', `/api/digests/${digest.id}/cancel`)
          else {
            const { body: whole } = await ask('GET', `/api/digests/${digest.id}`)
            const item = whole.contents?.items.length > 0 ? among<Loose>(whole.contents.items) : undefined
            if (item && what < 0.6) await ask('POST', `/api/notifications/${item.notificationId}/cancel`)
            else if (item) await ask('POST', `/api/digests/${digest.id}/items/${item.notificationId}/release`)
          }
        }
        await delay(5)
      }
    }

    const restarting: Promise<void>[] = []
    const harm = async () => {
      for (let n = 0; n < KILLS; n++) {
        const after = Math.floor((total * (n + random())) / KILLS)
        await eventually('more load', () => batches >= after, 60_000)
        const slot = await eventually(
          'somebody to kill',
          () => among(slots().filter(one => processes[one])),
          60_000,
        )
        const victim = processes[slot]!
        processes[slot] = undefined
        await victim.kill()
        restarting.push(start(slot).then(again => void (processes[slot] = again)))
      }
      await Promise.all(restarting)
    }
    const meddling = meddle()
    const writers = Promise.all(Array.from({ length: WRITERS }, (_, writer) => write(writer))).finally(
      () => (writing = false),
    )
    await Promise.all([writers, harm(), meddling])

    // ---- everything comes to its end; only what is held for a later minute may wait
    await eventually(
      'the end of all work',
      async () => {
        const { rows } = await db.pool.query(
          `select (select count(*) from batches) + (select count(*) from planning)
             + (select count(*) from digests where state = 'open')
             + (select count(*) from jobs j join notifications n on n.tenant_id = j.tenant_id and n.id = j.notification_id
                where n.category <> 'hold' or j.owner <> 0) as n`,
        )
        return Number(rows[0].n) === 0
      },
      60_000,
    )
    const exits = await Promise.all(living().map(one => one.stop()))
    assert.deepEqual(
      exits,
      Array.from({ length: PROCESSES }, () => 0),
      'they stop cleanly when asked',
    )

    await checkEvents(db, acknowledged)
    await checkCaps(db, limits)
    await checkHolds(db, limits['hold']!)
    const { digests, items } = await checkDigests(db)
    await checkOwnEvents(db)
    await checkSink(db, sink.seen)
    assert.deepEqual(await auditLedger(db, {}), [])
    context.diagnostic(
      `seed ${seed}: ${acknowledged.length} events, ${unanswered} requests asked again, ${items} items in ${digests} digests`,
    )
  } finally {
    await killStarted()
    sink.close()
    await database.drop()
    rmSync(dir, { recursive: true, force: true })
  }
})

const slots = () => Array.from({ length: PROCESSES }, (_, slot) => slot)

// ---------------------------------------------------------------- what must be true afterwards

async function checkEvents(db: Db, acknowledged: readonly { id: string; eventId: string }[]): Promise<void> {
  const { rows } = await db.pool.query<{ external_id: string; id: string }>(
    `select external_id, id from events where type like 'load.%'`,
  )
  const accepted = new Map(rows.map(row => [row.external_id, row.id]))
  assert.equal(accepted.size, rows.length, 'an event was accepted twice')
  for (const { id, eventId } of acknowledged)
    assert.equal(accepted.get(id), eventId, `the answer about ${id}`)
}

async function checkCaps(db: Db, limits: Record<string, string>): Promise<void> {
  const counted = async (by: string) => {
    const { rows } = await db.pool.query<{ kind: string; who: string; n: number }>(
      `select n.category as kind, ${by} as who, count(*)::int as n
       from notifications n join events e on e.tenant_id = n.tenant_id and e.id = n.event_id
       where e.type like 'load.%' group by 1, 2`,
    )
    return (kind: string) => rows.filter(row => row.kind === kind).map(({ n }) => n)
  }
  const most = (list: number[]) => Math.max(...list)
  const sum = (list: number[]) => list.reduce((all, n) => all + n, 0)
  const byUser = await counted('n.recipient_id')
  // Two people share an endpoint: u3-0 and u3-1.
  const byAddress = await counted(
    `split_part(n.recipient_id, '-', 1) || '-' || (split_part(n.recipient_id, '-', 2)::int / 2)`,
  )
  assert.equal(most(byUser('user')), PER_USER)
  assert.equal(most(byAddress('address')), PER_ADDRESS)
  assert.equal(most(byUser('gap')), 1)
  // And none is lost: what was asked for is far more than what is allowed, so that is what was told.
  for (const [kind, { told }] of Object.entries(KINDS)) {
    if (told !== null) assert.equal(sum(byUser(kind)), told, kind)
  }
  for (const kind of ['user', 'address', 'tenant']) {
    const { rows } = await db.pool.query<{ n: string }>(
      `select coalesce(sum(count), 0) as n from counters where key like $1`,
      [`limit:${limits[kind]}:%`],
    )
    assert.equal(Number(rows[0]!.n), KINDS[kind]!.told, `the counter of ${kind}`)
  }
}

/** Each of them waits for, or went in, a minute with room for it: as the counters say, and as the decisions do. */
async function checkHolds(db: Db, limit: string): Promise<void> {
  const { rows: counters } = await db.pool.query<{ who: string; at: Date; n: number }>(
    `select split_part(key, ':', 3) as who, window_at as at, count::int as n from counters where key like $1`,
    [`limit:${limit}:%`],
  )
  for (const { who, at, n } of counters) assert.ok(n <= PER_MINUTE, `${n} for ${who} at ${at.toISOString()}`)
  const { rows } = await db.pool.query<{ n: number; waiting: number; fullest: number }>(
    `with held as (
       select n.recipient_id, j.run_at from notifications n
       left join jobs j on j.tenant_id = n.tenant_id and j.notification_id = n.id
       where n.category = 'hold'
     )
     select count(*)::int as n, count(run_at)::int as waiting,
       (select coalesce(max(n), 0) from (select count(*)::int as n from held where run_at is not null
        group by recipient_id, date_trunc('minute', run_at)) w) as fullest
     from held`,
  )
  const [all] = rows
  assert.ok(all!.waiting > 0 && all!.fullest <= PER_MINUTE, JSON.stringify(all))
  assert.equal(
    counters.reduce((sum, { n }) => sum + n, 0),
    all!.n,
    'each has its place in one minute',
  )
  const { rows: asked } = await db.pool.query(
    `select count(*)::int as n from events where type = 'load.hold'`,
  )
  assert.equal(all!.n, asked[0].n, 'nobody is left out')
}

async function checkDigests(db: Db): Promise<{ digests: number; items: number }> {
  const { rows: items } = await db.pool.query<{
    state: string
    digest_state: string
    told: boolean
    n: number
  }>(
    `select i.state, d.state as digest_state, d.event_id is not null as told, count(*)::int as n
     from digest_items i join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id group by 1, 2, 3`,
  )
  for (const { state, digest_state: digest, told } of items) {
    assert.ok(
      state === 'cancelled' || state === 'released' || (state === 'closed' && digest === 'closed' && told),
      `an item is ${state} in a digest that is ${digest}`,
    )
  }
  const count = (wanted: string) => items.reduce((sum, { state, n }) => sum + (state === wanted ? n : 0), 0)
  assert.ok(count('closed') > 0 && count('released') > 0 && count('cancelled') > 0, JSON.stringify(items))

  // Every event became an item of one digest, and no digest says it had others.
  const { rows: sums } = await db.pool.query<Record<string, number>>(
    `select (select count(*)::int from events where type = 'load.digest') as events,
       (select count(*)::int from notifications where category = 'digest' and event_type = 'load.digest') as notifications,
       (select count(*)::int from digest_items) as items,
       (select sum(items)::int from digests) as said,
       (select count(*)::int from digests) as digests`,
  )
  const { events, notifications, items: all, said, digests } = sums[0]!
  assert.deepEqual([notifications, all, said], [events, events, events])

  // One event for each digest that closed with several, one message for each of those events.
  const { rows: told } = await db.pool.query(
    `select d.id, count(distinct e.id)::int as events, count(n.id)::int as messages,
       (select count(*)::int from digest_items i
        where i.tenant_id = d.tenant_id and i.digest_id = d.id and i.state = 'closed') as closed
     from digests d
     left join events e on e.tenant_id = d.tenant_id and e.id = d.event_id
     left join notifications n on n.tenant_id = e.tenant_id and n.event_id = e.id
     where d.event_id is not null group by d.tenant_id, d.id`,
  )
  for (const { id, events, messages, closed } of told) {
    assert.ok(
      events === 1 && messages === 1 && closed > 1,
      `${id}: ${events} events, ${messages} messages, ${closed} items`,
    )
  }
  const { rows: strays } = await db.pool.query(
    `select e.id from events e where e.type = 'carillon.digest'
       and not exists (select from digests d where d.tenant_id = e.tenant_id and d.event_id = e.id)`,
  )
  assert.deepEqual(strays, [], 'a digest event without its digest')
  return { digests: digests!, items: all! }
}

async function checkOwnEvents(db: Db): Promise<void> {
  const { rows } = await db.pool.query<{ type: string; n: number }>(
    `select type, count(*)::int as n from events where type like 'carillon.%' group by 1`,
  )
  const told = (type: string) => rows.find(row => row.type === `carillon.${type}`)?.n ?? 0
  assert.equal(told('threshold.crossed'), EPOCHS)
  // While no process lived, nobody listened; while few did, the load itself may have stopped for longer than its time.
  const missing = told('heartbeat.missed') - told('heartbeat.recovered')
  const { rows: states } = await db.pool.query(
    `select missed_at is not null as missing, last_beat_at from heartbeat_states`,
  )
  assert.equal(states[0].missing, missing === 1)
  assert.ok(
    states[0].last_beat_at !== null && (missing === 0 || missing === 1),
    `${missing} more missed than recovered`,
  )
}

/** What is delivered has left, and nothing else has. */
async function checkSink(db: Db, seen: ReadonlyMap<string, number>): Promise<void> {
  const { rows } = await db.pool.query<{ id: string; sent: boolean; cancelled: boolean }>(
    `select n.id, coalesce(bool_or(a.outcome = 0), false) as sent,
       coalesce(bool_or(a.outcome = 6), false) as cancelled from notifications n
     left join attempts a on a.tenant_id = n.tenant_id and a.notification_id = n.id
     group by 1`,
  )
  const silent = rows.filter(({ id, sent }) => sent && !seen.has(`${id}.webhook`))
  assert.deepEqual(silent, [], 'delivered, and never left')
  // Whoever died after sending and before saying so leaves a delivery that can still be cancelled.
  const known = new Set(
    rows.filter(({ sent, cancelled }) => sent || cancelled).map(({ id }) => `${id}.webhook`),
  )
  const strangers = [...seen.keys()].filter(id => !known.has(id))
  assert.deepEqual(strangers, [], 'left, and is not delivered')
}
