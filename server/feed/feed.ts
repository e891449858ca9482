import { type Db, type Queryable, type Statement, type Tx, sql } from '../db/pool.ts'
import { PRIORITIES } from '../types.ts'
import type { Id, JsonObject, Priority, TenantId, UserId } from '../types.ts'

/** One inbox item as every surface shows it. Times are ISO 8601. */
export interface FeedView {
  id: Id
  /** The item's place in its reader's inbox; grows with every item and every change. */
  seq: number
  eventId: Id | null
  eventType: string
  subject: string | null
  body: string
  data: JsonObject | null
  priority: Priority
  category: string
  /** What it belongs to: items with the same key are one thread. */
  thread: string | null
  createdAt: string
  seenAt: string | null
  readAt: string | null
  archivedAt: string | null
  snoozedUntil: string | null
  expiresAt: string | null
}

export const FEED_FILTERS = ['inbox', 'unread', 'unseen', 'archived', 'snoozed', 'all'] as const
/**
 * `inbox` is everything neither archived nor snoozed; `unread` and `unseen` are parts of it. A snoozed item is back
 * in the inbox at the instant it was snoozed to, whether or not house-keeping has been by. Expired items are in none.
 */
export type FeedFilter = (typeof FEED_FILTERS)[number]

/** What can be done to single items. Their reverse exists too, so none of them loses anything. */
export const FEED_MARKS = [
  'seen',
  'read',
  'unread',
  'archived',
  'unarchived',
  'snoozed',
  'unsnoozed',
] as const
export type FeedMark = (typeof FEED_MARKS)[number]

export type FeedChangeKind = FeedMark | 'removed' | 'all_seen' | 'all_read' | 'thread_read'

/** Counts of what is in the inbox: archived and snoozed items do not count. */
export interface FeedCounts {
  unseen: number
  unread: number
  /** The last sequence number given out. */
  head: number
}

export interface FeedState {
  id: Id
  seq: number
  seenAt: Date | null
  readAt: Date | null
  archivedAt: Date | null
  snoozedUntil: Date | null
}

/** A committed change, ready for `hub.publish`. */
export interface FeedChange {
  tenantId: TenantId
  userId: UserId
  seq: number
  type: 'change'
  at: Date
  data: ChangeView
  counts?: { unseen: number; unread: number }
}

/** A change as streams show it. The stamps are the item's own as of reading, for one item's change. */
export interface ChangeView {
  change: FeedChangeKind
  /** null: every item in the inbox, or of the thread, with a number below this change's own. */
  id: Id | null
  /** Of the item; of `thread_read` the thread. Absent: it is in none, or it is gone. */
  thread?: string
  seenAt?: string | null
  readAt?: string | null
  archivedAt?: string | null
  snoozedUntil?: string | null
}

export interface Marked {
  /** Every item of the ids given that is in this inbox, also those that were so already. */
  states: FeedState[]
  changes: FeedChange[]
  counts: FeedCounts
}

export interface FeedPage {
  items: FeedView[]
  /** Where the next page begins; null at the end. */
  nextSeq: number | null
  /** As of this page: a stream resumed from here misses nothing and repeats nothing. */
  head: number
}

/** A thread of one inbox. */
export interface ThreadView {
  thread: string
  /** Items of it that are kept, archived ones included. */
  items: number
  /** As `FeedCounts` counts. */
  unread: number
  /** The newest of them that has not expired. */
  last: FeedView
}

export interface ThreadPage {
  threads: ThreadView[]
  nextSeq: number | null
}

/** Where one stream stands: it wants what comes after. null: only where the inbox stands now. */
export interface Waiting {
  tenantId: TenantId
  userId: UserId
  after: number | null
}

/** Everything after `after`, in order, up to the page's size. */
export interface CaughtUp {
  head: number
  unseen: number
  unread: number
  /** A stream that stands before this has missed things that are gone. */
  pruned: number
  /** No more rows than these up to `head`. */
  complete: boolean
  rows: StreamRow[]
}

export type StreamRow =
  | { seq: number; type: 'notification'; at: Date; data: FeedView }
  | { seq: number; type: 'change'; at: Date; data: ChangeView }

/** The part of server/db/seal.ts that reading an inbox needs. */
export interface ContentSealer {
  unwrap(wrapped: Buffer): Buffer
  open(dataKey: Buffer, sealed: Buffer): Buffer
}

