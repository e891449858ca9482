import assert from 'node:assert/strict'
import { type IncomingMessage, Agent, request as open } from 'node:http'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { png } from '../assets/test-pictures.ts'
import { sql } from '../db/pool.ts'
import { type Loose, type TestApp, testApp } from './app.ts'

/**
 * Every operation of the served OpenAPI document is called with what its schema allows and, mostly, with what it does
 * not. Whatever comes in: never a 5xx but the documented 503 and 5002, errors are problems (RFC 9457) with a code of the table,
 * and what was refused left nothing behind.
 *
 * The same requests at every run, so that what fails is of the change; `FUZZ_SEED` asks others, `FUZZ_SECONDS` (default
 * 40) bounds it.
 */
const SEED = Number(process.env.FUZZ_SEED ?? 20_261_121)
const SECONDS = Number(process.env.FUZZ_SECONDS ?? 40)

interface Schema {
  type?: string | string[]
  enum?: unknown[]
  const?: unknown
  anyOf?: Schema[]
  oneOf?: Schema[]
  allOf?: Schema[]
  properties?: Record<string, Schema>
  patternProperties?: Record<string, Schema>
  additionalProperties?: boolean | Schema
  required?: string[]
  items?: Schema
  minItems?: number
  maxItems?: number
  minLength?: number
  maxLength?: number
  minimum?: number
  maximum?: number
  format?: string
  pattern?: string
  $ref?: string
}
interface Operation {
  name: string
  method: string
  path: string
  access: { role: string }
  parameters: { name: string; in: 'path' | 'query' | 'header'; required?: boolean; schema: Schema }[]
  body: Schema | undefined
}

let t: TestApp
let operations: Operation[]
const agent = new Agent({ keepAlive: true, maxSockets: 4 })

