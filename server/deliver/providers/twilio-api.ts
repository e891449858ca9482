import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { Type } from 'typebox'
import type { Message } from '../../types.ts'
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
  permanent,
  rateLimited,
  type Receipt,
  retryAfter,
  type Secret,
  secret,
  type SendContext,
  temporary,
  unknown,
} from '../provider.ts'
import { readObject } from './answers.ts'
import { inbound, notificationOf, withoutPerson } from './phone.ts'

/**
 * What the Twilio providers share: the account, one request (API 2010-04-01), what its errors mean, and signed
 * callbacks. https://www.twilio.com/docs/usage/api
 */

export const accountSettings = {
  accountSid: Type.String({ title: 'Account SID', pattern: '^AC[0-9a-fA-F]{32}$' }),
  authToken: secret({
    title: 'Auth token',
    description: 'Of the account. Callbacks are signed with it.',
  }),
  apiKeySid: Type.Optional(
    Type.String({
      title: 'API key SID',
      description: 'With its secret used instead of the auth token for requests.',
      pattern: '^SK[0-9a-fA-F]{32}$',
    }),
  ),
  apiKeySecret: Type.Optional(secret({ title: 'API key secret', description: 'Of the API key.' })),
  statusCallback: Type.Optional(
    Type.String({
      title: 'Status callback',
      description: 'Where Twilio reports what became of a message: this installation, /webhooks/<provider>.',
      maxLength: 1_000,
      pattern: '^https?://[^\\s#]+$',
    }),
  ),
  baseUrl: Type.String({
    title: 'API address',
    description: 'Another one for an edge or region of Twilio, or for a stand-in.',
    default: 'https://api.twilio.com',
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
}

export interface Account {
  accountSid: string
  authToken: Secret
  apiKeySid?: string
  apiKeySecret?: Secret
  statusCallback?: string
  baseUrl: string
  timeoutSeconds: number
}

export type Fields = [name: string, value: string][]

/** What Twilio made of a request. */
export interface Created {
  sid: string
  status: string
  /** Twilio's own price, where it is known already. */
  cost?: Cost
  /** 0 while Twilio does not know, as with messaging services. */
  segments: number
}

/**
 * Creates a message or a call. The status callback carries our key, so that a receipt finds its delivery even
 * when no answer came and the SID is not known: Twilio recognises no idempotency key.
 */
export async function create(
  resource: 'Messages' | 'Calls',
  fields: Fields,
  message: Message,
  ctx: SendContext<Account>,
): Promise<Created> {
  const { settings: own } = ctx
  const form = new URLSearchParams(fields)
  if (own.statusCallback !== undefined) {
    const callback = new URL(own.statusCallback)
    callback.searchParams.set('delivery', message.idempotencyKey)
    form.append('StatusCallback', callback.href)
  }
  const answer = await post(urlOf(own, `${resource}.json`), form, message, ctx)
  const { sid, status, price, price_unit: currency, num_segments: segments, error_code: code } = answer
  // Without its SID no receipt of it could be told from any other: whether it exists is not known.
  if (typeof sid !== 'string' || sid.length > 100) throw unknown('garbled_answer')
  if (status === 'failed' || status === 'undelivered') {
    const detail = `Twilio says ${status}`
    const number = typeof code === 'number' ? String(code) : ''
    throw failureOf(number, detail) ?? temporary('server_error', detail)
  }
  const created: Created = {
    sid,
    status: typeof status === 'string' ? status.slice(0, 50) : 'queued',
    segments: Number(segments) || 0,
  }
  const cost = costIn(price, currency)
  if (cost !== undefined) created.cost = cost
  return created
}

/** One form to Twilio, its errors judged. */
export async function post(
  url: string,
  form: URLSearchParams,
  message: Pick<Message, 'to' | 'content'>,
  { http, settings: own, now, signal }: SendContext<Account>,
): Promise<Record<string, unknown>> {
  const response = await http.request({
    url,
    headers: { ...headersOf(own), 'content-type': 'application/x-www-form-urlencoded' },
    body: form.toString(),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  const failure = verdict(response, now(), words => withoutPerson(words, message))
  if (failure !== undefined) throw failure
  return readObject(response.body) ?? {}
}

/** A harmless question that standard API keys may ask as well. */
export async function checkAccount({
  http,
  settings: own,
  now,
  signal,
}: SendContext<Account>): Promise<void> {
  const response = await http.request({
    method: 'GET',
    url: urlOf(own, 'IncomingPhoneNumbers.json?PageSize=1'),
    headers: headersOf(own),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  const failure = verdict(response, now(), words => words)
  if (failure !== undefined) throw failure
}

const urlOf = (own: Account, resource: string): string =>
  `${own.baseUrl}/2010-04-01/Accounts/${own.accountSid}/${resource}`

function headersOf(own: Account): Record<string, string> {
  const [user, password] =
    own.apiKeySid !== undefined && own.apiKeySecret !== undefined
      ? [own.apiKeySid, own.apiKeySecret]
      : [own.accountSid, own.authToken]
  const basic = Buffer.from(`${user}:${password.reveal()}`).toString('base64')
  return { accept: 'application/json', authorization: `Basic ${basic}` }
}

/* ---------------------------------------------------------------- errors */

type Verdict = readonly [FailureKind, DeliveryCode]

const NO_SUCH_NUMBER: Verdict = ['bounced', 'unknown_address']
/** Today, or by this way: it does not say that the number is nobody's. */
const NOT_REACHED: Verdict = ['rejected', 'unavailable']
const BAD_NUMBER: Verdict = ['bounced', 'invalid_address']
const NOT_ALLOWED: Verdict = ['rejected', 'forbidden']
const OPTED_OUT: Verdict = ['rejected', 'opted_out']
const CONTENT: Verdict = ['permanent', 'content_refused']
// Mended by whoever set the provider up, like a wrong password: meanwhile another provider may serve.
const SET_UP: Verdict = ['temporary', 'invalid_settings']
const ACCOUNT: Verdict = ['temporary', 'auth']
const SLOWER: Verdict = ['temporary', 'rate_limited']
const AWAY: Verdict = ['temporary', 'unavailable']

/** Of the limits of Verify the one of a single number. */
const ONE_NUMBER = '60212'

/** https://www.twilio.com/docs/api/errors; the same numbers come in answers and in status callbacks. */
const ERRORS: ReadonlyMap<string, Verdict> = new Map(
  Object.entries<Verdict>({
    // The account.
    10001: ACCOUNT, // account not active
    10004: SLOWER, // calls at once
    20003: ACCOUNT, // authentication failed
    20005: ACCOUNT, // account not active
    20008: ACCOUNT, // test credentials
    20404: SET_UP, // resource not found: another account or address
    20429: SLOWER, // too many requests
    14107: SLOWER, // message rate limit
    20500: ['temporary', 'server_error'],
    20503: AWAY,
    // The number it goes to.
    21201: BAD_NUMBER, // no number called
    21211: BAD_NUMBER, // invalid To
    21214: NOT_REACHED, // a call gets through to nobody
    21217: BAD_NUMBER, // number does not appear to be valid
    21401: BAD_NUMBER,
    21421: BAD_NUMBER,
    21604: BAD_NUMBER, // To is missing
    21614: NO_SUCH_NUMBER, // no mobile number
    21635: NO_SUCH_NUMBER, // a landline
    13224: NOT_REACHED, // no such number, or no carrier gets through: https://www.twilio.com/docs/api/errors/13224
    // Whether it may go there.
    21203: NOT_ALLOWED, // international calls are off
    21215: NOT_ALLOWED, // geographic permission for calls
    21216: NOT_ALLOWED, // number may not be called
    21219: NOT_ALLOWED, // unverified, trial account
    21408: NOT_ALLOWED, // region is not enabled for SMS
    21608: NOT_ALLOWED, // unverified, trial account
    21610: OPTED_OUT, // replied STOP
    21612: ['rejected', 'refused'], // no way from this sender to this number
    13225: NOT_ALLOWED, // number may not be called
    13227: NOT_ALLOWED, // geographic permission for calls
    // The sender.
    21210: SET_UP, // From is not verified
    21212: SET_UP, // invalid From
    21213: SET_UP, // From is missing
    21603: SET_UP,
    21606: SET_UP, // From cannot send SMS
    21609: SET_UP, // invalid StatusCallback
    21611: SLOWER, // the sender's queue is full
    21618: ['temporary', 'content_refused'],
    21659: SET_UP, // From is no number of the account
    21660: SET_UP,
    21701: SET_UP, // messaging service does not exist
    21703: SET_UP, // messaging service has no sender
    21704: SET_UP,
    21705: SET_UP,
    21730: AWAY, // maintenance
    21910: SET_UP, // From and To of different channels
    // Verify.
    60200: ['permanent', 'invalid_address'], // invalid parameter, such as To
    60201: SET_UP, // the translation of the template is not approved
    60202: ['rejected', 'rate_limited'], // five checks of one code; it has to expire first
    60203: ['rejected', 'rate_limited'], // five codes to one address in ten minutes
    60204: SET_UP, // the service has no such feature, such as codes of ours
    60205: NO_SUCH_NUMBER, // SMS does not reach landlines
    60207: SLOWER, // rate of the service
    [ONE_NUMBER]: SLOWER, // too many requests for one number at once
    60217: SET_UP, // the service is set up wrongly
    60218: SET_UP, // mail: its template is not active
    60219: SET_UP, // mail: its template lacks placeholders
    60220: NOT_ALLOWED, // messages to China need vetting
    60222: SET_UP, // mail: its sender is not verified
    60223: SET_UP, // the channel is switched off in the service
    60238: ['rejected', 'refused'], // Twilio reviews the account, or sends nothing to the country
    60410: ['rejected', 'refused'], // blocked by Verify's fraud guard
    60605: NOT_ALLOWED, // blocked by Verify's geographic permissions
    // The content.
    12100: CONTENT, // TwiML cannot be parsed
    21602: CONTENT, // no body
    21605: ['permanent', 'too_large'],
    21617: ['permanent', 'too_large'], // more than 1,600 characters
    21619: CONTENT, // neither body nor media
    21620: CONTENT, // invalid media URL
    21623: CONTENT, // too many media
    21655: CONTENT, // invalid ContentSid
    21656: CONTENT, // invalid ContentVariables
    // On the way, known later.
    30001: SLOWER, // queue overflow
    30002: ACCOUNT, // account suspended
    30003: AWAY, // handset switched off or out of reach
    30004: ['rejected', 'refused'], // blocked by the recipient or the carrier
    30005: NO_SUCH_NUMBER, // unknown handset
    30006: NO_SUCH_NUMBER, // landline or unreachable carrier
    30007: ['rejected', 'content_refused'], // filtered as unwanted
    30008: ['temporary', 'server_error'], // unknown
    30010: ['permanent', 'refused'], // price above the limit
    30011: ['permanent', 'refused'],
    30019: ['permanent', 'too_large'],
    30022: SLOWER, // rate of a registered sender in the USA
    30023: SLOWER, // daily amount of the same
    30024: NOT_ALLOWED, // numeric sender id not provisioned
    30027: SLOWER,
    30032: NOT_ALLOWED, // toll-free sender not verified
    30034: NOT_ALLOWED, // sender not registered in the USA
    30035: NOT_ALLOWED,
    30036: ['permanent', 'unavailable'], // validity period is over
    30038: ['rejected', 'content_refused'],
    30410: AWAY, // carrier timed out
    30500: ['temporary', 'server_error'],
    // WhatsApp and other channels.
    63001: ACCOUNT, // channel refuses our account
    63003: NO_SUCH_NUMBER, // no such account on the channel
    63005: CONTENT, // channel refuses the content
    63006: CONTENT,
    63007: SET_UP, // From is no sender of the channel
    63008: SET_UP,
    63009: AWAY, // channel answered with an error
    63010: AWAY,
    63012: AWAY,
    63013: ['rejected', 'content_refused'], // against the policy of the channel
    63014: ['rejected', 'refused'],
    63015: NOT_ALLOWED, // sandbox: recipient has not joined
    // Free text more than 24 hours after the recipient last wrote: only a template may be sent.
    63016: CONTENT,
    63017: SLOWER,
    63018: SLOWER,
    63019: CONTENT, // media cannot be fetched
    63020: SET_UP,
    63021: CONTENT,
    63022: CONTENT,
    63023: AWAY,
    63024: NOT_REACHED, // Meta's 131026, which has several reasons
    63025: CONTENT,
    63027: CONTENT, // template does not exist
    63028: CONTENT, // number of template variables
    63030: CONTENT,
    63031: BAD_NUMBER, // To and From are the same
    63032: ['rejected', 'refused'], // the channel limits messages to this person
    63033: OPTED_OUT, // recipient blocked us
    63036: NO_SUCH_NUMBER, // not on the channel
    63038: SLOWER, // daily amount of the account
    63040: CONTENT, // template was refused
    63041: CONTENT, // template is paused
    63042: CONTENT, // template is switched off
    63049: ['rejected', 'refused'], // the channel chose not to deliver
    63051: ACCOUNT, // business account locked
  }),
)

/** What to do about it, where the number alone leaves people helpless. */
const ADVICE: Readonly<Record<string, string>> = {
  63016:
    'More than 24 hours after the recipient last wrote, WhatsApp takes templates only: set data.template.contentSid',
}

function failureOf(code: string, detail: string, words?: string): DeliveryError | undefined {
  const [kind, word] = ERRORS.get(code) ?? []
  if (kind === undefined || word === undefined) return undefined
  return new DeliveryError(kind, word, detail, {
    vendorCode: code,
    response: ADVICE[code] ?? words,
    alone: code === ONE_NUMBER,
  })
}

function verdict(
  response: HttpResponse,
  now: Date,
  clean: (words: string) => string,
): DeliveryError | undefined {
  const plain = judge(response.status, response.headers, now)
  if (plain === undefined) {
    return response.complete ? undefined : unknown('garbled_answer')
  }
  const { code, message } = readObject(response.body) ?? {}
  if (typeof code !== 'number') return plain
  const words = typeof message === 'string' ? clean(message) : undefined
  const detail = `HTTP ${response.status}, Twilio ${code}`
  const known = failureOf(String(code), detail, words)
  const facts = { vendorCode: String(code), response: words }
  const until = retryAfter(response.headers['retry-after'], now)
  // Verify's limits on one address outlive the code that it could bring.
  const slower = !known?.final && (plain.kind === 'rate_limited' || known?.code === 'rate_limited')
  if (slower && until !== undefined) {
    return rateLimited(until, { ...facts, alone: facts.vendorCode === ONE_NUMBER })
  }
  return known ?? new DeliveryError(plain.kind, plain.code, detail, facts)
}

/* ---------------------------------------------------------------- callbacks */

/**
 * The parameters of a callback whose signature holds: HMAC-SHA1 with the auth token over the URL and, for a form,
 * its parameters in order of their names; another body is covered by its SHA-256 in the URL.
 * https://www.twilio.com/docs/usage/security#validating-requests
 *
 * @throws AppError `unauthenticated`
 */
export function signedParameters(request: CallbackRequest, token: Secret): URLSearchParams {
  const given = request.headers['x-twilio-signature']
  if (typeof given !== 'string') throw callbackRefused('X-Twilio-Signature is missing')
  if (!URL.canParse(request.url)) throw callbackRefused('The URL cannot be parsed')
  const url = new URL(request.url)
  const text = request.body.toString('utf8')
  const bodyHash = url.searchParams.get('bodySHA256')
  const isForm = request.method !== 'GET' && bodyHash === null
  const form = new URLSearchParams(isForm ? text : '')
  if (bodyHash !== null) {
    const actual = createHash('sha256').update(request.body).digest('hex')
    if (!sameText(actual, bodyHash)) throw callbackRefused('The body is not the one that was signed')
  } else if (!isForm && request.body.length > 0) {
    throw callbackRefused('The body is not signed')
  }
  const parameters = [...new Set(form.keys())]
    .toSorted()
    .flatMap(name => [...new Set(form.getAll(name))].toSorted().map(value => name + value))
    .join('')
  const holds = spellings(request.url).some(spelling =>
    sameText(signatureOf(spelling + parameters, token), given),
  )
  if (!holds) throw callbackRefused('X-Twilio-Signature does not hold')
  return isForm ? form : url.searchParams
}

const signatureOf = (text: string, token: Secret): string =>
  createHmac('sha1', token.reveal()).update(text).digest('base64')

/** Twilio signs the URL sometimes with the port that goes without saying and sometimes without it. */
function spellings(asked: string): string[] {
  const url = new URL(asked)
  const port = url.port === '' ? (url.protocol === 'https:' ? '443' : '80') : url.port
  const rest = `${url.pathname}${url.search}`
  return [
    ...new Set([
      asked,
      url.href,
      `${url.protocol}//${url.hostname}${rest}`,
      `${url.protocol}//${url.hostname}:${port}${rest}`,
    ]),
  ]
}

function sameText(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}

// What Twilio's own opt-out management took it for, in whatever language it was said
// (https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out).
const OPT_OUT = new Map<string | null, 'stop' | 'start'>([
  ['STOP', 'stop'],
  ['START', 'start'],
])

/** What a callback about a message or a call has in common. */
export function receiptBase(
  request: CallbackRequest,
  { sid, status, at }: { sid: string; status: string; at: Date },
): Omit<Receipt, 'kind'> {
  const base: Omit<Receipt, 'kind'> = { at, providerMessageId: sid, receiptId: `${sid}:${status}` }
  const notificationId = notificationOf(new URL(request.url).searchParams.get('delivery'))
  if (notificationId !== undefined) base.notificationId = notificationId
  return base
}

/** The kind and code of a receipt for one of Twilio's error numbers. */
export function failedReceipt(
  vendorCode: string | null,
  from?: string | null,
): Pick<Receipt, 'kind' | 'code' | 'vendorCode'> {
  // "Landline or unreachable carrier", the second of which only short codes meet:
  // https://www.twilio.com/docs/api/errors/30006
  const byShortCode = vendorCode === '30006' && /^\d{3,8}$/.test(from ?? '')
  const [kind, code] = byShortCode ? NOT_REACHED : (ERRORS.get(vendorCode ?? '') ?? [])
  return {
    kind: kind === 'bounced' ? 'bounced' : 'failed',
    ...(code === undefined ? {} : { code }),
    ...(vendorCode === null || vendorCode === '' ? {} : { vendorCode: vendorCode.slice(0, 100) }),
  }
}

/** Status callbacks and incoming messages, of SMS and of WhatsApp. */
export function messageCallback(request: CallbackRequest, ctx: SendContext<Account>): Callback {
  const params = signedParameters(request, ctx.settings.authToken)
  const sid = params.get('MessageSid') ?? params.get('SmsSid') ?? ''
  const status = params.get('MessageStatus') ?? params.get('SmsStatus') ?? ''
  const at = ctx.now()
  const plain = (address: string | null) => (address ?? '').replace(/^whatsapp:/, '')
  if (status === 'received' || (status === '' && params.has('Body'))) {
    return {
      receipts: [
        inbound({
          from: plain(params.get('From')),
          text: params.get('Body') ?? '',
          at,
          id: sid,
          about: params.get('OriginalRepliedMessageSid') ?? undefined,
          optOut: OPT_OUT.get(params.get('OptOutType')),
        }),
      ],
      // Twilio reads the answer as instructions (TwiML); none are given.
      reply: { status: 200, contentType: 'text/xml', body: '<Response/>' },
    }
  }
  if (sid === '') return { receipts: [] }
  const base = receiptBase(request, { sid, status, at })
  return {
    receipts: receiptsOf(status, { ...base, address: plain(params.get('To')) }, [
      params.get('ErrorCode'),
      params.get('From'),
    ]),
  }
}

/** What a status of a message means, whether it was told or asked for. */
function receiptsOf(
  status: string,
  base: Omit<Receipt, 'kind'>,
  failed: [errorCode: string | null, from: string | null],
): Receipt[] {
  switch (status) {
    case 'delivered':
      return [{ kind: 'delivered', ...base }]
    case 'read':
      return [{ kind: 'opened', ...base }]
    case 'undelivered':
    case 'failed':
    case 'canceled':
      return [{ ...base, ...failedReceipt(...failed) }]
    default:
      // accepted, scheduled, queued, sending, sent: nothing that we do not know.
      return []
  }
}

/**
 * What became of a message by now: https://www.twilio.com/docs/messaging/api/message-resource#fetch-a-message-resource.
 * The receipt is the same one that the status callback would have brought, so that it counts once.
 */
export async function messageStatus(sid: string, ctx: SendContext<Account>): Promise<Receipt[]> {
  const { http, settings: own, now, signal } = ctx
  if (!/^[A-Za-z0-9]{1,64}$/.test(sid)) throw permanent('gone', 'This is no SID')
  const response = await http.request({
    method: 'GET',
    url: urlOf(own, `Messages/${sid}.json`),
    headers: headersOf(own),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  if (response.status === 404)
    throw permanent('gone', 'Twilio does not know the message', { vendorCode: '20404' })
  const failure = verdict(response, now(), words => words)
  if (failure !== undefined) throw failure
  const found = readObject(response.body) ?? {}
  const { status, from, error_code: code, date_updated: updated, price, price_unit: currency } = found
  if (typeof status !== 'string') throw unknown('garbled_answer')
  const at = new Date(typeof updated === 'string' ? updated : Number.NaN)
  const base: Omit<Receipt, 'kind'> = {
    at: Number.isNaN(at.getTime()) ? now() : at,
    providerMessageId: sid,
    receiptId: `${sid}:${status}`,
  }
  const cost = costIn(price, currency)
  if (cost !== undefined) base.cost = cost
  return receiptsOf(status, base, [
    typeof code === 'number' ? String(code) : null,
    typeof from === 'string' ? from : null,
  ])
}

function costIn(price: unknown, currency: unknown): Cost | undefined {
  const amount = typeof price === 'string' && price !== '' ? Math.abs(Number(price)) : Number.NaN
  if (!Number.isFinite(amount) || typeof currency !== 'string' || !/^[A-Za-z]{3}$/.test(currency))
    return undefined
  return { amount, currency: currency.toUpperCase() }
}
