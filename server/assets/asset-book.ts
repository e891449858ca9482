import { LRUCache } from 'lru-cache'
import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { TenantId } from '../types.ts'
import type { ImageType } from './image.ts'
import type { AssetLinks } from './links.ts'

/** Addresses by name, for templates. */
export type AssetUrls = Readonly<Record<string, string>>

/** The addresses of tenants' assets, in memory, as of the last look. */
export interface AssetBook {
  /** One statement where a tenant is asked for that is not at hand, else none. */
  load(q: Queryable, tenantIds: Iterable<TenantId>, now: Date): Promise<(tenantId: TenantId) => AssetUrls>
}

const load = sql(
  'load_assets',
  `select a.tenant_id, a.name, a.public, a.public_id, f.content_type
   from assets a join asset_files f on f.tenant_id = a.tenant_id and f.public_id = a.public_id
   where a.tenant_id = any ($1::int[])`,
)

const NO_ASSETS: AssetUrls = Object.freeze({})
const MAX_TENANTS = 1_000
const DAY_MS = 86_400_000
/** In messages: long enough for whoever comes back from holidays. */
const PRIVATE_DAYS = 60

interface Row {
  tenant_id: TenantId
  name: string
  public: boolean
  public_id: string
  content_type: ImageType
}

/**
 * Public ones have one address as long as the file stays. That of a private one is signed, and ends with a day, so that
 * everything written on one day says the same.
 */
export function assetBook(watch: ChangeWatch, links: AssetLinks): AssetBook {
  const tenants = new LRUCache<TenantId, { urls: AssetUrls; until: number }>({ max: MAX_TENANTS })
  // A load that began before a change was heard of may bring what was there before it.
  let changes = 0
  watch.on('asset', tenantId => {
    changes++
    tenants.delete(tenantId)
  })
  watch.onReset(() => {
    changes++
    tenants.clear()
  })

  return {
    async load(q, tenantIds, now) {
      const at = now.getTime()
      const found = new Map<TenantId, AssetUrls>()
      const missing: TenantId[] = []
      for (const id of new Set(tenantIds)) {
        const known = tenants.get(id)
        if (known && at < known.until) found.set(id, known.urls)
        else missing.push(id)
      }
      if (missing.length > 0) {
        const heard = changes
        const day = Math.floor(at / DAY_MS)
        const expires = new Date((day + PRIVATE_DAYS) * DAY_MS)
        const made = new Map<TenantId, Record<string, string>>(missing.map(id => [id, {}]))
        let anyPrivate = false
        for (const row of await q.rows<Row>(load, [missing])) {
          const file = {
            tenantId: row.tenant_id,
            publicId: row.public_id,
            name: row.name,
            type: row.content_type,
          }
          anyPrivate ||= !row.public
          made.get(row.tenant_id)![row.name] = row.public ? links.url(file) : links.signedUrl(file, expires)
        }
        const until = anyPrivate ? (day + 1) * DAY_MS : Number.POSITIVE_INFINITY
        for (const [id, urls] of made) {
          found.set(id, urls)
          if (heard === changes) tenants.set(id, { urls, until })
        }
      }
      return tenantId => found.get(tenantId) ?? NO_ASSETS
    },
  }
}
