import { type AlertState, firing } from './alert.ts'
import { type Lookup, type Matcher, type Test, canonicalName, compileMatchers, lookupIn } from './matcher.ts'

/**
 * While an alert that fits `sourceMatchers` fires, nobody is told of alerts that fit `targetMatchers` and have the
 * same values under the names of `equal`. Absent and empty values are equal.
 * https://prometheus.io/docs/alerting/latest/configuration/#inhibit_rule
 */
export interface InhibitionDefinition {
  name: string
  sourceMatchers: Matcher[]
  targetMatchers: Matcher[]
  equal: string[]
}

export interface Inhibition {
  name: string
  source: Test
  target: Test
  /** Canonical names. */
  equal: readonly string[]
  /** What every source has for certain: narrows the search. */
  certain: Readonly<Record<string, string>>
}

/** Throws AppError `invalid_request` with the field. */
export function compileInhibition(definition: InhibitionDefinition): Inhibition {
  const { name, sourceMatchers, targetMatchers, equal } = definition
  const certain: Record<string, string> = {}
  for (const { name: asked, op, value } of sourceMatchers) {
    if (op === '=' && value !== '') certain[canonicalName(asked)] = value
  }
  return {
    name,
    source: compileMatchers(sourceMatchers, '/sourceMatchers', { remembered: true }),
    target: compileMatchers(targetMatchers, '/targetMatchers', { remembered: true }),
    equal: equal.map(canonicalName),
    certain,
  }
}

/** What a source of this target must contain, as far as equality tells. */
export function wanted({ equal, certain }: Inhibition, target: Lookup): Record<string, string> {
  const values: Record<string, string> = { ...certain }
  for (const name of equal) {
    const value = target(name)
    if (value !== '') values[name] = value
  }
  return values
}

/**
 * Whether this alert covers the target, which fits the rule's `target`.
 *
 * An alert that fits both sides is not covered by others that do as well, itself included: otherwise two of a kind
 * would silence each other.
 */
export function covers(
  { source, target, equal }: Inhibition,
  alert: Pick<AlertState, 'key' | 'labels' | 'status' | 'endsAt'>,
  of: { key: string | null; lookup: Lookup },
  now: Date,
): boolean {
  if (alert.key === of.key || !firing(alert, now)) return false
  const lookup = lookupIn(alert.labels)
  return (
    source(lookup) &&
    equal.every(name => lookup(name) === of.lookup(name)) &&
    !(source(of.lookup) && target(lookup))
  )
}
