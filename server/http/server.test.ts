import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect } from 'node:net'
import { after, before, test } from 'node:test'
import { Type } from 'typebox'
import { adminRoutes } from '../admin/routes.ts'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import { AppError, ERRORS } from '../errors.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { testDatabase } from '../test/database.ts'
import type { Api } from './api.ts'
import { auth as openAuth, requireSelf } from './auth.ts'
import { brokenRouteRules } from './route-rules.ts'
import { buildServer } from './server.ts'

const anyone = { config: { access: { role: 'public' } } } as const
const person = { config: { access: { role: 'user' } } } as const

/** Routes that show what the server does around any route. */
function echoRoutes(api: Api, { db }: { db: TestApi['db'] }): void {
  const body = Type.Object(
    {
      text: Type.String({ maxLength: 100 }),
      count: Type.Optional(Type.Integer({ minimum: 0 })),
      at: Type.Optional(Type.String({ format: 'date-time' })),
      id: Type.Optional(Type.String({ format: 'uuid' })),
      list: Type.Optional(Type.Array(Type.Integer(), { maxItems: 1000 })),
    },
    { additionalProperties: false },
  )
  api.post('/echo', { ...anyone, schema: { body } }, request => request.body)
  api.post('/any', { ...anyone, bodyLimit: 2000 }, request => ({ body: request.body ?? null }))
  api.get(
    '/query',
    {
      ...anyone,
      schema: {
        querystring: Type.Object(
          {
            n: Type.Integer(),
            on: Type.Boolean({ default: true }),
            tag: Type.Optional(Type.Array(Type.String())),
          },
          { additionalProperties: false },
        ),
      },
    },
    request => request.query,
  )
  api.get('/me', person, request => request.caller)
  api.get('/users/:userId', person, request => {
    const { userId } = request.params as { userId: string }
    requireSelf(request, userId)
    return { userId, tenantId: request.caller.tenantId }
  })
  api.get('/rules', { config: { access: { role: 'service', scope: 'rules:read' } } }, () => ({}))
  api.get('/stream', { config: { access: { role: 'user', queryToken: true } } }, request => request.caller)
  api.get('/trace', anyone, request => ({ traceId: request.traceId ?? null }))
  api.post('/hook', { config: { ...anyone.config, rawBody: true } }, request => ({
    raw: request.rawBody?.toString('base64'),
    parsed: Buffer.isBuffer(request.body) ? null : request.body,
  }))
  api.get('/throw/:what', anyone, async request => {
    const { what } = request.params as { what: string }
    if (what === 'secret') throw new Error('password=hunter2')
    if (what === 'string') throw 'hunter2' // oxlint-disable-line only-throw-error
    if (what === 'tier')
      throw new AppError('tier_limit_exceeded', 'Ten a day.', { extra: { tier: 'free', code: 'x' } })
    if (what === 'sql') await db.one(sql('bad_uuid', 'select $1::uuid'), ['no uuid'])
    if (what === 'killed') await db.one(sql('kill_me', 'select pg_terminate_backend(pg_backend_pid())'))
    if (what === 'broken-sql') await db.one(sql('broken', 'select hunter2 from nowhere'))
    return {}
  })
}

let t: TestApi
before(async () => {
  t = await testApi({ routes: [echoRoutes, adminRoutes] })
})
after(() => t.close())

test('every failure is a problem of RFC 9457 with its code, path and request id', async () => {
  const response = await t.request('GET', '/nowhere?secret=1')
  assert.equal(response.statusCode, 404)
  assert.match(String(response.headers['content-type']), /^application\/problem\+json/)
  const problem = response.json()
  assert.deepEqual(problem, {
    type: '/docs/errors#not_found',
    title: ERRORS.not_found.title,
    status: 404,
    detail: 'Nothing is at this path.',
    instance: '/nowhere',
    code: 'not_found',
    requestId: response.headers['x-request-id'],
  })
})

// covers: AUR-147
test('a problem bears the documented number; extra members never replace the documented ones', async () => {
  const response = await t.request('GET', '/throw/tier')
  const problem = response.json()
  assert.equal(response.statusCode, 403)
  assert.deepEqual([problem.code, problem.number, problem.tier], ['tier_limit_exceeded', 4031, 'free'])
})

