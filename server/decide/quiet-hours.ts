import { namesEvent } from '../people/preference-settings.ts'
import { quietUntil } from '../time/quiet-hours.ts'
import { ignoresWishes } from './candidate.ts'
import type { Check } from './candidate.ts'

/**
 * In the reader's quiet hours nothing interrupts: it goes when they end. The inbox fills meanwhile, unless the rule or
 * the reader want quiet there as well. CRITICAL passes when the reader allows it, which they do unless they say no.
 */
export const quietHours: Check = ({ preference, policy, channel, priority, event, zone }, at) => {
  const quiet = preference?.quietHours
  if (!quiet?.enabled || policy.quietHours === 'ignore' || ignoresWishes({ event })) return null
  if (channel === 'in_app' && policy.quietHours !== 'in_app' && !preference?.quietAppliesToInApp) return null
  if (priority === 'CRITICAL' && quiet.allowCritical !== false) return null
  if (quiet.exceptions && namesEvent(quiet.exceptions, event.type)) return null
  const until = quietUntil(at, quiet, zone)
  return until && { kind: 'hold', until, reason: 'quiet_hours', detail: preference?.layers.quietHours }
}
