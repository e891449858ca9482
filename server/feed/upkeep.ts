import { idFloor } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import type { TenantId, UserId } from '../types.ts'
import { type FeedChange, type FeedKey, changeMany, lockFeedHeads } from './feed.ts'

/**
 * House-keeping of inboxes. Every function does a bounded piece of work in one transaction, says what it did, and
 * may run in any number of processes at once: what it finds without a lock it judges again under the heads' locks.
 */

/** Beyond this many unread items the oldest are marked read. */
export const MAX_UNREAD = 1000
/** Statements over many people join their keys in loops; this keeps that cheap. */
const MAX_KEYS = 200

export interface Pruned {
  items: number
  changes: number
  /** Removals of expired items, for `hub.publish`. */
  published: FeedChange[]
  /** More may be waiting: call again. */
  more: boolean
}

const expiredItems = sql(
  'find_expired_feed',
  `select tenant_id as "tenantId", user_id as "userId", seq from feed where expires_at <= $1 order by expires_at limit $2`,
)
const listTenants = sql('list_tenant_ids', 'select id from tenants order by id')
const oldItems = sql(
  'find_old_feed',
  `select tenant_id as "tenantId", user_id as "userId", seq from feed
   where tenant_id = $1 and notification_id < $2::uuid order by tenant_id, notification_id limit $3`,
)
const oldChanges = sql(
  'find_old_feed_changes',
  `select tenant_id as "tenantId", user_id as "userId", seq from feed_changes where at < $1 order by at limit $2`,
)
const deleteItems = sql(
  'delete_feed',
  `with gone as (
     delete from feed f using unnest($1::int[], $2::text[], $3::bigint[]) as k (tenant_id, user_id, seq)
     where f.tenant_id = k.tenant_id and f.user_id = k.user_id and f.seq = k.seq
     returning f.tenant_id, f.user_id, f.seq,
       (f.archived_at is null and f.snoozed_until is null and f.seen_at is null)::int as unseen,
       (f.archived_at is null and f.snoozed_until is null and f.read_at is null)::int as unread
   ),
   head as (
     update feed_heads h
     set unseen = h.unseen - d.unseen, unread = h.unread - d.unread, pruned = greatest(h.pruned, d.seq)
     from (select tenant_id, user_id, max(seq) as seq, sum(unseen) as unseen, sum(unread) as unread
           from gone group by 1, 2) d
     where h.tenant_id = d.tenant_id and h.user_id = d.user_id
   )
   select count(*)::int as n from gone`,
)
const deleteChanges = sql(
  'delete_feed_changes',
  `with gone as (
     delete from feed_changes c using unnest($1::int[], $2::text[], $3::bigint[]) as k (tenant_id, user_id, seq)
     where c.tenant_id = k.tenant_id and c.user_id = k.user_id and c.seq = k.seq
     returning c.tenant_id, c.user_id, c.seq
   ),
   head as (
     update feed_heads h set pruned = greatest(h.pruned, d.seq)
     from (select tenant_id, user_id, max(seq) as seq from gone group by 1, 2) d
     where h.tenant_id = d.tenant_id and h.user_id = d.user_id
   )
   select count(*)::int as n from gone`,
)
const deleteTickets = sql('delete_realtime_tickets', 'delete from realtime_tickets where expires_at < $1')

/**
 * Takes away expired items, then items of notifications and changes older than `before`, at most about `limit` of
 * each, with the counts kept.
 *
 * An expired item leaves a `removed` change, so that open inboxes drop it. Old ones leave none: they move `pruned`
 * instead, and a stream that would resume from before it is told to start over.
 */
