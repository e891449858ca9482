import { type Static, type TSchema, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { CHANNEL_SPELLINGS, readChannel } from '../spelling.ts'
import type { UserId } from '../types.ts'
import type { Origin } from './consents.ts'
import {
  ChannelField,
  LevelField,
  LocaleField,
  MaybeTimeField,
  TimeField,
  TimezoneField,
  UserIdField,
} from './fields.ts'
import {
  CapField,
  checkMute,
  checkScope,
  EndOfDayField,
  ExceptionsField,
  orNull,
  PriorityField,
  renamed,
  ScopeField,
  SwitchField,
  TimeOfDayField,
} from './preference-fields.ts'
import { MESSAGE_CLASSES } from './preference-scopes.ts'
import {
  DIGEST_FREQUENCIES,
  getPreferences,
  mute,
  NAMED_TOPICS,
  PREFERENCE_CHANNELS,
  type PreferencesInput,
  type PreferencesView,
  putPreferences,
  syncPreferences,
} from './preferences.ts'
import type { PeopleSealer } from './users.ts'

const MAX_CUSTOM_TOPICS = 500
const MAX_CATEGORIES = 200
const MAX_NAMES = 100
const VerificationStatus = Type.Enum(['PENDING', 'VERIFIED', 'FAILED'])
const strict = { additionalProperties: false }

const ofEach = <S extends TSchema>(names: Iterable<string>, schema: S): Record<string, S> =>
  Object.fromEntries([...names].map(name => [name, schema]))
const channelsOf = <S extends TSchema>(schema: S, options = {}) =>
  Type.Object(ofEach(PREFERENCE_CHANNELS.keys(), schema), options)
const maybe = <S extends TSchema>(schema: S) => Type.Optional(orNull(schema))

// ---------------------------------------------------------------- what is shown

const ChannelView = Type.Object({
  enabled: Type.Boolean(),
  address: Type.Optional(Type.String()),
  verificationStatus: Type.Optional(VerificationStatus),
  preferences: Type.Object(ofEach(MESSAGE_CLASSES, Type.Boolean())),
})
const TopicsView = Type.Object({
  ...ofEach(NAMED_TOPICS, Type.Optional(LevelField)),
  customTopics: Type.Record(Type.String(), LevelField),
})
export const CategoryViewSchema = Type.Object({
  enabled: Type.Boolean(),
  channels: orNull(Type.Array(ChannelField)),
  minPriority: orNull(PriorityField),
})
const EventNames = Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { maxItems: MAX_NAMES })
const SundayFirst = Type.Integer({ minimum: 0, maximum: 6, description: '0 is Sunday.' })
const QuietHoursView = Type.Object({
  enabled: Type.Boolean(),
  startTime: TimeOfDayField,
  endTime: EndOfDayField,
  timezone: TimezoneField,
  weekdays: Type.Array(SundayFirst, { description: 'The days on which quiet hours start; 0 is Sunday.' }),
  exceptions: ExceptionsField,
  allowCritical: Type.Boolean({ description: 'Whether CRITICAL passes.' }),
})
const View = Type.Object({
  userId: Type.String(),
  globalEnabled: Type.Boolean({
    description: 'Off: nothing is sent to this person but what is owed to them.',
  }),
  channels: channelsOf(ChannelView),
  topics: TopicsView,
  categories: Type.Record(Type.String(), CategoryViewSchema),
  frequency: Type.Object({
    maxPerHour: orNull(Type.Integer()),
    maxPerDay: orNull(Type.Integer()),
    digestEnabled: Type.Boolean(),
    digestFrequency: Type.Enum(DIGEST_FREQUENCIES),
    digestTime: orNull(TimeOfDayField),
    digestWeekday: orNull(SundayFirst),
    instantAlerts: Type.Array(Type.String()),
    batchableEvents: Type.Array(Type.String()),
  }),
  quietHours: QuietHoursView,
  minPriority: orNull(PriorityField),
  mutedUntil: MaybeTimeField,
  language: Type.String(),
  timezone: Type.String(),
  lastUpdated: TimeField,
})

