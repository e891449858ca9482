import assert from 'node:assert/strict'
import { createHash, createHmac } from 'node:crypto'
import { test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { AppError } from '../../../errors.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { type CallbackRequest, DeliveryError } from '../../provider.ts'
import { type Behaviour, exampleMessage, type HttpReply, testProvider, type Vendor } from '../conformance.ts'
import {
  ACCOUNT_SID,
  againstContract,
  AUTH_TOKEN,
  refusal,
  SID,
  signedForm,
  twilioVendor,
} from '../twilio-vendor.ts'
import { twilio } from './twilio.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const CALLBACK = 'https://carillon.example/webhooks/twilio?tenant=1'
const REPORTED = `${CALLBACK}&delivery=${NOTIFICATION}.1`

const sms = (more: Partial<Message> = {}) => exampleMessage({ channel: 'sms', to: '+15551234567', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  accountSid: ACCOUNT_SID,
  authToken: AUTH_TOKEN,
  from: '+15557654321',
  statusCallback: CALLBACK,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

const status = (word: string, more: Record<string, string> = {}) =>
  signedForm(REPORTED, {
    AccountSid: ACCOUNT_SID,
    ApiVersion: '2010-04-01',
    From: '+15557654321',
    MessageSid: SID,
    MessageStatus: word,
    SmsSid: SID,
    SmsStatus: word,
    To: '+15551234567',
    ...more,
  })
const receipt = (word: string) => ({
  at: NOW,
  providerMessageId: SID,
  receiptId: `${SID}:${word}`,
  notificationId: NOTIFICATION,
  address: '+15551234567',
})

// covers: DIC-107, DIC-108, ALP-103
testProvider(twilio, {
  vendor: () => twilioVendor(),
  settings: settingsFor,
  message: () => sms(),
  callbacks: [
    {
      name: 'delivered',
      request: () => status('delivered'),
      receipts: [{ kind: 'delivered', ...receipt('delivered') }],
    },
    {
      name: 'undelivered to an unknown handset',
      request: () => status('undelivered', { ErrorCode: '30005' }),
      receipts: [
        { ...receipt('undelivered'), kind: 'bounced', code: 'unknown_address', vendorCode: '30005' },
      ],
    },
    { name: 'on its way', request: () => status('sent'), receipts: [] },
  ],
})

/** One try against the local stand-in: what it got, what came of it. */
async function deliver(
  message: Message,
  more: { settings?: JsonObject; accepts?: object; refuses?: HttpReply } = {},
) {
  const vendor = await twilioVendor(more)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(twilio, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    const raw = vendor.received[0]?.raw ?? ''
    const body = raw.slice(raw.indexOf('\r\n\r\n') + 4)
    return { sent, raw, body, form: new URLSearchParams(body), requests: vendor.received.length }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

async function callback(request: CallbackRequest, settings = settingsFor()) {
  const http = openHttp()
  const opened = await openProvider(twilio, settings, { http, now: () => NOW })
  try {
    return await opened.callback(request, new AbortController().signal)
  } finally {
    await http.close()
  }
}

const refused = (error: unknown) => error instanceof AppError && error.code === 'unauthenticated'

// covers: PFM-171
test('body, recipient and sender go out, the SID comes back', async () => {
  const { sent, form } = await deliver(sms({ content: { subject: 'unused', body: 'Grüße' } }))
  assert.deepEqual(Object.fromEntries(form), {
    To: '+15551234567',
    Body: 'Grüße',
    From: '+15557654321',
    StatusCallback: REPORTED,
  })
  assert.deepEqual(sent, { outcome: 'sent', providerMessageId: SID, code: 'queued', response: 'queued' })
})

// covers: ALP-107
test('asked about a message, it says what its callback would have said', async () => {
  const ask = async (accepts: object, sid = SID, behaviour: Behaviour = 'accept') => {
    const vendor = await twilioVendor({ accepts })
    vendor.behave(behaviour)
    const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
    const settings = { ...settingsFor(vendor), timeoutSeconds: behaviour === 'hang' ? 0.2 : 20 }
    const opened = await openProvider(twilio, settings, { http, now: () => NOW })
    try {
      return await opened.getDeliveryStatus!(sid, new AbortController().signal).catch(
        (error: unknown) => error as DeliveryError,
      )
    } finally {
      await opened.close()
      await vendor.close()
      await http.close()
    }
  }
  const updated = 'Sat, 21 Nov 2026 11:59:00 +0000'
  assert.deepEqual(
    await ask({ status: 'delivered', date_updated: updated, price: '-0.0075', price_unit: 'usd' }),
    [
      {
        kind: 'delivered',
        at: new Date(updated),
        providerMessageId: SID,
        receiptId: `${SID}:delivered`,
        cost: { amount: 0.0075, currency: 'USD' },
      },
    ],
  )
  assert.deepEqual(await ask({ status: 'undelivered', error_code: 30005 }), [
    {
      kind: 'bounced',
      at: NOW,
      providerMessageId: SID,
      receiptId: `${SID}:undelivered`,
      code: 'unknown_address',
      vendorCode: '30005',
    },
  ])
  for (const status of ['queued', 'sending', 'sent', 'scheduled']) assert.deepEqual(await ask({ status }), [])
  const failures: [Promise<unknown>, string, string][] = [
    [ask({}, 'SMunknown'), 'permanent', 'gone'],
    [ask({}, '../../x'), 'permanent', 'gone'],
    [ask({ status: 7 }), 'unknown', 'garbled_answer'],
    [ask({}, SID, 'fail'), 'temporary', 'server_error'],
    [ask({}, SID, 'rate_limit'), 'rate_limited', 'rate_limited'],
    [ask({}, SID, 'reset'), 'unknown', 'no_answer'],
    [ask({}, SID, 'hang'), 'unknown', 'timeout'],
  ]
  for (const [failure, kind, code] of failures) {
    const error = await failure
    assert.ok(error instanceof DeliveryError)
    assert.deepEqual([error.kind, error.code], [kind, code])
  }
})

test('every field is one of the published contract, in its shape', async t => {
  const service = { messagingServiceSid: `MG${'0'.repeat(32)}` }
  for (const settings of [{}, service]) {
    const { body } = await deliver(sms(), { settings })
    const problems = againstContract('Messages', body)
    if (problems === undefined) return t.skip('the vendor contracts are not beside this checkout')
    assert.deepEqual(problems, [])
  }
  assert.deepEqual(againstContract('Messages', 'Text=a&MessagingServiceSid=no'), [
    'To is missing',
    'Text is not in the contract',
    'MessagingServiceSid is not ^MG[0-9a-fA-F]{32}$',
  ])
})

// covers: PFM-159, DIC-110
test('a text is cut to the segments allowed, and told to nobody else', async () => {
  const long = 'x'.repeat(400)
  assert.equal((await deliver(sms({ content: { body: long } }))).form.get('Body'), `${'x'.repeat(157)}...`)
  const three = await deliver(sms({ content: { body: long } }), { settings: { maxSegments: 3 } })
  assert.equal(three.form.get('Body'), long)
  const most = await deliver(sms({ content: { body: 'y'.repeat(5_000) } }), { settings: { maxSegments: 10 } })
  assert.equal(most.form.get('Body')?.length, 1_530)
  const plain = await deliver(sms({ content: { body: 'It’s “here”' } }), {
    settings: { transliterate: true },
  })
  assert.equal(plain.form.get('Body'), 'It\'s "here"')
})

// covers: PFM-174
test("the cost is Twilio's own, else by segment", async () => {
  const costOf = async (more: Parameters<typeof deliver>[1], body = 'hello') => {
    const { sent } = await deliver(sms({ content: { body } }), more)
    assert.ok(!(sent instanceof DeliveryError), inspect(sent))
    return sent.cost
  }
  assert.equal(await costOf({}), undefined)
  assert.deepEqual(await costOf({ settings: { costPerMessage: 0.0079 } }), {
    amount: 0.0079,
    currency: 'USD',
  })
  const settings = { costPerMessage: 0.0079, maxSegments: 3, currency: 'EUR' }
  assert.deepEqual(await costOf({ settings, accepts: { num_segments: '0' } }, 'x'.repeat(400)), {
    amount: 0.0237,
    currency: 'EUR',
  })
  assert.deepEqual(await costOf({ settings, accepts: { num_segments: '2' } }), {
    amount: 0.0158,
    currency: 'EUR',
  })
  assert.deepEqual(await costOf({ settings, accepts: { price: '-0.00750', price_unit: 'usd' } }), {
    amount: 0.0075,
    currency: 'USD',
  })
})

test('a number that is not E.164 is never sent', async () => {
  for (const to of [
    '5551234567',
    '+0155512345',
    '+1 555 123 4567',
    '+155',
    '+1234567890123456',
    'alice',
    '',
  ]) {
    const { sent, requests } = await deliver(sms({ to }))
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, requests], ['permanent', 'invalid_address', 0], to)
  }
})

// covers: PFM-187, PFM-176
test("Twilio's errors are judged by their number", async () => {
  const table: [status: number, code: number, kind: string, word: string][] = [
    [400, 21211, 'bounced', 'invalid_address'],
    [400, 21614, 'bounced', 'unknown_address'],
    [400, 21610, 'rejected', 'opted_out'],
    [400, 21408, 'rejected', 'forbidden'],
    [400, 21612, 'rejected', 'refused'],
    [400, 21617, 'permanent', 'too_large'],
    [400, 21606, 'temporary', 'invalid_settings'],
    [400, 21611, 'rate_limited', 'rate_limited'],
    [401, 20003, 'temporary', 'auth'],
    [403, 10001, 'temporary', 'auth'],
    [400, 21730, 'temporary', 'unavailable'],
    [403, 30002, 'temporary', 'auth'],
    [404, 20404, 'temporary', 'invalid_settings'],
    [429, 20429, 'rate_limited', 'rate_limited'],
    [500, 20500, 'temporary', 'server_error'],
    // Not in the table: the status decides.
    [400, 99999, 'permanent', 'refused'],
    [503, 99999, 'temporary', 'unavailable'],
  ]
  for (const [httpStatus, code, kind, word] of table) {
    const { sent } = await deliver(sms(), { refuses: refusal(httpStatus, code, 'no') })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, sent.vendorCode], [kind, word, String(code)], String(code))
  }
  const later = refusal(429, 20429, 'slower')
  const { sent } = await deliver(sms(), {
    refuses: { ...later, headers: { ...later.headers, 'retry-after': '3' } },
  })
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.until?.getTime(), NOW.getTime() + 3_000)
})

