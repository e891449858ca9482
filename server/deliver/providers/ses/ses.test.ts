import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import PostalMime from 'postal-mime'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { DeliveryError, type Receipt } from '../../provider.ts'
import { signV4 } from '../../../aws.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  type Received,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { forgedSns, snsSigner, TOPIC } from '../sns-signer.ts'
import { ses } from './ses.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const MESSAGE_ID = '0102018f7c191be4-e9aedb9a-02f9-4d12-a87d-dd0099a07f8a-000000'
const CREDENTIALS = {
  accessKeyId: 'AKIDEXAMPLE123456789',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
  sessionToken: 'a-session-token',
}

const email = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'email', to: 'alice@example.com', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  region: 'eu-west-1',
  ...CREDENTIALS,
  from: 'Carillon <noreply@carillon.example>',
  topicArns: [TOPIC],
  timeoutSeconds: 0.5,
  ...(vendor === undefined ? {} : { endpoint: `http://${vendor.host}:${vendor.port}` }),
})

const refusal = (status: number, type: string, message: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json', 'x-amzn-errortype': type },
  body: JSON.stringify({ message }),
})

/** SES as its API reference describes it: refuses what the service would refuse. */
const sesVendor = (answer?: HttpReply) =>
  httpVendor(
    {
      accept: {
        status: 200,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ MessageId: MESSAGE_ID }),
      },
      refuse: refusal(400, 'MessageRejected', 'The message was rejected.'),
      rate_limit: {
        ...refusal(429, 'TooManyRequestsException', 'Maximum sending rate exceeded.'),
        headers: { 'x-amzn-errortype': 'TooManyRequestsException', 'retry-after': '7' },
      },
      fail: refusal(500, 'InternalServiceErrorException', 'oops'),
    },
    asked => wrongWith(asked) ?? (asked.method === 'GET' ? ACCOUNT : answer),
  )

const ACCOUNT: HttpReply = {
  status: 200,
  body: JSON.stringify({
    SendingEnabled: true,
    ProductionAccessEnabled: true,
    SendQuota: { MaxSendRate: 14 },
  }),
}

interface Content {
  Data: string
  Charset: string
}
interface SendEmail {
  FromEmailAddress: string
  ReplyToAddresses?: string[]
  Destination: { ToAddresses: string[]; CcAddresses: string[]; BccAddresses: string[] }
  Content: {
    Simple: {
      Subject: Content
      Body: { Text?: Content; Html?: Content }
      Headers: { Name: string; Value: string }[]
      Attachments: { FileName: string; RawContent: string; ContentType?: string }[]
    }
  }
  EmailTags: { Name: string; Value: string }[]
  ConfigurationSetName?: string
}

function wrongWith(asked: Asked): HttpReply | undefined {
  const { host = '', authorization = '', 'x-amz-date': date = '' } = asked.headers
  const names = /SignedHeaders=([^,]+)/.exec(authorization)?.[1]?.split(';') ?? []
  for (const name of ['host', 'x-amz-date', 'x-amz-security-token']) {
    if (!names.includes(name)) return refusal(403, 'MissingAuthenticationTokenException', `no ${name}`)
  }
  const expected = signV4({
    method: asked.method,
    url: `http://${host}${asked.path}`,
    headers: Object.fromEntries(
      names
        .filter(name => name !== 'host' && !name.startsWith('x-amz-'))
        .map(name => [name, asked.headers[name] ?? '']),
    ),
    body: asked.body,
    region: 'eu-west-1',
    service: 'ses',
    ...CREDENTIALS,
    now: new Date(date.replace(/^(....)(..)(..)T(..)(..)(..)Z$/, '$1-$2-$3T$4:$5:$6Z')),
  })
  if (expected.authorization !== authorization) return refusal(403, 'SignatureDoesNotMatch', 'wrong')
  if (asked.method === 'GET') {
    return asked.path === '/v2/email/account' ? undefined : refusal(404, 'NotFoundException', asked.path)
  }
  if (asked.path !== '/v2/email/outbound-emails') return refusal(404, 'UnknownOperationException', asked.path)
  if (asked.headers['content-type'] !== 'application/json') {
    return refusal(400, 'BadRequestException', 'content type')
  }
  const bad = problem(JSON.parse(asked.body) as SendEmail)
  return bad === undefined ? undefined : refusal(400, 'BadRequestException', bad)
}

