import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { UserIdField } from '../people/fields.ts'
import { ScopeField, checkScope } from '../people/preference-fields.ts'
import { changePreferences, touchPreferences } from '../people/preference-store.ts'
import { originOf } from '../people/preferences-routes.ts'
import { lockUser } from '../people/users.ts'
import { PRIORITY_SPELLINGS, readPriority } from '../spelling.ts'
import { CHANNELS } from '../types.ts'
import type { JsonObject, TenantId, UserId } from '../types.ts'
import type { Allowance, Checked } from './allowance.ts'
import { allowancesOf, checkLimits, findPerson, resetAllowances, sharedAllowances } from './allowance.ts'
import type { LimitDefinition, LimitWindow, StoredLimit } from '../limits/store.ts'
import { allLimits, createLimit, deleteLimit, updateLimit } from '../limits/store.ts'
import type { Cap } from '../limits/usage.ts'

const closed = { additionalProperties: false }
const Time = Type.String({ format: 'date-time' })
export const OutsideChannel = Type.Enum(CHANNELS.filter(channel => channel !== 'in_app'))
export const Params = Type.Object({ userId: UserIdField }, closed)
const tags = ['Limits']

const TYPES = {
  PER_MINUTE: 'minute',
  PER_HOUR: 'hour',
  PER_DAY: 'day',
  PER_WEEK: 'week',
  PER_MONTH: 'month',
  MINIMUM_GAP: 'gap',
} as const satisfies Record<string, LimitWindow>
type LimitType = keyof typeof TYPES
const LIMIT_TYPES = Object.keys(TYPES) as LimitType[]
const COUNTING = LIMIT_TYPES.filter(type => type !== 'MINIMUM_GAP')
const typeOf = (window: LimitWindow): LimitType => LIMIT_TYPES.find(type => TYPES[type] === window)!

const RateLimit = Type.Object({
  id: Type.String({ description: 'Of a limit at `/api/limits`, or the name of somebody’s own setting.' }),
  name: Type.String(),
  source: Type.Enum(['limit', 'preference'], {
    description: 'preference: set by the reader, or for all readers who set none.',
  }),
  userId: Type.Union([Type.String(), Type.Null()], { description: 'null: all readers together.' }),
  // Somebody may have set a bound on the inbox, which nothing counts.
  channel: Type.Union([Type.Enum(CHANNELS), Type.Null()], {
    description: 'null: several, counted together.',
  }),
  channels: Type.Array(Type.Enum(CHANNELS), { description: 'Empty: all but the inbox.' }),
  categories: Type.Array(Type.String()),
  eventTypes: Type.Array(Type.String()),
  eventType: Type.Union([Type.String(), Type.Null()], { description: 'The only one, if there is only one.' }),
  limitType: Type.Enum(LIMIT_TYPES),
  every: Type.Integer({ description: 'So many minutes or hours together.' }),
  gapSeconds: Type.Union([Type.Integer(), Type.Null()]),
  maxCount: Type.Integer(),
  currentCount: Type.Union([Type.Integer(), Type.Null()], {
    description: 'In the window of now; null: one counter for each category, which this is not one of.',
  }),
  remaining: Type.Union([Type.Integer(), Type.Null()]),
  windowStart: Time,
  resetTime: Time,
  isActive: Type.Boolean(),
  createdAt: Time,
  updatedAt: Time,
})
const RateLimits = Type.Object({ items: Type.Array(RateLimit) })

