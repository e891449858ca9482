import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { generateKeyPairSync, verify } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import {
  constants,
  createSecureServer,
  createServer,
  type Http2Server,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { TLSSocket } from 'node:tls'
import fc from 'fast-check'
import type { Content, JsonObject, Message } from '../../../types.ts'
import { type HttpOptions, openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { DeliveryError, type Http, type Sent } from '../../provider.ts'
import { type Behaviour, exampleMessage, type Received, testProvider, type Vendor } from '../conformance.ts'
import { NOW } from '../one-delivery.ts'
import { apns } from './apns.ts'

const keys = generateKeyPairSync('ec', { namedCurve: 'prime256v1' })
const P8 = keys.privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
const DEVICE = '00fc13adff785122b4ad28809a3420982341241421348097878e577c991de8f0'
const NOBODY = '0'.repeat(64)
const TOPIC = 'org.example.shop'

/* ---------------------------------------------------------------- the vendor */

interface Answer {
  status: number
  headers?: Record<string, string>
  body?: string
}
const reason = (status: number, word: string, more: JsonObject = {}, headers = {}): Answer => ({
  status,
  headers,
  body: JSON.stringify({ reason: word, ...more }),
})
const ANSWERS: Partial<Record<Behaviour, Answer>> = {
  refuse: reason(400, 'BadDeviceToken'),
  rate_limit: reason(429, 'TooManyRequests', {}, { 'retry-after': '7' }),
  fail: reason(500, 'InternalServerError'),
  redirect: { status: 307, headers: { location: '/elsewhere' } },
}

interface Apple extends Vendor {
  sessions: ServerHttp2Session[]
  /** The claims of every token that was presented. */
  tokens: Set<string>
  /** How many streams were open at once. */
  most: number
  /** What it says instead of the strict answer. */
  answer: ((stream: ServerHttp2Stream, received: Received) => Answer | 'nothing' | undefined) | undefined
  now: Date
}

interface AppleOptions {
  tls?: { key: string; cert: string; ca: string }
  maxStreams?: number
}

/** APNs over TLS where `tls` is given, else as it is behind a proxy: HTTP/2 without. */
async function apple({ tls, maxStreams = 1_000 }: AppleOptions = {}): Promise<Apple> {
  let behaviour: Behaviour = 'accept'
  let next = Promise.withResolvers<Received>()
  const sockets = new Set<Socket>()
  let open = 0
  const settings = { maxConcurrentStreams: maxStreams }
  const server = tls
    ? createSecureServer({ ...tls, settings, requestCert: true, rejectUnauthorized: false })
    : createServer({ settings })
  const self: Apple = {
    host: '127.0.0.1',
    port: 0,
    behave: to => {
      behaviour = to
    },
    received: [],
    arrival: () => next.promise,
    sessions: [],
    tokens: new Set(),
    most: 0,
    answer: undefined,
    now: NOW,
    close: async () => {
      const closed = new Promise<void>(resolve => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
  server.on(tls ? 'secureConnection' : 'connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
  })
  ;(server as Http2Server).on('session', session => {
    self.sessions.push(session)
    session.on('error', () => {})
  })
  ;(server as Http2Server).on('stream', (stream, headers) => {
    self.most = Math.max(self.most, ++open)
    stream.on('close', () => open--)
    stream.on('error', () => {})
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('end', () => {
      const body = Buffer.concat(chunks).toString()
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${String(value)}\r\n`)
      const received: Received = {
        raw: `${lines.join('')}\r\n${body}`,
        headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
        texts: stringsIn(JSON.parse(body)),
        to: [String(headers[':path'])],
      }
      const asked = received.to[0] !== `/3/device/${NOBODY}`
      if (asked) self.received.push(received)
      const socket = stream.session!.socket as TLSSocket
      const certified = tls !== undefined && socket.getPeerCertificate().subject !== undefined
      const said = self.answer?.(stream, received) ?? strict(headers, body, self, certified)
      reply(stream, said)
      if (!asked) return
      next.resolve(received)
      next = Promise.withResolvers()
    })
  })
  const reply = (stream: ServerHttp2Stream, said: Answer | 'nothing'): unknown => {
    if (said === 'nothing') return undefined
    const good = said.status === 200
    const [socket] = sockets
    const write = ({ status, headers = {}, body = '' }: Answer): unknown => {
      stream.respond({ ':status': status, ...headers })
      return stream.end(body)
    }
    switch (good ? behaviour : 'accept') {
      case 'hang':
        return undefined
      case 'reset':
        return socket?.resetAndDestroy()
      case 'half':
        stream.respond({ ':status': 200 })
        return stream.write('{"half', () => socket?.resetAndDestroy())
      case 'garbage':
        return socket?.write(Buffer.alloc(64, 0xff))
      case 'endless': {
        stream.respond({ ':status': 200 })
        const pour = (): void => {
          while (!stream.destroyed && stream.write('x'.repeat(65_536))) {}
        }
        stream.on('drain', pour)
        return pour()
      }
      case 'slow':
        return setImmediate(() => write(said))
      case 'accept':
        return write(said)
      default:
        return write(ANSWERS[behaviour]!)
    }
  }
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  self.port = (server.address() as AddressInfo).port
  return self
}

const stringsIn = (json: unknown): string[] =>
  typeof json === 'string'
    ? [json]
    : typeof json === 'object' && json !== null
      ? Object.values(json).flatMap(stringsIn)
      : []

/** https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns */
function strict(headers: IncomingHttpHeaders, body: string, vendor: Apple, certified: boolean): Answer {
  if (headers[':method'] !== 'POST') return reason(405, 'MethodNotAllowed')
  const device = /^\/3\/device\/([0-9a-f]+)$/.exec(headers[':path'] ?? '')?.[1]
  if (device === undefined) return reason(404, 'BadPath')
  const refusal = certified ? undefined : badToken(headers.authorization, vendor)
  if (refusal !== undefined) return reason(403, refusal)
  if (headers['apns-topic'] === undefined) return reason(400, 'MissingTopic')
  if (headers['apns-topic'] !== TOPIC) return reason(400, 'TopicDisallowed')
  const type = headers['apns-push-type']
  if (type !== 'alert' && type !== 'background') return reason(400, 'InvalidPushType')
  const priority = headers['apns-priority']
  if (priority !== '5' && (priority !== '10' || type === 'background')) return reason(400, 'BadPriority')
  if (!/^\d{1,10}$/.test(String(headers['apns-expiration'] ?? '0'))) return reason(400, 'BadExpirationDate')
  if (String(headers['apns-collapse-id'] ?? '').length > 64) return reason(400, 'BadCollapseId')
  const id = headers['apns-id']
  if (id !== undefined && !/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(String(id))) {
    return reason(400, 'BadMessageId')
  }
  if (Buffer.byteLength(body) > 4_096) return reason(413, 'PayloadTooLarge')
  const payload = JSON.parse(body) as JsonObject
  if (payload.aps === undefined) return reason(400, 'PayloadEmpty')
  if (device.length !== 64 || device === NOBODY) return reason(400, 'BadDeviceToken')
  return { status: 200, headers: { 'apns-id': String(id) } }
}

function badToken(authorization: string | undefined, vendor: Apple): string | undefined {
  const token = /^bearer (.+)$/.exec(authorization ?? '')?.[1]
  if (token === undefined) return 'MissingProviderToken'
  const [head = '', claims = '', signature = ''] = token.split('.')
  const read = (part: string) => JSON.parse(Buffer.from(part, 'base64url').toString()) as JsonObject
  const { alg, kid } = read(head)
  const { iss, iat } = read(claims)
  const good = verify(
    'sha256',
    Buffer.from(`${head}.${claims}`),
    { key: keys.publicKey, dsaEncoding: 'ieee-p1363' },
    Buffer.from(signature, 'base64url'),
  )
  if (!good || alg !== 'ES256' || kid !== 'ABC123DEFG' || iss !== 'DEF123GHIJ') return 'InvalidProviderToken'
  vendor.tokens.add(token)
  const age = vendor.now.getTime() / 1000 - (iat as number)
  return age < -60 || age > 3_600 ? 'ExpiredProviderToken' : undefined
}

const settingsFor = (vendor: Vendor): JsonObject => ({
  topic: TOPIC,
  teamId: 'DEF123GHIJ',
  keyId: 'ABC123DEFG',
  key: P8,
  host: vendor.host,
  port: vendor.port,
  timeoutSeconds: 0.5,
})
const push = (more: Partial<Message> = {}) => exampleMessage({ channel: 'push', to: DEVICE, ...more })

/** The vendor of the suite speaks HTTP/2 in the clear: TLS is the business of the tests below. */
const plain = (http: Http): Http => ({
  request: http.request,
  connect: ({ tls: _, ...asked }) => http.connect(asked),
})

// covers: DIC-111, DIC-129, ALP-103
testProvider(apns, { vendor: () => apple(), settings: settingsFor, message: () => push(), door: plain })

/* ---------------------------------------------------------------- what only APNs does */

interface Scene {
  vendor: Apple
  clock: { at: number }
  send(message?: Message): Promise<Sent>
  fails(message?: Message): Promise<DeliveryError>
  signal: AbortController
}

async function scene(
  script: (world: Scene) => Promise<void>,
  { own = {}, http: door = {}, ...options }: AppleOptions & { own?: JsonObject; http?: HttpOptions } = {},
) {
  const vendor = await apple(options)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'], ...door })
  const clock = { at: NOW.getTime() }
  const settings = { ...settingsFor(vendor), timeoutSeconds: 20, ...own }
  const world = { http: options.tls === undefined ? plain(http) : http, now: () => new Date(clock.at) }
  const opened = await openProvider(apns, settings, world)
  const signal = new AbortController()
  const send = (message = push()) => opened.send(message, signal.signal)
  try {
    await script({
      vendor,
      clock,
      send,
      signal,
      fails: async message => {
        const error = await send(message).then(
          sent => assert.fail(`sent: ${JSON.stringify(sent)}`),
          (thrown: unknown) => thrown,
        )
        assert.ok(error instanceof DeliveryError, String(error))
        return error
      },
    })
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

async function written(content: Partial<Content>, more: Partial<Message> = {}) {
  let headers: Record<string, string> = {}
  let payload: JsonObject = {}
  await scene(async ({ vendor, send }) => {
    await send(push({ content: { body: 'It arrives on Monday.', ...content }, ...more }))
    const { raw, headers: found } = vendor.received[0]!
    headers = found
    payload = JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject
  })
  return { headers, payload }
}

// covers: DIC-112
test('alert, badge, sound, data, priority, life and what it replaces each have their place', async () => {
  const { headers, payload } = await written({
    subject: 'Order 17\nis on its way',
    image: 'https://example.org/parcel.png',
    data: {
      link: 'shop://orders/17',
      badge: 3,
      sound: 'chime.caf',
      ttl: 600,
      collapseKey: 'order 17 of someone whose name is much longer than sixty-four characters',
      group: 'orders',
      custom: { orderId: 17, aps: 'no' },
      apns: { payload: { aps: { category: 'ORDER', badge: 4 } } },
    },
  })
  assert.deepEqual(payload, {
    aps: {
      alert: { title: 'Order 17 is on its way', body: 'It arrives on Monday.' },
      sound: 'chime.caf',
      badge: 4,
      category: 'ORDER',
      'thread-id': 'orders',
      'mutable-content': 1,
    },
    eventType: 'commerce.order.shipped',
    orderId: '17',
    notificationId: push().notificationId,
    link: 'shop://orders/17',
    image: 'https://example.org/parcel.png',
  })
  assert.equal(headers['apns-topic'], TOPIC)
  assert.equal(headers['apns-push-type'], 'alert')
  assert.equal(headers['apns-priority'], '10')
  assert.equal(headers['apns-expiration'], String(NOW.getTime() / 1000 + 600))
  assert.match(headers['apns-collapse-id']!, /^[\w-]{43}$/)
})

test('a message is shown with its thread, unless it names a group; a long key is not cut', async () => {
  const groupOf = async (thread: string, data = {}) =>
    ((await written({ data }, { thread })).payload as { aps: Record<string, unknown> }).aps['thread-id']
  assert.equal(await groupOf('order:17'), 'order:17')
  assert.equal(await groupOf('order:17', { group: 'orders' }), 'orders')
  const [one, other] = [await groupOf(`${'x'.repeat(199)}1`), await groupOf(`${'x'.repeat(199)}2`)]
  assert.match(String(one), /^[\w-]{43}$/)
  assert.notEqual(one, other)
})

test('a try has the id of the first one; LOW suits the battery; silent shows nothing', async () => {
  const [first, again, other] = await Promise.all([
    written({}),
    written({}, { attempt: 2, priority: 'LOW' }),
    written({ data: { silent: true, ttl: 0, badge: 0 } }, { idempotencyKey: 'another' }),
  ])
  assert.equal(first.headers['apns-id'], again.headers['apns-id'])
  assert.notEqual(first.headers['apns-id'], other.headers['apns-id'])
  assert.equal(first.headers['apns-collapse-id'], push().idempotencyKey)
  assert.equal(again.headers['apns-priority'], '5')
  assert.deepEqual(other.payload.aps, { 'content-available': 1, badge: 0 })
  const { headers } = other
  assert.deepEqual(
    [headers['apns-push-type'], headers['apns-priority'], headers['apns-expiration']],
    ['background', '5', '0'],
  )
})

test('whatever the content, APNs takes it; a long text is cut to what there is room for', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 200 }),
    fc.constantFrom('漢字'.repeat(3_000), '\0'.repeat(4_096), '\ud800'.repeat(2_000)),
  )
  const data = fc.record({ link: text, collapseKey: text, group: text, sound: text, badge: fc.double() })
  const content = fc.record({ subject: text, body: text, data }, { requiredKeys: ['body'] })
  await scene(async ({ send, vendor, fails }) => {
    await fc.assert(
      fc.asyncProperty(content, async given => {
        const sent = await send(push({ content: given }))
        assert.match(sent.providerMessageId!, /^[0-9a-f-]{36}$/)
      }),
      { numRuns: 60 },
    )
    await send(push({ content: { body: '漢'.repeat(4_000) } }))
    const { raw } = vendor.received.at(-1)!
    const size = Buffer.byteLength(raw.slice(raw.indexOf('\r\n\r\n') + 4))
    assert.ok(size <= 4_096 && size > 4_096 - 4, `${size}`)
    const before = vendor.received.length
    const large = { custom: { large: 'x'.repeat(4_200) } }
    assert.equal((await fails(push({ content: { body: 'x', data: large } }))).code, 'too_large')
    assert.equal((await fails(push({ to: '../3/device' }))).kind, 'bounced')
    assert.equal(vendor.received.length, before)
  })
})

test('each of Apple’s reasons has its meaning', async () => {
  const at = (seconds: number) => new Date(NOW.getTime() + seconds * 1000)
  const cases: [Answer, string, string, Date?][] = [
    [reason(400, 'BadDeviceToken'), 'bounced', 'unknown_address'],
    [reason(410, 'Unregistered', { timestamp: 1_795_262_370_000 }), 'bounced', 'gone'],
    [reason(410, 'ExpiredToken'), 'bounced', 'gone'],
    [reason(410, 'SomethingNew'), 'bounced', 'gone'],
    [reason(400, 'DeviceTokenNotForTopic'), 'rejected', 'forbidden'],
    [reason(400, 'BadTopic'), 'temporary', 'invalid_settings'],
    [reason(400, 'BadCollapseId'), 'permanent', 'invalid_request'],
    [reason(400, 'SomethingNew'), 'permanent', 'invalid_request'],
    [reason(403, 'InvalidProviderToken'), 'temporary', 'auth'],
    [reason(403, 'BadCertificate'), 'temporary', 'auth'],
    [reason(403, 'SomethingNew'), 'temporary', 'auth'],
    [reason(413, 'PayloadTooLarge'), 'permanent', 'too_large'],
    [reason(429, 'TooManyRequests'), 'rate_limited', 'rate_limited', at(60)],
    [
      reason(429, 'TooManyProviderTokenUpdates', {}, { 'retry-after': '90' }),
      'rate_limited',
      'rate_limited',
      at(90),
    ],
    [reason(500, 'InternalServerError'), 'temporary', 'server_error'],
    [reason(503, 'ServiceUnavailable'), 'temporary', 'unavailable'],
    [reason(503, 'Shutdown', {}, { 'retry-after': '5' }), 'rate_limited', 'rate_limited', at(5)],
    [{ status: 502, body: '<html>' }, 'temporary', 'server_error'],
    [reason(400, 'constructor'), 'permanent', 'invalid_request'],
  ]
  await scene(async ({ vendor, send, fails }) => {
    await send()
    for (const [answer, kind, code, until] of cases) {
      vendor.answer = () => answer
      const error = await fails()
      assert.deepEqual([error.kind, error.code, error.until], [kind, code, until], answer.body)
      // Too many to one device hold no other device up.
      assert.equal(error.alone, answer.body?.includes('TooManyRequests') === true, answer.body)
      if (answer.body?.includes('timestamp')) assert.equal(error.response, 'since 2026-11-21T11:59:30.000Z')
    }
    assert.equal(vendor.received.length, 1 + cases.length)
    assert.equal(vendor.sessions.length, 1)
  })
})

test('it keeps no topics, and nobody can ask it without sending', async () => {
  assert.deepEqual([apns.updateTopicSubscription, apns.validateDeviceToken], [undefined, undefined])
  await scene(async ({ vendor, fails }) => {
    const error = await fails(push({ to: '/topics/news', addressSettings: { kind: 'apns' } }))
    assert.deepEqual([error.kind, error.code], ['permanent', 'invalid_address'])
    assert.equal(vendor.received.length, 0)
  })
})

test('a token that nobody has is a dead device only where another one was taken: else it may be the wrong house', async () => {
  await scene(async ({ vendor, send, fails }) => {
    const first = async () => {
      vendor.answer = () => reason(400, 'BadDeviceToken')
      const error = await fails()
      return [error.kind, error.code]
    }
    // Tokens of Apple's sandbox are told the same by its other house: a wrong setting must not cost every device.
    assert.deepEqual(await first(), ['rejected', 'unknown_address'])
    vendor.answer = undefined
    await send()
    assert.deepEqual(await first(), ['bounced', 'unknown_address'])
    // The app is gone wherever it was.
    vendor.answer = () => reason(410, 'Unregistered')
    assert.equal((await fails()).kind, 'bounced')
  })
})

test('a token serves for fifty minutes; one that is called expired is made anew, once', async () => {
  await scene(async ({ vendor, send, fails, clock }) => {
    const move = (minutes: number) => {
      clock.at += minutes * 60_000
      vendor.now = new Date(clock.at)
    }
    await Promise.all([send(), send(), send()])
    move(49)
    await send()
    assert.equal(vendor.tokens.size, 1)
    move(2)
    await Promise.all([send(), send()])
    assert.equal(vendor.tokens.size, 2)

    // Apple's clock is ahead: it calls expired what we still hold for good.
    move(25)
    vendor.now = new Date(clock.at + 40 * 60_000)
    const before = vendor.received.length
    await Promise.all([send(), send(), send()])
    assert.equal(vendor.tokens.size, 3)
    assert.equal(vendor.received.length, before + 6)
    // No token is made in the twenty minutes after another: Apple would refuse that as well.
    vendor.now = new Date(clock.at + 90 * 60_000)
    const error = await fails()
    assert.deepEqual(
      [error.kind, error.code, error.vendorCode],
      ['temporary', 'auth', 'ExpiredProviderToken'],
    )
    assert.equal(vendor.tokens.size, 3)
  })
})

test('all share one connection and no more streams than it allows, which may change', async () => {
  await scene(
    async ({ vendor, send }) => {
      const held: ServerHttp2Stream[] = []
      let arrived = Promise.withResolvers<void>()
      let expected = 1
      vendor.answer = stream => {
        held.push(stream)
        if (held.length === expected) arrived.resolve()
        return 'nothing'
      }
      const answerAll = () => {
        for (const stream of held.splice(0)) {
          stream.respond({ ':status': 200, 'apns-id': 'x' })
          stream.end()
        }
      }
      const sends = Array.from({ length: 10 }, () => send())
      await arrived.promise
      // As APNs does once it has seen a valid token.
      expected = 5
      arrived = Promise.withResolvers()
      vendor.sessions[0]!.settings({ maxConcurrentStreams: 5 })
      await arrived.promise
      assert.equal(vendor.most, 5)
      expected = 0
      vendor.answer = undefined
      answerAll()
      assert.equal((await Promise.all(sends)).length, 10)
      assert.deepEqual([vendor.most, vendor.sessions.length, vendor.received.length], [5, 1, 10])
    },
    { maxStreams: 1 },
  )
})

test('who waits for a place may give up; nothing was sent', async () => {
  await scene(
    async ({ vendor, fails, send, signal }) => {
      const arrived = vendor.arrival()
      vendor.answer = () => 'nothing'
      const first = fails()
      await arrived
      const second = send().catch((error: DeliveryError) => error)
      await new Promise(resolve => setImmediate(resolve))
      signal.abort()
      assert.deepEqual((await first).kind, 'unknown')
      assert.equal(((await second) as DeliveryError).kind, 'temporary')
      assert.equal(vendor.received.length, 1)
    },
    { maxStreams: 1 },
  )
})

test('what a closing connection had not looked at goes out on the next one, once', async () => {
  await scene(async ({ vendor, send }) => {
    await send()
    // GOAWAY as APNs sends it before it restarts: the stream that just came was not looked at.
    vendor.answer = stream => {
      vendor.answer = undefined
      const { session } = stream
      session!.goaway(constants.NGHTTP2_NO_ERROR, stream.id! - 2, Buffer.from('{"reason":"Shutdown"}'))
      return 'nothing'
    }
    assert.equal((await send()).outcome, 'sent')
    assert.deepEqual([vendor.sessions.length, vendor.received.length], [2, 3])

    vendor.answer = stream => {
      vendor.answer = undefined
      stream.close(constants.NGHTTP2_REFUSED_STREAM)
      return 'nothing'
    }
    assert.equal((await send()).outcome, 'sent')
    assert.deepEqual([vendor.sessions.length, vendor.received.length], [3, 5])
  })
})

test('what runs on a closing connection ends there; the next request has another', async () => {
  await scene(async ({ vendor, send }) => {
    vendor.answer = stream => {
      vendor.answer = undefined
      stream.session!.goaway(constants.NGHTTP2_NO_ERROR, stream.id, Buffer.from('{}'))
      return undefined
    }
    assert.equal((await send()).outcome, 'sent')
    assert.equal((await send()).outcome, 'sent')
    assert.deepEqual([vendor.sessions.length, vendor.received.length], [2, 2])
  })
})

test('a far end that closes every connection is not asked for ever', async () => {
  await scene(async ({ vendor, fails }) => {
    vendor.answer = stream => {
      stream.session!.goaway(constants.NGHTTP2_NO_ERROR, 0, Buffer.from('{"reason":"BadCertificate"}'))
      stream.close(constants.NGHTTP2_REFUSED_STREAM)
      return 'nothing'
    }
    const error = await fails()
    assert.deepEqual([error.kind, error.code, error.vendorCode], ['temporary', 'auth', 'BadCertificate'])
    assert.equal(vendor.sessions.length, 3)
  })
})

test('a connection that was idle is asked whether it still lives; one that timed out is left', async () => {
  await scene(
    async ({ vendor, send, fails, clock }) => {
      await send()
      let pings = 0
      vendor.sessions[0]!.on('ping', () => pings++)
      clock.at += 61_000
      await send()
      assert.deepEqual([pings, vendor.sessions.length], [1, 1])
      vendor.behave('hang')
      assert.equal((await fails()).code, 'timeout')
      vendor.behave('accept')
      await send()
      assert.equal(vendor.sessions.length, 2)
    },
    { own: { timeoutSeconds: 1 } },
  )
})

/* ---------------------------------------------------------------- TLS and certificates */

interface Certificates {
  ca: string
  server: { key: string; cert: string; ca: string }
  client: { key: string; cert: string; p12: string }
}

/** An authority, the vendor's certificate and ours, made for this test. Undefined without openssl. */
function makeCertificates(): Certificates | undefined {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-apns-'))
  const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: dir, stdio: 'pipe' })
  const read = (name: string) => readFileSync(join(dir, name), 'utf8')
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
  try {
    openssl(
      'req',
      '-x509',
      ...curve,
      '-keyout',
      'ca.key',
      '-out',
      'ca.pem',
      '-subj',
      '/CN=Test CA',
      '-days',
      '2',
    )
    for (const name of ['server', 'client']) {
      const names = ['-addext', 'subjectAltName=IP:127.0.0.1', '-addext', 'basicConstraints=CA:FALSE']
      const subject = ['-subj', `/CN=${name}`, ...names]
      openssl('req', ...curve, '-keyout', `${name}.key`, '-out', `${name}.csr`, ...subject)
      const by = ['-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial', '-copy_extensions', 'copyall']
      openssl('x509', '-req', '-in', `${name}.csr`, ...by, '-out', `${name}.pem`, '-days', '2')
    }
    const files = ['-inkey', 'client.key', '-in', 'client.pem', '-out', 'client.p12']
    openssl('pkcs12', '-export', ...files, '-passout', 'pass:open sesame')
    return {
      ca: read('ca.pem'),
      server: { key: read('server.key'), cert: read('server.pem'), ca: read('ca.pem') },
      client: {
        key: read('client.key'),
        cert: read('client.pem'),
        p12: readFileSync(join(dir, 'client.p12')).toString('base64'),
      },
    }
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  } finally {
    rmSync(dir, { recursive: true })
  }
}
const made = makeCertificates()
const skip = made === undefined ? 'there is no openssl to make certificates with' : false
const NO_KEY = { key: undefined, keyId: undefined, teamId: undefined } as unknown as JsonObject

// covers: ALP-190, DIC-113
test('over TLS, with a key, a .p12 file or a certificate with its key', { skip }, async () => {
  const { server, client, ca } = made!
  const ways: JsonObject[] = [
    {},
    { ...NO_KEY, pkcs12: client.p12, passphrase: 'open sesame' },
    { ...NO_KEY, certificate: client.cert, certificateKey: client.key },
  ]
  for (const own of ways) {
    await scene(
      async ({ vendor, send }) => {
        assert.equal((await send()).outcome, 'sent')
        assert.equal(
          vendor.received[0]!.headers.authorization === undefined,
          own.key === null || 'key' in own,
        )
      },
      { own, tls: server, http: { ca } },
    )
  }
})

test('a far end that nobody vouches for gets nothing', { skip }, async () => {
  await scene(
    async ({ vendor, fails }) => {
      const error = await fails()
      assert.deepEqual([error.kind, error.code], ['temporary', 'tls_failed'])
      assert.equal(vendor.received.length, 0)
    },
    { tls: made?.server },
  )
})

test('credentials that cannot work stop the start, without a word of them', async () => {
  const http = openHttp()
  const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  const wrong: JsonObject[] = [
    {},
    { key: P8, keyId: 'ABC123DEFG' },
    { key: '-----BEGIN hidden', keyId: 'ABC123DEFG', teamId: 'DEF123GHIJ' },
    {
      key: rsa.export({ type: 'pkcs8', format: 'pem' }) as string,
      keyId: 'ABC123DEFG',
      teamId: 'DEF123GHIJ',
    },
    { pkcs12: Buffer.from('hidden').toString('base64') },
    { certificate: 'hidden', certificateKey: 'hidden' },
    { certificate: 'hidden' },
    ...(made === undefined ? [] : [{ pkcs12: made.client.p12, passphrase: 'hidden' }]),
  ]
  for (const each of wrong) {
    const settings = { topic: TOPIC, ...each }
    await assert.rejects(openProvider(apns, settings, { http, now: () => NOW }), (error: DeliveryError) => {
      assert.equal(error.code, 'invalid_settings')
      assert.doesNotMatch(`${error.stack} ${String(error.cause)}`, /hidden/)
      return true
    })
  }
  await http.close()
})

test('it takes devices of its own kind, app and environment', () => {
  const own = { topic: TOPIC, environment: 'production' } as never
  const accepts = (more: JsonObject | undefined, to = DEVICE) =>
    apns.accepts!(push({ to, addressSettings: more }), own)
  assert.deepEqual(
    [
      accepts(undefined),
      accepts({ kind: 'apns', environment: 'production', topic: TOPIC }),
      accepts({ kind: 'apns' }, 'fcm:token'),
      accepts({ kind: 'fcm' }),
      accepts({ kind: 'apns', environment: 'sandbox' }),
      accepts({ kind: 'apns', topic: 'org.example.other' }),
      accepts(undefined, 'fGx0Yk3vQ1e:APA91bHun4MxP5egoKMwt2KZFBaFUH'),
    ],
    [true, true, true, false, false, false, false],
  )
})
