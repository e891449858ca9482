import { type Static, type TSchema, Type } from 'typebox'
import { newId } from '../db/ids.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import { CHANNEL_SPELLINGS, PRIORITY_SPELLINGS, readChannel, readPriority } from '../spelling.ts'
import {
  CHANNELS,
  type Channel,
  type Event,
  type JsonObject,
  PRIORITIES,
  RECIPIENT_TYPES,
  type RecipientType,
  type TenantId,
} from '../types.ts'
import { checkKept } from './policy.ts'
import { type Rule, type RuleDefinition, compileRule, ruleDefinition } from './rules.ts'
import {
  type StoredRule,
  createRule,
  deleteRule,
  enableRule,
  findRule,
  listRules,
  resolveReferences,
  updateRule,
} from './rules-store.ts'
import { ScheduleField } from './schedule-routes.ts'

/** What a draft of a rule would do with an event. */
export interface DryRun {
  matched: boolean
  /** A reason code: why it did not match, or why nobody is told. */
  why?: string
  /** Of an expression that failed; quotes the rule, never the event. */
  error?: string
  recipients: {
    type: RecipientType
    id: string
    decisions: {
      channel: Channel
      decision: 'send' | 'hold' | 'digest' | 'skip'
      reason?: string
      /** The reason in words. */
      text?: string
      detail?: string
      until?: string
      content?: { subject?: string; body: string; html?: string }
    }[]
  }[]
}

export interface RulesDeps {
  db: Db
  /** Takes the rule and the event through every stage, and writes nothing. */
  dryRun(request: { tenantId: TenantId; rule: Rule; event: Event; now: Date }): Promise<DryRun>
  now?: () => Date
  /** How long messages are kept; nothing may wait for longer. Default: for ever. */
  keptSeconds?: number
  /** Gives the tenant its own copy of templates of these names that exist as defaults only. */
  adoptTemplates?(tenantId: TenantId, names: readonly (string | null | undefined)[]): Promise<void>
}

const closed = { additionalProperties: false }
const orNull = <S extends TSchema>(schema: S, description: string) =>
  Type.Union([schema, Type.Null()], { description })

/** Of the variables that a rule adds to every message; they are held in memory with it. */
const MAX_VARS_LENGTH = 64 * 1024
/** Of a whole rule as JSON: enough for a thousand long user ids. */
const MAX_RULE_LENGTH = 300_000

const Id = Type.String({ format: 'uuid' })
const Time = Type.String({ format: 'date-time' })
const Name = Type.String({ minLength: 1, maxLength: 255 })
const Names = Type.Optional(Type.Array(Name, { maxItems: 1_000 }))
const Texts = Type.Array(Name, { maxItems: 100 })
const ChannelNames = Type.Array(Type.Enum([...CHANNEL_SPELLINGS]), {
  maxItems: 10,
  description: `${CHANNELS.join(', ')}; also in capitals, and BROWSER_PUSH for web_push.`,
})
const PriorityName = Type.Enum([...PRIORITY_SPELLINGS], { description: 'MEDIUM is NORMAL.' })
const SelectorType = Type.Optional(
  Type.String({
    maxLength: 20,
    description: 'user, role, group, topic, system or dynamic; may be left out.',
  }),
)
const Expression = Type.Optional(
  Type.String({ maxLength: 4_096, description: 'CEL that gives a user id or a list of them.' }),
)
const Selector = Type.Object(
  {
    users: Names,
    roles: Names,
    groups: Names,
    topics: Names,
    expression: Expression,
    targets: Type.Optional(
      Type.Record(
        Type.String({ pattern: '^[A-Za-z_-]{2,20}$' }),
        Type.Array(Type.String({ minLength: 1, maxLength: 2_048 }), { maxItems: 1_000 }),
        { ...closed, maxProperties: 10, description: 'By channel: addresses that belong to no user.' },
      ),
    ),
    type: SelectorType,
    // The documented spellings of the same.
    UserIDs: Names,
    userIds: Names,
    user_ids: Names,
    Roles: Names,
    Groups: Names,
    Topics: Names,
    Expression,
    Type: SelectorType,
  },
  { ...closed, description: 'Who is told. The parts add up; each person counts once.' },
)
const Vars = Type.Record(Type.String({ minLength: 1, maxLength: 255 }), Type.Any(), { maxProperties: 1_000 })

