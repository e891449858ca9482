import type { DeliveryWindow } from '../time/delivery-window.ts'
import type { QuietHours } from '../time/quiet-hours.ts'
import type { Channel, Priority } from '../types.ts'

/** How often somebody wants to hear: at once, or gathered into a digest. */
export const FREQUENCIES = ['instant', 'hourly', 'daily', 'weekly'] as const
export type Frequency = (typeof FREQUENCIES)[number]

/** What a tenant's default says of a switch. REQUIRED stays on whatever the person says. */
export const MODES = ['OPTED_IN', 'OPTED_OUT', 'REQUIRED'] as const
export type Mode = (typeof MODES)[number]

export interface DigestSettings {
  enabled: boolean
  frequency: Exclude<Frequency, 'instant'>
  /** 'HH:MM' in the person's zone, of daily and weekly ones. Absent: 09:00. */
  at?: string
  /** ISO 8601, of weekly ones. Absent: Monday. */
  weekday?: number
  /** Event types that go at once all the same. */
  instant?: string[]
  /** Only these are gathered. Absent or empty: everything else is. */
  batchable?: string[]
}

/**
 * `settings` of a row in `preferences`. Each of them is an opinion of its own: what a row leaves out, a less
 * specific one may say.
 */
export interface PreferenceSettings {
  /** Only in rows of the tenant. */
  mode?: Mode
  /** Of a scope's row about all channels: the scope is off on every other one. */
  channels?: Channel[]
  /** ISO 8601 instant until which nothing is sent. */
  mutedUntil?: string
  /** Less urgent messages are not sent. */
  minPriority?: Priority
  /** 1–10, compared with the rule's own number. */
  priorityThreshold?: number
  quietHours?: QuietHours
  /** Whether quiet hours hold back what goes into the inbox, too. */
  quietAppliesToInApp?: boolean
  deliveryWindows?: DeliveryWindow[]
  digest?: DigestSettings
  /** How long rules that gather wait for more, in place of their own window; 0: they do not gather for this person. */
  batchMinutes?: number
  maxPerHour?: number
  maxPerDay?: number
}

/** When digests go out where nobody named a time: in the morning, and weekly ones on Monday. */
export const DIGEST_AT = '09:00'
export const DIGEST_WEEKDAY = 1

/** Whoever named no threshold hears of rules from this number up. */
export const DEFAULT_THRESHOLD = 5

/**
 * Whether a list names this event type: as a whole, by its beginning (`trading.*`), or by the part after the last
 * dot, because documents list `trade_executed` where the type is `trading.trade_executed`.
 */
export function namesEvent(list: readonly string[], eventType: string): boolean {
  for (const name of list) {
    if (name === eventType) return true
    if (name.endsWith('.*') ? eventType.startsWith(name.slice(0, -1)) : endsWithPart(eventType, name))
      return true
  }
  return false
}

const endsWithPart = (eventType: string, name: string) =>
  !name.includes('.') && eventType.endsWith(name) && eventType[eventType.length - name.length - 1] === '.'
