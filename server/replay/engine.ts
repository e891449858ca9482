import { type AlertState, firing } from '../alerts/alert.ts'
import type { StandingMemory } from '../alerts/standing-memory.ts'
import type { ChangeWatch } from '../db/changes.ts'
import type { Sealer } from '../db/seal.ts'
import { readTrace } from '../decide/trace.ts'
import type { StoredTrace } from '../decide/trace.ts'
import { DIGEST_EVENT, composeDigest } from '../digest/compose.ts'
import type { DigestItem } from '../digest/compose.ts'
import type { GroupSpec } from '../digest/group-state.ts'
import { newId } from '../db/ids.ts'
import type { AddressedContent, PlannedEvent, PlannedNotification } from '../ledger/plan.ts'
import { pipeline as openPipeline } from '../pipeline.ts'
import type { PipelineParts } from '../pipeline.ts'
import type { DigestWish, Reason } from '../reasons.ts'
import { PRIORITIES } from '../types.ts'
import type { Channel, Event, Id, InlineContent, Priority, Recipient } from '../types.ts'
import type { Memory } from './memory.ts'

/**
 * The product without its ledger: events in the order of their time, through the real pipeline, into what would be
 * said to whom, and when. Nothing is written and nobody is told. The clock is the events' own.
 */
export interface Engine {
  /** What is due before the event happens first. */
  accept(event: Event): Promise<void>
  /** To this instant: scheduled events and digests that are due by then. */
  advance(to: Date): Promise<void>
  /** Everything that still waits, to this instant at most; but what would only be told again is not any more. */
  finish(to: Date): Promise<void>
}

export interface Told {
  kind: 'told'
  /** When it leaves; what a digest collects leaves with its digest. */
  at: Date
  notificationId: Id
  eventId: Id
  eventType: string
  ruleId: Id | null
  recipient: Recipient
  channel: Channel
  priority: Priority
  content: AddressedContent
  /** Why it did not leave at once. */
  waited?: Reason
  /** Notifications it stands for, and what they were collected under. */
  items?: number
  digestKey?: string
}

export interface NotTold {
  kind: 'not_told'
  at: Date
  eventId: Id
  eventType: string
  /** Null: for the whole event. */
  recipient: Recipient | null
  channel: Channel | null
  ruleNo: number | null
  reason: Reason
  detail?: string
}

export interface EngineParts
  extends Omit<PipelineParts, 'watch' | 'sealer' | 'eventTypes' | 'observe' | 'standing'> {
  memory: Memory
  /** To open settings of addresses; nothing is sealed. */
  sealer?: Sealer
  /** Silences and inhibitions, over the alerts of these events. */
  alerts?: StandingMemory
  /** Also each "no", which costs reading the trace of every event. */
  nos?: boolean
  say(said: Told | NotTold): void
}

const NEVER: ChangeWatch = { look: async () => {}, on: () => {}, onReset: () => {} }
const NOTHING = Buffer.alloc(0)
/** Nothing is written, so even a large audience is worked out at once; beyond this it is not. */
const MOST_PEOPLE = 100_000

