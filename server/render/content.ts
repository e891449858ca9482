import { compile as compileHtmlToText } from 'html-to-text'
import { AppError, type ErrorDetail } from '../errors.ts'
import {
  CHANNELS,
  type Action,
  type Channel,
  type Content,
  type Id,
  type Json,
  type JsonObject,
} from '../types.ts'
import { smsSize } from '../sms-size.ts'
import { baseLayout, inLanguage, paragraphsHtml } from './base-layout.ts'
import type { Escape } from './escape.ts'
import { toHandlebars } from './go-notation.ts'
import {
  type Catalogue,
  type Message,
  type Messages,
  NO_MESSAGES,
  type SharedMessages,
  catalogue,
  checkMessages,
  fallbacks,
} from './messages.ts'
import { type LayoutField, type Layouts, isDocument, partialsOf, variablesWith } from './partials.ts'
import {
  type CompiledTemplate,
  type Expansion,
  type Partials,
  type View,
  compileTemplate,
  parsePartial,
} from './template.ts'
import {
  type CompiledVariables,
  TYPE_WORDS,
  type TemplateVariable,
  VARIABLE_TYPES,
  compileVariables,
  givenVariables,
  isOfType,
  judgeVariables,
} from './variables.ts'

/** What one channel says. Every text is a template; a translation may leave out what it does not change. */
export interface ChannelContent {
  /** One line: e-mail subject, push title. */
  subject?: string
  /** Another name for subject, as push and in-app have it; used where there is no subject. */
  title?: string
  /** Text. For Slack it may be a Block Kit document in JSON. */
  body?: string
  html?: string
  /** MJML: what `html` is made of whenever the template is saved (publish.ts). */
  mjml?: string
  /** Absolute URL of a picture, a template. */
  image?: string
  /**
   * E-mail: `base` puts the text, or the HTML, into a document that clients show well; `none` leaves it as it is.
   * Text gets the base layout unless stated, HTML does not.
   */
  layout?: (typeof LAYOUTS)[number]
  /** Links in an SMS, a WhatsApp message or a push: `short` or `whole`, whatever the tenant's default. */
  links?: (typeof LINKS)[number]
  /** Buttons; label and link are templates, and one whose link is empty then is left out. */
  actions?: { id?: string; label: string; url?: string }[]
  /** For the channel's own purposes: an object whose texts are templates, or a template of a JSON object. */
  data?: JsonObject | string
}

export type { Messages, TemplateVariable }
export { VARIABLE_TYPES }

export const LAYOUTS = ['base', 'none'] as const
export const LINKS = ['short', 'whole'] as const

export type ChannelContents = Partial<Record<Channel | 'default', ChannelContent>>

/** One immutable state of a template. */
export interface TemplateRevision {
  templateId: Id
  name: string
  revision: number
  /** BCP 47 tag of what `channels` is written in; `en` unless stated. */
  locale?: string
  channels: ChannelContents
  /** By BCP 47 tag, then by channel; or flat, one content for all channels. */
  translations?: Record<string, ChannelContents | ChannelContent>
  variables?: TemplateVariable[]
  /** ICU messages by BCP 47 tag and key, for the helper `t`. */
  messages?: Messages
  /** Texts that its other texts take in by their names. */
  partials?: Record<string, string>
  /** What it takes in of other templates, as that was when it was saved. */
  layouts?: Layouts
}

export interface CompiledRevision {
  revision: TemplateRevision
  /** Whether there is something to say there, in any language. */
  has(channel: Channel): boolean
  /**
   * The content for a channel in the best language, the reader's or else the tenant's; compiled at its first use.
   * Languages of the tenant's own messages count where the texts say one of them.
   */
  select(channel: Channel, locale: string, ofTenant?: string, shared?: SharedMessages): SelectedContent
  variables: CompiledVariables
}

interface SelectedContent {
  /** What its text is written in. */
  locale: string
  content: CompiledContent
}

interface CompiledContent {
  subject: CompiledTemplate | undefined
  body: CompiledTemplate | undefined
  html: CompiledTemplate | undefined
  data: ((view: View) => JsonObject) | undefined
  image: CompiledTemplate | undefined
  actions: { id: string; label: CompiledTemplate; url: CompiledTemplate | undefined }[] | undefined
  /** The body is a JSON document for the channel, not text. */
  bodyIsJson: boolean
  layout: ChannelContent['layout']
  links: ChannelContent['links']
  /** Messages it says that the template has not itself. */
  said: ReadonlySet<string>
}

