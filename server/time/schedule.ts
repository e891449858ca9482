import { Cron } from 'croner'
import { checkObject, checkTimeOfDay, checkWeekday, minutesOf, refuse, weekdayOf } from './daily-window.ts'
import {
  checkZone,
  clockChanges,
  DAY_MS,
  instantOfWall,
  MINUTE_MS,
  offsetMs,
  reachedWall,
  utc,
  zoneOrUtc,
} from './zone.ts'

/** As people write it and as it is stored (DIC-064); times are of the wall clock. */
export type ScheduleSettings =
  /** Five fields: minute, hour, day of the month, month, day of the week. */
  | { cron: string }
  | { interval_seconds: number }
  /** HH:MM */
  | { daily: string }
  /** ISO 8601, 1 Monday to 7 Sunday. */
  | { weekly: { weekday: number; time: string } }
  /** 1 to 31; where a month is shorter, its last day. */
  | { monthly: { day: number; time: string } }

/** When something happens: one of the first five, in its zone. */
export interface Schedule {
  cron?: string
  intervalSeconds?: number
  daily?: string
  weekly?: { weekday: number; time: string }
  monthly?: { day: number; time: string }
  /** IANA; intervals do not look at it. */
  timezone: string
  /** Intervals are counted from here, in milliseconds since 1970. */
  anchorMs: number
}

/** The longest interval: a year. */
export const MAX_INTERVAL_SECONDS = 366 * 86_400
export const MAX_CRON_LENGTH = 100

/** Stored settings, ready for `nextTime`. `anchorMs`: where intervals are counted from. */
export function scheduleOf(settings: ScheduleSettings, timezone: string, anchorMs: number): Schedule {
  if (!('interval_seconds' in settings)) return { ...settings, timezone, anchorMs }
  return { intervalSeconds: settings.interval_seconds, timezone, anchorMs }
}

/**
 * The first time at or after `now`; null when a pattern has none any more.
 *
 * A local time that a change of clocks skips moves to the first instant after the gap, and one that occurs twice
 * counts once. A pattern for every hour names no hour that could be skipped or repeated: it goes by the minutes the
 * clock shows, so it neither pauses for the repeated hour nor comes early after the skipped one. A date that a zone
 * leaves out (Samoa, 30 December 2011) has no times.
 */
export function nextTime(schedule: Schedule, now: Date): Date | null {
  const ms = now.getTime()
  if (schedule.intervalSeconds !== undefined) {
    const step = schedule.intervalSeconds * 1000
    const passed = Math.ceil((ms - schedule.anchorMs) / step)
    return new Date(schedule.anchorMs + Math.max(0, passed) * step)
  }
  const zone = zoneOrUtc(schedule.timezone)
  const wallTimes = wallTimesOf(schedule)
  const at = wallTimes.everyHour ? nextShown(wallTimes, zone, ms) : nextReached(wallTimes, zone, ms)
  return at === null ? null : new Date(at)
}

/** The next `count` times at or after `from`; fewer when there are no more. */
export function nextTimes(schedule: Schedule, from: Date, count: number): Date[] {
  const times: Date[] = []
  let next = nextTime(schedule, from)
  while (next !== null && times.length < count) {
    times.push(next)
    next = nextTime(schedule, new Date(next.getTime() + 1))
  }
  return times
}

/** The times of a schedule on the wall, where every day has 24 hours; as `wallMs` counts them. */
interface WallTimes {
  /** The first at or after. */
  next(wall: number): number | null
  everyHour: boolean
}

function nextReached(times: WallTimes, zone: string, ms: number): number | null {
  let wall = times.next(reachedWall(zone, ms))
  while (wall !== null) {
    const at = instantOfWall(zone, wall)
    const tomorrow = (Math.floor(wall / DAY_MS) + 1) * DAY_MS
    // Is this the end of a gap that swallowed the whole date?
    if (at !== instantOfWall(zone, tomorrow) || at !== instantOfWall(zone, tomorrow - DAY_MS)) return at
    wall = times.next(tomorrow)
  }
  return null
}

function nextShown(times: WallTimes, zone: string, ms: number): number | null {
  let from = ms
  for (;;) {
    const offset = offsetMs(zone, from)
    const wall = times.next(from + offset)
    if (wall === null) return null
    const change = clockChanges(zone, from + 1, wall - offset)[0]
    if (change === undefined) return wall - offset
    from = change.at
  }
}

/** What was stored was checked; should another version have let more in, it never comes, and nobody else waits. */
const NEVER: WallTimes = { next: () => null, everyHour: false }

