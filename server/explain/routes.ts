import { Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Because as ExplainedBecause, NamedDigest } from './because.ts'
import { explainToMe } from './me.ts'
import type { OwnExplanation } from './me.ts'
import { LANGUAGES } from './words.ts'
import { explainRule } from './rule.ts'
import type { Unseal } from './rule.ts'
import { explainEvent, explainFor, explainNotification } from './explain.ts'
import type { Explanation } from './explain.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { EVENT_STATUSES } from '../ledger/status.ts'
import type { WaitsFor } from '../ledger/status.ts'
import { CHANNELS, OUTCOMES, RECIPIENT_TYPES } from '../types.ts'

const Time = Type.String({ format: 'date-time' })
const Uuid = Type.String({ format: 'uuid' })
const Text = Type.Optional(Type.String())
const MaybeText = Type.Union([Type.String(), Type.Null()])
const Channel = Type.Enum(CHANNELS)

const Waiting = Type.Object({
  kind: Type.String(),
  until: Type.Union([Time, Type.Null()], { description: 'When it goes; null: not known yet.' }),
  reason: Type.String(),
  text: Type.String(),
})
const Because = Type.Object(
  {
    layer: Type.Optional(
      Type.String({
        description: 'Whose word it was: user:category:news:email, tenant:email, rule, built_in.',
      }),
    ),
    counter: Type.Optional(
      Type.Object(
        { limit: Type.String(), used: Type.Integer(), max: Type.Integer(), window: Type.String() },
        { description: 'How full the limit was when it was asked.' },
      ),
    ),
    silence: Type.Optional(
      Type.Object({ id: Type.String(), author: Type.String(), comment: Text, endsAt: Type.Optional(Time) }),
    ),
    inhibition: Type.Optional(Type.Object({ name: Type.String(), alert: Type.String() })),
  },
  { description: 'What the decision rests on, as it was then.' },
)
const Digest = Type.Object(
  {
    id: Uuid,
    key: Type.String(),
    reason: Type.String(),
    state: Type.String(),
    item: Type.String({ description: 'What became of this delivery in it.' }),
    items: Type.Integer(),
    closesAt: Time,
    closedAt: Type.Union([Time, Type.Null()]),
    eventId: Type.Union([Uuid, Type.Null()], { description: 'The event that told it.' }),
    message: Type.Optional(
      Type.Object(
        {
          notificationId: Uuid,
          status: Type.String(),
          at: Type.Union([Time, Type.Null()]),
          waitsFor: Type.Optional(Waiting),
        },
        { description: 'The message it became.' },
      ),
    ),
  },
  { description: 'Where it was collected, and what became of that.' },
)
const Delivery = Type.Object({
  channel: Channel,
  status: Type.String(),
  attempts: Type.Array(
    Type.Object({
      attempt: Type.Integer(),
      at: Time,
      outcome: Type.Enum(OUTCOMES),
      final: Type.Boolean(),
      provider: MaybeText,
      code: MaybeText,
      durationMs: Type.Union([Type.Integer(), Type.Null()]),
      cost: Type.Union([Type.Number(), Type.Null()]),
      error: MaybeText,
    }),
  ),
  waitsFor: Type.Optional(Waiting),
  digest: Type.Optional(Digest),
  ended: Type.Optional(
    Type.Object(
      { reason: Type.String(), text: Type.String(), at: Time },
      { description: 'Why it ended without being sent.' },
    ),
  ),
})
const Recipient = Type.Object({
  type: Type.Enum(RECIPIENT_TYPES),
  id: Type.String(),
  experiment: Type.Optional(
    Type.Object(
      { id: Uuid, name: Text, variant: Type.String() },
      { description: 'What they take part in, and their part: a variant, or holdout.' },
    ),
  ),
  notificationId: Type.Optional(Uuid),
  decisions: Type.Array(
    Type.Object({
      channel: Channel,
      decision: Type.Enum(['send', 'hold', 'digest', 'skip']),
      reason: Text,
      text: Text,
      detail: Text,
      until: Type.Optional(Time),
      because: Type.Optional(Because),
    }),
  ),
  deliveries: Type.Array(Delivery),
})
const RuleAnswer = Type.Object(
  {
    id: Uuid,
    no: Type.Integer(),
    name: Type.String(),
    revision: Type.Integer(),
    plannedRevision: Type.Union([Type.Integer(), Type.Null()], {
      description: 'As it was when the event was planned; null: it was not asked then.',
    }),
    matches: Type.Boolean(),
    checks: Type.Array(
      Type.Object({
        check: Type.Enum(['enabled', 'validity', 'domain', 'type', 'pattern']),
        holds: Type.Union([Type.Boolean(), Type.Null()]),
        text: Type.String(),
      }),
    ),
    terms: Type.Array(Type.Object({ source: Type.String(), holds: Type.Boolean(), error: Text }), {
      description: 'The parts of its pattern that must all hold.',
    }),
  },
  { description: 'The rule that was asked about, as it is now, against the event as it was recorded.' },
)
const ExplanationSchema = Type.Object({
  event: Type.Object({
    id: Uuid,
    type: Type.String(),
    source: Type.String(),
    time: Time,
    receivedAt: Time,
    status: Type.Enum(EVENT_STATUSES),
  }),
  rules: Type.Array(
    Type.Object({
      id: Type.Union([Uuid, Type.Null()], { description: 'null: the event was a direct request.' }),
      no: Type.Union([Type.Integer(), Type.Null()]),
      name: MaybeText,
      revision: Type.Optional(Type.Integer({ description: 'As it was when the event was planned.' })),
      deleted: Type.Optional(Type.Boolean()),
      matched: Type.Boolean(),
      why: Text,
      text: Text,
      error: Text,
      recipients: Type.Array(Recipient),
    }),
  ),
  moreRules: Type.Optional(Type.Integer({ description: 'Rules that did not match, beyond those listed.' })),
  moreRecipients: Type.Optional(Type.Boolean()),
  why: Type.Optional(Type.String({ description: 'Why nobody, or not this user, was told.' })),
  text: Text,
  rule: Type.Optional(RuleAnswer),
})
const Own = Type.Object({
  event: Type.Object({ id: Uuid, time: Time }),
  language: Type.Enum(LANGUAGES),
  text: Text,
  channels: Type.Array(
    Type.Object({
      channel: Channel,
      state: Type.Enum(['delivered', 'sent', 'waiting', 'failed', 'not_sent']),
      reason: Text,
      at: Type.Optional(Time),
      layer: Type.Optional(Type.String({ description: 'Which setting had the word.' })),
      counter: Type.Optional(
        Type.Object({ used: Type.Integer(), max: Type.Integer(), window: Type.String() }),
      ),
      text: Type.String(),
    }),
  ),
})
const ById = Type.Object({ id: Uuid }, { additionalProperties: false })
const tags = ['Explain']

