/**
 * Builds the console into `console/dist` when what it is made of has changed since, by a hash of its sources; else it
 * returns at once. `npm start` calls it first, so there is one command and no build to forget.
 */
import { hash } from 'node:crypto'
import { globSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { lockFile } from '../server/db/file-lock.ts'

const ROOT = join(import.meta.dirname, '..')
const CONSOLE = join(ROOT, 'console')
const DIST = join(CONSOLE, 'dist')
const STAMP = join(DIST, 'built-from')
const LOCK = join(CONSOLE, '.building')

/** What the built files depend on: the sources, and the versions of what is built into them. */
export function sourcesHash(): string {
  const files = globSync(['index.html', '*.ts', '*.json', 'src/**/*'], { cwd: CONSOLE, withFileTypes: true })
    .filter(entry => entry.isFile() && !entry.name.endsWith('.test.ts'))
    .map(entry => join(entry.parentPath, entry.name))
    .sort()
  const all = [...files, join(ROOT, 'package-lock.json')].map(
    file => `${file.slice(ROOT.length)}\0${hash('sha256', readFileSync(file), 'hex')}`,
  )
  return hash('sha256', all.join('\n'), 'hex')
}

const isBuilt = (sources: string): boolean => {
  try {
    return readFileSync(STAMP, 'utf8') === sources
  } catch {
    return false
  }
}

/** Whether anything had to be built. Several processes at once: one builds, the others wait for it. */
export async function buildConsole(say: (line: string) => void = () => {}): Promise<boolean> {
  const sources = sourcesHash()
  if (isBuilt(sources)) return false
  const deadline = Date.now() + 120_000
  let held = lockFile(LOCK)
  while (held === undefined && Date.now() < deadline) {
    await new Promise(resolve => setTimeout(resolve, 100))
    held = lockFile(LOCK)
  }
  if (held === undefined)
    throw new Error(`Somebody else has been building the console for 2 minutes (${LOCK})`)
  try {
    if (isBuilt(sources)) return false
    say('Building the console …')
    rmSync(DIST, { recursive: true, force: true })
    // Loaded only where something is built: 60 MB.
    const { build } = await import('vite')
    await build({ configFile: join(CONSOLE, 'vite.config.ts'), logLevel: 'warn' })
    for (const name of readdirSync(join(DIST, 'assets'))) {
      if (/\.(js|css|svg)$/.test(name)) compress(join(DIST, 'assets', name))
    }
    writeFileSync(STAMP, sources)
    return true
  } finally {
    held.release()
  }
}

/** Beside the file: the server hands out what the browser takes, and compresses nothing itself. */
function compress(file: string): void {
  const bytes = readFileSync(file)
  writeFileSync(`${file}.br`, brotliCompressSync(bytes))
  writeFileSync(`${file}.gz`, gzipSync(bytes, { level: 9 }))
}

if (import.meta.main) {
  try {
    await buildConsole(line => console.error(line))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_MODULE_NOT_FOUND') throw error
    // Installed without development packages: the server starts all the same, and says at /console what is missing.
    console.error('The console is not built: "npm ci" without --omit=dev brings what builds it.')
  }
}
