import { test } from 'node:test'
import assert from 'node:assert/strict'
import { isCelError, run } from '@bufbuild/cel'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import type { JsonObject } from '../types.ts'
import { MAX_STRING, REGEX_STATE_BYTES, regex } from './cel-meter.ts'
import {
  celEvent,
  compile,
  MAX_SOURCE,
  type CelEvent,
  type Evaluation,
  type Kind,
  type Results,
} from './cel.ts'

const now = new Date('2026-11-21T12:00:00Z')

function eventOf(data: JsonObject, more: { type?: string; subject?: string } = {}): CelEvent {
  const type = more.type ?? 'commerce.order.shipped'
  return celEvent(
    {
      tenantId: 1,
      id: 'e-1',
      source: '/shop',
      type,
      subject: more.subject,
      time: now,
      receivedAt: now,
      data,
    },
    'acme',
  )
}

const evaluate = <K extends Kind>(kind: K, source: string, data: JsonObject = {}): Evaluation<Results[K]> =>
  compile(source, kind).evaluate(eventOf(data), now)
const value = (source: string, data?: JsonObject) => evaluate('value', source, data)
const is = (source: string, data?: JsonObject) => evaluate('pattern', source, data)

const TRUE = { ok: true, value: true }
const FALSE = { ok: true, value: false }
const fails = (result: Evaluation<unknown>) => (result.ok ? 'no failure' : result.code)

function refusal(kind: Kind, source: string): { at: string; message: string } {
  try {
    compile(source, kind, 'eventPattern')
  } catch (error) {
    assert.ok(error instanceof AppError, String(error))
    assert.equal(error.code, 'invalid_expression')
    assert.equal(error.errors?.[0]?.field, 'eventPattern')
    const { line, column, start, end } = error.extra ?? {}
    assert.ok(typeof start === 'number' && typeof end === 'number' && start <= end && end <= source.length)
    return { at: `${JSON.stringify(line)}:${JSON.stringify(column)}`, message: error.message }
  }
  throw new assert.AssertionError({ message: `${source} was not refused` })
}

// covers: DIC-053
test('reads the event: its attributes, its data, the clock', () => {
  assert.deepEqual(is('event.type == "commerce.order.shipped"'), TRUE)
  assert.deepEqual(
    is('event.domain == "commerce" && event.source == "/shop" && event.tenant == "acme"'),
    TRUE,
  )
  assert.deepEqual(is('event.time == now && now < timestamp("2027-01-01T00:00:00Z")'), TRUE)
  assert.deepEqual(is('has(event.subject) || has(event.data.x)'), FALSE)
  assert.deepEqual(is('event.data.tags.exists(t, t.startsWith("vip"))', { tags: ['new', 'vip-1'] }), TRUE)
  assert.deepEqual(
    is('event.data.state in ["late", "lost"] && !(event.data.n > 3)', { state: 'lost', n: 3 }),
    TRUE,
  )
  assert.deepEqual(value('event.?data.owner.orValue("nobody")'), { ok: true, value: 'nobody' })
})

test('a domain is the type up to its first dot, or all of it', () => {
  assert.equal(eventOf({}, { type: 'ping' }).domain, 'ping')
  assert.equal(eventOf({}, { type: 'a.b.c' }).domain, 'a')
})

test('JSON numbers are doubles: they compare with whole numbers, but do not add up with them', () => {
  const data = { count: 5, price: 2.5 }
  assert.deepEqual(is('event.data.count == 5', data), TRUE)
  assert.deepEqual(is('5 == event.data.count && event.data.count in [1, 5]', data), TRUE)
  assert.deepEqual(is('event.data.count > 4 && event.data.price < 3', data), TRUE)
  assert.equal(fails(is('event.data.count + 1 == 6', data)), 'no_such_overload')
  assert.deepEqual(is('event.data.count + 1.0 == 6.0', data), TRUE)
  assert.deepEqual(is('int(event.data.count) % 2 == 1', data), TRUE)
})

