import assert from 'node:assert/strict'
import { generateKeyPairSync, sign } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { Ajv } from 'ajv'
import addFormats from 'ajv-formats'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { type CallbackRequest, DeliveryError, type Receipt } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  type Received,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { sendgrid } from './sendgrid.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const API_KEY = 'SG.an-api-key.with-two-parts'
const MESSAGE_ID = 'LRzXl_NHStOGhQ4kofSm_A'
const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const PUBLIC_KEY = publicKey.export({ type: 'spki', format: 'der' }).toString('base64')

const email = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'email', to: 'alice@example.com', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  apiKey: API_KEY,
  from: 'Carillon <noreply@carillon.example>',
  webhookPublicKey: PUBLIC_KEY,
  timeoutSeconds: 0.5,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

const refusal = (status: number, message: string, field: string | null = null): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ errors: [{ message, field, help: null }] }),
})

/** SendGrid as its contract and its error pages describe it: refuses what it would refuse. */
const sendgridVendor = (answer?: HttpReply) =>
  httpVendor(
    {
      accept: { status: 202, headers: { 'x-message-id': MESSAGE_ID } },
      refuse: refusal(400, 'The content value must be a string', 'content.0.value'),
      rate_limit: { ...refusal(429, 'too many requests'), headers: { 'retry-after': '7' } },
      fail: refusal(500, 'internal server error'),
    },
    asked => wrongWith(asked) ?? (asked.method === 'GET' ? SCOPES : answer),
  )

const SCOPES: HttpReply = { status: 200, body: JSON.stringify({ scopes: ['mail.send', 'user.scopes.read'] }) }

interface Address {
  email: string
  name?: string
}
interface MailSend {
  personalizations: {
    to: Address[]
    cc?: Address[]
    bcc?: Address[]
    custom_args: Record<string, string>
  }[]
  from: Address
  subject: string
  content: { type: string; value: string }[]
  headers: Record<string, string>
  categories?: string[]
  attachments?: { content: string; filename: string }[]
}

const RESERVED =
  /^(x-sg-id|x-sg-eid|received|dkim-signature|content-type|content-transfer-encoding|to|from|subject|reply-to|cc|bcc)$/i

function wrongWith(asked: Asked): HttpReply | undefined {
  if (asked.headers.authorization !== `Bearer ${API_KEY}`) return refusal(401, 'authorization required')
  if (asked.method === 'GET') return asked.path === '/v3/scopes' ? undefined : refusal(404, 'not found')
  if (asked.path !== '/v3/mail/send') return refusal(404, 'not found')
  if (asked.method !== 'POST') return refusal(405, 'method not allowed')
  if (asked.headers['content-type'] !== 'application/json') return refusal(415, 'Content-Type')
  const problems = againstContract(asked.body)
  if (problems !== undefined && problems.length > 0) return refusal(400, problems.join(', '))

  // What the contract says in words only.
  const mail = JSON.parse(asked.body) as MailSend
  const [to] = mail.personalizations
  const recipients = [...(to?.to ?? []), ...(to?.cc ?? []), ...(to?.bcc ?? [])].map(each =>
    each.email.toLowerCase(),
  )
  if (new Set(recipients).size !== recipients.length) return refusal(400, 'not unique', 'personalizations.0')
  if (mail.subject.trim() === '' || /[\r\n]/.test(mail.subject)) return refusal(400, 'subject', 'subject')
  const types = mail.content.map(each => each.type)
  if (types.length === 0) return refusal(400, 'no content', 'content')
  if (types.includes('text/plain') && types[0] !== 'text/plain') return refusal(400, 'order', 'content')
  for (const [name, value] of Object.entries(mail.headers)) {
    if (RESERVED.test(name) || !/^[\x20-\x7e]*$/.test(value)) return refusal(400, name, 'headers')
  }
  if (Buffer.byteLength(JSON.stringify(to?.custom_args)) > 10_000) return refusal(400, 'custom_args')
  return undefined
}

/** What the vendor's published contract has against a body; undefined where the contracts are absent. */
function againstContract(body: string): string[] | undefined {
  const document = contract('sendgrid-mail-send-v3.openapi.json')
  if (document === undefined) return undefined
  validate ??= compile(document)
  return validate(JSON.parse(body)) ? [] : (validate.errors ?? []).map(each => inspect(each))
}
let validate: ReturnType<typeof compile> | undefined

function contract(name: string): JsonObject | undefined {
  try {
    const file = new URL(`../../../../../shared/contracts/${name}`, import.meta.url)
    return JSON.parse(readFileSync(file, 'utf8')) as JsonObject
  } catch {
    return undefined
  }
}

