import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { REASONS } from '../reasons.ts'
import type { Reason } from '../reasons.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, Outcome, TenantId } from '../types.ts'

/** Ways of still being on the way. `backlog`: due, and waiting for a worker with room. */
export const LIVE = ['in_flight', 'backlog', 'held', 'retrying'] as const

/** Where a delivery stands, as the view `deliveries` says it. `lost` must never be. */
export type DeliveryState = Outcome | (typeof LIVE)[number] | 'lost'

export const isLive = (status: DeliveryState): boolean => (LIVE as readonly string[]).includes(status)

/**
 * How far each outcome is. A receipt only ever moves a delivery to a higher rank: a provider that accepted may say
 * `delivered` later, and a mailbox that took a message may still bounce it hours after (RFC 3464), but no late
 * receipt turns `delivered` into `sent`. What we ended ourselves is not the provider's to change.
 */
export const OUTCOME_RANK: Readonly<Record<Outcome, number>> = {
  unknown: 1,
  sent: 2,
  failed: 3,
  rejected: 3,
  delivered: 4,
  bounced: 5,
  cancelled: 9,
  expired: 9,
  suppressed: 9,
}

/** What stands after a receipt says `next`. */
export const forward = (current: Outcome, next: Outcome): Outcome =>
  OUTCOME_RANK[next] > OUTCOME_RANK[current] ? next : current

/** The documented words for a whole notification. */
export const NOTIFICATION_STATUSES = [
  'delivered',
  'sent',
  'sending',
  'retrying',
  'queued',
  'pending',
  'failed',
  'cancelled',
] as const
export type NotificationStatus = (typeof NOTIFICATION_STATUSES)[number]

/** What a delivery's state says of the whole notification. */
export const NOTIFICATION_WORD: Readonly<Record<DeliveryState, NotificationStatus>> = {
  delivered: 'delivered',
  sent: 'sent',
  in_flight: 'sending',
  retrying: 'retrying',
  backlog: 'queued',
  held: 'pending',
  failed: 'failed',
  bounced: 'failed',
  rejected: 'failed',
  unknown: 'failed',
  lost: 'failed',
  cancelled: 'cancelled',
  expired: 'cancelled',
  suppressed: 'cancelled',
}

/**
 * The word of the delivery that came furthest: one channel that arrived makes the notification delivered, whatever
 * the others do; it has failed only once nothing is on its way any more.
 */
export function notificationStatus(deliveries: readonly { status: DeliveryState }[]): NotificationStatus {
  const words = new Set(deliveries.map(({ status }) => NOTIFICATION_WORD[status]))
  return NOTIFICATION_STATUSES.find(word => words.has(word)) ?? 'cancelled'
}

export const EVENT_STATUSES = ['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELLED'] as const
export type EventStatus = (typeof EVENT_STATUSES)[number]

/** How far the planning of an event is. */
export type PlanningState = 'waiting' | 'running' | 'planned' | 'failed' | 'cancelled' | 'expired'

/**
 * The documented word for an event. It describes processing, not success: an event whose mails all bounced is
 * COMPLETED; FAILED is one that could not be planned.
 */
export function eventStatus(
  planning: PlanningState,
  deliveries: readonly { status: DeliveryState }[],
): EventStatus {
  if (planning === 'waiting') return 'PENDING'
  if (planning === 'running') return 'PROCESSING'
  if (planning === 'failed') return 'FAILED'
  if (planning === 'cancelled' || planning === 'expired') return 'CANCELLED'
  const live = deliveries.filter(({ status }) => isLive(status))
  if (live.length > 0) {
    const begun =
      live.length < deliveries.length || live.some(d => d.status === 'in_flight' || d.status === 'retrying')
    return begun ? 'PROCESSING' : 'PENDING'
  }
  const dropped = deliveries.length > 0 && deliveries.every(d => NOTIFICATION_WORD[d.status] === 'cancelled')
  return dropped ? 'CANCELLED' : 'COMPLETED'
}

export interface DeliveryView {
  notificationId: Id
  channel: Channel
  fallback: boolean
  status: DeliveryState
  /** Tries made so far. */
  attempts: number
  lastAt: Date | null
  /** The last try's. */
  provider: string | null
  code: string | null
  error: string | null
  waitsFor: WaitsFor | null
}

