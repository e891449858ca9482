import { Readable } from 'node:stream'
import { type Static, Type } from 'typebox'
import { InhibitionBody, SilenceBody } from '../alerts/routes.ts'
import { type TimedSilence, standingMemory } from '../alerts/standing-memory.ts'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { LimitBody, limitDefinition } from '../limits/routes.ts'
import { Draft, define } from '../match/routes.ts'
import { compileRule } from '../match/rules.ts'
import type { Rule } from '../match/rules.ts'
import { resolveReferences } from '../match/rules-store.ts'
import type { PreferenceRow } from '../people/facts.ts'
import {
  ModeField,
  ScopeField,
  SwitchField,
  checkOpinion,
  settingFields,
} from '../people/preference-fields.ts'
import type { OpinionInput } from '../people/preference-fields.ts'
import type { TemplateRevision } from '../render/content.ts'
import { tenantMessages } from '../render/message-store.ts'
import { findTemplate, layoutsOf, publishable, resolveTemplates } from '../render/templates.ts'
import { CHANNELS } from '../types.ts'
import type { Id, JsonObject, TenantId } from '../types.ts'
import { DIFFERENCES } from './replay.ts'
import type { ReplayRequest, ReplayResult } from './replay.ts'

export interface ReplayDeps {
  db: Db
  replay: { run(request: ReplayRequest): Promise<ReplayResult> }
  now?: () => Date
}

const closed = { additionalProperties: false }
const Time = Type.String({ format: 'date-time' })
const Excerpt = Type.Object({ at: Time, subject: Type.Optional(Type.String()), body: Type.String() })
const Counts = Type.Object(Object.fromEntries(DIFFERENCES.map(kind => [kind, Type.Integer()])))
const Result = Type.Object({
  events: Type.Integer(),
  more: Type.Boolean({ description: 'There were more events than were asked for.' }),
  told: Type.Object({ before: Type.Integer(), after: Type.Integer() }),
  totals: Counts,
  byChannel: Type.Record(Type.String(), Counts),
  users: Type.Array(
    Type.Object({
      userId: Type.String(),
      differences: Type.Integer(),
      byChannel: Type.Record(Type.String(), Counts),
    }),
    { description: 'The people with the most differences.' },
  ),
  examples: Type.Array(
    Type.Object({
      kind: Type.Enum(DIFFERENCES),
      userId: Type.String(),
      channel: Type.Enum(CHANNELS),
      eventId: Type.String({ format: 'uuid' }),
      eventType: Type.String(),
      before: Type.Optional(Excerpt),
      after: Type.Optional(Excerpt),
    }),
  ),
  notReconstructed: Type.Array(Type.String()),
})
const Named = { minLength: 1, maxLength: 255 }
const Body = Type.Object(
  {
    since: Type.Union([Time, Type.String({ pattern: '^[0-9]{1,4}[mhd]$' })], {
      description: 'An instant, or how long ago: 90m, 12h, 7d.',
    }),
    until: Type.Optional(Time),
    rule: Type.Optional(Draft),
    withoutRule: Type.Optional(Type.String({ format: 'uuid' })),
    defaults: Type.Optional(
      Type.Array(
        Type.Object(
          {
            scope: Type.Optional(ScopeField),
            channel: Type.Optional(Type.Union([Type.Enum(CHANNELS), Type.Null()])),
            enabled: Type.Optional(SwitchField),
            mode: Type.Optional(ModeField),
            ...settingFields,
          },
          closed,
        ),
        { maxItems: 50, description: "In place of the tenant's defaults about the same." },
      ),
    ),
    template: Type.Optional(
      Type.Object(
        {
          template: Type.String({ minLength: 1, maxLength: 255, description: 'Id or name.' }),
          channels: Type.Record(Type.String(), Type.Any(), { maxProperties: 20 }),
          translations: Type.Optional(Type.Record(Type.String(), Type.Any(), { maxProperties: 100 })),
        },
        closed,
      ),
    ),
    limits: Type.Optional(
      Type.Array(LimitBody, {
        maxItems: 50,
        description: 'Each takes the place of the limit with its name, or joins the others.',
      }),
    ),
    withoutLimit: Type.Optional(Type.String({ ...Named, description: 'Id or name of one that is lifted.' })),
    silences: Type.Optional(
      Type.Array(SilenceBody, {
        maxItems: 50,
        description: 'Beside the others; in force from startsAt, or from the beginning of the range.',
      }),
    ),
    withoutSilence: Type.Optional(Type.String({ format: 'uuid', description: 'As if it had never been.' })),
    inhibitions: Type.Optional(
      Type.Array(InhibitionBody, {
        maxItems: 50,
        description: 'Each takes the place of the inhibition with its name, or joins the others.',
      }),
    ),
    withoutInhibition: Type.Optional(Type.String({ ...Named, description: 'Id or name.' })),
    examples: Type.Optional(Type.Integer({ minimum: 0, maximum: 500 })),
    maxEvents: Type.Optional(Type.Integer({ minimum: 1, maximum: 5_000_000 })),
  },
  closed,
)

