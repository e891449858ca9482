import type { Db } from '../db/pool.ts'
import type { ObjectStore } from './object-store.ts'
import { forgetUnused } from './store.ts'

/** Forgets the bytes of deleted assets, a while after. */
export interface AssetKeeper {
  /** @returns how many were forgotten */
  runOnce(): Promise<number>
  start(everyMs?: number): void
  stop(): Promise<void>
}

const EVERY_MS = 600_000
/** Whoever deletes and uploads the same again finds it still there. */
const GRACE_MS = 3_600_000
const AT_ONCE = 100

export function assetKeeper(parts: {
  db: Db
  objects: ObjectStore | undefined
  now(): Date
  onError(error: unknown): void
}): AssetKeeper {
  let timer: NodeJS.Timeout | undefined
  let running: Promise<unknown> | undefined

  const runOnce = () =>
    forgetUnused(parts.db, parts.objects, new Date(parts.now().getTime() - GRACE_MS), AT_ONCE)

  return {
    runOnce,
    start(everyMs = EVERY_MS) {
      timer ??= setInterval(() => {
        running ??= runOnce()
          .catch(parts.onError)
          .finally(() => {
            running = undefined
          })
      }, everyMs)
    },
    async stop() {
      clearInterval(timer)
      timer = undefined
      await running
    },
  }
}
