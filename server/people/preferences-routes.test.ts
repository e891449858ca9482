import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { quietHours } from '../decide/quiet-hours.ts'
import { deliveryWindow } from '../decide/delivery-window.ts'
import type { Candidate } from '../decide/candidate.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { PRIORITIES } from '../types.ts'
import { consentsRoutes } from './consents-routes.ts'
import { effectivePreference } from './effective-preference.ts'
import { weigh } from './preferences-evaluate.ts'
import { preferencesDefaultsRoutes } from './preferences-defaults-routes.ts'
import { preferencesRoutes } from './preferences-routes.ts'
import { preferencesViewsRoutes } from './preferences-views-routes.ts'
import { usersRoutes } from './users-routes.ts'

const NOW = new Date('2026-11-21T12:00:00Z')
const now = () => NOW

let t: TestApi
before(async () => {
  t = await testApi({
    routes: [
      usersRoutes,
      (api, deps) => preferencesRoutes(api, { ...deps, now }),
      (api, deps) => preferencesViewsRoutes(api, { ...deps, now }),
      (api, deps) => preferencesDefaultsRoutes(api, { ...deps, now }),
      (api, deps) => consentsRoutes(api, { ...deps, now }),
    ],
  })
})
after(() => t.close())

/** One request, as a service unless `as` says otherwise; the body comes back parsed. */
async function call(
  method: string,
  url: string,
  payload?: object,
  {
    as = t.tenant.serviceKey,
    status = method === 'DELETE' ? 204 : 200,
  }: { as?: string; status?: number } = {},
) {
  const response = await t.request(method, url, { as, payload })
  assert.equal(response.statusCode, status, `${method} ${url}: ${response.body}`)
  return response.body === '' ? null : response.json()
}
const person = (userId: string, more: object = {}) =>
  call('PUT', `/api/users/${userId}`, more, { status: 201 })
const evaluate = async (body: { userId: string; channel?: string } & Record<string, unknown>) => {
  const { channels } = await call('POST', '/api/preferences/evaluate', { channel: 'email', ...body })
  return channels[0]
}

