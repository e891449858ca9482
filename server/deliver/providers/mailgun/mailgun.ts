import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Static, Type } from 'typebox'
import type { JsonObject, Message } from '../../../types.ts'
import { type MailBlame, mailBlame } from '../mail-reply.ts'
import {
  type CallbackRequest,
  callbackRefused,
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
import {
  composeEmail,
  defined,
  type Email,
  mailboxText,
  senderSettings,
  whyOf,
  withoutAddress,
} from '../email.ts'
import { costOf, notificationOf } from '../phone.ts'
import { costSettings } from '../sms-text.ts'

const settings = Type.Object(
  {
    apiKey: secret({
      title: 'API key',
      description:
        'Of the account, or a sending key of the domain, which only `carillon doctor` cannot check.',
      pattern: '^[!-~]+$',
    }),
    domain: Type.String({
      title: 'Sending domain',
      description: 'As set up at Mailgun, such as mg.example.com.',
      maxLength: 253,
      pattern: '^[A-Za-z0-9-]+(\\.[A-Za-z0-9-]+)+$',
    }),
    region: Type.Union([Type.Literal('us'), Type.Literal('eu')], {
      title: 'Region',
      description: 'Where the domain lies.',
      default: 'us',
    }),
    ...senderSettings,
    webhookSigningKey: Type.Optional(
      secret({
        title: 'Webhook signing key',
        description: 'Without it every callback is refused.',
        pattern: '^[!-~]+$',
      }),
    ),
    baseUrl: Type.Optional(
      Type.String({
        title: 'API address',
        description: 'Instead of the public one of the region, for a stand-in.',
        maxLength: 200,
        pattern: '^https?://[^\\s/?#@]+$',
      }),
    ),
    ...costSettings('Of one message. Mailgun names no price with its answer.'),
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

export type MailgunSettings = Static<typeof settings>

const HOSTS = { us: 'https://api.mailgun.net', eu: 'https://api.eu.mailgun.net' }
/**
 * All of o:, h:, v: and t: together. Its other limits, 25 MB and 1,000 recipients, lie above ours.
 * https://documentation.mailgun.com/docs/mailgun/api-reference/send/mailgun/messages/post-v3--domain-name--messages
 */
const MAX_OPTIONS_BYTES = 16_384

/**
 * E-mail through Mailgun, API v3. It takes our Message-ID for its own, but recognises no repetition by it.
 *
 * https://documentation.mailgun.com/docs/mailgun/user-manual/sending-messages/send-http
 */
export const mailgun: Provider<MailgunSettings> = {
  id: 'mailgun',
  channel: 'email',
  title: 'Mailgun',
  settings,
  limits: { slowsLane: true },

  async send(message, ctx): Promise<Sent> {
    const { settings: own } = ctx
    const mail = composeEmail(message, own)
    // Writes the multipart body of RFC 7578, file names and all.
    const encoded = new Response(formOf(message, mail))
    const response = await call(ctx, {
      method: 'POST',
      path: `/v3/${own.domain}/messages`,
      type: encoded.headers.get('content-type') ?? '',
      body: await encoded.bytes(),
    })
    const error = judgeAnswer(response, ctx.now(), message.to)
    if (error !== undefined) throw error
    const id = textAt(readObject(response.body) ?? {}, 'id')
    if (id === undefined) throw unknown('garbled_answer', 'Mailgun named no message')
    return {
      outcome: 'sent',
      providerMessageId: withoutBrackets(id),
      code: String(response.status),
      cost: costOf(1 + mail.cc.length + mail.bcc.length, own),
    }
  },

  callback(request, { settings: own, now }) {
    const { signed, event } = readEvent(request)
    verifySignature(signed, own.webhookSigningKey?.reveal(), now())
    const receipt = receiptOf(event)
    return {
      receipts: receipt === undefined ? [] : [receipt],
      // Repeated by Mailgun it comes with the same event.
      once: {
        token: signed.token,
        event: `${textAt(event, 'id')} ${textAt(event, 'event')}`,
        until: new Date(Number(signed.timestamp) * 1000 + MAX_AGE_MS),
      },
      // "If Mailgun receives a 200 …": any other answer, 204 included, is repeated for 8 hours.
      // https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-retries
      reply: { status: 200, contentType: 'text/plain; charset=utf-8', body: 'OK' },
    }
  },

  async check(ctx) {
    const response = await call(ctx, { method: 'GET', path: `/v4/domains/${ctx.settings.domain}` })
    const error = judgeAnswer(response, ctx.now(), '')
    if (error !== undefined) throw error
    const domain = readObject(response.body)?.domain
    if (!isObject(domain)) throw temporary('garbled_answer', 'The answer is not one of Mailgun')
    if (domain.is_disabled === true || domain.state !== 'active') {
      throw temporary(
        'invalid_settings',
        `Mailgun does not send for this domain: ${wordOf(textAt(domain, 'state'))}`,
      )
    }
  },
}

/* ---------------------------------------------------------------- the request */

function formOf(message: Message, mail: Email): FormData {
  if (mail.text === '' && !mail.html) throw permanent('content_refused', 'A message needs a text')
  const options: [string, string][] = [
    // Opens, clicks and unsubscribing are ours to count: a link rewritten by both would lead nowhere.
    ['o:tracking', 'no'],
    ['o:tracking-clicks', 'no'],
    ['o:tracking-opens', 'no'],
    ['v:notification', message.notificationId],
    ['h:Message-Id', mail.messageId],
    ...Object.entries(mail.headers).map(([name, value]): [string, string] => [`h:${name}`, value]),
  ]
  if (mail.replyTo !== undefined) options.push(['h:Reply-To', mailboxText(mail.replyTo, true)])
  // https://documentation.mailgun.com/docs/mailgun/user-manual/tracking-messages/track-tagging: 128 of ASCII.
  if (/^[\x21-\x7e]{1,128}$/.test(message.eventType)) options.push(['o:tag', message.eventType])
  const bytes = options.reduce((sum, [name, value]) => sum + Buffer.byteLength(name + value), 0)
  if (bytes > MAX_OPTIONS_BYTES) throw permanent('too_large', 'The headers are too long for Mailgun')

  const form = new FormData()
  form.append('from', mailboxText(mail.from, false))
  form.append('to', mail.to.address)
  for (const each of mail.cc) form.append('cc', each)
  for (const each of mail.bcc) form.append('bcc', each)
  form.append('subject', mail.subject)
  if (mail.text !== '') form.append('text', mail.text)
  if (mail.html) form.append('html', mail.html)
  for (const [name, value] of options) form.append(name, value)
  for (const { filename, contentType, content } of mail.attachments) {
    form.append('attachment', new File([new Uint8Array(content)], filename, { type: contentType }))
  }
  return form
}

function call(
  { http, settings: own, signal }: SendContext<MailgunSettings>,
  asked: { method: 'GET' | 'POST'; path: string; type?: string; body?: Uint8Array },
): Promise<HttpResponse> {
  const credentials = Buffer.from(`api:${own.apiKey.reveal()}`).toString('base64')
  const headers: Record<string, string> = { authorization: `Basic ${credentials}` }
  if (asked.type !== undefined) headers['content-type'] = asked.type
  return http.request({
    method: asked.method,
    url: `${own.baseUrl ?? HOSTS[own.region]}${asked.path}`,
    headers,
    body: asked.body,
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
}

const withoutBrackets = (id: string): string => id.replaceAll(/^<|>$/g, '')

/* ---------------------------------------------------------------- verdicts */

/** https://documentation.mailgun.com/docs/mailgun/api-reference/mg-api-overview (status codes) */
function judgeAnswer(
  { status, headers, body }: HttpResponse,
  now: Date,
  to: string,
): DeliveryError | undefined {
  if (status >= 200 && status < 300) return undefined
  const words = textAt(readObject(body) ?? {}, 'message') ?? ''
  const facts = { vendorCode: String(status), response: withoutAddress(words, to) || undefined }
  const detail = `Mailgun: HTTP ${status}`
  // Sandbox domains and free accounts: about this recipient, so another try is of no use.
  if (/authorized recipients/i.test(words)) return rejected('forbidden', detail, facts)
  switch (status) {
    case 400:
      return /\bto parameter\b|'to'/.test(words)
        ? permanent('invalid_address', detail, facts)
        : permanent('invalid_request', detail, facts)
    case 402:
    case 403:
      // An unpaid or disabled account, or a domain that is not verified yet: the operator mends it.
      return temporary('forbidden', detail, facts)
    case 404:
      // There is no such domain, or it lies in the other region.
      return temporary('invalid_settings', detail, facts)
    case 429: {
      const until = retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + 10_000)
      return rateLimited(until, facts)
    }
  }
  const plain = judge(status, headers, now)
  return plain && new DeliveryError(plain.kind, plain.code, detail, { ...facts, until: plain.until })
}

/* ---------------------------------------------------------------- receipts */

// Mailgun repeats a post for 8 hours.
const MAX_AGE_MS = 9 * 60 * 60_000
const MAX_AHEAD_MS = 5 * 60_000

interface Signed {
  timestamp: string
  token: string
  /** For the domain's own account, and for the one above it. */
  signatures: string[]
}

function readEvent({ body }: CallbackRequest): { signed: Signed; event: JsonObject } {
  const posted = readObject(body.toString('utf8'))
  const { signature, 'event-data': event } = posted ?? {}
  if (!isObject(signature) || !isObject(event)) throw callbackRefused('The body is no event of Mailgun')
  const timestamp =
    typeof signature.timestamp === 'number' ? String(signature.timestamp) : signature.timestamp
  const { token } = signature
  if (typeof timestamp !== 'string' || !/^\d{1,12}$/.test(timestamp)) {
    throw callbackRefused('The event is not signed')
  }
  if (typeof token !== 'string' || token === '' || token.length > 100) {
    throw callbackRefused('The event is not signed')
  }
  const signatures = [textAt(signature, 'signature'), textAt(signature, 'parent-signature')].filter(
    each => each !== undefined,
  )
  return { signed: { timestamp, token, signatures }, event }
}

/**
 * HMAC-SHA256 of timestamp and token.
 * https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/securing-webhooks
 */
function verifySignature({ timestamp, token, signatures }: Signed, key: string | undefined, now: Date): void {
  if (key === undefined) throw callbackRefused('There is no key to verify the webhook with')
  const age = now.getTime() - Number(timestamp) * 1000
  if (age > MAX_AGE_MS || age < -MAX_AHEAD_MS) throw callbackRefused('The signature is too old')
  const expected = createHmac('sha256', key)
    .update(timestamp + token)
    .digest()
  const holds = signatures.some(each => {
    const given = Buffer.from(each, 'hex')
    return given.length === expected.length && timingSafeEqual(given, expected)
  })
  if (!holds) throw callbackRefused('The signature does not hold')
}

type Told = Pick<Receipt, 'kind'> & Partial<Receipt>

/** https://documentation.mailgun.com/docs/mailgun/user-manual/webhooks/webhook-payloads */
function receiptOf(event: JsonObject): Receipt | undefined {
  const told = READERS.get(textAt(event, 'event') ?? '')?.(event)
  const messageId = textAt(objectAt(objectAt(event, 'message'), 'headers'), 'message-id')
  const providerMessageId = messageId === undefined ? undefined : withoutBrackets(messageId)
  const notificationId = notificationOf(textAt(objectAt(event, 'user-variables'), 'notification'))
  const seconds = Number(event.timestamp)
  const at = new Date(Math.round(seconds * 1000))
  if (told === undefined || !(seconds > 0) || Number.isNaN(at.getTime())) return undefined
  if (providerMessageId === undefined && notificationId === undefined) return undefined
  const id = textAt(event, 'id')
  return defined({
    ...told,
    at,
    providerMessageId,
    notificationId,
    address: textAt(event, 'recipient'),
    // "Guaranteed to be unique within a day".
    receiptId: id === undefined ? undefined : `${id}:${Math.floor(seconds)}`,
  })
}

// A map, as an event named "constructor" would find something in an object.
const READERS = new Map<string, (event: JsonObject) => Told>([
  ['delivered', () => ({ kind: 'delivered' })],
  ['failed', failure],
  ['rejected', () => ({ kind: 'failed', code: 'content_refused' })],
  ['complained', () => ({ kind: 'complained' })],
  ['unsubscribed', () => ({ kind: 'unsubscribed' })],
  ['opened', () => ({ kind: 'opened' })],
  ['clicked', event => ({ kind: 'clicked', detail: textAt(event, 'url')?.slice(0, 2_000) })],
])

/** Why Mailgun did not even try, or no longer does. */
const REASONS = new Map<string, Told>([
  ['suppress-bounce', { kind: 'bounced', code: 'unknown_address' }],
  ['suppress-unsubscribe', { kind: 'failed', code: 'opted_out' }],
  ['suppress-complaint', { kind: 'failed', code: 'opted_out' }],
  ['espblock', { kind: 'failed', code: 'refused' }],
  ['blacklisted', { kind: 'failed', code: 'refused' }],
  // Tried for as long as Mailgun tries.
  ['old', { kind: 'failed', code: 'unavailable' }],
])

function failure(event: JsonObject): Told {
  const status = objectAt(event, 'delivery-status')
  const enhanced = wordOf(textAt(status, 'enhanced-code'))
  const reply = typeof status.code === 'number' ? String(status.code) : undefined
  const reason = wordOf(textAt(event, 'reason'))
  const vendorCode = [reply, enhanced, reason].filter(each => each !== undefined).join(' ') || undefined
  const words = textAt(status, 'message') ?? textAt(status, 'description')
  const detail = whyOf(words, textAt(event, 'recipient'))
  const full = enhanced?.endsWith('.2.2') === true || reply === '552'
  // Only a permanent failure is the last word; Mailgun goes on trying after any other.
  if (event.severity !== 'permanent') {
    return { kind: 'deferred', code: full ? 'mailbox_full' : 'unavailable', vendorCode, detail }
  }
  const blame = full ? 'full' : mailBlame(enhanced, Number(reply), words ?? '')
  return { ...(REASONS.get(reason ?? '') ?? turnedAway(blame)), vendorCode, detail }
}

function turnedAway(blame: MailBlame): Told {
  switch (blame) {
    case 'address':
    case 'nowhere':
      return { kind: 'bounced', code: 'unknown_address' }
    case 'full':
      return { kind: 'failed', code: 'mailbox_full' }
    case 'size':
      return { kind: 'failed', code: 'too_large' }
    case 'content':
      return { kind: 'failed', code: 'content_refused' }
    case 'system':
      return { kind: 'failed', code: 'unavailable' }
    case 'sender':
    case 'policy':
      return { kind: 'failed', code: 'refused' }
  }
}

const objectAt = (from: JsonObject, name: string): JsonObject => {
  const value = from[name]
  return isObject(value) ? value : {}
}
