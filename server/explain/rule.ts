import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { readTrace } from '../decide/trace.ts'
import type { StoredTrace } from '../decide/trace.ts'
import { AppError } from '../errors.ts'
import { celEvent, compile, domainOf, termsOf } from '../match/cel.ts'
import { type Rule, type RuleRow, ruleFromRow } from '../match/rules.ts'
import { PRIORITIES } from '../types.ts'
import type { Event, Id, JsonObject, TenantId } from '../types.ts'

/**
 * Why one rule takes one recorded event, or does not: each condition for itself. The trace names the rules that came
 * near; this answers for any. It is today's rule that is asked, so it says whether it has changed since.
 */
export interface RuleAnswer {
  id: Id
  no: number
  name: string
  revision: number
  /** Of the revision that was asked when the event was planned; null: it was not asked, or is not in the trace. */
  plannedRevision: number | null
  matches: boolean
  checks: RuleCheck[]
  /** The parts of its pattern that must all hold; empty without a pattern, or when the event cannot be opened. */
  terms: RuleTerm[]
}

export interface RuleCheck {
  check: 'enabled' | 'validity' | 'domain' | 'type' | 'pattern'
  /** null: cannot be known any more. */
  holds: boolean | null
  text: string
}

export interface RuleTerm {
  /** As it is written. */
  source: string
  holds: boolean
  /** It could not be evaluated. Quotes the rule, never the event. */
  error?: string
}

/** Opens what is sealed; undefined when its key is gone. */
export type Unseal = (
  tenantId: TenantId,
  sealedFor: string | null,
  sealed: Buffer,
) => Promise<Buffer | undefined>

const findEvent = sql(
  'explain_rule_event',
  `select id, source, type, subject, time, received_at, priority, category, sealed_for, data, trace
   from events where tenant_id = $1 and id = $2`,
)
const findRule = sql(
  'explain_rule',
  `select r.id, r.no, r.revision, r.tenant_id, r.name, r.description, r.event_pattern, r.domains, r.event_types, r.priority,
     r.channels, r.fallback_channels, r.recipient_selector, r.template_id, r.template_vars, r.schedule, r.timezone,
     r.batch_window_seconds, r.batch_size, r.category, r.settings, r.enabled, r.valid_from, r.valid_until, t.name as tenant
   from rules r join tenants t on t.id = r.tenant_id
   where r.tenant_id = $1 and (r.id::text = $2 or r.name = $2) and r.deleted_at is null
   order by r.id::text = $2 desc limit 1`,
)

interface EventRow {
  id: Id
  source: string
  type: string
  subject: string | null
  time: Date
  received_at: Date
  priority: number | null
  category: string | null
  sealed_for: string | null
  data: Buffer
  trace: StoredTrace | null
}

/**
 * @param named id or name of the rule
 * @throws AppError not_found, naming which
 */
export async function explainRule(
  q: Queryable,
  unseal: Unseal,
  tenantId: TenantId,
  eventId: Id,
  named: string,
): Promise<RuleAnswer> {
  const row = await q.one<EventRow>(findEvent, [tenantId, eventId])
  if (!row) throw new AppError('not_found', 'There is no event with this id.')
  const found = await q.one<RuleRow & { tenant: string }>(findRule, [tenantId, named])
  if (!found) throw new AppError('not_found', 'There is no rule with this id or name.', { field: '/rule' })
  const opened = await unseal(tenantId, row.sealed_for, row.data)
  const data = opened && (JSON.parse(opened.toString('utf8')) as { data: JsonObject }).data
  const event: Event = {
    tenantId,
    id: row.id,
    source: row.source,
    type: row.type,
    subject: row.subject ?? undefined,
    time: row.time,
    receivedAt: row.received_at,
    data: data ?? {},
    priority: row.priority === null ? undefined : PRIORITIES[row.priority],
    category: row.category ?? undefined,
  }
  const rule = ruleFromRow(found)
  const asked = row.trace && readTrace(row.trace).find(({ no }) => no === rule.no)
  return {
    id: rule.id,
    no: rule.no,
    name: rule.name,
    revision: rule.revision,
    plannedRevision: asked?.revision ?? null,
    ...judge(rule, event, found.tenant, data !== undefined),
  }
}

/** Pure. */
export function judge(
  rule: Rule,
  event: Event,
  tenant: string | undefined,
  readable: boolean,
): Pick<RuleAnswer, 'matches' | 'checks' | 'terms'> {
  const at = event.receivedAt
  const view = celEvent(event, tenant)
  const domain = domainOf(event.type)
  const typeFits =
    rule.eventTypes.length === 0 ||
    rule.eventTypes.some(
      wanted =>
        wanted === event.type ||
        wanted === '*' ||
        (wanted.endsWith('.*') && event.type.startsWith(wanted.slice(0, -1))),
    )
  const terms: RuleTerm[] = []
  if (readable && rule.eventPattern.trim() !== '') {
    for (const source of termsOf(rule.eventPattern)) {
      const result = compile(source, 'value').evaluate(view, at)
      terms.push(
        result.ok ? { source, holds: result.value === true } : { source, holds: false, error: result.error },
      )
    }
  }
  const whole = readable ? rule.pattern.evaluate(view, at) : null
  const from = rule.validFrom.toISOString()
  const until = rule.validUntil?.toISOString()
  const checks: RuleCheck[] = [
    {
      check: 'enabled',
      holds: rule.enabled,
      text: rule.enabled ? 'It is switched on' : 'It is switched off',
    },
    {
      check: 'validity',
      holds: at >= rule.validFrom && (rule.validUntil === undefined || at < rule.validUntil),
      text: `It holds from ${from}${until === undefined ? '' : ` to ${until}`}; the event came ${at.toISOString()}`,
    },
    {
      check: 'domain',
      holds: rule.domains.length === 0 || rule.domains.includes(domain),
      text:
        rule.domains.length === 0
          ? 'It takes every domain'
          : `It takes ${rule.domains.join(', ')}; the event is of ${domain}`,
    },
    {
      check: 'type',
      holds: typeFits,
      text:
        rule.eventTypes.length === 0
          ? 'It takes every type'
          : `It takes ${rule.eventTypes.join(', ')}; the event is ${event.type}`,
    },
    {
      check: 'pattern',
      holds: whole === null ? null : whole.ok && whole.value,
      text: patternText(rule, whole, terms),
    },
  ]
  return { matches: checks.every(({ holds }) => holds === true), checks, terms }
}

function patternText(
  rule: Rule,
  whole: ReturnType<Rule['pattern']['evaluate']> | null,
  terms: readonly RuleTerm[],
): string {
  if (rule.eventPattern.trim() === '') return 'It has no pattern'
  if (whole === null) return 'The event cannot be opened any more'
  if (!whole.ok) return `The pattern could not be evaluated: ${whole.error}`
  if (whole.value) return 'The pattern is true'
  const failed = terms.filter(({ holds }) => !holds).map(({ source }) => source)
  return `The pattern is false: ${failed.join(' and ')}`
}