/** A mistake in a template, with a JSON pointer to where it is and the place in that text. */
export interface TemplateProblem extends ErrorDetail {
  line?: number
  column?: number
}

const MAX_LOCALES = 100
const MAX_VARIABLES = 200
/** What all texts of a revision take in; a text for all channels is checked as two. */
const MAX_EXPANSION: Readonly<Expansion> = { tags: 20_000, chars: 8 * 1024 * 1024 }
/** `{{…}}` in all texts of a revision; compiling so many takes about 300 ms. */
const MAX_TAGS = 10_000
const MAX_DATA_DEPTH = 16
const MAX_DATA_TEXTS = 1_000
/** RFC 5322 §2.1.1 ends a line there; no channel shows more of a title. */
const MAX_SUBJECT = 998
/** Selections are by the users' locales, of which there may be any number. */
const MAX_SELECTIONS = 500

// ---------------------------------------------------------------------------------------------- rendering

/**
 * One channel's finished content, pure. The locale is looked up as RFC 4647 §3.4 does: exact, then shorter, then
 * the tenant's in the same way, then the revision's own; in each, the channel's content before the one for all channels.
 *
 * @throws AppError invalid_template: nothing for this channel, a required variable is missing, the result is too
 * long or a JSON part is not JSON with this data
 */
export function render(compiled: CompiledRevision, channel: Channel, locale: string, view: View): Content {
  const selected = compiled.select(channel, locale, view.tenantLocale, view.messages)
  const { content } = selected
  const seen = viewFor(compiled, selected.locale, locale, view)

  const short = content.links === undefined ? view.links?.wanted : content.links === 'short'
  const shorten = (short && view.links?.shorten) || asItIs

  const subject = content.subject && oneLine(content.subject.render(seen))
  const html = content.html?.render(content.html.readsSubject ? { ...seen, subject: subject ?? '' } : seen)
  const written = channel === 'sms' ? fitting(content, seen, shorten) : content.body?.render(seen)
  const data = content.data?.(seen)
  const more = extrasOf(content, seen, selected.locale)

  if (content.bodyIsJson) {
    const document = parseJson(written!, 'body')
    return {
      ...(subject !== undefined && { subject }),
      body: subject || textOf(document),
      data: { ...document, ...data },
      ...more,
    }
  }
  const body = shorten(written ?? (html === undefined ? '' : htmlToText(html)))
  const document =
    channel === 'email' ? mailOf(content, subject ?? '', body, html, more, selected.locale) : html
  return {
    ...(subject !== undefined && { subject }),
    body,
    ...(document !== undefined && { html: document }),
    ...(data !== undefined && { data }),
    ...more,
  }
}

const asItIs = (text: string): string => text

/** The HTML of a mail: the author's, or the text in the base layout. */
function mailOf(
  { layout }: CompiledContent,
  subject: string,
  body: string,
  html: string | undefined,
  { image, actions }: Partial<Content>,
  language: string,
): string | undefined {
  if ((layout ?? (html === undefined ? 'base' : 'none')) === 'none') {
    return html
  }
  const inner = html ?? paragraphsHtml(body)
  return baseLayout({
    subject,
    inner,
    language,
    ...(image !== undefined && { image }),
    ...(actions && { actions }),
  })
}

/** So much of what is shortened stays. */
const LEAST_FIT = 6
const MOST_FIT = 100

/** Numbers and dates of many languages have spaces that do not break; one of them makes 160 characters 70. */
const plainSpaces = (text: string): string => text.replaceAll(/[\u00a0\u202f\u2009]/g, ' ')

