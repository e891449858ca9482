import assert from 'node:assert/strict'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { test } from 'node:test'
import { inspect } from 'node:util'
import PostalMime from 'postal-mime'
import { SMTPServer } from 'smtp-server'
import { AppError } from '../../errors.ts'
import type { Json, JsonObject, Message } from '../../types.ts'
import { openHttp } from '../http.ts'
import { openProvider, secretsIn } from '../open-provider.ts'
import {
  type AnyProvider,
  type CallbackRequest,
  DeliveryError,
  type FailureKind,
  type Http,
  type Receipt,
  type Sent,
} from '../provider.ts'

/**
 * The suite every provider passes, against a local server at the far end that answers as told. A provider's own
 * test calls `testProvider` and then tests what only this vendor does.
 */
export interface Conformance {
  /** The server at the far end. `httpVendor()` unless the protocol is another. */
  vendor?: () => Promise<Vendor>
  /** Settings that point at the vendor. Time limits short: the suite waits for one of them. */
  settings(vendor: Vendor): JsonObject
  /** At least one message as the vendor would get it, from `exampleMessage`; `to` may point at the vendor. */
  message(vendor: Vendor): Message
  /** Cases that cannot apply, each with its reason; the report names them. */
  notApplicable?: Partial<Record<CaseName, string>>
  /** Requests as the vendor posts them, signed with the settings; each is also tried forged and cut. */
  callbacks?: ConformingCallback[]
  /** Stands before the door and answers for hosts of the vendor that no local server can be. */
  door?(http: Http): Http
}

export interface ConformingCallback {
  name: string
  request(settings: JsonObject): CallbackRequest
  receipts: Receipt[]
  /**
   * What must be refused besides a body that is cut. Default, for a signature in the headers over the whole body:
   * one byte more, and no headers.
   */
  forged?(request: CallbackRequest): CallbackRequest[]
}

export type CaseName =
  | 'accept'
  | 'slow answer'
  | 'refusal'
  | 'rate limit'
  | 'server failure'
  | 'redirect'
  | 'no answer'
  | 'reset'
  | 'reset mid-answer'
  | 'garbage'
  | 'endless answer'
  | 'nobody listens'
  | 'private network'
  | 'given up'
  | 'idempotency key'
  | 'injection'
  | 'unicode'
  | 'limits'
  | 'many at once'
  | 'check'

/** What the far end does with whatever arrives, until told otherwise. */
export type Behaviour =
  | 'accept'
  | 'slow'
  | 'refuse'
  | 'rate_limit'
  | 'fail'
  | 'redirect'
  | 'hang'
  | 'reset'
  | 'half'
  | 'garbage'
  | 'endless'

export interface Received {
  /** Everything as it came, for a look at single bytes. */
  raw: string
  /** Names in lower case. */
  headers: Record<string, string>
  /** The text in it, decoded as the receiver would. */
  texts: string[]
  /** Who it goes to: the path, or the envelope's recipients. */
  to: string[]
  /** The envelope's sender, where there is an envelope. */
  from?: string
}

export interface Vendor {
  host: string
  port: number
  behave(next: Behaviour): void
  received: Received[]
  /** Resolves when the next one has come in completely. */
  arrival(): Promise<Received>
  close(): Promise<void>
}

/** Seconds in every Retry-After of the far end. */
const RETRY_AFTER = 7
/** No clock in the suite moves: providers ask this one. */
const NOW = new Date('2026-11-21T12:00:00.000Z')
/** Ends what hangs. Far above what an answer on loopback takes, so nothing else runs into it. */
const TIMEOUT_MS = 1_000

export const exampleMessage = (more: Partial<Message> = {}): Message => ({
  tenantId: 1,
  notificationId: '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d',
  channel: 'webhook',
  idempotencyKey: '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d.1',
  to: 'nobody@example.com',
  recipient: { type: 'user', id: 'alice' },
  content: { subject: 'Order 17 is on its way', body: 'It arrives on Monday.' },
  priority: 'NORMAL',
  attempt: 1,
  eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
  eventType: 'commerce.order.shipped',
  createdAt: NOW.getTime() - 1_000,
  ...more,
})

