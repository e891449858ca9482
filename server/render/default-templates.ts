import { LRUCache } from 'lru-cache'
import { type Channel, type Content, type InlineContent, type Json } from '../types.ts'
import { baseLayout, paragraphsHtml } from './base-layout.ts'
import { htmlToText, oneLine } from './content.ts'
import { escapeHtml, escapeSlack, toText } from './escape.ts'
import { truncate } from './helpers.ts'
import { compileTemplate } from './template.ts'
import type { View } from './template.ts'
import type { EventView } from './view.ts'

/**
 * Content where no template is named: what a direct send brings itself, else what the event's data says about
 * itself (`subject` or `title`, `body` or `message`), else the event's type and its plain fields as a list.
 *
 * What the request or the data says is shown as it is, never read as a template.
 */
export function renderDefault(channel: Channel, view: View, inline: InlineContent = {}): Content {
  const event = view.names.event as EventView
  const { data } = event
  const said = inline.subject ?? firstText(data.subject, data.title)
  const subject = oneLine(said ?? event.type)
  const html = inline.html
  const own =
    inline.template === undefined ? inline.body : compileTemplate(inline.template, 'none').render(view)
  const text =
    own ?? (html === undefined ? firstText(data.body, data.message) : htmlToText(html)) ?? undefined
  const fields = text === undefined ? fieldsOf(data) : []
  const body = text ?? fields.map(({ name, value }) => `${name}: ${value}`).join('\n')

  switch (channel) {
    case 'email':
      return {
        subject,
        body: body || subject,
        html:
          html ??
          baseLayout({
            subject,
            heading: subject,
            inner: text === undefined ? fieldsHtml(fields) : paragraphsHtml(text),
            language: view.locale,
          }),
        ...(inline.data && { data: inline.data }),
      }
    // One text and no title: the title goes on top, unless the request wrote the whole text itself.
    case 'sms':
    case 'whatsapp':
    case 'voice':
      return {
        body: own ?? titled(said ?? (text === undefined ? subject : undefined), body),
        ...(inline.data && { data: inline.data }),
      }
    case 'slack':
      return {
        subject: escapeSlack(subject),
        body: titled(`*${escapeSlack(subject)}*`, escapeSlack(body)),
        ...(inline.data && { data: inline.data }),
      }
    // Machines read these: they get the data itself.
    case 'webhook':
    case 'pagerduty':
      return { subject, body, ...(html !== undefined && { html }), data: inline.data ?? data }
    default:
      return {
        subject,
        body,
        ...(inline.data && { data: inline.data }),
        ...(inline.image !== undefined && { image: inline.image }),
        ...(inline.actions && { actions: inline.actions }),
      }
  }
}

const firstText = (...values: (Json | undefined)[]): string | undefined =>
  values.find((value): value is string => typeof value === 'string' && value !== '')

const titled = (title: string | undefined, body: string): string =>
  title === undefined || title === body ? body : body === '' ? title : `${title}\n${body}`

const MAX_FIELDS = 20
const MAX_NAME = 60
const MAX_VALUE = 200

/** The members that are text, number or boolean, or short lists of these; bounded, in the event's order. */
function fieldsOf(data: Readonly<Record<string, Json>>): { name: string; value: string }[] {
  const fields: { name: string; value: string }[] = []
  for (const [key, value] of Object.entries(data)) {
    if (fields.length === MAX_FIELDS) break
    if (key === 'subject' || key === 'title' || !isPlain(value)) continue
    const shown = Array.isArray(value) ? value.map(toText).join(', ') : toText(value)
    if (shown !== '') fields.push({ name: label(key), value: truncate(shown, MAX_VALUE) })
  }
  return fields
}

const isPlain = (value: Json): boolean =>
  Array.isArray(value)
    ? value.length <= MAX_FIELDS && value.every(item => typeof item !== 'object')
    : value !== null && typeof value !== 'object'

const labels = new LRUCache<string, string>({ max: 1_000 })

/** `orderId` and `order_id` read "Order id". */
function label(key: string): string {
  let found = labels.get(key)
  if (found === undefined) labels.set(key, (found = makeLabel(key)))
  return found
}

function makeLabel(key: string): string {
  const words = key
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replaceAll(/[_\-.\s]+/g, ' ')
    .trim()
  const lower = /[a-z]/.test(words) ? words.replaceAll(/\b[A-Z](?=[a-z])/g, c => c.toLowerCase()) : words
  return truncate(lower.charAt(0).toUpperCase() + lower.slice(1), MAX_NAME)
}

/** Names and values, one below the other. */
const fieldsHtml = (fields: readonly { name: string; value: string }[]): string =>
  fields.length === 0
    ? ''
    : `<table role="presentation" cellpadding="0" cellspacing="0" style="border-collapse:collapse">
${fields
  .map(
    ({ name, value }) =>
      `<tr><td style="padding:2px 16px 2px 0;vertical-align:top;opacity:0.7">${escapeHtml(name)}</td><td style="padding:2px 0;vertical-align:top">${escapeHtml(value)}</td></tr>`,
  )
  .join('\n')}
</table>`
