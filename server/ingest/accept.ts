import { hash } from 'node:crypto'
import type pg from 'pg'
import { newId } from '../db/ids.ts'
import { queryable, sql } from '../db/pool.ts'
import type { Db, Queryable } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { claimIdempotency, idempotencyError, storeIdempotency } from '../ingest/idempotency.ts'
import { SHARDS } from '../ledger/counters.ts'
import { ledgerWriter } from '../ledger/commit.ts'
import type { CommitOptions, Committed, LedgerWriter } from '../ledger/commit.ts'
import type { Plan, PlannedEvent } from '../ledger/plan.ts'
import { MAX_CONFLICTS, isUsageConflict } from '../ledger/usage.ts'
import type { Event, JsonObject, TenantId } from '../types.ts'
import type { AcceptAnswer, AcceptRequest, Accepted, Acceptor, EventTypes } from './acceptor.ts'

export interface AcceptParts {
  db: Db
  /** The stages between accepting and committing (server/pipeline.ts). */
  pipeline: {
    refresh(q: Queryable): Promise<void>
    plan(q: Queryable, events: readonly Event[], now: Date): Promise<Plan>
    seal(event: Event): Buffer
  }
  eventTypes: EventTypes
  /** Sources that are heard of by their events (server/heartbeats/book.ts). */
  heartbeats: {
    refresh(q: Queryable): Promise<void>
    heard(accepted: readonly { event: Event }[], now: Date): { script: string; written(): void } | null
  }
  /** Sealing of stored answers, by the tenant's key. */
  sealAnswer(tenantId: TenantId, text: string): Buffer
  openAnswer(tenantId: TenantId, sealed: Buffer): string
  ledger(): Pick<CommitOptions, 'owner' | 'nextBatchId' | 'leaseSeconds' | 'roomFor'>
  /** After the commit: batches to be sent, people whose feed grew, events a worker must plan. */
  handOver(committed: Committed & { toPlan: number }): void
  now(): Date
  lanes: number
  /** Events in one transaction. */
  batchSize: number
  /** Events waiting for one. */
  maxWaiting: number
  lingerMs: number
  eventKeysDays: number
  idempotencySeconds: number
  onError(error: unknown): void
  observe?: {
    accepted(events: number, duplicates: number, seconds: number): void
    /** Of each event that carries a trace: instants in milliseconds since 1970. */
    traced(event: Event, startedMs: number, plannedMs: number): void
  }
}

export interface RunningAcceptor extends Acceptor {
  /** Finishes what waits, then refuses more. */
  close(): Promise<void>
  readonly waiting: number
}

interface Pending {
  request: AcceptRequest
  resolve(answer: AcceptAnswer): void
  reject(error: unknown): void
}

/**
 * Accepts by natural batching: a few lanes, each a connection of its own, take whatever waits as soon as they are
 * free. When it is quiet a batch is one request; under load it is hundreds of events for one flush to disk.
 */
