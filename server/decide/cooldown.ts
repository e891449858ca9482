import { claimName } from '../limits/usage.ts'
import type { Candidate, Check } from './candidate.ts'

/**
 * Whoever was told is not told again before the cooldown is over. All channels of one notification are one telling:
 * the claim that its first channel made does not stop its second.
 */
export const cooldown: Check = ({ cooldown: rule, usage, telling, event: { tenantId } }, now) => {
  if (rule === null || usage.has(telling, claimName(tenantId, rule.key))) return null
  const until = usage.claimedUntil(tenantId, rule.key)
  return until > now.getTime()
    ? { kind: 'skip', reason: 'cooldown', detail: `until ${new Date(until).toISOString()}` }
    : null
}

/** From now on they were told: also of what waits for its digest. */
export function takeCooldown(
  { cooldown: rule, usage, telling, event: { tenantId } }: Candidate,
  at: Date,
): void {
  if (rule === null || usage.has(telling, claimName(tenantId, rule.key))) return
  usage.claim(tenantId, rule.key, rule.untilMs(at.getTime()), telling)
}