export function testProvider(provider: AnyProvider, conformance: Conformance): void {
  const openVendor = conformance.vendor ?? httpVendor

  interface Scene {
    vendor: Vendor
    message: Message
    send: (message?: Message) => Promise<Sent>
    fails: (message?: Message) => Promise<DeliveryError>
    opened: Awaited<ReturnType<typeof openProvider>>
    giveUp: AbortController
  }

  const scene = async (work: (scene: Scene) => Promise<void>, allowPrivate = ['127.0.0.1/32']) => {
    const vendor = await openVendor()
    const http = openHttp({ allowPrivate, maxTimeoutMs: TIMEOUT_MS })
    const settings = conformance.settings(vendor)
    const world = { http: conformance.door?.(http) ?? http, now: () => NOW }
    const opened = await openProvider(provider, settings, world)
    const giveUp = new AbortController()
    const message = conformance.message(vendor)
    const send = (each = message) => opened.send(each, giveUp.signal)
    const secrets = [
      ...secretsIn(provider.settings, settings),
      ...(provider.addressSettings === undefined
        ? []
        : secretsIn(provider.addressSettings, message.addressSettings)),
    ]
    const fails = async (each = message): Promise<DeliveryError> => {
      const error = await send(each).then(
        sent => assert.fail(`expected a failure, got ${inspect(sent)}`),
        (thrown: unknown) => thrown,
      )
      assert.ok(error instanceof DeliveryError, `expected a DeliveryError, got ${inspect(error)}`)
      const shown = inspect(error, { depth: 10, showHidden: true }) + String(error.stack)
      for (const each of secrets) assert.ok(!shown.includes(each), 'an error shows a secret')
      for (const text of [message.content.body, message.content.subject ?? message.content.body]) {
        assert.ok(!shown.includes(text), 'an error shows content')
      }
      return error
    }
    try {
      await work({ vendor, message, send, fails, opened, giveUp })
    } finally {
      await opened.close()
      await vendor.close()
      await http.close()
    }
  }

  const check = (name: CaseName, what: string, work: (scene: Scene) => Promise<void>, allow?: string[]) => {
    const reason = conformance.notApplicable?.[name]
    test(`${provider.id}: ${name}: ${what}`, { skip: reason }, () => scene(work, allow))
  }
  const judged = (name: CaseName, behaviour: Behaviour, kinds: FailureKind[], what: string) =>
    check(name, what, async ({ vendor, fails }) => {
      vendor.behave(behaviour)
      const error = await fails()
      assert.ok(kinds.includes(error.kind), `${error.kind} (${error.code}) is none of ${kinds.join(', ')}`)
      assert.equal(vendor.received.length, 1, 'a provider tries once; the loop repeats')
    })

  test(`${provider.id}: describes itself`, () => {
    assert.match(provider.id, /^[a-z][a-z0-9_-]*$/)
    const schema = provider.settings as { type?: string; properties?: Record<string, { title?: string }> }
    assert.equal(schema.type, 'object')
    for (const [name, property] of Object.entries(schema.properties ?? {})) {
      assert.ok(property.title, `setting ${name} has no title for the console`)
    }
  })

  check('accept', 'is sent once', async ({ vendor, send }) => {
    const sent = await send()
    assert.ok(sent.outcome === 'sent' || sent.outcome === 'delivered')
    assert.ok((sent.response ?? '').length <= 500)
    assert.equal(vendor.received.length, 1)
  })
  check('slow answer', 'is waited for', async ({ vendor, send }) => {
    vendor.behave('slow')
    await send()
    assert.equal(vendor.received.length, 1)
  })

  judged('refusal', 'refuse', ['permanent', 'bounced', 'rejected'], 'is final')
  judged('server failure', 'fail', ['temporary'], 'is temporary')
  judged('redirect', 'redirect', ['permanent', 'rejected'], 'is not followed')
  judged('no answer', 'hang', ['unknown'], 'is unknown')
  judged('reset', 'reset', ['unknown'], 'after the request is unknown')
  judged('garbage', 'garbage', ['unknown'], 'is unknown')

  check('rate limit', 'keeps to Retry-After', async ({ vendor, fails }) => {
    vendor.behave('rate_limit')
    const error = await fails()
    assert.equal(error.kind, 'rate_limited')
    assert.equal(error.until?.getTime(), NOW.getTime() + RETRY_AFTER * 1000)
  })
  // Whether the first half is enough is the vendor's business; that the message may have arrived is not.
  check('reset mid-answer', 'is not taken for "nothing happened"', async ({ vendor, send }) => {
    vendor.behave('half')
    const outcome = await send().then(
      sent => sent.outcome,
      (error: DeliveryError) => error.kind,
    )
    assert.ok(['sent', 'delivered', 'unknown'].includes(outcome), outcome)
  })
  check('endless answer', 'is cut', async ({ vendor, send }) => {
    vendor.behave('endless')
    const outcome = await send().then(
      sent => sent.outcome,
      (error: DeliveryError) => error.kind,
    )
    assert.ok(['sent', 'delivered', 'unknown'].includes(outcome), outcome)
  })
  check('nobody listens', 'is temporary', async ({ vendor, fails }) => {
    await vendor.close()
    assert.equal((await fails()).kind, 'temporary')
  })
  check(
    'private network',
    'is not called',
    async ({ vendor, fails }) => {
      const error = await fails()
      assert.deepEqual([error.kind, error.code], ['permanent', 'blocked_address'])
      assert.equal(vendor.received.length, 0)
    },
    [],
  )
  check('given up', 'before the answer is unknown', async ({ vendor, fails, giveUp }) => {
    vendor.behave('hang')
    const arrived = vendor.arrival()
    const failed = fails()
    await arrived
    giveUp.abort()
    const error = await failed
    assert.deepEqual([error.kind, error.code], ['unknown', 'aborted'])
  })
  check('given up', 'before the request is temporary', async ({ vendor, fails, giveUp }) => {
    giveUp.abort()
    assert.equal((await fails()).kind, 'temporary')
    assert.equal(vendor.received.length, 0)
  })

  check('idempotency key', 'travels, the same each time', async ({ vendor, message, send }) => {
    await send()
    await send({ ...message, attempt: 2 })
    for (const { raw } of vendor.received) {
      assert.ok(raw.includes(message.idempotencyKey), `no ${message.idempotencyKey} in ${raw}`)
    }
    assert.equal(vendor.received.length, 2)
  })

  check('injection', 'changes neither headers nor recipients', async ({ vendor, message, send }) => {
    const clean = await send().then(() => vendor.received.at(-1))
    assert.ok(clean)
    const canary = 'x\r\nX-Canary: yes\r\nBcc: canary@example.com\r\n\r\ncanary\r\n.\r\nDATA\r\n\0\u2028'
    const poison: Partial<Message>[] = [
      { content: { ...message.content, subject: canary } },
      { content: { ...message.content, body: canary } },
      { content: { ...message.content, html: `<p>${canary}</p>` } },
      { content: { ...message.content, data: { text: canary } } },
      { to: message.to + canary },
      { idempotencyKey: canary },
      { eventType: canary },
      { recipient: { type: 'user', id: canary } },
      { traceId: canary },
    ]
    for (const part of poison) {
      const before = vendor.received.length
      await send({ ...message, ...part }).catch((error: unknown) => {
        assert.ok(
          error instanceof DeliveryError && error.final,
          `refused, but not for good: ${inspect(error)}`,
        )
      })
      const arrived = vendor.received.slice(before)
      assert.ok(arrived.length <= 1, 'one message became several')
      for (const each of arrived) {
        assert.equal(each.headers['x-canary'], undefined, `${Object.keys(part)[0]} became a header`)
        assert.equal(each.headers.bcc, undefined, `${Object.keys(part)[0]} became a header`)
        if (part.to === undefined) assert.deepEqual(each.to, clean.to)
      }
    }
  })

  check('unicode', 'arrives as written', async ({ vendor, message, send }) => {
    const body = 'Grüße, 你好, مرحبا, 👩‍👩‍👧‍👦 ẹ́ \u{1F1EA}\u{1F1FA} — „quoted“ & <tagged>'
    await send({ ...message, content: { ...message.content, body } })
    const texts = vendor.received[0]?.texts ?? []
    assert.ok(
      texts.some(text => text.normalize('NFC').includes(body.normalize('NFC'))),
      `not among ${inspect(texts)}`,
    )
  })

  const { bodyChars } = provider.limits ?? {}
  if (bodyChars !== undefined) {
    check('limits', 'cut what is too long', async ({ vendor, message, send }) => {
      await send({ ...message, content: { ...message.content, body: '𝒳'.repeat(bodyChars) } })
      const longest = Math.max(...(vendor.received[0]?.texts ?? []).map(text => text.length))
      assert.ok(longest <= bodyChars, `${longest} characters were sent, ${bodyChars} are allowed`)
    })
  }

  if (provider.sendMany !== undefined) {
    check('many at once', 'share one request and its fate', async ({ vendor, message, opened, giveUp }) => {
      const messages = [1, 2, 3].map(n => ({ ...message, idempotencyKey: `${message.idempotencyKey}-${n}` }))
      const sent = await opened.sendMany(messages, giveUp.signal)
      assert.equal(sent.length, 3)
      assert.ok(sent.every(each => !(each instanceof DeliveryError)))
      assert.equal(vendor.received.length, 1)
      for (const { idempotencyKey } of messages) {
        assert.ok(vendor.received[0]?.raw.includes(idempotencyKey))
      }
      vendor.behave('fail')
      const failed = await opened.sendMany(messages, giveUp.signal)
      assert.ok(failed.every(each => each instanceof DeliveryError && each.kind === 'temporary'))
      assert.deepEqual(await opened.sendMany([], giveUp.signal), [])
    })
  }

  if (provider.check !== undefined) {
    check('check', 'tells a far end that is away', async ({ vendor, opened, giveUp }) => {
      await opened.check(giveUp.signal)
      assert.equal(vendor.received.filter(each => each.texts.length > 0).length, 0, 'a check sends nothing')
      await vendor.close()
      await assert.rejects(opened.check(giveUp.signal), DeliveryError)
    })
  }

  for (const callback of conformance.callbacks ?? []) {
    test(`${provider.id}: callback: ${callback.name}`, () =>
      scene(async ({ vendor, opened, giveUp }) => {
        const settings = conformance.settings(vendor)
        const request = () => callback.request(settings)
        assert.deepEqual((await opened.callback(request(), giveUp.signal)).receipts, callback.receipts)

        const refused = (error: unknown) => error instanceof AppError && error.status < 500
        const forged = callback.forged ?? forgedAtAll
        for (const each of forged(request())) {
          await assert.rejects(opened.callback(each, giveUp.signal), refused)
        }
        const cut = { ...request(), body: request().body.subarray(0, 5) }
        await assert.rejects(opened.callback(cut, giveUp.signal), refused)
      }))
  }
}

