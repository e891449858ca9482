import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { startApp } from '../app.ts'
import { loadConfig } from '../config.ts'
import { createLogger } from '../observe/log.ts'
import { type Loose, type TestApp, testApp } from '../test/app.ts'

/** Preferences through the whole product: written at one surface, by one process; decided by in another. */
let t: TestApp
let other: Awaited<ReturnType<typeof startApp>>
let folder: string

before(async () => {
  const environment = { CARILLON_MASTER_KEY: randomBytes(32).toString('hex'), MAILBOX_PORT: '0', PORT: '0' }
  folder = await mkdtemp(join(tmpdir(), 'carillon-preferences-'))
  t = await testApp(environment)
  other = await startApp({
    config: loadConfig({ ...environment, LOG_LEVEL: 'error', CARILLON_DATA_DIR: folder }),
    databaseUrl: t.databaseUrl,
    log: createLogger({ level: 'error' }),
  })
})
after(async () => {
  await other?.stop()
  await t?.stop()
  if (folder) await rm(folder, { recursive: true, force: true })
})

async function call(method: string, path: string, body?: unknown, as = t.tenant.adminKey): Promise<Loose> {
  const answer = await t.call(method, path, { as, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}

/** An event at the other process, and what was decided about alice's mail, with the layer. */
async function told(type: string, category?: string): Promise<string> {
  const response = await fetch(`${other.url}/api/events/publish`, {
    method: 'POST',
    headers: { authorization: `Bearer ${t.tenant.adminKey}`, 'content-type': 'application/json' },
    body: JSON.stringify({ type, category, data: { body: 'Hello' } }),
  })
  const { eventId } = (await response.json()) as { eventId: string }
  assert.ok(eventId, 'the event was taken')
  const { rules } = await call('GET', `/api/explain?event=${eventId}&user=alice`)
  const [{ decisions }] = rules.find((rule: Loose) => rule.matched).recipients
  const mail = decisions.find((one: Loose) => one.channel === 'email')
  return mail.decision === 'send' ? 'send' : `${mail.reason} ${mail.detail}`
}

// covers: AUR-049, AUR-080, AUR-081, DIC-080, DIC-081, DIC-186, ALP-061, ALP-119, ALP-121, PRO-072
test('a choice made here holds for the next event there, and the trace names the layer that decided', async () => {
  const address = { channel: 'email', address: 'alice@example.org', verified: true }
  await call('PUT', '/api/users/alice', { addresses: [address] })
  const rule = { channels: ['email'], recipientSelector: { users: ['alice'] } }
  await call('POST', '/api/rules', {
    ...rule,
    name: 'Weather',
    eventTypes: ['weather.*'],
    category: 'weather',
  })
  await call('POST', '/api/rules', {
    ...rule,
    name: 'Offers',
    eventTypes: ['offer.*'],
    category: 'MARKETING',
  })
  const alice = await t.tenant.token('alice')

  assert.equal(await told('weather.rain'), 'send')
  await call('PUT', '/api/users/alice/preferences', { categories: { weather: { enabled: false } } }, alice)
  assert.equal(await told('weather.rain'), 'preference_category_off user:category:weather')
  await call('PUT', '/api/preferences/alice', { categories: { weather: null } }, alice)
  assert.equal(await told('weather.rain'), 'send')

  await call(
    'PUT',
    '/api/notifications/preferences',
    { channel: 'email', settings: { enabled: false } },
    alice,
  )
  assert.equal(await told('weather.rain'), 'preference_channel_off user:email')
  await call('POST', '/api/preferences/alice/channels', { channel: 'email', enabled: true }, alice)
  assert.equal(await told('weather.rain'), 'send')

  assert.equal(await told('offer.made'), 'no_consent built_in:class:marketing')
  await call('POST', '/api/users/alice/consents', { granted: true, channel: 'email', origin: 'shop' })
  assert.equal(await told('offer.made'), 'send')

  const owed = { scope: 'category:weather', mode: 'REQUIRED' }
  await call('PUT', '/api/preferences/alice', { globalEnabled: false }, alice)
  assert.equal(await told('weather.rain'), 'preference_global_off user:global')
  await call('PUT', '/api/preferences/defaults/opinions', owed)
  assert.equal(await told('weather.rain'), 'send')
  assert.equal(await told('offer.made'), 'preference_global_off user:global')
  const until = new Date(Date.now() + 3_600_000).toISOString()
  await call('PUT', '/api/preferences/alice', { globalEnabled: true }, alice)
  await call('PUT', '/api/preferences/alice/mute', { until }, alice)
  assert.equal(await told('offer.made'), `muted user:global until ${until}`)
})
