import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Settlement } from '../ledger/settle.ts'
import type { Message } from '../types.ts'
import type { Delivery } from './delivery.ts'
import { deliveryLoop } from './loop.ts'
import type { OpenedProvider } from './open-provider.ts'
import { bounced, permanent, temporary } from './provider.ts'
import type { DeliveryError, Sent } from './provider.ts'

type Says = (message: Message) => Sent | DeliveryError

/** One delivery to a phone of each kind and an old one, through providers for Android and for Apple. */
async function tell(says: Says): Promise<{
  settlement: Settlement
  asked: Message[]
  gone: string[]
  taken: string[]
}> {
  const asked: Message[] = []
  const provider = (id: string): OpenedProvider => {
    const send = async (message: Message) => {
      asked.push(message)
      const said = says(message)
      if (said instanceof Error) throw said
      return said
    }
    return {
      id,
      channel: 'push',
      limits: {},
      mayRepeat: true,
      accepts: ({ addressSettings }) => addressSettings?.['kind'] === id,
      lane: () => id,
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
  const settlement = await new Promise<Settlement>(resolve => {
    const loop = deliveryLoop({
      providers: new Map([['push', [provider('fcm'), provider('apns')]]]),
      settle: resolve,
      now: () => new Date(Date.UTC(2026, 0, 1)),
      random: () => 0.5,
      inFlight: 10,
      perChannel: 10,
      onAnswer: (_, to, said) => void (said === 'gone' ? gone : taken).push(to),
      onError: error => assert.fail(error as Error),
    })
    const delivery: Delivery = {
      tenantId: 1,
      notificationId: '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d',
      channel: 'push',
      recipient: { type: 'user', id: 'alice' },
      priority: 'NORMAL',
      eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
      eventType: 'x',
      createdAtMs: Date.UTC(2026, 0, 1),
      expiresAtMs: null,
      body: {
        to: 'android',
        settings: { kind: 'fcm' },
        others: [
          { to: 'iphone', settings: { kind: 'apns' } },
          { to: 'old', settings: { kind: 'fcm' } },
        ],
        body: 'Hello',
      },
      tries: 0,
      hasFallback: false,
      provider: null,
      batch: null,
    }
    loop.push([delivery])
  })
  return { settlement, asked, gone, taken }
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

test('as long as no device has it and one may still get it, it is tried again; has one it, it is not', async () => {
  const later = await tell(({ to }) => (to === 'old' ? temporary('server_error') : permanent('refused')))
  assert.equal(later.settlement.again?.kind, 'retry')
  const done = await tell(({ to }) => (to === 'old' ? sent() : temporary('server_error')))
  assert.deepEqual([done.settlement.again, done.settlement.attempts.at(-1)!.outcome], [null, 'sent'])
})
