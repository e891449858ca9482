import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { windowOf } from '../time/window.ts'
import {
  START,
  type Sample,
  type ThresholdSpec,
  type ThresholdState,
  back,
  beyond,
  specProblem,
  step,
} from './threshold.ts'

const above90: ThresholdSpec = {
  when: 'above',
  bounds: [90],
  inclusive: false,
  rearm: 0,
  forSeconds: 0,
  maxGapSeconds: null,
  period: null,
  zone: 'UTC',
}

interface Run {
  state: ThresholdState
  /** Of each sample, in order. */
  changes: ('crossed' | 'cleared' | null)[]
}

function run(spec: ThresholdSpec, samples: readonly Sample[], from: ThresholdState = START): Run {
  let state = from
  const changes = samples.map(sample => {
    const made = step(state, sample, spec)
    state = made.state
    return made.change
  })
  return { state, changes }
}
/** A sample each second. */
const every = (values: number[]): Sample[] => values.map((value, i) => ({ value, atMs: (i + 1) * 1000 }))
/** As letters, which are easier to read in a row: `x` crossed, `o` cleared. */
const told = (spec: Partial<ThresholdSpec>, values: number[]): string =>
  run({ ...above90, ...spec }, every(values))
    .changes.map(change => (change === null ? '.' : change === 'crossed' ? 'x' : 'o'))
    .join('')

// covers: PFM-086
test('above and below; a value that equals the bound counts only where it is inclusive', () => {
  assert.equal(told({}, [89, 90, 91, 95, 90, 91]), '..x.ox')
  assert.equal(told({ inclusive: true }, [89, 90, 91, 89.9]), '.x.o')
  assert.equal(told({ when: 'below', bounds: [10] }, [11, 10, 9, 10]), '..xo')
  assert.equal(told({ when: 'below', bounds: [10], inclusive: true }, [11, 10, 11]), '.xo')
  assert.equal(told({ when: 'inside', bounds: [10, 20] }, [10, 11, 20, 19, 25]), '.xoxo')
  assert.equal(told({ when: 'inside', bounds: [10, 20], inclusive: true }, [9, 10, 20, 21]), '.x.o')
  assert.equal(told({ when: 'outside', bounds: [10, 20] }, [15, 10, 9, 21, 20, 25]), '..x.ox')
  assert.equal(told({ when: 'outside', bounds: [10, 20], inclusive: true }, [15, 10, 15, 20]), '.xox')
})

test('the first sample may be beyond already', () => {
  assert.equal(told({}, [95, 96, 80]), 'x.o')
})

test('it crosses again only after it came back by the hysteresis', () => {
  assert.equal(told({ rearm: 5 }, [91, 89, 91, 86, 95, 85, 91]), 'x....ox')
  assert.equal(told({ when: 'below', bounds: [10], rearm: 5 }, [9, 11, 9, 14, 9, 15, 9]), 'x....ox')
  assert.equal(told({ when: 'outside', bounds: [10, 20], rearm: 2 }, [9, 11, 21, 19, 18, 21]), 'x...ox')
  assert.equal(told({ when: 'inside', bounds: [10, 20], rearm: 2 }, [15, 21, 15, 23, 15]), 'x..ox')
})

test('with a duration every sample of that time has to be beyond', () => {
  assert.equal(told({ forSeconds: 2 }, [91, 91, 91, 91]), '..x.')
  assert.equal(told({ forSeconds: 2 }, [91, 91, 89, 91, 91, 91]), '.....x')
  // A value within the band breaks the run although it would not end what was told.
  assert.equal(told({ forSeconds: 2, rearm: 5 }, [91, 91, 89, 91, 91, 91, 89, 84]), '.....x.o')
})

test('a hole in the stream proves nothing: the duration begins anew, and nothing is told by the hole', () => {
  const spec = { ...above90, forSeconds: 60, maxGapSeconds: 30 }
  const samples = [0, 20, 40, 400, 420, 440, 460].map(s => ({ atMs: s * 1000, value: 91 }))
  assert.deepEqual(run(spec, samples).changes, [null, null, null, null, null, null, 'crossed'])
  // What was told stays told over a hole: nothing shows that it ended.
  const after = run(spec, [{ atMs: 5_000_000, value: 91 }], run(spec, samples).state)
  assert.deepEqual([after.changes, after.state.status], [[null], 'crossed'])
})

// covers: PFM-101, PFM-103
test('once a period: again in the next one when it is still beyond, and not twice in one', () => {
  const day = 86_400_000
  const spec: ThresholdSpec = { ...above90, inclusive: true, period: 'month', zone: 'America/New_York' }
  const at = (iso: string, value: number): Sample => ({ atMs: Date.parse(iso), value })
  const { changes } = run(spec, [
    at('2025-10-05T12:00:00Z', 90),
    at('2025-10-06T12:00:00Z', 20),
    at('2025-10-07T12:00:00Z', 95),
    // In New York it is still October.
    at('2025-11-01T03:59:00Z', 96),
    at('2025-11-01T04:00:00Z', 97),
    at('2025-11-02T04:00:00Z', 98),
  ])
  assert.deepEqual(changes, ['crossed', 'cleared', null, null, 'crossed', null])
  const same = run({ ...spec, period: 'day' }, [
    { atMs: day, value: 91 },
    { atMs: day + 1, value: 92 },
  ])
  assert.deepEqual(same.changes, ['crossed', null])
})

