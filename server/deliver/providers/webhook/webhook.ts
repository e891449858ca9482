import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Static, Type } from 'typebox'
import type { JsonObject, Message } from '../../../types.ts'
import {
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  type SendContext,
  type Sent,
  secret,
} from '../../provider.ts'
import { hmacSha256 } from '../hmac-sha256.ts'
import {
  type Auth,
  authHeaders,
  authIn,
  authSchema,
  missingIn,
  openTokens,
  plainAuth,
  type Tokens,
} from '../webhook-auth.ts'

// Names a caller may not set: ours, and those that decide where one message ends and the next begins
// (RFC 9112 §6, §9.6).
const RESERVED_HEADERS = new Set([
  'connection',
  'content-length',
  'content-type',
  'expect',
  'host',
  'keep-alive',
  'proxy-connection',
  'te',
  'traceparent',
  'trailer',
  'transfer-encoding',
  'upgrade',
  'user-agent',
])
const HEADER_NAME = "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$"
// Visible ASCII, blank and tab (RFC 9110 §5.5): no CR, LF or NUL, so no header can end early.
const HEADER_VALUE = '^[\\t\\x20-\\x7e]{0,2000}$'

/** Standard Webhooks: base64 of 24 to 64 random bytes after `whsec_`; plain base64 is read too. */
const SECRET_PATTERN = '^(whsec_)?[A-Za-z0-9+/]{4,}={0,2}$'
const MAX_SECRETS = 5
const MAX_BATCH = 50

const headersSchema = Type.Record(
  Type.String({ pattern: HEADER_NAME }),
  // Such as `authorization: Bearer …`: each value is treated as a secret.
  secret({ description: 'The value of the header', pattern: HEADER_VALUE }),
  {
    title: 'Headers',
    description: 'Sent along with every request; ours cannot be replaced.',
    maxProperties: 20,
    // Not additionalProperties: false, over which TypeBox 1.4 stumbles when it fills in defaults.
    propertyNames: Type.String({ pattern: HEADER_NAME }),
  },
)
const batchSchema = Type.Integer({
  title: 'Notifications per request',
  description: `Up to this many notifications travel in one request (at most ${MAX_BATCH}); 1 sends each alone.`,
  minimum: 1,
  maximum: MAX_BATCH,
})
const secretSchema = secret({
  title: 'Signing secret',
  description: 'whsec_… (base64). The receiver checks the signature with it.',
  pattern: SECRET_PATTERN,
})
const formerSecretsSchema = Type.Array(secretSchema, {
  title: 'Former secrets',
  description: 'Still signed with while receivers change over; one signature each.',
  maxItems: MAX_SECRETS - 1,
})

const methodSchema = Type.Enum(['POST', 'PUT'], {
  title: 'Method',
  description: 'POST unless the endpoint wants PUT.',
})

