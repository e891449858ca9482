import { sql } from '../db/pool.ts'
import type { Queryable, Tx } from '../db/pool.ts'
import { idTime } from '../db/ids.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId } from '../types.ts'
import { counterDelta } from './counters.ts'
import { PRIORITY_CODE } from './rows.ts'
import type { PlanningState } from './status.ts'

/** An accepted event and how far its planning is; content stays sealed. */
export interface EventRecord {
  id: Id
  type: string
  source: string
  time: Date
  receivedAt: Date
  planning: PlanningState
  /** Failed tries of planning so far. */
  retryCount: number
  /** What the last of them failed with. */
  error: string | null
}

interface EventRow {
  id: string
  type: string
  source: string
  time: Date
  received_at: Date
  planned: boolean
  owner: number | null
  attempt: number | null
  part: number | null
  error: string | null
  outcome: 'part' | 'completed' | 'failed' | 'cancelled' | 'expired' | null
}

const selectEvent = sql(
  'find_event',
  `select e.id, e.type, e.source, e.time, e.received_at, e.planned, p.owner, p.attempt, p.part, p.error, l.outcome
   from events e
   left join planning p on p.tenant_id = e.tenant_id and p.event_id = e.id
   left join lateral (
     select outcome from plans x where x.tenant_id = e.tenant_id and x.event_id = e.id order by x.at desc, x.part desc limit 1
   ) l on not e.planned
   where e.tenant_id = $1 and e.id = $2`,
)

/** @throws AppError not_found */
export async function findEvent(q: Queryable, tenantId: TenantId, id: Id): Promise<EventRecord> {
  const row = await q.one<EventRow>(selectEvent, [tenantId, id])
  if (!row) throw new AppError('not_found', 'There is no event with this id.')
  return {
    id: row.id,
    type: row.type,
    source: row.source,
    time: row.time,
    receivedAt: row.received_at,
    planning: planningOf(row),
    retryCount: row.attempt ?? 0,
    error: row.error,
  }
}

function planningOf(row: EventRow): PlanningState {
  if (row.planned) return 'planned'
  if (row.owner !== null) {
    return row.owner === 0 && row.part === 0 && row.attempt === 0 ? 'waiting' : 'running'
  }
  switch (row.outcome) {
    case 'completed':
      return 'planned'
    case 'failed':
    case 'cancelled':
    case 'expired':
      return row.outcome
    // Neither planned, nor to be planned: planning ended without a word, and can be retried.
    default:
      return 'failed'
  }
}

// An event's notifications have ids in the ranges that it, or its plans, name; others lie between them.
const selectNotificationIds = sql(
  'notification_ids_of_event',
  `with ranges as materialized (
     select first_id, last_id from events where tenant_id = $1 and id = $2 and first_id is not null
     union all
     select first_id, last_id from plans where tenant_id = $1 and event_id = $2 and first_id is not null
   )
   select n.id from ranges r
   cross join lateral (
     select id from notifications n
     where n.tenant_id = $1 and n.id between r.first_id and r.last_id and n.event_id = $2
     order by n.id limit $3
   ) n
   limit $3`,
)

/** The ids of its notifications, `limit` at most. */
export async function notificationIdsOf(
  q: Queryable,
  tenantId: TenantId,
  eventId: Id,
  limit: number,
): Promise<Id[]> {
  const rows = await q.rows<{ id: Id }>(selectNotificationIds, [tenantId, eventId, limit])
  return rows.map(row => row.id)
}

const takePlanning = sql(
  'cancel_planning',
  `delete from planning where tenant_id = $1 and event_id = $2 and owner = 0 and part = 0 returning event_id`,
)
const insertPlan = sql(
  'cancel_plan',
  `insert into plans (tenant_id, event_id, part, at, outcome, trace)
   select $1, $2, coalesce(max(part) + 1, 0), $3, 'cancelled', '{"rules":[],"w":"event_cancelled"}'
   from plans where tenant_id = $1 and event_id = $2`,
)

