import assert from 'node:assert/strict'
import { createECDH, randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { sql } from '../db/pool.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, type TestTenant, testApi } from '../test/api.ts'
import { openDeviceSettings, removeDeadDevices, touchDevices } from './devices.ts'
import { pushRoutes } from './push-routes.ts'
import { peopleRoutes } from './routes.ts'

const PUBLIC_KEY = createECDH('prime256v1').generateKeys('base64url')
let t: TestApi
let closed: TestApi
before(async () => {
  t = await testApi({
    routes: [peopleRoutes, (api, deps) => pushRoutes(api, { ...deps, vapidPublicKey: PUBLIC_KEY })],
  })
  closed = await testApi({ routes: [peopleRoutes, (api, deps) => pushRoutes(api, deps)] })
  for (const [tenant, user] of [
    [t.tenant, 'alice'],
    [t.tenant, 'bob'],
    [t.other, 'alice'],
  ] as const) {
    await call('PUT', `/api/users/${user}`, {}, { as: tenant.serviceKey, status: 201 })
  }
})
after(async () => {
  await t.close()
  await closed.close()
})

async function call(
  method: string,
  url: string,
  payload: object | undefined,
  { as, status }: { as?: string; status: number },
) {
  const response = await t.request(method, url, { as, payload })
  assert.equal(response.statusCode, status, `${method} ${url}: ${response.body}`)
  return { headers: response.headers, body: response.body === '' ? null : response.json() }
}

let n = 0
/** As a browser writes it. */
const subscription = () => ({
  endpoint: `https://push.example.net/send/${++n}`,
  expirationTime: null,
  keys: {
    p256dh: createECDH('prime256v1').generateKeys('base64url'),
    auth: randomBytes(16).toString('base64url'),
  },
})
const SUBSCRIBE = '/api/notifications/push/subscribe'
const UNSUBSCRIBE = '/api/notifications/push/unsubscribe'
const RENEW = '/api/notifications/push/renew'

interface Row {
  user_id: string
  token: string
  keys: { sealed?: string }
  user_agent: string | null
  last_used_at: Date
}
const devices = (tenant: TestTenant = t.tenant) =>
  t.db.rows<Row>(
    sql(
      'test_devices',
      'select user_id, token, keys, user_agent, last_used_at from devices where tenant_id = $1 order by token',
    ),
    [tenant.id],
  )
const ownersOf = async (endpoint: string, tenant?: TestTenant) =>
  (await devices(tenant)).filter(({ token }) => token === endpoint).map(({ user_id }) => user_id)

async function settingsOf(endpoint: string) {
  const tenant = await t.db.one<{ data_key: Buffer }>(
    sql('test_tenant_key', 'select data_key from tenants where id = $1'),
    [t.tenant.id],
  )
  const { keys } = (await devices()).find(({ token }) => token === endpoint)!
  return openDeviceSettings(t.sealer, t.sealer.unwrap(tenant!.data_key), {
    kind: 'web_push',
    token: endpoint,
    keys,
  })
}

test('every route keeps the rules of all routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

test('browsers learn the key to subscribe with; without a provider the channel is closed', async () => {
  const { body } = await call('GET', '/api/notifications/push/public-key', undefined, { status: 200 })
  assert.deepEqual(body, { publicKey: PUBLIC_KEY })
  const refused = await closed.request('GET', '/api/notifications/push/public-key')
  assert.deepEqual([refused.statusCode, refused.json().code], [404, 'not_found'])
  await closed.request('PUT', '/api/users/alice', { as: closed.tenant.serviceKey, payload: {} })
  const as = await closed.tenant.token('alice')
  const subscribed = await closed.request('POST', SUBSCRIBE, {
    as,
    payload: { subscription: subscription() },
  })
  assert.equal(subscribed.json().code, 'not_found')
})

// covers: AUR-020, AUR-040, AUR-143
test('a person subscribes a browser; again, it is the same one; somebody else takes it over', async () => {
  const alice = await t.tenant.token('alice')
  const bob = await t.tenant.token('bob')
  const one = subscription()
  const payload = { subscription: one, userAgent: 'Firefox on Linux' }
  const { body, headers } = await call('POST', SUBSCRIBE, payload, { as: alice, status: 201 })
  assert.equal(headers.location, `/api/users/alice/devices/${body.id}`)
  assert.deepEqual([body.kind, body.userAgent], ['web_push', 'Firefox on Linux'])
  assert.doesNotMatch(JSON.stringify(body), new RegExp(`${one.keys.auth}|${one.endpoint}`))
  const again = await call('POST', SUBSCRIBE, payload, { as: alice, status: 200 })
  assert.equal(again.body.id, body.id)
  assert.deepEqual(await ownersOf(one.endpoint), ['alice'])

  const { keys, user_agent, last_used_at } = (await devices()).find(({ token }) => token === one.endpoint)!
  assert.deepEqual(
    [Object.keys(keys), user_agent, last_used_at instanceof Date],
    [['sealed'], 'Firefox on Linux', true],
  )
  assert.deepEqual(await settingsOf(one.endpoint), { kind: 'web_push', ...one.keys })

  await call('POST', SUBSCRIBE, { subscription: one }, { as: bob, status: 201 })
  assert.deepEqual(await ownersOf(one.endpoint), ['bob'])
  // Another tenant's browser of the same name is another one.
  await call('POST', SUBSCRIBE, { subscription: one }, { as: await t.other.token('alice'), status: 201 })
  assert.deepEqual(
    [await ownersOf(one.endpoint), await ownersOf(one.endpoint, t.other)],
    [['bob'], ['alice']],
  )
})

test('keys that were sealed for one browser open for no other', async () => {
  const as = await t.tenant.token('alice')
  const [one, two] = [subscription(), subscription()]
  for (const each of [one, two]) await call('POST', SUBSCRIBE, { subscription: each }, { as, status: 201 })
  await t.db.run(
    sql(
      'test_swap_keys',
      `update devices d set keys = o.keys from devices o
       where d.tenant_id = $1 and o.tenant_id = $1 and d.token = $2 and o.token = $3`,
    ),
    [t.tenant.id, one.endpoint, two.endpoint],
  )
  await assert.rejects(settingsOf(one.endpoint))
  assert.deepEqual(await settingsOf(two.endpoint), { kind: 'web_push', ...two.keys })
})

test('what is no subscription is refused, and whose it is, is not free to choose', async () => {
  const as = await t.tenant.token('alice')
  const good = subscription()
  for (const [wrong, code] of [
    [{ ...good, endpoint: 'http://push.example.net/1' }, 'invalid_address'],
    [{ ...good, endpoint: 'no url' }, 'invalid_address'],
    [{ ...good, keys: { ...good.keys, auth: 'c2hvcnQ' } }, 'invalid_address'],
    [{ ...good, keys: { ...good.keys, p256dh: good.keys.auth } }, 'invalid_address'],
    [{ ...good, keys: {} }, 'invalid_request'],
    [{ ...good, more: 1 }, 'invalid_request'],
  ] as const) {
    const { body } = await call('POST', SUBSCRIBE, { subscription: wrong }, { as, status: 400 })
    assert.equal(body.code, code)
  }
  const payload = { subscription: good }
  await call('POST', SUBSCRIBE, payload, { status: 401 })
  await call('POST', `${SUBSCRIBE}?userId=bob`, payload, { as, status: 403 })
  await call('POST', SUBSCRIBE, payload, { as: t.tenant.serviceKey, status: 400 })
  await call('POST', `${SUBSCRIBE}?userId=nobody`, payload, { as: t.tenant.serviceKey, status: 404 })
  assert.deepEqual(await ownersOf(good.endpoint), [])
  await call('POST', `${SUBSCRIBE}?userId=bob`, payload, { as: t.tenant.serviceKey, status: 201 })
  assert.deepEqual(await ownersOf(good.endpoint), ['bob'])
})

// covers: AUR-144, AUR-149
test('unsubscribing takes the endpoint from the body or the query, and nobody else’s browser', async () => {
  const as = await t.tenant.token('alice')
  const bob = await t.tenant.token('bob')
  const ways: [string, (endpoint: string) => [string, object | undefined]][] = [
    ['DELETE', endpoint => [UNSUBSCRIBE, { endpoint }]],
    ['DELETE', endpoint => [`${UNSUBSCRIBE}?endpoint=${encodeURIComponent(endpoint)}`, undefined]],
    ['POST', endpoint => [UNSUBSCRIBE, { endpoint }]],
  ]
  for (const [method, way] of ways) {
    const one = subscription()
    await call('POST', SUBSCRIBE, { subscription: one }, { as, status: 201 })
    const [url, body] = way(one.endpoint)
    await call(method, url, body, { as: bob, status: 204 })
    assert.deepEqual(await ownersOf(one.endpoint), ['alice'])
    await call(method, url, body, { as, status: 204 })
    assert.deepEqual(await ownersOf(one.endpoint), [])
    await call(method, url, body, { as, status: 204 })
  }
  for (const method of ['DELETE', 'POST']) {
    await call(method, UNSUBSCRIBE, method === 'POST' ? {} : undefined, { as, status: 400 })
    await call(method, UNSUBSCRIBE, { endpoint: 'https://x.example' }, { status: 401 })
  }
})

test('a service worker renews its subscription with the old one’s secret, and with nothing else', async () => {
  const [old, fresh] = [subscription(), subscription()]
  await call('POST', SUBSCRIBE, { subscription: old }, { as: await t.tenant.token('alice'), status: 201 })
  const renewal = { tenant: t.tenant.name, endpoint: old.endpoint, auth: old.keys.auth, subscription: fresh }
  for (const wrong of [
    { auth: randomBytes(16).toString('base64url') },
    { auth: 'c2hvcnQ' },
    { auth: '%%' },
    { tenant: t.other.name },
    { tenant: 'nobody' },
    { endpoint: fresh.endpoint },
  ]) {
    const { body } = await call('POST', RENEW, { ...renewal, ...wrong }, { status: 404 })
    // Nobody learns which subscriptions there are.
    assert.equal(body.detail, 'There is no such subscription.')
  }
  assert.deepEqual([await ownersOf(old.endpoint), await ownersOf(fresh.endpoint)], [['alice'], []])
  await call('POST', RENEW, renewal, { status: 204 })
  assert.deepEqual([await ownersOf(old.endpoint), await ownersOf(fresh.endpoint)], [[], ['alice']])
  assert.deepEqual(await settingsOf(fresh.endpoint), { kind: 'web_push', ...fresh.keys })
  await call('POST', RENEW, renewal, { status: 404 })
})

test('what a push service calls gone is removed; what was sent to is noted once an hour', async () => {
  const as = await t.tenant.token('alice')
  const [one, two] = [subscription(), subscription()]
  for (const each of [one, two]) await call('POST', SUBSCRIBE, { subscription: each }, { as, status: 201 })
  const device = { kind: 'web_push', token: one.endpoint } as const
  const at = new Date(Date.now() + 2 * 3_600_000)
  const soon = new Date(at.getTime() + 60_000)
  assert.equal(await touchDevices(t.db, t.tenant.id, [device], at), 1)
  assert.equal(await touchDevices(t.db, t.tenant.id, [device], soon), 0)
  assert.equal(await touchDevices(t.db, t.other.id, [device], at), 0)
  const row = (await devices()).find(({ token }) => token === one.endpoint)!
  assert.equal(row.last_used_at.getTime(), at.getTime())
  assert.equal(await removeDeadDevices(t.db, t.tenant.id, [device]), 1)
  assert.deepEqual([await ownersOf(one.endpoint), await ownersOf(two.endpoint)], [[], ['alice']])
})

test('the service worker comes as a script that may rule the whole site and is always asked for anew', async () => {
  const { headers, body, statusCode } = await t.request('GET', '/sw.js?tenant=acme')
  assert.equal(statusCode, 200)
  assert.equal(headers['content-type'], 'text/javascript; charset=utf-8')
  assert.equal(headers['service-worker-allowed'], '/')
  assert.equal(headers['cache-control'], 'no-cache')
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.match(String(headers['content-security-policy']), /connect-src 'self'/)
  assert.match(body, /addEventListener\('push'/)
})
