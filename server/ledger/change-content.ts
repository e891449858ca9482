import { sql } from '../db/pool.ts'
import type { Tx } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Id, JsonObject, TenantId } from '../types.ts'
import type { ContentChanger } from './notifications.ts'
import type { AddressedContent } from './plan.ts'
import { deliveriesOf } from './status.ts'

/** What is said instead; what is left out stays. */
export interface ChangedContent {
  /** Only there; else wherever it goes. */
  channel?: Channel
  subject?: string
  body?: string
  html?: string
  data?: JsonObject
}

// As cancelling does it: whoever begins a fallback, or closes a digest, comes before us or after us.
const lock = sql(
  'change_content_lock',
  `select recipient_type, recipient_id, content from notifications where tenant_id = $1 and id = $2 for update`,
)
const lockJobs = sql(
  'change_content_lock_jobs',
  `select channel from jobs where tenant_id = $1 and notification_id = $2 and owner = 0 and attempt = 0 for update`,
)
const write = sql('change_content', `update notifications set content = $3 where tenant_id = $1 and id = $2`)

/**
 * Says something else, as long as all of it still waits and nothing was tried: what one channel has said already
 * cannot be unsaid, and two texts under one notification would explain nothing.
 *
 * @returns the channels on which it says something else now
 * @throws AppError not_found, also once the person was erased; conflict when a delivery has begun; invalid_request for
 *   a channel it does not go to
 */
export async function changeContent(
  tx: Tx,
  tenantId: TenantId,
  id: Id,
  given: ChangedContent,
  reseal: ContentChanger,
): Promise<Channel[]> {
  const none = () => new AppError('not_found', 'There is no notification with this id.')
  const found = await tx.one<{ recipient_type: number; recipient_id: string; content: Buffer }>(lock, [
    tenantId,
    id,
  ])
  if (!found) throw none()
  const waiting = new Set(
    (await tx.rows<{ channel: number }>(lockJobs, [tenantId, id])).map(({ channel }) => CHANNELS[channel]!),
  )
  const begun = ((await deliveriesOf(tx, tenantId, [id])).get(id) ?? []).filter(
    ({ channel, attempts }) => !waiting.has(channel) || attempts > 0,
  )
  if (waiting.size === 0 || begun.length > 0) {
    throw new AppError('conflict', 'A delivery of this notification has begun, or all have ended.', {
      extra: { deliveries: begun.map(({ channel, status }) => ({ channel, status })) },
    })
  }
  const { channel: only, ...texts } = given
  if (only !== undefined && !waiting.has(only)) {
    throw new AppError('invalid_request', 'The notification does not go there.', { field: '/channel' })
  }
  const changed: Channel[] = []
  const sealed = await reseal(
    tx,
    tenantId,
    {
      recipient: { type: RECIPIENT_TYPES[found.recipient_type]!, id: found.recipient_id },
      sealed: found.content,
    },
    (channel, body) => {
      if (only !== undefined && channel !== only) return body
      changed.push(channel)
      return changedBody(body, texts)
    },
  )
  if (!sealed) throw none()
  await tx.run(write, [tenantId, id, sealed])
  return changed
}

/** A new text without HTML takes the old HTML with it, or mail clients would go on showing that. */
function changedBody(body: AddressedContent, texts: Omit<ChangedContent, 'channel'>): AddressedContent {
  const { html: old, ...rest } = body
  const html = texts.html ?? (texts.body === undefined ? old : undefined)
  const { subject, body: text, data } = texts
  return {
    ...rest,
    ...(subject !== undefined && { subject }),
    ...(text !== undefined && { body: text }),
    ...(html !== undefined && { html }),
    ...(data !== undefined && { data }),
  }
}
