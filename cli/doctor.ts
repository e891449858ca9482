import { accessSync, constants, existsSync, readdirSync, statfsSync, statSync } from 'node:fs'
import { createServer, connect as connectTcp } from 'node:net'
import { dirname, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { createClient as createRedis } from 'redis'
import { request } from 'undici'
import { type Config, ConfigError, masterKeyring } from '../server/config.ts'
import { embeddedUrl } from '../server/db/embedded.ts'
import { pendingMigrations } from '../server/db/migrate.ts'
import { type Db, openDb, sql } from '../server/db/pool.ts'
import { sealer } from '../server/db/seal.ts'
import { tablesWithoutPartition } from '../server/observe/ready.ts'
import type { Command } from './command.ts'
import { readConfig, runningUrl } from './database.ts'
import { mailDns, systemLookup } from './mail-dns.ts'
import { print, printJson, style } from './print.ts'

type State = 'ok' | 'warn' | 'fail'

interface Finding {
  name: string
  state: State
  /** What was found. */
  says: string
  /** What to do about it, where it is not ok. */
  advice?: string
}

type Report = (name: string, state: State, says: string, advice?: string) => void

export const command: Command = {
  name: 'doctor',
  summary: 'Look at this installation and say what is wrong with it',
  about: 'Changes nothing. Exits with 1 when something fails; what is only doubtful does not.',
  options: {
    'data-dir': { value: 'FOLDER', about: 'Folder of the embedded database' },
    dns: { about: 'Look up what receivers of our mail see: SPF, DKIM, DMARC' },
  },
  async run(input) {
    const findings: Finding[] = []
    const report: Report = (name, state, says, advice) => {
      const finding = { name, state, says, ...(advice === undefined ? {} : { advice }) }
      findings.push(finding)
      if (!input.json) print(lineOf(finding))
    }
    checkNode(report)
    const config = checkConfiguration(report, () => readConfig(input))
    if (config !== undefined) {
      checkDataFolder(report, config)
      checkDisk(report, config)
      await checkDatabase(report, config)
      await checkPort(report, config)
      await Promise.all([
        checkRedis(report, config),
        checkMail(report, config),
        checkIssuer(report, config),
        checkCollector(report, config),
      ])
      checkAddress(report, config)
      if (input.on('dns')) await checkMailDns(report, config)
    }
    if (input.json) printJson({ ok: findings.every(one => one.state !== 'fail'), findings })
    else {
      const count = (state: State) => findings.filter(one => one.state === state).length
      print(`\n${count('ok')} ok, ${count('warn')} doubtful, ${count('fail')} failed`)
    }
    return findings.some(one => one.state === 'fail') ? 1 : 0
  },
}

function lineOf({ name, state, says, advice }: Finding): string {
  const mark = {
    ok: style('green', '✓ ok  '),
    warn: style('yellow', '! warn'),
    fail: style('red', '✗ fail'),
  }[state]
  return `${mark}  ${name.padEnd(14)}${says}${advice === undefined ? '' : `\n${' '.repeat(22)}→ ${advice}`}`
}

// ---------------------------------------------------------------- this machine

const NODE_MAJOR = 24

function checkNode(report: Report): void {
  const { node } = process.versions
  if (Number(node.split('.')[0]) >= NODE_MAJOR) report('node', 'ok', node)
  else
    report(
      'node',
      'fail',
      `${node}; ${NODE_MAJOR} or later is needed`,
      'Start it with "npx carillon" or "npm start", which use the one installed beside it',
    )
}

function checkConfiguration(report: Report, read: () => Config): Config | undefined {
  try {
    const config = read()
    if (config.warnings.length === 0)
      report('configuration', 'ok', `${config.mode} database, roles ${config.process.roles.names.join(', ')}`)
    for (const warning of config.warnings) report('configuration', 'warn', warning)
    return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const problem of error.problems)
      report('configuration', 'fail', problem, 'See docs/reference/configuration.md')
    return undefined
  }
}

const SECRET_FILES = ['master.key', 'admin.key', 'postgres.json']

