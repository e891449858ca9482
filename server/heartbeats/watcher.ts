import { type Db, sql } from '../db/pool.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { lookAtHeartbeats } from './store.ts'

/**
 * Finds out who fell silent, and reports that somebody listens. Any number of processes do both: one of them tells.
 */
export interface HeartbeatWatcher {
  /** Reports, and looks at some of what is due; true when there may be more. */
  runOnce(): Promise<boolean>
  /** Something is to be looked at now. */
  expect(): void
  start(): void
  stop(): Promise<void>
}

export interface WatcherParts {
  db: Db
  write: WriteEvents
  /** Takes events and beats: its time is time in which somebody listened. */
  listens: boolean
  /** Looks at what is due. */
  looks: boolean
  /** Events wait to be planned. */
  onTold(): void
  now(): Date
  /** At most 2 seconds: after 6 without a report nobody is thought to have listened. */
  pollMs: number
  onError(error: unknown): void
}

// While there is no heartbeat nobody has to report: that time counts for none that is made later.
// A report adds up what heartbeat_deaf_ms says as of it, from the row as it is when the update gets to it.
const survey = sql(
  'survey_heartbeats',
  `select (select check_at from heartbeat_states where check_at is not null order by check_at limit 1) as due,
          exists (select from heartbeats) as any`,
)
const report = sql(
  'report_listening',
  `update heartbeat_listening set heard_until = $1,
     deaf_ms = deaf_ms + case when $1 - heard_until > interval '6 seconds'
       then (extract(epoch from $1 - heard_until) * 1000)::bigint else 0 end
   where heard_until < $1`,
)

export function heartbeatWatcher(parts: WatcherParts): HeartbeatWatcher {
  const { db } = parts
  let timer: NodeJS.Timeout | undefined
  let busy: Promise<void> | undefined
  let again = false
  let stopped = true
  let dueMs = Number.POSITIVE_INFINITY

  async function runOnce(): Promise<boolean> {
    dueMs = Number.POSITIVE_INFINITY
    const { due, any } = (await db.one<{ due: Date | null; any: boolean }>(survey))!
    if (!any) return false
    if (parts.listens) await db.run(report, [parts.now()])
    if (!parts.looks || due === null) return false
    dueMs = due.getTime()
    const now = parts.now()
    if (due > now) return false
    const { looked, told } = await db.tx(tx => lookAtHeartbeats(tx, now, parts.write))
    if (told > 0) parts.onTold()
    // What is due and was not to be had is held by somebody else: by a beat, or another process that looks.
    dueMs = Number.POSITIVE_INFINITY
    return looked > 0
  }

  function arm(ms: number): void {
    if (stopped) return
    clearTimeout(timer)
    timer = setTimeout(tick, ms)
  }

  function tick(): void {
    if (busy || stopped) {
      again = true
      return
    }
    busy = turn().finally(() => {
      busy = undefined
    })
  }

  async function turn(): Promise<void> {
    let wait = parts.pollMs
    try {
      again = false
      if ((await runOnce()) || again) wait = 0
      else wait = Math.min(wait, Math.max(5, dueMs - parts.now().getTime()))
    } catch (error) {
      parts.onError(error)
    }
    setImmediate(() => arm(wait))
  }

  return {
    runOnce,
    expect() {
      again = true
      if (!busy) arm(0)
    },
    start() {
      stopped = false
      arm(0)
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      await busy
    },
  }
}