export interface FeedStore {
  /** Newest first, from `before` (exclusive; absent: from the newest). At most `limit` items. */
  list(
    tenantId: TenantId,
    userId: UserId,
    query: { filter: FeedFilter; thread?: string; before?: number; limit: number; now: Date },
  ): Promise<FeedPage>
  /** One row, whatever the inbox's size. */
  counts(tenantId: TenantId, userId: UserId): Promise<FeedCounts>
  /** Marks up to `MAX_MARKED` items; what is so already stays as it is, with its first time. */
  mark(
    tenantId: TenantId,
    userId: UserId,
    mark: FeedMark,
    ids: readonly Id[],
    now: Date,
    until?: Date,
  ): Promise<Marked>
  /**
   * Everything in the inbox at this moment; what arrives meanwhile stays new. `MARK_ALL_ROWS` a transaction: if the
   * process dies in between, the counts are exact for what was marked and the same call finishes it.
   */
  markAll(tenantId: TenantId, userId: UserId, mark: 'seen' | 'read', now: Date): Promise<Marked>
  /** Threads with something in them, the one with the newest item first. */
  threads(
    tenantId: TenantId,
    userId: UserId,
    options: { before?: number; limit: number; now: Date },
  ): Promise<ThreadPage>
  thread(tenantId: TenantId, userId: UserId, thread: string, now: Date): Promise<ThreadView | undefined>
  /** Everything of one thread that is in the inbox at this moment, as `markAll`. */
  markThreadRead(tenantId: TenantId, userId: UserId, thread: string, now: Date): Promise<Marked>
  /** Takes cancelled notifications out of whoever's inbox they are in. At most `MAX_MARKED`. */
  retract(tenantId: TenantId, ids: readonly Id[], now: Date): Promise<FeedChange[]>
  /** One answer for each of `waiting`, in its order, from one snapshot. */
  catchUp(waiting: readonly Waiting[], limit: number): Promise<CaughtUp[]>
  /** The heads of these people, in their order, from one snapshot. */
  heads(people: readonly { tenantId: TenantId; userId: UserId }[]): Promise<FeedCounts[]>
}

export const MAX_MARKED = 200
export const MARK_ALL_ROWS = 1000

