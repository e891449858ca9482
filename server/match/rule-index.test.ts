import { test } from 'node:test'
import assert from 'node:assert/strict'
import fc from 'fast-check'
import { PRIORITIES, type JsonObject } from '../types.ts'
import { celEvent, compile, domainOf, type CelEvent } from './cel.ts'
import { ruleIndex, type Considered, type Match } from './rule-index.ts'
import { compileRule, type Rule, type RuleDefinition } from './rules.ts'

const now = new Date('2026-11-21T12:00:00Z')

function newRule(no: number, part: Partial<RuleDefinition> = {}): Rule {
  return compileRule(
    {
      name: `rule ${no}`,
      description: '',
      eventPattern: '',
      domains: [],
      eventTypes: [],
      priority: 'NORMAL',
      channels: ['in_app'],
      fallbackChannels: [],
      recipients: { users: ['alice'] },
      templateVars: {},
      timezone: 'UTC',
      policy: {},
      enabled: true,
      validFrom: new Date(0),
      ...part,
    },
    { id: `id-${no}`, no, revision: 1, tenantId: 1 },
  )
}

const patterns = (...sources: string[]) => sources.map((eventPattern, i) => newRule(i + 1, { eventPattern }))

function newEvent(type: string, data: JsonObject = {}, subject?: string): CelEvent {
  return celEvent({ tenantId: 1, id: 'e-1', source: '/x', type, subject, time: now, receivedAt: now, data })
}

const numbers = ({ matched }: Match) => matched.map(rule => rule.no)
const reasons = ({ considered }: Match) => considered.map(({ rule, why }) => `${rule.no} ${why}`)

// covers: DIC-050
test('lists of types and domains let events through before any pattern', () => {
  const index = ruleIndex([
    newRule(1, { eventTypes: ['commerce.order.shipped'] }),
    newRule(2, { eventTypes: ['commerce.*'] }),
    newRule(3, { eventTypes: ['commerce.order.*', 'commerce.*', 'commerce.order.shipped'] }),
    newRule(4, { domains: ['commerce', 'system'] }),
    newRule(5, { domains: ['system'], eventTypes: ['commerce.order.shipped'] }),
    newRule(6, { eventTypes: ['*'] }),
    newRule(7),
    newRule(8, { eventTypes: ['commerce.ord'] }),
  ])
  assert.deepEqual(numbers(index.match(newEvent('commerce.order.shipped'), now)), [1, 2, 3, 4, 6, 7])
  assert.deepEqual(numbers(index.match(newEvent('commerce'), now)), [4, 6, 7], 'commerce.* is what is below')
  assert.deepEqual(numbers(index.match(newEvent('system.disk'), now)), [4, 6, 7])
})

// covers: DIC-059, DIC-060
test('the documented example rules match their events', () => {
  const index = ruleIndex([
    newRule(1, { eventPattern: 'event.type == "system.database.pool_exhausted"', priority: 'CRITICAL' }),
    newRule(2, { eventPattern: 'event.type == "commerce.order.shipped"', domains: ['commerce'] }),
  ])
  assert.deepEqual(numbers(index.match(newEvent('system.database.pool_exhausted'), now)), [1])
  assert.deepEqual(numbers(index.match(newEvent('commerce.order.shipped'), now)), [2])
})

// covers: DIC-048, DIC-058
test('a rule that is off or out of its time never matches, and says why', () => {
  const index = ruleIndex([
    newRule(1, { enabled: false }),
    newRule(2, { validFrom: new Date(now.getTime() + 1) }),
    newRule(3, { validUntil: now }),
    newRule(4, { validFrom: now, validUntil: new Date(now.getTime() + 1) }),
  ])
  const match = index.match(newEvent('a'), now)
  assert.deepEqual(numbers(match), [4])
  assert.deepEqual(reasons(match), ['1 rule_disabled', '2 outside_validity', '3 outside_validity'])
})

// covers: DIC-051, DIC-049
test('several rules match one event, the most urgent first, then by number', () => {
  const index = ruleIndex([
    newRule(4, { priority: 'LOW' }),
    newRule(3, { priority: 'CRITICAL' }),
    newRule(2),
    newRule(1),
  ])
  assert.deepEqual(numbers(index.match(newEvent('a'), now)), [3, 1, 2, 4])
})

