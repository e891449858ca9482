import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type TestApp, eventually, testApp } from '../test/app.ts'
import { deviceToken, type Fcm, openFcm } from '../test/fcm.ts'
import { MAX_TOKENS } from './push-token-routes.ts'

let fcm: Fcm
let folder: string
let t: TestApp
before(async () => {
  fcm = await openFcm()
  folder = mkdtempSync(join(tmpdir(), 'carillon-tokens-'))
  const file = join(folder, 'providers.yaml')
  writeFileSync(file, fcm.providersFile)
  t = await testApp({ CARILLON_PROVIDERS_FILE: file })
})
after(async () => {
  await t.stop()
  await fcm.close()
  rmSync(folder, { recursive: true, force: true })
})

const post = async (path: string, body: unknown, as = t.tenant.serviceKey) =>
  t.call('POST', `/api/delivery/push${path === '' ? '' : `/${path}`}`, { as, body })

async function person(userId: string, names: string[], as = t.tenant.adminKey): Promise<void> {
  await t.call('PUT', `/api/users/${userId}`, { as, body: {} })
  for (const name of names) {
    const { status, text } = await t.call('POST', `/api/users/${userId}/devices`, {
      as,
      body: { kind: 'fcm', token: deviceToken(name) },
    })
    assert.equal(status, 201, text)
  }
}
const devicesOf = async (userId: string): Promise<string[]> =>
  (await t.call('GET', `/api/users/${userId}/devices`, { as: t.tenant.adminKey })).body.items.map(
    ({ id }: { id: string }) => id,
  )

// covers: ALP-108
test('a token is asked about without sending; a device that is gone goes', async () => {
  await person('vic', ['vic-phone', 'vic-old'])
  const validate = async (name: string) => (await post('validate', { token: deviceToken(name) })).body
  assert.deepEqual(await validate('vic-phone'), {
    valid: true,
    provider: 'fcm',
    code: null,
    vendorCode: null,
    retryAt: null,
  })
  fcm.make('vic-phone', 'slow')
  const later = await validate('vic-phone')
  assert.deepEqual([later.valid, later.code, later.vendorCode], [null, 'rate_limited', 'QUOTA_EXCEEDED'])
  assert.ok(Date.parse(later.retryAt) > Date.now())
  assert.equal((await devicesOf('vic')).length, 2)

  fcm.make('vic-old', 'gone')
  const dead = await validate('vic-old')
  assert.deepEqual([dead.valid, dead.code], [false, 'gone'])
  assert.equal((await devicesOf('vic')).length, 1)
  assert.equal(fcm.got.size, 0, 'nobody was sent anything')

  // APNs can only be asked by sending.
  const apple = await post('validate', { token: 'ab'.repeat(32) })
  assert.deepEqual([apple.status, apple.body.code], [409, 'conflict'])
  for (const token of ['/topics/news', 'no token', '']) {
    assert.equal((await post('validate', { token })).status, 400, token)
  }
  const vic = await t.tenant.token('vic')
  assert.equal((await post('validate', { token: deviceToken('vic-phone') }, vic)).status, 403)
})

// covers: ALP-108
test('devices of a person join a topic of the vendor, get what is sent to it, and leave it', async () => {
  await person('wim', ['wim-phone', 'wim-tablet', 'wim-gone'])
  await t.call('POST', '/api/users/wim/devices', {
    as: t.tenant.adminKey,
    body: { kind: 'apns', token: 'cd'.repeat(32) },
  })
  fcm.make('wim-gone', 'gone')
  const { body, status, text } = await post('topics/weather-9/subscribe', { userId: 'wim' })
  assert.equal(status, 200, text)
  assert.deepEqual([body.changed, body.failed], [2, 2])
  assert.deepEqual(
    body.results.map(({ code }: { code: string | null }) => code),
    [null, null, 'gone', 'unsupported'],
  )
  assert.ok(body.results.every(({ deviceId }: { deviceId: string }) => deviceId.length === 36))
  assert.doesNotMatch(text, /aaaaaaa/, 'no token is shown')
  assert.deepEqual([...fcm.topics.get('weather-9')!].sort(), ['wim-phone', 'wim-tablet'])
  assert.equal((await devicesOf('wim')).length, 3, 'the one that is gone went')

  // Again changes nothing, and is no failure.
  assert.equal((await post('topics/weather-9/subscribe', { userId: 'wim' })).body.changed, 2)

  const sent = await post('', { to: '/topics/weather-9', title: 'Weather', body: 'Rain' })
  assert.equal(sent.status, 202, sent.text)
  const end = await eventually('the message to the topic', async () => {
    const { body: stands } = await t.call('GET', `/api/delivery/status/${sent.body.deliveryId}`, {
      as: t.tenant.serviceKey,
    })
    return stands.status === 'PENDING' ? undefined : stands
  })
  assert.equal(end.status, 'SENT')
  assert.equal(fcm.got.get('topic weather-9'), 1)

  assert.equal((await post('topics/weather-9/unsubscribe', { userId: 'wim' })).body.changed, 2)
  assert.equal(fcm.topics.get('weather-9')!.size, 0)
  const trail = await t.db.pool.query(
    `select action, object_id, details from audit where tenant_id = $1 and action like 'push_topic.%' order by id`,
    [t.tenant.id],
  )
  assert.deepEqual(
    trail.rows.map(({ action, object_id: of, details }) => [action, of, details.changed]),
    [
      ['push_topic.subscribed', 'wim', 2],
      ['push_topic.subscribed', 'wim', 2],
      ['push_topic.unsubscribed', 'wim', 2],
    ],
  )
})

