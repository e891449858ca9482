import type { Over, Reason } from '../reasons.ts'
import { windowOf } from '../time/window.ts'
import type { Window } from '../time/window.ts'
import type { Channel, TenantId, UserId } from '../types.ts'

/** A span of time that is counted in; by UTC, or by a zone from the day up. */
export type CapWindow = 'minute' | 'hour' | 'day' | 'week' | 'month'

/** At most so much in each window: one limit as it applies to one candidate. */
export interface Cap {
  /** The counter's name within the tenant. */
  key: string
  max: number
  /** `gap`: nothing for `gapSeconds` after the one before. */
  window: CapWindow | 'gap'
  gapSeconds?: number
  /** So many minutes or hours together; default 1. */
  every?: number
  zone: string
  /** What this one counts as: 1, or its price in a quota. */
  cost: number
  /** All channels of one notification count once, or each delivery for itself. */
  per: 'delivery' | 'notification'
  /** What becomes of what is over: it waits for the next window, is left out, or joins the digest. */
  overflow: 'hold' | 'skip' | 'digest'
  /** Counted, never stopped. */
  bypass: boolean
  reason: Reason
  /** For the trace: 'email 100/hour'. */
  label: string
}

/** The window in which an instant lies, of a cap that counts in windows. */
export function capWindow(
  window: CapWindow,
  { every = 1, zone }: Pick<Cap, 'every' | 'zone'>,
  atMs: number,
): Window {
  if (every === 1 || (window !== 'minute' && window !== 'hour')) return windowOf(window, zone, atMs)
  const length = every * (window === 'minute' ? 60_000 : 3_600_000)
  const start = Math.floor(atMs / length) * length
  return { start, end: start + length }
}

/** What the database said before a batch was decided. Absent: nothing used, nothing claimed. */
export interface UsageRead {
  /** By `usageName`: how much was counted. */
  counts: ReadonlyMap<string, number>
  /** By `claimName`: until when it is taken, in milliseconds since 1970. */
  claims: ReadonlyMap<string, number>
  /** By `claimName`: what was written down with the claim. */
  notes?: ReadonlyMap<string, string>
}

export const usageName = (tenantId: TenantId, key: string, windowMs: number): string =>
  `${tenantId} ${windowMs} ${key}`
export const claimName = (tenantId: TenantId, key: string): string => `${tenantId} ${key}`

export interface TakenCount {
  tenantId: TenantId
  key: string
  windowMs: number
  n: number
  /** How much may have been counted before, for every decision of the batch to hold; null: whatever it was. */
  room: number | null
}

/** A place that one delivery took in a window: kept with what waits, to be given back when it is cancelled. */
export interface Place {
  key: string
  windowMs: number
  n: number
  per: Cap['per']
}

export interface TakenClaim {
  tenantId: TenantId
  key: string
  untilMs: number
  /** What was seen; the commit fails when somebody else changed it since. */
  wasMs: number | null
  /** Written down with it, for whoever claims next. */
  note?: string
}

/** By what a message is known that says again what was said before (server/limits/sameness.ts). */
export interface Sameness {
  /** The same text: claimed for so long by whoever says it. */
  repeat?: { key: string; seconds: number }
  /** Texts like it: a claim whose note remembers what was said of late. */
  similar?: {
    key: string
    seconds: number
    /** The greatest likeness to what the note remembers of that instant, 0 to 1; null: below the threshold. */
    likeness(note: string | null, atMs: number): number | null
    /** The note with this text in it. */
    noted(note: string | null, atMs: number, untilMs: number): string
  }
}

/** What a limit took for abuse: of one counter and window, with all that it stopped. */
export interface Suspect {
  tenantId: TenantId
  over: Over
  /** Null: nobody's, a bare address. */
  userId: UserId | null
  channel: Channel
  eventType: string
  action: 'THROTTLE' | 'BLOCK'
  n: number
}

/** What a batch decided to use: written with its plans, or not at all (server/ledger/usage.ts). */
export interface TakenUsage {
  counts: TakenCount[]
  claims: TakenClaim[]
  suspects: Suspect[]
}

/**
 * What is used up, as of the read, and what this batch has taken since. Decisions of one batch see each other.
 * `telling` is the notification at hand: what counts by notification is taken once for all its channels.
 */
