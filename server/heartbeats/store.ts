import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { PRIORITIES } from '../types.ts'
import type { Event, JsonObject, Priority, TenantId } from '../types.ts'
import { type Heard, dueOf, statusOf, verdictOf } from './heartbeat.ts'
import type { HeartbeatStatus } from './heartbeat.ts'

export interface HeartbeatDefinition {
  name: string
  description: string
  everySeconds: number
  graceSeconds: number
  /** Accepted events that count as a beat: types, `commerce.*`, or `*`; none of them: by request only. */
  eventTypes: string[]
  /** Only those of this source, or about this subject. */
  eventSource: string | null
  eventSubject: string | null
  /** Of the events that tell of it. */
  priority: Priority | null
  paused: boolean
}

export interface StoredHeartbeat extends HeartbeatDefinition {
  status: HeartbeatStatus | 'paused'
  lastBeatAt: Date | null
  missedAt: Date | null
  /** When it is expected at the latest, as things stand; null while it is paused. */
  expectedBy: Date | null
  createdAt: Date
  updatedAt: Date
}

export const MISSED_EVENT = 'carillon.heartbeat.missed'
export const RECOVERED_EVENT = 'carillon.heartbeat.recovered'
/** Missing, and no longer waited for: paused, changed or deleted. The alert ends; nothing is known of the source. */
export const WITHDRAWN_EVENT = 'carillon.heartbeat.withdrawn'

export const MAX_HEARTBEATS = 1_000

interface Row {
  tenant_id: TenantId
  name: string
  description: string
  every_seconds: number
  grace_seconds: number
  event_types: string[]
  event_source: string | null
  event_subject: string | null
  priority: number | null
  paused: boolean
  created_at: Date
  updated_at: Date
  since: Date
  last_beat_at: Date | null
  deaf_ms: string
  missed_at: Date | null
  deaf_now: string
}

const selectHeartbeats = (now: string) =>
  `select h.tenant_id, h.name, h.description, h.every_seconds, h.grace_seconds, h.event_types, h.event_source,
     h.event_subject, h.priority, h.paused, h.created_at, h.updated_at, s.since, s.last_beat_at, s.deaf_ms, s.missed_at,
     heartbeat_deaf_ms(${now}) as deaf_now
   from heartbeats h join heartbeat_states s on s.tenant_id = h.tenant_id and s.name = h.name`

const find = sql('find_heartbeat', `${selectHeartbeats('$3')} where h.tenant_id = $1 and h.name = $2`)
const list = sql(
  'list_heartbeats',
  `${selectHeartbeats('$4')} where h.tenant_id = $1 and ($2::text is null or h.name > $2) order by h.name limit $3`,
)
// The state is locked: neither a beat nor a look comes between what is told and what is changed.
const lock = sql(
  'lock_heartbeat',
  `${selectHeartbeats('$3')} where h.tenant_id = $1 and h.name = $2 for update`,
)
// A statement of its own: one that waits for a lock does not see what it waited for.
const lockDefinitions = sql(
  'lock_heartbeat_definitions',
  `select pg_advisory_xact_lock(hashtext('heartbeats'), $1)`,
)
const count = sql('count_heartbeats', `select count(*)::int as n from heartbeats where tenant_id = $1`)
const insert = sql(
  'insert_heartbeat',
  `insert into heartbeats (tenant_id, name, description, every_seconds, grace_seconds, event_types, event_source,
     event_subject, priority, paused, created_at, updated_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)`,
)
const update = sql(
  'update_heartbeat',
  `update heartbeats set description = $3, every_seconds = $4, grace_seconds = $5, event_types = $6, event_source = $7,
     event_subject = $8, priority = $9, paused = $10, updated_at = $11
   where tenant_id = $1 and name = $2`,
)
const remove = sql('delete_heartbeat', `delete from heartbeats where tenant_id = $1 and name = $2`)
const begin = sql(
  'begin_heartbeat',
  `insert into heartbeat_states as s (tenant_id, name, since, deaf_ms, check_at)
   values ($1, $2, $3, heartbeat_deaf_ms($3), $4)
   on conflict (tenant_id, name) do update
     set since = excluded.since, deaf_ms = excluded.deaf_ms, missed_at = null, check_at = excluded.check_at`,
)

