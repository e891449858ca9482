import { type Static, Type } from 'typebox'
import type { Content, JsonObject, Message, Priority } from '../../../types.ts'
import {
  bounced,
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
  temporary,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, laneOf, readObject, textAt } from '../answers.ts'

/** https://docs.ntfy.sh/publish/#limitations: longer text becomes an attachment. */
const MAX_BYTES = 4_096
const MAX_TITLE = 250
/** https://docs.ntfy.sh/publish/#action-buttons */
const MAX_ACTIONS = 3
const MAX_TAGS = 5
const MAX_URL = 2_048

const settings = Type.Object(
  {
    server: Type.String({
      title: 'Server',
      description: 'Where topics live that are not given as a URL.',
      default: 'https://ntfy.sh',
      pattern: '^https?://[^\\s?#]{1,200}[^/\\s?#]$',
    }),
    topic: Type.Optional(
      Type.String({
        title: 'Default topic',
        description: 'Where a message goes that names none.',
        pattern: '^[-_A-Za-z0-9]{1,64}$',
      }),
    ),
    token: Type.Optional(
      secret({
        title: 'Access token',
        description: 'tk_…; sent to the server above only.',
        pattern: '^[\\x21-\\x7e]{1,200}$',
      }),
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

const TOPIC = /^[-_A-Za-z0-9]{1,64}$/

/** ntfy, at ntfy.sh or one's own server, published as JSON (https://docs.ntfy.sh/publish/#publish-as-json). */
export const ntfy: Provider<Settings> = {
  id: 'ntfy',
  channel: 'ntfy',
  title: 'ntfy',
  settings,
  limits: { subjectChars: MAX_TITLE, bodyChars: MAX_BYTES, slowsLane: true },

  // A server throttles by visitor, and all topics of one server share its fate.
  lane: message => (isHttpUrl(message.to) ? laneOf(new URL(message.to).origin) : 'server'),

  async send(message, { http, settings: own, now, signal }) {
    const { server, topic } = placeOf(message.to, own)
    const headers: Record<string, string> = { 'content-type': 'application/json' }
    // Somebody else's server has no business with our token.
    if (own.token !== undefined && server === own.server)
      headers.authorization = `Bearer ${own.token.reveal()}`
    const response = await http.request({
      url: `${server}/`,
      headers,
      body: JSON.stringify(publication(message, topic)),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    return verdict(response, now())
  },

  async check({ http, settings: own, now, signal }) {
    const response = await http.request({
      method: 'GET',
      url: `${own.server}/v1/health`,
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    const error = judge(response.status, response.headers, now())
    if (error !== undefined) throw error
    if (readObject(response.body)?.healthy !== true)
      throw temporary('unavailable', 'The server is not healthy')
  },
}

function placeOf(to: string, own: Settings): { server: string; topic: string } {
  if (isHttpUrl(to)) {
    const { origin, pathname } = new URL(to)
    const at = pathname.replace(/\/$/, '').lastIndexOf('/')
    const topic = pathname.slice(at + 1).replace(/\/$/, '')
    if (TOPIC.test(topic)) return { server: origin + pathname.slice(0, at), topic }
  }
  const topic = to || own.topic || ''
  if (TOPIC.test(topic)) return { server: own.server, topic }
  throw permanent('invalid_address', 'The address is neither a topic nor the URL of one')
}

/** https://docs.ntfy.sh/publish/#message-priority */
const PRIORITY: Record<Priority, number> = { CRITICAL: 5, HIGH: 4, NORMAL: 3, LOW: 2 }

function publication({ content, priority }: Message, topic: string): JsonObject {
  const body: JsonObject = {
    topic,
    message: fitBytes(content.body.trim() || content.subject || 'Notification'),
  }
  const title = content.subject?.replaceAll(/\s+/g, ' ').trim() ?? ''
  if (title !== '') body.title = fit(title, MAX_TITLE)
  body.priority = PRIORITY[priority]
  const links = linksOf(content)
  const given = textAt(content.data ?? {}, 'click')
  const click = given !== undefined && isHttpUrl(given) ? given : links[0]?.url
  if (click !== undefined) body.click = click
  if (links.length > 0) body.actions = links.map(({ label, url }) => ({ action: 'view', label, url }))
  const tags = tagsOf(content)
  if (tags.length > 0) body.tags = tags
  if (content.image !== undefined && isHttpUrl(content.image) && content.image.length <= MAX_URL) {
    body.attach = content.image
  }
  return body
}

const linksOf = ({ actions = [] }: Content): { label: string; url: string }[] =>
  actions
    .flatMap(({ id, label, url }) =>
      url !== undefined && isHttpUrl(url) && url.length <= MAX_URL
        ? [{ label: fit(label.trim() || id || 'Open', 50), url }]
        : [],
    )
    .slice(0, MAX_ACTIONS)

function tagsOf({ data }: Content): string[] {
  const given = Array.isArray(data?.tags) ? data.tags : []
  return given
    .filter(tag => typeof tag === 'string' && /^[\w+-]{1,50}$/.test(tag))
    .slice(0, MAX_TAGS) as string[]
}

/** The limit is in bytes; what people read is cut by characters. */
function fitBytes(text: string): string {
  let cut = text
  for (let over = bytes(cut) - MAX_BYTES; over > 0; over = bytes(cut) - MAX_BYTES) {
    // A UTF-16 unit takes at most three bytes of UTF-8.
    cut = fit(cut, Math.max(1, cut.length - Math.max(1, Math.floor(over / 3))))
  }
  return cut
}

const bytes = (text: string): number => Buffer.byteLength(text)

/** Tokens are given back one in five seconds (https://docs.ntfy.sh/publish/#limitations); no header says so. */
const RATE_WAIT_MS = 5_000
/** The day's messages are used up (code 42908). */
const DAY_LIMIT_WAIT_MS = 60 * 60 * 1000

/** Its codes are the status and two digits, such as 40009: https://github.com/binwiederhier/ntfy, server/errors.go. */
function verdict(response: HttpResponse, now: Date): Sent {
  const answer = readObject(response.body)
  const { status, headers } = response
  if (status >= 200 && status < 300) {
    const id = answer === undefined ? undefined : textAt(answer, 'id')
    if (!response.complete || id === undefined) throw unknown('garbled_answer')
    return { outcome: 'sent', code: `${status}`, providerMessageId: id }
  }
  const code = typeof answer?.code === 'number' ? answer.code : status
  const facts = { vendorCode: `${code}` }
  if (status === 429) {
    const wait = code === 42908 ? DAY_LIMIT_WAIT_MS : RATE_WAIT_MS
    throw rateLimited(retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + wait), facts)
  }
  // Topic invalid, topic not allowed.
  if (code === 40009 || code === 40010) throw bounced('unknown_address', `HTTP 400: ${code}`, facts)
  if (status === 400) throw permanent('content_refused', `HTTP 400: ${code}`, facts)
  // Reserved by somebody else, or not open to this token.
  if (status === 403) throw rejected('forbidden', 'HTTP 403', facts)
  throw judge(status, headers, now) ?? permanent('refused', `HTTP ${status}`, facts)
}
