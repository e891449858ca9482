import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { sql } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { getUser, listUsers, type UserInput, upsertUsers } from './users.ts'

const sealer = openSealer(randomBytes(32).toString('hex'))
let database: TestDatabase
before(async () => {
  database = await testDatabase({ max: 10 })
  await database.db.run(
    sql('test_tenant', `insert into tenants (id, name, data_key) values (1, 'one', $1)`),
    [sealer.newDataKey()],
  )
})
after(() => database.drop())

const upsert = (inputs: UserInput[]) => database.db.tx(tx => upsertUsers(tx, sealer, 1, inputs))

const name = fc.constantFrom('a', 'b', 'c', 'd')
const item = fc.record(
  {
    userId: fc.constantFrom('u1', 'u2', 'u3', 'u4'),
    enabled: fc.boolean(),
    timezone: fc.constantFrom('UTC', 'Asia/Tokyo'),
    attributes: fc.dictionary(fc.stringMatching(/^[a-z]{1,3}$/), fc.integer()),
    groups: fc.uniqueArray(name),
    roles: fc.uniqueArray(name),
    topics: fc.uniqueArray(fc.record({ name, level: fc.constantFrom('ALL', 'IMPORTANT', 'NONE') }), {
      selector: t => t.name,
    }),
    addresses: fc
      .uniqueArray(name, { maxLength: 3 })
      .map(names => names.map(n => ({ channel: 'email' as const, address: `${n}@example.org` }))),
  },
  { requiredKeys: ['userId'] },
)

test('whatever was there: what an item names is so afterwards, what it leaves out stays', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(item, { selector: i => i.userId, maxLength: 4 }), async items => {
      const before = new Map(
        (await listUsers(database.db, 1, { audiences: [] }, undefined, 10)).map(u => [u.userId, u]),
      )
      await upsert(items)
      for (const input of items) {
        const user = await getUser(database.db, 1, input.userId)
        const old = before.get(input.userId)
        assert.equal(user.enabled, input.enabled ?? old?.enabled ?? true)
        assert.equal(user.timezone, input.timezone ?? old?.timezone ?? 'UTC')
        assert.deepEqual(user.attributes, { ...(input.attributes ?? old?.attributes) })
        assert.deepEqual(user.groups, input.groups?.toSorted() ?? old?.groups ?? [])
        assert.deepEqual(user.roles, input.roles?.toSorted() ?? old?.roles ?? [])
        const byName = (a: { name: string }, b: { name: string }) => (a.name < b.name ? -1 : 1)
        assert.deepEqual(
          user.topics,
          input.topics?.map(t => ({ ...t })).toSorted(byName) ?? old?.topics ?? [],
        )
        const addresses = user.addresses.map(a => a.address)
        assert.deepEqual(
          addresses,
          input.addresses?.map(a => a.address) ?? old?.addresses.map(a => a.address) ?? [],
        )
        for (const address of user.addresses) {
          const same = old?.addresses.find(a => a.address === address.address)
          if (same !== undefined) assert.equal(address.id, same.id)
        }
      }
      const named = new Set<string>(items.map(i => i.userId))
      for (const [userId, user] of before) {
        if (!named.has(userId)) assert.deepEqual(await getUser(database.db, 1, userId), user)
      }
    }),
    { numRuns: 60 },
  )
})

/** Imports of the same people, each in an order of its own. */
const rounds = (prefix: string) =>
  Array.from({ length: 7 }, (_, round) =>
    Array.from({ length: 60 }, (_, i) => ({ userId: `${prefix}-${i}`, at: (i * 7 + round * 13) % 60 }))
      .sort((a, b) => (round % 2 === 0 ? a.at - b.at : b.at - a.at))
      .map(({ userId }) => ({
        userId,
        groups: [`${prefix}-${round}`, prefix],
        addresses: [{ channel: 'email' as const, address: `${userId}@example.org`, verified: true }],
      })),
  )

/** Runs all imports while the row of one user in their midst is held, and lets go when all wait for it. */
async function collide(held: string, prefix: string) {
  const holder = await database.db.pool.connect()
  try {
    await holder.query('begin')
    await holder.query(held)
    const imports = rounds(prefix)
    const running = Promise.allSettled(imports.map(upsert))
    const deadline = Date.now() + 20_000
    for (;;) {
      const { rows } = await database.db.pool.query(
        `select count(*) as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      if (Number(rows[0].n) === imports.length) break
      assert.ok(Date.now() < deadline, `only ${rows[0].n} imports wait`)
    }
    await holder.query('rollback')
    return await running
  } finally {
    holder.release()
  }
}

test('imports of the same new people at the same time wait for each other and all succeed', async () => {
  // The user is not there afterwards: the one who holds it rolls back.
  const settled = await collide(`insert into users (tenant_id, user_id) values (1, 'new-30')`, 'new')
  const outcomes = settled.flatMap(each => {
    if (each.status === 'rejected') throw each.reason
    return each.value
  })
  const created = outcomes.filter(result => result.status === 'created').map(result => result.userId)
  assert.deepEqual(
    created.toSorted(),
    [...new Set(outcomes.map(r => r.userId))].toSorted(),
    'each created once',
  )
})

test('imports of the same known people at the same time wait for each other and all succeed', async () => {
  await upsert(Array.from({ length: 60 }, (_, i) => ({ userId: `known-${i}` })))
  const settled = await collide(`select from users where user_id = 'known-30' for update`, 'known')
  for (const each of settled) if (each.status === 'rejected') throw each.reason
  const user = await getUser(database.db, 1, 'known-30')
  assert.deepEqual([user.addresses.length, user.groups.length], [1, 2])
})
