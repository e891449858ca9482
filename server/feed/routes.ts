import { type TProperties, Type } from 'typebox'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { MAX_THREAD, PRIORITIES } from '../types.ts'
import type { UserId } from '../types.ts'
import { FEED_FILTERS, FEED_MARKS, MAX_MARKED } from './feed.ts'
import type { FeedMark, FeedState, FeedStore, Marked } from './feed.ts'
import type { Hub } from './hub.ts'
import { readerOf } from './reader.ts'

const READ = { access: { role: 'user', scope: 'notifications:read' } } as const
const WRITE = { access: { role: 'user', scope: 'notifications:write' } } as const
const tags = ['Inbox']
const MAX_SNOOZE_MS = 366 * 86_400_000

const strict = <T extends TProperties>(properties: T) =>
  Type.Object(properties, { additionalProperties: false })
const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const IdParams = strict({ id: Type.String({ format: 'uuid' }) })
const userId = Type.Optional(
  Type.String({ minLength: 1, maxLength: 255, description: 'Services and admins name the person.' }),
)
const Reader = strict({ userId })
const Until = Type.String({ format: 'date-time', description: 'In the future, at most a year away.' })

const Item = Type.Object({
  id: Type.String({ format: 'uuid' }),
  seq: Type.Integer(),
  eventId: Type.Union([Type.String({ format: 'uuid' }), Type.Null()]),
  eventType: Type.String(),
  subject: Type.Union([Type.String(), Type.Null()]),
  body: Type.String(),
  data: Type.Union([Type.Record(Type.String(), Type.Unknown()), Type.Null()]),
  priority: Type.Enum(PRIORITIES),
  category: Type.String(),
  thread: Type.Union([Type.String(), Type.Null()], { description: 'What it belongs to.' }),
  createdAt: Time,
  seenAt: MaybeTime,
  readAt: MaybeTime,
  archivedAt: MaybeTime,
  snoozedUntil: MaybeTime,
  expiresAt: MaybeTime,
})
const ThreadName = Type.String({ minLength: 1, maxLength: MAX_THREAD })
const Thread = Type.Object({
  thread: Type.String(),
  items: Type.Integer({ description: 'Kept ones, archived ones included.' }),
  unread: Type.Integer({ description: 'Neither archived nor snoozed.' }),
  last: Item,
})
const Counts = Type.Object({ unseen: Type.Integer(), unread: Type.Integer(), head: Type.Integer() })
const State = Type.Object({
  id: Type.String({ format: 'uuid' }),
  seenAt: MaybeTime,
  readAt: MaybeTime,
  archivedAt: MaybeTime,
  snoozedUntil: MaybeTime,
})

/** What is done to one item: the last part of its path, and the change it makes. */
const ACTIONS = [
  ['seen', 'seen', 'Mark as seen'],
  ['unread', 'unread', 'Mark as unread again'],
  ['archive', 'archived', 'Move out of the inbox'],
  ['unarchive', 'unarchived', 'Move back into the inbox'],
  ['unsnooze', 'unsnoozed', 'Bring back before its time, as new'],
] as const

