import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { AppError } from '../errors.ts'
import { otherInstant, otherOffset, ZONES } from '../test/second-clock.ts'
import {
  checkZone,
  clockChanges,
  DAY_MS,
  HOUR_MS,
  instantOf,
  instantOfWall,
  isZone,
  MINUTE_MS,
  offsetMinutes,
  offsetMs,
  reachedWall,
  steadyOffset,
  wallClock,
  wallMs,
} from './zone.ts'

const ms = (iso: string) => Date.parse(iso)
const iso = (at: number) => new Date(at).toISOString()
const FROM = ms('2015-01-01T00:00:00Z')
const TO = ms('2038-01-01T00:00:00Z')

/** What Intl writes, as `2026-11-21 12:00:00`. */
const writers = new Map<string, Intl.DateTimeFormat>()
function written(zone: string, at: number): string {
  let writer = writers.get(zone)
  if (!writer) {
    writer = new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'medium' })
    writers.set(zone, writer)
  }
  return writer.format(at)
}
function shown(zone: string, at: number): string {
  const { year, month, day, hour, minute, second } = wallClock(zone, at)
  const two = (n: number) => String(n).padStart(2, '0')
  return `${year}-${two(month)}-${two(day)} ${two(hour)}:${two(minute)}:${two(second)}`
}

test('every zone, 2015 to 2037: offsets and changes are those of another implementation', () => {
  let changes = 0
  for (const zone of ZONES) {
    let last = offsetMs(zone, FROM)
    for (const { at, before, after } of clockChanges(zone, FROM, TO)) {
      changes++
      assert.equal(before, last, `${zone} ${iso(at)}`)
      assert.notEqual(before, after)
      assert.equal(otherOffset(zone, at - 1), before, `${zone} ${iso(at)}`)
      assert.equal(otherOffset(zone, at), after, `${zone} ${iso(at)}`)
      assert.equal(offsetMs(zone, at - 1), before)
      assert.equal(offsetMs(zone, at), after)
      assert.equal(shown(zone, at - 1), written(zone, at - 1))
      assert.equal(shown(zone, at), written(zone, at))
      last = after
    }
    assert.equal(last, offsetMs(zone, TO), zone)
    // An odd step, so that all hours and dates take their turn.
    for (let at = FROM; at < TO; at += 29.77 * DAY_MS) {
      assert.equal(offsetMs(zone, at), otherOffset(zone, at), `${zone} ${iso(at)}`)
    }
  }
  assert.ok(changes > 5_000, `${changes} changes`)
})

test('every zone, around every change: a local time has the instant that trying every offset finds', () => {
  const seen = new Set<string>()
  for (const zone of ZONES) {
    for (const { at, before, after } of clockChanges(zone, FROM, TO)) {
      // The zones of one country change alike.
      const key = `${at} ${before} ${after}`
      if (seen.has(key)) continue
      seen.add(key)
      const low = at + Math.min(before, after)
      const high = at + Math.max(before, after)
      for (const wall of [
        low - MINUTE_MS,
        low,
        low + MINUTE_MS,
        (low + high) / 2,
        high - MINUTE_MS,
        high,
        low + DAY_MS,
      ]) {
        const instant = instantOfWall(zone, wall)
        assert.equal(instant, otherInstant(zone, wall), `${zone} ${iso(wall)}`)
        if (after > before && wall >= low && wall < high) assert.equal(instant, at)
        else assert.equal(wallMs(zone, instant), wall)
      }
    }
  }
})

test('a wall clock read and looked up again is the same instant, or the first of two', () => {
  for (const zone of ZONES) {
    for (let at = FROM; at < TO; at += 97.31 * DAY_MS) {
      const second = Math.floor(at / 1000) * 1000
      const again = instantOf(zone, wallClock(zone, second))
      assert.ok(again <= second)
      assert.deepEqual(wallClock(zone, again), wallClock(zone, second))
      if (again < second) {
        const changed = clockChanges(zone, again, second)
        assert.ok(
          changed.some(({ before, after }) => after < before),
          `${zone} ${iso(second)}`,
        )
      }
    }
  }
})

// Half an hour, a quarter of a day, a whole day; back over midnight; before the calendar day; twice a year more.
const ODD: [zone: string, at: string][] = [
  ['Australia/Lord_Howe', '2026-04-04T15:00:00Z'],
  ['Australia/Lord_Howe', '2026-10-03T15:30:00Z'],
  ['Pacific/Apia', '2011-12-30T10:00:00Z'],
  ['America/St_Johns', '2006-10-29T02:31:00Z'],
  ['America/St_Johns', '2006-04-02T03:31:00Z'],
  ['America/Nuuk', '2024-03-31T01:00:00Z'],
  ['America/Havana', '2026-11-01T05:00:00Z'],
  ['Africa/Casablanca', '2026-02-15T02:00:00Z'],
  ['Africa/Casablanca', '2026-03-22T02:00:00Z'],
  ['Africa/El_Aaiun', '2026-02-15T02:00:00Z'],
  ['Antarctica/Casey', '2020-10-03T16:01:00Z'],
  ['Antarctica/Troll', '2026-03-29T01:00:00Z'],
  ['Africa/Cairo', '2026-04-23T22:00:00Z'],
  ['Asia/Beirut', '2026-03-28T22:00:00Z'],
  ['Europe/Berlin', '2026-10-25T01:00:00Z'],
]

