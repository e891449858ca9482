import { type Db, sql } from '../db/pool.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { type Lookout, type Next, lookout } from '../time/lookout.ts'
import { lookAtHeartbeats } from './store.ts'

/**
 * Finds out who fell silent, and reports that somebody listens. Any number of processes do both: one of them tells.
 */
export interface HeartbeatWatcher extends Lookout {
  /** Reports, and looks at some of what is due; true when there may be more. */
  runOnce(): Promise<boolean>
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
  const { db, now, onError } = parts

  async function look(): Promise<Next> {
    const { due, any } = (await db.one<{ due: Date | null; any: boolean }>(survey))!
    if (!any) return null
    if (parts.listens) await db.run(report, [now()])
    if (!parts.looks || due === null) return null
    const at = now()
    if (due > at) return due
    const { looked, told } = await db.tx(tx => lookAtHeartbeats(tx, at, parts.write))
    if (told > 0) parts.onTold()
    // What is due and was not to be had is held by somebody else: by a beat, or another process that looks.
    return looked > 0 ? 'more' : null
  }

  return {
    ...lookout({ look, now, atLatestMs: parts.pollMs, onError }),
    runOnce: async () => (await look()) === 'more',
  }
}
