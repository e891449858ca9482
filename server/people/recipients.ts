import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { TenantId, UserId } from '../types.ts'
import type { AudienceKind, TopicLevel } from './facts.ts'

/** The named audiences of one selector, to be expanded into people. */
export interface AudienceWish {
  tenantId: TenantId
  names: readonly { kind: AudienceKind; name: string }[]
}

export type Level = Exclude<TopicLevel, 'NONE'>

/** People by id; the strongest level that brought each of them in. Null: more than the limit. */
export type Audience = Map<UserId, Level>

const expand = sql(
  'expand_audiences',
  `select n.wish::int as wish, m.user_id, m.level
   from unnest($1::int[], $2::int[], $3::text[], $4::text[]) as n (wish, tenant_id, kind, name)
   cross join lateral (
     select user_id, level from memberships
     where tenant_id = n.tenant_id and kind = n.kind and name = n.name and level <> 'NONE'
     order by user_id limit $5
   ) m`,
)

/**
 * Who is in these audiences, in one statement for all wishes. An audience of more than `limit` people comes back
 * as null: it is walked in chunks by a worker (`audienceChunk`), not held in memory.
 */
export async function expandAudiences(
  q: Queryable,
  wishes: readonly AudienceWish[],
  limit: number,
): Promise<(Audience | null)[]> {
  const names = wishes.flatMap((wish, at) =>
    wish.names.map(name => ({ at, tenantId: wish.tenantId, ...name })),
  )
  const found: Audience[] = wishes.map(() => new Map())
  if (names.length > 0) {
    const rows = await q.rows<{ wish: number; user_id: string; level: Level }>(expand, [
      names.map(name => name.at),
      names.map(name => name.tenantId),
      names.map(name => name.kind),
      names.map(name => name.name),
      limit + 1,
    ])
    for (const { wish, user_id, level } of rows) {
      if (level === 'ALL' || !found[wish]!.has(user_id)) found[wish]!.set(user_id, level)
    }
  }
  return found.map(audience => (audience.size > limit ? null : audience))
}

const chunk = sql(
  'audience_chunk',
  `select user_id, case when bool_or(level = 'ALL') then 'ALL' else 'IMPORTANT' end as level
   from (
     select u.user_id, 'ALL' as level from unnest($4::text[]) as u (user_id) where u.user_id > $5
     union all
     select m.user_id, m.level
     from unnest($2::text[], $3::text[]) as n (kind, name)
     cross join lateral (
       select user_id, level from memberships
       where tenant_id = $1 and kind = n.kind and name = n.name and user_id > $5 and level <> 'NONE'
       order by user_id limit $6
     ) m
   ) together
   group by user_id order by user_id limit $6`,
)

/** The next people of a selector after `after`, in the database's order of user ids. */
export const audienceChunk = (
  q: Queryable,
  wish: AudienceWish,
  users: readonly UserId[],
  after: UserId,
  limit: number,
): Promise<{ user_id: UserId; level: Level }[]> =>
  q.rows(chunk, [
    wish.tenantId,
    wish.names.map(name => name.kind),
    wish.names.map(name => name.name),
    users,
    after,
    limit,
  ])

// Person by person: asked for all of them together, PostgreSQL would rather walk all that was written since the event,
// and each chunk of a large audience would be slower than the one before.
const told = sql(
  'already_told',
  `select n.recipient_id, n.rule_id
   from unnest($3::text[]) as p (id)
   cross join lateral (
     select recipient_id, rule_id from notifications
     where tenant_id = $1 and recipient_id = p.id and id > $2 and event_id = $2
     offset 0 -- keeps it a question of its own
   ) n`,
)

/** Which of these people a rule has told about this event already. A notification's id is above its event's. */
export async function alreadyTold(
  q: Queryable,
  tenantId: TenantId,
  eventId: string,
  people: readonly UserId[],
): Promise<Set<string>> {
  const rows = await q.rows<{ recipient_id: string; rule_id: string | null }>(told, [
    tenantId,
    eventId,
    people,
  ])
  return new Set(rows.map(row => `${row.rule_id ?? ''} ${row.recipient_id}`))
}
