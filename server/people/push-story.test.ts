import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { after, before, test } from 'node:test'
import { type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  t = await testApp({
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
