import { isUtf8 } from 'node:buffer'
import formatsPlugin from 'ajv-formats'
import { AppError } from '../errors.ts'
import { parseJsonBody } from '../http/json-body.ts'
import { readPriority } from '../spelling.ts'
import type { Event, JsonObject } from '../types.ts'
import { newId } from '../db/ids.ts'
import { EVENT_TYPE, MAX_AHEAD_MS, dataOf, isInstant } from './event-input.ts'
import type { Origin } from './event-input.ts'

/**
 * CloudEvents 1.0.2: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md and its HTTP binding.
 *
 * Beyond the core attributes five extensions are read: `traceparent` (distributed tracing), `expirytime` and
 * `scheduledtime` (RFC 3339), `priority` and `category`. Others are checked and let go: rules see core attributes and
 * data.
 */

type Headers = Record<string, string | string[] | undefined>

export type Mode = 'structured' | 'batched' | 'binary'

/** RFC 3986 §4.1, as the JSON Schema of CloudEvents asks for. */
const URI_REFERENCE = (formatsPlugin as unknown as typeof formatsPlugin.default).get(
  'uri-reference',
) as RegExp
const STRUCTURED = /^application\/cloudevents\+json\s*(;|$)/i
const BATCHED = /^application\/cloudevents-batch\+json\s*(;|$)/i

/**
 * How a request carries CloudEvents (HTTP binding §3); undefined when it does not say. The content type goes first: a
 * structured event may repeat its attributes as headers (§3.2.3), which are then only for those on the way.
 */
export function modeOf(headers: Headers): Mode | undefined {
  const type = headers['content-type']
  if (typeof type === 'string') {
    if (STRUCTURED.test(type)) return 'structured'
    if (BATCHED.test(type)) return 'batched'
  }
  return headers['ce-specversion'] === undefined ? undefined : 'binary'
}

const TYPE = new RegExp(EVENT_TYPE)
const NAME = /^[a-z0-9]{1,20}$/
const JSON_TYPE = /^(application|text)\/([\w.+-]+\+)?json\s*(;|$)/i
const TEXT_TYPE = /^(text\/|application\/([\w.-]+\+)?xml)/i
/** Version 00 of the distributed tracing extension; ids of zeros alone are invalid (W3C Trace Context §3.2.2). */
const TRACEPARENT = /^00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const STANDARD = new Set([
  'specversion',
  'id',
  'source',
  'type',
  'datacontenttype',
  'dataschema',
  'subject',
  'time',
  'data',
  'data_base64',
])

const refuse = (field: string, message: string) => new AppError('invalid_cloudevent', message, { field })

/** @throws AppError invalid_cloudevent naming the attribute */
export function readStructured(item: unknown, origin: Origin): Event {
  if (typeof item !== 'object' || item === null || Array.isArray(item))
    throw refuse('/', 'An event is a JSON object')
  const attributes = item as Record<string, unknown>
  for (const name of Object.keys(attributes)) {
    if (STANDARD.has(name)) continue
    if (!NAME.test(name)) throw refuse(`/${name.slice(0, 50)}`, 'Attribute names are 1 to 20 of a-z and 0-9')
    const value = attributes[name]
    if (value !== null && typeof value === 'object')
      throw refuse(`/${name}`, 'Extensions are not objects or lists')
  }
  if (attributes.data !== undefined && attributes.data_base64 !== undefined) {
    throw refuse('/data_base64', 'Give either data or data_base64')
  }
  const contentType = text(attributes, 'datacontenttype')
  const data =
    attributes.data_base64 === undefined
      ? jsonData(attributes.data, contentType)
      : base64Data(attributes.data_base64, contentType)
  return build(attributes, data, origin)
}

/**
 * Binary mode: attributes are `ce-` headers, percent-encoded where they leave printable ASCII (§3.1.3.2), and the
 * body is the data.
 *
 * @throws AppError invalid_cloudevent naming the header
 */
export function readBinary(headers: Headers, body: unknown, origin: Origin): Event {
  const attributes: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith('ce-') || value === undefined) continue
    const raw = Array.isArray(value) ? value[0]! : value
    if (!NAME.test(name.slice(3)))
      throw refuse(name.slice(0, 50), 'Attribute names are 1 to 20 of a-z and 0-9')
    try {
      attributes[name.slice(3)] = decodeURIComponent(unquoted(raw))
    } catch {
      throw refuse(name, 'The percent-encoding is broken')
    }
    // The one way in that passes by the JSON parser, which refuses it; PostgreSQL has no NUL in text.
    if (raw.includes('%00')) throw refuse(name, 'A NUL character cannot be stored')
  }
  const contentType = headers['content-type']
  if (typeof contentType === 'string') attributes.datacontenttype = contentType
  const data = Buffer.isBuffer(body)
    ? bytesData(body, attributes.datacontenttype as string | undefined)
    : jsonData(body, attributes.datacontenttype as string | undefined)
  return build(attributes, data, origin)
}

/** A header's value may be a quoted string (RFC 9110 §5.6.4); it is unquoted before it is decoded. */
function unquoted(value: string): string {
  if (value.length < 2 || !value.startsWith('"') || !value.endsWith('"')) return value
  return value.slice(1, -1).replaceAll(/\\(.)/g, '$1')
}