test('every route keeps the rules of all routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

// covers: ALP-036, ALP-037, ALP-039, ALP-040, ALP-113, ALP-114, ALP-126
test('the documented shape comes back whole, and what is sent back as it was read changes nothing', async () => {
  await person('alice', { timezone: 'Europe/Berlin' })
  const fresh = await call('GET', '/api/preferences/alice')
  assert.deepEqual(fresh.frequency, {
    maxPerHour: null,
    maxPerDay: null,
    digestEnabled: false,
    digestFrequency: 'DAILY',
    digestTime: null,
    digestWeekday: null,
    instantAlerts: [],
    batchableEvents: [],
  })
  assert.deepEqual(fresh.quietHours, {
    enabled: false,
    startTime: '22:00',
    endTime: '08:00',
    timezone: 'Europe/Berlin',
    weekdays: [0, 1, 2, 3, 4, 5, 6],
    exceptions: [],
    allowCritical: true,
  })
  const said = {
    globalEnabled: true,
    channels: {
      email: {
        enabled: true,
        preferences: { marketing: true, transactional: true, alerts: true, social: false },
      },
      sms: { enabled: false },
    },
    topics: { trading: 'IMPORTANT', community: 'NONE' },
    categories: { weather: { enabled: true, channels: ['push'], minPriority: 'HIGH' } },
    frequency: {
      maxPerHour: 20,
      maxPerDay: 100,
      digestEnabled: true,
      digestFrequency: 'WEEKLY',
      digestTime: '18:30',
      digestWeekday: 0,
      instantAlerts: ['trading.risk_warning'],
      batchableEvents: ['trading.*'],
    },
    quietHours: {
      enabled: true,
      startTime: '23:00',
      endTime: '06:30',
      timezone: 'America/New_York',
      weekdays: [0, 6],
      exceptions: ['auth.*'],
      allowCritical: false,
    },
    minPriority: 'NORMAL',
    language: 'de',
    timezone: 'Europe/Zurich',
  }
  const written = await call('PUT', '/api/preferences/alice', said)
  const { channels, lastUpdated, ...rest } = written
  const topics = { ...said.topics, customTopics: {} }
  assert.deepEqual({ ...rest, channels }, { ...said, userId: 'alice', mutedUntil: null, topics, channels })
  assert.deepEqual(channels.email, said.channels.email)
  assert.ok(lastUpdated > fresh.lastUpdated)
  const again = await call('PUT', '/api/preferences/alice', written)
  assert.deepEqual({ ...again, lastUpdated }, written)

  const off = await call('PUT', '/api/preferences/alice', {
    frequency: null,
    quietHours: null,
    minPriority: null,
  })
  assert.deepEqual(off.frequency, fresh.frequency)
  assert.deepEqual(off.quietHours, { ...fresh.quietHours, timezone: 'Europe/Zurich' })
})

// covers: ALP-126, AUR-139
test('what is wrong is refused with its field and reason, and nothing is written', async () => {
  await person('wrong')
  const opinions = '/api/preferences/wrong/opinions'
  const aura = '/api/notifications/preferences?userId=wrong'
  const inMinutes = (minutes: number) => new Date(NOW.getTime() + minutes * 60_000).toISOString()
  const quiet = { enabled: true, startTime: '22:00', endTime: '07:00' }
  for (const [method, url, body, code, field] of [
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { startTime: '25:00' } },
      'invalid_request',
      '/quietHours/startTime',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { timezone: 'Mars/Base' } },
      'invalid_schedule',
      '/quietHours/timezone',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { weekdays: [7] } },
      'invalid_request',
      '/quietHours/weekdays/0',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { weekdays: [] } },
      'invalid_schedule',
      '/quietHours/weekdays',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { exceptions: ['a b'] } },
      'invalid_schedule',
      '/quietHours/exceptions/0',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { quietHours: { startTime: '00:00', endTime: '24:00' } },
      'invalid_schedule',
      '/quietHours/endTime',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { frequency: { maxPerHour: -1 } },
      'invalid_request',
      '/frequency/maxPerHour',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { frequency: { digestWeekday: 1 } },
      'invalid_schedule',
      '/frequency/digestWeekday',
    ],
    ['PUT', '/api/preferences/wrong', { channels: { fax: {} } }, 'invalid_request', '/channels/fax'],
    [
      'PUT',
      '/api/preferences/wrong',
      { channels: { email: { preferences: { spam: true } } } },
      'invalid_request',
      '/channels/email/preferences/spam',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { categories: { x: { channels: ['fax'] } } },
      'invalid_request',
      '/categories/x/channels/0',
    ],
    [
      'PUT',
      '/api/preferences/wrong',
      { categories: { x: { channels: [] } } },
      'invalid_request',
      '/categories/x/channels',
    ],
    ['PUT', '/api/preferences/wrong', { minPriority: 'SOON' }, 'invalid_request', '/minPriority'],
    ['PUT', '/api/preferences/wrong', { timezone: 'Nowhere' }, 'invalid_schedule', '/timezone'],
    [
      'PUT',
      '/api/preferences/wrong/quiet-hours',
      { ...quiet, timezone: 'Nowhere' },
      'invalid_schedule',
      '/timezone',
    ],
    ['POST', '/api/preferences/wrong/channels', { channel: 'fax' }, 'invalid_request', '/channel'],
    [
      'POST',
      '/api/preferences/wrong/channels',
      { channel: 'email', address: 'x' },
      'invalid_address',
      '/address',
    ],
    ['PUT', '/api/preferences/wrong/mute', { until: inMinutes(-1) }, 'invalid_request', '/until'],
    ['PUT', '/api/preferences/wrong/mute', { until: inMinutes(60 * 24 * 400) }, 'invalid_request', '/until'],
    [
      'PUT',
      '/api/preferences/wrong/mute',
      { until: inMinutes(5), scope: 'class:spam' },
      'invalid_request',
      '/scope',
    ],
    [
      'PUT',
      '/api/preferences/wrong/mute',
      { until: inMinutes(5), scope: 'everything' },
      'invalid_request',
      '/scope',
    ],
    ['POST', '/api/preferences/wrong/sync', {}, 'invalid_request', '/lastUpdated'],
    ['PUT', '/api/users/wrong/preferences', { channels: { fax: {} } }, 'invalid_request', '/channels/fax'],
    [
      'PUT',
      '/api/users/wrong/preferences',
      { quietHours: { weekdays: [1] } },
      'invalid_request',
      '/quietHours/weekdays',
    ],
    [
      'PUT',
      '/api/users/wrong/preferences',
      { categories: { x: { MinPriority: 'HIGH' } } },
      'invalid_request',
      '/categories/x/MinPriority',
    ],
    ['PUT', aura, { channel: 'fax', settings: { enabled: true } }, 'invalid_request', '/channel'],
    [
      'PUT',
      aura,
      { channel: 'sms', settings: { enabled: true, maxPerDay: -1 } },
      'invalid_request',
      '/settings/maxPerDay',
    ],
    [
      'PUT',
      aura,
      { channel: 'sms', settings: { enabled: true, priorityThreshold: 11 } },
      'invalid_request',
      '/settings/priorityThreshold',
    ],
    [
      'PUT',
      aura,
      {
        channel: 'sms',
        settings: {
          enabled: true,
          quietHours: { enabled: true, start: '7:00', end: '08:00', timezone: 'UTC' },
        },
      },
      'invalid_request',
      '/settings/quietHours/start',
    ],
    [
      'PUT',
      aura,
      {
        channel: 'sms',
        settings: {
          enabled: true,
          quietHours: { enabled: true, start: '22:00', end: '08:00', timezone: 'Nowhere' },
        },
      },
      'invalid_schedule',
      '/settings/quietHours/timezone',
    ],
    ['PUT', opinions, { scope: 'topic_level:x', enabled: false }, 'invalid_request', '/scope'],
    [
      'PUT',
      opinions,
      { scope: 'rule:x', channel: 'email', channels: ['email'] },
      'invalid_request',
      '/channels',
    ],
    ['PUT', opinions, { scope: '', channels: ['email'] }, 'invalid_request', '/channels'],
    ['PUT', opinions, { scope: 'rule:x', mode: 'REQUIRED' }, 'invalid_request', '/mode'],
    [
      'PUT',
      opinions,
      { scope: 'rule:x', digest: { enabled: true, frequency: 'daily', weekday: 1 } },
      'invalid_schedule',
      '/digest/weekday',
    ],
    [
      'PUT',
      opinions,
      { scope: 'rule:x', digest: { enabled: true, frequency: 'hourly', at: '09:00' } },
      'invalid_schedule',
      '/digest/at',
    ],
    [
      'PUT',
      opinions,
      { scope: 'rule:x', deliveryWindows: [{ start: '08:00', end: '08:00' }] },
      'invalid_schedule',
      '/deliveryWindows/0/end',
    ],
    [
      'PUT',
      opinions,
      { scope: 'rule:x', quietHours: { enabled: true, start: '22:00', end: '08:00', timezone: 'X' } },
      'invalid_schedule',
      '/quietHours/timezone',
    ],
    [
      'POST',
      '/api/preferences/evaluate',
      { userId: 'wrong', priority: 'SOON' },
      'invalid_request',
      '/priority',
    ],
    [
      'POST',
      '/api/users/wrong/consents',
      { granted: true, origin: 'x', scope: 'class:alerts' },
      'invalid_request',
      '/scope',
    ],
    [
      'POST',
      '/api/users/wrong/consents',
      { granted: true, origin: 'x', at: inMinutes(1) },
      'invalid_request',
      '/at',
    ],
    [
      'POST',
      '/api/users/wrong/consents',
      { granted: true, origin: 'x', evidence: { text: 'y'.repeat(5000) } },
      'invalid_request',
      '/evidence',
    ],
  ] as const) {
    const problem = await call(method, url, body, { status: 400 })
    assert.deepEqual([problem.code, problem.errors?.[0]?.field], [code, field], JSON.stringify(body))
    assert.ok(problem.errors[0].message.length > 0)
  }
  assert.deepEqual((await call('GET', '/api/preferences/wrong/opinions')).items, [])
  for (const [scope, mode] of [
    ['class:marketing', 'REQUIRED'],
    ['category:Marketing', 'REQUIRED'],
  ]) {
    const body = { scope, mode }
    const problem = await call('PUT', '/api/preferences/defaults/opinions', body, {
      as: t.tenant.adminKey,
      status: 400,
    })
    assert.equal(problem.errors[0].field, '/mode')
  }
})

