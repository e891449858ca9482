import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message, Priority } from '../../../types.ts'
import {
  bounced,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  retryAfter,
  type Sent,
  secret,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject, textAt, wordOf } from '../answers.ts'

/** https://developer.pagerduty.com/docs/send-alert-event and https://developer.pagerduty.com/docs/events-api-v2-overview */
const LIMITS = {
  summary: 1_024,
  dedupKey: 255,
  /** The whole request. */
  bytes: 512 * 1024,
} as const
const MAX_LINKS = 20
const MAX_FIELD = 255
const MAX_BODY_CHARS = 20_000

const settings = Type.Object(
  {
    routingKey: Type.Optional(
      secret({
        title: 'Integration key',
        description: 'For messages whose address is no integration key: 32 characters.',
        pattern: '^[A-Za-z0-9]{32}$',
      }),
    ),
    source: Type.String({
      title: 'Source',
      description: 'What the incident names as the affected system where the content names none.',
      default: 'carillon',
      minLength: 1,
      maxLength: MAX_FIELD,
    }),
    client: Type.Optional(
      Type.String({
        title: 'Client',
        description: 'How we are called in the incident.',
        maxLength: MAX_FIELD,
      }),
    ),
    clientUrl: Type.Optional(
      Type.String({
        title: 'Client URL',
        description: 'Where that name leads.',
        pattern: '^https?://[^\\s]{1,1000}$',
      }),
    ),
    apiUrl: Type.String({
      title: 'API',
      description: 'Of another service region, such as https://events.eu.pagerduty.com/v2.',
      default: 'https://events.pagerduty.com/v2',
      pattern: '^https?://[^\\s?#]{1,200}[^/\\s?#]$',
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

type Settings = Static<typeof settings>

const ROUTING_KEY = /^[A-Za-z0-9]{32}$/

/**
 * PagerDuty's Events API v2. The content's data may hold `event_action` (trigger, acknowledge, resolve),
 * `dedup_key`, `severity`, `source`, `component`, `group`, `class`, `links`, `images` and `custom_details`; what
 * else it holds goes along as details.
 */
export const pagerduty: Provider<Settings> = {
  id: 'pagerduty',
  channel: 'pagerduty',
  title: 'PagerDuty',
  settings,
  limits: { bodyChars: MAX_BODY_CHARS, slowsLane: true },
  // Events with one dedup_key become one alert.
  mayRepeat: true,

  accepts: (message, own) => ROUTING_KEY.test(message.to) || own.routingKey !== undefined,
  // Each integration is throttled by itself; its key is its password.
  lane: message => laneOf(message.to),

  async send(message, { http, settings: own, now, signal }) {
    const key = ROUTING_KEY.test(message.to) ? message.to : own.routingKey?.reveal()
    if (key === undefined)
      throw permanent('invalid_address', 'The address is no integration key, and none is set')
    const body = JSON.stringify(eventOf(message, key, own))
    if (Buffer.byteLength(body) > LIMITS.bytes) throw permanent('too_large')
    const response = await http.request({
      url: `${own.apiUrl}/enqueue`,
      headers: { 'content-type': 'application/json' },
      body,
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
      maxResponseBytes: 16_384,
    })
    return verdict(response, now())
  },
}

const ACTIONS = ['trigger', 'acknowledge', 'resolve']
const SEVERITIES = ['critical', 'error', 'warning', 'info']
const SEVERITY: Record<Priority, string> = {
  CRITICAL: 'critical',
  HIGH: 'error',
  NORMAL: 'warning',
  LOW: 'info',
}

/** Members of the data that have a place of their own in the event. */
const PLACED = new Set([
  'event_action',
  'dedup_key',
  'severity',
  'source',
  'component',
  'group',
  'class',
  'links',
  'images',
  'custom_details',
])

function eventOf(message: Message, routingKey: string, own: Settings): JsonObject {
  const data = message.content.data ?? {}
  const action = textAt(data, 'event_action') ?? 'trigger'
  if (!ACTIONS.includes(action))
    throw permanent('content_refused', '/event_action is none that PagerDuty knows')
  const dedupKey = textAt(data, 'dedup_key')
  // Without a key of its own a resolve would resolve nothing and look like success.
  if (dedupKey === undefined && action !== 'trigger') {
    throw permanent('content_refused', `/dedup_key is missing; ${action} needs it`)
  }
  if ((dedupKey?.length ?? 0) > LIMITS.dedupKey) {
    throw permanent('content_refused', `/dedup_key has more than ${LIMITS.dedupKey} characters`)
  }
  const event: JsonObject = {
    routing_key: routingKey,
    event_action: action,
    dedup_key: dedupKey ?? message.idempotencyKey.slice(0, LIMITS.dedupKey),
  }
  // The rest is read for triggers only.
  if (action !== 'trigger') return event

  event.payload = payloadOf(message, data, own)
  const links = linksOf(message, data)
  if (links.length > 0) event.links = links
  const images = imagesOf(message, data)
  if (images.length > 0) event.images = images
  if (own.client !== undefined) event.client = own.client
  if (own.clientUrl !== undefined) event.client_url = own.clientUrl
  return event
}

function payloadOf(
  { content, priority, createdAt, eventType }: Message,
  data: JsonObject,
  own: Settings,
): JsonObject {
  const given = textAt(data, 'severity')
  const payload: JsonObject = {
    summary: fit(
      oneLine(content.subject) || oneLine(content.body) || eventType || 'Notification',
      LIMITS.summary,
    ),
    severity: given !== undefined && SEVERITIES.includes(given) ? given : SEVERITY[priority],
    source: fit(textAt(data, 'source') ?? own.source, MAX_FIELD),
    timestamp: new Date(createdAt).toISOString(),
  }
  for (const name of ['component', 'group', 'class'] as const) {
    const text = textAt(data, name)
    if (text !== undefined) payload[name] = fit(text, MAX_FIELD)
  }
  payload.custom_details = detailsOf(content.body, data)
  return payload
}

const oneLine = (text: string | undefined): string => (text ?? '').replaceAll(/\s+/g, ' ').trim()

function detailsOf(body: string, data: JsonObject): JsonObject {
  const rest = Object.entries(data).filter(([name]) => !PLACED.has(name))
  const given = data.custom_details
  const details: JsonObject = { ...Object.fromEntries(rest), ...(isObject(given) && given) }
  if (given !== undefined && !isObject(given)) details.details = given
  if (body !== '' && details.body === undefined) details.body = body
  return details
}

function linksOf({ content }: Message, data: JsonObject): JsonObject[] {
  const links: JsonObject[] = []
  for (const { label, url } of content.actions ?? []) {
    if (url !== undefined && isHttpUrl(url)) links.push({ href: url, text: fit(label, MAX_FIELD) })
  }
  for (const each of listOf(data.links)) {
    const href = textAt(each, 'href')
    if (href === undefined || !isHttpUrl(href)) continue
    const text = textAt(each, 'text')
    links.push({ href, ...(text !== undefined && { text: fit(text, MAX_FIELD) }) })
  }
  return links.slice(0, MAX_LINKS)
}

/** Pictures are taken by https only. */
function imagesOf({ content }: Message, data: JsonObject): JsonObject[] {
  const images: JsonObject[] = []
  for (const each of [
    ...(content.image === undefined ? [] : [{ src: content.image }]),
    ...listOf(data.images),
  ]) {
    const src = textAt(each, 'src')
    if (src === undefined || !isHttpUrl(src) || !/^https:/i.test(src)) continue
    const image: JsonObject = { src }
    const href = textAt(each, 'href')
    const alt = textAt(each, 'alt')
    if (href !== undefined && isHttpUrl(href)) image.href = href
    if (alt !== undefined) image.alt = fit(alt, MAX_FIELD)
    images.push(image)
  }
  return images.slice(0, MAX_LINKS)
}

const listOf = (value: Json | undefined): JsonObject[] => (Array.isArray(value) ? value.filter(isObject) : [])

/** Without a Retry-After: throttling is by the minute (https://developer.pagerduty.com/docs/events-api-v2-overview). */
const RATE_WAIT_MS = 60_000

/** 202 is the only yes; a 400 will be a 400 again (https://developer.pagerduty.com/docs/events-api-v2-overview). */
function verdict(response: HttpResponse, now: Date): Sent {
  const { status, headers } = response
  const answer = readObject(response.body)
  if (status === 202) {
    const key = answer === undefined ? undefined : textAt(answer, 'dedup_key')
    if (!response.complete || answer === undefined) throw unknown('garbled_answer')
    return { outcome: 'sent', code: '202', ...(key !== undefined && { providerMessageId: key }) }
  }
  const word = answer === undefined ? undefined : wordOf(textAt(answer, 'status')?.replaceAll(' ', '_'))
  const facts = { vendorCode: word ?? String(status) }
  if (status === 429) {
    throw rateLimited(
      retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + RATE_WAIT_MS),
      facts,
    )
  }
  if (status === 400) {
    // The texts of the errors may quote the event; whether they name the key is all that is read from them.
    const about = JSON.stringify(answer?.errors ?? '')
    if (/routing_key/i.test(about))
      throw bounced('unknown_address', 'The integration key is not taken', facts)
    throw permanent('content_refused', 'HTTP 400: the event is not taken', facts)
  }
  throw judge(status, headers, now) ?? unknown('garbled_answer', `HTTP ${status} instead of 202`, facts)
}
