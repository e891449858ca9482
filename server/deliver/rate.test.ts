import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { pace } from './rate.ts'

test('no second ever holds more than the pace and its burst', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 200 }),
      fc.array(fc.integer({ min: 0, max: 400 }), { minLength: 1, maxLength: 400 }),
      (perSecond, gaps) => {
        const one = pace(perSecond)
        let now = 1_000_000
        const sent: number[] = []
        for (const gap of gaps) {
          now += gap
          const wait = one.take(now, 0)
          if (wait === 0) sent.push(now)
        }
        for (const [i, start] of sent.entries()) {
          const within = sent.slice(i).filter(t => t < start + 1000).length
          assert.ok(within <= perSecond * 2, `${within} in a second at ${perSecond}/s`)
        }
      },
    ),
  )
})

test('places handed out ahead are evenly spaced', () => {
  const one = pace(10)
  const waits = Array.from({ length: 15 }, () => one.take(0, 10_000))
  assert.deepEqual(waits.slice(0, 10), Array(10).fill(0))
  assert.deepEqual(waits.slice(10).map(Math.round), [100, 200, 300, 400, 500])
})

test('a place too far ahead is not taken', () => {
  const one = pace(1)
  assert.equal(one.take(0, 0), 0)
  assert.equal(one.take(0, 500), 1000)
  assert.equal(one.take(1000, 0), 0)
})
