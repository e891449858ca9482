import assert from 'node:assert/strict'
import { setImmediate as turn, setTimeout as pause } from 'node:timers/promises'
import { after, before, test } from 'node:test'
import { AppError } from '../errors.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { type FeedStore, feedStore } from './feed.ts'
import { type EndReason, type Envelope, type Hub, type HubOptions, type Sink, createHub } from './hub.ts'
import { type TestInbox, testInbox } from './test-inbox.ts'

let database: TestDatabase
let inbox: TestInbox
let feed: FeedStore

before(async () => {
  database = await testDatabase()
  inbox = testInbox(database.db)
  feed = feedStore(database.db, inbox.sealer)
})
after(() => database.drop())

/** Polls a condition that events bring about; fails after ten seconds. */
async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!condition()) {
    assert.ok(Date.now() < deadline, `never came: ${what}`)
    await pause(2)
  }
}

interface TestSink extends Sink {
  got: Envelope[]
  ended: EndReason[]
  held: number
}
function sink(more: Partial<Sink> = {}): TestSink {
  const self: TestSink = {
    got: [],
    ended: [],
    held: 0,
    send: envelope => void self.got.push(envelope),
    buffered: () => self.held,
    end: reason => void self.ended.push(reason),
    ...more,
  }
  return self
}
const numbered = (got: readonly Envelope[]) =>
  got.filter(({ type }) => type === 'notification' || type === 'change').map(({ seq }) => seq)
const lastOf = (got: readonly Envelope[]) => numbered(got).at(-1)

const hubOver = (options: Partial<HubOptions> = {}): Hub =>
  createHub({
    catchUp: (waiting, limit) => feed.catchUp(waiting, limit),
    heads: people => feed.heads(people),
    onError: error => {
      throw error
    },
    ...options,
  })

async function someone(): Promise<{ tenantId: number; userId: string }> {
  const person = { tenantId: await inbox.tenant(), userId: 'alice' }
  await inbox.person(person.tenantId, person.userId)
  return person
}

test('the next number comes from memory, with its counts; a skipped one makes it read', async () => {
  const person = await someone()
  const hub = hubOver()
  const out = sink()
  const stream = hub.subscribe(person, null, out)
  await until('counts', () => out.got.length === 1)
  assert.deepEqual(
    [out.got[0]!.type, out.got[0]!.seq, out.got[0]!.data],
    ['counts', 0, { unseen: 0, unread: 0 }],
  )

  const [one] = await inbox.add(person.tenantId, ['alice'])
  hub.publish([one!])
  assert.deepEqual(out.got[1], { seq: 1, type: 'notification', at: one!.at.toISOString(), data: one!.data })
  assert.deepEqual(out.got[2]!.data, { unseen: 1, unread: 1 })

  const [two] = await inbox.add(person.tenantId, ['alice'])
  const [three] = await inbox.add(person.tenantId, ['alice'])
  hub.publish([three!])
  hub.publish([two!])
  await until('both', () => lastOf(out.got) === 3)
  assert.deepEqual(numbered(out.got), [1, 2, 3])
  assert.deepEqual(out.got.find(({ seq, type }) => seq === 2 && type === 'notification')!.data, two!.data)

  const { changes } = await feed.mark(person.tenantId, 'alice', 'read', [one!.id], new Date())
  hub.publish(changes)
  assert.equal(lastOf(out.got), 4)
  await until('the badge', () => out.got.at(-1)!.type === 'counts')
  assert.deepEqual([out.got.at(-1)!.seq, out.got.at(-1)!.data], [4, { unseen: 2, unread: 2 }])
  // The second was next when it came, late; only the third had to be read.
  assert.deepEqual([hub.stats().fromMemory, hub.stats().fromDatabase], [3, 1])
  stream.unsubscribe()
  assert.deepEqual([hub.stats().connections, hub.stats().people], [0, 0])
  hub.close()
})

test('counts that are not published along are read once for many items', async () => {
  const person = await someone()
  let asked = 0
  const hub = hubOver({ heads: people => (asked++, feed.heads(people)) })
  const out = sink()
  hub.subscribe(person, null, out)
  await until('counts', () => out.got.length === 1)
  for (let n = 0; n < 5; n++) {
    const [item] = await inbox.add(person.tenantId, ['alice'])
    hub.publish([{ ...item!, counts: undefined }])
  }
  await until('the badge', () => out.got.some(({ type, seq }) => type === 'counts' && seq === 5))
  assert.ok(asked < 5)
  hub.close()
})

