import { alertsOf, stateKey, withIncident } from '../alerts/alert.ts'
import { newId } from '../db/ids.ts'
import type { Sealer } from '../db/seal.ts'
import type { Candidate, Standing } from '../decide/candidate.ts'
import { decide, told, use } from '../decide/decide.ts'
import { storeDecision, storeRecipient } from '../decide/trace.ts'
import type { StoredRule, StoredTrace } from '../decide/trace.ts'
import { DIGEST_EVENT } from '../digest/compose.ts'
import { digestWish, overflowWish } from '../digest/wish.ts'
import type {
  HeldOut,
  AddressedContent,
  PlannedCollect,
  PlannedEvent,
  PlannedHold,
  PlannedLink,
  PlannedNotification,
} from '../ledger/plan.ts'
import { storePlaces } from '../ledger/usage.ts'
import type { LimitHit } from '../limits/hits.ts'
import type { Usage } from '../limits/usage.ts'
import type { EscalationStep } from '../match/policy.ts'
import type { UserFacts } from '../people/facts.ts'
import type { TenantBook } from '../people/tenant-book.ts'
import { LINKED_TEXTS, trackingOf, wantsShortLinks } from '../people/tracking-consent.ts'
import type { Tracking } from '../people/tracking-consent.ts'
import type { Decision, Reason } from '../reasons.ts'
import type { TextLinks } from '../render/template.ts'
import { eventView } from '../render/view.ts'
import type { Channel, Event, Id, Priority, TenantId } from '../types.ts'
import type { Draft, Telling } from './draft.ts'
import type { Route } from './route.ts'
import type { Tellings } from './telling.ts'
import { textFor } from './world.ts'
import type { World } from './world.ts'
import type { Writer } from './write.ts'

export interface TellerParts {
  tenants: TenantBook
  sealer: Sealer
  tellings: Tellings
  writer: Writer
  /** Channels with at least one provider. */
  channelOpen(channel: Channel): boolean
  /** Why a channel is closed to this event alone, by whoever's it is. */
  closedTo?(event: Event, channel: Channel): string | undefined
  shortLinks?: ShortLinkMaker | undefined
  skipped?(reason: Reason, n: number): void
  limited?(hit: LimitHit): void
}

/** Short links of one message (server/track/short-links.ts). */
export interface ShortLinkMaker {
  of(
    to: { tenantId: TenantId; notificationId: Id; channel: Channel },
    noted: () => boolean,
    now: Date,
  ): { shorten(text: string): string; kept(text: string): PlannedLink[] }
}

interface Asked {
  decision: Decision
  candidate: Candidate
}

