import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import type { Channel, Event, JsonObject } from '../types.ts'
import { revisionCache } from './cache.ts'
import {
  type TemplateRevision,
  type TemplateVariable,
  checkRevision,
  compileRevision,
  normalizeRevision,
  oneLine,
  render,
  validateRevision,
  readBy,
} from './content.ts'
import { eventView, templateView } from './view.ts'

const now = new Date('2026-11-21T10:00:00Z')

const eventOf = (data: JsonObject): Event => ({
  tenantId: 1,
  id: '0198-event',
  source: '/shop',
  type: 'order.shipped',
  subject: 'order/7',
  time: new Date('2026-11-21T09:00:00Z'),
  receivedAt: now,
  data,
})

const alice = { id: 'alice', locale: 'de-AT', timezone: 'Europe/Vienna', attributes: { name: 'Alice' } }

const viewOf = (
  data: JsonObject,
  vars: JsonObject = {},
  user: { id: string; locale?: string; timezone?: string; attributes?: JsonObject } = alice,
) =>
  templateView({
    event: eventView(eventOf(data)),
    vars,
    user,
    notification: { id: '0198-notification', priority: 'HIGH' },
    tenant: { name: 'Shop' },
    now,
  })

const revisionOf = (parts: Partial<TemplateRevision>): TemplateRevision => ({
  templateId: '0198-template',
  name: 'order-shipped',
  revision: 1,
  channels: {},
  ...parts,
})

function rendered(
  parts: Partial<TemplateRevision>,
  channel: Channel,
  locale = 'en',
  data: JsonObject = {},
  vars: JsonObject = {},
) {
  const revision = revisionOf(parts)
  validateRevision(revision)
  return render(compileRevision(revision), channel, locale, viewOf(data, vars, { ...alice, locale }))
}

// covers: ALP-085
test('a template sees the event, the rule’s variables, the reader and the tenant', () => {
  const body =
    '{{event.type}} {{event.time}} {{event.source}} {{event.subject}}|{{data.id}} {{id}}|{{vars.shop}} {{shop}} {{color}}|' +
    '{{user.id}} {{user.attributes.name}} {{user.locale}} {{user.timezone}}|{{notification.id}} {{notification.priority}}|{{tenant.name}}|{{now}}|{{data.user}}'
  const { body: text } = rendered(
    { channels: { default: { body } } },
    'in_app',
    'de-AT',
    { id: 7, color: 'red', user: 'the event’s own' },
    { shop: 'S', color: 'blue' },
  )
  assert.equal(
    text,
    'order.shipped 2026-11-21T09:00:00.000Z /shop order/7|7 7|S S red|alice Alice de-AT Europe/Vienna|0198-notification HIGH|Shop|2026-11-21T10:00:00.000Z|the event’s own',
  )
})

// covers: DIC-066
test('a channel takes its own content, else the one for all channels', () => {
  const channels = {
    default: { title: 'T', body: 'for all' },
    email: {
      subject: 'S',
      body: 'text',
      html: '<p>{{v}}</p>',
      data: { thread: 'x-{{v}}', n: 1, list: ['{{v}}', null] },
    },
  }
  assert.deepEqual(rendered({ channels }, 'push'), { subject: 'T', body: 'for all' })
  assert.deepEqual(rendered({ channels }, 'email', 'en', { v: '<1>' }), {
    subject: 'S',
    body: 'text',
    html: '<p>&lt;1&gt;</p>',
    data: { thread: 'x-<1>', n: 1, list: ['<1>', null] },
  })
  const only = compileRevision(revisionOf({ channels: { email: { body: 'x' } } }))
  assert.ok(only.has('email') && !only.has('sms'))
  assert.throws(() => render(only, 'sms', 'en', viewOf({})), {
    code: 'invalid_template',
    message: /nothing for sms/,
  })
})

