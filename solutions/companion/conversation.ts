import { createHash } from 'node:crypto'
import type { FeedView, Id, JsonObject, Person } from '../../server/solution.ts'
import { auraOf, threadOf } from './payload.ts'

/** A message as it stands in the conversation, in the documented names (AUR-008). */
export interface AuraMessage {
  id: Id
  /** It is the aura that speaks. */
  role: 'aura'
  aura_id: string
  rule_id: string | null
  title: string | null
  message: string
  priority: number | null
  context: JsonObject | null
  trigger_data: JsonObject | null
  status: 'delivered' | 'read'
  created_at: string
  read_at: string | null
}

/**
 * The id of the conversation that a person has with an aura: always the same one, so that finding it and creating it
 * are one thing. A UUID of version 8 (RFC 9562 §5.8).
 */
export function conversationId({ tenantId, userId }: Person, auraId: string): Id {
  const hex = createHash('sha256').update(`${tenantId} ${auraId.length} ${auraId} ${userId}`).digest('hex')
  const variant = '89ab'[Number.parseInt(hex[16]!, 16) & 3]
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20, 32)}`
}

export { auraOf, threadOf }

const objectOf = (value: unknown): JsonObject | null =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : null

export function messageOf(auraId: string, item: FeedView): AuraMessage {
  const data = item.data ?? {}
  return {
    id: item.id,
    role: 'aura',
    aura_id: auraId,
    rule_id: typeof data.ruleId === 'string' ? data.ruleId : null,
    title: item.subject,
    message: item.body,
    priority: typeof data.priority === 'number' ? data.priority : null,
    context: objectOf(data.context),
    trigger_data: objectOf(data.trigger_data),
    status: item.readAt === null ? 'delivered' : 'read',
    created_at: item.createdAt,
    read_at: item.readAt,
  }
}