function compile(document: JsonObject) {
  const ajv = addFormats.default(new Ajv({ strict: false, allErrors: true }))
  ajv.addSchema({ $id: 'contract', ...closed(document) })
  return ajv.compile({
    $ref: 'contract#/components/requestBodies/PostMailSend/content/application~1json/schema',
  })
}

/** The contract names every field but forbids none: for us a field it does not name is a mistake. */
function closed<T>(node: T): T {
  if (Array.isArray(node)) return node.map(closed) as T
  if (typeof node !== 'object' || node === null) return node
  const copy = Object.fromEntries(Object.entries(node).map(([name, value]) => [name, closed(value)]))
  const isSchema = copy.type === 'object' && typeof copy.properties === 'object'
  return (isSchema ? { ...copy, additionalProperties: false } : copy) as T
}

/* ---------------------------------------------------------------- events */

const seconds = (at: Date) => String(at.getTime() / 1000)
function posted(events: unknown, at = NOW, body = Buffer.from(JSON.stringify(events))): CallbackRequest {
  const signature = sign('sha256', Buffer.concat([Buffer.from(seconds(at)), body]), privateKey)
  return {
    method: 'POST',
    url: 'https://carillon.example/webhooks/sendgrid',
    headers: {
      'content-type': 'application/json',
      'x-twilio-email-event-webhook-signature': signature.toString('base64'),
      'x-twilio-email-event-webhook-timestamp': seconds(at),
    },
    body,
  }
}
const event = (name: string, more: JsonObject = {}): JsonObject => ({
  email: 'alice@example.com',
  timestamp: NOW.getTime() / 1000 - 5,
  'smtp-id': '<14c5d75ce93.dfd.64b469@ismtpd-555>',
  event: name,
  sg_event_id: `event-${name}`,
  sg_message_id: `${MESSAGE_ID}.filterdrecv-p3mdw1-756b745b58-kmzbl-18-5F5FC76C-9.0`,
  carillon_notification: NOTIFICATION,
  ...more,
})
const receipt = (name: string, kind: Receipt['kind'], more: Partial<Receipt> = {}): Receipt => ({
  kind,
  at: new Date(NOW.getTime() - 5_000),
  providerMessageId: MESSAGE_ID,
  notificationId: NOTIFICATION,
  address: 'alice@example.com',
  receiptId: `event-${name}`,
  ...more,
})

// covers: DIC-102, ALP-103, PFM-170, PFM-219
testProvider(sendgrid, {
  vendor: () => sendgridVendor(),
  settings: settingsFor,
  message: () => email(),
  callbacks: [
    {
      name: 'delivered',
      request: () => posted([event('processed'), event('delivered', { response: '250 OK' })]),
      receipts: [receipt('delivered', 'delivered')],
    },
    {
      name: 'every other kind of event at once',
      request: () =>
        posted([
          event('deferred', { response: '451 4.7.1 later alice@example.com', attempt: '5' }),
          event('open'),
          event('click', { url: 'https://carillon.example/orders' }),
          event('spamreport'),
          event('spam_report'),
          event('unsubscribe'),
          event('group_unsubscribe', { asm_group_id: 10 }),
          event('group_resubscribe', { asm_group_id: 10 }),
        ]),
      receipts: [
        receipt('deferred', 'deferred', {
          code: 'unavailable',
          vendorCode: '451',
          detail: '451 4.7.1 later <address>',
        }),
        receipt('open', 'opened'),
        receipt('click', 'clicked', { detail: 'https://carillon.example/orders' }),
        receipt('spamreport', 'complained'),
        receipt('spam_report', 'complained'),
        receipt('unsubscribe', 'unsubscribed'),
        receipt('group_unsubscribe', 'unsubscribed'),
      ],
    },
  ],
})

async function open(now = NOW, settings: JsonObject = {}) {
  const http = {
    request: () => Promise.reject(new Error('not used')),
    connect: () => Promise.reject(new Error('not used')),
  }
  const opened = await openProvider(sendgrid, { ...settingsFor(), ...settings }, { http, now: () => now })
  return (request: CallbackRequest) => opened.callback(request, new AbortController().signal)
}

