import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { SET_NAMES, limitsOf } from './sets.ts'
import { MAX_LIMITS } from './store.ts'

/** One line for each limit, as a person would say it. */
const said = (set: (typeof SET_NAMES)[number]): Record<string, string> =>
  Object.fromEntries(
    limitsOf(set, {}).map(limit => {
      const { name, max, every, window, scope, channels, categories, tiers, criticalPasses } = limit
      const span = window === 'gap' ? `gap ${limit.gapSeconds} s` : `${max}/${every} ${window}`
      const whose = [...channels, ...categories, ...tiers].join(' ')
      return [
        name.slice(set.length + 2),
        `${span}, ${scope}: ${whose}${criticalPasses ? '' : ', nothing passes'}`,
      ]
    }),
  )

// covers: DIC-087, DIC-088, DIC-089, DIC-090, DIC-091, DIC-117
test('the set of dictamesh has its documented numbers', () => {
  assert.deepEqual(said('dictamesh'), {
    'user email': '100/1 hour, user: email',
    'user sms': '10/1 hour, user: sms',
    'user push': '50/1 hour, user: push',
    'all email': '10000/1 hour, tenant: email, nothing passes',
    'all sms': '1000/1 hour, tenant: sms, nothing passes',
    'all slack': '100/1 minute, tenant: slack, nothing passes',
    'slack channel': 'gap 1 s, address: slack, nothing passes',
    marketing: '5/1 day, user: marketing',
    transactional: '1000/1 hour, category: transactional',
  })
})

// covers: PFM-139
test('the set of pfm: ten an hour and fifty a day, for each person and channel', () => {
  assert.deepEqual(said('pfm'), { hour: '10/1 hour, user_channel: ', day: '50/1 day, user_channel: ' })
})

// The 20,000 a minute of the inbox bound nobody here: what is in-app is stored whatever limits say.
// covers: ALP-156, ALP-158
test('the set of alphintra has its documented numbers', () => {
  assert.deepEqual(said('alphintra'), {
    'all email': '1000/1 minute, tenant: email, nothing passes',
    'all sms': '100/1 minute, tenant: sms, nothing passes',
    'all push': '5000/1 minute, tenant: push, nothing passes',
    'all webhook': '1000/1 minute, tenant: webhook, nothing passes',
    'user hour': '20/1 hour, user: ',
    'user day': '100/1 day, user: ',
    'same content': '5/10 minute, content: ',
    flood: '100/1 minute, user: ',
  })
})

// covers: AUR-084, AUR-085, AUR-087, AUR-088, AUR-095, AUR-096
test('the set of aura has its documented numbers', () => {
  const none = (tier: string, channels: string) => `0/1 day, tenant: ${channels} ${tier}, nothing passes`
  assert.deepEqual(said('aura'), {
    'channels of free': none('free', 'email sms whatsapp voice push web_push slack webhook pagerduty'),
    'channels of personal': none('personal', 'sms whatsapp voice push slack webhook pagerduty'),
    'channels of family': none('family', 'whatsapp voice push slack webhook pagerduty'),
    'channels of business': none('business', 'voice push slack webhook pagerduty'),
    'day of free': '10/1 day, user: free',
    'day of personal': '50/1 day, user: personal',
    'day of family': '200/1 day, user: family',
    'day of other': '100/1 day, user: other',
    pause: 'gap 300 s, user: ',
  })
})

