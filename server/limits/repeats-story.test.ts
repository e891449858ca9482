import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp({ CARILLON_INGEST_LANES: '4' })
  for (const name of ['ann', 'bob']) await call('PUT', `/api/users/${name}`, {})
})
after(() => t.stop())
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

const WRITERS = 8
const EACH = 5

/** Every writer publishes its events, one after the other, beside all others. */
async function publish(type: string, data: (writer: number, n: number) => object): Promise<void> {
  await Promise.all(
    Array.from({ length: WRITERS }, async (_, writer) => {
      for (let n = 0; n < EACH; n++) {
        await call('POST', '/api/events/publish', { type, data: data(writer, n) })
      }
    }),
  )
}
const notified = async (type: string): Promise<Record<string, number>> => {
  const { rows } = await t.db.pool.query(
    `select n.recipient_id, count(*)::int as n from notifications n join events e on e.tenant_id = n.tenant_id and e.id = n.event_id
     where e.type = $1 group by 1 order by 1`,
    [type],
  )
  return Object.fromEntries(rows.map((row: Loose) => [row.recipient_id, row.n]))
}
const rule = (type: string, policy: object) =>
  call('POST', '/api/rules', {
    name: type,
    eventTypes: [type],
    channels: ['in_app'],
    recipientSelector: { users: ['ann', 'bob'] },
    policy,
  })

// covers: PRO-054, PFM-121, PFM-124, PFM-128
test('of one text that many say at once each person hears one, and of nearly one text too', async () => {
  await rule('say.same', { repeat: { seconds: 3600 } })
  await rule('say.like', { similar: { seconds: 3600, threshold: 0.2 } })
  await publish('say.same', () => ({ message: 'The build is broken' }))
  assert.deepEqual(await notified('say.same'), { ann: 1, bob: 1 })
  await publish('say.like', (writer, n) => ({
    message: `The build of the main branch is broken again, says machine ${writer} on try ${n}`,
  }))
  assert.deepEqual(await notified('say.like'), { ann: 1, bob: 1 })
  const { rows } = await t.db.pool.query(`select note from claims where key like 'similar:%'`)
  assert.equal(rows.length, 2)
  for (const { note } of rows) assert.ok(!/build|machine/.test(note), 'what is kept is not the text')
})

// covers: PFM-120, PFM-122, PFM-123
test('a cooldown with a key: once for each milestone, level, period or occurrence, under several lanes', async () => {
  await rule('goal.reached', { cooldown: { key: ['event.data.goal', 'event.data.milestone'] } })
  await rule('spend.level', { cooldown: { period: 'month', key: ['event.data.level'] } })
  await rule('card.used', { cooldown: { key: ['event.data.transaction'] } })
  await publish('goal.reached', (_, n) => ({ goal: 'car', milestone: n % 2, saved: Math.random() }))
  await publish('spend.level', writer => ({ level: writer % 4, spent: Math.random() }))
  await publish('card.used', (writer, n) => ({ transaction: `${writer}-${n}` }))
  assert.deepEqual(await notified('goal.reached'), { ann: 2, bob: 2 })
  assert.deepEqual(await notified('spend.level'), { ann: 4, bob: 4 })
  assert.deepEqual(await notified('card.used'), { ann: WRITERS * EACH, bob: WRITERS * EACH })
  assert.deepEqual(await auditLedger(t.db), [])
})
