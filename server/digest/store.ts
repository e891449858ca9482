import { idTime } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Queryable, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { counterDelta } from '../ledger/counters.ts'
import { OUTCOME_CODE } from '../ledger/rows.ts'
import { CHANNELS, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Id, Priority, RecipientType, TenantId } from '../types.ts'

export const DIGEST_STATES = ['open', 'closed', 'released', 'cancelled'] as const
export type DigestState = (typeof DIGEST_STATES)[number]

export const ITEM_STATES = ['collected', 'closed', 'released', 'cancelled', 'expired'] as const
export type ItemState = (typeof ITEM_STATES)[number]

export interface StoredDigest {
  id: Id
  recipient: { type: RecipientType; id: string }
  channel: Channel
  /** What its items have in common. */
  key: string
  ruleId: Id | null
  /** Why its items were collected (server/reasons.ts). */
  reason: string
  state: DigestState
  openedAt: Date
  /** When it goes, or would have gone. */
  closesAt: Date
  /** However many items more come, not later than this. */
  latestAt: Date
  maxItems: number
  /** All that were ever collected, also those taken out since. */
  items: number
  closedAt: Date | null
  /** The event that told it; null: nothing was left to tell, or its one item went as itself. */
  eventId: Id | null
}

export interface StoredItem {
  notificationId: Id
  eventId: Id
  eventType: string
  priority: Priority
  addedAt: Date
  state: ItemState
  recipient: { type: RecipientType; id: string }
  /** Opened by `contentOpener` (server/ledger/notifications.ts). */
  sealed: Buffer
}

interface Row {
  id: Id
  recipient_type: number
  recipient_id: string
  channel: number
  key: string
  rule_id: Id | null
  reason: string
  state: DigestState
  opened_at: Date
  closes_at: Date
  latest_at: Date
  max_items: number
  items: number
  closed_at: Date | null
  event_id: Id | null
}

const COLUMNS =
  'd.id, d.recipient_type, d.recipient_id, d.channel, d.key, d.rule_id, d.reason, d.state, d.opened_at, d.closes_at, ' +
  'd.latest_at, d.max_items, d.items, d.closed_at, d.event_id'

