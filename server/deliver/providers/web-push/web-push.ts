import { createPrivateKey, type KeyObject, sign } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Static, Type } from 'typebox'
import type { JsonObject, Message, Priority } from '../../../types.ts'
import {
  bounced,
  type Connection,
  type DeliveryError,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  rejected,
  retryAfter,
  secret,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject } from '../answers.ts'
import { bytesOf, fitPayload, MAX_TITLE, MAX_TTL, merge, type PushContent, pushContent } from '../push.ts'
import { encryptPush, publicKeyOf } from '../push-encryption.ts'

const settings = Type.Object(
  {
    publicKey: Type.String({
      title: 'Public key',
      description: 'The VAPID key that browsers subscribe with: 65 bytes in base64url.',
      pattern: '^[A-Za-z0-9_-]{87}=?$',
    }),
    privateKey: secret({ title: 'Private key', description: 'VAPID.', pattern: '^[A-Za-z0-9_-]{43}=?$' }),
    subject: Type.String({
      title: 'Contact',
      description: 'mailto: or https: address at which push services reach whoever runs this installation.',
      pattern: '^(mailto:[^\\s@]+@[^\\s@]+|https://[^\\s]+)$',
      maxLength: 300,
    }),
    icon: Type.Optional(
      Type.String({ title: 'Icon', description: 'URL or path, where a message has none.', maxLength: 500 }),
    ),
    badgeIcon: Type.Optional(
      Type.String({ title: 'Badge', description: 'A monochrome picture for small places.', maxLength: 500 }),
    ),
    ttlSeconds: Type.Integer({
      title: 'Time to live',
      description: 'Seconds for which a browser that is away is waited for.',
      default: 86_400,
      minimum: 0,
      maximum: MAX_TTL,
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
  p256dh: Type.String({ title: 'p256dh', description: 'The browser’s public key, base64url.' }),
  auth: secret({ title: 'auth', description: 'The browser’s secret, base64url.' }),
})

type Settings = Static<typeof settings>

/** RFC 8291 §4: a push service takes 4,096 bytes; 86 are the header, 16 the tag, one ends the text. */
const MAX_BYTES = 3_993

/**
 * Web Push: RFC 8030 (delivery), 8291 (encryption), 8292 (VAPID). The address is the subscription's endpoint, so it
 * may lie anywhere; the door is guarded.
 *
 * There is no idempotency key. It travels as the tag under which the browser shows the message
 * (server/feed/service-worker.js): one that arrives twice takes its own place.
 */
export const webPush: Provider<Settings, Vapid> = {
  id: 'web-push',
  channel: 'web_push',
  title: 'Web Push',
  settings,
  addressSettings,
  limits: { subjectChars: MAX_TITLE, bodyChars: MAX_BYTES },

  open: ({ settings: own }) => vapid(own),

  // Each browser maker has a service of its own.
  lane: message => laneOf(isHttpUrl(message.to) ? new URL(message.to).origin : ''),

  async send(message, { http, settings: own, now, signal, connection }) {
    const { to, addressSettings: keys } = message
    if (!isHttpUrl(to) || /[^\x21-\x7e]/.test(to)) throw bounced('invalid_address', 'The endpoint is no URL')
    const push = pushContent(message)
    const text = fitPayload(
      push.body,
      MAX_BYTES,
      body => JSON.stringify(payloadOf(message, { ...push, body }, own)),
      bytesOf,
    )
    const body = encryptPush(Buffer.from(text), { p256dh: keys?.p256dh, auth: keys?.auth })
    if (body === undefined) throw bounced('invalid_address', 'The keys of the subscription are none')
    const headers: Record<string, string> = {
      authorization: connection.authorize(new URL(to).origin, now()),
      'content-type': 'application/octet-stream',
      'content-encoding': 'aes128gcm',
      ttl: String(push.ttlSeconds ?? own.ttlSeconds),
      urgency: URGENCY[message.priority],
    }
    // Only where the content asks for it: behind some services a device keeps no more than a few topics.
    if (push.collapseKey !== undefined) headers.topic = topicOf(push.collapseKey)
    const response = await http.request({
      url: to,
      headers,
      body,
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
      // 201 says it all; its body is empty.
      statusIsEnough: true,
    })
    const failure = verdict(response, now())
    if (failure !== undefined) throw failure
    const id = idIn(response)
    return {
      outcome: 'sent',
      code: String(response.status),
      ...(id !== undefined && { providerMessageId: id }),
    }
  },
}

/* ---------------------------------------------------------------- the message */

/** RFC 8030 §5.3 */
const URGENCY: Record<Priority, string> = { CRITICAL: 'high', HIGH: 'high', NORMAL: 'normal', LOW: 'low' }

/** RFC 8030 §5.4: at most 32 characters of base64url; what is longer or has others becomes a digest of 16. */
const topicOf = (key: string): string => (/^[A-Za-z0-9_-]{1,32}$/.test(key) ? key : laneOf(key))

/** As server/feed/service-worker.js reads it. */
function payloadOf(
  { content, priority, createdAt, eventType, idempotencyKey }: Message,
  push: PushContent,
  own: Settings,
) {
  const payload: JsonObject = {
    key: idempotencyKey.slice(0, 200),
    tag: push.tag,
    timestamp: createdAt,
    data: { ...push.custom, eventType },
  }
  const put = (name: string, value: string | number | boolean | undefined): void => {
    if (value !== undefined && value !== '') payload[name] = value
  }
  put('title', push.title)
  put('body', push.body)
  put('link', push.link)
  put('group', push.group)
  put('icon', push.icon ?? own.icon)
  put('badge', own.badgeIcon)
  put('image', push.image)
  put('count', push.badge)
  put('lang', content.language)
  if (push.silent || push.sound === 'none') payload.silent = true
  // It stays until somebody has seen it.
  if (priority === 'CRITICAL') payload.requireInteraction = true
  // Browsers show two: https://developer.mozilla.org/docs/Web/API/Notification/maxActions_static
  const actions = push.actions
    .filter(({ id }) => id !== '')
    .slice(0, 2)
    .map(({ id, label, url }) => ({ action: id, title: label, ...(url !== undefined && { link: url }) }))
  if (actions.length > 0) payload.actions = actions
  const over = content.data?.webpush
  return isObject(over) ? merge(payload, over.notification) : payload
}

/** What a push service calls the message (RFC 8030 §5): the end of its Location. */
function idIn({ headers: { location } }: HttpResponse): string | undefined {
  return typeof location === 'string' ? /[^/?#]{1,200}$/.exec(location)?.[0] : undefined
}

/* ---------------------------------------------------------------- errors */

const RATE_WAIT_MS = 60_000

function verdict({ status, headers, body }: HttpResponse, now: Date): DeliveryError | undefined {
  const plain = judge(status, headers, now)
  if (plain === undefined) return undefined
  // Mozilla's services say more: https://mozilla-services.github.io/autopush-rs/errors.html
  const { errno } = readObject(body) ?? {}
  const facts = { vendorCode: typeof errno === 'number' ? `${status} ${errno}` : String(status) }
  switch (status) {
    // RFC 8030 §7.3: the subscription is no more.
    case 404:
    case 410:
      return bounced('gone', `HTTP ${status}`, facts)
    case 429: {
      const until = retryAfter(headers['retry-after'], now)
      return rateLimited(until ?? new Date(now.getTime() + RATE_WAIT_MS), facts)
    }
    case 400:
      return permanent('invalid_request', 'HTTP 400', facts)
    // Subscribed with another VAPID key than ours (RFC 8292 §4.2).
    case 403:
      return rejected('forbidden', 'HTTP 403', facts)
    default:
      return plain
  }
}

/* ---------------------------------------------------------------- VAPID (RFC 8292) */

interface Vapid extends Connection {
  /** The header that shows this origin who we are. */
  authorize(origin: string, now: Date): string
}

/** At most 24 hours (§2); half of it leaves room for clocks that differ. */
const LIFE_SECONDS = 12 * 60 * 60
/** A token is not used in its last hour. */
const MARGIN_MS = 60 * 60 * 1000
const MAX_ORIGINS = 1_000

function vapid(own: Settings): Vapid {
  const publicKey = own.publicKey.replace(/=$/, '')
  const key = signingKey(publicKey, own.privateKey.reveal())
  const cache = new LRUCache<string, { header: string; from: number; until: number }>({ max: MAX_ORIGINS })
  const encoded = (part: JsonObject) => Buffer.from(JSON.stringify(part)).toString('base64url')
  return {
    authorize(origin, now) {
      const nowMs = now.getTime()
      const known = cache.get(origin)
      if (known !== undefined && nowMs >= known.from && nowMs < known.until) return known.header
      const exp = Math.floor(nowMs / 1000) + LIFE_SECONDS
      const claims = { aud: origin, exp, sub: own.subject }
      const text = `${encoded({ typ: 'JWT', alg: 'ES256' })}.${encoded(claims)}`
      const signature = sign('sha256', Buffer.from(text), { key, dsaEncoding: 'ieee-p1363' })
      const header = `vapid t=${text}.${signature.toString('base64url')}, k=${publicKey}`
      cache.set(origin, { header, from: nowMs, until: exp * 1000 - MARGIN_MS })
      return header
    },
    close: () => cache.clear(),
  }
}

function signingKey(publicKey: string, privateKey: string): KeyObject {
  const d = privateKey.replace(/=$/, '')
  if (publicKeyOf(d) !== publicKey) {
    throw permanent('invalid_settings', 'The public key does not belong to the private key')
  }
  const point = Buffer.from(publicKey, 'base64url')
  const x = point.subarray(1, 33).toString('base64url')
  const y = point.subarray(33).toString('base64url')
  return createPrivateKey({ key: { kty: 'EC', crv: 'P-256', x, y, d }, format: 'jwk' })
}
