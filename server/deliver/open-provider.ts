import type { TSchema } from 'typebox'
import { Value } from 'typebox/value'
import { AppError } from '../errors.ts'
import type { Channel, JsonObject, Message } from '../types.ts'
import { inWords, settingProblems } from './setting-problems.ts'
import {
  type AnyProvider,
  asDeliveryError,
  type Callback,
  type CallbackRequest,
  type CodeVerdict,
  type Connection,
  DeliveryError,
  fit,
  type GivenCode,
  type Group,
  type Http,
  type Limits,
  makeSecret,
  type Receipt,
  type SendContext,
  type Sent,
} from './provider.ts'

/**
 * A provider with its settings, ready to send: what the delivery loop holds. It adds what every provider would
 * otherwise repeat: validated settings, limits kept, and errors that carry neither secrets nor sockets.
 */
export interface OpenedProvider {
  /** Its name here: the provider's id, unless the operator gave it another, to have it twice. */
  id: string
  channel: Channel
  limits: Limits
  /** Its share among neighbours that have one too; undefined: it is asked in its place. */
  weight?: number
  /** An `unknown` try may simply be repeated. */
  mayRepeat: boolean
  accepts(message: Message): boolean
  /** What fails and is limited together; unique over all providers. */
  lane(message: Message): string
  group(message: Message): Group | undefined
  /** Throws nothing but DeliveryError. */
  send(message: Message, signal: AbortSignal): Promise<Sent>
  /** Puts it in the place of an earlier message; absent where the vendor cannot. Throws nothing but DeliveryError. */
  update?(message: Message, earlierId: string, signal: AbortSignal): Promise<Sent>
  /** Puts it under the first message of its thread; absent where the vendor cannot. Throws nothing but DeliveryError. */
  reply?(message: Message, firstId: string, signal: AbortSignal): Promise<Sent>
  /** Takes a message back; absent where the vendor cannot. Throws nothing but DeliveryError. */
  retract?(messageId: string, signal: AbortSignal): Promise<void>
  /** Absent where the vendor cannot say without sending. Throws nothing but DeliveryError. */
  validateDeviceToken?(token: string, signal: AbortSignal): Promise<void>
  /** Absent where the vendor keeps no topics. Throws nothing but DeliveryError. */
  updateTopicSubscription?(
    token: string,
    topic: string,
    subscribe: boolean,
    signal: AbortSignal,
  ): Promise<void>
  /** Absent where the vendor cannot be asked. Throws nothing but DeliveryError. */
  getDeliveryStatus?(messageId: string, signal: AbortSignal): Promise<Receipt[]>
  /** Absent but for services of codes. Throws nothing but DeliveryError. */
  confirmCode?(given: GivenCode, signal: AbortSignal): Promise<CodeVerdict>
  /** One result per message, in their order; never throws. Without `provider.sendMany` they go one by one. */
  sendMany(messages: readonly Message[], signal: AbortSignal): Promise<(Sent | DeliveryError)[]>
  /** Throws AppError (`unauthenticated`) on a forged request, `not_found` when the vendor posts nothing. */
  callback(request: CallbackRequest, signal: AbortSignal): Promise<Callback>
  /** Throws nothing but DeliveryError. */
  check(signal: AbortSignal): Promise<void>
  close(): Promise<void>
}

/** What of a vendor's words is kept with an attempt. */
const MAX_RESPONSE = 500
const MAX_DETAIL = 300

