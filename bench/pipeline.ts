import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { openDb } from '../server/db/pool.ts'
import { copyRows, runScript } from '../server/ledger/copy.ts'
import { auditLedger } from '../server/ledger/audit.ts'
import { machine, median, table } from './machine.ts'
import { benchServer, cpuOf, said } from './server.ts'
import type { LoadOptions, LoadResult } from './load.ts'

/**
 * node bench/pipeline.ts [--seconds 60] [--users 100000]
 *
 * The whole way, everything on this machine: batches of 200 events over HTTP → matched against 100 rules → decided
 * for 100,000 people → rendered → sealed, committed and delivered; to the inbox, then to webhooks one by one and
 * twenty a request; then latencies at half of what was reached. In the same run: a raw binary COPY of the same
 * notification rows, as the yardstick of this machine at this moment.
 */
const argument = (name: string, fallback: number) => {
  const at = process.argv.indexOf(`--${name}`)
  return at < 0 ? fallback : Number(process.argv[at + 1])
}
const seconds = argument('seconds', 60)
const users = argument('users', 100_000)
const ROUNDS = 3
const RULES = 100

const server = await benchServer()
const db = openDb(server.databaseUrl)
const sink = spawn(process.execPath, [join(import.meta.dirname, 'sink.ts')], {
  stdio: ['ignore', 'pipe', 'inherit'],
})
const sinkPort = Number((await said(sink, 'port')).split(' ')[1])
const rows: string[][] = []

console.log(machine())
console.log(`${users} people, ${RULES} rules, ${seconds} s in ${ROUNDS} rounds\n`)
await prepare()

await load({ seconds: 5 }) // warm up
const raw: number[] = []
const inApp: Measured[] = []
for (let round = 0; round < ROUNDS; round++) {
  raw.push(await rawCopy(Math.max(3, seconds / ROUNDS / 4)))
  inApp.push(await measure({ seconds: seconds / ROUNDS }))
}
const rawRate = median(raw)
const rate = median(inApp.map(one => one.rate))
row('raw binary COPY of the same rows, 4 × 500', rawRate)
report('in-app, whole way', inApp, `${(rate / rawRate).toFixed(2)} × raw COPY`)
const half = await measure({
  seconds: Math.min(20, seconds / 2),
  perSecond: rate / 2,
  perBatch: 20,
  connections: 64,
})
row('in-app at half of it: accept → delivered', half.rate, half, latencies(half.load))

await webhooks('webhook, one POST each', {})
await webhooks('webhook, up to 20 a POST', { batch: 20 })

console.log(table(['', '/s', 'node µs', 'postgres µs', 'sink µs', 'load µs', ''], rows))
const differences = await auditLedger(db, {})
console.log(differences.length === 0 ? '\naudit: everything adds up' : differences)
await db.close()
sink.kill()
await server.stop()

// ---------------------------------------------------------------- the parts

interface Measured {
  rate: number
  load: LoadResult
  cpu: { node: number; postgres: number; sink: number }
  n: number
}

async function prepare(): Promise<void> {
  for (let first = 0; first < users; first += 1000) {
    await server.call('POST', '/api/users/bulk', {
      users: Array.from({ length: Math.min(1000, users - first) }, (_, i) => ({
        userId: `u${first + i}`,
        addresses: [{ channel: 'webhook', address: `http://127.0.0.1:${sinkPort}/hook`, verified: true }],
      })),
    })
  }
  // Everybody has said something: the channel the bench sends on is wanted.
  await db.pool.query(
    `insert into preferences (tenant_id, user_id, channel, enabled) select tenant_id, user_id, c, true
     from users, (values (0), (8)) as v (c) on conflict do nothing`,
  )
  const template = await server.call('POST', '/api/templates', {
    name: 'order',
    channels: {
      default: {
        subject: 'Order for {{name}}',
        body: 'Dear {{name}},\n{{#if title}}{{title}}.{{/if}} {{body}}\n{{#each items}}{{count}} × {{name}}; {{/each}}\nThank you.',
      },
    },
  })
  for (let i = 0; i < RULES; i++) {
    await server.call('POST', '/api/rules', {
      name: `rule ${i}`,
      eventTypes: [`shop.t${i}`],
      eventPattern: 'event.data.amount > 10.0 && event.data.name != "nobody"',
      channels: ['in_app'],
      templateId: template.id,
      recipientSelector: { expression: 'event.data.userId' },
    })
  }
}

