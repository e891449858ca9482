import { type Actor, audit } from '../admin/audit.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId } from '../types.ts'
import { type InhibitionDefinition, compileInhibition } from './inhibition.ts'
import { type Matcher, compileMatchers } from './matcher.ts'

export interface SilenceDefinition {
  matchers: Matcher[]
  author: string
  comment: string
  startsAt: Date
  endsAt: Date
}

export type SilenceState = 'pending' | 'active' | 'expired'

export interface StoredSilence extends SilenceDefinition {
  id: Id
  createdAt: Date
  updatedAt: Date
}

export interface StoredInhibition extends InhibitionDefinition {
  id: Id
  enabled: boolean
  createdAt: Date
  updatedAt: Date
}

/** Every event is held against them. */
export const MAX_SILENCES = 1_000
export const MAX_INHIBITIONS = 200
/** Longer ones have been forgotten by whoever made them. */
export const MAX_SILENCE_DAYS = 366

export const silenceState = (
  { startsAt, endsAt }: Pick<SilenceDefinition, 'startsAt' | 'endsAt'>,
  now: Date,
): SilenceState => (endsAt <= now ? 'expired' : startsAt > now ? 'pending' : 'active')

// ------------------------------------------------------------------ silences

interface SilenceRow {
  id: Id
  matchers: Matcher[]
  author: string
  comment: string
  starts_at: Date
  ends_at: Date
  created_at: Date
  updated_at: Date
}

const SILENCE = 'id, matchers, author, comment, starts_at, ends_at, created_at, updated_at'

const insertSilence = sql(
  'insert_silence',
  `insert into silences (tenant_id, id, matchers, author, comment, starts_at, ends_at, created_at, updated_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $8) returning ${SILENCE}`,
)
// Of what is not over: writers of one tenant wait for each other, so that the bound holds.
const lockTenant = sql('lock_tenant_alerts', `select pg_advisory_xact_lock(${0x616c6572}, $1)`)
const countSilences = sql(
  'count_silences',
  'select count(*) as n from silences where tenant_id = $1 and ends_at > $2',
)
const selectSilence = sql(
  'select_silence',
  `select ${SILENCE} from silences where tenant_id = $1 and id = $2`,
)
const selectSilenceForUpdate = sql(
  'select_silence_for_update',
  `select ${SILENCE} from silences where tenant_id = $1 and id = $2 for update`,
)
const updateSilenceRow = sql(
  'update_silence',
  `update silences set matchers = $3, author = $4, comment = $5, starts_at = $6, ends_at = $7, updated_at = $8
   where tenant_id = $1 and id = $2 returning ${SILENCE}`,
)
const selectSilences = sql(
  'list_silences',
  `select ${SILENCE} from silences
   where tenant_id = $1 and ($2::uuid is null or id < $2)
     and case $3::text when 'active' then starts_at <= $4 and ends_at > $4 when 'pending' then starts_at > $4 and ends_at > $4
       when 'expired' then ends_at <= $4 else true end
   order by id desc limit $5`,
)

