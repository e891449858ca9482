import type { Queryable } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { REASONS, type Reason } from '../reasons.ts'
import { openAt } from '../time/delivery-window.ts'
import { quietUntil } from '../time/quiet-hours.ts'
import type { Channel, JsonObject, Priority, TenantId, UserId } from '../types.ts'
import {
  type EffectivePreference,
  effectivePreference,
  type PreferenceCap,
  tooUnimportant,
  unwanted,
} from './effective-preference.ts'
import { peopleFacts } from './facts.ts'
import { classOf, type MessageClass, scopesOf } from './preference-scopes.ts'
import { namesEvent } from './preference-settings.ts'

/** A notification that might be. */
export interface EvaluationInput {
  userId: UserId
  channels: readonly Channel[]
  category: string
  eventType: string
  priority: Priority
  /** Absent: what follows from the category and the event type. */
  class?: MessageClass | undefined
  topics?: readonly string[] | undefined
  ruleId?: string | undefined
  /** The rule's own number, 1–10. */
  score?: number | undefined
  /** Of a solution: `aura:<id>`, `alert:<id>`. */
  scopes?: readonly string[] | undefined
}

export interface ChannelEvaluation {
  channel: Channel
  /** By preferences alone: limits, addresses and what the rule says of its times come on top. */
  outcome: 'send' | 'hold' | 'digest' | 'skip'
  reason: Reason | null
  /** The reason in words. */
  text: string | null
  /** The layer that had the word, and more. */
  detail: string | null
  until: Date | null
  enabled: boolean
  layer: string
  required: boolean
  frequency: EffectivePreference['frequency']
  /** Every setting that holds, and where it comes from. */
  settings: { name: string; value: unknown; layer: string }[]
  caps: readonly PreferenceCap[]
}

export interface Evaluation {
  userId: UserId
  at: Date
  class: MessageClass
  /** Most specific first. */
  scopes: string[]
  channels: ChannelEvaluation[]
}

/**
 * What the preferences of a person would make of a notification at an instant.
 *
 * @throws AppError not_found
 */
export async function evaluatePreferences(
  q: Queryable,
  sealer: { unwrap(wrapped: Buffer): Buffer },
  tenantId: TenantId,
  input: EvaluationInput,
  at: Date,
): Promise<Evaluation> {
  const facts = await peopleFacts({ sealer, max: 2 }).load(q, [{ tenantId, userIds: [input.userId] }])
  const user = facts.get(tenantId, input.userId)
  if (!user?.known) throw new AppError('not_found', 'There is no such user.')
  const { category, eventType, priority, score = null } = input
  const scopes = scopesOf(input)
  const messageClass = input.class ?? classOf(category, eventType)
  scopes[scopes.length - 1] = `class:${messageClass}`
  return {
    userId: input.userId,
    at,
    class: messageClass,
    scopes,
    channels: input.channels.map(channel => {
      const question = { channel, scopes, eventType, priority }
      const found = effectivePreference(user.preferences, facts.tenantDefaults(tenantId), question)
      const {
        outcome,
        reason = null,
        detail = null,
        until = null,
      } = weigh(found, { channel, eventType, priority, score, zone: user.timezone }, at)
      const { enabled, layer, required, frequency, caps } = found
      const text = reason && REASONS[reason].text
      const settings = settingsOf(found)
      return {
        channel,
        outcome,
        reason,
        text,
        detail,
        until,
        enabled,
        layer,
        required,
        frequency,
        settings,
        caps,
      }
    }),
  }
}

/** The end of the quiet hours in which a companion may not tell this person something by a channel; null: none now. */
export async function quietHoursOf(
  q: Queryable,
  sealer: { unwrap(wrapped: Buffer): Buffer },
  tenantId: TenantId,
  { userId, channel, auraId }: { userId: UserId; channel: Channel; auraId: string },
  at: Date,
): Promise<Date | null> {
  const facts = await peopleFacts({ sealer, max: 2 }).load(q, [{ tenantId, userIds: [userId] }])
  const user = facts.get(tenantId, userId)
  // Nobody we know has hours; what becomes of a message to them is said by its trace.
  if (!user?.known) return null
  const { quietHours } = effectivePreference(user.preferences, facts.tenantDefaults(tenantId), {
    channel,
    scopes: scopesOf({ category: '', eventType: '', scopes: [`aura:${auraId}`] }),
    eventType: '',
    priority: 'NORMAL',
  })
  // A companion keeps quiet in the inbox too.
  return quietHours === undefined ? null : quietUntil(at, quietHours, user.timezone)
}

interface Verdict {
  outcome: ChannelEvaluation['outcome']
  reason?: Reason
  detail?: string | undefined
  until?: Date
}

/** In the order in which deciding asks (server/decide/decide.ts), of a rule without a word of its own on time. */
export function weigh(
  found: EffectivePreference,
  about: { channel: Channel; eventType: string; priority: Priority; score: number | null; zone: string },
  at: Date,
): Verdict {
  const { channel, eventType, priority, score, zone } = about
  const refusal = unwanted(found, at) ?? tooUnimportant(found, priority, score)
  if (refusal !== null) return { outcome: 'skip', ...refusal }
  if (found.frequency !== 'instant') {
    return { outcome: 'digest', reason: 'frequency', detail: found.layers.frequency }
  }
  const quiet = found.quietHours
  if (
    quiet !== undefined &&
    (channel !== 'in_app' || found.quietAppliesToInApp === true) &&
    (priority !== 'CRITICAL' || quiet.allowCritical === false) &&
    !namesEvent(quiet.exceptions ?? [], eventType)
  ) {
    const until = quietUntil(at, quiet, zone)
    if (until !== null) {
      return { outcome: 'hold', reason: 'quiet_hours', detail: found.layers.quietHours, until }
    }
  }
  if (found.deliveryWindows !== undefined && channel !== 'in_app' && priority !== 'CRITICAL') {
    const until = openAt(at, found.deliveryWindows, zone)
    if (until > at) {
      return { outcome: 'hold', reason: 'delivery_window', detail: found.layers.deliveryWindows, until }
    }
  }
  return { outcome: 'send' }
}

function settingsOf(found: EffectivePreference): ChannelEvaluation['settings'] {
  const values: JsonObject = {
    ...(found as unknown as JsonObject),
    ...(found.mutedUntil !== undefined && { mutedUntil: new Date(found.mutedUntil).toISOString() }),
  }
  return Object.entries(found.layers).map(([name, layer]) => ({ name, value: values[name], layer }))
}
