import type { Check } from './candidate.ts'

/** What expires is not sent at or after that instant. */
export const expiry: Check = ({ expiresAt }, now) =>
  expiresAt && expiresAt <= now ? { kind: 'skip', reason: 'expired', detail: expiresAt.toISOString() } : null
