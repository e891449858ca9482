import type { Check } from './candidate.ts'

/**
 * There must be an address, it must be verified, and it must not be on the suppression list. The address itself
 * stays out of the trace, which is kept longer than the person's data may be.
 */
export const address: Check = ({ channel, address, user }, now) => {
  if (channel === 'in_app') return null
  if (!address) return { kind: 'skip', reason: 'missing_address' }
  // A bare address was named by the caller, who answers for it.
  if (user && address.verification !== 'verified') {
    return { kind: 'skip', reason: 'unverified_address', detail: address.verification }
  }
  const { suppression } = address
  if (suppression && (suppression.until === undefined || suppression.until > now.getTime())) {
    return { kind: 'skip', reason: 'suppressed_address', detail: suppression.reason }
  }
  return null
}
