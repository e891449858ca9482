import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { OpenedProvider } from './open-provider.ts'
import { exampleMessage } from './providers/conformance.ts'
import { MAX_LANES, inTurn, lanes } from './lanes.ts'

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

test('however many endpoints come and go, lanes are bounded; those in use and those with a memory stay longest', () => {
  const far = { id: 'far', limits: {}, accepts: () => true, lane: ({ to }) => to } as Partial<OpenedProvider>
  const ways = lanes(new Map([['webhook', [far as OpenedProvider]]]), {
    failures: 1,
    successes: 1,
    openMs: 1000,
  })
  let nowMs = Date.UTC(2026, 0, 1)
  const use = (to: string) => {
    const choice = ways.choose(exampleMessage({ to }), null, new Set(), new Date(nowMs++))
    assert.equal(choice.kind, 'send')
    return choice.kind === 'send' ? choice.lane : assert.fail()
  }
  const busy = use('busy')
  busy.active++
  use('broken').breaker.failed(new Date(nowMs))
  const paused = use('paused')
  paused.slowUntilMs = nowMs + 3_600_000
  use('often')
  for (let n = 0; n < MAX_LANES * 3; n++) {
    if (n % 100 === 0) use('often')
    use(`once ${n}`)
  }
  const names = () => new Set([...ways.all()].map(({ name }) => name))
  assert.ok(names().size <= MAX_LANES)
  for (const name of ['busy', 'broken', 'paused', 'often', `once ${MAX_LANES * 3 - 1}`]) {
    assert.ok(names().has(name), name)
  }
  // Where everything has something to remember the oldest memory goes.
  for (let n = 0; n < MAX_LANES * 2; n++) use(`dead ${n}`).breaker.failed(new Date(nowMs))
  assert.ok(names().size <= MAX_LANES)
  assert.ok(names().has('busy'))
  assert.ok(!names().has('broken'))
})
