import { type Formats, type Formatters, IntlMessageFormat, formatToParts } from 'intl-messageformat'
import { LRUCache } from 'lru-cache'
import { AppError } from '../errors.ts'
import { toText } from './escape.ts'
import { type Reader, isNumeric, toInstant, truncate } from './helpers.ts'

/**
 * Messages in the notation of ICU MessageFormat (https://unicode-org.github.io/icu/userguide/format_parse/messages/):
 * `{name}`, `{n, number, ::currency/EUR}`, `{at, date, long}`, `plural`, `selectordinal` and `select`.
 *
 * The parser and the walk over its tree are formatjs'; nothing becomes code. Numbers and times are written as the
 * reader writes them, in the reader's zone. `<` is text: what a message says is escaped as any other value is.
 */
export interface Message {
  /** What it reads. */
  args: readonly string[]
  /** By argument, the plural categories it has words for; only of plurals. */
  plurals: readonly { arg: string; ordinal: boolean; categories: readonly string[] }[]
  format(value: (arg: string) => unknown, reader: Reader): string
}

/** By BCP 47 tag, then by key. */
export type Messages = Record<string, Record<string, string>>

/** Longest source of one message, in UTF-16 units. */
export const MAX_MESSAGE = 5_000
/** Keys of one language. */
export const MAX_KEYS = 2_000
/** Messages of a template in all languages; checking so many takes about 200 ms. */
const MAX_MESSAGES = 10_000
const MAX_ARGUMENTS = 100
const MAX_NESTING = 16
/** Of one argument: with 100 of them a message is still no longer than a field may be. */
const MAX_VALUE = 10_000

type Elements = ReturnType<IntlMessageFormat['getAst']>
type Element = Elements[number]

// The types of the tree's elements, as its parser numbers them.
const ARGUMENT = 1
const NUMBER = 2
const DATE = 3
const TIME = 4
const SELECT = 5
const PLURAL = 6

const STYLES: Formats = IntlMessageFormat.formats

/**
 * @param tag of the language it is written in, whose plurals it has words for; '' is whatever the reader's is
 * @throws AppError invalid_template with `extra: {line, column}` within the message
 */
export function compileMessage(source: string, tag: string): Message {
  const elements = parse(source)
  const kinds = new Map<string, Set<number>>()
  const plurals: { arg: string; ordinal: boolean; categories: string[] }[] = []
  collect(elements, kinds, plurals)
  if (kinds.size > MAX_ARGUMENTS) refuse(`a message reads ${MAX_ARGUMENTS} arguments at most`)
  const args = [...kinds.keys()]
  const readers = args.map(arg => reading(kinds.get(arg)!))
  return {
    args,
    plurals,
    format(value, { locale, timezone }) {
      const values: Record<string, unknown> = Object.create(null)
      for (const [i, arg] of args.entries()) values[arg] = readers[i]!(value(arg))
      const writes = tag === '' || sameLanguage(locale, tag) ? locale : tag
      let out = ''
      const parts = formatToParts(elements, usable(writes), formattersOf(timezone), STYLES, values as never)
      for (const part of parts) {
        out += part.value instanceof Date ? part.value.toISOString() : String(part.value)
      }
      return out
    },
  }
}

function parse(source: string): Elements {
  let depth = 0
  for (const character of source) {
    if (character === '{' && ++depth > MAX_NESTING * 2) refuse('the message is nested too deeply')
    if (character === '}') depth--
  }
  if (source.split('{').length - 1 > MAX_ARGUMENTS * 10) refuse('the message has too many parts')
  try {
    // In the language of the text only plural categories would be checked; those are warnings here.
    return new IntlMessageFormat(source, 'en', undefined, { ignoreTag: true }).getAst()
  } catch (error) {
    const { message, location } = error as Error & {
      location?: { start: { line: number; column: number } }
    }
    const what = `the message cannot be read: ${message.split('\n')[0]!.toLowerCase().replaceAll('_', ' ')}`
    if (!location) return refuse(what)
    const { line, column } = location.start
    throw new AppError('invalid_template', what, { extra: { line, column } })
  }
}

function refuse(message: string): never {
  throw new AppError('invalid_template', message)
}

