import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import {
  chmodSync,
  chownSync,
  closeSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  rmSync,
  statfsSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { totalmem } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import pg from 'pg'
import { type Binaries, findBinaries } from './embedded-binaries.ts'
import { embeddedSettings } from './embedded-settings.ts'
import { blockedAt, databaseUser, type OsUser } from './embedded-user.ts'
import { lockFile, lockHolder } from './file-lock.ts'

export interface EmbeddedOptions {
  /** The folder of this installation; the database goes into `postgres/` below it. Made when absent. */
  dataDir: string
  /** A TCP port on 127.0.0.1. Without it: the one used last time, or any free one. */
  port?: number
  /** PostgreSQL settings on top of `embeddedSettings`. */
  flags?: Record<string, string | number>
  /** Hears one line for each thing a person may want to know. */
  logs?: (line: string) => void
  /** false: no fsync, for tests. A power cut then destroys the database. */
  durable?: boolean
}

export interface Embedded {
  /**
   * Opens the database `carillon` as the role `carillon`, its owner, who may make databases but is no superuser.
   * Names both ways in: the unix socket for drivers that know `?host=`, 127.0.0.1 for the others.
   */
  url: string
  /** Disconnects everybody, writes a checkpoint, ends the server. May be called twice. */
  stop(): Promise<void>
}

/** What has to be remembered between starts: `<dataDir>/postgres.json`, mode 0600. */
interface Kept {
  /** Where the database lives: `<dataDir>/postgres`, unless PostgreSQL's user may not go there. */
  home: string
  port: number
  password: string
  superuserPassword: string
}

interface Place {
  home: string
  data: string
  log: string
  /** The user to run as when we are root. */
  user: OsUser | undefined
  /** Set as cluster_name, so it stands in the command line of every process of this database. */
  mark: string
}

// Root's checkout often lies in /root, where no other user may go.
const SPARE = '/var/lib/carillon'
const LOG_BYTES = 16 * 1024 * 1024
const FAST_STOP_MS = 60_000

/**
 * Starts the PostgreSQL that npm installed on a data folder of ours and keeps it running: ended from outside, it
 * is started again on the same address. One process at a time may hold a folder. The server ends when `stop` is
 * called and also, through a small watchdog, when this process dies in any way; should even the watchdog be
 * killed, the next start stops what it finds running and recovers.
 *
 * @throws Error that says what to do when the folder is in use, unreachable or of another PostgreSQL version.
 */
export async function startEmbedded(options: EmbeddedOptions): Promise<Embedded> {
  const say = options.logs ?? (() => {})
  const durable = options.durable ?? true
  const dataDir = resolve(options.dataDir)
  const kept = remember(dataDir, say)
  const place = settle(kept, say)

  const lockPath = join(place.home, 'lock')
  const lock = lockFile(lockPath)
  if (lock === undefined) {
    const pid = lockHolder(lockPath)
    throw new Error(
      `The data folder ${dataDir} is in use by another Carillon${pid ? ` (process ${pid})` : ''}. ` +
        'Stop that one first, or give this one a folder of its own.',
    )
  }

  try {
    const binaries = await findBinaries(place.user, SPARE, say)
    await stopLeftovers(place, say)
    await initialise(binaries, place, kept, { durable, say })
    const port = await choosePort(options.port, kept.port)
    if (port !== kept.port) write(dataDir, { ...kept, port })
    const address = { ...kept, port }

    const server = await supervise({
      binaries,
      place,
      settings: {
        ...embeddedSettings(machine(place.home), { durable }),
        ...options.flags,
        ...fixed(place, port),
      },
      say,
    })
    try {
      await ensureDatabase(place, address)
    } catch (error) {
      await server.stop()
      throw error
    }
    return {
      url: urlOf(place.home, address),
      async stop() {
        await server.stop()
        lock.release()
      },
    }
  } catch (error) {
    lock.release()
    throw error
  }
}

/** The address of the embedded database of a data folder, for a second process such as the CLI. */
export function embeddedUrl(dataDir: string): string | undefined {
  const kept = read(resolve(dataDir))
  return kept && urlOf(kept.home, kept)
}

// ---------------------------------------------------------------- what is kept

const keptFile = (dataDir: string) => join(dataDir, 'postgres.json')

function read(dataDir: string): Kept | undefined {
  const file = keptFile(dataDir)
  return existsSync(file) ? (JSON.parse(readFileSync(file, 'utf8')) as Kept) : undefined
}

function write(dataDir: string, kept: Kept, how: 'create' | 'replace' = 'replace'): void {
  const file = keptFile(dataDir)
  const half = `${file}.${process.pid}`
  writeFileSync(half, `${JSON.stringify(kept, null, 2)}\n`, { mode: 0o600 })
  // link(2) fails where a file stands already, so of two first starts at once both go on with the winner's.
  if (how === 'replace') return renameSync(half, file)
  try {
    linkSync(half, file)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  } finally {
    rmSync(half, { force: true })
  }
}

function remember(dataDir: string, say: (line: string) => void): Kept {
  mkdirSync(dataDir, { recursive: true })
  const before = read(dataDir)
  if (before !== undefined) return before

  const home = join(dataDir, 'postgres')
  if (existsSync(join(home, 'data'))) {
    throw new Error(
      `${home} holds a database, but ${keptFile(dataDir)} with its passwords is gone. ` +
        'Put that file back from your backup, or move the folder away to begin anew.',
    )
  }
  const password = () => randomBytes(24).toString('base64url')
  write(
    dataDir,
    { home: reachable(home, say), port: 0, password: password(), superuserPassword: password() },
    'create',
  )
  return read(dataDir)!
}

/** `home`, or a folder below /var/lib/carillon when root started us where PostgreSQL's user may not go. */
function reachable(home: string, say: (line: string) => void): string {
  const user = databaseUser(home, say)
  if (user === undefined) return home
  const dataDir = dirname(home)
  // The data folder is ours: passing through it shows nobody what is in it. Folders above are not ours.
  chmodSync(dataDir, statSync(dataDir).mode | 0o011)
  const blocked = blockedAt(home, user)
  if (blocked === undefined) return home
  const spare = join(SPARE, `postgres-${randomBytes(4).toString('hex')}`)
  say(
    `The database goes to ${spare}: PostgreSQL does not run as root, and its user may not enter ${blocked}. ` +
      'To keep everything together, choose a data folder outside it.',
  )
  return spare
}

function settle(kept: Kept, say: (line: string) => void): Place {
  const { home } = kept
  const user = databaseUser(home, say)
  mkdirSync(dirname(home), { recursive: true, mode: 0o755 })
  if (!existsSync(home)) mkdirSync(home, { mode: 0o700 })
  if (user !== undefined) chownSync(home, user.uid, user.gid)
  const uid = process.getuid?.()
  const owner = statSync(home).uid
  if (uid !== undefined && uid !== 0 && owner !== uid) {
    throw new Error(`${home} belongs to the user with id ${owner}: start Carillon as that user or as root`)
  }
  const blocked = user && blockedAt(join(home, 'data'), user)
  if (blocked !== undefined) {
    throw new Error(
      `PostgreSQL's user (id ${user!.uid}) may not enter ${blocked}, which leads to the database in ${home}. ` +
        `Allow it with "chmod o+x ${blocked}", or move the data folder.`,
    )
  }
  return {
    home,
    data: join(home, 'data'),
    log: join(home, 'postgres.log'),
    user,
    mark: `carillon-${createHash('sha256').update(home).digest('hex').slice(0, 12)}`,
  }
}

// ---------------------------------------------------------------- the cluster

async function initialise(
  binaries: Binaries,
  place: Place,
  kept: Kept,
  options: { durable: boolean; say: (line: string) => void },
): Promise<void> {
  const versionFile = join(place.data, 'PG_VERSION')
  if (existsSync(versionFile)) {
    const [have, brought] = [readFileSync(versionFile, 'utf8').trim(), await majorVersion(binaries)]
    if (have !== brought) {
      throw new Error(
        `The database in ${place.data} was made by PostgreSQL ${have}; this version of Carillon brings ${brought}. ` +
          `Dump it with PostgreSQL ${have} and restore it into a new data folder.`,
      )
    }
    return
  }

  options.say(`Making a database in ${place.data}`)
  const half = join(place.home, 'data.new')
  const passwordFile = join(place.home, 'password.new')
  rmSync(half, { recursive: true, force: true })
  writeFileSync(passwordFile, kept.superuserPassword, { mode: 0o600 })
  if (place.user !== undefined) chownSync(passwordFile, place.user.uid, place.user.gid)
  try {
    // C.UTF-8 from PostgreSQL itself: the same order on every machine, whatever libc it has.
    const locale = ['--encoding=UTF8', '--locale=C', '--locale-provider=builtin', '--builtin-locale=C.UTF-8']
    const access = ['--username=postgres', `--pwfile=${passwordFile}`, '--auth=scram-sha-256']
    const sync = options.durable ? [] : ['--no-sync']
    await run(binaries.initdb, ['-D', half, ...access, ...locale, ...sync, '--no-instructions'], place.user)
  } finally {
    rmSync(passwordFile, { force: true })
  }
  // Only a complete database ever bears the name.
  renameSync(half, place.data)
}

async function majorVersion(binaries: Binaries): Promise<string> {
  return /(\d+)/.exec(await run(binaries.postgres, ['--version'], undefined))?.[1] ?? ''
}

async function ensureDatabase(place: Place, kept: Kept): Promise<void> {
  const client = new pg.Client({
    ...(socketFits(place.home) ? { host: place.home } : { host: '127.0.0.1' }),
    port: kept.port,
    user: 'postgres',
    password: kept.superuserPassword,
    database: 'postgres',
  })
  await client.connect()
  try {
    const exists = async (text: string) => (await client.query(text)).rowCount !== 0
    if (!(await exists(`select from pg_roles where rolname = 'carillon'`))) {
      await client.query(
        `create role carillon login createdb in role pg_monitor, pg_checkpoint
         password ${client.escapeLiteral(kept.password)}`,
      )
    }
    if (!(await exists(`select from pg_database where datname = 'carillon'`))) {
      await client.query('create database carillon owner carillon')
    }
  } finally {
    await client.end()
  }
}

// ---------------------------------------------------------------- running it

/** What our way of running depends on; `flags` cannot change it. */
function fixed(place: Place, port: number): Record<string, string | number> {
  return {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: socketFits(place.home) ? place.home : '',
    cluster_name: place.mark,
    logging_collector: 'off',
    log_destination: 'stderr',
  }
}

async function supervise(spec: {
  binaries: Binaries
  place: Place
  settings: Record<string, string | number>
  say: (line: string) => void
}): Promise<{ stop(): Promise<void> }> {
  const { binaries, place, settings, say } = spec
  const args = [
    '-D',
    place.data,
    ...Object.entries(settings).flatMap(([key, value]) => ['-c', `${key}=${value}`]),
  ]
  let current: { child: ChildProcess; watchdog: ChildProcess | undefined; ended: Promise<string> } | undefined
  let restarting: Promise<void> | undefined
  const stopping = new AbortController()

  async function start(): Promise<void> {
    const from = rotate(place.log)
    const log = openSync(place.log, 'a', 0o600)
    // A session of its own: Ctrl-C is for us, and we stop it after draining. The environment stays behind
    // because it may hold secrets.
    const child = spawn(binaries.postgres, args, {
      ...place.user,
      cwd: '/',
      env: ENVIRONMENT,
      stdio: ['ignore', log, log],
      detached: true,
    })
    closeSync(log)
    child.unref()
    const ended = new Promise<string>(done => {
      child.once('error', error => done(error.message))
      child.once('exit', (code, signal) => done(signal ?? `exit code ${code}`))
    })
    const watchdog = child.pid === undefined ? undefined : watch(child.pid, place)
    const how = await Promise.race([ended, ready(place, child, say)])
    if (how !== undefined) {
      watchdog?.stdin?.end()
      throw new Error(`PostgreSQL did not start (${how}). It says:\n${tail(place.log, from)}`)
    }
    current = { child, watchdog, ended }
    void ended.then(reason => {
      watchdog?.stdin?.end()
      if (stopping.signal.aborted) return
      say(`PostgreSQL ended (${reason}); starting it again`)
      restarting = restart().finally(() => {
        restarting = undefined
      })
    })
  }

  async function restart(): Promise<void> {
    for (let pause = 100; !stopping.signal.aborted; pause = Math.min(pause * 2, 5_000)) {
      try {
        await stopLeftovers(place, say)
        await start()
        return
      } catch (error) {
        say((error as Error).message)
        await delay(pause, undefined, { ref: false, signal: stopping.signal }).catch(() => {})
      }
    }
  }

  await start()
  const rotation = setInterval(() => rotate(place.log), 60_000).unref()

  return {
    async stop() {
      stopping.abort()
      clearInterval(rotation)
      await restarting
      if (current === undefined) return
      const { child, watchdog, ended } = current
      child.ref()
      child.kill('SIGINT')
      if ((await Promise.race([ended, delay(FAST_STOP_MS, undefined, { ref: false })])) === undefined) {
        say(
          'PostgreSQL takes long to stop; ending it without a checkpoint, it will recover at the next start',
        )
        child.kill('SIGQUIT')
        await ended
      }
      watchdog?.stdin?.end()
    },
  }
}

/**
 * A shell that waits for the end of our pipe, which the system closes however we die, and then asks the server
 * for a fast shutdown. It looks into postmaster.pid first, so that it never signals a stranger.
 */
function watch(pid: number, place: Place): ChildProcess | undefined {
  if (process.platform === 'win32') return undefined
  const script =
    'read -r line; read -r pid < "$1/postmaster.pid" && [ "$pid" = "$2" ] && kill -INT "$pid" 2>/dev/null'
  const watchdog = spawn('/bin/sh', ['-c', script, `${place.mark}-watchdog`, place.data, String(pid)], {
    ...place.user,
    cwd: '/',
    env: ENVIRONMENT,
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  })
  watchdog.on('error', () => {})
  watchdog.stdin?.on('error', () => {})
  watchdog.unref()
  ;(watchdog.stdin as unknown as { unref(): void }).unref()
  return watchdog
}

/** Resolves when the server takes connections; never when it ends before. Recovery may take minutes. */
async function ready(place: Place, child: ChildProcess, say: (line: string) => void): Promise<undefined> {
  const started = Date.now()
  const lives = () => child.pid !== undefined && child.exitCode === null && child.signalCode === null
  for (let told = 0; lives(); await delay(20)) {
    const { pid, status } = postmaster(place)
    if (pid === child.pid && status === 'ready') return undefined
    if (Date.now() - started > (told + 1) * 10_000) {
      told++
      say(`PostgreSQL is still starting after ${told * 10} s, probably recovering; see ${place.log}`)
    }
  }
  return new Promise(() => {})
}

/**
 * Ends what still runs from this folder. We hold the folder's lock, so whoever started it is dead. Afterwards its
 * pid files are removed where they name a process all the same (the number was given out again, or nobody reaps
 * the zombie): PostgreSQL would take it for a living server and refuse to start. A pid file that names nobody
 * stays: PostgreSQL finds in it the shared memory to look at for survivors.
 */
async function stopLeftovers(place: Place, say: (line: string) => void): Promise<void> {
  const running = () => processesOf(place.mark)
  const gone = async (ms: number) => {
    for (const end = Date.now() + ms; running().length > 0; await delay(25))
      if (Date.now() > end) return false
    return true
  }
  const signal = (pids: number[], name: NodeJS.Signals) => {
    for (const pid of pids) {
      try {
        process.kill(pid, name)
      } catch {} // ended in the meantime
    }
  }

  if (running().length > 0) {
    const { pid } = postmaster(place)
    if (pid !== undefined && running().includes(pid)) {
      say(`Stopping a PostgreSQL left over in ${place.data} (process ${pid})`)
      signal([pid], 'SIGINT')
      if (!(await gone(FAST_STOP_MS))) signal([pid], 'SIGQUIT')
    }
    // Without their postmaster the others notice and leave by themselves, when they are not deep in a query.
    if (!(await gone(10_000))) signal(running(), 'SIGKILL')
    if (!(await gone(10_000))) {
      throw new Error(`Processes ${running().join(', ')} of the database in ${place.data} cannot be ended`)
    }
  }
  const { pid } = postmaster(place)
  if (pid !== undefined && alive(pid)) rmSync(join(place.data, 'postmaster.pid'), { force: true })
  for (const name of readdirSync(place.home)) {
    if (name.startsWith('.s.PGSQL.')) rmSync(join(place.home, name), { force: true })
  }
}

/** The processes whose command line bears the mark: server processes show cluster_name in their titles. */
function processesOf(mark: string): number[] {
  if (process.platform === 'win32') return []
  const lines =
    process.platform === 'linux'
      ? readdirSync('/proc')
          .filter(name => /^\d+$/.test(name))
          .map(pid => `${pid} ${readOr(`/proc/${pid}/cmdline`, '').replaceAll('\0', ' ')}`)
      : execFileSync('ps', ['-axww', '-o', 'pid=,command='], { encoding: 'utf8' }).split('\n')
  const server = new RegExp(`^\\s*(\\d+) .*(postgres: ${mark}\\b|cluster_name=${mark}\\b)`)
  return lines.map(line => Number(server.exec(line)?.[1])).filter(pid => pid > 1)
}

/** postmaster.pid: the process in the first line, its state in the eighth (src/include/utils/pidfile.h). */
function postmaster(place: Place): { pid: number | undefined; status: string | undefined } {
  const lines = readOr(join(place.data, 'postmaster.pid'), '').split('\n')
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10))
  return { pid: pid > 0 ? pid : undefined, status: lines[7]?.trim() }
}

