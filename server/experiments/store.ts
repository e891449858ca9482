import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId } from '../types.ts'
import type { Variant } from './experiment-book.ts'

/** How far people come, in the order in which they do; `failed` stands beside it. */
export const METRICS = ['delivered', 'seen', 'opened', 'clicked', 'acted'] as const
export type Metric = (typeof METRICS)[number]

/** What is said of an experiment; how it stands is ours. */
export interface ExperimentDefinition {
  name: string
  description: string
  /** Exactly one of the two. */
  templateId: Id | null
  ruleId: Id | null
  /** What the variants are judged by. */
  metric: Metric
  /** The control first. */
  variants: Variant[]
  holdout: { share: number; gets: 'nothing' | 'control' }
  startsAt: Date | null
  endsAt: Date | null
}

export interface Experiment extends ExperimentDefinition {
  id: Id
  status: 'draft' | 'running' | 'stopped'
  startedAt: Date | null
  stoppedAt: Date | null
  winner: string | null
  /** Shares were changed while it ran: who came to which variant no longer tells of their fit. */
  reweighted: boolean
  revision: number
  createdAt: Date
  updatedAt: Date
}

/** `scheduled` and `ended` are a running one before and after its times. */
export const PHASES = ['draft', 'scheduled', 'running', 'ended', 'stopped'] as const
export type Phase = (typeof PHASES)[number]

export function phaseOf(
  { status, startsAt, endsAt }: Pick<Experiment, 'status' | 'startsAt' | 'endsAt'>,
  now: Date,
): Phase {
  if (status !== 'running') return status
  if (startsAt && now < startsAt) return 'scheduled'
  return endsAt && now >= endsAt ? 'ended' : 'running'
}

/** Those that run are in the memory of every process. */
export const MAX_EXPERIMENTS = 500

interface Row {
  id: Id
  name: string
  description: string
  template_id: Id | null
  rule_id: Id | null
  status: Experiment['status']
  metric: Metric
  variants: Variant[]
  holdout: number
  holdout_gets: 'nothing' | 'control'
  starts_at: Date | null
  ends_at: Date | null
  started_at: Date | null
  stopped_at: Date | null
  winner: string | null
  reweighted: boolean
  revision: number
  created_at: Date
  updated_at: Date
}

