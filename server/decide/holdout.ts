import { isForced } from './candidate.ts'
import type { Check } from './candidate.ts'

/** Some are told nothing, so that an experiment shows what telling does at all. What is critical is told to all. */
export const holdout: Check = candidate => {
  const { heldOut, priority } = candidate
  if (heldOut === null || priority === 'CRITICAL' || isForced(candidate)) return null
  return { kind: 'skip', reason: 'holdout', detail: heldOut.name }
}
