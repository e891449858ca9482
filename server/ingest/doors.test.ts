import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { CloudEvent, HTTP } from 'cloudevents'
import { sql } from '../db/pool.ts'
import { type Answered, type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import { type Event } from '../types.ts'
import { readBinary, readStructured } from './cloudevents.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  for (const userId of ['alice', 'bob']) {
    const made = await t.call('PUT', `/api/users/${userId}`, { as: t.tenant.adminKey, body: {} })
    assert.ok(made.status < 300, made.text)
  }
  const rule = await t.call('POST', '/api/rules', {
    as: t.tenant.adminKey,
    body: {
      name: 'orders',
      eventTypes: ['order.paid'],
      channels: ['in_app'],
      recipientSelector: { users: ['alice'] },
    },
  })
  assert.equal(rule.status, 201, rule.text)
})
after(() => t?.stop())

const post = (path: string, body: unknown, headers?: Record<string, string>): Promise<Answered> =>
  t.call('POST', path, { as: t.tenant.serviceKey, body, headers })
const publish = (body: unknown, headers?: Record<string, string>) =>
  post('/api/events/publish', body, headers)
const batch = (events: unknown[]) => post('/api/events/batch', { events })
const send = (body: unknown) => post('/api/notifications', body)
const feed = async (userId: string) =>
  (await t.call('GET', '/api/notifications/feed', { as: await t.tenant.token(userId) })).body.items as Loose[]
const counted = async (table: 'events' | 'notifications' | 'dead_letters' | 'idempotency_keys') =>
  (await t.db.one<{ n: number }>(sql(`count_${table}`, `select count(*)::int n from ${table}`)))!.n
const statusOf = async (id: string) =>
  (await t.call('GET', `/api/events/status/${id}`, { as: t.tenant.serviceKey })).body
const fieldsOf = ({ body }: Answered) =>
  (body.errors as { field: string }[] | undefined)?.map(error => error.field)

// ------------------------------------------------------------------ our own events

// covers: ALP-077
test('one event is accepted, planned at once, and shows in the inbox', async () => {
  const answer = await publish({ type: 'order.paid', data: { title: 'Order 1', message: 'It is paid.' } })
  assert.equal(answer.status, 202, answer.text)
  assert.equal(answer.body.status, 'COMPLETED')
  assert.equal(answer.body.id, answer.body.eventId)
  const item = (await feed('alice')).find(one => one.eventId === answer.body.eventId)
  assert.ok(item, JSON.stringify(await feed('alice')))
  const status = await statusOf(answer.body.eventId)
  assert.equal(status.deliveries.length, 1)
  assert.equal(status.deliveries[0].channel, 'in_app')
  assert.equal(status.deliveries[0].status, 'delivered')
})

// covers: ALP-079, ALP-083
test('a batch answers each item at its place, and the bad ones stop nobody', async () => {
  const before = await counted('events')
  const answer = await batch([
    { type: 'order.paid' },
    { type: 'order paid' },
    { type: 'order.paid', priority: 'URGENT' },
    { type: 'TRADING', subtype: 'order_filled', userId: 'alice', channels: ['IN_APP'], data: { body: 'Hi' } },
    { specversion: '1.0', id: 'in-a-batch', source: '/b', type: 'order.paid' },
    { specversion: '0.3', id: 'in-a-batch', source: '/b', type: 'order.paid' },
    null,
  ])
  assert.equal(answer.status, 202, answer.text)
  const { results } = answer.body
  assert.deepEqual(
    results.map((one: Loose) => [one.index, one.status ?? one.error.code, one.error?.field]),
    [
      [0, 'COMPLETED', undefined],
      [1, 'invalid_request', '/type'],
      [2, 'invalid_request', '/priority'],
      [3, 'COMPLETED', undefined],
      [4, 'COMPLETED', undefined],
      [5, 'invalid_cloudevent', '/specversion'],
      [6, 'invalid_request', '/'],
    ],
  )
  assert.equal((await counted('events')) - before, 3)
  for (const { eventId } of results) if (eventId) assert.equal((await statusOf(eventId)).eventId, eventId)
})

