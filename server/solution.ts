import type { Api } from './http/api.ts'
import type { Db } from './db/pool.ts'

/**
 * A solution: one of the documented systems as a folder on top of the core. It brings templates, rules, routes and
 * settings; what is sent, when and how is the core's. This file is all that a solution may import of the server.
 */
export interface Solution {
  /** Its folder, and its name in CARILLON_SOLUTIONS. */
  id: string
  /** Folder with the templates that everybody has until they write their own (server/render/default-book.ts). */
  templates?: string
  /** Called once at the start, before the doors open. */
  open?(core: Core): void
}

/** What the core lends to a solution. */
export interface Core {
  api: Api
  db: Db
  now: () => Date
}

export type { Api, Db }