// covers: DIC-053, DIC-054
test('refuses what cannot be right, and says where', () => {
  assert.equal(refusal('pattern', 'event.type ==').at, '1:14')
  assert.equal(refusal('pattern', 'event.type == "a" &&\n  evnt.data.x == 1').at, '2:3')
  assert.match(refusal('pattern', 'evnt.type == "a"').message, /Unknown variable: evnt/)
  assert.match(refusal('pattern', 'event.typ == "a"').message, /Unknown field: event\.typ/)
  assert.match(refusal('pattern', 'event.constructor == "a"').message, /Unknown field/)
  assert.match(refusal('pattern', '1 + 1').message, /true or false.*int/)
  assert.match(refusal('pattern', '"a" + 1 == "a1"').message, /No such overload: string \+ int/i)
  assert.match(refusal('pattern', 'bytes("{}").json() == {}').message, /Unknown function: json/)
  assert.match(refusal('pattern', 'fetch("x")').message, /Unknown function: fetch/)
  assert.match(refusal('pattern', '[1].all(event, event == 1)').message, /cannot be the name/)
  assert.match(refusal('pattern', '[].all(e, e > 0)').message, /types of the expression are not clear/)
  assert.equal(refusal('pattern', '  ').at, '1:1')
  assert.equal(refusal('pattern', 'event.type.matches("[a-")').at, '1:20')
  assert.match(refusal('recipients', '[1, 2]').message, /user ids.*list<int>/)
  assert.match(refusal('recipients', 'event.type == "a"').message, /user ids.*bool/)
  assert.match(refusal('value', 'string').message, /this gives type/)
})

// covers: DIC-053
test('refuses expressions that are too large', () => {
  assert.match(refusal('pattern', `event.type == "${'x'.repeat(MAX_SOURCE)}"`).message, /longer than 4096/)
  assert.match(refusal('pattern', `${'('.repeat(200)}true${')'.repeat(200)}`).message, /maxDepth/)
  assert.match(refusal('pattern', '!'.repeat(4_000) + 'true').message, /maxAstNodes|too deeply/)
  assert.match(refusal('pattern', `size([${'1,'.repeat(1_500)}]) > 0`).message, /maxListElements/)
  assert.match(
    refusal('value', `{${Array.from({ length: 101 }, (_, i) => `"${i}":1`).join()}}`).message,
    /maxMapEntries/,
  )
  assert.match(
    refusal('pattern', 'event.data.a.all(x, event.data.a.all(y, event.data.a.all(z, true)))').message,
    /nest at most 2/,
  )
  assert.match(refusal('pattern', `event.type.matches("${'a'.repeat(600)}")`).message, /longer than 512/)
  assert.match(refusal('pattern', 'event.type.matches("(([a-z]{1,30}){1,30}){1,1}")').message, /too large/)
})

test('the same source is compiled once', () => {
  assert.equal(compile('event.type == "once"', 'pattern'), compile('event.type == "once"', 'pattern'))
  assert.notEqual(compile('event.type', 'value'), compile('event.type', 'recipients'))
})

test('a failure is a value with a code, and quotes the rule, not the event', () => {
  assert.deepEqual(is('event.data.owner.id == "x"'), {
    ok: false,
    code: 'no_such_key',
    error: 'no such key: event.data.owner',
  })
  assert.deepEqual(is('event.data.n', { n: 7 }), {
    ok: false,
    code: 'not_bool',
    error: 'the pattern gave neither true nor false',
  })
  const secret = 'a secret of the event'
  for (const source of [
    'bool(event.data.s)',
    'int(event.data.s) > 0',
    'timestamp(event.data.s) > now',
    'duration(event.data.s) > duration("1s")',
    'event.type.matches("(" + event.data.s)',
    'event.data[event.data.s] == 1',
    'event.data.s.missing == 1',
    'event.data.s && true',
    'event.data.s > 1',
    'now.getHours(event.data.s) == 1',
  ]) {
    const result = is(source, { s: secret })
    assert.equal(result.ok, false, source)
    assert.doesNotMatch(JSON.stringify(result), /secret/, source)
  }
})

