import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import { EventSource } from 'eventsource'
import WebSocket from 'ws'
import type { Vendor } from '../../server/deliver/providers/conformance.ts'
import { generateVapidKeys } from '../../server/deliver/providers/push-encryption.ts'
import { twilioWhatsApp } from '../../server/deliver/providers/twilio-whatsapp/twilio-whatsapp.ts'
import { whatsAppCloud } from '../../server/deliver/providers/whatsapp-cloud/whatsapp-cloud.ts'
import { ACCOUNT_SID, AUTH_TOKEN, twilioVendor } from '../../server/deliver/providers/twilio-vendor.ts'
import { type Loose, type TestApp, eventually, testApp } from '../../server/test/app.ts'
import { pushFarEnd } from '../../server/test/far-ends.ts'

let t: TestApp
let texts: Vendor
let pushes: Awaited<ReturnType<typeof pushFarEnd>>
let secure: Awaited<ReturnType<typeof withTls>> | undefined
let alice: string
const vapid = generateVapidKeys()
const dir = mkdtempSync(join(tmpdir(), 'carillon-companion-'))
const [certificate, key] = [join(dir, 'cert.pem'), join(dir, 'key.pem')]
const skip = madeCertificate() ? false : 'there is no openssl to make a certificate with'

function madeCertificate(): boolean {
  const names = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1']
  const made = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2']
  try {
    execFileSync('openssl', ['req', '-x509', ...made, ...names, '-keyout', key, '-out', certificate], {
      stdio: 'pipe',
    })
    return true
  } catch {
    return false
  }
}

