import { dropPartitionsBefore, ensurePartitions } from '../db/partitions.ts'
import { sweepChanges } from '../db/changes.ts'
import { idFloor, idTime } from '../db/ids.ts'
import { type Db, sql, type Statement } from '../db/pool.ts'

/** The part of `config.retention` that is kept here; inboxes have a keeper of their own (server/feed/keeper.ts). */
export interface Retention {
  readonly eventsDays: number
  readonly notificationsDays: number
  readonly attemptsDays: number
  readonly engagementDays: number
  readonly auditDays: number
  readonly countersDays: number
  readonly deadLettersDays: number
}

/** What one round did. */
export interface Summary {
  /** True: another process keeps house right now, so this one only saw to the partitions ahead. */
  skipped: boolean
  /** Names of the partitions made. */
  made: string[]
  /** Names of the partitions dropped. */
  dropped: string[]
  /** Rows deleted, by table; tables that lost none are left out. */
  deleted: Record<string, number>
  /** True: a table holds more old rows than one round deletes, or the round was stopped; come again soon. */
  more: boolean
  /** Names of the steps that failed; each error went to `onError`. The others were done all the same. */
  failed: string[]
}

export interface Housekeeping {
  /** Makes the partitions of this month and the next two, nothing else: quick, for the start before serving. */
  prepare(): Promise<string[]>
  /** One round. Rejects only when the database cannot be reached. */
  runOnce(): Promise<Summary>
  /** A round every `everyMs` (five minutes), sooner while there is more to delete. */
  start(everyMs?: number): void
  /** Ends the round that is under way at its next statement, and waits for that. */
  stop(): Promise<void>
}

export interface HousekeepingOptions {
  db: Db
  now: () => Date
  retention: Retention
  onError: (error: unknown) => void
  /** Told of every round that changed anything. */
  log?: (summary: Summary) => void
  /** Rows one statement deletes at most; 5,000. */
  chunkRows?: number
  /** Statements for one table in one round; 1,000. */
  chunks?: number
}

const MONTHS_AHEAD = 2
const EVERY_MS = 300_000
/** While there is more: long enough for autovacuum and everybody else to have a turn. */
const SOON_MS = 1_000
const DAY_MS = 86_400_000
/**
 * 5,000 deletions hold their row locks for some 20 ms and leave a transaction log record that replicas swallow
 * whole; 1,000 statements are 5 million rows a round, more than expire in five minutes at 15,000 events a second.
 */
const CHUNK_ROWS = 5_000
/** The longest window of a limit is a month; soft bounces are added up over 90 days, from the month they began in. */
const LIMIT_DAYS = 122
const CHUNKS = 1_000

// Any constant serves; this one spells "hous". Of the session: a round is many transactions.
const tryLock = sql('lock_housekeeping', `select pg_try_advisory_lock(${0x686f7573}) as mine`)

/** History, in monthly partitions, and how long each table is kept. */
const HISTORY = [
  { table: 'events', key: 'id', days: 'eventsDays', live: 'event' },
  { table: 'plans', key: 'event_id', days: 'eventsDays', live: 'event' },
  { table: 'notifications', key: 'id', days: 'notificationsDays', live: 'notification' },
  { table: 'attempts', key: 'notification_id', days: 'attemptsDays', live: 'notification' },
  { table: 'engagement', key: 'id', days: 'engagementDays', live: undefined },
  { table: 'audit', key: 'id', days: 'auditDays', live: undefined },
] as const

const TABLES = HISTORY.map(({ table }) => table)

/** The oldest event and the oldest notification somebody still has to work on: they outlive their retention. */
const findLive = sql(
  'find_oldest_live_work',
  `select (select event_id from planning order by event_id limit 1) as event,
          (select least((select notification_id from jobs order by notification_id limit 1),
                        (select id_min from batches order by id_min limit 1))) as notification`,
)

/**
 * Rows by physical place, which needs no index of its own. The condition stands twice: a row that somebody is
 * just renewing, such as an idempotency key, is asked again once that has committed.
 */
const deleteWhere = (table: string, condition: string): Statement =>
  sql(
    `delete_old_${table}`,
    `delete from ${table}
     where ctid = any (array(select ctid from ${table} where ${condition} limit $2)) and ${condition}`,
  )

