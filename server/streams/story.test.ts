import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import { MAX_PER_STREAM } from './store.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  await call('PUT', '/api/users/olga', {})
  await call('POST', '/api/rules', {
    name: 'Tell Olga',
    eventTypes: ['carillon.threshold.crossed', 'carillon.threshold.cleared'],
    channels: ['in_app'],
    recipientSelector: { users: ['olga'] },
  })
})
after(() => t.stop())

async function call(method: string, path: string, body?: unknown): Promise<Loose> {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
async function refused(method: string, path: string, body: unknown): Promise<Loose> {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status >= 400 && answer.status < 500, `${method} ${path}: ${answer.text}`)
  return answer.body
}

/** An hour ago, so that none of the seconds below is ahead of the clock. */
const start = Date.now() - 3_600_000
const at = (seconds: number) => new Date(start + seconds * 1000).toISOString()
const send = (stream: string, ...samples: [seconds: number, value: number, series?: string][]) =>
  call('POST', `/api/streams/${stream}/samples`, {
    samples: samples.map(([seconds, value, series]) => ({
      at: at(seconds),
      value,
      ...(series !== undefined && { series }),
    })),
  })
const told = (answer: Loose): string[] =>
  answer.changes.map((one: Loose) => `${one.series} ${one.change} ${one.value}`)

test('a disk fills up, stays full, and is emptied: told once each way, with the numbers, and explained', async () => {
  const threshold = await call('POST', '/api/thresholds', {
    name: 'Disk nearly full',
    stream: 'disk.used',
    when: 'above',
    bounds: [90],
    inclusive: true,
    rearm: 5,
    forSeconds: 60,
    maxGapSeconds: 120,
    priority: 'HIGH',
  })
  assert.equal(threshold.revision, 1)

  // Too short; then a hole, over which nothing is known; then long enough.
  assert.deepEqual(told(await send('disk.used', [0, 91, 'db1'], [30, 92, 'db1'], [50, 89, 'db1'])), [])
  assert.deepEqual(told(await send('disk.used', [60, 90, 'db1'], [500, 90, 'db1'])), [])
  const crossed = await send(
    'disk.used',
    [530, 95, 'db1'],
    [560, 96, 'db1'],
    [590, 97, 'db1'],
    [560, 10, 'db2'],
  )
  assert.deepEqual(told(crossed), ['db1 crossed 96'])
  assert.deepEqual([crossed.accepted, crossed.late], [4, 0])
  // Sent again, as after a broken connection: nothing is made of it.
  const again = await send(
    'disk.used',
    [530, 95, 'db1'],
    [560, 96, 'db1'],
    [590, 97, 'db1'],
    [560, 10, 'db2'],
  )
  assert.deepEqual([told(again), again.accepted, again.late], [[], 0, 4])

  const { items: states } = await call('GET', `/api/thresholds/${threshold.id}/states`)
  assert.deepEqual(
    states.map((state: Loose) => [state.series, state.status, state.since, state.lastAt]),
    [
      ['db1', 'crossed', at(500), at(590)],
      ['db2', 'clear', null, at(560)],
    ],
  )
  const only = await call('GET', `/api/thresholds/${threshold.id}/states?status=crossed&limit=1`)
  assert.deepEqual(
    only.items.map((state: Loose) => state.series),
    ['db1'],
  )

  // Back over the bound is not back by the hysteresis.
  assert.deepEqual(told(await send('disk.used', [600, 89, 'db1'], [610, 95, 'db1'], [700, 95, 'db1'])), [])
  assert.deepEqual(told(await send('disk.used', [710, 84.9, 'db1'])), ['db1 cleared 84.9'])

  const olga = await t.tenant.token('olga')
  const inbox = await eventually('both messages', async () => {
    const { body } = await t.call('GET', '/api/notifications/feed', { as: olga })
    return body.items.length === 2 && body.items
  })
  assert.deepEqual(inbox.map((item: Loose) => item.eventType ?? item.type).sort(), [
    'carillon.threshold.cleared',
    'carillon.threshold.crossed',
  ])
  const why = await call('GET', `/api/explain?event=${crossed.changes[0].eventId}&user=olga`)
  assert.match(JSON.stringify(why), /Tell Olga/)
  const alerts = await call('GET', '/api/alerts')
  const [alert] = alerts.items
  assert.equal(alert.status, 'resolved')
  assert.equal(alert.labels['labels.threshold'], 'Disk nearly full')
  assert.equal(alert.labels['labels.series'], 'db1')
})

