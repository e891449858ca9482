import { hash } from 'node:crypto'

/** One way of saying it, and how large its share is beside those of the others. */
export interface Share {
  name: string
  /** More than 0; only the proportions mean something. */
  weight: number
}

/** The group that is told nothing, or what everybody was told before. */
export const HOLDOUT = 'holdout'

/**
 * Which part of an experiment a person is in: always the same for the same experiment and person, on every machine.
 *
 * The holdout is drawn first, by a draw of its own, so that its share does not depend on the variants: who is in it
 * stays in it when it grows. The others are split by weighted rendezvous hashing (C. Schindelhauer, G. Schomaker,
 * "Weighted Distributed Hash Tables", SPAA 2005; the logarithmic form as in J. Resch, "New Hashing Algorithms for Data
 * Storage", SNIA 2015): each variant draws an exponential time of rate `weight` for the person, and the first to come
 * has them. So a variant has exactly its share, and when one weight grows, people move to that variant only; when it
 * shrinks, from it only. Nobody moves between two others.
 *
 * @param person whoever is told, such as `user:alice`
 * @param holdout share of people held out, 0 to 1
 * @returns the name of a variant, or HOLDOUT
 */
export function split(
  experimentId: string,
  person: string,
  variants: readonly Share[],
  holdout: number,
): string {
  if (holdout > 0 && draw(experimentId, person, HOLDOUT) < holdout) return HOLDOUT
  let first = variants[0]!
  let soonest = Number.POSITIVE_INFINITY
  for (const variant of variants) {
    // Inverse transform sampling; 1 − u is never 0.
    const time = -Math.log1p(-draw(experimentId, person, variant.name)) / variant.weight
    if (time < soonest) {
      soonest = time
      first = variant
    }
  }
  return first.name
}

/**
 * Uniform in [0, 1): the first 52 bits of SHA-256 (FIPS 180-4) over the three names, which NUL keeps apart: no name
 * holds one, as PostgreSQL takes none in texts.
 */
export function draw(experimentId: string, person: string, of: string): number {
  return (
    Number.parseInt(hash('sha256', `${experimentId}\0${of}\0${person}`, 'hex').slice(0, 13), 16) / 2 ** 52
  )
}
