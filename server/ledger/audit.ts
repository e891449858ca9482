import { idFloor } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db, Queryable } from '../db/pool.ts'
import { CHANNELS, OUTCOMES } from '../types.ts'
import type { Channel, Id, TenantId } from '../types.ts'
import { isLive } from './status.ts'
import type { DeliveryState } from './status.ts'

/** One figure that the counters and the rows do not agree on. */
export interface Difference {
  tenantId: TenantId
  /** UTC, `2026-01-31`. */
  day: string
  /** null: not of one channel (suppressed deliveries, events). */
  channel: Channel | null
  /**
   * 'planned', an outcome, 'live', 'lost', 'events.received', 'events.planned' or 'events.cancelled'; of digests
   * 'digest.waiting', 'digest.ended' or 'digest.jobs' (see `digestItems`).
   */
  what: string
  counted: number
  found: number
  /** Of lost deliveries: `<notification id> <channel>`; 100 over the whole audit at most. */
  ids?: string[]
}

export interface AuditScope {
  tenantId?: TenantId
  /** Counters are kept by day, so this means the whole UTC day. Default: all. Name the first day still kept where retention has removed rows. */
  from?: Date
  /** Exclusive, rounded up to a whole UTC day. */
  to?: Date
}

const DAY_MS = 86_400_000
const LOST_SHOWN = 100

const IN_SCOPE = (id: string) =>
  `($1::int is null or tenant_id = $1) and ${id} >= $2::uuid and ${id} < $3::uuid`
const DAY = (id: string) => `to_char(uuid_extract_timestamp(${id}) at time zone 'UTC', 'YYYY-MM-DD')`

// The derivation of the view `deliveries`, over whole tables: each table is read once and joined by hash, where
// the view's probes by key would cost some 20 µs a delivery. delivery_status is the same function.
const STANDING = `
  with parts as (
    select n.tenant_id, n.id, get_byte(n.channels, i)::int2 as channel, n.batch_id
    from notifications n, generate_series(0, length(n.channels) - 1) i
    where ${IN_SCOPE('id')}
    union all
    select f.tenant_id, f.id, f.channel, f.batch_id
    from (
      select n.tenant_id, n.id, get_byte(n.fallback, i)::int2 as channel, n.batch_id
      from notifications n, generate_series(0, length(n.fallback) - 1) i
      where ${IN_SCOPE('id')} and n.fallback is not null
    ) f
    join (
      select tenant_id, notification_id, channel from jobs where ${IN_SCOPE('notification_id')}
      union
      select tenant_id, notification_id, channel from attempts where ${IN_SCOPE('notification_id')}
    ) begun on begun.tenant_id = f.tenant_id and begun.notification_id = f.id and begun.channel = f.channel
  ), last as (
    select distinct on (tenant_id, notification_id, channel) tenant_id, notification_id, channel, final, outcome
    from attempts where ${IN_SCOPE('notification_id')}
    order by tenant_id, notification_id, channel, attempt desc, final desc, worker desc
  ), standing as (
    select p.tenant_id, p.id, p.channel,
      delivery_status(p.channel, j.kind, j.owner, a.final, a.outcome, s.outcome, b.owner) as status
    from parts p
    left join jobs j on j.tenant_id = p.tenant_id and j.notification_id = p.id and j.channel = p.channel
    left join last a on a.tenant_id = p.tenant_id and a.notification_id = p.id and a.channel = p.channel
    left join delivery_state s on s.tenant_id = p.tenant_id and s.notification_id = p.id and s.channel = p.channel
    left join batches b on b.id = p.batch_id
  )`

/**
 * What collecting promises, of each item: it waits in an open digest and then has its job ('digest.waiting'), or it
 * left, and then no job collects it any more ('digest.ended') and its digest, if still open, did not take it along.
 * And the other way about: every job that collects is an item ('digest.jobs'). That no item is in two digests is
 * the primary key's to say.
 */
