import { tooUnimportant } from '../people/effective-preference.ts'
import { ignoresWishes } from './candidate.ts'
import type { Check } from './candidate.ts'

/** Whoever wants to hear of urgent or important things only is spared the others. */
export const minimumPriority: Check = candidate => {
  const { preference, priority, score } = candidate
  if (!preference || ignoresWishes(candidate)) return null
  const refusal = tooUnimportant(preference, priority, score)
  return refusal && { kind: 'skip', ...refusal }
}
