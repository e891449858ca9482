import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { FEED_MARKS, type FeedStore, MARK_ALL_ROWS, MAX_MARKED, feedStore } from './feed.ts'
import { type TestInbox, testInbox } from './test-inbox.ts'
import { MAX_UNREAD, capUnread, pruneFeed, wakeSnoozed } from './upkeep.ts'

let database: TestDatabase
let inbox: TestInbox
let feed: FeedStore
let tenantId: number
const unreadable: string[] = []

before(async () => {
  database = await testDatabase()
  inbox = testInbox(database.db)
  feed = feedStore(database.db, inbox.sealer, id => void unreadable.push(id))
  tenantId = await inbox.tenant()
})
after(() => database.drop())

const T0 = new Date('2026-05-01T09:00:00.000Z')
const minutes = (n: number) => new Date(T0.getTime() + n * 60_000)
const ids = (items: readonly { id: string }[]) => items.map(item => item.id)

const recount = sql(
  'test_recount',
  `select h.user_id as "userId", h.unseen, h.unread, h.seq as head,
     count(f.seq) filter (where f.seen_at is null and f.archived_at is null and f.snoozed_until is null)::int as "trueUnseen",
     count(f.seq) filter (where f.read_at is null and f.archived_at is null and f.snoozed_until is null)::int as "trueUnread",
     (select coalesce(max(seq), 0) from feed_changes c where c.tenant_id = h.tenant_id and c.user_id = h.user_id) as "lastChange"
   from feed_heads h left join feed f on f.tenant_id = h.tenant_id and f.user_id = h.user_id
   where h.tenant_id = $1 group by h.tenant_id, h.user_id, h.unseen, h.unread, h.seq`,
)
const recountThreads = sql(
  'test_recount_threads',
  `select coalesce(t.thread, f.thread) as thread, coalesce(t.user_id, f.user_id) as "userId",
     t.items, t.unread, t.last_seq as last, f.items as "trueItems", f.unread as "trueUnread", f.last as "trueLast"
   from (select * from feed_threads where tenant_id = $1) t
   full join (
     select user_id, thread, count(*)::int as items, max(seq) as last,
       count(*) filter (where read_at is null and archived_at is null and snoozed_until is null)::int as unread
     from feed where tenant_id = $1 and thread is not null group by 1, 2
   ) f on f.user_id = t.user_id and f.thread = t.thread`,
)
interface ThreadRecount {
  thread: string
  userId: string
  items: number
  unread: number
  last: number
  trueItems: number
  trueUnread: number
  trueLast: number
}
async function assertThreadsTrue(tenant: number): Promise<void> {
  for (const row of await database.db.rows<ThreadRecount>(recountThreads, [tenant])) {
    const { thread, userId, items, unread, last, trueItems, trueUnread, trueLast } = row
    assert.deepEqual([userId, thread, items, unread, last], [userId, thread, trueItems, trueUnread, trueLast])
  }
}

interface Recount {
  userId: string
  unseen: number
  unread: number
  trueUnseen: number
  trueUnread: number
}
async function assertCountsTrue(tenant: number): Promise<void> {
  for (const row of await database.db.rows<Recount>(recount, [tenant])) {
    assert.deepEqual([row.userId, row.unseen, row.unread], [row.userId, row.trueUnseen, row.trueUnread])
  }
}

