import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import { idFloor } from '../db/ids.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { type HousekeepingOptions, housekeeping } from './housekeeping.ts'

const DAY = 86_400_000
const RETENTION = {
  eventsDays: 30,
  notificationsDays: 90,
  attemptsDays: 180,
  engagementDays: 180,
  auditDays: 400,
  countersDays: 400,
  deadLettersDays: 90,
}
const TABLES = ['events', 'plans', 'notifications', 'attempts', 'engagement', 'audit']
const NOW = new Date('2031-05-15T12:00:00Z')
const ago = (days: number) => new Date(NOW.getTime() - days * DAY)
const idAgo = (days: number) => idFloor(ago(days).getTime())

let database: TestDatabase
beforeEach(async () => {
  database = await testDatabase()
  await database.db.pool.query(`insert into tenants (id, name, data_key) values (1, 'one', '\\x00')`)
})
afterEach(() => database.drop())

const keeper = (options: Partial<HousekeepingOptions> = {}) =>
  housekeeping({
    db: database.db,
    now: () => NOW,
    retention: RETENTION,
    onError: error => {
      throw error
    },
    ...options,
  })

/** One row of each kind of history, as old as that many days. */
const HISTORY: Record<string, (days: number) => [text: string, values: unknown[]]> = {
  events: days => [
    `insert into events (tenant_id, id, source, type, time, received_at, data, planned)
     values (1, $1, 's', 't', $2, $2, '', true)`,
    [idAgo(days), ago(days)],
  ],
  plans: days => [
    `insert into plans (tenant_id, event_id, part, outcome) values (1, $1, 0, 'completed')`,
    [idAgo(days)],
  ],
  notifications: days => [
    `insert into notifications (tenant_id, id, event_id, event_type, recipient_type, recipient_id, priority,
       channels, created_at, content) values (1, $1, $1, 't', 0, 'u', 0, '', $2, '')`,
    [idAgo(days), ago(days)],
  ],
  attempts: days => [
    `insert into attempts (tenant_id, notification_id, channel, attempt, worker, outcome, final, at)
     values (1, $1, 1, 1, 1, 0, true, $2)`,
    [idAgo(days), ago(days)],
  ],
  engagement: days => [
    `insert into engagement (tenant_id, id, notification_id, channel, kind) values (1, $1, $1, 1, 'opened')`,
    [idAgo(days)],
  ],
  audit: days => [
    `insert into audit (tenant_id, id, actor_kind, action, object_kind, object_id)
     values (1, $1, 'system', 'a', 'o', '1')`,
    [idAgo(days)],
  ],
}

const insert = (table: string, days: number) => database.db.pool.query(...HISTORY[table]!(days))

async function count(table: string): Promise<number> {
  return (await database.db.pool.query(`select count(*) as n from ${table}`)).rows[0].n
}

// covers: DIC-025, DIC-028
test('this month and the next two have a partition; a row of any other month has a place all the same', async () => {
  const { made } = await keeper().runOnce()
  assert.deepEqual(
    made.toSorted(),
    TABLES.flatMap(t => [`${t}_y2031m05`, `${t}_y2031m06`, `${t}_y2031m07`]).toSorted(),
  )
  assert.deepEqual((await keeper().runOnce()).made, [])
  for (const table of TABLES) {
    await insert(table, 0)
    await insert(table, -60)
    await insert(table, -200)
    assert.equal(await count(`${table}_y2031m05`), 1)
    assert.equal(await count(`${table}_y2031m07`), 1)
    assert.equal(await count(`${table}_default`), 1)
  }
})

test('prepare makes the partitions and deletes nothing', async () => {
  await insert('events', 1000)
  assert.equal((await keeper().prepare()).length, TABLES.length * 3)
  assert.equal(await count('events'), 1)
})

const KEPT = { events: 30, plans: 30, notifications: 90, attempts: 180, engagement: 180, audit: 400 }