// covers: PFM-217, PFM-218
test('bounces, blocks and drops are told apart', async () => {
  const cases: [JsonObject, Receipt['kind'], string, string?][] = [
    [
      { event: 'bounce', type: 'bounce', reason: '500 unknown', status: '5.0.0' },
      'bounced',
      'unknown_address',
      '5.0.0',
    ],
    [{ event: 'bounce', reason: '550 5.1.1 no such user' }, 'bounced', 'unknown_address', '550'],
    [{ event: 'bounce', type: 'blocked', reason: '552', status: '5.2.2' }, 'failed', 'mailbox_full', '5.2.2'],
    [{ event: 'bounce', type: 'blocked', reason: 'blocked' }, 'failed', 'refused'],
    [
      { event: 'bounce', type: 'blocked', bounce_classification: 'Content', status: '5.7.1' },
      'failed',
      'content_refused',
      '5.7.1',
    ],
    [{ event: 'dropped', reason: 'Bounced Address' }, 'bounced', 'unknown_address', 'Bounced Address'],
    [{ event: 'dropped', reason: 'Invalid' }, 'bounced', 'invalid_address', 'Invalid'],
    [{ event: 'dropped', reason: 'Unsubscribed Address' }, 'failed', 'opted_out', 'Unsubscribed Address'],
    [{ event: 'dropped', reason: 'Spam Reporting Address' }, 'failed', 'opted_out', 'Spam Reporting Address'],
    [{ event: 'dropped', reason: 'Spam Content' }, 'failed', 'content_refused', 'Spam Content'],
    [
      { event: 'dropped', reason: 'Recipient List over Package Quota' },
      'failed',
      'refused',
      'Recipient List over Package Quota',
    ],
  ]
  const callback = await open()
  for (const [more, kind, code, vendorCode] of cases) {
    const { receipts } = await callback(posted([event('x', more)]))
    assert.equal(receipts.length, 1)
    const [told] = receipts
    assert.deepEqual(
      [told?.kind, told?.code, told?.vendorCode, told?.providerMessageId],
      [kind, code, vendorCode, MESSAGE_ID],
      inspect(more),
    )
  }
})

// covers: PFM-211, PFM-220
test('one event that cannot be read costs none of the others; the answer is 200 OK', async () => {
  const callback = await open()
  const bad = [
    null,
    7,
    'text',
    [],
    {},
    { event: 'delivered' },
    { event: ['delivered'] },
    event('delivered', { timestamp: 'soon' }),
    event('delivered', { timestamp: 1e300 }),
    event('delivered', { sg_message_id: 17, carillon_notification: { a: 1 } }),
    event('constructor'),
    event('teleported'),
  ]
  const answer = await callback(posted([event('open'), ...bad, event('click')]))
  assert.deepEqual(
    answer.receipts.map(each => each.kind),
    ['opened', 'clicked'],
  )
  assert.deepEqual(answer.reply, { status: 200, contentType: 'text/plain; charset=utf-8', body: 'OK' })
})

test('times come in seconds, as text, and in milliseconds', async () => {
  const callback = await open()
  for (const timestamp of [1_591_726_752, '1591726752', 1_591_726_752_000]) {
    const { receipts } = await callback(posted([event('open', { timestamp })]))
    assert.equal(receipts[0]?.at.getTime(), 1_591_726_752_000)
  }
})

test('a recorded request is of no use later; one that SendGrid repeats for a day is', async () => {
  const request = posted([event('open')])
  const later = (hours: number) => open(new Date(NOW.getTime() + hours * 3_600_000))
  assert.equal((await (await later(23))(request)).receipts.length, 1)
  for (const hours of [26, -1]) await assert.rejects((await later(hours))(request), /too old/)
})

test('without a key, or with one that is none, everything is refused', async () => {
  for (const webhookPublicKey of [undefined, 'AAAA'] as const) {
    const callback = await open(NOW, { webhookPublicKey } as unknown as JsonObject)
    await assert.rejects(callback(posted([event('open')])), { code: 'unauthenticated' })
  }
  // Signed, but by somebody else.
  const stranger = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey
  const key = stranger.export({ type: 'spki', format: 'der' }).toString('base64')
  const callback = await open(NOW, { webhookPublicKey: key })
  await assert.rejects(callback(posted([event('open')])), { code: 'unauthenticated' })
})

