import assert from 'node:assert/strict'
import { test } from 'node:test'
import { idFloor } from '../db/ids.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { testApi } from '../test/api.ts'
import { eventually } from '../test/app.ts'
import { testDatabase } from '../test/database.ts'
import { createMetrics } from './metrics.ts'
import { NotReady, type ReadyCheck, readiness, standardChecks, tablesWithoutPartition } from './ready.ts'
import { metricsArePublic, observeRoutes } from './routes.ts'

/** A server with nothing but these routes. */
async function server(options: { metricsPublic?: boolean; checks?: Record<string, ReadyCheck> } = {}) {
  const metrics = createMetrics({ process: false })
  const world = await testApi({
    routes: [
      api =>
        observeRoutes(api, {
          metrics,
          ready: readiness(options.checks ?? {}),
          version: '1.2.3',
          metricsPublic: options.metricsPublic ?? false,
        }),
    ],
  })
  return { ...world, metrics }
}

test('health asks nothing but the process, without credentials', async t => {
  const world = await server({
    checks: { database: () => Promise.reject(new Error('away')) },
  })
  t.after(() => world.close())
  const answer = await world.request('GET', '/healthz')
  assert.equal(answer.statusCode, 200)
  assert.deepEqual(answer.json(), { status: 'ok', version: '1.2.3' })
  assert.deepEqual(
    brokenRouteRules(world.api).filter(rule => /healthz|readyz|metrics/.test(rule)),
    [],
  )
})

test('readiness is the sum of its checks and shows what is wrong, but no error of the driver', async t => {
  let fine = false
  const world = await server({
    checks: {
      database: async () => {
        if (!fine) throw new Error('connect ECONNREFUSED 10.1.2.3:5432 user canary')
      },
      partitions: async () => {
        if (!fine) throw new NotReady('none for now in events')
      },
      running: async () => {},
    },
  })
  t.after(() => world.close())
  const answer = await world.request('GET', '/readyz')
  assert.equal(answer.statusCode, 503)
  assert.deepEqual(answer.json(), {
    status: 'not_ready',
    checks: { database: 'failed', partitions: 'none for now in events', running: 'ok' },
  })
  fine = true
  const deadline = Date.now() + 10_000
  // The answer stands for a second.
  while ((await world.request('GET', '/readyz')).statusCode !== 200) assert.ok(Date.now() < deadline)
})

test('an answer stands for a second, and a check that hangs is an answer as well', async () => {
  let [at, calls] = [0, 0]
  const ask = readiness(
    {
      counted: async () => {
        calls++
      },
    },
    () => at,
  )
  await Promise.all([ask(), ask(), ask()])
  at = 999
  await ask()
  assert.equal(calls, 1)
  at = 1000
  assert.deepEqual(await ask(), { ready: true, checks: { counted: 'ok' } })
  assert.equal(calls, 2)
  const hanging = await readiness({ hangs: () => new Promise(() => {}) })()
  assert.deepEqual(hanging, { ready: false, checks: { hangs: 'no answer within 2000 ms' } })
})

test('the database: reachable, migrated, with partitions for now, and the process not stopping', async t => {
  const database = await testDatabase()
  t.after(() => database.drop())
  const { db } = database
  // No partition made by hand reaches so far.
  const now = () => new Date('2091-06-15T12:00:00Z')
  let stopping = false
  const ask = () => readiness(standardChecks({ db, now, draining: () => stopping }))()

  const before = await ask()
  assert.equal(before.checks.database, 'ok')
  assert.equal(before.checks.migrations, 'ok')
  assert.match(before.checks.partitions!, /none for now in .*events.*notifications/)

  const tables = await tablesWithoutPartition(db, now())
  const [june, july] = ['2091-06-01', '2091-07-01'].map(day => idFloor(Date.parse(day)))
  for (const table of tables) {
    await db.pool.query(
      `create table ${table}_91_07 partition of ${table} for values from ('${july}') to (maxvalue)`,
    )
  }
  assert.deepEqual(
    await tablesWithoutPartition(db, now()),
    tables,
    'a partition of another time does not count',
  )
  for (const table of tables) {
    await db.pool.query(
      `create table ${table}_91_06 partition of ${table} for values from ('${june}') to ('${july}')`,
    )
  }
  assert.deepEqual(await ask(), {
    ready: true,
    checks: { running: 'ok', database: 'ok', migrations: 'ok', partitions: 'ok' },
  })
  stopping = true
  assert.equal((await ask()).checks.running, 'stopping')
})

test('an empty database is not ready', async t => {
  const database = await testDatabase({ empty: true })
  t.after(() => database.drop())
  const { db } = database
  const { ready, checks } = await readiness(
    standardChecks({ db, now: () => new Date(), draining: () => false }),
  )()
  assert.equal(ready, false)
  assert.match(checks.migrations!, /^\d+ to be applied$/)
})

test('metrics are for operators, unless the server was told or is heard on this machine only', async t => {
  const closed = await server()
  t.after(() => closed.close())
  closed.metrics.received(3)
  const status = async (as?: string) => (await closed.request('GET', '/metrics', { as })).statusCode
  assert.equal(await status(), 401)
  assert.equal(await status(closed.tenant.serviceKey), 403)
  assert.equal(await status(closed.other.adminKey), 403)
  const answer = await closed.request('GET', '/metrics', { as: closed.tenant.adminKey })
  assert.equal(answer.statusCode, 200)
  assert.match(String(answer.headers['content-type']), /^text\/plain; version=0\.0\.4/)
  assert.match(answer.body, /^events_received_total\{system="core"\} 3$/m)

  const open = await server({ metricsPublic: true })
  t.after(() => open.close())
  assert.equal((await open.request('GET', '/metrics')).statusCode, 200)

  assert.equal(metricsArePublic({ metricsPublic: false, host: '127.0.0.1' }), true)
  assert.equal(metricsArePublic({ metricsPublic: false, host: '0.0.0.0' }), false)
  assert.equal(metricsArePublic({ metricsPublic: false, host: '127.0.0.1.example.org' }), false)
  assert.equal(metricsArePublic({ metricsPublic: true, host: '::' }), true)
})

// covers: ALP-172
test('requests are counted by route, never by address', async t => {
  const world = await server({ metricsPublic: true })
  t.after(() => world.close())
  await world.request('GET', '/healthz')
  await world.request('GET', '/healthz?x=1')
  await world.request('GET', '/nothing/here')
  // A request is counted when its answer has left, which is after its caller has it.
  const text = await eventually('both requests', async () => {
    const said = await world.metrics.text()
    return /^http_request_duration_seconds_count\{method="GET",route="\/healthz"\} 2$/m.test(said) && said
  })
  assert.match(text, /^http_requests_total\{method="GET",route="\/healthz",status="200"\} 1$/m)
  assert.match(text, /^http_requests_total\{method="GET",route="\/healthz",status="400"\} 1$/m)
  assert.doesNotMatch(text, /nothing/)
})