/** Why somebody got something, or did not. */
export function explainRoutes(api: Api, { db, unseal }: { db: Db; unseal: Unseal }): void {
  api.get(
    '/api/events/:id/explain',
    {
      config: { access: { role: 'service', scope: 'events:read' } },
      schema: {
        tags,
        operationId: 'explainEvent',
        summary: 'Explain what became of an event, and why one rule takes it or does not',
        params: ById,
        querystring: Type.Object(
          {
            rule: Type.Optional(
              Type.String({
                minLength: 1,
                maxLength: 255,
                description: 'Id or name of a rule to ask about.',
              }),
            ),
          },
          { additionalProperties: false },
        ),
        response: { 200: ExplanationSchema },
      },
    },
    async request => {
      const { caller, params, query } = request
      const whole = await explainEvent(db, caller.tenantId, params.id)
      if (query.rule === undefined) return show(whole)
      const rule = await explainRule(db, unseal, caller.tenantId, params.id, query.rule)
      return show({ ...whole, rule })
    },
  )

  api.get(
    '/api/notifications/:id/explain',
    {
      config: { access: { role: 'user', scope: 'notifications:read' } },
      schema: {
        tags,
        operationId: 'explainNotification',
        summary: 'Explain why a notification was made and where its deliveries stand',
        params: ById,
        response: { 200: ExplanationSchema },
      },
    },
    async request => {
      const { caller, params } = request
      const onlyFor = caller.role === 'user' ? (caller.userId ?? '') : undefined
      return show(await explainNotification(db, caller.tenantId, params.id, onlyFor))
    },
  )

  api.get(
    '/api/explain',
    {
      config: { access: { role: 'user', scope: 'events:read' } },
      schema: {
        tags,
        operationId: 'explainForUser',
        summary: 'Explain what an event meant for one user, also when they got nothing',
        querystring: Type.Object(
          { user: Type.String({ minLength: 1, maxLength: 255 }), event: Uuid },
          { additionalProperties: false },
        ),
        response: { 200: ExplanationSchema },
      },
    },
    async request => {
      const { caller, query } = request
      requireSelf(request, query.user)
      return show(await explainFor(db, caller.tenantId, query.user, query.event, caller.role === 'user'))
    },
  )

  api.get(
    '/api/me/explain',
    {
      config: { access: { role: 'user', scope: 'notifications:read' } },
      schema: {
        tags,
        operationId: 'explainToMe',
        summary: 'Tell the signed-in person, in their language, why they got something or did not',
        querystring: Type.Object(
          { event: Type.Optional(Uuid), notification: Type.Optional(Uuid) },
          { additionalProperties: false },
        ),
        response: { 200: Own },
      },
    },
    async request => {
      const { caller, query } = request
      if (caller.userId === undefined) {
        throw new AppError('forbidden', 'This is for a person asking about their own; use /api/explain.')
      }
      if ((query.event === undefined) === (query.notification === undefined)) {
        throw new AppError('invalid_request', 'Give either event or notification.', { field: '/event' })
      }
      const about =
        query.event === undefined ? { notificationId: query.notification! } : { eventId: query.event }
      return showOwn(await explainToMe(db, caller.tenantId, caller.userId, about))
    },
  )
}