const forgedAtAll = (request: CallbackRequest): CallbackRequest[] => [
  { ...request, body: Buffer.concat([request.body, Buffer.from(' ')]) },
  { ...request, headers: {} },
]

/* ---------------------------------------------------------------- far ends */

interface Arrivals {
  received: Received[]
  add(one: Received): void
  next(): Promise<Received>
}

function arrivals(): Arrivals {
  const received: Received[] = []
  let next = Promise.withResolvers<Received>()
  return {
    received,
    add(one) {
      received.push(one)
      next.resolve(one)
      next = Promise.withResolvers()
    },
    next: () => next.promise,
  }
}

const closer = (server: { close(done: () => void): unknown }, sockets: Set<Socket>) => {
  let closing: Promise<void> | undefined
  return () => {
    closing ??= new Promise(resolve => {
      server.close(() => resolve())
      for (const socket of sockets) socket.destroy()
    })
    return closing
  }
}

export interface HttpReply {
  status: number
  headers?: Record<string, string>
  body?: string
}

const HTTP_REPLIES = {
  accept: {
    status: 200,
    headers: { 'content-type': 'application/json' },
    body: '{"ok":true,"id":"vendor-1"}',
  },
  refuse: { status: 400, body: '{"error":"no"}' },
  rate_limit: { status: 429, headers: { 'retry-after': String(RETRY_AFTER) } },
  fail: { status: 500, body: 'oops' },
  redirect: { status: 307, headers: { location: '/elsewhere' } },
} satisfies Partial<Record<Behaviour, HttpReply>>

