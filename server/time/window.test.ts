import assert from 'node:assert/strict'
import { test } from 'node:test'
import { otherInstant, otherOffset, ZONES } from '../test/second-clock.ts'
import { windowOf, type WindowKind } from './window.ts'
import { clockChanges, DAY_MS, HOUR_MS } from './zone.ts'

const ms = (iso: string) => Date.parse(iso)
const shown = (kind: WindowKind, zone: string, at: string) => {
  const { start, end } = windowOf(kind, zone, ms(at))
  return [new Date(start).toISOString(), new Date(end).toISOString(), (end - start) / HOUR_MS]
}
const FROM = ms('2015-01-01T00:00:00Z')
const TO = ms('2038-01-01T00:00:00Z')

test('days have 23, 25 or other hours where clocks change', () => {
  assert.deepEqual(shown('day', 'Europe/Berlin', '2026-03-29T12:00:00Z'), [
    '2026-03-28T23:00:00.000Z',
    '2026-03-29T22:00:00.000Z',
    23,
  ])
  assert.deepEqual(shown('day', 'Europe/Berlin', '2026-10-25T12:00:00Z'), [
    '2026-10-24T22:00:00.000Z',
    '2026-10-25T23:00:00.000Z',
    25,
  ])
  assert.equal(shown('day', 'Australia/Lord_Howe', '2026-10-04T00:00:00Z')[2], 23.5)
  // Midnight itself is skipped: the day begins at one.
  assert.deepEqual(shown('day', 'Asia/Beirut', '2026-03-29T12:00:00Z'), [
    '2026-03-28T22:00:00.000Z',
    '2026-03-29T21:00:00.000Z',
    23,
  ])
  assert.deepEqual(shown('day', 'Pacific/Apia', '2011-12-30T09:59:59Z'), [
    '2011-12-29T10:00:00.000Z',
    '2011-12-30T10:00:00.000Z',
    24,
  ])
  assert.equal(shown('day', 'Pacific/Apia', '2011-12-30T10:00:00Z')[0], '2011-12-30T10:00:00.000Z')
})

test('where a clock goes back over midnight the new day goes on', () => {
  // 2006-10-29 00:01 in Newfoundland was followed by 2006-10-28 23:01.
  const day = shown('day', 'America/St_Johns', '2006-10-29T12:00:00Z')
  assert.deepEqual(day, ['2006-10-29T02:30:00.000Z', '2006-10-30T03:30:00.000Z', 25])
  assert.deepEqual(shown('day', 'America/St_Johns', '2006-10-29T02:45:00Z'), day)
})

test('weeks begin on Monday, months on the first; minutes and hours are those of UTC', () => {
  assert.deepEqual(shown('week', 'Europe/Berlin', '2026-03-29T12:00:00Z'), [
    '2026-03-22T23:00:00.000Z',
    '2026-03-29T22:00:00.000Z',
    167,
  ])
  assert.deepEqual(shown('week', 'UTC', '1969-12-29T00:00:00Z').slice(0, 2), [
    '1969-12-29T00:00:00.000Z',
    '1970-01-05T00:00:00.000Z',
  ])
  assert.deepEqual(shown('month', 'America/New_York', '2026-03-01T04:59:59Z').slice(0, 2), [
    '2026-02-01T05:00:00.000Z',
    '2026-03-01T05:00:00.000Z',
  ])
  assert.deepEqual(shown('month', 'America/New_York', '2026-12-31T12:00:00Z').slice(0, 2), [
    '2026-12-01T05:00:00.000Z',
    '2027-01-01T05:00:00.000Z',
  ])
  assert.deepEqual(shown('hour', 'Asia/Kolkata', '2026-11-21T12:34:56Z').slice(0, 2), [
    '2026-11-21T12:00:00.000Z',
    '2026-11-21T13:00:00.000Z',
  ])
  assert.deepEqual(shown('minute', 'Asia/Kolkata', '1969-12-31T23:59:30Z').slice(0, 2), [
    '1969-12-31T23:59:00.000Z',
    '1970-01-01T00:00:00.000Z',
  ])
})

/** The same by the calendar of JavaScript and a second clock. */
function other(kind: 'day' | 'week' | 'month', zone: string, at: number): { start: number; end: number } {
  const date = new Date(at + otherOffset(zone, at))
  date.setUTCHours(0, 0, 0, 0)
  if (kind === 'week') date.setUTCDate(date.getUTCDate() - (date.getUTCDay() || 7) + 1)
  if (kind === 'month') date.setUTCDate(1)
  const next = new Date(date)
  if (kind === 'month') next.setUTCMonth(next.getUTCMonth() + 1)
  else next.setUTCDate(next.getUTCDate() + (kind === 'day' ? 1 : 7))
  return { start: otherInstant(zone, date.getTime()), end: otherInstant(zone, next.getTime()) }
}

test('every zone, around every change: an instant lies in its window, and windows follow each other', () => {
  const seen = new Set<string>()
  for (const zone of ZONES) {
    for (const { at, before, after } of clockChanges(zone, FROM, TO)) {
      const key = `${at} ${before} ${after}`
      if (seen.has(key)) continue
      seen.add(key)
      for (const each of [at - 20 * HOUR_MS, at - 1, at, at + 20 * HOUR_MS + 7]) {
        for (const kind of ['day', 'week', 'month'] as const) {
          const where = `${kind} ${zone} ${new Date(each).toISOString()}`
          const window = windowOf(kind, zone, each)
          assert.ok(window.start <= each && each < window.end, where)
          assert.deepEqual(windowOf(kind, zone, window.start), window, where)
          assert.deepEqual(windowOf(kind, zone, window.end - 1), window, where)
          assert.equal(windowOf(kind, zone, window.end).start, window.end, where)
          assert.equal(windowOf(kind, zone, window.start - 1).end, window.start, where)
          const expected = other(kind, zone, each)
          // Back over midnight: the date shown is one that is over.
          if (each < expected.end) assert.deepEqual(window, expected, where)
        }
      }
    }
    const day = windowOf('day', zone, FROM)
    assert.ok(day.end - day.start === DAY_MS || clockChanges(zone, day.start, day.end).length > 0)
  }
  assert.ok(seen.size > 500, `${seen.size} different changes`)
})
