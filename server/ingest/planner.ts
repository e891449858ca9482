import { idTime } from '../db/ids.ts'
import { queryable, sql } from '../db/pool.ts'
import type { Db, Queryable } from '../db/pool.ts'
import { SHARDS } from '../ledger/counters.ts'
import { dueTenants, nextDueOf } from '../ledger/claim.ts'
import { ledgerWriter } from '../ledger/commit.ts'
import type { CommitOptions, Committed } from '../ledger/commit.ts'
import { LEASE_SECONDS } from '../ledger/owner.ts'
import type { Plan, PlannedEvent } from '../ledger/plan.ts'
import { MAX_CONFLICTS, isUsageConflict } from '../ledger/usage.ts'
import { type Lookout, lookout } from '../time/lookout.ts'
import { PRIORITIES } from '../types.ts'
import type { DirectSend, Event, JsonObject, TenantId } from '../types.ts'

/**
 * Plans what was only accepted: scheduled events when their time comes, and large audiences in chunks. Each chunk
 * is one transaction that also moves the cursor, so that a crash repeats no chunk and loses none.
 */
export interface Planner extends Lookout {
  /** One round; true when there was something. */
  runOnce(): Promise<boolean>
}

/** One thing an event leads to that has an audience to walk (server/pipeline.ts). */
interface RouteLike {
  rule: { id: string } | null
}

export interface PlannerParts<R extends RouteLike> {
  db: Db
  pipeline: {
    refresh(q: Queryable): Promise<void>
    plan(q: Queryable, events: readonly Event[], now: Date, options: { again: boolean }): Promise<Plan>
    planChunk(
      q: Queryable,
      event: Event,
      route: R,
      people: Map<string, 'ALL' | 'IMPORTANT'>,
      now: Date,
    ): Promise<Plan>
    routes(event: Event, now: Date): { routes: R[] }
    /** The next people of a route, in the database's order of user ids. */
    chunk(
      q: Queryable,
      event: Event,
      route: R,
      after: string,
      limit: number,
    ): Promise<{ user_id: string; level: 'ALL' | 'IMPORTANT' }[]>
    /** The route for a chunk that is not the last: bare addresses are told with the last one. */
    withoutAddresses(route: R): R
  }
  unseal(tenantId: TenantId, sealedFor: string | null, sealed: Buffer): Promise<Buffer | undefined>
  ledger(): Pick<CommitOptions, 'owner' | 'nextBatchId' | 'leaseSeconds' | 'roomFor'>
  handOver(committed: Committed & { toPlan: number }): void
  now(): Date
  chunkSize: number
  pollMs: number
  onError(error: unknown): void
}

const MAX_ATTEMPTS = 3

interface PlanningRow {
  tenant_id: number
  event_id: string
  attempt: number
  part: number
  cursor: { route: number; after: string } | null
  run_at: Date
  rank: number
  source: string
  type: string
  subject: string | null
  external_id: string | null
  time: Date
  received_at: Date
  scheduled_at: Date | null
  expires_at: Date | null
  priority: number | null
  category: string | null
  trace_id: string | null
  sealed_for: string | null
  data: Buffer
}