const OPTIONAL = {
  description: Type.Optional(Type.String({ maxLength: 10_000 })),
  eventPattern: Type.Optional(
    Type.String({
      maxLength: 4_096,
      description: 'CEL that gives true or false. Empty: every event of the types.',
    }),
  ),
  domains: Type.Optional(Texts),
  eventTypes: Type.Optional(Texts),
  priority: Type.Optional(PriorityName),
  fallbackChannels: Type.Optional(ChannelNames),
  schedule: Type.Optional(orNull(ScheduleField, 'When it sends; null: at once.')),
  timezone: Type.Optional(Type.String({ minLength: 1, maxLength: 64, description: 'IANA name.' })),
  batchWindowSeconds: Type.Optional(
    orNull(Type.Integer({ minimum: 1, maximum: 31 * 86_400 }), 'Collects for so long.'),
  ),
  batchWindow: Type.Optional(
    orNull(Type.String({ pattern: '^[0-9]{1,7}[smhd]$' }), 'The same in words: 90s, 5m, 1h, 1d.'),
  ),
  batchSize: Type.Optional(orNull(Type.Integer({ minimum: 1, maximum: 10_000 }), 'Collects so many.')),
  templateId: Type.Optional(orNull(Name, 'Id or unique name; stored as id.')),
  templateVars: Type.Optional(Vars),
  category: Type.Optional(orNull(Type.String({ maxLength: 100 }), 'What people can opt out of.')),
  policy: Type.Optional(
    Type.Record(Type.String({ minLength: 1, maxLength: 40 }), Type.Any(), {
      maxProperties: 20,
      description:
        'How it tells: cooldown, repeat, similar, digest, group, state, escalation, quietHours … (docs/guides/rules.md).',
    }),
  ),
  enabled: Type.Optional(Type.Boolean()),
  validFrom: Type.Optional(Type.String({ ...Time, description: 'Unless stated: when the rule was made.' })),
  validUntil: Type.Optional(orNull(Time, 'The first instant at which it no longer holds.')),
}
/** A rule as it is written. */
export const RuleBody = Type.Object(
  { name: Name, channels: ChannelNames, recipientSelector: Selector, ...OPTIONAL },
  closed,
)
const expected = {
  revision: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 2 ** 31 - 1,
      description: 'The revision this change was made from: 409 when there is a newer one.',
    }),
  ),
}
const Replacement = Type.Object({ ...RuleBody.properties, ...expected }, closed)
const Change = Type.Object(
  {
    name: Type.Optional(Name),
    channels: Type.Optional(ChannelNames),
    recipientSelector: Type.Optional(Selector),
    ...OPTIONAL,
    ...expected,
  },
  { ...closed, minProperties: 1 },
)
/** A rule that is only tried: as it would be saved, its name optional. */
export const Draft = Type.Object(
  { name: Type.Optional(Name), channels: ChannelNames, recipientSelector: Selector, ...OPTIONAL },
  closed,
)
const TriedEvent = Type.Object(
  {
    type: Name,
    source: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    subject: Type.Optional(Type.String({ minLength: 1, maxLength: 500 })),
    time: Type.Optional(Time),
    data: Type.Optional(Vars),
    priority: Type.Optional(PriorityName),
    category: Type.Optional(Type.String({ minLength: 1, maxLength: 100 })),
  },
  closed,
)

