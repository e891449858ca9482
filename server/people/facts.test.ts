import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, beforeEach, test } from 'node:test'
import { changeWatch } from '../db/changes.ts'
import type { Queryable } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { activeSuppression, audienceMembers, peopleFacts, suppressionsFor } from './facts.ts'

const sealer = openSealer(randomBytes(32).toString('hex'))
let database: TestDatabase
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

const run = (text: string, values: unknown[] = []) => database.db.pool.query(text, values)

beforeEach(async () => {
  await run('truncate tenants cascade')
  await run(`insert into tenants (id, name, data_key) values (1, 'one', $1), (2, 'two', $1)`, [
    sealer.newDataKey(),
  ])
})

const addUser = (tenantId: number, userId: string, more = '{}') =>
  run(
    `insert into users (tenant_id, user_id, locale, timezone, attributes, data_key) values ($1, $2, 'de-CH', 'Europe/Zurich', $3, $4)`,
    [tenantId, userId, more, sealer.newDataKey()],
  )
const addAddress = (userId: string, address: string, position: number, verified: boolean, tenantId = 1) =>
  run(
    `insert into addresses (id, tenant_id, user_id, channel, address, position, verification, verified_at)
     values (gen_random_uuid(), $1, $2, 1, $3, $4, case when $5 then 'verified' else 'pending' end, case when $5 then now() end)`,
    [tenantId, userId, address, position, verified],
  )

/** Counts statements, and can hold the answer back until `release`. */
function counted(q: Queryable) {
  let statements = 0
  let gate: Promise<void> | undefined
  let open: () => void = () => {}
  return {
    statements: () => statements,
    hold: () => {
      gate = new Promise(resolve => {
        open = resolve
      })
    },
    release: () => open(),
    q: {
      ...q,
      async rows<R>(...args: Parameters<Queryable['rows']>) {
        statements++
        const rows = await q.rows<R>(...args)
        await gate
        return rows
      },
    } satisfies Queryable,
  }
}

test('everything about a person comes in one statement, and only once', async () => {
  await addUser(1, 'ann', '{"tier": "gold"}')
  await addAddress('ann', 'second@x.org', 2, true)
  await addAddress('ann', 'unverified@x.org', 0, false)
  await addAddress('ann', 'first@x.org', 1, true)
  await run(`insert into suppressions (tenant_id, channel, address, reason, expires_at) values
    (1, 1, 'first@x.org', 'hard_bounce', '2100-01-01T00:00:00Z'),
    (1, 1, 'second@x.org', 'complaint', '2000-01-01T00:00:00Z'),
    (2, 1, 'unverified@x.org', 'manual', null)`)
  await run(`insert into devices (id, tenant_id, user_id, kind, token, enabled, last_used_at) values
    (gen_random_uuid(), 1, 'ann', 'fcm', 'older', true, '2020-01-01'),
    (gen_random_uuid(), 1, 'ann', 'apns', 'newer', true, '2021-01-01'),
    (gen_random_uuid(), 1, 'ann', 'apns', 'off', false, '2022-01-01')`)
  await run(
    `insert into preferences (tenant_id, user_id, channel, enabled) values (1, 'ann', -1, null), (1, 'ann', 2, false), (1, '', 3, false)`,
  )

  const facts = peopleFacts({ sealer })
  const { q, statements } = counted(database.db)
  const batch = await facts.load(q, [{ tenantId: 1, userIds: ['ann', 'ann'] }])
  const ann = batch.get(1, 'ann')!
  assert.equal(ann.known, true)
  assert.equal(ann.enabled, true)
  assert.equal(ann.erased, false)
  assert.equal(ann.locale, 'de-CH')
  assert.equal(ann.timezone, 'Europe/Zurich')
  assert.deepEqual(ann.attributes, { tier: 'gold' })
  assert.deepEqual(
    ann.addresses.email!.map(a => [a.address, a.verification]),
    [
      ['first@x.org', 'verified'],
      ['second@x.org', 'verified'],
      ['unverified@x.org', 'pending'],
    ],
  )
  const [suppressed, expired, foreign] = ann.addresses.email!
  assert.equal(activeSuppression(suppressed!, Date.now())?.reason, 'hard_bounce')
  assert.equal(activeSuppression(suppressed!, Date.UTC(2100, 0, 1)), undefined)
  assert.equal(expired!.suppression, undefined)
  assert.equal(foreign!.suppression, undefined, "another tenant's suppression is not ours")
  assert.deepEqual(
    ann.devices.map(d => [d.kind, d.token]),
    [
      ['apns', 'newer'],
      ['fcm', 'older'],
    ],
  )
  assert.deepEqual(ann.preferences, [
    { scope: '', channel: null, enabled: null, settings: {} },
    { scope: '', channel: 'sms', enabled: false, settings: {} },
  ])
  assert.deepEqual(batch.tenantDefaults(1), [
    { scope: '', channel: 'whatsapp', enabled: false, settings: {} },
  ])
  assert.equal(ann.dataKey!.length, 32)
  assert.equal(ann.dataKey, ann.dataKey, 'the same buffer each time: sealing keeps what it made of it')

  await facts.load(q, [{ tenantId: 1, userIds: ['ann'] }])
  assert.equal(statements(), 1)
})

