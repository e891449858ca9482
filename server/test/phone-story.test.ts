import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { Vendor } from '../deliver/providers/conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, twilioVendor } from '../deliver/providers/twilio-vendor.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

/** SMS and calls go to two accounts, so that one of them can be out of order. */
let t: TestApp
let texts: Vendor
let calls: Vendor
/** What the vendor of texts says of a message beside that it took it. */
const knows: { status?: string; error_code?: number; date_updated?: string } = {}
let dir: string
before(async () => {
  texts = await twilioVendor({ accepts: knows })
  calls = await twilioVendor()
  dir = await mkdtemp(join(tmpdir(), 'carillon-phone-'))
  const file = join(dir, 'providers.yaml')
  const account = ({ port }: Vendor) => `
    accountSid: ${ACCOUNT_SID}
    authToken: ${AUTH_TOKEN}
    from: '+15005550006'
    baseUrl: http://127.0.0.1:${port}`
  await writeFile(
    file,
    `- provider: twilio
  settings:${account(texts)}
    costPerMessage: 0.0079
- provider: twilio-voice
  settings:${account(calls)}
    costPerMessage: 0.013
`,
  )
  t = await testApp({ CARILLON_PROVIDERS_FILE: file })
})
after(async () => {
  await t?.stop()
  await Promise.all([texts?.close(), calls?.close()])
  if (dir) await rm(dir, { recursive: true, force: true })
})
beforeEach(() => {
  for (const vendor of [texts, calls]) {
    vendor.behave('accept')
    vendor.received.length = 0
  }
})

const call = async (method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const ended = (id: string): Promise<Loose> =>
  eventually(`the end of ${id}`, async () => {
    const delivery = await call('GET', `/api/delivery/status/${id}`)
    return delivery.status !== 'PENDING' && delivery
  })
const formOf = (vendor: Vendor, at: number): URLSearchParams => {
  const { raw } = vendor.received[at]!
  return new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4))
}

// covers: AUR-112, PFM-133, PFM-174
test('a number gets messages once its owner has typed the code that was sent there; each has its price', async () => {
  const number = '+15551234567'
  const { addresses } = await call('PUT', '/api/users/petra', {
    addresses: [{ channel: 'sms', address: number }],
  })
  const early = await call('POST', '/api/delivery/sms', { userId: 'petra', body: 'Too early' })
  assert.equal(early.status, 'SUPPRESSED')
  assert.equal(texts.received.length, 0)

  const petra = await t.tenant.token('petra')
  const path = `/api/users/petra/addresses/${addresses[0].id}/verification`
  await call('POST', path, undefined, petra)
  await eventually('the code', async () => texts.received.length > 0)
  assert.equal(formOf(texts, 0).get('To'), number)
  const code = /\b\d{6}\b/.exec(formOf(texts, 0).get('Body')!)![0]
  await call('POST', `${path}/confirm`, { code }, petra)

  const { deliveryId } = await call('POST', '/api/delivery/sms', { userId: 'petra', body: 'Welcome' })
  const { status, tries } = await ended(deliveryId)
  assert.equal(status, 'SENT')
  assert.deepEqual(
    tries.map((one: Loose) => [one.provider, one.cost]),
    [['twilio', 0.0079]],
  )
  assert.equal(formOf(texts, 1).get('Body'), 'Welcome')
})

// covers: DIC-109
test('whom an SMS cannot reach is called, and hears the text', async () => {
  await call('PUT', '/api/users/otto', {
    addresses: (['sms', 'voice'] as const).map(channel => ({
      channel,
      address: '+15557654321',
      verified: true,
    })),
  })
  const send = () =>
    call('POST', '/api/notifications', {
      recipientId: 'otto',
      channels: ['sms'],
      fallbackChannels: ['voice'],
      body: 'The pump in hall 3 has stopped & does not start',
    })
  // As long as the SMS goes through, nobody is called.
  const { notifications: first } = await send()
  assert.equal((await ended(`${first[0].id}.sms`)).status, 'SENT')
  assert.equal(calls.received.length, 0)

  texts.behave('refuse')
  const { notifications } = await send()
  const { id } = notifications[0]
  assert.match((await ended(`${id}.sms`)).status, /FAILED|BOUNCED/)
  await eventually('the call', async () => calls.received.length > 0)
  const spoken = await ended(`${id}.voice`)
  assert.equal(spoken.status, 'SENT')
  assert.equal(spoken.tries[0].cost, 0.013)
  assert.equal(calls.received.length, 1)
  const form = formOf(calls, 0)
  assert.equal(form.get('To'), '+15557654321')
  assert.match(form.get('Twiml')!, /<Say[^>]*>[^<]*The pump in hall 3 has stopped &amp; does not start/)
})

