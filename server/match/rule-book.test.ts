import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import fc from 'fast-check'
import { changeWatch } from '../db/changes.ts'
import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Event } from '../types.ts'
import { celEvent } from './cel.ts'
import { ruleBook } from './rule-book.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase({ max: 8 })
  await database.db.run(
    sql(
      'insert_test_tenants',
      `insert into tenants (id, name, data_key) values (1, 'one', ''), (2, 'two', '')`,
    ),
  )
})
after(() => database.drop())
beforeEach(() => database.db.run(sql('delete_test_rules', 'delete from rules')))

const insert = sql(
  'insert_test_rule',
  `insert into rules (id, tenant_id, name, event_pattern, channels, recipient_selector, enabled, valid_from, valid_until)
   values ($1, $2, $3, $4, '{email}', '{"users": ["alice"]}', $5, $6, $7)`,
)
const setPattern = sql(
  'change_test_rule',
  'update rules set event_pattern = $2, revision = revision + 1 where id = $1',
)
const setEnabled = sql('enable_test_rule', 'update rules set enabled = $2 where id = $1')
const setDeleted = sql(
  'delete_test_rule',
  'update rules set enabled = false, deleted_at = now() where id = $1',
)

async function add(
  more: {
    tenantId?: number
    name?: string
    pattern?: string
    enabled?: boolean
    from?: Date
    until?: Date
  } = {},
): Promise<string> {
  const { tenantId = 1, pattern = '', enabled = true, from = new Date(0), until = null } = more
  const id = newId()
  await database.db.run(insert, [id, tenantId, more.name ?? id, pattern, enabled, from, until])
  return id
}

/** A book as a lane of a worker uses it, and how many statements it took. */
function openBook() {
  const watch = changeWatch()
  const book = ruleBook(watch)
  let statements = 0
  const counted: Queryable = {
    ...database.db,
    rows: (...args) => {
      statements++
      return database.db.rows(...args)
    },
  }
  return {
    book,
    watch,
    statements: () => statements,
    look: async () => {
      await watch.look(database.db)
      await book.refresh(counted)
    },
    matched: (event: Partial<Event> = {}, at = new Date(1_000)) =>
      book
        .index(event.tenantId ?? 1)
        ?.match(celEvent(eventOf(event)), at)
        .matched.map(rule => rule.name)
        .toSorted() ?? [],
  }
}

const eventOf = (more: Partial<Event>): Event => ({
  tenantId: 1,
  id: '01930000-0000-7000-8000-000000000001',
  source: 'test',
  type: 'a.b',
  time: new Date(0),
  receivedAt: new Date(0),
  data: {},
  ...more,
})

// covers: DIC-048, DIC-058
test('events meet the rules that are enabled and valid at that instant, of their tenant alone', async () => {
  await add({ name: 'plain' })
  await add({ name: 'disabled', enabled: false })
  await add({ name: 'window', from: new Date(2_000), until: new Date(3_000) })
  await add({ name: 'theirs', tenantId: 2 })
  const { look, matched } = openBook()
  await look()
  assert.deepEqual(matched(), ['plain'])
  assert.deepEqual(matched({}, new Date(2_000)), ['plain', 'window'])
  assert.deepEqual(matched({}, new Date(3_000)), ['plain'])
  assert.deepEqual(matched({ tenantId: 2 }), ['theirs'])
  assert.deepEqual(matched({ tenantId: 3 }), [])
})

test('what committed before a look is known after it; a look without changes costs no statement', async () => {
  const { look, matched, statements } = openBook()
  await look()
  const one = await add({ name: 'one' })
  await add({ name: 'two' })
  assert.deepEqual(matched(), [], 'not before the look')
  await look()
  assert.deepEqual(matched(), ['one', 'two'])
  const before = statements()
  await look()
  assert.equal(statements(), before)
  await database.db.run(setPattern, [one, 'event.type == "other"'])
  await look()
  assert.deepEqual([matched(), matched({ type: 'other' })], [['two'], ['one', 'two']])
  await database.db.run(setDeleted, [one])
  await look()
  assert.deepEqual(matched({ type: 'other' }), ['two'])
  assert.equal(statements(), before + 2, 'one for each change')
})

test('a stored pattern that no longer compiles fails alone', async () => {
  await add({ name: 'broken', pattern: 'nonsense(' })
  await add({ name: 'fine' })
  const { look, matched, book } = openBook()
  await look()
  assert.deepEqual(matched(), ['fine'])
  const [refused] = book.index(1)!.match(celEvent(eventOf({})), new Date(1_000)).considered
  assert.deepEqual([refused?.rule.name, refused?.why], ['broken', 'pattern_error'])
})

