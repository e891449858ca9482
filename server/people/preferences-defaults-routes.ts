import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { ChannelField, MaybeTimeField, TimeField, UserIdField } from './fields.ts'
import {
  checkOpinion,
  checkScope,
  ModeField,
  orNull,
  ScopeField,
  settingFields,
  SwitchField,
} from './preference-fields.ts'
import type { PreferenceSettings } from './preference-settings.ts'
import {
  changePreferences,
  lockPreferences,
  MAX_ROWS,
  readPreferences,
  removePreference,
  type StoredPreference,
  TENANT,
  touchPreferences,
} from './preference-store.ts'
import {
  type DefaultsInput,
  type DefaultsView,
  getDefaults,
  PREFERENCE_CHANNELS,
  putDefaults,
} from './preferences.ts'
import { originOf } from './preferences-routes.ts'
import { getUser, lockUser } from './users.ts'

const strict = { additionalProperties: false }
const channels = <S extends Parameters<typeof Type.Optional>[0]>(schema: S, options = {}) =>
  Type.Object(Object.fromEntries([...PREFERENCE_CHANNELS.keys()].map(name => [name, schema])), options)

const Defaults = Type.Object({
  globalEnabled: SwitchField,
  channels: channels(Type.Object({ enabled: SwitchField })),
  lastUpdated: MaybeTimeField,
})
const DefaultsBody = Type.Object(
  {
    globalEnabled: Type.Optional(SwitchField),
    channels: Type.Optional(
      channels(Type.Optional(Type.Object({ enabled: Type.Optional(SwitchField) }, strict)), strict),
    ),
    lastUpdated: Type.Optional(MaybeTimeField),
  },
  strict,
)

const place = { scope: ScopeField, channel: Type.Optional(orNull(ChannelField)) }
const OpinionBody = Type.Object(
  { ...place, enabled: Type.Optional(SwitchField), ...settingFields },
  { ...strict, description: 'What is left out stays as it is; null takes it away.' },
)
const DefaultBody = Type.Object(
  { ...place, mode: Type.Optional(orNull(ModeField)), ...settingFields },
  { ...strict, description: 'What is left out stays as it is; null takes it away.' },
)
const shownSettings = Object.fromEntries(
  Object.entries(settingFields).map(([name, schema]) => [name, Type.Optional(schema)]),
) as typeof settingFields
const Opinion = Type.Object({
  scope: Type.String(),
  channel: orNull(ChannelField),
  enabled: SwitchField,
  mode: Type.Optional(orNull(ModeField)),
  ...shownSettings,
  createdAt: TimeField,
  updatedAt: TimeField,
})
const Opinions = Type.Object({ items: Type.Array(Opinion, { maxItems: MAX_ROWS }) })
const PlaceQuery = Type.Object(
  { scope: Type.Optional(ScopeField), channel: Type.Optional(ChannelField) },
  strict,
)
const Params = Type.Object({ userId: UserIdField }, strict)

const tags = ['Preferences']
const defaultsRead = { role: 'service', scope: 'people:read' } as const
const defaultsWrite = { role: 'admin', scope: 'people:write' } as const

