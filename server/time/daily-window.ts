import { AppError } from '../errors.ts'
import { DAY_MS, instantOfWall, MINUTE_MS } from './zone.ts'

/**
 * What quiet hours and delivery windows share: [start, end) on the wall clock, again every day or on some days of
 * the week. One that ends at or before its start goes over midnight and belongs to the day on which it starts.
 */
export interface DailyWindow {
  /** Minute of the day, 0 to 1439. */
  start: number
  /** Minute counted from the same midnight, so up to 2879 across the next one. Equal to start: never. */
  end: number
}

/** `HH:MM`, and `24:00` where an end may be the end of the day. In minutes; undefined when it is no such time. */
export function minutesOf(text: string, end = false): number | undefined {
  if (text.length !== 5 || text.charCodeAt(2) !== 58) return undefined
  const hour = digits(text, 0)
  const minute = digits(text, 3)
  if (!(minute < 60)) return undefined
  if (hour < 24 || (end && hour === 24 && minute === 0)) return hour * 60 + minute
  return undefined
}

/** Two digits as a number; NaN when they are none. */
function digits(text: string, at: number): number {
  const ten = text.charCodeAt(at) - 48
  const one = text.charCodeAt(at + 1) - 48
  return ten >= 0 && ten <= 9 && one >= 0 && one <= 9 ? ten * 10 + one : Number.NaN
}

/** Undefined when the times cannot be read; start = end is a window of no length. */
export function dailyWindow(start: string, end: string): DailyWindow | undefined {
  const from = minutesOf(start)
  const to = minutesOf(end, true)
  if (from === undefined || to === undefined) return undefined
  return { start: from, end: to >= from ? to : to + 1440 }
}

/** Days are counted from 1970-01-01, a Thursday. @returns ISO 8601, Monday is 1 */
export const weekdayOf = (day: number): number => ((((day + 3) % 7) + 7) % 7) + 1

/** The window that starts on that day, in instants. Where the clock jumps over all of it, it has no length. */
export function windowOn(window: DailyWindow, zone: string, day: number): { start: number; end: number } {
  return {
    start: instantOfWall(zone, day * DAY_MS + window.start * MINUTE_MS),
    end: instantOfWall(zone, day * DAY_MS + window.end * MINUTE_MS),
  }
}

// ------------------------------------------------------------------ what a request may ask for

export function refuse(field: string, message: string): never {
  throw new AppError('invalid_schedule', message, { field })
}

/** An object with none but the named fields. `field` is a JSON pointer, as everywhere in this folder. */
export function checkObject(
  input: unknown,
  field: string,
  names: readonly string[],
): Record<string, unknown> {
  if (typeof input !== 'object' || input === null || Array.isArray(input)) {
    return refuse(field, 'It must be an object')
  }
  for (const name of Object.keys(input)) {
    if (!names.includes(name))
      refuse(`${field}/${name}`, `There is no such field; there are ${names.join(', ')}`)
  }
  return input as Record<string, unknown>
}

/** `HH:MM`, 00:00 to 23:59, or `24:00` for an end. @throws AppError invalid_schedule */
export function checkTimeOfDay(input: unknown, field: string, end = false): string {
  if (typeof input === 'string' && minutesOf(input, end) !== undefined) return input
  return refuse(field, `A time of day is HH:MM, from 00:00 to ${end ? '24:00' : '23:59'}`)
}

/** @returns sorted, each once, or undefined when none were given: every day @throws AppError invalid_schedule */
export function checkWeekdays(input: unknown, field: string): number[] | undefined {
  if (input === undefined || input === null) return undefined
  if (!Array.isArray(input) || input.length > 7) return refuse(field, 'Days are a list of at most seven')
  if (input.length === 0) return refuse(field, 'The list names no day; without a list it is every day')
  return [...new Set(input.map((day, i) => checkWeekday(day, `${field}/${i}`)))].sort((a, b) => a - b)
}

export function checkWeekday(input: unknown, field: string): number {
  if (typeof input === 'number' && Number.isInteger(input) && input >= 1 && input <= 7) return input
  return refuse(field, 'A day of the week is 1 (Monday) to 7 (Sunday)')
}
