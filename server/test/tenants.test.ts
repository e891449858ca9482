import { png } from '../assets/test-pictures.ts'
import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import type { Access } from '../http/api.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

/** A word that stands in everything the first tenant owns, and so shows wherever any of it leaks. */
const MARK = 'only-of-the-first-tenant'

/** A language that nobody else has messages in. */
const LOCALE = 'tlh'

interface Route {
  method: string
  url: string
  access: Access
  /** Inboxes are read and marked for a person whom a service names. */
  forUser: boolean
}

let t: TestApp
let routes: Route[]
/** Things of the first tenant, by the first segment of the paths that name them. */
const things: Record<string, string> = {}

before(async () => {
  t = await testApp()
  routes = t.app.api.allRoutes
    .flatMap(({ method, url, config, schema }) => {
      const query = schema?.querystring as { properties?: object } | undefined
      const forUser = 'userId' in (query?.properties ?? {})
      return [method].flat().map(one => ({ method: one, url, access: config!.access!, forUser }))
    })
    .filter(({ method }) => method !== 'HEAD' && method !== 'OPTIONS')

  const make = async (path: string, body: object, method = 'POST') => {
    const { status, text, body: made } = await t.call(method, path, { as: t.tenant.adminKey, body })
    assert.ok(status < 300, `${method} ${path}: ${text}`)
    return made
  }
  const user = `${MARK}-user`
  await make(`/api/users/${user}`, { attributes: { word: MARK } }, 'PUT')
  const address = await make(`/api/users/${user}/addresses`, {
    channel: 'email',
    address: `${MARK}@example.org`,
    verified: true,
  })
  const device = await make(`/api/users/${user}/devices`, {
    kind: 'fcm',
    token: `${MARK}-token-0123456789`,
  })
  for (const kind of ['groups', 'roles', 'topics']) {
    await make(`/api/${kind}`, { name: `${MARK}-${kind}` })
    await make(`/api/${kind}/${MARK}-${kind}/members`, { userIds: [user] })
  }
  const rule = await make('/api/rules', {
    name: MARK,
    eventTypes: [MARK],
    channels: ['in_app'],
    recipientSelector: { users: [user] },
  })
  const template = await make('/api/templates', {
    name: MARK,
    channels: { default: { subject: MARK, body: MARK } },
  })
  await make(`/api/messages/${LOCALE}`, { messages: { [MARK]: MARK } }, 'PUT')
  await make(`/api/event-types/${MARK}`, { schema: { type: 'object', required: ['title'] } }, 'PUT')
  const refused = await t.call('POST', '/api/events/publish', { as: t.tenant.adminKey, body: { type: MARK } })
  assert.equal(refused.status, 422)
  const letters = await t.call('GET', '/api/dead-letters', { as: t.tenant.adminKey })
  const event = await make('/api/events/publish', {
    type: MARK,
    data: { title: MARK },
    id: MARK,
    source: MARK,
  })
  const waiting = await make('/api/events/publish', {
    type: MARK,
    data: { title: MARK },
    scheduledAt: new Date(Date.now() + 3_600_000).toISOString(),
  })
  await make('/api/suppressions', { channel: 'email', address: `${MARK}@example.org` })
  const notifications = await t.call('GET', '/api/notifications', { as: t.tenant.adminKey })
  const key = await make('/api/keys', { name: MARK, role: 'service' })
  const matchers = [{ name: 'subject', op: '=', value: `${MARK}-nothing` }]
  const silence = await make('/api/silences', {
    matchers,
    author: MARK,
    comment: MARK,
    endsAt: new Date(Date.now() + 3_600_000).toISOString(),
  })
  const inhibition = await make('/api/inhibitions', {
    name: MARK,
    sourceMatchers: matchers,
    targetMatchers: matchers,
  })

  await make('/api/rules', {
    name: `${MARK}-digest`,
    eventTypes: [`${MARK}.digest`],
    channels: ['in_app'],
    recipientSelector: { users: [user] },
    policy: { digest: { windowSeconds: 3_600 } },
  })
  await make('/api/events/publish', { type: `${MARK}.digest`, data: { title: MARK } })
  const digests = await t.call('GET', '/api/digests', { as: t.tenant.adminKey })
  const spammed = `${MARK}-spammed`
  await make(
    `/api/users/${spammed}`,
    { addresses: [{ channel: 'email', address: `${MARK}-spammed@example.org`, verified: true }] },
    'PUT',
  )
  const spam = { category: `${MARK}-spam`, channels: ['email'], recipientId: spammed, body: MARK }
  await make('/api/limits', {
    name: `${MARK}-spam`,
    categories: [spam.category],
    scope: 'user',
    window: 'month',
    max: 1,
    reason: 'spam',
  })
  for (let n = 0; n < 2; n++) await make('/api/notifications', spam)
  const detections = await t.call('GET', '/api/spam-detections', { as: t.tenant.adminKey })
  const limit = await make('/api/limits', { name: MARK, scope: 'user', max: 1_000_000, window: 'day' })

  const threshold = await make('/api/thresholds', { name: MARK, stream: MARK, when: 'above', bounds: [1] })
  await make(`/api/streams/${MARK}/samples`, { samples: [{ value: 2, series: MARK }] })

  await make(`/api/heartbeats/${MARK}-heartbeats`, { everySeconds: 3_600, description: MARK }, 'PUT')

  const experiment = await make('/api/experiments', {
    name: MARK,
    templateId: template.id,
    variants: [{ name: `${MARK}-a` }, { name: `${MARK}-b` }],
  })

  const picture = await fetch(`${t.url}/api/assets/${MARK}-assets`, {
    method: 'PUT',
    headers: { authorization: `Bearer ${t.tenant.adminKey}` },
    body: new Uint8Array(png()),
  })
  assert.equal(picture.status, 201)

  Object.assign(things, {
    experiment: experiment.id,
    threshold: threshold.id,
    limit: limit.id,
    detection: detections.body.items[0].id,
    digest: digests.body.items[0].id,
    event: event.eventId,
    waiting: waiting.eventId,
    notification: notifications.body.items[0].id,
    rule: rule.id,
    template: template.id,
    letter: letters.body.items[0].id,
    key: key.id,
    silence: silence.id,
    inhibition: inhibition.id,
    user,
    address: address.id,
    device: device.id,
  })
  for (const [name, id] of Object.entries(things)) assert.ok(id, name)
})
after(() => t?.stop())

