import type { SettingsTable, ValuesOf } from './config-values.ts'
import type { Explanation } from './explain/explain.ts'
import type { FeedStore } from './feed/feed.ts'
import type { Dialect } from './feed/realtime.ts'
import type { Api } from './http/api.ts'
import type { Acceptor, EventTypes } from './ingest/acceptor.ts'
import type { Channel, Event, Id, JsonObject, TenantId, UserId } from './types.ts'

/**
 * A solution: one of the documented systems as a folder on top of the core. It brings templates, rules, routes and
 * settings; what is sent, when and how is the core's. This file is all that a solution may import of the server.
 */
export interface Solution<S extends SettingsTable = SettingsTable> {
  /** Its folder, and its name in CARILLON_SOLUTIONS. */
  id: string
  /** As a heading in the documentation. */
  title: string
  /** Read with all others (server/config.ts), handed to `open`. They have no flags of the command line. */
  settings?: S
  /** Folder with the templates that everybody has until they write their own (server/render/default-book.ts). */
  templates?: string
  /**
   * By event type, what templates see of such events, before what the event itself says. Called once at the start; what it
   * gives is pure, and asked once an event, when something is written about it.
   */
  beside?(settings: ValuesOf<S>): Readonly<Record<string, (event: SeenEvent) => JsonObject>>
  /** Called once at the start, before the doors open. */
  open?(core: Core, settings: ValuesOf<S>): void
}

/** Keeps what `open` is given tied to the table of `settings`. */
export const solution = <S extends SettingsTable>(one: Solution<S>): Solution => one

/** An event as a solution may look at it. */
export interface SeenEvent {
  type: string
  /** When it happened; ISO 8601. */
  time: string
  data: Readonly<JsonObject>
}

/** By event type, what the open solutions make of events, of all of them together. */
export const besideOf = (
  solutions: readonly Solution[],
  settings: ReadonlyMap<string, Readonly<Record<string, unknown>>>,
): ReadonlyMap<string, (event: SeenEvent) => JsonObject> =>
  new Map(
    solutions
      .filter(({ id }) => settings.has(id))
      .flatMap(({ id, beside }) => Object.entries(beside?.(settings.get(id)!) ?? {})),
  )

/** What the core lends to a solution. Each member is used by one at least. */
export interface Core {
  api: Api
  now(): Date
  /** The one way in: resolves when the events, and whatever they come to, are durable (server/ingest/acceptor.ts). */
  accept: Acceptor['accept']
  /** People's inboxes. */
  inbox: Pick<FeedStore, 'list' | 'thread'>
  /** Why a person was told, or not, and how far it has come. */
  explain(tenantId: TenantId, userId: UserId, eventId: Id): Promise<Explanation>
  /** Takes events of a type of its own, from whatever door, once they fit the tenant's schema of it. */
  takeEvents(type: string, take: TakeEvent): void
  /** Closes channels to some events. */
  closeChannels(closure: Closure): void
  /** What clients of /realtime hear that ask for `?as=<name>`. */
  speak(name: string, dialect: Dialect): void
}

/** Says why an event is refused; or null, and may have said in `event.direct` whom to tell, in place of rules. */
export type TakeEvent = EventTypes['refuse']

/** Why the channel is closed to the event, for the trace; undefined: it is not. */
export type Closure = (event: Event, channel: Channel) => string | undefined

// ---- words for tables of settings, checks and answers
export { integer, readWebUrl, setting, toggle } from './config-values.ts'
export { newId } from './db/ids.ts'
export { AppError, ERRORS } from './errors.ts'
export type { ErrorCode } from './errors.ts'
export type { ChangeView, FeedView } from './feed/feed.ts'
export type { Envelope, Person } from './feed/hub.ts'
export { readerOf } from './feed/reader.ts'
export { decodeCursor, encodeCursor } from './http/cursor.ts'
export { pageQuery } from './http/page.ts'
export { compileTemplate } from './render/template.ts'
export type {
  DirectSend,
  Event,
  Id,
  Json,
  JsonObject,
  Priority,
  TenantId,
  UserId,
} from './types.ts'
export type { Api, Dialect, Explanation }
