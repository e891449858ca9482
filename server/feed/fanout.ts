import type pg from 'pg'
import { type Db, sql } from '../db/pool.ts'
import { newId } from '../db/ids.ts'
import type { TenantId, UserId } from '../types.ts'

/** How one process tells the others whose inbox grew. Only a hint: what it says is read from the database. */
export interface Fanout {
  /** Returns at once; hints of one turn of the event loop travel together. Own hints do not come back. */
  publish(hints: readonly WakeHint[]): void
  /** `'all'`: hints may have been lost, everybody looks. To be set once, before anything is published. */
  onWake(wake: (hints: readonly WakeHint[] | 'all') => void): void
  close(): Promise<void>
}

/** `seq` 0: unknown. */
export interface WakeHint {
  tenantId: TenantId
  userId: UserId
  seq: number
}

export interface FanoutOptions {
  /** False: nobody would hear it, so nothing is said. */
  othersAlive?: () => boolean
  /** Told about lost connections; they are made again by themselves. */
  onError?: (error: unknown) => void
}

const CHANNEL = 'carillon_feed'
/** NOTIFY takes less than 8,000 bytes: https://www.postgresql.org/docs/current/sql-notify.html */
const MAX_PAYLOAD_BYTES = 7_900
/** Beyond this many people waiting to be told, everybody is told to look instead. */
const MAX_PENDING = 10_000
/** How long the start waits for Redis. */
const PATIENCE_MS = 2_000
const RECONNECT_FIRST_MS = 50
const RECONNECT_MOST_MS = 5_000

/**
 * LISTEN and NOTIFY on a connection of its own. NOTIFY is never part of the transaction that adds the items: it
 * takes a lock that lets notifying transactions of the whole server commit only one after the other.
 */
export async function notifyFanout(db: Db, options: FanoutOptions = {}): Promise<Fanout> {
  const { onError = () => {} } = options
  const origin = newId()
  const notify = sql(
    'notify_feed',
    `select pg_notify('${CHANNEL}', payload) from unnest($1::text[]) as payload`,
  )
  let wake: (hints: readonly WakeHint[] | 'all') => void = () => {}
  let client: pg.Client | undefined
  let timer: NodeJS.Timeout | undefined
  let closed = false

  async function listen(): Promise<void> {
    const fresh = await db.connect('carillon feed')
    let lost = false
    const lose = (error?: unknown) => {
      if (lost) return
      lost = true
      if (client === fresh) client = undefined
      fresh.end().catch(() => {})
      if (closed) return
      onError(error ?? new Error('The connection that listens for inbox changes was closed'))
      reconnect(RECONNECT_FIRST_MS)
    }
    fresh.on('error', lose)
    fresh.on('end', () => lose())
    fresh.on('notification', ({ payload }) => {
      if (payload !== undefined) receive(payload, origin, wake)
    })
    try {
      await fresh.query(`listen ${CHANNEL}`)
    } catch (error) {
      lost = true
      fresh.end().catch(() => {})
      throw error
    }
    if (closed) await fresh.end()
    else if (!lost) client = fresh
  }

  function reconnect(ms: number): void {
    timer = setTimeout(() => {
      listen().then(
        // What was said meanwhile was not heard.
        () => wake('all'),
        (error: unknown) => {
          onError(error)
          if (!closed) reconnect(Math.min(ms * 2, RECONNECT_MOST_MS))
        },
      )
    }, ms).unref()
  }

  const outbox = coalesce(origin, options.othersAlive, async payloads => {
    if (client === undefined) return
    try {
      await client.query({ name: notify.name, text: notify.text, values: [payloads] })
    } catch (error) {
      // The hints are lost with the connection; the heartbeat of the others makes them good.
      onError(error)
    }
  })

  await listen()
  return {
    publish: hints => outbox.add(hints),
    onWake(given) {
      wake = given
    },
    async close() {
      closed = true
      clearTimeout(timer)
      await outbox.flushed()
      await client?.end().catch(() => {})
    },
  }
}

/**
 * Redis publish and subscribe, with LISTEN and NOTIFY beneath: everybody listens to both, and whoever cannot reach
 * Redis says it by NOTIFY.
 */