// covers: ALP-115, ALP-116, ALP-117, ALP-133
test('channels, subscriptions and quiet hours have paths of their own', async () => {
  await person('bob')
  const channel = await call('POST', '/api/preferences/bob/channels', {
    channel: 'EMAIL',
    address: 'bob@example.org',
    enabled: false,
    preferences: { social: false },
  })
  assert.deepEqual(channel, {
    channel: 'email',
    enabled: false,
    address: 'bob@example.org',
    verificationStatus: 'PENDING',
    preferences: { marketing: false, transactional: true, alerts: true, social: false },
  })
  const { channels } = await call('GET', '/api/preferences/bob')
  assert.deepEqual({ channel: 'email', ...channels.email }, channel)

  const topics = { trading: 'IMPORTANT', customTopics: {} }
  assert.deepEqual(await call('PUT', '/api/preferences/bob/subscriptions', { trading: 'IMPORTANT' }), topics)
  assert.deepEqual(await call('GET', '/api/preferences/bob/subscriptions'), topics)
  assert.deepEqual((await call('GET', '/api/preferences/bob')).topics, topics)

  const quiet = await call('PUT', '/api/preferences/bob/quiet-hours', { enabled: true, endTime: '07:00' })
  assert.deepEqual([quiet.enabled, quiet.startTime, quiet.endTime], [true, '22:00', '07:00'])
  assert.deepEqual((await call('GET', '/api/preferences/bob')).quietHours, quiet)
})