function collect(
  elements: Elements,
  kinds: Map<string, Set<number>>,
  plurals: { arg: string; ordinal: boolean; categories: string[] }[],
): void {
  for (const element of elements) {
    if (!isRead(element)) continue
    const arg = element.value
    const kind = kinds.get(arg) ?? new Set()
    kinds.set(arg, kind.add(element.type))
    if (element.type === NUMBER || element.type === DATE || element.type === TIME) checkStyle(element)
    if (element.type !== SELECT && element.type !== PLURAL) continue
    const { options } = element
    if (element.type === PLURAL) {
      const categories = Object.keys(options).filter(option => !option.startsWith('='))
      plurals.push({ arg, ordinal: element.pluralType === 'ordinal', categories })
    }
    for (const option of Object.values(options)) collect(option.value, kinds, plurals)
  }
}

const isRead = (element: Element): element is Extract<Element, { value: string }> =>
  element.type >= ARGUMENT && element.type <= PLURAL

/** What Intl would refuse when somebody is to be told is refused when it is saved. */
function checkStyle(element: Element): void {
  const { style, value } = element as { style?: unknown; value: string }
  const known = element.type === NUMBER ? STYLES.number : element.type === DATE ? STYLES.date : STYLES.time
  if (typeof style === 'string') {
    if (Object.hasOwn(known, style) && style !== 'currency') return
    refuse(
      style === 'currency'
        ? `{${value}}: name the currency, as in {${value}, number, ::currency/EUR}`
        : `{${value}}: there is no style "${style}"; there are ${Object.keys(known).join(', ')}`,
    )
  }
  const options = (style as { parsedOptions?: object } | null | undefined)?.parsedOptions
  try {
    if (element.type === NUMBER) void new Intl.NumberFormat('en', options)
    else void new Intl.DateTimeFormat('en', options)
  } catch (error) {
    refuse(`{${value}}: ${(error as Error).message}`)
  }
}

/** How a value is made ready for what a message does with it. */
function reading(kinds: Set<number>): (value: unknown) => unknown {
  if (kinds.has(DATE) || kinds.has(TIME)) return value => toInstant(value) ?? short(value)
  if (kinds.has(NUMBER) || kinds.has(PLURAL)) {
    const plural = kinds.has(PLURAL)
    return value => {
      // A number in a text keeps its digits where it is only written.
      if (isNumeric(value)) return plural ? Number(value) : value
      const text = short(value)
      // Nothing would count as zero.
      return text === '' && plural ? Number.NaN : text
    }
  }
  return short
}

const short = (value: unknown): string => truncate(toText(value), MAX_VALUE)

const sameLanguage = (a: string, b: string): boolean => languageOf(a) === languageOf(b)
const languageOf = (tag: string): string => tag.split(/[-_]/, 1)[0]!.toLowerCase()

const known = new LRUCache<string, string>({ max: 1_000 })

/** The tag, or English where Intl cannot read it. */
function usable(tag: string): string {
  let found = known.get(tag)
  if (found === undefined) {
    try {
      found = Intl.getCanonicalLocales(tag)[0] ?? 'en'
    } catch {
      found = 'en'
    }
    known.set(tag, found)
  }
  return found
}

// Making an Intl object costs about 30 µs; zones and languages come from users, so there is a bound.
const formats = new LRUCache<string, object>({ max: 500 })
const byZone = new LRUCache<string, Formatters>({ max: 100 })

function cached<T extends object>(key: string, make: () => T): T {
  let found = formats.get(key) as T | undefined
  if (!found) formats.set(key, (found = make()))
  return found
}

/** What formatjs asks for formats: those of a zone, that write what they cannot read as it is. */
function formattersOf(timeZone: string): Formatters {
  let found = byZone.get(timeZone)
  if (found) return found
  found = {
    getNumberFormat(locale: string, options?: Intl.NumberFormatOptions) {
      const format = cached(
        `n|${locale}|${JSON.stringify(options)}`,
        () => new Intl.NumberFormat(locale, options),
      )
      return {
        format: (value: unknown) => (isNumeric(value) ? format.format(value as number) : readable(value)),
      }
    },
    getDateTimeFormat(locale: string, options?: Intl.DateTimeFormatOptions) {
      const format = cached(`d|${locale}|${timeZone}|${JSON.stringify(options)}`, () =>
        inZone(locale, { ...options, timeZone }),
      )
      return { format: (value: unknown) => (value instanceof Date ? format.format(value) : readable(value)) }
    },
    getPluralRules: (locale: string, options?: Intl.PluralRulesOptions) =>
      cached(`p|${locale}|${options?.type ?? ''}`, () => new Intl.PluralRules(locale, options)),
  } as unknown as Formatters
  byZone.set(timeZone, found)
  return found
}

/** Nothing for what is missing, never "NaN". */
const readable = (value: unknown): string =>
  typeof value === 'number' && Number.isNaN(value) ? '' : toText(value)