/** The path with the first tenant's things in the places of its parameters. */
function pathTo(route: Route): string {
  const [, , kind] = route.url.split('/')
  const id = route.url.includes('/addresses/')
    ? things.address
    : route.url.includes('/devices/')
      ? things.device
      : kind === 'events'
        ? route.method === 'DELETE'
          ? things.waiting
          : things.event
        : kind === 'notifications'
          ? things.notification
          : kind === 'rules'
            ? things.rule
            : kind === 'templates'
              ? things.template
              : kind === 'thresholds'
                ? things.threshold
                : kind === 'delivery'
                  ? `${things.notification}.in_app`
                  : kind === 'dead-letters'
                    ? things.letter
                    : kind === 'limits'
                      ? things.limit
                      : kind === 'experiments'
                        ? things.experiment
                        : kind === 'digests'
                          ? things.digest
                          : kind === 'keys'
                            ? things.key
                            : kind === 'silences'
                              ? things.silence
                              : kind === 'inhibitions'
                                ? things.inhibition
                                : '01a1fca9-dac7-7001-8961-e4e33925320f'
  const name = route.url.startsWith('/api/users/') ? `${MARK}-topics` : `${MARK}-${kind}`
  const params: Record<string, string> = {
    id: id!,
    userId: things.user!,
    name,
    type: MARK,
    locale: LOCALE,
    token: MARK,
    provider: 'nobody',
    set: 'pfm',
    notificationId: things.notification!,
    topic: MARK,
    auraId: MARK,
  }
  const path = route.url.replaceAll(/:(\w+)/g, (_, param: string) => {
    assert.ok(params[param], `a value for ${param} of ${route.url}`)
    return params[param]
  })
  return route.forUser ? `${path}?userId=${things.user}` : path
}

