import { Type } from 'typebox'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import {
  checkSchedule,
  MAX_CRON_LENGTH,
  MAX_INTERVAL_SECONDS,
  nextTimes,
  scheduleOf,
} from '../time/schedule.ts'
import { localTime } from '../time/zone.ts'

const closed = { additionalProperties: false }
const TimeOfDay = Type.String({ pattern: '^([01][0-9]|2[0-3]):[0-5][0-9]$', description: 'HH:MM' })

/** The settings of a schedule, in a request. */
export const ScheduleField = Type.Union(
  [
    Type.Object({ cron: Type.String({ minLength: 9, maxLength: MAX_CRON_LENGTH }) }, closed),
    Type.Object({ interval_seconds: Type.Integer({ minimum: 1, maximum: MAX_INTERVAL_SECONDS }) }, closed),
    Type.Object({ daily: TimeOfDay }, closed),
    Type.Object(
      {
        weekly: Type.Object(
          {
            weekday: Type.Integer({ minimum: 1, maximum: 7, description: '1 Monday to 7 Sunday.' }),
            time: TimeOfDay,
          },
          closed,
        ),
      },
      closed,
    ),
    Type.Object(
      {
        monthly: Type.Object(
          {
            day: Type.Integer({
              minimum: 1,
              maximum: 31,
              description: 'Where a month is shorter, its last day.',
            }),
            time: TimeOfDay,
          },
          closed,
        ),
      },
      closed,
    ),
  ],
  {
    description:
      'Five cron fields, every so many seconds, or local times by day, week or month. All are of the wall clock ' +
      'of the timezone.',
  },
)

const Body = Type.Object(
  {
    schedule: ScheduleField,
    timezone: Type.Optional(
      Type.String({ minLength: 1, maxLength: 64, default: 'UTC', description: 'IANA name.' }),
    ),
    from: Type.Optional(
      Type.String({
        format: 'date-time',
        description: 'Times at or after this one; intervals are counted from it. Default: now.',
      }),
    ),
    count: Type.Optional(Type.Integer({ minimum: 1, maximum: 50, default: 5 })),
  },
  closed,
)

const Preview = Type.Object({
  timezone: Type.String(),
  times: Type.Array(
    Type.Object({
      at: Type.String({ format: 'date-time' }),
      local: Type.String({ description: 'The wall clock of the timezone at that instant.' }),
      utcOffset: Type.String({ description: '`+01:00`: how far that clock is ahead of UTC.' }),
    }),
    { description: 'Fewer than asked for where a pattern ends.' },
  ),
})

// What offsets will be in a hundred years nobody knows.
const FIRST = Date.UTC(1970)
const LAST = Date.UTC(2100)

/** When a schedule will come, before anybody depends on it. */
export function scheduleRoutes(api: Api, { now = () => new Date() }: { now?: () => Date } = {}): void {
  api.post(
    '/api/schedules/preview',
    {
      config: { access: { role: 'service', scope: 'rules:read' } },
      schema: {
        tags: ['Rules'],
        operationId: 'previewSchedule',
        summary: 'The next times of a schedule',
        body: Body,
        response: { 200: Preview },
      },
    },
    request => {
      const { timezone = 'UTC', count = 5 } = request.body
      const from = request.body.from === undefined ? now() : new Date(request.body.from)
      if (!(from.getTime() >= FIRST && from.getTime() < LAST)) {
        throw new AppError('invalid_schedule', 'A preview begins between 1970 and 2099', { field: '/from' })
      }
      const settings = checkSchedule(request.body.schedule, timezone)
      const times = nextTimes(scheduleOf(settings, timezone, from.getTime()), from, count)
      return {
        timezone,
        times: times.map(at => ({ at: at.toISOString(), ...localTime(timezone, at.getTime()) })),
      }
    },
  )
}
