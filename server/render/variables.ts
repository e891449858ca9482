import type { Json } from '../types.ts'
import { isNumeric, toInstant } from './helpers.ts'

export const VARIABLE_TYPES = ['string', 'number', 'boolean', 'date', 'object', 'array'] as const

/** What a template expects to be given. */
export interface TemplateVariable {
  name: string
  /**
   * A value of another type is not rendered. `object`, `array` and `boolean`: a text that holds such JSON is decoded,
   * because some senders can only send texts.
   */
  type?: (typeof VARIABLE_TYPES)[number]
  /** Without it nothing is rendered. */
  required?: boolean
  default?: Json
}

/** The variables of a revision, made ready once. */
export interface CompiledVariables {
  required: readonly string[]
  decoded: readonly string[]
  typed: readonly TemplateVariable[]
  defaults: Readonly<Record<string, Json>> | undefined
}

type Layers = readonly (Record<string, unknown> | undefined)[]

export function compileVariables(variables: readonly TemplateVariable[]): CompiledVariables {
  const defaults = variables.filter(variable => variable.default !== undefined)
  return {
    required: variables.filter(variable => variable.required).map(variable => variable.name),
    decoded: variables.filter(({ type }) => DECODED.includes(type ?? '')).map(({ name }) => name),
    typed: variables.filter(({ type }) => type !== undefined),
    defaults:
      defaults.length === 0 ? undefined : Object.fromEntries(defaults.map(v => [v.name, v.default ?? null])),
  }
}

/** What the texts see of what is given: texts decoded where the type says so, defaults behind everything. */
export function givenVariables({ decoded, defaults }: CompiledVariables, layers: Layers): Layers {
  let given = layers
  if (decoded.length > 0) given = given.map(layer => decode(layer, decoded))
  return defaults ? [...given, defaults] : given
}

/**
 * Each variable that is missing or of another type goes to `report`, which may throw.
 *
 * @param given of `givenVariables`
 */
export function judgeVariables(
  { required, typed }: CompiledVariables,
  given: Layers,
  report: (name: string, message: string) => void,
): void {
  for (const name of required) {
    if (!given.some(layer => layer && Object.hasOwn(layer, name) && layer[name] !== null)) {
      report(name, `the variable "${name}" is required and missing`)
    }
  }
  for (const { name, type } of typed) {
    const value = given.find(layer => layer && Object.hasOwn(layer, name))?.[name]
    if (!isOfType(value, type!)) report(name, `the variable "${name}" must be ${TYPE_WORDS[type!]}`)
  }
}

export const TYPE_WORDS: Record<NonNullable<TemplateVariable['type']>, string> = {
  string: 'text',
  number: 'a number',
  boolean: 'true or false',
  date: 'a time: ISO 8601, or seconds or milliseconds since 1970',
  object: 'an object',
  array: 'a list',
}

/** Types of which a text may hold the JSON; "false" would count as true otherwise. */
const DECODED = ['object', 'array', 'boolean']

/** Whether a value will do. What is not given, or null, will: `required` is for that. Texts may hold what they name. */
export function isOfType(value: unknown, type: NonNullable<TemplateVariable['type']>): boolean {
  if (value === undefined || value === null) return true
  switch (type) {
    case 'string':
      return typeof value !== 'object'
    case 'number':
      return isNumeric(value)
    case 'boolean':
      return typeof value === 'boolean'
    case 'date':
      return toInstant(value) !== undefined
    case 'object':
      return typeof value === 'object' && !Array.isArray(value)
    case 'array':
      return Array.isArray(value)
  }
}

function decode(layer: Record<string, unknown> | undefined, names: readonly string[]) {
  let decoded = layer
  for (const name of names) {
    if (!layer || !Object.hasOwn(layer, name)) continue
    const text = layer[name]
    if (typeof text !== 'string' || !/^\s*([{[]|(true|false)\s*$)/.test(text)) continue
    try {
      const value: unknown = JSON.parse(text)
      if (decoded === layer) decoded = { ...layer }
      decoded![name] = value
    } catch {
      // Not JSON after all: it stays the text that it is.
    }
  }
  return decoded
}
