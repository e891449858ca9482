import type { ASTNode } from '@marcbachmann/cel-js'
import { LRUCache } from 'lru-cache'
import { RE2JS } from 're2js'
import { zonedField, ZONED_FIELDS } from './zoned-time.ts'

/**
 * Makes a checked CEL program safe to run: its work is metered, its regular expressions are linear and the
 * strings it builds are bounded.
 *
 * @marcbachmann/cel-js 8.0.0 bounds what it parses but not what it runs, and hands `matches` to the native
 * RegExp (one 28-character string blocked it for 22 s). After its type check every AST node carries the function
 * that will run it (`handle`), and every macro carries its expansion (`meta.alternate`). Those are internals:
 * the version is pinned exactly, and cel.test.ts fails when they move.
 */

/**
 * Work one evaluation may do. One tick is about 16 AST nodes inside a loop, 256 characters read or 8 list
 * elements walked, or 64 characters × instructions of a regular expression: 0.5–4 µs. So the worst evaluation
 * takes 10 to 40 ms, and an ordinary one 0.3 µs.
 */
export const TICKS = 10_000
/** Longest string an expression may build, in UTF-16 units. Strings of the event itself may be longer. */
export const MAX_STRING = 262_144
/** Longest string `matches` reads: RE2 is linear in text × pattern, so both need a bound. */
export const MAX_REGEX_INPUT = 65_536
const MAX_REGEX_SOURCE = 512
const MAX_REGEX_PROGRAM = 1_000
/** re2js may cache 8 MB of automaton states for each pattern; past this it falls back to the slower machine. */
export const REGEX_STATE_BYTES = 262_144
/** An unseen zone name costs ICU about 50 µs. */
const ZONE_TICKS = 20
/** A pattern that is not a constant is compiled while the event waits: 0.1–1 ms. */
const REGEX_COMPILE_TICKS = 500

/** What the library keeps on a node beyond its published types. */
export type Node = ASTNode & {
  readonly meta: { alternate?: ComprehensionNode; macro?: unknown }
  handle?: (...args: never[]) => unknown
}
interface ComprehensionNode {
  op: string
  args: { condition?: (accu: unknown) => boolean }
  handle?: (items: unknown, ...rest: unknown[]) => unknown
}

/** Thrown out of an evaluation, in the style of the library's own errors, or out of `meter` with its place. */
export class CelLimit extends Error {
  readonly code: string
  readonly start: number | undefined
  readonly end: number | undefined
  constructor(code: string, message: string, place?: { start: number; end: number }) {
    super(message)
    this.code = code
    this.start = place?.start
    this.end = place?.end
  }
}

// The library catches errors inside `||`, `&&`, `all` and `exists` and goes on. So running out is a state, not
// only a throw: every loop ends at its next step, and the caller looks at `exhausted()` whatever came back.
let left = 0
const outOfTicks = new CelLimit('budget_exceeded', `the evaluation needs more than ${TICKS} steps`)

export function refill(): void {
  left = TICKS
}

export function exhausted(): boolean {
  return left < 0
}

export function spend(ticks: number): void {
  left -= ticks
  if (left < 0) throw outOfTicks
}

/** Every child expression, in source order. */
export function children(node: Node): Node[] {
  switch (node.op) {
    case 'value':
    case 'id':
      return []
    case '.':
    case '.?':
      return [node.args[0] as Node]
    case 'call':
      return node.args[1] as Node[]
    case 'rcall':
      return [node.args[1] as Node, ...(node.args[2] as Node[])]
    case 'map':
      return (node.args as [Node, Node][]).flat()
    case '!_':
    case '-_':
      return [node.args as Node]
    default:
      return node.args as Node[]
  }
}

export const COMPREHENSIONS: ReadonlySet<string> = new Set(['all', 'exists', 'exists_one', 'map', 'filter'])

export function isComprehension(node: Node): boolean {
  return node.op === 'rcall' && COMPREHENSIONS.has(node.args[0])
}

/** Meters a whole checked AST in place; returns its number of nodes. */
export function meter(node: Node): number {
  let nodes = 1
  let inLoop = 0
  children(node).forEach((child, i) => {
    const size = meter(child)
    nodes += size
    if (i > 0) inLoop += size
  })
  const expansion = node.meta.alternate
  if (expansion?.op === 'comprehension') meterLoop(expansion, 1 + (inLoop >>> 4))
  else if (node.handle && node.op === 'call') meterCall(node, node.args[0], node.args[1].length)
  else if (node.handle && node.op === 'rcall') meterMethod(node, node.args[0], node.args[2].length)
  else if (node.handle && BINARY.has(node.op)) meterBinary(node)
  return nodes
}

const BINARY: ReadonlySet<string> = new Set(['==', '!=', 'in', '+', '<', '<=', '>', '>='])

