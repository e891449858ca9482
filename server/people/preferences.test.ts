import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { changeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Channel } from '../types.ts'
import { addMembers, removeMembers } from './audiences.ts'
import { effectivePreference } from './effective-preference.ts'
import { peopleFacts } from './facts.ts'
import { MESSAGE_CLASSES, scopesOf } from './preference-scopes.ts'
import { changePreferences, lockPreferences, readPreferences } from './preference-store.ts'
import {
  getPreferences,
  PREFERENCE_CHANNELS,
  putChannelSwitch,
  putDefaults,
  putPreferences,
  type PreferencesInput,
} from './preferences.ts'
import { upsertUsers } from './users.ts'

const sealer = openSealer(randomBytes(32).toString('hex'))
const by = { actor: 'user', origin: 'test' }
let database: TestDatabase
before(async () => {
  database = await testDatabase()
  await database.db.run(
    sql('test_tenant', `insert into tenants (id, name, data_key) values (1, 'one', $1)`),
    [sealer.newDataKey()],
  )
})
after(() => database.drop())

const person = (userId: string) =>
  database.db.tx(tx => upsertUsers(tx, sealer, 1, [{ userId, topics: [{ name: 'trading', level: 'ALL' }] }]))
const put = (userId: string, input: PreferencesInput) =>
  database.db.tx(tx => putPreferences(tx, { sealer, tenantId: 1 }, userId, by, input))
const receipts = (userId: string) =>
  database.db.rows<{ subject: string; was: boolean | null; is: boolean | null }>(
    sql(
      'test_receipts',
      `select subject, old_value -> 'enabled' as was, new_value -> 'enabled' as is from consents
       where tenant_id = 1 and user_id = $1 order by id`,
    ),
    [userId],
  )

// covers: ALP-119, ALP-120, ALP-121
test('what is decided by is what the person was shown: globally on, the channel on, and the class on', async () => {
  const { db } = database
  const opinion = fc.constantFrom(true, false, null, undefined)
  const classes = fc.record(
    Object.fromEntries(MESSAGE_CLASSES.map(name => [name, opinion])) as Record<
      (typeof MESSAGE_CLASSES)[number],
      typeof opinion
    >,
  )
  const channel = fc.record({ enabled: opinion, preferences: classes })
  const own = fc.record({ globalEnabled: opinion, email: channel, webPush: channel })
  const tenant = fc.record({ globalEnabled: opinion, email: opinion, webPush: opinion })
  await person('ann')
  await fc.assert(
    fc.asyncProperty(own, tenant, async ({ globalEnabled, ...channels }, defaults) => {
      await db.tx(tx =>
        putDefaults(tx, 1, {
          globalEnabled: defaults.globalEnabled,
          channels: { email: { enabled: defaults.email }, webPush: { enabled: defaults.webPush } },
        }),
      )
      await put('ann', { globalEnabled, channels })
      const view = await getPreferences(db, 1, 'ann')
      const batch = await peopleFacts({ sealer }).load(db, [{ tenantId: 1, userIds: ['ann'] }])
      for (const [name, code] of PREFERENCE_CHANNELS) {
        for (const one of MESSAGE_CLASSES) {
          const { enabled } = effectivePreference(batch.get(1, 'ann')!.preferences, batch.tenantDefaults(1), {
            channel: code,
            scopes: [`class:${one}`],
            eventType: 'x',
            priority: 'NORMAL',
          })
          const { enabled: open, preferences } = view.channels[name]!
          assert.equal(enabled, view.globalEnabled && open && preferences[one], `${name} ${one}`)
        }
      }
      // What was shown, sent back, changes nothing that is decided by.
      const { globalEnabled: on, categories, frequency, quietHours, minPriority, language, timezone } = view
      const shown = { globalEnabled: on, categories, frequency, quietHours, minPriority, language, timezone }
      const sentBack = Object.fromEntries(
        Object.entries(view.channels).map(([name, { enabled, preferences }]) => [
          name,
          { enabled, preferences },
        ]),
      )
      await put('ann', { ...shown, channels: sentBack })
      const again = await getPreferences(db, 1, 'ann')
      assert.deepEqual({ ...again, lastUpdated: null }, { ...view, lastUpdated: null })
    }),
    { numRuns: 25 },
  )
  await db.tx(tx =>
    putDefaults(tx, 1, {
      globalEnabled: null,
      channels: { email: { enabled: null }, webPush: { enabled: null } },
    }),
  )
})

