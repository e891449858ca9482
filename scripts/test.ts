/**
 * What `npm test` runs: every test file of the repository, or the files and globs given as arguments, on one
 * PostgreSQL server of its own that is gone afterwards. `TEST_DATABASE_URL` names another server instead.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { startEmbedded } from '../server/db/embedded.ts'
import { lockFile } from '../server/db/file-lock.ts'
import { buildConsole } from './build-console.ts'
import { installNeeds } from './needs.ts'

const FILES = ['server', 'solutions', 'cli', 'bench', 'scripts', 'console/src'].map(
  folder => `${folder}/**/*.test.ts`,
)
const PREFIX = 'carillon-tests-'
const say = (line: string) => console.error(`# ${line}`)

installNeeds(say)
// Once, for the tests that open it in a browser.
await buildConsole(say)
removeForgotten()

const given = process.env.TEST_DATABASE_URL
const folder = given ? undefined : mkdtempSync(join(tmpdir(), PREFIX))
const server =
  folder === undefined ? undefined : await startEmbedded({ dataDir: folder, durable: false, logs: say })

const files = process.argv.slice(2)
const runner = spawn(
  process.execPath,
  [
    '--test',
    // Measured on two cores: 1 at a time takes twice as long as 2; 3 and 4 win nothing.
    `--test-concurrency=${Math.max(2, availableParallelism())}`,
    // Against hanging only: no test comes near it.
    '--test-timeout=300000',
    ...(files.length > 0 ? files : FILES),
  ],
  { stdio: 'inherit', env: { ...process.env, TEST_DATABASE_URL: given || server!.url } },
)
// Ctrl-C reaches the runner by itself; what is left to us is to clean up when it has ended.
process.on('SIGINT', () => {})
process.on('SIGTERM', () => runner.kill('SIGTERM'))

const [code] = (await once(runner, 'exit')) as [number | null]
await server?.stop()
if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
process.exitCode = code ?? 1

/** Folders of runs that were killed: nobody holds their lock any more. */
function removeForgotten(): void {
  for (const name of readdirSync(tmpdir()).filter(entry => entry.startsWith(PREFIX))) {
    const forgotten = join(tmpdir(), name)
    try {
      const lock = lockFile(join(forgotten, 'postgres', 'lock'))
      if (lock === undefined) continue
      lock.release()
      rmSync(forgotten, { recursive: true, force: true })
    } catch {} // Just being made, or another user's.
  }
}
