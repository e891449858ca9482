import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { CHANNELS } from '../types.ts'
import { countsOf, resultsOf } from './results.ts'
import { HOLDOUT } from './split.ts'
import {
  type Experiment,
  type ExperimentDefinition,
  METRICS,
  PHASES,
  type Publish,
  createExperiment,
  deleteExperiment,
  findExperiment,
  listExperiments,
  phaseOf,
  pickWinner,
  startExperiment,
  stopExperiment,
  updateExperiment,
} from './store.ts'

const closed = { additionalProperties: false }
const Id = Type.String({ format: 'uuid' })
const MaybeId = Type.Union([Id, Type.Null()])
const Time = Type.String({ format: 'date-time' })
const MaybeTime = Type.Union([Time, Type.Null()])
const byId = Type.Object({ id: Id }, closed)
const Name = Type.String({ minLength: 1, maxLength: 255, pattern: '\\S' })
const VariantName = Type.String({
  pattern: '^[A-Za-z0-9][A-Za-z0-9 ._-]{0,49}$',
  description: 'Stands on every notification that says it.',
})
const Revision = Type.Integer({ minimum: 1, maximum: 2 ** 31 - 1 })
const Weight = Type.Integer({ minimum: 1, maximum: 10_000 })
const Metric = Type.Enum([...METRICS], { description: 'What the variants are judged by.' })
const Gets = Type.Enum(['nothing', 'control'])

const Definition = Type.Object(
  {
    name: Name,
    description: Type.Optional(Type.String({ maxLength: 1000 })),
    templateId: Type.Optional(
      Type.String({ format: 'uuid', description: 'Variants are revisions of this template. Or:' }),
    ),
    ruleId: Type.Optional(
      Type.String({ format: 'uuid', description: 'variants are templates or channels of this rule.' }),
    ),
    metric: Type.Optional(Metric),
    variants: Type.Array(
      Type.Object(
        {
          name: VariantName,
          weight: Type.Optional(Weight),
          revision: Type.Optional(
            Type.Integer({
              minimum: 1,
              maximum: 2 ** 31 - 1,
              description: 'Default: the current one when it starts.',
            }),
          ),
          templateId: Type.Optional(
            Type.String({ format: 'uuid', description: 'In place of the rule’s template.' }),
          ),
          channels: Type.Optional(
            Type.Array(Type.Enum(CHANNELS), {
              minItems: 1,
              maxItems: CHANNELS.length,
              uniqueItems: true,
              description: 'In place of the rule’s channels.',
            }),
          ),
        },
        closed,
      ),
      { minItems: 2, maxItems: 10, description: 'The control first.' },
    ),
    holdout: Type.Optional(
      Type.Object(
        {
          share: Type.Number({ minimum: 0, maximum: 0.9 }),
          gets: Type.Optional(
            Type.Enum(['nothing', 'control'], {
              description: 'Nothing: skipped with the reason holdout, unless it is critical.',
            }),
          ),
        },
        { ...closed, description: 'People who take no part.' },
      ),
    ),
    startsAt: Type.Optional(MaybeTime),
    endsAt: Type.Optional(MaybeTime),
  },
  closed,
)
const Shown = Type.Object({
  id: Id,
  name: Type.String(),
  description: Type.String(),
  templateId: MaybeId,
  ruleId: MaybeId,
  status: Type.Enum([...PHASES]),
  metric: Metric,
  variants: Type.Array(
    Type.Object({
      name: Type.String(),
      weight: Weight,
      revision: Type.Union([Revision, Type.Null()]),
      templateId: MaybeId,
      channels: Type.Union([Type.Array(Type.Enum(CHANNELS)), Type.Null()]),
    }),
  ),
  holdout: Type.Object({ share: Type.Number(), gets: Gets }),
  startsAt: MaybeTime,
  endsAt: MaybeTime,
  startedAt: MaybeTime,
  stoppedAt: MaybeTime,
  winner: Type.Union([Type.String(), Type.Null()]),
  revision: Type.Integer(),
  createdAt: Time,
  updatedAt: Time,
})

