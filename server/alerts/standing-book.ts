import type { ChangeWatch } from '../db/changes.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Event, Id, TenantId } from '../types.ts'
import { type AlertState, alertOf } from './alert.ts'
import { type Inhibition, compileInhibition, covers, wanted } from './inhibition.ts'
import { type Lookup, type Matcher, type Test, compileMatchers, lookupOf } from './matcher.ts'

/** An operator's word, or a more important alert, against telling anybody of an event. */
export interface Standing {
  reason: 'silenced' | 'inhibited'
  /** Which one, for the trace. */
  detail: string
}

/** Silences and inhibitions of all tenants, as of the last look at `changes`; which alerts fire is read a batch. */
export interface StandingBook {
  /** What stands against each of these events. To be called after a look. */
  standing(q: Queryable, events: readonly Event[], now: Date): Promise<(event: Event) => Standing | null>
  /** Those of these tenants that have any silence or inhibition at all. */
  concerned(q: Queryable, tenantIds: readonly TenantId[]): Promise<ReadonlySet<TenantId>>
}

interface Silence {
  id: Id
  author: string
  startsAt: Date
  endsAt: Date
  test: Test
}

interface Tenant {
  silences: readonly Silence[]
  inhibitions: readonly Inhibition[]
}

// What is over by a day is left out: no clock is that far behind.
const loadSilences = sql(
  'load_silences',
  `select tenant_id, id, author, matchers, starts_at, ends_at from silences
   where tenant_id = any ($1::int[]) and ends_at > now() - interval '1 day' order by tenant_id, id`,
)
const loadInhibitions = sql(
  'load_inhibitions',
  `select tenant_id, name, source_matchers, target_matchers, equal from inhibitions
   where tenant_id = any ($1::int[]) and enabled order by tenant_id, id`,
)

/** Alerts looked through for one inhibition and one set of equal values. */
export const MAX_SOURCES = 1_000

// One probe of the index for each different question of the batch.
const findSources = sql(
  'find_inhibiting_alerts',
  `select w.n, a.key, a.status, a.labels, a.ends_at
   from unnest($1::int[], $2::int[], $3::jsonb[]) as w (n, tenant_id, labels)
   cross join lateral (
     select key, status, labels, ends_at from alert_states
     where tenant_id = w.tenant_id and status = 'firing' and labels @> w.labels and (ends_at is null or ends_at > $4)
     order by key limit ${MAX_SOURCES}
   ) a`,
)

interface SilenceRow {
  tenant_id: TenantId
  id: Id
  author: string
  matchers: Matcher[]
  starts_at: Date
  ends_at: Date
}
interface InhibitionRow {
  tenant_id: TenantId
  name: string
  source_matchers: Matcher[]
  target_matchers: Matcher[]
  equal: string[]
}
interface SourceRow {
  n: number
  key: string
  status: AlertState['status']
  labels: Record<string, string>
  ends_at: Date | null
}

type Source = Pick<AlertState, 'key' | 'labels' | 'status' | 'endsAt'>

/** A target that some inhibition is about, and the alerts that may cover it. */
interface Question {
  event: Event
  lookup: Lookup
  inhibition: Inhibition
  sources: readonly Source[]
}