const shown = <S extends TSchema>(schema: S) => Type.Union([schema, Type.Null()])
const RULE = {
  id: Id,
  no: Type.Integer({ description: 'Its short name in explanations.' }),
  revision: Type.Integer(),
  name: Type.String(),
  description: Type.String(),
  eventPattern: Type.String(),
  domains: Type.Array(Type.String()),
  eventTypes: Type.Array(Type.String()),
  priority: Type.Enum([...PRIORITIES]),
  channels: Type.Array(Type.Enum([...CHANNELS])),
  fallbackChannels: Type.Array(Type.Enum([...CHANNELS])),
  recipientSelector: Type.Record(Type.String(), Type.Any()),
  schedule: shown(Type.Record(Type.String(), Type.Any())),
  timezone: Type.String(),
  batchWindowSeconds: shown(Type.Integer()),
  batchSize: shown(Type.Integer()),
  templateId: shown(Id),
  templateVars: Type.Record(Type.String(), Type.Any()),
  category: shown(Type.String()),
  policy: Type.Record(Type.String(), Type.Any()),
  enabled: Type.Boolean(),
  validFrom: Time,
  validUntil: shown(Time),
  createdBy: shown(Type.String()),
  createdAt: Time,
  updatedAt: Time,
}
const Shown = Type.Object(RULE)
const Warnings = Type.Array(Type.Object({ field: Type.String(), message: Type.String() }), {
  description: 'What it names and does not exist yet. The rule is saved all the same.',
})
const Saved = Type.Object({ ...RULE, warnings: Warnings })
const Outcome = Type.Object({
  matched: Type.Boolean(),
  why: Type.Optional(Type.String()),
  error: Type.Optional(Type.String()),
  recipients: Type.Array(
    Type.Object({
      type: Type.Enum([...RECIPIENT_TYPES]),
      id: Type.String(),
      decisions: Type.Array(
        Type.Object({
          channel: Type.Enum([...CHANNELS]),
          decision: Type.Enum(['send', 'hold', 'digest', 'skip']),
          reason: Type.Optional(Type.String()),
          text: Type.Optional(Type.String()),
          detail: Type.Optional(Type.String()),
          until: Type.Optional(Type.String()),
          content: Type.Optional(
            Type.Object({
              subject: Type.Optional(Type.String()),
              body: Type.String(),
              html: Type.Optional(Type.String()),
            }),
          ),
        }),
      ),
    }),
  ),
  warnings: Warnings,
})

const read = { role: 'service', scope: 'rules:read' } as const
const write = { role: 'service', scope: 'rules:write' } as const
const tags = ['Rules']
const byId = Type.Object({ id: Id }, closed)

