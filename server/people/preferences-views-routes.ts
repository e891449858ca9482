import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { PRIORITY_SPELLINGS, readPriority } from '../spelling.ts'
import { CHANNELS, PRIORITIES, type Priority, type UserId } from '../types.ts'
import {
  AudienceNameField,
  ChannelField,
  IdField,
  LocaleField,
  MaybeTimeField,
  TimeField,
  TimezoneField,
  UserIdField,
} from './fields.ts'
import {
  BatchField,
  CapField,
  checkScope,
  EndOfDayField,
  orNull,
  ScopeField,
  ThresholdField,
  TimeOfDayField,
} from './preference-fields.ts'
import { MESSAGE_CLASSES } from './preference-scopes.ts'
import { FREQUENCIES } from './preference-settings.ts'
import {
  getPreferences,
  PREFERENCE_CHANNELS,
  type PreferencesInput,
  type PreferencesView,
  putPreferences,
} from './preferences.ts'
import { getAuraPreferences, type NotificationPreference, putAuraPreference } from './preferences-aura.ts'
import { evaluatePreferences } from './preferences-evaluate.ts'
import { getProactivePreferences, patchProactivePreferences } from './preferences-proactive.ts'
import type { ProactiveChange } from './preferences-proactive.ts'
import { CategoriesBody, CategoryViewSchema, originOf, quietHoursFields } from './preferences-routes.ts'
import type { PeopleSealer } from './users.ts'

const strict = { additionalProperties: false }
const Params = Type.Object({ userId: UserIdField }, strict)
const tags = ['Preferences']

// ---------------------------------------------------------------- one person as a profile

const ProfileView = Type.Object({
  userId: Type.String(),
  enabled: Type.Boolean(),
  timezone: Type.String(),
  locale: Type.String(),
  channels: Type.Record(
    ChannelField,
    Type.Object({ enabled: Type.Boolean(), address: Type.Optional(Type.String()) }),
  ),
  quietHours: Type.Object({
    enabled: Type.Boolean(),
    startTime: TimeOfDayField,
    endTime: EndOfDayField,
    timezone: TimezoneField,
    allowCritical: Type.Boolean(),
  }),
  categories: Type.Record(Type.String(), CategoryViewSchema),
  updatedAt: TimeField,
})
const ProfileBody = Type.Object(
  {
    userId: Type.Optional(UserIdField),
    enabled: Type.Optional(orNull(Type.Boolean())),
    timezone: Type.Optional(TimezoneField),
    locale: Type.Optional(LocaleField),
    channels: Type.Optional(
      Type.Object(
        Object.fromEntries(
          CHANNELS.map(channel => [
            channel,
            Type.Optional(
              Type.Object(
                {
                  enabled: Type.Optional(orNull(Type.Boolean())),
                  address: Type.Optional(Type.String({ minLength: 1, maxLength: 2048 })),
                },
                strict,
              ),
            ),
          ]),
        ),
        strict,
      ),
    ),
    quietHours: Type.Optional(orNull(Type.Object(quietHoursFields, strict))),
    categories: Type.Optional(CategoriesBody),
    updatedAt: Type.Optional(TimeField),
  },
  {
    ...strict,
    description:
      'What is left out stays as it is; null is no opinion. `userId` and `updatedAt` may be sent back; they change nothing.',
  },
)

// ---------------------------------------------------------------- triage

