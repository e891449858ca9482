import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { idFloor, newId } from './ids.ts'
import { dropPartitionsBefore, ensurePartitions, partitionName } from './partitions.ts'

const now = new Date('2026-11-21T12:00:00Z')
const at = (time: string) => newIdAt(Date.parse(time))
// newId never goes back in time; these ids must.
const newIdAt = (ms: number) => `${idFloor(ms).slice(0, 14)}${newId().slice(14)}`

let database: TestDatabase
const query = async <R extends object>(text: string, values: unknown[] = []) =>
  (await database.db.pool.query<R>(text, values)).rows

before(async () => {
  database = await testDatabase({ empty: true })
})
after(() => database.drop())

beforeEach(async () => {
  await query('drop table if exists things, others')
  const left = await query<{ name: string }>(
    `select relname as name from pg_class where relkind = 'r' and relname ~ '^(things|others)'`,
  )
  for (const { name } of left) await query(`drop table if exists ${name}`)
  for (const table of ['things', 'others']) {
    await query(`create table ${table} (tenant_id int not null, id uuid not null, note text,
      primary key (tenant_id, id)) partition by range (id)`)
    await query(`create index on ${table} (note)`)
  }
})

const ensure = (options: Partial<Parameters<typeof ensurePartitions>[1]> = {}) =>
  ensurePartitions(database.db, { tables: ['things'], monthsAhead: 2, now, ...options })

const insert = (id: string, note = '') => query(`insert into things values (1, $1, $2)`, [id, note])

/** The partition each note lies in. */
const places = async () =>
  Object.fromEntries(
    (
      await query<{ note: string; place: string }>(
        'select note, tableoid::regclass::text as place from things order by id',
      )
    ).map(row => [row.note, row.place]),
  )

test('makes the months asked for and a default, for every table, once', async () => {
  assert.deepEqual(await ensure({ tables: ['things', 'others'], from: new Date('2026-10-31T23:59:59Z') }), [
    'things_y2026m10',
    'things_y2026m11',
    'things_y2026m12',
    'things_y2027m01',
    'others_y2026m10',
    'others_y2026m11',
    'others_y2026m12',
    'others_y2027m01',
  ])
  assert.deepEqual(await ensure({ tables: ['things', 'others'] }), [])
  assert.deepEqual(await ensure({ monthsAhead: 3 }), ['things_y2027m02'])
})

test('rows go to the month of their id, at the very edge too', async () => {
  await ensure()
  await insert(idFloor(Date.UTC(2026, 11)), 'first of December')
  await insert(newIdAt(Date.UTC(2026, 11) - 1), 'last of November')
  await insert(at('2026-10-15T00:00:00Z'), 'October')
  await insert(at('2030-01-01T00:00:00Z'), 'far away')
  assert.deepEqual(await places(), {
    October: 'things_default',
    'last of November': 'things_y2026m11',
    'first of December': 'things_y2026m12',
    'far away': 'things_default',
  })
})

test('a query by time reads only the months it needs, through the indexes of the parent', async () => {
  await ensure()
  const plan = (
    await query<{ 'QUERY PLAN': string }>(
      `explain select * from things where id >= '${idFloor(Date.UTC(2026, 11))}' and id < '${idFloor(Date.UTC(2026, 11, 8))}'`,
    )
  )
    .map(row => row['QUERY PLAN'])
    .join('\n')
  assert.match(plan, /things_y2026m12/)
  assert.doesNotMatch(plan, /things_y2026m11|things_y2027m01|things_default/)

  const [indexes] = await query<{ own: number; attached: number }>(
    `select count(*)::int as own, count(i.inhrelid)::int as attached
     from pg_index x left join pg_inherits i on i.inhrelid = x.indexrelid
     where x.indrelid = 'things_y2026m12'::regclass`,
  )
  assert.deepEqual(indexes, { own: 2, attached: 2 }, 'no index is made twice')
})