/** `onUnreadable` hears of content that cannot be opened (a master key is missing); its item is shown empty. */
export function feedStore(
  db: Db,
  sealer: ContentSealer,
  onUnreadable: (notificationId: Id, error: unknown) => void = () => {},
): FeedStore {
  return {
    async list(tenantId, userId, { filter, thread, before, limit, now }) {
      const values = [tenantId, userId, before ?? null, limit + 1, now]
      const rows = await (thread === undefined
        ? db.rows<ListRow>(LIST[filter], values)
        : db.rows<ListRow>(LIST_THREAD[filter], [...values, thread]))
      const found = rows.filter(row => row.seq !== null)
      const open = contentOpener(sealer, onUnreadable)
      const items = found.slice(0, limit).map(row => viewOf(row, open))
      return {
        items,
        nextSeq: found.length > limit ? items.at(-1)!.seq : null,
        head: rows[0]?.head ?? 0,
      }
    },

    counts: async (tenantId, userId) =>
      (await db.one<FeedCounts>(readCounts, [tenantId, userId])) ?? { head: 0, unseen: 0, unread: 0 },

    mark(tenantId, userId, mark, ids, now, until) {
      if (ids.length > MAX_MARKED) throw new RangeError(`At most ${MAX_MARKED} items at once`)
      return db.tx(async tx => {
        const before = await tx.one<FeedCounts>(lockHead, [tenantId, userId])
        if (before === undefined)
          return { states: [], changes: [], counts: { head: 0, unseen: 0, unread: 0 } }
        const values: unknown[] = [tenantId, userId, ids, now]
        if (mark === 'snoozed') values.push(until)
        return markedOf(await tx.rows<MarkRow>(MARK_STATEMENTS[mark], values), before, mark, now)
      })
    },

    markAll: (tenantId, userId, mark, now) =>
      markStepwise(db, tenantId, userId, now, {
        data: { change: `all_${mark}`, id: null },
        open: async (_tx, head) => (mark === 'read' ? head.unread + head.unseen : head.unseen),
        async step(tx, bound) {
          const values = [tenantId, userId, bound, MARK_ALL_ROWS, now]
          const marked = [(await tx.one<MarkAllRow>(markAllSeen, values))!]
          if (mark === 'read') marked.push((await tx.one<MarkAllRow>(markAllRead, values))!)
          return marked.some(({ n }) => n === MARK_ALL_ROWS)
        },
      }),

    async threads(tenantId, userId, { before, limit, now }) {
      const rows = await db.rows<ThreadRow>(listThreads, [tenantId, userId, now, before ?? null, limit + 1])
      const open = contentOpener(sealer, onUnreadable)
      const shown = rows.slice(0, limit)
      return {
        threads: shown.map(row => threadView(row, open)),
        nextSeq: rows.length > limit ? shown.at(-1)!.last_seq : null,
      }
    },

    async thread(tenantId, userId, thread, now) {
      const row = await db.one<ThreadRow>(findThread, [tenantId, userId, now, thread])
      return row && threadView(row, contentOpener(sealer, onUnreadable))
    },

    markThreadRead: (tenantId, userId, thread, now) =>
      markStepwise(db, tenantId, userId, now, {
        data: { change: 'thread_read', id: null, thread },
        open: async tx => (await tx.one<{ n: number }>(threadUnread, [tenantId, userId, thread]))?.n ?? 0,
        step: async (tx, bound) =>
          (await tx.one<MarkAllRow>(markThreadRead, [tenantId, userId, thread, bound, MARK_ALL_ROWS, now]))!
            .n === MARK_ALL_ROWS,
      }),

    retract: (tenantId, ids, now) =>
      db.tx(async tx => {
        const keys = await tx.rows<FeedKey>(findByIds, [tenantId, ids])
        return keys.length === 0 ? [] : changeMany(tx, keys, 'removed', now)
      }),

    async catchUp(waiting, limit) {
      const rows = await db.rows<CatchUpRow>(catchUpStatement, [
        waiting.map(w => w.tenantId),
        waiting.map(w => w.userId),
        // Beyond any number: only the head is wanted.
        waiting.map(w => w.after ?? Number.MAX_SAFE_INTEGER),
        limit,
      ])
      const answers: CaughtUp[] = waiting.map(() => ({
        head: 0,
        unseen: 0,
        unread: 0,
        pruned: 0,
        complete: true,
        rows: [],
      }))
      const open = contentOpener(sealer, onUnreadable)
      for (const row of rows) {
        const answer = answers[row.at - 1]!
        answer.head = row.head ?? 0
        answer.unseen = row.unseen ?? 0
        answer.unread = row.unread ?? 0
        answer.pruned = row.pruned ?? 0
        if (row.seq === null) continue
        answer.rows.push(streamRow(row, open))
        if (answer.rows.length === limit) answer.complete = false
      }
      return answers
    },

    async heads(people) {
      const rows = await db.rows<FeedCounts & { at: number }>(readHeads, [
        people.map(p => p.tenantId),
        people.map(p => p.userId),
      ])
      const answers: FeedCounts[] = people.map(() => ({ head: 0, unseen: 0, unread: 0 }))
      for (const { at, head, unseen, unread } of rows) answers[at - 1] = { head, unseen, unread }
      return answers
    },
  }
}

// ---------------------------------------------------------------- reading

const ITEM_COLUMNS = `f.seq, f.notification_id as id, f.created_at, f.expires_at, f.seen_at, f.read_at, f.archived_at, f.snoozed_until, f.thread`
const NOTIFICATION_COLUMNS = `n.event_id, n.event_type, n.priority, n.category, n.content`

interface ItemRow {
  seq: number
  id: Id
  created_at: Date
  expires_at: Date | null
  seen_at: Date | null
  read_at: Date | null
  archived_at: Date | null
  snoozed_until: Date | null
  thread: string | null
  event_id: Id | null
  event_type: string | null
  priority: number | null
  category: string | null
  content: Buffer | null
  data_key: Buffer | null
}
type ListRow = { head: number } & ({ seq: null } | ItemRow)

const IN_INBOX = 'f.archived_at is null and (f.snoozed_until is null or f.snoozed_until <= $5)'
const CONDITIONS: Record<FeedFilter, string> = {
  inbox: IN_INBOX,
  unread: `${IN_INBOX} and f.read_at is null`,
  unseen: `${IN_INBOX} and f.seen_at is null`,
  archived: 'f.archived_at is not null',
  snoozed: 'f.archived_at is null and f.snoozed_until > $5',
  all: 'true',
}

