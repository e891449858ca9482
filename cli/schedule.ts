import { checkSchedule, nextTimes, scheduleOf, type ScheduleSettings } from '../server/time/schedule.ts'
import { localTime } from '../server/time/zone.ts'
import { type Command, type Input, readTime, UsageError } from './command.ts'
import { complain, print, printJson, table } from './print.ts'

const WEEKDAYS = ['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'] as const
const MAX_COUNT = 50

export const command: Command = {
  name: 'schedule next',
  summary: 'Show when a schedule comes next',
  about:
    'Needs no server. A local time that a change of clocks skips moves to the end of the gap; one that occurs twice\n' +
    'counts once.',
  options: {
    cron: { value: 'PATTERN', about: 'Five fields: minute, hour, day, month, weekday' },
    every: { value: 'SECONDS', about: 'An interval, counted from --from' },
    daily: { value: 'HH:MM', about: 'Every day' },
    weekly: { value: 'DAY HH:MM', about: `Every week; the day is ${WEEKDAYS[0]} to ${WEEKDAYS[6]}` },
    monthly: {
      value: 'DAY HH:MM',
      about: 'Every month; the day is 1 to 31, or the last one of a shorter month',
    },
    timezone: { value: 'ZONE', about: 'IANA name. Default: UTC' },
    from: { value: 'TIME', about: 'Times at or after this one. Default: now' },
    count: { value: 'N', about: `So many, at most ${MAX_COUNT}. Default: 5` },
  },
  examples: [
    'carillon schedule next --cron "30 2 * * *" --timezone Europe/Berlin --from 2026-03-27',
    'carillon schedule next --weekly "MON 09:00" --timezone America/New_York --count 3',
  ],
  async run(input) {
    const timezone = input.text('timezone') ?? 'UTC'
    const from = new Date(readTime(input.text('from'), 'from') ?? Date.now())
    const settings = checkSchedule(readSettings(input), timezone, '')
    const times = nextTimes(scheduleOf(settings, timezone, from.getTime()), from, readCount(input)).map(
      at => ({
        at: at.toISOString(),
        ...localTime(timezone, at.getTime()),
      }),
    )
    if (input.json) printJson({ timezone, times })
    else if (times.length > 0) {
      print(
        table(
          times.map(({ at, local, utcOffset }) => [
            WEEKDAYS[(new Date(`${local}Z`).getUTCDay() + 6) % 7]!,
            local.replace('T', ' '),
            utcOffset,
            at.replace('.000Z', 'Z'),
          ]),
        ),
      )
    } else complain('It comes no more.')
    return times.length > 0 ? 0 : 1
  },
}

/** As the API takes them; what the words mean is checked there. @throws UsageError */
function readSettings(input: Input): ScheduleSettings {
  const given = (['cron', 'every', 'daily', 'weekly', 'monthly'] as const).filter(
    name => input.text(name) !== undefined,
  )
  const [kind, ...more] = given
  if (kind === undefined || more.length > 0) {
    throw new UsageError('Give one of --cron, --every, --daily, --weekly and --monthly')
  }
  const text = input.text(kind)!
  if (kind === 'cron') return { cron: text }
  if (kind === 'daily') return { daily: text }
  if (kind === 'every') {
    if (!/^\d{1,9}$/.test(text)) throw new UsageError('--every is not a whole number of seconds')
    return { interval_seconds: Number(text) }
  }
  const [day = '', time = '', ...rest] = text.trim().split(/\s+/)
  if (time === '' || rest.length > 0)
    throw new UsageError(`--${kind} is a day and a time, such as "${kind === 'weekly' ? 'MON' : '1'} 09:00"`)
  if (kind === 'monthly') {
    if (!/^\d{1,2}$/.test(day)) throw new UsageError('--monthly begins with a day, 1 to 31')
    return { monthly: { day: Number(day), time } }
  }
  const weekday = WEEKDAYS.indexOf(day.toUpperCase() as (typeof WEEKDAYS)[number]) + 1
  if (weekday === 0) throw new UsageError(`--weekly begins with one of ${WEEKDAYS.join(', ')}`)
  return { weekly: { weekday, time } }
}

function readCount(input: Input): number {
  const text = input.text('count') ?? '5'
  const count = /^\d{1,4}$/.test(text) ? Number(text) : 0
  if (count < 1 || count > MAX_COUNT) throw new UsageError(`--count is 1 to ${MAX_COUNT}`)
  return count
}
