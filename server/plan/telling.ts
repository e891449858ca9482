import { hash } from 'node:crypto'
import type { Cooldown } from '../decide/candidate.ts'
import { DIGEST_EVENT } from '../digest/compose.ts'
import { partOf } from '../experiments/experiment-book.ts'
import type { UsageWish } from '../ledger/usage.ts'
import type { LimitBook } from '../limits/limit-book.ts'
import { sameness } from '../limits/sameness.ts'
import type { Said } from '../limits/sameness.ts'
import { capWindow, claimName, usageName } from '../limits/usage.ts'
import { effectivePreference } from '../people/effective-preference.ts'
import { scopesOf } from '../people/preference-scopes.ts'
import type { TenantBook } from '../people/tenant-book.ts'
import { eventView } from '../render/view.ts'
import { windowOf } from '../time/window.ts'
import { zoneOrUtc } from '../time/zone.ts'
import type { Channel, Event, JsonObject, Recipient, TenantId } from '../types.ts'
import { peopleOf } from './draft.ts'
import type { ChannelView, Draft, Telling } from './draft.ts'
import type { Route } from './route.ts'
import { textFor } from './world.ts'
import type { World } from './world.ts'
import type { Writer } from './write.ts'

/** What is to be read of counters and claims, each once. */
export interface UsageWishes {
  claim(tenantId: TenantId, key: string): void
  count(tenantId: TenantId, key: string, fromMs: number): void
  all(): UsageWish
}

export function usageWishes(): UsageWishes {
  const counts = new Map<string, UsageWish['counts'][number]>()
  const claims = new Map<string, UsageWish['claims'][number]>()
  return {
    claim: (tenantId, key) => void claims.set(claimName(tenantId, key), { tenantId, key }),
    count: (tenantId, key, fromMs) =>
      void counts.set(usageName(tenantId, key, fromMs), { tenantId, key, fromMs }),
    all: () => ({ counts: [...counts.values()], claims: [...claims.values()] }),
  }
}

export type Tellings = ReturnType<typeof tellings>

