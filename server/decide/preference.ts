import { unwanted } from '../people/effective-preference.ts'
import { ignoresWishes } from './candidate.ts'
import type { Check } from './candidate.ts'

/** What the person, or else the tenant's default, wants of it here and now. The layer that decided is the detail. */
export const preference: Check = (candidate, now) => {
  if (!candidate.preference || ignoresWishes(candidate)) return null
  const refusal = unwanted(candidate.preference, now)
  return refusal && { kind: 'skip', ...refusal }
}
