import { openAt } from '../time/delivery-window.ts'
import type { Check } from './candidate.ts'

/** The times at which the rule, and then the reader, let messages go out. The inbox has no hours. */
export const deliveryWindow: Check = ({ preference, policy, channel, priority, zone }, at) => {
  if (channel === 'in_app' || priority === 'CRITICAL') return null
  // Each is asked about what the other answers, until both agree: decide() sees to that.
  const rule = policy.deliveryWindows ? openAt(at, policy.deliveryWindows, zone) : at
  if (rule > at) return { kind: 'hold', until: rule, reason: 'delivery_window', detail: 'rule' }
  const own = preference?.deliveryWindows ? openAt(at, preference.deliveryWindows, zone) : at
  if (own <= at) return null
  return { kind: 'hold', until: own, reason: 'delivery_window', detail: preference?.layers.deliveryWindows }
}
