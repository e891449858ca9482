import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { changeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, testApi } from '../test/api.ts'
import type { Event, JsonObject } from '../types.ts'
import { compileSchema, violation } from './event-schema.ts'
import { eventTypeBook } from './event-types.ts'
import { eventTypeRoutes } from './event-types-routes.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [eventTypeRoutes] })
})
after(() => t.close())

async function call(method: string, url: string, payload?: object, as = t.tenant.adminKey) {
  const response = await t.request(method, url, { as, ...(payload && { payload }) })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.body === '' ? undefined : response.json(),
  }
}

const order: JsonObject = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  $id: 'https://example.com/order',
  type: 'object',
  required: ['sku', 'n'],
  properties: {
    sku: { type: 'string', pattern: '^[A-Z]+$' },
    code: { type: 'string', pattern: '^[0-9]+$' },
    n: { type: 'integer', minimum: 1 },
    mail: { type: 'string', format: 'email' },
    lines: { type: 'array', items: { $ref: '#/$defs/line' } },
  },
  $defs: { line: { type: 'object', required: ['a/b'] } },
}

const event = (type: string, data: JsonObject, more: Partial<Event> = {}): Event => ({
  tenantId: t.tenant.id,
  id: '01930000-0000-7000-8000-000000000001',
  source: 'test',
  type,
  time: new Date(0),
  receivedAt: new Date(0),
  data,
  ...more,
})

/** A book as a worker has it: one look, then what it loads. */
function openBook() {
  const watch = changeWatch()
  const book = eventTypeBook(watch)
  let queries = 0
  const counted = {
    ...t.db,
    rows: <R>(...args: Parameters<typeof t.db.rows>) => {
      queries++
      return t.db.rows<R>(...args)
    },
  }
  return {
    refuse: book.refuse,
    queries: () => queries,
    async look() {
      await watch.look(t.db)
      await book.refresh(counted)
    },
  }
}

// ------------------------------------------------------------------ schemas

test('the first difference is named by place and expectation, never by value', () => {
  const check = compileSchema(order)
  const at = (data: JsonObject) => violation(check, data)
  assert.equal(at({ sku: 'AB', n: 1, mail: 'a@b.example', lines: [{ 'a/b': 1 }] }), null)
  assert.deepEqual(at({ n: 1 }), { field: '/data/sku', message: "must have required property 'sku'" })
  assert.deepEqual(at({ sku: 'secret', n: 1 }), {
    field: '/data/sku',
    message: 'must match pattern "^[A-Z]+$"',
  })
  assert.deepEqual(at({ sku: 'AB', n: 0 }), { field: '/data/n', message: 'must be >= 1' })
  assert.equal(at({ sku: 'AB', n: 1, mail: 'nobody' })?.field, '/data/mail')
  assert.equal(at({ sku: 'AB', n: 1, lines: [{ 'a/b': 1 }, {}] })?.field, '/data/lines/1/a~1b')
})

test('each pattern of a schema is its own', () => {
  const check = compileSchema(order)
  assert.equal(violation(check, { sku: 'AB', code: '12', n: 1 }), null)
  assert.equal(violation(check, { sku: 'AB', code: 'AB', n: 1 })?.field, '/data/code')
  const keyed = compileSchema({ patternProperties: { '^a': { type: 'number' }, '^b': { type: 'string' } } })
  assert.equal(violation(keyed, { a: 1, b: 'x' }), null)
  assert.equal(violation(keyed, { b: 1 })?.field, '/data/b')
})

test('a pattern that would never end in JavaScript ends', () => {
  const check = compileSchema({ properties: { a: { type: 'string', pattern: '^(a+)+$' } } })
  assert.equal(violation(check, { a: `${'a'.repeat(5_000)}!` })?.field, '/data/a')
})

