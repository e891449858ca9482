import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message } from '../../../types.ts'
import {
  type CallbackRequest,
  type Cost,
  type DeliveryCode,
  DeliveryError,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  type Receipt,
  rateLimited,
  rejected,
  retryAfter,
  secret,
  type SendContext,
  type Sent,
  temporary,
  unknown,
} from '../../provider.ts'
import { isObject, readObject, textAt, wordOf } from '../answers.ts'
import { signV4 } from '../../../aws.ts'
import {
  composeEmail,
  defined,
  type Email,
  mailboxText,
  senderSettings,
  stableKey,
  tooManyRecipients,
  whyOf,
  withoutAddress,
} from '../email.ts'
import { costOf, notificationOf } from '../phone.ts'
import { costSettings } from '../sms-text.ts'
import { readSnsMessage } from '../sns-message.ts'

const settings = Type.Object(
  {
    region: Type.String({
      title: 'Region',
      description: 'Such as eu-west-1.',
      pattern: '^[a-z]{2}(-[a-z]+){1,3}-\\d$',
      maxLength: 30,
    }),
    accessKeyId: Type.String({
      title: 'Access key',
      description: 'Of a user or role that may call ses:SendEmail and ses:GetAccount.',
      pattern: '^[A-Z0-9]{16,128}$',
    }),
    secretAccessKey: secret({ title: 'Secret access key', description: 'Belongs to the access key.' }),
    sessionToken: Type.Optional(
      secret({ title: 'Session token', description: 'Of temporary credentials.', pattern: '^[!-~]+$' }),
    ),
    ...senderSettings,
    configurationSet: Type.Optional(
      Type.String({
        title: 'Configuration set',
        description: 'Whose event destinations report what becomes of messages.',
        pattern: '^[A-Za-z0-9_-]{1,64}$',
      }),
    ),
    topicArns: Type.Array(
      Type.String({ pattern: '^arn:aws[a-z-]*:sns:[a-z0-9-]+:\\d{12}:[\\w.-]{1,256}$' }),
      {
        title: 'SNS topics',
        description: 'ARNs of the topics SES publishes its events to. Messages of others are refused.',
        default: [],
        maxItems: 10,
      },
    ),
    endpoint: Type.Optional(
      Type.String({
        title: 'API address',
        description: 'Instead of the public one of the region: a FIPS or VPC endpoint, or a stand-in.',
        maxLength: 200,
        pattern: '^https?://[^\\s/?#@]+$',
      }),
    ),
    ...costSettings('Of one message. Amazon names no price with its answer.'),
    timeoutSeconds: Type.Number({
      title: 'Timeout',
      description: 'Seconds for one request, connection included.',
      default: 10,
      minimum: 0.1,
      maximum: 60,
    }),
  },
  { additionalProperties: false },
)

export type SesSettings = Static<typeof settings>

/** To, cc and bcc together: https://docs.aws.amazon.com/ses/latest/dg/quotas.html */
const MAX_RECIPIENTS = 50
/** https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_MessageHeader.html */
const MAX_HEADER_VALUE = 870
const TAG = 'carillon-notification'

/**
 * E-mail through Amazon SES, API v2. Its `Simple` content carries headers and attachments, so that SES writes the
 * MIME itself. SES replaces Message-ID and Date by its own; the key of the delivery travels as a header beside.
 *
 * How fast an account may send is agreed with Amazon and told by `check`, not by a published number.
 *
 * https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html
 */
export const ses: Provider<SesSettings> = {
  id: 'ses',
  channel: 'email',
  title: 'Amazon SES',
  settings,
  limits: { slowsLane: true },

  async send(message, ctx): Promise<Sent> {
    const { settings: own } = ctx
    const mail = composeEmail(message, own)
    const tooMany = tooManyRecipients(mail, MAX_RECIPIENTS)
    if (tooMany !== undefined) throw tooMany
    const response = await call('POST', '/v2/email/outbound-emails', bodyOf(message, mail, own), ctx)
    const error = judgeAnswer(response, ctx.now(), message.to)
    if (error !== undefined) throw error
    const id = textAt(readObject(response.body) ?? {}, 'MessageId')
    if (id === undefined) throw unknown('garbled_answer', 'SES named no message')
    const cost: Cost | undefined = costOf(1 + mail.cc.length + mail.bcc.length, own)
    return { outcome: 'sent', providerMessageId: id, code: String(response.status), cost }
  },

  async callback(request, ctx) {
    return { receipts: await receiptsOf(request, ctx) }
  },

  async check(ctx) {
    const response = await call('GET', '/v2/email/account', '', ctx)
    const error = judgeAnswer(response, ctx.now(), '')
    if (error !== undefined) throw error
    const account = readObject(response.body)
    if (account === undefined) throw temporary('garbled_answer', 'The answer is not one of SES')
    if (account.SendingEnabled === false)
      throw temporary('forbidden', 'SES has paused sending for this account')
  },
}