const deleteDefault = Object.fromEntries(
  HISTORY.map(({ table, key }) => [table, deleteWhere(`${table}_default`, `${key} < $1::uuid`)]),
) as Record<(typeof TABLES)[number], Statement>
const deleteEventKeys = deleteWhere('event_keys', 'expires_at <= $1::timestamptz')
const deleteIdempotencyKeys = deleteWhere('idempotency_keys', 'expires_at <= $1::timestamptz')
const deleteTickets = deleteWhere('realtime_tickets', 'expires_at <= $1::timestamptz')
const deleteShortLinks = deleteWhere('short_links', 'expires_at <= $1::timestamptz')
const deleteDeadLetters = deleteWhere('dead_letters', 'at < $1::timestamptz')
const deleteDeliveryState = deleteWhere('delivery_state', 'notification_id < $1::uuid')
const deleteLedgerCounters = deleteWhere('ledger_counters', 'day < $1::date')
const deleteEventCounters = deleteWhere('event_counters', 'day < $1::date')
const deleteAlertStates = deleteWhere(
  'alert_states',
  "updated_at < $1::timestamptz and (status = 'resolved' or ends_at < $1::timestamptz)",
)
const deleteAlertMessages = deleteWhere('alert_messages', 'at < $1::timestamptz')
const deleteChannelMessages = deleteWhere('channel_messages', 'at < $1::timestamptz')
const deleteCounters = deleteWhere('counters', 'window_at < $1::timestamptz')
const deleteSpamDetections = deleteWhere('spam_detections', 'last_at < $1::timestamptz')
const deleteThresholdStates = deleteWhere('threshold_states', 'last_at < $1::timestamptz')
const deleteClaims = deleteWhere('claims', 'until < $1::timestamptz')

/** People of experiments that are over count no more after 30 days; a month for clocks and for looking things up. */
const EXPERIMENT_DAYS = 60
const deleteExperimentPeople = sql(
  'delete_old_experiment_people',
  `delete from experiment_people
   where ctid = any (array(
     select p.ctid from experiments e join experiment_people p on p.tenant_id = e.tenant_id and p.experiment_id = e.id
     where e.deleted_at is not null or e.stopped_at < $1::timestamptz
     limit $2))`,
)
const deleteExperiments = deleteWhere(
  'experiments',
  'deleted_at < $1::timestamptz and not exists (select from experiment_people p where p.tenant_id = experiments.tenant_id and p.experiment_id = experiments.id)',
)
const deleteExperimentCounts = deleteWhere(
  'experiment_counts',
  'not exists (select from experiments e where e.tenant_id = experiment_counts.tenant_id and e.id = experiment_counts.experiment_id) and $1::timestamptz is not null',
)
// What transactions appended becomes one row a variant. Rows of whoever is still writing are left for the next round.
const COUNTS = ['people', 'sent', 'delivered', 'seen', 'opened', 'clicked', 'acted', 'failed']
const addUpExperiments = sql(
  'add_up_experiment_counts',
  `with many as (
     select tenant_id, experiment_id, variant from experiment_counts group by 1, 2, 3 having count(*) > 1 limit 1000
   ), gone as (
     delete from experiment_counts where ctid = any (array(
       select c.ctid from experiment_counts c join many using (tenant_id, experiment_id, variant)
       limit $1 for update of c skip locked))
     returning *
   ), written as (
     insert into experiment_counts (tenant_id, experiment_id, variant, ${COUNTS.join(', ')})
     select tenant_id, experiment_id, variant, ${COUNTS.map(name => `sum(${name})`).join(', ')}
     from gone group by 1, 2, 3
   )
   select count(*)::int as n from gone`,
)

/**
 * Partitions ahead, retention behind. Any number of processes may run it; one at a time deletes. Receipts of
 * consent are kept for ever, and so are settings; the work of processes that died is found by the backlog.
 */