const UNITS: Record<string, number> = { m: 60_000, h: 3_600_000, d: 86_400_000 }
const PROGRESS_EVERY_MS = 1_000

const findRule = sql(
  'replay_rule_by_name',
  `select id, no, revision from rules where tenant_id = $1 and name = $2 and deleted_at is null`,
)

/** What would have been told, had something been otherwise. */
export function replayRoutes(api: Api, { db, replay, now = () => new Date() }: ReplayDeps): void {
  // It keeps a core busy: one at a time, and the others hear so.
  let busy = false

  api.post(
    '/api/rules/replay',
    {
      // It opens the recorded events and shows what people would have read.
      config: { access: { role: 'admin', scope: 'rules:write' } },
      schema: {
        tags: ['Rules'],
        operationId: 'replayRules',
        summary: 'Play recorded events through something changed, and show the difference',
        description:
          'With `accept: application/x-ndjson` progress is told while it runs, a line a second; the last line is the result.',
        body: Body,
        response: { 200: Result },
      },
    },
    async (request, reply) => {
      const { tenantId } = request.caller
      const { body } = request
      const at = now()
      const since = /^\d+[mhd]$/.test(body.since)
        ? new Date(at.getTime() - Number(body.since.slice(0, -1)) * UNITS[body.since.at(-1)!]!)
        : new Date(body.since)
      const until = body.until === undefined ? at : new Date(body.until)
      if (until <= since)
        throw new AppError('invalid_request', 'until must be later than since', { field: '/until' })
      const change = {
        ...(body.rule && { rule: await draftOf(tenantId, body.rule, at) }),
        ...(body.withoutRule && { withoutRule: body.withoutRule }),
        ...(body.defaults && { defaults: body.defaults.map((one, i) => opinion(one as OpinionInput, i)) }),
        ...(body.template && { template: await templateOf(tenantId, body.template) }),
        ...(body.limits && { limits: body.limits.map((one, i) => limitOf(one, i)) }),
        ...(body.withoutLimit && { withoutLimit: body.withoutLimit }),
        ...(body.silences && { silences: body.silences.map((one, i) => silenceOf(one, i, since)) }),
        ...(body.withoutSilence && { withoutSilence: body.withoutSilence }),
        ...(body.inhibitions && { inhibitions: body.inhibitions.map((one, i) => inhibitionOf(one, i)) }),
        ...(body.withoutInhibition && { withoutInhibition: body.withoutInhibition }),
      }
      if (Object.keys(change).length === 0) {
        throw new AppError(
          'invalid_request',
          'Say what is to be otherwise: rule, withoutRule, defaults, template, limits, silences, inhibitions …',
          {
            field: '/rule',
          },
        )
      }
      if (busy) {
        throw new AppError('conflict', 'Another replay is running on this server.', { retryAfterSeconds: 10 })
      }
      busy = true
      const gone = new AbortController()
      // Of the answer, not of the request: that closes as soon as its body is read.
      reply.raw.once('close', () => {
        if (!reply.raw.writableFinished) gone.abort()
      })
      const run = (onProgress?: (events: number) => void) =>
        replay
          .run({
            tenantId,
            since,
            until,
            change,
            examples: body.examples ?? 20,
            maxEvents: body.maxEvents ?? 1_000_000,
            signal: gone.signal,
            ...(onProgress && { onProgress }),
          })
          .finally(() => {
            busy = false
          })
      if (!/\bapplication\/x-ndjson\b/.test(request.headers.accept ?? '')) return shown(await run())
      void reply.type('application/x-ndjson')
      // Not of the schema's shape, which is that of the whole answer.
      return reply.send(Readable.from(lines(run)) as never)
    },
  )

  async function draftOf(tenantId: TenantId, draft: object & { name?: string }, at: Date): Promise<Rule> {
    const name = draft.name ?? 'draft'
    const made = define({ ...draft, name } as Parameters<typeof define>[0], new Date(0))
    const { definition } = await resolveReferences(db, tenantId, made)
    const known = await db.one<{ id: Id; no: number; revision: number }>(findRule, [tenantId, name])
    const identity = known ?? { id: newId(at.getTime()), no: 0, revision: 0 }
    return compileRule(definition, { ...identity, tenantId })
  }

  async function templateOf(
    tenantId: TenantId,
    { template, channels, translations }: { template: string; channels: object; translations?: object },
  ): Promise<TemplateRevision> {
    const id = (await resolveTemplates(db, tenantId, [template])).get(template)
    const current = id === undefined ? undefined : await findTemplate(db, tenantId, id)
    if (!current)
      throw new AppError('not_found', 'There is no template with this id or name.', {
        field: '/template/template',
      })
    const { name, description, category, tags, enabled, locale, variables, messages, partials } = current
    const definition = await publishable(
      {
        name,
        description,
        category,
        tags,
        enabled,
        locale,
        variables,
        messages,
        partials,
        channels,
        translations: (translations ?? current.translations) as typeof current.translations,
      },
      layoutsOf(db, tenantId, current.id),
      await tenantMessages(db, tenantId),
    )
    return { ...definition, templateId: current.id, revision: 0 }
  }

  const opinion = (input: OpinionInput, i: number): PreferenceRow =>
    within(`/defaults/${i}`, () => {
      const {
        scope,
        channel,
        enabled = null,
        settings,
      } = checkOpinion({ ...input, scope: input.scope ?? '' }, 'tenant', now())
      const kept = Object.entries(settings ?? {}).filter(([, setting]) => setting != null)
      return { scope, channel, enabled, settings: Object.fromEntries(kept) as JsonObject }
    })
}

