import { type Actor, audit } from '../admin/audit.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { JsonObject, Priority, TenantId } from '../types.ts'

/** What a person configures about events of one type. */
export interface EventTypeDefinition {
  description: string
  /** Of its events, where they state none. Empty: none. */
  category: string
  /** Of its events, where neither they nor a rule state one. */
  priority: Priority | null
  /** JSON Schema 2020-12 of `data`; null: anything. */
  schema: JsonObject | null
  /** Events of a disabled type are refused. */
  enabled: boolean
}

export interface EventType extends EventTypeDefinition {
  type: string
  createdAt: Date
  updatedAt: Date
}

export interface EventTypeFilter {
  category?: string
  enabled?: boolean
  /** What the type begins with. */
  prefix?: string
}

/** Every type of every tenant is held in memory by each process (event-types.ts). */
export const MAX_EVENT_TYPES = 10_000

const columns = `type, description, category, priority, schema, enabled,
         created_at as "createdAt", updated_at as "updatedAt"`
const find = sql('find_event_type', `select ${columns} from event_types where tenant_id = $1 and type = $2`)
const lock = sql(
  'lock_event_type',
  `select ${columns} from event_types where tenant_id = $1 and type = $2 for update`,
)
const list = sql(
  'list_event_types',
  `select ${columns} from event_types
   where tenant_id = $1 and type > $2
     and ($3::text is null or category = $3)
     and ($4::boolean is null or enabled = $4)
     and ($5::text is null or starts_with(type, $5))
   order by type limit $6`,
)
const insert = sql(
  'insert_event_type',
  `insert into event_types (tenant_id, type, description, category, priority, schema, enabled)
   values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning ${columns}`,
)
const update = sql(
  'update_event_type',
  `update event_types set description = $3, category = $4, priority = $5, schema = $6, enabled = $7, updated_at = now()
   where tenant_id = $1 and type = $2 returning ${columns}`,
)
const countUpTo = sql(
  'count_event_types',
  'select count(*) as n from (select from event_types where tenant_id = $1 limit $2) t',
)

export const findEventType = (
  q: Queryable,
  tenantId: TenantId,
  type: string,
): Promise<EventType | undefined> => q.one<EventType>(find, [tenantId, type])

/** By type, after the type `after`; '' begins. */
export function listEventTypes(
  q: Queryable,
  tenantId: TenantId,
  {
    category = null,
    enabled = null,
    prefix = null,
  }: { [K in keyof EventTypeFilter]: EventTypeFilter[K] | null },
  after: string,
  limit: number,
): Promise<EventType[]> {
  return q.rows<EventType>(list, [tenantId, after, category, enabled, prefix, limit])
}

/**
 * Registers a type, or replaces what is known of it. What is so already is not written again.
 *
 * @throws AppError conflict beyond MAX_EVENT_TYPES
 */
export async function putEventType(
  tx: Tx,
  actor: Actor,
  type: string,
  definition: EventTypeDefinition,
  traceId?: string,
): Promise<{ created: boolean; eventType: EventType }> {
  const values = [
    actor.tenantId,
    type,
    definition.description,
    definition.category,
    definition.priority,
    definition.schema && JSON.stringify(definition.schema),
    definition.enabled,
  ]
  let before = await tx.one<EventType>(lock, [actor.tenantId, type])
  if (!before) {
    const { n } = (await tx.one<{ n: number }>(countUpTo, [actor.tenantId, MAX_EVENT_TYPES]))!
    if (n >= MAX_EVENT_TYPES)
      throw new AppError('conflict', `There are ${MAX_EVENT_TYPES} event types already.`)
    const created = await tx.one<EventType>(insert, values)
    if (created) {
      await audit(tx, actor, entry('event_type.created', type, undefined, definition, traceId))
      return { created: true, eventType: created }
    }
    // Another request made it since; types are never deleted, so now it is there.
    before = (await tx.one<EventType>(lock, [actor.tenantId, type]))!
  }
  const { after } = difference(before, definition)
  if (Object.keys(after).length === 0) return { created: false, eventType: before }
  const eventType = (await tx.one<EventType>(update, values))!
  await audit(tx, actor, entry('event_type.updated', type, before, definition, traceId))
  return { created: false, eventType }
}

/**
 * Switches a type off: its events are refused from now on, and kept as dead letters.
 *
 * @throws AppError not_found
 */
export async function disableEventType(tx: Tx, actor: Actor, type: string, traceId?: string): Promise<void> {
  const before = await tx.one<EventType>(lock, [actor.tenantId, type])
  if (!before) throw new AppError('not_found', 'There is no event type of this name.')
  await putEventType(tx, actor, type, { ...before, enabled: false }, traceId)
}

/** The schema itself may be 64 KB and its history is the producer's: the audit says that it changed. */
function entry(
  action: string,
  type: string,
  before: EventTypeDefinition | undefined,
  definition: EventTypeDefinition,
  traceId: string | undefined,
) {
  const details = difference(before, definition)
  return { action, objectKind: 'event_type', objectId: type, details, traceId }
}

const FIELDS = ['description', 'category', 'priority', 'schema', 'enabled'] as const

function difference(before: EventTypeDefinition | undefined, after: EventTypeDefinition) {
  const was: Record<string, unknown> = {}
  const is: Record<string, unknown> = {}
  for (const field of FIELDS) {
    if (before && sameJson(before[field], after[field])) continue
    if (before) was[field] = before[field]
    is[field] = after[field]
  }
  return { ...(before && { before: was }), after: is }
}

/** jsonb keeps neither the order of names nor how a number was written. */
function sameJson(a: unknown, b: unknown): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b
  const names = Object.keys(a)
  return (
    Array.isArray(a) === Array.isArray(b) &&
    names.length === Object.keys(b).length &&
    names.every(
      name =>
        Object.hasOwn(b, name) &&
        sameJson((a as Record<string, unknown>)[name], (b as Record<string, unknown>)[name]),
    )
  )
}
