import { sql } from '../db/pool.ts'
import type { Tx } from '../db/pool.ts'
import type { Standing } from '../decide/candidate.ts'
import type { Id, TenantId } from '../types.ts'

/** So many alerts of one group are remembered for its next message: the newest. */
export const MAX_TOLD = 1_000

/** A digest that gathers the alerts of a group, as its rule says. */
export interface GroupSpec {
  intervalSeconds?: number
  /** Told again so long after its last message, as long as something fires. */
  repeatSeconds?: number
}

export interface MemberRow {
  tenant_id: TenantId
  digest_id: Id
  id: Id
  event_id: Id
  event_type: string
  priority: number
  category: string
  created_at: Date
  content: Buffer
  /** null: the event says nothing of an alert, or there was a later word about it. */
  firing: boolean | null
}

/** How a group stands when its time has come. */
export interface GroupState {
  /** Its rule is in force: else nobody wants to hear of it again. */
  alive: boolean
  /** Told before, in the order of their making. */
  members: MemberRow[]
  /** Of the items that it holds now, by notification. */
  firing: ReadonlyMap<Id, boolean | null>
  /** The alert was told of in a message, and nobody has to hear of it now. */
  standing(eventId: Id): Standing | null
}

// By the index of digests that were told (0006_groups.sql).
const lastTold = sql(
  'last_told_of_group',
  `select d.tenant_id, d.id, t.told,
     exists (
       select from rules r
       where r.tenant_id = d.tenant_id and r.id = d.rule_id and r.enabled and r.deleted_at is null
     ) as alive
   from unnest($1::int[], $2::uuid[]) as w (tenant_id, id)
   join digests d on d.tenant_id = w.tenant_id and d.id = w.id
   left join lateral (
     select p.told from digests p
     where p.tenant_id = d.tenant_id and p.recipient_id = d.recipient_id and p.channel = d.channel and p.key = d.key
       and p.state in ('closed', 'released')
     order by p.closed_at desc limit 1
   ) t on true`,
)
const loadMembers = sql(
  'members_of_groups',
  `select w.tenant_id, w.digest_id, n.id, n.event_id, n.event_type, n.priority, n.category, n.created_at, n.content,
     (
       select bool_or(a.status = 'firing' and (a.ends_at is null or a.ends_at > $4))
       from alert_states a where a.tenant_id = n.tenant_id and a.event_id = n.event_id
     ) as firing
   from unnest($1::int[], $2::uuid[], $3::uuid[]) as w (tenant_id, digest_id, id)
   join notifications n on n.tenant_id = w.tenant_id and n.id = w.id
   order by n.id`,
)

export type StandingAgain = (
  asked: readonly { tenantId: TenantId; eventId: Id }[],
  now: Date,
) => Promise<(eventId: Id) => Standing | null>

/** How these groups stand, by digest, in three statements for all of them. */
export async function groupStates(
  tx: Tx,
  groups: readonly { tenant_id: TenantId; id: Id }[],
  items: readonly { tenant_id: TenantId; digest_id: Id; id: Id }[],
  standingAgain: StandingAgain | undefined,
  now: Date,
): Promise<Map<Id, GroupState>> {
  const found = new Map<Id, GroupState>()
  if (groups.length === 0) return found
  const told = await tx.rows<{ tenant_id: TenantId; id: Id; told: Id[] | null; alive: boolean }>(lastTold, [
    groups.map(group => group.tenant_id),
    groups.map(group => group.id),
  ])
  const ofGroups = new Set(groups.map(group => group.id))
  const wanted = [
    ...told.flatMap(row => (row.told ?? []).map(id => ({ tenant_id: row.tenant_id, digest_id: row.id, id }))),
    ...items.filter(item => ofGroups.has(item.digest_id)),
  ]
  const rows =
    wanted.length === 0
      ? []
      : await tx.rows<MemberRow>(loadMembers, [
          wanted.map(one => one.tenant_id),
          wanted.map(one => one.digest_id),
          wanted.map(one => one.id),
          now,
        ])
  const asked = rows
    .filter(row => row.firing === true)
    .map(row => ({ tenantId: row.tenant_id, eventId: row.event_id }))
  const standing =
    standingAgain === undefined || asked.length === 0 ? () => null : await standingAgain(asked, now)
  const byDigest = Map.groupBy(rows, row => row.digest_id)
  for (const { id, told: earlier, alive } of told) {
    const before = new Set(earlier)
    const all = byDigest.get(id) ?? []
    found.set(id, {
      alive,
      members: all.filter(row => before.has(row.id)),
      firing: new Map(all.map(row => [row.id, row.firing])),
      standing,
    })
  }
  return found
}

/** What is remembered of a group with its message: null where it is not about alerts at all. */
export function toldOf({ members, firing }: GroupState): Id[] | null {
  if (members.length === 0 && [...firing.values()].every(one => one === null)) return null
  return [...firing]
    .filter(([, fires]) => fires === true)
    .map(([id]) => id)
    .sort()
    .slice(-MAX_TOLD)
}
