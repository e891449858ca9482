import type { Check } from './candidate.ts'

/** An operator's silence, or a more important alert that covers this one, holds for everybody. */
export const standing: Check = ({ standing: found }) =>
  found === null ? null : { kind: 'skip', reason: found.reason, detail: found.detail }
