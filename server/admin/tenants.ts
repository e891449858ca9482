import { type Db, type Queryable, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import type { Caller } from '../http/api.ts'
import { OPERATOR_TENANT_ID } from '../http/auth.ts'
import type { TenantId } from '../types.ts'
import { type Actor, audit } from './audit.ts'
import { createKey } from './keys.ts'

/**
 * The first tenant belongs to whoever runs the installation: its admins, and no others, make, list and disable
 * tenants. They do not see into them: every other route serves only the caller's own tenant.
 */
export const OPERATOR_TENANT = 'default'

export interface Tenant {
  id: TenantId
  /** Names the tenant in tokens and commands; never changes. */
  name: string
  displayName: string
  enabled: boolean
  /** BCP 47: what texts are in where the reader's language is missing; null: as each template is written. */
  locale: string | null
  createdAt: Date
}

const columns = 'id, name, display_name as "displayName", enabled, locale, created_at as "createdAt"'

const insertTenant = sql(
  'insert_tenant',
  `insert into tenants (name, display_name, data_key) values ($1, $2, $3)
   on conflict (name) do nothing returning ${columns}`,
)
const insertFirst = sql(
  'insert_first_tenant',
  `insert into tenants (id, name, display_name, data_key) values (${OPERATOR_TENANT_ID}, $1, $2, $3)
   on conflict do nothing returning id`,
)
// The id above was not drawn from the sequence, whose first number it is.
const skipFirst = sql(
  'skip_first_tenant_id',
  `select setval(pg_get_serial_sequence('tenants', 'id'), greatest($1::bigint, last_value)) from tenants_id_seq`,
)
const findFirst = sql('find_first_tenant', `select ${columns} from tenants where id = $1`)
const listAfter = sql('list_tenants', `select ${columns} from tenants where id > $1 order by id limit $2`)
const lockByName = sql('lock_tenant_by_name', `select ${columns} from tenants where name = $1 for update`)
const updateById = sql(
  'update_tenant',
  `update tenants set display_name = $2, enabled = $3, locale = $4 where id = $1 returning ${columns}`,
)

/**
 * A new tenant with a data key of its own.
 *
 * @throws AppError already_exists
 */
export async function createTenant(
  tx: Queryable,
  sealer: Pick<Sealer, 'newDataKey'>,
  actor: Actor,
  settings: { name: string; displayName?: string },
  traceId?: string,
): Promise<Tenant> {
  const { name, displayName = '' } = settings
  const tenant = await tx.one<Tenant>(insertTenant, [name, displayName, sealer.newDataKey()])
  if (tenant === undefined) {
    throw new AppError('already_exists', 'There is a tenant of this name.', { field: '/name' })
  }
  await audit(tx, actor, {
    action: 'tenant.created',
    objectKind: 'tenant',
    objectId: name,
    details: { name, displayName },
    traceId,
  })
  return tenant
}

/**
 * Makes the operator's tenant and its admin key in an empty database, once however many processes start at the
 * same time. The one that did gets the key.
 */
export function ensureFirstTenant(
  db: Db,
  sealer: Pick<Sealer, 'newDataKey'>,
): Promise<{ tenant: Tenant; adminKey: string | undefined }> {
  return db.tx(async tx => {
    const inserted = await tx.one(insertFirst, [OPERATOR_TENANT, 'Default', sealer.newDataKey()])
    const tenant = (await tx.one<Tenant>(findFirst, [OPERATOR_TENANT_ID]))!
    if (inserted === undefined) return { tenant, adminKey: undefined }

    await tx.one(skipFirst, [OPERATOR_TENANT_ID])
    const actor = { tenantId: tenant.id, kind: 'system' } as const
    await audit(tx, actor, {
      action: 'tenant.created',
      objectKind: 'tenant',
      objectId: tenant.name,
      details: { name: tenant.name },
    })
    const { key } = await createKey(tx, actor, { name: 'first admin', role: 'admin' })
    return { tenant, adminKey: key }
  })
}

/** Oldest first. */
export const listTenants = (q: Queryable, after: TenantId | null, limit: number): Promise<Tenant[]> =>
  q.rows<Tenant>(listAfter, [after ?? 0, limit])

/**
 * Renames or switches a tenant; what is not given stays. The callers of a disabled tenant are refused from the
 * next second on; nothing of it is deleted.
 *
 * @throws AppError not_found; conflict for the operator's own, which nobody could enable again
 */
export async function updateTenant(
  tx: Queryable,
  caller: Caller,
  name: string,
  change: { displayName?: string; enabled?: boolean; locale?: string | null },
  traceId?: string,
): Promise<Tenant> {
  const before = await tx.one<Tenant>(lockByName, [name])
  if (before === undefined) throw new AppError('not_found', 'There is no such tenant.')
  const { displayName = before.displayName, enabled = before.enabled } = change
  const locale = change.locale === undefined ? before.locale : canonical(change.locale)
  if (!enabled && before.id === OPERATOR_TENANT_ID) {
    throw new AppError('conflict', "The operator's tenant cannot be disabled.", { field: '/enabled' })
  }
  const after = (await tx.one<Tenant>(updateById, [before.id, displayName, enabled, locale]))!
  await audit(tx, caller, {
    action: 'tenant.updated',
    objectKind: 'tenant',
    objectId: name,
    details: {
      before: { displayName: before.displayName, enabled: before.enabled, locale: before.locale },
      after: { displayName, enabled, locale },
    },
    traceId,
  })
  return after
}

function canonical(locale: string | null): string | null {
  if (locale === null) return null
  try {
    return Intl.getCanonicalLocales(locale.replaceAll('_', '-'))[0]!
  } catch {
    throw new AppError('invalid_request', `"${locale}" is not a BCP 47 locale`, { field: '/locale' })
  }
}
