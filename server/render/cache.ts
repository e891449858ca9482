import { LRUCache } from 'lru-cache'
import type { Id, TenantId } from '../types.ts'
import { type CompiledRevision, type TemplateRevision, compileRevision } from './content.ts'

/**
 * Compiled revisions. A revision never changes, so an entry is never stale; it only makes room. Closures take about
 * ten times the memory of their source, so the bound is on source text.
 */
export interface RevisionCache {
  get(tenantId: TenantId, templateId: Id, revision: number): CompiledRevision | undefined
  /** The compiled form of a revision, kept from its first use. */
  compile(tenantId: TenantId, revision: TemplateRevision): CompiledRevision
}

const DEFAULT_MAX_CHARS = 4 * 1024 * 1024

export function revisionCache(maxChars = DEFAULT_MAX_CHARS): RevisionCache {
  const compiled = new LRUCache<string, CompiledRevision>({ max: 10_000, maxSize: maxChars })
  const keyOf = (tenantId: TenantId, templateId: Id, revision: number) =>
    `${tenantId} ${templateId} ${revision}`
  return {
    get: (tenantId, templateId, revision) => compiled.get(keyOf(tenantId, templateId, revision)),
    compile(tenantId, revision) {
      const key = keyOf(tenantId, revision.templateId, revision.revision)
      let found = compiled.get(key)
      if (!found) {
        found = compileRevision(revision)
        const size = JSON.stringify([
          revision.channels,
          revision.translations,
          revision.partials,
          revision.layouts,
        ]).length
        compiled.set(key, found, { size })
      }
      return found
    },
  }
}
