import assert from 'node:assert/strict'
import { createECDH, createPublicKey, type ECDH, randomBytes, verify } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { test } from 'node:test'
import fc from 'fast-check'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import type { DeliveryError, Sent } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { NOW } from '../one-delivery.ts'
import { encryptPush, generateVapidKeys } from '../push-encryption.ts'
import { webPush } from './web-push.ts'

/** Somebody else's implementation of RFC 8188 and 8291 reads what ours wrote. */
const ece = createRequire(import.meta.url)('http_ece') as {
  decrypt(
    body: Buffer,
    params: { version: 'aes128gcm'; privateKey: ECDH; authSecret: string; dh?: string },
  ): Buffer
}

const browser = createECDH('prime256v1')
browser.generateKeys()
const AUTH = randomBytes(16).toString('base64url')
const KEYS = { p256dh: browser.getPublicKey('base64url'), auth: AUTH }
const VAPID = generateVapidKeys()
const open = (body: Buffer): string =>
  ece.decrypt(body, { version: 'aes128gcm', privateKey: browser, authSecret: AUTH }).toString('utf8')

/* ---------------------------------------------------------------- the vendor */

/** Refuses what a push service refuses: RFC 8030 §5, RFC 8291 §4, RFC 8292 §2 to §4.2. */
function reads({ method, path, headers }: Asked): HttpReply | undefined {
  if (!/^\/push\/[\w-]+$/.test(path)) return { status: 404 }
  if (method !== 'POST') return { status: 405 }
  if (headers['content-encoding'] !== 'aes128gcm') return { status: 415 }
  if (!/^\d+$/.test(headers.ttl ?? '')) return { status: 400 }
  if (!['very-low', 'low', 'normal', 'high'].includes(headers.urgency ?? 'normal')) return { status: 400 }
  if (!/^[A-Za-z0-9_-]{1,32}$/.test(headers.topic ?? 'x')) return { status: 400 }
  if (Number(headers['content-length']) > 4_096) return { status: 413 }
  const [, token, key] = /^vapid t=([\w.-]+), k=([\w-]{87})$/.exec(headers.authorization ?? '') ?? []
  if (token === undefined || key === undefined) return { status: 401 }
  if (key !== VAPID.publicKey) return { status: 403 }
  const [head = '', claims = '', signature = ''] = token.split('.')
  const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString()) as JsonObject
  const point = Buffer.from(key, 'base64url')
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map(half => half.toString('base64url'))
  const publicKey = createPublicKey({ key: { kty: 'EC', crv: 'P-256', x, y }, format: 'jwk' })
  const good = verify(
    'sha256',
    Buffer.from(`${head}.${claims}`),
    { key: publicKey, dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  )
  const { aud, exp, sub } = read(claims)
  const left = (exp as number) - NOW.getTime() / 1000
  if (!good || read(head).alg !== 'ES256' || aud !== `http://${headers.host}`) return { status: 403 }
  if (left <= 0 || left > 86_400 || !/^(mailto:|https:)/.test(sub as string)) return { status: 403 }
  return undefined
}

const pushService = (replies: Parameters<typeof httpVendor>[0] = {}) =>
  httpVendor(
    {
      accept: { status: 201, headers: { location: 'https://push.example.net/m/0:1700%7Ef9' } },
      refuse: { status: 410 },
      ...replies,
    },
    reads,
    undefined,
    open,
  )
const settings: JsonObject = { ...VAPID, subject: 'mailto:ops@example.org', timeoutSeconds: 0.5 }
const push = (vendor: Vendor, more: Partial<Message> = {}) =>
  exampleMessage({
    channel: 'web_push',
    to: `http://${vendor.host}:${vendor.port}/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV`,
    addressSettings: KEYS,
    ...more,
  })

// covers: DIC-111, DIC-129, AUR-180
testProvider(webPush, {
  vendor: () => pushService(),
  settings: () => settings,
  message: vendor => push(vendor),
})

/* ---------------------------------------------------------------- encryption */

const VECTOR = new URL('../../../../../shared/contracts/rfc8291-webpush-vector.json', import.meta.url)
test('the example of RFC 8291 comes out byte for byte', {
  skip: existsSync(VECTOR) ? false : 'the vector is not here',
}, () => {
  const { vector } = JSON.parse(readFileSync(VECTOR, 'utf8')) as { vector: Record<string, string> }
  const bytes = (name: string) => Buffer.from(vector[name]!, 'base64url')
  const body = encryptPush(
    bytes('plaintext_b64url'),
    { p256dh: vector.ua_public, auth: vector.auth_secret },
    { privateKey: bytes('as_private'), salt: bytes('salt') },
  )
  assert.equal(body?.toString('base64url'), vector.body)
})

