import { Ajv2020 } from 'ajv/dist/2020.js'
import type { ErrorObject } from 'ajv/dist/2020.js'
import formatsPlugin from 'ajv-formats'
import { Type } from 'typebox'
import type { Static } from 'typebox'
import { newId } from '../db/ids.ts'
import { AppError } from '../errors.ts'
import { normalizeAddress } from '../people/addresses.ts'
import { CHANNEL_SPELLINGS, PRIORITY_SPELLINGS, readChannel, readPriority } from '../spelling.ts'
import { CHANNELS, MAX_THREAD } from '../types.ts'
import type { Channel, DirectSend, Event, JsonObject, TenantId } from '../types.ts'

/** Bounds of one event. */
export const MAX_DATA_BYTES = 256 * 1024
export const MAX_AHEAD_MS = 366 * 86_400_000
/** `commerce.order.shipped`: segments of letters, digits, `_` and `-`. */
export const EVENT_TYPE = '^[A-Za-z0-9_-]+([.:/][A-Za-z0-9_-]+)*$'

const OUTSIDE = CHANNELS.filter(channel => channel !== 'in_app')
const Time = Type.String({ format: 'date-time' })
const ChannelName = Type.Enum([...CHANNEL_SPELLINGS])
const PriorityName = Type.Enum([...PRIORITY_SPELLINGS])
const Data = Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 1000 })

/** Said by whoever sends; shown back as it is, so it should hold nothing that is nobody's business. */
export const ThreadName = Type.String({
  minLength: 1,
  maxLength: MAX_THREAD,
  description: 'What it belongs to: messages of one thread are shown together.',
})

const timing = {
  priority: Type.Optional(PriorityName),
  scheduledAt: Type.Optional(Time),
  expiresAt: Type.Optional(Time),
}

/** What our own API takes as an event. */
export const EventInput = Type.Object(
  {
    type: Type.String({ minLength: 1, maxLength: 255, pattern: EVENT_TYPE }),
    source: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    id: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 255,
        description: 'Unique with source: a second one is a duplicate.',
      }),
    ),
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    time: Type.Optional(Time),
    data: Type.Optional(Data),
    category: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    ...timing,
  },
  { additionalProperties: false },
)

/** The documented body of trading events: type and subtype, and possibly whom to tell and how. */
export const TypedEventInput = Type.Object(
  {
    type: Type.String({ minLength: 1, maxLength: 100, pattern: '^[A-Za-z0-9_]+$' }),
    subtype: Type.String({ minLength: 1, maxLength: 150, pattern: '^[A-Za-z0-9_]+$' }),
    userId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    channels: Type.Optional(Type.Array(ChannelName, { minItems: 1, maxItems: 10 })),
    templateId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    id: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    source: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    data: Type.Optional(Data),
    maxRetries: Type.Optional(Type.Integer({ minimum: 0, maximum: 20 })),
    ...timing,
  },
  { additionalProperties: false },
)

/** A request to tell one recipient something, without a rule (DIC-153). */
export const SendInput = Type.Object(
  {
    recipientType: Type.Optional(
      Type.Enum(['USER', 'ROLE', 'GROUP', 'TOPIC', 'SYSTEM', 'user', 'role', 'group', 'topic', 'system']),
    ),
    recipientId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    recipients: Type.Optional(
      Type.Array(
        Type.Object(
          {
            type: Type.Enum(['user', 'role', 'group', 'topic']),
            id: Type.String({ minLength: 1, maxLength: 255 }),
          },
          { additionalProperties: false },
        ),
        { minItems: 1, maxItems: 1000 },
      ),
    ),
    address: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 2048,
        description: 'Of a recipient that is no user; one channel then.',
      }),
    ),
    addresses: Type.Optional(
      Type.Object(
        Object.fromEntries(
          OUTSIDE.map(channel => [
            channel,
            Type.Optional(
              Type.Array(Type.String({ minLength: 1, maxLength: 2048 }), { minItems: 1, maxItems: 100 }),
            ),
          ]),
        ),
        { additionalProperties: false, description: 'Bare addresses by channel, besides the recipients.' },
      ),
    ),
    channels: Type.Optional(Type.Array(ChannelName, { minItems: 1, maxItems: 10 })),
    fallbackChannels: Type.Optional(Type.Array(ChannelName, { maxItems: 10 })),
    templateId: Type.Optional(
      Type.String({ minLength: 1, maxLength: 255, description: 'Id or unique name.' }),
    ),
    templateVars: Type.Optional(Data),
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 998 })),
    body: Type.Optional(Type.String({ minLength: 1, maxLength: 100_000 })),
    bodyHtml: Type.Optional(Type.String({ minLength: 1, maxLength: 256_000 })),
    data: Type.Optional(Data),
    category: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
    thread: Type.Optional(ThreadName),
    metadata: Type.Optional(Data),
    ...timing,
  },
  { additionalProperties: false },
)