before(async () => {
  t = await testApp()
  const { body: document } = await t.call('GET', '/docs/openapi.json')
  operations = Object.entries(document.paths as Record<string, Record<string, Loose>>).flatMap(
    ([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({
        name: `${method.toUpperCase()} ${path}`,
        method: method.toUpperCase(),
        path,
        access: operation['x-access'],
        parameters: operation.parameters ?? [],
        body: operation.requestBody?.content?.['application/json']?.schema,
      })),
  )
  await seedThings()
})
after(async () => {
  agent.destroy()
  await t?.stop()
})

/** Ids and names that lead somewhere, so that not every call ends at 404: by the segment before them in a path. */
const known: Record<string, string[]> = {
  users: ['alice', 'bob'],
  preferences: ['alice', 'bob'],
  groups: ['sales'],
  roles: ['buyer'],
  topics: ['news'],
  'event-types': ['order.paid', 'order.sent'],
}

async function seedThings(): Promise<void> {
  const made = async (method: string, path: string, body?: object) => {
    const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
    assert.ok(answer.status < 300, `${path}: ${answer.text}`)
    return answer.body
  }
  for (const user of ['alice', 'bob']) {
    await made('PUT', `/api/users/${user}`, {
      groups: ['sales'],
      roles: ['buyer'],
      topics: [{ name: 'news' }],
    })
  }
  const address = { channel: 'email', address: 'alice@example.org', verified: true }
  known.addresses = [(await made('POST', '/api/users/alice/addresses', address)).id]
  const device = { kind: 'fcm', token: 'token-0123456789-0123456789' }
  known.devices = [(await made('POST', '/api/users/alice/devices', device)).id]
  const rule = { name: 'all', channels: ['in_app'], recipientSelector: { users: ['alice'] } }
  known.rules = [(await made('POST', '/api/rules', rule)).id]
  const threshold = { name: 'hot', stream: 'oven', when: 'above', bounds: [200], period: 'day' }
  known.thresholds = [(await made('POST', '/api/thresholds', threshold)).id]
  known.streams = ['oven']
  await made('PUT', '/api/heartbeats/nightly', { everySeconds: 3_600, eventTypes: ['order.*'] })
  known.heartbeats = ['nightly']
  const template = { name: 'plain', channels: { default: { subject: '{{data.x}}', body: '{{data.x}}' } } }
  known.templates = [(await made('POST', '/api/templates', template)).id]
  const experiment = {
    name: 'words',
    templateId: known.templates[0],
    variants: [{ name: 'a' }, { name: 'b' }],
  }
  known.experiments = [(await made('POST', '/api/experiments', experiment)).id]
  await made('POST', `/api/experiments/${known.experiments[0]}/start`)
  const picture = await t.call('PUT', '/api/assets/logo', { as: t.tenant.adminKey, raw: png() })
  assert.equal(picture.status, 201, picture.text)
  known.assets = ['logo']
  await made('PUT', '/api/event-types/order.sent', { schema: { type: 'object', required: ['n'] } })
  await t.call('POST', '/api/events/publish', { as: t.tenant.adminKey, body: { type: 'order.sent' } })
  known['dead-letters'] = (await made('GET', '/api/dead-letters')).items.map((one: Loose) => one.id)
  const scheduledAt = new Date(Date.now() + 3_600_000).toISOString()
  const waiting = await made('POST', '/api/events/publish', { type: 'order.paid', scheduledAt })
  known.events =
    known.status =
    known.retry =
      [(await made('POST', '/api/events/publish', { type: 'order.paid' })).eventId, waiting.eventId]
  const held = { recipientId: 'alice', channels: ['email'], subject: 'x', body: 'y', scheduledAt }
  await made('POST', '/api/notifications', held)
  known.notifications = (await made('GET', '/api/notifications')).items.map((one: Loose) => one.id)
  known['mailbox.json'] = ['01a1fca9-dac7-7001-8961-e4e33925320f']
  for (const [kind, ids] of Object.entries(known)) assert.ok(ids.length > 0, kind)
}

/** What means something in a field of that name; where nothing stands, the schema alone decides. */
const SENSE: Record<string, unknown[]> = {
  type: ['order.paid', 'order.sent', 'TRADING'],
  subtype: ['trade_executed'],
  eventPattern: [
    'event.type == "order.paid"',
    'event.data.x > 1',
    'event.data.x.y.z == event.data.list[3]',
    'event.data.x.matches("(a+)+$")',
    'size(event.data) / 0 == 1',
    'event.data.',
    '1 + "a"',
    '[1, 2, 3].all(x, [1, 2, 3].exists(y, x == y))',
  ],
  expression: ['event.data.userId', '["alice", "bob"]', '7', 'event.data.'],
  body: [
    '{{data.x}}',
    '{{#each data.list}}{{this}}{{/each}}',
    '{{#each',
    '{{constructor}}',
    '{{{data.x}}}',
    '{{> x}}',
  ],
  subject: ['{{data.x}}', 'A\r\nBcc: b@example.org', '{{#if', 'plain'],
  html: ['<p>{{data.x}}</p>', '<script>{{data.x}}', '{{/if}}'],
  userId: ['alice', 'bob'],
  recipientId: ['alice', 'sales', 'news'],
  users: [['alice'], ['bob', 'nobody']],
  userIds: [['alice'], ['nobody']],
  timezone: ['UTC', 'Europe/Berlin', 'Mars/Base'],
  locale: ['en', 'de-DE', 'zz-zz-zz'],
  cron: ['0 9 * * 1-5', '*/5 * * * *', '61 25 32 13 8'],
  address: ['a@example.org', 'https://example.org/x', '+4915112345678', 'http://169.254.169.254/'],
  templateId: ['plain', 'no such'],
  cursor: ['eyJsIjoicnVsZXMiLCJrIjpbIngiXX0', 'x', ''],
  schema: [
    { type: 'object' },
    { type: 'nonsense' },
    { $ref: '#' },
    { pattern: '(a+)+$' },
    { $ref: 'http://x/y' },
  ],
  specversion: ['1.0', '0.3'],
  until: [new Date(Date.now() + 3_600_000).toISOString(), '2001-01-01T00:00:00Z'],
  recipientType: ['user', 'USER', 'group'],
  token: ['token-0123456789-0123456789'],
}

// ------------------------------------------------------------------ values

const UGLY = [
  '',
  ' ',
  '\0',
  'a\0b',
  '\ud800',
  '\u202eevil',
  '🦆'.repeat(50),
  'x'.repeat(5000),
  '../../etc/passwd',
  "'; drop table events; --",
  '<script>alert(1)</script>',
  '%',
  '%00',
  '%s%n',
  '{{#each this}}',
  '{{constructor.constructor "x"}}',
  '{{> partial}}',
  '${7*7}',
  'event.data.',
  'event.data.x == ',
  '"a".matches("(a+)+$")',
  '[1,2].all(x, [1,2].all(y, x == y))',
  'size(event) / 0 == 1',
  '__proto__',
  'constructor',
  'NaN',
  '-0',
  '1e400',
  '9223372036854775808',
  '2016-12-31T23:59:60Z',
  '0000-00-00T00:00:00Z',
  '9999-12-31T23:59:59.999999999+14:00',
  'Etc/Nowhere',
  '* * * * *',
  '61 25 32 13 8',
  'http://169.254.169.254/latest',
  'javascript:alert(1)',
  'a@b@c',
  'crl_nothing',
  'eyJsIjoicnVsZXMiLCJrIjpbIngiXX0',
]
const deep = (levels: number): unknown => {
  let value: unknown = 1
  for (let i = 0; i < levels; i++) value = i % 2 ? [value] : { x: value }
  return value
}
const text = fc.oneof(
  { weight: 3, arbitrary: fc.string({ unit: 'grapheme', maxLength: 40 }) },
  { weight: 2, arbitrary: fc.string({ unit: 'binary', maxLength: 40 }) },
  { weight: 4, arbitrary: fc.constantFrom(...UGLY) },
)
const anything: fc.Arbitrary<unknown> = fc.oneof(
  text,
  fc.constantFrom<unknown>(null, true, -1, 0, 1.5, 2 ** 53, -(2 ** 63), 1e308, [], {}, [null], { '': '' }),
  fc.jsonValue({ maxDepth: 3 }),
  fc.constantFrom(deep(60), deep(70)),
  fc.constant({ ['x'.repeat(300)]: 1 }),
)

/** Values that the schema allows, or nearly. */
function allowed(schema: Schema | undefined, depth = 0, name = ''): fc.Arbitrary<unknown> {
  if (schema === undefined || schema.$ref !== undefined || depth > 6) return anything
  const sense = SENSE[name]
  const shape = ofShape(schema, depth)
  if (sense === undefined || schema.enum !== undefined) return shape
  return fc.oneof({ weight: 5, arbitrary: fc.constantFrom(...sense) }, { weight: 1, arbitrary: shape })
}

function ofShape(schema: Schema, depth: number): fc.Arbitrary<unknown> {
  if (schema.const !== undefined) return fc.constant(schema.const)
  if (schema.enum !== undefined) return fc.constantFrom(...schema.enum)
  const several = schema.anyOf ?? schema.oneOf
  if (several !== undefined) return fc.oneof(...several.map(one => allowed(one, depth + 1)))
  const type = Array.isArray(schema.type) ? schema.type[0] : schema.type
  switch (type) {
    case 'null':
      return fc.constant(null)
    case 'boolean':
      return fc.boolean()
    case 'integer':
    case 'number': {
      const { minimum = -1000, maximum = 1_000_000 } = schema
      return fc.oneof(
        fc.integer({ min: Math.ceil(minimum), max: Math.floor(Math.min(maximum, 2 ** 31)) }),
        fc.constantFrom(minimum, maximum),
      )
    }
    case 'string':
      return ofText(schema)
    case 'array':
      return fc.array(allowed(schema.items, depth + 1), {
        minLength: schema.minItems ?? 0,
        maxLength: Math.max(schema.minItems ?? 0, Math.min(schema.maxItems ?? 4, 4)),
      })
    case 'object':
      return ofObject(schema, depth)
    default:
      return anything
  }
}

function ofText({ format, pattern, minLength = 0, maxLength = 60 }: Schema): fc.Arbitrary<unknown> {
  const ugly = { weight: 1, arbitrary: fc.constantFrom(...UGLY) }
  if (format === 'uuid') {
    return fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...Object.values(known).flat()) }, ugly)
  }
  if (format === 'date-time') {
    const times = fc.date({ min: new Date(0), max: new Date(4e12), noInvalidDate: true })
    const soon = fc.integer({ min: -60_000, max: 3_600_000 }).map(ms => new Date(Date.now() + ms))
    return fc.oneof({ weight: 9, arbitrary: fc.oneof(times, soon).map(date => date.toISOString()) }, ugly)
  }
  const longest = Math.max(minLength, Math.min(maxLength, 60))
  return fc.oneof(
    { weight: 9, arbitrary: matching(pattern) ?? fc.string({ minLength, maxLength: longest }) },
    { weight: 2, arbitrary: fc.string({ unit: 'grapheme', minLength, maxLength: longest }) },
    ugly,
    { weight: 1, arbitrary: fc.constant('x'.repeat(Math.min(maxLength, 300_000))) },
  )
}

