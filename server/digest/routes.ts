import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db, Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { ContentOpener } from '../ledger/notifications.ts'
import { CHANNELS, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Id } from '../types.ts'
import {
  DIGEST_STATES,
  ITEM_STATES,
  type StoredDigest,
  cancelDigest,
  cancelItem,
  findDigest,
  itemsOfDigest,
  listDigests,
  lockOpenDigest,
  releaseDigest,
  releaseOne,
} from './store.ts'

export interface DigestRoutesDeps {
  db: Db
  now(): Date
  /** Which rows of the counters are this process's to change. */
  shard: number
  openContent: ContentOpener
  /** A digest is due now. */
  onDue(): void
  /** A delivery that waited in a digest is due now. */
  onReleased(): void
}

const Uuid = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const Digest = Type.Object({
  id: Uuid,
  recipientType: Type.Enum(RECIPIENT_TYPES),
  recipientId: Type.String(),
  channel: Type.Enum(CHANNELS),
  key: Type.String({ description: 'What its items have in common.' }),
  ruleId: Type.Union([Uuid, Type.Null()], {
    description: "null: by the person's own wish, or what a limit left over.",
  }),
  reason: Type.String(),
  state: Type.Enum([...DIGEST_STATES], {
    description: 'released: its one item went as itself. closed without eventId: nothing was left to tell.',
  }),
  openedAt: Time,
  closesAt: Type.String({ ...Time, description: 'When it goes, or would have gone.' }),
  latestAt: Type.String({ ...Time, description: 'However many items more come, not later than this.' }),
  maxItems: Type.Integer(),
  items: Type.Integer({ description: 'All that were ever collected, also those taken out since.' }),
  closedAt: Type.Union([Time, Type.Null()]),
  eventId: Type.Union([Uuid, Type.Null()], { description: 'The event that told it.' }),
})
const Item = Type.Object({
  notificationId: Uuid,
  eventId: Uuid,
  eventType: Type.String(),
  priority: Type.Enum(PRIORITIES),
  addedAt: Time,
  state: Type.Enum([...ITEM_STATES]),
  subject: Type.Union([Type.String(), Type.Null()], {
    description: 'null: it has none, or the person was erased.',
  }),
})
const Peek = Type.Object({ ...Digest.properties, contents: pageOf(Item) })
const ById = Type.Object({ id: Uuid }, { additionalProperties: false })
const ByItem = Type.Object({ id: Uuid, notificationId: Uuid }, { additionalProperties: false })
const Nothing = Type.Optional(Type.Object({}, { additionalProperties: false }))

const read = { role: 'user', scope: 'notifications:read' } as const
const write = { role: 'user', scope: 'notifications:write' } as const
const tags = ['Digests']

