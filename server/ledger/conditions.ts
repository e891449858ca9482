import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { Id, TenantId } from '../types.ts'

/** What an escalation waits for not to happen, by `EscalationStep.unless` of a rule's policy. */
export type Condition = 'delivered' | 'seen' | 'read' | 'clicked' | 'acknowledged'

export interface Awaited {
  tenantId: TenantId
  /** The notification that somebody may react to. */
  notificationId: Id
  unless: Condition
}

// One row a question, in their order. Whoever acknowledged needs nothing more, whatever was waited for.
const reactions = sql(
  'escalation_reactions',
  `select w.n::int as n,
     exists (select from engagement e where e.tenant_id = w.tenant_id and e.notification_id = w.id and e.kind = 'acknowledged') as acknowledged,
     case w.condition
       when 'clicked' then
         exists (select from delivery_state s where s.tenant_id = w.tenant_id and s.notification_id = w.id and s.clicked_at is not null)
       when 'delivered' then
         exists (select from delivery_state s where s.tenant_id = w.tenant_id and s.notification_id = w.id and s.outcome = 0)
         or exists (select from attempts a where a.tenant_id = w.tenant_id and a.notification_id = w.id and a.final and a.outcome = 0)
       when 'seen' then
         exists (select from feed f where f.tenant_id = w.tenant_id and f.notification_id = w.id and (f.seen_at is not null or f.read_at is not null))
       when 'read' then
         exists (select from feed f where f.tenant_id = w.tenant_id and f.notification_id = w.id and f.read_at is not null)
       else false
     end as happened
   from unnest($1::int[], $2::uuid[], $3::text[]) with ordinality as w (tenant_id, id, condition, n)`,
)

/** For each question why the step is not needed any more, or null: in one statement for all of them. */
export async function reactionsTo(
  q: Queryable,
  awaited: readonly Awaited[],
): Promise<('acknowledged' | 'condition_met' | null)[]> {
  const found: ('acknowledged' | 'condition_met' | null)[] = awaited.map(() => null)
  if (awaited.length === 0) return found
  const rows = await q.rows<{ n: number; acknowledged: boolean; happened: boolean }>(reactions, [
    awaited.map(one => one.tenantId),
    awaited.map(one => one.notificationId),
    awaited.map(one => one.unless),
  ])
  for (const { n, acknowledged, happened } of rows) {
    found[n - 1] = acknowledged ? 'acknowledged' : happened ? 'condition_met' : null
  }
  return found
}
