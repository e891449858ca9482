import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { feedStore } from './feed.ts'
import type { Published } from './hub.ts'
import { feedKeeper } from './keeper.ts'
import { testInbox } from './test-inbox.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

// covers: DIC-124, DIC-125
test('a round caps what grew, wakes what is due, prunes once a minute, and publishes it all', async () => {
  const { db } = database
  const inbox = testInbox(db)
  const feed = feedStore(db, inbox.sealer)
  const tenantId = await inbox.tenant()
  let clock = new Date('2026-03-01T00:00:00.000Z')
  const published: string[] = []
  const note = (items: readonly Published[]) => {
    for (const { userId, seq, data } of items) {
      published.push(`${userId} ${seq} ${(data as { change: string }).change}`)
    }
  }
  const keeper = feedKeeper({ db, hub: { publish: note }, maxUnread: 3, retentionDays: 30, now: () => clock })

  for (const person of ['ann', 'ben', 'cy']) await inbox.person(tenantId, person)
  const items = await inbox.add(tenantId, ['ann', 'ann', 'ann', 'ann', 'ben'], { createdAt: clock })
  await inbox.add(tenantId, ['cy'], { createdAt: clock, expiresAt: new Date('2026-03-01T00:01:30.000Z') })
  keeper.grew(items)
  await feed.mark(tenantId, 'ben', 'snoozed', [items[4]!.id], clock, new Date('2026-03-01T00:00:30.000Z'))
  await keeper.runOnce()
  assert.deepEqual(published.splice(0), ['ann 5 read'])

  clock = new Date('2026-03-01T00:00:30.000Z')
  await keeper.runOnce()
  assert.deepEqual(published.splice(0), ['ben 3 unsnoozed'])

  clock = new Date('2026-03-01T00:01:40.000Z')
  await keeper.runOnce()
  assert.deepEqual(published.splice(0), ['cy 2 removed'])

  clock = new Date('2026-04-01T00:00:00.000Z')
  await keeper.runOnce()
  assert.deepEqual(published.splice(0), [])
  for (const person of ['ann', 'ben', 'cy']) {
    const { unread, unseen } = await feed.counts(tenantId, person)
    assert.deepEqual([person, unread, unseen], [person, 0, 0])
    const page = await feed.list(tenantId, person, { filter: 'all', limit: 9, now: clock })
    assert.deepEqual(page.items, [])
  }
  await keeper.close()
})
