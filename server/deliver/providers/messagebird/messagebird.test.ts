import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../../../errors.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { type CallbackRequest, DeliveryError, makeSecret } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { checkSignature, messagebird } from './messagebird.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const ACCESS_KEY = 'live_an-access-key'
const SIGNING_KEY = 'the-signing-key-of-the-account'
const REPORTS = 'https://carillon.example/webhooks/messagebird'
const ID = 'efa6405d518d4c0c88cce11f7db775fb'

const sms = (more: Partial<Message> = {}) => exampleMessage({ channel: 'sms', to: '+31612345678', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  accessKey: ACCESS_KEY,
  originator: 'Carillon',
  signingKey: SIGNING_KEY,
  reportUrl: REPORTS,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

/* ------------------------------------------------- a stand-in that is as strict as MessageBird */

const refusal = (status: number, code: number, description: string, parameter?: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ errors: [{ code, description, parameter: parameter ?? null }] }),
})

const accepted = (item: JsonObject = {}): HttpReply => ({
  status: 201,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({
    id: ID,
    href: `https://rest.messagebird.com/messages/${ID}`,
    direction: 'mt',
    type: 'sms',
    originator: 'Carillon',
    datacoding: 'plain',
    recipients: {
      totalCount: 1,
      totalSentCount: 1,
      items: [
        { recipient: 31612345678, status: 'sent', statusDatetime: '2026-11-21T12:00:00+00:00', ...item },
      ],
    },
  }),
})

const FIELDS = ['originator', 'recipients', 'body', 'datacoding', 'reference', 'reportUrl']

