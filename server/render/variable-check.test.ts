import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, testApp } from '../test/app.ts'

const VARIABLES = [
  { name: 'order', type: 'string', required: true },
  { name: 'total', type: 'number', required: true },
  { name: 'items', type: 'array' },
  { name: 'tax', type: 'number', required: true, default: 19 },
  { name: 'a/b~c', type: 'date' },
]
const CHANNELS = { in_app: { body: '{{order}}: {{number total}}' }, email: { body: '{{order}}' } }
const GOOD = { order: 'A-1', total: '12.50', items: '[1]', 'a/b~c': '2026-01-01T00:00:00Z' }
const WRONG = { total: 'much', items: 'none', 'a/b~c': 'soon' }
const PROBLEMS = [
  ['order', 'the variable "order" is required and missing'],
  ['total', 'the variable "total" must be a number'],
  ['items', 'the variable "items" must be a list'],
  ['a~1b~0c', 'the variable "a/b~c" must be a time: ISO 8601, or seconds or milliseconds since 1970'],
] as const
const problemsAt = (at: string) => PROBLEMS.map(([name, message]) => ({ field: `${at}/${name}`, message }))

const dir = mkdtempSync(join(tmpdir(), 'carillon-variables-'))
let t: TestApp
let templateId: string
before(async () => {
  writeFileSync(
    join(dir, 'receipt.yaml'),
    'name: receipt\nvariables: [{ name: sum, type: number, required: true }]\nchannels: { default: { body: "{{sum}}" } }\n',
  )
  t = await testApp({ CARILLON_TEMPLATES_DIR: dir })
  for (const user of ['ann', 'ben']) assert.ok((await call('PUT', `/api/users/${user}`, {})).status < 300)
  const made = await call('POST', '/api/templates', {
    name: 'order',
    channels: CHANNELS,
    variables: VARIABLES,
  })
  templateId = made.body.id
})
after(async () => {
  await t.stop()
  rmSync(dir, { recursive: true })
})

const call = (method: string, path: string, body?: unknown, headers?: Record<string, string>) =>
  t.call(method, path, { as: t.tenant.adminKey, body, headers })
const stored = async (): Promise<number> =>
  (await t.db.pool.query('select (select count(*) from events) + (select count(*) from notifications) as n'))
    .rows[0].n

test('whoever sends with a template hears of every variable that it lacks, and nothing is kept', async () => {
  const before = await stored()
  for (const [path, body, at] of [
    ['/api/notifications', { recipientId: 'ann', templateId, templateVars: WRONG }, '/templateVars'],
    ['/api/notifications', { recipientId: 'ann', templateId: 'order', data: WRONG }, '/data'],
    ['/api/notifications/test', { userId: 'ann', templateId, templateVars: WRONG }, '/templateVars'],
    ['/api/templates/order/test', { userId: 'ann', templateVars: WRONG }, '/templateVars'],
    ['/api/delivery/in-app', { userId: 'ann', templateId, templateVars: WRONG }, '/templateVars'],
    ['/api/delivery/in-app', { userId: 'ann', templateId, data: WRONG }, '/data'],
    ['/api/delivery/email', { to: 'a@example.org', templateId, templateVars: WRONG }, '/templateVars'],
  ] as const) {
    const { status, body: problem, headers } = await call('POST', path, body)
    assert.deepEqual([status, problem.code], [400, 'invalid_variables'], path)
    assert.match(headers.get('content-type')!, /^application\/problem\+json/)
    assert.deepEqual(problem.errors, problemsAt(at), path)
  }
  const none = await call('POST', '/api/notifications', { recipientId: 'ann', templateId })
  assert.deepEqual(
    none.body.errors.map(({ field }: Loose) => field),
    ['/templateVars/order', '/templateVars/total'],
  )
  assert.equal(await stored(), before)
})

test('what is given as it should be goes, defaults in their place; texts may hold what they name', async () => {
  const sent = await call('POST', '/api/notifications', {
    recipientId: 'ann',
    templateId,
    templateVars: GOOD,
  })
  assert.deepEqual([sent.status, sent.body.suppressed], [202, 0], sent.text)
  const refused = await call('POST', '/api/notifications', {
    recipientId: 'ann',
    templateId,
    templateVars: { ...GOOD, order: null },
  })
  assert.deepEqual(refused.body.errors, [{ ...problemsAt('/templateVars')[0] }])
})

test('a bulk sends the others, and keeps every problem with its item', async () => {
  const item = (templateVars: object, more: object = {}) => ({
    recipientId: 'ann',
    templateId,
    templateVars,
    ...more,
  })
  const { status, body } = await call('POST', '/api/notifications/bulk', {
    notifications: [
      item(GOOD),
      item(WRONG),
      { recipientId: 'ann' },
      item({ ...GOOD, total: true }),
      { recipientId: 'ben', body: 'No template' },
      item(GOOD, { templateId: 'nothing' }),
      item(GOOD, { recipientId: 'ben' }),
    ],
  })
  assert.equal(status, 202)
  const errors = body.results.map(({ error }: Loose) => error?.code)
  assert.deepEqual(errors, [
    undefined,
    'invalid_variables',
    'invalid_request',
    'invalid_variables',
    undefined,
    'invalid_request',
    undefined,
  ])
  assert.deepEqual(body.results[1].error, {
    code: 'invalid_variables',
    field: '/templateVars/order',
    message: `${PROBLEMS[0][1]} (and 3 more)`,
    errors: problemsAt('/templateVars'),
  })
  assert.deepEqual(body.results[3].error, {
    code: 'invalid_variables',
    field: '/templateVars/total',
    message: PROBLEMS[1][1],
  })
  assert.deepEqual(
    [0, 4, 6].map(at => body.results[at].notifications[0].recipientId),
    ['ann', 'ben', 'ben'],
  )
})