// covers: PRO-073, PRO-074, PRO-081
test('triage sees and changes the same preferences in its own words', async () => {
  await person('tria', { timezone: 'Europe/Lisbon' })
  const path = '/v3/proactive/preferences?userId=tria'
  assert.deepEqual(await call('GET', path), {
    enabled: true,
    minUrgency: 'LOW',
    quietHours: {
      enabled: false,
      start: '22:00',
      end: '07:00',
      timezone: 'Europe/Lisbon',
      allowCritical: true,
    },
    batchIntervalMinutes: null,
    channels: { in_app: true, email: true, push: true, web_push: true, sms: true },
  })
  const changed = await call('PATCH', path, {
    minUrgency: 'MEDIUM',
    quietHours: { enabled: true, start: '21:00', end: '06:30', allowCritical: false },
    batchIntervalMinutes: 30,
    channels: { sms: false },
  })
  assert.deepEqual([changed.minUrgency, changed.batchIntervalMinutes], ['NORMAL', 30])
  assert.deepEqual([changed.channels.sms, changed.channels.email], [false, true])
  // What it leaves out stays, and every other surface shows it.
  const off = await call('PATCH', path, { enabled: false })
  assert.deepEqual({ ...off, enabled: true }, changed)
  const elsewhere = await call('GET', '/api/preferences/tria')
  assert.equal(elsewhere.globalEnabled, false)
  assert.equal(elsewhere.channels.sms.enabled, false)
  assert.deepEqual(
    [elsewhere.quietHours.enabled, elsewhere.quietHours.startTime, elsewhere.quietHours.endTime],
    [true, '21:00', '06:30'],
  )
  const back = await call('PATCH', path, { enabled: null, minUrgency: null, batchIntervalMinutes: null })
  assert.deepEqual([back.enabled, back.minUrgency, back.batchIntervalMinutes], [true, 'LOW', null])
})

// covers: PFM-221
test('changes to different things at the same moment are all kept', async () => {
  await person('busy')
  const channels = ['email', 'sms', 'push', 'webhook', 'slack', 'whatsapp']
  await Promise.all([
    ...channels.map(channel => call('POST', '/api/preferences/busy/channels', { channel, enabled: false })),
    call('PUT', '/api/preferences/busy/subscriptions', { trading: 'IMPORTANT' }),
    call('PUT', '/api/preferences/busy/quiet-hours', { enabled: true, endTime: '07:00' }),
    call('PUT', '/api/preferences/busy', { frequency: { maxPerHour: 3 } }),
  ])
  const kept = await call('GET', '/api/preferences/busy')
  for (const channel of channels) assert.equal(kept.channels[channel].enabled, false, channel)
  assert.equal(kept.topics.trading, 'IMPORTANT')
  assert.deepEqual([kept.quietHours.enabled, kept.quietHours.endTime], [true, '07:00'])
  assert.equal(kept.frequency.maxPerHour, 3)
})

// covers: ALP-118, ALP-132
test('of two copies the one that was changed later wins', async () => {
  await person('carol')
  const { lastUpdated } = await call('PUT', '/api/preferences/carol', { minPriority: 'HIGH' })
  const sync = (at: string, body: object) =>
    call('POST', '/api/preferences/carol/sync', { ...body, lastUpdated: at })
  const older = await sync(new Date(Date.parse(lastUpdated) - 1000).toISOString(), { globalEnabled: false })
  assert.equal(older.accepted, false)
  assert.deepEqual(older.preferences, await call('GET', '/api/preferences/carol'))
  assert.equal(older.preferences.globalEnabled, true)
  const same = await sync(lastUpdated, { globalEnabled: false })
  assert.equal(same.accepted, false)
})

