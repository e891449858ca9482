import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { IncomingMessage, Server, ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

const PHONE = '+12125550123'

/** What a vendor does with the next messages; each is kept as it came. */
interface Vendor {
  url: string
  got: string[]
  answer(request: IncomingMessage, response: ServerResponse): void
  close(): Promise<void>
}

async function vendor(): Promise<Vendor> {
  const got: string[] = []
  const made: Vendor = {
    url: '',
    got,
    answer: (_, response) => response.writeHead(500).end('{}'),
    close: () =>
      new Promise(resolve => {
        server.closeAllConnections()
        server.close(() => resolve())
      }),
  }
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      got.push(Buffer.concat(chunks).toString('utf8'))
      made.answer(request, response)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  made.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  return made
}

let t: TestApp
let bird: Vendor
let twilio: Vendor
let dir: string
const json = (response: ServerResponse, status: number, body: object) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
// Accepted, as https://developers.messagebird.com/api/sms-messaging and https://www.twilio.com/docs/messaging show it.
const birdTakes = (_: IncomingMessage, response: ServerResponse) =>
  json(response, 201, {
    id: 'e8077d803532c0b5937c639b60216938',
    recipients: { totalCount: 1, items: [{ recipient: 15005550001, status: 'sent' }] },
  })
const twilioTakes = (_: IncomingMessage, response: ServerResponse) =>
  json(response, 201, { sid: 'SM00000000000000000000000000000001', status: 'queued', error_code: null })

before(async () => {
  bird = await vendor()
  twilio = await vendor()
  dir = await mkdtemp(join(tmpdir(), 'carillon-delivery-'))
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: messagebird
  settings: { accessKey: abcdefghijklmnop, originator: Shop, baseUrl: '${bird.url}' }
- provider: twilio
  name: twilio-eu
  weight: 2
  when: { countries: [US, DE] }
  settings:
    accountSid: AC00000000000000000000000000000000
    authToken: '0123456789abcdef0123456789abcdef'
    from: '+15005550006'
    baseUrl: '${twilio.url}'
`,
  )
  t = await testApp({ CARILLON_PROVIDERS_FILE: file })
})
after(async () => {
  await t?.stop()
  await Promise.all([bird?.close(), twilio?.close()])
  if (dir) await rm(dir, { recursive: true, force: true })
})
beforeEach(() => {
  bird.got.length = 0
  twilio.got.length = 0
  bird.answer = birdTakes
  twilio.answer = twilioTakes
})

const call = async (method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const statusOf = (id: string): Promise<Loose> => call('GET', `/api/delivery/status/${id}`)
const ends = (id: string, state: string): Promise<Loose> =>
  eventually(`${id} is ${state}`, async () => {
    const delivery = await statusOf(id)
    return delivery.state === state && delivery
  })
const sendSms = (body: string): Promise<Loose> => call('POST', '/api/delivery/sms', { to: PHONE, body })

// covers: ALP-097, ALP-101, ALP-104
test('the second provider stands in when the first refuses for the time being', async () => {
  bird.answer = (_, response) => response.writeHead(503).end('{}')
  const { deliveryId, notificationId } = await sendSms('one')
  const delivery = await ends(deliveryId, 'sent')
  assert.equal(delivery.status, 'SENT')
  assert.equal(delivery.provider, 'twilio-eu')
  assert.deepEqual(
    delivery.tries.map((one: Loose) => [one.provider, one.outcome]),
    [
      ['messagebird', 'failed'],
      ['twilio-eu', 'sent'],
    ],
  )
  assert.equal(bird.got.length, 1)
  assert.equal(twilio.got.length, 1)
  // The id of the notification is enough where it has one channel.
  assert.equal((await statusOf(notificationId)).deliveryId, deliveryId)
})

// covers: ALP-112, ALP-102
test('nobody sends a second message when the first may have arrived, until somebody says so', async () => {
  // Read whole, and then silence: the message may be on its way.
  bird.answer = request => request.socket.destroy()
  const { deliveryId } = await sendSms('two')
  const lost = await ends(deliveryId, 'unknown')
  assert.equal(lost.status, 'FAILED')
  assert.equal(bird.got.length, 1)
  assert.equal(twilio.got.length, 0)
  assert.deepEqual(await auditLedger(t.db), [])

  bird.answer = birdTakes
  assert.equal((await call('POST', `/api/delivery/retry/${deliveryId}`, {})).status, 'PENDING')
  await ends(deliveryId, 'sent')
  assert.equal(bird.got.length + twilio.got.length, 2)
  assert.deepEqual(await auditLedger(t.db), [])
  // What arrived, or is under way, is not sent again.
  const again = await t.call('POST', `/api/delivery/retry/${deliveryId}`, { as: t.tenant.adminKey, body: {} })
  assert.equal(again.status, 409)
})

test('a final refusal is not offered to another provider', async () => {
  bird.answer = (_, response) =>
    json(response, 422, {
      errors: [{ code: 9, description: 'no (correct) recipients found', parameter: 'recipient' }],
    })
  const { deliveryId } = await sendSms('three')
  const delivery = await eventually('an end', async () => {
    const now = await statusOf(deliveryId)
    return now.status !== 'PENDING' && now
  })
  assert.notEqual(delivery.status, 'SENT')
  assert.ok(delivery.failureReason)
  assert.equal(twilio.got.length, 0)
})

// covers: ALP-096, ALP-098, ALP-099, ALP-100, ALP-106
test('each documented door takes its own message, and only that', async () => {
  await call('PUT', '/api/users/dora', {
    addresses: [{ channel: 'email', address: 'dora@example.org', verified: true }],
  })
  const mail = await call('POST', '/api/delivery/email', {
    userId: 'dora',
    subject: 'Hello',
    body: 'Hello, Dora',
    html: '<p>Hello, Dora</p>',
    cc: ['copy@example.org'],
  })
  assert.equal((await ends(mail.deliveryId, 'sent')).channel, 'email')
  const item = await call('POST', '/api/delivery/in-app', {
    userId: 'dora',
    title: 'Hello',
    body: 'In the inbox',
  })
  assert.equal((await ends(item.deliveryId, 'delivered')).status, 'DELIVERED')
  const hook = await call('POST', '/api/delivery/webhook', { to: `${twilio.url}/hook`, body: 'Hello' })
  await ends(hook.deliveryId, 'delivered')
  assert.match(twilio.got.at(-1)!, /Hello/)
  // Without a device there is nobody to push to; the answer says so at once.
  const push = await call('POST', '/api/delivery/push', { userId: 'dora', title: 'Hello', body: 'x' })
  assert.deepEqual([push.deliveryId, push.status], [null, 'SUPPRESSED'])

  for (const [kind, body] of [
    ['email', { to: 'a@example.org', userId: 'dora', body: 'x' }],
    ['email', { body: 'x' }],
    ['email', { to: 'a@example.org' }],
    ['sms', { to: PHONE, body: 'x', subject: 'An SMS has none' }],
    ['in-app', { body: 'x' }],
    ['in-app', { userId: 'dora', to: 'x', body: 'x' }],
  ] as const) {
    const answer = await t.call('POST', `/api/delivery/${kind}`, { as: t.tenant.serviceKey, body })
    assert.equal(answer.status, 400, `${kind} ${JSON.stringify(body)}: ${answer.text}`)
  }
  const user = await t.tenant.token('dora')
  assert.equal(
    (await t.call('POST', '/api/delivery/sms', { as: user, body: { to: PHONE, body: 'x' } })).status,
    403,
  )
})

// covers: ALP-110
test('preferences hold at these doors too, unless an admin forces it; a suppressed address stays so', async () => {
  await call('PUT', '/api/users/emil', {
    addresses: [{ channel: 'sms', address: '+15005550002', verified: true }],
  })
  await call('POST', '/api/preferences/emil/channels', { channel: 'sms', enabled: false })
  const message = { userId: 'emil', body: 'Please' }
  assert.equal((await call('POST', '/api/delivery/sms', message)).status, 'SUPPRESSED')
  const refused = await t.call('POST', '/api/delivery/sms', {
    as: t.tenant.serviceKey,
    body: { ...message, force: true },
  })
  assert.equal(refused.status, 403)
  const { deliveryId } = await call('POST', '/api/delivery/sms', { ...message, force: true })
  await ends(deliveryId, 'sent')
  await call('POST', '/api/suppressions', { channel: 'sms', address: '+15005550002' })
  assert.equal((await call('POST', '/api/delivery/sms', { ...message, force: true })).status, 'SUPPRESSED')
})

// covers: ALP-112
test('the same request twice is one message', async () => {
  const send = () =>
    t.call('POST', '/api/delivery/sms', {
      as: t.tenant.adminKey,
      body: { to: PHONE, body: 'once' },
      headers: { 'idempotency-key': 'delivery-once' },
    })
  const first = await send()
  const second = await send()
  assert.equal(second.headers.get('idempotency-replayed'), 'true')
  assert.equal(second.body.deliveryId, first.body.deliveryId)
  await ends(first.body.deliveryId, 'sent')
  assert.equal(bird.got.length, 1)
})

// covers: ALP-111
test('operators see what is set up, what could be, and whether a vendor would take a message', async () => {
  const { items } = await call('GET', '/api/providers')
  const sms = items.filter((one: Loose) => one.channel === 'sms')
  assert.deepEqual(
    sms.map((one: Loose) => [one.name, one.provider, one.weight, one.when]),
    [
      ['messagebird', 'messagebird', null, null],
      ['twilio-eu', 'twilio', 2, { countries: ['US', 'DE'] }],
    ],
  )
  assert.match(sms[1].callbackUrl, /\/webhooks\/twilio-eu$/)
  // Not every far end reports back.
  assert.equal(items.find((one: Loose) => one.provider === 'webhook').callbackUrl, null)
  const known = await call('GET', '/api/providers/catalog')
  const settings = known.items.find((one: Loose) => one.id === 'twilio').settings
  assert.equal(settings.properties.authToken.secret, true)
  const asked = Object.fromEntries(known.items.map((one: Loose) => [one.id, one.asked.join()]))
  assert.deepEqual(
    [asked.fcm, asked.apns, asked.twilio, asked['twilio-verify']],
    ['token,topics', '', 'status', 'code'],
  )

  twilio.answer = (_, response) => json(response, 401, { code: 20003, message: 'Authenticate' })
  const refused = await call('POST', '/api/providers/twilio-eu/check', {})
  assert.deepEqual([refused.ok, refused.code], [false, 'auth'])
  twilio.answer = (_, response) => json(response, 200, { status: 'active', type: 'Full' })
  assert.equal((await call('POST', '/api/providers/twilio-eu/check', {})).ok, true)
  assert.equal(
    (await t.call('POST', '/api/providers/webhook/check', { as: t.tenant.adminKey, body: {} })).status,
    409,
  )
  for (const path of ['/api/providers', '/api/providers/catalog']) {
    assert.equal((await t.call('GET', path, { as: t.other.adminKey })).status, 403, path)
  }
})
