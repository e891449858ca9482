import { SEND } from '../reasons.ts'
import type { Decision } from '../reasons.ts'
import { address } from './address.ts'
import type { Candidate, Check } from './candidate.ts'
import { channelOpen } from './channel-open.ts'
import { duplicate } from './duplicate.ts'
import { expiry } from './expiry.ts'
import { knownUser } from './known-user.ts'
import { preference } from './preference.ts'
import { schedule, scheduledAt } from './schedule.ts'
import { topicLevel } from './topic-level.ts'

/**
 * Every question that is asked about a delivery, in order. The first skip ends it; of several holds the latest
 * instant wins, because what may not go before noon and not before one goes at one.
 *
 * To add a reason: a file beside this one, a line here, a row in server/reasons.ts, a test (CONTRIBUTING.md).
 */
export const CHECKS: readonly Check[] = [
  duplicate,
  expiry,
  knownUser,
  preference,
  topicLevel,
  channelOpen,
  address,
  scheduledAt,
  schedule,
]

export function decide(candidate: Candidate, now: Date): Decision {
  let held: Extract<Decision, { kind: 'hold' }> | null = null
  for (const check of CHECKS) {
    const decision = check(candidate, now)
    if (decision === null || decision.kind === 'send') continue
    if (decision.kind !== 'hold') return decision
    if (held === null || decision.until > held.until) held = decision
  }
  if (held === null) return SEND
  // Waiting until after it has expired would be a promise that cannot be kept.
  if (candidate.expiresAt && held.until >= candidate.expiresAt) {
    return { kind: 'skip', reason: 'expired', detail: `${held.reason} until ${held.until.toISOString()}` }
  }
  return held
}