export function engine({ memory, say, alerts, nos = false, sealer, ...parts }: EngineParts): Engine {
  const pipeline = openPipeline({
    ...parts,
    watch: NEVER,
    eventTypes: { refresh: async () => {} },
    ...(alerts && {
      standing: async (_, events, now) => {
        const found = new Map(events.map(event => [event.id, alerts.standing(event, now)]))
        return event => found.get(event.id) ?? null
      },
    }),
    // What would be written is not, so sealing it would only take time.
    sealer: { ...(sealer as Sealer), seal: () => NOTHING },
  })
  const digests = new Map<string, OpenDigest>()
  /** What the last message of a group left, by the group. */
  const groups = new Map<string, ToldGroup>()
  /** How each alert stands, by whose word. */
  const states = new Map<string, AlertState & { eventId: Id }>()
  const due = agenda<() => Promise<void>>()
  let finishing = false

  async function plan(event: Event, at: Date): Promise<void> {
    if (event.expiresAt && event.expiresAt <= at) return
    const { events, usage } = await pipeline.plan(memory.q, [event], at, { audienceLimit: MOST_PEOPLE })
    if (usage) memory.take(usage)
    const planned = events[0]!
    const about: string[] = []
    if (planned.alerts) {
      alerts?.remember(planned.alerts)
      for (const alert of planned.alerts) {
        about.push(alert.key)
        const before = states.get(alert.key)
        if (!before || alert.at >= before.at) states.set(alert.key, { ...alert, eventId: event.id })
      }
    }
    if (nos) sayNos(planned, at)
    for (const notification of planned.notifications) tell(notification, about, at)
  }

  function tell(notification: PlannedNotification, about: readonly string[], at: Date): void {
    for (const channel of notification.channels) {
      const collected = notification.collects.find(one => one.channel === channel)
      if (collected) {
        collect({ notification, about, at }, channel, collected.wish)
        continue
      }
      const held = notification.holds.find(one => one.channel === channel)
      say(told(notification, channel, held?.until ?? at, held?.reason))
    }
  }

  function sayNos({ event, trace }: PlannedEvent, at: Date): void {
    if (trace === null) return
    const stored = JSON.parse(trace) as StoredTrace
    const about = { kind: 'not_told' as const, at, eventId: event.id, eventType: event.type }
    if (stored.w) say({ ...about, recipient: null, channel: null, ruleNo: null, reason: stored.w })
    for (const rule of readTrace(stored)) {
      if (rule.why) say({ ...about, recipient: null, channel: null, ruleNo: rule.no, reason: rule.why })
      for (const { type, id, decisions } of rule.recipients) {
        for (const { channel, decision, reason, detail } of decisions) {
          if (decision !== 'skip' || reason === undefined) continue
          say({
            ...about,
            recipient: { type, id },
            channel,
            ruleNo: rule.no,
            reason,
            ...(detail === undefined ? {} : { detail }),
          })
        }
      }
    }
  }

  // ---------------------------------------------------------------- digests

  function collect(item: Item, channel: Channel, wish: DigestWish): void {
    const { notification, at } = item
    const key = JSON.stringify([notification.tenantId, notification.recipientId, channel, wish.key])
    let digest = digests.get(key)
    if (!digest || digest.items.length === 0) {
      // A group that was told about less than its interval ago, and is not over: from then, not from now.
      const { intervalSeconds } = wish.spec as GroupSpec
      const group = intervalSeconds === undefined ? undefined : groups.get(key)
      const next = group && !group.over ? group.at.getTime() + intervalSeconds! * 1000 : 0
      const closesAt = next > at.getTime() ? new Date(next) : wish.closesAt
      digest = { key, id: newId(at.getTime()), channel, wish, items: [], closesAt }
      digests.set(key, digest)
    } else if (wish.quietSeconds !== null) {
      const quietAt = at.getTime() + wish.quietSeconds * 1000
      digest.closesAt = new Date(Math.min(digest.wish.latestAt.getTime(), quietAt))
    }
    digest.items.push(item)
    if (digest.items.length >= wish.maxItems) digest.closesAt = at
    awaitClosing(digest)
  }

  function awaitClosing({ key, id, closesAt }: OpenDigest): void {
    due.add(closesAt.getTime(), async () => {
      // Another one may have taken its place, or its time may have moved.
      const now = digests.get(key)
      if (now?.id === id && now.closesAt.getTime() <= due.now()) await close(now, new Date(due.now()))
    })
  }

  /** Whether the alert of an item fires, by the word of its own event. */
  const fires = ({ notification, about }: Item, at: Date): boolean =>
    about.some(key => {
      const state = states.get(key)
      return state?.eventId === notification.event.id && firing(state, at)
    })

  const covered = ({ notification }: Item, at: Date): boolean =>
    alerts !== undefined && alerts.standing(notification.event, at) !== null

  /** What goes with the digest of a group, and what is remembered of it. */
  function goesOf(digest: OpenDigest, live: readonly Item[], at: Date): readonly Item[] {
    const { key, wish, items } = digest
    const { intervalSeconds, repeatSeconds } = wish.spec as GroupSpec
    if (intervalSeconds === undefined) return live
    const before = groups.get(key)?.members ?? []
    const members = [...before, ...items].filter(item => fires(item, at))
    const aboutAlerts = [...before, ...items].some(({ about }) => about.length > 0)
    groups.set(key, { at, members, over: aboutAlerts && members.length === 0 })
    if (repeatSeconds !== undefined && members.length > 0 && !finishing) {
      const closesAt = new Date(at.getTime() + repeatSeconds * 1000)
      const again: OpenDigest = { ...digest, id: newId(at.getTime()), items: [], closesAt }
      digests.set(key, again)
      awaitClosing(again)
    }
    if (items.length === 0) return before.filter(item => fires(item, at) && !covered(item, at))
    return live.filter(item => !(fires(item, at) && covered(item, at)))
  }

  async function close(digest: OpenDigest, at: Date): Promise<void> {
    digests.delete(digest.key)
    const { channel, wish } = digest
    const again = digest.items.length === 0
    if (again && finishing) return
    const live = goesOf(
      digest,
      digest.items.filter(({ notification }) => !notification.expiresAt || notification.expiresAt > at),
      at,
    )
    const [first] = live
    if (!first) return
    const { retain = 'all', single = 'release' } = wish.spec as { retain?: string; single?: string }
    const one =
      retain === 'first'
        ? first
        : retain === 'last'
          ? live.at(-1)!
          : retain === 'highest'
            ? live.reduce((best, item) => (rank(item) < rank(best) ? item : best))
            : live.length === 1 && single === 'release'
              ? first
              : null
    if (one && !again) return say(told(one.notification, channel, at, wish.reason))
    const { notification } = first
    const shown = live.slice(0, wish.maxItems).map((item): DigestItem => {
      const content = item.notification.bodies[channel]
      return {
        notificationId: item.notification.id,
        eventType: item.notification.event.type,
        at: item.at,
        priority: item.notification.priority,
        subject: content?.subject,
        body: content?.body ?? '',
      }
    })
    const { content, data } = composeDigest({
      id: digest.id,
      key: wish.key,
      items: shown,
      count: live.length,
      locale: notification.locale ?? 'en',
    })
    const user = notification.recipientType === 'user'
    await plan(
      {
        tenantId: notification.tenantId,
        id: newId(at.getTime()),
        source: 'carillon',
        type: DIGEST_EVENT,
        subject: digest.id,
        time: at,
        receivedAt: at,
        data: { ...data, items: data['items']! },
        priority: PRIORITIES[Math.max(1, Math.min(...live.map(rank)))]!,
        category:
          new Set(live.map(item => item.notification.category)).size === 1 ? notification.category : 'digest',
        direct: {
          recipients: user ? [{ type: 'user', id: notification.recipientId }] : [],
          ...(user ? {} : { addresses: { [channel]: [notification.bodies[channel]?.to ?? ''] } }),
          channels: [channel],
          fallback: [],
          content: again && live.length === 1 ? contentOf(notification, channel) : content,
        },
      },
      at,
    )
  }

  async function advance(to: Date): Promise<void> {
    for (let next = due.next(to.getTime()); next; next = due.next(to.getTime())) await next()
  }

  return {
    advance,
    async finish(to) {
      finishing = true
      await advance(to)
    },
    async accept(event) {
      await advance(event.receivedAt)
      const { scheduledAt } = event
      if (scheduledAt && scheduledAt > event.receivedAt && !event.direct) {
        due.add(scheduledAt.getTime(), () => plan(event, scheduledAt))
      } else await plan(event, event.receivedAt)
    },
  }
}

