import { idFloor, idTime } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Queryable, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, OUTCOMES } from '../types.ts'
import type { Channel, Id, Outcome, TenantId } from '../types.ts'
import { counterDelta } from './counters.ts'
import type { DeliveryState } from './status.ts'

export interface DeadLetter {
  id: Id
  at: Date
  kind: 'event' | 'delivery'
  eventId: Id | null
  notificationId: Id | null
  channel: Channel | null
  eventType: string | null
  code: string
  error: string
  redrivenAt: Date | null
}

export interface DeadLetterFilter {
  kind?: 'event' | 'delivery'
  code?: string
  channel?: Channel
  eventType?: string
  since?: Date
}

interface LetterRow {
  id: string
  at: Date
  kind: 'event' | 'delivery'
  event_id: string | null
  notification_id: string | null
  channel: number | null
  event_type: string | null
  code: string
  error: string
  redriven_at: Date | null
}

const COLUMNS = 'id, at, kind, event_id, notification_id, channel, event_type, code, error, redriven_at'
const FILTER = `tenant_id = $1 and ($2::text is null or kind = $2) and ($3::text is null or code = $3)
  and ($4::int2 is null or channel = $4) and ($5::text is null or event_type = $5) and ($6::uuid is null or id >= $6)`
const filterValues = (tenantId: TenantId, filter: DeadLetterFilter) => [
  tenantId,
  filter.kind ?? null,
  filter.code ?? null,
  filter.channel === undefined ? null : CHANNELS.indexOf(filter.channel),
  filter.eventType ?? null,
  filter.since === undefined ? null : idFloor(filter.since.getTime()),
]

const selectOpen = sql(
  'list_dead_letters',
  `select ${COLUMNS} from dead_letters
   where ${FILTER} and redriven_at is null and ($7::uuid is null or id < $7) order by id desc limit $8`,
)

/** Those not sent again yet, newest first, `limit` at most, before the letter `before`. */
export async function listDeadLetters(
  q: Queryable,
  tenantId: TenantId,
  filter: DeadLetterFilter,
  before: Id | undefined,
  limit: number,
): Promise<DeadLetter[]> {
  const rows = await q.rows<LetterRow>(selectOpen, [...filterValues(tenantId, filter), before ?? null, limit])
  return rows.map(readLetter)
}

const readLetter = (row: LetterRow): DeadLetter => ({
  id: row.id,
  at: row.at,
  kind: row.kind,
  eventId: row.event_id,
  notificationId: row.notification_id,
  channel: row.channel === null ? null : CHANNELS[row.channel]!,
  eventType: row.event_type,
  code: row.code,
  error: row.error,
  redrivenAt: row.redriven_at,
})

const lockLetter = sql(
  'lock_dead_letter',
  `select ${COLUMNS}, payload from dead_letters where tenant_id = $1 and id = $2 for update`,
)

/** The letter, locked until the transaction ends. @throws AppError not_found; conflict when it was sent again before */
export async function lockDeadLetter(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
): Promise<DeadLetter & { payload: Buffer | null }> {
  const row = await tx.one<LetterRow & { payload: Buffer | null }>(lockLetter, [tenantId, id])
  if (!row) throw new AppError('not_found', 'There is no dead letter with this id.')
  if (row.redriven_at) {
    throw new AppError('conflict', `It was sent again at ${row.redriven_at.toISOString()}.`)
  }
  return { ...readLetter(row), payload: row.payload }
}

const closeLetters = sql(
  'close_dead_letters',
  `update dead_letters set redriven_at = $3 where tenant_id = $1 and id = any ($2::uuid[]) and redriven_at is null`,
)

export const closeLetter = async (tx: Tx, tenantId: TenantId, id: Id, now: Date): Promise<void> =>
  void (await tx.run(closeLetters, [tenantId, [id], now]))