const showOwn = ({ event, channels, ...rest }: OwnExplanation) => ({
  ...rest,
  event: { ...event, time: event.time.toISOString() },
  channels: channels.map(({ at, ...answer }) => ({ ...answer, ...(at ? { at: at.toISOString() } : {}) })),
})

const show = ({ event, rules, ...rest }: Explanation) => ({
  ...rest,
  event: { ...event, time: event.time.toISOString(), receivedAt: event.receivedAt.toISOString() },
  rules: rules.map(rule => ({
    ...rule,
    recipients: rule.recipients.map(recipient => ({
      ...recipient,
      decisions: recipient.decisions.map(({ because, ...decision }) => ({
        ...decision,
        ...(because ? { because: showBecause(because) } : {}),
      })),
      deliveries: recipient.deliveries.map(({ attempts, waitsFor, digest, ended, ...delivery }) => ({
        ...delivery,
        attempts: attempts.map(attempt => ({ ...attempt, at: attempt.at.toISOString() })),
        ...(waitsFor ? { waitsFor: showWait(waitsFor) } : {}),
        ...(digest ? { digest: showDigest(digest) } : {}),
        ...(ended ? { ended: { ...ended, at: ended.at.toISOString() } } : {}),
      })),
    })),
  })),
})

const showWait = (waitsFor: WaitsFor) => ({ ...waitsFor, until: waitsFor.until?.toISOString() ?? null })

const showBecause = ({ silence, ...rest }: ExplainedBecause) => {
  if (silence === undefined) return rest
  const { endsAt, ...known } = silence
  return { ...rest, silence: { ...known, ...(endsAt ? { endsAt: endsAt.toISOString() } : {}) } }
}

const showDigest = ({ message, ...digest }: NamedDigest) => ({
  ...digest,
  closesAt: digest.closesAt.toISOString(),
  closedAt: digest.closedAt?.toISOString() ?? null,
  ...(message && {
    message: {
      notificationId: message.notificationId,
      status: message.status,
      at: message.at?.toISOString() ?? null,
      ...(message.waitsFor ? { waitsFor: showWait(message.waitsFor) } : {}),
    },
  }),
})
