import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { celEvent } from './cel.ts'
import { type DryRun, type RulesDeps, rulesRoutes } from './routes.ts'
import { ruleIndex } from './rule-index.ts'

let t: TestApi
const now = new Date('2026-11-21T12:00:00.000Z')
const tried: Parameters<RulesDeps['dryRun']>[0][] = []

/** Stands for the stages behind matching: each user of the rule gets each channel. */
async function dryRun(request: Parameters<RulesDeps['dryRun']>[0]): Promise<DryRun> {
  tried.push(request)
  const { matched, considered } = ruleIndex([request.rule]).match(celEvent(request.event), request.now)
  if (matched.length === 0) {
    return { matched: false, why: considered[0]?.why, error: considered[0]?.error, recipients: [] }
  }
  return {
    matched: true,
    recipients: (request.rule.recipients.users ?? []).map(id => ({
      type: 'user',
      id,
      decisions: request.rule.channels.map(channel => ({
        channel,
        decision: 'send',
        content: { subject: 'Hello', body: 'text' },
      })),
    })),
  }
}

before(async () => {
  t = await testApi({ routes: [(api, { db }) => rulesRoutes(api, { db, dryRun, now: () => now })] })
})
after(() => t.close())

let made = 0
const least = (more: object = {}) => ({
  name: `rule ${++made}`,
  channels: ['email'],
  recipientSelector: { users: ['alice'] },
  ...more,
})

async function call(method: string, url: string, payload?: object, as = t.tenant.adminKey) {
  const response = await t.request(method, url, { as, ...(payload && { payload }) })
  return {
    status: response.statusCode,
    headers: response.headers,
    body: response.body === '' ? undefined : response.json(),
  }
}

async function create(
  more: object = {},
  as = t.tenant.adminKey,
): Promise<{ id: string } & Record<string, unknown>> {
  const { status, body } = await call('POST', '/api/rules', least(more), as)
  assert.equal(status, 201, JSON.stringify(body))
  return body
}

const insertTemplate = sql(
  'insert_test_template',
  `insert into templates (id, tenant_id, name, enabled) values ($1, $2, $3, $4)`,
)
async function template(name: string, tenantId = t.tenant.id, enabled = true): Promise<string> {
  const id = newId()
  await t.db.run(insertTemplate, [id, tenantId, name, enabled])
  return id
}

type RuleFields = Record<string, unknown>
const auditOf = (id: string) =>
  t.db.rows<{ action: string; actor_kind: string; details: { before: RuleFields; after: RuleFields } }>(
    sql(
      'audit_of_rule',
      'select action, actor_kind, details from audit where tenant_id = $1 and object_id = $2 order by id',
    ),
    [t.tenant.id, id],
  )