test('a default that is adopted by its first name is held to the same', async () => {
  const send = (templateVars: object) =>
    call('POST', '/api/notifications', { recipientId: 'ann', templateId: 'receipt', templateVars })
  const refused = await send({ sum: 'x' })
  assert.deepEqual([refused.status, refused.body.errors[0].field], [400, '/templateVars/sum'])
  assert.equal((await send({ sum: 3 })).status, 202)
})

test('another revision is judged by at once, and a draft by nobody', async () => {
  const name = 'changing'
  const save = (method: string, path: string, needs: string, more: object = {}) =>
    call(method, path, {
      name,
      channels: { default: { body: 'x' } },
      variables: [{ name: needs, required: true }],
      ...more,
    })
  const { id } = (await save('POST', '/api/templates', 'one')).body
  const send = async (templateVars: object) =>
    (await call('POST', '/api/notifications', { recipientId: 'ann', templateId: name, templateVars })).status
  assert.deepEqual([await send({ one: 1 }), await send({ two: 2 })], [202, 400])
  await save('PUT', `/api/templates/${id}`, 'two', { draft: true })
  assert.deepEqual([await send({ one: 1 }), await send({ two: 2 })], [202, 400])
  await call('POST', `/api/templates/${id}/publish`, {})
  assert.deepEqual([await send({ one: 1 }), await send({ two: 2 })], [400, 202])
  await save('PUT', `/api/templates/${id}`, 'three', { enabled: false })
  assert.equal(await send({}), 202, 'out of use: it says nothing, and needs nothing')
})

test('where the template says nothing, nothing is asked of it', async () => {
  const answer = await call('POST', '/api/notifications', {
    recipientType: 'SYSTEM',
    address: '+15005550006',
    channels: ['sms'],
    templateId,
    body: 'Words of its own',
  })
  assert.equal(answer.status, 202, answer.text)
})

test('an event is taken whatever it brings: why tells of the message that could not be written', async () => {
  const rule = {
    name: 'orders',
    eventTypes: ['order.placed'],
    channels: ['in_app'],
    recipientSelector: { users: ['ann'] },
    templateId,
    templateVars: { total: 3 },
  }
  const made = await call('POST', '/api/rules', rule)
  const needs = (name: string) => ({
    field: '/templateVars',
    message: `The template needs "${name}": neither templateVars nor the schemas of all its event types promise it`,
  })
  assert.deepEqual(made.body.warnings, [needs('order')])
  const tried = await call('POST', '/api/rules/test', {
    rule: { ...rule, templateVars: {} },
    event: { type: 'order.placed', data: GOOD },
  })
  assert.deepEqual(tried.body.warnings, [needs('order'), needs('total')])

  const schema = { type: 'object', properties: { order: { type: 'string' } }, required: ['order'] }
  const promised = await call('PUT', '/api/event-types/order.placed', { schema })
  assert.ok(promised.status < 300, promised.text)
  const path = `/api/rules/${made.body.id}`
  assert.deepEqual((await call('PATCH', path, { description: 'promised' })).body.warnings, [])
  const wider = await call('PATCH', path, { eventTypes: ['order.placed', 'order.changed'] })
  assert.deepEqual(wider.body.warnings, [needs('order')])
  const every = await call('PATCH', path, { eventTypes: ['order.*'] })
  assert.deepEqual(every.body.warnings, [needs('order')])

  const { status, body } = await call('POST', '/api/events/publish', {
    type: 'order.changed',
    data: { total: 'much' },
  })
  assert.equal(status, 202)
  const why = await call('GET', `/api/events/${body.eventId}/explain`)
  assert.match(why.text, /render_failed/)
  assert.match(why.text, /the variable \\"order\\" is required and missing/)
})

test('a request that is repeated hears what it was told, though its template has come to need more', async () => {
  const channels = { in_app: { body: 'Hello' } }
  const { body: template } = await call('POST', '/api/templates', { name: 'grows', channels })
  const send = (key: string, subject = 'Hi') =>
    t.call('POST', '/api/notifications', {
      as: t.tenant.adminKey,
      body: { recipientId: 'ann', templateId: 'grows', channels: ['in_app'], subject },
      headers: { 'idempotency-key': key },
    })
  const first = await send('grows-1')
  assert.equal(first.status, 202)
  await call('PUT', `/api/templates/${template.id}`, {
    name: 'grows',
    channels,
    variables: [{ name: 'more', type: 'string', required: true }],
  })
  const again = await send('grows-1')
  assert.deepEqual([again.status, again.body], [202, first.body])
  assert.equal(again.headers.get('idempotency-replayed'), 'true')
  assert.equal((await send('grows-1', 'Other')).status, 422)
  const refused = await send('grows-2')
  assert.deepEqual([refused.status, refused.body.code], [400, 'invalid_variables'])
  // Nothing was kept of the refusal: mended, the same request goes.
  await call('PUT', `/api/templates/${template.id}`, { name: 'grows', channels })
  assert.equal((await send('grows-2')).status, 202)
})