function matching(pattern: string | undefined): fc.Arbitrary<string> | undefined {
  try {
    return pattern === undefined ? undefined : fc.stringMatching(new RegExp(pattern), { size: 'small' })
  } catch {
    return undefined // An expression that fast-check cannot turn round.
  }
}

function ofObject(schema: Schema, depth: number): fc.Arbitrary<unknown> {
  const { properties = {}, required = [] } = schema
  const optional = Object.keys(properties).filter(name => !required.includes(name))
  // A few of the optional fields: of twenty, one would nearly always be wrong, and nothing got past it.
  const fixed = fc
    .subarray(optional, { maxLength: Math.min(4, optional.length) })
    .chain(chosen =>
      fc.record(
        Object.fromEntries(
          [...required, ...chosen].map(name => [name, allowed(properties[name], depth + 1, name)]),
        ),
      ),
    )
  const free =
    schema.patternProperties !== undefined
      ? Object.values(schema.patternProperties)[0]
      : typeof schema.additionalProperties === 'object'
        ? schema.additionalProperties
        : undefined
  if (free === undefined) return fixed
  return fc
    .tuple(fixed, fc.dictionary(text, allowed(free, depth + 1), { maxKeys: 3 }))
    .map(([own, more]) => ({ ...more, ...own }))
}

