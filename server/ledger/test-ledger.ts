import { idTime, newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Event, Id, Outcome, Priority, TenantId } from '../types.ts'
import { claimDueJobs, claimSpilled } from './claim.ts'
import type { StoredDelivery } from './claim.ts'
import { ledgerWriter } from './commit.ts'
import type { Batch, LedgerWriter } from './commit.ts'
import type { PlannedCollect, PlannedEvent, PlannedHold, PlannedNotification } from './plan.ts'
import { settler } from './settle.ts'
import type { Settlement, Settler } from './settle.ts'

/** For tests: a ledger that is filled and emptied by the functions that do it in earnest, without any provider. */
export interface TestLedger {
  /** Commits these in one batch a tenant and priority. */
  commit(
    plans: PlannedEvent[],
    options?: { lane?: number; spill?: boolean; inserted?: boolean },
  ): Promise<Batch[]>
  /** Settles deliveries of batches or jobs we hold. */
  settle(settlements: Settlement[], lane?: number): Promise<void>
  claimBatches(): Promise<Settlement[]>
  claimJobs(now: Date): Promise<Settlement[]>
  /** Everything a batch of ours sends, as yet without an attempt. */
  deliveriesOf(batch: Batch): Settlement[]
}

export const TEST_OWNER = 77
const LEASE_SECONDS = 30

export function testLedger(db: Db): TestLedger {
  const writers = new Map<number, { writer: LedgerWriter; settler: Settler }>()
  let batches = 0
  const lane = (shard: number) => {
    const found = writers.get(shard) ?? { writer: ledgerWriter(shard), settler: settler(shard) }
    writers.set(shard, found)
    return found
  }
  return {
    async commit(plans, { lane: shard = 1, spill = false, inserted = false } = {}) {
      const client = await db.pool.connect()
      try {
        const { batches: made } = await lane(shard).writer.commit(client, plans, {
          owner: TEST_OWNER,
          nextBatchId: () => TEST_OWNER * 0x1_0000_0000 + batches++,
          leaseSeconds: LEASE_SECONDS,
          roomFor: () => !spill,
          insertEvents: !inserted,
          inTransaction: false,
          nowMs: Date.now(),
        })
        return made
      } finally {
        client.release()
      }
    },
    async settle(settlements, shard = 1) {
      const client = await db.pool.connect()
      try {
        await lane(shard).settler.write(client, settlements, TEST_OWNER, new Date())
      } finally {
        client.release()
      }
    },
    async claimBatches() {
      const claimed = await claimSpilled(db, {
        owner: TEST_OWNER,
        now: new Date(),
        perTenant: 100,
        most: 100,
      })
      return claimed.flatMap(({ id, deliveries }) => {
        const batch = { id, owner: TEST_OWNER, left: deliveries.length }
        return deliveries.map(delivery => settlementOf(delivery, batch))
      })
    },
    async claimJobs(now) {
      const jobs = await claimDueJobs(db, {
        owner: TEST_OWNER,
        now,
        perTenant: 1000,
        most: 1000,
        channels: CHANNELS,
      })
      return jobs.map(job => settlementOf(job, null))
    },
    deliveriesOf(batch) {
      const live = { id: batch.id, owner: TEST_OWNER, left: batch.sends }
      return batch.notifications.flatMap(n =>
        n.channels
          .filter(channel => channel !== 'in_app' && !n.holds.some(hold => hold.channel === channel))
          .map(channel => ({
            tenantId: n.tenantId,
            notificationId: n.id,
            channel,
            priority: n.priority,
            eventType: n.event.type,
            eventId: n.event.id,
            attempts: [],
            again: null,
            batch: live,
            hasFallback: n.fallback.length > 0,
          })),
      )
    },
  }
}

const settlementOf = (d: StoredDelivery, batch: Settlement['batch']): Settlement & { tries: number } => ({
  tenantId: d.tenantId,
  notificationId: d.notificationId,
  channel: d.channel,
  priority: d.priority,
  eventType: d.eventType,
  eventId: d.eventId,
  attempts: [],
  again: null,
  batch,
  hasFallback: d.hasFallback,
  tries: d.tries,
})

/** The settlement with one more try, which ends it. */
export function ended(
  settlement: Settlement & { tries?: number },
  outcome: Outcome,
  code: string | null = null,
): Settlement {
  return { ...settlement, attempts: [tryOf(settlement, outcome, true, code)], again: null }
}

/** The settlement with one more try, after which it waits for `until`. */
export function triedAgain(settlement: Settlement & { tries?: number }, until: Date): Settlement {
  const tries = (settlement.tries ?? 0) + 1
  return {
    ...settlement,
    attempts: [tryOf(settlement, 'failed', false, 'timeout')],
    again: { kind: 'retry', runAtMs: until.getTime(), reason: 'retry', provider: null, attempt: tries },
  }
}

const tryOf = (
  s: Settlement & { tries?: number },
  outcome: Outcome,
  final: boolean,
  code: string | null,
) => ({
  tenantId: s.tenantId,
  notificationId: s.notificationId,
  channel: s.channel,
  attempt: (s.tries ?? 0) + 1,
  outcome,
  final,
  atMs: Date.now(),
  durationMs: 12,
  provider: 'testmail',
  messageId: null,
  code,
  error: code,
  cost: null,
})

export interface TestNotification {
  channels: Channel[]
  recipientId?: string
  fallback?: Channel[]
  collects?: PlannedCollect[]
  holds?: PlannedHold[]
  priority?: Priority
  ruleId?: Id
  sealed?: Buffer
}

/** An event with its plan, as the pipeline would hand it over. */
export function testPlan(
  tenantId: TenantId,
  notifications: TestNotification[],
  more: { type?: string; suppressed?: number; planned?: boolean; trace?: object; receivedAt?: Date } = {},
): PlannedEvent {
  const receivedAt = more.receivedAt ?? new Date()
  const event: Event = {
    tenantId,
    id: newId(),
    source: '/shop',
    type: more.type ?? 'commerce.order.shipped',
    time: receivedAt,
    receivedAt,
    data: {},
  }
  const planned: PlannedNotification[] = notifications.map(n => ({
    id: newId(),
    tenantId,
    event,
    recipientType: 'user',
    recipientId: n.recipientId ?? 'alice',
    ruleId: n.ruleId ?? null,
    templateId: null,
    revision: null,
    locale: null,
    priority: n.priority ?? 'NORMAL',
    category: 'orders',
    channels: n.channels,
    fallback: n.fallback ?? [],
    holds: n.holds ?? [],
    collects: n.collects ?? [],
    expiresAt: null,
    scheduledAt: null,
    bodies: {},
    sealed: n.sealed ?? Buffer.from('sealed'),
  }))
  const suppressed = more.suppressed ?? 0
  return {
    event,
    sealed: Buffer.from('sealed'),
    planned: more.planned ?? true,
    trace: more.trace ? JSON.stringify(more.trace) : null,
    notifications: planned,
    deliveries: planned.reduce((sum, n) => sum + n.channels.length, suppressed),
    suppressed,
  }
}

/** The day of the counters that a notification's, or an event's, changes go to. */
export const dayOfId = (id: Id): string => new Date(idTime(id)).toISOString().slice(0, 10)

const insertTenant = sql(
  'test_ledger_tenant',
  `insert into tenants (name, data_key) values ($1, '') returning id`,
)

export const testTenant = async (db: Db, name: string): Promise<TenantId> =>
  (await db.one<{ id: TenantId }>(insertTenant, [name]))!.id