const OwnBody = Type.Object(
  {
    limits: Type.Array(
      Type.Object(
        {
          channel: Type.Optional(
            Type.Union([OutsideChannel, Type.Null()], { description: 'null or absent: over all channels.' }),
          ),
          scope: Type.Optional(ScopeField),
          limitType: Type.Enum(['PER_HOUR', 'PER_DAY']),
          maxCount: Type.Union([Type.Integer({ minimum: 0, maximum: 1_000_000 }), Type.Null()], {
            description: 'null takes the limit back; 0: none at all.',
          }),
        },
        closed,
      ),
      { minItems: 1, maxItems: 50 },
    ),
  },
  closed,
)
const GlobalBody = Type.Object(
  {
    limits: Type.Array(
      Type.Object(
        {
          channel: Type.Optional(Type.Union([OutsideChannel, Type.Null()])),
          limitType: Type.Enum(COUNTING),
          maxCount: Type.Union([Type.Integer({ minimum: 0, maximum: 1_000_000_000 }), Type.Null()], {
            description: 'null lifts the limit; 0: none at all.',
          }),
          isActive: Type.Optional(Type.Boolean()),
        },
        closed,
      ),
      { minItems: 1, maxItems: 50 },
    ),
  },
  closed,
)
export const CheckBody = Type.Object(
  {
    userId: UserIdField,
    channel: OutsideChannel,
    category: Type.Optional(Type.String({ maxLength: 255 })),
    eventType: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
    priority: Type.Optional(Type.Enum(PRIORITY_SPELLINGS)),
    content: Type.Optional(
      Type.Object(
        {
          subject: Type.Optional(Type.String({ maxLength: 1_000 })),
          body: Type.String({ maxLength: 100_000 }),
        },
        { ...closed, description: 'As it would be sent: for limits on equal texts.' },
      ),
    ),
  },
  closed,
)
const CheckAnswer = Type.Object({
  allowed: Type.Boolean({ description: 'Whether it would go now.' }),
  decision: Type.Enum(['send', 'hold', 'digest', 'skip']),
  reason: Type.Union([Type.String(), Type.Null()]),
  detail: Type.Union([Type.String(), Type.Null()]),
  until: Type.Union([Time, Type.Null()], { description: 'When there is room again.' }),
  spam: Type.Object({
    action: Type.Enum(['ALLOW', 'THROTTLE', 'BLOCK']),
    riskScore: Type.Integer({ description: 'In hundredths of what is bearable: more than 100 is too much.' }),
    detectionRule: Type.Union([Type.String(), Type.Null()]),
  }),
  limits: Type.Array(
    Type.Object({
      name: Type.String(),
      maxCount: Type.Integer(),
      currentCount: Type.Integer(),
      cost: Type.Integer(),
      resetTime: Time,
      passes: Type.Boolean({ description: 'It is counted, and not stopped.' }),
    }),
  ),
})
const ResetBody = Type.Object(
  {
    userId: Type.Optional(
      Type.Union([UserIdField, Type.Null()], { description: 'null or absent: what all readers share.' }),
    ),
    id: Type.Optional(Type.String({ maxLength: 500, description: 'Only this one, as it is listed.' })),
    channel: Type.Optional(OutsideChannel),
    limitType: Type.Optional(Type.Enum(LIMIT_TYPES)),
  },
  closed,
)

interface Parts {
  db: Db
  sealer: { unwrap(wrapped: Buffer): Buffer }
  now: () => Date
}

