import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { WINDOW_KINDS } from '../time/window.ts'
import { checkZone } from '../time/zone.ts'
import { type JsonObject, PRIORITIES } from '../types.ts'
import {
  MAX_AHEAD_MS,
  type StoredThreshold,
  type ThresholdDefinition,
  createThreshold,
  deleteThreshold,
  findThreshold,
  listThresholdStates,
  listThresholds,
  takeSamples,
  updateThreshold,
} from './store.ts'
import { specProblem } from './threshold.ts'

export interface StreamsDeps {
  db: Db
  now(): Date
  write: WriteEvents
  /** Events wait to be planned. */
  onTold(): void
}

const closed = { additionalProperties: false }
const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const byId = Type.Object({ id: Id }, closed)

const StreamName = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: '^(?!\\.{1,2}$)[^\\u0000-\\u001f\\u007f]+$',
  description: 'Any name; a stream exists by being written to.',
})
const Series = Type.String({
  maxLength: 255,
  pattern: '^[^\\u0000-\\u001f\\u007f]*$',
  description: 'What of the stream it is about, such as one of many machines: each stands for itself.',
})
// Beyond these a number is no measurement, and differences would vanish in rounding.
const Value = Type.Number({ minimum: -1e15, maximum: 1e15 })
const Seconds = Type.Integer({ minimum: 0, maximum: 31 * 86_400 })

const SPEC = {
  when: Type.Enum(['above', 'below', 'inside', 'outside']),
  bounds: Type.Array(Value, { minItems: 1, maxItems: 2, description: 'One for above and below, else two.' }),
  inclusive: Type.Boolean({
    description: 'Whether a value that equals a bound is beyond it. Default false.',
  }),
  rearm: Type.Number({
    minimum: 0,
    maximum: 1e15,
    description: 'Hysteresis: how far a value has to come back before it may cross again. Default 0.',
  }),
  forSeconds: Type.Integer({
    ...Seconds,
    description: 'Crosses once every sample of so long was beyond. Default 0: with the first one.',
  }),
  maxGapSeconds: Type.Union([Type.Integer({ minimum: 1, maximum: 31 * 86_400 }), Type.Null()], {
    description: 'After a longer silence of the stream forSeconds begins anew. Default: however long.',
  }),
  period: Type.Union([Type.Enum([...WINDOW_KINDS]), Type.Null()], {
    description: 'At most once in each of these, and again in the next one if it still holds.',
  }),
  timezone: Type.String({
    minLength: 1,
    maxLength: 64,
    description: 'Where days, weeks and months begin. Default UTC.',
  }),
}
const Name = Type.String({ minLength: 1, maxLength: 255 })
const Description = Type.String({ maxLength: 1_000 })
const Definition = Type.Object(
  {
    name: Name,
    description: Type.Optional(Description),
    stream: StreamName,
    when: SPEC.when,
    bounds: SPEC.bounds,
    inclusive: Type.Optional(SPEC.inclusive),
    rearm: Type.Optional(SPEC.rearm),
    forSeconds: Type.Optional(SPEC.forSeconds),
    maxGapSeconds: Type.Optional(SPEC.maxGapSeconds),
    period: Type.Optional(SPEC.period),
    timezone: Type.Optional(SPEC.timezone),
    priority: Type.Optional(Type.Enum([...PRIORITIES])),
    enabled: Type.Optional(Type.Boolean()),
  },
  closed,
)
const Shown = Type.Object({
  id: Id,
  name: Type.String(),
  description: Type.String(),
  stream: Type.String(),
  ...SPEC,
  priority: Type.Union([Type.Enum([...PRIORITIES]), Type.Null()]),
  enabled: Type.Boolean(),
  revision: Type.Integer({
    description:
      'Goes up with what makes every series begin anew: other bounds, another stream, enabled again.',
  }),
  createdAt: Time,
  updatedAt: Time,
})
const Status = Type.Enum(['clear', 'pending', 'crossed'], {
  description: 'pending: beyond, but not for long enough, or told in this period already.',
})
const State = Type.Object({
  series: Type.String(),
  status: Status,
  since: MaybeTime,
  lastAt: MaybeTime,
  crossedAt: MaybeTime,
})
const Samples = Type.Object(
  {
    samples: Type.Array(
      Type.Object(
        {
          value: Value,
          at: Type.Optional(Type.String({ ...Time, description: 'Unless stated: now.' })),
          series: Type.Optional(Series),
          data: Type.Optional(
            Type.Record(Type.String({ maxLength: 255 }), Type.Unknown(), {
              maxProperties: 20,
              description: 'Handed on in the events; at most 4 KB.',
            }),
          ),
        },
        closed,
      ),
      { minItems: 1, maxItems: 1_000 },
    ),
  },
  closed,
)
const TakenSamples = Type.Object({
  accepted: Type.Integer(),
  late: Type.Integer({
    description: 'Not later than the last one of their series; nothing was made of them.',
  }),
  changes: Type.Array(
    Type.Object({
      thresholdId: Id,
      threshold: Type.String(),
      series: Type.String(),
      change: Type.Enum(['crossed', 'cleared']),
      at: Time,
      value: Type.Number(),
      eventId: Id,
    }),
  ),
})
const MAX_DATA_BYTES = 4_096