const claim = sql(
  'claim_planning',
  `with recursive ${dueTenants('planning')}, picked as materialized (
     select p.tenant_id, p.event_id from due t
     cross join lateral (
       select * from (
         select p.* from generate_series(0, 3) as level (priority)
         cross join lateral (
           select p.tenant_id, p.event_id, p.priority from planning p
           where p.owner = 0 and p.tenant_id = t.tenant_id and p.priority = level.priority and p.run_at <= $2
           order by p.tenant_id, p.priority, p.run_at limit (select each from share)
           for update skip locked
         ) p
         order by p.priority limit (select each from share)
       ) first
     ) p
     limit $4
   ), mine as (
     update planning p set owner = $1, lease_until = now() + interval '${LEASE_SECONDS} seconds'
     from picked where (p.tenant_id, p.event_id) = (picked.tenant_id, picked.event_id)
     returning p.*
   )
   select m.tenant_id, m.event_id, m.attempt::int, m.part, m.cursor, m.run_at, m.priority as rank, e.source, e.type, e.subject, e.external_id, e.time,
     e.received_at, e.scheduled_at, e.expires_at, e.priority, e.category, e.trace_id, e.sealed_for, e.data
   from mine m join events e on e.tenant_id = m.tenant_id and e.id = m.event_id`,
)
const insertPlan = sql(
  'insert_plan',
  `insert into plans (tenant_id, event_id, part, at, outcome, trace, first_id, last_id, from_user, to_user, deliveries, suppressed)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
)
// And gives it back: the next chunk waits for its turn like everything else that is due.
const moveCursor = sql(
  'move_planning_cursor',
  `update planning set part = part + 1, cursor = $3, attempt = 0, owner = 0, lease_until = null
   where tenant_id = $1 and event_id = $2 and owner = $4`,
)
const giveBack = sql(
  'give_back_planning',
  `update planning p set owner = 0, lease_until = null
   from unnest($1::int[], $2::uuid[]) as g (tenant_id, event_id)
   where p.tenant_id = g.tenant_id and p.event_id = g.event_id and p.owner = $3`,
)
const endPlanning = sql(
  'end_planning',
  `delete from planning where tenant_id = $1 and event_id = $2 and owner = $3`,
)
const retryPlanning = sql(
  'retry_planning',
  `update planning set owner = 0, lease_until = null, attempt = attempt + 1, run_at = $4, error = $5
   where tenant_id = $1 and event_id = $2 and owner = $3`,
)
const deadEvent = sql(
  'dead_letter_event',
  `insert into dead_letters (tenant_id, id, at, kind, event_id, event_type, code, error)
   values ($1, $2, $3, 'event', $2, $4, 'planning_failed', $5)
   on conflict (tenant_id, id) do update set at = excluded.at, error = excluded.error, redriven_at = null`,
)
const nextDue = sql('next_planning', nextDueOf('planning'))

/** Events taken at once. */
const CLAIM = 50
/** After so long the rest is given back, and whoever came meanwhile is taken together with it. */
const ROUND_MS = 200

export function planner<R extends RouteLike>(parts: PlannerParts<R>): Planner {
  const { db, pipeline } = parts
  const writer = ledgerWriter((parts.ledger().owner * 16 + 13) % SHARDS)
  let servedLast: TenantId = 0

  /** One round: of each tenant's events one part, one tenant after the other, for a while. */
  async function runOnce(): Promise<boolean> {
    const { owner } = parts.ledger()
    const rows = inTurn(await db.rows<PlanningRow>(claim, [owner, parts.now(), CLAIM, CLAIM, []]), servedLast)
    const until = performance.now() + ROUND_MS
    let done = 0
    // At least one, however slow the machine is.
    while (done < rows.length && (done === 0 || performance.now() < until)) {
      const row = rows[done++]!
      servedLast = row.tenant_id
      await planRow(row)
    }
    const rest = rows.slice(done)
    if (rest.length > 0) {
      await db.run(giveBack, [rest.map(row => row.tenant_id), rest.map(row => row.event_id), owner])
    }
    return rows.length > 0
  }

  async function planRow(row: PlanningRow): Promise<void> {
    try {
      const opened = await parts.unseal(row.tenant_id, row.sealed_for, row.data)
      if (!opened) return await finish(row, 'cancelled')
      const event = eventOf(row, opened)
      if (row.cursor === null && event.expiresAt && event.expiresAt <= parts.now())
        return await finish(row, 'expired')
      await planAgain(row, event)
    } catch (error) {
      parts.onError(error)
      await failed(row, error)
    }
  }

  /** Decided anew whenever another batch took a cap or a claim in between (server/ledger/usage.ts). */
  async function planAgain(row: PlanningRow, event: Event): Promise<void> {
    for (let conflicts = 0; ; conflicts++) {
      try {
        return await planPart(row, event)
      } catch (error) {
        if (!isUsageConflict(error) || conflicts >= MAX_CONFLICTS) throw error
      }
    }
  }

  /** Plans one part, and moves the cursor to the next one or ends the planning, in one transaction. */
  async function planPart(row: PlanningRow, event: Event): Promise<void> {
    const committed = await db.tx(async tx => {
      const now = parts.now()
      const q = queryable(tx.client)
      await pipeline.refresh(q)
      const { tenant_id: tenantId, event_id: eventId, part } = row
      let plan: PlannedEvent
      let usage: Plan['usage'] = null
      let next: PlanningRow['cursor'] = null
      let from: string | null = null
      let to: string | null = null
      if (row.cursor === null) {
        // Often it is not large at all, only late: then one part is everything.
        const planned = await pipeline.plan(q, [event], now, { again: true })
        const whole = planned.events[0]!
        usage = planned.usage
        if (whole.planned) plan = whole
        else {
          plan = { ...whole, planned: true, trace: JSON.stringify({ rules: [] }) }
          next = { route: 0, after: '' }
        }
      } else {
        const { routes } = pipeline.routes(event, now)
        const route = routes[row.cursor.route]
        if (!route) plan = { ...emptyPlan(event), trace: JSON.stringify({ rules: [] }) }
        else {
          from = row.cursor.after
          const people = await pipeline.chunk(q, event, route, from, parts.chunkSize)
          to = people.at(-1)?.user_id ?? null
          const last = people.length < parts.chunkSize
          const planned = await pipeline.planChunk(
            q,
            event,
            last ? route : pipeline.withoutAddresses(route),
            new Map(people.map(({ user_id, level }) => [user_id, level])),
            now,
          )
          plan = planned.events[0]!
          usage = planned.usage
          next = last
            ? row.cursor.route + 1 < routes.length
              ? { route: row.cursor.route + 1, after: '' }
              : null
            : { route: row.cursor.route, after: to! }
        }
      }
      await q.run(insertPlan, [
        tenantId,
        eventId,
        part,
        now,
        next ? 'part' : 'completed',
        plan.trace,
        plan.notifications[0]?.id ?? null,
        plan.notifications.at(-1)?.id ?? null,
        from,
        to,
        plan.deliveries,
        plan.suppressed,
      ])
      const { owner } = parts.ledger()
      const moved = next
        ? await q.run(moveCursor, [tenantId, eventId, JSON.stringify(next), owner])
        : await q.run(endPlanning, [tenantId, eventId, owner])
      if (moved === 0) throw new Error('The lease of this planning was lost')
      return writer.commit(tx.client, [plan], {
        ...parts.ledger(),
        insertEvents: false,
        inTransaction: false,
        nowMs: now.getTime(),
        usage,
        count(delta) {
          if (!next) {
            delta.event(tenantId, idTime(eventId), {
              planned: 1,
              planning_ms: Math.max(0, now.getTime() - (event.scheduledAt ?? event.receivedAt).getTime()),
            })
          }
        },
      })
    })
    parts.handOver({ ...committed, toPlan: 0 })
  }

  async function finish(row: PlanningRow, outcome: 'cancelled' | 'expired'): Promise<void> {
    await db.tx(async tx => {
      const { tenant_id: tenantId, event_id: eventId } = row
      await tx.run(insertPlan, [
        tenantId,
        eventId,
        row.part,
        parts.now(),
        outcome,
        null,
        null,
        null,
        null,
        null,
        0,
        0,
      ])
      await tx.run(endPlanning, [tenantId, eventId, parts.ledger().owner])
      await writer.commit(tx.client, [], {
        ...parts.ledger(),
        insertEvents: false,
        inTransaction: false,
        nowMs: parts.now().getTime(),
        count: delta => delta.event(tenantId, idTime(eventId), { cancelled: 1 }),
      })
    })
  }

  async function failed(row: PlanningRow, error: unknown): Promise<void> {
    const message = (error as Error).message.slice(0, 500)
    const { tenant_id: tenantId, event_id: eventId } = row
    const { owner } = parts.ledger()
    try {
      if (row.attempt + 1 < MAX_ATTEMPTS) {
        const due = new Date(parts.now().getTime() + 1000 * 2 ** row.attempt)
        await db.run(retryPlanning, [tenantId, eventId, owner, due, message])
        return
      }
      await db.tx(async tx => {
        await tx.run(insertPlan, [
          tenantId,
          eventId,
          row.part + 10_000,
          parts.now(),
          'failed',
          null,
          null,
          null,
          null,
          null,
          0,
          0,
        ])
        await tx.run(deadEvent, [tenantId, eventId, parts.now(), row.type, message])
        await tx.run(endPlanning, [tenantId, eventId, owner])
        await writer.commit(tx.client, [], {
          ...parts.ledger(),
          insertEvents: false,
          inTransaction: false,
          nowMs: parts.now().getTime(),
          count: delta => delta.event(tenantId, idTime(eventId), { failed: 1 }),
        })
      })
    } catch (cause) {
      // The lease runs out, and somebody tries again.
      parts.onError(cause)
    }
  }

  const outlook = lookout({
    look: async () =>
      (await runOnce()) ? 'more' : ((await db.one<{ at: Date | null }>(nextDue))?.at ?? null),
    now: parts.now,
    atLatestMs: parts.pollMs,
    onError: parts.onError,
  })
  return { ...outlook, runOnce }
}

/**
 * One of each tenant, then the second of each, and so on; tenants in the order of their ids, beginning behind the one
 * that was served last, so that all get their turn even when a round has time for one. Within a tenant as they queue.
 */
export function inTurn<R extends { tenant_id: TenantId; rank: number; run_at: Date }>(
  rows: readonly R[],
  servedLast: TenantId,
): R[] {
  const byTenant = Map.groupBy(
    rows.toSorted((a, b) => a.rank - b.rank || a.run_at.getTime() - b.run_at.getTime()),
    row => row.tenant_id,
  )
  const tenants = [...byTenant.keys()].sort((a, b) => a - b)
  const order = [...tenants.filter(id => id > servedLast), ...tenants.filter(id => id <= servedLast)]
  const turns = Math.max(0, ...order.map(id => byTenant.get(id)!.length))
  return Array.from({ length: turns }, (_, turn) => order.flatMap(id => byTenant.get(id)![turn] ?? [])).flat()
}

function eventOf(row: PlanningRow, opened: Buffer): Event {
  const { data, direct, maxRetries } = JSON.parse(opened.toString('utf8')) as {
    data: JsonObject
    direct?: DirectSend
    maxRetries?: number
  }
  return {
    tenantId: row.tenant_id,
    id: row.event_id,
    externalId: row.external_id ?? undefined,
    source: row.source,
    type: row.type,
    subject: row.subject ?? undefined,
    time: row.time,
    receivedAt: row.received_at,
    data,
    priority: row.priority === null ? undefined : PRIORITIES[row.priority],
    category: row.category ?? undefined,
    scheduledAt: row.scheduled_at ?? undefined,
    expiresAt: row.expires_at ?? undefined,
    traceId: row.trace_id ?? undefined,
    direct,
    maxRetries,
  }
}

const emptyPlan = (event: Event): PlannedEvent => ({
  event,
  sealed: Buffer.alloc(0),
  planned: true,
  trace: null,
  notifications: [],
  deliveries: 0,
  suppressed: 0,
})