test('a rule sees the numbers, and what the sample brought', async () => {
  await call('POST', '/api/thresholds', {
    name: 'Frost',
    stream: 'garden',
    when: 'below',
    bounds: [0],
    priority: 'CRITICAL',
  })
  await call('PUT', '/api/users/pavel', {})
  await call('POST', '/api/rules', {
    name: 'Frost in Porto',
    eventTypes: ['carillon.threshold.crossed'],
    eventPattern:
      'event.data.stream == "garden" && event.data.value < -2.0 && event.data.data.city == "Porto" && event.priority == "CRITICAL"',
    channels: ['in_app'],
    recipientSelector: { users: ['pavel'] },
  })
  const { changes } = await call('POST', '/api/streams/garden/samples', {
    samples: [
      { value: -1, series: 'north', data: { city: 'Porto' } },
      { value: -3, series: 'south', data: { city: 'Braga' } },
      { value: -4, series: 'west', data: { city: 'Porto' } },
    ],
  })
  assert.equal(changes.length, 3)
  const pavel = await t.tenant.token('pavel')
  const [item] = await eventually('a message', async () => {
    const { body } = await t.call('GET', '/api/notifications/feed', { as: pavel })
    return body.items.length > 0 && body.items
  })
  const west = changes.find((change: Loose) => change.series === 'west')
  assert.equal(item.eventId, west.eventId)
})

test('of many batches that cross at once exactly one tells, also while the threshold is changed', async () => {
  const definition = { name: 'Queue', stream: 'queue', when: 'above', bounds: [100] }
  const { id } = await call('POST', '/api/thresholds', definition)
  const series = Array.from({ length: 20 }, (_, i) => `q${i}`)
  // Half of them have a row already, which is another lock than that of a new one.
  const halves = [series.slice(0, 10), series.slice(10)]
  await send('queue', ...halves[1]!.map((name): [number, number, string] => [1, 1, name]))
  const sent = halves.flatMap(names =>
    Array.from({ length: 16 }, (_, sender) =>
      send('queue', ...names.map((name): [number, number, string] => [10 + sender, 101 + sender, name])),
    ),
  )
  // Other words, the same bounds: nothing begins anew.
  const renamed = call('PUT', `/api/thresholds/${id}`, { ...definition, description: 'waiting' })
  const lines = (await Promise.all(sent)).flatMap(told).map(line => line.replace(/ \d+$/, ''))
  assert.deepEqual(lines.sort(), series.map(name => `${name} crossed`).sort())
  assert.equal((await renamed).revision, 1)

  // With another bound every series begins anew; what was seen before stays seen.
  const changed = await call('PUT', `/api/thresholds/${id}`, { ...definition, bounds: [200] })
  assert.equal(changed.revision, 2)
  assert.deepEqual((await call('GET', `/api/thresholds/${id}/states`)).items, [])
  const old = await send('queue', [5, 300, 'q1'])
  assert.deepEqual([old.late, old.changes], [1, []])
  assert.deepEqual(told(await send('queue', [50, 150, 'q1'], [51, 201, 'q1'])), ['q1 crossed 201'])

  // Switched off it takes nothing in; switched on again it begins anew.
  await call('PUT', `/api/thresholds/${id}`, { ...definition, bounds: [200], enabled: false })
  assert.deepEqual(told(await send('queue', [60, 500, 'q1'])), [])
  await call('PUT', `/api/thresholds/${id}`, { ...definition, bounds: [200] })
  assert.deepEqual(told(await send('queue', [61, 500, 'q1'])), ['q1 crossed 500'])
})

