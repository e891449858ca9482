import { createHash, createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import { type Static, Type } from 'typebox'
import type { JsonObject, Message } from '../../../types.ts'
import {
  bounced,
  type ClientCertificate,
  type Connection,
  type DeliveryCode,
  DeliveryError,
  type FailureKind,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  rejected,
  retryAfter,
  secret,
  type SendContext,
} from '../../provider.ts'
import { isObject, readObject, textAt, wordOf } from '../answers.ts'
import {
  bytesOf,
  fitPayload,
  kindOf,
  MAX_TITLE,
  MAX_TTL,
  merge,
  type PushContent,
  pushContent,
  topicIn,
} from '../push.ts'
import { type H2Connection, h2Connection } from '../h2-connection.ts'

const settings = Type.Object(
  {
    topic: Type.String({
      title: 'Topic',
      description: 'The bundle id of the app, such as org.example.shop.',
      pattern: '^[A-Za-z0-9.-]{1,155}$',
    }),
    environment: Type.Enum(['production', 'sandbox'], {
      title: 'Environment',
      description: 'Apps run from Xcode have tokens of the sandbox.',
      default: 'production',
    }),
    teamId: Type.Optional(Type.String({ title: 'Team id', pattern: '^[A-Z0-9]{10}$' })),
    keyId: Type.Optional(Type.String({ title: 'Key id', pattern: '^[A-Z0-9]{10}$' })),
    key: Type.Optional(
      secret({ title: 'Key', description: 'The .p8 file of the key, whole; with team id and key id.' }),
    ),
    pkcs12: Type.Optional(
      secret({
        title: 'Certificate (PKCS #12)',
        description: 'In place of a key: the .p12 file in base64.',
        pattern: '^[A-Za-z0-9+/\\s]+={0,2}\\s*$',
      }),
    ),
    passphrase: Type.Optional(secret({ title: 'Password', description: 'Of the .p12 file.' })),
    certificate: Type.Optional(
      Type.String({
        title: 'Certificate (PEM)',
        description: 'In place of a key or a .p12 file, with its key.',
        maxLength: 20_000,
      }),
    ),
    certificateKey: Type.Optional(
      secret({ title: 'Key of the certificate', description: 'PEM, not encrypted.' }),
    ),
    ttlSeconds: Type.Integer({
      title: 'Time to live',
      description: 'Seconds for which a device that is away is waited for.',
      default: 86_400,
      minimum: 0,
      maximum: MAX_TTL,
    }),
    host: Type.Optional(
      Type.String({
        title: 'Host',
        description: 'In place of Apple’s, such as a proxy.',
        pattern: '^[A-Za-z0-9.-]{1,253}$',
      }),
    ),
    port: Type.Integer({
      title: 'Port',
      description: 'Apple answers at 443 and 2197.',
      default: 443,
      minimum: 1,
      maximum: 65_535,
    }),
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

const addressSettings = Type.Object({
  kind: Type.Optional(
    Type.Enum(['fcm', 'apns'], { title: 'Kind', description: 'Whose token the device has.' }),
  ),
  environment: Type.Optional(Type.Enum(['production', 'sandbox'], { title: 'Environment' })),
  topic: Type.Optional(Type.String({ title: 'Topic', description: 'The app it is a token of.' })),
})

type Settings = Static<typeof settings>
type Context = SendContext<Settings, Apns>

interface Apns extends Connection {
  h2: H2Connection
  /** Undefined with a certificate. */
  tokens: Tokens | undefined
  /** It took a message of ours for some device: house, topic and credentials belong together. */
  proven: boolean
}

/** https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns */
const HOSTS = { production: 'api.push.apple.com', sandbox: 'api.sandbox.push.apple.com' } as const

/** https://developer.apple.com/documentation/usernotifications/generating-a-remote-notification; VoIP is not ours. */
const MAX_BYTES = 4_096

/**
 * Apple Push Notification service, over HTTP/2, with a key (ES256 tokens) or a certificate.
 * https://developer.apple.com/documentation/usernotifications/sending-notification-requests-to-apns
 *
 * It knows no idempotency key. The key travels as the collapse id: a message that arrives twice takes its own place.
 */
export const apns: Provider<Settings, Apns> = {
  id: 'apns',
  channel: 'push',
  title: 'Apple Push Notification service',
  settings,
  addressSettings,
  limits: {
    slowsLane: true,
    subjectChars: MAX_TITLE,
    bodyChars: MAX_BYTES,
    // Streams of one connection; what the far end allows at the moment is kept to besides.
    concurrent: 1_000,
  },

  open({ settings: own }) {
    const h2 = h2Connection({
      host: own.host ?? HOSTS[own.environment],
      port: own.port,
      certificate: certificateIn(own),
    })
    return { h2, tokens: tokensOf(own), proven: false, close: () => h2.close() }
  },

  accepts(message, own) {
    const { environment, topic } = message.addressSettings ?? {}
    return (
      kindOf(message) === 'apns' &&
      (environment === undefined || environment === own.environment) &&
      (topic === undefined || topic === own.topic)
    )
  },

  async send(message, ctx) {
    if (topicIn(message.to) !== undefined) throw permanent('invalid_address', 'APNs keeps no topics')
    if (!/^[0-9a-f]{64,200}$/i.test(message.to)) throw bounced('invalid_address', 'No APNs device token')
    const push = pushContent(message)
    const body = fitPayload(
      push.body,
      MAX_BYTES,
      text => JSON.stringify(payloadOf(message, { ...push, body: text })),
      bytesOf,
    )
    const response = await post(message.to, headersOf(message, push, ctx), body, ctx)
    const failure = verdict(response, ctx.now())
    if (failure?.vendorCode === 'BadDeviceToken' && !ctx.connection.proven) {
      // Said of every token while we ask the wrong one of Apple's houses. Devices are forgotten on `bounced`: until one
      // token has worked, this says nothing about any.
      throw rejected('unknown_address', failure.message, { vendorCode: failure.vendorCode })
    }
    if (failure !== undefined) throw failure
    ctx.connection.proven = true
    const id = response.headers['apns-id']
    return {
      outcome: 'sent',
      code: '200',
      ...(typeof id === 'string' && { providerMessageId: id.slice(0, 100) }),
    }
  },

  /** Credentials are looked at before the device token: to one that no device has, BadDeviceToken is the good answer. */
  async check(ctx) {
    const { topic } = ctx.settings
    const headers = { 'apns-topic': topic, 'apns-push-type': 'background', 'apns-priority': '5' }
    const response = await post('0'.repeat(64), headers, '{"aps":{"content-available":1}}', ctx)
    const failure = verdict(response, ctx.now())
    if (failure !== undefined && failure.vendorCode !== 'BadDeviceToken') throw failure
  },
}

async function post(
  device: string,
  headers: Record<string, string>,
  body: string,
  ctx: Context,
): Promise<HttpResponse> {
  const { h2, tokens } = ctx.connection
  const ask = (token: string | undefined): Promise<HttpResponse> =>
    h2.post(
      {
        path: `/3/device/${device.toLowerCase()}`,
        headers: token === undefined ? headers : { ...headers, authorization: `bearer ${token}` },
        body,
      },
      { http: ctx.http, signal: ctx.signal, now: ctx.now, timeoutMs: ctx.settings.timeoutSeconds * 1000 },
    )
  const token = tokens?.get(ctx.now())
  const response = await ask(token)
  if (token === undefined || reasonIn(response) !== 'ExpiredProviderToken') return response
  const fresh = tokens!.renew(token, ctx.now())
  // A refusal is an answer: nothing was sent.
  return fresh === undefined ? response : ask(fresh)
}

/* ---------------------------------------------------------------- the message */

function headersOf(
  message: Message,
  push: PushContent,
  { settings: own, now }: Context,
): Record<string, string> {
  const ttl = push.ttlSeconds ?? own.ttlSeconds
  return {
    'apns-id': uuidOf(message.idempotencyKey),
    'apns-topic': own.topic,
    'apns-push-type': push.silent ? 'background' : 'alert',
    // 5: when it suits the device's battery; the only one for what shows nothing.
    'apns-priority': push.silent || message.priority === 'LOW' ? '5' : '10',
    // 0: now or never.
    'apns-expiration': ttl === 0 ? '0' : String(Math.floor(now().getTime() / 1000) + ttl),
    'apns-collapse-id': push.tag,
  }
}

/** RFC 9562 §5.8, of the key's digest: the same for every try. */
function uuidOf(text: string): string {
  const bytes = createHash('sha256').update(text).digest().subarray(0, 16)
  bytes[6] = (bytes[6]! & 0x0f) | 0x80
  bytes[8] = (bytes[8]! & 0x3f) | 0x80
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}

function payloadOf({ content, eventType }: Message, push: PushContent): JsonObject {
  const aps: JsonObject = {}
  if (push.silent) aps['content-available'] = 1
  else {
    const alert: JsonObject = {}
    if (push.title !== undefined) alert.title = push.title
    if (push.body !== '') alert.body = push.body
    aps.alert = alert
    if (push.sound !== 'none') aps.sound = push.sound ?? 'default'
  }
  if (push.badge !== undefined) aps.badge = push.badge
  if (push.group !== undefined) aps['thread-id'] = push.group
  // The app's extension loads the picture.
  if (push.image !== undefined) aps['mutable-content'] = 1
  const payload: JsonObject = { ...push.custom, eventType, aps }
  if (push.link !== undefined) payload.link = push.link
  if (push.image !== undefined) payload.image = push.image
  const over = content.data?.apns
  return isObject(over) ? merge(payload, over.payload) : payload
}

/* ---------------------------------------------------------------- errors */

type Verdict = readonly [FailureKind, DeliveryCode]

const OURS: Verdict = ['permanent', 'invalid_request']
const SET_UP: Verdict = ['temporary', 'invalid_settings']
const CREDENTIALS: Verdict = ['temporary', 'auth']
const SLOWER: Verdict = ['rate_limited', 'rate_limited']

/** https://developer.apple.com/documentation/usernotifications/handling-notification-responses-from-apns */
const REASONS: Readonly<Record<string, Verdict>> = {
  BadCollapseId: OURS,
  BadDeviceToken: ['bounced', 'unknown_address'], // also one of the other environment: see `send`
  BadExpirationDate: OURS,
  BadMessageId: OURS,
  BadPriority: OURS,
  BadTopic: SET_UP,
  // A token of another app of ours, or a wrong topic, which would else cost every device.
  DeviceTokenNotForTopic: ['rejected', 'forbidden'],
  DuplicateHeaders: OURS,
  IdleTimeout: ['temporary', 'unavailable'],
  InvalidPushType: OURS,
  MissingDeviceToken: OURS,
  MissingTopic: SET_UP,
  PayloadEmpty: OURS,
  TopicDisallowed: SET_UP,
  BadCertificate: CREDENTIALS,
  BadCertificateEnvironment: CREDENTIALS,
  ExpiredProviderToken: CREDENTIALS,
  Forbidden: CREDENTIALS,
  InvalidProviderToken: CREDENTIALS,
  MissingProviderToken: CREDENTIALS,
  UnrelatedKeyIdInToken: CREDENTIALS,
  BadEnvironmentKeyIdInToken: CREDENTIALS,
  BadPath: OURS,
  MethodNotAllowed: OURS,
  ExpiredToken: ['bounced', 'gone'],
  Unregistered: ['bounced', 'gone'],
  PayloadTooLarge: ['permanent', 'too_large'],
  TooManyProviderTokenUpdates: SLOWER,
  TooManyRequests: SLOWER, // to one device
  InternalServerError: ['temporary', 'server_error'],
  ServiceUnavailable: ['temporary', 'unavailable'],
  Shutdown: ['temporary', 'unavailable'],
}

/** Apple names no time. */
const WAIT_MS = 60_000

const reasonIn = ({ body }: HttpResponse): string | undefined =>
  wordOf(textAt(readObject(body) ?? {}, 'reason'))

function verdict(response: HttpResponse, now: Date): DeliveryError | undefined {
  const { status, headers, body } = response
  const plain = judge(status, headers, now)
  if (plain === undefined) return undefined
  const reason = reasonIn(response)
  const since = sinceIn(readObject(body))
  const facts = { vendorCode: reason ?? String(status), ...(since !== undefined && { response: since }) }
  const detail = `HTTP ${status}${reason === undefined ? '' : `, ${reason}`}`
  const [kind, code] =
    (reason !== undefined && Object.hasOwn(REASONS, reason) && REASONS[reason]) || byStatus(plain)
  // A pause that was asked for is kept, whatever the reason.
  const asked = status === 429 || status === 503 ? retryAfter(headers['retry-after'], now) : undefined
  if (kind === 'rate_limited' || asked !== undefined) {
    const until = asked ?? new Date(now.getTime() + WAIT_MS)
    return rateLimited(until, { ...facts, alone: reason === 'TooManyRequests' })
  }
  return new DeliveryError(kind, code, detail, facts)
}

/** A reason that is newer than this table. */
function byStatus({ kind, code, vendorCode }: DeliveryError): Verdict {
  if (vendorCode === '403') return CREDENTIALS
  if (vendorCode === '410') return ['bounced', 'gone']
  if (vendorCode === '429') return SLOWER
  return vendorCode === '400' ? OURS : [kind, code]
}

/** With 410: since when the app is not there any more. A device that registered after it is there again. */
function sinceIn(answer: JsonObject | undefined): string | undefined {
  const { timestamp } = answer ?? {}
  const at = new Date(typeof timestamp === 'number' ? timestamp : Number.NaN)
  return Number.isNaN(at.getTime()) ? undefined : `since ${at.toISOString()}`
}

/* ---------------------------------------------------------------- credentials */

/** https://developer.apple.com/documentation/usernotifications/establishing-a-token-based-connection-to-apns */
interface Tokens {
  get(now: Date): string
  /** In place of the one that was called expired; undefined when there can be no better one yet. */
  renew(used: string, now: Date): string | undefined
}

/** Refused after an hour, and made anew at most every twenty minutes. */
const RENEW_MS = 50 * 60_000
const MIN_AGE_MS = 20 * 60_000

function tokensOf({ key: pem, keyId, teamId, ...own }: Settings): Tokens | undefined {
  if (pem === undefined) {
    if (own.pkcs12 !== undefined || own.certificate !== undefined) return undefined
    throw permanent('invalid_settings', 'APNs needs a key or a certificate')
  }
  if (keyId === undefined || teamId === undefined) {
    throw permanent('invalid_settings', 'A key needs its key id and the team id')
  }
  const key = keyIn(pem.reveal())
  const encoded = (part: JsonObject) => Buffer.from(JSON.stringify(part)).toString('base64url')
  let held: { value: string; atMs: number } | undefined

  const make = (nowMs: number): string => {
    const text = `${encoded({ alg: 'ES256', kid: keyId })}.${encoded({ iss: teamId, iat: Math.floor(nowMs / 1000) })}`
    const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
    held = { value: `${text}.${signature.toString('base64url')}`, atMs: nowMs }
    return held.value
  }
  return {
    get(now) {
      const age = held === undefined ? Number.POSITIVE_INFINITY : now.getTime() - held.atMs
      // Younger than nothing: the clock was set back.
      return age >= RENEW_MS || age < 0 ? make(now.getTime()) : held!.value
    },
    renew(used, now) {
      if (held === undefined || held.value !== used) return held?.value
      return now.getTime() - held.atMs < MIN_AGE_MS ? undefined : make(now.getTime())
    },
  }
}

function keyIn(pem: string): KeyObject {
  let key: KeyObject | undefined
  try {
    key = createPrivateKey(pem)
  } catch {
    // What OpenSSL says may quote the key.
  }
  if (key?.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key
  throw permanent('invalid_settings', 'The key is no P-256 key in PEM form')
}

function certificateIn(own: Settings): ClientCertificate | undefined {
  const found: ClientCertificate = {}
  if (own.pkcs12 !== undefined) {
    found.pfx = Buffer.from(own.pkcs12.reveal(), 'base64')
    if (own.passphrase !== undefined) found.passphrase = own.passphrase.reveal()
  } else if (own.certificate !== undefined) {
    if (own.certificateKey === undefined) throw permanent('invalid_settings', 'A certificate needs its key')
    found.cert = own.certificate
    found.key = own.certificateKey.reveal()
  } else return undefined
  try {
    createSecureContext(found)
  } catch {
    throw permanent('invalid_settings', 'The certificate, its key or its password does not fit')
  }
  return found
}
