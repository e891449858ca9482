import type { Check } from './candidate.ts'

/** The same, or almost the same, was said to this person a short time ago. Urgent messages are never held against each other. */
export const repeated: Check = ({ repeats, priority }) =>
  repeats === null || priority === 'CRITICAL' ? null : { kind: 'skip', reason: repeats }