/** Limits as counters: how far each is used, for one reader or for all; the same limits as at `/api/limits`. */
export function rateLimitsRoutes(api: Api, { db, sealer, now }: Parts): void {
  const ofUser = async (tenantId: TenantId, userId: UserId) =>
    allowancesOf(db, tenantId, await findPerson(db, sealer, tenantId, userId), now())

  api.get(
    '/api/rate-limits/global',
    {
      config: { access: { role: 'service', scope: 'rules:read' } },
      schema: {
        tags,
        operationId: 'getGlobalRateLimits',
        summary: 'Limits on all readers together, and how far they are used',
        querystring: Type.Object({}, closed),
        response: { 200: RateLimits },
      },
    },
    async request => ({
      items: (await sharedAllowances(db, request.caller.tenantId, now())).map(rateLimit),
    }),
  )

  api.put(
    '/api/rate-limits/global',
    {
      config: { access: { role: 'admin', scope: 'rules:write' } },
      schema: {
        tags,
        operationId: 'putGlobalRateLimits',
        summary: 'Set limits on all readers together, by channel and window',
        body: GlobalBody,
        response: { 200: RateLimits },
      },
    },
    async request => {
      const { caller, body } = request
      await db.tx(async tx => {
        for (const [at, wish] of body.limits.entries()) await putShared(tx, caller, wish, at)
      })
      return { items: (await sharedAllowances(db, caller.tenantId, now())).map(rateLimit) }
    },
  )

  api.get(
    '/api/rate-limits/:userId',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getRateLimits',
        summary: 'Everything that bounds one reader, and how far it is used',
        params: Params,
        response: { 200: RateLimits },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return { items: (await ofUser(request.caller.tenantId, userId)).map(rateLimit) }
    },
  )

  api.put(
    '/api/rate-limits/:userId',
    {
      config: { access: { role: 'user', scope: 'people:write' } },
      schema: {
        tags,
        operationId: 'putRateLimits',
        summary: 'Set a reader’s own limits: they are preferences, and hold beside those of operators',
        params: Params,
        body: OwnBody,
        response: { 200: RateLimits },
      },
    },
    async request => {
      const { caller, body, traceId } = request
      const { userId } = request.params
      requireSelf(request, userId)
      for (const { scope } of body.limits) if (scope) checkScope(scope, 'limits')
      await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        await changePreferences(
          tx,
          caller.tenantId,
          userId,
          originOf(request, userId),
          body.limits.map(({ channel = null, scope = '', limitType, maxCount }) => ({
            scope,
            channel,
            settings: { [limitType === 'PER_HOUR' ? 'maxPerHour' : 'maxPerDay']: maxCount },
          })),
        )
        await touchPreferences(tx, caller.tenantId, userId)
        await audit(tx, caller, {
          action: 'preferences.updated',
          objectKind: 'user',
          objectId: userId,
          details: { limits: body.limits as unknown as JsonObject[] },
          traceId,
        })
      })
      return { items: (await ofUser(caller.tenantId, userId)).map(rateLimit) }
    },
  )

  api.post(
    '/api/rate-limits/check',
    {
      config: { access: { role: 'service', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'checkRateLimits',
        summary: 'What limits would make of a notification now; counts nothing',
        body: CheckBody,
        response: { 200: CheckAnswer },
      },
    },
    async request => {
      const { userId, content, ...about } = request.body
      const { tenantId } = request.caller
      const person = await findPerson(db, sealer, tenantId, userId)
      return answerOf(
        await checkLimits(
          db,
          tenantId,
          person,
          { ...asked(about), ...(content && { text: content }) },
          now(),
        ),
      )
    },
  )

  api.post(
    '/api/rate-limits/reset',
    {
      config: { access: { role: 'admin', scope: 'rules:write' } },
      schema: {
        tags,
        operationId: 'resetRateLimits',
        summary: 'Begin the current windows anew; what waits keeps its place in a later one',
        body: ResetBody,
        response: { 200: Type.Object({ reset: Type.Integer() }) },
      },
    },
    async request => {
      const { caller, body } = request
      const { userId = null, id, channel, limitType } = body
      const allowances =
        userId === null
          ? await sharedAllowances(db, caller.tenantId, now())
          : await ofUser(caller.tenantId, userId)
      const chosen = allowances.filter(
        allowance =>
          (id === undefined || allowance.id === id) &&
          (channel === undefined || allowance.channel === channel || allowance.channels.includes(channel)) &&
          (limitType === undefined || allowance.window === TYPES[limitType]),
      )
      if (id !== undefined && chosen.length === 0) {
        throw new AppError('not_found', 'There is no such limit.', { field: '/id' })
      }
      const reset = await db.tx(async tx => {
        const n = await resetAllowances(tx, caller.tenantId, chosen)
        await audit(tx, caller, {
          action: 'limits.reset',
          objectKind: userId === null ? 'limits' : 'user',
          objectId: userId ?? '',
          details: { limits: chosen.map(({ name }) => name).slice(0, 50), cleared: n },
        })
        return n
      })
      return { reset }
    },
  )
}

export const asked = ({
  channel,
  category = '',
  eventType = 'notification',
  priority,
}: Pick<Static<typeof CheckBody>, 'channel' | 'category' | 'eventType' | 'priority'>) => ({
  channel,
  category,
  eventType,
  priority: readPriority(priority ?? 'NORMAL')!,
})