// Constraints of API_SendEmail, API_Destination, API_MessageHeader, API_Attachment and API_MessageTag.
function problem(request: SendEmail): string | undefined {
  const { ToAddresses, CcAddresses, BccAddresses } = request.Destination
  const { Subject, Body, Headers, Attachments } = request.Content.Simple
  const recipients = [...ToAddresses, ...CcAddresses, ...BccAddresses]
  if (!/^[\x20-\x7e]+$/.test(request.FromEmailAddress)) return 'From is not ASCII'
  if (recipients.length > 50 || recipients.length === 0) return 'recipients'
  if (typeof Subject.Data !== 'string') return 'no subject'
  if (Body.Text === undefined && Body.Html === undefined) return 'no body'
  if (Headers.length > 15) return 'too many headers'
  for (const { Name, Value } of Headers) {
    if (!/^[!-9;-@A-~]{1,126}$/.test(Name) || !/^[ -~]{1,870}$/.test(Value)) return `header ${Name}`
    if (/^(to|cc|bcc|from|subject|reply-to|message-id|date)$/i.test(Name)) return `header ${Name}`
  }
  for (const { FileName, RawContent } of Attachments) {
    if (FileName.length > 255 || !/^[A-Za-z0-9+/]*={0,2}$/.test(RawContent)) return 'attachment'
  }
  for (const { Name, Value } of request.EmailTags) {
    if (!/^[A-Za-z0-9_-]{1,256}$/.test(Name) || !/^[A-Za-z0-9_-]{1,256}$/.test(Value)) return 'tag'
  }
  return undefined
}

/* ---------------------------------------------------------------- events, in the shapes of the developer guide */

const sns = snsSigner(NOW)
const mail = {
  timestamp: '2026-11-21T11:59:50.000Z',
  source: 'noreply@carillon.example',
  messageId: MESSAGE_ID,
  destination: ['alice@example.com'],
}
const tagged = { ...mail, tags: { 'carillon-notification': [NOTIFICATION], 'ses:caller-identity': ['x'] } }
const posted = (event: object) => sns.request({ Message: JSON.stringify(event) })
const AT = '2026-11-21T11:59:55.000Z'
const about = (receipt: Omit<Receipt, 'at'>): Receipt => ({
  providerMessageId: MESSAGE_ID,
  at: new Date(AT),
  receiptId: '22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324:0',
  ...receipt,
})

