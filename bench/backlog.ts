import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Type } from 'typebox'
import { createKey } from '../server/admin/keys.ts'
import { createTenant } from '../server/admin/tenants.ts'
import { startApp } from '../server/app.ts'
import { loadConfig, masterKeyring } from '../server/config.ts'
import { openDb } from '../server/db/pool.ts'
import { sealer } from '../server/db/seal.ts'
import type { AnyProvider } from '../server/deliver/provider.ts'
import { auditLedger } from '../server/ledger/audit.ts'
import { claimSpilled } from '../server/ledger/claim.ts'
import { createLogger } from '../server/observe/log.ts'
import { argument, figure, machine, median, table } from './machine.ts'
import { atEnd, bench, benchServer, cpuOf, temporary } from './server.ts'
import { load } from './scene.ts'

/**
 * node bench/backlog.ts [--count 1000000]
 *
 * A process with the role `api` accepts that many deliveries of one tenant while nobody delivers, so that all of them
 * are spilled to the database. One message of a second tenant joins behind them. Then a process with the role
 * `deliver` (this one) drains everything through a provider that does nothing: how fast, how long a claim takes while
 * the backlog shrinks, and how long the second tenant waits.
 */
const count = argument('count', 1_000_000)
const USERS = 10_000
/** Claims are timed so often; each is rolled back, so what it took is only held for a moment. */
const SAMPLE_MS = 250

await bench(30, async () => {
  const masterKey = randomBytes(32).toString('hex')
  const server = await benchServer({ CARILLON_MASTER_KEY: masterKey, CARILLON_ROLE: 'api,plan' })
  const dir = temporary()
  const db = openDb(server.databaseUrl, { max: 4 })
  atEnd(() => db.close())
  console.log(machine())
  await fill()
  const waiting = await inBatches()
  console.log(`${figure(waiting)} deliveries wait`)
  await drain(waiting)
  const differences = await auditLedger(db, {})
  console.log(differences.length === 0 ? 'audit: everything adds up' : differences)

  async function fill(): Promise<void> {
    for (let first = 0; first < USERS; first += 1000) {
      await server.call('POST', '/api/users/bulk', {
        users: Array.from({ length: 1000 }, (_, i) => ({
          userId: `u${first + i}`,
          addresses: [{ channel: 'webhook', address: 'http://127.0.0.1:9/none', verified: true }],
        })),
      })
    }
    const template = await server.call('POST', '/api/templates', {
      name: 'order',
      channels: { default: { subject: 'Order for {{name}}', body: '{{title}}: {{body}}' } },
    })
    await server.call('POST', '/api/rules', {
      name: 'orders',
      eventTypes: ['shop.t0'],
      channels: ['webhook'],
      templateId: template.id,
      recipientSelector: { expression: 'event.data.userId' },
    })
    while ((await inBatches()) < count) {
      await load({
        url: server.url,
        key: server.key,
        users: USERS,
        types: 1,
        perBatch: 200,
        connections: 8,
        seconds: Math.max(1, Math.min(10, (count - (await inBatches())) / 15_000)),
      })
    }
  }

  async function inBatches(): Promise<number> {
    const { rows } = await db.pool.query('select coalesce(sum(n), 0)::int as n from batches')
    return rows[0].n
  }

  async function drain(waiting: number): Promise<void> {
    const config = loadConfig({
      CARILLON_DATA_DIR: dir,
      DATABASE_URL: server.databaseUrl,
      CARILLON_MASTER_KEY: masterKey,
      CARILLON_ROLE: 'deliver',
      MAILBOX_PORT: '0',
      LOG_LEVEL: 'error',
    })
    const tenant = await createTenant(
      db,
      sealer(masterKeyring(config).reveal()),
      { tenantId: 1, kind: 'system' },
      { name: 'second' },
    )
    const { key } = await createKey(
      db,
      { tenantId: tenant.id, kind: 'system' },
      { name: 'bench', role: 'admin' },
    )
    const ask = async (path: string, body: unknown) => {
      const response = await fetch(server.url + path, {
        method: 'POST',
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        body: JSON.stringify(body),
      })
      if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`)
    }
    await ask('/api/users/bulk', {
      users: [
        {
          userId: 'alone',
          addresses: [{ channel: 'webhook', address: 'http://127.0.0.1:9/none', verified: true }],
        },
      ],
    })
    await ask('/api/rules', {
      name: 'one',
      eventTypes: ['shop.t0'],
      channels: ['webhook'],
      recipientSelector: { expression: 'event.data.userId' },
    })
    await ask('/api/events/batch', {
      events: [{ type: 'shop.t0', data: { userId: 'alone', title: 'one', body: 'message' } }],
    })

    let sent = 0
    let secondAt: number | undefined
    const nothing: AnyProvider = {
      id: 'nothing',
      channel: 'webhook',
      title: 'Nothing',
      settings: Type.Object({}),
      async send(message) {
        sent++
        if (message.tenantId === tenant.id) secondAt ??= performance.now()
        return { outcome: 'sent' }
      },
    }
    const before = { node: cpuOf(process.pid), postgres: server.cpu().postgres }
    const started = performance.now()
    const app = await startApp({
      config,
      databaseUrl: server.databaseUrl,
      log: createLogger({ level: 'error' }),
      providers: [{ provider: nothing, settings: {} }],
    })
    const samples: { left: number; ms: number }[] = []
    let left = waiting
    const deadline = started + waiting
    while (left > 0) {
      if (performance.now() > deadline) throw new Error(`${left} still wait: less than 1,000 a second`)
      await sleep(SAMPLE_MS)
      const ms = await timedClaim()
      left = await inBatches()
      samples.push({ left, ms })
    }
    const elapsed = (performance.now() - started) / 1000
    const each = (cpu: number) => ((cpu * 1e6) / waiting).toFixed(0)
    console.log(
      `drained at ${figure(waiting / elapsed)}/s in ${elapsed.toFixed(1)} s; CPU per delivery: ` +
        `node ${each(cpuOf(process.pid) - before.node)} µs, PostgreSQL ${each(server.cpu().postgres - before.postgres)} µs`,
    )
    console.log(`handed to the provider: ${figure(sent)}`)
    console.log(
      secondAt === undefined
        ? 'the second tenant was not served'
        : `the one message behind them went out ${(secondAt - started).toFixed(0)} ms after the start of the process\n`,
    )
    const fifths = Array.from({ length: 5 }, (_, i) =>
      samples.filter(
        one => one.left <= (waiting * (5 - i)) / 5 && (one.left > (waiting * (4 - i)) / 5 || i === 4),
      ),
    )
    console.log(
      table(
        ['left to drain', 'claims', 'median ms', 'max ms'],
        fifths.map((part, i) => [
          `${100 - i * 20}–${80 - i * 20} %`,
          String(part.length),
          part.length > 0 ? median(part.map(one => one.ms)).toFixed(1) : '',
          part.length > 0 ? Math.max(...part.map(one => one.ms)).toFixed(1) : '',
        ]),
      ),
    )
    await app.stop()
  }

  /** What a competing process would wait for its claim: the statement and the reading of its rows, then undone. */
  async function timedClaim(): Promise<number> {
    const undo = new Error('undo')
    let ms = 0
    await db
      .tx(async tx => {
        const started = performance.now()
        await claimSpilled(tx, { owner: 2_000_000_000, now: new Date(), perTenant: 1, most: 2 })
        ms = performance.now() - started
        throw undo
      })
      .catch(error => {
        if (error !== undo) throw error
      })
    return ms
  }
})
