import type { Answer, Body } from '../api/client.ts'

/** What one channel says; every text is a template. */
export type Content = Omit<NonNullable<Body<'createTemplate'>['channels']['default']>, 'htmlBody'>

export type Contents = Record<string, Content>

export const VARIABLE_TYPES = ['string', 'number', 'boolean', 'date', 'object', 'array'] as const

export interface Variable {
  name: string
  type?: (typeof VARIABLE_TYPES)[number]
  required?: boolean
  default?: unknown
}

/** All of a template that a person can change. */
export interface Document {
  name: string
  description: string
  category: string
  tags: string[]
  enabled: boolean
  /** What `channels` is written in. */
  locale: string
  channels: Contents
  /** By language, then by channel. */
  translations: Record<string, Contents>
  variables: Variable[]
  /** By language, then by key. */
  messages: Record<string, Record<string, string>>
  /** Texts that the others take in: for those who write code, and kept as they are. */
  partials: Record<string, string>
  schemaVersion: string
}

/** In the order in which they are shown. `default` is for every channel that is not named. */
export const CHANNELS = {
  default: 'All others',
  email: 'E-mail',
  sms: 'SMS',
  push: 'Push',
  web_push: 'Web push',
  in_app: 'In-app',
  slack: 'Slack',
  whatsapp: 'WhatsApp',
  voice: 'Voice',
  webhook: 'Webhook',
  pagerduty: 'PagerDuty',
  discord: 'Discord',
  telegram: 'Telegram',
  teams: 'Teams',
  ntfy: 'ntfy',
} as const satisfies Record<keyof Body<'createTemplate'>['channels'], string>

/** Those that a template has, in the order in which they are shown. */
export const channelsOf = ({ channels }: Document): string[] => [
  ...Object.keys(CHANNELS).filter(name => name in channels),
  ...Object.keys(channels).filter(name => !(name in CHANNELS)),
]

export type Channel = keyof typeof CHANNELS

export const channelName = (channel: string): string =>
  (CHANNELS as Record<string, string>)[channel] ?? channel.replaceAll('_', ' ')

const CONTENT_FIELDS = ['subject', 'title', 'body', 'html', 'mjml', 'image', 'layout', 'actions', 'data']

/** What the server keeps, as it is edited: a translation that is one content for all channels is under `default`. */
export function documentOf(
  template: Answer<'getTemplate'> | Answer<'listTemplateDefaults'>['items'][number],
): Document {
  const { name, description, category, tags, enabled, locale, channels, translations, variables, messages } =
    template
  const { partials, schemaVersion } = template
  return {
    name,
    description,
    category,
    tags,
    enabled,
    locale,
    channels: withoutMade(channels as Contents),
    translations: Object.fromEntries(
      Object.entries(translations as Record<string, Contents | Content>).map(([tag, contents]) => [
        tag,
        withoutMade(
          Object.keys(contents).some(key => CONTENT_FIELDS.includes(key))
            ? { default: contents }
            : (contents as Contents),
        ),
      ]),
    ),
    variables: variables as Variable[],
    messages: messages as Document['messages'],
    partials,
    schemaVersion,
  }
}

/** The HTML beside MJML is what the server made of it, and makes again. */
const withoutMade = (contents: Contents): Contents =>
  Object.fromEntries(
    Object.entries(contents).map(([channel, { html, ...content }]) => [
      channel,
      content.mjml === undefined && html !== undefined ? { ...content, html } : content,
    ]),
  )

/** The texts, as the server takes them; fields and languages with nothing in them are left out. */
export function textsOf({
  locale,
  channels,
  translations,
  variables,
  messages,
  partials,
}: Document): NonNullable<Body<'validateTemplate'>> {
  return {
    locale,
    channels: filled(channels),
    translations: Object.fromEntries(
      Object.entries(translations)
        .map(([tag, contents]) => [tag, translated(contents, channels)] as const)
        .filter(([, contents]) => Object.keys(contents).length > 0),
    ),
    variables: variables.filter(({ name }) => name.trim() !== ''),
    messages: Object.fromEntries(
      Object.entries(messages)
        .map(
          ([tag, texts]) =>
            [tag, Object.fromEntries(Object.entries(texts).filter(([, text]) => text !== ''))] as const,
        )
        .filter(([, texts]) => Object.keys(texts).length > 0),
    ),
    partials,
  }
}

