import type { Place } from '../limits/usage.ts'
import { SEND } from '../reasons.ts'
import type { Decision } from '../reasons.ts'
import { address } from './address.ts'
import type { Candidate, Check } from './candidate.ts'
import { channelOpen } from './channel-open.ts'
import { collect } from './collect.ts'
import { cooldown, takeCooldown } from './cooldown.ts'
import { deliveryWindow } from './delivery-window.ts'
import { duplicate } from './duplicate.ts'
import { expiry } from './expiry.ts'
import { holdout } from './holdout.ts'
import { knownUser } from './known-user.ts'
import { MAX_HOLD_MS, limits, takeLimits } from './limits.ts'
import { minimumPriority } from './minimum-priority.ts'
import { preference } from './preference.ts'
import { quietHours } from './quiet-hours.ts'
import { repeated, takeRepeated } from './repeated.ts'
import { schedule, scheduledAt } from './schedule.ts'
import { standing } from './standing.ts'
import { topicLevel } from './topic-level.ts'

/**
 * Every question whether a delivery is made at all, in order. The first skip ends it. The holdout is the last, so that
 * whoever is held out would have been told otherwise.
 *
 * To add a reason: a file beside this one, a line here or below, a row in server/reasons.ts, a test
 * (CONTRIBUTING.md).
 */
export const CHECKS: readonly Check[] = [
  duplicate,
  expiry,
  standing,
  knownUser,
  preference,
  minimumPriority,
  topicLevel,
  channelOpen,
  address,
  cooldown,
  repeated,
  holdout,
]

/** Named times: the request's, then the rule's. What may not go before noon and not before one goes at one. */
export const APPOINTMENTS: readonly Check[] = [scheduledAt, schedule]

/**
 * Questions about an instant, asked again of each instant they lead to: the end of the quiet hours may lie in a
 * full day, and the next day begins in quiet hours.
 */
export const TIMES: readonly Check[] = [quietHours, deliveryWindow, limits]

/** Nothing is promised for later than so many steps from now. */
const MAX_STEPS = 200

export function decide(candidate: Candidate, now: Date): Decision {
  for (const check of CHECKS) {
    const decision = check(candidate, now)
    if (decision?.kind === 'skip') return decision
  }

  let held: Extract<Decision, { kind: 'hold' }> | null = null
  for (const check of APPOINTMENTS) {
    const decision = check(candidate, now)
    if (decision?.kind === 'skip') return decision
    if (decision?.kind === 'hold' && (held === null || decision.until > held.until)) held = decision
  }

  // What is collected meets the questions about time when its digest goes.
  const collected = collect(candidate, held?.until ?? now)
  if (collected) return collected

  for (let steps = 0, moved = true; moved; steps++) {
    moved = false
    for (const check of TIMES) {
      const at: Date = held?.until ?? now
      const decision = check(candidate, at)
      if (decision === null || decision.kind === 'send') continue
      if (decision.kind !== 'hold') return decision
      if (decision.until <= at) continue
      if (steps >= MAX_STEPS || decision.until.getTime() - now.getTime() > MAX_HOLD_MS) {
        return { kind: 'skip', reason: 'over_limit', detail: `${decision.reason}: no free time` }
      }
      // The window that was full first is the one that was hit.
      held = held?.over ? { ...decision, over: held.over } : decision
      moved = true
    }
  }
  if (held === null) return SEND
  // Waiting until after it has expired would be a promise that cannot be kept.
  if (candidate.expiresAt && held.until >= candidate.expiresAt) {
    return { kind: 'skip', reason: 'expired', detail: `${held.reason} until ${held.until.toISOString()}` }
  }
  return held
}

/** What a delivery that goes at this instant uses up, and the places it takes in windows. To be called once it is sure that it goes. */
export function use(candidate: Candidate, at: Date): Place[] {
  told(candidate, at)
  return takeLimits(candidate, at)
}

/** What counts as said once it goes, or is collected to go with others: not said again too soon. */
export function told(candidate: Candidate, at: Date): void {
  takeCooldown(candidate, at)
  takeRepeated(candidate, at)
}
