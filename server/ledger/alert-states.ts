import pg from 'pg'
import type { PlannedAlert, PlannedEvent } from './plan.ts'

/**
 * The statement that remembers how the alerts of a batch stand, for the script of the commit; empty when it speaks
 * of none. The latest word at the producer counts, in whatever order words arrive. Rows are taken in the order of
 * their keys, so that two batches wait for each other in one direction only.
 */
export function alertScript(plans: Iterable<PlannedEvent>, nowMs: number): string {
  const alerts = new Map<string, { plan: PlannedEvent; alert: PlannedAlert }>()
  for (const plan of plans) {
    for (const alert of plan.alerts ?? []) {
      const name = `${plan.event.tenantId} ${alert.key}`
      const before = alerts.get(name)
      if (before === undefined || alert.at >= before.alert.at) alerts.set(name, { plan, alert })
    }
  }
  if (alerts.size === 0) return ''
  const rows = [...alerts.values()].map(({ plan, alert }) => ({
    t: plan.event.tenantId,
    k: alert.key,
    r: alert.ruleId ?? null,
    s: alert.status,
    l: alert.labels,
    e: plan.event.id,
    at: alert.at.toISOString(),
    b: alert.startedAt.toISOString(),
    u: alert.endsAt?.toISOString() ?? null,
  }))
  return `insert into alert_states as a (tenant_id, key, rule_id, status, labels, event_id, at, started_at, ends_at, updated_at)
select t, k, r, s, l, e, at, b, u, '${new Date(nowMs).toISOString()}'
from json_to_recordset(${pg.escapeLiteral(JSON.stringify(rows))}::json)
  as x (t int, k text, r uuid, s text, l jsonb, e uuid, at timestamptz, b timestamptz, u timestamptz)
order by t, k collate "C"
on conflict (tenant_id, key) do update set status = excluded.status, labels = excluded.labels,
  event_id = excluded.event_id, at = excluded.at, started_at = excluded.started_at, ends_at = excluded.ends_at,
  updated_at = excluded.updated_at
where excluded.at >= a.at`
}