const listStatement = (filter: FeedFilter, ofThread = false): Statement =>
  sql(
    `list_feed_${ofThread ? 'thread_' : ''}${filter}`,
    `select h.seq as head, f.*, ${NOTIFICATION_COLUMNS}, u.data_key
     from feed_heads h
     left join lateral (
       select ${ITEM_COLUMNS} from feed f
       where f.tenant_id = $1 and f.user_id = $2 and f.seq < coalesce($3::bigint, 9007199254740991)
         and (f.expires_at is null or f.expires_at > $5) and ${CONDITIONS[filter]}
         ${ofThread ? 'and f.thread = $6' : ''}
       order by f.seq desc limit $4
     ) f on true
     left join notifications n on n.tenant_id = $1 and n.id = f.id
     left join users u on u.tenant_id = $1 and u.user_id = $2
     where h.tenant_id = $1 and h.user_id = $2
     order by f.seq desc`,
  )
const LIST = Object.fromEntries(FEED_FILTERS.map(filter => [filter, listStatement(filter)])) as Record<
  FeedFilter,
  Statement
>

const LIST_THREAD = Object.fromEntries(
  FEED_FILTERS.map(filter => [filter, listStatement(filter, true)]),
) as Record<FeedFilter, Statement>

// What expired and is not taken away yet is shown no more, here as in the list.
const threadStatement = (name: string, which: string): Statement =>
  sql(
    name,
    `select t.items, t.unread as thread_unread, t.last_seq, f.*, ${NOTIFICATION_COLUMNS}, u.data_key
     from feed_threads t
     cross join lateral (
       select ${ITEM_COLUMNS} from feed f
       where f.tenant_id = t.tenant_id and f.user_id = t.user_id and f.thread = t.thread and f.seq <= t.last_seq
         and (f.expires_at is null or f.expires_at > $3)
       order by f.seq desc limit 1
     ) f
     left join notifications n on n.tenant_id = t.tenant_id and n.id = f.id
     left join users u on u.tenant_id = t.tenant_id and u.user_id = t.user_id
     where t.tenant_id = $1 and t.user_id = $2 and ${which}`,
  )
const listThreads = threadStatement(
  'list_feed_threads',
  't.last_seq < coalesce($4::bigint, 9007199254740991) order by t.last_seq desc limit $5',
)
const findThread = threadStatement('find_feed_thread', 't.thread = $4')

type ThreadRow = ItemRow & { items: number; thread_unread: number; last_seq: number }

const threadView = (row: ThreadRow, open: ContentOpener): ThreadView => ({
  thread: row.thread!,
  items: row.items,
  unread: row.thread_unread,
  last: viewOf(row, open),
})

const readCounts = sql(
  'read_feed_counts',
  `select seq as head, unseen, unread from feed_heads where tenant_id = $1 and user_id = $2`,
)

const readHeads = sql(
  'read_feed_heads',
  `select w.at::int as at, h.seq as head, h.unseen, h.unread
   from unnest($1::int[], $2::text[]) with ordinality as w (tenant_id, user_id, at)
   join feed_heads h on h.tenant_id = w.tenant_id and h.user_id = w.user_id`,
)

/** One snapshot for heads and rows: with numbers in commit order, everything up to `head` is either here or gone. */
const catchUpStatement = sql(
  'catch_up_feed',
  `select w.at::int as at, h.seq as head, h.unseen, h.unread, h.pruned, r.*, u.data_key
   from unnest($1::int[], $2::text[], $3::bigint[]) with ordinality as w (tenant_id, user_id, after, at)
   left join feed_heads h on h.tenant_id = w.tenant_id and h.user_id = w.user_id
   left join users u on u.tenant_id = w.tenant_id and u.user_id = w.user_id
   left join lateral (
     (select ${ITEM_COLUMNS}, null as change, null::timestamptz as changed_at, ${NOTIFICATION_COLUMNS}
      from (select * from feed f
            where f.tenant_id = w.tenant_id and f.user_id = w.user_id and f.seq > w.after
            order by f.seq limit $4) f
      left join notifications n on n.tenant_id = f.tenant_id and n.id = f.notification_id)
     union all
     (select c.seq, c.notification_id, null, null, f.seen_at, f.read_at, f.archived_at, f.snoozed_until,
             coalesce(c.thread, f.thread), c.change, c.at, null, null, null, null, null
      from (select * from feed_changes c
            where c.tenant_id = w.tenant_id and c.user_id = w.user_id and c.seq > w.after
            order by c.seq limit $4) c
      left join feed f on f.tenant_id = c.tenant_id and f.notification_id = c.notification_id
        and f.user_id = c.user_id)
     order by 1 limit $4
   ) r on true
   order by w.at, r.seq`,
)

