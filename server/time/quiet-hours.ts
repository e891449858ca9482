import {
  checkObject,
  checkTimeOfDay,
  checkWeekdays,
  dailyWindow,
  refuse,
  weekdayOf,
  windowOn,
  type DailyWindow,
} from './daily-window.ts'
import { checkZone, DAY_MS, MINUTE_MS, steadyOffset, wallMs, zoneOrUtc } from './zone.ts'

/** When a person wants no interruption. */
export interface QuietHours {
  enabled: boolean
  /** HH:MM of the wall clock; the first quiet minute. */
  start: string
  /** HH:MM, or 24:00; the first minute that is no longer quiet. Before `start`: of the next day. Equal: never. */
  end: string
  /** IANA; the person's own zone when absent. */
  timezone?: string
  /** ISO 8601, 1 Monday to 7 Sunday: the days on which quiet hours start. Absent: every day. */
  weekdays?: number[]
  /** Does CRITICAL pass? Absent: yes. */
  allowCritical?: boolean
  /** Event types that pass, or what they begin with: `auth.*`. */
  exceptions?: string[]
}

// More days in a row than there are in a week: quiet for ever, which is refused when it is written.
const MAX_JOINED = 8

/**
 * When quiet hours that hold now will end; null when they do not. Windows that touch or overlap are one, so the
 * answer itself is never quiet. `timezone` is used where the quiet hours have none of their own.
 */
export function quietUntil(now: Date, quiet: QuietHours, timezone: string): Date | null {
  if (!quiet.enabled) return null
  const window = dailyWindow(quiet.start, quiet.end)
  if (window === undefined || window.start === window.end) return null
  const zone = zoneOrUtc(quiet.timezone ?? timezone)
  let until = endOf(now.getTime(), window, quiet.weekdays, zone)
  if (until === undefined) return null
  for (let joined = 1; joined < MAX_JOINED; joined++) {
    const next = endOf(until, window, quiet.weekdays, zone)
    if (next === undefined) break
    until = next
  }
  return new Date(until)
}

/** The latest end of the windows in which the instant lies. */
function endOf(
  at: number,
  window: DailyWindow,
  weekdays: readonly number[] | undefined,
  zone: string,
): number | undefined {
  // The usual case: no clock changes near, and so no look at the calendar is needed.
  const steady = steadyOffset(zone, at - 2 * DAY_MS, at + 2 * DAY_MS)
  if (steady !== undefined) {
    const wall = at + steady
    const day = Math.floor(wall / DAY_MS)
    const minute = (wall - day * DAY_MS) / MINUTE_MS
    if (minute >= window.start && minute < window.end && starts(weekdays, day)) {
      return day * DAY_MS + window.end * MINUTE_MS - steady
    }
    if (minute + 1440 < window.end && starts(weekdays, day - 1)) {
      return (day - 1) * DAY_MS + window.end * MINUTE_MS - steady
    }
    return undefined
  }
  const today = Math.floor(wallMs(zone, at) / DAY_MS)
  let latest: number | undefined
  // It may have begun tomorrow, where the clock went back over midnight.
  for (let day = today - 1; day <= today + 1; day++) {
    if (!starts(weekdays, day)) continue
    const { start, end } = windowOn(window, zone, day)
    if (start <= at && at < end && (latest === undefined || end > latest)) latest = end
  }
  return latest
}

const starts = (weekdays: readonly number[] | undefined, day: number): boolean =>
  weekdays === undefined || weekdays.includes(weekdayOf(day))

const FIELDS = ['enabled', 'start', 'end', 'timezone', 'weekdays', 'allowCritical', 'exceptions']
const MAX_EXCEPTIONS = 100
const EXCEPTION = /^[^\s*]{1,253}(?:\.\*)?$/

/**
 * @param field JSON pointer to the input, '' for the whole body
 * @throws AppError invalid_schedule, naming the field
 */
export function checkQuietHours(input: unknown, field: string): QuietHours {
  const given = checkObject(input, field, FIELDS)
  for (const name of ['enabled', 'allowCritical']) {
    if (given[name] !== undefined && typeof given[name] !== 'boolean') {
      refuse(`${field}/${name}`, 'It must be true or false')
    }
  }
  const quiet: QuietHours = {
    enabled: given['enabled'] !== false,
    start: checkTimeOfDay(given['start'], `${field}/start`),
    end: checkTimeOfDay(given['end'], `${field}/end`, true),
  }
  if (given['timezone'] != null) quiet.timezone = checkZone(given['timezone'], `${field}/timezone`)
  const weekdays = checkWeekdays(given['weekdays'], `${field}/weekdays`)
  if (weekdays !== undefined) quiet.weekdays = weekdays
  if (given['allowCritical'] !== undefined) quiet.allowCritical = given['allowCritical'] as boolean
  if (given['exceptions'] != null) {
    quiet.exceptions = checkExceptions(given['exceptions'], `${field}/exceptions`)
  }
  if (quiet.start === '00:00' && quiet.end === '24:00' && (weekdays === undefined || weekdays.length === 7)) {
    refuse(
      `${field}/end`,
      'Quiet hours without an end would hold everything for ever; switch the channel off',
    )
  }
  return quiet
}

function checkExceptions(input: unknown, field: string): string[] {
  if (!Array.isArray(input) || input.length > MAX_EXCEPTIONS) {
    return refuse(field, `Exceptions are a list of at most ${MAX_EXCEPTIONS} event types`)
  }
  return [
    ...new Set(
      input.map((name: unknown, i) =>
        typeof name === 'string' && EXCEPTION.test(name)
          ? name
          : refuse(`${field}/${i}`, 'An exception is an event type, or the beginning of one and .*'),
      ),
    ),
  ]
}