function inZone(locale: string, options: Intl.DateTimeFormatOptions): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat(locale, options)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
    return new Intl.DateTimeFormat(locale, { ...options, timeZone: 'UTC' })
  }
}

// ---------------------------------------------------------------------------------------------- catalogues

/** The messages of a template. */
export interface Catalogue {
  /** The language of the template. */
  base: string
  /** Its languages, in lower case. */
  tags: ReadonlySet<string>
  /** Whether the language of the template has it: then everybody can be told something. */
  has(key: string): boolean
  /** In the reader's language, else a wider one, else the template's. Compiled at its first use. */
  find(key: string, locale: string): Message
  /** What others say: a name that is not there either is refused. Absent: it may be there when the text is written. */
  elsewhere?: SharedMessages
}

/**
 * @param base the language of the template
 * @param elsewhere the tenant's, where what is said nowhere is to be refused
 */
export function catalogue(messages: Messages, base: string, elsewhere?: SharedMessages): Catalogue {
  const languages = new Map(
    Object.entries(messages).map(([tag, byKey]) => [tag.toLowerCase(), { tag, byKey }] as const),
  )
  const own = messages[base] ?? languages.get(base.toLowerCase())?.byKey ?? {}
  const compiled = new Map<string, Message>()
  const at = (tag: string, key: string, source: string): Message => {
    const name = `${tag} ${key}`
    let message = compiled.get(name)
    if (!message) compiled.set(name, (message = compileMessage(source, tag)))
    return message
  }
  return {
    base,
    ...(elsewhere && { elsewhere }),
    tags: new Set(languages.keys()),
    has: key => Object.hasOwn(own, key),
    find(key, locale) {
      for (const wanted of fallbacks(locale)) {
        const language = languages.get(wanted)
        if (language && Object.hasOwn(language.byKey, key)) return at(language.tag, key, language.byKey[key]!)
        if (wanted === base.toLowerCase()) break
      }
      return at(base, key, own[key] ?? '')
    },
  }
}

/** Messages that all templates of a tenant may say, by a name that they have no message for themselves. */
export interface SharedMessages {
  /** As they are written, by BCP 47 tag and key. */
  sources: Messages
  /** Whether a language, its tag in lower case, has the key itself. */
  says(tag: string, key: string): boolean
  /**
   * In the first of these languages that has it, wider ones of each included; at last in whichever has it, English first.
   * Compiled at its first use.
   */
  find(key: string, ...locales: (string | undefined)[]): Message | undefined
  /** The language that `find` takes it from, and the message as it is written. */
  inWhich(key: string, ...locales: (string | undefined)[]): [tag: string, source: string] | undefined
}

export function sharedMessages(sources: Messages): SharedMessages {
  const languages = new Map(
    Object.entries(sources).map(([tag, byKey]) => [tag.toLowerCase(), { tag, byKey }] as const),
  )
  const lastly = [...languages.keys()].sort(
    (a, b) => Number(b === 'en') - Number(a === 'en') || (a < b ? -1 : 1),
  )
  const compiled = new Map<string, Message>()
  const says = (tag: string, key: string) => Object.hasOwn(languages.get(tag)?.byKey ?? {}, key)
  const inWhich = (key: string, ...locales: (string | undefined)[]): [string, string] | undefined => {
    let found: string | undefined
    for (const locale of locales) {
      if (locale === undefined || found !== undefined) continue
      found = fallbacks(locale).find(tag => says(tag, key))
    }
    found ??= lastly.find(tag => says(tag, key))
    if (found === undefined) return undefined
    const { tag, byKey } = languages.get(found)!
    return [tag, byKey[key]!]
  }
  return {
    sources,
    says,
    inWhich,
    find(key, ...locales) {
      const found = inWhich(key, ...locales)
      if (!found) return undefined
      const [tag, source] = found
      const name = `${tag} ${key}`
      let message = compiled.get(name)
      if (!message) compiled.set(name, (message = compileMessage(source, tag)))
      return message
    },
  }
}

export const NO_MESSAGES: SharedMessages = sharedMessages({})

/** `zh-Hant-TW`, `zh-Hant`, `zh`: the lookup of RFC 4647 §3.4. */
export function fallbacks(locale: string): string[] {
  const subtags = locale.replaceAll('_', '-').toLowerCase().split('-').slice(0, 8)
  return subtags.map((_, i) => subtags.slice(0, subtags.length - i).join('-'))
}

