import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { idFloor } from './ids.ts'
import { type Db, type Queryable, sql, type Tx } from './pool.ts'

/**
 * Monthly partitions by uuidv7: the id is the time, so a month is a range of ids. `events_y2026m11` holds what was
 * made in November 2026 UTC; rows of months without a partition go to `events_default`.
 */

// Any constant serves; this one spells "part".
const LOCK = 0x70617274
// A statement that waits for a table's lock makes everybody queue behind it: better to let go and come again.
const LOCK_TIMEOUT_MS = 300
const ATTEMPTS = 30
const MAX_MONTHS = 240

const takeLock = sql('lock_partitions', 'select pg_advisory_xact_lock($1)')
const setLockTimeout = sql('set_lock_timeout', `select set_config('lock_timeout', $1, true)`)

const describeTable = sql(
  'describe_partitioned_table',
  `select a.attname as key, nullif(p.partdefid, 0)::regclass::text as fallback
   from pg_partitioned_table p
   join pg_attribute a on a.attrelid = p.partrelid and a.attnum = p.partattrs[0]
   where p.partrelid = to_regclass($1) and p.partstrat = 'r'`,
)

// Also those that were detached and not dropped because the process died in between.
const listMonths = sql(
  'list_month_partitions',
  `select c.relname as name, i.inhrelid is not null as attached
   from pg_class c
   left join pg_inherits i on i.inhrelid = c.oid and i.inhparent = to_regclass($1)
   where c.relnamespace = (select relnamespace from pg_class where oid = to_regclass($1))
     and c.relkind = 'r' and c.relname ~ ('^' || $1 || '_y[0-9]{4}m[0-9]{2}$')
   order by c.relname`,
)

/**
 * Sees to it that every table of `tables` has a partition for each month from that of `from` (default: this month)
 * to `monthsAhead` months after `now`, and a default partition. Returns the names of the partitions it made. Any
 * number of processes may call it at any time. Rows that waited in the default partition are moved to their month.
 *
 * @throws Error when a table is not partitioned by range, or stays locked by others for about half a minute.
 */
export async function ensurePartitions(
  db: Db,
  options: { tables: readonly string[]; from?: Date; monthsAhead?: number; now: Date },
): Promise<string[]> {
  const { tables, now } = options
  const first = monthOf(options.from ?? now)
  const last = monthOf(now) + (options.monthsAhead ?? 2)
  if (last - first > MAX_MONTHS)
    throw new Error(`Refusing to make more than ${MAX_MONTHS} monthly partitions`)

  const made: string[] = []
  for (const table of tables) {
    checkName(table)
    // Read without any lock: nearly always there is nothing to do.
    const missing = await missingMonths(db, table, first, last)
    if (missing.length === 0 && (await describe(db, table)).fallback !== null) continue
    const names = await lockedBriefly(db, async tx => {
      const { key, fallback } = await describe(tx, table)
      if (fallback === null)
        await tx.client.query(`create table ${table}_default partition of ${table} default`)
      const months = await missingMonths(tx, table, first, last)
      for (const month of months) await addMonth(tx, { table, key, fallback, month })
      return months.map(month => partitionName(table, month))
    })
    made.push(...names)
  }
  return made
}

/**
 * Retention: drops the partitions of `table` whose last row is older than `before`, and deletes such rows from the
 * default partition. A month that is not over at `before` stays whole.
 */
