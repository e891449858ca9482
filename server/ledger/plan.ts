import type {
  About,
  Channel,
  Content,
  Event,
  Id,
  JsonObject,
  Priority,
  RecipientType,
  TenantId,
} from '../types.ts'
import type { TakenUsage } from '../limits/usage.ts'
import type { Tracking } from '../people/tracking-consent.ts'
import type { DigestWish, Reason } from '../reasons.ts'

/** What planning a batch came to. */
export interface Plan {
  events: PlannedEvent[]
  /** What the decisions used up: written in the same transaction, or none of it is (server/ledger/usage.ts). */
  usage: TakenUsage | null
}

/** What planning an event came to: everything one transaction has to write about it. */
export interface PlannedEvent {
  event: Event
  /** Sealed event data. */
  sealed: Buffer
  /** Whose key sealed it; absent: the tenant's. */
  sealedFor?: string
  /** False: only accepted; a row in `planning` makes a worker plan it. */
  planned: boolean
  /** When planning is left to a worker: not before this instant. */
  planAt?: Date
  /** JSON text of the decision trace (server/decide/trace.ts). */
  trace: string | null
  notifications: PlannedNotification[]
  /** Deliveries decided about: sent, held and skipped. */
  deliveries: number
  /** Of these, skipped. */
  suppressed: number
  /** How the alerts stand that this event speaks of; written with it, whoever was or was not told. */
  alerts?: readonly PlannedAlert[]
  /** Whom an experiment told nothing. */
  heldOut?: readonly HeldOut[]
}

/** How an alert stands after an event (server/ledger/alert-states.ts). */
export interface PlannedAlert {
  /** Of the alert within its tenant; at most 300 characters. */
  key: string
  /** Whose key it is; absent: the sender's own. */
  ruleId?: Id
  status: 'firing' | 'resolved'
  /** What matchers may ask for later; no content. */
  labels: Readonly<Record<string, string>>
  /** When it became so, at the producer. */
  at: Date
  startedAt: Date
  endsAt: Date | null
}

/** One person told about one event by one rule. */
export interface PlannedNotification {
  id: Id
  tenantId: TenantId
  event: Event
  recipientType: RecipientType
  recipientId: string
  ruleId: Id | null
  templateId: Id | null
  revision: number | null
  locale: string | null
  /** The experiment that counts what becomes of it, and the variant it says. */
  experiment?: { id: Id; variant: string }
  priority: Priority
  category: string
  /** Deliveries to make now or later, in order; never a skipped one. */
  channels: Channel[]
  fallback: Channel[]
  /** Those of `channels` that wait for a time. */
  holds: PlannedHold[]
  /** Those of `channels` that wait for their digest. */
  collects: PlannedCollect[]
  /** Its inbox item takes the place of the one that told of the same before (server/ledger/replace-feed.ts). */
  about?: About
  /** What it belongs to (server/types.ts, `Message.thread`). */
  thread?: string
  expiresAt: Date | null
  scheduledAt: Date | null
  /** What each channel, fallback channels included, would send. */
  bodies: Partial<Record<Channel, AddressedContent>>
  /** `bodies`, sealed under the recipient's key. */
  sealed: Buffer
  /** Short links that stand in the bodies. */
  links?: readonly PlannedLink[]
}

/** Where a short link leads, sealed (server/track/short-links.ts). */
export interface PlannedLink {
  tenantId: TenantId
  hash: Buffer
  box: Buffer
  expiresAt: Date
}

export interface PlannedHold {
  channel: Channel
  until: Date
  reason: Reason
  /** An escalation goes only if something did not happen until then; `state` says what. Default `held`. */
  kind?: 'held' | 'escalation'
  /** For whoever releases it (server/deliver/release.ts). */
  state?: JsonObject
}

/** A delivery that waits for its digest. */
export interface PlannedCollect {
  channel: Channel
  wish: DigestWish
}

/** Content with the address it goes to; sealed together, because both are personal. */
export interface AddressedContent extends Content {
  to: string
  settings?: JsonObject
  /** Further devices of the same person, which get the same. */
  others?: { to: string; settings?: JsonObject }[]
  /** What is noticed of it once it is read (server/track/rewrite.ts). */
  track?: Tracking
  /** Where the event asks for another number of tries than the channel's. */
  maxRetries?: number
  /** Of a rule's state: at the far end, too, it may take the place of what was said before. */
  about?: About
}

/** Somebody whom an experiment told nothing, so that no notification says so. */
export interface HeldOut {
  tenantId: TenantId
  experimentId: Id
  recipientType: RecipientType
  recipientId: string
}
