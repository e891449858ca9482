import type pg from 'pg'
import { openDb } from '../server/db/pool.ts'
import { idFloor, newId } from '../server/db/ids.ts'
import { copyRows, runScript } from '../server/ledger/copy.ts'
import { auditLedger } from '../server/ledger/audit.ts'
import type { PlannedNotification } from '../server/ledger/plan.ts'
import { COPY_NOTIFICATIONS, channelsOf, notificationRow } from '../server/ledger/rows.ts'
import { type Event, PRIORITIES, RECIPIENT_TYPES } from '../server/types.ts'
import { argument, machine, median, table } from './machine.ts'
import { atEnd, bench, benchServer, cpuOf, program, said } from './server.ts'
import { load, prepare, prepareDecided } from './scene.ts'
import type { Latency, LoadOptions, LoadResult } from './load.ts'

/**
 * node bench/pipeline.ts [--seconds 60] [--users 100000] [--decisions]
 *
 * The whole way, everything on this machine: batches of 200 events over HTTP → matched against 100 rules → decided
 * for 100,000 people → rendered → sealed, committed and delivered; to the inbox, then to webhooks one by one and
 * twenty a request. In the same run: a raw binary COPY of the same notification rows, as the yardstick of this
 * machine at this moment. Latencies are those of an open loop of requests with 20 events each, at half of what was
 * reached: until the answer for the inbox, where the commit is the delivery; until the arrival for webhooks.
 */
const seconds = argument('seconds', 60)
const users = argument('users', 100_000)
const ROUNDS = 3
const TURNS = 5 // of --decisions
const RULES = 100
const LANES = 4 // CARILLON_LANES
const SMALL = { perBatch: 20, connections: 64 }