test('a stream that cannot be resumed is reset, and goes on from there', async () => {
  const person = await someone()
  const hub = hubOver()
  await inbox.add(person.tenantId, ['alice', 'alice', 'alice'])
  await database.db.pool.query('update feed_heads set pruned = 2 where tenant_id = $1', [person.tenantId])
  const [before, at, ahead] = [sink(), sink(), sink()]
  hub.subscribe(person, 1, before)
  hub.subscribe(person, 2, at)
  hub.subscribe(person, 99, ahead)
  await until('answers', () => before.got.length > 0 && ahead.got.length > 0 && numbered(at.got).length > 0)
  for (const out of [before, ahead]) {
    assert.deepEqual(
      [out.got[0]!.type, out.got[0]!.seq, out.got[0]!.data],
      ['reset', 3, { unseen: 3, unread: 3 }],
    )
  }
  assert.deepEqual(numbered(at.got), [3])
  const [four] = await inbox.add(person.tenantId, ['alice'])
  hub.publish([four!])
  for (const out of [before, at, ahead]) assert.equal(lastOf(out.got), 4)
  hub.close()
})

test('a database that cannot be read delays and loses nothing', async () => {
  const person = await someone()
  const errors: unknown[] = []
  let failures = 2
  const hub = hubOver({
    catchUp: (waiting, limit) =>
      failures-- > 0 ? Promise.reject(new Error('away')) : feed.catchUp(waiting, limit),
    onError: error => void errors.push(error),
  })
  await inbox.add(person.tenantId, ['alice', 'alice'])
  const out = sink()
  hub.subscribe(person, 0, out)
  await until('both', () => lastOf(out.got) === 2)
  assert.equal(errors.length, 2)
  hub.close()
})

test('a slow stream holds nobody up, is not fed from memory, and catches up when it has drained', async () => {
  const person = await someone()
  let clock = 0
  const hub = hubOver({ slowBytes: 1000, slowMs: 60_000, now: () => new Date(clock) })
  const [slow, quick] = [sink(), sink()]
  const stream = hub.subscribe(person, 0, slow)
  hub.subscribe(person, 0, quick)
  await until('both settled', () => slow.got.length === 1 && quick.got.length === 1)
  slow.held = 2000
  for (let n = 0; n < 10; n++) hub.publish(await inbox.add(person.tenantId, ['alice']))
  assert.deepEqual(numbered(slow.got), [1])
  assert.deepEqual(numbered(quick.got), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])

  slow.held = 0
  stream.drained()
  await until('the rest', () => lastOf(slow.got) === 10)
  assert.deepEqual(numbered(slow.got), numbered(quick.got))

  // One that never drains is ended, however long that takes.
  slow.held = 2000
  hub.publish(await inbox.add(person.tenantId, ['alice']))
  clock = 59_999
  await hub.heartbeat()
  assert.deepEqual(slow.ended, [])
  clock = 60_000
  await hub.heartbeat()
  assert.deepEqual(slow.ended, ['slow'])
  assert.equal(hub.stats().connections, 1)
  hub.close()
  assert.deepEqual(quick.ended, ['restart'])
})

test('one that answers no pings is ended, and one that has lived long enough', async () => {
  const person = await someone()
  let clock = 0
  const hub = hubOver({ maxAgeMs: 1000, now: () => new Date(clock) })
  let alive = true
  const [dead, old] = [sink({ alive: () => alive }), sink()]
  hub.subscribe(person, null, dead)
  hub.subscribe(person, null, old)
  await until('both settled', () => dead.got.length === 1 && old.got.length === 1)
  await hub.heartbeat()
  assert.equal(dead.got.at(-1)!.type, 'ping')
  alive = false
  await hub.heartbeat()
  assert.deepEqual([dead.ended, old.ended], [['dead'], []])
  clock = 1000
  await hub.heartbeat()
  assert.deepEqual(old.ended, ['age'])
  hub.close()
})

test('streams are bounded for one person, and altogether', async () => {
  const hub = hubOver({ perUser: 2, total: 3 })
  const [a, b] = [await someone(), await someone()]
  const refused = (work: () => unknown, code: string) =>
    assert.throws(work, (error: unknown) => error instanceof AppError && error.code === code)
  const first = hub.subscribe(a, null, sink())
  hub.subscribe(a, null, sink())
  refused(() => hub.subscribe(a, null, sink()), 'rate_limited')
  hub.subscribe(b, null, sink())
  refused(() => hub.subscribe(b, null, sink()), 'rate_limited')
  first.unsubscribe()
  first.unsubscribe()
  hub.subscribe(b, null, sink())
  assert.equal(hub.stats().connections, 3)
  await turn()
  hub.close()
  refused(() => hub.subscribe(a, null, sink()), 'shutting_down')
})