test('a page shows the newest first, opened for its reader, and the next page goes on where it ended', async () => {
  await inbox.person(tenantId, 'alice')
  const added = []
  for (let n = 0; n < 5; n++) added.push(...(await inbox.add(tenantId, ['alice'], { createdAt: minutes(n) })))

  const first = await feed.list(tenantId, 'alice', { filter: 'inbox', limit: 2, now: minutes(10) })
  assert.deepEqual(first.items, [added[4]!.data, added[3]!.data])
  assert.equal(first.head, 5)
  const second = await feed.list(tenantId, 'alice', {
    filter: 'inbox',
    limit: 3,
    before: first.nextSeq!,
    now: minutes(10),
  })
  assert.deepEqual(ids(second.items), ids([added[2]!, added[1]!, added[0]!]))
  assert.equal(second.nextSeq, null)

  const nobody = await feed.list(tenantId, 'stranger', { filter: 'inbox', limit: 2, now: T0 })
  assert.deepEqual(nobody, { items: [], nextSeq: null, head: 0 })
  const elsewhere = await feed.list(tenantId + 1, 'alice', { filter: 'all', limit: 2, now: T0 })
  assert.deepEqual(elsewhere.items, [])
})

// covers: AUR-142
test('reading again keeps the first time, and is no further change', async () => {
  await inbox.person(tenantId, 'ann')
  const [item] = await inbox.add(tenantId, ['ann'])
  const first = await feed.mark(tenantId, 'ann', 'read', [item!.id], minutes(1))
  assert.deepEqual(first.states[0]!.readAt, minutes(1))
  assert.deepEqual(first.states[0]!.seenAt, minutes(1))
  assert.deepEqual(first.counts, { head: 2, unseen: 0, unread: 0 })
  assert.equal(first.changes.length, 1)
  assert.equal(first.changes[0]!.seq, 2)

  const again = await feed.mark(tenantId, 'ann', 'read', [item!.id, item!.id, newId()], minutes(5))
  assert.deepEqual(again.states, first.states)
  assert.deepEqual(again.changes, [])
  assert.deepEqual(again.counts, first.counts)
})

test('what is archived or snoozed leaves the inbox and its counts, and comes back', async () => {
  await inbox.person(tenantId, 'bea')
  const [a, b, c] = await inbox.add(tenantId, ['bea', 'bea', 'bea'])
  await feed.mark(tenantId, 'bea', 'archived', [a!.id], minutes(1))
  await feed.mark(tenantId, 'bea', 'read', [b!.id], minutes(1))
  await feed.mark(tenantId, 'bea', 'snoozed', [b!.id], minutes(2), minutes(30))
  const shown = async (filter: 'inbox' | 'archived' | 'snoozed' | 'unread' | 'all', now: Date) =>
    ids((await feed.list(tenantId, 'bea', { filter, limit: 9, now })).items)

  assert.deepEqual(await shown('inbox', minutes(3)), [c!.id])
  assert.deepEqual(await shown('archived', minutes(3)), [a!.id])
  assert.deepEqual(await shown('snoozed', minutes(3)), [b!.id])
  assert.deepEqual(await shown('all', minutes(3)), ids([c!, b!, a!]))
  assert.equal((await feed.counts(tenantId, 'bea')).unread, 1)

  // It is due: shown even before house-keeping came by, then new again.
  assert.deepEqual(await shown('inbox', minutes(30)), ids([c!, b!]))
  assert.deepEqual(
    (await wakeSnoozed(database.db, minutes(29))).filter(change => change.userId === 'bea'),
    [],
  )
  const woken = (await wakeSnoozed(database.db, minutes(30))).filter(change => change.userId === 'bea')
  assert.deepEqual(
    woken.map(change => [change.data.change, change.data.id, change.data.readAt]),
    [['unsnoozed', b!.id, null]],
  )
  assert.deepEqual(await shown('unread', minutes(31)), ids([c!, b!]))
  assert.equal((await feed.counts(tenantId, 'bea')).unread, 2)

  await feed.mark(tenantId, 'bea', 'unarchived', [a!.id], minutes(40))
  assert.equal((await feed.counts(tenantId, 'bea')).unseen, 3)
  await assertCountsTrue(tenantId)
})

