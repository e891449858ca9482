import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { Pool } from 'undici'
import { createKey } from '../admin/keys.ts'
import { ensureFirstTenant } from '../admin/tenants.ts'
import { embeddedUrl, startEmbedded } from '../db/embedded.ts'
import { migrate } from '../db/migrate.ts'
import { openDb } from '../db/pool.ts'
import { sealer } from '../db/seal.ts'
import { auditLedger } from '../ledger/audit.ts'
import { upsertUsers } from '../people/users.ts'

const KILLS = 20
const DATABASE_KILLS = 3
const USERS = 40
const BATCH = 50

// Which moments are hit is chance; the seed says which, though not what the machine did meanwhile.
const seed = Number(process.env.FAULT_SEED ?? Date.now() % 1_000_000)
let state = seed
const random = () => {
  state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
  return state / 2_147_483_648
}

// covers: DIC-175, ALP-105, ALP-112, PFM-188, PFM-204, PFM-206
test(`killed ${KILLS} times under load, ${DATABASE_KILLS} times with its database, it loses nothing`, async context => {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-faults-'))
  chmodSync(dir, 0o755)
  const masterKey = randomBytes(32).toString('hex')
  // No fsync: a killed process loses nothing that the kernel has, and the disk is not what is tested.
  const embedded = await startEmbedded({ dataDir: dir, durable: false })
  const db = openDb(embedded.url)
  const keys = sealer(masterKey)
  await migrate(db)
  const { tenant } = await ensureFirstTenant(db, keys)
  const { key } = await createKey(
    db,
    { tenantId: tenant.id, kind: 'system' },
    { name: 'load', role: 'admin' },
  )

  // The far end: takes its time, and remembers every idempotency key it has seen.
  const seen = new Map<string, number>()
  const sink = createServer((request, response) => {
    request.resume().on('end', () => {
      const id = String(request.headers['webhook-id'])
      seen.set(id, (seen.get(id) ?? 0) + 1)
      setTimeout(() => response.end('ok'), 1 + random() * 15)
    })
  }).listen(0, '127.0.0.1')
  await once(sink, 'listening')
  const hook = `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`
  await db.tx(tx =>
    upsertUsers(
      tx,
      keys,
      tenant.id,
      Array.from({ length: USERS }, (_, i) => ({
        userId: `u${i}`,
        addresses: [{ channel: 'webhook' as const, address: hook, verified: true }],
      })),
    ),
  )
  await db.pool.query(
    `insert into rules (id, tenant_id, name, event_types, channels, recipient_selector)
     values (gen_random_uuid(), $1, 'all', '{load.*}', '{in_app,webhook}', '{"expression":"event.data.userId"}')`,
    [tenant.id],
  )

  let server: ChildProcess | undefined
  const port = 20_000 + Math.floor(Math.random() * 20_000)
  const start = async () => {
    server = spawn(process.execPath, [join(import.meta.dirname, '..', '..', 'cli', 'carillon.ts'), 'start'], {
      env: {
        ...process.env,
        NODE_OPTIONS: '',
        DATABASE_URL: embeddedUrl(dir)!,
        CARILLON_MASTER_KEY: masterKey,
        CARILLON_DATA_DIR: join(dir, 'server'),
        HOST: '127.0.0.1',
        PORT: String(port),
        OUTBOUND_ALLOW: '127.0.0.1/32',
        LOG_LEVEL: 'fatal',
      },
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    await once(server.stdout!, 'data')
  }
  const kill = async () => {
    const gone = once(server!, 'exit')
    server!.kill('SIGKILL')
    await gone
  }

  // The producers: a batch that was not answered is sent again, with the same ids, until it is.
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections: 4 })
  let serial = 0
  let unanswered = 0
  let stop = false
  const acknowledged = new Set<string>()
  const produce = async () => {
    while (!stop) {
      const events = Array.from({ length: BATCH }, () => {
        const id = `e${serial++}`
        return {
          type: 'load.test',
          source: 'faults',
          id,
          data: { userId: `u${serial % USERS}`, message: id },
        }
      })
      for (;;) {
        try {
          const { statusCode, body } = await pool.request({
            method: 'POST',
            path: '/api/events/batch',
            headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
            body: JSON.stringify({ events }),
          })
          const text = await body.text()
          if (statusCode === 202) {
            for (const result of (JSON.parse(text) as { results: { error?: unknown }[] }).results) {
              assert.equal(result.error, undefined)
            }
            break
          }
          assert.ok(statusCode === 503, `${statusCode} ${text.slice(0, 200)}`)
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error
        }
        unanswered++
        await new Promise(resolve => setTimeout(resolve, 20))
      }
      for (const { id } of events) acknowledged.add(id)
    }
  }

  await start()
  const producers = [produce(), produce(), produce()]
  try {
    for (let round = 0; round < KILLS; round++) {
      // At some moment of the load, not before the load goes on.
      const target = acknowledged.size + Math.floor(random() * 1500)
      const patience = Date.now() + 20_000
      while (acknowledged.size < target && Date.now() < patience) {
        await new Promise(resolve => setTimeout(resolve, 5))
      }
      assert.ok(acknowledged.size >= target, `round ${round}: the load does not go on`)
      if (round % Math.ceil(KILLS / DATABASE_KILLS) === 1) {
        const postmaster = Number(readFileSync(postmasterFile(dir), 'utf8').split('\n')[0])
        process.kill(postmaster, 'SIGKILL')
      }
      await kill()
      await start()
    }
  } finally {
    stop = true
  }
  await Promise.all(producers)

  // Everything that was accepted comes to its end.
  const patience = Date.now() + 60_000
  for (;;) {
    const { rows } = await db.pool.query(
      'select (select count(*) from batches) + (select count(*) from jobs) + (select count(*) from planning) as n',
    )
    if (Number(rows[0].n) === 0) break
    assert.ok(Date.now() < patience, `${rows[0].n} leases are left`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  const exited = once(server!, 'exit')
  server!.kill('SIGTERM')
  assert.deepEqual(await exited, [0, null], 'it stops cleanly when asked')

  const { rows: events } = await db.pool.query<{ external_id: string }>('select external_id from events')
  const accepted = new Set(events.map(row => row.external_id))
  assert.equal(accepted.size, events.length, 'an event was accepted twice')
  assert.deepEqual(
    [...acknowledged].filter(id => !accepted.has(id)),
    [],
    'an acknowledged event is gone',
  )

  const { rows: told } = await db.pool.query<{ id: string }>('select id from notifications')
  assert.equal(told.length, events.length, 'one notification for each event')
  assert.deepEqual(
    told.filter(({ id }) => !seen.has(`${id}.webhook`)),
    [],
    'a webhook never left',
  )
  const strangers = [...seen.keys()].filter(id => !told.some(one => `${one.id}.webhook` === id))
  assert.ok(strangers.length === 0, `${strangers.length} webhooks of notifications that were never committed`)

  const { rows: gaps } = await db.pool.query(
    `select f.user_id from feed f join feed_heads h using (tenant_id, user_id)
     group by f.tenant_id, f.user_id, h.seq having count(*) <> h.seq or max(f.seq) <> h.seq or min(f.seq) <> 1`,
  )
  assert.deepEqual(gaps, [], 'a gap in a feed')
  assert.deepEqual(await auditLedger(db, {}), [])

  const repeats = [...seen.values()].reduce((sum, n) => sum + n - 1, 0)
  context.diagnostic(
    `seed ${seed}: ${events.length} events, ${unanswered} requests sent again, ${repeats} webhooks repeated under their key`,
  )
  sink.close()
  await pool.close()
  await db.close()
  await embedded.stop()
  rmSync(dir, { recursive: true, force: true })
})

const postmasterFile = (dir: string): string => {
  const { home } = JSON.parse(readFileSync(join(dir, 'postgres.json'), 'utf8')) as { home: string }
  return join(home, 'data', 'postmaster.pid')
}
