import type { PreferenceRow, UserFacts } from './facts.ts'

/** What may be noticed of a message that somebody reads. */
export interface Tracking {
  opens?: true
  clicks?: true
}

/** Scopes of preferences: a tenant's default switches it on, a person's own row says no to it, or yes. */
export const TRACK_OPENS = 'tracking:opens'
export const TRACK_CLICKS = 'tracking:clicks'

// Rows of a tenant are one array until they change; most tenants say nothing of it.
const ofTenant = new WeakMap<readonly PreferenceRow[], { opens: boolean; clicks: boolean }>()

/**
 * Whether opens and clicks of a mail to this person are noticed: as the person says, else as the tenant's default says,
 * else not. A bare address has nowhere to say no, so nothing is noticed there.
 */
export function trackingOf(
  user: Pick<UserFacts, 'preferences'> | null,
  defaults: readonly PreferenceRow[],
): Tracking | undefined {
  if (user === null) return undefined
  let tenant = ofTenant.get(defaults)
  if (!tenant) {
    tenant = {
      opens: saysOf(defaults, TRACK_OPENS) ?? false,
      clicks: saysOf(defaults, TRACK_CLICKS) ?? false,
    }
    ofTenant.set(defaults, tenant)
  }
  const opens = saysOf(user.preferences, TRACK_OPENS) ?? tenant.opens
  const clicks = saysOf(user.preferences, TRACK_CLICKS) ?? tenant.clicks
  if (!opens && !clicks) return undefined
  return { ...(opens && { opens }), ...(clicks && { clicks }) }
}

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

/** Its row about e-mail, else the one about every channel. */
function saysOf(rows: readonly PreferenceRow[], scope: string): boolean | undefined {
  let found: boolean | undefined
  for (const row of rows) {
    if (row.scope !== scope || row.enabled === null) continue
    if (row.channel === 'email') return row.enabled
    if (row.channel === null) found = row.enabled
  }
  return found
}
