import { createHmac, timingSafeEqual } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message } from '../../../types.ts'
import {
  asDeliveryError,
  type Callback,
  type CallbackRequest,
  callbackRefused,
  type Connection,
  type DeliveryCode,
  DeliveryError,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  type Receipt,
  retryAfter,
  type SendContext,
  type Sent,
  secret,
  temporary,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject, textAt, wordOf } from '../answers.ts'
import { notificationOf, SLACK_BODY_CHARS, slackMessage } from '../slack-blocks.ts'

const settings = Type.Object(
  {
    token: secret({
      title: 'Bot token',
      description:
        'xoxb-… with the scopes chat:write, im:write and, to find people by e-mail, users:read.email.',
      pattern: '^[\\x21-\\x7e]{1,500}$',
    }),
    signingSecret: Type.Optional(
      secret({
        title: 'Signing secret',
        description: 'Of the app, under Basic Information: proves that a pressed button comes from Slack.',
      }),
    ),
    defaultChannel: Type.Optional(
      Type.String({
        title: 'Default channel',
        description: 'Where a message goes that names none, such as #alerts.',
        minLength: 1,
        maxLength: 81,
      }),
    ),
    broadcasts: Type.Boolean({
      title: 'Call everybody',
      description: 'Whether @channel, @here and @everyone in a template notify people.',
      default: false,
    }),
    apiUrl: Type.String({
      title: 'API',
      description: 'Another one than Slack’s own, such as https://slack-gov.com/api.',
      default: 'https://slack.com/api',
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

export type SlackBotSettings = Static<typeof settings>

/** Conversations with people, by what they were asked for by. A promise serves all who ask at the same time. */
interface Directory extends Connection {
  conversations: LRUCache<string, Promise<string>>
}

type Context = SendContext<SlackBotSettings, Directory>

const CONVERSATION = /^[CDG][A-Z0-9]{8,20}$/
const PERSON = /^[UW][A-Z0-9]{8,20}$/
const NAME = /^#?[\p{L}\p{N}_-]{1,80}$/u
const EMAIL = /^[^\s@<>]{1,64}@[^\s@<>]{1,253}$/
/** What chat.postMessage says of a thread that nothing can be added to. */
const NO_THREAD = new Set(['thread_not_found', 'cannot_reply_to_message'])
const TIMESTAMP = /^\d{1,12}\.\d{6}$/

/**
 * Slack's Web API as a bot (https://docs.slack.dev/reference/methods/chat.postMessage). An address is a channel's
 * id or name, a person's id, or an e-mail address: people get a direct message.
 *
 * The method documents no idempotency key, so a try without an answer is not repeated by itself. Our key travels
 * in the message's metadata, where whoever looks for a message that may have arrived can find it.
 */
export const slackBot: Provider<SlackBotSettings, Directory> = {
  id: 'slack-bot',
  channel: 'slack',
  title: 'Slack (bot)',
  settings,
  limits: {
    slowsLane: true,
    bodyChars: SLACK_BODY_CHARS,
    // One message per second and channel: https://docs.slack.dev/apis/web-api/rate-limits
    perSecond: 1,
  },

  // For an hour: people change their address and leave.
  open: () => {
    const conversations = new LRUCache<string, Promise<string>>({ max: 10_000, ttl: 60 * 60 * 1000 })
    return { conversations, close: () => conversations.clear() }
  },

  accepts: message => !isHttpUrl(message.to),
  // Its name is shown to operators: channels and ids are, people's addresses are not.
  lane: ({ to }) => (EMAIL.test(to) ? laneOf(to) : to),

  send: post,

  /** https://docs.slack.dev/messaging/#threading */
  async reply(message, firstId, ctx) {
    const [channel, ts] = placeOf(firstId)
    try {
      return await post(message, ctx, { channel, ts })
    } catch (error) {
      if (!(error instanceof DeliveryError) || !NO_THREAD.has(error.vendorCode ?? '')) throw error
      throw permanent('gone', error.message, { vendorCode: error.vendorCode })
    }
  },
  /** https://docs.slack.dev/reference/methods/chat.update */
  async update(message, earlierId, ctx) {
    const [channel, ts] = placeOf(earlierId)
    return posted(await call('chat.update', { ...bodyOf(message, channel, ctx), ts }, ctx))
  },

  /** https://docs.slack.dev/reference/methods/chat.delete */
  async retract(messageId, ctx) {
    const [channel, ts] = placeOf(messageId)
    await call('chat.delete', { channel, ts }, ctx)
  },

  callback: (request, ctx) => interaction(request, ctx.settings, ctx.now()),

  async check(ctx) {
    await call('auth.test', undefined, ctx)
  },
}

/** @param under the first message of the thread it belongs to; one that the content names goes before it */
async function post(message: Message, ctx: Context, under?: { channel: string; ts: string }): Promise<Sent> {
  const to = message.to || ctx.settings.defaultChannel || ''
  const { data = {} } = message.content
  const conversation = await conversationOf(to, ctx)
  const body = bodyOf(message, conversation, ctx)
  // A name stands for some channel: Slack says whether the thread is there.
  if (under && CONVERSATION.test(conversation) && conversation !== under.channel) {
    throw permanent('gone', 'The thread is in another conversation')
  }
  if (under) body.thread_ts = under.ts
  if (data.thread_ts !== undefined) {
    if (typeof data.thread_ts !== 'string' || !TIMESTAMP.test(data.thread_ts)) {
      throw permanent('content_refused', '/thread_ts is no timestamp of a message')
    }
    body.thread_ts = data.thread_ts
    if (data.reply_broadcast === true) body.reply_broadcast = true
  }
  for (const name of ['unfurl_links', 'unfurl_media'] as const) {
    if (typeof data[name] === 'boolean') body[name] = data[name]
  }
  const answer = await call('chat.postMessage', body, ctx).catch((error: unknown) => {
    // The conversation that was remembered may be gone; the next message shall ask again.
    if (error instanceof DeliveryError && error.final) ctx.connection.conversations.delete(to)
    throw error
  })
  return posted(answer)
}

function posted(answer: JsonObject): Sent {
  const { channel, ts } = answer
  if (typeof channel !== 'string' || typeof ts !== 'string') return { outcome: 'delivered', code: 'ok' }
  return { outcome: 'delivered', code: 'ok', providerMessageId: messageId(channel, ts) }
}

const bodyOf = (message: Message, channel: string, { settings: own }: Context): JsonObject => ({
  channel,
  ...slackMessage(message.content, message.notificationId, own.broadcasts),
  // https://docs.slack.dev/messaging/message-metadata
  metadata: {
    event_type: 'carillon_notification',
    event_payload: {
      notification_id: message.notificationId,
      idempotency_key: fit(message.idempotencyKey, 255),
    },
  },
})

/** @throws permanent `gone` for an id that no message of ours has */
function placeOf(id: string): [channel: string, ts: string] {
  const [channel, ts] = id.split('/')
  if (channel === undefined || ts === undefined || !TIMESTAMP.test(ts)) {
    throw permanent('gone', 'The message cannot be named')
  }
  return [channel, ts]
}

/** A message's `ts` is unique within its channel only. */
const messageId = (channel: string, ts: string): string => `${channel}/${ts}`.slice(0, 200)

/* ---------------------------------------------------------------- whom it goes to */

function conversationOf(to: string, ctx: Context): string | Promise<string> {
  if (CONVERSATION.test(to)) return to
  if (!PERSON.test(to) && !EMAIL.test(to)) {
    if (NAME.test(to)) return to
    throw permanent('invalid_address', 'The address is no channel, person or e-mail address')
  }
  const { conversations } = ctx.connection
  const known = conversations.get(to)
  if (known !== undefined) return known
  const asked = openConversation(to, ctx).catch((error: unknown) => {
    conversations.delete(to)
    throw nothingSent(asDeliveryError(error))
  })
  conversations.set(to, asked)
  return asked
}

async function openConversation(to: string, ctx: Context): Promise<string> {
  let user = to
  if (EMAIL.test(to)) {
    // Takes no JSON: https://docs.slack.dev/reference/methods/users.lookupByEmail
    const found = await call(
      `users.lookupByEmail?${new URLSearchParams({ email: to })}`,
      undefined,
      ctx,
      'GET',
    )
    const id = isObject(found.user) ? textAt(found.user, 'id') : undefined
    if (id === undefined) throw temporary('garbled_answer', 'users.lookupByEmail names no user')
    user = id
  }
  const { channel } = await call('conversations.open', { users: user }, ctx)
  const id = isObject(channel) ? textAt(channel, 'id') : undefined
  if (id === undefined) throw temporary('garbled_answer', 'conversations.open names no channel')
  return id
}

/** Until the message itself is posted, no answer means that nothing was sent. */
function nothingSent(error: DeliveryError): DeliveryError {
  if (error.kind !== 'unknown') return error
  return temporary(error.code, error.message, { cause: error.cause, vendorCode: error.vendorCode })
}

/* ---------------------------------------------------------------- calls */

async function call(
  method: string,
  body: JsonObject | undefined,
  { http, settings: own, signal, now }: Context,
  verb: 'GET' | 'POST' = 'POST',
): Promise<JsonObject> {
  const headers: Record<string, string> = { authorization: `Bearer ${own.token.reveal()}` }
  if (body !== undefined) headers['content-type'] = 'application/json; charset=utf-8'
  const response = await http.request({
    method: verb,
    url: `${own.apiUrl}/${method}`,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  return judged(response, now())
}

type Failure = 'bounced' | 'rejected' | 'permanent' | 'temporary' | 'unknown' | 'rate_limited'

/**
 * Errors of chat.postMessage, conversations.open and users.lookupByEmail (their pages below
 * https://docs.slack.dev/reference/methods). What an operator can mend, such as a token or a scope, is temporary:
 * it must not cost the messages of that hour.
 */
const ERRORS: [Failure, DeliveryCode, string][] = [
  ['bounced', 'unknown_address', 'channel_not_found user_not_found users_not_found user_not_visible'],
  ['bounced', 'gone', 'is_archived user_disabled'],
  [
    'rejected',
    'forbidden',
    'not_in_channel cannot_dm_bot restricted_action restricted_action_read_only_channel restricted_action_thread_only_channel restricted_action_non_threadable_channel posting_to_general_channel_denied user_is_restricted enterprise_is_restricted access_denied method_not_supported_for_channel_type slack_connect_blocked_file_type',
  ],
  // Of chat.update and chat.delete: the message is not there, or may not be changed any more.
  ['permanent', 'gone', 'message_not_found cant_update_message cant_delete_message edit_window_closed'],
  ['permanent', 'too_large', 'msg_too_long msg_blocks_too_long metadata_too_large post_contents_too_large'],
  [
    'permanent',
    'content_refused',
    'no_text invalid_blocks invalid_blocks_format too_many_attachments invalid_attachments cannot_reply_to_message thread_not_found',
  ],
  [
    'permanent',
    'invalid_request',
    'invalid_arg_name invalid_arguments invalid_array_arg invalid_charset invalid_form_data invalid_post_type missing_post_type missing_charset superfluous_charset invalid_json json_not_object invalid_metadata_format invalid_metadata_schema users_list_not_supplied not_enough_users too_many_users invalid_user_combination',
  ],
  [
    'temporary',
    'auth',
    'not_authed invalid_auth account_inactive token_revoked token_expired no_permission missing_scope not_allowed_token_type org_login_required ekm_access_denied team_access_not_granted accesslimited',
  ],
  ['rate_limited', 'rate_limited', 'rate_limited ratelimited message_limit_exceeded'],
  ['temporary', 'unavailable', 'service_unavailable team_added_to_org request_timeout upgrade_required'],
  // Slack says of both that part of the operation may have succeeded.
  ['unknown', 'no_answer', 'fatal_error internal_error'],
]
const MEANING = new Map(
  ERRORS.flatMap(([kind, code, names]) => names.split(' ').map(name => [name, { kind, code }])),
)

/** Without a Retry-After: the limits are counted by the minute (https://docs.slack.dev/apis/web-api/rate-limits). */
const RATE_WAIT_MS = 60_000

function judged(response: HttpResponse, now: Date): JsonObject {
  const answer = readObject(response.body)
  if (response.status >= 200 && response.status < 300) {
    if (answer === undefined || !response.complete || typeof answer.ok !== 'boolean')
      throw unknown('garbled_answer')
    if (answer.ok) return answer
  }
  const error = answer === undefined ? undefined : wordOf(textAt(answer, 'error'))
  const facts = { vendorCode: error ?? String(response.status) }
  const meaning = error === undefined ? undefined : MEANING.get(error)
  if (response.status === 429 || meaning?.kind === 'rate_limited') {
    const until = retryAfter(response.headers['retry-after'], now)
    throw rateLimited(until ?? new Date(now.getTime() + RATE_WAIT_MS), facts)
  }
  if (meaning !== undefined) throw failure(meaning.kind, meaning.code, `Slack: ${error}`, facts)
  throw (
    judge(response.status, response.headers, now) ?? permanent('refused', `Slack: ${error ?? 'no'}`, facts)
  )
}

const failure = (kind: Failure, code: DeliveryCode, detail: string, facts: { vendorCode: string }) =>
  new DeliveryError(kind, code, detail, facts)

/* ---------------------------------------------------------------- what comes back */

/** How old a request may be: https://docs.slack.dev/authentication/verifying-requests-from-slack */
const MAX_AGE_SECONDS = 5 * 60

const EMPTY = { status: 200, contentType: 'text/plain', body: '' }

/** Pressed buttons and chosen options; the handshake of the Events API; nothing else is kept. */
function interaction(request: CallbackRequest, own: SlackBotSettings, now: Date): Callback {
  verify(request, own, now)
  const text = request.body.toString('utf8')
  const form = contentType(request).includes('x-www-form-urlencoded')
  const payload = readObject(form ? (new URLSearchParams(text).get('payload') ?? '') : text)
  if (payload === undefined) return { receipts: [], reply: EMPTY }
  if (payload.type === 'url_verification') {
    const challenge = textAt(payload, 'challenge') ?? ''
    return { receipts: [], reply: { ...EMPTY, body: challenge.slice(0, 1_000) } }
  }
  if (payload.type !== 'block_actions' || !Array.isArray(payload.actions))
    return { receipts: [], reply: EMPTY }
  const receipts = payload.actions
    .slice(0, 25)
    .flatMap(action => (isObject(action) ? receiptOf(action, payload, now) : []))
  return { receipts, reply: EMPTY }
}

/** @throws AppError unauthenticated */
function verify({ headers, body }: CallbackRequest, own: SlackBotSettings, now: Date): void {
  if (own.signingSecret === undefined) throw callbackRefused('No signing secret is set')
  const stamp = String(headers['x-slack-request-timestamp'] ?? '')
  const given = Buffer.from(String(headers['x-slack-signature'] ?? ''))
  if (!/^\d{1,12}$/.test(stamp)) throw callbackRefused('The request is not signed')
  if (Math.abs(now.getTime() / 1000 - Number(stamp)) > MAX_AGE_SECONDS) {
    throw callbackRefused('The request is too old')
  }
  const hmac = createHmac('sha256', own.signingSecret.reveal()).update(`v0:${stamp}:`).update(body)
  const expected = Buffer.from(`v0=${hmac.digest('hex')}`)
  if (given.length !== expected.length || !timingSafeEqual(given, expected)) {
    throw callbackRefused('The signature does not hold')
  }
}

const contentType = ({ headers }: CallbackRequest): string => String(headers['content-type'] ?? '')

function receiptOf(action: JsonObject, payload: JsonObject, now: Date): Receipt[] {
  const actionId = textAt(action, 'action_id') ?? ''
  const container = isObject(payload.container) ? payload.container : {}
  const message = isObject(payload.message) ? payload.message : {}
  const channel =
    textAt(container, 'channel_id') ?? (isObject(payload.channel) ? textAt(payload.channel, 'id') : '')
  const ts = textAt(container, 'message_ts') ?? textAt(message, 'ts')
  const notificationId = notificationOf(textAt(action, 'block_id')) ?? metadataId(message)
  // Of another message of the same app: not ours to record.
  if (notificationId === undefined && (!channel || ts === undefined)) return []

  const url = urlOf(action, message)
  const value = valueOf(action)
  const replied = value === undefined || value === actionId ? actionId : `${actionId}: ${value}`
  const stamp = textAt(action, 'action_ts')
  const user = isObject(payload.user) ? textAt(payload.user, 'id') : undefined
  const seconds = stamp === undefined ? Number.NaN : Number(stamp)
  const receipt: Receipt = {
    kind: url === undefined ? 'replied' : 'clicked',
    at: Number.isFinite(seconds) ? new Date(Math.min(seconds * 1000, now.getTime())) : now,
    detail: fit(url ?? replied, 2_000),
  }
  if (stamp !== undefined) receipt.receiptId = [stamp, user, actionId].join(':').slice(0, 255)
  if (notificationId !== undefined) receipt.notificationId = notificationId
  if (channel && ts !== undefined) receipt.providerMessageId = messageId(channel, ts)
  return [receipt]
}

const ID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/

function metadataId(message: JsonObject): string | undefined {
  const { metadata } = message
  if (!isObject(metadata) || !isObject(metadata.event_payload)) return undefined
  const id = textAt(metadata.event_payload, 'notification_id')
  return id !== undefined && ID.test(id) ? id : undefined
}

/** A button that opens a link reports being pressed as well; the link stands in the message that comes along. */
function urlOf(action: JsonObject, message: JsonObject): string | undefined {
  const own = textAt(action, 'url')
  if (own !== undefined) return own
  const blocks = Array.isArray(message.blocks) ? message.blocks.filter(isObject) : []
  const block = blocks.find(each => each.block_id === action.block_id)
  if (block === undefined) return undefined
  const elements = Array.isArray(block.elements) ? block.elements : [block.accessory]
  const element = elements.filter(each => isObject(each)).find(each => each.action_id === action.action_id)
  return element === undefined ? undefined : textAt(element, 'url')
}

/** Of a button, a menu, a field or a date: https://docs.slack.dev/reference/interaction-payloads/block_actions-payload */
function valueOf(action: JsonObject): string | undefined {
  const chosen = (option: Json | undefined): string | undefined =>
    isObject(option) ? textAt(option, 'value') : undefined
  const { selected_option: one, selected_options: many } = action
  if (isObject(one)) return chosen(one)
  if (Array.isArray(many)) return many.map(chosen).filter(Boolean).join(', ')
  return [
    'value',
    'selected_date',
    'selected_time',
    'selected_user',
    'selected_channel',
    'selected_conversation',
  ]
    .map(name => textAt(action, name))
    .find(text => text !== undefined)
}
