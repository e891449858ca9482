import type { Channel, Event, Priority, Recipient } from '../types.ts'
import type { EffectivePreference } from '../people/effective-preference.ts'
import type { AddressFact, UserFacts } from '../people/facts.ts'
import type { Cap, Sameness, Usage } from '../limits/usage.ts'
import type { Decision, DigestWish, Reason } from '../reasons.ts'
import type { DeliveryWindow } from '../time/delivery-window.ts'
import type { Schedule } from '../time/schedule.ts'

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
  /** What the person and their tenant want of it; null for a bare address. */
  preference: EffectivePreference | null
  /** What brought this person in: a topic subscription may want important messages only. */
  level: 'ALL' | 'IMPORTANT'
  /** The rule's own times of sending. */
  schedule: Schedule | null
  /** The rule already told this recipient about this event, in an earlier, interrupted planning. */
  alreadyTold: boolean
  /** Is there a provider for the channel? */
  channelOpen: boolean
  /** Why the channel is closed to this event although there is one. */
  closed?: string | undefined
  /** IANA zone of the reader: their day, their quiet hours. */
  zone: string
  /** What the rule says about when and how; {} for a direct request. */
  policy: TimePolicy
  /** 1 to 10, for readers who set a threshold; null: the rule has none. */
  score: number | null
  /** An operator's silence, or a more important alert that covers this one. */
  standing: Standing | null
  /** The experiment that tells this person nothing; null: none does. */
  heldOut: { name: string } | null
  /** Once a rule, recipient and key; null: no cooldown. */
  cooldown: Cooldown | null
  /** How a text is known that was said before, or nearly so; null: the rule does not ask. */
  sameness: Sameness | null
  /** The limits it falls under, in the order of checking. */
  caps: readonly Cap[]
  usage: Usage
  /** The notification at hand: what counts once for all its channels is remembered under it. */
  telling: object
  /** The digest it joins; null: it goes by itself. */
  digest: DigestWish | null
  /** The digest that takes what a limit leaves over; null: it waits instead. */
  overflow: DigestWish | null
}

/** The parts of a rule's policy (server/match/policy.ts) that deciding reads. */
export interface TimePolicy {
  quietHours?: 'respect' | 'ignore' | 'in_app'
  deliveryWindows?: readonly DeliveryWindow[]
}

/** A direct request that an admin forced: neither wishes nor limits hold it up. */
export const isForced = ({ event }: { event: Pick<Event, 'direct'> }): boolean => event.direct?.force === true

/** Forced, or a test: what the reader wants, and when, does not matter. */
export const ignoresWishes = ({ event }: { event: Pick<Event, 'direct'> }): boolean =>
  event.direct !== undefined && (event.direct.force === true || event.direct.test === true)

export interface Standing {
  reason: Extract<Reason, 'silenced' | 'inhibited'>
  /** Which one, for the trace. */
  detail: string
}

export interface Cooldown {
  key: string
  /** Until when it holds once told, in milliseconds since 1970. */
  untilMs(toldAtMs: number): number
}

/**
 * One question about a candidate. Pure: everything it needs is in its arguments, the clock as well.
 *
 * @returns what it decides, or null when it has nothing to say
 */
export type Check = (candidate: Candidate, now: Date) => Decision | null
