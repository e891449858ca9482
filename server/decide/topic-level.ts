import { ignoresWishes } from './candidate.ts'
import type { Check } from './candidate.ts'

/** Somebody who follows a topic at level IMPORTANT hears HIGH and CRITICAL of it, and what they are owed. */
export const topicLevel: Check = ({ level, priority, preference, event }) =>
  !ignoresWishes({ event }) &&
  level === 'IMPORTANT' &&
  priority !== 'CRITICAL' &&
  priority !== 'HIGH' &&
  preference?.required !== true
    ? { kind: 'skip', reason: 'topic_important_only' }
    : null