test('what cannot be bounded is refused, with its place', () => {
  const deep = (n: number): JsonObject => (n === 0 ? {} : { not: deep(n - 1) })
  const doubling = Object.fromEntries(
    Array.from({ length: 30 }, (_, i) => [
      `d${i}`,
      { allOf: [{ $ref: `#/$defs/d${i + 1}` }, { $ref: `#/$defs/d${i + 1}` }] },
    ]),
  )
  const refused: [JsonObject, string][] = [
    [{ type: 'objekt' }, '/schema'],
    [{ propertyes: {} }, '/schema'],
    [{ properties: { a: { pattern: '(' } } }, '/schema'],
    [{ properties: { a: { pattern: '(?=a)' } } }, '/schema'],
    [{ properties: { a: { type: 'string', format: 'url' } } }, '/schema'],
    [{ $ref: 'https://example.com/x' }, '/schema/$ref'],
    [{ properties: { a: { $ref: '#/$defs/none' } } }, '/schema/properties/a/$ref'],
    [{ properties: { a: { $ref: '#' } } }, '/schema/properties/a/$ref'],
    [{ $ref: '#/$defs/a', $defs: { a: { $ref: '#/$defs/a' } } }, '/schema/$ref/$ref'],
    [{ $async: true }, '/schema/$async'],
    [{ items: { $dynamicRef: '#x' } }, '/schema/items/$dynamicRef'],
    [{ items: { $id: 'x' } }, '/schema/items/$id'],
    [{ type: 'array', uniqueItems: true }, '/schema/uniqueItems'],
    [deep(40), '/schema'],
    [{ description: 'x'.repeat(70_000) }, '/schema'],
  ]
  for (const [schema, field] of refused) {
    assert.throws(
      () => compileSchema(schema),
      (error: unknown) => {
        assert.ok(error instanceof AppError, String(error))
        assert.deepEqual(
          [error.code, error.errors?.[0]?.field],
          ['invalid_schema', field],
          JSON.stringify(schema),
        )
        return true
      },
    )
  }
  assert.throws(
    () => compileSchema({ $ref: '#/$defs/d0', $defs: { ...doubling, d30: {} } }),
    /at most 5000 subschemas/,
    'a billion subschemas in 2 kB',
  )
})

test('names of keywords are allowed as names of properties', () => {
  const check = compileSchema({
    properties: { $ref: { type: 'string' }, $id: { type: 'string' }, $async: { type: 'boolean' } },
    required: ['$ref'],
  })
  assert.equal(violation(check, { $ref: 'x', $id: 'y', $async: true }), null)
  assert.equal(violation(check, { $ref: 1 })?.field, '/data/$ref')
})

test('a schema with the name of the meta-schema harms nobody after it', () => {
  const taken = 'https://json-schema.org/draft/2020-12/schema'
  compileSchema({ $id: taken, type: 'object' })
  assert.ok(violation(compileSchema({ $schema: taken, type: 'object', required: ['a'] }), {}))
  assert.throws(() => compileSchema({ type: 'nothing' }), AppError)
})

// ------------------------------------------------------------------ routes

