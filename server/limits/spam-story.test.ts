import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
const lines: string[] = []
before(async () => {
  t = await testApp(
    { CARILLON_INGEST_LANES: '4', LOG_LEVEL: 'warn' },
    { log: { write: (line: string) => void lines.push(line) } },
  )
  for (const name of ['ann', 'bob']) {
    await call('PUT', `/api/users/${name}`, {
      addresses: [
        { channel: 'email', address: `${name}@example.org`, verified: true },
        { channel: 'webhook', address: 'http://127.0.0.1:1/', verified: true },
      ],
    })
  }
})
after(() => t.stop())
const ask = (method: string, path: string, body?: unknown) =>
  t.call(method, path, { as: t.tenant.adminKey, body })
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await ask(method, path, body)
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const send = (recipientId: string, more: object = {}) =>
  call('POST', '/api/notifications', { recipientId, channels: ['email'], body: 'Hi', ...more })
const decisionOf = async ({ eventId }: Loose): Promise<Loose> =>
  (await call('GET', `/api/events/${eventId}/explain`)).rules[0].recipients[0].decisions[0]

/** As the set of alphintra, but over a month, so that no window ends in the middle of the story. */
const limits = async () => {
  await call('POST', '/api/limits', {
    name: 'same content',
    scope: 'content',
    categories: ['said'],
    max: 2,
    window: 'month',
    reason: 'throttled',
  })
  await call('POST', '/api/limits', {
    name: 'flood',
    scope: 'user',
    categories: ['flood'],
    max: 10,
    window: 'month',
    per: 'notification',
    overflow: 'skip',
    reason: 'spam',
  })
}

// covers: ALP-153, ALP-158, DIC-095, DIC-096
test('what looks like spam is slowed down or left out, with a score, and written down once', async () => {
  await limits()
  const flood = await Promise.all(
    Array.from({ length: 8 }, (_, writer) =>
      call('POST', '/api/notifications/bulk', {
        notifications: Array.from({ length: 4 }, (_, n) => ({
          recipientId: 'ann',
          category: 'flood',
          channels: ['email', 'webhook', 'in_app'],
          body: `${writer} ${n}`,
        })),
      }),
    ),
  )
  assert.equal(flood.length, 8)
  const { rows } = await t.db.pool.query(
    `select count(*)::int as n from notifications where recipient_id = 'ann'`,
  )
  assert.equal(rows[0].n, 32, 'the inbox has them all')
  const check = (more: object) =>
    call('POST', '/api/rate-limits/check', { userId: 'ann', channel: 'email', category: 'flood', ...more })
  const blocked = await check({})
  assert.deepEqual(
    [blocked.allowed, blocked.decision, blocked.reason, blocked.spam],
    [false, 'skip', 'spam', { action: 'BLOCK', riskScore: 110, detectionRule: 'flood 10/month' }],
  )
  const critical = await send('ann', { category: 'flood', priority: 'CRITICAL' })
  assert.equal((await decisionOf(critical)).decision, 'send')
  const left = await decisionOf(await send('ann', { category: 'flood' }))
  assert.deepEqual(
    [left.decision, left.reason, left.detail],
    ['skip', 'spam', 'flood 10/month: 11 used, risk 120'],
  )

  const { items } = await call('GET', '/api/spam-detections')
  assert.equal(items.length, 1)
  const [found] = items
  // Of 32 on two channels ten went, and one more was left out on one channel.
  assert.deepEqual(
    [found.userId, found.action, found.detectionRule, found.suspiciousActivity.stopped, found.resolvedAt],
    ['ann', 'BLOCK', 'flood 10/month', 22 * 2 + 1, null],
  )
  assert.equal(found.riskScore, 550)
  assert.deepEqual((await call('GET', '/api/spam-detections?userId=bob')).items, [])

  const text = { subject: 'Sale', body: 'Buy now!' }
  const say = (more: object = {}) => send('bob', { category: 'said', ...text, ...more })
  for (let n = 0; n < 2; n++) assert.equal((await decisionOf(await say())).decision, 'send')
  const asked = { userId: 'bob', category: 'said', content: text }
  const slowed = await check(asked)
  assert.deepEqual(
    [slowed.decision, slowed.reason, slowed.spam.action, slowed.spam.riskScore],
    ['hold', 'throttled', 'THROTTLE', 150],
  )
  const other = await check({ ...asked, content: { body: 'Something else' } })
  assert.deepEqual([other.decision, other.spam.action, other.spam.riskScore], ['send', 'ALLOW', 50])
  const held = await decisionOf(await say())
  assert.deepEqual([held.decision, held.reason], ['hold', 'throttled'])
  assert.equal((await decisionOf(await say({ priority: 'CRITICAL' }))).decision, 'send')
  const throttled = await call('GET', '/api/spam-detections?action=THROTTLE')
  assert.deepEqual(
    throttled.items.map((one: Loose) => [one.userId, one.suspiciousActivity.stopped, one.riskScore]),
    [['bob', 1, 150]],
  )
  assert.deepEqual(await auditLedger(t.db), [])
})

test('somebody looks into it, and says so', async () => {
  const { items } = await call('GET', '/api/spam-detections?resolved=false')
  assert.equal(items.length, 2)
  const [first] = items
  const solved = await call('POST', `/api/spam-detections/${first.id}/resolve`, { notes: 'A sale.' })
  assert.deepEqual([solved.id, solved.notes], [first.id, 'A sale.'])
  assert.ok(solved.resolvedAt)
  const again = await call('POST', `/api/spam-detections/${first.id}/resolve`)
  assert.deepEqual([again.resolvedAt, again.notes], [solved.resolvedAt, 'A sale.'])
  assert.equal((await call('GET', '/api/spam-detections?resolved=false')).items.length, 1)
  assert.equal((await call('GET', '/api/spam-detections?resolved=true')).items[0].id, first.id)
  const page = await call('GET', '/api/spam-detections?limit=1')
  const next = await call('GET', `/api/spam-detections?limit=1&cursor=${page.nextCursor}`)
  assert.notEqual(next.items[0].id, page.items[0].id)
  assert.equal(next.nextCursor, null)
})

// covers: DIC-096, DIC-201
test('hits are counted and logged, a flood of them once', async () => {
  const hits = await eventually('the metric', async () => {
    const { text } = await t.call('GET', '/metrics', { as: t.tenant.adminKey })
    return /rate_limit_hits_total\{[^}]*scope="cap"[^}]*\} (\d+)/.exec(text)?.[1]
  })
  assert.ok(Number(hits) >= 46, hits)
  const reached = lines.filter(line => line.includes('limit reached')).map(line => JSON.parse(line))
  assert.deepEqual(
    new Set(reached.map(({ userId, channel, limit }) => `${userId} ${channel} ${limit}`)),
    new Set(['ann email flood 10/month', 'ann webhook flood 10/month', 'bob email same content 2/month']),
  )
  assert.ok(reached.length <= 6, String(reached.length))
})