const ProactiveView = Type.Object({
  enabled: Type.Boolean(),
  minUrgency: Type.Enum(PRIORITIES),
  quietHours: Type.Object({
    enabled: Type.Boolean(),
    start: TimeOfDayField,
    end: EndOfDayField,
    timezone: TimezoneField,
    allowCritical: Type.Boolean(),
  }),
  batchIntervalMinutes: orNull(Type.Integer()),
  channels: Type.Record(Type.String(), Type.Boolean()),
})
const ProactiveBody = Type.Object(
  {
    enabled: Type.Optional(orNull(Type.Boolean())),
    minUrgency: Type.Optional(orNull(Type.Enum([...PRIORITY_SPELLINGS]))),
    quietHours: Type.Optional(
      orNull(
        Type.Object(
          {
            enabled: Type.Boolean(),
            start: TimeOfDayField,
            end: EndOfDayField,
            timezone: Type.Optional(TimezoneField),
            allowCritical: Type.Optional(Type.Boolean()),
          },
          strict,
        ),
      ),
    ),
    batchIntervalMinutes: Type.Optional(orNull(BatchField)),
    channels: Type.Optional(
      Type.Object(
        Object.fromEntries(CHANNELS.map(channel => [channel, Type.Optional(orNull(Type.Boolean()))])),
        strict,
      ),
    ),
  },
  strict,
)

// ---------------------------------------------------------------- one channel, of everything or of one aura

const AuraIdField = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: '^[^\\u0000-\\u001f\\u007f]+$',
  description: 'Absent: of everything.',
})
const AuraQuiet = Type.Object(
  { enabled: Type.Boolean(), start: TimeOfDayField, end: EndOfDayField, timezone: TimezoneField },
  strict,
)
const Preference = Type.Object({
  id: orNull(IdField, { description: 'null: nothing was said yet; these are the defaults.' }),
  userId: Type.String(),
  auraId: orNull(Type.String()),
  channel: ChannelField,
  enabled: Type.Boolean(),
  quietHours: AuraQuiet,
  maxPerDay: orNull(Type.Integer()),
  priorityThreshold: Type.Integer(),
  createdAt: MaybeTimeField,
  updatedAt: MaybeTimeField,
})
const ReaderQuery = {
  userId: Type.Optional(
    Type.String({
      ...UserIdField,
      description: 'Whose; keys name it, people need not: it is they themselves.',
    }),
  ),
}

// ---------------------------------------------------------------- what would happen

const Names = Type.Array(AudienceNameField, { maxItems: 50 })
const EvaluateBody = Type.Object(
  {
    userId: UserIdField,
    channel: Type.Optional(ChannelField),
    channels: Type.Optional(
      Type.Array(ChannelField, { minItems: 1, maxItems: CHANNELS.length, uniqueItems: true }),
    ),
    category: Type.Optional(Type.String({ maxLength: 255 })),
    class: Type.Optional(Type.Enum(MESSAGE_CLASSES)),
    topic: Type.Optional(AudienceNameField),
    topics: Type.Optional(Names),
    eventType: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    priority: Type.Optional(Type.Enum(PRIORITY_SPELLINGS)),
    ruleId: Type.Optional(IdField),
    score: Type.Optional(ThresholdField),
    auraId: Type.Optional(AuraIdField),
    scopes: Type.Optional(Type.Array(ScopeField, { maxItems: 20 })),
    at: Type.Optional(TimeField),
  },
  strict,
)
const MaybeText = orNull(Type.String())
const Evaluation = Type.Object({
  userId: Type.String(),
  at: TimeField,
  class: Type.Enum(MESSAGE_CLASSES),
  scopes: Type.Array(Type.String(), { description: 'Most specific first.' }),
  channels: Type.Array(
    Type.Object({
      channel: ChannelField,
      outcome: Type.Enum(['send', 'hold', 'digest', 'skip'], {
        description: 'By preferences alone: addresses, limits and the times of a rule come on top.',
      }),
      reason: MaybeText,
      text: MaybeText,
      detail: MaybeText,
      until: MaybeTimeField,
      enabled: Type.Boolean(),
      layer: Type.String(),
      required: Type.Boolean(),
      frequency: Type.Enum(FREQUENCIES),
      settings: Type.Array(Type.Object({ name: Type.String(), value: Type.Unknown(), layer: Type.String() })),
      caps: Type.Array(
        Type.Object({
          window: Type.Enum(['hour', 'day']),
          max: Type.Integer(),
          scope: Type.String(),
          channel: orNull(ChannelField),
          layer: Type.String(),
        }),
      ),
    }),
  ),
})

