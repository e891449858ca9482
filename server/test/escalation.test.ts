import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  for (const name of ['ann', 'boss', 'cat', 'dan', 'eve']) {
    await call('PUT', `/api/users/${name}`, {
      addresses: [{ channel: 'email', address: `${name}@example.org`, verified: true }],
    })
  }
  await call('POST', '/api/rules', {
    name: 'disk',
    eventTypes: ['ops.disk'],
    channels: ['in_app'],
    recipientSelector: { expression: 'event.data.who' },
    policy: {
      escalation: [
        { afterSeconds: 2, unless: 'seen', channels: ['email'] },
        { afterSeconds: 3, unless: 'acknowledged', channels: ['email'], users: ['boss'] },
      ],
    },
  })
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const publish = async (who: string): Promise<Loose> => {
  const { eventId } = await call('POST', '/api/events/publish', {
    type: 'ops.disk',
    data: { who, title: `Disk of ${who}` },
  })
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
  return Object.fromEntries(items.map((one: Loose) => [one.recipientId, one.id]))
}
const email = async (id: string): Promise<Loose> =>
  (await call('GET', `/api/notifications/${id}`)).deliveries.find((one: Loose) => one.channel === 'email')
const ended = (id: string) =>
  eventually('the end of the mail', async () => {
    const one = await email(id)
    return !['held', 'in_flight', 'backlog'].includes(one.status) && one
  })

test('nobody reacts: the mail goes to the person, then to the one behind them', async () => {
  const ids = await publish('ann')
  assert.equal((await email(ids.ann)).status, 'held')
  assert.equal((await email(ids.ann)).waitsFor.reason, 'escalation')
  assert.equal((await ended(ids.ann)).status, 'sent')
  assert.equal((await ended(ids.boss)).status, 'sent')
})

test('whoever saw it gets no mail; whoever acknowledged it calls everything off at once', async () => {
  const cat = await publish('cat')
  const token = await t.tenant.token('cat')
  const read = await t.call('PATCH', `/api/notifications/${cat.cat}/read`, { as: token, body: {} })
  assert.ok(read.status < 300, read.text)
  const mail = await ended(cat.cat)
  assert.deepEqual([mail.status, mail.tries.at(-1).code], ['cancelled', 'condition_met'])

  const dan = await publish('dan')
  const eve = await t.tenant.token('eve')
  const path = `/api/notifications/${dan.dan}/acknowledge`
  assert.equal((await t.call('POST', path, { as: eve })).status, 404)
  const first = await t.call('POST', path, { as: await t.tenant.token('dan') })
  assert.equal(first.status, 200, first.text)
  const again = await call('POST', path)
  assert.equal(again.acknowledgedAt, first.body.acknowledgedAt)
  for (const id of [dan.dan, dan.boss]) {
    const off = await ended(id)
    assert.deepEqual([off.status, off.tries.at(-1).code], ['cancelled', 'acknowledged'])
  }
  assert.deepEqual(await auditLedger(t.db), [])
})

test('what waited is not sent to somebody who has decided otherwise meanwhile', async () => {
  const ids = await publish('eve')
  await call('PUT', '/api/preferences/eve', { channels: { email: { enabled: false } } })
  const mail = await ended(ids.eve)
  assert.deepEqual([mail.status, mail.tries.at(-1).code], ['cancelled', 'preference_changed'])
  assert.deepEqual(await auditLedger(t.db), [])
})

test('what escalation does not need is free for others, and what escalates is not gathered', async () => {
  const limit = await call('POST', '/api/limits', {
    name: 'mails',
    scope: 'user',
    channels: ['email'],
    eventTypes: ['ops.*'],
    max: 2,
    window: 'month',
    per: 'notification',
    overflow: 'digest',
  })
  const windows = async () => {
    const { rows } = await t.db.pool.query(
      `select count::int as n from counters where key = $1 order by window_at`,
      [`limit:${limit.id}:fay`],
    )
    return rows.map(({ n }: Loose) => n)
  }
  await call('PUT', '/api/users/fay', {
    addresses: [{ channel: 'email', address: 'fay@example.org', verified: true }],
  })
  const [first, second, third] = [await publish('fay'), await publish('fay'), await publish('fay')]
  assert.deepEqual(await windows(), [2, 1], 'the third waits for the month to come')
  assert.equal((await email(third.fay)).status, 'held')
  const token = await t.tenant.token('fay')
  for (const { fay } of [first, third]) {
    const read = await t.call('POST', `/api/notifications/${fay}/acknowledge`, { as: token })
    assert.equal(read.status, 200, read.text)
  }
  assert.equal((await ended(first.fay)).tries.at(-1).code, 'acknowledged')
  assert.equal((await ended(second.fay)).status, 'sent')
  await eventually('the places', async () => (await windows()).join() === '1,0')
  assert.deepEqual(await auditLedger(t.db), [])
})
