import {
  checkObject,
  checkTimeOfDay,
  checkWeekdays,
  dailyWindow,
  refuse,
  weekdayOf,
  windowOn,
} from './daily-window.ts'
import { checkZone, DAY_MS, wallMs, zoneOrUtc } from './zone.ts'

/** When something may be sent. */
export interface DeliveryWindow {
  /** HH:MM of the wall clock. */
  start: string
  /** HH:MM, or 24:00; no longer in it. Before `start`: of the next day. */
  end: string
  /** ISO 8601, 1 Monday to 7 Sunday: the days on which it starts. Absent: every day. */
  weekdays?: number[]
  /** IANA; the person's own zone when absent. */
  timezone?: string
}

// A window of one weekday can miss two weeks running: one because the clock jumps over it, one that just passed.
const MAX_DAYS = 21

/**
 * The first instant at or after `now` inside any of the windows. No windows: `now`; so too where none will open,
 * which cannot be written: better early than held for ever.
 */
export function openAt(now: Date, windows: readonly DeliveryWindow[], timezone: string): Date {
  const at = now.getTime()
  let first: number | undefined
  for (const each of windows) {
    const opens = opening(at, each, zoneOrUtc(each.timezone ?? timezone))
    if (opens === at) return now
    if (opens !== undefined && (first === undefined || opens < first)) first = opens
  }
  return first === undefined ? now : new Date(first)
}

function opening(at: number, window: DeliveryWindow, zone: string): number | undefined {
  const daily = dailyWindow(window.start, window.end)
  if (daily === undefined || daily.start === daily.end) return undefined
  const today = Math.floor(wallMs(zone, at) / DAY_MS)
  for (let day = today - 1; day < today + MAX_DAYS; day++) {
    if (window.weekdays !== undefined && !window.weekdays.includes(weekdayOf(day))) continue
    const { start, end } = windowOn(daily, zone, day)
    if (end > at && end > start) return Math.max(start, at)
  }
  return undefined
}

const FIELDS = ['start', 'end', 'timezone', 'weekdays']
const MAX_WINDOWS = 50

/**
 * @param field JSON pointer to the list
 * @throws AppError invalid_schedule, naming the field
 */
export function checkDeliveryWindows(input: unknown, field: string): DeliveryWindow[] {
  if (!Array.isArray(input) || input.length > MAX_WINDOWS) {
    return refuse(field, `Delivery windows are a list of at most ${MAX_WINDOWS}`)
  }
  return input.map((each, i) => checkWindow(each, `${field}/${i}`))
}

function checkWindow(input: unknown, field: string): DeliveryWindow {
  const given = checkObject(input, field, FIELDS)
  const window: DeliveryWindow = {
    start: checkTimeOfDay(given['start'], `${field}/start`),
    end: checkTimeOfDay(given['end'], `${field}/end`, true),
  }
  if (window.start === window.end) {
    refuse(`${field}/end`, 'A window that ends as it starts never opens; 00:00 to 24:00 is the whole day')
  }
  const weekdays = checkWeekdays(given['weekdays'], `${field}/weekdays`)
  if (weekdays !== undefined) window.weekdays = weekdays
  if (given['timezone'] != null) window.timezone = checkZone(given['timezone'], `${field}/timezone`)
  return window
}
