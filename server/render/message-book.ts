import { LRUCache } from 'lru-cache'
import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { TenantId } from '../types.ts'
import { type Messages, type SharedMessages, sharedMessages } from './messages.ts'

/** The messages that tenants' templates share, in memory, as of the last look. */
export interface MessageBook {
  /** One statement where a tenant is asked for that is not at hand, else none. Undefined: it has none. */
  load(
    q: Queryable,
    tenantIds: Iterable<TenantId>,
  ): Promise<(tenantId: TenantId) => SharedMessages | undefined>
}

const load = sql(
  'load_messages_of_tenants',
  `select tenant_id, locale, messages from message_catalogues where tenant_id = any ($1::int[])`,
)

const MAX_TENANTS = 10_000
/** Characters of source; what is compiled takes several times as much, and only what is said is compiled. */
const MAX_CHARS = 32 * 1024 * 1024

interface Known {
  shared: SharedMessages | undefined
}

export function messageBook(watch: ChangeWatch): MessageBook {
  const tenants = new LRUCache<TenantId, Known>({ max: MAX_TENANTS, maxSize: MAX_CHARS })
  // A load that began before a change was heard of may bring what was there before it.
  let changes = 0
  watch.on('message', tenantId => {
    changes++
    tenants.delete(tenantId)
  })
  watch.onReset(() => {
    changes++
    tenants.clear()
  })

  return {
    async load(q, tenantIds) {
      const found = new Map<TenantId, SharedMessages | undefined>()
      const missing: TenantId[] = []
      for (const id of new Set(tenantIds)) {
        const known = tenants.get(id)
        if (known) found.set(id, known.shared)
        else missing.push(id)
      }
      if (missing.length > 0) {
        const heard = changes
        const sources = new Map<TenantId, Messages>(missing.map(id => [id, {}]))
        const rows = await q.rows<{
          tenant_id: TenantId
          locale: string
          messages: Record<string, string>
        }>(load, [missing])
        for (const { tenant_id, locale, messages } of rows) sources.get(tenant_id)![locale] = messages
        for (const [id, of] of sources) {
          const shared = Object.keys(of).length === 0 ? undefined : sharedMessages(of)
          found.set(id, shared)
          const size = shared ? JSON.stringify(of).length : 1
          if (heard === changes) tenants.set(id, { shared }, { size })
        }
      }
      return tenantId => found.get(tenantId)
    },
  }
}
