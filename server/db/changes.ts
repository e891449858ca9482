import type { TenantId } from '../types.ts'
import { type Db, type Queryable, sql } from './pool.ts'

/** What leaves a row in `changes`; the triggers are at the end of migrations/0001_core.sql. */
export type ChangeKind =
  | 'user'
  | 'rule'
  | 'template'
  | 'event_type'
  | 'audience'
  | 'api_key'
  | 'tenant'
  | 'limit'
  | 'silence'
  | 'inhibition'
  | 'heartbeat'
  | 'experiment'
  | 'asset'
  | 'message'

export interface ChangeWatch {
  /**
   * Reads what committed since the last look and tells the listeners, before it resolves. Whatever is loaded
   * afterwards, in this transaction or a later statement, is at least as new as the look.
   *
   * Looks may overlap, on several connections. It fails as the query fails, or when a listener throws; then
   * nothing is forgotten and the next look tells the same again.
   */
  look(q: Queryable): Promise<void>
  /** `key` is the user id, the rule's id …; a user id of '' is the tenant's defaults. */
  on(kind: ChangeKind, listener: (tenantId: TenantId, key: string) => void): void
  /** Something may have been missed: forget everything. Called at the first look as well. */
  onReset(listener: () => void): void
}

/** More changes than this between two looks, and forgetting everything is the cheaper answer. */
const MAX_CHANGES = 10_000

/**
 * A snapshot as `pg_snapshot` prints it (PostgreSQL, 9.28.8 "Transaction ID and Snapshot Information"): every
 * transaction below `xmax` that is not in `running` had ended, the others had not or not begun.
 */
interface Snapshot {
  xmax: bigint
  running: bigint[]
}

interface Row {
  kind: string
  tenant_id: number
  key: string
}

// Exactly what the last snapshot could not see: transactions begun since, and those it saw running. So a look
// costs what is new and one index probe for each transaction that was running, however long the oldest has been
// running, and no row is read twice. (Asking for everything above the snapshot's xmin would read an hour of
// changes again at every look while somebody's import runs for an hour.)
// `order by` and `limit` keep the plan on the index: without a value the planner assumes a third of the table.
// The rows of transaction 0 are the sweeper's notes.
const look = sql(
  'look_at_changes',
  `select 'snapshot' as kind, 0 as tenant_id,
          pg_current_snapshot()::text || ':' || coalesce(pg_current_xact_id_if_assigned()::text, '') as key
   union all
   select kind, tenant_id, key from changes where txid = '0' and kind = 'swept'
   union all
   (select kind, tenant_id, key from changes where txid >= $1::xid8 order by txid limit ${MAX_CHANGES + 1})
   union all
   (select kind, tenant_id, key from changes where txid = any ($2::xid8[]) order by txid limit ${MAX_CHANGES + 1})`,
)

const snapshotNow = sql(
  'snapshot_now',
  `select 'snapshot' as kind, 0 as tenant_id,
          pg_current_snapshot()::text || ':' || coalesce(pg_current_xact_id_if_assigned()::text, '') as key`,
)

/** Keeps caches exact: each look forgets what changed since the look before, in whatever order it committed. */
export function changeWatch(): ChangeWatch {
  const listeners = new Map<string, ((tenantId: TenantId, key: string) => void)[]>()
  const resetListeners: (() => void)[] = []
  let seen: Snapshot | undefined

  const reset = (): void => {
    for (const listener of resetListeners) listener()
  }

  return {
    async look(q) {
      const since = seen
      if (since === undefined) {
        const now = parseSnapshot((await q.one<Row>(snapshotNow))!.key)
        // Another first look may have finished meanwhile; resetting once more is harmless.
        reset()
        seen = newer(seen, now)
        return
      }
      const rows = await q.rows<Row>(look, [since.xmax.toString(), since.running.map(String)])
      const now = parseSnapshot(rows[0]!.key)
      let changes = 0
      let missed = false
      for (let i = 1; i < rows.length; i++) {
        if (rows[i]!.kind === 'swept') missed ||= sweptUnseen(since, parseSnapshot(rows[i]!.key))
        else changes++
      }
      if (missed || changes > MAX_CHANGES) reset()
      else
        for (let i = 1; i < rows.length; i++) {
          const { kind, tenant_id, key } = rows[i]!
          for (const listener of listeners.get(kind) ?? []) listener(tenant_id, key)
        }
      seen = newer(seen, now)
    },
    on(kind, listener) {
      const list = listeners.get(kind)
      if (list === undefined) listeners.set(kind, [listener])
      else list.push(listener)
    },
    onReset(listener) {
      resetListeners.push(listener)
    },
  }
}

