import { idFloor } from '../db/ids.ts'
import { pendingMigrations } from '../db/migrate.ts'
import { type Db, type Queryable, sql } from '../db/pool.ts'

/** One thing that must hold before this process may be sent work: resolves, or throws saying what does not. */
export type ReadyCheck = () => Promise<void>

export interface Readiness {
  ready: boolean
  /** `ok`, or what is wrong, by name. */
  checks: Record<string, string>
}

const CHECK_MS = 2000
const CACHE_MS = 1000

/**
 * Runs all checks at once, each for at most two seconds. An answer stands for a second, so that whoever asks
 * often, or in a flood, costs the database no more than that.
 */
export function readiness(
  checks: Record<string, ReadyCheck>,
  now: () => number = Date.now,
): () => Promise<Readiness> {
  let asked: { at: number; answer: Promise<Readiness> } | undefined
  return () => {
    const at = now()
    if (asked === undefined || at - asked.at >= CACHE_MS) asked = { at, answer: runAll(checks) }
    return asked.answer
  }
}

async function runAll(checks: Record<string, ReadyCheck>): Promise<Readiness> {
  const results = await Promise.all(
    Object.entries(checks).map(async ([name, check]) => [name, await sayOf(check)] as const),
  )
  return { ready: results.every(([, say]) => say === 'ok'), checks: Object.fromEntries(results) }
}

/** What a check says is shown to anybody, so an error of the driver, which names hosts and users, is not. */
export class NotReady extends Error {}

async function sayOf(check: ReadyCheck): Promise<string> {
  const { promise: late, resolve } = Promise.withResolvers<string>()
  const timer = setTimeout(resolve, CHECK_MS, `no answer within ${CHECK_MS} ms`)
  const asked = check().then(
    () => 'ok',
    (error: unknown) => (error instanceof NotReady ? error.message : 'failed'),
  )
  const say = await Promise.race([asked, late])
  clearTimeout(timer)
  return say
}

const ping = sql('ping', 'select 1')

// A partition of a range over a uuid says `FOR VALUES FROM ('…') TO ('…')`; catalogs are small.
const uncovered = sql(
  'tables_without_partition',
  `select p.relname as name
   from pg_partitioned_table t
   join pg_class p on p.oid = t.partrelid
   where p.relnamespace = current_schema()::regnamespace
     and not exists (
       select from pg_inherits i
       join pg_class c on c.oid = i.inhrelid
       cross join lateral regexp_match(
         pg_get_expr(c.relpartbound, c.oid),
         $re$FROM \\((?:MINVALUE|'([0-9a-f-]{36})')\\) TO \\((?:MAXVALUE|'([0-9a-f-]{36})')\\)$re$
       ) as bounds
       where i.inhparent = p.oid and bounds is not null
         and coalesce(bounds[1]::uuid <= $1::uuid, true) and coalesce(bounds[2]::uuid > $1::uuid, true))
   order by 1`,
)

/** The partitioned tables that could not take a row of that instant. */
export const tablesWithoutPartition = async (q: Queryable, at: Date): Promise<string[]> =>
  (await q.rows<{ name: string }>(uncovered, [idFloor(at.getTime())])).map(row => row.name)

/** What a process needs of its database. `draining` says that it is stopping: then it wants no more work. */
export function standardChecks(options: {
  db: Db
  now: () => Date
  draining: () => boolean
}): Record<string, ReadyCheck> {
  const { db, now, draining } = options
  let migrated = false
  return {
    async running() {
      if (draining()) throw new NotReady('stopping')
    },
    async database() {
      await db.one(ping)
    },
    async migrations() {
      // What was applied stays applied, and reading the files again every second would be for nothing.
      if (migrated) return
      const pending = await pendingMigrations(db)
      if (pending.length > 0) throw new NotReady(`${pending.length} to be applied`)
      migrated = true
    },
    async partitions() {
      const missing = await tablesWithoutPartition(db, now())
      if (missing.length > 0) throw new NotReady(`none for now in ${missing.join(', ')}`)
    },
  }
}
