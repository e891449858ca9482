import type { Id, JsonObject, Outcome } from './types.ts'

/**
 * Every reason a delivery was not sent at once, once. A decision, a job and an attempt carry one of these keys;
 * logs, metrics, `why` and the console show it. docs/reference/reasons.md lists the same table; a test compares.
 */
export const REASONS = {
  // what became of the event itself
  schema_violation: { text: "The event does not fit its type's JSON Schema" },
  event_type_disabled: { text: 'This event type is switched off' },
  no_rule_matched: { text: 'No rule matched the event' },

  // why a rule did not take the event
  pattern_false: { text: "The rule's pattern is false for this event" },
  pattern_error: { text: "The rule's pattern could not be evaluated for this event" },
  outside_validity: { text: "The event came outside the rule's validity" },
  rule_disabled: { text: 'The rule is switched off' },
  no_recipients: { text: "The rule's selector named nobody" },
  recipients_error: { text: "The rule's recipient expression could not be evaluated" },

  // why a person did not get it on a channel
  duplicate_recipient: { text: 'This rule already told this recipient about this event' },
  expired: { text: 'It expired before it could be sent' },
  unknown_user: { text: 'There is no such user' },
  user_disabled: { text: 'The user is disabled' },
  user_erased: { text: "The user's data was erased" },
  preference_global_off: { text: 'The user switched all notifications off' },
  preference_channel_off: { text: 'The user, or the tenant default, switched this channel off' },
  topic_important_only: { text: 'The user wants only important messages of this topic' },
  missing_address: { text: 'The user has no address for this channel' },
  unverified_address: { text: "The user's address for this channel is not verified" },
  suppressed_address: { text: 'The address is on the suppression list' },
  channel_unavailable: { text: 'No provider is set up for this channel' },
  render_failed: { text: 'The content could not be rendered' },

  silenced: { text: 'An operator silenced it' },
  inhibited: { text: 'A more important alert covers it' },
  muted: { text: 'The user muted it for now' },
  preference_category_off: { text: 'The user, or the tenant default, switched this category off' },
  preference_scope_off: { text: 'The user, or the tenant default, switched this rule or source off' },
  below_minimum_priority: { text: 'It is less important than the user wants to hear of' },
  no_consent: { text: 'The user never agreed to messages of this kind' },
  cooldown: { text: 'The rule told about the same thing before, and its cooldown is not over' },
  repeated: { text: 'The same text was sent to this recipient a short time ago' },
  similar: { text: 'Almost the same text was sent to this recipient a short time ago' },
  spam: { text: 'It looks like spam' },
  over_limit: { text: 'It would exceed a limit' },
  channel_not_allowed: { text: "The channel is not part of the user's plan" },

  holdout: { text: 'An experiment tells some people nothing, to compare with the others' },

  // why it waits
  scheduled: { text: 'It is to be sent at a later time' },
  rule_schedule: { text: 'The rule sends at set times' },
  quiet_hours: { text: "It is the user's quiet time" },
  delivery_window: { text: 'It is outside the times at which it may be delivered' },
  limit: { text: 'A limit is reached; it goes with the next free window' },
  minimum_gap: { text: 'The message before it is too recent' },
  throttled: { text: 'Too much of the same kind; it is slowed down' },
  digest: { text: 'It is collected and goes together with others' },
  frequency: { text: 'The user wants a summary instead of single messages' },
  attention: { text: "The user's attention budget is spent; it joins the summary" },
  group: { text: 'It goes together with the other alerts of its group' },
  escalation: { text: 'It goes only if nobody reacts before' },
  retry: { text: 'The last try failed; the next one is due later' },
  rate_limited: { text: 'The provider asked to wait' },
  provider_rate: { text: "The provider's own rate is used up" },
  breaker_open: { text: "The provider's circuit breaker is open" },
  fallback: { text: 'The channels before it did not deliver' },
  redriven: { text: 'An operator sent it again' },
  spilled: { text: 'It waits in the backlog' },

  // why it ended
  cancelled: { text: 'It was cancelled' },
  in_digest: { text: 'It went as part of a digest' },
  not_retained: { text: 'Its digest kept other items' },
  condition_met: { text: 'What it was waiting for happened, so it was not needed' },
  acknowledged: { text: 'Somebody acknowledged it' },
  retracted: { text: 'It is no longer true' },
  preference_changed: { text: 'The user decided otherwise while it waited' },
} as const satisfies Record<string, { text: string }>

export type Reason = keyof typeof REASONS

/** What one check says about one delivery. The first that is not `send` decides; all are in the trace. */
export type Decision =
  | { kind: 'send' }
  | { kind: 'hold'; until: Date; reason: Reason; detail?: string; over?: Over }
  | { kind: 'digest'; wish: DigestWish; until: Date; reason: Reason; detail?: string; over?: Over }
  | { kind: 'skip'; reason: Reason; detail?: string; over?: Over }

/** The counter of a limit that had no room. */
export interface Over {
  key: string
  /** Of the limit, with its bound: 'email 100/hour'. */
  label: string
  /** Of the full window, in milliseconds since 1970; of a pause its end. */
  windowMs: number
  max: number
  used: number
  /** It takes this for abuse. */
  suspicious: boolean
}

/** Which digest a delivery joins, and how that digest is opened if there is none yet. */
export interface DigestWish {
  /** Beside recipient and channel; at most 500 characters. */
  key: string
  /** Null: the reader's own frequency, or what a limit left over. */
  ruleId: Id | null
  reason: Reason
  closesAt: Date
  /** However many more come. */
  latestAt: Date
  /** Closes after so long without a new item. */
  quietSeconds: number | null
  maxItems: number
  /** retain, single, template: for whoever closes it (server/digest/). */
  spec: JsonObject
}

export const SEND: Decision = Object.freeze({ kind: 'send' })

/** What a skipped delivery counts as. */
export const skipOutcome = (reason: Reason): Outcome => (reason === 'expired' ? 'expired' : 'suppressed')
