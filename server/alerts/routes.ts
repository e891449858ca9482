import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { type Cancelled, cancelNotification } from '../ledger/cancel.ts'
import { CHANNELS, type Channel, type Id as NotificationId, type TenantId } from '../types.ts'
import { MAX_MATCHERS, OPERATORS } from './matcher.ts'
import {
  type StoredAlert,
  type StoredInhibition,
  type StoredSilence,
  createInhibition,
  createSilence,
  deleteInhibition,
  expireSilence,
  findInhibition,
  findSilence,
  listAlerts,
  listInhibitions,
  listSilences,
  silenceState,
  updateInhibition,
  updateSilence,
} from './store.ts'

const closed = { additionalProperties: false }
const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const byId = Type.Object({ id: Id }, closed)

const MatcherName = Type.String({
  minLength: 1,
  maxLength: 300,
  description: 'type, source, subject, severity, data.<path>, or the name of a label (also labels.<name>).',
})
const Matcher = Type.Object(
  {
    name: MatcherName,
    op: Type.Enum([...OPERATORS], { default: '=' }),
    value: Type.String({
      maxLength: 1_000,
      description: 'For =~ and !~ an RE2 expression of the whole value.',
    }),
  },
  closed,
)
const Matchers = Type.Array(Matcher, {
  minItems: 1,
  maxItems: MAX_MATCHERS,
  description: 'All must hold; at least one must not hold for an absent value.',
})
const Author = Type.String({ minLength: 1, maxLength: 255 })
const Comment = Type.String({ minLength: 1, maxLength: 2_000 })

/** A silence as it is written. */
export const SilenceBody = Type.Object(
  {
    matchers: Matchers,
    author: Author,
    comment: Comment,
    startsAt: Type.Optional(Type.String({ ...Time, description: 'Unless stated: now.' })),
    endsAt: Time,
  },
  closed,
)
const ChangedSilence = Type.Object(
  {
    matchers: Type.Optional(Matchers),
    author: Type.Optional(Author),
    comment: Type.Optional(Comment),
    startsAt: Type.Optional(Time),
    endsAt: Type.Optional(Time),
  },
  { ...closed, minProperties: 1 },
)
const State = Type.Enum(['pending', 'active', 'expired'])
const ShownMatchers = Type.Array(
  Type.Object({ name: Type.String(), op: Type.Enum([...OPERATORS]), value: Type.String() }),
)
const Silence = Type.Object({
  id: Id,
  state: State,
  matchers: ShownMatchers,
  author: Type.String(),
  comment: Type.String(),
  startsAt: Time,
  endsAt: Time,
  createdAt: Time,
  updatedAt: Time,
})

/** An inhibition as it is written. */
export const InhibitionBody = Type.Object(
  {
    name: Type.String({ minLength: 1, maxLength: 255 }),
    sourceMatchers: Matchers,
    targetMatchers: Matchers,
    equal: Type.Array(MatcherName, {
      maxItems: 20,
      uniqueItems: true,
      default: [],
      description: 'Source and target have the same values under these names; absent equals empty.',
    }),
    enabled: Type.Boolean({ default: true }),
  },
  closed,
)
const Inhibition = Type.Object({
  id: Id,
  name: Type.String(),
  sourceMatchers: ShownMatchers,
  targetMatchers: ShownMatchers,
  equal: Type.Array(Type.String()),
  enabled: Type.Boolean(),
  createdAt: Time,
  updatedAt: Time,
})
const Status = Type.Enum(['firing', 'resolved'])
const Alert = Type.Object({
  key: Type.String(),
  ruleId: Type.Union([Id, Type.Null()], { description: "null: known by its sender's fingerprint." }),
  status: Status,
  labels: Type.Record(Type.String(), Type.String()),
  eventId: Id,
  startedAt: Time,
  endsAt: Type.Union([Time, Type.Null()]),
  updatedAt: Time,
})

const read = { role: 'service', scope: 'rules:read' } as const
const write = { role: 'service', scope: 'rules:write' } as const
const tags = ['Alerts']

