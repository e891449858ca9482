import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { hhmm, otherOffset, otherWindows, ZONES } from '../test/second-clock.ts'
import { checkQuietHours, quietUntil, type QuietHours } from './quiet-hours.ts'
import { clockChanges, HOUR_MS, MINUTE_MS } from './zone.ts'

const at = (iso: string) => new Date(iso)
const until = (now: string, quiet: Partial<QuietHours>, zone = 'Europe/Berlin') =>
  quietUntil(at(now), { enabled: true, start: '22:00', end: '07:00', ...quiet }, zone)?.toISOString() ?? null

// covers: AUR-089, DIC-083, PFM-135, PFM-138
test('quiet hours are of the wall clock and go over midnight', () => {
  assert.equal(until('2026-11-21T20:59:59Z', {}), null)
  assert.equal(until('2026-11-21T21:00:00Z', {}), '2026-11-22T06:00:00.000Z')
  assert.equal(until('2026-11-22T05:59:59.999Z', {}), '2026-11-22T06:00:00.000Z')
  assert.equal(until('2026-11-22T06:00:00Z', {}), null)
  assert.equal(until('2026-11-21T23:30:00Z', { end: '08:00' }, 'America/New_York'), null)
  assert.equal(
    until('2026-11-22T03:30:00Z', { end: '08:00' }, 'America/New_York'),
    '2026-11-22T13:00:00.000Z',
  )
  assert.equal(
    until('2026-11-22T12:00:00Z', { start: '12:00', end: '14:00' }, 'UTC'),
    '2026-11-22T14:00:00.000Z',
  )
  // Their own zone wins over the person's.
  assert.equal(until('2026-11-21T21:00:00Z', { timezone: 'UTC' }), null)
  // A zone that this version of Node does not know stops nobody else's message.
  assert.equal(until('2026-11-21T22:00:00Z', {}, 'Mars/Olympus'), '2026-11-22T07:00:00.000Z')
})

test('switched off, or of no length, they never hold', () => {
  assert.equal(until('2026-11-21T23:00:00Z', { enabled: false }), null)
  assert.equal(until('2026-11-21T23:00:00Z', { start: '00:00', end: '00:00' }), null)
})

// covers: ALP-125, ALP-128
test('days of the week are those on which they start', () => {
  const friday = { weekdays: [5] }
  assert.equal(until('2026-11-20T22:00:00Z', friday), '2026-11-21T06:00:00.000Z')
  // Saturday morning is still Friday's night; Saturday evening is not.
  assert.equal(until('2026-11-21T05:00:00Z', friday), '2026-11-21T06:00:00.000Z')
  assert.equal(until('2026-11-21T22:00:00Z', friday), null)
  assert.equal(until('2026-11-20T05:00:00Z', friday), null)
  assert.equal(until('2026-11-20T22:00:00Z', { weekdays: [] }), null)
})

test('windows that touch are one', () => {
  const weekend = { start: '00:00', end: '24:00', weekdays: [6, 7] }
  assert.equal(until('2026-11-21T10:00:00Z', weekend), '2026-11-22T23:00:00.000Z')
  assert.equal(until('2026-11-20T22:59:59Z', weekend), null)
  // Ends at 02:30 and begins at 03:00; the clock jumps from two to three.
  const night = { start: '03:00', end: '02:30' }
  assert.equal(until('2026-03-28T12:00:00Z', night), '2026-03-30T00:30:00.000Z')
})

test('where clocks change they begin and end at the first instant of their local time', () => {
  // 02:30 comes twice.
  assert.equal(until('2026-10-24T22:00:00Z', { end: '02:30' }), '2026-10-25T00:30:00.000Z')
  assert.equal(until('2026-10-25T00:45:00Z', { end: '02:30' }), null)
  assert.equal(until('2026-10-25T01:15:00Z', { end: '02:30' }), null)
  // 02:30 does not come.
  assert.equal(until('2026-03-28T23:00:00Z', { end: '02:30' }), '2026-03-29T01:00:00.000Z')
  // A window inside the gap is no window.
  assert.equal(until('2026-03-29T01:00:00Z', { start: '02:15', end: '02:45' }), null)
  // The night of 29 December 2011 in Samoa ended on the 31st.
  assert.equal(until('2011-12-30T09:00:00Z', {}, 'Pacific/Apia'), '2011-12-30T17:00:00.000Z')
  // A night after the clock went back over midnight belongs to the day that had begun.
  assert.equal(
    until('2006-10-29T02:45:00Z', { start: '00:00', end: '06:00', weekdays: [7] }, 'America/St_Johns'),
    '2006-10-29T09:30:00.000Z',
  )
})

interface Case {
  start: number
  end: number
  weekdays: number[] | undefined
  minutes: number
}
const cases: fc.Arbitrary<Case> = fc.record({
  start: fc.oneof(fc.nat(1439), fc.constantFrom(0, 60, 90, 120, 150, 180, 1320, 1410)),
  end: fc.oneof(fc.nat(1439), fc.constantFrom(0, 60, 90, 120, 150, 180, 420, 1410)),
  weekdays: fc.option(fc.uniqueArray(fc.integer({ min: 1, max: 7 }), { minLength: 1 }), { nil: undefined }),
  minutes: fc.integer({ min: -30 * 60, max: 30 * 60 }),
})