// ---------------------------------------------------------------- what is taken

const classSwitches = Type.Object(ofEach(MESSAGE_CLASSES, Type.Optional(SwitchField)), strict)
const AddressField = Type.String({ minLength: 1, maxLength: 2048 })
const ChannelBody = Type.Object(
  {
    enabled: Type.Optional(SwitchField),
    address: Type.Optional(AddressField),
    verificationStatus: Type.Optional(VerificationStatus),
    preferences: Type.Optional(classSwitches),
  },
  strict,
)
const MaybeLevel = orNull(LevelField, { description: 'null ends the subscription.' })
const TopicsBody = Type.Object(
  {
    ...ofEach(NAMED_TOPICS, Type.Optional(MaybeLevel)),
    customTopics: Type.Optional(
      Type.Record(Type.String({ minLength: 1, maxLength: 255 }), MaybeLevel, {
        maxProperties: MAX_CUSTOM_TOPICS,
      }),
    ),
  },
  strict,
)
export const CategoriesBody = Type.Record(
  Type.String({ minLength: 1, maxLength: 255 }),
  orNull(
    Type.Object(
      {
        enabled: Type.Optional(SwitchField),
        channels: Type.Optional(
          orNull(Type.Array(ChannelField, { minItems: 1, maxItems: 30, uniqueItems: true }), {
            description: 'The only channels it may come by; null: all.',
          }),
        ),
        minPriority: maybe(PriorityField),
      },
      strict,
    ),
  ),
  { maxProperties: MAX_CATEGORIES },
)
const FrequencyBody = Type.Object(
  {
    maxPerHour: maybe(CapField),
    maxPerDay: maybe(CapField),
    digestEnabled: maybe(Type.Boolean()),
    digestFrequency: maybe(Type.Enum(DIGEST_FREQUENCIES)),
    digestTime: maybe(TimeOfDayField),
    digestWeekday: maybe(SundayFirst),
    instantAlerts: maybe(EventNames),
    batchableEvents: maybe(EventNames),
  },
  strict,
)
export const quietHoursFields = {
  enabled: maybe(Type.Boolean()),
  startTime: maybe(TimeOfDayField),
  endTime: maybe(EndOfDayField),
  timezone: maybe(TimezoneField),
  allowCritical: maybe(Type.Boolean()),
}
const QuietHoursBody = Type.Object(
  {
    ...quietHoursFields,
    weekdays: maybe(Type.Array(SundayFirst, { maxItems: 7 })),
    exceptions: maybe(ExceptionsField),
  },
  strict,
)
const bodyFields = {
  globalEnabled: Type.Optional(SwitchField),
  channels: Type.Optional(channelsOf(Type.Optional(ChannelBody), strict)),
  topics: Type.Optional(TopicsBody),
  categories: Type.Optional(CategoriesBody),
  frequency: maybe(FrequencyBody),
  quietHours: maybe(QuietHoursBody),
  minPriority: maybe(PriorityField),
  language: Type.Optional(LocaleField),
  timezone: Type.Optional(TimezoneField),
  userId: Type.Optional(UserIdField),
  mutedUntil: Type.Optional(MaybeTimeField),
}
const Body = Type.Object(
  { ...bodyFields, lastUpdated: Type.Optional(TimeField) },
  {
    ...strict,
    description:
      'What is left out stays as it is; null is no opinion. `userId`, `lastUpdated`, `mutedUntil` and `verificationStatus` may be sent back as they were read; they change nothing.',
  },
)

const Params = Type.Object({ userId: UserIdField }, strict)
const tags = ['Preferences']
const read = { role: 'user', scope: 'people:read' } as const
const write = { role: 'user', scope: 'people:write' } as const

