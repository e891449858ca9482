import { createHmac, timingSafeEqual } from 'node:crypto'
import { type Static, Type } from 'typebox'
import type { Json, JsonObject, Message } from '../../../types.ts'
import {
  type Callback,
  type CallbackRequest,
  callbackRefused,
  DeliveryError,
  type DeliveryCode,
  type FailureKind,
  fit,
  type HttpResponse,
  judge,
  permanent,
  type Provider,
  rateLimited,
  type Receipt,
  retryAfter,
  secret,
  type Secret,
  type SendContext,
  type Sent,
  unknown,
} from '../../provider.ts'
import { isObject, readObject } from '../answers.ts'
import { costOf, inbound, notificationOf, phoneNumber, withoutPerson } from '../phone.ts'
import { costSettings } from '../sms-text.ts'
import {
  sessionOpen,
  sessionSettings,
  variableOf,
  whatsappContent,
  type WhatsAppContent,
  type WhatsAppTemplate,
} from '../whatsapp-content.ts'

const settings = Type.Object(
  {
    phoneNumberId: Type.String({
      title: 'Phone number ID',
      description: 'Of the sender, as the WhatsApp manager shows it; not the number itself.',
      pattern: '^\\d{5,25}$',
    }),
    accessToken: secret({
      title: 'Access token',
      description: 'Of a system user with the permission whatsapp_business_messaging.',
      pattern: '^[\\x21-\\x7e]+$',
    }),
    appSecret: Type.Optional(
      secret({
        title: 'App secret',
        description: 'Callbacks are signed with it; without it none are taken.',
      }),
    ),
    verifyToken: Type.Optional(
      secret({
        title: 'Verify token',
        description: 'Of your choice; Meta repeats it when the callback address is entered there.',
        minLength: 8,
      }),
    ),
    fallbackTemplate: Type.Optional(
      Type.Object(
        {
          name: Type.String({ title: 'Name', pattern: '^[a-z0-9_]{1,512}$' }),
          language: Type.String({ title: 'Language', pattern: '^[a-z]{2,3}(_[A-Za-z]{2,4})?$' }),
          withText: Type.Boolean({
            title: 'With the text',
            description: 'The text becomes the one variable of the template.',
            default: true,
          }),
        },
        {
          title: 'Template outside the 24 hours',
          description:
            'Sent instead of free text when the recipient has not written lately. Taken at once where callbacks say who writes.',
          additionalProperties: false,
        },
      ),
    ),
    apiVersion: Type.String({ title: 'API version', default: 'v24.0', pattern: '^v\\d{1,3}\\.\\d{1,2}$' }),
    baseUrl: Type.String({
      title: 'API address',
      default: 'https://graph.facebook.com',
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
    ...costSettings('Meta names no price.'),
  },
  { additionalProperties: false },
)

export type WhatsAppCloudSettings = Static<typeof settings>
type Context = SendContext<WhatsAppCloudSettings>

/** https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages: caption of media. */
const MAX_CAPTION = 1_024
const MAX_OPAQUE = 512

/**
 * WhatsApp through Meta's Cloud API: text, media, and templates (`content.data.template`: name, language,
 * components). https://developers.facebook.com/docs/whatsapp/cloud-api/reference/messages
 *
 * Most refusals for a closed 24-hour window come later, by callback, when it is too late for the fallback template.
 * So where callbacks tell who has written, free text goes out only while the window is known to be open.
 */
export const whatsAppCloud: Provider<WhatsAppCloudSettings> = {
  id: 'whatsapp-cloud',
  channel: 'whatsapp',
  title: 'WhatsApp Business Cloud',
  settings,
  addressSettings: sessionSettings,
  limits: {
    slowsLane: true,
    // https://developers.facebook.com/docs/whatsapp/cloud-api/messages/text-messages
    bodyChars: 4_096,
    // https://developers.facebook.com/docs/whatsapp/cloud-api/overview#throughput, of a number by default.
    perSecond: 80,
  },

  async send(message, ctx) {
    const to = phoneNumber(message.to)
    const content = whatsappContent(message)
    const { fallbackTemplate, appSecret } = ctx.settings
    const fallback = content.template === undefined ? fallbackTemplate : undefined
    if (fallback === undefined) return post(message, { to, ...payloadOf(content) }, ctx)
    const instead = templatePayload({
      name: fallback.name,
      language: fallback.language,
      variables: fallback.withText ? { 1: variableOf(content.text) } : {},
    })
    if (appSecret !== undefined && !sessionOpen(message, ctx.now())) {
      return post(message, { to, ...instead }, ctx)
    }
    try {
      return await post(message, { to, ...payloadOf(content) }, ctx)
    } catch (thrown) {
      if (!(thrown instanceof DeliveryError) || thrown.vendorCode !== WINDOW_CLOSED) throw thrown
      // The refusal was an answer: nothing was sent, so this cannot become a second message.
      return post(message, { to, ...instead }, ctx)
    }
  },

  callback(request, ctx): Callback {
    if (request.method === 'GET') return challenge(request, ctx.settings.verifyToken)
    checkSignature(request, ctx.settings.appSecret)
    return { receipts: receiptsIn(request.body, ctx.now()) }
  },

  async check({ http, settings: own, signal, now }) {
    const response = await http.request({
      method: 'GET',
      url: `${urlOf(own)}?fields=id`,
      headers: headersOf(own),
      signal,
      timeoutMs: own.timeoutSeconds * 1000,
    })
    const failure = verdict(response, now(), words => words)
    if (failure !== undefined) throw failure
  },
}

/* ---------------------------------------------------------------- the message */

function payloadOf({ text, template, media }: WhatsAppContent): JsonObject {
  if (template !== undefined) return templatePayload(template)
  // No preview: the vendor would call the link, and one-time links are spent by that.
  if (media === undefined) return { type: 'text', text: { body: text, preview_url: false } }
  const file: JsonObject = { link: media.link }
  if (text !== '') file.caption = fit(text, MAX_CAPTION)
  if (media.type === 'document' && media.filename !== undefined) file.filename = media.filename
  return { type: media.type, [media.type]: file }
}

function templatePayload({ name, language, components, variables }: WhatsAppTemplate): JsonObject {
  if (name === undefined || language === undefined) {
    throw permanent('content_refused', 'Meta knows templates by data.template.name and language')
  }
  const template: JsonObject = { name, language: { code: language } }
  if (components !== undefined) template.components = components
  else if (Object.keys(variables).length > 0) {
    template.components = [{ type: 'body', parameters: parametersOf(variables) }]
  }
  return { type: 'template', template }
}

/** {{1}}, {{2}} in their order, or {{name}}: the names of a template are all of one sort. */
function parametersOf(variables: Record<string, string>): JsonObject[] {
  const entries = Object.entries(variables)
  const numbered = entries.every(([name]) => /^[1-9]\d*$/.test(name))
  if (numbered) {
    return entries.toSorted(([a], [b]) => Number(a) - Number(b)).map(([, text]) => ({ type: 'text', text }))
  }
  return entries.map(([name, text]) => ({ type: 'text', parameter_name: name, text }))
}

const urlOf = (own: WhatsAppCloudSettings): string => `${own.baseUrl}/${own.apiVersion}/${own.phoneNumberId}`

const headersOf = (own: WhatsAppCloudSettings): Record<string, string> => ({
  accept: 'application/json',
  authorization: `Bearer ${own.accessToken.reveal()}`,
})

async function post(message: Message, payload: JsonObject, ctx: Context): Promise<Sent> {
  const { http, settings: own, signal, now } = ctx
  const response = await http.request({
    url: `${urlOf(own)}/messages`,
    headers: { ...headersOf(own), 'content-type': 'application/json' },
    body: JSON.stringify({
      messaging_product: 'whatsapp',
      recipient_type: 'individual',
      ...payload,
      // Comes back in every status: a receipt finds its delivery even when no answer came.
      biz_opaque_callback_data: message.idempotencyKey.slice(0, MAX_OPAQUE),
    }),
    signal,
    timeoutMs: own.timeoutSeconds * 1000,
  })
  const failure = verdict(response, now(), words => withoutPerson(words, message))
  if (failure !== undefined) throw failure
  const [first] = listIn(objectIn(response.body).messages)
  if (typeof first?.id !== 'string') throw unknown('garbled_answer')
  const status = typeof first.message_status === 'string' ? first.message_status.slice(0, 50) : 'accepted'
  const sent: Sent = { outcome: 'sent', providerMessageId: first.id, code: status, response: status }
  const cost = costOf(1, own)
  return cost === undefined ? sent : { ...sent, cost }
}

/* ---------------------------------------------------------------- errors */

const WINDOW_CLOSED = '131047'
/** Too many to one recipient. */
const PAIR_LIMIT = '131056'

/** Seconds: not before then. */
type Verdict = readonly [FailureKind, DeliveryCode, number?]

const ACCOUNT: Verdict = ['temporary', 'auth']
// Mended by whoever set the provider up: meanwhile another provider may serve.
const SET_UP: Verdict = ['temporary', 'invalid_settings']
const SLOWER: Verdict = ['temporary', 'rate_limited']
const AWAY: Verdict = ['temporary', 'unavailable']
const BROKEN: Verdict = ['temporary', 'server_error']
const CONTENT: Verdict = ['permanent', 'content_refused']
const INVALID: Verdict = ['permanent', 'invalid_request']
const NOT_ALLOWED: Verdict = ['rejected', 'forbidden']

/** https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes */
const ERRORS: Readonly<Record<string, Verdict>> = {
  0: ACCOUNT,
  1: BROKEN,
  2: AWAY,
  3: ACCOUNT, // capability or permission
  4: SLOWER, // calls of the app
  10: ACCOUNT, // permission
  33: SET_UP, // the sender was deleted
  100: INVALID,
  190: ACCOUNT, // token expired
  200: ACCOUNT, // permission, as up to 299
  368: NOT_ALLOWED, // account restricted for its conduct
  80007: SLOWER, // calls of the business account
  130429: ['rate_limited', 'rate_limited', 1], // messages per second
  130472: ['rejected', 'refused'], // held back by an experiment of Meta
  130497: NOT_ALLOWED, // country
  131000: BROKEN,
  131005: ACCOUNT,
  131008: INVALID, // parameter missing
  131009: INVALID, // parameter value
  131016: AWAY,
  131021: ['permanent', 'invalid_address'], // recipient is the sender
  // Not on WhatsApp, or an old app, terms not accepted, or held back for being one of many: no reason is named, so one of
  // them takes nobody's number away. https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes
  131026: ['rejected', 'unavailable'],
  131030: NOT_ALLOWED, // test number: recipient not on its list
  131031: ACCOUNT, // account locked
  131037: SET_UP, // display name not approved
  131042: ['temporary', 'forbidden'], // payment
  131045: SET_UP, // certificate of the number
  [WINDOW_CLOSED]: CONTENT, // more than 24 hours since the recipient wrote: templates only
  131048: SLOWER, // too many messages were reported as unwanted
  131049: ['rejected', 'refused'], // held back by Meta
  131050: ['rejected', 'opted_out'],
  131051: INVALID, // message type
  131052: CONTENT, // media cannot be fetched
  131053: CONTENT, // media cannot be used
  // One message every six seconds to one person, beyond a burst of 45.
  [PAIR_LIMIT]: ['rate_limited', 'rate_limited', 6],
  131057: AWAY, // maintenance
  132000: CONTENT, // number of variables
  132001: CONTENT, // template does not exist in the language
  132005: CONTENT, // too long once filled in
  132007: CONTENT, // policy
  132012: CONTENT, // format of a variable
  132015: CONTENT, // template paused
  132016: CONTENT, // template switched off
  132018: CONTENT, // variables of a template
  132068: CONTENT, // flow
  132069: CONTENT,
  133004: AWAY,
  133005: SET_UP,
  133006: SET_UP,
  133010: SET_UP, // number not registered
  133016: SLOWER,
  135000: INVALID,
}

const verdictOf = (code: string): Verdict | undefined => ERRORS[/^2\d\d$/.test(code) ? '200' : code]

const ADVICE: Readonly<Record<string, string>> = {
  [WINDOW_CLOSED]:
    'More than 24 hours after the recipient last wrote, WhatsApp takes templates only: set data.template',
}

function verdict(response: HttpResponse, now: Date, clean: (words: string) => string) {
  const plain = judge(response.status, response.headers, now)
  if (plain === undefined) return response.complete ? undefined : unknown('garbled_answer')
  const { error } = objectIn(response.body)
  const { code, message, error_data: data } = isObject(error) ? error : {}
  if (typeof code !== 'number') return plain
  const vendorCode = String(code)
  const details = isObject(data) ? data.details : undefined
  const said = typeof details === 'string' ? details : typeof message === 'string' ? message : undefined
  const words = ADVICE[vendorCode] ?? (said === undefined ? undefined : clean(said))
  const facts = { vendorCode, response: words }
  const [kind, word, seconds] = verdictOf(vendorCode) ?? [plain.kind, plain.code]
  const slower = word === 'rate_limited'
  const asked =
    slower || plain.kind === 'rate_limited' ? retryAfter(response.headers['retry-after'], now) : undefined
  const until = asked ?? (seconds === undefined ? undefined : new Date(now.getTime() + seconds * 1000))
  if (until !== undefined) return rateLimited(until, { ...facts, alone: vendorCode === PAIR_LIMIT })
  return new DeliveryError(kind, word, `HTTP ${response.status}, Meta ${code}`, facts)
}

/* ---------------------------------------------------------------- callbacks */

/** https://developers.facebook.com/docs/graph-api/webhooks/getting-started#verification-requests */
function challenge(request: CallbackRequest, token: Secret | undefined): Callback {
  const query = URL.canParse(request.url) ? new URL(request.url).searchParams : new URLSearchParams()
  const given = query.get('hub.verify_token')
  const text = query.get('hub.challenge') ?? ''
  if (token === undefined || given === null || !sameText(token.reveal(), given)) {
    throw callbackRefused('hub.verify_token is not ours')
  }
  if (query.get('hub.mode') !== 'subscribe' || !/^[\w.-]{1,200}$/.test(text)) {
    throw callbackRefused('This is no verification request')
  }
  return { receipts: [], reply: { status: 200, contentType: 'text/plain', body: text } }
}

/** https://developers.facebook.com/docs/graph-api/webhooks/getting-started#validate-payloads */
function checkSignature(request: CallbackRequest, appSecret: Secret | undefined): void {
  const given = request.headers['x-hub-signature-256']
  if (appSecret === undefined || typeof given !== 'string') {
    throw callbackRefused('X-Hub-Signature-256 or the app secret is missing')
  }
  const expected = createHmac('sha256', appSecret.reveal()).update(request.body).digest('hex')
  if (!sameText(`sha256=${expected}`, given)) throw callbackRefused('X-Hub-Signature-256 does not hold')
}

/** In constant time whatever their lengths: what is compared are digests. */
function sameText(one: string, other: string): boolean {
  const digest = (text: string) => createHmac('sha256', 'compare').update(text).digest()
  return timingSafeEqual(digest(one), digest(other))
}

/**
 * https://developers.facebook.com/docs/whatsapp/cloud-api/webhooks/reference/messages. What cannot be read is left
 * out: the rest of the batch stands.
 *
 * An app hears for all its numbers, through one address. Whoever writes STOP to any of them is heard.
 */
function receiptsIn(body: Buffer, now: Date): Receipt[] {
  return listIn(objectIn(body.toString('utf8')).entry)
    .flatMap(entry => listIn(entry.changes))
    .flatMap(({ value }) => {
      if (!isObject(value)) return []
      return [
        ...listIn(value.statuses).flatMap(status => statusReceipt(status, now)),
        ...listIn(value.messages).flatMap(message => messageReceipt(message, now)),
      ]
    })
}

function statusReceipt(event: JsonObject, now: Date): Receipt[] {
  const { id, status, recipient_id: recipient, biz_opaque_callback_data: reference } = event
  if (typeof id !== 'string' || typeof status !== 'string') return []
  const outcome = outcomeOf(status, event)
  if (outcome === undefined) return []
  const receipt: Receipt = {
    ...outcome,
    at: timeOf(event.timestamp, now),
    providerMessageId: id,
    receiptId: `${id}:${status}`,
  }
  const notificationId = typeof reference === 'string' ? notificationOf(reference) : undefined
  if (notificationId !== undefined) receipt.notificationId = notificationId
  if (typeof recipient === 'string' && /^\d+$/.test(recipient)) receipt.address = `+${recipient}`
  return [receipt]
}

function outcomeOf(
  status: string,
  event: JsonObject,
): Pick<Receipt, 'kind' | 'code' | 'vendorCode'> | undefined {
  switch (status) {
    case 'delivered':
      return { kind: 'delivered' }
    case 'read':
      return { kind: 'opened' }
    case 'failed': {
      const [first] = listIn(event.errors)
      if (typeof first?.code !== 'number') return { kind: 'failed' }
      const vendorCode = String(first.code)
      const [kind, code] = verdictOf(vendorCode) ?? []
      return { kind: kind === 'bounced' ? 'bounced' : 'failed', code, vendorCode }
    }
    default:
      // sent: what the answer had said already.
      return undefined
  }
}

function messageReceipt(event: JsonObject, now: Date): Receipt[] {
  const { id, from, context } = event
  const text = textOf(event)
  if (typeof from !== 'string' || !/^\d+$/.test(from) || text === undefined) return []
  const about = isObject(context) ? context.id : undefined
  return [
    inbound({
      from: `+${from}`,
      text,
      at: timeOf(event.timestamp, now),
      id: typeof id === 'string' ? id : undefined,
      about: typeof about === 'string' ? about : undefined,
    }),
  ]
}

/** What somebody wrote, pressed or sent; undefined for what is no answer, such as a change of number. */
function textOf({ type, ...event }: JsonObject): string | undefined {
  const at = (...path: string[]): string | undefined => {
    let value: Json | undefined = event
    for (const step of path) value = isObject(value) ? value[step] : undefined
    return typeof value === 'string' ? value : undefined
  }
  switch (type) {
    case 'text':
      return at('text', 'body')
    case 'button':
      return at('button', 'text')
    case 'interactive':
      return at('interactive', 'button_reply', 'title') ?? at('interactive', 'list_reply', 'title')
    case 'reaction':
      return at('reaction', 'emoji')
    case 'image':
    case 'video':
    case 'document':
      return at(type, 'caption') ?? ''
    case 'audio':
    case 'sticker':
    case 'location':
    case 'contacts':
      return ''
    default:
      return undefined
  }
}

/** Seconds since 1970, as text. Never in the future: a slip of the vendor must not outrank what comes later. */
function timeOf(seconds: Json | undefined, now: Date): Date {
  const at = Number(seconds) * 1000
  return at > 0 && at <= now.getTime() ? new Date(at) : now
}

const objectIn = (text: string): JsonObject => readObject(text) ?? {}

const listIn = (given: Json | undefined): JsonObject[] => (Array.isArray(given) ? given.filter(isObject) : [])