/** The body of an SMS, what `fit` marks shortened, as little as possible, where that saves a segment. */
function fitting(
  { body }: CompiledContent,
  view: View,
  shorten: (text: string) => string,
): string | undefined {
  const whole = body && plainSpaces(body.render(view))
  if (!body?.fits || whole === undefined) return whole
  const segmentsOf = (text: string) => smsSize(shorten(text)).segments
  const segments = segmentsOf(whole)
  if (segments === 1) return whole
  const at = (fit: number) => plainSpaces(body.render({ ...view, fit }))
  const shortest = at(LEAST_FIT)
  const least = segmentsOf(shortest)
  if (least >= segments) return whole
  let fitted = shortest
  let low = LEAST_FIT
  let high = MOST_FIT + 1
  while (high - low > 1) {
    const middle = (low + high) >> 1
    const text = at(middle)
    if (segmentsOf(text) > least) high = middle
    else {
      low = middle
      fitted = text
    }
  }
  return fitted
}

const ABSOLUTE = /^https?:\/\//i

/** The picture, the buttons and the language; what has no usable link with this data is left out. */
function extrasOf({ image, actions }: CompiledContent, view: View, language: string): Partial<Content> {
  const extras: Partial<Content> = {}
  if (language !== 'en') extras.language = language
  const picture = image?.render(view).trim()
  if (picture && ABSOLUTE.test(picture)) extras.image = picture
  if (actions) {
    const shown: Action[] = []
    for (const { id, label, url } of actions) {
      const text = oneLine(label.render(view))
      const link = url?.render(view).trim()
      if (text === '' || (link !== undefined && !ABSOLUTE.test(link))) continue
      shown.push({ id, label: text, ...(link !== undefined && { url: link }) })
    }
    if (shown.length > 0) extras.actions = shown
  }
  return extras
}

/** Dates and numbers follow the reader's region when the text is in the reader's language, else the text's. */
function viewFor(compiled: CompiledRevision, written: string, wanted: string, view: View): View {
  const locale = language(written) === language(wanted) ? wanted : written
  const layers = givenVariables(compiled.variables, view.layers)
  judgeVariables(compiled.variables, layers, refuseVariable)
  return locale === view.locale && layers === view.layers ? view : { ...view, locale, layers }
}

const refuseVariable = (_: string, message: string): never => {
  throw new AppError('invalid_template', message)
}

/** Line breaks and other control characters in a subject would end up as header fields of their own. */
export function oneLine(text: string): string {
  // oxlint-disable-next-line no-control-regex -- control characters are what is looked for
  const line = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/.test(text)
    ? // oxlint-disable-next-line no-control-regex -- as above
      text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ')
    : text
  return line.length > MAX_SUBJECT ? line.slice(0, MAX_SUBJECT).toWellFormed().trim() : line.trim()
}

/** The text alternative of an HTML text: links keep their address, pictures and styles go. */
export const htmlToText = compileHtmlToText({
  wordwrap: false,
  selectors: [
    { selector: 'img', format: 'skip' },
    { selector: 'a', options: { hideLinkHrefIfSameAsText: true } },
    ...['h1', 'h2', 'h3', 'h4', 'h5', 'h6'].map(selector => ({ selector, options: { uppercase: false } })),
  ],
  limits: { maxInputLength: 256 * 1024, maxDepth: 100, ellipsis: '…' },
})

function parseJson(text: string, field: string): JsonObject {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new AppError('invalid_template', `${field} is not JSON: ${(cause as Error).message}`, { cause })
  }
  // Slack's list of blocks without its envelope.
  if (Array.isArray(value)) return { blocks: value as Json[] }
  if (value === null || typeof value !== 'object') {
    throw new AppError('invalid_template', `${field} must be a JSON object`)
  }
  return value as JsonObject
}

/** What Slack shows where it cannot show blocks, such as in a phone's notification: its texts, in order. */
function textOf(document: Json): string {
  const texts: string[] = []
  const walk = (value: Json, depth: number): void => {
    if (depth > MAX_DATA_DEPTH || value === null || typeof value !== 'object') return
    for (const [key, child] of Object.entries(value)) {
      if (key === 'text' && typeof child === 'string') texts.push(child)
      else walk(child, depth + 1)
    }
  }
  if (document !== null && typeof document === 'object' && !Array.isArray(document)) {
    if (typeof document.text === 'string') return document.text
  }
  walk(document, 0)
  return texts.join('\n').slice(0, 3_000).toWellFormed()
}

// ---------------------------------------------------------------------------------------------- compiling

