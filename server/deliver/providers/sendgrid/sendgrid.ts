import { createPublicKey, verify } from 'node:crypto'
import { type Static, Type } from 'typebox'
import type { JsonObject, Message } from '../../../types.ts'
import {
  type CallbackRequest,
  callbackRefused,
  type DeliveryCode,
  DeliveryError,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  type Receipt,
  rateLimited,
  retryAfter,
  secret,
  type SendContext,
  type Sent,
  temporary,
  unknown,
} from '../../provider.ts'
import { isObject, readObject, textAt, wordOf } from '../answers.ts'
import {
  composeEmail,
  defined,
  type Email,
  type Mailbox,
  senderSettings,
  stableKey,
  whyOf,
  withoutAddress,
} from '../email.ts'
import { costOf, notificationOf } from '../phone.ts'
import { costSettings } from '../sms-text.ts'

const settings = Type.Object(
  {
    apiKey: secret({
      title: 'API key',
      description: 'With the permission "Mail Send".',
      pattern: '^[!-~]+$',
    }),
    ...senderSettings,
    baseUrl: Type.String({
      title: 'API address',
      description: 'https://api.eu.sendgrid.com for subusers in the EU.',
      default: 'https://api.sendgrid.com',
      maxLength: 200,
      pattern: '^https?://[^\\s/?#@]+$',
    }),
    webhookPublicKey: Type.Optional(
      Type.String({
        title: 'Verification key of the event webhook',
        description: 'Base64, as SendGrid shows it. Without it every callback is refused.',
        maxLength: 1_000,
        pattern: '^[A-Za-z0-9+/]+={0,2}$',
      }),
    ),
    ...costSettings('Of one message. SendGrid names no price with its answer.'),
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

export type SendGridSettings = Static<typeof settings>

/**
 * E-mail through SendGrid, API v3. It neither recognises a repeated request nor publishes a rate: both are left to
 * the loop. Its limits of 30 MB and 1,000 recipients lie above ours
 * (https://www.twilio.com/docs/sendgrid/api-reference/mail-send#limitations).
 *
 * https://www.twilio.com/docs/sendgrid/api-reference/mail-send/mail-send
 */
export const sendgrid: Provider<SendGridSettings> = {
  id: 'sendgrid',
  channel: 'email',
  title: 'SendGrid',
  settings,
  limits: { slowsLane: true },

  async send(message, ctx): Promise<Sent> {
    const { settings: own } = ctx
    const mail = composeEmail(message, own)
    const response = await call('POST', '/v3/mail/send', JSON.stringify(requestOf(message, mail)), ctx)
    const error = judgeAnswer(response, ctx.now(), message.to)
    if (error !== undefined) throw error
    const header = response.headers['x-message-id']
    const id = Array.isArray(header) ? header[0] : header
    if (id === undefined || id === '') throw unknown('garbled_answer', 'SendGrid named no message')
    return {
      outcome: 'sent',
      providerMessageId: messageIdIn(id),
      code: String(response.status),
      cost: costOf(1 + mail.cc.length + mail.bcc.length, own),
    }
  },

  callback(request, { settings: own, now }) {
    verifySignature(request, own.webhookPublicKey, now())
    // The answer that SendGrid's own examples give; any 2xx ends its repetitions.
    return {
      receipts: receiptsIn(request.body.toString('utf8')),
      reply: { status: 200, contentType: 'text/plain; charset=utf-8', body: 'OK' },
    }
  },

  /** https://www.twilio.com/docs/sendgrid/api-reference/api-key-permissions/retrieve-a-list-of-scopes-for-which-this-user-has-access */
  async check(ctx) {
    const response = await call('GET', '/v3/scopes', undefined, ctx)
    const error = judgeAnswer(response, ctx.now(), '')
    if (error !== undefined) throw error
    const scopes = readObject(response.body)?.scopes
    if (!Array.isArray(scopes)) throw temporary('garbled_answer', 'The answer is not one of SendGrid')
    if (!scopes.includes('mail.send')) throw temporary('auth', 'The API key may not send mail')
  },
}

/* ---------------------------------------------------------------- the request */

/** Custom arguments come back with each event. SendGrid keeps them for long: nothing personal may stand in them. */
const NOTIFICATION = 'carillon_notification'
const DELIVERY = 'carillon_delivery'

function requestOf(message: Message, mail: Email): JsonObject {
  const content: JsonObject[] = []
  // In the order of RFC 2046 §5.1.4, plainest first; SendGrid refuses another one, and empty values.
  if (mail.text !== '') content.push({ type: 'text/plain', value: mail.text })
  if (mail.html !== undefined && mail.html !== '') content.push({ type: 'text/html', value: mail.html })
  if (content.length === 0) throw permanent('content_refused', 'A message needs a text')

  const to: JsonObject = { to: [{ email: mail.to.address }] }
  if (mail.cc.length > 0) to.cc = mail.cc.map(address => ({ email: address }))
  if (mail.bcc.length > 0) to.bcc = mail.bcc.map(address => ({ email: address }))
  to.custom_args = { [NOTIFICATION]: message.notificationId, [DELIVERY]: stableKey(message) }

  const request: JsonObject = {
    personalizations: [to],
    from: mailbox(mail.from),
    subject: subjectOf(mail),
    content,
    headers: { ...mail.headers, 'Message-ID': mail.messageId },
    // Opens, clicks and unsubscribing are ours to count: a link rewritten by both would lead nowhere.
    tracking_settings: {
      click_tracking: { enable: false, enable_text: false },
      open_tracking: { enable: false },
      subscription_tracking: { enable: false },
      ganalytics: { enable: false },
    },
  }
  if (mail.replyTo !== undefined) request.reply_to = mailbox(mail.replyTo)
  // At most 255 characters of ASCII.
  if (/^[\x21-\x7e]{1,255}$/.test(message.eventType)) request.categories = [message.eventType]
  if (mail.attachments.length > 0) {
    request.attachments = mail.attachments.map((each, at) => {
      if (each.content.length === 0) throw permanent('content_refused', `Attachment ${at} is empty`)
      return {
        content: each.content.toString('base64'),
        filename: each.filename,
        ...(each.contentType === undefined ? {} : { type: each.contentType }),
        disposition: 'attachment',
      }
    })
  }
  return request
}

/** SendGrid takes no message without a subject: then its first words have to do. */
function subjectOf({ subject, text }: Email): string {
  if (subject.trim() !== '') return subject
  const line = text.split('\n').find(each => each.trim() !== '')
  return fit(line?.replaceAll(/[\p{Cc}\u2028\u2029]+/gu, ' ').trim() ?? '', 78) || '…'
}

const mailbox = ({ name, address }: Mailbox): JsonObject =>
  name === '' ? { email: address } : { email: address, name }

function call(
  method: 'GET' | 'POST',
  path: string,
  body: string | undefined,
  { http, settings: own, signal }: SendContext<SendGridSettings>,
): Promise<HttpResponse> {
  const headers: Record<string, string> = {
    accept: 'application/json',
    authorization: `Bearer ${own.apiKey.reveal()}`,
  }
  if (body !== undefined) headers['content-type'] = 'application/json'
  return http.request({
    method,
    url: `${own.baseUrl}${path}`,
    headers,
    body,
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
    // 202 has no body, and the id stands in a header.
    statusIsEnough: method === 'POST',
  })
}

/* ---------------------------------------------------------------- verdicts */

/** How often somebody looks whether there are credits again. */
const CREDITS_WAIT_MS = 10 * 60_000

/**
 * https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/errors
 * https://support.sendgrid.com/hc/en-us/articles/18322114821403
 */
function judgeAnswer(
  { status, headers, body }: HttpResponse,
  now: Date,
  to: string,
): DeliveryError | undefined {
  if (status >= 200 && status < 300) return undefined
  const errors = readObject(body)?.errors
  const [first] = Array.isArray(errors) ? errors.filter(isObject) : []
  const words = first === undefined ? undefined : textAt(first, 'message')
  const field = first === undefined ? undefined : wordOf(textAt(first, 'field'))
  const facts = {
    vendorCode: field === undefined || field === 'null' ? String(status) : `${status} ${field}`,
    response: words === undefined ? undefined : withoutAddress(words, to),
  }
  const detail = `SendGrid: HTTP ${facts.vendorCode}`
  switch (status) {
    case 400:
      // Such as personalizations.0.to.0.email; another field than the recipient is our mistake.
      return field !== undefined && /^personalizations\.\d+\.to/.test(field)
        ? permanent('invalid_address', detail, facts)
        : permanent('invalid_request', detail, facts)
    case 401:
      // Neither is about this message: a key is mended, credits come back with the next day or month.
      if (/credits/i.test(words ?? '')) return rateLimited(new Date(now.getTime() + CREDITS_WAIT_MS), facts)
      return temporary('auth', detail, facts)
    case 403:
      // A sender that is not verified, a key without the permission, or a block for too many bad requests.
      return temporary(/sender identity/i.test(words ?? '') ? 'invalid_settings' : 'forbidden', detail, facts)
    case 404:
      return temporary('invalid_settings', detail, facts)
    case 405:
    case 406:
    case 415:
      return permanent('invalid_request', detail, facts)
    case 429:
      return rateLimited(
        retryAfter(headers['retry-after'], now) ?? resetAt(headers['x-ratelimit-reset'], now),
        facts,
      )
  }
  const plain = judge(status, headers, now)
  return plain && new DeliveryError(plain.kind, plain.code, detail, { ...facts, until: plain.until })
}

/**
 * When the period ends, in seconds since 1970: at most an hour ahead, and a second when nothing is said.
 * https://www.twilio.com/docs/sendgrid/api-reference/how-to-use-the-sendgrid-v3-api/rate-limits
 */
function resetAt(value: string | string[] | undefined, now: Date): Date {
  const at = Number(Array.isArray(value) ? value[0] : value) * 1000
  const soonest = now.getTime() + 1_000
  if (!Number.isFinite(at)) return new Date(soonest)
  return new Date(Math.min(Math.max(at, soonest), now.getTime() + 60 * 60_000))
}

/* ---------------------------------------------------------------- receipts */

// SendGrid repeats a post for 24 hours. A repeated event changes nothing, as its id is kept, so this bounds how
// long a recorded request is of use at all.
const MAX_AGE_MS = 25 * 60 * 60_000
const MAX_AHEAD_MS = 5 * 60_000

/**
 * ECDSA with SHA-256 over timestamp and body as it came.
 * https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/getting-started-event-webhook-security-features
 */
function verifySignature({ headers, body }: CallbackRequest, key: string | undefined, now: Date): void {
  if (key === undefined) throw callbackRefused('There is no key to verify the event webhook with')
  const signature = headers['x-twilio-email-event-webhook-signature']
  const timestamp = headers['x-twilio-email-event-webhook-timestamp']
  if (typeof signature !== 'string' || typeof timestamp !== 'string' || !/^\d{1,12}$/.test(timestamp)) {
    throw callbackRefused('The request is not signed')
  }
  const age = now.getTime() - Number(timestamp) * 1000
  if (age > MAX_AGE_MS || age < -MAX_AHEAD_MS) throw callbackRefused('The signature is too old')
  let holds = false
  try {
    const publicKey = createPublicKey({ key: Buffer.from(key, 'base64'), format: 'der', type: 'spki' })
    const signed = Buffer.concat([Buffer.from(timestamp), body])
    holds = verify('sha256', signed, publicKey, Buffer.from(signature, 'base64'))
  } catch {
    throw callbackRefused('The key of the event webhook cannot be read')
  }
  if (!holds) throw callbackRefused('The signature does not hold')
}

/** Each event for itself: one that cannot be read costs none of the others. */
function receiptsIn(body: string): Receipt[] {
  let events: unknown
  try {
    events = JSON.parse(body)
  } catch {
    throw callbackRefused('The body is not JSON')
  }
  return (Array.isArray(events) ? events : [events]).flatMap(event => {
    const receipt = isObject(event) ? receiptOf(event) : undefined
    return receipt === undefined ? [] : [receipt]
  })
}

type Told = Pick<Receipt, 'kind'> & Partial<Receipt>

/** https://www.twilio.com/docs/sendgrid/for-developers/tracking-events/event */
function receiptOf(event: JsonObject): Receipt | undefined {
  const told = READERS.get(textAt(event, 'event') ?? '')?.(event)
  const sgMessageId = textAt(event, 'sg_message_id')
  const providerMessageId = sgMessageId === undefined ? undefined : messageIdIn(sgMessageId)
  const notificationId = notificationOf(textAt(event, NOTIFICATION))
  const at = timeOf(event.timestamp)
  if (told === undefined || at === undefined) return undefined
  if (providerMessageId === undefined && notificationId === undefined) return undefined
  return defined({
    ...told,
    at,
    providerMessageId,
    notificationId,
    address: textAt(event, 'email'),
    receiptId: textAt(event, 'sg_event_id'),
  })
}

// Maps, as an event named "constructor" would find something in an object.
const READERS = new Map<string, (event: JsonObject) => Told>(
  Object.entries<(event: JsonObject) => Told>({
    delivered: () => ({ kind: 'delivered' }),
    deferred: event => ({
      kind: 'deferred',
      code: 'unavailable',
      vendorCode: statusIn(event, 'response'),
      detail: why(event, 'response'),
    }),
    bounce: event => {
      const vendorCode = statusIn(event, 'reason')
      // "blocked": the message was turned away, the address may be fine; SendGrid does not suppress it either.
      const blocked = event.type === 'blocked'
      return {
        kind: blocked ? 'failed' : 'bounced',
        code: bounceCode(textAt(event, 'bounce_classification'), vendorCode, blocked),
        vendorCode,
        detail: why(event, 'reason'),
      }
    },
    dropped: event => {
      const reason = textAt(event, 'reason') ?? ''
      const known = DROPS.find(([words]) => words.test(reason))
      const [, kind, code] = known ?? [reason, 'failed' as const, 'refused' as const]
      return { kind, code, vendorCode: fit(reason, 100) || undefined }
    },
    spamreport: () => ({ kind: 'complained' }),
    // What older documents call it.
    spam_report: () => ({ kind: 'complained' }),
    // Opened by a program on the reader's behalf, such as Apple's mail privacy protection.
    open: event => ({ kind: 'opened', ...(event.sg_machine_open === true && { machine: 'prefetch' }) }),
    click: event => ({ kind: 'clicked', detail: textAt(event, 'url')?.slice(0, 2_000) }),
    unsubscribe: () => ({ kind: 'unsubscribed' }),
    // Nobody knows from which group mail of ours would come. Coming back to one group takes nothing back: whoever left
    // all of them would hear from us again.
    group_unsubscribe: () => ({ kind: 'unsubscribed' }),
  }),
)

/** Why SendGrid did not even try. The first two are about the address, the rest about a wish or the message. */
const DROPS: [reason: RegExp, kind: Receipt['kind'], code: DeliveryCode][] = [
  [/^bounced address/i, 'bounced', 'unknown_address'],
  [/^invalid$/i, 'bounced', 'invalid_address'],
  [/^unsubscribed address|^spam reporting address/i, 'failed', 'opted_out'],
  [/^spam content|^invalid smtpapi header/i, 'failed', 'content_refused'],
]

const CLASSES = new Map<string, DeliveryCode>(
  Object.entries<DeliveryCode>({
    'Invalid Address': 'unknown_address',
    'Mailbox Unavailable': 'mailbox_full',
    Content: 'content_refused',
    Reputation: 'refused',
    'Frequency/Volume': 'rate_limited',
    'Frequency or Volume Too High': 'rate_limited',
    Technical: 'unavailable',
  }),
)

function bounceCode(named: string | undefined, status: string | undefined, blocked: boolean): DeliveryCode {
  if (status?.endsWith('.2.2') === true) return 'mailbox_full'
  return CLASSES.get(named ?? '') ?? (blocked ? 'refused' : 'unknown_address')
}

const why = (event: JsonObject, name: string): string | undefined =>
  whyOf(textAt(event, name), textAt(event, 'email'))

/** The enhanced code (RFC 3463) or the reply code: the words beside it may quote the address. */
const statusIn = (event: JsonObject, words: string): string | undefined =>
  wordOf(textAt(event, 'status')) ?? /^\d{3}\b/.exec(textAt(event, words) ?? '')?.[0]

/** `x-message-id`, which in events has the names of the machines it passed behind a dot. */
const messageIdIn = (id: string): string => id.split('.', 1)[0] as string

/** Seconds since 1970; some events bring milliseconds, and old ones strings. */
function timeOf(value: JsonObject[string] | undefined): Date | undefined {
  const number = typeof value === 'string' ? Number(value) : value
  if (typeof number !== 'number' || !(number > 0)) return undefined
  const at = new Date(number > 100_000_000_000 ? number : number * 1000)
  return Number.isNaN(at.getTime()) ? undefined : at
}
