import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type TestContext, after, before, test } from 'node:test'
import fc from 'fast-check'
import { createClient } from 'redis'
import { commandPath, need } from '../../scripts/needs.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { type Fanout, type WakeHint, notifyFanout, pack, redisFanout } from './fanout.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!condition()) {
    assert.ok(Date.now() < deadline, `never came: ${what}`)
    await pause(2)
  }
}

/** What a process hears: the highest number a person, and how often it was told to look at everything. */
function ear(fanout: Fanout) {
  const heard = { seqs: new Map<string, number>(), messages: 0, all: 0 }
  fanout.onWake(hints => {
    if (hints === 'all') return void heard.all++
    heard.messages++
    for (const { tenantId, userId, seq } of hints) {
      const key = `${tenantId} ${userId}`
      heard.seqs.set(key, Math.max(seq, heard.seqs.get(key) ?? -1))
    }
  })
  return heard
}

test('messages hold every hint and are never longer than NOTIFY takes', () => {
  const hint = fc.record({
    tenantId: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
    userId: fc.string({ unit: 'binary', minLength: 1, maxLength: 255 }),
    seq: fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER }),
  })
  fc.assert(
    fc.property(fc.array(hint, { maxLength: 100 }), hints => {
      const payloads = pack('0197a000-0000-7000-8000-000000000000', hints)
      for (const payload of payloads) assert.ok(Buffer.byteLength(payload) < 8000)
      const back = payloads.flatMap(payload => (JSON.parse(payload) as { u: unknown[] }).u)
      assert.deepEqual(
        back,
        hints.map(({ tenantId, userId, seq }) => [tenantId, userId, seq]),
      )
    }),
  )
})

test('the other process hears it, the own does not; hints of one turn travel together', async t => {
  const [a, b] = [await open(t, notifyFanout(database.db)), await open(t, notifyFanout(database.db))]
  const [heardA, heardB] = [ear(a), ear(b)]
  for (let seq = 1; seq <= 500; seq++) a.publish([{ tenantId: 1, userId: 'ann', seq }])
  a.publish([{ tenantId: 1, userId: 'bén "x"', seq: 7 }])
  b.publish([{ tenantId: 2, userId: 'ann', seq: 3 }])
  await until('both', () => heardB.seqs.size === 2 && heardA.seqs.size === 1)
  assert.deepEqual(
    [...heardB.seqs],
    [
      ['1 ann', 500],
      ['1 bén "x"', 7],
    ],
  )
  assert.deepEqual([...heardA.seqs], [['2 ann', 3]])
  assert.equal(heardB.messages, 1)
})

test('alone it says nothing; too much to say becomes a call to look', async t => {
  let others = false
  const a = await open(t, notifyFanout(database.db, { othersAlive: () => others }))
  const b = await open(t, notifyFanout(database.db))
  const heard = ear(b)
  a.publish([{ tenantId: 1, userId: 'unheard', seq: 1 }])
  others = true
  a.publish([{ tenantId: 1, userId: 'heard', seq: 1 }])
  await until('the second', () => heard.seqs.size > 0)
  assert.deepEqual([...heard.seqs.keys()], ['1 heard'])

  const crowd: WakeHint[] = Array.from({ length: 10_001 }, (_, n) => ({
    tenantId: 1,
    userId: `u${n}`,
    seq: 1,
  }))
  a.publish(crowd)
  await until('the call', () => heard.all === 1)
  assert.equal(heard.seqs.size, 1)
})

test('what is not a hint is passed over', async t => {
  const b = await open(t, notifyFanout(database.db))
  const heard = ear(b)
  for (const text of ['', 'x', 'null', '[]', '{"u":3}', '{"u":[1,[1],["1","a",1],[1,"ok",4]]}']) {
    await database.db.pool.query(`select pg_notify('carillon_feed', $1)`, [text])
  }
  await until('the good one', () => heard.seqs.size === 1)
  assert.deepEqual([...heard.seqs], [['1 ok', 4]])
})

test('a listener whose connection is killed comes back and tells everybody to look', async t => {
  const errors: unknown[] = []
  const a = await open(t, notifyFanout(database.db))
  const b = await open(t, notifyFanout(database.db, { onError: error => void errors.push(error) }))
  const heard = ear(b)
  await database.db.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where application_name = 'carillon feed' and datname = current_database()`,
  )
  await until('the call to look', () => heard.all >= 1)
  assert.ok(errors.length > 0)
  // The sender was killed too: what it says while it is away is lost, and that is no harm.
  const deadline = Date.now() + 10_000
  for (let seq = 1; heard.seqs.size === 0; seq++) {
    assert.ok(Date.now() < deadline)
    a.publish([{ tenantId: 1, userId: 'ann', seq }])
    await pause(10)
  }
})

test('Redis carries the hints; without it they go by NOTIFY, and back again', {
  skip: need('redis-server'),
}, async t => {
  const port = await freePort()
  let server = await startRedis(t, port)
  const url = `redis://127.0.0.1:${port}`
  const lost: unknown[] = []
  const options = { onError: (error: unknown) => void lost.push(error) }
  const [a, b] = [
    await open(t, redisFanout(database.db, url, options)),
    await open(t, redisFanout(database.db, url, options)),
  ]
  const byNotify = ear(await open(t, notifyFanout(database.db)))
  const [heardA, heard] = [ear(a), ear(b)]

  let seq = 1
  // On a busy machine either of the two may join late; until then it goes by NOTIFY.
  async function untilByRedis(): Promise<void> {
    const deadline = Date.now() + 10_000
    for (let messages = -1; messages !== byNotify.messages; seq++) {
      assert.ok(Date.now() < deadline, 'it still goes by NOTIFY')
      messages = byNotify.messages
      await until('heard', () => {
        a.publish([{ tenantId: 1, userId: 'ann', seq }])
        return heard.seqs.get('1 ann') === seq
      })
    }
  }
  await untilByRedis()
  assert.equal(heardA.seqs.size, 0)

  server.kill('SIGKILL')
  await once(server, 'exit')
  await until('noticed', () => lost.length > 0)
  await until('by NOTIFY', () => {
    a.publish([{ tenantId: 1, userId: 'ann', seq }])
    return heard.seqs.get('1 ann') === seq && byNotify.seqs.get('1 ann') === seq
  })

  seq++
  const calls = heard.all
  server = await startRedis(t, port)
  await until('subscribed again', () => heard.all > calls)
  await untilByRedis()
})

async function open(t: TestContext, opening: Promise<Fanout>): Promise<Fanout> {
  const fanout = await opening
  t.after(() => fanout.close())
  return fanout
}

async function startRedis(t: TestContext, port: number): Promise<ChildProcess> {
  const server = spawn(
    commandPath('redis-server')!,
    ['--port', String(port), '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no'],
    {
      stdio: 'ignore',
    },
  )
  t.after(() => server.kill('SIGKILL'))
  const client = createClient({ url: `redis://127.0.0.1:${port}`, socket: { reconnectStrategy: 20 } })
  client.on('error', () => {})
  await client.connect()
  client.destroy()
  return server
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  return port
}