/**
 * Cheap: contents are compiled when they are first used. Meant for revisions that passed `checkRevision`.
 *
 * @param took hears, whenever a content is compiled, how many `{{…}}` it takes in of partials
 */
export function compileRevision(revision: TemplateRevision, took?: (tags: number) => void): CompiledRevision {
  const languages = new Map(
    Object.entries(revision.translations ?? {}).map(([tag, contents]) => [
      tag.toLowerCase(),
      byChannel(contents),
    ]),
  )
  const base = revision.locale ?? 'en'
  const messages = catalogue(revision.messages ?? {}, base)
  let selectedFor: SharedMessages | undefined
  const left: Expansion = { tags: Number.MAX_SAFE_INTEGER, chars: Number.MAX_SAFE_INTEGER }
  const around = surroundings(revision, messages, left)
  const selections = new Map<string, SelectedContent>()
  const compiledContents = new Map<string, CompiledContent>()

  const find = (
    channel: Channel,
    locale: string,
    ofTenant: string | undefined,
    shared: SharedMessages | undefined,
  ): SelectedContent => {
    const ofBase = revision.channels[channel] ?? revision.channels.default
    for (const tag of [...fallbacks(locale), ...(ofTenant === undefined ? [] : fallbacks(ofTenant))]) {
      // Text in the language the revision is written in is better than a translation to a wider one.
      if (tag === base.toLowerCase() && ofBase) break
      const contents = languages.get(tag)
      const own = contents?.[channel] ?? contents?.default
      if (own)
        return { locale: tag, content: compileOnce(channel, tag, { ...inherited(ofBase), ...own }, tag) }
      // Texts made of messages are in whatever language the messages are.
      if (ofBase && (messages.tags.has(tag) || (shared && saysIn(shared, tag, channel, ofBase)))) {
        return { locale: tag, content: compileOnce(channel, `as ${tag}`, ofBase, tag) }
      }
    }
    if (!ofBase) {
      throw new AppError('invalid_template', `the template "${revision.name}" has nothing for ${channel}`)
    }
    return { locale: base, content: compileOnce(channel, '', ofBase, base) }
  }
  const saysIn = (
    shared: SharedMessages,
    tag: string,
    channel: Channel,
    content: ChannelContent,
  ): boolean => {
    const { said } = compileOnce(channel, '', content, base)
    for (const key of said) if (shared.says(tag, key)) return true
    return false
  }
  const compileOnce = (
    channel: Channel,
    name: string,
    content: ChannelContent,
    locale: string,
  ): CompiledContent => {
    const key = `${channel} ${name}`
    let compiled = compiledContents.get(key)
    if (!compiled) {
      const here = around(channel, locale)
      const { tags } = left
      compiled = compileContent(localized(content, channel, locale, here), channel, here)
      compiledContents.set(key, compiled)
      if (left.tags < tags) took?.(tags - left.tags)
    }
    return compiled
  }

  return {
    revision,
    has: channel =>
      [revision.channels, ...languages.values()].some(contents => contents[channel] ?? contents.default),
    select(channel, locale, ofTenant, shared) {
      // A revision is of one tenant, whose messages are others once somebody changed them.
      if (shared !== selectedFor) {
        selections.clear()
        selectedFor = shared
      }
      const key = ofTenant === undefined ? `${channel} ${locale}` : `${channel} ${locale} ${ofTenant}`
      let selected = selections.get(key)
      if (!selected) {
        if (selections.size >= MAX_SELECTIONS) selections.clear()
        selections.set(key, (selected = find(channel, locale, ofTenant, shared)))
      }
      return selected
    },
    variables: compileVariables(variablesWith(revision.variables ?? [], revision.layouts)),
  }
}

/** What a text can name: messages and, by field, partials. */
interface Surroundings {
  messages: Catalogue | undefined
  partials(field: LayoutField): Partials
  shared?: Expansion | undefined
  /** Takes the messages that its texts say and the template has not itself. */
  said: Set<string>
  /** Takes the fields that its texts read. */
  read: Set<string>
}

type Around = (channel: Channel, locale: string) => Surroundings

