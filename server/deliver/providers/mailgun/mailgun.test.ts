import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import { inspect } from 'node:util'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { type CallbackRequest, DeliveryError, type Receipt } from '../../provider.ts'
import {
  exampleMessage,
  type HttpReply,
  httpVendor,
  type Received,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { mailgun } from './mailgun.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const MESSAGE_ID = `${NOTIFICATION}.1@carillon.example`
const API_KEY = 'key-0123456789abcdef'
const SIGNING_KEY = 'signing-0123456789abcdef'

const email = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'email', to: 'alice@example.com', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  apiKey: API_KEY,
  domain: 'mg.carillon.example',
  from: 'Carillon <noreply@carillon.example>',
  webhookSigningKey: SIGNING_KEY,
  timeoutSeconds: 0.5,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

const refusal = (status: number, message: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ message }),
})
const DOMAIN: HttpReply = {
  status: 200,
  body: JSON.stringify({ domain: { name: 'mg.carillon.example', state: 'active', is_disabled: false } }),
}

/** Mailgun as its API reference describes it: refuses what it would refuse. */
async function mailgunVendor(answer?: HttpReply): Promise<Vendor> {
  return httpVendor(
    {
      accept: {
        status: 200,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ id: `<${MESSAGE_ID}>`, message: 'Queued. Thank you.' }),
      },
      refuse: refusal(400, 'from parameter is not a valid address'),
      rate_limit: { ...refusal(429, 'too many requests'), headers: { 'retry-after': '7' } },
      fail: refusal(500, 'Internal Server Error'),
    },
    ({ method, path, headers, body }) => {
      const credentials = Buffer.from(`api:${API_KEY}`).toString('base64')
      if (headers.authorization !== `Basic ${credentials}`) return refusal(401, 'Forbidden')
      if (method === 'GET') {
        return path === '/v4/domains/mg.carillon.example' ? DOMAIN : refusal(404, 'Domain not found')
      }
      if (method !== 'POST' || path !== '/v3/mg.carillon.example/messages') return refusal(404, 'Not Found')
      const [, boundary] = /^multipart\/form-data; boundary=(\S+)$/.exec(headers['content-type'] ?? '') ?? []
      if (boundary === undefined) return refusal(400, 'content type')
      const fields = partsOf(body, boundary)
      const wrong = problem(fields)
      return wrong === undefined ? answer : refusal(400, wrong)
    },
  )
}

interface Part {
  name: string
  filename?: string
  type?: string
  value: string
}

/** Read by hand: what wrote the form may not be what says whether it is well written (RFC 7578 §4). */
function partsOf(body: string, boundary: string): Part[] {
  assert.ok(body.endsWith(`\r\n--${boundary}--\r\n`) || body.endsWith(`\r\n--${boundary}--`))
  return `\r\n${body}`
    .split(`\r\n--${boundary}`)
    .slice(1, -1)
    .map(part => {
      const end = part.indexOf('\r\n\r\n')
      const head = part.slice(0, end)
      const [, name] = /; name="([^"]*)"/.exec(head) ?? []
      assert.ok(name !== undefined, head)
      const [, filename] = /; filename="([^"]*)"/.exec(head) ?? []
      const [, type] = /content-type: (.*)/i.exec(head) ?? []
      return { name, filename, type, value: part.slice(end + 4) }
    })
}

const KNOWN =
  /^(from|to|cc|bcc|subject|text|html|attachment|o:(tag|tracking(-clicks|-opens)?)|h:[!-9;-~]+|v:\w+)$/

function problem(parts: Part[]): string | undefined {
  const all = (name: string) => parts.filter(each => each.name === name).map(each => each.value)
  for (const name of ['from', 'to', 'subject'])
    if (all(name).length !== 1) return `${name} parameter is missing`
  if (all('text').length + all('html').length === 0) return "Need at least one of 'text' or 'html'"
  for (const each of [...all('to'), ...all('cc'), ...all('bcc')]) {
    if (!/^[^\s@,]+@[^\s@,]+$/.test(each)) return 'to parameter is not a valid address'
  }
  for (const { name, value } of parts) {
    if (!KNOWN.test(name)) return `${name} is not known`
    if (name.startsWith('o:tracking') && !['yes', 'no'].includes(value)) return name
    if (name.startsWith('h:') && /[\r\n]/.test(value)) return `${name} has two lines`
    if (name === 'o:tag' && !/^[\x21-\x7e]{1,128}$/.test(value)) return name
  }
  const options = parts.filter(each => /^[ohvt]:/.test(each.name))
  if (Buffer.byteLength(options.map(each => each.name + each.value).join('')) > 16_384) return 'options'
  return undefined
}