// covers: DIC-067, DIC-068, DIC-078, ALP-086
test('the reader’s locale, else a shorter one, else the original; by channel or flat', () => {
  const parts: Partial<TemplateRevision> = {
    channels: {
      default: { subject: 'Hello', body: 'en' },
      email: { subject: 'Mail', body: 'en mail', data: { k: 'v' }, layout: 'none' },
    },
    translations: {
      de: { default: { subject: 'Hallo', body: 'de' }, email: { body: 'de Mail' } },
      'de-AT': { subject: 'Servus', body: 'de-AT' },
      'zh-Hant': { default: { body: '繁' } },
    },
  }
  const body = (locale: string, channel: Channel = 'in_app') => rendered(parts, channel, locale).body
  assert.equal(body('de-AT'), 'de-AT')
  assert.equal(body('de-AT', 'email'), 'de-AT', 'a flat translation holds for all channels')
  assert.equal(body('de-CH'), 'de')
  assert.equal(body('DE_ch', 'email'), 'de Mail')
  assert.equal(body('zh-hant-TW'), '繁')
  assert.equal(body('zh'), 'en')
  assert.equal(body('en-GB'), 'en')
  assert.equal(body('fr'), 'en')
  assert.equal(body(''), 'en')
  assert.deepEqual(
    rendered(parts, 'email', 'de'),
    { subject: 'Mail', body: 'de Mail', data: { k: 'v' }, language: 'de' },
    'what a translation leaves out comes from the original',
  )
})

test('a translation with text alone does not send the original’s HTML along', () => {
  const parts = {
    channels: { email: { subject: 'S', body: 'en', html: '<p>en</p>' } },
    translations: { de: { email: { body: 'de' } } },
  }
  const { html } = rendered(parts, 'email', 'de')
  assert.match(html!, /<html lang="de" dir="ltr">[\s\S]*<p[^>]*>de<\/p>/)
  assert.doesNotMatch(html!, />en</)
})

test('dates speak the language of the text around them, in the reader’s region', () => {
  const parts = {
    channels: { default: { body: '{{date event.time "date" style="long"}}' } },
    translations: { de: { body: '{{date event.time "date" style="long"}}' } },
  }
  assert.equal(rendered(parts, 'in_app', 'de-AT').body, '21. November 2026')
  assert.equal(rendered(parts, 'in_app', 'fr').body, 'November 21, 2026', 'English text, English date')
  assert.equal(rendered(parts, 'in_app', 'en-GB').body, '21 November 2026')
})

test('HTML alone gets a text alternative; text alone gets the base layout, unless it is to stay alone', () => {
  const html =
    '<style>p{}</style><h1>Hi {{name}}</h1><p>See <a href="https://x.test/a">this</a>.<img src="x.png" alt="pic"></p>'
  const content = rendered({ channels: { email: { subject: 's', html } } }, 'email', 'en', {
    name: '<A> & B',
  })
  assert.equal(content.body, 'Hi <A> & B\n\nSee this [https://x.test/a].')
  assert.deepEqual(rendered({ channels: { email: { subject: 's', body: 'b', layout: 'none' } } }, 'email'), {
    subject: 's',
    body: 'b',
  })
  const mail = rendered(
    {
      channels: {
        email: {
          subject: 'Hi {{name}}',
          body: 'One\ntwo\n\n{{name}}',
          image: 'https://x.test/p.png?a=1&b=2',
          actions: [{ label: 'Go <there>', url: 'https://x.test/{{urlencode name}}' }, { label: 'Answer' }],
        },
      },
    },
    'email',
    'en',
    { name: '<b>"Ann"</b>' },
  )
  assert.match(mail.html!, /^<!doctype html>\n<html lang="en" dir="ltr">/)
  assert.match(mail.html!, /<meta name="color-scheme" content="light dark">/)
  assert.match(mail.html!, /<title>Hi &lt;b&gt;&quot;Ann&quot;&lt;\/b&gt;<\/title>/)
  assert.match(mail.html!, /<p[^>]*>One<br>two<\/p>\n<p[^>]*>&lt;b&gt;&quot;Ann&quot;&lt;\/b&gt;<\/p>/)
  assert.match(mail.html!, /<img src="https:\/\/x\.test\/p\.png\?a&#x3D;1&amp;b&#x3D;2" alt=""/)
  assert.match(
    mail.html!,
    /<a href="https:\/\/x\.test\/%3Cb%3E%22Ann%22%3C%2Fb%3E"[^>]*>Go &lt;there&gt;<\/a>/,
  )
  assert.doesNotMatch(mail.html!, /Answer|(?<!-)color:|background/, 'no dead buttons, no colours to invert')
  const fragment = { email: { subject: 's', html: '<p>own</p>', layout: 'base' as const } }
  assert.match(rendered({ channels: fragment }, 'email').html!, /^<!doctype[\s\S]*<p>own<\/p>/)
})

