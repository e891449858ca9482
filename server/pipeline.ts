import type { ChangeWatch } from './db/changes.ts'
import type { Queryable } from './db/pool.ts'
import type { Sealer } from './db/seal.ts'
import type { ExperimentBook } from './experiments/experiment-book.ts'
import type { Plan, PlannedEvent } from './ledger/plan.ts'
import { readUsage } from './ledger/usage.ts'
import type { LimitHit } from './limits/hits.ts'
import type { LimitBook } from './limits/limit-book.ts'
import { NO_USAGE, usage } from './limits/usage.ts'
import { celEvent } from './match/cel.ts'
import type { RuleBook } from './match/rule-book.ts'
import type { Match } from './match/rule-index.ts'
import type { PeopleFacts, UserFacts } from './people/facts.ts'
import { alreadyTold, audienceChunk } from './people/recipients.ts'
import type { Audience, Level } from './people/recipients.ts'
import type { TenantBook } from './people/tenant-book.ts'
import { NOBODY, findAudiences, peopleOf, tooLarge } from './plan/draft.ts'
import type { Draft, Routes } from './plan/draft.ts'
import { NO_TARGETS, directRoute, ruleRoute } from './plan/route.ts'
import type { Route } from './plan/route.ts'
import { teller } from './plan/tell.ts'
import type { ShortLinkMaker } from './plan/tell.ts'
import { tellings, usageWishes } from './plan/telling.ts'
import { readWorld } from './plan/world.ts'
import type { WorldParts } from './plan/world.ts'
import { type WriterParts, writer } from './plan/write.ts'
import type { Reason } from './reasons.ts'
import type { Templates } from './render/templates.ts'
import type { Channel, Event, UserId } from './types.ts'

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
  routes(event: Event, now: Date): Routes
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

export interface PipelineParts {
  watch: ChangeWatch
  tenants: TenantBook
  rules: RuleBook
  eventTypes: { refresh(q: Queryable): Promise<void> }
  people: PeopleFacts
  templates: Templates
  sealer: Sealer
  beside?: WriterParts['beside']
  limits: LimitBook
  standing?: WorldParts['standing']
  assets?: WorldParts['assets']
  messages?: WorldParts['messages']
  /** Makes links in texts short; without it they stay as they are. */
  shortLinks?: ShortLinkMaker
  /** What tells different people in different ways. */
  experiments?: ExperimentBook
  /** Channels with at least one provider. */
  channelOpen(channel: Channel): boolean
  /** Why a channel is closed to this event alone. */
  closedTo?(event: Event, channel: Channel): string | undefined
  /** Seconds each of these stages took for so many items, for metrics. */
  observe?: Observer
}

export interface Observer {
  matched(seconds: number, events: number, rules: number): void
  rendered(channel: Channel, seconds: number, n: number): void
  skipped(reason: Reason, n: number): void
  /** A limit held one back, or left it out. */
  limited(hit: LimitHit): void
}

/** An event with more recipients than this is planned by a worker, in chunks. */
export const INLINE_RECIPIENTS = 1000