type CatchUpRow = {
  at: number
  head: number | null
  unseen: number | null
  unread: number | null
  pruned: number | null
} & ({ seq: null } | (ItemRow & { change: FeedChangeKind | null; changed_at: Date }))

function streamRow(
  row: ItemRow & { change: FeedChangeKind | null; changed_at: Date },
  open: ContentOpener,
): StreamRow {
  if (row.change === null) {
    return { seq: row.seq, type: 'notification', at: row.created_at, data: viewOf(row, open) }
  }
  const state = row.id === null ? undefined : row
  return {
    seq: row.seq,
    type: 'change',
    at: row.changed_at,
    data: changeView(row.change, row.id, row.thread, state && stampsOf(state)),
  }
}

function viewOf(row: ItemRow, open: ContentOpener): FeedView {
  return {
    ...feedView({
      id: row.id,
      seq: row.seq,
      eventId: row.event_id,
      eventType: row.event_type ?? '',
      priority: PRIORITIES[row.priority ?? 2] ?? 'NORMAL',
      category: row.category ?? '',
      thread: row.thread,
      createdAt: row.created_at,
      expiresAt: row.expires_at,
      content: open(row),
    }),
    seenAt: iso(row.seen_at),
    readAt: iso(row.read_at),
    archivedAt: iso(row.archived_at),
    snoozedUntil: iso(row.snoozed_until),
  }
}

export interface InAppContent {
  subject?: string
  body?: string
  data?: JsonObject
}

/** A new item as the list and the streams show it: for publishing what was just committed, without reading it back. */
export function feedView(item: {
  id: Id
  seq: number
  eventId: Id | null
  eventType: string
  priority: Priority
  category: string
  thread?: string | null
  createdAt: Date
  expiresAt?: Date | null
  content: InAppContent | undefined
}): FeedView {
  return {
    id: item.id,
    seq: item.seq,
    eventId: item.eventId,
    eventType: item.eventType,
    subject: item.content?.subject ?? null,
    body: item.content?.body ?? '',
    data: item.content?.data ?? null,
    priority: item.priority,
    category: item.category,
    thread: item.thread ?? null,
    createdAt: item.createdAt.toISOString(),
    seenAt: null,
    readAt: null,
    archivedAt: null,
    snoozedUntil: null,
    expiresAt: iso(item.expiresAt ?? null),
  }
}

type ContentOpener = (row: ItemRow) => InAppContent | undefined

/**
 * Undefined when the content is gone: the person was erased, or retention took the notification before its item.
 * An item without content still counts and can still be marked, so it is shown empty rather than dropped; one that
 * cannot be opened must not stop the others either.
 */
function contentOpener(
  sealer: ContentSealer,
  onUnreadable: (notificationId: Id, error: unknown) => void,
): ContentOpener {
  let wrapped: Buffer | undefined
  let key: Buffer | undefined
  return row => {
    if (row.content === null || row.data_key === null) return undefined
    try {
      // Rows come one person after the other.
      if (key === undefined || !wrapped?.equals(row.data_key)) {
        key = sealer.unwrap(row.data_key)
        wrapped = row.data_key
      }
      return (JSON.parse(sealer.open(key, row.content).toString('utf8')) as { in_app?: InAppContent }).in_app
    } catch (error) {
      onUnreadable(row.id, error)
      return undefined
    }
  }
}

const iso = (date: Date | null): string | null => (date === null ? null : date.toISOString())

// ---------------------------------------------------------------- changing

/**
 * Whoever changes an inbox locks its head first, in a statement of its own, so that the next statement's snapshot
 * sees everything committed before the lock was granted. That makes "what was it before" exact without locking rows.
 */
const lockHead = sql(
  'lock_feed_head',
  `select seq as head, unseen, unread from feed_heads where tenant_id = $1 and user_id = $2 for update`,
)

const lockHeads = sql(
  'lock_feed_heads',
  `select from feed_heads h
   where (h.tenant_id, h.user_id) in (select * from unnest($1::int[], $2::text[]))
   order by h.tenant_id, h.user_id collate "C" for update`,
)

/**
 * The first condition is what makes a mark idempotent: an item that is so already is left alone, its time kept.
 * Reading is seeing. Waking from a snooze makes the item new again: that is what it was snoozed for.
 */
