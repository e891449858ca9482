import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { changeWatch } from '../db/changes.ts'
import { newId } from '../db/ids.ts'
import type { WriteEvents } from '../ledger/own-events.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Event } from '../types.ts'
import { heartbeatBook } from './book.ts'
import { slackMs } from './heartbeat.ts'
import {
  type HeartbeatDefinition,
  beatHeartbeat,
  deleteHeartbeat,
  findHeartbeat,
  pauseHeartbeat,
  putHeartbeat,
} from './store.ts'
import { heartbeatWatcher } from './watcher.ts'

const actor = { tenantId: 1, kind: 'system' } as const
const POLL_MS = 2_000

let database: TestDatabase
before(async () => {
  database = await testDatabase()
  await database.db.pool.query(`insert into tenants (id, name, data_key) values (1, 'one', '\\x00')`)
})
after(() => database?.drop())

/** Two processes on one database, under a clock of ours. */
function world(name: string, startMs: number) {
  const { db } = database
  let nowMs = startMs
  const now = () => new Date(nowMs)
  const told: { type: string; atMs: number; data: Event['data'] }[] = []
  const write: WriteEvents = async (_, events) => {
    for (const event of events) {
      // A heartbeat of another run is somebody else's.
      if (event.subject === name) told.push({ type: event.type, atMs: nowMs, data: event.data })
    }
  }
  const processes = [1, 2].map(() => {
    const watch = changeWatch()
    return {
      watch,
      book: heartbeatBook(watch),
      watcher: heartbeatWatcher({
        db,
        write,
        now,
        listens: true,
        looks: true,
        onTold() {},
        pollMs: POLL_MS,
        onError(error) {
          throw error
        },
      }),
    }
  })
  const look = async ({ watcher }: (typeof processes)[number]) => {
    while (await watcher.runOnce()) continue
  }
  return {
    db,
    told,
    now,
    write,
    look: () => Promise.all(processes.map(look)),
    /** The clock goes on, and those who are awake do what they do every two seconds. */
    async pass(ms: number, awake: boolean) {
      for (let left = ms; left > 0; left -= POLL_MS) {
        nowMs += Math.min(left, POLL_MS)
        if (awake) await this.look()
      }
    },
    beat: () => beatHeartbeat(db, 1, name, now()),
    /** Accepted events, by one of the processes; the script is what the accepting commit runs. */
    async accept(process: number, event: Partial<Event>) {
      const { watch, book } = processes[process]!
      await watch.look(db)
      await book.refresh(db)
      const whole = {
        tenantId: 1,
        id: newId(nowMs),
        source: 's',
        type: 't',
        time: now(),
        receivedAt: now(),
        data: {},
        ...event,
      }
      const heard = book.heard([{ event: whole }, { event: whole }], now())
      if (heard) await db.pool.query(heard.script)
      heard?.written()
      return heard !== null
    },
    put: (made: Partial<HeartbeatDefinition>) =>
      db.tx(tx =>
        putHeartbeat(
          tx,
          actor,
          {
            name,
            description: '',
            everySeconds: 60,
            graceSeconds: 10,
            eventTypes: [],
            eventSource: null,
            eventSubject: null,
            priority: null,
            paused: false,
            ...made,
          },
          now(),
          write,
        ),
      ),
    pause: (paused: boolean) => db.tx(tx => pauseHeartbeat(tx, actor, name, paused, now(), write)),
    delete: () => db.tx(tx => deleteHeartbeat(tx, actor, name, now(), write)),
    standing: () => findHeartbeat(db, 1, name, now()),
  }
}

let runs = 0
let clockMs = Date.parse('2031-03-01T00:00:00Z')
/** Later than all before it: until when somebody listened is one for all. */
const nextStart = () => (clockMs += 86_400_000)

const types = (told: { type: string }[]) => told.map(({ type }) => type.split('.').at(-1))

type Step =
  | { kind: 'pass' | 'asleep'; ms: number }
  | { kind: 'beat' }
  | { kind: 'event'; process: number }
  | { kind: 'race'; process: number }