test('more rules than one page are all loaded, and again after a reset', async () => {
  const many = sql(
    'insert_many_test_rules',
    `insert into rules (id, tenant_id, name, channels, recipient_selector, event_types)
     select gen_random_uuid(), 1 + i % 2, i::text, '{email}', '{"users": ["a"]}', array['t' || i]
     from generate_series(1, 11000) i`,
  )
  await database.db.run(many)
  const { look, book, statements } = openBook()
  await look()
  assert.deepEqual([book.index(1)?.size, book.index(2)?.size], [5_500, 5_500])
  assert.equal(statements(), 3)
  // More changes than a look reads: the watch resets, and so does the book.
  await database.db.run(sql('disable_odd_rules', 'update rules set enabled = false where tenant_id = 2'))
  await database.db.run(sql('touch_all_rules', 'update rules set revision = 2'))
  await look()
  assert.deepEqual([book.index(1)?.size, book.index(2)?.size ?? 0], [5_500, 0])
})

test('a load that fails leaves the book as it was, and the next refresh makes up for it', async () => {
  const { book, watch, look, matched } = openBook()
  const broken: Queryable = { ...database.db, rows: () => Promise.reject(new Error('connection lost')) }
  await add({ name: 'one' })
  await watch.look(database.db)
  await assert.rejects(book.refresh(broken), /connection lost/)
  await look()
  assert.deepEqual(matched(), ['one'])
  await add({ name: 'two' })
  await watch.look(database.db)
  await assert.rejects(book.refresh(broken), /connection lost/)
  assert.deepEqual(matched(), ['one'])
  await book.refresh(database.db)
  assert.deepEqual(matched(), ['one', 'two'])
})

test('a lane that waits for the load of another tries itself when that one fails', async () => {
  const { book, watch, matched } = openBook()
  await add({ name: 'one' })
  await watch.look(database.db)
  let fail = (_: Error) => {}
  const hanging: Queryable = {
    ...database.db,
    rows: () =>
      new Promise((_, reject) => {
        fail = reject
      }),
  }
  const first = book.refresh(hanging)
  const second = book.refresh(database.db)
  fail(new Error('connection lost'))
  await assert.rejects(first, /connection lost/)
  await second
  assert.deepEqual(matched(), ['one'])
})

test('a change that comes while another lane loads is not lost', async () => {
  const { book, watch, look, matched } = openBook()
  await look()
  const id = await add({ name: 'one' })
  await watch.look(database.db)
  let loaded = () => {}
  const held = new Promise<void>(resolve => (loaded = resolve))
  const slow: Queryable = {
    ...database.db,
    rows: async <R>(...args: Parameters<Queryable['rows']>) => {
      const rows = await database.db.rows<R>(...args)
      await held
      return rows
    },
  }
  const first = book.refresh(slow)
  await database.db.run(setDeleted, [id])
  await watch.look(database.db)
  const second = book.refresh(database.db)
  loaded()
  await Promise.all([first, second])
  assert.deepEqual(matched(), [])
})

test('law: after any changes, looks and lanes, the book holds exactly the enabled rules', async () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('add' as const), tenantId: fc.constantFrom(1, 2), enabled: fc.boolean() }),
    fc.record({ do: fc.constantFrom('enable', 'disable', 'delete', 'change'), at: fc.nat(20) }),
    fc.record({ do: fc.constantFrom('look', 'two lanes') }),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 25, size: 'max' }), async steps => {
      await database.db.run(sql('delete_test_rules', 'delete from rules'))
      const { look, book } = openBook()
      // The first look loads everything; the law is about what comes after it.
      await look()
      const ids: string[] = []
      const target = (at: number) => ids[at % Math.max(1, ids.length)] ?? newId()
      for (const one of steps) {
        if ('tenantId' in one) ids.push(await add(one))
        else if ('at' in one) {
          const id = target(one.at)
          if (one.do === 'delete') await database.db.run(setDeleted, [id])
          else if (one.do === 'change') await database.db.run(setPattern, [id, `event.type == "t${one.at}"`])
          else await database.db.run(setEnabled, [id, one.do === 'enable'])
        } else if (one.do === 'look') await look()
        else await Promise.all([look(), look()])
      }
      await look()
      for (const tenantId of [1, 2]) {
        const stored = await database.db.rows<{ id: string; event_pattern: string; revision: number }>(
          sql(
            'enabled_test_rules',
            `select id, revision from rules where tenant_id = $1 and enabled and deleted_at is null`,
          ),
          [tenantId],
        )
        const index = book.index(tenantId)
        assert.equal(index?.size ?? 0, stored.length)
        for (const { id, revision } of stored) assert.equal(index?.get(id)?.revision, revision)
      }
    }),
    { numRuns: 25 },
  )
})