/** @throws AppError `invalid_request` naming each setting that does not fit. */
export async function openProvider(
  provider: AnyProvider,
  settings: unknown,
  world: { http: Http; now: () => Date },
  as: { name?: string; weight?: number; fits?: (message: Message) => boolean } = {},
): Promise<OpenedProvider> {
  const id = as.name ?? provider.id
  const valid = readSettings(provider.settings, settings)
  const secrets = secretsIn(provider.settings, valid)
  const sealed = sealSecrets(provider.settings, valid)
  const base = { http: world.http, now: world.now, settings: sealed }
  const connection: Connection | undefined = await provider.open?.(base)
  const { addressSettings, limits = {} } = provider
  const context = (signal: AbortSignal): SendContext<unknown, unknown> => ({ ...base, connection, signal })

  const clean = (thrown: unknown, messages: readonly Message[]): DeliveryError => {
    const own =
      addressSettings === undefined
        ? []
        : messages.flatMap(message => secretsIn(addressSettings, message.addressSettings))
    return cleanError(asDeliveryError(thrown), own.length === 0 ? secrets : [...secrets, ...own])
  }
  const cleanly = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work()
    } catch (thrown) {
      throw clean(thrown, [])
    }
  }
  const send = async (message: Message, signal: AbortSignal): Promise<Sent> => {
    try {
      return bounded(await provider.send(withinLimits(message, limits), context(signal)))
    } catch (thrown) {
      throw withPause(clean(thrown, [message]), message, limits, world.now())
    }
  }

  return {
    id,
    weight: as.weight,
    channel: provider.channel,
    limits,
    mayRepeat: provider.mayRepeat === true,
    accepts: message => (as.fits?.(message) ?? true) && (provider.accepts?.(message, sealed) ?? true),
    lane: message => (provider.lane === undefined ? id : `${id} ${provider.lane(message)}`),
    group: message => (provider.sendMany === undefined ? undefined : provider.group?.(message, sealed)),
    send,
    ...(provider.update && {
      async update(message: Message, earlierId: string, signal: AbortSignal) {
        try {
          return bounded(await provider.update!(withinLimits(message, limits), earlierId, context(signal)))
        } catch (thrown) {
          throw withPause(clean(thrown, [message]), message, limits, world.now())
        }
      },
    }),
    ...(provider.reply && {
      async reply(message: Message, firstId: string, signal: AbortSignal) {
        try {
          return bounded(await provider.reply!(withinLimits(message, limits), firstId, context(signal)))
        } catch (thrown) {
          throw withPause(clean(thrown, [message]), message, limits, world.now())
        }
      },
    }),
    ...(provider.retract && {
      async retract(messageId: string, signal: AbortSignal) {
        await cleanly(() => provider.retract!(messageId, context(signal)))
      },
    }),
    ...(provider.validateDeviceToken && {
      validateDeviceToken: (token: string, signal: AbortSignal) =>
        cleanly(() => provider.validateDeviceToken!(token, context(signal))),
    }),
    ...(provider.updateTopicSubscription && {
      updateTopicSubscription: (token: string, topic: string, subscribe: boolean, signal: AbortSignal) =>
        cleanly(() => provider.updateTopicSubscription!(token, topic, subscribe, context(signal))),
    }),
    ...(provider.getDeliveryStatus && {
      getDeliveryStatus: (messageId: string, signal: AbortSignal) =>
        cleanly(() => provider.getDeliveryStatus!(messageId, context(signal))),
    }),
    ...(provider.confirmCode && {
      confirmCode: (given: GivenCode, signal: AbortSignal) =>
        cleanly(() => provider.confirmCode!(given, context(signal))),
    }),

    async sendMany(messages, signal) {
      if (provider.sendMany === undefined) {
        return Promise.all(messages.map(message => send(message, signal).catch(asDeliveryError)))
      }
      try {
        const results = await provider.sendMany(
          messages.map(message => withinLimits(message, limits)),
          context(signal),
        )
        // A short list would leave messages without an outcome: better to try them again than to lose them.
        return messages.map((message, at) => {
          const result = results[at]
          if (result === undefined) return asDeliveryError(new Error(`${provider.id} gave no result`))
          return result instanceof DeliveryError ? clean(result, [message]) : bounded(result)
        })
      } catch (thrown) {
        const error = clean(thrown, messages)
        return messages.map(() => error)
      }
    },

    async callback(request, signal) {
      if (provider.callback === undefined) {
        throw new AppError('not_found', `${provider.id} has no callbacks`)
      }
      return provider.callback(request, context(signal))
    },

    async check(signal) {
      await cleanly(async () => provider.check?.(context(signal)))
    },

    async close() {
      await connection?.close()
    },
  }
}

/* ---------------------------------------------------------------- settings */

/**
 * Settings with their defaults filled in and their secrets still plain: for validation at the surface and for
 * `addressSettings`. The messages name the field, never the value.
 *
 * @throws AppError `invalid_request`
 */
export function readSettings(schema: TSchema, raw: unknown): JsonObject {
  const filled = Value.Default(schema, structuredClone(raw ?? {}))
  if (Value.Check(schema, filled)) return filled as JsonObject
  const errors = settingProblems(schema, filled)
  throw new AppError('invalid_request', `The settings do not fit: ${inWords(errors)}`, { errors })
}

interface SchemaNode {
  secret?: boolean
  properties?: Record<string, TSchema>
  patternProperties?: Record<string, TSchema>
  items?: TSchema
}

// A map (`Type.Record`) has one pattern, and validation has refused every key outside it.
const childSchema = (schema: SchemaNode, key: string): TSchema | undefined =>
  schema.properties?.[key] ?? Object.values(schema.patternProperties ?? {})[0]

