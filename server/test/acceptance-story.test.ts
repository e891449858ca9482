import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { nextTime } from '../time/schedule.ts'
import { HOUR_MS, localTime } from '../time/zone.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

/**
 * The three scenes a companion must play: rain is coming, a meeting is near, and a night is not to be disturbed.
 * Maria lives in Lisbon; the product runs on a clock that we can set.
 */
const ZONE = 'Europe/Lisbon'
const MINUTE = 60_000
let t: TestApp
let aheadMs = 0

const now = () => new Date(Date.now() + aheadMs)
/** Sets the clock; real time goes on from there. */
const setClock = (at: Date) => {
  aheadMs = at.getTime() - Date.now()
}
/** The next time that Maria's clock shows this. */
const nextAt = (time: string): Date => nextTime({ daily: time, timezone: ZONE, anchorMs: 0 }, now())!

before(async () => {
  t = await testApp({}, { now })
  // A quiet afternoon.
  setClock(nextAt('14:00'))
  await call('PUT', '/api/users/maria', {
    timezone: ZONE,
    locale: 'pt-PT',
    addresses: [{ channel: 'email', address: 'maria@example.org', verified: true }],
  })
})
after(() => t.stop())

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const publish = async (type: string, data: object, more: object = {}): Promise<string> =>
  (await call('POST', '/api/events/publish', { type, data, ...more })).eventId
/** The mail of an event: how it stands, and when it goes. */
async function mailOf(event: string): Promise<Loose> {
  const { rules } = await call('GET', `/api/explain?event=${event}&user=maria`)
  return rules
    .flatMap((rule: Loose) => rule.recipients.flatMap((to: Loose) => to.deliveries))
    .find((one: Loose) => one.channel === 'email')
}
const sent = (event: string) =>
  eventually('the mail', async () => {
    const mail = await mailOf(event)
    return mail?.status === 'sent' && mail
  })
const inbox = async (): Promise<string[]> =>
  (await call('GET', '/api/notifications/feed?userId=maria')).items.map((item: Loose) => item.subject)

// covers: AUR-207
test('rain alert: a forecast above the threshold tells her to take an umbrella, once, and a dry one does not', async () => {
  await call('POST', '/api/rules', {
    name: 'Umbrella',
    eventTypes: ['weather.forecast'],
    eventPattern: 'event.data.rain >= 0.7 && event.data.city == "Lisbon"',
    channels: ['in_app', 'email'],
    recipientSelector: { users: ['maria'] },
    templateVars: { thing: 'umbrella' },
    policy: { cooldown: { seconds: 6 * 3600 } },
  })
  const forecast = (rain: number, city = 'Lisbon') =>
    publish('weather.forecast', { rain, city, title: `Rain in ${city}, take an umbrella` })
  const dry = await forecast(0.3)
  const elsewhere = await forecast(0.9, 'Porto')
  const wet = await forecast(0.8)
  await sent(wet)
  const again = await forecast(0.9)
  for (const event of [dry, elsewhere]) assert.equal(await mailOf(event), undefined)
  const { rules } = await call('GET', `/api/explain?event=${again}&user=maria`)
  assert.deepEqual(
    rules[0].recipients[0].decisions.map((one: Loose) => one.reason),
    ['cooldown', 'cooldown'],
  )
  assert.deepEqual(await inbox(), ['Rain in Lisbon, take an umbrella'])
})

// covers: AUR-207
test('meeting reminder: a quarter of an hour before, and never for a meeting that was called off', async () => {
  await call('POST', '/api/rules', {
    name: 'Meetings',
    eventTypes: ['calendar.reminder'],
    channels: ['email'],
    recipientSelector: { users: ['maria'] },
  })
  const start = new Date(now().getTime() + 2 * HOUR_MS)
  const remindAt = new Date(start.getTime() - 15 * MINUTE)
  const remind = (title: string) =>
    publish(
      'calendar.reminder',
      { title, start: start.toISOString() },
      { scheduledAt: remindAt.toISOString(), expiresAt: start.toISOString() },
    )
  const standup = await remind('Stand-up at four')
  const dropped = await remind('Review at four')
  await call('DELETE', `/api/events/${dropped}`)

  setClock(new Date(remindAt.getTime() - MINUTE))
  assert.equal(await mailOf(standup), undefined, 'a minute early nothing has come')
  setClock(remindAt)
  const mail = await sent(standup)
  assert.ok(Date.parse(mail.attempts.at(-1).at) >= remindAt.getTime())
  assert.equal(await mailOf(dropped), undefined)
})

// covers: AUR-207, AUR-090, AUR-089
test('quiet hours from 22:00 to 07:00: what happens at 23:00 goes at 07:00 of her morning, not dropped', async () => {
  await call('PUT', '/api/preferences/maria/quiet-hours', {
    enabled: true,
    startTime: '22:00',
    endTime: '07:00',
    timezone: ZONE,
  })
  await call('POST', '/api/rules', {
    name: 'News',
    eventTypes: ['news.*'],
    channels: ['in_app', 'email'],
    recipientSelector: { users: ['maria'] },
  })
  await call('POST', '/api/rules', {
    name: 'Danger',
    eventTypes: ['danger.*'],
    priority: 'CRITICAL',
    channels: ['email'],
    recipientSelector: { users: ['maria'] },
  })
  setClock(nextAt('23:00'))
  const event = await publish('news.local', { title: 'The bridge is open again' })
  const urgent = await publish('danger.flood', { title: 'The dam breaks' })
  const morning = nextAt('07:00')
  const waiting = await mailOf(event)
  assert.deepEqual(
    [waiting.status, waiting.waitsFor.reason, waiting.waitsFor.until],
    ['held', 'quiet_hours', morning.toISOString()],
  )
  assert.ok((await inbox()).includes('The bridge is open again'), 'the inbox is quiet by itself')
  await sent(urgent)

  setClock(new Date(morning.getTime() - MINUTE))
  // Whatever wakes at 06:59 has had its turn once something else has gone through.
  await sent(await publish('danger.fire', { title: 'Fire' }))
  assert.equal((await mailOf(event)).status, 'held')

  setClock(morning)
  const mail = await sent(event)
  assert.ok(Date.parse(mail.attempts.at(-1).at) >= morning.getTime())
  assert.equal(localTime(ZONE, Date.parse(mail.attempts.at(-1).at)).local.slice(11, 16), '07:00')
  assert.deepEqual(await auditLedger(t.db), [])
})