const callbacks: { name: string; event: object; receipts: Receipt[] }[] = [
  {
    name: 'delivery, of a configuration set',
    event: {
      eventType: 'Delivery',
      mail: tagged,
      delivery: { timestamp: AT, recipients: ['alice@example.com'], smtpResponse: '250 2.6.0 OK' },
    },
    receipts: [about({ kind: 'delivered', notificationId: NOTIFICATION, address: 'alice@example.com' })],
  },
  {
    name: 'permanent bounce, as feedback of an identity',
    event: {
      notificationType: 'Bounce',
      mail: { ...mail, headers: [{ name: 'X-Carillon-Notification', value: NOTIFICATION }] },
      bounce: {
        bounceType: 'Permanent',
        bounceSubType: 'General',
        bouncedRecipients: [
          {
            emailAddress: 'alice@example.com',
            status: '5.1.1',
            action: 'failed',
            diagnosticCode: 'smtp; 550 5.1.1 <alice@example.com> unknown',
          },
          { emailAddress: 'bob@example.com', status: '5.1.1', action: 'failed' },
        ],
        timestamp: AT,
        feedbackId: '0102018f-feedback',
      },
    },
    receipts: ['alice@example.com', 'bob@example.com'].map((address, index) =>
      about({
        kind: 'bounced',
        notificationId: NOTIFICATION,
        address,
        code: 'unknown_address',
        vendorCode: 'Permanent General 5.1.1',
        ...(index === 0 ? { detail: 'smtp; 550 5.1.1 <<address>> unknown' } : {}),
        receiptId: `22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324:${index}`,
      }),
    ),
  },
  ...(
    [
      ['Permanent', 'OnAccountSuppressionList', 'bounced', 'unknown_address'],
      ['Permanent', 'UnsubscribedRecipient', 'failed', 'opted_out'],
      ['Transient', 'MailboxFull', 'failed', 'mailbox_full'],
      ['Transient', 'General', 'failed', 'unavailable'],
      ['Transient', 'ContentRejected', 'failed', 'content_refused'],
      ['Undetermined', 'Undetermined', 'failed', 'unavailable'],
    ] as const
  ).map(([bounceType, bounceSubType, kind, code]) => ({
    name: `bounce ${bounceType} ${bounceSubType}`,
    event: {
      eventType: 'Bounce',
      mail,
      bounce: {
        bounceType,
        bounceSubType,
        bouncedRecipients: [{ emailAddress: 'alice@example.com' }],
        timestamp: AT,
      },
    },
    receipts: [
      about({ kind, address: 'alice@example.com', code, vendorCode: `${bounceType} ${bounceSubType}` }),
    ],
  })),
  {
    name: 'complaint',
    event: {
      notificationType: 'Complaint',
      mail,
      complaint: {
        complainedRecipients: [{ emailAddress: 'alice@example.com' }],
        complaintFeedbackType: 'abuse',
        timestamp: AT,
      },
    },
    receipts: [about({ kind: 'complained', address: 'alice@example.com', vendorCode: 'abuse' })],
  },
  {
    name: 'the opposite of a complaint',
    event: {
      eventType: 'Complaint',
      mail,
      complaint: {
        complainedRecipients: [{ emailAddress: 'alice@example.com' }],
        complaintFeedbackType: 'not-spam',
        timestamp: AT,
      },
    },
    receipts: [],
  },
  {
    name: 'delay',
    event: {
      eventType: 'DeliveryDelay',
      mail,
      deliveryDelay: {
        timestamp: AT,
        delayType: 'MailboxFull',
        delayedRecipients: [{ emailAddress: 'alice@example.com', status: '4.2.2' }],
      },
    },
    receipts: [
      about({
        kind: 'deferred',
        address: 'alice@example.com',
        code: 'mailbox_full',
        vendorCode: 'MailboxFull',
      }),
    ],
  },
  {
    name: 'rejection for a virus',
    event: { eventType: 'Reject', mail: { ...mail, timestamp: AT }, reject: { reason: 'Bad content' } },
    receipts: [about({ kind: 'failed', code: 'content_refused', vendorCode: 'Bad_content' })],
  },
  {
    name: 'open',
    event: { eventType: 'Open', mail, open: { timestamp: AT, ipAddress: '192.0.2.1', userAgent: 'x' } },
    receipts: [about({ kind: 'opened' })],
  },
  {
    name: 'click',
    event: { eventType: 'Click', mail, click: { timestamp: AT, link: 'https://carillon.example/orders' } },
    receipts: [about({ kind: 'clicked', detail: 'https://carillon.example/orders' })],
  },
  {
    name: 'unsubscription in SES',
    event: {
      eventType: 'Subscription',
      mail,
      subscription: { timestamp: AT, newTopicPreferences: { unsubscribeAll: true } },
    },
    receipts: [about({ kind: 'unsubscribed' })],
  },
  {
    name: 'coming back from unsubscribing from everything',
    event: {
      eventType: 'Subscription',
      mail,
      subscription: {
        timestamp: AT,
        newTopicPreferences: { unsubscribeAll: false },
        oldTopicPreferences: { unsubscribeAll: true },
      },
    },
    receipts: [about({ kind: 'resubscribed' })],
  },
  {
    name: 'a change of topics',
    event: {
      eventType: 'Subscription',
      mail,
      subscription: { timestamp: AT, newTopicPreferences: { unsubscribeAll: false } },
    },
    receipts: [],
  },
  { name: 'sending, which says nothing new', event: { eventType: 'Send', mail, send: {} }, receipts: [] },
  { name: 'an event of tomorrow', event: { eventType: 'Teleport', mail }, receipts: [] },
  { name: 'an event of a strange name', event: { eventType: 'constructor', mail }, receipts: [] },
  { name: 'an event about nothing', event: { eventType: 'Open', open: { timestamp: AT } }, receipts: [] },
]

// covers: DIC-102, ALP-103
testProvider(ses, {
  vendor: () => sesVendor(),
  settings: settingsFor,
  message: () => email(),
  door: http => sns.door(http),
  callbacks: callbacks.map(({ name, event, receipts }) => ({
    name,
    request: () => posted(event),
    receipts,
    forged: forgedSns,
  })),
})

/* ---------------------------------------------------------------- what only SES does */

