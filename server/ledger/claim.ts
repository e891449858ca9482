import { sql } from '../db/pool.ts'
import type { Db, Queryable } from '../db/pool.ts'
import { CHANNELS, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Id, JsonObject, Priority, Recipient, TenantId } from '../types.ts'
import { LEASE_SECONDS, OWNER_LOCK } from './owner.ts'
import { channelsOf } from './rows.ts'

/** A delivery as the database holds it: content still sealed. */
export interface StoredDelivery {
  tenantId: TenantId
  notificationId: string
  channel: Channel
  recipient: Recipient
  priority: Priority
  eventId: string
  eventType: string
  createdAtMs: number
  expiresAtMs: number | null
  traceId: string | undefined
  thread?: string
  sealed: Buffer
  hasFallback: boolean
  /** An experiment counts what becomes of it. */
  measured?: boolean
  tries: number
  provider: string | null
  /** Of a job: why it was waiting. */
  job: { kind: string; reason: string; state: JsonObject } | null
  /** For the questions that are asked again at the release of a job. */
  ruleId: Id | null
  category: string
}

interface DeliveryRow {
  tenant_id: number
  id: string
  event_id: string
  event_type: string
  recipient_type: number
  recipient_id: string
  priority: number
  channel: number
  fallback: Buffer | null
  created_at: Date
  expires_at: Date | null
  trace_id: string | null
  thread: string | null
  content: Buffer
  measured: boolean
  tries: number
  batch_id: number
  provider?: string | null
  kind?: string
  reason?: string
  state?: JsonObject
  rule_id?: Id | null
  category?: string
}

const readDelivery = (row: DeliveryRow): StoredDelivery => ({
  tenantId: row.tenant_id,
  notificationId: row.id,
  channel: CHANNELS[row.channel]!,
  recipient: { type: RECIPIENT_TYPES[row.recipient_type]!, id: row.recipient_id },
  priority: PRIORITIES[row.priority]!,
  eventId: row.event_id,
  eventType: row.event_type,
  createdAtMs: row.created_at.getTime(),
  expiresAtMs: row.expires_at?.getTime() ?? null,
  traceId: row.trace_id ?? undefined,
  thread: row.thread ?? undefined,
  sealed: row.content,
  hasFallback: channelsOf(row.fallback).length > 0,
  measured: row.measured,
  tries: row.tries,
  provider: row.provider ?? null,
  job: row.kind === undefined ? null : { kind: row.kind, reason: row.reason!, state: row.state ?? {} },
  ruleId: row.rule_id ?? null,
  category: row.category ?? '',
})

type WorkTable = 'batches' | 'jobs' | 'planning'

const waitingTenants = (table: WorkTable): string =>
  `tenants as (
     (select tenant_id from ${table} where owner = 0 order by tenant_id limit 1)
     union all
     select (select w.tenant_id from ${table} w where w.owner = 0 and w.tenant_id > t.tenant_id order by w.tenant_id limit 1)
     from tenants t where t.tenant_id is not null
   )`

/**
 * Of a table of work, the tenants with something due now, and how much of it each of them gets: the beginning of a
 * `with recursive`. $2 is the instant, $3 the most of one tenant, $4 the most of all, $5 tenants that get nothing.
 *
 * A tenant is found by one index probe, whatever its backlog: the loose index scan of
 * https://wiki.postgresql.org/wiki/Loose_indexscan. All of them share what there is, so that no crowd of large
 * backlogs takes everything; where there are more tenants than places, each claim serves others.
 */
export const dueTenants = (table: WorkTable, also = ''): string =>
  `${waitingTenants(table)}, due as materialized (
     select t.tenant_id from tenants t
     where t.tenant_id is not null and t.tenant_id <> all ($5::int[]) and exists (
       select from generate_series(0, 3) as level (priority)
       cross join lateral (
         select from ${table} w
         where w.owner = 0 and w.tenant_id = t.tenant_id and w.priority = level.priority and w.run_at <= $2 ${also}
         order by w.tenant_id, w.priority, w.run_at limit 1
       ) first
     )
     order by random()
   ), share as materialized (
     select least($3, ceil($4::float8 / greatest(1, count(*))))::int8 as each from due
   )`