export type EventInput = Static<typeof EventInput>
export type TypedEventInput = Static<typeof TypedEventInput>
export type SendInput = Static<typeof SendInput>

// CommonJS default of a CommonJS default.
const addFormats = formatsPlugin as unknown as typeof formatsPlugin.default
const libraryDateTime = addFormats.get('date-time') as { validate(text: string): boolean }
const ajv = new Ajv2020({ strict: false, allErrors: false })
addFormats.default(ajv)
/** RFC 3339, but only instants that Date and PostgreSQL have too: no leap second, no zone without minutes, no year 0. */
export const isInstant = (text: string): boolean =>
  libraryDateTime.validate(text) && new Date(text).getUTCFullYear() >= 1
ajv.addFormat('date-time', { type: 'string', validate: isInstant })
const isEvent = ajv.compile<EventInput>(EventInput)
const isTyped = ajv.compile<TypedEventInput>(TypedEventInput)
const isSend = ajv.compile<SendInput>(SendInput)

/** Of the whole request: who sent it, and when. */
export interface Origin {
  tenantId: TenantId
  now: Date
  traceId: string | undefined
  /** The whole body is smaller than one event's data may be: nobody needs to measure it. */
  small?: boolean
}

/**
 * One event of our own, or of the documented typed, shape.
 *
 * @throws AppError invalid_request, naming the field within the item
 */
export function readEvent(item: unknown, origin: Origin): Event {
  if (typeof item === 'object' && item !== null && 'subtype' in item) return readTyped(item, origin)
  if (!isEvent(item)) throw refusal(isEvent.errors)
  return {
    ...base(item, origin),
    externalId: item.id,
    source: item.source ?? 'api',
    type: item.type,
    subject: item.subject,
    time: item.time === undefined ? origin.now : new Date(item.time),
    data: dataOf(item.data, origin),
    category: item.category,
  }
}

/** `TRADING` and `trade_executed` are `trading.trade_executed`; a user with channels is told directly. */
function readTyped(item: object, origin: Origin): Event {
  if (!isTyped(item)) throw refusal(isTyped.errors)
  const data = dataOf(item.data)
  const direct: DirectSend | undefined =
    item.userId !== undefined && (item.channels || item.templateId)
      ? {
          recipients: [{ type: 'user', id: item.userId }],
          channels: channelsOf(item.channels) ?? ['in_app'],
          fallback: [],
          templateId: item.templateId,
        }
      : undefined
  return {
    ...base(item, origin),
    externalId: item.id,
    source: item.source ?? 'api',
    type: `${item.type.toLowerCase()}.${item.subtype.toLowerCase()}`,
    time: origin.now,
    data: item.userId === undefined || direct ? data : { ...data, userId: item.userId },
    maxRetries: item.maxRetries,
    direct,
  }
}

/** The type under which direct requests travel. */
export const DIRECT_TYPE = 'carillon.notification.requested'

/** @throws AppError invalid_request, naming the field within the item */
export function readSend(item: unknown, origin: Origin): Event {
  if (!isSend(item)) throw refusal(isSend.errors)
  const refuse = (field: string, message: string) => new AppError('invalid_request', message, { field })
  if (item.templateId === undefined && item.body === undefined && item.bodyHtml === undefined) {
    throw refuse('/body', 'Give a templateId or a body')
  }
  const type = (item.recipientType ?? 'user').toLowerCase() as 'user' | 'role' | 'group' | 'topic' | 'system'
  const channels = channelsOf(item.channels) ?? ['in_app']
  const direct: DirectSend = {
    recipients: item.recipients ?? [],
    channels,
    fallback: channelsOf(item.fallbackChannels) ?? [],
    templateId: item.templateId,
    content:
      item.body === undefined && item.bodyHtml === undefined && item.subject === undefined
        ? undefined
        : {
            subject: item.subject,
            body: item.body,
            html: item.bodyHtml,
            data: item.data as JsonObject | undefined,
          },
    metadata: item.metadata as JsonObject | undefined,
    thread: item.thread,
  }
  if (type === 'system') {
    if (item.address === undefined) throw refuse('/address', 'A system recipient needs an address')
    if (item.recipientId !== undefined) {
      throw refuse('/recipientId', 'A system recipient is its address and has no id')
    }
    if (channels.length !== 1 || channels[0] === 'in_app') {
      throw refuse('/channels', 'An address belongs to exactly one channel, and in-app has none')
    }
    direct.addresses = { [channels[0]!]: [bareAddress(channels[0]!, item.address, '/address')] }
  } else {
    if (item.address !== undefined) throw refuse('/address', "A user's address is the user's own")
    direct.addresses = item.addresses && bareAddresses(item.addresses)
    if (item.recipientId === undefined && direct.recipients.length === 0 && !direct.addresses) {
      throw refuse('/recipientId', 'Say who is to be told')
    }
    if (item.recipientId !== undefined)
      direct.recipients = [...direct.recipients, { type, id: item.recipientId }]
  }
  return {
    ...base(item, origin),
    source: 'api',
    type: DIRECT_TYPE,
    time: origin.now,
    // What templates see; the content itself is in `direct`.
    data: dataOf(item.templateVars ?? item.data),
    category: item.category ?? categoryOf(item.metadata),
    direct,
  }
}

