import type { Sealer } from '../db/seal.ts'
import type { Queryable, Tx } from '../db/pool.ts'
import type { Event, TenantId } from '../types.ts'
import { ledgerWriter } from './commit.ts'
import type { CommitOptions } from './commit.ts'

/**
 * Events that the product tells of itself, such as that a source fell silent. They are written in the transaction
 * that makes them true, so that neither exists without the other, and planned by a worker like scheduled ones.
 */
export type WriteEvents = (tx: Tx, events: readonly Event[], now: Date) => Promise<void>

export interface OwnEventsParts {
  sealer: Sealer
  /** Makes the keys of tenants current (server/db/changes.ts). */
  look(q: Queryable): Promise<void>
  tenantKey(tenantId: TenantId): Buffer | undefined
  ledger(): Pick<CommitOptions, 'owner' | 'nextBatchId' | 'leaseSeconds' | 'roomFor'>
  /** Whose rows of the counters are raised (server/ledger/counters.ts). */
  shard: number
}

export function ownEvents({ sealer, look, tenantKey, ledger, shard }: OwnEventsParts): WriteEvents {
  return async (tx, events, now) => {
    if (events.length === 0) return
    await look(tx)
    const plans = events.map(event => {
      const key = tenantKey(event.tenantId)
      if (!key) throw new Error(`The data key of tenant ${event.tenantId} is not known`)
      return {
        event,
        sealed: sealer.seal(key, JSON.stringify({ data: event.data })),
        planned: false,
        planAt: now,
        trace: null,
        notifications: [],
        deliveries: 0,
        suppressed: 0,
      }
    })
    // A writer of its own for each: its buffers serve one transaction at a time, and requests overlap.
    await ledgerWriter(shard).commit(tx.client, plans, {
      ...ledger(),
      insertEvents: true,
      inTransaction: false,
      nowMs: now.getTime(),
    })
  }
}
