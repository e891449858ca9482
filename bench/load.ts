import { Pool } from 'undici'

/**
 * The load, as a process of its own: batches of events over kept-alive connections, from bodies written beforehand.
 *
 *     node bench/load.ts '{"url":…,"key":…,"bodies":[…],"connections":8,"seconds":10}'
 *
 * With `perSecond` (events) it is an open loop: requests leave on time whatever the server does, and latencies count
 * from when each was due. Prints one line of JSON.
 */
export interface LoadOptions {
  url: string
  key: string
  /** Which users and types the events name. */
  users: number
  types: number
  perBatch: number
  connections: number
  seconds: number
  perSecond?: number
}

export interface LoadResult {
  events: number
  /** Milliseconds, sorted. */
  p50: number
  p95: number
  p99: number
  cpuSeconds: number
}

const options = JSON.parse(process.argv[2]!) as LoadOptions
const { url, key, users, types, perBatch, connections, seconds, perSecond } = options
const pool = new Pool(url, { connections })
let serial = 0

const event = () => {
  serial++
  return {
    type: `shop.t${serial % types}`,
    data: {
      // A step that is prime to the number of users: everybody is met, in no order.
      userId: `u${(serial * 7919) % users}`,
      amount: 20 + (serial % 50),
      name: 'Alice',
      title: 'Your order is on its way',
      body: `The parcel with your order number ${serial} left the warehouse and will be with you soon. Thank you for your patience.`,
      items: [
        { name: 'Book', count: 2 },
        { name: 'Pencil', count: 5 },
      ],
    },
  }
}
const bodies = Array.from({ length: 300 }, () =>
  JSON.stringify({ events: Array.from({ length: perBatch }, event) }),
)

let sent = 0
let next = 0
const latencies: number[] = []

async function post(dueMs: number): Promise<void> {
  const { statusCode, body } = await pool.request({
    path: '/api/events/batch',
    method: 'POST',
    headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
    body: bodies[next++ % bodies.length]!,
  })
  const text = await body.text()
  if (statusCode !== 202) throw new Error(`${statusCode} ${text.slice(0, 300)}`)
  latencies.push(performance.now() - dueMs)
  sent += perBatch
}

const cpu = process.cpuUsage()
const start = performance.now()
const end = start + seconds * 1000
if (perSecond === undefined) {
  await Promise.all(
    Array.from({ length: connections }, async () => {
      while (performance.now() < end) await post(performance.now())
    }),
  )
} else {
  const gap = (1000 * perBatch) / perSecond
  const running: Promise<void>[] = []
  for (let due = start; due < end; due += gap) {
    const wait = due - performance.now()
    if (wait > 0) await new Promise(resolve => setTimeout(resolve, wait))
    running.push(post(due))
  }
  await Promise.all(running)
}
const used = process.cpuUsage(cpu)
latencies.sort((a, b) => a - b)
const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!
const result: LoadResult = {
  events: sent,
  p50: at(0.5),
  p95: at(0.95),
  p99: at(0.99),
  cpuSeconds: (used.user + used.system) / 1e6,
}
console.log(JSON.stringify(result))
await pool.close()
