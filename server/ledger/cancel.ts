import { idTime } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, JsonObject, TenantId } from '../types.ts'
import { counterDelta } from './counters.ts'
import { OUTCOME_CODE } from './rows.ts'
import { deliveriesOf, isLive } from './status.ts'
import type { DeliveryState } from './status.ts'
import { giveBackUsage, placesOf } from './usage.ts'

export interface Cancelled {
  cancelled: Channel[]
  /** On their way already, or ended: nothing was changed. */
  left: { channel: Channel; status: DeliveryState }[]
}

// Held while we look: a fallback that another process begins (server/ledger/settle.ts takes the same lock) is
// either seen here or begins after we are done.
const lockNotification = sql(
  'cancel_lock_notification',
  `select batch_id from notifications where tenant_id = $1 and id = $2 for update`,
)
// A spilled batch that we hold is passed over by claims (skip locked); one that is claimed is not ours any more.
const lockBatch = sql(
  'cancel_lock_batch',
  `select from batches b where b.id = $1 and b.tenant_id = $2 and b.owner = 0 for update`,
)
const takeJobs = sql(
  'cancel_jobs',
  `delete from jobs where tenant_id = $1 and notification_id = $2 and owner = 0 returning channel, kind, attempt, state`,
)
// Worker 0 is nobody's number, so the key cannot meet a worker's; the attempt is one nobody has written.
const insertCancelled = sql(
  'cancel_attempts',
  `insert into attempts (tenant_id, notification_id, channel, attempt, worker, outcome, final, at, code)
   select $1, $2, c.channel,
     1 + greatest(c.tries, coalesce((select max(a.attempt) from attempts a
       where a.tenant_id = $1 and a.notification_id = $2 and a.channel = c.channel), 0)),
     0, c.outcome, true, $5, 'cancelled'
   from unnest($3::int2[], $4::int2[], $6::int2[]) as c (channel, tries, outcome)`,
)

const leaveDigests = sql(
  'cancel_digest_items',
  `update digest_items set state = 'cancelled'
   where tenant_id = $1 and notification_id = $2 and channel = any ($3::int2[]) and state = 'collected'`,
)

interface Job {
  channel: number
  kind: string
  attempt: number
  state: JsonObject | null
}

/**
 * Cancels what still waits: in a job that nobody works on, or in a batch that nobody holds. What is on its way, or
 * ended, stays as it is.
 *
 * @param shard of `ledger_counters`, the caller's own (server/ledger/counters.ts)
 * @throws AppError not_found; conflict when nothing could be cancelled
 */
export async function cancelNotification(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  now: Date,
  shard: number,
): Promise<Cancelled> {
  const notification = await tx.one<{ batch_id: number | null }>(lockNotification, [tenantId, id])
  if (!notification) throw new AppError('not_found', 'There is no notification with this id.')

  const spilled =
    notification.batch_id !== null && (await tx.run(lockBatch, [notification.batch_id, tenantId])) > 0
  const jobs = await tx.rows<Job>(takeJobs, [tenantId, id])
  const tries = new Map<Channel, number>(jobs.map(job => [CHANNELS[job.channel]!, job.attempt]))
  // Without their jobs, deliveries that only waited there look lost now, or as if their batch had them.
  const rest = ((await deliveriesOf(tx, tenantId, [id])).get(id) ?? []).filter(
    ({ channel }) => !tries.has(channel),
  )
  if (spilled) {
    for (const { channel, status, attempts, waitsFor } of rest) {
      if (status === 'backlog' && waitsFor?.kind === 'backlog') tries.set(channel, attempts)
    }
  }
  const left = rest
    .filter(({ channel }) => !tries.has(channel))
    .map(({ channel, status }) => ({ channel, status }))
  if (tries.size === 0) throw refusal(left)

  // Its places in windows to come are free for others; what was tried keeps its place.
  const whole = left.every(({ channel }) => channel === 'in_app')
  await giveBackUsage(
    tx,
    jobs.flatMap(({ kind, state }) =>
      kind === 'held' || kind === 'escalation' ? placesOf(tenantId, state ?? {}, whole) : [],
    ),
  )
  const channels = [...tries.keys()]
  // Some of a person's devices show it already, and nothing takes that back: only the others are spared.
  const partly = new Set(jobs.filter(({ state }) => someTaken(state)).map(job => CHANNELS[job.channel]!))
  const outcomes = channels.map(channel => (partly.has(channel) ? 'sent' : 'cancelled'))
  await tx.run(insertCancelled, [
    tenantId,
    id,
    channels.map(channel => CHANNELS.indexOf(channel)),
    [...tries.values()],
    now,
    outcomes.map(outcome => OUTCOME_CODE[outcome]),
  ])
  await tx.run(leaveDigests, [tenantId, id, channels.map(channel => CHANNELS.indexOf(channel))])
  const delta = counterDelta()
  for (const [at, channel] of channels.entries()) {
    delta.settled(tenantId, idTime(id), channel, outcomes[at]!)
  }
  await tx.client.query(delta.take(shard))
  return { cancelled: channels, left }
}

/** What the delivery loop keeps of devices (server/deliver/devices.ts). */
const someTaken = (state: JsonObject | null): boolean => {
  const { taken } = (state?.devices ?? {}) as JsonObject
  return Array.isArray(taken) && taken.length > 0
}

const refusal = (left: Cancelled['left']) =>
  new AppError(
    'conflict',
    left.some(({ status }) => isLive(status))
      ? 'Every delivery of this notification is on its way or done.'
      : 'Every delivery of this notification has ended.',
    { extra: { deliveries: left.map(({ channel, status }) => ({ channel, status })) } },
  )
