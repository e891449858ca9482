import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Channel, Id, JsonObject, Priority, TenantId } from '../types.ts'

export const LIMIT_SCOPES = ['tenant', 'channel', 'category', 'rule', 'user', 'address'] as const
export type LimitScope = (typeof LIMIT_SCOPES)[number]
export const LIMIT_WINDOWS = ['minute', 'hour', 'day', 'week', 'month', 'gap'] as const
export type LimitWindow = (typeof LIMIT_WINDOWS)[number]

/** At most `max` in each window, for each value of the scope: each user, each address, each category … */
export interface LimitDefinition {
  name: string
  scope: LimitScope
  /** Empty: every channel but the inbox, which no limit holds back. */
  channels: Channel[]
  /** Empty: every category. */
  categories: string[]
  /** 0: none at all. Of a gap: always 1. */
  max: number
  window: LimitWindow
  /** Of a gap: nothing for so long after the one before. */
  gapSeconds: number | null
  per: 'delivery' | 'notification'
  overflow: 'hold' | 'skip' | 'digest'
  criticalPasses: boolean
  /** How much of `max` messages of a priority may use up, 0 to 1; what is not named may use all of it. */
  shares: Partial<Record<Priority, number>>
  enabled: boolean
}

export interface StoredLimit extends LimitDefinition {
  id: Id
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
  max: number
  window_kind: LimitWindow
  gap_seconds: number | null
  per: 'delivery' | 'notification'
  overflow: 'hold' | 'skip' | 'digest'
  critical_passes: boolean
  shares: Partial<Record<Priority, number>>
  enabled: boolean
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
  max: row.max,
  window: row.window_kind,
  gapSeconds: row.gap_seconds,
  per: row.per,
  overflow: row.overflow,
  criticalPasses: row.critical_passes,
  shares: row.shares,
  enabled: row.enabled,
  revision: row.revision,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

/** Each delivery is held against all of them. */
export const MAX_LIMITS = 200

export const LIMIT_COLUMNS = `tenant_id, id, name, scope, channels, categories, max, window_kind, gap_seconds, per, overflow,
  critical_passes, shares, enabled, revision, created_at, updated_at`

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
     critical_passes, shares, enabled)
   select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14
   where (select count(*) from limits where tenant_id = $1) < ${MAX_LIMITS}
   returning ${LIMIT_COLUMNS}`,
)
const update = sql(
  'update_limit',
  `update limits set name = $3, scope = $4, channels = $5, categories = $6, max = $7, window_kind = $8,
     gap_seconds = $9, per = $10, overflow = $11, critical_passes = $12, shares = $13, enabled = $14,
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