/** One thing wrong somewhere in it: another type, a field too many, one too few, or something ugly. */
function spoiled(value: unknown, [where, how, bad]: [number, number, unknown]): unknown {
  if (typeof value !== 'object' || value === null) return bad
  const keys = Object.keys(value)
  const copy: Loose = Array.isArray(value) ? [...value] : { ...value }
  const key = keys[where % Math.max(1, keys.length)]
  if (how === 0 || key === undefined) {
    if (Array.isArray(copy)) copy.push(bad)
    else copy[`unknown${where % 3}`] = bad
  } else if (how === 1) delete copy[key]
  else if (how === 2) copy[key] = bad
  else copy[key] = spoiled(copy[key], [where >> 3, (where >> 1) % 4, bad])
  return copy
}
const spoiling = fc.tuple(fc.nat(1_000_000), fc.nat(3), anything)

/** What the schema leaves optional, and a request that should succeed must bring all the same. */
const NEEDED: Record<string, string[]> = {
  'POST /api/notifications': ['recipientId', 'body'],
}

interface Attempt {
  path: string
  body: string | undefined
  type: string
}

function attempts(operation: Operation): fc.Arbitrary<Attempt> {
  const places = operation.parameters.filter(one => one.in !== 'header')
  const before = (name: string) => operation.path.split(`/{${name}}`)[0]!.split('/').at(-1)!
  const place = ({ name, in: where, schema }: Operation['parameters'][number]) => {
    const sense = where === 'path' ? known[before(name)] : undefined
    const usual = sense === undefined ? allowed(schema, 0, name) : fc.constantFrom(...sense)
    return fc.oneof(
      { weight: 7, arbitrary: usual },
      { weight: 1, arbitrary: fc.oneof(text, allowed(schema)) },
    )
  }
  const optional = places.filter(one => one.in === 'query').map(one => one.name)
  const values = fc
    .subarray(optional, { maxLength: Math.min(2, optional.length) })
    .chain(chosen =>
      fc.record(
        Object.fromEntries(
          places
            .filter(one => one.in === 'path' || one.required || chosen.includes(one.name))
            .map(one => [`${one.in} ${one.name}`, place(one)]),
        ),
      ),
    )
  const first = operation.body
  const more = NEEDED[operation.name]
  const good =
    first === undefined || more === undefined
      ? allowed(first)
      : fc.oneof(allowed(first), allowed({ ...first, required: [...(first.required ?? []), ...more] }))
  const body =
    operation.body === undefined
      ? fc.oneof(
          { weight: 5, arbitrary: fc.constant(undefined) },
          { weight: 1, arbitrary: anything.map(toJson) },
        )
      : fc.oneof(
          { weight: 8, arbitrary: good.map(toJson) },
          {
            weight: 5,
            arbitrary: fc.tuple(good, spoiling).map(([value, how]) => toJson(spoiled(value, how))),
          },
          { weight: 1, arbitrary: anything.map(toJson) },
          {
            weight: 1,
            arbitrary: fc.constantFrom(
              undefined,
              '',
              '{',
              '[1,]',
              'null',
              '{"a":1,"a":2}',
              '{"__proto__":{}}',
              '\ufeff{}',
              '{"x":"\\ud800"}',
              '{"x":"\\u0000"}',
            ),
          },
        )
  const type = fc.oneof(
    { weight: 20, arbitrary: fc.constant('application/json') },
    {
      weight: 1,
      arbitrary: fc.constantFrom(
        'text/plain',
        'application/cloudevents+json',
        'application/cloudevents-batch+json',
        'multipart/form-data',
        'x',
      ),
    },
  )
  return fc.record({ values, body, type }).map(({ values: at, body: sent, type: contentType }) => {
    const given = at as Record<string, unknown>
    const path = operation.path.replaceAll(
      /\{(\w+)\}/g,
      (_, name: string) => encode(given[`path ${name}`]) || 'x',
    )
    const query = places
      .filter(one => one.in === 'query' && given[`query ${one.name}`] !== undefined)
      .map(one => `${encodeURIComponent(one.name)}=${encode(given[`query ${one.name}`])}`)
      .join('&')
    return { path: query === '' ? path : `${path}?${query}`, body: sent, type: contentType }
  })
}

