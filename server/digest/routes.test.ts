import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  await call('POST', '/api/rules', {
    name: 'orders',
    eventTypes: ['shop.order'],
    channels: ['email'],
    recipientSelector: { expression: 'event.data.who' },
    policy: { digest: { windowSeconds: 3_600, maxItems: 50 } },
  })
})
after(() => t?.stop())

const call = async (method: string, path: string, body?: unknown) => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const refused = async (method: string, path: string, status: number) => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey })
  assert.equal(answer.status, status, answer.text)
  return answer.body
}
/** Somebody with so many orders that wait in one digest: [digest, items]. */
async function collected(who: string, orders: readonly string[]): Promise<[Loose, Loose[]]> {
  await call('PUT', `/api/users/${who}`, {
    addresses: [{ channel: 'email', address: `${who}@example.org`, verified: true }],
  })
  for (const title of orders)
    await call('POST', '/api/events/publish', { type: 'shop.order', data: { who, title } })
  const digest = await eventually(`the digest of ${who}`, async () => {
    const { items } = await call('GET', `/api/digests?userId=${who}&state=open`)
    return items[0]?.items === orders.length && items[0]
  })
  const { contents } = await call('GET', `/api/digests/${digest.id}`)
  return [digest, contents.items]
}
const mails = async (who: string): Promise<Loose[]> => {
  const { items } = await call('GET', '/dev/mailbox.json')
  return items.filter((mail: Loose) => JSON.stringify(mail.to).includes(`${who}@`))
}
const mailed = (who: string, count: number) =>
  eventually(`${count} mails to ${who}`, async () => {
    const found = await mails(who)
    return found.length >= count && found
  })
const state = async (id: string): Promise<Loose> => call('GET', `/api/digests/${id}`)
const states = ({ contents }: Loose) => contents.items.map((item: Loose) => item.state)
const inState = (id: string, wanted: string) =>
  eventually(`${id} ${wanted}`, async () => {
    const found = await state(id)
    return found.state === wanted && found
  })

// covers: DIC-099
test('a digest is listed and peeked while it waits, page by page, with what it holds', async () => {
  const [digest, items] = await collected('ann', ['one', 'two', 'three'])
  assert.equal(digest.channel, 'email')
  assert.equal(digest.reason, 'digest')
  assert.equal(digest.maxItems, 50)
  assert.equal(Date.parse(digest.closesAt) - Date.parse(digest.openedAt), 3_600_000)
  assert.deepEqual(
    items.map(item => [item.eventType, item.state, item.subject]),
    ['one', 'two', 'three'].map(title => ['shop.order', 'collected', title]),
  )
  const first = await call('GET', `/api/digests/${digest.id}?limit=2`)
  const rest = await call('GET', `/api/digests/${digest.id}?limit=2&cursor=${first.contents.nextCursor}`)
  assert.deepEqual([...first.contents.items, ...rest.contents.items], items)
  assert.equal(rest.contents.nextCursor, null)

  const [other] = await collected('annabel', ['four'])
  const page = await call('GET', '/api/digests?limit=1')
  assert.equal(page.items[0].id, other.id)
  const next = await call('GET', `/api/digests?limit=1&cursor=${page.nextCursor}`)
  assert.equal(next.items[0].id, digest.id)
  assert.deepEqual((await call('GET', '/api/digests?userId=ann&channel=sms')).items, [])
  assert.deepEqual((await call('GET', '/api/digests?userId=ann&state=closed')).items, [])
  await refused('GET', `/api/digests/${items[0].notificationId}`, 404)
  await refused('GET', '/api/digests?cursor=nonsense', 400)
})

// covers: DIC-098
test('a digest that is released goes at once as one message, and only once', async () => {
  const [digest] = await collected('bob', ['one', 'two'])
  const released = await call('POST', `/api/digests/${digest.id}/release`)
  assert.ok(released.closesAt < digest.closesAt)
  assert.equal(released.latestAt, released.closesAt)
  const closed = await inState(digest.id, 'closed')
  assert.deepEqual(states(closed), ['closed', 'closed'])
  assert.ok(closed.eventId)
  const [mail] = await mailed('bob', 1)
  assert.equal(mail.subject, '2 notifications')
  const conflict = await refused('POST', `/api/digests/${digest.id}/release`, 409)
  assert.equal(conflict.code, 'conflict')
  await refused('POST', `/api/digests/${digest.id}/cancel`, 409)
})

test('one item alone goes as itself', async () => {
  const [digest] = await collected('cem', ['alone'])
  await call('POST', `/api/digests/${digest.id}/release`)
  const done = await inState(digest.id, 'released')
  assert.deepEqual(states(done), ['released'])
  assert.equal(done.eventId, null)
  assert.equal((await mailed('cem', 1))[0].subject, 'alone')
})

