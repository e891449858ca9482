import type pg from 'pg'
import { idTime, newId } from '../db/ids.ts'
import type { Channel, Outcome, Priority, TenantId } from '../types.ts'
import { copyRows, runScript } from './copy.ts'
import type { CopyRows } from './copy.ts'
import { counterDelta } from './counters.ts'
import { STEPS, settledScript } from './experiments.ts'
import { CHANNEL_CODE, COPY_ATTEMPTS, PRIORITY_CODE, attemptRow } from './rows.ts'
import type { AttemptRow, JobRow } from './rows.ts'
import { giveBackScript } from './usage.ts'
import type { GivenBack } from './usage.ts'

/**
 * What became of one delivery for now. Exactly one of: an attempt that is final, a next time (`again`), or both a
 * non-final attempt and a next time. Several attempts when providers took over from each other.
 */
export interface Settlement {
  tenantId: TenantId
  notificationId: string
  channel: Channel
  priority: Priority
  eventType: string
  eventId: string
  attempts: AttemptRow[]
  again: Pick<JobRow, 'kind' | 'runAtMs' | 'reason' | 'provider' | 'attempt' | 'state'> | null
  /** Its lease: a batch, or its own job row. */
  batch: { id: number; owner: number; left: number } | null
  hasFallback: boolean
  /** An experiment counts what becomes of it. */
  measured?: boolean
  /** Places in windows that it does not need after all. */
  back?: readonly GivenBack[]
}

export interface Settler {
  /** Writes all of them in one transaction. */
  write(client: pg.ClientBase, settlements: readonly Settlement[], owner: number, now: Date): Promise<void>
}

/** Ends that become dead letters, and after which another channel may stand in. */
export const ENDED_BADLY: ReadonlySet<Outcome> = new Set<Outcome>([
  'failed',
  'bounced',
  'rejected',
  'unknown',
])

/** How far its reader came by it; 0: nowhere, and nobody failed. */
function stepOf(outcome: Outcome): number {
  if (outcome === 'sent') return STEPS.sent
  if (outcome === 'delivered') return STEPS.delivered
  return ENDED_BADLY.has(outcome) ? STEPS.failed : 0
}

const COPY_DEAD_LETTERS =
  'copy dead_letters (tenant_id, id, at, kind, event_id, notification_id, channel, event_type, code, error) ' +
  'from stdin (format binary)'

