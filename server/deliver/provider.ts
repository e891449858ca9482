import { inspect } from 'node:util'
import { type TSchema, Type } from 'typebox'
import type { Socket } from 'node:net'
import { AppError } from '../errors.ts'
import type { Channel, Id, Message } from '../types.ts'

/**
 * Everything a provider is: how one vendor is spoken to, and what its answers mean. A provider judges; it never
 * sleeps, never retries, never logs. One loop acts on its judgement (retry, breaker, rate, failover).
 *
 * A provider may import this file, ../types.ts, node: modules and the libraries it needs: nothing else.
 */
export interface Provider<S, C extends Connection | undefined = undefined> {
  /** Lower case, unique: 'webhook', 'smtp', 'twilio'. Stored with every attempt, so it never changes. */
  id: string
  channel: Channel
  /** As people call it, for the console and the docs page. */
  title: string
  /** TypeBox object. Drives validation, the console form and the docs page; secrets are marked by `secret()`. */
  settings: TSchema
  /** The same for what belongs to one address, such as an endpoint's own signing secret. */
  addressSettings?: TSchema
  /** What the vendor takes at most. Cite the vendor's page beside each number. */
  limits?: Limits
  /** Whether the far end recognises our idempotency key, so that an `unknown` try may simply be repeated. */
  mayRepeat?: boolean
  /**
   * Opened once for a set of settings, closed when they change or the process stops: pools, cached tokens.
   * Opening does not talk to the vendor; `check` and `send` do.
   */
  open?(ctx: OpenContext<S>): C | Promise<C>
  /** Where several providers serve one channel: whether this address is one of ours. Default: yes. */
  accepts?(message: Message, settings: S): boolean
  /**
   * What fails and is limited together, such as the origin of an endpoint: breaker and rate are kept per lane.
   * Default: one lane for the provider.
   */
  lane?(message: Message): string
  /** Messages with an equal key may travel in one `sendMany`, at most `max`. Undefined: this one goes alone. */
  group?(message: Message, settings: S): Group | undefined
  /** Returns when the vendor took the message; throws `permanent`, `rateLimited`, … when it did not. */
  send(message: Message, ctx: SendContext<S, C>): Promise<Sent>
  /**
   * Puts the message in the place of one that the vendor took, by its `providerMessageId`. Throws `gone` when that one
   * cannot be changed any more: then the message is sent as a new one.
   */
  update?(message: Message, earlierId: string, ctx: SendContext<S, C>): Promise<Sent>
  /**
   * Puts the message under one that the vendor took, by its `providerMessageId`: the first of its thread. Throws `gone`
   * when nothing can be put there: then the message is sent as a new one.
   */
  reply?(message: Message, firstId: string, ctx: SendContext<S, C>): Promise<Sent>
  /** Takes back a message that the vendor took. Throws `gone` when it is not there. */
  retract?(messageId: string, ctx: SendContext<S, C>): Promise<void>
  /** One result per message, in their order. Throwing means the same for all of them. */
  sendMany?(messages: readonly Message[], ctx: SendContext<S, C>): Promise<(Sent | DeliveryError)[]>
  /**
   * Reads what the vendor posts to /webhooks/<id>. Checks the signature first and throws `callbackRefused` when
   * it does not hold.
   */
  callback?(request: CallbackRequest, ctx: SendContext<S, C>): Callback | Promise<Callback>
  /**
   * Whether the vendor would deliver to this device; sends nothing. Throws `bounced` where it never will again, whatever
   * else it may be where nobody can tell now. Absent where the vendor can only be asked by sending.
   */
  validateDeviceToken?(token: string, ctx: SendContext<S, C>): Promise<void>
  /**
   * Puts a device into a topic that the vendor keeps, or takes it out; saying it again changes nothing. Throws as `send`
   * does. Absent where the vendor keeps none.
   */
  updateTopicSubscription?(
    token: string,
    topic: string,
    subscribe: boolean,
    ctx: SendContext<S, C>,
  ): Promise<void>
  /**
   * What the vendor knows by now of a message that it took, as it would have told by a callback: for callbacks that were
   * lost. Throws `gone` when it does not know the message (any more).
   */
  getDeliveryStatus?(messageId: string, ctx: SendContext<S, C>): Promise<Receipt[]>
  /**
   * Of vendors that have a service for codes which verify addresses: what became of a code that somebody typed. Such a
   * provider takes nothing but codes, and is asked before its neighbours. Throws as `send` does when it cannot tell.
   */
  confirmCode?(given: GivenCode, ctx: SendContext<S, C>): Promise<CodeVerdict>
  /** For `carillon doctor`: resolves when the vendor would take a message now; sends nothing. */
  check?(ctx: SendContext<S, C>): Promise<void>
}

