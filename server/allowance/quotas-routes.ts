import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { UserIdField } from '../people/fields.ts'
import { CHANNELS } from '../types.ts'
import type { TenantId, UserId } from '../types.ts'
import type { Allowance } from './allowance.ts'
import {
  allowancesOf,
  checkLimits,
  findPerson,
  historyOf,
  resetAllowances,
  sharedAllowances,
} from './allowance.ts'
import { CheckBody, Params, asked } from './rate-limits-routes.ts'
import type { LimitWindow } from '../limits/store.ts'

const closed = { additionalProperties: false }
const Time = Type.String({ format: 'date-time' })
const tags = ['Limits']

const PERIODS = { DAILY: 'day', WEEKLY: 'week', MONTHLY: 'month' } as const satisfies Record<
  string,
  LimitWindow
>
type Period = keyof typeof PERIODS
const PERIOD_NAMES = Object.keys(PERIODS) as Period[]
const WINDOWS: ReadonlySet<LimitWindow> = new Set(Object.values(PERIODS))
const periodOf = (window: LimitWindow): Period => PERIOD_NAMES.find(name => PERIODS[name] === window)!

const Quota = Type.Object({
  id: Type.String({ description: 'Of a limit at `/api/limits`, or the name of somebody’s own setting.' }),
  name: Type.String(),
  userId: Type.Union([Type.String(), Type.Null()], { description: 'null: all readers together.' }),
  quotaType: Type.String({ description: 'NOTIFICATIONS, or the channel it is of: EMAIL, SMS, PUSH …' }),
  channels: Type.Array(Type.Enum(CHANNELS), { description: 'Empty: all but the inbox.' }),
  periodType: Type.Enum(PERIOD_NAMES),
  maxQuota: Type.Integer(),
  usedQuota: Type.Union([Type.Integer(), Type.Null()]),
  remainingQuota: Type.Union([Type.Integer(), Type.Null()]),
  periodStart: Time,
  resetDate: Time,
  costPerUnit: Type.Integer({ description: 'What one delivery uses up; of several channels the least.' }),
  costs: Type.Record(Type.String(), Type.Integer(), { description: 'By channel; 1 where nothing is said.' }),
  isActive: Type.Boolean(),
})
const Quotas = Type.Object({ items: Type.Array(Quota) })
const QuotaHistory = Type.Object({
  items: Type.Array(
    Type.Object({
      id: Type.String(),
      name: Type.String(),
      periodType: Type.Enum(PERIOD_NAMES),
      maxQuota: Type.Integer(),
      periods: Type.Array(Type.Object({ periodStart: Time, usedQuota: Type.Integer() })),
    }),
  ),
})
const HistoryQuery = Type.Object(
  { periods: Type.Integer({ minimum: 1, maximum: 122, default: 12, description: 'The latest first.' }) },
  closed,
)
const QuotaCheckBody = Type.Object(
  {
    ...CheckBody.properties,
    units: Type.Optional(Type.Integer({ minimum: 1, maximum: 1_000_000, description: 'Deliveries; 1.' })),
  },
  closed,
)
const QuotaCheckAnswer = Type.Object({
  available: Type.Boolean(),
  remainingUnits: Type.Union([Type.Integer(), Type.Null()], {
    description: 'How many of such deliveries there is room for; null: nothing bounds them.',
  }),
  resetDate: Type.Union([Time, Type.Null()], { description: 'When the fullest period ends.' }),
  quotas: Type.Array(
    Type.Object({
      name: Type.String(),
      periodType: Type.Enum(PERIOD_NAMES),
      maxQuota: Type.Integer(),
      usedQuota: Type.Integer(),
      costPerUnit: Type.Integer(),
      resetDate: Time,
      available: Type.Boolean(),
    }),
  ),
})
const ResetBody = Type.Object(
  {
    userId: Type.Optional(
      Type.Union([UserIdField, Type.Null()], { description: 'null or absent: what all readers share.' }),
    ),
    periodType: Type.Optional(Type.Enum(PERIOD_NAMES)),
  },
  closed,
)

interface Parts {
  db: Db
  sealer: { unwrap(wrapped: Buffer): Buffer }
  now: () => Date
}