/** A request as the far end reads it. */
export interface Asked {
  method: string
  /** Path and query. */
  path: string
  /** Names in lower case. */
  headers: Record<string, string>
  body: string
}

/**
 * A vendor that speaks HTTP. `replies`: this vendor's own words where the plain ones do not do. `reads`: looks at
 * a request that would be accepted, as strictly as the vendor does, and gives the answer where that is another one.
 * `decode`: what the vendor shows of a text that came escaped. `open`: its bytes as text, where they are encrypted.
 */
export async function httpVendor(
  replies: Partial<Record<keyof typeof HTTP_REPLIES, HttpReply>> = {},
  reads: (asked: Asked) => HttpReply | undefined = () => undefined,
  decode: (text: string) => string = text => text,
  open: (bytes: Buffer) => string = bytes => bytes.toString('utf8'),
): Promise<Vendor> {
  let behaviour: Behaviour = 'accept'
  const seen = arrivals()
  const sockets = new Set<Socket>()
  const reply = (response: ServerResponse, { status, headers, body }: HttpReply) =>
    response.writeHead(status, headers).end(body)

  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<unknown> => {
    const body = open(await bodyOf(request))
    const received = await receivedHttp(request, body)
    received.texts = received.texts.map(decode)
    seen.add(received)
    const { socket, method = '', url = '' } = request
    const accepted: HttpReply =
      reads({ method, path: url, headers: received.headers, body }) ?? replies.accept ?? HTTP_REPLIES.accept
    switch (behaviour) {
      case 'hang':
        return
      case 'reset':
        return socket.resetAndDestroy()
      case 'half':
        response.writeHead(accepted.status, { ...accepted.headers, 'content-length': 1000 })
        return response.write('{"half', () => socket.resetAndDestroy())
      case 'garbage':
        return socket.end('\x00\x01\x02 this is not HTTP\r\n\r\n')
      case 'slow': {
        response.writeHead(accepted.status, accepted.headers)
        for (const letter of accepted.body ?? '') {
          response.write(letter)
          await new Promise(resolve => setImmediate(resolve))
        }
        return response.end()
      }
      case 'accept':
        return reply(response, accepted)
      case 'endless': {
        response.writeHead(accepted.status, { 'content-type': 'text/plain' })
        const pour = (): void => {
          while (!response.destroyed && response.write('x'.repeat(65_536))) {}
        }
        response.on('drain', pour).on('error', () => {})
        return pour()
      }
      default:
        return reply(response, replies[behaviour] ?? HTTP_REPLIES[behaviour])
    }
  }
  const server = createServer((request, response) => {
    // A request that breaks off has not arrived: nothing to answer, nothing to keep.
    answer(request, response).catch(() => response.destroy())
  })
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))

  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    behave(next) {
      behaviour = next
    },
    received: seen.received,
    arrival: () => seen.next(),
    close: closer(server, sockets),
  }
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of request) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function receivedHttp(request: IncomingMessage, body: string): Promise<Received> {
  const lines = request.rawHeaders.map((each, at) => (at % 2 === 0 ? `${each}: ` : `${each}\r\n`)).join('')
  const headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
  )
  return {
    raw: `${request.method} ${request.url}\r\n${lines}\r\n${body}`,
    headers,
    texts: await textsIn(headers['content-type'] ?? '', body),
    to: [request.url ?? ''],
  }
}