// What ends a silence is looked at soon; every other beat is found when its heartbeat is looked at anyway.
const beat = sql(
  'beat_heartbeat',
  `update heartbeat_states set
     deaf_ms = case when last_beat_at >= $3 then deaf_ms else heartbeat_deaf_ms($3) end,
     last_beat_at = greatest(last_beat_at, $3),
     check_at = case when missed_at is null then check_at else $3 end
   where tenant_id = $1 and name = $2 returning missed_at is not null as was_missed`,
)

const claimDue = sql(
  'claim_due_heartbeats',
  `${selectHeartbeats('$1')} where s.check_at <= $1 order by s.check_at limit $2 for update of s skip locked`,
)
const save = sql(
  'save_heartbeat_states',
  `update heartbeat_states s set missed_at = n.missed_at, check_at = n.check_at
   from unnest($1::int[], $2::text[], $3::timestamptz[], $4::timestamptz[]) as n (tenant_id, name, missed_at, check_at)
   where s.tenant_id = n.tenant_id and s.name = n.name`,
)

// ---------------------------------------------------------------- definitions

/** @throws AppError not_found */
export async function findHeartbeat(
  q: Queryable,
  tenantId: TenantId,
  name: string,
  now: Date,
): Promise<StoredHeartbeat> {
  const row = await q.one<Row>(find, [tenantId, name, now])
  if (!row) throw none()
  return stored(row, now)
}

/** By name, after the name `after`. */
export const listHeartbeats = async (
  q: Queryable,
  tenantId: TenantId,
  after: string | null,
  limit: number,
  now: Date,
): Promise<StoredHeartbeat[]> =>
  (await q.rows<Row>(list, [tenantId, after, limit, now])).map(row => stored(row, now))

/**
 * Makes or replaces it. From then on it is waited for anew, unless only its words or its priority changed.
 *
 * @returns it, and whether there was none before
 * @throws AppError conflict beyond MAX_HEARTBEATS
 */
export async function putHeartbeat(
  tx: Tx,
  actor: Actor,
  made: HeartbeatDefinition,
  now: Date,
  write: WriteEvents,
): Promise<{ heartbeat: StoredHeartbeat; created: boolean }> {
  const { tenantId } = actor
  await tx.run(lockDefinitions, [tenantId])
  const before = await tx.one<Row>(lock, [tenantId, made.name, now])
  if (!before) {
    const { n } = (await tx.one<{ n: number }>(count, [tenantId]))!
    if (n >= MAX_HEARTBEATS) throw new AppError('conflict', `There are ${MAX_HEARTBEATS} heartbeats already.`)
  }
  await tx.run(before ? update : insert, [
    tenantId,
    made.name,
    made.description,
    made.everySeconds,
    made.graceSeconds,
    made.eventTypes,
    made.eventSource,
    made.eventSubject,
    made.priority === null ? null : PRIORITIES.indexOf(made.priority),
    made.paused,
    now,
  ])
  if (!before || awaited(definition(before)) !== awaited(made)) {
    if (before) await withdraw(tx, before, made.paused && !before.paused ? 'paused' : 'changed', now, write)
    const heard = { sinceMs: now.getTime(), lastBeatMs: null, deafMs: 0, missedMs: null }
    const { missingMs } = dueOf(heard, paceOf(made), 0)
    await tx.run(begin, [tenantId, made.name, now, made.paused ? null : new Date(missingMs)])
  }
  await audit(tx, actor, {
    action: before ? 'heartbeat.updated' : 'heartbeat.created',
    objectKind: 'heartbeat',
    objectId: made.name,
    details: { ...(before && { before: { ...definition(before) } }), after: { ...made } },
  })
  return { heartbeat: await findHeartbeat(tx, tenantId, made.name, now), created: !before }
}