const toJson = (value: unknown): string | undefined => JSON.stringify(value)
const encode = (value: unknown): string => {
  const plain = typeof value === 'string' ? value : (JSON.stringify(value) ?? '')
  // A path that walks upwards is another path; browsers and clients resolve it before they send it.
  return encodeURIComponent(plain.toWellFormed().slice(0, 2000)).replaceAll('.', '%2E')
}

interface Answer {
  status: number
  type: string
  text: string
}

/** Below fetch, which repairs what should reach the server broken. */
function send(method: string, as: string, { path, body, type }: Attempt): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const headers: Record<string, string> = { authorization: `Bearer ${as}` }
    if (body !== undefined)
      Object.assign(headers, { 'content-type': type, 'content-length': String(Buffer.byteLength(body)) })
    const call = open(t.url + path, { method, headers, agent }, (response: IncomingMessage) => {
      let said = ''
      response.setEncoding('utf8')
      response.on('data', (part: string) => (said += part))
      response.on('end', () =>
        resolve({ status: response.statusCode!, type: response.headers['content-type'] ?? '', text: said }),
      )
      response.on('error', reject)
    })
    call.on('error', reject)
    call.end(body)
  })
}

// ------------------------------------------------------------------ the run

const CODES = new Set<string>()
/** Operations that did what they were asked to at least once: the others were only ever refused. */
const DONE = new Set<string>()

function check(name: string, { status, type, text: said }: Answer): void {
  // 5002 is documented as a 500 (AUR-147): what an operator has switched off is nobody's mistake in the request.
  const switchedOff = status === 500 && said.includes('"code":"channel_unavailable"')
  assert.ok(status < 500 || status === 503 || switchedOff, `${name} answered ${status}: ${said}`)
  if (status < 400) {
    DONE.add(name)
    return
  }
  assert.match(type, /^application\/problem\+json/, name)
  const problem: Loose = JSON.parse(said)
  assert.equal(problem.status, status)
  for (const member of ['type', 'title', 'detail', 'code', 'requestId']) {
    assert.equal(typeof problem[member], 'string', `${name}: ${member} of ${said}`)
  }
  for (const { field, message } of problem.errors ?? []) {
    assert.deepEqual([typeof field, typeof message], ['string', 'string'], said)
  }
  CODES.add(problem.code)
}

// These would take the ground from under the run, or wait on purpose.
const SKIPPED = new Set(['GET /realtime', 'DELETE /api/keys/{id}', 'PATCH /api/tenants/{name}'])