// covers: ALP-108
test('many tokens each have a result; once the service wants a pause it is left alone', async () => {
  const names = Array.from({ length: 60 }, (_, i) => `many-${i}`)
  const tokens = names.map(deviceToken)
  const all = await post('topics/many/subscribe', { tokens: [...tokens, tokens[0]] })
  assert.deepEqual([all.body.changed, all.body.results.length], [60, 60], all.text)

  for (const name of names) fcm.make(name, 'slow')
  const before = fcm.asked.length
  const { body } = await post('topics/many/unsubscribe', { tokens })
  assert.deepEqual([body.changed, body.failed], [0, 60])
  for (const { code, retryAt } of body.results) {
    assert.equal(code, 'rate_limited')
    assert.ok(Date.parse(retryAt) > Date.now())
  }
  assert.ok(fcm.asked.length - before < 60, 'those behind were not asked')
  assert.equal(fcm.topics.get('many')!.size, 60)

  const tooMany = Array.from({ length: MAX_TOKENS + 1 }, (_, i) => deviceToken(`x-${i}`))
  for (const [topic, wrong] of [
    ['many', {}],
    ['many', { tokens: [] }],
    ['many', { tokens: tooMany }],
    ['many', { tokens: ['/topics/all'] }],
    ['many', { tokens, userId: 'wim' }],
    ['so%20many', { tokens }],
  ] as const) {
    assert.equal(
      (await post(`topics/${topic}/subscribe`, wrong)).status,
      400,
      JSON.stringify(wrong).slice(0, 80),
    )
  }
  assert.equal((await post('topics/many/subscribe', { userId: 'nobody' })).status, 404)
  const apple = await post('topics/many/subscribe', { tokens: ['ab'.repeat(32)] })
  assert.equal(apple.status, 409, apple.text)
  const wim = await t.tenant.token('wim')
  assert.equal((await post('topics/many/subscribe', { tokens }, wim)).status, 403)
})

test('a topic is its tenant’s, though all share the vendor’s project', async () => {
  const { id, serviceKey } = t.other
  await post('topics/shared/subscribe', { tokens: [deviceToken('ours')] })
  await post('topics/shared/subscribe', { tokens: [deviceToken('theirs')] }, serviceKey)
  assert.deepEqual([...fcm.topics.get('shared')!], ['ours'])
  assert.deepEqual([...fcm.topics.get(`t${id}.shared`)!], ['theirs'])
  const sent = await post('', { to: '/topics/shared', body: 'Theirs alone' }, serviceKey)
  assert.equal(sent.status, 202, sent.text)
  await eventually('the message to the topic', async () => fcm.got.get(`topic t${id}.shared`))
  assert.equal(fcm.got.get('topic shared'), undefined)
  // Nor by the name that it has at the vendor.
  await post(`topics/t${id}.shared/subscribe`, { tokens: [deviceToken('curious')] })
  assert.deepEqual([...fcm.topics.get(`t${id}.shared`)!], ['theirs'])
})

test('nobody registers a topic as their device', async () => {
  await person('xan', [])
  const { status, body } = await t.call('POST', '/api/users/xan/devices', {
    as: await t.tenant.token('xan'),
    body: { kind: 'fcm', token: '/topics/everybody' },
  })
  assert.deepEqual([status, body.code, body.errors?.[0]?.field], [400, 'invalid_address', '/token'])
})
