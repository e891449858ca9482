import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from '../db/pool.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, type TestTenant, testApi } from '../test/api.ts'
import { openAddressSettings } from './addresses.ts'
import { removeDeadDevices } from './devices.ts'
import { peopleRoutes } from './routes.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [peopleRoutes] })
})
after(() => t.close())

/** One request, as a service unless `as` says otherwise; the body comes back parsed. */
async function call(
  method: string,
  url: string,
  payload?: object,
  { as = t.tenant.serviceKey, status }: { as?: string; status?: number } = {},
) {
  const response = await t.request(method, url, { as, payload })
  if (status !== undefined) assert.equal(response.statusCode, status, `${method} ${url}: ${response.body}`)
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.body === '' ? null : response.json(),
  }
}

const auditOf = (objectId: string) =>
  t.db.rows<{ action: string }>(
    sql('test_audit_of', 'select action from audit where tenant_id = $1 and object_id = $2 order by id'),
    [t.tenant.id, objectId],
  )

test('every route keeps the rules of all routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

test('a user is created, changed, read and disabled', async () => {
  const made = await call(
    'PUT',
    '/api/users/u%2F1%20%C3%A9',
    {
      locale: 'de-ch',
      timezone: 'Europe/Zurich',
      attributes: { tier: 'gold', plan: { seats: 3 } },
      addresses: [{ channel: 'email', address: 'Ann@Example.ORG', verified: true }],
      groups: ['ops', 'ops'],
      roles: ['on-call'],
      topics: [{ name: 'news', level: 'IMPORTANT' }],
    },
    { status: 201 },
  )
  assert.equal(made.headers.location, '/api/users/u%2F1%20%C3%A9')
  const { addresses, createdAt, updatedAt, ...user } = made.body
  assert.deepEqual(user, {
    userId: 'u/1 é',
    enabled: true,
    locale: 'de-CH',
    timezone: 'Europe/Zurich',
    attributes: { tier: 'gold', plan: { seats: 3 } },
    groups: ['ops'],
    roles: ['on-call'],
    topics: [{ name: 'news', level: 'IMPORTANT' }],
    erasedAt: null,
  })
  assert.equal(addresses[0].address, 'Ann@example.org')
  assert.equal(addresses[0].verification, 'verified')
  assert.ok(!Number.isNaN(Date.parse(createdAt)) && !Number.isNaN(Date.parse(updatedAt)))

  // What is left out stays; what is given replaces; an address still listed keeps its id and verification.
  const changed = await call(
    'PUT',
    '/api/users/u%2F1%20%C3%A9',
    {
      groups: ['dev'],
      addresses: [
        { channel: 'sms', address: '+41791234567' },
        { channel: 'email', address: 'Ann@example.org' },
      ],
    },
    { status: 200 },
  )
  assert.deepEqual(changed.body.groups, ['dev'])
  assert.deepEqual(changed.body.roles, ['on-call'])
  assert.equal(changed.body.locale, 'de-CH')
  const email = changed.body.addresses.find((a: { channel: string }) => a.channel === 'email')
  assert.equal(email.id, addresses[0].id)
  assert.equal(email.verification, 'verified')
  assert.equal(
    changed.body.addresses.find((a: { channel: string }) => a.channel === 'sms').verification,
    'pending',
  )

  const patched = await call(
    'PATCH',
    '/api/users/u%2F1%20%C3%A9',
    { attributes: { tier: null, new: 1 } },
    { status: 200 },
  )
  assert.deepEqual(patched.body.attributes, { plan: { seats: 3 }, new: 1 })

  await call('DELETE', '/api/users/u%2F1%20%C3%A9', undefined, { status: 204 })
  assert.equal(
    (await call('GET', '/api/users/u%2F1%20%C3%A9', undefined, { status: 200 })).body.enabled,
    false,
  )
  assert.deepEqual(
    (await auditOf('u/1 é')).map(row => row.action),
    ['user.created', 'user.updated', 'user.updated', 'user.disabled'],
  )
})

test('what is wrong with one address is said by its field', async () => {
  await call('PUT', '/api/users/one-address', {})
  for (const [body, field] of [
    [{ channel: 'email', address: 'nobody' }, '/address'],
    [
      { channel: 'webhook', address: 'https://x.example/', settings: { secret: 'short' } },
      '/settings/secret',
    ],
  ] as const) {
    const { status, body: problem } = await call('POST', '/api/users/one-address/addresses', body)
    assert.deepEqual([status, problem.errors[0].field], [400, field])
  }
})

test('what is wrong with a user is said by field, and nothing is written', async () => {
  for (const [body, code, field] of [
    [{ locale: 'de_CH' }, 'invalid_request', '/locale'],
    [{ timezone: 'Mars/Olympus' }, 'invalid_schedule', '/timezone'],
    [{ timezone: '+02:00' }, 'invalid_schedule', '/timezone'],
    [{ attributes: { a: 'x'.repeat(17_000) } }, 'invalid_request', '/attributes'],
    [{ addresses: [{ channel: 'email', address: 'nobody' }] }, 'invalid_address', '/addresses/0/address'],
    [
      {
        addresses: [
          { channel: 'email', address: 'a@x.org' },
          { channel: 'email', address: 'a@X.ORG' },
        ],
      },
      'invalid_address',
      '/addresses/1/address',
    ],
    [{ topics: [{ name: 'a' }, { name: 'a' }] }, 'invalid_request', '/topics'],
    [{ unknown: 1 }, 'invalid_request', '/unknown'],
  ] as const) {
    const { body: problem } = await call('PUT', '/api/users/wrong', body, { status: 400 })
    assert.equal(problem.code, code)
    assert.equal(problem.errors[0].field, field)
  }
  await call('GET', '/api/users/wrong', undefined, { status: 404 })
  for (const id of ['defaults', 'global', 'a%0Ab', 'x'.repeat(256)]) {
    await call('PUT', `/api/users/${id}`, {}, { status: 400 })
  }
})

test('erasing destroys the key and what was stored in the clear, keeps the row, and is final', async () => {
  await call('PUT', '/api/users/gone', {
    locale: 'fr',
    attributes: { name: 'Secret Name' },
    addresses: [{ channel: 'email', address: 'secret@example.org' }],
    groups: ['ops'],
  })
  await call('POST', '/api/users/gone/devices', { kind: 'fcm', token: 'secret-token' }, { status: 201 })
  await call('PUT', '/api/preferences/gone', { globalEnabled: false }, { status: 200 })
  await call('POST', '/api/users/gone/erase', undefined, { status: 403 })
  const erased = await call('POST', '/api/users/gone/erase', undefined, {
    as: t.tenant.adminKey,
    status: 200,
  })
  assert.notEqual(erased.body.erasedAt, null)
  assert.deepEqual(erased.body.addresses, [])
  const left = await t.db.rows<{ row: string }>(
    sql(
      'test_left_of_user',
      `select row_to_json(u)::text as row from users u where user_id = 'gone'
       union all select row_to_json(a)::text from addresses a where user_id = 'gone'
       union all select row_to_json(d)::text from devices d where user_id = 'gone'
       union all select row_to_json(m)::text from memberships m where user_id = 'gone'
       union all select row_to_json(p)::text from preferences p where user_id = 'gone'`,
    ),
  )
  assert.equal(left.length, 1)
  const row = JSON.parse(left[0]!.row)
  assert.deepEqual([row.data_key, row.enabled, row.attributes, row.locale], [null, false, {}, 'en'])

  const again = await call('POST', '/api/users/gone/erase', undefined, { as: t.tenant.adminKey, status: 200 })
  assert.equal(again.body.erasedAt, erased.body.erasedAt)
  for (const [method, path, body] of [
    ['PUT', '/api/users/gone', { enabled: true }],
    ['PATCH', '/api/users/gone', { enabled: true }],
    ['POST', '/api/users/gone/addresses', { channel: 'email', address: 'a@example.org' }],
    ['POST', '/api/users/gone/devices', { kind: 'fcm', token: 't' }],
    ['PUT', '/api/preferences/gone', { globalEnabled: true }],
  ] as const) {
    await call(method, path, body, { status: 410 })
  }
  assert.equal((await auditOf('gone')).filter(row => row.action === 'user.erased').length, 1)
})

test('many users come in one request; each fails alone and says why', async () => {
  await call('PUT', '/api/users/bulk-old', { locale: 'fr', groups: ['kept'] })
  const users = [
    ...Array.from({ length: 997 }, (_, i) => ({
      userId: `bulk-${String(i).padStart(3, '0')}`,
      addresses: [{ channel: 'email', address: `b${i}@example.org`, verified: true }],
      groups: ['bulk', `bulk-${i % 3}`],
    })),
    { userId: 'bulk-old', timezone: 'Asia/Tokyo' },
    { userId: 'bulk-bad', addresses: [{ channel: 'sms', address: '0791234567' }] },
    { userId: 'bulk-000', locale: 'fr' },
  ]
  const { body } = await call('POST', '/api/users/bulk', { users }, { status: 200 })
  assert.deepEqual([body.created, body.updated, body.failed], [997, 1, 2])
  assert.deepEqual(
    body.results.map((r: { userId: string }) => r.userId),
    users.map(u => u.userId),
  )
  assert.deepEqual(body.results[998].error, {
    code: 'invalid_address',
    detail: body.results[998].error.detail,
    field: '/addresses/0/address',
  })
  assert.equal(body.results[999].error.code, 'conflict')
  await call('GET', '/api/users/bulk-bad', undefined, { status: 404 })
  const old = (await call('GET', '/api/users/bulk-old')).body
  assert.deepEqual([old.locale, old.timezone, old.groups], ['fr', 'Asia/Tokyo', ['kept']])
  assert.equal((await call('GET', '/api/users/bulk-007')).body.addresses[0].address, 'b7@example.org')

  const key = await t.db.one<{ data_key: Buffer }>(
    sql('test_data_key', `select data_key from users where tenant_id = $1 and user_id = 'bulk-007'`),
    [t.tenant.id],
  )
  assert.equal(t.sealer.unwrap(key!.data_key).length, 32)

  // The same again changes nothing: no row is written, no cache has to forget anybody.
  const count = sql('test_count_changes', `select count(*) as n from changes where kind = 'user'`)
  const changes = (await t.db.one<{ n: number }>(count))!.n
  const again = await call('POST', '/api/users/bulk', { users }, { status: 200 })
  assert.deepEqual([again.body.created, again.body.updated, again.body.failed], [0, 998, 2])
  assert.equal((await t.db.one<{ n: number }>(count))!.n, changes)
})

test('users are listed by id and filtered by group, role, topic and whether they are enabled', async () => {
  const tenant = t.other
  const as = tenant.serviceKey
  const users = Array.from({ length: 25 }, (_, i) => ({
    userId: `l${String(i).padStart(2, '0')}`,
    enabled: i % 2 === 0,
    groups: i % 3 === 0 ? ['threes'] : [],
    roles: i % 5 === 0 ? ['fives'] : [],
    topics: i < 10 ? [{ name: 'tens' }] : [],
  }))
  await call('POST', '/api/users/bulk', { users }, { as, status: 200 })
  const walk = async (query: string) => {
    const found: string[] = []
    let cursor = ''
    do {
      const { body } = await call('GET', `/api/users?limit=4${query}${cursor}`, undefined, {
        as,
        status: 200,
      })
      assert.ok(body.items.length <= 4)
      found.push(...body.items.map((u: { userId: string }) => u.userId))
      cursor = body.nextCursor === null ? '' : `&cursor=${body.nextCursor}`
    } while (cursor !== '')
    return found
  }
  const expected = (keep: (i: number) => boolean) => users.filter((_, i) => keep(i)).map(u => u.userId)
  assert.deepEqual(
    await walk(''),
    expected(() => true),
  )
  assert.deepEqual(
    await walk('&enabled=false'),
    expected(i => i % 2 === 1),
  )
  assert.deepEqual(
    await walk('&group=threes'),
    expected(i => i % 3 === 0),
  )
  assert.deepEqual(
    await walk('&group=threes&role=fives&enabled=true'),
    expected(i => i % 30 === 0),
  )
  assert.deepEqual(
    await walk('&topic=tens&group=threes'),
    expected(i => i < 10 && i % 3 === 0),
  )
  assert.deepEqual(await walk('&group=nobody'), [])
  await call('GET', '/api/users?cursor=nonsense', undefined, { as, status: 400 })
})

test('a person keeps their own addresses, and cannot call one verified', async () => {
  await call('PUT', '/api/users/self', {})
  const as = await t.tenant.token('self')
  const { body: added, headers } = await call(
    'POST',
    '/api/users/self/addresses',
    { channel: 'email', address: 'me@example.org' },
    { as, status: 201 },
  )
  assert.equal(headers.location, `/api/users/self/addresses/${added.id}`)
  assert.deepEqual([added.verification, added.verifiedAt], ['pending', null])
  await call(
    'POST',
    '/api/users/self/addresses',
    { channel: 'email', address: 'me@EXAMPLE.org' },
    { as, status: 409 },
  )
  await call(
    'POST',
    '/api/users/self/addresses',
    { channel: 'email', address: 'b@example.org', verified: true },
    { as, status: 403 },
  )
  await call('PATCH', `/api/users/self/addresses/${added.id}`, { verified: true }, { as, status: 403 })
  const verified = await call(
    'PATCH',
    `/api/users/self/addresses/${added.id}`,
    { verified: true },
    { status: 200 },
  )
  assert.equal(verified.body.verification, 'verified')
  const relabelled = await call(
    'PATCH',
    `/api/users/self/addresses/${added.id}`,
    { label: 'work' },
    { as, status: 200 },
  )
  assert.deepEqual(
    [relabelled.body.verification, relabelled.body.verifiedAt],
    ['verified', verified.body.verifiedAt],
  )
  const moved = await call(
    'PATCH',
    `/api/users/self/addresses/${added.id}`,
    { address: 'new@example.org' },
    { as, status: 200 },
  )
  assert.deepEqual([moved.body.verification, moved.body.verifiedAt], ['pending', null])
  assert.equal((await call('GET', '/api/users/self/addresses', undefined, { as })).body.items.length, 1)
  await call('DELETE', `/api/users/self/addresses/${added.id}`, undefined, { as, status: 204 })
  await call('DELETE', `/api/users/self/addresses/${added.id}`, undefined, { as, status: 404 })
  assert.deepEqual((await call('GET', '/api/users/self/addresses', undefined, { as })).body.items, [])
  await call('GET', '/api/users/nobody/addresses', undefined, { status: 404 })
})

test('a user has at most 50 addresses', async () => {
  const addresses = Array.from({ length: 50 }, (_, i) => ({ channel: 'email', address: `a${i}@example.org` }))
  await call('PUT', '/api/users/many', { addresses }, { status: 201 })
  await call(
    'PUT',
    '/api/users/many',
    { addresses: [...addresses, { channel: 'sms', address: '+41791234567' }] },
    { status: 400 },
  )
  await call(
    'POST',
    '/api/users/many/addresses',
    { channel: 'sms', address: '+41791234567' },
    { status: 409 },
  )
})

test("a webhook's secrets are sealed for it, opened for the provider, and never shown", async () => {
  const secret = `whsec_${Buffer.alloc(32, 7).toString('base64')}`
  const settings = { secret, batch: 20, headers: { Authorization: 'Bearer top-secret' } }
  await call('PUT', '/api/users/hooked', {})
  const { body: added } = await call(
    'POST',
    '/api/users/hooked/addresses',
    { channel: 'webhook', address: 'https://example.org/hook', settings, verified: true },
    { status: 201 },
  )
  assert.deepEqual(added.settings, { batch: 20, hasSecret: true, headerNames: ['Authorization'] })
  const stored = async (id: string) =>
    (await t.db.one<{ settings: { sealed?: string } }>(
      sql('test_address_settings', 'select settings from addresses where tenant_id = $1 and id = $2'),
      [t.tenant.id, id],
    ))!.settings
  const row = await t.db.one<{ data_key: Buffer }>(
    sql('test_tenant_key', 'select data_key from tenants where id = $1'),
    [t.tenant.id],
  )
  const key = t.sealer.unwrap(row!.data_key)
  const before = await stored(added.id)
  assert.doesNotMatch(JSON.stringify(before), /top-secret|whsec_/)
  assert.deepEqual(openAddressSettings(t.sealer, key, { id: added.id, settings: before }), settings)
  assert.throws(
    () =>
      openAddressSettings(t.sealer, key, { id: '00000000-0000-7000-8000-000000000000', settings: before }),
    /cannot be opened/,
  )

  const path = `/api/users/hooked/addresses/${added.id}`
  const changed = await call('PATCH', path, { settings: { headers: null, batch: 5 } }, { status: 200 })
  assert.deepEqual(changed.body.settings, { batch: 5, hasSecret: true })
  assert.deepEqual(openAddressSettings(t.sealer, key, { id: added.id, settings: await stored(added.id) }), {
    secret,
    batch: 5,
  })
  const auth = {
    type: 'oauth2',
    tokenUrl: 'https://id.example/token',
    clientId: 'c',
    clientSecret: 'top-secret',
  }
  const proven = await call('PATCH', path, { settings: { auth, method: 'PUT' } }, { status: 200 })
  assert.deepEqual(proven.body.settings, { batch: 5, method: 'PUT', authType: 'oauth2', hasSecret: true })
  assert.doesNotMatch(JSON.stringify(await stored(added.id)), /top-secret|id\.example/)
  assert.deepEqual(openAddressSettings(t.sealer, key, { id: added.id, settings: await stored(added.id) }), {
    secret,
    batch: 5,
    auth,
    method: 'PUT',
  })
  for (const wrong of [
    { ...auth, clientSecret: undefined },
    { type: 'bearer', token: 'a b' },
    { type: 'apikey', token: 'k', header: 'Host' },
  ]) {
    await call('PATCH', path, { settings: { auth: wrong } }, { status: 400 })
  }
  await call('PATCH', path, { settings: { auth: null, method: null } }, { status: 200 })

  // The caller never saw the secret, so listing the address without it must not lose it.
  await call('PUT', '/api/users/hooked', {
    addresses: [{ channel: 'webhook', address: 'https://example.org/hook' }],
  })
  assert.deepEqual(openAddressSettings(t.sealer, key, { id: added.id, settings: await stored(added.id) }), {
    secret,
    batch: 5,
  })
  const cleared = await call('PATCH', path, { settings: { secret: null, batch: null } }, { status: 200 })
  assert.deepEqual(cleared.body.settings, {})

  for (const [bad, field] of [
    [{ secret: 'whsec_c2hvcnQ=' }, '/settings/secret'],
    [{ secret: 'not base64' }, '/settings/secret'],
    [{ headers: { Host: 'x' } }, '/settings/headers'],
    [{ headers: { 'webhook-id': 'x' } }, '/settings/headers'],
    [{ headers: { ok: 'a\r\nb: c' } }, '/settings/headers'],
    [{ batch: 51 }, '/settings/batch'],
  ] as const) {
    const { body } = await call('PATCH', path, { settings: bad }, { status: 400 })
    assert.equal(body.errors[0].field, field)
  }
  await call(
    'POST',
    '/api/users/hooked/addresses',
    { channel: 'email', address: 'a@example.org', settings: { batch: 2 } },
    { status: 400 },
  )
})

// covers: DIC-131
test('a user has many devices; one that somebody else registers moves to them; the longest unused goes', async () => {
  await call('PUT', '/api/users/phone-a', {})
  await call('PUT', '/api/users/phone-b', {})
  const web = {
    kind: 'web_push',
    token: 'https://push.example.org/sub/1',
    keys: {
      p256dh: Buffer.concat([Buffer.from([4]), Buffer.alloc(64, 1)]).toString('base64url'),
      auth: Buffer.alloc(16).toString('base64url'),
    },
  }
  const { body: first } = await call(
    'POST',
    '/api/users/phone-a/devices',
    { kind: 'fcm', token: 'token-1' },
    { status: 201 },
  )
  assert.equal(first.tokenEnd, 'oken-1')
  const { body: again } = await call(
    'POST',
    '/api/users/phone-a/devices',
    { kind: 'fcm', token: 'token-1' },
    { status: 200 },
  )
  assert.equal(again.id, first.id)
  await call('POST', '/api/users/phone-a/devices', web, { status: 201 })
  const list = async (user: string) =>
    (await call('GET', `/api/users/${user}/devices`, undefined, { status: 200 })).body.items
  assert.equal((await list('phone-a')).length, 2)
  assert.doesNotMatch(JSON.stringify(await list('phone-a')), /p256dh|push\.example/)

  await call('POST', '/api/users/phone-b/devices', { kind: 'fcm', token: 'token-1' }, { status: 201 })
  assert.deepEqual(
    (await list('phone-a')).map((d: { kind: string }) => d.kind),
    ['web_push'],
  )

  for (let i = 0; i < 50; i++)
    await call('POST', '/api/users/phone-b/devices', { kind: 'apns', token: `apns-${i}` }, { status: 201 })
  const devices = await list('phone-b')
  assert.equal(devices.length, 50)
  assert.ok(devices.every((d: { kind: string }) => d.kind === 'apns'))
  await call('DELETE', `/api/users/phone-b/devices/${devices[0].id}`, undefined, { status: 204 })
  await call('DELETE', `/api/users/phone-b/devices/${devices[0].id}`, undefined, { status: 404 })

  const dead = [
    { kind: 'apns' as const, token: 'apns-7' },
    { kind: 'apns' as const, token: 'apns-8' },
    { kind: 'fcm' as const, token: 'apns-9' },
  ]
  assert.equal(await removeDeadDevices(t.db, t.other.id, dead), 0, "another tenant's stay")
  assert.equal(await removeDeadDevices(t.db, t.tenant.id, dead), 2)
  assert.equal((await list('phone-b')).length, 47)
  await call('GET', '/api/users/nobody/devices', undefined, { status: 404 })

  for (const bad of [
    { ...web, keys: undefined },
    { ...web, token: 'http://push.example.org' },
    { ...web, keys: { ...web.keys, auth: 'AA' } },
    { kind: 'fcm', token: 'with blank' },
    { kind: 'apns', token: 'x', keys: web.keys },
  ]) {
    assert.equal(
      (await call('POST', '/api/users/phone-a/devices', bad, { status: 400 })).body.code,
      'invalid_address',
    )
  }
})

// covers: DIC-057
test('groups, roles and topics are made, described, filled, emptied and deleted', async () => {
  await call(
    'POST',
    '/api/users/bulk',
    { users: Array.from({ length: 5 }, (_, i) => ({ userId: `m${i}` })) },
    { status: 200 },
  )
  for (const kind of ['groups', 'roles', 'topics']) {
    const made = await call('POST', `/api/${kind}`, { name: 'team a/b', description: 'x' }, { status: 201 })
    const path = `/api/${kind}/team%20a%2Fb`
    assert.equal(made.headers.location, path)
    await call('POST', `/api/${kind}`, { name: 'team a/b' }, { status: 409 })
    assert.equal(
      (await call('PATCH', path, { description: 'the team' }, { status: 200 })).body.description,
      'the team',
    )
    assert.equal((await call('GET', path, undefined, { status: 200 })).body.description, 'the team')
    assert.ok(
      (await call('GET', `/api/${kind}`)).body.items.some((a: { name: string }) => a.name === 'team a/b'),
    )

    const userIds = ['m3', 'm1', 'm0', 'm2', 'm1', 'stranger']
    const added = await call('POST', `${path}/members`, { userIds }, { status: 200 })
    assert.deepEqual(added.body, { changed: 4, unknown: ['stranger'] })
    assert.equal((await call('POST', `${path}/members`, { userIds: ['m0'] })).body.changed, 0)
    const page = await call('GET', `${path}/members?limit=3`, undefined, { status: 200 })
    const rest = await call('GET', `${path}/members?limit=3&cursor=${page.body.nextCursor}`, undefined, {
      status: 200,
    })
    const ids = [...page.body.items, ...rest.body.items].map((m: { userId: string }) => m.userId)
    assert.deepEqual(ids, ['m0', 'm1', 'm2', 'm3'])
    assert.equal(page.body.items[0].level, kind === 'topics' ? 'ALL' : undefined)
    assert.deepEqual(
      (await call('POST', `${path}/members/remove`, { userIds: ['m0', 'm4'] }, { status: 200 })).body,
      {
        removed: 1,
      },
    )
    await call('DELETE', path, undefined, { status: 204 })
    for (const [method, url, body] of [
      ['DELETE', path, undefined],
      ['GET', path, undefined],
      ['PATCH', path, { description: '' }],
      ['GET', `${path}/members`, undefined],
      ['POST', `${path}/members`, { userIds: ['m0'] }],
      ['POST', `${path}/members/remove`, { userIds: ['m0'] }],
    ] as const) {
      await call(method, url, body, { status: 404 })
    }
  }
  assert.deepEqual((await call('GET', '/api/users/m3')).body.groups, [])
})

test('a person subscribes to a topic, at a level, and refuses it', async () => {
  await call('PUT', '/api/users/reader', {})
  await call('POST', '/api/topics', { name: 'weekly' })
  const as = await t.tenant.token('reader')
  const topics = async () =>
    (await call('GET', '/api/users/reader/topics', undefined, { as, status: 200 })).body.items
  await call('PUT', '/api/users/reader/topics/weekly', { level: 'IMPORTANT' }, { as, status: 200 })
  assert.deepEqual(await topics(), [{ name: 'weekly', level: 'IMPORTANT' }])
  await call('PUT', '/api/users/reader/topics/weekly', { level: 'NONE' }, { as, status: 200 })
  assert.deepEqual(await topics(), [{ name: 'weekly', level: 'NONE' }])
  await call('PUT', '/api/users/reader/topics/unheard-of', { level: 'ALL' }, { as, status: 404 })
  await call('PUT', '/api/users/reader/topics/weekly', { level: 'SOME' }, { as, status: 400 })
  await call('DELETE', '/api/users/reader/topics/weekly', undefined, { as, status: 204 })
  assert.deepEqual(await topics(), [])
})

// covers: ALP-113, ALP-114
test('preferences are read with the defaults filled in, and changed in part', async () => {
  await call('PUT', '/api/users/picky', {
    locale: 'de',
    timezone: 'Europe/Berlin',
    addresses: [{ channel: 'email', address: 'old@example.org', verified: true }],
  })
  await call('POST', '/api/topics', { name: 'gardening' })
  const as = await t.tenant.token('picky')
  const { body: fresh } = await call('GET', '/api/preferences/picky', undefined, { as, status: 200 })
  assert.equal(fresh.globalEnabled, true)
  const plain = ({ preferences, ...channel }: { preferences: object }) => {
    assert.deepEqual(Object.keys(preferences), ['marketing', 'transactional', 'alerts', 'social'])
    return channel
  }
  assert.deepEqual(plain(fresh.channels.email), {
    enabled: true,
    address: 'old@example.org',
    verificationStatus: 'VERIFIED',
  })
  assert.deepEqual(plain(fresh.channels.inApp), { enabled: true })
  assert.deepEqual(fresh.topics, { customTopics: {} })
  assert.deepEqual([fresh.language, fresh.timezone], ['de', 'Europe/Berlin'])

  const { body: changed } = await call(
    'PUT',
    '/api/preferences/picky',
    {
      channels: {
        email: { address: 'new@example.org' },
        sms: { enabled: false, address: '+491701234567' },
      },
      topics: { trading: 'IMPORTANT', customTopics: { gardening: 'NONE' } },
      language: 'fr',
    },
    { as, status: 200 },
  )
  assert.deepEqual(plain(changed.channels.email), {
    enabled: true,
    address: 'new@example.org',
    verificationStatus: 'PENDING',
  })
  assert.deepEqual(plain(changed.channels.sms), {
    enabled: false,
    address: '+491701234567',
    verificationStatus: 'PENDING',
  })
  assert.deepEqual(changed.topics, { trading: 'IMPORTANT', customTopics: { gardening: 'NONE' } })
  assert.deepEqual([changed.language, changed.timezone], ['fr', 'Europe/Berlin'])
  assert.ok(changed.lastUpdated > fresh.lastUpdated)
  // The verified address is still there to be used until the new one is verified.
  const { body: addresses } = await call('GET', '/api/users/picky/addresses')
  assert.deepEqual(
    addresses.items
      .filter((a: { channel: string }) => a.channel === 'email')
      .map((a: { address: string }) => a.address),
    ['old@example.org', 'new@example.org'],
  )

  // What was read can be sent back; it says the same, and verifies nothing.
  const sentBack = {
    ...changed,
    channels: { ...changed.channels, sms: { ...changed.channels.sms, verificationStatus: 'VERIFIED' } },
  }
  const { body: same } = await call('PUT', '/api/preferences/picky', sentBack, { as, status: 200 })
  assert.deepEqual({ ...same, lastUpdated: '' }, { ...changed, lastUpdated: '' })

  for (const [bad, code] of [
    [{ channels: { fax: { enabled: true } } }, 'invalid_request'],
    [{ quietHours: { begin: '22:00' } }, 'invalid_request'],
    [{ userId: 'somebody' }, 'invalid_request'],
    [{ channels: { inApp: { address: 'x' } } }, 'invalid_address'],
    [{ timezone: 'Nowhere' }, 'invalid_schedule'],
  ] as const) {
    assert.equal((await call('PUT', '/api/preferences/picky', bad, { as, status: 400 })).body.code, code)
  }
  await call(
    'PUT',
    '/api/preferences/picky',
    { topics: { customTopics: { unheard: 'ALL' } } },
    { as, status: 404 },
  )
  await call('GET', '/api/preferences/nobody', undefined, { status: 404 })
})

// covers: ALP-038
test('each documented topic, and any other by its name, takes ALL, IMPORTANT and NONE', async () => {
  await call('PUT', '/api/users/topical', {})
  await call('POST', '/api/topics', { name: 'knitting' })
  const named = ['trading', 'community', 'marketplace', 'system', 'educational', 'social']
  for (const level of ['ALL', 'IMPORTANT', 'NONE']) {
    const topics = {
      ...Object.fromEntries(named.map(name => [name, level])),
      customTopics: { knitting: level },
    }
    assert.deepEqual(
      (await call('PUT', '/api/preferences/topical', { topics }, { status: 200 })).body.topics,
      topics,
    )
    assert.deepEqual((await call('GET', '/api/preferences/topical')).body.topics, topics)
  }
  const ended = { ...Object.fromEntries(named.map(name => [name, null])), customTopics: { knitting: null } }
  const { body } = await call('PUT', '/api/preferences/topical', { topics: ended }, { status: 200 })
  assert.deepEqual(body.topics, { customTopics: {} })
  await call('PUT', '/api/preferences/topical', { topics: { trading: 'SOME' } }, { status: 400 })
})

test("the tenant's defaults hold where a person says nothing", async () => {
  const { adminKey, serviceKey } = t.other
  await call('PUT', '/api/users/default-a', {}, { as: serviceKey })
  await call('PUT', '/api/users/default-b', {}, { as: serviceKey })
  await call(
    'PUT',
    '/api/preferences/default-b',
    { channels: { email: { enabled: true } } },
    { as: serviceKey, status: 200 },
  )
  await call(
    'PUT',
    '/api/preferences/defaults',
    { channels: { email: { enabled: false } } },
    { as: serviceKey, status: 403 },
  )
  const { body } = await call(
    'PUT',
    '/api/preferences/defaults',
    { channels: { email: { enabled: false } } },
    { as: adminKey, status: 200 },
  )
  assert.deepEqual(
    [body.globalEnabled, body.channels.email, body.channels.sms],
    [null, { enabled: false }, { enabled: null }],
  )
  const email = async (user: string) =>
    (await call('GET', `/api/preferences/${user}`, undefined, { as: serviceKey })).body.channels.email.enabled
  assert.equal(await email('default-a'), false)
  assert.equal(await email('default-b'), true)
  await call(
    'PUT',
    '/api/preferences/default-b',
    { channels: { email: { enabled: null } } },
    { as: serviceKey, status: 200 },
  )
  assert.equal(await email('default-b'), false)
  await call(
    'PUT',
    '/api/preferences/defaults',
    { channels: { email: { enabled: null } } },
    { as: adminKey, status: 200 },
  )
  assert.equal(await email('default-a'), true)
  assert.equal(
    (await call('GET', '/api/preferences/defaults')).body.lastUpdated,
    null,
    "another tenant's stay",
  )
})

test('addresses are suppressed and released in whatever spelling', async () => {
  const { body: made } = await call(
    'POST',
    '/api/suppressions',
    { channel: 'email', address: 'Stop@EXAMPLE.org', reason: 'complaint', expiresAt: '2100-01-01T00:00:00Z' },
    { status: 201 },
  )
  assert.deepEqual(
    [made.address, made.reason, made.expiresAt],
    ['Stop@example.org', 'complaint', '2100-01-01T00:00:00.000Z'],
  )
  await call('POST', '/api/suppressions', { channel: 'sms', address: '+41790000001' }, { status: 201 })
  await call('POST', '/api/suppressions', { channel: 'sms', address: '+41790000000' }, { status: 201 })
  const { body: replaced } = await call(
    'POST',
    '/api/suppressions',
    { channel: 'sms', address: '+41790000000', reason: 'unsubscribe' },
    { status: 201 },
  )
  assert.equal(replaced.reason, 'unsubscribe')
  const all: string[] = []
  let cursor = ''
  do {
    const { body } = await call('GET', `/api/suppressions?limit=1${cursor}`, undefined, { status: 200 })
    all.push(...body.items.map((s: { address: string }) => s.address))
    cursor = body.nextCursor === null ? '' : `&cursor=${body.nextCursor}`
  } while (cursor !== '')
  assert.deepEqual(all, ['Stop@example.org', '+41790000000', '+41790000001'])
  assert.equal((await call('GET', '/api/suppressions?channel=sms')).body.items.length, 2)
  await call('DELETE', '/api/suppressions?channel=email&address=Stop@Example.Org', undefined, { status: 204 })
  await call('DELETE', '/api/suppressions?channel=email&address=Stop@Example.Org', undefined, { status: 404 })
  await call('POST', '/api/suppressions', { channel: 'email', address: 'nobody' }, { status: 400 })
})

let made: ReturnType<typeof makeRoutes> | undefined
const everyRoute = () => (made ??= makeRoutes(t.tenant))

/** Every route of people with what it takes, about things that exist in the tenant it is made for. */
async function makeRoutes(tenant: TestTenant) {
  const as = tenant.adminKey
  await call(
    'PUT',
    '/api/users/victim',
    { attributes: { of: tenant.name }, groups: ['crew'], roles: ['crew'], topics: [{ name: 'crew' }] },
    { as },
  )
  const address = (
    await call(
      'POST',
      '/api/users/victim/addresses',
      { channel: 'email', address: 'v@example.org' },
      { as, status: 201 },
    )
  ).body.id
  const device = (
    await call(
      'POST',
      '/api/users/victim/devices',
      { kind: 'fcm', token: 'victim-token' },
      { as, status: 201 },
    )
  ).body.id
  await call('POST', '/api/suppressions', { channel: 'email', address: 'v@example.org' }, { as, status: 201 })
  const audience = (kind: string): [string, string, object?][] => [
    ['GET', `/api/${kind}/crew`],
    ['PATCH', `/api/${kind}/crew`, { description: 'taken over' }],
    ['GET', `/api/${kind}/crew/members`],
    ['POST', `/api/${kind}/crew/members`, { userIds: ['intruder'] }],
    ['POST', `/api/${kind}/crew/members/remove`, { userIds: ['victim'] }],
    ['DELETE', `/api/${kind}/crew`],
  ]
  const routes: [method: string, url: string, body?: object][] = [
    ['GET', '/api/users/victim'],
    ['PATCH', '/api/users/victim', { enabled: false }],
    ['DELETE', '/api/users/victim'],
    ['POST', '/api/users/victim/erase'],
    ['GET', '/api/users/victim/addresses'],
    ['POST', '/api/users/victim/addresses', { channel: 'email', address: 'x@example.org' }],
    ['PATCH', `/api/users/victim/addresses/${address}`, { label: 'x' }],
    ['DELETE', `/api/users/victim/addresses/${address}`],
    ['GET', '/api/users/victim/devices'],
    ['POST', '/api/users/victim/devices', { kind: 'fcm', token: 'other' }],
    ['DELETE', `/api/users/victim/devices/${device}`],
    ['GET', '/api/users/victim/topics'],
    ['PUT', '/api/users/victim/topics/crew', { level: 'NONE' }],
    ['DELETE', '/api/users/victim/topics/crew'],
    ['GET', '/api/preferences/victim'],
    ['PUT', '/api/preferences/victim', { globalEnabled: false }],
    ['POST', '/api/preferences/victim/channels', { channel: 'email', enabled: false }],
    ['GET', '/api/preferences/victim/subscriptions'],
    ['PUT', '/api/preferences/victim/subscriptions', { trading: 'NONE' }],
    ['PUT', '/api/preferences/victim/quiet-hours', { enabled: true }],
    ['POST', '/api/preferences/victim/sync', { globalEnabled: false, lastUpdated: '2100-01-01T00:00:00Z' }],
    ['PUT', '/api/preferences/victim/mute', { until: new Date(Date.now() + 3_600_000).toISOString() }],
    ['DELETE', '/api/preferences/victim/mute'],
    ['GET', '/api/preferences/victim/opinions'],
    ['PUT', '/api/preferences/victim/opinions', { scope: 'rule:x', enabled: false }],
    ['DELETE', '/api/preferences/victim/opinions?scope=rule:x'],
    ['POST', '/api/preferences/evaluate', { userId: 'victim' }],
    ['GET', '/api/users/victim/preferences'],
    ['PUT', '/api/users/victim/preferences', { enabled: false }],
    ['GET', '/api/users/victim/consents'],
    ['POST', '/api/users/victim/consents', { granted: true, origin: 'a form' }],
    ['GET', '/api/notifications/preferences?userId=victim'],
    [
      'PUT',
      '/api/notifications/preferences?userId=victim',
      { channel: 'email', settings: { enabled: false } },
    ],
    ...audience('groups'),
    ...audience('roles'),
    ...audience('topics'),
    ['DELETE', '/api/suppressions?channel=email&address=v@example.org'],
  ]
  /** Served to every tenant, with its own things only. */
  const shared: [method: string, url: string, body?: object][] = [
    ['GET', '/api/users'],
    ['GET', '/api/users?group=crew'],
    ['POST', '/api/users/bulk', { users: [{ userId: 'victim', attributes: { of: 'intruder' } }] }],
    ['PUT', '/api/users/victim', { attributes: { of: 'intruder' } }],
    ['GET', '/api/groups'],
    ['POST', '/api/groups', { name: 'crew' }],
    ['GET', '/api/roles'],
    ['POST', '/api/roles', { name: 'crew' }],
    ['GET', '/api/topics'],
    ['POST', '/api/topics', { name: 'crew' }],
    ['GET', '/api/preferences/defaults'],
    ['PUT', '/api/preferences/defaults', { globalEnabled: false }],
    ['GET', '/api/preferences/defaults/opinions'],
    ['PUT', '/api/preferences/defaults/opinions', { scope: 'rule:x', mode: 'OPTED_OUT' }],
    ['DELETE', '/api/preferences/defaults/opinions?scope=rule:x'],
    ['GET', '/api/suppressions'],
    ['POST', '/api/suppressions', { channel: 'email', address: 'v@example.org' }],
  ]
  return { routes, shared }
}

const rowsOf = async (tenantId: number) =>
  JSON.stringify(
    await t.db.rows(
      sql(
        'test_rows_of_tenant',
        [
          'users',
          'addresses',
          'devices',
          'audiences',
          'memberships',
          'preferences',
          'consents',
          'suppressions',
        ]
          .map(
            table =>
              `(select '${table}' as t, row_to_json(x)::text as row from ${table} x where tenant_id = $1 order by 2)`,
          )
          .join(' union all '),
      ),
      [tenantId],
    ),
  )

test('no route reaches into another tenant', async () => {
  const { routes, shared } = await everyRoute()
  const listed = new Set([...routes, ...shared].map(([method, url]) => `${method} ${url.split('?')[0]}`))
  for (const route of t.api.allRoutes) {
    if (
      route.method === 'HEAD' ||
      !/^\/api\/(users|groups|roles|topics|preferences|notifications|suppressions)/.test(route.url)
    )
      continue
    const pattern = new RegExp(`^${route.method} ${route.url.replaceAll(/:[a-zA-Z]+/g, '[^/]+')}$`)
    assert.ok(
      [...listed].some(name => pattern.test(name)),
      `${route.method} ${route.url} is not tried here`,
    )
  }
  const before = await rowsOf(t.tenant.id)
  const as = t.other.adminKey
  for (const [method, url, body] of routes) {
    const { status, body: answer } = await call(method, url, body, { as })
    assert.ok(status === 404, `${method} ${url} answered ${status}: ${JSON.stringify(answer)}`)
  }
  for (const [method, url, body] of shared) {
    const { status, body: answer } = await call(method, url, body, { as })
    assert.ok(status < 300, `${method} ${url} answered ${status}`)
    assert.doesNotMatch(JSON.stringify(answer), /"of":"default"|bulk-0/)
  }
  // By now the other tenant has a user, a group … of the same names; it still changes only its own.
  for (const [method, url, body] of routes) await call(method, url, body, { as })
  assert.equal(await rowsOf(t.tenant.id), before)
})

test('a person reaches only what is theirs, and a key only what its scopes say', async () => {
  const { routes, shared } = await everyRoute()
  const before = await rowsOf(t.tenant.id)
  const stranger = await t.tenant.token('intruder')
  const reader = await t.tenant.scopedKey('admin', ['people:read'])
  const elsewhere = await t.tenant.scopedKey('admin', ['rules:write', 'rules:read'])
  for (const [method, url, body] of [...routes, ...shared]) {
    await call(method, url, body, { as: stranger, status: 403 })
    await call(method, url, body, { as: elsewhere, status: 403 })
    // A question that is too long for an address.
    const reads = method === 'GET' || url === '/api/preferences/evaluate'
    if (!reads) await call(method, url, body, { as: reader, status: 403 })
    assert.equal((await t.request(method, url, { payload: body })).statusCode, 401)
  }
  assert.equal(await rowsOf(t.tenant.id), before)
})