test('&& and || absorb the failure of one side when the other decides', () => {
  assert.deepEqual(is('event.data.missing == 1 && false'), FALSE)
  assert.deepEqual(is('event.data.missing == 1 || true'), TRUE)
  assert.equal(fails(is('event.data.missing == 1 && true')), 'no_such_key')
})

// covers: DIC-056
test('recipients come as distinct user ids', () => {
  assert.deepEqual(evaluate('recipients', 'event.data.customer_id', { customer_id: 'c-1' }), {
    ok: true,
    value: ['c-1'],
  })
  assert.deepEqual(evaluate('recipients', 'event.data.ids.map(i, "u" + i)', { ids: ['1', '2', '1'] }), {
    ok: true,
    value: ['u1', 'u2'],
  })
  assert.deepEqual(evaluate('recipients', '[event.data.a, "boss"]', { a: 42 }), {
    ok: true,
    value: ['42', 'boss'],
  })
  assert.deepEqual(evaluate('recipients', 'event.data.owner', { owner: null }), { ok: true, value: [] })
  assert.equal(fails(evaluate('recipients', 'event.data.a', { a: { id: 1 } })), 'not_recipients')
  assert.equal(fails(evaluate('recipients', 'event.data.a', { a: '' })), 'not_recipients')
  assert.equal(fails(evaluate('recipients', '"al\\u0000ice"', {})), 'not_recipients')
  assert.equal(fails(evaluate('recipients', 'event.data.a.substring(0, 1)', { a: '😀' })), 'not_recipients')
  assert.equal(fails(evaluate('recipients', 'event.data.a', { a: 'x'.repeat(256) })), 'not_recipients')
  const many = Array.from({ length: 1_001 }, (_, i) => `u${i}`)
  assert.equal(fails(evaluate('recipients', 'event.data.a', { a: many })), 'too_many_recipients')
})

test('values come as JSON', () => {
  assert.deepEqual(
    value('{"n": 3, "at": now, "for": duration("90s500ms"), "list": [event.data.x, null]}', { x: 1 }),
    {
      ok: true,
      value: { n: 3, at: '2026-11-21T12:00:00Z', for: '90.5s', list: [1, null] },
    },
  )
  assert.deepEqual(value('9007199254740993'), { ok: true, value: '9007199254740993' })
  assert.deepEqual(value('b"abc"'), { ok: true, value: 'YWJj' })
  assert.deepEqual(value('event.?subject'), { ok: true, value: null })
  assert.equal(fails(value('1.0 / 0.0')), 'not_data')
  assert.equal(fails(value('now + duration("9999999999h")')), 'not_data')
})

test('wall clocks are read in the zone that is asked for, across its changes', () => {
  const at = (zone: string, instant: string) =>
    value(`timestamp("${instant}").getHours("${zone}")`) as { ok: true; value: number }
  assert.equal(at('Europe/Berlin', '2026-03-29T00:59:59Z').value, 1)
  assert.equal(at('Europe/Berlin', '2026-03-29T01:00:00Z').value, 3)
  assert.equal(at('Europe/Berlin', '2026-10-25T00:30:00Z').value, 2)
  assert.equal(at('Europe/Berlin', '2026-10-25T01:30:00Z').value, 2)
  assert.equal(at('-02:30', '2026-03-29T00:30:00Z').value, 22)
  assert.equal(fails(at('Mars/Olympus', '2026-03-29T00:30:00Z')), 'invalid_zone')
  assert.deepEqual(value('timestamp("2026-12-31T23:30:00Z").getDayOfYear()'), { ok: true, value: 364 })
  assert.deepEqual(value('timestamp("2026-12-31T23:30:00Z").getDayOfYear("Europe/Berlin")'), {
    ok: true,
    value: 0,
  })
  // A time without a zone would mean another instant on every machine.
  assert.equal(fails(value('timestamp("2026-12-31T23:30:00.000")')), 'invalid_timestamp')
})

// ------------------------------------------------------------------ cost

const list = (length: number) => Array.from({ length }, (_, i) => i)

