import { Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import {
  changeCatalogue,
  deleteCatalogue,
  findCatalogue,
  listCatalogues,
  readLocale,
} from './message-store.ts'
import { MAX_KEYS, MAX_MESSAGE } from './messages.ts'
import { MessagesOfOne, MESSAGE_KEY } from './routes.ts'

const closed = { additionalProperties: false }
const Time = Type.String({ format: 'date-time' })
const LocalePath = Type.Object({ locale: Type.String({ minLength: 2, maxLength: 35 }) }, closed)
const Expected = Type.Optional(
  Type.Integer({
    minimum: 0,
    maximum: 2 ** 31 - 1,
    description: 'The revision this change was made from, 0 for none: 409 when there is a newer one.',
  }),
)

const SUMMARY = {
  locale: Type.String(),
  revision: Type.Integer(),
  updatedBy: Type.Union([Type.String(), Type.Null()]),
  createdAt: Time,
  updatedAt: Time,
}
const Summary = Type.Object({ ...SUMMARY, keys: Type.Integer() })
const Whole = Type.Object({ ...SUMMARY, messages: Type.Record(Type.String(), Type.String()) })
const Saved = Type.Object({
  ...Whole.properties,
  warnings: Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
    description: 'What is worth knowing and no mistake.',
  }),
})

/** The messages of one language as a document: what `PUT /api/messages/{locale}` takes, with the language. */
export const MessagesBody = Type.Object(
  {
    locale: Type.String({ minLength: 2, maxLength: 35, description: 'BCP 47, such as de or pt-BR.' }),
    messages: Type.Optional(MessagesOfOne),
  },
  closed,
)

const read = { role: 'service', scope: 'templates:read' } as const
const write = { role: 'service', scope: 'templates:write' } as const
const tags = ['Templates']

/** Messages in ICU MessageFormat that all templates of a tenant may say. */
export function messagesRoutes(api: Api, { db }: { db: Db }): void {
  api.get(
    '/api/messages',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listMessages',
        summary: 'List the languages in which there are messages for all templates',
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Summary) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('messages', cursor, ['text']) as string[])
      const rows = await listCatalogues(db, request.caller.tenantId, after, limit + 1)
      return toPage(rows.map(withTimes), limit, last => encodeCursor('messages', [last.locale]))
    },
  )

  api.get(
    '/api/messages/:locale',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getMessages',
        summary: 'The messages of one language',
        params: LocalePath,
        response: { 200: Whole },
      },
    },
    async request => {
      const locale = readLocale(request.params.locale, '/locale')
      const found = await findCatalogue(db, request.caller.tenantId, locale)
      if (!found) throw new AppError('not_found', 'There are no messages in this language.')
      return withTimes(found)
    },
  )

  api.put(
    '/api/messages/:locale',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'replaceMessages',
        summary: 'Replace the messages of one language',
        description: 'The next message that is written says them. What was written stays as it is.',
        params: LocalePath,
        body: Type.Object({ messages: MessagesOfOne, revision: Expected }, closed),
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const locale = readLocale(params.locale, '/locale')
      const { catalogue, warnings } = await db.tx(tx =>
        changeCatalogue(tx, caller, locale, () => body.messages, body.revision, traceId),
      )
      return { ...withTimes(catalogue), warnings }
    },
  )

  api.patch(
    '/api/messages/:locale',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'changeMessages',
        summary: 'Add, replace or, with null, remove some messages of one language',
        params: LocalePath,
        body: Type.Object(
          {
            messages: Type.Record(
              Type.String({ pattern: MESSAGE_KEY }),
              Type.Union([Type.String({ maxLength: MAX_MESSAGE }), Type.Null()]),
              { ...closed, minProperties: 1, maxProperties: MAX_KEYS },
            ),
            revision: Expected,
          },
          closed,
        ),
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const locale = readLocale(params.locale, '/locale')
      const { catalogue, warnings } = await db.tx(tx =>
        changeCatalogue(tx, caller, locale, before => merged(before, body.messages), body.revision, traceId),
      )
      return { ...withTimes(catalogue), warnings }
    },
  )

  api.delete(
    '/api/messages/:locale',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteMessages',
        summary: 'Remove the messages of one language',
        description: 'Answers 409 while published templates say a message that no other language has.',
        params: LocalePath,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const locale = readLocale(request.params.locale, '/locale')
      await db.tx(tx => deleteCatalogue(tx, request.caller, locale, request.traceId))
      return reply.code(204).send(null)
    },
  )
}

function merged(
  before: Readonly<Record<string, string>>,
  change: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const after = new Map(Object.entries(before))
  for (const [key, text] of Object.entries(change)) {
    if (text === null) after.delete(key)
    else after.set(key, text)
  }
  return Object.fromEntries(after)
}

const withTimes = <T extends { createdAt: Date; updatedAt: Date }>(item: T) => ({
  ...item,
  createdAt: item.createdAt.toISOString(),
  updatedAt: item.updatedAt.toISOString(),
})