export function acceptor(parts: AcceptParts): RunningAcceptor {
  const pending: Pending[] = []
  let waiting = 0
  let closed = false
  const idle: (() => void)[] = []
  const lanes = Array.from({ length: parts.lanes }, (_, at) => lane(at))
  const running = Promise.all(lanes)

  function wake(): void {
    idle.shift()?.()
  }

  async function lane(at: number): Promise<void> {
    let client: pg.Client | undefined
    for (;;) {
      if (pending.length === 0) {
        if (closed) break
        await new Promise<void>(resolve => idle.push(resolve))
        continue
      }
      if (parts.lingerMs > 0 && waiting < parts.batchSize && !closed) {
        await new Promise(resolve => setTimeout(resolve, parts.lingerMs))
      }
      const batch = takeBatch()
      if (batch.length === 0) continue
      try {
        client ??= await connect(at)
        await acceptAgain(client, batch, shards[at]!)
      } catch (error) {
        if (client && !(await stillGood(client))) client = undefined
        await failed(batch, error, client, at)
      }
    }
    await client?.end().catch(() => {})
  }

  // A lane that cannot connect answers its callers with database_error; the next batch tries again.
  async function connect(at: number): Promise<pg.Client> {
    const client = await parts.db.connect('carillon accept')
    shards[at] ??= { writer: ledgerWriter((parts.ledger().owner * 16 + at) % SHARDS) }
    return client
  }
  const shards: { writer: LedgerWriter }[] = []

  async function stillGood(client: pg.Client): Promise<boolean> {
    try {
      await client.query('rollback')
      return true
    } catch {
      await client.end().catch(() => {})
      return false
    }
  }

  /** One request that the database refuses must not take the others with it: they are tried one by one. */
  async function failed(
    batch: Pending[],
    error: unknown,
    client: pg.Client | undefined,
    at: number,
  ): Promise<void> {
    if (batch.length === 1 || client === undefined) {
      for (const { reject } of batch) reject(error)
      if (!(error instanceof AppError)) parts.onError(error)
      return
    }
    for (const one of batch) {
      try {
        await acceptAgain(client, [one], shards[at]!)
      } catch (cause) {
        if (!(cause instanceof AppError)) parts.onError(cause)
        one.reject(cause)
        await client.query('rollback').catch(() => {})
      }
    }
  }

  function takeBatch(): Pending[] {
    let events = 0
    let n = 0
    while (n < pending.length && (n === 0 || events + pending[n]!.request.events.length <= parts.batchSize)) {
      events += pending[n++]!.request.events.length
    }
    waiting -= events
    return pending.splice(0, n)
  }

  /** Decided anew whenever another batch took a cap or a claim in between (server/ledger/usage.ts). */
  async function acceptAgain(
    client: pg.Client,
    batch: Pending[],
    shard: { writer: LedgerWriter },
  ): Promise<void> {
    for (let conflicts = 0; ; conflicts++) {
      try {
        return await acceptBatch(client, batch, shard)
      } catch (error) {
        if (!isUsageConflict(error) || conflicts >= MAX_CONFLICTS) throw error
        await client.query('rollback')
      }
    }
  }

  async function acceptBatch(
    client: pg.Client,
    batch: Pending[],
    { writer }: { writer: LedgerWriter },
  ): Promise<void> {
    const started = performance.now()
    const q = queryable(client)
    const now = parts.now()
    await parts.pipeline.refresh(q)
    await parts.heartbeats.refresh(q)

    // Only what must be looked up before planning needs a transaction around it.
    const transactional = batch.some(
      ({ request }) => request.idempotency || request.events.some(event => event.externalId !== undefined),
    )
    if (transactional) await client.query('begin')
    const fresh = transactional ? await claimRequests(q, batch, now) : batch
    const duplicates = transactional ? await claimEvents(q, fresh, now) : NONE

    const drafts = fresh.flatMap(({ request }) => request.events.map(event => draft(event, duplicates, now)))
    const planning = drafts.filter(each => each.kind === 'plan')
    const plannedMs = Date.now()
    const plan = await parts.pipeline.plan(
      q,
      planning.map(each => each.event),
      now,
    )
    const later = drafts.filter(each => each.kind === 'later')
    const refused = drafts.filter(each => each.kind === 'refused')
    const committing: PlannedEvent[] = [
      ...plan.events,
      ...later.map(({ event }) => ({
        event,
        sealed: parts.pipeline.seal(event),
        planned: false,
        planAt: event.scheduledAt!,
        trace: null,
        notifications: [],
        deliveries: 0,
        suppressed: 0,
      })),
    ]

    const byEvent = new Map(committing.map(plan => [plan.event.id, plan]))
    let at = 0
    const answers = fresh.map(({ request }) => {
      const results = request.events.map(() => result(drafts[at++]!, byEvent))
      return { request, ...request.answer(results) }
    })

    const heard = parts.heartbeats.heard(committing, now)

    const inTransaction = transactional || refused.length > 0
    if (inTransaction && !transactional) await client.query('begin')
    await keepRefused(q, refused, now, parts.pipeline.seal)
    await storeIdempotency(
      q,
      answers.flatMap(({ request, status, body }) =>
        request.idempotency
          ? [
              {
                tenantId: request.tenantId,
                ...request.idempotency,
                status,
                response: parts.sealAnswer(request.tenantId, JSON.stringify(body)),
              },
            ]
          : [],
      ),
      now,
      parts.idempotencySeconds * 1000,
    )
    const committed = await writer.commit(client, committing, {
      ...parts.ledger(),
      insertEvents: true,
      inTransaction,
      nowMs: now.getTime(),
      usage: plan.usage,
      also: heard?.script,
      count(delta) {
        for (const each of drafts) {
          if (each.kind === 'duplicate') delta.event(each.event.tenantId, now.getTime(), { duplicates: 1 })
          if (each.kind === 'refused')
            delta.event(each.event.tenantId, now.getTime(), { received: 1, failed: 1 })
        }
      },
    })

    heard?.written()
    parts.handOver({ ...committed, toPlan: committing.reduce((n, plan) => n + (plan.planned ? 0 : 1), 0) })
    parts.observe?.accepted(drafts.length, duplicates.size, (performance.now() - started) / 1000)
    if (parts.observe) {
      for (const { event } of drafts) if (event.traceId) parts.observe.traced(event, now.getTime(), plannedMs)
    }
    let answered = 0
    for (const each of fresh) {
      const { status, body } = answers[answered++]!
      each.resolve({ status, body, replayed: false })
    }
  }

  /** Answers those whose Idempotency-Key is known; the others go on. */
  async function claimRequests(q: Queryable, batch: Pending[], now: Date): Promise<Pending[]> {
    const claims = batch.flatMap(({ request }) =>
      request.idempotency ? [{ tenantId: request.tenantId, ...request.idempotency }] : [],
    )
    if (claims.length === 0) return batch
    const results = await claimIdempotency(q, claims, now)
    let at = 0
    return batch.filter(({ request, resolve, reject }) => {
      if (!request.idempotency) return true
      const claim = results[at++]!
      if (claim.kind === 'fresh') return true
      if (claim.kind === 'replay') resolve(replay(request.tenantId, claim))
      else reject(idempotencyError(claim.kind))
      return false
    })
  }

  const replay = (
    tenantId: TenantId,
    { status, response }: { status: number; response: Buffer },
  ): AcceptAnswer => ({ status, body: JSON.parse(parts.openAnswer(tenantId, response)), replayed: true })

  /** The events whose (source, id) was accepted before, with the earlier event's id. */
  async function claimEvents(q: Queryable, batch: Pending[], now: Date): Promise<ReadonlyMap<Event, string>> {
    const first = new Map<string, Event>()
    const repeated = new Map<Event, string>()
    const keyed: { event: Event; name: string; key: string }[] = []
    for (const { request } of batch) {
      for (const event of request.events) {
        if (event.externalId === undefined) continue
        const key = eventKey(event.source, event.externalId)
        const name = `${event.tenantId} ${key}`
        if (first.has(name)) repeated.set(event, name)
        else {
          first.set(name, event)
          keyed.push({ event, name, key })
        }
      }
    }
    if (keyed.length === 0) return NONE
    const rows = await q.rows<{ tenant_id: number; key: string; event_id: string }>(claimEventKeys, [
      keyed.map(({ event }) => event.tenantId),
      keyed.map(({ key }) => key),
      keyed.map(({ event }) => event.id),
      new Date(now.getTime() + parts.eventKeysDays * 86_400_000),
      now,
    ])
    const holder = new Map(rows.map(row => [`${row.tenant_id} ${row.key}`, row.event_id]))
    const duplicates = new Map<Event, string>()
    const lost = keyed.filter(({ name }) => !holder.has(name))
    if (lost.length > 0) {
      const earlier = await q.rows<{ tenant_id: number; key: string; event_id: string }>(findEventKeys, [
        lost.map(({ event }) => event.tenantId),
        lost.map(({ key }) => key),
      ])
      for (const row of earlier) holder.set(`${row.tenant_id} ${row.key}`, row.event_id)
      for (const { event, name } of lost) duplicates.set(event, holder.get(name)!)
    }
    for (const [event, name] of repeated) duplicates.set(event, holder.get(name)!)
    return duplicates
  }

  function draft(event: Event, duplicates: ReadonlyMap<Event, string>, now: Date): Draft {
    const earlier = duplicates.get(event)
    if (earlier !== undefined) return { kind: 'duplicate', event, earlier }
    const refusal = event.direct ? null : parts.eventTypes.refuse(event)
    if (refusal) return { kind: 'refused', event, refusal }
    // A direct request is decided now and held; an event is held back whole, and meets the rules of its time.
    if (event.scheduledAt && event.scheduledAt > now && !event.direct) return { kind: 'later', event }
    return { kind: 'plan', event }
  }

  return {
    accept(request) {
      if (closed) return Promise.reject(new AppError('shutting_down', 'The server is shutting down'))
      if (waiting + request.events.length > parts.maxWaiting) {
        return Promise.reject(
          new AppError('queue_full', 'Too many events wait to be accepted', { retryAfterSeconds: 1 }),
        )
      }
      return new Promise((resolve, reject) => {
        pending.push({ request, resolve, reject })
        waiting += request.events.length
        wake()
      })
    },
    async answered(tenantId, idempotency) {
      const now = parts.now()
      const [claim] = await parts.db.tx(async tx => {
        await parts.pipeline.refresh(tx)
        return claimIdempotency(tx, [{ tenantId, ...idempotency }], now)
      })
      if (claim!.kind === 'fresh') return undefined
      if (claim!.kind !== 'replay') throw idempotencyError(claim!.kind)
      return replay(tenantId, claim!)
    },
    async close() {
      closed = true
      for (const resolve of idle.splice(0)) resolve()
      await running
    },
    get waiting() {
      return waiting
    },
  }
}

