import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Settlement } from '../ledger/settle.ts'
import type { Message } from '../types.ts'
import type { Delivery } from './delivery.ts'
import { deliveryLoop } from './loop.ts'
import type { OpenedProvider } from './open-provider.ts'
import { bounced, permanent, rateLimited, temporary, unknown } from './provider.ts'
import type { DeliveryError, Sent } from './provider.ts'
import { MAX_WAITS, RETRY } from './retry.ts'

type Says = (message: Message, nowMs: number) => Sent | DeliveryError

interface Told {
  /** One a turn. */
  settlements: Settlement[]
  settlement: Settlement
  asked: Message[]
  gone: string[]
  taken: string[]
  /** Faults of ours. */
  faults: unknown[]
}

const DEVICES = [
  { to: 'android', settings: { kind: 'fcm' } },
  { to: 'iphone', settings: { kind: 'apns' } },
  { to: 'old', settings: { kind: 'fcm' } },
]

const neverBroken = (_to: string, _nowMs: number): boolean => false

/**
 * One delivery to these devices, through providers for Android and for Apple. Every turn is another process's: all it
 * knows is what the job kept, and no lane remembers anything.
 *
 * @param turns at most so many
 */
async function tell(
  says: Says,
  {
    devices = DEVICES,
    turns = 1,
    providers = ['fcm', 'apns'],
    channel = 'push',
    unknown = 'resend',
    broken = neverBroken,
    more = {},
  }: {
    devices?: { to: string; settings: { kind: string } }[]
    turns?: number
    /** An id, or an id and what follows a dot for another of the same service. */
    providers?: string[]
    channel?: 'push' | 'web_push'
    /** The policy of the channel; `hold` with a far end that does not know our keys. */
    unknown?: 'resend' | 'hold'
    /** Of which devices we fail to handle. */
    broken?: (to: string, nowMs: number) => boolean
    more?: Partial<Delivery>
  } = {},
): Promise<Told> {
  const asked: Message[] = []
  let nowMs = Date.UTC(2026, 0, 1)
  const provider = (id: string): OpenedProvider => {
    const send = async (message: Message) => {
      asked.push(message)
      const said = says(message, nowMs)
      if (said instanceof Error) throw said
      return said
    }
    return {
      id,
      channel,
      limits: {},
      mayRepeat: unknown === 'resend',
      accepts: ({ addressSettings }) => addressSettings?.['kind'] === id.split('.')[0],
      lane({ to }) {
        if (broken(to, nowMs)) throw new Error(`We cannot handle ${to}`)
        return id
      },
      group: () => ({ key: 'all', max: 100 }),
      send,
      sendMany: async messages => Promise.all(messages.map(message => send(message))),
      callback: async () => ({ receipts: [] }),
      check: async () => {},
      close: async () => {},
    }
  }
  const gone: string[] = []
  const taken: string[] = []
  const faults: unknown[] = []
  const [first, ...others] = devices
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
    body: { ...first!, others, body: 'Hello' },
    tries: 0,
    hasFallback: false,
    provider: null,
    batch: null,
    ...more,
  }
  const settlements: Settlement[] = []
  for (let turn = 0; turn < turns; turn++) {
    const settlement = await new Promise<Settlement>(resolve => {
      const loop = deliveryLoop({
        providers: new Map([[channel, providers.map(provider)]]),
        settle: resolve,
        now: () => new Date(nowMs),
        random: () => 0.5,
        inFlight: 10,
        perChannel: 10,
        retry: { [channel]: { unknown } },
        onAnswer: (_, to, said) => void (said === 'gone' ? gone : taken).push(to),
        onError: error => (broken === neverBroken ? assert.fail(error as Error) : void faults.push(error)),
      })
      loop.push([structuredClone(delivery)])
    })
    settlements.push(settlement)
    const { again } = settlement
    if (!again) break
    assert.ok(again.runAtMs >= nowMs)
    nowMs = again.runAtMs
    delivery.tries = again.attempt
    delivery.provider = again.provider
    // As `jobs.state` is written: beside what is there.
    const kept = again.state && (JSON.parse(JSON.stringify(again.state)) as typeof again.state)
    delivery.state = { ...delivery.state, ...kept }
  }
  return { settlements, settlement: settlements.at(-1)!, asked, gone, taken, faults }
}

const sent = (cost?: number): Sent => ({
  outcome: 'sent',
  ...(cost !== undefined && { cost: { amount: cost, currency: 'USD' } }),
})

// covers: DIC-131
test('every device of a person gets it, each by its own service and with a key of its own', async () => {
  const { settlement, asked, gone } = await tell(() => sent(0.25))
  assert.deepEqual(
    asked.map(({ to, addressSettings }) => [to, JSON.stringify(addressSettings)].join(' ')).sort(),
    ['android {"kind":"fcm"}', 'iphone {"kind":"apns"}', 'old {"kind":"fcm"}'],
  )
  assert.equal(new Set(asked.map(({ idempotencyKey }) => idempotencyKey)).size, 3)
  const [attempt] = settlement.attempts
  assert.deepEqual([attempt!.outcome, attempt!.code, attempt!.cost], ['sent', '3 of 3 devices', 0.75])
  assert.deepEqual(gone, [])
})

