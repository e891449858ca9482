import type { Channel } from '../types.ts'

/** How often, and how far apart, a channel is tried. */
export interface RetryPolicy {
  /** Tries in all, the first included. */
  attempts: number
  firstMs: number
  factor: number
  capMs: number
  /** Each wait is spread by so much of itself either way, so that failures of one moment do not return as one. */
  jitter: number
  /**
   * After an `unknown` outcome: `resend` where telling a person twice is the smaller harm or the far end
   * recognises our idempotency key, `hold` where an operator shall look first.
   */
  unknown: 'resend' | 'hold'
}

const policy = (
  attempts: number,
  firstMs: number,
  capMs: number,
  unknown: RetryPolicy['unknown'],
  factor = 2,
): RetryPolicy => ({
  attempts,
  firstMs,
  factor,
  capMs,
  jitter: 0.25,
  unknown,
})

export const RETRY: Record<Channel, RetryPolicy> = {
  in_app: policy(5, 1000, 60_000, 'resend'), // only a held one is ever tried: a write into our own database
  email: policy(5, 1000, 300_000, 'hold'),
  sms: policy(3, 2000, 60_000, 'hold', 3),
  whatsapp: policy(3, 2000, 60_000, 'hold', 3),
  voice: policy(3, 2000, 60_000, 'hold', 3),
  push: policy(4, 1000, 15_000, 'resend', 5),
  web_push: policy(4, 1000, 15_000, 'resend', 5),
  slack: policy(3, 1000, 60_000, 'hold'),
  webhook: policy(3, 1000, 60_000, 'resend'),
  pagerduty: policy(3, 1000, 60_000, 'resend'),
  discord: policy(3, 1000, 60_000, 'hold'),
  telegram: policy(3, 1000, 60_000, 'hold'),
  teams: policy(3, 1000, 60_000, 'hold'),
  ntfy: policy(4, 1000, 60_000, 'resend'), // a push by another way
}

/** A provider that asks us to wait is obeyed beyond the tries of its policy, up to so many tries in all. */
export const MAX_WAITS = 20

/**
 * When to try again after `tries` tries; null when they are used up.
 *
 * @param random 0 ≤ random < 1
 */
export function nextTry(policy: RetryPolicy, tries: number, now: Date, random: number): Date | null {
  if (tries >= policy.attempts) return null
  const wait = Math.min(policy.capMs, policy.firstMs * policy.factor ** (tries - 1))
  return new Date(now.getTime() + Math.round(wait * (1 + policy.jitter * (2 * random - 1))))
}

/** Of all whom a far end told the same time, some come a little later: at most so much. */
const MAX_SPREAD_MS = 5_000

/**
 * When to come back to a far end that named a time: not before it, never at once, and not together with all others.
 *
 * @param random 0 ≤ random < 1
 */
export function afterPause(policy: RetryPolicy, untilMs: number, now: Date, random: number): number {
  const wait = Math.max(untilMs - now.getTime(), policy.firstMs)
  return now.getTime() + wait + Math.round(random * Math.min(wait / 10, MAX_SPREAD_MS))
}
