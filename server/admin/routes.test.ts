import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { adminRoutes } from './routes.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [adminRoutes] })
})
after(() => t.close())

const json = async (method: string, url: string, as: string, payload?: object) => {
  const response = await t.request(method, url, { as, payload })
  return { status: response.statusCode, headers: response.headers, body: response.body && response.json() }
}

/** All pages of a list. */
async function all(url: string, as: string, limit: number): Promise<Record<string, never>[]> {
  const items = []
  let cursor: string | null = ''
  for (let pages = 0; cursor !== null; pages++) {
    assert.ok(pages < 100)
    const page = await json(
      'GET',
      `${url}${url.includes('?') ? '&' : '?'}limit=${limit}${cursor && `&cursor=${cursor}`}`,
      as,
    )
    assert.equal(page.status, 200)
    assert.ok(page.body.items.length <= limit)
    items.push(...page.body.items)
    cursor = page.body.nextCursor
  }
  return items
}

test('a key is shown once, works, is listed without its secret, and stops when revoked', async () => {
  const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
  const made = await json('POST', '/api/keys', t.tenant.adminKey, {
    name: 'ci',
    role: 'admin',
    scopes: ['admin:read'],
    expiresAt,
  })
  assert.equal(made.status, 201)
  const { key, ...info } = made.body
  assert.match(key, /^crl_[\w-]{32}$/)
  assert.equal(made.headers.location, `/api/keys/${info.id}`)
  assert.equal(made.headers['cache-control'], 'no-store')
  assert.deepEqual([info.role, info.scopes, info.expiresAt], ['admin', ['admin:read'], expiresAt])

  const listed = (await all('/api/keys', key, 2)).find(k => k.id === info.id)
  assert.deepEqual(listed, info)

  assert.equal((await json('DELETE', `/api/keys/${info.id}`, key)).status, 403, 'it may only read')
  assert.equal((await json('DELETE', `/api/keys/${info.id}`, t.tenant.adminKey)).status, 204)
  assert.equal((await json('GET', '/api/keys', key)).status, 401)
  assert.equal(
    (await json('DELETE', `/api/keys/${info.id}`, t.tenant.adminKey)).status,
    204,
    'again changes nothing',
  )
  const revoked = (await all('/api/keys', t.tenant.adminKey, 200)).find(k => k.id === info.id)
  assert.ok(revoked?.revokedAt)
})

test('nobody hands on more scopes than they hold', async () => {
  const limited = await t.tenant.scopedKey('admin', ['admin:write', 'rules:read'])
  const create = (scopes?: string[]) =>
    json('POST', '/api/keys', limited, { name: 'x', role: 'admin', scopes })
  assert.equal((await create(['rules:read'])).status, 201)
  assert.equal((await create(['rules:write'])).status, 403)
  assert.equal((await create([])).status, 403, 'no scopes would be all of them')
  assert.equal((await create()).status, 403)
  assert.equal((await json('POST', '/api/tenants', limited, { name: 'grab' })).status, 403)
})

test('bad keys are refused with the field', async () => {
  const field = async (payload: object) =>
    (await json('POST', '/api/keys', t.tenant.adminKey, payload)).body.errors.map(
      (e: { field: string }) => e.field,
    )
  assert.deepEqual(await field({ role: 'admin' }), ['/name'])
  assert.deepEqual(await field({ name: 'x', role: 'user' }), ['/role'])
  assert.deepEqual(await field({ name: 'x', role: 'admin', scopes: ['rules:read', 'rules:read'] }), [
    '/scopes',
  ])
  assert.deepEqual(await field({ name: 'x', role: 'admin', expiresAt: '2020-01-01T00:00:00Z' }), [
    '/expiresAt',
  ])
  assert.deepEqual(await field({ name: 'x', role: 'admin', tenantId: 2 }), ['/tenantId'])
})