// covers: DIC-053
test('every kind of work ends at the budget', () => {
  const long = 'x'.repeat(200_000)
  const objects = list(3_000).map(i => ({ i, name: `name ${i}` }))
  const wide: JsonObject = Object.fromEntries(list(20_000).map(i => [`k${i}`, i]))
  const mid: JsonObject = Object.fromEntries(list(100).map(i => [`k${i}`, i]))
  const data: JsonObject = {
    n: list(5_000),
    mid,
    long,
    objects,
    same: structuredClone(objects),
    wide,
    few: list(200),
  }
  for (const source of [
    'event.data.n.all(x, event.data.n.all(y, true))',
    'event.data.n.map(x, event.data.n.filter(y, y > 1.0)).size() > 0',
    'event.data.n.exists(x, event.data.n.exists(y, y < 0.0))',
    'event.data.n.exists_one(x, event.data.n.exists_one(y, y < 0.0))',
    // Errors inside a loop or a side of || are set aside; running out is not an error to set aside.
    'event.data.n.exists(x, !event.data.n.all(y, true)) || true',
    'event.data.n.exists(x, event.data.n.exists(y, y.missing)) || event.data.n.all(x, true)',
    'event.data.few.all(x, event.data.objects == event.data.same)',
    'event.data.mid in event.data.objects',
    // The loop ends early with "true"; what fails after it must not hide that.
    'event.data.n.all(x, event.data.n.all(y, true)) && event.data.missing',
    'event.data.few.all(x, event.data.few.all(y, size(event.data.wide) > 0))',
    'event.data.few.all(x, event.data.wide.all(k, k == "") || true)',
    'event.data.few.all(x, event.data.long.contains("y") || true)',
    'event.data.few.all(x, event.data.long.lowerAscii() != "")',
    'event.data.few.all(x, event.data.long.split("").size() > 0)',
    'event.data.few.all(x, (event.data.n + event.data.n).size() > 0)',
    'event.data.objects.all(x, now.getHours("Europe/Berlin") > 0)',
    'event.data.few.all(x, "abc".matches("^a" + string(x)) || true)',
  ]) {
    assert.equal(fails(is(source, data)), 'budget_exceeded', source)
  }
  assert.deepEqual(is('event.data.n.all(x, x >= 0)', data), TRUE)
  assert.deepEqual(is('event.data.objects == event.data.same', data), TRUE)
  assert.deepEqual(is('event.data.long.contains("y")', data), FALSE)
})

test('a loop stops at the step where the budget ends, whatever swallows its error', () => {
  for (const source of ['exists(x, x.v)', 'all(x, !x.v)', 'exists_one(x, x.v)', 'map(x, x.v).size() == 0']) {
    let reads = 0
    const counted = {
      get v() {
        reads += 1
        return false
      },
    }
    const event = eventOf({ n: list(30_000).map(() => counted) })
    reads = 0
    assert.equal(
      fails(compile(`event.data.n.${source} || true`, 'pattern').evaluate(event, now)),
      'budget_exceeded',
    )
    assert.ok(reads > 5_000 && reads <= 10_000, `${source} read ${reads} of 30,000`)
  }
})

test('one evaluation leaves nothing of its budget or its state to the next', () => {
  const data = { n: list(5_000) }
  const greedy = compile('event.data.n.all(x, event.data.n.all(y, true))', 'pattern')
  const modest = compile('event.data.n.all(x, x >= 0)', 'pattern')
  for (let i = 0; i < 3; i += 1) {
    assert.equal(fails(greedy.evaluate(eventOf(data), now)), 'budget_exceeded')
    assert.deepEqual(modest.evaluate(eventOf(data), now), TRUE)
  }
  assert.ok(Error.stackTraceLimit > 0, 'the stack traces of others are as they were')
})

