import type { Event, Id, JsonObject, Priority, UserId } from '../types.ts'
import type { SharedMessages } from './messages.ts'
import type { TextLinks, View } from './template.ts'

/** An event as templates see it. Made once per event, however many people hear of it. */
export interface EventView {
  id: Id
  type: string
  source: string
  subject: string | undefined
  /** ISO 8601: a Date would print in the server's zone. */
  time: string
  data: JsonObject
  priority: Priority | undefined
  category: string | undefined
}

export function eventView(event: Event): EventView {
  return {
    id: event.id,
    type: event.type,
    source: event.source,
    subject: event.subject,
    time: event.time.toISOString(),
    data: event.data,
    priority: event.priority,
    category: event.category,
  }
}

/** Whoever reads it; a bare address has no more than an id. */
export interface UserView {
  id: UserId
  locale?: string
  timezone?: string
  attributes?: Readonly<JsonObject>
}

export interface ViewInput {
  event: EventView
  /** The matched rule's template_vars. */
  vars?: JsonObject
  /** What a solution makes of what the event says (server/solution.ts). */
  beside?: Readonly<JsonObject> | undefined
  user: UserView
  notification: { id: Id; priority: Priority }
  tenant: { name: string; locale?: string | undefined }
  /** Addresses of the tenant's pictures, by name. */
  assets?: Readonly<Record<string, string>>
  /** The tenant's messages, which templates may say besides their own. */
  messages?: SharedMessages | undefined
  /** For channels that have links in their text. */
  links?: TextLinks | undefined
  now: Date
}

/**
 * What a template sees: `event`, `data` (the event's), `vars` (the rule's), `user`, `notification`, `tenant` and
 * `now` by these names, which always mean these; and the members of data and vars directly, data before vars: a
 * rule states defaults, an event states facts. What a solution makes of an event's
 * own members goes before them. So `{{service}}` is data.service, or else vars.service, and an
 * event's own "user" is `{{data.user}}`. Nothing is copied.
 */
export function templateView(input: ViewInput): View {
  const { event, vars, user, notification, tenant, now } = input
  return {
    names: {
      event,
      data: event.data,
      vars: vars ?? {},
      user,
      notification,
      // What holds the tenant's facts holds its key as well: a template sees the name and nothing else.
      tenant: { name: tenant.name },
      now: isoOf(now),
    },
    ...(tenant.locale !== undefined && { tenantLocale: tenant.locale }),
    layers: input.beside ? [input.beside, event.data, vars] : [event.data, vars],
    locale: user.locale ?? tenant.locale ?? 'en',
    timezone: user.timezone ?? 'UTC',
    ...(input.assets && { assets: input.assets }),
    ...(input.messages && { messages: input.messages }),
    ...(input.links && { links: input.links }),
  }
}

// A batch has one instant for all its readers.
let lastMs = Number.NaN
let lastIso = ''

function isoOf(date: Date): string {
  const ms = date.getTime()
  if (ms !== lastMs) {
    lastIso = date.toISOString()
    lastMs = ms
  }
  return lastIso
}
