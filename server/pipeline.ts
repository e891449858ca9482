import { hash } from 'node:crypto'
import { alertsOf, stateKey, withIncident } from './alerts/alert.ts'
import type { ChangeWatch } from './db/changes.ts'
import { newId } from './db/ids.ts'
import type { Queryable } from './db/pool.ts'
import type { Sealer } from './db/seal.ts'
import type { TenantBook, TenantFacts } from './people/tenant-book.ts'
import type { Candidate, Cooldown, Standing } from './decide/candidate.ts'
import { decide, told, use } from './decide/decide.ts'
import { storeDecision, storeRecipient } from './decide/trace.ts'
import type { StoredRule, StoredTrace } from './decide/trace.ts'
import { DIGEST_EVENT } from './digest/compose.ts'
import { digestWish, overflowWish } from './digest/wish.ts'
import type {
  AddressedContent,
  Plan,
  PlannedCollect,
  PlannedEvent,
  PlannedHold,
  PlannedNotification,
} from './ledger/plan.ts'
import { readUsage, storePlaces } from './ledger/usage.ts'
import type { UsageWish } from './ledger/usage.ts'
import type { LimitBook } from './limits/limit-book.ts'
import { NO_USAGE, claimName, usage, usageName } from './limits/usage.ts'
import { sameness } from './limits/sameness.ts'
import type { Cap, Sameness, Usage } from './limits/usage.ts'
import { celEvent } from './match/cel.ts'
import type { RuleBook } from './match/rule-book.ts'
import type { Match } from './match/rule-index.ts'
import type { EscalationStep, RulePolicy } from './match/policy.ts'
import type { Rule } from './match/rules.ts'
import { openAddressSettings } from './people/addresses.ts'
import { effectivePreference } from './people/effective-preference.ts'
import type { EffectivePreference } from './people/effective-preference.ts'
import { openDeviceSettings } from './people/devices.ts'
import type { AddressFact, BatchFacts, DeviceFact, PeopleFacts, UserFacts } from './people/facts.ts'
import { suppressionsFor } from './people/facts.ts'
import { alreadyTold, audienceChunk, expandAudiences } from './people/recipients.ts'
import type { Audience, AudienceWish, Level } from './people/recipients.ts'
import { scopesOf } from './people/preference-scopes.ts'
import type { Decision, Reason } from './reasons.ts'
import { render } from './render/content.ts'
import type { CompiledRevision } from './render/content.ts'
import { renderDefault } from './render/default-templates.ts'
import type { Templates } from './render/templates.ts'
import { type Schedule, scheduleOf } from './time/schedule.ts'
import { zoneOrUtc } from './time/zone.ts'
import { windowOf } from './time/window.ts'
import { eventView, templateView } from './render/view.ts'
import type { EventView } from './render/view.ts'
import type {
  Channel,
  Content,
  Event,
  Id,
  InlineContent,
  JsonObject,
  Priority,
  Recipient,
  TenantId,
  UserId,
} from './types.ts'

/**
 * The way of a notification from an event to what is written about it:
 *
 *   match ──▶ recipients ──▶ facts ──▶ decide ──▶ render ──▶ plan
 *
 * Everything that is read is read for many events together, before anything is decided; deciding and rendering
 * are pure. Whoever calls `plan` writes the result (server/ledger/commit.ts) in one transaction.
 */
export interface Pipeline {
  /** Forgets and reloads what changed: tenants, rules, event types. Once a batch, before `plan`. */
  refresh(q: Queryable): Promise<void>
  plan(q: Queryable, events: readonly Event[], now: Date, options?: PlanOptions): Promise<Plan>
  /** The same for chosen routes and people only: one chunk of a large audience (server/ingest/planner.ts). */
  planChunk(q: Queryable, event: Event, route: Route, people: Audience, now: Date): Promise<Plan>
  /** The next people of a route after `after`, in the database's order of user ids. */
  chunk(
    q: Queryable,
    event: Event,
    route: Route,
    after: UserId,
    limit: number,
  ): Promise<{ user_id: UserId; level: Level }[]>
  withoutAddresses(route: Route): Route
  /** What an event leads to, in the order in which a large audience is walked. */
  routes(event: Event, now: Date): { routes: Route[]; skipped: StoredRule[]; more: number }
  /** Sealed the way `plan` does it: for an event that is only accepted for now, or refused. */
  seal(event: Event, person?: UserFacts): Buffer
}

