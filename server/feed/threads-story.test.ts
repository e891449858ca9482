import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  for (const id of ['alice', 'bob']) await call('PUT', `/api/users/${id}`, {})
  await call('POST', '/api/rules', {
    name: 'Orders',
    eventTypes: ['order.told'],
    channels: ['in_app'],
    recipientSelector: { users: ['alice'] },
    policy: { thread: '"order:" + string(event.data.id)' },
  })
})
after(() => t.stop())

async function call(method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const publish = (id: unknown) => call('POST', '/api/events/publish', { type: 'order.told', data: { id } })
const threads = async (user = 'alice') =>
  (await call('GET', `/api/notifications/threads?userId=${user}`)).threads as Loose[]

test('messages of a rule belong together by its key; each surface says to what', async () => {
  await publish(1)
  await publish(2)
  await publish(1)
  assert.deepEqual(
    (await threads()).map(one => [one.thread, one.items, one.unread, one.last.thread]),
    [
      ['order:1', 2, 2, 'order:1'],
      ['order:2', 1, 1, 'order:2'],
    ],
  )
  const { items, nextCursor } = await call(
    'GET',
    '/api/notifications/feed?userId=alice&thread=order:1&limit=1',
  )
  assert.deepEqual([items.length, items[0].thread, items[0].seq], [1, 'order:1', 3])
  const rest = await call(
    'GET',
    `/api/notifications/feed?userId=alice&thread=order:1&cursor=${encodeURIComponent(nextCursor)}`,
  )
  assert.deepEqual(
    rest.items.map((item: Loose) => item.seq),
    [1],
  )
  const history = await call('GET', '/api/notifications?recipientId=alice')
  assert.deepEqual(
    history.items.map((item: Loose) => item.thread),
    ['order:1', 'order:2', 'order:1'],
  )
  const polled = await call('GET', '/realtime/poll?userId=alice&after=2')
  assert.equal(polled.envelopes[0].data.thread, 'order:1')
})

test('a key that is no text, a long one, or one that cannot be stored, is no thread', async () => {
  await publish('x'.repeat(200))
  await call('POST', '/api/events/publish', { type: 'order.told', data: {} })
  for (const [name, thread] of [
    ['order.null', '"order:\\u0000"'],
    ['order.half', 'event.data.text.substring(0, 1)'],
  ]) {
    await call('POST', '/api/rules', {
      name,
      eventTypes: [name],
      channels: ['in_app'],
      recipientSelector: { users: ['bob'] },
      policy: { thread },
    })
    await call('POST', '/api/events/publish', { type: name, data: { text: '😀' } })
  }
  const told = await call('GET', '/api/notifications/feed?userId=bob')
  const { items } = await call('GET', '/api/notifications/feed?userId=alice&limit=2')
  assert.deepEqual(
    [...items, ...told.items].map((item: Loose) => item.thread),
    [null, null, null, null],
  )
  const wrong = await t.call('POST', '/api/rules', {
    as: t.tenant.adminKey,
    body: {
      name: 'Wrong',
      eventTypes: ['a.b'],
      channels: ['in_app'],
      recipientSelector: { users: ['alice'] },
      policy: { thread: '"order:" +' },
    },
  })
  assert.equal(wrong.status, 400)
  assert.match(wrong.text, /policy[./]thread/)
})

test('a thread is read at once, by its reader alone, and streams hear it once', async () => {
  const token = await t.tenant.token('alice')
  const { counts } = await call('POST', '/api/notifications/threads/read', { thread: 'order:1' }, token)
  assert.equal(counts.unread, 3)
  const polled = await call('GET', `/realtime/poll?after=${counts.head - 1}`, undefined, token)
  assert.deepEqual(polled.envelopes[0].data, { change: 'thread_read', id: null, thread: 'order:1' })
  assert.deepEqual(
    (await threads()).map(one => [one.thread, one.unread]),
    [
      ['order:1', 0],
      ['order:2', 1],
    ],
  )
  const other = await t.call('POST', '/api/notifications/threads/read?userId=alice', {
    as: await t.tenant.token('bob'),
    body: { thread: 'order:2' },
  })
  assert.equal(other.status, 403)
})

test('a direct send says its thread itself, also when it waits for its time', async () => {
  const send = { recipientId: 'bob', channels: ['in_app'], body: 'Hello', thread: 'chat:7' }
  await call('POST', '/api/notifications', send)
  await call('POST', '/api/delivery/in-app', { userId: 'bob', body: 'Again', thread: 'chat:7' })
  assert.deepEqual(
    (await threads('bob')).map(one => [one.thread, one.items]),
    [['chat:7', 2]],
  )
  const scheduledAt = new Date(Date.now() + 700).toISOString()
  await call('POST', '/api/notifications', { ...send, scheduledAt })
  await eventually('the third of the thread', async () => (await threads('bob'))[0].items === 3)
  const long = await t.call('POST', '/api/notifications', {
    as: t.tenant.adminKey,
    body: { ...send, thread: 'x'.repeat(201) },
  })
  assert.equal(long.status, 400)
})

test('what a digest gives back joins its thread when it goes', async () => {
  await call('POST', '/api/rules', {
    name: 'Gathered',
    eventTypes: ['order.gathered'],
    channels: ['in_app'],
    recipientSelector: { users: ['bob'] },
    policy: { thread: '"gathered"', digest: { windowSeconds: 1, single: 'release' } },
  })
  await call('POST', '/api/events/publish', { type: 'order.gathered', data: {} })
  const [one] = await eventually('the held one', async () => {
    const all = await threads('bob')
    return all.length === 2 && all
  })
  assert.deepEqual([one.thread, one.items, one.unread], ['gathered', 1, 1])
})
