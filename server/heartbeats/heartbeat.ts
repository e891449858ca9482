/** A source that has to be heard of every so often. Milliseconds. */
export interface Pace {
  everyMs: number
  graceMs: number
}

/** What is known of it. Milliseconds since 1970, but for `deafMs`. */
export interface Heard {
  /** Waited for from here. */
  sinceMs: number
  lastBeatMs: number | null
  /** How long nobody had listened in all, at the later of the two. */
  deafMs: number
  missedMs: number | null
}

/** `new`: not heard of since it is waited for. `late`: beyond its time, but within the grace. */
export type HeartbeatStatus = 'new' | 'up' | 'late' | 'down'

/**
 * Accepted events count as a beat within the transaction that accepts them. So that a busy stream does not make all
 * its writers queue for one row, a process leaves out beats so shortly after one that it wrote: at most one in a
 * second, and ten in the time in which one is expected. Silence is told so much later, and never too early.
 */
export const slackMs = ({ everyMs }: Pick<Pace, 'everyMs'>): number => Math.min(1_000, everyMs / 10)

/**
 * When it is expected at the latest, and from when on its silence is told. `deafMs` is how long nobody has listened
 * in all, as of now: time in which nobody listened is not its silence.
 */
export function dueOf(heard: Heard, pace: Pace, deafMs: number): { expectedMs: number; missingMs: number } {
  const from = Math.max(heard.sinceMs, heard.lastBeatMs ?? heard.sinceMs)
  const expectedMs = from + pace.everyMs + Math.max(0, deafMs - heard.deafMs)
  return { expectedMs, missingMs: expectedMs + pace.graceMs + slackMs(pace) }
}

export interface Verdict {
  /** To be told, at this instant. */
  change: 'missed' | 'recovered' | null
  /** When to look again; null: not before the next beat. */
  checkMs: number | null
}

/**
 * What a look at it comes to. Pure. What is missing is only looked at again after a beat; when that one is too old
 * by now, the next look tells of the next silence, at a later instant, so that the two stay in order.
 */
export function verdictOf(heard: Heard, pace: Pace, deafMs: number, nowMs: number): Verdict {
  const { missingMs } = dueOf(heard, pace, deafMs)
  if (heard.missedMs !== null) return { change: 'recovered', checkMs: Math.max(missingMs, nowMs + 1) }
  return nowMs >= missingMs ? { change: 'missed', checkMs: null } : { change: null, checkMs: missingMs }
}

export function statusOf(heard: Heard, pace: Pace, deafMs: number, nowMs: number): HeartbeatStatus {
  if (heard.missedMs !== null) return 'down'
  if (nowMs > dueOf(heard, pace, deafMs).expectedMs) return 'late'
  return heard.lastBeatMs === null || heard.lastBeatMs < heard.sinceMs ? 'new' : 'up'
}
