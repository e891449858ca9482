import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { deadLettersRoutes } from '../admin/dead-letters-routes.ts'
import { explainRoutes } from '../explain/routes.ts'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Tx } from '../db/pool.ts'
import { testApi } from '../test/api.ts'
import type { TestApi } from '../test/api.ts'
import type { Id, TenantId } from '../types.ts'
import { auditLedger } from './audit.ts'
import { replanEvent } from './events.ts'
import { contentChanger, contentOpener } from './notifications.ts'
import { ledgerRoutes } from './routes.ts'
import { ended, testLedger, testPlan, triedAgain } from './test-ledger.ts'
import type { TestLedger } from './test-ledger.ts'

let t: TestApi
let ledger: TestLedger
let tenantId: TenantId
const LATER = new Date(Date.now() + 3_600_000)
const replanned: Id[] = []
const reaccepted: Buffer[] = []

const replan = (tx: Tx, tenant: TenantId, eventId: Id) => {
  replanned.push(eventId)
  return replanEvent(tx, tenant, eventId, new Date(), 9)
}

before(async () => {
  t = await testApi({
    routes: [
      (api, { db, sealer }) => {
        ledgerRoutes(api, {
          db,
          shard: 9,
          openContent: contentOpener(sealer),
          changeContent: contentChanger(sealer),
          replan,
        })
        explainRoutes(api, { db, unseal: async () => undefined })
        deadLettersRoutes(api, {
          db,
          shard: 9,
          replan,
          async reaccept(_tenant, { payload }) {
            reaccepted.push(payload)
            return { eventId: newId() }
          },
        })
      },
    ],
  })
  ledger = testLedger(t.db)
  tenantId = t.tenant.id
})
after(() => t?.close())

const get = async (url: string, as = t.tenant.serviceKey, status = 200) => {
  const response = await t.request('GET', url, { as })
  assert.equal(response.statusCode, status, response.body)
  return response.json()
}
const post = async (url: string, status = 200, payload: object = {}, as = t.tenant.serviceKey) => {
  const response = await t.request('POST', url, { as, payload })
  assert.equal(response.statusCode, status, response.body)
  return response.json()
}

// covers: DIC-146
test('notifications are listed newest first, filtered, page by page', async () => {
  const user = 'lister'
  const plans = []
  for (let i = 0; i < 5; i++) {
    plans.push(testPlan(tenantId, [{ channels: [i % 2 === 0 ? 'in_app' : 'email'], recipientId: user }]))
  }
  for (const plan of plans) await ledger.commit([plan], { spill: true })
  const ids = plans.map(plan => plan.notifications[0]!.id).reverse()

  const seen: Id[] = []
  let cursor: string | null = ''
  while (cursor !== null) {
    const page: { items: { id: Id }[]; nextCursor: string | null } = await get(
      `/api/notifications?recipientId=${user}&limit=2${cursor && `&cursor=${cursor}`}`,
    )
    assert.ok(page.items.length <= 2)
    seen.push(...page.items.map(item => item.id))
    cursor = page.nextCursor
  }
  assert.deepEqual(seen, ids)

  const list = async (query: string) =>
    (await get(`/api/notifications?recipientId=${user}&${query}`)).items.map((item: { id: Id }) => item.id)
  assert.deepEqual(await list('status=queued'), [ids[1], ids[3]])
  assert.deepEqual(await list('status=delivered'), [ids[0], ids[2], ids[4]])
  assert.deepEqual(await list('channel=email'), [ids[1], ids[3]])
  assert.deepEqual(await list(`eventId=${plans[0]!.event.id}`), [ids[4]])
  assert.deepEqual(await list(`from=${new Date(Date.now() + 60_000).toISOString()}`), [])
  assert.deepEqual(await list(`to=${new Date(Date.now() - 60_000).toISOString()}`), [])
  // A filter with pages of one: the cursor steps over what does not fit.
  const first = await get(`/api/notifications?recipientId=${user}&status=queued&limit=1`)
  const second = await get(
    `/api/notifications?recipientId=${user}&status=queued&limit=1&cursor=${first.nextCursor}`,
  )
  assert.deepEqual([first.items[0].id, second.items[0].id], [ids[1], ids[3]])
  assert.equal(second.nextCursor, null)
  await get('/api/notifications?cursor=bm90aGluZw', t.tenant.serviceKey, 400)
})