export async function redisFanout(
  db: Db,
  redisUrl: string,
  options: FanoutOptions & { prefix?: string } = {},
): Promise<Fanout> {
  // 30 MB, only for those who have Redis.
  const { createClient } = await import('redis')
  const { onError = () => {} } = options
  const origin = newId()
  const channel = `${options.prefix ?? 'carillon:'}feed`
  let wake: (hints: readonly WakeHint[] | 'all') => void = () => {}
  const below = await notifyFanout(db, options)

  const connect = () => {
    const client = createClient({
      url: redisUrl,
      disableOfflineQueue: true,
      socket: {
        connectTimeout: 2_000,
        reconnectStrategy: tries => Math.min(RECONNECT_FIRST_MS * 2 ** tries, RECONNECT_MOST_MS),
      },
    })
    // Without a listener an error would end the process.
    client.on('error', onError)
    return client
  }
  const publisher = connect()
  const subscriber = connect()
  let subscribed = false
  // `subscribe` waits for its connection and is repeated by the client after each reconnect.
  subscriber.on('ready', () => {
    if (subscribed) wake('all')
  })
  const opening = [
    publisher.connect().catch(onError),
    subscriber
      .connect()
      .then(() => subscriber.subscribe(channel, payload => receive(payload, origin, wake)))
      .then(() => {
        subscribed = true
        wake('all')
      })
      .catch(onError),
  ]

  // Usually it is there, and then nothing is lost from the first moment on; else it joins later.
  let timer: NodeJS.Timeout | undefined
  const patience = new Promise(resolve => {
    timer = setTimeout(resolve, PATIENCE_MS)
  })
  await Promise.race([Promise.all(opening), patience])
  clearTimeout(timer)

  const outbox = coalesce(origin, options.othersAlive, async (payloads, hints) => {
    try {
      if (!publisher.isReady) throw new Error('Redis is not connected')
      await Promise.all(payloads.map(payload => publisher.publish(channel, payload)))
    } catch {
      below.publish(hints)
    }
  })

  return {
    publish: hints => outbox.add(hints),
    onWake(given) {
      wake = given
      below.onWake(given)
    },
    async close() {
      await outbox.flushed()
      publisher.destroy()
      subscriber.destroy()
      await Promise.allSettled(opening)
      await below.close()
    },
  }
}

/** Gathers hints, one a person, and sends them while nothing else is being sent: few messages however many hints. */
function coalesce(
  origin: string,
  othersAlive: (() => boolean) | undefined,
  send: (payloads: string[], hints: WakeHint[]) => Promise<void>,
) {
  let pending = new Map<string, WakeHint>()
  let overflow = false
  let running: Promise<void> | undefined

  async function run(): Promise<void> {
    await new Promise<void>(resolve => void setImmediate(resolve))
    while (pending.size > 0 || overflow) {
      const hints = [...pending.values()]
      const payloads = overflow ? [JSON.stringify({ o: origin, all: true })] : pack(origin, hints)
      pending = new Map()
      overflow = false
      await send(payloads, hints)
    }
    running = undefined
  }

  return {
    add(hints: readonly WakeHint[]) {
      if (hints.length === 0 || othersAlive?.() === false) return
      for (const { tenantId, userId, seq } of hints) {
        if (overflow) break
        const key = `${tenantId} ${userId}`
        const known = pending.get(key)
        // 0, unknown, is the strongest: it always makes the others look.
        const strongest =
          known === undefined || known.seq === 0
            ? (known?.seq ?? seq)
            : seq === 0
              ? 0
              : Math.max(seq, known.seq)
        pending.set(key, { tenantId, userId, seq: strongest })
        if (pending.size > MAX_PENDING) {
          pending.clear()
          overflow = true
        }
      }
      running ??= run()
    },
    flushed: async () => running,
  }
}

/** Messages of `{ o: origin, u: [[tenant, user, seq], …] }`, none of them longer than NOTIFY takes. */
export function pack(origin: string, hints: readonly WakeHint[]): string[] {
  const head = `{"o":${JSON.stringify(origin)},"u":[`
  const payloads: string[] = []
  let text = ''
  let bytes = 0
  for (const { tenantId, userId, seq } of hints) {
    const entry = JSON.stringify([tenantId, userId, seq])
    const size = Buffer.byteLength(entry) + 1
    if (text !== '' && bytes + size > MAX_PAYLOAD_BYTES) {
      payloads.push(`${head}${text}]}`)
      text = ''
    }
    if (text === '') bytes = Buffer.byteLength(head) + 2
    text += text === '' ? entry : `,${entry}`
    bytes += size
  }
  if (text !== '') payloads.push(`${head}${text}]}`)
  return payloads
}

/** Anybody who may write to the database or to Redis could send anything: what is not a hint is passed over. */
function receive(payload: string, origin: string, wake: (hints: readonly WakeHint[] | 'all') => void): void {
  let message: { o?: unknown; u?: unknown; all?: unknown }
  try {
    message = JSON.parse(payload) as typeof message
  } catch {
    return
  }
  if (message === null || typeof message !== 'object' || message.o === origin) return
  if (message.all === true) return wake('all')
  if (!Array.isArray(message.u)) return
  const hints: WakeHint[] = []
  for (const entry of message.u as unknown[]) {
    if (!Array.isArray(entry)) continue
    const [tenantId, userId, seq] = entry as unknown[]
    if (typeof tenantId === 'number' && typeof userId === 'string' && typeof seq === 'number') {
      hints.push({ tenantId, userId, seq })
    }
  }
  wake(hints)
}
