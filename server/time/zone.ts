import { AppError } from '../errors.ts'

/**
 * Wall clocks of IANA zones. All arithmetic about local time is in this folder and rests on two functions:
 * `offsetMs` (instant → wall clock) and `instantOf` (wall clock → instant).
 *
 * The policy where clocks change: a local time that does not exist moves to the first instant after the gap, and
 * one that occurs twice counts once, at its first occurrence.
 *
 * Intl knows every zone but answers in microseconds. What it says is kept as tables of the instants at which a
 * zone's offset changes: found by bisection, a stretch of 64 days at a time, when somebody asks about it.
 */

/** Read on the clock of a zone. */
export interface WallClock {
  year: number
  /** 1–12 */
  month: number
  /** 1–31 */
  day: number
  hour: number
  minute: number
  second: number
  /** ISO 8601: Monday is 1, Sunday 7. */
  weekday: number
}

/** A local time to look for. Fields beyond their range carry over, as in `Date.UTC`: hour 24, day 0, month 13. */
export type LocalTime = Omit<WallClock, 'second' | 'weekday'> & { second?: number }

/** From `at` on the clock is `after`, and before it `before`, milliseconds ahead of UTC. */
export interface ClockChange {
  at: number
  before: number
  after: number
}

interface Zone {
  /** As Intl spells it. */
  name: string
  format: Intl.DateTimeFormat
  /** By number of the stretch. The offset where it never changes, which is nearly always. */
  stretches: (number | Stretch)[]
}

interface Stretch {
  /** The offset at its beginning. */
  first: number
  changes: ClockChange[]
}

export const MINUTE_MS = 60_000
export const HOUR_MS = 3_600_000
export const DAY_MS = 86_400_000

const STRETCH_MS = 64 * DAY_MS
// Two changes of one zone are further apart: the closest since 1970 are 7 days, America/Recife in October 2000.
const STEP_MS = 4 * DAY_MS
/** Tables cover 1970 to 2100, so all of them together are at most 748 entries for some 450 zones. */
const LAST_STRETCH = Math.floor(Date.UTC(2101, 0, 1) / STRETCH_MS)
// Offsets lie between -12 and +14 hours, and Samoa once changed by 24 hours.
const REACH_MS = 26 * HOUR_MS

// Spellings come from callers and events, in any case, so what is kept of them is bounded; null: no zone.
const MAX_SPELLINGS = 2_000
const spellings = new Map<string, Zone | null>()
const zones = new Map<string, Zone>()

function find(spelling: string): Zone | null {
  const known = spellings.get(spelling)
  if (known !== undefined) return known
  const zone = open(spelling)
  if (spellings.size >= MAX_SPELLINGS) spellings.clear()
  spellings.set(spelling, zone)
  return zone
}

function open(spelling: string): Zone | null {
  // Intl takes offsets such as `+02:00` for zones; they are none: no place keeps one through the year.
  if (spelling.length > 64 || !/^[A-Za-z]/.test(spelling)) return null
  let format: Intl.DateTimeFormat
  try {
    format = new Intl.DateTimeFormat('en-US', { timeZone: spelling, timeZoneName: 'longOffset' })
  } catch {
    return null
  }
  const name = format.resolvedOptions().timeZone
  let zone = zones.get(name)
  if (zone === undefined) {
    zone = { name, format, stretches: [] }
    zones.set(name, zone)
  }
  return zone
}

function need(name: string): Zone {
  const zone = find(name)
  if (zone === null) throw new RangeError(`There is no time zone "${name.slice(0, 64)}"`)
  return zone
}

/** Is there such a zone? In any case of letters; offsets such as `+02:00` are no zones. */
export const isZone = (name: string): boolean => find(name) !== null

/**
 * @returns the name, as it was given
 * @throws AppError invalid_schedule, naming the field, when there is no such zone
 */
