import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { agenda } from './engine.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown, headers?: Record<string, string>) => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body, headers })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer
}

const RULE = {
  name: 'Orders',
  eventTypes: ['shop.order'],
  eventPattern: 'event.data.total >= 100',
  channels: ['in_app', 'email'],
  recipientSelector: { expression: 'event.data.who' },
}

async function recorded(): Promise<void> {
  for (const who of ['ann', 'bob']) {
    await call('PUT', `/api/users/${who}`, {
      addresses: [{ channel: 'email', address: `${who}@example.org`, verified: true }],
    })
  }
  await call('POST', '/api/rules', RULE)
  await call('POST', '/api/events/batch', {
    events: [
      ...[50, 100, 200].map(total => ({
        type: 'shop.order',
        data: { who: 'ann', total, title: `Order of ${total}` },
      })),
      { type: 'shop.order', data: { who: 'bob', total: 60, title: 'Order of 60' } },
      { type: 'shop.other', data: {} },
    ],
  })
}

test('a changed rule: what is new, lost, changed and moved, and nothing is written', async () => {
  await recorded()
  const count = async () =>
    (await t.db.pool.query('select count(*)::int as n from notifications')).rows[0].n as number
  const told = await count()
  const ask = async (change: object): Promise<Loose> =>
    (await call('POST', '/api/rules/replay', { since: '1h', ...change })).body

  const same = await ask({ rule: RULE })
  assert.deepEqual(
    [same.events, same.told, same.totals],
    [5, { before: 4, after: 4 }, { new: 0, lost: 0, changed: 0, moved: 0 }],
  )

  const wider = await ask({ rule: { ...RULE, eventPattern: 'event.data.total >= 60' } })
  assert.deepEqual(wider.totals, { new: 2, lost: 0, changed: 0, moved: 0 })
  assert.deepEqual(
    wider.examples.map((one: Loose) => [one.kind, one.userId, one.channel, one.after.subject]),
    [
      ['new', 'bob', 'in_app', 'Order of 60'],
      ['new', 'bob', 'email', 'Order of 60'],
    ],
  )

  const narrow = await ask({
    rule: { ...RULE, channels: ['in_app'], eventPattern: 'event.data.total > 100' },
  })
  assert.deepEqual(narrow.totals, { new: 0, lost: 3, changed: 0, moved: 0 })
  assert.deepEqual(narrow.byChannel.email, { new: 0, lost: 2, changed: 0, moved: 0 })

  // Two are collected into one mail; those of the inbox as well.
  const digest = await ask({ rule: { ...RULE, policy: { digest: { windowSeconds: 3600 } } } })
  assert.deepEqual(
    [digest.told, digest.totals],
    [
      { before: 4, after: 2 },
      { new: 2, lost: 4, changed: 0, moved: 0 },
    ],
  )

  const once = await ask({ rule: { ...RULE, policy: { cooldown: { seconds: 3600 } } } })
  assert.deepEqual(once.totals, { new: 0, lost: 2, changed: 0, moved: 0 })

  const { items } = (await call('GET', '/api/rules')).body
  assert.deepEqual((await ask({ withoutRule: items[0].id })).totals, {
    new: 0,
    lost: 4,
    changed: 0,
    moved: 0,
  })
  assert.deepEqual((await ask({ defaults: [{ channel: 'email', enabled: false }] })).totals, {
    new: 0,
    lost: 2,
    changed: 0,
    moved: 0,
  })
  assert.equal(await count(), told)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('progress comes in lines, the result in the last; what cannot be is refused with its field', async () => {
  const answer = await call(
    'POST',
    '/api/rules/replay',
    { since: '1h', rule: RULE },
    { accept: 'application/x-ndjson' },
  )
  const lines = answer.text
    .trim()
    .split('\n')
    .map(line => JSON.parse(line))
  assert.equal(lines.at(-1).result.events, 5)
  const refused = async (body: object) => {
    const { status, body: problem } = await t.call('POST', '/api/rules/replay', {
      as: t.tenant.adminKey,
      body,
    })
    return `${status} ${problem.errors?.[0]?.field ?? problem.code}`
  }
  assert.deepEqual(
    [
      await refused({ since: '1h' }),
      await refused({ since: 'yesterday', rule: RULE }),
      await refused({ since: '1h', until: '2001-01-01T00:00:00Z', rule: RULE }),
      await refused({ since: '1h', rule: { ...RULE, eventPattern: 'event.' } }),
      await refused({ since: '1h', template: { template: 'nowhere', channels: { default: { body: 'x' } } } }),
    ],
    ['400 /rule', '400 /since', '400 /until', '400 /eventPattern', '404 /template/template'],
  )
  assert.equal((await t.call('POST', '/api/rules/replay', { as: t.tenant.serviceKey, body: {} })).status, 403)
})

test('an agenda gives back everything by time, then in the order of adding', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 60 }), times => {
      const due = agenda<number>()
      for (const [nr, at] of times.entries()) due.add(at, nr)
      const expected = [...times.entries()]
        .filter(([, at]) => at <= 15)
        .sort((a, b) => a[1] - b[1] || a[0] - b[0])
      const found: number[] = []
      for (let next = due.next(15); next !== undefined; next = due.next(15)) found.push(next)
      assert.deepEqual(
        found,
        expected.map(([nr]) => nr),
      )
      assert.equal(due.now(), 15)
    }),
  )
})
