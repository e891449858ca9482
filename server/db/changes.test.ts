import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import type pg from 'pg'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { type ChangeKind, changeWatch, sweepChanges } from './changes.ts'
import { queryable, sql } from './pool.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase({ max: 12 })
})
after(() => database.drop())

const note = sql('note_test_change', `insert into changes (kind, tenant_id, key) values ($1, $2, $3)`)
const NOTE = `insert into changes (kind, tenant_id, key) values ('user', 1, $1)`

/** A watch that writes down what it is told. */
function recorded(kind: ChangeKind = 'user') {
  const watch = changeWatch()
  const told: string[] = []
  let resets = 0
  watch.on(kind, (_, key) => told.push(key))
  watch.onReset(() => resets++)
  return {
    watch,
    told,
    resets: () => resets,
    /** Looks, and returns what was told since the last time, sorted. */
    look: async () => {
      await watch.look(database.db)
      return told.splice(0).sort()
    },
  }
}

/** Runs `work` with an open transaction that is rolled back unless it was ended. */
async function transaction<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const client = await database.db.pool.connect()
  try {
    await client.query('begin')
    return await work(client)
  } finally {
    await client.query('rollback')
    client.release()
  }
}

test('the first look resets, later ones tell what committed in between', async () => {
  const { look, resets } = recorded()
  assert.deepEqual(await look(), [])
  assert.equal(resets(), 1)
  await database.db.run(note, ['user', 1, 'ann'])
  await database.db.run(note, ['rule', 1, 'not asked for'])
  assert.deepEqual(await look(), ['ann'])
  assert.deepEqual(await look(), [], 'told once')
  assert.equal(resets(), 1)
})

test('transactions that commit in another order than they began are all seen, each once', async () => {
  const { look } = recorded()
  await look()
  await transaction(async slow => {
    await slow.query(NOTE, ['began first'])
    await transaction(async middle => {
      await middle.query(NOTE, ['began second'])
      await database.db.run(note, ['user', 1, 'began third'])
      assert.deepEqual(await look(), ['began third'])
      await slow.query('commit')
      assert.deepEqual(await look(), ['began first'])
      await middle.query('commit')
    })
  })
  assert.deepEqual(await look(), ['began second'])
  assert.deepEqual(await look(), [])
})

test('a look inside a transaction that writes before and after it misses neither', async () => {
  const { watch, told, look } = recorded()
  await look()
  await transaction(async own => {
    await own.query(NOTE, ['before'])
    await database.db.run(note, ['user', 1, 'another, so that the own id lies below the snapshot'])
    await watch.look(queryable(own))
    told.length = 0
    await own.query(NOTE, ['after'])
    await own.query('commit')
  })
  assert.ok((await look()).includes('after'))
})

test('nothing of a rolled back transaction is told', async () => {
  const { look } = recorded()
  await look()
  await transaction(async client => {
    await client.query(NOTE, ['never'])
  })
  assert.deepEqual(await look(), [])
})

test('whatever the interleaving of writers and looks, every commit is told by the next look and only once', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(
        fc.oneof(
          {
            weight: 4,
            arbitrary: fc.record({ do: fc.constant('write' as const), writer: fc.nat({ max: 3 }) }),
          },
          {
            weight: 2,
            arbitrary: fc.record({ do: fc.constant('commit' as const), writer: fc.nat({ max: 3 }) }),
          },
          {
            weight: 1,
            arbitrary: fc.record({ do: fc.constant('rollback' as const), writer: fc.nat({ max: 3 }) }),
          },
          {
            weight: 2,
            arbitrary: fc.record({ do: fc.constant('look' as const), writer: fc.nat({ max: 3 }) }),
          },
        ),
        { maxLength: 40 },
      ),
      async steps => {
        const { look } = recorded()
        await look()
        const writers: { client?: pg.PoolClient; open: string[] }[] = Array.from({ length: 4 }, () => ({
          open: [],
        }))
        let committed: string[] = []
        let made = 0
        try {
          for (const step of steps) {
            const writer = writers[step.writer]!
            if (step.do === 'look') {
              assert.deepEqual(await look(), committed.sort())
              committed = []
            } else if (step.do === 'write') {
              if (writer.client === undefined) {
                writer.client = await database.db.pool.connect()
                await writer.client.query('begin')
              }
              const key = `k${++made}`
              await writer.client.query(NOTE, [key])
              writer.open.push(key)
            } else if (writer.client !== undefined) {
              await writer.client.query(step.do)
              writer.client.release()
              writer.client = undefined
              if (step.do === 'commit') committed.push(...writer.open)
              writer.open = []
            }
          }
          assert.deepEqual(await look(), committed.sort())
        } finally {
          for (const { client } of writers) {
            await client?.query('rollback')
            client?.release()
          }
        }
      },
    ),
    { numRuns: 40 },
  )
})