function strict({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (headers.authorization !== `AccessKey ${ACCESS_KEY}`) {
    return refusal(401, 2, 'Request not allowed (incorrect access_key)', 'access_key')
  }
  if (method === 'GET') {
    return path === '/balance'
      ? { status: 200, body: '{"payment":"prepaid","type":"euros","amount":9.2}' }
      : refusal(404, 20, 'Not found')
  }
  if (method !== 'POST' || path !== '/messages') return refusal(405, 98, 'API not found')
  if (headers['content-type'] !== 'application/json') return refusal(400, 21, 'Bad request')
  const { originator, recipients, body: text, ...more } = JSON.parse(body) as JsonObject
  for (const name of Object.keys(more)) {
    if (!FIELDS.includes(name)) return refusal(422, 10, `${name} is not known`, name)
  }
  if (typeof originator !== 'string' || !/^(\+?\d{1,17}|[A-Za-z0-9 ]{1,11})$/.test(originator)) {
    return refusal(422, 10, 'originator is invalid', 'originator')
  }
  if (
    !Array.isArray(recipients) ||
    recipients.length !== 1 ||
    typeof recipients[0] !== 'string' ||
    !/^[1-9]\d{6,14}$/.test(recipients[0])
  ) {
    return refusal(422, 9, 'no (correct) recipients found', 'recipient')
  }
  if (typeof text !== 'string' || text === '') return refusal(422, 9, 'body is required', 'body')
  if (text.length > 1_377) return refusal(422, 10, 'body is too long', 'body')
  if (more.reference !== undefined && (typeof more.reference !== 'string' || more.reference.length > 60)) {
    return refusal(422, 10, 'reference is too long', 'reference')
  }
  return undefined
}

const birdVendor = (answer?: HttpReply) =>
  httpVendor({ refuse: refusal(422, 9, 'no (correct) recipients found', 'recipient') }, asked => {
    const refused = strict(asked)
    return refused ?? answer ?? accepted()
  })

/* ------------------------------------------------- callbacks as MessageBird sends them */

const sha256 = (data: string | Buffer) => createHash('sha256').update(data).digest('hex')

function jwt(claims: JsonObject, key = SIGNING_KEY, alg = 'HS256'): string {
  const part = (json: JsonObject) => Buffer.from(JSON.stringify(json)).toString('base64url')
  const text = `${part({ alg, typ: 'JWT' })}.${part(claims)}`
  const hash = alg.replace('HS', 'sha')
  return `${text}.${createHmac(/^sha\d/.test(hash) ? hash : 'sha256', key)
    .update(text)
    .digest('base64url')}`
}

const claimsFor = (url: string, body: Buffer): JsonObject => ({
  iss: 'MessageBird',
  nbf: NOW.getTime() / 1000 - 2,
  exp: NOW.getTime() / 1000 + 58,
  jti: '59a244dc-e9ad-4e23-9778-371faa238f72',
  url_hash: sha256(url),
  ...(body.length === 0 ? {} : { payload_hash: sha256(body) }),
})

function signed(
  method: string,
  url: string,
  text = '',
  more: { claims?: JsonObject; key?: string; alg?: string } = {},
): CallbackRequest {
  const body = Buffer.from(text)
  const token = jwt({ ...claimsFor(url, body), ...more.claims }, more.key, more.alg)
  return { method, url, headers: { 'messagebird-signature-jwt': token }, body }
}

const report = (params: Record<string, string>): Record<string, string> => ({
  id: ID,
  reference: `${NOTIFICATION}.1`,
  recipient: '31612345678',
  statusDatetime: '2026-11-21T11:59:30+00:00',
  ...params,
})
const asQuery = (params: Record<string, string>) =>
  signed('GET', `${REPORTS}?${new URLSearchParams(report(params))}`)
const asForm = (params: Record<string, string>) =>
  signed('POST', REPORTS, new URLSearchParams(report(params)).toString())
const receipt = (status: string) => ({
  at: new Date('2026-11-21T11:59:30.000Z'),
  providerMessageId: ID,
  receiptId: `${ID}:${status}`,
  notificationId: NOTIFICATION,
  address: '+31612345678',
})

// covers: DIC-107, DIC-108
testProvider(messagebird, {
  vendor: () => birdVendor(),
  settings: settingsFor,
  message: () => sms(),
  callbacks: [
    {
      name: 'delivered',
      request: () => asForm({ status: 'delivered' }),
      receipts: [{ kind: 'delivered', ...receipt('delivered') }],
    },
    {
      name: 'an unknown subscriber',
      request: () =>
        signed(
          'POST',
          REPORTS,
          JSON.stringify({
            ...report({ status: 'delivery_failed', statusReason: 'unknown subscriber' }),
            statusErrorCode: 1,
          }),
        ),
      receipts: [
        { ...receipt('delivery_failed'), kind: 'bounced', code: 'unknown_address', vendorCode: '1' },
      ],
    },
    {
      name: 'buffered',
      request: () => asForm({ status: 'buffered' }),
      receipts: [{ ...receipt('buffered'), kind: 'deferred' }],
    },
    { name: 'sent', request: () => asForm({ status: 'sent' }), receipts: [] },
  ],
})

/** One try against the local stand-in: what it got, what came of it. */
async function deliver(message: Message, more: { settings?: JsonObject; answer?: HttpReply } = {}) {
  const vendor = await birdVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(messagebird, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    const bodies = vendor.received.map(
      ({ raw }) => JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject,
    )
    return { sent, bodies }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

async function callback(request: CallbackRequest, settings = settingsFor()) {
  const http = openHttp()
  const opened = await openProvider(messagebird, settings, { http, now: () => NOW })
  try {
    return (await opened.callback(request, new AbortController().signal)).receipts
  } finally {
    await http.close()
  }
}

const WORDS = [
  'id',
  'status',
  'statusReason',
  'statusErrorCode',
  'statusDatetime',
  'reference',
  'originator',
  'body',
]
const refused = (error: unknown) => error instanceof AppError && error.code === 'unauthenticated'

test('body, recipient, sender and reference go out, the id comes back', async () => {
  const { sent, bodies } = await deliver(sms({ content: { body: 'Grüße' } }))
  assert.deepEqual(bodies, [
    {
      originator: 'Carillon',
      recipients: ['31612345678'],
      body: 'Grüße',
      datacoding: 'auto',
      reference: `${NOTIFICATION}.1`,
      reportUrl: REPORTS,
    },
  ])
  assert.deepEqual(sent, { outcome: 'sent', providerMessageId: ID, code: 'sent', response: 'sent' })
})

// covers: PFM-159, DIC-110
test('a text is cut to the segments allowed', async () => {
  const body = 'x'.repeat(5_000)
  assert.equal((await deliver(sms({ content: { body } }))).bodies[0]?.body, `${'x'.repeat(157)}...`)
  const most = await deliver(sms({ content: { body } }), { settings: { maxSegments: 9 } })
  assert.equal(most.bodies[0]?.body, `${'x'.repeat(1_374)}...`)
  assert.throws(() => readSettings(messagebird.settings, { ...settingsFor(), maxSegments: 10 }), AppError)
})

test("the cost is MessageBird's own, else by segment", async () => {
  const costOf = async (more: Parameters<typeof deliver>[1], body = 'hello') => {
    const { sent } = await deliver(sms({ content: { body } }), more)
    assert.ok(!(sent instanceof DeliveryError))
    return sent.cost
  }
  assert.equal(await costOf({}), undefined)
  const settings = { costPerMessage: 0.07, currency: 'EUR', maxSegments: 2 }
  assert.deepEqual(await costOf({ settings }, 'x'.repeat(200)), { amount: 0.14, currency: 'EUR' })
  const answer = accepted({ price: { amount: 0.062, currency: 'EUR' } })
  assert.deepEqual(await costOf({ settings, answer }), { amount: 0.062, currency: 'EUR' })
  const [first] = await callback(
    asForm({ status: 'delivered', 'price[amount]': '0.062', 'price[currency]': 'EUR' }),
  )
  assert.deepEqual(first?.cost, { amount: 0.062, currency: 'EUR' })
})

test('a number that is not E.164 is never sent', async () => {
  for (const to of ['31612345678', '+0612345678', 'alice']) {
    const { sent, bodies } = await deliver(sms({ to }))
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, bodies.length], ['permanent', 'invalid_address', 0])
  }
})

test("MessageBird's errors are judged by their number and parameter", async () => {
  const table: [HttpReply, kind: string, word: string][] = [
    [refusal(401, 2, 'no', 'access_key'), 'temporary', 'auth'],
    [refusal(422, 9, 'no', 'recipient'), 'bounced', 'invalid_address'],
    [refusal(422, 10, 'no', 'originator'), 'temporary', 'invalid_settings'],
    [refusal(422, 10, 'no', 'body'), 'permanent', 'content_refused'],
    [refusal(422, 10, 'no', 'constructor'), 'permanent', 'invalid_request'],
    [refusal(422, 10, 'no', 'validity'), 'permanent', 'invalid_request'],
    [refusal(402, 25, 'no'), 'temporary', 'forbidden'],
    [refusal(404, 20, 'no'), 'temporary', 'invalid_settings'],
    [refusal(500, 99, 'no'), 'temporary', 'server_error'],
    [refusal(429, 21, 'no'), 'rate_limited', 'rate_limited'],
    [refusal(400, 777, 'no'), 'permanent', 'refused'],
  ]
  for (const [answer, kind, word] of table) {
    const { sent } = await deliver(sms(), { answer })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], [kind, word], answer.body)
  }
  const failed = accepted({ status: 'delivery_failed', statusReason: 'opted out', statusErrorCode: 103 })
  const { sent } = await deliver(sms(), { answer: failed })
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code, sent.vendorCode], ['rejected', 'opted_out', '103'])
  const words = await deliver(sms(), { answer: refusal(422, 9, '+31612345678 (31612345678) is wrong') })
  assert.equal((words.sent as DeliveryError).response, '<address> (<address>) is wrong')
})

