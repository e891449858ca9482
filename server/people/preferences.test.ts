import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { sql } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { CHANNELS, type Channel } from '../types.ts'
import { type PreferenceRow, peopleFacts } from './facts.ts'
import {
  effectivePreference,
  getPreferences,
  PREFERENCE_CHANNELS,
  putDefaults,
  putPreferences,
} from './preferences.ts'
import { upsertUsers } from './users.ts'

const sealer = openSealer(randomBytes(32).toString('hex'))
let database: TestDatabase
before(async () => {
  database = await testDatabase()
  await database.db.run(
    sql('test_tenant', `insert into tenants (id, name, data_key) values (1, 'one', $1)`),
    [sealer.newDataKey()],
  )
})
after(() => database.drop())

const row = (channel: Channel | null, enabled: boolean | null, scope = ''): PreferenceRow => ({
  scope,
  channel,
  enabled,
  settings: {},
})
const email = { channel: 'email' as const, scopes: [] }

// covers: DIC-080, ALP-119
test('a person who switched everything off gets nothing, whatever else anybody says', () => {
  const opinions = fc.array(
    fc
      .tuple(fc.constantFrom(null, ...CHANNELS), fc.constantFrom(true, false, null))
      .map(([channel, enabled]) => row(channel, enabled)),
  )
  fc.assert(
    fc.property(opinions, opinions, fc.constantFrom(...CHANNELS), (own, tenant, channel) => {
      const off = [row(null, false), ...own.filter(r => r.channel !== null)]
      assert.deepEqual(effectivePreference(off, tenant, { channel, scopes: [] }), {
        enabled: false,
        layer: 'user:global',
      })
    }),
  )
})

test('each layer has the word when those before it are silent', () => {
  assert.deepEqual(effectivePreference([], [], email), { enabled: true, layer: 'built_in' })
  assert.deepEqual(effectivePreference([], [row('email', false)], email), {
    enabled: false,
    layer: 'tenant:channel',
  })
  assert.deepEqual(effectivePreference([row('email', true)], [row('email', false)], email), {
    enabled: true,
    layer: 'user:channel',
  })
  assert.deepEqual(effectivePreference([row('email', true)], [row(null, false)], email), {
    enabled: false,
    layer: 'tenant:global',
  })
  assert.deepEqual(effectivePreference([row(null, true), row('email', false)], [row(null, false)], email), {
    enabled: false,
    layer: 'user:channel',
  })
  assert.deepEqual(effectivePreference([row(null, true)], [row(null, false)], email), {
    enabled: true,
    layer: 'built_in',
  })
  assert.deepEqual(effectivePreference([row(null, null), row('email', null)], [row('email', null)], email), {
    enabled: true,
    layer: 'built_in',
  })
  assert.deepEqual(
    effectivePreference([row('sms', false), row('email', false, 'category:x')], [row('sms', false)], email),
    { enabled: true, layer: 'built_in' },
    'other channels and other scopes say nothing about this one',
  )
})

test('what is decided by is what the person was shown: globally on and the channel on', async () => {
  const { db } = database
  const opinion = fc.constantFrom(true, false, null, undefined)
  const input = fc.record({ globalEnabled: opinion, email: opinion, webPush: opinion })
  const toInput = ({
    globalEnabled,
    ...channels
  }: {
    globalEnabled?: boolean | null
    email?: boolean | null
    webPush?: boolean | null
  }) => ({
    globalEnabled,
    channels: { email: { enabled: channels.email }, webPush: { enabled: channels.webPush } },
  })
  await db.tx(tx => upsertUsers(tx, sealer, 1, [{ userId: 'ann' }]))
  await fc.assert(
    fc.asyncProperty(input, input, async (own, tenant) => {
      await db.tx(tx => putDefaults(tx, 1, toInput(tenant)))
      await db.tx(tx => putPreferences(tx, { sealer, tenantId: 1 }, 'ann', toInput(own)))
      const view = await getPreferences(db, 1, 'ann')
      const batch = await peopleFacts({ sealer }).load(db, [{ tenantId: 1, userIds: ['ann'] }])
      for (const [name, channel] of PREFERENCE_CHANNELS) {
        const { enabled } = effectivePreference(batch.get(1, 'ann')!.preferences, batch.tenantDefaults(1), {
          channel,
          scopes: [],
        })
        assert.equal(enabled, view.globalEnabled && view.channels[name]!.enabled, name)
      }
    }),
    { numRuns: 50 },
  )
})
