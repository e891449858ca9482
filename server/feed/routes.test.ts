import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '../db/ids.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { feedStore } from './feed.ts'
import { createHub } from './hub.ts'
import { feedRoutes } from './routes.ts'
import { type TestInbox, testInbox } from './test-inbox.ts'

let t: TestApi
let inbox: TestInbox
let alice: string
let bob: string
let now = new Date('2026-06-01T12:00:00.000Z')

before(async () => {
  t = await testApi({
    routes: [
      (api, { db, sealer }) => {
        const feed = feedStore(db, sealer)
        const hub = createHub({ catchUp: feed.catchUp.bind(feed), heads: feed.heads.bind(feed) })
        feedRoutes(api, { feed, hub, now: () => now })
      },
    ],
  })
  inbox = testInbox(t.db, t.sealer)
  for (const tenant of [t.tenant, t.other]) {
    await inbox.person(tenant.id, 'alice')
    await inbox.person(tenant.id, 'bob')
  }
  alice = await t.tenant.token('alice')
  bob = await t.tenant.token('bob')
})
after(() => t.close())

interface Page {
  items: { id: string; seq: number; body: string; readAt: string | null; snoozedUntil: string | null }[]
  nextCursor: string | null
  head: number
}
const list = async (as: string, query = ''): Promise<Page> =>
  (await t.request('GET', `/api/notifications/feed${query}`, { as })).json()

// covers: DIC-123
test('a person reads the own inbox, page by page', async () => {
  const added = await inbox.add(t.tenant.id, ['alice', 'alice', 'alice'])
  const first = await list(alice, '?limit=2')
  assert.deepEqual(first.items, [added[2]!.data, added[1]!.data])
  const second = await list(alice, `?limit=2&cursor=${first.nextCursor}`)
  assert.deepEqual(second.items, [added[0]!.data])
  assert.equal(second.nextCursor, null)
  assert.equal(second.head, 3)
  const counts = await t.request('GET', '/api/notifications/feed/counts', { as: alice })
  assert.deepEqual(counts.json(), { unseen: 3, unread: 3, head: 3 })

  for (const query of [
    '?cursor=xyz',
    '?filter=inbox&cursor=' + Buffer.from('["feed:inbox","a"]').toString('base64url'),
  ]) {
    const refused = await t.request('GET', `/api/notifications/feed${query}`, { as: alice })
    assert.deepEqual([refused.statusCode, refused.json().code], [400, 'invalid_cursor'])
  }
  for (const query of ['?limit=0', '?limit=201', '?filter=old', '?what=1']) {
    assert.equal((await t.request('GET', `/api/notifications/feed${query}`, { as: alice })).statusCode, 400)
  }
})

// covers: AUR-142, DIC-152
test('marking read answers the first time by either method, again and again', async () => {
  const [item] = await inbox.add(t.tenant.id, ['alice'])
  const url = `/api/notifications/${item!.id}/read`
  now = new Date('2026-06-01T12:30:00.000Z')
  const first = await t.request('PATCH', url, { as: alice })
  assert.deepEqual([first.statusCode, first.json()], [200, { success: true, readAt: now.toISOString() }])
  now = new Date('2026-06-01T13:00:00.000Z')
  for (const method of ['PATCH', 'POST']) {
    assert.deepEqual((await t.request(method, url, { as: alice })).json(), first.json())
  }
})

test('seen, unread, archived, snoozed and back, one by one', async () => {
  const [item] = await inbox.add(t.tenant.id, ['bob'])
  const act = async (action: string, payload?: object) => {
    const response = await t.request('POST', `/api/notifications/${item!.id}/${action}`, { as: bob, payload })
    assert.equal(response.statusCode, 200, response.body)
    return response.json<{ item: Record<string, string | null> }>().item
  }
  assert.equal((await act('seen')).seenAt, now.toISOString())
  assert.equal((await act('unread')).readAt, null)
  assert.equal((await act('archive')).archivedAt, now.toISOString())
  assert.equal((await list(bob)).items.length, 0)
  assert.equal((await list(bob, '?filter=archived')).items.length, 1)
  assert.equal((await act('unarchive')).archivedAt, null)
  const until = new Date(now.getTime() + 3_600_000).toISOString()
  assert.equal((await act('snooze', { until })).snoozedUntil, until)
  assert.equal((await list(bob, '?filter=snoozed')).items[0]!.snoozedUntil, until)
  assert.equal((await act('unsnooze')).snoozedUntil, null)
  assert.equal((await list(bob)).items.length, 1)

  for (const bad of [
    {},
    { until: 'tomorrow' },
    { until: now.toISOString() },
    { until: '2030-01-01T00:00:00Z' },
    { until, more: 1 },
  ]) {
    const refused = await t.request('POST', `/api/notifications/${item!.id}/snooze`, {
      as: bob,
      payload: bad,
    })
    assert.deepEqual([refused.statusCode, refused.json().code], [400, 'invalid_request'], JSON.stringify(bad))
  }
})

