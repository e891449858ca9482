import { createHash, timingSafeEqual } from 'node:crypto'
import { Queue, Worker, type Job } from 'bullmq'
import Fastify from 'fastify'
import { createClient } from 'redis'
import { changeWatch } from '../server/db/changes.ts'
import { newId } from '../server/db/ids.ts'
import { openDb, sql } from '../server/db/pool.ts'
import { sealer } from '../server/db/seal.ts'
import { celEvent, domainOf } from '../server/match/cel.ts'
import { ruleBook } from '../server/match/rule-book.ts'
import { type CompiledRevision, render } from '../server/render/content.ts'
import { templates } from '../server/render/templates.ts'
import { eventView, templateView } from '../server/render/view.ts'
import { CHANNELS, type Channel, type Event, type JsonObject, PRIORITIES } from '../server/types.ts'

/**
 * The same work done the usual way, as a process of its own: events over HTTP into PostgreSQL and a queue, then a
 * job on Redis for each event (match), each matched rule (recipients), each delivery (channel: preferences, content,
 * the notification's row) and each hand-over (send: inbox row, status). BullMQ's jobs survive a crash: each stage
 * ends only after its rows are committed and its next jobs are in Redis.
 *
 * What makes it a strong opponent: jobs are added in bulk, also those of many jobs that run at the same time; their
 * SQL is gathered in the same way into statements of many rows; each worker runs many jobs at once; a job carries
 * its event along, so nothing is read twice. It keeps no decision trace, no counters, no deduplication, no order of
 * inbox items, and Redis may lose its last second: work that our side does and this one is spared.
 */
export interface PeerOptions {
  databaseUrl: string
  redisPort: number
  masterKey: string
  apiKey: string
  tenantId: number
  /** Jobs of each stage at once. */
  concurrency: number
  /** Takes events over HTTP as well. */
  door: boolean
}

/** Tables of the peer's own, beside ours: notifications as ours, unpartitioned, with the status in the row. */
export const PEER_SCHEMA = `
  create schema peer;
  create table peer.events (
    tenant_id int not null, id uuid not null, source text not null, type text not null, time timestamptz not null,
    received_at timestamptz not null, data bytea not null, primary key (tenant_id, id));
  create table peer.notifications (like notifications including all);
  alter table peer.notifications add status int2 not null default 0, add delivered_at timestamptz;
  alter table peer.notifications set (fillfactor = 85);
  create table peer.feed (
    tenant_id int not null, user_id text not null, seq bigint generated always as identity,
    notification_id uuid not null, created_at timestamptz not null, seen_at timestamptz, read_at timestamptz,
    primary key (tenant_id, user_id, seq));`

const QUEUES = ['match', 'recipients', 'channel', 'send'] as const
type QueueName = (typeof QUEUES)[number]

interface Facts {
  user_id: string
  enabled: boolean
  locale: string
  timezone: string
  attributes: JsonObject
  data_key: Buffer
  preferences: [scope: string, channel: number, enabled: boolean | null][] | null
}

interface EventJob {
  event: Omit<Event, 'time' | 'receivedAt'> & { time: string; receivedAt: string }
}
interface RecipientsJob extends EventJob {
  ruleId: string
  users: string[]
}
interface ChannelJob extends EventJob {
  ruleId: string
  userId: string
  channel: Channel
}
interface SendJob {
  id: string
  userId: string
}

/** So many jobs waiting that the door lets callers wait: a backlog would only make every later step slower. */
const MOST_WAITING = 4000
/** Rows of one statement, and statements at once. */
const MOST_TOGETHER = 500
const LANES = 4

