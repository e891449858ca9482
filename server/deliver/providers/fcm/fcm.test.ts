import assert from 'node:assert/strict'
import { generateKeyPairSync, verify } from 'node:crypto'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { test } from 'node:test'
import fc from 'fast-check'
import { OPERATOR_TENANT_ID } from '../../../types.ts'
import type { Content, Json, JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { type OpenedProvider, openProvider } from '../../open-provider.ts'
import { DeliveryError, type Sent } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { NOW } from '../one-delivery.ts'
import { fcm } from './fcm.ts'

const keys = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PEM = keys.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
const EMAIL = 'firebase-adminsdk@demo-project.iam.gserviceaccount.com'
const TOKEN = 'fGx0Yk3vQ1e:APA91bHun4MxP5egoKMwt2KZFBaFUH-1RYqx_ZGHgQ0'

const fcmError = (
  status: number,
  code: string | undefined,
  more: JsonObject = {},
  headers = {},
): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify({
    error: {
      code: status,
      message: 'In words',
      status: 'STATUS',
      details:
        code === undefined
          ? []
          : [{ '@type': 'type.googleapis.com/google.firebase.fcm.v1.FcmError', errorCode: code }],
      ...more,
    },
  }),
})
const violation = (field: string) =>
  fcmError(400, undefined, {
    status: 'INVALID_ARGUMENT',
    details: [{ '@type': 'type.googleapis.com/google.rpc.BadRequest', fieldViolations: [{ field }] }],
  })

/* ---------------------------------------------------------------- the vendor */

interface Google extends Vendor {
  account: JsonObject
  /** The claims of every exchange. */
  exchanges: JsonObject[]
  /** What the token endpoint gives; 401 answers anything but the last one. */
  revoke(): void
  tokenEndpoint(reply: HttpReply | undefined): void
}

/** FCM and its token endpoint, each refusing what Google refuses. */
async function google(replies: Parameters<typeof httpVendor>[0] = {}): Promise<Google> {
  let issued = 0
  let valid: string | undefined
  const exchanges: JsonObject[] = []
  let tokenReply: HttpReply | undefined

  const tokens = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const { status, body = '' } =
        tokenReply ?? exchange(Buffer.concat(chunks).toString(), request.method, request.url)
      response.writeHead(status, { 'content-type': 'application/json' }).end(body)
    })
  })
  await new Promise<void>(resolve => tokens.listen(0, '127.0.0.1', resolve))
  const tokenUri = `http://127.0.0.1:${(tokens.address() as AddressInfo).port}/token`

  const exchange = (body: string, method?: string, url?: string): HttpReply => {
    const form = new URLSearchParams(body)
    const refused = { status: 400, body: '{"error":"invalid_grant"}' }
    if (method !== 'POST' || url !== '/token') return { status: 404 }
    if (form.get('grant_type') !== 'urn:ietf:params:oauth:grant-type:jwt-bearer') return refused
    const [head = '', claims = '', signature = ''] = (form.get('assertion') ?? '').split('.')
    const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString()) as JsonObject
    const { alg, typ, kid } = read(head)
    if (alg !== 'RS256' || typ !== 'JWT' || kid !== 'key-1') return refused
    const signed = Buffer.from(signature, 'base64url')
    if (!verify('sha256', Buffer.from(`${head}.${claims}`), keys.publicKey, signed)) return refused
    const { iss, aud, scope, iat, exp } = read(claims)
    if (iss !== EMAIL || aud !== tokenUri) return refused
    if (scope !== 'https://www.googleapis.com/auth/firebase.messaging') return refused
    if ((exp as number) - (iat as number) > 3600 || (exp as number) <= (iat as number)) return refused
    exchanges.push(read(claims))
    valid = `ya29.access-token-${++issued}`
    return {
      status: 200,
      body: JSON.stringify({ access_token: valid, expires_in: 3599, token_type: 'Bearer' }),
    }
  }

  const reads = (asked: Asked): HttpReply | undefined => {
    if (asked.headers.authorization !== `Bearer ${valid}`) return fcmError(401, undefined)
    if (asked.path.includes('/topicSubscriptions')) return membership(asked)
    if (asked.path !== '/v1/projects/demo-project/messages:send') return fcmError(404, undefined)
    if (asked.method !== 'POST') return { status: 405 }
    if (!asked.headers['content-type']?.startsWith('application/json')) return { status: 415 }
    return strict(JSON.parse(asked.body) as JsonObject)
  }
  const inner = await httpVendor(
    {
      accept: {
        status: 200,
        body: '{"name":"projects/demo-project/messages/0:1500415314455276%31bd1c9631bd1c96"}',
      },
      refuse: fcmError(404, 'UNREGISTERED'),
      ...replies,
    },
    reads,
  )
  return {
    host: inner.host,
    port: inner.port,
    behave: inner.behave,
    arrival: inner.arrival,
    exchanges,
    // A dry run reaches nobody.
    get received() {
      return inner.received.filter(each => !each.raw.includes('"validate_only":true'))
    },
    account: {
      type: 'service_account',
      project_id: 'demo-project',
      private_key_id: 'key-1',
      private_key: PEM,
      client_email: EMAIL,
      token_uri: tokenUri,
    },
    revoke: () => {
      valid = undefined
    },
    tokenEndpoint: reply => {
      tokenReply = reply
    },
    async close() {
      const closed = new Promise(resolve => tokens.close(resolve))
      tokens.closeAllConnections()
      await closed
      await inner.close()
    },
  }
}