test('one tenant neither sees nor touches the keys and the audit of another', async () => {
  const made = await json('POST', '/api/keys', t.tenant.adminKey, { name: 'mine', role: 'service' })
  const theirs = await all('/api/keys', t.other.adminKey, 200)
  assert.ok(theirs.length > 0 && theirs.every(key => key.id !== made.body.id))
  assert.equal((await json('DELETE', `/api/keys/${made.body.id}`, t.other.adminKey)).status, 404)
  assert.equal((await json('DELETE', `/api/keys/${newId()}`, t.other.adminKey)).status, 404)
  const audit = await all('/api/audit', t.other.adminKey, 200)
  assert.ok(audit.length > 0 && audit.every(row => row.objectId !== made.body.id))
  const mine = await json('GET', '/api/keys?limit=1', t.tenant.adminKey)
  const page = await json('GET', `/api/keys?cursor=${mine.body.nextCursor}`, t.other.adminKey)
  assert.ok(page.body.items.every((key: { id: string }) => theirs.some(own => own.id === key.id)))
})

test('users and services do not administer', async () => {
  for (const as of [t.tenant.serviceKey, await t.tenant.token('alice')]) {
    for (const [method, url] of [
      ['GET', '/api/keys'],
      ['POST', '/api/keys'],
      ['DELETE', `/api/keys/${newId()}`],
      ['GET', '/api/audit'],
      ['GET', '/api/tenants'],
      ['POST', '/api/tenants'],
      ['PATCH', '/api/tenants/other'],
    ] as const) {
      assert.equal((await json(method, url, as)).status, 403, `${method} ${url}`)
    }
  }
})

// covers: DIC-187
test('every change of access is in the audit, with who did it and in which trace', async () => {
  const admin = await t.tenant.token('root', 'admin')
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736'
  const made = await t.request('POST', '/api/keys', {
    as: admin,
    payload: { name: 'audited', role: 'service' },
    headers: { traceparent: `00-${traceId}-00f067aa0ba902b7-01` },
  })
  const { id } = made.json()
  await json('DELETE', `/api/keys/${id}`, t.tenant.adminKey)
  await json('DELETE', `/api/keys/${id}`, t.tenant.adminKey)

  const rows = await all(`/api/audit?objectKind=key&objectId=${id}`, t.tenant.adminKey, 1)
  assert.deepEqual(
    rows.map(row => row.action),
    ['key.revoked', 'key.created'],
  )
  const created = rows[1] as unknown as Record<string, unknown>
  assert.deepEqual(created.actor, { kind: 'user', id: 'root' })
  assert.equal(created.traceId, traceId)
  assert.equal((created.details as { name: string }).name, 'audited')
  assert.ok(!JSON.stringify(rows).includes(made.json().key))
})

test('a change that fails leaves no audit row', async () => {
  const before = (await all('/api/audit', t.tenant.adminKey, 200)).length
  assert.equal((await json('POST', '/api/tenants', t.tenant.adminKey, { name: 'other' })).status, 409)
  assert.equal((await json('DELETE', `/api/keys/${newId()}`, t.tenant.adminKey)).status, 404)
  assert.equal((await all('/api/audit', t.tenant.adminKey, 200)).length, before)
})

test('the audit is filtered by action, actor and time, and paged without gap', async () => {
  for (let i = 0; i < 7; i++)
    await json('POST', '/api/keys', t.tenant.adminKey, { name: `k${i}`, role: 'service' })
  const whole = await all('/api/audit', t.tenant.adminKey, 200)
  assert.deepEqual(await all('/api/audit', t.tenant.adminKey, 3), whole)
  const ids = whole.map(row => String(row.id))
  assert.deepEqual(ids, ids.toSorted().toReversed(), 'newest first')

  const created = await all('/api/audit?action=key.created', t.tenant.adminKey, 200)
  assert.ok(
    created.length >= 7 && created.length === whole.filter(row => row.action === 'key.created').length,
  )
  assert.deepEqual(await all('/api/audit?actorId=nobody', t.tenant.adminKey, 200), [])
  const middle = (whole[3] as unknown as { at: string }).at
  const since = await all(`/api/audit?from=${encodeURIComponent(middle)}`, t.tenant.adminKey, 200)
  const until = await all(`/api/audit?to=${encodeURIComponent(middle)}`, t.tenant.adminKey, 200)
  assert.deepEqual([...since, ...until], whole)
  assert.ok(since.length >= 4)
})