/** Who changes what is a person's, and where, for the receipts of consent. */
export function originOf(
  request: { caller: Caller; method: string; routeOptions: { url?: string | undefined } },
  userId: UserId,
): Origin {
  const { caller, method, routeOptions } = request
  return {
    actor: caller.userId === userId ? 'user' : `${caller.kind}:${caller.id}`,
    origin: `${method} ${routeOptions.url ?? ''}`.trim(),
  }
}

/** What people want to be told, and where. */
export function preferencesRoutes(
  api: Api,
  { db, sealer, now = () => new Date() }: { db: Db; sealer: PeopleSealer; now?: () => Date },
): void {
  type ChangeRequest = Parameters<typeof originOf>[0] & { traceId: string | undefined }

  const show = (view: PreferencesView) => shown(view, now())

  /** One change of a person's preferences in one transaction, with its line in the audit log. */
  function change<T>(
    request: ChangeRequest,
    userId: UserId,
    details: object,
    work: (tx: Tx, by: Origin) => Promise<T>,
  ): Promise<T> {
    requireSelf(request, userId)
    return db.tx(async tx => {
      const result = await work(tx, originOf(request, userId))
      await audit(tx, request.caller, {
        action: 'preferences.updated',
        objectKind: 'user',
        objectId: userId,
        details,
        traceId: request.traceId,
      })
      return result
    })
  }
  /** `part`: where in the whole document the body that came in has its place. */
  const put = (
    request: ChangeRequest,
    userId: UserId,
    input: PreferencesInput,
    part = '',
  ): Promise<PreferencesView> => {
    const { tenantId } = request.caller
    const details = { fields: Object.keys(input), channels: Object.keys(input.channels ?? {}) }
    return change(request, userId, details, async (tx, by) => {
      await putPreferences(tx, { sealer, tenantId }, userId, by, input)
      return getPreferences(tx, tenantId, userId)
    }).catch((error: unknown) => {
      throw renamed(field => (field.startsWith(part) ? field.slice(part.length) : field), error)
    })
  }

  api.get(
    '/api/preferences/:userId',
    {
      config: { access: read },
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
      return show(await getPreferences(db, request.caller.tenantId, userId))
    },
  )

  api.put(
    '/api/preferences/:userId',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putPreferences',
        summary: "Change a user's preferences",
        params: Params,
        body: Body,
        response: { 200: View },
      },
    },
    async request => {
      const { userId } = request.params
      return show(await put(request, userId, inputOf(request.body, userId)))
    },
  )

  api.post(
    '/api/preferences/:userId/channels',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putChannelPreference',
        summary: 'Change one channel: its switch, its address, its classes',
        params: Params,
        body: Type.Object({ channel: Type.Enum(CHANNEL_SPELLINGS), ...ChannelBody.properties }, strict),
        response: { 200: Type.Object({ channel: ChannelField, ...ChannelView.properties }) },
      },
    },
    async request => {
      const { userId } = request.params
      const { enabled, address, preferences } = request.body
      const channel = readChannel(request.body.channel)!
      const said = { enabled, address, preferences }
      const name = [...PREFERENCE_CHANNELS].find(([, one]) => one === channel)![0]
      const after = await put(request, userId, { channels: { [name]: said } }, `/channels/${name}`)
      return { channel, ...after.channels[name]! }
    },
  )

  api.get(
    '/api/preferences/:userId/subscriptions',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getSubscriptions',
        summary: 'The topics a user follows or refused',
        params: Params,
        response: { 200: TopicsView },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return (await getPreferences(db, request.caller.tenantId, userId)).topics
    },
  )

  api.put(
    '/api/preferences/:userId/subscriptions',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putSubscriptions',
        summary: 'Follow topics, refuse them, or end subscriptions',
        params: Params,
        body: TopicsBody,
        response: { 200: TopicsView },
      },
    },
    async request => {
      const { userId } = request.params
      return (await put(request, userId, { topics: request.body }, '/topics')).topics
    },
  )

  api.put(
    '/api/preferences/:userId/quiet-hours',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putQuietHours',
        summary: 'Change when a user is not to be disturbed',
        params: Params,
        body: QuietHoursBody,
        response: { 200: QuietHoursView },
      },
    },
    async request => {
      const { userId } = request.params
      return (await put(request, userId, { quietHours: request.body }, '/quietHours')).quietHours
    },
  )

  api.post(
    '/api/preferences/:userId/sync',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'syncPreferences',
        summary: "Bring in a client's own copy; the one that was changed later wins",
        params: Params,
        body: Type.Object({ ...bodyFields, lastUpdated: TimeField }, strict),
        response: {
          200: Type.Object({
            accepted: Type.Boolean({ description: 'Whether the copy was newer.' }),
            preferences: View,
          }),
        },
      },
    },
    async request => {
      const { userId } = request.params
      const { tenantId } = request.caller
      const input = inputOf(request.body, userId)
      // A clock that is ahead would win for ever.
      const changedAt = new Date(Math.min(Date.parse(request.body.lastUpdated), now().getTime()))
      return change(request, userId, { fields: Object.keys(input), sync: true }, async (tx, by) => {
        const accepted = await syncPreferences(tx, { sealer, tenantId }, userId, by, input, changedAt)
        return { accepted, preferences: show(await getPreferences(tx, tenantId, userId)) }
      })
    },
  )

  const muteFields = { scope: Type.Optional(ScopeField), channel: Type.Optional(orNull(ChannelField)) }
  const Muted = Type.Object({
    scope: Type.String(),
    channel: orNull(ChannelField),
    mutedUntil: MaybeTimeField,
  })

  api.put(
    '/api/preferences/:userId/mute',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'mute',
        summary: 'Send nothing until a time: of everything, or of one scope or channel',
        description:
          'CRITICAL is muted as well. The inbox fills meanwhile, unless the channel in_app is muted.',
        params: Params,
        body: Type.Object({ until: TimeField, ...muteFields }, strict),
        response: { 200: Muted },
      },
    },
    async request => {
      const { userId } = request.params
      const { scope = '', channel = null, until } = request.body
      checkScope(scope)
      const mutedUntil = checkMute(until, '/until', now())
      await change(request, userId, { mute: { scope, channel, until: mutedUntil } }, (tx, by) =>
        mute(tx, request.caller.tenantId, userId, by, { scope, channel, until: mutedUntil }),
      )
      return { scope, channel, mutedUntil }
    },
  )

  api.delete(
    '/api/preferences/:userId/mute',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'unmute',
        summary: 'End a mute before its time',
        params: Params,
        querystring: Type.Object(
          { scope: Type.Optional(ScopeField), channel: Type.Optional(ChannelField) },
          strict,
        ),
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { userId } = request.params
      const { scope = '', channel = null } = request.query
      checkScope(scope, 'scope')
      await change(request, userId, { unmute: { scope, channel } }, (tx, by) =>
        mute(tx, request.caller.tenantId, userId, by, { scope, channel, until: null }),
      )
      return reply.code(204).send(null)
    },
  )
}

/** @throws AppError invalid_request when the body is about somebody else */
function inputOf(body: Static<typeof Body>, userId: UserId): PreferencesInput {
  const { globalEnabled, channels, topics, categories, frequency, quietHours, minPriority } = body
  const { userId: named, language, timezone } = body
  if (named !== undefined && named !== userId) {
    throw new AppError('invalid_request', 'The body names another user than the path.', { field: '/userId' })
  }
  const all = {
    globalEnabled,
    channels,
    topics,
    categories,
    frequency,
    quietHours,
    minPriority,
    language,
    timezone,
  }
  // The log says which fields were given.
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined))
}

const shown = (view: PreferencesView, now: Date): Static<typeof View> => ({
  ...view,
  // One that is over says nothing any more.
  mutedUntil: view.mutedUntil && view.mutedUntil > now ? view.mutedUntil.toISOString() : null,
  lastUpdated: view.lastUpdated.toISOString(),
})