// covers: AUR-148
test('every numbered error of the list exists with its status', () => {
  const numbers = Object.fromEntries(
    Object.entries(ERRORS).flatMap(([code, row]) => ('numeric' in row ? [[row.numeric, code]] : [])),
  )
  assert.deepEqual(numbers, {
    4001: 'invalid_rule',
    4002: 'invalid_sensor_data',
    4003: 'missing_preferences',
    4031: 'tier_limit_exceeded',
    4032: 'channel_not_allowed',
    4033: 'quiet_hours_active',
    5001: 'delivery_failed',
    5002: 'channel_unavailable',
    5003: 'external_service_error',
    5031: 'worker_overloaded',
    5032: 'queue_full',
    5033: 'database_error',
  })
  for (const row of Object.values(ERRORS)) {
    if ('numeric' in row) assert.equal(Math.floor(row.numeric / 10), row.status)
  }
})

test('what nobody expected tells nothing', async () => {
  for (const what of ['secret', 'string', 'broken-sql']) {
    const response = await t.request('GET', `/throw/${what}`)
    assert.equal(response.statusCode, 500)
    assert.equal(response.json().code, 'internal')
    assert.doesNotMatch(response.body, /hunter2|nowhere|password/)
  }
})

test('a value PostgreSQL refuses is the request’s fault, a lost connection is 503', async () => {
  const bad = await t.request('GET', '/throw/sql')
  assert.deepEqual([bad.statusCode, bad.json().code], [400, 'invalid_request'])
  const lost = await t.request('GET', '/throw/killed')
  assert.deepEqual([lost.statusCode, lost.json().code, lost.json().number], [503, 'database_error', 5033])
  assert.equal(lost.headers['retry-after'], '1')
})

test('a database that is away is 503, also for credentials', async () => {
  const database = await testDatabase()
  const { db } = database
  const api = await buildServer({ auth: openAuth({ db }), version: '0', limits: false })
  api.get('/me', person, request => request.caller)
  await database.drop()
  const response = await api.inject({ url: '/me', headers: { 'x-api-key': `crl_${'A'.repeat(32)}` } })
  assert.deepEqual([response.statusCode, response.json().code], [503, 'database_error'])
  await api.close()
})

test('a wrong method is 405 and says which are right', async () => {
  const response = await t.request('DELETE', '/api/keys')
  assert.deepEqual([response.statusCode, response.json().code], [405, 'method_not_allowed'])
  assert.equal(response.headers.allow, 'GET, HEAD, POST')
  assert.equal((await t.request('PUT', `/api/keys/${newId()}`)).headers.allow, 'DELETE')
  assert.equal((await t.request('PUT', '/api/keys/a/b')).statusCode, 404)
  assert.equal((await t.request('GET', '/api/keys/')).statusCode, 404)
})

const post = (url: string, payload: string | Buffer, type = 'application/json') =>
  t.request('POST', url, { payload, headers: { 'content-type': type } })

test('bodies: malformed, empty, poisoned, too large, too deep, of the wrong type', async () => {
  const code = async (...args: Parameters<typeof post>) => {
    const response = await post(...args)
    return `${response.statusCode} ${response.json().code}`
  }
  assert.equal(await code('/echo', '{"text":'), '400 malformed_body')
  assert.equal(await code('/echo', '{"text":"a"}}'), '400 malformed_body')
  assert.equal(await code('/echo', ''), '400 invalid_request')
  assert.equal(await code('/any', '{"__proto__":{"admin":true}}'), '400 malformed_body')
  assert.equal(await code('/any', '{"a":{"constructor":{"prototype":{"x":1}}}}'), '400 malformed_body')
  assert.equal(await code('/any', Buffer.from([0x22, 0xff, 0x22])), '400 malformed_body')
  assert.equal(await code('/any', '"\\u0000"'), '400 invalid_request')
  assert.equal(await code('/any', '['.repeat(900) + ']'.repeat(900)), '400 invalid_request')
  assert.equal(await code('/any', `"${'x'.repeat(2000)}"`), '413 body_too_large')
  assert.equal(await code('/echo', `{"text":"${'x'.repeat(1024 * 1024)}"}`), '413 body_too_large')
  assert.equal(
    await code('/echo', 'text=a', 'application/x-www-form-urlencoded'),
    '415 unsupported_media_type',
  )
  assert.equal(await code('/echo', '<a/>', 'text/xml; charset=utf-8'), '415 unsupported_media_type')
  assert.equal(await code('/echo', '{}', 'nonsense'), '415 unsupported_media_type')
})