function alive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

// ---------------------------------------------------------------- addresses, logs, the machine

// sun_path holds 108 bytes on Linux and 104 on macOS, with the socket's name and a zero byte.
const socketFits = (home: string) =>
  process.platform !== 'win32' && Buffer.byteLength(join(home, '.s.PGSQL.65535')) < 104

function urlOf(home: string, kept: Kept): string {
  const url = `postgres://carillon:${kept.password}@127.0.0.1:${kept.port}/carillon`
  return socketFits(home) ? `${url}?host=${encodeURIComponent(home)}` : url
}

async function choosePort(wanted: number | undefined, last: number): Promise<number> {
  if (wanted !== undefined) {
    if (await freePort(wanted)) return wanted
    throw new Error(`Port ${wanted} on 127.0.0.1 is taken: choose another one for the embedded PostgreSQL`)
  }
  return (last > 0 && (await freePort(last))) || (await freePort(0))!
}

const freePort = (port: number) =>
  new Promise<number | undefined>(done => {
    const probe = createServer()
    probe.once('error', () => done(undefined))
    probe.listen({ port, host: '127.0.0.1' }, () => {
      const address = probe.address()
      probe.close(() => done(typeof address === 'object' ? address?.port : undefined))
    })
  })

/**
 * Keeps the log below 16 MB, with one older piece beside it, and returns its size. The server holds the file
 * open for appending, so it is copied and emptied in place.
 */
