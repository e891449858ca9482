import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message, TenantId } from '../../../types.ts'
import {
  bounced,
  type Connection,
  type DeliveryCode,
  DeliveryError,
  type FailureKind,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  retryAfter,
  secret,
  type SendContext,
  type Sent,
  temporary,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, isObject, readObject, textAt, wordOf } from '../answers.ts'
import {
  bytesOf,
  fitPayload,
  kindOf,
  MAX_TITLE,
  MAX_TTL,
  merge,
  type PushContent,
  pushContent,
  TOPIC_NAME,
  topicIn,
  vendorTopic,
} from '../push.ts'

const settings = Type.Object(
  {
    serviceAccount: secret({
      title: 'Service account',
      description: 'The JSON file that the Firebase console generates, whole.',
    }),
    projectId: Type.Optional(
      Type.String({
        title: 'Project',
        description: 'Where it is another than that of the service account.',
        pattern: '^[a-z][a-z0-9-]{4,29}$',
      }),
    ),
    ttlSeconds: Type.Integer({
      title: 'Time to live',
      description: 'Seconds for which a device that is away is waited for.',
      default: 86_400,
      minimum: 0,
      maximum: MAX_TTL,
    }),
    androidChannel: Type.Optional(
      Type.String({
        title: 'Android channel',
        description: 'The notification channel that the app created.',
        maxLength: 100,
      }),
    ),
    baseUrl: Type.String({
      title: 'API address',
      default: 'https://fcm.googleapis.com',
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
  },
  { additionalProperties: false },
)

const addressSettings = Type.Object({
  kind: Type.Optional(
    Type.Enum(['fcm', 'apns'], { title: 'Kind', description: 'Whose token the device has.' }),
  ),
})

type Settings = Static<typeof settings>
type Context = SendContext<Settings, Tokens>

/** https://firebase.google.com/docs/cloud-messaging/customize-messages/set-message-type: keys and values together. */
const MAX_BYTES = 4_096
/** To a topic: https://firebase.google.com/docs/cloud-messaging/admin/errors, `payload-size-limit-exceeded`. */
const MAX_TOPIC_BYTES = 2_048

/**
 * Firebase Cloud Messaging, HTTP v1: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send
 *
 * It has no idempotency key. The key travels as the tag under which Android shows the message, the collapse id of
 * iOS and the tag of browsers: one that arrives twice takes its own place.
 */
export const fcm: Provider<Settings, Tokens> = {
  id: 'fcm',
  channel: 'push',
  title: 'Firebase Cloud Messaging',
  settings,
  addressSettings,
  limits: {
    slowsLane: true,
    subjectChars: MAX_TITLE,
    bodyChars: MAX_BYTES,
    // 600,000 a minute and project: https://firebase.google.com/docs/cloud-messaging/throttling-and-quotas
    perSecond: 10_000,
  },

  open: ctx => openTokens(ctx.settings.serviceAccount.reveal(), ctx.settings.projectId),
  accepts: message => kindOf(message) === 'fcm',

  async send(message, ctx) {
    const body = JSON.stringify({ message: messageOf(message, ctx.settings, ctx.now()) })
    const response = await post(body, ctx)
    const failure = verdict(response, ctx.now())
    if (failure !== undefined) throw failure
    const name = textAt(readObject(response.body) ?? {}, 'name')
    if (!response.complete || name === undefined) throw unknown('garbled_answer')
    return { outcome: 'sent', providerMessageId: name.slice(0, 255), code: '200' } satisfies Sent
  },

  /**
   * A dry run to the device, as Google advises in place of the Instance ID API:
   * https://developers.google.com/instance-id/reference/server#get_information_about_app_instances
   */
  async validateDeviceToken(token, ctx) {
    const message = { token: tokenIn(token), data: { check: 'yes' } }
    const response = await post(JSON.stringify({ validate_only: true, message }), ctx)
    const failure = verdict(response, ctx.now())
    if (failure !== undefined) throw failure
  },

  /**
   * https://firebase.google.com/docs/cloud-messaging/manage-topic-subscriptions, one device a request. The Instance ID
   * API took 1,000 in one, is closed to new projects and ends on 29 September 2027.
   */
  async updateTopicSubscription(token, topic, subscribe, ctx) {
    if (!TOPIC_NAME.test(topic)) throw permanent('invalid_request', 'No name of a topic')
    const subscriptions = `registrations/${encodeURIComponent(tokenIn(token))}/topicSubscriptions`
    const name = encodeURIComponent(topic)
    const response = subscribe
      ? await ask({ method: 'POST', path: `${subscriptions}?topicName=${name}`, body: '{}' }, ctx)
      : await ask({ method: 'DELETE', path: `${subscriptions}/${name}?allowMissing=true` }, ctx)
    // ALREADY_EXISTS: what was wanted.
    if (subscribe && response.status === 409) return
    const failure = verdict(response, ctx.now())
    if (failure !== undefined) throw failure
  },

  /** A dry run: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages/send `validate_only`. */
  async check(ctx) {
    const message = { topic: 'carillon-check', data: { check: 'yes' } }
    const response = await post(JSON.stringify({ validate_only: true, message }), ctx)
    const failure = verdict(response, ctx.now())
    if (failure !== undefined) throw failure
  },
}

/** A token is opaque, but none has blanks, control characters or letters beyond ASCII, nor is one only dots. */
function tokenIn(address: string): string {
  if (!/^[\x21-\x7e]{1,4096}$/.test(address) || /^\.+$/.test(address)) throw bounced('invalid_address')
  return address
}

const post = (body: string, ctx: Context): Promise<HttpResponse> =>
  ask({ method: 'POST', path: 'messages:send', body }, ctx)

/** One request within the project. */
async function ask(
  { method, path, body }: { method: 'POST' | 'DELETE'; path: string; body?: string },
  ctx: Context,
): Promise<HttpResponse> {
  const { http, settings: own, signal, connection } = ctx
  const once = (token: string) =>
    http.request({
      method,
      url: `${own.baseUrl}/v1/projects/${connection.projectId}/${path}`,
      headers: { authorization: `Bearer ${token}`, ...(body && { 'content-type': 'application/json' }) },
      body,
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
  const token = await connection.get(ctx)
  const response = await once(token)
  // A refusal is an answer, so nothing was sent; one for want of a key to APNs is not about our token.
  if (response.status !== 401 || errorCodeOf(response.body) !== undefined) return response
  connection.forget(token)
  return once(await connection.get(ctx))
}

/* ---------------------------------------------------------------- the message */

const URGENT = { CRITICAL: true, HIGH: true, NORMAL: false, LOW: false } as const
const URGENCY = { CRITICAL: 'high', HIGH: 'high', NORMAL: 'normal', LOW: 'low' } as const

/** FCM uses these itself: https://firebase.google.com/docs/cloud-messaging/customize-messages/set-message-type */
const RESERVED = /^(?:from$|message_type$|gcm|google)/i

function messageOf(message: Message, own: Settings, now: Date): JsonObject {
  const push = pushContent(message)
  const topic = topicIn(message.to)
  const target: JsonObject =
    topic === undefined ? { token: tokenIn(message.to) } : { topic: topicFor(message.tenantId, topic) }
  return fitPayload(
    push.body,
    topic === undefined ? MAX_BYTES : MAX_TOPIC_BYTES,
    body => ({ ...target, ...payloadOf(message, { ...push, body }, own, now) }),
    ({ token: _, topic: __, ...payload }) => bytesOf(JSON.stringify(payload)),
  )
}

function topicFor(tenantId: TenantId, name: string): string {
  const topic = vendorTopic(tenantId, name)
  if (!TOPIC_NAME.test(topic)) throw permanent('invalid_address', 'No name of a topic')
  return topic
}

function payloadOf(message: Message, push: PushContent, own: Settings, now: Date): JsonObject {
  const { data = {} } = message.content
  const ttl = push.ttlSeconds ?? own.ttlSeconds
  // An instant, where the others have a duration; 0 in all of them is "now or never".
  const expiry = ttl === 0 ? 0 : Math.floor(now.getTime() / 1000) + ttl
  const sound = push.sound === 'none' ? undefined : (push.sound ?? 'default')
  const shown: JsonObject = {}
  if (push.title !== undefined) shown.title = push.title
  if (push.body !== '') shown.body = push.body
  const payload: JsonObject = {
    data: Object.fromEntries([
      ...Object.entries(push.custom).filter(([name]) => !RESERVED.test(name)),
      ['eventType', message.eventType],
      ...(push.link === undefined ? [] : [['link', push.link]]),
    ]),
  }
  if (!push.silent) {
    payload.notification = push.image === undefined ? shown : { ...shown, image: push.image }
  }
  payload.android = merge(androidOf(message, push, own, ttl, sound), data.android)
  payload.apns = merge(apnsOf(message, push, expiry, sound), data.apns)
  payload.webpush = merge(webpushOf(message, push, ttl), data.webpush)
  return payload
}

function androidOf(
  { priority }: Message,
  push: PushContent,
  own: Settings,
  ttl: number,
  sound: string | undefined,
): JsonObject {
  const android: JsonObject = { priority: URGENT[priority] ? 'HIGH' : 'NORMAL', ttl: `${ttl}s` }
  // Not the delivery's own key: of a device that is away no more than four collapse keys are kept.
  // https://firebase.google.com/docs/cloud-messaging/customize-messages/setting-message-priority
  if (push.collapseKey !== undefined) android.collapse_key = push.collapseKey
  if (push.silent) return android
  const notification: JsonObject = { tag: push.tag }
  if (sound !== undefined) notification.sound = sound
  if (own.androidChannel !== undefined) notification.channel_id = own.androidChannel
  if (push.badge !== undefined) notification.notification_count = push.badge
  return { ...android, notification }
}

function apnsOf(
  { priority }: Message,
  push: PushContent,
  expiry: number,
  sound: string | undefined,
): JsonObject {
  const headers: JsonObject = {
    'apns-priority': push.silent || priority === 'LOW' ? '5' : '10',
    'apns-push-type': push.silent ? 'background' : 'alert',
    'apns-collapse-id': push.tag,
    'apns-expiration': String(expiry),
  }
  const aps: JsonObject = {}
  if (push.silent) aps['content-available'] = 1
  else if (sound !== undefined) aps.sound = sound
  if (push.badge !== undefined) aps.badge = push.badge
  if (push.group !== undefined) aps['thread-id'] = push.group
  const apns: JsonObject = { headers, payload: { aps } }
  // The app's extension loads it: https://firebase.google.com/docs/cloud-messaging/ios/send-image
  if (push.image !== undefined) {
    aps['mutable-content'] = 1
    apns.fcm_options = { image: push.image }
  }
  return apns
}

function webpushOf({ priority }: Message, push: PushContent, ttl: number): JsonObject {
  const webpush: JsonObject = { headers: { TTL: String(ttl), Urgency: URGENCY[priority] } }
  if (push.silent) return webpush
  const notification: JsonObject = { tag: push.tag }
  if (push.icon !== undefined) notification.icon = push.icon
  webpush.notification = notification
  // https only: https://firebase.google.com/docs/reference/fcm/rest/v1/projects.messages#WebpushFcmOptions
  if (push.link?.startsWith('https:')) webpush.fcm_options = { link: push.link }
  return webpush
}

/* ---------------------------------------------------------------- errors */

const PROJECT: readonly [FailureKind, DeliveryCode] = ['temporary', 'invalid_settings']

/** https://firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode */
const ERRORS: Readonly<Record<string, readonly [FailureKind, DeliveryCode]>> = {
  UNSPECIFIED_ERROR: ['temporary', 'server_error'],
  INVALID_ARGUMENT: ['permanent', 'content_refused'],
  UNREGISTERED: ['bounced', 'gone'],
  // Of another project. A wrong service account would else cost every device of the installation.
  SENDER_ID_MISMATCH: ['rejected', 'forbidden'],
  QUOTA_EXCEEDED: ['rate_limited', 'rate_limited'],
  UNAVAILABLE: ['temporary', 'unavailable'],
  INTERNAL: ['temporary', 'server_error'],
  // The project holds no valid key for APNs, or none for browsers.
  THIRD_PARTY_AUTH_ERROR: PROJECT,
}

/** Where no header says otherwise: https://firebase.google.com/docs/cloud-messaging/scale-fcm#handling-retries */
const QUOTA_WAIT_MS = 60_000

function verdict({ status, headers, body }: HttpResponse, now: Date): DeliveryError | undefined {
  const plain = judge(status, headers, now)
  if (plain === undefined) return undefined
  const { error } = readObject(body) ?? {}
  const told = isObject(error) ? error : {}
  const code = errorCodeOf(body)
  const facts = { vendorCode: code ?? wordOf(textAt(told, 'status')) ?? String(status) }
  if (code === 'INVALID_ARGUMENT' || facts.vendorCode === 'INVALID_ARGUMENT') return invalid(told, facts)
  if (code === 'QUOTA_EXCEEDED' || (code === undefined && status === 429)) {
    return rateLimited(
      retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + QUOTA_WAIT_MS),
      // In FCM's own word mostly the quota of one device: that of the project is above our pace.
      { ...facts, alone: code !== undefined },
    )
  }
  const known = code === undefined ? undefined : ERRORS[code]
  // A pause that was asked for is kept, whatever the reason.
  if (known?.[0] === 'temporary' && plain.kind === 'rate_limited') return rateLimited(plain.until!, facts)
  if (known !== undefined) return new DeliveryError(known[0], known[1], `HTTP ${status}, ${code}`, facts)
  // Without a word of FCM's it is about the project: not there, the API not switched on, the account without rights.
  if (status === 403 || status === 404) {
    return temporary(status === 403 ? 'auth' : 'invalid_settings', `HTTP ${status}`, facts)
  }
  return new DeliveryError(plain.kind, plain.code, plain.message, { ...facts, until: plain.until })
}

/** One code for a wrong token, a payload too large and a field that does not fit. */
function invalid(error: JsonObject, facts: { vendorCode: string }): DeliveryError {
  const said = textAt(error, 'message') ?? ''
  const fields = detailsOf(error).flatMap(({ fieldViolations: found }) =>
    Array.isArray(found) ? found.filter(isObject).map(each => textAt(each, 'field') ?? '') : [],
  )
  if (fields.includes('message.token') || /registration token/i.test(said)) {
    return bounced('invalid_address', 'HTTP 400: no registration token', facts)
  }
  if (/too (?:big|large)/i.test(said)) return permanent('too_large', 'HTTP 400: too large', facts)
  const field = fields.map(wordOf).find(each => each !== undefined)
  return permanent('content_refused', `HTTP 400${field === undefined ? '' : `: ${field}`}`, facts)
}

const detailsOf = ({ details }: JsonObject): JsonObject[] =>
  Array.isArray(details) ? details.filter(isObject) : []

/** Of the detail google.firebase.fcm.v1.FcmError; errors of Google's own front have none. */
function errorCodeOf(body: string): string | undefined {
  const { error } = readObject(body) ?? {}
  if (!isObject(error)) return undefined
  const codes: (Json | undefined)[] = detailsOf(error).map(({ errorCode }) => errorCode)
  return codes.find(each => typeof each === 'string' && Object.hasOwn(ERRORS, each)) as string | undefined
}

/* ---------------------------------------------------------------- access tokens */

/** Access tokens of the service account; one is fetched for all who ask at the same time. */
interface Tokens extends Connection {
  projectId: string
  get(ctx: Pick<Context, 'http' | 'signal' | 'now' | 'settings'>): Promise<string>
  /** Only this one: another may have been fetched meanwhile. */
  forget(token: string): void
}

const SCOPE = 'https://www.googleapis.com/auth/firebase.messaging'
/** The most Google grants: https://developers.google.com/identity/protocols/oauth2/service-account */
const ASSERTION_SECONDS = 3_600
/** A token is not used in its last minute, or in the last tenth of a short life. */
const MARGIN_MS = 60_000

interface Account {
  email: string
  key: KeyObject
  keyId: string | undefined
  tokenUri: string
  projectId: string
}

function openTokens(json: string, project: string | undefined): Tokens {
  const account = accountIn(json, project)
  let held: Promise<{ value: string; until: number }> | undefined
  let latest: string | undefined

  const self: Tokens = {
    projectId: account.projectId,
    async get(ctx) {
      const mine = (held ??= fetchToken(account, ctx))
      try {
        const token = await mine
        latest = token.value
        if (token.until > ctx.now().getTime()) return token.value
      } catch (error) {
        if (held === mine) held = undefined
        throw error
      }
      // Whoever comes first asks; the others find the new promise.
      if (held === mine) held = undefined
      return self.get(ctx)
    },
    forget(token) {
      if (token === latest) held = undefined
    },
    close() {
      held = undefined
    },
  }
  return self
}

/** The file is a secret: what is wrong with it is said without a word of it. */
function accountIn(json: string, project: string | undefined): Account {
  const wrong = (what: string) => permanent('invalid_settings', `The service account ${what}`)
  const file = readObject(json)
  if (file === undefined) throw wrong('is no JSON object')
  const email = textAt(file, 'client_email')
  const pem = textAt(file, 'private_key')
  const tokenUri = textAt(file, 'token_uri') ?? 'https://oauth2.googleapis.com/token'
  const projectId = project ?? textAt(file, 'project_id')
  if (email === undefined || pem === undefined) throw wrong('has no client_email or no private_key')
  if (projectId === undefined || !/^[a-z][a-z0-9-]{4,29}$/.test(projectId)) throw wrong('names no project')
  // What is signed there is worth a token: it goes over TLS, but for a stand-in on this machine.
  if (
    !isHttpUrl(tokenUri) ||
    (!/^https:/i.test(tokenUri) && !/^http:\/\/127\.0\.0\.1:\d+\//.test(tokenUri))
  ) {
    throw wrong('has a token_uri that is not https')
  }
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch {
    throw wrong('has a private_key that cannot be read')
  }
  if (key.asymmetricKeyType !== 'rsa') throw wrong('has a private_key that is not RSA')
  return { email, key, keyId: textAt(file, 'private_key_id'), tokenUri, projectId }
}

/** RFC 7523 §2.1; until the message itself is posted, no answer means that nothing was sent. */
async function fetchToken(
  { email, key, keyId, tokenUri }: Account,
  { http, signal, now, settings: own }: Parameters<Tokens['get']>[0],
): Promise<{ value: string; until: number }> {
  const iat = Math.floor(now().getTime() / 1000)
  const encoded = (part: JsonObject) => Buffer.from(JSON.stringify(part)).toString('base64url')
  const header: JsonObject = { alg: 'RS256', typ: 'JWT', ...(keyId === undefined ? {} : { kid: keyId }) }
  const claims = { iss: email, scope: SCOPE, aud: tokenUri, iat, exp: iat + ASSERTION_SECONDS }
  const text = `${encoded(header)}.${encoded(claims)}`
  const signature = sign('sha256', Buffer.from(text), key).toString('base64url')
  const form = new URLSearchParams({
    grant_type: 'urn:ietf:params:oauth:grant-type:jwt-bearer',
    assertion: `${text}.${signature}`,
  })
  let response: HttpResponse
  try {
    response = await http.request({
      url: tokenUri,
      headers: { 'content-type': 'application/x-www-form-urlencoded', accept: 'application/json' },
      body: form.toString(),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
      maxResponseBytes: 32_768,
    })
  } catch (error) {
    if (!(error instanceof DeliveryError) || error.kind !== 'unknown') throw error
    throw temporary(error.code, `Token endpoint: ${error.message}`, { cause: error.cause })
  }
  const failure = judge(response.status, response.headers, now())
  const answer = readObject(response.body) ?? {}
  if (failure !== undefined) {
    if (!failure.final && failure.code !== 'auth') throw failure
    // invalid_grant: the key was revoked, or our clock is wrong; whoever set it up mends it.
    const word = wordOf(textAt(answer, 'error'))
    throw temporary('auth', `Token endpoint: HTTP ${response.status}`, {
      vendorCode: word ?? failure.vendorCode,
    })
  }
  const { access_token: value, expires_in: seconds } = answer
  if (!response.complete || typeof value !== 'string' || !/^[\x21-\x7e]{1,8000}$/.test(value)) {
    throw temporary('garbled_answer', 'The token endpoint gave no token')
  }
  const life =
    (typeof seconds === 'number' && seconds > 0 ? Math.min(seconds, ASSERTION_SECONDS) : 300) * 1000
  return { value, until: now().getTime() + life - Math.min(MARGIN_MS, life / 10) }
}
