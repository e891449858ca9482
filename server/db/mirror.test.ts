import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ChangeKind, ChangeWatch } from './changes.ts'
import { type Changed, mirror } from './mirror.ts'
import type { Queryable } from './pool.ts'

const Q = {} as Queryable

/** A watch whose listeners are called by hand, and loads that wait to be answered. */
function world() {
  let changed: (tenantId: number, key: string) => void = () => {}
  let reset = () => {}
  const watch: ChangeWatch = {
    look: async () => {},
    on: (kind: ChangeKind, listener) => {
      assert.equal(kind, 'rule')
      changed = listener
    },
    onReset: listener => void (reset = listener),
  }
  const loads: ('whole' | Changed[])[] = []
  let answer: () => Promise<void> = async () => {}
  const refresh = mirror(watch, 'rule', {
    whole: async () => {
      loads.push('whole')
      await answer()
    },
    rows: async (_, rows) => {
      loads.push([...rows])
      await answer()
    },
  })
  return {
    loads,
    refresh: () => refresh(Q),
    changed: (tenantId: number, key: string) => changed(tenantId, key),
    reset: () => reset(),
    answer: (next: () => Promise<void>) => void (answer = next),
  }
}

test('everything first, then what changed, then nothing', async () => {
  const { loads, refresh, changed, reset } = world()
  await refresh()
  await refresh()
  changed(1, 'a')
  changed(1, 'a')
  changed(2, 'a')
  await refresh()
  await refresh()
  reset()
  changed(1, 'b')
  await refresh()
  await refresh()
  assert.deepEqual(loads, [
    'whole',
    [
      { tenantId: 1, key: 'a' },
      { tenantId: 2, key: 'a' },
    ],
    'whole',
  ])
})

test('what failed is loaded again, with what came meanwhile', async () => {
  const { loads, refresh, changed, answer } = world()
  answer(async () => {
    changed(1, 'b')
    throw new Error('the database is away')
  })
  await assert.rejects(refresh(), /away/)
  answer(async () => {})
  await refresh()
  changed(1, 'c')
  answer(async () => {
    changed(1, 'd')
    throw new Error('away again')
  })
  await assert.rejects(refresh(), /again/)
  answer(async () => {})
  await refresh()
  assert.deepEqual(loads, [
    'whole',
    'whole',
    [{ tenantId: 1, key: 'c' }],
    [
      { tenantId: 1, key: 'd' },
      { tenantId: 1, key: 'c' },
    ],
  ])
})

test('whoever comes while it loads waits, and what changed during the load is loaded after it', async () => {
  const { loads, refresh, changed, answer } = world()
  const gate = Promise.withResolvers<void>()
  answer(() => gate.promise)
  const first = refresh()
  changed(1, 'a')
  let done = false
  const second = refresh().then(() => (done = true))
  await new Promise(setImmediate)
  assert.deepEqual([loads, done], [['whole'], false])
  gate.resolve()
  await Promise.all([first, second])
  assert.deepEqual(loads, ['whole', [{ tenantId: 1, key: 'a' }]])
})