// covers: DIC-185, DIC-186, DIC-187, AUR-181
test('every change of a switch about marketing leaves one receipt, in its own transaction', async () => {
  const { db } = database
  await person('bob')
  await put('bob', { channels: { email: { preferences: { marketing: true, social: true } } } })
  await put('bob', { channels: { email: { preferences: { marketing: true } } } })
  await put('bob', { categories: { MARKETING: { enabled: false }, weather: { enabled: false } } })
  await put('bob', { channels: { email: { preferences: { marketing: false } }, sms: { enabled: false } } })
  await put('bob', { globalEnabled: false })
  await assert.rejects(
    db.tx(async tx => {
      await putPreferences(tx, { sealer, tenantId: 1 }, 'bob', by, { globalEnabled: true })
      throw new Error('rolled back')
    }),
    /rolled back/,
  )
  assert.deepEqual(await receipts('bob'), [
    { subject: 'class:marketing:email', was: null, is: true },
    { subject: 'category:MARKETING', was: null, is: false },
    { subject: 'class:marketing:email', was: true, is: false },
    { subject: 'channel:sms', was: null, is: false },
    { subject: 'global', was: null, is: false },
  ])
})

// covers: ALP-122, ALP-127
test('the level of a topic holds for whoever is told directly, and a change of it is seen at once', async () => {
  const { db } = database
  await person('cara')
  const facts = peopleFacts({ sealer })
  const watch = changeWatch()
  watch.on('user', (tenantId, key) => facts.forget(tenantId, key))
  watch.onReset(() => facts.reset())
  const trading = async () => {
    await watch.look(db)
    const batch = await facts.load(db, [{ tenantId: 1, userIds: ['cara'] }])
    const found = effectivePreference(batch.get(1, 'cara')!.preferences, batch.tenantDefaults(1), {
      channel: 'email',
      scopes: scopesOf({ category: 'TRADING', eventType: 'trading.x' }),
      eventType: 'trading.x',
      priority: 'NORMAL',
    })
    return found.enabled ? (found.minPriority ?? 'all') : found.layer
  }
  const level = (to: 'ALL' | 'IMPORTANT' | 'NONE') =>
    db.tx(tx => addMembers(tx, 1, 'topic', 'trading', ['cara'], to))
  assert.equal(await trading(), 'all')
  await put('cara', { topics: { trading: 'NONE' } })
  assert.equal(await trading(), 'user:topic_level:trading')
  await level('IMPORTANT')
  assert.equal(await trading(), 'HIGH')
  await level('ALL')
  assert.equal(await trading(), 'all')
  await level('NONE')
  assert.equal(await trading(), 'user:topic_level:trading')
  await db.tx(tx => removeMembers(tx, 1, 'topic', 'trading', ['cara']))
  assert.equal(await trading(), 'all')
})

test('changes merge; what says nothing any more is gone; nobody says more than a thousand things', async () => {
  const { db } = database
  await person('dan')
  const change = (changes: Parameters<typeof changePreferences>[4]) =>
    db.tx(async tx => {
      await lockPreferences(tx, 1, 'dan')
      await changePreferences(tx, 1, 'dan', by, changes)
    })
  const rows = async () =>
    (await readPreferences(db, 1, 'dan')).map(({ scope, channel, enabled, settings }) => ({
      scope,
      channel,
      enabled,
      settings,
    }))
  const at = { scope: 'rule:r', channel: 'email' as Channel }
  await change([{ ...at, enabled: false, settings: { minPriority: 'HIGH' } }])
  const [first] = await readPreferences(db, 1, 'dan')
  await change([{ ...at, settings: { maxPerDay: 3 } }])
  assert.deepEqual(await rows(), [{ ...at, enabled: false, settings: { minPriority: 'HIGH', maxPerDay: 3 } }])
  await change([
    { ...at, enabled: null, settings: { minPriority: null } },
    { ...at, settings: { maxPerDay: 4 } },
  ])
  assert.deepEqual(await rows(), [{ ...at, enabled: null, settings: { maxPerDay: 4 } }])
  assert.equal((await readPreferences(db, 1, 'dan'))[0]!.id, first!.id)
  await change([{ ...at, settings: { maxPerDay: null } }])
  assert.deepEqual(await rows(), [])

  const many = (n: number, from = 0) =>
    Array.from({ length: n }, (_, i) => ({ scope: `rule:${from + i}`, channel: null, enabled: false }))
  await change(many(1_000))
  await assert.rejects(change(many(1, 1_000)), /at most 1000/)
  assert.equal((await rows()).length, 1_000)
})

test('writers of different surfaces at the same time lose nothing of each other', async () => {
  const { db } = database
  await person('eve')
  await Promise.all([
    put('eve', { frequency: { maxPerHour: 3 } }),
    put('eve', { minPriority: 'HIGH' }),
    put('eve', { channels: { email: { preferences: { social: false } } } }),
    db.tx(tx => putChannelSwitch(tx, 1, 'eve', 'email', false)),
    put('eve', { quietHours: { enabled: true } }),
    put('eve', { categories: { news: { enabled: false } } }),
  ])
  const view = await getPreferences(db, 1, 'eve')
  assert.equal(view.frequency.maxPerHour, 3)
  assert.equal(view.minPriority, 'HIGH')
  assert.equal(view.channels.email!.enabled, false)
  assert.equal(view.channels.email!.preferences.social, false)
  assert.equal(view.quietHours.enabled, true)
  assert.deepEqual(view.categories, { news: { enabled: false, channels: null, minPriority: null } })
})
