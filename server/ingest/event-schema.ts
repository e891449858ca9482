import { Ajv2020 } from 'ajv/dist/2020.js'
import type { ValidateFunction } from 'ajv/dist/2020.js'
import formatsPlugin from 'ajv-formats'
import type { FormatName } from 'ajv-formats'
import { LRUCache } from 'lru-cache'
import { RE2JS } from 're2js'
import { AppError } from '../errors.ts'
import type { JsonObject } from '../types.ts'

/**
 * JSON Schema 2020-12 (https://json-schema.org/draft/2020-12) as event types use it: what a stranger wrote, run on
 * every event. So its cost is bounded when it is saved: patterns on RE2, no recursion, references only inside the
 * schema, and as many subschemas as it has once all references are written out.
 */

/** Of a schema as JSON text. */
export const MAX_SCHEMA_BYTES = 64 * 1024
const MAX_DEPTH = 32
/** Subschemas with every reference written out: each is asked at most once for each value of an event. */
const MAX_SUBSCHEMAS = 5_000
/** How deep references lead into each other: the validator calls itself as often. */
const MAX_REFERENCE_DEPTH = 200
/** Without a type that can be hashed, each item is compared with each. */
const MAX_UNIQUE_ITEMS = 1_000

/**
 * The formats of the specification that take linear time in this library. Its `url` (no format of the
 * specification) takes 4 s for 100 kB of `a:a:a:…`, and `regex` would compile whatever an event brings.
 */
const FORMATS: FormatName[] = [
  'date-time',
  'date',
  'time',
  'duration',
  'email',
  'hostname',
  'ipv4',
  'ipv6',
  'uri',
  'uri-reference',
  'uri-template',
  'uuid',
  'json-pointer',
  'relative-json-pointer',
]

export type SchemaCheck = ValidateFunction

/** Where an event's data differs from its type's schema. */
export interface Violation {
  /** JSON pointer from the event: `/data/items/0/sku`. */
  field: string
  /** What was expected; never what was there. */
  message: string
}

/** The first thing in which `data` differs from the schema; null when it fits. */
export function violation(check: SchemaCheck, data: unknown): Violation | null {
  if (check(data)) return null
  const first = check.errors?.[0]
  const missing = (first?.params as { missingProperty?: string } | undefined)?.missingProperty
  const tail = missing === undefined ? '' : `/${missing.replaceAll('~', '~0').replaceAll('/', '~1')}`
  return {
    field: `/data${first?.instancePath ?? ''}${tail}`.slice(0, 300),
    message: (first?.message ?? 'does not fit the schema').slice(0, 300),
  }
}

const compiled = new LRUCache<string, SchemaCheck>({ max: 500 })

/** As `compileSchema`, for JSON text; the last 500 are kept. */
export function schemaCheck(text: string): SchemaCheck {
  let check = compiled.get(text)
  if (!check) compiled.set(text, (check = compileSchema(JSON.parse(text) as JsonObject)))
  return check
}

/** @throws AppError invalid_schema, naming where */
export function compileSchema(schema: JsonObject): SchemaCheck {
  checkBounds(schema)
  // Its own name would be registered; with the name of the meta-schema it would take that one's place.
  const nameless = { ...schema }
  delete nameless['$id']
  const ajv = compiler()
  try {
    return ajv.compile(nameless)
  } catch (cause) {
    throw refuse('', (cause as Error).message, cause)
  } finally {
    ajv.removeSchema(nameless)
  }
}

// CommonJS default of a CommonJS default.
const addFormats = formatsPlugin as unknown as typeof formatsPlugin.default

/**
 * An instance takes 9 ms to make and a schema 0.3 ms to compile on it. But it keeps every pattern and constant it
 * ever saw, so after a hundred schemas there is a new one.
 */
const SCHEMAS_PER_INSTANCE = 100
let instance: Ajv2020 | undefined
let used = 0

function compiler(): Ajv2020 {
  if (instance && used++ < SCHEMAS_PER_INSTANCE) return instance
  used = 1
  instance = new Ajv2020({
    strict: true,
    strictTypes: false,
    strictTuples: false,
    strictRequired: false,
    logger: false,
    // Inlined, what many refer to is compiled many times; and optimizing takes four times as long as all the rest.
    inlineRefs: false,
    code: { regExp: re2, optimize: false },
  })
  addFormats(instance, FORMATS)
  return instance
}

/** A pattern runs in linear time, whatever it is: a tenant's `^(a+)+$` must not stop the process. */
const re2 = Object.assign(
  (pattern: string) => {
    const machine = RE2JS.compile(pattern)
    return {
      test: (text: string) => machine.matcher(text).find(),
      // Ajv keeps one machine for each of these: without it, every pattern of a schema would be its first.
      toString: () => `re2 ${pattern}`,
    }
  },
  { code: 're2' },
)