const MARKS: Record<FeedMark, { when: string; set: string }> = {
  seen: { when: 'f.seen_at is null', set: 'seen_at = $4' },
  read: { when: 'f.read_at is null', set: 'read_at = $4, seen_at = coalesce(f.seen_at, $4)' },
  unread: { when: 'f.read_at is not null', set: 'read_at = null' },
  archived: { when: 'f.archived_at is null', set: 'archived_at = $4' },
  unarchived: { when: 'f.archived_at is not null', set: 'archived_at = null' },
  snoozed: {
    when: 'f.snoozed_until is distinct from $5::timestamptz',
    set: 'snoozed_until = $5::timestamptz',
  },
  unsnoozed: {
    when: 'f.snoozed_until is not null',
    set: 'snoozed_until = null, read_at = null, seen_at = null',
  },
}

const counted = (row: string, column: string) =>
  `(${row}.archived_at is null and ${row}.snoozed_until is null and ${row}.${column} is null)::int`

/** How the counts change when a row becomes another: what it counts now less what it counted. */
const difference = (column: string) => `${counted('f', column)} - ${counted('i', column)}`

const markStatement = (mark: FeedMark): Statement =>
  sql(
    `mark_feed_${mark}`,
    `with item as (
       select f.*, ${MARKS[mark].when} as applies from feed f
       where f.tenant_id = $1 and f.user_id = $2 and f.notification_id = any($3::uuid[])
     ),
     changed as (
       update feed f set ${MARKS[mark].set} from item i
       where i.applies and f.tenant_id = $1 and f.user_id = $2 and f.seq = i.seq
       returning f.*, ${difference('seen_at')} as unseen, ${difference('read_at')} as unread
     ),
     head as (
       update feed_heads h set seq = h.seq + d.n, unseen = h.unseen + d.unseen, unread = h.unread + d.unread
       from (select count(*) as n, sum(unseen) as unseen, sum(unread) as unread from changed) d
       where h.tenant_id = $1 and h.user_id = $2 and d.n > 0
       returning h.seq, h.unseen, h.unread, d.n
     ),
     recorded as (
       insert into feed_changes (tenant_id, user_id, seq, notification_id, change, at)
       select $1, $2, h.seq - h.n + row_number() over (order by c.seq), c.notification_id, '${mark}', $4::timestamptz
       from changed c cross join head h
       returning seq, notification_id
     )
     select s.tenant_id as "tenantId", s.user_id as "userId", s.notification_id as id, s.seq, s.seen_at, s.read_at,
            s.archived_at, s.snoozed_until, s.thread, r.seq as change_seq, h.seq as head, h.unseen, h.unread
     from (
       select tenant_id, user_id, notification_id, seq, seen_at, read_at, archived_at, snoozed_until, thread from changed
       union all
       select tenant_id, user_id, notification_id, seq, seen_at, read_at, archived_at, snoozed_until, thread
       from item where not applies
     ) s
     left join recorded r on r.notification_id = s.notification_id
     left join head h on true
     order by r.seq, s.seq`,
  )
const MARK_STATEMENTS = Object.fromEntries(FEED_MARKS.map(mark => [mark, markStatement(mark)])) as Record<
  FeedMark,
  Statement
>

interface Stamps {
  seen_at: Date | null
  read_at: Date | null
  archived_at: Date | null
  snoozed_until: Date | null
}

interface MarkRow extends Stamps {
  thread: string | null
  tenantId: TenantId
  userId: UserId
  id: Id
  seq: number
  change_seq: number | null
  head: number | null
  unseen: number | null
  unread: number | null
}

function markedOf(rows: MarkRow[], before: FeedCounts, mark: FeedMark, now: Date): Marked {
  const after = rows.find(row => row.head !== null)
  return {
    states: rows.map(row => ({
      id: row.id,
      seq: row.seq,
      seenAt: row.seen_at,
      readAt: row.read_at,
      archivedAt: row.archived_at,
      snoozedUntil: row.snoozed_until,
    })),
    changes: changesOf(rows, mark, now),
    counts: after ? { head: after.head!, unseen: after.unseen!, unread: after.unread! } : before,
  }
}

const changesOf = (rows: readonly MarkRow[], change: FeedChangeKind, now: Date): FeedChange[] =>
  rows
    .filter(row => row.change_seq !== null)
    .map(row => ({
      tenantId: row.tenantId,
      userId: row.userId,
      seq: row.change_seq!,
      type: 'change',
      at: now,
      data:
        change === 'removed'
          ? changeView(change, row.id, null, undefined)
          : changeView(change, row.id, row.thread, stampsOf(row)),
      counts: { unseen: row.unseen!, unread: row.unread! },
    }))