const surroundings =
  (
    { partials, layouts }: Pick<TemplateRevision, 'partials' | 'layouts'>,
    messages: Catalogue | undefined,
    shared?: Expansion,
  ): Around =>
  (channel, locale) => {
    const books = new Map<LayoutField, Partials>()
    return {
      messages,
      shared,
      said: new Set(),
      read: new Set(),
      partials(field) {
        let book = books.get(field)
        if (!book) {
          book = partialsOf({ partials, layouts, messages }, { channel, locale, field })
          books.set(field, book)
        }
        return book
      },
    }
  }

/** A mail's own HTML says which language it is in; layouts do so themselves. */
const localized = (
  content: ChannelContent,
  channel: Channel,
  locale: string,
  around: Surroundings,
): ChannelContent =>
  channel === 'email' &&
  content.html !== undefined &&
  content.layout !== 'base' &&
  (/<html[\s>]/i.test(content.html) || !isDocument(content.html, around.partials('html')))
    ? { ...content, html: inLanguage(content.html, locale) }
    : content

/** A translation says the words; structure and a subject it does not have come from the original. */
const inherited = (base: ChannelContent | undefined): ChannelContent => ({
  ...(base?.subject !== undefined && { subject: base.subject }),
  ...(base?.title !== undefined && { title: base.title }),
  ...(base?.data !== undefined && { data: base.data }),
  ...(base?.image !== undefined && { image: base.image }),
  ...(base?.actions !== undefined && { actions: base.actions }),
  ...(base?.layout !== undefined && { layout: base.layout }),
  ...(base?.links !== undefined && { links: base.links }),
})

const CONTENT_FIELDS = [
  'subject',
  'title',
  'body',
  'html',
  'mjml',
  'image',
  'layout',
  'links',
  'actions',
  'data',
]

/** Whether a translation is one content for all channels, rather than contents by channel. */
const isFlat = (contents: ChannelContents | ChannelContent): contents is ChannelContent =>
  Object.keys(contents).some(key => CONTENT_FIELDS.includes(key))

const isMixed = (contents: ChannelContents | ChannelContent): boolean =>
  isFlat(contents) && Object.keys(contents).some(key => !CONTENT_FIELDS.includes(key))

export const byChannel = (contents: ChannelContents | ChannelContent): ChannelContents =>
  isFlat(contents) ? { default: contents } : contents

const language = (locale: string): string => locale.split(/[-_]/, 1)[0]!.toLowerCase()

type Report = (field: string, error: unknown) => void

const rethrow: Report = (_, error) => {
  throw error
}

/** Compiles all fields; each error goes to `report` with the field's JSON pointer within the content. */
function compileContent(
  content: ChannelContent,
  channel: Channel,
  around: Surroundings,
  report: Report = rethrow,
): CompiledContent {
  const slack = channel === 'slack'
  const bodyIsJson = slack && isJsonDocument(content.body)
  const compile = (field: 'subject' | 'title' | 'body' | 'html', escape: Escape) => {
    const source = content[field]
    if (source === undefined) return undefined
    try {
      const taken = field === 'title' ? 'subject' : field
      const template = compileWith(source, escape, around, taken)
      if (escape === 'slack_json') parseJson(template.render(NOTHING), field)
      return template
    } catch (error) {
      report(`/${field}`, error)
      return undefined
    }
  }
  // Slack escapes text wherever it is shown, its header included.
  const textEscape = slack ? 'slack' : 'none'
  const subject = compile('subject', textEscape)
  const title = compile('title', textEscape)
  return {
    subject: subject ?? title,
    body: compile('body', bodyIsJson ? 'slack_json' : textEscape),
    html: compile('html', 'html'),
    image: compileText(content.image, '/image', around, report),
    actions: content.actions?.flatMap(({ id, label, url }, i) => {
      const compiled = compileText(label, `/actions/${i}/label`, around, report)
      return compiled
        ? [
            {
              id: id ?? `action-${i + 1}`,
              label: compiled,
              url: compileText(url, `/actions/${i}/url`, around, report),
            },
          ]
        : []
    }),
    data: content.data === undefined ? undefined : compileData(content.data, slack, around, report),
    bodyIsJson,
    layout: content.layout,
    links: content.links,
    said: around.said,
  }
}