async function deliver(message: Message, more: { answer?: HttpReply; settings?: JsonObject } = {}) {
  const vendor = await sesVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(ses, settings, { http, now: () => NOW })
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
const bodyOf = ({ raw }: Received) => JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as SendEmail

// covers: DIC-103
test('a message has text and HTML, copies, reply-to, attachments and headers', async () => {
  const unsubscribeUrl = 'https://carillon.example/u/token?a=b'
  const { sent, received } = await deliver(
    email({
      unsubscribeUrl,
      content: {
        subject: 'Überraschung ✓',
        body: 'as text',
        html: '<p>as <b>HTML</b></p>',
        attachments: [{ filename: 'Grüße.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
        data: { email: { cc: 'bob@example.com', bcc: ['carol@example.com'], replyTo: 'help@example.com' } },
      },
    }),
    {
      settings: {
        from: 'Grüße <noreply@carillon.example>',
        configurationSet: 'events',
        costPerMessage: 0.0001,
      },
    },
  )
  assert.deepEqual(sent, {
    outcome: 'sent',
    providerMessageId: MESSAGE_ID,
    code: '200',
    // Three recipients: Amazon counts each.
    cost: { amount: 0.0003, currency: 'USD' },
  })
  assert.ok(received[0])
  const body = bodyOf(received[0])
  const { from } = await PostalMime.parse(`From: ${body.FromEmailAddress}\r\n\r\n`)
  assert.deepEqual(from, { name: 'Grüße', address: 'noreply@carillon.example' })
  assert.deepEqual(body, {
    FromEmailAddress: body.FromEmailAddress,
    ReplyToAddresses: ['help@example.com'],
    Destination: {
      ToAddresses: ['alice@example.com'],
      CcAddresses: ['bob@example.com'],
      BccAddresses: ['carol@example.com'],
    },
    Content: {
      Simple: {
        Subject: { Data: 'Überraschung ✓', Charset: 'UTF-8' },
        Body: {
          Text: { Data: 'as text', Charset: 'UTF-8' },
          Html: { Data: '<p>as <b>HTML</b></p>', Charset: 'UTF-8' },
        },
        Headers: [
          { Name: 'Auto-Submitted', Value: 'auto-generated' },
          { Name: 'X-Carillon-Notification', Value: NOTIFICATION },
          { Name: 'List-Unsubscribe', Value: `<${unsubscribeUrl}>` },
          { Name: 'List-Unsubscribe-Post', Value: 'List-Unsubscribe=One-Click' },
          { Name: 'X-Carillon-Delivery', Value: `${NOTIFICATION}.1` },
        ],
        Attachments: [
          {
            FileName: 'Grüße.txt',
            ContentType: 'text/plain',
            ContentDisposition: 'ATTACHMENT',
            ContentTransferEncoding: 'BASE64',
            RawContent: 'aGVsbG8=',
          },
        ],
      },
    },
    EmailTags: [{ Name: 'carillon-notification', Value: NOTIFICATION }],
    ConfigurationSetName: 'events',
  })
})

test('what SES says is judged by its name', async () => {
  const cases: [number, string, string, string, string][] = [
    [400, 'MessageRejected', 'Illegal content', 'rejected', 'content_refused'],
    [
      400,
      'MessageRejected',
      'Email address is not verified. The following identities failed: alice@example.com',
      'rejected',
      'forbidden',
    ],
    [400, 'BadRequestException', 'Missing required header', 'permanent', 'invalid_request'],
    [400, 'AccountSuspendedException', 'x', 'temporary', 'forbidden'],
    [400, 'SendingPausedException', 'x', 'temporary', 'forbidden'],
    [400, 'MailFromDomainNotVerifiedException', 'x', 'temporary', 'invalid_settings'],
    [404, 'NotFoundException', 'Configuration set does not exist', 'temporary', 'invalid_settings'],
    [400, 'LimitExceededException', 'x', 'rate_limited', 'rate_limited'],
    [403, 'UnrecognizedClientException:http://internal.amazon.com/coral/', 'x', 'temporary', 'auth'],
    [403, 'SignatureDoesNotMatch', 'x', 'temporary', 'auth'],
    [403, 'ExpiredTokenException', 'x', 'temporary', 'auth'],
    [403, 'AccessDeniedException', 'x', 'temporary', 'auth'],
    [413, 'RequestEntityTooLargeException', 'x', 'permanent', 'too_large'],
    [500, 'InternalServiceErrorException', 'x', 'temporary', 'server_error'],
    [503, 'ServiceUnavailable', 'x', 'temporary', 'unavailable'],
  ]
  for (const [status, type, message, kind, code] of cases) {
    const { sent } = await deliver(email(), { answer: refusal(status, type, message) })
    assert.ok(sent instanceof DeliveryError, type)
    assert.deepEqual([sent.kind, sent.code, sent.vendorCode], [kind, code, type.split(':')[0]], type)
    assert.ok(!inspect(sent, { depth: 5 }).includes('alice@example.com'), 'the address is kept')
  }
  const named: HttpReply = { status: 400, body: '{"__type":"com.amazonaws#MessageRejected","message":"x"}' }
  const { sent } = await deliver(email(), { answer: named })
  assert.ok(sent instanceof DeliveryError && sent.kind === 'rejected')
})

test('throttling waits a second, the daily quota longer', async () => {
  for (const [status, type, message, seconds] of [
    [429, 'TooManyRequestsException', 'Maximum sending rate exceeded.', 1],
    [400, 'ThrottlingException', 'Rate exceeded', 1],
    [429, 'TooManyRequestsException', 'Daily message quota exceeded.', 600],
  ] as const) {
    const { sent } = await deliver(email(), { answer: refusal(status, type, message) })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.until?.getTime()], ['rate_limited', NOW.getTime() + seconds * 1000])
  }
})

test('what SES would refuse is not asked for', async () => {
  const many = (prefix: string) => Array.from({ length: 25 }, (_, n) => `${prefix}${n}@example.com`)
  const bad: [Partial<Message>, string][] = [
    [{ content: { body: '' } }, 'content_refused'],
    [{ content: { body: 'x', data: { email: { cc: many('a'), bcc: many('b') } } } }, 'too_large'],
    [{ unsubscribeUrl: `https://carillon.example/${'x'.repeat(900)}` }, 'too_large'],
  ]
  for (const [more, code] of bad) {
    const { sent, received } = await deliver(email(more))
    assert.ok(sent instanceof DeliveryError && sent.final)
    assert.equal(sent.code, code)
    assert.equal(received.length, 0)
  }
})

test('an answer without an id, or that is none, leaves open what happened', async () => {
  for (const body of ['{}', '', 'OK', '[]']) {
    const { sent } = await deliver(email(), { answer: { status: 200, body } })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['unknown', 'garbled_answer'])
  }
})

