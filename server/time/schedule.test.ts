import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { hhmm, otherInstant, otherOffset, ZONES } from '../test/second-clock.ts'
import {
  checkSchedule,
  nextTime,
  nextTimes,
  scheduleOf,
  type Schedule,
  type ScheduleSettings,
} from './schedule.ts'
import { clockChanges, DAY_MS, HOUR_MS, MINUTE_MS } from './zone.ts'

const at = (iso: string) => new Date(iso)
const of = (settings: ScheduleSettings, timezone = 'Europe/Berlin'): Schedule =>
  scheduleOf(settings, timezone, 0)
/** `03-29T01:00`, in UTC. */
const times = (settings: ScheduleSettings, from: string, count: number, zone?: string) =>
  nextTimes(of(settings, zone), at(from), count).map(time => time.toISOString().slice(5, 16))

// covers: DIC-061
test('times are of the wall clock of their zone', () => {
  assert.deepEqual(times({ daily: '09:00' }, '2026-03-27T09:00:00Z', 3), [
    '03-28T08:00',
    '03-29T07:00',
    '03-30T07:00',
  ])
  assert.deepEqual(times({ cron: '0 9 * * *' }, '2026-03-07T15:00:00Z', 2, 'America/New_York'), [
    '03-08T13:00',
    '03-09T13:00',
  ])
  assert.deepEqual(times({ weekly: { weekday: 1, time: '08:30' } }, '2026-11-21T12:00:00Z', 2, 'UTC'), [
    '11-23T08:30',
    '11-30T08:30',
  ])
  assert.deepEqual(times({ weekly: { weekday: 6, time: '12:00' } }, '2026-11-21T12:00:00Z', 2, 'UTC'), [
    '11-21T12:00',
    '11-28T12:00',
  ])
  assert.deepEqual(times({ monthly: { day: 15, time: '00:00' } }, '2026-12-15T00:00:01Z', 2, 'UTC'), [
    '01-15T00:00',
    '02-15T00:00',
  ])
})

test('the time asked about counts, the millisecond after it does not', () => {
  const daily = of({ daily: '09:00' }, 'UTC')
  for (const schedule of [daily, of({ cron: '0 9 * * *' }, 'UTC')]) {
    assert.equal(nextTime(schedule, at('2026-11-21T09:00:00Z'))!.toISOString(), '2026-11-21T09:00:00.000Z')
    assert.equal(
      nextTime(schedule, at('2026-11-21T09:00:00.001Z'))!.toISOString(),
      '2026-11-22T09:00:00.000Z',
    )
  }
})

test('a month that is too short has its last day', () => {
  assert.deepEqual(times({ monthly: { day: 31, time: '18:00' } }, '2027-01-31T18:00:00Z', 4, 'UTC'), [
    '01-31T18:00',
    '02-28T18:00',
    '03-31T18:00',
    '04-30T18:00',
  ])
  assert.deepEqual(times({ monthly: { day: 30, time: '18:00' } }, '2028-02-01T00:00:00Z', 1, 'UTC'), [
    '02-29T18:00',
  ])
})

test('a time that is skipped moves to the end of the gap; one that comes twice counts once', () => {
  for (const half of [{ daily: '02:30' }, { cron: '30 2 * * *' }]) {
    assert.deepEqual(times(half, '2026-03-28T12:00:00Z', 2), ['03-29T01:00', '03-30T00:30'])
    assert.deepEqual(times(half, '2026-10-24T12:00:00Z', 2), ['10-25T00:30', '10-26T01:30'])
    // Asked in the middle of the repeated hour.
    assert.deepEqual(times(half, '2026-10-25T01:10:00Z', 1), ['10-26T01:30'])
  }
  assert.deepEqual(times({ cron: '0 */2 * * *' }, '2026-10-24T22:00:00Z', 3), [
    '10-24T22:00',
    '10-25T00:00',
    '10-25T03:00',
  ])
  assert.deepEqual(times({ daily: '02:15' }, '2026-10-03T00:00:00Z', 2, 'Australia/Lord_Howe'), [
    '10-03T15:30',
    '10-04T15:15',
  ])
  assert.deepEqual(times({ daily: '01:45' }, '2026-04-04T00:00:00Z', 2, 'Australia/Lord_Howe'), [
    '04-04T14:45',
    '04-05T15:15',
  ])
})

