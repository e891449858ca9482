import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from '../db/pool.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { windowOf } from '../time/window.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  for (const name of ['ann', 'bob']) {
    await call('PUT', `/api/users/${name}`, {
      timezone: 'Asia/Tokyo',
      addresses: [
        { channel: 'email', address: `${name}@example.org`, verified: true },
        { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
      ],
    })
  }
})
after(() => t.stop())
const ask = (method: string, path: string, body?: unknown, as = t.tenant.adminKey) =>
  t.call(method, path, { as, body })
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await ask(method, path, body)
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const send = (recipientId: string, more: object = {}) =>
  call('POST', '/api/notifications', { recipientId, channels: ['email'], body: 'Hi', ...more })
const limit = (name: string, more: object) =>
  call('POST', '/api/limits', { name, scope: 'user', window: 'month', max: 3, categories: [name], ...more })
const named = (items: Loose[], name: string): Loose => items.find(one => one.name === name)
const lift = async () => {
  for (const { id } of (await call('GET', '/api/limits?limit=100')).items) {
    assert.equal((await ask('DELETE', `/api/limits/${id}`)).status, 204)
  }
}

// covers: ALP-146, ALP-152, PFM-023, PFM-140, PFM-141, PFM-146
test('what bounds a reader is shown with its window and count, the same as what deciding counts', async () => {
  await limit('news', { max: 2, window: 'day' })
  await limit('each channel', { scope: 'user_channel', categories: [], max: 9 })
  await limit('pause', { window: 'gap', max: undefined, gapSeconds: 3_600, categories: ['slow'] })
  await limit('everybody', { scope: 'tenant' })
  await limit('of a plan', { tiers: ['family'] })
  const before = new Date()
  for (const category of ['news', 'news', 'news', 'slow']) await send('ann', { category })
  const { items } = await call('GET', '/api/rate-limits/ann')
  assert.deepEqual(
    items.map((one: Loose) => [one.name, one.channel, one.limitType, one.maxCount, one.currentCount]),
    [
      ['news', null, 'PER_DAY', 2, 2],
      ['each channel', 'email', 'PER_MONTH', 9, 4],
      ['each channel', 'webhook', 'PER_MONTH', 9, 0],
      ['pause', null, 'MINIMUM_GAP', 1, 1],
    ],
  )
  const news = named(items, 'news')
  assert.deepEqual([news.remaining, news.userId, news.isActive, news.source], [0, 'ann', true, 'limit'])
  // A day of the reader's own zone.
  const day = [before, new Date()].map(at => windowOf('day', 'Asia/Tokyo', at.getTime()))
  assert.ok(day.some(({ start }) => news.windowStart === new Date(start).toISOString()))
  assert.ok(day.some(({ end }) => news.resetTime === new Date(end).toISOString()))
  const pause = named(items, 'pause')
  assert.equal(Date.parse(pause.resetTime) - Date.parse(pause.windowStart), 3_600_000)
  const other = await call('GET', '/api/rate-limits/bob')
  assert.equal(named(other.items, 'news').currentCount, 0)
  await lift()
})

// covers: ALP-147, ALP-123, PFM-144, PFM-132
test('own limits are preferences, whichever surface sets them; zero is none at all', async () => {
  const put = await call('PUT', '/api/rate-limits/bob', {
    limits: [
      { limitType: 'PER_DAY', maxCount: 7 },
      { limitType: 'PER_HOUR', channel: 'email', maxCount: 0 },
    ],
  })
  assert.deepEqual(
    put.items.map((one: Loose) => [one.source, one.channel, one.limitType, one.maxCount, one.currentCount]),
    [
      ['preference', null, 'PER_DAY', 7, 0],
      ['preference', 'email', 'PER_HOUR', 0, 0],
    ],
  )
  const preferences = await call('GET', '/api/preferences/bob')
  assert.equal(preferences.frequency.maxPerDay, 7)
  const none = await call('POST', '/api/rate-limits/check', { userId: 'bob', channel: 'email' })
  assert.deepEqual([none.allowed, none.decision, none.reason], [false, 'skip', 'over_limit'])
  const some = await call('POST', '/api/rate-limits/check', { userId: 'bob', channel: 'webhook' })
  assert.deepEqual([some.allowed, some.decision, some.reason], [true, 'send', null])
  await send('bob', { channels: ['webhook'] })
  const { items } = await call('GET', '/api/rate-limits/bob')
  assert.deepEqual(
    items.map((one: Loose) => one.currentCount),
    [1, 0],
  )
  await call('PUT', '/api/preferences/bob', { frequency: { maxPerDay: 8 } })
  await call('PUT', '/api/rate-limits/bob', {
    limits: [{ limitType: 'PER_HOUR', channel: 'email', maxCount: null }],
  })
  const after = await call('GET', '/api/rate-limits/bob')
  assert.deepEqual(
    after.items.map((one: Loose) => [one.limitType, one.maxCount]),
    [['PER_DAY', 8]],
  )
  await call('PUT', '/api/rate-limits/bob', { limits: [{ limitType: 'PER_DAY', maxCount: null }] })
})

