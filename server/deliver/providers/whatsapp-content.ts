import { Type } from 'typebox'
import type { Json, Message } from '../../types.ts'
import { fit, permanent } from '../provider.ts'
import { isObject } from './answers.ts'

/**
 * What `content.data` adds for WhatsApp, the same whichever provider carries it:
 *
 * - `template`: what may be sent more than 24 hours after the recipient last wrote. `name`, `language` and
 *   `components` as Meta knows it, `contentSid` as Twilio does, `variables` by their number or name for both.
 * - `media`: `{ type, link, filename? }`; `content.image` is short for an image.
 *
 * Throws on what cannot be sent: leaving it out would send another message.
 */
export interface WhatsAppContent {
  text: string
  template?: WhatsAppTemplate
  media?: WhatsAppMedia
}

/** What of an address comes with the message. */
export const sessionSettings = Type.Object({
  wroteAt: Type.Optional(
    Type.Integer({
      title: 'Wrote at',
      description: 'When its owner last wrote to us, in milliseconds since 1970. Kept by Carillon.',
    }),
  ),
})

/**
 * Free text may be sent for so long after the recipient last wrote:
 * https://developers.facebook.com/docs/whatsapp/cloud-api/guides/send-messages#customer-service-windows
 */
const SESSION_MS = 24 * 60 * 60 * 1000
/** The vendor's clock is another one, and it asks when the message arrives there. */
const MARGIN_MS = 60_000

/** Is the window known to be open? What is not known counts as closed: most recipients have never written. */
export function sessionOpen({ addressSettings }: Message, now: Date): boolean {
  const wroteAt = addressSettings?.wroteAt
  return typeof wroteAt === 'number' && now.getTime() < wroteAt + SESSION_MS - MARGIN_MS
}

/** A template's whole body has 1,024 characters; the rest is left for its own words. */
const MAX_VARIABLE = 900

/** The text as the one variable of a template. */
export const variableOf = (text: string): string => fit(templateText(text), MAX_VARIABLE)

export interface WhatsAppTemplate {
  name?: string
  language?: string
  components?: Json[]
  contentSid?: string
  variables: Record<string, string>
}

export interface WhatsAppMedia {
  type: (typeof MEDIA_TYPES)[number]
  link: string
  filename?: string
}

const MEDIA_TYPES = ['image', 'document', 'video', 'audio'] as const

/** @throws DeliveryError `content_refused` */
export function whatsappContent({ content }: Message): WhatsAppContent {
  const found: WhatsAppContent = { text: content.body }
  const { template, media } = content.data ?? {}
  if (template !== undefined && template !== null) found.template = templateOf(template)
  if (media !== undefined && media !== null) found.media = mediaOf(media)
  else if (content.image !== undefined) found.media = { type: 'image', link: link(content.image) }
  if (found.template === undefined) {
    if (found.media?.type === 'audio' && found.text !== '') {
      throw permanent('content_refused', 'An audio message carries no text')
    }
    if (found.media === undefined && found.text === '') throw permanent('content_refused', 'There is no text')
  }
  return found
}

function templateOf(given: Json): WhatsAppTemplate {
  if (!isObject(given)) throw permanent('content_refused', 'data.template is no object')
  const { name, language, components, contentSid, variables } = given
  const template: WhatsAppTemplate = { variables: variablesOf(variables) }
  // https://developers.facebook.com/docs/whatsapp/business-management-api/message-templates
  if (name !== undefined) template.name = word(name, /^[a-z0-9_]{1,512}$/, 'data.template.name')
  if (language !== undefined) {
    template.language = word(language, /^[a-z]{2,3}(_[A-Za-z]{2,4})?$/, 'data.template.language')
  }
  if (contentSid !== undefined) {
    template.contentSid = word(contentSid, /^HX[0-9a-fA-F]{32}$/, 'data.template.contentSid')
  }
  if (components !== undefined) {
    if (!Array.isArray(components) || !components.every(isObject)) {
      throw permanent('content_refused', 'data.template.components is no list of objects')
    }
    template.components = components
  }
  if (template.name === undefined && template.contentSid === undefined) {
    throw permanent('content_refused', 'data.template has neither name nor contentSid')
  }
  return template
}

const MAX_VARIABLES = 100

function variablesOf(given: Json | undefined): Record<string, string> {
  if (given === undefined) return {}
  if (!isObject(given)) throw permanent('content_refused', 'data.template.variables is no object')
  const entries = Object.entries(given)
  if (entries.length > MAX_VARIABLES) {
    throw permanent('content_refused', `data.template.variables has more than ${MAX_VARIABLES} entries`)
  }
  return Object.fromEntries(
    entries.map(([name, value]) => {
      if (typeof value !== 'string' && typeof value !== 'number') {
        throw permanent('content_refused', 'data.template.variables holds something other than text')
      }
      return [name, templateText(String(value))]
    }),
  )
}

/**
 * A template's variable holds no line end, no tab and at most four blanks in a row, or the whole message is
 * refused: https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes (132018)
 */
export const templateText = (text: string): string =>
  text
    .trim()
    .replaceAll(/[\r\n\t\u2028\u2029]+/g, ' ')
    .replaceAll(/ {4,}/g, '   ')

function mediaOf(given: Json): WhatsAppMedia {
  if (!isObject(given)) throw permanent('content_refused', 'data.media is no object')
  const type = MEDIA_TYPES.find(each => each === (given.type ?? 'image'))
  if (type === undefined) {
    throw permanent('content_refused', `data.media.type is none of ${MEDIA_TYPES.join(', ')}`)
  }
  const media: WhatsAppMedia = { type, link: link(given.link) }
  if (given.filename !== undefined) {
    media.filename = word(given.filename, /^[^\p{Cc}/\\]{1,240}$/u, 'data.media.filename')
  }
  return media
}

/** The vendor fetches it: absolute and https, as neither takes another scheme reliably. */
function link(given: Json | undefined): string {
  if (typeof given === 'string' && given.length <= 2_000 && URL.canParse(given)) {
    const url = new URL(given)
    if (url.protocol === 'https:' && url.username === '' && url.password === '') return url.href
  }
  throw permanent('content_refused', 'The link of the media is no https address')
}

function word(given: Json, pattern: RegExp, what: string): string {
  if (typeof given === 'string' && pattern.test(given)) return given
  throw permanent('content_refused', `${what} is not ${pattern.source}`)
}