function wallTimesOf({ cron, daily, weekly, monthly }: Schedule): WallTimes {
  if (cron !== undefined) {
    try {
      return cronOf(cron)
    } catch {
      return NEVER
    }
  }
  const time = minutesOf(weekly?.time ?? monthly?.time ?? daily ?? '')
  if (time === undefined) return NEVER
  const ms = time * MINUTE_MS
  if (weekly) return { everyHour: false, next: wall => nextWeekly(wall, weekly.weekday, ms) }
  if (monthly) return { everyHour: false, next: wall => nextMonthly(wall, monthly.day, ms) }
  return { everyHour: false, next: wall => Math.ceil((wall - ms) / DAY_MS) * DAY_MS + ms }
}

function nextWeekly(wall: number, weekday: number, time: number): number {
  const day = Math.ceil((wall - time) / DAY_MS)
  return (day + ((weekday - weekdayOf(day) + 7) % 7)) * DAY_MS + time
}

function nextMonthly(wall: number, day: number, time: number): number {
  const date = new Date(wall)
  const inMonth = (month: number) => {
    const last = utc(date.getUTCFullYear(), month + 1, 0)
    return Math.min(last, utc(date.getUTCFullYear(), month, day)) + time
  }
  const month = date.getUTCMonth() + 1
  return inMonth(month) >= wall ? inMonth(month) : inMonth(month + 1)
}

/** Compiled patterns; a tenant's rules share few. */
const crons = new Map<string, WallTimes>()
const MAX_CRONS = 1_000
const EVERY_HOUR = /^\s*\S+\s+(?:[*?]|\*\/1|0-23)\s/

/** croner reads the pattern on a clock without changes; what clocks do is the business of zone.ts. Throws. */
function cronOf(pattern: string): WallTimes {
  const known = crons.get(pattern)
  if (known !== undefined) return known
  const cron = new Cron(pattern, { timezone: 'UTC', mode: '5-part', paused: true })
  // A pattern takes 30 us to work out, and everybody a rule tells is held to the same time: the last answer stays.
  let from = Number.NaN
  let next: number | null = null
  const times: WallTimes = {
    everyHour: EVERY_HOUR.test(pattern),
    next(wall) {
      if (wall >= from && (next === null || wall <= next)) return next
      // croner looks strictly after the given instant, at whole seconds.
      next = cron.nextRun(new Date(Math.ceil(wall / 1000) * 1000 - 1000))?.getTime() ?? null
      from = wall
      return next
    },
  }
  if (crons.size >= MAX_CRONS) crons.clear()
  crons.set(pattern, times)
  return times
}

const KINDS = ['cron', 'interval_seconds', 'daily', 'weekly', 'monthly'] as const

/**
 * Refuses a schedule that could not be kept: no such zone, a time or date that no calendar has.
 *
 * @param field JSON pointer to the settings; the zone's is its neighbour `timezone`
 * @throws AppError invalid_schedule, naming the field
 */
export function checkSchedule(input: unknown, timezone: unknown, field = '/schedule'): ScheduleSettings {
  checkZone(timezone, `${field.slice(0, field.lastIndexOf('/'))}/timezone`)
  const given = checkObject(input, field, KINDS)
  const [kind, ...more] = KINDS.filter(name => given[name] !== undefined)
  if (kind === undefined || more.length > 0) return refuse(field, `Give one of ${KINDS.join(', ')}`)
  const value = given[kind]
  const at = `${field}/${kind}`
  switch (kind) {
    case 'interval_seconds':
      return { interval_seconds: checkWhole(value, at, MAX_INTERVAL_SECONDS) }
    case 'daily':
      return { daily: checkTimeOfDay(value, at) }
    case 'weekly': {
      const { weekday, time } = checkObject(value, at, ['weekday', 'time'])
      return {
        weekly: { weekday: checkWeekday(weekday, `${at}/weekday`), time: checkTimeOfDay(time, `${at}/time`) },
      }
    }
    case 'monthly': {
      const { day, time } = checkObject(value, at, ['day', 'time'])
      return {
        monthly: { day: checkWhole(day, `${at}/day`, 31), time: checkTimeOfDay(time, `${at}/time`) },
      }
    }
    case 'cron':
      return { cron: checkCron(value, at) }
  }
}

function checkWhole(value: unknown, field: string, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= max) return value
  return refuse(field, `It is a whole number from 1 to ${max}`)
}

function checkCron(value: unknown, field: string): string {
  if (typeof value !== 'string' || value.length > MAX_CRON_LENGTH) {
    return refuse(field, `A cron pattern is text of at most ${MAX_CRON_LENGTH} characters`)
  }
  // Five, and none of croner's nicknames such as `@daily`: one way to write one thing.
  if (value.trim().split(/\s+/).length !== 5) {
    return refuse(field, 'A cron pattern has five fields: minute, hour, day, month, weekday')
  }
  let first: number | null
  try {
    first = cronOf(value).next(0)
  } catch (cause) {
    return refuse(field, `The cron pattern is not valid: ${(cause as Error).message.slice(0, 200)}`)
  }
  return first === null ? refuse(field, 'The cron pattern names a date that never comes') : value
}