/** https://firebase.google.com/docs/reference/fcm/fcmtopics/rest/v1/projects.registrations.topicSubscriptions */
function membership({ method, path, headers, body }: Asked): HttpReply {
  const found =
    /^\/v1\/projects\/demo-project\/registrations\/([^/?]+)\/topicSubscriptions(?:\/([^/?]+))?\?(.*)$/.exec(
      path,
    )
  if (found === null) return fcmError(404, undefined)
  const [, registration = '', segment, query] = found
  const parameters = new URLSearchParams(query)
  const creates = method === 'POST' && segment === undefined
  if (!creates && !(method === 'DELETE' && segment !== undefined)) return { status: 405 }
  const topic = creates ? (parameters.get('topicName') ?? '') : decodeURIComponent(segment!)
  const known = creates ? ['topicName'] : ['allowMissing']
  if ([...parameters.keys()].some(name => !known.includes(name))) return violation('query')
  if (!creates && parameters.get('allowMissing') !== 'true') return fcmError(404, undefined)
  if (!/^[a-zA-Z0-9\-_.~%]{1,900}$/.test(topic)) return violation('topic_name')
  if (!/^[\w:-]{20,}$/.test(decodeURIComponent(registration))) {
    return fcmError(400, 'INVALID_ARGUMENT', { message: 'The registration token is not valid' })
  }
  if (!creates) return body === '' ? { status: 200, body: '{}' } : violation('body')
  if (!headers['content-type']?.startsWith('application/json') || body !== '{}') return violation('body')
  const name = `projects/demo-project/registrations/${registration}/topicSubscriptions/${topic}`
  return { status: 200, body: JSON.stringify({ name, topic_name: topic }) }
}

const FIELDS: Record<string, string[]> = {
  message: ['token', 'topic', 'data', 'notification', 'android', 'apns', 'webpush', 'fcm_options'],
  notification: ['title', 'body', 'image'],
  android: ['collapse_key', 'priority', 'ttl', 'restricted_package_name', 'data', 'notification'],
  'android.notification': [
    'tag',
    'sound',
    'channel_id',
    'notification_count',
    'color',
    'click_action',
    'icon',
  ],
  apns: ['headers', 'payload', 'fcm_options'],
  webpush: ['headers', 'data', 'notification', 'fcm_options'],
}