/* ---------------------------------------------------------------- the request */

function bodyOf(message: Message, mail: Email, own: SesSettings): string {
  const utf8 = (text: string) => ({ Data: text, Charset: 'UTF-8' })
  const body: JsonObject = {}
  if (mail.text !== '') body.Text = utf8(mail.text)
  if (mail.html !== undefined && mail.html !== '') body.Html = utf8(mail.html)
  if (body.Text === undefined && body.Html === undefined) {
    throw permanent('content_refused', 'A message needs a text')
  }
  const headers = { ...mail.headers, 'X-Carillon-Delivery': stableKey(message) }
  const request: JsonObject = {
    FromEmailAddress: mailboxText(mail.from, true),
    Destination: { ToAddresses: [mail.to.address], CcAddresses: mail.cc, BccAddresses: mail.bcc },
    Content: {
      Simple: {
        Subject: utf8(mail.subject),
        Body: body,
        Headers: Object.entries(headers).map(([name, value]) => {
          if (value.length > MAX_HEADER_VALUE) throw permanent('too_large', `${name} is too long for SES`)
          return { Name: name, Value: value }
        }),
        Attachments: mail.attachments.map(each => ({
          FileName: each.filename,
          ...(each.contentType === undefined ? {} : { ContentType: each.contentType }),
          ContentDisposition: 'ATTACHMENT',
          ContentTransferEncoding: 'BASE64',
          RawContent: each.content.toString('base64'),
        })),
      },
    },
    EmailTags: [{ Name: TAG, Value: message.notificationId }],
  }
  if (mail.replyTo !== undefined) request.ReplyToAddresses = [mailboxText(mail.replyTo, true)]
  if (own.configurationSet !== undefined) request.ConfigurationSetName = own.configurationSet
  return JSON.stringify(request)
}

function call(
  method: 'GET' | 'POST',
  path: string,
  body: string,
  { http, settings: own, signal, now }: SendContext<SesSettings>,
): Promise<HttpResponse> {
  const domain = own.region.startsWith('cn-') ? 'amazonaws.com.cn' : 'amazonaws.com'
  const url = `${own.endpoint ?? `https://email.${own.region}.${domain}`}${path}`
  const headers = signV4({
    method,
    url,
    headers: body === '' ? {} : { 'content-type': 'application/json' },
    body,
    region: own.region,
    service: 'ses',
    accessKeyId: own.accessKeyId,
    secretAccessKey: own.secretAccessKey.reveal(),
    sessionToken: own.sessionToken?.reveal(),
    now: now(),
  })
  const timeoutMs = own.timeoutSeconds * 1000
  return http.request({ method, url, headers, body: body === '' ? undefined : body, signal, timeoutMs })
}

/* ---------------------------------------------------------------- verdicts */

/** Errors about our account: whoever runs it can mend them, so they must not cost the messages of that hour. */
const ACCOUNT_ERRORS = new Map<string, DeliveryCode>(
  Object.entries<DeliveryCode>({
    // https://docs.aws.amazon.com/ses/latest/APIReference-V2/API_SendEmail.html#API_SendEmail_Errors
    AccountSuspendedException: 'forbidden',
    SendingPausedException: 'forbidden',
    MailFromDomainNotVerifiedException: 'invalid_settings',
    NotFoundException: 'invalid_settings',
    LimitExceededException: 'rate_limited',
    // https://docs.aws.amazon.com/ses/latest/APIReference-V2/CommonErrors.html
    AccessDeniedException: 'auth',
    ExpiredTokenException: 'auth',
    IncompleteSignature: 'auth',
    IncompleteSignatureException: 'auth',
    InvalidClientTokenId: 'auth',
    InvalidSignatureException: 'auth',
    MissingAuthenticationToken: 'auth',
    MissingAuthenticationTokenException: 'auth',
    NotAuthorized: 'auth',
    OptInRequired: 'auth',
    RequestExpired: 'auth',
    SignatureDoesNotMatch: 'auth',
    UnrecognizedClientException: 'auth',
  }),
)
const THROTTLES = new Set(['TooManyRequestsException', 'ThrottlingException', 'Throttling'])

