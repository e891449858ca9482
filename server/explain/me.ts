import type { Queryable } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Because, CounterValue, NamedDigest } from './because.ts'
import { ANSWERS, explainFor, explainNotification } from './explain.ts'
import type { ExplainedDelivery, Explanation, Why } from './explain.ts'
import { CHOSEN, COUNTED, STATES, WORDS, languageOf, say } from './words.ts'
import type { Language } from './words.ts'
import { isLive } from '../ledger/status.ts'
import { getUser } from '../people/users.ts'
import { REASONS } from '../reasons.ts'
import type { Channel, Id, TenantId, UserId } from '../types.ts'

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
  /** Which setting had the word, and how full a limit was, where that decided. */
  layer?: string
  counter?: Omit<CounterValue, 'limit'>
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
        // What was decided first explains nothing that happened later.
        const because = found.reason === decision.reason ? ownBecause(decision.because) : {}
        channels.push({
          channel: decision.channel,
          state: found.state,
          ...(found.reason === undefined ? {} : { reason: found.reason }),
          ...(at === undefined || found.state === 'not_sent' ? {} : { at }),
          ...because,
          text: [
            say(said, { locale, timezone, channel: decision.channel, at }),
            ...furtherWords(because, languageOf(locale)),
          ].join(languageOf(locale) === 'zh' ? '' : ' '),
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
  digest,
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
      return { state: 'waiting', ...(reason ? { reason } : {}), ...(at ? { at } : {}) }
    }
    case 'cancelled':
    case 'expired':
    case 'suppressed':
      // It went on as a part of something that has a fate of its own.
      if (last?.code === 'in_digest' && digest?.message) return asPart(digest.message)
      return { state: 'not_sent', reason: knownReason(last?.code ?? undefined) ?? fallbackReason(status) }
    default:
      return { state: 'failed' }
  }
}

function asPart({
  status,
  waitsFor,
  at,
}: NonNullable<NamedDigest['message']>): Pick<OwnAnswer, 'state' | 'reason' | 'at'> {
  if (status === 'delivered' || status === 'sent')
    return { state: status, reason: 'in_digest', ...(at ? { at } : {}) }
  if (isLive(status)) {
    const until = waitsFor?.until ?? undefined
    return { state: 'waiting', reason: 'digest', ...(until ? { at: until } : {}) }
  }
  return { state: 'failed' }
}

/** The person's own, or what holds for everybody; who silenced what is not theirs to know. */
const ownBecause = ({ layer, counter }: Because = {}): Pick<OwnAnswer, 'layer' | 'counter'> => ({
  ...(layer === undefined || layer.startsWith('rule') ? {} : { layer }),
  ...(counter && { counter: { used: counter.used, max: counter.max, window: counter.window } }),
})

function furtherWords(
  { layer, counter }: Pick<OwnAnswer, 'layer' | 'counter'>,
  language: Language,
): string[] {
  const words: string[] = []
  if (counter && Object.hasOwn(COUNTED, counter.window)) {
    const said = COUNTED[counter.window as keyof typeof COUNTED][language]
    words.push(said.replace('{used}', String(counter.used)).replace('{max}', String(counter.max)))
  }
  if (layer?.startsWith('user:')) words.push(CHOSEN.own[language])
  else if (layer !== undefined) words.push(CHOSEN.theirs[language])
  return words
}

const fallbackReason = (status: 'cancelled' | 'expired' | 'suppressed'): Why =>
  status === 'expired' ? 'expired' : status === 'suppressed' ? 'in_digest' : 'cancelled'

const knownReason = (code: string | undefined): Why | undefined =>
  code !== undefined && (Object.hasOwn(REASONS, code) || Object.hasOwn(ANSWERS, code))
    ? (code as Why)
    : undefined
