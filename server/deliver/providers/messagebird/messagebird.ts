import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message } from '../../../types.ts'
import {
  type Callback,
  type CallbackRequest,
  callbackRefused,
  type Cost,
  DeliveryError,
  type DeliveryCode,
  type FailureKind,
  type HttpResponse,
  judge,
  type Provider,
  type Receipt,
  secret,
  type Secret,
  type Sent,
  unknown,
} from '../../provider.ts'
import { isObject, readObject, textAt } from '../answers.ts'
import { costOf, inbound, notificationOf, phoneNumber, withoutPerson } from '../phone.ts'
import { smsSettings, smsText } from '../sms-text.ts'

const settings = Type.Object(
  {
    accessKey: secret({ title: 'Access key', description: 'Of the account.', pattern: '^[\\x21-\\x7e]+$' }),
    originator: Type.String({
      title: 'Originator',
      description: 'The sender: a number of the account, or up to 11 letters and digits.',
      pattern: '^(\\+?[1-9]\\d{2,16}|[A-Za-z0-9 ]{1,11})$',
    }),
    signingKey: Type.Optional(
      secret({
        title: 'Signing key',
        description: 'Status reports are signed with it; without it none are taken.',
      }),
    ),
    reportUrl: Type.Optional(
      Type.String({
        title: 'Report address',
        description:
          'Where MessageBird reports what became of a message: this installation, /webhooks/messagebird.',
        maxLength: 1_000,
        pattern: '^https?://[^\\s#]+$',
      }),
    ),
    baseUrl: Type.String({
      title: 'API address',
      default: 'https://rest.messagebird.com',
      maxLength: 200,
      pattern: '^https?://[^\\s/?#@]+$',
    }),
    timeoutSeconds: Type.Number({
      title: 'Timeout',
      description: 'Seconds for one request, connection included.',
      default: 10,
      minimum: 0.1,
      maximum: 60,
    }),
    // "a maximum of 1377 characters": nine segments.
    ...smsSettings(9),
  },
  { additionalProperties: false },
)

export type MessageBirdSettings = Static<typeof settings>

