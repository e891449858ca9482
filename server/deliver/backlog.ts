import type { Db, Queryable } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { appendFeed } from '../ledger/append-feed.ts'
import { claimDueJobs, claimSpilled, nextJobAt, sweepDeadOwners } from '../ledger/claim.ts'
import type { StoredDelivery } from '../ledger/claim.ts'
import { reactionsTo } from '../ledger/conditions.ts'
import type { Condition } from '../ledger/conditions.ts'
import { placesOf } from '../ledger/usage.ts'
import { SHARDS } from '../ledger/counters.ts'
import type { AddressedContent } from '../ledger/plan.ts'
import { settler } from '../ledger/settle.ts'
import type { Settlement } from '../ledger/settle.ts'
import { effectivePreference, unwanted } from '../people/effective-preference.ts'
import type { PeopleFacts, PreferenceRow, UserFacts } from '../people/facts.ts'
import { scopesOf } from '../people/preference-scopes.ts'
import type { Reason } from '../reasons.ts'
import { type Lookout, type Next, lookout } from '../time/lookout.ts'
import type { Channel, TenantId } from '../types.ts'
import type { Delivery, LiveBatch } from './delivery.ts'
import { progressIn } from './devices.ts'
import type { DeliveryLoop } from './loop.ts'

/**
 * Brings back into memory what waits in the database: due jobs (retries, held and scheduled sends, fallbacks) and
 * spilled batches, each tenant in turn; and what dead processes held.
 */
export interface Backlog extends Lookout {
  /** Claims as much as there is room for; true when there may be more at once. */
  runOnce(): Promise<boolean>
  /** Gives back the leases of dead processes. */
  sweep(): Promise<number>
}

export interface BacklogParts {
  db: Db
  loop: DeliveryLoop
  sealer: Sealer
  tenantKey(tenantId: TenantId): Buffer | undefined
  people: PeopleFacts
  /** Makes the facts current (server/db/changes.ts). */
  look(q: Queryable): Promise<void>
  settle(settlement: Settlement): void
  owner(): number
  now(): Date
  /** Channels this process delivers. */
  channels: readonly Channel[]
  claimJobs: number
  claimBatches: number
  sweepMs: number
  onFed(people: { tenantId: TenantId; userId: string }[]): void
  onError(error: unknown): void
}

/** About what a batch holds (config.ingest.batchSize); only used to judge what there is room for. */
const BATCH_SIZE = 500

