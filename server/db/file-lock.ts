import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { DatabaseSync } from 'node:sqlite'

export interface FileLock {
  release(): void
}

/**
 * Takes an exclusive lock that lives exactly as long as this process, or returns undefined when another process
 * has it. Node offers no flock(2); SQLite's exclusive transaction is the same promise from the operating system
 * (fcntl, LockFileEx), so kill -9 frees it at once and no stale pid file is ever left to be misread.
 */
export function lockFile(path: string): FileLock | undefined {
  const file = new DatabaseSync(path, { timeout: 0 })
  try {
    // Nothing is ever written: a journal in memory leaves no second file behind.
    file.exec('pragma journal_mode = memory; begin exclusive')
  } catch (error) {
    file.close()
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) return undefined
    throw new Error(`Cannot lock ${path}: ${(error as Error).message}`, { cause: error })
  }
  writeFileSync(holder(path), `${process.pid}\n`)
  return {
    release() {
      rmSync(holder(path), { force: true })
      if (file.isOpen) file.close()
    },
  }
}

/** The process that says it holds the lock, for messages only: the text may be older than the lock. */
export function lockHolder(path: string): number | undefined {
  try {
    return Number.parseInt(readFileSync(holder(path), 'utf8'), 10) || undefined
  } catch {
    return undefined
  }
}

const SQLITE_BUSY = 5
const holder = (path: string) => `${path}.pid`