test('a batch is bounded in items and takes no second field', async () => {
  const tooMany = await batch(Array.from({ length: 1001 }, () => ({ type: 'order.paid' })))
  assert.deepEqual(
    [tooMany.status, tooMany.body.code, fieldsOf(tooMany)],
    [400, 'invalid_request', ['/events']],
  )
  const extra = await post('/api/events/batch', { events: [{ type: 'order.paid' }], dryRun: true })
  assert.deepEqual([extra.status, fieldsOf(extra)], [400, ['/dryRun']])
  for (const body of [{}, { events: [] }, { events: {} }, []]) {
    const answer = await post('/api/events/batch', body)
    assert.equal(answer.status, 400, answer.text)
  }
})

// covers: ALP-083
test('the typed body names type and subtype, and a user with channels is told without a rule', async () => {
  const told = await publish({
    type: 'TRADING',
    subtype: 'ORDER_FILLED',
    userId: 'bob',
    channels: ['IN_APP'],
    priority: 'MEDIUM',
    data: { title: 'Filled', message: '10 at 5' },
  })
  assert.equal(told.status, 202, told.text)
  assert.ok((await feed('bob')).some(item => item.eventId === told.body.eventId))
  const why = await t.call('GET', `/api/events/${told.body.eventId}/explain`, { as: t.tenant.serviceKey })
  assert.equal(why.body.event.type, 'trading.order_filled')

  const plain = await publish({ type: 'TRADING', subtype: 'order_filled', userId: 'bob' })
  assert.equal(plain.status, 202)
  assert.equal((await statusOf(plain.body.eventId)).deliveries.length, 0)
})

// ------------------------------------------------------------------ CloudEvents

test('the cloudevents package as sender: binary, structured, and many at once', async () => {
  const event = (id: string) =>
    new CloudEvent({
      id,
      source: 'https://shop.example/orders',
      type: 'order.paid',
      subject: 'Grüße, 東京',
      data: { title: 'From a CloudEvent' },
    })
  const auth = t.tenant.serviceKey
  for (const [id, message] of [
    ['ce-binary', HTTP.binary(event('ce-binary'))],
    ['ce-structured', HTTP.structured(event('ce-structured'))],
  ] as const) {
    const headers = Object.fromEntries(
      Object.entries(message.headers).map(([name, value]) => [
        name,
        // §3.1.3.2: what is no printable ASCII is percent-encoded; the package leaves that to its caller.
        name === 'ce-subject' ? encodeURIComponent(String(value)) : String(value),
      ]),
    )
    const answer = await t.call('POST', '/api/events/publish', {
      as: auth,
      headers,
      raw: String(message.body),
    })
    assert.equal(answer.status, 202, answer.text)
    assert.equal(answer.body.duplicate, undefined, id)
    const { event: seen } = (await t.call('GET', `/api/events/${answer.body.eventId}/explain`, { as: auth }))
      .body
    assert.deepEqual([seen.type, seen.source], ['order.paid', 'https://shop.example/orders'])
    assert.equal((await statusOf(answer.body.eventId)).deliveries.length, 1)
  }
  const many = await t.call('POST', '/api/events/batch', {
    as: auth,
    headers: { 'content-type': 'application/cloudevents-batch+json' },
    raw: JSON.stringify([event('ce-binary').toJSON(), event('ce-in-batch').toJSON(), { specversion: '1.0' }]),
  })
  assert.equal(many.status, 202, many.text)
  assert.deepEqual(
    many.body.results.map((one: Loose) => [one.duplicate ?? false, one.error?.field]),
    [
      [true, undefined],
      [false, undefined],
      [false, '/id'],
    ],
  )
})

const EXAMPLES = new URL('../../../shared/contracts/cloudevents-conformance-examples.json', import.meta.url)
const examples = existsSync(EXAMPLES) ? JSON.parse(readFileSync(EXAMPLES, 'utf8')) : undefined
const origin = { tenantId: 1, now: new Date('2026-01-02T03:04:05Z'), traceId: undefined }