test('several times in one gap come once', () => {
  assert.deepEqual(times({ cron: '0,20,40 1-3 * * *' }, '2026-03-29T00:30:00Z', 4), [
    '03-29T00:40',
    '03-29T01:00',
    '03-29T01:20',
    '03-29T01:40',
  ])
})

test('a pattern for every hour goes by the minutes the clock shows, through gaps and repeated hours', () => {
  for (const cron of ['*/30 * * * *', '*/30 ? * * *', '*/30 */1 * * *', '*/30 0-23 * * *']) {
    assert.deepEqual(times({ cron }, '2026-10-24T23:45:00Z', 4), [
      '10-25T00:00',
      '10-25T00:30',
      '10-25T01:00',
      '10-25T01:30',
    ])
    assert.deepEqual(times({ cron }, '2026-03-29T00:15:00Z', 3), [
      '03-29T00:30',
      '03-29T01:00',
      '03-29T01:30',
    ])
  }
  assert.deepEqual(times({ cron: '30 * * * *' }, '2026-03-29T00:00:00Z', 3), [
    '03-29T00:30',
    '03-29T01:30',
    '03-29T02:30',
  ])
  // Lord Howe shows 01:30 to 02:00 twice, and jumps from 02:00 to 02:30.
  assert.deepEqual(times({ cron: '45 * * * *' }, '2026-04-04T14:00:00Z', 3, 'Australia/Lord_Howe'), [
    '04-04T14:45',
    '04-04T15:15',
    '04-04T16:15',
  ])
  assert.deepEqual(times({ cron: '0 * * * *' }, '2026-10-03T14:00:00Z', 3, 'Australia/Lord_Howe'), [
    '10-03T14:30',
    '10-03T16:00',
    '10-03T17:00',
  ])
})

test('a date that a zone leaves out has no times', () => {
  for (const noon of [{ daily: '12:00' }, { cron: '0 12 * * *' }]) {
    // 30 December 2011 is missing in Samoa.
    assert.deepEqual(times(noon, '2011-12-29T00:00:00Z', 3, 'Pacific/Apia'), [
      '12-29T22:00',
      '12-30T22:00',
      '12-31T22:00',
    ])
  }
  assert.deepEqual(
    times({ weekly: { weekday: 5, time: '12:00' } }, '2011-12-29T00:00:00Z', 1, 'Pacific/Apia'),
    ['01-05T22:00'],
  )
})

test('in Ramadan Morocco goes back and comes forward again, with one time a day', () => {
  for (const zone of ['Africa/Casablanca', 'Africa/El_Aaiun']) {
    assert.deepEqual(times({ daily: '02:30' }, '2026-02-14T00:00:00Z', 3, zone), [
      '02-14T01:30',
      '02-15T01:30',
      '02-16T02:30',
    ])
    assert.deepEqual(times({ daily: '02:30' }, '2026-03-21T00:00:00Z', 3, zone), [
      '03-21T02:30',
      '03-22T02:00',
      '03-23T01:30',
    ])
  }
})

test('a gap before midnight moves the last time of the day to the first instant of the next', () => {
  assert.deepEqual(times({ daily: '23:30' }, '2024-03-30T12:00:00Z', 3, 'America/Nuuk'), [
    '03-31T01:00',
    '04-01T00:30',
    '04-02T00:30',
  ])
})