test('many at once, and all at once', async () => {
  const added = await inbox.add(t.tenant.id, ['bob', 'bob', 'bob'])
  const mark = (payload: object) => t.request('POST', '/api/notifications/feed/mark', { as: bob, payload })
  const ids = [added[0]!.id, added[2]!.id, newId()]
  const marked = (await mark({ ids, mark: 'read' })).json<{
    items: unknown[]
    counts: { unread: number }
  }>()
  assert.equal(marked.items.length, 2)
  assert.equal(marked.counts.unread, 2)
  const bad = [
    { ids: [], mark: 'read' },
    { ids: Array.from({ length: 201 }, () => newId()), mark: 'read' },
    { ids: ['7'], mark: 'read' },
    { ids, mark: 'removed' },
    { ids, mark: 'snoozed' },
    { ids, mark: 'read', until: '2026-06-02T00:00:00Z' },
  ]
  for (const payload of bad) assert.equal((await mark(payload)).statusCode, 400, JSON.stringify(payload))

  const seen = await t.request('POST', '/api/notifications/seen-all', { as: bob })
  assert.deepEqual(seen.json().counts.unseen, 0)
  assert.deepEqual(seen.json().counts.unread, 2)
  const read = await t.request('POST', '/api/notifications/read-all', { as: bob })
  assert.deepEqual(read.json().counts.unread, 0)
})

// covers: AUR-132
test('nobody reaches the inbox of another person or tenant', async () => {
  const [item] = await inbox.add(t.tenant.id, ['alice'])
  const stranger = await t.other.token('alice')
  const read = `/api/notifications/${item!.id}/read`
  const { nextCursor } = await list(alice, '?limit=1')
  const answers = [
    [await t.request('GET', '/api/notifications/feed?userId=alice', { as: bob }), 403],
    [await t.request('GET', '/api/notifications/feed/counts?userId=alice', { as: bob }), 403],
    [await t.request('POST', '/api/notifications/read-all?userId=alice', { as: bob }), 403],
    [await t.request('PATCH', `${read}?userId=alice`, { as: bob }), 403],
    [await t.request('PATCH', read, { as: bob }), 404],
    [await t.request('PATCH', read, { as: stranger }), 404],
    [await t.request('POST', `${read}?userId=alice`, { as: t.other.serviceKey }), 404],
    [await t.request('GET', '/api/notifications/feed', {}), 401],
    [await t.request('GET', '/api/notifications/feed', { as: t.tenant.serviceKey }), 400],
  ] as const
  for (const [response, status] of answers) assert.equal(response.statusCode, status, response.body)
  assert.deepEqual((await list(stranger)).items, [])
  assert.deepEqual((await list(stranger, `?cursor=${nextCursor}`)).items, [])
  assert.deepEqual((await list(t.other.serviceKey, '?userId=alice')).items, [])
  const { items } = await list(alice, '?limit=1')
  assert.equal(items[0]!.readAt, null)
})

test('services act for a person they name, as far as their scopes go', async () => {
  const [item] = await inbox.add(t.tenant.id, ['alice'])
  assert.equal((await list(t.tenant.serviceKey, '?userId=alice')).items[0]!.id, item!.id)
  const reading = await t.tenant.scopedKey('service', ['notifications:read'])
  assert.equal((await list(reading, '?userId=alice')).items[0]!.id, item!.id)
  const url = `/api/notifications/${item!.id}/read?userId=alice`
  assert.equal((await t.request('PATCH', url, { as: reading })).statusCode, 403)
  assert.equal((await t.request('PATCH', url, { as: t.tenant.adminKey })).statusCode, 200)
})
