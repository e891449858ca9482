import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Channel, Id, JsonObject, Priority, TenantId } from '../types.ts'

export const LIMIT_SCOPES = [
  'tenant',
  'channel',
  'category',
  'rule',
  'user',
  'user_channel',
  'address',
  'content',
] as const
export type LimitScope = (typeof LIMIT_SCOPES)[number]
export const LIMIT_WINDOWS = ['minute', 'hour', 'day', 'week', 'month', 'gap'] as const
export type LimitWindow = (typeof LIMIT_WINDOWS)[number]
/** What one that is over is said to be, where it is more than a limit. */
export const LIMIT_REASONS = ['channel_not_allowed', 'spam', 'throttled', 'attention'] as const
export type LimitReason = (typeof LIMIT_REASONS)[number]
/** Plans that sets of limits know. The reader's own stands in their attribute `tier`. */
export const TIERS = ['free', 'personal', 'family', 'business'] as const
/** Readers whose tier is none of these, or not said. */
export const OTHER_TIER = 'other'

/** At most `max` in each window, for each value of the scope: each user, each address, each category … */
export interface LimitDefinition {
  name: string
  scope: LimitScope
  /** Empty: every channel but the inbox, which no limit holds back. */
  channels: Channel[]
  /** Empty: every category. */
  categories: string[]
  /** Empty: every type; `orders.*` is all that begin so. */
  eventTypes: string[]
  /** Empty: whatever plan the reader has; `other`: none of `TIERS`. */
  tiers: string[]
  /** 0: none at all. Of a gap: always 1. */
  max: number
  /** As how many of `max` one delivery counts, by channel; 1 where nothing is said. */
  costs: Partial<Record<Channel, number>>
  window: LimitWindow
  /** So many minutes or hours together. */
  every: number
  /** Of a gap: nothing for so long after the one before. */
  gapSeconds: number | null
  per: 'delivery' | 'notification'
  overflow: 'hold' | 'skip' | 'digest'
  criticalPasses: boolean
  /** How much of `max` messages of a priority may use up, 0 to 1; what is not named may use all of it. */
  shares: Partial<Record<Priority, number>>
  reason: LimitReason | null
  enabled: boolean
}

export interface StoredLimit extends LimitDefinition {
  id: Id
  /** The set that it was switched on with. */
  set: string | null
  revision: number
  createdAt: Date
  updatedAt: Date
}

export interface LimitRow {
  tenant_id: TenantId
  id: Id
  name: string
  scope: LimitScope
  channels: Channel[]
  categories: string[]
  event_types: string[]
  tiers: string[]
  max: number
  costs: Partial<Record<Channel, number>>
  window_kind: LimitWindow
  every: number
  gap_seconds: number | null
  per: 'delivery' | 'notification'
  overflow: 'hold' | 'skip' | 'digest'
  critical_passes: boolean
  shares: Partial<Record<Priority, number>>
  reason: LimitReason | null
  enabled: boolean
  set_name: string | null
  revision: number
  created_at: Date
  updated_at: Date
}

