import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

/** What if there were another limit, silence, inhibition, quiet hour, template …? Asked of the same recorded hour. */
let t: TestApp
const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const RULE = {
  name: 'Disks',
  eventTypes: ['ops.disk'],
  channels: ['in_app', 'email'],
  recipientSelector: { users: ['ann', 'bob'] },
  policy: { state: { key: ['event.data.labels.host'] } },
}
const alert = (severity: string, host: string, title: string) => ({
  type: 'ops.disk',
  data: { title, fingerprint: `${severity} ${host}`, status: 'firing', labels: { severity, host } },
})

before(async () => {
  t = await testApp()
  for (const who of ['ann', 'bob']) {
    await call('PUT', `/api/users/${who}`, {
      addresses: [{ channel: 'email', address: `${who}@example.org`, verified: true }],
    })
  }
  await call('POST', '/api/rules', RULE)
  for (const event of [
    alert('critical', 'a', 'Disk of a is dying'),
    alert('warning', 'a', 'Disk of a is slow'),
    alert('warning', 'b', 'Disk of b is slow'),
    // Said again: the same text.
    { ...alert('warning', 'b', 'Disk of b is slow'), type: 'ops.disk' },
  ]) {
    await call('POST', '/api/events/publish', event)
  }
  await eventually('the end of all work', async () => {
    const { rows } = await t.db.pool.query(
      'select (select count(*) from jobs) + (select count(*) from batches) as n',
    )
    return Number(rows[0].n) === 0
  })
})
after(() => t.stop())

const ask = (change: object): Promise<Loose> => call('POST', '/api/rules/replay', { since: '1h', ...change })
const totals = async (change: object): Promise<number[]> => {
  const { totals: n } = await ask(change)
  return [n.new, n.lost, n.changed, n.moved]
}
const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString()

test('a limit: what is over waits or is lost; one that is lifted gives everything back', async () => {
  const limit = { name: 'mails', scope: 'user', channels: ['email'], max: 1, window: 'day' }
  assert.deepEqual(await totals({ limits: [limit] }), [0, 0, 0, 6])
  const skip = await ask({ limits: [{ ...limit, overflow: 'skip' }] })
  assert.deepEqual(skip.totals, { new: 0, lost: 6, changed: 0, moved: 0 })
  assert.deepEqual(
    skip.users.map((one: Loose) => [one.userId, one.differences, one.byChannel]),
    ['ann', 'bob'].map(userId => [userId, 3, { email: { new: 0, lost: 3, changed: 0, moved: 0 } }]),
  )
  await call('POST', '/api/limits', { ...limit, overflow: 'skip' })
  assert.deepEqual(await totals({ withoutLimit: 'mails' }), [6, 0, 0, 0])
  assert.deepEqual(await totals({ limits: [{ ...limit, max: 2, overflow: 'skip' }] }), [2, 0, 0, 0])
  const { items } = await call('GET', '/api/limits')
  await t.call('DELETE', `/api/limits/${items[0].id}`, { as: t.tenant.adminKey })
})

test('a silence and an inhibition: who would not have been told, and who would without those in force', async () => {
  const silence = {
    matchers: [{ name: 'host', op: '=', value: 'b' }],
    author: 'ann',
    comment: 'why',
    endsAt: inAnHour(),
  }
  assert.deepEqual(await totals({ silences: [silence] }), [0, 8, 0, 0])
  const past = new Date(Date.now() - 1_800_000).toISOString()
  assert.deepEqual(await totals({ silences: [{ ...silence, endsAt: past }] }), [0, 0, 0, 0], 'over before')
  const covers = {
    name: 'critical covers warning',
    sourceMatchers: [{ name: 'severity', op: '=', value: 'critical' }],
    targetMatchers: [{ name: 'severity', op: '=', value: 'warning' }],
    equal: ['host'],
  }
  assert.deepEqual(await totals({ inhibitions: [covers] }), [0, 4, 0, 0])
  await call('POST', '/api/inhibitions', covers)
  assert.deepEqual(await totals({ withoutInhibition: covers.name }), [4, 0, 0, 0])
  assert.deepEqual(await totals({ inhibitions: [{ ...covers, equal: [] }] }), [0, 8, 0, 0])
})

