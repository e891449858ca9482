import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { embeddedUrl } from '../server/db/embedded.ts'

/** The real product in a process of its own, on its own embedded PostgreSQL with default, durable settings. */
export interface BenchServer {
  url: string
  key: string
  databaseUrl: string
  /** CPU seconds so far: of the server, and of every process of its PostgreSQL. */
  cpu(): { node: number; postgres: number }
  /** Resident memory of the server without PostgreSQL, in MB. */
  rss(): number
  /** The parsed answer of a request; what was created has an id. */
  call(method: string, path: string, body?: unknown): Promise<{ id: string }>
  /** Ends it; at the end of the bench it is ended anyway. */
  stop(): Promise<void>
}

/** What was started and made, to be undone in reverse order. */
const undo: (() => unknown)[] = []

/** Remembers how to end or remove something, for however this program ends. */
export const atEnd = (step: () => unknown): void => void undo.push(step)

/**
 * The frame of a bench: whatever happens (an error, a signal, `minutes` gone by), everything given to `atEnd` is
 * undone, with a deadline each, and the program ends.
 */
export async function bench(minutes: number, work: () => Promise<void>): Promise<void> {
  let ending: Promise<void> | undefined
  const end = (code: number) => {
    ending ??= (async () => {
      for (const step of undo.toReversed()) {
        await within(60, 'clearing up', Promise.resolve().then(step)).catch((error: Error) => {
          console.error(error.message)
        })
      }
      process.exit(code)
    })()
    return ending
  }
  setTimeout(() => {
    console.error(`Not done after ${minutes} minutes: given up.`)
    void end(2)
  }, minutes * 60_000)
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => void end(130))
  try {
    await work()
    await end(0)
  } catch (error) {
    console.error(error)
    await end(1)
  }
}

/** @throws Error after so many seconds without an answer. */
export async function within<T>(seconds: number, what: string, answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end after ${seconds} s`)), seconds * 1000)
  })
  try {
    return await Promise.race([answer, late])
  } finally {
    clearTimeout(timer)
  }
}

/** A temporary folder, removed at the end. */
export function temporary(): string {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-bench-'))
  // PostgreSQL runs as another user than root, who must be able to come by here.
  chmodSync(dir, 0o755)
  atEnd(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

/** Another program of this folder as a process of its own, killed at the end; what it says is for `said`. */
export function program(file: string, ...args: string[]): ChildProcess {
  const child = spawn(process.execPath, [join(import.meta.dirname, file), ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  atEnd(() => child.kill('SIGKILL'))
  return child
}

export async function benchServer(environment: Record<string, string> = {}): Promise<BenchServer> {
  const dir = temporary()
  const data = join(dir, 'data')
  const port = await freePort()
  const server = spawn(
    process.execPath,
    ['--max-semi-space-size=64', join(import.meta.dirname, '..', 'cli', 'carillon.js'), 'start'],
    {
      env: {
        ...process.env,
        PORT: String(port),
        MAILBOX_PORT: '0',
        CARILLON_DATA_DIR: data,
        LOG_LEVEL: 'error',
        OUTBOUND_ALLOW: '127.0.0.1/32',
        CARILLON_LIMIT_PER_KEY: '10000000',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  const ended = new Promise(resolve => server.once('exit', resolve))
  const stop = async () => {
    server.kill('SIGTERM')
    await within(45, 'stopping the server', ended).catch(() => server.kill('SIGKILL'))
  }
  atEnd(stop)
  await said(server, 'Carillon is ready.')
  const url = `http://127.0.0.1:${port}`
  const key = readFileSync(join(data, 'admin.key'), 'utf8').trim()

  return {
    url,
    key,
    databaseUrl: embeddedUrl(data)!,
    cpu: () => ({
      node: cpuOf(server.pid!),
      postgres: postgresOf(data).reduce((sum, pid) => sum + cpuOf(pid), 0),
    }),
    rss: () => Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))![1]) / 1024,
    async call(method, path, body) {
      const response = await fetch(url + path, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        body: body === undefined ? undefined : JSON.stringify(body),
      })
      const text = await response.text()
      if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text.slice(0, 300)}`)
      return JSON.parse(text || '{}') as { id: string }
    },
    stop,
  }
}

/** Resolves when the child prints a whole line with this text; what it prints is not shown. */
export function said(child: ChildProcess, text: string, seconds = 120): Promise<string> {
  const heard = new Promise<string>((resolve, reject) => {
    let seen = ''
    child.stdout!.on('data', chunk => {
      seen += chunk
      const line = seen
        .split('\n')
        .slice(0, -1)
        .find(each => each.includes(text))
      if (line !== undefined) resolve(line)
    })
    child.once('close', code => reject(new Error(`The process ended with ${code} before it said "${text}"`)))
  })
  return within(seconds, `"${text}" of a process`, heard)
}

export const freePort = (): Promise<number> =>
  new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const { port } = probe.address() as { port: number }
      probe.close(() => resolve(port))
    })
  })

/** User and system time of a process in seconds; 0 once it is gone. */
export function cpuOf(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    return (Number(fields[11]) + Number(fields[12])) / 100
  } catch {
    return 0
  }
}

/** Every process below the postmaster of this data folder, and itself. */
function postgresOf(data: string): number[] {
  const all = readdirSync('/proc')
    .filter(name => /^\d+$/.test(name))
    .map(Number)
  const parents = new Map<number, number>()
  let root: number | undefined
  for (const pid of all) {
    try {
      parents.set(pid, Number(readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')[1]))
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8')
      if (command.includes('bin/postgres') && command.includes(data)) root ??= pid
    } catch {
      // It ended meanwhile.
    }
  }
  return root === undefined ? [] : [root, ...all.filter(pid => parents.get(pid) === root)]
}