function checkDataFolder(report: Report, config: Config): void {
  const { dir } = config.data
  if (!existsSync(dir)) {
    if (config.mode === 'external') return
    const parent = nearestFolder(dir)
    if (mayWrite(parent)) report('data folder', 'ok', `${dir} will be made at the first start`)
    else
      report(
        'data folder',
        'fail',
        `${dir} does not exist, and ${parent} may not be written`,
        `Make it and give it to this user, or set CARILLON_DATA_DIR`,
      )
    return
  }
  if (!mayWrite(dir))
    return report(
      'data folder',
      'fail',
      `${dir} may not be written`,
      'Give it to the user that runs Carillon',
    )
  const open = SECRET_FILES.filter(
    name => existsSync(join(dir, name)) && (statSync(join(dir, name)).mode & 0o077) !== 0,
  )
  if (open.length > 0) {
    return report(
      'data folder',
      'fail',
      `others may read ${open.join(', ')}`,
      `chmod 600 ${open.map(name => join(dir, name)).join(' ')}`,
    )
  }
  report('data folder', 'ok', dir)
}

function mayWrite(folder: string): boolean {
  try {
    accessSync(folder, constants.W_OK | constants.X_OK)
    return statSync(folder).isDirectory()
  } catch {
    return false
  }
}

const nearestFolder = (path: string): string => (existsSync(path) ? path : nearestFolder(dirname(path)))

const GB = 1024 ** 3

function checkDisk(report: Report, config: Config): void {
  if (config.mode === 'external') return
  const { bavail, blocks, bsize } = statfsSync(nearestFolder(config.data.dir))
  const [free, share] = [bavail * bsize, bavail / blocks]
  const says = `${(free / GB).toFixed(1)} GB free (${Math.round(share * 100)} %)`
  const advice = 'Make room, or shorten the CARILLON_KEEP_… settings: a full disk stops PostgreSQL'
  report(
    'disk',
    free < GB ? 'fail' : free < 5 * GB || share < 0.05 ? 'warn' : 'ok',
    says,
    free < 5 * GB || share < 0.05 ? advice : undefined,
  )
}

// ---------------------------------------------------------------- the database

const readServer = sql(
  'doctor_server',
  `select current_setting('server_version_num')::int as version, current_setting('server_version') as shown,
          current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes,
          current_setting('synchronous_commit') as synchronous_commit,
          current_setting('max_connections')::int as max_connections, pg_is_in_recovery() as standby,
          current_setting('server_encoding') as encoding, has_schema_privilege(current_schema(), 'create') as may_create`,
)
const readClock = sql('doctor_clock', 'select clock_timestamp() as now')
const readTenantKey = sql('doctor_tenant_key', 'select data_key from tenants order by id limit 1')

const OLDEST_SERVER = 160_000
const CLOCK_WARN_MS = 1000
const CLOCK_FAIL_MS = 30_000

async function checkDatabase(report: Report, config: Config): Promise<void> {
  const url = config.database.url?.reveal() ?? (await runningUrl(config))
  if (url === undefined) {
    if (existsSync(join(config.data.dir, 'master.key'))) checkMasterKey(report, config)
    const made = embeddedUrl(config.data.dir) !== undefined
    return report(
      'database',
      'ok',
      made ? 'embedded, not running now' : 'embedded, will be made at the first start',
    )
  }
  const db = openDb(url, { max: 2, applicationName: 'carillon doctor' })
  try {
    await checkServer(report, config, db)
    await checkClock(report, db)
    const migrated = await checkMigrations(report, db)
    if (migrated) await checkPartitions(report, db)
    const wrapped = migrated ? (await db.one<{ data_key: Buffer }>(readTenantKey))?.data_key : undefined
    checkMasterKey(report, config, wrapped)
  } catch (error) {
    // Names the host, never the password.
    report(
      'database',
      'fail',
      (error as Error).message || String((error as NodeJS.ErrnoException).code),
      'Check that DATABASE_URL is right and the server runs',
    )
  } finally {
    await db.close()
  }
}

