import { CHANNELS, OUTCOMES, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, JsonObject, Outcome, Priority, RecipientType } from '../types.ts'
import { idTime } from '../db/ids.ts'
import type { CopyRows } from './copy.ts'
import type { PlannedEvent, PlannedNotification } from './plan.ts'
import type { Reason } from '../reasons.ts'

// One COPY statement and its row writer beside each other: the order of columns is the order of fields.

const codes = <T extends string>(names: readonly T[]) =>
  Object.fromEntries(names.map((name, code) => [name, code])) as Record<T, number>

export const CHANNEL_CODE: Record<Channel, number> = codes(CHANNELS)
export const PRIORITY_CODE: Record<Priority, number> = codes(PRIORITIES)
export const OUTCOME_CODE: Record<Outcome, number> = codes(OUTCOMES)
export const RECIPIENT_CODE: Record<RecipientType, number> = codes(RECIPIENT_TYPES)

const listCache = new Map<string, Buffer>()

/** A channel list as the ledger stores it: one code a byte, in order. */
export function channelBytes(channels: readonly Channel[]): Buffer {
  const name = channels.join()
  let bytes = listCache.get(name)
  if (!bytes) {
    bytes = Buffer.from(channels.map(channel => CHANNEL_CODE[channel]))
    // Permutations of ten channels are many in theory; what rules really use is a handful.
    if (listCache.size < 1000) listCache.set(name, bytes)
  }
  return bytes
}

export const channelsOf = (bytes: Uint8Array | null): Channel[] =>
  Array.from(bytes ?? [], code => CHANNELS[code]!)

export const COPY_EVENTS =
  'copy events (tenant_id, id, source, type, subject, external_id, time, received_at, scheduled_at, expires_at, ' +
  'priority, category, trace_id, sealed_for, data, planned, trace, first_id, last_id, deliveries, suppressed) ' +
  'from stdin (format binary)'

export function eventRow(rows: CopyRows, plan: PlannedEvent): void {
  const { event, notifications } = plan
  rows.row(21)
  rows.int4(event.tenantId)
  rows.uuid(event.id)
  rows.text(event.source)
  rows.text(event.type)
  rows.text(event.subject)
  rows.text(event.externalId)
  rows.timestamp(event.time.getTime())
  rows.timestamp(event.receivedAt.getTime())
  rows.timestamp(event.scheduledAt?.getTime())
  rows.timestamp(event.expiresAt?.getTime())
  rows.int2(event.priority && PRIORITY_CODE[event.priority])
  rows.text(event.category)
  rows.text(event.traceId)
  rows.text(plan.sealedFor)
  rows.bytes(plan.sealed)
  rows.bool(plan.planned)
  rows.text(plan.trace)
  rows.uuid(notifications[0]?.id)
  rows.uuid(notifications.at(-1)?.id)
  rows.int4(plan.deliveries)
  rows.int4(plan.suppressed)
}

export const COPY_NOTIFICATIONS =
  'copy notifications (tenant_id, id, event_id, event_type, recipient_type, recipient_id, rule_id, template_id, ' +
  'revision, locale, priority, category, channels, fallback, batch_id, created_at, scheduled_at, expires_at, ' +
  'trace_id, experiment_id, variant, thread, content) from stdin (format binary)'

export function notificationRow(rows: CopyRows, notification: PlannedNotification, batchId: number): void {
  rows.row(23)
  rows.int4(notification.tenantId)
  rows.uuid(notification.id)
  rows.uuid(notification.event.id)
  rows.text(notification.event.type)
  rows.int2(RECIPIENT_CODE[notification.recipientType])
  rows.text(notification.recipientId)
  rows.uuid(notification.ruleId)
  rows.uuid(notification.templateId)
  rows.int4(notification.revision)
  rows.text(notification.locale)
  rows.int2(PRIORITY_CODE[notification.priority])
  rows.text(notification.category)
  rows.bytes(channelBytes(notification.channels))
  rows.bytes(notification.fallback.length === 0 ? null : channelBytes(notification.fallback))
  rows.int8(batchId)
  rows.timestamp(idTime(notification.id))
  rows.timestamp(notification.scheduledAt?.getTime())
  rows.timestamp(notification.expiresAt?.getTime())
  rows.text(notification.event.traceId)
  rows.uuid(notification.experiment?.id)
  rows.text(notification.experiment?.variant)
  rows.text(notification.thread)
  rows.bytes(notification.sealed)
}

export const COPY_ATTEMPTS =
  'copy attempts (tenant_id, notification_id, channel, attempt, worker, outcome, final, at, duration_ms, provider, ' +
  'message_id, code, error, cost) from stdin (format binary)'

export interface AttemptRow {
  tenantId: number
  notificationId: string
  channel: Channel
  attempt: number
  outcome: Outcome
  /** False: a job, or the next provider, will try again. */
  final: boolean
  atMs: number
  durationMs: number | null
  provider: string | null
  messageId: string | null
  code: string | null
  error: string | null
  cost: number | null
}

export function attemptRow(rows: CopyRows, attempt: AttemptRow, worker: number): void {
  rows.row(14)
  rows.int4(attempt.tenantId)
  rows.uuid(attempt.notificationId)
  rows.int2(CHANNEL_CODE[attempt.channel])
  rows.int2(attempt.attempt)
  rows.int4(worker)
  rows.int2(OUTCOME_CODE[attempt.outcome])
  rows.bool(attempt.final)
  rows.timestamp(attempt.atMs)
  rows.int4(attempt.durationMs)
  rows.text(attempt.provider)
  rows.text(attempt.messageId)
  rows.text(attempt.code)
  rows.text(attempt.error?.slice(0, 1000))
  rows.numeric(attempt.cost)
}

export const COPY_JOBS =
  'copy jobs (tenant_id, notification_id, channel, kind, run_at, priority, attempt, reason, provider, state) ' +
  'from stdin (format binary)'

export type JobKind = 'held' | 'retry' | 'fallback' | 'redrive' | 'collected' | 'escalation'

export interface JobRow {
  tenantId: number
  notificationId: string
  channel: Channel
  kind: JobKind
  runAtMs: number
  priority: Priority
  attempt: number
  reason: Reason
  provider: string | null
  state?: JsonObject
}

export function jobRow(rows: CopyRows, job: JobRow): void {
  rows.row(10)
  rows.int4(job.tenantId)
  rows.uuid(job.notificationId)
  rows.int2(CHANNEL_CODE[job.channel])
  rows.text(job.kind)
  rows.timestamp(job.runAtMs)
  rows.int2(PRIORITY_CODE[job.priority])
  rows.int2(job.attempt)
  rows.text(job.reason)
  rows.text(job.provider)
  rows.jsonb(job.state === undefined ? '{}' : JSON.stringify(job.state))
}

export const COPY_PLANNING =
  'copy planning (tenant_id, event_id, run_at, priority) from stdin (format binary)'

export function planningRow(rows: CopyRows, plan: PlannedEvent): void {
  rows.row(4)
  rows.int4(plan.event.tenantId)
  rows.uuid(plan.event.id)
  rows.timestamp((plan.planAt ?? plan.event.receivedAt).getTime())
  rows.int2(PRIORITY_CODE[plan.event.priority ?? 'NORMAL'])
}
