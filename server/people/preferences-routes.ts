import { type Static, type TSchema, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { LevelField, LocaleField, MaybeTimeField, TimeField, TimezoneField, UserIdField } from './fields.ts'
import {
  type DefaultsInput,
  type DefaultsView,
  getDefaults,
  getPreferences,
  NAMED_TOPICS,
  PREFERENCE_CHANNELS,
  type PreferencesInput,
  type PreferencesView,
  putDefaults,
  putPreferences,
} from './preferences.ts'
import type { PeopleSealer } from './users.ts'

const MAX_CUSTOM_TOPICS = 500
const Switch = Type.Union([Type.Boolean(), Type.Null()], {
  description: 'null: no opinion, so that the next layer decides.',
})
const VerificationStatus = Type.Enum(['PENDING', 'VERIFIED', 'FAILED'])

const ofEach = <S extends TSchema>(names: Iterable<string>, schema: S): Record<string, S> =>
  Object.fromEntries([...names].map(name => [name, schema]))

const channelsOf = <S extends TSchema>(schema: S, options = {}) =>
  Type.Object(ofEach(PREFERENCE_CHANNELS.keys(), schema), options)

const View = Type.Object({
  userId: Type.String(),
  globalEnabled: Type.Boolean({ description: 'Off: nothing is sent to this person.' }),
  channels: channelsOf(
    Type.Object({
      enabled: Type.Boolean(),
      address: Type.Optional(Type.String()),
      verificationStatus: Type.Optional(VerificationStatus),
    }),
  ),
  topics: Type.Object({
    ...ofEach(NAMED_TOPICS, Type.Optional(LevelField)),
    customTopics: Type.Record(Type.String(), LevelField),
  }),
  language: Type.String(),
  timezone: Type.String(),
  lastUpdated: TimeField,
})

const strict = { additionalProperties: false }
const MaybeLevel = Type.Union([LevelField, Type.Null()], { description: 'null ends the subscription.' })
const Input = Type.Object(
  {
    globalEnabled: Type.Optional(Switch),
    channels: Type.Optional(
      channelsOf(
        Type.Optional(
          Type.Object(
            {
              enabled: Type.Optional(Switch),
              address: Type.Optional(Type.String({ minLength: 1, maxLength: 2048 })),
              verificationStatus: Type.Optional(VerificationStatus),
            },
            strict,
          ),
        ),
        strict,
      ),
    ),
    topics: Type.Optional(
      Type.Object(
        {
          ...ofEach(NAMED_TOPICS, Type.Optional(MaybeLevel)),
          customTopics: Type.Optional(
            Type.Record(Type.String({ minLength: 1, maxLength: 255 }), MaybeLevel, {
              maxProperties: MAX_CUSTOM_TOPICS,
            }),
          ),
        },
        strict,
      ),
    ),
    language: Type.Optional(LocaleField),
    timezone: Type.Optional(TimezoneField),
    userId: Type.Optional(UserIdField),
    lastUpdated: Type.Optional(TimeField),
  },
  {
    ...strict,
    description:
      'What is left out stays as it is. `userId`, `lastUpdated` and `verificationStatus` may be sent back as they were read; they change nothing.',
  },
)

const Defaults = Type.Object({
  globalEnabled: Switch,
  channels: channelsOf(Type.Object({ enabled: Switch })),
  lastUpdated: MaybeTimeField,
})
const DefaultsBody = Type.Object(
  {
    globalEnabled: Type.Optional(Switch),
    channels: Type.Optional(
      channelsOf(Type.Optional(Type.Object({ enabled: Type.Optional(Switch) }, strict)), strict),
    ),
    lastUpdated: Type.Optional(MaybeTimeField),
  },
  strict,
)
const Params = Type.Object({ userId: UserIdField }, strict)

const tags = ['Preferences']

/** What people want to be told, and where. */
export function preferencesRoutes(api: Api, { db, sealer }: { db: Db; sealer: PeopleSealer }): void {
  api.get(
    '/api/preferences/defaults',
    {
      config: { access: { role: 'service', scope: 'people:read' } },
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
      config: { access: { role: 'admin', scope: 'people:write' } },
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
    '/api/preferences/:userId',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getPreferences',
        summary: "A user's preferences, with the defaults filled in",
        params: Params,
        response: { 200: View },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return showPreferences(await getPreferences(db, request.caller.tenantId, userId))
    },
  )

  api.put(
    '/api/preferences/:userId',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'putPreferences',
        summary: "Change a user's preferences",
        params: Params,
        body: Input,
        response: { 200: View },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const { userId } = params
      requireSelf(request, userId)
      if (body.userId !== undefined && body.userId !== userId) {
        throw new AppError('invalid_request', 'The body names another user than the path.', {
          field: '/userId',
        })
      }
      return showPreferences(
        await db.tx(async tx => {
          await putPreferences(tx, { sealer, tenantId: caller.tenantId }, userId, body as PreferencesInput)
          await audit(tx, caller, {
            action: 'preferences.updated',
            objectKind: 'user',
            objectId: userId,
            details: { fields: Object.keys(body), channels: Object.keys(body.channels ?? {}) },
            traceId,
          })
          return getPreferences(tx, caller.tenantId, userId)
        }),
      )
    },
  )
}

const showPreferences = (view: PreferencesView): Static<typeof View> => ({
  ...view,
  lastUpdated: view.lastUpdated.toISOString(),
})

const showDefaults = (view: DefaultsView): Static<typeof Defaults> => ({
  ...view,
  lastUpdated: view.lastUpdated?.toISOString() ?? null,
})
