import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { RECIPIENT_TYPES } from '../types.ts'
import type { Id, TenantId, UserId } from '../types.ts'

const findRecipient = sql(
  'acknowledge_recipient',
  `select recipient_type, recipient_id from notifications where tenant_id = $1 and id = $2 for update`,
)
const insertAcknowledged = sql(
  'insert_acknowledged',
  `insert into engagement (tenant_id, id, notification_id, channel, kind, at, detail)
   select $1, $2, $3, 0, 'acknowledged', $4, $5
   where not exists (select from engagement e where e.tenant_id = $1 and e.notification_id = $3 and e.kind = 'acknowledged')
   returning at`,
)
const firstAt = sql(
  'acknowledged_at',
  `select min(at) as at from engagement where tenant_id = $1 and notification_id = $2 and kind = 'acknowledged'`,
)
// Due at once: whoever releases them sees that they are not needed (server/deliver/backlog.ts).
const wakeSteps = sql(
  'wake_escalations',
  `update jobs set run_at = least(run_at, $3)
   where tenant_id = $1 and kind = 'escalation' and owner = 0 and (notification_id = $2 or state ->> 'of' = $2::text)`,
)

/**
 * Somebody takes care of it: whatever was to follow if nobody did is called off. The first one counts.
 *
 * @param onlyFor when given, the notification must be this user's
 * @returns when it was first acknowledged, and whether that was just now
 * @throws AppError not_found
 */
export async function acknowledge(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  by: string,
  now: Date,
  onlyFor?: UserId,
): Promise<{ at: Date; first: boolean }> {
  const row = await tx.one<{ recipient_type: number; recipient_id: string }>(findRecipient, [tenantId, id])
  const type = row && RECIPIENT_TYPES[row.recipient_type]
  if (!row || (onlyFor !== undefined && (type !== 'user' || row.recipient_id !== onlyFor))) {
    throw new AppError('not_found', 'There is no notification with this id.')
  }
  const made = await tx.one<{ at: Date }>(insertAcknowledged, [
    tenantId,
    newId(now.getTime()),
    id,
    now,
    JSON.stringify({ by }),
  ])
  await tx.run(wakeSteps, [tenantId, id, now])
  if (made) return { at: made.at, first: true }
  return { at: (await tx.one<{ at: Date }>(firstAt, [tenantId, id]))!.at, first: false }
}
