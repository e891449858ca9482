import { hash } from 'node:crypto'
import type { AttemptRow, JobRow } from '../ledger/rows.ts'
import type { Settlement } from '../ledger/settle.ts'
import type { Channel, Content, JsonObject, Message, TenantId } from '../types.ts'
import type { BreakerPolicy } from './breaker.ts'
import { toMessage } from './delivery.ts'
import type { Delivery, MessageLinks } from './delivery.ts'
import { lanes } from './lanes.ts'
import type { Lane, Providers } from './lanes.ts'
import type { OpenedProvider } from './open-provider.ts'
import { DeliveryError, temporary } from './provider.ts'
import type { Sent } from './provider.ts'
import { MAX_WAITS, RETRY, nextTry } from './retry.ts'
import type { RetryPolicy } from './retry.ts'
import { scheduler } from './scheduler.ts'

/**
 * The one loop that acts on what providers say: it alone retries, breaks, paces, fails over and gives up. A
 * delivery that entered leaves as exactly one settlement.
 */
export interface DeliveryLoop {
  /** Takes over what is leased to this process. Never refuses: ask `room` before leasing more. */
  push(deliveries: readonly Delivery[]): void
  /** Deliveries that may still be taken into memory, over all tenants. */
  readonly room: number
  /** May this tenant put so many more into memory? Each has its share, whatever the others have. */
  roomFor(tenantId: TenantId, n: number): boolean
  /** Tenants that have their share already: what more of theirs is due is not leased for now. */
  full(): TenantId[]
  waiting(channel?: Channel): number
  inFlight(channel: Channel): number
  /** What waits is forgotten (its lease is gone or given back); what runs, runs on. */
  clear(): Delivery[]
  /** Starts nothing more and waits for what runs; after `patienceMs` it is aborted. */
  drain(patienceMs: number): Promise<void>
  lanes(): Iterable<Lane>
}

export interface LoopParts {
  providers: Providers
  settle(settlement: Settlement): void
  now(): Date
  random(): number
  /** Deliveries in memory, in all; each tenant may use half of it. */
  inFlight: number
  perChannel: number
  retry?: Partial<Record<Channel, Partial<RetryPolicy>>>
  breaker?: BreakerPolicy
  linksFor?(delivery: Delivery): MessageLinks | undefined
  /** What is sent in place of the stored content: made for each try, and nowhere kept. */
  contentFor?(delivery: Delivery): Content
  /** What one address said, of several that a delivery may have: taken, or gone for good. */
  onAnswer?(delivery: Delivery, to: string, said: 'taken' | 'gone'): void
  onBreaker?(change: 'opened' | 'closed', lane: string, channel: Channel): void
  observe?: LoopObserver
  /** A fault of ours in handling a delivery; the delivery itself comes back later. */
  onError(error: unknown): void
}

export interface LoopObserver {
  attempt(delivery: Delivery, attempt: AttemptRow): void
  settled(settlement: Settlement, delivery: Delivery): void
}