test('an acceptance without an id is no acceptance', async () => {
  for (const body of ['{}', 'ok', '[]', '{"id":7}']) {
    const { sent } = await deliver(sms(), { answer: { status: 201, body } })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['unknown', 'garbled_answer'])
  }
})

test('a report as MessageBird sends it, by GET', async () => {
  assert.deepEqual(await callback(asQuery({ status: 'delivered' })), [
    { kind: 'delivered', ...receipt('delivered') },
  ])
  const other = { ...asQuery({ status: 'delivered' }), url: `${REPORTS}?status=delivered&id=other` }
  await assert.rejects(callback(other), refused)
  const added = { ...asQuery({ status: 'delivered' }), body: Buffer.from('status=delivered') }
  await assert.rejects(callback(added), refused)
})

test('what a report says of a failure', async () => {
  const table: [Record<string, string>, string, string][] = [
    [{ statusErrorCode: '5' }, 'bounced', 'unknown_address'],
    [{ statusReason: 'unknown_subscriber' }, 'bounced', 'unknown_address'],
    [{ statusReason: 'unavailable subscriber', statusErrorCode: '27' }, 'failed', 'unavailable'],
    [{ statusReason: 'carrier rejected' }, 'failed', 'refused'],
    [{ statusReason: 'opted out' }, 'failed', 'opted_out'],
    [{ statusReason: 'constructor', statusErrorCode: 'constructor' }, 'failed', 'server_error'],
    [{}, 'failed', 'server_error'],
  ]
  for (const [params, kind, code] of table) {
    const [first] = await callback(asForm({ status: 'delivery_failed', ...params }))
    assert.deepEqual([first?.kind, first?.code], [kind, code])
  }
  const [late] = await callback(asForm({ status: 'expired', statusDatetime: '2099-01-01T00:00:00Z' }))
  assert.deepEqual([late?.kind, late?.code, late?.at], ['failed', 'unavailable', NOW])
  assert.deepEqual(await callback(signed('POST', REPORTS, 'status=delivered')), [])
  assert.deepEqual(await callback(signed('POST', REPORTS, '{"status":')), [])
})

