import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import type { JsonObject } from '../types.ts'
import { celEvent, compile } from './cel.ts'
import { decidedBy, valueAt, type Conditions } from './conditions.ts'

const now = new Date('2026-11-21T12:00:00Z')
const conditions = (source: string): Conditions => compile(source, 'pattern').conditions

function tests(source: string): string[] {
  const { equalities, comparisons, typePrefix, complete } = conditions(source)
  return [
    ...equalities.map(
      ({ path, values, bare }) => `${path.join('.')} in ${[...values].join()}${bare ? ' bare' : ''}`,
    ),
    ...comparisons.map(({ path, operator, value }) => `${path.join('.')} ${operator} ${String(value)}`),
    ...(typePrefix === undefined ? [] : [`type ${typePrefix}*`]),
    ...(complete ? [] : ['…']),
  ]
}

test('the parts of a conjunction are read off, in whatever way they are written', () => {
  assert.deepEqual(tests('event.type == "a" && ("b" == event.data.x.y && event.data["z"] == -2)'), [
    'type in a',
    'data.x.y in b',
    'data.z in -2',
  ])
  assert.deepEqual(tests('event.data.s in ["a", "b"] && event.data.s != "c"'), [
    'data.s in a,b',
    'data.s != c',
  ])
  assert.deepEqual(tests('event.data.s in ["a", "b"] && event.data.s in ["b", "c"]'), ['data.s in b'])
  assert.deepEqual(tests('event.data.on && !event.data.off'), [
    'data.on in true bare',
    'data.off in false bare',
  ])
  assert.deepEqual(tests('event.data.n > 3 && 5 >= event.data.n'), ['data.n > 3', 'data.n <= 5'])
  assert.deepEqual(tests('event.type.startsWith("a.b") && event.data.n == 1'), [
    'data.n in 1',
    'type a.b*',
    '…',
  ])
})

test('what an index could get wrong is left to CEL', () => {
  for (const source of [
    'event.type == "a" || event.data.x == "b"',
    'event.data.x == event.data.y',
    'event.data.x == null',
    'event.data.x in ["a", null]',
    'event.data.x in []',
    'event.data.x == 9007199254740993',
    'event.data.x == 5u',
    'event.data.x == dyn("a")',
    'event.data["a\\u0000b"] == 1',
    'event.data.list[0] == 1',
    'event.data[event.type] == 1',
    'event.data.?x.orValue("a") == "a"',
    'now.getHours() == 9',
    'event.data.a.b.c.d.e.f.g.h == 1',
    'event.data.x < "a"',
    '[1].exists(i, event.data.x == i)',
    'event.data.x ? true : false',
  ]) {
    assert.deepEqual(tests(source), ['…'], source)
  }
})

const literal = fc.constantFrom('"x"', '""', '1', '1.5', '-1', '0', '-0.0', 'true', 'false', 'null')
const path = fc.constantFrom(
  ...['p', 'q', 'o.p', 'o', 'list', 'list.length', 'constructor', 's.length', 'missing'].map(
    name => `event.data.${name}`,
  ),
  'event.data["p"]',
  'event.subject',
  'event.type',
)
const part = fc.oneof(
  fc
    .tuple(path, fc.constantFrom('==', '!=', '<', '<=', '>', '>='), literal)
    .map(([a, op, b]) => `${a} ${op} ${b}`),
  fc
    .tuple(literal, fc.constantFrom('==', '!=', '<', '<=', '>', '>='), path)
    .map(([a, op, b]) => `${a} ${op} ${b}`),
  fc
    .tuple(path, fc.array(literal, { minLength: 1, maxLength: 3 }))
    .map(([a, list]) => `${a} in [${list.join()}]`),
  path,
  path.map(a => `!${a}`),
)
const value = fc.constantFrom('x', '', 1, -1, 0, 1.5, true, false, null, [1], ['x'], { p: 1 })
const data = fc.record(
  {
    p: value,
    q: value,
    o: fc.oneof(fc.record({ p: value }), value),
    list: value,
    constructor: value,
    s: value,
  },
  { requiredKeys: [], noNullPrototype: true },
) as fc.Arbitrary<JsonObject>

test('whatever the conditions decide, CEL decides the same', () => {
  const seen = { true: 0, false: 0, undefined: 0 }
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 2 }), data, (parts, content) => {
      const source = parts.join(' && ')
      let program
      try {
        program = compile(source, 'pattern')
      } catch {
        return
      }
      const event = celEvent({
        tenantId: 1,
        id: 'e',
        source: '/x',
        type: 'x',
        time: now,
        receivedAt: now,
        data: content,
      })
      const decided = decidedBy(program.conditions, path => valueAt(event, path))
      seen[`${decided}`] += 1
      if (decided === undefined) return
      assert.deepEqual(program.evaluate(event, now), { ok: true, value: decided }, source)
    }),
    { numRuns: 5_000 },
  )
  assert.ok(Math.min(seen.true, seen.false, seen.undefined) > 100, JSON.stringify(seen))
})
