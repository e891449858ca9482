import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { createKey } from '../admin/keys.ts'
import { ensureFirstTenant } from '../admin/tenants.ts'
import { sql } from '../db/pool.ts'
import { sealer } from '../db/seal.ts'
import { auditLedger } from '../ledger/audit.ts'
import { eventually } from './app.ts'
import { testDatabase } from './database.ts'
import { deviceToken, openFcm } from './fcm.ts'
import { killStarted, startProcess } from './process.ts'

const partly = sql(
  'test_partly_sent',
  `select attempt from jobs where tenant_id = $1 and owner = 0 and jsonb_array_length(state -> 'devices' -> 'taken') = 2`,
)

// covers: ALP-104, ALP-105, ALP-112, DIC-131
test('killed between two tries, another process reaches the one device that was away, and no other one twice', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'carillon-devices-'))
  const database = await testDatabase()
  const fcm = await openFcm()
  try {
    fcm.make('tablet', 'away')
    const file = join(folder, 'providers.yaml')
    writeFileSync(file, fcm.providersFile)
    const { db } = database
    const masterKey = randomBytes(32).toString('hex')
    const { tenant } = await ensureFirstTenant(db, sealer(masterKey))
    const actor = { tenantId: tenant.id, kind: 'system' } as const
    const { key } = await createKey(db, actor, { name: 'test', role: 'admin' })
    const environment = {
      DATABASE_URL: database.url,
      CARILLON_MASTER_KEY: masterKey,
      CARILLON_DATA_DIR: join(folder, 'data'),
      CARILLON_PROVIDERS_FILE: file,
    }
    const first = await startProcess(environment)
    const call = async (url: string, method: string, path: string, body?: object) => {
      const response = await fetch(url + path, {
        method,
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json' },
        ...(body && { body: JSON.stringify(body) }),
      })
      const text = await response.text()
      assert.ok(response.ok, text)
      return text === '' ? undefined : JSON.parse(text)
    }
    await call(first.url!, 'PUT', '/api/users/dana', {})
    for (const name of ['phone', 'tablet', 'watch']) {
      await call(first.url!, 'POST', '/api/users/dana/devices', { kind: 'fcm', token: deviceToken(name) })
    }
    const sent = await call(first.url!, 'POST', '/api/notifications', {
      recipientId: 'dana',
      channels: ['push'],
      body: 'The train leaves from platform 4',
    })
    await eventually('two devices to have it', () => db.one(partly, [tenant.id]))
    await first.kill()
    assert.deepEqual(Object.fromEntries(fcm.got), { phone: 1, watch: 1 })

    fcm.make('tablet', 'there')
    const second = await startProcess(environment)
    const id = `${sent.notifications[0].id}.push`
    const ended = await eventually('the delivery to end', async () => {
      const stands = await call(second.url!, 'GET', `/api/delivery/status/${id}`)
      return stands.status === 'PENDING' ? undefined : stands
    })
    assert.equal(ended.status, 'SENT')
    const tries = ended.tries as { outcome: string; code: string }[]
    assert.deepEqual([tries[0]!.outcome, tries[0]!.code], ['sent', '2 of 3 devices'])
    assert.deepEqual([tries.at(-1)!.outcome, tries.at(-1)!.code], ['sent', '3 of 3 devices'])
    assert.deepEqual(Object.fromEntries(fcm.got), { phone: 1, watch: 1, tablet: 1 })
    assert.deepEqual(await auditLedger(db, {}), [])
  } finally {
    await killStarted()
    await fcm.close()
    await database.drop()
    rmSync(folder, { recursive: true, force: true })
  }
})