export function standingBook(watch: ChangeWatch): StandingBook {
  const known = new Map<TenantId, Tenant>()
  /** Counts what was forgotten: a load that began before is not kept. */
  let generation = 0
  const forget = (tenantId: TenantId) => {
    generation++
    known.delete(tenantId)
  }
  watch.on('silence', forget)
  watch.on('inhibition', forget)
  watch.onReset(() => {
    generation++
    known.clear()
  })

  async function load(
    q: Queryable,
    wanted: readonly { tenantId: TenantId }[],
  ): Promise<ReadonlyMap<TenantId, Tenant>> {
    const tenants = new Map<TenantId, Tenant>()
    const missing: TenantId[] = []
    for (const { tenantId } of wanted) {
      if (tenants.has(tenantId) || missing.includes(tenantId)) continue
      const found = known.get(tenantId)
      if (found) tenants.set(tenantId, found)
      else missing.push(tenantId)
    }
    if (missing.length === 0) return tenants
    const began = generation
    const silences = Map.groupBy(await q.rows<SilenceRow>(loadSilences, [missing]), row => row.tenant_id)
    const inhibitions = Map.groupBy(
      await q.rows<InhibitionRow>(loadInhibitions, [missing]),
      row => row.tenant_id,
    )
    for (const tenantId of missing) {
      const tenant: Tenant = {
        silences: (silences.get(tenantId) ?? []).map(silenceOf),
        inhibitions: (inhibitions.get(tenantId) ?? []).map(inhibitionOf),
      }
      tenants.set(tenantId, tenant)
      if (began === generation) known.set(tenantId, tenant)
    }
    return tenants
  }

  return {
    async concerned(q, tenantIds) {
      const tenants = await load(
        q,
        tenantIds.map(tenantId => ({ tenantId })),
      )
      return new Set(
        [...tenants]
          .filter(([, { silences, inhibitions }]) => silences.length + inhibitions.length > 0)
          .map(([tenantId]) => tenantId),
      )
    },
    async standing(q, events, now) {
      const tenants = await load(q, events)
      const found = new Map<Id, Standing>()
      const questions: Question[] = []
      for (const event of events) {
        const { silences, inhibitions } = tenants.get(event.tenantId)!
        if (silences.length === 0 && inhibitions.length === 0) continue
        const lookup = lookupOf(event)
        const silence = silences.find(
          ({ startsAt, endsAt, test }) => startsAt <= now && now < endsAt && test(lookup),
        )
        if (silence) {
          found.set(event.id, { reason: 'silenced', detail: `silence ${silence.id} of ${silence.author}` })
          continue
        }
        for (const inhibition of inhibitions) {
          if (inhibition.target(lookup)) questions.push({ event, lookup, inhibition, sources: [] })
        }
      }
      if (questions.length > 0) {
        await findSourcesOf(q, questions, now)
        const ofBatch = batchAlerts(events)
        for (const question of questions) {
          if (found.has(question.event.id)) continue
          const source = covering(question, ofBatch, now)
          if (source) {
            const named = source.labels['labels.alertname'] ?? source.labels['subject'] ?? source.key
            const detail = `${question.inhibition.name}: ${named} (${source.key})`.slice(0, 400)
            found.set(question.event.id, { reason: 'inhibited', detail })
          }
        }
      }
      return event => found.get(event.id) ?? null
    },
  }
}

async function findSourcesOf(q: Queryable, questions: Question[], now: Date): Promise<void> {
  const probes = new Map<string, { n: number; tenantId: TenantId; labels: string; for: Question[] }>()
  for (const question of questions) {
    const { tenantId } = question.event
    const labels = JSON.stringify(wanted(question.inhibition, question.lookup))
    const name = `${tenantId} ${labels}`
    const probe = probes.get(name)
    if (probe) probe.for.push(question)
    else probes.set(name, { n: probes.size, tenantId, labels, for: [question] })
  }
  const asked = [...probes.values()]
  const rows = await q.rows<SourceRow>(findSources, [
    asked.map(probe => probe.n),
    asked.map(probe => probe.tenantId),
    asked.map(probe => probe.labels),
    now,
  ])
  for (const [n, found] of Map.groupBy(rows, row => row.n)) {
    const sources = found.map(
      ({ key, status, labels, ends_at }): Source => ({ key, status, labels, endsAt: ends_at }),
    )
    for (const question of asked[n]!.for) question.sources = sources
  }
}

/** How the alerts of this very batch stand after it; an Alertmanager sends source and target together. */
function batchAlerts(events: readonly Event[]): ReadonlyMap<TenantId, ReadonlyMap<string, AlertState>> {
  const tenants = new Map<TenantId, Map<string, AlertState>>()
  for (const event of events) {
    const alert = alertOf(event)
    if (alert === null) continue
    let alerts = tenants.get(event.tenantId)
    if (!alerts) tenants.set(event.tenantId, (alerts = new Map()))
    const before = alerts.get(alert.key)
    if (before === undefined || alert.at >= before.at) alerts.set(alert.key, alert)
  }
  return tenants
}

function covering(
  { event, lookup, inhibition, sources }: Question,
  ofBatch: ReturnType<typeof batchAlerts>,
  now: Date,
): Source | undefined {
  const target = { key: alertOf(event)?.key ?? null, lookup }
  const fresh = ofBatch.get(event.tenantId)
  for (const source of sources) {
    if (!fresh?.has(source.key) && covers(inhibition, source, target, now)) return source
  }
  for (const source of fresh?.values() ?? []) if (covers(inhibition, source, target, now)) return source
  return undefined
}

const silenceOf = ({ id, author, matchers, starts_at, ends_at }: SilenceRow): Silence => ({
  id,
  author,
  startsAt: starts_at,
  endsAt: ends_at,
  test: orNever(() => compileMatchers(matchers, '/matchers')),
})

function inhibitionOf({ name, source_matchers, target_matchers, equal }: InhibitionRow): Inhibition {
  const definition = { name, sourceMatchers: source_matchers, targetMatchers: target_matchers, equal }
  try {
    return compileInhibition(definition)
  } catch {
    return { name, source: NEVER, target: NEVER, equal: [], certain: {} }
  }
}

const NEVER: Test = () => false

// It compiled when it was written: what an older version took keeps nothing quiet, rather than stopping everything.
function orNever(compile: () => Test): Test {
  try {
    return compile()
  } catch {
    return NEVER
  }
}
