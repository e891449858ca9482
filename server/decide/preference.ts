import { effectivePreference } from '../people/preferences.ts'
import type { Check } from './candidate.ts'

/** What the person, or else the tenant's default, wants on this channel. The layer that decided is the detail. */
export const preference: Check = ({ user, tenantDefaults, channel, scopes }) => {
  if (!user) return null
  const { enabled, layer } = effectivePreference(user.preferences, tenantDefaults, { channel, scopes })
  if (enabled) return null
  return {
    kind: 'skip',
    reason: layer.endsWith(':global') ? 'preference_global_off' : 'preference_channel_off',
    detail: layer,
  }
}