// The settings type differs per provider, and functions are contravariant in it: a list of providers can only
// be typed with `any` here. `openProvider` is the one place that pairs a provider with its validated settings.
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyProvider = Provider<any, any>

export interface Connection {
  close(): void | Promise<void>
}

export interface Limits {
  /** UTF-16 units; longer text is cut on a character boundary and ends in an ellipsis before `send` sees it. */
  subjectChars?: number
  bodyChars?: number
  /** Sends per second and lane, for the loop's rate limiter. */
  perSecond?: number
  /** Sends in flight at once per lane. */
  concurrent?: number
  /**
   * `rateLimited` means the lane: whoever waits behind is not even asked for until then. Not for lanes that many share
   * who have nothing to do with each other, such as the host of webhooks.
   */
  slowsLane?: boolean
}

export interface Group {
  key: string
  max: number
}

export interface OpenContext<S> {
  http: Http
  settings: S
  now: () => Date
}

export interface SendContext<S, C = undefined> extends OpenContext<S> {
  /** What `open` returned. */
  connection: C
  /** Aborted when the process gives up on this try. Hand it to `http.request`. */
  signal: AbortSignal
}

/** The vendor took it (`sent`), or says it has arrived (`delivered`). */
export interface Sent {
  outcome: 'sent' | 'delivered'
  providerMessageId?: string
  cost?: Cost
  /** The vendor's own status word or number. */
  code?: string
  /** For the attempt row, at most 500 characters; never the content of the message. */
  response?: string
}

export interface Cost {
  amount: number
  /** ISO 4217. */
  currency: string
}

/** A code as somebody typed it, at the address to which it went. */
export interface GivenCode {
  to: string
  code: string
  /** Of the message that brought it, where the vendor named one. */
  messageId?: string
  /** It is the code that we made for it. The vendor may have sent one of its own instead. */
  ours: boolean
}

/** `expired`: there is nothing (any more) that it could be the code of; `spent`: too many wrong ones came before. */
export type CodeVerdict = 'right' | 'wrong' | 'expired' | 'spent'

/* ---------------------------------------------------------------- errors */

/**
 * The closed list of what can go wrong at the far end, the same words for every vendor; `vendorCode` carries the
 * vendor's own. Kept with the attempt, counted in metrics, explained in docs/reference/delivery-codes.md.
 */
export const DELIVERY_CODES = {
  invalid_address: 'The address cannot exist in this form',
  unknown_address: 'The far end does not know the address',
  gone: 'The address or endpoint was removed',
  mailbox_full: 'The mailbox takes nothing more for now',
  opted_out: 'The recipient told the vendor to stop',
  blocked_address: 'The address lies in a network that may not be called',
  redirect_refused: 'The endpoint redirects; redirects are not followed',
  content_refused: 'The far end refuses this content',
  too_large: 'The message is larger than the far end takes',
  refused: 'The far end refuses the request',
  invalid_request: 'The request cannot be written in this form',
  forbidden: 'The far end does not allow this sender',
  auth: 'The far end does not accept our credentials',
  invalid_settings: 'The provider is not set up correctly',
  rate_limited: 'The far end asks for a slower pace',
  unavailable: 'The far end is not available for now',
  server_error: 'The far end failed',
  dns_failed: 'The name cannot be resolved',
  connection_failed: 'No connection came about',
  connect_timeout: 'No connection came about in time',
  tls_failed: 'The connection could not be secured',
  busy: 'Too many requests wait for this endpoint',
  timeout: 'No answer came in time',
  no_answer: 'The connection broke before the answer was complete',
  garbled_answer: 'The answer could not be understood',
  aborted: 'The try was given up by this process',
  unexpected: 'The provider failed in an unforeseen way',
} as const

