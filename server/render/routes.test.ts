import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '../db/ids.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { templateRoutes } from './routes.ts'
import { templates } from './templates.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [templateRoutes] })
})
after(() => t.close())

let made = 0
const draft = (more: object = {}) => ({
  name: `template ${++made}`,
  channels: { email: { subject: 'Order {{id}}', html: '<p>{{id}}</p>' }, default: { body: 'Order {{id}}' } },
  ...more,
})

async function call(method: string, url: string, payload?: object, as = t.tenant.adminKey) {
  const response = await t.request(method, url, { as, ...(payload && { payload }) })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.body === '' ? undefined : response.json(),
  }
}

async function create(more: object = {}): Promise<{ id: string; [field: string]: unknown }> {
  const { status, body } = await call('POST', '/api/templates', draft(more))
  assert.equal(status, 201, JSON.stringify(body))
  return body
}

test('every route keeps the rules of routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

// covers: ALP-135, ALP-145, DIC-065, DIC-148
test('a template is made and read back whole', async () => {
  const given = draft({
    description: 'd',
    category: 'ORDERS',
    tags: ['a', 'b'],
    locale: 'EN-us',
    translations: {
      de: { body: 'Bestellung {{id}}' },
      fr_CA: { email: { subject: 'C', htmlBody: '<p>c</p>' } },
    },
    variables: [{ name: 'id', type: 'string', required: true }],
  })
  const { status, headers, body } = await call('POST', '/api/templates', given)
  assert.equal(status, 201)
  assert.equal(headers.location, `/api/templates/${body.id}`)
  const { id, createdBy, createdAt, updatedAt, warnings, ...rest } = body
  assert.ok(createdBy && createdAt === updatedAt)
  assert.deepEqual(rest, {
    ...given,
    enabled: true,
    revision: 1,
    publishedRevision: 1,
    lastRevision: 1,
    version: '1.0.0',
    schemaVersion: '1.0',
    locale: 'en-US',
    partials: {},
    layouts: [],
    usedBy: [],
    messages: {},
    translations: {
      de: { body: 'Bestellung {{id}}' },
      'fr-CA': { email: { subject: 'C', html: '<p>c</p>' } },
    },
    locales: ['de', 'fr-CA'],
  })
  assert.deepEqual(warnings, [
    { field: '/translations/fr-CA', message: 'Nothing for default: those are sent in en-US' },
  ])
  const read = (await call('GET', `/api/templates/${id}`)).body
  assert.deepEqual({ ...read, warnings, usedBy: [] }, body)
})

// covers: ALP-136, ALP-137, DIC-018
test('an update is a new revision; the old ones stay as they were', async () => {
  const { id, name } = await create({ version: '2.4' })
  const changed = await call('PUT', `/api/templates/${id}`, {
    name,
    channels: { sms: { body: 'two' } },
    enabled: false,
  })
  assert.equal(changed.status, 200)
  assert.deepEqual([changed.body.revision, changed.body.version, changed.body.enabled], [2, '2.5', false])
  await call('PUT', `/api/templates/${id}`, {
    name: `${name} renamed`,
    version: 'final',
    channels: { sms: { body: 'three' } },
  })

  const first = await call('GET', `/api/templates/${id}?revision=1`)
  assert.equal(first.body.channels.default.body, 'Order {{id}}')
  assert.equal(first.body.version, '2.4')
  assert.equal((await call('GET', `/api/templates/${id}`)).body.channels.sms.body, 'three')
  assert.equal((await call('GET', `/api/templates/${id}?revision=9`)).status, 404)

  const page = await call('GET', `/api/templates/${id}/versions?limit=2`)
  assert.deepEqual(
    page.body.items.map((v: { revision: number; version: string }) => [v.revision, v.version]),
    [
      [3, 'final'],
      [2, '2.5'],
    ],
  )
  const rest = await call('GET', `/api/templates/${id}/versions?limit=2&cursor=${page.body.nextCursor}`)
  assert.deepEqual(
    rest.body.items.map((v: { revision: number }) => v.revision),
    [1],
  )
  assert.deepEqual(rest.body.items[0].channels.toSorted(), ['default', 'email'])
  assert.equal(rest.body.nextCursor, null)
})

test('two people who change the same revision: the second learns of it', async () => {
  const { id, name } = await create()
  const change = () =>
    call('PUT', `/api/templates/${id}`, { name, channels: { sms: { body: 'x' } }, revision: 1 })
  const results = await Promise.all([change(), change()])
  assert.deepEqual(
    results.map(r => r.status).toSorted((a, b) => a - b),
    [200, 409],
  )
  assert.equal(results.find(r => r.status === 409)!.body.code, 'conflict')
  const blind = { name, channels: { sms: { body: 'x' } } }
  await Promise.all(Array.from({ length: 4 }, () => call('PUT', `/api/templates/${id}`, blind)))
  assert.equal((await call('GET', `/api/templates/${id}`)).body.revision, 6, 'no update is lost')
})

// covers: DIC-017
test('a name is used once, and free again after deletion', async () => {
  const one = await create()
  const two = await create()
  const again = await call('POST', '/api/templates', draft({ name: one.name }))
  assert.deepEqual([again.status, again.body.code], [409, 'already_exists'])
  const renamed = await call('PUT', `/api/templates/${two.id}`, draft({ name: one.name }))
  assert.equal(renamed.status, 409)
  assert.equal((await call('GET', `/api/templates/${two.id}`)).body.revision, 1, 'nothing half done')
  assert.equal((await call('DELETE', `/api/templates/${one.id}`)).status, 204)
  await create({ name: one.name })
  const other = await call('POST', '/api/templates', draft({ name: two.name }), t.other.adminKey)
  assert.equal(other.status, 201, 'names are per tenant')
})

// covers: ALP-139, DIC-155
test('a deleted template is gone from the API and kept in the database', async () => {
  const { id } = await create()
  assert.equal((await call('DELETE', `/api/templates/${id}`)).status, 204)
  for (const [method, path, body] of [
    ['GET', ''],
    ['GET', '/versions'],
    ['DELETE', ''],
    ['PUT', '', draft()],
    ['POST', '/validate'],
  ] as const) {
    const { status, body: problem } = await call(method, `/api/templates/${id}${path}`, body)
    assert.deepEqual([status, problem.code], [404, 'not_found'], `${method} ${path}`)
  }
  const { rows } = await t.db.pool.query('select enabled, deleted_at from templates where id = $1', [id])
  assert.equal(rows[0].enabled, false)
  assert.ok(rows[0].deleted_at)
})

test('a template that rules use is not deleted', async () => {
  const { id } = await create()
  await t.db.pool.query(
    `insert into rules (id, tenant_id, name, channels, recipient_selector, template_id)
     values ($1, $2, 'uses it', '{email}', '{}', $3)`,
    [newId(), t.tenant.id, id],
  )
  const { status, body } = await call('DELETE', `/api/templates/${id}`)
  assert.deepEqual([status, body.code], [409, 'conflict'])
  assert.match(body.detail, /uses it/)
})

// covers: ALP-134
test('the list pages through everything once, and filters', async () => {
  const tag = `tag-${++made}`
  const ids: string[] = []
  for (let i = 0; i < 5; i++) {
    ids.push((await create({ tags: [tag, `${tag}-${i % 2}`], category: `c${i % 2}`, enabled: i !== 0 })).id)
  }
  const seen: string[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const { body } = await call('GET', `/api/templates?limit=2&tag=${tag}${cursor && `&cursor=${cursor}`}`)
    seen.push(...body.items.map((item: { id: string }) => item.id))
    cursor = body.nextCursor
  }
  assert.deepEqual(seen, ids.toReversed())
  const count = async (query: string) =>
    (await call('GET', `/api/templates?tag=${tag}&${query}`)).body.items.length
  assert.equal(await count('enabled=false'), 1)
  assert.equal(await count('category=c1'), 2)
  const { body } = await call(
    'GET',
    `/api/templates?name=${encodeURIComponent('template that is not there')}`,
  )
  assert.deepEqual(body, { items: [], nextCursor: null })
  const [item] = (await call('GET', `/api/templates?tag=${tag}&limit=1`)).body.items
  assert.deepEqual(item.channels.toSorted(), ['default', 'email'], 'names of channels, not their texts')
  assert.equal((await call('GET', '/api/templates?cursor=nonsense')).body.code, 'invalid_cursor')
})

// covers: DIC-014
test('a template has every documented field, with its default and its bounds', async () => {
  const { channels } = draft()
  const bare = await create()
  const { id, createdAt, updatedAt } = bare
  assert.match(String(id), /^[0-9a-f]{8}-[0-9a-f]{4}-7/)
  assert.ok(Math.abs(Date.parse(String(createdAt)) - Date.now()) < 600_000)
  assert.equal(updatedAt, createdAt)
  assert.deepEqual(
    [bare.description, bare.translations, bare.variables, bare.tags, bare.enabled],
    ['', {}, [], [], true],
  )
  assert.deepEqual([bare.version, bare.schemaVersion], ['1.0.0', '1.0'])
  const keys = await t.db.pool.query('select id from api_keys where id = $1', [bare.createdBy])
  assert.equal(keys.rows.length, 1, 'by whom')

  const given = {
    name: 'n'.repeat(255),
    description: 'Who, why',
    channels,
    translations: { de: { default: { body: 'Bestellung {{id}}' } } },
    variables: [{ name: 'id', type: 'string', required: true }],
    schemaVersion: 's'.repeat(50),
    version: 'v'.repeat(50),
    enabled: false,
    tags: ['one', 'two'],
  }
  const made = await create(given)
  const read = (await call('GET', `/api/templates/${made.id}`)).body
  for (const [field, value] of Object.entries(given)) assert.deepEqual(read[field], value, field)
  const [listed] = (await call('GET', `/api/templates?name=${given.name}`)).body.items
  assert.equal(listed.schemaVersion, given.schemaVersion)

  for (const [field, value] of [
    ['name', 'n'.repeat(256)],
    ['name', undefined],
    ['channels', undefined],
    ['channels', []],
    ['schemaVersion', 's'.repeat(51)],
    ['schemaVersion', ''],
    ['version', 'v'.repeat(51)],
    ['enabled', 'yes'],
    ['tags', 'one'],
  ] as const) {
    const { status, body } = await call('POST', '/api/templates', { ...draft(), [field]: value })
    assert.equal(status, 400, `${field}: ${JSON.stringify(body)}`)
  }
  assert.equal((await call('POST', '/api/templates', draft({ name: given.name }))).status, 409)

  // A revision is of one shape; what is said of the next one is said anew.
  const next = await call('PUT', `/api/templates/${made.id}`, { ...given, version: '2', schemaVersion: '2' })
  assert.deepEqual([next.body.version, next.body.schemaVersion], ['2', '2'])
  assert.ok(next.body.updatedAt > next.body.createdAt)
  const [first, changes] = [
    await call('GET', `/api/templates/${made.id}?revision=1`),
    await call('GET', `/api/templates/${made.id}/diff`),
  ]
  assert.equal(first.body.schemaVersion, given.schemaVersion)
  assert.deepEqual(changes.body.changes, [
    { field: '/schemaVersion', before: given.schemaVersion, after: '2' },
  ])
  const back = await call('POST', `/api/templates/${made.id}/rollback`, { revision: 1 })
  assert.equal(back.body.schemaVersion, given.schemaVersion)
})

test('the database holds templates to the same bounds', async () => {
  const { id } = await create()
  const refused = async (column: string, value: string, state: string) => {
    const columns = ['template_id', 'tenant_id', 'revision', 'version', 'channels']
    const values = [id, t.tenant.id, 9, '9', '{}']
    const at = columns.indexOf(column)
    if (at === -1) values.push(value)
    else values[at] = value
    if (at === -1) columns.push(column)
    await assert.rejects(
      t.db.pool.query(
        `insert into template_revisions (${columns.join()}) values (${values.map((_, i) => `$${i + 1}`).join()})`,
        values,
      ),
      { code: state },
      column,
    )
  }
  await refused('schema_version', '', '23514')
  await refused('schema_version', 's'.repeat(51), '23514')
  await refused('version', 'v'.repeat(51), '23514')
})

// covers: DIC-015, DIC-016
test('the database keeps channels an object, and finds templates by name and by tag', async () => {
  const { id } = await create()
  await assert.rejects(
    t.db.pool.query(
      `insert into template_revisions (template_id, tenant_id, revision, version, channels) values ($1, $2, 9, '9', '[]')`,
      [id, t.tenant.id],
    ),
    { code: '23514' },
  )
  const { rows } = await t.db.pool.query<{ indexdef: string }>(
    `select indexdef from pg_indexes where tablename = 'templates'`,
  )
  assert.ok(rows.some(({ indexdef }) => /UNIQUE.*\(tenant_id, name\)/.test(indexdef)))
  assert.ok(rows.some(({ indexdef }) => /USING gin \(tags\)/.test(indexdef)))
})

// covers: ALP-140
test('validate checks the stored texts or a draft, and saves nothing', async () => {
  const { id } = await create()
  assert.deepEqual((await call('POST', `/api/templates/${id}/validate`)).body, {
    valid: true,
    errors: [],
    fields: ['id'],
    warnings: [],
  })
  const { status, body } = await call('POST', `/api/templates/${id}/validate`, {
    channels: { email: { body: 'a\n{{#if b}}' }, sms: { body: '{{printf .X}}' } },
    translations: { de: { body: '{{> partial}}' } },
  })
  assert.equal(status, 200)
  assert.equal(body.valid, false)
  assert.deepEqual(
    body.errors.map((e: { field: string }) => e.field),
    ['/channels/sms/body'],
    'first what cannot be translated',
  )
  const next = await call('POST', `/api/templates/${id}/validate`, {
    channels: { email: { body: 'a\n{{#if b}}' } },
    translations: { de: { body: '{{> partial}}' } },
  })
  assert.deepEqual(
    next.body.errors.map(({ message: _, ...place }: { message: string }) => place),
    [
      { field: '/channels/email/body', line: 2, column: 10 },
      { field: '/translations/de/body', line: 1, column: 1 },
    ],
  )
  const go = await call('POST', `/api/templates/${id}/validate`, {
    channels: { sms: { body: '{{.Title}}' } },
  })
  assert.deepEqual(go.body, { valid: true, errors: [], fields: ['Title'], warnings: [] })
  assert.equal((await call('GET', `/api/templates/${id}`)).body.revision, 1)
})

test('what is wrong is refused by name, and nothing is left behind', async () => {
  const bad: [object, string, string][] = [
    [{}, 'invalid_request', '/channels'],
    [draft({ name: ' ' }), 'invalid_request', '/name'],
    [draft({ channels: {} }), 'invalid_request', '/channels'],
    [draft({ channels: { fax: { body: 'x' } } }), 'invalid_request', '/channels/fax'],
    [draft({ channels: { sms: { body: 5 } } }), 'invalid_request', '/channels/sms/body'],
    [draft({ channels: { sms: { body: 'x', extra: 1 } } }), 'invalid_request', '/channels/sms/extra'],
    [
      draft({ translations: { de: { body: 'x', sms: { body: 'y' } } } }),
      'invalid_template',
      '/translations/de',
    ],
    [draft({ translations: { 'x!': {} } }), 'invalid_request', '/translations/x!'],
    [draft({ locale: 'not_a_locale_' }), 'invalid_template', '/locale'],
    [draft({ channels: { sms: { body: '{{#each}}' } } }), 'invalid_template', '/channels/sms/body'],
    [draft({ channels: { sms: {} } }), 'invalid_template', '/channels/sms'],
    [draft({ unknown: 1 }), 'invalid_request', '/unknown'],
  ]
  const count = async () => (await t.db.pool.query('select count(*) from template_revisions')).rows[0].count
  const before = await count()
  for (const [payload, code, field] of bad) {
    const { status, body } = await call('POST', '/api/templates', payload)
    assert.deepEqual([status, body.code], [400, code], JSON.stringify([payload, body]))
    assert.ok(
      body.errors.some((e: { field: string }) => e.field === field),
      JSON.stringify(body),
    )
  }
  assert.equal(await count(), before)
  assert.equal((await call('GET', '/api/templates/not-an-id')).status, 400)
})

test('another tenant sees, changes and validates nothing', async () => {
  const { id } = await create()
  for (const [method, path, body] of [
    ['GET', ''],
    ['GET', '/versions'],
    ['PUT', '', draft()],
    ['DELETE', ''],
    ['POST', '/validate'],
  ] as const) {
    const { status } = await call(method, `/api/templates/${id}${path}`, body, t.other.adminKey)
    assert.equal(status, 404, `${method} ${path}`)
  }
  const { body } = await call('GET', '/api/templates?limit=200', undefined, t.other.adminKey)
  assert.ok(!body.items.some((item: { id: string }) => item.id === id))
  assert.equal((await call('GET', `/api/templates/${id}`)).body.revision, 1)
})

test('who may do what', async () => {
  const { id } = await create()
  const reader = await t.tenant.scopedKey('service', ['templates:read'])
  const user = await t.tenant.token('alice')
  assert.equal((await call('GET', `/api/templates/${id}`, undefined, reader)).status, 200)
  assert.equal((await call('POST', '/api/templates', draft(), reader)).status, 403)
  assert.equal((await call('DELETE', `/api/templates/${id}`, undefined, reader)).status, 403)
  assert.equal((await call('GET', '/api/templates', undefined, user)).status, 403)
  assert.equal((await t.request('GET', '/api/templates')).statusCode, 401)
})

test('every change is in the audit trail', async () => {
  const { id, name } = await create()
  await call('PUT', `/api/templates/${id}`, draft({ name }))
  await call('DELETE', `/api/templates/${id}`)
  const { rows } = await t.db.pool.query(
    `select action, actor_kind, details from audit where tenant_id = $1 and object_id = $2 order by id`,
    [t.tenant.id, id],
  )
  assert.deepEqual(
    rows.map(({ action, actor_kind, details }) => [action, actor_kind, details.revision]),
    [
      ['template.created', 'key', 1],
      ['template.updated', 'key', 2],
      ['template.deleted', 'key', 2],
    ],
  )
})

// covers: ALP-144, ALP-138
test('a language is added, revisions are compared, and an earlier one comes back as a new one', async () => {
  const { id } = await create()
  const first = (await call('GET', `/api/templates/${id}`)).body
  const german = await call('POST', `/api/templates/${id}/localize`, {
    locale: 'de-de',
    content: { subject: 'Hallo', body: 'Neues von {{id}}' },
  })
  assert.deepEqual([german.status, german.body.revision, german.body.locales], [200, 2, ['de-DE']])
  const refused = await call('POST', `/api/templates/${id}/localize`, {
    locale: 'xx-yy-zz-!',
    content: { body: 'x' },
  })
  assert.equal(refused.status, 400)

  const diff = await call('GET', `/api/templates/${id}/diff?from=1`)
  assert.deepEqual(diff.body, {
    from: 1,
    to: 2,
    changes: [{ field: '/translations/de-DE', after: { subject: 'Hallo', body: 'Neues von {{id}}' } }],
  })

  const back = await call('POST', `/api/templates/${id}/rollback`, { version: first.version })
  assert.equal(back.status, 200, JSON.stringify(back.body))
  assert.deepEqual([back.body.revision, back.body.channels, back.body.translations], [3, first.channels, {}])
  assert.deepEqual((await call('GET', `/api/templates/${id}/diff?from=1&to=3`)).body.changes, [])
  assert.equal((await call('POST', `/api/templates/${id}/rollback`, { version: '9.9' })).status, 404)
  assert.equal((await call('POST', `/api/templates/${id}/rollback`, {})).status, 400)
})

// covers: DIC-018, ALP-136
test('a draft is kept, looked at and published; until then what was published is sent', async () => {
  const { id, name } = await create()
  const keep = (body: string, more: object = {}) =>
    call('PUT', `/api/templates/${id}`, { name, draft: true, channels: { default: { body } }, ...more })
  const kept = await keep('two {{id}}', { category: 'not the draft’s' })
  assert.deepEqual(
    [
      kept.status,
      kept.body.revision,
      kept.body.publishedRevision,
      kept.body.lastRevision,
      kept.body.category,
    ],
    [200, 2, 1, 2, ''],
    kept.body.message,
  )
  assert.equal((await keep('three {{id}}', { revision: 2 })).body.revision, 3)
  assert.equal((await keep('four', { revision: 2 })).status, 409, 'made from a draft that is not the newest')

  const shown = async (query = '') =>
    (await call('GET', `/api/templates/${id}${query}`)).body.channels.default.body
  assert.equal(await shown(), 'Order {{id}}')
  assert.equal(await shown('?revision=last'), 'three {{id}}')
  assert.equal(await shown('?revision=2'), 'two {{id}}')
  const { body: list } = await call('GET', `/api/templates?name=${encodeURIComponent(String(name))}`)
  assert.deepEqual([list.items[0].revision, list.items[0].lastRevision], [1, 3])
  assert.deepEqual(
    (await call('GET', `/api/templates/${id}/versions`)).body.items.map((v: { status: string }) => v.status),
    ['draft', 'draft', 'published'],
  )
  const { body: diff } = await call('GET', `/api/templates/${id}/diff?from=1&to=last`)
  assert.deepEqual(
    diff.changes.find((change: { field: string }) => change.field === '/channels/default/body'),
    { field: '/channels/default/body', before: 'Order {{id}}', after: 'three {{id}}' },
  )

  assert.equal((await call('POST', `/api/templates/${id}/publish`, { revision: 4 })).status, 409)
  const published = await call('POST', `/api/templates/${id}/publish`, { revision: 2 })
  assert.deepEqual(
    [published.status, published.body.publishedRevision, published.body.lastRevision],
    [200, 2, 3],
  )
  assert.equal((await call('POST', `/api/templates/${id}/publish`, { revision: 1 })).status, 409, 'no draft')
  assert.equal(
    (await call('POST', `/api/templates/${id}/publish`)).body.channels.default.body,
    'three {{id}}',
  )
  assert.equal((await call('POST', `/api/templates/${id}/publish`)).status, 409, 'nothing is left to publish')
  // A rollback after drafts takes the next number, and theirs stay theirs.
  await keep('five')
  const back = await call('POST', `/api/templates/${id}/rollback`, { revision: 1 })
  assert.deepEqual([back.body.revision, back.body.channels.default.body], [5, 'Order {{id}}'])
  const { rows } = await t.db.pool.query(
    `select action from audit where tenant_id = $1 and object_id = $2 order by id`,
    [t.tenant.id, id],
  )
  assert.deepEqual(
    rows.map(({ action }) => action.replace('template.', '')),
    ['created', 'drafted', 'drafted', 'published', 'published', 'drafted', 'updated'],
  )
})

test('a template may begin as a draft, of which nothing is sent', async () => {
  const made = await call('POST', '/api/templates', draft({ draft: true }))
  assert.deepEqual(
    [made.status, made.body.revision, made.body.publishedRevision],
    [201, 1, null],
    made.body.message,
  )
  const { id } = made.body
  assert.equal((await call('GET', `/api/templates/${id}`)).body.revision, 1)
  const wanted = { tenantId: t.tenant.id, templateId: id }
  assert.deepEqual(await templates().load(t.db, [wanted]), [undefined])
  await call('POST', `/api/templates/${id}/publish`)
  const [loaded] = await templates().load(t.db, [wanted])
  assert.equal(loaded?.revision.revision, 1)
})

test('publishing says what is missing', async () => {
  const { id } = (
    await call(
      'POST',
      '/api/templates',
      draft({
        draft: true,
        channels: {
          email: { body: '{{t "due" n=count}} {{data.total}} {{user.id}}' },
          sms: { body: '{{name}}' },
        },
        translations: { de: { email: { body: '{{name}}' } } },
        variables: [{ name: 'name' }, { name: 'count' }, { name: 'unused' }],
        messages: {
          en: { due: '{n, plural, one {# day} other {# days}} left' },
          pl: { due: '{n, plural, one {# dzień} other {# dni}}' },
          fr: {},
        },
      }),
    )
  ).body
  const { status, body } = await call('POST', `/api/templates/${id}/publish`)
  assert.equal(status, 200, body.message)
  assert.deepEqual(
    body.warnings.map((w: { field: string; message: string }) => `${w.field} ${w.message}`),
    [
      '/translations/de Nothing for sms: those are sent in en',
      '/messages/fr No message for due: said in en',
      '/messages/pl/due {n} has no words for few, many in pl',
      '/variables The texts read "total", which is not among the variables',
      '/variables/2 No text reads "unused"',
    ],
  )
})

test('a part of a name finds a template, in any case, with nothing in it that means something else', async () => {
  for (const name of ['Quarterly REPORT', '100%_report']) {
    const { statusCode, body } = await t.request('POST', '/api/templates', {
      as: t.tenant.serviceKey,
      payload: { name, channels: { default: { body: 'x' } } },
    })
    assert.equal(statusCode, 201, body)
  }
  const found = async (search: string, as = t.tenant.serviceKey): Promise<string[]> =>
    (await t.request('GET', `/api/templates?search=${encodeURIComponent(search)}`, { as }))
      .json()
      .items.map((one: { name: string }) => one.name)
  assert.deepEqual(await found('y rep'), ['Quarterly REPORT'])
  assert.deepEqual(await found('%_'), ['100%_report'])
  assert.deepEqual(await found('y%rep'), [])
  assert.deepEqual(await found('report', t.other.serviceKey), [])
})
