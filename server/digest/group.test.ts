import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { collectScript } from '../ledger/collect.ts'
import type { PlannedNotification } from '../ledger/plan.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { digestWish } from './wish.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

const START = Date.parse('2026-03-29T00:00:00Z')
let people = 0

const arrivals = fc.array(
  fc.record({
    /** Seconds since the one before. */
    after: fc.oneof(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 2_000 })),
    group: fc.constantFrom('a', 'b'),
  }),
  { minLength: 1, maxLength: 12 },
)

test('law: each alert of a group is told once, in time, and messages of a group keep their interval', async () => {
  const { pool } = database.db
  await fc.assert(
    fc.asyncProperty(
      arrivals,
      fc.integer({ min: 0, max: 60 }),
      fc.integer({ min: 1, max: 600 }),
      async (alerts, waitSeconds, intervalSeconds) => {
        const recipientId = `person-${people++}`
        /** What the closer does at the instant it is due. */
        const closeUntil = (ms: number) =>
          pool.query(
            `update digests set state = 'closed', closed_at = closes_at
             where recipient_id = $1 and state = 'open' and closes_at <= $2`,
            [recipientId, new Date(ms)],
          )
        const came = new Map<string, { ms: number; group: string }>()
        let ms = START
        for (const { after: seconds, group } of alerts) {
          ms += seconds * 1000
          await closeUntil(ms)
          const wish = digestWish(
            {
              ruleId: '01890a5d-ac96-774b-bcce-b302099a8057',
              eventType: 'prometheus.alert.firing',
              policy: { group: { by: ['x'], waitSeconds, intervalSeconds } },
              key: group,
              preference: null,
              channel: 'email',
              zone: 'UTC',
            },
            new Date(ms),
          )!
          const id = newId(ms)
          const notification = { id, tenantId: 1, recipientType: 'user', recipientId } as const
          const collects = [{ channel: 'email', wish }] as const
          await pool.query(
            collectScript([{ ...notification, collects } as unknown as PlannedNotification], ms),
          )
          came.set(id, { ms, group })
        }
        await closeUntil(Number.MAX_SAFE_INTEGER / 2)
        const { rows } = await pool.query<{ id: string; key: string; told: Date }>(
          `select i.notification_id as id, d.key, d.closed_at as told from digest_items i
           join digests d on d.tenant_id = i.tenant_id and d.id = i.digest_id
           where d.recipient_id = $1 and d.state = 'closed'`,
          [recipientId],
        )
        assert.equal(rows.length, came.size)
        const messages = new Map<string, number[]>()
        for (const { id, key, told } of rows) {
          const { ms: at, group } = came.get(id)!
          came.delete(id)
          assert.ok(key.endsWith(`:${group}`))
          const waited = told.getTime() - at
          assert.ok(waited >= 0)
          assert.ok(waited <= Math.max(waitSeconds, intervalSeconds) * 1000, `waited ${waited} ms`)
          messages.set(group, [...(messages.get(group) ?? []), told.getTime()])
        }
        for (const [group, times] of messages) {
          const told = [...new Set(times)].sort((a, b) => a - b)
          for (const [at, time] of told.slice(1).entries()) {
            assert.ok(time - told[at]! >= intervalSeconds * 1000, `${group}: ${time - told[at]!} ms apart`)
          }
        }
        // A new group waits exactly its wait.
        const first = alerts[0]!
        const begun = START + first.after * 1000
        assert.equal(Math.min(...messages.get(first.group)!), begun + waitSeconds * 1000)
      },
    ),
    { numRuns: 30 },
  )
})