function compileWith(
  source: string,
  escape: Escape,
  { messages, partials, shared, said, read }: Surroundings,
  field: LayoutField = 'body',
): CompiledTemplate {
  const template = compileTemplate(source, escape, messages, partials(field), shared)
  for (const key of template.said) said.add(key)
  for (const name of template.variables) read.add(name)
  return template
}

function compileText(
  source: string | undefined,
  field: string,
  around: Surroundings,
  report: Report,
): CompiledTemplate | undefined {
  if (source === undefined) return undefined
  try {
    return compileWith(source, 'none', around)
  } catch (error) {
    report(field, error)
    return undefined
  }
}

const SILENCE: Message = { args: [], plurals: [], format: () => '' }
/** Compiling tries JSON with no data at all: what is not JSON then would not be with data that lacks something. */
const NOTHING: View = {
  names: {},
  layers: [],
  locale: 'en',
  timezone: 'UTC',
  messages: { ...NO_MESSAGES, find: () => SILENCE },
}

const isJsonDocument = (body: string | undefined): boolean =>
  body !== undefined && /^\s*(\[\s*)?\{(?!\{)/.test(body)

function compileData(
  data: JsonObject | string,
  slack: boolean,
  around: Surroundings,
  report: Report,
): ((view: View) => JsonObject) | undefined {
  if (typeof data === 'string') {
    try {
      const template = compileWith(data, slack ? 'slack_json' : 'json', around)
      parseJson(template.render(NOTHING), 'data')
      return view => parseJson(template.render(view), 'data')
    } catch (error) {
      report('/data', error)
      return undefined
    }
  }
  let texts = 0
  const compile = (value: Json, pointer: string, depth: number): ((view: View) => Json) => {
    if (depth > MAX_DATA_DEPTH) {
      report(pointer, new AppError('invalid_template', `nested more than ${MAX_DATA_DEPTH} deep`))
      return () => null
    }
    if (typeof value === 'string') {
      if (++texts === MAX_DATA_TEXTS + 1) {
        report(pointer, new AppError('invalid_template', `more than ${MAX_DATA_TEXTS} texts`))
      }
      try {
        const template = compileWith(value, slack ? 'slack' : 'none', around)
        return view => template.render(view)
      } catch (error) {
        report(pointer, error)
        return () => null
      }
    }
    if (value === null || typeof value !== 'object') return () => value
    if (Array.isArray(value)) {
      const items = value.map((item, i) => compile(item, `${pointer}/${i}`, depth + 1))
      return view => items.map(item => item(view))
    }
    const members = Object.entries(value).map(
      ([key, child]) => [key, compile(child, `${pointer}/${pointerPart(key)}`, depth + 1)] as const,
    )
    // fromEntries defines members, so that one named __proto__ is only a member.
    return view => Object.fromEntries(members.map(([key, child]) => [key, child(view)]))
  }
  return compile(data, '/data', 0) as (view: View) => JsonObject
}

const pointerPart = (key: string) => key.replaceAll('~', '~0').replaceAll('/', '~1')

// --------------------------------------------------------------------------------------------- validating

/**
 * The revision as it is stored: Go-style texts in Handlebars, locale tags in canonical case.
 *
 * @throws AppError invalid_template: a Go-style text that cannot be translated, an unknown locale
 */
export function normalizeRevision<R extends Omit<TemplateRevision, 'templateId' | 'revision'>>(input: R): R {
  const problems: TemplateProblem[] = []
  const translate = (contents: ChannelContents, pointer: string): ChannelContents =>
    mapContents(contents, (content, channel) =>
      translateContent(content, (field, error) =>
        problems.push(problem(`${pointer}/${pointerPart(channel)}${field}`, error)),
      ),
    )
  const translations: Record<string, ChannelContents | ChannelContent> = {}
  for (const [tag, contents] of Object.entries(input.translations ?? {})) {
    const locale = canonicalLocale(tag)
    const pointer = `/translations/${pointerPart(tag)}`
    if (locale === undefined) problems.push({ field: pointer, message: `"${tag}" is not a BCP 47 locale` })
    else if (Object.hasOwn(translations, locale)) {
      problems.push({ field: pointer, message: `${locale} is there twice` })
    } else {
      const report: Report = (field, error) => problems.push(problem(`${pointer}${field}`, error))
      translations[locale] = isFlat(contents)
        ? translateContent(contents, report)
        : translate(contents, pointer)
    }
  }
  const locale = input.locale === undefined ? undefined : canonicalLocale(input.locale)
  if (input.locale !== undefined && locale === undefined) {
    problems.push({ field: '/locale', message: `"${input.locale}" is not a BCP 47 locale` })
  }
  const messages: Messages = {}
  for (const [tag, byKey] of Object.entries(input.messages ?? {})) {
    const canonical = canonicalLocale(tag)
    const field = `/messages/${pointerPart(tag)}`
    if (canonical === undefined) problems.push({ field, message: `"${tag}" is not a BCP 47 locale` })
    else if (Object.hasOwn(messages, canonical)) {
      problems.push({ field, message: `${canonical} is there twice` })
    } else messages[canonical] = byKey
  }
  const channels = translate(input.channels, '/channels')
  const partials: Record<string, string> = {}
  for (const [name, source] of Object.entries(input.partials ?? {})) {
    try {
      partials[name] = toHandlebars(source)
    } catch (error) {
      problems.push(problem(`/partials/${pointerPart(name)}`, error))
    }
  }
  throwProblems(problems)
  return {
    ...input,
    ...(locale !== undefined && { locale }),
    channels,
    ...(input.translations !== undefined && { translations }),
    ...(input.messages !== undefined && { messages }),
    ...(input.partials !== undefined && { partials }),
  }
}

function translateContent(content: ChannelContent, report: Report): ChannelContent {
  const translated = { ...content }
  for (const field of ['subject', 'title', 'body', 'html', 'data'] as const) {
    const source = content[field]
    if (typeof source !== 'string') continue
    try {
      translated[field] = toHandlebars(source)
    } catch (error) {
      report(`/${field}`, error)
    }
  }
  return translated
}

const mapContents = (
  contents: ChannelContents,
  map: (content: ChannelContent, channel: string) => ChannelContent,
): ChannelContents =>
  Object.fromEntries(Object.entries(contents).map(([channel, content]) => [channel, map(content, channel)]))

export function canonicalLocale(tag: string): string | undefined {
  try {
    return Intl.getCanonicalLocales(tag.replaceAll('_', '-'))[0]
  } catch {
    return undefined
  }
}

type Checked = Pick<
  TemplateRevision,
  'locale' | 'channels' | 'translations' | 'variables' | 'messages' | 'partials' | 'layouts'
>

/**
 * Everything that is wrong with a revision: compiles all channels in all languages.
 *
 * @param shared what the texts may say besides the revision's own messages
 */
export function checkRevision(revision: Checked, shared = NO_MESSAGES): TemplateProblem[] {
  const problems: TemplateProblem[] = []
  const {
    channels,
    translations = {},
    variables = [],
    messages = {},
    partials = {},
    locale = 'en',
  } = revision
  if (Object.keys(channels).length === 0)
    problems.push({ field: '/channels', message: 'no channel has content' })
  const count = JSON.stringify([channels, translations, partials]).split('{{').length - 1
  if (count > MAX_TAGS) return [{ field: '', message: `more than ${MAX_TAGS} tags in all texts together` }]
  checkMessages(messages, locale, (field, error) => problems.push(problem(field, error)))
  for (const [name, source] of Object.entries(partials)) {
    try {
      parsePartial(source)
    } catch (error) {
      problems.push(problem(`/partials/${pointerPart(name)}`, error))
    }
  }
  // With a wrong message or partial every text that names it would be wrong as well.
  if (problems.length > 0) return problems
  const around = surroundings(revision, catalogue(messages, locale, shared), { ...MAX_EXPANSION })
  checkContents(channels, '/channels', locale, around, problems)

  const tags = Object.keys(translations)
  if (tags.length > MAX_LOCALES) {
    problems.push({ field: '/translations', message: `more than ${MAX_LOCALES} locales` })
  }
  for (const tag of tags.slice(0, MAX_LOCALES)) {
    const pointer = `/translations/${pointerPart(tag)}`
    if (canonicalLocale(tag) === undefined) {
      problems.push({ field: pointer, message: `"${tag}" is not a BCP 47 locale` })
    }
    const contents = translations[tag]!
    if (isMixed(contents)) {
      problems.push({ field: pointer, message: 'is either one content or contents by channel, not both' })
    } else if (isFlat(contents)) checkContent(contents, 'default', pointer, tag, around, problems)
    else checkContents(contents, pointer, tag, around, problems)
  }

  if (variables.length > MAX_VARIABLES) {
    problems.push({ field: '/variables', message: `more than ${MAX_VARIABLES} variables` })
  }
  const names = new Set<string>()
  for (const [i, { name, type, default: otherwise }] of variables.entries()) {
    if (type !== undefined && !isOfType(otherwise, type)) {
      problems.push({ field: `/variables/${i}/default`, message: `must be ${TYPE_WORDS[type]}` })
    }
    if (names.has(name)) problems.push({ field: `/variables/${i}/name`, message: `"${name}" is there twice` })
    names.add(name)
  }
  return problems
}

/** @throws AppError invalid_template with all problems */
export function validateRevision(revision: Checked, shared?: SharedMessages): void {
  throwProblems(checkRevision(revision, shared))
}

/**
 * The fields that any of a revision's texts read, and the messages they say that it has not itself.
 *
 * @param shared where those are, to know what they read
 */
export function readBy(
  revision: Pick<
    TemplateRevision,
    'locale' | 'channels' | 'translations' | 'messages' | 'partials' | 'layouts'
  >,
  shared?: SharedMessages,
): { fields: string[]; messages: string[] } {
  const base = revision.locale ?? 'en'
  // What nobody says any more is said all the same.
  const known: SharedMessages | undefined = shared && {
    ...shared,
    find: (...asked) => shared.find(...asked) ?? SILENCE,
  }
  const around = surroundings(revision, catalogue(revision.messages ?? {}, base, known))
  const found = new Set<string>()
  const said = new Set<string>()
  const all = [[base, revision.channels] as const, ...Object.entries(revision.translations ?? {})]
  for (const [tag, contents] of all) {
    for (const [channel, content] of Object.entries(byChannel(contents))) {
      const as = channel === 'default' ? 'in_app' : (channel as Channel)
      const here = around(as, tag)
      compileContent(content, as, here, () => {})
      for (const name of here.read) found.add(name)
      for (const key of here.said) said.add(key)
    }
  }
  return { fields: [...found], messages: [...said] }
}

function checkContents(
  contents: ChannelContents,
  pointer: string,
  locale: string,
  around: Around,
  problems: TemplateProblem[],
): void {
  for (const [channel, content] of Object.entries(contents)) {
    const field = `${pointer}/${pointerPart(channel)}`
    if (channel !== 'default' && !CHANNELS.includes(channel as Channel)) {
      problems.push({ field, message: `"${channel}" is not a channel` })
    } else checkContent(content, channel as Channel | 'default', field, locale, around, problems)
  }
}

function checkContent(
  content: ChannelContent,
  channel: Channel | 'default',
  pointer: string,
  locale: string,
  around: Around,
  problems: TemplateProblem[],
): void {
  if (content.body === undefined && content.html === undefined && content.data === undefined) {
    problems.push({ field: pointer, message: 'there is neither body nor html nor data' })
  }
  const seen = new Set<string>()
  // Content for all channels is also what Slack gets, with its own escaping and its own idea of JSON.
  for (const as of channel === 'default' ? (['email', 'slack'] as const) : [channel]) {
    compileContent(content, as, around(as, locale), (field, error) => {
      const found = problem(`${pointer}${field}`, error)
      const key = JSON.stringify(found)
      if (!seen.has(key)) problems.push(found)
      seen.add(key)
    })
  }
}

function problem(field: string, error: unknown): TemplateProblem {
  if (!(error instanceof AppError)) throw error
  const { line, column } = (error.extra ?? {}) as { line?: number; column?: number }
  return { field, message: error.message, ...(line !== undefined && { line, column: column! }) }
}

function throwProblems(problems: TemplateProblem[]): void {
  const [first] = problems
  if (!first) return
  const more = problems.length > 1 ? ` (and ${problems.length - 1} more)` : ''
  throw new AppError('invalid_template', `${first.field}: ${first.message}${more}`, {
    errors: problems.slice(0, 50),
    ...(first.line !== undefined && { extra: { line: first.line, column: first.column! } }),
  })
}
