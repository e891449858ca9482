import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

const as = () => t.other.adminKey
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: as(), body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const refused = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: as(), body })
  assert.ok(answer.status >= 400, `${method} ${path} was taken`)
  return answer.body
}
const html = (body: string) => ({ channels: { email: { subject: 's', html: body } } })
const make = (name: string, body: string, more: object = {}): Promise<Loose> =>
  call('POST', '/api/templates', { name, ...html(body), ...more })
const preview = async (templateId: string, more: object = {}): Promise<string> =>
  (await call('POST', '/api/notifications/preview', { templateId, channel: 'email', ...more })).content.html

test('a layout is copied when a template is saved; a newer one names who is still sent with the older', async () => {
  const brand = await make('brand', '<html><body>one {{> @partial-block}}</body></html>')
  assert.deepEqual(brand.usedBy, [])
  const letter = await make('letter', '{{#> brand}}{{> sign}}{{/brand}}', { partials: { sign: 'by {{x}}' } })
  assert.deepEqual(letter.layouts, [{ name: 'brand', templateId: brand.id, revision: 1 }])
  const note = await make('note', '{{#> letter}}inner{{/letter}}')
  const data = { x: 'X' }
  assert.equal(await preview('letter', { data }), '<html lang="en"><body>one by X</body></html>')

  const changed = await call('PUT', `/api/templates/${brand.id}`, {
    name: 'brand',
    ...html('<html><body>two {{> @partial-block}}</body></html>'),
  })
  assert.deepEqual(changed.usedBy, [{ id: letter.id, name: 'letter', revision: 1 }])
  // Whoever was saved before says what it said.
  assert.equal(await preview('letter', { data }), '<html lang="en"><body>one by X</body></html>')
  // Whoever is saved after, what is published then.
  assert.match(await preview((await make('other', '{{#> brand}}{{/brand}}')).id), /two/)

  // With republish all follow, and those that take in these; drafts stay drafts, and follow too.
  await call('PUT', `/api/templates/${letter.id}`, {
    name: 'letter',
    draft: true,
    ...html('{{#> brand}}draft{{/brand}}'),
  })
  const again = await call('PUT', `/api/templates/${brand.id}`, {
    name: 'brand',
    ...html('<html><body>three {{> @partial-block}}</body></html>'),
    republish: true,
  })
  assert.deepEqual(again.usedBy, [])
  assert.equal(await preview('letter', { data }), '<html lang="en"><body>three by X</body></html>')
  assert.equal(await preview('note', { data }), '<html lang="en"><body>three by X</body></html>')
  assert.equal(
    await preview('letter', { revision: 'last' }),
    '<html lang="en"><body>three draft</body></html>',
  )
  assert.equal(await preview('letter', { revision: 1, data }), '<html lang="en"><body>one by X</body></html>')
  const { items } = await call('GET', `/api/templates/${letter.id}/versions`)
  assert.deepEqual(
    items.map((one: Loose) => [one.revision, one.status]),
    [
      [4, 'draft'],
      [3, 'published'],
      [2, 'earlier'],
      [1, 'earlier'],
    ],
  )
  const { changes } = await call('GET', `/api/templates/${letter.id}/diff?from=1&to=3`)
  assert.deepEqual(
    changes.find((one: Loose) => one.field === '/layouts/brand/revision'),
    { field: '/layouts/brand/revision', before: 1, after: 3 },
  )
  const { items: log } = await call('GET', '/api/audit?limit=100')
  assert.deepEqual(
    log
      .filter((one: Loose) => one.action === 'template.republished')
      .map((one: Loose) => `${one.details.name} for ${one.details.layout}`)
      .toSorted(),
    ['letter for brand', 'note for letter', 'other for brand'],
  )

  // What an earlier revision took in comes back with it.
  await call('POST', `/api/templates/${letter.id}/rollback`, { revision: 1 })
  assert.equal(await preview('letter', { data }), '<html lang="en"><body>one by X</body></html>')
  const back = await call('POST', `/api/templates/${brand.id}/rollback`, { revision: 1, republish: true })
  assert.deepEqual(back.usedBy, [])
  assert.equal(await preview('note', { data }), '<html lang="en"><body>one by X</body></html>')

  assert.match((await refused('DELETE', `/api/templates/${brand.id}`)).detail, /take it in: letter/)
  await call('DELETE', `/api/templates/${note.id}`)
})

test('a layout that its users do not fit any more is not published with them, nor without being said', async () => {
  const frame = await make('frame', '<p>{{> @partial-block}}</p>')
  const user = await make('framed', '{{#> frame}}{{x}}{{/frame}}')
  const change = { name: 'frame', ...html('<script>{{> @partial-block}}</script>') }
  const error = await refused('PUT', `/api/templates/${frame.id}`, { ...change, republish: true })
  assert.equal(error.code, 'invalid_template')
  assert.match(error.detail, /"framed": .*line 1, column 13/)
  assert.equal((await call('GET', `/api/templates/${frame.id}`)).revision, 1, 'nothing was kept')
  assert.deepEqual(
    (await call('PUT', `/api/templates/${frame.id}`, change)).usedBy.map((one: Loose) => one.name),
    ['framed'],
  )
  assert.equal((await call('GET', `/api/templates/${user.id}`)).revision, 1)
})

