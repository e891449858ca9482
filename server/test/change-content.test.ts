import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

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

// covers: ALP-092
test('what still waits says something else; what has begun does not', async () => {
  await call('PUT', '/api/users/ann', {
    addresses: [{ channel: 'email', address: 'ann@example.org', verified: true }],
  })
  await call('POST', '/api/rules', {
    name: 'prices',
    eventTypes: ['shop.price'],
    channels: ['email'],
    recipientSelector: { users: ['ann'] },
    // Alone in its digest it goes as itself, once the digest is released.
    policy: { digest: { windowSeconds: 3600 } },
  })
  const { eventId } = await call('POST', '/api/events/publish', {
    type: 'shop.price',
    data: { title: 'Pears are 10 €', message: 'Only today' },
  })
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
  const path = `/api/notifications/${items[0].id}`

  assert.deepEqual(await call('PUT', `${path}/content`, { subject: 'Pears are 1 €', body: 'We are sorry' }), {
    id: items[0].id,
    changed: ['email'],
  })
  const { content } = await call('GET', `${path}?include=content`)
  assert.equal(content.email.to, 'ann@example.org')
  assert.deepEqual([content.email.subject, content.email.body], ['Pears are 1 €', 'We are sorry'])
  assert.equal(content.email.html, undefined, 'the old HTML would still say 10 €')

  const put = async (body: unknown, as = t.tenant.serviceKey) =>
    (await t.call('PUT', `${path}/content`, { as, body })).status
  assert.equal(await put({ body: 'x', channel: 'sms' }), 400)
  assert.equal(await put({}), 400)
  assert.equal(await put({ subject: 'two\r\nBcc: everybody@example.org' }), 400)
  assert.equal(await put({ body: 'x' }, t.other.adminKey), 404)

  const [digest] = (await call('GET', '/api/digests?state=open')).items
  await call('POST', `/api/digests/${digest.id}/release`, {})
  const mail = await eventually('the mail', async () => {
    const [found] = (await t.call('GET', '/dev/mailbox.json')).body.items as Loose[]
    return found
  })
  assert.equal(mail.subject, 'Pears are 1 €')
  assert.equal(await eventually('its end', async () => (await put({ body: 'Too late' })) === 409), true)
  assert.deepEqual(await auditLedger(t.db), [])
})
