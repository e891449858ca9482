import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { createClient } from 'redis'
import { openDb } from '../server/db/pool.ts'
import { CHANNELS } from '../server/types.ts'
import { argument, figure, machine, median, table } from './machine.ts'
import { load, prepare } from './scene.ts'
import { atEnd, bench, benchServer, cpuOf, freePort, program, said, temporary, within } from './server.ts'
import { PEER_SCHEMA, type PeerOptions } from './peer.ts'

/**
 * node bench/peers.ts [--seconds 20] [--users 100000]
 *
 * The same events, people, rules, templates and PostgreSQL, in the same run: once through the real server, once the
 * usual way (peer.ts: BullMQ on Redis, state in PostgreSQL). Delivery is to the inbox. Short tries find the
 * concurrency and number of processes that suit the peer best; then both sides take turns. Counted is what is
 * delivered in PostgreSQL between two instants of a steady load.
 */
const seconds = argument('seconds', 20)
const users = argument('users', 100_000)
const ROUNDS = 3
const RULES = 100
const TRY_SECONDS = 5
/** Jobs of each of the four stages at once, and processes; the first process also takes the events. */
const TUNINGS = [
  { concurrency: 100, processes: 1 },
  { concurrency: 200, processes: 1 },
  { concurrency: 400, processes: 1 },
  { concurrency: 100, processes: 2 },
  { concurrency: 200, processes: 2 },
  { concurrency: 400, processes: 2 },
  { concurrency: 200, processes: 3 },
]
type Tuning = (typeof TUNINGS)[number]

await bench(12 + (seconds * 3) / 60, async () => {
  const masterKey = randomBytes(32).toString('hex')
  const server = await benchServer({ CARILLON_MASTER_KEY: masterKey })
  const db = openDb(server.databaseUrl, { max: 3 })
  atEnd(() => db.close())
  console.log(machine())
  const redis = await startRedis()
  console.log(`${redis.version}; ${users} people, ${RULES} rules, ${seconds} s a side in ${ROUNDS} rounds\n`)
  await prepare(server, db, { users, rules: RULES, webhook: 'http://127.0.0.1:9/none' })
  await db.pool.query(PEER_SCHEMA)
  const { rows: tenants } = await db.pool.query('select min(id) as id from tenants')

  let best: { tuning: Tuning; rate: number } | undefined
  for (const tuning of TUNINGS) {
    const { rate } = await peer(tuning, TRY_SECONDS)
    console.log(`peer, ${nameOf(tuning)}: ${figure(rate)}/s`)
    if (best === undefined || rate > best.rate) best = { tuning, rate }
  }
  const ours: Measured[] = []
  const theirs: Measured[] = []
  await steady(server.url, 3, ourDelivered, noRedis) // warm up
  for (let round = 0; round < ROUNDS; round++) {
    ours.push(await steady(server.url, seconds / ROUNDS, ourDelivered, noRedis))
    theirs.push(await peer(best!.tuning, seconds / ROUNDS))
  }
  const [a, b] = [middle(ours), middle(theirs)]
  const row = (name: string, one: Measured) => [
    name,
    figure(one.rate),
    ...[one.node, one.postgres, one.redis, cpu(one)].map(each => figure(each)),
  ]
  const ratio = (ofOurs: number, ofTheirs: number) => (ofTheirs > 0 ? (ofOurs / ofTheirs).toFixed(2) : '')
  console.log(
    `\n${table(
      ['median round', 'delivered/s', 'node µs', 'postgres µs', 'redis µs', 'CPU µs each'],
      [
        row('this server', a),
        row(`BullMQ, ${nameOf(best!.tuning)}`, b),
        [
          'ours ÷ theirs',
          ratio(a.rate, b.rate),
          ratio(a.node, b.node),
          ratio(a.postgres, b.postgres),
          '',
          ratio(cpu(a), cpu(b)),
        ],
      ],
    )}`,
  )
  const spread = (side: Measured[]) => side.map(one => figure(one.rate)).join(', ')
  console.log(`rounds: ours ${spread(ours)}; theirs ${spread(theirs)}`)

  // -------------------------------------------------------------- the parts

  async function ourDelivered(): Promise<number> {
    const { rows } = await db.pool.query(
      'select coalesce(sum(delivered), 0)::bigint as n from ledger_counters where channel = $1',
      [CHANNELS.indexOf('in_app')],
    )
    return Number(rows[0].n)
  }

  async function theirDelivered(): Promise<number> {
    const { rows } = await db.pool.query('select count(*) as n from peer.notifications where status = 1')
    return Number(rows[0].n)
  }

  /** Rate and CPU between two instants of a load that began before and ends after. */
  async function steady(
    url: string,
    lasting: number,
    delivered: () => Promise<number>,
    others: () => { node: number; redis: number },
    warmUp = 2,
  ): Promise<Measured> {
    const running = load({
      url,
      key: server.key,
      users,
      types: RULES,
      perBatch: 200,
      connections: 8,
      seconds: warmUp + lasting + 2,
    })
    running.catch(() => {}) // awaited below
    const look = async () => ({ at: performance.now(), n: await delivered(), ...server.cpu(), ...others() })
    await new Promise(resolve => setTimeout(resolve, (warmUp + 1) * 1000))
    const before = await look()
    await new Promise(resolve => setTimeout(resolve, lasting * 1000))
    const after = await look()
    await running
    const n = after.n - before.n
    if (n === 0) throw new Error(`${url} delivered nothing in ${lasting} s`)
    const each = (of: 'node' | 'postgres' | 'redis') => ((after[of] - before[of]) * 1e6) / n
    return {
      rate: n / ((after.at - before.at) / 1000),
      node: each('node'),
      postgres: each('postgres'),
      redis: each('redis'),
    }
  }

  function noRedis() {
    return { redis: 0, node: server.cpu().node }
  }

  /** A fresh peer on empty tables and an empty Redis, and gone afterwards. */
  async function peer({ concurrency, processes }: Tuning, lasting: number): Promise<Measured> {
    await db.pool.query('truncate peer.events, peer.notifications, peer.feed')
    await redis.empty()
    const children = Array.from({ length: processes }, (_, i) =>
      program(
        'peer.ts',
        JSON.stringify({
          databaseUrl: server.databaseUrl,
          redisPort: redis.port,
          masterKey,
          apiKey: server.key,
          tenantId: tenants[0].id,
          concurrency,
          door: i === 0,
        } satisfies PeerOptions),
      ),
    )
    try {
      const lines = await Promise.all(children.map(child => said(child, 'ready', 30)))
      const used = () => ({
        node: children.reduce((sum, child) => sum + cpuOf(child.pid!), 0),
        redis: cpuOf(redis.pid),
      })
      return await steady(lines[0]!.split(' ')[1]!, lasting, theirDelivered, used, 3)
    } finally {
      for (const child of children) {
        const gone = new Promise(resolve => child.once('exit', resolve))
        if (child.exitCode === null && child.signalCode === null) {
          child.kill('SIGTERM')
          await within(10, 'stopping the peer', gone).catch(() => child.kill('SIGKILL'))
        }
      }
    }
  }
})