/** Whom each route may tell, and what preferences and limits say of each of their channels. */
export function tellings({
  limits,
  tenants,
  writer,
}: {
  limits: LimitBook
  tenants: TenantBook
  writer: Writer
}) {
  /** @param wish takes what deciding will have to know of counters and claims */
  function of(draft: Draft, world: World, now: Date, wish: UsageWishes): Telling[] {
    const { event } = draft
    const { facts, addresses } = world
    const { tenantId } = event
    const tellings: Telling[] = []
    const add = (who: Omit<Telling, 'zone' | 'cooldown' | 'views' | 'part'>): Telling => {
      const { route, recipient, user } = who
      const zone = user ? zoneOrUtc(user.timezone) : 'UTC'
      const cooldown = cooldownOf(route, recipient, zone)
      if (cooldown) wish.claim(tenantId, cooldown.key)
      const part = route.experiment && partOf(route.experiment, `${recipient.type}:${recipient.id}`)
      const telling: Telling = { ...who, zone, cooldown, part, views: new Map() }
      // An address is of one channel, and so is a step that follows.
      if (part?.says.channels && user !== null && !who.follows) {
        const { channels } = part.says
        telling.channels = channels
        telling.fallback = who.fallback.filter(channel => !channels.includes(channel))
      }
      for (const channel of channelsOf(telling)) {
        const made = view(telling, channel, event, world, now)
        telling.views.set(channel, made)
        if (made.sameness?.repeat) wish.claim(tenantId, made.sameness.repeat.key)
        if (made.sameness?.similar) wish.claim(tenantId, made.sameness.similar.key)
        for (const cap of made.caps) {
          if (cap.window === 'gap') wish.claim(tenantId, cap.key)
          else wish.count(tenantId, cap.key, capWindow(cap.window, cap, now.getTime()).start)
        }
      }
      tellings.push(telling)
      return telling
    }
    for (const [at, route] of draft.routes.entries()) {
      if (route.failed !== undefined) continue
      for (const [userId, level] of peopleOf(route, draft.audiences[at]!)) {
        const user = facts.get(event.tenantId, userId)!
        const first = add({
          at,
          route,
          recipient: { type: 'user', id: userId },
          user,
          level,
          bare: null,
          channels: route.channels,
          fallback: route.fallback,
        })
        for (const step of route.policy.escalation ?? []) {
          for (const id of step.users ?? []) {
            const other = facts.get(event.tenantId, id)!
            const recipient: Recipient = { type: 'user', id }
            const follows = { first, step }
            add({
              at,
              route,
              recipient,
              user: other,
              level: 'ALL',
              bare: null,
              channels: step.channels,
              fallback: NO_CHANNELS,
              follows,
            })
          }
        }
      }
      for (const { channel, address } of route.addresses) {
        const bare = addresses.get(`${event.tenantId} ${channel} ${address}`)!
        const recipient: Recipient = { type: 'system', id: `${channel}:${address}`.slice(0, 255) }
        add({
          at,
          route,
          recipient,
          user: null,
          level: 'ALL',
          bare,
          channels: [channel],
          fallback: NO_CHANNELS,
        })
      }
    }
    return tellings
  }

  /** What preferences and limits say of one channel, before anything is decided. */
  function view(telling: Telling, channel: Channel, event: Event, world: World, now: Date): ChannelView {
    const { route, user, bare, zone } = telling
    const { facts } = world
    let written: Said | null | undefined
    const said = () =>
      written === undefined ? (written = textOf(telling, channel, event, world, now)) : written
    const preference = user
      ? effectivePreference(user.preferences, facts.tenantDefaults(event.tenantId), {
          channel,
          scopes: scopesFor(route, event),
          eventType: event.type,
          priority: route.priority,
        })
      : null
    const address =
      bare ?? user?.addresses[channel]?.[0] ?? (user && (writer.devicesOf(user, channel)[0] ?? null))
    const caps = limits.caps({
      tenantId: event.tenantId,
      userId: user?.userId ?? null,
      address: address?.address ?? null,
      channel,
      category: route.category,
      eventType: event.type,
      priority: route.priority,
      ruleId: route.rule?.id ?? null,
      preference,
      zone,
      attributes: user?.attributes ?? NO_ATTRIBUTES,
      summary: event.type === DIGEST_EVENT,
      said,
    })
    const { repeat, similar } = route.policy
    if (!repeat && !similar) return { preference, address, caps }
    const text = said()
    const known = text && sameness({ ...text, ruleId: route.rule?.id ?? '', repeat, similar })
    return { preference, address, caps, sameness: known }
  }

  /**
   * What is said decides whether it was said before, so it is written once ahead of the reading; without the id of
   * its own that each notification has.
   */
  function textOf(telling: Telling, channel: Channel, event: Event, world: World, now: Date): Said | null {
    const tenant = tenants.get(event.tenantId)!
    const { route, recipient, user } = telling
    const compiled = textFor(event, telling, world)
    const seen = eventView(event)
    try {
      const common = world.common(event.tenantId)
      const text = writer.write(channel, route, compiled, seen, recipient, user, NO_ID, tenant, now, common)
      return { recipientType: recipient.type, recipientId: recipient.id, channel, text }
    } catch {
      // Deciding meets the same error, and names it.
      return null
    }
  }

  return { of, view }
}

function channelsOf({ channels, fallback, route }: Telling): Iterable<Channel> {
  if (fallback.length === 0 && route.policy.escalation === undefined) return channels
  return new Set([
    ...channels,
    ...fallback,
    ...(route.policy.escalation ?? []).flatMap(step => step.channels),
  ])
}

/** Preference scopes, most specific first; the rule may name its own class. */
function scopesFor(route: Route, event: Event): string[] {
  const scopes = scopesOf({
    ruleId: route.rule?.id,
    scopes: route.scopes,
    topics: route.audiences.filter(({ kind }) => kind === 'topic').map(({ name }) => name),
    category: route.category,
    eventType: event.type,
  })
  if (route.policy.class !== undefined) scopes[scopes.length - 1] = `class:${route.policy.class}`
  return scopes
}

function cooldownOf(
  { rule, policy, cooldownKey }: Route,
  recipient: Recipient,
  zone: string,
): Cooldown | null {
  const { cooldown } = policy
  if (!cooldown || !rule) return null
  const { seconds, period, per } = cooldown
  const who = per === 'rule' ? '' : `${recipient.type}:${recipient.id}`
  return {
    // Values of the event may be long; a key is not.
    key: `cooldown:${hash('sha256', `${rule.id}\0${who}\0${cooldownKey}`, 'base64url')}`,
    untilMs: toldAtMs =>
      seconds !== undefined
        ? toldAtMs + seconds * 1000
        : period !== undefined
          ? windowOf(period, zone, toldAtMs).end
          : toldAtMs + FOR_EVER_MS,
  }
}

/** A year is as good as for ever: claims are kept no longer. */
const FOR_EVER_MS = 366 * 86_400_000
const NO_CHANNELS: readonly Channel[] = []
const NO_ATTRIBUTES: JsonObject = Object.freeze({})
/** Of no notification: what is said is compared without it. */
const NO_ID = '00000000-0000-0000-0000-000000000000'