export function checkZone(name: unknown, field: string): string {
  if (typeof name === 'string' && isZone(name)) return name
  const given = typeof name === 'string' ? `"${name.slice(0, 64)}"` : 'of this kind'
  throw new AppError('invalid_schedule', `There is no time zone ${given}`, { field })
}

/** `GMT`, `GMT+01:00`, `GMT-00:44:30` at the end of what Intl writes. */
function readOffset({ format }: Zone, ms: number): number {
  const text = format.format(ms)
  const at = text.lastIndexOf('GMT') + 3
  if (at === text.length) return 0
  const [hours = 0, minutes = 0, seconds = 0] = text
    .slice(at + 1)
    .split(':')
    .map(Number)
  return (text[at] === '+' ? 1000 : -1000) * (hours * 3600 + minutes * 60 + seconds)
}

/** The changes in `(from, to]`, in order; changes and back within `STEP_MS` are not seen. */
function search(zone: Zone, from: number, to: number): Stretch {
  const first = readOffset(zone, from)
  const changes: ClockChange[] = []
  let before = first
  for (let start = from; start < to; start += STEP_MS) {
    const end = Math.min(start + STEP_MS, to)
    const after = readOffset(zone, end)
    if (after === before) continue
    let low = start
    let high = end
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      if (readOffset(zone, middle) === before) low = middle
      else high = middle
    }
    changes.push({ at: high, before, after })
    before = after
  }
  return { first, changes }
}

function stretchOf(zone: Zone, number: number): number | Stretch {
  let stretch = zone.stretches[number]
  if (stretch === undefined) {
    const start = number * STRETCH_MS
    const { first, changes } = search(zone, start, start + STRETCH_MS - 1)
    stretch = changes.length === 0 ? first : { first, changes }
    zone.stretches[number] = stretch
  }
  return stretch
}

function offsetIn(zone: Zone, ms: number): number {
  const number = Math.floor(ms / STRETCH_MS)
  if (!(number >= 0 && number <= LAST_STRETCH)) return readOffset(zone, ms)
  const stretch = stretchOf(zone, number)
  if (typeof stretch === 'number') return stretch
  let offset = stretch.first
  for (const change of stretch.changes) {
    if (change.at > ms) break
    offset = change.after
  }
  return offset
}

/** How far the zone's clock is ahead of UTC, in milliseconds. @throws RangeError when there is no such zone */
export const offsetMs = (zone: string, ms: number): number => offsetIn(need(zone), ms)

/** The same in minutes; east of Greenwich is positive. */
export const offsetMinutes = (zone: string, ms: number): number => offsetMs(zone, ms) / MINUTE_MS

/**
 * The offset that holds all through `[from, to]`, or undefined where the clock changes in between.
 * For loops that would otherwise ask twice.
 */
export function steadyOffset(zone: string, from: number, to: number): number | undefined {
  const found = need(zone)
  const number = Math.floor(from / STRETCH_MS)
  const last = Math.floor(to / STRETCH_MS)
  if (!(number >= 0 && last <= LAST_STRETCH)) return undefined
  const offset = offsetIn(found, from)
  for (let each = number; each <= last; each++) {
    const stretch = stretchOf(found, each)
    if (typeof stretch === 'number') {
      if (stretch !== offset) return undefined
    } else if (
      stretch.changes.some(({ at }) => at > from && at <= to) ||
      offsetIn(found, Math.min(to, (each + 1) * STRETCH_MS - 1)) !== offset
    ) {
      return undefined
    }
  }
  return offset
}

/**
 * A stored zone, for deciding: it was checked when it was written, but another version of Node, with other zones,
 * may have done so. One person's odd zone must not stop the batch.
 */
export const zoneOrUtc = (name: string): string => (isZone(name) ? name : 'UTC')

