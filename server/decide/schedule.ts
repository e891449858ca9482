import { nextTime } from '../time/schedule.ts'
import type { Check } from './candidate.ts'

/** The rule's own times: what it sends waits for the next one. An urgent rule simply has no schedule. */
export const schedule: Check = (candidate, now) => {
  if (!candidate.schedule) return null
  const until = nextTime(candidate.schedule, now)
  return until
    ? { kind: 'hold', until, reason: 'rule_schedule' }
    : { kind: 'skip', reason: 'expired', detail: 'the schedule of the rule has no further time' }
}

/** A direct request, or an event, may name the instant itself. */
export const scheduledAt: Check = ({ event }, now) =>
  event.scheduledAt && event.scheduledAt > now
    ? { kind: 'hold', until: event.scheduledAt, reason: 'scheduled' }
    : null
