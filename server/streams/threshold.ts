import { type WindowKind, windowOf } from '../time/window.ts'

/** What a stream of numbers is held against. Everything is by the times of the samples, never by the clock. */
export interface ThresholdSpec {
  /** `above` and `below` have one bound; `inside` and `outside` a lower and an upper one. */
  when: 'above' | 'below' | 'inside' | 'outside'
  bounds: readonly number[]
  /** Whether a value that equals a bound counts as beyond it. */
  inclusive: boolean
  /** Hysteresis: how far a value has to come back over the bound before it may cross again. 0: any way back. */
  rearm: number
  /** It crosses once every sample of so long a time was beyond the bound. 0: with the first. */
  forSeconds: number
  /** After a longer silence of the stream nothing is known of the time between: `forSeconds` begins anew. */
  maxGapSeconds: number | null
  /** At most once in each of these, and again in the next one if it is still beyond. */
  period: WindowKind | null
  /** Where days, weeks and months begin. */
  zone: string
}

/** What is remembered of a stream: no value, which may be somebody's. Milliseconds since 1970. */
export interface ThresholdState {
  /** `pending`: beyond, but not told: not for long enough, or told in this period already. */
  status: 'clear' | 'pending' | 'crossed'
  /** Of the first of the unbroken run of samples beyond the bound; null: the last one was not. */
  sinceMs: number | null
  lastMs: number | null
  /** When it crossed last. */
  crossedMs: number | null
}

export interface Sample {
  atMs: number
  value: number
}

export interface Step {
  state: ThresholdState
  /** `crossed`: to be told. `cleared`: what was told is over. */
  change: 'crossed' | 'cleared' | null
  /** Not later than the last one: nothing was made of it. */
  late: boolean
}

export const START: ThresholdState = Object.freeze({
  status: 'clear',
  sinceMs: null,
  lastMs: null,
  crossedMs: null,
})

/**
 * What a sample does. Pure; the same samples give the same, and those that were seen before do nothing.
 *
 * An excursion begins with the first sample beyond the bound and ends with the first that has come back by `rearm`;
 * it is told of once, or once a period. What is between the bound and there neither begins nor ends anything, but
 * breaks the run that `forSeconds` asks for.
 */
export function step(state: ThresholdState, { atMs, value }: Sample, spec: ThresholdSpec): Step {
  const { lastMs } = state
  if (!Number.isFinite(value) || (lastMs !== null && atMs <= lastMs)) {
    return { state, change: null, late: true }
  }
  const torn = lastMs !== null && spec.maxGapSeconds !== null && atMs - lastMs > spec.maxGapSeconds * 1000
  const sinceMs = beyond(value, spec) ? (torn ? atMs : (state.sinceMs ?? atMs)) : null
  const tells =
    sinceMs !== null && atMs - sinceMs >= spec.forSeconds * 1000 && !toldInPeriod(state, atMs, spec)
  const seen = { sinceMs, lastMs: atMs, crossedMs: state.crossedMs }

  if (state.status === 'crossed') {
    if (back(value, spec)) return { state: { ...seen, status: 'clear' }, change: 'cleared', late: false }
    // Still the same excursion: only a new period makes it news.
    if (!tells || spec.period === null) {
      return { state: { ...seen, status: 'crossed' }, change: null, late: false }
    }
  }
  if (tells) {
    return { state: { ...seen, status: 'crossed', crossedMs: atMs }, change: 'crossed', late: false }
  }
  return { state: { ...seen, status: sinceMs === null ? 'clear' : 'pending' }, change: null, late: false }
}

function toldInPeriod({ crossedMs }: ThresholdState, atMs: number, { period, zone }: ThresholdSpec): boolean {
  return period !== null && crossedMs !== null && windowOf(period, zone, crossedMs).end > atMs
}

/** Whether the value is where it should not be. */
export const beyond = (value: number, spec: Pick<ThresholdSpec, 'when' | 'bounds' | 'inclusive'>): boolean =>
  isBeyond(value, spec, 0)

/** Whether the value has come back far enough to cross again. Never together with `beyond`. */
export const back = (
  value: number,
  spec: Pick<ThresholdSpec, 'when' | 'bounds' | 'inclusive' | 'rearm'>,
): boolean => !isBeyond(value, spec, spec.rearm)

/** Beyond bounds that lie `wider` nearer to where values should be. */
function isBeyond(
  value: number,
  { when, bounds, inclusive }: Pick<ThresholdSpec, 'when' | 'bounds' | 'inclusive'>,
  wider: number,
): boolean {
  const low = bounds[0]!
  const high = bounds.at(-1)!
  const over = (bound: number) => value > bound || (inclusive && value === bound)
  const under = (bound: number) => value < bound || (inclusive && value === bound)
  switch (when) {
    case 'above':
      return over(low - wider)
    case 'below':
      return under(low + wider)
    case 'inside':
      return over(low - wider) && under(high + wider)
    case 'outside':
      return under(low + wider) || over(high - wider)
  }
}

/** What is wrong with it, by field; null when it can be used. */
export function specProblem(
  spec: Pick<ThresholdSpec, 'when' | 'bounds' | 'inclusive' | 'rearm'>,
): { field: 'bounds' | 'rearm'; message: string } | null {
  const { when, bounds, rearm } = spec
  const wanted = when === 'above' || when === 'below' ? 1 : 2
  if (bounds.length !== wanted) {
    return {
      field: 'bounds',
      message: `${when} has ${wanted === 1 ? 'one bound' : 'a lower and an upper bound'}`,
    }
  }
  const low = bounds[0]!
  const high = bounds.at(-1)!
  if (wanted === 2 && !(low < high)) {
    return { field: 'bounds', message: 'The lower bound comes first and is less than the upper one' }
  }
  // Between the two there has to be a value that is back.
  if (when === 'outside' && !back(low + (high - low) / 2, spec)) {
    return {
      field: 'rearm',
      message: 'No value between the bounds is so far from both: it could cross only once',
    }
  }
  if (rearm > 0 && bounds.every(bound => bound - rearm === bound && bound + rearm === bound)) {
    return { field: 'rearm', message: 'Too small to make a difference beside these bounds' }
  }
  return null
}
