import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { PRIORITY_SPELLINGS, readPriority } from '../spelling.ts'
import { PRIORITIES, type JsonObject } from '../types.ts'
import { compileSchema, schemaCheck, violation } from './event-schema.ts'
import {
  type EventType,
  disableEventType,
  findEventType,
  listEventTypes,
  putEventType,
} from './event-type-store.ts'

const closed = { additionalProperties: false }
const Category = Type.String({ maxLength: 100 })
/** Ours are `commerce.order.shipped`; CloudEvents lets a type be any text. */
const TypeName = Type.String({ minLength: 1, maxLength: 255, pattern: '^\\S+$' })
const byType = Type.Object({ type: TypeName }, closed)

const Definition = Type.Object(
  {
    description: Type.Optional(Type.String({ maxLength: 10_000 })),
    category: Type.Optional(
      Type.Union([Category, Type.Null()], { description: 'Of its events, where they state none.' }),
    ),
    priority: Type.Optional(
      Type.Union([Type.Enum([...PRIORITY_SPELLINGS]), Type.Null()], {
        description: 'Of its events, where they state none.',
      }),
    ),
    schema: Type.Optional(
      Type.Union(
        [Type.Record(Type.String({ maxLength: 255 }), Type.Any(), { maxProperties: 100 }), Type.Null()],
        {
          description:
            'JSON Schema 2020-12 of data, without recursion and remote references; patterns in the RE2 notation. null or absent: anything.',
        },
      ),
    ),
    enabled: Type.Optional(
      Type.Boolean({ description: 'True unless stated. Events of a disabled type are refused.' }),
    ),
  },
  closed,
)

const Shown = Type.Object({
  type: Type.String(),
  description: Type.String(),
  category: Type.Union([Type.String(), Type.Null()]),
  priority: Type.Union([Type.Enum([...PRIORITIES]), Type.Null()]),
  schema: Type.Union([Type.Record(Type.String(), Type.Any()), Type.Null()]),
  enabled: Type.Boolean(),
  createdAt: Type.String({ format: 'date-time' }),
  updatedAt: Type.String({ format: 'date-time' }),
})

const read = { role: 'service', scope: 'rules:read' } as const
const write = { role: 'service', scope: 'rules:write' } as const
const tags = ['Event types']

/** What is known of the events a tenant publishes: their schema, category and priority. */
export function eventTypeRoutes(api: Api, { db }: { db: Db }): void {
  api.put(
    '/api/event-types/:type',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'putEventType',
        summary: 'Register a type of events, or replace what is known of it',
        params: byType,
        body: Definition,
        response: { 200: Shown, 201: Shown },
      },
    },
    async (request, reply) => {
      const { caller, body, params, traceId } = request
      const schema = (body.schema ?? null) as JsonObject | null
      if (schema) compileSchema(schema)
      const definition = {
        description: body.description ?? '',
        category: body.category ?? '',
        priority: body.priority ? (readPriority(body.priority) ?? null) : null,
        schema,
        enabled: body.enabled ?? true,
      }
      const { created, eventType } = await db.tx(tx =>
        putEventType(tx, caller, params.type, definition, traceId),
      )
      if (created) reply.code(201).header('location', `/api/event-types/${encodeURIComponent(params.type)}`)
      return show(eventType)
    },
  )

  api.get(
    '/api/event-types',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listEventTypes',
        summary: 'List types of events by name',
        querystring: Type.Object(
          {
            ...pageQuery,
            category: Type.Optional(Category),
            enabled: Type.Optional(Type.Boolean()),
            prefix: Type.Optional(
              Type.String({ minLength: 1, maxLength: 255, description: 'What the type begins with.' }),
            ),
          },
          closed,
        ),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor, ...filter } = request.query
      const [after = ''] =
        cursor === undefined ? [] : (decodeCursor('event_types', cursor, ['text']) as string[])
      const rows = await listEventTypes(db, request.caller.tenantId, filter, after, limit + 1)
      return toPage(rows.map(show), limit, last => encodeCursor('event_types', [last.type]))
    },
  )

  api.get(
    '/api/event-types/:type',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getEventType',
        summary: 'One type of events',
        params: byType,
        response: { 200: Shown },
      },
    },
    async request => show(await existing(db, request.caller.tenantId, request.params.type)),
  )

  api.delete(
    '/api/event-types/:type',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'disableEventType',
        summary: 'Switch a type off: its events are refused and kept as dead letters',
        params: byType,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => disableEventType(tx, request.caller, request.params.type, request.traceId))
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/event-types/:type/validate',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'validateEventData',
        summary: "Check data against its type's schema, without publishing",
        params: byType,
        body: Type.Object(
          { data: Type.Record(Type.String({ maxLength: 255 }), Type.Any(), { maxProperties: 1_000 }) },
          closed,
        ),
        response: {
          200: Type.Object({
            valid: Type.Boolean(),
            errors: Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
              description: 'The first difference, if any.',
            }),
          }),
        },
      },
    },
    async request => {
      const { schema } = await existing(db, request.caller.tenantId, request.params.type)
      const found = schema && violation(schemaCheck(JSON.stringify(schema)), request.body.data)
      return { valid: !found, errors: found ? [found] : [] }
    },
  )
}

async function existing(db: Db, tenantId: number, type: string): Promise<EventType> {
  const eventType = await findEventType(db, tenantId, type)
  if (!eventType) throw new AppError('not_found', 'There is no event type of this name.')
  return eventType
}

const show = (eventType: EventType): Static<typeof Shown> => ({
  ...eventType,
  category: eventType.category === '' ? null : eventType.category,
  createdAt: eventType.createdAt.toISOString(),
  updatedAt: eventType.updatedAt.toISOString(),
})