export interface AlertsDeps {
  db: Db
  now(): Date
  /** Which rows of the counters are this process's to change. */
  shard: number
  /** Takes a notification out of its reader's inbox and tells their streams; false when it is in none. */
  removeFromInbox(tenantId: TenantId, id: NotificationId, now: Date): Promise<boolean>
  /** Takes away what it said elsewhere, where that can be done; the channels. */
  takeBack(tenantId: TenantId, id: NotificationId): Promise<Channel[]>
}

/** What is kept quiet, which alerts cover others, which alerts fire; and taking back what is no longer true. */
export function alertsRoutes(api: Api, { db, now, shard, removeFromInbox, takeBack }: AlertsDeps): void {
  // ---------------------------------------------------------------- silences

  api.post(
    '/api/silences',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createSilence',
        summary: 'Keep quiet about what matches, for a time',
        body: SilenceBody,
        response: { 201: Silence },
      },
    },
    async (request, reply) => {
      const at = now()
      const { startsAt, endsAt, ...rest } = request.body
      const silence = {
        ...rest,
        startsAt: startsAt === undefined ? at : new Date(startsAt),
        endsAt: new Date(endsAt),
      }
      const made = await db.tx(tx => createSilence(tx, request.caller, silence, at, request.traceId))
      reply.code(201).header('location', `/api/silences/${made.id}`)
      return showSilence(made, at)
    },
  )

  api.get(
    '/api/silences',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listSilences',
        summary: 'List silences, newest first',
        querystring: Type.Object({ ...pageQuery, state: Type.Optional(State) }, closed),
        response: { 200: pageOf(Silence) },
      },
    },
    async request => {
      const at = now()
      const { limit, cursor, state } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('silences', cursor, ['id']) as string[])
      const rows = await listSilences(db, request.caller.tenantId, state, after, limit + 1, at)
      return toPage(
        rows.map(row => showSilence(row, at)),
        limit,
        last => encodeCursor('silences', [last.id]),
      )
    },
  )

  api.get(
    '/api/silences/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getSilence',
        summary: 'One silence',
        params: byId,
        response: { 200: Silence },
      },
    },
    async request => {
      const found = await findSilence(db, request.caller.tenantId, request.params.id)
      if (!found) throw new AppError('not_found', 'There is no silence with this id.')
      return showSilence(found, now())
    },
  )

  api.patch(
    '/api/silences/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'changeSilence',
        summary: 'Change a silence that is not over',
        params: byId,
        body: ChangedSilence,
        response: { 200: Silence },
      },
    },
    async request => {
      const at = now()
      const { caller, params, traceId } = request
      const { startsAt, endsAt, ...rest } = request.body
      const times = {
        ...(startsAt !== undefined && { startsAt: new Date(startsAt) }),
        ...(endsAt !== undefined && { endsAt: new Date(endsAt) }),
      }
      const changed = await db.tx(tx =>
        updateSilence(tx, caller, params.id, before => ({ ...before, ...rest, ...times }), at, traceId),
      )
      return showSilence(changed, at)
    },
  )

  api.post(
    '/api/silences/:id/expire',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'expireSilence',
        summary: 'End a silence now',
        params: byId,
        response: { 200: Silence },
      },
    },
    async request => {
      const at = now()
      const { caller, params, traceId } = request
      return showSilence(await db.tx(tx => expireSilence(tx, caller, params.id, at, traceId)), at)
    },
  )

  // ---------------------------------------------------------------- inhibitions

  api.post(
    '/api/inhibitions',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createInhibition',
        summary: 'Let firing alerts cover others',
        body: InhibitionBody,
        response: { 201: Inhibition },
      },
    },
    async (request, reply) => {
      const { caller, body, traceId } = request
      const made = await db.tx(tx => createInhibition(tx, caller, body, now(), traceId))
      reply.code(201).header('location', `/api/inhibitions/${made.id}`)
      return showInhibition(made)
    },
  )

  api.get(
    '/api/inhibitions',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listInhibitions',
        summary: 'List inhibitions, newest first',
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Inhibition) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('inhibitions', cursor, ['id']) as string[])
      const rows = await listInhibitions(db, request.caller.tenantId, after, limit + 1)
      return toPage(rows.map(showInhibition), limit, last => encodeCursor('inhibitions', [last.id]))
    },
  )

  api.get(
    '/api/inhibitions/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getInhibition',
        summary: 'One inhibition',
        params: byId,
        response: { 200: Inhibition },
      },
    },
    async request => {
      const found = await findInhibition(db, request.caller.tenantId, request.params.id)
      if (!found) throw new AppError('not_found', 'There is no inhibition with this id.')
      return showInhibition(found)
    },
  )

  api.put(
    '/api/inhibitions/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'replaceInhibition',
        summary: 'Replace an inhibition',
        params: byId,
        body: InhibitionBody,
        response: { 200: Inhibition },
      },
    },
    async request => {
      const { caller, params, body, traceId } = request
      return showInhibition(await db.tx(tx => updateInhibition(tx, caller, params.id, body, now(), traceId)))
    },
  )

  api.delete(
    '/api/inhibitions/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteInhibition',
        summary: 'Take an inhibition away; the audit log keeps it',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteInhibition(tx, request.caller, request.params.id, request.traceId))
      return reply.code(204).send(null)
    },
  )

  // ---------------------------------------------------------------- alerts

  api.get(
    '/api/alerts',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listAlerts',
        summary: 'List alerts and how they stand, by key',
        querystring: Type.Object({ ...pageQuery, status: Type.Optional(Status) }, closed),
        response: { 200: pageOf(Alert) },
      },
    },
    async request => {
      const { limit, cursor, status } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('alerts', cursor, ['text']) as string[])
      const rows = await listAlerts(db, request.caller.tenantId, status, after, limit + 1, now())
      return toPage(rows.map(showAlert), limit, last => encodeCursor('alerts', [last.key]))
    },
  )

  // ---------------------------------------------------------------- taking back

  api.post(
    '/api/notifications/:id/retract',
    {
      config: { access: { role: 'service', scope: 'notifications:write' } },
      schema: {
        tags: ['Notifications'],
        operationId: 'retractNotification',
        summary: 'Take a notification back: cancel what waits, take it out of the inbox',
        description:
          'What has left through a provider is taken back where its vendor offers that, as Slack does for bots. May be repeated.',
        params: byId,
        body: Type.Optional(Type.Object({}, closed)),
        response: {
          200: Type.Object({
            id: Id,
            cancelled: Type.Array(Type.Enum([...CHANNELS])),
            removedFromInbox: Type.Boolean(),
            takenBack: Type.Array(Type.Enum([...CHANNELS]), {
              description: 'Where it had been sent and is gone again.',
            }),
          }),
        },
      },
    },
    async request => {
      const at = now()
      const { caller, params, traceId } = request
      const cancelled = await db.tx(async tx => {
        const done = await cancelNotification(tx, caller.tenantId, params.id, at, shard).catch(nothingWaits)
        await audit(tx, caller, {
          action: 'notification.retracted',
          objectKind: 'notification',
          objectId: params.id,
          details: { cancelled: done.cancelled },
          traceId,
        })
        return done.cancelled
      })
      const removedFromInbox = await removeFromInbox(caller.tenantId, params.id, at)
      const takenBack = await takeBack(caller.tenantId, params.id)
      return { id: params.id, cancelled, removedFromInbox, takenBack }
    },
  )
}

/** That everything has gone is no reason to leave it in the inbox. It is told before anything is written. */
function nothingWaits(error: unknown): Pick<Cancelled, 'cancelled'> {
  if (error instanceof AppError && error.code === 'conflict') return { cancelled: [] }
  throw error
}

const times = ({ createdAt, updatedAt }: { createdAt: Date; updatedAt: Date }) => ({
  createdAt: createdAt.toISOString(),
  updatedAt: updatedAt.toISOString(),
})

const showSilence = (silence: StoredSilence, at: Date): Static<typeof Silence> => ({
  ...silence,
  ...times(silence),
  state: silenceState(silence, at),
  startsAt: silence.startsAt.toISOString(),
  endsAt: silence.endsAt.toISOString(),
})

const showInhibition = (inhibition: StoredInhibition): Static<typeof Inhibition> => ({
  ...inhibition,
  ...times(inhibition),
})

const showAlert = (alert: StoredAlert): Static<typeof Alert> => ({
  ...alert,
  startedAt: alert.startedAt.toISOString(),
  endsAt: alert.endsAt?.toISOString() ?? null,
  updatedAt: alert.updatedAt.toISOString(),
})