/** What makes two requests in binary mode the same: what they say in headers, and the body. */
export const binaryIdentity = (headers: Record<string, unknown>, body: unknown): unknown => ({
  attributes: Object.fromEntries(Object.entries(headers).filter(([name]) => name.startsWith('ce-'))),
  body: Buffer.isBuffer(body) ? body.toString('base64') : body,
})

function build(
  attributes: Record<string, unknown>,
  data: JsonObject,
  { tenantId, now, traceId }: Origin,
): Event {
  if (attributes.specversion !== '1.0') throw refuse('/specversion', 'specversion is "1.0"')
  const id = required(attributes, 'id', 255)
  const source = required(attributes, 'source', 500)
  const type = required(attributes, 'type', 255)
  if (!TYPE.test(type))
    throw refuse('/type', 'A type is segments of letters, digits, _ and -, joined by dots')
  if (!URI_REFERENCE.test(source)) throw refuse('/source', 'source is a URI reference')
  const expiresAt = time(attributes, 'expirytime')
  if (expiresAt && expiresAt <= now) throw refuse('/expirytime', 'It has expired already')
  const scheduledAt = time(attributes, 'scheduledtime')
  if (scheduledAt && scheduledAt.getTime() - now.getTime() > MAX_AHEAD_MS) {
    throw refuse('/scheduledtime', 'Nothing is scheduled more than a year ahead')
  }
  if (expiresAt && scheduledAt && expiresAt <= scheduledAt) {
    throw refuse('/expirytime', 'It would expire before it is due')
  }
  const priority = text(attributes, 'priority')
  const read = priority === undefined ? undefined : readPriority(priority)
  if (priority !== undefined && read === undefined) throw refuse('/priority', 'CRITICAL, HIGH, NORMAL or LOW')
  const traceparent = text(attributes, 'traceparent')
  return {
    tenantId,
    id: newId(now.getTime()),
    externalId: id,
    source,
    type,
    subject: text(attributes, 'subject', 500),
    time: time(attributes, 'time') ?? now,
    receivedAt: now,
    data,
    priority: read,
    category: text(attributes, 'category', 100),
    expiresAt,
    scheduledAt,
    traceId: (traceparent && TRACEPARENT.exec(traceparent)?.[1]) ?? traceId,
  }
}

function text(attributes: Record<string, unknown>, name: string, max = 2048): string | undefined {
  const value = attributes[name]
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string' || value.length === 0 || value.length > max) {
    throw refuse(`/${name}`, `${name} is a text of 1 to ${max} characters`)
  }
  return value
}

function required(attributes: Record<string, unknown>, name: string, max: number): string {
  const value = text(attributes, name, max)
  if (value === undefined) throw refuse(`/${name}`, `${name} is required`)
  return value
}

function time(attributes: Record<string, unknown>, name: string): Date | undefined {
  const value = text(attributes, name)
  if (value === undefined) return undefined
  if (!isInstant(value)) throw refuse(`/${name}`, `${name} is an RFC 3339 time`)
  return new Date(value)
}

/** Rules and templates work on an object, so any other JSON value becomes its `value`. */
function jsonData(data: unknown, contentType: string | undefined): JsonObject {
  if (data === undefined || data === null) return {}
  if (contentType !== undefined && !JSON_TYPE.test(contentType) && typeof data !== 'string') {
    throw refuse('/datacontenttype', 'Data that is not JSON comes as a text or as data_base64')
  }
  if (typeof data === 'object' && !Array.isArray(data)) return dataOf(data)
  return dataOf({ value: data })
}

function base64Data(encoded: unknown, contentType: string | undefined): JsonObject {
  if (typeof encoded !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(encoded)) {
    throw refuse('/data_base64', 'data_base64 is base64 text')
  }
  if (contentType !== undefined && JSON_TYPE.test(contentType)) {
    return jsonData(parsed(Buffer.from(encoded, 'base64'), '/data_base64'), contentType)
  }
  return dataOf({ base64: encoded, ...(contentType !== undefined && { contentType }) })
}

/** Bytes of whatever type: JSON becomes what it says, text its `value`, anything else `base64`. */
function bytesData(bytes: Buffer, contentType: string | undefined): JsonObject {
  if (contentType !== undefined && JSON_TYPE.test(contentType)) {
    return jsonData(parsed(bytes, '/data'), contentType)
  }
  if (contentType !== undefined && TEXT_TYPE.test(contentType) && isUtf8(bytes) && !bytes.includes(0)) {
    return dataOf({ value: bytes.toString('utf8'), contentType })
  }
  return dataOf({ base64: bytes.toString('base64'), ...(contentType !== undefined && { contentType }) })
}

/** JSON that did not come through the server's own parser: the same bounds hold for it. */
function parsed(bytes: Buffer, field: string): unknown {
  let value: unknown
  try {
    value = parseJsonBody(bytes, JSON.parse)
  } catch (error) {
    if (error instanceof AppError) throw refuse(field, error.message)
    throw refuse(field, 'It does not hold the JSON that datacontenttype promises')
  }
  if (hasProto(value)) throw refuse(field, '__proto__ is no name for data')
  return value
}

function hasProto(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false
  return Object.hasOwn(value, '__proto__') || Object.values(value).some(hasProto)
}