async function run(options: PeerOptions): Promise<void> {
  const { tenantId } = options
  const db = openDb(options.databaseUrl, { max: 4 * LANES, applicationName: 'peer' })
  const seals = sealer(options.masterKey)
  const rules = ruleBook(changeWatch())
  await rules.refresh(db)
  const index = rules.index(tenantId)!
  const { rows: stored } = await db.pool.query('select id from templates where tenant_id = $1', [tenantId])
  const compiled = new Map<string, CompiledRevision>()
  for (const { id } of stored) {
    const [revision] = await templates().load(db, [{ tenantId, templateId: id }])
    if (revision) compiled.set(id, revision)
  }
  const { rows: tenants } = await db.pool.query('select name, data_key from tenants where id = $1', [
    tenantId,
  ])
  const tenant = { name: tenants[0].name as string, dataKey: seals.unwrap(tenants[0].data_key) }

  // ---------------------------------------------------------------- queues

  const connect = () => {
    const client = createClient({ url: `redis://127.0.0.1:${options.redisPort}` })
    client.on('error', () => {})
    return client
  }
  const shared = connect()
  const queues = Object.fromEntries(
    QUEUES.map(name => [
      name,
      new Queue(name, {
        connection: shared,
        defaultJobOptions: {
          removeOnComplete: true,
          removeOnFail: 1000,
          attempts: 3,
          backoff: { type: 'exponential', delay: 1000 },
        },
      }),
    ]),
  ) as Record<QueueName, Queue>
  const adders = Object.fromEntries(
    QUEUES.map(name => [
      name,
      together(async (jobs: object[]) => {
        await queues[name].addBulk(jobs.map(data => ({ name, data })))
        return jobs
      }),
    ]),
  ) as Record<QueueName, (job: object) => Promise<object>>
  const add = (name: QueueName, jobs: readonly object[]) => Promise.all(jobs.map(adders[name]))

  // ---------------------------------------------------------------- the four stages

  const work: Record<QueueName, (job: Job) => Promise<void>> = {
    async match({ data }: Job<EventJob>) {
      const view = celEvent(eventOf(data.event), tenant.name)
      const now = new Date()
      const matched = index.match(view, now).matched.map(rule => {
        const asked = rule.recipientExpression?.evaluate(view, now)
        if (asked && !asked.ok) throw new Error(asked.error)
        return {
          event: data.event,
          ruleId: rule.id,
          users: [...(rule.recipients.users ?? []), ...(asked?.value ?? [])],
        }
      })
      await add('recipients', matched satisfies RecipientsJob[])
    },

    async recipients({ data }: Job<RecipientsJob>) {
      const { event, ruleId, users } = data
      const { channels } = index.get(ruleId)!
      const jobs: ChannelJob[] = users.flatMap(userId =>
        channels.map(channel => ({ event, ruleId, userId, channel })),
      )
      await add('channel', jobs)
    },

    async channel({ data }: Job<ChannelJob>) {
      const { channel, userId } = data
      const [user, defaults] = await Promise.all([factsOf(userId), factsOf('')])
      if (!user?.enabled || !wanted(channel, user, defaults)) return
      const rule = index.get(data.ruleId)!
      const event = eventOf(data.event)
      const now = new Date()
      const id = newId()
      const view = templateView({
        event: eventView(event),
        vars: rule.templateVars,
        user: { id: userId, locale: user.locale, timezone: user.timezone, attributes: user.attributes },
        notification: { id, priority: rule.priority },
        tenant,
        now,
      })
      const revision = compiled.get(rule.templateId!)!
      const content = { [channel]: { ...render(revision, channel, user.locale, view), to: userId } }
      await insert({
        id,
        event_id: event.id,
        event_type: event.type,
        recipient_id: userId,
        rule_id: rule.id,
        template_id: rule.templateId!,
        revision: revision.revision.revision,
        locale: user.locale,
        priority: PRIORITIES.indexOf(rule.priority),
        category: rule.category ?? event.category ?? domainOf(event.type),
        channels: Buffer.from([CHANNELS.indexOf(channel)]),
        created_at: now,
        content: seals.seal(seals.unwrap(user.data_key), JSON.stringify(content)),
      })
      await add('send', [{ id, userId }] satisfies SendJob[])
    },

    async send({ data }: Job<SendJob>) {
      await deliver(data)
    },
  }

  // ---------------------------------------------------------------- SQL, many rows a statement

  const factsOf = together(async (ids: string[]): Promise<(Facts | undefined)[]> => {
    const people = new Map(
      (await db.rows<Facts>(selectFacts, [tenantId, [...new Set(ids)]])).map(row => [row.user_id, row]),
    )
    return ids.map(id => people.get(id))
  })
  const insert = together(async (rows: NotificationRow[]) => {
    const of = <K extends keyof NotificationRow>(name: K) => rows.map(row => row[name])
    await db.run(insertNotifications, [
      tenantId,
      of('id'),
      of('event_id'),
      of('event_type'),
      of('recipient_id'),
      of('rule_id'),
      of('template_id'),
      of('revision'),
      of('locale'),
      of('priority'),
      of('category'),
      of('channels'),
      of('created_at'),
      of('content'),
    ])
    return rows
  })
  const deliver = together(async (jobs: SendJob[]) => {
    await db.run(deliverInApp, [tenantId, jobs.map(job => job.id), jobs.map(job => job.userId), new Date()])
    return jobs
  })

  const workers = QUEUES.map(
    name =>
      new Worker(name, work[name], {
        connection: connect(),
        concurrency: options.concurrency,
        // No job takes 30 s, so no lock needs to be renewed.
        skipLockRenewal: true,
      }),
  )
  for (const worker of workers) {
    worker.on('failed', (_, error) => console.error('job failed:', error.message))
    worker.on('error', error => console.error('worker:', error.message))
  }

  // ---------------------------------------------------------------- the door

  const door = Fastify({ bodyLimit: 4 << 20 })
  let waiting = 0
  const gate: (() => void)[] = []
  const watch = setInterval(() => {
    if (!options.door) return
    void Promise.all(QUEUES.map(name => queues[name].getJobCountByTypes('wait', 'active', 'prioritized')))
      .then(counts => {
        waiting = counts.reduce((sum, count) => sum + count, 0)
        // One more caller a look, and more of them the emptier it is.
        for (let room = MOST_WAITING - waiting; room > 0 && gate.length > 0; room -= 200) gate.shift()!()
      })
      .catch(() => {})
  }, 20)
  const hashOf = (text: string) => createHash('sha256').update(text).digest()
  const keyHash = hashOf(`Bearer ${options.apiKey}`)

  door.post<{ Body: { events: { type: string; data: JsonObject }[] } }>(
    '/api/events/batch',
    { schema: { body: BODY } },
    async (request, reply) => {
      if (!timingSafeEqual(hashOf(request.headers.authorization ?? ''), keyHash))
        return reply.code(401).send()
      if (waiting >= MOST_WAITING || gate.length > 0) await new Promise<void>(resolve => gate.push(resolve))
      const time = new Date().toISOString()
      const events: EventJob['event'][] = request.body.events.map(({ type, data }) => ({
        tenantId,
        id: newId(),
        source: '/bench',
        type,
        data,
        time,
        receivedAt: time,
      }))
      await db.run(insertEvents, [
        tenantId,
        events.map(event => event.id),
        events.map(event => event.source),
        events.map(event => event.type),
        time,
        events.map(event => seals.seal(tenant.dataKey, JSON.stringify({ data: event.data }))),
      ])
      await queues.match.addBulk(events.map(event => ({ name: 'match', data: { event } })))
      return reply.code(202).send({ results: events.map(({ id }) => ({ id, status: 'accepted' })) })
    },
  )

  process.once('SIGTERM', () => {
    // Whatever does not close in time goes with the process: every job is safe in Redis.
    setTimeout(() => process.exit(0), 3000)
    clearInterval(watch)
    void Promise.allSettled([door.close(), ...workers.map(worker => worker.close(true))]).then(() =>
      process.exit(0),
    )
  })
  await Promise.all(workers.map(worker => worker.waitUntilReady()))
  const url = options.door ? await door.listen({ port: 0, host: '127.0.0.1' }) : ''
  console.log(`ready ${url}`)
}

