import type { Queryable } from './db/pool.ts'
import { AppError } from './errors.ts'
import { ANSWERS, explainFor, explainNotification } from './explain.ts'
import type { ExplainedDelivery, Explanation, Why } from './explain.ts'
import { STATES, WORDS, languageOf, say } from './explain-words.ts'
import type { Language } from './explain-words.ts'
import { getUser } from './people/users.ts'
import { REASONS } from './reasons.ts'
import type { Channel, Id, TenantId, UserId } from './types.ts'

/** Why the person themself got something, or did not, in their language. Names no rule and nobody else. */
export interface OwnExplanation {
  event: { id: Id; time: Date }
  language: Language
  /** The whole in a sentence, where it is one for all channels. */
  text?: string
  channels: OwnAnswer[]
}

export interface OwnAnswer {
  channel: Channel
  /** `delivered`, `sent`, `waiting`, `failed` or `not_sent`. */
  state: 'delivered' | 'sent' | 'waiting' | 'failed' | 'not_sent'
  reason?: Why
  /** When it goes, or went. */
  at?: Date
  text: string
}

/** @throws AppError not_found, also for what is somebody else's */
export async function explainToMe(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  about: { eventId: Id } | { notificationId: Id },
): Promise<OwnExplanation> {
  // Also somebody nobody has created may ask why nothing came.
  const user = await getUser(q, tenantId, userId).catch((error: unknown) => {
    if (error instanceof AppError && error.code === 'not_found') return { locale: 'en', timezone: 'UTC' }
    throw error
  })
  const whole =
    'eventId' in about
      ? await explainFor(q, tenantId, userId, about.eventId, true)
      : await explainNotification(q, tenantId, about.notificationId, userId)
  return inWords(whole, user)
}

/** Pure: what was found, in the person's words. */
export function inWords(
  whole: Explanation,
  { locale, timezone }: { locale: string; timezone: string },
): OwnExplanation {
  const channels: OwnAnswer[] = []
  for (const rule of whole.rules) {
    for (const recipient of rule.recipients) {
      const deliveries = new Map(recipient.deliveries.map(delivery => [delivery.channel, delivery]))
      for (const decision of recipient.decisions) {
        const delivery = deliveries.get(decision.channel)
        const found =
          delivery && decision.decision !== 'skip'
            ? standing(delivery)
            : { state: 'not_sent' as const, reason: knownReason(decision.reason) }
        const at = found.at ?? (decision.until === undefined ? undefined : new Date(decision.until))
        const said = found.reason === undefined ? STATES[stateWords(found.state)] : WORDS[found.reason]
        channels.push({
          channel: decision.channel,
          state: found.state,
          ...(found.reason === undefined ? {} : { reason: found.reason }),
          ...(at === undefined || found.state === 'not_sent' ? {} : { at }),
          text: say(said, { locale, timezone, channel: decision.channel, at }),
        })
      }
      // A fallback has begun that nobody had decided about.
      for (const [channel, delivery] of deliveries) {
        if (recipient.decisions.some(decision => decision.channel === channel)) continue
        const found = standing(delivery)
        const said = found.reason === undefined ? STATES[stateWords(found.state)] : WORDS[found.reason]
        channels.push({ channel, ...found, text: say(said, { locale, timezone, channel, at: found.at }) })
      }
    }
  }
  return {
    event: { id: whole.event.id, time: whole.event.time },
    language: languageOf(locale),
    ...(channels.length > 0
      ? {}
      : { text: say(WORDS[whole.why ?? 'no_rule_matched'], { locale, timezone }) }),
    channels,
  }
}

const stateWords = (state: OwnAnswer['state']): keyof typeof STATES =>
  state === 'waiting' ? 'on_its_way' : state === 'not_sent' ? 'failed' : state

/** Where a delivery stands, and the reason that says it best. */
function standing({
  status,
  waitsFor,
  attempts,
}: ExplainedDelivery): Pick<OwnAnswer, 'state' | 'reason' | 'at'> {
  const last = attempts.at(-1)
  switch (status) {
    case 'delivered':
    case 'sent':
      return { state: status, ...(last ? { at: last.at } : {}) }
    case 'in_flight':
      return { state: 'waiting' }
    case 'held':
    case 'retrying':
    case 'backlog': {
      const reason = knownReason(waitsFor?.reason)
      const at = waitsFor?.until ?? undefined
      // A digest has no instant of its own yet.
      const real = at !== undefined && at.getUTCFullYear() < 9999
      return { state: 'waiting', ...(reason ? { reason } : {}), ...(real ? { at } : {}) }
    }
    case 'cancelled':
    case 'expired':
    case 'suppressed':
      return { state: 'not_sent', reason: knownReason(last?.code ?? undefined) ?? fallbackReason(status) }
    default:
      return { state: 'failed' }
  }
}

const fallbackReason = (status: 'cancelled' | 'expired' | 'suppressed'): Why =>
  status === 'expired' ? 'expired' : status === 'suppressed' ? 'in_digest' : 'cancelled'

const knownReason = (code: string | undefined): Why | undefined =>
  code !== undefined && (Object.hasOwn(REASONS, code) || Object.hasOwn(ANSWERS, code))
    ? (code as Why)
    : undefined
