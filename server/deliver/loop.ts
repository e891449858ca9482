import type { AttemptRow, JobRow } from '../ledger/rows.ts'
import type { Settlement } from '../ledger/settle.ts'
import type { Channel, Content, JsonObject, Message, TenantId } from '../types.ts'
import type { BreakerPolicy } from './breaker.ts'
import { toMessage } from './delivery.ts'
import type { Delivery, MessageLinks } from './delivery.ts'
import { pending, progressIn, progressState, targetsOf } from './devices.ts'
import type { DeviceProgress, Target } from './devices.ts'
import { lanes, slowDown } from './lanes.ts'
import type { Lane, Providers } from './lanes.ts'
import type { OpenedProvider } from './open-provider.ts'
import { DeliveryError, permanent, rateLimited } from './provider.ts'
import type { Sent } from './provider.ts'
import { MAX_WAITS, RETRY, afterPause, nextTry } from './retry.ts'
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
    if (first.body.others !== undefined) return runDevices(first)
    let deliveries = [first]
    /** Of those that have no outcome yet. */
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
          if (choice.reason === 'breaker_open' && standsIn(first)) {
            return giveUp(first, last, now, 'breaker_open')
          }
          const untilMs = choice.until.getTime() + spread(choice.reason)
          return again(first, last, untilMs, 'held', choice.reason, startWith)
        }
        const { provider, lane } = choice
        if (choice.waitMs > 0) await new Promise(resolve => setTimeout(resolve, choice.waitMs))

        // Company for the same endpoint travels along, in one request.
        const group = deliveries.length === 1 && tried.size === 0 ? provider.group(message) : undefined
        if (group && group.max > 1) {
          const nowMs = now.getTime()
          const more = queue.takeMore(first, group.max - 1, other => {
            if (other.provider !== startWith || other.channel !== first.channel) return false
            if (other.expiresAtMs !== null && nowMs >= other.expiresAtMs) return false
            if (other.body.others !== undefined) return false
            try {
              return provider.group(messageOf(other, 0))?.key === group.key
            } catch {
              // In a turn of its own it is said what is wrong with it; those taken before it must not be lost.
              return false
            }
          })
          for (const other of more) attempts.set(other, [])
          deliveries = [first, ...more]
        }

        const startedMs = parts.now().getTime()
        const clock = performance.now()
        const results = await on(lane, () => send(provider, deliveries, attempts, message))
        judgeLane(lane, provider, results, first.channel)
        for (const [at, delivery] of deliveries.entries()) learn(delivery, delivery.body.to, results[at]!)
        const durationMs = Math.round(performance.now() - clock)

        const failover: Delivery[] = []
        for (const [at, delivery] of deliveries.entries()) {
          const list = attempts.get(delivery)!
          const result = results[at]!
          const next = judge(delivery, list, provider, result, startedMs, durationMs, tried)
          if (next === 'failover') failover.push(delivery)
          else attempts.delete(delivery)
        }
        if (failover.length === 0) return
        tried.add(provider.id)
        startWith = null
        // The others come back in turns of their own.
        for (const delivery of failover) {
          if (delivery === first) continue
          requeue(delivery, attempts.get(delivery)!)
          attempts.delete(delivery)
        }
        if (failover[0] !== first) return
        deliveries = [first]
      }
    } catch (error) {
      // A fault of ours, not of the far end: what has no outcome yet waits and comes back rather than being lost, and to
      // the provider that may have it already.
      for (const [delivery, list] of attempts) {
        again(delivery, list, parts.now().getTime() + FAULT_MS, 'held', 'retry', delivery.provider)
      }
      parts.onError(error)
    }
  }

  function requeue(delivery: Delivery, list: AttemptRow[]): void {
    // Its attempts so far are recorded with its next place in the queue.
    again(delivery, list, parts.now().getTime(), 'retry', 'retry', null)
  }

  /** Asks on a lane, whose place is free again whatever comes of it; a fault of ours tells it nothing. */
  async function on<T>(lane: Lane, ask: () => Promise<T>): Promise<T> {
    lane.active++
    try {
      return await ask()
    } catch (error) {
      lane.breaker.neither()
      throw error
    } finally {
      lane.active--
    }
  }

  /** So that what waited for one thing does not come back in one moment. */
  const spread = (reason: NonNullable<Reached['waits']>): number =>
    parts.random() * (reason === 'breaker_open' ? 5000 : 200)

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
   * One turn of a delivery to several devices: each that does not have it yet is asked by the provider that is for it,
   * and by the next one where that one fails. Whoever has it on one device is told; what still may come to the others
   * is tried again for them alone, and what they have until then is kept with the job.
   */
  async function runDevices(delivery: Delivery): Promise<void> {
    const targets = targetsOf(delivery.body)
    const before = progressIn(delivery.state)
    try {
      const now = parts.now()
      if (delivery.expiresAtMs !== null && now.getTime() >= delivery.expiresAtMs) {
        return before.taken.size > 0
          ? finish(delivery, [], 'sent', shareOf(before, targets), null, 'expired')
          : finish(delivery, [], 'expired', 'expired', null)
      }
      const clock = performance.now()
      // A fault of ours about one device keeps nothing from the others, and nobody from what they have.
      const atFault = (error: unknown): Omit<Reached, 'target'> => {
        parts.onError(error)
        const until = new Date(parts.now().getTime() + FAULT_MS)
        return { provider: null, result: rateLimited(until), waits: 'retry' }
      }
      const reached = await Promise.all(
        pending(targets, before).map(async target => ({
          target,
          ...(await reach(delivery, target).catch(atFault)),
        })),
      )
      judgeDevices(delivery, targets, before, reached, now.getTime(), Math.round(performance.now() - clock))
    } catch (error) {
      const kind = before.taken.size > 0 ? 'retry' : 'held'
      again(delivery, [], parts.now().getTime() + FAULT_MS, kind, 'retry', null)
      parts.onError(error)
    }
  }

  /** What one device's providers said; the provider is null where none was asked. */
  async function reach(delivery: Delivery, target: Target): Promise<Omit<Reached, 'target'>> {
    const tried = new Set<string>()
    let last: Omit<Reached, 'target'> | undefined
    for (;;) {
      const message = messageOf(delivery, 0)
      message.to = target.to
      message.addressSettings = target.settings
      message.idempotencyKey += target.suffix
      const choice = ways.choose(message, delivery.provider, tried, parts.now())
      if (choice.kind === 'none') return last ?? { provider: null, result: NOBODY }
      if (choice.kind === 'wait') {
        return last ?? { provider: null, result: rateLimited(choice.until), waits: choice.reason }
      }
      const { provider, lane, waitMs } = choice
      if (waitMs > 0) await new Promise(resolve => setTimeout(resolve, waitMs))
      const result = await on(lane, () => {
        if (parts.contentFor) message.content = parts.contentFor(delivery)
        return provider.send(message, abort.signal).catch((error: unknown) => error as DeliveryError)
      })
      judgeLane(lane, provider, [result], delivery.channel)
      learn(delivery, target.to, result)
      last = { provider, result }
      if (!(result instanceof DeliveryError) || result.final || result.kind === 'unknown') return last
      tried.add(provider.id)
      if (!ways.another(message, tried, parts.now())) return last
    }
  }

  /** What all devices together come to: one attempt, and a next time for those that may still get it. */
  function judgeDevices(
    delivery: Delivery,
    targets: readonly Target[],
    before: DeviceProgress,
    reached: readonly Reached[],
    startedMs: number,
    durationMs: number,
  ): void {
    const now = parts.now()
    const policy = policyOf(delivery)
    const taken = new Set(before.taken)
    const ended = new Set(before.ended)
    const sent: { provider: OpenedProvider; result: Sent }[] = []
    const open: (Reached & { result: DeliveryError })[] = []
    let unsure: (Reached & { result: DeliveryError }) | undefined
    for (const one of reached) {
      const { target, provider, result } = one
      if (!(result instanceof DeliveryError)) {
        taken.add(target.name)
        sent.push({ provider: provider!, result })
        continue
      }
      const failed = { ...one, result }
      const held = result.kind === 'unknown' && policy.unknown === 'hold' && !provider!.mayRepeat
      if (held) unsure ??= failed
      if (held || result.final) ended.add(target.name)
      else open.push(failed)
    }
    const progress = { taken, ended }

    // Nobody was asked: that is no try, and uses none up.
    if (!reached.some(asked)) {
      const waiting = open.filter(({ waits }) => waits !== undefined)
      if (waiting.length === 0) {
        return taken.size > 0
          ? finish(delivery, [], 'sent', shareOf(progress, targets), null, NOBODY.message)
          : giveUp(delivery, [], now, 'channel_unavailable')
      }
      const reason = waiting[0]!.waits!
      if (taken.size === 0 && standsIn(delivery) && waiting.every(({ waits }) => waits === 'breaker_open')) {
        return giveUp(delivery, [], now, 'breaker_open')
      }
      const until = Math.min(...waiting.map(({ result }) => result.until!.getTime()))
      // What some devices show already is not held any more: nobody's change of mind ends it unsent.
      const kind = taken.size > 0 ? 'retry' : 'held'
      return again(delivery, [], until + spread(reason), kind, reason, null, progressState(progress))
    }

    const failed = reached.filter(
      (one): one is Reached & { result: DeliveryError } => one.result instanceof DeliveryError,
    )
    // The one that says what became of the delivery as long as no device has it.
    const worst = unsure ?? open.find(asked) ?? open[0] ?? failed.find(asked)
    const speaks = sent[0] ?? worst!
    const attempt = attemptOf(delivery, [], startedMs, speaks.provider?.id ?? null)
    attempt.durationMs = durationMs
    const stuck = unsure !== undefined && taken.size === 0
    const due = open.length === 0 || stuck ? null : dueAfter(delivery, attempt.attempt, open, now)
    attempt.final = due === null

    if (sent.length > 0 || (due === null && taken.size > 0)) {
      attempt.outcome = sent[0]?.result.outcome ?? 'sent'
      attempt.messageId = sent[0]?.result.providerMessageId ?? null
      attempt.code = shareOf(progress, targets)
      if (open.length > 0) attempt.error = open[0]!.result.message
      const costs = sent.flatMap(({ result }) => (result.cost ? [result.cost.amount] : []))
      if (costs.length > 0) attempt.cost = costs.reduce((sum, amount) => sum + amount, 0)
    } else failedAs(attempt, worst!.result)
    parts.observe?.attempt(delivery, attempt)
    if (due === null) return done(delivery, [attempt], null)
    const slower = open.some(one => asked(one) && one.result.kind === 'rate_limited')
    const waits = open.some(asked) ? undefined : open[0]!.waits
    const reason = waits ?? (slower ? 'rate_limited' : 'retry')
    again(delivery, [attempt], due, 'retry', reason, null, progressState(progress))
  }

  function learn(delivery: Delivery, to: string, result: Sent | DeliveryError): void {
    if (!(result instanceof DeliveryError)) parts.onAnswer?.(delivery, to, 'taken')
    else if (result.kind === 'bounced') parts.onAnswer?.(delivery, to, 'gone')
  }

  function judgeLane(
    lane: Lane,
    provider: OpenedProvider,
    results: readonly (Sent | DeliveryError)[],
    channel: Channel,
  ): void {
    const now = parts.now()
    slowDown(lane, provider, results, now)
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
    const attempt = attemptOf(delivery, list, startedMs, provider.id)
    attempt.durationMs = durationMs
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

    failedAs(attempt, result)
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

    const runAtMs = dueAfter(delivery, attempt.attempt, [{ result }], now)
    if (runAtMs === null) {
      done(delivery, list, null)
      return 'done'
    }
    attempt.final = false
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

  /** When it is tried again; null when its tries are used up. Nobody is asked before the time they named. */
  function dueAfter(
    delivery: Delivery,
    tries: number,
    failed: readonly { result: DeliveryError }[],
    now: Date,
  ): number | null {
    const untilMs = Math.max(0, ...failed.map(({ result }) => result.until?.getTime() ?? 0))
    const patient = tries < MAX_WAITS && failed.some(({ result }) => result.kind === 'rate_limited')
    if (patient) return afterPause(policyOf(delivery), untilMs, now, parts.random())
    const due = nextTry(policyOf(delivery), tries, now, parts.random())
    return due && Math.max(due.getTime(), untilMs)
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
    error: string | null = null,
  ): void {
    const end = attemptOf(delivery, list, parts.now().getTime(), provider)
    list.push({ ...end, outcome, code, error })
    done(delivery, list, null)
  }

  function again(
    delivery: Delivery,
    list: AttemptRow[],
    runAtMs: number,
    kind: JobRow['kind'],
    reason: JobRow['reason'],
    provider: string | null,
    state?: JsonObject,
  ): void {
    for (const attempt of list) attempt.final = false
    done(delivery, list, {
      kind,
      runAtMs: Math.ceil(runAtMs),
      reason,
      provider,
      attempt: delivery.tries + list.length,
      ...(state && { state }),
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

/** After a fault of ours. */
const FAULT_MS = 30_000

/** One device in one turn. */
interface Reached {
  target: Target
  provider: OpenedProvider | null
  result: Sent | DeliveryError
  /** Nobody was asked, as everybody who would be is to be waited for; or as we failed (`retry`). */
  waits?: 'breaker_open' | 'provider_rate' | 'retry'
}

const asked = ({ provider }: Reached): boolean => provider !== null

const NOBODY = permanent('invalid_settings', 'No provider is set up for this kind of device')

const shareOf = ({ taken }: DeviceProgress, targets: readonly Target[]): string =>
  `${taken.size} of ${targets.length} devices`

/** Urgent, and another channel may stand in: an outage is then a failure at once. */
const standsIn = ({ hasFallback, priority }: Delivery): boolean => hasFallback && priority === 'CRITICAL'

/** A try that so far failed for good. */
const attemptOf = (
  delivery: Delivery,
  before: readonly AttemptRow[],
  atMs: number,
  provider: string | null,
): AttemptRow => ({
  tenantId: delivery.tenantId,
  notificationId: delivery.notificationId,
  channel: delivery.channel,
  attempt: delivery.tries + before.length + 1,
  outcome: 'failed',
  final: true,
  atMs,
  durationMs: null,
  provider,
  messageId: null,
  code: null,
  error: null,
  cost: null,
})

function failedAs(attempt: AttemptRow, { kind, code, vendorCode, message }: DeliveryError): void {
  attempt.code = vendorCode ? `${code} ${vendorCode}`.slice(0, 100) : code
  attempt.error = message
  if (kind === 'bounced' || kind === 'rejected' || kind === 'unknown') attempt.outcome = kind
}