/** The dates of a calendar around an instant which the zone really has, and the instant of a local time on each. */
function expected(zone: string, around: number, days: number, minute: number, weekday?: number): number[] {
  const today = Math.floor((around + otherOffset(zone, around)) / DAY_MS)
  const found: number[] = []
  for (let day = today - days; day <= today + days; day++) {
    if (weekday !== undefined && (new Date(day * DAY_MS).getUTCDay() || 7) !== weekday) continue
    if (otherInstant(zone, day * DAY_MS) === otherInstant(zone, (day + 1) * DAY_MS)) continue
    found.push(otherInstant(zone, day * DAY_MS + minute * MINUTE_MS))
  }
  return found
}

const dailyCases = fc.record({
  minute: fc.oneof(fc.nat(1439), fc.constantFrom(0, 30, 60, 90, 105, 120, 150, 180, 1410)),
  minutes: fc.integer({ min: -30 * 60, max: 30 * 60 }),
  weekday: fc.option(fc.integer({ min: 1, max: 7 }), { nil: undefined }),
})

test('every zone, around every change: one time a date, none twice, none missed', () => {
  const changes = new Map<string, { zone: string; at: number }>()
  for (const zone of ZONES) {
    for (const { at: change, before, after } of clockChanges(zone, Date.UTC(2015), Date.UTC(2038))) {
      changes.set(`${change} ${before} ${after}`, { zone, at: change })
    }
  }
  for (const change of ['2011-12-30T10:00:00Z', '2006-10-29T02:31:00Z']) {
    const zone = change < '2011' ? 'America/St_Johns' : 'Pacific/Apia'
    for (let i = 0; i < 20; i++) changes.set(`${change} ${i}`, { zone, at: Date.parse(change) })
  }
  const given = fc.sample(dailyCases, { numRuns: changes.size, seed: 20_261_121 })
  for (const [i, { zone, at: change }] of [...changes.values()].entries()) {
    const { minute, minutes, weekday } = given[i]!
    const from = change + minutes * MINUTE_MS
    const where = `${zone} ${new Date(from).toISOString()} ${JSON.stringify(given[i])}`
    const wanted = expected(zone, from, weekday === undefined ? 3 : 10, minute, weekday)
      .filter(each => each >= from)
      .slice(0, weekday === undefined ? 3 : 1)
    const [hour, past] = [Math.floor(minute / 60), minute % 60]
    const forms: ScheduleSettings[] =
      weekday === undefined
        ? [{ daily: hhmm(minute) }, { cron: `${past} ${hour} * * *` }]
        : [{ weekly: { weekday, time: hhmm(minute) } }, { cron: `${past} ${hour} * * ${weekday}` }]
    for (const form of forms) {
      const found = nextTimes(of(form, zone), new Date(from), wanted.length).map(Number)
      assert.deepEqual(found, wanted, `${where} ${JSON.stringify(form)}`)
      assert.equal(new Set(found).size, found.length, where)
    }
  }
  assert.ok(changes.size > 500)
})

test('patterns for every hour, against a look at the clock every minute', () => {
  const odd = [
    ['Europe/Berlin', '2026-10-25T01:00:00Z'],
    ['America/New_York', '2026-03-08T07:00:00Z'],
    ['Australia/Lord_Howe', '2026-04-04T15:00:00Z'],
    ['Australia/Lord_Howe', '2026-10-03T15:30:00Z'],
    ['America/St_Johns', '2006-10-29T02:31:00Z'],
    ['Asia/Kathmandu', '2026-10-25T01:00:00Z'],
    ['Pacific/Apia', '2011-12-30T10:00:00Z'],
  ] as const
  fc.assert(
    fc.property(
      fc.constantFrom(...odd),
      fc.uniqueArray(fc.nat(59), { minLength: 1, maxLength: 4 }),
      fc.integer({ min: -5 * 60, max: 60 }),
      ([zone, change], list, minutes) => {
        const from = Date.parse(change) + minutes * MINUTE_MS
        const wanted: number[] = []
        for (let ms = from; ms < from + 8 * HOUR_MS; ms += MINUTE_MS) {
          if (list.includes(new Date(ms + otherOffset(zone, ms)).getUTCMinutes())) wanted.push(ms)
        }
        const found = nextTimes(
          of({ cron: `${list.join(',')} * * * *` }, zone),
          new Date(from),
          wanted.length,
        )
        assert.deepEqual(found.map(Number), wanted)
      },
    ),
    { numRuns: 60 },
  )
})

