import type { RunningExperiment } from '../experiments/experiment-book.ts'
import type { celEvent } from '../match/cel.ts'
import type { RulePolicy } from '../match/policy.ts'
import type { Rule } from '../match/rules.ts'
import type { AudienceWish } from '../people/recipients.ts'
import { type Schedule, scheduleOf } from '../time/schedule.ts'
import type { Channel, Event, Id, InlineContent, JsonObject, Priority, UserId } from '../types.ts'

/** One reason for telling people something: a rule that matched, or the event's own direct request. */
export interface Route {
  rule: Rule | null
  channels: readonly Channel[]
  fallback: readonly Channel[]
  priority: Priority
  category: string
  templateId: Id | null
  /** What tells different people in different ways; null: nothing does. */
  experiment: RunningExperiment | null
  vars: JsonObject
  inline: InlineContent | undefined
  schedule: Schedule | null
  policy: RulePolicy
  /** Preference scopes of a solution, such as `aura:<id>`. */
  scopes: readonly string[]
  /** What its messages belong to. */
  thread: string | undefined
  /** What divides its cooldowns, and its digests or groups, evaluated for this event. */
  cooldownKey: string
  digestKey: string
  /** What the event is about, where the rule says so, and whether that is over. */
  state: { key: string; resolved: boolean } | null
  users: UserId[]
  audiences: AudienceWish['names']
  addresses: { channel: Channel; address: string }[]
  /** Recipients could not be evaluated. */
  failed?: string
}

/** What a rule that matched says of this event. Pure. */
export function ruleRoute(rule: Rule, view: ReturnType<typeof celEvent>, now: Date): Route {
  const { recipients, recipientExpression } = rule
  let users = recipients.users ?? []
  let failed: string | undefined
  if (recipientExpression) {
    const result = recipientExpression.evaluate(view, now)
    if (result.ok) users = users.length === 0 ? result.value : [...users, ...result.value]
    else failed = result.error
  }
  return {
    rule,
    channels: rule.channels,
    fallback: rule.fallbackChannels,
    priority: rule.priority,
    category: rule.category ?? view.category ?? view.domain,
    templateId: rule.templateId ?? null,
    experiment: null,
    vars: rule.templateVars,
    inline: undefined,
    schedule: rule.schedule ? scheduleOf(rule.schedule, rule.timezone, rule.validFrom.getTime()) : null,
    policy: rule.policy,
    scopes: rule.keys.scopes(view, now),
    thread: rule.keys.thread(view, now),
    cooldownKey: rule.keys.cooldown(view, now),
    digestKey: rule.policy.group ? rule.keys.group(view, now) : rule.keys.digest(view, now),
    state: rule.policy.state
      ? { key: rule.keys.state(view, now), resolved: rule.keys.resolved(view, now) }
      : null,
    users,
    audiences: audiencesOf(rule),
    addresses: targetsOf(rule),
    failed,
  }
}

const NO_NAMES: AudienceWish['names'] = []
export const NO_TARGETS: Route['addresses'] = []

function audiencesOf({ recipients: { roles, groups, topics } }: Rule): AudienceWish['names'] {
  if (!roles?.length && !groups?.length && !topics?.length) return NO_NAMES
  return [
    ...(roles ?? []).map(name => ({ kind: 'role' as const, name })),
    ...(groups ?? []).map(name => ({ kind: 'group' as const, name })),
    ...(topics ?? []).map(name => ({ kind: 'topic' as const, name })),
  ]
}

function targetsOf({ recipients: { targets } }: Rule): Route['addresses'] {
  if (!targets) return NO_TARGETS
  return Object.entries(targets).flatMap(([channel, addresses]) =>
    (addresses ?? []).map(address => ({ channel: channel as Channel, address })),
  )
}

const NO_POLICY: RulePolicy = Object.freeze({})
const NO_SCOPES: readonly string[] = []

/** A request to tell named people, which is its own reason. */
export function directRoute(event: Event): Route {
  const direct = event.direct!
  return {
    rule: null,
    channels: direct.channels,
    fallback: direct.fallback,
    priority: event.priority ?? 'NORMAL',
    category: event.category ?? '',
    templateId: direct.templateId ?? null,
    experiment: null,
    vars: {},
    inline: direct.content,
    schedule: null,
    policy:
      direct.score === undefined && direct.quietHours === undefined
        ? NO_POLICY
        : {
            ...(direct.score !== undefined && { score: direct.score }),
            ...(direct.quietHours !== undefined && { quietHours: direct.quietHours }),
          },
    scopes: direct.scopes ?? NO_SCOPES,
    thread: direct.thread,
    cooldownKey: '',
    digestKey: '',
    state: null,
    users: direct.recipients.filter(({ type }) => type === 'user').map(({ id }) => id),
    audiences: direct.recipients
      .filter(({ type }) => type === 'group' || type === 'role' || type === 'topic')
      .map(({ type, id }) => ({ kind: type as 'group' | 'role' | 'topic', name: id })),
    addresses: Object.entries(direct.addresses ?? {}).flatMap(([channel, addresses]) =>
      addresses.map(address => ({ channel: channel as Channel, address })),
    ),
  }
}
