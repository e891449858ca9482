import { AppError } from '../errors.ts'
import type { TenantId, UserId } from '../types.ts'
import type { Fanout } from './fanout.ts'
import type { CaughtUp, FeedCounts, Waiting } from './feed.ts'

/**
 * The open streams of this process, and how each of them hears everything exactly once.
 *
 * Every stream knows the last number it was given. A committed item is handed over from memory when it is exactly
 * the next number; anything else (a number skipped, a hint from another process, a reconnect) makes the stream read
 * from the database what comes after its own. A person's numbers are in commit order (server/ledger/append-feed.ts), so
 * reading up to the head leaves nothing behind. Memory and hints are only ever faster, never needed: a lost one is
 * made good by the next, or by the heartbeat.
 */
export interface Hub {
  /**
   * Adds a stream. `after` is the last number it has seen: what follows is sent first, then what happens. Without
   * it the stream begins now.
   *
   * @throws AppError rate_limited when the person or the process has too many; shutting_down
   */
  subscribe(person: Person, after: number | null, sink: Sink): Subscription
  /** To be called after the commit, with what was committed; other processes are told too. */
  publish(items: readonly Published[]): void
  /** The same without data: whoever listens reads it from the database. */
  wake(people: readonly Hint[]): void
  /** Looks after every stream once: missed numbers, counts, pings, streams that hang. Every 25 s after `start`. */
  heartbeat(): Promise<void>
  start(): void
  /** Ends every stream with `restart` and takes no more. */
  close(): void
  stats(): HubStats
}

export interface Person {
  tenantId: TenantId
  userId: UserId
}

/** `seq` 0: somewhere behind what you know. */
export interface Hint extends Person {
  seq: number
}

export interface Published extends Person {
  seq: number
  type: 'notification' | 'change'
  at: Date
  data: object
  /** Of the inbox right behind this item; without them they are read a moment later. */
  counts?: { unseen: number; unread: number }
}

/**
 * What every stream carries, whatever the transport.
 *
 * - `notification`, `change`: an item, or what was done to items; `seq` is its own number
 * - `counts`: the badge; `seq` is the head they belong to
 * - `reset`: what was missed is gone; fetch the list anew and go on from `seq`
 * - `ping`: nothing happened; `seq` is the last number sent
 *
 * Counts are only sent to a stream that stands at their head, so the `seq` of every envelope is a place to resume.
 */
export interface Envelope {
  seq: number
  type: 'notification' | 'change' | 'counts' | 'reset' | 'ping'
  /** ISO 8601. */
  at: string
  data: object
}

/** One client's way out. Every call returns at once; a sink that fails calls `unsubscribe`. */
export interface Sink {
  /** `json` is the envelope as text, made once for all streams of a person. */
  send(envelope: Envelope, json: string): void
  /** Bytes accepted by `send` that have not left yet. */
  buffered(): number
  /** Asks the other end whether it is there; false: it has not answered the last time. */
  alive?(): boolean
  end(reason: EndReason): void
}

/** `restart`: this process stops. `age`: credentials are to be shown again. `slow`, `dead`: it reads no more. */
export type EndReason = 'restart' | 'age' | 'slow' | 'dead'

export interface Subscription {
  /** The last number sent; null before the first look at the database. */
  readonly seq: number | null
  /** To be called when the sink has sent what it held back. */
  drained(): void
  unsubscribe(): void
}

export interface HubStats {
  connections: number
  people: number
  /** Envelopes with a number sent from memory, and after a read. */
  fromMemory: number
  fromDatabase: number
  /** Reads of the database, each for many people. */
  reads: number
}

export interface HubOptions {
  catchUp(waiting: readonly Waiting[], limit: number): Promise<CaughtUp[]>
  heads(people: readonly Person[]): Promise<FeedCounts[]>
  fanout?: Fanout
  now?: () => Date
  /** Told when the database cannot be read; the hub tries again. */
  onError?: (error: unknown) => void
  perUser?: number
  total?: number
  heartbeatMs?: number
  /** Bytes held back in a client's sink from which on it gets nothing more from memory. */
  slowBytes?: number
  /** How long a sink may hold back that much, and how long a stream may live. */
  slowMs?: number
  maxAgeMs?: number
}