/** Each mistake in a template's messages goes to `report` with its JSON pointer. */
export function checkMessages(
  messages: Messages,
  base: string,
  report: (pointer: string, error: AppError) => void,
): void {
  const own = Object.entries(messages).find(([tag]) => tag.toLowerCase() === base.toLowerCase())?.[1] ?? {}
  let count = 0
  for (const [tag, byKey] of Object.entries(messages)) {
    for (const [key, source] of Object.entries(byKey)) {
      const pointer = `/messages/${tag}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`
      if (++count > MAX_MESSAGES) {
        report('/messages', new AppError('invalid_template', `more than ${MAX_MESSAGES} messages`))
        return
      }
      if (!Object.hasOwn(own, key)) {
        report(
          pointer,
          new AppError(
            'invalid_template',
            `there is no message "${key}" in ${base}, which the others fall back to`,
          ),
        )
      }
      try {
        compileMessage(source, tag)
      } catch (error) {
        if (!(error instanceof AppError)) throw error
        report(pointer, error)
      }
    }
  }
}

/** What is worth knowing about messages that are otherwise fine. */
export function* messageWarnings(
  messages: Messages,
  base: string,
): Iterable<{ field: string; message: string }> {
  const own = Object.entries(messages).find(([tag]) => tag.toLowerCase() === base.toLowerCase())?.[1] ?? {}
  for (const [tag, byKey] of Object.entries(messages)) {
    const field = `/messages/${tag}`
    const missing = Object.keys(own).filter(key => !Object.hasOwn(byKey, key))
    if (missing.length > 0) {
      yield { field, message: `No message for ${listed(missing)}: said in ${base}` }
    }
    for (const [key, source] of Object.entries(byKey)) {
      const { args, plurals } = compileMessage(source, tag)
      if (byKey !== own && Object.hasOwn(own, key)) {
        const known = compileMessage(own[key]!, base).args
        const unknown = args.filter(arg => !known.includes(arg))
        if (unknown.length > 0) {
          yield {
            field: `${field}/${key}`,
            message: `Reads ${listed(unknown)}, which the one in ${base} does not`,
          }
        }
      }
      for (const { arg, ordinal, categories } of plurals) {
        const type = ordinal ? 'ordinal' : 'cardinal'
        const needed = new Intl.PluralRules(usable(tag), { type }).resolvedOptions().pluralCategories
        // `many` of the Romance languages is for round millions, where `other` does.
        const lacking = needed
          .filter(one => one !== 'many' || needed.length > 3)
          .filter(one => !categories.includes(one))
        if (lacking.length > 0) {
          yield {
            field: `${field}/${key}`,
            message: `{${arg}} has no words for ${lacking.join(', ')} in ${tag}`,
          }
        }
      }
    }
  }
}

/** The same of messages that a template says and the tenant keeps: languages that have some and not others. */
export function* sharedWarnings(
  saying: readonly string[],
  own: Messages,
  base: string,
  shared: SharedMessages,
): Iterable<{ field: string; message: string }> {
  const lost = saying.filter(key => shared.inWhich(key) === undefined)
  if (lost.length > 0) {
    yield { field: '/messages', message: `No language has ${listed(lost)}: what says it is not sent` }
  }
  const said = saying.filter(key => !lost.includes(key))
  if (said.length === 0) return
  const ofTemplate = new Set(Object.values(own).flatMap(Object.keys))
  const tags = new Set([base, ...Object.keys(own)])
  for (const tag of Object.keys(shared.sources)) {
    if (said.some(key => shared.says(tag.toLowerCase(), key))) tags.add(tag)
  }
  const ownTags = new Set(Object.keys(own).map(tag => tag.toLowerCase()))
  for (const tag of tags) {
    const wider = fallbacks(tag)
    const missing = said.filter(key => !wider.some(one => shared.says(one, key)))
    // Of its own messages each language of its own is spoken of already.
    if (!ownTags.has(tag.toLowerCase()) && tag !== base) {
      missing.push(...[...ofTemplate].filter(key => !wider.some(one => ownHas(own, one, key))))
    }
    if (missing.length > 0) {
      const otherwise = tag === base ? 'said in another language' : `said in ${base}, or in what there is`
      yield { field: `/messages/${tag}`, message: `No message for ${listed(missing)}: ${otherwise}` }
    }
  }
}

const ownHas = (own: Messages, tag: string, key: string): boolean =>
  Object.entries(own).some(([one, byKey]) => one.toLowerCase() === tag && Object.hasOwn(byKey, key))

const listed = (names: readonly string[]): string =>
  names.length > 10 ? `${names.slice(0, 10).join(', ')} and ${names.length - 10} more` : names.join(', ')