test('every route keeps the rules of routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

// covers: DIC-019, DIC-052, DIC-149
test('a rule with every documented field is made and read back', async () => {
  const templateId = await template('order-shipped')
  const given = {
    name: 'order-shipped-notification',
    description: 'Tells the customer',
    eventPattern: 'event.type == "commerce.order.shipped"',
    domains: ['commerce'],
    eventTypes: ['commerce.order.*'],
    priority: 'NORMAL',
    channels: ['email', 'push'],
    fallbackChannels: ['sms'],
    recipientSelector: { expression: 'event.data.customer_id' },
    schedule: { cron: '0 9 * * 1-5' },
    timezone: 'Europe/Berlin',
    batchWindowSeconds: 300,
    batchSize: 50,
    templateId,
    templateVars: { brand: 'Acme', nested: { a: [1, 'b'] } },
    category: 'orders',
    policy: {
      class: 'transactional',
      cooldown: { seconds: 3600, key: ['event.data.order_id'] },
      digest: { windowSeconds: 600, maxItems: 20, retain: 'last' },
      escalation: [{ afterSeconds: 300, unless: 'seen', channels: ['sms'] }],
    },
    enabled: true,
    validFrom: '2026-12-01T00:00:00.000Z',
    validUntil: '2027-01-01T00:00:00.000Z',
  }
  const { status, headers, body } = await call('POST', '/api/rules', given)
  assert.equal(status, 201, JSON.stringify(body))
  assert.equal(headers.location, `/api/rules/${body.id}`)
  const { id, no, createdBy, createdAt, updatedAt, warnings, ...rest } = body
  assert.ok(no > 0 && createdBy)
  assert.deepEqual([createdAt, updatedAt, warnings], [now.toISOString(), now.toISOString(), []])
  assert.deepEqual(rest, { ...given, revision: 1 })
  const read = await call('GET', `/api/rules/${id}`)
  assert.deepEqual(read.body, { ...rest, id, no, createdBy, createdAt, updatedAt })
})

// covers: DIC-021
test('the table has the documented indexes', async () => {
  const rows = await t.db.rows<{ indexdef: string }>(
    sql('indexes_of_rules', `select indexdef from pg_indexes where tablename = 'rules'`),
  )
  const has = (part: RegExp) =>
    assert.ok(
      rows.some(({ indexdef }) => part.test(indexdef)),
      String(part),
    )
  has(/WHERE \(enabled AND/)
  has(/USING gin \(domains\)/)
  has(/USING gin \(event_types\)/)
})

// covers: DIC-019
test('what is left out has its documented default', async () => {
  const rule = await create()
  assert.deepEqual(
    [
      rule.priority,
      rule.timezone,
      rule.enabled,
      rule.validFrom,
      rule.validUntil,
      rule.schedule,
      rule.templateId,
    ],
    ['NORMAL', 'UTC', true, now.toISOString(), null, null, null],
  )
})

// covers: DIC-062
test('a template is named by id or by name, and kept by id', async () => {
  const id = await template('infrastructure-alert')
  assert.equal((await create({ templateId: 'infrastructure-alert' })).templateId, id)
  assert.equal((await create({ templateId: id.toUpperCase() })).templateId, id)
  await template('theirs', t.other.id)
  for (const templateId of ['no-such-template', newId(), 'theirs']) {
    const { status, body } = await call('POST', '/api/rules', least({ templateId }))
    assert.deepEqual([status, body.code, body.errors[0].field], [400, 'invalid_rule', '/templateId'])
  }
  const off = await template('switched-off', t.tenant.id, false)
  const rule = await create({ templateId: off })
  assert.deepEqual(rule.warnings, [
    { field: '/templateId', message: 'The template is disabled' },
    { field: '/recipientSelector/users', message: 'alice: no such user, or a disabled one' },
  ])
})

// covers: DIC-059, DIC-060
test('the two documented example rules are taken as they are written', async () => {
  const alert = await template('infrastructure-alert', t.other.id)
  const pool = await create(
    {
      name: 'database-pool-exhaustion',
      eventPattern: 'event.type == "system.database.pool_exhausted"',
      priority: 'CRITICAL',
      channels: ['slack', 'email', 'pagerduty'],
      recipientSelector: { type: 'role', Roles: ['ops-team', 'on-call'] },
      templateId: 'infrastructure-alert',
    },
    t.other.adminKey,
  )
  assert.deepEqual(
    [pool.eventPattern, pool.priority, pool.channels, pool.recipientSelector, pool.templateId],
    [
      'event.type == "system.database.pool_exhausted"',
      'CRITICAL',
      ['slack', 'email', 'pagerduty'],
      { roles: ['ops-team', 'on-call'] },
      alert,
    ],
  )
  const shippedText = await template('order-shipped', t.other.id)
  const shipped = await create(
    {
      name: 'order-shipped-notification',
      domains: ['commerce'],
      priority: 'NORMAL',
      channels: ['email', 'push'],
      fallbackChannels: ['sms'],
      recipientSelector: { type: 'dynamic', Expression: 'event.data.customer_id' },
      batchWindow: '5m',
      templateId: 'order-shipped',
    },
    t.other.adminKey,
  )
  assert.deepEqual(
    [shipped.domains, shipped.priority, shipped.channels, shipped.fallbackChannels],
    [['commerce'], 'NORMAL', ['email', 'push'], ['sms']],
  )
  assert.deepEqual(
    [shipped.recipientSelector, shipped.batchWindowSeconds, shipped.templateId],
    [{ expression: 'event.data.customer_id' }, 300, shippedText],
  )
})

// covers: DIC-020
test('the four priorities are taken, and the table itself refuses a fifth', async () => {
  const set = sql('set_test_priority', 'update rules set priority = $2 where id = $1')
  for (const priority of ['CRITICAL', 'HIGH', 'NORMAL', 'LOW']) {
    const rule = await create({ priority })
    assert.equal(rule.priority, priority)
    await assert.rejects(t.db.run(set, [rule.id, 'URGENT']), { constraint: 'valid_priority' })
  }
})

// covers: DIC-055
test('the documented spellings are understood, and one comes back', async () => {
  const pool = await create({
    eventPattern: 'event.type == "system.database.pool_exhausted"',
    priority: 'CRITICAL',
    channels: ['SLACK', 'EMAIL', 'PAGERDUTY'],
    recipientSelector: { Type: 'role', Roles: ['ops-team', 'on-call'] },
  })
  assert.deepEqual([pool.priority, pool.channels], ['CRITICAL', ['slack', 'email', 'pagerduty']])
  assert.deepEqual(pool.recipientSelector, { roles: ['ops-team', 'on-call'] })
  const shipped = await create({
    domains: ['commerce'],
    priority: 'MEDIUM',
    channels: ['email', 'IN_APP', 'BROWSER_PUSH', 'in_app'],
    fallbackChannels: ['SMS', 'email'],
    recipientSelector: { type: 'dynamic', Expression: 'event.data.customer_id' },
    batchWindow: '5m',
  })
  assert.deepEqual(
    [shipped.priority, shipped.channels, shipped.fallbackChannels, shipped.batchWindowSeconds],
    ['NORMAL', ['email', 'in_app', 'web_push'], ['sms'], 300],
  )
  assert.deepEqual(shipped.recipientSelector, { expression: 'event.data.customer_id' })
  const fixed = await create({
    recipientSelector: { targets: { EMAIL: ['a@b.example'], email: ['c@d.example'] } },
  })
  assert.deepEqual(fixed.recipientSelector, { targets: { email: ['a@b.example', 'c@d.example'] } })
})

test('names that do not exist yet are a warning, those of another tenant do not count', async () => {
  const insert = sql(
    'insert_test_audience',
    `insert into audiences (tenant_id, kind, name) values ($1, 'group', 'known'), ($2, 'role', 'foreign')`,
  )
  await t.db.run(insert, [t.tenant.id, t.other.id])
  const rule = await create({
    recipientSelector: { groups: ['known', 'unknown'], roles: ['foreign'], topics: ['news'] },
  })
  assert.deepEqual(rule.warnings, [
    { field: '/recipientSelector/roles', message: 'foreign: no such role yet' },
    { field: '/recipientSelector/groups', message: 'unknown: no such group yet' },
    { field: '/recipientSelector/topics', message: 'news: no such topic yet' },
  ])
  const many = await create({ recipientSelector: { users: Array.from({ length: 500 }, (_, i) => `u${i}`) } })
  assert.equal((many.warnings as object[]).length, 21)
})

// covers: DIC-054
test('an expression that does not compile is refused with its position', async () => {
  const bad = await call(
    'POST',
    '/api/rules',
    least({ eventPattern: 'event.type == "a" &&\n event.data.n >' }),
  )
  assert.deepEqual(
    [bad.status, bad.body.code, bad.body.errors[0].field, bad.body.line, typeof bad.body.column],
    [400, 'invalid_expression', '/eventPattern', 2, 'number'],
  )
  const other = await call('POST', '/api/rules', least({ eventPattern: '1 + 1' }))
  assert.deepEqual([other.status, other.body.code], [400, 'invalid_expression'], 'a pattern is true or false')
  const selector = await call(
    'POST',
    '/api/rules',
    least({ recipientSelector: { expression: 'event.data.(' } }),
  )
  assert.deepEqual(
    [selector.status, selector.body.code, selector.body.errors[0].field],
    [400, 'invalid_expression', '/recipientSelector/expression'],
  )
})

// covers: DIC-064
test('bad input is refused under its field, and nothing is stored', async () => {
  const cases: [object, string, string?][] = [
    [{ pattern: 'true' }, 'invalid_request', '/pattern'],
    [{ recipientSelector: { users: ['a'], crowd: [] } }, 'invalid_request', '/recipientSelector/crowd'],
    [{ priority: 'URGENT' }, 'invalid_request', '/priority'],
    [{ channels: ['fax'] }, 'invalid_request', '/channels/0'],
    [{ channels: [] }, 'invalid_rule', '/channels'],
    [{ name: '  ' }, 'invalid_rule', '/name'],
    [{ recipientSelector: {} }, 'invalid_rule', '/recipientSelector'],
    [{ recipientSelector: { type: 'role', users: ['a'] } }, 'invalid_rule', '/recipientSelector/type'],
    [{ recipientSelector: { targets: { fax: ['1'] } } }, 'invalid_rule', '/recipientSelector/targets'],
    [{ recipientSelector: { targets: { constructor: [] } } }, 'invalid_rule', '/recipientSelector/targets'],
    [{ recipientSelector: { targets: { IN_APP: ['1'] } } }, 'invalid_rule', '/recipientSelector/targets'],
    [{ eventTypes: ['com*'] }, 'invalid_rule', '/eventTypes'],
    [{ schedule: { cron: '0 9 * * 1-5', interval_seconds: 5 } }, 'invalid_request'],
    [{ schedule: {} }, 'invalid_request'],
    [{ schedule: { cron: '61 9 * * 1-5' } }, 'invalid_schedule', '/schedule/cron'],
    [{ schedule: { cron: '0 0 31 2 *' } }, 'invalid_schedule', '/schedule/cron'],
    [{ schedule: { interval_seconds: 0 } }, 'invalid_request'],
    [{ timezone: 'Mars/Olympus' }, 'invalid_schedule', '/timezone'],
    [{ validUntil: '2020-01-01T00:00:00Z' }, 'invalid_rule', '/validUntil'],
    [{ validFrom: 'soon' }, 'invalid_request', '/validFrom'],
    [{ batchWindow: '5m', batchWindowSeconds: 3 }, 'invalid_rule', '/batchWindow'],
    [{ batchWindow: '900d' }, 'invalid_rule', '/batchWindowSeconds'],
    [{ templateVars: { a: 'x'.repeat(70_000) } }, 'invalid_rule', '/templateVars'],
    [
      { recipientSelector: { targets: { email: Array.from({ length: 200 }, () => 'x'.repeat(2_000)) } } },
      'invalid_rule',
      '/recipientSelector',
    ],
  ]
  const count = sql('count_test_rules', 'select count(*) as n from rules')
  const { n } = (await t.db.one<{ n: number }>(count))!
  for (const [more, code, field] of cases) {
    const { status, body } = await call('POST', '/api/rules', least(more))
    assert.deepEqual([status, body.code], [400, code], JSON.stringify(more))
    if (field !== undefined) assert.equal(body.errors[0].field, field, JSON.stringify(more))
  }
  assert.equal((await t.db.one<{ n: number }>(count))!.n, n)
  assert.equal((await call('GET', '/api/rules/not-an-id')).status, 400)
  assert.equal((await call('GET', '/api/rules?cursor=bogus')).body.code, 'invalid_cursor')
  assert.equal((await call('GET', '/api/rules?colour=red')).status, 400)
})

test('PUT replaces the whole, and who knew an older revision learns of it', async () => {
  const rule = await create({
    description: 'old',
    category: 'x',
    batchSize: 5,
    schedule: { interval_seconds: 60 },
  })
  const put = (more: object) => call('PUT', `/api/rules/${rule.id}`, least({ name: rule.name, ...more }))
  const replaced = await put({ channels: ['sms'], revision: 1 })
  assert.equal(replaced.status, 200, JSON.stringify(replaced.body))
  const { body } = replaced
  assert.deepEqual(
    [
      body.revision,
      body.channels,
      body.description,
      body.category,
      body.batchSize,
      body.schedule,
      body.validFrom,
    ],
    [2, ['sms'], '', null, null, null, rule.validFrom],
  )
  const stale = await put({ channels: ['push'], revision: 1 })
  assert.deepEqual([stale.status, stale.body.code], [409, 'conflict'])
  assert.equal((await put({ channels: ['sms'] })).body.revision, 2, 'nothing changed')
  const results = await Promise.all([
    put({ channels: ['voice'], revision: 2 }),
    put({ channels: ['push'], revision: 2 }),
  ])
  assert.deepEqual(
    results.map(({ status }) => status).toSorted((a, b) => a - b),
    [200, 409],
  )
  await Promise.all(Array.from({ length: 4 }, (_, i) => put({ description: `blind ${i}` })))
  assert.equal((await call('GET', `/api/rules/${rule.id}`)).body.revision, 7, 'no change is lost')
  assert.equal((await call('PUT', `/api/rules/${newId()}`, least())).status, 404)
})

test('PATCH changes what it names, null takes the default, and the rest is checked again', async () => {
  const rule = await create({
    description: 'keep',
    schedule: { cron: '0 9 * * *' },
    timezone: 'Europe/Berlin',
    batchWindowSeconds: 60,
    batchSize: 5,
    category: 'orders',
    templateVars: { a: 1 },
    validFrom: '2026-12-01T00:00:00.000Z',
    validUntil: '2027-01-01T00:00:00.000Z',
  })
  const patch = (body: object) => call('PATCH', `/api/rules/${rule.id}`, body)
  const first = await patch({ priority: 'HIGH', batchWindow: '2m' })
  assert.deepEqual(first.body, {
    ...rule,
    priority: 'HIGH',
    batchWindowSeconds: 120,
    revision: 2,
    updatedAt: first.body.updatedAt,
  })
  const cleared = (
    await patch({
      schedule: null,
      batchWindowSeconds: null,
      batchSize: null,
      category: null,
      validUntil: null,
    })
  ).body
  assert.deepEqual(
    [cleared.schedule, cleared.batchWindowSeconds, cleared.batchSize, cleared.category, cleared.validUntil],
    [null, null, null, null, null],
  )
  assert.deepEqual([cleared.validFrom, cleared.templateVars], [rule.validFrom, { a: 1 }])
  const early = await patch({ validUntil: '2026-11-30T00:00:00Z' })
  assert.deepEqual(
    [early.status, early.body.errors[0].field],
    [400, '/validUntil'],
    'against the stored validFrom',
  )
  assert.equal((await patch({ priority: 'LOW', revision: 1 })).status, 409)
  assert.equal((await patch({ eventPattern: 'nonsense(' })).body.code, 'invalid_expression')
  assert.equal((await patch({})).status, 400)
  assert.equal((await call('GET', `/api/rules/${rule.id}`)).body.revision, 3)
})

test('a rule is stopped and started, also one that today would be refused', async () => {
  const rule = await create()
  await t.db.run(sql('break_test_rule', `update rules set event_pattern = 'nonsense(' where id = $1`), [
    rule.id,
  ])
  assert.equal((await call('PATCH', `/api/rules/${rule.id}`, { priority: 'LOW' })).status, 400)
  const off = await call('POST', `/api/rules/${rule.id}/disable`)
  assert.deepEqual([off.status, off.body.enabled, off.body.revision], [200, false, 2])
  assert.equal((await call('POST', `/api/rules/${rule.id}/disable`)).body.revision, 2, 'it was so already')
  assert.equal((await call('POST', `/api/rules/${rule.id}/enable`)).body.enabled, true)
  assert.deepEqual(
    (await auditOf(rule.id)).map(({ action }) => action),
    ['rule.created', 'rule.disabled', 'rule.enabled'],
  )
})

// covers: DIC-155
test('a deleted rule is gone from the API, kept in the database, and its name is free', async () => {
  const rule = await create()
  assert.equal((await call('DELETE', `/api/rules/${rule.id}`)).status, 204)
  for (const [method, path, body] of [
    ['GET', ''],
    ['DELETE', ''],
    ['PUT', '', least()],
    ['PATCH', '', { priority: 'LOW' }],
    ['POST', '/enable'],
  ] as const) {
    assert.equal((await call(method, `/api/rules/${rule.id}${path}`, body)).status, 404, method)
  }
  const stored = sql(
    'deleted_test_rule',
    'select enabled, deleted_at is not null as gone from rules where id = $1',
  )
  assert.deepEqual(await t.db.one(stored, [rule.id]), { enabled: false, gone: true })
  await create({ name: rule.name })
})

test('a name is used once in a tenant', async () => {
  const one = await create()
  const two = await create()
  const again = await call('POST', '/api/rules', least({ name: one.name }))
  assert.deepEqual(
    [again.status, again.body.code, again.body.errors[0].field],
    [409, 'already_exists', '/name'],
  )
  assert.equal((await call('PATCH', `/api/rules/${two.id}`, { name: one.name })).status, 409)
  assert.equal((await call('GET', `/api/rules/${two.id}`)).body.revision, 1)
  await create({ name: one.name }, t.other.adminKey)
})

test('the audit shows who changed what, before and after', async () => {
  const rule = await create({ priority: 'LOW' })
  await call('PATCH', `/api/rules/${rule.id}`, { priority: 'HIGH', category: 'orders' })
  await call('DELETE', `/api/rules/${rule.id}`)
  const rows = await auditOf(rule.id)
  assert.deepEqual(
    rows.map(({ action, actor_kind }) => [action, actor_kind]),
    [
      ['rule.created', 'key'],
      ['rule.updated', 'key'],
      ['rule.deleted', 'key'],
    ],
  )
  assert.equal(rows[0]!.details.after.priority, 'LOW')
  assert.deepEqual(rows[1]!.details, {
    revision: 2,
    before: { priority: 'LOW', category: null },
    after: { priority: 'HIGH', category: 'orders' },
  })
  assert.equal(rows[2]!.details.before.name, rule.name)
})

// covers: DIC-149
test('lists are filtered and paged, newest first', async () => {
  const mark = 'listed-here'
  const a = await create({
    category: mark,
    domains: ['sales'],
    eventTypes: ['sales.*'],
    description: '100% OF it',
  })
  const b = await create({
    category: mark,
    enabled: false,
    priority: 'HIGH',
    eventTypes: ['sales.won', 'sales.*'],
  })
  const c = await create({ category: mark, name: 'The Third' })
  const ids = async (query: string) =>
    (await call('GET', `/api/rules?category=${mark}${query}`)).body.items.map(
      (item: { id: string }) => item.id,
    )
  assert.deepEqual(await ids(''), [c.id, b.id, a.id])
  assert.deepEqual(await ids('&enabled=false'), [b.id])
  assert.deepEqual(await ids('&eventType=sales.*'), [b.id, a.id])
  assert.deepEqual(await ids('&eventType=sales.won'), [b.id])
  assert.deepEqual(await ids('&domain=sales'), [a.id])
  assert.deepEqual(await ids('&priority=MEDIUM'), [c.id, a.id])
  assert.deepEqual(await ids('&text=third'), [c.id])
  assert.deepEqual(await ids('&text=0%25%20of'), [a.id])
  assert.deepEqual(await ids('&text=1%25%20of'), [], '% is a letter here')
  const first = await call('GET', `/api/rules?category=${mark}&limit=2`)
  assert.equal(first.body.items.length, 2)
  const rest = await call('GET', `/api/rules?category=${mark}&limit=2&cursor=${first.body.nextCursor}`)
  assert.deepEqual(
    [rest.body.items.map((item: { id: string }) => item.id), rest.body.nextCursor],
    [[a.id], null],
  )
})

test('no route shows or changes the rules of another tenant', async () => {
  const rule = await create({ category: 'mine-alone' })
  const theirs = t.other.adminKey
  for (const [method, path, body] of [
    ['GET', ''],
    ['PUT', '', least()],
    ['PATCH', '', { priority: 'LOW' }],
    ['DELETE', ''],
    ['POST', '/enable'],
    ['POST', '/disable'],
  ] as const) {
    const { status, body: problem } = await call(method, `/api/rules/${rule.id}${path}`, body, theirs)
    assert.deepEqual([status, problem.code], [404, 'not_found'], `${method} ${path}`)
  }
  assert.deepEqual((await call('GET', '/api/rules?category=mine-alone', undefined, theirs)).body.items, [])
  const { body: unchanged } = await call('GET', `/api/rules/${rule.id}`)
  assert.deepEqual({ ...unchanged, warnings: rule.warnings }, rule)
})

test('keys need their scope, and users have no business here', async () => {
  const reader = await t.tenant.scopedKey('service', ['rules:read'])
  assert.equal((await call('GET', '/api/rules', undefined, reader)).status, 200)
  assert.equal((await call('POST', '/api/rules', least(), reader)).status, 403)
  assert.equal(
    (await call('POST', '/api/rules/test', { rule: least(), event: { type: 'a' } }, reader)).status,
    403,
  )
  assert.equal((await call('GET', '/api/rules', undefined, await t.tenant.token('alice'))).status, 403)
})

test('a rule cannot begin to use a template that is being deleted', async () => {
  const id = await template('on its way out')
  const client = await t.db.pool.connect()
  try {
    await client.query('begin')
    await client.query('select from templates where id = $1 for update', [id])
    const creating = call('POST', '/api/rules', least({ templateId: id }))
    const waiting = sql(
      'waiting_for_test_template',
      `select count(*) as n from pg_stat_activity where wait_event_type = 'Lock' and query like '%lock_template_of_rule%'`,
    )
    for (const deadline = Date.now() + 10_000; ; ) {
      if ((await t.db.one<{ n: number }>(waiting))!.n > 0) break
      assert.ok(Date.now() < deadline, 'the rule waits for the deletion')
    }
    await client.query('update templates set deleted_at = now() where id = $1', [id])
    await client.query('commit')
    const { status, body } = await creating
    assert.deepEqual([status, body.errors[0].field], [400, '/templateId'])
  } finally {
    await client.query('rollback')
    client.release()
  }
})

test('a draft is tried on an event, with nothing stored', async () => {
  const count = sql('count_tried', 'select (select count(*) from rules) + (select count(*) from audit) as n')
  const before = await t.db.one(count)
  const templateId = await template('for trying')
  const rule = {
    eventPattern: 'event.data.total > 100 && event.source == "shop"',
    channels: ['EMAIL'],
    recipientSelector: { users: ['alice'] },
    priority: 'MEDIUM',
    templateId: 'for trying',
  }
  const event = { type: 'commerce.order.shipped', source: 'shop', data: { total: 250 } }
  const hit = await call('POST', '/api/rules/test', { rule, event })
  assert.equal(hit.status, 200, JSON.stringify(hit.body))
  assert.deepEqual(hit.body, {
    matched: true,
    recipients: [
      {
        type: 'user',
        id: 'alice',
        decisions: [{ channel: 'email', decision: 'send', content: { subject: 'Hello', body: 'text' } }],
      },
    ],
    warnings: [{ field: '/recipientSelector/users', message: 'alice: no such user, or a disabled one' }],
  })
  const request = tried.at(-1)!
  assert.deepEqual(
    [request.tenantId, request.event.tenantId, request.rule.tenantId, request.now],
    [t.tenant.id, t.tenant.id, t.tenant.id, now],
  )
  assert.deepEqual(
    [request.rule.templateId, request.rule.priority, request.event.time],
    [templateId, 'NORMAL', now],
  )

  const miss = await call('POST', '/api/rules/test', { rule, event: { ...event, data: { total: 5 } } })
  assert.deepEqual([miss.body.matched, miss.body.why, miss.body.recipients], [false, 'pattern_false', []])
  const broken = await call('POST', '/api/rules/test', { rule, event: { ...event, data: {} } })
  assert.equal(broken.body.matched, false)
  assert.equal(broken.body.why, 'pattern_error')
  assert.ok(broken.body.error)

  const bad = await call('POST', '/api/rules/test', { rule: { ...rule, eventPattern: 'event.(' }, event })
  assert.deepEqual(
    [bad.status, bad.body.code, bad.body.errors[0].field, bad.body.line],
    [400, 'invalid_expression', '/rule/eventPattern', 1],
  )
  const unknown = await call('POST', '/api/rules/test', { rule: { ...rule, templateId: 'none' }, event })
  assert.equal(unknown.body.errors[0].field, '/rule/templateId')
  // The same template, asked for from another tenant.
  const foreign = await call('POST', '/api/rules/test', { rule, event }, t.other.adminKey)
  assert.deepEqual([foreign.status, foreign.body.errors[0].field], [400, '/rule/templateId'])
  assert.equal(
    (await call('POST', '/api/rules/test', { rule, event: { ...event, tenantId: 2 } })).status,
    400,
  )
  assert.equal((await call('POST', '/api/rules/test', { rule })).status, 400)
  assert.deepEqual(await t.db.one(count), before)
})