export interface PlanOptions {
  /** These events may have been planned in part before: whoever was told is not told again. */
  again?: boolean
  /** Rules beside, or instead of, the stored ones: a draft. */
  rules?: Match
  /** Even a large audience at once; for drafts, where nothing is written. */
  audienceLimit?: number
}

/** One reason for telling people something: a rule that matched, or the event's own direct request. */
export interface Route {
  rule: Rule | null
  channels: readonly Channel[]
  fallback: readonly Channel[]
  priority: Priority
  category: string
  templateId: Id | null
  vars: JsonObject
  inline: InlineContent | undefined
  schedule: Schedule | null
  policy: RulePolicy
  /** Preference scopes of a solution, such as `aura:<id>`. */
  scopes: readonly string[]
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

export interface PipelineParts {
  watch: ChangeWatch
  tenants: TenantBook
  rules: RuleBook
  eventTypes: { refresh(q: Queryable): Promise<void> }
  people: PeopleFacts
  templates: Templates
  sealer: Sealer
  limits: LimitBook
  /** Silences and inhibitions in force for these events. */
  standing?(q: Queryable, events: readonly Event[], now: Date): Promise<(event: Event) => Standing | null>
  /** Channels with at least one provider. */
  channelOpen(channel: Channel): boolean
  /** Seconds each of these stages took for so many items, for metrics. */
  observe?: Observer
}

export interface Observer {
  matched(seconds: number, events: number, rules: number): void
  rendered(channel: Channel, seconds: number, n: number): void
  skipped(reason: Reason, n: number): void
}

/** An event with more recipients than this is planned by a worker, in chunks. */
export const INLINE_RECIPIENTS = 1000

export function pipeline(parts: PipelineParts): Pipeline {
  const { watch, tenants, rules, eventTypes, people, templates, sealer } = parts

  watch.on('user', people.forget)
  watch.on('template', templates.forget)
  watch.onReset(() => {
    people.reset()
    templates.reset()
  })

  // ---------------------------------------------------------------- match

  function routes(event: Event, now: Date, match?: Match): ReturnType<Pipeline['routes']> {
    if (event.direct) return { routes: [directRoute(event)], skipped: [], more: 0 }
    const view = celEvent(event, tenants.get(event.tenantId)?.name)
    const found = match ?? rules.index(event.tenantId)?.match(view, now)
    if (!found) return { routes: [], skipped: [], more: 0 }
    return {
      routes: found.matched.map(rule => ruleRoute(rule, view, now)),
      skipped: found.considered.map(({ rule, why, error }) => ({
        r: rule.no,
        v: rule.revision,
        w: why,
        e: error,
      })),
      more: found.consideredMore,
    }
  }

  // ---------------------------------------------------------------- the batch

  async function plan(q: Queryable, events: readonly Event[], now: Date, options: PlanOptions = {}) {
    const started = performance.now()
    const drafts = events.map(event => ({
      event,
      ...routes(event, now, options.rules),
      audiences: [] as (Audience | null)[],
      told: NOBODY,
      tellings: [] as Telling[],
    }))
    parts.observe?.matched(
      (performance.now() - started) / 1000,
      events.length,
      drafts.reduce((sum, draft) => sum + draft.routes.length, 0),
    )

    await findAudiences(q, drafts, options.audienceLimit ?? INLINE_RECIPIENTS)
    const inline = drafts.filter(draft => !tooLarge(draft, options.audienceLimit ?? INLINE_RECIPIENTS))
    if (options.again) {
      for (const draft of inline) {
        const ids = draft.routes.flatMap((route, at) => [...peopleOf(route, draft.audiences[at]!).keys()])
        draft.told = await alreadyTold(q, draft.event.tenantId, draft.event.id, ids)
      }
    }
    const world = await load(q, inline, now)
    const inlined = new Set(inline)
    // Ids are drawn only here, in one turn of the event loop, so that a batch's ids are one range.
    const planned = drafts.map(draft =>
      inlined.has(draft) ? decideEvent(draft, world, now) : { ...accepted(draft.event), planAt: now },
    )
    return { events: planned, usage: world.usage.taken() }
  }

  /** An event whose plan is left to a worker. */
  function accepted(event: Event): PlannedEvent {
    return {
      event,
      sealed: seal(event),
      planned: false,
      trace: null,
      notifications: [],
      deliveries: 0,
      suppressed: 0,
    }
  }

  async function planChunk(q: Queryable, event: Event, route: Route, audience: Audience, now: Date) {
    const draft: Draft = {
      event,
      routes: [{ ...route, users: [], audiences: [{ kind: 'group', name: '' }] }],
      skipped: [],
      more: 0,
      audiences: [audience],
      told: await alreadyTold(q, event.tenantId, event.id, [...audience.keys()]),
      tellings: [],
    }
    const world = await load(q, [draft], now)
    return { events: [decideEvent(draft, world, now)], usage: world.usage.taken() }
  }

  // ---------------------------------------------------------------- reading

  async function findAudiences(q: Queryable, drafts: Draft[], limit: number): Promise<void> {
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

  async function load(q: Queryable, drafts: readonly Draft[], now: Date): Promise<World> {
    const wanted = new Map<TenantId, Set<UserId>>()
    const wantedTemplates = new Map<string, { tenantId: TenantId; templateId: Id }>()
    const bare = new Map<TenantId, { channel: Channel; address: string }[]>()
    for (const draft of drafts) {
      const { tenantId } = draft.event
      let users = wanted.get(tenantId)
      if (!users) wanted.set(tenantId, (users = new Set()))
      for (const [at, route] of draft.routes.entries()) {
        for (const id of route.users) users.add(id)
        for (const id of draft.audiences[at]!.keys()) users.add(id)
        for (const step of route.policy.escalation ?? []) for (const id of step.users ?? []) users.add(id)
        if (route.templateId)
          wantedTemplates.set(`${tenantId} ${route.templateId}`, { tenantId, templateId: route.templateId })
        if (route.addresses.length > 0)
          bare.set(tenantId, [...(bare.get(tenantId) ?? []), ...route.addresses])
      }
    }
    const facts = await people.load(
      q,
      [...wanted].map(([tenantId, userIds]) => ({ tenantId, userIds })),
    )
    const names = [...wantedTemplates]
    const revisions = await templates.load(
      q,
      names.map(([, wish]) => wish),
    )
    const addresses = new Map<string, AddressFact>()
    for (const [tenantId, list] of bare) {
      const suppressions = await suppressionsFor(q, tenantId, list)
      for (const [at, { channel, address }] of list.entries()) {
        addresses.set(`${tenantId} ${channel} ${address}`, {
          id: address,
          address,
          verification: 'verified',
          settings: {},
          suppression: suppressions[at],
        })
      }
    }
    const standing = await parts.standing?.(
      q,
      drafts.map(({ event }) => event),
      now,
    )
    const wish: Wish = { counts: new Map(), claims: new Map() }
    const compiled: World['templates'] = new Map(names.map(([name], at) => [name, revisions[at]]))
    for (const draft of drafts) draft.tellings = tellingsOf(draft, facts, addresses, compiled, now, wish)
    const read = wish.counts.size === 0 && wish.claims.size === 0 ? NO_USAGE : await readUsage(q, asked(wish))
    return {
      facts,
      templates: compiled,
      addresses,
      standing: standing ?? NOTHING_STANDS,
      usage: usage(read),
    }
  }

  // ---------------------------------------------------------------- whom, and what that may use up

  function tellingsOf(
    draft: Draft,
    facts: BatchFacts,
    addresses: World['addresses'],
    revisions: World['templates'],
    now: Date,
    wish: Wish,
  ): Telling[] {
    const { event } = draft
    const wishClaim = (key: string) =>
      wish.claims.set(claimName(event.tenantId, key), { tenantId: event.tenantId, key })
    const tellings: Telling[] = []
    const add = (made: Omit<Telling, 'zone' | 'cooldown' | 'views'>): Telling => {
      const { route, recipient, user } = made
      const zone = user ? zoneOrUtc(user.timezone) : 'UTC'
      const cooldown = cooldownOf(route, recipient, zone)
      if (cooldown) wishClaim(cooldown.key)
      const telling: Telling = { ...made, zone, cooldown, views: new Map() }
      for (const channel of channelsOf(telling)) {
        const view = viewOf(telling, channel, event, facts)
        telling.views.set(channel, view)
        if (route.policy.repeat || route.policy.similar) {
          view.sameness = samenessOf(telling, channel, event, revisions, now)
          if (view.sameness?.repeat) wishClaim(view.sameness.repeat.key)
          if (view.sameness?.similar) wishClaim(view.sameness.similar.key)
        }
        for (const cap of view.caps) {
          if (cap.window === 'gap') wishClaim(cap.key)
          else {
            const fromMs = windowOf(cap.window, cap.zone, now.getTime()).start
            wish.counts.set(usageName(event.tenantId, cap.key, fromMs), {
              tenantId: event.tenantId,
              key: cap.key,
              fromMs,
            })
          }
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
  function viewOf(telling: Telling, channel: Channel, event: Event, facts: BatchFacts): ChannelView {
    const { route, user, bare, zone } = telling
    const preference = user
      ? effectivePreference(user.preferences, facts.tenantDefaults(event.tenantId), {
          channel,
          scopes: scopesFor(route, event),
          eventType: event.type,
          priority: route.priority,
        })
      : null
    const address = bare ?? user?.addresses[channel]?.[0] ?? (user && deviceOf(user, channel))
    const caps = parts.limits.caps({
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
    })
    return { preference, address, caps }
  }

  /**
   * What is said decides whether it was said before, so it is written once ahead of the reading; without the id of
   * its own that each notification has.
   */
  function samenessOf(
    { route, recipient, user }: Telling,
    channel: Channel,
    event: Event,
    revisions: World['templates'],
    now: Date,
  ): Sameness | null {
    const tenant = tenants.get(event.tenantId)!
    const compiled = route.templateId ? revisions.get(`${event.tenantId} ${route.templateId}`) : undefined
    const view = eventView(event)
    let text: Content
    try {
      text = write(channel, route, compiled, view, recipient, user, NO_ID, tenant, now)
    } catch {
      // Deciding meets the same error, and names it.
      return null
    }
    return sameness({
      ruleId: route.rule?.id ?? '',
      recipientType: recipient.type,
      recipientId: recipient.id,
      channel,
      text,
      repeat: route.policy.repeat,
      similar: route.policy.similar,
    })
  }

  // ---------------------------------------------------------------- decide and render

  function decideEvent(draft: Draft, world: World, now: Date): PlannedEvent {
    const { event } = draft
    const tenant = tenants.get(event.tenantId)!
    const view = eventView(event)
    const notifications: PlannedNotification[] = []
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
        const { recipient, user } = telling
        const entry = storeRecipient(recipient, [])
        const bodies: PlannedNotification['bodies'] = {}
        const holds: PlannedHold[] = []
        const collects: PlannedCollect[] = []
        const going: Channel[] = []
        const id = newId()
        const compiled = route.templateId
          ? world.templates.get(`${event.tenantId} ${route.templateId}`)
          : undefined

        /** What becomes of it on this channel, and, if it goes there, what it would say. */
        const ask = (channel: Channel, at: Date): { decision: Decision; candidate: Candidate } => {
          const candidate = candidateOf(draft, telling, channel, standing, world, now)
          const decision = decide(candidate, at)
          if (decision.kind === 'skip') return { decision, candidate }
          try {
            const { address } = candidate
            bodies[channel] = {
              ...withIncident(
                channel,
                route,
                write(channel, route, compiled, view, recipient, user, id, tenant, now),
              ),
              to: address?.address ?? recipient.id,
              ...(event.maxRetries !== undefined && { maxRetries: event.maxRetries }),
              ...(address && settingsOf(address, tenant)),
            }
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
          if (decision.kind === 'skip') {
            suppressed++
            parts.observe?.skipped(decision.reason, 1)
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
        /** Decided for the instant at which it would go; whether it goes then is seen at its release. */
        const escalate = (step: EscalationStep, of: Id | undefined): void => {
          const due = new Date(now.getTime() + step.afterSeconds * 1000)
          for (const channel of step.channels) {
            if (going.includes(channel)) continue
            const { decision, candidate } = ask(channel, due)
            deliveries++
            if (decision.kind === 'skip') {
              entry.push(storeDecision(channel, decision))
              suppressed++
              parts.observe?.skipped(decision.reason, 1)
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
        if (going.length === 0) return
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
          templateId: compiled ? route.templateId : null,
          revision: compiled?.revision.revision ?? null,
          locale: user?.locale ?? null,
          priority: route.priority,
          category: route.category,
          channels: going,
          fallback: spare,
          holds,
          collects,
          ...aboutOf(route),
          expiresAt: event.expiresAt ?? null,
          scheduledAt: scheduled,
          bodies,
          sealed: sealer.seal(user?.dataKey ?? tenant.dataKey, JSON.stringify(bodies)),
        })
      }
    }
    if (draft.routes.length === 0) trace.w = 'no_rule_matched'

    const person = only?.dataKey ? only : undefined
    return {
      event,
      sealed: seal(event, person),
      sealedFor: person?.userId,
      planned: true,
      trace: JSON.stringify(trace),
      notifications,
      deliveries,
      suppressed,
      ...alertsOf(event, draft.routes),
    }
  }

  function candidateOf(
    draft: Draft,
    telling: Telling,
    channel: Channel,
    standing: Standing | null,
    world: World,
    now: Date,
  ): Candidate {
    const { event } = draft
    const { route, recipient, user, level, zone, cooldown } = telling
    const {
      preference,
      address,
      caps,
      sameness: said = null,
    } = telling.views.get(channel) ?? viewOf(telling, channel, event, world.facts)
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
      channelOpen: parts.channelOpen(channel),
      zone,
      policy: route.policy,
      score: route.policy.score ?? null,
      standing,
      cooldown,
      sameness: said,
      caps,
      usage: world.usage,
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

  function write(
    channel: Channel,
    route: Route,
    compiled: CompiledRevision | undefined,
    event: EventView,
    recipient: Recipient,
    user: UserFacts | null,
    id: Id,
    tenant: TenantFacts,
    now: Date,
  ): Content {
    const view = templateView({
      event,
      vars: route.vars,
      user: user
        ? { id: user.userId, locale: user.locale, timezone: user.timezone, attributes: user.attributes }
        : { id: recipient.id },
      notification: { id, priority: route.priority },
      tenant,
      now,
    })
    if (compiled?.has(channel)) return render(compiled, channel, user?.locale ?? 'en', view)
    return renderDefault(channel, view, route.inline)
  }

  /** The device that was used last, as an address: apps register devices, people do not write them down. */
  function deviceOf(user: UserFacts, channel: Channel): AddressFact | null {
    if (channel !== 'push' && channel !== 'web_push') return null
    const device = user.devices.find(({ kind }) => (kind === 'web_push') === (channel === 'web_push'))
    if (!device) return null
    let made = deviceAddresses.get(device)
    if (!made) {
      made = { id: device.id, address: device.token, verification: 'verified', settings: NO_ATTRIBUTES }
      deviceAddresses.set(device, made)
      const tenant = tenants.get(user.tenantId)
      if (tenant) opened.set(made, openDeviceSettings(sealer, tenant.dataKey, device))
    }
    return made
  }
  const deviceAddresses = new WeakMap<DeviceFact, AddressFact>()

  // An address's secrets are opened once for as long as its facts are at hand.
  const opened = new WeakMap<AddressFact, JsonObject>()
  function settingsOf(
    address: AddressFact,
    tenant: TenantFacts,
  ): Pick<AddressedContent, 'settings'> | undefined {
    let settings = opened.get(address)
    if (!settings && Object.keys(address.settings).length === 0) return undefined
    if (!settings) {
      settings = openAddressSettings(sealer, tenant.dataKey, address) as JsonObject
      opened.set(address, settings)
    }
    return { settings }
  }

  function seal(event: Event, person?: UserFacts): Buffer {
    const key = person?.dataKey ?? tenants.get(event.tenantId)!.dataKey
    return sealer.seal(
      key,
      JSON.stringify({ data: event.data, direct: event.direct, maxRetries: event.maxRetries }),
    )
  }

  return {
    async refresh(q) {
      await watch.look(q)
      await tenants.refresh(q)
      await rules.refresh(q)
      await parts.limits.refresh(q)
      await eventTypes.refresh(q)
    },
    plan,
    planChunk,
    chunk: (q, event, route, after, limit) =>
      audienceChunk(q, { tenantId: event.tenantId, names: route.audiences }, route.users, after, limit),
    withoutAddresses: route => ({ ...route, addresses: NO_TARGETS }),
    routes,
    seal,
  }
}

interface Draft extends ReturnType<Pipeline['routes']> {
  event: Event
  audiences: (Audience | null)[]
  told: ReadonlySet<string>
  tellings: Telling[]
}

/** Somebody who may be told because of a route. */
interface Telling {
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
  /** Of the notification it came to. */
  notificationId?: Id
}

interface ChannelView {
  preference: EffectivePreference | null
  address: AddressFact | null
  caps: readonly Cap[]
  /** Where the rule asks whether the same was said before. */
  sameness?: Sameness | null
}

interface World {
  facts: BatchFacts
  templates: Map<string, CompiledRevision | undefined>
  addresses: Map<string, AddressFact>
  standing(event: Event): Standing | null
  usage: Usage
}

/** What is to be read of counters and claims, each once. */
interface Wish {
  counts: Map<string, UsageWish['counts'][number]>
  claims: Map<string, UsageWish['claims'][number]>
}

const asked = ({ counts, claims }: Wish): UsageWish => ({
  counts: [...counts.values()],
  claims: [...claims.values()],
})

const NOTHING_STANDS = () => null
const NO_CHANNELS: readonly Channel[] = []
const NO_ID = '00000000-0000-0000-0000-000000000000'
const NO_ATTRIBUTES: JsonObject = Object.freeze({})

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

/** Its inbox item takes the place of the one that told of the same before, unless the rule keeps both. */
function aboutOf({ rule, policy, state }: Route): Pick<PlannedNotification, 'about'> | undefined {
  const { earlier = 'update' } = policy.state ?? {}
  if (rule === null || state === null || earlier === 'keep') return undefined
  return { about: { key: stateKey(rule.id, state.key), earlier } }
}

/** A year is as good as for ever: claims are kept no longer. */
const FOR_EVER_MS = 366 * 86_400_000

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
    key: `cooldown:${rule.id}:${hash('sha256', `${who}\0${cooldownKey}`, 'base64url')}`,
    untilMs: toldAtMs =>
      seconds !== undefined
        ? toldAtMs + seconds * 1000
        : period !== undefined
          ? windowOf(period, zone, toldAtMs).end
          : toldAtMs + FOR_EVER_MS,
  }
}

const NOBODY: ReadonlySet<string> = new Set()
const NO_AUDIENCE: Audience = new Map()

function tooLarge(draft: Draft, limit: number): boolean {
  let people = 0
  for (const [at, route] of draft.routes.entries()) {
    const audience = draft.audiences[at]!
    if (audience === null) return true
    people += audience.size + route.users.length + route.addresses.length
  }
  return people > limit
}

/** Each person once, at the strongest level that brought them in. */
function peopleOf(route: Route, audience: Audience): Audience {
  if (route.users.length === 0) return audience
  if (audience.size === 0 && route.users.length === 1) return new Map([[route.users[0]!, 'ALL']])
  const all: Audience = new Map(audience)
  for (const user of route.users) all.set(user, 'ALL')
  return all
}

function ruleRoute(rule: Rule, view: ReturnType<typeof celEvent>, now: Date): Route {
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
    vars: rule.templateVars,
    inline: undefined,
    schedule: rule.schedule ? scheduleOf(rule.schedule, rule.timezone, rule.validFrom.getTime()) : null,
    policy: rule.policy,
    scopes: rule.keys.scopes(view, now),
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
const NO_TARGETS: Route['addresses'] = []

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

function directRoute(event: Event): Route {
  const direct = event.direct!
  return {
    rule: null,
    channels: direct.channels,
    fallback: direct.fallback,
    priority: event.priority ?? 'NORMAL',
    category: event.category ?? '',
    templateId: direct.templateId ?? null,
    vars: {},
    inline: direct.content,
    schedule: null,
    policy: NO_POLICY,
    scopes: NO_SCOPES,
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
