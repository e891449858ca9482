import { type Queryable, sql } from '../db/pool.ts'
import type { Id, TenantId } from '../types.ts'
import { HOLDOUT } from './split.ts'
import { CONFIDENCE, compare, fit, holm, wilson } from './statistics.ts'
import type { Experiment, Metric } from './store.ts'
import { METRICS } from './store.ts'

/** People, each once, by how far they came. */
export type Counts = Record<Metric | 'people' | 'sent' | 'failed', number>

const COUNTS = ['people', 'sent', 'delivered', 'seen', 'opened', 'clicked', 'acted', 'failed'] as const

const read = sql(
  'experiment_counts',
  `select experiment_id, variant, ${COUNTS.map(name => `sum(${name})::float8 as ${name}`)}
   from experiment_counts where tenant_id = $1 and experiment_id = any ($2::uuid[]) group by 1, 2`,
)

/** By experiment and variant. A few rows each: transactions append, and housekeeping adds up. */
export async function countsOf(
  q: Queryable,
  tenantId: TenantId,
  ids: readonly Id[],
): Promise<Map<Id, Map<string, Counts>>> {
  const found = new Map<Id, Map<string, Counts>>()
  const rows = await q.rows<Counts & { experiment_id: Id; variant: string }>(read, [tenantId, ids])
  for (const { experiment_id, variant, ...counts } of rows) {
    let of = found.get(experiment_id)
    if (!of) found.set(experiment_id, (of = new Map()))
    of.set(variant, counts)
  }
  return found
}

export interface RateView {
  rate: number | null
  low: number
  high: number
}

export interface VariantResult {
  name: string
  control: boolean
  counts: Counts
  /** Of those it was planned for. */
  rates: Record<Metric | 'sent' | 'failed', RateView>
  /** With the control, by the experiment's metric. */
  comparison?: {
    difference: number
    low: number
    high: number
    p: number | null
    adjustedP: number | null
    significant: boolean
    enough: boolean
  }
}

export interface Results {
  metric: Metric
  confidence: number
  variants: VariantResult[]
  holdout: { counts: Counts; rates: VariantResult['rates'] } | null
  /** How well people came in their shares; null: those were changed meanwhile. */
  fit: { p: number; suspicious: boolean } | null
  /** The clear winner so far: better than the control and, within it, the best. */
  leader: string | null
}

/** Below this, chance does not explain how people came (Fabijan et al. 2019 use 0.0005 to 0.001). */
const SUSPICIOUS = 0.001
const NOBODY: Counts = {
  people: 0,
  sent: 0,
  delivered: 0,
  seen: 0,
  opened: 0,
  clicked: 0,
  acted: 0,
  failed: 0,
}

/** Pure: what counts come to. */
export function resultsOf(
  { metric, variants, holdout, reweighted }: Experiment,
  counted: ReadonlyMap<string, Counts>,
): Results {
  const of = (name: string): Counts => counted.get(name) ?? NOBODY
  const control = of(variants[0]!.name)
  const others = variants.slice(1)
  const comparisons = others.map(({ name }) =>
    compare({ hits: control[metric], n: control.people }, { hits: of(name)[metric], n: of(name).people }),
  )
  // Only those that can be tested share the chance of a false alarm.
  const tested = comparisons.flatMap(({ p }) => (p === null ? [] : [p]))
  const adjusted = holm(tested)
  let at = 0
  const results = variants.map(({ name }, place): VariantResult => {
    const counts = of(name)
    const shown = { name, control: place === 0, counts, rates: ratesOf(counts) }
    if (place === 0) return shown
    const { difference, interval, p, enough } = comparisons[place - 1]!
    const adjustedP = p === null ? null : adjusted[at++]!
    return {
      ...shown,
      comparison: {
        difference,
        low: interval[0],
        high: interval[1],
        p,
        adjustedP,
        significant: enough && adjustedP !== null && adjustedP < 1 - CONFIDENCE,
        enough,
      },
    }
  })
  const better = results.filter(
    ({ comparison }) => comparison?.significant === true && comparison.difference > 0,
  )
  better.sort((a, b) => b.comparison!.difference - a.comparison!.difference)
  return {
    metric,
    confidence: CONFIDENCE,
    variants: results,
    holdout:
      holdout.share > 0 || counted.has(HOLDOUT) ? { counts: of(HOLDOUT), rates: ratesOf(of(HOLDOUT)) } : null,
    fit: reweighted ? null : fitOf(variants, holdout.share, of),
    leader: better[0]?.name ?? null,
  }
}

function fitOf(
  variants: Experiment['variants'],
  held: number,
  of: (name: string) => Counts,
): NonNullable<Results['fit']> {
  const whole = variants.reduce((sum, { weight }) => sum + weight, 0)
  const counts = variants.map(({ name }) => of(name).people)
  const shares = variants.map(({ weight }) => (weight / whole) * (1 - held))
  if (held > 0) {
    counts.push(of(HOLDOUT).people)
    shares.push(held)
  }
  const p = fit(counts, shares)
  return { p, suspicious: p < SUSPICIOUS }
}

function ratesOf(counts: Counts): VariantResult['rates'] {
  const rate = (hits: number): RateView => {
    const [low, high] = wilson({ hits, n: counts.people })
    return { rate: counts.people === 0 ? null : hits / counts.people, low, high }
  }
  const names = ['sent', ...METRICS, 'failed'] as const
  return Object.fromEntries(names.map(name => [name, rate(counts[name])])) as VariantResult['rates']
}
