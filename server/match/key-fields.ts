import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Json, TenantId } from '../types.ts'
import { pathIn } from './cel.ts'
import type { RulePolicy } from './policy.ts'
import type { RuleDefinition } from './rules.ts'

/** The keys of a policy, by their field. */
export function keysOf(policy: RulePolicy): { field: string; source: string }[] {
  const lists: [string, readonly string[] | undefined][] = [
    ['digest/key', policy.digest?.key],
    ['group/by', policy.group?.by],
    ['cooldown/key', policy.cooldown?.key],
    ['state/key', policy.state?.key],
  ]
  return lists.flatMap(([name, sources = []]) =>
    sources.map((source, at) => ({ field: `/policy/${name}/${at}`, source })),
  )
}

const findSchemas = sql(
  'schemas_of_rule',
  `select schema from event_types where tenant_id = $1 and type = any ($2::text[]) and schema is not null`,
)

/**
 * Refuses a key that can never have a value: each event type of the rule is registered, and its schema has no room for
 * what the key names. It would put everything into one digest, silently.
 *
 * @throws AppError invalid_rule
 */
export async function checkKeys(q: Queryable, tenantId: TenantId, definition: RuleDefinition): Promise<void> {
  const { eventTypes, policy } = definition
  const keys = keysOf(policy)
  if (keys.length === 0 || eventTypes.length === 0 || eventTypes.some(type => type.endsWith('*'))) return
  const rows = await q.rows<{ schema: Json }>(findSchemas, [tenantId, eventTypes])
  // A type without a schema may bring anything.
  if (rows.length < new Set(eventTypes).size) return
  for (const { field, source } of keys) {
    const path = pathIn(source)
    if (path?.[0] !== 'data') continue
    if (rows.every(({ schema }) => !hasRoom(schema, path.slice(1)))) {
      throw new AppError('invalid_rule', `No event of these types has ${source}`, { field })
    }
  }
}

/** Whether data of this JSON Schema may have a value at the path; true wherever that cannot be told. */
export function hasRoom(schema: Json | undefined, path: readonly string[]): boolean {
  if (path.length === 0 || typeof schema !== 'object' || schema === null || Array.isArray(schema))
    return schema !== false
  const { type, properties, patternProperties, additionalProperties } = schema
  if (typeof type === 'string' && type !== 'object') return false
  const own =
    typeof properties === 'object' && properties !== null && !Array.isArray(properties) ? properties : {}
  const [name, ...rest] = path
  if (Object.hasOwn(own, name!)) return hasRoom(own[name!], rest)
  return additionalProperties !== false || patternProperties !== undefined
}
