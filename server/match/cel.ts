import { Environment, EvaluationError, Optional, ParseError, TypeError } from '@marcbachmann/cel-js'
import { Duration, UnsignedInt } from '@marcbachmann/cel-js/evaluator'
import { LRUCache } from 'lru-cache'
import { AppError } from '../errors.ts'
import type { Event, Json, JsonObject, Priority } from '../types.ts'
import {
  CelLimit,
  children,
  exhausted,
  isComprehension,
  meter,
  refill,
  TICKS,
  type Node,
} from './cel-meter.ts'
import { conditionsOf, conjuncts, pathOf, type Conditions } from './conditions.ts'

/**
 * The Common Expression Language as rules use it: a bounded subset of https://cel.dev, compiled once and
 * evaluated thousands of times a second.
 *
 * Two variables: `event` and `now` (a timestamp). JSON has one kind of number, and in CEL it is a double:
 * `event.data.count == 5` and `event.data.count > 5` compare across kinds as one expects, but arithmetic does
 * not mix, so write `event.data.count + 1.0` or `int(event.data.count) % 2 == 0`.
 */

export const MAX_SOURCE = 4_096
const MAX_LOOP_NESTING = 2
const LIMITS = {
  maxAstNodes: 2_000,
  maxDepth: 50,
  maxListElements: 1_000,
  maxMapEntries: 100,
  maxCallArguments: 8,
}
const MAX_RECIPIENTS = 1_000
const MAX_RECIPIENT_ID = 255
const MAX_VALUE_DEPTH = 32

/** What an expression sees as `event`. */
export interface CelEvent {
  readonly id: string
  readonly source: string
  readonly type: string
  /** The type up to its first dot. */
  readonly domain: string
  readonly subject: string | undefined
  readonly time: Date
  readonly data: JsonObject
  readonly priority: Priority | undefined
  readonly category: string | undefined
  /** The tenant's name. */
  readonly tenant: string | undefined
}

const EVENT_FIELDS: ReadonlySet<string> = new Set<keyof CelEvent>([
  'id',
  'source',
  'type',
  'domain',
  'subject',
  'time',
  'data',
  'priority',
  'category',
  'tenant',
])

/** The functions and macros an expression may call. Nothing outside this list compiles. */
const GLOBALS: ReadonlySet<string> = new Set(
  'has size int uint double string bool bytes timestamp duration type dyn'.split(' '),
)
const METHODS: ReadonlySet<string> = new Set(
  (
    'all exists exists_one map filter bind size contains startsWith endsWith matches lowerAscii upperAscii trim ' +
    'indexOf lastIndexOf substring split join of none hasValue value or orValue ' +
    'getFullYear getMonth getDate getDayOfMonth getDayOfWeek getDayOfYear getHours getMinutes getSeconds getMilliseconds'
  ).split(' '),
)
const VARIABLES: ReadonlySet<string> = new Set(['event', 'now'])

export type Kind = 'pattern' | 'recipients' | 'value'

/** What a program of each kind gives. Recipients are user ids: distinct, at most 1,000, at most 255 characters. */
export interface Results {
  pattern: boolean
  recipients: string[]
  value: Json
}

/** Why an evaluation has no result: a stable code, and words that quote the expression but never the event. */
export interface CelFailure {
  ok: false
  code: string
  error: string
}
export type Evaluation<T> = { ok: true; value: T } | CelFailure

export interface Program<K extends Kind = Kind> {
  readonly kind: K
  readonly source: string
  /** What must hold for a pattern to be true, in a form an index can use. */
  readonly conditions: Conditions
  /** Never throws, and ends within the tick budget. */
  evaluate(event: CelEvent, now: Date): Evaluation<Results[K]>
}

const SYNC = { async: false }

const environment = new Environment({
  enableOptionalTypes: true,
  homogeneousAggregateLiterals: false,
  limits: LIMITS,
})
  .registerVariable('event', 'dyn')
  .registerVariable('now', 'google.protobuf.Timestamp')
  // Conversions of the specification that the library leaves out.
  .registerFunction('int(uint): int', (value: UnsignedInt) => int64(value.value), SYNC)
  .registerFunction(
    'int(google.protobuf.Timestamp): int',
    (time: Date) => BigInt(Math.floor(time.getTime() / 1_000)),
    SYNC,
  )
  .registerFunction('string(google.protobuf.Timestamp): string', timestampText, SYNC)
  .registerFunction('string(google.protobuf.Duration): string', durationText, SYNC)
  .registerFunction(
    'timestamp(google.protobuf.Timestamp): google.protobuf.Timestamp',
    (time: Date) => time,
    SYNC,
  )
  .registerFunction(
    'duration(google.protobuf.Duration): google.protobuf.Duration',
    (time: Duration) => time,
    SYNC,
  )

