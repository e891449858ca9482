import { AppError } from '../errors.ts'
import type { Channel, Id } from '../types.ts'
import { baseLayout, inLanguage } from './base-layout.ts'
import { type Catalogue, type Messages, catalogue, fallbacks } from './messages.ts'
import type { Partial, Partials } from './template.ts'
import type { TemplateVariable } from './variables.ts'

/**
 * Texts that others take in by name: `{{> name}}`, or `{{#> name}}…{{/name}}` around a text of one's own.
 *
 * A name is, in this order: a partial of the same revision; another template of the tenant; `base`, the layout that is
 * always there. Another template's texts are copied when a revision is saved, with whatever those take in, so that a
 * revision says for ever what it said then, and compiling it asks nobody.
 */

/** Another template at one of its revisions, as a revision that takes it in keeps it. */
export interface Layout {
  templateId: Id
  revision: number
  /** BCP 47 tag of what it was written in. */
  locale: string
  /** By locale, then by channel. */
  texts: Record<string, Record<string, LayoutText>>
  partials: Record<string, string>
  layouts: Layouts
  messages: Messages
  variables: TemplateVariable[]
}

export type Layouts = Record<string, Layout>

interface LayoutText {
  subject?: string
  body?: string
  html?: string
}

/** Which of a layout's texts a field takes. */
export type LayoutField = keyof LayoutText

/** Always there. */
export const BASE = 'base'

/** A name that can stand in `{{> name}}` without quotes. */
export const PARTIAL_NAME = '^[A-Za-z_][A-Za-z0-9_-]{0,99}$'
export const MAX_OWN_PARTIALS = 50
/** Other templates that one names. */
const MAX_LAYOUTS = 20
/** Characters of what one revision copies from others. */
export const MAX_COPIED = 1024 * 1024

/** Where names are looked up. */
interface Book {
  partials?: Record<string, string> | undefined
  layouts?: Layouts | undefined
  messages: Catalogue | undefined
}

/** Where a text stands. */
interface Place {
  channel: Channel
  /** What it is written in. */
  locale: string
  field: LayoutField
}

/** What the names within a text mean. The same name always gives the same object. */
export function partialsOf(book: Book, place: Place): Partials {
  const found = new Map<string, Partial | string>()
  const partials: Partials = name => {
    let partial = found.get(name)
    if (partial === undefined) found.set(name, (partial = find(name)))
    return partial
  }
  const find = (name: string): Partial | string => {
    const own = memberOf(book.partials, name)
    if (own !== undefined) return { source: own, partials, messages: book.messages }
    const layout = memberOf(book.layouts, name)
    if (layout) return fromLayout(name, layout, place)
    if (name === BASE) return fromBase(place)
    return `there is no partial "${name}", and no published template of that name`
  }
  return partials
}

const memberOf = <T>(of: Record<string, T> | undefined, name: string): T | undefined =>
  of && Object.hasOwn(of, name) ? of[name] : undefined

const NONE: Partials = name => `there is no partial "${name}"`

const catalogues = new WeakMap<Layout, Catalogue>()

function fromLayout(name: string, layout: Layout, place: Place): Partial | string {
  const text = textOf(layout, place)
  if (text === undefined) return `the template "${name}" has no ${place.field} for ${place.channel}`
  let messages = catalogues.get(layout)
  if (!messages) catalogues.set(layout, (messages = catalogue(layout.messages, layout.locale)))
  return {
    source: place.field === 'html' && place.channel === 'email' ? inLanguage(text, place.locale) : text,
    partials: partialsOf({ partials: layout.partials, layouts: layout.layouts, messages }, place),
    messages,
  }
}

/** In the language of the text around it or a wider one, else in the layout's own. */
function textOf({ texts, locale }: Layout, { channel, locale: wanted, field }: Place): string | undefined {
  const byTag = new Map(Object.entries(texts).map(([tag, contents]) => [tag.toLowerCase(), contents]))
  for (const tag of [...fallbacks(wanted), locale.toLowerCase()]) {
    const contents = byTag.get(tag)
    const text = contents?.[channel]?.[field] ?? contents?.['default']?.[field]
    if (text !== undefined) return text
  }
  return undefined
}