const readRules = { role: 'service', scope: 'rules:read' } as const
const writeRules = { role: 'service', scope: 'rules:write' } as const
const tags = ['Thresholds']

/** Streams of numbers, and what they are held against. */
export function streamsRoutes(api: Api, { db, now, write, onTold }: StreamsDeps): void {
  api.post(
    '/api/streams/:name/samples',
    {
      config: { access: { role: 'service', scope: 'events:write' } },
      schema: {
        tags,
        operationId: 'takeSamples',
        summary: 'Hold numbers against the thresholds of their stream',
        description:
          'What crosses becomes an event of type carillon.threshold.crossed, what comes back carillon.threshold.cleared. All or nothing is taken, in the order of their times. Samples that bring their time may be sent again: what is not later than the last one of its series changes nothing.',
        params: Type.Object({ name: StreamName }, closed),
        body: Samples,
        response: { 200: TakenSamples },
      },
    },
    async request => {
      const at = now()
      const samples = request.body.samples.map((sample, i) => {
        const time = sample.at === undefined ? at : new Date(sample.at)
        if (time.getTime() > at.getTime() + MAX_AHEAD_MS) {
          const detail = 'A sample may be at most five minutes ahead of our clock.'
          throw new AppError('invalid_sensor_data', detail, { field: `/samples/${i}/at` })
        }
        if (sample.data && Buffer.byteLength(JSON.stringify(sample.data)) > MAX_DATA_BYTES) {
          const detail = `The data of a sample has at most ${MAX_DATA_BYTES} bytes.`
          throw new AppError('invalid_sensor_data', detail, { field: `/samples/${i}/data` })
        }
        const data = sample.data as JsonObject | undefined
        return { at: time, value: sample.value, series: sample.series ?? '', ...(data && { data }) }
      })
      const { caller, params } = request
      const taken = await db.tx(tx => takeSamples(tx, caller.tenantId, params.name, samples, at, write))
      if (taken.changes.length > 0) onTold()
      return {
        accepted: samples.length - taken.late,
        late: taken.late,
        changes: taken.changes.map(change => ({ ...change, at: change.at.toISOString() })),
      }
    },
  )

  api.post(
    '/api/thresholds',
    {
      config: { access: writeRules },
      schema: {
        tags,
        operationId: 'createThreshold',
        summary: 'Set a threshold for a stream of numbers',
        body: Definition,
        response: { 201: Shown },
      },
    },
    async (request, reply) => {
      const made = definition(request.body)
      const threshold = await db.tx(tx => createThreshold(tx, request.caller, made, now()))
      reply.code(201).header('location', `/api/thresholds/${threshold.id}`)
      return show(threshold)
    },
  )

  api.get(
    '/api/thresholds',
    {
      config: { access: readRules },
      schema: {
        tags,
        operationId: 'listThresholds',
        summary: 'List thresholds, newest first',
        querystring: Type.Object({ ...pageQuery, stream: Type.Optional(StreamName) }, closed),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor, stream = null } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('thresholds', cursor, ['id']) as string[])
      const rows = await listThresholds(db, request.caller.tenantId, stream, after, limit + 1)
      return toPage(rows.map(show), limit, last => encodeCursor('thresholds', [last.id]))
    },
  )

  api.get(
    '/api/thresholds/:id',
    {
      config: { access: readRules },
      schema: {
        tags,
        operationId: 'getThreshold',
        summary: 'One threshold',
        params: byId,
        response: { 200: Shown },
      },
    },
    async request => show(await findThreshold(db, request.caller.tenantId, request.params.id)),
  )

  api.put(
    '/api/thresholds/:id',
    {
      config: { access: writeRules },
      schema: {
        tags,
        operationId: 'updateThreshold',
        summary: 'Replace a threshold; with other bounds, or enabled again, every series begins anew',
        params: byId,
        body: Definition,
        response: { 200: Shown },
      },
    },
    async request => {
      const made = definition(request.body)
      return show(await db.tx(tx => updateThreshold(tx, request.caller, request.params.id, made, now())))
    },
  )

  api.delete(
    '/api/thresholds/:id',
    {
      config: { access: writeRules },
      schema: {
        tags,
        operationId: 'deleteThreshold',
        summary: 'Take a threshold away',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteThreshold(tx, request.caller, request.params.id))
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/api/thresholds/:id/states',
    {
      config: { access: readRules },
      schema: {
        tags,
        operationId: 'listThresholdStates',
        summary: 'How each series stands, by name',
        params: byId,
        querystring: Type.Object({ ...pageQuery, status: Type.Optional(Status) }, closed),
        response: { 200: pageOf(State) },
      },
    },
    async request => {
      const { limit, cursor, status = null } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('threshold states', cursor, ['text']) as string[])
      const { tenantId } = request.caller
      const rows = await listThresholdStates(db, tenantId, request.params.id, status, after, limit + 1)
      return toPage(
        rows.map(row => ({
          ...row,
          since: row.since?.toISOString() ?? null,
          lastAt: row.lastAt?.toISOString() ?? null,
          crossedAt: row.crossedAt?.toISOString() ?? null,
        })),
        limit,
        last => encodeCursor('threshold states', [last.series]),
      )
    },
  )
}

/** @throws AppError invalid_request for bounds that cannot work, invalid_schedule for an unknown zone */
function definition(body: Static<typeof Definition>): ThresholdDefinition {
  const spec = {
    when: body.when,
    bounds: body.bounds,
    inclusive: body.inclusive ?? false,
    rearm: body.rearm ?? 0,
    forSeconds: body.forSeconds ?? 0,
    maxGapSeconds: body.maxGapSeconds ?? null,
    period: body.period ?? null,
    zone: checkZone(body.timezone ?? 'UTC', '/timezone'),
  }
  const problem = specProblem(spec)
  if (problem) throw new AppError('invalid_request', problem.message, { field: `/${problem.field}` })
  return {
    name: body.name,
    description: body.description ?? '',
    stream: body.stream,
    spec,
    priority: body.priority ?? null,
    enabled: body.enabled ?? true,
  }
}

function show({ spec, createdAt, updatedAt, ...threshold }: StoredThreshold): Static<typeof Shown> {
  const { zone, bounds, ...rest } = spec
  return {
    ...threshold,
    ...rest,
    bounds: [...bounds],
    timezone: zone,
    createdAt: createdAt.toISOString(),
    updatedAt: updatedAt.toISOString(),
  }
}
