import type pg from 'pg'
import { idTime } from '../db/ids.ts'
import type { TakenUsage } from '../limits/usage.ts'
import type { Channel, Id, Priority, TenantId } from '../types.ts'
import { alertScript } from './alert-states.ts'
import { COLLECTED_RUN_AT_MS, collectScript } from './collect.ts'
import { copyRows, runScript } from './copy.ts'
import type { CopyRows } from './copy.ts'
import { counterDelta } from './counters.ts'
import type { CounterDelta } from './counters.ts'
import { experimentScript } from './experiments.ts'
import type { PlannedEvent, PlannedNotification } from './plan.ts'
import { replaceFeedScript } from './replace-feed.ts'
import { shortLinkScript } from './short-links.ts'
import { takeUsage } from './usage.ts'
import {
  COPY_EVENTS,
  COPY_JOBS,
  COPY_NOTIFICATIONS,
  COPY_PLANNING,
  CHANNEL_CODE,
  PRIORITY_CODE,
  eventRow,
  jobRow,
  notificationRow,
  planningRow,
} from './rows.ts'

/**
 * What was inserted together and is leased together: the only job of the fast path. Its row is deleted in the
 * transaction that records its last attempt.
 */
export interface Batch {
  id: number
  tenantId: TenantId
  priority: Priority
  /** In id order. */
  notifications: PlannedNotification[]
  /** Deliveries that go out now, over all its notifications. */
  sends: number
  /** Nobody's: the rows stay in the database until a process has room for them. */
  spilled: boolean
}

export interface LedgerWriter {
  /**
   * Writes everything the plans came to, in one script: COPYs, batches, jobs, feed, counters. Outside a
   * transaction the script is one by itself; with `inTransaction` it ends in COMMIT.
   *
   * @returns the batches with something to send, to be handed over in memory, and the people whose feed grew
   */
  commit(client: pg.ClientBase, plans: readonly PlannedEvent[], options: CommitOptions): Promise<Committed>
}

export interface CommitOptions {
  owner: number
  nextBatchId(): number
  leaseSeconds: number
  /** May so many more deliveries of this tenant be kept in memory? */
  roomFor(tenantId: TenantId, sends: number): boolean
  /** False when these events already have their row and only their plan is written (server/ingest/planner.ts). */
  insertEvents: boolean
  inTransaction: boolean
  nowMs: number
  /** What the plans used up. The commit fails with `USAGE_CONFLICT` when it is no longer to be had. */
  usage?: TakenUsage | null
  /** Further statements of the same transaction, without parameters; once nothing more is waited for but counters. */
  also?: string
  /** Counter changes of the same transaction that the plans do not show, such as duplicates. */
  count?(delta: CounterDelta): void
}

export interface Committed {
  batches: Batch[]
  fed: { tenantId: TenantId; userId: string }[]
  /** When the first of its holds is due, and when the first of its digests may close; null: none. */
  nextJobMs: number | null
  nextDigestMs: number | null
}

