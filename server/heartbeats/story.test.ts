import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
  await call('PUT', '/api/users/olga', {})
  await call('POST', '/api/rules', {
    name: 'Tell Olga',
    eventTypes: ['carillon.heartbeat.*'],
    channels: ['in_app'],
    recipientSelector: { users: ['olga'] },
  })
})
after(() => t?.stop())

async function call(method: string, path: string, body?: unknown): Promise<Loose> {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

/** What Olga was told of, the first first: `missed nightly`. */
async function told(): Promise<string[]> {
  const { body } = await t.call('GET', '/api/notifications/feed', { as: await t.tenant.token('olga') })
  const events = await Promise.all(
    body.items.map((item: Loose) => call('GET', `/api/events/${item.eventId}/explain`)),
  )
  return events.map(({ event, ...rest }: Loose) => (event ?? rest).type.split('.').at(-1)).toReversed()
}
const status = async (name: string) => (await call('GET', `/api/heartbeats/${name}`)).status

test('a source falls silent, and is heard of again: told once each, with how it stands', async () => {
  const made = await t.call('PUT', '/api/heartbeats/nightly', {
    as: t.tenant.adminKey,
    body: {
      everySeconds: 1,
      graceSeconds: 0,
      eventTypes: ['backup.*'],
      eventSource: 'db1',
      priority: 'HIGH',
    },
  })
  assert.deepEqual([made.status, made.body.status], [201, 'new'])
  // Another source's word is not its own.
  await call('POST', '/api/events/publish', { type: 'backup.done', source: 'db2', data: {} })
  assert.equal((await call('GET', '/api/heartbeats/nightly')).lastBeatAt, null)

  assert.deepEqual(await eventually('its silence', async () => (await told()).length > 0 && told()), [
    'missed',
  ])
  assert.equal(await status('nightly'), 'down')
  const [alert] = (await call('GET', '/api/alerts?status=firing')).items
  assert.equal(alert.labels['labels.heartbeat'], 'nightly')

  // An accepted event ends it.
  await call('POST', '/api/events/publish', { type: 'backup.done', source: 'db1', data: {} })
  const { lastBeatAt } = await call('GET', '/api/heartbeats/nightly')
  assert.ok(lastBeatAt !== null, 'in the answer to the event the beat is written')
  await eventually('its return', async () => (await told())[1] === 'recovered')
  await eventually('its next silence', async () => (await told())[2] === 'missed')

  // A beat by request does, too.
  assert.equal(
    (await t.call('POST', '/api/heartbeats/nightly/beat', { as: t.tenant.serviceKey })).status,
    204,
  )
  await eventually('its second return', async () => (await told())[3] === 'recovered')
  assert.equal((await call('POST', '/api/heartbeats/nightly/pause')).status, 'paused')
  assert.equal((await call('POST', '/api/heartbeats/nightly/resume')).status, 'new')
  await call('DELETE', '/api/heartbeats/nightly')
  const beat = await t.call('POST', '/api/heartbeats/nightly/beat', { as: t.tenant.serviceKey })
  assert.deepEqual([beat.status, beat.body.code], [404, 'not_found'])
})

test('what cannot work is refused with the field; what is left open has a sensible value', async () => {
  const refused = async (body: object, name = 'x') => {
    const answer = await t.call('PUT', `/api/heartbeats/${name}`, { as: t.tenant.adminKey, body })
    assert.equal(answer.status, 400, answer.text)
    return answer.body.errors[0].field
  }
  assert.equal(await refused({ everySeconds: 0 }), '/everySeconds')
  assert.equal(await refused({ everySeconds: 1, graceSeconds: -1 }), '/graceSeconds')
  assert.equal(await refused({ everySeconds: 1, eventTypes: ['a.*.b'] }), '/eventTypes/0')
  assert.match(await refused({ everySeconds: 1 }, 'a%20b'), /name/)
  const { graceSeconds, paused } = await call('PUT', '/api/heartbeats/plain', { everySeconds: 600 })
  assert.deepEqual([graceSeconds, paused], [60, false])
  await call('PUT', '/api/heartbeats/plainer', { everySeconds: 600 })
  const page = await call('GET', '/api/heartbeats?limit=1')
  const rest = await call('GET', `/api/heartbeats?cursor=${encodeURIComponent(page.nextCursor)}`)
  assert.deepEqual(
    [...page.items, ...rest.items].map((one: Loose) => one.name),
    ['plain', 'plainer'],
  )
})

test('beats of one event batch are written with it, in many lanes at once, for each tenant its own', async () => {
  const names = ['a', 'b', 'c', 'd']
  for (const name of names) {
    await call('PUT', `/api/heartbeats/${name}`, { everySeconds: 3_600, eventTypes: [`tick.${name}`] })
  }
  await t.call('PUT', '/api/heartbeats/a', {
    as: t.other.adminKey,
    body: { everySeconds: 3_600, eventTypes: ['tick.a'] },
  })
  // In opposite orders, with keys, so that each batch is a transaction of several statements.
  await Promise.all(
    Array.from({ length: 40 }, (_, i) =>
      call('POST', '/api/events/batch', {
        events: (i % 2 ? names : names.toReversed()).map(name => ({
          type: `tick.${name}`,
          source: 'clock',
          id: `${name}${i}`,
          data: {},
        })),
      }),
    ),
  )
  for (const name of names) assert.equal(await status(name), 'up')
  const theirs = await t.call('GET', '/api/heartbeats/a', { as: t.other.adminKey })
  assert.equal(theirs.body.status, 'new')
  assert.deepEqual(await auditLedger(t.db, {}), [])
})
