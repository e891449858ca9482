import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown) => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const mails = async (to: string): Promise<Loose[]> => {
  const { items } = await call('GET', '/dev/mailbox.json')
  return items.filter((mail: Loose) => JSON.stringify(mail.to).includes(to))
}
const read = (mail: Loose) => call('GET', `/dev/mailbox.json/${mail.id}`)

// covers: DIC-097, DIC-098, DIC-101
test('what a rule collects goes as one mail; one item alone goes as itself; CRITICAL is never held', async () => {
  for (const name of ['ann', 'bob']) {
    await call('PUT', `/api/users/${name}`, {
      addresses: [{ channel: 'email', address: `${name}@example.org`, verified: true }],
    })
  }
  const rule = {
    eventTypes: ['shop.order'],
    channels: ['email'],
    recipientSelector: { expression: 'event.data.who' },
    policy: { digest: { windowSeconds: 2 } },
  }
  await call('POST', '/api/rules', { ...rule, name: 'orders' })
  await call('POST', '/api/rules', {
    ...rule,
    name: 'fires',
    eventTypes: ['shop.fire'],
    priority: 'CRITICAL',
  })
  const publish = (type: string, who: string, title: string) =>
    call('POST', '/api/events/publish', { type, data: { who, title } })
  for (const title of ['one', 'two', 'three']) await publish('shop.order', 'ann', `Order ${title}`)
  await publish('shop.order', 'bob', 'Order alone')
  await publish('shop.fire', 'bob', 'Fire')

  const urgent = await eventually('the urgent mail', async () => {
    const found = await mails('bob@example.org')
    return found.length > 0 && found
  })
  assert.deepEqual(
    urgent.map(mail => mail.subject),
    ['Fire'],
  )
  const [digest] = await eventually('the digest', async () => {
    const found = await mails('ann@example.org')
    return found.length > 0 && found
  })
  assert.equal(digest.subject, '3 notifications')
  for (const title of ['one', 'two', 'three'])
    assert.match((await read(digest)).text, new RegExp(`Order ${title}`))
  await eventually('the single one', async () => (await mails('bob@example.org')).length === 2)
  assert.equal((await mails('ann@example.org')).length, 1)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('a rule names the template of its digests, which gets the items, their count and what they share', async () => {
  await call('PUT', '/api/users/eve', {
    addresses: [{ channel: 'email', address: 'eve@example.org', verified: true }],
  })
  const rule = {
    name: 'parcels',
    eventTypes: ['shop.parcel'],
    channels: ['email'],
    recipientSelector: { users: ['eve'] },
    policy: { digest: { windowSeconds: 3_600, maxItems: 2, template: 'parcels' } },
  }
  const early = await t.call('POST', '/api/rules', { as: t.tenant.adminKey, body: rule })
  assert.deepEqual(
    [early.status, early.body.code, early.body.errors[0].field],
    [400, 'invalid_rule', '/policy/digest/template'],
  )
  await call('POST', '/api/templates', {
    name: 'parcels',
    channels: {
      default: {
        subject: '{{count}} parcels',
        body: 'Parcels:{{#each items}} ({{eventType}}: {{subject}}){{/each}} more {{more}}',
      },
    },
  })
  await call('POST', '/api/rules', rule)
  for (const title of ['red', 'blue'])
    await call('POST', '/api/events/publish', { type: 'shop.parcel', data: { title } })
  // Two are as many as it takes: it goes long before its window ends.
  const [mail] = await eventually('the digest', async () => {
    const found = await mails('eve@example.org')
    return found.length > 0 && found
  })
  assert.equal(mail.subject, '2 parcels')
  assert.match((await read(mail)).text, /\(shop\.parcel: red\) \(shop\.parcel: blue\) more 0/)
})
