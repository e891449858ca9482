import { openAt } from '../time/delivery-window.ts'
import type { Check } from './candidate.ts'

/** The times at which the rule, and then the reader, let messages go out. The inbox has no hours. */
export const deliveryWindow: Check = ({ preference, policy, channel, priority, zone }, at) => {
  if (channel === 'in_app' || priority === 'CRITICAL') return null
  const own = preference?.deliveryWindows ?? []
  let until = policy.deliveryWindows ? openAt(at, policy.deliveryWindows, zone) : at
  if (own.length > 0) until = openAt(until, own, zone)
  if (until <= at) return null
  return { kind: 'hold', until, reason: 'delivery_window', detail: preference?.layers.deliveryWindows }
}
