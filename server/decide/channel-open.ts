import type { Check } from './candidate.ts'

/** A channel without any provider cannot be tried. */
export const channelOpen: Check = candidate =>
  candidate.channelOpen ? null : { kind: 'skip', reason: 'channel_unavailable', detail: candidate.channel }