async function textsIn(type: string, body: string): Promise<string[]> {
  if (type.startsWith('multipart/form-data')) {
    const form = await new Response(body, { headers: { 'content-type': type } }).formData()
    return [...form.values()].filter(each => typeof each === 'string')
  }
  if (type.includes('x-www-form-urlencoded')) return [...new URLSearchParams(body).values()]
  try {
    return stringsIn(JSON.parse(body) as Json)
  } catch {
    return body === '' ? [] : [body]
  }
}

function stringsIn(json: Json): string[] {
  if (typeof json === 'string') return [json]
  return typeof json === 'object' && json !== null ? Object.values(json).flatMap(stringsIn) : []
}

const SMTP_CODES = {
  refuse: { responseCode: 550, message: '5.1.1 no such user' },
  rate_limit: { responseCode: 451, message: '4.7.1 slower please' },
  fail: { responseCode: 451, message: '4.3.0 try again' },
}

/** A vendor that speaks SMTP. Refusals come at RCPT TO, the rest after the message. */
export async function smtpVendor(options: { user?: string; password?: string } = {}): Promise<Vendor> {
  let behaviour: Behaviour = 'accept'
  const seen = arrivals()
  const sockets = new Set<Socket>()
  const refusal = (code: { responseCode: number; message: string }) =>
    Object.assign(new Error(code.message), { responseCode: code.responseCode })

  const server = new SMTPServer({
    disabledCommands: ['STARTTLS'],
    authOptional: options.user === undefined,
    allowInsecureAuth: true,
    logger: false,
    onAuth({ username, password }, _session, done) {
      if (username === options.user && password === options.password) return done(null, { user: username })
      done(refusal({ responseCode: 535, message: `5.7.8 wrong password ${password} for ${username}` }))
    },
    onRcptTo(_address, _session, done) {
      if (behaviour === 'refuse') {
        seen.add({ raw: '', headers: {}, texts: [], to: [] })
        return done(refusal(SMTP_CODES.refuse))
      }
      done()
    },
    onData(stream, session, done) {
      const chunks: Buffer[] = []
      stream.on('data', (chunk: Buffer) => chunks.push(chunk))
      const keep = async (): Promise<unknown> => {
        const raw = Buffer.concat(chunks)
        const mail = await PostalMime.parse(raw)
        seen.add({
          raw: raw.toString('utf8'),
          headers: Object.fromEntries(mail.headers.map(({ key, value }) => [key.toLowerCase(), value])),
          texts: [mail.subject, mail.text, mail.html].filter(each => each !== undefined),
          to: session.envelope.rcptTo.map(each => each.address),
          from: session.envelope.mailFrom ? session.envelope.mailFrom.address : '',
        })
        const [socket] = sockets
        switch (behaviour) {
          case 'hang':
            return
          case 'reset':
            return socket?.resetAndDestroy()
          case 'half':
            return socket?.write('250-2.0.0 al', () => socket.resetAndDestroy())
          case 'garbage':
            return socket?.write('\x00\x01\x02 this is not SMTP\r\n')
          case 'endless':
            return socket?.write(`250-${'x'.repeat(70_000)}\r\n`, () => done())
          case 'rate_limit':
          case 'fail':
            return done(refusal(SMTP_CODES[behaviour]))
          case 'slow':
            return setImmediate(done)
          default:
            return done()
        }
      }
      stream.on('end', () => {
        keep().catch((error: Error) => stream.destroy(error))
      })
    },
  })
  server.on('error', () => {})
  server.server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket)).on('error', () => {})
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))

  return {
    host: '127.0.0.1',
    port: (server.server.address() as AddressInfo).port,
    behave(next) {
      behaviour = next
    },
    received: seen.received,
    arrival: () => seen.next(),
    close: closer(server, sockets),
  }
}
