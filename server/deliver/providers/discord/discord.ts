import { type Static, Type } from 'typebox'
import type { Content, Json, JsonObject, Priority } from '../../../types.ts'
import {
  bounced,
  type DeliveryCode,
  type DeliveryError,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  rejected,
  retryAfter,
  type Sent,
  secret,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject, textAt } from '../answers.ts'

/** https://docs.discord.com/developers/resources/message#embed-object-embed-limits */
const LIMITS = {
  title: 256,
  description: 4_096,
  fields: 25,
  fieldName: 256,
  fieldValue: 1_024,
  total: 6_000,
} as const
const MAX_URL = 2_048

const settings = Type.Object(
  {
    url: Type.Optional(
      secret({
        title: 'Webhook URL',
        description: 'For messages whose address is no URL of its own: https://discord.com/api/webhooks/…',
        pattern: '^https?://[^\\s]{1,1500}$',
      }),
    ),
    username: Type.Optional(
      Type.String({ title: 'Name', description: 'Shown as the sender.', minLength: 1, maxLength: 80 }),
    ),
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

/**
 * Discord by webhook (https://docs.discord.com/developers/resources/webhook#execute-webhook). With `wait=true` it
 * answers with the message it made, so success means that it stands in the channel. There is no idempotency key.
 */
export const discord: Provider<Settings> = {
  id: 'discord',
  channel: 'discord',
  title: 'Discord',
  settings,
  limits: {
    slowsLane: true,
    subjectChars: LIMITS.title,
    bodyChars: LIMITS.description,
    // 30 a minute and webhook is what its servers grant; the headers say so, the documentation gives no number.
    perSecond: 0.5,
  },

  accepts: (message, own) => isHttpUrl(message.to) || own.url !== undefined,
  lane: message => laneOf(message.to),

  async send(message, { http, settings: own, now, signal }) {
    const given = isHttpUrl(message.to) ? message.to : own.url?.reveal()
    if (given === undefined) throw permanent('invalid_address', 'The address is no URL, and none is set')
    const url = new URL(given)
    url.searchParams.set('wait', 'true')
    const thread = textAt(message.content.data ?? {}, 'thread_id')
    if (thread !== undefined && /^\d{1,20}$/.test(thread)) url.searchParams.set('thread_id', thread)
    const body: JsonObject = {
      embeds: [embedOf(message.content, message.priority, message.createdAt)],
      // Whatever the text says, it notifies nobody by itself.
      allowed_mentions: { parse: [] },
    }
    if (own.username !== undefined) body.username = own.username
    const response = await http.request({
      url: url.href,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    return verdict(response, now())
  },
}

const COLOURS: Record<Priority, number> = {
  CRITICAL: 0xc0392b,
  HIGH: 0xe67e22,
  NORMAL: 0x2f6fde,
  LOW: 0x8a94a6,
}

function embedOf(content: Content, priority: Priority, createdAt: number): JsonObject {
  const links = (content.actions ?? []).filter(
    ({ url }) => url !== undefined && isHttpUrl(url) && url.length <= MAX_URL,
  )
  const embed: JsonObject = { color: COLOURS[priority], timestamp: new Date(createdAt).toISOString() }
  let left: number = LIMITS.total
  const take = (text: string, max: number): string => {
    const cut = fit(text, Math.min(max, left))
    left -= cut.length
    return cut
  }
  const title = take(content.subject?.trim() ?? '', LIMITS.title)
  if (title !== '') embed.title = title
  const description = take(content.body.trim() || (title === '' ? 'Notification' : ''), LIMITS.description)
  if (description !== '') embed.description = description
  // A title links to one place; webhooks that belong to no application have no buttons.
  if (links[0] !== undefined && title !== '') embed.url = links[0].url!

  const fields: JsonObject[] = []
  const add = (name: string, value: string, inline: boolean) => {
    if (name.trim() === '' || value.trim() === '' || fields.length === LIMITS.fields || left < 20) return
    fields.push({
      name: take(name, Math.min(LIMITS.fieldName, left - 10)),
      value: take(value, LIMITS.fieldValue),
      inline,
    })
  }
  for (const { title: name, value } of fieldsOf(content.data?.fields)) add(name, value, true)
  for (const { label, url } of links) {
    // A link that is cut leads nowhere.
    if (url!.length <= Math.min(LIMITS.fieldValue, left - 10 - Math.min(label.length, LIMITS.fieldName)))
      add(label, url!, false)
  }
  if (fields.length > 0) embed.fields = fields
  if (content.image !== undefined && isHttpUrl(content.image) && content.image.length <= MAX_URL) {
    embed.image = { url: content.image }
  }
  return embed
}

/** `[{ "title": "Service", "value": "db" }]` or `{ "Service": "db" }`. */
function fieldsOf(given: Json | undefined): { title: string; value: string }[] {
  const list = Array.isArray(given)
    ? given.filter(isObject).map(({ title, value }) => [title, value])
    : isObject(given)
      ? Object.entries(given)
      : []
  return list.map(([title, value]) => ({ title: shown(title), value: shown(value) }))
}

const shown = (value: Json | undefined): string =>
  typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? `${value}` : ''

type Failure = (code: DeliveryCode, detail: string, facts: { vendorCode: string }) => DeliveryError

/** https://docs.discord.com/developers/topics/opcodes-and-status-codes#json */
const CODES: Record<number, [Failure, DeliveryCode]> = {
  10003: [bounced, 'gone'], // unknown channel
  10015: [bounced, 'gone'], // unknown webhook
  50001: [rejected, 'forbidden'], // missing access
  50006: [permanent, 'content_refused'], // empty message
  50013: [rejected, 'forbidden'], // missing permissions
  50027: [bounced, 'unknown_address'], // invalid webhook token
  50035: [permanent, 'content_refused'], // invalid form body
  50083: [permanent, 'content_refused'], // the thread is archived
  50109: [permanent, 'invalid_request'], // not JSON
}

/** Until the header or the body says otherwise. */
const RATE_WAIT_MS = 5_000
const DAY_MS = 24 * 60 * 60 * 1000

function verdict(response: HttpResponse, now: Date): Sent {
  const answer = readObject(response.body)
  const { status, headers } = response
  if (status === 200) {
    const id = answer === undefined ? undefined : textAt(answer, 'id')
    if (!response.complete || id === undefined) throw unknown('garbled_answer')
    return { outcome: 'delivered', code: '200', providerMessageId: id }
  }
  // Some proxies of its API answer without a message.
  if (status === 204) return { outcome: 'delivered', code: '204' }
  const code = answer?.code
  const facts = { vendorCode: typeof code === 'number' ? `${code}` : `${status}` }
  if (status === 429) {
    // Seconds with a fraction, more exact than the header: https://docs.discord.com/developers/topics/rate-limits
    const seconds = answer?.retry_after
    const wait = typeof seconds === 'number' && seconds >= 0 ? Math.min(seconds * 1000, DAY_MS) : RATE_WAIT_MS
    const until = typeof seconds === 'number' ? undefined : retryAfter(headers['retry-after'], now)
    throw rateLimited(until ?? new Date(now.getTime() + Math.ceil(wait)), facts)
  }
  const known = typeof code === 'number' ? CODES[code] : undefined
  if (known !== undefined) throw known[0](known[1], `HTTP ${status}, code ${facts.vendorCode}`, facts)
  // A webhook's token stands in its URL: who is not known there never will be.
  if (status === 401) throw bounced('unknown_address', 'HTTP 401', facts)
  throw judge(status, headers, now) ?? unknown('garbled_answer', `HTTP ${status}`, facts)
}