// covers: ALP-101, ALP-106, ALP-107, ALP-108
test('where a report was lost the vendor is asked, and what it says counts once', async () => {
  const { deliveryId } = await call('POST', '/api/delivery/sms', {
    to: '+15559990001',
    body: 'Are you there?',
  })
  assert.equal((await ended(deliveryId)).status, 'SENT')
  const refresh = () => call('POST', `/api/delivery/status/${deliveryId}/refresh`)
  assert.deepEqual(await refresh(), { deliveryId, status: 'SENT', state: 'sent', told: 0, code: null })

  Object.assign(knows, { status: 'delivered', date_updated: new Date().toUTCString() })
  try {
    const { status, told, code } = await refresh()
    assert.deepEqual([status, told, code], ['DELIVERED', 1, null])
    await refresh()
    const [notificationId] = deliveryId.split('.')
    const { rows } = await t.db.pool.query(
      'select count(*)::int as n from engagement where tenant_id = $1 and notification_id = $2',
      [t.tenant.id, notificationId],
    )
    assert.ok(rows[0].n <= 1, 'told twice, it happened once')
  } finally {
    delete knows.status
    delete knows.date_updated
  }
  texts.behave('fail')
  const away = await refresh()
  assert.deepEqual([away.status, away.code], ['DELIVERED', 'server_error'])

  // Nothing was taken by anybody who could be asked.
  const inApp = await call('POST', '/api/delivery/in-app', { userId: 'petra', body: 'Hello' })
  const { status } = await t.call('POST', `/api/delivery/status/${inApp.deliveryId}/refresh`, {
    as: t.tenant.adminKey,
  })
  assert.equal(status, 409)
  const stranger = await t.call('POST', `/api/delivery/status/${deliveryId}/refresh`, {
    as: t.other.adminKey,
  })
  assert.equal(stranger.status, 404)
})

// covers: PFM-175, PFM-207, ALP-107
test('each channel comes to its own end, and one without an address to none', async () => {
  await call('PUT', '/api/users/nora', {
    addresses: (['sms', 'voice'] as const).map(channel => ({
      channel,
      address: '+15557650000',
      verified: true,
    })),
  })
  texts.behave('refuse')
  const { notifications } = await call('POST', '/api/notifications', {
    recipientId: 'nora',
    channels: ['in_app', 'sms', 'voice', 'email'],
    body: 'The pump has stopped',
  })
  const { id, channels } = notifications[0]
  // Nora has no mail address: nothing is planned there that could never go.
  assert.deepEqual(new Set(channels), new Set(['in_app', 'sms', 'voice']))
  assert.equal((await ended(`${id}.voice`)).status, 'SENT')
  assert.match((await ended(`${id}.sms`)).status, /FAILED|BOUNCED/)
  assert.equal((await ended(`${id}.in_app`)).status, 'DELIVERED')
  assert.equal(
    (await t.call('GET', `/api/delivery/status/${id}.email`, { as: t.tenant.adminKey })).status,
    404,
  )
})

// covers: ALP-106, ALP-107, ALP-111
test('of every channel an address is checked before it is kept, and a vendor is told where to report', async () => {
  const wrong: [channel: string, address: string][] = [
    ['email', 'petra@localhost'],
    ['sms', '0170 1234567'],
    ['voice', '+0123'],
    ['whatsapp', 'petra'],
  ]
  for (const [channel, address] of wrong) {
    const answer = await t.call('POST', '/api/users/petra/addresses', {
      as: t.tenant.adminKey,
      body: { channel, address },
    })
    assert.deepEqual([answer.status, answer.body.code], [400, 'invalid_address'], channel)
  }
  const device = await t.call('POST', '/api/users/petra/devices', {
    as: t.tenant.adminKey,
    body: { kind: 'apns', token: 'no token' },
  })
  assert.equal(device.status, 400, device.text)
  const { items } = await call('GET', '/api/providers')
  const reports = Object.fromEntries(items.map((one: Loose) => [one.name, one.callbackUrl]))
  assert.match(reports['twilio'], /\/webhooks\/twilio$/)
  assert.match(reports['twilio-voice'], /\/webhooks\/twilio-voice$/)
  // Who has nothing to report later has no door.
  assert.equal(reports['webhook'], null)
})
