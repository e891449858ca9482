import { Ajv2020 } from 'ajv/dist/2020.js'
import type { ValidateFunction } from 'ajv/dist/2020.js'
import addFormats from 'ajv-formats'
import { RE2JS } from 're2js'
import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { PRIORITIES } from '../types.ts'
import type { JsonObject, Priority, TenantId } from '../types.ts'
import type { EventTypes } from './acceptor.ts'

/** Registered event types of all tenants in memory, as of the last look at `changes`. */
export interface EventTypeBook extends EventTypes {
  refresh(q: Queryable): Promise<void>
}

interface Row {
  tenant_id: number
  type: string
  category: string
  priority: string | null
  schema: JsonObject | null
  enabled: boolean
}

const COLUMNS = 'tenant_id, type, category, priority, schema, enabled'
const loadAll = sql(
  'load_event_types',
  `select ${COLUMNS} from event_types where (tenant_id, type) > ($1, $2) order by tenant_id, type limit $3`,
)
const loadChanged = sql(
  'load_changed_event_types',
  `select ${COLUMNS} from event_types
   where (tenant_id, type) in (select * from unnest($1::int[], $2::text[]))`,
)

const PAGE = 1000
/** Of a stored schema, as JSON text. */
export const MAX_SCHEMA_BYTES = 64 * 1024
const MAX_DEPTH = 32

interface Known {
  enabled: boolean
  category: string
  priority: Priority | undefined
  validate: ValidateFunction | null
}

export function eventTypeBook(watch: ChangeWatch): EventTypeBook {
  let types = new Map<string, Known>()
  let all = true
  const dirty = new Map<string, { tenantId: TenantId; type: string }>()
  let refreshing: Promise<void> | undefined

  watch.on('event_type', (tenantId, type) => void dirty.set(`${tenantId} ${type}`, { tenantId, type }))
  watch.onReset(() => {
    all = true
  })

  async function reload(q: Queryable): Promise<void> {
    if (all) {
      all = false
      dirty.clear()
      try {
        const fresh = new Map<string, Known>()
        for (let after: [number, string] = [0, '']; ; ) {
          const rows = await q.rows<Row>(loadAll, [...after, PAGE])
          for (const row of rows) fresh.set(`${row.tenant_id} ${row.type}`, read(row))
          if (rows.length < PAGE) break
          after = [rows.at(-1)!.tenant_id, rows.at(-1)!.type]
        }
        types = fresh
      } catch (error) {
        all = true
        throw error
      }
      return
    }
    const changed = new Map(dirty)
    dirty.clear()
    try {
      const wanted = [...changed.values()]
      const rows = await q.rows<Row>(loadChanged, [wanted.map(one => one.tenantId), wanted.map(one => one.type)])
      for (const name of changed.keys()) types.delete(name)
      for (const row of rows) types.set(`${row.tenant_id} ${row.type}`, read(row))
    } catch (error) {
      for (const [name, one] of changed) dirty.set(name, one)
      throw error
    }
  }

  return {
    async refresh(q) {
      while (all || dirty.size > 0 || refreshing) {
        if (refreshing) {
          await refreshing.catch(() => {})
          continue
        }
        refreshing = reload(q)
        try {
          await refreshing
        } finally {
          refreshing = undefined
        }
      }
    },
    refuse(event) {
      if (types.size === 0) return null
      const known = types.get(`${event.tenantId} ${event.type}`)
      if (!known) return null
      if (!known.enabled) {
        return { reason: 'event_type_disabled', field: '/type', message: 'This event type is switched off' }
      }
      event.category ??= known.category || undefined
      event.priority ??= known.priority
      return known.validate && violation(known.validate, event.data)
    },
  }
}

const read = (row: Row): Known => ({
  enabled: row.enabled,
  category: row.category,
  priority: PRIORITIES.find(priority => priority === row.priority),
  validate: row.schema && compiledOrRefusing(row.schema),
})

/** A stored schema that an older version accepted and this one cannot compile refuses everything, visibly. */
function compiledOrRefusing(schema: JsonObject): ValidateFunction {
  try {
    return compileSchema(schema)
  } catch {
    return compileSchema({ not: {} })
  }
}

/** The first thing in which `data` differs from the schema: where, and what was expected; never the value. */
export function violation(
  validate: ValidateFunction,
  data: JsonObject,
): { reason: 'schema_violation'; field: string; message: string } | null {
  if (validate(data)) return null
  const first = validate.errors?.[0]
  const missing = (first?.params as { missingProperty?: string } | undefined)?.missingProperty
  return {
    reason: 'schema_violation',
    field: `/data${first?.instancePath ?? ''}${missing === undefined ? '' : `/${missing}`}`.slice(0, 300),
    message: (first?.message ?? 'does not fit the schema').slice(0, 300),
  }
}

/**
 * Compiles a JSON Schema (2020-12) of an event type.
 *
 * Patterns run on RE2: a tenant's `^(a+)+$` must not stop the process. References stay inside the schema.
 *
 * @throws AppError invalid_schema
 */
export function compileSchema(schema: JsonObject): ValidateFunction {
  const refuse = (detail: string) => new AppError('invalid_schema', detail.slice(0, 300), { field: '/schema' })
  if (JSON.stringify(schema).length > MAX_SCHEMA_BYTES) throw refuse(`A schema has at most ${MAX_SCHEMA_BYTES} bytes`)
  if (depthOf(schema) > MAX_DEPTH) throw refuse(`A schema is at most ${MAX_DEPTH} levels deep`)
  const ajv = new Ajv2020({ strict: true, strictTypes: false, strictRequired: false, code: { regExp: re2 } })
  addFormats.default(ajv)
  try {
    return ajv.compile(schema)
  } catch (cause) {
    throw refuse((cause as Error).message)
  }
}

const re2 = Object.assign(
  (pattern: string) => {
    const compiled = RE2JS.compile(pattern)
    return { test: (text: string) => compiled.matcher(text).find() }
  },
  { code: 're2' },
)

function depthOf(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  let deepest = 0
  for (const inner of Object.values(value)) deepest = Math.max(deepest, depthOf(inner))
  return deepest + 1
}
