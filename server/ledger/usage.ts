import pg from 'pg'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { claimName, usageName } from '../limits/usage.ts'
import type { Place, Suspect, TakenUsage, UsageRead } from '../limits/usage.ts'
import type { Json, JsonObject, TenantId } from '../types.ts'
import { CHANNEL_CODE } from './rows.ts'

/**
 * Caps and claims are read before a batch is decided, and taken in the transaction that writes it: the commit
 * compares what was taken with what is there by then. When another writer was faster the whole batch fails with
 * `USAGE_CONFLICT`, is read again and decided again. So a cap is never exceeded, not by one, and nobody holds a
 * lock while deciding.
 */
export const USAGE_CONFLICT = 'CAR01'

export const isUsageConflict = (error: unknown): boolean =>
  (error as { code?: string } | null)?.code === USAGE_CONFLICT

/** Each conflict means that another batch got through, so a handful of rounds is rare and this many never seen. */
export const MAX_CONFLICTS = 50

export interface UsageWish {
  /** Counters from the window that begins here on: later windows may be filled already. */
  counts: { tenantId: TenantId; key: string; fromMs: number }[]
  claims: { tenantId: TenantId; key: string }[]
}

// By its place among what was asked, as keys are long; dates as doubles, as numeric costs more than the probe.
const readCounts = sql(
  'read_counters',
  `select w.i::int as i, date_part('epoch', c.window_at) * 1000 as at, c.count::float8 as n
   from unnest($1::int[], $2::text[], $3::int8[]) with ordinality as w (tenant_id, key, since, i)
   join counters c on c.tenant_id = w.tenant_id and c.key = w.key and c.window_at >= to_timestamp(w.since::float8 / 1000)`,
)
const readClaims = sql(
  'read_claims',
  `select w.i::int as i, date_part('epoch', c.until) * 1000 as until, c.note
   from unnest($1::int[], $2::text[]) with ordinality as w (tenant_id, key, i)
   join claims c on c.tenant_id = w.tenant_id and c.key = w.key`,
)

interface ClaimRow {
  i: number
  until: number
  note: string | null
}

/** At most one statement for the counters and one for the claims of a whole batch. */
export async function readUsage(q: Queryable, { counts, claims }: UsageWish): Promise<UsageRead> {
  const read = {
    counts: new Map<string, number>(),
    claims: new Map<string, number>(),
    notes: new Map<string, string>(),
  }
  if (counts.length > 0) {
    const rows = await q.rows<{ i: number; at: number; n: number }>(readCounts, [
      counts.map(wish => wish.tenantId),
      counts.map(wish => wish.key),
      counts.map(wish => wish.fromMs),
    ])
    for (const { i, at, n } of rows) {
      const { tenantId, key } = counts[i - 1]!
      read.counts.set(usageName(tenantId, key, Math.round(at)), n)
    }
  }
  if (claims.length > 0) {
    const rows = await q.rows<ClaimRow>(readClaims, [
      claims.map(wish => wish.tenantId),
      claims.map(wish => wish.key),
    ])
    for (const { i, until, note } of rows) {
      const { tenantId, key } = claims[i - 1]!
      const name = claimName(tenantId, key)
      read.claims.set(name, Math.round(until))
      if (note !== null) read.notes.set(name, note)
    }
  }
  return read
}

const time = (ms: number) => new Date(ms).toISOString()

/** The statements that take it, for the script of the commit. */
export function takeUsage({ counts, claims, suspects }: TakenUsage): string {
  const statements = []
  if (counts.length > 0 || claims.length > 0) statements.push(take(counts, claims))
  if (suspects.length > 0) statements.push(noteSuspects(suspects))
  return statements.join(';\n')
}

function take(counts: TakenUsage['counts'], claims: TakenUsage['claims']): string {
  const columns = [
    numbers(counts, one => one.tenantId),
    texts(counts, one => one.key),
    numbers(counts, one => one.windowMs),
    numbers(counts, one => one.n),
    numbers(counts, one => one.room),
    numbers(claims, one => one.tenantId),
    texts(claims, one => one.key),
    numbers(claims, one => one.untilMs),
    numbers(claims, one => one.wasMs),
    texts(claims, one => one.note ?? null),
  ]
  return `select take_usage(${columns.join(', ')})`
}

