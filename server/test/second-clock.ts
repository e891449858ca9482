import { createRequire } from 'node:module'

/**
 * Local time worked out a second way, for tests of server/time: offsets from luxon, instants by trying every offset
 * that is in force nearby. Slow, without tables or bisection, and so without their mistakes.
 */

interface Luxon {
  IANAZone: { create(name: string): { offset(ms: number): number } }
}
// It comes with another package and brings no types.
const { IANAZone } = createRequire(import.meta.url)('luxon') as Luxon

export const ZONES: readonly string[] = Intl.supportedValuesOf('timeZone')
const DAY_MS = 86_400_000

/** Milliseconds ahead of UTC. */
export const otherOffset = (zone: string, ms: number): number => IANAZone.create(zone).offset(ms) * 60_000

/**
 * The instant of a wall time (milliseconds of a clock that shows the same in UTC): the first of those that show it;
 * where none does, the first instant after the gap.
 */
export function otherInstant(zone: string, wall: number): number {
  const { offset } = IANAZone.create(zone)
  const at = (ms: number) => offset.call(IANAZone.create(zone), ms) * 60_000
  const offsets = new Set<number>()
  for (let ms = wall - 26 * 3_600_000; ms <= wall + 26 * 3_600_000; ms += 6.5 * 3_600_000) offsets.add(at(ms))
  const found = [...offsets].map(each => wall - each).filter(ms => ms + at(ms) === wall)
  if (found.length > 0) return Math.min(...found)
  // The clock shows less before the gap and more after it.
  let low = wall - 26 * 3_600_000
  let high = wall + 26 * 3_600_000
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2)
    if (middle + at(middle) < wall) low = middle
    else high = middle
  }
  return high
}

/** Every window [start, end) of minutes of the day that starts on one of the dates around an instant. */
export function otherWindows(
  zone: string,
  ms: number,
  days: { before: number; after: number },
  window: { start: number; end: number; weekdays?: readonly number[] },
): { start: number; end: number }[] {
  const today = Math.floor((ms + otherOffset(zone, ms)) / DAY_MS)
  const windows = []
  for (let day = today - days.before; day <= today + days.after; day++) {
    const weekday = new Date(day * DAY_MS).getUTCDay() || 7
    if (window.weekdays !== undefined && !window.weekdays.includes(weekday)) continue
    const over = window.end < window.start ? 1440 : 0
    windows.push({
      start: otherInstant(zone, day * DAY_MS + window.start * 60_000),
      end: otherInstant(zone, day * DAY_MS + (window.end + over) * 60_000),
    })
  }
  return windows
}

export const hhmm = (minutes: number): string =>
  `${String(Math.floor(minutes / 60)).padStart(2, '0')}:${String(minutes % 60).padStart(2, '0')}`