test('the conformance examples of CloudEvents', {
  skip: examples === undefined && `needs ${EXAMPLES.pathname}`,
}, async () => {
  for (const { mode, headers, body, expected } of examples.http_binding_cases) {
    const lower = Object.fromEntries(
      Object.entries(headers as Record<string, string>).map(([name, value]) => [name.toLowerCase(), value]),
    )
    const read: Event =
      mode === 'binary'
        ? readBinary(lower, JSON.parse(body), origin)
        : readStructured(JSON.parse(body), origin)
    const { attributes, data } = expected
    assert.deepEqual(
      [read.externalId, read.source, read.type, read.time.getTime(), read.data],
      [attributes.id, attributes.source, attributes.type, Date.parse(attributes.time), data],
    )
    const answer = await t.call('POST', '/api/events/publish', {
      as: t.tenant.serviceKey,
      headers: lower,
      raw: body,
    })
    assert.equal(answer.status, 202, answer.text)
  }
  // Any media type in binary mode: text, XML, and JSON that is no object.
  for (const { ContextAttributes: attributes, Data } of examples.minimum_events) {
    const { datacontenttype, ...rest } = attributes as Record<string, string>
    const answer = await t.call('POST', '/api/events/publish', {
      as: t.tenant.serviceKey,
      headers: {
        'content-type': datacontenttype!,
        ...Object.fromEntries(Object.entries(rest).map(([name, value]) => [`ce-${name}`, value])),
      },
      raw: Data,
    })
    assert.equal(answer.status, 202, `${datacontenttype}: ${answer.text}`)
  }
  for (const example of examples.json_format_examples.flat()) {
    const usable = !String(example.data_base64 ?? '').includes(' ')
    if (usable) assert.equal(readStructured(example, origin).externalId, example.id)
    // "... base64 encoded string ..." is the specification's placeholder, not base64.
    else assert.throws(() => readStructured(example, origin), { code: 'invalid_cloudevent' })
  }
})

test('what CloudEvents forbids is refused by attribute', () => {
  const good = { specversion: '1.0', id: '1', source: '/s', type: 'a.b' }
  const deep = Buffer.from(`${'['.repeat(5000)}${']'.repeat(5000)}`).toString('base64')
  const json = { datacontenttype: 'application/json' }
  const table: [Record<string, unknown>, string][] = [
    [{ id: undefined }, '/id'],
    [{ id: '' }, '/id'],
    [{ id: 7 }, '/id'],
    [{ source: 'a b' }, '/source'],
    [{ type: 'a..b' }, '/type'],
    [{ time: 'yesterday' }, '/time'],
    [{ time: '2016-12-31T23:59:60Z' }, '/time'],
    [{ time: '0000-01-01T00:00:00Z' }, '/time'],
    [{ Upper: 'x' }, '/Upper'],
    [{ ext: { a: 1 } }, '/ext'],
    [{ data: {}, data_base64: '' }, '/data_base64'],
    [{ data_base64: '%%%' }, '/data_base64'],
    [{ data_base64: Buffer.from('{').toString('base64'), ...json }, '/data_base64'],
    [{ data_base64: deep, ...json }, '/data_base64'],
    [{ data_base64: Buffer.from('{"__proto__":{}}').toString('base64'), ...json }, '/data_base64'],
    [{ data_base64: Buffer.from('["\\u0000"]').toString('base64'), ...json }, '/data_base64'],
    [{ priority: 'SOON' }, '/priority'],
    [{ expirytime: '2020-01-01T00:00:00Z' }, '/expirytime'],
  ]
  assert.equal(readStructured(good, origin).type, 'a.b')
  for (const [change, field] of table) {
    assert.throws(
      () => readStructured({ ...good, ...change }, origin),
      (error: Loose) => error.code === 'invalid_cloudevent' && error.errors[0].field === field,
      `${JSON.stringify(change).slice(0, 80)} → ${field}`,
    )
  }
  const headers = { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 'a.b' }
  assert.equal(readBinary({ ...headers, 'ce-subject': '%C3%A9' }, undefined, origin).subject, 'é')
  for (const subject of ['%', '%FF', 'a%00b']) {
    assert.throws(() => readBinary({ ...headers, 'ce-subject': subject }, undefined, origin), {
      code: 'invalid_cloudevent',
    })
  }
})