export function pipeline(parts: PipelineParts): Pipeline {
  const { watch, tenants, rules, eventTypes, people, templates } = parts
  const text = writer(parts)
  const whom = tellings({ ...parts, writer: text })
  const { decideEvent } = teller({
    ...parts,
    writer: text,
    tellings: whom,
    skipped: parts.observe?.skipped,
    limited: parts.observe?.limited,
  })

  watch.on('user', people.forget)
  watch.on('template', templates.forget)
  watch.onReset(() => {
    people.reset()
    templates.reset()
  })

  // ---------------------------------------------------------------- match

  function routes(event: Event, now: Date, match?: Match): Routes {
    if (event.direct) return { routes: [tried(event, directRoute(event), now)], skipped: [], more: 0 }
    const view = celEvent(event, tenants.get(event.tenantId)?.name)
    const found = match ?? rules.index(event.tenantId)?.match(view, now)
    if (!found) return { routes: [], skipped: [], more: 0 }
    return {
      routes: found.matched.map(rule => tried(event, ruleRoute(rule, view, now), now)),
      skipped: found.considered.map(({ rule, why, error }) => ({
        r: rule.no,
        v: rule.revision,
        w: why,
        e: error,
      })),
      more: found.consideredMore,
    }
  }

  function tried({ tenantId }: Event, route: Route, now: Date): Route {
    route.experiment =
      parts.experiments?.find(tenantId, route.rule?.id ?? null, route.templateId, now) ?? null
    return route
  }

  // ---------------------------------------------------------------- the batch

  async function plan(q: Queryable, events: readonly Event[], now: Date, options: PlanOptions = {}) {
    const { audienceLimit = INLINE_RECIPIENTS } = options
    const started = performance.now()
    const drafts = events.map((event): Draft => draft(event, routes(event, now, options.rules)))
    parts.observe?.matched(
      (performance.now() - started) / 1000,
      events.length,
      drafts.reduce((sum, { routes }) => sum + routes.length, 0),
    )

    await findAudiences(q, drafts, audienceLimit)
    const inline = drafts.filter(each => !tooLarge(each, audienceLimit))
    if (options.again) {
      for (const each of inline) {
        const ids = each.routes.flatMap((route, at) => [...peopleOf(route, each.audiences[at]!).keys()])
        each.told = await alreadyTold(q, each.event.tenantId, each.event.id, ids)
      }
    }
    const { world, book } = await look(q, inline, now)
    const inlined = new Set(inline)
    // Ids are drawn only here, in one turn of the event loop, so that a batch's ids are one range.
    const planned = drafts.map(each =>
      inlined.has(each) ? decideEvent(each, world, book, now) : { ...accepted(each.event), planAt: now },
    )
    return { events: planned, usage: book.taken() }
  }

  async function planChunk(q: Queryable, event: Event, route: Route, audience: Audience, now: Date) {
    const chunk: Draft = {
      ...draft(event, {
        routes: [{ ...route, users: [], audiences: [{ kind: 'group', name: '' }] }],
        skipped: [],
        more: 0,
      }),
      audiences: [audience],
      told: await alreadyTold(q, event.tenantId, event.id, [...audience.keys()]),
    }
    const { world, book } = await look(q, [chunk], now)
    return { events: [decideEvent(chunk, world, book, now)], usage: book.taken() }
  }

  /** All that deciding will ask for: the world first, then the counters and claims of whom it may tell. */
  async function look(q: Queryable, drafts: readonly Draft[], now: Date) {
    const world = await readWorld(q, parts, drafts, now)
    const wishes = usageWishes()
    for (const each of drafts) each.tellings = whom.of(each, world, now, wishes)
    const wish = wishes.all()
    const nothing = wish.counts.length === 0 && wish.claims.length === 0
    return { world, book: usage(nothing ? NO_USAGE : await readUsage(q, wish)) }
  }

  /** An event whose plan is left to a worker. */
  function accepted(event: Event): PlannedEvent {
    return {
      event,
      sealed: text.seal(event),
      planned: false,
      trace: null,
      notifications: [],
      deliveries: 0,
      suppressed: 0,
    }
  }

  return {
    async refresh(q) {
      await watch.look(q)
      await tenants.refresh(q)
      await rules.refresh(q)
      await parts.limits.refresh(q)
      await parts.experiments?.refresh(q)
      await eventTypes.refresh(q)
    },
    plan,
    planChunk,
    chunk: (q, event, route, after, limit) =>
      audienceChunk(q, { tenantId: event.tenantId, names: route.audiences }, route.users, after, limit),
    withoutAddresses: route => ({ ...route, addresses: NO_TARGETS }),
    routes,
    seal: text.seal,
  }
}

const draft = (event: Event, found: Routes): Draft => ({
  event,
  ...found,
  audiences: [],
  told: NOBODY,
  tellings: [],
})