const silenceOf = (row: SilenceRow): StoredSilence => ({
  id: row.id,
  matchers: row.matchers,
  author: row.author,
  comment: row.comment,
  startsAt: row.starts_at,
  endsAt: row.ends_at,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

/** Throws AppError `invalid_request` with the field. */
export function checkSilence({ matchers, startsAt, endsAt }: SilenceDefinition, now: Date): void {
  compileMatchers(matchers, '/matchers')
  if (endsAt <= startsAt) throw invalid('/endsAt', 'It would end before it starts')
  if (endsAt <= now) throw invalid('/endsAt', 'It would be over already')
  if (endsAt.getTime() - startsAt.getTime() > MAX_SILENCE_DAYS * 86_400_000) {
    throw invalid('/endsAt', `A silence holds for at most ${MAX_SILENCE_DAYS} days`)
  }
}

export async function createSilence(
  tx: Tx,
  actor: Actor,
  silence: SilenceDefinition,
  now: Date,
  traceId?: string,
): Promise<StoredSilence> {
  checkSilence(silence, now)
  await tx.run(lockTenant, [actor.tenantId])
  const { n } = (await tx.one<{ n: number }>(countSilences, [actor.tenantId, now]))!
  if (n >= MAX_SILENCES)
    throw new AppError('conflict', `A tenant has at most ${MAX_SILENCES} silences in force.`)
  const { matchers, author, comment, startsAt, endsAt } = silence
  const id = newId()
  const row = await tx.one<SilenceRow>(insertSilence, [
    actor.tenantId,
    id,
    JSON.stringify(matchers),
    author,
    comment,
    startsAt,
    endsAt,
    now,
  ])
  await audit(tx, actor, {
    action: 'silence.created',
    objectKind: 'silence',
    objectId: id,
    details: silence,
    traceId,
  })
  return silenceOf(row!)
}

/**
 * Changes one that is not over. What is over stays as it was, because it explains what was kept quiet: make a new
 * one instead.
 */
export async function updateSilence(
  tx: Tx,
  actor: Actor,
  id: Id,
  change: (before: StoredSilence) => SilenceDefinition,
  now: Date,
  traceId?: string,
): Promise<StoredSilence> {
  const before = await silenceForUpdate(tx, actor.tenantId, id)
  if (before.endsAt <= now) throw new AppError('conflict', 'This silence is over. Make a new one.')
  const silence = change(before)
  checkSilence(silence, now)
  return writeSilence(tx, actor, before, silence, 'silence.updated', now, traceId)
}

/** Ends it now; one that has not begun never will. Ending what is over changes nothing. */
export async function expireSilence(
  tx: Tx,
  actor: Actor,
  id: Id,
  now: Date,
  traceId?: string,
): Promise<StoredSilence> {
  const before = await silenceForUpdate(tx, actor.tenantId, id)
  if (before.endsAt <= now) return before
  const startsAt = before.startsAt > now ? now : before.startsAt
  return writeSilence(
    tx,
    actor,
    before,
    { ...before, startsAt, endsAt: now },
    'silence.expired',
    now,
    traceId,
  )
}

async function silenceForUpdate(tx: Tx, tenantId: TenantId, id: Id): Promise<StoredSilence> {
  const row = await tx.one<SilenceRow>(selectSilenceForUpdate, [tenantId, id])
  if (!row) throw new AppError('not_found', 'There is no silence with this id.')
  return silenceOf(row)
}

async function writeSilence(
  tx: Tx,
  actor: Actor,
  before: StoredSilence,
  { matchers, author, comment, startsAt, endsAt }: SilenceDefinition,
  action: string,
  now: Date,
  traceId: string | undefined,
): Promise<StoredSilence> {
  const { id } = before
  const values = [actor.tenantId, id, JSON.stringify(matchers), author, comment, startsAt, endsAt, now]
  const row = await tx.one<SilenceRow>(updateSilenceRow, values)
  const after = silenceOf(row!)
  await audit(tx, actor, {
    action,
    objectKind: 'silence',
    objectId: id,
    details: { before, after },
    traceId,
  })
  return after
}

export async function findSilence(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
): Promise<StoredSilence | undefined> {
  const row = await q.one<SilenceRow>(selectSilence, [tenantId, id])
  return row && silenceOf(row)
}

/** Newest first. */
export async function listSilences(
  q: Queryable,
  tenantId: TenantId,
  state: SilenceState | undefined,
  after: Id | null,
  limit: number,
  now: Date,
): Promise<StoredSilence[]> {
  const rows = await q.rows<SilenceRow>(selectSilences, [tenantId, after, state ?? null, now, limit])
  return rows.map(silenceOf)
}

// ------------------------------------------------------------------ inhibitions

interface InhibitionRow {
  id: Id
  name: string
  source_matchers: Matcher[]
  target_matchers: Matcher[]
  equal: string[]
  enabled: boolean
  created_at: Date
  updated_at: Date
}

const INHIBITION = 'id, name, source_matchers, target_matchers, equal, enabled, created_at, updated_at'

const insertInhibition = sql(
  'insert_inhibition',
  `insert into inhibitions (tenant_id, id, name, source_matchers, target_matchers, equal, enabled, created_at, updated_at)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $8) on conflict (tenant_id, name) do nothing returning ${INHIBITION}`,
)
const countInhibitions = sql(
  'count_inhibitions',
  'select count(*) as n from inhibitions where tenant_id = $1',
)
const nameTaken = sql(
  'inhibition_name_taken',
  'select from inhibitions where tenant_id = $1 and name = $2 and id <> $3',
)
const selectInhibition = sql(
  'select_inhibition',
  `select ${INHIBITION} from inhibitions where tenant_id = $1 and id = $2`,
)
const selectInhibitionForUpdate = sql(
  'select_inhibition_for_update',
  `select ${INHIBITION} from inhibitions where tenant_id = $1 and id = $2 for update`,
)
const updateInhibitionRow = sql(
  'update_inhibition',
  `update inhibitions set name = $3, source_matchers = $4, target_matchers = $5, equal = $6, enabled = $7, updated_at = $8
   where tenant_id = $1 and id = $2 returning ${INHIBITION}`,
)
const deleteInhibitionRow = sql(
  'delete_inhibition',
  'delete from inhibitions where tenant_id = $1 and id = $2',
)
const selectInhibitions = sql(
  'list_inhibitions',
  `select ${INHIBITION} from inhibitions where tenant_id = $1 and ($2::uuid is null or id < $2)
   order by id desc limit $3`,
)

const inhibitionOf = (row: InhibitionRow): StoredInhibition => ({
  id: row.id,
  name: row.name,
  sourceMatchers: row.source_matchers,
  targetMatchers: row.target_matchers,
  equal: row.equal,
  enabled: row.enabled,
  createdAt: row.created_at,
  updatedAt: row.updated_at,
})

type WrittenInhibition = InhibitionDefinition & { enabled: boolean }

const inhibitionValues = (tenantId: TenantId, id: Id, definition: WrittenInhibition, now: Date) => [
  tenantId,
  id,
  definition.name,
  JSON.stringify(definition.sourceMatchers),
  JSON.stringify(definition.targetMatchers),
  definition.equal,
  definition.enabled,
  now,
]

export function checkInhibition(definition: InhibitionDefinition): void {
  compileInhibition(definition)
  for (const [at, name] of definition.equal.entries()) {
    if (name.startsWith('data.')) {
      throw invalid(`/equal/${at}`, 'Alerts are remembered by attributes and labels, not by their data')
    }
  }
}

export async function createInhibition(
  tx: Tx,
  actor: Actor,
  definition: WrittenInhibition,
  now: Date,
  traceId?: string,
): Promise<StoredInhibition> {
  checkInhibition(definition)
  await tx.run(lockTenant, [actor.tenantId])
  const { n } = (await tx.one<{ n: number }>(countInhibitions, [actor.tenantId]))!
  if (n >= MAX_INHIBITIONS)
    throw new AppError('conflict', `A tenant has at most ${MAX_INHIBITIONS} inhibitions.`)
  const id = newId()
  const row = await tx.one<InhibitionRow>(
    insertInhibition,
    inhibitionValues(actor.tenantId, id, definition, now),
  )
  if (!row) throw taken()
  await audit(tx, actor, {
    action: 'inhibition.created',
    objectKind: 'inhibition',
    objectId: id,
    details: definition,
    traceId,
  })
  return inhibitionOf(row)
}

export async function updateInhibition(
  tx: Tx,
  actor: Actor,
  id: Id,
  definition: WrittenInhibition,
  now: Date,
  traceId?: string,
): Promise<StoredInhibition> {
  checkInhibition(definition)
  await tx.run(lockTenant, [actor.tenantId])
  const before = await tx.one<InhibitionRow>(selectInhibitionForUpdate, [actor.tenantId, id])
  if (!before) throw noInhibition()
  if (await tx.one(nameTaken, [actor.tenantId, definition.name, id])) throw taken()
  const row = await tx.one<InhibitionRow>(
    updateInhibitionRow,
    inhibitionValues(actor.tenantId, id, definition, now),
  )
  const after = inhibitionOf(row!)
  await audit(tx, actor, {
    action: 'inhibition.updated',
    objectKind: 'inhibition',
    objectId: id,
    details: { before: inhibitionOf(before), after },
    traceId,
  })
  return after
}

export async function deleteInhibition(tx: Tx, actor: Actor, id: Id, traceId?: string): Promise<void> {
  const before = await tx.one<InhibitionRow>(selectInhibitionForUpdate, [actor.tenantId, id])
  if (!before) throw noInhibition()
  await tx.run(deleteInhibitionRow, [actor.tenantId, id])
  await audit(tx, actor, {
    action: 'inhibition.deleted',
    objectKind: 'inhibition',
    objectId: id,
    details: inhibitionOf(before),
    traceId,
  })
}

export async function findInhibition(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
): Promise<StoredInhibition | undefined> {
  const row = await q.one<InhibitionRow>(selectInhibition, [tenantId, id])
  return row && inhibitionOf(row)
}

/** Newest first. */
export async function listInhibitions(
  q: Queryable,
  tenantId: TenantId,
  after: Id | null,
  limit: number,
): Promise<StoredInhibition[]> {
  return (await q.rows<InhibitionRow>(selectInhibitions, [tenantId, after, limit])).map(inhibitionOf)
}

// ------------------------------------------------------------------ alerts

export interface StoredAlert {
  key: string
  ruleId: Id | null
  status: 'firing' | 'resolved'
  labels: Record<string, string>
  eventId: Id
  startedAt: Date
  endsAt: Date | null
  updatedAt: Date
}

// An alert whose end has passed is over, whether or not anybody said so.
const selectAlerts = sql(
  'list_alerts',
  `select key, rule_id, status, labels, event_id, started_at, ends_at, updated_at from (
     select *, case when status = 'firing' and ends_at <= $4 then 'resolved' else status end as now_is
     from alert_states where tenant_id = $1 and ($2::text is null or key > $2)
   ) a (tenant_id, key, rule_id, was, labels, event_id, at, started_at, ends_at, updated_at, status)
   where $3::text is null or status = $3
   order by key limit $5`,
)

interface AlertRow {
  key: string
  rule_id: Id | null
  status: StoredAlert['status']
  labels: Record<string, string>
  event_id: Id
  started_at: Date
  ends_at: Date | null
  updated_at: Date
}

/** By key. */
export async function listAlerts(
  q: Queryable,
  tenantId: TenantId,
  status: StoredAlert['status'] | undefined,
  after: string | null,
  limit: number,
  now: Date,
): Promise<StoredAlert[]> {
  const rows = await q.rows<AlertRow>(selectAlerts, [tenantId, after, status ?? null, now, limit])
  return rows.map(row => ({
    key: row.key,
    ruleId: row.rule_id,
    status: row.status,
    labels: row.labels,
    eventId: row.event_id,
    startedAt: row.started_at,
    endsAt: row.ends_at,
    updatedAt: row.updated_at,
  }))
}

const invalid = (field: string, message: string) => new AppError('invalid_request', message, { field })
const noInhibition = () => new AppError('not_found', 'There is no inhibition with this id.')
const taken = () =>
  new AppError('already_exists', 'There is an inhibition with this name.', { field: '/name' })