export const limitOf = (row: LimitRow): StoredLimit => ({
  id: row.id,
  name: row.name,
  scope: row.scope,
  channels: row.channels,
  categories: row.categories,
  eventTypes: row.event_types,
  tiers: row.tiers,
  max: row.max,
  costs: row.costs,
  window: row.window_kind,
  every: row.every,
  gapSeconds: row.gap_seconds,
  per: row.per,
  overflow: row.overflow,
  criticalPasses: row.critical_passes,
  shares: row.shares,
  reason: row.reason,
  enabled: row.enabled,
  set: row.set_name,
  revision: row.revision,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

/** Each delivery is held against all of them. */
export const MAX_LIMITS = 200

export const LIMIT_COLUMNS = `tenant_id, id, name, scope, channels, categories, max, window_kind, gap_seconds, per, overflow,
  critical_passes, shares, enabled, revision, created_at, updated_at, event_types, tiers, costs, every, reason, set_name`

const find = sql('find_limit', `select ${LIMIT_COLUMNS} from limits where tenant_id = $1 and id = $2`)
const lock = sql(
  'lock_limit',
  `select ${LIMIT_COLUMNS} from limits where tenant_id = $1 and id = $2 for update`,
)
const list = sql(
  'list_limits',
  `select ${LIMIT_COLUMNS} from limits where tenant_id = $1 and ($2::uuid is null or id < $2) order by id desc limit $3`,
)
const insert = sql(
  'insert_limit',
  `insert into limits (tenant_id, id, name, scope, channels, categories, max, window_kind, gap_seconds, per, overflow,
     critical_passes, shares, enabled, event_types, tiers, costs, every, reason)
   select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19
   where (select count(*) from limits where tenant_id = $1) < ${MAX_LIMITS}
   returning ${LIMIT_COLUMNS}`,
)
const update = sql(
  'update_limit',
  `update limits set name = $3, scope = $4, channels = $5, categories = $6, max = $7, window_kind = $8,
     gap_seconds = $9, per = $10, overflow = $11, critical_passes = $12, shares = $13, enabled = $14,
     event_types = $15, tiers = $16, costs = $17, every = $18, reason = $19,
     revision = revision + 1, updated_at = now()
   where tenant_id = $1 and id = $2 returning ${LIMIT_COLUMNS}`,
)
const remove = sql('delete_limit', `delete from limits where tenant_id = $1 and id = $2 returning name`)

const values = (tenantId: TenantId, id: Id, limit: LimitDefinition): unknown[] => [
  tenantId,
  id,
  limit.name,
  limit.scope,
  limit.channels,
  limit.categories,
  limit.max,
  limit.window,
  limit.gapSeconds,
  limit.per,
  limit.overflow,
  limit.criticalPasses,
  JSON.stringify(limit.shares),
  limit.enabled,
  limit.eventTypes,
  limit.tiers,
  JSON.stringify(limit.costs),
  limit.every,
  limit.reason,
]

const none = () => new AppError('not_found', 'There is no limit with this id.')

export async function findLimit(q: Queryable, tenantId: TenantId, id: Id): Promise<StoredLimit> {
  const row = await q.one<LimitRow>(find, [tenantId, id])
  if (!row) throw none()
  return limitOf(row)
}

/** Newest first, after the limit `after`. */
export const listLimits = async (
  q: Queryable,
  tenantId: TenantId,
  after: Id | null,
  limit: number,
): Promise<StoredLimit[]> => (await q.rows<LimitRow>(list, [tenantId, after, limit])).map(limitOf)

const listAll = sql(
  'list_all_limits',
  `select ${LIMIT_COLUMNS} from limits where tenant_id = $1 order by id limit ${MAX_LIMITS}`,
)

/** All of a tenant, the first one first. */
export const allLimits = async (q: Queryable, tenantId: TenantId): Promise<StoredLimit[]> =>
  (await q.rows<LimitRow>(listAll, [tenantId])).map(limitOf)

/** @throws AppError already_exists for a name in use; conflict beyond MAX_LIMITS */
export async function createLimit(tx: Tx, actor: Actor, limit: LimitDefinition): Promise<StoredLimit> {
  const row = await named(limit.name, () => tx.one<LimitRow>(insert, values(actor.tenantId, newId(), limit)))
  if (!row) throw new AppError('conflict', `There are ${MAX_LIMITS} limits already.`)
  await audit(tx, actor, {
    action: 'limit.created',
    objectKind: 'limit',
    objectId: row.id,
    details: { after: { ...limit } },
  })
  return limitOf(row)
}

const removeSet = sql(
  'delete_limit_set',
  `delete from limits where tenant_id = $1 and set_name = $2 and not name = any ($3) returning name`,
)
// By name, so that what a limit has counted stays counted when its set is switched on again.
const upsertSet = sql(
  'upsert_limit_set',
  `insert into limits as l (tenant_id, id, name, scope, channels, categories, max, window_kind, gap_seconds, per,
     overflow, critical_passes, shares, enabled, event_types, tiers, costs, every, reason, set_name)
   select $1, x.id, x.name, x.scope, x.channels, x.categories, x.max, x.window, x."gapSeconds", x.per,
     x.overflow, x."criticalPasses", x.shares, x.enabled, x."eventTypes", x.tiers, x.costs, x.every, x.reason, $2
   from jsonb_to_recordset($3) as x (id uuid, name text, scope text, channels text[], categories text[], max int,
     "window" text, "gapSeconds" int, per text, overflow text, "criticalPasses" boolean, shares jsonb,
     enabled boolean, "eventTypes" text[], tiers text[], costs jsonb, every int, reason text)
   on conflict (tenant_id, name) do update set scope = excluded.scope, channels = excluded.channels,
     categories = excluded.categories, max = excluded.max, window_kind = excluded.window_kind,
     gap_seconds = excluded.gap_seconds, per = excluded.per, overflow = excluded.overflow,
     critical_passes = excluded.critical_passes, shares = excluded.shares, enabled = excluded.enabled,
     event_types = excluded.event_types, tiers = excluded.tiers, costs = excluded.costs, every = excluded.every,
     reason = excluded.reason, revision = l.revision + 1, updated_at = now()
     where l.set_name = $2
   returning ${LIMIT_COLUMNS}`,
)
const countLimits = sql('count_limits', `select count(*)::int as n from limits where tenant_id = $1`)
const listSets = sql(
  'list_limit_sets',
  `select ${LIMIT_COLUMNS} from limits where tenant_id = $1 and set_name is not null
   order by set_name, name limit ${MAX_LIMITS}`,
)

/** The limits of all sets, by name. */
export const limitsOfSets = async (q: Queryable, tenantId: TenantId): Promise<StoredLimit[]> =>
  (await q.rows<LimitRow>(listSets, [tenantId])).map(limitOf)

/**
 * Makes the limits of a set these: those that are there are changed and go on counting, others are lifted. None: the
 * set is switched off.
 *
 * @throws AppError already_exists when another limit has one of the names; conflict beyond MAX_LIMITS; not_found when
 *   a set is switched off that is not on
 */
export async function replaceSet(
  tx: Tx,
  actor: Actor,
  set: string,
  limits: readonly LimitDefinition[],
): Promise<StoredLimit[]> {
  const { tenantId } = actor
  const gone = await tx.rows<{ name: string }>(removeSet, [tenantId, set, limits.map(({ name }) => name)])
  if (limits.length === 0 && gone.length === 0) throw new AppError('not_found', `The set "${set}" is not on.`)
  const rows = await tx.rows<LimitRow>(upsertSet, [
    tenantId,
    set,
    JSON.stringify(limits.map(limit => ({ ...limit, id: newId() }))),
  ])
  if (rows.length < limits.length) {
    const made = new Set(rows.map(({ name }) => name))
    const taken = limits.find(({ name }) => !made.has(name))!.name
    throw new AppError('already_exists', `There is a limit called "${taken}" already.`, { field: '/name' })
  }
  if ((await tx.one<{ n: number }>(countLimits, [tenantId]))!.n > MAX_LIMITS) {
    throw new AppError('conflict', `No more than ${MAX_LIMITS} limits can be set.`)
  }
  await audit(tx, actor, {
    action: 'limit_set.changed',
    objectKind: 'limit_set',
    objectId: set,
    details: {
      limits: limits.map(({ name, max }) => ({ name, max })),
      lifted: gone.map(({ name }) => name),
    },
  })
  return rows.map(limitOf)
}

/** What was counted stays counted. @throws AppError not_found; already_exists for a name in use */
export async function updateLimit(
  tx: Tx,
  actor: Actor,
  id: Id,
  limit: LimitDefinition,
): Promise<StoredLimit> {
  const before = await tx.one<LimitRow>(lock, [actor.tenantId, id])
  if (!before) throw none()
  const row = await named(limit.name, () => tx.one<LimitRow>(update, values(actor.tenantId, id, limit)))
  await audit(tx, actor, {
    action: 'limit.updated',
    objectKind: 'limit',
    objectId: id,
    details: { before: JSON.parse(JSON.stringify(limitOf(before))) as JsonObject, after: { ...limit } },
  })
  return limitOf(row!)
}

/** @throws AppError not_found */
export async function deleteLimit(tx: Tx, actor: Actor, id: Id): Promise<void> {
  const row = await tx.one<{ name: string }>(remove, [actor.tenantId, id])
  if (!row) throw none()
  await audit(tx, actor, {
    action: 'limit.deleted',
    objectKind: 'limit',
    objectId: id,
    details: { name: row.name },
  })
}

async function named<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if ((error as { constraint?: string }).constraint !== 'limits_name') throw error
    throw new AppError('already_exists', `There is a limit called "${name}" already.`, { field: '/name' })
  }
}