type Draft =
  | { kind: 'plan' | 'later'; event: Event }
  | { kind: 'duplicate'; event: Event; earlier: string }
  | { kind: 'refused'; event: Event; refusal: NonNullable<ReturnType<EventTypes['refuse']>> }

const NONE: ReadonlyMap<Event, string> = new Map()

function result(draft: Draft, plans: ReadonlyMap<string, PlannedEvent>): Accepted {
  const { event } = draft
  switch (draft.kind) {
    case 'duplicate':
      return { eventId: draft.earlier, status: 'duplicate', notifications: [], suppressed: 0 }
    case 'refused': {
      const { field, message } = draft.refusal
      return {
        eventId: event.id,
        status: 'refused',
        error: { field, message },
        notifications: [],
        suppressed: 0,
      }
    }
    default: {
      const plan = plans.get(event.id)!
      return {
        eventId: event.id,
        status: plan.planned ? 'planned' : 'pending',
        notifications: plan.notifications.map(({ id, recipientId, channels }) => ({
          id,
          recipientId,
          channels,
        })),
        suppressed: plan.suppressed,
      }
    }
  }
}

/** First 128 bits of sha256(source \0 id), as a uuid. */
export function eventKey(source: string, id: string): string {
  const hex = hash('sha256', `${source}\0${id}`, 'hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`
}

// In the order of the key, so that two lanes with the same events wait for each other in one direction only. A
// key whose time is over is given to the new event.
const claimEventKeys = sql(
  'claim_event_keys',
  `insert into event_keys as k (tenant_id, key, event_id, expires_at)
   select tenant_id, key, event_id, $4 from unnest($1::int[], $2::uuid[], $3::uuid[]) as e (tenant_id, key, event_id)
   order by tenant_id, key
   on conflict (tenant_id, key) do update set event_id = excluded.event_id, expires_at = excluded.expires_at
     where k.expires_at <= $5
   returning tenant_id, key, event_id`,
)
const findEventKeys = sql(
  'find_event_keys',
  `select k.tenant_id, k.key, k.event_id from unnest($1::int[], $2::uuid[]) as e (tenant_id, key)
   join event_keys k on k.tenant_id = e.tenant_id and k.key = e.key`,
)

const insertRefused = sql(
  'insert_refused_events',
  `insert into dead_letters (tenant_id, id, at, kind, event_id, event_type, code, error, payload)
   select tenant_id, id, $7, 'event', id, event_type, code, error, payload
   from unnest($1::int[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[])
     as e (tenant_id, id, event_type, code, error, payload)`,
)

/** What a dead letter of an event holds, sealed by the tenant's key, so that it can be accepted again. */
export type RefusedEvent = Omit<Event, 'tenantId' | 'time' | 'receivedAt' | 'scheduledAt' | 'expiresAt'> & {
  time: string
  scheduledAt?: string
  expiresAt?: string
}

async function keepRefused(
  q: Queryable,
  refused: Extract<Draft, { kind: 'refused' }>[],
  now: Date,
  seal: (event: Event) => Buffer,
): Promise<void> {
  if (refused.length === 0) return
  await q.run(insertRefused, [
    refused.map(({ event }) => event.tenantId),
    refused.map(({ event }) => event.id),
    refused.map(({ event }) => event.type),
    refused.map(({ refusal }) => refusal.reason),
    refused.map(({ refusal }) => `${refusal.field}: ${refusal.message}`.slice(0, 2000)),
    refused.map(({ event }) =>
      seal({ ...event, direct: undefined, data: refusedPayload(event) as JsonObject }),
    ),
    now,
  ])
}

const refusedPayload = ({ tenantId: _, receivedAt: __, ...event }: Event): unknown =>
  JSON.parse(JSON.stringify(event))

/** A refused event again, under a new id. */
export function readRefused(tenantId: TenantId, opened: Buffer, now: Date): Event {
  const { data } = JSON.parse(opened.toString('utf8')) as { data: RefusedEvent }
  return {
    ...data,
    tenantId,
    id: newId(now.getTime()),
    time: new Date(data.time),
    receivedAt: now,
    scheduledAt: data.scheduledAt === undefined ? undefined : new Date(data.scheduledAt),
    expiresAt: data.expiresAt === undefined ? undefined : new Date(data.expiresAt),
  }
}