export type DeliveryCode = keyof typeof DELIVERY_CODES

/**
 * - `permanent`: never again to this address; `bounced` and `rejected` are permanent too and name the outcome
 *   (the address does not exist; the far end does not want us).
 * - `rate_limited`: not before `until`.
 * - `unknown`: the request was, or may have been, written and no answer came.
 * - `temporary`: nothing was accepted; another try may work.
 */
export type FailureKind = 'permanent' | 'bounced' | 'rejected' | 'rate_limited' | 'unknown' | 'temporary'

export interface FailureFacts {
  cause?: unknown
  /** The vendor's own code, such as '21610' or '550 5.1.1'. */
  vendorCode?: string
  /** The vendor's words, for the attempt row: at most 500 characters, never the content of the message. */
  response?: string
}

/** What a provider throws. `message` is for operators: no content, no secrets. */
export class DeliveryError extends Error {
  readonly kind: FailureKind
  readonly code: DeliveryCode
  readonly until: Date | undefined
  readonly vendorCode: string | undefined
  readonly response: string | undefined
  /** The pause is asked for this recipient alone. */
  readonly alone: boolean

  constructor(
    kind: FailureKind,
    code: DeliveryCode,
    detail: string,
    more: FailureFacts & { until?: Date; alone?: boolean } = {},
  ) {
    super(detail, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'DeliveryError'
    this.kind = kind
    this.code = code
    this.until = more.until
    this.vendorCode = more.vendorCode
    this.response = more.response
    this.alone = more.alone === true
  }

  /** Whether trying this address again cannot help. */
  get final(): boolean {
    return this.kind === 'permanent' || this.kind === 'bounced' || this.kind === 'rejected'
  }

  /** Whether it speaks against the lane rather than against this one message: what a breaker counts. */
  get blamesLane(): boolean {
    return (
      (this.kind === 'temporary' || this.kind === 'unknown') &&
      this.code !== 'aborted' &&
      this.code !== 'busy'
    )
  }
}

export const permanent = (code: DeliveryCode, detail: string = DELIVERY_CODES[code], more?: FailureFacts) =>
  new DeliveryError('permanent', code, detail, more)

/** The address does not exist: the outcome is `bounced`. */
export const bounced = (code: DeliveryCode, detail: string = DELIVERY_CODES[code], more?: FailureFacts) =>
  new DeliveryError('bounced', code, detail, more)

/** The far end does not want this message or this sender: the outcome is `rejected`. */
export const rejected = (code: DeliveryCode, detail: string = DELIVERY_CODES[code], more?: FailureFacts) =>
  new DeliveryError('rejected', code, detail, more)

/** Not before `until`; `alone`: the far end means this recipient, not us. */
export const rateLimited = (until: Date, more?: FailureFacts & { alone?: boolean }) =>
  new DeliveryError('rate_limited', 'rate_limited', `not before ${until.toISOString()}`, { ...more, until })

/** The request was, or may have been, written; nobody can tell whether the vendor took it. */
export const unknown = (
  code: 'timeout' | 'no_answer' | 'garbled_answer' | 'aborted' = 'no_answer',
  detail: string = DELIVERY_CODES[code],
  more?: FailureFacts,
) => new DeliveryError('unknown', code, detail, more)

export const temporary = (code: DeliveryCode, detail: string = DELIVERY_CODES[code], more?: FailureFacts) =>
  new DeliveryError('temporary', code, detail, more)

/** Whatever was thrown, as a DeliveryError: what a provider did not foresee counts as temporary. */
export const asDeliveryError = (thrown: unknown): DeliveryError =>
  thrown instanceof DeliveryError ? thrown : temporary('unexpected', undefined, { cause: thrown })

/* ---------------------------------------------------------------- settings */

/** A setting that must not be read by accident: printing, logging or serialising it shows `<secret>`. */
export interface Secret {
  reveal(): string
  toString(): string
  toJSON(): string
}

const HIDDEN = '<secret>'

export const makeSecret = (value: string): Secret =>
  Object.freeze({
    reveal: () => value,
    toString: () => HIDDEN,
    toJSON: () => HIDDEN,
    [inspect.custom]: () => HIDDEN,
  })

/** Schema of a secret: a string in configuration, a `Secret` once read; the console shows a password field. */
export const secret = (options: {
  description: string
  title?: string
  minLength?: number
  pattern?: string
}) =>
  Type.Unsafe<Secret>(
    Type.String({ minLength: 1, maxLength: 10_000, ...options, secret: true, writeOnly: true }),
  )

/* ---------------------------------------------------------------- the way out */

/**
 * The one door to the outside (server/deliver/http.ts): guarded against calls into private networks, bounded in
 * time and size, never following redirects. What goes wrong is thrown already judged, as a DeliveryError.
 */
export interface Http {
  request(request: HttpRequest): Promise<HttpResponse>
  /** A connected socket under the same guard, for protocols that are not HTTP/1.1 (SMTP, APNs over HTTP/2). */
  connect(request: ConnectRequest): Promise<Socket>
}

export interface HttpRequest {
  /** Default POST. */
  method?: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'HEAD'
  /** Absolute, http or https, without credentials. */
  url: string
  /** Names in lower case. */
  headers?: Record<string, string>
  body?: string | Uint8Array
  signal?: AbortSignal
  /** For everything, from waiting for a connection to the last byte. Default 10,000. */
  timeoutMs?: number
  /** What is longer is cut and the connection dropped. Default 65,536. */
  maxResponseBytes?: number
  /** The status alone is the answer: when a 2xx body breaks off, return what came instead of `unknown`. */
  statusIsEnough?: boolean
}

export interface HttpResponse {
  status: number
  /** Names in lower case. */
  headers: Record<string, string | string[] | undefined>
  /** Read as UTF-8. */
  body: string
  /** False when the body was cut or broke off. */
  complete: boolean
}

export interface ConnectRequest {
  host: string
  port: number
  /** TLS from the first byte, with ALPN where the protocol wants it (`['h2']`). Default: plain TCP. */
  tls?: boolean | ({ alpn?: string[]; servername?: string } & ClientCertificate)
  timeoutMs?: number
  signal?: AbortSignal
}

/** What we show a far end that asks who we are: PEM, or PKCS #12 with its password. */
export interface ClientCertificate {
  cert?: string
  key?: string
  pfx?: Buffer
  passphrase?: string
}

const DAY_MS = 24 * 60 * 60 * 1000
const IMF_FIXDATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/
const RFC850_DATE =
  /^(Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, \d{2}-[A-Z][a-z]{2}-\d{2} \d{2}:\d{2}:\d{2} GMT$/
const ASCTIME_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun) [A-Z][a-z]{2} [ \d]\d \d{2}:\d{2}:\d{2} \d{4}$/

/**
 * Retry-After: seconds, or one of the three HTTP date forms (RFC 9110 §10.2.3, §5.6.7). Never before `now`, at
 * most a day ahead: a vendor's slip must not park a delivery for a year. Undefined when it says nothing usable.
 */
export function retryAfter(value: string | string[] | undefined, now: Date): Date | undefined {
  const text = (Array.isArray(value) ? value[0] : value)?.trim()
  if (!text) return undefined
  let at: number
  if (/^\d+$/.test(text)) at = now.getTime() + Number(text) * 1000
  else if (IMF_FIXDATE.test(text) || RFC850_DATE.test(text)) at = Date.parse(text)
  else if (ASCTIME_DATE.test(text)) at = Date.parse(`${text} GMT`)
  else return undefined
  if (Number.isNaN(at)) return undefined
  return new Date(Math.min(Math.max(at, now.getTime()), now.getTime() + DAY_MS))
}

/**
 * What a status means where the vendor documents nothing special: undefined for 2xx, else what to throw.
 *
 * 401 is temporary: a credential that expired or was rotated is mended by the operator, and must not cost the
 * messages of that hour. Its code lets the breaker open.
 */
export function judge(
  status: number,
  headers: HttpResponse['headers'],
  now: Date,
): DeliveryError | undefined {
  if (status >= 200 && status < 300) return undefined
  const detail = `HTTP ${status}`
  const facts = { vendorCode: String(status) }
  if (status >= 300 && status < 400) return permanent('redirect_refused', detail, facts)
  switch (status) {
    case 408:
    case 425:
    case 429:
    case 503: {
      const until = retryAfter(headers['retry-after'], now)
      if (until !== undefined) return rateLimited(until, facts)
      return temporary(status === 429 ? 'rate_limited' : 'unavailable', detail, facts)
    }
    case 401:
      return temporary('auth', detail, facts)
    case 403:
      return permanent('forbidden', detail, facts)
    case 404:
    case 410:
      return permanent('gone', detail, facts)
    case 413:
      return permanent('too_large', detail, facts)
  }
  if (status >= 500) return temporary('server_error', detail, facts)
  return permanent('refused', detail, facts)
}

/* ---------------------------------------------------------------- callbacks */

/** A request of the vendor to us, as it came. */
export interface CallbackRequest {
  method: string
  /** As the vendor called it, with scheme, host and query: some signatures cover it. */
  url: string
  /** Names in lower case. */
  headers: Record<string, string | string[] | undefined>
  /** The bytes as they came: signatures are over bytes. */
  body: Buffer
}

export interface Callback {
  receipts: Receipt[]
  /**
   * Of a signature that says nothing about the event beside it: its token serves for this event and no other, whichever
   * process it reaches, until the signature is too old by itself.
   */
  once?: { token: string; event: string; until: Date }
  /** Where the vendor expects a particular answer. Default 204 without a body. */
  reply?: { status: number; contentType: string; body: string }
}

export interface Receipt {
  kind:
    | 'delivered'
    | 'failed'
    | 'bounced'
    | 'deferred'
    | 'complained'
    | 'opened'
    | 'clicked'
    | 'unsubscribed'
    | 'resubscribed'
    | 'replied'
  at: Date
  /** At least one of the two says what it is about. */
  providerMessageId?: string
  notificationId?: Id
  /** The address the vendor names, for suppression when no delivery is found. */
  address?: string
  /** The vendor's id of this receipt, so that a repeated one changes nothing. */
  receiptId?: string
  code?: DeliveryCode
  vendorCode?: string
  cost?: Cost
  /**
   * What fetched the picture or followed the link, where that was a program of which nobody knows whether a person was
   * behind it. It is kept, and proves nothing.
   */
  machine?: string
  /** The link of a click, the text of a reply, why it did not arrive. At most 2,000 characters. */
  detail?: string
}

/** The signature of a callback does not hold: answered 401, nothing is recorded. */
export const callbackRefused = (detail: string): AppError => new AppError('unauthenticated', detail)

/* ---------------------------------------------------------------- text */

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** Cuts to `max` UTF-16 units without splitting a character as people see it (UAX 29); the last one is `…`. */
export function fit(text: string, max: number): string {
  if (text.length <= max) return text
  if (max <= 0) return ''
  const cut = graphemes.segment(text).containing(max - 1)?.index ?? max - 1
  return `${text.slice(0, cut)}…`
}
