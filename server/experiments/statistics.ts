/** A share of people: `hits` of `n`. */
export interface Rate {
  hits: number
  n: number
}

/** Two-sided, as texts on the subject have them. */
export const CONFIDENCE = 0.95

/**
 * The score interval of a proportion: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical
 * Inference", JASA 22 (1927) 209–212; recommended over the usual ± form for any n by L. D. Brown, T. T. Cai,
 * A. DasGupta, "Interval Estimation for a Binomial Proportion", Statistical Science 16 (2001) 101–133.
 *
 * @returns both ends, within 0 to 1; nothing known (n = 0) is anything: [0, 1]
 */
export function wilson({ hits, n }: Rate, confidence = CONFIDENCE): [low: number, high: number] {
  if (n === 0) return [0, 1]
  const z = normalQuantile((1 + confidence) / 2)
  const p = hits / n
  const scale = 1 + (z * z) / n
  const centre = (p + (z * z) / (2 * n)) / scale
  const half = (z / scale) * Math.sqrt((p * (1 - p)) / n + (z * z) / (4 * n * n))
  // Exactly 0 and 1 at the edges, which rounding would miss by some 1e-17.
  return [hits === 0 ? 0 : Math.max(0, centre - half), hits === n ? 1 : Math.min(1, centre + half)]
}

export interface Comparison {
  /** Rate of the second less that of the first. */
  difference: number
  /** Of the difference. */
  interval: [low: number, high: number]
  /** Two-sided: how likely a difference at least as large is where there is none. Null: nobody was told. */
  p: number | null
  /** False: too few people for the test to mean anything. */
  enough: boolean
}

/**
 * Two proportions against each other. The test is the usual one with the pooled standard error (J. L. Fleiss,
 * B. Levin, M. C. Paik, "Statistical Methods for Rates and Proportions", 3rd ed. 2003, §3.2), which wants at least 5
 * expected hits and misses on each side (W. G. Cochran, Biometrics 10 (1954) 417–451). The interval is Newcombe's hybrid of
 * two Wilson intervals: R. G. Newcombe, "Interval Estimation for the Difference between Independent Proportions",
 * Statistics in Medicine 17 (1998) 873–890, method 10.
 */
export function compare(control: Rate, variant: Rate, confidence = CONFIDENCE): Comparison {
  if (control.n === 0 || variant.n === 0) return { difference: 0, interval: [-1, 1], p: null, enough: false }
  const [p1, p2] = [control.hits / control.n, variant.hits / variant.n]
  const difference = p2 - p1
  const [l1, u1] = wilson(control, confidence)
  const [l2, u2] = wilson(variant, confidence)
  const interval: [number, number] = [
    difference - Math.hypot(p2 - l2, u1 - p1),
    difference + Math.hypot(u2 - p2, p1 - l1),
  ]
  const pooled = (control.hits + variant.hits) / (control.n + variant.n)
  const error = Math.sqrt(pooled * (1 - pooled) * (1 / control.n + 1 / variant.n))
  const smallest = Math.min(control.n, variant.n) * Math.min(pooled, 1 - pooled)
  return {
    difference,
    interval,
    p: error === 0 ? 1 : Math.min(1, 2 * normalTail(Math.abs(difference) / error)),
    enough: smallest >= 5,
  }
}

/**
 * Several comparisons with one control: each p made larger, so that the chance of even one false alarm stays what one
 * comparison has. S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of
 * Statistics 6 (1979) 65–70.
 */
export function holm(values: readonly number[]): number[] {
  const order = [...values.keys()].sort((a, b) => values[a]! - values[b]!)
  const adjusted = values.slice()
  let least = 0
  for (const [rank, at] of order.entries()) {
    least = Math.max(least, Math.min(1, values[at]! * (values.length - rank)))
    adjusted[at] = least
  }
  return adjusted
}

/**
 * Whether people came to the variants in their declared shares: Pearson's chi-squared test of fit. A small value says
 * that something loses people of one variant, and then no rate of the experiment can be trusted (A. Fabijan et al.,
 * "Diagnosing Sample Ratio Mismatch in Online Controlled Experiments", KDD 2019).
 *
 * @returns p; 1 where fewer than two have a share, or nobody came
 */
export function fit(counts: readonly number[], weights: readonly number[]): number {
  const n = counts.reduce((sum, count) => sum + count, 0)
  const whole = weights.reduce((sum, weight) => sum + weight, 0)
  if (n === 0 || counts.length < 2) return 1
  let squares = 0
  for (const [at, count] of counts.entries()) {
    const expected = (n * weights[at]!) / whole
    squares += (count - expected) ** 2 / expected
  }
  return upperGamma((counts.length - 1) / 2, squares / 2)
}

/** P(Z > x) of a standard normal, for x ≥ 0: ½ erfc(x/√2), and erfc(x) = Q(½, x²) (DLMF 7.11.2). */
export const normalTail = (x: number): number => upperGamma(0.5, (x * x) / 2) / 2

/** The x with P(Z ≤ x) = p, ½ ≤ p < 1, by halving: exact to the last bits, and asked rarely. */
export function normalQuantile(p: number): number {
  let [low, high] = [0, 40]
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2
    if (normalTail(middle) > 1 - p) low = middle
    else high = middle
  }
  return (low + high) / 2
}

/**
 * The regularized upper incomplete gamma function Q(a, x), a in halves (NIST DLMF §8.2): the power series of P
 * (8.7.1) below a + 1, the continued fraction (8.9.2) above, where it settles in some dozens of steps.
 */
export function upperGamma(a: number, x: number): number {
  if (x <= 0) return 1
  const front = Math.exp(a * Math.log(x) - x - logGammaOfHalves(a))
  if (x < a + 1) {
    let term = 1 / a
    let sum = term
    for (let n = 1; n < 1_000 && term > sum * 1e-17; n++) sum += term *= x / (a + n)
    return 1 - front * sum
  }
  // Evaluated from the front by Lentz's method: W. J. Lentz, Applied Optics 15 (1976) 668–671.
  let b = x + 1 - a
  let c = Number.POSITIVE_INFINITY
  let d = 1 / b
  let value = d
  for (let n = 1; n < 1_000; n++) {
    const an = -n * (n - a)
    b += 2
    d = 1 / (an * d + b)
    c = b + an / c
    const step = c * d
    value *= step
    if (Math.abs(step - 1) < 1e-16) break
  }
  return front * value
}

/** ln Γ of ½, 1, 1½ …: Γ(½) = √π, Γ(a + 1) = a Γ(a). */
function logGammaOfHalves(a: number): number {
  let sum = Number.isInteger(a) ? 0 : Math.log(Math.PI) / 2
  for (let at = Number.isInteger(a) ? 1 : 0.5; at < a; at++) sum += Math.log(at)
  return sum
}
