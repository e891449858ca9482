import {
  type Bindings,
  type ChildLoggerOptions,
  type DestinationStream,
  type Logger,
  pino,
  stdTimeFunctions,
} from 'pino'

export type { Logger }

export interface LogOptions {
  level: string
  /** One readable line for a person at a terminal, instead of JSON. */
  readable?: boolean
  /** Default: standard output. */
  destination?: DestinationStream
}

/**
 * The logger. Its lines are JSON with the level as a word and the time in ISO 8601, and they never hold content or
 * secrets, whatever somebody hands it: fields are judged by their name at any depth, errors are reduced to what
 * they may say, and the finished line is searched once more for what looks like a credential or an address.
 * Logging is off the hot path (no line per request or delivery below `debug`), so it can afford that.
 */
export function createLogger({
  level,
  readable = false,
  destination = pino.destination(1),
}: LogOptions): Logger {
  const log = pino(
    {
      level,
      base: null,
      timestamp: stdTimeFunctions.isoTime,
      formatters: {
        level: label => ({ level: label }),
        log: cleanFields,
      },
      // `clean` has reduced errors already; pino's own serializer would add everything an error carries.
      serializers: { err: error => error },
      hooks: {
        logMethod(args, method) {
          // An error alone: pino would take its message as it is.
          const fields: unknown = args[0]
          const error =
            fields instanceof Error ? fields : (fields as { err?: unknown } | null | undefined)?.err
          if (args.length === 1 && error instanceof Error) method.call(this, fields, messageOf(error))
          else method.apply(this, args)
        },
        streamWrite: line => scrub(readable ? toReadable(line) : line),
      },
    },
    destination,
  )
  // pino has no formatter for the bindings of children. Children inherit this one, so theirs are cleaned as well.
  const inherited = Object.getPrototypeOf(log) as Logger
  log.child = function <C extends string>(this: Logger, fields: Bindings, options?: ChildLoggerOptions<C>) {
    return inherited.child.call(this, cleanFields(fields), options)
  } as Logger['child']
  return log
}

const cleanFields = (fields: object): Record<string, unknown> => clean(fields, 0) as Record<string, unknown>

const HIDDEN = '<redacted>'
const MAX_DEPTH = 6
const MAX_ITEMS = 50
const MAX_TEXT = 2000

// Compared without case, dashes and underscores.
const HIDDEN_NAMES = new Set([
  'to',
  'cc',
  'bcc',
  'address',
  'addresses',
  'subject',
  'body',
  'rawbody',
  'html',
  'text',
  'data',
  'content',
  'contents',
  'payload',
  'variables',
  'parameters',
  'values',
  'key',
  'apikey',
  'xapikey',
  'accesskey',
  'privatekey',
  'masterkey',
  'datakey',
  'headers',
])
const HIDDEN_PARTS = /passw|secret|token|authorization|cookie|credential|email|phone|msisdn/

const hides = (name: string): boolean => {
  const plain = name.toLowerCase().replaceAll(/[-_]/g, '')
  return HIDDEN_NAMES.has(plain) || HIDDEN_PARTS.test(plain)
}

function clean(value: unknown, depth: number): unknown {
  if (typeof value === 'string') return value.length > MAX_TEXT ? `${value.slice(0, MAX_TEXT)}…` : value
  if (typeof value === 'bigint') return String(value)
  if (typeof value !== 'object' || value === null) return value
  if (value instanceof Error) return cleanError(value, depth)
  if (value instanceof Date) return value
  if (ArrayBuffer.isView(value)) return `<${value.byteLength} bytes>`
  if (depth >= MAX_DEPTH) return '<deeper>'
  if (Array.isArray(value)) {
    const items = value.slice(0, MAX_ITEMS).map(item => clean(item, depth + 1))
    return value.length > MAX_ITEMS ? [...items, `<${value.length - MAX_ITEMS} more>`] : items
  }
  // A socket, a request, a connection: its name is enough, and walking into it would find credentials.
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null)
    return `<${prototype.constructor?.name ?? 'object'}>`
  if ('toJSON' in value && typeof value.toJSON === 'function') return clean(value.toJSON(), depth + 1)
  const cleaned: Record<string, unknown> = {}
  for (const [name, field] of Object.entries(value)) {
    cleaned[name] = hides(name) && field !== undefined && field !== null ? HIDDEN : clean(field, depth + 1)
  }
  return cleaned
}

/** PostgreSQL puts values of rows into messages, details and contexts; what names the fault holds none. */
const DATABASE_FIELDS = ['code', 'severity', 'schema', 'table', 'column', 'constraint', 'routine'] as const

function cleanError(error: Error, depth: number): Record<string, unknown> {
  const fields = error as Error & Record<string, unknown>
  const cleaned: Record<string, unknown> = { type: error.name, message: messageOf(error) }
  if (fromDatabase(error)) for (const name of DATABASE_FIELDS) cleaned[name] = fields[name]
  else if (typeof fields.code === 'string' || typeof fields.code === 'number') cleaned.code = fields.code
  if (Array.isArray(fields.errors)) cleaned.errors = fields.errors.length
  // The stack begins with the message, which has just been cleaned.
  const frames = error.stack?.slice(Math.max(0, error.stack.indexOf('\n    at ')))
  if (frames?.startsWith('\n')) cleaned.stack = clean(frames.trim(), depth)
  if (error.cause !== undefined && depth < MAX_DEPTH) cleaned.cause = clean(error.cause, depth + 1)
  return cleaned
}

const fromDatabase = (error: Error): boolean => 'severity' in error && 'routine' in error

function messageOf(error: Error): string {
  // 'invalid input syntax for type uuid: "…"', but not 'relation "events" does not exist'.
  const message = fromDatabase(error) ? error.message.replace(/: ".*"/s, `: "${HIDDEN}"`) : error.message
  return message.length > MAX_TEXT ? `${message.slice(0, MAX_TEXT)}…` : message
}

// The last net, for texts that carry what no field name gives away. Each stops before a quote or backslash, so a
// line stays JSON.
const CREDENTIALS: [RegExp, string][] = [
  [/\b(Bearer|Basic) [A-Za-z0-9._~+/=-]{8,}/gi, `$1 ${HIDDEN}`],
  [/\bcrl_[A-Za-z0-9_-]{20,}/g, HIDDEN],
  [/\b(whsec_|sk_|SG\.|xox[a-z]-)[A-Za-z0-9._+/=-]{8,}/g, HIDDEN],
  [/\beyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*/g, HIDDEN],
  [/:\/\/[^\s/@"\\]*:[^\s/@"\\]*@/g, `://${HIDDEN}@`],
  [/[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}/g, HIDDEN],
  [/\+[1-9]\d{7,14}\b/g, HIDDEN],
]

function scrub(line: string): string {
  let scrubbed = line
  for (const [pattern, replacement] of CREDENTIALS) scrubbed = scrubbed.replace(pattern, replacement)
  return scrubbed
}

/** `12:01:02 warn  the message  name=value` */
function toReadable(line: string): string {
  const { time, level, msg, err, ...fields } = JSON.parse(line) as Record<string, unknown> & { msg?: string }
  const words = [msg ?? '']
  for (const [name, value] of Object.entries(fields)) {
    words.push(`${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
  }
  const { message, stack } = (err ?? {}) as { message?: string; stack?: string }
  const fault = err === undefined ? '' : `\n  ${message}${stack === undefined ? '' : `\n  ${stack}`}`
  return `${String(time).slice(11, 19)} ${String(level).padEnd(5)} ${words.join('  ')}${fault}\n`
}
