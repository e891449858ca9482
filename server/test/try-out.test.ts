import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  await call('PUT', '/api/users/ann', {
    addresses: [{ channel: 'email', address: 'ann@example.org', verified: true }],
  })
  // Ann wants no mail, and nothing at all at this time of day.
  await call('PUT', '/api/preferences/ann', { channels: { email: { enabled: false } } })
  await call('PUT', '/api/preferences/ann/quiet-hours', {
    enabled: true,
    startTime: '00:00',
    endTime: '23:59',
  })
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const statusOf = (id: string) =>
  eventually('the end of the test', async () => {
    const { status } = await call('GET', `/api/notifications/${id}`)
    return ['sent', 'delivered', 'failed', 'cancelled'].includes(status) && status
  })

// covers: ALP-091
test('a test goes now, whatever the reader prefers, by the rules of every other message otherwise', async () => {
  const usual = await call('POST', '/api/notifications', {
    recipientId: 'ann',
    channels: ['email'],
    subject: 'News',
    body: 'Of the day',
  })
  assert.equal(usual.status, 'SUPPRESSED')
  const sent = await call('POST', '/api/notifications/test', { userId: 'ann', channel: 'EMAIL' })
  assert.equal(await statusOf(sent.id), 'sent')

  await call('POST', '/api/templates', {
    name: 'hello',
    channels: { default: { subject: 'Hello {{name}}', body: 'Nice to see you' } },
  })
  const templated = await call('POST', '/api/notifications/test', {
    userId: 'ann',
    templateId: 'hello',
    templateVars: { name: 'Ann' },
  })
  assert.equal(await statusOf(templated.id), 'delivered')
  const { items } = await call('GET', '/api/notifications/feed', undefined, await t.tenant.token('ann'))
  assert.equal(items[0].subject, 'Hello Ann')

  // There is no phone to try.
  const phone = await call('POST', '/api/notifications/test', { userId: 'ann', channel: 'sms' })
  assert.equal(phone.status, 'SUPPRESSED')
})

// covers: AUR-140
test('a companion’s channel is tried out by the person, for themselves alone', async () => {
  await call('PUT', '/api/users/eve', {})
  const eve = await t.tenant.token('eve')
  const body = { auraId: 'rain', channel: 'in_app', message: 'It works' }
  const { id } = await call('POST', '/api/notifications/test', body, eve)
  assert.equal(await statusOf(id), 'delivered')
  const { items } = await call('GET', '/api/notifications/feed', undefined, eve)
  assert.equal(items[0].body, 'It works')

  const others = await t.call('POST', '/api/notifications/test', {
    as: await t.tenant.token('bob'),
    body: { ...body, userId: 'eve' },
  })
  assert.deepEqual([others.status, others.body.code], [403, 'forbidden'])
})

// covers: AUR-093
test('a companion is not tried out in its quiet hours: an error, and nothing was sent', async () => {
  await call('PUT', '/api/users/night', {})
  const night = await t.tenant.token('night')
  const prefer = (settings: object) =>
    call('PUT', '/api/notifications/preferences', { auraId: 'owl', channel: 'in_app', settings }, night)
  const always = { enabled: true, start: '00:00', end: '23:59', timezone: 'UTC' }
  await prefer({ enabled: true, quietHours: always })
  const body = { auraId: 'owl', channel: 'in_app', message: 'Awake?' }
  const answer = await t.call('POST', '/api/notifications/test', { as: night, body })
  assert.deepEqual(
    [answer.status, answer.body.code, answer.body.number, answer.body.errors?.[0].field],
    [403, 'quiet_hours_active', 4033, '/channel'],
  )
  // Another companion's hours are its own, and without hours it goes at once.
  assert.equal(
    (await call('POST', '/api/notifications/test', { ...body, auraId: 'lark' }, night)).status,
    'ACCEPTED',
  )
  await prefer({ enabled: true, quietHours: { ...always, enabled: false } })
  await call('POST', '/api/notifications/test', body, night)
  const { items } = await call('GET', '/api/notifications/feed', undefined, night)
  assert.equal(items.length, 2)
})

test('a test that says nothing to nobody is refused, with the field', async () => {
  for (const [body, field] of [
    [{}, '/userId'],
    [{ userId: 'ann', channel: 'pigeon' }, '/channel'],
    [{ userId: 'ann', templateId: 'hello', message: 'and this' }, '/message'],
    [{ userId: 'ann', templateId: 'no such' }, '/templateId'],
  ] as const) {
    const answer = await t.call('POST', '/api/notifications/test', { as: t.tenant.adminKey, body })
    assert.deepEqual([answer.status, answer.body.errors[0].field], [400, field])
  }
})
