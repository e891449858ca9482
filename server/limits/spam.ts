import { type Actor, audit } from '../admin/audit.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, TenantId, UserId } from '../types.ts'

export const SPAM_ACTIONS = ['THROTTLE', 'BLOCK'] as const
export type SpamAction = (typeof SPAM_ACTIONS)[number]

/** What one limit took for abuse in one of its windows. Written with the plans (server/ledger/usage.ts). */
export interface SpamDetection {
  id: Id
  userId: UserId | null
  /** The limit's name and bound. */
  detectionRule: string
  channel: Channel
  eventType: string
  action: SpamAction
  windowStart: Date
  max: number
  /** Beyond `max`: slowed down, or left out. */
  stopped: number
  detectedAt: Date
  lastAt: Date
  resolvedAt: Date | null
  notes: string | null
}

interface Row {
  id: Id
  user_id: UserId | null
  rule: string
  channel: number
  event_type: string
  action: SpamAction
  window_at: Date
  max: number
  stopped: number
  detected_at: Date
  last_at: Date
  resolved_at: Date | null
  notes: string | null
}

const COLUMNS = `id, user_id, rule, channel, event_type, action, window_at, max::float8, stopped::float8, detected_at,
  last_at, resolved_at, notes`
const list = sql(
  'list_spam_detections',
  `select ${COLUMNS} from spam_detections
   where tenant_id = $1 and ($2::text is null or user_id = $2) and ($3::text is null or action = $3)
     and ($4::boolean is null or (resolved_at is not null) = $4) and ($5::uuid is null or id < $5)
   order by id desc limit $6`,
)
const resolve = sql(
  'resolve_spam_detection',
  `update spam_detections set resolved_at = coalesce(resolved_at, $3), notes = coalesce($4, notes)
   where tenant_id = $1 and id = $2 returning ${COLUMNS}`,
)

const read = (row: Row): SpamDetection => ({
  id: row.id,
  userId: row.user_id,
  detectionRule: row.rule,
  channel: CHANNELS[row.channel]!,
  eventType: row.event_type,
  action: row.action,
  windowStart: row.window_at,
  max: row.max,
  stopped: row.stopped,
  detectedAt: row.detected_at,
  lastAt: row.last_at,
  resolvedAt: row.resolved_at,
  notes: row.notes,
})

/** In hundredths of what was bearable: all that came, those let through included. */
export const riskScore = ({ max, stopped }: Pick<SpamDetection, 'max' | 'stopped'>): number =>
  Math.round((100 * (max + stopped)) / Math.max(1, max))

export interface SpamFilter {
  userId?: UserId | undefined
  action?: SpamAction | undefined
  resolved?: boolean | undefined
}

/** Newest first, after `after`. */
export const listSpam = async (
  q: Queryable,
  tenantId: TenantId,
  { userId, action, resolved }: SpamFilter,
  after: Id | null,
  limit: number,
): Promise<SpamDetection[]> =>
  (await q.rows<Row>(list, [tenantId, userId ?? null, action ?? null, resolved ?? null, after, limit])).map(
    read,
  )

/** Somebody looked into it. Once resolved it stays so; notes may be written again. @throws AppError not_found */
export async function resolveSpam(
  tx: Tx,
  actor: Actor,
  id: Id,
  notes: string | null,
  now: Date,
): Promise<SpamDetection> {
  const row = await tx.one<Row>(resolve, [actor.tenantId, id, now, notes])
  if (!row) throw new AppError('not_found', 'There is no detection with this id.')
  await audit(tx, actor, {
    action: 'spam.resolved',
    objectKind: 'spam_detection',
    objectId: id,
    details: { rule: row.rule, userId: row.user_id },
  })
  return read(row)
}