interface Measured {
  rate: number
  /** CPU microseconds for each delivered notification. */
  node: number
  postgres: number
  redis: number
}

function cpu(one: Measured): number {
  return one.node + one.postgres + one.redis
}

function middle(measured: Measured[]): Measured {
  const rate = median(measured.map(one => one.rate))
  return measured.reduce((a, b) => (Math.abs(a.rate - rate) <= Math.abs(b.rate - rate) ? a : b))
}

function nameOf({ concurrency, processes }: Tuning): string {
  return `${processes} × ${concurrency} jobs a stage at once`
}

/** A Redis of its own with what queues are told to use: every command in a log, flushed each second. */
async function startRedis() {
  const port = await freePort()
  const dir = temporary()
  const settings = { port, bind: '127.0.0.1', dir, appendonly: 'yes', appendfsync: 'everysec', save: '' }
  const child = spawn(
    'redis-server',
    Object.entries({ ...settings, 'maxmemory-policy': 'noeviction', loglevel: 'warning' }).flatMap(
      ([name, value]) => [`--${name}`, String(value)],
    ),
    { stdio: ['ignore', 'ignore', 'inherit'] },
  )
  atEnd(() => child.kill('SIGKILL'))
  await within(
    5,
    'starting redis-server',
    new Promise((resolve, reject) => {
      child.once('spawn', resolve)
      child.once('error', () => reject(new Error('This bench needs redis-server on the PATH')))
    }),
  )
  const client = createClient({ url: `redis://127.0.0.1:${port}` })
  client.on('error', () => {}) // it tries again until Redis listens
  await within(15, 'connecting to redis-server', client.connect())
  atEnd(() => client.destroy())
  return {
    port,
    pid: child.pid!,
    version: `Redis ${/redis_version:(\S+)/.exec(await client.info('server'))?.[1]}`,
    empty: () => client.flushAll(),
  }
}
