import { createHash } from 'node:crypto'
import { breaker } from './breaker.ts'
import type { Breaker, BreakerPolicy } from './breaker.ts'
import type { OpenedProvider } from './open-provider.ts'
import { DeliveryError } from './provider.ts'
import type { Sent } from './provider.ts'
import { pace } from './rate.ts'
import type { Pace } from './rate.ts'
import type { Channel, Message } from '../types.ts'

/** The providers of this process, by channel in the order in which they are tried. */
export type Providers = ReadonlyMap<Channel, readonly OpenedProvider[]>

/** What fails and is paced together: a provider, or one endpoint behind it. */
export interface Lane {
  name: string
  breaker: Breaker
  pace: Pace | null
  /** The far end asked to be left alone until then; 0: never. */
  slowUntilMs: number
  active: number
  usedAtMs: number
}

export type Choice =
  | { kind: 'send'; provider: OpenedProvider; lane: Lane; waitMs: number }
  | { kind: 'wait'; until: Date; reason: 'breaker_open' | 'provider_rate' }
  | { kind: 'none' }

/** A place in a provider's pace that is so near is waited for in memory. */
const PATIENCE_MS = 1000
/** Endpoints come and go. */
export const MAX_LANES = 10_000
/** However long a far end wants to be left alone, so often it is asked again whether it still does. */
const MAX_SLOW_MS = 3_600_000

export interface Lanes {
  /**
   * The first provider that would take the message now, those in `tried` left out; with `bound` none but `startWith`,
   * which may have the message already.
   */
  choose(
    message: Message,
    startWith: string | null,
    tried: ReadonlySet<string>,
    now: Date,
    bound?: boolean,
  ): Choice
  /** Is there another provider that would probably take it now? Takes no place and no probe. */
  another(message: Message, tried: ReadonlySet<string>, now: Date): boolean
  all(): Iterable<Lane>
}

export function lanes(providers: Providers, policy?: BreakerPolicy): Lanes {
  const byName = new Map<string, Lane>()

  /**
   * Forgets a tenth of the lanes that nobody is on: those unused for longest, and those with something to remember, an
   * open breaker or a pause, only where all others were not enough.
   */
  function makeRoom(nowMs: number): void {
    const remembers = ({ breaker: { state }, slowUntilMs }: Lane) =>
      Number(state !== 'closed' || slowUntilMs > nowMs)
    const idle = [...byName.values()].filter(({ active }) => active === 0)
    idle.sort((a, b) => remembers(a) - remembers(b) || a.usedAtMs - b.usedAtMs)
    for (const { name } of idle.slice(0, MAX_LANES / 10)) byName.delete(name)
  }

  function laneOf(provider: OpenedProvider, message: Message, nowMs: number): Lane {
    const name = provider.lane(message)
    let lane = byName.get(name)
    if (!lane) {
      if (byName.size >= MAX_LANES) makeRoom(nowMs)
      const { perSecond } = provider.limits
      lane = {
        name,
        breaker: breaker(policy),
        pace: perSecond ? pace(perSecond) : null,
        slowUntilMs: 0,
        active: 0,
        usedAtMs: nowMs,
      }
      byName.set(name, lane)
    }
    lane.usedAtMs = nowMs
    return lane
  }

  return {
    choose(message, startWith, tried, now, bound = false) {
      let candidates = inTurn(
        message,
        (providers.get(message.channel) ?? []).filter(
          provider =>
            !tried.has(provider.id) && (!bound || provider.id === startWith) && provider.accepts(message),
        ),
      )
      const preferred = candidates.findIndex(provider => provider.id === startWith)
      if (preferred > 0) candidates = [...candidates.slice(preferred), ...candidates.slice(0, preferred)]
      if (candidates.length === 0) return { kind: 'none' }

      let wait: Extract<Choice, { kind: 'wait' }> | null = null
      const later = (until: Date, reason: 'breaker_open' | 'provider_rate') => {
        if (wait === null || until < wait.until) wait = { kind: 'wait', until, reason }
      }
      for (const provider of candidates) {
        const lane = laneOf(provider, message, now.getTime())
        const { concurrent } = provider.limits
        if (concurrent !== undefined && lane.active >= concurrent) {
          later(new Date(now.getTime() + PATIENCE_MS), 'provider_rate')
          continue
        }
        if (lane.slowUntilMs > now.getTime()) {
          later(new Date(lane.slowUntilMs), 'provider_rate')
          continue
        }
        const asked = lane.breaker.ask(now)
        if (asked.kind === 'wait') {
          later(asked.until, 'breaker_open')
          continue
        }
        const waitMs = lane.pace?.take(now.getTime(), PATIENCE_MS) ?? 0
        if (waitMs > PATIENCE_MS) {
          if (asked.kind === 'probe') lane.breaker.neither()
          later(new Date(now.getTime() + waitMs), 'provider_rate')
          continue
        }
        return { kind: 'send', provider, lane, waitMs }
      }
      return wait!
    },
    another: (message, tried, now) =>
      (providers.get(message.channel) ?? []).some(provider => {
        if (tried.has(provider.id) || !provider.accepts(message)) return false
        const { breaker, slowUntilMs } = laneOf(provider, message, now.getTime())
        if (slowUntilMs > now.getTime()) return false
        return breaker.state === 'closed' || (breaker.state === 'open' && now >= breaker.until!)
      }),
    all: () => byName.values(),
  }
}

/** What came back asks everybody on the lane to wait. */
export function slowDown(
  lane: Lane,
  { limits }: OpenedProvider,
  results: readonly (Sent | DeliveryError)[],
  now: Date,
): void {
  if (limits.slowsLane !== true) return
  for (const result of results) {
    if (!(result instanceof DeliveryError) || result.kind !== 'rate_limited' || result.alone) continue
    const untilMs = Math.min(result.until!.getTime(), now.getTime() + MAX_SLOW_MS)
    lane.slowUntilMs = Math.max(lane.slowUntilMs, untilMs)
  }
}

/**
 * Neighbours with a weight take turns: each is first for its share of the messages, and the same message meets the same
 * order at every try and in every process (weighted rendezvous: https://doi.org/10.1109/90.663936).
 */
export function inTurn(
  { notificationId, channel }: Pick<Message, 'notificationId' | 'channel'>,
  list: readonly OpenedProvider[],
): readonly OpenedProvider[] {
  if (list.length < 2 || !list.some(({ weight }) => weight !== undefined)) return list
  const ordered: OpenedProvider[] = []
  for (let from = 0; from < list.length; ) {
    let to = from
    while (to < list.length && list[to]!.weight !== undefined) to++
    if (to === from) ordered.push(list[from++]!)
    else {
      const turns = list.slice(from, to).map(provider => ({
        provider,
        at: -Math.log(share(`${notificationId} ${channel} ${provider.id}`)) / provider.weight!,
      }))
      ordered.push(...turns.sort((a, b) => a.at - b.at).map(({ provider }) => provider))
      from = to
    }
  }
  return ordered
}

/** A number above 0 and at most 1, the same for the same text. */
const share = (text: string): number =>
  (createHash('sha256').update(text).digest().readUInt32BE(0) + 1) / 2 ** 32
