import { readTrace } from '../decide/trace.ts'
import type { StoredTrace, TraceDecision, TraceRecipient, TraceRule } from '../decide/trace.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { becauseOf, digestOf, digestsOf, endOf, silencesOf } from './because.ts'
import type { Because, NamedDigest } from './because.ts'
import type { RuleAnswer } from './rule.ts'
import { findEvent, notificationIdsOf } from '../ledger/events.ts'
import { attemptsKey, attemptsOf, deliveriesOf, eventStatus } from '../ledger/status.ts'
import type { AttemptView, DeliveryState, EventStatus, WaitsFor } from '../ledger/status.ts'
import { REASONS } from '../reasons.ts'
import type { Reason } from '../reasons.ts'
import { RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Id, RecipientType, TenantId, UserId } from '../types.ts'

/**
 * Why people got what they got, or did not: what was decided (the trace that planning left) beside what came of it
 * (the ledger). Nothing is evaluated again, so a rule that was changed since cannot rewrite history.
 */
export interface Explanation {
  event: { id: Id; type: string; source: string; time: Date; receivedAt: Date; status: EventStatus }
  rules: ExplainedRule[]
  /** Rules that were looked at and did not match, beyond those listed. */
  moreRules?: number | undefined
  /** There are more recipients than are listed. */
  moreRecipients?: true
  /** Why nobody, or not this user, was told. */
  why?: Why
  text?: string
  /** The rule that was asked about (server/explain/rule.ts). */
  rule?: RuleAnswer
}

/** A reason of the closed list, or what only a question can meet. */
export type Why = Reason | keyof typeof ANSWERS

/** Answers that are no decision about a delivery, so they are not in server/reasons.ts. */
export const ANSWERS = {
  not_planned: 'The event is not planned yet',
  planning_failed: 'The event could not be planned',
  user_not_named: 'No rule that matched, nor the request itself, named this user',
} as const

export interface ExplainedRule {
  /** null: the event was a direct request. */
  id: Id | null
  no: number | null
  name: string | null
  revision?: number
  deleted?: true
  matched: boolean
  why?: Reason
  text?: string
  error?: string
  recipients: ExplainedRecipient[]
}

export interface ExplainedRecipient {
  type: RecipientType
  id: string
  /** The experiment they were in, and which part of it: a variant, or `holdout`. */
  experiment?: { id: Id; variant: string; name?: string }
  notificationId?: Id
  decisions: ExplainedDecision[]
  deliveries: ExplainedDelivery[]
}

export interface ExplainedDecision extends TraceDecision {
  because?: Because
}

export interface ExplainedDelivery {
  channel: Channel
  status: DeliveryState
  attempts: AttemptView[]
  /** Until when, for what: as it is now. What was decided first may have moved since. */
  waitsFor?: WaitsFor
  digest?: NamedDigest
  /** Why it ended without being sent. */
  ended?: { reason: Reason; text: string; at: Date }
}

/** An event to more people is explained for one of them at a time. */
export const MAX_RECIPIENTS = 1_000

const eventTrace = sql('explain_event_trace', `select trace from events where tenant_id = $1 and id = $2`)
// A chunk of a large audience holds the people in (from_user, to_user], so one person's is found without the rest.
const planTraces = sql(
  'explain_plan_traces',
  `select trace from plans
   where tenant_id = $1 and event_id = $2 and trace is not null
     and ($3::text is null or ((from_user is null or from_user < $3) and (to_user is null or to_user >= $3)))
   order by part limit $4`,
)
const rulesByNo = sql(
  'explain_rules',
  `select no, id, name, deleted_at is not null as deleted from rules where tenant_id = $1 and no = any ($2::int[])`,
)
const experimentNames = sql(
  'explain_experiments',
  `select id, name from experiments where tenant_id = $1 and id = any ($2::uuid[])`,
)
const notificationOwners = sql(
  'explain_notifications',
  `select n.id, n.rule_id, n.recipient_type, n.recipient_id from unnest($2::uuid[]) as wanted (id)
   join notifications n on n.tenant_id = $1 and n.id = wanted.id`,
)
// By the recipient's index: an event may have told a million others.
const notificationsOfUser = sql(
  'explain_notifications_of_user',
  `select n.id from notifications n
   where n.tenant_id = $1 and n.recipient_id = $3 and n.event_id = $2 and n.id >= $2 order by n.id limit 200`,
)
const notificationKey = sql(
  'explain_notification',
  `select event_id, recipient_type, recipient_id, rule_id from notifications where tenant_id = $1 and id = $2`,
)

/** @throws AppError not_found */
export const explainEvent = (q: Queryable, tenantId: TenantId, eventId: Id): Promise<Explanation> =>
  explain(q, tenantId, eventId, {})

/**
 * The same, for one notification: its rule and its recipient alone.
 *
 * @param onlyFor when given, the notification must be this user's
 * @throws AppError not_found
 */
