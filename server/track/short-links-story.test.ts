import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { Vendor } from '../deliver/providers/conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, twilioVendor } from '../deliver/providers/twilio-vendor.ts'
import { auditLedger } from '../ledger/audit.ts'
import { smsSize } from '../sms-size.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

const BROWSER = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0'
const TARGET = 'https://shop.example/orders/7?token=secretsecretsecret&from=a-campaign#part'
const PUBLIC = 'https://go.example'
const LINK = /https:\/\/go\.example(\/s\/[0-9A-Za-z]{11})/

let t: TestApp
let vendor: Vendor
let dir: string
before(async () => {
  vendor = await twilioVendor()
  dir = await mkdtemp(join(tmpdir(), 'carillon-links-'))
  const file = join(dir, 'providers.yaml')
  await writeFile(
    file,
    `- provider: twilio
  settings:
    accountSid: ${ACCOUNT_SID}
    authToken: ${AUTH_TOKEN}
    from: '+15005550006'
    baseUrl: http://127.0.0.1:${vendor.port}
`,
  )
  t = await testApp({ CARILLON_PROVIDERS_FILE: file, PUBLIC_URL: PUBLIC })
  for (const [at, user] of ['ann', 'ben'].entries()) {
    await call('PUT', `/api/users/${user}`, {
      addresses: [{ channel: 'sms', address: `+1555000000${at}`, verified: true }],
    })
  }
})
after(async () => {
  await t?.stop()
  await vendor?.close()
  if (dir) await rm(dir, { recursive: true, force: true })
})
beforeEach(() => {
  vendor.received.length = 0
})

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const wants = (scope: string, more: object = {}) =>
  call('PUT', '/api/preferences/defaults/opinions', { scope, mode: 'OPTED_IN', ...more })
/** What the vendor was given to send. */
async function sms(more: object, userId = 'ann'): Promise<{ id: string; text: string }> {
  const seen = vendor.received.length
  const { id } = await call('POST', '/api/notifications', { recipientId: userId, channels: ['sms'], ...more })
  await eventually('the SMS', async () => vendor.received.length > seen)
  const { raw } = vendor.received.at(-1)!
  return { id, text: new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4)).get('Body')! }
}
const visit = (path: string, userAgent = BROWSER, method = 'GET') =>
  fetch(t.url + path, { method, redirect: 'manual', headers: { 'user-agent': userAgent } })
const rows = async (): Promise<number> =>
  (await t.db.pool.query('select count(*)::int as n from short_links')).rows[0].n
const engagement = async (id: string): Promise<Loose[]> =>
  (await t.db.pool.query('select kind, detail from engagement where notification_id = $1 order by id', [id]))
    .rows
const delivery = async (id: string): Promise<Loose> =>
  (await call('GET', `/api/notifications/${id}`)).deliveries[0]

