import type { ChangeView, Dialect, FeedView } from '../../server/solution.ts'
import { auraOf, conversationId, messageOf } from './conversation.ts'
import type { AuraMessage } from './conversation.ts'

/** The documented event (AUR-131), with `seq`, from which a client resumes. */
export interface RealtimeEvent {
  type: 'proactive_message' | 'notification_delivered' | 'notification_read'
  auraId: string
  conversationId: string
  /** Of one message; without it all of the conversation. */
  notification?: AuraMessage | { id: string; read_at: string | null }
  /** ISO 8601. */
  timestamp: string
  seq: number
}

/** Seen is what a client says when it has shown a message: then it has been delivered to somebody. */
const TYPES: Partial<Record<ChangeView['change'], RealtimeEvent['type']>> = {
  seen: 'notification_delivered',
  read: 'notification_read',
  thread_read: 'notification_read',
}

/**
 * `/realtime?as=aura`: what happens in conversations with auras. The rest of the inbox is left out; what holds for all
 * of it (`all_read`, counts, resets, pings) comes in the core's own words.
 */
export const aura: Dialect = (envelope, person) => {
  const { type, at: timestamp, seq, data } = envelope
  if (type === 'notification') {
    const item = data as FeedView
    const auraId = auraOf(item.thread)
    if (auraId === undefined) return undefined
    const said: RealtimeEvent = {
      type: 'proactive_message',
      auraId,
      conversationId: conversationId(person, auraId),
      notification: messageOf(auraId, item),
      timestamp,
      seq,
    }
    return said
  }
  if (type !== 'change') return envelope
  const { change, id, thread, readAt = null } = data as ChangeView
  if (change === 'all_read' || change === 'all_seen') return envelope
  const auraId = auraOf(thread)
  const word = TYPES[change]
  if (auraId === undefined || word === undefined) return undefined
  const said: RealtimeEvent = {
    type: word,
    auraId,
    conversationId: conversationId(person, auraId),
    ...(id !== null && { notification: { id, read_at: readAt } }),
    timestamp,
    seq,
  }
  return said
}
