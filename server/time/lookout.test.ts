import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Next, lookout } from './lookout.ts'

const NEVER_MS = 60_000_000

/** A lookout whose looks wait to be answered. */
function watched(atLatestMs = NEVER_MS) {
  const asked: PromiseWithResolvers<Next>[] = []
  let heard = Promise.withResolvers<void>()
  let running = 0
  const errors: unknown[] = []
  const outlook = lookout({
    async look() {
      assert.equal(++running, 1, 'never two looks at the same time')
      const answer = Promise.withResolvers<Next>()
      asked.push(answer)
      heard.resolve()
      return answer.promise.finally(() => running--)
    },
    now: () => new Date(),
    atLatestMs,
    onError: error => void errors.push(error),
  })
  return {
    ...outlook,
    errors,
    looks: () => asked.length,
    /** The next look, which is then to be answered. */
    async next() {
      await heard.promise
      heard = Promise.withResolvers()
      return asked.at(-1)!
    },
  }
}

test('it looks at the start, and again while there is more', async () => {
  const one = watched()
  one.start()
  for (let n = 1; n <= 4; n++) {
    const look = await one.next()
    assert.equal(one.looks(), n)
    look.resolve(n < 4 ? 'more' : null)
  }
  await one.stop()
  assert.equal(one.looks(), 4)
})

test('what is expected while it looks is looked at right after, though that look found nothing', async () => {
  const one = watched()
  one.start()
  const first = await one.next()
  one.expect()
  one.expect(Date.now() + NEVER_MS)
  first.resolve(null)
  const second = await one.next()
  assert.equal(one.looks(), 2)
  // What was expected is forgotten with the look that saw it.
  second.resolve(null)
  one.expect()
  const third = await one.next()
  third.resolve(null)
  await one.stop()
})

test('the earliest of what is due and what is expected counts, in either order', async () => {
  for (const order of ['due first', 'expected first']) {
    const one = watched()
    one.start()
    const first = await one.next()
    const soon = Date.now() + 20
    if (order === 'due first') {
      first.resolve(new Date(soon))
      one.expect(Date.now() + NEVER_MS)
    } else {
      one.expect(soon)
      first.resolve(new Date(Date.now() + NEVER_MS))
    }
    const second = await one.next()
    // Timers count another clock, and round.
    assert.ok(Date.now() >= soon - 2, 'not before it is due')
    second.resolve(null)
    await one.stop()
  }
})

test('without a word it looks at the latest after a while, also after an error', async () => {
  const one = watched(1)
  one.start()
  ;(await one.next()).resolve(null)
  ;(await one.next()).reject(new Error('the database is away'))
  ;(await one.next()).resolve(null)
  assert.deepEqual(one.errors.map(String), ['Error: the database is away'])
  await one.stop()
})

test('what a look itself expects, at once even, comes after it', async () => {
  let running = 0
  const done = Promise.withResolvers<void>()
  let looks = 0
  const one = lookout({
    async look() {
      assert.equal(++running, 1, 'never two looks at the same time')
      looks++
      if (looks === 1) one.expect()
      // Behind whatever timer that set.
      await new Promise(resolve => setTimeout(resolve, 0))
      running--
      if (looks === 2) done.resolve()
      return null
    },
    now: () => new Date(),
    atLatestMs: NEVER_MS,
    onError: error => done.reject(error),
  })
  one.start()
  await done.promise
  await one.stop()
  assert.equal(looks, 2)
})

test('started again after a stop it looks at once', async () => {
  let nowMs = 0
  let looked = Promise.withResolvers<void>()
  const one = lookout({
    async look() {
      looked.resolve()
      return null
    },
    now: () => new Date(nowMs),
    atLatestMs: NEVER_MS,
    onError: error => looked.reject(error),
  })
  one.start()
  await looked.promise
  await one.stop()
  one.start()
  await one.stop()
  nowMs = 1
  looked = Promise.withResolvers()
  one.start()
  await looked.promise
  await one.stop()
})

test('stopping waits for the look that runs, and none comes after it', async () => {
  const one = watched(1)
  one.start()
  const look = await one.next()
  let stopped = false
  const stopping = one.stop().then(() => (stopped = true))
  await new Promise(setImmediate)
  assert.equal(stopped, false)
  one.expect()
  look.resolve('more')
  await stopping
  const timers = () => process.getActiveResourcesInfo().filter(each => each === 'Timeout').length
  const before = timers()
  one.expect()
  assert.equal(timers(), before)
  assert.equal(one.looks(), 1)
})