test('every route keeps the rules of routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

test('a type is registered, replaced, read, listed, switched off', async () => {
  const made = await call('PUT', '/api/event-types/crud.order.made', {
    description: 'An order',
    category: 'orders',
    priority: 'MEDIUM',
    schema: order,
  })
  assert.equal(made.status, 201, JSON.stringify(made.body))
  assert.equal(made.headers.location, '/api/event-types/crud.order.made')
  const { createdAt, updatedAt, ...rest } = made.body
  assert.ok(createdAt === updatedAt)
  assert.deepEqual(rest, {
    type: 'crud.order.made',
    description: 'An order',
    category: 'orders',
    priority: 'NORMAL',
    schema: order,
    enabled: true,
  })
  assert.deepEqual((await call('GET', '/api/event-types/crud.order.made')).body, made.body)

  const same = await call('PUT', '/api/event-types/crud.order.made', { ...rest, type: undefined })
  assert.deepEqual([same.status, same.body.updatedAt], [200, updatedAt], 'what is so already is not written')
  const changed = await call('PUT', '/api/event-types/crud.order.made', { priority: 'HIGH', category: null })
  assert.deepEqual(
    [
      changed.status,
      changed.body.priority,
      changed.body.category,
      changed.body.schema,
      changed.body.description,
    ],
    [200, 'HIGH', null, null, ''],
  )
  assert.equal((await call('DELETE', '/api/event-types/crud.order.made')).status, 204)
  assert.equal((await call('GET', '/api/event-types/crud.order.made')).body.enabled, false)

  const rows = await t.db.rows<{ action: string; details: { before?: object; after: object } }>(
    sql(
      'audit_of_type',
      `select action, details from audit where tenant_id = $1 and object_id = $2 order by id`,
    ),
    [t.tenant.id, 'crud.order.made'],
  )
  assert.deepEqual(
    rows.map(row => row.action),
    ['event_type.created', 'event_type.updated', 'event_type.updated'],
  )
  assert.deepEqual(rows[2]!.details, { before: { enabled: true }, after: { enabled: false } })

  for (const type of ['crud.b', 'crud.c', 'crud.x%y']) {
    assert.equal((await call('PUT', `/api/event-types/${encodeURIComponent(type)}`, {})).status, 201)
  }
  const names: string[] = []
  for (let cursor = ''; ; ) {
    const page = await call('GET', `/api/event-types?prefix=crud.&limit=3${cursor && `&cursor=${cursor}`}`)
    names.push(...page.body.items.map((item: { type: string }) => item.type))
    if (page.body.nextCursor === null) break
    cursor = page.body.nextCursor
  }
  assert.deepEqual(names, ['crud.b', 'crud.c', 'crud.order.made', 'crud.x%y'])
  const off = await call('GET', '/api/event-types?prefix=crud.&enabled=false')
  assert.deepEqual(
    off.body.items.map((item: { type: string }) => item.type),
    ['crud.order.made'],
  )
  assert.equal(
    (await call('GET', '/api/event-types?prefix=crud%25')).body.items.length,
    0,
    '% is a letter here',
  )
})

test('data can be tried against the schema', async () => {
  await call('PUT', '/api/event-types/try.it', { schema: order })
  const tried = (data: object, type = 'try.it') => call('POST', `/api/event-types/${type}/validate`, { data })
  assert.deepEqual((await tried({ sku: 'A', n: 1 })).body, { valid: true, errors: [] })
  assert.deepEqual((await tried({ sku: 'A', n: 'x' })).body, {
    valid: false,
    errors: [{ field: '/data/n', message: 'must be integer' }],
  })
  await call('PUT', '/api/event-types/try.any', {})
  assert.equal((await tried({ x: 1 }, 'try.any')).body.valid, true)
  assert.equal((await tried({}, 'try.none')).status, 404)
})

test('bad input is refused under its field', async () => {
  const put = async (body: object) => {
    const { status, body: problem } = await call('PUT', '/api/event-types/bad.input', body)
    return [status, problem.code, problem.errors?.[0]?.field]
  }
  assert.deepEqual(await put({ schema: { type: 'objekt' } }), [400, 'invalid_schema', '/schema'])
  assert.deepEqual(await put({ schema: { $ref: '#' } }), [400, 'invalid_schema', '/schema/$ref'])
  assert.deepEqual(await put({ schemas: {} }), [400, 'invalid_request', '/schemas'])
  assert.deepEqual((await put({ priority: 'URGENT' })).slice(0, 2), [400, 'invalid_request'])
  assert.equal((await call('PUT', '/api/event-types/bad%20name', {})).status, 400)
  assert.equal((await call('GET', '/api/event-types/bad.input')).status, 404, 'nothing half done')
  assert.equal((await call('GET', '/api/event-types?cursor=bogus')).body.code, 'invalid_cursor')
})

test('no route shows or changes the types of another tenant', async () => {
  await call('PUT', '/api/event-types/mine.only', { category: 'secret' })
  const theirs = t.other.adminKey
  for (const [method, path, body] of [
    ['GET', '/mine.only'],
    ['DELETE', '/mine.only'],
    ['POST', '/mine.only/validate', { data: {} }],
  ] as const) {
    assert.equal((await call(method, `/api/event-types${path}`, body, theirs)).status, 404, method)
  }
  assert.deepEqual((await call('GET', '/api/event-types?prefix=mine', undefined, theirs)).body.items, [])
  assert.equal((await call('PUT', '/api/event-types/mine.only', { category: 'theirs' }, theirs)).status, 201)
  assert.equal((await call('GET', '/api/event-types/mine.only')).body.category, 'secret')
})

test('keys need their scope, and users have no business here', async () => {
  const reader = await t.tenant.scopedKey('service', ['rules:read'])
  assert.equal((await call('GET', '/api/event-types', undefined, reader)).status, 200)
  assert.equal((await call('PUT', '/api/event-types/scoped', {}, reader)).status, 403)
  assert.equal((await call('DELETE', '/api/event-types/mine.only', undefined, reader)).status, 403)
  assert.equal((await call('GET', '/api/event-types', undefined, await t.tenant.token('alice'))).status, 403)
})

test('two requests that register one type at once: one made it, both answer', async () => {
  const results = await Promise.all(
    ['a', 'b', 'c', 'd'].map(category => call('PUT', '/api/event-types/at.once', { category })),
  )
  assert.deepEqual(
    results.map(({ status }) => status).toSorted((a, b) => a - b),
    [200, 200, 200, 201],
  )
})

// ------------------------------------------------------------------ in memory

test('the book knows what committed before the look, and asks only when something changed', async () => {
  const book = openBook()
  await book.look()
  const ask = (data: JsonObject = {}, type = 'book.order') => book.refuse(event(type, data))
  assert.equal(ask(), null, 'unknown types pass')

  await call('PUT', '/api/event-types/book.order', { schema: order, category: 'orders', priority: 'HIGH' })
  assert.equal(ask(), null, 'not before the look')
  await book.look()
  assert.deepEqual(ask(), {
    reason: 'schema_violation',
    field: '/data/sku',
    message: "must have required property 'sku'",
  })
  const queries = book.queries()
  await book.look()
  await book.look()
  assert.equal(book.queries(), queries, 'nothing changed, nothing asked')

  const plain = event('book.order', { sku: 'A', n: 1 })
  assert.equal(book.refuse(plain), null)
  assert.deepEqual([plain.category, plain.priority], ['orders', 'HIGH'])
  const stated = event('book.order', { sku: 'A', n: 1 }, { category: 'own', priority: 'LOW' })
  assert.equal(book.refuse(stated), null)
  assert.deepEqual([stated.category, stated.priority], ['own', 'LOW'])
  assert.equal(book.refuse(event('book.order', {}, { tenantId: t.other.id })), null, "another tenant's")

  await call('DELETE', '/api/event-types/book.order')
  await book.look()
  assert.deepEqual(ask({ sku: 'A', n: 1 }), {
    reason: 'event_type_disabled',
    field: '/type',
    message: 'This event type is switched off',
  })
})

test('a stored schema that no longer compiles refuses its events and harms no other type', async () => {
  const insert = sql(
    'insert_old_type',
    `insert into event_types (tenant_id, type, schema) values ($1, $2, $3)`,
  )
  await t.db.run(insert, [t.tenant.id, 'old.broken', '{"type": "objekt"}'])
  await t.db.run(insert, [t.tenant.id, 'old.fine', '{"type": "object"}'])
  const book = openBook()
  await book.look()
  assert.equal(book.refuse(event('old.broken', {}))?.reason, 'schema_violation')
  assert.equal(book.refuse(event('old.fine', {})), null)
})

test('a load that fails is tried again, and lanes that refresh at once all see the result', async () => {
  const watch = changeWatch()
  const book = eventTypeBook(watch)
  await watch.look(t.db)
  const broken = { ...t.db, rows: () => Promise.reject(new Error('gone')) }
  await assert.rejects(book.refresh(broken), /gone/)
  await book.refresh(t.db)
  await call('PUT', '/api/event-types/lanes.x', { schema: { required: ['a'] } })
  await watch.look(t.db)
  await assert.rejects(book.refresh(broken), /gone/)
  await Promise.all([book.refresh(t.db), book.refresh(t.db), book.refresh(t.db)])
  assert.equal(book.refuse(event('lanes.x', {}))?.field, '/data/a')
})