/** SMS through MessageBird, now Bird. https://developers.messagebird.com/api/sms-messaging/ */
export const messagebird: Provider<MessageBirdSettings> = {
  id: 'messagebird',
  channel: 'sms',
  title: 'MessageBird SMS',
  settings,
  limits: {
    slowsLane: true,
    // https://developers.messagebird.com/api/sms-messaging/#send-outbound-sms
    bodyChars: 1_377,
    // https://developers.messagebird.com/api/#rate-limiting: 500 POST requests per second.
    perSecond: 500,
  },

  async send(message, { http, settings: own, signal, now }) {
    const { text, size } = smsText(message.content.body, own)
    const response = await http.request({
      url: `${own.baseUrl}/messages`,
      headers: { ...headersOf(own), 'content-type': 'application/json' },
      body: JSON.stringify({
        originator: own.originator,
        recipients: [phoneNumber(message.to).slice(1)],
        body: text,
        datacoding: 'auto',
        // Comes back in every report; without it there are none.
        reference: referenceOf(message),
        reportUrl: own.reportUrl,
      }),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    const failure = verdict(response, now(), words => withoutPerson(words, message))
    if (failure !== undefined) throw failure
    const { id, recipients } = objectIn(response.body)
    if (typeof id !== 'string' || id.length > 100) throw unknown('garbled_answer')
    const [first] = isObject(recipients) ? listIn(recipients.items) : []
    const status = wordOf(first?.status) ?? 'sent'
    if (status === 'delivery_failed' || status === 'expired') {
      const [kind, code] = fate(wordOf(first?.statusReason), wordOf(first?.statusErrorCode))
      throw new DeliveryError(kind, code, `MessageBird says ${status}`, {
        vendorCode: wordOf(first?.statusErrorCode) ?? status,
      })
    }
    const sent: Sent = { outcome: 'sent', providerMessageId: id, code: status, response: status }
    const price = isObject(first?.price) ? first.price : {}
    const cost = priceOf(price.amount, price.currency) ?? costOf(size.segments, own)
    return cost === undefined ? sent : { ...sent, cost }
  },

  callback(request, ctx): Callback {
    const { signingKey } = ctx.settings
    if (signingKey === undefined) throw callbackRefused('There is no signing key to check callbacks with')
    checkSignature(request, signingKey, ctx.now())
    return { receipts: receiptsIn(parametersOf(request), ctx.now()) }
  },

  async check({ http, settings: own, signal, now }) {
    const response = await http.request({
      method: 'GET',
      url: `${own.baseUrl}/balance`,
      headers: headersOf(own),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    const failure = verdict(response, now(), words => words)
    if (failure !== undefined) throw failure
  },
}

const headersOf = (own: MessageBirdSettings): Record<string, string> => ({
  accept: 'application/json',
  authorization: `AccessKey ${own.accessKey.reveal()}`,
})

/** At most 60 characters, and nothing that would have to be escaped in a report's URL. */
const referenceOf = ({ idempotencyKey: key }: Message): string =>
  /^[A-Za-z0-9._-]{1,60}$/.test(key) ? key : createHash('sha256').update(key).digest('base64url')

function priceOf(amount: Json | undefined, currency: Json | undefined): Cost | undefined {
  const value = typeof amount === 'string' && amount !== '' ? Number(amount) : amount
  if (typeof value !== 'number' || !Number.isFinite(value) || value < 0) return undefined
  return typeof currency === 'string' && /^[A-Z]{3}$/.test(currency) ? { amount: value, currency } : undefined
}

/* ---------------------------------------------------------------- errors */

type Verdict = readonly [FailureKind, DeliveryCode]

/** https://developers.messagebird.com/api/#api-errors */
const ERRORS: Readonly<Record<number, Verdict>> = {
  2: ['temporary', 'auth'],
  20: ['temporary', 'invalid_settings'], // the resource: another address
  21: ['permanent', 'invalid_request'],
  25: ['temporary', 'forbidden'], // not enough balance
  98: ['temporary', 'invalid_settings'], // the API: another address
  99: ['temporary', 'server_error'],
}
/** 9: missing, 10: invalid. The parameter says whose fault it is. */
const PARAMETERS: ReadonlyMap<string, Verdict> = new Map(
  Object.entries<Verdict>({
    access_key: ['temporary', 'auth'],
    originator: ['temporary', 'invalid_settings'],
    reportUrl: ['temporary', 'invalid_settings'],
    recipient: ['bounced', 'invalid_address'],
    recipients: ['bounced', 'invalid_address'],
    body: ['permanent', 'content_refused'],
  }),
)

function verdict(
  response: HttpResponse,
  now: Date,
  clean: (words: string) => string,
): DeliveryError | undefined {
  const plain = judge(response.status, response.headers, now)
  if (plain === undefined) return response.complete ? undefined : unknown('garbled_answer')
  const [first] = listIn(objectIn(response.body).errors)
  if (typeof first?.code !== 'number') return plain
  const { code, description, parameter } = first
  const facts = {
    vendorCode: String(code),
    response: typeof description === 'string' ? clean(description) : undefined,
  }
  const detail = `HTTP ${response.status}, MessageBird ${code}`
  // A pace asked for, or a failure of theirs, is what the status says.
  const known =
    code === 9 || code === 10
      ? (PARAMETERS.get(typeof parameter === 'string' ? parameter : '') ??
        (['permanent', 'invalid_request'] as const))
      : ERRORS[code]
  if (plain.kind === 'rate_limited' || plain.code === 'rate_limited' || known === undefined) {
    return new DeliveryError(plain.kind, plain.code, detail, { ...facts, until: plain.until })
  }
  return new DeliveryError(known[0], known[1], detail, facts)
}

/**
 * Why a message did not arrive. Reasons: https://developers.messagebird.com/api/sms-messaging/#sms-statuses,
 * numbers of networks: https://docs.bird.com/api/channels-api/message-status-and-interactions/message-failure-sources
 */
const REASONS: ReadonlyMap<string, Verdict> = new Map(
  Object.entries<Verdict>({
    'unknown subscriber': ['bounced', 'unknown_address'],
    'unavailable subscriber': ['temporary', 'unavailable'],
    'opted out': ['rejected', 'opted_out'],
    'carrier rejected': ['rejected', 'refused'],
    'received network error': ['temporary', 'server_error'],
    'insufficient balance': ['temporary', 'forbidden'],
    'capacity limit reached': ['temporary', 'rate_limited'],
  }),
)
// 1 unknown, 5 unidentified, 9 illegal subscriber; 10 and 11 without the service; 12 barred; 2 and 3 without a cell.
const NO_SUBSCRIBER = new Set(['1', '2', '3', '5', '9', '10', '11', '12'])

function fate(reason: string | undefined, number: string | undefined): Verdict {
  if (NO_SUBSCRIBER.has(number ?? '')) return ['bounced', 'unknown_address']
  const known = REASONS.get((reason ?? '').toLowerCase().replaceAll('_', ' '))
  return known ?? ['temporary', 'server_error']
}

/* ---------------------------------------------------------------- callbacks */

const HASHES: ReadonlyMap<string, string> = new Map([
  ['HS256', 'sha256'],
  ['HS384', 'sha384'],
  ['HS512', 'sha512'],
])
const TOLERANCE_SECONDS = 5

/**
 * MessageBird-Signature-JWT: a token of a minute, signed with the account's key, that names the hashes of the URL
 * and of the body. https://developers.messagebird.com/api/#verifying-http-requests
 *
 * @throws AppError `unauthenticated`
 */
export function checkSignature(request: CallbackRequest, key: Secret, now: Date): void {
  const token = request.headers['messagebird-signature-jwt']
  if (typeof token !== 'string') throw callbackRefused('MessageBird-Signature-JWT is missing')
  const [head = '', payload = '', signature = '', ...more] = token.split('.')
  const hash = HASHES.get(textAt(objectIn(decoded(head)), 'alg') ?? '')
  if (hash === undefined || more.length > 0)
    throw callbackRefused('MessageBird-Signature-JWT is no such token')
  const expected = createHmac(hash, key.reveal()).update(`${head}.${payload}`).digest()
  const given = Buffer.from(signature, 'base64url')
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw callbackRefused('MessageBird-Signature-JWT does not hold')
  }
  const { iss, nbf, exp, jti, url_hash: urlHash, payload_hash: bodyHash } = objectIn(decoded(payload))
  const seconds = now.getTime() / 1000
  const inTime =
    typeof nbf === 'number' &&
    typeof exp === 'number' &&
    seconds >= nbf - TOLERANCE_SECONDS &&
    seconds < exp + TOLERANCE_SECONDS
  if (iss !== 'MessageBird' || typeof jti !== 'string' || !inTime) {
    throw callbackRefused('MessageBird-Signature-JWT is not for now')
  }
  if (urlHash !== sha256(request.url)) throw callbackRefused('The URL is not the one that was signed')
  const signed = bodyHash ?? (request.body.length === 0 ? sha256('') : undefined)
  if (signed !== sha256(request.body)) throw callbackRefused('The body is not the one that was signed')
}

const sha256 = (data: string | Buffer): string => createHash('sha256').update(data).digest('hex')
const decoded = (part: string): string => Buffer.from(part, 'base64url').toString('utf8')

/** Reports come as GET with a query; forwarded messages also as a form or as JSON. */
function parametersOf(request: CallbackRequest): (name: string) => string | undefined {
  const text = request.body.toString('utf8')
  if (text.trimStart().startsWith('{')) {
    const json = objectIn(text)
    return name => wordOf(json[name])
  }
  const query = URL.canParse(request.url) ? new URL(request.url).search : ''
  const params = new URLSearchParams(text === '' ? query : text)
  return name => params.get(name) ?? undefined
}

function receiptsIn(parameter: (name: string) => string | undefined, now: Date): Receipt[] {
  const id = parameter('id')
  const status = parameter('status')
  const from = parameter('originator')
  if (status === undefined) {
    const text = parameter('body')
    if (from === undefined || text === undefined) return []
    return [inbound({ from: numberOf(from), text, at: timeOf(parameter('createdDatetime'), now), id })]
  }
  const outcome = outcomeOf(status, parameter)
  if (id === undefined || outcome === undefined) return []
  const receipt: Receipt = {
    ...outcome,
    at: timeOf(parameter('statusDatetime'), now),
    providerMessageId: id,
    receiptId: `${id}:${status}`,
  }
  const notificationId = notificationOf(parameter('reference'))
  if (notificationId !== undefined) receipt.notificationId = notificationId
  const recipient = parameter('recipient')
  if (recipient !== undefined) receipt.address = numberOf(recipient)
  const cost = priceOf(parameter('price[amount]'), parameter('price[currency]'))
  if (cost !== undefined) receipt.cost = cost
  return [receipt]
}

function outcomeOf(
  status: string,
  parameter: (name: string) => string | undefined,
): Pick<Receipt, 'kind' | 'code' | 'vendorCode'> | undefined {
  switch (status) {
    case 'delivered':
      return { kind: 'delivered' }
    case 'buffered':
      return { kind: 'deferred' }
    case 'expired':
      return { kind: 'failed', code: 'unavailable', vendorCode: status }
    case 'delivery_failed': {
      const [reason, number] = [parameter('statusReason'), parameter('statusErrorCode')]
      const [kind, code] = fate(reason, number)
      const vendorCode = (number ?? reason ?? status).slice(0, 100)
      return { kind: kind === 'bounced' ? 'bounced' : 'failed', code, vendorCode }
    }
    default:
      // scheduled, sent: nothing that we do not know.
      return undefined
  }
}

const numberOf = (digits: string): string => (/^\d{7,15}$/.test(digits) ? `+${digits}` : digits)

/** RFC 3339. A `+` that was not escaped in the query reads as a blank. Never in the future. */
function timeOf(text: string | undefined, now: Date): Date {
  const at = Date.parse((text ?? '').replace(' ', '+'))
  return at <= now.getTime() ? new Date(at) : now
}

const objectIn = (text: string): JsonObject => readObject(text) ?? {}

const listIn = (given: Json | undefined): JsonObject[] => (Array.isArray(given) ? given.filter(isObject) : [])

const wordOf = (given: Json | undefined): string | undefined =>
  typeof given === 'string' ? given : typeof given === 'number' ? String(given) : undefined
