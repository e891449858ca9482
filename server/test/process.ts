import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'

/** The product as a process of its own, as `npm start` runs it. */
export interface Running {
  /** Undefined without the role api. */
  url: string | undefined
  /** SIGKILL. */
  kill(): Promise<void>
  /** SIGTERM; its exit code. */
  stop(): Promise<number | null>
}

const started = new Set<ChildProcess>()

/** Kills whatever of it still runs, also what is only about to: for the end of a test, however it ends. */
export async function killStarted(): Promise<void> {
  await Promise.all(
    [...started].map(async child => {
      const gone = once(child, 'exit')
      child.kill('SIGKILL')
      await gone
    }),
  )
}

/** Resolves once it says that it is ready. It needs at least DATABASE_URL, CARILLON_MASTER_KEY and CARILLON_DATA_DIR. */
export async function startProcess(environment: Record<string, string>): Promise<Running> {
  const child = spawn(
    process.execPath,
    [join(import.meta.dirname, '..', '..', 'cli', 'carillon.ts'), 'start'],
    {
      env: {
        ...process.env,
        NODE_OPTIONS: '',
        HOST: '127.0.0.1',
        PORT: '0',
        MAILBOX_PORT: '0',
        OUTBOUND_ALLOW: '127.0.0.1/32',
        LOG_LEVEL: 'fatal',
        CARILLON_LIMIT_PER_USER: '10000000',
        CARILLON_LIMIT_PER_IP: '10000000',
        CARILLON_LIMIT_PER_KEY: '10000000',
        ...environment,
      },
      stdio: ['ignore', 'pipe', 'inherit'],
    },
  )
  started.add(child)
  child.on('exit', () => started.delete(child))
  const gone = once(child, 'exit') as Promise<[number | null]>
  const url = await ready(child)
  return {
    url,
    async kill() {
      child.kill('SIGKILL')
      await gone
    },
    async stop() {
      child.kill('SIGTERM')
      return (await gone)[0]
    },
  }
}

/** What it says first ends with where its data is; where it answers stands before. */
function ready(child: ChildProcess): Promise<string | undefined> {
  let said = ''
  return new Promise((resolve, reject) => {
    child.stdout!.setEncoding('utf8').on('data', (chunk: string) => {
      said += chunk
      if (/^ *Data +\S/m.test(said)) resolve(/^ *API +(\S+)$/m.exec(said)?.[1])
    })
    child.on('exit', code => reject(new Error(`It did not start (${code}): ${said}`)))
  })
}