test('people of several tenants come together and stay apart', async () => {
  await addUser(1, 'ann', '{"of": 1}')
  await addUser(2, 'ann', '{"of": 2}')
  const facts = peopleFacts({ sealer })
  const { q, statements } = counted(database.db)
  const batch = await facts.load(q, [
    { tenantId: 1, userIds: ['ann'] },
    { tenantId: 2, userIds: ['ann'] },
    { tenantId: 1, userIds: ['bob'] },
  ])
  assert.equal(statements(), 1)
  assert.deepEqual(batch.get(1, 'ann')!.attributes, { of: 1 })
  assert.deepEqual(batch.get(2, 'ann')!.attributes, { of: 2 })
  assert.notDeepEqual(batch.get(1, 'ann')!.dataKey, batch.get(2, 'ann')!.dataKey)
  assert.equal(batch.get(1, 'bob')!.known, false)
  assert.equal(batch.get(2, 'bob'), undefined, 'not asked for')
})

test('an unknown user is a fact too, until created; a disabled one is known; an erased one has no key', async () => {
  const facts = peopleFacts({ sealer })
  const watch = changeWatch()
  watch.on('user', facts.forget)
  watch.onReset(facts.reset)
  const { q, statements } = counted(database.db)
  await watch.look(database.db)
  const load = async () => {
    await watch.look(database.db)
    return (await facts.load(q, [{ tenantId: 1, userIds: ['ann'] }])).get(1, 'ann')!
  }
  assert.equal((await load()).known, false)
  assert.equal((await load()).dataKey, undefined)
  assert.equal(statements(), 1, 'remembered as unknown')
  await addUser(1, 'ann')
  assert.equal((await load()).known, true)
  await run(`update users set enabled = false where user_id = 'ann'`)
  assert.deepEqual([(await load()).known, (await load()).enabled], [true, false])
  await run(`update users set erased_at = now(), data_key = null where user_id = 'ann'`)
  assert.deepEqual([(await load()).erased, (await load()).dataKey], [true, undefined])
  assert.equal(statements(), 4)
})

test('what is forgotten while its statement is on its way serves that batch and is not kept', async () => {
  await addUser(1, 'ann', '{"v": 1}')
  await addUser(1, 'bob')
  const facts = peopleFacts({ sealer })
  const { q, hold, release, statements } = counted(database.db)
  hold()
  const loading = facts.load(q, [{ tenantId: 1, userIds: ['ann', 'bob'] }])
  // Another lane looks meanwhile and hears of a change that the statement may not have seen.
  facts.forget(1, 'ann')
  release()
  const batch = await loading
  assert.deepEqual(batch.get(1, 'ann')!.attributes, { v: 1 }, 'good enough for the batch that asked before')
  assert.equal(facts.get(1, 'ann'), undefined)
  assert.notEqual(facts.get(1, 'bob'), undefined)

  hold()
  const second = facts.load(q, [{ tenantId: 1, userIds: ['ann'] }])
  facts.reset()
  release()
  assert.equal((await second).get(1, 'ann')!.known, true)
  assert.equal(facts.size, 0)
  assert.equal(statements(), 2)
})

test('a batch keeps its people whatever others forget', async () => {
  await addUser(1, 'ann')
  const facts = peopleFacts({ sealer, max: 4 })
  const batch = await facts.load(database.db, [
    { tenantId: 1, userIds: ['ann', 'b', 'c', 'd', 'e', 'f', 'g'] },
  ])
  facts.reset()
  assert.equal(batch.get(1, 'ann')!.known, true)
  assert.equal(batch.get(1, 'g')!.known, false)
})

