import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Settlement } from '../ledger/settle.ts'
import type { Channel } from '../types.ts'
import type { BreakerPolicy } from './breaker.ts'
import type { Delivery } from './delivery.ts'
import { deliveryLoop } from './loop.ts'
import type { OpenedProvider } from './open-provider.ts'
import type { Limits } from './provider.ts'
import { bounced, permanent, rateLimited, temporary, unknown } from './provider.ts'
import type { DeliveryError } from './provider.ts'
import { RETRY } from './retry.ts'

const ANSWERS = ['sent', 'temporary', 'unknown', 'rate_limited', 'permanent', 'bounced'] as const
type Answer = (typeof ANSWERS)[number]

interface Try {
  provider: string
  answer: Answer
}

/**
 * One delivery through as many turns as it takes: what a worker would do, with a clock that jumps to when it is due.
 *
 * @param answers by provider, in the order of its tries; the last one stays
 */
async function story(
  channel: Channel,
  providers: { id: string; mayRepeat: boolean; answers: Answer[] }[],
): Promise<{ tries: Try[]; last: Settlement }> {
  const tries: Try[] = []
  let nowMs = Date.UTC(2026, 0, 1)
  const opened = providers.map(({ id, mayRepeat, answers }): OpenedProvider => {
    let at = 0
    const send = async () => {
      const answer = answers[Math.min(at++, answers.length - 1)]!
      tries.push({ provider: id, answer })
      switch (answer) {
        case 'sent':
          return { outcome: 'sent' } as const
        case 'temporary':
          throw temporary('server_error')
        case 'unknown':
          throw unknown('timeout')
        case 'rate_limited':
          throw rateLimited(new Date(nowMs + 1000))
        case 'permanent':
          throw permanent('refused')
        case 'bounced':
          throw bounced('unknown_address')
      }
    }
    return {
      id,
      channel,
      limits: {},
      mayRepeat,
      accepts: () => true,
      lane: () => id,
      group: () => undefined,
      send,
      sendMany: async messages =>
        Promise.all(messages.map(() => send().catch((error: unknown) => error as DeliveryError))),
      callback: async () => ({ receipts: [] }),
      check: async () => {},
      close: async () => {},
    }
  })
  let settled: ((settlement: Settlement) => void) | undefined
  const loop = deliveryLoop({
    providers: new Map([[channel, opened]]),
    settle: settlement => settled!(settlement),
    now: () => new Date(nowMs),
    random: () => 0.5,
    inFlight: 10,
    perChannel: 10,
    // Opens at the second failure, so that stories meet it.
    breaker: { failures: 2, successes: 1, openMs: 60_000 },
    onError: error => assert.fail(error as Error),
  })
  const delivery: Delivery = {
    tenantId: 1,
    notificationId: '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d',
    channel,
    recipient: { type: 'user', id: 'alice' },
    priority: 'NORMAL',
    eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
    eventType: 'x',
    createdAtMs: nowMs,
    expiresAtMs: null,
    body: { to: '+15005550001', body: 'Hello' },
    tries: 0,
    hasFallback: false,
    provider: null,
    batch: null,
  }
  for (let turn = 0; turn < 200; turn++) {
    const settlement = await new Promise<Settlement>(resolve => {
      settled = resolve
      loop.push([delivery])
    })
    const { again } = settlement
    if (!again) return { tries, last: settlement }
    nowMs = Math.max(nowMs, again.runAtMs)
    delivery.tries = again.attempt
    delivery.provider = again.provider
  }
  return assert.fail('it never ends')
}

const someProviders = fc.array(
  fc.record({
    mayRepeat: fc.boolean(),
    answers: fc.array(fc.constantFrom(...ANSWERS), { minLength: 1, maxLength: 4 }),
  }),
  { minLength: 1, maxLength: 4 },
)

// covers: ALP-104, ALP-112
test('under the policy "hold" nobody else is asked once somebody may have the message', async () => {
  assert.equal(RETRY.sms.unknown, 'hold')
  await fc.assert(
    fc.asyncProperty(someProviders, async given => {
      const providers = given.map((one, at) => ({ ...one, id: `p${at}` }))
      const { tries, last } = await story('sms', providers)
      const first = tries.findIndex(({ answer }) => answer === 'unknown')
      if (first >= 0) {
        const { provider } = tries[first]!
        const after = tries.slice(first + 1)
        const { mayRepeat } = providers.find(({ id }) => id === provider)!
        if (!mayRepeat) {
          assert.deepEqual(after, [], 'not tried again by anybody')
          assert.equal(last.attempts.at(-1)!.outcome, 'unknown')
        }
        for (const one of after) assert.equal(one.provider, provider)
      }
      // Whoever took it, or refused it for good, is the last that was asked.
      const end = tries.findIndex(({ answer }) => ['sent', 'permanent', 'bounced'].includes(answer))
      assert.ok(end < 0 || end === tries.length - 1)
      assert.ok(last.attempts.at(-1)!.final)
    }),
    { numRuns: 300 },
  )
})