test('looks that overlap, and answer in another order than they were asked, go never back', async () => {
  const { watch, told } = recorded()
  const { db } = database
  await watch.look(db)
  await transaction(async older => {
    await older.query('set transaction isolation level repeatable read')
    await older.query('select 1') // its snapshot is taken here, before the next change
    await db.run(note, ['user', 1, 'seen by the newer look'])
    await watch.look(db)
    assert.deepEqual(told.splice(0), ['seen by the newer look'])
    await watch.look(queryable(older)) // sees less, and must not make the next look tell it again
    await watch.look(db)
    assert.deepEqual(told.splice(0), [])
  })
})

test('a writer that runs on costs each look one probe, not everything since it began', async () => {
  const { look } = recorded()
  await transaction(async slow => {
    await slow.query(NOTE, ['slow'])
    await look()
    for (let i = 0; i < 3; i++) {
      await database.db.run(
        sql(
          'note_many_test_changes',
          `insert into changes (kind, tenant_id, key) select 'user', 1, $1 || i from generate_series(1, 4000) i`,
        ),
        [`k${i}-`],
      )
      // Were earlier rows read again, the third round would tell 12,000, or give up and reset.
      assert.equal((await look()).length, 4_000)
    }
    await slow.query('commit')
  })
  assert.deepEqual(await look(), ['slow'])
})

test('the plan stays on the index when the values are not known', async () => {
  const client = await database.db.pool.connect()
  try {
    await client.query(`set plan_cache_mode = force_generic_plan`)
    await client.query(`insert into changes (txid, kind, tenant_id, key)
      select (i % 1000 + 3)::text::xid8, 'old', 1, i from generate_series(1, 50000) i`)
    await client.query('analyze changes')
    let explained = ''
    const spy = {
      ...queryable(client),
      rows: async <R>(statement: { name: string; text: string }, values?: unknown[]) => {
        const { rows } = await client.query(`explain ${statement.text.replace(/^--.*\n/, '')}`, values)
        explained = rows.map(r => r['QUERY PLAN']).join('\n')
        return queryable(client).rows<R>(statement, values)
      },
    }
    const watch = changeWatch()
    await watch.look(spy)
    await watch.look(spy)
    assert.match(explained, /changes_txid/)
    assert.doesNotMatch(explained, /Seq Scan/)
  } finally {
    await client.query(`delete from changes where kind = 'old'`)
    await client.query(`set plan_cache_mode = auto`)
    client.release()
  }
})

test('more changes than are worth telling reset instead', async () => {
  const { look, resets } = recorded()
  await look()
  await database.db.run(
    sql(
      'note_too_many_test_changes',
      `insert into changes (kind, tenant_id, key) select 'user', 1, i from generate_series(1, 10001) i`,
    ),
  )
  assert.deepEqual(await look(), [])
  assert.equal(resets(), 2)
  await database.db.run(note, ['user', 1, 'next'])
  assert.deepEqual(await look(), ['next'])
})

test('a failing listener is told the same again at the next look', async () => {
  const { watch, look } = recorded()
  await look()
  let fail = true
  watch.on('user', () => {
    if (fail) throw new Error('cannot forget now')
  })
  await database.db.run(note, ['user', 1, 'ann'])
  await assert.rejects(watch.look(database.db), /cannot forget now/)
  fail = false
  assert.ok((await look()).includes('ann'))
})

