import { Cron } from 'croner'
import { AppError } from '../errors.ts'
import type { Check } from './candidate.ts'

/** When a rule sends: at the times of a cron pattern, or every so many seconds from an anchor. */
export interface Schedule {
  /** Five fields. */
  cron?: string
  intervalSeconds?: number
  /** IANA zone of the pattern. */
  timezone: string
  /** Intervals are counted from here, in milliseconds since 1970. */
  anchorMs: number
}

/** The longest interval: a year. */
export const MAX_INTERVAL_SECONDS = 366 * 86_400

/** The rule's own times: what it sends waits for the next one. An urgent rule simply has no schedule. */
export const schedule: Check = (candidate, now) => {
  if (!candidate.schedule) return null
  const until = nextTime(candidate.schedule, now)
  return until ? { kind: 'hold', until, reason: 'rule_schedule' } : { kind: 'skip', reason: 'expired' }
}

/** A direct request, or an event, may name the instant itself. */
export const scheduledAt: Check = ({ event }, now) =>
  event.scheduledAt && event.scheduledAt > now
    ? { kind: 'hold', until: event.scheduledAt, reason: 'scheduled' }
    : null

/** Compiled patterns; a tenant's rules share few. */
const crons = new Map<string, Cron>()

/**
 * The first time at or after `now`; null when the pattern has none any more.
 *
 * A local time that daylight saving skips moves to the first instant after the gap, and one that occurs twice
 * counts once.
 */
export function nextTime(schedule: Schedule, now: Date): Date | null {
  if (schedule.intervalSeconds !== undefined) {
    const step = schedule.intervalSeconds * 1000
    const passed = Math.ceil((now.getTime() - schedule.anchorMs) / step)
    return new Date(schedule.anchorMs + Math.max(0, passed) * step)
  }
  // croner looks strictly after the given instant, at whole seconds.
  return cronOf(schedule).nextRun(new Date(Math.ceil(now.getTime() / 1000) * 1000 - 1000))
}

function cronOf({ cron = '', timezone }: Schedule): Cron {
  const name = `${timezone} ${cron}`
  let compiled = crons.get(name)
  if (!compiled) {
    compiled = new Cron(cron, { timezone, mode: '5-part', paused: true })
    if (crons.size >= 1000) crons.clear()
    crons.set(name, compiled)
  }
  return compiled
}

/**
 * Refuses a schedule that could not be kept.
 *
 * @throws AppError invalid_schedule, naming the field
 */
export function checkSchedule(
  schedule: { cron?: string; interval_seconds?: number },
  timezone: string,
): void {
  try {
    new Intl.DateTimeFormat('en', { timeZone: timezone })
  } catch {
    throw new AppError('invalid_schedule', `There is no time zone "${timezone.slice(0, 64)}"`, {
      field: '/timezone',
    })
  }
  if ((schedule.cron === undefined) === (schedule.interval_seconds === undefined)) {
    throw new AppError('invalid_schedule', 'Give either cron or interval_seconds', { field: '/schedule' })
  }
  const seconds = schedule.interval_seconds
  if (
    seconds !== undefined &&
    !(Number.isInteger(seconds) && seconds >= 1 && seconds <= MAX_INTERVAL_SECONDS)
  ) {
    throw new AppError('invalid_schedule', `An interval is 1 to ${MAX_INTERVAL_SECONDS} whole seconds`, {
      field: '/schedule/interval_seconds',
    })
  }
  if (schedule.cron !== undefined) {
    try {
      if (new Cron(schedule.cron, { timezone, mode: '5-part', paused: true }).nextRun() === null) {
        throw new Error('the pattern never comes')
      }
    } catch (cause) {
      throw new AppError(
        'invalid_schedule',
        `The cron pattern is not valid: ${(cause as Error).message.slice(0, 200)}`,
        {
          field: '/schedule/cron',
        },
      )
    }
  }
}
