import { type Static, Type } from 'typebox'
import type { Content, JsonObject } from '../../../types.ts'
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
  type SendContext,
  type Sent,
  secret,
  temporary,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject, textAt } from '../answers.ts'

/** https://core.telegram.org/bots/api#sendmessage: after its entities are read. */
const MAX_TEXT = 4_096
const MAX_BUTTONS = 10
const MAX_LABEL = 64

const settings = Type.Object(
  {
    token: secret({
      title: 'Bot token',
      description: 'From @BotFather, such as 123456:ABC-…',
      pattern: '^\\d{1,20}:[A-Za-z0-9_-]{1,200}$',
    }),
    defaultChat: Type.Optional(
      Type.String({
        title: 'Default chat',
        description: 'Where a message goes that names none: a chat’s id or @channel.',
        pattern: '^(-?[1-9]\\d{0,15}|@[A-Za-z][A-Za-z0-9_]{3,31})$',
      }),
    ),
    silentBelowHigh: Type.Boolean({
      title: 'Quiet unless urgent',
      description: 'Messages of normal and low priority arrive without a sound.',
      default: false,
    }),
    apiUrl: Type.String({
      title: 'API',
      description: 'Of an own Bot API server.',
      default: 'https://api.telegram.org',
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

const CHAT = /^(?:-?[1-9]\d{0,15}|@[A-Za-z][A-Za-z0-9_]{3,31})$/

/**
 * Telegram's Bot API (https://core.telegram.org/bots/api#sendmessage). People must have written to the bot first.
 * There is no idempotency key, so a try without an answer is not repeated by itself.
 */
export const telegram: Provider<Settings> = {
  id: 'telegram',
  channel: 'telegram',
  title: 'Telegram',
  settings,
  limits: {
    slowsLane: true,
    subjectChars: 256,
    bodyChars: MAX_TEXT,
    // One message per second and chat: https://core.telegram.org/bots/faq#my-bot-is-hitting-limits-how-do-i-avoid-this
    perSecond: 1,
  },

  // Its name is shown to operators: a chat's number is a person.
  lane: ({ to }) => (to.startsWith('@') ? to : laneOf(to)),

  async send(message, ctx) {
    const to = message.to || ctx.settings.defaultChat || ''
    if (!CHAT.test(to))
      throw permanent('invalid_address', 'The address is neither a chat nor a public channel')
    const { content, priority } = message
    const body: JsonObject = {
      chat_id: to.startsWith('@') ? to : Number(to),
      text: textOf(content),
      parse_mode: 'HTML',
    }
    const quiet = ctx.settings.silentBelowHigh && priority !== 'CRITICAL' && priority !== 'HIGH'
    if (quiet) body.disable_notification = true
    const thread = content.data?.message_thread_id
    if (typeof thread === 'number' && Number.isSafeInteger(thread)) body.message_thread_id = thread
    // The picture is shown through its link, above the text: https://core.telegram.org/bots/api#linkpreviewoptions
    body.link_preview_options =
      content.image !== undefined && isHttpUrl(content.image)
        ? { url: content.image, prefer_large_media: true, show_above_text: true }
        : { is_disabled: true }
    const buttons = buttonsOf(content)
    if (buttons.length > 0) body.reply_markup = { inline_keyboard: buttons.map(button => [button]) }
    const answer = await call('sendMessage', body, ctx)
    const id = isObject(answer) ? answer.message_id : undefined
    if (typeof id !== 'number') throw unknown('garbled_answer')
    return { outcome: 'delivered', code: '200', providerMessageId: `${to}/${id}` } satisfies Sent
  },

  async check(ctx) {
    await call('getMe', undefined, ctx)
  },
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;' }
/** https://core.telegram.org/bots/api#html-style: these three are all that is special in text. */
const escape = (text: string): string => text.replaceAll(/[&<>]/g, found => ENTITIES[found]!)

/** Cut before it is escaped: entities and tags do not count. */
function textOf({ subject = '', body }: Content): string {
  const title = subject.trim()
  if (title === '') return escape(fit(body, MAX_TEXT)).trim() || 'Notification'
  const rest = body.trim() === title ? '' : fit(body, MAX_TEXT - title.length - 1)
  return rest.trim() === '' ? `<b>${escape(title)}</b>` : `<b>${escape(title)}</b>\n${escape(rest)}`
}

/** Links only: presses of other buttons are answered by whoever runs the bot, which we do not. */
function buttonsOf({ actions = [] }: Content): JsonObject[] {
  return actions
    .filter(({ url }) => url !== undefined && isHttpUrl(url) && url.length <= 2_048)
    .slice(0, MAX_BUTTONS)
    .map(({ id, label, url }) => ({ text: fit(label.trim() || id || 'Open', MAX_LABEL), url: url! }))
}

async function call(
  method: string,
  body: JsonObject | undefined,
  { http, settings: own, signal, now }: SendContext<Settings>,
) {
  const response = await http.request({
    url: `${own.apiUrl}/bot${own.token.reveal()}/${method}`,
    ...(body !== undefined && {
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(body),
    }),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  return judged(response, now())
}

/** Without `retry_after`. */
const RATE_WAIT_MS = 5_000
const DAY_MS = 24 * 60 * 60 * 1000

/**
 * `ok`, `error_code` and `description` (https://core.telegram.org/bots/api#making-requests). The codes are HTTP's;
 * only the words tell one 400 from another.
 */
function judged(response: HttpResponse, now: Date) {
  const answer = readObject(response.body)
  const { status, headers } = response
  if (status >= 200 && status < 300) {
    if (!response.complete || answer?.ok !== true) throw unknown('garbled_answer')
    return answer.result
  }
  const words = answer === undefined ? '' : (textAt(answer, 'description') ?? '')
  const facts = { vendorCode: `${status}` }
  const parameters = isObject(answer?.parameters) ? answer.parameters : {}
  if (status === 429) {
    const { retry_after: seconds } = parameters
    if (typeof seconds === 'number' && seconds >= 0) {
      throw rateLimited(new Date(now.getTime() + Math.min(seconds * 1000, DAY_MS)), facts)
    }
    throw rateLimited(
      retryAfter(headers['retry-after'], now) ?? new Date(now.getTime() + RATE_WAIT_MS),
      facts,
    )
  }
  // The token is part of the path: one that is not known is answered 401 or 404.
  if (status === 401 || (status === 404 && answer !== undefined))
    throw temporary('auth', `HTTP ${status}`, facts)
  if (status === 403) {
    if (/blocked by the user|user is deactivated|kicked|was blocked/i.test(words)) {
      throw bounced(/deactivated/i.test(words) ? 'gone' : 'opted_out', 'HTTP 403', facts)
    }
    throw rejected('forbidden', 'HTTP 403', facts)
  }
  if (status === 400) {
    if (/chat not found|user not found|PEER_ID_INVALID|username/i.test(words)) {
      throw bounced('unknown_address', 'HTTP 400: chat not found', facts)
    }
    // A group that became a supergroup has another id: https://core.telegram.org/bots/api#responseparameters
    if (parameters.migrate_to_chat_id !== undefined)
      throw bounced('gone', 'HTTP 400: the group has another id', facts)
    if (/too long/i.test(words)) throw permanent('too_large', 'HTTP 400: too long', facts)
    if (/not enough rights|CHAT_WRITE_FORBIDDEN/i.test(words)) throw rejected('forbidden', 'HTTP 400', facts)
    throw permanent('content_refused', 'HTTP 400', facts)
  }
  throw judge(status, headers, now) ?? unknown('garbled_answer')
}