test('built strings are bounded', () => {
  const data = { s: 'x'.repeat(MAX_STRING / 2 + 1), parts: list(300).map(() => 'y'.repeat(1_000)) }
  assert.equal(fails(value('event.data.s + event.data.s', data)), 'string_too_long')
  assert.equal(fails(value('event.data.parts.join()', data)), 'string_too_long')
  assert.equal(fails(value('event.data.parts.join(",")', data)), 'string_too_long')
  const doubled = list(60).reduce(inner => `cel.bind(s, s + s, ${inner})`, 's == "x"')
  assert.equal(refusal('pattern', `cel.bind(s, event.data.s, ${doubled})`).message.includes('maxDepth'), true)
  const doubledLess = list(20).reduce(inner => `cel.bind(s, s + s, ${inner})`, 's == "x"')
  assert.equal(fails(is(`cel.bind(s, event.data.s, ${doubledLess})`, data)), 'string_too_long')
})

// Each of these ran for seconds to centuries on the functions it replaces.
test('hostile text costs linear time', () => {
  assert.deepEqual(is('event.data.s.matches("^(a+)+$")', { s: `${'a'.repeat(60)}!` }), FALSE)
  assert.deepEqual(
    is('event.data.s.matches(event.data.p)', { s: `${'a'.repeat(60)}!`, p: '^(a|a)*$' }),
    FALSE,
  )
  assert.equal(
    fails(is('duration(event.data.s) > duration("1s")', { s: '1'.repeat(100_000) })),
    'invalid_duration',
  )
  assert.equal(fails(is('event.data.s.matches("a")', { s: 'b'.repeat(70_000) })), 'regex_input_too_long')
  assert.equal(
    fails(is('event.data.s.matches("([ab]{1,20}){20}")', { s: 'ab'.repeat(20_000) })),
    'budget_exceeded',
  )
  assert.match(refusal('pattern', 'event.type.matches("(?=a)")').message, /regexp/)
  assert.equal(fails(is('event.data.s.matches(event.data.p)', { s: 'a', p: '(?=a)' })), 'invalid_regex')
})

test('a regular expression keeps a bounded automaton', () => {
  const automaton = regex('[ab]*a[ab]{12}[cd]').re2Input.dfa
  assert.equal(automaton.memBudget, REGEX_STATE_BYTES)
})

// ------------------------------------------------------------------ hostile names

// covers: DIC-053
test('nothing of JavaScript shows through', () => {
  for (const name of ['constructor', '__proto__', 'prototype', 'toString', 'hasOwnProperty', 'length']) {
    assert.equal(fails(is(`event.data.${name} == ""`)), 'no_such_key', name)
    assert.equal(fails(is(`event["${name}"] == ""`)), 'no_such_key', name)
    assert.equal(fails(is(`event.data.s.${name} == ""`, { s: 'text' })), 'no_such_key', name)
    assert.equal(fails(is(`event.data.l["${name}"] == ""`, { l: [] })), 'no_such_key', name)
    assert.deepEqual(is(`has(event.data.${name}) || "${name}" in event.data`), FALSE, name)
  }
})

test('data may have fields of such names, and they are just fields', () => {
  const data = JSON.parse(
    '{"constructor": "Ferrari", "driver": {"constructor": null, "name": "L"}, "__proto__": {"x": 1}, "list": [{"constructor": 1}]}',
  ) as JsonObject
  assert.deepEqual(is('event.data.constructor == "Ferrari" && event.data.driver.name == "L"', data), TRUE)
  assert.deepEqual(
    is('has(event.data.constructor) && "driver" in event.data && size(event.data) == 4', data),
    TRUE,
  )
  assert.deepEqual(
    is('event.data.exists(k, k == "driver") && event.data.list[0].constructor == 1', data),
    TRUE,
  )
  assert.deepEqual(value('event.data.driver', data), { ok: true, value: { constructor: null, name: 'L' } })
  assert.deepEqual(is('event.data.__proto__.x == 1', data), TRUE)
  assert.equal(({} as Record<string, unknown>)['x'], undefined)
})

test('data nested beyond the stack is a failure like any other', () => {
  const deep = JSON.parse(`${'['.repeat(200_000)}${']'.repeat(200_000)}`) as []
  assert.equal(is('event.data.d == event.data.e', { d: deep, e: [] }).ok, false)
})