/** https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages: unknown members are refused. */
function strict({ message, validate_only: dry, ...rest }: JsonObject): HttpReply | undefined {
  if (Object.keys(rest).length > 0 || (dry !== undefined && dry !== true)) return violation('request')
  const { token, topic, ...payload } = message as JsonObject
  const parts: [string, Json | undefined][] = [
    ['message', message],
    ['notification', payload.notification],
    ['android', payload.android],
    ['android.notification', (payload.android as JsonObject | undefined)?.notification],
    ['apns', payload.apns],
    ['webpush', payload.webpush],
  ]
  for (const [name, part] of parts) {
    const odd = Object.keys((part ?? {}) as JsonObject).find(each => !FIELDS[name]!.includes(each))
    if (odd !== undefined) return violation(`${name}.${odd}`)
  }
  if ((token === undefined) === (topic === undefined)) return violation('message.token')
  if (token !== undefined && !/^[\w:-]{20,}$/.test(token as string)) {
    return fcmError(400, 'INVALID_ARGUMENT', {
      status: 'INVALID_ARGUMENT',
      message: 'The registration token is not a valid FCM registration token',
    })
  }
  for (const [name, value] of Object.entries((payload.data ?? {}) as JsonObject)) {
    if (typeof value !== 'string' || /^(?:from$|gcm|google)/.test(name))
      return violation(`message.data[${name}]`)
  }
  const { priority, ttl } = (payload.android ?? {}) as JsonObject
  if (priority !== undefined && !['HIGH', 'NORMAL'].includes(priority as string)) return violation('priority')
  if (
    ttl !== undefined &&
    !(/^\d+s$/.test(ttl as string) && Number.parseInt(ttl as string, 10) <= 2_419_200)
  ) {
    return violation('message.android.ttl')
  }
  const { headers = {}, fcm_options: options } = (payload.webpush ?? {}) as JsonObject
  for (const value of [...Object.values(headers as JsonObject), ...headersOf(payload.apns)]) {
    if (typeof value !== 'string') return violation('headers')
  }
  const link = (options as JsonObject | undefined)?.link
  if (link !== undefined && !(link as string).startsWith('https:'))
    return violation('message.webpush.fcm_options.link')
  if (Buffer.byteLength(JSON.stringify([payload.notification, payload.data])) > 4_096) {
    return fcmError(400, 'INVALID_ARGUMENT', {
      message: 'Android message is too big',
      status: 'INVALID_ARGUMENT',
    })
  }
  return undefined
}
const headersOf = (apns: Json | undefined) =>
  Object.values(((apns as JsonObject | undefined)?.headers ?? {}) as JsonObject)

const settingsFor = (vendor: Vendor): JsonObject => ({
  serviceAccount: JSON.stringify((vendor as Google).account),
  baseUrl: `http://${vendor.host}:${vendor.port}`,
  timeoutSeconds: 0.5,
})
const push = (more: Partial<Message> = {}) => exampleMessage({ channel: 'push', to: TOKEN, ...more })

// covers: DIC-111, DIC-129, ALP-103
testProvider(fcm, { vendor: () => google(), settings: settingsFor, message: () => push() })

/* ---------------------------------------------------------------- what only FCM does */

type Script = (world: {
  vendor: Google
  send(message?: Message): Promise<Sent>
  clock: { at: number }
  opened: OpenedProvider
}) => Promise<void>

async function scene(script: Script, replies?: Parameters<typeof httpVendor>[0], own: JsonObject = {}) {
  const vendor = await google(replies)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const clock = { at: NOW.getTime() }
  const settings = { ...settingsFor(vendor), timeoutSeconds: 20, ...own }
  const opened = await openProvider(fcm, settings, { http, now: () => new Date(clock.at) })
  try {
    await script({
      vendor,
      clock,
      opened,
      send: (message = push()) => opened.send(message, new AbortController().signal),
    })
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}
const bodiesOf = (vendor: Vendor) =>
  vendor.received.map(({ raw }) => JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)).message as JsonObject)

async function written(content: Partial<Content>, more: Partial<Message> = {}, own: JsonObject = {}) {
  let found: JsonObject = {}
  await scene(
    async ({ vendor, send }) => {
      await send(push({ content: { body: 'It arrives on Monday.', ...content }, ...more }))
      found = bodiesOf(vendor)[0]!
    },
    {},
    own,
  )
  return found
}

