import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { ChangeWatch } from '../db/changes.ts'
import type { Sealer } from '../db/seal.ts'
import type { TenantId } from '../types.ts'

/** What every stage needs to know of a tenant. */
export interface TenantFacts {
  id: TenantId
  name: string
  enabled: boolean
  /** BCP 47: what texts are in where the reader's language is missing. */
  locale?: string
  /** Unwrapped. Seals what names no single user. */
  dataKey: Buffer
}

/** All tenants in memory, as of the last look at `changes`. Tenants are few; people are many. */
export interface TenantBook {
  refresh(q: Queryable): Promise<void>
  get(tenantId: TenantId): TenantFacts | undefined
}

const loadTenants = sql('load_tenants', `select id, name, enabled, locale, data_key from tenants`)

export function tenantBook(watch: ChangeWatch, sealer: Sealer): TenantBook {
  let tenants = new Map<TenantId, TenantFacts>()
  let version = 1
  let loaded = 0

  const stale = () => void version++
  watch.on('tenant', stale)
  watch.onReset(stale)

  return {
    async refresh(q) {
      if (loaded === version) return
      const loading = version
      const rows = await q.rows<{
        id: number
        name: string
        enabled: boolean
        locale: string | null
        data_key: Buffer
      }>(loadTenants)
      tenants = new Map(
        rows.map(row => [
          row.id,
          {
            id: row.id,
            name: row.name,
            enabled: row.enabled,
            ...(row.locale !== null && { locale: row.locale }),
            dataKey: sealer.unwrap(row.data_key),
          },
        ]),
      )
      loaded = Math.max(loaded, loading)
    },
    get: tenantId => tenants.get(tenantId),
  }
}
