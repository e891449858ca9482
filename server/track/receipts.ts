import { idTime, newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db, Tx } from '../db/pool.ts'
import type { Receipt } from '../deliver/provider.ts'
import { counterDelta } from '../ledger/counters.ts'
import { CHANNEL_CODE, OUTCOME_CODE } from '../ledger/rows.ts'
import { forward } from '../ledger/status.ts'
import { OUTCOMES } from '../types.ts'
import type { Channel, Event, Id, Outcome, TenantId } from '../types.ts'

/**
 * What vendors tell later about deliveries: moved forward only, counted in the same transaction, so that the books
 * balance at every moment. Each receipt is a transaction of its own: one that cannot be used does not hold up others.
 */
export interface Receipts {
  /** @returns how many found their delivery */
  take(provider: string, channel: Channel, receipts: readonly Receipt[]): Promise<number>
  close(): Promise<void>
}

export interface ReceiptParts {
  db: Db
  /** The address a delivery went to, as its sealed content says; undefined for the erased. */
  addressOf(tenantId: TenantId, notificationId: Id, channel: Channel): Promise<string | undefined>
  /** Tells the application. */
  publish(event: Event): Promise<unknown>
  now(): Date
  shard: number
  onError(error: unknown): void
}

interface Found {
  tenant_id: TenantId
  notification_id: Id
  outcome: number
  final: boolean
  receipt: number | null
  opened_at: Date | null
  clicked_at: Date | null
}

// A receipt may come before its attempt is written: outcomes are gathered for some milliseconds, and after a crash
// they come late. Then it is tried again.
const AGAIN_MS = [1_000, 5_000, 30_000]
const MAX_WAITING = 10_000
/** Of one address, before it counts as one that does not exist (PFM-221 counts the same way). */
export const SOFT_BOUNCES = 5

// Providers of the installation serve every tenant, so every tenant may be meant; the list makes the index usable.
const listTenants = sql('receipt_tenants', `select id from tenants`)
const byMessage = sql(
  'receipt_by_message',
  `select a.tenant_id, a.notification_id from attempts a
   where a.tenant_id = any ($1::int[]) and a.provider = $2 and a.message_id = $3 and a.channel = $4 limit 1`,
)
const byNotification = sql(
  'receipt_by_notification',
  `select n.tenant_id, n.id as notification_id from notifications n where n.tenant_id = any ($1::int[]) and n.id = $2`,
)
const standing = sql(
  'receipt_standing',
  `select a.tenant_id, a.notification_id, a.outcome, a.final, s.outcome as receipt, s.opened_at, s.clicked_at
   from (
     select tenant_id, notification_id, outcome, final from attempts
     where tenant_id = $1 and notification_id = $2 and channel = $3
     order by attempt desc, final desc, worker desc limit 1
   ) a
   left join delivery_state s on s.tenant_id = a.tenant_id and s.notification_id = a.notification_id and s.channel = $3`,
)
// Receipts of one delivery one after the other, also between processes.
const lock = sql('receipt_lock', `select pg_advisory_xact_lock(hashtextextended($1, 11))`)
const putState = sql(
  'put_delivery_state',
  `insert into delivery_state (tenant_id, notification_id, channel, outcome, at, opened_at, clicked_at, detail)
   values ($1, $2, $3, $4, $5, $6, $7, $8)
   on conflict (tenant_id, notification_id, channel) do update
     set outcome = excluded.outcome, at = excluded.at, detail = coalesce(excluded.detail, delivery_state.detail),
         opened_at = coalesce(delivery_state.opened_at, excluded.opened_at),
         clicked_at = coalesce(delivery_state.clicked_at, excluded.clicked_at)`,
)
const insertEngagement = sql(
  'insert_receipt_engagement',
  `insert into engagement (tenant_id, id, notification_id, channel, kind, at, detail)
   select $1, $2, $3, $4, $5, $6, $7
   where not exists (
     select from engagement e where e.tenant_id = $1 and e.notification_id = $3 and e.channel = $4
       and e.kind = $5 and e.detail ->> 'receipt' = $8)`,
)
const suppress = sql(
  'suppress_address',
  `insert into suppressions as s (tenant_id, channel, address, reason, source, expires_at)
   values ($1, $2, $3, $4, $5, null)
   on conflict (tenant_id, channel, address) do update set reason = excluded.reason, source = excluded.source, expires_at = null
   where s.expires_at is not null
   returning true as new`,
)
const countBounce = sql(
  'count_soft_bounce',
  `insert into counters as c (tenant_id, key, window_at, count) values ($1, $2, to_timestamp(0), 1)
   on conflict (tenant_id, key, window_at) do update set count = c.count + 1 returning count`,
)
const forgetBounces = sql('forget_soft_bounces', `delete from counters where tenant_id = $1 and key = $2`)