test('marking all takes more than one step and leaves out what comes later, archived or snoozed', async () => {
  await inbox.person(tenantId, 'max')
  const n = MARK_ALL_ROWS + 7
  for (let left = n; left > 0; left -= 500)
    await inbox.add(
      tenantId,
      Array.from({ length: Math.min(left, 500) }, () => 'max'),
    )
  const { items } = await feed.list(tenantId, 'max', { filter: 'inbox', limit: 3, now: minutes(1) })
  await feed.mark(tenantId, 'max', 'archived', [items[0]!.id], minutes(1))
  await feed.mark(tenantId, 'max', 'snoozed', [items[1]!.id], minutes(1), minutes(90))

  const seen = await feed.markAll(tenantId, 'max', 'seen', minutes(2))
  assert.deepEqual([seen.counts.unseen, seen.counts.unread], [0, n - 2])
  const read = await feed.markAll(tenantId, 'max', 'read', minutes(3))
  assert.deepEqual([read.counts.unseen, read.counts.unread], [0, 0])
  assert.deepEqual(read.changes[0]!.data, { change: 'all_read', id: null })
  assert.equal(read.changes[0]!.seq, n + 4)

  const again = await feed.markAll(tenantId, 'max', 'read', minutes(4))
  assert.deepEqual(again.changes, [])
  const after = await feed.list(tenantId, 'max', { filter: 'inbox', limit: 1, now: minutes(5) })
  assert.deepEqual(
    [after.items[0]!.seenAt, after.items[0]!.readAt],
    [minutes(2), minutes(3)].map(t => t.toISOString()),
  )
  await inbox.add(tenantId, ['max'])
  assert.equal((await feed.counts(tenantId, 'max')).unread, 1)
  await assertCountsTrue(tenantId)
})

test('whatever is done in whatever order, counts are true and every change has its number', async () => {
  const action = fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('add' as const),
        n: fc.integer({ min: 1, max: 4 }),
        thread: fc.constantFrom(undefined, 'a', 'b'),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constant('mark' as const),
        mark: fc.constantFrom(...FEED_MARKS),
        picks: fc.array(fc.nat(20), { minLength: 1, maxLength: 6 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('thread_read' as const), thread: fc.constantFrom('a', 'b') }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('all_seen' as const, 'all_read' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constantFrom('wake' as const, 'cap' as const, 'prune' as const) }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('retract' as const), pick: fc.nat(20) }) },
  )
  const tenant = await inbox.tenant()
  let run = 0
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 25 }), async actions => {
      const user = `p${++run}`
      await inbox.person(tenant, user)
      const known: string[] = []
      let clock = 0
      for (const step of actions) {
        const now = minutes(++clock)
        if (step.kind === 'add') {
          const expiresAt = step.n === 4 ? minutes(clock + 5) : undefined
          known.push(
            ...ids(
              await inbox.add(
                tenant,
                Array.from({ length: step.n }, () => user),
                { expiresAt, thread: step.thread },
              ),
            ),
          )
        } else if (step.kind === 'mark') {
          const picked = known.length === 0 ? [newId()] : step.picks.map(pick => known[pick % known.length]!)
          await feed.mark(tenant, user, step.mark, picked, now, minutes(clock + 3))
        } else if (step.kind === 'all_seen') await feed.markAll(tenant, user, 'seen', now)
        else if (step.kind === 'all_read') await feed.markAll(tenant, user, 'read', now)
        else if (step.kind === 'thread_read') {
          const { changes } = await feed.markThreadRead(tenant, user, step.thread, now)
          assert.ok(changes.length <= 1)
          const left = await feed.list(tenant, user, {
            filter: 'unread',
            thread: step.thread,
            limit: 1,
            now: minutes(-1),
          })
          assert.deepEqual(left.items, [])
        } else if (step.kind === 'wake') await wakeSnoozed(database.db, now)
        else if (step.kind === 'cap')
          await capUnread(database.db, [{ tenantId: tenant, userId: user }], now, 3)
        else if (step.kind === 'prune') {
          await pruneFeed(database.db, { before: new Date(0), now, limit: 100 })
        } else if (step.kind === 'retract' && known.length > 0) {
          await feed.retract(tenant, [known[step.pick % known.length]!], now)
        }
      }
      await assertCountsTrue(tenant)
      await assertThreadsTrue(tenant)
      const [all] = await feed.catchUp([{ tenantId: tenant, userId: user, after: 0 }], 1000)
      const seqs = all!.rows.map(row => row.seq)
      assert.deepEqual(
        seqs,
        [...new Set(seqs)].sort((a, b) => a - b),
      )
      assert.ok(seqs.every(seq => seq <= all!.head))
      // Numbers are missing only where an item was removed, and every removal has a change of its own.
      const removed = all!.rows.filter(row => row.type === 'change' && row.data.change === 'removed').length
      assert.equal(all!.head - seqs.length, removed)
    }),
    { numRuns: 40 },
  )
})

