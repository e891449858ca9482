import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { CHANNELS, PRIORITIES } from '../types.ts'
import {
  LIMIT_REASONS,
  LIMIT_SCOPES,
  LIMIT_WINDOWS,
  OTHER_TIER,
  TIERS,
  type LimitDefinition,
  type StoredLimit,
  createLimit,
  deleteLimit,
  findLimit,
  limitsOfSets,
  listLimits,
  replaceSet,
  updateLimit,
} from './store.ts'
import { LIMIT_SETS, SET_NAMES, type SetName, limitsOf } from './sets.ts'

const closed = { additionalProperties: false }
const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const byId = Type.Object({ id: Id }, closed)
const OUTSIDE = CHANNELS.filter(channel => channel !== 'in_app')

const FIELDS = {
  scope: Type.Enum([...LIMIT_SCOPES], { description: 'What is counted together: each user, each address …' }),
  channels: Type.Array(Type.Enum(OUTSIDE), {
    maxItems: CHANNELS.length,
    uniqueItems: true,
    description: 'Empty: every channel but the inbox, which no limit holds back.',
  }),
  categories: Type.Array(Type.String({ minLength: 1, maxLength: 100 }), {
    maxItems: 50,
    uniqueItems: true,
    description: 'Empty: every category.',
  }),
  eventTypes: Type.Array(
    Type.String({
      minLength: 1,
      maxLength: 255,
      pattern: '^[^*\\u0000-\\u0020]+(?:\\.\\*)?$',
    }),
    { maxItems: 50, uniqueItems: true, description: 'Empty: every type; `orders.*` is all that begin so.' },
  ),
  tiers: Type.Array(Type.String({ minLength: 1, maxLength: 50, pattern: '^[a-z0-9_-]+$' }), {
    maxItems: 50,
    uniqueItems: true,
    description: `Of the reader’s attribute "tier"; ${OTHER_TIER}: none of ${TIERS.join(', ')}. Empty: any.`,
  }),
  costs: Type.Object(
    Object.fromEntries(
      OUTSIDE.map(channel => [channel, Type.Optional(Type.Integer({ minimum: 0, maximum: 1_000_000 }))]),
    ),
    { ...closed, description: 'As how many of max one delivery counts; 1 where nothing is said.' },
  ),
  every: Type.Integer({ minimum: 1, maximum: 60, description: 'So many minutes or hours together.' }),
  reason: Type.Union([Type.Enum([...LIMIT_REASONS]), Type.Null()], {
    description: 'What one that is over is said to be; null: over a limit.',
  }),
  max: Type.Integer({ minimum: 0, maximum: 1_000_000_000, description: 'In each window; 0: none at all.' }),
  window: Type.Enum([...LIMIT_WINDOWS], {
    description:
      'Minutes and hours by UTC; days, weeks and months of one reader by the reader’s zone, of others by UTC. gap: a pause after each.',
  }),
  gapSeconds: Type.Union([Type.Integer({ minimum: 1, maximum: 31 * 86_400 }), Type.Null()]),
  per: Type.Enum(['delivery', 'notification'], {
    description: 'Whether all channels of one notification count once.',
  }),
  overflow: Type.Enum(['hold', 'skip', 'digest'], {
    description: 'What is over waits for the next window, is left out, or joins the digest of the hour.',
  }),
  criticalPasses: Type.Boolean({ description: 'CRITICAL is counted and never stopped.' }),
  shares: Type.Object(
    Object.fromEntries(
      PRIORITIES.map(priority => [priority, Type.Optional(Type.Number({ minimum: 0, maximum: 1 }))]),
    ),
    { ...closed, description: 'How much of max each priority may use up; all of it where nothing is said.' },
  ),
  enabled: Type.Boolean(),
}
const Name = Type.String({ minLength: 1, maxLength: 255 })
/** A limit as it is written. */
export const LimitBody = Type.Object(
  {
    name: Name,
    scope: FIELDS.scope,
    max: Type.Optional(FIELDS.max),
    window: FIELDS.window,
    ...Object.fromEntries(
      (
        [
          'channels',
          'categories',
          'eventTypes',
          'tiers',
          'costs',
          'every',
          'reason',
          'gapSeconds',
          'per',
          'overflow',
          'criticalPasses',
          'shares',
          'enabled',
        ] as const
      ).map(name => [name, Type.Optional(FIELDS[name])]),
    ),
  },
  closed,
)
const Shown = Type.Object({
  id: Id,
  name: Type.String(),
  ...FIELDS,
  channels: Type.Array(Type.Enum(CHANNELS)),
  set: Type.Union([Type.String(), Type.Null()]),
  revision: Type.Integer(),
  createdAt: Time,
  updatedAt: Time,
})

const SetParams = Type.Object({ set: Type.Enum([...SET_NAMES]) }, closed)
const SetBody = Type.Object(
  {
    categories: Type.Optional(FIELDS.categories),
    eventTypes: Type.Optional(FIELDS.eventTypes),
    max: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_000_000,
        description: 'Of attention: interruptions an hour.',
      }),
    ),
  },
  { ...closed, description: 'The traffic that the set holds for; empty: all of it.' },
)
const ShownSet = Type.Object({
  set: Type.Enum([...SET_NAMES]),
  summary: Type.String(),
  enabled: Type.Boolean(),
  limits: Type.Array(Shown, { description: 'Those in force; none while it is off.' }),
  defaults: Type.Array(Type.Omit(Shown, ['id', 'set', 'revision', 'createdAt', 'updatedAt']), {
    description: 'What switching it on sets.',
  }),
})