// covers: ALP-132
test('a newer copy is taken, and a clock that is ahead does not win for ever', async () => {
  // What is stored was changed before the test's clock, the client's copy after it.
  await person('dora')
  await t.db.pool.query(
    `update users set updated_at = '2026-01-01', created_at = '2026-01-01' where user_id = 'dora'`,
  )
  const sync = (at: string, body: object) =>
    call('POST', '/api/preferences/dora/sync', { ...body, lastUpdated: at })
  const newer = await sync('2026-06-01T00:00:00Z', {
    minPriority: 'HIGH',
    channels: { sms: { enabled: false } },
  })
  assert.equal(newer.accepted, true)
  assert.equal(newer.preferences.minPriority, 'HIGH')
  assert.equal(newer.preferences.channels.sms.enabled, false)
  assert.deepEqual(newer.preferences, await call('GET', '/api/preferences/dora'))

  await t.db.pool.query(`update preferences set updated_at = '2026-11-21T12:00:01Z' where user_id = 'dora'`)
  await t.db.pool.query(`update users set updated_at = '2026-01-01' where user_id = 'dora'`)
  const ahead = await sync('2099-01-01T00:00:00Z', { minPriority: 'LOW' })
  assert.equal(ahead.accepted, false, 'it counts as changed now, and the server was changed a second later')
})

// covers: DIC-079, DIC-080, DIC-081, DIC-083, DIC-150
test('the profile shows and writes the same preferences', async () => {
  await person('dan', { timezone: 'Europe/Berlin', locale: 'de' })
  const profile = {
    enabled: true,
    timezone: 'Europe/Paris',
    locale: 'fr',
    channels: { email: { enabled: true, address: 'dan@example.org' }, sms: { enabled: false } },
    quietHours: {
      enabled: true,
      startTime: '22:00',
      endTime: '08:00',
      timezone: 'Europe/Paris',
      allowCritical: true,
    },
    categories: { billing: { enabled: true, channels: ['email'], minPriority: 'HIGH' } },
  }
  const { channels, ...rest } = await call('PUT', '/api/users/dan/preferences', profile)
  assert.deepEqual(rest, { ...rest, userId: 'dan', enabled: true, timezone: 'Europe/Paris', locale: 'fr' })
  assert.deepEqual(rest.quietHours, profile.quietHours)
  assert.deepEqual(rest.categories, profile.categories)
  assert.deepEqual(channels.email, profile.channels.email)
  assert.deepEqual(channels.sms, { enabled: false })

  const { preferences } = await call('PUT', '/api/preferences/dan', {
    globalEnabled: false,
    categories: { billing: null },
  }).then(async () => ({ preferences: await call('GET', '/api/users/dan/preferences') }))
  assert.equal(preferences.enabled, false)
  assert.deepEqual(preferences.categories, {})
})

