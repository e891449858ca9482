import type { ChangeWatch } from '../db/changes.ts'
import { mirror } from '../db/mirror.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { TenantId } from '../types.ts'
import { ruleIndex } from './rule-index.ts'
import type { RuleIndex } from './rule-index.ts'
import { ruleFromRow } from './rules.ts'
import type { RuleRow } from './rules.ts'

/** The rules of all tenants in memory, as of the last look at `changes`. */
export interface RuleBook {
  /** Reloads what changed; nothing to do costs nothing. To be called right after a look. */
  refresh(q: Queryable): Promise<void>
  /** Undefined for a tenant without rules. */
  index(tenantId: TenantId): RuleIndex | undefined
}

const COLUMNS = `id, no, revision, tenant_id, name, description, event_pattern, domains, event_types, priority, channels,
  fallback_channels, recipient_selector, template_id, template_vars, schedule, timezone, batch_window_seconds,
  batch_size, category, settings, enabled, valid_from, valid_until`

const loadRules = sql(
  'load_rules',
  `select ${COLUMNS} from rules where deleted_at is null and enabled and no > $1 order by no limit $2`,
)
const loadChanged = sql(
  'load_changed_rules',
  `select ${COLUMNS} from rules where id = any ($1::uuid[]) and deleted_at is null and enabled`,
)

const PAGE = 5000

export function ruleBook(watch: ChangeWatch): RuleBook {
  let indexes = new Map<TenantId, RuleIndex>()

  const refresh = mirror(watch, 'rule', {
    async whole(q) {
      const fresh = new Map<TenantId, RuleIndex>()
      for (let after = 0; ; ) {
        const rows = await q.rows<RuleRow>(loadRules, [after, PAGE])
        for (const row of rows) put(fresh, row)
        if (rows.length < PAGE) break
        after = rows.at(-1)!.no
      }
      indexes = fresh
    },
    async rows(q, changed) {
      const rows = await q.rows<RuleRow>(loadChanged, [changed.map(({ key }) => key)])
      for (const { tenantId, key } of changed) indexes.get(tenantId)?.remove(key)
      for (const row of rows) put(indexes, row)
    },
  })

  return { refresh, index: tenantId => indexes.get(tenantId) }
}

function put(indexes: Map<TenantId, RuleIndex>, row: RuleRow): void {
  let index = indexes.get(row.tenant_id)
  if (!index) indexes.set(row.tenant_id, (index = ruleIndex()))
  index.put(ruleFromRow(row))
}
