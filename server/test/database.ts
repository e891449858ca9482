import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, openSync, readFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { MIGRATIONS_DIR, migrate, readMigrations } from '../db/migrate.ts'
import { type Db, openDb } from '../db/pool.ts'

export interface TestDatabase {
  url: string
  db: Db
  /** Closes `db` and removes the database, whoever is still connected. */
  drop(): Promise<void>
}

/**
 * A new, migrated, empty database of its own for one test or one test file.
 *
 * The server is the one `TEST_DATABASE_URL` names, as under `npm test`; its role must be allowed to make
 * databases. Without it, as when a single file is run by hand, a server shared through a well-known temporary
 * folder is used, which starts on demand and ends a minute after its last user (shared-server.ts).
 *
 * `empty: true` leaves the migrations out; `max` bounds the pool (5).
 */
export async function testDatabase(options: { empty?: boolean; max?: number } = {}): Promise<TestDatabase> {
  const { admin, url: server } = await (connected ??= connect())
  const template = options.empty ? 'template1' : await (prepared ??= prepareTemplate(admin, server))

  const name = `carillon_test_${Math.floor(Date.now() / 1000)}_${process.pid}_${++made}`
  await admin.query(`create database ${name} template ${template}`)
  const url = withDatabase(server, name)
  const db = openDb(url, { max: options.max ?? 5, applicationName: 'carillon test' })
  return {
    url,
    db,
    async drop() {
      await db.close()
      // Not `with (force)`: it refuses where autovacuum, which is nobody's, is at work. A plain drop stops that
      // and waits up to five seconds for whoever else is leaving.
      await admin.query(
        'select pg_terminate_backend(pid) from pg_stat_activity where datname = $1 and usename = current_user',
        [name],
      )
      await admin.query(`drop database if exists ${name}`)
    },
  }
}

/** The folder of the server that test files started by hand share; one per user of the machine. */
export const SHARED_FOLDER = join(tmpdir(), `carillon-test-${userInfo().username}`)
/** Holds the shared server's address while it runs. */
export const SHARED_URL_FILE = join(SHARED_FOLDER, 'url')

interface Connected {
  admin: pg.Client
  url: string
}

let connected: Promise<Connected> | undefined
let prepared: Promise<string> | undefined
let made = 0

async function connect(): Promise<Connected> {
  const given = process.env.TEST_DATABASE_URL
  if (given) {
    const admin = await tryConnect(given)
    if (admin instanceof Error) {
      throw new Error(`TEST_DATABASE_URL cannot be used: ${admin.message}`, { cause: admin })
    }
    return { admin, url: given }
  }

  const deadline = Date.now() + 90_000
  for (let started = 0; Date.now() < deadline; await delay(50)) {
    const url = sharedUrl()
    const admin = url === undefined ? undefined : await tryConnect(url)
    if (admin instanceof pg.Client) return { admin, url: url! }
    // Nobody answers: start one, and again if that one should have met an ending server in the folder.
    if (Date.now() - started > 5_000) {
      started = Date.now()
      startSharedServer()
    }
  }
  throw new Error(`The shared test server does not come up; see ${join(SHARED_FOLDER, 'server.log')}`)
}

function sharedUrl(): string | undefined {
  try {
    return readFileSync(SHARED_URL_FILE, 'utf8')
  } catch {
    return undefined
  }
}

function startSharedServer(): void {
  mkdirSync(SHARED_FOLDER, { recursive: true })
  const log = openSync(join(SHARED_FOLDER, 'server.log'), 'a')
  // Starting several at once is harmless: the folder's lock lets one live.
  spawn(process.execPath, [join(import.meta.dirname, 'shared-server.ts')], {
    detached: true,
    stdio: ['ignore', log, log],
  }).unref()
}

/** This connection stays open as long as the process, which also tells the shared server that it is in use. */
async function tryConnect(url: string): Promise<pg.Client | Error> {
  const client = new pg.Client({ connectionString: url, application_name: 'carillon test admin' })
  client.on('error', () => {})
  try {
    await client.connect()
  } catch (error) {
    return error as Error
  }
  // A finished test file must be able to end without closing it. (In pg, missing in @types/pg.)
  ;(client as unknown as { unref(): void }).unref()
  return client
}

/** The migrated template of these very migrations; the first to need it makes it, for all processes. */
async function prepareTemplate(admin: pg.Client, server: string): Promise<string> {
  const files = await readMigrations(MIGRATIONS_DIR)
  const hash = createHash('sha256').update(JSON.stringify(files.map(({ name, sha256 }) => [name, sha256])))
  const name = `carillon_template_${hash.digest('hex').slice(0, 16)}`
  const exists = async () =>
    (await admin.query('select from pg_database where datname = $1', [name])).rowCount !== 0

  if (await exists()) return name
  await admin.query(`select pg_advisory_lock(hashtext('carillon test template'))`)
  try {
    if (await exists()) return name
    await dropForgotten(admin)
    const half = `${name}_half`
    await admin.query(`drop database if exists ${half} with (force)`)
    await admin.query(`create database ${half}`)
    const db = openDb(withDatabase(server, half), { max: 1 })
    try {
      await migrate(db)
    } finally {
      await db.close()
    }
    // Renamed when complete: a database that bears the name is migrated.
    await admin.query(`alter database ${half} rename to ${name}`)
    return name
  } finally {
    await admin.query(`select pg_advisory_unlock(hashtext('carillon test template'))`)
  }
}

/** Databases of test runs that were killed: nobody is connected, and they are older than an hour. */
async function dropForgotten(admin: pg.Client): Promise<void> {
  const { rows } = await admin.query<{ datname: string }>(
    `select datname from pg_database d
     where datname ~ '^carillon_test_[0-9]+_'
       and split_part(datname, '_', 3)::bigint < extract(epoch from now()) - 3600
       and not exists (select from pg_stat_activity a where a.datid = d.oid)`,
  )
  for (const { datname } of rows) await admin.query(`drop database if exists ${datname}`)
}

function withDatabase(server: string, name: string): string {
  const url = new URL(server)
  url.pathname = `/${name}`
  return url.href
}