// covers: AUR-016, AUR-017, AUR-081, AUR-098, AUR-137, AUR-138, AUR-145
test('channel by channel, of everything and by aura: absent rows give defaults, and an aura overrides', async () => {
  await person('eve', { timezone: 'Asia/Tokyo' })
  const as = await t.tenant.token('eve')
  const path = '/api/notifications/preferences'
  const fresh = await call('GET', path, undefined, { as })
  assert.deepEqual(fresh.byAura, {})
  assert.deepEqual(
    fresh.global.map((one: { channel: string }) => one.channel),
    ['in_app', 'web_push', 'sms', 'whatsapp', 'email'],
  )
  assert.deepEqual(fresh.global[2], {
    id: null,
    userId: 'eve',
    auraId: null,
    channel: 'sms',
    enabled: true,
    quietHours: { enabled: false, start: '22:00', end: '07:00', timezone: 'Asia/Tokyo' },
    maxPerDay: null,
    priorityThreshold: 5,
    createdAt: null,
    updatedAt: null,
  })

  const quietHours = { enabled: true, start: '22:00', end: '07:00', timezone: 'Europe/Berlin' }
  const one = await call(
    'PUT',
    path,
    { channel: 'sms', settings: { enabled: false, quietHours, maxPerDay: 3, priorityThreshold: 7 } },
    { as },
  )
  assert.deepEqual(
    { ...one, id: null, createdAt: null, updatedAt: null },
    { ...fresh.global[2], enabled: false, quietHours, maxPerDay: 3, priorityThreshold: 7 },
  )
  await call('PUT', path, { auraId: 'a1', channel: 'sms', settings: { enabled: true } }, { as })
  const shown = await call('GET', path, undefined, { as })
  assert.deepEqual(shown.global[2], one)
  assert.deepEqual(Object.keys(shown.byAura), ['a1'])
  const [aura] = shown.byAura.a1
  assert.deepEqual(
    [aura.auraId, aura.enabled, aura.priorityThreshold, aura.quietHours],
    ['a1', true, 7, quietHours],
    'what the aura does not say holds from the whole',
  )
  const again = await call(
    'PUT',
    path,
    { channel: 'sms', settings: { enabled: false, maxPerDay: null } },
    { as },
  )
  assert.deepEqual([again.id, again.maxPerDay, again.priorityThreshold], [one.id, null, 7])

  // The same, at the other surfaces.
  assert.equal((await call('GET', '/api/preferences/eve')).channels.sms.enabled, false)
  assert.equal((await evaluate({ userId: 'eve', channel: 'sms' })).layer, 'user:sms')
  assert.equal((await evaluate({ userId: 'eve', channel: 'sms', auraId: 'a1' })).layer, 'user:aura:a1:sms')
  assert.equal((await evaluate({ userId: 'eve', channel: 'sms', auraId: 'a2' })).enabled, false)

  assert.deepEqual(Object.keys((await call('GET', `${path}?auraId=a2`, undefined, { as })).byAura), [])
  await call('GET', path, undefined, { status: 400 })
  await call('GET', `${path}?userId=eve`)
  await call('GET', `${path}?userId=dan`, undefined, { as, status: 403 })
})

// covers: DIC-081, AUR-079, AUR-080, AUR-082, ALP-124
test('evaluating says what would happen, on which word, and why', async () => {
  await person('fay', { timezone: 'Europe/Berlin' })
  const as = t.tenant.adminKey
  const notification = { userId: 'fay', category: 'weather', eventType: 'weather.rain', priority: 'MEDIUM' }
  const quiet = await evaluate(notification)
  assert.deepEqual(
    [quiet.outcome, quiet.reason, quiet.layer, quiet.settings, quiet.caps],
    ['send', null, 'built_in', [], []],
  )
  await call('PUT', '/api/preferences/fay', {
    quietHours: { enabled: true, startTime: '22:00', endTime: '07:00' },
    frequency: { maxPerDay: 9 },
  })
  const night = { ...notification, at: '2026-11-21T22:30:00Z' }
  const held = await evaluate(night)
  assert.deepEqual(
    [held.outcome, held.reason, held.detail, held.until],
    ['hold', 'quiet_hours', 'user:global', '2026-11-22T06:00:00.000Z'],
  )
  assert.deepEqual(held.caps, [{ window: 'day', max: 9, scope: '', channel: null, layer: 'user:global' }])
  assert.equal((await evaluate({ ...night, priority: 'CRITICAL' })).outcome, 'send')
  assert.equal((await evaluate({ ...night, channel: 'in_app' })).outcome, 'send')

  await call('PUT', '/api/preferences/fay/opinions', { scope: 'category:weather', minPriority: 'HIGH' })
  const least = await evaluate(notification)
  assert.deepEqual(
    [least.outcome, least.reason, least.detail],
    ['skip', 'below_minimum_priority', 'user:category:weather from HIGH'],
  )
  assert.deepEqual(
    least.settings.find((one: { name: string }) => one.name === 'minPriority'),
    { name: 'minPriority', value: 'HIGH', layer: 'user:category:weather' },
  )
  assert.equal((await evaluate({ ...notification, priority: 'high' })).outcome, 'send')
  assert.equal((await evaluate({ ...notification, category: 'news' })).outcome, 'send')
  assert.equal(
    (await evaluate({ ...notification, category: 'news', score: 4 })).reason,
    'below_minimum_priority',
  )
  await call('DELETE', '/api/preferences/fay/opinions?scope=category:weather')
  assert.equal((await evaluate(notification)).outcome, 'send')
  await call('DELETE', '/api/preferences/fay/opinions?scope=category:weather', undefined, { status: 404 })

  await call(
    'PUT',
    '/api/preferences/defaults/opinions',
    { scope: 'category:security', mode: 'REQUIRED' },
    { as },
  )
  await call('PUT', '/api/preferences/fay', { globalEnabled: false })
  const owed = await evaluate({ userId: 'fay', category: 'security' })
  assert.deepEqual([owed.outcome, owed.required, owed.layer], ['send', true, 'tenant:category:security'])
  const off = await evaluate({ ...notification, priority: 'CRITICAL' })
  assert.deepEqual([off.outcome, off.reason, off.layer], ['skip', 'preference_global_off', 'user:global'])
  await call('PUT', '/api/preferences/fay', {
    globalEnabled: true,
    frequency: { digestEnabled: true, digestFrequency: 'DAILY' },
  })
  const digest = await evaluate(notification)
  assert.deepEqual([digest.outcome, digest.frequency, digest.detail], ['digest', 'daily', 'user:global'])

  const { items } = await call('GET', '/api/preferences/defaults/opinions')
  assert.deepEqual(
    items.map((one: { scope: string; mode: string }) => [one.scope, one.mode]),
    [['category:security', 'REQUIRED']],
  )
  await call('DELETE', '/api/preferences/defaults/opinions?scope=category:security', undefined, { as })
  assert.deepEqual((await call('GET', '/api/preferences/defaults/opinions')).items, [])
  const all = await call('POST', '/api/preferences/evaluate', { userId: 'fay', category: 'COMMUNITY' })
  assert.equal(all.class, 'social')
  assert.ok(all.channels.length >= 10)
  assert.deepEqual(all.scopes, [
    'topic_level:COMMUNITY',
    'topic_level:community',
    'category:COMMUNITY',
    'class:social',
  ])
  await call('POST', '/api/preferences/evaluate', { userId: 'unheard-of' }, { status: 404 })
})