test('a template names a bounded number of others', async () => {
  const many = Array.from({ length: 21 }, (_, i) => `{{> other-${i}}}`).join('')
  const error = await refused('POST', '/api/templates', { name: 'many', ...html(many) })
  assert.match(error.detail, /more than 20 other/)
  assert.equal(error.errors[0].field, '/channels')
  // Nor are more read to be checked.
  const { id } = await make('few', 'x')
  const verdict = await call('POST', `/api/templates/${id}/validate`, html(many))
  assert.deepEqual([verdict.valid, verdict.errors.length], [false, 1])
  assert.match(verdict.errors[0].message, /more than 20 other/)
})

test('templates do not take in each other, nor themselves, nor another tenant’s', async () => {
  const a = await make('ring-a', 'a')
  await make('ring-b', 'b{{> ring-a}}')
  assert.match(
    (await refused('PUT', `/api/templates/${a.id}`, { name: 'ring-a', ...html('{{> ring-b}}') })).detail,
    /"ring-b" takes in this template/,
  )
  const self = await refused('PUT', `/api/templates/${a.id}`, { name: 'ring-a', ...html('{{> ring-a}}') })
  assert.match(self.detail, /there is no partial "ring-a"/)
  // A template called base is everybody's base but its own, which is the one that is always there.
  const base = await make('base', '{{#> base}}Mine: {{> @partial-block}}{{/base}}')
  const mail = await preview((await make('with-base', '{{#> base}}text{{/base}}')).id)
  assert.match(mail, /^<!doctype html>[^]*Mine: text/)
  assert.equal(mail.match(/<html/g)!.length, 1)
  await refused('DELETE', `/api/templates/${base.id}`)

  const stranger = await t.call('POST', '/api/templates', {
    as: t.tenant.adminKey,
    body: { name: 'theirs', ...html('x\n {{> ring-a}}') },
  })
  assert.equal(stranger.status, 400)
  assert.equal(stranger.body.errors[0].field, '/channels/email/html')
  assert.match(stranger.body.errors[0].message, /^line 2, column 2: there is no partial "ring-a"/)
})

test('drafts, previews, validation and languages know partials', async () => {
  const draft = { ...html('{{#> base}}{{> p n=1}}{{/base}}'), partials: { p: 'P{{n}}{{x}}' } }
  const shown = await call('POST', '/api/notifications/preview', { draft, channel: 'email', data: { x: 2 } })
  assert.match(shown.content.html, /P12/)
  const { id } = await make('languages', '{{> p}}', { partials: { p: 'P {{x}}' } })
  const verdict = await call('POST', `/api/templates/${id}/validate`, draft)
  assert.deepEqual([verdict.valid, verdict.fields.toSorted()], [true, ['x']])
  const wrong = await call('POST', `/api/templates/${id}/validate`, {
    ...draft,
    partials: { p: '{{#each}}' },
  })
  assert.deepEqual([wrong.valid, wrong.errors[0].field], [false, '/partials/p'])
  await call('POST', `/api/templates/${id}/localize`, { locale: 'de', content: { html: 'DE {{> p}}' } })
  assert.equal(await preview('languages', { locale: 'de', data: { x: 1 } }), 'DE P 1')

  // Over the API a text is a text: files are for whoever has the folder.
  for (const body of [{ file: '/etc/passwd' }, { file: 'email/goal.hbs' }]) {
    const { errors } = await refused('POST', '/api/templates', { name: 'f', channels: { email: { body } } })
    assert.equal(errors[0].field, '/channels/email/body')
  }
  const files = await refused('POST', '/api/templates', {
    name: 'f',
    ...html('x'),
    partials: { a: { file: 'b' } },
  })
  assert.equal(files.errors[0].field, '/partials/a')
})

test('a template published while another takes it in is not missed', async () => {
  const layout = await make('raced', 'one {{> @partial-block}}')
  const users = await Promise.all([
    ...Array.from({ length: 6 }, (_, i) =>
      t.call('POST', '/api/templates', { as: as(), body: { name: `racer ${i}`, ...html('{{> raced}}') } }),
    ),
    call('PUT', `/api/templates/${layout.id}`, { name: 'raced', ...html('two'), republish: true }),
  ])
  // Each was saved with the one before and told or made anew, saved with the new one, or asked to try again.
  for (const [i, { status, body }] of users.slice(0, 6).entries()) {
    if (status === 409) continue
    assert.equal(status, 201)
    const { layouts } = await call('GET', `/api/templates/${body.id}`)
    assert.equal(layouts[0].revision, 2, `racer ${i}`)
  }
})