const limitOf = (body: Static<typeof LimitBody>, i: number) =>
  within(`/limits/${i}`, () => ({ ...limitDefinition(body), id: newId() }))

const silenceOf = (
  { matchers, author, startsAt, endsAt }: Static<typeof SilenceBody>,
  i: number,
  since: Date,
): TimedSilence =>
  within(`/silences/${i}`, () => {
    const silence: TimedSilence = {
      id: newId(),
      author,
      matchers,
      startsAt: startsAt === undefined ? since : new Date(startsAt),
      endsAt: new Date(endsAt),
    }
    if (silence.endsAt <= silence.startsAt) {
      throw new AppError('invalid_request', 'It would end before it starts', { field: '/endsAt' })
    }
    standingMemory([silence], [])
    return silence
  })

const inhibitionOf = (body: Static<typeof InhibitionBody>, i: number) =>
  within(`/inhibitions/${i}`, () => {
    standingMemory([], [body])
    return body
  })

/** The fields of its errors are those of the whole request. */
function within<T>(field: string, make: () => T): T {
  try {
    return make()
  } catch (error) {
    if (!(error instanceof AppError) || !error.errors) throw error
    throw new AppError(error.code, error.message, {
      errors: error.errors.map(one => ({ field: `${field}${one.field}`, message: one.message })),
    })
  }
}

/** A line of progress a second, then the result, or the error. */
async function* lines(
  run: (onProgress: (events: number) => void) => Promise<ReplayResult>,
): AsyncGenerator<string> {
  let events = 0
  let done = false
  let wake: () => void = () => {}
  const running = run(n => {
    events = n
  }).finally(() => {
    done = true
    wake()
  })
  // Its failure is told below; until then nobody waits for it.
  running.catch(() => {})
  while (!done) {
    let timer: NodeJS.Timeout | undefined
    await new Promise<void>(resolve => {
      wake = resolve
      timer = setTimeout(resolve, PROGRESS_EVERY_MS)
    })
    clearTimeout(timer)
    if (!done) yield `${JSON.stringify({ progress: { events } })}\n`
  }
  try {
    yield `${JSON.stringify({ result: shown(await running) })}\n`
  } catch (error) {
    const { code, message } =
      error instanceof AppError ? error : new AppError('internal', 'The replay failed.')
    yield `${JSON.stringify({ error: { code, message } })}\n`
  }
}

const shown = (result: ReplayResult) => ({
  ...result,
  notReconstructed: [...result.notReconstructed],
  examples: result.examples.map(({ before, after, ...one }) => ({
    ...one,
    ...(before && { before: { ...before, at: before.at.toISOString() } }),
    ...(after && { after: { ...after, at: after.at.toISOString() } }),
  })),
})
