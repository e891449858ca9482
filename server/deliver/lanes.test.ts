import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { OpenedProvider } from './open-provider.ts'
import { inTurn } from './lanes.ts'

const provider = (id: string, weight?: number) => ({ id, weight }) as OpenedProvider
const message = (n: number) => ({ notificationId: `notification ${n}`, channel: 'sms' }) as const
const orderOf = (n: number, list: readonly OpenedProvider[]) => inTurn(message(n), list).map(({ id }) => id)

test('without weights the order is the one given', () => {
  assert.deepEqual(orderOf(1, [provider('c'), provider('a'), provider('b')]), ['c', 'a', 'b'])
})

test('those with a weight change places among neighbours only, always in the same way for a message', () => {
  const weights = fc.array(fc.option(fc.double({ min: 0.1, max: 10, noNaN: true }), { nil: undefined }), {
    maxLength: 8,
  })
  fc.assert(
    fc.property(fc.nat(), weights, (n, given) => {
      const list = given.map((weight, at) => provider(String(at), weight))
      const order = orderOf(n, list)
      assert.deepEqual(order, orderOf(n, list))
      assert.deepEqual(order.toSorted(), list.map(({ id }) => id).toSorted())
      // Whoever has no weight stays where it is, and nobody passes it.
      for (const [at, weight] of given.entries()) {
        if (weight !== undefined) continue
        assert.equal(order[at], String(at))
        assert.deepEqual(
          order.slice(0, at).toSorted(),
          list
            .slice(0, at)
            .map(({ id }) => id)
            .toSorted(),
        )
      }
    }),
  )
})

test('each is first for its share', () => {
  const list = [provider('a', 3), provider('b', 1)]
  const first = Array.from({ length: 4000 }, (_, n) => orderOf(n, list)[0]!)
  const share = first.filter(id => id === 'a').length / first.length
  // Three quarters; the hash is fixed, so this is no matter of luck.
  assert.ok(share > 0.72 && share < 0.78, String(share))
})

test('a provider that leaves takes nobody else out of turn', () => {
  const list = [provider('a', 1), provider('b', 2), provider('c', 1)]
  for (let n = 0; n < 200; n++) {
    const without = orderOf(n, list.slice(0, 2))
    assert.deepEqual(
      without,
      orderOf(n, list).filter(id => id !== 'c'),
    )
  }
})
