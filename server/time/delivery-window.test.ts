import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { hhmm, otherWindows, ZONES } from '../test/second-clock.ts'
import { checkDeliveryWindows, openAt, type DeliveryWindow } from './delivery-window.ts'
import { clockChanges, MINUTE_MS } from './zone.ts'

const opens = (now: string, windows: DeliveryWindow[], zone = 'Europe/Berlin') =>
  openAt(new Date(now), windows, zone).toISOString()
const office = { start: '09:00', end: '17:00', weekdays: [1, 2, 3, 4, 5] }

test('what comes inside a window goes at once, else when the next one opens', () => {
  assert.equal(opens('2026-11-20T10:00:00Z', [office]), '2026-11-20T10:00:00.000Z')
  assert.equal(opens('2026-11-20T07:59:59Z', [office]), '2026-11-20T08:00:00.000Z')
  assert.equal(opens('2026-11-20T16:00:00Z', [office]), '2026-11-23T08:00:00.000Z')
  assert.equal(
    opens('2026-11-20T16:00:00Z', [{ ...office, timezone: 'America/New_York' }]),
    '2026-11-20T16:00:00.000Z',
  )
  const evening = { start: '18:00', end: '24:00', weekdays: [5] }
  assert.equal(opens('2026-11-20T16:00:00Z', [office, evening]), '2026-11-20T17:00:00.000Z')
  assert.equal(opens('2026-11-20T22:59:59Z', [evening]), '2026-11-20T22:59:59.000Z')
  assert.equal(opens('2026-11-20T23:00:00Z', [evening]), '2026-11-27T17:00:00.000Z')
  // Friday's night goes on until Saturday morning.
  const night = { start: '22:00', end: '06:00', weekdays: [5] }
  assert.equal(opens('2026-11-21T04:00:00Z', [night]), '2026-11-21T04:00:00.000Z')
})

test('without windows everything goes at once; so it does where none ever opens', () => {
  assert.equal(opens('2026-11-20T03:00:00Z', []), '2026-11-20T03:00:00.000Z')
  assert.equal(opens('2026-11-20T03:00:00Z', [{ ...office, weekdays: [] }]), '2026-11-20T03:00:00.000Z')
})

test('where clocks change', () => {
  const early = { start: '02:30', end: '08:00' }
  assert.equal(opens('2026-03-28T20:00:00Z', [early]), '2026-03-29T01:00:00.000Z')
  assert.equal(opens('2026-10-24T20:00:00Z', [early]), '2026-10-25T00:30:00.000Z')
  // The clock jumps over the only window of the week.
  const short = { start: '02:15', end: '02:45', weekdays: [7] }
  assert.equal(opens('2026-03-28T20:00:00Z', [short]), '2026-04-05T00:15:00.000Z')
})

const windowCases = fc.record({
  start: fc.oneof(fc.nat(1439), fc.constantFrom(0, 60, 120, 150, 540)),
  end: fc.oneof(fc.nat(1439), fc.constantFrom(60, 120, 180, 1020)),
  weekdays: fc.option(fc.uniqueArray(fc.integer({ min: 1, max: 7 }), { minLength: 1 }), { nil: undefined }),
  minutes: fc.integer({ min: -30 * 60, max: 30 * 60 }),
})

test('every zone, around every change: the first instant inside, and never a later one', () => {
  const changes = new Map<string, { zone: string; at: number }>()
  for (const zone of ZONES) {
    for (const { at, before, after } of clockChanges(zone, Date.UTC(2015), Date.UTC(2038))) {
      // The zones of one country change alike; every third year has each kind of change.
      if (new Date(at).getUTCFullYear() % 3 === 0) changes.set(`${at} ${before} ${after}`, { zone, at })
    }
  }
  const given = fc.sample(windowCases, { numRuns: changes.size, seed: 20_261_121 })
  for (const [i, { zone, at }] of [...changes.values()].entries()) {
    const { start, end, weekdays, minutes } = given[i]!
    if (start === end) continue
    const now = at + minutes * MINUTE_MS
    const answer = openAt(new Date(now), [{ start: hhmm(start), end: hhmm(end), weekdays }], zone).getTime()
    const expected = otherWindows(zone, now, { before: 2, after: 15 }, { start, end, weekdays })
      .filter(each => each.end > each.start && each.end > now)
      .map(each => Math.max(now, each.start))
    assert.equal(
      answer,
      Math.min(...expected),
      `${zone} ${new Date(now).toISOString()} ${JSON.stringify(given[i])}`,
    )
  }
  assert.ok(changes.size > 300, `${changes.size} changes`)
})

test('windows that cannot be kept are refused with their field', () => {
  const field = (windows: unknown) => {
    try {
      checkDeliveryWindows(windows, '/deliveryWindows')
      return 'fine'
    } catch (error) {
      assert.ok(error instanceof AppError && error.code === 'invalid_schedule', String(error))
      return error.errors![0]!.field
    }
  }
  assert.deepEqual(checkDeliveryWindows([], ''), [])
  assert.deepEqual(checkDeliveryWindows([{ ...office, timezone: 'UTC' }], ''), [
    { ...office, timezone: 'UTC' },
  ])
  assert.equal(field([office, { ...office, end: '09:00' }]), '/deliveryWindows/1/end')
  assert.equal(field([{ ...office, start: '9' }]), '/deliveryWindows/0/start')
  assert.equal(field([{ ...office, weekdays: [8] }]), '/deliveryWindows/0/weekdays/0')
  assert.equal(field([{ ...office, timezone: 'Nowhere' }]), '/deliveryWindows/0/timezone')
  assert.equal(field([{ ...office, day: 1 }]), '/deliveryWindows/0/day')
  assert.equal(field([null]), '/deliveryWindows/0')
  assert.equal(field({}), '/deliveryWindows')
  assert.equal(field(Array.from({ length: 51 }, () => office)), '/deliveryWindows')
})