// One branch a priority keeps ORDER BY exactly the index; ordering across priorities would sort the backlog (1.1 s of
// 1,000,000).
const claimBatches = sql(
  'claim_batches',
  `with recursive ${dueTenants('batches')}, picked as materialized (
     select b.id from due t
     cross join lateral (
       select id from (
         select p.id from generate_series(0, 3) as level (priority)
         cross join lateral (
           select b.id from batches b
           where b.owner = 0 and b.tenant_id = t.tenant_id and b.priority = level.priority and b.run_at <= $2
           order by b.tenant_id, b.priority, b.run_at limit (select each from share)
           for update skip locked
         ) p
         order by level.priority limit (select each from share)
       ) first
     ) b
     limit $4
   )
   update batches b set owner = $1, lease_until = now() + interval '${LEASE_SECONDS} seconds'
   from picked where b.id = picked.id
   returning b.id, b.tenant_id, b.id_min, b.id_max`,
)

// What a batch still owes: everything it holds that neither ended nor waits in a job. `offset 0` keeps each batch a
// range of the primary key: left to itself the planner joins on batch_id and reads the whole table at every claim
// (of 480,000 rows: 45 µs a delivery instead of 12).
const batchDeliveries = sql(
  'batch_deliveries',
  `select n.tenant_id, n.id, n.event_id, n.event_type, n.recipient_type, n.recipient_id, n.priority, c.channel, n.fallback,
     n.created_at, n.expires_at, n.trace_id, n.content, n.experiment_id is not null as measured, n.thread,
     n.batch_id::float8 as batch_id, coalesce(a.tries, 0)::int as tries
   from unnest($1::int8[], $2::int[], $3::uuid[], $4::uuid[]) as b (id, tenant_id, id_min, id_max)
   cross join lateral (
     select * from notifications
     where tenant_id = b.tenant_id and id between b.id_min and b.id_max and batch_id = b.id
     offset 0
   ) n
   cross join lateral (select get_byte(n.channels, i) as channel from generate_series(0, length(n.channels) - 1) i) c
   left join lateral (
     select max(a.attempt) as tries, bool_or(a.final) as ended from attempts a
     where a.tenant_id = n.tenant_id and a.notification_id = n.id and a.channel = c.channel
   ) a on true
   where c.channel <> 0 and a.ended is not true
     and not exists (select from jobs j where j.tenant_id = n.tenant_id and j.notification_id = n.id and j.channel = c.channel)
   order by n.id`,
)

const dropBatches = sql('drop_batches', `delete from batches where id = any ($1::int8[]) and owner = $2`)

export interface ClaimedBatch {
  id: number
  deliveries: StoredDelivery[]
}

export interface ClaimOptions {
  owner: number
  now: Date
  /** At most so many of one tenant, and of all together. */
  perTenant: number
  most: number
  /** Tenants that have enough of theirs in memory. */
  except?: readonly TenantId[]
}

/** Takes spilled batches; those with nothing left to do are ended. */
export async function claimSpilled(db: Queryable, options: ClaimOptions): Promise<ClaimedBatch[]> {
  const rows = await db.rows<{ id: number; tenant_id: number; id_min: string; id_max: string }>(
    claimBatches,
    [options.owner, options.now, options.perTenant, options.most, options.except ?? []],
  )
  if (rows.length === 0) return []
  const deliveries = await db.rows<DeliveryRow>(batchDeliveries, [
    rows.map(row => row.id),
    rows.map(row => row.tenant_id),
    rows.map(row => row.id_min),
    rows.map(row => row.id_max),
  ])
  const batches = new Map<number, ClaimedBatch>(
    rows.map(row => [Number(row.id), { id: Number(row.id), deliveries: [] }]),
  )
  for (const row of deliveries) batches.get(row.batch_id)!.deliveries.push(readDelivery(row))
  const empty = [...batches.values()].filter(batch => batch.deliveries.length === 0)
  if (empty.length > 0) await db.run(dropBatches, [empty.map(batch => batch.id), options.owner])
  return [...batches.values()].filter(batch => batch.deliveries.length > 0)
}

