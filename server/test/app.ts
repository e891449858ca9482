import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { SignJWT } from 'jose'
import { createKey } from '../admin/keys.ts'
import { createTenant, ensureFirstTenant } from '../admin/tenants.ts'
import { type App, startApp } from '../app.ts'
import { loadConfig, masterKeyring } from '../config.ts'
import type { Db } from '../db/pool.ts'
import { sealer } from '../db/seal.ts'
import type { Role } from '../http/api.ts'
import { type LogOptions, createLogger } from '../observe/log.ts'
import type { TenantId, UserId } from '../types.ts'
import { SOLUTIONS } from '../../solutions/index.ts'
import type { Solution } from '../solution.ts'
import { testDatabase } from './database.ts'

export interface AppTenant {
  id: TenantId
  name: string
  adminKey: string
  serviceKey: string
  /** A signed token of that person. */
  token(userId: UserId, role?: Role): Promise<string>
}

/** Parsed JSON, of which each test looks at its own part. */
// oxlint-disable-next-line typescript/no-explicit-any -- a wrong path into it fails the test that takes it
export type Loose = any

export interface Answered {
  status: number
  headers: Headers
  /** The parsed body; undefined when there is none. */
  body: Loose
  text: string
}

export interface TestApp {
  app: App
  url: string
  db: Db
  databaseUrl: string
  tenant: AppTenant
  other: AppTenant
  /** A request over a real connection; `as` is a key or a token. */
  call(
    method: string,
    path: string,
    options?: { as?: string; body?: unknown; headers?: Record<string, string>; raw?: string | Buffer },
  ): Promise<Answered>
  stop(): Promise<void>
}

/**
 * The whole product in this process: real server, real lanes, delivery and mailbox, over a fresh database. Webhooks
 * may reach this machine; requests are hardly limited.
 *
 * `log`: where its lines go, for tests that read them. `now`: its clock, for tests of nights and mornings.
 * `solutions`: those that there are.
 */
export async function testApp(
  environment: Record<string, string> = {},
  {
    log: destination,
    now,
    solutions = SOLUTIONS,
  }: { log?: LogOptions['destination']; now?: () => Date; solutions?: readonly Solution[] } = {},
): Promise<TestApp> {
  const database = await testDatabase()
  const dir = await mkdtemp(join(tmpdir(), 'carillon-app-'))
  const secret = randomBytes(32).toString('hex')
  const env = {
    CARILLON_DATA_DIR: dir,
    PORT: '0',
    MAILBOX_PORT: '0',
    OUTBOUND_ALLOW: '127.0.0.1/32',
    JWT_SECRET: secret,
    LOG_LEVEL: 'error',
    CARILLON_LIMIT_PER_USER: '10000000',
    CARILLON_LIMIT_PER_IP: '10000000',
    CARILLON_LIMIT_PER_KEY: '10000000',
    CARILLON_LIMIT_FAILURES_PER_IP: '1000000',
    ...environment,
  }
  const config = loadConfig(env, [], undefined, solutions)
  const clean = async () => {
    await database.drop()
    await rm(dir, { recursive: true, force: true })
  }
  try {
    const { db } = database
    const keys = sealer(masterKeyring(config).reveal())
    const first = (await ensureFirstTenant(db, keys)).tenant
    const system = { tenantId: first.id, kind: 'system' } as const
    const second = await createTenant(db, keys, system, { name: 'other' })
    const log = createLogger({ level: config.observe.logLevel, destination })
    const app = await startApp({ config, databaseUrl: database.url, log, solutions, ...(now && { now }) })
    const url = app.url!

    const tenantOf = async ({ id, name }: { id: TenantId; name: string }): Promise<AppTenant> => {
      const actor = { tenantId: id, kind: 'system' } as const
      return {
        id,
        name,
        adminKey: (await createKey(db, actor, { name: 'test admin', role: 'admin' })).key,
        serviceKey: (await createKey(db, actor, { name: 'test service', role: 'service' })).key,
        token: (userId, role = 'user') =>
          new SignJWT({ tenant: name, role })
            .setProtectedHeader({ alg: 'HS256' })
            .setSubject(userId)
            .setExpirationTime('1h')
            .sign(new TextEncoder().encode(secret)),
      }
    }
    return {
      app,
      url,
      db,
      databaseUrl: database.url,
      tenant: await tenantOf(first),
      other: await tenantOf(second),
      async call(method, path, { as, body, headers, raw } = {}) {
        const response = await fetch(url + path, {
          method,
          headers: {
            ...(as !== undefined && { authorization: `Bearer ${as}` }),
            ...(body !== undefined && { 'content-type': 'application/json' }),
            ...headers,
          },
          body: raw ?? (body === undefined ? undefined : JSON.stringify(body)),
          redirect: 'manual',
        })
        const text = await response.text()
        const json = response.headers.get('content-type')?.includes('json') && text !== ''
        return {
          status: response.status,
          headers: response.headers,
          text,
          body: json ? JSON.parse(text) : undefined,
        }
      },
      async stop() {
        await app.stop()
        await clean()
      },
    }
  } catch (error) {
    await clean()
    throw error
  }
}

/** Looks until there is something to see. For what comes about on its own time; fails after 15 seconds. */
export async function eventually<T>(
  what: string,
  look: () => Promise<T | undefined | false> | T | undefined | false,
  patienceMs = 15_000,
): Promise<T> {
  const deadline = Date.now() + patienceMs
  for (;;) {
    const found = await look()
    if (found !== undefined && found !== false) return found
    if (Date.now() > deadline) throw new Error(`Waited in vain for ${what}`)
    await delay(20)
  }
}