/**
 * Cancels an event that nobody was told about yet: it waits for its time, or for a worker.
 *
 * @param shard of `event_counters`, the caller's own
 * @throws AppError not_found; conflict when it is being planned, or was
 */
export async function cancelEvent(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  now: Date,
  shard: number,
): Promise<void> {
  if ((await tx.run(takePlanning, [tenantId, id])) === 0) {
    const { planning } = await findEvent(tx, tenantId, id)
    throw new AppError(
      'conflict',
      planning === 'running' || planning === 'waiting'
        ? 'The event is being planned.'
        : `The event is ${planning}.`,
    )
  }
  await tx.run(insertPlan, [tenantId, id, now])
  const delta = counterDelta()
  delta.event(tenantId, idTime(id), { cancelled: 1 })
  await tx.client.query(delta.take(shard))
}

const dropFailure = sql(
  'drop_failed_plan',
  `delete from plans where tenant_id = $1 and event_id = $2 and outcome = 'failed'`,
)
const planAgain = sql(
  'plan_again',
  `insert into planning (tenant_id, event_id, run_at, priority, part)
   select e.tenant_id, e.id, $3, coalesce(e.priority, ${PRIORITY_CODE.NORMAL}),
     coalesce((select max(p.part) + 1 from plans p where p.tenant_id = e.tenant_id and p.event_id = e.id), 0)
   from events e
   where e.tenant_id = $1 and e.id = $2 and not e.planned
   on conflict do nothing`,
)

/**
 * Gives an event whose planning failed to the planner again. It begins anew behind the parts that were planned:
 * whoever was told already is found by the planner and skipped.
 *
 * @param shard of `event_counters`, the caller's own
 * @returns false when its planning has not failed, or not any more
 */
export async function replanEvent(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  now: Date,
  shard: number,
): Promise<boolean> {
  // Whoever deletes the failure is the one who may begin again.
  if ((await tx.run(dropFailure, [tenantId, id])) === 0) return false
  if ((await tx.run(planAgain, [tenantId, id, now])) === 0) return false
  const delta = counterDelta()
  delta.event(tenantId, idTime(id), { failed: -1 })
  await tx.client.query(delta.take(shard))
  return true
}

export interface EventMetrics {
  received: number
  processed: number
  failed: number
  cancelled: number
  duplicates: number
  /** Accepted, not planned yet. */
  pending: number
  /** Open dead letters; 10,000 means that many or more. */
  dlq: number
  /** From accepting to having planned, on average; null before the first. */
  avgProcessingMs: number | null
}

// The counters hold a row a day and writer, so summing all of them stays cheap; dead letters are counted no further
// than anybody would read.
const selectMetrics = sql(
  'event_metrics',
  `select c.*, (select count(*) from (
       select from dead_letters where tenant_id = $1 and redriven_at is null limit 10000
     ) d)::int8 as dlq
   from (
     select coalesce(sum(received), 0)::int8 as received, coalesce(sum(planned), 0)::int8 as planned,
       coalesce(sum(failed), 0)::int8 as failed, coalesce(sum(cancelled), 0)::int8 as cancelled,
       coalesce(sum(duplicates), 0)::int8 as duplicates, coalesce(sum(planning_ms), 0)::int8 as planning_ms
     from event_counters where tenant_id = $1
   ) c`,
)

export async function eventMetrics(q: Queryable, tenantId: TenantId): Promise<EventMetrics> {
  const row = (await q.one<{
    received: number
    planned: number
    failed: number
    cancelled: number
    duplicates: number
    planning_ms: number
    dlq: number
  }>(selectMetrics, [tenantId]))!
  return {
    received: row.received,
    processed: row.planned,
    failed: row.failed,
    cancelled: row.cancelled,
    duplicates: row.duplicates,
    pending: Math.max(0, row.received - row.planned - row.failed - row.cancelled),
    dlq: row.dlq,
    avgProcessingMs: row.planned === 0 ? null : Math.round((row.planning_ms / row.planned) * 100) / 100,
  }
}
