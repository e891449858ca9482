import { type Static, Type } from 'typebox'
import {
  bounced,
  type DeliveryCode,
  type DeliveryError,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rejected,
  type Sent,
  secret,
  temporary,
  unknown,
} from '../../provider.ts'
import { isHttpUrl, laneOf, wordOf } from '../answers.ts'
import { SLACK_BODY_CHARS, slackMessage } from '../slack-blocks.ts'

const settings = Type.Object(
  {
    url: Type.Optional(
      secret({
        title: 'Webhook URL',
        description: 'For messages whose address is no URL of its own: https://hooks.slack.com/services/…',
        pattern: '^https?://[^\\s]{1,1500}$',
      }),
    ),
    broadcasts: Type.Boolean({
      title: 'Call everybody',
      description: 'Whether @channel, @here and @everyone in a template notify people.',
      default: false,
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

/**
 * Slack's incoming webhooks (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks): one URL
 * posts into one channel. Slack gives no id back and takes no idempotency key, so a try without an answer is not
 * repeated by itself.
 */
export const slackWebhook: Provider<Settings> = {
  id: 'slack-webhook',
  channel: 'slack',
  title: 'Slack (incoming webhook)',
  settings,
  limits: {
    slowsLane: true,
    bodyChars: SLACK_BODY_CHARS,
    // 1 per second, short bursts excepted: https://docs.slack.dev/apis/web-api/rate-limits
    perSecond: 1,
  },

  accepts: (message, own) => isHttpUrl(message.to) || own.url !== undefined,
  // The URL is the password, so it does not become the name of a lane.
  lane: message => laneOf(message.to),

  async send(message, { http, settings: own, now, signal }) {
    const url = isHttpUrl(message.to) ? message.to : own.url?.reveal()
    if (url === undefined) throw permanent('invalid_address', 'The address is no URL, and none is set')
    const response = await http.request({
      url,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(slackMessage(message.content, message.notificationId, own.broadcasts)),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
      maxResponseBytes: 4_096,
    })
    return verdict(response, now())
  },
}

type Failure = (code: DeliveryCode, detail: string, facts: { vendorCode: string }) => DeliveryError

/**
 * The body of a refusal is one word
 * (https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors).
 */
// A map, as a page that says "constructor" would find something in an object.
const WORDS = new Map(
  Object.entries<[Failure, DeliveryCode]>({
    invalid_payload: [permanent, 'content_refused'],
    invalid_blocks: [permanent, 'content_refused'],
    invalid_attachments: [permanent, 'content_refused'],
    no_text: [permanent, 'content_refused'],
    too_many_attachments: [permanent, 'content_refused'],
    channel_not_found: [bounced, 'unknown_address'],
    user_not_found: [bounced, 'unknown_address'],
    invalid_token: [bounced, 'unknown_address'],
    channel_is_archived: [bounced, 'gone'],
    no_service: [bounced, 'gone'],
    no_service_id: [bounced, 'gone'],
    no_active_hooks: [bounced, 'gone'],
    no_team: [bounced, 'gone'],
    team_disabled: [bounced, 'gone'],
    action_prohibited: [rejected, 'forbidden'],
    posting_to_general_channel_denied: [rejected, 'forbidden'],
    rollup_error: [temporary, 'server_error'],
  }),
)

function verdict(response: HttpResponse, now: Date): Sent {
  const word = response.body.trim()
  if (response.status >= 200 && response.status < 300) {
    if (response.complete && word === 'ok') return { outcome: 'delivered', code: 'ok' }
    // Whatever says 200 without Slack's word may be a proxy's login page.
    throw unknown('garbled_answer', 'The answer is not "ok"')
  }
  // Asked to wait, the status decides, whatever the word.
  const known = response.status === 429 ? undefined : WORDS.get(word)
  if (known !== undefined) {
    const [failure, code] = known
    throw failure(code, `HTTP ${response.status}: ${word}`, { vendorCode: word })
  }
  const error = judge(response.status, response.headers, now)
  if (error === undefined) throw unknown('garbled_answer')
  const vendorCode = wordOf(word)
  if (vendorCode === undefined || error.kind === 'rate_limited') throw error
  throw { permanent, bounced, rejected, temporary, unknown: temporary }[error.kind](
    error.code,
    error.message,
    {
      vendorCode,
    },
  )
}