/** What is collected for whom, and when it goes. People reach their own digests only. */
export function digestRoutes(api: Api, deps: DigestRoutesDeps): void {
  const { db, now, shard } = deps

  api.get(
    '/api/digests',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listDigests',
        summary: 'List digests, the newest first',
        description:
          'Users see their own. With filters that few digests fit, a page may hold fewer than `limit`, even none, while `nextCursor` leads on.',
        querystring: Type.Object(
          {
            ...pageQuery,
            userId: Type.Optional(Type.String({ minLength: 1, maxLength: 255 })),
            channel: Type.Optional(Type.Enum(CHANNELS)),
            state: Type.Optional(Type.Enum([...DIGEST_STATES])),
          },
          { additionalProperties: false },
        ),
        response: { 200: pageOf(Digest) },
      },
    },
    async request => {
      const { caller } = request
      const { limit, cursor, userId, ...filter } = request.query
      const recipientId = caller.role === 'user' ? (userId ?? caller.userId) : userId
      if (caller.role === 'user') requireSelf(request, recipientId ?? '')
      const [before] = cursor === undefined ? [] : (decodeCursor('digests', cursor, ['id']) as [Id])
      const { items, next } = await listDigests(
        db,
        caller.tenantId,
        { ...filter, recipientId },
        before?.toLowerCase(),
        limit,
      )
      return {
        // A bare address may be spelled like a user id.
        items: items.filter(digest => isOwn(caller, digest)).map(show),
        nextCursor: next === null ? null : encodeCursor('digests', [next]),
      }
    },
  )

  api.get(
    '/api/digests/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'peekDigest',
        summary: 'Read a digest and what it holds',
        params: ById,
        querystring: Type.Object(pageQuery, { additionalProperties: false }),
        response: { 200: Peek },
      },
    },
    async request => {
      const { caller, params } = request
      const { limit, cursor } = request.query
      const [after] = cursor === undefined ? [] : (decodeCursor('digest items', cursor, ['id']) as [Id])
      const digest = own(caller, await findDigest(db, caller.tenantId, params.id))
      const rows = await itemsOfDigest(db, caller.tenantId, digest.id, after, limit + 1)
      const page = toPage(rows, limit, last => encodeCursor('digest items', [last.notificationId]))
      const opened = await deps.openContent(db, caller.tenantId, page.items)
      return {
        ...show(digest),
        contents: {
          items: page.items.map(({ recipient: _, sealed: __, ...item }, at) => ({
            ...item,
            addedAt: item.addedAt.toISOString(),
            subject: opened[at]?.[digest.channel]?.subject ?? null,
          })),
          nextCursor: page.nextCursor,
        },
      }
    },
  )

  api.post(
    '/api/digests/:id/release',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'releaseDigest',
        summary: 'Let a digest go now',
        description: 'It closes within the next second or so. Answers 409 when it is not open any more.',
        params: ById,
        body: Nothing,
        response: { 202: Digest },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const digest = await db.tx(async tx => {
        await openOwn(tx, caller, params.id)
        await audit(tx, caller, { ...about('digest.released', params.id), traceId })
        return releaseDigest(tx, caller.tenantId, params.id, now())
      })
      deps.onDue()
      return reply.code(202).send(show(digest))
    },
  )

  api.post(
    '/api/digests/:id/cancel',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'cancelDigest',
        summary: 'Cancel a digest and all that waits in it',
        description: 'Nothing of it is sent. Answers 409 when it is not open any more.',
        params: ById,
        body: Nothing,
        response: { 200: Type.Object({ ...Digest.properties, cancelled: Type.Integer() }) },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      return db.tx(async tx => {
        await openOwn(tx, caller, params.id)
        const { digest, cancelled } = await cancelDigest(tx, caller.tenantId, params.id, now(), shard)
        await audit(tx, caller, { ...about('digest.cancelled', params.id), details: { cancelled }, traceId })
        return { ...show(digest), cancelled }
      })
    },
  )

  api.delete(
    '/api/digests/:id/items/:notificationId',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'cancelDigestItem',
        summary: 'Take one notification out of a digest; it is not sent',
        params: ByItem,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const { id, notificationId } = params
      await db.tx(async tx => {
        await openOwn(tx, caller, id)
        await cancelItem(tx, caller.tenantId, id, notificationId, now(), shard)
        await audit(tx, caller, {
          ...about('digest.item_cancelled', id),
          details: { notificationId },
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/digests/:id/items/:notificationId/release',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'releaseDigestItem',
        summary: 'Send one notification of a digest by itself now',
        params: ByItem,
        body: Nothing,
        response: { 202: Type.Object({ digestId: Uuid, notificationId: Uuid }) },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const { id, notificationId } = params
      await db.tx(async tx => {
        await openOwn(tx, caller, id)
        await releaseOne(tx, caller.tenantId, id, notificationId, now())
        await audit(tx, caller, {
          ...about('digest.item_released', id),
          details: { notificationId },
          traceId,
        })
      })
      deps.onReleased()
      return reply.code(202).send({ digestId: id, notificationId })
    },
  )
}

const isOwn = (caller: Caller, { recipient }: StoredDigest): boolean =>
  caller.role !== 'user' || (recipient.type === 'user' && recipient.id === caller.userId)

/** To a person, somebody else's digest does not exist. */
function own(caller: Caller, digest: StoredDigest): StoredDigest {
  if (isOwn(caller, digest)) return digest
  throw new AppError('not_found', 'There is no digest with this id.')
}

// Whose it is never changes, so it is asked first: a stranger's request locks nothing and learns no state.
async function openOwn(tx: Tx, caller: Caller, id: Id): Promise<void> {
  own(caller, await findDigest(tx, caller.tenantId, id))
  await lockOpenDigest(tx, caller.tenantId, id)
}

const about = (action: string, objectId: Id) => ({ action, objectKind: 'digest', objectId })

function show({ recipient, ...digest }: StoredDigest): Static<typeof Digest> {
  return {
    ...digest,
    recipientType: recipient.type,
    recipientId: recipient.id,
    openedAt: digest.openedAt.toISOString(),
    closesAt: digest.closesAt.toISOString(),
    latestAt: digest.latestAt.toISOString(),
    closedAt: digest.closedAt?.toISOString() ?? null,
  }
}