async function checkServer(report: Report, config: Config, db: Db): Promise<void> {
  const server = (await db.one<{
    version: number
    shown: string
    fsync: string
    full_page_writes: string
    synchronous_commit: string
    max_connections: number
    standby: boolean
    encoding: string
    may_create: boolean
  }>(readServer))!
  if (server.version < OLDEST_SERVER) {
    return report(
      'database',
      'fail',
      `PostgreSQL ${server.shown}; 16 or later is needed`,
      'Upgrade the server',
    )
  }
  report('database', 'ok', `PostgreSQL ${server.shown}, ${config.mode}`)
  if (server.standby)
    report('database', 'fail', 'it is a standby and takes no writes', 'Name the primary in DATABASE_URL')
  if (server.encoding !== 'UTF8')
    report('database', 'fail', `its encoding is ${server.encoding}`, 'Make a database with encoding UTF8')
  if (!server.may_create)
    report('database', 'fail', 'the role may not create tables', 'Make it the owner of the database')

  const unsafe = (['fsync', 'full_page_writes'] as const).filter(name => server[name] !== 'on')
  if (server.synchronous_commit === 'off') unsafe.push('synchronous_commit' as 'fsync')
  if (unsafe.length > 0) {
    report(
      'durability',
      'fail',
      `${unsafe.join(', ')} off: what was accepted can be lost`,
      'Switch it on, unless losing notifications is fine',
    )
  } else report('durability', 'ok', 'fsync, full_page_writes and synchronous_commit are on')

  // The pool, the lanes, the settler, the owner's connection and the listener; and something for people.
  const needed = config.database.poolSize + config.ingest.lanes + 8
  if (needed > server.max_connections) {
    report(
      'connections',
      'warn',
      `one process uses up to ${needed}, the server allows ${server.max_connections}`,
      'Raise max_connections, or lower CARILLON_DB_POOL or CARILLON_LANES',
    )
  }
}

async function checkClock(report: Report, db: Db): Promise<void> {
  await db.one(readClock)
  const before = Date.now()
  const { now } = (await db.one<{ now: Date }>(readClock))!
  const after = Date.now()
  // The answer was made somewhere between the two; anything beyond them is a difference of clocks.
  const skew = Math.max(before - now.getTime(), now.getTime() - after, 0)
  const says = `${skew} ms apart from the database, which answers in ${after - before} ms`
  const advice = 'Run a time service on both machines: leases, schedules and retries compare the two clocks'
  if (skew > CLOCK_FAIL_MS) report('clock', 'fail', says, advice)
  else if (skew > CLOCK_WARN_MS) report('clock', 'warn', says, advice)
  else report('clock', 'ok', says)
}

async function checkMigrations(report: Report, db: Db): Promise<boolean> {
  try {
    const pending = await pendingMigrations(db)
    if (pending.length === 0) report('migrations', 'ok', 'all applied')
    else
      report(
        'migrations',
        'warn',
        `${pending.length} to apply: ${pending.join(', ')}`,
        'The next start applies them, or "carillon migrate"',
      )
    return pending.length === 0
  } catch (error) {
    report('migrations', 'fail', (error as Error).message)
    return false
  }
}

const DAY_MS = 86_400_000

async function checkPartitions(report: Report, db: Db): Promise<void> {
  const advice = 'A running server with the role "schedule" makes them ahead'
  const now = await tablesWithoutPartition(db, new Date())
  if (now.length > 0) return report('partitions', 'warn', `none for today in ${now.join(', ')}`, advice)
  const soon = await tablesWithoutPartition(db, new Date(Date.now() + 7 * DAY_MS))
  if (soon.length > 0) return report('partitions', 'warn', `none for next week in ${soon.join(', ')}`, advice)
  report('partitions', 'ok', 'there for today and the coming week')
}