function judgeAnswer(
  { status, headers, body }: HttpResponse,
  now: Date,
  to: string,
): DeliveryError | undefined {
  if (status >= 200 && status < 300) return undefined
  const answer = readObject(body) ?? {}
  // Such as `MessageRejected:http://internal.amazon.com/…`, or in the body `com.amazonaws…#MessageRejected`.
  const named = headers['x-amzn-errortype'] ?? textAt(answer, '__type') ?? textAt(answer, 'code') ?? ''
  const type = wordOf((Array.isArray(named) ? named[0] : named)?.split(':')[0]?.split('#').at(-1))
  const words = textAt(answer, 'message') ?? textAt(answer, 'Message')
  const facts = {
    vendorCode: type ?? String(status),
    response: words === undefined ? undefined : withoutAddress(words, to),
  }
  const detail = `SES: ${facts.vendorCode}`

  if (THROTTLES.has(type ?? '') || status === 429) {
    // "Maximum sending rate exceeded" passes within a second; the daily quota slides with each message of the
    // day before. https://docs.aws.amazon.com/ses/latest/dg/manage-sending-quotas-errors.html
    const pauseMs = /daily/i.test(words ?? '') ? 10 * 60_000 : 1_000
    return rateLimited(retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + pauseMs), facts)
  }
  if (type === undefined) return judge(status, headers, now)
  const account = ACCOUNT_ERRORS.get(type)
  if (account !== undefined) return temporary(account, detail, facts)
  if (type === 'MessageRejected') {
    // In the sandbox recipients must be verified as well as senders.
    const code = /not verified/i.test(words ?? '') ? 'forbidden' : 'content_refused'
    return rejected(code, detail, facts)
  }
  if (type === 'BadRequestException' || type === 'ValidationException') {
    return permanent('invalid_request', detail, facts)
  }
  const plain = judge(status, headers, now)
  if (plain === undefined) return undefined
  return new DeliveryError(plain.kind, plain.code, detail, { ...facts, until: plain.until })
}

/* ---------------------------------------------------------------- receipts */

/**
 * Events of a configuration set (`eventType`) and feedback of an identity (`notificationType`) alike.
 * https://docs.aws.amazon.com/ses/latest/dg/event-publishing-retrieving-sns-contents.html
 * https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html
 */
async function receiptsOf(request: CallbackRequest, ctx: SendContext<SesSettings>): Promise<Receipt[]> {
  const envelope = await readSnsMessage(request, ctx.settings.topicArns, ctx)
  // SES also publishes a sentence of plain text when a topic is set up.
  const event = envelope === undefined ? undefined : readObject(envelope.message)
  if (envelope === undefined || event === undefined) return []
  const type = textAt(event, 'eventType') ?? textAt(event, 'notificationType') ?? ''
  const read = EVENTS.get(type)
  if (read === undefined) return []
  const mail = objectAt(event, 'mail')
  const providerMessageId = textAt(mail, 'messageId')
  const notificationId = notificationOf(textsAt(objectAt(mail, 'tags'), TAG)[0] ?? headerOf(mail))
  if (providerMessageId === undefined && notificationId === undefined) return []
  const about = { providerMessageId, notificationId }
  return read(event).map(({ at, ...receipt }, index) =>
    defined({
      ...about,
      ...receipt,
      at: timeOf(at) ?? envelope.at,
      receiptId: `${envelope.id}:${index}`,
    }),
  )
}

type Told = Omit<Receipt, 'at' | 'receiptId' | 'providerMessageId' | 'notificationId'> & {
  at: string | undefined
}