export function ledgerWriter(shard: number): LedgerWriter {
  let buffers = {
    events: copyRows(),
    notifications: copyRows(),
    jobs: copyRows(4096),
    planning: copyRows(4096),
  }
  const delta = counterDelta()

  return {
    async commit(client, plans, options) {
      const { events, notifications, jobs, planning } = buffers
      for (const rows of Object.values(buffers)) rows.clear()

      const batches = groupIntoBatches(plans, options)
      const fed = new Map<string, { tenantId: TenantId; userId: string }>()
      const feedGroups: string[] = []
      let anyInAppHeld = false
      let nextJobMs: number | null = null
      let nextDigestMs: number | null = null

      for (const plan of plans) {
        if (options.insertEvents) {
          eventRow(events, plan)
          delta.event(plan.event.tenantId, idTime(plan.event.id), {
            received: 1,
            planned: plan.planned ? 1 : 0,
            planning_ms: plan.planned
              ? Math.max(0, idTime(plan.event.id) - plan.event.receivedAt.getTime())
              : 0,
          })
          if (!plan.planned) planningRow(planning, plan)
        }
        if (plan.suppressed > 0) {
          delta.planned(plan.event.tenantId, idTime(plan.event.id), null, plan.suppressed)
          delta.settled(plan.event.tenantId, idTime(plan.event.id), null, 'suppressed', plan.suppressed)
        }
      }

      for (const batch of batches) {
        const counts = new Map<string, { channel: Channel; ms: number; planned: number; delivered: number }>()
        let feeds = 0
        for (const notification of batch.notifications) {
          notificationRow(notifications, notification, batch.id)
          const ms = idTime(notification.id)
          for (const hold of notification.holds) {
            jobRow(jobs, {
              tenantId: notification.tenantId,
              notificationId: notification.id,
              channel: hold.channel,
              kind: hold.kind ?? 'held',
              runAtMs: hold.until.getTime(),
              priority: notification.priority,
              attempt: 0,
              reason: hold.reason,
              provider: null,
              state: hold.state,
            })
            if (hold.channel === 'in_app') anyInAppHeld = true
            nextJobMs = Math.min(nextJobMs ?? Infinity, hold.until.getTime())
          }
          for (const { channel, wish } of notification.collects) {
            jobRow(jobs, {
              tenantId: notification.tenantId,
              notificationId: notification.id,
              channel,
              kind: 'collected',
              runAtMs: COLLECTED_RUN_AT_MS,
              priority: notification.priority,
              attempt: 0,
              reason: wish.reason,
              provider: null,
            })
            if (channel === 'in_app') anyInAppHeld = true
            nextDigestMs = Math.min(nextDigestMs ?? Infinity, wish.closesAt.getTime())
          }
          for (const channel of notification.channels) {
            const name = `${channel}${Math.floor(ms / 86_400_000)}`
            let count = counts.get(name)
            if (!count) counts.set(name, (count = { channel, ms, planned: 0, delivered: 0 }))
            count.planned++
            if (channel === 'in_app' && !waits(notification, channel)) {
              count.delivered++
              feeds++
              fed.set(`${notification.tenantId} ${notification.recipientId}`, {
                tenantId: notification.tenantId,
                userId: notification.recipientId,
              })
            }
          }
        }
        for (const { channel, ms, planned, delivered } of counts.values()) {
          delta.planned(batch.tenantId, ms, channel, planned)
          if (delivered > 0) delta.settled(batch.tenantId, ms, channel, 'delivered', delivered)
        }
        if (feeds > 0) {
          const { first, last } = range(batch)
          feedGroups.push(`(${batch.tenantId}, '${first}'::uuid, '${last}'::uuid, ${batch.id}::bigint)`)
        }
      }
      options.count?.(delta)

      const script: string[] = []
      const data: Buffer[] = []
      const copy = (statement: string, rows: CopyRows) => {
        if (rows.rows === 0) return
        script.push(statement)
        data.push(rows.finish())
      }
      copy(COPY_EVENTS, events)
      copy(COPY_PLANNING, planning)
      copy(COPY_NOTIFICATIONS, notifications)
      copy(COPY_JOBS, jobs)
      const sending = batches.filter(batch => batch.sends > 0)
      if (sending.length > 0) script.push(insertBatches(sending, options))
      const collect = collectScript(collecting(batches), options.nowMs)
      if (collect) script.push(collect)
      const alerts = alertScript(plans, options.nowMs)
      if (alerts) script.push(alerts)
      const links = shortLinkScript(plans)
      if (links) script.push(links)
      if (options.usage) script.push(takeUsage(options.usage))
      if (options.also) script.push(options.also)
      // Last, because these rows are shared between writers: the shorter they are locked, the better.
      const counters = delta.take(shard)
      if (counters) script.push(counters.trimEnd().replace(/;$/, ''))
      if (feedGroups.length > 0) {
        script.push(feedScript(feedGroups, anyInAppHeld))
        const replaced = replaceFeedScript(replacing(batches), options.nowMs)
        if (replaced) script.push(replaced)
      }
      // Behind the inboxes, as whoever marks an item holds its inbox before it counts (db/migrations/0017_experiments.sql).
      const experiments = experimentScript(plans, inboxNow)
      if (experiments) script.push(experiments)
      if (options.inTransaction) script.push('commit')

      try {
        if (script.length > 0) await runScript(client, script.join(';\n'), data)
      } catch (error) {
        // The driver may still be sending from these buffers.
        buffers = {
          events: copyRows(),
          notifications: copyRows(),
          jobs: copyRows(4096),
          planning: copyRows(4096),
        }
        throw error
      }
      return { batches: sending, fed: [...fed.values()], nextJobMs, nextDigestMs }
    },
  }
}

/** For a time or for a digest. */
export const waits = ({ holds, collects }: PlannedNotification, channel: Channel): boolean =>
  holds.some(hold => hold.channel === channel) || collects.some(collect => collect.channel === channel)

const inboxNow = (notification: PlannedNotification): boolean =>
  notification.channels.includes('in_app') && !waits(notification, 'in_app')

/** What leaves through a provider now: in-app is delivered by the commit itself. */
export const sendsNow = (notification: PlannedNotification): Channel[] =>
  notification.channels.filter(channel => channel !== 'in_app' && !waits(notification, channel))

