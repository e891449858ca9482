import type { Event } from '../types.ts'
import { type AlertState, alertOf, firing } from './alert.ts'
import { type Inhibition, compileInhibition, covers } from './inhibition.ts'
import type { InhibitionDefinition } from './inhibition.ts'
import { compileMatchers, lookupIn, lookupOf } from './matcher.ts'
import type { Lookup, Matcher, Test } from './matcher.ts'
import type { Standing } from './standing-book.ts'

/** A silence as it was in force: times are compared with the clock of the events. */
export interface TimedSilence {
  id: string
  author: string
  matchers: Matcher[]
  startsAt: Date
  endsAt: Date
}

/** Silences and inhibitions over alerts that are remembered here alone: for replays, and stories of rules as code. */
export interface StandingMemory {
  standing(event: Event, now: Date): Standing | null
  /** How alerts stand from now on. The latest word at the producer counts. */
  remember(alerts: readonly AlertState[]): void
}

/** @throws AppError invalid_request for what cannot be compiled */
export function standingMemory(
  silences: readonly TimedSilence[],
  inhibitions: readonly InhibitionDefinition[],
): StandingMemory {
  const quiet: (TimedSilence & { test: Test })[] = silences.map(silence => ({
    ...silence,
    test: compileMatchers(silence.matchers, '/matchers'),
  }))
  // Sources by the values that they have to share with their targets, so that a target meets only those.
  const rules = inhibitions.map(definition => ({
    inhibition: compileInhibition(definition),
    sources: new Map<string, Map<string, AlertState>>(),
  }))
  const known = new Map<string, AlertState>()

  return {
    standing(event, now) {
      if (quiet.length === 0 && rules.length === 0) return null
      const lookup = lookupOf(event)
      for (const { id, author, startsAt, endsAt, test } of quiet) {
        if (startsAt <= now && now < endsAt && test(lookup))
          return { reason: 'silenced', detail: `silence ${id} of ${author}` }
      }
      const target = { key: alertOf(event)?.key ?? null, lookup }
      for (const { inhibition, sources } of rules) {
        if (!inhibition.target(lookup)) continue
        for (const source of sources.get(shared(inhibition, lookup))?.values() ?? []) {
          if (!covers(inhibition, source, target, now)) continue
          const named = source.labels['labels.alertname'] ?? source.labels['subject'] ?? source.key
          return { reason: 'inhibited', detail: `${inhibition.name}: ${named} (${source.key})`.slice(0, 400) }
        }
      }
      return null
    },
    remember(alerts) {
      if (rules.length === 0) return
      for (const alert of alerts) {
        const before = known.get(alert.key)
        if (before && alert.at < before.at) continue
        for (const { inhibition, sources } of rules) {
          if (before) sources.get(shared(inhibition, lookupIn(before.labels)))?.delete(alert.key)
          const lookup = lookupIn(alert.labels)
          if (!firing(alert, alert.at) || !inhibition.source(lookup)) continue
          const name = shared(inhibition, lookup)
          const place = sources.get(name)
          if (place) place.set(alert.key, alert)
          else sources.set(name, new Map([[alert.key, alert]]))
        }
        known.set(alert.key, alert)
      }
    },
  }
}

const shared = ({ equal }: Inhibition, lookup: Lookup): string => JSON.stringify(equal.map(lookup))