// covers: DIC-112
test('badge, sound, data, priority, time to live, picture and link each have their member', async () => {
  const message = await written(
    {
      subject: 'Order 17\nis on its way',
      image: 'https://example.org/parcel.png',
      data: {
        link: 'shop://orders/17',
        badge: 3,
        sound: 'chime',
        ttl: 600,
        collapseKey: 'order-17',
        group: 'orders',
        custom: { orderId: 17, google: 'no', from: 'no', note: 'text', nested: { a: [1] } },
      },
    },
    { priority: 'HIGH' },
    { androidChannel: 'orders' },
  )
  assert.deepEqual(message, {
    token: TOKEN,
    notification: {
      title: 'Order 17 is on its way',
      body: 'It arrives on Monday.',
      image: 'https://example.org/parcel.png',
    },
    data: {
      orderId: '17',
      note: 'text',
      nested: '{"a":[1]}',
      notificationId: push().notificationId,
      eventType: 'commerce.order.shipped',
      link: 'shop://orders/17',
    },
    android: {
      priority: 'HIGH',
      ttl: '600s',
      collapse_key: 'order-17',
      notification: { tag: 'order-17', sound: 'chime', channel_id: 'orders', notification_count: 3 },
    },
    apns: {
      headers: {
        'apns-priority': '10',
        'apns-push-type': 'alert',
        'apns-collapse-id': 'order-17',
        'apns-expiration': String(NOW.getTime() / 1000 + 600),
      },
      payload: { aps: { sound: 'chime', badge: 3, 'thread-id': 'orders', 'mutable-content': 1 } },
      fcm_options: { image: 'https://example.org/parcel.png' },
    },
    webpush: { headers: { TTL: '600', Urgency: 'high' }, notification: { tag: 'order-17' } },
  })
})

test('what an application says in FCM’s own words is laid over ours', async () => {
  const message = await written({
    actions: [{ id: 'open', label: 'Open', url: 'https://example.org/o/17' }],
    data: {
      sound: 'none',
      android: { notification: { color: '#ff0000' }, restricted_package_name: 'org.example.shop' },
      apns: { payload: { aps: { category: 'ORDER' } } },
      webpush: { notification: { tag: 'own', requireInteraction: true } },
    },
  })
  const { android, apns, webpush, data } = message as Record<string, JsonObject>
  const key = push().idempotencyKey
  assert.deepEqual(android!.notification, { tag: key, color: '#ff0000' })
  // Only named ones: a device keeps four collapse keys.
  assert.equal(android!.collapse_key, undefined)
  assert.equal(android!.restricted_package_name, 'org.example.shop')
  assert.deepEqual(apns!.payload, { aps: { category: 'ORDER' } })
  assert.deepEqual(webpush!.notification, { tag: 'own', requireInteraction: true })
  assert.deepEqual(webpush!.fcm_options, { link: 'https://example.org/o/17' })
  assert.equal(data!.link, 'https://example.org/o/17')
})

test('a silent one shows nothing; a link that would run something is left out', async () => {
  const message = await written({ data: { silent: true, ttl: 0, link: 'javascript:alert(1)' } })
  const { notification, android, apns, data } = message as Record<string, JsonObject>
  assert.equal(notification, undefined)
  assert.deepEqual(android, { priority: 'NORMAL', ttl: '0s' })
  assert.deepEqual(apns, {
    headers: {
      'apns-priority': '5',
      'apns-push-type': 'background',
      'apns-collapse-id': push().idempotencyKey,
      'apns-expiration': '0',
    },
    payload: { aps: { 'content-available': 1 } },
  })
  assert.equal(data!.link, undefined)
})

test('whatever the content, FCM takes it', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.constantFrom('漢字'.repeat(3_000), '\0'.repeat(4_096), '\ud800'.repeat(2_000), '👩‍👩‍👧‍👦'.repeat(500)),
  )
  const content = fc.record(
    {
      subject: text,
      body: text,
      image: fc.webUrl(),
      data: fc.record({
        link: fc.oneof(text, fc.webUrl()),
        collapseKey: text,
        group: text,
        sound: text,
        badge: fc.integer(),
        ttl: fc.integer(),
        custom: fc.dictionary(fc.string({ maxLength: 20 }), fc.jsonValue({ maxDepth: 1 }), { maxKeys: 4 }),
      }),
    },
    { requiredKeys: ['body'] },
  )
  await scene(async ({ send }) => {
    await fc.assert(
      fc.asyncProperty(content, async given => {
        const outcome = await send(push({ content: given as Content })).catch((error: DeliveryError) => error)
        assert.ok(
          !(outcome instanceof DeliveryError) || outcome.code === 'too_large',
          `${(outcome as DeliveryError).message}`,
        )
      }),
      { numRuns: 60 },
    )
  })
})