const Counts = Type.Object(
  {
    people: Type.Integer({ description: 'Planned for, or held out.' }),
    sent: Type.Integer(),
    delivered: Type.Integer(),
    seen: Type.Integer(),
    opened: Type.Integer(),
    clicked: Type.Integer(),
    acted: Type.Integer({ description: 'Acknowledged, answered, pressed a button.' }),
    failed: Type.Integer(),
  },
  { description: 'People, each once, by how far they came.' },
)
const Rate = Type.Object({
  rate: Type.Union([Type.Number(), Type.Null()]),
  low: Type.Number(),
  high: Type.Number(),
})
const Rates = Type.Object(
  {
    sent: Rate,
    delivered: Rate,
    seen: Rate,
    opened: Rate,
    clicked: Rate,
    acted: Rate,
    failed: Rate,
  },
  { description: 'Of people, with Wilson’s interval.' },
)
const ResultsShown = Type.Object({
  experimentId: Id,
  status: Type.Enum([...PHASES]),
  metric: Metric,
  confidence: Type.Number(),
  variants: Type.Array(
    Type.Object({
      name: Type.String(),
      control: Type.Boolean(),
      counts: Counts,
      rates: Rates,
      comparison: Type.Optional(
        Type.Object(
          {
            difference: Type.Number({ description: 'Rate of the metric less that of the control.' }),
            low: Type.Number(),
            high: Type.Number(),
            p: Type.Union([Type.Number(), Type.Null()]),
            adjustedP: Type.Union([Type.Number(), Type.Null()], {
              description: 'After Holm, where several variants are compared.',
            }),
            significant: Type.Boolean(),
            enough: Type.Boolean({ description: 'False: too few people for p to mean anything.' }),
          },
          { description: 'With the control.' },
        ),
      ),
    }),
  ),
  holdout: Type.Union([Type.Object({ counts: Counts, rates: Rates }), Type.Null()]),
  fit: Type.Union(
    [
      Type.Object({
        p: Type.Number(),
        suspicious: Type.Boolean({
          description:
            'People did not come in their shares: something loses them, and no rate can be trusted.',
        }),
      }),
      Type.Null(),
    ],
    { description: 'null: shares were changed while it ran.' },
  ),
  leader: Type.Union([Type.String(), Type.Null()], {
    description: 'The best of those clearly better than the control.',
  }),
})
const VariantShown = Type.Object({
  experimentId: Id,
  experiment: Type.String(),
  status: Type.Enum([...PHASES]),
  templateId: MaybeId,
  ruleId: MaybeId,
  name: Type.String(),
  control: Type.Boolean(),
  winner: Type.Boolean(),
  share: Type.Number({ description: 'Of all people, the holdout included.' }),
  revision: Type.Union([Revision, Type.Null()]),
  channels: Type.Union([Type.Array(Type.Enum(CHANNELS)), Type.Null()]),
  counts: Counts,
})

const read = { role: 'service', scope: 'templates:read' } as const
const write = { role: 'service', scope: 'templates:write' } as const
const tags = ['Experiments']
const Stored = Type.Optional(Type.Enum(['draft', 'running', 'stopped']))

/** Experiments: who is told what, and what they do about it. */
export function experimentRoutes(
  api: Api,
  { db, now, publish }: { db: Db; now(): Date; publish: Publish },
): void {
  const shown = (experiment: Experiment) => show(experiment, now())

  api.post(
    '/api/experiments',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createExperiment',
        summary: 'Draft an experiment',
        body: Definition,
        response: { 201: Shown },
      },
    },
    async (request, reply) => {
      const given = definition(request.body)
      const made = await db.tx(tx => createExperiment(tx, request.caller, given, now(), request.traceId))
      reply.code(201).header('location', `/api/experiments/${made.id}`)
      return shown(made)
    },
  )

  api.get(
    '/api/experiments',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listExperiments',
        summary: 'List experiments, newest first',
        querystring: Type.Object(
          { ...pageQuery, status: Stored, templateId: Type.Optional(Id), ruleId: Type.Optional(Id) },
          closed,
        ),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor, ...filter } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('experiments', cursor, ['id']) as string[])
      const rows = await listExperiments(db, request.caller.tenantId, filter, after, limit + 1)
      return toPage(rows.map(shown), limit, last => encodeCursor('experiments', [last.id]))
    },
  )

  api.get(
    '/api/experiments/:id',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getExperiment',
        summary: 'One experiment',
        params: byId,
        response: { 200: Shown },
      },
    },
    async request => shown(await findExperiment(db, request.caller.tenantId, request.params.id)),
  )

  api.put(
    '/api/experiments/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'updateExperiment',
        summary: 'Replace a draft; of a running one: its shares, its end and its words',
        params: byId,
        body: Definition,
        response: { 200: Shown },
      },
    },
    async request => {
      const given = definition(request.body)
      return shown(
        await db.tx(tx =>
          updateExperiment(tx, request.caller, request.params.id, given, now(), request.traceId),
        ),
      )
    },
  )

  api.delete(
    '/api/experiments/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteExperiment',
        summary: 'Delete an experiment and what it counted',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteExperiment(tx, request.caller, request.params.id, now(), request.traceId))
      return reply.code(204).send(null)
    },
  )

  for (const [action, work, summary] of [
    ['start', startExperiment, 'Start it: from now on, or from startsAt, messages are split'],
    ['stop', stopExperiment, 'Stop it: everybody is told the same again'],
  ] as const) {
    api.post(
      `/api/experiments/:id/${action}`,
      {
        config: { access: write },
        schema: {
          tags,
          operationId: `${action}Experiment`,
          summary,
          params: byId,
          body: Type.Optional(Type.Object({}, closed)),
          response: { 200: Shown },
        },
      },
      async request =>
        shown(await db.tx(tx => work(tx, request.caller, request.params.id, now(), request.traceId))),
    )
  }

  api.post(
    '/api/experiments/:id/pick',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'pickExperimentWinner',
        summary: 'Stop it, and tell everybody what one variant says',
        params: byId,
        body: Type.Object({ variant: VariantName }, closed),
        response: { 200: Shown },
      },
    },
    async request => {
      const { caller, params, body, traceId } = request
      return shown(
        await db.tx(tx => pickWinner(tx, caller, params.id, body.variant, publish, now(), traceId)),
      )
    },
  )

  api.get(
    '/api/experiments/:id/results',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'getExperimentResults',
        summary: 'What people did, by variant, and whether chance explains the difference',
        params: byId,
        response: { 200: ResultsShown },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const experiment = await findExperiment(db, tenantId, request.params.id)
      const counts = await countsOf(db, tenantId, [experiment.id])
      return {
        experimentId: experiment.id,
        status: phaseOf(experiment, now()),
        ...resultsOf(experiment, counts.get(experiment.id) ?? new Map()),
      }
    },
  )

  api.get(
    '/api/notifications/variants',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listVariants',
        summary: 'List the variants of experiments, and how far people came',
        querystring: Type.Object(
          { ...pageQuery, status: Stored, templateId: Type.Optional(Id), ruleId: Type.Optional(Id) },
          { ...closed, description: 'Pages are counted in experiments.' },
        ),
        response: { 200: pageOf(VariantShown) },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const { limit, cursor, ...filter } = request.query
      const [after = null] =
        cursor === undefined ? [] : (decodeCursor('variants', cursor, ['id']) as string[])
      const rows = await listExperiments(db, tenantId, filter, after, limit + 1)
      const page = toPage(rows, limit, last => encodeCursor('variants', [last.id]))
      const counts = await countsOf(
        db,
        tenantId,
        page.items.map(({ id }) => id),
      )
      return { ...page, items: page.items.flatMap(one => variantsOf(one, counts.get(one.id), now())) }
    },
  )
}

