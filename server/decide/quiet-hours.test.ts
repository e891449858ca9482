import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PreferenceSettings } from '../people/preference-settings.ts'
import { candidate, event, wanted } from '../test/candidate.ts'
import type { JsonObject } from '../types.ts'
import type { Candidate } from './candidate.ts'
import { decide } from './decide.ts'

const night = { enabled: true, start: '22:00', end: '07:00' }
const wants = (settings: PreferenceSettings, channel: Candidate['channel'] = 'email') =>
  wanted([{ scope: '', channel: null, enabled: null, settings: settings as JsonObject }], [], channel)
const at23 = new Date('2026-11-21T23:00:00Z')

/** `send`, or until when it is held and why. */
function outcome(more: Partial<Candidate>, now = at23): string {
  const decision = decide(candidate({ preference: wants({ quietHours: night }), ...more }), now)
  if (decision.kind === 'send') return 'send'
  return decision.kind === 'hold'
    ? `${decision.reason} until ${decision.until.toISOString()}`
    : `${decision.kind} ${decision.reason}`
}

// covers: AUR-079, AUR-090, DIC-083, PFM-136, PRO-055
test('a message of 23:00 goes at seven in the morning', () => {
  assert.equal(outcome({}), 'quiet_hours until 2026-11-22T07:00:00.000Z')
  assert.equal(outcome({}, new Date('2026-11-21T21:59:59Z')), 'send')
  assert.equal(outcome({}, new Date('2026-11-22T07:00:00Z')), 'send')
})

// covers: AUR-089, PFM-138, DIC-037
test('it is the night of the reader', () => {
  assert.equal(outcome({ zone: 'Asia/Tokyo' }), 'send')
  assert.equal(
    outcome({ zone: 'America/New_York' }, new Date('2026-11-22T04:00:00Z')),
    'quiet_hours until 2026-11-22T12:00:00.000Z',
  )
  // Quiet hours may have a zone of their own.
  const abroad = wants({ quietHours: { ...night, timezone: 'Asia/Tokyo' } })
  assert.equal(outcome({ preference: abroad }), 'send')
})

test('in the night in which the clock is put back or forward it goes at seven as well', () => {
  const zone = 'Europe/Berlin'
  assert.equal(
    outcome({ zone }, new Date('2026-10-24T21:00:00Z')),
    'quiet_hours until 2026-10-25T06:00:00.000Z',
  )
  assert.equal(
    outcome({ zone }, new Date('2026-03-28T22:00:00Z')),
    'quiet_hours until 2026-03-29T05:00:00.000Z',
  )
})

// covers: DIC-082, ALP-130, PRO-060
test('CRITICAL passes unless the reader says no', () => {
  assert.equal(outcome({ priority: 'CRITICAL' }), 'send')
  const strict = wants({ quietHours: { ...night, allowCritical: false } })
  assert.equal(
    outcome({ priority: 'CRITICAL', preference: strict }),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
  assert.equal(outcome({ priority: 'HIGH' }), 'quiet_hours until 2026-11-22T07:00:00.000Z')
})

// covers: ALP-125
test('event types that are exceptions pass, by name or by beginning; days are those on which the night begins', () => {
  const except = (exceptions: string[]) => wants({ quietHours: { ...night, exceptions } })
  assert.equal(outcome({ preference: except(['commerce.order.shipped']) }), 'send')
  assert.equal(outcome({ preference: except(['commerce.*']) }), 'send')
  assert.equal(
    outcome({ preference: except(['commerce.order']) }),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
  // 2026-11-21 is a Saturday.
  assert.equal(outcome({ preference: wants({ quietHours: { ...night, weekdays: [7] } }) }), 'send')
  assert.equal(
    outcome(
      { preference: wants({ quietHours: { ...night, weekdays: [6] } }) },
      new Date('2026-11-22T05:00:00Z'),
    ),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
})

// covers: PFM-137
test('the inbox fills meanwhile, unless rule or reader want it quiet there too', () => {
  const inbox = { channel: 'in_app', address: null } as const
  assert.equal(outcome({ ...inbox, preference: wants({ quietHours: night }, 'in_app') }), 'send')
  const quietInbox = wants({ quietHours: night, quietAppliesToInApp: true }, 'in_app')
  assert.equal(outcome({ ...inbox, preference: quietInbox }), 'quiet_hours until 2026-11-22T07:00:00.000Z')
  assert.equal(
    outcome({ ...inbox, policy: { quietHours: 'in_app' } }),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
  // A security alert of the bank goes in the night.
  assert.equal(outcome({ policy: { quietHours: 'ignore' } }), 'send')
})

test('it is not sent at the end of a night that it does not survive', () => {
  assert.equal(outcome({ expiresAt: new Date('2026-11-22T06:00:00Z') }), 'skip expired')
  assert.equal(
    outcome({ expiresAt: new Date('2026-11-22T07:00:01Z') }),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
})

test('what is asked for at a time in the night goes when the night is over', () => {
  const scheduled = { event: { ...event, scheduledAt: new Date('2026-11-22T03:00:00Z') } }
  assert.equal(
    outcome(scheduled, new Date('2026-11-21T12:00:00Z')),
    'quiet_hours until 2026-11-22T07:00:00.000Z',
  )
})

test('the reason says whose quiet hours they are', () => {
  const decision = decide(candidate({ preference: wants({ quietHours: night }) }), at23)
  assert.equal(decision.kind === 'hold' && decision.detail, 'user:global')
})

// covers: PFM-135
test('switched off they hold nothing', () => {
  assert.equal(outcome({ preference: wants({ quietHours: { ...night, enabled: false } }) }), 'send')
  assert.equal(outcome({ preference: wants({}) }), 'send')
  assert.equal(outcome({ preference: null, user: null }), 'send')
})