test('a structured event may repeat its attributes as headers; the body is what counts', async () => {
  const answer = await t.call('POST', '/api/events/publish', {
    as: t.tenant.serviceKey,
    headers: {
      'content-type': 'Application/CloudEvents+JSON; charset=utf-8',
      'ce-specversion': '1.0',
      'ce-id': 'of-the-header',
      'ce-source': '/headers',
      'ce-type': 'of.the.header',
    },
    raw: JSON.stringify({ specversion: '1.0', id: 'of-the-body', source: '/headers', type: 'of.the.body' }),
  })
  assert.equal(answer.status, 202, answer.text)
  const why = await t.call('GET', `/api/events/${answer.body.eventId}/explain`, { as: t.tenant.serviceKey })
  assert.equal(why.body.event.type, 'of.the.body')
})

test('a body that is neither JSON nor a CloudEvent is refused by its type', async () => {
  for (const [path, contentType] of [
    ['/api/events/publish', 'text/plain'],
    ['/api/events/publish', 'application/cloudevents-batch+json'],
    ['/api/events/batch', 'text/plain'],
    ['/api/notifications', 'application/xml'],
  ] as const) {
    const answer = await t.call('POST', path, {
      as: t.tenant.serviceKey,
      headers: { 'content-type': contentType },
      raw: '[]',
    })
    assert.deepEqual([answer.status, answer.body.code], [415, 'unsupported_media_type'], path)
  }
})

// ------------------------------------------------------------------ the same again

test('what cannot be an address of its channel is refused at the door, with its field', async () => {
  const body = { subject: 'Hi', body: 'there' }
  const system = { ...body, recipientType: 'system' }
  for (const [path, request, field] of [
    ['notifications', { ...system, channels: ['email'], address: 'nobody' }, '/address'],
    ['notifications', { ...system, channels: ['sms'], address: '0800 123' }, '/address'],
    ['notifications', { ...system, channels: ['webhook'], address: 'ftp://example.org' }, '/address'],
    ['notifications', { ...body, addresses: { email: ['ann@example.org', 'ann@'] } }, '/addresses/email/1'],
    ['delivery/email', { ...body, to: 'nobody' }, '/to'],
    ['delivery/sms', { body: 'x', to: 'nobody' }, '/to'],
  ] as const) {
    const answer = await t.call('POST', `/api/${path}`, { as: t.tenant.adminKey, body: request })
    assert.deepEqual([answer.status, answer.body.errors?.[0].field], [400, field], answer.text)
  }
})

test('an Idempotency-Key replays the first answer and makes nothing twice', async () => {
  const headers = { 'idempotency-key': 'same-1' }
  const first = await publish({ type: 'order.paid', data: { a: 1, b: 2 } }, headers)
  const before = await counted('events')
  const again = await publish({ data: { b: 2, a: 1 }, type: 'order.paid' }, headers)
  assert.deepEqual([again.status, again.body], [first.status, first.body])
  assert.equal(first.headers.get('idempotency-replayed'), null)
  assert.equal(again.headers.get('idempotency-replayed'), 'true')
  assert.equal(await counted('events'), before)

  const other = await publish({ type: 'order.paid', data: { a: 2 } }, headers)
  assert.deepEqual([other.status, other.body.code], [422, 'idempotency_mismatch'])
  // Another path, another caller: another key.
  const sent = await send({ recipientId: 'alice', body: 'x' })
  assert.equal(sent.status, 202)
  const elsewhere = await t.call('POST', '/api/events/publish', {
    as: t.tenant.adminKey,
    body: { type: 'order.paid', data: { a: 2 } },
    headers,
  })
  assert.equal(elsewhere.status, 202, elsewhere.text)
  for (const key of ['', 'x'.repeat(256), 'with blank']) {
    const answer = await publish({ type: 'order.paid' }, { 'idempotency-key': key })
    assert.deepEqual([answer.status, fieldsOf(answer)], [400, ['idempotency-key']], `"${key}"`)
  }
})