export function receipts(parts: ReceiptParts): Receipts {
  const { db } = parts
  let waiting = 0
  let closed = false
  const timers = new Set<NodeJS.Timeout>()
  const delta = counterDelta()

  const tenants = async (): Promise<TenantId[]> =>
    (await db.rows<{ id: TenantId }>(listTenants)).map(({ id }) => id)

  async function take(
    provider: string,
    channel: Channel,
    list: readonly Receipt[],
    round: number,
  ): Promise<number> {
    let found = 0
    const lost: Receipt[] = []
    for (const receipt of list) {
      try {
        if (await one(provider, channel, receipt)) found++
        else lost.push(receipt)
      } catch (error) {
        parts.onError(error)
        lost.push(receipt)
      }
    }
    const wait = AGAIN_MS[round]
    if (lost.length > 0 && wait !== undefined && !closed && waiting + lost.length <= MAX_WAITING) {
      waiting += lost.length
      const timer = setTimeout(() => {
        timers.delete(timer)
        waiting -= lost.length
        void take(provider, channel, lost, round + 1)
      }, wait)
      timer.unref()
      timers.add(timer)
    }
    return found
  }

  async function one(provider: string, channel: Channel, receipt: Receipt): Promise<boolean> {
    const delivery = await find(provider, channel, receipt)
    if (!delivery) {
      // About an address alone: an inbound STOP, or a complaint of somebody we no longer know the message of.
      if (receipt.address === undefined || receipt.providerMessageId !== undefined) return false
      if (receipt.kind !== 'unsubscribed' && receipt.kind !== 'complained') return true
      for (const tenantId of await tenants()) {
        await keepAway(
          tenantId,
          channel,
          receipt.address,
          receipt.kind === 'complained' ? 'complaint' : 'unsubscribe',
          provider,
        )
      }
      return true
    }
    const { tenant_id: tenantId, notification_id: id } = delivery
    const moved = await db.tx(tx => move(tx, tenantId, id, channel, provider, receipt))
    if (!moved) return false
    await afterwards(tenantId, id, channel, provider, receipt)
    return true
  }

  async function find(provider: string, channel: Channel, { providerMessageId, notificationId }: Receipt) {
    const all = await tenants()
    if (notificationId !== undefined) {
      const row = await db.one<Pick<Found, 'tenant_id' | 'notification_id'>>(byNotification, [
        all,
        notificationId,
      ])
      if (row) return row
    }
    if (providerMessageId === undefined) return undefined
    return db.one<Pick<Found, 'tenant_id' | 'notification_id'>>(byMessage, [
      all,
      provider,
      providerMessageId,
      CHANNEL_CODE[channel],
    ])
  }

  /** False when the delivery has not ended yet as far as we know: the receipt was faster than we. */
  async function move(
    tx: Tx,
    tenantId: TenantId,
    id: Id,
    channel: Channel,
    provider: string,
    receipt: Receipt,
  ): Promise<boolean> {
    const code = CHANNEL_CODE[channel]
    await tx.run(lock, [`${tenantId} ${id} ${channel}`])
    const found = await tx.one<Found>(standing, [tenantId, id, code])
    if (!found?.final) return false
    const first = OUTCOMES[found.outcome]!
    const current = found.receipt === null ? first : forward(first, OUTCOMES[found.receipt]!)
    const said = SAID[receipt.kind]
    const next = said === undefined ? current : forward(current, said)
    const opened = receipt.kind === 'opened' || receipt.kind === 'clicked' ? receipt.at : null
    const clicked = receipt.kind === 'clicked' ? receipt.at : null
    const fresh = next !== current || (opened && !found.opened_at) || (clicked && !found.clicked_at)
    if (fresh) {
      await tx.run(putState, [
        tenantId,
        id,
        code,
        OUTCOME_CODE[next],
        receipt.at,
        opened,
        clicked,
        receipt.kind === 'bounced' || receipt.kind === 'failed'
          ? (receipt.vendorCode ?? receipt.code ?? null)
          : null,
      ])
    }
    if (next !== current) {
      delta.settled(tenantId, idTime(id), channel, current, -1)
      delta.settled(tenantId, idTime(id), channel, next)
      await tx.client.query(delta.take(parts.shard))
    }
    const kind = ENGAGED[receipt.kind]
    if (kind) {
      const receiptId = receipt.receiptId ?? `${receipt.kind} ${receipt.at.getTime()}`
      await tx.run(insertEngagement, [
        tenantId,
        newId(parts.now().getTime()),
        id,
        code,
        kind,
        receipt.at,
        JSON.stringify({
          provider,
          receipt: receiptId,
          ...(receipt.detail === undefined ? {} : { detail: receipt.detail.slice(0, 2000) }),
        }),
        receiptId,
      ])
    }
    return true
  }

  /** What a receipt means for the address: whoever bounced or complained is not written to again. */
  async function afterwards(
    tenantId: TenantId,
    id: Id,
    channel: Channel,
    provider: string,
    receipt: Receipt,
  ): Promise<void> {
    const { kind } = receipt
    if (
      kind !== 'bounced' &&
      kind !== 'complained' &&
      kind !== 'unsubscribed' &&
      kind !== 'deferred' &&
      kind !== 'delivered'
    )
      return
    const went = await parts.addressOf(tenantId, id, channel)
    if (went === undefined) return
    // A copy to somebody else has the same message id: their bounce says nothing about this address.
    if (receipt.address !== undefined && receipt.address.toLowerCase() !== went.toLowerCase()) return
    const key = `bounce:${CHANNEL_CODE[channel]}:${went}`.slice(0, 500)
    if (kind === 'delivered') return void (await db.run(forgetBounces, [tenantId, key]))
    if (kind === 'deferred') {
      const { count } = (await db.one<{ count: number }>(countBounce, [tenantId, key]))!
      if (count < SOFT_BOUNCES) return
    }
    const reason =
      kind === 'complained' ? 'complaint' : kind === 'unsubscribed' ? 'unsubscribe' : 'hard_bounce'
    await keepAway(tenantId, channel, went, reason, provider, id)
  }

  async function keepAway(
    tenantId: TenantId,
    channel: Channel,
    address: string,
    reason: 'hard_bounce' | 'complaint' | 'unsubscribe',
    provider: string,
    id?: Id,
  ): Promise<void> {
    const isNew = await db.one(suppress, [tenantId, CHANNEL_CODE[channel], address, reason, provider])
    if (!isNew) return
    const at = parts.now()
    await parts.publish({
      tenantId,
      id: newId(at.getTime()),
      source: 'carillon',
      type: 'carillon.address.suppressed',
      time: at,
      receivedAt: at,
      data: { channel, address, reason, provider, ...(id === undefined ? {} : { notificationId: id }) },
    })
  }

  return {
    take: (provider, channel, list) => take(provider, channel, list, 0),
    async close() {
      closed = true
      for (const timer of timers) clearTimeout(timer)
    },
  }
}

const SAID: Partial<Record<Receipt['kind'], Outcome>> = {
  delivered: 'delivered',
  failed: 'failed',
  bounced: 'bounced',
  // Whoever opens, clicks or complains has it.
  opened: 'delivered',
  clicked: 'delivered',
  complained: 'delivered',
}

const ENGAGED: Partial<Record<Receipt['kind'], 'opened' | 'clicked' | 'acknowledged'>> = {
  opened: 'opened',
  clicked: 'clicked',
  replied: 'acknowledged',
}
