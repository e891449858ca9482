import { type Queryable, sql } from '../db/pool.ts'
import type { Id, TenantId, UserId } from '../types.ts'

/** One notification that goes into one person's inbox. */
export interface FeedItem {
  tenantId: TenantId
  userId: UserId
  notificationId: Id
  createdAt: Date
  expiresAt?: Date | null
  thread?: string | null
}

/** What the inbox says right behind one item: its own number, and the badge counts after the whole batch. */
export interface Appended {
  seq: number
  /** Of the person, after every item of this statement. */
  unseen: number
  unread: number
}

/**
 * The person's head row is updated in the transaction that adds the item and stays locked until it commits, so
 * that a person's sequence order is the commit order: whoever has seen number n has seen everything up to n.
 *
 * Heads are locked in one order everywhere (tenant, then the bytes of the user id; see `compareHeads`), so two
 * transactions never wait for each other in a circle. For the same reason a transaction appends at most once,
 * and as late as it can: a busy person's head is the only row here that writers wait for.
 *
 * `with ordinality` keeps `unnest` in the order of the arrays, and an insert returns rows in the order it was
 * given them, so the position in `heads.seqs` is the position in the arrays. Items find their head by
 * subscript, not by a join: a generic plan expects ten rows of every array and would join 500 × 500 in a loop.
 */
export const appendFeedStatement = sql(
  'append_feed',
  `with head as (
     insert into feed_heads as h (tenant_id, user_id, seq, unseen, unread)
     select u.tenant_id, u.user_id, u.n, u.n, u.n
     from unnest($1::int[], $2::text[], $3::int[]) with ordinality as u (tenant_id, user_id, n, at)
     order by u.at
     on conflict (tenant_id, user_id) do update
       set seq = h.seq + excluded.seq, unseen = h.unseen + excluded.unseen, unread = h.unread + excluded.unread
     returning h.seq, h.unseen, h.unread
   ),
   heads as materialized (
     select array_agg(seq) as seqs, array_agg(unseen) as unseen, array_agg(unread) as unread from head
   ),
   item as (
     insert into feed (tenant_id, user_id, seq, notification_id, created_at, expires_at, thread)
     select i.tenant_id, i.user_id, (select seqs from heads)[i.head] - i.behind, i.notification_id,
            to_timestamp(i.created_ms / 1000), to_timestamp(i.expires_ms / 1000), i.thread
     from unnest($4::int[], $5::text[], $6::int[], $7::int[], $8::uuid[], $9::float8[], $10::float8[], $11::text[])
       as i (tenant_id, user_id, head, behind, notification_id, created_ms, expires_ms, thread)
   )
   select seqs::text, unseen::text, unread::text from heads`,
)

/** One row: three arrays in PostgreSQL's text form. */
export interface AppendFeedRow {
  seqs: string
  unseen: string
  unread: string
}

export interface AppendFeedCall {
  /** Parameters of `appendFeedStatement`: every one is text, an array literal. */
  values: string[]
  /** Reads the statement's only row: one entry an item, in the order of the items. */
  read(row: AppendFeedRow): Appended[]
}

interface Head {
  tenantId: TenantId
  userId: UserId
  count: number
  /** Position in the sorted arrays, from 1. */
  position: number
}

/**
 * Prepares one call for callers that send the statement themselves, for instance pipelined with a COMMIT.
 * Items of one person get consecutive numbers in the order given. `items` must not be empty.
 */
export function appendFeedCall(items: readonly FeedItem[]): AppendFeedCall {
  const byTenant = new Map<TenantId, Map<UserId, Head>>()
  const heads: Head[] = []
  const headOf: Head[] = []
  const rank: number[] = []
  for (const { tenantId, userId } of items) {
    let users = byTenant.get(tenantId)
    if (users === undefined) byTenant.set(tenantId, (users = new Map()))
    let head = users.get(userId)
    if (head === undefined) {
      head = { tenantId, userId, count: 0, position: 0 }
      users.set(userId, head)
      heads.push(head)
    }
    headOf.push(head)
    rank.push(++head.count)
  }
  heads.sort(compareHeads)

  let headTenants = ''
  let headUsers = ''
  let headCounts = ''
  for (const [at, head] of heads.entries()) {
    head.position = at + 1
    const comma = at === 0 ? '' : ','
    headTenants += comma + head.tenantId
    headUsers += comma + quoted(head.userId)
    headCounts += comma + head.count
  }

  let tenants = ''
  let users = ''
  let positions = ''
  let behind = ''
  let ids = ''
  let created = ''
  let expires = ''
  let threads = ''
  for (const [at, item] of items.entries()) {
    const head = headOf[at]!
    const comma = at === 0 ? '' : ','
    tenants += comma + item.tenantId
    users += comma + quoted(item.userId)
    positions += comma + head.position
    behind += comma + (head.count - rank[at]!)
    ids += comma + item.notificationId
    created += comma + item.createdAt.getTime()
    expires += comma + (item.expiresAt == null ? 'null' : item.expiresAt.getTime())
    threads += comma + (item.thread == null ? 'null' : quoted(item.thread))
  }

  return {
    values: [
      `{${headTenants}}`,
      `{${headUsers}}`,
      `{${headCounts}}`,
      `{${tenants}}`,
      `{${users}}`,
      `{${positions}}`,
      `{${behind}}`,
      `{${ids}}`,
      `{${created}}`,
      `{${expires}}`,
      `{${threads}}`,
    ],
    read(row) {
      const seqs = numbers(row.seqs)
      const unseen = numbers(row.unseen)
      const unread = numbers(row.unread)
      return headOf.map((head, at) => {
        const index = head.position - 1
        return {
          seq: seqs[index]! - (head.count - rank[at]!),
          unseen: unseen[index]!,
          unread: unread[index]!,
        }
      })
    },
  }
}

/**
 * Adds items to inboxes: one statement, whatever their number. Send it last in its transaction, and once.
 * Returns one entry an item, in the order of `items`. Duplicate notification ids for one person are the caller's
 * to prevent; the ledger's keys do.
 */
export async function appendFeed(tx: Queryable, items: readonly FeedItem[]): Promise<Appended[]> {
  if (items.length === 0) return []
  const call = appendFeedCall(items)
  return call.read((await tx.one<AppendFeedRow>(appendFeedStatement, call.values))!)
}

/** The order in which heads are locked: tenant, then user id as `collate "C"` sorts it, by UTF-8 bytes. */
export function compareHeads(
  a: { tenantId: TenantId; userId: UserId },
  b: { tenantId: TenantId; userId: UserId },
): number {
  if (a.tenantId !== b.tenantId) return a.tenantId - b.tenantId
  const x = a.userId
  const y = b.userId
  if (x === y) return 0
  // JavaScript compares UTF-16 units, which differs from byte order only where a surrogate meets U+E000 – U+FFFF.
  const length = Math.min(x.length, y.length)
  for (let i = 0; i < length; i++) {
    const p = x.charCodeAt(i)
    const q = y.charCodeAt(i)
    if (p !== q) return p >= 0xd800 && q >= 0xd800 ? Buffer.compare(Buffer.from(x), Buffer.from(y)) : p - q
  }
  return x.length - y.length
}

// The driver would escape every element of every array, and dates cost it a local-time conversion each.
const quoted = (text: string): string =>
  PLAIN.test(text) ? `"${text}"` : `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
const PLAIN = /^[^"\\]*$/

const numbers = (array: string): number[] => array.slice(1, -1).split(',').map(Number)