test('a mute holds until its time, and ends when it is taken back', async () => {
  await person('gus')
  const as = await t.tenant.token('gus')
  const until = '2026-11-21T13:00:00.000Z'
  assert.deepEqual(await call('PUT', '/api/preferences/gus/mute', { until, scope: 'aura:a1' }, { as }), {
    scope: 'aura:a1',
    channel: null,
    mutedUntil: until,
  })
  const aura = { userId: 'gus', auraId: 'a1' }
  const muted = await evaluate(aura)
  assert.deepEqual([muted.outcome, muted.reason], ['skip', 'muted'])
  assert.equal((await evaluate({ ...aura, at: until })).outcome, 'send')
  assert.equal((await evaluate({ userId: 'gus' })).outcome, 'send')
  await call('DELETE', '/api/preferences/gus/mute?scope=aura:a1', undefined, { as })
  assert.equal((await evaluate(aura)).outcome, 'send')
  await call('PUT', '/api/preferences/gus/mute', { until }, { as })
  assert.equal((await call('GET', '/api/preferences/gus')).mutedUntil, until)
  await call('DELETE', '/api/preferences/gus/mute', undefined, { as })
  assert.equal((await call('GET', '/api/preferences/gus')).mutedUntil, null)
  await t.db.pool.query(
    `update preferences set settings = '{"mutedUntil": "2026-11-21T11:59:59Z"}' where user_id = 'gus'`,
  )
  assert.equal((await call('GET', '/api/preferences/gus')).mutedUntil, null, 'one that is over is no mute')
})