/** Which events tell whom, how. */
export function rulesRoutes(api: Api, deps: RulesDeps): void {
  const { db, dryRun, now = () => new Date(), keptSeconds = Number.POSITIVE_INFINITY } = deps
  const adopt = async (tenantId: TenantId, body: Pick<Static<typeof Change>, 'templateId' | 'policy'>) => {
    const { digest } = (body.policy ?? {}) as { digest?: { template?: unknown } }
    const ofDigest = typeof digest?.template === 'string' ? digest.template : undefined
    await deps.adoptTemplates?.(tenantId, [body.templateId, ofDigest])
  }
  const defined = (...given: Parameters<typeof define>): RuleDefinition => {
    const definition = define(...given)
    checkKept(definition, keptSeconds)
    return definition
  }

  api.post(
    '/api/rules',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'createRule',
        summary: 'Make a rule',
        body: RuleBody,
        response: { 201: Saved },
      },
    },
    async (request, reply) => {
      const at = now()
      const definition = defined(request.body, at)
      await adopt(request.caller.tenantId, request.body)
      const { rule, warnings } = await db.tx(tx =>
        createRule(tx, request.caller, definition, at, request.traceId),
      )
      reply.code(201).header('location', `/api/rules/${rule.id}`)
      return { ...show(rule), warnings }
    },
  )

  api.get(
    '/api/rules',
    {
      config: { access: read },
      schema: {
        tags,
        operationId: 'listRules',
        summary: 'List rules, newest first',
        querystring: Type.Object(
          {
            ...pageQuery,
            enabled: Type.Optional(Type.Boolean()),
            eventType: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: "An entry of the rule's eventTypes.",
              }),
            ),
            domain: Type.Optional(
              Type.String({ minLength: 1, maxLength: 255, description: "An entry of the rule's domains." }),
            ),
            priority: Type.Optional(PriorityName),
            category: Type.Optional(Type.String({ maxLength: 100 })),
            text: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: 'Within the name or the description.',
              }),
            ),
          },
          closed,
        ),
        response: { 200: pageOf(Shown) },
      },
    },
    async request => {
      const { limit, cursor, priority, ...filter } = request.query
      const [after = null] = cursor === undefined ? [] : (decodeCursor('rules', cursor, ['id']) as string[])
      const rows = await listRules(
        db,
        request.caller.tenantId,
        { ...filter, priority: priority === undefined ? undefined : readPriority(priority) },
        after,
        limit + 1,
      )
      return toPage(rows.map(show), limit, last => encodeCursor('rules', [last.id]))
    },
  )

  api.get(
    '/api/rules/:id',
    {
      config: { access: read },
      schema: { tags, operationId: 'getRule', summary: 'One rule', params: byId, response: { 200: Shown } },
    },
    async request => {
      const rule = await findRule(db, request.caller.tenantId, request.params.id)
      if (!rule) throw new AppError('not_found', 'There is no rule with this id.')
      return show(rule)
    },
  )

  api.put(
    '/api/rules/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'replaceRule',
        summary: 'Replace a rule: what is left out has its default again',
        params: byId,
        body: Replacement,
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, params, traceId } = request
      const { revision, ...body } = request.body
      await adopt(caller.tenantId, body)
      const { rule, warnings } = await db.tx(tx =>
        updateRule(tx, caller, params.id, before => defined(body, before.createdAt), revision, traceId),
      )
      return { ...show(rule), warnings }
    },
  )

  api.patch(
    '/api/rules/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'changeRule',
        summary: 'Change some fields of a rule; null takes the default again',
        params: byId,
        body: Change,
        response: { 200: Saved },
      },
    },
    async request => {
      const { caller, params, traceId } = request
      const { revision, ...body } = request.body
      await adopt(caller.tenantId, body)
      const { rule, warnings } = await db.tx(tx =>
        updateRule(
          tx,
          caller,
          params.id,
          before => defined({ ...asBody(before, body), ...body }, before.createdAt),
          revision,
          traceId,
        ),
      )
      return { ...show(rule), warnings }
    },
  )

  api.delete(
    '/api/rules/:id',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'deleteRule',
        summary: 'Take a rule out of use; what it sent stays explained',
        params: byId,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      await db.tx(tx => deleteRule(tx, request.caller, request.params.id, request.traceId))
      return reply.code(204).send(null)
    },
  )

  for (const [verb, enabled, summary] of [
    ['enable', true, 'Let a rule match again'],
    ['disable', false, 'Stop a rule from matching'],
  ] as const) {
    api.post(
      `/api/rules/:id/${verb}`,
      {
        config: { access: write },
        schema: { tags, operationId: `${verb}Rule`, summary, params: byId, response: { 200: Shown } },
      },
      async request => {
        const { caller, params, traceId } = request
        return show(await db.tx(tx => enableRule(tx, caller, params.id, enabled, traceId)))
      },
    )
  }

  api.post(
    '/api/rules/test',
    {
      // It reads what people have chosen and what their messages would say, so it asks for more than reading.
      config: { access: write },
      schema: {
        tags,
        operationId: 'testRule',
        summary: 'Show what a draft of a rule would do with an event, without doing it',
        body: Type.Object({ rule: Draft, event: TriedEvent }, closed),
        response: { 200: Outcome },
      },
    },
    async request => {
      const { tenantId } = request.caller
      const { rule: draft, event } = request.body
      const at = now()
      const { definition, warnings } = await under('/rule', () =>
        resolveReferences(db, tenantId, defined({ name: 'draft', ...draft }, at)),
      )
      const rule = compileRule(definition, { id: newId(), no: 0, revision: 0, tenantId })
      const outcome = await dryRun({ tenantId, rule, event: eventOf(event, tenantId, at), now: at })
      return { ...outcome, warnings }
    },
  )
}

// ------------------------------------------------------------------ shapes

