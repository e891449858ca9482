import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { PreferenceSettings } from '../people/preference-settings.ts'
import { candidate, wanted } from '../test/candidate.ts'
import type { DeliveryWindow } from '../time/delivery-window.ts'
import { openAt } from '../time/delivery-window.ts'
import { quietUntil } from '../time/quiet-hours.ts'
import type { JsonObject } from '../types.ts'
import type { Candidate } from './candidate.ts'
import { decide } from './decide.ts'

const office: DeliveryWindow = { start: '09:00', end: '17:00', weekdays: [1, 2, 3, 4, 5] }
const wants = (settings: PreferenceSettings) =>
  wanted([{ scope: '', channel: null, enabled: null, settings: settings as JsonObject }])

function outcome(more: Partial<Candidate>, now: string): string {
  const decision = decide(candidate(more), new Date(now))
  if (decision.kind !== 'hold') return decision.kind
  return `${decision.reason} of ${decision.detail} until ${decision.until.toISOString().slice(0, 16)}`
}

test('outside of the windows of the rule, or of the reader, it waits for the next one', () => {
  const rule = { policy: { deliveryWindows: [office] } }
  assert.equal(outcome(rule, '2026-11-20T16:59:59Z'), 'send')
  assert.equal(outcome(rule, '2026-11-20T17:00:00Z'), 'delivery_window of rule until 2026-11-23T09:00')
  const reader = { preference: wants({ deliveryWindows: [office] }) }
  assert.equal(
    outcome(reader, '2026-11-21T12:00:00Z'),
    'delivery_window of user:global until 2026-11-23T09:00',
  )
  // In the zone of the reader, unless the window has its own.
  assert.equal(
    outcome({ ...rule, zone: 'America/New_York' }, '2026-11-23T10:00:00Z'),
    'delivery_window of rule until 2026-11-23T14:00',
  )
})

test('CRITICAL does not wait, and the inbox has no hours', () => {
  const rule = { policy: { deliveryWindows: [office] } }
  assert.equal(outcome({ ...rule, priority: 'CRITICAL' }, '2026-11-21T12:00:00Z'), 'send')
  assert.equal(outcome({ ...rule, channel: 'in_app', address: null }, '2026-11-21T12:00:00Z'), 'send')
})

test('rule and reader both have to let it', () => {
  const both = {
    policy: { deliveryWindows: [{ start: '08:00', end: '12:00' }] },
    preference: wants({ deliveryWindows: [{ start: '11:00', end: '20:00', weekdays: [2] }] }),
  }
  assert.equal(outcome(both, '2026-11-21T12:00:00Z'), 'delivery_window of user:global until 2026-11-24T11:00')
})

test('what never can be is not promised', () => {
  const never = {
    policy: { deliveryWindows: [{ start: '08:00', end: '12:00' }] },
    preference: wants({ deliveryWindows: [{ start: '13:00', end: '20:00' }] }),
  }
  const decision = decide(candidate(never), new Date('2026-11-21T12:00:00Z'))
  assert.deepEqual([decision.kind, decision.kind === 'skip' && decision.reason], ['skip', 'over_limit'])
})

const minute = fc
  .nat(1439)
  .map(at => `${String(Math.floor(at / 60)).padStart(2, '0')}:${String(at % 60).padStart(2, '0')}`)
const span = fc.record({ start: minute, end: minute }).filter(({ start, end }) => start !== end)
const days = fc.option(fc.uniqueArray(fc.integer({ min: 1, max: 7 }), { minLength: 1 }), { nil: undefined })

test('it is never promised for a quiet hour or outside a window, and never sent in one', () => {
  fc.assert(
    fc.property(
      span,
      days,
      span,
      days,
      fc.constantFrom('Europe/Berlin', 'Australia/Lord_Howe', 'America/Nuuk', 'Asia/Kolkata'),
      fc.date({ min: new Date('2026-01-01'), max: new Date('2027-12-31'), noInvalidDate: true }),
      (quiet, quietDays, open, openDays, zone, now) => {
        const quietHours = { ...quiet, enabled: true, weekdays: quietDays }
        const deliveryWindows = [{ ...open, weekdays: openDays }]
        const preference = wants({ quietHours, deliveryWindows })
        const decision = decide(candidate({ preference, zone }), now)
        if (decision.kind === 'skip') {
          assert.equal(decision.reason, 'over_limit')
          return
        }
        const at = decision.kind === 'hold' ? decision.until : now
        assert.equal(quietUntil(at, quietHours, zone), null)
        assert.equal(openAt(at, deliveryWindows, zone).getTime(), at.getTime())
      },
    ),
    { numRuns: 300 },
  )
})