test('a mail says which language it is in, and which way that is read', () => {
  const parts = (html: string) => ({
    channels: { email: { subject: 's', html: '<p>x</p>' }, default: { body: 'x' } },
    translations: { ar: { email: { html } }, de: { email: { html } }, he: { body: 'שלום' } },
  })
  const said = (html: string, locale: string) => rendered(parts(html), 'email', locale).html
  assert.equal(said('<p>x</p>', 'ar-EG'), '<div dir="rtl" lang="ar"><p>x</p></div>')
  assert.equal(said('<p>x</p>', 'de'), '<p>x</p>')
  assert.equal(
    said('<!doctype html><HTML><body></body></HTML>', 'ar'),
    '<!doctype html><HTML lang="ar" dir="rtl"><body></body></HTML>',
  )
  assert.equal(said('<html class="a"><p>x</p></html>', 'de'), '<html lang="de" class="a"><p>x</p></html>')
  assert.equal(said('<html lang="x" dir="ltr"></html>', 'ar'), '<html lang="x" dir="ltr"></html>')
  assert.match(said('', 'he')!, /<html lang="he" dir="rtl">/)
})

// covers: PFM-167
test('what an SMS marks as fit is shortened, no more than needed, where that saves a segment', () => {
  const sms = (body: string, data: JsonObject) =>
    rendered({ channels: { sms: { body } } }, 'sms', 'en', data).body
  const rest = 'x'.repeat(130)
  const name = 'The long name of an account that somebody gave it'
  const text = sms(`{{fit name}}: ${rest}`, { name })
  assert.equal(text, `${name.slice(0, 27)}.: ${rest}`)
  assert.equal(text.length, 160)
  assert.equal(sms(`{{fit name}}: ok`, { name }), `${name}: ok`, 'it fits')
  assert.equal(sms(`{{name}}: ${rest}`, { name }), `${name}: ${rest}`, 'nothing is marked')
  assert.equal(
    sms(`{{fit name}}: ${rest}${rest}`, { name: 'Ann' }),
    `Ann: ${rest}${rest}`,
    'it would save nothing',
  )
  const both = sms(`{{fit a}} {{upper (fit b)}} ${rest}`, { a: name, b: 'é'.repeat(40) })
  assert.ok(both.length <= 160 && both.endsWith(rest))
  assert.equal(
    rendered({ channels: { email: { body: `{{fit name}}${rest}`, layout: 'none' } } }, 'email', 'en', {
      name,
    }).body,
    `${name}${rest}`,
    'only in SMS',
  )
})

test('variables are of their type, where they are given', () => {
  const variables: TemplateVariable[] = [
    { name: 'n', type: 'number' },
    { name: 'on', type: 'boolean' },
    { name: 'at', type: 'date' },
    { name: 'list', type: 'array' },
    { name: 'who', type: 'string' },
  ]
  const channels = { default: { body: '{{n}}|{{#if on}}yes{{else}}no{{/if}}|{{at}}|{{join list}}|{{who}}' } }
  const said = (data: JsonObject) => rendered({ channels, variables }, 'in_app', 'en', data).body
  assert.equal(said({}), '|no|||')
  assert.equal(
    said({ n: '12', on: 'false', at: '2026-01-02', list: '[1,2]', who: 5 }),
    '12|no|2026-01-02|1, 2|5',
  )
  assert.match(said({ on: 'true', who: null }), /yes/)
  for (const [data, message] of [
    [{ n: 'many' }, /"n" must be a number/],
    [{ on: 'maybe' }, /"on" must be true or false/],
    [{ at: 'soon' }, /"at" must be a time/],
    [{ list: 'a' }, /"list" must be a list/],
    [{ who: {} }, /"who" must be text/],
  ] as const) {
    assert.throws(() => said(data), { code: 'invalid_template', message })
  }
  const wrong = { channels, variables: [{ name: 'n', type: 'number' as const, default: 'x' }] }
  assert.deepEqual(checkRevision(wrong), [{ field: '/variables/0/default', message: 'must be a number' }])
})

test('a subject is one line, whatever the data', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 1200 }), v => {
      const { subject } = rendered(
        { channels: { email: { subject: 'S {{v}}', body: 'b' } } },
        'email',
        'en',
        { v: `${v}\r\nBcc: x\u2028` },
      )
      // oxlint-disable-next-line no-control-regex -- these must be gone
      assert.doesNotMatch(subject!, /[\u0000-\u001f\u007f\u2028\u2029]/)
      assert.ok(subject!.length <= 998)
    }),
    { numRuns: 50 },
  )
  assert.equal(oneLine(' a\r\n\tb '), 'a b')
})

