import { type Queryable, sql } from '../db/pool.ts'
import type { Id, Json, TenantId } from '../types.ts'
import type { RuleDefinition } from './rules.ts'

const findNeeded = sql(
  'needs_of_template',
  `select v.name
   from templates t
   join template_revisions r on (r.tenant_id, r.template_id, r.revision) = (t.tenant_id, t.id, t.revision),
     jsonb_to_recordset(r.variables) as v (name text, required boolean, "default" jsonb)
   where t.tenant_id = $1 and t.id = $2 and v.required and coalesce(jsonb_typeof(v."default"), 'null') = 'null'
   order by v.name`,
)
const findSchemas = sql(
  'promises_of_event_types',
  `select schema from event_types where tenant_id = $1 and type = any ($2::text[])`,
)

/**
 * What the template of a rule needs and nothing promises: neither the rule's `templateVars` nor the schema of each of
 * its event types. An event without it tells nobody (`render_failed`), which is better known when the rule is made.
 */
export async function unpromisedVariables(
  q: Queryable,
  tenantId: TenantId,
  templateId: Id,
  { eventTypes, templateVars }: Pick<RuleDefinition, 'eventTypes' | 'templateVars'>,
): Promise<string[]> {
  const rows = await q.rows<{ name: string }>(findNeeded, [tenantId, templateId])
  const needed = rows
    .map(({ name }) => name)
    .filter(name => !Object.hasOwn(templateVars, name) || templateVars[name] === null)
  if (needed.length === 0 || eventTypes.length === 0 || eventTypes.some(type => type.endsWith('*'))) {
    return needed
  }
  const types = [...new Set(eventTypes)]
  const registered = await q.rows<{ schema: Json }>(findSchemas, [tenantId, types])
  if (registered.length < types.length) return needed
  return needed.filter(name => !registered.every(({ schema }) => promises(schema, name)))
}

/** Whether data of this JSON Schema always has the member, and never null; false wherever that cannot be told. */
export function promises(schema: Json | undefined, name: string): boolean {
  if (typeof schema !== 'object' || schema === null || Array.isArray(schema)) return false
  const { required, properties, allOf } = schema
  if (Array.isArray(allOf) && allOf.some(part => promises(part, name))) return true
  if (!Array.isArray(required) || !required.includes(name)) return false
  if (typeof properties !== 'object' || properties === null || Array.isArray(properties)) return false
  const own = Object.hasOwn(properties, name) ? properties[name] : undefined
  if (typeof own !== 'object' || own === null || Array.isArray(own)) return false
  const { type, enum: values, const: value } = own
  if (type !== undefined) return type !== 'null' && !(Array.isArray(type) && type.includes('null'))
  return (Array.isArray(values) && !values.includes(null)) || (value !== undefined && value !== null)
}
