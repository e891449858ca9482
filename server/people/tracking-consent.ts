import type { Channel } from '../types.ts'
import type { PreferenceRow, UserFacts } from './facts.ts'

/** What may be noticed of a message that somebody reads. */
export interface Tracking {
  opens?: true
  clicks?: true
}

/** What people read as text, addresses and all. */
export const LINKED_TEXTS: readonly Channel[] = ['sms', 'whatsapp', 'push', 'web_push']

/** Scope of a tenant's default that makes links in texts short (server/track/short-links.ts). */
export const SHORT_LINKS = 'links:short'
/** Scopes of preferences: a tenant's default switches it on, a person's own row says no to it, or yes. */
export const TRACK_OPENS = 'tracking:opens'
export const TRACK_CLICKS = 'tracking:clicks'

// Rows of a tenant are one array until they change; most tenants say nothing of it.
type Said = Record<typeof TRACK_OPENS | typeof TRACK_CLICKS | typeof SHORT_LINKS, boolean>
const ofTenant = new WeakMap<readonly PreferenceRow[], Map<Channel, Said>>()

function tenantSays(defaults: readonly PreferenceRow[], channel: Channel): Said {
  let channels = ofTenant.get(defaults)
  if (!channels) ofTenant.set(defaults, (channels = new Map()))
  let said = channels.get(channel)
  if (!said) {
    const on = (scope: string) => saysOf(defaults, scope, channel) ?? false
    said = {
      [TRACK_OPENS]: on(TRACK_OPENS),
      [TRACK_CLICKS]: on(TRACK_CLICKS),
      [SHORT_LINKS]: on(SHORT_LINKS),
    }
    channels.set(channel, said)
  }
  return said
}

/**
 * Whether opens and clicks of a message to this person are noticed: as the person says, else as the tenant's default
 * says, else not. A bare address has nowhere to say no, so nothing is noticed there.
 */
export function trackingOf(
  user: Pick<UserFacts, 'preferences'> | null,
  defaults: readonly PreferenceRow[],
  channel: Channel = 'email',
): Tracking | undefined {
  if (user === null) return undefined
  const tenant = tenantSays(defaults, channel)
  const opens = saysOf(user.preferences, TRACK_OPENS, channel) ?? tenant[TRACK_OPENS]
  const clicks = saysOf(user.preferences, TRACK_CLICKS, channel) ?? tenant[TRACK_CLICKS]
  if (!opens && !clicks) return undefined
  return { ...(opens && { opens }), ...(clicks && { clicks }) }
}

/** Whether a tenant wants the links in its texts short, unless a template says otherwise. */
export const wantsShortLinks = (defaults: readonly PreferenceRow[], channel: Channel): boolean =>
  tenantSays(defaults, channel)[SHORT_LINKS]

/**
 * What the preference page shows in its one box: undefined where neither the tenant nor the person ever said anything
 * of it, so that people are not asked about what nobody does.
 */
export function trackingShown(
  own: readonly PreferenceRow[],
  defaults: readonly PreferenceRow[],
): boolean | undefined {
  const said = [...own, ...defaults].some(({ scope, enabled }) => isTracking(scope) && enabled !== null)
  return said ? trackingOf({ preferences: own }, defaults) !== undefined : undefined
}

const isTracking = (scope: string): boolean => scope === TRACK_OPENS || scope === TRACK_CLICKS

/** Its row about the channel, else the one about every channel. */
function saysOf(rows: readonly PreferenceRow[], scope: string, channel: Channel): boolean | undefined {
  let found: boolean | undefined
  for (const row of rows) {
    if (row.scope !== scope || row.enabled === null) continue
    if (row.channel === channel) return row.enabled
    if (row.channel === null) found = row.enabled
  }
  return found
}