export function settler(shard: number): Settler {
  let attempts = copyRows()
  let deadLetters = copyRows(4096)
  const delta = counterDelta()

  return {
    async write(client, settlements, owner, now) {
      attempts.clear()
      deadLetters.clear()
      const toJob: string[] = []
      const moveJob: string[] = []
      const endJob: string[] = []
      const keep: string[] = []
      const seekFallback: string[] = []
      const measured: { tenantId: TenantId; notificationId: string; step: number }[] = []
      const back: GivenBack[] = []
      const leaving = new Map<Settlement['batch'] & object, number>()

      for (const settlement of settlements) {
        const { tenantId, notificationId, channel, again, batch } = settlement
        if (settlement.back) back.push(...settlement.back)
        for (const attempt of settlement.attempts) attemptRow(attempts, attempt, owner)
        const key = `${tenantId}, '${notificationId}'::uuid, ${CHANNEL_CODE[channel]}`
        if (again) {
          const time = `to_timestamp(${again.runAtMs / 1000})`
          const provider = again.provider ? `'${again.provider.replaceAll("'", "''")}'` : 'null::text'
          if (batch) {
            toJob.push(
              `(${key}, '${again.kind}', ${time}, ${PRIORITY_CODE[settlement.priority]}, ${again.attempt}, '${again.reason}', ${provider})`,
            )
          } else
            moveJob.push(
              `(${key}, '${again.kind}', ${time}, ${again.attempt}, '${again.reason}', ${provider})`,
            )
          if (again.state)
            keep.push(`(${key}, '${JSON.stringify(again.state).replaceAll("'", "''")}'::jsonb)`)
        } else {
          const last = settlement.attempts.at(-1)!
          delta.settled(tenantId, idTime(notificationId), channel, last.outcome)
          if (!batch) endJob.push(`(${key})`)
          const step = settlement.measured ? stepOf(last.outcome) : 0
          if (step > 0) measured.push({ tenantId, notificationId, step })
          if (ENDED_BADLY.has(last.outcome)) {
            deadLetterRow(deadLetters, settlement, last, now)
            if (settlement.hasFallback) seekFallback.push(`(${tenantId}, '${notificationId}'::uuid)`)
          }
        }
        if (batch) leaving.set(batch, (leaving.get(batch) ?? 0) + 1)
      }
      const done = [...leaving].filter(([batch, left]) => batch.left <= left)

      const script: string[] = []
      const data: Buffer[] = []
      const copy = (statement: string, rows: CopyRows) => {
        if (rows.rows === 0) return
        script.push(statement)
        data.push(rows.finish())
      }
      for (const fence of fences(settlements, owner)) script.push(fence)
      copy(COPY_ATTEMPTS, attempts)
      copy(COPY_DEAD_LETTERS, deadLetters)
      if (toJob.length > 0) script.push(insertJobs(toJob))
      if (moveJob.length > 0) script.push(updateJobs(moveJob, owner))
      if (keep.length > 0) script.push(keepStates(keep))
      if (endJob.length > 0) script.push(deleteJobs(endJob, owner))
      for (const batchOwner of new Set(done.map(([batch]) => batch.owner))) {
        const ids = done.filter(([batch]) => batch.owner === batchOwner).map(([batch]) => batch.id)
        // Fenced: a batch that somebody took over is theirs to end.
        script.push(`delete from batches where id in (${ids}) and owner = ${batchOwner}`)
      }
      if (seekFallback.length > 0) script.push(startFallbacks([...new Set(seekFallback)], shard))
      const experiments = settledScript(measured)
      if (experiments) script.push(experiments)
      if (back.length > 0) script.push(giveBackScript(back))
      const counters = delta.take(shard)
      if (counters) script.push(counters.trimEnd().replace(/;$/, ''))

      try {
        if (script.length > 0) await runScript(client, script.join(';\n'), data)
      } catch (error) {
        attempts = copyRows()
        deadLetters = copyRows(4096)
        throw error
      }
      for (const [batch, left] of leaving) batch.left -= left
    },
  }
}

/**
 * Stops the whole script unless every lease in it is still ours, and keeps it ours until the commit: whoever took a
 * lease over settles, counts and dead-letters it, and nobody else. `LEASE_LOST` is what the division by zero says.
 */
function* fences(settlements: readonly Settlement[], owner: number): Iterable<string> {
  const batches = new Map<number, Set<number>>()
  const jobs: string[] = []
  for (const { tenantId, notificationId, channel, batch } of settlements) {
    if (batch) batches.set(batch.owner, (batches.get(batch.owner) ?? new Set()).add(batch.id))
    else jobs.push(`(${tenantId}, '${notificationId}'::uuid, ${CHANNEL_CODE[channel]})`)
  }
  for (const [holder, ids] of batches) {
    yield `select 1 / (count(*) = ${ids.size})::int from (
  select from batches where id in (${[...ids]}) and owner = ${holder} order by id for update
) held`
  }
  if (jobs.length > 0) {
    yield `select 1 / (count(*) = ${jobs.length})::int from (
  select from jobs where (tenant_id, notification_id, channel) in (${jobs.join()}) and owner = ${owner} for update
) held`
  }
}

/** SQLSTATE of a settlement whose lease somebody else holds by now: theirs to settle. */
export const LEASE_LOST = '22012'

function deadLetterRow(rows: CopyRows, settlement: Settlement, last: AttemptRow, now: Date): void {
  rows.row(10)
  rows.int4(settlement.tenantId)
  rows.uuid(newId(now.getTime()))
  rows.timestamp(now.getTime())
  rows.text('delivery')
  rows.uuid(settlement.eventId)
  rows.uuid(settlement.notificationId)
  rows.int2(CHANNEL_CODE[settlement.channel])
  rows.text(settlement.eventType)
  rows.text(last.code ?? last.outcome)
  rows.text((last.error ?? last.outcome).slice(0, 2000))
}

