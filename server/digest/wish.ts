import { DIGEST_EVENT } from './compose.ts'
import type { DigestPolicy, RulePolicy } from '../match/policy.ts'
import type { EffectivePreference } from '../people/effective-preference.ts'
import type { DigestWish } from '../reasons.ts'
import { nextTime } from '../time/schedule.ts'
import { windowOf } from '../time/window.ts'
import type { Channel, Id, JsonObject } from '../types.ts'

/** What is known of a delivery that may be collected. */
export interface Collectable {
  ruleId: Id | null
  eventType: string
  policy: RulePolicy
  /** The values of the rule's own key, of its digest or its group, for this event. */
  key: string
  preference: EffectivePreference | null
  channel: Channel
  /** IANA zone of the reader. */
  zone: string
}

const DEFAULT_MAX_ITEMS = 100

/** The digest of the rule, in the reader's own interval, else of the reader's frequency; null: it goes by itself. */
export function digestWish(about: Collectable, now: Date): DigestWish | null {
  // A digest of digests would never arrive.
  if (about.eventType === DIGEST_EVENT) return null
  return ruleDigest(about, now) ?? groupDigest(about, now) ?? frequencyDigest(about, now)
}

function ruleDigest(about: Collectable, now: Date): DigestWish | null {
  const { ruleId, policy, key, preference, channel, zone } = about
  const { digest } = policy
  if (digest === undefined || ruleId === null) return null
  if (digest.channels && !digest.channels.includes(channel)) return null
  const { windowSeconds, schedule, quietSeconds, maxItems } = digest
  const own = windowSeconds === undefined ? undefined : preference?.batchMinutes
  if (own === 0) return null
  const seconds = own === undefined ? windowSeconds : own * 60
  const latestAt =
    seconds !== undefined
      ? new Date(now.getTime() + seconds * 1000)
      : nextTime({ ...schedule, timezone: zone, anchorMs: 0 }, now)
  if (latestAt === null) return null
  const quietAt = quietSeconds === undefined ? latestAt : new Date(now.getTime() + quietSeconds * 1000)
  return {
    key: `rule:${ruleId}:${key}`.slice(0, 500),
    ruleId,
    reason: 'digest',
    closesAt: quietAt < latestAt ? quietAt : latestAt,
    latestAt,
    quietSeconds: quietSeconds ?? null,
    maxItems: maxItems ?? DEFAULT_MAX_ITEMS,
    spec: specOf(digest),
  }
}

const specOf = ({ retain = 'all', single = 'release', template }: DigestPolicy): JsonObject => ({
  retain,
  single,
  ...(template === undefined ? {} : { template }),
})

const DEFAULT_WAIT_SECONDS = 30
const DEFAULT_INTERVAL_SECONDS = 300

/**
 * A group's first message goes after its wait. What comes later goes once its interval has passed since the last
 * message; whether there was one is seen when it is collected (server/ledger/collect.ts), as another process may
 * be sending it now.
 */
function groupDigest({ ruleId, policy: { group }, key }: Collectable, now: Date): DigestWish | null {
  if (group === undefined || ruleId === null) return null
  const {
    waitSeconds = DEFAULT_WAIT_SECONDS,
    intervalSeconds = DEFAULT_INTERVAL_SECONDS,
    repeatSeconds,
  } = group
  const closesAt = new Date(now.getTime() + waitSeconds * 1000)
  return {
    key: `group:${ruleId}:${key}`.slice(0, 500),
    ruleId,
    reason: 'group',
    closesAt,
    latestAt: closesAt,
    quietSeconds: null,
    maxItems: MAX_GROUP_ITEMS,
    spec: {
      retain: 'all',
      single: 'release',
      intervalSeconds,
      ...(repeatSeconds !== undefined && { repeatSeconds }),
    },
  }
}

/** As many alerts as one message of an Alertmanager may hold. */
const MAX_GROUP_ITEMS = 1_000

/** In-app is a list already: only what interrupts is gathered. */
function frequencyDigest({ preference, channel, zone }: Collectable, now: Date): DigestWish | null {
  if (preference === null || preference.frequency === 'instant' || channel === 'in_app') return null
  const { frequency, digestAt = '09:00', digestWeekday = 1 } = preference
  const closesAt =
    frequency === 'hourly'
      ? new Date(windowOf('hour', zone, now.getTime()).end)
      : nextTime(
          {
            ...(frequency === 'daily'
              ? { daily: digestAt }
              : { weekly: { weekday: digestWeekday, time: digestAt } }),
            timezone: zone,
            anchorMs: 0,
          },
          now,
        )
  return closesAt && readerDigest(`frequency:${frequency}`, 'frequency', closesAt)
}

/** What a limit leaves over goes with the next hour. */
export function overflowWish(zone: string, now: Date): DigestWish {
  return readerDigest('overflow', 'attention', new Date(windowOf('hour', zone, now.getTime()).end))
}

const readerDigest = (key: string, reason: DigestWish['reason'], closesAt: Date): DigestWish => ({
  key,
  ruleId: null,
  reason,
  closesAt,
  latestAt: closesAt,
  quietSeconds: null,
  maxItems: DEFAULT_MAX_ITEMS,
  spec: SPEC,
})

const SPEC: JsonObject = Object.freeze({ retain: 'all', single: 'release' })