function fromBase({ field, locale }: Place): Partial | string {
  if (field !== 'html') return `"${BASE}" is a layout of HTML`
  const source = baseLayout({
    subject: '{{@subject}}',
    inner: '{{> @partial-block}}',
    language: locale,
  })
  return { source, partials: NONE, messages: undefined }
}

// A path, or in brackets or quotes whatever a template may be called.
const CALL = /\{\{~?#?>\s*(?:\[([^\]]{1,255})\]|"([^"]{1,255})"|'([^']{1,255})'|([^\s~}|()@]{1,255}))/g

/** Names that texts, in any shape, may take in; one that stands in a comment counts as well. */
export function calledIn(...texts: unknown[]): Set<string> {
  const names = new Set<string>()
  const walk = (value: unknown): void => {
    if (typeof value === 'string') {
      if (!value.includes('>')) return
      for (const [, bracketed, double, single, plain] of value.matchAll(CALL)) {
        names.add((bracketed ?? double ?? single ?? plain)!)
      }
    } else if (typeof value === 'object' && value !== null)
      for (const child of Object.values(value)) walk(child)
  }
  for (const text of texts) walk(text)
  return names
}

interface Taking {
  name: string
  channels: object
  translations?: object | undefined
  partials?: Record<string, string> | undefined
}

/**
 * Names of other templates that a revision takes in, `base` perhaps among them.
 *
 * @throws AppError invalid_template when it names more than it may: a text could name thousands, to be read one and all
 */
export function layoutNames({ name, channels, translations, partials = {} }: Taking): string[] {
  const names = [...calledIn(channels, translations, partials)].filter(
    called => called !== name && !Object.hasOwn(partials, called),
  )
  if (names.length > MAX_LAYOUTS) {
    const message = `it takes in more than ${MAX_LAYOUTS} other templates`
    throw new AppError('invalid_template', message, { field: '/channels' })
  }
  return names
}

/** In an order in which each can be saved: what others take in comes first. A circle is left to be refused then. */
export function takenInFirst<T extends { name: string }>(
  templates: readonly T[],
  namedBy: (template: T) => Iterable<string>,
): T[] {
  const byName = new Map(templates.map(template => [template.name, template]))
  const begun = new Set<T>()
  const ordered: T[] = []
  const put = (template: T): void => {
    if (begun.has(template)) return
    begun.add(template)
    for (const name of namedBy(template)) {
      const layout = byName.get(name)
      if (layout) put(layout)
    }
    ordered.push(template)
  }
  for (const template of templates) put(template)
  return ordered
}

/** Whether what an HTML text comes to is a whole document. */
export function isDocument(html: string, partials: Partials): boolean {
  // Each partial is looked at once: what stands in comments counts as named, and may go round in circles.
  const seen = new Set<Partial>()
  const look = (source: string, within: Partials): boolean => {
    if (/<html[\s>]/i.test(source)) return true
    for (const name of calledIn(source)) {
      const partial = within(name)
      if (typeof partial === 'string' || seen.has(partial)) continue
      seen.add(partial)
      if (look(partial.source, partial.partials)) return true
    }
    return false
  }
  return look(html, partials)
}

/** Variables with those of its layouts that it does not declare itself. */
export function variablesWith(
  variables: readonly TemplateVariable[],
  layouts: Layouts | undefined,
): TemplateVariable[] {
  const all = new Map(variables.map(variable => [variable.name, variable]))
  for (const layout of Object.values(layouts ?? {})) {
    for (const variable of variablesWith(layout.variables, layout.layouts)) {
      if (!all.has(variable.name)) all.set(variable.name, variable)
    }
  }
  return [...all.values()]
}

/** Whether a layout is that template, or takes it in. */
export const takesIn = (layout: Layout, templateId: Id): boolean =>
  layout.templateId === templateId || Object.values(layout.layouts).some(inner => takesIn(inner, templateId))