/** The only proof that a key is the right one is something it opens. */
function checkMasterKey(report: Report, config: Config, wrapped?: Buffer): void {
  if (
    config.mode === 'embedded' &&
    config.data.masterKeys === undefined &&
    !existsSync(join(config.data.dir, 'master.key'))
  ) {
    if (wrapped === undefined) return
    const folder = existsSync(config.data.dir) ? readdirSync(config.data.dir).join(', ') : 'no folder'
    return report(
      'master key',
      'fail',
      `${config.data.dir} has no master.key (${folder}), so nothing can be opened`,
      'Put it back from your backup',
    )
  }
  try {
    const { unwrap } = sealer(masterKeyring(config).reveal())
    if (wrapped === undefined) return report('master key', 'ok', 'readable')
    unwrap(wrapped)
    report('master key', 'ok', 'opens what is in the database')
  } catch (error) {
    report(
      'master key',
      'fail',
      (error as Error).message,
      'Set CARILLON_MASTER_KEY to the key this database was made with',
    )
  }
}

// ---------------------------------------------------------------- the neighbours

const NEIGHBOUR_MS = 5000

async function checkPort(report: Report, config: Config): Promise<void> {
  const { port, host } = config.http
  if (port === 0 || !config.process.roles.api) return
  const here = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  const address = `http://${here.includes(':') ? `[${here}]` : here}:${port}`
  if (await isFree(port, host)) return report('port', 'ok', `${port} is free`)
  try {
    const { statusCode, body } = await request(`${address}/healthz`, {
      headersTimeout: NEIGHBOUR_MS,
      bodyTimeout: NEIGHBOUR_MS,
    })
    const health = (await body.json()) as { version?: string }
    if (statusCode === 200 && health.version !== undefined) {
      const ready = await request(`${address}/readyz`, {
        headersTimeout: NEIGHBOUR_MS,
        bodyTimeout: NEIGHBOUR_MS,
      })
      const { checks = {} } = (await ready.body.json()) as { checks?: Record<string, string> }
      if (ready.statusCode === 200)
        return report('server', 'ok', `version ${health.version} runs at ${address} and is ready`)
      const wrong = Object.entries(checks).filter(([, say]) => say !== 'ok')
      return report(
        'server',
        'warn',
        `it runs at ${address} and is not ready: ${wrong.map(pair => pair.join(': ')).join('; ')}`,
      )
    }
  } catch {
    // Something else, that does not speak our language.
  }
  report('port', 'fail', `${port} is used by another program`, 'Set PORT to a free one')
}

function isFree(port: number, host: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>()
  const server = createServer()
  server.once('error', () => resolve(false))
  server.listen({ port, host, exclusive: true }, () => server.close(() => resolve(true)))
  return promise
}

async function checkRedis(report: Report, config: Config): Promise<void> {
  const url = config.redis.url?.reveal()
  if (url === undefined) return
  const client = createRedis({ url, socket: { connectTimeout: NEIGHBOUR_MS, reconnectStrategy: false } })
  // node-redis ends the process on an error nobody listens to.
  client.on('error', () => {})
  try {
    await client.connect()
    await client.ping()
    report('redis', 'ok', 'answers')
  } catch (error) {
    report(
      'redis',
      'warn',
      `does not answer: ${(error as Error).message}`,
      'Work goes on without it; limits then count for each process alone',
    )
  } finally {
    client.destroy()
  }
}

/** Only when asked for: names of ours would otherwise go out to whoever answers for them. */
async function checkMailDns(report: Report, config: Config): Promise<void> {
  if (config.smtp.host === undefined)
    return report('dns', 'ok', 'no mail is sent by SMTP, so there is nothing to look up')
  try {
    for (const { name, state, says, advice } of await mailDns(config, systemLookup()))
      report(name, state, says, advice)
  } catch (error) {
    report('dns', 'warn', `names cannot be looked up: ${(error as Error).message}`)
  }
}

