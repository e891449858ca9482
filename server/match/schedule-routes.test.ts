import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { testApi, type TestApi } from '../test/api.ts'
import { scheduleRoutes } from './schedule-routes.ts'

let server: TestApi
before(async () => {
  server = await testApi({
    routes: [api => scheduleRoutes(api, { now: () => new Date('2026-03-27T12:00:00Z') })],
  })
})
after(() => server.close())

const preview = async (payload: object, as = server.tenant.serviceKey) => {
  const answer = await server.request('POST', '/api/schedules/preview', { as, payload })
  return { status: answer.statusCode, body: answer.json() }
}

test('the next times of a schedule, as the clock will show them', async () => {
  const { status, body } = await preview({
    schedule: { cron: '30 2 * * *' },
    timezone: 'Europe/Berlin',
    count: 3,
  })
  assert.equal(status, 200)
  assert.deepEqual(body, {
    timezone: 'Europe/Berlin',
    times: [
      { at: '2026-03-28T01:30:00.000Z', local: '2026-03-28T02:30:00', utcOffset: '+01:00' },
      // 02:30 is skipped that night.
      { at: '2026-03-29T01:00:00.000Z', local: '2026-03-29T03:00:00', utcOffset: '+02:00' },
      { at: '2026-03-30T00:30:00.000Z', local: '2026-03-30T02:30:00', utcOffset: '+02:00' },
    ],
  })
})

test('five times from now, in UTC, unless it says otherwise', async () => {
  const { body } = await preview({ schedule: { daily: '06:00' } })
  assert.equal(body.timezone, 'UTC')
  assert.deepEqual(
    body.times.map(({ at }: { at: string }) => at.slice(0, 16)),
    ['2026-03-28T06:00', '2026-03-29T06:00', '2026-03-30T06:00', '2026-03-31T06:00', '2026-04-01T06:00'],
  )
  const hours = await preview({
    schedule: { interval_seconds: 3600 },
    from: '2027-01-01T00:00:30Z',
    count: 2,
  })
  assert.deepEqual(
    hours.body.times.map(({ at }: { at: string }) => at),
    ['2027-01-01T00:00:30.000Z', '2027-01-01T01:00:30.000Z'],
  )
  const last = await preview({
    schedule: { monthly: { day: 31, time: '09:15' } },
    timezone: 'America/St_Johns',
    from: '2028-02-01T00:00:00Z',
    count: 1,
  })
  assert.deepEqual(last.body.times, [
    { at: '2028-02-29T12:45:00.000Z', local: '2028-02-29T09:15:00', utcOffset: '-03:30' },
  ])
})

test('what cannot be kept is refused with its field', async () => {
  const refusals: [body: object, code: string, field?: string][] = [
    [{ schedule: { daily: '06:00' }, timezone: 'Mars/Olympus' }, 'invalid_schedule', '/timezone'],
    [{ schedule: { cron: '0 0 30 2 *' } }, 'invalid_schedule', '/schedule/cron'],
    [{ schedule: { cron: '0 25 * * *' } }, 'invalid_schedule', '/schedule/cron'],
    [{ schedule: { daily: '06:00' }, from: '2150-01-01T00:00:00Z' }, 'invalid_schedule', '/from'],
    [{ schedule: { daily: '24:00' } }, 'invalid_request'],
    [{ schedule: { weekly: { weekday: 0, time: '06:00' } } }, 'invalid_request'],
    [{ schedule: { daily: '06:00', cron: '* * * * *' } }, 'invalid_request'],
    [{ schedule: { daily: '06:00' }, count: 51 }, 'invalid_request'],
    [{}, 'invalid_request'],
  ]
  for (const [payload, code, field] of refusals) {
    const { status, body } = await preview(payload)
    assert.equal(status, 400, JSON.stringify(payload))
    assert.equal(body.code, code, JSON.stringify(payload))
    if (field !== undefined) assert.equal(body.errors[0].field, field)
  }
})

test('people and keys without the scope may not ask', async () => {
  const schedule = { daily: '06:00' }
  assert.equal((await preview({ schedule }, await server.tenant.token('alice'))).status, 403)
  assert.equal(
    (await preview({ schedule }, await server.tenant.scopedKey('service', ['events:read']))).status,
    403,
  )
})
