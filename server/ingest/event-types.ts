import type { ChangeWatch } from '../db/changes.ts'
import { mirror } from '../db/mirror.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { PRIORITIES } from '../types.ts'
import type { Priority } from '../types.ts'
import type { EventTypes } from './acceptor.ts'
import { schemaCheck, violation } from './event-schema.ts'
import type { SchemaCheck } from './event-schema.ts'

/** Registered event types of all tenants in memory, as of the last look at `changes`. */
export interface EventTypeBook extends EventTypes {
  refresh(q: Queryable): Promise<void>
}

interface Row {
  tenant_id: number
  type: string
  category: string
  priority: string | null
  schema: string | null
  enabled: boolean
}

const COLUMNS = 'tenant_id, type, category, priority, schema::text, enabled'
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

interface Known {
  enabled: boolean
  category: string
  priority: Priority | undefined
  /** JSON text: compiled for the first event of the type, so that a start does not wait for types nobody uses. */
  schema: string | null
  check: SchemaCheck | undefined
}

export function eventTypeBook(watch: ChangeWatch): EventTypeBook {
  let types = new Map<string, Known>()

  const refresh = mirror(watch, 'event_type', {
    async whole(q) {
      const fresh = new Map<string, Known>()
      for (let after: [number, string] = [0, '']; ; ) {
        const rows = await q.rows<Row>(loadAll, [...after, PAGE])
        for (const row of rows) fresh.set(`${row.tenant_id} ${row.type}`, read(row))
        if (rows.length < PAGE) break
        after = [rows.at(-1)!.tenant_id, rows.at(-1)!.type]
      }
      types = fresh
    },
    async rows(q, changed) {
      const rows = await q.rows<Row>(loadChanged, [
        changed.map(({ tenantId }) => tenantId),
        changed.map(({ key }) => key),
      ])
      for (const { tenantId, key } of changed) types.delete(`${tenantId} ${key}`)
      for (const row of rows) types.set(`${row.tenant_id} ${row.type}`, read(row))
    },
  })

  return {
    refresh,
    refuse(event) {
      if (types.size === 0) return null
      const known = types.get(`${event.tenantId} ${event.type}`)
      if (!known) return null
      if (!known.enabled) {
        return { reason: 'event_type_disabled', field: '/type', message: 'This event type is switched off' }
      }
      event.category ??= known.category || undefined
      event.priority ??= known.priority
      if (known.schema === null) return null
      known.check ??= checkOrRefuse(known.schema)
      const found = violation(known.check, event.data)
      return found && { reason: 'schema_violation', ...found }
    },
  }
}

const read = (row: Row): Known => ({
  enabled: row.enabled,
  category: row.category,
  priority: PRIORITIES.find(priority => priority === row.priority),
  schema: row.schema,
  check: undefined,
})

/** A stored schema that an older version accepted and this one cannot compile refuses everything, visibly. */
function checkOrRefuse(schema: string): SchemaCheck {
  try {
    return schemaCheck(schema)
  } catch {
    return schemaCheck('{"not": {}}')
  }
}