// covers: DIC-146
test('what did not arrive, or waits, is on the first page however much has arrived since', async () => {
  const mail = (recipientId: string) => testPlan(tenantId, [{ channels: ['email'], recipientId }])
  const make = async (recipientId: string) => {
    const plan = mail(recipientId)
    const [batch] = await ledger.commit([plan])
    return { id: plan.notifications[0]!.id, deliveries: ledger.deliveriesOf(batch!) }
  }
  const one = { failed: await make('f'), bounced: await make('b'), late: await make('l') }
  const cancelled = await make('c')
  const waits = await make('w')
  await ledger.settle(one.failed.deliveries.map(d => ended(d, 'failed')))
  await ledger.settle(one.bounced.deliveries.map(d => ended(d, 'bounced')))
  await ledger.settle(one.late.deliveries.map(d => ended(d, 'sent')))
  // A receipt told of it later.
  await t.db.run(
    sql(
      'test_receipt',
      'insert into delivery_state (tenant_id, notification_id, channel, outcome, at) values ($1, $2, 1, 3, now())',
    ),
    [tenantId, one.late.id],
  )
  await ledger.settle(cancelled.deliveries.map(d => ended(d, 'expired')))
  await ledger.settle(waits.deliveries.map(d => triedAgain(d, LATER)))
  // More than are looked at for one page.
  const many = Array.from({ length: 11 }, () =>
    testPlan(
      tenantId,
      Array.from({ length: 100 }, (_, i) => ({ channels: ['in_app' as const], recipientId: `many ${i}` })),
    ),
  )
  for (const plan of many) await ledger.commit([plan])

  const list = async (status: string) =>
    (await get(`/api/notifications?status=${status}`)).items.map((item: { id: Id }) => item.id)
  assert.deepEqual(await list('failed'), [one.late.id, one.bounced.id, one.failed.id])
  assert.deepEqual(await list('cancelled'), [cancelled.id])
  assert.deepEqual(await list('retrying'), [waits.id])
  const first = await get('/api/notifications?status=failed&limit=2')
  const second = await get(`/api/notifications?status=failed&limit=2&cursor=${first.nextCursor}`)
  assert.deepEqual(
    [...first.items, ...second.items].map((item: { id: Id }) => item.id),
    [one.late.id, one.bounced.id, one.failed.id],
  )
  assert.equal(second.nextCursor, null)
  // It was not counted, and the books of the tests to come shall balance.
  await t.db.run(sql('test_no_receipt', 'delete from delivery_state where tenant_id = $1'), [tenantId])
})

// covers: DIC-146
test('one notification shows its deliveries and tries; others, and other tenants, see nothing', async () => {
  const plan = testPlan(tenantId, [{ channels: ['in_app', 'email'], recipientId: 'alice' }])
  const [batch] = await ledger.commit([plan])
  const id = plan.notifications[0]!.id
  assert.equal((await get(`/api/notifications/${id}`)).deliveries[1].status, 'in_flight')
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'bounced', 'mailbox_full')))

  const alice = await t.tenant.token('alice')
  const found = await get(`/api/notifications/${id}`, alice)
  assert.equal(found.status, 'delivered')
  assert.deepEqual(
    found.deliveries.map((d: { channel: string; status: string }) => [d.channel, d.status]),
    [
      ['in_app', 'delivered'],
      ['email', 'bounced'],
    ],
  )
  const [attempt] = found.deliveries[1].tries
  assert.deepEqual([attempt.attempt, attempt.outcome, attempt.code], [1, 'bounced', 'mailbox_full'])

  const bob = await t.tenant.token('bob')
  for (const [as, status] of [
    [bob, 404],
    [t.other.serviceKey, 404],
    [await t.other.token('alice'), 404],
  ] as const) {
    await get(`/api/notifications/${id}`, as, status)
    await get(`/api/notifications/${id}/explain`, as, status)
  }
  await get(`/api/notifications?recipientId=alice`, bob, 403)
  assert.deepEqual((await get('/api/notifications', bob)).items, [])
  assert.deepEqual((await get('/api/notifications', t.other.adminKey)).items, [])
  assert.equal((await get('/api/notifications?recipientId=alice', alice)).items[0].id, id)
})

