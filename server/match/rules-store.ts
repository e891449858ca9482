import { isDeepStrictEqual } from 'node:util'
import { type Actor, audit } from '../admin/audit.ts'
import { isId, newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Channel, Id, Priority, TenantId } from '../types.ts'
import type { ScheduleSettings } from '../time/schedule.ts'
import { checkKeys } from './key-fields.ts'
import type { RuleDefinition, RuleRow } from './rules.ts'
import { unpromisedVariables } from './template-vars.ts'

/** A rule as it is stored, for the people who write rules. Matching compiles it (rules.ts). */
export interface StoredRule extends RuleDefinition {
  id: Id
  /** Short name in decision traces. */
  no: number
  revision: number
  createdBy: string | null
  createdAt: Date
  updatedAt: Date
}

export interface RuleFilter {
  enabled?: boolean
  /** An entry of the rule's own list. */
  eventType?: string
  domain?: string
  priority?: Priority
  category?: string
  /** In the name or the description, whatever the case. */
  text?: string
}

/** Every rule of every tenant is held in memory by each process (rule-book.ts). */
export const MAX_RULES = 100_000

interface Row extends RuleRow {
  created_by: string | null
  created_at: Date
  updated_at: Date
}

const columns = `id, no, revision, tenant_id, name, description, event_pattern, domains, event_types, priority, channels,
         fallback_channels, recipient_selector, template_id, template_vars, schedule, timezone, batch_window_seconds,
         batch_size, category, settings, enabled, valid_from, valid_until, created_by, created_at, updated_at`

