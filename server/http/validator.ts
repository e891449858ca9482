import { Ajv, type ErrorObject, type ValidateFunction } from 'ajv'
import formatsPlugin from 'ajv-formats'
import type { FastifySchemaCompiler } from 'fastify'
import { Type } from 'typebox'
import { isId } from '../db/ids.ts'
import { AppError, type ErrorDetail } from '../errors.ts'

/** Every problem is looked for only in a value of at most so many parts: a body can hold a million. */
const EXPLAINED_PARTS = 2_000
const MAX_ERRORS = 20

// CommonJS default of a CommonJS default.
const addFormats = formatsPlugin as unknown as typeof formatsPlugin.default
const libraryDateTime = addFormats.get('date-time') as { validate(text: string): boolean }

/** RFC 3339 with its zone, and an instant that both Date and PostgreSQL have: no leap second, no year 0. */
export function isDateTime(text: string): boolean {
  if (!libraryDateTime.validate(text)) return false
  const date = new Date(text)
  return !Number.isNaN(date.getTime()) && date.getUTCFullYear() >= 1
}

function ajv(coerceTypes: false | 'array', allErrors: boolean): Ajv {
  const instance = new Ajv({
    coerceTypes,
    allErrors,
    useDefaults: true,
    removeAdditional: false,
    strict: true,
    strictTypes: false,
    strictTuples: false,
    allowUnionTypes: true,
  })
  addFormats.default(instance)
  // The library's takes 'urn:uuid:…' as well, which PostgreSQL does not.
  instance.addFormat('uuid', { type: 'string', validate: isId })
  instance.addFormat('date-time', { type: 'string', validate: isDateTime })
  // OpenAPI's word beside `examples`; it says nothing about what is valid.
  instance.addVocabulary(['example'])
  return instance
}

/**
 * JSON Schema by Ajv: unknown fields stay and are refused where the schema says so, body types are never bent,
 * query and path values are (they are all text). The answer names every wrong field of a small value, and the
 * first one of a large.
 */
export function validatorCompiler(): FastifySchemaCompiler<object> {
  const instances = new Map<string, Ajv>()
  const instance = (coerce: false | 'array', allErrors: boolean): Ajv => {
    const key = `${coerce} ${allErrors}`
    let found = instances.get(key)
    if (found === undefined) instances.set(key, (found = ajv(coerce, allErrors)))
    return found
  }

  return ({ schema, httpPart }) => {
    const part = httpPart ?? 'body'
    const coerce = part === 'body' ? false : 'array'
    // At the first request of its kind: compiling all of them at the start takes 0.4 s and 25 MB.
    let validate: ValidateFunction | undefined
    // A request without a body has null here, and a body that is Type.Optional may be left out.
    const optional = part === 'body' && Type.IsOptional(schema)
    let explain: ValidateFunction | undefined
    return (value: unknown) => {
      if (optional && (value === null || value === undefined)) return { value }
      validate ??= instance(coerce, false).compile(schema)
      if (validate(value)) return { value }
      let errors = validate.errors!
      if (parts(value, EXPLAINED_PARTS) <= EXPLAINED_PARTS) {
        explain ??= instance(coerce, true).compile(schema)
        if (!explain(value)) errors = explain.errors!
      }
      return { error: refusal(part, errors) }
    }
  }
}

function refusal(part: string, errors: ErrorObject[]): AppError {
  const details = new Map<string, ErrorDetail>()
  for (const error of nearest(errors)) {
    const detail = { field: fieldOf(part, error), message: messageOf(error) }
    if (details.size < MAX_ERRORS) details.set(`${detail.field} ${detail.message}`, detail)
  }
  const list = [...details.values()]
  const { field, message } = list[0]!
  return new AppError(
    'invalid_request',
    `${NAMES[part] ?? part}${field === '' ? '' : ` ${field}`} ${message}.`,
    {
      errors: list,
    },
  )
}

/** Which shape was meant is known by these: a value that has them at its own level is not of that shape. */
const OF_SHAPE: ReadonlySet<string> = new Set(['required', 'additionalProperties', 'type', 'const', 'enum'])

/**
 * Where a value may have one of several shapes, every shape complains. When it has the shape of some and only
 * something within is wrong, the complaints of the others are noise.
 */
function nearest(errors: ErrorObject[]): ErrorObject[] {
  const unions = errors
    .filter(({ keyword }) => keyword === 'anyOf' || keyword === 'oneOf')
    .sort((a, b) => b.schemaPath.length - a.schemaPath.length)
  let left = errors
  for (const union of unions) {
    const prefix = `${union.schemaPath}/`
    const within = left.filter(error => error.schemaPath.startsWith(prefix))
    const branches = Map.groupBy(within, error => error.schemaPath.slice(prefix.length).split('/')[0])
    const near = [...branches.values()].filter(branch =>
      branch.every(
        ({ instancePath, keyword }) => instancePath !== union.instancePath || !OF_SHAPE.has(keyword),
      ),
    )
    if (near.length > 0) {
      left = left.filter(error => error !== union && (!within.includes(error) || near.flat().includes(error)))
    }
  }
  return left
}

const NAMES: Record<string, string> = {
  body: 'body',
  querystring: 'query',
  params: 'path',
  headers: 'header',
}

/** A JSON pointer (RFC 6901) into the body; the bare name of a parameter elsewhere. */
function fieldOf(part: string, error: ErrorObject): string {
  const name = (error.params.missingProperty ??
    error.params.additionalProperty ??
    error.params.unevaluatedProperty) as string | undefined
  const tail = name === undefined ? '' : `/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`
  const pointer = (error.instancePath + tail).slice(0, 500)
  return part === 'body' ? pointer : pointer.slice(1)
}

function messageOf(error: ErrorObject): string {
  switch (error.keyword) {
    case 'required':
      return 'is required'
    case 'additionalProperties':
    case 'unevaluatedProperties':
      return 'is not a known field'
    case 'enum':
      return `must be one of ${(error.params.allowedValues as unknown[]).join(', ')}`.slice(0, 500)
    case 'const':
      return `must be ${JSON.stringify(error.params.allowedValue)}`
    default:
      return error.message ?? 'is not valid'
  }
}

/** How many values it is made of, counted no further than just past `limit`. */
function parts(value: unknown, limit: number): number {
  let count = 1
  const waiting = [value]
  while (waiting.length > 0 && count <= limit) {
    const next = waiting.pop()
    if (typeof next !== 'object' || next === null) continue
    for (const part of Object.values(next)) {
      waiting.push(part)
      if (++count > limit) break
    }
  }
  return count
}