test('what could not have been stored never comes, and throws nothing', () => {
  for (const broken of [{ cron: 'every day' }, { daily: 'noon' }, { weekly: { weekday: 1, time: '' } }, {}]) {
    assert.equal(nextTime({ ...broken, timezone: 'UTC', anchorMs: 0 }, at('2026-11-21T09:00:00Z')), null)
  }
})

/** One field of a pattern: as written, and the numbers it names. */
const field = (min: number, max: number): fc.Arbitrary<{ text: string; is: (value: number) => boolean }> =>
  fc.oneof(
    { weight: 2, arbitrary: fc.constant({ text: '*', is: () => true }) },
    fc.uniqueArray(fc.integer({ min, max }), { minLength: 1, maxLength: 4 }).map(list => ({
      text: list.join(','),
      is: (value: number) => list.includes(value),
    })),
    fc.tuple(fc.integer({ min, max }), fc.integer({ min, max })).map(ends => {
      const [from, to] = ends.sort((a, b) => a - b)
      return { text: `${from}-${to}`, is: (value: number) => value >= from && value <= to }
    }),
    fc.integer({ min: 2, max: 6 }).map(step => ({
      text: `*/${step}`,
      is: (value: number) => (value - min) % step === 0,
    })),
  )

test('a pattern comes at the first minute that its fields name', () => {
  const day = field(1, 28)
  const weekday = field(0, 6)
  fc.assert(
    fc.property(
      field(0, 59),
      field(0, 23),
      day,
      weekday,
      fc.integer({ min: Date.UTC(2015) / MINUTE_MS, max: Date.UTC(2037) / MINUTE_MS }),
      (minute, hour, date, of7, start) => {
        const schedule = of({ cron: `${minute.text} ${hour.text} ${date.text} * ${of7.text}` }, 'UTC')
        const next = nextTime(schedule, new Date(start * MINUTE_MS))!.getTime()
        // Where both name days, either will do: POSIX, crontab.
        const either = date.text !== '*' && of7.text !== '*'
        const named = (at: Date) => {
          const [onDate, onWeekday] = [date.is(at.getUTCDate()), of7.is(at.getUTCDay())]
          return (
            minute.is(at.getUTCMinutes()) &&
            hour.is(at.getUTCHours()) &&
            (either ? onDate || onWeekday : onDate && onWeekday)
          )
        }
        assert.ok(named(new Date(next)))
        for (let ms = Math.max(start * MINUTE_MS, next - 3 * DAY_MS); ms < next; ms += MINUTE_MS) {
          assert.ok(!named(new Date(ms)), new Date(ms).toISOString())
        }
      },
    ),
    { numRuns: 300 },
  )
})

test('whenever it is asked about, the next time is the same, and never one that has passed', () => {
  const anySchedule: fc.Arbitrary<ScheduleSettings> = fc.oneof(
    fc
      .constantFrom('0 9 * * 1-5', '*/7 * * * *', '15 2,3 * * *', '0 0 L * *', '30 1 29 2 *', '0 */3 1 * *')
      .map(cron => ({ cron })),
    fc.nat(1439).map(minute => ({ daily: hhmm(minute) })),
    fc
      .record({ day: fc.integer({ min: 1, max: 31 }), time: fc.nat(1439).map(hhmm) })
      .map(monthly => ({ monthly })),
    fc.integer({ min: 1, max: 1e6 }).map(seconds => ({ interval_seconds: seconds })),
  )
  fc.assert(
    fc.property(
      anySchedule,
      fc.constantFrom(
        'Europe/Berlin',
        'America/Nuuk',
        'Australia/Lord_Howe',
        'Africa/Casablanca',
        'Asia/Kolkata',
      ),
      fc.integer({ min: Date.UTC(2015), max: Date.UTC(2037) }),
      fc.double({ min: 0, max: 1, noNaN: true }),
      (settings, zone, ms, part) => {
        const schedule = of(settings, zone)
        const next = nextTime(schedule, new Date(ms))!.getTime()
        assert.ok(next >= ms)
        const between = ms + Math.floor((next - ms) * part)
        assert.equal(nextTime(schedule, new Date(between))!.getTime(), next)
        assert.equal(nextTime(schedule, new Date(next))!.getTime(), next)
      },
    ),
    { numRuns: 500 },
  )
})