const changeView = (
  change: FeedChangeKind,
  id: Id | null,
  thread: string | null,
  stamps: ReturnType<typeof stampsOf> | undefined,
): ChangeView => ({ change, id, ...(thread !== null && { thread }), ...stamps })

const stampsOf = (row: Stamps) => ({
  seenAt: iso(row.seen_at),
  readAt: iso(row.read_at),
  archivedAt: iso(row.archived_at),
  snoozedUntil: iso(row.snoozed_until),
})

const recordAll = sql(
  'record_feed_all',
  `with head as (
     update feed_heads set seq = seq + 1 where tenant_id = $1 and user_id = $2 returning seq
   )
   insert into feed_changes (tenant_id, user_id, seq, notification_id, change, at, thread)
   select $1, $2, seq, null, $3, $4, $5 from head
   returning seq`,
)

/** A mark on whatever fits, `MARK_ALL_ROWS` a transaction, and one change for all of it. */
interface MarkMany {
  data: ChangeView
  /** How many may fit; 0: none does. */
  open(tx: Tx, head: FeedCounts): Promise<number>
  /** Marks some of what is numbered below `bound`; says whether there may be more. */
  step(tx: Tx, bound: number): Promise<boolean>
}

async function markStepwise(
  db: Db,
  tenantId: TenantId,
  userId: UserId,
  now: Date,
  { data, open, step }: MarkMany,
): Promise<Marked> {
  let bound: number | undefined
  for (;;) {
    const { counts, more } = await db.tx(async tx => {
      const head = await tx.one<FeedCounts>(lockHead, [tenantId, userId])
      if (head === undefined) return { counts: { head: 0, unseen: 0, unread: 0 }, more: false }
      if (bound === undefined && (await open(tx, head)) === 0) return { counts: head, more: false }
      // The change takes its number first: what is numbered below it was there, what comes meanwhile is above.
      const values = [tenantId, userId, data.change, now, data.thread ?? null]
      bound ??= (await tx.one<{ seq: number }>(recordAll, values))!.seq
      const more = await step(tx, bound)
      return { counts: (await tx.one<FeedCounts>(readCounts, [tenantId, userId]))!, more }
    })
    if (more) continue
    const { unseen, unread } = counts
    const changes: FeedChange[] =
      bound === undefined
        ? []
        : [{ tenantId, userId, seq: bound, type: 'change', at: now, data, counts: { unseen, unread } }]
    return { states: [], changes, counts }
  }
}

interface MarkAllRow {
  n: number
}

/** Newest first and no more than the head counts: what is open sits near the top, the long read tail is not walked. */
const markAllStatement = (name: string, column: 'seen_at' | 'read_at', count: 'unseen' | 'unread') =>
  sql(
    name,
    `with open as materialized (
       select f.seq from feed f
       where f.tenant_id = $1 and f.user_id = $2 and f.seq < $3
         and f.archived_at is null and f.snoozed_until is null and f.${column} is null
       order by f.seq desc
       limit least($4::int, (select ${count} from feed_heads where tenant_id = $1 and user_id = $2))
     ),
     changed as (
       update feed f set ${column} = $5 where f.tenant_id = $1 and f.user_id = $2 and f.seq in (select seq from open)
       returning 1
     ),
     head as (
       update feed_heads h set ${count} = h.${count} - d.n from (select count(*) as n from changed) d
       where h.tenant_id = $1 and h.user_id = $2 and d.n > 0
     )
     select count(*)::int as n from changed`,
  )
const markAllSeen = markAllStatement('mark_feed_all_seen', 'seen_at', 'unseen')
const markAllRead = markAllStatement('mark_feed_all_read', 'read_at', 'unread')

const threadUnread = sql(
  'thread_unread',
  'select unread as n from feed_threads where tenant_id = $1 and user_id = $2 and thread = $3',
)
/** As above. What is unread and in the inbox is all that a thread counts, and reading is seeing. */
const markThreadRead = sql(
  'mark_feed_thread_read',
  `with open as materialized (
     select f.seq, (f.seen_at is null)::int as unseen from feed f
     where f.tenant_id = $1 and f.user_id = $2 and f.thread = $3 and f.seq < $4
       and f.archived_at is null and f.snoozed_until is null and f.read_at is null
     order by f.seq desc
     limit least($5::int, (select unread from feed_threads where tenant_id = $1 and user_id = $2 and thread = $3))
   ),
   changed as (
     update feed f set read_at = $6, seen_at = coalesce(f.seen_at, $6)
     from open o where f.tenant_id = $1 and f.user_id = $2 and f.seq = o.seq
     returning o.unseen
   ),
   head as (
     update feed_heads h set unseen = h.unseen - d.unseen, unread = h.unread - d.n
     from (select count(*) as n, sum(unseen) as unseen from changed) d
     where h.tenant_id = $1 and h.user_id = $2 and d.n > 0
   )
   select count(*)::int as n from changed`,
)