test('whatever is encrypted, another implementation reads it', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 3_993 }), bytes => {
      const body = encryptPush(Buffer.from(bytes), KEYS)!
      assert.ok(body.length <= 4_096)
      const read = ece.decrypt(body, { version: 'aes128gcm', privateKey: browser, authSecret: AUTH })
      assert.deepEqual(read, Buffer.from(bytes))
    }),
    { numRuns: 50 },
  )
  // Under keys of its own each time: the same text never looks the same.
  const text = Buffer.from('again')
  assert.notDeepEqual(encryptPush(text, KEYS), encryptPush(text, KEYS))
})

test('keys that are none encrypt nothing', () => {
  const offCurve = Buffer.alloc(65, 1)
  offCurve[0] = 4
  for (const keys of [
    { p256dh: undefined, auth: AUTH },
    { p256dh: KEYS.p256dh, auth: 'short' },
    { p256dh: KEYS.p256dh.slice(0, 40), auth: AUTH },
    { p256dh: offCurve.toString('base64url'), auth: AUTH },
    { p256dh: 7, auth: AUTH },
  ]) {
    assert.equal(encryptPush(Buffer.from('x'), keys), undefined)
  }
})

test('a pair of VAPID keys has the form that browsers and services take', () => {
  for (let n = 0; n < 300; n++) {
    const { publicKey, privateKey } = generateVapidKeys()
    assert.match(publicKey, /^[\w-]{87}$/)
    assert.equal(Buffer.from(privateKey, 'base64url').length, 32)
    assert.equal(Buffer.from(publicKey, 'base64url')[0], 4)
  }
})

/* ---------------------------------------------------------------- what only web push does */

interface Scene {
  vendor: Vendor
  send(more?: Partial<Message>): Promise<Sent>
  clock: { at: number }
}

async function scene(script: (world: Scene) => Promise<void>, replies?: Parameters<typeof httpVendor>[0]) {
  const vendor = await pushService(replies)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const clock = { at: NOW.getTime() }
  const own = { ...settings, timeoutSeconds: 20, icon: '/icon.png', badgeIcon: '/badge.png' }
  const opened = await openProvider(webPush, own, { http, now: () => new Date(clock.at) })
  try {
    await script({
      vendor,
      clock,
      send: more => opened.send(push(vendor, more), new AbortController().signal),
    })
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

const payloadOf = ({ received }: Vendor) => {
  const { raw } = received.at(-1)!
  return JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject
}

// covers: DIC-112
test('what the service worker shows, and how urgent and lasting it is', async () => {
  await scene(async ({ vendor, send }) => {
    const sent = await send({
      priority: 'CRITICAL',
      content: {
        subject: 'Order 17\nis on its way',
        body: 'It arrives on Monday.',
        image: 'https://example.org/parcel.png',
        language: 'en-GB',
        actions: [
          { id: 'track', label: 'Track', url: 'https://example.org/o/17' },
          { id: 'later', label: 'Later' },
          { id: 'third', label: 'Not shown' },
        ],
        data: {
          link: '/orders/17',
          badge: 2,
          ttl: 600,
          collapseKey: 'order-17',
          group: 'orders',
          custom: { orderId: 17 },
          webpush: { notification: { vibrate: [100, 50, 100] } },
        },
      },
    })
    assert.deepEqual(sent, { outcome: 'sent', code: '201', providerMessageId: '0:1700%7Ef9' })
    const { notificationId, idempotencyKey, createdAt } = push(vendor)
    assert.deepEqual(payloadOf(vendor), {
      key: idempotencyKey,
      tag: 'order-17',
      timestamp: createdAt,
      data: { orderId: '17', notificationId, eventType: 'commerce.order.shipped' },
      title: 'Order 17 is on its way',
      body: 'It arrives on Monday.',
      link: '/orders/17',
      group: 'orders',
      icon: '/icon.png',
      badge: '/badge.png',
      image: 'https://example.org/parcel.png',
      count: 2,
      lang: 'en-GB',
      requireInteraction: true,
      actions: [
        { action: 'track', title: 'Track', link: 'https://example.org/o/17' },
        { action: 'later', title: 'Later' },
      ],
      vibrate: [100, 50, 100],
    })
    const { headers } = vendor.received[0]!
    assert.deepEqual([headers.ttl, headers.urgency, headers.topic], ['600', 'high', 'order-17'])
  })
})

test('without more it has a tag of its own, no topic, and a day to arrive', async () => {
  await scene(async ({ vendor, send }) => {
    await send({
      priority: 'LOW',
      content: { body: 'x', data: { link: '//elsewhere.example/', silent: true } },
    })
    const { headers } = vendor.received[0]!
    assert.deepEqual([headers.ttl, headers.urgency, headers.topic], ['86400', 'low', undefined])
    const { tag, link, silent, requireInteraction } = payloadOf(vendor)
    assert.deepEqual(
      [tag, link, silent, requireInteraction],
      [push(vendor).idempotencyKey, undefined, true, undefined],
    )
    await send({
      content: { body: 'x', data: { collapseKey: 'größer als 32 Zeichen, und auch nicht ASCII' } },
    })
    assert.match(vendor.received[1]!.headers.topic!, /^[\w-]{16}$/)
  })
})

test('whatever the content, the service takes it; a long text is cut to what there is room for', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.constantFrom('漢字'.repeat(3_000), '\0'.repeat(4_096), '\ud800'.repeat(2_000)),
  )
  const data = fc.record({ link: text, collapseKey: text, group: text, badge: fc.double() })
  const action = fc.record({ id: fc.string({ maxLength: 20 }), label: text, url: text })
  const content = fc.record(
    { subject: text, body: text, data, actions: fc.array(action, { maxLength: 3 }) },
    { requiredKeys: ['body'] },
  )
  await scene(async ({ vendor, send }) => {
    await fc.assert(
      fc.asyncProperty(content, async given => {
        const sent = await send({ content: given })
        assert.equal(sent.outcome, 'sent')
      }),
      { numRuns: 60 },
    )
    await send({ content: { body: '漢'.repeat(4_000) } })
    const length = Number(vendor.received.at(-1)!.headers['content-length'])
    assert.ok(length <= 4_096 && length > 4_096 - 4, `${length}`)
    const large = { custom: { large: 'x'.repeat(4_100) } }
    const error = await send({ content: { body: 'x', data: large } }).catch((thrown: unknown) => thrown)
    assert.equal((error as DeliveryError).code, 'too_large')
  })
})