// covers: AUR-185
test('whoever answers STOP is unsubscribed, any other answer is a reply', async () => {
  const said = (body: string) =>
    callback(
      signed(
        'POST',
        REPORTS,
        new URLSearchParams({
          id: 'mo-1',
          originator: '31612345678',
          recipient: '31600000000',
          body,
          createdDatetime: '2026-11-21T11:59:30+00:00',
        }).toString(),
      ),
    )
  const common = { at: receipt('').at, address: '+31612345678', receiptId: 'mo-1' }
  assert.deepEqual(await said('Stop'), [{ kind: 'unsubscribed', ...common, detail: 'Stop' }])
  assert.deepEqual(await said('Thanks'), [{ kind: 'replied', ...common, detail: 'Thanks' }])
})

test('whatever is posted, signed, is read without failing', async () => {
  const values = fc.oneof(
    fc.jsonValue({ maxDepth: 3 }),
    fc.dictionary(fc.constantFrom(...WORDS), fc.jsonValue()),
  )
  await fc.assert(
    fc.asyncProperty(values, async value => {
      assert.ok(Array.isArray(await callback(signed('POST', REPORTS, JSON.stringify(value)))))
    }),
    { numRuns: 50 },
  )
})

test('a token holds for its URL, its body, its minute and its key', async () => {
  const at = NOW.getTime() / 1000
  const url = `${REPORTS}?${new URLSearchParams(report({ status: 'delivered' }))}`
  assert.equal((await callback(signed('GET', url, '', { alg: 'HS512' }))).length, 1)
  const bad: CallbackRequest[] = [
    signed('GET', url, '', { key: 'another key' }),
    signed('GET', url, '', { alg: 'none' }),
    signed('GET', url, '', { alg: 'constructor' }),
    signed('GET', url, '', { claims: { iss: 'Somebody' } }),
    signed('GET', url, '', { claims: { nbf: at + 60, exp: at + 120 } }),
    signed('GET', url, '', { claims: { nbf: at - 120, exp: at - 60 } }),
    signed('GET', url, '', { claims: { exp: null } }),
    signed('GET', url, '', { claims: { jti: null } }),
    signed('GET', url, '', { claims: { url_hash: null } }),
    signed('GET', url, '', { claims: { payload_hash: sha256('x') } }),
    signed('POST', url, 'x', { claims: { payload_hash: null } }),
  ]
  for (const request of bad) await assert.rejects(callback(request), refused)
  for (const token of ['', 'a', 'a.b', 'a.b.c', `${bad[0]?.headers['messagebird-signature-jwt']}.x`]) {
    const request = { ...signed('GET', url), headers: { 'messagebird-signature-jwt': token } }
    await assert.rejects(callback(request), refused)
  }
  const { signingKey, ...without } = settingsFor()
  assert.equal(signingKey, SIGNING_KEY)
  await assert.rejects(callback(signed('GET', url), without), refused)
})

