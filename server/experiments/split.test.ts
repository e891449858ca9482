import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { HOLDOUT, draw, split } from './split.ts'
import type { Share } from './split.ts'
import { fit } from './statistics.ts'

const shares = fc.uniqueArray(
  fc.record({ name: fc.string({ minLength: 1, maxLength: 10 }), weight: fc.integer({ min: 1, max: 1_000 }) }),
  { minLength: 1, maxLength: 6, selector: ({ name }) => name },
)
const people = (n: number) => Array.from({ length: n }, (_, i) => `user:${i}`)
/** The chance that one of these tests fails though all is well: their people are the same in every run. */
const UNLIKELY = 1e-6

test('the same person is always in the same part, in whatever order the variants stand', () => {
  fc.assert(
    fc.property(
      fc.uuid(),
      fc.string(),
      shares,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (id, who, of, out) => {
        const one = split(id, who, of, out)
        assert.equal(split(id, who, of.toReversed(), out), one)
        assert.equal(
          split(
            id,
            who,
            of.map(({ name, weight }) => ({ name, weight: weight * 7 })),
            out,
          ),
          one,
        )
        assert.ok(one === HOLDOUT || of.some(({ name }) => name === one))
      },
    ),
  )
})

test('when one weight changes, people move to that variant or from it, and nobody else moves', () => {
  fc.assert(
    fc.property(fc.uuid(), shares, fc.nat(), fc.integer({ min: 1, max: 2_000 }), (id, of, which, weight) => {
      const at = which % of.length
      const { name, weight: before } = of[at]!
      const changed = of.with(at, { name, weight })
      for (const who of people(30)) {
        const [was, is] = [split(id, who, of, 0), split(id, who, changed, 0)]
        if (weight >= before) assert.ok(is === was || is === name)
        if (weight <= before) assert.ok(is === was || was === name)
      }
    }),
  )
})

test('a variant that is added takes its people from all, and one that is left out gives its own back', () => {
  fc.assert(
    fc.property(fc.uuid(), shares, (id, of) => {
      const without = of.slice(1)
      if (without.length === 0) return
      for (const who of people(30)) {
        const [all, fewer] = [split(id, who, of, 0), split(id, who, without, 0)]
        assert.ok(all === of[0]!.name || all === fewer)
      }
    }),
  )
})

test('whoever is held out stays so when more are; the others keep their variant', () => {
  fc.assert(
    fc.property(
      fc.uuid(),
      shares,
      fc.double({ min: 0, max: 1, noNaN: true }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (id, of, a, b) => {
        for (const who of people(20)) {
          const [less, more] = [split(id, who, of, Math.min(a, b)), split(id, who, of, Math.max(a, b))]
          if (less === HOLDOUT) assert.equal(more, HOLDOUT)
          else assert.ok(more === HOLDOUT || more === less)
        }
      },
    ),
  )
})

test('variants and holdout have their shares', () => {
  const cases: { weights: number[]; holdout: number }[] = [
    { weights: [1, 1], holdout: 0 },
    { weights: [1, 1], holdout: 0.1 },
    { weights: [9, 1], holdout: 0 },
    { weights: [1, 2, 3, 4], holdout: 0.25 },
    { weights: [1000, 1, 1], holdout: 0 },
  ]
  for (const [at, { weights, holdout }] of cases.entries()) {
    const of: Share[] = weights.map((weight, i) => ({ name: `v${i}`, weight }))
    const counts = new Map<string, number>()
    for (const who of people(50_000)) {
      const name = split(`experiment ${at}`, who, of, holdout)
      counts.set(name, (counts.get(name) ?? 0) + 1)
    }
    const whole = weights.reduce((sum, weight) => sum + weight, 0)
    const names = [...of.map(({ name }) => name), ...(holdout > 0 ? [HOLDOUT] : [])]
    const expected = [...weights.map(w => (w / whole) * (1 - holdout)), ...(holdout > 0 ? [holdout] : [])]
    const p = fit(
      names.map(name => counts.get(name) ?? 0),
      expected,
    )
    assert.ok(p > UNLIKELY, `case ${at}: ${JSON.stringify([...counts])}, p = ${p}`)
  }
})

test('draws are uniform, and those of two experiments have nothing to do with each other', () => {
  const CELLS = 10
  const grid = Array.from({ length: CELLS * CELLS }, () => 0)
  for (const who of people(50_000)) {
    const [x, y] = [draw('one', who, 'a'), draw('two', who, 'a')]
    assert.ok(x >= 0 && x < 1)
    const cell = Math.floor(x * CELLS) * CELLS + Math.floor(y * CELLS)
    grid[cell] = grid[cell]! + 1
  }
  assert.ok(
    fit(
      grid,
      grid.map(() => 1),
    ) > UNLIKELY,
  )
})