// ------------------------------------------------------------------ against the other implementation

const field = fc.constantFrom('event.data.a', 'event.data.b', 'event.data.n.x', 'event.type', 'event.subject')
const literal = fc.oneof(
  fc.constantFrom('"x"', '"y"', '""', '1', '0', '-1', '2.5', 'true', 'false', 'null'),
  fc.integer({ min: -3, max: 3 }).map(String),
)
const list3 = fc.array(literal, { minLength: 1, maxLength: 3 }).map(items => `[${items.join(', ')}]`)
const atom = fc.oneof(
  fc
    .tuple(field, fc.constantFrom('==', '!=', '<', '<=', '>', '>='), literal)
    .map(([a, op, b]) => `${a} ${op} ${b}`),
  fc.tuple(field, fc.constantFrom('==', '!='), field).map(([a, op, b]) => `${a} ${op} ${b}`),
  fc.tuple(field, list3).map(([a, items]) => `${a} in ${items}`),
  fc
    .tuple(
      field,
      fc.constantFrom('startsWith', 'endsWith', 'contains', 'matches'),
      fc.constantFrom('x', 'y', ''),
    )
    .map(([a, name, text]) => `${a}.${name}("${text}")`),
  fc.constantFrom(
    'has(event.data.a)',
    'has(event.data.n.x)',
    'has(event.subject)',
    'event.data.b',
    'true',
    'false',
  ),
  fc.tuple(fc.constantFrom('event.data.l', 'event.data.a'), literal).map(([a, b]) => `${b} in ${a}`),
  fc
    .tuple(fc.constantFrom('exists', 'all', 'exists_one'), fc.constantFrom('==', '>', '!='), literal)
    .map(([name, op, b]) => `event.data.l.${name}(i, i ${op} ${b})`),
  fc
    .tuple(fc.constantFrom('filter', 'map'), literal, fc.nat(3))
    .map(([name, b, n]) => `event.data.l.${name}(i, i == ${b}).size() > ${n}`),
)
const { pattern } = fc.letrec<{ pattern: string }>(tie => ({
  pattern: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    atom,
    fc.tuple(tie('pattern'), tie('pattern')).map(([a, b]) => `(${a} && ${b})`),
    fc.tuple(tie('pattern'), tie('pattern')).map(([a, b]) => `(${a} || ${b})`),
    tie('pattern').map(a => `!(${a})`),
    fc.tuple(tie('pattern'), tie('pattern'), tie('pattern')).map(([a, b, c]) => `(${a} ? ${b} : ${c})`),
  ),
}))
const scalar = fc.constantFrom('x', 'y', 'xy', '', 0, 1, -1, 2.5, true, false, null)
// @bufbuild/cel takes a field that is null for missing in has(); the specification does not.
const present = scalar.filter(value => value !== null)
const eventData = fc.record(
  {
    a: fc.oneof(present, fc.array(scalar, { maxLength: 3 })),
    b: scalar,
    n: fc.record({ x: present }, { requiredKeys: [], noNullPrototype: true }),
    l: fc.array(scalar, { maxLength: 4 }),
  },
  { requiredKeys: [], noNullPrototype: true },
)

test('gives what @bufbuild/cel gives, for patterns of the forms rules have', () => {
  let decided = 0
  fc.assert(
    fc.property(pattern, eventData, fc.constantFrom(undefined, 'x'), (source, data, subject) => {
      let program
      try {
        program = compile(source, 'pattern')
      } catch {
        return
      }
      const ours = program.evaluate(eventOf(data, { type: 'x', subject }), now)
      const theirs = run(source, {
        event: { type: 'x', data, ...(subject === undefined ? {} : { subject }) },
      })
      const expected = isCelError(theirs) || typeof theirs !== 'boolean' ? 'error' : theirs
      assert.equal(ours.ok ? ours.value : 'error', expected, `${source} of ${JSON.stringify(data)}`)
      decided += 1
    }),
    { numRuns: 1_500 },
  )
  assert.ok(decided > 1_000, `${decided} patterns were compared`)
})
