import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { Channel, Id, TenantId } from '../types.ts'
import { HOLDOUT, split } from './split.ts'

/** One way of telling it. Each names what it changes; nulls stay as they are. */
export interface Variant {
  name: string
  weight: number
  /** Of the experiment's template. */
  revision: number | null
  /** In place of the rule's. */
  templateId: Id | null
  channels: Channel[] | null
}

/** What planning has to know of an experiment. */
export interface RunningExperiment {
  id: Id
  name: string
  templateId: Id | null
  ruleId: Id | null
  /** The control first. */
  variants: readonly Variant[]
  /** Share of people, 0 to 1. */
  holdout: number
  holdoutGets: 'nothing' | 'control'
  /** In milliseconds since 1970; null: since it was started, and until it is stopped. */
  startsMs: number | null
  endsMs: number | null
}

/** Where one person is in an experiment. */
export interface Part {
  experiment: RunningExperiment
  /** Of the variant, or `holdout`. */
  name: string
  says: Variant
  /** Told nothing, unless it is critical. */
  silent: boolean
}

/** @param person whoever is told, such as `user:alice` */
export function partOf(experiment: RunningExperiment, person: string): Part {
  const { id, variants, holdout, holdoutGets } = experiment
  const name = split(id, person, variants, holdout)
  const control = variants[0]!
  if (name === HOLDOUT) return { experiment, name, says: control, silent: holdoutGets === 'nothing' }
  return { experiment, name, says: variants.find(variant => variant.name === name)!, silent: false }
}

/** The experiments that run, in memory, as of the last look. */
export interface ExperimentBook {
  /** Reloads what changed. To be called right after a look. */
  refresh(q: Queryable): Promise<void>
  /** That of the rule before that of the template: a message is part of one at most. */
  find(tenantId: TenantId, ruleId: Id | null, templateId: Id | null, now: Date): RunningExperiment | null
}

interface Row {
  tenant_id: TenantId
  id: Id
  name: string
  template_id: Id | null
  rule_id: Id | null
  variants: Variant[]
  holdout: number
  holdout_gets: 'nothing' | 'control'
  starts_at: Date | null
  ends_at: Date | null
}

// All of them at each change: they are few, and change rarely.
const load = sql(
  'load_experiments',
  `select tenant_id, id, name, template_id, rule_id, variants, holdout, holdout_gets, starts_at, ends_at
   from experiments where status = 'running'`,
)

export function experimentBook(watch: ChangeWatch): ExperimentBook {
  let running = new Map<TenantId, Map<Id, RunningExperiment>>()
  let version = 1
  let loaded = 0
  const stale = () => void version++
  watch.on('experiment', stale)
  watch.onReset(stale)

  return {
    async refresh(q) {
      if (loaded === version) return
      const loading = version
      const fresh = new Map<TenantId, Map<Id, RunningExperiment>>()
      for (const row of await q.rows<Row>(load)) {
        let ofTenant = fresh.get(row.tenant_id)
        if (!ofTenant) fresh.set(row.tenant_id, (ofTenant = new Map()))
        ofTenant.set((row.rule_id ?? row.template_id)!, {
          id: row.id,
          name: row.name,
          templateId: row.template_id,
          ruleId: row.rule_id,
          variants: row.variants,
          holdout: row.holdout,
          holdoutGets: row.holdout_gets,
          startsMs: row.starts_at?.getTime() ?? null,
          endsMs: row.ends_at?.getTime() ?? null,
        })
      }
      // Several lanes load at once, and a slow one must not undo a later one.
      if (loading > loaded) {
        running = fresh
        loaded = loading
      }
    },
    find(tenantId, ruleId, templateId, now) {
      const ofTenant = running.get(tenantId)
      if (!ofTenant) return null
      const at = now.getTime()
      const inTime = (one: RunningExperiment | undefined): one is RunningExperiment =>
        one !== undefined &&
        (one.startsMs === null || one.startsMs <= at) &&
        (one.endsMs === null || at < one.endsMs)
      const ofRule = ruleId === null ? undefined : ofTenant.get(ruleId)
      if (inTime(ofRule)) return ofRule
      const ofTemplate = templateId === null ? undefined : ofTenant.get(templateId)
      return inTime(ofTemplate) ? ofTemplate : null
    },
  }
}