// Maps, as an event named "constructor" would find something in an object.
const EVENTS = new Map<string, (event: JsonObject) => Told[]>(
  Object.entries<(event: JsonObject) => Told[]>({
    Delivery: event => {
      const delivery = objectAt(event, 'delivery')
      return textsAt(delivery, 'recipients').map(address => ({
        kind: 'delivered',
        at: textAt(delivery, 'timestamp'),
        address,
      }))
    },
    Bounce: event => {
      const bounce = objectAt(event, 'bounce')
      const [type = 'Undetermined', subType = 'Undetermined'] = [
        textAt(bounce, 'bounceType'),
        textAt(bounce, 'bounceSubType'),
      ]
      return objectsAt(bounce, 'bouncedRecipients').map(recipient => ({
        // Anything but a permanent bounce says that this message is lost, not that the address is; nor does
        // somebody's wish to hear no more.
        kind: type === 'Permanent' && subType !== 'UnsubscribedRecipient' ? 'bounced' : 'failed',
        at: textAt(bounce, 'timestamp'),
        address: textAt(recipient, 'emailAddress'),
        code: BOUNCES.get(subType) ?? (type === 'Permanent' ? 'unknown_address' : 'unavailable'),
        vendorCode: [type, subType, textAt(recipient, 'status')].filter(each => each !== undefined).join(' '),
        detail: whyOf(textAt(recipient, 'diagnosticCode'), textAt(recipient, 'emailAddress')),
      }))
    },
    Complaint: event => {
      const complaint = objectAt(event, 'complaint')
      const type = textAt(complaint, 'complaintFeedbackType')
      // Somebody took it out of the spam folder (RFC 5965 §7.3 and the IANA registry of feedback types).
      if (type === 'not-spam') return []
      return objectsAt(complaint, 'complainedRecipients').map(recipient => ({
        kind: 'complained',
        at: textAt(complaint, 'timestamp'),
        address: textAt(recipient, 'emailAddress'),
        vendorCode: type,
      }))
    },
    DeliveryDelay: event => {
      const delay = objectAt(event, 'deliveryDelay')
      const type = textAt(delay, 'delayType')
      return objectsAt(delay, 'delayedRecipients').map(recipient => ({
        kind: 'deferred',
        at: textAt(delay, 'timestamp'),
        address: textAt(recipient, 'emailAddress'),
        code: type === 'MailboxFull' ? 'mailbox_full' : 'unavailable',
        vendorCode: type,
        detail: whyOf(textAt(recipient, 'diagnosticCode'), textAt(recipient, 'emailAddress')),
      }))
    },
    Reject: event => [
      {
        kind: 'failed',
        at: textAt(objectAt(event, 'mail'), 'timestamp'),
        code: 'content_refused',
        vendorCode: wordOf(textAt(objectAt(event, 'reject'), 'reason')?.replaceAll(' ', '_')) ?? 'Reject',
      },
    ],
    'Rendering Failure': event => [
      {
        kind: 'failed',
        at: textAt(objectAt(event, 'mail'), 'timestamp'),
        code: 'content_refused',
        vendorCode: 'Rendering Failure',
      },
    ],
    Open: event => [{ kind: 'opened', at: textAt(objectAt(event, 'open'), 'timestamp') }],
    Click: event => {
      const click = objectAt(event, 'click')
      return [
        { kind: 'clicked', at: textAt(click, 'timestamp'), detail: textAt(click, 'link')?.slice(0, 2_000) },
      ]
    },
    Subscription: event => {
      const subscription = objectAt(event, 'subscription')
      const at = textAt(subscription, 'timestamp')
      const [from, to] = [
        objectAt(subscription, 'oldTopicPreferences').unsubscribeAll === true,
        objectAt(subscription, 'newTopicPreferences').unsubscribeAll === true,
      ]
      // Topics are those of a contact list of SES, which knows nothing of ours.
      if (to) return [{ kind: 'unsubscribed', at }]
      return from ? [{ kind: 'resubscribed', at }] : []
    },
  }),
)

/** https://docs.aws.amazon.com/ses/latest/dg/notification-contents.html#bounce-types */
const BOUNCES = new Map<string, DeliveryCode>(
  Object.entries<DeliveryCode>({
    NoEmail: 'unknown_address',
    Suppressed: 'unknown_address',
    OnAccountSuppressionList: 'unknown_address',
    MailboxFull: 'mailbox_full',
    MessageTooLarge: 'too_large',
    ContentRejected: 'content_refused',
    AttachmentRejected: 'content_refused',
    UnsubscribedRecipient: 'opted_out',
  }),
)

/** Feedback of an identity carries no tags, but, where so set up, the headers. */
const headerOf = (mail: JsonObject): string | undefined => {
  const header = objectsAt(mail, 'headers').find(each => each.name === 'X-Carillon-Notification')
  return header === undefined ? undefined : textAt(header, 'value')
}

const timeOf = (text: string | undefined): Date | undefined => {
  const at = new Date(text ?? '')
  return Number.isNaN(at.getTime()) ? undefined : at
}

const objectAt = (from: JsonObject, name: string): JsonObject => {
  const value = from[name]
  return isObject(value) ? value : {}
}
const listAt = (from: JsonObject, name: string): Json[] => {
  const value = from[name]
  return Array.isArray(value) ? value : []
}
const objectsAt = (from: JsonObject, name: string): JsonObject[] => listAt(from, name).filter(isObject)
const textsAt = (from: JsonObject, name: string): string[] =>
  listAt(from, name).filter(each => typeof each === 'string')
