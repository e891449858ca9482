import { idTime } from '../db/ids.ts'
import { sendsNow } from '../ledger/commit.ts'
import type { Batch } from '../ledger/commit.ts'
import type { AddressedContent } from '../ledger/plan.ts'
import type { Channel, Id, JsonObject, Message, Priority, Recipient, TenantId } from '../types.ts'

/** One notification on one channel, in memory, on its way to a provider. */
export interface Delivery {
  tenantId: TenantId
  notificationId: Id
  channel: Channel
  recipient: Recipient
  priority: Priority
  eventId: Id
  eventType: string
  createdAtMs: number
  expiresAtMs: number | null
  traceId?: string
  thread?: string
  body: AddressedContent
  /** Tries already recorded. */
  tries: number
  /** Has the notification fallback channels? */
  hasFallback: boolean
  /** An experiment counts what becomes of it. */
  measured?: boolean
  /** The provider to begin with; null: the first of the channel. */
  provider: string | null
  /** What its job kept between two tries. */
  state?: JsonObject
  /** Where its lease is: the batch it came in, or a job row of its own (null). */
  batch: LiveBatch | null
}

/** A batch of ours in memory: when `left` reaches 0, its row goes in the same transaction. */
export interface LiveBatch {
  id: number
  owner: number
  left: number
}

/** What belongs to one message and is made whenever it is sent. */
export type MessageLinks = Pick<Message, 'unsubscribeUrl' | 'returnPath'>

export const toMessage = (delivery: Delivery, links?: MessageLinks): Message => ({
  tenantId: delivery.tenantId,
  notificationId: delivery.notificationId,
  channel: delivery.channel,
  idempotencyKey: `${delivery.notificationId}.${delivery.channel}`,
  to: delivery.body.to,
  recipient: delivery.recipient,
  content: delivery.body,
  priority: delivery.priority,
  attempt: delivery.tries + 1,
  eventId: delivery.eventId,
  eventType: delivery.eventType,
  createdAt: delivery.createdAtMs,
  traceId: delivery.traceId,
  ...links,
  addressSettings: delivery.body.settings,
  ...(delivery.body.about && { about: delivery.body.about }),
  ...(delivery.thread !== undefined && { thread: delivery.thread }),
})

/** What a committed batch sends now, ready for the loop; its notifications are still in memory. */
export function deliveriesOf(batch: Batch, owner: number): Delivery[] {
  const live: LiveBatch = { id: batch.id, owner, left: batch.sends }
  return batch.notifications.flatMap(notification =>
    sendsNow(notification).map(channel => ({
      tenantId: notification.tenantId,
      notificationId: notification.id,
      channel,
      recipient: { type: notification.recipientType, id: notification.recipientId },
      priority: notification.priority,
      eventId: notification.event.id,
      eventType: notification.event.type,
      createdAtMs: idTime(notification.id),
      expiresAtMs: notification.expiresAt?.getTime() ?? null,
      traceId: notification.event.traceId,
      thread: notification.thread,
      body: notification.bodies[channel]!,
      tries: 0,
      hasFallback: notification.fallback.length > 0,
      measured: notification.experiment !== undefined,
      provider: null,
      batch: live,
    })),
  )
}
