import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { CHANNELS, type Channel, type InlineContent, type JsonObject } from '../types.ts'
import { renderDefault } from './default-templates.ts'
import { eventView, templateView } from './view.ts'

const viewOf = (data: JsonObject) =>
  templateView({
    event: eventView({
      tenantId: 1,
      id: 'e',
      source: '/s',
      type: 'backup.failed',
      time: new Date(0),
      receivedAt: new Date(0),
      data,
    }),
    user: { id: 'u' },
    notification: { id: 'n', priority: 'NORMAL' },
    tenant: { name: 't' },
    now: new Date(0),
  })

const show = (channel: Channel, data: JsonObject, inline?: InlineContent) =>
  renderDefault(channel, viewOf(data), inline)

test('what a request brings is shown as it is, never read as a template', () => {
  const inline = { subject: 'Hi {{data.x}}', body: 'Body {{tenant.name}} <b>', data: { k: 1 } }
  assert.deepEqual(show('in_app', { x: 1 }, inline), {
    subject: 'Hi {{data.x}}',
    body: 'Body {{tenant.name}} <b>',
    data: { k: 1 },
  })
  assert.deepEqual(show('sms', {}, inline), { body: 'Body {{tenant.name}} <b>', data: { k: 1 } })
  const mail = show('email', {}, inline)
  assert.equal(mail.body, inline.body)
  assert.match(mail.html!, /Body \{\{tenant\.name\}\} &lt;b&gt;/)
  assert.equal(show('email', {}, { ...inline, html: '<i>own</i>' }).html, '<i>own</i>')
  assert.equal(show('email', {}, { subject: 's', html: '<i>own</i>' }).body, 'own')
})

// covers: AUR-099
test('without content the event speaks for itself', () => {
  assert.deepEqual(show('push', { title: 'T', message: 'M' }), { subject: 'T', body: 'M' })
  assert.deepEqual(show('push', { subject: 'S', title: 'T', body: 'B', message: 'M' }), {
    subject: 'S',
    body: 'B',
  })
  assert.deepEqual(
    show('in_app', {
      orderId: 7,
      paid: false,
      server_name: 'db-1',
      URL: 'u',
      tags: ['a', 'b'],
      nested: { x: 1 },
      none: null,
      empty: '',
    }),
    {
      subject: 'backup.failed',
      body: 'Order id: 7\nPaid: false\nServer name: db-1\nURL: u\nTags: a, b',
    },
  )
  assert.deepEqual(show('sms', { n: 1 }), { body: 'backup.failed\nN: 1' })
  assert.deepEqual(show('sms', { title: 'T', message: 'M' }), { body: 'T\nM' })
  assert.deepEqual(show('sms', { message: 'M' }), { body: 'M' })
  assert.deepEqual(show('slack', { title: '<!here>', message: 'a & b' }), {
    subject: '&lt;!here&gt;',
    body: '*&lt;!here&gt;*\na &amp; b',
  })
  assert.deepEqual(show('webhook', { n: { x: 1 } }), {
    subject: 'backup.failed',
    body: '',
    data: { n: { x: 1 } },
  })
})

test('mail keeps paragraphs and lines, and lists fields in a table', () => {
  const html = show('email', { title: 'T', message: 'one\ntwo\n\nthree' }).html!
  assert.match(html, /<p[^>]*>one<br>two<\/p>\s*<p[^>]*>three<\/p>/)
  assert.doesNotMatch(html, /<table/)
  assert.match(show('email', { disk: '<97%>' }).html!, /<td[^>]*>Disk<\/td><td[^>]*>&lt;97%&gt;<\/td>/)
})

test('any data gives a bounded body on every channel, and no markup of its own', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue()), fc.constantFrom(...CHANNELS), (data, channel) => {
      const content = show(channel, { ...(data as JsonObject), subject: undefined as never, x: '<script>"' })
      assert.ok(content.body.length < 20 * 270 + 1_000 || 'body' in data || 'message' in data)
      if (content.html) assert.doesNotMatch(content.html, /<script/)
    }),
  )
  const many = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`k${i}`, 'v'.repeat(1000)]))
  assert.equal(show('in_app', many).body.split('\n').length, 20)
})