test("the vendor's words are kept without the number", async () => {
  const { sent } = await deliver(sms(), {
    refuses: refusal(400, 21211, "Invalid 'To' Phone Number: +15551234567 (15551234567)"),
  })
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.response, "Invalid 'To' Phone Number: <address> (<address>)")
})

test('an acceptance without a SID is no acceptance', async () => {
  for (const body of ['{}', 'null', '<html>', '{"sid":7}']) {
    const { sent } = await deliver(sms(), { refuses: { status: 201, body } })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['unknown', 'garbled_answer'], body)
  }
  const { sent } = await deliver(sms(), { accepts: { status: 'failed', error_code: 30004 } })
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code], ['rejected', 'refused'])
})

test('an API key signs requests, the auth token still checks callbacks', async () => {
  const settings = { apiKeySid: `SK${'1'.repeat(32)}`, apiKeySecret: 'key-secret' }
  const { raw } = await deliver(sms(), { settings })
  const basic = Buffer.from(`SK${'1'.repeat(32)}:key-secret`).toString('base64')
  assert.ok(raw.includes(`authorization: Basic ${basic}`))
  const { receipts } = await callback(status('delivered'), { ...settingsFor(), ...settings })
  assert.equal(receipts.length, 1)
})

test('a sender is needed, and only secrets hide', () => {
  const without = { accountSid: ACCOUNT_SID, authToken: AUTH_TOKEN }
  assert.throws(() => readSettings(twilio.settings, without), AppError)
  readSettings(twilio.settings, { ...without, messagingServiceSid: `MG${'a'.repeat(32)}` })
  for (const from of ['Carillon', '12345', '+15557654321', 'Shop & Co']) {
    readSettings(twilio.settings, { ...without, from })
  }
  for (const from of ['', '+1', 'far too long a name', 'a\nb']) {
    assert.throws(() => readSettings(twilio.settings, { ...without, from }), AppError, from)
  }
})