async function load(more: Partial<LoadOptions>): Promise<LoadResult> {
  const options: LoadOptions = {
    url: server.url,
    key: server.key,
    users,
    types: RULES,
    perBatch: 200,
    connections: 8,
    seconds,
    ...more,
  }
  const child = spawn(process.execPath, [join(import.meta.dirname, 'load.ts'), JSON.stringify(options)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  return JSON.parse(await said(child, '{')) as LoadResult
}

/** Until everything that was accepted is delivered as well. */
async function measure(more: Partial<LoadOptions>): Promise<Measured> {
  const before = { ...server.cpu(), sink: cpuOf(sink.pid!), at: performance.now() }
  const result = await load(more)
  await drained()
  const elapsed = (performance.now() - before.at) / 1000
  const after = { ...server.cpu(), sink: cpuOf(sink.pid!) }
  return {
    // The generator's own start is not the server's time.
    rate: result.events / Math.max(more.seconds ?? seconds, elapsed - 0.4),
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
  for (;;) {
    const { rows: left } = await db.pool.query(
      'select (select count(*) from batches) + (select count(*) from jobs) as n',
    )
    if (Number(left[0].n) === 0) return
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

async function webhooks(name: string, settings: object): Promise<void> {
  await db.pool.query(`update rules set channels = array['webhook']`)
  await db.pool.query(`update addresses set settings = $1`, [settings])
  await load({ seconds: 3 })
  await drained()
  const measured: Measured[] = []
  for (let round = 0; round < ROUNDS; round++) measured.push(await measure({ seconds: seconds / ROUNDS / 2 }))
  report(name, measured)
}

/** The same rows as the last notifications of the warm-up, copied again into a table of the same shape. */
async function rawCopy(lasting: number): Promise<number> {
  await db.pool.query('drop table if exists bench_notifications')
  await db.pool.query(`create table bench_notifications (like notifications including all)`)
  const { rows: samples } = await db.pool.query(`select * from notifications order by id desc limit 2000`)
  const { newId } = await import('../server/db/ids.ts')
  const end = performance.now() + lasting * 1000
  let copied = 0
  const started = performance.now()
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      const client = await db.connect('bench copy')
      const rows = copyRows()
      let at = 0
      while (performance.now() < end) {
        rows.clear()
        for (let i = 0; i < 500; i++) {
          const one = samples[at++ % samples.length]
          rows.row(20)
          rows.int4(one.tenant_id)
          rows.uuid(newId())
          rows.uuid(one.event_id)
          rows.text(one.event_type)
          rows.int2(one.recipient_type)
          rows.text(one.recipient_id)
          rows.uuid(one.rule_id)
          rows.uuid(one.template_id)
          rows.int4(one.revision)
          rows.text(one.locale)
          rows.int2(one.priority)
          rows.text(one.category)
          rows.bytes(one.channels)
          rows.bytes(one.fallback)
          rows.int8(Number(one.batch_id))
          rows.timestamp(one.created_at.getTime())
          rows.timestamp(null)
          rows.timestamp(null)
          rows.text(null)
          rows.bytes(one.content)
        }
        await runScript(client, 'copy bench_notifications from stdin (format binary)', [rows.finish()])
        copied += 500
      }
      await client.end()
    }),
  )
  return copied / ((performance.now() - started) / 1000)
}

function report(name: string, measured: Measured[], note = ''): void {
  const middle = [...measured].sort((a, b) => a.rate - b.rate)[measured.length >> 1]!
  row(name, middle.rate, middle, note)
}

function row(name: string, perSecond: number, one?: Measured, note = ''): void {
  const each = (cpu: number) => (one ? ((cpu * 1e6) / one.n).toFixed(0) : '')
  rows.push([
    name,
    Math.round(perSecond).toLocaleString('en'),
    each(one?.cpu.node ?? 0),
    each(one?.cpu.postgres ?? 0),
    each(one?.cpu.sink ?? 0),
    each(one?.load.cpuSeconds ?? 0),
    note,
  ])
  console.log(rows.at(-1)!.join('  '))
}

function latencies({ p50, p95, p99 }: LoadResult): string {
  return `p50 ${p50.toFixed(0)}, p95 ${p95.toFixed(0)}, p99 ${p99.toFixed(0)} ms`
}