// ------------------------------------------------------------------ bounds

const ONE = [
  'not',
  'if',
  'then',
  'else',
  'items',
  'contains',
  'additionalProperties',
  'propertyNames',
  'unevaluatedItems',
  'unevaluatedProperties',
]
const LIST = ['allOf', 'anyOf', 'oneOf', 'prefixItems']
const MAP = ['properties', 'patternProperties', 'dependentSchemas', 'dependencies']
const UNSUPPORTED = ['$async', '$dynamicRef', '$dynamicAnchor', '$recursiveRef', '$recursiveAnchor']

function checkBounds(root: JsonObject): void {
  if (deeperThan(root, MAX_DEPTH)) throw refuse('', `A schema is at most ${MAX_DEPTH} levels deep`)
  if (Buffer.byteLength(JSON.stringify(root)) > MAX_SCHEMA_BYTES) {
    throw refuse('', `A schema has at most ${MAX_SCHEMA_BYTES} bytes`)
  }
  /** Subschemas below each, references written out; -1 while it is being counted. */
  const counts = new Map<object, number>()

  function count(schema: unknown, at: string, depth: number): number {
    if (!isObject(schema)) return 1
    const known = counts.get(schema)
    if (known === -1) throw refuse(at, 'A schema may not refer to itself')
    if (known !== undefined) return known
    if (depth > MAX_REFERENCE_DEPTH) throw refuse(at, 'References lead too deep into each other')
    counts.set(schema, -1)
    for (const name of UNSUPPORTED) {
      if (Object.hasOwn(schema, name)) throw refuse(`${at}/${name}`, `${name} is not supported`)
    }
    if (schema !== root && Object.hasOwn(schema, '$id')) {
      throw refuse(`${at}/$id`, 'Only the schema as a whole may have an $id')
    }
    const { uniqueItems, maxItems } = schema
    if (uniqueItems === true && !(typeof maxItems === 'number' && maxItems <= MAX_UNIQUE_ITEMS)) {
      throw refuse(`${at}/uniqueItems`, `uniqueItems needs maxItems of at most ${MAX_UNIQUE_ITEMS}`)
    }

    let sum = 1
    const add = (part: unknown, where: string) => {
      sum += count(part, where, depth + 1)
      if (sum > MAX_SUBSCHEMAS) {
        throw refuse(where, `A schema has at most ${MAX_SUBSCHEMAS} subschemas, references written out`)
      }
    }
    for (const name of ONE) if (Object.hasOwn(schema, name)) add(schema[name], `${at}/${name}`)
    for (const name of LIST) {
      const parts = schema[name]
      if (Array.isArray(parts)) for (const [i, part] of parts.entries()) add(part, `${at}/${name}/${i}`)
    }
    for (const name of MAP) {
      const parts = schema[name]
      if (!isObject(parts)) continue
      for (const [key, part] of Object.entries(parts)) add(part, `${at}/${name}/${escape(key)}`)
    }
    if (Object.hasOwn(schema, '$ref')) add(target(root, schema['$ref'], `${at}/$ref`), `${at}/$ref`)
    counts.set(schema, sum)
    return sum
  }
  count(root, '', 0)
}

/** Only JSON pointers into this schema: nothing is ever fetched, and nothing is named from afar. */
function target(root: JsonObject, reference: unknown, at: string): unknown {
  if (typeof reference !== 'string' || !(reference === '#' || reference.startsWith('#/'))) {
    throw refuse(at, 'A reference is a JSON pointer into the same schema: #/$defs/name')
  }
  let found: unknown = root
  for (const part of reference.split('/').slice(1)) {
    const key = unescape(part)
    const there = typeof found === 'object' && found !== null && Object.hasOwn(found, key)
    if (!there) throw refuse(at, 'The reference leads nowhere')
    found = (found as Record<string, unknown>)[key]
  }
  return found
}

function unescape(part: string): string {
  try {
    return decodeURIComponent(part).replaceAll('~1', '/').replaceAll('~0', '~')
  } catch {
    return part
  }
}

const escape = (key: string) => key.replaceAll('~', '~0').replaceAll('/', '~1')

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function deeperThan(value: unknown, left: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return left === 0 || Object.values(value).some(inner => deeperThan(inner, left - 1))
}

const refuse = (at: string, message: string, cause?: unknown) =>
  new AppError('invalid_schema', message.slice(0, 300), { field: `/schema${at}`.slice(0, 300), cause })