// One statement an index, as in server/ledger/notifications.ts.
const selectAll = sql(
  'list_digests',
  `select ${COLUMNS} from digests d where d.tenant_id = $1 and d.id < $2 order by d.id desc limit $3`,
)
const selectOfRecipient = sql(
  'list_digests_of_recipient',
  `select ${COLUMNS} from digests d
   where d.tenant_id = $1 and d.id < $2 and d.recipient_id = $4 order by d.id desc limit $3`,
)
const selectOne = sql('find_digest', `select ${COLUMNS} from digests d where d.tenant_id = $1 and d.id = $2`)
const selectItems = sql(
  'list_digest_items',
  `select i.notification_id, i.added_at, i.state, n.event_id, n.event_type, n.priority, n.recipient_type,
     n.recipient_id, n.content
   from digest_items i
   join notifications n on n.tenant_id = i.tenant_id and n.id = i.notification_id
   where i.tenant_id = $1 and i.digest_id = $2 and i.notification_id > $3
   order by i.notification_id limit $4`,
)
// Held while we look: the closer passes over a digest somebody works on (skip locked), and one that it closes now
// is read again once it has committed, in the state it has then.
const lockOpen = sql(
  'lock_open_digest',
  `select ${COLUMNS} from digests d where d.tenant_id = $1 and d.id = $2 for update`,
)
// The latest time too, or an item that comes before the closer does would put the closing off again.
const closeNow = sql(
  'close_digest_now',
  `update digests d set closes_at = least(d.closes_at, $3), latest_at = least(d.closes_at, $3)
   where d.tenant_id = $1 and d.id = $2 and d.state = 'open' returning ${COLUMNS}`,
)
const endDigest = sql(
  'cancel_digest',
  `update digests d set state = 'cancelled', closed_at = $3
   where d.tenant_id = $1 and d.id = $2 and d.state = 'open' returning ${COLUMNS}`,
)
// Worker 0 is nobody's number and the attempt is one nobody has written, as in server/ledger/cancel.ts. An item
// whose job is gone was cancelled by somebody else meanwhile, and is counted there.
const cancelItems = sql(
  'cancel_items_of_digest',
  `with ended as (
     delete from jobs j using digest_items i
     where i.tenant_id = $1 and i.digest_id = $2 and ($3::uuid is null or i.notification_id = $3)
       and i.state = 'collected'
       and j.tenant_id = i.tenant_id and j.notification_id = i.notification_id and j.channel = i.channel
       and j.kind = 'collected' and j.owner = 0
     returning j.tenant_id, j.notification_id, j.channel, j.attempt
   ), told as (
     insert into attempts (tenant_id, notification_id, channel, attempt, worker, outcome, final, at, code)
     select e.tenant_id, e.notification_id, e.channel,
       1 + greatest(e.attempt, coalesce((select max(a.attempt) from attempts a where a.tenant_id = e.tenant_id
         and a.notification_id = e.notification_id and a.channel = e.channel), 0)),
       0, ${OUTCOME_CODE.cancelled}, true, $4, 'cancelled'
     from ended e
   )
   update digest_items i set state = 'cancelled' from ended e
   where i.tenant_id = e.tenant_id and i.notification_id = e.notification_id and i.channel = e.channel
   returning i.notification_id as id, i.channel`,
)
const releaseItem = sql(
  'release_item_of_digest',
  `with freed as (
     update jobs j set kind = 'held', reason = 'digest', run_at = $4
     from digest_items i
     where i.tenant_id = $1 and i.digest_id = $2 and i.notification_id = $3 and i.state = 'collected'
       and j.tenant_id = i.tenant_id and j.notification_id = i.notification_id and j.channel = i.channel
       and j.kind = 'collected' and j.owner = 0
     returning j.tenant_id, j.notification_id, j.channel
   )
   update digest_items i set state = 'released' from freed f
   where i.tenant_id = f.tenant_id and i.notification_id = f.notification_id and i.channel = f.channel`,
)

export interface DigestFilter {
  recipientId?: string
  channel?: Channel
  state?: DigestState
}

/** So many rows are looked at for one page; what is rarer than that comes in several, perhaps empty, pages. */
const WINDOW = 1_000
const BEYOND_ALL = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

/**
 * Digests, the newest first.
 *
 * @returns `next`: where the next page begins, also after a page that is not full
 */
export async function listDigests(
  q: Queryable,
  tenantId: TenantId,
  filter: DigestFilter,
  before: Id | undefined,
  limit: number,
): Promise<{ items: StoredDigest[]; next: Id | null }> {
  const { recipientId, channel, state } = filter
  const window = channel === undefined && state === undefined ? limit + 1 : WINDOW
  const rows = await q.rows<Row>(recipientId === undefined ? selectAll : selectOfRecipient, [
    tenantId,
    before ?? BEYOND_ALL,
    window,
    ...(recipientId === undefined ? [] : [recipientId]),
  ])
  const fitting = rows
    .map(readDigest)
    .filter(
      digest =>
        (channel === undefined || digest.channel === channel) &&
        (state === undefined || digest.state === state),
    )
  const items = fitting.slice(0, limit)
  if (fitting.length > limit) return { items, next: items.at(-1)!.id }
  return { items, next: rows.length === window ? rows.at(-1)!.id : null }
}

/** @throws AppError not_found */
export async function findDigest(q: Queryable, tenantId: TenantId, id: Id): Promise<StoredDigest> {
  const row = await q.one<Row>(selectOne, [tenantId, id])
  if (!row) throw missing()
  return readDigest(row)
}

