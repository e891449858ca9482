import assert from 'node:assert/strict'
import { createECDH, generateKeyPairSync } from 'node:crypto'
import { after, before, test } from 'node:test'
import { type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const browser = createECDH('prime256v1')
  browser.generateKeys()
  t = await testApp({
    VAPID_PUBLIC_KEY: browser.getPublicKey('base64url'),
    VAPID_PRIVATE_KEY: browser.getPrivateKey('base64url'),
    VAPID_SUBJECT: 'mailto:push@example.org',
    FCM_CREDENTIALS: JSON.stringify({
      type: 'service_account',
      project_id: 'demo-project',
      client_email: 'push@demo.iam.gserviceaccount.com',
      private_key: privateKey.export({ type: 'pkcs8', format: 'pem' }),
      // Nobody listens there: what is sent stays on this machine.
      token_uri: 'https://127.0.0.1:1/token',
    }),
  })
})
after(() => t.stop())

test('a registered device is an address: no other one is needed for push', async () => {
  const call = (method: string, path: string, body?: unknown) =>
    t.call(method, path, { as: t.tenant.adminKey, body })
  await call('PUT', '/api/users/dana', {})
  const send = async () =>
    (await call('POST', '/api/notifications', { recipientId: 'dana', channels: ['push'], body: 'Hello' }))
      .body
  const before = await send()
  assert.equal(before.suppressed, 1)
  const { status, text } = await call('POST', '/api/users/dana/devices', {
    kind: 'fcm',
    token: `token:${'a'.repeat(140)}`,
  })
  assert.ok(status < 300, text)
  const after_ = await send()
  assert.deepEqual([after_.suppressed, after_.notifications[0].channels], [0, ['push']])
  const why = (await call('GET', `/api/events/${before.eventId}/explain`)).body
  assert.equal(why.rules[0].recipients[0].decisions[0].reason, 'missing_address')

  // A second device gets the same; its token is shown to nobody, like the first one's secrets.
  const tablet = `tablet:${'b'.repeat(140)}`
  await call('POST', '/api/users/dana/devices', { kind: 'fcm', token: tablet })
  const both = await send()
  assert.deepEqual(both.notifications[0].channels, ['push'])
  const shown = await call('GET', `/api/notifications/${both.notifications[0].id}?include=content`)
  assert.equal(shown.body.content.push.to, tablet, 'registered last, it comes first')
  assert.equal(shown.body.content.push.others, undefined)
})

// covers: AUR-110
test('whose browser takes no push finds the message in the inbox', async () => {
  const call = (method: string, path: string, body?: unknown, as = t.tenant.adminKey) =>
    t.call(method, path, { as, body })
  await call('PUT', '/api/users/ida', {})
  const { body: sent } = await call('POST', '/api/notifications', {
    recipientId: 'ida',
    channels: ['web_push', 'in_app'],
    body: 'The meeting moves to noon',
  })
  assert.deepEqual(sent.notifications[0].channels, ['in_app'])
  const why = (await call('GET', `/api/events/${sent.eventId}/explain`)).body
  const browser = why.rules[0].recipients[0].decisions.find(
    ({ channel }: { channel: string }) => channel === 'web_push',
  )
  assert.equal(browser.reason, 'missing_address')
  const inbox = await call('GET', '/api/notifications/feed', undefined, await t.tenant.token('ida'))
  assert.equal(inbox.status, 200, inbox.text)
  assert.match(inbox.text, /The meeting moves to noon/)
})