test('near misses say whether the pattern was false or failed', () => {
  const index = ruleIndex(
    patterns(
      'event.data.n > 3',
      'event.data.missing == 1',
      'event.data.n + 1 == 2',
      'event.data.n < 3 && event.data.m',
    ),
  )
  const match = index.match(newEvent('a', { n: 3 }), now)
  assert.deepEqual(reasons(match), [
    '1 pattern_false',
    '2 pattern_error',
    '3 pattern_error',
    '4 pattern_false',
  ])
  assert.equal(match.considered[1]?.error, 'no such key: event.data.missing')
})

test('near misses are bounded: the most urgent are kept, the rest counted', () => {
  const rules = Array.from({ length: 200 }, (_, i) =>
    newRule(i + 1, { eventPattern: `event.data.n > ${i}`, priority: i % 50 === 0 ? 'CRITICAL' : 'LOW' }),
  )
  const match = ruleIndex(rules.toReversed()).match(newEvent('a', { n: 0 }), now)
  assert.equal(match.considered.length, 50)
  assert.equal(match.consideredMore, 150)
  assert.deepEqual(
    match.considered.slice(0, 6).map(({ rule }) => rule.no),
    [1, 51, 101, 151, 2, 3],
  )
})

test('equalities inside a pattern lead to the rule: its neighbours are not even considered', () => {
  const many = Array.from({ length: 500 }, (_, i) =>
    newRule(i + 1, {
      eventPattern: `event.type == "order" && event.data.sku == "s${i}" && event.data.region == "r${i % 3}" && event.data.n > 1`,
    }),
  )
  const index = ruleIndex(many)
  const match = index.match(newEvent('order', { sku: 's77', region: 'r2', n: 2 }), now)
  assert.deepEqual(numbers(match), [78])
  assert.ok(match.considered.length + match.consideredMore < 20)
  assert.deepEqual(numbers(index.match(newEvent('other', { sku: 's77', region: 'r2', n: 2 }), now)), [])
})

test('a rule for each of thousands of fields is found by the fields the event has', () => {
  const index = ruleIndex(
    Array.from({ length: 2_000 }, (_, i) => newRule(i + 1, { eventPattern: `event.data.f${i}.on == true` })),
  )
  const match = index.match(newEvent('a', { f7: { on: true }, f8: { on: false } }), now)
  assert.deepEqual(numbers(match), [8])
  assert.ok(match.considered.length < 20)
  const wide = Object.fromEntries(Array.from({ length: 5_000 }, (_, i) => [`g${i}`, i]))
  assert.deepEqual(numbers(index.match(newEvent('a', { ...wide, f9: { on: true } }), now)), [10])
})

test('putting a rule again replaces it, removing it removes it', () => {
  const index = ruleIndex(patterns('event.type == "a"', 'event.type == "a"'))
  index.put(newRule(1, { eventPattern: 'event.type == "b"' }))
  assert.equal(index.size, 2)
  assert.deepEqual(numbers(index.match(newEvent('a'), now)), [2])
  assert.deepEqual(numbers(index.match(newEvent('b'), now)), [1])
  index.remove('id-2')
  index.remove('id-2')
  assert.equal(index.get('id-2'), undefined)
  assert.deepEqual(numbers(index.match(newEvent('a'), now)), [])
})

test('a pattern that contradicts itself is kept and never matches', () => {
  const index = ruleIndex(
    patterns('event.data.a == "x" && event.data.a == "y"', 'event.type == "a" && event.type == "b"'),
  )
  assert.deepEqual(numbers(index.match(newEvent('a', { a: 'x' }), now)), [])
  index.remove('id-1')
  assert.equal(index.size, 1)
})

// ------------------------------------------------------------------ the law