test('threads are listed by their newest item, page by page, and go with their last one', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'tea')
  await inbox.person(tenant, 'tom')
  const first = await inbox.add(tenant, ['tea', 'tom'], { thread: 'order:1' })
  await inbox.add(tenant, ['tea'], { thread: 'order:2' })
  await inbox.add(tenant, ['tea'])
  const again = await inbox.add(tenant, ['tea'], { thread: 'order:1' })

  const page = await feed.threads(tenant, 'tea', { limit: 1, now: T0 })
  assert.deepEqual(page.threads, [{ thread: 'order:1', items: 2, unread: 2, last: again[0]!.data }])
  const next = await feed.threads(tenant, 'tea', { limit: 5, before: page.nextSeq!, now: T0 })
  assert.deepEqual(
    next.threads.map(({ thread, items }) => [thread, items]),
    [['order:2', 1]],
  )
  assert.equal(next.nextSeq, null)
  assert.equal((await feed.thread(tenant, 'tom', 'order:1', T0))!.items, 1)
  assert.equal(await feed.thread(tenant, 'tom', 'order:2', T0), undefined)
  assert.deepEqual(await feed.threads(tenant + 1, 'tea', { limit: 5, now: T0 }), {
    threads: [],
    nextSeq: null,
  })

  await feed.retract(tenant, [again[0]!.id], minutes(1))
  const [newest] = (await feed.threads(tenant, 'tea', { limit: 5, now: T0 })).threads
  assert.equal(newest!.thread, 'order:2', 'the newest item of the other is older now')
  await feed.retract(tenant, [first[0]!.id], minutes(2))
  assert.equal(await feed.thread(tenant, 'tea', 'order:1', T0), undefined)
  await assertThreadsTrue(tenant)
})

test('what expired is shown as the last of its thread no more, before it is taken away', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'ted')
  const [lasting] = await inbox.add(tenant, ['ted'], { thread: 'order:1' })
  for (const thread of ['order:2', 'order:1']) {
    await inbox.add(tenant, ['ted'], { thread, expiresAt: minutes(10) })
  }
  const [newest] = await inbox.add(tenant, ['ted'], { thread: 'order:3' })
  const names = async (at: Date) =>
    (await feed.threads(tenant, 'ted', { limit: 5, now: at })).threads.map(({ thread }) => thread)
  assert.deepEqual(await names(minutes(9)), ['order:3', 'order:1', 'order:2'])

  const now = minutes(10)
  assert.deepEqual(await names(now), ['order:3', 'order:1'])
  assert.equal(await feed.thread(tenant, 'ted', 'order:2', now), undefined)
  assert.equal((await feed.thread(tenant, 'ted', 'order:1', now))!.last.id, lasting!.id)
  // Pages go on behind what was shown, wherever its last item is by now.
  const page = await feed.threads(tenant, 'ted', { limit: 1, now })
  assert.deepEqual(ids(page.threads.map(({ last }) => last)), [newest!.id])
  const rest = await feed.threads(tenant, 'ted', { limit: 1, before: page.nextSeq!, now })
  assert.deepEqual([rest.threads.map(({ thread }) => thread), rest.nextSeq], [['order:1'], null])
})