const experimentOf = (row: Row): Experiment => ({
  id: row.id,
  name: row.name,
  description: row.description,
  templateId: row.template_id,
  ruleId: row.rule_id,
  status: row.status,
  metric: row.metric,
  variants: row.variants,
  holdout: { share: row.holdout, gets: row.holdout_gets },
  startsAt: row.starts_at,
  endsAt: row.ends_at,
  startedAt: row.started_at,
  stoppedAt: row.stopped_at,
  winner: row.winner,
  reweighted: row.reweighted,
  revision: row.revision,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

const COLUMNS = `id, name, description, template_id, rule_id, status, metric, variants, holdout, holdout_gets, starts_at,
  ends_at, started_at, stopped_at, winner, reweighted, revision, created_at, updated_at`

const find = sql(
  'find_experiment',
  `select ${COLUMNS} from experiments where tenant_id = $1 and id = $2 and deleted_at is null`,
)
const lock = sql(
  'lock_experiment',
  `select ${COLUMNS} from experiments where tenant_id = $1 and id = $2 and deleted_at is null for update`,
)
const list = sql(
  'list_experiments',
  `select ${COLUMNS} from experiments
   where tenant_id = $1 and deleted_at is null and ($2::uuid is null or id < $2)
     and ($3::text is null or status = $3) and ($4::uuid is null or template_id = $4) and ($5::uuid is null or rule_id = $5)
   order by id desc limit $6`,
)
const insert = sql(
  'insert_experiment',
  `insert into experiments (tenant_id, id, name, description, template_id, rule_id, metric, variants, holdout,
     holdout_gets, starts_at, ends_at, created_at, updated_at)
   select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13
   where (select count(*) from experiments where tenant_id = $1 and deleted_at is null) < ${MAX_EXPERIMENTS}
   returning ${COLUMNS}`,
)
const update = sql(
  'update_experiment',
  `update experiments set name = $3, description = $4, template_id = $5, rule_id = $6, metric = $7, variants = $8,
     holdout = $9, holdout_gets = $10, starts_at = $11, ends_at = $12, updated_at = $13, reweighted = $14,
     revision = revision + 1
   where tenant_id = $1 and id = $2 returning ${COLUMNS}`,
)
const begin = sql(
  'start_experiment',
  `update experiments set status = 'running', variants = $3, started_at = $4, updated_at = $4, revision = revision + 1
   where tenant_id = $1 and id = $2 returning ${COLUMNS}`,
)
// Whose time is over gives its place to the next one.
const endOver = sql(
  'stop_ended_experiments',
  `update experiments set status = 'stopped', stopped_at = ends_at, updated_at = $4, revision = revision + 1
   where tenant_id = $1 and status = 'running' and ends_at <= $4 and (template_id = $2 or rule_id = $3)`,
)
const end = sql(
  'stop_experiment',
  `update experiments set status = 'stopped', stopped_at = coalesce(stopped_at, $3), winner = coalesce($4, winner),
     updated_at = $3, revision = revision + 1
   where tenant_id = $1 and id = $2 returning ${COLUMNS}`,
)
const remove = sql(
  'delete_experiment',
  `update experiments set deleted_at = $3, updated_at = $3 where tenant_id = $1 and id = $2`,
)
const templateRevisions = sql(
  'experiment_template',
  `select t.revision as current, array(
     select r.revision from template_revisions r
     where r.tenant_id = t.tenant_id and r.template_id = t.id and r.revision = any ($3::int[])) as known
   from templates t where t.tenant_id = $1 and t.id = $2 and t.deleted_at is null`,
)
const knownTemplates = sql(
  'experiment_templates',
  `select id from templates where tenant_id = $1 and id = any ($2::uuid[]) and deleted_at is null`,
)
const knownRule = sql(
  'experiment_rule',
  `select 1 from rules where tenant_id = $1 and id = $2 and deleted_at is null`,
)

const values = (tenantId: TenantId, id: Id, given: ExperimentDefinition, now: Date): unknown[] => [
  tenantId,
  id,
  given.name,
  given.description,
  given.templateId,
  given.ruleId,
  given.metric,
  JSON.stringify(given.variants),
  given.holdout.share,
  given.holdout.gets,
  given.startsAt,
  given.endsAt,
  now,
]

// ------------------------------------------------------------------------------------------------ reading

/** @throws AppError not_found */
export async function findExperiment(q: Queryable, tenantId: TenantId, id: Id): Promise<Experiment> {
  const row = await q.one<Row>(find, [tenantId, id])
  if (!row) throw none()
  return experimentOf(row)
}

/** Newest first, after the experiment `after`. */
export const listExperiments = async (
  q: Queryable,
  tenantId: TenantId,
  filter: { status?: Experiment['status']; templateId?: Id; ruleId?: Id },
  after: Id | null,
  limit: number,
): Promise<Experiment[]> =>
  (
    await q.rows<Row>(list, [
      tenantId,
      after,
      filter.status ?? null,
      filter.templateId ?? null,
      filter.ruleId ?? null,
      limit,
    ])
  ).map(experimentOf)

// ------------------------------------------------------------------------------------------------ writing

/** @throws AppError invalid_request for what is not there; already_exists; conflict beyond MAX_EXPERIMENTS */
export async function createExperiment(
  tx: Tx,
  actor: Actor,
  given: ExperimentDefinition,
  now: Date,
  traceId?: string,
): Promise<Experiment> {
  await checkTargets(tx, actor.tenantId, given)
  const row = await unique(given.name, () =>
    tx.one<Row>(insert, values(actor.tenantId, newId(now.getTime()), given, now)),
  )
  if (!row) throw new AppError('conflict', `There are ${MAX_EXPERIMENTS} experiments already.`)
  await audit(tx, actor, {
    action: 'experiment.created',
    objectKind: 'experiment',
    objectId: row.id,
    details: { after: given },
    traceId,
  })
  return experimentOf(row)
}

/**
 * Replaces what is said of it. What people were told so far would mean something else if a running one changed what it
 * compares: of that only shares, holdout, end and words can change.
 *
 * @throws AppError not_found; conflict once it was stopped, or for what may not change any more; as `createExperiment`
 */
export async function updateExperiment(
  tx: Tx,
  actor: Actor,
  id: Id,
  given: ExperimentDefinition,
  now: Date,
  traceId?: string,
): Promise<Experiment> {
  const before = await locked(tx, actor.tenantId, id)
  let { reweighted } = before
  let kept = given
  if (before.status === 'stopped') throw new AppError('conflict', 'The experiment is over.')
  if (before.status === 'running') {
    for (const [field, same] of Object.entries(unchanged(before, given))) {
      if (same) continue
      throw new AppError('conflict', `A running experiment keeps its ${field}. Stop it and make another.`, {
        field: `/${field}`,
      })
    }
    // What was pinned when it started stays so.
    const variants = before.variants.map((one, at) => ({ ...one, weight: given.variants[at]!.weight }))
    kept = { ...given, variants }
    reweighted ||=
      before.holdout.share !== given.holdout.share ||
      before.variants.some(({ weight }, at) => weight !== given.variants[at]!.weight)
  } else await checkTargets(tx, actor.tenantId, given)
  const row = await unique(given.name, () =>
    tx.one<Row>(update, [...values(actor.tenantId, id, kept, now), reweighted]),
  )
  await audit(tx, actor, {
    action: 'experiment.updated',
    objectKind: 'experiment',
    objectId: id,
    details: { before: definitionOf(before), after: kept },
    traceId,
  })
  return experimentOf(row!)
}

/** Field by field, of those that a running experiment keeps. A variant that names no revision means the pinned one. */
const unchanged = (before: Experiment, given: ExperimentDefinition): Record<string, boolean> => ({
  templateId: before.templateId === given.templateId,
  ruleId: before.ruleId === given.ruleId,
  variants:
    before.variants.length === given.variants.length &&
    before.variants.every((one, at) => {
      const other = given.variants[at]!
      return (
        one.name === other.name &&
        (other.revision === null || one.revision === other.revision) &&
        one.templateId === other.templateId &&
        one.channels?.join() === other.channels?.join()
      )
    }),
  startsAt: before.startsAt?.getTime() === given.startsAt?.getTime(),
})

/**
 * From now on, or from `startsAt`, messages are split. A variant without a revision is pinned to the current one, so
 * that what is compared stays the same whatever is published meanwhile.
 *
 * @throws AppError not_found; conflict when it ran before, is over already, or another one runs of the same thing
 */
export async function startExperiment(
  tx: Tx,
  actor: Actor,
  id: Id,
  now: Date,
  traceId?: string,
): Promise<Experiment> {
  const { tenantId } = actor
  const before = await locked(tx, tenantId, id)
  if (before.status !== 'draft') throw new AppError('conflict', 'The experiment was started before.')
  if (before.endsAt && before.endsAt <= now) {
    throw new AppError('conflict', 'Its end has passed.', { field: '/endsAt' })
  }
  const current = await checkTargets(tx, tenantId, before)
  await tx.run(endOver, [tenantId, before.templateId, before.ruleId, now])
  const variants = before.variants.map(one => ({ ...one, revision: one.revision ?? current }))
  const row = await oneAtATime(() => tx.one<Row>(begin, [tenantId, id, JSON.stringify(variants), now]))
  await audit(tx, actor, { action: 'experiment.started', objectKind: 'experiment', objectId: id, traceId })
  return experimentOf(row!)
}

/**
 * Everybody is told the same again: what the template or the rule says. What people do with what they were told still
 * counts for 30 days.
 *
 * @throws AppError not_found; conflict unless it runs
 */
export async function stopExperiment(
  tx: Tx,
  actor: Actor,
  id: Id,
  now: Date,
  traceId?: string,
): Promise<Experiment> {
  const before = await locked(tx, actor.tenantId, id)
  if (before.status !== 'running') throw new AppError('conflict', 'The experiment does not run.')
  const row = await tx.one<Row>(end, [actor.tenantId, id, now, null])
  await audit(tx, actor, { action: 'experiment.stopped', objectKind: 'experiment', objectId: id, traceId })
  return experimentOf(row!)
}

/** How a winner becomes what everybody is told: the work of the modules whose things these are. */
export interface Publish {
  template(tx: Tx, actor: Actor, id: Id, revision: number, traceId?: string): Promise<void>
  rule(
    tx: Tx,
    actor: Actor,
    id: Id,
    change: Pick<Variant, 'templateId' | 'channels'>,
    traceId?: string,
  ): Promise<void>
}

/**
 * Stops it, and makes one variant what everybody is told, in one transaction.
 *
 * @throws AppError not_found; conflict for one that never ran, or has a winner; invalid_request for no variant of it
 */
export async function pickWinner(
  tx: Tx,
  actor: Actor,
  id: Id,
  variant: string,
  publish: Publish,
  now: Date,
  traceId?: string,
): Promise<Experiment> {
  const before = await locked(tx, actor.tenantId, id)
  if (before.status === 'draft') throw new AppError('conflict', 'The experiment has not been started.')
  if (before.winner !== null) throw new AppError('conflict', `"${before.winner}" was picked before.`)
  const winner = before.variants.find(({ name }) => name === variant)
  if (!winner) {
    throw new AppError('invalid_request', `The experiment has no variant "${variant}"`, { field: '/variant' })
  }
  const row = await tx.one<Row>(end, [actor.tenantId, id, now, variant])
  if (before.templateId) await publish.template(tx, actor, before.templateId, winner.revision!, traceId)
  else await publish.rule(tx, actor, before.ruleId!, winner, traceId)
  await audit(tx, actor, {
    action: 'experiment.picked',
    objectKind: 'experiment',
    objectId: id,
    details: { variant },
    traceId,
  })
  return experimentOf(row!)
}

/** What it counted goes too, bit by bit (server/admin/housekeeping.ts). @throws AppError not_found; conflict while it runs */
export async function deleteExperiment(
  tx: Tx,
  actor: Actor,
  id: Id,
  now: Date,
  traceId?: string,
): Promise<void> {
  const { status, name } = await locked(tx, actor.tenantId, id)
  if (status === 'running') throw new AppError('conflict', 'Stop the experiment first.')
  await tx.run(remove, [actor.tenantId, id, now])
  await audit(tx, actor, {
    action: 'experiment.deleted',
    objectKind: 'experiment',
    objectId: id,
    details: { name },
    traceId,
  })
}

// ------------------------------------------------------------------------------------------------ checking

async function locked(tx: Tx, tenantId: TenantId, id: Id): Promise<Experiment> {
  const row = await tx.one<Row>(lock, [tenantId, id])
  if (!row) throw none()
  return experimentOf(row)
}

/** @returns the current revision of its template; null: it is about a rule */
async function checkTargets(
  q: Queryable,
  tenantId: TenantId,
  { templateId, ruleId, variants }: ExperimentDefinition,
): Promise<number | null> {
  const bad = (field: string, message: string) => new AppError('invalid_request', message, { field })
  if (templateId !== null) {
    const asked = variants.flatMap(({ revision }) => revision ?? [])
    const found = await q.one<{ current: number; known: number[] }>(templateRevisions, [
      tenantId,
      templateId,
      asked,
    ])
    if (!found) throw bad('/templateId', 'There is no template with this id')
    if (found.current < 1) throw bad('/templateId', 'The template is not published')
    for (const [at, { revision }] of variants.entries()) {
      if (revision !== null && !found.known.includes(revision)) {
        throw bad(`/variants/${at}/revision`, `The template has no revision ${revision}`)
      }
    }
    return found.current
  }
  if (!(await q.one(knownRule, [tenantId, ruleId]))) throw bad('/ruleId', 'There is no rule with this id')
  const asked = variants.flatMap(variant => variant.templateId ?? [])
  const known = new Set(
    asked.length === 0
      ? []
      : (await q.rows<{ id: Id }>(knownTemplates, [tenantId, asked])).map(({ id }) => id),
  )
  for (const [at, variant] of variants.entries()) {
    if (variant.templateId !== null && !known.has(variant.templateId)) {
      throw bad(`/variants/${at}/templateId`, 'There is no template with this id')
    }
  }
  return null
}

const definitionOf = ({
  name,
  description,
  templateId,
  ruleId,
  metric,
  variants,
  holdout,
  startsAt,
  endsAt,
}: Experiment): ExperimentDefinition => ({
  name,
  description,
  templateId,
  ruleId,
  metric,
  variants,
  holdout,
  startsAt,
  endsAt,
})

const none = () => new AppError('not_found', 'There is no experiment with this id.')

const constraintOf = (error: unknown) => (error as { constraint?: string }).constraint

async function unique<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if (constraintOf(error) !== 'experiments_name') throw error
    throw new AppError('already_exists', `There is an experiment called "${name}" already.`, {
      field: '/name',
    })
  }
}

async function oneAtATime<T>(write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    const what = { experiments_template: 'template', experiments_rule: 'rule' }[constraintOf(error) ?? '']
    if (!what) throw error
    throw new AppError('conflict', `Another experiment of this ${what} runs.`)
  }
}