test('the check tells a paused account', async () => {
  const http = {
    request: () =>
      Promise.resolve({ status: 200, headers: {}, complete: true, body: '{"SendingEnabled":false}' }),
    connect: () => Promise.reject(new Error('not used')),
  }
  const opened = await openProvider(ses, settingsFor(), { http, now: () => NOW })
  await assert.rejects(opened.check(new AbortController().signal), /paused/)
})

test('the public endpoint follows from the region', async () => {
  const asked: string[] = []
  const http = {
    request: ({ url }: { url: string }) => {
      asked.push(url)
      return Promise.resolve({ status: 200, headers: {}, complete: true, body: '{}' })
    },
    connect: () => Promise.reject(new Error('not used')),
  }
  for (const region of ['us-gov-west-1', 'cn-north-1']) {
    const opened = await openProvider(ses, { ...settingsFor(), region }, { http, now: () => NOW })
    await opened.check(new AbortController().signal)
  }
  assert.deepEqual(asked, [
    'https://email.us-gov-west-1.amazonaws.com/v2/email/account',
    'https://email.cn-north-1.amazonaws.com.cn/v2/email/account',
  ])
})

test('a topic that was just set up says so in plain text, which is no event', async () => {
  const opened = await openProvider(ses, settingsFor(), { http: sns.door(), now: () => NOW })
  const text = 'Successfully validated SNS topic for Amazon SES event publishing.'
  const { receipts } = await opened.callback(sns.request({ Message: text }), new AbortController().signal)
  assert.deepEqual(receipts, [])
})

test('without a topic every callback is refused', async () => {
  const opened = await openProvider(
    ses,
    { ...settingsFor(), topicArns: [] },
    { http: sns.door(), now: () => NOW },
  )
  await assert.rejects(opened.callback(sns.request(), new AbortController().signal), /topic/)
})

test('settings that do not fit are refused', () => {
  const bad: [JsonObject, string][] = [
    [{ region: 'eu-west-1.evil.example/' }, '/region'],
    [{ from: 'two@a.example, three@b.example' }, '/from'],
    [{ from: 'Example <a@b>\r\nBcc: c@d' }, '/from'],
    [{ topicArns: ['arn:aws:sqs:eu-west-1:123456789012:x'] }, '/topicArns/0'],
    [{ endpoint: 'https://user:pass@x' }, '/endpoint'],
    [{ sessionToken: 'a\r\nb' }, '/sessionToken'],
  ]
  for (const [more, field] of bad) {
    assert.throws(
      () => readSettings(ses.settings, { ...settingsFor(), ...more }),
      (error: { errors?: { field: string }[] }) => error.errors?.some(each => each.field === field) === true,
      field,
    )
  }
})
