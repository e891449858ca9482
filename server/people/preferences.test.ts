import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { sql } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { effectivePreference } from './effective-preference.ts'
import { peopleFacts } from './facts.ts'
import { getPreferences, PREFERENCE_CHANNELS, putDefaults, putPreferences } from './preferences.ts'
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
          eventType: 'x',
          priority: 'NORMAL',
        })
        assert.equal(enabled, view.globalEnabled && view.channels[name]!.enabled, name)
      }
    }),
    { numRuns: 50 },
  )
})
