import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery } from '../http/page.ts'
import { CHANNELS, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Id, JsonObject, TenantId } from '../types.ts'
import { acknowledge } from './acknowledge.ts'
import { cancelNotification } from './cancel.ts'
import { changeContent } from './change-content.ts'
import { cancelEvent, eventMetrics, findEvent, notificationIdsOf } from './events.ts'
import { findNotification, listNotifications } from './notifications.ts'
import type { ContentChanger, ContentOpener, NotificationView } from './notifications.ts'
import {
  EVENT_STATUSES,
  NOTIFICATION_STATUSES,
  attemptsKey,
  attemptsOf,
  deliveriesOf,
  eventStatus,
} from './status.ts'
import type { DeliveryView } from './status.ts'

export interface LedgerRoutesDeps {
  db: Db
  now?: () => Date
  /** Which rows of the counters are this process's to change. */
  shard: number
  openContent: ContentOpener
  changeContent: ContentChanger
  /** Steps of escalations are due now. */
  onAcknowledged?(): void
  /**
   * Puts an event whose planning failed into `planning` again, in this transaction, event_counters.failed
   * included. False when it is not failed any more.
   */
  replan(tx: Tx, tenantId: TenantId, eventId: Id): Promise<boolean>
}

const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const Uuid = Type.String({ format: 'uuid' })
const MaybeUuid = Type.Union([Uuid, Type.Null()])
const MaybeText = Type.Union([Type.String(), Type.Null()])
const Channel = Type.Enum(CHANNELS)
const Status = Type.Enum(NOTIFICATION_STATUSES)
const DeliveryWord = Type.String({
  description:
    'in_flight, backlog, held, retrying; delivered, sent, failed, bounced, rejected, unknown, cancelled, expired.',
})

const Delivery = Type.Object({
  channel: Channel,
  fallback: Type.Boolean({ description: 'Begun because the channels before it did not deliver.' }),
  status: DeliveryWord,
  attempts: Type.Integer(),
  lastAt: MaybeTime,
  provider: MaybeText,
  code: MaybeText,
  error: MaybeText,
  waitsFor: Type.Union([
    Type.Object({ kind: Type.String(), until: MaybeTime, reason: Type.String(), text: Type.String() }),
    Type.Null(),
  ]),
})
const Attempt = Type.Object({
  attempt: Type.Integer(),
  at: Time,
  outcome: Type.String(),
  final: Type.Boolean(),
  provider: MaybeText,
  code: MaybeText,
  durationMs: Type.Union([Type.Integer(), Type.Null()]),
  error: MaybeText,
})
const Body = Type.Object({
  to: Type.String(),
  subject: Type.Optional(Type.String()),
  body: Type.Optional(Type.String()),
  html: Type.Optional(Type.String()),
  image: Type.Optional(Type.String()),
  actions: Type.Optional(
    Type.Array(Type.Object({ id: Type.String(), label: Type.String(), url: Type.Optional(Type.String()) })),
  ),
  data: Type.Optional(Type.Record(Type.String(), Type.Unknown())),
})
const summaryFields = {
  id: Uuid,
  eventId: Uuid,
  eventType: Type.String(),
  recipientType: Type.Enum(RECIPIENT_TYPES),
  recipientId: Type.String(),
  ruleId: MaybeUuid,
  templateId: MaybeUuid,
  templateRevision: Type.Union([Type.Integer(), Type.Null()]),
  locale: MaybeText,
  experiment: Type.Union([Type.Object({ id: Uuid, variant: Type.String() }), Type.Null()], {
    description: 'What counts it, and the variant it says.',
  }),
  thread: Type.Union([Type.String(), Type.Null()], { description: 'What it belongs to.' }),
  priority: Type.Enum(PRIORITIES),
  category: Type.String(),
  channels: Type.Array(Channel),
  fallbackChannels: Type.Array(Channel),
  status: Status,
  createdAt: Time,
  scheduledAt: MaybeTime,
  expiresAt: MaybeTime,
  traceId: MaybeText,
  content: Type.Optional(
    Type.Union([Type.Record(Type.String(), Body), Type.Null()], {
      description: 'By channel, when asked for; null once the person was erased.',
    }),
  ),
}
const Summary = Type.Object({ ...summaryFields, deliveries: Type.Array(Delivery) })
const Whole = Type.Object({
  ...summaryFields,
  deliveries: Type.Array(Type.Object({ ...Delivery.properties, tries: Type.Array(Attempt) })),
})
const Include = Type.Optional(
  Type.Enum(['content'], { description: 'What was sent, to whom. For services and admins.' }),
)
const ById = Type.Object({ id: Uuid }, { additionalProperties: false })

