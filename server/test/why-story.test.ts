import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { explain } from '../../cli/why.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

/** "Why?" asked at every door, of everything that may have had the word: a layer, a counter, a silence, a digest … */
let t: TestApp
before(async () => {
  t = await testApp()
  for (const name of ['ann', 'bob', 'cat']) {
    await call('PUT', `/api/users/${name}`, {
      locale: name === 'bob' ? 'pt-BR' : name === 'cat' ? 'zh-CN' : 'en',
      addresses: [{ channel: 'email', address: `${name}@example.org`, verified: true }],
    })
  }
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> => {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const rule = (name: string, more: object = {}): Promise<Loose> =>
  call('POST', '/api/rules', {
    name,
    eventTypes: [name],
    channels: ['email'],
    recipientSelector: { expression: 'event.data.who' },
    ...more,
  })
const publish = async (type: string, who: string, data: object = {}): Promise<string> =>
  (await call('POST', '/api/events/publish', { type, data: { who, title: `${type} for ${who}`, ...data } }))
    .eventId
const whyFor = (event: string, user: string): Promise<Loose> =>
  call('GET', `/api/explain?event=${event}&user=${user}`)
const mine = async (event: string, user: string): Promise<Loose> =>
  call('GET', `/api/me/explain?event=${event}`, undefined, await t.tenant.token(user))
const part = (whole: Loose): Loose => whole.rules.find((one: Loose) => one.matched).recipients[0]

test('a preference: the layer that had the word, and to its reader whose word it was', async () => {
  await rule('why.pref', { category: 'news' })
  await call('PUT', '/api/preferences/ann/opinions', { scope: 'category:news', enabled: false })
  const event = await publish('why.pref', 'ann')
  const [decision] = part(await whyFor(event, 'ann')).decisions
  assert.deepEqual(
    [decision.decision, decision.reason, decision.because],
    ['skip', 'preference_category_off', { layer: 'user:category:news' }],
  )
  const own = (await mine(event, 'ann')).channels[0]
  assert.equal(own.layer, 'user:category:news')
  assert.match(own.text, /switched off for you\. You chose this in your settings\.$/)
})

test('a limit: its counter as it stood, when the message goes, and the same in Portuguese', async () => {
  await rule('why.limit')
  await call('POST', '/api/limits', {
    name: 'mails',
    scope: 'user',
    channels: ['email'],
    max: 1,
    window: 'day',
  })
  await publish('why.limit', 'bob')
  const second = await publish('why.limit', 'bob')
  const { decisions, deliveries } = part(await whyFor(second, 'bob'))
  assert.deepEqual(decisions[0].because.counter, { limit: 'mails', used: 1, max: 1, window: 'day' })
  assert.deepEqual([deliveries[0].status, deliveries[0].waitsFor.kind], ['held', 'held'])
  assert.equal(deliveries[0].waitsFor.until, decisions[0].until)
  const own = (await mine(second, 'bob')).channels[0]
  assert.deepEqual(own.counter, { used: 1, max: 1, window: 'day' })
  assert.match(own.text, /chegará por e-mail às .*\. Já foram usadas 1 de 1 nesse dia\./)
  const { items } = await call('GET', '/api/limits')
  await call('PUT', `/api/limits/${items[0].id}`, {
    name: 'mails',
    scope: 'user',
    channels: ['email'],
    max: 1,
    window: 'day',
    enabled: false,
  })
})

test('a silence and an inhibition: which one, whose, why and until when; the reader learns neither name', async () => {
  await rule('why.alert')
  const endsAt = new Date(Date.now() + 3_600_000).toISOString()
  const silence = await call('POST', '/api/silences', {
    matchers: [{ name: 'data.disk', op: '=', value: 'sda' }],
    author: 'ops-ann',
    comment: 'Being exchanged',
    endsAt,
  })
  const event = await publish('why.alert', 'ann', { disk: 'sda' })
  const whole = await whyFor(event, 'ann')
  assert.deepEqual(part(whole).decisions[0].because, {
    silence: { id: silence.id, author: 'ops-ann', comment: 'Being exchanged', endsAt },
  })
  assert.match(
    explain(whole),
    /An operator silenced it \(silenced\): silence .* of ops-ann {2}“Being exchanged”/,
  )
  const asAnn = await t.tenant.token('ann')
  const own = await call('GET', `/api/explain?event=${event}&user=ann`, undefined, asAnn)
  for (const hers of [await mine(event, 'ann'), own]) {
    assert.match(JSON.stringify(hers), /silenced/)
    assert.doesNotMatch(JSON.stringify(hers), /ops-ann|exchanged/)
  }

  await call('POST', '/api/inhibitions', {
    name: 'critical covers warning',
    sourceMatchers: [{ name: 'severity', op: '=', value: 'critical' }],
    targetMatchers: [{ name: 'severity', op: '=', value: 'warning' }],
    equal: ['host'],
  })
  const alert = (severity: string) =>
    publish('why.alert', 'ann', {
      fingerprint: severity,
      status: 'firing',
      labels: { alertname: `${severity} load`, severity, host: 'a' },
    })
  await alert('critical')
  const covered = part(await whyFor(await alert('warning'), 'ann')).decisions[0]
  assert.deepEqual(covered.because, {
    inhibition: { name: 'critical covers warning', alert: 'critical load (alert:critical)' },
  })
})

test('a digest: which one, when it closes, and the message it became', async () => {
  const key = { key: ['event.data.city'], windowSeconds: 3600, single: 'digest' }
  await rule('why.digest', { policy: { digest: key } })
  const first = await publish('why.digest', 'cat', { city: 'Rome' })
  await publish('why.digest', 'cat', { city: 'Rome' })
  const waiting = part(await whyFor(first, 'cat'))
  const { digest, waitsFor } = waiting.deliveries[0]
  assert.deepEqual([digest.state, digest.item, digest.items, digest.eventId], ['open', 'collected', 2, null])
  assert.match(digest.key, /\["Rome"\]$/)
  assert.deepEqual([waitsFor.kind, waitsFor.until], ['collected', digest.closesAt])
  const own = (await mine(first, 'cat')).channels[0]
  assert.deepEqual([own.state, own.reason, own.at], ['waiting', 'digest', digest.closesAt])
  assert.match(own.text, /^消息已汇总，将于.*与其他消息一起通过电子邮件发送。$/)

  await call('POST', `/api/digests/${digest.id}/release`)
  const after = await eventually('the mail of the digest', async () => {
    const one = part(await whyFor(first, 'cat')).deliveries[0]
    return one.digest.message?.status === 'sent' && one
  })
  assert.deepEqual(
    [after.status, after.digest.item, after.ended.reason],
    ['suppressed', 'closed', 'in_digest'],
  )
  assert.ok(after.digest.closedAt)
  const went = (await mine(first, 'cat')).channels[0]
  assert.deepEqual([went.state, went.reason], ['sent', 'in_digest'])
  const ofNotification = await call('GET', `/api/notifications/${waiting.notificationId}/explain`)
  assert.equal(part(ofNotification).deliveries[0].digest.id, digest.id)
  const said = explain(await whyFor(first, 'cat'))
  assert.match(said, new RegExp(`digest ${digest.id} +2 items under .*, closed 20`))
  assert.match(said, new RegExp(`→ ${after.digest.message.notificationId} +sent`))
})

test('an escalation: what it waits for, until when, and what stopped it', async () => {
  await rule('why.step', {
    channels: ['in_app'],
    policy: { escalation: [{ afterSeconds: 3600, unless: 'acknowledged', channels: ['email'] }] },
  })
  const event = await publish('why.step', 'ann')
  const { decisions, deliveries, notificationId } = part(await whyFor(event, 'ann'))
  const mail = (list: Loose[]) => list.find(one => one.channel === 'email')
  assert.deepEqual(
    [mail(decisions).reason, mail(decisions).detail, mail(deliveries).waitsFor.kind],
    ['escalation', 'unless acknowledged', 'escalation'],
  )
  assert.equal(mail(deliveries).waitsFor.until, mail(decisions).until)
  await call('POST', `/api/notifications/${notificationId}/acknowledge`)
  const stopped = await eventually('the end of the mail', async () => {
    const one = mail(part(await whyFor(event, 'ann')).deliveries)
    return one.status === 'cancelled' && one.ended && one
  })
  assert.deepEqual([stopped.status, stopped.ended.reason], ['cancelled', 'acknowledged'])
  const own = mail((await mine(event, 'ann')).channels)
  assert.deepEqual([own.state, own.text], ['not_sent', 'Somebody took care of it, so e-mail was not needed.'])
})

test('somebody nobody named, a rule that said no, and an event that no rule took', async () => {
  await rule('why.no', { eventPattern: 'event.data.n > 5' })
  await rule('why.no too', { eventTypes: ['why.no'], eventPattern: 'event.data.n > 1' })
  const some = await publish('why.no', 'ann', { n: 3 })
  const cat = await whyFor(some, 'cat')
  assert.equal(cat.why, 'user_not_named')
  assert.deepEqual(
    cat.rules.map((one: Loose) => [one.name, one.matched, one.why]),
    [
      ['why.no', false, 'pattern_false'],
      ['why.no too', true, undefined],
    ],
  )
  assert.match(explain(cat), /named this user \(user_not_named\)/)
  const nothing = await publish('why.no', 'ann', { n: 0 })
  assert.equal((await whyFor(nothing, 'ann')).why, 'no_rule_matched')
  assert.match(
    explain(await call('GET', `/api/events/${nothing}/explain`)),
    /– rule why\.no\n {6}The rule's pattern is false for this event/,
  )
})

test('any rule may be asked why it takes an event or does not, part by part, also one that came nowhere near', async () => {
  await rule('why.near', {
    eventPattern: 'event.data.n > 5 && (event.data.who == "ann" || event.data.m > 1)',
  })
  await rule('why.far', { eventTypes: ['elsewhere.*'] })
  const event = await publish('why.near', 'ann', { n: 3 })
  const ask = (name: string) => call('GET', `/api/events/${event}/explain?rule=${name}`)
  const near = (await ask('why.near')).rule
  assert.deepEqual([near.matches, near.revision, near.plannedRevision], [false, 1, 1])
  assert.deepEqual(near.terms, [
    { source: 'event.data.n > 5', holds: false },
    { source: 'event.data.who == "ann" || event.data.m > 1', holds: true },
  ])
  const failed = (answer: Loose) => answer.checks.filter((one: Loose) => !one.holds)
  assert.deepEqual(failed(near), [
    { check: 'pattern', holds: false, text: 'The pattern is false: event.data.n > 5' },
  ])
  const whole = await ask('why.far')
  assert.deepEqual(
    [whole.rule.plannedRevision, failed(whole.rule).map((one: Loose) => one.text)],
    [null, ['It takes elsewhere.*; the event is why.near']],
  )
  assert.match(explain(whole), /why\.far does not take this event \(it was not asked/)
  const nobody = await t.call('GET', `/api/events/${event}/explain?rule=nobody`, { as: t.tenant.adminKey })
  assert.deepEqual([nobody.status, nobody.body.errors[0].field], [404, '/rule'])
})

// covers: DIC-084
test('what a message is filed under: what the request says, else the rule, else the first word of the type', async () => {
  const filed = async (path: string, body: object): Promise<string> => {
    const { eventId } = await call('POST', path, body)
    const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
    return items[0].category
  }
  const send = { recipientId: 'bob', channels: ['in_app'], body: 'x' }
  await rule('filed.ruled', { category: 'weather' })
  await rule('filed.plain')
  const event = (type: string) => ({ type, data: { who: 'ann' } })
  assert.deepEqual(
    [
      await filed('/api/notifications', { ...send, metadata: { category: 'news' } }),
      await filed('/api/events/publish', event('filed.ruled')),
      await filed('/api/events/publish', event('filed.plain')),
    ],
    ['news', 'weather', 'filed'],
  )
})
