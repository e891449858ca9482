import { HOUR_MS, isZone, MINUTE_MS, wallMs } from '../time/zone.ts'

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
  const fixed = /^([+-]?)(\d{2}):(\d{2})$/.exec(zone)
  if (fixed) {
    const [, sign, hours, minutes] = fixed
    if (Number(hours) > 23 || Number(minutes) > 59) return undefined
    const ahead = Number(hours) * HOUR_MS + Number(minutes) * MINUTE_MS
    return new Date(time.getTime() + (sign === '-' ? -ahead : ahead))
  }
  return isZone(zone) ? new Date(wallMs(zone, time.getTime())) : undefined
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