const settings = Type.Object(
  {
    auth: Type.Optional(authSchema),
    method: Type.Optional(methodSchema),
    secret: Type.Optional(secretSchema),
    formerSecrets: Type.Optional(formerSecretsSchema),
    headers: Type.Optional(headersSchema),
    batch: Type.Optional(batchSchema),
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

const addressSettings = Type.Object(
  {
    auth: Type.Optional(authSchema),
    method: Type.Optional(methodSchema),
    secret: Type.Optional(secretSchema),
    formerSecrets: Type.Optional(formerSecretsSchema),
    headers: Type.Optional(headersSchema),
    batch: Type.Optional(batchSchema),
  },
  { additionalProperties: false },
)

export type WebhookSettings = Static<typeof settings>

/**
 * Notifications as signed JSON to an endpoint of the recipient's own, after Standard Webhooks
 * (https://www.standardwebhooks.com). Any 2xx within the timeout is success; what the endpoint writes back is
 * not kept, as it may repeat content.
 *
 * Besides the signature a request may bear a bearer token, an API key, a password or an OAuth 2.0 access token.
 */
export const webhook: Provider<WebhookSettings, Tokens> = {
  id: 'webhook',
  channel: 'webhook',
  title: 'Webhook',
  settings,
  addressSettings,
  // Receivers are told to drop a webhook-id they have seen (Standard Webhooks, "Idempotency").
  mayRepeat: true,

  open({ settings: own }) {
    const missing = own.auth === undefined ? undefined : missingIn(plainAuth(own.auth))
    if (missing !== undefined) throw permanent('invalid_settings', `auth/${missing} is missing`)
    return openTokens()
  },

  // Each endpoint is its own far end: one that is down must not open the breaker for all the others.
  lane: message => originOf(message.to),

  group(message, defaults) {
    const max = batchOf(message, defaults)
    if (max <= 1) return undefined
    const own = message.addressSettings
    // Two tenants may know one URL by different secrets; they never share a request.
    return {
      key: `${message.tenantId} ${message.to}${own === undefined ? '' : ` ${JSON.stringify(own)}`}`,
      max,
    }
  },

  send(message, ctx) {
    const body = JSON.stringify({
      type: message.eventType,
      timestamp: new Date(message.createdAt).toISOString(),
      data: dataOf(message),
    })
    return post(message, message.idempotencyKey, body, ctx)
  },

  // One request, one answer: all of them or none.
  async sendMany(messages, ctx) {
    const [first] = messages
    if (first === undefined) return []
    const body = JSON.stringify({
      type: 'batch',
      timestamp: ctx.now().toISOString(),
      items: messages.map(message => ({
        id: message.idempotencyKey,
        type: message.eventType,
        timestamp: new Date(message.createdAt).toISOString(),
        data: dataOf(message),
      })),
    })
    const sent = await post(first, batchId(messages), body, ctx)
    return messages.map(() => sent)
  },
}

/** The same batch sent again has the same id; receivers that see another mix go by the ids of the items. */
function batchId(messages: readonly Message[]): string {
  const hash = createHash('sha256')
  for (const message of messages) hash.update(message.idempotencyKey).update('\n')
  return `batch_${hash.digest('base64url')}`
}

function dataOf(message: Message): JsonObject {
  const { content } = message
  const data: JsonObject = {
    notificationId: message.notificationId,
    eventId: message.eventId,
    eventType: message.eventType,
    recipient: { type: message.recipient.type, id: message.recipient.id },
    priority: message.priority,
    body: content.body,
  }
  if (content.subject !== undefined) data.subject = content.subject
  if (content.html !== undefined) data.html = content.html
  if (content.data !== undefined) data.data = content.data
  return data
}

async function post(
  message: Message,
  id: string,
  body: string,
  ctx: SendContext<WebhookSettings, Tokens>,
): Promise<Sent> {
  const { http, settings: defaults, now, signal } = ctx
  const timeoutMs = defaults.timeoutSeconds * 1000
  const auth = authOf(message, defaults)
  // The header of an API key is named by whoever set it up.
  if (auth?.type === 'apikey' && auth.header !== undefined && !mayBeSet(auth.header)) {
    throw permanent('invalid_settings', 'auth/header is one that may not be set')
  }
  const proof = auth === undefined ? undefined : await authHeaders(auth, { ...ctx, timeoutMs })
  const seconds = Math.floor(now().getTime() / 1000)
  const headers: Record<string, string> = {}
  customHeaders(headers, defaults.headers, value => value.reveal())
  customHeaders(headers, message.addressSettings?.headers as Record<string, unknown> | undefined, String)
  headers['content-type'] = 'application/json'
  headers['webhook-id'] = id
  headers['webhook-timestamp'] = String(seconds)
  const secrets = secretsOf(message, defaults)
  if (secrets.length > 0) {
    headers['webhook-signature'] = secrets.map(each => sign(each, id, seconds, body)).join(' ')
  }
  if (message.traceId !== undefined && /^[0-9a-f]{32}$/.test(message.traceId)) {
    // W3C trace context. The last 16 digits of a uuid serve as the parent id: unique, and never all zero.
    headers.traceparent = `00-${message.traceId}-${message.notificationId.replaceAll('-', '').slice(-16)}-01`
  }
  const request = (proven: Record<string, string> | undefined) =>
    http.request({
      method: methodOf(message, defaults),
      url: message.to,
      headers: proven ? { ...headers, ...proven } : headers,
      body,
      signal,
      timeoutMs,
      maxResponseBytes: 4_096,
      statusIsEnough: true,
    })
  const response = await request(proof?.headers)
  // A token may end before its time. Once: what a second one cannot mend, a third will not.
  if (response.status === 401 && proof?.again !== undefined) {
    return verdict(await request(await proof.again()), now())
  }
  return verdict(response, now())
}

function verdict(response: HttpResponse, now: Date): Sent {
  const error = judge(response.status, response.headers, now)
  if (error !== undefined) throw error
  return { outcome: 'delivered', code: String(response.status), response: `HTTP ${response.status}` }
}

/** `v1,` and the base64 HMAC-SHA256 of `id.timestamp.body` (Standard Webhooks, "Signature scheme"). */
export const sign = (secret: string, id: string, seconds: number, body: string): string =>
  `v1,${hmacOf(secret)(`${id}.${seconds}.${body}`)}`

const hmacs = new LRUCache<string, (text: string) => string>({ max: 10_000 })

function hmacOf(secret: string): (text: string) => string {
  const known = hmacs.get(secret)
  if (known !== undefined) return known
  const key = Buffer.from(secret.startsWith('whsec_') ? secret.slice(6) : secret, 'base64')
  // An empty key would sign, and anybody could sign the same.
  if (key.length === 0) throw permanent('invalid_settings', 'The signing secret is not base64')
  const hmac = hmacSha256(key)
  hmacs.set(secret, hmac)
  return hmac
}

/** The endpoint's own secrets, or else the provider's. Newest first. */
function secretsOf({ addressSettings: own }: Message, defaults: WebhookSettings): string[] {
  if (typeof own?.secret === 'string') {
    const former = Array.isArray(own.formerSecrets) ? own.formerSecrets : []
    return [own.secret, ...former.filter(each => typeof each === 'string')].slice(0, MAX_SECRETS)
  }
  if (defaults.secret === undefined) return []
  return [defaults.secret, ...(defaults.formerSecrets ?? [])].map(each => each.reveal())
}

/** The endpoint's own, or else the provider's. */
function authOf({ addressSettings: own }: Message, defaults: WebhookSettings): Auth | undefined {
  return authIn(own?.auth) ?? (defaults.auth === undefined ? undefined : plainAuth(defaults.auth))
}

const methodOf = ({ addressSettings: own }: Message, defaults: WebhookSettings): 'POST' | 'PUT' =>
  own?.method === 'PUT' || own?.method === 'POST' ? own.method : (defaults.method ?? 'POST')

function batchOf({ addressSettings: own }: Message, defaults: WebhookSettings): number {
  const asked = typeof own?.batch === 'number' ? own.batch : (defaults.batch ?? 1)
  return Math.min(asked, MAX_BATCH)
}

const validName = new RegExp(HEADER_NAME)
const validValue = new RegExp(HEADER_VALUE)

/** Checked again here: the row may be older than the schema, and a bad header must not fail the delivery. */
function customHeaders<V>(
  headers: Record<string, string>,
  given: Record<string, V> | undefined,
  plain: (value: V) => string,
): void {
  if (given === undefined) return
  for (const [name, value] of Object.entries(given)) {
    if (!mayBeSet(name)) continue
    const text = plain(value)
    if (validValue.test(text)) headers[name.toLowerCase()] = text
  }
}

function mayBeSet(name: string): boolean {
  const lower = name.toLowerCase()
  return validName.test(name) && !RESERVED_HEADERS.has(lower) && !lower.startsWith('webhook-')
}

function originOf(url: string): string {
  const end = url.indexOf('/', url.indexOf('//') + 2)
  return end === -1 ? url : url.slice(0, end)
}