test("SendGrid's own signed requests are read", async t => {
  const examples = contract('sendgrid-event-webhook-examples.json') as unknown as {
    signed_webhook_vectors: {
      vectors: { headers: Record<string, string>; public_key_der_base64: string; body: string }[]
    }
  }
  if (examples === undefined) return t.skip('the vendor contracts are not beside this checkout')
  const kinds: string[][] = []
  for (const { headers, public_key_der_base64: key, body } of examples.signed_webhook_vectors.vectors) {
    const lower = Object.fromEntries(
      Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
    )
    const at = new Date(Number(lower['x-twilio-email-event-webhook-timestamp']) * 1000)
    const callback = await open(at, { webhookPublicKey: key })
    const request = { method: 'POST', url: 'https://x.example', headers: lower, body: Buffer.from(body) }
    const { receipts } = await callback(request)
    kinds.push(receipts.map(each => `${each.kind} ${each.code} ${each.providerMessageId}`))
    const tampered = {
      ...request,
      body: Buffer.from(body.replace('hello', 'hallo').replace('invalid', 'valid')),
    }
    await assert.rejects(callback(tampered), { code: 'unauthenticated' })
  }
  assert.deepEqual(kinds, [
    [`bounced unknown_address ${MESSAGE_ID}`],
    ['failed mailbox_full qNwBLgPQQjW6DJvKQwSAbw'],
  ])
})

test("SendGrid's published examples are read", async t => {
  const examples = contract('sendgrid-event-webhook-examples.json') as unknown as {
    batch_with_every_event_type: JsonObject[]
    per_event_type: JsonObject[]
  }
  if (examples === undefined) return t.skip('the vendor contracts are not beside this checkout')
  const callback = await open()
  const { receipts } = await callback(posted(examples.batch_with_every_event_type))
  assert.deepEqual(
    receipts.map(each => each.kind),
    [
      'deferred',
      'delivered',
      'opened',
      'clicked',
      'bounced',
      'bounced',
      'complained',
      'unsubscribed',
      'unsubscribed',
    ],
  )
  const each = await callback(posted(examples.per_event_type))
  const silent = examples.per_event_type.filter(({ event: name }) =>
    ['processed', 'group_resubscribe'].includes(name as string),
  )
  assert.equal(each.receipts.length, examples.per_event_type.length - silent.length)
  for (const told of each.receipts) assert.ok(told.providerMessageId && !told.providerMessageId.includes('.'))
})

/* ---------------------------------------------------------------- sending */

