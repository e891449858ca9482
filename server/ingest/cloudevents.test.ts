import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import Ajv from 'ajv'
import formatsPlugin from 'ajv-formats'
import { CloudEvent, HTTP } from 'cloudevents'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import type { Event } from '../types.ts'
import { modeOf, readBinary, readStructured } from './cloudevents.ts'

/** The vendors' own words are the judge here; the doors around it are tried in doors.test.ts. */

const origin = { tenantId: 1, now: new Date('2026-01-02T03:04:05Z'), traceId: undefined }
const minimal = { specversion: '1.0', id: '1', source: '/s', type: 'a.b' }
const binary = (headers: Record<string, string>, body?: unknown) =>
  readBinary(
    { 'ce-specversion': '1.0', 'ce-id': '1', 'ce-source': '/s', 'ce-type': 'a.b', ...headers },
    body,
    origin,
  )

/** What a door sees of a message that the package made: JSON parsed, anything else as bytes. */
function readMessage({ headers, body }: { headers: object; body: unknown }): Event {
  const lower = Object.fromEntries(
    Object.entries(headers).map(([name, value]) => [name.toLowerCase(), String(value)]),
  )
  const mode = modeOf(lower)
  if (mode === 'structured') return readStructured(JSON.parse(String(body)), origin)
  assert.equal(mode, 'binary')
  const json = lower['content-type']?.startsWith('application/json') ?? true
  return readBinary(lower, json ? JSON.parse(String(body)) : Buffer.from(body as Uint8Array), origin)
}

const word = fc.stringMatching(/^[A-Za-z0-9_-]{1,20}$/)
/** Printable and without what HTTP or percent-encoding would change: the package leaves encoding to its caller. */
const printable = fc.stringMatching(/^[!#-$&-~]([ -!#-$&-~]{0,60}[!#-$&-~])?$/)
const attributes = fc.record(
  {
    id: printable,
    source: fc.oneof(
      fc.webUrl({ withFragments: true }).filter(url => !url.includes('%')),
      word.map(w => `/${w}`),
      word.map(w => `urn:x:${w}`),
    ),
    type: fc.array(word, { minLength: 1, maxLength: 5 }).map(words => words.join('.')),
    subject: printable,
    time: fc
      .date({
        min: new Date('0001-01-01T00:00:00Z'),
        max: new Date('9999-12-31T23:59:59Z'),
        noInvalidDate: true,
      })
      .map(date => date.toISOString()),
    priority: fc.constantFrom('CRITICAL', 'high', 'MEDIUM'),
    category: word,
    someext: fc.oneof(word, fc.boolean(), fc.integer()),
  },
  { requiredKeys: ['id', 'source', 'type'] },
)

test('what the cloudevents package writes is read the same in both modes', () => {
  fc.assert(
    fc.property(attributes, fc.dictionary(word, fc.jsonValue(), { maxKeys: 5 }), (given, loose) => {
      // As JSON has it: no minus zero, and `__proto__` is refused before it comes here.
      const data = JSON.parse(JSON.stringify(loose)) as Record<string, unknown>
      fc.pre(!JSON.stringify(data).includes('__proto__'))
      const event = new CloudEvent({ ...given, datacontenttype: 'application/json', data })
      const [one, other] = [readMessage(HTTP.binary(event)), readMessage(HTTP.structured(event))]
      for (const read of [one, other]) {
        assert.deepEqual(
          [read.externalId, read.source, read.type, read.subject, read.category, read.data],
          [given.id, given.source, given.type, given.subject, given.category, data],
        )
        assert.equal(read.time.toISOString(), given.time ?? event.time)
        const priority = given.priority?.toUpperCase()
        assert.equal(read.priority, priority === 'MEDIUM' ? 'NORMAL' : priority)
      }
    }),
  )
})

test('bytes arrive as the same base64 in both modes', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 200 }), bytes => {
      const event = new CloudEvent({
        id: '1',
        source: '/s',
        type: 'a.b',
        datacontenttype: 'application/octet-stream',
        data: bytes,
      })
      const expected = {
        base64: Buffer.from(bytes).toString('base64'),
        contentType: 'application/octet-stream',
      }
      assert.deepEqual(readMessage(HTTP.binary(event)).data, expected)
      assert.deepEqual(readMessage(HTTP.structured(event)).data, expected)
    }),
  )
})

const SCHEMA = new URL('../../../shared/contracts/cloudevents-1.0.schema.json', import.meta.url)
const schema = existsSync(SCHEMA) ? JSON.parse(readFileSync(SCHEMA, 'utf8')) : undefined