export async function explainNotification(
  q: Queryable,
  tenantId: TenantId,
  notificationId: Id,
  onlyFor?: UserId,
): Promise<Explanation> {
  const key = await q.one<{ event_id: Id; recipient_type: number; recipient_id: string; rule_id: Id | null }>(
    notificationKey,
    [tenantId, notificationId],
  )
  const type = key && RECIPIENT_TYPES[key.recipient_type]!
  if (!key || !type || (onlyFor !== undefined && (type !== 'user' || key.recipient_id !== onlyFor))) {
    throw new AppError('not_found', 'There is no notification with this id.')
  }
  const whole = await explain(q, tenantId, key.event_id, { recipient: { type, id: key.recipient_id } })
  const rules = whole.rules.filter(rule => rule.id === key.rule_id && rule.recipients.length > 0)
  return {
    ...whole,
    moreRules: undefined,
    rules: onlyFor === undefined ? rules : rules.map(withoutOperators),
  }
}

/**
 * The same, for one user. A user who got nothing is told why: a decision, no rule that named them, no rule at all,
 * or an event that is not planned yet.
 *
 * @param own the user asks: rules that do not concern them are left out
 * @throws AppError not_found
 */
export async function explainFor(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  eventId: Id,
  own = false,
): Promise<Explanation> {
  const whole = await explain(q, tenantId, eventId, { recipient: { type: 'user', id: userId } })
  const named = whole.rules.some(rule => rule.recipients.length > 0)
  const answer: Pick<Explanation, 'why' | 'text'> =
    named || whole.why !== undefined
      ? {}
      : whole.rules.some(rule => rule.matched)
        ? { why: 'user_not_named', text: ANSWERS.user_not_named }
        : { why: 'no_rule_matched', text: REASONS.no_rule_matched.text }
  if (!own) return { ...whole, ...answer }
  return {
    ...whole,
    ...answer,
    moreRules: undefined,
    rules: whole.rules.filter(rule => rule.recipients.length > 0).map(withoutOperators),
  }
}

/** Who silenced something, and with what words, is between operators. */
const withoutOperators = (rule: ExplainedRule): ExplainedRule => ({
  ...rule,
  recipients: rule.recipients.map(recipient => ({
    ...recipient,
    decisions: recipient.decisions.map(decision => {
      if (decision.reason !== 'silenced' && decision.reason !== 'inhibited') return decision
      const { channel, decision: said, reason, text } = decision
      return { channel, decision: said, reason, ...(text === undefined ? {} : { text }) }
    }),
  })),
})

async function explain(
  q: Queryable,
  tenantId: TenantId,
  eventId: Id,
  only: { recipient?: { type: RecipientType; id: string } },
): Promise<Explanation> {
  const event = await findEvent(q, tenantId, eventId)
  const { recipient } = only
  const traces = await tracesOf(q, tenantId, event.id, recipient)
  const { rules, moreRecipients } = merge(traces.flatMap(readTrace), recipient)

  const ids = recipient
    ? (await q.rows<{ id: Id }>(notificationsOfUser, [tenantId, event.id, recipient.id])).map(row => row.id)
    : await notificationIdsOf(q, tenantId, event.id, MAX_RECIPIENTS)
  const [named, experiments, silences, digests, owners, deliveries, attempts] = [
    await namesOf(q, tenantId, rules),
    await experimentsOf(q, tenantId, rules),
    await silencesOf(q, tenantId, silenceIds(rules)),
    await digestsOf(q, tenantId, ids),
    await q.rows<{ id: Id; rule_id: Id | null; recipient_type: number; recipient_id: string }>(
      notificationOwners,
      [tenantId, ids],
    ),
    await deliveriesOf(q, tenantId, ids),
    await attemptsOf(q, tenantId, ids),
  ]
  const notificationOf = new Map(
    owners.map(n => [`${n.rule_id} ${RECIPIENT_TYPES[n.recipient_type]} ${n.recipient_id}`, n.id]),
  )

  const explained = rules.map((rule): ExplainedRule => {
    const { no, recipients, ...rest } = rule
    const known = no === null ? undefined : named.get(no)
    return {
      id: known?.id ?? null,
      no,
      name: known?.name ?? null,
      ...(known?.deleted ? { deleted: true } : {}),
      ...rest,
      recipients: recipients.map((to): ExplainedRecipient => {
        const notificationId = notificationOf.get(`${known?.id ?? null} ${to.type} ${to.id}`)
        const experiment = to.experiment && { ...to.experiment, ...experiments.get(to.experiment.id) }
        const person = { type: to.type, id: to.id, ...(experiment && { experiment }) }
        const decisions = to.decisions.map((decision): ExplainedDecision => {
          const because = becauseOf(decision)
          if (because === undefined) return decision
          const { silence } = because
          return {
            ...decision,
            because: silence ? { silence: { ...silence, ...silences.get(silence.id) } } : because,
          }
        })
        if (notificationId === undefined) return { ...person, decisions, deliveries: [] }
        return {
          ...person,
          decisions,
          notificationId,
          deliveries: (deliveries.get(notificationId) ?? []).map(({ channel, status, waitsFor }) => {
            const tries = attempts.get(attemptsKey(notificationId, channel)) ?? []
            const digest = digests.get(digestOf(notificationId, channel))
            const ended = endOf(tries)
            // What waits for its digest goes when that does.
            const until = waitsFor?.kind === 'collected' ? (digest?.closesAt ?? null) : waitsFor?.until
            return {
              channel,
              status,
              attempts: tries,
              ...(waitsFor ? { waitsFor: { ...waitsFor, until: until ?? null } } : {}),
              ...(digest ? { digest } : {}),
              ...(ended ? { ended } : {}),
            }
          }),
        }
      }),
    }
  })

  const moreRules = Math.max(0, ...traces.map(trace => trace.more ?? 0))
  const stored = traces.find(trace => trace.w !== undefined)?.w
  const answer: Pick<Explanation, 'why' | 'text'> =
    event.planning === 'waiting' || (event.planning === 'running' && explained.length === 0)
      ? { why: 'not_planned', text: ANSWERS.not_planned }
      : event.planning === 'failed'
        ? { why: 'planning_failed', text: ANSWERS.planning_failed }
        : stored
          ? { why: stored, text: REASONS[stored]?.text ?? stored }
          : {}
  return {
    event: {
      id: event.id,
      type: event.type,
      source: event.source,
      time: event.time,
      receivedAt: event.receivedAt,
      status: eventStatus(event.planning, [...deliveries.values()].flat()),
    },
    rules: explained,
    ...(moreRules > 0 ? { moreRules } : {}),
    ...(moreRecipients ? { moreRecipients: true as const } : {}),
    ...answer,
  }
}