/** Items in the order they came, at most `limit`, after the notification named. */
export async function itemsOfDigest(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  after: Id | undefined,
  limit: number,
): Promise<StoredItem[]> {
  const rows = await q.rows<{
    notification_id: Id
    added_at: Date
    state: ItemState
    event_id: Id
    event_type: string
    priority: number
    recipient_type: number
    recipient_id: string
    content: Buffer
  }>(selectItems, [tenantId, id, after ?? '00000000-0000-0000-0000-000000000000', limit])
  return rows.map(row => ({
    notificationId: row.notification_id,
    eventId: row.event_id,
    eventType: row.event_type,
    priority: PRIORITIES[row.priority]!,
    addedAt: row.added_at,
    state: row.state,
    recipient: { type: RECIPIENT_TYPES[row.recipient_type]!, id: row.recipient_id },
    sealed: row.content,
  }))
}

/**
 * The digest, held until the transaction ends, so that it neither closes nor takes items meanwhile.
 *
 * @throws AppError not_found; conflict when it is not open any more
 */
export async function lockOpenDigest(tx: Tx, tenantId: TenantId, id: Id): Promise<StoredDigest> {
  const row = await tx.one<Row>(lockOpen, [tenantId, id])
  if (!row) throw missing()
  if (row.state !== 'open') {
    throw new AppError('conflict', `This digest is ${row.state} already.`, { extra: { state: row.state } })
  }
  return readDigest(row)
}

/** Makes a digest due. Of one that `lockOpenDigest` holds. Whoever closes digests takes it from here. */
export async function releaseDigest(tx: Tx, tenantId: TenantId, id: Id, now: Date): Promise<StoredDigest> {
  return readDigest((await tx.one<Row>(closeNow, [tenantId, id, now]))!)
}

/**
 * Ends a digest that `lockOpenDigest` holds, and every item that waits in it, without telling anybody.
 *
 * @param shard of `ledger_counters`, the caller's own (server/ledger/counters.ts)
 */
export async function cancelDigest(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  now: Date,
  shard: number,
): Promise<{ digest: StoredDigest; cancelled: number }> {
  const cancelled = await cancelCollected(tx, tenantId, id, null, now, shard)
  return { digest: readDigest((await tx.one<Row>(endDigest, [tenantId, id, now]))!), cancelled }
}

/**
 * Takes one item out of a digest that `lockOpenDigest` holds. It is never sent.
 *
 * @throws AppError not_found when it does not wait there
 */
export async function cancelItem(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  notificationId: Id,
  now: Date,
  shard: number,
): Promise<void> {
  if ((await cancelCollected(tx, tenantId, id, notificationId, now, shard)) === 0) throw missingItem()
}

/**
 * Sends one item of a digest that `lockOpenDigest` holds by itself, now.
 *
 * @throws AppError not_found when it does not wait there
 */
export async function releaseOne(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  notificationId: Id,
  now: Date,
): Promise<void> {
  if ((await tx.run(releaseItem, [tenantId, id, notificationId, now])) === 0) throw missingItem()
}

async function cancelCollected(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  notificationId: Id | null,
  now: Date,
  shard: number,
): Promise<number> {
  const ended = await tx.rows<{ id: Id; channel: number }>(cancelItems, [tenantId, id, notificationId, now])
  if (ended.length === 0) return 0
  const delta = counterDelta()
  for (const item of ended) delta.settled(tenantId, idTime(item.id), CHANNELS[item.channel]!, 'cancelled')
  await tx.client.query(delta.take(shard))
  return ended.length
}

const missing = () => new AppError('not_found', 'There is no digest with this id.')
const missingItem = () => new AppError('not_found', 'This digest holds no such notification that waits.')

const readDigest = (row: Row): StoredDigest => ({
  id: row.id,
  recipient: { type: RECIPIENT_TYPES[row.recipient_type]!, id: row.recipient_id },
  channel: CHANNELS[row.channel]!,
  key: row.key,
  ruleId: row.rule_id,
  reason: row.reason,
  state: row.state,
  openedAt: row.opened_at,
  closesAt: row.closes_at,
  latestAt: row.latest_at,
  maxItems: row.max_items,
  items: row.items,
  closedAt: row.closed_at,
  eventId: row.event_id,
})