async function checkMail(report: Report, config: Config): Promise<void> {
  const { host, port, security, from } = config.smtp
  if (host === undefined) {
    if (config.mode === 'embedded') {
      const mailbox = config.mailbox.port
      // Taken while nothing is at PORT, it is taken by a stranger.
      const taken =
        mailbox !== 0 &&
        !(await isFree(mailbox, '127.0.0.1')) &&
        (await isFree(config.http.port, config.http.host))
      if (taken) {
        report('mail', 'fail', `port ${mailbox} is used by another program`, 'Set MAILBOX_PORT to a free one')
      } else report('mail', 'ok', `goes to the local mailbox on port ${mailbox || 'that is free then'}`)
    } else
      report(
        'mail',
        'warn',
        'no server for e-mail is set',
        'Set SMTP_HOST and SMTP_FROM, or leave e-mail out of your rules',
      )
    return
  }
  try {
    const greeting = await smtpGreeting(
      host,
      port,
      security === 'tls' || (security === 'auto' && port === 465),
    )
    if (greeting.startsWith('220')) report('mail', 'ok', `${host}:${port} answers; mail is from ${from}`)
    else report('mail', 'fail', `${host}:${port} refuses: ${greeting}`, 'Ask whoever runs it')
  } catch (error) {
    report(
      'mail',
      'fail',
      `${host}:${port} cannot be reached: ${(error as Error).message}`,
      'Check SMTP_HOST, SMTP_PORT and SMTP_SECURE (465 is usually tls, 587 starttls)',
    )
  }
}

async function smtpGreeting(host: string, port: number, tls: boolean): Promise<string> {
  const socket = tls ? connectTls({ host, port, servername: host }) : connectTcp({ host, port })
  const { promise, resolve, reject } = Promise.withResolvers<string>()
  socket.setTimeout(NEIGHBOUR_MS, () => reject(new Error('no answer in time')))
  socket.once('error', reject)
  socket.once('end', () => reject(new Error('it closed the connection')))
  socket.once('data', data => resolve(data.toString('latin1').split('\r\n')[0]!.slice(0, 200)))
  try {
    const greeting = await promise
    socket.end('QUIT\r\n')
    return greeting
  } finally {
    socket.destroySoon()
  }
}

async function checkIssuer(report: Report, config: Config): Promise<void> {
  const { jwksUrl } = config.auth
  if (jwksUrl === undefined) return
  try {
    const { statusCode, body } = await request(jwksUrl, {
      headersTimeout: NEIGHBOUR_MS,
      bodyTimeout: NEIGHBOUR_MS,
    })
    const { keys } = (await body.json()) as { keys?: unknown[] }
    if (statusCode === 200 && Array.isArray(keys) && keys.length > 0)
      report('token issuer', 'ok', `${keys.length} keys`)
    else report('token issuer', 'fail', `${jwksUrl} answers ${statusCode} without keys`, 'Check JWKS_URL')
  } catch (error) {
    report('token issuer', 'fail', `${jwksUrl} cannot be used: ${(error as Error).message}`, 'Check JWKS_URL')
  }
}

async function checkCollector(report: Report, config: Config): Promise<void> {
  const { otlpEndpoint } = config.observe
  if (otlpEndpoint === undefined) return
  const { hostname, port, protocol } = new URL(otlpEndpoint)
  const socket = connectTcp({
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port) || (protocol === 'https:' ? 443 : 80),
  })
  const reached = new Promise<boolean>(resolve => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  })
  const answer = await Promise.race([reached, delay(NEIGHBOUR_MS, false, { ref: false })])
  socket.destroy()
  if (answer) report('collector', 'ok', `${hostname} answers`)
  else report('collector', 'warn', `${otlpEndpoint} cannot be reached`, 'Traces are dropped until it can')
}

function checkAddress(report: Report, config: Config): void {
  const { publicUrl } = config.http
  const { hostname, protocol } = new URL(publicUrl)
  const local = hostname === 'localhost' || hostname.startsWith('127.')
  if (config.mode === 'embedded') return
  if (local)
    report(
      'address',
      'warn',
      `links in messages lead to ${publicUrl}`,
      'Set PUBLIC_URL to the address people reach',
    )
  else if (protocol === 'http:')
    report(
      'address',
      'warn',
      `${publicUrl} is not encrypted`,
      'Put TLS in front; one-click unsubscribe needs https (RFC 8058)',
    )
  else report('address', 'ok', publicUrl)
}
