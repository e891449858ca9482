import { Pool } from 'undici'

/**
 * The load, as a process of its own: batches of events over kept-alive connections, from bodies written beforehand.
 *
 *     node bench/load.ts '{"url":…,"key":…,"users":…,"types":…,"perBatch":200,"connections":8,"seconds":10}'
 *
 * Without `perSecond` each connection sends its next batch when the last one was answered. With it the loop is open:
 * requests leave at random instants that have nothing to do with the answers, as those of many independent clients
 * do (a Poisson process of that mean), and a latency counts from when its request was due, so that a wait for a free
 * connection is part of it. Latencies of the first second, while this process is still being compiled, are left out.
 * Prints one line of JSON.
 */
export interface LoadOptions {
  url: string
  key: string
  /** Which users and types the events name. */
  users: number
  types: number
  /** `d`: of the people and types for whom everything is decided (scene.ts). Default `u`. */
  people?: 'u' | 'd'
  perBatch: number
  connections: number
  seconds: number
  /** Events, not requests. */
  perSecond?: number
}

export interface LoadResult {
  events: number
  latency: Latency
  cpuSeconds: number
}

/** Milliseconds. */
export interface Latency {
  n: number
  p50: number
  p95: number
  p99: number
}

export function latencyOf(values: number[]): Latency {
  const sorted = values.sort((a, b) => a - b)
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN
  return { n: sorted.length, p50: at(0.5), p95: at(0.95), p99: at(0.99) }
}

/**
 * Each event's text bears the instant at which its request was due, of the clock that all processes of a machine
 * share, in milliseconds; sink.ts reads it at arrival. Zeros mean that nobody measures.
 */
export const MARK = '@due:'
export const STAMP_DIGITS = 16
const stampOf = (ms: number) => ms.toFixed(1).padStart(STAMP_DIGITS, '0')
export const sharedClock = (): number => Number(process.hrtime.bigint()) / 1e6

const WARM_UP_MS = 1000

async function run(options: LoadOptions): Promise<LoadResult> {
  const { url, key, users, types, perBatch, connections, seconds, perSecond, people = 'u' } = options
  const pool = new Pool(url, { connections })
  let serial = 0

  const event = () => {
    serial++
    return {
      type: `${people === 'u' ? 'shop' : 'decided'}.t${serial % types}`,
      data: {
        // A step that is prime to the number of users: everybody is met, in no order.
        userId: `${people}${(serial * 7919) % users}`,
        amount: 20 + (serial % 50),
        name: 'Alice',
        title: 'Your order is on its way',
        body: `The parcel with your order number ${serial} left the warehouse ${MARK}${stampOf(0)} and will be with you soon. Thank you.`,
        items: [
          { name: 'Book', count: 2 },
          { name: 'Pencil', count: 5 },
        ],
      },
    }
  }
  const bodies = Array.from({ length: 60_000 / perBatch }, () =>
    JSON.stringify({ events: Array.from({ length: perBatch }, event) }),
  )

  let sent = 0
  let next = 0
  const latencies: number[] = []
  const start = performance.now()
  const end = start + seconds * 1000

  async function post(dueMs: number): Promise<void> {
    let text = bodies[next++ % bodies.length]!
    if (perSecond !== undefined && dueMs - start > WARM_UP_MS) {
      const due = sharedClock() - (performance.now() - dueMs)
      text = text.replaceAll(MARK + stampOf(0), MARK + stampOf(due))
    }
    const { statusCode, body } = await pool.request({
      path: '/api/events/batch',
      method: 'POST',
      headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
      body: text,
    })
    const answer = await body.text()
    if (statusCode !== 202) throw new Error(`${statusCode} ${answer.slice(0, 300)}`)
    if (dueMs - start > WARM_UP_MS) latencies.push(performance.now() - dueMs)
    sent += perBatch
  }

  const cpu = process.cpuUsage()
  if (perSecond === undefined) {
    await Promise.all(
      Array.from({ length: connections }, async () => {
        while (performance.now() < end) await post(performance.now())
      }),
    )
  } else {
    const gap = (1000 * perBatch) / perSecond
    const running: Promise<void>[] = []
    for (let due = start; due < end; due -= Math.log(1 - Math.random()) * gap) {
      const wait = due - performance.now()
      if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait))
      running.push(post(due))
    }
    await Promise.all(running)
  }
  const used = process.cpuUsage(cpu)
  await pool.close()
  return { events: sent, latency: latencyOf(latencies), cpuSeconds: (used.user + used.system) / 1e6 }
}

if (import.meta.main) {
  console.log(JSON.stringify(await run(JSON.parse(process.argv[2]!) as LoadOptions)))
}