// covers: DIC-064
test('intervals do not drift, whenever they are asked about', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 1e6 }),
      fc.integer({ min: 0, max: 1e12 }),
      (intervalSeconds, ms) => {
        const next = nextTime({ intervalSeconds, timezone: 'UTC', anchorMs: 5 }, new Date(ms))!.getTime()
        assert.equal((next - 5) % (intervalSeconds * 1000), 0)
        assert.ok(next >= ms && (next - ms < intervalSeconds * 1000 || ms < 5))
      },
    ),
  )
})

test('a schedule that cannot be kept is refused with field and reason', () => {
  const refusal = (settings: unknown, zone: unknown = 'UTC') => {
    try {
      checkSchedule(settings, zone)
      return 'fine'
    } catch (error) {
      assert.ok(error instanceof AppError && error.code === 'invalid_schedule', String(error))
      return error.errors![0]!.field
    }
  }
  const good: ScheduleSettings[] = [
    { cron: '0 9 * * 1-5' },
    { cron: '*/15 8-18 * JAN-MAR MON' },
    { interval_seconds: 60 },
    { daily: '06:00' },
    { weekly: { weekday: 7, time: '23:59' } },
    { monthly: { day: 31, time: '00:00' } },
  ]
  for (const settings of good) assert.deepEqual(checkSchedule(settings, 'Europe/Berlin'), settings)
  assert.equal(refusal({ daily: '06:00' }, 'Mars/Olympus'), '/timezone')
  assert.equal(refusal({ daily: '06:00' }, '+02:00'), '/timezone')
  const patterns = [
    '99 9 * * *',
    '0 0 30 2 *',
    '0 0 31 4,6,9,11 *',
    '@daily',
    '* * * * * *',
    '* * * *',
    '*/0 * * * *',
    '',
    5,
  ]
  for (const cron of patterns) assert.equal(refusal({ cron }), '/schedule/cron', String(cron))
  assert.equal(refusal({ cron: `${'1,'.repeat(60)}1 * * * *` }), '/schedule/cron')
  for (const seconds of [0, -1, 1.5, '60', 366 * 86_400 + 1]) {
    assert.equal(refusal({ interval_seconds: seconds }), '/schedule/interval_seconds')
  }
  for (const daily of ['24:00', '6:00', '0600', 6]) assert.equal(refusal({ daily }), '/schedule/daily')
  assert.equal(refusal({ weekly: { weekday: 0, time: '06:00' } }), '/schedule/weekly/weekday')
  assert.equal(refusal({ weekly: { weekday: 1 } }), '/schedule/weekly/time')
  assert.equal(refusal({ weekly: '06:00' }), '/schedule/weekly')
  assert.equal(refusal({ monthly: { day: 32, time: '06:00' } }), '/schedule/monthly/day')
  assert.equal(refusal({ monthly: { day: 1, time: '06:00', month: 2 } }), '/schedule/monthly/month')
  assert.equal(refusal({ interval_seconds: 60, cron: '* * * * *' }), '/schedule')
  assert.equal(refusal({}), '/schedule')
  assert.equal(refusal(null), '/schedule')
  assert.equal(refusal({ hourly: true }), '/schedule/hourly')
  try {
    checkSchedule({ cron: '0 0 30 2 *' }, 'UTC', '/digest/schedule')
    assert.fail('it was taken')
  } catch (error) {
    assert.equal((error as AppError).errors![0]!.field, '/digest/schedule/cron')
    assert.match((error as Error).message, /never comes/)
  }
})