test('rows that waited in the default partition move when their month is made', async () => {
  await ensure()
  await insert(at('2027-03-10T00:00:00Z'), 'March')
  await insert(at('2027-04-10T00:00:00Z'), 'April')
  assert.deepEqual(await places(), { March: 'things_default', April: 'things_default' })
  assert.deepEqual(await ensure({ monthsAhead: 4 }), ['things_y2027m02', 'things_y2027m03'])
  assert.deepEqual(await places(), { March: 'things_y2027m03', April: 'things_default' })
})

test('many at once make each partition once, while rows keep coming and none is lost', async () => {
  await query('create table things_default partition of things default')
  const ids = Array.from({ length: 200 }, (_, index) => newIdAt(Date.UTC(2026, 10 + (index % 5), 3)))
  const [made] = await Promise.all([
    Promise.all([ensure(), ensure({ monthsAhead: 4 }), ensure(), ensure({ monthsAhead: 4 })]),
    (async () => {
      for (const id of ids) await insert(id, id)
    })(),
  ])
  const names = made.flat()
  assert.equal(new Set(names).size, names.length)
  assert.equal(names.length, 5)
  assert.equal((await query<{ n: number }>('select count(*)::int as n from things'))[0]!.n, ids.length)
  assert.equal((await query<{ n: number }>('select count(*)::int as n from things_default'))[0]!.n, 0)
})

test('old months are dropped, one that is not over stays, and the default partition is swept', async () => {
  await ensure({ from: new Date('2026-08-01T00:00:00Z') })
  for (const month of ['06', '08', '09', '10', '11']) await insert(at(`2026-${month}-15T00:00:00Z`), month)
  const result = await dropPartitionsBefore(database.db, {
    table: 'things',
    before: new Date('2026-10-20T00:00:00Z'),
  })
  assert.deepEqual(result, { partitions: ['things_y2026m08', 'things_y2026m09'], rows: 1 })
  assert.deepEqual(Object.keys(await places()), ['10', '11'].sort())
  assert.deepEqual(await query(`select to_regclass('things_y2026m08') as gone`), [{ gone: null }])
  assert.deepEqual(await dropPartitionsBefore(database.db, { table: 'things', before: now }), {
    partitions: ['things_y2026m10'],
    rows: 0,
  })
})

test('a month that was detached by a process that then died is dropped as well', async () => {
  await ensure({ from: new Date('2026-09-01T00:00:00Z') })
  await query('alter table things detach partition things_y2026m09')
  const { partitions } = await dropPartitionsBefore(database.db, { table: 'things', before: now })
  assert.deepEqual(partitions, ['things_y2026m09', 'things_y2026m10'])
  assert.deepEqual(await query(`select to_regclass('things_y2026m09') as gone`), [{ gone: null }])
})

test('a table in use is not queued for: readers go on, and the work is done when they are through', async () => {
  await ensure({ from: new Date('2026-10-01T00:00:00Z') })
  const reader = await database.db.connect('long reader')
  await reader.query('begin; select * from things')
  const drop = dropPartitionsBefore(database.db, { table: 'things', before: now })
  const waiting = async () =>
    (await query(`select from pg_locks where not granted and relation = 'things'::regclass`)).length > 0
  for (const end = Date.now() + 10_000; !(await waiting()); await delay(10)) assert.ok(Date.now() < end)
  // Would wait for the reader's end if the attempt did not give up.
  await insert(at('2026-11-20T00:00:00Z'), 'meanwhile')
  await reader.query('commit')
  await reader.end()
  assert.deepEqual((await drop).partitions, ['things_y2026m10'])
})

test('what is no partitioned table, or asks too much, is refused', async () => {
  await query('create table plain (id uuid)')
  await assert.rejects(ensure({ tables: ['plain'] }), /plain is not partitioned/)
  await assert.rejects(ensure({ tables: ['nowhere'] }), /nowhere is not partitioned/)
  await assert.rejects(ensure({ tables: ['things; drop table things'] }), /Not the name of a table/)
  await assert.rejects(ensure({ from: new Date(0) }), /more than 240/)
})

test('names sort in the order of time', () => {
  assert.equal(partitionName('events', 2026 * 12 + 10), 'events_y2026m11')
  assert.equal(partitionName('events', 2027 * 12), 'events_y2027m01')
})
