import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { createTenant } from '../admin/tenants.ts'
import { changeWatch } from '../db/changes.ts'
import { newId } from '../db/ids.ts'
import { sealer } from '../db/seal.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import { experimentBook, partOf } from './experiment-book.ts'
import { HOLDOUT } from './split.ts'

let database: TestDatabase
let tenant: number
let other: number
const [template, rule] = [newId(), newId()]
before(async () => {
  database = await testDatabase()
  const keys = sealer('a'.repeat(64))
  const system = { tenantId: 1, kind: 'system' } as const
  tenant = (await createTenant(database.db, keys, system, { name: 'one' })).id
  other = (await createTenant(database.db, keys, system, { name: 'two' })).id
  const { pool } = database.db
  await pool.query(`insert into templates (id, tenant_id, name) values ($1, $2, 't')`, [template, tenant])
  await pool.query(
    `insert into rules (id, tenant_id, name, channels, recipient_selector) values ($1, $2, 'r', '{in_app}', '{}')`,
    [rule, tenant],
  )
})
after(() => database?.drop())

const start = (of: { template?: string; rule?: string }, times: { starts?: Date; ends?: Date } = {}) =>
  database.db.pool.query(
    `insert into experiments (tenant_id, id, name, template_id, rule_id, status, metric, variants, starts_at, ends_at,
       started_at, created_at, updated_at)
     values ($1, $2, $2::uuid::text, $3, $4, 'running', 'clicked',
       '[{"name":"a","weight":1,"revision":1,"templateId":null,"channels":null}]', $5, $6, now(), now(), now())`,
    [tenant, newId(), of.template ?? null, of.rule ?? null, times.starts ?? null, times.ends ?? null],
  )

test('what runs is found as soon as it is committed, its rule before its template, within its times', async () => {
  const watch = changeWatch()
  const book = experimentBook(watch)
  const { db } = database
  const look = async () => {
    await watch.look(db)
    await book.refresh(db)
  }
  const now = new Date('2026-11-21T12:00:00Z')
  const later = (hours: number) => new Date(now.getTime() + hours * 3_600_000)
  await look()
  assert.equal(book.find(tenant, rule, template, now), null)

  await start({ template }, { starts: later(-1), ends: later(1) })
  assert.equal(book.find(tenant, rule, template, now), null, 'not before it was looked for')
  await look()
  assert.equal(book.find(tenant, rule, template, now)?.templateId, template)
  assert.equal(book.find(tenant, null, template, now)?.templateId, template)
  assert.equal(book.find(tenant, rule, null, now), null)
  assert.equal(book.find(other, rule, template, now), null)
  assert.equal(book.find(tenant, null, template, later(-2)), null)
  assert.ok(book.find(tenant, null, template, later(-1)))
  assert.equal(book.find(tenant, null, template, later(1)), null)

  await start({ rule })
  await look()
  assert.equal(book.find(tenant, rule, template, now)?.ruleId, rule)
  await assert.rejects(start({ rule }), /experiments_rule/)
  await db.pool.query(`update experiments set status = 'stopped', stopped_at = now() where rule_id = $1`, [
    rule,
  ])
  await look()
  assert.equal(book.find(tenant, rule, template, now)?.templateId, template)

  // Nothing is asked while nothing changes.
  let asked = 0
  const counting = { ...db, rows: (...given: Parameters<typeof db.rows>) => (asked++, db.rows(...given)) }
  await book.refresh(counting as typeof db)
  assert.equal(asked, 0)
})

test('whoever is held out is told nothing, or what the control says', () => {
  const variants = ['a', 'b'].map(name => ({
    name,
    weight: 1,
    revision: 1,
    templateId: null,
    channels: null,
  }))
  const experiment = {
    id: newId(),
    name: 'x',
    templateId: template,
    ruleId: null,
    variants,
    holdout: 0.999_999,
    startsMs: null,
    endsMs: null,
  }
  const silent = partOf({ ...experiment, holdoutGets: 'nothing' }, 'user:alice')
  assert.deepEqual([silent.name, silent.silent, silent.says.name], [HOLDOUT, true, 'a'])
  const control = partOf({ ...experiment, holdoutGets: 'control' }, 'user:alice')
  assert.deepEqual([control.name, control.silent, control.says.name], [HOLDOUT, false, 'a'])
  const parts = Array.from({ length: 50 }, (_, n) =>
    partOf({ ...experiment, holdout: 0, holdoutGets: 'nothing' }, `user:${n}`),
  )
  assert.deepEqual(new Set(parts.map(part => part.says.name)), new Set(['a', 'b']))
  assert.ok(parts.every(part => part.name === part.says.name && !part.silent))
})
