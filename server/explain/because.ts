import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { TraceDecision } from '../decide/trace.ts'
import { deliveriesOf } from '../ledger/status.ts'
import type { DeliveryState, WaitsFor } from '../ledger/status.ts'
import { REASONS } from '../reasons.ts'
import type { Reason } from '../reasons.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, TenantId } from '../types.ts'

/** What a decision rests on, by name: read out of the detail that was kept with it, so it is what held then. */
export interface Because {
  /** Whose word it was: `user:category:news:email`, `tenant:email`, `rule`, `built_in` (docs/guides/preferences.md). */
  layer?: string
  counter?: CounterValue
  silence?: NamedSilence
  inhibition?: { name: string; alert: string }
}

/** How full a limit was when it was asked. */
export interface CounterValue {
  limit: string
  used: number
  max: number
  window: string
}

export interface NamedSilence {
  id: Id
  author: string
  /** As it is now; absent once the silence is forgotten. */
  comment?: string
  endsAt?: Date
}

/** Where a delivery was collected, and what became of that. */
export interface NamedDigest {
  id: Id
  key: string
  reason: Reason
  state: string
  /** Of this very delivery in it. */
  item: string
  items: number
  closesAt: Date
  closedAt: Date | null
  /** The event that told it; null: none was needed, or not yet. */
  eventId: Id | null
  /** The message it became. */
  message?: { notificationId: Id; status: DeliveryState; waitsFor?: WaitsFor; at: Date | null }
}

const LAYER = /^(?:user:|tenant:|rule\b|built_in)/
const COUNTER = /^(.*) (\d+)\/((?:\d+ )?[a-z]+): (\d+) used$/s
const SILENCE = /^silence (\S+) of (.*)$/s
const INHIBITION = /^(.*?): (.*)$/s

/** Pure. */
export function becauseOf({ reason, detail }: Pick<TraceDecision, 'reason' | 'detail'>): Because | undefined {
  if (reason === undefined || detail === undefined) return undefined
  if (reason === 'silenced') {
    const found = SILENCE.exec(detail)
    return found ? { silence: { id: found[1]!, author: found[2]! } } : undefined
  }
  if (reason === 'inhibited') {
    const found = INHIBITION.exec(detail)
    return found ? { inhibition: { name: found[1]!, alert: found[2]! } } : undefined
  }
  const counted = COUNTER.exec(detail)
  if (counted) {
    const [, limit, max, window, used] = counted
    const counter = { limit: limit!, used: Number(used), max: Number(max), window: window! }
    return LAYER.test(limit!) ? { layer: limit!, counter } : { counter }
  }
  if (!LAYER.test(detail)) return undefined
  // What follows the layer says more of it: until when, from which priority.
  const layer = /^\S+?(?= until | from |$)/.exec(detail)?.[0] ?? detail
  return { layer }
}

const selectSilences = sql(
  'explain_silences',
  `select id, comment, ends_at from silences where tenant_id = $1 and id = any ($2::uuid[])`,
)

/** What silences say of themselves today, by id. */
export async function silencesOf(
  q: Queryable,
  tenantId: TenantId,
  ids: readonly Id[],
): Promise<Map<Id, Pick<NamedSilence, 'comment' | 'endsAt'>>> {
  if (ids.length === 0) return new Map()
  const rows = await q.rows<{ id: Id; comment: string; ends_at: Date }>(selectSilences, [tenantId, ids])
  return new Map(rows.map(row => [row.id, { comment: row.comment, endsAt: row.ends_at }]))
}

const selectDigests = sql(
  'explain_digests',
  `select i.notification_id, i.channel, i.state as item, d.id, d.key, d.reason, d.state, d.items, d.closes_at,
     d.closed_at, d.event_id, d.recipient_id
   from unnest($2::uuid[]) as wanted (id)
   join digest_items i on i.tenant_id = $1 and i.notification_id = wanted.id
   join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id`,
)
// By the recipient's index; an id is younger than its event's.
const selectMessages = sql(
  'explain_digest_messages',
  `select n.event_id, n.id from unnest($2::uuid[], $3::text[]) as w (event_id, recipient_id)
   join notifications n on n.tenant_id = $1 and n.recipient_id = w.recipient_id and n.event_id = w.event_id
     and n.id >= w.event_id`,
)

interface DigestRow {
  notification_id: Id
  channel: number
  item: string
  id: Id
  key: string
  reason: Reason
  state: string
  items: number
  closes_at: Date
  closed_at: Date | null
  event_id: Id | null
  recipient_id: string
}

/** Under `digestOf`, the digest each delivery of these notifications was collected for. */
export async function digestsOf(
  q: Queryable,
  tenantId: TenantId,
  notificationIds: readonly Id[],
): Promise<Map<string, NamedDigest>> {
  const found = new Map<string, NamedDigest>()
  if (notificationIds.length === 0) return found
  const rows = await q.rows<DigestRow>(selectDigests, [tenantId, notificationIds])
  if (rows.length === 0) return found
  const told = [
    ...new Map(rows.flatMap(row => (row.event_id === null ? [] : [[row.event_id, row]]))).values(),
  ]
  const messages =
    told.length === 0
      ? []
      : await q.rows<{ event_id: Id; id: Id }>(selectMessages, [
          tenantId,
          told.map(row => row.event_id),
          told.map(row => row.recipient_id),
        ])
  const messageOf = new Map(messages.map(row => [row.event_id, row.id]))
  const deliveries = await deliveriesOf(
    q,
    tenantId,
    messages.map(row => row.id),
  )
  for (const row of rows) {
    const channel = CHANNELS[row.channel]!
    const notificationId = row.event_id === null ? undefined : messageOf.get(row.event_id)
    const delivery =
      notificationId === undefined
        ? undefined
        : deliveries.get(notificationId)?.find(one => one.channel === channel)
    found.set(digestOf(row.notification_id, channel), {
      id: row.id,
      key: row.key,
      reason: row.reason,
      state: row.state,
      item: row.item,
      items: row.items,
      closesAt: row.closes_at,
      closedAt: row.closed_at,
      eventId: row.event_id,
      ...(notificationId !== undefined &&
        delivery && {
          message: {
            notificationId,
            status: delivery.status,
            at: delivery.lastAt,
            ...(delivery.waitsFor ? { waitsFor: delivery.waitsFor } : {}),
          },
        }),
    })
  }
  return found
}

export const digestOf = (notificationId: Id, channel: Channel): string => `${notificationId} ${channel}`

/** Why a delivery ended before it was tried, or was not needed; undefined where a provider had the last word. */
export function endOf(
  attempts: readonly { code: string | null; at: Date; final: boolean }[],
): { reason: Reason; text: string; at: Date } | undefined {
  const last = attempts.at(-1)
  if (!last?.final || last.code === null || !Object.hasOwn(REASONS, last.code)) return undefined
  const reason = last.code as Reason
  return { reason, text: REASONS[reason].text, at: last.at }
}
