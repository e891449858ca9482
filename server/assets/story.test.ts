import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { png } from './test-pictures.ts'
import { KEY, type TestStore, testStore } from './test-store.ts'

let t: TestApp
let there: TestStore
before(async () => {
  there = await testStore({ bucket: 'pictures', region: 'auto' })
  t = await testApp({
    PUBLIC_URL: 'https://notify.example.org',
    ASSET_STORE_URL: `s3://pictures/carillon?region=auto&endpoint=${encodeURIComponent(there.url)}`,
    ASSET_STORE_KEY_ID: KEY.accessKeyId,
    ASSET_STORE_SECRET: KEY.secretAccessKey,
  })
  await call('PUT', '/api/users/alice', {})
})
after(async () => {
  await t?.stop()
  await there?.close()
})

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const upload = async (name: string, bytes: Buffer, query = ''): Promise<Loose> => {
  const answer = await t.call('PUT', `/api/assets/${name}${query}`, {
    as: t.tenant.adminKey,
    raw: bytes,
    headers: { 'content-type': 'image/png' },
  })
  assert.ok(answer.status < 300, answer.text)
  return answer.body
}
/** As it would reach us through the public address. */
const served = async (url: string) => {
  assert.ok(url.startsWith('https://notify.example.org/media/'), url)
  const response = await fetch(t.url + url.slice('https://notify.example.org'.length))
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()) }
}
const told = async (templateId: string): Promise<Loose> => {
  const { id } = await call('POST', '/api/notifications', {
    recipientId: 'alice',
    channels: ['in_app'],
    templateId,
  })
  return (await call('GET', `/api/notifications/${id}?include=content`)).content.in_app
}

// covers: ALP-141, ALP-142
test('a picture in a bucket is shown by templates, from the address it has as of now', async () => {
  const one = png(10, 10, 'one')
  const { url, sha256 } = await upload('logo', one)
  assert.deepEqual([...there.objects.keys()], [`carillon/${t.tenant.id}/${sha256}`])
  const { rows } = await t.db.pool.query('select data from asset_blobs')
  assert.deepEqual(rows, [{ data: null }], 'the database holds no bytes')

  const channels = {
    in_app: {
      subject: 'Hello',
      body: 'Look: {{asset "logo"}}; missing: "{{asset "nothing"}}"',
      html: '<img src="{{asset "logo"}}" alt="Logo">',
      image: '{{asset "logo"}}',
    },
  }
  const template = await call('POST', '/api/templates', { name: 'with logo', channels })
  assert.deepEqual(template.warnings, [
    { field: '/channels/in_app/body', message: 'There is no picture called "nothing"' },
  ])
  const first = await told(template.id)
  assert.equal(first.body, `Look: ${url}; missing: ""`)
  assert.equal(first.html, `<img src="${url}" alt="Logo">`)
  assert.deepEqual(await served(url), { status: 200, bytes: one })

  // The next message shows the new one; the first goes on showing what it showed.
  const two = png(10, 10, 'two')
  const next = await upload('logo', two)
  assert.equal((await told(template.id)).html, `<img src="${next.url}" alt="Logo">`)
  assert.deepEqual(await served(url), { status: 200, bytes: one })
  assert.deepEqual(await served(next.url), { status: 200, bytes: two })
  const body = { templateId: template.id, channel: 'in_app' }
  assert.equal((await call('POST', '/api/notifications/preview', body)).content.image, next.url)
  const draft = await call('POST', '/api/notifications/preview', { draft: { channels }, channel: 'in_app' })
  assert.equal(draft.content.image, next.url)

  // It is read from the bucket once, however many look at it.
  const reads = there.asked.filter(line => line.startsWith('GET')).length
  await Promise.all(Array.from({ length: 20 }, () => served(next.url)))
  assert.equal(there.asked.filter(line => line.startsWith('GET')).length, reads)
})

test('a private picture comes signed, the same all day, and one that is gone leaves a gap', async () => {
  await upload('card', png(7, 7), '?public=false')
  const template = await call('POST', '/api/templates', {
    name: 'with card',
    channels: { default: { body: '{{asset "card"}}' } },
  })
  const { body } = await told(template.id)
  assert.match(body, /\?expires=\d+&signature=[A-Za-z0-9_-]{22}$/)
  assert.equal((await told(template.id)).body, body)
  assert.equal((await served(body)).status, 200)
  assert.equal((await served(body.split('?')[0])).status, 404)
  await call('DELETE', '/api/assets/card')
  assert.equal((await told(template.id)).body, '')
  assert.equal((await served(body)).status, 404)
})

test('a bucket that does not answer is an error of theirs, and nothing is kept', async () => {
  there.answers.push(
    response => response.writeHead(500).end(),
    response => response.writeHead(500).end(),
  )
  const answer = await t.call('PUT', '/api/assets/lost', { as: t.tenant.adminKey, raw: png(4, 4) })
  assert.deepEqual([answer.status, answer.body.code], [500, 'external_service_error'])
  assert.equal((await t.call('GET', '/api/assets/lost', { as: t.tenant.adminKey })).status, 404)
  assert.equal((await upload('lost', png(4, 4))).name, 'lost')
})
