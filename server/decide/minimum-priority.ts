import { tooUnimportant } from '../people/effective-preference.ts'
import type { Check } from './candidate.ts'

/** Whoever wants to hear of urgent or important things only is spared the others. */
export const minimumPriority: Check = ({ preference, priority, score }) => {
  if (!preference) return null
  const refusal = tooUnimportant(preference, priority, score)
  return refusal && { kind: 'skip', ...refusal }
}