interface Item {
  notification: PlannedNotification
  /** Keys of the alerts that its event speaks of. */
  about: readonly string[]
  at: Date
}

interface OpenDigest {
  key: string
  id: Id
  channel: Channel
  wish: DigestWish
  /** None: it waits to tell a group again. */
  items: Item[]
  closesAt: Date
}

/** As server/digest/group-state.ts reads it out of the database. */
interface ToldGroup {
  at: Date
  /** Those told of whose alerts fired then. */
  members: Item[]
  over: boolean
}

const contentOf = ({ bodies }: PlannedNotification, channel: Channel): InlineContent => {
  const { subject, body = '', html } = bodies[channel] ?? {}
  return { ...(subject !== undefined && { subject }), body, ...(html !== undefined && { html }) }
}

const rank = ({ notification }: Item): number => PRIORITIES.indexOf(notification.priority)

const told = (notification: PlannedNotification, channel: Channel, at: Date, waited?: Reason): Told => ({
  kind: 'told',
  at,
  notificationId: notification.id,
  eventId: notification.event.id,
  eventType: notification.event.type,
  ruleId: notification.ruleId,
  recipient: { type: notification.recipientType, id: notification.recipientId },
  channel,
  priority: notification.priority,
  content: notification.bodies[channel]!,
  ...(waited ? { waited } : {}),
  ...(notification.event.type === DIGEST_EVENT
    ? {
        items: notification.event.data['count'] as number,
        digestKey: notification.event.data['key'] as string,
      }
    : {}),
})

/** What is to happen when: a binary heap by time, then by the order of adding. */
export function agenda<T>() {
  const heap: { at: number; nr: number; what: T }[] = []
  let added = 0
  let clock = 0
  const before = (a: number, b: number) =>
    heap[a]!.at < heap[b]!.at || (heap[a]!.at === heap[b]!.at && heap[a]!.nr < heap[b]!.nr)
  const swap = (a: number, b: number) => {
    ;[heap[a], heap[b]] = [heap[b]!, heap[a]!]
  }
  return {
    add(at: number, what: T): void {
      heap.push({ at, nr: added++, what })
      for (let i = heap.length - 1, up = (i - 1) >> 1; i > 0 && before(i, up); i = up, up = (i - 1) >> 1)
        swap(i, up)
    },
    /** The next that is due by `to`, taken out; the clock stands at its time. */
    next(to: number): T | undefined {
      const [first] = heap
      if (!first || first.at > to) {
        clock = Math.max(clock, to)
        return undefined
      }
      const last = heap.pop()!
      if (heap.length > 0) {
        heap[0] = last
        for (let i = 0; ; ) {
          let least = i
          for (const child of [2 * i + 1, 2 * i + 2])
            if (child < heap.length && before(child, least)) least = child
          if (least === i) break
          swap(i, least)
          i = least
        }
      }
      clock = Math.max(clock, first.at)
      return first.what
    },
    now: () => clock,
  }
}
