import type { Over } from '../reasons.ts'
import type { Channel, TenantId, UserId } from '../types.ts'

/** A limit that had no room for one delivery. */
export interface LimitHit {
  tenantId: TenantId
  over: Over
  userId: UserId | null
  channel: Channel
}

/** As often at most one line is written of the same counter and channel. */
const EVERY_MS = 60_000
/** Counters that are remembered; beyond that all of them are new again. */
const MAX_REMEMBERED = 1_000

/**
 * Writes a line when a limit is hit. A flood is one line a minute, with how many there were since the last one: a
 * limit is there to keep work small, and a line for each would be work again.
 */
export function limitHits(
  warn: (about: Record<string, unknown>, message: string) => void,
): (hit: LimitHit, nowMs: number) => void {
  const seen = new Map<string, { atMs: number; since: number }>()
  return ({ tenantId, over, userId, channel }, nowMs) => {
    const name = `${tenantId} ${channel} ${over.key}`
    const last = seen.get(name)
    if (last && nowMs - last.atMs < EVERY_MS) {
      last.since++
      return
    }
    if (!last && seen.size >= MAX_REMEMBERED) seen.clear()
    seen.set(name, { atMs: nowMs, since: 0 })
    const { label: limit, used } = over
    warn({ tenantId, userId, channel, limit, used, before: last?.since ?? 0 }, 'limit reached')
  }
}
