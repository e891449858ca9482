import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { PRIORITIES } from '../types.ts'
import {
  type HeartbeatDefinition,
  type StoredHeartbeat,
  beatHeartbeat,
  deleteHeartbeat,
  findHeartbeat,
  listHeartbeats,
  pauseHeartbeat,
  putHeartbeat,
} from './store.ts'

export interface HeartbeatsDeps {
  db: Db
  now(): Date
  write: WriteEvents
  /** A silence ended, or there is something new to wait for. */
  onDue(): void
  /** Events may wait to be planned: what was missing is withdrawn. */
  onTold(): void
}

const closed = { additionalProperties: false }
const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const Name = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$',
  description: 'Letters, digits, dots, underscores and hyphens, such as backup.nightly.',
})
const byName = Type.Object({ name: Name }, closed)
const YEAR = 366 * 86_400

const everySeconds = Type.Integer({
  minimum: 1,
  maximum: YEAR,
  description: 'It is expected at least once in so many seconds.',
})
const graceSeconds = Type.Integer({
  minimum: 0,
  maximum: YEAR,
  description: 'So much later its silence is told. Default: a tenth of everySeconds, 5 to 3,600.',
})
const eventTypes = Type.Array(
  Type.String({ maxLength: 255, pattern: '^(\\*|[^*\\u0000-\\u001f\\u007f]+(\\.\\*)?)$' }),
  {
    maxItems: 50,
    uniqueItems: true,
    description:
      'Accepted events of these types count as a beat: a type, all of commerce.*, or *. Default: none do.',
  },
)
const text = (description: string) => Type.String({ minLength: 1, maxLength: 255, description })

const Definition = Type.Object(
  {
    description: Type.Optional(Type.String({ maxLength: 1_000 })),
    everySeconds,
    graceSeconds: Type.Optional(graceSeconds),
    eventTypes: Type.Optional(eventTypes),
    eventSource: Type.Optional(text('Only events of this source.')),
    eventSubject: Type.Optional(text('Only events about this subject.')),
    priority: Type.Optional(Type.Enum([...PRIORITIES], { description: 'Of the events that tell of it.' })),
    paused: Type.Optional(Type.Boolean()),
  },
  closed,
)
const MaybeText = Type.Union([Type.String(), Type.Null()])
const Shown = Type.Object({
  name: Type.String(),
  description: Type.String(),
  everySeconds: Type.Integer(),
  graceSeconds: Type.Integer(),
  eventTypes: Type.Array(Type.String()),
  eventSource: MaybeText,
  eventSubject: MaybeText,
  priority: Type.Union([Type.Enum([...PRIORITIES]), Type.Null()]),
  paused: Type.Boolean(),
  status: Type.Enum(['new', 'up', 'late', 'down', 'paused'], {
    description:
      'new: not heard of since it is waited for. late: beyond its time, within the grace. down: told as missing.',
  }),
  lastBeatAt: MaybeTime,
  missedAt: Type.Union([Time, Type.Null()], { description: 'Since when it is told as missing.' }),
  expectedBy: MaybeTime,
  createdAt: Time,
  updatedAt: Time,
})

const read = { role: 'service', scope: 'rules:read' } as const
const change = { role: 'service', scope: 'rules:write' } as const
const tags = ['Heartbeats']

/** Sources that must be heard of, and their beats. */
export function heartbeatsRoutes(api: Api, { db, now, write, onDue, onTold }: HeartbeatsDeps): void {
  api.put(
    '/api/heartbeats/:name',
    {
      config: { access: change },
      schema: {
        tags,
        operationId: 'putHeartbeat',
        summary: 'Wait for a source; whoever replaces more than words waits for it anew',
        params: byName,
        body: Definition,
        response: { 200: Shown, 201: Shown },
      },
    },
    async (request, reply) => {
      const made = definition(request.params.name, request.body)
      const { heartbeat, created } = await db.tx(tx => putHeartbeat(tx, request.caller, made, now(), write))
      onDue()
      onTold()
      if (created) reply.code(201).header('location', `/api/heartbeats/${made.name}`)
      return show(heartbeat)
    },
  )

  api.get(
    '/api/heartbeats',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listHeartbeats',
        summary: 'List heartbeats and how they stand, by name',
        querystring: Type.Object(pageQuery, closed),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('heartbeats', cursor, ['text']) as string[])
      const rows = await listHeartbeats(db, request.caller.tenantId, after, limit + 1, now())
      return toPage(rows.map(show), limit, last => encodeCursor('heartbeats', [last.name]))
    },
  )

  api.get(
    '/api/heartbeats/:name',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getHeartbeat',
        summary: 'One heartbeat and how it stands',
        params: byName,
        response: { 200: Shown },
      },
    },
    async request => show(await findHeartbeat(db, request.caller.tenantId, request.params.name, now())),
  )

  api.delete(
    '/api/heartbeats/:name',
    {
      config: { access: change },
      schema: {
        tags,
        operationId: 'deleteHeartbeat',
        summary: 'Wait no longer, and forget it',
        params: byName,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteHeartbeat(tx, request.caller, request.params.name, now(), write))
      onTold()
      return reply.code(204).send(null)
    },
  )

  for (const paused of [true, false]) {
    const word = paused ? 'pause' : 'resume'
    api.post(
      `/api/heartbeats/:name/${word}`,
      {
        config: { access: change },
        schema: {
          tags,
          operationId: `${word}Heartbeat`,
          summary: paused ? 'Do not wait for now' : 'Wait again, from now on',
          params: byName,
          response: { 200: Shown },
        },
      },
      async request => {
        const heartbeat = await db.tx(tx =>
          pauseHeartbeat(tx, request.caller, request.params.name, paused, now(), write),
        )
        onDue()
        onTold()
        return show(heartbeat)
      },
    )
  }

  api.post(
    '/api/heartbeats/:name/beat',
    {
      config: { access: { role: 'service', scope: 'events:write' } },
      schema: {
        tags,
        operationId: 'beatHeartbeat',
        summary: 'Say that the source is alive',
        params: byName,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { ends } = await beatHeartbeat(db, request.caller.tenantId, request.params.name, now())
      if (ends) onDue()
      return reply.code(204).send(null)
    },
  )
}

function definition(name: string, body: Static<typeof Definition>): HeartbeatDefinition {
  return {
    name,
    description: body.description ?? '',
    everySeconds: body.everySeconds,
    graceSeconds: body.graceSeconds ?? Math.min(3_600, Math.max(5, Math.round(body.everySeconds / 10))),
    eventTypes: body.eventTypes ?? [],
    eventSource: body.eventSource ?? null,
    eventSubject: body.eventSubject ?? null,
    priority: body.priority ?? null,
    paused: body.paused ?? false,
  }
}

function show(heartbeat: StoredHeartbeat): Static<typeof Shown> {
  const { lastBeatAt, missedAt, expectedBy, createdAt, updatedAt, ...rest } = heartbeat
  return {
    ...rest,
    lastBeatAt: lastBeatAt?.toISOString() ?? null,
    missedAt: missedAt?.toISOString() ?? null,
    expectedBy: expectedBy?.toISOString() ?? null,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}