const types = ['a', 'a.', 'a.b', 'a.b.c', 'a.bc', 'b', 'b.c', 'c.d.e']
const type = fc.constantFrom(...types)
const literal = fc.constantFrom('"x"', '"y"', '1', '1.0', '-1', '0', 'true', 'false', 'null')
const path = fc.constantFrom(
  'event.data.p',
  'event.data.q',
  'event.data["p"]',
  'event.data.o.p',
  'event.data.list',
  'event.subject',
  'event.data.constructor',
  'event.category',
)
const part = fc.oneof(
  { weight: 3, arbitrary: fc.tuple(path, literal).map(([a, b]) => `${a} == ${b}`) },
  { weight: 2, arbitrary: type.map(name => `event.type == "${name}"`) },
  fc.tuple(literal, path).map(([a, b]) => `${a} == ${b}`),
  fc.tuple(path, fc.array(literal, { maxLength: 3 })).map(([a, list]) => `${a} in [${list.join()}]`),
  fc.subarray(types, { minLength: 1 }).map(list => `event.type in [${list.map(name => `"${name}"`).join()}]`),
  fc.constantFrom('a', 'a.', 'a.b', 'c.d.').map(prefix => `event.type.startsWith("${prefix}")`),
  fc.constantFrom('a', 'b').map(domain => `event.domain == "${domain}"`),
  path,
  path.map(a => `!${a}`),
  fc.tuple(path, fc.constantFrom('<', '<=', '>', '>=', '!='), literal).map(([a, op, b]) => `${a} ${op} ${b}`),
  fc.tuple(literal, fc.constantFrom('<', '>', '!='), path).map(([a, op, b]) => `${a} ${op} ${b}`),
  fc.constantFrom('event.data.p.startsWith("x")', 'has(event.data.q)', 'event.data.list.exists(i, i == 1)'),
)
const source = fc.oneof(
  { weight: 6, arbitrary: fc.array(part, { maxLength: 4 }).map(parts => parts.join(' && ')) },
  fc.tuple(part, part).map(([a, b]) => `${a} || ${b}`),
  fc.tuple(part, part, part).map(([a, b, c]) => `${a} && (${b} || ${c})`),
)
const definition = fc.record<Partial<RuleDefinition>>({
  eventPattern: source,
  eventTypes: fc.oneof(
    fc.constant<string[]>([]),
    fc.array(fc.constantFrom(...types, 'a.*', 'a.b.*', 'c.*', '*'), { maxLength: 3 }),
  ),
  domains: fc.oneof(fc.constant<string[]>([]), fc.array(fc.constantFrom('a', 'b', 'c'), { maxLength: 2 })),
  priority: fc.constantFrom(...PRIORITIES),
  enabled: fc.constantFrom(true, true, true, false),
  validFrom: fc.constantFrom(new Date(0), new Date(0), now, new Date(now.getTime() + 1)),
  validUntil: fc.constantFrom(undefined, undefined, now, new Date(now.getTime() + 1)),
})
const value = fc.constantFrom('x', 'y', 1, -1, 0, 2.5, true, false, null)
const data = fc.record(
  {
    p: value,
    q: fc.oneof(value, fc.constant([1, 'x'])),
    o: fc.oneof(fc.record({ p: value }), value),
    list: fc.array(value, { maxLength: 3 }),
    constructor: value,
  },
  { requiredKeys: [] },
) as fc.Arbitrary<JsonObject>
const event = fc
  .tuple(type, data, fc.constantFrom(undefined, 'x', 'y'))
  .map(([name, content, subject]) => newEvent(name, content, subject))

/** The meaning of a rule, asked of CEL alone; undefined where its lists let the event pass by. */
function verdict(rule: Rule, seen: CelEvent): 'matched' | Considered['why'] | undefined {
  if (rule.domains.length > 0 && !rule.domains.includes(domainOf(seen.type))) return undefined
  const wanted = rule.eventTypes
  const listed = wanted.some(
    name =>
      name === '*' || name === seen.type || (name.endsWith('.*') && seen.type.startsWith(name.slice(0, -1))),
  )
  if (wanted.length > 0 && !listed) return undefined
  if (!rule.enabled) return 'rule_disabled'
  if (now < rule.validFrom || (rule.validUntil && now >= rule.validUntil)) return 'outside_validity'
  if (rule.eventPattern === '') return 'matched'
  const result = compile(rule.eventPattern, 'pattern').evaluate(seen, now)
  if (!result.ok) return 'pattern_error'
  return result.value ? 'matched' : 'pattern_false'
}

const takes = (rule: Rule, seen: CelEvent) => verdict(rule, seen) === 'matched'

const compiles = (part: Partial<RuleDefinition>) => {
  try {
    if (part.eventPattern) compile(part.eventPattern, 'pattern')
    return true
  } catch {
    return false
  }
}