test('content is opened for services only, without the secrets of the address', async () => {
  const { data_key } = (
    await t.db.pool.query<{ data_key: Buffer }>(
      `insert into users (tenant_id, user_id, data_key) values ($1, 'carol', $2) returning data_key`,
      [tenantId, t.sealer.newDataKey()],
    )
  ).rows[0]!
  const body = { to: 'https://example.test/hook', body: 'Parcel 7', settings: { secret: 'whsec_x' } }
  const sealed = t.sealer.seal(t.sealer.unwrap(data_key), JSON.stringify({ webhook: body }))
  const plan = testPlan(tenantId, [{ channels: ['webhook'], recipientId: 'carol', sealed }])
  await ledger.commit([plan], { spill: true })
  const url = `/api/notifications/${plan.notifications[0]!.id}?include=content`
  const { content } = await get(url)
  assert.deepEqual(content, { webhook: { to: body.to, body: body.body } })
  assert.deepEqual(
    (await get('/api/notifications?recipientId=carol&include=content')).items[0].content,
    content,
  )
  await get(url, await t.tenant.token('carol'), 403)
  assert.equal('content' in (await get(url.split('?')[0]!)), false)
  await t.db.pool.query(`update users set data_key = null where user_id = 'carol'`)
  assert.equal((await get(url)).content, null)
})

// covers: DIC-147, DIC-140
test('cancel takes what waits, leaves what is on its way, and refuses when nothing waits', async () => {
  const plan = testPlan(tenantId, [
    {
      channels: ['in_app', 'email', 'webhook'],
      recipientId: 'dora',
      holds: [{ channel: 'webhook', until: LATER, reason: 'scheduled' }],
    },
  ])
  const [batch] = await ledger.commit([plan])
  const id = plan.notifications[0]!.id
  await post(`/api/notifications/${id}/cancel`, 404, {}, t.other.serviceKey)
  await post(`/api/notifications/${id}/cancel`, 403, {}, await t.tenant.token('dora'))
  const result = await post(`/api/notifications/${id}/cancel`)
  assert.deepEqual(result.cancelled, ['webhook'])
  assert.deepEqual(result.left, [
    { channel: 'in_app', status: 'delivered' },
    { channel: 'email', status: 'in_flight' },
  ])
  assert.equal((await post(`/api/notifications/${id}/cancel`, 409)).code, 'conflict')
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'sent')))
  assert.deepEqual(await auditLedger(t.db), [])

  const spilled = testPlan(tenantId, [{ channels: ['email'], recipientId: 'dora' }])
  await ledger.commit([spilled], { spill: true })
  const other = spilled.notifications[0]!.id
  assert.deepEqual((await post(`/api/notifications/${other}/cancel`)).cancelled, ['email'])
  assert.equal((await get(`/api/notifications/${other}`)).status, 'cancelled')
  // Nobody sends it when the backlog is worked off.
  const claimed = await ledger.claimBatches()
  assert.equal(
    claimed.some(d => d.notificationId === other),
    false,
  )
  await ledger.settle(claimed.map(d => ended(d, 'sent')))
  assert.deepEqual(await auditLedger(t.db), [])
})