test('taken away while samples arrive, it is gone, and nobody meets an error', async () => {
  for (let round = 0; round < 5; round++) {
    const { id } = await call('POST', '/api/thresholds', {
      name: `Gone ${round}`,
      stream: 'gone',
      when: 'above',
      bounds: [1],
    })
    const [answers] = await Promise.all([
      Promise.all(
        Array.from({ length: 8 }, (_, i) =>
          send('gone', [round * 10 + i, 2, `s${i}`], [round * 10 + i, 2, 't']),
        ),
      ),
      call('DELETE', `/api/thresholds/${id}`),
    ])
    assert.ok(answers.flatMap(told).length <= 9)
    assert.equal((await t.call('GET', `/api/thresholds/${id}`, { as: t.tenant.adminKey })).status, 404)
  }
  const { rows } = await t.db.pool.query(
    `select from threshold_states s where not exists (select from thresholds t where t.id = s.threshold_id)`,
  )
  assert.equal(rows.length, 0)
})

test('what cannot work is refused with the field, and takes nothing along', async () => {
  const good = { name: 'Good', stream: 's', when: 'above', bounds: [1] }
  const wrong = async (change: object) =>
    (await refused('POST', '/api/thresholds', { ...good, ...change })).errors[0].field
  assert.equal(await wrong({ bounds: [1, 2] }), '/bounds')
  assert.equal(await wrong({ when: 'inside', bounds: [2, 1] }), '/bounds')
  assert.equal(await wrong({ when: 'outside', bounds: [10, 20], rearm: 6 }), '/rearm')
  assert.equal(await wrong({ timezone: 'Atlantis/Capital' }), '/timezone')
  assert.equal(await wrong({ forSeconds: -1 }), '/forSeconds')
  assert.equal(await wrong({ forSeconds: 600, maxGapSeconds: 0 }), '/maxGapSeconds')
  await call('POST', '/api/thresholds', good)
  assert.equal((await refused('POST', '/api/thresholds', good)).code, 'already_exists')

  const far = new Date(Date.now() + 3_600_000).toISOString()
  const body = (second: object) => ({ samples: [{ value: 5 }, { value: 6, ...second }] })
  const ahead = await refused('POST', '/api/streams/s/samples', body({ at: far }))
  assert.equal(ahead.errors[0].field, '/samples/1/at')
  const much = await refused('POST', '/api/streams/s/samples', body({ data: { text: 'x'.repeat(5_000) } }))
  assert.equal(much.errors[0].field, '/samples/1/data')
  await refused('POST', '/api/streams/s/samples', body({ value: 1e300 }))
  const { items } = await call('GET', '/api/thresholds?stream=s')
  assert.deepEqual(
    items.map((one: Loose) => one.name),
    ['Good'],
  )
  assert.deepEqual((await call('GET', `/api/thresholds/${items[0].id}/states`)).items, [])
})

test('a stream has so many thresholds and no more, however many are made at once', async () => {
  const made = await Promise.all(
    Array.from({ length: MAX_PER_STREAM + 5 }, (_, i) =>
      t.call('POST', '/api/thresholds', {
        as: t.tenant.adminKey,
        body: { name: `Many ${i}`, stream: 'many', when: 'above', bounds: [i] },
      }),
    ),
  )
  assert.equal(made.filter(({ status }) => status === 201).length, MAX_PER_STREAM)
  assert.equal(made.filter(({ status }) => status === 409).length, 5)
  const { rows } = await t.db.pool.query(`select count(*)::int as n from thresholds where stream = 'many'`)
  assert.equal(rows[0].n, MAX_PER_STREAM)
})

test('another tenant has streams of its own, and after all of it the books balance', async () => {
  const as = t.other.adminKey
  const answer = await t.call('POST', '/api/streams/disk.used/samples', {
    as,
    body: { samples: [{ value: 1_000, series: 'db1' }] },
  })
  assert.deepEqual([answer.status, answer.body.changes], [200, []])
  assert.deepEqual((await t.call('GET', '/api/thresholds', { as })).body.items, [])
  await eventually('the end of planning', async () => {
    const { rows } = await t.db.pool.query('select count(*)::int as n from planning')
    return rows[0].n === 0
  })
  assert.deepEqual(await auditLedger(t.db, {}), [])
})