function rotate(log: string): number {
  const size = statSync(log, { throwIfNoEntry: false })?.size ?? 0
  if (size < LOG_BYTES) return size
  copyFileSync(log, `${log}.1`)
  truncateSync(log)
  return 0
}

/** The last lines written after `from`. */
function tail(log: string, from: number): string {
  const file = openSync(log, 'r')
  try {
    const size = statSync(log).size
    const start = Math.max(from, size - 8_192)
    const buffer = Buffer.alloc(Math.max(0, size - start))
    readSync(file, buffer, 0, buffer.length, start)
    return buffer.toString('utf8').trim().split('\n').slice(-20).join('\n')
  } finally {
    closeSync(file)
  }
}

function machine(home: string) {
  const { bavail, bsize } = statfsSync(home)
  const limit = process.constrainedMemory()
  return {
    memoryBytes: limit > 0 ? Math.min(limit, totalmem()) : totalmem(),
    freeDiskBytes: bavail * bsize,
    ...(existsSync('/dev/shm') ? { sharedMemoryBytes: sizeOf('/dev/shm') } : {}),
  }
}

function sizeOf(mount: string): number {
  const { blocks, bsize } = statfsSync(mount)
  return blocks * bsize
}

const ENVIRONMENT = { PATH: process.env.PATH, LC_ALL: 'C', TZ: 'UTC' }

function run(command: string, args: string[], user: OsUser | undefined): Promise<string> {
  return new Promise((done, fail) => {
    const child = spawn(command, args, {
      ...user,
      cwd: '/',
      env: ENVIRONMENT,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.once('error', fail)
    child.once('close', (code, signal) => {
      if (code === 0) done(output)
      else fail(new Error(`${command} failed (${signal ?? `exit code ${code}`}):\n${output.trim()}`))
    })
  })
}

function readOr(file: string, fallback: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return fallback
  }
}