const ruleOf = (row: Row): StoredRule => ({
  id: row.id,
  no: row.no,
  revision: row.revision,
  name: row.name,
  description: row.description,
  eventPattern: row.event_pattern,
  domains: row.domains,
  eventTypes: row.event_types,
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
  category: row.category || undefined,
  policy: row.settings,
  enabled: row.enabled,
  validFrom: row.valid_from,
  validUntil: row.valid_until ?? undefined,
  createdBy: row.created_by,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

// ------------------------------------------------------------------ reading

const findById = sql(
  'find_rule',
  `select ${columns} from rules where tenant_id = $1 and id = $2 and deleted_at is null`,
)

export async function findRule(q: Queryable, tenantId: TenantId, id: Id): Promise<StoredRule | undefined> {
  const row = await q.one<Row>(findById, [tenantId, id])
  return row && ruleOf(row)
}

const list = sql(
  'list_rules',
  `select ${columns} from rules
   where tenant_id = $1 and deleted_at is null
     and ($2::uuid is null or id < $2)
     and ($3::boolean is null or enabled = $3)
     and ($4::text is null or event_types @> array[$4])
     and ($5::text is null or domains @> array[$5])
     and ($6::text is null or priority = $6)
     and ($7::text is null or category = $7)
     and ($8::text is null or strpos(lower(name), lower($8)) > 0 or strpos(lower(description), lower($8)) > 0)
   order by id desc limit $9`,
)

/** Newest first, after the rule `after`. */
export async function listRules(
  q: Queryable,
  tenantId: TenantId,
  filter: RuleFilter,
  after: Id | null,
  limit: number,
): Promise<StoredRule[]> {
  const { enabled = null, eventType = null, domain = null, priority = null, category = null } = filter
  const values = [tenantId, after, enabled, eventType, domain, priority, category, filter.text ?? null, limit]
  return (await q.rows<Row>(list, values)).map(ruleOf)
}

// ------------------------------------------------------------------ what a rule refers to

/** A rule may be saved although this is so: what it names can still come. */
export interface RuleWarning {
  /** JSON pointer into the rule. */
  field: string
  message: string
}

const MAX_WARNINGS = 20

// The lock lets a deletion of the template wait for this transaction, and this one for a deletion that came first;
// either then sees what the other did.
const lockTemplate = sql(
  'lock_template_of_rule',
  `select id, enabled from templates
   where tenant_id = $1 and (id = $2::uuid or name = $3) and deleted_at is null
   order by (id = $2::uuid) is true desc limit 1 for key share`,
)
const findUnknown = sql(
  'find_unknown_recipients',
  `select g.kind, g.name
   from unnest($2::text[], $3::text[]) with ordinality as g (kind, name, place)
   where case g.kind
     when 'user' then not exists (
       select from users u where u.tenant_id = $1 and u.user_id = g.name and u.enabled and u.erased_at is null)
     else not exists (
       select from audiences a where a.tenant_id = $1 and a.kind = g.kind and a.name = g.name)
   end
   order by g.place limit ${MAX_WARNINGS + 1}`,
)

const SELECTED = { users: 'user', roles: 'role', groups: 'group', topics: 'topic' } as const

/**
 * The definition with its template by id, and what is worth knowing about what it names.
 *
 * @throws AppError invalid_rule for a template that does not exist, and a key that no event of its types has
 */
export async function resolveReferences(
  q: Queryable,
  tenantId: TenantId,
  definition: RuleDefinition,
): Promise<{ definition: RuleDefinition; warnings: RuleWarning[] }> {
  const warnings: RuleWarning[] = []
  let { templateId } = definition
  if (templateId !== undefined) {
    const template = await q.one<{ id: Id; enabled: boolean }>(lockTemplate, [
      tenantId,
      isId(templateId) ? templateId : null,
      templateId,
    ])
    if (!template) {
      throw new AppError('invalid_rule', 'There is no template with this id or name', {
        field: '/templateId',
      })
    }
    templateId = template.id
    if (!template.enabled) warnings.push({ field: '/templateId', message: 'The template is disabled' })
    const unpromised = await unpromisedVariables(q, tenantId, templateId, definition)
    for (const name of unpromised.slice(0, MAX_WARNINGS)) {
      const where = 'neither templateVars nor the schemas of all its event types promise it'
      warnings.push({ field: '/templateVars', message: `The template needs "${name}": ${where}` })
    }
  }
  const ofDigest = definition.policy.digest?.template
  if (ofDigest !== undefined) {
    const template = await q.one<{ id: Id; enabled: boolean }>(lockTemplate, [
      tenantId,
      isId(ofDigest) ? ofDigest : null,
      ofDigest,
    ])
    const field = '/policy/digest/template'
    if (!template) throw new AppError('invalid_rule', 'There is no template with this id or name', { field })
    if (!template.enabled) warnings.push({ field, message: 'The template is disabled' })
  }

  await checkKeys(q, tenantId, definition)

  const kinds: string[] = []
  const names: string[] = []
  for (const [part, kind] of Object.entries(SELECTED)) {
    for (const name of definition.recipients[part as keyof typeof SELECTED] ?? []) {
      kinds.push(kind)
      names.push(name)
    }
  }
  const unknown =
    names.length === 0
      ? []
      : await q.rows<{ kind: string; name: string }>(findUnknown, [tenantId, kinds, names])
  for (const { kind, name } of unknown.slice(0, MAX_WARNINGS)) {
    const none = kind === 'user' ? 'no such user, or a disabled one' : `no such ${kind} yet`
    warnings.push({ field: `/recipientSelector/${kind}s`, message: `${name}: ${none}` })
  }
  if (unknown.length > MAX_WARNINGS)
    warnings.push({ field: '/recipientSelector', message: 'More names are unknown' })
  return { definition: { ...definition, templateId }, warnings }
}

// ------------------------------------------------------------------ writing

export interface SavedRule {
  rule: StoredRule
  warnings: RuleWarning[]
}

const insert = sql(
  'insert_rule',
  `insert into rules (tenant_id, id, name, description, event_pattern, domains, event_types, priority, channels,
     fallback_channels, recipient_selector, template_id, template_vars, schedule, timezone, batch_window_seconds,
     batch_size, category, settings, enabled, valid_from, valid_until, created_by, created_at, updated_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $24)
   returning ${columns}`,
)
const lock = sql(
  'lock_rule',
  `select ${columns} from rules where tenant_id = $1 and id = $2 and deleted_at is null for update`,
)
const update = sql(
  'update_rule',
  `update rules set name = $3, description = $4, event_pattern = $5, domains = $6, event_types = $7, priority = $8,
     channels = $9, fallback_channels = $10, recipient_selector = $11, template_id = $12, template_vars = $13,
     schedule = $14, timezone = $15, batch_window_seconds = $16, batch_size = $17, category = $18, settings = $19,
     enabled = $20, valid_from = $21, valid_until = $22, revision = revision + 1, updated_at = now()
   where tenant_id = $1 and id = $2
   returning ${columns}`,
)
const updateEnabled = sql(
  'enable_rule',
  `update rules set enabled = $3, revision = revision + 1, updated_at = now()
   where tenant_id = $1 and id = $2 returning ${columns}`,
)
const deleteRow = sql(
  'delete_rule',
  `update rules set enabled = false, deleted_at = now(), revision = revision + 1, updated_at = now()
   where tenant_id = $1 and id = $2`,
)
const countUpTo = sql(
  'count_rules',
  `select count(*) as n from (select from rules where tenant_id = $1 and deleted_at is null limit $2) t`,
)

const values = (tenantId: TenantId, id: Id, d: RuleDefinition): unknown[] => [
  tenantId,
  id,
  d.name,
  d.description,
  d.eventPattern,
  d.domains,
  d.eventTypes,
  d.priority,
  d.channels,
  d.fallbackChannels,
  JSON.stringify(d.recipients),
  d.templateId ?? null,
  JSON.stringify(d.templateVars),
  d.schedule ? JSON.stringify(d.schedule) : null,
  d.timezone,
  d.batchWindowSeconds ?? null,
  d.batchSize ?? null,
  d.category ?? '',
  JSON.stringify(d.policy),
  d.enabled,
  d.validFrom,
  d.validUntil ?? null,
]

/**
 * @param now when it was made; also the definition's default for `validFrom`
 * @throws AppError already_exists for a name in use; invalid_rule for an unknown template; conflict beyond MAX_RULES
 */
export async function createRule(
  tx: Tx,
  actor: Actor,
  asked: RuleDefinition,
  now: Date,
  traceId?: string,
): Promise<SavedRule> {
  const { tenantId } = actor
  const { n } = (await tx.one<{ n: number }>(countUpTo, [tenantId, MAX_RULES]))!
  if (n >= MAX_RULES) throw new AppError('conflict', `There are ${MAX_RULES} rules already.`)
  const { definition, warnings } = await resolveReferences(tx, tenantId, asked)
  const row = await named(definition.name, () =>
    tx.one<Row>(insert, [...values(tenantId, newId(), definition), actor.id ?? null, now]),
  )
  const rule = ruleOf(row!)
  await audit(tx, actor, {
    action: 'rule.created',
    objectKind: 'rule',
    objectId: rule.id,
    details: { revision: 1, after: plain(definition) },
    traceId,
  })
  return { rule, warnings }
}

/**
 * Replaces a rule by what `define` makes of it. A rule that stays as it is keeps its revision.
 *
 * @param expected the revision the change was made from: AppError conflict when it is no longer the current one
 * @throws AppError not_found; already_exists for a name in use; invalid_rule for an unknown template; as `define`
 */
export async function updateRule(
  tx: Tx,
  actor: Actor,
  id: Id,
  define: (before: StoredRule) => RuleDefinition,
  expected?: number,
  traceId?: string,
): Promise<SavedRule> {
  const before = await locked(tx, actor.tenantId, id)
  if (expected !== undefined && expected !== before.revision) {
    throw new AppError('conflict', `The rule is at revision ${before.revision} by now.`, {
      field: '/revision',
    })
  }
  const { definition, warnings } = await resolveReferences(tx, actor.tenantId, define(before))
  const changes = difference(plain(before), plain(definition))
  if (changes === undefined) return { rule: before, warnings }
  const row = await named(definition.name, () => tx.one<Row>(update, values(actor.tenantId, id, definition)))
  const rule = ruleOf(row!)
  await audit(tx, actor, {
    action: 'rule.updated',
    objectKind: 'rule',
    objectId: id,
    details: { revision: rule.revision, ...changes },
    traceId,
  })
  return { rule, warnings }
}

/**
 * Apart from `updateRule`, so that a rule can always be stopped, even one that a newer version would refuse.
 *
 * @throws AppError not_found
 */
export async function enableRule(
  tx: Tx,
  actor: Actor,
  id: Id,
  enabled: boolean,
  traceId?: string,
): Promise<StoredRule> {
  const before = await locked(tx, actor.tenantId, id)
  if (before.enabled === enabled) return before
  const rule = ruleOf((await tx.one<Row>(updateEnabled, [actor.tenantId, id, enabled]))!)
  await audit(tx, actor, {
    action: enabled ? 'rule.enabled' : 'rule.disabled',
    objectKind: 'rule',
    objectId: id,
    details: { revision: rule.revision, before: { enabled: before.enabled }, after: { enabled } },
    traceId,
  })
  return rule
}

/**
 * Takes it out of use and frees its name. The row stays: notifications of the past refer to it.
 *
 * @throws AppError not_found
 */
export async function deleteRule(tx: Tx, actor: Actor, id: Id, traceId?: string): Promise<void> {
  const before = await locked(tx, actor.tenantId, id)
  await tx.run(deleteRow, [actor.tenantId, id])
  await audit(tx, actor, {
    action: 'rule.deleted',
    objectKind: 'rule',
    objectId: id,
    details: { revision: before.revision + 1, before: plain(before) },
    traceId,
  })
}

async function locked(tx: Tx, tenantId: TenantId, id: Id): Promise<StoredRule> {
  const row = await tx.one<Row>(lock, [tenantId, id])
  if (!row) throw new AppError('not_found', 'There is no rule with this id.')
  return ruleOf(row)
}

async function named<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if ((error as { constraint?: string }).constraint !== 'rules_name') throw error
    throw new AppError('already_exists', `There is a rule called "${name}" already.`, { field: '/name' })
  }
}