test('the cache is bounded, and keeps who is in use', async () => {
  const facts = peopleFacts({ sealer, max: 10 })
  await facts.load(database.db, [{ tenantId: 1, userIds: ['vip'] }])
  for (let i = 0; i < 40; i++) {
    await facts.load(database.db, [{ tenantId: 1, userIds: ['vip', `u${i}`] }])
    assert.ok(facts.size <= 10, `${facts.size}`)
  }
  assert.notEqual(facts.get(1, 'vip'), undefined)
  assert.equal(facts.get(1, 'u0'), undefined)
  assert.notEqual(facts.get(1, 'u39'), undefined)
  facts.forget(1, 'vip')
  assert.equal(facts.get(1, 'vip'), undefined)
  facts.reset()
  assert.equal(facts.size, 0)
})

test('a failing statement leaves nothing behind', async () => {
  const facts = peopleFacts({ sealer })
  const broken = { ...database.db, rows: () => Promise.reject(new Error('gone')) }
  await assert.rejects(facts.load(broken, [{ tenantId: 1, userIds: ['ann'] }]), /gone/)
  assert.equal(facts.size, 0)
  const batch = await facts.load(database.db, [{ tenantId: 1, userIds: ['ann'] }])
  assert.equal(batch.get(1, 'ann')!.known, false)
})

async function addMembers(kind: string, name: string, members: string[], level = 'ALL', tenantId = 1) {
  await run(`insert into audiences (tenant_id, kind, name) values ($1, $2, $3) on conflict do nothing`, [
    tenantId,
    kind,
    name,
  ])
  await run(`insert into users (tenant_id, user_id) select $1, unnest($2::text[]) on conflict do nothing`, [
    tenantId,
    members,
  ])
  await run(
    `insert into memberships (tenant_id, kind, name, user_id, level) select $1, $2, $3, unnest($4::text[]), $5`,
    [tenantId, kind, name, members, level],
  )
}

// covers: DIC-057
test('several audiences are walked together by user id, each person once', async () => {
  const names = (n: number, step: number) =>
    Array.from({ length: n }, (_, i) => `u${String(i * step).padStart(3, '0')}`)
  await addMembers('group', 'twos', names(50, 2))
  await addMembers('group', 'threes', names(40, 3))
  await addMembers('role', 'twos', ['not a group'])
  await addMembers('group', 'twos', ['other tenant'], 'ALL', 2)

  const expected = [...new Set([...names(50, 2), ...names(40, 3)])].sort()
  const walked: string[] = []
  let after: string | undefined
  for (;;) {
    const page = await audienceMembers(
      database.db,
      1,
      'group',
      ['twos', 'threes', 'twos', 'nobody'],
      after,
      7,
    )
    walked.push(...page.map(m => m.userId))
    if (page.length < 7) break
    after = page.at(-1)!.userId
  }
  assert.deepEqual(walked, expected)
  assert.deepEqual(await audienceMembers(database.db, 1, 'group', [], undefined, 7), [])
})

test('topic members carry their strongest level, and NONE is no member', async () => {
  await addMembers('topic', 'news', ['all', 'important', 'none'])
  await addMembers('topic', 'more', ['all', 'important', 'none'])
  await run(`update memberships set level = 'IMPORTANT' where user_id = 'all' and name = 'news'`)
  await run(`update memberships set level = 'IMPORTANT' where user_id = 'important'`)
  await run(`update memberships set level = 'NONE' where user_id = 'none'`)
  assert.deepEqual(await audienceMembers(database.db, 1, 'topic', ['news', 'more'], undefined, 10), [
    { userId: 'all', level: 'ALL' },
    { userId: 'important', level: 'IMPORTANT' },
  ])
})

test('suppressions of bare addresses answer in the order asked', async () => {
  await run(`insert into suppressions (tenant_id, channel, address, reason, expires_at) values
    (1, 1, 'a@x.org', 'complaint', null), (1, 2, '+41791234567', 'manual', '2100-01-01T00:00:00Z'),
    (1, 1, 'old@x.org', 'manual', '2000-01-01'), (2, 1, 'b@x.org', 'manual', null)`)
  assert.deepEqual(
    await suppressionsFor(database.db, 1, [
      { channel: 'sms', address: '+41791234567' },
      { channel: 'email', address: 'b@x.org' },
      { channel: 'email', address: 'a@x.org' },
      { channel: 'sms', address: 'a@x.org' },
      { channel: 'email', address: 'old@x.org' },
    ]),
    [
      { reason: 'manual', until: Date.UTC(2100, 0, 1) },
      undefined,
      { reason: 'complaint' },
      undefined,
      undefined,
    ],
  )
})