export function deliveryLoop(parts: LoopParts): DeliveryLoop {
  const queue = scheduler()
  const ways = lanes(parts.providers, parts.breaker)
  const active = new Map<Channel, number>()
  const held = new Map<TenantId, number>()
  const abort = new AbortController()
  let total = 0
  let running = 0
  let draining = false
  let drained: (() => void) | undefined

  function policyOf({ channel, body: { maxRetries } }: Delivery): RetryPolicy {
    const policy = { ...RETRY[channel], ...parts.retry?.[channel] }
    if (maxRetries !== undefined) policy.attempts = maxRetries + 1
    return policy
  }

  /** Nobody else may be asked while one may have it: a second message would do harm. */
  const holds = (delivery: Delivery): boolean => policyOf(delivery).unknown === 'hold'

  function pump(channel: Channel): void {
    while (!draining && (active.get(channel) ?? 0) < parts.perChannel) {
      const delivery = queue.take(channel)
      if (!delivery) return
      active.set(channel, (active.get(channel) ?? 0) + 1)
      running++
      void run(delivery).then(() => {
        active.set(channel, active.get(channel)! - 1)
        running--
        if (draining && running === 0) drained?.()
        else pump(channel)
      })
    }
  }

  /** Never rejects: whatever goes wrong is some settlement. */
  async function run(first: Delivery): Promise<void> {
    let deliveries = [first]
    const attempts = new Map<Delivery, AttemptRow[]>([[first, []]])
    const tried = new Set<string>()
    let startWith = first.provider
    try {
      for (;;) {
        const now = parts.now()
        if (first.expiresAtMs !== null && now.getTime() >= first.expiresAtMs) {
          return finish(first, attempts.get(first)!, 'expired', 'expired', null)
        }
        const message = messageOf(first, attempts.get(first)!.length)
        const choice = ways.choose(message, startWith, tried, now, startWith !== null && holds(first))
        if (choice.kind === 'none') {
          return giveUp(first, attempts.get(first)!, now, 'channel_unavailable')
        }
        if (choice.kind === 'wait') {
          const last = attempts.get(first)!
          // Urgent, and another channel may stand in: an outage is then a failure at once.
          if (choice.reason === 'breaker_open' && first.hasFallback && first.priority === 'CRITICAL') {
            return giveUp(first, last, now, 'breaker_open')
          }
          const spread = choice.reason === 'breaker_open' ? parts.random() * 5000 : parts.random() * 200
          return again(first, last, choice.until.getTime() + spread, 'held', choice.reason, startWith)
        }
        const { provider, lane } = choice
        if (choice.waitMs > 0) await new Promise(resolve => setTimeout(resolve, choice.waitMs))

        // Company for the same endpoint travels along, in one request.
        const severalDevices = first.body.others !== undefined
        const group =
          deliveries.length === 1 && tried.size === 0 && !severalDevices ? provider.group(message) : undefined
        if (group && group.max > 1) {
          const nowMs = now.getTime()
          const more = queue.takeMore(first, group.max - 1, other => {
            if (other.provider !== startWith || other.channel !== first.channel) return false
            if (other.expiresAtMs !== null && nowMs >= other.expiresAtMs) return false
            return provider.group(messageOf(other, 0))?.key === group.key
          })
          for (const other of more) attempts.set(other, [])
          deliveries = [first, ...more]
        }

        const startedMs = parts.now().getTime()
        const clock = performance.now()
        lane.active++
        const results = await send(provider, deliveries, attempts, message)
        lane.active--
        judgeLane(lane, results, first.channel)
        for (const [at, delivery] of deliveries.entries()) learn(delivery, delivery.body.to, results[at]!)
        if (severalDevices) results[0] = await reachOthers(first, results[0]!, attempts.get(first)!.length)
        const durationMs = Math.round(performance.now() - clock)

        const failover: Delivery[] = []
        for (const [at, delivery] of deliveries.entries()) {
          const list = attempts.get(delivery)!
          const result = results[at]!
          const next = judge(delivery, list, provider, result, startedMs, durationMs, tried)
          if (next === 'failover') failover.push(delivery)
        }
        if (failover.length === 0) return
        tried.add(provider.id)
        startWith = null
        if (failover[0] !== first) {
          // The one this turn belongs to is done; the others come back in turns of their own.
          for (const delivery of failover) requeue(delivery, attempts.get(delivery)!)
          return
        }
        for (const delivery of failover.slice(1)) requeue(delivery, attempts.get(delivery)!)
        deliveries = [first]
      }
    } catch (error) {
      // A fault of ours, not of the far end: it waits and comes back rather than being lost.
      for (const delivery of deliveries) {
        again(delivery, attempts.get(delivery)!, parts.now().getTime() + 30_000, 'held', 'retry', null)
      }
      parts.onError(error)
    }
  }

  function requeue(delivery: Delivery, list: AttemptRow[]): void {
    // Its attempts so far are recorded with its next place in the queue.
    again(delivery, list, parts.now().getTime(), 'retry', 'retry', null)
  }

  const messageOf = (delivery: Delivery, more: number): Message => {
    const message = toMessage(delivery, parts.linksFor?.(delivery))
    message.attempt += more
    return message
  }

  function send(
    provider: OpenedProvider,
    deliveries: readonly Delivery[],
    attempts: ReadonlyMap<Delivery, AttemptRow[]>,
    /** Of the first of them. */
    first: Message,
  ): Promise<(Sent | DeliveryError)[]> {
    const messages = deliveries.map((delivery, at) => {
      const message = at === 0 ? first : messageOf(delivery, attempts.get(delivery)!.length)
      if (parts.contentFor) message.content = parts.contentFor(delivery)
      return message
    })
    if (messages.length > 1) return provider.sendMany(messages, abort.signal)
    return provider.send(messages[0]!, abort.signal).then(alone, alone)
  }

  /**
   * The same to the person's other devices, each by the provider that is for it. Whoever has it on one of them has it:
   * then the others are not tried again. When none has it, the delivery is judged by the device that may still get it.
   */
  async function reachOthers(
    delivery: Delivery,
    own: Sent | DeliveryError,
    more: number,
  ): Promise<Sent | DeliveryError> {
    const reach = async (other: { to: string; settings?: JsonObject }): Promise<Sent | DeliveryError> => {
      const message = messageOf(delivery, more)
      message.to = other.to
      message.addressSettings = other.settings
      message.idempotencyKey += `.${hash('sha256', other.to, 'base64url').slice(0, 16)}`
      if (parts.contentFor) message.content = parts.contentFor(delivery)
      const choice = ways.choose(message, null, NONE_TRIED, parts.now())
      if (choice.kind !== 'send') return temporary('busy')
      const { provider, lane, waitMs } = choice
      if (waitMs > 0) await new Promise(resolve => setTimeout(resolve, waitMs))
      lane.active++
      const result = await provider
        .send(message, abort.signal)
        .catch((error: unknown) => error as DeliveryError)
      lane.active--
      judgeLane(lane, [result], delivery.channel)
      learn(delivery, other.to, result)
      return result
    }
    const results = [own, ...(await Promise.all(delivery.body.others!.map(reach)))]
    const sent = results.filter((result): result is Sent => !(result instanceof DeliveryError))
    if (sent.length === 0) {
      const failed = results as DeliveryError[]
      return failed.find(({ final }) => !final) ?? failed[0]!
    }
    const costs = sent.flatMap(({ cost }) => (cost ? [cost] : []))
    return {
      ...sent[0]!,
      code: `${sent.length} of ${results.length} devices`,
      ...(costs.length > 0 && {
        cost: { ...costs[0]!, amount: costs.reduce((sum, { amount }) => sum + amount, 0) },
      }),
    }
  }

  function learn(delivery: Delivery, to: string, result: Sent | DeliveryError): void {
    if (!(result instanceof DeliveryError)) parts.onAnswer?.(delivery, to, 'taken')
    else if (result.kind === 'bounced') parts.onAnswer?.(delivery, to, 'gone')
  }

  function judgeLane(lane: Lane, results: readonly (Sent | DeliveryError)[], channel: Channel): void {
    const now = parts.now()
    let change: ReturnType<Lane['breaker']['failed']> = null
    // One request is one sign, however many messages it carried.
    if (results.some(result => !(result instanceof DeliveryError))) change = lane.breaker.succeeded(now)
    else if (results.some(result => (result as DeliveryError).blamesLane)) change = lane.breaker.failed(now)
    else lane.breaker.neither()
    if (change) parts.onBreaker?.(change, lane.name, channel)
  }

  function judge(
    delivery: Delivery,
    list: AttemptRow[],
    provider: OpenedProvider,
    result: Sent | DeliveryError,
    startedMs: number,
    durationMs: number,
    tried: ReadonlySet<string>,
  ): 'done' | 'failover' {
    const now = parts.now()
    const attempt: AttemptRow = {
      tenantId: delivery.tenantId,
      notificationId: delivery.notificationId,
      channel: delivery.channel,
      attempt: delivery.tries + list.length + 1,
      outcome: 'failed',
      final: true,
      atMs: startedMs,
      durationMs,
      provider: provider.id,
      messageId: null,
      code: null,
      error: null,
      cost: null,
    }
    list.push(attempt)
    if (!(result instanceof DeliveryError)) {
      attempt.outcome = result.outcome
      attempt.messageId = result.providerMessageId ?? null
      attempt.code = result.code ?? null
      attempt.cost = result.cost?.amount ?? null
      parts.observe?.attempt(delivery, attempt)
      done(delivery, list, null)
      return 'done'
    }

    attempt.code = result.vendorCode ? `${result.code} ${result.vendorCode}`.slice(0, 100) : result.code
    attempt.error = result.message
    if (result.kind === 'bounced' || result.kind === 'rejected') attempt.outcome = result.kind
    if (result.kind === 'unknown') attempt.outcome = 'unknown'
    parts.observe?.attempt(delivery, attempt)
    if (result.final) {
      done(delivery, list, null)
      return 'done'
    }

    const policy = policyOf(delivery)
    // A try before this one may have arrived: it stays with the provider that knows our key.
    const bound = delivery.provider !== null && holds(delivery)
    if (result.kind === 'unknown') {
      if (policy.unknown === 'hold' && !provider.mayRepeat) {
        done(delivery, list, null)
        return 'done'
      }
    } else if (
      !bound &&
      ways.another(messageOf(delivery, list.length), new Set([...tried, provider.id]), now)
    ) {
      attempt.final = false
      return 'failover'
    }

    const patient = result.kind === 'rate_limited' && attempt.attempt < MAX_WAITS
    const due = patient ? result.until! : nextTry(policy, attempt.attempt, now, parts.random())
    if (due === null) {
      done(delivery, list, null)
      return 'done'
    }
    attempt.final = false
    const runAtMs = Math.max(due.getTime(), result.until?.getTime() ?? 0)
    // After an unknown outcome only the one that may have it already knows our key.
    const startWith = result.kind === 'unknown' || bound ? provider.id : null
    again(
      delivery,
      list,
      runAtMs,
      'retry',
      result.kind === 'rate_limited' ? 'rate_limited' : 'retry',
      startWith,
    )
    return 'done'
  }

  function giveUp(delivery: Delivery, list: AttemptRow[], now: Date, code: string): void {
    const due =
      code === 'breaker_open'
        ? null
        : nextTry(policyOf(delivery), Math.max(1, delivery.tries), now, parts.random())
    if (list.length > 0 && due !== null) return again(delivery, list, due.getTime(), 'retry', 'retry', null)
    finish(delivery, list, 'failed', code, null)
  }

  /** An end without a provider. */
  function finish(
    delivery: Delivery,
    list: AttemptRow[],
    outcome: AttemptRow['outcome'],
    code: string,
    provider: string | null,
  ): void {
    list.push({
      tenantId: delivery.tenantId,
      notificationId: delivery.notificationId,
      channel: delivery.channel,
      attempt: delivery.tries + list.length + 1,
      outcome,
      final: true,
      atMs: parts.now().getTime(),
      durationMs: null,
      provider,
      messageId: null,
      code,
      error: null,
      cost: null,
    })
    done(delivery, list, null)
  }

  function again(
    delivery: Delivery,
    list: AttemptRow[],
    runAtMs: number,
    kind: JobRow['kind'],
    reason: JobRow['reason'],
    provider: string | null,
  ): void {
    for (const attempt of list) attempt.final = false
    done(delivery, list, {
      kind,
      runAtMs: Math.ceil(runAtMs),
      reason,
      provider,
      attempt: delivery.tries + list.length,
    })
  }

  function done(delivery: Delivery, list: AttemptRow[], next: Settlement['again']): void {
    for (const attempt of list.slice(0, -1)) attempt.final = false
    const settlement: Settlement = {
      tenantId: delivery.tenantId,
      notificationId: delivery.notificationId,
      channel: delivery.channel,
      priority: delivery.priority,
      eventType: delivery.eventType,
      eventId: delivery.eventId,
      attempts: list,
      again: next,
      batch: delivery.batch,
      hasFallback: delivery.hasFallback,
      measured: delivery.measured,
    }
    total--
    const left = held.get(delivery.tenantId)! - 1
    if (left === 0) held.delete(delivery.tenantId)
    else held.set(delivery.tenantId, left)
    parts.settle(settlement)
    parts.observe?.settled(settlement, delivery)
  }

  return {
    push(deliveries) {
      const touched = new Set<Channel>()
      for (const delivery of deliveries) {
        total++
        held.set(delivery.tenantId, (held.get(delivery.tenantId) ?? 0) + 1)
        queue.push(delivery)
        touched.add(delivery.channel)
      }
      for (const channel of touched) pump(channel)
    },
    get room() {
      return draining ? 0 : parts.inFlight - total
    },
    full: () => [...held].filter(([, n]) => n >= parts.inFlight / 2).map(([tenantId]) => tenantId),
    roomFor: (tenantId, n) =>
      !draining && total + n <= parts.inFlight * 2 && (held.get(tenantId) ?? 0) + n <= parts.inFlight / 2,
    waiting: channel => queue.waiting(channel),
    inFlight: channel => active.get(channel) ?? 0,
    clear() {
      const forgotten = queue.clear()
      for (const delivery of forgotten) {
        total--
        held.set(delivery.tenantId, held.get(delivery.tenantId)! - 1)
      }
      return forgotten
    },
    async drain(patienceMs) {
      draining = true
      if (running === 0) return
      const timer = setTimeout(() => abort.abort(), patienceMs)
      await new Promise<void>(resolve => {
        drained = resolve
      })
      clearTimeout(timer)
    },
    lanes: () => ways.all(),
  }
}

const alone = <T>(result: T): T[] => [result]

const NONE_TRIED: ReadonlySet<string> = new Set()
