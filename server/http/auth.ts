import { hash } from 'node:crypto'
import type { FastifyRequest } from 'fastify'
import { LRUCache } from 'lru-cache'
import { type Db, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { TenantId, UserId } from '../types.ts'
import { OPERATOR_TENANT_ID } from '../types.ts'
import { type Access, type Caller, ROLES, type Role, type Scope } from './api.ts'
import { hashApiKey, isApiKey } from './api-key.ts'
import type { TokenVerifier, VerifiedToken } from './tokens.ts'

export { OPERATOR_TENANT_ID }

/** How long a revoked key or a disabled tenant may still pass where no change notice arrives. */
const CACHE_MS = 1_000
const TOKEN_CACHE_MS = 60_000
const CACHED = 10_000

export interface AuthOptions {
  db: Db
  /** Without it only API keys are accepted. */
  tokens?: TokenVerifier
  now?: () => Date
  /** Told when the last uses of keys could not be written; nothing else depends on them. */
  onUsageError?: (error: unknown) => void
}

export interface Auth {
  /**
   * Who sends these credentials.
   *
   * @throws AppError unauthenticated, without saying what is wrong with them; forbidden for a disabled tenant
   */
  authenticate(credentials: string): Promise<Caller>
  /** Forgets cached keys and tenants: to be called for changes of kind `api_key` and `tenant`, and at a reset. */
  forget(): void
  /** Writes the last uses of keys, at most one statement. Called every minute after `start`, and by `close`. */
  flushUsage(): Promise<void>
  start(): void
  close(): Promise<void>
}

interface KeyRow {
  id: string
  tenant_id: number
  role: Role
  scopes: Scope[]
  expires_at: Date | null
  tenant_enabled: boolean
}

// The one statement that cannot name its tenant: the key says which it is.
const findKey = sql(
  'find_api_key',
  `select k.id, k.tenant_id, k.role, k.scopes, k.expires_at, t.enabled as tenant_enabled
   from api_keys k join tenants t on t.id = k.tenant_id
   where k.hash = $1 and k.revoked_at is null`,
)
const findTenant = sql('find_tenant_by_name', 'select id, enabled from tenants where name = $1')
const touchKeys = sql(
  'touch_api_keys',
  `update api_keys k set last_used_at = greatest(k.last_used_at, u.at)
   from unnest($1::int[], $2::uuid[], $3::timestamptz[]) as u (tenant_id, id, at)
   where k.tenant_id = u.tenant_id and k.id = u.id`,
)

interface TenantRow {
  id: TenantId
  enabled: boolean
}

/** Rows by name for a second, their absence too; callers who want the same row at the same time share a query. */
function briefCache<V extends object>(
  clock: { now(): number },
  load: (name: string) => Promise<V | undefined>,
) {
  const found = new LRUCache<string, { row: V | undefined }>({
    max: CACHED,
    ttl: CACHE_MS,
    ttlResolution: 0,
    perf: clock,
  })
  let loading = new Map<string, Promise<V | undefined>>()
  return {
    get(name: string): V | undefined | Promise<V | undefined> {
      const hit = found.get(name)
      if (hit !== undefined) return hit.row
      const running = loading.get(name)
      if (running !== undefined) return running
      const mine = loading
      const loaded = load(name)
        .then(row => {
          // Forgotten meanwhile: what was read may be older than the change, so it serves those who asked before.
          if (mine === loading) found.set(name, { row })
          return row
        })
        .finally(() => mine.delete(name))
      mine.set(name, loaded)
      return loaded
    },
    forget(): void {
      found.clear()
      loading = new Map()
    },
  }
}

export function auth(options: AuthOptions): Auth {
  const { db, tokens } = options
  const now = options.now ?? (() => new Date())
  const clock = { now: () => now().getTime() }
  // Looked up by the hash of the credentials: how long a lookup takes tells nothing about any valid key.
  const keys = briefCache(clock, digest => db.one<KeyRow>(findKey, [Buffer.from(digest, 'base64')]))
  const tenants = briefCache(clock, name => db.one<TenantRow>(findTenant, [name]))
  const verified = new LRUCache<string, VerifiedToken>({
    max: CACHED,
    ttl: TOKEN_CACHE_MS,
    ttlResolution: 0,
    perf: clock,
  })
  let used = new Map<string, { tenantId: TenantId; at: Date }>()
  let timer: NodeJS.Timeout | undefined

  async function byKey(text: string): Promise<Caller> {
    const digest = hashApiKey(text).toString('base64')
    const key = await keys.get(digest)
    const at = now()
    if (key === undefined || (key.expires_at !== null && key.expires_at <= at)) throw refused()
    if (!key.tenant_enabled) throw disabled()
    used.set(key.id, { tenantId: key.tenant_id, at })
    return {
      tenantId: key.tenant_id,
      kind: 'key',
      role: key.role,
      id: key.id,
      scopes: key.scopes.length === 0 ? null : key.scopes,
    }
  }

  async function byToken(text: string): Promise<Caller> {
    if (tokens === undefined) throw refused()
    const digest = hash('sha256', text, 'base64')
    const at = now()
    let token = verified.get(digest)
    if (token === undefined) {
      token = await tokens.verify(text, at)
      if (token === undefined) throw refused()
      verified.set(digest, token)
    }
    if (token.validUntil <= at.getTime()) throw refused()
    const tenant = await tenants.get(token.tenant)
    if (tenant === undefined) throw refused()
    if (!tenant.enabled) throw disabled()
    return {
      tenantId: tenant.id,
      kind: 'user',
      role: token.role,
      id: token.subject,
      // A service is nobody's inbox.
      userId: token.role === 'service' ? undefined : token.subject,
      scopes: token.role === 'user' ? null : token.scopes,
    }
  }

  const self: Auth = {
    authenticate: credentials => (isApiKey(credentials) ? byKey(credentials) : byToken(credentials)),
    forget() {
      keys.forget()
      tenants.forget()
    },
    async flushUsage() {
      if (used.size === 0) return
      const uses = [...used]
      used = new Map()
      try {
        await db.run(touchKeys, [
          uses.map(([, u]) => u.tenantId),
          uses.map(([id]) => id),
          uses.map(([, u]) => u.at),
        ])
      } catch (error) {
        for (const [id, use] of uses) if (!used.has(id)) used.set(id, use)
        throw error
      }
    },
    start() {
      timer ??= setInterval(() => {
        self.flushUsage().catch((error: unknown) => options.onUsageError?.(error))
      }, 60_000).unref()
    },
    async close() {
      clearInterval(timer)
      await self.flushUsage().catch((error: unknown) => options.onUsageError?.(error))
    },
  }
  return self
}

const refused = () => new AppError('unauthenticated', 'The credentials are not valid.')
const disabled = () => new AppError('forbidden', 'The tenant is disabled.')

/**
 * What the request brings to prove who sends it: `Authorization: Bearer` (RFC 6750 §2.1), `X-API-Key`, or, only
 * where the route allows it, `?access_token=`.
 *
 * @throws AppError unauthenticated when it brings none, or one in another scheme
 */
export function credentialsOf(request: FastifyRequest, access: Access): string {
  const { authorization } = request.headers
  if (authorization !== undefined) {
    const match = /^Bearer +([^\s,]+) *$/i.exec(authorization)
    if (match === null) throw refused()
    return match[1]!
  }
  const key = request.headers['x-api-key']
  if (typeof key === 'string' && key !== '') {
    if (!isApiKey(key)) throw refused()
    return key
  }
  if (access.queryToken === true) {
    const token = (request.query as Record<string, unknown> | undefined)?.access_token
    if (typeof token === 'string' && token !== '') return token
  }
  throw missing()
}

const missing = () => new AppError('unauthenticated', 'This path needs an API key or a token.')

/** The challenge of RFC 6750 §3, sent with every 401, and with a 403 for want of a scope. */
export function challenge(request: FastifyRequest, error: AppError): string | undefined {
  const realm = 'Bearer realm="carillon"'
  if (error.code === 'unauthenticated') {
    const { authorization, 'x-api-key': key } = request.headers
    return authorization === undefined && key === undefined ? realm : `${realm}, error="invalid_token"`
  }
  const scope = request.routeOptions.config.access?.scope
  const caller: Caller | null = request.caller // null where the door refused before it knew
  if (error.code !== 'forbidden' || scope === undefined || caller === null || holds(caller, scope)) {
    return undefined
  }
  return `${realm}, error="insufficient_scope", scope="${scope}"`
}

const holds = (caller: Caller, scope: Scope): boolean =>
  caller.scopes === null || caller.scopes.includes(scope)

/** @throws AppError forbidden when this caller may not use a route with this access at all */
export function requireAccess(caller: Caller, access: Access): void {
  if (access.role !== 'public' && ROLES.indexOf(caller.role) < ROLES.indexOf(access.role)) {
    throw new AppError('forbidden', `This path needs the role ${access.role}.`)
  }
  if (access.scope !== undefined && !holds(caller, access.scope)) {
    throw new AppError('forbidden', `This path needs the scope ${access.scope}.`)
  }
  if (access.operator === true && caller.tenantId !== OPERATOR_TENANT_ID) {
    throw new AppError('forbidden', "Only the operator's tenant may do this.")
  }
}

/**
 * A user touches only their own things; services and admins act for anyone of their tenant.
 *
 * @throws AppError forbidden, also when there is no such user: nobody learns who exists
 */
export function requireSelf(request: { caller: Caller }, userId: UserId): void {
  const { role, userId: own } = request.caller
  if (role === 'user' && own !== userId) {
    throw new AppError('forbidden', 'Users may reach only their own data.')
  }
}
