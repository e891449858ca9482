import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AppError } from '../../../errors.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import { signV4 } from '../../../aws.ts'
import {
  type Asked,
  type ConformingCallback,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { smsSize } from '../sms-text.ts'
import { forgedSns, snsSigner, TOPIC } from '../sns-signer.ts'
import { sns } from './sns.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const KEY = 'AKIAIOSFODNN7EXAMPLE'
const SECRET = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'
const REGION = 'eu-west-1'
const ID = '94f20ce6-13c5-43a0-9a9e-ca52d816e90b'
const TO = '+14255550182'

const sms = (more: Partial<Message> = {}) => exampleMessage({ channel: 'sms', to: TO, ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  region: REGION,
  accessKeyId: KEY,
  secretAccessKey: SECRET,
  topicArns: [TOPIC],
  ...(vendor === undefined ? {} : { endpoint: `http://${vendor.host}:${vendor.port}` }),
})

/* ------------------------------------------------- a stand-in that is as strict as SNS */

const xml = (status: number, body: string): HttpReply => ({
  status,
  headers: { 'content-type': 'text/xml' },
  body,
})
const awsError = (status: number, code: string, message: string): HttpReply =>
  xml(
    status,
    `<ErrorResponse xmlns="http://sns.amazonaws.com/doc/2010-03-31/"><Error><Type>Sender</Type><Code>${code}</Code>` +
      `<Message>${message}</Message></Error><RequestId>9dd01905-5012-5f99-8663-4b3ecd0dfaef</RequestId></ErrorResponse>`,
  )
const published = xml(
  200,
  `<PublishResponse xmlns="https://sns.amazonaws.com/doc/2010-03-31/"><PublishResult><MessageId>${ID}</MessageId>` +
    '</PublishResult><ResponseMetadata><RequestId>f187a3c1-376f-11df-8963-01868b7c937a</RequestId>' +
    '</ResponseMetadata></PublishResponse>',
)
const NOT_A_NUMBER = awsError(
  400,
  'InvalidParameter',
  `Invalid parameter: PhoneNumber Reason: ${TO} is not valid to publish to`,
)

const ATTRIBUTES: Record<string, RegExp> = {
  'AWS.SNS.SMS.SMSType': /^String (Transactional|Promotional)$/,
  'AWS.SNS.SMS.SenderID': /^String [A-Za-z0-9-]{1,11}$/,
  'AWS.SNS.SMS.MaxPrice': /^Number \d+\.\d+$/,
  'AWS.MM.SMS.OriginationNumber': /^String \+?\d{3,15}$/,
}

const attributesIn = (form: URLSearchParams): [string, string][] =>
  [1, 2, 3, 4, 5].flatMap(at => {
    const name = form.get(`MessageAttributes.entry.${at}.Name`)
    const part = (word: string) => form.get(`MessageAttributes.entry.${at}.Value.${word}`) ?? ''
    return name === null ? [] : [[name, `${part('DataType')} ${part('StringValue')}`]]
  })

function strict({ method, path, headers, body }: Asked): HttpReply | undefined {
  const { authorization = '', 'x-amz-date': date = '', 'content-type': type, host = '' } = headers
  const again = signV4({
    method,
    url: `http://${host}${path}`,
    headers: type === undefined ? {} : { 'content-type': type },
    body,
    region: REGION,
    service: 'sns',
    accessKeyId: KEY,
    secretAccessKey: SECRET,
    now: NOW,
  })
  if (date !== '20261121T120000Z') return awsError(403, 'RequestExpired', 'Signature expired')
  if (authorization !== again.authorization) return awsError(403, 'SignatureDoesNotMatch', 'The signature')
  if (method === 'GET') {
    return path === '/?Action=GetSMSAttributes&Version=2010-03-31'
      ? xml(200, '<GetSMSAttributesResponse/>')
      : awsError(400, 'InvalidAction', path)
  }
  if (method !== 'POST' || path !== '/') return awsError(400, 'InvalidAction', path)
  if (!type?.startsWith('application/x-www-form-urlencoded')) return awsError(400, 'InvalidAction', 'type')
  const form = new URLSearchParams(body)
  if (form.get('Action') !== 'Publish' || form.get('Version') !== '2010-03-31') {
    return awsError(400, 'InvalidAction', 'Could not find operation')
  }
  if (!/^\+[1-9]\d{6,14}$/.test(form.get('PhoneNumber') ?? '')) return NOT_A_NUMBER
  const text = form.get('Message') ?? ''
  if (text === '' || Buffer.byteLength(text) > 1_600)
    return awsError(400, 'InvalidParameter', 'Message too long')
  for (const [name, value] of attributesIn(form)) {
    if (ATTRIBUTES[name]?.test(value) !== true)
      return awsError(400, 'InvalidParameterValue', `${name}: ${value}`)
  }
  for (const name of form.keys()) {
    if (!/^(Action|Version|PhoneNumber|Message|MessageAttributes\.entry\.[1-4]\..*)$/.test(name)) {
      return awsError(400, 'InvalidParameter', `Unknown ${name}`)
    }
  }
  return undefined
}

const snsVendor = (answer?: HttpReply) =>
  httpVendor({ refuse: NOT_A_NUMBER }, asked => strict(asked) ?? answer ?? published)

/* ------------------------------------------------- callbacks as SNS posts them */

const signer = snsSigner(NOW)
const posted = (event: object | string) =>
  signer.request({ Message: typeof event === 'string' ? event : JSON.stringify(event) })
const AT = new Date(NOW.getTime() - 2_000)

/** The examples of the vendor's pages, with a time within reach. */
const event = (eventType: string, more: object = {}) => ({
  eventType,
  eventVersion: '1.0',
  eventTimestamp: AT.getTime() - 1_000,
  isFinal: true,
  originationPhoneNumber: '+12065550152',
  destinationPhoneNumber: TO,
  messageId: ID,
  messageEncoding: 'GSM',
  messageType: 'PROMOTIONAL',
  totalMessageParts: 1,
  ...more,
})
const receipt = (type: string) => ({
  at: new Date(AT.getTime() - 1_000),
  providerMessageId: ID,
  receiptId: `${ID}:${type}`,
  address: TO,
})
const answered = (messageBody: string) => ({
  originationNumber: TO,
  destinationNumber: '+12125550101',
  messageKeyword: 'JOIN',
  messageBody,
  inboundMessageId: 'cae173d2-66b9-564c-8309-21f858e9fb84',
  previousPublishedMessageId: ID,
})
const reply = {
  at: AT,
  address: TO,
  receiptId: 'cae173d2-66b9-564c-8309-21f858e9fb84',
  providerMessageId: ID,
}

const callbacks: ConformingCallback[] = [
  {
    name: 'delivered',
    request: () => posted(event('TEXT_DELIVERED', { totalMessagePrice: 0.00645 })),
    receipts: [
      { kind: 'delivered', ...receipt('TEXT_DELIVERED'), cost: { amount: 0.00645, currency: 'USD' } },
    ],
  },
  {
    name: 'no such number',
    request: () => posted(event('TEXT_INVALID')),
    receipts: [
      {
        ...receipt('TEXT_INVALID'),
        kind: 'bounced',
        code: 'invalid_address',
        vendorCode: 'TEXT_INVALID',
      },
    ],
  },
  {
    name: 'out of reach',
    request: () => posted(event('TEXT_CARRIER_UNREACHABLE')),
    receipts: [
      {
        ...receipt('TEXT_CARRIER_UNREACHABLE'),
        kind: 'failed',
        code: 'unavailable',
        vendorCode: 'TEXT_CARRIER_UNREACHABLE',
      },
    ],
  },
  {
    name: 'an answer',
    request: () => posted(answered('Thanks')),
    receipts: [{ kind: 'replied', ...reply, detail: 'Thanks' }],
  },
  {
    name: 'STOP',
    request: () => posted(answered('stop')),
    receipts: [{ kind: 'unsubscribed', ...reply, detail: 'stop' }],
  },
  { name: 'taken by the carrier', request: () => posted(event('TEXT_SUCCESSFUL')), receipts: [] },
  { name: 'an event of tomorrow', request: () => posted(event('constructor')), receipts: [] },
  { name: 'a text of somebody', request: () => posted('Hello'), receipts: [] },
]

// covers: DIC-107, DIC-108
testProvider(sns, {
  vendor: () => snsVendor(),
  settings: settingsFor,
  message: () => sms(),
  door: http => signer.door(http),
  notApplicable: { 'idempotency key': 'Publish to a phone number takes no key of ours' },
  callbacks: callbacks.map(each => ({ ...each, forged: forgedSns })),
})

/** One try against the local stand-in: what it got, what came of it. */
async function deliver(message: Message, more: { settings?: JsonObject; answer?: HttpReply } = {}) {
  const vendor = await snsVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(sns, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    const forms = vendor.received.map(
      ({ raw }) => new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4)),
    )
    return { sent, form: forms[0] ?? new URLSearchParams(), requests: forms.length }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

test('number, text and attributes go out signed, the id comes back', async () => {
  const { sent, form } = await deliver(sms({ content: { body: 'Grüße' }, priority: 'CRITICAL' }), {
    settings: {
      senderId: 'Carillon',
      originationNumber: '+12065550152',
      maxPrice: 0.1,
      costPerMessage: 0.0065,
    },
  })
  assert.equal(form.get('PhoneNumber'), TO)
  assert.equal(form.get('Message'), 'Grüße')
  assert.deepEqual(attributesIn(form), [
    ['AWS.SNS.SMS.SMSType', 'String Transactional'],
    ['AWS.SNS.SMS.SenderID', 'String Carillon'],
    ['AWS.MM.SMS.OriginationNumber', 'String +12065550152'],
    ['AWS.SNS.SMS.MaxPrice', 'Number 0.10000'],
  ])
  assert.deepEqual(sent, {
    outcome: 'sent',
    providerMessageId: ID,
    code: '200',
    cost: { amount: 0.0065, currency: 'USD' },
  })
})

test('what is urgent goes the reliable way, the rest the cheaper one', async () => {
  const kinds = await Promise.all(
    (['CRITICAL', 'HIGH', 'NORMAL', 'LOW'] as const).map(async priority => {
      const { form } = await deliver(sms({ priority }))
      return attributesIn(form)[0]?.[1]
    }),
  )
  const [transactional, promotional] = ['String Transactional', 'String Promotional']
  assert.deepEqual(kinds, [transactional, transactional, promotional, promotional])
})

// covers: PFM-159, DIC-110
test('a text is cut to the segments allowed, and to what one request may hold', async () => {
  const cut = async (body: string, maxSegments?: number) => {
    const settings: JsonObject = maxSegments === undefined ? {} : { maxSegments }
    const { form, sent } = await deliver(sms({ content: { body } }), { settings })
    assert.ok(!(sent instanceof DeliveryError))
    return form.get('Message') ?? ''
  }
  assert.equal(await cut('x'.repeat(500)), `${'x'.repeat(157)}...`)
  assert.equal(await cut('x'.repeat(500), 4), 'x'.repeat(500))
  // Ten segments of 67, each character three bytes: less than that fits into 1,600 bytes.
  const chinese = await cut('你'.repeat(1_600), 10)
  assert.ok(chinese.endsWith('…') && Buffer.byteLength(chinese) <= 1_600)
  assert.equal(smsSize(chinese).segments, 7)
})

test('a number that is not E.164 is never sent', async () => {
  const { sent, requests } = await deliver(sms({ to: '4255550182' }))
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code, requests], ['permanent', 'invalid_address', 0])
})

