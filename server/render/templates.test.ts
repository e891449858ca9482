import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { changeWatch } from '../db/changes.ts'
import { newId } from '../db/ids.ts'
import type { Queryable, Tx } from '../db/pool.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { render } from './content.ts'
import {
  type TemplateDefinition,
  createTemplate,
  deleteTemplate,
  draftTemplate,
  layoutsOf,
  nextVersion,
  outdatedUsers,
  prepareDefinition,
  publishTemplate,
  publishable,
  republishUsers,
  resolveTemplates,
  templates,
  updateTemplate,
} from './templates.ts'

let database: TestDatabase
const actor = { tenantId: 1, kind: 'system' } as const
const stranger = { tenantId: 2, kind: 'system' } as const

before(async () => {
  database = await testDatabase()
  await database.db.pool.query(
    `insert into tenants (id, name, data_key) overriding system value values (1, 'one', ''), (2, 'two', '')`,
  )
})
after(() => database.drop())

let made = 0
const definition = (more: Partial<TemplateDefinition> = {}, prepared = true): TemplateDefinition =>
  (prepared ? prepareDefinition : (as: TemplateDefinition) => as)({
    name: `t${++made}`,
    description: '',
    category: '',
    tags: [],
    enabled: true,
    locale: 'en',
    channels: { default: { body: 'one' } },
    translations: {},
    variables: [],
    messages: {},
    partials: {},
    ...more,
  })

const create = (more?: Partial<TemplateDefinition>, by: typeof actor | typeof stranger = actor) =>
  database.db.tx(tx => createTemplate(tx, by, definition(more)))

/** Counts statements, and can hold them up until told. */
function counting(q: Queryable, hold?: Promise<void>) {
  const counted = {
    count: 0,
    q: {
      ...q,
      async rows<R>(...args: Parameters<Queryable['rows']>) {
        counted.count++
        const rows = await q.rows<R>(...args)
        await hold
        return rows
      },
    },
  }
  return counted
}

test('many revisions come in one statement, and then in none', async () => {
  const [a, b] = [await create(), await create({ enabled: false })]
  const foreign = await create({}, stranger)
  const wanted = [
    { tenantId: 1, templateId: a },
    { tenantId: 1, templateId: b },
    { tenantId: 1, templateId: foreign },
    { tenantId: 2, templateId: foreign },
    { tenantId: 1, templateId: newId() },
    { tenantId: 1, templateId: a },
    { tenantId: 1, templateId: b, revision: 1 },
    { tenantId: 1, templateId: a, revision: 7 },
  ]
  const store = templates()
  const counted = counting(database.db)
  const ids = async () => (await store.load(counted.q, wanted)).map(c => c?.revision.templateId)
  const expected = [a, undefined, undefined, foreign, undefined, a, b, undefined]
  assert.deepEqual(await ids(), expected)
  assert.equal(counted.count, 1)
  await store.load(counted.q, wanted.slice(0, 7))
  assert.equal(counted.count, 1, 'what there is not is remembered as well')
})

test('a change that was heard of is seen by the next load; pinned revisions stay', async () => {
  const id = await create()
  const store = templates()
  const watch = changeWatch()
  watch.on('template', store.forget)
  watch.onReset(store.reset)
  const body = async (revision?: number) => {
    await watch.look(database.db)
    const [compiled] = await store.load(database.db, [{ tenantId: 1, templateId: id, revision }])
    return compiled?.revision.channels.default?.body
  }
  assert.equal(await body(), 'one')
  await database.db.tx(tx =>
    updateTemplate(tx, actor, id, definition({ channels: { default: { body: 'two' } } })),
  )
  assert.equal(await body(), 'two')
  assert.equal(await body(1), 'one')
  await database.db.tx(tx => deleteTemplate(tx, actor, id))
  assert.equal(await body(), undefined)
  assert.equal(await body(1), 'one', 'a notification of the past still finds its own')
})

test('a load that was overtaken by a change keeps nothing', async () => {
  const id = await create()
  const store = templates()
  const { promise, resolve } = Promise.withResolvers<void>()
  const slow = counting(database.db, promise)
  const loading = store.load(slow.q, [{ tenantId: 1, templateId: id }])
  await database.db.tx(tx =>
    updateTemplate(tx, actor, id, definition({ channels: { default: { body: 'two' } } })),
  )
  store.forget(1, id)
  resolve()
  await loading
  const [compiled] = await store.load(database.db, [{ tenantId: 1, templateId: id }])
  assert.equal(compiled?.revision.revision, 2)
})

