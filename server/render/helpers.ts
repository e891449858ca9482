import { LRUCache } from 'lru-cache'
import { toText } from './escape.ts'
import type { SharedMessages } from './messages.ts'

/** What helpers know about the reader. */
export interface Reader {
  /** BCP 47. */
  locale: string
  /** What the tenant writes in where the reader's language is missing, BCP 47. */
  tenantLocale?: string
  /** IANA name. */
  timezone: string
  /** Addresses of the tenant's assets, by name. */
  assets?: Readonly<Record<string, string>>
  /** Messages of the tenant's, for those that a template has not itself. */
  messages?: SharedMessages
  /** Most characters of what may be shortened, `{{fit name}}`, where the whole would be too long. */
  fit?: number
}

export interface Helper {
  /** Fewest and most positional arguments. */
  args: [number, number]
  run?(args: unknown[], reader: Reader): unknown
  /** Names of the arguments that are given as name=value. */
  options?: string[]
  /** Instead of `run`, with options: once for a call whose options are literals, else at each call. */
  prepare?(options: Record<string, unknown>): (args: unknown[], reader: Reader) => unknown
  /** What is wrong with the literal arguments; only known ones are given. Said when the template is saved. */
  check?(args: unknown[], options: Record<string, unknown>): string | undefined
}

/** Handlebars' idea of true: as in JavaScript, but an empty list is false. */
export const truthy = (value: unknown): boolean =>
  Boolean(value) && !(Array.isArray(value) && value.length === 0)

const same = (a: unknown, b: unknown) => (a ?? null) === (b ?? null)

