import type { Check } from './candidate.ts'

/**
 * One notification for each (event, rule, recipient). Within one planning the recipients are a set; this is for an
 * event that is planned again after its first planning was interrupted, or on an operator's request.
 */
export const duplicate: Check = ({ alreadyTold }) =>
  alreadyTold ? { kind: 'skip', reason: 'duplicate_recipient' } : null
