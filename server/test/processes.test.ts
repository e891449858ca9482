import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { createServer } from 'node:http'
import { mkdtemp, rm } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startApp } from '../app.ts'
import { loadConfig } from '../config.ts'
import { auditLedger } from '../ledger/audit.ts'
import { createLogger } from '../observe/log.ts'
import { eventually, testApp } from './app.ts'

// covers: DIC-209
test('one process takes events, others plan and deliver one channel each', async () => {
  const dir = {
    CARILLON_MASTER_KEY: randomBytes(32).toString('hex'),
    OUTBOUND_ALLOW: '127.0.0.1/32',
    MAILBOX_PORT: '0',
    PORT: '0',
  }
  const folder = await mkdtemp(join(tmpdir(), 'carillon-workers-'))
  const front = await testApp({ ...dir, CARILLON_ROLE: 'api' })
  const log = createLogger({ level: 'error' })
  const worker = (role: string) =>
    startApp({
      config: loadConfig({ ...dir, CARILLON_ROLE: role, LOG_LEVEL: 'error', CARILLON_DATA_DIR: folder }),
      databaseUrl: front.databaseUrl,
      log,
    })
  const received: string[] = []
  const sink = createServer((request, response) => {
    received.push(String(request.headers['webhook-id']))
    request.resume().on('end', () => response.end('ok'))
  }).listen(0, '127.0.0.1')
  const workers = await Promise.all([
    worker('plan,schedule'),
    worker('deliver:email'),
    worker('deliver:webhook'),
  ])
  const call = (method: string, path: string, body?: unknown) =>
    front.call(method, path, { as: front.tenant.adminKey, body })
  try {
    await call('PUT', '/api/users/alice', {
      addresses: [
        { channel: 'email', address: 'alice@example.org', verified: true },
        {
          channel: 'webhook',
          address: `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`,
          verified: true,
        },
      ],
    })
    const direct = await call('POST', '/api/notifications', {
      recipientId: 'alice',
      channels: ['in_app', 'email', 'webhook'],
      subject: 'Hello',
      body: 'There',
    })
    // And once by way of a planner.
    const later = await call('POST', '/api/events/publish', {
      type: 'TRADING',
      subtype: 'done',
      userId: 'alice',
      channels: ['email', 'webhook'],
      data: { message: 'done' },
      scheduledAt: new Date(Date.now() + 300).toISOString(),
    })
    const states = async (event: string) =>
      (
        (await call('GET', `/api/events/status/${event}`)).body.deliveries as {
          channel: string
          status: string
        }[]
      )
        .map(({ channel, status }) => `${channel} ${status}`)
        .sort()
    await eventually(
      'three deliveries',
      async () =>
        (await states(direct.body.eventId)).join() === 'email sent,in_app delivered,webhook delivered',
    )
    await eventually(
      'the planned ones',
      async () => (await states(later.body.eventId)).join() === 'email sent,webhook delivered',
    )
    assert.equal(new Set(received).size, 2)
    assert.equal(received.length, 2)
    assert.deepEqual(await auditLedger(front.db, {}), [])
  } finally {
    for (const one of workers) await one.stop()
    sink.close()
    await front.stop()
    await rm(folder, { recursive: true, force: true })
  }
})