/* ---------------------------------------------------------------- events */

const signatureOf = (timestamp: string, token: string, key = SIGNING_KEY) =>
  createHmac('sha256', key)
    .update(timestamp + token)
    .digest('hex')

function posted(event: JsonObject, token = 'b'.repeat(50), at = NOW): CallbackRequest {
  const timestamp = String(Math.floor(at.getTime() / 1000))
  const signature = { timestamp, token, signature: signatureOf(timestamp, token) }
  return {
    method: 'POST',
    url: 'https://carillon.example/webhooks/mailgun',
    headers: { 'content-type': 'application/json' },
    body: Buffer.from(JSON.stringify({ signature, 'event-data': event })),
  }
}
const changed = (
  request: CallbackRequest,
  change: (body: { signature: JsonObject } & JsonObject) => void,
) => {
  const body = JSON.parse(request.body.toString()) as { signature: JsonObject } & JsonObject
  change(body)
  return { ...request, body: Buffer.from(JSON.stringify(body)) }
}
// The signature covers timestamp and token, not the event.
const forged = (request: CallbackRequest): CallbackRequest[] => [
  changed(request, body => (body.signature.token = 'c'.repeat(50))),
  changed(request, body => (body.signature.timestamp = String(Number(body.signature.timestamp) - 1))),
  changed(request, body => (body.signature.signature = 'ab')),
  changed(request, body => (body.signature.signature = signatureOf('1', 'x'))),
  changed(request, body => delete body.signature.signature),
  changed(request, body => delete (body as JsonObject).signature),
]

const event = (name: string, more: JsonObject = {}): JsonObject => ({
  event: name,
  id: 'CCXMjJ7nQi2N3BPigGOdgQ',
  timestamp: NOW.getTime() / 1000 - 4.5,
  'log-level': 'info',
  recipient: 'alice@example.com',
  'recipient-domain': 'example.com',
  'user-variables': { notification: NOTIFICATION },
  message: { headers: { 'message-id': MESSAGE_ID, from: 'x', to: 'y', subject: 'z' }, size: 341 },
  ...more,
})
const receipt = (kind: Receipt['kind'], more: Partial<Receipt> = {}): Receipt => ({
  kind,
  at: new Date(NOW.getTime() - 4_500),
  providerMessageId: MESSAGE_ID,
  notificationId: NOTIFICATION,
  address: 'alice@example.com',
  receiptId: `CCXMjJ7nQi2N3BPigGOdgQ:${NOW.getTime() / 1000 - 5}`,
  ...more,
})
const failed = (
  severity: string,
  reason: string,
  code?: number,
  enhanced?: string,
  said = 'said no',
): JsonObject =>
  event('failed', {
    severity,
    reason,
    'delivery-status': {
      ...(code === undefined ? {} : { code }),
      ...(enhanced === undefined ? {} : { 'enhanced-code': enhanced }),
      message: `<alice@example.com> ${said}`,
    },
  })

const callbacks: [string, JsonObject, Receipt[]][] = [
  ['delivered', event('delivered'), [receipt('delivered')]],
  ['complained', event('complained'), [receipt('complained')]],
  ['unsubscribed', event('unsubscribed'), [receipt('unsubscribed')]],
  ['opened', event('opened', { ip: '192.0.2.1' }), [receipt('opened')]],
  [
    'clicked',
    event('clicked', { url: 'https://carillon.example/orders' }),
    [receipt('clicked', { detail: 'https://carillon.example/orders' })],
  ],
  [
    'failed for good',
    failed('permanent', 'bounce', 550, '5.1.1'),
    [
      receipt('bounced', {
        code: 'unknown_address',
        vendorCode: '550 5.1.1 bounce',
        detail: '<<address>> said no',
      }),
    ],
  ],
  [
    'failed for now',
    failed('temporary', 'generic', 421, '4.7.0'),
    [
      receipt('deferred', {
        code: 'unavailable',
        vendorCode: '421 4.7.0 generic',
        detail: '<<address>> said no',
      }),
    ],
  ],
]