// covers: ALP-078, ALP-081, ALP-082
test('an event: its status, cancelled while it waits, planned again when planning failed', async () => {
  const waiting = testPlan(tenantId, [], { planned: false })
  await ledger.commit([waiting])
  const { id } = waiting.event
  assert.equal((await get(`/api/events/status/${id}`)).status, 'PENDING')
  const remove = (as: string, event = id) => t.request('DELETE', `/api/events/${event}`, { as })
  assert.equal((await remove(t.other.adminKey)).statusCode, 404)
  await t.db.pool.query(`update planning set owner = 3 where event_id = $1`, [id])
  assert.equal((await remove(t.tenant.serviceKey)).statusCode, 409)
  assert.equal((await get(`/api/events/status/${id}`)).status, 'PROCESSING')
  await t.db.pool.query(`update planning set owner = 0 where event_id = $1`, [id])
  assert.equal((await remove(t.tenant.serviceKey)).statusCode, 204)
  assert.equal((await get(`/api/events/status/${id}`)).status, 'CANCELLED')
  assert.equal((await remove(t.tenant.serviceKey)).statusCode, 409)
  assert.equal((await get(`/api/events/${id}/explain`)).why, 'event_cancelled')
  assert.deepEqual(await auditLedger(t.db), [])

  const failing = testPlan(tenantId, [], { planned: false })
  await ledger.commit([failing])
  await post(`/api/events/retry/${failing.event.id}`, 409)
  await t.db.pool.query(`delete from planning where event_id = $1`, [failing.event.id])
  await t.db.pool.query(
    `insert into plans (tenant_id, event_id, part, outcome) values ($1, $2, 0, 'failed')`,
    [tenantId, failing.event.id],
  )
  assert.equal((await get(`/api/events/status/${failing.event.id}`)).status, 'FAILED')
  await post(`/api/events/retry/${failing.event.id}`, 404, {}, t.other.serviceKey)
  assert.equal((await post(`/api/events/retry/${failing.event.id}`, 202)).status, 'PENDING')
  assert.deepEqual(replanned, [failing.event.id])
  assert.equal((await get(`/api/events/status/${failing.event.id}`)).status, 'PENDING')
  await post(`/api/events/retry/${failing.event.id}`, 409)

  const done = testPlan(tenantId, [{ channels: ['in_app', 'email'] }])
  const [batch] = await ledger.commit([done])
  const status = async () => (await get(`/api/events/status/${done.event.id}`)).status
  assert.equal(await status(), 'PROCESSING')
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'bounced')))
  assert.equal(await status(), 'COMPLETED')
  assert.equal((await remove(t.tenant.serviceKey, done.event.id)).statusCode, 409)
  await get(`/api/events/status/${done.event.id}`, t.other.serviceKey, 404)
})

// covers: ALP-080
test('event metrics come from the counters of the tenant', async () => {
  const before = await get('/api/events/metrics')
  await ledger.commit([
    testPlan(tenantId, [], { receivedAt: new Date(Date.now() - 500) }),
    testPlan(tenantId, [], { planned: false }),
  ])
  const metrics = await get('/api/events/metrics')
  assert.equal(metrics.received, before.received + 2)
  assert.equal(metrics.processed, before.processed + 1)
  assert.equal(metrics.pending, before.pending + 1)
  assert.ok(metrics.avgProcessingMs > 0)
  assert.equal((await get('/api/events/metrics', t.other.serviceKey)).received, 0)
})

test('dead letters are listed, and a delivery is sent again once', async () => {
  const plan = testPlan(tenantId, [{ channels: ['email', 'webhook'], recipientId: 'erin' }], {
    type: 'dead.test',
  })
  const [batch] = await ledger.commit([plan])
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'failed', `code_${d.channel}`)))
  const { items } = await get('/api/dead-letters?eventType=dead.test')
  assert.equal(items.length, 2)
  const [letter] = (await get('/api/dead-letters?code=code_email&channel=email&kind=delivery')).items
  assert.deepEqual((await get('/api/dead-letters', t.other.serviceKey)).items, [])
  await post(`/api/dead-letters/${letter.id}/redrive`, 404, {}, t.other.serviceKey)

  assert.deepEqual(await post(`/api/dead-letters/${letter.id}/redrive`), { redriven: 1, notNeeded: 0 })
  await post(`/api/dead-letters/${letter.id}/redrive`, 409)
  assert.deepEqual(await auditLedger(t.db), [])
  const id = plan.notifications[0]!.id
  assert.equal((await get(`/api/notifications/${id}`)).deliveries[0].status, 'backlog')
  const jobs = await ledger.claimJobs(new Date(Date.now() + 1000))
  await ledger.settle(jobs.map(d => ended(d, 'sent')))
  const [email] = (await get(`/api/notifications/${id}`)).deliveries
  assert.deepEqual([email.status, email.attempts], ['sent', 2])

  const all = await post('/api/dead-letters/redrive', 200, { filter: { eventType: 'dead.test' }, limit: 10 })
  assert.deepEqual(all, { redriven: 1, notNeeded: 0 })
  const again = await post('/api/dead-letters/redrive', 200, { filter: { eventType: 'dead.test' } })
  assert.deepEqual(again, { redriven: 0, notNeeded: 0 })
  assert.deepEqual(await auditLedger(t.db), [])
  await post('/api/dead-letters/redrive', 400, { filter: { kind: 'event' } })

  const refused = newId()
  await t.db.pool.query(
    `insert into dead_letters (tenant_id, id, kind, code, error, payload) values ($1, $2, 'event', 'schema_violation', 'x', 'p')`,
    [tenantId, refused],
  )
  assert.deepEqual(await post(`/api/dead-letters/${refused}/redrive`), { redriven: 1, notNeeded: 0 })
  assert.deepEqual(reaccepted.map(String), ['p'])
})