/** Stops or goes on waiting for it; does nothing when that is so already. @throws AppError not_found */
export async function pauseHeartbeat(
  tx: Tx,
  actor: Actor,
  name: string,
  paused: boolean,
  now: Date,
  write: WriteEvents,
): Promise<StoredHeartbeat> {
  await tx.run(lockDefinitions, [actor.tenantId])
  const before = await tx.one<Row>(find, [actor.tenantId, name, now])
  if (!before) throw none()
  if (before.paused === paused) return stored(before, now)
  return (await putHeartbeat(tx, actor, { ...definition(before), paused }, now, write)).heartbeat
}

/** @throws AppError not_found */
export async function deleteHeartbeat(
  tx: Tx,
  actor: Actor,
  name: string,
  now: Date,
  write: WriteEvents,
): Promise<void> {
  await tx.run(lockDefinitions, [actor.tenantId])
  const before = await tx.one<Row>(lock, [actor.tenantId, name, now])
  if (!before) throw none()
  await withdraw(tx, before, 'deleted', now, write)
  await tx.run(remove, [actor.tenantId, name])
  await audit(tx, actor, {
    action: 'heartbeat.deleted',
    objectKind: 'heartbeat',
    objectId: name,
    details: { before: { ...definition(before) } },
  })
}

/** What it is waited for by: whoever changes this asks another question. */
const awaited = (made: HeartbeatDefinition): string =>
  JSON.stringify([
    made.everySeconds,
    made.graceSeconds,
    made.eventTypes,
    made.eventSource,
    made.eventSubject,
    made.paused,
  ])

async function withdraw(
  tx: Tx,
  row: Row,
  reason: 'paused' | 'changed' | 'deleted',
  now: Date,
  write: WriteEvents,
): Promise<void> {
  if (row.missed_at === null) return
  await write(
    tx,
    [eventOf(row, WITHDRAWN_EVENT, { missedAt: row.missed_at.toISOString(), reason }, now)],
    now,
  )
}

// ---------------------------------------------------------------- beats

/**
 * A beat.
 *
 * @returns whether it ends a silence, which then is to be looked at
 * @throws AppError not_found
 */
export async function beatHeartbeat(
  q: Queryable,
  tenantId: TenantId,
  name: string,
  now: Date,
): Promise<{ ends: boolean }> {
  const row = await q.one<{ was_missed: boolean }>(beat, [tenantId, name, now])
  if (!row) throw none()
  return { ends: row.was_missed }
}

export interface Beat {
  tenantId: TenantId
  name: string
  at: Date
}

/**
 * The same for several, as one statement without parameters: it travels in the script of the commit that accepts
 * the events. The rows are locked in one order, for several commits take several of them.
 */
export function beatScript(beats: readonly Beat[]): string {
  const values = beats.map(({ tenantId, name, at }) => {
    if (!PLAIN.test(name)) throw new Error('The name of a heartbeat is not plain')
    return `(${Number(tenantId)}, '${name}', '${at.toISOString()}'::timestamptz)`
  })
  return `with heard as materialized (
  select s.tenant_id, s.name, b.at from (values ${values.join()}) as b (tenant_id, name, at)
  join heartbeat_states s on s.tenant_id = b.tenant_id and s.name = b.name
  order by s.tenant_id, s.name for update of s
)
update heartbeat_states s set
  deaf_ms = case when s.last_beat_at >= heard.at then s.deaf_ms else heartbeat_deaf_ms(heard.at) end,
  last_beat_at = greatest(s.last_beat_at, heard.at),
  check_at = case when s.missed_at is null then s.check_at else heard.at end
from heard where s.tenant_id = heard.tenant_id and s.name = heard.name`
}

/** As the table checks it: it stands in a script. */
const PLAIN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$/

// ---------------------------------------------------------------- looking

/** Heartbeats looked at in one transaction. */
const LOOK = 200

/**
 * Looks at those that are due, and tells what changed, in one transaction: of several processes that look at once,
 * one tells.
 *
 * @returns how many were looked at, and how many events were told
 */
