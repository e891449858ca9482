import { randomBytes } from 'node:crypto'
import type { InjectOptions, LightMyRequestResponse } from 'fastify'
import { SignJWT } from 'jose'
import { createKey } from '../admin/keys.ts'
import { createTenant, ensureFirstTenant } from '../admin/tenants.ts'
import type { Db } from '../db/pool.ts'
import { type Sealer, sealer as openSealer } from '../db/seal.ts'
import type { Api, Role, Scope } from '../http/api.ts'
import { type Auth, auth as openAuth } from '../http/auth.ts'
import { limiter, type RequestLimits } from '../http/limits.ts'
import { buildServer } from '../http/server.ts'
import { tokenVerifier } from '../http/tokens.ts'
import type { TenantId, UserId } from '../types.ts'
import { testDatabase } from './database.ts'

/** What a module's routes get to work with. */
export interface RouteDeps {
  db: Db
  sealer: Sealer
  auth: Auth
}

export interface TestTenant {
  id: TenantId
  name: string
  adminKey: string
  /** Role service, all scopes. */
  serviceKey: string
  /** A signed token of that person; `user` unless another role is named. */
  token(userId: UserId, role?: Role): Promise<string>
  /** A key with these scopes alone. */
  scopedKey(role: 'admin' | 'service', scopes: Scope[]): Promise<string>
}

/** As `as` one gives a key, a token, or nothing for a request without credentials. */
export type TestRequest = Omit<InjectOptions, 'method' | 'url'> & { as?: string }

export interface TestApi extends RouteDeps {
  api: Api
  /** The operator's, tenant 1. */
  tenant: TestTenant
  /** Another one, to show that it sees nothing of the first. */
  other: TestTenant
  /** `request('POST', '/api/rules', { as: tenant.adminKey, payload: {…} })` */
  request(method: string, url: string, options?: TestRequest): Promise<LightMyRequestResponse>
  /** Closes the server and drops the database. */
  close(): Promise<void>
}

const SECRET = randomBytes(32)

/**
 * A whole server, credentials and all, over a fresh database, with the routes of the module under test. Requests
 * are not limited unless `limits` says so.
 */
export async function testApi(options: {
  routes: ((api: Api, deps: RouteDeps) => void)[]
  limits?: Partial<RequestLimits>
  /** The clock of credentials. */
  now?: () => Date
  /** The clock of limits, in milliseconds since 1970. */
  limitsNow?: () => number
}): Promise<TestApi> {
  const database = await testDatabase()
  try {
    const { db } = database
    const sealer = openSealer(randomBytes(32).toString('hex'))
    const auth = openAuth({ db, tokens: tokenVerifier({ secret: SECRET }), now: options.now })
    const api = await buildServer({
      auth,
      version: '0.0.0-test',
      limits: options.limits ?? false,
      limiter: limiter({ now: options.limitsNow }),
    })
    for (const add of options.routes) add(api, { db, sealer, auth })
    await api.ready()

    const first = (await ensureFirstTenant(db, sealer)).tenant
    const system = { tenantId: first.id, kind: 'system' } as const
    const second = await createTenant(db, sealer, system, { name: 'other' })
    return {
      api,
      db,
      sealer,
      auth,
      tenant: await testTenant(db, first),
      other: await testTenant(db, second),
      request(method, url, { as, headers, ...rest } = {}) {
        const credentials = as === undefined ? {} : { authorization: `Bearer ${as}` }
        return api.inject({
          method: method as InjectOptions['method'],
          url,
          headers: { ...credentials, ...headers },
          ...rest,
        })
      },
      async close() {
        await api.close()
        await auth.close()
        await database.drop()
      },
    }
  } catch (error) {
    await database.drop()
    throw error
  }
}

async function testTenant(db: Db, { id, name }: { id: TenantId; name: string }): Promise<TestTenant> {
  const actor = { tenantId: id, kind: 'system' } as const
  const key = async (role: 'admin' | 'service', scopes?: Scope[]) =>
    (await createKey(db, actor, { name: `test ${role}`, role, scopes })).key
  return {
    id,
    name,
    adminKey: await key('admin'),
    serviceKey: await key('service'),
    scopedKey: key,
    token: (userId, role = 'user') =>
      new SignJWT({ tenant: name, role })
        .setProtectedHeader({ alg: 'HS256' })
        .setSubject(userId)
        .setExpirationTime('1h')
        .sign(SECRET),
  }
}