/**
 * Gathers what is asked while earlier statements run, and asks for all of it at once; under load that is many rows
 * a statement, in quiet times it is one without delay.
 */
function together<I, O>(ask: (items: I[]) => Promise<O[]>): (item: I) => Promise<O> {
  const pending: { item: I; resolve(answer: O): void; reject(error: unknown): void }[] = []
  let running = 0
  const start = () => {
    if (running >= LANES || pending.length === 0) return
    running++
    // Everything that is asked in this turn of the event loop goes along.
    setImmediate(() => {
      const batch = pending.splice(0, MOST_TOGETHER)
      const answered = batch.length === 0 ? Promise.resolve([] as O[]) : ask(batch.map(one => one.item))
      void answered
        .then(
          answers => batch.forEach((one, i) => one.resolve(answers[i]!)),
          (error: unknown) => batch.forEach(one => one.reject(error)),
        )
        .finally(() => {
          running--
          start()
        })
    })
  }
  return item =>
    new Promise((resolve, reject) => {
      pending.push({ item, resolve, reject })
      start()
    })
}

const eventOf = (event: EventJob['event']): Event => ({
  ...event,
  time: new Date(event.time),
  receivedAt: new Date(event.receivedAt),
})

/** The person's own word about the channel, then about all; then the tenant's; else yes. */
function wanted(channel: Channel, user: Facts, defaults: Facts | undefined): boolean {
  const code = CHANNELS.indexOf(channel)
  for (const list of [user.preferences, defaults?.preferences]) {
    for (const about of [code, -1]) {
      const said = list?.find(([scope, of, enabled]) => scope === '' && of === about && enabled !== null)
      if (said) return said[2] === true
    }
  }
  return true
}