function meterLoop(loop: ComprehensionNode, ticksPerStep: number): void {
  const goesOn = loop.args.condition
  // Called before each step by both of the library's loops.
  loop.args.condition = accu => {
    left -= ticksPerStep
    return left >= 0 && (goesOn === undefined || goesOn(accu))
  }
  const run = loop.handle
  if (run === undefined) throw new Error('cel-js changed: a comprehension has no handle')
  loop.handle = (items, ...rest) => {
    if (items === null || typeof items !== 'object' || Array.isArray(items)) return run(items, ...rest)
    const keys = items instanceof Map ? [...items.keys()] : Object.keys(items)
    spend(keys.length >>> 3)
    return run(keys, ...rest)
  }
}

type Handle = (...args: unknown[]) => unknown

/** Arguments in, result out; `undefined` means the library's own handler decides. */
type Override = (args: unknown[]) => unknown

function meterCall(node: Node, name: string, arity: number): void {
  const run = node.handle as unknown as Handle
  const override = CALLS[`${name}/${arity}`]
  node.handle = ((args: unknown[], ...rest: unknown[]) => {
    for (const arg of args) spend(weight(arg))
    return override?.(args) ?? run(args, ...rest)
  }) as Node['handle']
}

function meterMethod(node: Node, name: string, arity: number): void {
  const run = node.handle as unknown as Handle
  const constant =
    node.op === 'rcall' && name === 'matches' ? constantRegex(node.args[2][0] as Node) : undefined
  const override: Override | undefined = constant
    ? ([text]) => (typeof text === 'string' ? search(constant, text) : undefined)
    : METHODS[`${name}/${arity}`]
  node.handle = ((args: unknown[], ...rest: unknown[]) => {
    for (const arg of args) spend(weight(arg))
    return override?.(args) ?? run(args, ...rest)
  }) as Node['handle']
}

function meterBinary(node: Node): void {
  const [left, right] = children(node) as [Node, Node]
  // Against a literal scalar the work is bounded by the literal, and this is what nearly every rule does.
  if (node.op !== '+' && (isScalar(left) || isScalar(right))) return
  const run = node.handle as unknown as Handle
  const compares = node.op !== '+'
  node.handle = ((a: unknown, b: unknown, ...rest: unknown[]) => {
    if (typeof a === 'string' && typeof b === 'string') {
      if (!compares) bounded(a.length + b.length)
      spend((compares ? Math.min(a.length, b.length) : a.length + b.length) >>> 8)
    } else if (compares && isObject(a) && isObject(b)) {
      // `in` compares its left side with each element anew.
      const times = node.op === 'in' && Array.isArray(b) ? b.length : 1
      spend((1 + deepWeight(a)) * times + deepWeight(b))
    } else {
      spend(weight(a) + weight(b))
    }
    return run(a, b, ...rest)
  }) as Node['handle']
}

function isScalar(node: Node): boolean {
  return node.op === 'value'
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null
}

function weight(value: unknown): number {
  if (typeof value === 'string') return value.length >>> 8
  if (Array.isArray(value)) return value.length >>> 3
  if (value instanceof Uint8Array) return value.length >>> 8
  return 0
}

/** Ticks to compare a whole value with another, about 0.6 µs a part; stops counting once the budget is passed. */
function deepWeight(value: object): number {
  const most = left * 2
  const open: object[] = [value]
  let count = 0
  for (let next = open.pop(); next !== undefined && count <= most; next = open.pop()) {
    const items = Array.isArray(next) ? next : next instanceof Map ? next.values() : Object.values(next)
    for (const item of items) {
      count += typeof item === 'string' ? 1 + (item.length >>> 5) : 1
      if (isObject(item)) open.push(item)
    }
  }
  return count >>> 1
}

function bounded(length: number): void {
  if (length > MAX_STRING) {
    throw new CelLimit(
      'string_too_long',
      `the expression builds a string of more than ${MAX_STRING} characters`,
    )
  }
}

// ------------------------------------------------------------------ functions the library gets wrong

const failed = (code: string, message: string): never => {
  throw new CelLimit(code, message)
}

const RFC3339 = /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})$/
const DURATION = /^[+-]?(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+$/
const INTEGER = /^[+-]?\d{1,20}$/
const DOUBLE = /^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf|infinity|nan)$/i

