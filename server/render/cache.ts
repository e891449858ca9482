import { LRUCache } from 'lru-cache'
import type { Id, TenantId } from '../types.ts'
import { type CompiledRevision, type TemplateRevision, compileRevision } from './content.ts'

/**
 * Compiled revisions. A revision never changes, so an entry is never stale; it only makes room. Closures take about
 * ten times the memory of their source, so the bound is on source text, and on what partials make of it.
 */
export interface RevisionCache {
  get(tenantId: TenantId, templateId: Id, revision: number): CompiledRevision | undefined
  /** The compiled form of a revision, kept from its first use. */
  compile(tenantId: TenantId, revision: TemplateRevision): CompiledRevision
}

/** More than any one revision comes to. */
const DEFAULT_MAX_CHARS = 16 * 1024 * 1024
/** What a `{{…}}` of a partial counts, each time that the partial is taken in: the closures of one take some 250 bytes. */
const CHARS_PER_TAG = 24

export function revisionCache(maxChars = DEFAULT_MAX_CHARS): RevisionCache {
  const compiled = new LRUCache<string, CompiledRevision>({ max: 10_000, maxSize: maxChars })
  const keyOf = (tenantId: TenantId, templateId: Id, revision: number) =>
    `${tenantId} ${templateId} ${revision}`
  return {
    get: (tenantId, templateId, revision) => compiled.get(keyOf(tenantId, templateId, revision)),
    compile(tenantId, revision) {
      const key = keyOf(tenantId, revision.templateId, revision.revision)
      const known = compiled.get(key)
      if (known) return known
      const { channels, translations, partials, layouts, messages } = revision
      let size = JSON.stringify([channels, translations, partials, layouts, messages]).length
      const found = compileRevision(revision, tags => {
        size += tags * CHARS_PER_TAG
        // Whoever still uses one that has made room must not bring it back.
        if (compiled.peek(key) !== found) return
        // Setting what is there already would leave its size.
        compiled.delete(key)
        compiled.set(key, found, { size })
      })
      compiled.set(key, found, { size })
      return found
    },
  }
}