/** What holds for everybody who says nothing else; and what was said, row by row, by one person or by the tenant. */
export function preferencesDefaultsRoutes(
  api: Api,
  { db, now = () => new Date() }: { db: Db; now?: () => Date },
): void {
  api.get(
    '/api/preferences/defaults',
    {
      config: { access: defaultsRead },
      schema: {
        tags,
        operationId: 'getPreferenceDefaults',
        summary: 'What holds for everybody who says nothing else',
        querystring: Type.Object({}, strict),
        response: { 200: Defaults },
      },
    },
    async request => showDefaults(await getDefaults(db, request.caller.tenantId)),
  )

  api.put(
    '/api/preferences/defaults',
    {
      config: { access: defaultsWrite },
      schema: {
        tags,
        operationId: 'putPreferenceDefaults',
        summary: 'Change what holds for everybody who says nothing else',
        body: DefaultsBody,
        response: { 200: Defaults },
      },
    },
    async request => {
      const { caller, traceId } = request
      const body = request.body as DefaultsInput
      return showDefaults(
        await db.tx(async tx => {
          const before = await getDefaults(tx, caller.tenantId)
          await putDefaults(tx, caller.tenantId, body)
          const after = await getDefaults(tx, caller.tenantId)
          await audit(tx, caller, {
            action: 'preference_defaults.updated',
            objectKind: 'preference_defaults',
            objectId: '',
            details: { before: showDefaults(before), after: showDefaults(after) },
            traceId,
          })
          return after
        }),
      )
    },
  )

  api.get(
    '/api/preferences/defaults/opinions',
    {
      config: { access: defaultsRead },
      schema: {
        tags,
        operationId: 'listDefaultOpinions',
        summary: "The tenant's defaults, by scope and channel",
        querystring: Type.Object({}, strict),
        response: { 200: Opinions },
      },
    },
    async request => ({
      items: (await readPreferences(db, request.caller.tenantId, TENANT)).map(showDefault),
    }),
  )

  api.put(
    '/api/preferences/defaults/opinions',
    {
      config: { access: defaultsWrite },
      schema: {
        tags,
        operationId: 'putDefaultOpinion',
        summary: 'Set a default for a scope, on a channel or all',
        description:
          'REQUIRED stays on whatever people say: for what they are owed. Marketing is owed to nobody.',
        body: DefaultBody,
        response: { 200: Opinion },
      },
    },
    async request => {
      const { caller, traceId } = request
      const change = checkOpinion(request.body, 'tenant', now())
      return db.tx(async tx => {
        await lockPreferences(tx, caller.tenantId, TENANT)
        const before = find(await readPreferences(tx, caller.tenantId, TENANT), change)
        await changePreferences(tx, caller.tenantId, TENANT, null, [change])
        const after = find(await readPreferences(tx, caller.tenantId, TENANT), change)
        await audit(tx, caller, {
          action: 'preference_defaults.updated',
          objectKind: 'preference_defaults',
          objectId: change.scope,
          details: { before: before && showDefault(before), after: after && showDefault(after) },
          traceId,
        })
        return showDefault(after ?? nothing(change, now()))
      })
    },
  )

  api.delete(
    '/api/preferences/defaults/opinions',
    {
      config: { access: defaultsWrite },
      schema: {
        tags,
        operationId: 'deleteDefaultOpinion',
        summary: 'Take a default away',
        querystring: PlaceQuery,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, query } = request
      const { scope = '', channel = null } = query
      await db.tx(async tx => {
        await lockPreferences(tx, caller.tenantId, TENANT)
        const before = find(await readPreferences(tx, caller.tenantId, TENANT), { scope, channel })
        if (before === undefined) throw noOpinion()
        await removePreference(tx, caller.tenantId, TENANT, null, { scope, channel })
        await audit(tx, caller, {
          action: 'preference_defaults.updated',
          objectKind: 'preference_defaults',
          objectId: scope,
          details: { before: showDefault(before), after: null },
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/api/preferences/:userId/opinions',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'listOpinions',
        summary: 'What a user said, by scope and channel, without any default',
        params: Params,
        response: { 200: Opinions },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      await getUser(db, request.caller.tenantId, userId)
      return { items: (await readPreferences(db, request.caller.tenantId, userId)).map(showOpinion) }
    },
  )

  api.put(
    '/api/preferences/:userId/opinions',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'putOpinion',
        summary: 'Say something about a scope, on a channel or all',
        params: Params,
        body: OpinionBody,
        response: { 200: Opinion },
      },
    },
    async request => {
      const { caller, traceId } = request
      const { userId } = request.params
      requireSelf(request, userId)
      const change = checkOpinion(request.body, 'user', now())
      return db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        await changePreferences(tx, caller.tenantId, userId, originOf(request, userId), [change])
        await touchPreferences(tx, caller.tenantId, userId)
        await audit(tx, caller, {
          action: 'preferences.updated',
          objectKind: 'user',
          objectId: userId,
          details: { scope: change.scope, channel: change.channel, fields: Object.keys(request.body) },
          traceId,
        })
        const after = find(await readPreferences(tx, caller.tenantId, userId), change)
        return showOpinion(after ?? nothing(change, now()))
      })
    },
  )

  api.delete(
    '/api/preferences/:userId/opinions',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'deleteOpinion',
        summary: 'Take back what was said about a scope and channel',
        params: Params,
        querystring: PlaceQuery,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, query } = request
      const { userId } = request.params
      const { scope = '', channel = null } = query
      requireSelf(request, userId)
      checkScope(scope, 'scope')
      await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        if (find(await readPreferences(tx, caller.tenantId, userId), { scope, channel }) === undefined) {
          throw noOpinion()
        }
        await removePreference(tx, caller.tenantId, userId, originOf(request, userId), { scope, channel })
        await touchPreferences(tx, caller.tenantId, userId)
        await audit(tx, caller, {
          action: 'preferences.updated',
          objectKind: 'user',
          objectId: userId,
          details: { scope, channel, deleted: true },
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )
}

type Place = Pick<StoredPreference, 'scope' | 'channel'>
const find = (rows: StoredPreference[], { scope, channel }: Place) =>
  rows.find(row => row.scope === scope && row.channel === channel)
const noOpinion = () => new AppError('not_found', 'Nothing was said about this scope and channel.')

/** What an opinion is that says nothing any more, and so is not kept. */
const nothing = ({ scope, channel }: Place, at: Date): StoredPreference => ({
  id: '',
  scope,
  channel,
  enabled: null,
  settings: {},
  createdAt: at,
  updatedAt: at,
})

function showOpinion({ scope, channel, enabled, settings, createdAt, updatedAt }: StoredPreference) {
  return {
    scope,
    channel,
    enabled,
    ...(settings as Omit<PreferenceSettings, 'mode'>),
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  } as Static<typeof Opinion>
}

function showDefault(row: StoredPreference): Static<typeof Opinion> {
  const { enabled } = row
  const { mode } = row.settings as PreferenceSettings
  const plain = enabled === null ? null : enabled ? 'OPTED_IN' : 'OPTED_OUT'
  return { ...showOpinion(row), mode: mode ?? plain }
}

const showDefaults = (view: DefaultsView): Static<typeof Defaults> => ({
  ...view,
  lastUpdated: view.lastUpdated?.toISOString() ?? null,
})
