import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startApp } from '../app.ts'
import { loadConfig } from '../config.ts'
import { auditLedger } from '../ledger/audit.ts'
import { createLogger } from '../observe/log.ts'
import { localTime } from '../time/zone.ts'
import { eventually, testApp } from './app.ts'

const EVENTS = 30
const HOUR_MS = 3_600_000

// covers: DIC-061
test('what waits for a local time goes once when it has come, though three machines slept until long after it', async () => {
  const settings = {
    CARILLON_MASTER_KEY: randomBytes(32).toString('hex'),
    OUTBOUND_ALLOW: '127.0.0.1/32',
    MAILBOX_PORT: '0',
    PORT: '0',
    LOG_LEVEL: 'error',
  }
  const folder = await mkdtemp(join(tmpdir(), 'carillon-schedule-'))
  const front = await testApp({ ...settings, CARILLON_ROLE: 'api' })
  const received: string[] = []
  const sink = createServer((request, response) => {
    received.push(String(request.headers['webhook-id']))
    request.resume().on('end', () => response.end('ok'))
  }).listen(0, '127.0.0.1')

  // The clocks of the three that deliver; the one that takes events does not sleep.
  let asleepMs = 0
  const now = () => new Date(Date.now() + asleepMs)
  const workers = await Promise.all(
    [1, 2, 3].map(() =>
      startApp({
        config: loadConfig({ ...settings, CARILLON_ROLE: 'plan,deliver', CARILLON_DATA_DIR: folder }),
        databaseUrl: front.databaseUrl,
        log: createLogger({ level: 'error' }),
        now,
      }),
    ),
  )
  const call = async (method: string, path: string, body?: unknown) => {
    const answer = await front.call(method, path, { as: front.tenant.adminKey, body })
    assert.ok(answer.status < 300, answer.text)
    return answer.body
  }
  try {
    const url = `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`
    await call('PUT', '/api/users/alice', {
      addresses: [{ channel: 'webhook', address: url, verified: true }],
    })
    const timezone = 'Asia/Kolkata'
    const due = new Date(Math.ceil((Date.now() + HOUR_MS) / 60_000) * 60_000)
    await call('POST', '/api/rules', {
      name: 'Daily',
      eventTypes: ['report.ready'],
      recipientSelector: { users: ['alice'] },
      channels: ['webhook'],
      schedule: { daily: localTime(timezone, due.getTime()).local.slice(11, 16) },
      timezone,
    })
    const ids: string[] = []
    for (let i = 0; i < EVENTS; i++) {
      const { id } = await call('POST', '/api/events/publish', { type: 'report.ready', data: { i } })
      ids.push(id)
    }
    const why = await call('GET', `/api/events/${ids[0]}/explain`)
    const [decision] = why.rules[0].recipients[0].decisions
    assert.deepEqual(
      [decision.decision, decision.reason, decision.until],
      ['hold', 'rule_schedule', due.toISOString()],
    )
    assert.deepEqual(received, [])

    asleepMs = 5 * HOUR_MS
    await eventually('all of them', () => received.length >= EVENTS)
    await eventually('their settlement', async () => {
      const { rows } = await front.db.pool.query('select count(*)::int as held from jobs')
      return rows[0].held === 0
    })
    const { body } = await front.call('GET', `/api/events/status/${ids[0]}`, { as: front.tenant.adminKey })
    assert.equal(body.deliveries[0].status, 'delivered')
    assert.equal(received.length, EVENTS)
    assert.equal(new Set(received).size, EVENTS)
    assert.deepEqual(await auditLedger(front.db, {}), [])
  } finally {
    for (const worker of workers) await worker.stop()
    sink.close()
    await front.stop()
    await rm(folder, { recursive: true, force: true })
  }
})