test('a digest that is cancelled tells nobody, and its items end as cancelled', async () => {
  const [digest, items] = await collected('dan', ['one', 'two'])
  const cancelled = await call('POST', `/api/digests/${digest.id}/cancel`)
  assert.equal(cancelled.state, 'cancelled')
  assert.equal(cancelled.cancelled, 2)
  assert.deepEqual(states(await state(digest.id)), ['cancelled', 'cancelled'])
  for (const { notificationId } of items) {
    assert.equal((await call('GET', `/api/notifications/${notificationId}`)).status, 'cancelled')
  }
  // What comes next begins a digest of its own.
  const [later] = await collected('dan', ['three'])
  assert.notEqual(later.id, digest.id)
  await call('POST', `/api/digests/${later.id}/release`)
  assert.deepEqual(
    (await mailed('dan', 1)).map(mail => mail.subject),
    ['three'],
  )
})

test('an item is taken out, another goes ahead by itself; the rest goes together', async () => {
  const [digest, items] = await collected('eva', ['out', 'ahead', 'three', 'four'])
  const path = `/api/digests/${digest.id}/items`
  await call('DELETE', `${path}/${items[0].notificationId}`)
  await call('POST', `${path}/${items[1].notificationId}/release`)
  assert.deepEqual(
    (await mailed('eva', 1)).map(mail => mail.subject),
    ['ahead'],
  )
  for (const { notificationId } of items.slice(0, 2)) {
    await refused('DELETE', `${path}/${notificationId}`, 404)
    await refused('POST', `${path}/${notificationId}/release`, 404)
  }
  await call('POST', `/api/digests/${digest.id}/release`)
  assert.deepEqual(states(await inState(digest.id, 'closed')), ['cancelled', 'released', 'closed', 'closed'])
  const subjects = (await mailed('eva', 2)).map(mail => mail.subject)
  assert.deepEqual(new Set(subjects), new Set(['ahead', '2 notifications']))
  assert.equal(subjects.length, 2)
})

test('a digest that was emptied closes without telling anybody', async () => {
  const [digest, items] = await collected('fay', ['one', 'two'])
  await call('DELETE', `/api/digests/${digest.id}/items/${items[0].notificationId}`)
  await call('POST', `/api/notifications/${items[1].notificationId}/cancel`)
  await call('POST', `/api/digests/${digest.id}/release`)
  const closed = await inState(digest.id, 'closed')
  assert.equal(closed.eventId, null)
  assert.deepEqual(states(closed), ['cancelled', 'cancelled'])
  assert.deepEqual(await mails('fay'), [])
})

test('a person reaches their own digests, and nobody else knows of them', async () => {
  const [digest, items] = await collected('gus', ['one', 'two'])
  const gus = await t.tenant.token('gus')
  const own = await t.call('GET', '/api/digests', { as: gus })
  assert.deepEqual(
    own.body.items.map((item: Loose) => item.id),
    [digest.id],
  )
  const peeked = await t.call('GET', `/api/digests/${digest.id}`, { as: gus })
  assert.equal(peeked.body.contents.items[1].subject, 'two')
  const paths = [
    ['GET', ''],
    ['POST', '/release'],
    ['POST', '/cancel'],
    ['DELETE', `/items/${items[0].notificationId}`],
    ['POST', `/items/${items[0].notificationId}/release`],
  ] as const
  const strangers = [await t.tenant.token('hal'), await t.other.token('gus'), t.other.adminKey]
  for (const as of strangers) {
    for (const [method, path] of paths) {
      const answer = await t.call(method, `/api/digests/${digest.id}${path}`, { as })
      assert.equal(answer.status, 404, `${method} ${path}: ${answer.text}`)
    }
  }
  assert.equal((await t.call('GET', '/api/digests?userId=gus', { as: strangers[0]! })).status, 403)
  assert.deepEqual(states(await state(digest.id)), ['collected', 'collected'])
  const cancelled = await t.call('POST', `/api/digests/${digest.id}/cancel`, { as: gus })
  assert.equal(cancelled.status, 200, cancelled.text)
})

test('what an operator does to a digest is written down, and every item is accounted for', async () => {
  const { items } = await call('GET', '/api/audit?limit=200')
  const actions = new Set(items.map((entry: Loose) => entry.action))
  for (const action of ['released', 'cancelled', 'item_released', 'item_cancelled']) {
    assert.ok(actions.has(`digest.${action}`), action)
  }
  await eventually('the ledger at rest', async () => (await auditLedger(t.db)).length === 0)
})
