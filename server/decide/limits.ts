import { capWindow, claimName, usageName } from '../limits/usage.ts'
import type { Cap, Place } from '../limits/usage.ts'
import type { Decision, Over, Reason } from '../reasons.ts'
import { isForced } from './candidate.ts'
import type { Candidate, Check } from './candidate.ts'

/** The parts of a candidate that limits are about. */
export type Limited = Pick<Candidate, 'channel' | 'caps' | 'usage' | 'telling' | 'overflow'> & {
  event: Pick<Candidate['event'], 'tenantId' | 'direct'>
}

/**
 * Every limit the delivery falls under, at one instant. In-app is stored whatever the limits say: they are about
 * interrupting people, and nothing may vanish.
 */
export const limits: Check = (candidate, at) => limitsAt(candidate, at)

/** The same of what is not a candidate, or not yet. What is left out outweighs what is gathered, and that what waits. */
export function limitsAt(candidate: Limited, at: Date): Decision | null {
  if (candidate.channel === 'in_app' || isForced(candidate)) return null
  const wish = candidate.overflow
  let gathered: Decision | null = null
  let held: Extract<Decision, { kind: 'hold' }> | null = null
  for (const cap of candidate.caps) {
    if (cap.bypass) continue
    const full = fullAt(candidate, cap, at.getTime())
    if (full === null) continue
    const { over, untilMs } = full
    const detail = untilMs === NEVER ? cap.label : `${cap.label}: ${over.used} used${risk(cap, over)}`
    if (cap.overflow === 'digest' && wish) {
      gathered ??= { kind: 'digest', wish, until: wish.closesAt, reason: wish.reason, detail, over }
    } else if (untilMs === NEVER || cap.overflow === 'skip') {
      const reason = OWN_WORD.has(cap.reason) ? cap.reason : 'over_limit'
      return { kind: 'skip', reason, detail, over }
    } else {
      const until = new Date(untilMs)
      if (held === null || until > held.until)
        held = { kind: 'hold', until, reason: cap.reason, detail, over }
    }
  }
  return gathered ?? held
}

/** What is left out for these is told by their own name. */
const OWN_WORD: ReadonlySet<Reason> = new Set(['spam', 'channel_not_allowed'])

/** How far beyond what is usual: 100 is the bound. */
const risk = ({ cost, max }: Cap, { suspicious, used }: Over): string =>
  suspicious ? `, risk ${Math.round((100 * (used + cost)) / max)}` : ''

/** Nothing is promised for later than so long from now. */
export const MAX_HOLD_MS = 366 * 86_400_000

/** It can never fit: the bound is zero, or less than this one costs. */
const NEVER = Number.POSITIVE_INFINITY

/** Null: there is room. Else when there may be. */
function fullAt(
  { event: { tenantId }, usage, telling }: Limited,
  cap: Cap,
  atMs: number,
): { over: Over; untilMs: number } | null {
  const { key, label, window, max, cost } = cap
  const suspicious = cap.reason === 'spam' || cap.reason === 'throttled'
  if (window === 'gap') {
    if (usage.has(telling, claimName(tenantId, key))) return null
    const untilMs = usage.claimedUntil(tenantId, key)
    return untilMs > atMs
      ? { over: { key, label, windowMs: untilMs, max, used: 1, suspicious }, untilMs }
      : null
  }
  if (cost > max)
    return { over: { key, label, windowMs: atMs, max, used: 0, suspicious: false }, untilMs: NEVER }
  const { start, end } = capWindow(window, cap, atMs)
  if (cap.per === 'notification' && usage.has(telling, usageName(tenantId, key, start))) return null
  const used = usage.used(tenantId, key, start)
  if (used + cost <= max) return null
  const untilMs =
    cap.overflow === 'hold' ? usage.freeAfter(tenantId, window, cap, atMs, atMs + MAX_HOLD_MS, telling) : end
  return { over: { key, label, windowMs: start, max, used, suspicious }, untilMs }
}

/** Counts a delivery that goes at this instant against all its limits, those it passes included. */
export function takeLimits({ channel, caps, event, usage, telling }: Candidate, at: Date): Place[] {
  if (channel === 'in_app' || caps.length === 0) return NO_PLACES
  const places: Place[] = []
  const { tenantId } = event
  const forced = isForced({ event })
  for (const cap of caps) {
    const { window } = cap
    if (window !== 'gap') {
      const place = usage.take(
        tenantId,
        forced ? { ...cap, bypass: true } : cap,
        capWindow(window, cap, at.getTime()).start,
        telling,
      )
      if (place) places.push(place)
    } else if (!usage.has(telling, claimName(tenantId, cap.key))) {
      usage.claim(tenantId, cap.key, at.getTime() + (cap.gapSeconds ?? 0) * 1000, telling)
    }
  }
  return places
}

const NO_PLACES: Place[] = []
