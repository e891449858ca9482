import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type InhibitionDefinition, compileInhibition, covers, wanted } from './inhibition.ts'
import { type Matcher, lookupIn } from './matcher.ts'

const NOW = new Date('2026-03-01T12:00:00Z')
const word = fc.constantFrom('a', 'b', 'c')
const name = fc.constantFrom('severity', 'team', 'instance')
const alert = fc.record({
  key: fc.constantFrom('alert:1', 'alert:2', 'alert:3'),
  labels: fc
    .dictionary(name, fc.oneof(word, fc.constant('')))
    .map(having =>
      Object.fromEntries(
        Object.entries(having).map(([n, v]) => [n === 'severity' ? n : `labels.${n}`, v] as const),
      ),
    ),
  status: fc.constantFrom('firing' as const, 'resolved' as const),
  endsAt: fc.constantFrom(null, new Date(NOW.getTime() + 1), NOW, new Date(NOW.getTime() - 1)),
})
const matchers = fc.array(
  fc.record({ name, op: fc.constantFrom('=', '=~'), value: word }) as fc.Arbitrary<Matcher>,
  { minLength: 1, maxLength: 2 },
)
const rule = fc.record({
  name: fc.constant('rule'),
  sourceMatchers: matchers,
  targetMatchers: matchers,
  equal: fc.uniqueArray(name, { maxLength: 2 }),
}) as fc.Arbitrary<InhibitionDefinition>

const fits = (list: readonly Matcher[], labels: Record<string, string>) =>
  list.every(({ name, value }) => (labels[name === 'severity' ? name : `labels.${name}`] ?? '') === value)

test('law: covered exactly by another firing alert that fits, with equal values, unless both fit both sides', () => {
  fc.assert(
    fc.property(rule, alert, alert, (definition, source, target) => {
      const inhibition = compileInhibition(definition)
      const lookup = lookupIn(target.labels)
      const value = (labels: Record<string, string>, of: string) =>
        labels[of === 'severity' ? of : `labels.${of}`] ?? ''
      const expected =
        source.key !== target.key &&
        source.status === 'firing' &&
        (source.endsAt === null || source.endsAt.getTime() > NOW.getTime()) &&
        fits(definition.sourceMatchers, source.labels) &&
        definition.equal.every(of => value(source.labels, of) === value(target.labels, of)) &&
        !(fits(definition.sourceMatchers, target.labels) && fits(definition.targetMatchers, source.labels))
      assert.equal(covers(inhibition, source, { key: target.key, lookup }, NOW), expected)
      // The search in the database may not leave out what covers.
      if (expected) {
        for (const [of, certain] of Object.entries(wanted(inhibition, lookup))) {
          assert.equal(source.labels[of], certain)
        }
      }
    }),
    { numRuns: 2_000 },
  )
})

test('law: of alerts that fit both sides none covers another, so they cannot silence each other', () => {
  fc.assert(
    fc.property(alert, alert, (one, other) => {
      const same: Matcher[] = [{ name: 'type', op: '=', value: 'x' }]
      const both = compileInhibition({ name: 'r', sourceMatchers: same, targetMatchers: same, equal: [] })
      const labels = (of: typeof one) => ({ ...of.labels, type: 'x' })
      assert.ok(
        !covers(
          both,
          { ...one, labels: labels(one) },
          { key: other.key, lookup: lookupIn(labels(other)) },
          NOW,
        ),
      )
    }),
  )
})