test('a long text is cut to what the payload has room for, by characters', async () => {
  const message = await written({ subject: 'Title', body: '漢'.repeat(4_000) })
  const { body } = message.notification as { body: string }
  assert.match(body, /^漢+…$/)
  const payload = { ...message, token: undefined }
  const size = Buffer.byteLength(JSON.stringify(payload))
  assert.ok(size <= 4_096 && size > 4_096 - 4, `${size}`)
  const custom = { large: 'x'.repeat(4_200) }
  await scene(async ({ send, vendor }) => {
    const error = await send(push({ content: { body: 'x', data: { custom } } })).catch(
      (e: DeliveryError) => e,
    )
    assert.deepEqual(
      [(error as DeliveryError).kind, (error as DeliveryError).code],
      ['permanent', 'too_large'],
    )
    assert.equal(vendor.received.length, 0)
  })
})

test('each of FCM’s errors has its meaning', async () => {
  const at = (seconds: number) => new Date(NOW.getTime() + seconds * 1000)
  const cases: [HttpReply, string, string, Date?][] = [
    [fcmError(404, 'UNREGISTERED'), 'bounced', 'gone'],
    [fcmError(403, 'SENDER_ID_MISMATCH'), 'rejected', 'forbidden'],
    [
      fcmError(400, 'INVALID_ARGUMENT', { message: 'registration token is not valid' }),
      'bounced',
      'invalid_address',
    ],
    [violation('message.token'), 'bounced', 'invalid_address'],
    [violation('message.data'), 'permanent', 'content_refused'],
    [fcmError(400, 'INVALID_ARGUMENT', { message: 'Android message is too big' }), 'permanent', 'too_large'],
    [fcmError(429, 'QUOTA_EXCEEDED'), 'rate_limited', 'rate_limited', at(60)],
    [fcmError(429, 'QUOTA_EXCEEDED', {}, { 'retry-after': '9' }), 'rate_limited', 'rate_limited', at(9)],
    [fcmError(429, undefined, { status: 'RESOURCE_EXHAUSTED' }), 'rate_limited', 'rate_limited', at(60)],
    [fcmError(503, 'UNAVAILABLE'), 'temporary', 'unavailable'],
    [fcmError(503, 'UNAVAILABLE', {}, { 'retry-after': '30' }), 'rate_limited', 'rate_limited', at(30)],
    [fcmError(500, 'INTERNAL'), 'temporary', 'server_error'],
    [fcmError(401, 'THIRD_PARTY_AUTH_ERROR'), 'temporary', 'invalid_settings'],
    [fcmError(403, undefined, { status: 'PERMISSION_DENIED' }), 'temporary', 'auth'],
    [fcmError(404, undefined, { status: 'NOT_FOUND' }), 'temporary', 'invalid_settings'],
    [{ status: 502, body: '<html>' }, 'temporary', 'server_error'],
  ]
  for (const [reply, kind, code, until] of cases) {
    await scene(
      async ({ vendor, send }) => {
        vendor.behave('refuse')
        const error = (await send().catch((thrown: unknown) => thrown)) as DeliveryError
        assert.deepEqual([error.kind, error.code, error.until], [kind, code, until], reply.body)
        assert.equal(error.alone, reply.body?.includes('QUOTA_EXCEEDED') === true, reply.body)
        // 401 for want of a key to APNs says nothing against our token.
        assert.deepEqual([vendor.received.length, vendor.exchanges.length], [1, 1])
      },
      { refuse: reply },
    )
  }
})

const never = new AbortController().signal
const requestsOf = (vendor: Vendor) =>
  vendor.received.map(({ raw }) => raw.slice(0, raw.indexOf(' HTTP/')).split('\r\n')[0])

// covers: ALP-108
test('a message to a topic names the topic, with less room than one to a device', async () => {
  const { topic, token } = await written({}, { to: '/topics/weather-9', tenantId: OPERATOR_TENANT_ID })
  assert.deepEqual([topic, token], ['weather-9', undefined])
  // All tenants share the project.
  assert.equal((await written({}, { to: '/topics/weather-9', tenantId: 7 })).topic, 't7.weather-9')
  const long = await written({ body: '漢'.repeat(4_000) }, { to: '/topics/weather-9' })
  assert.ok(Buffer.byteLength(JSON.stringify({ ...long, topic: undefined })) <= 2_048)
  for (const to of ['/topics/', '/topics/so many', '/topics/a/b', `/topics/${'x'.repeat(901)}`]) {
    await scene(async ({ vendor, send }) => {
      const error = (await send(push({ to })).catch((thrown: unknown) => thrown)) as DeliveryError
      assert.deepEqual([error.kind, error.code], ['permanent', 'invalid_address'], to)
      assert.equal(vendor.received.length, 0)
    })
  }
})