export function backlog(parts: BacklogParts): Backlog {
  const { db, loop } = parts
  const outside = new Set(parts.channels)
  const ledger = settler((parts.owner() * 16 + 14) % SHARDS)
  let sweptAtMs = 0

  async function runOnce(): Promise<boolean> {
    const owner = parts.owner()
    // Room is left for others, however slow the far end of one tenant's backlog may be.
    const except = loop.full()
    let more = false
    if (loop.room > 0) {
      const most = Math.min(parts.claimJobs, loop.room)
      // In-app is nobody's special channel: whoever delivers anything releases it.
      const channels: Channel[] = [...outside, 'in_app']
      const jobs = await claimDueJobs(db, {
        owner,
        now: parts.now(),
        perTenant: Math.ceil(most / 4),
        most,
        except,
        channels,
      })
      if (jobs.length > 0) {
        more = true
        const wanted = await stillWanted(jobs)
        await releaseInApp(wanted.filter(job => job.channel === 'in_app'))
        await open(
          wanted.filter(job => job.channel !== 'in_app'),
          () => null,
        )
      }
    }
    if (loop.room > 0) {
      const batches = await claimSpilled(db, {
        owner,
        now: parts.now(),
        // Each tenant as much as any other, and no more than there is room for.
        perTenant: parts.claimBatches,
        // One at least: where memory is kept small a batch may be more than all the room there is.
        most: Math.max(1, Math.floor(loop.room / BATCH_SIZE)),
        except,
      })
      if (batches.length > 0) {
        more = true
        const live = new Map<StoredDelivery, LiveBatch>()
        for (const { id, deliveries } of batches) {
          const batch = { id, owner, left: deliveries.length }
          for (const delivery of deliveries) live.set(delivery, batch)
        }
        await open([...live.keys()], delivery => live.get(delivery)!)
      }
    }
    return more
  }

  /**
   * What waited meets again the questions whose answers may have changed: did somebody react, is the person still
   * there, do they still want it? What is not wanted any more ends here.
   */
  async function stillWanted(jobs: StoredDelivery[]): Promise<StoredDelivery[]> {
    const steps = jobs.filter(({ job }) => job?.kind === 'escalation')
    const reactions = await reactionsTo(
      db,
      steps.map(({ tenantId, notificationId, job }) => ({
        tenantId,
        notificationId: (job!.state['of'] as string | undefined) ?? notificationId,
        unless: job!.state['unless'] as Condition,
      })),
    )
    const ends = new Map<StoredDelivery, string>()
    for (const [i, step] of steps.entries()) if (reactions[i]) ends.set(step, reactions[i])

    const waited = jobs.filter(
      ({ job, recipient }) => job && WAITED.has(job.kind) && recipient.type === 'user',
    )
    if (waited.length > 0) {
      await parts.look(db)
      const facts = await parts.people.load(
        db,
        waited.map(({ tenantId, recipient }) => ({ tenantId, userIds: [recipient.id] })),
      )
      for (const delivery of waited) {
        const user = facts.get(delivery.tenantId, delivery.recipient.id)
        const why =
          user &&
          !ends.has(delivery) &&
          refusal(delivery, user, facts.tenantDefaults(delivery.tenantId), parts.now())
        if (why) ends.set(delivery, why)
      }
    }
    if (ends.size === 0) return jobs
    const now = parts.now()
    const inbox: Settlement[] = []
    for (const [delivery, code] of ends) {
      // Somebody's reaction ends all channels of the step, so what they share is free again too.
      const reacted = code === 'acknowledged' || code === 'condition_met'
      const settlement = {
        ...ended(delivery, null, 'cancelled', code, now),
        back: placesOf(delivery.tenantId, delivery.job!.state, reacted),
      }
      if (delivery.channel === 'in_app') inbox.push(settlement)
      else parts.settle(settlement)
    }
    if (inbox.length > 0) await db.tx(tx => ledger.write(tx.client, inbox, parts.owner(), now))
    return jobs.filter(job => !ends.has(job))
  }

  async function open(
    stored: StoredDelivery[],
    batchOf: (delivery: StoredDelivery) => LiveBatch | null,
  ): Promise<void> {
    if (stored.length === 0) return
    const keys = await keysOf(stored)
    const ready: Delivery[] = []
    for (const delivery of stored) {
      const batch = batchOf(delivery)
      const key = keys(delivery)
      if (!key) {
        parts.settle(unreadable(delivery, batch, parts.now()))
        continue
      }
      if (!outside.has(delivery.channel)) {
        parts.settle(passOn(delivery, batch, parts.now()))
        continue
      }
      const bodies = JSON.parse(parts.sealer.open(key, delivery.sealed).toString('utf8')) as Record<
        Channel,
        AddressedContent
      >
      ready.push({ ...delivery, body: bodies[delivery.channel], state: delivery.job?.state, batch })
    }
    loop.push(ready)
  }

  /** The keys that open these contents; undefined for a person who was erased meanwhile. */
  async function keysOf(stored: StoredDelivery[]): Promise<(delivery: StoredDelivery) => Buffer | undefined> {
    const wanted = new Map<TenantId, Set<string>>()
    for (const { tenantId, recipient } of stored) {
      if (recipient.type !== 'user') continue
      let users = wanted.get(tenantId)
      if (!users) wanted.set(tenantId, (users = new Set()))
      users.add(recipient.id)
    }
    await parts.look(db)
    const facts = await parts.people.load(
      db,
      [...wanted].map(([tenantId, userIds]) => ({ tenantId, userIds })),
    )
    return ({ tenantId, recipient }) =>
      recipient.type === 'user' ? facts.get(tenantId, recipient.id)?.dataKey : parts.tenantKey(tenantId)
  }

  /** A held in-app message: the commit that puts it into the feed is its delivery. */
  async function releaseInApp(jobs: StoredDelivery[]): Promise<void> {
    if (jobs.length === 0) return
    const now = parts.now()
    const due = jobs.filter(job => job.expiresAtMs === null || job.expiresAtMs > now.getTime())
    await db.tx(async tx => {
      // Inboxes first, as for everybody who takes them and counts for experiments; without the lease nothing of it stays.
      if (due.length > 0) {
        await appendFeed(
          tx,
          due.map(job => ({
            tenantId: job.tenantId,
            userId: job.recipient.id,
            notificationId: job.notificationId,
            createdAt: now,
            expiresAt: job.expiresAtMs === null ? null : new Date(job.expiresAtMs),
            thread: job.thread,
          })),
        )
      }
      await ledger.write(
        tx.client,
        jobs.map(job => ended(job, null, due.includes(job) ? 'delivered' : 'expired', null, now)),
        parts.owner(),
        now,
      )
    })
    if (due.length > 0) parts.onFed(due.map(job => ({ tenantId: job.tenantId, userId: job.recipient.id })))
  }

  async function sweep(): Promise<number> {
    return sweepDeadOwners(db, parts.owner())
  }

  async function look(): Promise<Next> {
    const nowMs = parts.now().getTime()
    if (nowMs - sweptAtMs >= parts.sweepMs) {
      sweptAtMs = nowMs
      await sweep()
    }
    const asOf = parts.now()
    const more = await runOnce()
    // Room comes as deliveries end, a little at a time.
    if (loop.full().length > 0 || loop.room <= 0) return new Date(parts.now().getTime() + 20)
    return more ? 'more' : nextJobAt(db, asOf)
  }

  const outlook = lookout({ look, now: parts.now, atLatestMs: parts.sweepMs, onError: parts.onError })
  return { ...outlook, runOnce, sweep }
}

