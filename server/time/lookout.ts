/**
 * Looks for work again and again: at once while there is more, else when the next is due or somebody expects some, at
 * the latest after a while, as another process may have left work without a word. Never two looks at the same time.
 */
export interface Lookout {
  /** There is something to do from this instant on, in milliseconds since 1970; now unless stated. */
  expect(atMs?: number): void
  start(): void
  /** Waits for the look that runs. */
  stop(): Promise<void>
}

/** There may be more at once; the next is due then; or nothing is known of a next. */
export type Next = 'more' | Date | null

export interface LookoutParts {
  look(): Promise<Next>
  now(): Date
  atLatestMs: number
  onError(error: unknown): void
}

/** What is due and was not to be had is held by somebody else for a moment. */
const HELD_MS = 5

export function lookout({ look, now, atLatestMs, onError }: LookoutParts): Lookout {
  let timer: NodeJS.Timeout | undefined
  /** When the timer goes off; infinite while none is set. */
  let setFor = Number.POSITIVE_INFINITY
  /** The earliest that was expected since the look began. */
  let expected = Number.POSITIVE_INFINITY
  let busy: Promise<void> | undefined
  let stopped = true

  function arm(atMs: number): void {
    if (stopped || atMs >= setFor) return
    clearTimeout(timer)
    setFor = atMs
    timer = setTimeout(begin, Math.min(atLatestMs, Math.max(0, atMs - now().getTime())))
  }

  function begin(): void {
    setFor = Number.POSITIVE_INFINITY
    expected = Number.POSITIVE_INFINITY
    // A moment later, so that `busy` is set for what the look itself expects, too.
    busy = Promise.resolve().then(turn)
  }

  async function turn(): Promise<void> {
    let next: Next = null
    try {
      next = await look()
    } catch (error) {
      onError(error)
    }
    busy = undefined
    const nowMs = now().getTime()
    const due =
      next === 'more' ? nowMs : Math.max(next?.getTime() ?? Number.POSITIVE_INFINITY, nowMs + HELD_MS)
    arm(Math.min(due, expected, nowMs + atLatestMs))
  }

  return {
    expect(atMs = now().getTime()) {
      if (busy) expected = Math.min(expected, atMs)
      else arm(atMs)
    },
    start() {
      stopped = false
      arm(now().getTime())
    },
    async stop() {
      stopped = true
      clearTimeout(timer)
      setFor = Number.POSITIVE_INFINITY
      await busy
    },
  }
}
