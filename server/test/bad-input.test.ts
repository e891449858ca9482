import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type TestApp, testApp } from './app.ts'

/** What cannot work is refused when it is written, at the door it is written at, with the field and a reason. */
let t: TestApp
before(async () => {
  // Shorter than the longest window a rule may have.
  t = await testApp({ CARILLON_KEEP_NOTIFICATIONS: '7', CARILLON_KEEP_FEED: '7' })
  await t.call('PUT', '/api/users/ann', { as: t.tenant.adminKey, body: {} })
  const closed = { type: 'object', properties: { city: { type: 'string' } }, additionalProperties: false }
  await t.call('PUT', '/api/event-types/weather.rain', { as: t.tenant.adminKey, body: { schema: closed } })
})
after(() => t.stop())

const RULE = {
  name: 'rain',
  eventTypes: ['weather.rain'],
  channels: ['email'],
  recipientSelector: { users: ['ann'] },
}
const LIMIT = { name: 'mails', scope: 'user', max: 3, window: 'hour' }
const policy = (more: object) => ({ ...RULE, policy: more })
const silence = (matcher: object) => ({
  matchers: [matcher],
  author: 'ann',
  comment: 'why',
  endsAt: new Date(Date.now() + 3_600_000).toISOString(),
})
const quiet = (more: object) => ({
  enabled: true,
  startTime: '22:00',
  endTime: '07:00',
  timezone: 'UTC',
  ...more,
})

type Case = [method: string, path: string, body: object, field: string]