test('the published signature example holds', async () => {
  // https://www.twilio.com/docs/usage/security: auth token 12345 and a call with these parameters.
  const params = {
    CallSid: 'CA1234567890ABCDE',
    Caller: '+14158675309',
    Digits: '1234',
    From: '+14158675309',
    To: '+18005551212',
  }
  const request = signedForm('https://mycompany.com/myapp.php?foo=1&bar=2', params, '12345')
  assert.equal(request.headers['x-twilio-signature'], 'RSOYDt4T1cUTdK1PDd93/VVr8B8=')
  const settings = { ...settingsFor(), authToken: '12345' }
  assert.deepEqual(await callback(request, settings), { receipts: [] })
})

test('the signature holds with the port written out or left out', async () => {
  for (const [signed, asked] of [
    ['https://carillon.example:443/webhooks/twilio', 'https://carillon.example/webhooks/twilio'],
    ['https://carillon.example/webhooks/twilio', 'https://carillon.example:8443/webhooks/twilio'],
    ['http://carillon.example:80/webhooks/twilio', 'http://carillon.example/webhooks/twilio'],
  ] as const) {
    const request = signedForm(signed, { MessageSid: SID, MessageStatus: 'delivered' })
    assert.equal((await callback({ ...request, url: asked })).receipts.length, 1, signed)
  }
  const elsewhere = signedForm('https://other.example/webhooks/twilio', { MessageSid: SID })
  await assert.rejects(callback({ ...elsewhere, url: CALLBACK }), refused)
  await assert.rejects(callback(signedForm(REPORTED, { MessageSid: SID }, 'another token')), refused)
})