function sealSecrets(schema: TSchema, value: unknown): unknown {
  const node = schema as SchemaNode
  if (node.secret === true && typeof value === 'string') return makeSecret(value)
  if (Array.isArray(value)) {
    return node.items === undefined ? value : value.map(item => sealSecrets(node.items as TSchema, item))
  }
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(
    Object.entries(value).map(([key, child]) => {
      const below = childSchema(node, key)
      return [key, below === undefined ? child : sealSecrets(below, child)]
    }),
  )
}

/** The plain values of everything marked `secret()`. */
export function secretsIn(schema: TSchema, value: unknown): string[] {
  const node = schema as SchemaNode
  if (node.secret === true) return typeof value === 'string' && value !== '' ? [value] : []
  if (Array.isArray(value)) {
    return node.items === undefined ? [] : value.flatMap(item => secretsIn(node.items as TSchema, item))
  }
  if (typeof value !== 'object' || value === null) return []
  return Object.entries(value).flatMap(([key, child]) => {
    const below = childSchema(node, key)
    return below === undefined ? [] : secretsIn(below, child)
  })
}

/* ---------------------------------------------------------------- errors and limits */

/**
 * The same error with every secret blotted out, and with its cause reduced to words: what undici or a mail
 * library attaches to an error (sockets, requests, commands) would be kept alive and end up in logs.
 */
function cleanError(error: DeliveryError, secrets: readonly string[]): DeliveryError {
  const forms = secrets.flatMap(spellings)
  const blot = (text: string, max: number): string =>
    fit(
      forms.reduce((rest, each) => rest.replaceAll(each, '<secret>'), text),
      max,
    )
  return new DeliveryError(error.kind, error.code, blot(error.message, MAX_DETAIL), {
    until: error.until,
    alone: error.alone,
    vendorCode: error.vendorCode === undefined ? undefined : blot(error.vendorCode, 100),
    response: error.response === undefined ? undefined : blot(error.response, MAX_RESPONSE),
    cause: error.cause === undefined ? undefined : summary(error.cause, text => blot(text, MAX_DETAIL)),
  })
}

const FIRST_PAUSE_MS = 5_000
const MAX_PAUSE_MS = 10 * 60_000

/**
 * Vendors that are asked too often do not all say until when to wait. It is nothing that a few tries within seconds mend,
 * nor anything that a message should fail of: it waits, longer each time, and the lane with it.
 */
function withPause(error: DeliveryError, { attempt }: Message, limits: Limits, now: Date): DeliveryError {
  if (limits.slowsLane !== true || error.kind !== 'temporary' || error.code !== 'rate_limited') return error
  const wait = Math.min(FIRST_PAUSE_MS * 2 ** (Math.max(1, attempt) - 1), MAX_PAUSE_MS)
  return new DeliveryError('rate_limited', error.code, error.message, {
    until: new Date(now.getTime() + wait),
    alone: error.alone,
    vendorCode: error.vendorCode,
    response: error.response,
    cause: error.cause,
  })
}

/**
 * A secret as a far end may say it back: percent-encoded from a URL, or within the base64 of an Authorization header or
 * of AUTH PLAIN, where it begins at any of three places. What shares a character with its neighbours is left out.
 */
function spellings(secret: string): string[] {
  const found = new Set([secret, encodeURIComponent(secret)])
  const bytes = Buffer.from(secret)
  for (const before of [0, 1, 2]) {
    const within = Buffer.concat([Buffer.alloc(before), bytes])
      .toString('base64')
      .replace(/=+$/, '')
    const from = Math.ceil((before * 8) / 6)
    const to = Math.floor(((before + bytes.length) * 8) / 6)
    const whole = within.slice(from, to)
    if (whole.length >= 8) found.add(whole).add(whole.replaceAll('+', '-').replaceAll('/', '_'))
  }
  return [...found]
}

function summary(cause: unknown, blot: (text: string) => string): Error {
  if (!(cause instanceof Error)) return new Error(blot(String(cause)))
  const { code } = cause as NodeJS.ErrnoException
  const short = new Error(blot(cause.message))
  short.name = cause.name
  short.stack = blot(cause.stack ?? '')
  return typeof code === 'string' ? Object.assign(short, { code }) : short
}

const bounded = (sent: Sent): Sent =>
  sent.response === undefined || sent.response.length <= MAX_RESPONSE
    ? sent
    : { ...sent, response: fit(sent.response, MAX_RESPONSE) }

function withinLimits(message: Message, { subjectChars = Infinity, bodyChars = Infinity }: Limits): Message {
  const { subject, body } = message.content
  if (body.length <= bodyChars && (subject?.length ?? 0) <= subjectChars) return message
  const content = { ...message.content, body: fit(body, bodyChars) }
  if (subject !== undefined) content.subject = fit(subject, subjectChars)
  return { ...message, content }
}
