import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
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
import { killStarted, startProcess } from './process.ts'

const token = (name: string) => `${name}:${'a'.repeat(140)}`

/** A stand-in for FCM, to which one device is away until it is said to be back. */
async function fcmWithout(away: string) {
  const got = new Map<string, number>()
  let back = false
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const answer = (status: number, body: object, headers = {}) =>
        response
          .writeHead(status, { 'content-type': 'application/json', ...headers })
          .end(JSON.stringify(body))
      if (request.url === '/token') return answer(200, { access_token: 'token', expires_in: 3600 })
      const { message } = JSON.parse(Buffer.concat(chunks).toString()) as { message: { token: string } }
      const [name] = message.token.split(':') as [string]
      if (name === away && !back) return answer(503, { error: { code: 503 } }, { 'retry-after': '1' })
      got.set(name, (got.get(name) ?? 0) + 1)
      return answer(200, { name: `projects/demo-project/messages/${got.size}` })
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    got,
    comeBack: () => {
      back = true
    },
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    },
  }
}

const partly = sql(
  'test_partly_sent',
  `select attempt from jobs where tenant_id = $1 and owner = 0 and jsonb_array_length(state -> 'devices' -> 'taken') = 2`,
)

// covers: ALP-104, ALP-105, ALP-112, DIC-131
test('killed between two tries, another process reaches the one device that was away, and no other one twice', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'carillon-devices-'))
  const database = await testDatabase()
  const fcm = await fcmWithout('tablet')
  try {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const file = join(folder, 'providers.yaml')
    const account = {
      type: 'service_account',
      project_id: 'demo-project',
      client_email: 'push@demo.iam.gserviceaccount.com',
      private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      token_uri: `${fcm.url}/token`,
    }
    // JSON is YAML.
    const settings = { baseUrl: fcm.url, serviceAccount: JSON.stringify(account) }
    writeFileSync(file, JSON.stringify([{ provider: 'fcm', settings }]))
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
      await call(first.url!, 'POST', '/api/users/dana/devices', { kind: 'fcm', token: token(name) })
    }
    const sent = await call(first.url!, 'POST', '/api/notifications', {
      recipientId: 'dana',
      channels: ['push'],
      body: 'The train leaves from platform 4',
    })
    await eventually('two devices to have it', () => db.one(partly, [tenant.id]))
    await first.kill()
    assert.deepEqual(Object.fromEntries(fcm.got), { phone: 1, watch: 1 })

    fcm.comeBack()
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
