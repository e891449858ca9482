import { hash } from 'node:crypto'
import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { PRIORITIES } from '../types.ts'
import type { Event, Id, JsonObject, Priority, TenantId } from '../types.ts'
import { START, type ThresholdSpec, type ThresholdState, step } from './threshold.ts'

export interface ThresholdDefinition {
  name: string
  description: string
  stream: string
  spec: ThresholdSpec
  /** Of the events it tells by; null: NORMAL unless a rule says otherwise. */
  priority: Priority | null
  enabled: boolean
}

export interface StoredThreshold extends ThresholdDefinition {
  id: Id
  revision: number
  createdAt: Date
  updatedAt: Date
}

/** How one series of a stream stands against a threshold. */
export interface StoredThresholdState {
  series: string
  status: ThresholdState['status']
  since: Date | null
  lastAt: Date | null
  crossedAt: Date | null
}

export interface StreamSample {
  at: Date
  value: number
  /** What of the stream it is about, such as one of many machines. '': the stream is one. */
  series: string
  /** Handed on in the events. */
  data?: JsonObject
}

export interface Taken {
  /** Samples that were not later than the last of their series, for every threshold. */
  late: number
  changes: {
    thresholdId: Id
    threshold: string
    series: string
    change: 'crossed' | 'cleared'
    at: Date
    value: number
    eventId: Id
  }[]
}

export const CROSSED_EVENT = 'carillon.threshold.crossed'
export const CLEARED_EVENT = 'carillon.threshold.cleared'

/** Each sample is held against all of its stream. */
export const MAX_PER_STREAM = 20
export const MAX_THRESHOLDS = 1_000
/** Clocks differ; what claims to be later would make all that follow come late. */
export const MAX_AHEAD_MS = 5 * 60_000

interface ThresholdRow {
  id: Id
  name: string
  description: string
  stream: string
  spec: ThresholdSpec
  priority: number | null
  enabled: boolean
  revision: number
  created_at: Date
  updated_at: Date
}

const COLUMNS = 'id, name, description, stream, spec, priority, enabled, revision, created_at, updated_at'
const find = sql('find_threshold', `select ${COLUMNS} from thresholds where tenant_id = $1 and id = $2`)
const list = sql(
  'list_thresholds',
  `select ${COLUMNS} from thresholds
   where tenant_id = $1 and ($2::text is null or stream = $2) and ($3::uuid is null or id < $3)
   order by id desc limit $4`,
)
// One tenant's definitions are written one after the other, so that the bounds hold exactly, and not while samples
// are held against them. A statement of its own: one that waits for a lock does not see what it waited for.
const lockDefinitions = sql(
  'lock_threshold_definitions',
  `select pg_advisory_xact_lock(hashtext('thresholds'), $1)`,
)
const keepDefinitions = sql(
  'keep_threshold_definitions',
  `select pg_advisory_xact_lock_shared(hashtext('thresholds'), $1)`,
)
const countAll = sql(
  'count_thresholds',
  `select count(*)::int as total, count(*) filter (where stream = $2 and id <> $3)::int as of_stream
   from thresholds where tenant_id = $1`,
)
const insert = sql(
  'insert_threshold',
  `insert into thresholds (tenant_id, id, name, description, stream, spec, priority, enabled, created_at, updated_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9) returning ${COLUMNS}`,
)
const update = sql(
  'update_threshold',
  `update thresholds set name = $3, description = $4, stream = $5, spec = $6, priority = $7, enabled = $8,
     revision = revision + $10, updated_at = $9
   where tenant_id = $1 and id = $2 returning ${COLUMNS}`,
)
const remove = sql(
  'delete_threshold',
  `delete from thresholds where tenant_id = $1 and id = $2 returning name`,
)
const listStates = sql(
  'list_threshold_states',
  `select s.series, s.status, s.since, s.last_at, s.crossed_at
   from threshold_states s
   join thresholds t on t.tenant_id = s.tenant_id and t.id = s.threshold_id and t.revision = s.revision
   where s.tenant_id = $1 and s.threshold_id = $2 and ($3::text is null or s.status = $3)
     and ($4::text is null or s.series > $4)
   order by s.series limit $5`,
)