/** A push service has https: this door has, and hands everything on to one that has not. */
async function withTls(url: string) {
  const server = createServer(
    { key: readFileSync(key), cert: readFileSync(certificate) },
    (incoming, answer) => {
      const { method, headers, url: path } = incoming
      const onwards = request(new URL(path!, url), { method, headers }, response => {
        answer.writeHead(response.statusCode!, response.headers)
        response.pipe(answer)
      })
      onwards.on('error', () => answer.destroy())
      incoming.pipe(onwards)
    },
  ).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

before(async () => {
  texts = await twilioVendor()
  pushes = await pushFarEnd()
  if (!skip) secure = await withTls(pushes.url)
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: twilio
  settings: { accountSid: ${ACCOUNT_SID}, authToken: ${AUTH_TOKEN}, from: '+15005550006', baseUrl: 'http://127.0.0.1:${texts.port}' }
`,
  )
  t = await testApp({
    CARILLON_PROVIDERS_FILE: file,
    ...(!skip && { CARILLON_OUTBOUND_CA_FILE: certificate }),
    VAPID_PUBLIC_KEY: vapid.publicKey,
    VAPID_PRIVATE_KEY: vapid.privateKey,
    VAPID_SUBJECT: 'mailto:push@example.org',
    ENABLE_WEB_PUSH: 'true',
    ENABLE_SMS: 'true',
  })
  await person('alice')
  alice = await t.tenant.token('alice')
})
after(async () => {
  await t?.stop()
  secure?.close()
  await Promise.all([texts?.close(), pushes?.close()])
  await rm(dir, { recursive: true, force: true })
})
beforeEach(() => void (texts.received.length = 0))

async function call(method: string, path: string, body?: unknown, as = t.tenant.serviceKey): Promise<Loose> {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
/** Who can be written to, and wants to be, wherever an aura can speak. */
async function person(id: string): Promise<void> {
  const addresses = [{ channel: 'sms', address: '+15551234567', verified: true }]
  await call('PUT', `/api/users/${id}`, { addresses }, t.tenant.adminKey)
}
const triggered = (data: object, more: object = {}) =>
  call('POST', '/api/events/publish', { type: 'companion.rule.triggered', data, ...more })
const conversation = (auraId: string, query = '') =>
  call('GET', `/api/auras/${auraId}/conversation${query}`, undefined, alice)
const say = (auraId: string, body: object) =>
  t.call('POST', `/api/auras/${auraId}/messages`, { as: t.tenant.serviceKey, body })

const RAIN = {
  userId: 'alice',
  auraId: 'rain',
  auraName: 'Rain dancer',
  ruleId: 'rule-7',
  priority: 6,
  channels: ['in_app'],
  context: { place: 'Graz' },
  trigger_data: { weather: { condition: 'rain', temperature: 11 } },
}

// covers: AUR-024, AUR-100, AUR-101, AUR-106, AUR-107, AUR-133
test('a sensor event ends as what the aura says, in its conversation, with the values that fired it', async () => {
  const empty = await conversation('rain')
  assert.deepEqual([empty.has_unread_proactive, empty.unread_proactive_count, empty.messages], [false, 0, []])
  const message = 'It rains. Dance!'
  const { eventId } = await triggered({ ...RAIN, message }, { source: 'sensors', id: 'w-1' })
  const again = await triggered({ ...RAIN, message }, { source: 'sensors', id: 'w-1' })
  assert.deepEqual([again.eventId, again.duplicate], [eventId, true])

  const found = await conversation('rain')
  assert.equal(found.conversationId, empty.conversationId, 'finding it and making it are one')
  assert.deepEqual([found.has_unread_proactive, found.unread_proactive_count], [true, 1])
  const [{ id, created_at, ...said }] = found.messages
  assert.ok(id && created_at)
  assert.deepEqual(said, {
    role: 'aura',
    aura_id: 'rain',
    rule_id: 'rule-7',
    title: 'Rain dancer',
    message,
    priority: 6,
    context: { place: 'Graz' },
    trigger_data: RAIN.trigger_data,
    status: 'delivered',
    read_at: null,
  })
  await triggered({ ...RAIN, auraId: 'sun', message: 'Another aura' })
  await triggered({ ...RAIN, message: 'Still raining' })
  assert.equal((await conversation('rain')).unread_proactive_count, 2)

  await call('PATCH', `/api/notifications/${id}/read`, undefined, alice)
  assert.equal((await conversation('rain')).unread_proactive_count, 1)
  await call('POST', '/api/notifications/threads/read', { thread: 'aura:rain' }, alice)
  const read = await conversation('rain')
  assert.deepEqual([read.has_unread_proactive, read.unread_proactive_count], [false, 0])
  assert.deepEqual(
    read.messages.map((one: Loose) => one.status),
    ['read', 'read'],
  )
  assert.equal((await conversation('sun')).unread_proactive_count, 1)
})

test('a conversation is read page by page, and is nobody else’s', async () => {
  for (const n of [1, 2, 3]) await triggered({ userId: 'alice', auraId: 'pages', message: `${n}` })
  const first = await conversation('pages', '?limit=2')
  const rest = await conversation('pages', `?limit=2&cursor=${first.nextCursor}`)
  assert.deepEqual(
    [...first.messages, ...rest.messages].map((one: Loose) => one.message),
    ['3', '2', '1'],
  )
  assert.equal(rest.nextCursor, null)

  const bob = await t.tenant.token('bob')
  const others = await call('GET', '/api/auras/pages/conversation', undefined, bob)
  assert.deepEqual(others.messages, [])
  assert.notEqual(others.conversationId, first.conversationId)
  const refused = await t.call('GET', '/api/auras/pages/conversation?userId=alice', { as: bob })
  assert.equal(refused.status, 403)
  const elsewhere = await t.call('GET', '/api/auras/pages/conversation?userId=alice', {
    as: t.other.serviceKey,
  })
  assert.deepEqual(elsewhere.body.messages, [])
})

// covers: AUR-099, AUR-101
test('the rule’s template makes the message; without one the rule and what fired it do', async () => {
  const data = { ...RAIN, auraId: 'words', ruleName: 'Rain soon' }
  await triggered({
    ...data,
    notification_template: 'At {{trigger_data.weather.temperature}} °C: {{context.place}}',
  })
  await triggered(data)
  await triggered({ userId: 'alice', auraId: 'words', ruleId: '9' })
  assert.deepEqual(
    (await conversation('words')).messages.map((one: Loose) => one.message),
    ['Rule 9', 'Rain soon: weather.condition rain, weather.temperature 11', 'At 11 °C: Graz'],
  )
})

test('what is no message of an aura is refused with its field, and kept', async () => {
  for (const [data, field] of [
    [{ ...RAIN, userId: undefined }, '/userId'],
    [{ ...RAIN, priority: 11 }, '/priority'],
    [{ ...RAIN, channels: ['pigeon'] }, '/channels/0'],
    [{ ...RAIN, notification_template: '{{#if' }, '/notification_template'],
  ] as const) {
    const answer = await t.call('POST', '/api/events/publish', {
      as: t.tenant.serviceKey,
      body: { type: 'companion.rule.triggered', data },
    })
    assert.equal(answer.status, 422, answer.text)
    assert.equal(answer.body.code, 'event_schema_violation')
    assert.ok(answer.text.includes(field.split('/')[1]!), answer.text)
  }
  const template = await say('rain', { userId: 'alice', notification_template: '{{nothing' })
  assert.deepEqual([template.status, template.body.number], [400, 4001])
})

// covers: AUR-104
test('a message has a result for each channel, and one notification', async () => {
  const { status, body } = await say('many', {
    userId: 'alice',
    message: 'Everywhere',
    channels: ['in_app', 'sms', 'whatsapp'],
    id: 'once',
  })
  assert.equal(status, 202)
  const [inApp, sms, whatsapp] = body.results
  assert.deepEqual(
    [inApp.channel, inApp.status, inApp.notificationId],
    ['in_app', 'delivered', body.notificationId],
  )
  assert.equal(sms.channel, 'sms')
  assert.ok(['queued', 'sent'].includes(sms.status), JSON.stringify(sms))
  assert.deepEqual(
    [whatsapp.status, whatsapp.error.code, whatsapp.error.name],
    ['suppressed', 5002, 'CHANNEL_UNAVAILABLE'],
  )
  await eventually('the text', () => texts.received.length === 1)
  assert.match(texts.received[0]!.raw, /Body=Everywhere/)
  const again = await say('many', {
    userId: 'alice',
    message: 'Everywhere',
    channels: ['in_app'],
    id: 'once',
  })
  assert.equal(again.body.eventId, body.eventId)
  assert.equal((await conversation('many')).messages.length, 1)

  const unknown = await say('many', { userId: 'nobody', message: 'x' })
  assert.deepEqual(
    [unknown.body.results[0].status, unknown.body.results[0].error.reason, unknown.body.notificationId],
    ['suppressed', 'unknown_user', null],
  )
})

// covers: AUR-096, AUR-105
test('a channel that is switched off is closed to auras alone; the answer and the trace say so', async () => {
  const off = await say('rain', { userId: 'alice', message: 'x', channels: ['whatsapp', 'email'] })
  assert.deepEqual([off.status, off.body.code, off.body.number], [500, 'channel_unavailable', 5002])
  assert.match(off.body.detail, /ENABLE_WHATSAPP, ENABLE_EMAIL/)

  await call(
    'POST',
    '/api/rules',
    {
      name: 'Any word of a companion',
      eventTypes: ['companion.goal.reached', 'other.goal.reached'],
      channels: ['email', 'in_app'],
      recipientSelector: { users: ['mia'] },
    },
    t.tenant.adminKey,
  )
  await call(
    'PUT',
    '/api/users/mia',
    { addresses: [{ channel: 'email', address: 'mia@example.com', verified: true }] },
    t.tenant.adminKey,
  )
  const decided = async (type: string) => {
    const { eventId } = await call('POST', '/api/events/publish', { type, data: {} })
    const why = await call('GET', `/api/events/${eventId}/explain`, undefined, t.tenant.adminKey)
    return why.rules[0].recipients[0].decisions.map((one: Loose) => [
      one.channel,
      one.decision,
      one.reason,
      one.detail,
    ])
  }
  assert.deepEqual(await decided('companion.goal.reached'), [
    ['email', 'skip', 'channel_unavailable', 'ENABLE_EMAIL is off'],
    ['in_app', 'send', undefined, undefined],
  ])
  assert.deepEqual(
    (await decided('other.goal.reached')).map((one: Loose) => one[1]),
    ['send', 'send'],
  )
  const tried = await call(
    'POST',
    '/api/notifications/test',
    { userId: 'mia', auraId: 'rain', channel: 'email', message: 'x' },
    t.tenant.adminKey,
  )
  assert.equal(tried.status, 'SUPPRESSED')
})

// covers: AUR-115
test('what is encrypted from end to end is said to be the provider’s; we go to it over TLS', () => {
  const text = readFileSync(join(import.meta.dirname, 'README.md'), 'utf8')
  assert.match(
    text,
    /over TLS\. Whether a message is encrypted from end to end is a property of the provider/,
  )
  const bases = [whatsAppCloud, twilioWhatsApp].map(({ settings }) => {
    const { properties } = settings as { properties: { baseUrl: { default?: string } } }
    return properties.baseUrl.default
  })
  for (const base of bases) assert.match(base ?? '', /^https:\/\//)
})

// covers: AUR-102
test('a browser gets picture, buttons, badge and what it belongs with', { skip }, async () => {
  const browser = await pushes.subscribe(vapid.publicKey)
  const { endpoint, keys } = browser
  const subscription = { endpoint: endpoint.replace(pushes.url, secure!.url), keys }
  await call('POST', '/api/notifications/push/subscribe', { subscription }, alice)
  const { status, text } = await say('rich', {
    userId: 'alice',
    auraName: 'Rain dancer',
    ruleId: 'rule-7',
    message: 'It rains',
    channels: ['web_push'],
    image: 'https://example.com/rain.png',
    link: '/auras/rich',
    badge: 3,
    actions: [{ id: 'dance', label: 'Dance', url: 'https://example.com/dance' }],
  })
  assert.equal(status, 202, text)
  const [shown] = await eventually('the push', async () => {
    const read = await browser.read()
    return read.length > 0 && read.map((one): Loose => JSON.parse(one))
  })
  assert.deepEqual(
    [shown.title, shown.body, shown.image, shown.count, shown.link, shown.group],
    ['Rain dancer', 'It rains', 'https://example.com/rain.png', 3, '/auras/rich', 'aura:rich'],
  )
  assert.deepEqual(shown.actions, [{ action: 'dance', title: 'Dance', link: 'https://example.com/dance' }])
  assert.deepEqual([shown.data.auraId, shown.data.ruleId], ['rich', 'rule-7'])
})

// covers: AUR-131, AUR-133, AUR-135, AUR-136
test('clients hear the documented event, by WebSocket and as server-sent events alike, and resume', async () => {
  const heard: Loose[] = []
  const streamed: Loose[] = []
  const socket = new WebSocket(`${t.url.replace('http', 'ws')}/realtime?as=aura`, 'carillon.v1', {
    headers: { authorization: `Bearer ${alice}` },
  })
  socket.on('message', (text: Buffer) => heard.push(JSON.parse(text.toString('utf8'))))
  const source = new EventSource(`${t.url}/realtime?as=aura&access_token=${alice}`)
  source.onmessage = ({ data }) => streamed.push(JSON.parse(data as string))
  try {
    await eventually('both greetings', () => heard.length > 0 && streamed.length > 0)
    await call('POST', '/api/notifications', { recipientId: 'alice', body: 'Not of an aura' })
    const words = (all: Loose[]) => all.filter(one => one.auraId !== undefined)
    // Step by step: a message is told as it is by the time it is read.
    const told = (n: number) =>
      eventually(`number ${n}`, () => words(heard).length >= n && words(streamed).length >= n)
    await triggered({ ...RAIN, auraId: 'live', message: 'Now' })
    await told(1)
    const { conversationId, messages } = await conversation('live')
    const [message] = messages
    await call('POST', `/api/notifications/${message.id}/seen`, undefined, alice)
    await told(2)
    await call('PATCH', `/api/notifications/${message.id}/read`, undefined, alice)
    await told(3)
    await triggered({ ...RAIN, auraId: 'live', message: 'And again' })
    await told(4)
    await call('POST', '/api/notifications/threads/read', { thread: 'aura:live' }, alice)
    await told(5)
    assert.deepEqual(words(streamed), words(heard))
    assert.deepEqual(
      words(heard).map(one => [one.type, one.auraId, one.conversationId]),
      [
        'proactive_message',
        'notification_delivered',
        'notification_read',
        'proactive_message',
        'notification_read',
      ].map(type => [type, 'live', conversationId]),
    )
    const [first, , read, second, all] = words(heard)
    assert.deepEqual(first.notification, message)
    assert.ok(Date.parse(first.timestamp) > 0)
    assert.equal(read.notification.id, message.id)
    assert.equal(second.notification.message, 'And again')
    assert.equal(all.notification, undefined)
    assert.ok(heard.every(one => one.data?.body !== 'Not of an aura'))

    const later = new EventSource(`${t.url}/realtime?as=aura&after=${read.seq}&access_token=${alice}`)
    try {
      const resumed: Loose[] = []
      later.onmessage = ({ data }) => resumed.push(JSON.parse(data as string))
      await eventually('what it missed', () => words(resumed).length >= 2)
      // The message as it is by now.
      assert.deepEqual(
        words(resumed).map(one => [one.seq, one.type, one.notification?.status]),
        [
          [second.seq, 'proactive_message', 'read'],
          [all.seq, 'notification_read', undefined],
        ],
      )
    } finally {
      later.close()
    }
  } finally {
    socket.terminate()
    source.close()
  }
  const nobody = await t.call('GET', '/realtime?as=pigeon', { as: alice })
  assert.equal(nobody.status, 400)
})

test('quiet hours hold the message in the conversation too, and the preference of one aura is heeded', async () => {
  await person('quinn')
  const quinn = await t.tenant.token('quinn')
  await call(
    'PUT',
    '/api/notifications/preferences',
    {
      auraId: 'night',
      channel: 'in_app',
      settings: {
        enabled: true,
        quietHours: { enabled: true, start: '00:00', end: '23:59', timezone: 'UTC' },
      },
    },
    quinn,
  )
  await call(
    'PUT',
    '/api/notifications/preferences',
    { auraId: 'mute', channel: 'in_app', settings: { enabled: false } },
    quinn,
  )
  await call(
    'PUT',
    '/api/notifications/preferences',
    { auraId: 'high', channel: 'in_app', settings: { enabled: true, priorityThreshold: 7 } },
    quinn,
  )
  const said = async (auraId: string, priority = 5) =>
    (await say(auraId, { userId: 'quinn', message: 'x', priority })).body.results[0]
  const night = await said('night')
  // One minute of the day is not quiet.
  if (night.status === 'queued') {
    assert.deepEqual([night.error.code, night.error.reason], [4033, 'quiet_hours'])
    assert.ok(Date.parse(night.until) > Date.now())
  }
  const mute = await said('mute')
  assert.deepEqual([mute.status, mute.error.reason], ['suppressed', 'preference_scope_off'])
  assert.equal((await said('high', 6)).error.reason, 'below_minimum_priority')
  assert.equal((await said('high', 7)).status, 'delivered')
})
