import type { EffectivePreference } from '../people/effective-preference.ts'
import type { Channel, Id, JsonObject, Priority, TenantId, UserId } from '../types.ts'
import type { Cap } from './usage.ts'

/** One possible delivery, as limits see it. */
export interface LimitQuestion {
  tenantId: TenantId
  /** Null: a bare address. */
  userId: UserId | null
  address: string | null
  channel: Channel
  category: string
  eventType: string
  priority: Priority
  ruleId: Id | null
  preference: EffectivePreference | null
  zone: string
  /** The person's attributes: the tier is one of them. */
  attributes: JsonObject
}

/** The limits in force, in memory, as of the last look. */
export interface LimitBook {
  caps(question: LimitQuestion): readonly Cap[]
}

const NO_CAPS: readonly Cap[] = []

/** Only what people ask for themselves: at most so many an hour, or a day. */
export const ownCaps: LimitBook = {
  caps({ preference, userId, priority, zone }) {
    if (preference === null || preference.caps.length === 0) return NO_CAPS
    return preference.caps.map(({ window, max, scope, channel, layer }) => ({
      key: `own:${userId}:${scope}:${channel ?? ''}:${window}`,
      max,
      window,
      zone,
      cost: 1,
      per: channel === null ? 'notification' : 'delivery',
      overflow: 'hold',
      // Limits of one's own are about being disturbed; what is critical disturbs.
      bypass: priority === 'CRITICAL',
      reason: 'limit',
      label: `${layer} ${max}/${window}`,
    }))
  },
}