test('what comes late, twice, or is no number does nothing', () => {
  const before = run(above90, [{ atMs: 5000, value: 91 }]).state
  for (const sample of [
    { atMs: 5000, value: 10 },
    { atMs: 4000, value: 10 },
    { atMs: 6000, value: Number.NaN },
    { atMs: 6000, value: Number.POSITIVE_INFINITY },
  ]) {
    assert.deepEqual(step(before, sample, above90), { state: before, change: null, late: true })
  }
})

test('bounds that cannot work are named', () => {
  const problem = (spec: Partial<ThresholdSpec>) => specProblem({ ...above90, ...spec })?.field
  assert.equal(problem({}), undefined)
  assert.equal(problem({ bounds: [1, 2] }), 'bounds')
  assert.equal(problem({ when: 'inside', bounds: [1] }), 'bounds')
  assert.equal(problem({ when: 'inside', bounds: [2, 2] }), 'bounds')
  assert.equal(problem({ when: 'outside', bounds: [10, 20], rearm: 5 }), undefined)
  assert.equal(problem({ when: 'outside', bounds: [10, 20], rearm: 5.1 }), 'rearm')
  assert.equal(problem({ when: 'outside', bounds: [10, 20], rearm: 5, inclusive: true }), 'rearm')
  assert.equal(problem({ bounds: [1e20], rearm: 1 }), 'rearm')
})

// ---------------------------------------------------------------- laws

const specs: fc.Arbitrary<ThresholdSpec> = fc
  .record({
    when: fc.constantFrom('above' as const, 'below' as const, 'inside' as const, 'outside' as const),
    low: fc.integer({ min: -20, max: 20 }),
    wide: fc.integer({ min: 1, max: 20 }),
    inclusive: fc.boolean(),
    rearm: fc.integer({ min: 0, max: 8 }),
    forSeconds: fc.constantFrom(0, 0, 1, 3, 10),
    maxGapSeconds: fc.constantFrom(null, 2, 5),
    period: fc.constantFrom(null, null, 'minute' as const, 'hour' as const),
  })
  .map(({ low, wide, ...rest }) => ({
    ...rest,
    bounds: rest.when === 'above' || rest.when === 'below' ? [low] : [low, low + wide],
    zone: 'UTC',
  }))
  .filter(spec => specProblem(spec) === null)
const streams: fc.Arbitrary<Sample[]> = fc
  .array(fc.record({ after: fc.integer({ min: 1, max: 8000 }), value: fc.integer({ min: -45, max: 45 }) }), {
    maxLength: 60,
  })
  .map(list => {
    let atMs = 1_700_000_000_000
    return list.map(({ after, value }) => ({ value, atMs: (atMs += after) }))
  })

test('laws: an excursion is told of at most once, and never without a crossing', () => {
  fc.assert(
    fc.property(specs, streams, (spec, samples) => {
      const { changes } = run(spec, samples)
      let open = false
      let lastTold = Number.NEGATIVE_INFINITY
      for (const [i, change] of changes.entries()) {
        const { atMs, value } = samples[i]!
        if (change === 'crossed') {
          assert.ok(beyond(value, spec))
          if (spec.period === null) assert.ok(!open, 'twice in one excursion')
          else assert.ok(windowOf(spec.period, spec.zone, atMs).start > lastTold, 'twice in one period')
          lastTold = atMs
          open = true
        } else if (change === 'cleared') {
          assert.ok(open, 'cleared without having crossed')
          assert.ok(back(value, spec), 'cleared within the band')
          open = false
        } else if (open) assert.ok(!back(value, spec), 'not cleared though it came back')
      }
    }),
    { numRuns: 2000 },
  )
})

test('laws: what is told has lasted as long as asked for, without a hole, and nothing that has is left untold', () => {
  fc.assert(
    fc.property(specs, streams, (spec, samples) => {
      const { changes } = run(spec, samples)
      // Said anew, from the whole stream: whether the run of samples that ends with this one is long enough.
      const lasted = (i: number): boolean => {
        let first = i
        while (
          first > 0 &&
          beyond(samples[first - 1]!.value, spec) &&
          samples[first]!.atMs - samples[first - 1]!.atMs <= (spec.maxGapSeconds ?? Infinity) * 1000
        ) {
          first--
        }
        return (
          beyond(samples[i]!.value, spec) && samples[i]!.atMs - samples[first]!.atMs >= spec.forSeconds * 1000
        )
      }
      let open = false
      let period = Number.NEGATIVE_INFINITY
      for (const [i, change] of changes.entries()) {
        const { atMs } = samples[i]!
        const news: boolean = spec.period === null ? !open : period <= atMs
        assert.equal(change === 'crossed', lasted(i) && news)
        if (change === 'crossed') {
          open = true
          if (spec.period !== null) period = windowOf(spec.period, spec.zone, atMs).end
        } else if (change === 'cleared') open = false
      }
    }),
    { numRuns: 2000 },
  )
})

test('laws: samples seen again, or late, change nothing; cutting the stream anywhere changes nothing', () => {
  fc.assert(
    fc.property(specs, streams, fc.nat(60), fc.nat(60), (spec, samples, cut, again) => {
      const whole = run(spec, samples)
      const head = run(spec, samples.slice(0, cut))
      const tail = run(spec, samples.slice(cut), head.state)
      assert.deepEqual([...head.changes, ...tail.changes], whole.changes)
      assert.deepEqual(tail.state, whole.state)
      const repeated = run(spec, samples.slice(0, again), whole.state)
      assert.deepEqual(repeated.state, whole.state)
      assert.ok(repeated.changes.every(change => change === null))
    }),
    { numRuns: 1000 },
  )
})