test('laws: nobody is missed who is heard in time, nor by our own sleep; each silence is told once, and its end once', async () => {
  const steps: fc.Arbitrary<Step[]> = fc.array(
    fc.oneof(
      {
        weight: 4,
        arbitrary: fc.record({ kind: fc.constant('pass' as const), ms: fc.integer({ min: 1, max: 30_000 }) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          kind: fc.constant('asleep' as const),
          ms: fc.integer({ min: 6_001, max: 300_000 }),
        }),
      },
      { weight: 2, arbitrary: fc.constant({ kind: 'beat' as const }) },
      {
        weight: 3,
        arbitrary: fc.record({ kind: fc.constant('event' as const), process: fc.nat({ max: 1 }) }),
      },
      {
        weight: 1,
        arbitrary: fc.record({ kind: fc.constant('race' as const), process: fc.nat({ max: 1 }) }),
      },
    ),
    { minLength: 5, maxLength: 25 },
  )
  await fc.assert(
    fc.asyncProperty(
      steps,
      fc.integer({ min: 1, max: 15 }),
      fc.integer({ min: 0, max: 5 }),
      async (list, everySeconds, graceSeconds) => {
        const w = world(`run-${++runs}`, nextStart())
        await w.put({ everySeconds, graceSeconds, eventTypes: ['t'] })
        // As whoever made it asks for: while there is none, nobody reports.
        await w.look()
        const allowedMs = (everySeconds + graceSeconds) * 1000
        const slack = slackMs({ everyMs: everySeconds * 1000 })
        // Said anew: how long it was silent while somebody listened, and what has to be told by then.
        let silentMs = 0
        let sleeps = 0
        let missing = false
        let beaten = false
        let at = 0
        const check = () => {
          for (; at < w.told.length; at++) {
            const { type } = w.told[at]!
            if (type.endsWith('.missed')) {
              assert.ok(!missing, 'told twice')
              assert.ok(silentMs >= allowedMs, `missed after ${silentMs} ms of ${allowedMs}`)
              missing = true
              beaten = false
            } else {
              assert.match(type, /recovered$/)
              assert.ok(missing, 'recovered without being missed')
              assert.ok(beaten, 'recovered without a beat')
              missing = false
            }
          }
          // A report may be as old as two seconds when sleep comes, and that much goes with the sleep.
          if (silentMs >= allowedMs + slack + sleeps * POLL_MS)
            assert.ok(missing, `${silentMs} ms, and not told`)
          if (silentMs < allowedMs) assert.ok(!missing, 'still missing after a beat')
        }
        const heard = () => {
          silentMs = 0
          sleeps = 0
          beaten = true
        }
        for (const step of list) {
          switch (step.kind) {
            case 'pass':
              for (let left = step.ms; left > 0; left -= POLL_MS) {
                const ms = Math.min(left, POLL_MS)
                silentMs += ms + 1
                await w.pass(ms, true)
                // The silence after one that ended at this very look is told by the next.
                await w.pass(1, true)
                check()
              }
              break
            case 'asleep':
              await w.pass(step.ms, false)
              sleeps++
              await w.look()
              check()
              break
            case 'beat':
              await w.beat()
              heard()
              break
            case 'event':
              await w.accept(step.process, {})
              heard()
              break
            case 'race':
              await Promise.all([w.look(), w.accept(step.process, {}), w.look()])
              heard()
              await w.look()
              check()
          }
        }
        heard()
        await w.beat()
        await w.look()
        check()
        await w.delete()
      },
    ),
    { numRuns: 100 },
  )
})

test('a beat just after another is left out, and silence is counted from the one before at the latest', async () => {
  const w = world('busy', nextStart())
  await w.look()
  await w.put({ everySeconds: 10, graceSeconds: 0, eventTypes: ['t'] })
  const written: boolean[] = []
  for (let i = 0; i < 10; i++) {
    written.push(await w.accept(0, {}))
    await w.pass(300, true)
  }
  // One a second, and 10 % of its time is a second.
  assert.deepEqual(written, [true, false, false, false, true, false, false, false, true, false])
  assert.equal(await w.accept(1, {}), true, 'another process knows nothing of that')

  await w.pass(999, true)
  assert.equal(await w.accept(1, {}), false)
  await w.pass(9_999, true)
  assert.deepEqual(
    [w.told, (await w.standing()).status],
    [[], 'late'],
    'in time for the beat that was left out',
  )
  await w.pass(2, true)
  assert.deepEqual(types(w.told), ['missed'])
})

