import type { Check } from './candidate.ts'

/** Only people the tenant has told us about, who are not disabled and not erased. */
export const knownUser: Check = ({ user }) => {
  if (!user) return null
  if (!user.known) return { kind: 'skip', reason: 'unknown_user' }
  if (user.erased) return { kind: 'skip', reason: 'user_erased' }
  if (!user.enabled) return { kind: 'skip', reason: 'user_disabled' }
  return null
}