export async function dropPartitionsBefore(
  db: Db,
  options: { table: string; before: Date },
): Promise<{ partitions: string[]; rows: number }> {
  const { table, before } = options
  checkName(table)
  const { key, fallback } = await describe(db, table)
  const cut = monthOf(before)

  const old = (await db.rows<{ name: string; attached: boolean }>(listMonths, [table])).filter(
    partition => monthInName(partition.name) < cut,
  )
  for (const { name, attached } of old) {
    // Two transactions: detaching locks the whole table for a moment, removing the files of a big partition takes
    // longer and then concerns nobody. (Not CONCURRENTLY: impossible where there is a default partition.)
    if (attached) {
      await lockedBriefly(db, async tx => {
        const still = (await tx.rows<{ name: string; attached: boolean }>(listMonths, [table])).find(
          partition => partition.name === name,
        )
        if (still?.attached) await tx.client.query(`alter table ${table} detach partition ${name}`)
      })
    }
    await db.pool.query(`drop table if exists ${name}`)
  }
  if (fallback === null) return { partitions: old.map(partition => partition.name), rows: 0 }
  const deleted = await db.pool.query(`delete from ${fallback} where ${key} < $1`, [idFloor(monthStart(cut))])
  return { partitions: old.map(partition => partition.name), rows: deleted.rowCount ?? 0 }
}

/** `events`, November 2026 → `events_y2026m11`. */
export const partitionName = (table: string, month: number): string =>
  `${table}_y${String(Math.floor(month / 12)).padStart(4, '0')}m${String((month % 12) + 1).padStart(2, '0')}`

/**
 * Made apart and then attached, because readers of the table may go on meanwhile; CREATE … PARTITION OF would stop
 * them. Writers wait: a row on its way to the default partition while its month appears would be refused, as it
 * belongs there no more.
 */
async function addMonth(
  tx: Tx,
  { table, key, fallback, month }: { table: string; key: string; fallback: string | null; month: number },
): Promise<void> {
  const name = partitionName(table, month)
  const [from, to] = [idFloor(monthStart(month)), idFloor(monthStart(month + 1))]
  await tx.client.query(`create table ${name} (like ${table} including all)`)
  if (fallback !== null) {
    await tx.client.query(`lock table ${table} in share row exclusive mode`)
    await tx.client.query(
      `with moved as (delete from ${fallback} where ${key} >= '${from}' and ${key} < '${to}' returning *)
       insert into ${name} select * from moved`,
    )
  }
  await tx.client.query(
    `alter table ${table} attach partition ${name} for values from ('${from}') to ('${to}')`,
  )
}

async function missingMonths(db: Queryable, table: string, first: number, last: number): Promise<number[]> {
  const present = new Set(
    (await db.rows<{ name: string; attached: boolean }>(listMonths, [table]))
      .filter(partition => partition.attached)
      .map(partition => monthInName(partition.name)),
  )
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => first + index).filter(
    month => !present.has(month),
  )
}

async function describe(db: Queryable, table: string) {
  const found = await db.one<{ key: string; fallback: string | null }>(describeTable, [table])
  if (found === undefined) throw new Error(`The table ${table} is not partitioned by range`)
  return found
}

async function lockedBriefly<T>(db: Db, work: (tx: Tx) => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await db.tx(async tx => {
        await tx.one(takeLock, [LOCK])
        await tx.one(setLockTimeout, [`${LOCK_TIMEOUT_MS}ms`])
        return work(tx)
      })
    } catch (error) {
      const busy = error instanceof pg.DatabaseError && (error.code === '55P03' || error.code === '40P01')
      if (!busy || attempt === ATTEMPTS) throw error
      await delay(500 + 500 * Math.random())
    }
  }
}

// Months are counted from year 0, so that they can be added and compared.
const monthOf = (date: Date) => date.getUTCFullYear() * 12 + date.getUTCMonth()
const monthStart = (month: number) => Date.UTC(Math.floor(month / 12), month % 12)

function monthInName(name: string): number {
  const [, year, month] = /_y(\d{4})m(\d{2})$/.exec(name) ?? []
  return Number(year) * 12 + Number(month) - 1
}

// Names are spliced into statements, which take no parameters there.
function checkName(table: string): void {
  if (!/^[a-z_][a-z0-9_]{0,50}$/.test(table)) throw new Error(`Not the name of a table: ${table}`)
}
