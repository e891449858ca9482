import type { Decision } from '../reasons.ts'
import { ignoresWishes } from './candidate.ts'
import type { Candidate } from './candidate.ts'

/** Whether it joins a digest. CRITICAL is never collected. */
export function collect({ digest, priority, expiresAt, event }: Candidate, at: Date): Decision | null {
  if (digest === null || priority === 'CRITICAL' || ignoresWishes({ event })) return null
  // It would be over before its digest goes: then it goes alone.
  if (expiresAt && digest.closesAt >= expiresAt) return null
  const until = digest.closesAt > at ? digest.closesAt : at
  return { kind: 'digest', wish: digest, until, reason: digest.reason }
}
