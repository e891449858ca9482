import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { addressesRoutes } from './addresses-routes.ts'
import { audiencesRoutes } from './audiences-routes.ts'
import { consentsRoutes } from './consents-routes.ts'
import { devicesRoutes } from './devices-routes.ts'
import { preferencesDefaultsRoutes } from './preferences-defaults-routes.ts'
import { preferencesRoutes } from './preferences-routes.ts'
import { preferencesViewsRoutes } from './preferences-views-routes.ts'
import { suppressionsRoutes } from './suppressions-routes.ts'
import type { PeopleSealer } from './users.ts'
import { usersRoutes } from './users-routes.ts'

/** Everything about the people who are told things: who they are, where they are reached, what they want. */
export function peopleRoutes(api: Api, deps: { db: Db; sealer: PeopleSealer }): void {
  usersRoutes(api, deps)
  addressesRoutes(api, deps)
  devicesRoutes(api, deps)
  audiencesRoutes(api, deps)
  preferencesRoutes(api, deps)
  preferencesViewsRoutes(api, deps)
  preferencesDefaultsRoutes(api, deps)
  consentsRoutes(api, deps)
  suppressionsRoutes(api, deps)
}