function* collecting(batches: readonly Batch[]): Iterable<PlannedNotification> {
  for (const { notifications } of batches) {
    for (const notification of notifications) if (notification.collects.length > 0) yield notification
  }
}

/** Whose inbox item, written now, takes the place of an earlier one. */
function* replacing(batches: readonly Batch[]): Iterable<PlannedNotification> {
  for (const { notifications } of batches) {
    for (const notification of notifications) {
      const { about, channels } = notification
      if (about && channels.includes('in_app') && !waits(notification, 'in_app')) yield notification
    }
  }
}

/** One batch a tenant and priority, so that a spilled one can wait in its own queue. */
function groupIntoBatches(plans: readonly PlannedEvent[], options: CommitOptions): Batch[] {
  const groups = new Map<number, Batch>()
  for (const plan of plans) {
    for (const notification of plan.notifications) {
      const name = notification.tenantId * 8 + PRIORITY_CODE[notification.priority]
      let batch = groups.get(name)
      if (!batch) {
        batch = {
          id: options.nextBatchId(),
          tenantId: notification.tenantId,
          priority: notification.priority,
          notifications: [],
          sends: 0,
          spilled: false,
        }
        groups.set(name, batch)
      }
      batch.notifications.push(notification)
      batch.sends += sendsNow(notification).length
    }
  }
  for (const batch of groups.values()) {
    batch.spilled = batch.sends > 0 && !options.roomFor(batch.tenantId, batch.sends)
  }
  return [...groups.values()]
}

const range = (batch: Batch): { first: Id; last: Id } => ({
  first: batch.notifications[0]!.id,
  last: batch.notifications.at(-1)!.id,
})

function insertBatches(batches: readonly Batch[], { owner, leaseSeconds }: CommitOptions): string {
  const values = batches.map(batch => {
    const { first, last } = range(batch)
    return (
      `(${batch.id}, ${batch.tenantId}, ${batch.spilled ? 0 : owner}, now() + interval '${leaseSeconds} seconds', ` +
      `${batch.sends}, '${first}', '${last}', ${PRIORITY_CODE[batch.priority]})`
    )
  })
  return `insert into batches (id, tenant_id, owner, lease_until, n, id_min, id_max, priority) values ${values.join()}`
}

const IN_APP = `position('\\x${CHANNEL_CODE.in_app.toString(16).padStart(2, '0')}'::bytea in n.channels) > 0`

/**
 * Gives every in-app notification of these ranges its place in its reader's feed. It reads back the rows that the
 * same script has just copied, which is cheaper than sending their ids and readers a second time.
 *
 * The heads are locked in the order of (tenant, bytes of the user id), as in server/ledger/append-feed.ts, so that writers cannot deadlock, and until the commit, so
 * that the order of a person's sequence numbers is the order of commits: a stream resumed by number has no gap.
 *
 * Items find their head by its place among the returned rows, not by a join: the planner expects few rows of a CTE
 * and would compare each item with each head (400 × 400 in 40 ms).
 */
function feedScript(groups: readonly string[], anyHeld: boolean): string {
  return `with items as materialized (
  select n.tenant_id, n.recipient_id, n.id, n.created_at, n.expires_at, n.thread,
    row_number() over (partition by n.tenant_id, n.recipient_id collate "C" order by n.id) as place,
    count(*) over (partition by n.tenant_id, n.recipient_id collate "C") as of_person,
    dense_rank() over (order by n.tenant_id, n.recipient_id collate "C") as person
  from (values ${groups.join()}) as g (tenant_id, first, last, batch_id)
  cross join lateral (
    select * from notifications
    where tenant_id = g.tenant_id and id between g.first and g.last and batch_id = g.batch_id
    offset 0
  ) n
  where ${IN_APP}${
    anyHeld
      ? ` and not exists (select from jobs j where j.tenant_id = n.tenant_id and j.notification_id = n.id and j.channel = ${CHANNEL_CODE.in_app})`
      : ''
  }
), heads as (
  insert into feed_heads as h (tenant_id, user_id, seq, unseen, unread)
  select tenant_id, recipient_id, of_person, of_person, of_person from items where place = 1 order by person
  on conflict (tenant_id, user_id) do update
    set seq = h.seq + excluded.seq, unseen = h.unseen + excluded.unseen, unread = h.unread + excluded.unread
  returning seq
), seqs as materialized (
  select array_agg(seq) as of_person from heads
)
insert into feed (tenant_id, user_id, seq, notification_id, created_at, expires_at, thread)
select tenant_id, recipient_id, (select of_person from seqs)[person] - of_person + place, id, created_at, expires_at,
  thread
from items`
}