// Two callers at once take different letters; which ones is decided before anything else is locked.
const pickLetters = sql(
  'pick_dead_letters',
  `select id, notification_id, channel from dead_letters
   where ${FILTER} and redriven_at is null and kind = 'delivery' and ($7::uuid[] is null or id = any ($7))
   order by id limit $8 for update skip locked`,
)
const lockNotifications = sql(
  'redrive_lock_notifications',
  `select from notifications where tenant_id = $1 and id = any ($2::uuid[]) order by id for update`,
)
const failedDeliveries = sql(
  'redrive_deliveries',
  `select d.notification_id, d.channel, d.status, d.attempts, d.priority
   from (select distinct * from unnest($2::uuid[], $3::int2[]) as t (id, channel)) t
   cross join lateral (
     select * from deliveries v where v.tenant_id = $1 and v.notification_id = t.id and v.channel = t.channel
   ) d
   where d.status in ('failed', 'bounced', 'rejected', 'unknown')
   order by 1, 2`,
)
const insertJobs = sql(
  'redrive_jobs',
  `insert into jobs (tenant_id, notification_id, channel, kind, run_at, priority, attempt, reason)
   select $1, t.id, t.channel, 'redrive', $6, t.priority, t.attempt, 'redriven'
   from unnest($2::uuid[], $3::int2[], $4::int2[], $5::int2[]) as t (id, channel, priority, attempt)
   on conflict do nothing returning notification_id, channel`,
)
// A receipt that ended the earlier tries must not end the next one.
const forgetReceipts = sql(
  'redrive_receipts',
  `delete from delivery_state s using unnest($2::uuid[], $3::int2[]) as t (id, channel)
   where s.tenant_id = $1 and s.notification_id = t.id and s.channel = t.channel`,
)
/** More in one transaction would hold locks, and memory, for too long. */
export const MAX_REDRIVE = 10_000

/**
 * Sends failed deliveries again: each gets a job, which a worker takes at once, and is alive again in the
 * counters, in one transaction. A delivery with several letters is sent once; a letter whose delivery is on its
 * way again, arrived, or is gone by retention is only closed. So calling it twice changes nothing the second time.
 *
 * @param shard of `ledger_counters`, the caller's own
 */
export async function redriveLetters(
  tx: Tx,
  tenantId: TenantId,
  what: { ids?: readonly Id[]; filter?: DeadLetterFilter; limit: number },
  now: Date,
  shard: number,
): Promise<{ redriven: number; notNeeded: number }> {
  const letters = await tx.rows<{ id: string; notification_id: string; channel: number }>(pickLetters, [
    ...filterValues(tenantId, what.filter ?? {}),
    what.ids ?? null,
    Math.min(what.limit, MAX_REDRIVE),
  ])
  if (letters.length === 0) return { redriven: 0, notNeeded: 0 }
  const redriven = await sendAgain(tx, tenantId, letters, now, shard)
  await tx.run(closeLetters, [tenantId, letters.map(letter => letter.id), now])
  return { redriven, notNeeded: Math.max(0, letters.length - redriven) }
}

const lettersOf = sql(
  'close_dead_letters_of',
  `update dead_letters set redriven_at = $4
   where tenant_id = $1 and notification_id = $2 and channel = $3 and redriven_at is null and kind = 'delivery'`,
)

/**
 * Sends one delivery again that failed, whether or not a letter tells of it: what a receipt ended has none.
 *
 * @returns false when it has not failed, or is on its way again already
 */
export async function redriveDelivery(
  tx: Tx,
  tenantId: TenantId,
  notificationId: Id,
  channel: Channel,
  now: Date,
  shard: number,
): Promise<boolean> {
  const code = CHANNELS.indexOf(channel)
  const redriven = await sendAgain(
    tx,
    tenantId,
    [{ notification_id: notificationId, channel: code }],
    now,
    shard,
  )
  if (redriven > 0) await tx.run(lettersOf, [tenantId, notificationId, code, now])
  return redriven > 0
}

/** @returns how many of these got a job; the others have not failed, or are on their way */
async function sendAgain(
  tx: Tx,
  tenantId: TenantId,
  letters: readonly { notification_id: string; channel: number }[],
  now: Date,
  shard: number,
): Promise<number> {
  await tx.run(lockNotifications, [tenantId, letters.map(letter => letter.notification_id)])
  const failed = await tx.rows<{
    notification_id: string
    channel: number
    status: DeliveryState
    attempts: number
    priority: number
  }>(failedDeliveries, [
    tenantId,
    letters.map(letter => letter.notification_id),
    letters.map(letter => letter.channel),
  ])
  const made = await tx.rows<{ notification_id: string; channel: number }>(insertJobs, [
    tenantId,
    failed.map(d => d.notification_id),
    failed.map(d => d.channel),
    failed.map(d => d.priority),
    failed.map(d => d.attempts),
    now,
  ])
  const begun = new Set(made.map(job => `${job.notification_id} ${job.channel}`))
  const delta = counterDelta()
  for (const { notification_id, channel, status } of failed) {
    if (!begun.has(`${notification_id} ${channel}`)) continue
    if (!isOutcome(status)) throw new Error(`A delivery that is ${status} is not to be sent again`)
    delta.settled(tenantId, idTime(notification_id), CHANNELS[channel]!, status, -1)
  }
  await tx.run(forgetReceipts, [tenantId, made.map(job => job.notification_id), made.map(job => job.channel)])
  const counters = delta.take(shard)
  if (counters) await tx.client.query(counters)
  return made.length
}

const isOutcome = (status: DeliveryState): status is Outcome =>
  (OUTCOMES as readonly string[]).includes(status)
