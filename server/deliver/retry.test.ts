import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHANNELS } from '../types.ts'
import { RETRY, afterPause, nextTry } from './retry.ts'

const now = new Date('2026-03-29T00:30:00Z')
const wait = (channel: (typeof CHANNELS)[number], tries: number, random = 0.5) => {
  const due = nextTry(RETRY[channel], tries, now, random)
  return due && due.getTime() - now.getTime()
}

// covers: DIC-119, DIC-141
test('a webhook is tried three times, one and two seconds apart', () => {
  assert.deepEqual(
    [1, 2, 3].map(tries => wait('webhook', tries)),
    [1000, 2000, null],
  )
})

// covers: PFM-178, PFM-181, ALP-109
test('mail is tried five times, its wait doubling', () => {
  assert.deepEqual(
    [1, 2, 3, 4, 5].map(tries => wait('email', tries)),
    [1000, 2000, 4000, 8000, null],
  )
})

// covers: PFM-179, PFM-181, ALP-109
test('a text message is tried three times, two and six seconds apart', () => {
  for (const channel of ['sms', 'whatsapp', 'voice'] as const) {
    assert.deepEqual(
      [1, 2, 3].map(tries => wait(channel, tries)),
      [2000, 6000, null],
    )
  }
})

test('a push is tried four times, one, five and fifteen seconds apart', () => {
  for (const channel of ['push', 'web_push'] as const) {
    assert.deepEqual(
      [1, 2, 3, 4].map(tries => wait(channel, tries)),
      [1000, 5000, 15_000, null],
    )
  }
})

// covers: PFM-180, PFM-185
test('the wait is spread by a quarter either way and never above its cap by more than that', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...CHANNELS),
      fc.integer({ min: 1, max: 50 }),
      fc.double({ min: 0, max: 0.999999, noNaN: true }),
      (channel, tries, random) => {
        const policy = { ...RETRY[channel], attempts: 100 }
        const middle = Math.min(policy.capMs, policy.firstMs * policy.factor ** (tries - 1))
        const actual = nextTry(policy, tries, now, random)!.getTime() - now.getTime()
        assert.ok(actual >= Math.floor(middle * 0.75) && actual <= Math.ceil(middle * 1.25))
      },
    ),
  )
})

test('mail and text messages are not repeated after an unknown outcome; webhooks, which carry a key, are', () => {
  assert.equal(RETRY.email.unknown, 'hold')
  assert.equal(RETRY.sms.unknown, 'hold')
  assert.equal(RETRY.webhook.unknown, 'resend')
  for (const channel of ['slack', 'discord', 'telegram', 'teams'] as const) {
    assert.equal(RETRY[channel].unknown, 'hold')
  }
})

test('who was asked to wait comes back later than that, not at once, and not together with all others', () => {
  const policy = RETRY.email
  const after = (seconds: number, random: number) =>
    (afterPause(policy, now.getTime() + seconds * 1000, now, random) - now.getTime()) / 1000
  assert.deepEqual(
    [after(60, 0), after(60, 0.5), after(3_600, 0.5), after(10, 0.5)],
    [60, 62.5, 3_602.5, 10.5],
  )
  // "Retry-After: 0" is no leave to ask without end.
  assert.deepEqual([after(0, 0), after(-5, 0)], [1, 1])
  fc.assert(
    fc.property(
      fc.integer({ min: -1_000, max: 86_400_000 }),
      fc.double({ min: 0, max: 0.999, noNaN: true }),
      (ms, random) => {
        const due = afterPause(policy, now.getTime() + ms, now, random)
        assert.ok(due >= now.getTime() + Math.max(ms, policy.firstMs))
        assert.ok(
          due <= now.getTime() + Math.max(ms, policy.firstMs) * 1.1 &&
            due - now.getTime() <= Math.max(ms, policy.firstMs) + 5_000,
        )
      },
    ),
  )
})