const claimJobs = sql(
  'claim_jobs',
  `with recursive ${dueTenants('jobs', 'and w.channel = any ($6::int2[])')}, picked as materialized (
     select j.tenant_id, j.notification_id, j.channel from due t
     cross join lateral (
       select * from (
         select p.* from generate_series(0, 3) as level (priority)
         cross join lateral (
           select j.tenant_id, j.notification_id, j.channel, j.priority from jobs j
           where j.owner = 0 and j.tenant_id = t.tenant_id and j.priority = level.priority and j.run_at <= $2
             and j.channel = any ($6::int2[])
           order by j.tenant_id, j.priority, j.run_at limit (select each from share)
           for update skip locked
         ) p
         order by p.priority limit (select each from share)
       ) first
     ) j
     limit $4
   ), mine as (
     update jobs j set owner = $1, lease_until = now() + interval '${LEASE_SECONDS} seconds'
     from picked where (j.tenant_id, j.notification_id, j.channel) = (picked.tenant_id, picked.notification_id, picked.channel)
     returning j.*
   )
   select n.tenant_id, n.id, n.event_id, n.event_type, n.recipient_type, n.recipient_id, n.priority, m.channel, n.fallback,
     n.created_at, n.expires_at, n.trace_id, n.content, n.experiment_id is not null as measured, n.thread,
     n.batch_id::float8 as batch_id, m.attempt::int as tries, m.provider, m.kind, m.reason, m.state, n.rule_id, n.category
   from mine m join notifications n on n.tenant_id = m.tenant_id and n.id = m.notification_id`,
)

/** Takes due jobs of these channels, of each tenant the more urgent first. */
export async function claimDueJobs(
  db: Queryable,
  options: ClaimOptions & { channels: readonly Channel[] },
): Promise<StoredDelivery[]> {
  const rows = await db.rows<DeliveryRow>(claimJobs, [
    options.owner,
    options.now,
    options.perTenant,
    options.most,
    options.except ?? [],
    options.channels.map(channel => CHANNELS.indexOf(channel)),
  ])
  return rows.map(readDelivery)
}

/**
 * When the next row of a table of work is due. One probe a tenant and priority: a million may be held until the morning,
 * and looking through all of them every second is what min() would do.
 */
export const nextDueOf = (table: WorkTable, also = ''): string =>
  `with recursive ${waitingTenants(table)}
   select min(first.run_at) as at from tenants t
   cross join generate_series(0, 3) as level (priority)
   cross join lateral (
     select w.run_at from ${table} w
     where w.owner = 0 and w.tenant_id = t.tenant_id and w.priority = level.priority ${also}
     order by w.tenant_id, w.priority, w.run_at limit 1
   ) first
   where t.tenant_id is not null`

const nextJob = sql('next_job', nextDueOf('jobs', 'and w.run_at > $1'))

/**
 * When the next job is due after this instant, if any waits. What is due by then and was not claimed is for channels of
 * other processes, or theirs already: whoever took it for their own next work would look for it without end.
 */
export const nextJobAt = async (db: Queryable, after: Date): Promise<Date | null> =>
  (await db.one<{ at: Date | null }>(nextJob, [after]))?.at ?? null

const foreignOwners = sql(
  'foreign_owners',
  `select owner, bool_or(lapsed) as lapsed from (
     select owner, lease_until < now() as lapsed from batches where owner <> 0
     union all
     select owner, lease_until < now() from jobs where owner <> 0
     union all
     select owner, lease_until < now() from planning where owner <> 0
     union all
     select owner, false from processes
   ) held
   where owner <> $1 group by owner`,
)
const tryOwner = sql('try_owner', `select pg_try_advisory_xact_lock(${OWNER_LOCK}, $1) as dead`)
const freeBatches = sql(
  'free_batches',
  `update batches set owner = 0, run_at = least(run_at, now()) where owner = $1 and ($2 or lease_until < now())`,
)
const freeJobs = sql(
  'free_jobs',
  `update jobs set owner = 0, lease_until = null where owner = $1 and ($2 or lease_until < now())`,
)
const freePlanning = sql(
  'free_planning',
  `update planning set owner = 0, lease_until = null where owner = $1 and ($2 or lease_until < now())`,
)
const forgetProcess = sql('forget_dead_process', `delete from processes where owner = $1`)

/**
 * Gives back what dead processes held: nobody holds their lock any more, or their lease ran out. What they held
 * joins the backlog, from where it is claimed fairly.
 *
 * @returns how many leases were given back
 */
export async function sweepDeadOwners(db: Db, self: number): Promise<number> {
  let freed = 0
  for (const { owner, lapsed } of await db.rows<{ owner: number; lapsed: boolean }>(foreignOwners, [self])) {
    freed += await db.tx(async tx => {
      const dead = (await tx.one<{ dead: boolean }>(tryOwner, [owner]))!.dead
      if (!dead && !lapsed) return 0
      const batches = await tx.run(freeBatches, [owner, dead])
      const jobs = await tx.run(freeJobs, [owner, dead])
      const planning = await tx.run(freePlanning, [owner, dead])
      if (dead) await tx.run(forgetProcess, [owner])
      return batches + jobs + planning
    })
  }
  return freed
}
