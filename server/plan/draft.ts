import type { Queryable } from '../db/pool.ts'
import type { Cooldown } from '../decide/candidate.ts'
import type { StoredRule } from '../decide/trace.ts'
import type { Cap, Sameness } from '../limits/usage.ts'
import type { EscalationStep } from '../match/policy.ts'
import type { EffectivePreference } from '../people/effective-preference.ts'
import type { AddressFact, UserFacts } from '../people/facts.ts'
import { expandAudiences } from '../people/recipients.ts'
import type { Audience, AudienceWish, Level } from '../people/recipients.ts'
import type { Channel, Event, Id, Recipient } from '../types.ts'
import type { Part } from '../experiments/experiment-book.ts'
import type { Route } from './route.ts'

/** What an event leads to, in the order in which a large audience is walked. */
export interface Routes {
  routes: Route[]
  skipped: StoredRule[]
  more: number
}

/** An event on its way to a plan. */
export interface Draft extends Routes {
  event: Event
  audiences: (Audience | null)[]
  told: ReadonlySet<string>
  tellings: Telling[]
}

/** Somebody who may be told because of a route. */
export interface Telling {
  /** Of the route. */
  at: number
  route: Route
  recipient: Recipient
  /** Null for a bare address. */
  user: UserFacts | null
  bare: AddressFact | null
  level: Level
  channels: readonly Channel[]
  fallback: readonly Channel[]
  zone: string
  cooldown: Cooldown | null
  views: Map<Channel, ChannelView>
  /** Told only if the first one does not react. */
  follows?: { first: Telling; step: EscalationStep }
  /** What their part of the experiment is; null: there is none. */
  part: Part | null
  /** Of the notification it came to. */
  notificationId?: Id
}

export interface ChannelView {
  preference: EffectivePreference | null
  address: AddressFact | null
  caps: readonly Cap[]
  /** Where the rule asks whether the same was said before. */
  sameness?: Sameness | null
}

export function tooLarge(draft: Draft, limit: number): boolean {
  let people = 0
  for (const [at, route] of draft.routes.entries()) {
    const audience = draft.audiences[at]!
    if (audience === null) return true
    people += audience.size + route.users.length + route.addresses.length
  }
  return people > limit
}

/** Each person once, at the strongest level that brought them in. */
export function peopleOf(route: Route, audience: Audience): Audience {
  if (route.users.length === 0) return audience
  if (audience.size === 0 && route.users.length === 1) return new Map([[route.users[0]!, 'ALL']])
  const all: Audience = new Map(audience)
  for (const user of route.users) all.set(user, 'ALL')
  return all
}

/** Who stands behind the names that routes name, in one statement; null: more than `limit`. */
export async function findAudiences(q: Queryable, drafts: Draft[], limit: number): Promise<void> {
  const wishes: AudienceWish[] = []
  const known = new Map<Route['audiences'] | string, number>()
  for (const draft of drafts) {
    for (const { rule, audiences } of draft.routes) {
      if (audiences.length === 0) continue
      const name = rule ? `${rule.id} ${rule.revision}` : audiences
      if (known.has(name)) continue
      known.set(name, wishes.length)
      wishes.push({ tenantId: draft.event.tenantId, names: audiences })
    }
  }
  const found = wishes.length === 0 ? [] : await expandAudiences(q, wishes, limit)
  for (const draft of drafts) {
    draft.audiences = draft.routes.map(({ rule, audiences }) =>
      audiences.length === 0
        ? NO_AUDIENCE
        : found[known.get(rule ? `${rule.id} ${rule.revision}` : audiences)!]!,
    )
  }
}

export const NOBODY: ReadonlySet<string> = new Set()
const NO_AUDIENCE: Audience = new Map()