async function tracesOf(
  q: Queryable,
  tenantId: TenantId,
  eventId: Id,
  recipient: { type: RecipientType; id: string } | undefined,
): Promise<StoredTrace[]> {
  const own = await q.one<{ trace: StoredTrace | null }>(eventTrace, [tenantId, eventId])
  const chunks = await q.rows<{ trace: StoredTrace }>(planTraces, [
    tenantId,
    eventId,
    recipient?.type === 'user' ? recipient.id : null,
    50,
  ])
  return [...(own?.trace ? [own.trace] : []), ...chunks.map(row => row.trace)]
}

/** Each rule once, with the recipients of all chunks; those asked about, or the first so many. */
function merge(
  traced: readonly TraceRule[],
  only: { type: RecipientType; id: string } | undefined,
): { rules: TraceRule[]; moreRecipients: boolean } {
  const rules = new Map<string, TraceRule>()
  let room = MAX_RECIPIENTS
  let moreRecipients = false
  for (const rule of traced) {
    const key = `${rule.no} ${rule.revision}`
    const fitting = only
      ? rule.recipients.filter(to => to.type === only.type && to.id === only.id)
      : rule.recipients
    const shown = fitting.slice(0, room)
    room -= shown.length
    if (shown.length < fitting.length) moreRecipients = true
    const known = rules.get(key)
    if (known) {
      known.recipients.push(...shown)
      known.matched ||= rule.matched
      // A later chunk that told somebody outdoes an earlier one that found nobody.
      if (known.recipients.length > 0) known.why = known.text = undefined
    } else rules.set(key, { ...rule, recipients: [...shown] satisfies TraceRecipient[] })
  }
  return { rules: [...rules.values()], moreRecipients }
}

const silenceIds = (rules: readonly TraceRule[]): Id[] => [
  ...new Set(
    rules
      .flatMap(rule => rule.recipients.flatMap(to => to.decisions))
      .flatMap(decision => becauseOf(decision)?.silence?.id ?? []),
  ),
]

async function experimentsOf(
  q: Queryable,
  tenantId: TenantId,
  rules: readonly TraceRule[],
): Promise<Map<Id, { name: string }>> {
  const ids = new Set(rules.flatMap(rule => rule.recipients.flatMap(to => to.experiment?.id ?? [])))
  if (ids.size === 0) return new Map()
  const rows = await q.rows<{ id: Id; name: string }>(experimentNames, [tenantId, [...ids]])
  return new Map(rows.map(({ id, name }) => [id, { name }]))
}

async function namesOf(q: Queryable, tenantId: TenantId, rules: readonly TraceRule[]) {
  const numbers = rules.flatMap(({ no }) => (no === null ? [] : [no]))
  if (numbers.length === 0) return new Map<number, { id: Id; name: string; deleted: boolean }>()
  const rows = await q.rows<{ no: number; id: Id; name: string; deleted: boolean }>(rulesByNo, [
    tenantId,
    numbers,
  ])
  return new Map(rows.map(row => [row.no, row]))
}