/** Kinds of jobs that wait for a time rather than for a next try. */
const WAITED: ReadonlySet<string> = new Set(['held', 'escalation'])

/** Why it is not to go any more, as of now. */
function refusal(
  { channel, eventType, priority, ruleId, category, job }: StoredDelivery,
  user: UserFacts,
  defaults: readonly PreferenceRow[],
  now: Date,
): Reason | null {
  // Only passed on to another process: it was decided a moment ago.
  if (job?.reason === 'spilled' || !user.known) return null
  if (user.erased) return 'user_erased'
  if (!user.enabled) return 'user_disabled'
  const wanted = effectivePreference(user.preferences, defaults, {
    channel,
    scopes: scopesOf({ ruleId: ruleId ?? undefined, category, eventType }),
    eventType,
    priority,
  })
  // Consent is asked for when it is planned: here the rule's own class is not at hand.
  return !wanted.required && !wanted.enabled && wanted.off !== 'consent' && unwanted(wanted, now)
    ? 'preference_changed'
    : null
}

const base = (delivery: StoredDelivery, batch: LiveBatch | null): Omit<Settlement, 'attempts' | 'again'> => ({
  tenantId: delivery.tenantId,
  notificationId: delivery.notificationId,
  channel: delivery.channel,
  priority: delivery.priority,
  eventType: delivery.eventType,
  eventId: delivery.eventId,
  batch,
  hasFallback: delivery.hasFallback,
  measured: delivery.measured,
})

function ended(
  delivery: StoredDelivery,
  batch: LiveBatch | null,
  outcome: 'delivered' | 'sent' | 'expired' | 'cancelled',
  code: string | null,
  now: Date,
): Settlement {
  return {
    ...base(delivery, batch),
    attempts: [
      {
        tenantId: delivery.tenantId,
        notificationId: delivery.notificationId,
        channel: delivery.channel,
        attempt: delivery.tries + 1,
        outcome,
        final: true,
        atMs: now.getTime(),
        durationMs: null,
        provider: null,
        messageId: null,
        code,
        error: null,
        cost: null,
      },
    ],
    again: null,
  }
}

/** Its reader was erased: there is nothing left to say, and nobody to say it to. What some devices show was said. */
function unreadable(delivery: StoredDelivery, batch: LiveBatch | null, now: Date): Settlement {
  const outcome = progressIn(delivery.job?.state).taken.size > 0 ? 'sent' : 'cancelled'
  return ended(delivery, batch, outcome, 'user_erased', now)
}

/** For a channel that other processes deliver. */
const passOn = (delivery: StoredDelivery, batch: LiveBatch | null, now: Date): Settlement => ({
  ...base(delivery, batch),
  attempts: [],
  again: { kind: 'held', runAtMs: now.getTime(), reason: 'spilled', provider: null, attempt: delivery.tries },
})