/** An array literal (https://www.postgresql.org/docs/current/arrays.html#ARRAYS-INPUT). */
const numbers = <T>(list: readonly T[], of: (one: T) => number | null): string =>
  `'{${list.map(one => of(one) ?? 'null').join()}}'`

const texts = <T>(list: readonly T[], of: (one: T) => string | null): string =>
  pg.escapeLiteral(
    `{${list
      .map(one => {
        const text = of(one)
        return text === null ? 'null' : `"${text.replaceAll(/["\\]/g, '\\$&')}"`
      })
      .join()}}`,
  )

// One row for each counter and window, however much it stopped there.
function noteSuspects(suspects: readonly Suspect[]): string {
  const rows = suspects.map(({ tenantId, over, userId, channel, eventType, action, n }) => ({
    tenant_id: tenantId,
    id: newId(),
    key: over.key,
    window_at: time(over.windowMs),
    user_id: userId,
    channel: CHANNEL_CODE[channel],
    event_type: eventType,
    rule: over.label,
    action,
    max: over.max,
    stopped: n,
  }))
  const columns = 'tenant_id, id, key, window_at, user_id, channel, event_type, rule, action, max, stopped'
  return `insert into spam_detections as s (${columns})
  select ${columns} from json_populate_recordset(null::spam_detections, ${pg.escapeLiteral(JSON.stringify(rows))}::json)
  order by tenant_id, key, window_at
on conflict (tenant_id, key, window_at) do update
  set stopped = s.stopped + excluded.stopped, max = excluded.max, action = excluded.action, last_at = now()`
}

// In the order in which they are taken, so that givers and takers wait for each other in one direction only.
const giveBackOf = (source: string): string => `with held as (
     select c.tenant_id, c.key, c.window_at, w.n
     from (select tenant_id, key, window_at, sum(n)::int8 as n from ${source} group by 1, 2, 3) w
     join counters c on c.tenant_id = w.tenant_id and c.key = w.key and c.window_at = w.window_at
     order by c.tenant_id, c.key collate "C", c.window_at for update of c
   )
   update counters c set count = greatest(0, c.count - h.n) from held h
   where c.tenant_id = h.tenant_id and c.key = h.key and c.window_at = h.window_at`
const giveBack = sql(
  'give_back_usage',
  giveBackOf(
    'unnest($1::int[], $2::text[], $3::timestamptz[], $4::int8[]) as x (tenant_id, key, window_at, n)',
  ),
)

/** Places that nobody needs any more. */
export interface GivenBack {
  tenantId: TenantId
  key: string
  windowMs: number
  n: number
}

/** Places as a job's state keeps them: counter, window, how much, and 1 where the whole notification took it. */
export const storePlaces = (places: readonly Place[]): Json[] =>
  places.map(({ key, windowMs, n, per }) => [key, windowMs, n, per === 'notification' ? 1 : 0])

/** @param whole whether nothing of the notification goes: only then what all its channels took once is free again */
export function placesOf(tenantId: TenantId, { took }: JsonObject, whole: boolean): GivenBack[] {
  if (!Array.isArray(took)) return []
  return (took as [key: string, windowMs: number, n: number, shared: 0 | 1][])
    .filter(([, , , shared]) => whole || shared === 0)
    .map(([key, windowMs, n]) => ({ tenantId, key, windowMs, n }))
}

/** For what was planned into a later window and did not go after all: cancelled, or no longer wanted. */
export async function giveBackUsage(tx: Queryable, given: readonly GivenBack[]): Promise<void> {
  if (given.length === 0) return
  await tx.run(giveBack, [
    given.map(one => one.tenantId),
    given.map(one => one.key),
    given.map(one => new Date(one.windowMs)),
    given.map(one => one.n),
  ])
}

/** The same for a script. */
export function giveBackScript(given: readonly GivenBack[]): string {
  const rows = given.map(({ tenantId, key, windowMs, n }) => ({
    tenant_id: tenantId,
    key,
    window_at: time(windowMs),
    n,
  }))
  return giveBackOf(
    `json_to_recordset(${pg.escapeLiteral(JSON.stringify(rows))}::json) as x (tenant_id int, key text, window_at timestamptz, n int8)`,
  )
}