const digestItems = sql(
  'audit_digest_items',
  `with items as (
     select i.tenant_id, i.notification_id, i.channel, i.state as item, d.state as digest, j.kind = 'collected' as waits
     from (select * from digest_items where ${IN_SCOPE('notification_id')}) i
     left join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id
     left join jobs j on j.tenant_id = i.tenant_id and j.notification_id = i.notification_id and j.channel = i.channel
   ), lines as (
     select tenant_id, notification_id, channel, 'digest.waiting' as what,
       digest is not distinct from 'open' and waits is true as found
     from items where item = 'collected'
     union all
     select tenant_id, notification_id, channel, 'digest.ended',
       waits is not true and (item <> 'closed' or (digest in ('closed', 'released')) is true)
         and (item <> 'expired' or digest is distinct from 'open')
     from items where item <> 'collected'
     union all
     select j.tenant_id, j.notification_id, j.channel, 'digest.jobs', i.notification_id is not null
     from (select * from jobs where kind = 'collected' and ${IN_SCOPE('notification_id')}) j
     left join digest_items i on i.tenant_id = j.tenant_id and i.notification_id = j.notification_id
       and i.channel = j.channel
   )
   select tenant_id, ${DAY('notification_id')} as day, channel, what, count(*) as counted,
     count(*) filter (where found) as found
   from lines group by 1, 2, 3, 4`,
)

const snapshot = sql('audit_snapshot', 'set transaction isolation level repeatable read, read only')
// Some million rows are hashed and sorted, by one caller, seldom.
const memory = sql('audit_memory', `set local work_mem = '128MB'`)

const countDeliveries = sql(
  'audit_deliveries',
  `${STANDING}
   select tenant_id, ${DAY('id')} as day, channel, status, count(*) as n from standing group by 1, 2, 3, 4`,
)
const findLost = sql(
  'audit_lost',
  `${STANDING}
   select tenant_id, ${DAY('id')} as day, channel, id from standing where status = 'lost' limit ${LOST_SHOWN}`,
)
const countSuppressed = sql(
  'audit_suppressed',
  `select tenant_id, day, sum(n)::int8 as n from (
     select tenant_id, ${DAY('id')} as day, suppressed as n from events where ${IN_SCOPE('id')} and suppressed > 0
     union all
     select tenant_id, ${DAY('event_id')}, suppressed from plans where ${IN_SCOPE('event_id')} and suppressed > 0
   ) s group by 1, 2`,
)
const ledgerCounters = sql(
  'audit_ledger_counters',
  `select tenant_id, to_char(day, 'YYYY-MM-DD') as day, channel, sum(planned)::int8 as planned,
     ${OUTCOMES.map(outcome => `sum(${outcome})::int8 as ${outcome}`).join()}
   from ledger_counters
   where ($1::int is null or tenant_id = $1) and day >= $2::date and day < $3::date
   group by 1, 2, 3`,
)
const countEvents = sql(
  'audit_events',
  `select tenant_id, day, sum(received)::int8 as received, sum(planned)::int8 as planned, sum(cancelled)::int8 as cancelled
   from (
     select tenant_id, ${DAY('id')} as day, count(*) as received, count(*) filter (where planned) as planned, 0 as cancelled
     from events where ${IN_SCOPE('id')} group by 1, 2
     union all
     select tenant_id, ${DAY('event_id')}, 0, count(*) filter (where outcome = 'completed'), count(*) filter (where outcome in ('cancelled', 'expired'))
     from plans where ${IN_SCOPE('event_id')} group by 1, 2
   ) e group by 1, 2`,
)
const eventCounters = sql(
  'audit_event_counters',
  `select tenant_id, to_char(day, 'YYYY-MM-DD') as day, sum(received)::int8 as received, sum(planned)::int8 as planned,
     sum(cancelled)::int8 as cancelled
   from event_counters
   where ($1::int is null or tenant_id = $1) and day >= $2::date and day < $3::date
   group by 1, 2`,
)

/**
 * Counts every delivery and event from its rows and compares with the counters, in one snapshot: so it may run at
 * any time, under load. An empty answer is the proof that nothing was lost:
 *
 *     planned = delivered + sent + failed + bounced + rejected + unknown + cancelled + expired + suppressed + live
 */