const NOBODY = { people: 0, sent: 0, delivered: 0, seen: 0, opened: 0, clicked: 0, acted: 0, failed: 0 }

function variantsOf(
  experiment: Experiment,
  counts: ReadonlyMap<string, typeof NOBODY> | undefined,
  now: Date,
): Static<typeof VariantShown>[] {
  const { id, name, templateId, ruleId, variants, holdout, winner } = experiment
  const whole = variants.reduce((sum, { weight }) => sum + weight, 0)
  return variants.map((variant, at) => ({
    experimentId: id,
    experiment: name,
    status: phaseOf(experiment, now),
    templateId: variant.templateId ?? templateId,
    ruleId,
    name: variant.name,
    control: at === 0,
    winner: variant.name === winner,
    share: (variant.weight / whole) * (1 - holdout.share),
    revision: variant.revision,
    channels: variant.channels,
    counts: counts?.get(variant.name) ?? NOBODY,
  }))
}

/** @throws AppError invalid_request for parts that contradict each other */
function definition(body: Static<typeof Definition>): ExperimentDefinition {
  const bad = (field: string, message: string) => new AppError('invalid_request', message, { field })
  const { templateId = null, ruleId = null, holdout, startsAt, endsAt } = body
  if ((templateId === null) === (ruleId === null)) {
    throw bad('/templateId', 'An experiment is about a template or about a rule')
  }
  const names = new Set<string>()
  for (const [at, variant] of body.variants.entries()) {
    const field = `/variants/${at}`
    if (variant.name.toLowerCase() === HOLDOUT) throw bad(`${field}/name`, 'The holdout has this name')
    if (names.has(variant.name.toLowerCase())) throw bad(`${field}/name`, 'Two variants have this name')
    names.add(variant.name.toLowerCase())
    if (ruleId !== null && variant.revision !== undefined) {
      throw bad(`${field}/revision`, 'A rule’s variants name templates: they follow what is published')
    }
    if (templateId !== null && variant.templateId !== undefined) {
      throw bad(`${field}/templateId`, 'A template’s variants are its revisions')
    }
    if (templateId !== null && variant.channels !== undefined) {
      throw bad(`${field}/channels`, 'Channels belong to rules: make an experiment of the rule')
    }
  }
  const starts = startsAt ? new Date(startsAt) : null
  const ends = endsAt ? new Date(endsAt) : null
  if (starts && ends && ends <= starts) throw bad('/endsAt', 'It ends before it starts')
  return {
    name: body.name.trim(),
    description: body.description ?? '',
    templateId,
    ruleId,
    metric: body.metric ?? 'clicked',
    variants: body.variants.map(({ name, weight = 1, revision, templateId: other, channels }) => ({
      name,
      weight,
      revision: revision ?? null,
      templateId: other ?? null,
      channels: channels ?? null,
    })),
    holdout: { share: holdout?.share ?? 0, gets: holdout?.gets ?? 'nothing' },
    startsAt: starts,
    endsAt: ends,
  }
}

const iso = (time: Date | null) => time?.toISOString() ?? null

const show = ({ reweighted: _, ...experiment }: Experiment, now: Date): Static<typeof Shown> => ({
  ...experiment,
  status: phaseOf(experiment, now),
  startsAt: iso(experiment.startsAt),
  endsAt: iso(experiment.endsAt),
  startedAt: iso(experiment.startedAt),
  stoppedAt: iso(experiment.stoppedAt),
  createdAt: experiment.createdAt.toISOString(),
  updatedAt: experiment.updatedAt.toISOString(),
})
