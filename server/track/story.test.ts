import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { ACCOUNT_SID, AUTH_TOKEN, SID, signedForm, twilioVendor } from '../deliver/providers/twilio-vendor.ts'
import type { Vendor } from '../deliver/providers/conformance.ts'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

const PUBLIC = 'https://carillon.example'
let t: TestApp
let vendor: Vendor
let dir: string
before(async () => {
  vendor = await twilioVendor()
  dir = await mkdtemp(join(tmpdir(), 'carillon-providers-'))
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: twilio
  settings:
    accountSid: ${ACCOUNT_SID}
    authToken: \${TRACK_TEST_TOKEN}
    from: '+15005550006'
    baseUrl: http://127.0.0.1:${vendor.port}
- provider: mailgun
  settings:
    apiKey: \${TRACK_TEST_TOKEN}
    domain: carillon.example
    from: noreply@carillon.example
    webhookSigningKey: \${TRACK_TEST_TOKEN}
    baseUrl: http://127.0.0.1:${vendor.port}
- provider: twilio-voice
  settings:
    accountSid: ${ACCOUNT_SID}
    authToken: \${TRACK_TEST_TOKEN}
    from: '+15005550006'
    baseUrl: http://127.0.0.1:${vendor.port}
`,
  )
  process.env.TRACK_TEST_TOKEN = AUTH_TOKEN
  t = await testApp({ CARILLON_PROVIDERS_FILE: file, PUBLIC_URL: PUBLIC })
})
after(async () => {
  await t.stop()
  await vendor.close()
  await rm(dir, { recursive: true, force: true })
})

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const delivery = async (id: string): Promise<Loose> =>
  (await call('GET', `/api/notifications/${id}`)).deliveries[0]

/** As Twilio posts it: a form, signed over the URL that it was told. */
async function twilioSays(
  status: string,
  more: Record<string, string> = {},
  token = AUTH_TOKEN,
  path = '/webhooks/twilio',
): Promise<number> {
  const { headers, body } = signedForm(
    `${PUBLIC}${path}`,
    { MessageSid: SID, MessageStatus: status, ...more },
    token,
  )
  const answer = await fetch(`${t.url}${path}`, {
    method: 'POST',
    headers: headers as Record<string, string>,
    body: Buffer.from(body),
  })
  return answer.status
}

// covers: DIC-107, ALP-103, PFM-212
test('what a vendor tells later moves a delivery forward, never back; a bounce keeps the address from more', async () => {
  await call('PUT', '/api/users/sam', {
    addresses: [{ channel: 'sms', address: '+15005550001', verified: true }],
  })
  const { id } = await call('POST', '/api/notifications', {
    recipientId: 'sam',
    channels: ['sms'],
    body: 'Hello',
  })
  await eventually('the vendor took it', async () => (await delivery(id)).status === 'sent')

  assert.equal(await twilioSays('delivered', {}, 'another-token'), 401)
  assert.equal((await delivery(id)).status, 'sent')
  assert.ok((await twilioSays('delivered')) < 300)
  assert.equal((await delivery(id)).status, 'delivered')
  assert.deepEqual(await auditLedger(t.db), [])
  // Late and repeated ones change nothing.
  await twilioSays('sent')
  await twilioSays('delivered')
  assert.equal((await delivery(id)).status, 'delivered')

  // A handset may still turn out not to exist.
  assert.ok((await twilioSays('undelivered', { ErrorCode: '30005', To: '+15005550001' })) < 300)
  assert.equal((await delivery(id)).status, 'bounced')
  assert.deepEqual(await auditLedger(t.db), [])
  const next = await call('POST', '/api/notifications', {
    recipientId: 'sam',
    channels: ['sms'],
    body: 'Again',
  })
  assert.equal(next.suppressed, 1)
  const { items } = await call('GET', '/api/suppressions')
  assert.deepEqual(
    items.map((one: Loose) => [one.channel, one.address, one.reason]),
    [['sms', '+15005550001', 'hard_bounce']],
  )
  await eventually('the application hears of it', async () => {
    const { rows } = await t.db.pool.query(`select 1 from events where type = 'carillon.address.suppressed'`)
    return rows.length === 1
  })
})

// covers: DIC-109
test('a text message that turns out not to have arrived is followed by a call', async () => {
  const phone = '+15005550003'
  await call('PUT', '/api/users/tom', {
    addresses: ['sms', 'voice'].map(channel => ({ channel, address: phone, verified: true })),
  })
  const { id } = await call('POST', '/api/notifications', {
    recipientId: 'tom',
    channels: ['sms'],
    fallbackChannels: ['voice'],
    body: 'Call me',
  })
  await eventually('the text message', async () => (await delivery(id)).status === 'sent')
  const path = `/webhooks/twilio?delivery=${id}.sms`
  assert.ok((await twilioSays('undelivered', { ErrorCode: '30008' }, AUTH_TOKEN, path)) < 300)
  const deliveries = async () => (await call('GET', `/api/notifications/${id}`)).deliveries
  await eventually('the call', async () => (await deliveries()).find((one: Loose) => one.channel === 'voice'))
  await eventually('its end', async () =>
    (await deliveries()).some((one: Loose) => one.channel === 'voice' && one.status === 'sent'),
  )
  assert.equal((await delivery(id)).status, 'failed')
  const letters = (await call('GET', '/api/dead-letters')).items
  assert.ok(letters.some((one: Loose) => one.notificationId === id && one.channel === 'sms'))
  assert.deepEqual(await auditLedger(t.db), [])
})

// covers: PFM-216, PFM-224
test('vendors may post to the documented path of version 2, signed as they called it', async () => {
  const path = '/api/v2/webhooks/twilio'
  const fields = { MessageSid: `SM${'9'.repeat(32)}`, MessageStatus: 'delivered' }
  const post = async (signedUrl: string) => {
    const { headers, body } = signedForm(signedUrl, fields, AUTH_TOKEN)
    return fetch(`${t.url}${path}`, {
      method: 'POST',
      headers: headers as Record<string, string>,
      body: Buffer.from(body),
    })
  }
  assert.equal((await post(`${PUBLIC}${path}`)).status, 204)
  assert.equal((await post(`${PUBLIC}/webhooks/twilio`)).status, 401)
})

test('a provider that is not set up has no door', async () => {
  assert.equal((await fetch(`${t.url}/webhooks/sendgrid`, { method: 'POST', body: '[]' })).status, 404)
  assert.equal((await fetch(`${t.url}/webhooks/nothing`)).status, 404)
})

// covers: DIC-103
test('a signature that says nothing about its event serves for one', async () => {
  const timestamp = String(Math.floor(Date.now() / 1000))
  const token = 'e'.repeat(50)
  const signature = createHmac('sha256', AUTH_TOKEN)
    .update(timestamp + token)
    .digest('hex')
  const says = async (event: string, id: string) => {
    const response = await fetch(`${t.url}/webhooks/mailgun`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        signature: { timestamp, token, signature },
        'event-data': {
          event,
          id,
          timestamp: Number(timestamp),
          recipient: 'victim@example.com',
          message: { headers: { 'message-id': 'nobody@carillon.example' } },
        },
      }),
    })
    return response.status
  }
  assert.equal(await says('delivered', 'one'), 200)
  assert.equal(await says('delivered', 'one'), 200)
  assert.equal(await says('complained', 'one'), 401)
  assert.equal(await says('delivered', 'two'), 401)
})