test('of many requests with one Idempotency-Key at once, one is done; the others wait or hear its answer', async () => {
  const before = await counted('events')
  const answers = await Promise.all(
    Array.from({ length: 20 }, () =>
      publish({ type: 'order.paid', data: { once: true } }, { 'idempotency-key': 'at-once' }),
    ),
  )
  assert.equal((await counted('events')) - before, 1)
  const done = answers.filter(answer => answer.status === 202)
  assert.ok(done.length >= 1)
  assert.equal(new Set(done.map(answer => answer.body.eventId)).size, 1)
  for (const answer of answers.filter(one => one.status !== 202)) {
    assert.deepEqual([answer.status, answer.body.code], [409, 'idempotency_running'])
    assert.equal(answer.headers.get('retry-after'), '1')
  }
})

test('a request that is still running answers 409 to its double', async () => {
  // A transaction of ours holds the lock of the key, as a server in the middle of the request does.
  const request = () => publish({ type: 'order.paid' }, { 'idempotency-key': 'held' })
  assert.equal((await request()).status, 202)
  const row = (await t.db.one<{ key: string }>(
    sql('newest_key', 'select key from idempotency_keys order by created_at desc limit 1'),
  ))!
  await t.db.run(sql('forget_key', 'delete from idempotency_keys where key = $1'), [row.key])
  const lock = BigInt.asIntN(64, BigInt(`0x${row.key.slice(0, 18).replaceAll('-', '')}`)).toString()
  await t.db.tx(async tx => {
    await tx.run(sql('hold_key', 'select pg_advisory_xact_lock($1::bigint)'), [lock])
    const double = await request()
    assert.deepEqual([double.status, double.body.code], [409, 'idempotency_running'])
  })
  assert.equal((await request()).status, 202)
})

test('the answer under a key is stored in the transaction of its events: both or neither', async () => {
  const answer = await publish({ type: 'order.paid' }, { 'idempotency-key': 'together' })
  const row = await t.db.one<{ same: boolean }>(
    sql(
      'same_transaction',
      `select e.xmin = k.xmin as same from events e, idempotency_keys k
       where e.id = $1 order by k.created_at desc limit 1`,
    ),
    [answer.body.eventId],
  )
  assert.equal(row!.same, true)
})

test('in binary mode the attributes are part of what an Idempotency-Key stands for', async () => {
  const binary = (id: string) =>
    t.call('POST', '/api/events/publish', {
      as: t.tenant.serviceKey,
      headers: {
        'idempotency-key': 'binary',
        'content-type': 'application/json',
        'ce-specversion': '1.0',
        'ce-id': id,
        'ce-source': '/keys',
        'ce-type': 'order.paid',
      },
      raw: '{}',
    })
  assert.equal((await binary('one')).status, 202)
  assert.equal((await binary('one')).headers.get('idempotency-replayed'), 'true')
  assert.equal((await binary('two')).body.code, 'idempotency_mismatch')
})

test('source and id make an event once, also within one batch', async () => {
  const event = { type: 'order.paid', source: 'shop', id: 'order-7' }
  const first = await publish(event)
  const second = await publish({ ...event, data: { changed: true } })
  assert.deepEqual([second.status, second.body.duplicate], [202, true])
  assert.equal(second.body.eventId, first.body.eventId)
  assert.equal((await publish({ ...event, source: 'other shop' })).body.duplicate, undefined)

  const before = await counted('events')
  const { results } = (await batch([event, { ...event, id: 'order-8' }, { ...event, id: 'order-8' }])).body
  assert.deepEqual(
    results.map((one: Loose) => one.duplicate ?? false),
    [true, false, true],
  )
  assert.equal(results[0].eventId, first.body.eventId)
  assert.equal(results[1].eventId, results[2].eventId)
  assert.equal((await counted('events')) - before, 1)
  // The other tenant's shop has an order 7 of its own.
  const foreign = await t.call('POST', '/api/events/publish', { as: t.other.serviceKey, body: event })
  assert.deepEqual([foreign.status, foreign.body.duplicate], [202, undefined])
})