export async function pruneFeed(
  db: Db,
  { before, now, limit }: { before: Date; now: Date; limit: number },
): Promise<Pruned> {
  const result: Pruned = { items: 0, changes: 0, published: [], more: false }

  for (let left = limit; left > 0; ) {
    const asked = Math.min(left, MAX_KEYS)
    const expired = await db.rows<FeedKey>(expiredItems, [now, asked])
    if (expired.length === 0) break
    const removed = await db.tx(tx => changeMany(tx, expired, 'removed', now))
    result.published.push(...removed)
    result.items += removed.length
    left -= expired.length
    if (expired.length < asked) break
    if (left <= 0) result.more = true
  }

  const floor = idFloor(before.getTime())
  let left = limit
  for (const { id } of await db.rows<{ id: TenantId }>(listTenants)) {
    if (left <= 0) break
    const n = await deleteKeys(left, asked => db.rows<FeedKey>(oldItems, [id, floor, asked]), deleteItems)
    result.items += n
    left -= n
  }
  if (left <= 0) result.more = true

  result.changes = await deleteKeys(
    limit,
    asked => db.rows<FeedKey>(oldChanges, [before, asked]),
    deleteChanges,
  )
  if (result.changes >= limit) result.more = true
  await db.run(deleteTickets, [now])
  return result

  async function deleteKeys(
    most: number,
    find: (asked: number) => Promise<FeedKey[]>,
    statement: typeof deleteItems,
  ): Promise<number> {
    let done = 0
    while (done < most) {
      const asked = Math.min(most - done, MAX_KEYS)
      const keys = await find(asked)
      if (keys.length === 0) break
      await db.tx(async tx => {
        await lockFeedHeads(tx, keys)
        await tx.run(statement, [keys.map(k => k.tenantId), keys.map(k => k.userId), keys.map(k => k.seq)])
      })
      done += keys.length
      if (keys.length < asked) break
    }
    return done
  }
}

const dueSnoozes = sql(
  'find_due_snoozes',
  `select tenant_id as "tenantId", user_id as "userId", seq from feed
   where snoozed_until <= $1 order by snoozed_until limit $2`,
)

/** Brings snoozed items that are due back as new ones. Publish what it returns; call again while it returns any. */
export async function wakeSnoozed(db: Db, now: Date): Promise<FeedChange[]> {
  const due = await db.rows<FeedKey>(dueSnoozes, [now, MAX_KEYS])
  return due.length === 0 ? [] : db.tx(tx => changeMany(tx, due, 'unsnoozed', now))
}

// Newest first, past the `max` that may stay: the surplus follows right behind them, so however long the read tail
// of a flooded inbox is, it is not walked. Archived and snoozed items do not count and are left alone.
const surplusUnread = sql(
  'find_surplus_unread',
  `select h.tenant_id as "tenantId", h.user_id as "userId", f.seq
   from unnest($1::int[], $2::text[]) as p (tenant_id, user_id)
   join feed_heads h on h.tenant_id = p.tenant_id and h.user_id = p.user_id and h.unread > $3::int
   cross join lateral (
     select f.seq from feed f
     where f.tenant_id = h.tenant_id and f.user_id = h.user_id
       and f.read_at is null and f.archived_at is null and f.snoozed_until is null
     order by f.seq desc offset $3::int limit least(h.unread - $3::int, $4::int)
   ) f
   limit $4::int`,
)

/**
 * Marks the oldest unread items read, down to `max`, for these people: those for whom `appendFeed` reported more.
 * Runs after the append's commit, not in it: the append stays one statement, and a cap that is missed because a
 * process died is made good by the next append.
 */
export async function capUnread(
  db: Db,
  people: readonly { tenantId: TenantId; userId: UserId }[],
  now: Date,
  max: number = MAX_UNREAD,
): Promise<FeedChange[]> {
  const changes: FeedChange[] = []
  for (let from = 0; from < people.length; ) {
    const some = people.slice(from, from + MAX_KEYS)
    const keys = await db.rows<FeedKey>(surplusUnread, [
      some.map(p => p.tenantId),
      some.map(p => p.userId),
      max,
      MAX_KEYS,
    ])
    if (keys.length > 0) changes.push(...(await db.tx(tx => changeMany(tx, keys, 'read', now))))
    if (keys.length < MAX_KEYS) from += MAX_KEYS
  }
  return changes
}
