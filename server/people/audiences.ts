import { type Db, type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { TenantId, UserId } from '../types.ts'
import type { AudienceKind, TopicLevel } from './facts.ts'

/** A group, role or topic: a named list of users. */
export interface Audience {
  name: string
  description: string
  createdAt: Date
}

export interface Subscription {
  name: string
  /** Means something for topics only; members of groups and roles have ALL. */
  level: TopicLevel
}

/** All of one user's memberships of one kind. */
export interface Memberships {
  userId: UserId
  kind: AudienceKind
  names: Subscription[]
}

export interface AudienceMember {
  userId: UserId
  level: TopicLevel
  since: Date
}

/** Rows one statement deletes, so that no transaction runs for minutes over a million members. */
const DELETED_AT_ONCE = 10_000

const columns = 'name, description, created_at as "createdAt"'
const insertAudience = sql(
  'insert_audience',
  `insert into audiences (tenant_id, kind, name, description) values ($1, $2, $3, $4)
   on conflict do nothing returning ${columns}`,
)
const insertNamed = sql(
  'insert_audiences',
  `insert into audiences (tenant_id, kind, name)
   select $1, i.kind, i.name from unnest($2::text[], $3::text[]) as i (kind, name) order by i.kind, i.name
   on conflict do nothing`,
)
const findOne = sql(
  'find_audience',
  `select ${columns} from audiences where tenant_id = $1 and kind = $2 and name = $3`,
)
const listAfter = sql(
  'list_audiences',
  `select ${columns} from audiences where tenant_id = $1 and kind = $2 and name > $3 order by name limit $4`,
)
const describe = sql(
  'describe_audience',
  `update audiences set description = $4 where tenant_id = $1 and kind = $2 and name = $3 returning ${columns}`,
)
const deleteOne = sql(
  'delete_audience',
  'delete from audiences where tenant_id = $1 and kind = $2 and name = $3',
)
const deleteSome = sql(
  'delete_some_members',
  `delete from memberships where tenant_id = $1 and kind = $2 and name = $3 and user_id in (
     select user_id from memberships where tenant_id = $1 and kind = $2 and name = $3
     order by user_id limit ${DELETED_AT_ONCE})`,
)
const listMembersAfter = sql(
  'list_members',
  `select user_id as "userId", level, created_at as since from memberships
   where tenant_id = $1 and kind = $2 and name = $3 and user_id > $4 order by user_id limit $5`,
)
const findUnknown = sql(
  'find_unknown_users',
  `select i.user_id from unnest($2::text[]) as i (user_id)
   where not exists (select from users u where u.tenant_id = $1 and u.user_id = i.user_id and u.erased_at is null)`,
)
// What is already so is not written again: no row version, no change noted.
const insertMembers = sql(
  'insert_members',
  `insert into memberships (tenant_id, kind, name, user_id, level)
   select $1, i.kind, i.name, i.user_id, i.level
   from unnest($2::text[], $3::text[], $4::text[], $5::text[]) as i (kind, name, user_id, level)
   order by i.kind, i.name, i.user_id
   on conflict (tenant_id, kind, name, user_id) do update set level = excluded.level
   where memberships.level <> excluded.level`,
)
const deleteMembers = sql(
  'delete_members',
  'delete from memberships where tenant_id = $1 and kind = $2 and name = $3 and user_id = any ($4)',
)
const deleteOthers = sql(
  'delete_other_memberships',
  `delete from memberships m using unnest($2::text[], $3::text[]) as r (user_id, kind)
   where m.tenant_id = $1 and m.user_id = r.user_id and m.kind = r.kind
     and (m.kind, m.name, m.user_id) not in (
       select k.kind, k.name, k.user_id from unnest($4::text[], $5::text[], $6::text[]) as k (kind, name, user_id))`,
)
const listOfUsers = sql(
  'list_memberships',
  `select user_id, kind, name, level from memberships where tenant_id = $1 and user_id = any ($2)
   order by user_id, kind, name`,
)

/** @throws AppError already_exists */
export async function createAudience(
  tx: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  { name, description = '' }: { name: string; description?: string },
): Promise<Audience> {
  const made = await tx.one<Audience>(insertAudience, [tenantId, kind, name, description])
  if (made === undefined)
    throw new AppError('already_exists', `There is a ${kind} of this name.`, { field: '/name' })
  return made
}

/** @throws AppError not_found */
export async function getAudience(
  q: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
): Promise<Audience> {
  const found = await q.one<Audience>(findOne, [tenantId, kind, name])
  if (found === undefined) throw noAudience(kind)
  return found
}

const noAudience = (kind: AudienceKind) => new AppError('not_found', `There is no such ${kind}.`)

/** By name, after `after`. */
export const listAudiences = (
  q: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  after: string | undefined,
  limit: number,
): Promise<Audience[]> => q.rows<Audience>(listAfter, [tenantId, kind, after ?? '', limit])

/** @throws AppError not_found */
export async function describeAudience(
  tx: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
  description: string,
): Promise<Audience> {
  const changed = await tx.one<Audience>(describe, [tenantId, kind, name, description])
  if (changed === undefined) throw noAudience(kind)
  return changed
}

/**
 * Empties the audience a bounded number of members at a time, then deletes it with `last` in one transaction.
 * Interrupted, it is left with fewer members, and deleting it again goes on.
 *
 * @throws AppError not_found
 */
export async function deleteAudience(
  db: Db,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
  last: (tx: Queryable) => Promise<void>,
): Promise<void> {
  await getAudience(db, tenantId, kind, name)
  while ((await db.run(deleteSome, [tenantId, kind, name])) === DELETED_AT_ONCE);
  await db.tx(async tx => {
    if ((await tx.run(deleteOne, [tenantId, kind, name])) === 0) throw noAudience(kind)
    await last(tx)
  })
}

/** By user id, after `after`; those who set a topic to NONE are listed with that level. */
export async function listMembers(
  q: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
  after: UserId | undefined,
  limit: number,
): Promise<AudienceMember[]> {
  const members = await q.rows<AudienceMember>(listMembersAfter, [tenantId, kind, name, after ?? '', limit])
  if (members.length === 0 && after === undefined) await getAudience(q, tenantId, kind, name)
  return members
}

/**
 * Makes these users members, or sets their level. Users nobody knows are left out and named.
 *
 * @returns how many rows are new or changed
 * @throws AppError not_found when there is no such audience
 */
export async function addMembers(
  tx: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
  userIds: readonly UserId[],
  level: TopicLevel = 'ALL',
): Promise<{ changed: number; unknown: UserId[] }> {
  await getAudience(tx, tenantId, kind, name)
  const ids = [...new Set(userIds)]
  const unknown = (await tx.rows<{ user_id: UserId }>(findUnknown, [tenantId, ids])).map(row => row.user_id)
  const left = new Set(unknown)
  const known = ids.filter(id => !left.has(id))
  const changed = await tx.run(insertMembers, [
    tenantId,
    known.map(() => kind),
    known.map(() => name),
    known,
    known.map(() => level),
  ])
  return { changed, unknown }
}

/** @throws AppError not_found when there is no such audience */
export async function removeMembers(
  tx: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  name: string,
  userIds: readonly UserId[],
): Promise<number> {
  await getAudience(tx, tenantId, kind, name)
  return tx.run(deleteMembers, [tenantId, kind, name, userIds])
}

/**
 * Makes these the users' memberships of these kinds, and makes audiences that are named for the first time. The
 * caller holds the locks of the users' rows.
 */
export async function replaceMemberships(
  tx: Queryable,
  tenantId: TenantId,
  wanted: readonly Memberships[],
): Promise<void> {
  if (wanted.length === 0) return
  const rows = wanted.flatMap(({ userId, kind, names }) =>
    names.map(({ name, level }) => ({ kind, name, userId, level })),
  )
  await makeAudiences(tx, tenantId, rows)
  await tx.run(deleteOthers, [
    tenantId,
    wanted.map(w => w.userId),
    wanted.map(w => w.kind),
    rows.map(r => r.kind),
    rows.map(r => r.name),
    rows.map(r => r.userId),
  ])
  // The same group twice in one list is one membership; one statement cannot touch a row twice.
  const once = [
    ...new Map(rows.map(row => [`${row.kind} ${row.userId.length} ${row.userId} ${row.name}`, row])).values(),
  ]
  if (once.length === 0) return
  await tx.run(insertMembers, [
    tenantId,
    once.map(r => r.kind),
    once.map(r => r.name),
    once.map(r => r.userId),
    once.map(r => r.level),
  ])
}

/** Those that exist already stay as they are. */
export async function makeAudiences(
  tx: Queryable,
  tenantId: TenantId,
  audiences: readonly { kind: AudienceKind; name: string }[],
): Promise<void> {
  const once = [
    ...new Map(audiences.map(audience => [`${audience.kind} ${audience.name}`, audience])).values(),
  ]
  if (once.length > 0) await tx.run(insertNamed, [tenantId, once.map(a => a.kind), once.map(a => a.name)])
}

/**
 * Sets one user's level of some topics that exist; a level of null ends the subscription. The caller holds the
 * lock of the user's row.
 *
 * @throws AppError not_found, naming the first topic that does not exist
 */
export async function subscribe(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  levels: ReadonlyMap<string, TopicLevel | null>,
): Promise<void> {
  const set = [...levels].filter((entry): entry is [string, TopicLevel] => entry[1] !== null)
  const ended = [...levels].filter(([, level]) => level === null).map(([name]) => name)
  if (ended.length > 0) await tx.run(deleteSubscriptions, [tenantId, userId, ended])
  if (set.length === 0) return
  const known = new Set(
    (await tx.rows<{ name: string }>(findTopics, [tenantId, set.map(([name]) => name)])).map(r => r.name),
  )
  const missing = set.find(([name]) => !known.has(name))
  if (missing !== undefined) throw new AppError('not_found', `There is no topic "${missing[0]}".`)
  await tx.run(insertMembers, [
    tenantId,
    set.map(() => 'topic'),
    set.map(([name]) => name),
    set.map(() => userId),
    set.map(([, level]) => level),
  ])
}

const deleteSubscriptions = sql(
  'delete_subscriptions',
  `delete from memberships where tenant_id = $1 and kind = 'topic' and user_id = $2 and name = any ($3)`,
)
const findTopics = sql(
  'find_topics',
  `select name from audiences where tenant_id = $1 and kind = 'topic' and name = any ($2)`,
)

export async function listMemberships(
  q: Queryable,
  tenantId: TenantId,
  userIds: readonly UserId[],
): Promise<Map<UserId, Record<AudienceKind, Subscription[]>>> {
  const found = new Map<UserId, Record<AudienceKind, Subscription[]>>()
  const rows = await q.rows<{ user_id: UserId; kind: AudienceKind } & Subscription>(listOfUsers, [
    tenantId,
    userIds,
  ])
  for (const { user_id, kind, name, level } of rows) {
    let of = found.get(user_id)
    if (of === undefined) found.set(user_id, (of = { group: [], role: [], topic: [] }))
    of[kind].push({ name, level })
  }
  return found
}