// ------------------------------------------------------------------ time

test('a scheduled event waits, and is planned when its time has come', async () => {
  const scheduledAt = new Date(Date.now() + 1500).toISOString()
  const answer = await publish({ type: 'order.paid', scheduledAt, data: { title: 'Later' } })
  assert.deepEqual([answer.status, answer.body.status], [202, 'PENDING'])
  assert.equal(
    (await feed('alice')).some(item => item.eventId === answer.body.eventId),
    false,
  )
  await eventually('the planned event', async () =>
    (await feed('alice')).some(item => item.eventId === answer.body.eventId),
  )
  assert.ok(Date.now() >= Date.parse(scheduledAt))
})

// covers: ALP-082
test('a scheduled event can be taken back before its time, and only once', async () => {
  const { eventId } = (
    await publish({ type: 'order.paid', scheduledAt: new Date(Date.now() + 3_600_000).toISOString() })
  ).body
  const remove = () => t.call('DELETE', `/api/events/${eventId}`, { as: t.tenant.serviceKey })
  assert.equal((await remove()).status, 204)
  assert.equal((await remove()).status, 409)
  const done = await publish({ type: 'order.paid' })
  const tooLate = await t.call('DELETE', `/api/events/${done.body.eventId}`, { as: t.tenant.serviceKey })
  assert.deepEqual([tooLate.status, tooLate.body.code], [409, 'conflict'])
})

test('what expires before it is due is not accepted', async () => {
  const at = (ms: number) => new Date(Date.now() + ms).toISOString()
  for (const [timing, field] of [
    [{ expiresAt: at(-1000) }, '/expiresAt'],
    [{ scheduledAt: at(60_000), expiresAt: at(30_000) }, '/expiresAt'],
    [{ scheduledAt: at(400 * 86_400_000) }, '/scheduledAt'],
    [{ scheduledAt: 'tomorrow' }, '/scheduledAt'],
    [{ expiresAt: '2016-12-31T23:59:60Z' }, '/expiresAt'],
    [{ scheduledAt: '2030-01-01T00:00:00+05' }, '/scheduledAt'],
  ] as const) {
    const event = await publish({ type: 'order.paid', ...timing })
    assert.deepEqual([event.status, fieldsOf(event)], [400, [field]], event.text)
    const sent = await send({ recipientId: 'alice', body: 'x', ...timing })
    assert.deepEqual([sent.status, fieldsOf(sent)], [400, [field]], sent.text)
  }
})

// ------------------------------------------------------------------ schemas

// covers: ALP-073
test('an event outside its schema is refused, kept, and accepted again once the schema allows it', async () => {
  const register = (schema: object) =>
    t.call('PUT', '/api/event-types/invoice.sent', { as: t.tenant.adminKey, body: { schema } })
  const strict = { type: 'object', required: ['amount'], properties: { amount: { type: 'number' } } }
  assert.equal((await register(strict)).status, 201)

  const good = await publish({ type: 'invoice.sent', data: { amount: 5 } })
  assert.equal(good.status, 202)
  const bad = await publish({ type: 'invoice.sent', data: { amount: 'five' } })
  assert.deepEqual([bad.status, bad.body.code], [422, 'event_schema_violation'], bad.text)
  assert.match(fieldsOf(bad)![0]!, /amount/)
  assert.ok(bad.body.eventId)

  const many = await batch([{ type: 'invoice.sent', data: {} }, { type: 'order.paid' }])
  assert.deepEqual(
    many.body.results.map((one: Loose) => [one.status, one.error?.code]),
    [
      ['FAILED', 'event_schema_violation'],
      ['COMPLETED', undefined],
    ],
  )

  const letters = async () =>
    (await t.call('GET', '/api/dead-letters?kind=event', { as: t.tenant.serviceKey })).body.items as Loose[]
  const letter = (await letters()).find(one => one.eventId === bad.body.eventId)
  assert.deepEqual([letter.code, letter.eventType], ['schema_violation', 'invoice.sent'])
  assert.ok(!letter.error.includes('five'), 'the letter quotes no content')

  const redrive = () => t.call('POST', `/api/dead-letters/${letter.id}/redrive`, { as: t.tenant.serviceKey })
  const tooEarly = await redrive()
  assert.deepEqual([tooEarly.status, tooEarly.body.code], [422, 'event_schema_violation'], tooEarly.text)
  assert.equal((await register({ type: 'object' })).status, 200)
  const done = await redrive()
  assert.deepEqual([done.status, done.body.redriven], [200, 1], done.text)
  assert.equal(
    (await letters()).some(one => one.id === letter.id),
    false,
  )
})