// covers: ALP-104
test('under the policy "resend" it is said twice rather than not at all, and still ends', async () => {
  assert.equal(RETRY.push.unknown, 'resend')
  await fc.assert(
    fc.asyncProperty(someProviders, async given => {
      const { tries, last } = await story(
        'push',
        given.map((one, at) => ({ ...one, id: `p${at}` })),
      )
      const end = tries.findIndex(({ answer }) => ['sent', 'permanent', 'bounced'].includes(answer))
      assert.ok(end < 0 || end === tries.length - 1)
      const outcome = last.attempts.at(-1)!.outcome
      if (end >= 0 && tries[end]!.answer === 'sent') assert.equal(outcome, 'sent')
    }),
    { numRuns: 200 },
  )
})

// covers: ALP-104
test('the next provider is asked at once, in their order, and the delivery ends where one takes it', async () => {
  const { tries, last } = await story('sms', [
    { id: 'a', mayRepeat: false, answers: ['temporary'] },
    { id: 'b', mayRepeat: false, answers: ['rate_limited'] },
    { id: 'c', mayRepeat: false, answers: ['sent'] },
  ])
  assert.deepEqual(
    tries.map(({ provider }) => provider),
    ['a', 'b', 'c'],
  )
  assert.deepEqual(
    last.attempts.map(one => [one.provider, one.outcome, one.final]),
    [
      ['a', 'failed', false],
      ['b', 'failed', false],
      ['c', 'sent', true],
    ],
  )
})

/** Several deliveries at once to a far end that asks for a pause; then, by the clock, their next turns. */
async function pauses(
  limits: Limits,
  answer: (to: string, nowMs: number) => DeliveryError | undefined,
  people: readonly string[],
): Promise<{ asked: { to: string; afterMs: number }[]; ends: Settlement[]; held: Settlement[] }> {
  const startMs = Date.UTC(2026, 0, 1)
  let nowMs = startMs
  const asked: { to: string; afterMs: number }[] = []
  const provider: OpenedProvider = {
    id: 'p',
    channel: 'email',
    limits,
    mayRepeat: false,
    accepts: () => true,
    lane: () => 'p',
    group: () => undefined,
    async send({ to }) {
      asked.push({ to, afterMs: nowMs - startMs })
      const error = answer(to, nowMs)
      if (error !== undefined) throw error
      return { outcome: 'sent' }
    },
    sendMany: async () => assert.fail('nobody asked for it'),
    callback: async () => ({ receipts: [] }),
    check: async () => {},
    close: async () => {},
  }
  const settled: Settlement[] = []
  const loop = deliveryLoop({
    providers: new Map([['email', [provider]]]),
    settle: settlement => void settled.push(settlement),
    now: () => new Date(nowMs),
    random: () => 0.5,
    inFlight: 100,
    // One after the other, so that it is plain who was asked before whom.
    perChannel: 1,
    onError: error => assert.fail(error as Error),
  })
  let waiting = people.map((to, at) => {
    const delivery: Delivery = {
      tenantId: 1,
      notificationId: `019a9f3e-7a44-7bb1-8c1d-${String(at).padStart(12, '0')}`,
      channel: 'email',
      recipient: { type: 'user', id: to },
      priority: 'NORMAL',
      eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
      eventType: 'x',
      createdAtMs: nowMs,
      expiresAtMs: null,
      body: { to, body: 'Hello' },
      tries: 0,
      hasFallback: false,
      provider: null,
      batch: null,
    }
    return { delivery, dueMs: nowMs }
  })
  const ends: Settlement[] = []
  const held: Settlement[] = []
  for (let round = 0; waiting.length > 0; round++) {
    assert.ok(round < 50, 'it never ends')
    nowMs = Math.max(nowMs, Math.min(...waiting.map(({ dueMs }) => dueMs)))
    const due = waiting.filter(({ dueMs }) => dueMs <= nowMs)
    settled.length = 0
    loop.push(due.map(({ delivery }) => delivery))
    while (settled.length < due.length) await new Promise(resolve => setImmediate(resolve))
    waiting = waiting.filter(({ dueMs }) => dueMs > nowMs)
    for (const settlement of settled) {
      const { again, notificationId } = settlement
      if (!again) {
        ends.push(settlement)
        continue
      }
      if (again.kind === 'held') held.push(settlement)
      const { delivery } = due.find(one => one.delivery.notificationId === notificationId)!
      waiting.push({
        delivery: { ...delivery, tries: again.attempt, provider: again.provider },
        dueMs: again.runAtMs,
      })
    }
  }
  return { asked, ends, held }
}

const PEOPLE = ['ann', 'bob', 'carol', 'dave', 'eve']
const busyFor = (seconds: number) => {
  const untilMs = Date.UTC(2026, 0, 1) + seconds * 1000
  return (_: string, nowMs: number) => (nowMs < untilMs ? rateLimited(new Date(untilMs)) : undefined)
}

