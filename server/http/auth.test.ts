import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { SignJWT } from 'jose'
import { createKey, revokeKey } from '../admin/keys.ts'
import { createTenant, ensureFirstTenant, updateTenant } from '../admin/tenants.ts'
import { sql } from '../db/pool.ts'
import { AppError, type ErrorCode } from '../errors.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Access, Caller } from './api.ts'
import { isApiKey } from './api-key.ts'
import { type Auth, auth as openAuth, requireAccess, requireSelf } from './auth.ts'
import { tokenVerifier } from './tokens.ts'

const SECRET = Buffer.alloc(32, 7)
const sealer = { newDataKey: () => Buffer.alloc(62) }
const system = { tenantId: 1, kind: 'system' } as const
const operator: Caller = { tenantId: 1, kind: 'key', role: 'admin', id: 'k', scopes: null }

let database: TestDatabase
before(async () => {
  database = await testDatabase()
  await ensureFirstTenant(database.db, sealer)
})
after(() => database.drop())

/** Credentials over the database, with a clock that stands still until it is moved. */
function world() {
  let at = Date.now()
  let queries = 0
  const { db } = database
  const counting: typeof db = {
    ...db,
    one(statement, values) {
      queries++
      return db.one(statement, values)
    },
  }
  const auth: Auth = openAuth({
    db: counting,
    tokens: tokenVerifier({ secret: SECRET, defaultTenant: 'default' }),
    now: () => new Date(at),
  })
  return { auth, db, pass: (ms: number) => (at += ms), queries: () => queries, now: () => new Date(at) }
}

const refuses = (work: Promise<unknown>, code: ErrorCode = 'unauthenticated') =>
  assert.rejects(work, (error: unknown) => error instanceof AppError && error.code === code)

const tokenFor = (sub: string, now: Date, more: object = {}, seconds = 60) =>
  new SignJWT({ ...more })
    .setProtectedHeader({ alg: 'HS256' })
    .setSubject(sub)
    .setExpirationTime(Math.floor(now.getTime() / 1000) + seconds)
    .sign(SECRET)

const storedKey = sql('test_stored_key', 'select hash, prefix, last_used_at from api_keys where id = $1')

// covers: ALP-188
test('a key says who calls; only its hash is stored', async () => {
  const { auth, db } = world()
  const { key, id } = await createKey(db, system, { name: 'ci', role: 'service', scopes: ['events:write'] })
  assert.ok(isApiKey(key))
  const row = (await db.one<{ hash: Buffer; prefix: string }>(storedKey, [id]))!
  assert.equal(row.hash.length, 32)
  assert.ok(!JSON.stringify(row).includes(key.slice(12)))
  assert.equal(row.prefix, key.slice(0, 12))
  assert.deepEqual(await auth.authenticate(key), {
    tenantId: 1,
    kind: 'key',
    role: 'service',
    id,
    scopes: ['events:write'],
  })
  const whole = await createKey(db, system, { name: 'all', role: 'admin' })
  assert.equal((await auth.authenticate(whole.key)).scopes, null)
})

test('an unknown key, and one that differs in a character, are refused', async () => {
  const { auth, db } = world()
  const { key } = await createKey(db, system, { name: 'x', role: 'service' })
  const other = key.slice(0, -1) + (key.endsWith('A') ? 'B' : 'A')
  await refuses(auth.authenticate(other))
  await refuses(auth.authenticate(`${key}A`))
  await refuses(auth.authenticate(key.toUpperCase()))
  await refuses(auth.authenticate(''))
})

test('a revoked key stops within a second, at once where the change is told', async () => {
  const { auth, db, pass } = world()
  const a = await createKey(db, system, { name: 'a', role: 'service' })
  await auth.authenticate(a.key)
  await revokeKey(db, system, a.id)
  pass(1_001)
  await refuses(auth.authenticate(a.key))

  const b = await createKey(db, system, { name: 'b', role: 'service' })
  await auth.authenticate(b.key)
  await revokeKey(db, system, b.id)
  auth.forget()
  await refuses(auth.authenticate(b.key))
})

test('a key that is forgotten while it is being looked up is not remembered', async () => {
  const { db } = world()
  const { key, id } = await createKey(db, system, { name: 'a', role: 'service' })
  const read = Promise.withResolvers<void>()
  const answer = Promise.withResolvers<void>()
  const slow: typeof db.one = async (...args) => {
    const row = await db.one(...args)
    read.resolve()
    await answer.promise
    return row as never
  }
  const auth = openAuth({ db: { ...db, one: slow } })
  const early = auth.authenticate(key)
  await read.promise
  await revokeKey(db, system, id)
  auth.forget()
  const late = auth.authenticate(key)
  answer.resolve()
  assert.equal((await early).id, id, 'it asked before the key was revoked')
  await refuses(late)
  await refuses(auth.authenticate(key))
})

test('an expired key is refused at its very instant, cached or not', async () => {
  const { auth, db, pass, now } = world()
  const expiresAt = new Date(now().getTime() + 500)
  const { key } = await createKey(db, system, { name: 'short', role: 'service', expiresAt })
  await auth.authenticate(key)
  pass(499)
  await auth.authenticate(key)
  pass(1)
  await refuses(auth.authenticate(key))
})