test('bad cursors, limits and filters are refused', async () => {
  const keys = (await json('GET', '/api/keys?limit=1', t.tenant.adminKey)).body.nextCursor
  for (const [url, code] of [
    ['/api/audit?cursor=x', 'invalid_cursor'],
    [`/api/audit?cursor=${keys}`, 'invalid_cursor'],
    ['/api/audit?limit=0', 'invalid_request'],
    ['/api/audit?limit=201', 'invalid_request'],
    ['/api/audit?from=yesterday', 'invalid_request'],
    ['/api/audit?tenantId=2', 'invalid_request'],
    ['/api/keys?cursor=', 'invalid_request'],
  ] as const) {
    const { status, body } = await json('GET', url, t.tenant.adminKey)
    assert.deepEqual([status, body.code], [400, code], url)
  }
  assert.equal((await json('DELETE', '/api/keys/1', t.tenant.adminKey)).status, 400)
})

test('only the operator makes, lists and switches tenants', async () => {
  assert.equal((await json('GET', '/api/tenants', t.other.adminKey)).status, 403)
  assert.equal((await json('POST', '/api/tenants', t.other.adminKey, { name: 'x' })).status, 403)
  assert.equal(
    (await json('PATCH', '/api/tenants/default', t.other.adminKey, { enabled: false })).status,
    403,
  )

  const made = await json('POST', '/api/tenants', t.tenant.adminKey, { name: 'acme', displayName: 'Acme' })
  assert.equal(made.status, 201)
  assert.equal(made.headers.location, '/api/tenants/acme')
  const { adminKey, ...tenant } = made.body
  assert.deepEqual([tenant.name, tenant.displayName, tenant.enabled], ['acme', 'Acme', true])
  const key = sql('test_tenant_key', 'select data_key from tenants where id = $1')
  const stored = (await t.db.one<{ data_key: Buffer }>(key, [tenant.id]))!.data_key
  assert.equal(t.sealer.unwrap(stored).length, 32, 'a data key of its own')
  assert.deepEqual(
    await all('/api/tenants', t.tenant.adminKey, 2),
    await all('/api/tenants', t.tenant.adminKey, 200),
  )
  assert.deepEqual(
    (await all('/api/tenants', t.tenant.adminKey, 2)).map(each => each.name),
    ['default', 'other', 'acme'],
  )

  assert.equal((await json('GET', '/api/keys', adminKey)).status, 200)
  assert.equal((await json('GET', '/api/tenants', adminKey)).status, 403)
  const off = await json('PATCH', '/api/tenants/acme', t.tenant.adminKey, { enabled: false })
  assert.deepEqual([off.status, off.body.enabled, off.body.displayName], [200, false, 'Acme'])
  const refused = await json('GET', '/api/keys', adminKey)
  assert.deepEqual([refused.status, refused.body.code], [403, 'forbidden'])
  await json('PATCH', '/api/tenants/acme', t.tenant.adminKey, { enabled: true, displayName: 'ACME' })
  assert.equal((await json('GET', '/api/keys', adminKey)).status, 200)
})

test('the operator cannot lock itself out; names are unique and plain', async () => {
  const { adminKey } = t.tenant
  const own = await json('PATCH', '/api/tenants/default', adminKey, { enabled: false })
  assert.deepEqual([own.status, own.body.code], [409, 'conflict'])
  assert.equal((await json('PATCH', '/api/tenants/nobody', adminKey, { enabled: false })).status, 404)
  assert.equal((await json('PATCH', '/api/tenants/other', adminKey, {})).status, 400)
  const again = await json('POST', '/api/tenants', adminKey, { name: 'other' })
  assert.deepEqual([again.status, again.body.code], [409, 'already_exists'])
  for (const name of ['', 'Upper', '-x', 'a b', 'ü', 'x'.repeat(64), 'a\n']) {
    assert.equal((await json('POST', '/api/tenants', adminKey, { name })).status, 400, name)
  }
})
