import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

/** Groups as Alertmanager users know them: wait, interval, repeat, and their end; on a clock that can be set. */
let t: TestApp
let aheadMs = 0
const now = () => new Date(Date.now() + aheadMs)
const wait = (seconds: number) => {
  aheadMs += seconds * 1000
}

before(async () => {
  t = await testApp({}, { now })
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
async function reader(name: string, group: object): Promise<Loose> {
  await call('PUT', `/api/users/${name}`, {
    addresses: [{ channel: 'email', address: `${name}@example.org`, verified: true }],
  })
  return call('POST', '/api/rules', {
    name,
    eventTypes: [`alert.${name}`],
    channels: ['email'],
    recipientSelector: { users: [name] },
    policy: { group: { by: ['event.data.labels.cluster'], waitSeconds: 30, intervalSeconds: 300, ...group } },
  })
}
const alert = (name: string, alertname: string, status = 'firing', more: object = {}): Promise<Loose> =>
  call('POST', '/api/events/publish', {
    type: `alert.${name}`,
    data: {
      title: `${alertname} is ${status}`,
      fingerprint: `${name} ${alertname}`,
      status,
      labels: { alertname, cluster: 'a', ...more },
    },
  })
async function mails(name: string): Promise<string[]> {
  const { items } = await call('GET', '/dev/mailbox.json')
  const mine = (items as Loose[]).filter(mail => JSON.stringify(mail).includes(`${name}@example.org`))
  const whole = await Promise.all(mine.map(mail => call('GET', `/dev/mailbox.json/${mail.id}`)))
  return whole.map(mail => `${mail.subject}\n${mail.text}`).reverse()
}
const nth = (name: string, n: number): Promise<string> =>
  eventually(`mail ${n} of ${name}`, async () => (await mails(name))[n - 1])
const digests = async (name: string): Promise<Loose[]> =>
  (await call('GET', `/api/digests?userId=${name}`)).items
const open = (name: string): Promise<Loose> =>
  eventually('the open digest', async () => (await digests(name)).find(one => one.state === 'open'))

test('what still fires is told again after its repeat interval, until all is resolved; then the group is over', async () => {
  await reader('ann', { repeatSeconds: 3600 })
  await alert('ann', 'DiskFull')
  await alert('ann', 'LoadHigh')
  wait(31)
  assert.match(await nth('ann', 1), /2 notifications[\s\S]*DiskFull is firing[\s\S]*LoadHigh is firing/)

  const waiting = await open('ann')
  assert.equal(waiting.items, 0)
  wait(3601)
  const again = await nth('ann', 2)
  assert.match(again, /DiskFull is firing[\s\S]*LoadHigh is firing/)

  await alert('ann', 'DiskFull', 'resolved')
  wait(301)
  assert.match(await nth('ann', 3), /^DiskFull is resolved/)
  wait(3601)
  const rest = await nth('ann', 4)
  assert.match(rest, /^LoadHigh is firing/, 'alone, it says again what it said')
  assert.doesNotMatch(rest, /DiskFull/)

  await alert('ann', 'LoadHigh', 'resolved')
  wait(301)
  assert.match(await nth('ann', 5), /^LoadHigh is resolved/)
  assert.ok(
    (await digests('ann')).every(one => one.state !== 'open'),
    'nothing waits any more',
  )

  // A group that is over begins anew: with its wait, not after its interval.
  const at = now().getTime()
  await alert('ann', 'CpuHot')
  const fresh = Date.parse((await open('ann')).closesAt) - at
  assert.ok(fresh > 25_000 && fresh < 200_000, `${fresh} ms`)
  wait(31)
  await nth('ann', 6)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('without a repeat interval it is told once; a rule that is switched off repeats nothing', async () => {
  await reader('bob', {})
  await alert('bob', 'DiskFull')
  wait(31)
  await nth('bob', 1)
  assert.ok((await digests('bob')).every(one => one.state !== 'open'))

  const rule = await reader('cat', { repeatSeconds: 3600 })
  await alert('cat', 'DiskFull')
  wait(31)
  await nth('cat', 1)
  await open('cat')
  await call('POST', `/api/rules/${rule.id}/disable`)
  wait(3601)
  await eventually('the end of the group', async () =>
    (await digests('cat')).every(one => one.state !== 'open'),
  )
  assert.equal((await mails('cat')).length, 1)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('an alert that ends by its own word is not told again; what is told again may be called off', async () => {
  await reader('dan', { repeatSeconds: 3600 })
  await call('POST', '/api/events/publish', {
    type: 'alert.dan',
    data: {
      title: 'Short',
      fingerprint: 'dan short',
      status: 'firing',
      endsAt: new Date(now().getTime() + 600_000).toISOString(),
      labels: { cluster: 'b' },
    },
  })
  wait(31)
  await nth('dan', 1)
  wait(3601)
  await eventually('the end of the group', async () =>
    (await digests('dan')).every(one => one.state !== 'open'),
  )
  assert.equal((await mails('dan')).length, 1)

  await alert('dan', 'Long')
  wait(31)
  await nth('dan', 2)
  const { id } = await open('dan')
  assert.equal((await call('POST', `/api/digests/${id}/cancel`)).cancelled, 0)
  wait(3601)
  await alert('dan', 'Other', 'firing', { cluster: 'c' })
  wait(31)
  assert.match(await nth('dan', 3), /^Other is firing/)
})

test('what begins to cover or silence an alert while its group waits still keeps it quiet', async () => {
  await reader('eve', {})
  await call('POST', '/api/inhibitions', {
    name: 'critical covers warning',
    sourceMatchers: [{ name: 'severity', op: '=', value: 'critical' }],
    targetMatchers: [{ name: 'severity', op: '=', value: 'warning' }],
    equal: ['cluster'],
  })
  // The target comes first, and by itself: nothing covers it yet.
  const slow = await alert('eve', 'Slow', 'firing', { severity: 'warning' })
  await alert('eve', 'Down', 'firing', { severity: 'critical' })
  wait(31)
  assert.match(await nth('eve', 1), /^Down is firing/)
  const { rules } = await call('GET', `/api/explain?event=${slow.eventId}&user=eve`)
  const [delivery] = rules.find((one: Loose) => one.matched).recipients[0].deliveries
  assert.deepEqual(
    [delivery.status, delivery.ended.reason, delivery.digest.item],
    ['suppressed', 'inhibited', 'closed'],
  )
  assert.deepEqual(await auditLedger(t.db), [])
})