/** @throws AppError conflict where several limits are of this kind */
async function putShared(
  tx: Tx,
  actor: Parameters<typeof createLimit>[1],
  { channel = null, limitType, maxCount, isActive }: Static<typeof GlobalBody>['limits'][number],
  at: number,
): Promise<void> {
  const window = TYPES[limitType]
  const alike = (await allLimits(tx, actor.tenantId)).filter(
    limit =>
      limit.scope === 'tenant' &&
      limit.window === window &&
      limit.every === 1 &&
      limit.channels.length === (channel === null ? 0 : 1) &&
      (channel === null || limit.channels[0] === channel) &&
      isForAll(limit),
  )
  if (alike.length > 1) {
    const names = alike.map(({ name }) => `"${name}"`).join(', ')
    throw new AppError('conflict', `These are all of this kind: ${names}. Change each at /api/limits.`, {
      field: `/limits/${at}`,
    })
  }
  const [there] = alike
  if (maxCount === null) {
    if (there) await deleteLimit(tx, actor, there.id)
  } else if (there) {
    await updateLimit(tx, actor, there.id, changed(there, maxCount, isActive))
  } else {
    await createLimit(tx, actor, {
      name: `global: ${channel ?? 'all'} per ${window}`,
      scope: 'tenant',
      channels: channel === null ? [] : [channel],
      categories: [],
      eventTypes: [],
      tiers: [],
      max: maxCount,
      costs: {},
      window,
      every: 1,
      gapSeconds: null,
      per: 'delivery',
      overflow: 'hold',
      criticalPasses: false,
      shares: {},
      reason: null,
      enabled: isActive ?? true,
    })
  }
}

const isForAll = ({ categories, eventTypes, tiers, reason }: LimitDefinition): boolean =>
  categories.length === 0 && eventTypes.length === 0 && tiers.length === 0 && reason === null

/** The same but for how much, and whether. */
const changed = (there: StoredLimit, max: number, enabled = there.enabled): LimitDefinition => ({
  name: there.name,
  scope: there.scope,
  channels: there.channels,
  categories: there.categories,
  eventTypes: there.eventTypes,
  tiers: there.tiers,
  max,
  costs: there.costs,
  window: there.window,
  every: there.every,
  gapSeconds: there.gapSeconds,
  per: there.per,
  overflow: there.overflow,
  criticalPasses: there.criticalPasses,
  shares: there.shares,
  reason: there.reason,
  enabled,
})

function rateLimit(allowance: Allowance): Static<typeof RateLimit> {
  const { used, max, eventTypes } = allowance
  return {
    id: allowance.id,
    name: allowance.name,
    source: allowance.source,
    userId: allowance.userId,
    channel: allowance.channel,
    channels: [...allowance.channels],
    categories: [...allowance.categories],
    eventTypes: [...eventTypes],
    eventType: eventTypes.length === 1 ? eventTypes[0]! : null,
    limitType: typeOf(allowance.window),
    every: allowance.every,
    gapSeconds: allowance.gapSeconds,
    maxCount: max,
    currentCount: used,
    remaining: used === null ? null : Math.max(0, max - used),
    windowStart: allowance.from.toISOString(),
    resetTime: allowance.until.toISOString(),
    isActive: allowance.enabled,
    createdAt: allowance.createdAt.toISOString(),
    updatedAt: allowance.updatedAt.toISOString(),
  }
}

function answerOf({ decision, caps }: Checked): Static<typeof CheckAnswer> {
  const worst = caps
    .filter(({ cap }) => isSpam(cap) && cap.max > 0)
    .map(({ cap, used }) => ({ cap, score: Math.round((100 * (used + cap.cost)) / cap.max) }))
    .sort((a, b) => b.score - a.score)[0]
  const over = worst !== undefined && worst.score > 100 && !worst.cap.bypass ? worst : undefined
  return {
    allowed: decision.kind === 'send',
    decision: decision.kind,
    reason: decision.kind === 'send' ? null : decision.reason,
    detail: decision.kind === 'send' ? null : (decision.detail ?? null),
    until: decision.kind === 'hold' ? decision.until.toISOString() : null,
    spam: {
      action: over === undefined ? 'ALLOW' : over.cap.reason === 'spam' ? 'BLOCK' : 'THROTTLE',
      riskScore: worst?.score ?? 0,
      detectionRule: over?.cap.label ?? null,
    },
    limits: caps.map(({ cap, used, until }) => ({
      name: cap.label,
      maxCount: cap.max,
      currentCount: used,
      cost: cap.cost,
      resetTime: until.toISOString(),
      passes: cap.bypass,
    })),
  }
}

const isSpam = ({ reason }: Cap): boolean => reason === 'spam' || reason === 'throttled'