const bodyOf = ({ method, url }: Route): object | undefined => {
  if (method === 'GET' || method === 'DELETE') return undefined
  const last = url.split('/').at(-1)!
  switch (last) {
    case 'snooze':
      return { until: new Date(Date.now() + 60_000).toISOString() }
    case 'members':
    case 'remove':
      return { userIds: ['somebody'] }
    case 'addresses':
      return { channel: 'sms', address: '+4915112345678' }
    case 'devices':
      return { kind: 'fcm', token: 'another-token-0123456789' }
    case 'validate':
      return url.includes('event-types') ? { data: {} } : undefined
    case 'erase':
      return {}
    case 'verification':
      return undefined
    case 'confirm':
      return { code: '123456' }
    case 'pick':
      return { variant: 'x' }
    case 'content':
      return { body: 'x' }
    case 'test':
      return { userId: 'x' }
    case 'messages':
      return { userId: things.user, message: 'x' }
    case 'rollback':
      return { revision: 1 }
    case 'localize':
      return { locale: 'de', content: { body: 'x' } }
  }
  if (url === '/api/rules/:id' && method === 'PUT') {
    return { name: 'x', channels: ['in_app'], recipientSelector: { users: ['x'] } }
  }
  if (url.includes('/addresses/:id')) return { label: 'x' }
  if (url === '/api/preferences/:userId') return { globalEnabled: false }
  if (url.startsWith('/api/preferences/:userId/')) {
    const later = new Date(Date.now() + 60_000).toISOString()
    const bodies: Record<string, object> = {
      channels: { channel: 'email', enabled: false },
      sync: { globalEnabled: false, lastUpdated: later },
      mute: { until: later },
      opinions: { scope: '', enabled: false },
    }
    return bodies[last] ?? {}
  }
  if (url.startsWith('/api/delivery/push/topics/')) return { userId: things.user }
  if (url === '/api/users/:userId/consents') return { granted: true, origin: 'x' }
  if (url === '/api/thresholds/:id') return { name: 'x', stream: 'x', when: 'above', bounds: [1] }
  if (url === '/api/streams/:name/samples') return { samples: [{ value: 2 }] }
  if (url === '/api/messages/:locale') return { messages: { a: 'x' } }
  if (url === '/api/heartbeats/:name') return { everySeconds: 60 }
  if (url === '/api/rate-limits/:userId') return { limits: [{ limitType: 'PER_DAY', maxCount: 1_000 }] }
  if (url === '/api/experiments/:id') {
    return { name: 'x', templateId: things.template, variants: [{ name: 'a' }, { name: 'b' }] }
  }
  if (url === '/api/limits/:id') return { name: 'x', scope: 'user', max: 1, window: 'day' }
  if (url === '/api/rules/:id') return { name: 'x' }
  if (url === '/api/silences/:id') return { comment: 'x' }
  if (url === '/api/inhibitions/:id') {
    const matchers = [{ name: 'x', value: 'x' }]
    return { name: 'x', sourceMatchers: matchers, targetMatchers: matchers }
  }
  if (url === '/api/templates/:id') return { name: 'x', channels: { default: { body: 'x' } } }
  if (url === '/api/users/:userId/topics/:name') return { level: 'ALL' }
  if (url === '/api/users/:userId') return { enabled: false }
  if (url.startsWith('/api/groups/') || url.startsWith('/api/roles/') || url.startsWith('/api/topics/')) {
    return method === 'PATCH' ? { description: 'x' } : {}
  }
  return {}
}

test('every route keeps the promises of the house', () => {
  assert.deepEqual(brokenRouteRules(t.app.api), [])
  assert.ok(routes.length > 90)
})

test('every route that is not public refuses a request without credentials, and a forged one', async () => {
  for (const route of routes.filter(({ access }) => access.role !== 'public')) {
    const name = `${route.method} ${route.url}`
    for (const as of [undefined, `crl_${'x'.repeat(40)}`, 'a.b.c']) {
      const answer = await t.call(route.method, pathTo(route), { as, body: bodyOf(route) })
      assert.equal(answer.status, 401, `${name}: ${answer.text}`)
      assert.equal(answer.body.code, 'unauthenticated')
    }
  }
  // Public for the hook only: it looks at more kinds of credentials than a header, and needs one of them.
  assert.equal((await t.call('GET', '/realtime')).status, 401)
})

/** These make a thing under whatever name the caller gives it, in the caller's own tenant. */
const MAKES = new Set([
  'PUT /api/users/:userId',
  'PUT /api/event-types/:type',
  'PUT /api/limits/sets/:set',
  'PUT /api/heartbeats/:name',
  'PUT /api/assets/:name',
  'PUT /api/messages/:locale',
  'PATCH /api/messages/:locale',
  // What an aura is called is its person's own, and the conversation is theirs.
  'GET /api/auras/:auraId/conversation',
  'POST /api/auras/:auraId/messages',
])

/** A stream is whatever is written to; what another tenant's numbers do is in server/streams/story.test.ts. */
const TAKES = 'POST /api/streams/:name/samples'

test('a key of the other tenant reaches nothing of the first by its id', async () => {
  const named = routes.filter(({ method, url, access }) => {
    const name = `${method} ${url}`
    return url.includes('/:') && access.role !== 'public' && !MAKES.has(name) && name !== TAKES
  })
  assert.ok(named.length > 40)
  const answered: string[] = []
  for (const route of named) {
    const name = `${route.method} ${route.url}`
    const answer = await t.call(route.method, pathTo(route), { as: t.other.adminKey, body: bodyOf(route) })
    if (![403, 404].includes(answer.status)) answered.push(`${name}: ${answer.status} ${answer.text}`)
    assertNothingLeaks(name, answer.body)
  }
  assert.deepEqual(answered, [])
})

