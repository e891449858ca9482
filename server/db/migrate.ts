import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Db, type Queryable, queryable, sql } from './pool.ts'

/** Where the numbered files live: `0001_core.sql`, `0002_….sql`, without gaps. */
export const MIGRATIONS_DIR = join(import.meta.dirname, 'migrations')

export interface Migration {
  number: number
  /** The file's name, which is also its key in the table `migrations`. */
  name: string
  text: string
  sha256: string
  /**
   * The file says `-- no-transaction` on a line of its own, and holds exactly one statement, such as
   * CREATE INDEX CONCURRENTLY. One, because a second could fail after the first took effect.
   */
  transactional: boolean
}

// Any constant serves; this one spells "migr".
const LOCK = 0x6d696772

const createTable = `
create table if not exists migrations (
  name        text primary key,
  sha256      text not null check (sha256 ~ '^[0-9a-f]{64}$'),
  applied_at  timestamptz not null default now(),
  duration_ms integer not null
)`

const hasTable = sql('has_migrations_table', `select to_regclass('migrations') is not null as present`)
const listApplied = sql('list_migrations', `select name, sha256 from migrations order by name`)
const record = sql(
  'record_migration',
  `insert into migrations (name, sha256, duration_ms) values ($1, $2, $3)`,
)
const tryLock = sql('try_migration_lock', `select pg_try_advisory_lock($1) as locked`)

/**
 * Applies what is pending, oldest first, each file in a transaction of its own, and returns the names of the
 * files it applied. Safe to run from many processes at once: one works, the others wait and find nothing to do.
 *
 * @throws Error naming the file when an applied file has changed, is missing here (the database is newer than
 * the code), or fails; what was applied before it stays.
 */
export async function migrate(db: Db, dir: string = MIGRATIONS_DIR): Promise<string[]> {
  const client = await db.connect('carillon migrate')
  try {
    await lock(client)
    const session = queryable(client)
    await client.query(createTable)
    const pending = await pendingOf(session, dir)
    for (const migration of pending) await apply(client, session, migration)
    return pending.map(migration => migration.name)
  } finally {
    // The lock belongs to the session and goes with it.
    await client.end()
  }
}

/** The names of the files that `migrate` would apply now. Reads only. */
export async function pendingMigrations(db: Queryable, dir: string = MIGRATIONS_DIR): Promise<string[]> {
  return (await pendingOf(db, dir)).map(migration => migration.name)
}

/** The files of a folder in order. Refuses anything that is not a migration, twins and gaps. */
export async function readMigrations(dir: string = MIGRATIONS_DIR): Promise<Migration[]> {
  const names = (await readdir(dir)).filter(name => name.endsWith('.sql')).sort()
  return Promise.all(
    names.map(async (name, index) => {
      const number = Number(/^(\d{4})_[a-z0-9_]+\.sql$/.exec(name)?.[1] ?? Number.NaN)
      if (number !== index + 1) {
        const expected = String(index + 1).padStart(4, '0')
        throw new Error(`Migration ${name}: expected a file named ${expected}_<a_few_words>.sql here`)
      }
      // A checkout may rewrite line ends (git autocrlf); that is not a change of the migration.
      const text = (await readFile(join(dir, name), 'utf8')).replaceAll('\r\n', '\n')
      return {
        number,
        name,
        text,
        sha256: createHash('sha256').update(text).digest('hex'),
        transactional: !/^--\s*no-transaction\s*$/m.test(text),
      }
    }),
  )
}

async function pendingOf(db: Queryable, dir: string): Promise<Migration[]> {
  const files = await readMigrations(dir)
  const present = (await db.one<{ present: boolean }>(hasTable))!.present
  const applied = present ? await db.rows<{ name: string; sha256: string }>(listApplied) : []

  const byName = new Map(files.map(file => [file.name, file]))
  for (const { name, sha256 } of applied) {
    const file = byName.get(name)
    if (file === undefined) {
      throw new Error(
        `The database is newer than this version: it has migration ${name}, which is not in ${dir}. ` +
          'Start the version that made it, or a later one.',
      )
    }
    if (file.sha256 !== sha256) {
      throw new Error(
        `Migration ${name} was changed after it had been applied to this database. ` +
          'Restore the file, and put the change into a new migration.',
      )
    }
  }
  const done = new Set(applied.map(row => row.name))
  return files.filter(file => !done.has(file.name))
}

async function apply(client: pg.Client, session: Queryable, migration: Migration): Promise<void> {
  const { name, text, sha256, transactional } = migration
  const started = performance.now()
  if (transactional) await client.query('begin')
  try {
    // Without parameters this is one simple Query message, so a file may hold many statements.
    await client.query(text)
    await session.run(record, [name, sha256, Math.round(performance.now() - started)])
    if (transactional) await client.query('commit')
  } catch (error) {
    if (transactional) await client.query('rollback').catch(() => {})
    throw new Error(`Migration ${name}${lineOf(error, text)}: ${(error as Error).message}`, { cause: error })
  }
}

/**
 * Asks again and again instead of waiting inside `pg_advisory_lock`: a waiting statement holds a snapshot, and
 * CREATE INDEX CONCURRENTLY in the process that has the lock waits for all older snapshots: a deadlock.
 */
async function lock(client: pg.Client): Promise<void> {
  const session = queryable(client)
  while (!(await session.one<{ locked: boolean }>(tryLock, [LOCK]))!.locked) await delay(100)
}

function lineOf(error: unknown, text: string): string {
  const position = error instanceof pg.DatabaseError ? Number(error.position) : Number.NaN
  return Number.isInteger(position) ? `, line ${text.slice(0, position).split('\n').length}` : ''
}