test('a far end that asks for a pause is asked once, not once for each that waits', async () => {
  const { asked, ends, held } = await pauses({ slowsLane: true }, busyFor(30), PEOPLE)
  assert.deepEqual(asked[0], { to: 'ann', afterMs: 0 })
  assert.equal(asked.length, PEOPLE.length + 1)
  for (const { afterMs } of asked.slice(1)) assert.ok(afterMs >= 30_000, String(afterMs))
  // Waiting uses up no tries.
  assert.deepEqual(
    held.map(({ again, attempts }) => [again!.reason, attempts.length]),
    PEOPLE.slice(1).map(() => ['provider_rate', 0]),
  )
  assert.ok(ends.every(({ attempts }) => attempts.at(-1)!.outcome === 'sent'))
})

test('where the pause is about one recipient the others are told meanwhile', async () => {
  const untilMs = Date.UTC(2026, 0, 1) + 30_000
  const about = (to: string, nowMs: number) =>
    to === 'ann' && nowMs < untilMs ? rateLimited(new Date(untilMs), { alone: true }) : undefined
  const { asked } = await pauses({ slowsLane: true }, about, PEOPLE)
  assert.deepEqual(
    asked.map(({ to, afterMs }) => [to, afterMs >= 30_000]),
    [...PEOPLE.map(to => [to, false]), ['ann', true]],
  )
})

test('a lane that many share, such as the host of webhooks, is not slowed by one of them', async () => {
  const { asked } = await pauses({}, busyFor(30), PEOPLE)
  assert.equal(asked.filter(({ afterMs }) => afterMs === 0).length, PEOPLE.length)
})

test('a pause of a day holds the lane for an hour at most', async () => {
  const { asked } = await pauses(
    { slowsLane: true },
    (to, nowMs) =>
      to === 'ann' && nowMs < Date.UTC(2026, 0, 2) ? rateLimited(new Date(Date.UTC(2026, 0, 2))) : undefined,
    ['ann', 'bob'],
  )
  const bob = asked.find(({ to }) => to === 'bob')!
  assert.ok(bob.afterMs >= 3_600_000 && bob.afterMs < 3_700_000, String(bob.afterMs))
})

/** A loop with one far end that takes whatever comes, one at a time, and a hand that fails where it is told. */
function clumsy(policy?: BreakerPolicy) {
  let fails = false
  let nowMs = Date.UTC(2026, 0, 1)
  const settled: Settlement[] = []
  const errors: unknown[] = []
  const says: DeliveryError[] = []
  const provider: OpenedProvider = {
    id: 'p',
    channel: 'email',
    limits: { concurrent: 1 },
    mayRepeat: true,
    accepts: () => true,
    lane: () => 'p',
    group: () => undefined,
    async send() {
      const error = says.shift()
      if (error !== undefined) throw error
      return { outcome: 'sent' }
    },
    sendMany: async () => assert.fail('nobody asked for it'),
    callback: async () => ({ receipts: [] }),
    check: async () => {},
    close: async () => {},
  }
  const loop = deliveryLoop({
    providers: new Map([['email', [provider]]]),
    settle: settlement => void settled.push(settlement),
    now: () => new Date(nowMs),
    random: () => 0.5,
    inFlight: 100,
    perChannel: 10,
    breaker: policy,
    contentFor({ body }) {
      if (!fails) return body
      fails = false
      throw new Error('We cannot write it')
    },
    onError: error => void errors.push(error),
  })
  return {
    errors,
    says,
    fail: () => void (fails = true),
    later: (ms: number) => void (nowMs += ms),
    async tell(more: Partial<Delivery> = {}): Promise<Settlement> {
      const before = settled.length
      loop.push([
        {
          tenantId: 1,
          notificationId: `019a9f3e-7a44-7bb1-8c1d-${String(before).padStart(12, '0')}`,
          channel: 'email',
          recipient: { type: 'user', id: 'ann' },
          priority: 'NORMAL',
          eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
          eventType: 'x',
          createdAtMs: nowMs,
          expiresAtMs: null,
          body: { to: 'ann', body: 'Hello' },
          tries: 0,
          hasFallback: false,
          provider: null,
          batch: null,
          ...more,
        },
      ])
      while (settled.length === before) await new Promise(resolve => setImmediate(resolve))
      return settled.at(-1)!
    },
  }
}

// covers: ALP-104
test('a fault of ours takes no place on the lane, and leaves the delivery with whoever may have it', async () => {
  const one = clumsy()
  one.fail()
  const { attempts, again } = await one.tell({ provider: 'p' })
  assert.deepEqual([attempts.length, again!.kind, again!.provider], [0, 'held', 'p'])
  assert.deepEqual(one.errors.map(String), ['Error: We cannot write it'])
  assert.equal((await one.tell()).attempts[0]?.outcome, 'sent')
})

test('a fault of ours in place of a probe leaves the next probe to others', async () => {
  const one = clumsy({ failures: 1, successes: 1, openMs: 1000 })
  one.says.push(temporary('unavailable'))
  await one.tell()
  one.later(1000)
  one.fail()
  await one.tell()
  assert.equal(one.errors.length, 1)
  assert.equal((await one.tell()).attempts[0]?.outcome, 'sent')
})
