import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type AppTenant, type Loose, type TestApp, eventually, testApp } from './app.ts'
import { type Running, killStarted, startProcess } from './process.ts'
import { type Sink, openSink } from './sink.ts'

const BACKLOG = 6_000
const MEMBERS = 3_000
const SCHEDULED = 1_500

/** What takes events is here; what plans and delivers is a process of its own, so everything waits in the database. */
let front: TestApp
let sink: Sink
let worker: Running | undefined
const dir = mkdtempSync(join(tmpdir(), 'carillon-fairness-'))
const environment = {
  CARILLON_MASTER_KEY: randomBytes(32).toString('hex'),
  CARILLON_INLINE_RECIPIENTS: '50',
}

before(async () => {
  front = await testApp({ ...environment, CARILLON_ROLE: 'api' })
  sink = await openSink(() => 20)
  for (const tenant of [front.tenant, front.other]) {
    await call(tenant, 'PUT', '/api/users/somebody', {
      addresses: [{ channel: 'webhook', address: `${sink.url}/`, verified: true }],
    })
    const rule = (name: string, more: object) =>
      call(tenant, 'POST', '/api/rules', { name, eventTypes: [name], ...more })
    await rule('hook', { channels: ['webhook'], recipientSelector: { users: ['somebody'] } })
    await rule('inbox', { channels: ['in_app'], recipientSelector: { users: ['somebody'] } })
    await rule('everybody', { channels: ['in_app'], recipientSelector: { groups: ['everybody'] } })
  }
})
afterEach(killStarted)
after(async () => {
  sink?.close()
  await front?.stop()
  rmSync(dir, { recursive: true, force: true })
})

async function call(tenant: AppTenant, method: string, path: string, body?: unknown): Promise<Loose> {
  const answer = await front.call(method, path, { as: tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

async function publishMany(tenant: AppTenant, n: number, event: object): Promise<void> {
  for (let left = n; left > 0; left -= 500) {
    const events = Array.from({ length: Math.min(500, left) }, () => event)
    const { results } = await call(tenant, 'POST', '/api/events/batch', { events })
    for (const { error } of results) assert.equal(error, undefined)
  }
}

const startWorker = async (more: Record<string, string>) => {
  worker = await startProcess({
    ...environment,
    DATABASE_URL: front.databaseUrl,
    CARILLON_DATA_DIR: dir,
    CARILLON_ROLE: 'plan,deliver,schedule',
    ...more,
  })
}

const waiting = async (): Promise<number> => {
  const { rows } = await front.db.pool.query(
    'select (select count(*) from batches) + (select count(*) from jobs) + (select count(*) from planning) as n',
  )
  return Number(rows[0].n)
}

// covers: ALP-062
test('a single message goes past thousands of another tenant that wait for a slow far end', async () => {
  await publishMany(front.tenant, BACKLOG, { type: 'hook', data: { message: 'one of many' } })
  // Memory for a part of it only.
  await startWorker({ CARILLON_IN_FLIGHT: '1000', CARILLON_IN_FLIGHT_PER_CHANNEL: '32' })
  await eventually('a part of the backlog', () => sink.seen.size > 300, 60_000)

  const before = sink.seen.size
  const { notifications } = await call(front.other, 'POST', '/api/events/publish', {
    type: 'hook',
    data: { message: 'the only one' },
  })
  const id: string = notifications?.[0]?.id ?? (await onlyNotification(front.other))
  await eventually('the single message', () => sink.seen.has(`${id}.webhook`), 60_000)
  const place = [...sink.seen.keys()].indexOf(`${id}.webhook`) - before
  assert.ok(place < 1_000, `${place} of the other tenant's went before it`)

  await eventually('the end of the backlog', async () => (await waiting()) === 0, 120_000)
  assert.equal(sink.seen.size, BACKLOG + 1)
  assert.equal(await worker!.stop(), 0)
})

const onlyNotification = async (tenant: AppTenant): Promise<string> =>
  (await call(tenant, 'GET', '/api/notifications')).items[0].id

test('a single event is planned past a large audience and thousands of scheduled events of another tenant', async () => {
  for (let i = 0; i < MEMBERS; i += 1_000) {
    await call(front.tenant, 'POST', '/api/users/bulk', {
      users: Array.from({ length: 1_000 }, (_, n) => ({ userId: `member-${i + n}`, groups: ['everybody'] })),
    })
  }
  const scheduledAt = new Date(Date.now() + 1_000).toISOString()
  await call(front.tenant, 'POST', '/api/events/publish', { type: 'everybody', data: { message: 'to all' } })
  await publishMany(front.tenant, SCHEDULED, { type: 'inbox', data: { message: 'later' }, scheduledAt })

  await startWorker({})
  const planned = async (tenant: AppTenant, until: string | null = null): Promise<number> => {
    const { rows } = await front.db.pool.query(
      'select count(*)::int as n from plans where tenant_id = $1 and ($2::timestamptz is null or at < $2)',
      [tenant.id, until],
    )
    return rows[0].n
  }
  await eventually('the first of them', async () => (await planned(front.tenant)) > 20, 60_000)
  const due = new Date(Date.now() + 100).toISOString()
  await call(front.other, 'POST', '/api/events/publish', {
    type: 'inbox',
    data: { message: 'mine' },
    scheduledAt: due,
  })
  await eventually('the single event', async () => (await planned(front.other)) === 1, 60_000)
  const { rows } = await front.db.pool.query('select at from plans where tenant_id = $1', [front.other.id])
  const between = (await planned(front.tenant, rows[0].at)) - (await planned(front.tenant, due))
  // The round that was under way, and its own: of 50 events at most each.
  assert.ok(between <= 110, `${between} of the other tenant's were planned while it was due`)
  assert.ok((await waiting()) > 0, 'there was a backlog to go past')

  await eventually('the end of planning', async () => (await waiting()) === 0, 120_000)
  const { rows: told } = await front.db.pool.query(
    `select e.type, count(*)::int as n, count(distinct n.recipient_id)::int as people
     from notifications n join events e on e.tenant_id = n.tenant_id and e.id = n.event_id
     where n.tenant_id = $1 and e.type <> 'hook' group by 1 order by 1`,
    [front.tenant.id],
  )
  assert.deepEqual(told, [
    { type: 'everybody', n: MEMBERS, people: MEMBERS },
    { type: 'inbox', n: SCHEDULED, people: 1 },
  ])
  assert.equal(await worker!.stop(), 0)
  assert.deepEqual(await auditLedger(front.db, {}), [])
})
