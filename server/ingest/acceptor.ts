import type { Channel, Event, Id, TenantId } from '../types.ts'

/**
 * The one way in. Every door (REST, CloudEvents, webhooks, a broker) turns what it gets into events and hands them
 * here; it answers its client only after the transaction that made them durable.
 */
export interface Acceptor {
  /**
   * Accepts all events of one request, in one transaction together with others that came at the same time.
   *
   * @throws AppError queue_full or shutting_down, before anything is stored
   */
  accept(request: AcceptRequest): Promise<AcceptAnswer>
  /**
   * What an earlier request with this Idempotency-Key was told, if there was one.
   *
   * @throws AppError idempotency_mismatch or idempotency_running
   */
  answered(
    tenantId: TenantId,
    idempotency: NonNullable<AcceptRequest['idempotency']>,
  ): Promise<AcceptAnswer | undefined>
}

export interface AcceptRequest {
  tenantId: TenantId
  /** 1 to 1,000. */
  events: Event[]
  /** Present when the client sent an Idempotency-Key (server/ingest/idempotency.ts makes both). */
  idempotency?: { key: string; fingerprint: Buffer }
  /**
   * What the client will be told. Called once, before the commit, because under an Idempotency-Key the answer is
   * stored in the same transaction.
   */
  answer(results: Accepted[]): Answer
}

export interface Answer {
  status: number
  body: unknown
}

export interface AcceptAnswer extends Answer {
  /** The answer was stored by an earlier request with the same key. */
  replayed: boolean
}

/** What became of one event, in the order of the request. */
export interface Accepted {
  eventId: Id
  /**
   * - `planned`: decided, and whatever leaves is on its way
   * - `pending`: durable, planned later (scheduled, or a large audience)
   * - `duplicate`: (source, id) was accepted before; `eventId` is the earlier event's
   * - `refused`: outside its type's schema, or the type is disabled: kept as a dead letter
   */
  status: 'planned' | 'pending' | 'duplicate' | 'refused'
  /** Of a refused one: in words, without content. */
  error?: { field: string; message: string }
  notifications: { id: Id; recipientId: string; channels: Channel[] }[]
  /** Deliveries that were decided against. */
  suppressed: number
}

/** Checks events against their registered types. Synchronous: it knows what the last look at `changes` showed. */
export interface EventTypes {
  /** Null when the event may pass. Also fills the event's category and priority from its type where it has none. */
  refuse(
    event: Event,
  ): { reason: 'schema_violation' | 'event_type_disabled'; field: string; message: string } | null
}
