import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

async function call(method: string, path: string, body?: unknown): Promise<Loose> {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

const rule = (name: string, earlier: string, priority?: string) =>
  call('POST', '/api/rules', {
    name: `${name} ${priority ?? ''}`,
    eventTypes: [name],
    ...(priority && { eventPattern: `event.data.level == "${priority}"`, priority }),
    channels: ['in_app'],
    recipientSelector: { expression: 'event.data.who' },
    policy: { state: { key: ['event.data.thing'], resolved: 'event.data.over == true', earlier } },
  })
const say = (type: string, data: object) => call('POST', '/api/events/publish', { type, data })
const inbox = async (who: string): Promise<Loose[]> =>
  (await call('GET', `/api/notifications/feed?userId=${who}&filter=all`)).items
const counts = (who: string) => call('GET', `/api/notifications/feed/counts?userId=${who}`)

test('the next event about the same thing takes the place of the earlier item, which was read or not', async () => {
  await call('PUT', '/api/users/ann', {})
  await rule('door', 'update')
  await say('door', { who: 'ann', thing: 'front', title: 'The front door is open', over: false })
  await say('door', { who: 'ann', thing: 'back', title: 'The back door is open', over: false })
  const [, front] = await inbox('ann')
  await call('POST', `/api/notifications/${front.id}/read?userId=ann`)
  await say('door', { who: 'ann', thing: 'front', title: 'The front door is closed', over: true })
  const items = await inbox('ann')
  assert.deepEqual(
    items.map(item => [item.subject, item.readAt !== null]),
    [
      ['The front door is closed', true],
      ['The back door is open', false],
    ],
  )
  assert.equal((await counts('ann')).unread, 1)
  const { items: alerts } = await call('GET', '/api/alerts')
  assert.deepEqual(alerts.map((alert: Loose) => alert.status).toSorted(), ['firing', 'resolved'])
})

test('retract: the later item counts as new; keep: both stay', async () => {
  await rule('lamp', 'retract')
  await rule('bell', 'keep')
  for (const type of ['lamp', 'bell']) {
    await call('PUT', `/api/users/${type}`, {})
    await say(type, { who: type, thing: 'x', title: 'one' })
    const [first] = await inbox(type)
    await call('POST', `/api/notifications/${first.id}/read?userId=${type}`)
    await say(type, { who: type, thing: 'x', title: 'two' })
  }
  assert.deepEqual(
    (await inbox('lamp')).map(item => [item.subject, item.readAt]),
    [['two', null]],
  )
  assert.equal((await inbox('bell')).length, 2)
})

test('law: one item a thing, with what was said last, and counts that are the items', async () => {
  await rule('law', 'update')
  const said = fc.array(
    fc.record({
      thing: fc.constantFrom('a', 'b', 'c'),
      /** Several in one request are planned in one transaction. */
      together: fc.boolean(),
      read: fc.boolean(),
    }),
    { minLength: 1, maxLength: 8 },
  )
  let people = 0
  await fc.assert(
    fc.asyncProperty(said, async steps => {
      const who = `law-${people++}`
      await call('PUT', `/api/users/${who}`, {})
      const last = new Map<string, string>()
      let waiting: object[] = []
      for (const [at, { thing, together, read }] of steps.entries()) {
        waiting.push({ type: 'law', data: { who, thing, title: `${thing} ${at}` } })
        last.set(thing, `${thing} ${at}`)
        if (together && at < steps.length - 1) continue
        await call('POST', '/api/events/batch', { events: waiting })
        waiting = []
        const [newest] = await inbox(who)
        if (read) await call('POST', `/api/notifications/${newest.id}/read?userId=${who}`)
      }
      const items = await inbox(who)
      const subjects = new Set(items.map(item => item.subject as string))
      assert.equal(items.length, last.size)
      assert.deepEqual(subjects, new Set(last.values()))
      const { unread, unseen } = await counts(who)
      assert.equal(unread, items.filter(item => item.readAt === null).length)
      assert.equal(unseen, items.filter(item => item.seenAt === null).length)
    }),
    { numRuns: 15 },
  )
  assert.deepEqual(await auditLedger(t.db), [])
})

test('a notification is taken back: what waits is cancelled, what is in the inbox goes', async () => {
  await call('PUT', '/api/users/back', {
    addresses: [{ channel: 'email', address: 'back@example.org', verified: true }],
  })
  await call('POST', '/api/rules', {
    name: 'back',
    eventTypes: ['back'],
    channels: ['in_app', 'email'],
    recipientSelector: { users: ['back'] },
    policy: { digest: { windowSeconds: 3600, channels: ['email'] } },
  })
  await say('back', { title: 'Not true' })
  const [item] = await inbox('back')
  const first = await call('POST', `/api/notifications/${item.id}/retract`)
  assert.deepEqual(first, { id: item.id, cancelled: ['email'], removedFromInbox: true, takenBack: [] })
  assert.deepEqual(await inbox('back'), [])
  assert.equal((await counts('back')).unread, 0)
  const again = await call('POST', `/api/notifications/${item.id}/retract`)
  assert.deepEqual(again, { id: item.id, cancelled: [], removedFromInbox: false, takenBack: [] })
  const nobody = await t.call('POST', '/api/notifications/01890a5d-ac96-774b-bcce-b302099a8057/retract', {
    as: t.tenant.adminKey,
  })
  assert.equal(nobody.status, 404)
  assert.deepEqual(await auditLedger(t.db), [])
})