/** The same preferences in the other shapes that are documented, and what would become of a message. */
export function preferencesViewsRoutes(
  api: Api,
  { db, sealer, now = () => new Date() }: { db: Db; sealer: PeopleSealer; now?: () => Date },
): void {
  api.get(
    '/api/users/:userId/preferences',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getUserPreferences',
        summary: "A user's channels, quiet hours and categories",
        params: Params,
        response: { 200: ProfileView },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return showProfile(await getPreferences(db, request.caller.tenantId, userId))
    },
  )

  api.put(
    '/api/users/:userId/preferences',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'putUserPreferences',
        summary: "Change a user's channels, quiet hours and categories",
        params: Params,
        body: ProfileBody,
        response: { 200: ProfileView },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const { userId } = params
      requireSelf(request, userId)
      const input = profileInput(body, userId)
      return showProfile(
        await db.tx(async tx => {
          const by = originOf(request, userId)
          await putPreferences(tx, { sealer, tenantId: caller.tenantId }, userId, by, input)
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

  api.get(
    '/v3/proactive/preferences',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getProactivePreferences',
        summary: 'My preferences as the triage of mail and appointments has them',
        querystring: Type.Object(ReaderQuery, strict),
        response: { 200: ProactiveView },
      },
    },
    request =>
      getProactivePreferences(db, request.caller.tenantId, personOf(request.caller, request.query.userId)),
  )

  api.patch(
    '/v3/proactive/preferences',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'changeProactivePreferences',
        summary: 'Change some of them; null takes one back',
        querystring: Type.Object(ReaderQuery, strict),
        body: ProactiveBody,
        response: { 200: ProactiveView },
      },
    },
    async request => {
      const { caller, traceId, body } = request
      const reader = personOf(caller, request.query.userId)
      const { minUrgency, channels, ...rest } = body
      const change: ProactiveChange = {
        ...rest,
        ...(channels && { channels }),
        ...(minUrgency !== undefined && {
          minUrgency: minUrgency === null ? null : readPriority(minUrgency),
        }),
      }
      return db.tx(async tx => {
        const by = originOf(request, reader)
        const after = await patchProactivePreferences(tx, caller.tenantId, reader, by, change)
        await audit(tx, caller, {
          action: 'preferences.updated',
          objectKind: 'user',
          objectId: reader,
          details: { fields: Object.keys(body), channels: Object.keys(body.channels ?? {}) },
          traceId,
        })
        return after
      })
    },
  )

  api.get(
    '/api/notifications/preferences',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getNotificationPreferences',
        summary: 'My preferences channel by channel: of everything, and by aura',
        querystring: Type.Object({ auraId: Type.Optional(AuraIdField), ...ReaderQuery }, strict),
        response: {
          200: Type.Object({
            global: Type.Array(Preference),
            byAura: Type.Record(Type.String(), Type.Array(Preference)),
          }),
        },
      },
    },
    async request => {
      const { auraId, userId } = request.query
      const reader = personOf(request.caller, userId)
      const { global, byAura } = await getAuraPreferences(db, request.caller.tenantId, reader, auraId)
      return {
        global: global.map(showPreference),
        byAura: Object.fromEntries(
          Object.entries(byAura).map(([id, list]) => [id, list.map(showPreference)]),
        ),
      }
    },
  )

  api.put(
    '/api/notifications/preferences',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'putNotificationPreference',
        summary: 'Change my preferences of one channel: of everything, or of one aura',
        querystring: Type.Object(ReaderQuery, strict),
        body: Type.Object(
          {
            auraId: Type.Optional(AuraIdField),
            channel: ChannelField,
            settings: Type.Object(
              {
                enabled: Type.Boolean(),
                quietHours: Type.Optional(orNull(AuraQuiet)),
                maxPerDay: Type.Optional(orNull(CapField)),
                priorityThreshold: Type.Optional(orNull(ThresholdField)),
              },
              strict,
            ),
          },
          strict,
        ),
        response: { 200: Preference },
      },
    },
    async request => {
      const { caller, traceId, body } = request
      const reader = personOf(caller, request.query.userId)
      const change = body
      return showPreference(
        await db.tx(async tx => {
          const by = originOf(request, reader)
          const after = await putAuraPreference(tx, caller.tenantId, reader, by, change)
          await audit(tx, caller, {
            action: 'preferences.updated',
            objectKind: 'user',
            objectId: reader,
            details: {
              auraId: body.auraId ?? null,
              channels: [body.channel],
              fields: Object.keys(body.settings),
            },
            traceId,
          })
          return after
        }),
      )
    },
  )

  api.post(
    '/api/preferences/evaluate',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'evaluatePreferences',
        summary: "What a user's preferences would make of a notification, and why",
        body: EvaluateBody,
        response: { 200: Evaluation },
      },
    },
    async request => {
      const {
        userId,
        channel,
        channels,
        topic,
        topics = [],
        priority,
        auraId,
        scopes = [],
        at,
        ...rest
      } = request.body
      requireSelf(request, userId)
      for (const [i, scope] of scopes.entries()) checkScope(scope, `/scopes/${i}`)
      const found = await evaluatePreferences(
        db,
        sealer,
        request.caller.tenantId,
        {
          ...rest,
          userId,
          channels: channels ?? (channel === undefined ? CHANNELS : [channel]),
          category: rest.category ?? '',
          eventType: rest.eventType ?? '',
          priority: readPriority(priority ?? 'NORMAL') as Priority,
          topics: topic === undefined ? topics : [topic, ...topics],
          scopes: auraId === undefined ? scopes : [`aura:${auraId}`, ...scopes],
        },
        at === undefined ? now() : new Date(at),
      )
      return {
        ...found,
        at: found.at.toISOString(),
        channels: found.channels.map(one => ({
          ...one,
          until: one.until?.toISOString() ?? null,
          caps: [...one.caps],
        })),
      }
    },
  )
}

