import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { startEmbedded } from '../db/embedded.ts'
import { SHARED_FOLDER, SHARED_URL_FILE } from './database.ts'

/**
 * A process of its own: the PostgreSQL that test files run by hand share. `testDatabase` starts it; it ends by
 * itself, with its folder, when nobody has been connected for a minute.
 */
const IDLE_MS = 60_000
const LOOK_EVERY_MS = 5_000

const countUsers = `
select count(*)::int as users from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid()`

// A previous server's files are of no use to anybody; should it still be alive, its lock stops us here.
const server = await startEmbedded({ dataDir: SHARED_FOLDER, durable: false, logs: console.log })
const admin = new pg.Client({ connectionString: server.url, application_name: 'carillon shared test server' })
await admin.connect()
process.once('SIGTERM', () => void end())

const users = async () => (await admin.query<{ users: number }>(countUsers)).rows[0]!.users
do {
  announce()
  for (let lastUse = Date.now(); Date.now() - lastUse < IDLE_MS; await delay(LOOK_EVERY_MS)) {
    if ((await users()) > 0) lastUse = Date.now()
  }
  // Nobody finds it from now on; whoever has just found it keeps it.
  rmSync(SHARED_URL_FILE, { force: true })
  await delay(LOOK_EVERY_MS)
} while ((await users()) > 0)
await end()

function announce(): void {
  writeFileSync(`${SHARED_URL_FILE}.new`, server.url, { mode: 0o600 })
  renameSync(`${SHARED_URL_FILE}.new`, SHARED_URL_FILE)
}

async function end(): Promise<void> {
  rmSync(SHARED_URL_FILE, { force: true })
  await admin.end()
  await server.stop()
  rmSync(SHARED_FOLDER, { recursive: true, force: true })
  process.exit(0)
}