// covers: DIC-062, PFM-152
test('templates are found by id or by name, within their tenant', async () => {
  const id = await create({ name: 'order-shipped' })
  await create({ name: 'order-shipped' }, stranger)
  const found = await resolveTemplates(database.db, 1, ['order-shipped', id.toUpperCase(), 'nope', newId()])
  assert.deepEqual(
    found,
    new Map([
      ['order-shipped', id],
      [id.toUpperCase(), id],
    ]),
  )
  assert.equal((await resolveTemplates(database.db, 1, [])).size, 0)
})

test('versions count up at their end', () => {
  assert.equal(nextVersion('1.0.0', 2), '1.0.1')
  assert.equal(nextVersion('1.9', 2), '1.10')
  assert.equal(nextVersion('v7', 2), 'v8')
  assert.equal(nextVersion('final', 5), '5')
})

test('what a template takes in is what is published when it is saved, or it is not saved', async () => {
  const { db } = database
  const write = <T>(work: (tx: Tx) => Promise<T>) => db.tx(work)
  const layout = definition({ channels: { default: { body: 'one {{> @partial-block}}' } } })
  const id = await write(tx => createTemplate(tx, actor, layout))
  const written = definition({ channels: { default: { body: 'x' } } })
  const user = { ...written, channels: { default: { body: `{{#> ${layout.name}}}x{{/${layout.name}}}` } } }
  const prepared = await publishable(user, layoutsOf(db, 1))

  // Somebody publishes another one in between.
  await write(tx => updateTemplate(tx, actor, id, layout))
  const changed = { code: 'conflict', message: /which it takes in, is being changed/ }
  await assert.rejects(
    write(tx => createTemplate(tx, actor, prepared)),
    changed,
  )
  const userId = await write(async tx => createTemplate(tx, actor, await publishable(user, layoutsOf(tx, 1))))
  for (const save of [updateTemplate, draftTemplate]) {
    await assert.rejects(
      write<unknown>(tx => save(tx, actor, userId, prepared)),
      changed,
    )
  }
  // A draft of the layout is nobody's yet; when it is published, who has the one before is known.
  await write(tx => draftTemplate(tx, actor, id, layout))
  assert.deepEqual(await outdatedUsers(db, 1, { id, publishedRevision: 2 }), [])
  await write(tx => publishTemplate(tx, actor, id))
  assert.deepEqual(await outdatedUsers(db, 1, { id, publishedRevision: 3 }), [
    { id: userId, name: user.name, revision: 2 },
  ])
  assert.deepEqual(await outdatedUsers(db, 2, { id, publishedRevision: 3 }), [], 'nor anybody else’s')
  await assert.rejects(
    write(tx => deleteTemplate(tx, actor, id)),
    { code: 'conflict' },
  )
})

test('what plans notifications has each revision with the layout it was saved with, in one statement', async () => {
  const { db } = database
  const layout = definition({ channels: { default: { body: 'one {{> @partial-block}}' } } })
  const layoutId = await db.tx(tx => createTemplate(tx, actor, layout))
  const written = definition(
    {
      channels: { default: { body: `{{#> ${layout.name}}}{{> p}}{{/${layout.name}}}` } },
      partials: { p: 'x' },
    },
    false,
  )
  const id = await db.tx(async tx => createTemplate(tx, actor, await publishable(written, layoutsOf(tx, 1))))
  await db.tx(async tx => {
    await updateTemplate(tx, actor, layoutId, {
      ...layout,
      channels: { default: { body: 'two {{> @partial-block}}' } },
    })
    await republishUsers(tx, actor, layoutId)
  })
  let statements = 0
  const counting: Queryable = { ...db, rows: (...args) => (statements++, db.rows(...args)) }
  // An experiment pins one of them; everybody else has the newest.
  const found = await templates().load(counting, [
    { tenantId: 1, templateId: id, revision: 1 },
    { tenantId: 1, templateId: id },
  ])
  const view = { names: {}, layers: [], locale: 'en', timezone: 'UTC' }
  assert.deepEqual(
    found.map(compiled => render(compiled!, 'in_app', 'en', view).body),
    ['one x', 'two x'],
  )
  assert.equal(statements, 1)
})
