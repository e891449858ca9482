import { AppError } from '../errors.ts'
import { checkSchedule, type ScheduleSettings } from '../time/schedule.ts'
import { checkZone } from '../time/zone.ts'
import {
  CHANNELS,
  PRIORITIES,
  type Channel,
  type Id,
  type JsonObject,
  type Priority,
  type TenantId,
} from '../types.ts'
import { compile, type CelEvent, type CelFailure, type Evaluation, type Kind, type Program } from './cel.ts'
import { ALWAYS, type Conditions } from './conditions.ts'
import { type PolicyKeys, type RulePolicy, policyKeys, rulePolicy } from './policy.ts'

/** Who a rule tells. The parts add up; each person counts once. */
export interface RecipientSelector {
  users?: string[]
  roles?: string[]
  groups?: string[]
  topics?: string[]
  /** CEL giving a user id or a list of them, evaluated for each event. */
  expression?: string
  /** Fixed addresses that belong to no user (recipient type `system`). */
  targets?: Partial<Record<Channel, string[]>>
}

/** What a person configures. */
export interface RuleDefinition {
  name: string
  description: string
  /** CEL giving true or false. Empty: every event that the two lists below let through. */
  eventPattern: string
  /** First segments of event types. Empty: all. */
  domains: string[]
  /** `commerce.order.shipped`, `commerce.*` (anything below, not `commerce` itself) or `*`. Empty: all. */
  eventTypes: string[]
  priority: Priority
  channels: Channel[]
  /** Tried in this order once every channel above has failed. */
  fallbackChannels: Channel[]
  recipients: RecipientSelector
  /** Id of a template; a definition from a request may still hold its name. */
  templateId?: string
  templateVars: JsonObject
  schedule?: ScheduleSettings
  /** IANA zone of the schedule. */
  timezone: string
  batchWindowSeconds?: number
  batchSize?: number
  category?: string
  policy: RulePolicy
  enabled: boolean
  validFrom: Date
  /** The first instant at which it no longer holds. */
  validUntil?: Date
}

/** A stored rule, ready to match. */
export interface Rule extends RuleDefinition {
  id: Id
  /** Short name in decision traces. */
  no: number
  revision: number
  tenantId: TenantId
  pattern: Pattern
  /** Undefined where the selector has no expression. */
  recipientExpression: RecipientExpression | undefined
  keys: PolicyKeys
}

export interface Pattern {
  conditions: Conditions
  evaluate(event: CelEvent, now: Date): Evaluation<boolean>
}

export interface RecipientExpression {
  evaluate(event: CelEvent, now: Date): Evaluation<string[]>
}

/** Columns of table `rules` that matching and planning read. */
export interface RuleRow {
  id: string
  no: number
  revision: number
  tenant_id: number
  name: string
  description: string
  event_pattern: string
  domains: string[]
  event_types: string[]
  priority: string
  channels: string[]
  fallback_channels: string[]
  recipient_selector: JsonObject
  template_id: string | null
  template_vars: JsonObject
  schedule: JsonObject | null
  timezone: string
  batch_window_seconds: number | null
  batch_size: number | null
  category: string
  settings: JsonObject
  enabled: boolean
  valid_from: Date
  valid_until: Date | null
}

/**
 * A stored row, compiled. Never throws for an expression: one that compiled under an earlier version and no longer
 * does fails at each evaluation, visibly, and the other rules go on.
 */
export function ruleFromRow(row: RuleRow): Rule {
  return compileRule(
    {
      name: row.name,
      description: row.description,
      eventPattern: row.event_pattern,
      domains: row.domains,
      eventTypes: row.event_types,
      // The table's constraints and ruleDefinition() let only these in.
      priority: row.priority as Priority,
      channels: row.channels as Channel[],
      fallbackChannels: row.fallback_channels as Channel[],
      recipients: row.recipient_selector,
      templateId: row.template_id ?? undefined,
      templateVars: row.template_vars,
      schedule: (row.schedule ?? undefined) as ScheduleSettings | undefined,
      timezone: row.timezone,
      batchWindowSeconds: row.batch_window_seconds ?? undefined,
      batchSize: row.batch_size ?? undefined,
      category: row.category === '' ? undefined : row.category,
      policy: row.settings,
      enabled: row.enabled,
      validFrom: row.valid_from,
      validUntil: row.valid_until ?? undefined,
    },
    { id: row.id, no: row.no, revision: row.revision, tenantId: row.tenant_id },
  )
}

/** A definition with an identity becomes a rule. */
export function compileRule(
  definition: RuleDefinition,
  identity: Pick<Rule, 'id' | 'no' | 'revision' | 'tenantId'>,
): Rule {
  const { expression } = definition.recipients
  return {
    ...definition,
    ...identity,
    pattern: patternOf(definition.eventPattern),
    recipientExpression: expression === undefined ? undefined : recipientsOf(expression),
    policy: policyOf(definition),
    keys: policyKeys(definition.policy),
  }
}