test('nothing is taken that the JSON schema of CloudEvents refuses', {
  skip: schema === undefined && `needs ${SCHEMA.pathname}`,
}, () => {
  const ajv = new Ajv.default({ strict: false })
  ;(formatsPlugin as unknown as typeof formatsPlugin.default)(ajv)
  const valid = ajv.compile(schema)
  const anything = fc.oneof(
    fc.string(),
    fc.constant(''),
    fc.integer(),
    fc.constant(null),
    fc.constant({}),
    word,
  )
  let taken = 0
  fc.assert(
    fc.property(
      attributes,
      fc.constantFrom(
        'none',
        'specversion',
        'id',
        'source',
        'type',
        'subject',
        'time',
        'datacontenttype',
        'data_base64',
      ),
      anything,
      (given, changed, value) => {
        const event: Record<string, unknown> = { specversion: '1.0', ...given }
        if (changed !== 'none') event[changed] = value
        if (!accepts(event)) return
        taken++
        assert.ok(valid(event), `${JSON.stringify(event)}: ${JSON.stringify(valid.errors)}`)
      },
    ),
    { numRuns: 500 },
  )
  assert.ok(taken > 50, `only ${taken} events were taken`)
})

function accepts(event: unknown): boolean {
  try {
    readStructured(event, origin)
    return true
  } catch (error) {
    assert.ok(error instanceof AppError && error.code === 'invalid_cloudevent', String(error))
    return false
  }
}

test('the content type decides the mode before any header does', () => {
  const table: [Record<string, string>, ReturnType<typeof modeOf>][] = [
    [{ 'content-type': 'application/json' }, undefined],
    [{ 'content-type': 'application/json', 'ce-specversion': '1.0' }, 'binary'],
    [{ 'ce-specversion': '1.0' }, 'binary'],
    [{ 'content-type': 'application/cloudevents+json', 'ce-specversion': '1.0' }, 'structured'],
    [{ 'content-type': 'Application/CloudEvents+JSON ; charset=utf-8' }, 'structured'],
    [{ 'content-type': 'application/cloudevents-batch+json', 'ce-specversion': '1.0' }, 'batched'],
    [{ 'content-type': 'application/cloudevents+jsonx' }, undefined],
  ]
  for (const [headers, mode] of table) assert.equal(modeOf(headers), mode, JSON.stringify(headers))
})

// HTTP binding §3.1.3.2, its own examples among them.
test('headers are unquoted, then decoded once', () => {
  const table: [header: string, subject: string][] = [
    ['Euro%20%E2%82%AC%20%F0%9F%98%80', 'Euro € 😀'],
    ['"two words"', 'two words'],
    ['"say \\"hi\\" \\\\o/"', 'say "hi" \\o/'],
    ['%2541', '%41'],
    ['%22quoted%22', '"quoted"'],
    ['a"b', 'a"b'],
    ['"', '"'],
  ]
  for (const [header, subject] of table)
    assert.equal(binary({ 'ce-subject': header }).subject, subject, header)
  assert.throws(() => binary({ 'ce-subject': '""' }), { code: 'invalid_cloudevent' })
})

test('times are instants of RFC 3339', () => {
  const instant = (time: string) => readStructured({ ...minimal, time }, origin).time.toISOString()
  assert.equal(instant('2026-02-28T23:59:59.123456789+05:30'), '2026-02-28T18:29:59.123Z')
  assert.equal(instant('2024-02-29T00:00:00Z'), '2024-02-29T00:00:00.000Z')
  for (const time of [
    '2026-02-29T00:00:00Z',
    '2026-04-31T00:00:00Z',
    '2026-01-01T24:00:00Z',
    '2026-01-01',
    '1767225600',
  ])
    assert.equal(accepts({ ...minimal, time }), false, time)
})

test('a trace context is taken from the event, else from the request, and never a broken one', () => {
  const id = '4bf92f3577b34da6a3ce929d0e0e4736'
  const withRequest = { ...origin, traceId: 'a'.repeat(32) }
  const traceOf = (traceparent: string) => readStructured({ ...minimal, traceparent }, withRequest).traceId
  assert.equal(traceOf(`00-${id}-00f067aa0ba902b7-01`), id)
  for (const broken of [
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `00-${id}-${'0'.repeat(16)}-01`,
    `ff-${id}`,
    'x',
  ])
    assert.equal(traceOf(broken), withRequest.traceId, broken)
})

test('the timing of an event is bounded', () => {
  const at = (days: number) => new Date(origin.now.getTime() + days * 86_400_000).toISOString()
  const read = readStructured({ ...minimal, scheduledtime: at(1), expirytime: at(2) }, origin)
  assert.deepEqual([read.scheduledAt?.toISOString(), read.expiresAt?.toISOString()], [at(1), at(2)])
  for (const timing of [
    { scheduledtime: at(367) },
    { expirytime: at(0) },
    { scheduledtime: at(2), expirytime: at(1) },
    { scheduledtime: at(1), expirytime: at(1) },
  ])
    assert.equal(accepts({ ...minimal, ...timing }), false, JSON.stringify(timing))
})