test('quiet hours of everybody, another template, no repeats: moved, changed, lost', async () => {
  const clock = (date: Date) => date.toISOString().slice(11, 16)
  const from = new Date(Date.now() - 2 * 3_600_000)
  const quietHours = {
    enabled: true,
    start: clock(from),
    end: clock(new Date(from.getTime() + 12 * 3_600_000)),
    timezone: 'UTC',
  }
  const { totals: night, examples } = await ask({ defaults: [{ quietHours }] })
  assert.deepEqual([night.moved, night.lost, night.new], [6, 0, 0], 'the inbox is not moved')
  assert.ok(examples.every((one: Loose) => one.channel === 'email' && one.after.at > one.before.at))

  await call('POST', '/api/templates', { name: 'plain', channels: { default: { body: '{{data.title}}' } } })
  await call('PUT', `/api/rules/${(await call('GET', '/api/rules')).items[0].id}`, {
    ...RULE,
    templateId: 'plain',
  })
  const said = await ask({
    template: { template: 'plain', channels: { default: { body: 'Look: {{data.title}}' } } },
  })
  assert.deepEqual([said.totals.changed, said.totals.lost], [12, 0])
  assert.equal(said.examples[0].after.body, `Look: ${said.examples[0].before.body}`)

  const once = { ...RULE, templateId: 'plain', policy: { repeat: { seconds: 3600 } } }
  assert.deepEqual(await totals({ rule: once }), [0, 4, 0, 0])
  const body = 'In the second hall of our oldest centre something is not as it was before. {{data.title}}'
  await call('POST', '/api/templates', { name: 'long', channels: { default: { body } } })
  const alike = { ...RULE, templateId: 'long', policy: { similar: { seconds: 3600, threshold: 0.5 } } }
  const { lost } = (await ask({ rule: alike })).totals
  assert.ok(lost > 4, 'nearly equal texts are not said again either')
})

test('a digest that closes later has moved; it is no other digest', async () => {
  const rule = (windowSeconds: number) => ({
    ...RULE,
    name: 'Collected',
    channels: ['email'],
    policy: { digest: { windowSeconds } },
  })
  const made = await call('POST', '/api/rules', { ...rule(600), validFrom: '2020-01-01T00:00:00Z' })
  const later = await ask({ rule: rule(7200) })
  assert.deepEqual(later.totals, { new: 0, lost: 0, changed: 0, moved: 2 })
  await t.call('DELETE', `/api/rules/${made.id}`, { as: t.tenant.adminKey })
})

test('nothing is written anywhere, whatever is asked', async () => {
  const { rows } = await t.db.pool.query<{ name: string }>(
    `select c.relname as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'public' and c.relkind in ('r', 'p') and not c.relispartition order by 1`,
  )
  const counts = async () => {
    const found: Record<string, [string, string]> = {}
    for (const { name } of rows) {
      const { rows: of } = await t.db.pool.query(
        // What the rows hold as well: a counter that was raised is no more rows.
        `select count(*) as n, md5(coalesce(string_agg(x::text, '' order by x::text), '')) as sum from "${name}" x`,
      )
      found[name] = [of[0].n, of[0].sum]
    }
    return found
  }
  const before = await counts()
  assert.ok(Number(before['events']![0]) >= 4 && rows.length > 40)
  await ask({
    rule: { ...RULE, policy: { cooldown: { seconds: 60 }, digest: { windowSeconds: 60 } } },
    limits: [{ name: 'x', scope: 'user', max: 1, window: 'hour' }],
    silences: [
      { matchers: [{ name: 'host', op: '=', value: 'b' }], author: 'a', comment: 'c', endsAt: inAnHour() },
    ],
    defaults: [{ channel: 'email', enabled: false }],
  })
  const after = await counts()
  // A process says now and then that it lives, and when a key was last used.
  for (const table of ['processes', 'api_keys']) {
    delete before[table]
    delete after[table]
  }
  assert.deepEqual(after, before)
})

test('what cannot be is refused with its field', async () => {
  const field = async (change: object) => {
    const { status, body } = await t.call('POST', '/api/rules/replay', {
      as: t.tenant.adminKey,
      body: { since: '1h', ...change },
    })
    return `${status} ${body.errors?.[0]?.field}`
  }
  const matchers = [{ name: 'x', op: '=~', value: '[' }]
  const silence = { matchers: [{ name: 'x', op: '=', value: 'y' }], author: 'a', comment: 'c' }
  assert.deepEqual(
    [
      await field({ limits: [{ name: 'x', scope: 'user', max: -1, window: 'hour' }] }),
      await field({ limits: [{ name: 'x', scope: 'user', window: 'gap' }] }),
      await field({ silences: [{ ...silence, matchers, endsAt: inAnHour() }] }),
      await field({ silences: [{ ...silence, endsAt: '2001-01-01T00:00:00Z' }] }),
      await field({ inhibitions: [{ name: 'x', sourceMatchers: matchers, targetMatchers: matchers }] }),
    ],
    [
      '400 /limits/0/max',
      '400 /limits/0/gapSeconds',
      '400 /silences/0/matchers/0/value',
      '400 /silences/0/endsAt',
      '400 /inhibitions/0/sourceMatchers/0/value',
    ],
  )
})