const read = { role: 'service', scope: 'rules:read' } as const
const write = { role: 'service', scope: 'rules:write' } as const
const tags = ['Limits']

/** How much people, addresses, channels and the whole tenant may be told. */
export function limitsRoutes(api: Api, { db }: { db: Db }): void {
  api.post(
    '/api/limits',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createLimit',
        summary: 'Set a limit',
        body: LimitBody,
        response: { 201: Shown },
      },
    },
    async (request, reply) => {
      const limit = await db.tx(tx => createLimit(tx, request.caller, limitDefinition(request.body)))
      reply.code(201).header('location', `/api/limits/${limit.id}`)
      return show(limit)
    },
  )

  api.get(
    '/api/limits',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listLimits',
        summary: 'List limits, newest first',
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] = cursor === undefined ? [] : (decodeCursor('limits', cursor, ['id']) as string[])
      const rows = await listLimits(db, request.caller.tenantId, after, limit + 1)
      return toPage(rows.map(show), limit, last => encodeCursor('limits', [last.id]))
    },
  )

  api.get(
    '/api/limits/sets',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listLimitSets',
        summary: 'Limits that belong together: what each set would do, and what it does',
        querystring: Type.Object({}, closed),
        response: { 200: Type.Object({ items: Type.Array(ShownSet) }) },
      },
    },
    async request => {
      const made = await limitsOfSets(db, request.caller.tenantId)
      return {
        items: SET_NAMES.map(set =>
          showSet(
            set,
            made.filter(limit => limit.set === set),
          ),
        ),
      }
    },
  )

  api.put(
    '/api/limits/sets/:set',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putLimitSet',
        summary: 'Switch a set on; what its limits counted stays counted',
        params: SetParams,
        body: SetBody,
        response: { 200: ShownSet },
      },
    },
    async request => {
      const { set } = request.params
      if (request.body.max !== undefined && set !== 'attention') {
        throw new AppError('invalid_request', 'Only the attention budget is one number', { field: '/max' })
      }
      return showSet(set, await db.tx(tx => replaceSet(tx, request.caller, set, limitsOf(set, request.body))))
    },
  )

  api.delete(
    '/api/limits/sets/:set',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteLimitSet',
        summary: 'Switch a set off: lift all its limits',
        params: SetParams,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => replaceSet(tx, request.caller, request.params.set, []))
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/api/limits/:id',
    {
      config: { access: read },
      schema: { tags, operationId: 'getLimit', summary: 'One limit', params: byId, response: { 200: Shown } },
    },
    async request => show(await findLimit(db, request.caller.tenantId, request.params.id)),
  )

  api.put(
    '/api/limits/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'updateLimit',
        summary: 'Replace a limit; what was counted stays counted',
        params: byId,
        body: LimitBody,
        response: { 200: Shown },
      },
    },
    async request =>
      show(
        await db.tx(tx => updateLimit(tx, request.caller, request.params.id, limitDefinition(request.body))),
      ),
  )

  api.delete(
    '/api/limits/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteLimit',
        summary: 'Lift a limit',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteLimit(tx, request.caller, request.params.id))
      return reply.code(204).send(null)
    },
  )
}

/** @throws AppError invalid_request for parts that contradict each other */
export function limitDefinition(body: Static<typeof LimitBody>): LimitDefinition {
  const given = body as Static<typeof LimitBody> & Partial<LimitDefinition>
  const { name, scope, window, max, gapSeconds = null } = given
  if (window === 'gap' && gapSeconds === null) {
    throw new AppError('invalid_request', 'A gap says for how long: gapSeconds', { field: '/gapSeconds' })
  }
  if (window !== 'gap' && gapSeconds !== null) {
    throw new AppError('invalid_request', 'Only a gap has gapSeconds', { field: '/gapSeconds' })
  }
  if (given.every !== undefined && given.every !== 1 && window !== 'minute' && window !== 'hour') {
    throw new AppError('invalid_request', 'Only minutes and hours are taken together', { field: '/every' })
  }
  if (window !== 'gap' && max === undefined) {
    throw new AppError('invalid_request', 'Say how many: max', { field: '/max' })
  }
  for (const [channel, cost] of Object.entries(given.costs ?? {})) {
    if (window === 'gap') throw new AppError('invalid_request', 'A gap has no costs', { field: '/costs' })
    if (max! > 0 && cost > max!) {
      throw new AppError('invalid_request', 'One delivery costs more than the whole', {
        field: `/costs/${channel}`,
      })
    }
  }
  return {
    name: name.trim(),
    scope,
    channels: given.channels ?? [],
    categories: given.categories ?? [],
    eventTypes: given.eventTypes ?? [],
    tiers: given.tiers ?? [],
    costs: given.costs ?? {},
    every: given.every ?? 1,
    reason: given.reason ?? null,
    max: window === 'gap' ? 1 : max!,
    window,
    gapSeconds,
    per: given.per ?? 'delivery',
    overflow: given.overflow ?? 'hold',
    criticalPasses: given.criticalPasses ?? true,
    shares: given.shares ?? {},
    enabled: given.enabled ?? true,
  }
}

const show = ({ createdAt, updatedAt, ...limit }: StoredLimit) => ({
  ...limit,
  createdAt: createdAt.toISOString(),
  updatedAt: updatedAt.toISOString(),
})

const showSet = (set: SetName, made: readonly StoredLimit[]) => ({
  set,
  summary: LIMIT_SETS[set].summary,
  enabled: made.length > 0,
  limits: made.map(show),
  defaults: limitsOf(set, {}),
})