// ------------------------------------------------------------------ direct sends

// covers: DIC-144, DIC-153
test('one notification is sent to a person without a rule', async () => {
  const answer = await send({
    recipientType: 'USER',
    recipientId: 'bob',
    channels: ['IN_APP'],
    subject: 'For Bob',
    body: 'Only for Bob',
    priority: 'MEDIUM',
    metadata: { category: 'news' },
  })
  assert.equal(answer.status, 202, answer.text)
  assert.equal(answer.body.status, 'ACCEPTED')
  assert.deepEqual(
    answer.body.notifications.map(({ recipientId, channels }: Loose) => [recipientId, channels]),
    [['bob', ['in_app']]],
  )
  assert.equal(answer.body.id, answer.body.notifications[0].id)
  const [item] = await feed('bob')
  assert.equal(item.id, answer.body.id)
  assert.equal(
    (await feed('alice')).some(one => one.id === answer.body.id),
    false,
  )

  const nobody = await send({ recipientId: 'nobody', body: 'x' })
  assert.deepEqual([nobody.status, nobody.body.status, nobody.body.id], [202, 'SUPPRESSED', null])
  assert.ok(nobody.body.suppressed >= 1)
})

// covers: DIC-145
test('a bulk answers each item at its place', async () => {
  const before = await counted('notifications')
  const answer = await post('/api/notifications/bulk', {
    notifications: [
      { recipientId: 'alice', body: 'one' },
      { recipientId: 'alice' },
      { recipientId: 'bob', templateId: 'no such template' },
      { recipientId: 'bob', body: 'two' },
      { recipientType: 'system', channels: ['email'], address: 'somebody@example.org', body: 'three' },
    ],
  })
  assert.equal(answer.status, 202, answer.text)
  assert.deepEqual(
    answer.body.results.map((one: Loose) => [one.index, one.status ?? one.error.code, one.error?.field]),
    [
      [0, 'ACCEPTED', undefined],
      [1, 'invalid_request', '/body'],
      [2, 'invalid_request', '/templateId'],
      [3, 'ACCEPTED', undefined],
      [4, 'ACCEPTED', undefined],
    ],
  )
  assert.equal((await counted('notifications')) - before, 3)
})