test('a local time has come when the clock has shown it or jumped over it, counted minute by minute', () => {
  for (const [zone, change] of ODD) {
    const at = ms(change)
    assert.equal(clockChanges(zone, at, at).length, 1, `${zone} changes at ${change}`)
    let furthest = Number.NEGATIVE_INFINITY
    for (let minute = at - 30 * HOUR_MS; minute < at + 30 * HOUR_MS; minute += MINUTE_MS) {
      // Of the clock as Intl writes it.
      const wall = Date.parse(`${written(zone, minute).replace(' ', 'T')}Z`)
      if (furthest > 0) {
        assert.equal(reachedWall(zone, minute), furthest, `${zone} ${iso(minute)}`)
        for (let each = furthest; each <= wall; each += MINUTE_MS) {
          assert.equal(instantOfWall(zone, each), minute)
        }
      }
      // Just before the next minute the clock will show this minute's end.
      furthest = Math.max(furthest, wall + MINUTE_MS)
    }
  }
})

test('the policy at the changes people know', () => {
  const at = (zone: string, year: number, month: number, day: number, hour: number, minute: number) =>
    iso(instantOf(zone, { year, month, day, hour, minute }))
  // Skipped: the first instant after the gap.
  assert.equal(at('Europe/Berlin', 2026, 3, 29, 2, 30), '2026-03-29T01:00:00.000Z')
  assert.equal(at('America/New_York', 2026, 3, 8, 2, 0), '2026-03-08T07:00:00.000Z')
  assert.equal(at('Australia/Lord_Howe', 2026, 10, 4, 2, 15), '2026-10-03T15:30:00.000Z')
  assert.equal(at('Pacific/Apia', 2011, 12, 30, 12, 0), '2011-12-30T10:00:00.000Z')
  // Twice: the first.
  assert.equal(at('Europe/Berlin', 2026, 10, 25, 2, 30), '2026-10-25T00:30:00.000Z')
  assert.equal(at('America/St_Johns', 2006, 10, 28, 23, 30), '2006-10-29T02:00:00.000Z')
  assert.equal(at('Australia/Lord_Howe', 2026, 4, 5, 1, 45), '2026-04-04T14:45:00.000Z')
  // Fields carry over.
  assert.equal(at('UTC', 2026, 12, 31, 24, 0), '2027-01-01T00:00:00.000Z')
  assert.equal(at('UTC', 2026, 13, 0, 0, 0), '2026-12-31T00:00:00.000Z')
})

test('before 1970 and after 2100 the tables end, and the answers do not', () => {
  assert.equal(shown('Europe/Berlin', ms('1890-01-01T00:00:00Z')), '1890-01-01 00:53:28')
  assert.equal(
    shown('Europe/Berlin', ms('2500-07-01T00:00:00Z')),
    written('Europe/Berlin', ms('2500-07-01T00:00:00Z')),
  )
  // Gone through at the turn of 1916-04-30, when Germany first changed its clocks.
  assert.equal(
    iso(instantOf('Europe/Berlin', { year: 1916, month: 4, day: 30, hour: 23, minute: 30 })),
    '1916-04-30T22:00:00.000Z',
  )
  assert.equal(
    iso(instantOf('UTC', { year: 33, month: 4, day: 3, hour: 0, minute: 0 })),
    '0033-04-03T00:00:00.000Z',
  )
  const boundary = ms('2101-01-01T00:00:00Z')
  for (let at = boundary - 70 * DAY_MS; at < boundary + 70 * DAY_MS; at += 5 * HOUR_MS) {
    assert.equal(shown('America/New_York', at), written('America/New_York', at))
  }
  assert.equal(offsetMinutes('Africa/Monrovia', 0), -44.5)
})

test('an offset is steady exactly where nothing changes', () => {
  for (const [zone, change] of ODD) {
    const at = ms(change)
    assert.equal(steadyOffset(zone, at - HOUR_MS, at), undefined)
    assert.equal(steadyOffset(zone, at - HOUR_MS, at - 1), offsetMs(zone, at - 1))
    assert.equal(steadyOffset(zone, at, at + HOUR_MS), offsetMs(zone, at))
    assert.equal(steadyOffset(zone, at - 100 * DAY_MS, at + 100 * DAY_MS), undefined)
  }
  assert.equal(
    steadyOffset('Asia/Kolkata', ms('2000-01-01T00:00:00Z'), ms('2030-01-01T00:00:00Z')),
    5.5 * HOUR_MS,
  )
})

test('zones have names; offsets and invented places are none', () => {
  for (const name of ['UTC', 'Europe/Zurich', 'europe/zurich', 'Asia/Calcutta', 'Etc/GMT+2'])
    assert.ok(isZone(name), name)
  for (const name of ['', '+02:00', '-05', 'Mars/Olympus', 'Europe/Zurich ', 'GMT+2', 'x'.repeat(500)]) {
    assert.ok(!isZone(name), name)
  }
  assert.equal(checkZone('Europe/Zurich', '/timezone'), 'Europe/Zurich')
  for (const wrong of ['Mars/Olympus', 7, null, undefined, {}]) {
    assert.throws(
      () => checkZone(wrong, '/quiet/timezone'),
      (error: AppError) => error.code === 'invalid_schedule' && error.errors![0]!.field === '/quiet/timezone',
    )
  }
  assert.throws(() => offsetMs('Mars/Olympus', 0), RangeError)
})

test('more spellings than are remembered change nothing', () => {
  const expected = offsetMs('Europe/Zurich', 0)
  for (let i = 0; i < 5_000; i++) {
    assert.ok(!isZone(`Nowhere/${i}`))
  }
  assert.equal(offsetMs('Europe/Zurich', 0), expected)
})