// covers: DIC-131
test('dead devices are told one by one, whether another one has the message or none', async () => {
  const one = await tell(({ to }) => (to === 'iphone' ? sent() : bounced('unknown_address')))
  assert.deepEqual(one.gone.sort(), ['android', 'old'])
  assert.deepEqual(one.taken, ['iphone'])
  assert.deepEqual(
    [one.settlement.again, one.settlement.attempts[0]!.outcome, one.settlement.attempts[0]!.code],
    [null, 'sent', '1 of 3 devices'],
  )
  const none = await tell(() => bounced('unknown_address'))
  assert.deepEqual(none.gone.sort(), ['android', 'iphone', 'old'])
  assert.equal(none.settlement.attempts[0]!.outcome, 'bounced')
})

test('as long as no device has it and one may still get it, it is tried again', async () => {
  const later = await tell(({ to }) => (to === 'old' ? temporary('server_error') : permanent('refused')))
  assert.equal(later.settlement.again?.kind, 'retry')
  assert.deepEqual(
    later.settlement.attempts.map(({ outcome, final, code }) => [outcome, final, code]),
    [['failed', false, 'server_error']],
  )
})

// covers: ALP-104, ALP-112
for (const channel of ['push', 'web_push'] as const) {
  test(`${channel}: a device that answers 503 first is tried again alone, the others get exactly one message`, async () => {
    let failures = 0
    const { settlements, asked, taken } = await tell(
      ({ to }) => (to === 'old' && failures++ === 0 ? temporary('unavailable') : sent(0.25)),
      { turns: 10, channel },
    )
    assert.deepEqual(asked.map(({ to }) => to).sort(), ['android', 'iphone', 'old', 'old'])
    assert.deepEqual(taken.toSorted(), ['android', 'iphone', 'old'])
    assert.deepEqual(
      settlements.flatMap(({ attempts }) =>
        attempts.map(({ attempt, outcome, final, code, cost }) => [attempt, outcome, final, code, cost]),
      ),
      [
        [1, 'sent', false, '2 of 3 devices', 0.5],
        [2, 'sent', true, '3 of 3 devices', 0.25],
      ],
    )
    assert.equal(asked.at(-1)!.attempt, 2)
    // The far end knows it again.
    assert.equal(new Set(asked.filter(({ to }) => to === 'old').map(m => m.idempotencyKey)).size, 1)
  })
}

test('whoever has it on some devices has it, when the tries for the others are used up', async () => {
  const { settlements, settlement, asked } = await tell(
    ({ to }) => (to === 'old' ? temporary('unavailable', 'HTTP 503') : sent()),
    { turns: 50 },
  )
  assert.equal(settlements.length, RETRY.push.attempts)
  assert.equal(asked.length, 2 + RETRY.push.attempts)
  const last = settlement.attempts.at(-1)!
  assert.deepEqual(
    [last.outcome, last.final, last.code, last.error],
    ['sent', true, '2 of 3 devices', 'HTTP 503'],
  )
  assert.deepEqual(settlements[1]!.attempts[0]!.outcome, 'failed', 'that try itself reached nobody')
})

test('what expires after some devices took it is sent, not expired', async () => {
  const more = { expiresAtMs: Date.UTC(2026, 0, 1) + 500 }
  const some = await tell(({ to }) => (to === 'old' ? temporary('unavailable') : sent()), { turns: 5, more })
  const none = await tell(() => temporary('unavailable'), { turns: 5, more })
  assert.deepEqual(
    [some, none].map(({ settlement: { attempts, again } }) => [
      attempts[0]!.outcome,
      attempts[0]!.code,
      again,
    ]),
    [
      ['sent', '2 of 3 devices', null],
      ['expired', 'expired', null],
    ],
  )
})

test('nobody is asked before the time they named, whatever the other devices said', async () => {
  const until = Date.UTC(2026, 0, 1, 0, 5)
  const { settlements } = await tell(
    ({ to }, nowMs) => {
      if (nowMs >= until) return sent()
      return to === 'old' ? rateLimited(new Date(until)) : temporary('server_error')
    },
    { turns: 5 },
  )
  assert.equal(settlements.length, 2)
  const { runAtMs } = settlements[0]!.again!
  assert.ok(runAtMs >= until && runAtMs <= until + 5_000, String(runAtMs - until))
  assert.equal(settlements[0]!.again!.reason, 'rate_limited')
})

