import type { Id, TenantId } from '../../server/solution.ts'
import type { Payload } from './payload.ts'

/** Where an aura can speak (AUR-010). The core's names of channels. */
export const NOTIFICATION_CHANNELS = ['in_app', 'web_push', 'sms', 'whatsapp', 'email'] as const
export type NotificationChannel = (typeof NOTIFICATION_CHANNELS)[number]

/** One of them, as something that delivers. */
export interface ChannelAdapter {
  readonly channel: NotificationChannel
  /** The setting that switches it on, and whether it does. */
  readonly setting: string
  readonly enabled: boolean
  /**
   * On this channel alone, whatever the payload lists.
   *
   * @throws AppError channel_unavailable (5002) when it is switched off, before anything is stored
   */
  deliver(asked: Asked): Promise<DeliveryResult>
}

/** What is to be said on behalf of one tenant; `id` makes a second time of it a repetition. */
export interface Asked {
  tenantId: TenantId
  payload: Payload
  id?: string
}

/** What became of a message on one channel, as of the answer. Later word is at `GET /api/notifications/{id}`. */
export interface DeliveryResult {
  channel: NotificationChannel
  /**
   * - `delivered`: it is in the conversation, or the far end says that it arrived; `sent`: a provider took it
   * - `queued`: on its way, or waiting for the time in `until`
   * - `suppressed`: decided against; `failed`: it cannot go. Both have an `error`
   */
  status: 'delivered' | 'sent' | 'queued' | 'suppressed' | 'failed'
  eventId: Id
  notificationId: Id | null
  /** ISO 8601. */
  until?: string
  error?: DeliveryProblem
}

/** In the documented words and numbers (AUR-148). */
export interface DeliveryProblem {
  /** Such as 5002. */
  code: number
  /** Such as CHANNEL_UNAVAILABLE. */
  name: string
  /** The core's own reason, such as `preference_channel_off`. */
  reason: string
  message: string
}
