import type { Channel } from '../types.ts'
import type { PreferenceRow } from './facts.ts'

/** Which layer of preferences had the last word; it goes into the decision trace. */
export type PreferenceLayer = 'user:global' | 'user:channel' | 'tenant:global' | 'tenant:channel' | 'built_in'

export interface EffectivePreference {
  enabled: boolean
  layer: PreferenceLayer
}

/**
 * Whether this person is to be told anything on this channel. The first of these with an opinion decides:
 *
 * 1. the person switched everything off                           user:global
 * 2. what the person says about the channel                       user:channel
 * 3. the tenant's default is everything off, and the person did
 *    not switch everything on                                     tenant:global
 * 4. the tenant's default for the channel                         tenant:channel
 * 5. every channel is on                                          built_in
 *
 * So a layer's global "off" outweighs its own channels, and whatever a person says outweighs the tenant.
 * `scopes` are the others this notification falls under ('category:x', 'topic:x', 'rule:<id>'); none has
 * preferences of its own yet.
 */
export function effectivePreference(
  userRows: readonly PreferenceRow[],
  tenantDefaultRows: readonly PreferenceRow[],
  { channel }: { channel: Channel; scopes: readonly string[] },
): EffectivePreference {
  const own = opinion(userRows, null)
  if (own === false) return { enabled: false, layer: 'user:global' }
  const ownChannel = opinion(userRows, channel)
  if (ownChannel !== null) return { enabled: ownChannel, layer: 'user:channel' }
  if (own === null && opinion(tenantDefaultRows, null) === false)
    return { enabled: false, layer: 'tenant:global' }
  const tenantChannel = opinion(tenantDefaultRows, channel)
  if (tenantChannel !== null) return { enabled: tenantChannel, layer: 'tenant:channel' }
  return BUILT_IN
}

const BUILT_IN: EffectivePreference = Object.freeze({ enabled: true, layer: 'built_in' })

/** Of the global scope; null channel: about all of them. */
function opinion(rows: readonly PreferenceRow[], channel: Channel | null): boolean | null {
  for (const row of rows) if (row.scope === '' && row.channel === channel) return row.enabled
  return null
}