// covers: DIC-102, DIC-106
testProvider(mailgun, {
  vendor: () => mailgunVendor(),
  settings: settingsFor,
  message: () => email(),
  callbacks: callbacks.map(([name, told, receipts]) => ({
    name,
    request: () => posted(told),
    receipts,
    forged,
  })),
})

async function open(now = NOW, settings: JsonObject = {}) {
  const http = {
    request: () => Promise.reject(new Error('not used')),
    connect: () => Promise.reject(new Error('not used')),
  }
  const opened = await openProvider(mailgun, { ...settingsFor(), ...settings }, { http, now: () => now })
  return (request: CallbackRequest) => opened.callback(request, new AbortController().signal)
}

test('failures are told apart', async () => {
  const cases: [JsonObject, Receipt['kind'], string, string][] = [
    [failed('permanent', 'suppress-bounce', 605), 'bounced', 'unknown_address', '605 suppress-bounce'],
    [failed('permanent', 'suppress-unsubscribe', 606), 'failed', 'opted_out', '606 suppress-unsubscribe'],
    [failed('permanent', 'suppress-complaint', 607), 'failed', 'opted_out', '607 suppress-complaint'],
    [failed('permanent', 'generic', 550), 'bounced', 'unknown_address', '550 generic'],
    [failed('permanent', 'bounce', 550, '5.2.1'), 'bounced', 'unknown_address', '550 5.2.1 bounce'],
    [failed('permanent', 'bounce', 552, '5.2.2'), 'failed', 'mailbox_full', '552 5.2.2 bounce'],
    [failed('permanent', 'bounce', 550, '5.7.1'), 'failed', 'refused', '550 5.7.1 bounce'],
    [failed('permanent', 'bounce', 554, '5.6.0'), 'failed', 'content_refused', '554 5.6.0 bounce'],
    [
      failed('permanent', 'generic', 550, undefined, 'relay not permitted'),
      'failed',
      'refused',
      '550 generic',
    ],
    [failed('permanent', 'bounce', 550, '5.1.8'), 'failed', 'refused', '550 5.1.8 bounce'],
    [failed('permanent', 'bounce', 503, '5.5.1'), 'failed', 'refused', '503 5.5.1 bounce'],
    [failed('permanent', 'espblock', 550, '5.7.1'), 'failed', 'refused', '550 5.7.1 espblock'],
    [failed('permanent', 'old', 602), 'failed', 'unavailable', '602 old'],
    [failed('temporary', 'generic', 452, '4.2.2'), 'deferred', 'mailbox_full', '452 4.2.2 generic'],
  ]
  for (const [told, kind, code, vendorCode] of cases) {
    const { receipts } = await (await open())(posted(told))
    assert.deepEqual(
      receipts.map(each => [each.kind, each.code, each.vendorCode]),
      [[kind, code, vendorCode]],
    )
  }
})

test('what says nothing, or nothing that can be read, gives no receipt; the answer is 200', async () => {
  for (const told of [
    event('accepted'),
    event('constructor'),
    {},
    event('opened', { timestamp: 'soon' }),
    event('opened', { message: { headers: [] }, 'user-variables': [] }),
    event('opened', { message: null, 'user-variables': { notification: { a: 1 } } }),
  ]) {
    const answer = await (await open())(posted(told))
    assert.deepEqual(answer.receipts, [], inspect(told))
    // Mailgun repeats what is answered by 204.
    assert.equal(answer.reply?.status, 200)
  }
})