// Many rules share a pattern; 100,000 rules should not hold 100,000 copies of it.
const cache = <K extends Kind>() => new LRUCache<string, Program<K>>({ max: 10_000 })
const programs: { [K in Kind]: LRUCache<string, Program<K>> } = {
  pattern: cache(),
  recipients: cache(),
  value: cache(),
}

/**
 * Compiles and checks an expression. `field` names the request's field in the error.
 *
 * Throws AppError `invalid_expression` with `extra: { line, column, start, end }`: line and column from 1, start
 * and end as UTF-16 offsets into the source.
 */
export function compile<K extends Kind>(source: string, kind: K, field?: string): Program<K> {
  const known = programs[kind].get(source)
  if (known) return known
  const program = newProgram(source, kind, field)
  programs[kind].set(source, program)
  return program
}

function newProgram<K extends Kind>(source: string, kind: K, field: string | undefined): Program<K> {
  const refuse = (message: string, start: number, end: number): never => {
    const before = source.slice(0, start).split('\n')
    const line = before.length
    const column = (before.at(-1) ?? '').length + 1
    throw new AppError('invalid_expression', `${message} (line ${line}, column ${column})`, {
      field,
      extra: { line, column, start, end },
    })
  }
  if (source.trim() === '') refuse('The expression is empty', 0, source.length)
  if (source.length > MAX_SOURCE) {
    refuse(`The expression is longer than ${MAX_SOURCE} characters`, MAX_SOURCE, source.length)
  }

  let run: ReturnType<typeof environment.parse>
  let ast: Node
  try {
    run = environment.parse(source)
    ast = run.ast as Node
  } catch (cause) {
    return refuse(...position(cause, source))
  }
  restrict(ast, refuse)
  const checked = run.check()
  if (!checked.valid) refuse(...position(checked.error, source))
  const type = checked.type ?? 'dyn'
  if (!GIVES[kind].accepts(type)) refuse(`${GIVES[kind].wanted}, and this gives ${type}`, 0, source.length)
  const conditions = conditionsOf(ast)
  try {
    meter(ast)
  } catch (cause) {
    if (!(cause instanceof CelLimit)) throw cause
    refuse(cause.message, cause.start ?? 0, cause.end ?? source.length)
  }

  return {
    kind,
    source,
    conditions,
    evaluate(event, now) {
      refill()
      // Building a stack trace costs 10 µs, and a missing key is an everyday thing.
      const traced = Error.stackTraceLimit
      Error.stackTraceLimit = 0
      try {
        const value: unknown = run({ event, now })
        if (exhausted()) return OUT_OF_TICKS
        return GIVES[kind].read(value)
      } catch (cause) {
        return exhausted() ? OUT_OF_TICKS : failureOf(cause, source)
      } finally {
        Error.stackTraceLimit = traced
      }
    },
  }
}

/**
 * The parts of a pattern that must all hold, as they are written; the whole where nothing joins them, or where it no
 * longer parses.
 */
export function termsOf(source: string): string[] {
  try {
    return [...conjuncts(environment.parse(source).ast as Node)].map(({ range }) =>
      source.slice(range.start, range.end).trim(),
    )
  } catch {
    return [source]
  }
}

/** Where an expression that is nothing but a path reads the event: ['data', 'city']; else undefined. */
export function pathIn(source: string): readonly string[] | undefined {
  try {
    return pathOf(environment.parse(source).ast as Node)
  } catch {
    return undefined
  }
}

const failure = (code: string, error: string): CelFailure => ({ ok: false, code, error })

const OUT_OF_TICKS = failure('budget_exceeded', `the evaluation needs more than ${TICKS} steps`)
const TRUE: Evaluation<boolean> = { ok: true, value: true }
const FALSE: Evaluation<boolean> = { ok: true, value: false }

/** Which static types a kind takes, and how it reads what came out. */
const GIVES: {
  [K in Kind]: {
    wanted: string
    accepts(type: string): boolean
    read(value: unknown): Evaluation<Results[K]>
  }
} = {
  pattern: {
    wanted: 'A pattern must give true or false',
    accepts: type => type === 'bool' || type === 'dyn' || type === 'dyn<bool>',
    read: value =>
      value === true
        ? TRUE
        : value === false
          ? FALSE
          : failure('not_bool', 'the pattern gave neither true nor false'),
  },
  recipients: {
    wanted: 'Recipients must be a user id or a list of user ids',
    accepts: type =>
      /^(?:dyn<|optional<)*(?:string|dyn|list|list<(?:string|dyn|T|dyn<string>)>)>*$/.test(type),
    read: readRecipients,
  },
  value: { wanted: 'A value must be data', accepts: type => type !== 'type', read: readValue },
}