// covers: ALP-150, ALP-155, ALP-157
test('global limits are shown and set by channel and window; global is nobody’s name', async () => {
  await limit('orders', { scope: 'category', categories: ['orders', 'bills'], max: 5 })
  await limit('any category', { scope: 'category', categories: [], max: 5 })
  const put = await call('PUT', '/api/rate-limits/global', {
    limits: [
      { channel: 'email', limitType: 'PER_MONTH', maxCount: 2 },
      { limitType: 'PER_DAY', maxCount: 1000 },
    ],
  })
  await send('ann', { category: 'orders' })
  await send('bob', { category: 'orders' })
  const { items } = await call('GET', '/api/rate-limits/global')
  assert.deepEqual(
    items.map((one: Loose) => [one.name, one.categories, one.channel, one.maxCount, one.currentCount]),
    [
      ['orders', ['orders'], null, 5, 2],
      ['orders', ['bills'], null, 5, 0],
      ['any category', [], null, 5, null],
      ['global: email per month', [], 'email', 2, 2],
      ['global: all per day', [], null, 1000, 2],
    ],
  )
  const held = await call('POST', '/api/rate-limits/check', { userId: 'ann', channel: 'email' })
  assert.deepEqual([held.decision, held.reason], ['hold', 'limit'])
  assert.equal(held.until, named(items, 'global: email per month').resetTime)
  // The same limit again, found by what it is: nothing is counted anew.
  const raised = await call('PUT', '/api/rate-limits/global', {
    limits: [
      { channel: 'email', limitType: 'PER_MONTH', maxCount: 3, isActive: true },
      { limitType: 'PER_DAY', maxCount: null },
    ],
  })
  const email = named(raised.items, 'global: email per month')
  assert.deepEqual(
    [email.id, email.maxCount, email.currentCount],
    [named(put.items, 'global: email per month').id, 3, 2],
  )
  assert.equal(named(raised.items, 'global: all per day'), undefined)
  await call('POST', '/api/limits', {
    name: 'another',
    scope: 'tenant',
    channels: ['email'],
    window: 'month',
    max: 9,
  })
  const several = await ask('PUT', '/api/rate-limits/global', {
    limits: [{ channel: 'email', limitType: 'PER_MONTH', maxCount: 4 }],
  })
  assert.deepEqual(
    [several.status, several.body.code, several.body.errors[0].field],
    [409, 'conflict', '/limits/0'],
  )
  assert.equal((await ask('PUT', '/api/users/global', {})).status, 400)
  assert.equal((await ask('PUT', '/api/rate-limits/global', { limits: [] })).status, 400)
  const service = await ask(
    'PUT',
    '/api/rate-limits/global',
    { limits: [{ limitType: 'PER_DAY', maxCount: 1 }] },
    t.tenant.serviceKey,
  )
  assert.equal(service.status, 403)
  await lift()
})

test('what readers of several zones share has one day for all of them', async () => {
  await call('PUT', '/api/users/west', {
    timezone: 'Pacific/Honolulu',
    addresses: [{ channel: 'email', address: 'west@example.org', verified: true }],
  })
  await limit('shared', { scope: 'tenant', window: 'day', max: 2 })
  for (const name of ['ann', 'west', 'ann']) await send(name, { category: 'shared' })
  const windows = sql(
    'test_windows',
    `select c.count::int as n, c.window_at as at from counters c join limits l on c.key = 'limit:' || l.id || ':' where l.name = 'shared' order by 2`,
  )
  const rows = await t.db.rows<{ n: number; at: Date }>(windows)
  assert.deepEqual(
    rows.map(({ n, at }) => [n, at.getUTCHours()]),
    [
      [2, 0],
      [1, 0],
    ],
  )
  await lift()
})

// covers: ALP-151
test('a reset begins the current windows anew, and leaves what waits where it is', async () => {
  await limit('news', { max: 1, window: 'day' })
  await limit('pause', { window: 'gap', max: undefined, gapSeconds: 3_600, categories: ['slow'] })
  for (const category of ['news', 'news', 'slow']) await send('ann', { category })
  const asked = (category: string) =>
    call('POST', '/api/rate-limits/check', { userId: 'ann', channel: 'email', category })
  assert.equal((await asked('news')).allowed, false)
  assert.equal((await asked('slow')).reason, 'minimum_gap')
  const reset = (body: object) => call('POST', '/api/rate-limits/reset', body)
  assert.deepEqual(await reset({ userId: 'bob' }), { reset: 0 })
  assert.deepEqual(await reset({ userId: 'ann', limitType: 'PER_HOUR' }), { reset: 0 })
  assert.deepEqual(await reset({ userId: 'ann', limitType: 'MINIMUM_GAP' }), { reset: 1 })
  assert.equal((await asked('slow')).allowed, true)
  assert.equal((await asked('news')).allowed, false)
  assert.deepEqual(await reset({ userId: 'ann' }), { reset: 1 })
  assert.equal((await asked('news')).allowed, true)
  await send('ann', { category: 'news' })
  // Today's place is taken again, and tomorrow's still is.
  const third = await send('ann', { category: 'news' })
  const why = await call('GET', `/api/events/${third.eventId}/explain`)
  const { until } = why.rules[0].recipients[0].decisions[0]
  assert.ok(Date.parse(until) - Date.now() > 86_400_000, until)
  assert.equal((await ask('POST', '/api/rate-limits/reset', { userId: 'ann', id: 'nothing' })).status, 404)
  assert.equal((await ask('POST', '/api/rate-limits/reset', {}, t.tenant.serviceKey)).status, 403)
  const shared = await limit('together', { scope: 'tenant', max: 1 })
  await send('ann', { category: 'together' })
  assert.deepEqual(await reset({ id: shared.id }), { reset: 1 })
  await lift()
})