test('many requests of one key ask the database once a second', async () => {
  const { auth, db, pass, queries } = world()
  const { key } = await createKey(db, system, { name: 'busy', role: 'service' })
  const before = queries()
  await Promise.all(Array.from({ length: 50 }, () => auth.authenticate(key)))
  await auth.authenticate(key)
  assert.equal(queries() - before, 1)
  pass(1_001)
  await auth.authenticate(key)
  assert.equal(queries() - before, 2)
})

test('the last use is written later, in one statement, and survives a failed write', async () => {
  const { auth, db, now } = world()
  const { key, id } = await createKey(db, system, { name: 'used', role: 'service' })
  await auth.authenticate(key)
  const used = async () => (await db.one<{ last_used_at: Date | null }>(storedKey, [id]))!.last_used_at
  assert.equal(await used(), null)
  await auth.flushUsage()
  assert.deepEqual(await used(), now())

  const failing = openAuth({
    db: { ...db, run: () => Promise.reject(new Error('database away')) },
    now: () => new Date(now().getTime() + 5_000),
  })
  await failing.authenticate(key)
  await assert.rejects(failing.flushUsage(), /away/)
  await assert.rejects(failing.flushUsage(), /away/, 'it still knows what to write')
})

// covers: DIC-184
test('a token says which person of which tenant calls', async () => {
  const { auth, now } = world()
  assert.deepEqual(await auth.authenticate(await tokenFor('alice', now())), {
    tenantId: 1,
    kind: 'user',
    role: 'user',
    id: 'alice',
    userId: 'alice',
    scopes: null,
  })
  const admin = await auth.authenticate(await tokenFor('root', now(), { role: 'admin', scope: 'admin:read' }))
  assert.deepEqual([admin.role, admin.userId, admin.scopes], ['admin', 'root', ['admin:read']])
  const service = await auth.authenticate(await tokenFor('billing', now(), { role: 'service' }))
  assert.deepEqual([service.role, service.userId], ['service', undefined])
  await refuses(auth.authenticate(await tokenFor('alice', now(), { tenant: 'nobody-has-this' })))
})

test('a cached token ends when it expires', async () => {
  const { auth, now, pass } = world()
  const token = await tokenFor('alice', now(), {}, 5)
  await auth.authenticate(token)
  pass(34_000)
  await auth.authenticate(token)
  pass(2_000)
  await refuses(auth.authenticate(token))
})

test('without token settings only keys are accepted', async () => {
  const { db, now } = world()
  await refuses(openAuth({ db }).authenticate(await tokenFor('alice', now())))
})

test("a disabled tenant's keys and tokens are refused, and work again when it is enabled", async () => {
  const { auth, db, now, pass } = world()
  const tenant = await createTenant(db, sealer, system, { name: 'closed' })
  const { key } = await createKey(db, { tenantId: tenant.id, kind: 'system' }, { name: 'k', role: 'admin' })
  const token = await tokenFor('bob', now(), { tenant: 'closed' })
  await auth.authenticate(key)
  await auth.authenticate(token)
  await updateTenant(db, operator, 'closed', { enabled: false })
  pass(1_001)
  await refuses(auth.authenticate(key), 'forbidden')
  await refuses(auth.authenticate(token), 'forbidden')
  await updateTenant(db, operator, 'closed', { enabled: true })
  auth.forget()
  await auth.authenticate(key)
  await auth.authenticate(token)
})

test('roles contain each other, scopes limit, and the operator is one tenant', () => {
  const caller = (role: Caller['role'], scopes: Caller['scopes'] = null, tenantId = 1): Caller => ({
    tenantId,
    kind: 'key',
    role,
    id: 'k',
    scopes,
  })
  const may = (c: Caller, access: Access) => {
    try {
      requireAccess(c, access)
      return true
    } catch (error) {
      assert.ok(error instanceof AppError && error.code === 'forbidden')
      return false
    }
  }
  const roles = ['user', 'service', 'admin'] as const
  for (const [i, has] of roles.entries()) {
    for (const [j, needs] of roles.entries()) assert.equal(may(caller(has), { role: needs }), i >= j)
  }
  const access: Access = { role: 'service', scope: 'rules:write' }
  assert.equal(may(caller('service'), access), true)
  assert.equal(may(caller('service', ['rules:write']), access), true)
  assert.equal(may(caller('admin', ['rules:read']), access), false)
  assert.equal(may(caller('admin', []), access), false)
  assert.equal(may(caller('admin'), { role: 'admin', operator: true }), true)
  assert.equal(may(caller('admin', null, 2), { role: 'admin', operator: true }), false)
})

// covers: ALP-192, AUR-145
test('a user reaches only their own id; services and admins anyone of their tenant', () => {
  const request = (role: Caller['role'], userId?: string) => ({
    caller: { tenantId: 1, kind: 'user', role, id: userId ?? 'svc', userId, scopes: null } satisfies Caller,
  })
  requireSelf(request('user', 'alice'), 'alice')
  assert.throws(() => requireSelf(request('user', 'alice'), 'bob'), { code: 'forbidden' })
  assert.throws(() => requireSelf(request('user', 'alice'), 'Alice'), { code: 'forbidden' })
  assert.throws(() => requireSelf(request('user'), 'alice'), { code: 'forbidden' })
  requireSelf(request('service'), 'alice')
  requireSelf(request('admin', 'root'), 'alice')
})
