import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, testApp } from '../test/app.ts'
import { readTemplates } from './default-book.ts'

const SHIPPED = join(import.meta.dirname, '..', '..', 'templates')
const dir = mkdtempSync(join(tmpdir(), 'carillon-templates-'))
let t: TestApp
before(async () => {
  writeFileSync(
    join(dir, 'own.yaml'),
    'name: own-default\nchannels:\n  default: { subject: "From a file, {{data.x}}", body: "b" }\n',
  )
  t = await testApp({ CARILLON_TEMPLATES_DIR: dir })
})
after(async () => {
  await t.stop()
  rmSync(dir, { recursive: true })
})

const call = async (as: string, method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const metrics = { active: 100, waiting: 7 }
const alert = {
  Priority: 'CRITICAL',
  Title: 'Pool of "orders" exhausted',
  Service: 'orders <db>',
  Message: 'No connection is free',
  Timestamp: '2026-11-21T10:00:00Z',
  Metrics: metrics,
  DashboardURL: 'https://grafana.example.org/d/1',
}
const preview = (as: string, channel: string, templateId = 'infrastructure-alert'): Promise<Loose> =>
  call(as, 'POST', '/api/notifications/preview', { templateId, channel, data: alert })

// covers: DIC-072
test('every file that comes with the product is a template of its own name', async () => {
  assert.deepEqual([...(await readTemplates([SHIPPED])).keys()].sort(), [
    'approval-request',
    'circuit-breaker-alert',
    'infrastructure-alert',
    'order-shipped',
    'pipeline-failure',
    'security-alert',
  ])
  writeFileSync(join(dir, 'broken.yaml'), 'name: broken\nchannels: { email: { body: "{{#if}}" } }\n')
  await assert.rejects(readTemplates([dir]), /broken\.yaml: .*1/)
  rmSync(join(dir, 'broken.yaml'))
})

// covers: DIC-070, DIC-071
test('a rule may name a template that only a file has; it says the documented fields', async () => {
  const as = t.other.adminKey
  const rule = {
    name: 'pool',
    eventTypes: ['system.database.pool_exhausted'],
    channels: ['in_app'],
    recipientSelector: { users: ['ann'] },
    templateId: 'infrastructure-alert',
  }
  await call(as, 'PUT', '/api/users/ann', {})
  const { templateId } = await call(as, 'POST', '/api/rules', rule)
  const { eventId } = await call(as, 'POST', '/api/events/publish', {
    type: 'system.database.pool_exhausted',
    data: alert,
  })
  const { items } = await call(as, 'GET', `/api/notifications?eventId=${eventId}`)
  assert.equal(items[0].templateId, templateId)
  const { content } = await call(as, 'GET', `/api/notifications/${items[0].id}?include=content`)
  assert.equal(content.in_app.subject, '[CRITICAL] Pool of "orders" exhausted')

  const mail = (await preview(as, 'email')).content
  assert.equal(mail.subject, '[CRITICAL] Pool of "orders" exhausted')
  for (const text of [mail.body, mail.html]) {
    assert.match(text, /Priority:.*CRITICAL/)
    assert.match(text, /Service:.*orders/)
    assert.match(text, /Message:.*No connection is free/)
    assert.match(text, /active: 100/)
    assert.match(text, /https:\/\/grafana\.example\.org\/d\/1/)
  }
  assert.match(mail.html, /orders &lt;db&gt;/)
  assert.match(mail.html, /View Dashboard/)

  const { blocks } = (await preview(as, 'slack')).content.data
  assert.deepEqual(
    blocks.map((block: Loose) => block.type),
    ['header', 'section', 'section', 'actions'],
  )
  assert.equal(blocks[0].text.text, 'Pool of "orders" exhausted')
  assert.deepEqual(
    blocks[1].fields.map((field: Loose) => field.text),
    ['*Priority:*\nCRITICAL', '*Service:*\norders &lt;db&gt;'],
  )
  assert.equal(blocks[3].elements[0].url, 'https://grafana.example.org/d/1')
})

// covers: PFM-158
test('one’s own goes before the operator’s, the operator’s before a file’s; a copy is left alone', async () => {
  const [operator, as] = [t.tenant.adminKey, t.other.adminKey]
  await call(as, 'PUT', '/api/users/ann', {})
  const say = async (templateId: string) => {
    const { id } = await call(as, 'POST', '/api/notifications', {
      recipientId: 'ann',
      templateId,
      templateVars: { x: 1 },
    })
    const { content } = await call(as, 'GET', `/api/notifications/${id}?include=content`)
    return content.in_app.subject
  }
  assert.equal(await say('own-default'), 'From a file, 1')

  const shipped = { channels: { default: { subject: 'The operator’s', body: 'b' } } }
  const { id } = await call(operator, 'POST', '/api/templates', { name: 'order-shipped', ...shipped })
  assert.equal(await say('order-shipped'), 'The operator’s')
  await call(operator, 'PUT', `/api/templates/${id}`, {
    name: 'order-shipped',
    channels: { default: { subject: 'Changed', body: 'b' } },
  })
  assert.equal(await say('order-shipped'), 'The operator’s', 'the copy is the tenant’s')

  const { items } = await call(as, 'GET', '/api/templates')
  const mine = items.find((one: Loose) => one.name === 'order-shipped')
  await call(as, 'PUT', `/api/templates/${mine.id}`, {
    name: 'order-shipped',
    channels: { default: { subject: 'My own', body: 'b' } },
  })
  assert.equal(await say('order-shipped'), 'My own')

  const none = await t.call('POST', '/api/notifications', {
    as,
    body: { recipientId: 'ann', templateId: 'nowhere' },
  })
  assert.deepEqual([none.status, none.body.errors[0].field], [400, '/templateId'])
})

test('a layout of the operator’s comes along though nothing is sent with it alone', async () => {
  const [operator, as] = [t.tenant.adminKey, t.other.adminKey]
  await call(as, 'PUT', '/api/users/ann', {})
  await call(operator, 'POST', '/api/templates', {
    name: 'our-frame',
    enabled: false,
    channels: { default: { body: '<{{> @partial-block}}>' } },
  })
  await call(operator, 'POST', '/api/templates', {
    name: 'our-letter',
    channels: { default: { body: '{{#> our-frame}}Hello{{/our-frame}}' } },
  })
  const { id } = await call(as, 'POST', '/api/notifications', {
    recipientId: 'ann',
    templateId: 'our-letter',
  })
  const { content } = await call(as, 'GET', `/api/notifications/${id}?include=content`)
  assert.equal(content.in_app.body, '<Hello>')
  const { items } = await call(as, 'GET', '/api/templates?name=our-frame')
  assert.equal(items[0].enabled, false, 'as it was')
})

test('a template is tried out on somebody', async () => {
  const as = t.other.adminKey
  await call(as, 'PUT', '/api/users/ann', {})
  const sent = await call(as, 'POST', '/api/templates/security-alert/test', {
    userId: 'ann',
    templateVars: { Title: 'Three wrong passwords', ip: '192.0.2.7' },
  })
  const { content } = await call(as, 'GET', `/api/notifications/${sent.id}?include=content`)
  assert.equal(content.in_app.subject, 'Security: Three wrong passwords')
  assert.match(content.in_app.body, /From: 192\.0\.2\.7/)
})

test('what comes as files can be listed, to begin with', async () => {
  const { status, body } = await t.call('GET', '/api/templates/defaults', { as: t.tenant.serviceKey })
  assert.equal(status, 200)
  const names = body.items.map((one: Loose) => one.name)
  assert.ok(names.includes('order-shipped') && names.includes('infrastructure-alert'))
  assert.deepEqual(names, names.toSorted())
  const { channels, variables } = body.items.find((one: Loose) => one.name === 'order-shipped')
  assert.match(channels.default.subject, /Your order/)
  assert.ok(variables.length > 0)
})