// covers: DIC-071, DIC-074, DIC-075
test('a Slack body may be blocks; data breaks neither JSON nor mentions', () => {
  const body = JSON.stringify({
    blocks: [
      { type: 'header', text: { type: 'plain_text', text: '{{Title}}' } },
      { type: 'section', text: { type: 'mrkdwn', text: '*{{Message}}*' } },
      {
        type: 'actions',
        elements: [{ type: 'button', text: { type: 'plain_text', text: 'View' }, url: '{{URL}}' }],
      },
    ],
  })
  const data = { Title: 'He said "no"\n', Message: '<!channel> \\ "}]', URL: 'https://x.test/?a=1&b=2' }
  assert.deepEqual(rendered({ channels: { slack: { body } } }, 'slack', 'en', data), {
    body: 'He said "no"\n\n*&lt;!channel&gt; \\ "}]*\nView',
    data: {
      blocks: [
        { type: 'header', text: { type: 'plain_text', text: 'He said "no"\n' } },
        { type: 'section', text: { type: 'mrkdwn', text: '*&lt;!channel&gt; \\ "}]*' } },
        {
          type: 'actions',
          elements: [{ type: 'button', text: { type: 'plain_text', text: 'View' }, url: data.URL }],
        },
      ],
    },
  })
  assert.deepEqual(
    rendered({ channels: { slack: { body: '[{{Title}}] <{{URL}}|more> {{Message}}' } } }, 'slack', 'en', {
      ...data,
      Title: 'T',
    }),
    {
      body: '[T] <https://x.test/?a=1&amp;b=2|more> &lt;!channel&gt; \\ "}]',
    },
  )
})

test('data may be a JSON text, whose result is parsed', () => {
  const content = rendered(
    { channels: { webhook: { body: 'b', data: '{"id": {{id}}, "note": "{{note}}", "tags": {{tags}} }' } } },
    'webhook',
    'en',
    {
      id: 7,
      note: '", "admin": "yes',
      tags: ['a', 'b'],
    },
  )
  assert.deepEqual(content.data, { id: 7, note: '", "admin": "yes', tags: ['a', 'b'] })
})

// covers: DIC-077
test('texts that hold JSON are decoded where the variables say so', () => {
  const channels = { default: { body: '{{#each Metrics}}{{@key}}={{this}} {{/each}}{{Note}}' } }
  const vars = { Metrics: '{"cpu": 90}', Note: '[1]' }
  assert.equal(
    rendered({ channels, variables: [{ name: 'Metrics', type: 'object' }] }, 'sms', 'en', {}, vars).body,
    'cpu=90 [1]',
  )
  assert.equal(rendered({ channels }, 'sms', 'en', {}, vars).body, '[1]')
  assert.throws(
    () =>
      rendered(
        { channels, variables: [{ name: 'Metrics', type: 'object' }] },
        'sms',
        'en',
        {},
        { Metrics: '{oops' },
      ),
    { code: 'invalid_template', message: /"Metrics" must be an object/ },
  )
})

// covers: ALP-088
test('defaults fill in and required variables are required', () => {
  const parts: Partial<TemplateRevision> = {
    channels: { default: { body: 'Hi {{name}} {{n}}' } },
    variables: [
      { name: 'name', default: 'you' },
      { name: 'n', required: true },
    ],
  }
  assert.equal(rendered(parts, 'sms', 'en', { n: 0 }).body, 'Hi you 0')
  assert.equal(rendered(parts, 'sms', 'en', {}, { n: 1, name: 'A' }).body, 'Hi A 1')
  assert.throws(() => rendered(parts, 'sms', 'en', { n: null }), {
    code: 'invalid_template',
    message: /"n" is required/,
  })
})

test('rendering is pure: the same view, the same content, and the view unchanged', () => {
  const compiled = compileRevision(
    revisionOf({
      channels: { default: { subject: '{{now}}', body: '{{json data}}{{#each items}}{{a}}{{/each}}' } },
    }),
  )
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.jsonValue({ maxDepth: 2 })), data => {
      const view = viewOf(data as JsonObject)
      const before = JSON.stringify(view)
      const first = render(compiled, 'push', 'en', view)
      assert.deepEqual(render(compiled, 'push', 'en', view), first)
      assert.equal(JSON.stringify(view), before)
    }),
  )
})