/** What a delivery that is not being tried waits for. */
export interface WaitsFor {
  kind: 'held' | 'retry' | 'fallback' | 'redrive' | 'collected' | 'escalation' | 'backlog'
  /** null: not known here, as it goes when its digest does. */
  until: Date | null
  reason: Reason
  text: string
}

interface DeliveryRow {
  notification_id: string
  channel: number
  is_fallback: boolean
  status: DeliveryState
  attempts: number
  last_at: Date | null
  provider: string | null
  code: string | null
  error: string | null
  job_kind: WaitsFor['kind'] | null
  job_reason: Reason | null
  run_at: Date | null
}

const DELIVERY_COLUMNS =
  'd.notification_id, d.channel, d.is_fallback, d.status, d.attempts, d.last_at, d.provider, d.code, d.error, ' +
  'd.job_kind, d.job_reason, d.run_at'

const selectDeliveries = sql(
  'deliveries_of',
  `select ${DELIVERY_COLUMNS} from unnest($2::uuid[]) as wanted (id)
   cross join lateral (select * from deliveries d where d.tenant_id = $1 and d.notification_id = wanted.id) d`,
)

/** Where every delivery of these notifications stands, by notification; one that does not exist is absent. */
export async function deliveriesOf(
  q: Queryable,
  tenantId: TenantId,
  notificationIds: readonly Id[],
): Promise<Map<Id, DeliveryView[]>> {
  const found = new Map<Id, DeliveryView[]>()
  if (notificationIds.length === 0) return found
  for (const row of await q.rows<DeliveryRow>(selectDeliveries, [tenantId, notificationIds])) {
    const list = found.get(row.notification_id)
    if (list) list.push(readDelivery(row))
    else found.set(row.notification_id, [readDelivery(row)])
  }
  return found
}

function readDelivery(row: DeliveryRow): DeliveryView {
  return {
    notificationId: row.notification_id,
    channel: CHANNELS[row.channel]!,
    fallback: row.is_fallback,
    status: row.status,
    attempts: row.attempts,
    lastAt: row.last_at,
    provider: row.provider,
    code: row.code,
    error: row.error,
    waitsFor: waitsFor(row),
  }
}

function waitsFor(row: DeliveryRow): WaitsFor | null {
  if (!isLive(row.status) || row.status === 'in_flight') return null
  const reason = row.job_reason ?? 'spilled'
  // A reason that a newer version wrote is shown as it is.
  const until = row.job_kind === 'collected' ? null : row.run_at
  return { kind: row.job_kind ?? 'backlog', until, reason, text: REASONS[reason]?.text ?? reason }
}

export interface AttemptView {
  attempt: number
  at: Date
  outcome: Outcome
  final: boolean
  provider: string | null
  code: string | null
  durationMs: number | null
  error: string | null
  /** In the currency that the provider is set up with. */
  cost: number | null
}

const selectAttempts = sql(
  'attempts_of',
  `select a.notification_id, a.channel, a.attempt, a.at, outcome_name(a.outcome) as outcome, a.final, a.provider,
     a.code, a.duration_ms, a.error, a.cost::float8 as cost
   from unnest($2::uuid[]) as wanted (id)
   cross join lateral (
     select * from attempts x where x.tenant_id = $1 and x.notification_id = wanted.id
     order by x.notification_id, x.channel, x.attempt, x.worker limit 500
   ) a`,
)

/** Every try of these notifications in order (500 of each at most), under `attemptsKey`. */
export async function attemptsOf(
  q: Queryable,
  tenantId: TenantId,
  notificationIds: readonly Id[],
): Promise<Map<string, AttemptView[]>> {
  const found = new Map<string, AttemptView[]>()
  if (notificationIds.length === 0) return found
  const rows = await q.rows<{
    notification_id: string
    channel: number
    attempt: number
    at: Date
    outcome: Outcome
    final: boolean
    provider: string | null
    code: string | null
    duration_ms: number | null
    error: string | null
    cost: number | null
  }>(selectAttempts, [tenantId, notificationIds])
  for (const { notification_id, channel, duration_ms, ...attempt } of rows) {
    const key = attemptsKey(notification_id, CHANNELS[channel]!)
    const list = found.get(key) ?? []
    found.set(key, list)
    list.push({ ...attempt, durationMs: duration_ms })
  }
  return found
}

export const attemptsKey = (notificationId: Id, channel: Channel): string => `${notificationId} ${channel}`
