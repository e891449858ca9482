import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { Channel, Id, TenantId } from '../types.ts'
import { CHANNEL_CODE, OUTCOME_CODE } from './rows.ts'

const selectLastTry = sql(
  'last_try_of_event',
  `select a.provider, a.message_id
   from events e
   join notifications n on n.tenant_id = e.tenant_id and n.id between e.first_id and e.last_id and n.event_id = e.id
   join attempts a on a.tenant_id = n.tenant_id and a.notification_id = n.id
   where e.tenant_id = $1 and e.id = $2 and a.channel = $3 and a.provider is not null
     and a.outcome in (${OUTCOME_CODE.delivered}, ${OUTCOME_CODE.sent}, ${OUTCOME_CODE.unknown})
   order by a.attempt desc, a.worker desc limit 1`,
)

/** The provider that took, or may have taken, what an event said on a channel, and its id for that. */
export async function lastTry(
  q: Queryable,
  tenantId: TenantId,
  eventId: Id,
  channel: Channel,
): Promise<{ provider: string; messageId: string | undefined } | undefined> {
  const row = await q.one<{ provider: string; message_id: string | null }>(selectLastTry, [
    tenantId,
    eventId,
    CHANNEL_CODE[channel],
  ])
  return row && { provider: row.provider, messageId: row.message_id ?? undefined }
}