test('the index finds exactly the rules that asking each of them finds, however rules come and go', () => {
  fc.assert(
    fc.property(
      fc.array(definition.filter(compiles), { minLength: 1, maxLength: 60 }),
      fc.array(fc.tuple(fc.nat(79), fc.option(definition.filter(compiles), { nil: undefined })), {
        maxLength: 20,
      }),
      fc.array(event, { minLength: 1, maxLength: 8 }),
      (first, changes, events) => {
        const index = ruleIndex(first.map((part, i) => newRule(i, part)))
        const kept = new Map(first.map((part, i) => [`id-${i}`, newRule(i, part)]))
        for (const [no, part] of changes) {
          const rule = newRule(no, part)
          if (part) index.put(rule)
          else index.remove(rule.id)
          if (part) kept.set(rule.id, rule)
          else kept.delete(rule.id)
        }
        assert.equal(index.size, kept.size)
        for (const seen of events) {
          const match = index.match(seen, now)
          const expected = [...kept.values()]
            .filter(rule => takes(rule, seen))
            .sort((a, b) => PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority) || a.no - b.no)
          assert.deepEqual(
            numbers(match),
            expected.map(rule => rule.no),
          )
          for (const { rule, why } of match.considered) assert.equal(why, verdict(rule, seen))
          const all = [...match.matched, ...match.considered.map(({ rule }) => rule)]
          assert.equal(new Set(all).size, all.length, 'no rule is asked twice')
        }
        for (const id of kept.keys()) index.remove(id)
        for (const seen of events)
          assert.deepEqual(index.match(seen, now), { matched: [], considered: [], consideredMore: 0 })
      },
    ),
    { numRuns: 300 },
  )
})

test('where only comparisons tell rules apart, each is judged as CEL judges it, and all are accounted for', () => {
  const field = fc.constantFrom('event.data.p', 'event.data.q', 'event.data.o.p', 'event.data.missing')
  const number = fc.constantFrom('0', '1', '1.0', '-1', '2.5', '1e300', '9007199254740993')
  const operator = fc.constantFrom('<', '<=', '>', '>=', '!=')
  const comparison = fc.tuple(field, operator, number).map(parts => parts.join(' '))
  const rule = fc.record<Partial<RuleDefinition>>({
    eventPattern: fc.array(comparison, { minLength: 1, maxLength: 3 }).map(parts => parts.join(' && ')),
    domains: fc.constantFrom<string[]>([], ['a'], ['b']),
    priority: fc.constantFrom(...PRIORITIES),
  })
  fc.assert(
    fc.property(fc.array(rule, { minLength: 1, maxLength: 90 }), fc.array(event), (parts, events) => {
      const rules = parts.map((part, i) => newRule(i, part))
      const index = ruleIndex(rules)
      for (const seen of events) {
        const judged = rules
          .toSorted((a, b) => PRIORITIES.indexOf(a.priority) - PRIORITIES.indexOf(b.priority) || a.no - b.no)
          .map(each => `${each.no} ${verdict(each, seen)}`)
        const match = index.match(seen, now)
        assert.deepEqual(
          numbers(match).map(no => `${no} matched`),
          judged.filter(text => text.endsWith('matched')),
        )
        const refused = judged.filter(text => / (pattern_false|pattern_error)$/.test(text))
        assert.deepEqual(reasons(match), refused.slice(0, 50))
        assert.equal(match.consideredMore, refused.length - match.considered.length)
      }
    }),
    { numRuns: 200 },
  )
})

test('rules that share most of their equalities are told apart by the rest', () => {
  fc.assert(
    fc.property(
      fc.array(fc.array(fc.nat(2), { minLength: 4, maxLength: 4 }), { minLength: 30, maxLength: 120 }),
      fc.array(fc.nat(2), { minLength: 4, maxLength: 4 }),
      (rules, wanted) => {
        const index = ruleIndex(
          rules.map((values, i) =>
            newRule(i, { eventPattern: values.map((v, k) => `event.data.f${k} == ${v}`).join(' && ') }),
          ),
        )
        const seen = newEvent('a', Object.fromEntries(wanted.map((v, k) => [`f${k}`, v])))
        const expected = rules.flatMap((values, i) => (values.join() === wanted.join() ? [i] : []))
        assert.deepEqual(numbers(index.match(seen, now)), expected)
        rules.forEach((_, i) => i % 2 === 0 && index.remove(`id-${i}`))
        assert.deepEqual(
          numbers(index.match(seen, now)),
          expected.filter(i => i % 2 === 1),
        )
      },
    ),
    { numRuns: 200 },
  )
})
