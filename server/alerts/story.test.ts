import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  await call('PUT', '/api/users/oncall', {})
  await call('POST', '/api/rules', {
    name: 'Tell whoever is on call',
    eventTypes: ['prometheus.alert.firing', 'prometheus.alert.resolved'],
    channels: ['in_app'],
    recipientSelector: { users: ['oncall'] },
  })
})
after(() => t.stop())

async function call(method: string, path: string, body?: unknown): Promise<Loose> {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

let n = 0
/** What an Alertmanager posts; answers what was decided for whoever is on call, alert by alert. */
async function post(...alerts: { labels: Record<string, string>; status?: string; fingerprint?: string }[]) {
  const startsAt = new Date(Date.now() - 60_000 + n++).toISOString()
  const made = await t.call('POST', '/webhooks/alertmanager', {
    as: t.tenant.serviceKey,
    body: {
      version: '4',
      groupKey: '{}:{}',
      status: 'firing',
      receiver: 'carillon',
      groupLabels: {},
      externalURL: 'http://alertmanager.example',
      alerts: alerts.map(({ labels, status = 'firing', fingerprint = JSON.stringify(labels) }) => ({
        status,
        labels,
        annotations: {},
        startsAt,
        endsAt: status === 'resolved' ? new Date(Date.now() + n++).toISOString() : '0001-01-01T00:00:00Z',
        fingerprint,
      })),
    },
  })
  assert.ok(made.status < 300, made.text)
  const { rows } = await t.db.pool.query<{ id: string }>(
    'select id from events where tenant_id = $1 order by id desc limit $2',
    [t.tenant.id, alerts.length],
  )
  return Promise.all(
    rows.toReversed().map(async ({ id }) => {
      const why = await t.call('GET', `/api/explain?event=${id}&user=oncall`, { as: t.tenant.adminKey })
      assert.equal(why.status, 200, why.text)
      return why.text
    }),
  )
}

const inAnHour = () => new Date(Date.now() + 3_600_000).toISOString()

test('a silence keeps quiet what matches, says so in the explanation, and ends when it is told to', async () => {
  const silence = await call('POST', '/api/silences', {
    matchers: [
      { name: 'alertname', op: '=', value: 'DiskFull' },
      { name: 'instance', op: '=~', value: 'db[12]:.*' },
    ],
    author: 'ann',
    comment: 'The disks are being exchanged.',
    endsAt: inAnHour(),
  })
  assert.equal(silence.state, 'active')
  const [quiet, told] = await post(
    { labels: { alertname: 'DiskFull', instance: 'db1:9100' } },
    { labels: { alertname: 'DiskFull', instance: 'db3:9100' } },
  )
  assert.match(quiet!, new RegExp(`silence ${silence.id} of ann`))
  assert.match(quiet!, /silenced/)
  assert.match(told!, /"decision":"send"/)

  const later = await call('POST', '/api/silences', {
    matchers: [{ name: 'alertname', op: '=', value: 'CpuHot' }],
    author: 'ann',
    comment: 'Later',
    startsAt: new Date(Date.now() + 1_800_000).toISOString(),
    endsAt: inAnHour(),
  })
  assert.equal(later.state, 'pending')
  const [hot] = await post({ labels: { alertname: 'CpuHot' } })
  assert.doesNotMatch(hot!, /silenced/)
  await call('PATCH', `/api/silences/${later.id}`, { startsAt: new Date(Date.now() - 1).toISOString() })
  const [hotter] = await post({ labels: { alertname: 'CpuHot', n: '2' } })
  assert.match(hotter!, /silenced/)

  const ended = await call('POST', `/api/silences/${silence.id}/expire`)
  assert.equal(ended.state, 'expired')
  const [again] = await post({ labels: { alertname: 'DiskFull', instance: 'db2:9100' } })
  assert.match(again!, /"decision":"send"/)
  const states = async (state: string) =>
    (await call('GET', `/api/silences?state=${state}`)).items.map((one: Loose) => one.id)
  assert.deepEqual(await states('expired'), [silence.id])
  assert.deepEqual(await states('active'), [later.id])
  assert.deepEqual(await states('pending'), [])
  const refused = await t.call('PATCH', `/api/silences/${silence.id}`, {
    as: t.tenant.adminKey,
    body: { comment: 'again' },
  })
  assert.equal(refused.status, 409, refused.text)
})

test('while a source fires its targets are covered; when it resolves they are told again', async () => {
  const rule = {
    name: 'critical covers warning',
    sourceMatchers: [{ name: 'severity', op: '=', value: 'critical' }],
    targetMatchers: [{ name: 'severity', op: '=', value: 'warning' }],
    equal: ['cluster', 'zone'],
  }
  const made = await call('POST', '/api/inhibitions', rule)
  const source = { alertname: 'ClusterDown', severity: 'critical', cluster: 'a' }
  const warning = (cluster: string, more: object = {}) => ({
    labels: { alertname: 'Slow', severity: 'warning', cluster, n: String(n++), ...more },
  })
  const [, together] = await post({ labels: source }, warning('a'))
  assert.match(together!, /inhibited/, 'source and target of one message')
  const [covered] = await post(warning('a'))
  assert.match(covered!, /critical covers warning: ClusterDown/)
  const [elsewhere] = await post(warning('b'))
  assert.doesNotMatch(elsewhere!, /inhibited/)
  const [zoned] = await post(warning('a', { zone: 'z' }))
  assert.doesNotMatch(zoned!, /inhibited/, 'the source has no zone')

  const firing = (await call('GET', '/api/alerts?status=firing')).items as Loose[]
  assert.ok(firing.some(({ labels }) => labels['labels.alertname'] === 'ClusterDown'))
  const [over] = await post({ labels: source, status: 'resolved' })
  assert.doesNotMatch(over!, /inhibited/, 'a source is not covered by itself')
  const resolved = (await call('GET', '/api/alerts?status=resolved')).items as Loose[]
  assert.deepEqual(
    resolved.map(({ labels }) => labels['labels.alertname']),
    ['ClusterDown'],
  )
  const [free] = await post(warning('a'))
  assert.match(free!, /"decision":"send"/)

  await post({ labels: { ...source, n: '2' } })
  await call('PUT', `/api/inhibitions/${made.id}`, { ...rule, enabled: false })
  const [off] = await post(warning('a'))
  assert.doesNotMatch(off!, /inhibited/)
})

test('what cannot work is refused when it is written', async () => {
  const bad = async (path: string, body: object) => {
    const answer = await t.call('POST', path, { as: t.tenant.adminKey, body })
    assert.equal(answer.status, 400, answer.text)
    return answer.body.errors[0].field as string
  }
  const silence = {
    matchers: [{ name: 'x', op: '=', value: 'y' }],
    author: 'ann',
    comment: 'why',
    endsAt: inAnHour(),
  }
  assert.equal(
    await bad('/api/silences', { ...silence, matchers: [{ name: 'x', op: '=~', value: '[' }] }),
    '/matchers/0/value',
  )
  assert.equal(
    await bad('/api/silences', { ...silence, endsAt: new Date(Date.now() - 1000).toISOString() }),
    '/endsAt',
  )
  assert.equal(
    await bad('/api/silences', { ...silence, matchers: [{ name: 'x', op: '=~', value: '.*' }] }),
    '/matchers',
  )
  await bad('/api/silences', { ...silence, comment: '' })
  const inhibition = { name: 'x', sourceMatchers: silence.matchers, targetMatchers: silence.matchers }
  assert.equal(await bad('/api/inhibitions', { ...inhibition, equal: ['data.x'] }), '/equal/0')
  await call('POST', '/api/inhibitions', inhibition)
  const twin = await t.call('POST', '/api/inhibitions', { as: t.tenant.adminKey, body: inhibition })
  assert.equal(twin.status, 409)
})

test('alerts of a group go as one mail; what comes soon after it waits for the next', async () => {
  await call('PUT', '/api/users/grouped', {
    addresses: [{ channel: 'email', address: 'grouped@example.org', verified: true }],
  })
  await call('POST', '/api/rules', {
    name: 'grouped',
    eventTypes: ['prometheus.alert.firing', 'prometheus.alert.resolved'],
    eventPattern: 'event.data.labels.job == "grouped"',
    channels: ['email'],
    priority: 'NORMAL',
    recipientSelector: { users: ['grouped'] },
    policy: { group: { by: ['event.data.labels.cluster'], waitSeconds: 1, intervalSeconds: 2 } },
  })
  const labels = (cluster: string, alertname: string) => ({ job: 'grouped', cluster, alertname })
  const mails = async () => {
    const { items } = await call('GET', '/dev/mailbox.json')
    const mine = (items as Loose[]).filter(mail => JSON.stringify(mail).includes('grouped@example.org'))
    return Promise.all(mine.map(mail => call('GET', `/dev/mailbox.json/${mail.id}`)))
  }
  const holding = (text: string) => async () => (await mails()).find(mail => mail.text.includes(text))

  await post(
    { labels: labels('north', 'DiskFull') },
    { labels: labels('north', 'LoadHigh') },
    { labels: labels('south', 'Alone') },
  )
  const both = await eventually('the mail of the group', holding('DiskFull'))
  assert.match(both.text, /Firing: LoadHigh/)
  assert.doesNotMatch(both.text, /Alone/)
  await eventually('the mail of the other group', holding('Alone'))

  await post({ labels: labels('north', 'DiskFull'), status: 'resolved' }, { labels: labels('north', 'Late') })
  const next = await eventually('the next mail of the group', holding('Late'))
  assert.match(next.text, /Resolved: DiskFull/)
  assert.doesNotMatch(next.text, /LoadHigh/, 'told once')
  assert.equal((await mails()).length, 3)
})