test('a signature serves for one event, which may be repeated, for as long as Mailgun repeats', async () => {
  const callback = await open()
  const first = posted(event('delivered'))
  const once = async (request: CallbackRequest) => (await callback(request)).once
  const told = await once(first)
  assert.equal(told?.until.getTime(), Math.floor(NOW.getTime() / 1000) * 1000 + 9 * 3_600_000)
  assert.deepEqual(await once(first), told)
  // The same token beside another event: server/track/callback-once.ts refuses it.
  for (const other of [event('delivered', { id: 'another' }), event('complained')]) {
    const { token, event: named } = (await once(posted(other)))!
    assert.equal(token, told?.token)
    assert.notEqual(named, told?.event)
  }
  assert.notEqual((await once(posted(event('complained'), 'd'.repeat(50))))?.token, told?.token)

  const later = (hours: number) => open(new Date(NOW.getTime() + hours * 3_600_000))
  assert.equal((await (await later(8))(first)).receipts.length, 1)
  for (const hours of [10, -1]) await assert.rejects((await later(hours))(first), { code: 'unauthenticated' })
})

test('the account above a subaccount may sign as well', async () => {
  const request = changed(posted(event('delivered')), ({ signature }) => {
    signature['parent-signature'] = signature.signature as string
    signature.signature = signatureOf(signature.timestamp as string, signature.token as string, 'another key')
  })
  assert.equal((await (await open())(request)).receipts.length, 1)
})

test('without a key every callback is refused', async () => {
  const callback = await open(NOW, { webhookSigningKey: undefined } as unknown as JsonObject)
  await assert.rejects(callback(posted(event('delivered'))), { code: 'unauthenticated' })
})

/* ---------------------------------------------------------------- sending */