/** Every change of the zone's clock in `[from, to]`, in order. */
export function clockChanges(zone: string, from: number, to: number): ClockChange[] {
  const found = need(zone)
  const number = Math.floor((from - 1) / STRETCH_MS)
  const last = Math.floor(to / STRETCH_MS)
  if (!(number >= 0 && last <= LAST_STRETCH)) return search(found, from - 1, to).changes
  const changes: ClockChange[] = []
  let before = offsetIn(found, number * STRETCH_MS)
  for (let each = number; each <= last; each++) {
    const stretch = stretchOf(found, each)
    const first = typeof stretch === 'number' ? stretch : stretch.first
    // A change on the very boundary of two stretches is in neither.
    if (first !== before) changes.push({ at: each * STRETCH_MS, before, after: first })
    before = first
    if (typeof stretch === 'number') continue
    changes.push(...stretch.changes)
    before = stretch.changes.at(-1)!.after
  }
  return changes.filter(({ at }) => at >= from && at <= to)
}

/** What the clock of the zone shows, as milliseconds of a clock that would show the same in UTC. */
export const wallMs = (zone: string, ms: number): number => ms + offsetMs(zone, ms)

/** @throws RangeError when there is no such zone */
export function wallClock(zone: string, ms: number): WallClock {
  const wall = new Date(wallMs(zone, ms))
  return {
    year: wall.getUTCFullYear(),
    month: wall.getUTCMonth() + 1,
    day: wall.getUTCDate(),
    hour: wall.getUTCHours(),
    minute: wall.getUTCMinutes(),
    second: wall.getUTCSeconds(),
    weekday: wall.getUTCDay() || 7,
  }
}

/** What people read: `2026-11-21T09:00:00` and `+01:00`; together they are an instant by RFC 3339. */
export function localTime(zone: string, ms: number): { local: string; utcOffset: string } {
  const offset = Math.trunc(offsetMinutes(zone, ms))
  const two = (n: number) => String(n).padStart(2, '0')
  return {
    local: new Date(wallMs(zone, ms)).toISOString().slice(0, -5),
    utcOffset: `${offset < 0 ? '-' : '+'}${two(Math.floor(Math.abs(offset) / 60))}:${two(Math.abs(offset) % 60)}`,
  }
}

/** The instant of a local time, in milliseconds since 1970, by the policy above. */
export const instantOf = (zone: string, local: LocalTime): number =>
  instantOfWall(
    zone,
    utc(local.year, local.month, local.day) +
      local.hour * HOUR_MS +
      local.minute * MINUTE_MS +
      (local.second ?? 0) * 1000,
  )

/**
 * The same for a local time in the form of `wallMs`: the first instant at which the clock shows it, or has just
 * jumped over it. So it never goes back while `wall` goes on.
 */
export function instantOfWall(zone: string, wall: number): number {
  const steady = steadyOffset(zone, wall - REACH_MS, wall + REACH_MS)
  if (steady !== undefined) return wall - steady
  let offset = offsetMs(zone, wall - REACH_MS)
  for (const { at, after } of clockChanges(zone, wall - REACH_MS + 1, wall + REACH_MS)) {
    if (wall - offset < at) break
    // The clock jumps from before `wall` to it or beyond.
    if (at + after >= wall) return at
    offset = after
  }
  return wall - offset
}

/**
 * How far the clock has come before `ms`: every local time below it has had its instant before `ms`. It is what
 * the clock shows, except just after a change: while an hour is repeated it stands at the end of that hour, and
 * at the end of a gap at the gap's beginning.
 */
export function reachedWall(zone: string, ms: number): number {
  const steady = steadyOffset(zone, ms - REACH_MS, ms)
  if (steady !== undefined) return ms + steady
  let reached = ms + offsetMs(zone, ms - 1)
  for (const { at, before } of clockChanges(zone, ms - REACH_MS, ms - 1)) {
    reached = Math.max(reached, at + before)
  }
  return reached
}

/** Midnight of a calendar day on a clock in UTC; months and days carry over. */
export function utc(year: number, month: number, day: number): number {
  // Date.UTC takes the years 0 to 99 for 1900 to 1999.
  const date = new Date(0)
  return date.setUTCFullYear(year, month - 1, day)
}