/** Holds one case against windows that another implementation worked out. */
function check(zone: string, change: number, { start, end, weekdays, minutes }: Case): void {
  const now = change + minutes * MINUTE_MS
  const quiet: QuietHours = { enabled: true, start: hhmm(start), end: hhmm(end), weekdays }
  const where = `${zone} ${new Date(now).toISOString()} ${JSON.stringify(quiet)}`
  const windows =
    start === end ? [] : otherWindows(zone, now, { before: 2, after: 3 }, { start, end, weekdays })
  const isQuiet = (ms: number) => windows.some(each => each.start <= ms && ms < each.end)
  const answer = quietUntil(new Date(now), quiet, zone)?.getTime()
  assert.equal(answer !== undefined, isQuiet(now), where)
  if (answer === undefined) return
  assert.ok(answer > now, where)
  assert.ok(!isQuiet(answer), `${where}: quiet at the answer`)
  assert.equal(quietUntil(new Date(answer), quiet, zone), null, where)
  for (let each = now; each < answer; each += 11 * MINUTE_MS) assert.ok(isQuiet(each), where)
  assert.ok(isQuiet(answer - 1), where)
}

test('every zone, around every change: held exactly as long as it is quiet', () => {
  const changes = new Map<string, { zone: string; at: number }>()
  for (const zone of ZONES) {
    for (const { at, before, after } of clockChanges(zone, Date.UTC(2015), Date.UTC(2038))) {
      changes.set(`${at} ${before} ${after}`, { zone, at })
    }
  }
  const given = fc.sample(cases, { numRuns: changes.size, seed: 20_261_121 })
  for (const [i, { zone, at }] of [...changes.values()].entries()) check(zone, at, given[i]!)
  assert.ok(changes.size > 500)
})

test('at changed clocks that the sample may miss', () => {
  const odd = [
    ['Pacific/Apia', at('2011-12-30T10:00:00Z')],
    ['America/St_Johns', at('2006-10-29T02:31:00Z')],
    ['America/Nuuk', at('2024-03-31T01:00:00Z')],
    ['Australia/Lord_Howe', at('2026-04-04T15:00:00Z')],
    ['Australia/Lord_Howe', at('2026-10-03T15:30:00Z')],
    ['Africa/Casablanca', at('2026-03-22T02:00:00Z')],
    ['Antarctica/Casey', at('2020-10-03T16:01:00Z')],
  ] as const
  fc.assert(
    fc.property(fc.constantFrom(...odd), cases, ([zone, change], each) =>
      check(zone, change.getTime(), each),
    ),
    { numRuns: 400 },
  )
})

test('away from changes it is what the clock shows, compared as text', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...ZONES),
      fc.integer({ min: Date.UTC(2015), max: Date.UTC(2038) }),
      cases,
      (zone, ms, { start, end }) => {
        fc.pre(clockChanges(zone, ms - 50 * HOUR_MS, ms + 50 * HOUR_MS).length === 0)
        const shown = new Date(ms + otherOffset(zone, ms)).toISOString().slice(11, 16)
        const [from, to] = [hhmm(start), hhmm(end)]
        const quiet = from <= to ? from <= shown && shown < to : from <= shown || shown < to
        const answer = quietUntil(new Date(ms), { enabled: true, start: from, end: to }, zone)
        assert.equal(answer !== null, quiet)
        if (answer) {
          assert.equal(
            new Date(answer.getTime() + otherOffset(zone, ms)).toISOString().slice(11, 23),
            `${to}:00.000`,
          )
        }
      },
    ),
    { numRuns: 500 },
  )
})

test('quiet hours that cannot be kept are refused with their field', () => {
  const good = { enabled: true, start: '22:00', end: '07:00' }
  const field = (more: object) => {
    try {
      checkQuietHours({ ...good, ...more }, '/quietHours')
      return 'fine'
    } catch (error) {
      assert.ok(error instanceof AppError && error.code === 'invalid_schedule', String(error))
      return error.errors![0]!.field
    }
  }
  assert.deepEqual(checkQuietHours(good, ''), good)
  assert.deepEqual(
    checkQuietHours(
      {
        start: '00:00',
        end: '24:00',
        timezone: 'Asia/Tokyo',
        weekdays: [7, 6, 7],
        allowCritical: false,
        exceptions: ['auth.*', 'auth.*', 'trade_executed'],
      },
      '',
    ),
    {
      enabled: true,
      start: '00:00',
      end: '24:00',
      timezone: 'Asia/Tokyo',
      weekdays: [6, 7],
      allowCritical: false,
      exceptions: ['auth.*', 'trade_executed'],
    },
  )
  assert.equal(field({ start: '24:00' }), '/quietHours/start')
  for (const wrong of [
    '7:00',
    '07:60',
    '25:00',
    '24:01',
    '07-00',
    '07:00:00',
    '',
    7,
    null,
    ' 7:00',
    '+1:00',
  ]) {
    assert.equal(field({ end: wrong }), '/quietHours/end', String(wrong))
  }
  assert.equal(field({ timezone: 'Mars/Olympus' }), '/quietHours/timezone')
  assert.equal(field({ timezone: '+02:00' }), '/quietHours/timezone')
  assert.equal(field({ weekdays: [] }), '/quietHours/weekdays')
  assert.equal(field({ weekdays: [1, 0] }), '/quietHours/weekdays/1')
  assert.equal(field({ weekdays: 'Mon' }), '/quietHours/weekdays')
  assert.equal(field({ exceptions: ['*'] }), '/quietHours/exceptions/0')
  assert.equal(
    field({ exceptions: Array.from({ length: 101 }, (_, i) => `e${i}`) }),
    '/quietHours/exceptions',
  )
  assert.equal(field({ allowCritical: 'yes' }), '/quietHours/allowCritical')
  assert.equal(field({ enabled: 1 }), '/quietHours/enabled')
  assert.equal(field({ strat: '22:00' }), '/quietHours/strat')
  assert.equal(field({ start: '00:00', end: '24:00' }), '/quietHours/end')
  assert.throws(() => checkQuietHours('22-7', '/quietHours'), AppError)
})