// covers: ALP-148, ALP-149, ALP-152, ALP-154
test('quotas are the same limits by day, week and month: used by cost, checked, kept, begun anew', async () => {
  await limit('letters', {
    categories: [],
    channels: ['email', 'webhook'],
    max: 10,
    costs: { email: 3 },
    window: 'week',
  })
  await limit('mail', { categories: [], channels: ['email'], max: 100, window: 'month' })
  await limit('by the hour', { categories: [], window: 'hour' })
  await send('bob', { channels: ['email', 'webhook'] })
  await send('bob')
  const { items } = await call('GET', '/api/quotas/bob')
  assert.deepEqual(
    items.map((one: Loose) => [
      one.name,
      one.quotaType,
      one.periodType,
      one.maxQuota,
      one.usedQuota,
      one.remainingQuota,
      one.costPerUnit,
    ]),
    [
      ['letters', 'NOTIFICATIONS', 'WEEKLY', 10, 7, 3, 1],
      ['mail', 'EMAIL', 'MONTHLY', 100, 2, 98, 1],
    ],
  )
  const check = (more: object) =>
    call('POST', '/api/quotas/check', { userId: 'bob', channel: 'email', ...more })
  const one = await check({})
  assert.deepEqual([one.available, one.remainingUnits, one.resetDate], [true, 1, items[0].resetDate])
  const two = await check({ units: 2 })
  assert.deepEqual([two.available, two.quotas.map((quota: Loose) => quota.available)], [false, [false, true]])
  const cheap = await check({ units: 3, channel: 'webhook' })
  assert.deepEqual([cheap.available, cheap.remainingUnits], [true, 3])
  const critical = await check({ units: 1_000, priority: 'CRITICAL' })
  assert.deepEqual([critical.available, critical.remainingUnits], [true, null])
  assert.equal(
    named((await call('GET', '/api/quotas/bob')).items, 'letters').usedQuota,
    7,
    'nothing was used',
  )

  // The fourth mail of the week goes next week.
  for (let n = 0; n < 2; n++) await send('bob')
  const { items: past } = await call('GET', '/api/quotas/bob/history?periods=3')
  assert.deepEqual(
    named(past, 'letters').periods.map((period: Loose) => period.usedQuota),
    [3, 10],
  )
  assert.deepEqual(await call('POST', '/api/quotas/reset', { userId: 'bob', periodType: 'DAILY' }), {
    reset: 0,
  })
  assert.deepEqual(await call('POST', '/api/quotas/reset', { userId: 'bob', periodType: 'WEEKLY' }), {
    reset: 1,
  })
  assert.equal(named((await call('GET', '/api/quotas/bob')).items, 'letters').usedQuota, 0)

  await limit('of all', { scope: 'tenant', categories: [], max: 1_000 })
  const { items: all } = await call('GET', '/api/quotas/global')
  assert.deepEqual(
    all.map((quota: Loose) => [quota.name, quota.userId, quota.periodType]),
    [['of all', null, 'MONTHLY']],
  )
  assert.equal((await call('GET', '/api/quotas/global/history')).items[0].maxQuota, 1_000)
  await lift()
})

test('people see their own, and nobody else’s', async () => {
  const token = await t.tenant.token('ann')
  for (const path of ['/api/rate-limits/', '/api/quotas/']) {
    assert.equal((await ask('GET', `${path}ann`, undefined, token)).status, 200)
    assert.equal((await ask('GET', `${path}bob`, undefined, token)).status, 403)
    assert.equal((await ask('GET', `${path}nobody`)).status, 404)
    assert.equal((await ask('GET', `${path}global`, undefined, token)).status, 403)
  }
})

test('a bound on the inbox, which nothing counts, is shown like the others', async () => {
  await call('PUT', '/api/users/ina', {})
  await call('PUT', '/api/notifications/preferences?userId=ina', {
    channel: 'in_app',
    settings: { enabled: true, maxPerDay: 3 },
  })
  const { items } = await call('GET', '/api/rate-limits/ina')
  assert.ok(items.some((one: Loose) => one.channel === 'in_app' && one.maxCount === 3))
})
