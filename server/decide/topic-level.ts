import type { Check } from './candidate.ts'

/** Somebody who follows a topic at level IMPORTANT hears HIGH and CRITICAL of it. */
export const topicLevel: Check = ({ level, priority }) =>
  level === 'IMPORTANT' && priority !== 'CRITICAL' && priority !== 'HIGH'
    ? { kind: 'skip', reason: 'topic_important_only' }
    : null