// covers: AUR-135
test('no gap and no duplicate: concurrent writers, lost, late and doubled hints, clients that come and go', async c => {
  const tenantId = await inbox.tenant()
  const people = ['ann', 'ben', 'cy']
  for (const person of people) await inbox.person(tenantId, person)
  const start = Number(process.env.SEED ?? Date.now() % 2147483646)
  c.diagnostic(`SEED=${start} repeats this order`)
  let seed = start + 1
  const random = (below: number) => {
    seed = (seed * 48271) % 2147483647
    return seed % below
  }
  const hubs = [hubOver({ slowBytes: 4000 }), hubOver()]
  let writing = true

  const expected = new Map(people.map(person => [person, 0]))
  const ids: string[] = []
  const writer = async () => {
    for (let round = 0; round < 40; round++) {
      let items
      if (random(4) === 0 && ids.length > 0) {
        const person = people[random(3)]!
        items = (await feed.mark(tenantId, person, random(2) ? 'read' : 'seen', ids.slice(-9), new Date()))
          .changes
      } else {
        const whom = Array.from({ length: 1 + random(6) }, () => people[random(3)]!)
        items = await inbox.add(tenantId, whom)
        ids.push(...items.map(item => item.id))
      }
      for (const { userId, seq } of items) expected.set(userId, Math.max(seq, expected.get(userId)!))
      for (const hub of hubs) {
        const fate = random(10)
        if (fate === 0) continue
        if (fate < 3) await turn()
        if (fate === 3) hub.wake(items.map(item => ({ ...item, seq: random(2) ? item.seq : 0 })))
        else hub.publish(fate === 4 ? items.toReversed() : items)
        if (fate === 5) hub.publish(items)
      }
    }
  }

  const client = async (userId: string) => {
    const seqs: number[] = []
    let after = 0
    while (writing || after < expected.get(userId)!) {
      const hub = hubs[random(2)]!
      const out = sink()
      const stream = hub.subscribe({ tenantId, userId }, after, out)
      const stop = 1 + random(12)
      let idle = 0
      // Leaves after a while, or when nothing comes any more; what the hub had not sent is the next one's.
      while (numbered(out.got).length < stop && idle++ < 20) {
        if (random(5) === 0) out.held = 5000
        await turn()
        if (out.held > 0) {
          out.held = 0
          stream.drained()
        }
      }
      stream.unsubscribe()
      const mine = out.got.length
      await turn()
      assert.equal(out.got.length, mine, 'nothing after leaving')
      assert.ok(out.got.every(({ type }) => type !== 'reset'))
      seqs.push(...numbered(out.got))
      after = Math.max(after, seqs.at(-1) ?? 0)
    }
    return seqs
  }

  const clients = people.flatMap(person => [client(person), client(person)])
  // One a person stays: for what gets lost it has the heartbeat.
  const steady = people.map(userId => {
    const out = sink()
    hubs[0]!.subscribe({ tenantId, userId }, 0, out)
    return out
  })
  await Promise.all([writer(), writer(), writer(), writer()])
  writing = false
  for (const hub of hubs) await hub.heartbeat()
  for (const [at, seqs] of (await Promise.all(clients)).entries()) {
    const head = expected.get(people[Math.floor(at / 2)]!)!
    assert.deepEqual(
      seqs,
      Array.from({ length: head }, (_, n) => n + 1),
    )
  }
  for (const [at, out] of steady.entries()) {
    const head = expected.get(people[at]!)!
    await until('all of it', () => lastOf(out.got) === head)
    assert.deepEqual(
      numbered(out.got),
      Array.from({ length: head }, (_, n) => n + 1),
    )
  }
  for (const hub of hubs) hub.close()
})

test('a long absence is made good in pages', async () => {
  const person = await someone()
  const hub = hubOver()
  for (let n = 0; n < 5; n++)
    await inbox.add(
      person.tenantId,
      Array.from({ length: 250 }, () => 'alice'),
    )
  const out = sink()
  hub.subscribe(person, 0, out)
  await until('all', () => lastOf(out.got) === 1250)
  assert.deepEqual(
    numbered(out.got),
    Array.from({ length: 1250 }, (_, n) => n + 1),
  )
  assert.ok(hub.stats().reads >= 12)
  hub.close()
})
