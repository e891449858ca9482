import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Counts, resultsOf } from './results.ts'
import { compare, holm, wilson } from './statistics.ts'
import type { Experiment } from './store.ts'

const at = new Date('2026-11-21T12:00:00Z')
const variant = (name: string, weight = 1) => ({
  name,
  weight,
  revision: 1,
  templateId: null,
  channels: null,
})
const experiment = (more: Partial<Experiment> = {}): Experiment => ({
  id: '019388c0-0000-7000-8000-000000000000',
  name: 'x',
  description: '',
  templateId: '019388c0-0000-7000-8000-000000000001',
  ruleId: null,
  metric: 'clicked',
  variants: [variant('a'), variant('b'), variant('c')],
  holdout: { share: 0, gets: 'nothing' },
  startsAt: null,
  endsAt: null,
  status: 'running',
  startedAt: at,
  stoppedAt: null,
  winner: null,
  reweighted: false,
  revision: 1,
  createdAt: at,
  updatedAt: at,
  ...more,
})
const counts = (people: number, clicked: number): Counts => ({
  people,
  sent: people,
  delivered: people,
  seen: people,
  opened: people,
  clicked,
  acted: 0,
  failed: 0,
})
const counted = (all: Record<string, Counts>) => new Map(Object.entries(all))

test('each variant is compared with the control by the metric, and the best of the clear ones leads', () => {
  const results = resultsOf(
    experiment(),
    counted({ a: counts(1_000, 100), b: counts(1_000, 140), c: counts(1_000, 160) }),
  )
  const ps = [140, 160].map(hits => compare({ hits: 100, n: 1_000 }, { hits, n: 1_000 }).p!)
  const [, b, c] = results.variants
  assert.deepEqual(
    [b!.comparison!.adjustedP, c!.comparison!.adjustedP],
    holm(ps),
    'two comparisons share the chance of a false alarm',
  )
  assert.equal(results.variants[0]!.comparison, undefined)
  assert.deepEqual([c!.rates.clicked.low, c!.rates.clicked.high], wilson({ hits: 160, n: 1_000 }))
  assert.equal(results.leader, 'c')
  // Worse and clear is no winner; better and unclear is none either.
  const worse = resultsOf(
    experiment(),
    counted({ a: counts(1_000, 100), b: counts(1_000, 50), c: counts(1_000, 104) }),
  )
  assert.equal(worse.variants[1]!.comparison!.significant, true)
  assert.equal(worse.leader, null)
})

test('while there are few people nothing is clear, however it looks', () => {
  const results = resultsOf(
    experiment({ variants: [variant('a'), variant('b')] }),
    counted({ a: counts(8, 0), b: counts(8, 8) }),
  )
  assert.deepEqual([results.variants[1]!.comparison!.enough, results.leader], [false, null])
  const nobody = resultsOf(experiment(), new Map())
  assert.deepEqual(nobody.variants[1]!.comparison, {
    difference: 0,
    low: -1,
    high: 1,
    p: null,
    adjustedP: null,
    significant: false,
    enough: false,
  })
  assert.equal(nobody.variants[0]!.rates.clicked.rate, null)
  assert.equal(nobody.holdout, null)
})

test('people who did not come in their shares show, unless the shares were moved', () => {
  const two = {
    variants: [variant('a', 3), variant('b', 1)],
    holdout: { share: 0.2, gets: 'nothing' as const },
  }
  const right = counted({ a: counts(6_000, 0), b: counts(2_000, 0), holdout: counts(2_000, 0) })
  assert.deepEqual(resultsOf(experiment(two), right).fit, { p: 1, suspicious: false })
  const wrong = counted({ a: counts(6_000, 0), b: counts(1_500, 0), holdout: counts(2_000, 0) })
  assert.equal(resultsOf(experiment(two), wrong).fit!.suspicious, true)
  assert.equal(resultsOf(experiment({ ...two, reweighted: true }), wrong).fit, null)
  assert.equal(resultsOf(experiment(two), right).holdout!.counts.people, 2_000)
})
