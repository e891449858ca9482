import type { Check } from './candidate.ts'

/** A channel without any provider cannot be tried; one may also be switched off for a part of what is told. */
export const channelOpen: Check = ({ channelOpen: open, closed, channel }) =>
  open && closed === undefined
    ? null
    : { kind: 'skip', reason: 'channel_unavailable', detail: closed ?? channel }