/** The checked definition of a body; the errors name fields as JSON pointers into it. */
export function define(body: Static<typeof RuleBody>, madeAt: Date): RuleDefinition {
  const { batchWindow, recipientSelector, ...rest } = body
  if (batchWindow != null && body.batchWindowSeconds != null) {
    throw new AppError('invalid_rule', 'Give either batchWindow or batchWindowSeconds', {
      field: '/batchWindow',
    })
  }
  if (JSON.stringify(body.templateVars ?? {}).length > MAX_VARS_LENGTH) {
    throw new AppError('invalid_rule', `templateVars are longer than ${MAX_VARS_LENGTH} characters`, {
      field: '/templateVars',
    })
  }
  if (JSON.stringify(body).length > MAX_RULE_LENGTH) {
    throw new AppError('invalid_rule', `The rule is longer than ${MAX_RULE_LENGTH} characters`, {
      field: '/recipientSelector',
    })
  }
  try {
    return ruleDefinition(
      {
        ...rest,
        channels: channelsOf(body.channels),
        fallbackChannels: channelsOf(body.fallbackChannels ?? []),
        recipients: selectorOf(recipientSelector),
        batchWindow,
      },
      madeAt,
    )
  } catch (error) {
    throw refield(error, field =>
      field.startsWith('/')
        ? field
        : `/${field.replace(/^recipients\b/, 'recipientSelector').replaceAll('.', '/')}`,
    )
  }
}

const channelsOf = (names: string[]): Channel[] => [...new Set(names.map(name => readChannel(name)!))]

function selectorOf({ targets, ...selector }: Static<typeof Selector>): object {
  if (targets === undefined) return selector
  // A map, as a target may be named "constructor".
  const byChannel = new Map<string, string[]>()
  for (const [name, addresses] of Object.entries(targets)) {
    const channel = readChannel(name) ?? name
    byChannel.set(channel, [...(byChannel.get(channel) ?? []), ...addresses])
  }
  return { ...selector, targets: Object.fromEntries(byChannel) }
}

/** A stored rule as a body, for the fields that a change leaves alone. */
function asBody(rule: StoredRule, change: Static<typeof Change>): Static<typeof RuleBody> {
  return {
    name: rule.name,
    description: rule.description,
    eventPattern: rule.eventPattern,
    domains: rule.domains,
    eventTypes: rule.eventTypes,
    priority: rule.priority,
    channels: rule.channels,
    fallbackChannels: rule.fallbackChannels,
    recipientSelector: rule.recipients,
    schedule: rule.schedule,
    timezone: rule.timezone,
    batchWindowSeconds: change.batchWindow === undefined ? rule.batchWindowSeconds : undefined,
    batchSize: rule.batchSize,
    templateId: rule.templateId,
    templateVars: rule.templateVars,
    category: rule.category,
    policy: { ...rule.policy },
    enabled: rule.enabled,
    validFrom: rule.validFrom.toISOString(),
    validUntil: rule.validUntil?.toISOString(),
  }
}

function show(rule: StoredRule): Static<typeof Shown> {
  const { recipients, ...rest } = rule
  return {
    ...rest,
    recipientSelector: recipients,
    schedule: rule.schedule ?? null,
    batchWindowSeconds: rule.batchWindowSeconds ?? null,
    batchSize: rule.batchSize ?? null,
    templateId: rule.templateId ?? null,
    category: rule.category ?? null,
    policy: { ...rule.policy },
    validFrom: rule.validFrom.toISOString(),
    validUntil: rule.validUntil?.toISOString() ?? null,
    createdAt: rule.createdAt.toISOString(),
    updatedAt: rule.updatedAt.toISOString(),
  }
}

const eventOf = (given: Static<typeof TriedEvent>, tenantId: TenantId, now: Date): Event => ({
  tenantId,
  id: newId(now.getTime()),
  source: given.source ?? 'api',
  type: given.type,
  subject: given.subject,
  time: given.time === undefined ? now : new Date(given.time),
  receivedAt: now,
  data: (given.data ?? {}) as JsonObject,
  priority: given.priority === undefined ? undefined : readPriority(given.priority),
  category: given.category,
})

/** Errors of one part of a body, with their fields as they are in the whole. */
async function under<T>(prefix: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw refield(error, field => prefix + field)
  }
}

function refield(error: unknown, rename: (field: string) => string): unknown {
  if (!(error instanceof AppError) || error.errors === undefined) return error
  return new AppError(error.code, error.message, {
    errors: error.errors.map(({ field, message }) => ({ field: rename(field), message })),
    extra: error.extra,
    cause: error.cause,
  })
}
