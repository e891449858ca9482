import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { alice, candidate, event, now, verified, wanted } from '../test/candidate.ts'
import type { Candidate } from './candidate.ts'
import { CHECKS, decide } from './decide.ts'
import { readTrace, storeDecision, storeRecipient } from './trace.ts'

const later = (seconds: number) => new Date(now.getTime() + seconds * 1000)
const reason = (more: Partial<Candidate>) => {
  const decision = decide(candidate(more), now)
  return decision.kind === 'send' ? 'send' : `${decision.kind} ${decision.reason}`
}

test('a known user with a verified address is sent to', () => {
  assert.equal(reason({}), 'send')
})

// covers: DIC-080, ALP-119
test('every reason not to send is named', () => {
  const off = (channel: 'email' | null) => [{ scope: '', channel, enabled: false, settings: {} }]
  assert.equal(reason({ user: { ...alice, known: false } }), 'skip unknown_user')
  assert.equal(reason({ user: { ...alice, enabled: false } }), 'skip user_disabled')
  assert.equal(reason({ user: { ...alice, erased: true } }), 'skip user_erased')
  assert.equal(reason({ preference: wanted(off(null)) }), 'skip preference_global_off')
  assert.equal(reason({ preference: wanted(off('email')) }), 'skip preference_channel_off')
  assert.equal(reason({ preference: wanted([], off('email')) }), 'skip preference_channel_off')
  assert.equal(reason({ address: null }), 'skip missing_address')
  assert.equal(reason({ address: { ...verified, verification: 'pending' } }), 'skip unverified_address')
  assert.equal(
    reason({ address: { ...verified, suppression: { reason: 'hard_bounce' } } }),
    'skip suppressed_address',
  )
  assert.equal(reason({ channelOpen: false }), 'skip channel_unavailable')
  assert.equal(reason({ expiresAt: now }), 'skip expired')
  assert.equal(reason({ alreadyTold: true }), 'skip duplicate_recipient')
  assert.equal(reason({ level: 'IMPORTANT' }), 'skip topic_important_only')
  assert.equal(reason({ level: 'IMPORTANT', priority: 'HIGH' }), 'send')
})

test('whoever an experiment holds out is told nothing, unless it is critical or forced', () => {
  const heldOut = { name: 'Plain or bold' }
  assert.deepEqual(decide(candidate({ heldOut }), now), {
    kind: 'skip',
    reason: 'holdout',
    detail: 'Plain or bold',
  })
  assert.equal(reason({ heldOut, priority: 'CRITICAL' }), 'send')
  const direct = { force: true, recipients: [], channels: [], fallback: [] }
  assert.equal(reason({ heldOut, event: { ...event, direct } }), 'send')
  // Whoever would have heard nothing anyway is no part of the comparison.
  assert.equal(reason({ heldOut, channelOpen: false }), 'skip channel_unavailable')
})

test('a suppression that has run out no longer counts, and in-app needs no address', () => {
  const suppression = { reason: 'manual' as const, until: now.getTime() }
  assert.equal(reason({ address: { ...verified, suppression } }), 'send')
  assert.equal(reason({ channel: 'in_app', address: null }), 'send')
})

test('what must wait waits for the latest of its instants, and expires rather than come too late', () => {
  const schedule = { intervalSeconds: 3600, timezone: 'UTC', anchorMs: now.getTime() - 1000 }
  assert.deepEqual(decide(candidate({ schedule }), now), {
    kind: 'hold',
    until: later(3599),
    reason: 'rule_schedule',
  })
  const both = decide(candidate({ schedule, event: { ...event, scheduledAt: later(60) } }), now)
  assert.deepEqual(both, { kind: 'hold', until: later(3599), reason: 'rule_schedule' })
  assert.equal(reason({ schedule, expiresAt: later(3599) }), 'skip expired')
})

test('a decision does not depend on anything but its arguments', () => {
  fc.assert(
    fc.property(
      fc.record({ alreadyTold: fc.boolean(), channelOpen: fc.boolean() }),
      fc.date({ noInvalidDate: true }),
      (more, at) => {
        assert.deepEqual(decide(candidate(more), at), decide(candidate(more), at))
      },
    ),
  )
  assert.equal(new Set(CHECKS).size, CHECKS.length)
})

test('a trace says again what was decided', () => {
  const until = later(60)
  const stored = {
    rules: [
      {
        r: 7,
        v: 2,
        to: [
          storeRecipient({ type: 'user', id: 'alice' }, [
            storeDecision('in_app', { kind: 'send' }),
            storeDecision('email', { kind: 'skip', reason: 'suppressed_address', detail: 'complaint' }),
            storeDecision('sms', { kind: 'hold', until, reason: 'rule_schedule' }),
          ]),
        ],
      },
      { r: 8, v: 1, w: 'pattern_false' as const },
    ],
  }
  const [told, not] = readTrace(JSON.parse(JSON.stringify(stored)))
  assert.deepEqual(
    told!.recipients[0]!.decisions.map(({ channel, decision, reason, detail, until }) => [
      channel,
      decision,
      reason,
      detail,
      until,
    ]),
    [
      ['in_app', 'send', undefined, undefined, undefined],
      ['email', 'skip', 'suppressed_address', 'complaint', undefined],
      ['sms', 'hold', 'rule_schedule', undefined, until.toISOString()],
    ],
  )
  assert.equal(told!.matched, true)
  assert.equal(not!.matched, false)
  assert.equal(not!.why, 'pattern_false')
})