const events = async () =>
  (await t.db.one<{ n: number; open: number }>(
    sql(
      'count_accepted',
      `select (select count(*) from events)::int n, (select count(*) from dead_letters where kind = 'event')::int open`,
    ),
  ))!

test('no operation answers anything with a 5xx, and every refusal is a problem', {
  timeout: 120_000,
}, async context => {
  context.diagnostic(`seed ${SEED}: FUZZ_SEED=${SEED} repeats it`)
  const takes = ({ method, path }: Operation) =>
    path.endsWith('/erase') || path === '/api/users/{userId}' ? 2 : Number(method === 'DELETE')
  // What takes things away comes last.
  const targets = operations.filter(({ name }) => !SKIPPED.has(name)).sort((a, b) => takes(a) - takes(b))
  assert.ok(targets.length > 80)
  const deadline = Date.now() + SECONDS * 1000
  const found: string[] = []
  let calls = 0
  for (const [at, operation] of targets.entries()) {
    const share = Math.max(200, (deadline - Date.now()) / (targets.length - at))
    await fc
      .assert(
        fc.asyncProperty(attempts(operation), async attempt => {
          calls++
          // Nobody waits for a poll: that would be its time and not ours.
          const path = operation.name.startsWith('GET /realtime/poll')
            ? `${attempt.path.replaceAll(/timeout=[^&]*/g, '')}${attempt.path.includes('?') ? '&' : '?'}timeout=0`
            : attempt.path
          check(operation.name, await send(operation.method, t.tenant.adminKey, { ...attempt, path }))
        }),
        {
          seed: SEED,
          numRuns: 250,
          interruptAfterTimeLimit: share,
          markInterruptAsFailure: false,
          endOnFailure: true,
        },
      )
      .catch((error: Error) => {
        // Its share of the time was over before the first call: a busy machine, and no finding.
        if (/interrupted after 0 tests/.test(error.message)) return
        found.push(`${operation.name}\n${error.message.slice(0, 3000)}`)
      })
  }
  context.diagnostic(`only refused: ${targets.map(one => one.name).filter(name => !DONE.has(name))}`)
  context.diagnostic(`${calls} calls of ${targets.length} operations; codes: ${[...CODES].sort().join(', ')}`)
  assert.deepEqual(found, [])
  assert.ok(DONE.size > targets.length / 2, 'most operations are only ever refused')
  assert.ok(CODES.has('invalid_request') && CODES.has('not_found'))
  assert.equal((await t.call('GET', '/readyz')).status, 200)
})

test('a batch accepts exactly the events it says, whatever else is in it', {
  timeout: 60_000,
}, async context => {
  context.diagnostic(`seed ${SEED}`)
  const batch = operations.find(({ name }) => name === 'POST /api/events/batch')!
  const single = operations.find(({ name }) => name === 'POST /api/events/publish')!
  const event = allowed(single.body)
  let accepted = 0
  const item = fc.oneof(
    event,
    fc.tuple(event, spoiling).map(([value, how]) => spoiled(value, how)),
    fc.constant({ type: 'order.paid' }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(item, { maxLength: 12 }), async drawn => {
      const items = [...drawn, { type: 'order.paid' }]
      const before = await events()
      const body = JSON.stringify({ events: items })
      const answer = await send('POST', t.tenant.serviceKey, {
        path: batch.path,
        body,
        type: 'application/json',
      })
      check(batch.name, answer)
      const after = await events()
      const results = answer.status === 202 ? (JSON.parse(answer.text).results as Loose[]) : []
      if (answer.status === 202)
        assert.deepEqual(
          results.map(one => one.index),
          items.map((_, index) => index),
        )
      const isNew = (one: Loose) =>
        one.eventId !== undefined && one.error === undefined && one.duplicate !== true
      assert.equal(after.n - before.n, results.filter(isNew).length, answer.text)
      const dead = results.filter(one => one.eventId !== undefined && one.error !== undefined).length
      assert.equal(after.open - before.open, dead)
      accepted += after.n - before.n
    }),
    { seed: SEED, numRuns: 60, interruptAfterTimeLimit: 10_000, endOnFailure: true },
  )
  assert.ok(accepted > 0)
})
