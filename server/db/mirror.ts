import type { ChangeKind, ChangeWatch } from './changes.ts'
import type { Queryable } from './pool.ts'
import type { TenantId } from '../types.ts'

export interface Changed {
  tenantId: TenantId
  key: string
}

/**
 * Keeps a table in memory as of the last look at `changes`: whole after a reset, afterwards row by row.
 *
 * @returns to be called right after a look; nothing to do costs nothing. What one of the two loads throws is thrown,
 * and the next call loads the same again.
 */
export function mirror(
  watch: ChangeWatch,
  kind: ChangeKind,
  {
    whole,
    rows,
  }: {
    /** Replaces everything. */
    whole(q: Queryable): Promise<void>
    /** Replaces these, of which some may be gone. */
    rows(q: Queryable, changed: readonly Changed[]): Promise<void>
  },
): (q: Queryable) => Promise<void> {
  let all = true
  const dirty = new Map<string, Changed>()
  let refreshing: Promise<void> | undefined

  watch.on(kind, (tenantId, key) => void dirty.set(`${tenantId} ${key}`, { tenantId, key }))
  watch.onReset(() => {
    all = true
  })

  async function load(q: Queryable): Promise<void> {
    const everything = all
    const changed = new Map(dirty)
    all = false
    dirty.clear()
    try {
      await (everything ? whole(q) : rows(q, [...changed.values()]))
    } catch (error) {
      all ||= everything
      for (const [name, one] of changed) dirty.set(name, one)
      throw error
    }
  }

  return async q => {
    while (all || dirty.size > 0 || refreshing) {
      // A lane that finds another one loading waits for it: what it looked for may be in that load.
      if (refreshing) {
        await refreshing.catch(() => {})
        continue
      }
      refreshing = load(q)
      try {
        await refreshing
      } finally {
        refreshing = undefined
      }
    }
  }
}
