/**
 * A circuit breaker: after several failures in a row nothing is sent for a while, then one try at a time tells
 * whether the far end is back. Pure but for its own state; the clock is passed in.
 */
export interface Breaker {
  /** May something be sent now? `probe` means yes, as the one try of a half-open breaker. */
  ask(now: Date): { kind: 'go' | 'probe' } | { kind: 'wait'; until: Date }
  succeeded(now: Date): BreakerChange
  failed(now: Date): BreakerChange
  /** A try ended without saying anything about the far end, such as a refused address: frees the probe's place. */
  neither(): void
  readonly state: BreakerState
  /** When an open breaker lets the next probe through. */
  readonly until: Date | null
}

export type BreakerState = 'closed' | 'open' | 'half_open'
export type BreakerChange = 'opened' | 'closed' | null

export interface BreakerPolicy {
  /** Failures in a row that open it. */
  failures: number
  /** Successful probes that close it. */
  successes: number
  openMs: number
}

export const BREAKER: BreakerPolicy = { failures: 5, successes: 2, openMs: 60_000 }

export function breaker(policy: BreakerPolicy = BREAKER): Breaker {
  let state: BreakerState = 'closed'
  let failures = 0
  let successes = 0
  let until: Date | null = null
  let probing = false

  const open = (now: Date): BreakerChange => {
    const change = state === 'closed' ? 'opened' : null
    state = 'open'
    until = new Date(now.getTime() + policy.openMs)
    probing = false
    successes = 0
    return change
  }

  return {
    ask(now) {
      if (state === 'closed') return { kind: 'go' }
      if (state === 'open' && now < until!) return { kind: 'wait', until: until! }
      state = 'half_open'
      // While the probe is out nobody knows; the others come back a little later.
      if (probing) return { kind: 'wait', until: new Date(now.getTime() + 1000) }
      probing = true
      return { kind: 'probe' }
    },
    succeeded() {
      failures = 0
      if (state === 'closed') return null
      probing = false
      // A try that began before the breaker opened proves nothing about now.
      if (state === 'open') return null
      if (++successes < policy.successes) return null
      state = 'closed'
      until = null
      successes = 0
      return 'closed'
    },
    failed(now) {
      if (state === 'half_open') return open(now)
      if (state === 'open') return null
      return ++failures >= policy.failures ? ((failures = 0), open(now)) : null
    },
    neither() {
      probing = false
    },
    get state() {
      return state
    },
    get until() {
      return until
    },
  }
}
