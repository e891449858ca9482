import assert from 'node:assert/strict'
import { test } from 'node:test'
import { AppError } from '../errors.ts'
import { type ChannelContents, compileRevision, render } from './content.ts'
import { CLIPPED_BYTES, compileMarkup, warningsOf } from './publish.ts'
import { type TemplateDefinition, publishable } from './templates.ts'

const definition = (
  channels: ChannelContents,
  more: Partial<TemplateDefinition> = {},
): TemplateDefinition => ({
  name: 'news',
  description: '',
  category: '',
  tags: [],
  enabled: true,
  locale: 'en',
  channels,
  translations: {},
  variables: [],
  messages: {},
  partials: {},
  ...more,
})
const view = (data: Record<string, unknown>) => ({
  names: { data },
  layers: [data],
  locale: 'en',
  timezone: 'UTC',
})
const said = async (channels: ChannelContents, data: Record<string, unknown>) => {
  const prepared = await publishable(definition(channels), () => ({}))
  return render(compileRevision({ ...prepared, templateId: 't', revision: 1 }), 'email', 'en', view(data))
}

const MJML = `<mjml><mj-body><mj-section><mj-column>
<mj-text>Hello {{data.name}}</mj-text>
<mj-raw>{{#each data.items}}</mj-raw>
<mj-button href="{{this.url}}">{{this.label}}</mj-button>
<mj-raw>{{/each}}</mj-raw>
</mj-column></mj-section></mj-body></mjml>`

test('a mail of MJML loads nothing from anybody, unless it names a font itself', async () => {
  const { html } = await said({ email: { mjml: MJML } }, { name: 'Ann', items: [] })
  assert.doesNotMatch(html!, /googleapis|@import|<link/)
  const font = '<mj-head><mj-font name="Lato" href="https://fonts.test/lato.css" /></mj-head><mj-body>'
  const own = MJML.replace('<mj-body>', font).replace('<mj-text>', '<mj-text font-family="Lato">')
  assert.match((await said({ email: { mjml: own } }, { name: 'Ann', items: [] })).html!, /fonts\.test/)
})

test('MJML becomes HTML when it is saved; its Handlebars are rendered and escaped like any other', async () => {
  const { html, body } = await said(
    { email: { subject: 'Hi', mjml: MJML } },
    {
      name: '<b>Ann</b>',
      items: [
        { url: 'https://example.org/a?b=1&c=2', label: 'One' },
        { url: 'https://example.org/2', label: 'Two' },
      ],
    },
  )
  assert.match(html!, /Hello &lt;b&gt;Ann&lt;\/b&gt;/)
  assert.match(
    html!,
    /href="https:\/\/example\.org\/a\?b&#x3D;1&amp;c&#x3D;2"|href="https:\/\/example\.org\/a\?b=1&amp;c=2"/,
  )
  assert.match(html!, />\s*Two\s*</)
  assert.match(body, /Hello <b>Ann<\/b>/)
  assert.doesNotMatch(html!, /<mj-/)
})