test('CloudEvents types are JSON, and no body is no body', async () => {
  for (const type of ['application/cloudevents+json; charset=utf-8', 'application/cloudevents-batch+json']) {
    assert.deepEqual((await post('/any', '{"a":1}', type)).json(), { body: { a: 1 } })
  }
  assert.deepEqual((await t.request('POST', '/any')).json(), { body: null })
})

test('the bytes of a signed callback stay as they came, whatever their type', async () => {
  const text = '{ "a" : 1.0 }'
  assert.deepEqual((await post('/hook', text)).json(), {
    raw: Buffer.from(text).toString('base64'),
    parsed: { a: 1 },
  })
  const form = 'Body=Hi+there'
  assert.deepEqual((await post('/hook', form, 'application/x-www-form-urlencoded')).json(), {
    raw: Buffer.from(form).toString('base64'),
    parsed: null,
  })
})

test('unknown fields and wrong types are refused, and every wrong field is named', async () => {
  const response = await post('/echo', JSON.stringify({ txt: 'a', count: '1', list: [1, 'x'] }))
  assert.equal(response.statusCode, 400)
  assert.deepEqual(
    response
      .json()
      .errors.map((e: { field: string; message: string }) => `${e.field} ${e.message}`)
      .toSorted(),
    ['/count must be integer', '/list/1 must be integer', '/text is required', '/txt is not a known field'],
  )
  const many = await post('/echo', JSON.stringify({ text: 'a', list: Array(900).fill('x') }))
  assert.equal(many.json().errors.length, 20, 'an answer stays small')
})

test('times and ids are only taken as PostgreSQL takes them', async () => {
  const status = async (part: object) =>
    (await post('/echo', JSON.stringify({ text: 'a', ...part }))).statusCode
  assert.equal(await status({ at: '2026-11-21T12:00:00.123+01:00' }), 200)
  assert.equal(await status({ id: newId().toUpperCase() }), 200)
  for (const at of [
    '2026-11-21',
    '2026-11-21T12:00:00',
    '2026-02-30T12:00:00Z',
    '2016-12-31T23:59:60Z',
    '0000-01-01T00:00:00Z',
    '0001-01-01T00:00:00+14:00',
    'tomorrow',
  ]) {
    assert.equal(await status({ at }), 400, at)
  }
  assert.equal(await status({ id: `urn:uuid:${newId()}` }), 400)
})

test('query values are read as what the schema says; a NUL is refused', async () => {
  assert.deepEqual((await t.request('GET', '/query?n=7&on=false&tag=a')).json(), {
    n: 7,
    on: false,
    tag: ['a'],
  })
  const bad = await t.request('GET', '/query?n=x&m=1')
  assert.deepEqual(
    bad
      .json()
      .errors.map((e: { field: string }) => e.field)
      .toSorted(),
    ['m', 'n'],
  )
  for (const url of ['/query?n=7&tag=%00', '/users/%00', '/users/a%00b']) {
    assert.equal((await t.request('GET', url)).json().code, 'invalid_request', url)
  }
  assert.equal((await t.request('GET', '/users/%zz')).json().code, 'invalid_request')
  assert.equal((await t.request('GET', `/throw/${'x'.repeat(4000)}`)).statusCode < 500, true)
})

// covers: ALP-187, AUR-145
test('without credentials nobody gets in, and the refusal does not say why', async () => {
  const none = await t.request('GET', '/me')
  assert.equal(none.statusCode, 401)
  assert.equal(none.headers['www-authenticate'], 'Bearer realm="carillon"')

  const bad = [
    { authorization: `Bearer crl_${'A'.repeat(32)}` },
    { authorization: 'Bearer a.b.c' },
    { authorization: 'Bearer' },
    { authorization: 'Basic YTpi' },
    { authorization: `Bearer ${t.tenant.adminKey} x` },
    { 'x-api-key': 'nonsense' },
    { 'x-api-key': await t.tenant.token('alice') },
  ]
  const bodies = new Set<string>()
  for (const headers of bad) {
    const response = await t.request('GET', '/me', { headers })
    assert.equal(response.statusCode, 401, JSON.stringify(headers))
    assert.equal(response.headers['www-authenticate'], 'Bearer realm="carillon", error="invalid_token"')
    bodies.add(JSON.stringify({ ...response.json(), requestId: '' }))
  }
  assert.equal(bodies.size, 1)
})