test('links in an SMS stay as they are until a tenant wants them short; then a long one fits one segment', async () => {
  const words = 'Your order is on its way, and will be with you between nine and eleven in the morning:'
  const body = `${words} ${TARGET}.`
  assert.equal(smsSize(body).segments, 2)
  assert.ok(!LINK.test((await sms({ body })).text))
  assert.equal(await rows(), 0)

  await wants('links:short', { channel: 'sms' })
  const { id, text } = await sms({ body })
  assert.equal(text.replace(LINK, 'L'), `${words} L.`)
  assert.equal(smsSize(text).segments, 1)
  assert.equal(await rows(), 1)
  // It leads on. Nobody asked for clicks to be noticed, so this one is not.
  const path = LINK.exec(text)![1]!
  const click = await visit(path)
  assert.deepEqual(
    [click.status, click.headers.get('location'), click.headers.get('cache-control')],
    [302, TARGET, 'no-store, private'],
  )
  assert.deepEqual(await engagement(id), [])
  // Its keys are not to be read in the database, nor is a critical message's key in anybody's hands but its reader's.
  const { rows: dump } = await t.db.pool.query(`select encode(box, 'escape') as box from short_links`)
  assert.ok(!dump.some(({ box }) => box.includes('shop') || box.includes('secret')))
  assert.equal((await sms({ body: TARGET, priority: 'CRITICAL' })).text, TARGET)
  const bare = await sms({ body, recipientId: undefined, recipientType: 'SYSTEM', address: '+15550000009' })
  assert.match(bare.text, LINK)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('clicks are noticed where they are elsewhere: of people who do not mind, and not of machines', async () => {
  await wants('tracking:clicks')
  await call('PUT', '/api/preferences/ben/opinions', { scope: 'tracking:clicks', enabled: false })
  const { id: refused, text: his } = await sms({ body: TARGET }, 'ben')
  assert.equal((await visit(LINK.exec(his)![1]!)).headers.get('location'), TARGET)

  const { id, text } = await sms({ body: TARGET })
  const path = LINK.exec(text)![1]!
  await eventually('the end of the try', async () => (await delivery(id)).status === 'sent')
  await visit(path, 'WhatsApp/2.24')
  await eventually('the note of the preview', async () => (await engagement(id)).length === 1)
  assert.equal((await delivery(id)).status, 'sent')
  await visit(path, BROWSER, 'HEAD')
  await visit(path)
  await eventually('the click', async () => (await delivery(id)).status === 'delivered')
  await visit(path)
  assert.deepEqual(
    (await engagement(id)).map(({ kind, detail }) => [kind, detail.machine, detail.detail]),
    [
      ['clicked', 'program', 'https://shop.example/orders/7'],
      ['clicked', undefined, 'https://shop.example/orders/7'],
    ],
  )
  assert.deepEqual(await engagement(refused), [])
  assert.deepEqual(await auditLedger(t.db), [])
})

test('a template says for itself; what is shortened for room is measured with the links short', async () => {
  const make = async (name: string, sms: object): Promise<string> =>
    (await call('POST', '/api/templates', { name, channels: { sms } })).id
  const whole = await make('whole', { body: 'Track it: {{url}}', links: 'whole' })
  assert.equal((await sms({ templateId: whole, templateVars: { url: TARGET } })).text, `Track it: ${TARGET}`)

  const looked = await call('POST', '/api/notifications/preview', {
    templateId: await make('looked', { body: `Track it: {{url}} ${'x'.repeat(100)}` }),
    channel: 'sms',
    data: { url: TARGET },
  })
  assert.equal(looked.size.sms.segments, 1, 'as it will be')
  assert.match(looked.content.body, LINK)
  const drafted = await call('POST', '/api/notifications/preview', {
    draft: { channels: { sms: { body: TARGET } } },
    channel: 'sms',
  })
  assert.match(drafted.content.body, LINK)

  const fitting = await make('fitting', { body: `{{fit name}}: {{url}} ${'x'.repeat(50)}` })
  const name = 'A name of some length'
  const short = await sms({ templateId: fitting, templateVars: { name, url: TARGET } })
  assert.ok(short.text.startsWith(`${name}: ${PUBLIC}/s/`), short.text)
  const long = await sms({ templateId: fitting, templateVars: { name: name.repeat(10), url: TARGET } })
  assert.equal(smsSize(long.text).units, 160, 'as much of the name as there is room beside the short link')
  assert.equal((await visit(LINK.exec(long.text)![1]!)).headers.get('location'), TARGET)

  // Off for the tenant, on for one template.
  await call('PUT', '/api/preferences/defaults/opinions', {
    scope: 'links:short',
    channel: 'sms',
    mode: 'OPTED_OUT',
  })
  assert.equal((await sms({ body: TARGET })).text, TARGET)
  const own = await make('own', { body: '{{url}}', links: 'short' })
  assert.match((await sms({ templateId: own, templateVars: { url: TARGET } })).text, LINK)
})

test('a code that is not ours leads nowhere; one that is too old, nowhere any more', async () => {
  const id = (
    await call('POST', '/api/templates', { name: 'old', channels: { sms: { body: TARGET, links: 'short' } } })
  ).id
  const path = LINK.exec((await sms({ templateId: id })).text)![1]!
  assert.equal((await visit(path)).status, 302)
  for (const other of [
    '/s/00000000000',
    '/s/x',
    `${path}0`,
    `${path},and-what-the-text-said-next`,
    `/s/${encodeURIComponent('https://e.example')}`,
  ]) {
    const answer = await visit(other)
    assert.equal(answer.status, 404, other)
    assert.match(await answer.text(), /<h1>This link is not valid/)
    assert.equal(answer.headers.get('location'), null)
  }
  assert.equal((await visit(`${path}?url=https://evil.example/`)).headers.get('location'), TARGET)
  await t.db.pool.query("update short_links set expires_at = now() - interval '1 second'")
  const gone = await visit(path)
  assert.deepEqual([gone.status, gone.headers.get('location')], [404, null])
})
