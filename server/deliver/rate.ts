/**
 * A pace: at most so many a second, evenly, with a burst of at most one second's worth (GCRA, as in
 * https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm).
 */
export interface Pace {
  /** Takes the next place: milliseconds to wait for it, 0 for none. Nothing is taken when it is above `maxWait`. */
  take(nowMs: number, maxWaitMs: number): number
}

export function pace(perSecond: number): Pace {
  const step = 1000 / perSecond
  const burst = Math.max(0, 1000 - step)
  let next = Number.NEGATIVE_INFINITY
  return {
    take(nowMs, maxWaitMs) {
      const due = Math.max(next, nowMs - burst)
      const wait = Math.max(0, due - nowMs)
      if (wait <= maxWaitMs) next = due + step
      return wait
    },
  }
}