const CALLS: Record<string, Override | undefined> = {
  // `new Date` also reads dates without a zone, in the zone of this machine.
  'timestamp/1': ([text]) =>
    typeof text === 'string' && !RFC3339.test(text)
      ? failed('invalid_timestamp', 'timestamp() needs an RFC 3339 date and time')
      : undefined,
  // The library's pattern is cubic in a run of digits.
  'duration/1': ([text]) =>
    typeof text === 'string' && (text.length > 64 || !DURATION.test(text))
      ? failed('invalid_duration', 'duration() needs numbers with units, such as 1h30m')
      : undefined,
  // BigInt and Number also read '', '0b1', '0x1'.
  'int/1': ([value]) => {
    if (typeof value === 'string' && !INTEGER.test(value))
      failed('int_conversion_error', 'int() needs a whole number')
    if (typeof value === 'number' && !(Math.abs(value) < 2 ** 63))
      failed('numeric_overflow', 'the number does not fit an int')
    return undefined
  },
  'uint/1': ([text]) =>
    typeof text === 'string' && !INTEGER.test(text)
      ? failed('uint_conversion_error', 'uint() needs a whole number')
      : undefined,
  'double/1': ([text]) =>
    typeof text === 'string' && (text.length > 64 || !DOUBLE.test(text))
      ? failed('double_conversion_error', 'double() needs a number')
      : undefined,
  'size/1': ([value]) => sizeOfMap(value),
}

const METHODS: Record<string, Override | undefined> = {
  'size/0': ([value]) => sizeOfMap(value),
  'matches/1': ([text, pattern]) =>
    typeof text === 'string' && typeof pattern === 'string' ? search(dynamicRegex(pattern), text) : undefined,
  // The specification changes A–Z only; the library every letter.
  'lowerAscii/0': ([text]) =>
    typeof text === 'string' ? text.replace(/[A-Z]+/g, run => run.toLowerCase()) : undefined,
  'upperAscii/0': ([text]) =>
    typeof text === 'string' ? text.replace(/[a-z]+/g, run => run.toUpperCase()) : undefined,
  'join/0': ([list]) => boundJoin(list, ''),
  'join/1': ([list, separator]) => boundJoin(list, separator),
  // The library reads both in the zone of this machine.
  'getDayOfYear/0': ([time]) => (time instanceof Date ? zonedField('getDayOfYear', time, 'UTC') : undefined),
}
for (const field of ZONED_FIELDS) {
  METHODS[`${field}/1`] = ([time, zone]) => {
    if (!(time instanceof Date) || typeof zone !== 'string') return undefined
    spend(ZONE_TICKS)
    return zonedField(field, time, zone) ?? failed('invalid_zone', 'there is no such time zone')
  }
}

function sizeOfMap(value: unknown): bigint | undefined {
  if (!isObject(value) || Object.getPrototypeOf(value) !== Object.prototype) return undefined
  const size = Object.keys(value).length
  spend(size >>> 3)
  return BigInt(size)
}

function boundJoin(list: unknown, separator: unknown): undefined {
  if (!Array.isArray(list)) return
  const between = typeof separator === 'string' ? separator.length : 0
  let length = 0
  for (const item of list) length += between + (typeof item === 'string' ? item.length : 0)
  bounded(length)
  spend(length >>> 8)
}

// ------------------------------------------------------------------ regular expressions

const regexes = new LRUCache<string, RE2JS>({ max: 1_000 })

/** RE2 syntax, as CEL has it. Throws CelLimit. */
export function regex(pattern: string): RE2JS {
  const known = regexes.get(pattern)
  if (known) return known
  if (pattern.length > MAX_REGEX_SOURCE) {
    throw new CelLimit('invalid_regex', `a regular expression is longer than ${MAX_REGEX_SOURCE} characters`)
  }
  let compiled: RE2JS
  try {
    compiled = RE2JS.compile(pattern)
  } catch (cause) {
    throw new CelLimit('invalid_regex', cause instanceof Error ? cause.message : 'invalid regular expression')
  }
  if (compiled.programSize() > MAX_REGEX_PROGRAM) {
    throw new CelLimit(
      'invalid_regex',
      'a regular expression is too large once its repetitions are written out',
    )
  }
  const { dfa } = compiled.re2Input
  dfa.maxMem = dfa.stateBudget = dfa.memBudget = REGEX_STATE_BYTES
  regexes.set(pattern, compiled)
  return compiled
}

function constantRegex(node: Node): RE2JS | undefined {
  if (node.op !== 'value' || typeof node.args !== 'string') return undefined
  try {
    return regex(node.args)
  } catch (cause) {
    throw cause instanceof CelLimit ? new CelLimit(cause.code, cause.message, node) : cause
  }
}

function dynamicRegex(pattern: string): RE2JS {
  if (!regexes.has(pattern)) spend(REGEX_COMPILE_TICKS)
  try {
    return regex(pattern)
  } catch {
    // The parser quotes the pattern, which here is content of the event.
    throw new CelLimit('invalid_regex', 'matches() was given no usable regular expression')
  }
}

function search(pattern: RE2JS, text: string): boolean {
  if (text.length > MAX_REGEX_INPUT) {
    throw new CelLimit('regex_input_too_long', `matches() reads at most ${MAX_REGEX_INPUT} characters`)
  }
  spend(1 + ((text.length * pattern.programSize()) >>> 6))
  return pattern.test(text)
}