test('every mistake is reported with its pointer and place', () => {
  const problems = checkRevision({
    channels: {
      email: { subject: '{{#if a}}', body: 'ok', html: 'line 1\n{{{raw}}}' },
      sms: {},
      slack: { body: '{"blocks": [{{#each a}}]}' },
      webhook: { body: 'x', data: { deep: { text: '{{> p}}' } } },
      push: { body: 'x', data: '{"a": {{b}} ' },
      // @ts-expect-error what comes over HTTP may hold any name
      fax: { body: 'x' },
    },
    translations: { de: { body: '{{nope x}}' }, 'not a locale': { body: 'x' } },
    variables: [{ name: 'a' }, { name: 'a' }],
  })
  assert.deepEqual(
    problems.map(({ field, line, column }) => [field, line, column]),
    [
      ['/channels/email/subject', 1, 10],
      ['/channels/email/html', 2, 1],
      ['/channels/sms', undefined, undefined],
      ['/channels/slack/body', 1, 26],
      ['/channels/webhook/data/deep/text', 1, 1],
      ['/channels/push/data', undefined, undefined],
      ['/channels/fax', undefined, undefined],
      ['/translations/de/body', 1, 1],
      ['/translations/not a locale', undefined, undefined],
      ['/variables/1/name', undefined, undefined],
    ],
  )
  assert.throws(
    () => validateRevision({ channels: { sms: { body: '{{#if}}' } } }),
    (error: unknown) => error instanceof AppError && error.errors?.[0]?.field === '/channels/sms/body',
  )
  assert.deepEqual(
    checkRevision({ channels: {} }).map(p => p.field),
    ['/channels'],
  )
})

// covers: DIC-076
test('Go-style texts are translated and locales put in canonical case when a revision is saved', () => {
  const saved = normalizeRevision({
    name: 'n',
    locale: 'EN_us',
    channels: { email: { subject: '[{{.Priority}}]', body: '{{if .A}}x{{end}}', html: '{{handle}}' } },
    translations: { de_at: { body: '{{.A}}' }, FR: { sms: { body: '{{range .L}}{{.}}{{end}}' } } },
  })
  assert.deepEqual(saved, {
    name: 'n',
    locale: 'en-US',
    channels: { email: { subject: '[{{Priority}}]', body: '{{#if A}}x{{/if}}', html: '{{handle}}' } },
    translations: { 'de-AT': { body: '{{A}}' }, fr: { sms: { body: '{{#each L}}{{this}}{{/each}}' } } },
  })
  assert.throws(
    () =>
      normalizeRevision({
        name: 'n',
        channels: { sms: { body: '\n{{printf "x" .A}}' } },
        translations: { de: { body: '{{.A' + '}}{{end}}' }, DE: {} },
      }),
    (error: unknown) =>
      error instanceof AppError &&
      error.code === 'invalid_template' &&
      error.errors!.length === 3 &&
      error.errors!.some(e => e.field === '/channels/sms/body') &&
      error.errors!.some(e => e.field === '/translations/de/body'),
  )
})

test('variables of a revision are those of all its texts', () => {
  const { fields: found } = readBy({
    channels: { email: { subject: '{{a}}', html: '{{b}}' } },
    translations: { de: { body: '{{c}}' } },
  })
  assert.deepEqual(found.toSorted(), ['a', 'b', 'c'])
})

// covers: PFM-155
test('a revision is compiled once and kept', () => {
  const cache = revisionCache(1_000)
  const revision = revisionOf({ channels: { sms: { body: 'x' } } })
  const compiled = cache.compile(1, revision)
  assert.equal(cache.compile(1, { ...revision }), compiled)
  assert.equal(cache.get(1, revision.templateId, 1), compiled)
  assert.equal(cache.get(1, revision.templateId, 2), undefined)
  assert.equal(cache.get(2, revision.templateId, 1), undefined, 'of its own tenant only')
  for (let i = 2; i < 40; i++) cache.compile(1, { ...revision, revision: i })
  assert.equal(cache.get(1, revision.templateId, 1), undefined, 'bounded: the oldest made room')
  assert.equal(
    compiled.select('sms', 'en').content,
    compiled.select('sms', 'de').content,
    'one content, compiled once',
  )
})
