import { type Config, loadConfig } from '../server/config.ts'
import { embeddedUrl, startEmbedded } from '../server/db/embedded.ts'
import { type Db, openDb } from '../server/db/pool.ts'
import { SOLUTIONS } from '../solutions/index.ts'
import { type Input, UsageError } from './command.ts'
import { complain } from './print.ts'

/** The configuration as the server on this machine reads it, with `--data-dir` on top. */
export function readConfig(input: Input): Config {
  const dir = input.text('data-dir')
  return loadConfig(input.env, dir === undefined ? [] : ['--data-dir', dir], undefined, SOLUTIONS)
}

/**
 * Opens the database itself: DATABASE_URL, or the embedded one, which is started for as long as `work` takes when
 * no server runs it at the moment.
 */
export async function withDatabase<T>(config: Config, work: (db: Db) => Promise<T>): Promise<T> {
  const url = config.database.url?.reveal() ?? (await runningUrl(config))
  if (url !== undefined) return useDb(url, work)
  const embedded = await startEmbedded({
    dataDir: config.data.dir,
    port: config.database.embeddedPort || undefined,
    logs: complain,
  })
  try {
    return await useDb(embedded.url, work)
  } finally {
    await embedded.stop()
  }
}

/** The address of the embedded database, if it runs. */
export async function runningUrl(config: Config): Promise<string | undefined> {
  const url = embeddedUrl(config.data.dir)
  if (url === undefined) return undefined
  const db = openDb(url, { max: 1, applicationName: 'carillon cli' })
  try {
    const client = await db.connect('carillon cli')
    await client.end()
    return url
  } catch {
    return undefined
  } finally {
    await db.close()
  }
}

/** For commands that only make sense on a database that is there. */
export function requireDatabase(config: Config): void {
  if (config.mode === 'embedded' && embeddedUrl(config.data.dir) === undefined) {
    throw new UsageError(
      `There is no database in ${config.data.dir}. Name its folder with --data-dir, or set DATABASE_URL.`,
    )
  }
}

async function useDb<T>(url: string, work: (db: Db) => Promise<T>): Promise<T> {
  const db = openDb(url, { max: 4, applicationName: 'carillon cli' })
  try {
    return await work(db)
  } finally {
    await db.close()
  }
}