async function deliver(message: Message, more: { answer?: HttpReply; settings?: JsonObject } = {}) {
  const vendor = await sendgridVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(sendgrid, settings, { http, now: () => NOW })
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
const bodyOf = ({ raw }: Received) => raw.slice(raw.indexOf('\r\n\r\n') + 4)

const full = (): Message =>
  email({
    unsubscribeUrl: 'https://carillon.example/u/token?a=b',
    content: {
      subject: 'Überraschung ✓',
      body: 'as text',
      html: '<p>as <b>HTML</b></p>',
      attachments: [{ filename: 'Grüße.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
      data: { email: { cc: 'bob@example.com', bcc: ['carol@example.com'], replyTo: 'help@example.com' } },
    },
  })

// covers: DIC-103, PFM-170
test('a message has text and HTML, copies, reply-to, attachments, headers and what comes back with events', async () => {
  const { sent, received } = await deliver(full(), { settings: { costPerMessage: 0.001, currency: 'EUR' } })
  assert.deepEqual(sent, {
    outcome: 'sent',
    providerMessageId: MESSAGE_ID,
    code: '202',
    cost: { amount: 0.003, currency: 'EUR' },
  })
  assert.ok(received[0])
  assert.deepEqual(JSON.parse(bodyOf(received[0])), {
    personalizations: [
      {
        to: [{ email: 'alice@example.com' }],
        cc: [{ email: 'bob@example.com' }],
        bcc: [{ email: 'carol@example.com' }],
        custom_args: { carillon_notification: NOTIFICATION, carillon_delivery: `${NOTIFICATION}.1` },
      },
    ],
    from: { email: 'noreply@carillon.example', name: 'Carillon' },
    reply_to: { email: 'help@example.com' },
    subject: 'Überraschung ✓',
    content: [
      { type: 'text/plain', value: 'as text' },
      { type: 'text/html', value: '<p>as <b>HTML</b></p>' },
    ],
    headers: {
      'Auto-Submitted': 'auto-generated',
      'X-Carillon-Notification': NOTIFICATION,
      'List-Unsubscribe': '<https://carillon.example/u/token?a=b>',
      'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
      'Message-ID': `<${NOTIFICATION}.1@carillon.example>`,
    },
    categories: ['commerce.order.shipped'],
    attachments: [
      { content: 'aGVsbG8=', filename: 'Grüße.txt', type: 'text/plain', disposition: 'attachment' },
    ],
    tracking_settings: {
      click_tracking: { enable: false, enable_text: false },
      open_tracking: { enable: false },
      subscription_tracking: { enable: false },
      ganalytics: { enable: false },
    },
  })
})

test("each field stands in the vendor's contract", async t => {
  if (contract('sendgrid-mail-send-v3.openapi.json') === undefined) {
    return t.skip('the vendor contracts are not beside this checkout')
  }
  for (const message of [full(), email(), email({ content: { body: '', html: '<p>x</p>' } })]) {
    const { received } = await deliver(message)
    assert.ok(received[0])
    const body = bodyOf(received[0])
    assert.deepEqual(againstContract(body), [])
    // The contract is really asked.
    for (const spoilt of [{ subject: '' }, { from: {} }, { surprise: 1 }, { categories: ['a', 'a'] }]) {
      assert.notDeepEqual(againstContract(JSON.stringify({ ...JSON.parse(body), ...spoilt })), [])
    }
  }
})

test('a message without a subject takes its first words', async () => {
  const cases: [string, string][] = [
    ['\n  First\tline \nsecond', 'First line'],
    ['x'.repeat(200), `${'x'.repeat(77)}…`],
  ]
  for (const [body, subject] of cases) {
    const { received } = await deliver(email({ content: { body } }))
    assert.ok(received[0])
    assert.equal((JSON.parse(bodyOf(received[0])) as MailSend).subject, subject)
  }
})

test('what SendGrid says is judged by status, field and words', async () => {
  const cases: [HttpReply, string, string][] = [
    [
      refusal(400, 'Does not contain a valid address.', 'personalizations.0.to.0.email'),
      'permanent',
      'invalid_address',
    ],
    [refusal(400, 'must be a string', 'content.0.value'), 'permanent', 'invalid_request'],
    [refusal(401, 'The provided authorization grant is invalid, expired, or revoked'), 'temporary', 'auth'],
    [refusal(401, 'Maximum credits exceeded'), 'rate_limited', 'rate_limited'],
    [
      refusal(403, 'The from address does not match a verified Sender Identity.', 'from'),
      'temporary',
      'invalid_settings',
    ],
    [refusal(403, 'access forbidden'), 'temporary', 'forbidden'],
    [refusal(404, 'not found'), 'temporary', 'invalid_settings'],
    [refusal(405, 'method not allowed'), 'permanent', 'invalid_request'],
    [refusal(413, 'content too large'), 'permanent', 'too_large'],
    [refusal(500, 'internal server error'), 'temporary', 'server_error'],
    [{ status: 503, body: '<html>no</html>' }, 'temporary', 'unavailable'],
    [{ status: 202 }, 'unknown', 'garbled_answer'],
  ]
  for (const [answer, kind, code] of cases) {
    const { sent } = await deliver(email(), { answer })
    assert.ok(sent instanceof DeliveryError, inspect(answer))
    assert.deepEqual([sent.kind, sent.code], [kind, code], inspect(answer))
  }
  const named = await deliver(email(), { answer: refusal(400, 'no alice@example.com here') })
  assert.ok(named.sent instanceof DeliveryError)
  assert.equal(named.sent.response, 'no <address> here')
})

test('the pace that SendGrid names is kept', async () => {
  const reset = (value: string): HttpReply => ({ status: 429, headers: { 'x-ratelimit-reset': value } })
  const cases: [HttpReply, number][] = [
    [reset(String(NOW.getTime() / 1000 + 30)), 30],
    [reset(String(NOW.getTime() / 1000 - 30)), 1],
    [reset('9999999999'), 3600],
    [reset('soon'), 1],
    [{ status: 429 }, 1],
  ]
  for (const [answer, wait] of cases) {
    const { sent } = await deliver(email(), { answer })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.until?.getTime()], ['rate_limited', NOW.getTime() + wait * 1000])
  }
})

test('what SendGrid would refuse is not asked for', async () => {
  const empty = { filename: 'a.txt', contentType: 'text/plain', content: '' }
  for (const content of [{ body: '' }, { body: 'x', attachments: [empty] }]) {
    const { sent, received } = await deliver(email({ content }))
    assert.ok(sent instanceof DeliveryError && sent.final)
    assert.equal(sent.code, 'content_refused')
    assert.equal(received.length, 0)
  }
})

test('the check tells a key that may not send', async () => {
  const http = {
    request: () => Promise.resolve({ status: 200, headers: {}, complete: true, body: '{"scopes":["x"]}' }),
    connect: () => Promise.reject(new Error('not used')),
  }
  const opened = await openProvider(sendgrid, settingsFor(), { http, now: () => NOW })
  await assert.rejects(opened.check(new AbortController().signal), /may not send/)
})