for (const [table, days] of Object.entries(KEPT)) {
  test(`${table}: whole months beyond ${days} days go, and rows without a month to the day`, async () => {
    // The month that holds the last day, and the one before it, get partitions as if made in their time.
    const long = new Date(Date.UTC(ago(days).getUTCFullYear(), ago(days).getUTCMonth() - 1, 10))
    await keeper({ now: () => long }).prepare()
    const oldMonth = `${table}_y${long.getUTCFullYear()}m${String(long.getUTCMonth() + 1).padStart(2, '0')}`
    const inMonth = (NOW.getTime() - long.getTime()) / DAY
    await insert(table, inMonth)
    await insert(table, days + 1)
    await insert(table, days - 1)

    const { dropped, deleted } = await keeper().runOnce()
    assert.deepEqual(
      dropped.filter(name => name.startsWith(`${table}_`)),
      [oldMonth],
    )
    assert.deepEqual(deleted, {})
    // The day beyond lies in a month of which a part must stay, so it stays too.
    assert.equal(await count(table), 2)
  })

  test(`${table}: of the default partition, to the day and in chunks`, async () => {
    for (let i = 0; i < 7; i++) await insert(table, days + 1 + i)
    await insert(table, days - 0.01)
    const { deleted } = await keeper({ chunkRows: 3 }).runOnce()
    assert.deepEqual(deleted, { [`${table}_default`]: 7 })
    assert.equal(await count(table), 1)
  })
}

test('a round deletes no more than its share, says so, and the next goes on', async () => {
  for (let i = 0; i < 7; i++) await insert('events', 100 + i)
  const little = keeper({ chunkRows: 2, chunks: 2 })
  const first = await little.runOnce()
  assert.deepEqual([first.deleted, first.more], [{ events_default: 4 }, true])
  const second = await little.runOnce()
  assert.deepEqual([second.deleted, second.more], [{ events_default: 3 }, false])
})

test('events still to be planned and notifications still to be delivered outlive their retention', async () => {
  for (const table of ['events', 'plans', 'notifications', 'attempts']) {
    await insert(table, 300)
    await insert(table, 290)
  }
  await database.db.pool.query(
    `insert into planning (tenant_id, event_id, run_at, priority) values (1, $1, $2, 0)`,
    [idAgo(290), NOW],
  )
  await database.db.pool.query(
    `insert into jobs (tenant_id, notification_id, channel, kind, run_at, priority, reason)
     values (1, $1, 1, 'held', $2, 0, 'scheduled')`,
    [idAgo(290), NOW],
  )
  await keeper().runOnce()
  for (const table of ['events', 'plans', 'notifications', 'attempts'])
    assert.equal(await count(table), 1, table)

  await database.db.pool.query('delete from planning')
  await database.db.pool.query('delete from jobs')
  await database.db.pool.query(
    `insert into batches (id, tenant_id, owner, lease_until, n, id_min, id_max, priority)
     values (1, 1, 0, now(), 1, $1, $1, 0)`,
    [idAgo(290)],
  )
  await keeper().runOnce()
  assert.deepEqual([await count('events'), await count('notifications'), await count('attempts')], [0, 1, 1])
})