const DEFAULTS = {
  perUser: 20,
  total: 10_000,
  heartbeatMs: 25_000,
  slowBytes: 1 << 20,
  slowMs: 60_000,
  maxAgeMs: 3_600_000,
}
/** People read for in one statement, and rows a person gets from one; together at most 2,000 rows. */
const READ_PEOPLE = 100
const READ_ROWS = 100
const READ_TOTAL = 2000
const HEADS_AT_ONCE = 5000
/** Counts that were not published along are read together after this pause, however many items came. */
const COUNTS_DELAY_MS = 100
const RETRY_FIRST_MS = 100
const RETRY_MOST_MS = 5000

interface Stream {
  seq: number | null
  /** The database was read up to the head once: nothing older is missing. */
  settled: boolean
  pausedAt: number | null
  /** How many reads had begun when it came. One under way says nothing about it: its snapshot may be older. */
  joined: number
  openedAt: number
  closed: boolean
  counts: string
  sink: Sink
}

interface Channel extends Person {
  key: string
  streams: Set<Stream>
}

export function createHub(options: HubOptions): Hub {
  const settings = { ...DEFAULTS, ...withoutUndefined(options) }
  const now = options.now ?? (() => new Date())
  const { fanout, onError = () => {} } = options
  const channels = new Map<string, Channel>()
  const waiting = new Set<Channel>()
  const uncounted = new Set<Channel>()
  const stats: HubStats = { connections: 0, people: 0, fromMemory: 0, fromDatabase: 0, reads: 0 }
  let reading = false
  let countsTimer: NodeJS.Timeout | undefined
  let retryTimer: NodeJS.Timeout | undefined
  let heartbeatTimer: NodeJS.Timeout | undefined
  let retryMs = RETRY_FIRST_MS
  let closed = false

  fanout?.onWake(hints => {
    if (hints === 'all') look([...channels.values()]).catch(onError)
    else wakeLocal(hints)
  })

  function need(channel: Channel): void {
    waiting.add(channel)
    if (reading || closed) return
    reading = true
    // Whatever else this turn of the event loop brings is read by the same statement.
    setImmediate(() => void readAll())
  }

  async function readAll(): Promise<void> {
    try {
      while (waiting.size > 0 && !closed) {
        const batch: Channel[] = []
        for (const channel of waiting) {
          waiting.delete(channel)
          if (unpaused(channel)) batch.push(channel)
          if (batch.length === READ_PEOPLE) break
        }
        if (batch.length === 0) continue
        try {
          await read(batch)
          retryMs = RETRY_FIRST_MS
        } catch (error) {
          for (const channel of batch) waiting.add(channel)
          onError(error)
          retryTimer = setTimeout(() => void readAll(), retryMs).unref()
          retryMs = Math.min(retryMs * 2, RETRY_MOST_MS)
          return // `reading` stays set: the timer goes on.
        }
      }
    } catch (error) {
      onError(error)
    }
    reading = false
    if (waiting.size > 0 && !closed) need(waiting.values().next().value!)
  }

  async function read(batch: readonly Channel[]): Promise<void> {
    const asked = batch.map(({ tenantId, userId, streams }) => {
      let after: number | null = null
      for (const stream of streams) {
        if (stream.seq !== null && stream.pausedAt === null) after = Math.min(after ?? stream.seq, stream.seq)
      }
      return { tenantId, userId, after }
    })
    const number = ++stats.reads
    const limit = Math.max(1, Math.min(READ_ROWS, Math.floor(READ_TOTAL / batch.length)))
    const answers = await options.catchUp(asked, limit)
    for (const [at, channel] of batch.entries()) bring(channel, number, asked[at]!.after, answers[at]!)
  }

  /** Gives every stream of one person what it lacks of one answer. */
  function bring(channel: Channel, read: number, after: number | null, answer: CaughtUp): void {
    const texts = new Map<number, [Envelope, string]>()
    let again = false
    for (const stream of channel.streams) {
      if (stream.pausedAt !== null) continue
      if (stream.joined >= read) {
        again = true
        continue
      }
      if (stream.seq === null) {
        stream.seq = answer.head
        stream.settled = true
        tellCounts(stream, answer)
        continue
      }
      // A stream that drained while this was being read may stand before it.
      if (after === null || stream.seq < after) {
        again = true
        continue
      }
      if (stream.seq < answer.pruned || (!stream.settled && stream.seq > answer.head)) {
        reset(stream, answer)
        continue
      }
      for (const row of answer.rows) {
        if (row.seq <= stream.seq) continue
        let text = texts.get(row.seq)
        if (text === undefined) {
          const envelope = { seq: row.seq, type: row.type, at: row.at.toISOString(), data: row.data }
          texts.set(row.seq, (text = [envelope, JSON.stringify(envelope)]))
        }
        deliver(stream, ...text)
        stats.fromDatabase++
        if (stream.pausedAt !== null || stream.closed) break
      }
      if (stream.pausedAt !== null || stream.closed) continue
      if (answer.complete) {
        // Numbers up to the head that brought no row belong to items that were removed.
        stream.seq = Math.max(stream.seq, answer.head)
        stream.settled = true
        if (stream.seq === answer.head) tellCounts(stream, answer)
      } else {
        again = true
      }
    }
    if (again) need(channel)
  }

  function deliver(stream: Stream, envelope: Envelope, json: string): void {
    stream.seq = envelope.seq
    put(stream, envelope, json)
  }

  function put(stream: Stream, envelope: Envelope, json: string): void {
    stream.sink.send(envelope, json)
    if (stream.pausedAt === null && stream.sink.buffered() > settings.slowBytes)
      stream.pausedAt = now().getTime()
  }

  function say(stream: Stream, type: Envelope['type'], seq: number, data: object): void {
    const envelope: Envelope = { seq, type, at: now().toISOString(), data }
    put(stream, envelope, JSON.stringify(envelope))
  }

  function reset(stream: Stream, { head, unseen, unread }: FeedCounts): void {
    stream.seq = head
    stream.settled = true
    stream.counts = `${unseen} ${unread}`
    say(stream, 'reset', head, { unseen, unread })
  }

  function tellCounts(stream: Stream, { head, unseen, unread }: FeedCounts): void {
    const counts = `${unseen} ${unread}`
    if (stream.counts === counts || stream.pausedAt !== null) return
    stream.counts = counts
    say(stream, 'counts', head, { unseen, unread })
  }

  function wakeLocal(hints: readonly Hint[]): void {
    for (const hint of hints) {
      const channel = channels.get(keyOf(hint))
      if (channel === undefined) continue
      if (hint.seq === 0 || behind(channel, hint.seq)) need(channel)
    }
  }

  function publishLocal(items: readonly Published[]): void {
    const counted = new Map<Channel, Published>()
    for (const item of items) {
      const channel = channels.get(keyOf(item))
      if (channel === undefined) continue
      let text: [Envelope, string] | undefined
      for (const stream of channel.streams) {
        if (stream.pausedAt !== null || (stream.seq !== null && stream.seq >= item.seq)) continue
        // Before its first read a stream's number is only what its client says.
        if (!stream.settled || stream.seq !== item.seq - 1) {
          need(channel)
          continue
        }
        if (text === undefined) {
          const envelope = { seq: item.seq, type: item.type, at: item.at.toISOString(), data: item.data }
          text = [envelope, JSON.stringify(envelope)]
        }
        deliver(stream, ...text)
        stats.fromMemory++
      }
      const latest = counted.get(channel)
      if (latest === undefined || latest.seq < item.seq) counted.set(channel, item)
    }
    for (const [channel, { seq, counts }] of counted) {
      if (counts === undefined) {
        countSoon(channel)
        continue
      }
      // Whoever stands elsewhere gets the counts of where it comes to stand.
      for (const stream of channel.streams)
        if (stream.seq === seq) tellCounts(stream, { head: seq, ...counts })
    }
  }

  function countSoon(channel: Channel): void {
    uncounted.add(channel)
    countsTimer ??= setTimeout(() => {
      countsTimer = undefined
      const due = [...uncounted]
      uncounted.clear()
      look(due).catch(onError)
    }, COUNTS_DELAY_MS).unref()
  }

  /** Compares heads and counts of these people with what their streams were told. */
  async function look(due: readonly Channel[]): Promise<void> {
    for (let from = 0; from < due.length && !closed; from += HEADS_AT_ONCE) {
      const some = due.slice(from, from + HEADS_AT_ONCE)
      const answers = await options.heads(some)
      for (const [at, channel] of some.entries()) {
        const answer = answers[at]!
        if (behind(channel, answer.head)) need(channel)
        // One that is behind, or ahead of this answer, gets its counts from its own read.
        for (const stream of channel.streams) if (stream.seq === answer.head) tellCounts(stream, answer)
      }
    }
  }

  function remove(channel: Channel, stream: Stream): void {
    if (stream.closed) return
    stream.closed = true
    channel.streams.delete(stream)
    stats.connections--
    if (channel.streams.size > 0) return
    channels.delete(channel.key)
    waiting.delete(channel)
    uncounted.delete(channel)
  }

  function endAll(reason: EndReason): void {
    for (const channel of channels.values()) {
      for (const stream of channel.streams) {
        remove(channel, stream)
        stream.sink.end(reason)
      }
    }
  }

  const hub: Hub = {
    subscribe(person, after, sink) {
      if (closed)
        throw new AppError('shutting_down', 'This process is stopping; connect again.', {
          retryAfterSeconds: 1,
        })
      if (stats.connections >= settings.total) {
        throw new AppError('rate_limited', 'This process has as many streams as it takes.', {
          retryAfterSeconds: 5,
        })
      }
      const key = keyOf(person)
      let channel = channels.get(key)
      if (channel !== undefined && channel.streams.size >= settings.perUser) {
        throw new AppError('rate_limited', `One person may have ${settings.perUser} streams open.`, {
          retryAfterSeconds: 5,
        })
      }
      if (channel === undefined) {
        channel = { key, tenantId: person.tenantId, userId: person.userId, streams: new Set() }
        channels.set(key, channel)
      }
      const stream: Stream = {
        seq: after,
        settled: false,
        pausedAt: null,
        joined: stats.reads,
        openedAt: now().getTime(),
        closed: false,
        counts: '',
        sink,
      }
      const own = channel
      own.streams.add(stream)
      stats.connections++
      need(own)
      return {
        get seq() {
          return stream.seq
        },
        drained() {
          if (stream.pausedAt === null || stream.closed) return
          stream.pausedAt = null
          need(own)
        },
        unsubscribe: () => remove(own, stream),
      }
    },

    publish(items) {
      publishLocal(items)
      fanout?.publish(items)
    },

    wake(people) {
      wakeLocal(people)
      fanout?.publish(people)
    },

    async heartbeat() {
      const at = now().getTime()
      for (const channel of channels.values()) {
        for (const stream of channel.streams) {
          const reason =
            stream.sink.alive?.() === false
              ? 'dead'
              : stream.pausedAt !== null && at - stream.pausedAt >= settings.slowMs
                ? 'slow'
                : at - stream.openedAt >= settings.maxAgeMs
                  ? 'age'
                  : undefined
          if (reason !== undefined) {
            remove(channel, stream)
            stream.sink.end(reason)
          } else if (stream.pausedAt === null && stream.seq !== null) {
            say(stream, 'ping', stream.seq, {})
          }
        }
      }
      await look([...channels.values()])
    },

    start() {
      heartbeatTimer ??= setInterval(() => void hub.heartbeat().catch(onError), settings.heartbeatMs).unref()
    },

    close() {
      if (closed) return
      closed = true
      clearInterval(heartbeatTimer)
      clearTimeout(countsTimer)
      clearTimeout(retryTimer)
      endAll('restart')
    },

    stats: () => ({ ...stats, people: channels.size }),
  }
  return hub
}

const keyOf = ({ tenantId, userId }: Person): string => `${tenantId} ${userId}`

function unpaused(channel: Channel): boolean {
  for (const stream of channel.streams) if (stream.pausedAt === null) return true
  return false
}

function behind(channel: Channel, seq: number): boolean {
  for (const stream of channel.streams) {
    if (stream.pausedAt === null && (stream.seq === null || stream.seq < seq)) return true
  }
  return false
}

const withoutUndefined = <T extends object>(options: T): T =>
  Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)) as T