/** `xmin:xmax:running,running:own`, the last empty where the transaction has written nothing yet. */
function parseSnapshot(text: string): Snapshot {
  const [, xmax, running, own] = text.split(':')
  const snapshot = {
    xmax: BigInt(xmax!),
    running: running === '' || running === undefined ? [] : running.split(',').map(BigInt),
  }
  // A snapshot leaves its own transaction out of the running ones, since that sees its own rows. But it may
  // write more after this look, so for the next look it was running.
  if (own !== undefined && own !== '' && BigInt(own) < snapshot.xmax) snapshot.running.push(BigInt(own))
  return snapshot
}

/**
 * The later of two. Snapshots of one server are totally ordered: a later one has ended transactions added, never
 * removed, so it has the greater xmax, or the same and fewer running.
 */
function newer(a: Snapshot | undefined, b: Snapshot): Snapshot {
  if (a === undefined || a.xmax < b.xmax) return b
  return a.xmax === b.xmax && b.running.length < a.running.length ? b : a
}

/** Whether rows were deleted that `seen` had not been able to see: those of a transaction visible in `swept`. */
function sweptUnseen(seen: Snapshot, swept: Snapshot): boolean {
  return (
    swept.xmax > seen.xmax || seen.running.some(txid => txid < swept.xmax && !swept.running.includes(txid))
  )
}

// The sweep deletes what everybody who looked since the last mark has seen. It goes by visibility, not by the
// column `at`: a transaction that ran for hours commits rows whose `at` is hours old and that nobody has seen.
const lockSweep = sql('lock_change_sweep', `select pg_advisory_xact_lock(${0x63686e67})`)
const takeMark = sql(
  'take_change_mark',
  `delete from changes where txid = '0' and kind = 'mark' and at <= now() - make_interval(secs => $1) returning key, at`,
)
const leaveMark = sql(
  'leave_change_mark',
  `insert into changes (txid, kind, tenant_id, key)
   select '0', 'mark', 0, pg_current_snapshot()::text
   where not exists (select from changes where txid = '0' and kind = 'mark')`,
)
const forgetSwept = sql('forget_swept_changes', `delete from changes where txid = '0' and kind = 'swept'`)
const leaveSwept = sql(
  'leave_swept_changes',
  `insert into changes (txid, kind, tenant_id, key) values ('0', 'swept', 0, $1)`,
)
const deleteSeen = sql(
  'delete_seen_changes',
  `delete from changes where txid > '0' and txid < pg_snapshot_xmax($1::pg_snapshot)
   and pg_visible_in_snapshot(txid, $1::pg_snapshot)`,
)

/**
 * Deletes the changes that committed at least `keepSeconds` ago, in one transaction, and returns how many; to be
 * called again and again by the house-keeping. Whoever looks less often than that finds out and resets.
 */
export function sweepChanges(db: Db, keepSeconds = 3_600): Promise<number> {
  return db.tx(async tx => {
    await tx.run(lockSweep)
    const mark = await tx.one<{ key: string }>(takeMark, [keepSeconds])
    let deleted = 0
    if (mark !== undefined) {
      deleted = await tx.run(deleteSeen, [mark.key])
      await tx.run(forgetSwept)
      await tx.run(leaveSwept, [mark.key])
    }
    await tx.run(leaveMark)
    return deleted
  })
}