/** Limits over days, weeks and months, as quotas: what they are, what is used up, whether there is room. */
export function quotasRoutes(api: Api, { db, sealer, now }: Parts): void {
  const ofUser = async (tenantId: TenantId, userId: UserId) =>
    (await allowancesOf(db, tenantId, await findPerson(db, sealer, tenantId, userId), now())).filter(isQuota)
  const shared = async (tenantId: TenantId) => (await sharedAllowances(db, tenantId, now())).filter(isQuota)

  api.get(
    '/api/quotas/global',
    {
      config: { access: { role: 'service', scope: 'rules:read' } },
      schema: {
        tags,
        operationId: 'getGlobalQuotas',
        summary: 'Quotas of all readers together',
        querystring: Type.Object({}, closed),
        response: { 200: Quotas },
      },
    },
    async request => ({ items: (await shared(request.caller.tenantId)).map(quota) }),
  )

  api.get(
    '/api/quotas/global/history',
    {
      config: { access: { role: 'service', scope: 'rules:read' } },
      schema: {
        tags,
        operationId: 'getGlobalQuotaHistory',
        summary: 'What each period used of the quotas of all readers together',
        querystring: HistoryQuery,
        response: { 200: QuotaHistory },
      },
    },
    async request => {
      const { tenantId } = request.caller
      return past(tenantId, await shared(tenantId), request.query.periods)
    },
  )

  api.get(
    '/api/quotas/:userId',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getQuotas',
        summary: 'Quotas of one reader',
        params: Params,
        response: { 200: Quotas },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return { items: (await ofUser(request.caller.tenantId, userId)).map(quota) }
    },
  )

  api.get(
    '/api/quotas/:userId/history',
    {
      config: { access: { role: 'user', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'getQuotaHistory',
        summary: 'What each period used of the quotas of one reader',
        params: Params,
        querystring: HistoryQuery,
        response: { 200: QuotaHistory },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      const { tenantId } = request.caller
      return past(tenantId, await ofUser(tenantId, userId), request.query.periods)
    },
  )

  api.post(
    '/api/quotas/check',
    {
      config: { access: { role: 'service', scope: 'people:read' } },
      schema: {
        tags,
        operationId: 'checkQuotas',
        summary: 'Whether quotas have room for so many deliveries; uses nothing up',
        body: QuotaCheckBody,
        response: { 200: QuotaCheckAnswer },
      },
    },
    async request => {
      const { userId, units = 1, content: text, ...about } = request.body
      const { tenantId } = request.caller
      const { caps } = await checkLimits(
        db,
        tenantId,
        await findPerson(db, sealer, tenantId, userId),
        { ...asked(about), windows: WINDOWS, ...(text && { text }) },
        now(),
      )
      const quotas = caps.map(({ cap, used, until }) => ({
        name: cap.label,
        periodType: periodOf(cap.window),
        maxQuota: cap.max,
        usedQuota: used,
        costPerUnit: cap.cost,
        resetDate: until.toISOString(),
        available: cap.bypass || used + cap.cost * units <= cap.max,
      }))
      const room = caps
        .filter(({ cap }) => !cap.bypass && cap.cost > 0)
        .map(({ cap, used, until }) => ({
          units: Math.max(0, Math.floor((cap.max - used) / cap.cost)),
          until,
        }))
        .sort((a, b) => a.units - b.units || b.until.getTime() - a.until.getTime())[0]
      return {
        available: quotas.every(({ available }) => available),
        remainingUnits: room?.units ?? null,
        resetDate: room?.until.toISOString() ?? null,
        quotas,
      }
    },
  )

  api.post(
    '/api/quotas/reset',
    {
      config: { access: { role: 'admin', scope: 'rules:write' } },
      schema: {
        tags,
        operationId: 'resetQuotas',
        summary: 'Begin the current periods anew; what waits keeps its place in a later one',
        body: ResetBody,
        response: { 200: Type.Object({ reset: Type.Integer() }) },
      },
    },
    async request => {
      const { caller, body } = request
      const { userId = null, periodType } = body
      const all = userId === null ? await shared(caller.tenantId) : await ofUser(caller.tenantId, userId)
      const chosen = all.filter(({ window }) => periodType === undefined || window === PERIODS[periodType])
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

  async function past(tenantId: TenantId, allowances: Allowance[], most: number) {
    const used = await historyOf(db, tenantId, allowances, most)
    return {
      items: allowances
        .filter(({ key }) => key !== null)
        .map(({ id, name, window, max, key }) => ({
          id,
          name,
          periodType: periodOf(window),
          maxQuota: max,
          periods: used
            .get(key!)!
            .map(({ from, used: usedQuota }) => ({ periodStart: from.toISOString(), usedQuota })),
        })),
    }
  }
}

const isQuota = ({ window }: Allowance): boolean => WINDOWS.has(window)

function quota(allowance: Allowance): Static<typeof Quota> {
  const { channel, channels, costs, used, max } = allowance
  const cost = (name: keyof typeof costs) => costs[name] ?? 1
  const named = channel ? [channel] : channels
  return {
    id: allowance.id,
    name: allowance.name,
    userId: allowance.userId,
    quotaType: channel === null ? 'NOTIFICATIONS' : channel.toUpperCase(),
    channels: [...channels],
    periodType: periodOf(allowance.window),
    maxQuota: max,
    usedQuota: used,
    remainingQuota: used === null ? null : Math.max(0, max - used),
    periodStart: allowance.from.toISOString(),
    resetDate: allowance.until.toISOString(),
    costPerUnit: named.length === 0 ? 1 : Math.min(...named.map(cost)),
    costs: { ...costs },
    isActive: allowance.enabled,
  }
}
