import pg from 'pg'
import { newId } from '../db/ids.ts'
import type { PlannedNotification } from './plan.ts'
import { CHANNEL_CODE, RECIPIENT_CODE } from './rows.ts'

/** When a job that waits for its digest would be due: never by itself. The digest ends it. */
export const COLLECTED_RUN_AT_MS = Date.parse('9999-01-01T00:00:00Z')

/**
 * The statement that puts the collected deliveries of a batch into their open digests, opening those that are not
 * there. A digest that closes at the same moment is either seen open, and then holds the item before it closes, or
 * seen closed, and then a new one is opened: the partial unique index decides, no lock of ours.
 *
 * Empty when nothing is collected.
 */
export function collectScript(notifications: Iterable<PlannedNotification>, nowMs: number): string {
  const groups = new Map<string, Record<string, unknown> & { n: number }>()
  const items: Record<string, unknown>[] = []
  for (const notification of notifications) {
    for (const { channel, wish } of notification.collects) {
      const { tenantId, recipientId } = notification
      const name = `${tenantId} ${CHANNEL_CODE[channel]} ${recipientId.length} ${recipientId} ${wish.key}`
      const known = groups.get(name)
      if (known) known.n++
      else {
        groups.set(name, {
          t: tenantId,
          id: newId(nowMs),
          rt: RECIPIENT_CODE[notification.recipientType],
          r: recipientId,
          c: CHANNEL_CODE[channel],
          k: wish.key,
          rule: wish.ruleId,
          reason: wish.reason,
          now: new Date(nowMs).toISOString(),
          closes: wish.closesAt.toISOString(),
          latest: wish.latestAt.toISOString(),
          quiet: wish.quietSeconds,
          most: wish.maxItems,
          spec: wish.spec,
          n: 1,
        })
      }
      items.push({ t: tenantId, r: recipientId, c: CHANNEL_CODE[channel], k: wish.key, n: notification.id })
    }
  }
  if (items.length === 0) return ''
  return `with taken as (
  insert into digests as d (tenant_id, id, recipient_type, recipient_id, channel, key, rule_id, reason, opened_at,
    closes_at, latest_at, quiet_seconds, max_items, items, spec)
  select t, id, rt, r, c, k, rule, reason, now, case when n >= most then now else coalesce(next, closes) end,
    greatest(latest, next), quiet, most, n, spec
  from json_to_recordset(${pg.escapeLiteral(JSON.stringify([...groups.values()]))}::json) as g (t int, id uuid, rt int2,
    r text, c int2, k text, rule uuid, reason text, now timestamptz, closes timestamptz, latest timestamptz, quiet int,
    most int, n int, spec jsonb)
  -- A group that was told about less than its interval ago, and is not over: from then, not from now.
  left join lateral (
    select d.closed_at + (spec ->> 'intervalSeconds')::int * interval '1 second' as next from digests d
    where spec ? 'intervalSeconds' and d.tenant_id = t and d.recipient_id = r and d.channel = c and d.key = k
      and d.state in ('closed', 'released') and d.told is distinct from '{}'
      and d.closed_at > now - (spec ->> 'intervalSeconds')::int * interval '1 second'
    order by d.closed_at desc limit 1
  ) told on true
  order by t, r, c, k
  on conflict (tenant_id, recipient_id, channel, key) where state = 'open' do update
  -- One without items waits to tell a group again: what is new comes first, and tells of the rest anew.
  set items = d.items + excluded.items,
    opened_at = case when d.items = 0 then excluded.opened_at else d.opened_at end,
    latest_at = case when d.items = 0 then excluded.latest_at else d.latest_at end,
    spec = case when d.items = 0 then excluded.spec else d.spec end,
    closes_at = case
      when d.items + excluded.items >= d.max_items then least(d.closes_at, excluded.opened_at)
      when d.items = 0 then excluded.closes_at
      when d.quiet_seconds is not null then
        least(d.latest_at, excluded.opened_at + d.quiet_seconds * interval '1 second')
      else d.closes_at end
  returning tenant_id, id, recipient_id, channel, key
)
insert into digest_items (tenant_id, notification_id, channel, digest_id, added_at)
select i.t, i.n, i.c, taken.id, '${new Date(nowMs).toISOString()}'
from json_to_recordset(${pg.escapeLiteral(JSON.stringify(items))}::json) as i (t int, r text, c int2, k text, n uuid)
join taken on taken.tenant_id = i.t and taken.recipient_id = i.r and taken.channel = i.c and taken.key = i.k`
}
