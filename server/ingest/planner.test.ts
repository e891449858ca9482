import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { inTurn } from './planner.ts'

const row = fc.record({
  tenant_id: fc.integer({ min: 1, max: 6 }),
  rank: fc.integer({ min: 0, max: 3 }),
  run_at: fc.integer({ min: 0, max: 50 }).map(ms => new Date(ms)),
})

test('law: tenants take turns, beginning behind the one served last, and within a tenant the order of its queue stays', () => {
  fc.assert(
    fc.property(fc.array(row, { maxLength: 40 }), fc.integer({ min: 0, max: 7 }), (rows, servedLast) => {
      const turns = inTurn(rows, servedLast)
      assert.deepEqual(new Set(turns), new Set(rows))
      assert.equal(turns.length, rows.length)
      const tenants = new Set(rows.map(one => one.tenant_id))
      const taken = new Map<number, number>()
      for (const [i, { tenant_id }] of turns.entries()) {
        // Whoever still waits has had as many turns as this one has now, or one fewer.
        const before = taken.get(tenant_id) ?? 0
        for (const other of tenants) {
          const waits = turns.slice(i).some(one => one.tenant_id === other)
          if (waits)
            assert.ok((taken.get(other) ?? 0) >= before, `tenant ${tenant_id} goes twice before ${other}`)
        }
        taken.set(tenant_id, before + 1)
      }
      const later = [...tenants].filter(id => id > servedLast)
      if (rows.length > 0)
        assert.equal(turns[0]!.tenant_id, Math.min(...(later.length > 0 ? later : tenants)))
      for (const tenant of tenants) {
        const own = turns.filter(one => one.tenant_id === tenant)
        for (const [i, one] of own.entries()) {
          const next = own[i + 1]
          if (next) assert.ok(one.rank < next.rank || (one.rank === next.rank && one.run_at <= next.run_at))
        }
      }
    }),
    { numRuns: 500 },
  )
})