test('which events are beats: by type, prefix, source and subject, and none of another tenant', async () => {
  const w = world('choosy', nextStart())
  await w.put({ eventTypes: ['a.b', 'c.*'], eventSource: 'backup', eventSubject: 'db1' })
  const event = { source: 'backup', subject: 'db1' }
  assert.equal(await w.accept(0, { ...event, type: 'a.b' }), true)
  await w.pass(POLL_MS, true)
  assert.equal(await w.accept(0, { ...event, type: 'c.d.e' }), true)
  await w.pass(POLL_MS, true)
  for (const other of [
    { type: 'a.b.c' },
    { type: 'c' },
    { type: 'a.b', source: 'else' },
    { type: 'a.b', subject: 'db2' },
    { type: 'a.b', subject: undefined },
    { type: 'a.b', tenantId: 2 },
    { type: 'a.b', direct: { recipients: [], channels: [], fallback: [] } },
  ]) {
    assert.equal(await w.accept(0, { ...event, ...other }), false, JSON.stringify(other))
  }
  await w.put({ eventTypes: ['*'] })
  assert.equal(await w.accept(0, { type: 'whatever' }), true)
  await w.put({ eventTypes: ['*'], paused: true })
  assert.equal(await w.accept(0, { type: 'whatever' }), false)
  await w.put({ eventTypes: [] })
  assert.equal(await w.accept(0, { type: 'whatever' }), false)
})

test('pausing, changing or deleting what is missing ends the alert without saying that it is back', async () => {
  const w = world('ended', nextStart())
  const silence = async () => {
    await w.pass(90_000, true)
    assert.equal((await w.standing()).status, 'down')
    w.told.length = 0
  }
  await w.look()
  await w.put({})
  assert.equal((await w.standing()).status, 'new')
  await w.pass(60_500, true)
  assert.equal((await w.standing()).status, 'late')
  await silence()
  await w.put({ description: 'other words', priority: 'HIGH' })
  assert.deepEqual([types(w.told), (await w.standing()).status], [[], 'down'])

  await w.pause(true)
  await w.pause(true)
  assert.deepEqual(types(w.told), ['withdrawn'])
  assert.equal(w.told[0]!.data['reason'], 'paused')
  await w.beat()
  await w.pass(300_000, true)
  const paused = await w.standing()
  assert.deepEqual([paused.status, paused.expectedBy, types(w.told)], ['paused', null, ['withdrawn']])

  // From now on, though the last beat is long ago.
  await w.pause(false)
  await w.pass(68_000, true)
  assert.deepEqual([types(w.told), (await w.standing()).status], [['withdrawn'], 'late'])
  await silence()
  await w.put({ everySeconds: 61 })
  assert.deepEqual([types(w.told), w.told[0]!.data['reason']], [['withdrawn'], 'changed'])
  assert.equal((await w.standing()).status, 'new')
  await w.beat()
  assert.equal((await w.standing()).status, 'up')
  await silence()
  await w.delete()
  assert.deepEqual([types(w.told), w.told[0]!.data['reason']], [['withdrawn'], 'deleted'])
  await assert.rejects(w.beat(), { code: 'not_found' })
})

test('many that fall silent at once are told in several looks by several processes, each once', async () => {
  const w = world('none of these', nextStart())
  await w.look()
  const told: string[] = []
  const write: WriteEvents = async (_, events) => void told.push(...events.map(event => event.subject!))
  await w.db.pool.query(
    `insert into heartbeats (tenant_id, name, every_seconds, grace_seconds, created_at, updated_at)
     select 1, 'many-' || n, 60, 0, $1, $1 from generate_series(1, 700) n`,
    [w.now()],
  )
  await w.db.pool.query(
    `insert into heartbeat_states (tenant_id, name, since, deaf_ms, check_at)
     select 1, 'many-' || n, $1, heartbeat_deaf_ms($1), $1::timestamptz + interval '1 minute' from generate_series(1, 700) n`,
    [w.now()],
  )
  await w.pass(59_000, true)
  const watchers = [1, 2, 3].map(() =>
    heartbeatWatcher({
      db: w.db,
      write,
      now: () => new Date(w.now().getTime() + 3_000),
      listens: true,
      looks: true,
      onTold() {},
      pollMs: POLL_MS,
      onError() {},
    }),
  )
  await Promise.all(
    watchers.map(async watcher => {
      while (await watcher.runOnce()) continue
    }),
  )
  assert.equal(told.length, 700)
  assert.equal(new Set(told).size, 700)
  await w.db.pool.query(`delete from heartbeats where name like 'many-%'`)
})
