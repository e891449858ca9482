import type { Outcome } from './types.ts'

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

  // why it waits
  scheduled: { text: 'It is to be sent at a later time' },
  rule_schedule: { text: 'The rule sends at set times' },
  retry: { text: 'The last try failed; the next one is due later' },
  rate_limited: { text: 'The provider asked to wait' },
  provider_rate: { text: "The provider's own rate is used up" },
  breaker_open: { text: "The provider's circuit breaker is open" },
  fallback: { text: 'The channels before it did not deliver' },
  redriven: { text: 'An operator sent it again' },
  spilled: { text: 'It waits in the backlog' },

  // why it ended
  cancelled: { text: 'It was cancelled' },
} as const satisfies Record<string, { text: string }>

export type Reason = keyof typeof REASONS

/** What one check says about one delivery. The first that is not `send` decides; all are in the trace. */
export type Decision =
  | { kind: 'send' }
  | { kind: 'hold'; until: Date; reason: Reason; detail?: string }
  | { kind: 'digest'; key: string; until: Date; reason: Reason; detail?: string }
  | { kind: 'skip'; reason: Reason; detail?: string }

export const SEND: Decision = Object.freeze({ kind: 'send' })

/** What a skipped delivery counts as. */
export const skipOutcome = (reason: Reason): Outcome => (reason === 'expired' ? 'expired' : 'suppressed')