/** The configuration alone, as JSON: what the audit shows and what counts as a change. */
function plain(rule: RuleDefinition): Record<string, unknown> {
  const definition = {
    name: rule.name,
    description: rule.description,
    eventPattern: rule.eventPattern,
    domains: rule.domains,
    eventTypes: rule.eventTypes,
    priority: rule.priority,
    channels: rule.channels,
    fallbackChannels: rule.fallbackChannels,
    recipientSelector: rule.recipients,
    templateId: rule.templateId,
    templateVars: rule.templateVars,
    schedule: rule.schedule,
    timezone: rule.timezone,
    batchWindowSeconds: rule.batchWindowSeconds,
    batchSize: rule.batchSize,
    category: rule.category,
    policy: rule.policy,
    enabled: rule.enabled,
    validFrom: rule.validFrom,
    validUntil: rule.validUntil,
  }
  return JSON.parse(JSON.stringify(definition)) as Record<string, unknown>
}

/** The fields that differ, on both sides; undefined when none does. */
function difference(before: Record<string, unknown>, after: Record<string, unknown>) {
  const was: Record<string, unknown> = {}
  const is: Record<string, unknown> = {}
  for (const field of new Set([...Object.keys(before), ...Object.keys(after)])) {
    if (isDeepStrictEqual(before[field], after[field])) continue
    was[field] = before[field] ?? null
    is[field] = after[field] ?? null
  }
  return Object.keys(is).length === 0 ? undefined : { before: was, after: is }
}
