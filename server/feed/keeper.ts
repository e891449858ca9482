import type { Db } from '../db/pool.ts'
import type { TenantId, UserId } from '../types.ts'
import type { Hub } from './hub.ts'
import { MAX_UNREAD, capUnread, pruneFeed, wakeSnoozed } from './upkeep.ts'

/** The house-keeping of inboxes, in every process that writes or shows them. */
export interface FeedKeeper {
  /** To be told whose inbox grew; it is looked at, in the next round, whether it holds too much unread. */
  grew(people: readonly { tenantId: TenantId; userId: UserId }[]): void
  /** One round: caps, due snoozes and, once a minute, what has expired or is old. */
  runOnce(): Promise<void>
  start(): void
  /** Waits for the round that is under way. */
  close(): Promise<void>
}

export interface FeedKeeperOptions {
  db: Db
  hub: Pick<Hub, 'publish'>
  /** Items and changes are kept so long. */
  retentionDays?: number
  maxUnread?: number
  everyMs?: number
  now?: () => Date
  onError?: (error: unknown) => void
}

const PRUNE_EVERY_MS = 60_000
/** Items, and changes, that one round prunes at most. */
const PRUNE_LIMIT = 5_000
/** Rounds of waking in one round of keeping; each wakes up to 200. */
const MAX_WAKES = 50
/** Beyond this many people a round forgets the rest: their next item brings them back. */
const MAX_GROWN = 50_000

export function feedKeeper(options: FeedKeeperOptions): FeedKeeper {
  const { db, hub, onError = () => {} } = options
  const retentionMs = (options.retentionDays ?? 30) * 86_400_000
  const now = options.now ?? (() => new Date())
  let grown = new Map<string, { tenantId: TenantId; userId: UserId }>()
  let pruneAt = 0
  let timer: NodeJS.Timeout | undefined
  let running: Promise<void> | undefined

  const keeper: FeedKeeper = {
    grew(people) {
      for (const { tenantId, userId } of people) {
        if (grown.size >= MAX_GROWN) return
        grown.set(`${tenantId} ${userId}`, { tenantId, userId })
      }
    },

    async runOnce() {
      const at = now()
      const people = [...grown.values()]
      grown = new Map()
      hub.publish(await capUnread(db, people, at, options.maxUnread ?? MAX_UNREAD))

      for (let round = 0; round < MAX_WAKES; round++) {
        const woken = await wakeSnoozed(db, at)
        hub.publish(woken)
        if (woken.length === 0) break
      }

      if (at.getTime() < pruneAt) return
      const pruned = await pruneFeed(db, {
        before: new Date(at.getTime() - retentionMs),
        now: at,
        limit: PRUNE_LIMIT,
      })
      hub.publish(pruned.published)
      pruneAt = pruned.more ? 0 : at.getTime() + PRUNE_EVERY_MS
    },

    start() {
      timer ??= setInterval(() => {
        running ??= keeper
          .runOnce()
          .catch(onError)
          .finally(() => {
            running = undefined
          })
      }, options.everyMs ?? 5_000).unref()
    },

    async close() {
      clearInterval(timer)
      await running
    },
  }
  return keeper
}