test('keys, tickets, dead letters, counters and states go when they are due, consents never', async () => {
  const { pool } = database.db
  const hour = (n: number) => new Date(NOW.getTime() + n * 3_600_000)
  const day = (days: number) => ago(days).toISOString().slice(0, 10)
  const pairs: [table: string, text: string, old: unknown[], young: unknown[]][] = [
    [
      'event_keys',
      `insert into event_keys values (1, gen_random_uuid(), gen_random_uuid(), $1)`,
      [hour(0)],
      [hour(0.001)],
    ],
    [
      'idempotency_keys',
      `insert into idempotency_keys values (1, gen_random_uuid(), '', 202, '', now(), $1)`,
      [hour(-1)],
      [hour(1)],
    ],
    [
      'realtime_tickets',
      `insert into realtime_tickets values (1, uuid_send(gen_random_uuid()), 'u', false, $1)`,
      [hour(-1)],
      [hour(1)],
    ],
    [
      'short_links',
      `insert into short_links values (uuid_send(gen_random_uuid()), 1, '', $1)`,
      [hour(0)],
      [hour(0.001)],
    ],
    [
      'dead_letters',
      `insert into dead_letters (tenant_id, id, at, kind, code, error)
       values (1, gen_random_uuid(), $1, 'delivery', 'c', 'e')`,
      [ago(90.01)],
      [ago(89.99)],
    ],
    ['delivery_state', `insert into delivery_state values (1, $1, 1, 0, now())`, [idAgo(181)], [idAgo(179)]],
    ['ledger_counters', `insert into ledger_counters values (1, $1, 1, 0)`, [day(401)], [day(400)]],
    ['event_counters', `insert into event_counters values (1, $1, 0)`, [day(401)], [day(400)]],
    ['counters', `insert into counters values (1, 'cap', $1)`, [ago(122.01)], [ago(121.99)]],
    [
      'claims',
      `insert into claims (tenant_id, key, until) values (1, $1, $2)`,
      ['old', ago(1.01)],
      ['young', ago(0.99)],
    ],
    [
      'spam_detections',
      `insert into spam_detections
         (tenant_id, id, key, window_at, channel, event_type, rule, action, max, stopped, last_at)
       values (1, gen_random_uuid(), $1, $2, 1, 't', 'r', 'BLOCK', 1, 1, $2)`,
      ['old', ago(122.01)],
      ['young', ago(121.99)],
    ],
    [
      'threshold_states',
      `insert into threshold_states (tenant_id, threshold_id, series, last_at)
       values (1, '01a1fca9-dac7-7001-8961-e4e33925320f', $1, $2)`,
      ['old', ago(122.01)],
      ['young', ago(121.99)],
    ],
  ]
  await pool.query(
    `insert into thresholds (tenant_id, id, name, stream, spec, created_at, updated_at)
     values (1, '01a1fca9-dac7-7001-8961-e4e33925320f', 'n', 's', '{}', now(), now())`,
  )
  for (const [, text, old, young] of pairs) {
    await pool.query(text, old)
    await pool.query(text, young)
  }
  await pool.query(
    `insert into consents (tenant_id, id, user_id, at, subject, actor)
     values (1, gen_random_uuid(), 'u', '2001-01-01', 's', 'a')`,
  )
  const { deleted, failed } = await keeper().runOnce()
  assert.deepEqual(failed, [])
  assert.deepEqual(deleted, Object.fromEntries(pairs.map(([table]) => [table, 1])))
  for (const [table] of pairs) assert.equal(await count(table), 1, table)
  assert.equal(await count('consents'), 1)
  // Whether the younger row is the one that stayed: nothing is left to delete.
  assert.deepEqual((await keeper().runOnce()).deleted, {})
})

test('changes everybody has seen are swept', async () => {
  await keeper().runOnce()
  assert.ok((await count('changes')) > 1)
  await database.db.pool.query(`update changes set at = now() - interval '2 hours'`)
  assert.ok((await keeper().runOnce()).deleted.changes! >= 1)
})

test('while one process keeps house another only sees to the partitions', async () => {
  await insert('events', 100)
  const holder = await database.db.connect('other process')
  await holder.query(`select pg_advisory_lock(${0x686f7573})`)
  const summary = await keeper().runOnce()
  assert.equal(summary.skipped, true)
  assert.equal(summary.made.length, TABLES.length * 3)
  assert.equal(await count('events'), 1)
  await holder.end()

  // The server notices the end of a connection a moment later.
  const deadline = Date.now() + 10_000
  while ((await keeper().runOnce()).skipped) assert.ok(Date.now() < deadline)
  assert.equal(await count('events'), 0)
})

test('several rounds at once delete every old row once, and nobody fails', async () => {
  const errors: unknown[] = []
  for (let i = 0; i < 50; i++) await insert('events', 100 + i)
  await insert('events', 1)
  const rounds = await Promise.all(
    [1, 2, 3].map(() => keeper({ chunkRows: 5, onError: error => errors.push(error) }).runOnce()),
  )
  assert.deepEqual(errors, [])
  assert.equal(
    rounds.reduce((sum, round) => sum + (round.deleted.events_default ?? 0), 0),
    50,
  )
  assert.equal(
    rounds.reduce((sum, round) => sum + round.made.length, 0),
    TABLES.length * 3,
  )
  assert.equal(await count('events'), 1)
})

test('one step that fails is reported and keeps no other from its work', async () => {
  const errors: unknown[] = []
  await insert('events', 100)
  await database.db.pool.query('drop table event_keys')
  const summary = await keeper({ onError: error => errors.push(error) }).runOnce()
  assert.deepEqual(summary.failed, ['event_keys'])
  assert.equal(errors.length, 1)
  assert.deepEqual(summary.deleted, { events_default: 1 })
})

test('runs by itself until stopped, sooner while there is more', async () => {
  for (let i = 0; i < 6; i++) await insert('events', 100 + i)
  const { promise, resolve } = Promise.withResolvers<void>()
  let rounds = 0
  const running = keeper({
    chunkRows: 2,
    chunks: 1,
    log: summary => {
      if (summary.deleted.events_default !== undefined && ++rounds === 3) resolve()
    },
  })
  running.start(5)
  await promise
  await running.stop()
  assert.equal(await count('events'), 0)
})
