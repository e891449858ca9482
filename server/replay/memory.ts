import type { Queryable, Statement } from '../db/pool.ts'
import { claimName } from '../limits/usage.ts'
import type { TakenUsage } from '../limits/usage.ts'
import type { AudienceKind } from '../people/facts.ts'
import type { Level } from '../people/recipients.ts'

/**
 * What deciding reads and takes, in memory: counters, claims and, for stories without a database, audiences. The
 * pipeline asks it the same statements that it asks PostgreSQL, by their names, so there is no second way of deciding.
 * Whatever else is asked goes `through` to a database that is only read.
 */
export interface Memory {
  q: Queryable
  take(usage: TakenUsage): void
}

export interface AudienceOf {
  kind: AudienceKind
  name: string
  members: ReadonlyMap<string, Level>
}

/** Windows that are over are forgotten from time to time, so that a year of events fits. */
const FORGET_EVERY = 100_000

export function memory(options: { through?: Queryable; audiences?: readonly AudienceOf[] } = {}): Memory {
  const counts = new Map<string, Map<number, number>>()
  const claims = new Map<string, { untilMs: number; note: string | null }>()
  let taken = 0

  const answers: Record<string, (values: unknown[]) => unknown[]> = {
    read_counters([tenants, keys, since]) {
      const rows: unknown[] = []
      for (const [i, key] of (keys as string[]).entries()) {
        const tenantId = (tenants as number[])[i]!
        const from = (since as number[])[i]!
        for (const [at, n] of counts.get(claimName(tenantId, key)) ?? []) {
          if (at >= from) rows.push({ i: i + 1, at, n })
        }
      }
      return rows
    },
    read_claims([tenants, keys]) {
      return (keys as string[]).flatMap((key, i) => {
        const tenantId = (tenants as number[])[i]!
        const claim = claims.get(claimName(tenantId, key))
        return claim ? [{ i: i + 1, until: claim.untilMs, note: claim.note }] : []
      })
    },
    already_told: () => [],
    ...(options.audiences && {
      expand_audiences([wishes, , kinds, names, limit]: unknown[]) {
        return (names as string[]).flatMap((name, i) => {
          const kind = (kinds as string[])[i]
          const found = options.audiences!.find(one => one.kind === kind && one.name === name)
          return [...(found?.members ?? [])]
            .slice(0, limit as number)
            .map(([user_id, level]) => ({ wish: (wishes as number[])[i], user_id, level }))
        })
      },
      find_suppressions: () => [],
    }),
  }

  const rows = async <R>(statement: Statement, values: unknown[] = []): Promise<R[]> => {
    if (Object.hasOwn(answers, statement.name)) return answers[statement.name]!(values) as R[]
    if (options.through) return options.through.rows<R>(statement, values)
    throw new Error(`There is no database here to ask for ${statement.name}`)
  }

  return {
    q: {
      rows,
      one: async <R>(statement: Statement, values?: unknown[]) => (await rows<R>(statement, values))[0],
      run: statement => Promise.reject(new Error(`${statement.name} would write`)),
    },
    take(usage) {
      for (const { tenantId, key, windowMs, n } of usage.counts) {
        const name = claimName(tenantId, key)
        const windows = counts.get(name) ?? new Map<number, number>()
        counts.set(name, windows.set(windowMs, (windows.get(windowMs) ?? 0) + n))
        if (windows.size > 40) for (const at of windows.keys()) if (windows.size > 35) windows.delete(at)
      }
      for (const { tenantId, key, untilMs, note = null } of usage.claims) {
        claims.set(claimName(tenantId, key), { untilMs, note })
      }
      taken += usage.claims.length
      if (taken >= FORGET_EVERY) {
        taken = 0
        const latest = Math.max(...usage.claims.map(claim => claim.untilMs), 0)
        // A claim that was over long before this one cannot matter to what comes after it.
        for (const [name, { untilMs }] of claims) if (untilMs < latest - 367 * 86_400_000) claims.delete(name)
      }
    },
  }
}
