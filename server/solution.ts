import type { SettingsTable, ValuesOf } from './config-values.ts'
import type { Db } from './db/pool.ts'
import type { Api } from './http/api.ts'
import type { Json, JsonObject } from './types.ts'

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
   * By event type, what templates see of such events where neither the event nor the rule says it. Called once at the
   * start; what it gives is pure, and asked once an event, when something is written about it.
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

/** What the core lends to a solution. */
export interface Core {
  api: Api
  db: Db
  now: () => Date
}

// ---- words for tables of settings, checks and answers
export { integer, oneOf, optional, readWebUrl, setting, toggle } from './config-values.ts'
export { AppError } from './errors.ts'
export { sql } from './db/pool.ts'
export type { Api, Db, Json, JsonObject }
