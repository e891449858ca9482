import { DAY_MS, HOUR_MS, instantOfWall, MINUTE_MS, utc, wallMs } from './zone.ts'

export const WINDOW_KINDS = ['minute', 'hour', 'day', 'week', 'month'] as const
export type WindowKind = (typeof WINDOW_KINDS)[number]

/** Milliseconds since 1970; `end` is the first instant that is no longer in it. */
export interface Window {
  start: number
  end: number
}

/**
 * The window of that kind in which an instant lies. Minutes and hours are UTC's, the same for everybody; days,
 * weeks (from Monday) and months are the zone's, so a day may have 23 or 25 hours.
 *
 * Windows of one kind follow each other without gap or overlap. Where a clock goes back over midnight the new day
 * has begun at the first midnight, although the date shown is the old one again for a while.
 */
export function windowOf(kind: WindowKind, zone: string, atMs: number): Window {
  if (kind === 'minute' || kind === 'hour') {
    const length = kind === 'minute' ? MINUTE_MS : HOUR_MS
    const start = Math.floor(atMs / length) * length
    return { start, end: start + length }
  }
  let wall = beginning(kind, wallMs(zone, atMs))
  let next = after(kind, wall)
  let end = instantOfWall(zone, next)
  while (end <= atMs) {
    wall = next
    next = after(kind, wall)
    end = instantOfWall(zone, next)
  }
  return { start: instantOfWall(zone, wall), end }
}

function beginning(kind: 'day' | 'week' | 'month', wall: number): number {
  const day = Math.floor(wall / DAY_MS)
  if (kind === 'day') return day * DAY_MS
  // 1970-01-01 was a Thursday.
  if (kind === 'week') return (day - ((((day + 3) % 7) + 7) % 7)) * DAY_MS
  const date = new Date(wall)
  return utc(date.getUTCFullYear(), date.getUTCMonth() + 1, 1)
}

function after(kind: 'day' | 'week' | 'month', wall: number): number {
  if (kind !== 'month') return wall + (kind === 'day' ? 1 : 7) * DAY_MS
  const date = new Date(wall)
  return utc(date.getUTCFullYear(), date.getUTCMonth() + 2, 1)
}
