import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

const BROWSER = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
const TARGET = 'https://shop.example/orders/7?token=secret#part'
const HTML = `<body><a href="${TARGET.replace('&', '&amp;')}">Order</a> <a href="mailto:help@shop.example">Help</a></body>`

let t: TestApp
let templateId: string
before(async () => {
  t = await testApp()
  const channels = { email: { subject: 'Your order', body: 'Text', html: HTML } }
  templateId = (await call('POST', '/api/templates', { name: 'order', channels })).id
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

/** The HTML of a mail that really went out. */
async function mailTo(userId: string, more: object = {}): Promise<{ id: string; html: string }> {
  const { id } = await call('POST', '/api/notifications', {
    recipientId: userId,
    channels: ['email'],
    templateId,
    ...more,
  })
  const html = await eventually('the mail', async () => {
    const { items } = (await t.call('GET', '/dev/mailbox.json')).body
    for (const { id: mailId } of items) {
      const mail = (await t.call('GET', `/dev/mailbox.json/${mailId}`)).body
      if (JSON.stringify(mail).includes(id)) return mail.html as string
    }
    return undefined
  })
  return { id, html }
}
const person = (id: string) =>
  call('PUT', `/api/users/${id}`, {
    addresses: [{ channel: 'email', address: `${id}@example.org`, verified: true }],
  })
const path = (html: string, kind: 'l' | 'i'): string | undefined =>
  new RegExp(`/${kind}/[\\w-]+`).exec(html)?.[0]
const visit = (where: string, userAgent = BROWSER, method = 'GET') =>
  fetch(t.url + where, { method, redirect: 'manual', headers: { 'user-agent': userAgent } })
const engagement = async (id: string): Promise<Loose[]> =>
  (await t.db.pool.query('select kind, detail from engagement where notification_id = $1 order by id', [id]))
    .rows
const state = async (id: string): Promise<Loose> =>
  (await t.db.pool.query('select opened_at, clicked_at from delivery_state where notification_id = $1', [id]))
    .rows[0]

// covers: DIC-104, ALP-004
test('nothing is noticed until a tenant says so; then opens and clicks are, of those who do not mind', async () => {
  await Promise.all(['ann', 'ben', 'cleo'].map(person))
  assert.ok(!/\/[li]\//.test((await mailTo('ann')).html))

  for (const scope of ['tracking:opens', 'tracking:clicks'])
    await call('PUT', '/api/preferences/defaults/opinions', { scope, mode: 'OPTED_IN' })
  await call('PUT', '/api/preferences/ben/opinions', { scope: 'tracking:opens', enabled: false })
  await call('PUT', '/api/preferences/ben/opinions', { scope: 'tracking:clicks', enabled: false })
  await call('PUT', '/api/preferences/cleo/opinions', { scope: 'tracking:opens', enabled: false })

  const ben = (await mailTo('ben')).html
  assert.ok(ben.includes('shop.example/orders') && !/\/[li]\//.test(ben))
  const cleo = (await mailTo('cleo')).html
  assert.ok(path(cleo, 'l') && !path(cleo, 'i'))
  // Critical messages carry keys.
  assert.ok(!/\/[li]\//.test((await mailTo('ann', { priority: 'CRITICAL' })).html))

  const { id, html } = await mailTo('ann')
  assert.ok(!html.includes(TARGET) && html.includes('mailto:help@shop.example'))

  // A scanner looks at both; it is kept, and proves nothing.
  await visit(path(html, 'i')!, 'Mozilla/5.0')
  await visit(path(html, 'l')!, 'Mimecast URL Scanner')
  await eventually('both notes', async () => (await engagement(id)).length === 2)
  assert.deepEqual((await state(id))?.opened_at ?? null, null)
  const delivery = async () => (await call('GET', `/api/notifications/${id}`)).deliveries[0]
  assert.equal((await delivery()).status, 'sent')

  const picture = await visit(path(html, 'i')!)
  assert.deepEqual(
    [picture.status, picture.headers.get('content-type'), picture.headers.get('cache-control')],
    [200, 'image/gif', 'no-store, private'],
  )
  assert.equal((await picture.arrayBuffer()).byteLength, 42)
  await eventually('the open', async () => (await state(id))?.opened_at)
  assert.equal((await delivery()).status, 'delivered')

  const click = await visit(path(html, 'l')!)
  assert.deepEqual([click.status, click.headers.get('location')], [302, TARGET])
  await visit(path(html, 'l')!)
  await visit(path(html, 'l')!, BROWSER, 'HEAD')
  await eventually('the click', async () => (await state(id))?.clicked_at)
  // Once an hour each, without what might be a key; the scanner by name.
  await eventually('all notes', async () => (await engagement(id)).length === 4)
  assert.deepEqual(
    new Set((await engagement(id)).map(({ kind, detail }) => `${kind} ${detail.machine} ${detail.detail}`)),
    new Set([
      'clicked program https://shop.example/orders/7',
      'clicked undefined https://shop.example/orders/7',
      'opened apple-privacy undefined',
      'opened undefined undefined',
    ]),
  )
  assert.deepEqual(await auditLedger(t.db), [])
})

test('a link that is not ours leads nowhere, and says nothing', async () => {
  const { html } = await mailTo('ann')
  const link = path(html, 'l')!
  const last = link.at(-5) === 'A' ? 'B' : 'A'
  for (const forged of [
    `${link.slice(0, -5)}${last}${link.slice(-4)}`,
    path(html, 'i')!.replace('/i/', '/l/'),
    link.replace('/l/', '/i/'),
    '/l/x',
    `/l/${Buffer.from('https://evil.example/').toString('base64url')}`,
  ]) {
    const answer = await visit(forged)
    assert.deepEqual([answer.status, answer.headers.get('location')], [404, null], forged)
  }
  // Gateways add parameters; the target is not theirs to choose.
  const answer = await visit(`${link}?url=https://evil.example/`)
  assert.equal(answer.headers.get('location'), TARGET)
})
