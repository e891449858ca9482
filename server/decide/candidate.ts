import type { Channel, Event, Priority, Recipient } from '../types.ts'
import type { AddressFact, PreferenceRow, UserFacts } from '../people/facts.ts'
import type { Decision } from '../reasons.ts'
import type { Schedule } from './schedule.ts'

/** One possible delivery: this recipient, on this channel, because of this rule or direct request. */
export interface Candidate {
  event: Event
  channel: Channel
  recipient: Recipient
  priority: Priority
  category: string
  expiresAt: Date | null
  /** Null for a bare address, which is nobody's. */
  user: UserFacts | null
  /** The address it would go to. In-app needs none. */
  address: AddressFact | null
  tenantDefaults: readonly PreferenceRow[]
  /** Preference scopes this notification falls under, besides the global one: 'category:x', 'rule:<id>' … */
  scopes: readonly string[]
  /** What brought this person in: a topic subscription may want important messages only. */
  level: 'ALL' | 'IMPORTANT'
  /** The rule's own times of sending. */
  schedule: Schedule | null
  /** The rule already told this recipient about this event, in an earlier, interrupted planning. */
  alreadyTold: boolean
  /** Is there a provider for the channel? */
  channelOpen: boolean
}

/**
 * One question about a candidate. Pure: everything it needs is in its arguments, the clock as well.
 *
 * @returns what it decides, or null when it has nothing to say
 */
export type Check = (candidate: Candidate, now: Date) => Decision | null