const trimmed = ({ subject, title, image, actions, ...rest }: Content): Content => ({
  ...rest,
  ...(subject !== undefined && subject !== '' && { subject }),
  ...(title !== undefined && title !== '' && { title }),
  ...(image !== undefined && image !== '' && { image }),
  ...(actions !== undefined && actions.length > 0 && { actions }),
})

const filled = (contents: Contents): Contents =>
  Object.fromEntries(
    Object.entries(contents).map(([channel, content]) => {
      const kept = trimmed(content)
      const says = [kept.body, kept.html, kept.mjml, kept.data].some(field => field !== undefined)
      return [channel, says ? kept : { ...kept, body: '' }]
    }),
  )

const TEXTS = ['body', 'html', 'mjml', 'data'] as const

/** Whether there is anything in it to be read. */
const says = (content: Content | undefined): boolean =>
  content !== undefined &&
  [...TEXTS, 'subject' as const, 'title' as const].some(
    field => content[field] !== undefined && content[field] !== '',
  )

/**
 * A translation that says nothing is left out. One that has a subject alone takes the text of the original along, as
 * the server keeps no content without a text.
 */
const translated = (contents: Contents, originals: Contents): Contents =>
  Object.fromEntries(
    Object.entries(contents)
      .filter(([, content]) => says(content))
      .map(([channel, content]) => {
        const kept = trimmed(content)
        if (TEXTS.some(field => kept[field] !== undefined && kept[field] !== '')) return [channel, kept]
        const { body = '', html, mjml } = originals[channel] ?? {}
        const text = mjml !== undefined ? { mjml } : html !== undefined ? { html } : { body }
        return [channel, { ...kept, ...text }]
      }),
  )

// --------------------------------------------------------------------------------------------- languages

/** Of a language, in the language of whoever reads. */
export function languageName(tag: string): string {
  try {
    return new Intl.DisplayNames([navigator.language, 'en'], { type: 'language' }).of(tag) ?? tag
  } catch {
    return tag
  }
}

/** As BCP 47 writes it; undefined for what is none. */
export function canonicalLanguage(tag: string): string | undefined {
  try {
    return Intl.getCanonicalLocales(tag.trim().replaceAll('_', '-'))[0]
  } catch {
    return undefined
  }
}

/** All that texts are in, or messages: the template's own first. */
export const languagesOf = ({ locale, translations, messages }: Document): string[] => [
  locale,
  ...[...new Set([...Object.keys(translations), ...Object.keys(messages)])]
    .filter(tag => tag !== locale)
    .sort(),
]

/** The channels that a language lacks, although the template has them. */
export const missingIn = (document: Document, tag: string): string[] => {
  if (tag === document.locale) return []
  const contents = document.translations[tag] ?? {}
  return Object.keys(document.channels).filter(channel => !says(contents[channel]) && !says(contents.default))
}

// ------------------------------------------------------------------------------------------- sample data

/** Something to look at for each variable: its default, else what its name suggests. */
export function sampleOf(variables: readonly Variable[]): Record<string, unknown> {
  const sample: Record<string, unknown> = {}
  for (const { name, type, default: otherwise } of variables) {
    if (name.trim() !== '') sample[name] = otherwise ?? exampleOf(name, type)
  }
  return sample
}

function exampleOf(name: string, type: Variable['type']): unknown {
  switch (type) {
    case 'number':
      return 42
    case 'boolean':
      return true
    case 'date':
      return '2026-12-24T09:30:00Z'
    case 'object':
      return { name: 'Example', value: 1 }
    case 'array':
      return [
        { name: 'First item', price: 12 },
        { name: 'Second item', price: 30 },
      ]
    default:
      if (/(^|_)(id|no|number|code)$|I[dD]$|Number$/i.test(name)) return 'A-1042'
      if (/url|link/i.test(name)) return 'https://example.com/'
      if (/mail/i.test(name)) return 'sam@example.com'
      if (/name/i.test(name)) return 'Sam'
      return words(name)
  }
}

/** `orderId` and `order_id` read "Order id". */
export function words(name: string): string {
  const apart = name
    .replaceAll(/([a-z0-9])([A-Z])/g, '$1 $2')
    .replaceAll(/[_.-]+/g, ' ')
    .trim()
    .toLowerCase()
  return apart.charAt(0).toUpperCase() + apart.slice(1)
}

/** The same without one member. */
export const without = <T extends object, K extends string>(from: T, name: K): Omit<T, K> =>
  Object.fromEntries(Object.entries(from).filter(([key]) => key !== name)) as Omit<T, K>
