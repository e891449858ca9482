import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { newId } from '../db/ids.ts'
import type { Channel, Event } from '../types.ts'

/**
 * What operators see of the breakers of all processes, and the event that tells them: `system.circuit_breaker.opened`
 * in the operator's tenant, at most once in five minutes for each breaker, whoever noticed it first.
 */
export interface BreakerBoard {
  changed(change: 'opened' | 'closed', lane: string, channel: Channel): void
}

const OPERATOR_TENANT = 1
const QUIET_MS = 5 * 60_000

const note = sql(
  'note_breaker',
  `insert into breakers as b (provider, state, opened_at, notified_at, updated_at)
   values ($1, $2, case when $2 = 'open' then $3::timestamptz end, case when $2 = 'open' then $3::timestamptz end, $3)
   on conflict (provider) do update set
     state = excluded.state,
     opened_at = coalesce(excluded.opened_at, b.opened_at),
     notified_at = case when $2 = 'open' and (b.notified_at is null or b.notified_at <= $4) then $3 else b.notified_at end,
     updated_at = excluded.updated_at
   returning state = 'open' and notified_at = $3 as first`,
)

export function breakerBoard(parts: {
  db: Db
  now(): Date
  publish(event: Event): Promise<unknown>
  onError(error: unknown): void
}): BreakerBoard {
  async function record(change: 'opened' | 'closed', lane: string, channel: Channel): Promise<void> {
    const now = parts.now()
    const row = await parts.db.one<{ first: boolean }>(note, [
      lane.slice(0, 500),
      change === 'opened' ? 'open' : 'closed',
      now,
      new Date(now.getTime() - QUIET_MS),
    ])
    if (!row?.first) return
    // The alert may itself want to go out through what has just failed; then it waits there, and in-app is there.
    await parts.publish({
      tenantId: OPERATOR_TENANT,
      id: newId(now.getTime()),
      source: 'carillon',
      type: 'system.circuit_breaker.opened',
      subject: lane.slice(0, 500),
      time: now,
      receivedAt: now,
      data: { provider: lane.split(' ')[0]!, lane, channel, service: lane, openedAt: now.toISOString() },
      priority: 'HIGH',
    })
  }
  return {
    changed: (change, lane, channel) => void record(change, lane, channel).catch(parts.onError),
  }
}
