import { LRUCache } from 'lru-cache'

export const ZONED_FIELDS = [
  'getFullYear',
  'getMonth',
  'getDate',
  'getDayOfMonth',
  'getDayOfWeek',
  'getDayOfYear',
  'getHours',
  'getMinutes',
  'getSeconds',
  'getMilliseconds',
] as const
export type ZonedField = (typeof ZONED_FIELDS)[number]

/**
 * One calendar field of an instant, read in an IANA zone or at a fixed offset (`+02:00`, `02:00`).
 * Numbered as CEL has it: month, day of month and day of year from 0, `getDate` from 1, Sunday is 0.
 * Undefined when there is no such zone.
 */
export function zonedField(field: ZonedField, time: Date, zone: string): bigint | undefined {
  const wall = wallTime(time, zone)
  return wall && BigInt(read(field, wall))
}

/** The wall clock of the zone, as if it were UTC. */
function wallTime(time: Date, zone: string): Date | undefined {
  if (zone === 'UTC') return time
  const format = formatOf(zone)
  if (format === undefined) return undefined
  const part: Record<string, number> = {}
  for (const { type, value } of format.formatToParts(time)) part[type] = Number(value)
  const wall = new Date(0)
  wall.setUTCFullYear(part['year'] ?? 0, (part['month'] ?? 1) - 1, part['day'] ?? 1)
  wall.setUTCHours(part['hour'] ?? 0, part['minute'] ?? 0, part['second'] ?? 0, time.getUTCMilliseconds())
  return wall
}

function read(field: ZonedField, wall: Date): number {
  switch (field) {
    case 'getFullYear':
      return wall.getUTCFullYear()
    case 'getMonth':
      return wall.getUTCMonth()
    case 'getDate':
      return wall.getUTCDate()
    case 'getDayOfMonth':
      return wall.getUTCDate() - 1
    case 'getDayOfWeek':
      return wall.getUTCDay()
    case 'getDayOfYear': {
      const newYear = new Date(wall)
      newYear.setUTCMonth(0, 1)
      return Math.floor(wall.getTime() / 86_400_000) - Math.floor(newYear.getTime() / 86_400_000)
    }
    case 'getHours':
      return wall.getUTCHours()
    case 'getMinutes':
      return wall.getUTCMinutes()
    case 'getSeconds':
      return wall.getUTCSeconds()
    case 'getMilliseconds':
      return wall.getUTCMilliseconds()
  }
}

// Building a formatter takes ICU tens of microseconds, reading with it two. Zones may come from events, so the
// unknown ones are kept too.
const formats = new LRUCache<string, { format: Intl.DateTimeFormat | undefined }>({ max: 500 })

function formatOf(zone: string): Intl.DateTimeFormat | undefined {
  if (zone.length > 64) return undefined
  let entry = formats.get(zone)
  if (entry === undefined) {
    entry = { format: newFormat(/^\d{2}:\d{2}$/.test(zone) ? `+${zone}` : zone) }
    formats.set(zone, entry)
  }
  return entry.format
}

function newFormat(timeZone: string): Intl.DateTimeFormat | undefined {
  try {
    return new Intl.DateTimeFormat('en-US', {
      timeZone,
      calendar: 'iso8601',
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
      second: 'numeric',
    })
  } catch {
    return undefined
  }
}
