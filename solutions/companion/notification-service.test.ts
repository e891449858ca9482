import assert from 'node:assert/strict'
import { test } from 'node:test'
import { loadConfig } from '../../server/config.ts'
import { AppError } from '../../server/solution.ts'
import type { Core, Event, Explanation } from '../../server/solution.ts'
import { SOLUTIONS } from '../index.ts'
import { type ChannelAdapter, NOTIFICATION_CHANNELS, type NotificationChannel } from './channel.ts'
import { channelAdapters, notificationService, resultOf } from './notification-service.ts'
import { defaultMessage, priorityOf } from './payload.ts'

const NOW = new Date('2026-05-01T09:00:00Z')
const ON = { in_app: true, web_push: true, sms: true, whatsapp: true, email: true }
const payload = { userId: 'alice', auraId: 'rain', message: 'Dance!' }

/** A core that takes everything, and tells what it was given. */
function core(): Pick<Core, 'accept' | 'explain' | 'now'> & { taken: Event[] } {
  const taken: Event[] = []
  return {
    taken,
    now: () => NOW,
    async accept({ events, answer }) {
      taken.push(...events)
      const accepted = events.map(({ id }) => ({
        eventId: id,
        status: 'planned' as const,
        notifications: [],
        suppressed: 0,
      }))
      return { ...answer(accepted), replayed: false }
    },
    explain: async (_tenant, userId) =>
      explained(
        userId,
        NOTIFICATION_CHANNELS.map(channel => [channel, 'in_flight']),
      ),
  }
}

const explained = (userId: string, deliveries: [NotificationChannel, string, object?][]): Explanation =>
  ({
    rules: [
      {
        recipients: [
          {
            type: 'user',
            id: userId,
            notificationId: 'n',
            decisions: deliveries.map(([channel]) => ({ channel, decision: 'send' })),
            deliveries: deliveries.map(([channel, status, more]) => ({
              channel,
              status,
              attempts: [],
              ...more,
            })),
          },
        ],
      },
    ],
  }) as unknown as Explanation

// covers: AUR-104, AUR-114
test('each channel is an adapter, and each has a method of the service that delivers on it alone', async () => {
  const lent = core()
  const adapters: Readonly<Record<NotificationChannel, ChannelAdapter>> = channelAdapters(lent, ON)
  const service = notificationService(lent, adapters)
  const asked = { tenantId: 1, payload: { ...payload, channels: ['email' as const] } }
  const results = [
    await service.deliverInApp(asked),
    await service.deliverWebPush(asked),
    await service.deliverSMS(asked),
    await service.deliverWhatsApp(asked),
    await service.deliverEmail(asked),
  ]
  assert.deepEqual(
    results.map(({ channel, status }) => [channel, status]),
    NOTIFICATION_CHANNELS.map(channel => [channel, 'queued']),
  )
  assert.deepEqual(
    lent.taken.map(({ type, data }) => [type, data.channels]),
    NOTIFICATION_CHANNELS.map(channel => ['companion.rule.triggered', [channel]]),
  )
  assert.deepEqual(
    NOTIFICATION_CHANNELS.map(channel => adapters[channel].channel),
    [...NOTIFICATION_CHANNELS],
  )
})

// covers: AUR-096, AUR-105
test('only the conversation is open unless more is switched on; what is off sends nothing', async () => {
  const defaults = loadConfig({}, [], undefined, SOLUTIONS).solutions.get('companion')
  assert.deepEqual(defaults, { in_app: true, web_push: false, sms: false, whatsapp: false, email: false })
  const env = {
    ENABLE_IN_APP_NOTIFICATIONS: 'false',
    ENABLE_WEB_PUSH: 'true',
    ENABLE_SMS: 'true',
    ENABLE_WHATSAPP: 'true',
    ENABLE_EMAIL: 'true',
  }
  assert.deepEqual(loadConfig(env, [], undefined, SOLUTIONS).solutions.get('companion'), {
    ...ON,
    in_app: false,
  })

  const lent = core()
  const service = notificationService(lent, channelAdapters(lent, { ...ON, sms: false, email: false }))
  const refused = (error: unknown) => error instanceof AppError && error.code === 'channel_unavailable'
  await assert.rejects(service.deliverSMS({ tenantId: 1, payload }), refused)
  await assert.rejects(
    service.deliver({ tenantId: 1, payload: { ...payload, channels: ['sms', 'email'] } }),
    refused,
  )
  assert.deepEqual(lent.taken, [])
  await service.deliver({ tenantId: 1, payload: { ...payload, channels: ['sms', 'in_app'] } })
  assert.equal(lent.taken.length, 1)
})

test('what became of it has the documented number', () => {
  const of = (status: string, more?: object) =>
    resultOf('sms', 'e', explained('alice', [['sms', status, more]]))
  assert.deepEqual(of('delivered'), {
    channel: 'sms',
    eventId: 'e',
    notificationId: 'n',
    status: 'delivered',
  })
  const until = new Date('2026-05-02T07:00:00Z')
  const held = of('held', { waitsFor: { kind: 'held', until, reason: 'quiet_hours', text: 'Quiet' } })
  assert.deepEqual([held.status, held.until, held.error?.code], ['queued', until.toISOString(), 4033])
  const failed = of('failed', { attempts: [{ provider: 'twilio', code: 'refused 21211', error: 'No' }] })
  assert.deepEqual([failed.status, failed.error?.code, failed.error?.message], ['failed', 5003, 'No'])
  const expired = of('expired', { ended: { reason: 'expired', text: 'Too late', at: NOW } })
  assert.deepEqual([expired.status, expired.error?.code, expired.error?.reason], ['failed', 5001, 'expired'])
  assert.equal(
    resultOf('sms', 'e', { rules: [], why: 'not_planned' } as unknown as Explanation).status,
    'queued',
  )
})

test('numbers of rules are urgencies of the core; the default message is bounded', () => {
  assert.deepEqual([1, 3, 4, undefined, 6, 7, 8, 9, 10].map(priorityOf), [
    'LOW',
    'LOW',
    'NORMAL',
    'NORMAL',
    'NORMAL',
    'HIGH',
    'HIGH',
    'CRITICAL',
    'CRITICAL',
  ])
  assert.equal(defaultMessage(payload), 'Something happened')
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, n) => [`s${n}`, 'x'.repeat(500)]))
  assert.ok(defaultMessage({ ...payload, ruleName: 'R', trigger_data: many }).length < 5_000)
  assert.equal(
    defaultMessage({ ...payload, ruleName: 'R', trigger_data: { a: null, b: { c: [1], d: 0 }, e: false } }),
    'R: b.d 0, e false',
  )
})