/** An expression can make what no door lets in and no table takes: it would end a transaction that others share. */
export const storable = (text: string): boolean => !text.includes('\0') && text.isWellFormed()

function readRecipients(value: unknown): Evaluation<string[]> {
  const given = plain(value, 0)
  const items = Array.isArray(given) ? given : given === null ? [] : [given]
  if (items.length > MAX_RECIPIENTS) {
    return failure('too_many_recipients', `the expression gave more than ${MAX_RECIPIENTS} recipients`)
  }
  const ids = new Set<string>()
  for (const item of items) {
    // Ids are opaque text to us, yet many producers write theirs as JSON numbers.
    const id = typeof item === 'number' && Number.isSafeInteger(item) ? String(item) : item
    if (typeof id !== 'string' || id === '' || id.length > MAX_RECIPIENT_ID || !storable(id)) {
      return failure('not_recipients', 'the expression gave something that is not a user id')
    }
    ids.add(id)
  }
  return { ok: true, value: [...ids] }
}

function readValue(value: unknown): Evaluation<Json> {
  const given = plain(value, 0)
  return given === undefined
    ? failure('not_data', 'the expression gave something that JSON cannot hold')
    : { ok: true, value: given }
}

/** CEL values as JSON: timestamps and durations as protobuf writes them, integers past 2^53 as strings. */
function plain(value: unknown, depth: number): Json | undefined {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return value
    case 'number':
      return Number.isFinite(value) ? value : undefined
    case 'bigint': {
      const number = Number(value)
      return Number.isSafeInteger(number) ? number : String(value)
    }
    case 'object':
      break
    default:
      return undefined
  }
  if (value === null) return null
  if (depth > MAX_VALUE_DEPTH) return undefined
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? undefined : timestampText(value)
  if (value instanceof Duration) return durationText(value)
  if (value instanceof UnsignedInt) return plain(value.valueOf(), depth)
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64')
  if (Array.isArray(value)) {
    const items: Json[] = []
    for (const item of value) {
      const given = plain(item, depth + 1)
      if (given === undefined) return undefined
      items.push(given)
    }
    return items
  }
  if (value instanceof Optional) return value.hasValue() ? plain(value.value(), depth + 1) : null
  const prototype: unknown = Object.getPrototypeOf(value)
  if (!(value instanceof Map) && prototype !== Object.prototype && prototype !== null) return undefined
  const fields: JsonObject = {}
  for (const [name, field] of value instanceof Map ? value : Object.entries(value)) {
    if (field === undefined) continue
    const given = plain(field, depth + 1)
    if (given === undefined) return undefined
    // Not an assignment: a field may be named __proto__.
    Object.defineProperty(fields, String(name), {
      value: given,
      enumerable: true,
      writable: true,
      configurable: true,
    })
  }
  return fields
}

/** `2026-11-21T10:00:00Z`, with the fraction there is. */
function timestampText(time: Date): string {
  return time.toISOString().replace(/\.?0+Z$/, 'Z')
}

function int64(value: bigint): bigint {
  if (BigInt.asIntN(64, value) !== value)
    throw new CelLimit('numeric_overflow', 'the number does not fit an int')
  return value
}

/** `90s`, `-1.5s`: the JSON form of google.protobuf.Duration. */
function durationText(duration: Duration): string {
  const negative = duration.seconds < 0n || duration.nanos < 0
  const seconds = duration.seconds < 0n ? -duration.seconds : duration.seconds
  const nanos = Math.abs(duration.nanos)
  const fraction = nanos === 0 ? '' : `.${String(nanos).padStart(9, '0').replace(/0+$/, '')}`
  return `${negative ? '-' : ''}${seconds}${fraction}s`
}

// ------------------------------------------------------------------ what may be written

type Refuse = (message: string, start: number, end: number) => never

