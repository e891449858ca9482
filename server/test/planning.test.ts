import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { eventually, testApp } from './app.ts'
import type { TestApp } from './app.ts'

let app: TestApp
const MEMBERS = 1234

before(async () => {
  // Small chunks: a thousand people are many parts.
  app = await testApp({ CARILLON_INLINE_RECIPIENTS: '100' })
  const users = Array.from({ length: MEMBERS }, (_, i) => ({ userId: `member-${i}`, groups: ['everybody'] }))
  for (let i = 0; i < users.length; i += 1000) {
    const { status } = await call('POST', '/api/users/bulk', { users: users.slice(i, i + 1000) })
    assert.ok(status < 300)
  }
})
after(() => app.stop())

const call = (method: string, path: string, body?: unknown) =>
  app.call(method, path, { as: app.tenant.adminKey, body })

async function rule(name: string, more: object): Promise<void> {
  const { status, text } = await call('POST', '/api/rules', {
    name,
    eventTypes: [name],
    channels: ['in_app'],
    ...more,
  })
  assert.equal(status, 201, text)
}
async function planned(id: string): Promise<void> {
  await eventually(
    'the plan',
    async () => (await call('GET', `/api/events/status/${id}`)).body.status === 'COMPLETED',
  )
}
const told = async (eventId: string) => {
  const { rows } = await app.db.pool.query<{ recipient_id: string }>(
    'select recipient_id from notifications where event_id = $1 order by 1',
    [eventId],
  )
  return rows.map(row => row.recipient_id)
}

// covers: DIC-057
test('a large group is planned later, in chunks, each member exactly once', async () => {
  await rule('news.large', {
    recipientSelector: { groups: ['everybody'], users: ['member-7', 'not-a-member'] },
  })
  const { body } = await call('POST', '/api/events/publish', {
    type: 'news.large',
    data: { message: 'hello' },
  })
  assert.equal(body.status, 'PENDING')
  await planned(body.id)

  const people = await told(body.id)
  assert.equal(people.length, MEMBERS)
  assert.equal(new Set(people).size, MEMBERS)
  const { rows } = await app.db.pool.query(
    `select count(*)::int as parts, sum(deliveries)::int as deliveries, sum(suppressed)::int as suppressed,
       count(*) filter (where outcome = 'completed')::int as ends from plans where event_id = $1`,
    [body.id],
  )
  assert.ok(rows[0].parts > MEMBERS / 500)
  assert.deepEqual(
    { deliveries: rows[0].deliveries, suppressed: rows[0].suppressed, ends: rows[0].ends },
    { deliveries: MEMBERS + 1, suppressed: 1, ends: 1 },
  )
  assert.deepEqual(await auditLedger(app.db, {}), [])

  const why = await call('GET', `/api/explain?user=member-1000&event=${body.id}`)
  assert.equal(why.body.rules[0].recipients[0].deliveries[0].status, 'delivered')
  const not = await call('GET', `/api/explain?user=not-a-member&event=${body.id}`)
  assert.equal(not.body.rules[0].recipients[0].decisions[0].reason, 'unknown_user')
})

// covers: ALP-065, ALP-078
test('a scheduled event meets the rules of its time; an expired one tells nobody', async () => {
  const soon = new Date(Date.now() + 700).toISOString()
  const { body } = await call('POST', '/api/events/publish', {
    type: 'news.later',
    data: { message: 'now' },
    scheduledAt: soon,
  })
  assert.equal(body.status, 'PENDING')
  // The rule comes after the event was accepted, and before it is due.
  await rule('news.later', { recipientSelector: { users: ['member-1'] } })
  await planned(body.id)
  assert.deepEqual(await told(body.id), ['member-1'])

  const late = await call('POST', '/api/notifications', {
    recipientId: 'member-1',
    body: 'too late',
    scheduledAt: new Date(Date.now() + 60_000).toISOString(),
    expiresAt: new Date(Date.now() + 30_000).toISOString(),
  })
  assert.equal(late.status, 400)
  assert.equal(late.body.errors[0].field, '/expiresAt')
})

// covers: ALP-082
test('a scheduled event can be cancelled until it is planned, and only then', async () => {
  const inAnHour = new Date(Date.now() + 3_600_000).toISOString()
  const { body } = await call('POST', '/api/events/publish', {
    type: 'news.large',
    data: {},
    scheduledAt: inAnHour,
  })
  assert.equal((await call('DELETE', `/api/events/${body.id}`)).status, 204)
  assert.equal((await call('GET', `/api/events/status/${body.id}`)).body.status, 'CANCELLED')
  assert.equal((await call('DELETE', `/api/events/${body.id}`)).status, 409)
  assert.deepEqual(await told(body.id), [])
  assert.deepEqual(await auditLedger(app.db, {}), [])
})

// covers: DIC-061
test('a rule with a schedule holds what it sends until its next time', async () => {
  await rule('news.daily', {
    recipientSelector: { users: ['member-2'] },
    schedule: { cron: '0 9 * * *' },
    timezone: 'Europe/Lisbon',
  })
  const { body } = await call('POST', '/api/events/publish', {
    type: 'news.daily',
    data: { message: 'daily' },
  })
  const why = await call('GET', `/api/events/${body.id}/explain`)
  const [decision] = why.body.rules[0].recipients[0].decisions
  assert.equal(decision.decision, 'hold')
  assert.equal(decision.reason, 'rule_schedule')
  const hour = new Intl.DateTimeFormat('en-GB', {
    timeZone: 'Europe/Lisbon',
    hour: 'numeric',
    minute: 'numeric',
  })
  assert.equal(hour.format(new Date(decision.until)), '09:00')
  assert.equal(why.body.rules[0].recipients[0].deliveries[0].status, 'held')
})

test('topics: NONE hears nothing, IMPORTANT hears what is urgent', async () => {
  const level = { 'member-3': 'ALL', 'member-4': 'IMPORTANT', 'member-5': 'NONE' }
  for (const [userId, value] of Object.entries(level)) {
    await call('PUT', `/api/users/${userId}`, { topics: [{ name: 'stocks', level: value }] })
  }
  await rule('stocks.move', { recipientSelector: { topics: ['stocks'] } })
  await rule('stocks.crash', { recipientSelector: { topics: ['stocks'] }, priority: 'HIGH' })
  const move = await call('POST', '/api/events/publish', { type: 'stocks.move', data: {} })
  const crash = await call('POST', '/api/events/publish', { type: 'stocks.crash', data: {} })
  assert.deepEqual(await told(move.body.id), ['member-3'])
  assert.deepEqual(await told(crash.body.id), ['member-3', 'member-4'])
})