interface NotificationRow {
  id: string
  event_id: string
  event_type: string
  recipient_id: string
  rule_id: string
  template_id: string
  revision: number
  locale: string
  priority: number
  category: string
  channels: Buffer
  created_at: Date
  content: Buffer
}

const EVENT = {
  type: 'object',
  required: ['type', 'data'],
  properties: { type: { type: 'string', maxLength: 255 }, data: { type: 'object' } },
}
const BODY = {
  type: 'object',
  required: ['events'],
  properties: { events: { type: 'array', maxItems: 1000, items: EVENT } },
}

const insertEvents = sql(
  'peer_insert_events',
  `insert into peer.events (tenant_id, id, source, type, time, received_at, data)
   select $1, id, source, type, $5, $5, data
   from unnest($2::uuid[], $3::text[], $4::text[], $6::bytea[]) as e (id, source, type, data)`,
)
const selectFacts = sql(
  'peer_facts',
  `select w.user_id, coalesce(u.enabled, true) as enabled, u.locale, u.timezone, u.attributes, u.data_key, p.preferences
   from unnest($2::text[]) as w (user_id)
   left join users u on u.tenant_id = $1 and u.user_id = w.user_id
   left join lateral (
     select json_agg(json_build_array(scope, channel, enabled)) as preferences
     from preferences where tenant_id = $1 and user_id = w.user_id
   ) p on true
   where u.user_id is not null or w.user_id = ''`,
)
const insertNotifications = sql(
  'peer_insert_notifications',
  `insert into peer.notifications (tenant_id, id, event_id, event_type, recipient_type, recipient_id, rule_id,
     template_id, revision, locale, priority, category, channels, created_at, content)
   select $1, id, event_id, event_type, 0, recipient_id, rule_id, template_id, revision, locale, priority, category,
     channels, created_at, content
   from unnest($2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::uuid[], $7::uuid[], $8::int[], $9::text[],
     $10::int2[], $11::text[], $12::bytea[], $13::timestamptz[], $14::bytea[])
     as n (id, event_id, event_type, recipient_id, rule_id, template_id, revision, locale, priority, category,
       channels, created_at, content)`,
)
// A job that runs a second time finds its notification delivered.
const deliverInApp = sql(
  'peer_deliver',
  `with delivered as (
     update peer.notifications n set status = 1, delivered_at = $4
     from unnest($2::uuid[], $3::text[]) as w (id, user_id)
     where n.tenant_id = $1 and n.id = w.id and n.status = 0
     returning n.id, w.user_id
   )
   insert into peer.feed (tenant_id, user_id, notification_id, created_at)
   select $1, user_id, id, $4 from delivered`,
)

if (import.meta.main) await run(JSON.parse(process.argv[2]!) as PeerOptions)