// A batch whose lease was lost may be on its way in two processes: both may want the job, one gets it.
const insertJobs = (values: readonly string[]) =>
  `insert into jobs (tenant_id, notification_id, channel, kind, run_at, priority, attempt, reason, provider)
values ${values.join()} on conflict do nothing`

const updateJobs = (values: readonly string[], owner: number) =>
  `update jobs j set kind = v.kind, run_at = v.run_at, attempt = v.attempt, reason = v.reason, provider = v.provider,
  owner = 0, lease_until = null
from (values ${values.join()}) as v (tenant_id, notification_id, channel, kind, run_at, attempt, reason, provider)
where j.tenant_id = v.tenant_id and j.notification_id = v.notification_id and j.channel = v.channel and j.owner = ${owner}`

// Seldom, so that a job that keeps nothing pays nothing: how far a delivery is that only some devices took.
const keepStates = (values: readonly string[]) =>
  `update jobs j set state = j.state || v.state from (values ${values.join()}) as v (tenant_id, notification_id, channel, state)
where j.tenant_id = v.tenant_id and j.notification_id = v.notification_id and j.channel = v.channel and j.owner = 0`

const deleteJobs = (values: readonly string[], owner: number) =>
  `delete from jobs where (tenant_id, notification_id, channel) in (${values.join()}) and owner = ${owner}`

/**
 * Begins the next fallback channel of each notification all of whose deliveries failed: none delivered (0) or sent
 * (1), none cancelled (6) or expired (7) on purpose; what a receipt says of them counts. The row lock makes two
 * channels that fail at the same moment, in two processes, ask one after the other: the later one sees both.
 */
export const startFallbacks = (values: readonly string[], shard: number) => `with failed as materialized (
  select n.tenant_id, n.id, n.priority, n.channels, n.fallback
  from notifications n
  where (n.tenant_id, n.id) in (${values.join()}) and n.fallback is not null
  for update of n
), begun as (
  select f.tenant_id, f.id, get_byte(f.channels, i) as channel, true as planned
  from failed f, generate_series(0, length(f.channels) - 1) i
  union all
  select f.tenant_id, f.id, get_byte(f.fallback, i), false
  from failed f, generate_series(0, length(f.fallback) - 1) i
), judged as (
  select b.*,
    exists (select from jobs j where j.tenant_id = b.tenant_id and j.notification_id = b.id and j.channel = b.channel) as waits,
    (select coalesce(s.outcome, a.outcome) from attempts a
     left join delivery_state s on s.tenant_id = b.tenant_id and s.notification_id = b.id and s.channel = b.channel
     where a.tenant_id = b.tenant_id and a.notification_id = b.id and a.channel = b.channel and a.final
     order by a.attempt desc limit 1) as outcome
  from begun b
), ready as (
  select tenant_id, id from judged
  group by 1, 2
  having bool_and(
    case when planned then not waits and outcome is not null and outcome not in (0, 1, 6, 7)
    else not waits and (outcome is null or outcome not in (0, 1, 6, 7)) end)
), started as (
  insert into jobs (tenant_id, notification_id, channel, kind, run_at, priority, attempt, reason)
  select f.tenant_id, f.id, next.channel, 'fallback', now(), f.priority, 0, 'fallback'
  from ready join failed f using (tenant_id, id)
  cross join lateral (
    select get_byte(f.fallback, i) as channel from generate_series(0, length(f.fallback) - 1) i
    where not exists (select from attempts a where a.tenant_id = f.tenant_id and a.notification_id = f.id and a.channel = get_byte(f.fallback, i))
    order by i limit 1
  ) next
  on conflict do nothing
  returning tenant_id, notification_id, channel
)
insert into ledger_counters as c (tenant_id, day, channel, shard, planned)
select tenant_id, (uuid_extract_timestamp(notification_id) at time zone 'UTC')::date, channel, ${shard}, count(*)
from started group by 1, 2, 3 order by 1, 2, 3
on conflict (tenant_id, day, channel, shard) do update set planned = c.planned + excluded.planned`