test('all sets together are not too many', () => {
  const all = SET_NAMES.flatMap(set => limitsOf(set, {}).map(({ name }) => name))
  assert.ok(all.length < MAX_LIMITS)
  assert.equal(new Set(all).size, all.length)
})

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const refused = async (method: string, path: string, body?: unknown) => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  return `${answer.status} ${answer.body?.code} ${answer.body?.errors?.[0]?.field ?? ''}`
}
const person = (name: string, attributes: object = {}) =>
  call('PUT', `/api/users/${name}`, {
    attributes,
    addresses: [
      { channel: 'email', address: `${name}@example.org`, verified: true },
      { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
    ],
  })
const send = (recipientId: string, more: object = {}) =>
  call('POST', '/api/notifications', { recipientId, channels: ['email'], body: 'Hi', ...more })
/** What became of it on each channel: `sent` or the reason. */
const outcome = async ({ eventId }: Loose): Promise<Record<string, string>> => {
  const { rules } = await call('GET', `/api/events/${eventId}/explain`)
  return Object.fromEntries(
    rules[0].recipients[0].decisions.map((one: Loose) => [
      one.channel,
      one.decision === 'send' ? 'sent' : one.reason,
    ]),
  )
}

test('sets are switched on and off together; their limits stand among the others', async () => {
  const { items } = await call('GET', '/api/limits/sets')
  assert.deepEqual(
    items.map((one: Loose) => [one.set, one.enabled, one.limits.length, one.defaults.length > 0]),
    SET_NAMES.map(set => [set, false, 0, true]),
  )
  const on = await call('PUT', '/api/limits/sets/pfm', { eventTypes: ['pfm.*'] })
  assert.deepEqual(
    on.limits.map((one: Loose) => [one.name, one.max, one.set, one.eventTypes]),
    [
      ['pfm: hour', 10, 'pfm', ['pfm.*']],
      ['pfm: day', 50, 'pfm', ['pfm.*']],
    ],
  )
  // One of them changed by hand, and set right again when the set is put anew: it is the same limit.
  const [hour] = on.limits
  const { id, revision } = hour
  const seven = { name: 'pfm: hour', scope: 'user_channel', window: 'hour', max: 7 }
  const changed = await call('PUT', `/api/limits/${id}`, seven)
  assert.deepEqual([changed.max, changed.set, changed.revision], [7, 'pfm', revision + 1])
  const again = await call('PUT', '/api/limits/sets/pfm', {})
  const same = again.limits.find((one: Loose) => one.id === id)
  assert.deepEqual([same.max, same.eventTypes, same.revision], [10, [], revision + 2])
  const listed = await call('GET', '/api/limits')
  assert.equal(listed.items.length, 2)

  const { status } = await t.call('DELETE', '/api/limits/sets/pfm', { as: t.tenant.adminKey })
  assert.equal(status, 204)
  assert.equal((await call('GET', '/api/limits')).items.length, 0)
  assert.equal(await refused('DELETE', '/api/limits/sets/pfm'), '404 not_found ')
})

test('a set whose names are taken is refused as a whole, and bad wishes with their field', async () => {
  const mine = await call('POST', '/api/limits', { name: 'pfm: day', scope: 'user', max: 1, window: 'day' })
  assert.equal(await refused('PUT', '/api/limits/sets/pfm', {}), '409 already_exists /name')
  const { items } = await call('GET', '/api/limits')
  assert.deepEqual(
    items.map((one: Loose) => [one.id, one.max, one.set]),
    [[mine.id, 1, null]],
  )
  await t.call('DELETE', `/api/limits/${mine.id}`, { as: t.tenant.adminKey })
  assert.deepEqual(
    [
      await refused('PUT', '/api/limits/sets/nobody', {}),
      await refused('PUT', '/api/limits/sets/pfm', { max: 3 }),
      await refused('PUT', '/api/limits/sets/attention', { max: -1 }),
      await refused('PUT', '/api/limits/sets/pfm', { eventTypes: ['a.*.b'] }),
      await refused('POST', '/api/limits', {
        name: 'x',
        scope: 'user',
        window: 'day',
        max: 2,
        costs: { sms: 3 },
      }),
      await refused('POST', '/api/limits', { name: 'x', scope: 'user', window: 'day', max: 2, every: 2 }),
    ],
    [
      '400 invalid_request set',
      '400 invalid_request /max',
      '400 invalid_request /max',
      '400 invalid_request /eventTypes/0',
      '400 invalid_request /costs/sms',
      '400 invalid_request /every',
    ],
  )
})

// covers: AUR-085, AUR-086, AUR-087
test('a plan says which channels there are, how often, and how soon after another', async () => {
  await person('fred', { tier: 'free' })
  await person('fay', { tier: 'family' })
  await person('una')
  await call('PUT', '/api/limits/sets/aura', { categories: ['aura'] })
  const wish = { category: 'aura', channels: ['in_app', 'email', 'webhook'] }
  assert.deepEqual(await outcome(await send('fred', wish)), {
    in_app: 'sent',
    email: 'channel_not_allowed',
    webhook: 'channel_not_allowed',
  })
  assert.deepEqual(await outcome(await send('fay', { ...wish, channels: ['email'] })), { email: 'sent' })
  assert.deepEqual(await outcome(await send('una', { ...wish, channels: ['email'] })), { email: 'sent' })
  const next = { ...wish, channels: ['in_app', 'email'] }
  assert.deepEqual(await outcome(await send('fay', next)), { in_app: 'sent', email: 'minimum_gap' })
  assert.deepEqual(await outcome(await send('fay', { ...next, priority: 'CRITICAL' })), {
    in_app: 'sent',
    email: 'sent',
  })
  assert.deepEqual(await outcome(await send('fay', { ...next, category: 'other' })), {
    in_app: 'sent',
    email: 'sent',
  })
  await call('PUT', '/api/users/fred', { attributes: { tier: 'personal' } })
  assert.deepEqual(await outcome(await send('fred', { ...wish, channels: ['email'] })), { email: 'sent' })
  await t.call('DELETE', '/api/limits/sets/aura', { as: t.tenant.adminKey })
})

// covers: AUR-092
test('an attention budget is spent by priority over everything; the rest joins one summary', async () => {
  const on = await call('PUT', '/api/limits/sets/attention', { max: 5 })
  assert.deepEqual(
    on.limits.map((one: Loose) => [one.max, one.shares]),
    [[5, { LOW: 0.5, NORMAL: 0.8 }]],
  )
  const story = async (name: string): Promise<string[]> => {
    await person(name)
    const say = async (priority: string, category: string) =>
      (await outcome(await send(name, { priority, category, channels: ['email', 'webhook', 'in_app'] })))
        .email!
    return [
      await say('LOW', 'news'),
      await say('LOW', 'offers'),
      await say('LOW', 'news'),
      await say('NORMAL', 'orders'),
      await say('NORMAL', 'bills'),
      await say('NORMAL', 'bills'),
      await say('HIGH', 'alarms'),
      await say('HIGH', 'alarms'),
      await say('CRITICAL', 'alarms'),
    ]
  }
  // A story that an hour ended in is told again, with somebody whose hour is new.
  let told: string[]
  let name: string
  let hour: number
  do {
    hour = Math.floor(Date.now() / 3_600_000)
    name = `busy-${hour}`
    told = await story(name)
  } while (Math.floor(Date.now() / 3_600_000) !== hour)
  // Two for LOW, four for NORMAL, five for HIGH; webhook and email of one notification interrupt once.
  assert.equal(told.join(' '), 'sent sent attention sent sent attention sent attention sent')
  const { items } = await call('GET', `/api/digests?userId=${encodeURIComponent(name)}`)
  assert.deepEqual(items.map((one: Loose) => [one.channel, one.reason, one.items]).sort(), [
    ['email', 'attention', 3],
    ['webhook', 'attention', 3],
  ])
  await t.call('DELETE', '/api/limits/sets/attention', { as: t.tenant.adminKey })
})