// covers: DIC-155
test('why: decisions, tries, and the answer for a user who got nothing; deleted rules keep their names', async () => {
  const ruleId = newId()
  const other = newId()
  const rule = async (id: Id, name: string) =>
    (
      await t.db.pool.query<{ no: number }>(
        `insert into rules (id, tenant_id, name, channels, recipient_selector, deleted_at, enabled)
         values ($1, $2, $3, '{email}', '{}', now(), false) returning no`,
        [id, tenantId, name],
      )
    ).rows[0]!.no
  const no = await rule(ruleId, 'shipping')
  const second = await rule(other, 'vip')
  const plan = testPlan(tenantId, [{ channels: ['in_app', 'email'], recipientId: 'frank', ruleId }], {
    trace: {
      rules: [
        { r: second, v: 3, w: 'pattern_false' },
        {
          r: no,
          v: 2,
          to: [
            [0, 'frank', 0, 1],
            [0, 'gina', [0, 's', 'preference_global_off']],
          ],
        },
      ],
      more: 4,
    },
  })
  const [batch] = await ledger.commit([plan])
  await ledger.settle(ledger.deliveriesOf(batch!).map(d => ended(d, 'rejected', 'spam')))
  const event = plan.event.id

  const whole = await get(`/api/events/${event}/explain`)
  assert.equal(whole.event.status, 'COMPLETED')
  assert.equal(whole.moreRules, 4)
  assert.deepEqual(
    whole.rules.map((r: { name: string; matched: boolean; why?: string }) => [r.name, r.matched, r.why]),
    [
      ['vip', false, 'pattern_false'],
      ['shipping', true, undefined],
    ],
  )
  const [frank, gina] = whole.rules[1].recipients
  assert.equal(frank.notificationId, plan.notifications[0]!.id)
  assert.deepEqual(
    frank.deliveries.map((d: { channel: string; status: string }) => [d.channel, d.status]),
    [
      ['in_app', 'delivered'],
      ['email', 'rejected'],
    ],
  )
  assert.equal(frank.deliveries[1].attempts[0].code, 'spam')
  assert.deepEqual([gina.decisions[0].decision, gina.decisions[0].reason], ['skip', 'preference_global_off'])
  assert.deepEqual(gina.deliveries, [])

  const forGina = await get(`/api/explain?user=gina&event=${event}`, await t.tenant.token('gina'))
  assert.deepEqual(
    forGina.rules.flatMap((r: { recipients: { id: string }[] }) => r.recipients.map(to => to.id)),
    ['gina'],
  )
  const forHank = await get(`/api/explain?user=hank&event=${event}`)
  assert.equal(forHank.why, 'user_not_named')
  await get(`/api/explain?user=gina&event=${event}`, await t.tenant.token('hank'), 403)
  await get(`/api/explain?user=gina&event=${event}`, t.other.serviceKey, 404)
  await get(`/api/events/${event}/explain`, t.other.serviceKey, 404)

  const one = await get(`/api/notifications/${plan.notifications[0]!.id}/explain`)
  assert.deepEqual(
    one.rules.map((r: { id: Id; recipients: { id: string }[] }) => [r.id, r.recipients.map(to => to.id)]),
    [[ruleId, ['frank']]],
  )

  const quiet = testPlan(tenantId, [], { trace: { rules: [], w: 'no_rule_matched' } })
  const waiting = testPlan(tenantId, [], { planned: false })
  await ledger.commit([quiet, waiting])
  assert.equal((await get(`/api/explain?user=gina&event=${quiet.event.id}`)).why, 'no_rule_matched')
  assert.equal((await get(`/api/explain?user=gina&event=${waiting.event.id}`)).why, 'not_planned')
})