export function feedRoutes(api: Api, deps: { feed: FeedStore; hub: Hub; now?: () => Date }): void {
  const { feed, hub } = deps
  const now = deps.now ?? (() => new Date())

  api.get(
    '/api/notifications/feed',
    {
      config: READ,
      schema: {
        tags,
        operationId: 'listFeed',
        summary: 'List a person’s inbox, newest first',
        description: '`head` is where a stream resumes (`after=`) without missing or repeating anything.',
        querystring: strict({
          userId,
          filter: Type.Optional(Type.Enum(FEED_FILTERS, { default: 'inbox' })),
          thread: Type.Optional(ThreadName),
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 200, default: 50 })),
          cursor: Type.Optional(Type.String({ maxLength: 2048 })),
        }),
        response: {
          200: Type.Object({
            items: Type.Array(Item),
            nextCursor: Type.Union([Type.String(), Type.Null()]),
            head: Type.Integer(),
          }),
        },
      },
    },
    async request => {
      const { filter = 'inbox', thread, limit = 50, cursor } = request.query
      const reader = readerOf(request.caller, request.query.userId)
      const list = `feed:${filter}`
      const before = cursor === undefined ? undefined : (decodeCursor(list, cursor, ['int'])[0] as number)
      const page = await feed.list(reader.tenantId, reader.userId, {
        filter,
        thread,
        before,
        limit,
        now: now(),
      })
      return {
        items: page.items,
        nextCursor: page.nextSeq === null ? null : encodeCursor(list, [page.nextSeq]),
        head: page.head,
      }
    },
  )

  api.get(
    '/api/notifications/threads',
    {
      config: READ,
      schema: {
        tags,
        operationId: 'listThreads',
        summary: 'List the threads of an inbox, the one with the newest item first',
        querystring: strict({
          userId,
          limit: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, default: 50 })),
          cursor: Type.Optional(Type.String({ maxLength: 2048 })),
        }),
        response: {
          200: Type.Object({
            threads: Type.Array(Thread),
            nextCursor: Type.Union([Type.String(), Type.Null()]),
          }),
        },
      },
    },
    async request => {
      const { limit = 50, cursor } = request.query
      const reader = readerOf(request.caller, request.query.userId)
      const before =
        cursor === undefined ? undefined : (decodeCursor('threads', cursor, ['int'])[0] as number)
      const { threads, nextSeq } = await feed.threads(reader.tenantId, reader.userId, {
        before,
        limit,
        now: now(),
      })
      return { threads, nextCursor: nextSeq === null ? null : encodeCursor('threads', [nextSeq]) }
    },
  )

  api.post(
    '/api/notifications/threads/read',
    {
      config: WRITE,
      schema: {
        tags,
        operationId: 'readThread',
        summary: 'Mark everything of one thread as read',
        description: 'Streams get one change, `thread_read`. What there is nothing of is read already.',
        querystring: Reader,
        body: strict({ thread: ThreadName }),
        response: { 200: Type.Object({ success: Type.Literal(true), counts: Counts }) },
      },
    },
    async request => {
      const reader = readerOf(request.caller, request.query.userId)
      const { thread } = request.body
      const { changes, counts } = await feed.markThreadRead(reader.tenantId, reader.userId, thread, now())
      hub.publish(changes)
      return { success: true as const, counts }
    },
  )

  api.get(
    '/api/notifications/feed/counts',
    {
      config: READ,
      schema: {
        tags,
        operationId: 'countFeed',
        summary: 'Count what is unseen and unread in an inbox',
        querystring: Reader,
        response: { 200: Counts },
      },
    },
    request => {
      const reader = readerOf(request.caller, request.query.userId)
      return feed.counts(reader.tenantId, reader.userId)
    },
  )

  api.post(
    '/api/notifications/feed/mark',
    {
      config: WRITE,
      schema: {
        tags,
        operationId: 'markFeed',
        summary: 'Mark many items at once',
        description:
          'Ids that are not in the inbox are passed over; `items` shows the others as they are now.',
        querystring: Reader,
        body: strict({
          ids: Type.Array(Type.String({ format: 'uuid' }), { minItems: 1, maxItems: MAX_MARKED }),
          mark: Type.Enum(FEED_MARKS),
          until: Type.Optional(Until),
        }),
        response: {
          200: Type.Object({ success: Type.Literal(true), items: Type.Array(State), counts: Counts }),
        },
      },
    },
    async request => {
      const { ids, mark, until } = request.body
      if ((until === undefined) === (mark === 'snoozed')) {
        const detail = mark === 'snoozed' ? 'Say until when.' : 'Only snoozing takes a time.'
        throw new AppError('invalid_request', detail, { field: '/until' })
      }
      const marked = await markItems(request, request.query.userId, mark, ids, until)
      return { success: true as const, items: marked.states.map(stateView), counts: marked.counts }
    },
  )

  for (const name of ['read', 'seen'] as const) {
    api.post(
      `/api/notifications/${name}-all`,
      {
        config: WRITE,
        schema: {
          tags,
          operationId: name === 'read' ? 'readAllFeed' : 'seeAllFeed',
          summary: `Mark everything in the inbox as ${name}`,
          querystring: Reader,
          response: { 200: Type.Object({ success: Type.Literal(true), counts: Counts }) },
        },
      },
      async request => {
        const reader = readerOf(request.caller, request.query.userId)
        const { changes, counts } = await feed.markAll(reader.tenantId, reader.userId, name, now())
        hub.publish(changes)
        return { success: true as const, counts }
      },
    )
  }

  // PATCH is Aura's documented method, POST DictaMesh's.
  for (const method of ['PATCH', 'POST'] as const) {
    api.route({
      method,
      url: '/api/notifications/:id/read',
      config: WRITE,
      schema: {
        tags,
        operationId: method === 'PATCH' ? 'readNotification' : 'postReadNotification',
        summary: 'Mark one item as read',
        description: 'Repeating it changes nothing: `readAt` stays the first time.',
        params: IdParams,
        querystring: Reader,
        body: Type.Optional(Type.Object({}, { additionalProperties: false })),
        response: { 200: Type.Object({ success: Type.Literal(true), readAt: Time }) },
      },
      handler: async request => {
        const { states } = await markItems(request, request.query.userId, 'read', [request.params.id])
        return { success: true as const, readAt: only(states).readAt!.toISOString() }
      },
    })
  }

  for (const [path, mark, summary] of ACTIONS) {
    api.post(
      `/api/notifications/:id/${path}`,
      {
        config: WRITE,
        schema: {
          tags,
          operationId: `${path}Notification`,
          summary,
          params: IdParams,
          querystring: Reader,
          response: { 200: Type.Object({ success: Type.Literal(true), item: State }) },
        },
      },
      async request => {
        const { states } = await markItems(request, request.query.userId, mark, [request.params.id])
        return { success: true as const, item: stateView(only(states)) }
      },
    )
  }

  api.post(
    '/api/notifications/:id/snooze',
    {
      config: WRITE,
      schema: {
        tags,
        operationId: 'snoozeNotification',
        summary: 'Hide one item until a time, then show it as new',
        params: IdParams,
        querystring: Reader,
        body: strict({ until: Until }),
        response: { 200: Type.Object({ success: Type.Literal(true), item: State }) },
      },
    },
    async request => {
      const { id } = request.params
      const { states } = await markItems(request, request.query.userId, 'snoozed', [id], request.body.until)
      return { success: true as const, item: stateView(only(states)) }
    },
  )

  async function markItems(
    request: { caller: Parameters<typeof readerOf>[0] },
    named: UserId | undefined,
    mark: FeedMark,
    ids: readonly string[],
    until?: string,
  ): Promise<Marked> {
    const { tenantId, userId: reader } = readerOf(request.caller, named)
    const at = now()
    const wake = until === undefined ? undefined : new Date(until)
    if (wake !== undefined && (wake <= at || wake.getTime() > at.getTime() + MAX_SNOOZE_MS)) {
      throw new AppError('invalid_request', 'Name a time in the future, at most a year away.', {
        field: '/until',
      })
    }
    const marked = await feed.mark(tenantId, reader, mark, ids, at, wake)
    hub.publish(marked.changes)
    return marked
  }
}

function only(states: readonly FeedState[]): FeedState {
  const [state] = states
  if (state === undefined) throw new AppError('not_found', 'There is no such item in this inbox.')
  return state
}

const iso = (date: Date | null) => (date === null ? null : date.toISOString())

const stateView = (state: FeedState) => ({
  id: state.id,
  seenAt: iso(state.seenAt),
  readAt: iso(state.readAt),
  archivedAt: iso(state.archivedAt),
  snoozedUntil: iso(state.snoozedUntil),
})