/** Our own rules on top of the library's checks: known functions, known event fields, shallow loops. */
function restrict(node: Node, refuse: Refuse, loops = 0): void {
  if (node.op === '.' || node.op === '.?') {
    const [object, field] = node.args as [Node, string]
    if (object.op === 'id' && object.args === 'event' && !EVENT_FIELDS.has(field)) {
      const hint = `an event has ${[...EVENT_FIELDS].join(', ')}; everything else is in event.data`
      refuse(`Unknown field: event.${field} (${hint})`, node.start, node.end)
    }
  }
  if (node.op === 'call' && !GLOBALS.has(node.args[0])) {
    refuse(`Unknown function: ${node.args[0]}`, node.start, node.end)
  }
  if (node.op === 'rcall') {
    if (!METHODS.has(node.args[0])) refuse(`Unknown function: ${node.args[0]}`, node.start, node.end)
    const variable = node.args[2][0]
    if (
      (isComprehension(node) || node.args[0] === 'bind') &&
      variable?.op === 'id' &&
      VARIABLES.has(variable.args)
    ) {
      refuse(`${variable.args} cannot be the name of a variable`, variable.start, variable.end)
    }
  }
  const loop = isComprehension(node)
  if (loop && loops >= MAX_LOOP_NESTING) {
    refuse(`Loops nest at most ${MAX_LOOP_NESTING} deep`, node.start, node.end)
  }
  children(node).forEach((child, i) => restrict(child, refuse, loop && i > 0 ? loops + 1 : loops))
}

function position(cause: unknown, source: string): [message: string, start: number, end: number] {
  if (cause instanceof ParseError || cause instanceof TypeError || cause instanceof EvaluationError) {
    const message = cause.summary.charAt(0).toUpperCase() + cause.summary.slice(1)
    const start = Math.min(cause.range?.start ?? 0, source.length)
    return [message, start, Math.min(Math.max(cause.range?.end ?? source.length, start), source.length)]
  }
  if (cause instanceof RangeError) return ['The expression nests too deeply', 0, source.length]
  // The checker throws a bare Error where two overloads fit equally well, as in [].all(e, e > 0).
  const { message } = cause instanceof Error ? cause : new Error('it cannot be checked')
  return [`The types of the expression are not clear: ${message}`, 0, source.length]
}

// ------------------------------------------------------------------ why it failed

// Summaries with these codes hold types and names of functions only. All others may quote the event.
const WORDS_ARE_SAFE: ReadonlySet<string> = new Set([
  'no_such_overload',
  'no_matching_overload',
  'invalid_condition_type',
  'invalid_logical_operand',
])

function failureOf(cause: unknown, source: string): CelFailure {
  if (cause instanceof CelLimit) return failure(cause.code, cause.message)
  if (cause instanceof RangeError) return failure('too_deep', 'the data nests too deeply')
  if (!(cause instanceof EvaluationError || cause instanceof TypeError)) {
    return failure('evaluation_error', 'the expression could not be evaluated')
  }
  const words = WORDS_ARE_SAFE.has(cause.code) ? cause.summary : cause.code.replaceAll('_', ' ')
  const { node } = cause
  const where = node === undefined ? '' : source.slice(node.start, node.end).replace(/\s+/g, ' ').slice(0, 80)
  return failure(cause.code, where === '' ? words : `${words}: ${where}`)
}

// ------------------------------------------------------------------ the event

/** The event as expressions see it. */
export function celEvent(event: Event, tenant?: string): CelEvent {
  return {
    id: event.id,
    source: event.source,
    type: event.type,
    domain: domainOf(event.type),
    subject: event.subject,
    time: event.time,
    data: celData(event.data),
    priority: event.priority,
    category: event.category,
    tenant,
  }
}

export function domainOf(type: string): string {
  const dot = type.indexOf('.')
  return dot === -1 ? type : type.slice(0, dot)
}

/**
 * The library tells objects by their `constructor`, so data with a field of that name (a Formula One feed has
 * one) would be unreadable. Such objects become Maps, which it reads alike; all other data passes untouched.
 */
export function celData(data: JsonObject): JsonObject {
  // A Map stands in for an object that only the evaluator and the index read; both know Maps.
  return namesConstructor(data) ? (asMaps(data, 0) as JsonObject) : data
}

function namesConstructor(data: JsonObject): boolean {
  const open: (JsonObject | Json[])[] = [data]
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    if (Array.isArray(next)) {
      for (const item of next) if (typeof item === 'object' && item !== null) open.push(item)
      continue
    }
    if (Object.hasOwn(next, 'constructor')) return true
    for (const name in next) {
      const field = next[name]
      if (typeof field === 'object' && field !== null) open.push(field)
    }
  }
  return false
}

function asMaps(value: Json | undefined, depth: number): unknown {
  if (typeof value !== 'object' || value === null || depth > 200) return value
  if (Array.isArray(value)) return value.map(item => asMaps(item, depth + 1))
  return new Map(Object.entries(value).map(([name, field]) => [name, asMaps(field, depth + 1)]))
}