test("the vendor's published tokens hold", () => {
  // messagebird-nodejs @ 8b2295b, lib/testdata/webhook-signature-jwt-reference.json.
  const key = makeSecret('36efdd1aace2e26cd490f0d951138253bef2f7c6d34d18981da781555cc4cebb')
  const head = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9'
  const plain =
    'eyJpc3MiOiJNZXNzYWdlQmlyZCIsIm5iZiI6MTYyNTQ3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiI1OWEyNDRkYy1lOWFkLTRlMjMt' +
    'OTc3OC0zNzFmYWEyMzhmNzIiLCJ1cmxfaGFzaCI6IjBmMTE1ZGIwNjJiN2MwZGQwMzBiMTY4NzhjOTlkZWE1YzM1NGI0OWRjMzdiMzhlYjg4' +
    'NDYxNzljNzc4M2U5ZDcifQ.6Fp0rVOsRr1fj9S2GidXAfkmPVofKr8_RTffC6G6r2E'
  const withBody =
    'eyJpc3MiOiJNZXNzYWdlQmlyZCIsIm5iZiI6MTYyNTQ3OTIwMCwiZXhwIjoxNjI1NDc5MjYwLCJqdGkiOiI5M2U1NTAwNi1hMGU4LTQ1MjYt' +
    'YTE5MC1mYTVmZjAwZWExMTYiLCJ1cmxfaGFzaCI6IjQxZjA1ZjBkZGQwYTIyYWIyMDlhYzQ2ZjQ3YzQ1NzJkOWNlZmEyNTdlZDc0YjI0MDA0' +
    'YmFlNzUzZWNlNmMyNjAiLCJwYXlsb2FkX2hhc2giOiJkZmZkNjAyMWJiMmJkNWIwYWY2NzYyOTA4MDllYzNhNTMxOTFkZDgxYzdmNzBhNGIy' +
    'ODY4OGEzNjIxODI5ODZmIn0._H--TOuYFLpeEH39-rg5E3IHVkjHozBcaKVWPRC5m9I'
  const then = new Date('2021-07-05T10:00:00.000Z')
  const ask = (url: string, token: string, text: string, now = then) =>
    checkSignature(
      {
        method: 'POST',
        url,
        headers: { 'messagebird-signature-jwt': `${head}.${token}` },
        body: Buffer.from(text),
      },
      key,
      now,
    )
  ask('https://example.com/', plain, '')
  ask('https://example.com/path?bar=1&foo=2', withBody, 'Hello, World!')
  assert.throws(() => ask('https://example.com/', plain, 'Hello, World!'), refused)
  assert.throws(() => ask('https://example.com/path?foo=1&bar=2', withBody, 'Hello, World!'), refused)
  assert.throws(() => ask('https://example.com/path?bar=1&foo=2', withBody, 'Hello, World?'), refused)
  assert.throws(() => ask('https://example.com/', plain, '', NOW), refused)
})