// covers: ALP-108
test('a device token is asked about by a dry run', async () => {
  await scene(async ({ vendor, opened }) => {
    const asked = vendor.arrival()
    await opened.validateDeviceToken!(TOKEN, never)
    const { raw } = await asked
    assert.deepEqual(JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)), {
      validate_only: true,
      message: { token: TOKEN, data: { check: 'yes' } },
    })
    assert.equal(vendor.received.length, 0, 'it reaches nobody')
    for (const wrong of ['no token', 'short', '..']) {
      const error = await opened.validateDeviceToken!(wrong, never).catch((thrown: unknown) => thrown)
      assert.deepEqual(
        [(error as DeliveryError).kind, (error as DeliveryError).code],
        ['bounced', 'invalid_address'],
      )
    }
  })
})

// covers: ALP-108
test('devices are put into topics and taken out, whatever characters either has; again is no failure', async () => {
  await scene(
    async ({ vendor, opened }) => {
      await opened.updateTopicSubscription!(TOKEN, 'weather-9', true, never)
      await opened.updateTopicSubscription!(TOKEN, 'a%20~b', false, never)
      const registration = encodeURIComponent(TOKEN)
      const base = `/v1/projects/demo-project/registrations/${registration}/topicSubscriptions`
      assert.deepEqual(requestsOf(vendor), [
        `POST ${base}?topicName=weather-9`,
        `DELETE ${base}/a%2520~b?allowMissing=true`,
      ])
      for (const wrong of ['', 'so many', 'a/b', '../../x', 'x'.repeat(901)]) {
        const error = await opened.updateTopicSubscription!(TOKEN, wrong, true, never).catch(
          (e: unknown) => e,
        )
        assert.equal((error as DeliveryError).kind, 'permanent', wrong)
      }
      assert.equal(vendor.received.length, 2)
      vendor.behave('refuse')
      await opened.updateTopicSubscription!(TOKEN, 'weather-9', true, never)
    },
    { refuse: fcmError(409, undefined, { status: 'ALREADY_EXISTS' }) },
  )
})

// covers: ALP-108
test('what is asked about devices fails in the words of a message', async () => {
  const at = (seconds: number) => new Date(NOW.getTime() + seconds * 1000)
  const operations: ((opened: OpenedProvider) => Promise<void>)[] = [
    opened => opened.validateDeviceToken!(TOKEN, never),
    opened => opened.updateTopicSubscription!(TOKEN, 'weather', true, never),
    opened => opened.updateTopicSubscription!(TOKEN, 'weather', false, never),
  ]
  const refusals: [HttpReply, string, string, Date?][] = [
    [fcmError(404, 'UNREGISTERED'), 'bounced', 'gone'],
    [
      fcmError(400, 'INVALID_ARGUMENT', { message: 'registration token is not valid' }),
      'bounced',
      'invalid_address',
    ],
    [fcmError(403, 'SENDER_ID_MISMATCH'), 'rejected', 'forbidden'],
    [fcmError(429, undefined, { status: 'RESOURCE_EXHAUSTED' }), 'rate_limited', 'rate_limited', at(60)],
    [fcmError(429, 'QUOTA_EXCEEDED', {}, { 'retry-after': '9' }), 'rate_limited', 'rate_limited', at(9)],
    [fcmError(503, 'UNAVAILABLE'), 'temporary', 'unavailable'],
    [fcmError(403, undefined, { status: 'PERMISSION_DENIED' }), 'temporary', 'auth'],
  ]
  for (const operation of operations) {
    for (const [reply, kind, code, until] of refusals) {
      await scene(
        async ({ vendor, opened }) => {
          vendor.behave('refuse')
          const error = (await operation(opened).catch((thrown: unknown) => thrown)) as DeliveryError
          assert.deepEqual([error.kind, error.code, error.until], [kind, code, until], reply.body)
        },
        { refuse: reply },
      )
    }
    for (const [behaviour, kind] of [
      ['fail', 'temporary'],
      ['redirect', 'permanent'],
      ['reset', 'unknown'],
      ['garbage', 'unknown'],
      ['hang', 'unknown'],
    ] as const) {
      await scene(
        async ({ vendor, opened }) => {
          vendor.behave(behaviour)
          const error = await operation(opened).catch((thrown: unknown) => thrown)
          assert.ok(error instanceof DeliveryError, behaviour)
          assert.equal(error.kind, kind, behaviour)
        },
        {},
        { timeoutSeconds: behaviour === 'hang' ? 0.2 : 20 },
      )
    }
    // An access token that ran out is fetched anew, once.
    await scene(async ({ vendor, opened }) => {
      await operation(opened)
      vendor.revoke()
      await operation(opened)
      assert.equal(vendor.exchanges.length, 2)
    })
  }
})

