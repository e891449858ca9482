import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { sql } from '../db/pool.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { deviceKeeper } from './device-keeper.ts'
import { peopleRoutes } from './routes.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [peopleRoutes] })
  await t.request('PUT', '/api/users/ann', { as: t.tenant.serviceKey, payload: {} })
  for (const [kind, token] of [
    ['fcm', 'phone'],
    ['apns', 'tablet'],
    ['web_push', 'https://push.example.org/browser'],
  ]) {
    const { statusCode, body } = await t.request('POST', '/api/users/ann/devices', {
      as: t.tenant.serviceKey,
      payload: {
        kind,
        token: kind === 'web_push' ? token : `${token}-0123456789-0123456789`,
        ...(kind === 'web_push' && {
          keys: {
            p256dh: Buffer.alloc(65, 4).toString('base64url'),
            auth: Buffer.alloc(16).toString('base64url'),
          },
        }),
      },
    })
    assert.ok(statusCode < 300, body)
  }
})
after(() => t.close())

const devices = async (): Promise<[string, Date | null][]> =>
  (
    await t.db.rows<{ kind: string; last_used_at: Date | null }>(
      sql('test_devices', 'select kind, last_used_at from devices where tenant_id = $1 order by kind'),
      [t.tenant.id],
    )
  ).map(row => [row.kind, row.last_used_at])

// covers: AUR-108, AUR-109, DIC-131
test('devices remember when something was sent to them, once an hour; those that are gone go', async () => {
  let now = new Date(Date.now() + 86_400_000)
  const keeper = deviceKeeper({ db: t.db, now: () => now, onError: error => assert.fail(error as Error) })
  keeper.reached(t.tenant.id, 'push', 'phone-0123456789-0123456789')
  keeper.reached(t.tenant.id, 'web_push', 'https://push.example.org/browser')
  keeper.reached(t.tenant.id, 'email', 'phone-0123456789-0123456789')
  await keeper.flush()
  const first = now
  const used = new Map(await devices())
  assert.deepEqual([used.get('fcm'), used.get('web_push')], [first, first])
  assert.notDeepEqual(used.get('apns'), first)

  now = new Date(now.getTime() + 60_000)
  keeper.reached(t.tenant.id, 'push', 'phone-0123456789-0123456789')
  await keeper.flush()
  assert.deepEqual(new Map(await devices()).get('fcm'), first, 'a minute later nothing is written')

  const { other } = t
  keeper.gone(other.id, 'push', 'tablet-0123456789-0123456789')
  keeper.gone(t.tenant.id, 'email', 'tablet-0123456789-0123456789')
  await keeper.flush()
  assert.equal((await devices()).length, 3, 'another tenant, or another channel, says nothing about it')
  keeper.gone(t.tenant.id, 'push', 'tablet-0123456789-0123456789')
  keeper.gone(t.tenant.id, 'web_push', 'https://push.example.org/browser')
  await keeper.stop()
  assert.deepEqual(
    (await devices()).map(([kind]) => kind),
    ['fcm'],
  )
})