// ---------------------------------------------------------------- many people at once (house-keeping, retracting)

export interface FeedKey {
  tenantId: TenantId
  userId: UserId
  seq: number
}

const findByIds = sql(
  'find_feed_by_ids',
  `select tenant_id as "tenantId", user_id as "userId", seq from feed
   where tenant_id = $1 and notification_id = any($2::uuid[])`,
)

/** Locks heads in the one order that every writer of inboxes keeps (server/ledger/append-feed.ts). */
export async function lockFeedHeads(
  tx: Queryable,
  people: readonly { tenantId: TenantId; userId: UserId }[],
): Promise<void> {
  await tx.run(lockHeads, [people.map(p => p.tenantId), people.map(p => p.userId)])
}

const ITEMS_BY_KEY = `item as materialized (
  select f.* from unnest($1::int[], $2::text[], $3::bigint[]) as k (tenant_id, user_id, seq)
  join feed f on f.tenant_id = k.tenant_id and f.user_id = k.user_id and f.seq = k.seq
)`

/** Adds each person's differences to the head, and gives every changed item the number of its change. */
const RECORD_CHANGES = (change: string) => `head as (
  update feed_heads h set seq = h.seq + d.n, unseen = h.unseen + d.unseen, unread = h.unread + d.unread
  from (select tenant_id, user_id, count(*) as n, sum(unseen) as unseen, sum(unread) as unread
        from changed group by 1, 2) d
  where h.tenant_id = d.tenant_id and h.user_id = d.user_id
  returning h.tenant_id, h.user_id, h.seq, h.unseen, h.unread, d.n
),
numbered as materialized (
  select c.*, h.seq as head, h.unseen as head_unseen, h.unread as head_unread,
         h.seq - h.n + row_number() over (partition by c.tenant_id, c.user_id order by c.seq) as change_seq
  from changed c join head h on h.tenant_id = c.tenant_id and h.user_id = c.user_id
),
recorded as (
  insert into feed_changes (tenant_id, user_id, seq, notification_id, change, at)
  select tenant_id, user_id, change_seq, notification_id, '${change}', $4::timestamptz from numbered
)
select tenant_id as "tenantId", user_id as "userId", notification_id as id, seq, seen_at, read_at, archived_at,
       snoozed_until, thread, change_seq, head, head_unseen as unseen, head_unread as unread
from numbered order by tenant_id, user_id, change_seq`

const changeManyStatement = (change: 'read' | 'unsnoozed' | 'removed'): Statement =>
  sql(
    `change_many_${change}`,
    change === 'removed'
      ? `with ${ITEMS_BY_KEY},
         changed as (
           delete from feed f using item i
           where f.tenant_id = i.tenant_id and f.user_id = i.user_id and f.seq = i.seq
           returning f.*, -${counted('f', 'seen_at')} as unseen, -${counted('f', 'read_at')} as unread
         ),
         ${RECORD_CHANGES(change)}`
      : `with ${ITEMS_BY_KEY},
         changed as (
           update feed f set ${MARKS[change].set} from item i
           where f.tenant_id = i.tenant_id and f.user_id = i.user_id and f.seq = i.seq and ${MARKS[change].when}
           returning f.*, ${difference('seen_at')} as unseen, ${difference('read_at')} as unread
         ),
         ${RECORD_CHANGES(change)}`,
  )
const CHANGE_MANY = {
  read: changeManyStatement('read'),
  unsnoozed: changeManyStatement('unsnoozed'),
  removed: changeManyStatement('removed'),
}

/**
 * Makes one change to items of many people, found without a lock; whatever changed since is judged again under it.
 * At most a few hundred keys: the statement joins them in loops.
 */
export async function changeMany(
  tx: Tx,
  keys: readonly FeedKey[],
  change: 'read' | 'unsnoozed' | 'removed',
  now: Date,
): Promise<FeedChange[]> {
  await lockFeedHeads(tx, keys)
  const rows = await tx.rows<MarkRow>(CHANGE_MANY[change], [
    keys.map(k => k.tenantId),
    keys.map(k => k.userId),
    keys.map(k => k.seq),
    now,
  ])
  return changesOf(rows, change, now)
}
