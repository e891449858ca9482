import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

const call = (method: string, path: string, body?: unknown) =>
  t.call(method, path, { as: t.tenant.adminKey, body })

// covers: ALP-089, ALP-090, ALP-094, ALP-095, ALP-085, ALP-086
test('a saved template is shown by POST, by GET, and for a person in their own language', async () => {
  await call('PUT', '/api/users/ana', { locale: 'de-AT', attributes: { city: 'Wien' } })
  const made = await call('POST', '/api/templates', {
    name: 'welcome',
    channels: { default: { subject: 'Hello {{data.name}}', body: 'In {{user.attributes.city}}' } },
    translations: { de: { subject: 'Hallo {{data.name}}', body: 'In {{user.attributes.city}}' } },
  })
  assert.equal(made.status, 201, made.text)
  const english = await call('POST', '/api/notifications/generate', {
    templateId: 'welcome',
    data: { name: 'Ann' },
  })
  assert.deepEqual(english.body.content, { subject: 'Hello Ann', body: 'In ' })
  const query = new URLSearchParams({
    templateId: 'welcome',
    channel: 'EMAIL',
    locale: 'de',
    data: '{"name":"Eva"}',
  })
  const german = await call('GET', `/api/notifications/preview?${query}`)
  assert.deepEqual(
    [german.body.channel, german.body.content.subject, german.body.content.language],
    ['email', 'Hallo Eva', 'de'],
  )
  const own = await call('POST', '/api/notifications/personalize', {
    templateId: made.body.id,
    userId: 'ana',
    data: { name: 'Ana' },
  })
  assert.deepEqual(
    [own.body.locale, own.body.content.subject, own.body.content.body],
    ['de-AT', 'Hallo Ana', 'In Wien'],
  )
  assert.equal((await call('POST', '/api/notifications/personalize', { templateId: 'welcome' })).status, 400)
  assert.equal((await call('POST', '/api/notifications/preview', { templateId: 'nowhere' })).status, 404)
  assert.equal((await call('GET', '/api/notifications/preview?templateId=welcome&data=5')).status, 400)
})

// covers: ALP-088
test('a kept draft is shown before it is published; the tenant’s language stands in for the reader’s', async () => {
  await call('POST', '/api/templates', {
    name: 'kept',
    channels: { default: { body: 'one {{json tenant}}' } },
    translations: { es: { body: 'uno' } },
  })
  const { id } = (await call('GET', '/api/templates?name=kept')).body.items[0]
  await call('PUT', `/api/templates/${id}`, {
    name: 'kept',
    draft: true,
    channels: { default: { body: 'two' } },
  })
  const shown = async (more: object) =>
    (await call('POST', '/api/notifications/preview', { templateId: 'kept', ...more })).body.content.body
  // Of the tenant a template sees the name alone.
  assert.equal(await shown({}), 'one {"name":"default"}')
  assert.equal(await shown({ revision: 'last' }), 'two')
  assert.equal((await call('PATCH', '/api/tenants/default', { locale: 'es_MX' })).body.locale, 'es-MX')
  assert.equal(await shown({ locale: 'fr' }), 'uno')
  assert.match(await shown({ locale: 'en' }), /^one/)
  assert.equal((await call('PATCH', '/api/tenants/default', { locale: 'a-!' })).status, 400)
  assert.equal((await call('PATCH', '/api/tenants/default', { locale: null })).body.locale, null)
})

test('a draft is rendered in a thread of its own; its mistakes come back with their place', async () => {
  const draft = (channels: object, data = {}) =>
    call('POST', '/api/notifications/preview', { draft: { channels }, data })
  const mjml =
    '<mjml><mj-body><mj-section><mj-column><mj-text>Hi {{data.x}}</mj-text></mj-column></mj-section></mj-body></mjml>'
  const shown = await draft({ email: { subject: 'S', mjml } }, { x: '<x>' })
  assert.equal(shown.status, 200, shown.text)
  assert.match(shown.body.content.html, /Hi &lt;x&gt;/)
  const wrong = await draft({ email: { body: 'a\n{{#if b}}' } })
  assert.deepEqual([wrong.status, wrong.body.code], [400, 'invalid_template'])
  assert.equal(wrong.body.errors[0].field, '/channels/email/body')
  assert.equal((await call('POST', '/api/notifications/preview', {})).status, 400)
})

test('what would take for ever, or all memory, ends', async () => {
  const rows = Array.from({ length: 300 }, (_, i) => i)
  const { status, body } = await call('POST', '/api/notifications/preview', {
    draft: {
      channels: {
        email: {
          body: '{{#each data.a}}{{#each data.b}}{{#each data.c}}xxxxxxxxxx{{/each}}{{/each}}{{/each}}',
        },
      },
    },
    data: { a: rows, b: rows, c: rows },
  })
  assert.deepEqual([status, body.code], [400, 'invalid_template'])
  assert.equal((await call('GET', '/readyz')).status, 200)
})