test('one signature serves an origin for hours, and no other origin', async () => {
  await scene(async ({ vendor, send, clock }) => {
    const others = await pushService()
    await send()
    clock.at += 10 * 3_600_000
    await send()
    await send({ to: push(others).to })
    clock.at += 2 * 3_600_000
    await send()
    const [first, second, third] = vendor.received.map(each => each.headers.authorization)
    assert.equal(first, second)
    assert.notEqual(third, first)
    assert.notEqual(others.received[0]!.headers.authorization, first)
    await others.close()
  })
})

test('each answer of a push service has its meaning', async () => {
  const at = (seconds: number) => new Date(NOW.getTime() + seconds * 1000)
  const cases: [HttpReply, string, string, Date?][] = [
    [{ status: 404 }, 'bounced', 'gone'],
    [{ status: 410, body: '{"code":410,"errno":106}' }, 'bounced', 'gone'],
    [{ status: 400 }, 'permanent', 'invalid_request'],
    [{ status: 401 }, 'temporary', 'auth'],
    [{ status: 403 }, 'rejected', 'forbidden'],
    [{ status: 413 }, 'permanent', 'too_large'],
    [{ status: 429 }, 'rate_limited', 'rate_limited', at(60)],
    [{ status: 429, headers: { 'retry-after': '17' } }, 'rate_limited', 'rate_limited', at(17)],
    [{ status: 503, headers: { 'retry-after': '9' } }, 'rate_limited', 'rate_limited', at(9)],
    [{ status: 500 }, 'temporary', 'server_error'],
  ]
  for (const [refuse, kind, code, until] of cases) {
    await scene(
      async ({ vendor, send }) => {
        vendor.behave('refuse')
        const error = (await send().catch((thrown: unknown) => thrown)) as DeliveryError
        assert.deepEqual([error.kind, error.code, error.until], [kind, code, until])
        if (refuse.body !== undefined) assert.equal(error.vendorCode, '410 106')
      },
      { refuse },
    )
  }
  await scene(async ({ vendor, send }) => {
    for (const more of [
      { addressSettings: undefined },
      { addressSettings: { ...KEYS, auth: 'x' } },
      { to: 'x' },
    ]) {
      const error = (await send(more).catch((thrown: unknown) => thrown)) as DeliveryError
      assert.deepEqual([error.kind, error.code], ['bounced', 'invalid_address'])
    }
    assert.equal(vendor.received.length, 0)
    // Asynchronous delivery (RFC 8030 §5.1) is an acceptance as well.
    const later = await pushService({ accept: { status: 202 } })
    assert.deepEqual(await send({ to: push(later).to }), { outcome: 'sent', code: '202' })
    await later.close()
  })
})

test('keys that do not belong together stop the start', async () => {
  const http = openHttp()
  const wrong = [
    { ...settings, publicKey: generateVapidKeys().publicKey },
    { ...settings, privateKey: 'A'.repeat(43) },
  ]
  for (const own of wrong) {
    await assert.rejects(openProvider(webPush, own, { http, now: () => NOW }), { code: 'invalid_settings' })
  }
  await http.close()
})

test('each push service is a lane of its own, which tells no endpoint', () => {
  const lane = (to: string) => webPush.lane!(exampleMessage({ to }))
  assert.equal(lane('https://push.example.net/a'), lane('https://push.example.net/b'))
  assert.notEqual(lane('https://push.example.net/a'), lane('https://push.example.org/a'))
  assert.doesNotMatch(lane('https://push.example.net/a'), /example/)
})