/** `batch_window` is the older way of asking for a digest; CRITICAL rules are never held back by either. */
function policyOf({
  policy,
  batchWindowSeconds: windowSeconds,
  batchSize: maxItems,
}: RuleDefinition): RulePolicy {
  if (windowSeconds === undefined || policy.digest || policy.group) return policy
  return { ...policy, digest: { windowSeconds, ...(maxItems === undefined ? {} : { maxItems }) } }
}

function patternOf(source: string): Pattern {
  if (source.trim() === '') return { conditions: ALWAYS, evaluate: () => ({ ok: true, value: true }) }
  const { program, broken } = tryCompile(source, 'pattern')
  if (program === undefined) return { conditions: UNKNOWN, evaluate: () => broken }
  const { conditions } = program
  if (!conditions.complete) return program
  // Decided without evaluating, so the 3 kB of the program need not stay: 100,000 such rules would hold 300 MB.
  return { conditions, evaluate: (event, now) => compile(source, 'pattern').evaluate(event, now) }
}

function recipientsOf(source: string): RecipientExpression {
  const { program, broken } = tryCompile(source, 'recipients')
  return program ?? { evaluate: () => broken }
}

const UNKNOWN: Conditions = { ...ALWAYS, complete: false }

type Compiled<K extends Kind> =
  | { program: Program<K>; broken?: undefined }
  | { program?: undefined; broken: CelFailure }

function tryCompile<K extends Kind>(source: string, kind: K): Compiled<K> {
  try {
    return { program: compile(source, kind) }
  } catch (cause) {
    if (!(cause instanceof AppError)) throw cause
    return { broken: { ok: false, code: cause.code, error: cause.message } }
  }
}

// ------------------------------------------------------------------ what a request may ask for

const MAX_LIST = 1_000
const MAX_TYPES = 100
const MAX_TEXT = 255
const MAX_WINDOW_SECONDS = 31 * 86_400

/**
 * Reads the definition out of a request body whose shape the route has checked, with its defaults. Takes our own
 * names and those of the rule format it stems from (`{"type": "role", "Roles": [...]}`, `batch_window: "5m"`).
 *
 * Throws AppError: `invalid_expression` with a position, `invalid_schedule`, else `invalid_rule`; each names its
 * field.
 */
export function ruleDefinition(body: Readonly<Record<string, unknown>>, now: Date): RuleDefinition {
  const eventPattern = text(body['eventPattern'] ?? '', 'eventPattern', 4_096)
  if (eventPattern.trim() !== '') compile(eventPattern, 'pattern', 'eventPattern')
  const validFrom = instant(body['validFrom'], 'validFrom') ?? now
  const validUntil = instant(body['validUntil'], 'validUntil')
  if (validUntil && validUntil <= validFrom) {
    throw invalid('validUntil', 'validUntil must be later than validFrom')
  }
  const timezone = text(body['timezone'] ?? 'UTC', 'timezone', 64)
  checkZone(timezone, 'timezone')
  const name = text(body['name'], 'name', MAX_TEXT).trim()
  if (name === '') throw invalid('name', 'A rule needs a name')
  const channels = oneOf(CHANNELS, body['channels'], 'channels')
  if (channels.length === 0) throw invalid('channels', 'A rule needs at least one channel')
  const template = body['templateId'] ?? body['template']

  return {
    name,
    description: text(body['description'] ?? '', 'description', 10_000),
    eventPattern,
    domains: texts(body['domains'] ?? [], 'domains', MAX_TYPES),
    eventTypes: eventTypes(body['eventTypes'] ?? []),
    priority: priority(body['priority'] ?? 'NORMAL'),
    channels,
    fallbackChannels: oneOf(CHANNELS, body['fallbackChannels'] ?? [], 'fallbackChannels').filter(
      channel => !channels.includes(channel),
    ),
    recipients: recipientSelector(body['recipients'], 'recipients'),
    templateId: template == null ? undefined : text(template, 'templateId', MAX_TEXT),
    templateVars: object(body['templateVars'] ?? {}, 'templateVars') as JsonObject,
    schedule: body['schedule'] == null ? undefined : checkSchedule(body['schedule'], timezone),
    timezone,
    batchWindowSeconds: seconds(body['batchWindowSeconds'] ?? body['batchWindow'], 'batchWindowSeconds'),
    batchSize: body['batchSize'] == null ? undefined : whole(body['batchSize'], 'batchSize', 10_000),
    category:
      body['category'] == null ? undefined : text(body['category'], 'category', MAX_TEXT) || undefined,
    policy: rulePolicy(body['policy'] ?? {}, 'policy'),
    enabled: body['enabled'] !== false,
    validFrom,
    validUntil,
  }
}

// Ours first; then the documented spelling and its JSON form.
const SELECTOR_NAMES = {
  users: ['users', 'UserIDs', 'userIds', 'user_ids'],
  roles: ['roles', 'Roles'],
  groups: ['groups', 'Groups'],
  topics: ['topics', 'Topics'],
} as const
const SELECTOR_TYPES: Record<string, keyof RecipientSelector> = {
  user: 'users',
  role: 'roles',
  group: 'groups',
  topic: 'topics',
  system: 'targets',
  dynamic: 'expression',
}
const SELECTOR_FIELDS: ReadonlySet<string> = new Set([
  ...Object.values(SELECTOR_NAMES).flat(),
  'type',
  'Type',
  'expression',
  'Expression',
  'targets',
])

