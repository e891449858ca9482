import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { dirname } from 'node:path'

/** Whom PostgreSQL runs as. */
export interface OsUser {
  uid: number
  gid: number
}

/**
 * PostgreSQL refuses to run as root. For root this gives the user to run as instead: the one who owns the
 * database already, else `postgres`, which is made when the machine has none. Undefined: run as ourselves.
 */
export function databaseUser(home: string, say: (line: string) => void): OsUser | undefined {
  if (process.getuid?.() !== 0) return undefined
  const owner = statSync(home, { throwIfNoEntry: false })
  if (owner !== undefined && owner.uid !== 0) return { uid: owner.uid, gid: owner.gid }
  return lookUp('postgres') ?? create('postgres', say)
}

/** The outermost folder above `path` that `user` may not pass through, if there is one. */
export function blockedAt(path: string, user: OsUser): string | undefined {
  const above = dirname(path)
  if (above === path) return undefined
  const outer = blockedAt(above, user)
  if (outer !== undefined) return outer
  const { uid, gid, mode } = statSync(above)
  const may = uid === user.uid ? mode & 0o100 : gid === user.gid ? mode & 0o010 : mode & 0o001
  return may === 0 ? above : undefined
}

function lookUp(name: string): OsUser | undefined {
  const id = (flag: string) =>
    Number(execFileSync('id', [flag, name], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }))
  try {
    return { uid: id('-u'), gid: id('-g') }
  } catch {
    return undefined
  }
}

function create(name: string, say: (line: string) => void): OsUser {
  const ways: [string, string[]][] = [
    ['useradd', ['--system', '--user-group', '--no-create-home', '--shell', '/usr/sbin/nologin', name]],
    ['adduser', ['-S', '-D', '-H', name]], // BusyBox
  ]
  for (const [command, args] of ways) {
    try {
      execFileSync(command, args, { stdio: 'ignore' })
    } catch {
      continue
    }
    const user = lookUp(name)
    if (user === undefined) continue
    say(`Made the system user "${name}", because PostgreSQL refuses to run as root`)
    return user
  }
  throw new Error(
    `PostgreSQL refuses to run as root, and the user "${name}" could not be made. ` +
      'Start Carillon as an ordinary user, or point DATABASE_URL at a PostgreSQL server.',
  )
}