/** The caller, or whom a service names. */
function personOf(caller: Caller, userId: UserId | undefined): UserId {
  const person = userId ?? caller.userId
  if (person === undefined) {
    throw new AppError('invalid_request', 'Name the person whose preferences these are.', { field: 'userId' })
  }
  requireSelf({ caller }, person)
  return person
}

/** @throws AppError invalid_request when the body is about somebody else */
function profileInput(body: Static<typeof ProfileBody>, userId: UserId): PreferencesInput {
  const { userId: named, enabled, timezone, locale, channels = {}, quietHours, categories } = body
  if (named !== undefined && named !== userId) {
    throw new AppError('invalid_request', 'The body names another user than the path.', { field: '/userId' })
  }
  const input: PreferencesInput = {
    globalEnabled: enabled,
    channels: Object.fromEntries(
      [...PREFERENCE_CHANNELS].flatMap(([name, channel]) => {
        const said = channels[channel]
        return said === undefined ? [] : [[name, said]]
      }),
    ),
    language: locale,
    timezone,
    quietHours,
    categories: categories,
  }
  return input
}

function showProfile(view: PreferencesView): Static<typeof ProfileView> {
  const { userId, globalEnabled, timezone, language, channels, quietHours, categories, lastUpdated } = view
  const { startTime, endTime, allowCritical } = quietHours
  return {
    userId,
    enabled: globalEnabled,
    timezone,
    locale: language,
    channels: Object.fromEntries(
      [...PREFERENCE_CHANNELS].map(([name, channel]) => {
        const { enabled, address } = channels[name]!
        return [channel, address === undefined ? { enabled } : { enabled, address }]
      }),
    ),
    quietHours: {
      enabled: quietHours.enabled,
      startTime,
      endTime,
      timezone: quietHours.timezone,
      allowCritical,
    },
    categories,
    updatedAt: lastUpdated.toISOString(),
  } as Static<typeof ProfileView>
}

const showPreference = (one: NotificationPreference): Static<typeof Preference> => ({
  ...one,
  createdAt: one.createdAt?.toISOString() ?? null,
  updatedAt: one.updatedAt?.toISOString() ?? null,
})