/** Decides for everybody whom an event may tell, and writes what they will read. */
export function teller({
  tenants,
  sealer,
  tellings,
  writer,
  channelOpen,
  closedTo,
  shortLinks,
  skipped,
  limited,
}: TellerParts) {
  function decideEvent(draft: Draft, world: World, usage: Usage, now: Date): PlannedEvent {
    const { event } = draft
    const tenant = tenants.get(event.tenantId)!
    const view = eventView(event)
    const common = world.common(event.tenantId)
    const notifications: PlannedNotification[] = []
    const heldOut: HeldOut[] = []
    const trace: StoredTrace = { rules: draft.skipped }
    if (draft.more > 0) trace.more = draft.more
    let deliveries = 0
    let suppressed = 0
    let only: UserFacts | null | undefined

    const standing = world.standing(event)
    for (const [at, route] of draft.routes.entries()) {
      const stored: StoredRule = { r: route.rule?.no ?? null, v: route.rule?.revision }
      trace.rules.push(stored)
      if (route.failed !== undefined) {
        stored.w = 'recipients_error'
        stored.e = route.failed
        continue
      }
      const to: NonNullable<StoredRule['to']> = []
      for (const telling of draft.tellings) {
        if (telling.at !== at) continue
        only = telling.user !== null && (only === undefined || only === telling.user) ? telling.user : null
        tell(telling)
      }
      if (to.length > 0) stored.to = to
      else stored.w = 'no_recipients'

      function tell(telling: Telling): void {
        const { recipient, user, part } = telling
        const entry = storeRecipient(recipient, part ? [{ x: part.experiment.id, v: part.name }] : [])
        // Whoever is to be told nothing and is told all the same, as it is critical, is no part of the comparison.
        const measured = part !== null && !part.silent
        const bodies: PlannedNotification['bodies'] = {}
        const links = new Map<Channel, PlannedLink[]>()
        const holds: PlannedHold[] = []
        const collects: PlannedCollect[] = []
        const going: Channel[] = []
        let silenced = false
        const id = newId()
        const compiled = textFor(event, telling, world)

        /** What becomes of it on this channel, and, if it goes there, what it would say. */
        const ask = (channel: Channel, at: Date, alone = false): Asked => {
          const candidate = candidateOf(draft, telling, channel, standing, world, usage, now)
          if (alone) {
            candidate.digest = null
            candidate.overflow = null
          }
          const decision = decide(candidate, at)
          if (decision.kind === 'skip') return { decision, candidate }
          try {
            const { address } = candidate
            const short = linksFor(channel, route.priority, user, event, id, world, now)
            const mine = short ? { ...common, links: short } : common
            bodies[channel] = {
              ...withIncident(
                channel,
                route,
                writer.write(channel, route, compiled, view, recipient, user, id, tenant, now, mine),
              ),
              to: address?.address ?? recipient.id,
              ...(event.maxRetries !== undefined && { maxRetries: event.maxRetries }),
              ...(channel !== 'in_app' && aboutOf(route)),
              ...(address && writer.settingsOf(address, tenant)),
              ...(address && writer.othersOf(address, user, channel, tenant)),
            }
            const kept = short?.kept(bodies[channel].body) ?? []
            if (kept.length > 0) links.set(channel, kept)
            const track = channel === 'email' && trackOf(bodies[channel], route.priority, user, world)
            if (track) bodies[channel].track = track
          } catch (error) {
            const detail = (error as Error).message.slice(0, 200)
            return { decision: { kind: 'skip', reason: 'render_failed', detail }, candidate }
          }
          return { decision, candidate }
        }
        const consider = (channel: Channel): boolean => {
          const { decision, candidate } = ask(channel, now)
          entry.push(storeDecision(channel, decision))
          deliveries++
          stopped(candidate, decision)
          if (decision.kind === 'skip') {
            suppressed++
            silenced ||= decision.reason === 'holdout'
            skipped?.(decision.reason, 1)
            return false
          }
          going.push(channel)
          if (decision.kind === 'digest') {
            collects.push({ channel, wish: decision.wish })
            told(candidate, now)
            return true
          }
          if (decision.kind === 'hold') {
            const { until, reason } = decision
            const took = use(candidate, until)
            holds.push({
              channel,
              until,
              reason,
              ...(took.length > 0 && { state: { took: storePlaces(took) } }),
            })
          } else use(candidate, now)
          return true
        }
        const stopped = (candidate: Candidate, decision: Decision): void => {
          if (decision.kind === 'send' || decision.over === undefined) return
          const { over } = decision
          const about = {
            tenantId: event.tenantId,
            over,
            userId: user?.userId ?? null,
            channel: candidate.channel,
          }
          limited?.(about)
          if (!over.suspicious) return
          const action = decision.kind === 'skip' ? 'BLOCK' : 'THROTTLE'
          usage.suspect({ ...about, eventType: event.type, action })
        }
        /** Decided for the instant at which it would go; whether it goes then is seen at its release. */
        const escalate = (step: EscalationStep, of: Id | undefined): void => {
          const due = new Date(now.getTime() + step.afterSeconds * 1000)
          for (const channel of step.channels) {
            if (going.includes(channel)) continue
            // What escalates is not to be gathered with others.
            const { decision, candidate } = ask(channel, due, true)
            deliveries++
            stopped(candidate, decision)
            if (decision.kind === 'skip') {
              entry.push(storeDecision(channel, decision))
              suppressed++
              skipped?.(decision.reason, 1)
              continue
            }
            const until = decision.kind === 'hold' ? decision.until : due
            const detail = `unless ${step.unless}`
            entry.push(storeDecision(channel, { kind: 'hold', until, reason: 'escalation', detail }))
            going.push(channel)
            const took = use(candidate, until)
            const state = {
              unless: step.unless,
              ...(of === undefined ? {} : { of }),
              ...(took.length > 0 && { took: storePlaces(took) }),
            }
            holds.push({ channel, until, reason: 'escalation', kind: 'escalation', state })
          }
        }
        let rest = telling.fallback
        if (telling.follows) {
          const { first, step } = telling.follows
          // Nobody was told in the first place, so there is nothing to follow.
          if (first.notificationId === undefined) return
          escalate(step, first.notificationId)
        } else {
          for (const channel of telling.channels) consider(channel)
          // Nothing could even be tried: the fallback begins at once, with the first channel that can.
          while (going.length === 0 && rest.length > 0) {
            consider(rest[0]!)
            rest = rest.slice(1)
          }
          if (going.length > 0) {
            telling.notificationId = id
            for (const step of route.policy.escalation ?? []) if (!step.users) escalate(step, undefined)
          }
        }
        to.push(entry)
        if (going.length === 0) {
          if (silenced) {
            heldOut.push({
              tenantId: event.tenantId,
              experimentId: part!.experiment.id,
              recipientType: recipient.type,
              recipientId: recipient.id,
            })
          }
          return
        }
        const spare = rest.filter(
          channel => !going.includes(channel) && ask(channel, now).decision.kind === 'send',
        )
        const scheduled =
          holds.length === 0 ? null : new Date(Math.min(...holds.map(hold => hold.until.getTime())))
        notifications.push({
          id,
          tenantId: event.tenantId,
          event,
          recipientType: recipient.type,
          recipientId: recipient.id,
          ruleId: route.rule?.id ?? null,
          templateId: compiled?.revision.templateId ?? null,
          revision: compiled?.revision.revision ?? null,
          locale: user?.locale ?? null,
          ...(measured && { experiment: { id: part.experiment.id, variant: part.name } }),
          priority: route.priority,
          category: route.category,
          channels: going,
          fallback: spare,
          holds,
          collects,
          ...aboutOf(route),
          ...(route.thread !== undefined && { thread: route.thread }),
          expiresAt: event.expiresAt ?? null,
          scheduledAt: scheduled,
          bodies,
          sealed: sealer.seal(user?.dataKey ?? tenant.dataKey, JSON.stringify(bodies)),
          ...(links.size > 0 && { links: [...links.values()].flat() }),
        })
      }
    }
    if (draft.routes.length === 0) trace.w = 'no_rule_matched'

    const person = only?.dataKey ? only : undefined
    return {
      event,
      sealed: writer.seal(event, person),
      sealedFor: person?.userId,
      planned: true,
      trace: JSON.stringify(trace),
      notifications,
      deliveries,
      suppressed,
      ...alertsOf(event, draft.routes),
      ...(heldOut.length > 0 && { heldOut }),
    }
  }

  /** Links in texts; made when the first one is to be short. What is critical keeps them: they tend to be keys. */
  function linksFor(
    channel: Channel,
    priority: Priority,
    user: UserFacts | null,
    { tenantId }: Event,
    notificationId: Id,
    world: World,
    now: Date,
  ): (TextLinks & { kept(text: string): PlannedLink[] }) | undefined {
    if (!shortLinks || priority === 'CRITICAL' || !LINKED_TEXTS.includes(channel)) return undefined
    const defaults = world.facts.tenantDefaults(tenantId)
    const noted = () => trackingOf(user, defaults, channel)?.clicks === true
    let made: ReturnType<ShortLinkMaker['of']> | undefined
    return {
      wanted: wantsShortLinks(defaults, channel),
      shorten: text =>
        (made ??= shortLinks.of({ tenantId, notificationId, channel }, noted, now)).shorten(text),
      kept: text => made?.kept(text) ?? [],
    }
  }

  /** Nothing is noticed of what is critical: its links tend to be keys, such as one that sets a new password. */
  function trackOf(
    { html }: AddressedContent,
    priority: Priority,
    user: UserFacts | null,
    world: World,
  ): Tracking | undefined {
    if (html === undefined || user === null || priority === 'CRITICAL') return undefined
    return trackingOf(user, world.facts.tenantDefaults(user.tenantId))
  }

  function candidateOf(
    draft: Draft,
    telling: Telling,
    channel: Channel,
    standing: Standing | null,
    world: World,
    usage: Usage,
    now: Date,
  ): Candidate {
    const { event } = draft
    const { route, recipient, user, level, zone, cooldown } = telling
    const {
      preference,
      address,
      caps,
      sameness: said = null,
    } = telling.views.get(channel) ?? tellings.view(telling, channel, event, world, now)
    return {
      event,
      channel,
      recipient,
      priority: route.priority,
      category: route.category,
      expiresAt: event.expiresAt ?? null,
      user,
      address,
      preference,
      level,
      schedule: route.schedule,
      alreadyTold: draft.told.size > 0 && draft.told.has(`${route.rule?.id ?? ''} ${recipient.id}`),
      channelOpen: channelOpen(channel),
      closed: closedTo?.(event, channel),
      zone,
      policy: route.policy,
      score: route.policy.score ?? null,
      standing,
      heldOut: telling.part?.silent ? telling.part.experiment : null,
      cooldown,
      sameness: said,
      caps,
      usage,
      telling,
      digest: digestWish(
        {
          ...telling,
          ruleId: route.rule?.id ?? null,
          eventType: event.type,
          policy: route.policy,
          key: route.digestKey,
          preference,
          channel,
        },
        now,
      ),
      overflow: event.type === DIGEST_EVENT ? null : overflowWish(zone, now),
    }
  }

  return { decideEvent }
}

/** Its inbox item takes the place of the one that told of the same before, unless the rule keeps both. */
function aboutOf({ rule, policy, state }: Route): Pick<PlannedNotification, 'about'> | undefined {
  const { earlier = 'update' } = policy.state ?? {}
  if (rule === null || state === null || earlier === 'keep') return undefined
  return { about: { key: stateKey(rule.id, state.key), earlier } }
}
