import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { test } from 'node:test'
import { sql } from '../db/pool.ts'
import { sealer as openSealer } from '../db/seal.ts'
import { auth } from '../http/auth.ts'
import { testDatabase } from '../test/database.ts'
import { createTenant, ensureFirstTenant, OPERATOR_TENANT } from './tenants.ts'

const countAudit = sql('test_count_audit', 'select count(*) as n from audit where tenant_id = $1')

test('however many processes start at once, there is one first tenant and one first key', async () => {
  const database = await testDatabase()
  const { db } = database
  try {
    const sealer = openSealer(randomBytes(32).toString('hex'))
    const starts = await Promise.all(Array.from({ length: 5 }, () => ensureFirstTenant(db, sealer)))
    const keys = starts.map(start => start.adminKey).filter(key => key !== undefined)
    assert.equal(keys.length, 1)
    assert.ok(starts.every(({ tenant }) => tenant.id === 1 && tenant.name === OPERATOR_TENANT))
    assert.equal((await auth({ db }).authenticate(keys[0]!)).role, 'admin')
    assert.equal((await ensureFirstTenant(db, sealer)).adminKey, undefined, 'a later start makes nothing')
    assert.equal((await db.one<{ n: number }>(countAudit, [1]))!.n, 2)

    const actor = { tenantId: 1, kind: 'system' } as const
    const second = await createTenant(db, sealer, actor, { name: 'second' })
    assert.ok(second.id > 1, 'the sequence went on behind the first')
    await assert.rejects(createTenant(db, sealer, actor, { name: 'second' }), { code: 'already_exists' })
  } finally {
    await database.drop()
  }
})