test('reading a thread takes more than one step, is one change, and leaves the others alone', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'meg')
  const n = MARK_ALL_ROWS + 3
  for (let left = n; left > 0; left -= 500) {
    const some = Array.from({ length: Math.min(left, 500) }, () => 'meg')
    await inbox.add(tenant, some, { thread: 'busy' })
  }
  const [other] = await inbox.add(tenant, ['meg'], { thread: 'calm' })
  const { changes, counts } = await feed.markThreadRead(tenant, 'meg', 'busy', minutes(1))
  assert.deepEqual([counts.unread, counts.unseen], [1, 1])
  assert.deepEqual(
    changes.map(({ seq, data }) => [seq, data]),
    [[n + 2, { change: 'thread_read', id: null, thread: 'busy' }]],
  )
  const [told] = await feed.catchUp([{ tenantId: tenant, userId: 'meg', after: n }], 10)
  assert.deepEqual(
    told!.rows.map(row => row.data),
    [other!.data, changes[0]!.data],
  )
  assert.deepEqual((await feed.markThreadRead(tenant, 'meg', 'busy', minutes(2))).changes, [])
  assert.deepEqual((await feed.markThreadRead(tenant, 'meg', 'unknown', minutes(2))).changes, [])
  assert.deepEqual((await feed.markThreadRead(tenant, 'stranger', 'busy', minutes(2))).counts.head, 0)
  await assertCountsTrue(tenant)
  await assertThreadsTrue(tenant)
})

// covers: DIC-125
test('of more than a thousand unread the oldest are marked read', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'flood')
  await inbox.person(tenant, 'calm')
  const added = []
  for (let n = 0; n < 5; n++)
    added.push(
      ...(await inbox.add(
        tenant,
        Array.from({ length: 250 }, () => 'flood'),
      )),
    )
  await inbox.add(tenant, ['calm', 'calm'])
  const people = [
    { tenantId: tenant, userId: 'calm' },
    { tenantId: tenant, userId: 'flood' },
  ]
  const changes = await capUnread(database.db, people, minutes(1))
  assert.deepEqual(new Set(changes.map(change => change.data.id)), new Set(ids(added.slice(0, 250))))
  assert.equal(changes.length, 250)
  assert.equal((await feed.counts(tenant, 'flood')).unread, MAX_UNREAD)
  assert.equal((await feed.counts(tenant, 'calm')).unread, 2)
  assert.deepEqual(await capUnread(database.db, people, minutes(2)), [])
  await assertCountsTrue(tenant)
})

// covers: DIC-124
test('expired items are removed, old ones pruned; a stream from before that learns it', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'ida')
  const day = 86_400_000
  const now = new Date(T0.getTime() + 40 * day)
  const [old] = await inbox.add(tenant, ['ida'], { createdAt: T0 })
  await feed.mark(tenant, 'ida', 'seen', [old!.id], T0)
  const [expired] = await inbox.add(tenant, ['ida'], {
    createdAt: new Date(now.getTime() - day),
    expiresAt: now,
  })
  const [kept] = await inbox.add(tenant, ['ida'], { createdAt: new Date(now.getTime() - day) })

  const pruned = await pruneFeed(database.db, {
    before: new Date(now.getTime() - 30 * day),
    now,
    limit: 1000,
  })
  assert.deepEqual(
    pruned.published
      .filter(change => change.userId === 'ida')
      .map(change => [change.data.change, change.data.id]),
    [['removed', expired!.id]],
  )
  const { items } = await feed.list(tenant, 'ida', { filter: 'all', limit: 9, now: T0 })
  assert.deepEqual(ids(items), [kept!.id])
  await assertCountsTrue(tenant)
  const [state] = await feed.catchUp([{ tenantId: tenant, userId: 'ida', after: 2 }], 10)
  assert.equal(state!.pruned, 2)
  assert.deepEqual(
    state!.rows.map(row => [row.seq, row.type]),
    [
      [4, 'notification'],
      [5, 'change'],
    ],
  )
})