const NUMERIC = /^[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?$/
export const isNumeric = (value: unknown): value is number | string =>
  typeof value === 'number' ? Number.isFinite(value) : typeof value === 'string' && NUMERIC.test(value)

/** Negative, 0 or positive; NaN for things that have no order. Numbers in strings count as numbers. */
function order(a: unknown, b: unknown): number {
  if (isNumeric(a) && isNumeric(b)) return Number(a) - Number(b)
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : a > b ? 1 : 0
  return Number.NaN
}

type Format = Intl.DateTimeFormat | Intl.NumberFormat | Intl.PluralRules
// Making an Intl object costs about 30 µs, using one 0.5 µs. Locales, zones and styles come from users and
// templates, so the number of combinations has a bound.
const formats = new LRUCache<string, Format>({ max: 500 })
/** Readers of one call in a template have few languages and zones. */
const MAX_NEAR = 100

/** The formats of one call, by what is the reader's; behind it those of all calls, which cost a long key each. */
function formatsOf<F extends Format>(kind: string, make: (locale: string, timeZone: string) => F) {
  const near = new Map<string, F>()
  return (locale: string, timeZone = ''): F => {
    const reader = timeZone === '' ? locale : `${locale}|${timeZone}`
    let found = near.get(reader)
    if (found) return found
    const key = `${kind}|${reader}`
    found = formats.get(key) as F | undefined
    if (!found) formats.set(key, (found = make(locale, timeZone)))
    if (near.size >= MAX_NEAR) near.clear()
    near.set(reader, found)
    return found
  }
}

/** An event has the same numbers and times for all its readers; so many texts of each format are kept. */
const MAX_WRITTEN = 64
const written = new WeakMap<Format, Map<number | string, string>>()

/** What `format` makes of a number, of one written as text, or of an instant. */
function write(format: Intl.NumberFormat | Intl.DateTimeFormat, value: number | string): string {
  let texts = written.get(format)
  if (!texts) written.set(format, (texts = new Map()))
  let text = texts.get(value)
  if (text === undefined) {
    text = format.format(value as number)
    if (texts.size >= MAX_WRITTEN) texts.clear()
    texts.set(value, text)
  }
  return text
}

/** `make` with what was asked for or, when Intl refuses that, with what always works. */
function forgiving<T>(make: () => T, otherwise: () => T): T {
  try {
    return make()
  } catch (error) {
    if (error instanceof RangeError) return otherwise()
    throw error
  }
}

const text = (value: unknown, otherwise: string) =>
  typeof value === 'string' && value !== '' ? value : otherwise

const ISO =
  /^(\d{4}-\d{2}-\d{2})(?:[T ](\d{2}:\d{2}(?::\d{2}(?:\.\d{1,9})?)?)\s?(Z|z|[+-]\d{2}(?::?\d{2})?)?)?$/

/**
 * The instant a value names: an ISO 8601 text (UTC when it states no offset, whatever zone the server is
 * in), or a number of seconds or milliseconds since 1970, told apart at 10^11 (the year 5138 or 1973).
 */
export function toInstant(value: unknown): Date | undefined {
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? undefined : value
  let ms = Number.NaN
  if (typeof value === 'number') ms = Math.abs(value) < 1e11 ? value * 1000 : value
  else if (typeof value === 'string') {
    const match = ISO.exec(value.trim())
    if (match) {
      const [, day, time = '00:00', offset = 'Z'] = match
      const zone = /^[+-]/.test(offset)
        ? `${offset.slice(0, 3)}:${offset.slice(3).replace(':', '') || '00'}`
        : 'Z'
      ms = Date.parse(`${day}T${time}${zone}`)
    }
  }
  const date = new Date(ms)
  return Number.isNaN(date.getTime()) ? undefined : date
}

const DATE_FORMATS = ['date', 'time', 'datetime', 'iso']
const DATE_STYLES = ['short', 'medium', 'long', 'full'] as const
type DateStyle = (typeof DATE_STYLES)[number]

function prepareDate(options: Record<string, unknown>) {
  const style = DATE_STYLES.includes(options.style as DateStyle) ? (options.style as DateStyle) : 'medium'
  const of = (kind: string) =>
    formatsOf(`d|${kind}|${style}`, (locale, timeZone) => {
      const parts: Intl.DateTimeFormatOptions = {
        ...(kind !== 'time' && { dateStyle: style }),
        ...(kind !== 'date' && { timeStyle: style === 'medium' ? 'short' : style }),
      }
      return forgiving(
        () => new Intl.DateTimeFormat(locale, { ...parts, timeZone }),
        () => new Intl.DateTimeFormat('en', { ...parts, timeZone: 'UTC' }),
      )
    })
  const known: Record<string, ReturnType<typeof of>> = {}
  return (args: unknown[], reader: Reader): string => {
    const instant = toInstant(args[0])
    if (!instant) return toText(args[0])
    const wanted = text(args[1] ?? options.format, 'datetime')
    if (wanted === 'iso') return instant.toISOString()
    const kind = wanted === 'date' || wanted === 'time' ? wanted : 'datetime'
    const format = (known[kind] ??= of(kind))
    return write(
      format(text(options.locale, reader.locale), text(options.timezone, reader.timezone)),
      instant.getTime(),
    )
  }
}

const NUMBER_STYLES = ['decimal', 'percent', 'compact']

function numberOptions(options: Record<string, unknown>): Intl.NumberFormatOptions {
  const decimals = Number(options.decimals)
  const fixed = Number.isInteger(decimals) && decimals >= 0 && decimals <= 20
  const currency = typeof options.currency === 'string' ? options.currency : undefined
  return {
    ...(currency
      ? { style: 'currency', currency }
      : options.style === 'percent'
        ? { style: 'percent' }
        : options.style === 'compact'
          ? { notation: 'compact' }
          : {}),
    ...(fixed && { minimumFractionDigits: decimals, maximumFractionDigits: decimals }),
  }
}

function prepareNumber(options: Record<string, unknown>) {
  const wanted = numberOptions(options)
  const format = formatsOf(`n|${JSON.stringify(wanted)}`, locale =>
    forgiving(
      () => new Intl.NumberFormat(locale, wanted),
      () => new Intl.NumberFormat('en'),
    ),
  )
  return ([value]: unknown[], reader: Reader): string =>
    // As text it keeps every digit: amounts are often sent as strings because they do not fit a double.
    isNumeric(value) ? write(format(text(options.locale, reader.locale)), value) : toText(value)
}

const PLURALS = ['zero', 'one', 'two', 'few', 'many', 'other']

function preparePlural(options: Record<string, unknown>) {
  const rules = formatsOf('p', locale =>
    forgiving(
      () => new Intl.PluralRules(locale),
      () => new Intl.PluralRules('en'),
    ),
  )
  return ([count, one, other]: unknown[], { locale }: Reader): unknown => {
    const category = rules(locale).select(Math.abs(Number(count)))
    return options[category] ?? (category === 'one' ? one : undefined) ?? options.other ?? other ?? one
  }
}

// Characters as people see them: a cut never splits an emoji or a letter from its accent.
const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** At most `max` UTF-16 units, the suffix included. */
export function truncate(value: string, max: number, suffix = '…'): string {
  if (value.length <= max) return value
  const room = Math.max(0, max - suffix.length)
  let end = 0
  // One grapheme can be any length, so only a window is looked at.
  for (const { index, segment } of graphemes.segment(value.slice(0, room + 64))) {
    if (index + segment.length > room) break
    end = index + segment.length
  }
  return value.slice(0, end) + suffix.slice(0, max)
}

const oneOf = (name: string, value: unknown, allowed: readonly string[]) =>
  value === undefined || allowed.includes(value as string)
    ? undefined
    : `${name} must be one of ${allowed.join(', ')}`

function intlProblem(options: Record<string, unknown>): string | undefined {
  for (const [name, test] of [
    ['timezone', (timeZone: string) => new Intl.DateTimeFormat('en', { timeZone })],
    ['locale', (locale: string) => new Intl.NumberFormat(locale)],
    ['currency', (currency: string) => new Intl.NumberFormat('en', { style: 'currency', currency })],
  ] as const) {
    const value = options[name]
    if (value === undefined) continue
    if (
      typeof value !== 'string' ||
      !forgiving(
        () => Boolean(test(value)),
        () => false,
      )
    ) {
      return `${name} "${toText(value)}" is not known`
    }
  }
  return undefined
}

const wholeNumber = (name: string, value: unknown, max: number) =>
  value === undefined || (Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max)
    ? undefined
    : `${name} must be a whole number from 0 to ${max}`

const MAX_TRUNCATE = 1_000_000

/** Every helper a template may call, besides the blocks if, unless, each and with, and `lookup`. */
export const HELPERS: Record<string, Helper> = {
  eq: { args: [2, 2], run: ([a, b]) => same(a, b) },
  ne: { args: [2, 2], run: ([a, b]) => !same(a, b) },
  gt: { args: [2, 2], run: ([a, b]) => order(a, b) > 0 },
  gte: { args: [2, 2], run: ([a, b]) => order(a, b) >= 0 },
  lt: { args: [2, 2], run: ([a, b]) => order(a, b) < 0 },
  lte: { args: [2, 2], run: ([a, b]) => order(a, b) <= 0 },
  /** The first false value, else the last one. */
  and: {
    args: [2, 10],
    run: args => {
      const first = args.findIndex(value => !truthy(value))
      return args.at(first)
    },
  },
  /** The first true value, else the last one. */
  or: { args: [2, 10], run: args => args.find(truthy) ?? args.at(-1) },
  not: { args: [1, 1], run: ([value]) => !truthy(value) },
  /** The value, or the second argument where it is missing, null or empty text. */
  default: { args: [2, 2], run: ([value, otherwise]) => ((value ?? '') === '' ? otherwise : value) },
  upper: {
    args: [1, 1],
    run: ([value], { locale }) =>
      forgiving(
        () => toText(value).toLocaleUpperCase(locale),
        () => toText(value).toUpperCase(),
      ),
  },
  lower: {
    args: [1, 1],
    run: ([value], { locale }) =>
      forgiving(
        () => toText(value).toLocaleLowerCase(locale),
        () => toText(value).toLowerCase(),
      ),
  },
  truncate: {
    args: [2, 3],
    run: ([value, max, suffix]) =>
      truncate(
        toText(value),
        Math.min(Math.max(Math.trunc(Number(max)) || 0, 0), MAX_TRUNCATE),
        suffix === undefined ? undefined : toText(suffix),
      ),
    check: ([, max]) => wholeNumber('the length', max, MAX_TRUNCATE),
  },
  /** What is shortened first when an SMS would take another segment. The dot is in the GSM alphabet, `…` is not. */
  fit: {
    args: [1, 1],
    run: ([value], { fit }) => (fit === undefined ? toText(value) : truncate(toText(value), fit, '.')),
  },
  date: {
    args: [1, 2],
    options: ['format', 'style', 'timezone', 'locale'],
    prepare: prepareDate,
    check: ([, kind], options) =>
      oneOf('the format', kind ?? options.format, DATE_FORMATS) ??
      oneOf('style', options.style, DATE_STYLES) ??
      intlProblem(options),
  },
  number: {
    args: [1, 1],
    options: ['style', 'decimals', 'currency', 'locale'],
    prepare: prepareNumber,
    check: (_, options) =>
      oneOf('style', options.style, NUMBER_STYLES) ??
      wholeNumber('decimals', options.decimals, 20) ??
      intlProblem(options),
  },
  json: { args: [1, 1], run: ([value]) => JSON.stringify(value ?? null) },
  join: {
    args: [1, 2],
    run: ([list, separator]) =>
      Array.isArray(list)
        ? list
            .slice(0, 1_000)
            .map(toText)
            .join(separator === undefined ? ', ' : toText(separator))
        : toText(list),
  },
  /** `{{plural count "item" "items"}}`, or by CLDR category: `{{plural n one="…" few="…" other="…"}}`. */
  plural: {
    args: [1, 3],
    options: PLURALS,
    prepare: preparePlural,
    check: (args, options) =>
      args.length === 3 || 'other' in options ? undefined : 'plural needs the words for one and for other',
  },
  /** The absolute address of an uploaded picture; empty where there is none of that name. */
  asset: {
    args: [1, 1],
    run: ([name], { assets }) => {
      const text = toText(name)
      return assets && Object.hasOwn(assets, text) ? assets[text] : ''
    },
  },
  urlencode: { args: [1, 1], run: ([value]) => encodeURIComponent(toText(value).toWellFormed()) },
}