export async function auditLedger(db: Db, scope: AuditScope = {}): Promise<Difference[]> {
  // Within what PostgreSQL's date and a uuidv7 can both say.
  const from = Math.max(0, Math.floor((scope.from?.getTime() ?? 0) / DAY_MS) * DAY_MS)
  const to = Math.min(Date.UTC(9999, 0, 1), Math.ceil((scope.to?.getTime() ?? Infinity) / DAY_MS) * DAY_MS)
  const ids = [scope.tenantId ?? null, idFloor(from), idFloor(to)]
  const days = [scope.tenantId ?? null, dayOf(from), dayOf(to)]

  return db.tx(async tx => {
    await tx.run(snapshot)
    await tx.run(memory)
    const sheet = figures()

    for (const row of await tx.rows<CountedRow>(ledgerCounters, days)) {
      const outcomes = OUTCOMES.reduce((sum, outcome) => sum + row[outcome], 0)
      sheet.counted(row.tenant_id, row.day, row.channel, 'planned', row.planned)
      for (const outcome of OUTCOMES)
        sheet.counted(row.tenant_id, row.day, row.channel, outcome, row[outcome])
      sheet.counted(row.tenant_id, row.day, row.channel, 'live', row.planned - outcomes)
    }
    let lost = 0
    for (const { tenant_id, day, channel, status, n } of await tx.rows<StandingRow>(countDeliveries, ids)) {
      sheet.found(tenant_id, day, channel, 'planned', n)
      sheet.found(tenant_id, day, channel, isLive(status) ? 'live' : status, n)
      if (status === 'lost') lost += n
    }
    for (const row of await tx.rows<{ tenant_id: number; day: string; n: number }>(countSuppressed, ids)) {
      sheet.found(row.tenant_id, row.day, NO_CHANNEL, 'planned', row.n)
      sheet.found(row.tenant_id, row.day, NO_CHANNEL, 'suppressed', row.n)
    }
    for (const row of await tx.rows<EventRow>(eventCounters, days)) {
      for (const what of EVENT_FIGURES)
        sheet.counted(row.tenant_id, row.day, NO_CHANNEL, `events.${what}`, row[what])
    }
    for (const row of await tx.rows<EventRow>(countEvents, ids)) {
      for (const what of EVENT_FIGURES)
        sheet.found(row.tenant_id, row.day, NO_CHANNEL, `events.${what}`, row[what])
    }

    for (const row of await tx.rows<DigestLine>(digestItems, ids)) {
      sheet.counted(row.tenant_id, row.day, row.channel, row.what, row.counted)
      sheet.found(row.tenant_id, row.day, row.channel, row.what, row.found)
    }

    const differences = sheet.differences()
    if (lost > 0) await nameLost(tx, ids, differences)
    return differences
  })
}

const NO_CHANNEL = -1
const EVENT_FIGURES = ['received', 'planned', 'cancelled'] as const

type CountedRow = { tenant_id: number; day: string; channel: number; planned: number } & Record<
  (typeof OUTCOMES)[number],
  number
>
interface StandingRow {
  tenant_id: number
  day: string
  channel: number
  status: DeliveryState
  n: number
}
interface DigestLine {
  tenant_id: number
  day: string
  channel: number
  what: string
  /** Items, or jobs. */
  counted: number
  /** Of them those that keep the promise. */
  found: number
}
type EventRow = { tenant_id: number; day: string } & Record<(typeof EVENT_FIGURES)[number], number>

const dayOf = (ms: number) => new Date(ms).toISOString().slice(0, 10)

function figures() {
  const lines = new Map<string, Difference>()
  const line = (tenantId: TenantId, day: string, code: number, what: string) => {
    const key = `${tenantId} ${day} ${code} ${what}`
    let found = lines.get(key)
    if (!found) {
      found = { tenantId, day, channel: CHANNELS[code] ?? null, what, counted: 0, found: 0 }
      lines.set(key, found)
    }
    return found
  }
  return {
    counted: (tenantId: TenantId, day: string, code: number, what: string, n: number) =>
      void (line(tenantId, day, code, what).counted += n),
    found: (tenantId: TenantId, day: string, code: number, what: string, n: number) =>
      void (line(tenantId, day, code, what).found += n),
    differences: () =>
      [...lines.values()]
        .filter(({ counted, found }) => counted !== found)
        .sort((a, b) => a.tenantId - b.tenantId || (a.day < b.day ? -1 : a.day > b.day ? 1 : 0)),
  }
}

async function nameLost(q: Queryable, ids: unknown[], differences: Difference[]): Promise<void> {
  const rows = await q.rows<{ tenant_id: number; day: string; channel: number; id: Id }>(findLost, ids)
  for (const { tenant_id, day, channel, id } of rows) {
    const line = differences.find(
      d => d.what === 'lost' && d.tenantId === tenant_id && d.day === day && d.channel === CHANNELS[channel],
    )
    if (line) (line.ids ??= []).push(`${id} ${CHANNELS[channel]}`)
  }
}