test('MJML may leave colours and pictures to the data, and says which language it is in', async () => {
  const mjml = `<mjml><mj-body><mj-section background-url="{{data.picture}}"><mj-column>
<mj-text color="{{data.colour}}">Hello</mj-text></mj-column></mj-section></mj-body></mjml>`
  const shown = async (colour: string) =>
    (await said({ email: { mjml } }, { colour, picture: 'https://x.test/p.png' })).html!
  assert.match(await shown('#123456'), /color:#123456;/)
  assert.match(await shown('red;position:fixed'), /color:redpositionfixed;/)
  assert.match(await shown('red'), /url\('https:\/\/x\.test\/p\.png'\)/)
  assert.match(await shown('red'), /<html lang="en" dir="ltr" xmlns/)
})

test('a mistake in MJML is named with its line; nothing is read from the server', async () => {
  const refused = async (mjml: string) => {
    const error = await compileMarkup(definition({ email: { mjml } })).then(
      () => assert.fail('was taken'),
      (cause: unknown) => cause,
    )
    assert.ok(error instanceof AppError)
    assert.equal(error.code, 'invalid_template')
    return error.errors![0]!
  }
  const wrong = await refused('<mjml>\n<mj-body>\n<mj-foo />\n</mj-body>\n</mjml>')
  assert.deepEqual([wrong.field, (wrong as { line?: number }).line], ['/channels/email/mjml', 3])
  assert.match(wrong.message, /mj-foo/)
  assert.match((await refused('<p>no</p>')).message, /begins with <mjml>/)
  const included = await compileMarkup(
    definition({
      email: { mjml: '<mjml><mj-body><mj-include path="/etc/passwd" type="html" /></mj-body></mjml>' },
    }),
  ).catch((error: unknown) => error as AppError)
  assert.doesNotMatch(JSON.stringify(included), /root:/)
})

test('styles move into their elements, media queries stay, and blocks around table rows stay where they are', async () => {
  const html = `<!doctype html><html><head><style>td { color: #123456 } @media (max-width: 600px) { td { color: red } }</style></head>
<body><table>{{#each data.rows}}<tr><td>{{this}}</td></tr>{{/each}}</table></body></html>`
  const { html: made } = await said({ email: { html } }, { rows: ['a', 'b'] })
  assert.equal(made!.match(/<td style="color: #123456;?">/g)?.length, 2)
  assert.match(made!, /@media \(max-width: 600px\)/)
  assert.match(made!, /<table>\s*(?:<tbody>)?\s*<tr>/)
  const plain = '<p>{{data.x}}</p>'
  assert.equal((await compileMarkup(definition({ email: { html: plain } }))).channels.email!.html, plain)
})

test('pictures and buttons are templates too; those without a usable link are left out', async () => {
  const channels: ChannelContents = {
    default: {
      subject: 'Order',
      body: 'x',
      image: '{{data.picture}}',
      actions: [
        { label: 'See {{data.number}}', url: 'https://shop.example/orders/{{data.number}}' },
        { label: 'Track', url: '{{data.tracking}}' },
        { id: 'ack', label: 'Done' },
      ],
    },
  }
  const all = await said(channels, {
    number: 7,
    picture: 'https://shop.example/7.png',
    tracking: 'https://t.example/7',
  })
  assert.equal(all.image, 'https://shop.example/7.png')
  assert.deepEqual(all.actions, [
    { id: 'action-1', label: 'See 7', url: 'https://shop.example/orders/7' },
    { id: 'action-2', label: 'Track', url: 'https://t.example/7' },
    { id: 'ack', label: 'Done' },
  ])
  const few = await said(channels, { number: 8, picture: 'javascript:alert(1)', tracking: '' })
  assert.equal(few.image, undefined)
  assert.deepEqual(
    few.actions?.map(action => action.id),
    ['action-1', 'ack'],
  )
  await assert.rejects(said({ default: { body: 'x', actions: [{ label: '{{#if' }] } }, {}), {
    code: 'invalid_template',
  })
})

test('what is worth knowing is said: clipped mails, wide or long SMS, languages that lack a channel', () => {
  const warnings = warningsOf(
    definition(
      {
        email: { html: 'x'.repeat(CLIPPED_BYTES + 1) },
        sms: { body: 'Hi {{data.name}} 🎉' },
        push: { body: 'x' },
      },
      { translations: { de: { email: { html: 'x' } }, fr: { body: 'x' } } },
    ),
  )
  assert.deepEqual(
    warnings.map(({ field }) => field),
    ['/channels/email/html', '/channels/sms/body', '/translations/de'],
  )
  assert.match(warnings[2]!.message, /sms, push: those are sent in en/)
  assert.match(warningsOf(definition({ sms: { body: 'a'.repeat(161) } }))[0]!.message, /more than one SMS/)
  assert.deepEqual(warningsOf(definition({ sms: { body: `{{data.${'long'.repeat(50)}}}` } })), [])
})

test('names of partials come through MJML and through styles; a layout keeps its style sheet for what it frames', async () => {
  const compiled = async (content: object): Promise<string> =>
    (await compileMarkup(definition({ email: content }))).channels.email!.html!
  const mjml =
    '<mjml><mj-body><mj-section><mj-column><mj-text>{{> sign name=x}}{{#> box}}<b>in</b>{{/box}}</mj-text>' +
    '<mj-button href="{{> url}}">Go</mj-button></mj-column></mj-section></mj-body></mjml>'
  const html = await compiled({ mjml })
  for (const tag of ['{{> sign name=x}}', '{{#> box}}', '{{/box}}', 'href="{{> url}}"']) {
    assert.ok(html.includes(tag), tag)
  }
  const style = '<style>.a { color: red }</style>'
  assert.equal(
    await compiled({ html: `${style}{{#> base}}<p class="a">{{> x}}</p>{{/base}}` }),
    '{{#> base}}<p class="a" style="color: red;">{{> x}}</p>{{/base}}',
  )
  assert.match(
    await compiled({ html: `${style}<p class="a">{{> @partial-block}}</p>` }),
    /<style>.*style="color: red;"/,
  )
})

test('a variable counts as read wherever a template stands: in buttons, pictures and data as well', () => {
  const unread = (channels: object) =>
    warningsOf({
      channels,
      translations: {},
      variables: [{ name: 'url' }, { name: 'picture' }, { name: 'order' }],
    })
  const actions = [{ label: 'Go', url: '{{url}}' }]
  const push = { body: 'x', image: '{{picture}}', actions, data: { deep: ['{{order}}'] } }
  assert.deepEqual(unread({ push }), [])
  assert.deepEqual(
    unread({ push: { body: 'x', data: '{"order": {{order}} }' } }).map(({ message }) => message),
    ['No text reads "url"', 'No text reads "picture"'],
  )
})

test('however many comments stand before what is no MJML, it is refused', async () => {
  // 40 of them used to take hours.
  const mjml = `${'<!--a-->\n'.repeat(10_000)}x</mjml>`
  await assert.rejects(compileMarkup(definition({ email: { mjml } })), /MJML begins with <mjml>/)
  await assert.rejects(
    compileMarkup(definition({ email: { mjml: '<!-- open <mjml></mjml>' } })),
    /MJML begins with <mjml>/,
  )
  const fine = '<!-- one -->\n<!-- <mjml> -->\n<mjml><mj-body></mj-body></mjml>\n'
  const { channels } = await compileMarkup(definition({ email: { mjml: fine } }))
  assert.match(channels.email!.html!, /<html/)
})
