import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Queue, Worker } from 'bullmq'
import type { Job } from 'bullmq'
import Handlebars from 'handlebars'
import { newId } from '../server/db/ids.ts'
import { openDb, sql } from '../server/db/pool.ts'
import { celEvent, compile } from '../server/match/cel.ts'
import type { Event } from '../server/types.ts'
import { machine, median, table } from './machine.ts'
import { benchServer, cpuOf, freePort, said } from './server.ts'
import type { BenchServer } from './server.ts'
import type { LoadOptions, LoadResult } from './load.ts'

/**
 * node bench/peers.ts [--seconds 15]
 *
 * The same work done the usual way, in the same run: BullMQ jobs on Redis for each step (match → recipient → channel →
 * send), the state in PostgreSQL. Both take the same events, evaluate the same pattern, render the same template,
 * keep event, notification and attempt, and put the message into the reader's inbox.
 *
 * A fair opponent: events enter by addBulk, each step hands over by addBulk, workers run 200 jobs at once, finished
 * jobs are removed, Redis writes its log every second (its usual durability, weaker than ours), and every statement
 * that this design can batch is batched: the events of a request, and what the workers of one turn want written.
 * It has no preferences, no trace, no sealing, no fairness: it does less. Its events do not come over HTTP either.
 */
const at = process.argv.indexOf('--seconds')
const seconds = at < 0 ? 15 : Number(process.argv[at + 1])
const USERS = 10_000
const TYPES = 100
const ROUNDS = 3

const insertEvents = sql(
  'peer_insert_events',
  `insert into peer_events (id, type, data) select * from unnest($1::uuid[], $2::text[], $3::jsonb[])`,
)
const insertTheirs = sql(
  'peer_insert_notifications',
  `insert into peer_notifications (id, event_id, user_id, channel, subject, body)
   select id, event, u, 'in_app', s, b from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[]) as v (id, event, u, s, b)`,
)
const attemptTheirs = sql(
  'peer_attempts',
  `insert into peer_attempts (notification_id, attempt, status) select id, 1, 'delivered' from unnest($1::uuid[]) as v (id)`,
)
const deliveredTheirs = sql(
  'peer_delivered',
  `update peer_notifications set status = 'delivered' where id = any ($1::uuid[])`,
)

const server = await benchServer()
const redisDir = mkdtempSync(join(tmpdir(), 'carillon-redis-'))
const redisPort = await freePort()
const redis = spawn(
  'redis-server',
  [
    '--port',
    String(redisPort),
    '--bind',
    '127.0.0.1',
    '--dir',
    redisDir,
    '--save',
    '',
    '--appendonly',
    'yes',
    '--appendfsync',
    'everysec',
  ],
  { stdio: ['ignore', 'pipe', 'inherit'] },
)
await said(redis, 'Ready to accept connections')

const db = openDb(server.databaseUrl, { max: 10 })
console.log(machine())
await prepareOurs(server)
await prepareTheirs()

const ours: Figure[] = []
const theirs: Figure[] = []
await ourRound(3)
for (let round = 0; round < ROUNDS; round++) {
  ours.push(await ourRound(seconds / ROUNDS))
  theirs.push(await theirRound(seconds / ROUNDS))
}
const us = middle(ours)
const them = middle(theirs)
console.log(
  table(
    ['', '/s', 'CPU µs a notification', 'of which database and Redis'],
    [
      ['Carillon, over HTTP', figureOf(us.rate), figureOf(us.app + us.stores), figureOf(us.stores)],
      [
        'BullMQ on Redis, state in PostgreSQL',
        figureOf(them.rate),
        figureOf(them.app + them.stores),
        figureOf(them.stores),
      ],
      [
        'ratio',
        `${(us.rate / them.rate).toFixed(1)} ×`,
        `${((us.app + us.stores) / (them.app + them.stores)).toFixed(2)} ×`,
        '',
      ],
    ],
  ),
)
await db.close()
await server.stop()
redis.kill()
rmSync(redisDir, { recursive: true, force: true })
process.exit(0)

// ---------------------------------------------------------------- figures

interface Figure {
  rate: number
  /** CPU µs a notification. */
  app: number
  stores: number
}