export interface Usage {
  used(tenantId: TenantId, key: string, windowMs: number): number
  /** 0: free. */
  claimedUntil(tenantId: TenantId, key: string): number
  has(telling: object, name: string): boolean
  /** When the first window begins, after the full one of `atMs`, that has room; not looked for long after `lastMs`. */
  freeAfter(
    tenantId: TenantId,
    window: CapWindow,
    cap: Cap,
    atMs: number,
    lastMs: number,
    telling: object,
  ): number
  /** Null: another channel of the same notification took it already. */
  take(tenantId: TenantId, cap: Cap, windowMs: number, telling: object): Place | null
  /** With a note it is another claim each time, even of the same instant: notes are compared by it. */
  claim(tenantId: TenantId, key: string, untilMs: number, telling: object, note?: string): void
  /** What was written down with a claim; null: nothing. */
  note(tenantId: TenantId, key: string): string | null
  /** Remembers who was stopped for abuse. */
  suspect(suspect: Omit<Suspect, 'n'>): void
  taken(): TakenUsage | null
}

export function usage(read: UsageRead): Usage {
  const counts = new Map<string, TakenCount>()
  const claims = new Map<string, TakenClaim>()
  const suspects = new Map<string, Suspect>()
  // A backlog fills window after window, and everybody in it asks for the end of the same row of them. What is full
  // stays full while a batch is decided.
  const full = new Map<string, Window>()
  const told = new WeakMap<object, Set<string>>()

  const note = (telling: object, name: string): void => {
    const names = told.get(telling)
    if (names) names.add(name)
    else told.set(telling, new Set([name]))
  }

  const used = (name: string): number => (read.counts.get(name) ?? 0) + (counts.get(name)?.n ?? 0)

  return {
    used: (tenantId, key, windowMs) => used(usageName(tenantId, key, windowMs)),
    freeAfter(tenantId, window, cap, atMs, lastMs, telling) {
      const { key, max, cost, per } = cap
      const mine = per === 'notification' ? told.get(telling) : undefined
      const row = `${tenantId} ${max} ${cost} ${key}`
      let { start, end } = capWindow(window, cap, atMs)
      // What this notification has a place in has room for its other channels, however full.
      const known = mine ? undefined : full.get(row)
      if (known && known.start <= start && start < known.end) {
        start = known.start
        end = known.end
      }
      while (end <= lastMs) {
        const next = capWindow(window, cap, end)
        const name = usageName(tenantId, key, next.start)
        if (mine?.has(name) || used(name) + cost <= max) break
        end = next.end
      }
      if (!mine) full.set(row, { start, end })
      return end
    },
    claimedUntil(tenantId, key) {
      const name = claimName(tenantId, key)
      return claims.get(name)?.untilMs ?? read.claims.get(name) ?? 0
    },
    has: (telling, name) => told.get(telling)?.has(name) === true,
    take(tenantId, cap, windowMs, telling) {
      const name = usageName(tenantId, cap.key, windowMs)
      if (cap.per === 'notification') {
        if (told.get(telling)?.has(name)) return null
        note(telling, name)
      }
      let taken = counts.get(name)
      if (!taken) {
        taken = { tenantId, key: cap.key, windowMs, n: 0, room: null }
        counts.set(name, taken)
      }
      taken.n += cap.cost
      // Bounds differ by priority, so each is kept as of its own turn: the lowest of all may come before the highest.
      if (!cap.bypass) taken.room = Math.min(taken.room ?? Infinity, cap.max - taken.n)
      return { key: cap.key, windowMs, n: cap.cost, per: cap.per }
    },
    claim(tenantId, key, untilMs, telling, noted) {
      const name = claimName(tenantId, key)
      note(telling, name)
      const wasMs = read.claims.get(name) ?? null
      const least = noted === undefined || wasMs === null ? untilMs : Math.max(untilMs, wasMs + 1)
      const taken = claims.get(name)
      if (taken) {
        taken.untilMs = Math.max(taken.untilMs, least)
        if (noted !== undefined) taken.note = noted
      } else {
        claims.set(name, {
          tenantId,
          key,
          untilMs: least,
          wasMs,
          ...(noted !== undefined && { note: noted }),
        })
      }
    },
    note(tenantId, key) {
      const name = claimName(tenantId, key)
      return claims.get(name)?.note ?? read.notes?.get(name) ?? null
    },
    suspect(suspect) {
      const name = usageName(suspect.tenantId, suspect.over.key, suspect.over.windowMs)
      const known = suspects.get(name)
      if (known) known.n++
      else suspects.set(name, { ...suspect, n: 1 })
    },
    taken: () =>
      counts.size === 0 && claims.size === 0 && suspects.size === 0
        ? null
        : { counts: [...counts.values()], claims: [...claims.values()], suspects: [...suspects.values()] },
  }
}

/** Nothing is limited, nothing claimed. */
export const NO_USAGE: UsageRead = { counts: new Map(), claims: new Map() }
