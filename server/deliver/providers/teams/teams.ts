import { type Static, Type } from 'typebox'
import type { Content, Json, JsonObject } from '../../../types.ts'
import {
  bounced,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  type Sent,
  secret,
  temporary,
} from '../../provider.ts'
import { isHttpUrl, isObject, laneOf, readObject, textAt, wordOf } from '../answers.ts'

/** https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/add-incoming-webhook */
const MAX_BYTES = 28 * 1024
const MAX_BODY_CHARS = 12_000
const MAX_LINES = 80
const MAX_FACTS = 20
/** More are hidden behind a menu: https://learn.microsoft.com/adaptive-cards/authoring-cards/getting-started */
const MAX_ACTIONS = 6
const MAX_URL = 2_048

const settings = Type.Object(
  {
    url: Type.Optional(
      secret({
        title: 'Workflow URL',
        description:
          'For messages whose address is no URL of its own: the URL of a "webhook request" workflow.',
        pattern: '^https?://[^\\s]{1,1500}$',
      }),
    ),
    cardVersion: Type.Enum(['1.4', '1.5'], {
      title: 'Card version',
      description: 'Of Adaptive Cards; 1.4 shows on phones as well.',
      default: '1.4',
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
 * Microsoft Teams through a Workflows webhook that posts the card it gets
 * (https://support.microsoft.com/office/create-incoming-webhooks-with-workflows-for-microsoft-teams). The workflow
 * answers 202 before it posts, so success is `sent`; there is no id and no idempotency key.
 */
export const teams: Provider<Settings> = {
  id: 'teams',
  channel: 'teams',
  title: 'Microsoft Teams',
  settings,
  limits: {
    slowsLane: true,
    subjectChars: 500,
    bodyChars: MAX_BODY_CHARS,
    // Four requests a second (same page as the size).
    perSecond: 4,
  },

  accepts: (message, own) => isHttpUrl(message.to) || own.url !== undefined,
  // The URL holds a signature, so it does not become the name of a lane.
  lane: message => laneOf(message.to),

  async send(message, { http, settings: own, now, signal }) {
    const url = isHttpUrl(message.to) ? message.to : own.url?.reveal()
    if (url === undefined) throw permanent('invalid_address', 'The address is no URL, and none is set')
    const response = await http.request({
      url,
      headers: { 'content-type': 'application/json' },
      body: smallEnough(message.content, own.cardVersion),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
      maxResponseBytes: 8_192,
      statusIsEnough: true,
    })
    return verdict(response, now())
  },
}

/** Text is cut until the whole fits: what else a card holds is short. */
function smallEnough(content: Content, version: string): string {
  let { body } = content
  for (;;) {
    const text = JSON.stringify(envelope({ ...content, body }, version))
    const over = Buffer.byteLength(text) - MAX_BYTES
    if (over <= 0) return text
    if (body.length <= 1) throw permanent('too_large')
    // One UTF-16 unit takes up to six bytes in JSON (\u0000), so this never cuts away more than is too much.
    body = fit(body, Math.max(1, body.length - Math.max(1, Math.floor(over / 6))))
  }
}

const envelope = (content: Content, version: string): JsonObject => ({
  type: 'message',
  attachments: [
    {
      contentType: 'application/vnd.microsoft.card.adaptive',
      contentUrl: null,
      content: cardOf(content, version),
    },
  ],
})

/**
 * https://adaptivecards.io/explorer/AdaptiveCard.html. Text goes into text runs, which show it as it is; a TextBlock
 * would read it as Markdown, and data could bring a link.
 */
function cardOf(content: Content, version: string): JsonObject {
  const body: JsonObject[] = []
  const title = content.subject?.replaceAll(/\s+/g, ' ').trim() ?? ''
  if (title !== '') body.push(line(title, { size: 'large', weight: 'bolder' }, 'default'))
  body.push(...lines(content.body.trim() || (title === '' ? 'Notification' : '')))
  const facts = factsOf(content.data?.fields)
  if (facts.length > 0) body.push({ type: 'FactSet', facts })
  if (content.image !== undefined && /^https:/i.test(content.image) && content.image.length <= MAX_URL) {
    body.push({ type: 'Image', url: content.image, altText: fit(title || 'Image', 200) })
  }
  const actions = (content.actions ?? [])
    .filter(({ url }) => url !== undefined && isHttpUrl(url) && url.length <= MAX_URL)
    .slice(0, MAX_ACTIONS)
    .map(({ id, label, url }) => ({
      type: 'Action.OpenUrl',
      title: fit(label.trim() || id || 'Open', 100),
      url: url!,
    }))
  return {
    $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
    type: 'AdaptiveCard',
    version,
    body,
    ...(actions.length > 0 && { actions }),
    // https://learn.microsoft.com/microsoftteams/platform/task-modules-and-cards/cards/cards-format#full-width-adaptive-card
    msteams: { width: 'Full' },
  }
}

const line = (text: string, style: JsonObject, spacing: string): JsonObject => ({
  type: 'RichTextBlock',
  inlines: [{ type: 'TextRun', text, ...style }],
  spacing,
})

/** A block for each line; blank lines become room. */
function lines(text: string): JsonObject[] {
  const blocks: JsonObject[] = []
  let spacing = 'default'
  const all = text.split(/\r?\n/)
  for (const [at, each] of all.entries()) {
    if (each.trim() === '') {
      spacing = 'medium'
      continue
    }
    if (blocks.length === MAX_LINES - 1) {
      blocks.push(line(all.slice(at).join(' '), {}, spacing))
      break
    }
    blocks.push(line(each, {}, spacing))
    spacing = 'none'
  }
  return blocks
}

/** `[{ "title": "Service", "value": "db" }]` or `{ "Service": "db" }`. */
function factsOf(given: Json | undefined): JsonObject[] {
  const list = Array.isArray(given)
    ? given.filter(isObject).map(({ title, value }) => [title, value])
    : isObject(given)
      ? Object.entries(given)
      : []
  return list
    .map(([title, value]) => ({ title: fit(shown(title), 100), value: fit(shown(value), 300) }))
    .filter(({ title, value }) => title !== '' && value !== '')
    .slice(0, MAX_FACTS)
}

const shown = (value: Json | undefined): string =>
  typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? `${value}` : ''

/** Of the older connectors, which say 200 and then that it went wrong; fixed for the length of their window. */
const CONNECTOR_FAILURE = /returned HTTP error (\d{3})/
const RATE_WAIT_MS = 5_000

function verdict(response: HttpResponse, now: Date): Sent {
  const { status, headers } = response
  if (status >= 200 && status < 300) {
    const failed = CONNECTOR_FAILURE.exec(response.body)?.[1]
    if (failed === undefined) return { outcome: 'sent', code: `${status}` }
    const facts = { vendorCode: failed }
    if (failed === '429') throw rateLimited(new Date(now.getTime() + RATE_WAIT_MS), facts)
    throw judge(Number(failed), {}, now) ?? temporary('server_error', `HTTP 200, within it ${failed}`, facts)
  }
  const answer = readObject(response.body)
  const error = isObject(answer?.error) ? wordOf(textAt(answer.error, 'code')) : undefined
  const facts = { vendorCode: error ?? `${status}` }
  switch (error) {
    // Switched off, or its owner must sign in again: somebody can mend it.
    case 'WorkflowTriggerIsNotEnabled':
      throw temporary('unavailable', `HTTP ${status}: ${error}`, facts)
    case 'TriggerInputSchemaMismatch':
      throw permanent('content_refused', `HTTP ${status}: ${error}`, facts)
    case 'WorkflowNotFound':
    case 'WorkflowTriggerVersionNotFound':
      throw bounced('gone', `HTTP ${status}: ${error}`, facts)
    default:
  }
  if (status === 404 || status === 410) throw bounced('gone', `HTTP ${status}`, facts)
  throw judge(status, headers, now) ?? permanent('refused', `HTTP ${status}`, facts)
}