// covers: DIC-185, DIC-186, DIC-187, AUR-181
test('consent: asked for, given, recorded with who, when and where, and withdrawn', async () => {
  await person('hal')
  const as = await t.tenant.token('hal')
  const offer = { userId: 'hal', category: 'MARKETING', eventType: 'shop.sale' }
  assert.equal((await evaluate(offer)).reason, 'no_consent')
  await call(
    'PUT',
    '/api/preferences/hal',
    { channels: { email: { preferences: { marketing: true } } } },
    { as },
  )
  assert.equal((await evaluate(offer)).outcome, 'send')
  assert.equal((await evaluate({ ...offer, channel: 'sms' })).reason, 'no_consent')

  // A later receipt from elsewhere moves the switch, an earlier one is kept and moves nothing.
  const subject = { scope: 'class:marketing', channel: 'email' }
  await t.db.pool.query(`update consents set at = '2026-11-20' where user_id = 'hal'`)
  const earlier = { ...subject, granted: false, at: '2026-11-01T00:00:00Z', origin: 'import of the old shop' }
  await call('POST', '/api/users/hal/consents', earlier, { status: 201 })
  assert.equal((await evaluate(offer)).outcome, 'send')
  const withdrawn = { ...subject, granted: false, origin: 'call centre', evidence: { ticket: 'T-1' } }
  await call('POST', '/api/users/hal/consents', withdrawn, { status: 201 })
  assert.equal((await evaluate(offer)).reason, 'preference_category_off')

  const { items } = await call('GET', '/api/users/hal/consents', undefined, { as })
  assert.deepEqual(
    items.map(({ id: _, actor, ...one }: { id: string; actor: string }) => ({
      ...one,
      actor: actor.split(':')[0],
    })),
    [
      {
        userId: 'hal',
        at: NOW.toISOString(),
        subject: 'class:marketing:email',
        oldValue: { enabled: true },
        newValue: { enabled: false, evidence: { ticket: 'T-1' } },
        origin: 'call centre',
        actor: 'key',
      },
      {
        userId: 'hal',
        at: '2026-11-01T00:00:00.000Z',
        subject: 'class:marketing:email',
        oldValue: { enabled: true },
        newValue: { enabled: false },
        origin: 'import of the old shop',
        actor: 'key',
      },
      {
        userId: 'hal',
        at: '2026-11-20T00:00:00.000Z',
        subject: 'class:marketing:email',
        oldValue: { enabled: null },
        newValue: { enabled: true },
        origin: 'PUT /api/preferences/:userId',
        actor: 'user',
      },
    ],
  )
  const page = await call('GET', '/api/users/hal/consents?limit=2', undefined, { as })
  assert.equal(page.items.length, 2)
  const rest = await call('GET', `/api/users/hal/consents?limit=2&cursor=${page.nextCursor}`, undefined, {
    as,
  })
  assert.deepEqual([...page.items, ...rest.items], items)
  assert.equal(rest.nextCursor, null)
  assert.deepEqual((await call('GET', '/api/users/hal/consents?subject=global', undefined, { as })).items, [])
  await call('GET', '/api/users/nobody/consents', undefined, { status: 404 })
  await call('POST', '/api/users/hal/consents', withdrawn, { as, status: 403 })
})

test('a tenant may say that marketing needs no consent of its own', async () => {
  await person('ida')
  const as = t.tenant.adminKey
  const offer = { userId: 'ida', category: 'MARKETING' }
  await call(
    'PUT',
    '/api/preferences/defaults/opinions',
    { scope: 'class:marketing', mode: 'OPTED_IN' },
    { as },
  )
  assert.deepEqual((await evaluate(offer)).layer, 'tenant:class:marketing')
  await call('PUT', '/api/preferences/ida/opinions', { scope: 'class:marketing', enabled: false })
  assert.equal((await evaluate(offer)).reason, 'preference_category_off')
  await call('DELETE', '/api/preferences/defaults/opinions?scope=class:marketing', undefined, { as })
})

test('law: evaluating waits exactly when deciding does', () => {
  const time = fc.constantFrom('00:00', '06:30', '12:00', '18:00', '22:00')
  const quiet = fc.record({
    enabled: fc.boolean(),
    start: time,
    end: time,
    allowCritical: fc.boolean(),
    exceptions: fc.subarray(['weather.*', 'rain', 'x']),
  })
  const windows = fc.array(
    fc.record({ start: fc.constant('09:00'), end: fc.constantFrom('10:00', '20:00') }),
    {
      maxLength: 2,
    },
  )
  fc.assert(
    fc.property(
      fc.record(
        { quietHours: quiet, deliveryWindows: windows, quietAppliesToInApp: fc.boolean() },
        { requiredKeys: [] },
      ),
      fc.constantFrom('email' as const, 'in_app' as const),
      fc.constantFrom(...PRIORITIES),
      fc.integer({ min: 0, max: 47 }),
      (settings, channel, priority, halfHours) => {
        const at = new Date(Date.UTC(2026, 10, 21, 0, halfHours * 30))
        const about = { channel, priority, eventType: 'weather.rain' }
        const rows = [{ scope: '', channel: null, enabled: null, settings }]
        const preference = effectivePreference(rows, [], { ...about, scopes: [] })
        const { outcome, reason, until } = weigh(preference, { ...about, score: null, zone: 'UTC' }, at)
        const candidate = { ...about, preference, policy: {}, event: { type: 'weather.rain' }, zone: 'UTC' }
        const held =
          quietHours(candidate as unknown as Candidate, at) ??
          deliveryWindow(candidate as unknown as Candidate, at)
        assert.equal(outcome, held === null ? 'send' : 'hold')
        if (held?.kind === 'hold') assert.deepEqual([reason, until], [held.reason, held.until])
      },
    ),
  )
})
