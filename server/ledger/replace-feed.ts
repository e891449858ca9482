import pg from 'pg'
import type { PlannedNotification } from './plan.ts'
import { PRIORITY_CODE } from './rows.ts'

/**
 * The statement that lets new inbox items take the place of those that told the same before, for the script of the
 * commit; empty when none does. It comes after the items were inserted: their readers' heads are locked by then, so
 * two writers about the same thing come one after the other, and the later one sees what the earlier one left.
 *
 * `update`: what its reader had seen or read stays so, unless it became more urgent. `retract`: it counts as new.
 * The item that goes leaves a `removed` change behind, for streams, as any other removal does
 * (server/feed/feed.ts).
 */
export function replaceFeedScript(notifications: Iterable<PlannedNotification>, nowMs: number): string {
  const given: Record<string, unknown>[] = []
  const last = new Map<string, Record<string, unknown>>()
  for (const { tenantId, id, recipientId, priority, about } of notifications) {
    if (about === undefined) continue
    const row = {
      t: tenantId,
      k: about.key,
      u: recipientId,
      n: id,
      p: PRIORITY_CODE[priority],
      keep: about.earlier === 'update',
      last: true,
    }
    const name = `${tenantId} ${about.key.length} ${about.key} ${recipientId}`
    const before = last.get(name)
    if (before) before['last'] = false
    last.set(name, row)
    given.push(row)
  }
  if (given.length === 0) return ''
  const at = `'${new Date(nowMs).toISOString()}'::timestamptz`
  return `with given as materialized (
  select * from json_to_recordset(${pg.escapeLiteral(JSON.stringify(given))}::json)
    as x (t int, k text, u text, n uuid, p int2, keep boolean, last boolean)
), earlier as materialized (
  select g.t, g.u, m.notification_id as n, g.n as next, g.keep and g.p >= m.priority as stays
  from given g join alert_messages m on m.tenant_id = g.t and m.key = g.k and m.user_id = g.u
  where g.last and m.notification_id <> g.n
  union all
  select g.t, g.u, g.n, l.n, false from given g join given l on l.last and l.t = g.t and l.k = g.k and l.u = g.u
  where not g.last
), gone as (
  delete from feed f using earlier e
  where f.tenant_id = e.t and f.notification_id = e.n and f.user_id = e.u
  returning f.tenant_id, f.user_id, f.seq, f.notification_id, e.next, e.stays, f.seen_at, f.read_at,
    (f.archived_at is null and f.snoozed_until is null and f.seen_at is null)::int as unseen,
    (f.archived_at is null and f.snoozed_until is null and f.read_at is null)::int as unread
), kept as (
  update feed f set seen_at = g.seen_at, read_at = g.read_at from gone g
  where g.stays and (g.seen_at is not null or g.read_at is not null)
    and f.tenant_id = g.tenant_id and f.notification_id = g.next and f.user_id = g.user_id
  returning f.tenant_id, f.user_id, (f.seen_at is not null)::int as unseen, (f.read_at is not null)::int as unread
), head as (
  update feed_heads h set seq = h.seq + d.n, unseen = h.unseen - d.unseen, unread = h.unread - d.unread
  from (
    select tenant_id, user_id, sum(n) as n, sum(unseen) as unseen, sum(unread) as unread from (
      select tenant_id, user_id, 1 as n, unseen, unread from gone
      union all select tenant_id, user_id, 0, unseen, unread from kept
    ) c group by 1, 2
  ) d
  where h.tenant_id = d.tenant_id and h.user_id = d.user_id
  returning h.tenant_id, h.user_id, h.seq, d.n
), recorded as (
  insert into feed_changes (tenant_id, user_id, seq, notification_id, change, at)
  select g.tenant_id, g.user_id,
    h.seq - h.n + row_number() over (partition by g.tenant_id, g.user_id order by g.seq), g.notification_id,
    'removed', ${at}
  from gone g join head h on h.tenant_id = g.tenant_id and h.user_id = g.user_id
)
insert into alert_messages as m (tenant_id, key, user_id, notification_id, priority, at)
select t, k, u, n, p, ${at} from given where last order by t, k collate "C", u collate "C"
on conflict (tenant_id, key, user_id) do update
set notification_id = excluded.notification_id, priority = excluded.priority, at = excluded.at`
}
