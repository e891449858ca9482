import { PRIORITIES } from '../types.ts'
import type { Channel, TenantId } from '../types.ts'
import type { Delivery } from './delivery.ts'

/**
 * What waits in memory for its turn. Within a channel the more urgent goes first; within a priority the tenants
 * take turns, so that one tenant's backlog costs another one place in the queue and no more.
 */
export interface Scheduler {
  push(delivery: Delivery): void
  /** The next one of this channel. */
  take(channel: Channel): Delivery | undefined
  /** Up to `max` more from the head of the same tenant's queue, as long as they fit: for batch requests. */
  takeMore(like: Delivery, max: number, fits: (delivery: Delivery) => boolean): Delivery[]
  waiting(channel?: Channel): number
  /** Everything that waits, forgotten: its lease is gone. */
  clear(): Delivery[]
}

/** Every so many turns the urgency is read from the other end, so that LOW is slow under load but never stuck. */
const TURN_FOR_THE_LAST = 16

export function scheduler(): Scheduler {
  const channels = new Map<Channel, { levels: Level[]; waiting: number; turn: number }>()

  const lane = (channel: Channel) => {
    let found = channels.get(channel)
    if (!found)
      channels.set(channel, (found = { levels: PRIORITIES.map(() => level()), waiting: 0, turn: 0 }))
    return found
  }
  const at = (delivery: Delivery) => PRIORITIES.indexOf(delivery.priority)

  return {
    push(delivery) {
      const into = lane(delivery.channel)
      into.levels[at(delivery)]!.push(delivery)
      into.waiting++
    },
    take(channel) {
      const from = channels.get(channel)
      if (!from || from.waiting === 0) return undefined
      from.waiting--
      from.turn = (from.turn + 1) % TURN_FOR_THE_LAST
      const order = from.turn === 0 ? from.levels.toReversed() : from.levels
      for (const queue of order) {
        const next = queue.take()
        if (next) return next
      }
      return undefined
    },
    takeMore(like, max, fits) {
      const from = lane(like.channel)
      const more = from.levels[at(like)]!.takeMore(like.tenantId, max, fits)
      from.waiting -= more.length
      return more
    },
    waiting(channel) {
      if (channel !== undefined) return channels.get(channel)?.waiting ?? 0
      let sum = 0
      for (const { waiting } of channels.values()) sum += waiting
      return sum
    },
    clear() {
      const all: Delivery[] = []
      for (const { levels } of channels.values()) for (const queue of levels) all.push(...queue.clear())
      channels.clear()
      return all
    },
  }
}

interface Level {
  push(delivery: Delivery): void
  take(): Delivery | undefined
  takeMore(tenantId: TenantId, max: number, fits: (delivery: Delivery) => boolean): Delivery[]
  clear(): Delivery[]
}

/** One priority of one channel: a ring of tenants, each with its own queue. */
function level(): Level {
  const queues = new Map<TenantId, Fifo>()
  let ring: TenantId[] = []
  let next = 0
  // One tenant's queue runs empty with every message while all is quiet: the next one takes it over.
  let spare: Fifo | undefined

  const drop = (index: number) => {
    spare = queues.get(ring[index]!)
    queues.delete(ring[index]!)
    ring.splice(index, 1)
    if (next > index) next--
  }

  return {
    push(delivery) {
      let queue = queues.get(delivery.tenantId)
      if (!queue) {
        queues.set(delivery.tenantId, (queue = spare ?? fifo()))
        spare = undefined
        // Right behind the tenant that was served last: a newcomer does not wait a whole round.
        ring.splice(next, 0, delivery.tenantId)
      }
      queue.push(delivery)
    },
    take() {
      if (ring.length === 0) return undefined
      if (next >= ring.length) next = 0
      const index = next
      const queue = queues.get(ring[index]!)!
      const delivery = queue.shift()
      next++
      if (queue.length === 0) drop(index)
      return delivery
    },
    takeMore(tenantId, max, fits) {
      const more: Delivery[] = []
      const queue = queues.get(tenantId)
      while (queue && more.length < max && queue.length > 0 && fits(queue.head()!)) more.push(queue.shift()!)
      if (queue?.length === 0) drop(ring.indexOf(tenantId))
      return more
    },
    clear() {
      const all: Delivery[] = []
      for (const queue of queues.values()) while (queue.length > 0) all.push(queue.shift()!)
      queues.clear()
      ring = []
      next = 0
      return all
    },
  }
}

interface Fifo {
  push(delivery: Delivery): void
  shift(): Delivery | undefined
  head(): Delivery | undefined
  readonly length: number
}

/** Array.shift moves every element; a tenant may have thousands. */
function fifo(): Fifo {
  let items: Delivery[] = []
  let from = 0
  return {
    push: delivery => void items.push(delivery),
    shift() {
      const item = items[from]
      if (item === undefined) return undefined
      from++
      if (from === items.length) {
        items = []
        from = 0
      } else if (from > 1024 && from * 2 > items.length) {
        items = items.slice(from)
        from = 0
      }
      return item
    },
    head: () => items[from],
    get length() {
      return items.length - from
    },
  }
}
