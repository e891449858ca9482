import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { type FeedItem, appendFeed, compareHeads } from './append-feed.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase({ max: 10 })
})
after(() => database.drop())

const readFeed = sql(
  'test_read_feed',
  `select tenant_id as "tenantId", user_id as "userId", seq, notification_id as "notificationId",
          created_at as "createdAt", expires_at as "expiresAt"
   from feed where tenant_id = any($1::int[]) order by tenant_id, user_id collate "C", seq`,
)
const readHeads = sql(
  'test_read_heads',
  `select tenant_id as "tenantId", user_id as "userId", seq, unseen, unread
   from feed_heads where tenant_id = any($1::int[]) order by tenant_id, user_id collate "C"`,
)

const item = (tenantId: number, userId: string, more: Partial<FeedItem> = {}): FeedItem => ({
  tenantId,
  userId,
  notificationId: newId(),
  createdAt: new Date(),
  ...more,
})

test('items of one call get consecutive numbers per person, in the order given', async () => {
  const { db } = database
  const created = new Date('2026-03-01T10:00:00.123Z')
  const expires = new Date('2026-03-02T10:00:00.987Z')
  const items = [
    item(1, 'bob', { createdAt: created }),
    item(1, 'alice', { createdAt: created, expiresAt: expires }),
    item(2, 'bob', { createdAt: created }),
    item(1, 'bob', { createdAt: created, expiresAt: null }),
    item(1, 'bob', { createdAt: created }),
  ]
  const first = await appendFeed(db, items)
  assert.deepEqual(first, [
    { seq: 1, unseen: 3, unread: 3 },
    { seq: 1, unseen: 1, unread: 1 },
    { seq: 1, unseen: 1, unread: 1 },
    { seq: 2, unseen: 3, unread: 3 },
    { seq: 3, unseen: 3, unread: 3 },
  ])
  assert.deepEqual(await appendFeed(db, [item(1, 'bob'), item(1, 'bob')]), [
    { seq: 4, unseen: 5, unread: 5 },
    { seq: 5, unseen: 5, unread: 5 },
  ])

  const rows = await db.rows<FeedItem & { seq: number }>(readFeed, [[1, 2]])
  for (const [at, given] of items.entries()) {
    const row = rows.find(candidate => candidate.notificationId === given.notificationId)!
    assert.deepEqual(row, { ...given, expiresAt: given.expiresAt ?? null, seq: first[at]!.seq })
  }
  assert.deepEqual(await appendFeed(db, []), [])
})

test('user ids of any spelling come back as they are, at the right number', async () => {
  const { db } = database
  const userId = fc
    .oneof(
      fc.string({ unit: 'binary', minLength: 1, maxLength: 20 }),
      fc.constantFrom(
        'NULL',
        'null',
        '"',
        '\\',
        '\\"',
        '{}',
        ',',
        "'",
        ' ',
        '\u{10000}',
        '\uffff',
        '\ue000a',
      ),
    )
    .filter(text => !text.includes('\0'))
  let tenantId = 1000
  await fc.assert(
    fc.asyncProperty(fc.array(userId, { minLength: 1, maxLength: 30 }), async users => {
      const items = users.map(user => item(++tenantId, user)).map(each => ({ ...each, tenantId }))
      const appended = await appendFeed(db, items)
      const rows = await db.rows<FeedItem & { seq: number }>(readFeed, [[tenantId]])
      assert.deepEqual(
        rows.map(({ userId: user, seq, notificationId }) => `${seq} ${notificationId} ${user}`).sort(),
        items.map((each, at) => `${appended[at]!.seq} ${each.notificationId} ${each.userId}`).sort(),
      )
    }),
    { numRuns: 60 },
  )
})

test('heads are locked in the order in which PostgreSQL sorts bytes', async () => {
  const { db } = database
  const users = [
    'a',
    'A',
    'é',
    'z',
    '\u{1f600}',
    '\uffee',
    '\ue000',
    'ab',
    'a b',
    'a\u{10000}',
    'a\ufffd',
    '',
  ]
  const sorted = await db.rows<{ userId: string }>(
    sql('test_sort', `select u as "userId" from unnest($1::text[]) u order by u collate "C"`),
    [users],
  )
  const ours = users.map(userId => ({ tenantId: 1, userId })).sort(compareHeads)
  assert.deepEqual(
    ours.map(({ userId }) => userId),
    sorted.map(({ userId }) => userId),
  )
  assert.ok(compareHeads({ tenantId: 2, userId: 'a' }, { tenantId: 10, userId: '' }) < 0)
})

test('eight writers over five people: numbers without gap, exact counts, no deadlock', async () => {
  const { db } = database
  const tenantId = 77
  const people = ['ann', 'ben', 'cy', 'dee', 'eli']
  let seed = 1
  const random = (below: number) => {
    seed = (seed * 48271) % 2147483647
    return seed % below
  }
  const seen = new Map<string, number>()
  const committed: { id: string; userId: string; seq: number }[] = []
  const writer = async () => {
    for (let round = 0; round < 40; round++) {
      const items = Array.from({ length: 1 + random(25) }, () =>
        item(tenantId, people[random(people.length)]!),
      )
      const abort = random(10) === 0
      try {
        const appended = await db.tx(async tx => {
          const result = await appendFeed(tx, items)
          if (abort) throw new Error('rolled back on purpose')
          return result
        })
        for (const [at, each] of items.entries()) {
          committed.push({ id: each.notificationId, userId: each.userId, seq: appended[at]!.seq })
          seen.set(each.userId, (seen.get(each.userId) ?? 0) + 1)
        }
      } catch (error) {
        if (!abort) throw error
      }
    }
  }
  await Promise.all(Array.from({ length: 8 }, writer))

  const rows = await db.rows<FeedItem & { seq: number }>(readFeed, [[tenantId]])
  assert.equal(rows.length, committed.length)
  for (const userId of people) {
    const own = rows.filter(row => row.userId === userId)
    assert.deepEqual(
      own.map(row => row.seq),
      own.map((_, at) => at + 1),
    )
  }
  const byId = new Map(rows.map(row => [row.notificationId, row]))
  for (const { id, userId, seq } of committed) {
    const row = byId.get(id)!
    assert.equal(`${row.userId} ${row.seq}`, `${userId} ${seq}`)
  }
  const heads = await db.rows<{ userId: string; seq: number; unseen: number; unread: number }>(readHeads, [
    [tenantId],
  ])
  assert.deepEqual(
    heads.map(({ userId, seq, unseen, unread }) => ({ userId, seq, unseen, unread })),
    people.map(userId => {
      const n = seen.get(userId)!
      return { userId, seq: n, unseen: n, unread: n }
    }),
  )
})
