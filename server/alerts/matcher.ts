import { RE2JS } from 're2js'
import { AppError } from '../errors.ts'
import type { Event, Json } from '../types.ts'

/**
 * Matchers as in Prometheus Alertmanager: a name, one of four operators, a value. Regular expressions are RE2 and
 * must cover the whole value; what is absent counts as the empty text.
 * https://prometheus.io/docs/alerting/latest/configuration/#matcher
 */
export const OPERATORS = ['=', '!=', '=~', '!~'] as const
export type Operator = (typeof OPERATORS)[number]

export interface Matcher {
  /**
   * `type`, `source`, `subject`, `severity`; `data.<path>` with dots between the steps; everything else is a label,
   * looked up in `data.labels`. `labels.<name>` reaches labels that are called like one of the former.
   */
  name: string
  op: Operator
  value: string
}

/** What matchers see of an event, or of an alert that is remembered. */
export type Lookup = (name: string) => string

export type Test = (lookup: Lookup) => boolean

/** Longer values are compared by their beginning. */
export const MAX_VALUE = 1_000
/** So many labels of an alert are remembered. */
export const MAX_LABELS = 200
export const MAX_MATCHERS = 20

const ATTRIBUTES = ['type', 'source', 'subject', 'severity'] as const

/** The one spelling of a name: labels get their prefix. */
export const canonicalName = (name: string): string =>
  (ATTRIBUTES as readonly string[]).includes(name) || name.startsWith('data.') || name.startsWith('labels.')
    ? name
    : `labels.${name}`

/**
 * All of them must hold.
 *
 * Throws AppError `invalid_request` for an expression that cannot be compiled, for a list that holds for
 * everything, and, with `remembered`, for names that no remembered alert has an answer to.
 */
export function compileMatchers(
  matchers: readonly Matcher[],
  field: string,
  { remembered = false }: { remembered?: boolean } = {},
): Test {
  const tests = matchers.map((matcher, at) => {
    if (remembered && matcher.name.startsWith('data.')) {
      throw invalid(
        `${field}/${at}/name`,
        'Alerts are remembered by attributes and labels, not by their data',
      )
    }
    return compileMatcher(matcher, `${field}/${at}/value`)
  })
  // Alertmanager refuses the same: a list of which each entry holds for an absent label holds for every alert.
  if (tests.every(holds => holds(NOTHING))) {
    throw invalid(field, 'At least one matcher must not hold for an absent value')
  }
  return lookup => tests.every(holds => holds(lookup))
}

function compileMatcher({ name, op, value }: Matcher, field: string): Test {
  const asked = canonicalName(name)
  if (op === '=' || op === '!=') {
    const wanted = value.slice(0, MAX_VALUE)
    return lookup => (lookup(asked) === wanted) === (op === '=')
  }
  const pattern = regex(value, field)
  return lookup => pattern.matches(lookup(asked)) === (op === '=~')
}

function regex(source: string, field: string): RE2JS {
  try {
    return RE2JS.compile(source, RE2JS.DOTALL)
  } catch (error) {
    throw invalid(field, `The expression cannot be compiled: ${(error as Error).message}`.slice(0, 300))
  }
}

const NOTHING: Lookup = () => ''

const invalid = (field: string, message: string) => new AppError('invalid_request', message, { field })

/** What an event answers to matchers. */
export function lookupOf(event: Event): Lookup {
  const { data } = event
  return name => {
    if (name === 'type') return event.type
    if (name === 'source') return event.source
    if (name === 'subject') return event.subject ?? ''
    if (name === 'severity') return text(labelsOf(event)['severity']) || text(data['severity'])
    if (name.startsWith('labels.')) {
      const labels = labelsOf(event)
      const label = name.slice('labels.'.length)
      return Object.hasOwn(labels, label) ? text(labels[label]) : ''
    }
    return text(valueAt(data, name.slice('data.'.length)))
  }
}

/** What is remembered of an alert, by canonical name; nothing of its data besides the labels. */
export function rememberedOf(event: Event): Record<string, string> {
  const lookup = lookupOf(event)
  const kept: Record<string, string> = {}
  for (const name of ATTRIBUTES) {
    const value = lookup(name)
    if (value !== '') kept[name] = value
  }
  for (const name of Object.keys(labelsOf(event)).filter(storable).slice(0, MAX_LABELS)) {
    const value = lookup(`labels.${name}`)
    if (value !== '') kept[`labels.${name}`] = value
  }
  return kept
}

const storable = (name: string) => name.length <= 300 && name.isWellFormed() && !name.includes('\0')

/** What a remembered alert answers to matchers. */
export const lookupIn =
  (remembered: Readonly<Record<string, string>>): Lookup =>
  name =>
    Object.hasOwn(remembered, name) ? remembered[name]! : ''

function labelsOf({ data }: Event): Readonly<Record<string, Json>> {
  const { labels } = data
  return typeof labels === 'object' && labels !== null && !Array.isArray(labels) ? labels : NO_LABELS
}

const NO_LABELS = Object.freeze({})

function valueAt(data: Json, path: string): Json | undefined {
  let at: Json | undefined = data
  for (const step of path.split('.')) {
    if (typeof at !== 'object' || at === null || Array.isArray(at) || !Object.hasOwn(at, step))
      return undefined
    at = at[step]
  }
  return at
}

function text(value: Json | undefined): string {
  // What PostgreSQL cannot keep as text is left out, so that an alert compares equal to what is remembered of it.
  if (typeof value === 'string') return value.slice(0, MAX_VALUE).toWellFormed().replaceAll('\0', '')
  return typeof value === 'number' || typeof value === 'boolean' ? String(value) : ''
}