/** Channels whose addresses can be judged without asking anybody; the other ones are their vendors' to judge. */
const JUDGED: ReadonlySet<Channel> = new Set(['email', 'sms', 'whatsapp', 'voice', 'webhook'])

/** @throws AppError invalid_request for what cannot be an address of the channel */
export const bareAddress = (channel: Channel, address: string, field: string): string =>
  JUDGED.has(channel) ? normalizeAddress(channel, address, field) : address

const bareAddresses = (given: NonNullable<DirectSend['addresses']>): DirectSend['addresses'] =>
  Object.fromEntries(
    Object.entries(given).map(([channel, list]) => [
      channel,
      list.map((address, i) => bareAddress(channel as Channel, address, `/addresses/${channel}/${i}`)),
    ]),
  )

/** The documented place of it is the metadata, which may hold anything. */
function categoryOf(metadata: Record<string, unknown> | undefined): string | undefined {
  const category = metadata?.category
  if (category === undefined) return undefined
  if (typeof category === 'string' && category.length >= 1 && category.length <= 100) return category
  throw new AppError('invalid_request', 'category is a text of 1 to 100 characters', {
    field: '/metadata/category',
  })
}

const channelsOf = (names: string[] | undefined): Channel[] | undefined =>
  names && [...new Set(names.map(name => readChannel(name)!))]

function base(
  item: { priority?: string; scheduledAt?: string; expiresAt?: string },
  { tenantId, now, traceId }: Origin,
): Pick<Event, 'tenantId' | 'id' | 'receivedAt' | 'priority' | 'scheduledAt' | 'expiresAt' | 'traceId'> {
  const scheduledAt = item.scheduledAt === undefined ? undefined : new Date(item.scheduledAt)
  const expiresAt = item.expiresAt === undefined ? undefined : new Date(item.expiresAt)
  if (scheduledAt && scheduledAt.getTime() - now.getTime() > MAX_AHEAD_MS) {
    throw new AppError('invalid_request', 'Nothing is scheduled more than a year ahead', {
      field: '/scheduledAt',
    })
  }
  if (expiresAt && expiresAt <= now) {
    throw new AppError('invalid_request', 'It has expired already', { field: '/expiresAt' })
  }
  if (expiresAt && scheduledAt && expiresAt <= scheduledAt) {
    throw new AppError('invalid_request', 'It would expire before it is due', { field: '/expiresAt' })
  }
  return {
    tenantId,
    id: newId(now.getTime()),
    receivedAt: now,
    priority: item.priority === undefined ? undefined : readPriority(item.priority),
    scheduledAt,
    expiresAt,
    traceId,
  }
}

/** The size is only measured where it could matter: a walk that stops at the bound, not a stringify. */
export function dataOf(data: unknown, { small }: Pick<Origin, 'small'> = {}): JsonObject {
  if (data === undefined) return {}
  if (!small && sizeOf(data, MAX_DATA_BYTES) <= 0) {
    throw new AppError('body_too_large', `data is larger than ${MAX_DATA_BYTES} bytes`, { field: '/data' })
  }
  return data as JsonObject
}

/** What is left of the budget after a value; 0 or less means it is too large. */
function sizeOf(value: unknown, left: number): number {
  if (typeof value === 'string') return left - value.length - 2
  if (typeof value !== 'object' || value === null) return left - 5
  for (const name in value) {
    left = sizeOf((value as Record<string, unknown>)[name], left - name.length - 4)
    if (left <= 0) return 0
  }
  return left - 2
}

export function refusal(errors: ErrorObject[] | null | undefined): AppError {
  const first = errors?.[0]
  const params = first?.params as { additionalProperty?: string; missingProperty?: string } | undefined
  const extra = params?.additionalProperty ?? params?.missingProperty
  const field = `${first?.instancePath ?? ''}${extra === undefined ? '' : `/${extra}`}`.slice(0, 300)
  const message = wordsOf(first)
  const detail = field === '' ? `The event ${message}.` : `${field} ${message}.`
  return new AppError('invalid_request', detail, { errors: [{ field: field || '/', message }] })
}

/** In the words of all other refusals (server/http/validator.ts). */
function wordsOf(error: ErrorObject | undefined): string {
  if (error?.keyword === 'required') return 'is required'
  if (error?.keyword === 'additionalProperties') return 'is not a known field'
  return error?.message ?? 'does not have the documented shape'
}
