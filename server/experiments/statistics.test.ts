import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { compare, fit, holm, normalQuantile, normalTail, upperGamma, wilson } from './statistics.ts'

const near = (actual: number, expected: number, within = 1e-9) =>
  assert.ok(Math.abs(actual - expected) <= within, `${actual} is not ${expected}`)

const rate = fc
  .tuple(fc.integer({ min: 1, max: 100_000 }), fc.double({ min: 0, max: 1, noNaN: true }))
  .map(([n, share]) => ({ n, hits: Math.round(n * share) }))

test('the normal distribution is that of the tables', () => {
  near(normalTail(0), 0.5)
  near(normalTail(1), 0.15865525393145707, 1e-14)
  near(normalTail(1.959963984540054), 0.025, 1e-14)
  near(normalTail(6) / 9.865876450376946e-10, 1, 1e-10)
  near(normalQuantile(0.975), 1.959963984540054, 1e-12)
  near(normalQuantile(0.995), 2.5758293035489004, 1e-12)
})

test('chi squared is that of the tables', () => {
  // 5 % points for 1, 2, 5 and 9 degrees of freedom.
  for (const [degrees, point] of [
    [1, 3.841458820694124],
    [2, 5.991464547107979],
    [5, 11.070497693516351],
    [9, 16.918977604620448],
  ] as const) {
    near(upperGamma(degrees / 2, point / 2), 0.05, 1e-12)
  }
})

test('Wilson gives what the paper of Newcombe prints', () => {
  // Statistics in Medicine 17 (1998) 857–872, table I, method 3: 81/263, 15/148, 0/20, 1/29.
  const printed: [hits: number, n: number, low: number, high: number][] = [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ]
  for (const [hits, n, low, high] of printed) {
    const [from, to] = wilson({ hits, n })
    near(from, low, 0.00006)
    near(to, high, 0.00006)
  }
  assert.deepEqual(wilson({ hits: 0, n: 0 }), [0, 1])
})

test('Wilson solves its own equation, and holds the rate', () => {
  fc.assert(
    fc.property(rate, ({ hits, n }) => {
      const p = hits / n
      const [low, high] = wilson({ hits, n })
      assert.ok(low >= 0 && low <= p && p <= high && high <= 1)
      // By definition its ends are where the score test of p is exactly at the point of 95 %.
      for (const end of [low, high]) {
        if (end === 0 || end === 1) continue
        near(Math.abs(p - end) / Math.sqrt((end * (1 - end)) / n), 1.959963984540054, 1e-6)
      }
      const [flippedLow, flippedHigh] = wilson({ hits: n - hits, n })
      near(flippedLow, 1 - high, 1e-12)
      near(flippedHigh, 1 - low, 1e-12)
    }),
  )
})

test('differences are those of Newcombe, table II, method 10', () => {
  // 56/70 − 48/80, 9/10 − 3/10, 10/10 − 0/20, 5/56 − 0/29.
  const printed: [a: number, m: number, b: number, n: number, low: number, high: number][] = [
    [56, 70, 48, 80, 0.0524, 0.3339],
    [9, 10, 3, 10, 0.1705, 0.809],
    [10, 10, 0, 20, 0.6791, 1],
    [5, 56, 0, 29, -0.0381, 0.1926],
  ]
  for (const [a, m, b, n, low, high] of printed) {
    const { difference, interval } = compare({ hits: b, n }, { hits: a, n: m })
    near(difference, a / m - b / n)
    near(interval[0], low, 0.00006)
    near(interval[1], high, 0.00006)
  }
})

test('the test of two proportions is that of the fourfold table', () => {
  fc.assert(
    fc.property(rate, rate, (a, b) => {
      const { p } = compare(a, b)
      const table = [
        [a.hits, a.n - a.hits],
        [b.hits, b.n - b.hits],
      ]
      const total = a.n + b.n
      const columns = [a.hits + b.hits, total - a.hits - b.hits]
      if (columns.includes(0)) return assert.equal(p, 1)
      // Pearson's statistic without correction is the square of z.
      let squares = 0
      for (const [r, row] of table.entries()) {
        for (const [c, n] of row.entries()) {
          const expected = ([a, b][r]!.n * columns[c]!) / total
          squares += (n - expected) ** 2 / expected
        }
      }
      near(p!, upperGamma(0.5, squares / 2), 1e-9)
      near(compare(b, a).p!, p!, 1e-12)
      near(compare(b, a).difference, -compare(a, b).difference, 1e-12)
    }),
  )
  assert.equal(compare({ hits: 0, n: 0 }, { hits: 1, n: 2 }).p, null)
  assert.equal(compare({ hits: 4, n: 50 }, { hits: 5, n: 50 }).enough, false)
  assert.equal(compare({ hits: 5, n: 50 }, { hits: 5, n: 50 }).enough, true)
})

test('with more comparisons each has to be clearer', () => {
  assert.deepEqual(holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
  assert.deepEqual(holm([0.5]), [0.5])
  assert.deepEqual(holm([]), [])
  fc.assert(
    fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 8 }), values => {
      const adjusted = holm(values)
      for (const [at, p] of values.entries()) {
        assert.ok(adjusted[at]! >= p && adjusted[at]! <= 1)
        for (const [other, q] of values.entries()) if (p <= q) assert.ok(adjusted[at]! <= adjusted[other]!)
      }
    }),
  )
})

test('a split that is off shows, one that is not does not', () => {
  near(fit([500, 500], [1, 1]), 1)
  near(fit([520, 480], [1, 1]), 0.20590321073206466, 1e-12)
  assert.ok(fit([5_200, 4_800], [1, 1]) < 0.001)
  assert.ok(fit([9_000, 1_000], [9, 1]) === 1)
  assert.equal(fit([], []), 1)
  assert.equal(fit([0, 0], [1, 1]), 1)
})