await bench(20 + (seconds * 6) / 60, async () => {
  const server = await benchServer()
  const db = openDb(server.databaseUrl)
  atEnd(() => db.close())
  const sink = program('sink.ts')
  const sinkUrl = `http://127.0.0.1:${Number((await said(sink, 'port')).split(' ')[1])}`
  const rows: string[][] = []

  console.log(machine())
  console.log(`${users} people, ${RULES} rules, ${seconds} s in ${ROUNDS} rounds\n`)
  await prepare(server, db, { users, rules: RULES, webhook: `${sinkUrl}/hook` })
  await run({ seconds: 5 }) // warm up
  if (process.argv.includes('--decisions')) return compare()

  const plain: Measured[] = []
  const raw: Measured[] = []
  const inApp: Measured[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const lasting = Math.max(3, seconds / ROUNDS / 4)
    const each = await batchSize()
    plain.push(await rawCopy({ lasting, rows: 500, like: 'before' }))
    raw.push(await rawCopy({ lasting, rows: each, like: 'server' }))
    inApp.push(await measure({ seconds: seconds / ROUNDS }))
    console.log(`the server's transactions hold ${each} notifications on average`)
  }
  const rate = median(inApp.map(one => one.rate))
  const ratio = (to: Measured[]) => (rate / median(to.map(one => one.rate))).toFixed(2)
  report(`raw COPY, ${LANES} × 500, one unpartitioned table, 2,000 readers`, plain)
  report(`raw COPY, ${LANES} × as the server, partitioned, all readers`, raw)
  report('in-app, whole way', inApp, `${ratio(raw)} × raw COPY as the server, ${ratio(plain)} × the other`)

  const small = await measure({ ...SMALL, seconds: Math.min(15, seconds / 3) })
  row('in-app, 20 events a request', small.rate, small)
  for (const [name, reached] of [
    ['half of that', small.rate],
    ['half of the rate with 200 a request', rate],
  ] as const) {
    await settled()
    const half = await measure({ ...SMALL, seconds: Math.min(20, seconds / 2), perSecond: reached / 2 })
    row(`in-app at ${name}`, half.offered, half, latencies('to the answer', half.load.latency))
  }

  await webhooks('webhook, one POST each', {})
  await webhooks('webhook, up to 20 a POST', { batch: 20 })

  console.log(`\n${table(['', '/s', 'node µs', 'postgres µs', 'sink µs', 'load µs', ''], rows)}`)
  const differences = await auditLedger(db, {})
  console.log(differences.length === 0 ? '\naudit: everything adds up' : differences)

  // -------------------------------------------------------------- the parts

  async function compare(): Promise<void> {
    await prepareDecided(server, db, { users, rules: RULES, webhook: `${sinkUrl}/hook` })
    for (const channel of ['in_app', 'webhook']) {
      await db.pool.query(`update rules set channels = array[$1]`, [channel])
      for (const people of ['u', 'd'] as const) await run({ seconds: 5, people })
      await drained()
      const plain: Measured[] = []
      const decided: Measured[] = []
      for (let turn = 0; turn < TURNS; turn++) {
        const each = seconds / TURNS / 4
        plain.push(await measure({ seconds: each, people: 'u' }))
        decided.push(await measure({ seconds: each, people: 'd' }))
      }
      const ratio = (of: (one: Measured) => number) =>
        median(plain.map((one, turn) => of(decided[turn]!) / of(one))).toFixed(2)
      const ours = ({ cpu, n }: Measured) => n / (cpu.node + cpu.postgres)
      report(`${channel}, nothing to decide`, plain)
      const note = `${ratio(one => one.rate)} × of it; by processor time ${ratio(ours)} ×`
      report(`${channel}, everything decided`, decided, note)
    }
    console.log(`\n${table(['', '/s', 'node µs', 'postgres µs', 'sink µs', 'load µs', ''], rows)}`)
    const differences = await auditLedger(db, {})
    console.log(differences.length === 0 ? '\naudit: everything adds up' : differences)
  }

  function run(more: Partial<LoadOptions>): Promise<LoadResult> {
    return load({
      url: server.url,
      key: server.key,
      users,
      types: RULES,
      perBatch: 200,
      connections: 8,
      seconds,
      ...more,
    })
  }

  /** Until everything that was accepted is delivered as well. */
  async function measure(more: Partial<LoadOptions>): Promise<Loaded> {
    const before = { ...server.cpu(), sink: cpuOf(sink.pid!), at: performance.now() }
    const result = await run(more)
    await drained()
    const elapsed = (performance.now() - before.at) / 1000
    const after = { ...server.cpu(), sink: cpuOf(sink.pid!) }
    const lasting = more.seconds ?? seconds
    return {
      // The generator's own start is not the server's time.
      rate: result.events / Math.max(lasting, elapsed - 0.4),
      offered: result.events / lasting,
      load: result,
      n: result.events,
      cpu: {
        node: after.node - before.node,
        postgres: after.postgres - before.postgres,
        sink: after.sink - before.sink,
      },
    }
  }

  async function drained(): Promise<void> {
    const deadline = performance.now() + 120_000
    for (;;) {
      const { rows: left } = await db.pool.query(
        'select (select count(*) from batches) + (select count(*) from jobs) as n',
      )
      if (Number(left[0].n) === 0) return
      if (performance.now() > deadline)
        throw new Error(`${left[0].n} batches and jobs wait after two minutes`)
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  /**
   * Waits until PostgreSQL has cleared up behind the load before, so that latencies are those of half the load and
   * not of vacuuming after the full one: it looks every ten seconds, so twelve must pass without. What half the load
   * itself makes it do counts.
   */
  async function settled(): Promise<void> {
    const deadline = performance.now() + 90_000
    for (let quiet = 0; quiet < 24 && performance.now() < deadline; ) {
      await new Promise(resolve => setTimeout(resolve, 500))
      const { rows: busy } = await db.pool.query(
        `select 1 from pg_stat_activity where backend_type = 'autovacuum worker'`,
      )
      quiet = busy.length === 0 ? quiet + 1 : 0
    }
  }

  async function webhooks(name: string, settings: object): Promise<void> {
    await db.pool.query(`update rules set channels = array['webhook']`)
    await db.pool.query(`update addresses set settings = $1`, [settings])
    await run({ seconds: 3 })
    await drained()
    const measured: Measured[] = []
    for (let round = 0; round < ROUNDS; round++)
      measured.push(await measure({ seconds: seconds / ROUNDS / 2 }))
    report(name, measured)
    await settled()
    await fetch(sinkUrl)
    const half = await measure({
      ...SMALL,
      seconds: Math.min(20, seconds / 2),
      perSecond: median(measured.map(one => one.rate)) / 2,
    })
    const { latency } = (await (await fetch(sinkUrl)).json()) as { latency: Latency }
    const note = `${latencies('to the answer', half.load.latency)}; ${latencies('to the arrival', latency)}`
    row('  at half of it', half.offered, half, note)
  }

  /** How many notifications the server's transactions held of late. */
  async function batchSize(): Promise<number> {
    const { rows: found } = await db.pool.query(
      `select round(count(*)::numeric / count(distinct batch_id))::int as n
       from (select batch_id from notifications order by id desc limit 50000) r`,
    )
    return found[0].n
  }

  /**
   * Only the notification rows of what the pipeline writes, by COPY from this process, which encodes each of them
   * and makes their ids; durable, a transaction each COPY. The table has the columns, indexes and constraints of
   * the real one. `server`: and its partitions, and readers from all people, so that the index on them grows at as
   * many places as the server's does. `before`: one table, and only the readers of the sampled rows.
   */
  async function rawCopy(how: {
    lasting: number
    rows: number
    like: 'server' | 'before'
  }): Promise<Measured> {
    const { rows: stored } = await db.pool.query<Stored>(
      'select * from notifications order by id desc limit 2000',
    )
    const samples = stored.map(plannedOf)
    const copyHere = COPY_NOTIFICATIONS.replace('copy notifications', 'copy bench_notifications')
    const parts = how.like === 'server'
    await db.pool.query('drop table if exists bench_notifications')
    await db.pool.query(
      `create table bench_notifications (like notifications including all) ${parts ? 'partition by range (id)' : ''}`,
    )
    if (parts) {
      const now = Date.now()
      const day = 86_400_000
      await db.pool.query(
        `create table bench_notifications_now partition of bench_notifications
         for values from ('${idFloor(now - 30 * day)}') to ('${idFloor(now + 30 * day)}')`,
      )
      await db.pool.query('create table bench_notifications_default partition of bench_notifications default')
    }
    const clients: pg.Client[] = []
    for (let lane = 0; lane < LANES; lane++) clients.push(await db.connect('bench copy'))
    try {
      const before = { postgres: server.cpu().postgres, node: process.cpuUsage() }
      const started = performance.now()
      const end = started + how.lasting * 1000
      let serial = 0
      let copied = 0
      await Promise.all(
        clients.map(async client => {
          const rows = copyRows()
          while (performance.now() < end) {
            rows.clear()
            for (let i = 0; i < how.rows; i++) {
              serial++
              const one = samples[serial % samples.length]!
              const recipientId = parts ? `u${(serial * 7919) % users}` : one.recipientId
              notificationRow(rows, { ...one, id: newId(), recipientId }, one.batchId)
            }
            await runScript(client, copyHere, [rows.finish()])
            copied += how.rows
          }
        }),
      )
      const rate = copied / ((performance.now() - started) / 1000)
      const node = process.cpuUsage(before.node)
      return {
        rate,
        offered: rate,
        n: copied,
        cpu: {
          node: (node.user + node.system) / 1e6,
          postgres: server.cpu().postgres - before.postgres,
          sink: 0,
        },
      }
    } finally {
      for (const client of clients) await client.end()
    }
  }

  function report(name: string, measured: Measured[], note = ''): void {
    const middle = [...measured].sort((a, b) => a.rate - b.rate)[measured.length >> 1]!
    row(name, middle.rate, middle, note)
  }

  function row(name: string, perSecond: number, one: Measured, note = ''): void {
    const each = (cpu: number | undefined) => (cpu ? ((cpu * 1e6) / one.n).toFixed(0) : '')
    rows.push([
      name,
      Math.round(perSecond).toLocaleString('en'),
      each(one.cpu.node),
      each(one.cpu.postgres),
      each(one.cpu.sink),
      each(one.load?.cpuSeconds),
      note,
    ])
    console.log(rows.at(-1)!.join('  '))
  }
})

interface Stored {
  id: string
  tenant_id: number
  event_id: string
  event_type: string
  recipient_type: number
  recipient_id: string
  rule_id: string | null
  template_id: string | null
  revision: number | null
  locale: string | null
  priority: number
  category: string
  channels: Buffer
  fallback: Buffer | null
  batch_id: string
  content: Buffer
}

/** A stored notification as it was when it was written. */
function plannedOf(row: Stored): PlannedNotification & { batchId: number } {
  return {
    id: row.id,
    tenantId: row.tenant_id,
    event: { id: row.event_id, type: row.event_type } as Event,
    recipientType: RECIPIENT_TYPES[row.recipient_type]!,
    recipientId: row.recipient_id,
    ruleId: row.rule_id,
    templateId: row.template_id,
    revision: row.revision,
    locale: row.locale,
    priority: PRIORITIES[row.priority]!,
    category: row.category,
    channels: channelsOf(row.channels),
    fallback: channelsOf(row.fallback),
    holds: [],
    collects: [],
    expiresAt: null,
    scheduledAt: null,
    bodies: {},
    sealed: row.content,
    batchId: Number(row.batch_id),
  }
}

interface Measured {
  /** Events until all was done; `offered`: while they were sent. */
  rate: number
  offered: number
  n: number
  cpu: { node: number; postgres: number; sink: number }
  load?: LoadResult
}

interface Loaded extends Measured {
  load: LoadResult
}

function latencies(what: string, { p50, p95, p99 }: Latency): string {
  return `${what} p50 ${p50.toFixed(0)}, p95 ${p95.toFixed(0)}, p99 ${p99.toFixed(0)} ms`
}
