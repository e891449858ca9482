import { openDb, sql } from '../server/db/pool.ts'
import { argument, figure, machine, table } from './machine.ts'
import { atEnd, bench, benchServer, within } from './server.ts'

/**
 * What-if over recorded events: 1,000,000 of the last seven days, through match, preferences, limits, cooldown and
 * rendering, twice at once (as it is and with a changed rule), on the running server.
 */
const EVENTS = argument('events', 1_000_000)
const SEEDS = 1_000
const PEOPLE = 1_000

// Each seed again and again, spread over the week: sealed data is as real as if it had been accepted.
const multiply = sql(
  'bench_multiply_events',
  `insert into events (tenant_id, id, source, type, subject, time, received_at, data, planned, trace)
   select e.tenant_id, uuidv7(- s.i * (interval '7 days' / $1) - e.n * (interval '7 days' / $1 / ${SEEDS})),
     e.source, e.type, e.subject,
     now() - s.i * (interval '7 days' / $1) - e.n * (interval '7 days' / $1 / ${SEEDS}),
     now() - s.i * (interval '7 days' / $1) - e.n * (interval '7 days' / $1 / ${SEEDS}),
     e.data, true, null
   from generate_series(1, $1) as s (i)
   cross join (select *, row_number() over (order by id) as n from events where type like 'bench.%') e`,
)

await bench(15, async () => {
  const server = await benchServer()
  const rule = (limit: number) => ({
    name: 'Large orders',
    eventTypes: ['bench.order'],
    eventPattern: `event.data.total > ${limit}`,
    channels: ['in_app', 'email'],
    recipientSelector: { expression: 'event.data.who' },
    policy: { cooldown: { seconds: 60, key: ['event.data.number'] } },
  })
  for (let from = 0; from < PEOPLE; from += 500) {
    await server.call('POST', '/api/users/bulk', {
      users: Array.from({ length: 500 }, (_, i) => ({
        userId: `user-${from + i}`,
        timezone: 'Europe/Berlin',
        addresses: [{ channel: 'email', address: `user-${from + i}@example.org`, verified: true }],
      })),
    })
  }
  await server.call('POST', '/api/events/batch', {
    events: Array.from({ length: SEEDS }, (_, i) => ({
      type: 'bench.order',
      data: { who: `user-${i % PEOPLE}`, number: i, total: i % 100, title: `Order ${i}` },
    })),
  })
  // It held all week.
  await server.call('POST', '/api/rules', { ...rule(50), validFrom: '2020-01-01T00:00:00Z' })
  const db = openDb(server.databaseUrl, { max: 1 })
  atEnd(() => db.close())
  await within(300, 'recording', db.run(multiply, [Math.ceil(EVENTS / SEEDS) - 1]))

  const before = server.cpu()
  const started = performance.now()
  const answer = await within(
    600,
    'the replay',
    fetch(`${server.url}/api/rules/replay`, {
      method: 'POST',
      headers: {
        authorization: `Bearer ${server.key}`,
        accept: 'application/x-ndjson',
        'content-type': 'application/json',
      },
      body: JSON.stringify({ since: '8d', rule: rule(40), maxEvents: 5_000_000 }),
    }).then(response => response.text()),
  )
  const seconds = (performance.now() - started) / 1000
  const last = JSON.parse(answer.trim().split('\n').at(-1)!) as {
    result?: { events: number; told: { before: number; after: number }; totals: Record<string, number> }
  }
  if (!last.result) throw new Error(answer.slice(-500))
  const { events, told, totals } = last.result
  console.log(machine())
  console.log(
    table(
      ['events', 'seconds', 'events a second', 'messages before / after', 'new', 'node CPU s', 'memory MB'],
      [
        [
          figure(events),
          figure(seconds),
          figure(events / seconds),
          `${figure(told.before)} / ${figure(told.after)}`,
          figure(totals['new']!),
          figure(server.cpu().node - before.node),
          figure(server.rss()),
        ],
      ],
    ),
  )
})
