import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Caller, Scope } from '../http/api.ts'
import { apiKeyPrefix, hashApiKey, newApiKey } from '../http/api-key.ts'
import type { Id, TenantId } from '../types.ts'
import { type Actor, audit } from './audit.ts'

export interface KeySettings {
  name: string
  role: 'admin' | 'service'
  /** Empty: everything the role may do. */
  scopes?: readonly Scope[]
  expiresAt?: Date
}

/** An API key without its secret, which nobody can show again. */
export interface KeyInfo {
  id: Id
  name: string
  /** Its first characters, to recognise it by. */
  prefix: string
  role: 'admin' | 'service'
  scopes: Scope[]
  createdAt: Date
  expiresAt: Date | null
  revokedAt: Date | null
  /** Exact to about a minute. */
  lastUsedAt: Date | null
}

const columns = `id, name, prefix, role, scopes, created_at as "createdAt", expires_at as "expiresAt",
  revoked_at as "revokedAt", last_used_at as "lastUsedAt"`

const insertKey = sql(
  'insert_api_key',
  `insert into api_keys (tenant_id, id, name, prefix, hash, role, scopes, expires_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8) returning ${columns}`,
)
const listKeysAfter = sql(
  'list_api_keys',
  `select ${columns} from api_keys
   where tenant_id = $1 and ($2::uuid is null or id < $2)
   order by id desc limit $3`,
)
const revoke = sql(
  'revoke_api_key',
  `update api_keys set revoked_at = now() where tenant_id = $1 and id = $2 and revoked_at is null returning name`,
)
const findRevoked = sql(
  'find_own_api_key',
  'select revoked_at from api_keys where tenant_id = $1 and id = $2',
)

/** Makes a key and returns it, the only time it is seen: 36 characters, `crl_` and 192 random bits. */
export async function createKey(
  tx: Queryable,
  actor: Actor,
  settings: KeySettings,
  traceId?: string,
): Promise<KeyInfo & { key: string }> {
  const key = newApiKey()
  const { name, role, scopes = [], expiresAt } = settings
  const info = (await tx.one<KeyInfo>(insertKey, [
    actor.tenantId,
    newId(),
    name,
    apiKeyPrefix(key),
    hashApiKey(key),
    role,
    scopes,
    expiresAt ?? null,
  ]))!
  await audit(tx, actor, {
    action: 'key.created',
    objectKind: 'key',
    objectId: info.id,
    details: { name, prefix: info.prefix, role, scopes, expiresAt: expiresAt?.toISOString() ?? null },
    traceId,
  })
  return { ...info, key }
}

/** Newest first, revoked ones included. */
export const listKeys = (
  q: Queryable,
  tenantId: TenantId,
  after: Id | null,
  limit: number,
): Promise<KeyInfo[]> => q.rows<KeyInfo>(listKeysAfter, [tenantId, after, limit])

/**
 * From the next second on nobody gets in with it. Revoking again changes nothing.
 *
 * @throws AppError not_found
 */
export async function revokeKey(tx: Queryable, actor: Actor, id: Id, traceId?: string): Promise<void> {
  const revoked = await tx.one<{ name: string }>(revoke, [actor.tenantId, id])
  if (revoked === undefined) {
    if ((await tx.one(findRevoked, [actor.tenantId, id])) === undefined) {
      throw new AppError('not_found', 'There is no such key.')
    }
    return
  }
  await audit(tx, actor, {
    action: 'key.revoked',
    objectKind: 'key',
    objectId: id,
    details: { name: revoked.name },
    traceId,
  })
}

/**
 * A scoped caller hands on no more than it has: otherwise `admin:write` alone would be every scope.
 *
 * @throws AppError forbidden
 */
export function requireGrantable(caller: Caller, scopes: readonly Scope[]): void {
  const { scopes: held } = caller
  if (held === null) return
  if (scopes.length === 0 || scopes.some(scope => !held.includes(scope))) {
    throw new AppError('forbidden', 'A key cannot be given more scopes than its creator has.', {
      field: '/scopes',
    })
  }
}