/** Throws AppError `invalid_rule`, or `invalid_expression` for the expression. `field` is the selector's own name. */
export function recipientSelector(input: unknown, field: string): RecipientSelector {
  const given = object(input, field)
  for (const name of Object.keys(given)) {
    if (!SELECTOR_FIELDS.has(name)) throw invalid(`${field}.${name}`, `A selector has no ${name}`)
  }
  const selector: RecipientSelector = {}
  for (const part of ['users', 'roles', 'groups', 'topics'] as const) {
    const name = SELECTOR_NAMES[part].find(known => given[known] != null)
    if (name === undefined) continue
    const ids = texts(given[name], `${field}.${name}`, MAX_LIST)
    if (ids.length > 0) selector[part] = ids
  }
  const expression = given['expression'] ?? given['Expression'] ?? ''
  if (expression !== '') {
    const source = text(expression, `${field}.expression`, 4_096)
    compile(source, 'recipients', `${field}.expression`)
    selector.expression = source
  }
  if (given['targets'] != null) {
    const targets: Partial<Record<Channel, string[]>> = {}
    for (const [name, addresses] of Object.entries(object(given['targets'], `${field}.targets`))) {
      const [channel] = oneOf(CHANNELS, [name], `${field}.targets`) as [Channel]
      if (channel === 'in_app') throw invalid(`${field}.targets`, 'in_app needs a user, not an address')
      targets[channel] = texts(addresses, `${field}.targets.${name}`, MAX_LIST, 2_048)
    }
    if (Object.values(targets).some(addresses => addresses.length > 0)) selector.targets = targets
  }
  const type = given['type'] ?? given['Type']
  if (type != null) {
    const part = typeof type === 'string' ? SELECTOR_TYPES[type.toLowerCase()] : undefined
    if (part === undefined) {
      throw invalid(`${field}.type`, `A selector's type is one of ${Object.keys(SELECTOR_TYPES).join(', ')}`)
    }
    if (selector[part] === undefined)
      throw invalid(`${field}.type`, `A selector of this type names its ${part}`)
  }
  if (Object.keys(selector).length === 0) throw invalid(field, 'The selector names nobody')
  return selector
}

const invalid = (field: string, message: string) => new AppError('invalid_rule', message, { field })

function object(value: unknown, field: string): Record<string, unknown> {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw invalid(field, `${field} must be an object`)
  }
  return value as Record<string, unknown>
}

function text(value: unknown, field: string, max: number): string {
  if (typeof value !== 'string') throw invalid(field, `${field} must be text`)
  if (value.length > max) throw invalid(field, `${field} is longer than ${max} characters`)
  return value
}

function texts(value: unknown, field: string, max: number, maxLength = MAX_TEXT): string[] {
  if (!Array.isArray(value)) throw invalid(field, `${field} must be a list`)
  if (value.length > max) throw invalid(field, `${field} has more than ${max} entries`)
  for (const item of value) {
    if (text(item, field, maxLength) === '') throw invalid(field, `${field} has an empty entry`)
  }
  return [...new Set(value as string[])]
}

function oneOf<T extends string>(known: readonly T[], value: unknown, field: string): T[] {
  const given = texts(value, field, known.length)
  for (const item of given) {
    if (!(known as readonly string[]).includes(item)) {
      throw invalid(field, `${field} takes ${known.join(', ')}`)
    }
  }
  return given as T[]
}

function priority(value: unknown): Priority {
  const name = typeof value === 'string' ? value.toUpperCase() : ''
  const [found] = oneOf(PRIORITIES, [name === 'MEDIUM' ? 'NORMAL' : name], 'priority')
  return found as Priority
}

function eventTypes(value: unknown): string[] {
  const given = texts(value, 'eventTypes', MAX_TYPES)
  for (const type of given) {
    const star = type.indexOf('*')
    if (star === -1 || type === '*') continue
    if (star !== type.length - 1 || !type.endsWith('.*') || type === '.*') {
      throw invalid('eventTypes', 'A wildcard stands at the end, after a dot: commerce.*')
    }
  }
  return given
}

function whole(value: unknown, field: string, max: number): number {
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > max) {
    throw invalid(field, `${field} is a whole number from 1 to ${max}`)
  }
  return value
}

const UNIT_SECONDS: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 }

function seconds(value: unknown, field: string): number | undefined {
  if (value == null) return undefined
  const written = typeof value === 'string' ? /^(\d{1,7})([smhd])$/.exec(value) : null
  const number = written ? Number(written[1]) * (UNIT_SECONDS[written[2] ?? ''] ?? 0) : value
  return whole(number, field, MAX_WINDOW_SECONDS)
}

function instant(value: unknown, field: string): Date | undefined {
  if (value == null) return undefined
  const time = value instanceof Date ? value : new Date(text(value, field, 64))
  if (Number.isNaN(time.getTime())) throw invalid(field, `${field} must be an ISO 8601 time`)
  return time
}