test('a key is taken from either header, a token in the address only where the route says so', async () => {
  const { adminKey } = t.tenant
  assert.equal((await t.request('GET', '/me', { as: adminKey })).json().tenantId, t.tenant.id)
  assert.equal((await t.request('GET', '/me', { headers: { 'x-api-key': adminKey } })).json().role, 'admin')
  const token = await t.tenant.token('alice')
  assert.equal((await t.request('GET', `/stream?access_token=${token}`)).json().userId, 'alice')
  assert.equal((await t.request('GET', `/me?access_token=${token}`)).statusCode, 401)
})

test('a missing scope is told as RFC 6750 says', async () => {
  const key = await t.tenant.scopedKey('service', ['events:write'])
  const response = await t.request('GET', '/rules', { as: key })
  assert.equal(response.statusCode, 403)
  assert.equal(
    response.headers['www-authenticate'],
    'Bearer realm="carillon", error="insufficient_scope", scope="rules:read"',
  )
  const user = await t.request('GET', '/rules', { as: await t.tenant.token('alice') })
  assert.equal(user.statusCode, 403)
  assert.equal(user.headers['www-authenticate'], undefined)
})

// covers: ALP-192
test('a user in the path is the caller, or the caller is more than a user', async () => {
  const alice = await t.tenant.token('alice')
  assert.equal((await t.request('GET', '/users/alice', { as: alice })).statusCode, 200)
  assert.equal((await t.request('GET', '/users/bob', { as: alice })).statusCode, 403)
  assert.equal((await t.request('GET', '/users/bob', { as: t.tenant.serviceKey })).statusCode, 200)
  const long = 'ü'.repeat(255)
  const own = await t.request('GET', `/users/${encodeURIComponent(long)}`, { as: await t.tenant.token(long) })
  assert.equal(own.json().userId, long)
})

test('the tenant is the credentials’, never the request’s', async () => {
  const mine = await t.request('GET', '/users/alice', { as: t.tenant.serviceKey })
  const theirs = await t.request('GET', '/users/alice', { as: t.other.serviceKey })
  assert.deepEqual([mine.json().tenantId, theirs.json().tenantId], [t.tenant.id, t.other.id])
})

test('a valid trace parent is known to the route, an invalid one ignored', async () => {
  const trace = '4bf92f3577b34da6a3ce929d0e0e4736'
  const get = async (traceparent: string) =>
    (await t.request('GET', '/trace', { headers: { traceparent } })).json().traceId
  assert.equal(await get(`00-${trace}-00f067aa0ba902b7-01`), trace)
  assert.equal(await get('nonsense'), null)
})

test('answers may not be framed, sniffed or scripted', async () => {
  const { headers } = await t.request('GET', '/trace')
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.match(String(headers['content-security-policy']), /default-src 'none'.*frame-ancestors 'none'/)
  assert.equal(headers['strict-transport-security'], undefined)
  assert.equal(headers['access-control-allow-origin'], undefined)
})

test('only listed origins may call from a page, and a preflight needs no credentials', async () => {
  const api = await buildServer({
    auth: openAuth({ db: t.db }),
    version: '0',
    corsOrigins: ['https://app.example.org'],
  })
  api.get('/me', person, request => request.caller)
  const preflight = (origin: string) =>
    api.inject({
      method: 'OPTIONS',
      url: '/me',
      headers: { origin, 'access-control-request-method': 'GET' },
    })
  const good = await preflight('https://app.example.org')
  assert.equal(good.statusCode, 204)
  assert.equal(good.headers['access-control-allow-origin'], 'https://app.example.org')
  const bad = await preflight('https://evil.example.org')
  assert.notEqual(bad.headers['access-control-allow-origin'], 'https://evil.example.org')
  await api.close()
})

test('a route without access stops the start', async () => {
  const api = await buildServer({ auth: openAuth({ db: t.db }), version: '0' })
  api.get('/open', () => 'x')
  await assert.rejects(Promise.resolve(api.ready()), /Routes without access: (GET|HEAD) \/open/)
  await api.close().catch(() => {})
})