const ofStream = sql(
  'thresholds_of_stream',
  `select ${COLUMNS} from thresholds where tenant_id = $1 and stream = $2 and enabled order by id`,
)
// In one order for all writers, as is the lock below, so that they wait for each other in one direction only.
const startStates = sql(
  'start_threshold_states',
  `insert into threshold_states (tenant_id, threshold_id, series)
   select $1, t, s from unnest($2::uuid[]) t cross join unnest($3::text[]) s order by t, s collate "C"
   on conflict do nothing`,
)
const lockStates = sql(
  'lock_threshold_states',
  `select threshold_id, series, revision, status, since, last_at, crossed_at from threshold_states
   where tenant_id = $1 and threshold_id = any($2::uuid[]) and series = any($3::text[])
   order by threshold_id, series for update`,
)
const saveStates = sql(
  'save_threshold_states',
  `update threshold_states s set revision = n.revision, status = n.status, since = n.since, last_at = n.last_at,
     crossed_at = n.crossed_at
   from unnest($2::uuid[], $3::text[], $4::int[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[])
     as n (threshold_id, series, revision, status, since, last_at, crossed_at)
   where s.tenant_id = $1 and s.threshold_id = n.threshold_id and s.series = n.series`,
)

const read = (row: ThresholdRow): StoredThreshold => ({
  id: row.id,
  name: row.name,
  description: row.description,
  stream: row.stream,
  spec: row.spec,
  priority: row.priority === null ? null : PRIORITIES[row.priority]!,
  enabled: row.enabled,
  revision: row.revision,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

const none = () => new AppError('not_found', 'There is no threshold with this id.')
const code = (priority: Priority | null): number | null => (priority ? PRIORITIES.indexOf(priority) : null)
const shown = ({ name, description, stream, spec, priority, enabled }: ThresholdDefinition): object => ({
  name,
  description,
  stream,
  spec,
  priority,
  enabled,
})

export async function findThreshold(q: Queryable, tenantId: TenantId, id: Id): Promise<StoredThreshold> {
  const row = await q.one<ThresholdRow>(find, [tenantId, id])
  if (!row) throw none()
  return read(row)
}

/** Newest first, after the threshold `after`. */
export const listThresholds = async (
  q: Queryable,
  tenantId: TenantId,
  stream: string | null,
  after: Id | null,
  limit: number,
): Promise<StoredThreshold[]> =>
  (await q.rows<ThresholdRow>(list, [tenantId, stream, after, limit])).map(read)

/** @throws AppError already_exists for a name in use; conflict beyond the bounds above */
export async function createThreshold(
  tx: Tx,
  actor: Actor,
  made: ThresholdDefinition,
  now: Date,
): Promise<StoredThreshold> {
  const { tenantId } = actor
  const id = newId(now.getTime())
  await tx.run(lockDefinitions, [tenantId])
  await checkRoom(tx, tenantId, id, made.stream, 1)
  const row = await named(made.name, () =>
    tx.one<ThresholdRow>(insert, [
      tenantId,
      id,
      made.name,
      made.description,
      made.stream,
      JSON.stringify(made.spec),
      code(made.priority),
      made.enabled,
      now,
    ]),
  )
  await audit(tx, actor, {
    action: 'threshold.created',
    objectKind: 'threshold',
    objectId: id,
    details: { after: shown(made) },
  })
  return read(row!)
}

/**
 * With other bounds, for another stream, or enabled again it begins anew: how things stood before says nothing.
 *
 * @throws AppError not_found; already_exists for a name in use; conflict beyond the bounds above
 */
export async function updateThreshold(
  tx: Tx,
  actor: Actor,
  id: Id,
  made: ThresholdDefinition,
  now: Date,
): Promise<StoredThreshold> {
  const { tenantId } = actor
  await tx.run(lockDefinitions, [tenantId])
  const before = await tx.one<ThresholdRow>(find, [tenantId, id])
  if (!before) throw none()
  await checkRoom(tx, tenantId, id, made.stream, 0)
  const anew =
    before.stream !== made.stream ||
    (made.enabled && !before.enabled) ||
    JSON.stringify(ordered(before.spec)) !== JSON.stringify(ordered(made.spec))
  const row = await named(made.name, () =>
    tx.one<ThresholdRow>(update, [
      tenantId,
      id,
      made.name,
      made.description,
      made.stream,
      JSON.stringify(made.spec),
      code(made.priority),
      made.enabled,
      now,
      anew ? 1 : 0,
    ]),
  )
  await audit(tx, actor, {
    action: 'threshold.updated',
    objectKind: 'threshold',
    objectId: id,
    details: { before: shown(read(before)), after: shown(made) },
  })
  return read(row!)
}

/** @throws AppError not_found */
export async function deleteThreshold(tx: Tx, actor: Actor, id: Id): Promise<void> {
  await tx.run(lockDefinitions, [actor.tenantId])
  const row = await tx.one<{ name: string }>(remove, [actor.tenantId, id])
  if (!row) throw none()
  await audit(tx, actor, {
    action: 'threshold.deleted',
    objectKind: 'threshold',
    objectId: id,
    details: { name: row.name },
  })
}

/** By series, after the series `after`. */
export async function listThresholdStates(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
  status: ThresholdState['status'] | null,
  after: string | null,
  limit: number,
): Promise<StoredThresholdState[]> {
  await findThreshold(q, tenantId, id)
  const rows = await q.rows<Omit<StateRow, 'threshold_id' | 'revision'>>(listStates, [
    tenantId,
    id,
    status,
    after,
    limit,
  ])
  return rows.map(row => ({
    series: row.series,
    status: row.status,
    since: row.since,
    lastAt: row.last_at,
    crossedAt: row.crossed_at,
  }))
}

/** jsonb forgets the order of fields. */
const ordered = (spec: ThresholdSpec) => Object.entries(spec).sort(([a], [b]) => (a < b ? -1 : 1))

async function checkRoom(tx: Tx, tenantId: TenantId, id: Id, stream: string, more: number): Promise<void> {
  const counted = await tx.one<{ total: number; of_stream: number }>(countAll, [tenantId, stream, id])
  const { total, of_stream } = counted!
  if (total + more > MAX_THRESHOLDS) {
    throw new AppError('conflict', `There are ${MAX_THRESHOLDS} thresholds already.`)
  }
  if (of_stream >= MAX_PER_STREAM) {
    throw new AppError('conflict', `A stream has at most ${MAX_PER_STREAM} thresholds.`, { field: '/stream' })
  }
}

async function named<T>(name: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write()
  } catch (error) {
    if ((error as { constraint?: string }).constraint !== 'thresholds_name') throw error
    throw new AppError('already_exists', `There is a threshold called "${name}" already.`, { field: '/name' })
  }
}

// ---------------------------------------------------------------- samples

interface StateRow {
  threshold_id: Id
  series: string
  revision: number
  status: ThresholdState['status']
  since: Date | null
  last_at: Date | null
  crossed_at: Date | null
}

/**
 * Holds samples against the thresholds of their stream, in the order of their times. The states are locked until
 * the commit, so that of two batches that cross at once one does; the events are written with them.
 */
export async function takeSamples(
  tx: Tx,
  tenantId: TenantId,
  stream: string,
  samples: readonly StreamSample[],
  now: Date,
  write: WriteEvents,
): Promise<Taken> {
  await tx.run(keepDefinitions, [tenantId])
  const thresholds = (await tx.rows<ThresholdRow>(ofStream, [tenantId, stream])).map(read)
  if (thresholds.length === 0) return { late: 0, changes: [] }
  const ids = thresholds.map(({ id }) => id)
  const names = [...new Set(samples.map(({ series }) => series))]
  await tx.run(startStates, [tenantId, ids, names])
  const rows = await tx.rows<StateRow>(lockStates, [tenantId, ids, names])

  const inTime = samples
    .map((sample, place) => ({ ...sample, place }))
    .sort((a, b) => a.at.getTime() - b.at.getTime() || a.place - b.place)
  const bySeries = Map.groupBy(inTime, ({ series }) => series)
  const byId = new Map(thresholds.map(threshold => [threshold.id, threshold]))
  const used = new Set<number>()
  const saved: { row: StateRow; revision: number; state: ThresholdState }[] = []
  const events: Event[] = []
  const changes: Taken['changes'] = []
  for (const row of rows) {
    const threshold = byId.get(row.threshold_id)!
    const before = stateOf(row, threshold.revision)
    let state = before
    for (const sample of bySeries.get(row.series)!) {
      const made = step(state, { atMs: sample.at.getTime(), value: sample.value }, threshold.spec)
      if (!made.late) used.add(sample.place)
      if (made.change) {
        const event = eventOf(tenantId, threshold, sample, made.change, state, made.state, now)
        events.push(event)
        const { id: thresholdId, name } = threshold
        const { series, at, value } = sample
        changes.push({
          thresholdId,
          threshold: name,
          series,
          change: made.change,
          at,
          value,
          eventId: event.id,
        })
      }
      state = made.state
    }
    if (state !== before) saved.push({ row, revision: threshold.revision, state })
  }
  if (saved.length > 0) {
    await tx.run(saveStates, [
      tenantId,
      saved.map(({ row }) => row.threshold_id),
      saved.map(({ row }) => row.series),
      saved.map(({ revision }) => revision),
      saved.map(({ state }) => state.status),
      saved.map(({ state }) => dateOf(state.sinceMs)),
      saved.map(({ state }) => dateOf(state.lastMs)),
      saved.map(({ state }) => dateOf(state.crossedMs)),
    ])
  }
  await write(tx, events, now)
  return { late: samples.length - used.size, changes }
}

/** By another revision nothing is known but how far the stream had come. */
function stateOf(row: StateRow, revision: number): ThresholdState {
  const lastMs = row.last_at?.getTime() ?? null
  if (row.revision !== revision) return { ...START, lastMs }
  return {
    status: row.status,
    sinceMs: row.since?.getTime() ?? null,
    lastMs,
    crossedMs: row.crossed_at?.getTime() ?? null,
  }
}

const dateOf = (ms: number | null): Date | null => (ms === null ? null : new Date(ms))

/** Told as an alert is, so that silences, inhibitions and stateful rules know what to make of it. */
function eventOf(
  tenantId: TenantId,
  { id, name, stream, spec, priority }: StoredThreshold,
  { at, value, series, data }: StreamSample,
  change: 'crossed' | 'cleared',
  before: ThresholdState,
  after: ThresholdState,
  now: Date,
): Event {
  const startedMs = change === 'crossed' ? after.sinceMs : before.crossedMs
  return {
    tenantId,
    id: newId(now.getTime()),
    source: 'carillon',
    type: change === 'crossed' ? CROSSED_EVENT : CLEARED_EVENT,
    subject: name,
    time: at,
    receivedAt: now,
    ...(priority && { priority }),
    data: {
      threshold: name,
      thresholdId: id,
      stream,
      series,
      value,
      at: at.toISOString(),
      when: spec.when,
      bounds: [...spec.bounds],
      status: change === 'crossed' ? 'firing' : 'resolved',
      fingerprint: fingerprintOf(id, series),
      startsAt: new Date(startedMs ?? at.getTime()).toISOString(),
      labels: { threshold: name, stream, series },
      ...(data && { data }),
    },
  }
}

/** At most 200 characters (server/alerts/alert.ts). */
const fingerprintOf = (id: Id, series: string): string =>
  `threshold:${id}:${series.length <= 100 ? series : hash('sha256', series)}`
