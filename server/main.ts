import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { ensureFirstTenant } from './admin/tenants.ts'
import { startApp } from './app.ts'
import type { App } from './app.ts'
import type { Config } from './config.ts'
import { masterKeyring } from './config.ts'
import { startEmbedded } from './db/embedded.ts'
import { migrate } from './db/migrate.ts'
import { openDb } from './db/pool.ts'
import { sealer } from './db/seal.ts'
import { createLogger } from './observe/log.ts'

export interface Running {
  url: string | undefined
  stop(): Promise<void>
}

/** Starts everything the configuration asks for, database included, and says where everything is. */
export async function run(
  config: Config,
  say: (line: string) => void = line => console.log(line),
): Promise<Running> {
  const log = createLogger({ level: config.observe.logLevel })
  mkdirSync(config.data.dir, { recursive: true })
  const embedded =
    config.mode === 'embedded'
      ? await startEmbedded({
          dataDir: config.data.dir,
          port: config.database.embeddedPort || undefined,
          logs: line => log.info(line),
        })
      : undefined
  const databaseUrl = embedded?.url ?? config.database.url!.reveal()

  let app: App
  let adminKey: string | undefined
  try {
    const db = openDb(databaseUrl, { max: 2 })
    await migrate(db)
    ;({ adminKey } = await ensureFirstTenant(db, sealer(masterKeyring(config).reveal())))
    await db.close()
    if (adminKey && embedded) {
      writeFileSync(join(config.data.dir, 'admin.key'), `${adminKey}\n`, { mode: 0o600 })
    }
    app = await startApp({ config, databaseUrl, log })
  } catch (error) {
    await embedded?.stop()
    throw portRefused(error, config) ?? error
  }

  giveBack()

  const line = (name: string, value: string) => say(`  ${name.padEnd(12)}${value}`)
  say('\nCarillon is ready.')
  if (app.url) {
    line('API', app.url)
    line('Docs', `${app.url}/docs`)
    line('Console', `${app.url}/console`)
    if (app.mailboxPort) line('Mailbox', `${app.url}/dev/mailbox  (SMTP 127.0.0.1:${app.mailboxPort})`)
  }
  line('Roles', config.process.roles.names.join(', '))
  line('Data', embedded ? config.data.dir : 'DATABASE_URL')
  if (embedded) line('Admin key', join(config.data.dir, 'admin.key'))
  // Outside embedded mode nobody keeps a file: this is the only time it is shown.
  else if (adminKey) line('Admin key', `${adminKey}  (shown once)`)
  say('')

  return {
    url: app.url,
    async stop() {
      await app.stop()
      await embedded?.stop()
    },
  }
}

/** A port that cannot be had, with the setting that chooses another: the system's words name neither. */
function portRefused(error: unknown, config: Config): Error | undefined {
  const { code, syscall, port } = error as NodeJS.ErrnoException & { port?: number }
  if (syscall !== 'listen' || (code !== 'EADDRINUSE' && code !== 'EACCES')) return undefined
  const wanted: [string, number | undefined][] = [
    ['PORT', config.http.port],
    ['MAILBOX_PORT', config.mailbox.port],
    ['CARILLON_BOUNCE_PORT', config.bounces.port],
  ]
  const [setting] = wanted.find(([, number]) => number === port) ?? []
  if (setting === undefined) return undefined
  const why = code === 'EACCES' ? 'may not be opened by this user' : 'is taken by another program'
  return new Error(`Port ${port} ${why}. Set ${setting} to another one.`, { cause: error })
}

/**
 * Gives what starting left behind back to the system: V8 would keep 50 MB for as long as there is little to do.
 * Takes 0.1 s, before anybody asks for anything.
 */
function giveBack(): void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as (how: { type: 'major'; flavor: 'last-resort' }) => void
  setFlagsFromString('--no-expose-gc')
  collect({ type: 'major', flavor: 'last-resort' })
}