function middle(figures: Figure[]): Figure {
  const rate = median(figures.map(one => one.rate))
  return figures.find(one => one.rate === rate)!
}
function figureOf(value: number): string {
  return Math.round(value).toLocaleString('en')
}

// ---------------------------------------------------------------- ours

async function prepareOurs(to: BenchServer): Promise<void> {
  for (let first = 0; first < USERS; first += 1000) {
    await to.call('POST', '/api/users/bulk', {
      users: Array.from({ length: 1000 }, (_, i) => ({ userId: `u${first + i}` })),
    })
  }
  const template = await to.call('POST', '/api/templates', {
    name: 'order',
    channels: { default: TEMPLATE() },
  })
  for (let i = 0; i < TYPES; i++) {
    await to.call('POST', '/api/rules', {
      name: `rule ${i}`,
      eventTypes: [`shop.t${i}`],
      eventPattern: PATTERN(),
      channels: ['in_app'],
      templateId: template.id,
      recipientSelector: { expression: 'event.data.userId' },
    })
  }
}

async function ourRound(lasting: number): Promise<Figure> {
  const before = server.cpu()
  const options: LoadOptions = {
    url: server.url,
    key: server.key,
    users: USERS,
    types: TYPES,
    perBatch: 200,
    connections: 8,
    seconds: lasting,
  }
  const child = spawn(process.execPath, [join(import.meta.dirname, 'load.ts'), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const result = JSON.parse(await said(child, '{')) as LoadResult
  const after = server.cpu()
  return {
    rate: result.events / lasting,
    app: ((after.node - before.node) * 1e6) / result.events,
    stores: ((after.postgres - before.postgres) * 1e6) / result.events,
  }
}

// ---------------------------------------------------------------- theirs

function TEMPLATE() {
  return {
    subject: 'Order for {{name}}',
    body: 'Dear {{name}},\n{{#if title}}{{title}}.{{/if}} {{body}}\n{{#each items}}{{count}} × {{name}}; {{/each}}\nThank you.',
  }
}
function PATTERN(): string {
  return 'event.data.amount > 10.0 && event.data.name != "nobody"'
}

async function prepareTheirs(): Promise<void> {
  await db.pool.query(`
    create table if not exists peer_events (id uuid primary key, type text not null, data jsonb not null, at timestamptz not null default now());
    create table if not exists peer_notifications (id uuid primary key, event_id uuid not null, user_id text not null, channel text not null,
      subject text, body text, status text not null default 'pending', created_at timestamptz not null default now());
    create index if not exists peer_inbox on peer_notifications (user_id, created_at desc);
    create table if not exists peer_attempts (notification_id uuid not null, attempt int not null, status text not null, at timestamptz not null default now(),
      primary key (notification_id, attempt));`)
}

interface PeerEvent {
  id: string
  type: string
  data: { userId: string; amount: number; name: string; title: string; body: string; items: object[] }
}

async function theirRound(lasting: number): Promise<Figure> {
  const connection = { host: '127.0.0.1', port: redisPort, maxRetriesPerRequest: null }
  const defaultJobOptions = { removeOnComplete: true, removeOnFail: true }
  const names = ['match', 'recipient', 'channel', 'send'] as const
  const queues = Object.fromEntries(
    names.map(name => [name, new Queue(name, { connection, defaultJobOptions })]),
  ) as Record<(typeof names)[number], Queue>

  const rules = Array.from({ length: TYPES }, (_, i) => ({
    type: `shop.t${i}`,
    pattern: compile(PATTERN(), 'pattern'),
  }))
  const byType = new Map(rules.map(rule => [rule.type, rule]))
  const subject = Handlebars.compile(TEMPLATE().subject)
  const body = Handlebars.compile(TEMPLATE().body)

  // What the workers of one turn want written goes out in one statement, as this design allows.
  const insertNotifications = batched<{
    id: string
    event: string
    user: string
    subject: string
    body: string
  }>(rows =>
    db.run(insertTheirs, [
      rows.map(r => r.id),
      rows.map(r => r.event),
      rows.map(r => r.user),
      rows.map(r => r.subject),
      rows.map(r => r.body),
    ]),
  )
  const finish = batched<{ id: string }>(async rows => {
    const ids = rows.map(row => row.id)
    await db.run(attemptTheirs, [ids])
    await db.run(deliveredTheirs, [ids])
  })

  let delivered = 0
  const options = { connection, concurrency: 200 }
  const workers = [
    new Worker(
      'match',
      async (job: Job<PeerEvent>) => {
        const { data: event } = job
        const rule = byType.get(event.type)
        const view = celEvent({
          ...event,
          source: 'bench',
          time: new Date(),
          receivedAt: new Date(),
          tenantId: 1,
        } as unknown as Event)
        const matches = rule?.pattern.evaluate(view, new Date())
        if (matches?.ok && matches.value) await queues.recipient.add('r', event)
      },
      options,
    ),
    new Worker(
      'recipient',
      async (job: Job<PeerEvent>) =>
        void (await queues.channel.add('c', { event: job.data, user: job.data.data.userId })),
      options,
    ),
    new Worker(
      'channel',
      async (job: Job<{ event: PeerEvent; user: string }>) => {
        const { event, user } = job.data
        const id = newId()
        await insertNotifications({
          id,
          event: event.id,
          user,
          subject: subject(event.data),
          body: body(event.data),
        })
        await queues.send.add('s', { id })
      },
      options,
    ),
    new Worker(
      'send',
      async (job: Job<{ id: string }>) => {
        await finish({ id: job.data.id })
        delivered++
      },
      options,
    ),
  ]
  await Promise.all(workers.map(worker => worker.waitUntilReady()))

  const cpu = process.cpuUsage()
  const before = { postgres: server.cpu().postgres, redis: cpuOf(redis.pid!) }
  const started = performance.now()
  const end = started + lasting * 1000
  let made = 0
  // Closed loop: the queue is kept filled, never flooded.
  while (performance.now() < end) {
    if (made - delivered > 4000) {
      await new Promise(resolve => setTimeout(resolve, 2))
      continue
    }
    const events = Array.from({ length: 200 }, () => peerEvent(made++))
    await db.run(insertEvents, [
      events.map(e => e.id),
      events.map(e => e.type),
      events.map(e => JSON.stringify(e.data)),
    ])
    await queues.match.addBulk(events.map(data => ({ name: 'm', data })))
  }
  while (delivered < made) await new Promise(resolve => setTimeout(resolve, 5))
  const elapsed = (performance.now() - started) / 1000
  const used = process.cpuUsage(cpu)
  const stores = server.cpu().postgres - before.postgres + cpuOf(redis.pid!) - before.redis
  await Promise.all(workers.map(worker => worker.close()))
  await Promise.all(names.map(name => queues[name].close()))
  return { rate: made / elapsed, app: (used.user + used.system) / made, stores: (stores * 1e6) / made }
}

function peerEvent(serial: number): PeerEvent {
  return {
    id: newId(),
    type: `shop.t${serial % TYPES}`,
    data: {
      userId: `u${(serial * 7919) % USERS}`,
      amount: 20 + (serial % 50),
      name: 'Alice',
      title: 'Your order is on its way',
      body: `The parcel with your order number ${serial} left the warehouse and will be with you soon. Thank you for your patience.`,
      items: [
        { name: 'Book', count: 2 },
        { name: 'Pencil', count: 5 },
      ],
    },
  }
}

/** Gathers what is asked for within 5 ms, or 500 of them, into one call. */
function batched<T>(write: (rows: T[]) => Promise<unknown>): (row: T) => Promise<void> {
  let rows: T[] = []
  let waiting: { resolve(): void; reject(error: unknown): void }[] = []
  let timer: NodeJS.Timeout | undefined
  const flush = () => {
    clearTimeout(timer)
    timer = undefined
    const [batch, waiters] = [rows, waiting]
    rows = []
    waiting = []
    write(batch).then(
      () => waiters.forEach(one => one.resolve()),
      (error: unknown) => waiters.forEach(one => one.reject(error)),
    )
  }
  return row =>
    new Promise((resolve, reject) => {
      rows.push(row)
      waiting.push({ resolve, reject })
      if (rows.length >= 500) flush()
      else timer ??= setTimeout(flush, 5)
    })
}