const CASES: Record<string, Case[]> = {
  'an unknown zone': [
    ['PUT', '/api/users/ann', { timezone: 'Mars/Base' }, '/timezone'],
    ['PUT', '/api/preferences/ann/quiet-hours', quiet({ timezone: 'Mars/Base' }), '/timezone'],
    ['POST', '/api/rules', { ...RULE, schedule: { daily: '07:00' }, timezone: 'Mars/Base' }, '/timezone'],
    ['POST', '/api/schedules/preview', { schedule: { daily: '07:00' }, timezone: 'Mars/Base' }, '/timezone'],
    [
      'POST',
      '/api/rules',
      policy({ deliveryWindows: [{ weekdays: [1], start: '09:00', end: '17:00', timezone: 'Mars/Base' }] }),
      '/policy/deliveryWindows/0/timezone',
    ],
  ],
  'an impossible time': [
    ['PUT', '/api/preferences/ann/quiet-hours', quiet({ startTime: '24:30' }), '/startTime'],
    ['POST', '/api/rules', { ...RULE, schedule: { daily: '25:00' } }, '/schedule/daily'],
    [
      'POST',
      '/api/events/publish',
      { type: 'x', data: {}, scheduledAt: '2026-02-30T07:00:00Z' },
      '/scheduledAt',
    ],
    [
      'POST',
      '/api/rules',
      policy({ digest: { schedule: { daily: '7 pm' } } }),
      '/policy/digest/schedule/daily',
    ],
  ],
  'an impossible pattern of times': [
    ['POST', '/api/rules', { ...RULE, schedule: { cron: '61 * * * *' } }, '/schedule/cron'],
    ['POST', '/api/rules', { ...RULE, schedule: { cron: '0 0 31 2 *' } }, '/schedule/cron'],
    ['POST', '/api/schedules/preview', { schedule: { cron: '* * * * * *' } }, '/schedule/cron'],
    [
      'POST',
      '/api/rules',
      policy({ digest: { schedule: { cron: 'now and then' } } }),
      '/policy/digest/schedule/cron',
    ],
  ],
  'a negative limit': [
    ['POST', '/api/limits', { ...LIMIT, max: -1 }, '/max'],
    ['POST', '/api/limits', { ...LIMIT, window: 'gap', gapSeconds: -5 }, '/gapSeconds'],
    ['PUT', '/api/preferences/ann/opinions', { scope: '', channel: 'email', maxPerDay: -1 }, '/maxPerDay'],
    [
      'POST',
      '/api/rules',
      policy({ digest: { windowSeconds: 60, maxItems: -2 } }),
      '/policy/digest/maxItems',
    ],
    ['POST', '/api/rules', policy({ cooldown: { seconds: -1 } }), '/policy/cooldown/seconds'],
  ],
  'a window longer than messages are kept': [
    ['POST', '/api/rules', policy({ digest: { windowSeconds: 8 * 86_400 } }), '/policy/digest/windowSeconds'],
    ['POST', '/api/rules', { ...RULE, batchWindowSeconds: 8 * 86_400 }, '/batchWindowSeconds'],
    [
      'POST',
      '/api/rules',
      policy({ group: { by: ['event.type'], repeatSeconds: 8 * 86_400 } }),
      '/policy/group/repeatSeconds',
    ],
    [
      'POST',
      '/api/rules',
      policy({ escalation: [{ afterSeconds: 8 * 86_400, unless: 'seen', channels: ['email'] }] }),
      '/policy/escalation/0/afterSeconds',
    ],
    [
      'POST',
      '/api/rules',
      policy({ digest: { windowSeconds: 40 * 86_400 } }),
      '/policy/digest/windowSeconds',
    ],
  ],
  'a matcher that cannot compile': [
    ['POST', '/api/silences', silence({ name: 'x', op: '=~', value: '[' }), '/matchers/0/value'],
    ['POST', '/api/silences', silence({ name: 'x', op: '~=', value: 'y' }), '/matchers/0/op'],
    [
      'POST',
      '/api/inhibitions',
      {
        name: 'covers',
        sourceMatchers: [{ name: 'x', op: '=', value: 'y' }],
        targetMatchers: [{ name: 'x', op: '=~', value: '(a' }],
      },
      '/targetMatchers/0/value',
    ],
    ['POST', '/api/rules', { ...RULE, eventPattern: 'event.data.n >' }, '/eventPattern'],
  ],
  'a key that names nothing': [
    [
      'POST',
      '/api/rules',
      policy({ digest: { windowSeconds: 60, key: ['data.city'] } }),
      '/policy/digest/key/0',
    ],
    [
      'POST',
      '/api/rules',
      policy({ digest: { windowSeconds: 60, key: ['event.town'] } }),
      '/policy/digest/key/0',
    ],
    [
      'POST',
      '/api/rules',
      policy({ digest: { windowSeconds: 60, key: ['event.data.city', 'event.data.town'] } }),
      '/policy/digest/key/1',
    ],
    ['POST', '/api/rules', policy({ group: { by: ['event.data.city.name'] } }), '/policy/group/by/0'],
    ['POST', '/api/rules', policy({ state: { key: [] } }), '/policy/state/key'],
    ['POST', '/api/rules', policy({ digest: { windowSeconds: 60, key: [''] } }), '/policy/digest/key/0'],
  ],
}

for (const [what, cases] of Object.entries(CASES)) {
  test(`${what} is refused, with its field and a reason`, async () => {
    for (const [method, path, body, field] of cases) {
      const { status, body: problem, text } = await t.call(method, path, { as: t.tenant.adminKey, body })
      const about = `${method} ${path} ${JSON.stringify(body)}: ${text}`
      assert.equal(status, 400, about)
      assert.equal(problem.errors?.[0]?.field, field, about)
      assert.ok(problem.errors[0].message.length > 5, about)
    }
    const { items } = (await t.call('GET', '/api/rules', { as: t.tenant.adminKey })).body
    assert.deepEqual(items, [], 'and nothing was saved')
  })
}

test('the same written rightly is taken', async () => {
  const right = policy({
    digest: { windowSeconds: 7 * 86_400, key: ['event.data.city', 'event.type'] },
    cooldown: { seconds: 60, key: ['event.data.city'] },
  })
  for (const [path, body] of [
    ['/api/rules', right],
    ['/api/limits', { ...LIMIT, max: 0 }],
    ['/api/silences', silence({ name: 'x', op: '=~', value: '[a-z]+' })],
  ] as const) {
    const { status, text } = await t.call('POST', path, { as: t.tenant.adminKey, body })
    assert.equal(status, 201, `${path}: ${text}`)
  }
})