test('one token serves until shortly before its end, however many ask at once', async () => {
  await scene(async ({ vendor, send, clock }) => {
    await Promise.all([1, 2, 3, 4, 5].map(() => send()))
    clock.at += 3_500_000
    await send()
    assert.equal(vendor.exchanges.length, 1)
    clock.at += 60_000
    await Promise.all([send(), send()])
    assert.equal(vendor.exchanges.length, 2)
    assert.equal(vendor.received.length, 8)
  })
})

test('a token that is refused is fetched anew, once', async () => {
  await scene(
    async ({ vendor, send }) => {
      await send()
      vendor.revoke()
      assert.equal((await send()).outcome, 'sent')
      assert.equal(vendor.exchanges.length, 2)
      const before = vendor.received.length
      vendor.behave('refuse')
      const error = (await send().catch((thrown: unknown) => thrown)) as DeliveryError
      assert.deepEqual([error.kind, error.code], ['temporary', 'auth'])
      assert.deepEqual([vendor.received.length - before, vendor.exchanges.length], [2, 3])
    },
    { refuse: fcmError(401, undefined) },
  )
})

test('where no token is to be had, nothing was sent', async () => {
  const cases: [HttpReply, string][] = [
    [{ status: 400, body: '{"error":"invalid_grant"}' }, 'auth'],
    [{ status: 401, body: '{"error":"invalid_client"}' }, 'auth'],
    [{ status: 500 }, 'server_error'],
    [{ status: 200, body: '<html>' }, 'garbled_answer'],
    [{ status: 200, body: '{"access_token":"a\\r\\nb"}' }, 'garbled_answer'],
  ]
  for (const [reply, code] of cases) {
    await scene(async ({ vendor, send }) => {
      vendor.tokenEndpoint(reply)
      const error = (await send().catch((thrown: unknown) => thrown)) as DeliveryError
      assert.deepEqual([error.kind, error.code], ['temporary', code])
      assert.equal(vendor.received.length, 0)
      vendor.tokenEndpoint(undefined)
      assert.equal((await send()).outcome, 'sent')
    })
  }
})

test('a service account that cannot work stops the start, without a word of it', async () => {
  const vendor = await google()
  const http = openHttp()
  const { account } = vendor
  const wrong = [
    '{"private_key": "hidden',
    '[]',
    { ...account, private_key: '-----BEGIN hidden' },
    { ...account, client_email: undefined },
    { ...account, project_id: '../hidden' },
    { ...account, token_uri: 'http://hidden.example/token' },
    {
      ...account,
      private_key: generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
    },
  ]
  for (const each of wrong) {
    const serviceAccount = typeof each === 'string' ? each : JSON.stringify(each)
    await assert.rejects(
      openProvider(fcm, { serviceAccount }, { http, now: () => NOW }),
      (error: DeliveryError) => {
        assert.equal(error.code, 'invalid_settings')
        assert.doesNotMatch(`${error.stack} ${String(error.cause)}`, /hidden/)
        return true
      },
    )
  }
  await http.close()
  await vendor.close()
})

test('it takes devices of its own kind, named or recognised', () => {
  const accepts = (more: Partial<Message>) => fcm.accepts!(push(more), {} as never)
  assert.equal(accepts({}), true)
  assert.equal(accepts({ to: 'ab'.repeat(32) }), false)
  assert.equal(accepts({ to: 'ab'.repeat(32), addressSettings: { kind: 'fcm' } }), true)
  assert.equal(accepts({ addressSettings: { kind: 'apns' } }), false)
})