// covers: DIC-182
test('a send is valid with a template or with a body, and names one kind of recipient', async () => {
  const table: [Record<string, unknown>, string][] = [
    [{ recipientId: 'bob' }, '/body'],
    [{ recipientId: 'bob', subject: 'only a subject' }, '/body'],
    [{ body: 'x' }, '/recipientId'],
    [{ recipientId: 'bob', body: 'x', address: 'a@example.org' }, '/address'],
    [{ recipientType: 'system', body: 'x', channels: ['email'] }, '/address'],
    [{ recipientType: 'system', body: 'x', address: 'a@example.org' }, '/channels'],
    [
      { recipientType: 'system', body: 'x', address: 'a@example.org', channels: ['email', 'sms'] },
      '/channels',
    ],
    [{ recipientType: 'everyone', recipientId: 'bob', body: 'x' }, '/recipientType'],
    [{ recipientId: 'bob', body: 'x', channels: ['pigeon'] }, '/channels/0'],
    [{ recipientId: 'bob', body: 'x', channels: [] }, '/channels'],
    [{ recipientId: 'bob', body: 'x', templateId: 'no such template' }, '/templateId'],
    [{ recipientId: 'bob', body: 'x', metadata: { category: { a: 1 } } }, '/metadata/category'],
    [{ recipientId: 'bob', body: 'x', addresses: { in_app: ['x'] } }, '/addresses/in_app'],
    [{ recipientId: 'bob', body: 'x', priority: 'SOON' }, '/priority'],
    [{ recipientId: 'b'.repeat(256), body: 'x' }, '/recipientId'],
    [{ recipientId: 'bob', body: 'x', unknown: 1 }, '/unknown'],
  ]
  const before = await counted('events')
  for (const [body, field] of table) {
    const answer = await send(body)
    assert.deepEqual(
      [answer.status, answer.body.code, fieldsOf(answer)],
      [400, 'invalid_request', [field]],
      JSON.stringify(body),
    )
  }
  assert.equal(await counted('events'), before)
})

test('bad events are refused by code and field, and leave nothing', async () => {
  const table: [unknown, number, string, string | undefined][] = [
    [{}, 400, 'invalid_request', '/type'],
    [[], 400, 'invalid_request', '/'],
    ['text', 400, 'invalid_request', '/'],
    [{ type: '' }, 400, 'invalid_request', '/type'],
    [{ type: 'a'.repeat(256) }, 400, 'invalid_request', '/type'],
    [{ type: 'a', source: 7 }, 400, 'invalid_request', '/source'],
    [{ type: 'a', tenantId: 2 }, 400, 'invalid_request', '/tenantId'],
    [{ type: 'a', time: '2026-13-01T00:00:00Z' }, 400, 'invalid_request', '/time'],
    [{ type: 'a', time: '2016-12-31T23:59:60Z' }, 400, 'invalid_request', '/time'],
    [{ type: 'a', data: [1] }, 400, 'invalid_request', '/data'],
    [{ type: 'a', data: { x: '\0' } }, 400, 'invalid_request', undefined],
    [{ type: 'a', data: { x: 'y'.repeat(300_000) } }, 413, 'body_too_large', '/data'],
    [{ type: 'A B', subtype: 'c' }, 400, 'invalid_request', '/type'],
    [
      { type: 'A', subtype: 'c', channels: ['in_app'], maxRetries: -1 },
      400,
      'invalid_request',
      '/maxRetries',
    ],
  ]
  const before = await counted('events')
  for (const [body, status, code, field] of table) {
    const answer = await publish(body)
    assert.deepEqual(
      [answer.status, answer.body.code, fieldsOf(answer)?.[0]],
      [status, code, field],
      JSON.stringify(body).slice(0, 100),
    )
    assert.match(answer.headers.get('content-type')!, /^application\/problem\+json/)
  }
  assert.equal((await publish({})).body.detail, '/type is required.')
  assert.equal((await publish([])).body.detail, 'The event must be object.')
  assert.equal((await publish({ type: 'a', tenantId: 2 })).body.errors[0].message, 'is not a known field')
  const big = await t.call('POST', '/api/events/publish', {
    as: t.tenant.serviceKey,
    headers: { 'content-type': 'application/json' },
    raw: `{"type":"a","data":{"x":"${'y'.repeat(1024 * 1024)}"}}`,
  })
  assert.deepEqual([big.status, big.body.code], [413, 'body_too_large'])
  assert.equal(await counted('events'), before)
})

test('a user may not publish, and nobody may without credentials', async () => {
  for (const path of [
    '/api/events/publish',
    '/api/events/batch',
    '/api/notifications',
    '/api/notifications/bulk',
    '/webhooks/alertmanager',
  ]) {
    assert.equal((await t.call('POST', path, { body: {} })).status, 401, path)
    assert.equal(
      (await t.call('POST', path, { as: await t.tenant.token('bob'), body: {} })).status,
      403,
      path,
    )
  }
})
