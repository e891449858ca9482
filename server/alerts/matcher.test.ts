import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import type { Event, JsonObject } from '../types.ts'
import {
  type Lookup,
  type Matcher,
  MAX_VALUE,
  compileMatchers,
  lookupIn,
  lookupOf,
  rememberedOf,
} from './matcher.ts'

const event = (data: JsonObject, more: Partial<Event> = {}): Event => ({
  tenantId: 1,
  id: '01890a5d-ac96-774b-bcce-b302099a8057',
  source: 'prometheus',
  type: 'prometheus.alert.firing',
  subject: 'DiskFull',
  time: new Date('2026-03-01T12:00:00Z'),
  receivedAt: new Date('2026-03-01T12:00:00Z'),
  data,
  ...more,
})
/** Holds for nothing absent, so that any list with it may be written. */
const ANCHOR: Matcher = { name: 'type', op: '=', value: 'prometheus.alert.firing' }
const holds = (matcher: Matcher, of: Event) => compileMatchers([ANCHOR, matcher], '/matchers')(lookupOf(of))
const refusal = (work: () => unknown): AppError => {
  try {
    work()
  } catch (error) {
    assert.ok(error instanceof AppError)
    return error
  }
  return assert.fail('it was taken')
}

test('matchers read attributes, labels and paths into the data', () => {
  const alert = event({
    labels: { severity: 'warning', team: 'shop', type: 'a label' },
    disk: { used: 97, full: true, names: ['a'] },
  })
  for (const [name, value] of [
    ['type', 'prometheus.alert.firing'],
    ['source', 'prometheus'],
    ['subject', 'DiskFull'],
    ['severity', 'warning'],
    ['team', 'shop'],
    ['labels.team', 'shop'],
    ['labels.type', 'a label'],
    ['data.labels.team', 'shop'],
    ['data.disk.used', '97'],
    ['data.disk.full', 'true'],
    ['data.disk.names', ''],
    ['data.disk.used.deeper', ''],
    ['data.constructor', ''],
    ['toString', ''],
    ['absent', ''],
  ]) {
    assert.ok(holds({ name: name!, op: '=', value: value! }, alert), name)
    assert.ok(!holds({ name: name!, op: '!=', value: value! }, alert), name)
  }
  assert.ok(holds({ name: 'severity', op: '=', value: 'high' }, event({ severity: 'high' })))
})

test('an expression covers the whole value, also over lines', () => {
  const of = event({ labels: { instance: 'db10:9100', text: 'one\ntwo' } })
  for (const [name, value, yes] of [
    ['instance', 'db10', false],
    ['instance', 'db1.*', true],
    ['instance', 'db1|db10:9100', true],
    ['instance', 'b10:9100', false],
    ['text', 'one.two', true],
    ['absent', '', true],
    ['absent', '.+', false],
  ] as const) {
    assert.equal(holds({ name, op: '=~', value }, of), yes, `${name} =~ ${value}`)
    assert.equal(holds({ name, op: '!~', value }, of), !yes, `${name} !~ ${value}`)
  }
})

test('what cannot be compiled, and what holds for everything, is refused with its field', () => {
  const bad = refusal(() => compileMatchers([ANCHOR, { name: 'x', op: '=~', value: '(' }], '/matchers'))
  assert.equal(bad.errors?.[0]?.field, '/matchers/1/value')
  // RE2 has neither: both would let one event cost more than its length.
  for (const value of ['(a)\\1', '(?=a)']) {
    refusal(() => compileMatchers([ANCHOR, { name: 'x', op: '=~', value }], '/matchers'))
  }
  for (const matchers of [
    [],
    [{ name: 'x', op: '=', value: '' }],
    [{ name: 'x', op: '=~', value: '.*' }],
    [
      { name: 'x', op: '!=', value: 'a' },
      { name: 'y', op: '!~', value: 'a' },
    ],
  ] satisfies Matcher[][]) {
    assert.equal(refusal(() => compileMatchers(matchers, '/matchers')).errors?.[0]?.field, '/matchers')
  }
  const data = [{ name: 'data.x', op: '=', value: 'x' }] satisfies Matcher[]
  const remembered = refusal(() => compileMatchers(data, '/sourceMatchers', { remembered: true }))
  assert.equal(remembered.errors?.[0]?.field, '/sourceMatchers/0/name')
})

const word = fc.constantFrom('', 'a', 'b', 'ab', 'a.b')
const matcher = fc.record({
  name: fc.constantFrom('type', 'subject', 'severity', 'team', 'labels.severity', 'toString'),
  op: fc.constantFrom('=', '!=', '=~', '!~'),
  value: word,
}) as fc.Arbitrary<Matcher>
const labels = fc.dictionary(
  fc.constantFrom('severity', 'team', 'type', 'toString'),
  fc.oneof(word, fc.string({ unit: 'binary' })),
)

test('law: an operator and its opposite never agree, and a list holds when each of it does', () => {
  const opposite = { '=': '!=', '!=': '=', '=~': '!~', '!~': '=~' } as const
  fc.assert(
    fc.property(fc.array(matcher, { maxLength: 4 }), labels, (list, having) => {
      const of = event({ labels: having })
      for (const one of list) {
        assert.notEqual(holds(one, of), holds({ ...one, op: opposite[one.op] }, of))
      }
      const all = compileMatchers([ANCHOR, ...list], '/matchers')(lookupOf(of))
      assert.equal(
        all,
        list.every(one => holds(one, of)),
      )
    }),
  )
})

test('law: what is remembered of an alert answers matchers as the alert itself did', () => {
  fc.assert(
    fc.property(matcher, labels, (one, having) => {
      const of = event({ labels: having })
      // As the database gives it back.
      const remembered: Lookup = lookupIn(
        JSON.parse(JSON.stringify(rememberedOf(of))) as Record<string, string>,
      )
      const test = compileMatchers([ANCHOR, one], '/matchers')
      assert.equal(test(remembered), test(lookupOf(of)))
    }),
  )
})

test('only the beginning of a long value counts, on both sides', () => {
  const of = event({ labels: { long: 'x'.repeat(MAX_VALUE + 5), nul: 'a\0b\ud800' } })
  assert.ok(holds({ name: 'long', op: '=', value: 'x'.repeat(MAX_VALUE) }, of))
  assert.equal(rememberedOf(of)['labels.long']!.length, MAX_VALUE)
  assert.equal(rememberedOf(of)['labels.nul'], 'ab\ufffd')
})