test('a device whose service is not set up keeps the others from nothing, and is not waited for', async () => {
  const some = await tell(() => sent(), { providers: ['fcm'] })
  assert.deepEqual(some.asked.map(({ to }) => to).sort(), ['android', 'old'])
  assert.deepEqual([some.settlement.again, some.settlement.attempts[0]!.code], [null, '2 of 3 devices'])
  const none = await tell(() => sent(), { providers: [] })
  assert.deepEqual(
    [none.settlement.attempts[0]!.outcome, none.settlement.attempts[0]!.code],
    ['failed', 'channel_unavailable'],
  )
})

test('where one provider fails, the next of the same service is asked at once, for that device alone', async () => {
  let asked = 0
  const { settlement } = await tell(
    ({ to }) => (to === 'old' && asked++ === 0 ? temporary('busy') : sent()),
    {
      providers: ['fcm', 'apns', 'fcm.second'],
    },
  )
  assert.equal(asked, 2)
  assert.deepEqual([settlement.again, settlement.attempts[0]!.code], [null, '3 of 3 devices'])
})

test('under the policy "hold" a device that may have it is not asked again', async () => {
  const says: Says = ({ to }) => (to === 'old' ? unknown('timeout') : sent())
  const some = await tell(says, { turns: 5, unknown: 'hold' })
  assert.equal(some.asked.length, 3)
  assert.deepEqual(
    [some.settlement.attempts[0]!.outcome, some.settlement.attempts[0]!.code],
    ['sent', '2 of 3 devices'],
  )
  const none = await tell(({ to }) => (to === 'old' ? unknown('timeout') : temporary('server_error')), {
    turns: 5,
    unknown: 'hold',
  })
  assert.equal(none.asked.length, 3, 'nor anybody else, until somebody has looked')
  assert.deepEqual([none.settlement.attempts[0]!.outcome, none.settlement.again], ['unknown', null])
})

// covers: ALP-104
test('a fault of ours about one device brings the message to no other device twice', async () => {
  const soon = Date.UTC(2026, 0, 1) + 40_000
  const some = await tell(() => sent(), { turns: 10, broken: (to, nowMs) => to === 'old' && nowMs < soon })
  assert.deepEqual(some.asked.map(({ to }) => to).sort(), ['android', 'iphone', 'old'])
  assert.deepEqual([some.settlement.again, some.settlement.attempts[0]!.code], [null, '3 of 3 devices'])
  assert.deepEqual(
    some.settlements.slice(0, -1).map(({ again }) => [again!.kind, again!.reason]),
    some.settlements.slice(0, -1).map(() => ['retry', 'retry']),
  )
  assert.equal(some.faults.length, some.settlements.length - 1)
  const none = await tell(() => sent(), { broken: () => true })
  const { attempts, again } = none.settlement
  assert.deepEqual([attempts.length, again!.kind, again!.reason], [0, 'held', 'retry'], 'it waits, untried')
})

const ANSWERS = ['sent', 'temporary', 'unknown', 'rate_limited', 'permanent', 'bounced'] as const

// covers: ALP-104, ALP-112
test('whatever devices answer, none is asked again after it took it or refused for good, and it ends', async () => {
  const scripts = fc.array(fc.array(fc.constantFrom(...ANSWERS), { minLength: 1, maxLength: 5 }), {
    minLength: 2,
    maxLength: 8,
  })
  await fc.assert(
    fc.asyncProperty(scripts, async given => {
      const said = new Map<string, string[]>()
      const devices = given.map((_, at) => ({
        to: `device-${at}`,
        settings: { kind: at % 2 === 0 ? 'fcm' : 'apns' },
      }))
      const { settlements, settlement } = await tell(
        ({ to }, nowMs) => {
          const before = said.get(to) ?? []
          said.set(to, before)
          const script = given[Number(to.split('-')[1])]!
          const answer = script[Math.min(before.length, script.length - 1)]!
          before.push(answer)
          if (answer === 'sent') return { outcome: 'sent' }
          if (answer === 'temporary') return temporary('server_error')
          if (answer === 'unknown') return unknown('timeout')
          if (answer === 'rate_limited') return rateLimited(new Date(nowMs + 1000))
          return answer === 'permanent' ? permanent('refused') : bounced('gone')
        },
        { devices, turns: 200 },
      )
      assert.equal(settlement.again, null, 'it ends')
      assert.ok(settlements.length <= MAX_WAITS + 1)
      assert.equal(said.size, devices.length, 'everybody is asked')
      for (const [to, answers] of said) {
        const end = answers.findIndex(answer => ['sent', 'permanent', 'bounced'].includes(answer))
        assert.ok(end < 0 || end === answers.length - 1, `${to} was asked again after ${answers[end]}`)
      }
      const took = [...said.values()].filter(answers => answers.at(-1) === 'sent').length
      const last = settlement.attempts.at(-1)!
      assert.ok(last.final)
      if (took > 0) {
        assert.deepEqual([last.outcome, last.code], ['sent', `${took} of ${devices.length} devices`])
      } else assert.notEqual(last.outcome, 'sent')
      for (const { attempts } of settlements.slice(0, -1)) assert.ok(attempts.every(({ final }) => !final))
    }),
    { numRuns: 300 },
  )
})
