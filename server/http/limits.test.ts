import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { addressKey, type LimitStore, limiter, WINDOW_MS } from './limits.ts'

const START = 1_000 * WINDOW_MS

/** What Redis does for us, in one process. */
function fakeRedis() {
  const counts = new Map<string, number>()
  const state = { ready: true, failing: false, calls: 0 }
  const store: LimitStore = {
    get isReady() {
      return state.ready
    },
    multi() {
      const replies: unknown[] = []
      const pipeline = {
        incrBy(key: string, by: number) {
          counts.set(key, (counts.get(key) ?? 0) + by)
          replies.push(counts.get(key))
          return pipeline
        },
        expire() {
          replies.push(true)
          return pipeline
        },
        async execAsPipeline() {
          state.calls++
          if (state.failing) throw new Error('connection lost')
          return replies
        },
      }
      return pipeline
    },
  }
  return { store, state, counts }
}

test('a key may do so many a minute, and anew in the next', () => {
  let now = START + 15_500
  const limits = limiter({ now: () => now })
  assert.deepEqual(limits.take('a', 2), { allowed: true, limit: 2, remaining: 1, resetSeconds: 45 })
  assert.deepEqual(limits.take('a', 2), { allowed: true, limit: 2, remaining: 0, resetSeconds: 45 })
  assert.equal(limits.take('a', 2).allowed, false)
  assert.equal(limits.take('b', 2).allowed, true)
  now = START + WINDOW_MS
  assert.deepEqual(limits.take('a', 2), { allowed: true, limit: 2, remaining: 1, resetSeconds: 60 })
})

test('looking does not count', () => {
  const limits = limiter({ now: () => START })
  for (let i = 0; i < 5; i++) assert.equal(limits.peek('a', 1).allowed, true)
  limits.take('a', 1)
  assert.equal(limits.peek('a', 1).allowed, false)
})

test('never more than the limit in one minute', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 20 }),
      fc.array(fc.integer({ min: 0, max: 4_000 }), { maxLength: 100 }),
      (limit, gaps) => {
        let now = START
        const limits = limiter({ now: () => now })
        const allowed = new Map<number, number>()
        for (const gap of gaps) {
          now += gap
          const minute = Math.floor(now / WINDOW_MS)
          const { allowed: yes, remaining } = limits.take('a', limit)
          if (yes) allowed.set(minute, (allowed.get(minute) ?? 0) + 1)
          assert.equal(remaining, limit - (allowed.get(minute) ?? 0))
        }
        assert.ok([...allowed.values()].every(count => count <= limit))
      },
    ),
  )
})

test('a flood of keys shares one count instead of filling the memory', () => {
  const limits = limiter({ now: () => START, maxKeys: 10 })
  for (let i = 0; i < 10; i++) assert.equal(limits.take(`ip ${i}`, 3).allowed, true)
  const flood = Array.from({ length: 50 }, (_, i) => limits.take(`ip x${i}`, 3).allowed)
  assert.equal(flood.filter(Boolean).length, 3)
  assert.equal(limits.take('ip 1', 3).allowed, true, 'known keys are not touched by it')
})

test('processes add up their counts through Redis', async () => {
  const { store } = fakeRedis()
  const a = limiter({ redis: store, now: () => START })
  const b = limiter({ redis: store, now: () => START })
  for (let i = 0; i < 6; i++) a.take('k', 10)
  for (let i = 0; i < 3; i++) b.take('k', 10)
  await a.exchange()
  await b.exchange()
  assert.equal(b.take('k', 10).remaining, 0, 'six of a, four of b')
  assert.equal(b.take('k', 10).allowed, false)
  await b.exchange()
  assert.equal(a.take('k', 10).allowed, true, 'a knows six: it overshoots by what it does between exchanges')
  await a.exchange()
  assert.equal(a.take('k', 10).allowed, false)
})

test('without Redis each process goes on with its own count', async () => {
  const { store, state } = fakeRedis()
  const limits = limiter({ redis: store, now: () => START })
  state.failing = true
  for (let i = 0; i < 4; i++) limits.take('k', 5)
  await limits.exchange()
  assert.equal(limits.take('k', 5).remaining, 0)
  assert.equal(limits.take('k', 5).allowed, false)

  state.ready = false
  state.calls = 0
  await limits.exchange()
  assert.equal(state.calls, 0, 'a client that is not connected is not asked, so nothing queues up')
})

test('nothing new, nothing asked', async () => {
  const { store, state } = fakeRedis()
  const limits = limiter({ redis: store, now: () => START })
  await limits.exchange()
  limits.take('k', 5)
  await limits.exchange()
  await limits.exchange()
  assert.equal(state.calls, 1)
})

test('of an IPv6 address the /64 counts, of an IPv4 address all', () => {
  for (const [ip, key] of [
    ['203.0.113.7', '203.0.113.7'],
    ['::ffff:203.0.113.7', '203.0.113.7'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2'],
    ['2001:0db8:0001:0002::9', '2001:db8:1:2'],
    ['2001:db8::1', '2001:db8:0:0'],
    ['2001:db8::1:2:3:4:5', '2001:db8:0:1'],
    ['::1', '0:0:0:0'],
    ['::', '0:0:0:0'],
    ['fe80::1', 'fe80:0:0:0'],
    ['1::', '1:0:0:0'],
  ] as const) {
    assert.equal(addressKey(ip), key, ip)
  }
})