const read = { role: 'user', scope: 'notifications:read' } as const
const write = { role: 'service', scope: 'notifications:write' } as const
const readEvents = { role: 'service', scope: 'events:read' } as const
const writeEvents = { role: 'service', scope: 'events:write' } as const

/** More deliveries than this are not listed with an event; `more` says so. */
const EVENT_NOTIFICATIONS = 1_000

/** What the ledger knows: notifications, their deliveries, the events they came from. */
export function ledgerRoutes(api: Api, deps: LedgerRoutesDeps): void {
  const { db, shard } = deps
  const now = deps.now ?? (() => new Date())
  const tags = ['Notifications']

  api.get(
    '/api/notifications',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listNotifications',
        summary: 'List notifications, newest first',
        description:
          'Users see their own. With filters that few notifications fit, a page may hold fewer than `limit`, even none, while `nextCursor` leads on.',
        querystring: Type.Object(
          {
            ...pageQuery,
            recipientId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
            status: Type.Optional(Status),
            eventId: Type.Optional(Uuid),
            channel: Type.Optional(Channel),
            from: Type.Optional(Time),
            to: Type.Optional(Time),
            include: Include,
          },
          { additionalProperties: false },
        ),
        response: { 200: pageOf(Summary) },
      },
    },
    async request => {
      const { caller } = request
      const { limit, cursor, include, from, to, ...filter } = request.query
      mayOpen(caller, include)
      const recipientId = caller.role === 'user' ? (filter.recipientId ?? caller.userId) : filter.recipientId
      if (caller.role === 'user') requireSelf(request, recipientId ?? '')
      const [before] = cursor === undefined ? [] : (decodeCursor('notifications', cursor, ['id']) as [Id])
      const { items, next } = await listNotifications(
        db,
        caller.tenantId,
        {
          ...filter,
          eventId: filter.eventId?.toLowerCase(),
          recipientId,
          from: from === undefined ? undefined : new Date(from),
          to: to === undefined ? undefined : new Date(to),
        },
        before?.toLowerCase(),
        limit,
      )
      const mine = items.filter(item => isOwn(caller, item))
      const contents = include === 'content' ? await deps.openContent(db, caller.tenantId, mine) : []
      return {
        items: mine.map((item, at) => ({
          ...showNotification(item),
          deliveries: item.deliveries.map(showDelivery),
          ...(include === 'content' ? { content: contents[at]! } : {}),
        })),
        nextCursor: next === null ? null : encodeCursor('notifications', [next]),
      }
    },
  )

  api.get(
    '/api/notifications/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getNotification',
        summary: 'Read a notification with its deliveries and every try',
        params: ById,
        querystring: Type.Object({ include: Include }, { additionalProperties: false }),
        response: { 200: Whole },
      },
    },
    async request => {
      const { caller, params, query } = request
      mayOpen(caller, query.include)
      const found = await findNotification(db, caller.tenantId, params.id)
      // Not "forbidden": nobody learns which ids exist.
      if (!found || !isOwn(caller, found))
        throw new AppError('not_found', 'There is no notification with this id.')
      const attempts = await attemptsOf(db, caller.tenantId, [found.id])
      return {
        ...showNotification(found),
        deliveries: found.deliveries.map(delivery => ({
          ...showDelivery(delivery),
          tries: (attempts.get(attemptsKey(found.id, delivery.channel)) ?? []).map(({ at, ...one }) => ({
            ...one,
            at: at.toISOString(),
          })),
        })),
        ...(query.include === 'content'
          ? { content: (await deps.openContent(db, caller.tenantId, [found]))[0]! }
          : {}),
      }
    },
  )

  api.post(
    '/api/notifications/:id/cancel',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'cancelNotification',
        summary: 'Cancel the deliveries that still wait',
        description: 'Answers 409 when none of them waits any more.',
        params: ById,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: {
          200: Type.Object({
            id: Uuid,
            cancelled: Type.Array(Channel),
            left: Type.Array(Type.Object({ channel: Channel, status: DeliveryWord })),
          }),
        },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      return db.tx(async tx => {
        const result = await cancelNotification(tx, caller.tenantId, params.id, now(), shard)
        await audit(tx, caller, {
          action: 'notification.cancelled',
          objectKind: 'notification',
          objectId: params.id,
          details: { cancelled: result.cancelled },
          traceId,
        })
        return { id: params.id, ...result }
      })
    },
  )

  api.put(
    '/api/notifications/:id/content',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'changeNotificationContent',
        summary: 'Say something else, while all of it still waits',
        description: 'Answers 409 once a delivery has begun.',
        params: ById,
        body: Type.Object(
          {
            channel: Type.Optional(Channel),
            subject: Type.Optional(
              Type.String({ minLength: 1, maxLength: 998, pattern: '^[^\\u0000-\\u001f\\u007f]+$' }),
            ),
            body: Type.Optional(Type.String({ minLength: 1, maxLength: 100_000 })),
            bodyHtml: Type.Optional(Type.String({ minLength: 1, maxLength: 256_000 })),
            data: Type.Optional(
              Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), { maxProperties: 1000 }),
            ),
          },
          { additionalProperties: false, minProperties: 1 },
        ),
        response: { 200: Type.Object({ id: Uuid, changed: Type.Array(Channel) }) },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      const { bodyHtml: html, data, ...texts } = request.body
      const given = {
        ...texts,
        ...(html !== undefined && { html }),
        ...(data && { data: data as JsonObject }),
      }
      return db.tx(async tx => {
        const changed = await changeContent(tx, caller.tenantId, params.id, given, deps.changeContent)
        await audit(tx, caller, {
          action: 'notification.content_changed',
          objectKind: 'notification',
          objectId: params.id,
          details: { channels: changed, fields: Object.keys(given) },
          traceId,
        })
        return { id: params.id, changed }
      })
    },
  )

  api.post(
    '/api/notifications/:id/acknowledge',
    {
      config: { access: { role: 'user', scope: 'notifications:write' } },
      schema: {
        tags,
        operationId: 'acknowledgeNotification',
        summary: 'Say that somebody takes care of it: what was to follow is called off',
        params: ById,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 200: Type.Object({ id: Uuid, acknowledgedAt: Type.String({ format: 'date-time' }) }) },
      },
    },
    async request => {
      const { caller, params } = request
      const onlyFor = caller.role === 'user' ? (caller.userId ?? '') : undefined
      const by = `${caller.kind}:${caller.id}`
      const { at } = await db.tx(tx => acknowledge(tx, caller.tenantId, params.id, by, now(), onlyFor))
      deps.onAcknowledged?.()
      return { id: params.id, acknowledgedAt: at.toISOString() }
    },
  )

  api.get(
    '/api/events/status/:id',
    {
      config: { access: readEvents },
      schema: {
        tags: ['Events'],
        operationId: 'getEventStatus',
        summary: 'How far an event is',
        params: ById,
        response: {
          200: Type.Object({
            eventId: Uuid,
            status: Type.Enum(EVENT_STATUSES),
            retryCount: Type.Integer({ description: 'Failed tries of planning it.' }),
            error: MaybeText,
            deliveries: Type.Array(Type.Object({ notificationId: Uuid, ...Delivery.properties })),
            more: Type.Boolean({
              description: `It has more than ${EVENT_NOTIFICATIONS} notifications; only the first are listed and judged.`,
            }),
          }),
        },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const event = await findEvent(db, tenantId, request.params.id)
      const ids = await notificationIdsOf(db, tenantId, event.id, EVENT_NOTIFICATIONS + 1)
      const byId = await deliveriesOf(db, tenantId, ids.slice(0, EVENT_NOTIFICATIONS))
      const deliveries = [...byId.values()].flat()
      return {
        eventId: event.id,
        status: eventStatus(event.planning, deliveries),
        retryCount: event.retryCount,
        error: event.error,
        deliveries: deliveries.map(d => ({ notificationId: d.notificationId, ...showDelivery(d) })),
        more: ids.length > EVENT_NOTIFICATIONS,
      }
    },
  )

  api.get(
    '/api/events/metrics',
    {
      config: { access: readEvents },
      schema: {
        tags: ['Events'],
        operationId: 'getEventMetrics',
        summary: 'How many events were received, processed, failed',
        querystring: Type.Object({}, { additionalProperties: false }),
        response: {
          200: Type.Object({
            received: Type.Integer(),
            processed: Type.Integer(),
            failed: Type.Integer(),
            cancelled: Type.Integer(),
            duplicates: Type.Integer(),
            pending: Type.Integer(),
            dlq: Type.Integer({ description: 'Open dead letters, counted up to 10,000.' }),
            avgProcessingMs: Type.Union([Type.Number(), Type.Null()]),
          }),
        },
      },
    },
    request => eventMetrics(db, request.caller.tenantId),
  )

  api.delete(
    '/api/events/:id',
    {
      config: { access: writeEvents },
      schema: {
        tags: ['Events'],
        operationId: 'cancelEvent',
        summary: 'Cancel an event that is not planned yet',
        params: ById,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      await db.tx(async tx => {
        await cancelEvent(tx, caller.tenantId, params.id, now(), shard)
        await audit(tx, caller, {
          action: 'event.cancelled',
          objectKind: 'event',
          objectId: params.id,
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/events/retry/:id',
    {
      config: { access: writeEvents },
      schema: {
        tags: ['Events'],
        operationId: 'retryEvent',
        summary: 'Plan an event again whose planning failed',
        params: ById,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 202: Type.Object({ eventId: Uuid, status: Type.Enum(EVENT_STATUSES) }) },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      await db.tx(async tx => {
        const event = await findEvent(tx, caller.tenantId, params.id)
        if (event.planning !== 'failed' || !(await deps.replan(tx, caller.tenantId, event.id))) {
          throw new AppError('conflict', 'Only an event whose planning failed can be planned again.')
        }
        await audit(tx, caller, { action: 'event.retried', objectKind: 'event', objectId: event.id, traceId })
      })
      reply.code(202)
      return { eventId: params.id, status: 'PENDING' as const }
    },
  )
}

function mayOpen(caller: Caller, include: 'content' | undefined): void {
  if (include === 'content' && caller.role === 'user') {
    throw new AppError('forbidden', 'Content is for services and admins; users read their inbox.', {
      field: 'include',
    })
  }
}

/** A bare address may spell like a user's id, and a role or group may bear one: only people own notifications. */
const isOwn = (caller: Caller, { recipient }: Pick<NotificationView, 'recipient'>): boolean =>
  caller.role !== 'user' || (recipient.type === 'user' && recipient.id === caller.userId)

const iso = (date: Date | null): string | null => date?.toISOString() ?? null

function showNotification({
  recipient,
  revision,
  deliveries: _,
  sealed: __,
  ...view
}: NotificationView): Omit<Static<typeof Summary>, 'deliveries' | 'content'> {
  return {
    ...view,
    recipientType: recipient.type,
    recipientId: recipient.id,
    templateRevision: revision,
    createdAt: view.createdAt.toISOString(),
    scheduledAt: iso(view.scheduledAt),
    expiresAt: iso(view.expiresAt),
  }
}

const showDelivery = ({
  notificationId: _,
  lastAt,
  waitsFor,
  ...view
}: DeliveryView): Static<typeof Delivery> => ({
  ...view,
  lastAt: iso(lastAt),
  waitsFor: waitsFor && { ...waitsFor, until: iso(waitsFor.until) },
})