export function housekeeping(options: HousekeepingOptions): Housekeeping {
  const { db, now, retention, onError, log, chunkRows = CHUNK_ROWS, chunks = CHUNKS } = options
  let stopping = false
  let timer: NodeJS.Timeout | undefined
  let running: Promise<unknown> | undefined

  const prepare = () => ensurePartitions(db, { tables: TABLES, monthsAhead: MONTHS_AHEAD, now: now() })

  /** True when nothing is left that the statement deletes. */
  async function deleteAll(
    summary: Summary,
    table: string,
    statement: Statement,
    bound: string | Date,
  ): Promise<boolean> {
    for (let i = 0; i < chunks && !stopping; i++) {
      const rows = await db.run(statement, [bound, chunkRows])
      if (rows > 0) summary.deleted[table] = (summary.deleted[table] ?? 0) + rows
      if (rows < chunkRows) return true
    }
    summary.more = true
    return false
  }

  async function retain(summary: Summary, attempt: Attempt): Promise<void> {
    const at = now()
    const ago = (days: number) => new Date(at.getTime() - days * DAY_MS)

    await attempt('history', async () => {
      const oldest = (await db.one<Record<'event' | 'notification', string | null>>(findLive))!
      for (const { table, days, live } of HISTORY) {
        const working = live === undefined ? null : oldest[live]
        const cut = ago(retention[days])
        const before = working === null ? cut : new Date(Math.min(cut.getTime(), idTime(working)))
        await attempt(table, async () => {
          // First in chunks, so that dropPartitionsBefore finds nothing old left in the default partition: it
          // deletes in one statement.
          const bound = idFloor(before.getTime())
          if (!(await deleteAll(summary, `${table}_default`, deleteDefault[table], bound))) return
          summary.dropped.push(...(await dropPartitionsBefore(db, { table, before })).partitions)
        })
        // What came back about a try goes with the tries.
        if (table === 'attempts') {
          await attempt('delivery_state', () =>
            deleteAll(summary, 'delivery_state', deleteDeliveryState, idFloor(before.getTime())),
          )
        }
      }
    })

    const firstDay = ago(retention.countersDays).toISOString().slice(0, 10)
    const rest: [table: string, statement: Statement, bound: string | Date][] = [
      ['event_keys', deleteEventKeys, at],
      ['idempotency_keys', deleteIdempotencyKeys, at],
      ['realtime_tickets', deleteTickets, at],
      ['short_links', deleteShortLinks, at],
      ['dead_letters', deleteDeadLetters, ago(retention.deadLettersDays)],
      ['ledger_counters', deleteLedgerCounters, firstDay],
      ['event_counters', deleteEventCounters, firstDay],
      ['counters', deleteCounters, ago(LIMIT_DAYS)],
      ['spam_detections', deleteSpamDetections, ago(LIMIT_DAYS)],
      // Over is over; a day for clocks that differ.
      ['claims', deleteClaims, ago(1)],
      // A series of which nothing came for so long begins anew; the longest period of a threshold is a month, too.
      ['threshold_states', deleteThresholdStates, ago(LIMIT_DAYS)],
      ['alert_states', deleteAlertStates, ago(retention.notificationsDays)],
      ['alert_messages', deleteAlertMessages, ago(retention.notificationsDays)],
      ['channel_messages', deleteChannelMessages, ago(retention.notificationsDays)],
      ['experiment_people', deleteExperimentPeople, ago(EXPERIMENT_DAYS)],
      ['experiments', deleteExperiments, ago(1)],
      ['experiment_counts', deleteExperimentCounts, at],
    ]
    for (const [table, statement, bound] of rest) {
      await attempt(table, () => deleteAll(summary, table, statement, bound))
    }
    await attempt('experiments', async () => {
      for (let i = 0; i < chunks && !stopping; i++) {
        const { n } = (await db.one<{ n: number }>(addUpExperiments, [chunkRows]))!
        if (n < chunkRows) break
      }
    })
    await attempt('changes', async () => {
      const rows = await sweepChanges(db)
      if (rows > 0) summary.deleted.changes = rows
    })
  }

  async function runOnce(): Promise<Summary> {
    const summary: Summary = {
      skipped: false,
      made: [],
      dropped: [],
      deleted: {},
      more: false,
      failed: [],
    }
    const attempt: Attempt = async (step, work) => {
      if (stopping) {
        summary.more = true
        return
      }
      try {
        await work()
      } catch (error) {
        summary.failed.push(step)
        onError(error)
      }
    }

    // Before the lock: it has one of its own, and whoever starts must not have to wait for a long round elsewhere.
    await attempt('partitions', async () => {
      summary.made = await prepare()
    })
    // A connection of its own: the lock goes with it, however the round ends, and a pool of one is not used up.
    const session = await db.connect('carillon housekeeping')
    try {
      const { rows } = await session.query<{ mine: boolean }>(tryLock.text)
      if (rows[0]!.mine) await retain(summary, attempt)
      else summary.skipped = true
    } finally {
      await session.end()
    }
    if (summary.made.length + summary.dropped.length + Object.keys(summary.deleted).length > 0) log?.(summary)
    return summary
  }

  return {
    prepare,
    runOnce,
    start(everyMs = EVERY_MS) {
      if (timer !== undefined) return
      stopping = false
      const round = async () => {
        let more = false
        try {
          more = (await runOnce()).more
        } catch (error) {
          onError(error)
        }
        running = undefined
        if (!stopping) next(more ? Math.min(SOON_MS, everyMs) : everyMs)
      }
      const next = (ms: number) => {
        timer = setTimeout(() => {
          running = round()
        }, ms).unref()
      }
      next(everyMs)
    },
    async stop() {
      stopping = true
      clearTimeout(timer)
      timer = undefined
      await running
    },
  }
}

type Attempt = (step: string, work: () => Promise<unknown>) => Promise<void>