test("SNS's errors are judged by their code", async () => {
  const table: [HttpReply, kind: string, word: string][] = [
    [NOT_A_NUMBER, 'bounced', 'invalid_address'],
    [awsError(400, 'OptedOut', 'opted out'), 'rejected', 'opted_out'],
    [awsError(400, 'OptedOutException', 'opted out'), 'rejected', 'opted_out'],
    [
      awsError(400, 'InvalidParameter', 'Invalid parameter: Message too long'),
      'permanent',
      'invalid_request',
    ],
    [awsError(400, 'InvalidParameterValue', 'AWS.SNS.SMS.SenderID'), 'temporary', 'invalid_settings'],
    [awsError(403, 'AuthorizationError', 'not authorized'), 'temporary', 'auth'],
    [awsError(403, 'SignatureDoesNotMatch', 'no'), 'temporary', 'auth'],
    [awsError(403, 'InvalidClientTokenId', 'no'), 'temporary', 'auth'],
    [awsError(400, 'Throttling', 'Rate exceeded'), 'rate_limited', 'rate_limited'],
    [awsError(429, 'Throttled', 'Rate exceeded'), 'rate_limited', 'rate_limited'],
    [awsError(500, 'InternalError', 'no'), 'temporary', 'server_error'],
    [awsError(503, 'ServiceUnavailable', 'no'), 'temporary', 'unavailable'],
    // Not in the table: the status decides.
    [awsError(400, 'constructor', 'no'), 'permanent', 'refused'],
    [awsError(500, 'Other', 'no'), 'temporary', 'server_error'],
  ]
  for (const [answer, kind, word] of table) {
    const { sent } = await deliver(sms(), { answer })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], [kind, word], answer.body)
  }
  const slower = awsError(400, 'Throttling', 'Rate exceeded')
  const { sent } = await deliver(sms(), {
    answer: { ...slower, headers: { ...slower.headers, 'retry-after': '4' } },
  })
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.until?.getTime(), NOW.getTime() + 4_000)
  const words = await deliver(sms(), { answer: NOT_A_NUMBER })
  assert.equal(
    (words.sent as DeliveryError).response,
    'Invalid parameter: PhoneNumber Reason: <address> is not valid to publish to',
  )
})

test('an acceptance without an id is no acceptance', async () => {
  for (const body of ['<PublishResponse/>', '{}', '<MessageId></MessageId>']) {
    const { sent } = await deliver(sms(), { answer: xml(200, body) })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['unknown', 'garbled_answer'])
  }
})

test('settings that do not fit are refused', () => {
  const bad: JsonObject[] = [
    { region: 'europe' },
    { region: 'eu-west-1.example.com' },
    { senderId: '12345' },
    { senderId: '-Shop' },
    { senderId: 'far-too-long-id' },
    { maxPrice: 0 },
    { topicArns: ['arn:aws:sqs:eu-west-1:123456789012:x'] },
  ]
  for (const more of bad) {
    assert.throws(
      () => readSettings(sns.settings, { ...settingsFor(), ...more }),
      AppError,
      JSON.stringify(more),
    )
  }
  readSettings(sns.settings, { ...settingsFor(), senderId: 'My-Shop-1' })
})