// covers: AUR-146, DIC-094, ALP-187
test('requests are limited by person, by address and by key, each told when to come back', async () => {
  const limited = await testApi({
    routes: [echoRoutes],
    limits: { perUser: 3, perIp: 5, perKey: 8, failuresPerIp: 2 },
    // In the middle of a minute that does not end.
    limitsNow: () => 1_000_030_000,
  })
  try {
    const statuses = async (count: number, options: Parameters<typeof limited.request>[2]) => {
      const found: number[] = []
      for (let i = 0; i < count; i++) found.push((await limited.request('GET', '/me', options)).statusCode)
      return found
    }
    const from = (remoteAddress: string, as?: string) => ({ as, remoteAddress })
    const [alice, bob] = [await limited.tenant.token('alice'), await limited.tenant.token('bob')]
    assert.deepEqual(await statuses(4, from('10.0.0.1', alice)), [200, 200, 200, 429])
    assert.deepEqual(await statuses(1, from('10.0.0.9', alice)), [429], 'wherever she is')
    assert.deepEqual(await statuses(2, from('10.0.0.1', bob)), [200, 429], 'the address has had its five')
    assert.deepEqual(await statuses(1, from('10.0.0.2', bob)), [200])
    assert.deepEqual(await statuses(9, from('10.0.0.1', limited.tenant.serviceKey)), [
      ...Array(8).fill(200),
      429,
    ])
    assert.deepEqual(await statuses(1, from('10.0.0.1', limited.other.serviceKey)), [200])

    const first = await limited.request('GET', '/trace', from('10.0.0.3'))
    assert.deepEqual(
      ['ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset'].map(name => Number(first.headers[name])),
      [5, 4, 50],
    )
    assert.deepEqual(await statuses(3, from('10.0.0.4')), [401, 401, 429], 'guessing is limited first')
    assert.deepEqual(await statuses(1, from('10.0.0.4', limited.other.serviceKey)), [429])
    const refused = await limited.request('GET', '/me', from('10.0.0.4'))
    assert.equal(refused.json().code, 'rate_limited')
    assert.equal(refused.headers['retry-after'], '50')
  } finally {
    await limited.close()
  }
})

test('slow requests end, and bytes that are no HTTP are answered and the connection closed', async () => {
  const api = await buildServer({ auth: openAuth({ db: t.db }), version: '0' })
  await api.listen({ port: 0, host: '127.0.0.1' })
  const { keepAliveTimeout, requestTimeout, headersTimeout } = api.server
  assert.deepEqual([headersTimeout, requestTimeout, keepAliveTimeout], [15_000, 30_000, 72_000])
  const { port } = api.server.address() as AddressInfo
  for (const [bytes, status] of [
    ['HELLO\r\n\r\n', '400 Bad Request'],
    [`GET / HTTP/1.1\r\nHost: x\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`, '431 Request Header Fields Too Large'],
  ] as const) {
    const socket = connect(port, '127.0.0.1')
    socket.on('error', () => {})
    let answer = ''
    socket.on('data', chunk => (answer += String(chunk)))
    socket.write(bytes)
    await once(socket, 'close')
    assert.ok(answer.startsWith(`HTTP/1.1 ${status}`), answer)
    assert.equal(JSON.parse(answer.split('\r\n\r\n')[1]!).status, Number.parseInt(status, 10))
  }
  await api.close()
})

test('the admin routes keep every route rule; a careless route breaks them', async () => {
  const api = await buildServer({ auth: openAuth({ db: t.db }), version: '0' })
  adminRoutes(api, { db: t.db, sealer: t.sealer, auth: t.auth })
  assert.deepEqual(brokenRouteRules(api), [])
  api.put(
    '/careless/:id',
    {
      config: { access: { role: 'service' } },
      schema: {
        operationId: 'listKeys',
        body: Type.Object({ name: Type.String(), list: Type.Array(Type.Integer()) }),
      },
    },
    () => ({}),
  )
  api.put('/bodiless', { config: { access: { role: 'admin', scope: 'admin:write' } } }, () => ({}))
  assert.deepEqual(
    brokenRouteRules(api)
      .map(rule => rule.replace(/^PUT /, ''))
      .toSorted(),
    [
      '/bodiless: no 2xx response',
      '/bodiless: no operationId',
      '/bodiless: no schema of its body',
      '/bodiless: no summary',
      '/bodiless: no tags',
      '/careless/:id: body takes unknown fields',
      '/careless/:id: body/list is a list without maxItems',
      '/careless/:id: body/name is a text without maxLength',
      '/careless/:id: no 2xx response',
      '/careless/:id: no schema of :id',
      '/careless/:id: no scope, though keys may call it',
      '/careless/:id: no summary',
      '/careless/:id: no tags',
      '/careless/:id: operationId listKeys is also that of GET /api/keys',
    ],
  )
  await api.close().catch(() => {})
})