async function deliver(message: Message, more: { answer?: HttpReply; settings?: JsonObject } = {}) {
  const vendor = await mailgunVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(mailgun, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    return { sent, received: vendor.received }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

function partsIn({ raw, headers }: Received): Part[] {
  const boundary = /boundary=(\S+)/.exec(headers['content-type'] ?? '')?.[1] ?? ''
  return partsOf(raw.slice(raw.indexOf('\r\n\r\n') + 4), boundary)
}

// covers: DIC-103
test('a message has text and HTML, copies, reply-to, attachments, headers and what comes back with events', async () => {
  const { sent, received } = await deliver(
    email({
      unsubscribeUrl: 'https://carillon.example/u/token?a=b',
      content: {
        subject: 'Überraschung ✓',
        body: 'as text',
        html: '<p>as <b>HTML</b></p>',
        attachments: [{ filename: 'Grü"ße.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
        data: { email: { cc: 'bob@example.com', bcc: ['carol@example.com'], replyTo: 'help@example.com' } },
      },
    }),
    { settings: { from: 'Grüße <noreply@carillon.example>', costPerMessage: 0.0008 } },
  )
  assert.deepEqual(sent, {
    outcome: 'sent',
    providerMessageId: MESSAGE_ID,
    code: '200',
    cost: { amount: 0.0024, currency: 'USD' },
  })
  assert.ok(received[0])
  const parts = partsIn(received[0])
  assert.deepEqual(
    parts.filter(each => each.filename === undefined).map(each => [each.name, each.value]),
    [
      ['from', '"Grüße" <noreply@carillon.example>'],
      ['to', 'alice@example.com'],
      ['cc', 'bob@example.com'],
      ['bcc', 'carol@example.com'],
      ['subject', 'Überraschung ✓'],
      ['text', 'as text'],
      ['html', '<p>as <b>HTML</b></p>'],
      ['o:tracking', 'no'],
      ['o:tracking-clicks', 'no'],
      ['o:tracking-opens', 'no'],
      ['v:notification', NOTIFICATION],
      ['h:Message-Id', `<${MESSAGE_ID}>`],
      ['h:Auto-Submitted', 'auto-generated'],
      ['h:X-Carillon-Notification', NOTIFICATION],
      ['h:List-Unsubscribe', '<https://carillon.example/u/token?a=b>'],
      ['h:List-Unsubscribe-Post', 'List-Unsubscribe=One-Click'],
      ['h:Reply-To', 'help@example.com'],
      ['o:tag', 'commerce.order.shipped'],
    ],
  )
  assert.deepEqual(
    parts.filter(each => each.filename !== undefined),
    [{ name: 'attachment', filename: 'Grü%22ße.txt', type: 'text/plain', value: 'hello' }],
  )
})

test('what Mailgun says is judged by status and words', async () => {
  const cases: [HttpReply, string, string][] = [
    [
      refusal(400, 'to parameter is not a valid address. please check documentation'),
      'permanent',
      'invalid_address',
    ],
    [
      refusal(400, "Need at least one of 'text' or 'html' parameters specified"),
      'permanent',
      'invalid_request',
    ],
    [
      refusal(
        403,
        'Free accounts are for test purposes only. Please add the address to your authorized recipients',
      ),
      'rejected',
      'forbidden',
    ],
    [{ status: 401, body: 'Forbidden' }, 'temporary', 'auth'],
    [refusal(402, 'Request Failed'), 'temporary', 'forbidden'],
    [refusal(403, 'Domain mg.carillon.example is not allowed to send'), 'temporary', 'forbidden'],
    [refusal(404, 'Domain not found: mg.carillon.example'), 'temporary', 'invalid_settings'],
    [{ status: 413, body: '' }, 'permanent', 'too_large'],
    [{ status: 502, body: '<html>no</html>' }, 'temporary', 'server_error'],
    [{ status: 200, body: 'Mailgun Magnificent API' }, 'unknown', 'garbled_answer'],
    [{ status: 200, body: '{"message":"Queued."}' }, 'unknown', 'garbled_answer'],
  ]
  for (const [answer, kind, code] of cases) {
    const { sent } = await deliver(email(), { answer })
    assert.ok(sent instanceof DeliveryError, inspect(answer))
    assert.deepEqual([sent.kind, sent.code], [kind, code], inspect(answer))
  }
  const named = await deliver(email(), { answer: refusal(400, "'alice@example.com' is odd") })
  assert.ok(named.sent instanceof DeliveryError)
  assert.equal(named.sent.response, "'<address>' is odd")
  const fast = await deliver(email(), { answer: refusal(429, 'slower') })
  assert.ok(fast.sent instanceof DeliveryError)
  assert.equal(fast.sent.until?.getTime(), NOW.getTime() + 10_000)
})

test('what Mailgun would refuse is not asked for', async () => {
  const bad: [Partial<Message>, string][] = [
    [{ content: { body: '' } }, 'content_refused'],
    [{ unsubscribeUrl: `https://carillon.example/${'x'.repeat(17_000)}` }, 'too_large'],
  ]
  for (const [more, code] of bad) {
    const { sent, received } = await deliver(email(more))
    assert.ok(sent instanceof DeliveryError && sent.final)
    assert.equal(sent.code, code)
    assert.equal(received.length, 0)
  }
})

test('each region has its host; the check tells a domain that does not send', async () => {
  const asked: string[] = []
  let domain: JsonObject = { state: 'active', is_disabled: false }
  const http = {
    request: ({ url }: { url: string }) => {
      asked.push(url)
      return Promise.resolve({ status: 200, headers: {}, complete: true, body: JSON.stringify({ domain }) })
    },
    connect: () => Promise.reject(new Error('not used')),
  }
  const { signal } = new AbortController()
  for (const region of ['us', 'eu']) {
    const opened = await openProvider(mailgun, { ...settingsFor(), region }, { http, now: () => NOW })
    await opened.check(signal)
  }
  assert.deepEqual(asked, [
    'https://api.mailgun.net/v4/domains/mg.carillon.example',
    'https://api.eu.mailgun.net/v4/domains/mg.carillon.example',
  ])
  const opened = await openProvider(mailgun, settingsFor(), { http, now: () => NOW })
  const others: JsonObject[] = [{ state: 'unverified' }, { state: 'active', is_disabled: true }]
  for (const other of others) {
    domain = other
    await assert.rejects(opened.check(signal), /does not send/)
  }
})

test('settings that do not fit are refused', () => {
  for (const [more, field] of [
    [{ domain: 'mg.example.com/../..' }, '/domain'],
    [{ domain: 'localhost' }, '/domain'],
    [{ region: 'asia' }, '/region'],
    [{ apiKey: 'a\r\nb' }, '/apiKey'],
  ] as const) {
    assert.throws(
      () => readSettings(mailgun.settings, { ...settingsFor(), ...more }),
      (error: { errors?: { field: string }[] }) => error.errors?.some(each => each.field === field) === true,
      field,
    )
  }
})
