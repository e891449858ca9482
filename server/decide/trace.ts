import { CHANNELS, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Id, Recipient, RecipientType } from '../types.ts'
import { REASONS } from '../reasons.ts'
import type { Decision, Reason } from '../reasons.ts'

/**
 * What was considered and decided, as it is kept with the event: short names, because every event has one.
 * `why` reads it back with `readTrace`; nothing else does.
 *
 * `rules[].r` is the rule's number (null for a direct request), `v` its revision. A rule that did not take the
 * event has `w`, the reason. `to` holds each recipient: type code, id, then one entry a channel: channel code,
 * and for anything but a send the decision's first letter, reason, detail and instant. An object among them says the
 * experiment `x` and the variant `v` they are in.
 */
export interface StoredTrace {
  rules: StoredRule[]
  /** Rules that were looked at and did not match, beyond the ones listed. */
  more?: number
  /** Why nothing was planned at all. */
  w?: Reason
}

export interface StoredRule {
  r: number | null
  v?: number
  w?: Reason
  e?: string
  to?: [type: number, id: string, ...decisions: StoredDecision[]][]
}

/** The experiment somebody is in, and which part of it. */
export interface StoredVariant {
  x: Id
  v: string
}

type StoredDecision =
  | number
  | StoredVariant
  | [channel: number, kind: 'h' | 'd' | 's', reason: Reason, detail?: string | null, until?: number]

const CODE = Object.fromEntries(CHANNELS.map((channel, code) => [channel, code])) as Record<Channel, number>
const TYPE = Object.fromEntries(RECIPIENT_TYPES.map((type, code) => [type, code])) as Record<
  RecipientType,
  number
>
const KIND = { hold: 'h', digest: 'd', skip: 's' } as const

export function storeDecision(channel: Channel, decision: Decision): StoredDecision {
  const code = CODE[channel]
  if (decision.kind === 'send') return code
  const until = decision.kind === 'skip' ? undefined : decision.until.getTime()
  if (until !== undefined) return [code, KIND[decision.kind], decision.reason, decision.detail ?? null, until]
  if (decision.detail !== undefined) return [code, KIND[decision.kind], decision.reason, decision.detail]
  return [code, KIND[decision.kind], decision.reason]
}

export const storeRecipient = (
  recipient: Recipient,
  decisions: StoredDecision[],
): [number, string, ...StoredDecision[]] => [TYPE[recipient.type], recipient.id, ...decisions]

export interface TraceDecision {
  channel: Channel
  decision: 'send' | 'hold' | 'digest' | 'skip'
  reason?: Reason
  /** The reason in words. */
  text?: string
  detail?: string
  until?: string
}

export interface TraceRecipient {
  type: RecipientType
  id: string
  /** The experiment they are in, and which part of it: a variant, or `holdout`. */
  experiment?: { id: Id; variant: string }
  decisions: TraceDecision[]
}

export interface TraceRule {
  no: number | null
  revision?: number
  matched: boolean
  why?: Reason
  text?: string
  error?: string
  recipients: TraceRecipient[]
}

export function readTrace(stored: StoredTrace): TraceRule[] {
  return stored.rules.map(rule => ({
    no: rule.r,
    revision: rule.v,
    matched:
      rule.w === undefined ||
      rule.to !== undefined ||
      rule.w === 'no_recipients' ||
      rule.w === 'recipients_error',
    why: rule.w,
    text: rule.w && REASONS[rule.w].text,
    error: rule.e,
    recipients: (rule.to ?? []).map(([type, id, ...stored]) => {
      const part = stored.find(isVariant)
      const decisions = stored.filter(isDecision)
      return {
        type: RECIPIENT_TYPES[type]!,
        id,
        ...(part && { experiment: { id: part.x, variant: part.v } }),
        decisions: decisions.map(readDecision),
      }
    }),
  }))
}

const WORD = { h: 'hold', d: 'digest', s: 'skip' } as const

const isVariant = (stored: StoredDecision): stored is StoredVariant =>
  typeof stored === 'object' && !Array.isArray(stored)
const isDecision = (stored: StoredDecision): stored is Exclude<StoredDecision, StoredVariant> =>
  !isVariant(stored)

function readDecision(stored: Exclude<StoredDecision, StoredVariant>): TraceDecision {
  if (typeof stored === 'number') return { channel: CHANNELS[stored]!, decision: 'send' }
  const [code, kind, reason, detail, until] = stored
  return {
    channel: CHANNELS[code]!,
    decision: WORD[kind],
    reason,
    text: REASONS[reason]?.text,
    ...(detail == null ? {} : { detail }),
    ...(until === undefined ? {} : { until: new Date(until).toISOString() }),
  }
}
