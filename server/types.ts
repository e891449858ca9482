/**
 * The words every stage shares. Shapes only: no behaviour, no imports.
 * The glossary behind the names is docs/reference/glossary.md.
 */

// Each name's place in a list below is its code in the database, so a list is only ever appended to.

export const CHANNELS = [
  'in_app',
  'email',
  'sms',
  'whatsapp',
  'voice',
  'push',
  'web_push',
  'slack',
  'webhook',
  'pagerduty',
  'discord',
  'telegram',
  'teams',
  'ntfy',
] as const
export type Channel = (typeof CHANNELS)[number]

/** Most urgent first: the code is the queue rank. */
export const PRIORITIES = ['CRITICAL', 'HIGH', 'NORMAL', 'LOW'] as const
export type Priority = (typeof PRIORITIES)[number]

export const RECIPIENT_TYPES = ['user', 'role', 'group', 'topic', 'system'] as const
export type RecipientType = (typeof RECIPIENT_TYPES)[number]

/**
 * What became of one try, or of the whole delivery.
 *
 * `unknown`: the request was written, no answer came; the channel's policy decides whether to try again.
 */
export const OUTCOMES = [
  'delivered',
  'sent',
  'failed',
  'bounced',
  'rejected',
  'unknown',
  'cancelled',
  'expired',
  'suppressed',
] as const
export type Outcome = (typeof OUTCOMES)[number]

/** Where a delivery stands: an outcome, or one of the three ways of still being alive. */
export type DeliveryStatus = Outcome | 'in_flight' | 'held' | 'retrying'

export type TenantId = number
/** The tenant of whoever runs this installation: the first one made. */
export const OPERATOR_TENANT_ID: TenantId = 1
/** The caller's own opaque id, unique within a tenant. */
export type UserId = string
/** uuidv7; strictly increasing within one process (server/db/ids.ts). */
export type Id = string

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonObject = { [key: string]: Json }

/** Whoever is told: a user of the tenant, or a bare address the caller names (`system`). */
export interface Recipient {
  type: RecipientType
  id: string
}

/** Content a request brings itself, instead of naming a template. */
export interface InlineContent {
  subject?: string
  body?: string
  html?: string
  data?: JsonObject
  /** In place of `body`: read as a template, over the event's data. Whoever sets it has checked that it compiles. */
  template?: string
  image?: string
  actions?: Action[]
}

/**
 * A request to tell named people something, without any rule. It travels as an event of type
 * `carillon.notification.requested`, so that it is planned, explained and deduplicated like every other.
 */
export interface DirectSend {
  /** An admin's word: whatever people prefer, and past limits. Suppressed addresses stay so. */
  force?: boolean
  /** Somebody tries it out: wishes do not hold it up, limits do. */
  test?: boolean
  recipients: Recipient[]
  /** Bare addresses by channel, for recipients that are not users. */
  addresses?: Partial<Record<Channel, string[]>>
  channels: Channel[]
  fallback: Channel[]
  templateId?: Id
  content?: InlineContent
  metadata?: JsonObject
  /** What it belongs to; see `Message.thread`. */
  thread?: string
  /** Preference scopes it falls under, such as `aura:<id>`. */
  scopes?: string[]
  /** As the same words of a rule's policy. */
  score?: number
  quietHours?: 'respect' | 'ignore' | 'in_app'
}

/** What every door turns its input into. CloudEvents 1.0 attributes keep their names and meaning. */
export interface Event {
  tenantId: TenantId
  id: Id
  /** The producer's id; unique with `source`. Absent when the producer gave none: then nothing is deduplicated. */
  externalId?: string
  source: string
  type: string
  subject?: string
  /** When it happened, at the producer. */
  time: Date
  /** When it reached us. */
  receivedAt: Date
  data: JsonObject
  /** Stated by the producer; a matching rule's own priority wins. */
  priority?: Priority
  category?: string
  /** Not planned before this instant. */
  scheduledAt?: Date
  /** Nothing is sent after this instant. */
  expiresAt?: Date
  /** W3C trace id (32 hex digits). */
  traceId?: string
  /** Tries after the first one, in place of the channel's own number. */
  maxRetries?: number
  direct?: DirectSend
}

/** A button: it opens its link, or comes back to us as an interaction that names its id. */
export interface Action {
  id: string
  label: string
  /** Absolute, https. */
  url?: string
}

export interface Attachment {
  filename: string
  contentType: string
  /** Base64. */
  content: string
}

/** One channel's finished content. Which fields mean something is the channel's business. */
export interface Content {
  /** Subject of a mail, title of a push. */
  subject?: string
  /** Plain text. */
  body: string
  html?: string
  actions?: Action[]
  /** Absolute URL of a picture. */
  image?: string
  attachments?: Attachment[]
  /** BCP 47, of the text: reading it aloud needs to know. */
  language?: string
  /** What only this channel understands, such as Slack's blocks. */
  data?: JsonObject
}

/** One rendered, addressed message, as a provider gets it. */
export interface Message {
  tenantId: TenantId
  notificationId: Id
  channel: Channel
  /** Stable over all tries of this delivery: goes to every provider that takes one. */
  idempotencyKey: string
  /** E-mail address, URL, phone number, device token … */
  to: string
  recipient: Recipient
  content: Content
  priority: Priority
  /** 1 for the first try. */
  attempt: number
  eventId: Id
  eventType: string
  /** Milliseconds since 1970, of the notification. */
  createdAt: number
  traceId?: string
  /** Signed one-click unsubscribe link (RFC 8058), where the notification may be unsubscribed from. */
  unsubscribeUrl?: string
  /** Where bounces of this mail go: an address that names the delivery, and that nobody can make up. */
  returnPath?: string
  /** Settings that belong to this address, such as a webhook endpoint's signing secret. */
  addressSettings?: JsonObject
  /** What it tells the state of, where the rule says so. */
  about?: About
  /** What it belongs to: messages with the same key are shown together. Opaque, at most `MAX_THREAD` characters. */
  thread?: string
}

export const MAX_THREAD = 200

/** What a message is about, so that the next one about it can take its place. */
export interface About {
  key: string
  /** Whether it changes the message before it, or takes that away and comes as new. */
  earlier: 'update' | 'retract'
}