test('a body that is no form is covered by its hash in the URL', async () => {
  const body = Buffer.from('{"MessageSid":"SM1"}')
  const url = `${CALLBACK}&bodySHA256=${createHash('sha256').update(body).digest('hex')}`
  const signature = createHmac('sha1', AUTH_TOKEN).update(url).digest('base64')
  const request = { method: 'POST', url, headers: { 'x-twilio-signature': signature }, body }
  assert.deepEqual(await callback(request), { receipts: [] })
  await assert.rejects(callback({ ...request, body: Buffer.from('{"MessageSid":"SM2"}') }), refused)
  const unsigned = { ...request, method: 'GET', url: CALLBACK }
  await assert.rejects(
    callback({
      ...unsigned,
      headers: { 'x-twilio-signature': createHmac('sha1', AUTH_TOKEN).update(CALLBACK).digest('base64') },
    }),
    refused,
  )
})

test('a signature holds for its parameters and for no others', async () => {
  const text = fc.string({ unit: 'binary', maxLength: 20 }).map(each => each.toWellFormed())
  const params = fc.dictionary(fc.constantFrom('MessageSid', 'MessageStatus', 'To', 'Body', 'Zeta'), text)
  await fc.assert(
    fc.asyncProperty(params, text, async (given, other) => {
      const request = signedForm(CALLBACK, given)
      assert.ok(Array.isArray((await callback(request)).receipts))
      const form = new URLSearchParams({ ...given, To: `${given.To ?? ''}${other}+` })
      await assert.rejects(callback({ ...request, body: Buffer.from(form.toString()) }), refused)
    }),
    { numRuns: 50 },
  )
})

test('failures on the way say whether the number is to blame', async () => {
  const kinds: [string, string, string][] = [
    ['30003', 'failed', 'unavailable'],
    ['30004', 'failed', 'refused'],
    ['30006', 'bounced', 'unknown_address'],
    // A person may have blocked us, or have to accept new terms: that the number is gone is only one reason of several.
    ['63024', 'failed', 'unavailable'],
    ['30007', 'failed', 'content_refused'],
    ['30008', 'failed', 'server_error'],
    ['21610', 'failed', 'opted_out'],
  ]
  for (const [ErrorCode, kind, code] of kinds) {
    const [first] = (await callback(status('undelivered', { ErrorCode }))).receipts
    assert.deepEqual([first?.kind, first?.code, first?.vendorCode], [kind, code, ErrorCode])
  }
  // From a short code it may be the carrier that cannot be reached.
  const [short] = (await callback(status('undelivered', { ErrorCode: '30006', From: '12345' }))).receipts
  assert.deepEqual([short?.kind, short?.code], ['failed', 'unavailable'])
  const [odd] = (await callback(status('failed', { ErrorCode: 'constructor' }))).receipts
  assert.deepEqual([odd?.kind, odd?.code], ['failed', undefined])
  const [without] = (await callback(status('failed'))).receipts
  assert.deepEqual([without?.kind, without?.code], ['failed', undefined])
})

// covers: AUR-185
test('whoever answers STOP is unsubscribed, and START takes it back; any other answer is a reply', async () => {
  const said = (Body: string, more: Record<string, string> = {}) =>
    callback(
      signedForm(CALLBACK, {
        MessageSid: `SM${'2'.repeat(32)}`,
        SmsStatus: 'received',
        From: '+15551234567',
        To: '+15557654321',
        Body,
        ...more,
      }),
    )
  for (const word of ['STOP', ' stop. ', 'Unsubscribe', 'Arrêt', 'STOP ALL']) {
    const { receipts, reply } = await said(word)
    assert.deepEqual(receipts, [
      {
        kind: 'unsubscribed',
        at: NOW,
        address: '+15551234567',
        detail: word,
        receiptId: `SM${'2'.repeat(32)}`,
      },
    ])
    assert.deepEqual(reply, { status: 200, contentType: 'text/xml', body: '<Response/>' })
  }
  assert.equal((await said('Basta', { OptOutType: 'STOP' })).receipts[0]?.kind, 'unsubscribed')
  assert.equal((await said('START')).receipts[0]?.kind, 'resubscribed')
  assert.equal((await said('Vuelvo', { OptOutType: 'START' })).receipts[0]?.kind, 'resubscribed')
  for (const word of ['YES', 'Please stop by at noon', '', 'x'.repeat(5_000)]) {
    const [first] = (await said(word)).receipts
    assert.deepEqual([first?.kind, first?.detail], ['replied', word.slice(0, 2_000)])
  }
})
