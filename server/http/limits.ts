/** How many requests a minute each kind of caller may make. */
export interface RequestLimits {
  /** One person, by token. */
  perUser: number
  /** One address: people behind it, and whoever calls public paths. */
  perIp: number
  /** One API key or service token. */
  perKey: number
  /** Refused credentials from one address, after which it has to wait. */
  failuresPerIp: number
}

export const DEFAULT_LIMITS: RequestLimits = { perUser: 300, perIp: 600, perKey: 60_000, failuresPerIp: 100 }

export interface Standing {
  allowed: boolean
  limit: number
  remaining: number
  /** Whole seconds until the count starts anew; at least 1. */
  resetSeconds: number
}

export interface Limiter {
  /** Counts one request and says where its key stands. */
  take(key: string, limit: number): Standing
  /** The same without counting. */
  peek(key: string, limit: number): Standing
  /** One exchange with Redis; called every `EXCHANGE_MS` after `start`. Without Redis it does nothing. */
  exchange(): Promise<void>
  start(): void
  close(): void
}

/** The part of node-redis 6 (package `redis`) that is used. */
export interface LimitStore {
  isReady: boolean
  multi(): LimitPipeline
}
interface LimitPipeline {
  incrBy(key: string, by: number): LimitPipeline
  expire(key: string, seconds: number): LimitPipeline
  execAsPipeline(): Promise<unknown[]>
}

export const WINDOW_MS = 60_000
export const EXCHANGE_MS = 100
/** Keys beyond this many in one minute share one count: a flood of addresses cannot fill the memory. */
const MAX_KEYS = 100_000
const OVERFLOW = 'overflow'

interface Count {
  /** Not told to Redis yet. */
  own: number
  /** Everybody's, as of the last exchange. */
  shared: number
}

/**
 * Counts in windows of one minute of the wall clock, so that every process is in the same window and nothing
 * has to expire one by one.
 *
 * Deciding never waits: it reads this process's memory. With Redis, the processes add up their counts ten times
 * a second, so together they overshoot a limit by at most what arrives in a tenth of a second; while Redis is
 * away each one goes on with its own count. (@fastify/rate-limit asks its store at every request, and its Redis
 * store is written for ioredis.)
 */
export function limiter(options: { redis?: LimitStore; now?: () => number; maxKeys?: number } = {}): Limiter {
  const { redis } = options
  const now = options.now ?? Date.now
  const maxKeys = options.maxKeys ?? MAX_KEYS
  let window = 0
  let counts = new Map<string, Count>()
  let dirty = new Set<string>()
  let timer: NodeJS.Timeout | undefined
  let exchanging = false

  function countOf(key: string): Count {
    let count = counts.get(key)
    if (count === undefined) {
      if (counts.size >= maxKeys && key !== OVERFLOW) return countOf(OVERFLOW)
      counts.set(key, (count = { own: 0, shared: 0 }))
    }
    return count
  }

  function standing(key: string, limit: number, by: number): Standing {
    const at = now()
    const current = Math.floor(at / WINDOW_MS)
    if (current !== window) {
      window = current
      counts = new Map()
      dirty = new Set()
    }
    const count = by === 0 ? counts.get(key) : countOf(key)
    const total = count === undefined ? 0 : count.own + count.shared
    const allowed = total < limit
    if (by !== 0 && allowed) {
      count!.own += by
      if (redis !== undefined) dirty.add(key)
    }
    return {
      allowed,
      limit,
      remaining: Math.max(0, limit - total - (allowed ? by : 0)),
      resetSeconds: Math.max(1, Math.ceil(((current + 1) * WINDOW_MS - at) / 1000)),
    }
  }

  const self: Limiter = {
    take: (key, limit) => standing(key, limit, 1),
    peek: (key, limit) => standing(key, limit, 0),
    async exchange() {
      if (redis === undefined || exchanging || !redis.isReady || dirty.size === 0) return
      exchanging = true
      const told: { count: Count; by: number }[] = []
      try {
        let pipeline = redis.multi()
        for (const key of dirty) {
          const count = counts.get(key)
          if (count === undefined) continue
          const name = `carillon:limit:${window}:${key}`
          pipeline = pipeline.incrBy(name, count.own).expire(name, (2 * WINDOW_MS) / 1000)
          told.push({ count, by: count.own })
          count.shared += count.own
          count.own = 0
        }
        dirty = new Set()
        const replies = await pipeline.execAsPipeline()
        for (const [i, { count }] of told.entries()) {
          const total = replies[2 * i]
          if (typeof total === 'number') count.shared = Math.max(count.shared, total)
        }
      } catch {
        // Nothing to undo: what was told stays counted here as shared, which is this process's own view.
      } finally {
        exchanging = false
      }
    },
    start() {
      if (redis !== undefined) timer ??= setInterval(() => void self.exchange(), EXCHANGE_MS).unref()
    },
    close: () => clearInterval(timer),
  }
  return self
}

/** One address; of IPv6 the /64, which is what one customer gets (RFC 6177 §2). */
export function addressKey(ip: string): string {
  if (!ip.includes(':')) return ip
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(ip)
  if (mapped !== null) return mapped[1]!
  const [head, tail] = ip.split('::') as [string, string?]
  const groups = head === '' ? [] : head.split(':')
  if (tail !== undefined) {
    const rest = tail === '' ? 0 : tail.split(':').length
    while (groups.length < 8 - rest && groups.length < 4) groups.push('0')
    if (groups.length < 4) groups.push(...tail.split(':'))
  }
  return groups
    .slice(0, 4)
    .map(group => Number.parseInt(group, 16).toString(16))
    .join(':')
}
