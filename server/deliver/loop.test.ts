import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Settlement } from '../ledger/settle.ts'
import type { Channel } from '../types.ts'
import type { Delivery } from './delivery.ts'
import { deliveryLoop } from './loop.ts'
import type { OpenedProvider } from './open-provider.ts'
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