test('the sweep deletes what everybody saw; who looked before it resets, and only they', async () => {
  const { db } = database
  const idle = recorded()
  const awake = recorded()
  const late = recorded()
  await Promise.all([idle.look(), awake.look(), late.look()])

  await transaction(async slow => {
    // Its row will be older than all others by its column `at`, and newer by its commit.
    await slow.query(NOTE, ['slow'])
    await db.run(note, ['user', 1, 'old'])
    await sweepChanges(db, 0) // leaves the first mark, perhaps replacing one
    await sweepChanges(db, 0) // deletes up to that mark
    assert.deepEqual((await late.look()).includes('old'), false)
    assert.equal(late.resets(), 2, 'the change was deleted before this one looked')
    await late.look()
    assert.equal(late.resets(), 2, 'once')
    await slow.query('commit')
  })
  assert.deepEqual(await late.look(), ['slow'])

  // `awake` looks between mark and sweep: nothing is lost for it.
  await awake.look()
  const resets = awake.resets()
  await db.run(note, ['user', 1, 'new'])
  assert.deepEqual(await awake.look(), ['new'])
  await sweepChanges(db, 3_600)
  await awake.look()
  assert.equal(awake.resets(), resets)

  await idle.look()
  assert.equal(idle.resets(), 2)
})

test('a mark younger than the retention deletes nothing', async () => {
  const { db } = database
  await sweepChanges(db, 0)
  await db.run(note, ['user', 1, 'kept'])
  assert.equal(await sweepChanges(db, 3_600), 0)
  const kept = await db.one<{ n: number }>(
    sql('count_kept_changes', `select count(*) as n from changes where key = 'kept'`),
  )
  assert.equal(kept!.n, 1)
})

test('every table of people and settings leaves its change', async () => {
  const { db } = database
  const kinds = ['user', 'rule', 'template', 'event_type', 'audience', 'api_key', 'tenant'] as const
  const watch = changeWatch()
  const told: string[] = []
  for (const kind of kinds) watch.on(kind, (tenantId, key) => told.push(`${kind} ${tenantId} ${key}`))
  await watch.look(db)
  const does = async (text: string, expected: string[]) => {
    await db.pool.query(text)
    await watch.look(db)
    assert.deepEqual([...new Set(told.splice(0))].sort(), expected, text)
  }
  await does(`insert into tenants (id, name, data_key) values (901, 'watched', '')`, ['tenant 901 901'])
  await does(`insert into users (tenant_id, user_id) values (901, 'a'), (901, 'b')`, [
    'user 901 a',
    'user 901 b',
  ])
  await does(`update users set enabled = false where tenant_id = 901 and user_id = 'b'`, ['user 901 b'])
  await does(
    `insert into addresses (id, tenant_id, user_id, channel, address) values (gen_random_uuid(), 901, 'a', 1, 'a@x.org')`,
    ['user 901 a'],
  )
  await does(
    `insert into suppressions (tenant_id, channel, address, reason) values (901, 1, 'a@x.org', 'manual')`,
    ['user 901 a'],
  )
  await does(`delete from suppressions where tenant_id = 901`, ['user 901 a'])
  await does(`delete from addresses where tenant_id = 901`, ['user 901 a'])
  await does(
    `insert into devices (id, tenant_id, user_id, kind, token) values (gen_random_uuid(), 901, 'b', 'fcm', 't')`,
    ['user 901 b'],
  )
  await does(`insert into preferences (tenant_id, channel, enabled) values (901, -1, false)`, ['user 901 '])
  await does(`insert into audiences (tenant_id, kind, name) values (901, 'group', 'g')`, ['audience 901 g'])
  await does(`insert into event_types (tenant_id, type) values (901, 'a.b')`, ['event_type 901 a.b'])
  await does(`delete from users where tenant_id = 901 and user_id = 'b'`, ['user 901 b'])
})