/** The answer may repeat the path it was asked for, and nothing else. */
function assertNothingLeaks(name: string, body: Loose): void {
  if (body === undefined) return
  const rest = JSON.stringify({ ...body, instance: '', detail: '' })
  assert.ok(!rest.includes(MARK), `${name} shows ${JSON.stringify(body)}`)
}

test("lists, searches and totals of the other tenant hold nothing of the first's", async () => {
  const lists = routes.filter(({ method, url, access }) => {
    return method === 'GET' && !url.includes('/:') && url.startsWith('/api/') && access.role !== 'public'
  })
  assert.ok(lists.length > 12)
  for (const { url, access } of lists) {
    if (access.operator) {
      assert.equal((await t.call('GET', url, { as: t.other.adminKey })).status, 403, url)
      continue
    }
    for (const query of [
      '',
      `?userId=${things.user}`,
      `?recipientId=${things.user}`,
      `?eventId=${things.event}`,
    ]) {
      const answer = await t.call('GET', url + query, { as: t.other.adminKey })
      assert.ok(answer.status < 500, `${url}${query}: ${answer.text}`)
      assertNothingLeaks(url + query, answer.body)
      if (answer.status === 200 && url.startsWith('/api/notifications')) {
        assert.deepEqual(answer.body.items ?? [], [], url)
      }
    }
  }
  const why = await t.call('GET', `/api/explain?event=${things.event}&user=${things.user}`, {
    as: t.other.adminKey,
  })
  assert.equal(why.status, 404, why.text)
  const metrics = await t.call('GET', '/api/events/metrics', { as: t.other.adminKey })
  assert.equal(metrics.body.received, 0)
})

test("a cursor of the first tenant opens nothing of the first's for the other", async () => {
  await t.call('POST', '/api/events/publish', {
    as: t.tenant.adminKey,
    body: { type: MARK, data: { title: MARK } },
  })
  const page = await t.call('GET', '/api/notifications?limit=1', { as: t.tenant.adminKey })
  assert.ok(page.body.nextCursor)
  const cursor = encodeURIComponent(page.body.nextCursor)
  const answer = await t.call('GET', `/api/notifications?limit=1&cursor=${cursor}`, { as: t.other.adminKey })
  assert.deepEqual(answer.body.items ?? [], [])
})

test('a person of the other tenant with the same name is another person', async () => {
  const same = await t.other.token(things.user!)
  const feed = await t.call('GET', '/api/notifications/feed', { as: same })
  assert.deepEqual(feed.body.items, [])
  const poll = await t.call('GET', '/realtime/poll?after=0&timeout=0', { as: same })
  assert.ok(!poll.text.includes(MARK), poll.text)
  for (const path of [
    `/api/notifications/${things.notification}`,
    `/api/notifications/${things.notification}/explain`,
  ]) {
    assert.equal((await t.call('GET', path, { as: same })).status, 404, path)
  }
  // And within one tenant a person is not their neighbour.
  const neighbour = await t.tenant.token('neighbour')
  for (const route of routes.filter(({ url, access }) => url.includes(':userId') && access.role === 'user')) {
    const answer = await t.call(route.method, pathTo(route), { as: neighbour, body: bodyOf(route) })
    assert.equal(answer.status, 403, `${route.method} ${route.url}: ${answer.text}`)
  }
})

test('a name is taken in one tenant only', async () => {
  for (const route of routes.filter(({ method, url }) => MAKES.has(`${method} ${url}`))) {
    const given = route.url.startsWith('/api/assets/') ? { raw: png() } : { body: bodyOf(route) }
    const answer = await t.call(route.method, pathTo(route), { as: t.other.adminKey, ...given })
    assert.ok(answer.status < 300, `${route.url}: ${answer.text}`)
    const { attributes, schema, addresses, messages } = answer.body
    assert.ok(!JSON.stringify({ attributes, schema, addresses, messages }).includes(MARK), answer.text)
  }
})

test('after all of it the first tenant still has everything', async () => {
  for (const route of routes.filter(
    ({ method, url }) => method === 'GET' && url.includes('/:') && url.startsWith('/api/'),
  )) {
    const answer = await eventually(`${route.url}`, () =>
      t.call('GET', pathTo(route), { as: t.tenant.adminKey }),
    )
    assert.equal(answer.status, 200, `${route.url}: ${answer.text}`)
  }
  const waiting = await t.call('GET', `/api/events/status/${things.waiting}`, { as: t.tenant.adminKey })
  assert.equal(waiting.body.status, 'PENDING')
})