test('pruning goes on where it stopped', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'lea')
  await inbox.add(
    tenant,
    Array.from({ length: 7 }, () => 'lea'),
    { createdAt: T0 },
  )
  const options = { before: minutes(60), now: minutes(60), limit: 5 }
  assert.equal((await pruneFeed(database.db, options)).more, true)
  while ((await pruneFeed(database.db, options)).more);
  assert.deepEqual(await feed.counts(tenant, 'lea'), { head: 7, unseen: 0, unread: 0 })
})

test('retracting reaches every reader of one tenant and nobody of another', async () => {
  const tenant = await inbox.tenant()
  const other = await inbox.tenant()
  for (const [where, who] of [
    [tenant, 'x'],
    [tenant, 'y'],
    [other, 'x'],
  ] as const) {
    await inbox.person(where, who)
  }
  const mine = await inbox.add(tenant, ['x', 'y'])
  const [theirs] = await inbox.add(other, ['x'])
  const changes = await feed.retract(tenant, [...ids(mine), theirs!.id], T0)
  assert.deepEqual(
    changes.map(change => [change.tenantId, change.userId, change.seq, change.data.change]),
    [
      [tenant, 'x', 2, 'removed'],
      [tenant, 'y', 2, 'removed'],
    ],
  )
  assert.equal((await feed.counts(other, 'x')).unread, 1)
  assert.equal((await feed.counts(tenant, 'x')).unread, 0)
})

test('writers of many inboxes at once do not deadlock and keep the counts', async () => {
  const tenant = await inbox.tenant()
  const people = Array.from({ length: 6 }, (_, n) => `w${n}`)
  for (const person of people) await inbox.person(tenant, person)
  const mine: string[] = []
  let n = 0
  const writer = async (kind: number) => {
    for (let round = 0; round < 25; round++) {
      const order = people.toSorted(() => ((n++ * 7919) % 3) - 1)
      if (kind < 2) mine.push(...ids(await inbox.add(tenant, order, { expiresAt: minutes(1) })))
      else if (kind === 2) await pruneFeed(database.db, { before: T0, now: minutes(2), limit: 20 })
      else if (kind === 3)
        await capUnread(
          database.db,
          order.map(userId => ({ tenantId: tenant, userId })),
          T0,
          5,
        )
      else await feed.mark(tenant, order[0]!, FEED_MARKS[round % 7]!, mine.slice(-MAX_MARKED), T0, minutes(3))
    }
  }
  await Promise.all([0, 1, 2, 3, 4].map(writer))
  await assertCountsTrue(tenant)
})

test('content that cannot be opened, or is gone, leaves its item empty and the others whole', async () => {
  const tenant = await inbox.tenant()
  await inbox.person(tenant, 'eva')
  const [broken, whole] = await inbox.add(tenant, ['eva', 'eva'])
  await database.db.run(
    sql('test_break', `update notifications set content = '\\x01ff' where tenant_id = $1 and id = $2`),
    [tenant, broken!.id],
  )
  const { items } = await feed.list(tenant, 'eva', { filter: 'inbox', limit: 9, now: T0 })
  assert.deepEqual(
    items.map(item => [item.id, item.body]),
    [
      [whole!.id, whole!.data.body],
      [broken!.id, ''],
    ],
  )
  assert.deepEqual(unreadable, [broken!.id])
  await database.db.run(sql('test_erase', `update users set data_key = null where tenant_id = $1`), [tenant])
  const erased = await feed.list(tenant, 'eva', { filter: 'inbox', limit: 9, now: T0 })
  assert.deepEqual(
    erased.items.map(item => [item.subject, item.body, item.data]),
    [
      [null, '', null],
      [null, '', null],
    ],
  )
})