export async function lookAtHeartbeats(
  tx: Tx,
  now: Date,
  write: WriteEvents,
): Promise<{ looked: number; told: number }> {
  const rows = await tx.rows<Row>(claimDue, [now, LOOK])
  if (rows.length === 0) return { looked: 0, told: 0 }
  const events: Event[] = []
  const verdicts = rows.map(row => {
    const { change, checkMs } = verdictOf(
      heardOf(row),
      paceOf(definition(row)),
      Number(row.deaf_now),
      now.getTime(),
    )
    if (change === 'missed') events.push(eventOf(row, MISSED_EVENT, {}, now))
    if (change === 'recovered') {
      const missedAt = row.missed_at!.toISOString()
      events.push(eventOf(row, RECOVERED_EVENT, { missedAt }, now))
    }
    const missedAt = change === 'missed' ? now : change === 'recovered' ? null : row.missed_at
    return { missedAt, checkAt: checkMs === null ? null : new Date(checkMs) }
  })
  await tx.run(save, [
    rows.map(row => row.tenant_id),
    rows.map(row => row.name),
    verdicts.map(({ missedAt }) => missedAt),
    verdicts.map(({ checkAt }) => checkAt),
  ])
  await write(tx, events, now)
  return { looked: rows.length, told: events.length }
}

// ---------------------------------------------------------------- rows

const none = () => new AppError('not_found', 'There is no heartbeat of this name.')

const definition = (row: Row): HeartbeatDefinition => ({
  name: row.name,
  description: row.description,
  everySeconds: row.every_seconds,
  graceSeconds: row.grace_seconds,
  eventTypes: row.event_types,
  eventSource: row.event_source,
  eventSubject: row.event_subject,
  priority: row.priority === null ? null : PRIORITIES[row.priority]!,
  paused: row.paused,
})

const paceOf = ({
  everySeconds,
  graceSeconds,
}: Pick<HeartbeatDefinition, 'everySeconds' | 'graceSeconds'>) => ({
  everyMs: everySeconds * 1000,
  graceMs: graceSeconds * 1000,
})

const heardOf = (row: Row): Heard => ({
  sinceMs: row.since.getTime(),
  lastBeatMs: row.last_beat_at?.getTime() ?? null,
  deafMs: Number(row.deaf_ms),
  missedMs: row.missed_at?.getTime() ?? null,
})

function stored(row: Row, now: Date): StoredHeartbeat {
  const made = definition(row)
  const heard = heardOf(row)
  const deafMs = Number(row.deaf_now)
  const { expectedMs } = dueOf(heard, paceOf(made), deafMs)
  return {
    ...made,
    status: row.paused ? 'paused' : statusOf(heard, paceOf(made), deafMs, now.getTime()),
    lastBeatAt: row.last_beat_at,
    missedAt: row.missed_at,
    expectedBy: row.paused ? null : new Date(expectedMs),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

/** Told as an alert is, so that silences, inhibitions and stateful rules know what to make of it. */
function eventOf(row: Row, type: string, more: JsonObject, now: Date): Event {
  const { tenant_id: tenantId, name } = row
  const firing = type === MISSED_EVENT
  const startsAt = (firing ? now : row.missed_at!).toISOString()
  return {
    tenantId,
    id: newId(now.getTime()),
    source: 'carillon',
    type,
    subject: name,
    time: now,
    receivedAt: now,
    ...(row.priority !== null && { priority: PRIORITIES[row.priority]! }),
    data: {
      heartbeat: name,
      ...(row.description !== '' && { description: row.description }),
      everySeconds: row.every_seconds,
      graceSeconds: row.grace_seconds,
      lastBeatAt: row.last_beat_at?.toISOString() ?? null,
      waitingSince: row.since.toISOString(),
      ...more,
      status: firing ? 'firing' : 'resolved',
      fingerprint: `heartbeat:${name}`,
      startsAt,
      labels: { heartbeat: name },
    },
  }
}
