import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { type TestDatabase, testDatabase } from '../test/database.ts'
import type { Caller } from '../http/api.ts'
import {
  claimIdempotency,
  fingerprint,
  type IdempotencyClaim,
  IDEMPOTENCY_TTL_MS,
  idempotencyError,
  keyOf,
  readIdempotencyKey,
  storeIdempotency,
} from './idempotency.ts'

let database: TestDatabase
before(async () => {
  database = await testDatabase()
})
after(() => database.drop())

const now = new Date('2026-11-21T12:00:00Z')
const caller: Pick<Caller, 'tenantId' | 'kind' | 'id'> = { tenantId: 1, kind: 'key', id: 'k1' }
const response = Buffer.from('sealed answer')

function claim(name: string, body: unknown = {}, tenantId = 1): IdempotencyClaim {
  const key = keyOf({ ...caller, tenantId }, 'POST /api/notifications', name)
  return { tenantId, key, fingerprint: fingerprint(body) }
}

const claimOnce = (c: IdempotencyClaim, at = now) =>
  database.db.tx(async tx => (await claimIdempotency(tx, [c], at))[0]!)

test('the header must be 1 to 255 visible ASCII characters', () => {
  assert.equal(readIdempotencyKey(undefined), undefined)
  assert.equal(readIdempotencyKey('a'), 'a')
  assert.equal(readIdempotencyKey('"8e03978e-40d5"'), '"8e03978e-40d5"')
  assert.equal(readIdempotencyKey('~'.repeat(255))?.length, 255)
  for (const bad of ['', ' ', 'a b', 'é', 'a\n', '~'.repeat(256), ['a', 'b']]) {
    assert.throws(
      () => readIdempotencyKey(bad),
      (error: unknown) => error instanceof AppError && error.code === 'invalid_request',
    )
  }
})

test('tenant, caller, route and key each make another row', () => {
  const base = keyOf(caller, 'POST /a', 'x')
  assert.match(base, /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/)
  assert.equal(keyOf({ ...caller }, 'POST /a', 'x'), base)
  const others = [
    keyOf({ ...caller, tenantId: 2 }, 'POST /a', 'x'),
    keyOf({ ...caller, kind: 'user' }, 'POST /a', 'x'),
    keyOf({ ...caller, id: 'k2' }, 'POST /a', 'x'),
    keyOf(caller, 'POST /b', 'x'),
    keyOf(caller, 'POST /a', 'y'),
  ]
  assert.equal(new Set([base, ...others]).size, 6)
})

test('a fingerprint goes by the JSON value, not by its spelling', () => {
  const shuffled = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(shuffled)
    if (typeof value !== 'object' || value === null) return value
    return Object.fromEntries(
      Object.entries(value)
        .toReversed()
        .map(([name, part]) => [name, shuffled(part)]),
    )
  }
  fc.assert(
    fc.property(fc.jsonValue(), value => {
      assert.deepEqual(fingerprint(shuffled(value)), fingerprint(value))
    }),
  )
  fc.assert(
    fc.property(fc.jsonValue(), fc.jsonValue(), (a, b) => {
      fc.pre(JSON.stringify(shuffled(a)) !== JSON.stringify(shuffled(b)))
      const same = (() => {
        try {
          assert.deepStrictEqual(JSON.parse(JSON.stringify(a)), JSON.parse(JSON.stringify(b)))
          return true
        } catch {
          return false
        }
      })()
      assert.equal(fingerprint(a).equals(fingerprint(b)), same)
    }),
  )
  assert.notDeepEqual(fingerprint({ a: [1, 2] }), fingerprint({ a: [2, 1] }))
})

// covers: PFM-201
test('a stored answer is replayed, and only for the same body', async () => {
  const c = claim('stored', { a: 1 })
  await database.db.tx(async tx => {
    assert.deepEqual(await claimIdempotency(tx, [c], now), [{ kind: 'fresh' }])
    await storeIdempotency(tx, [{ ...c, status: 202, response }], now)
  })
  assert.deepEqual(await claimOnce(c), { kind: 'replay', status: 202, response })
  assert.deepEqual(await claimOnce(claim('stored', { a: 2 })), { kind: 'mismatch' })
  assert.deepEqual(await claimOnce(claim('stored', { a: 1 }, 2)), { kind: 'fresh' }, 'another tenant')
})

test('a claim runs as long as its transaction, and a rollback leaves nothing', async () => {
  const c = claim('rolled back')
  await assert.rejects(
    database.db.tx(async tx => {
      await claimIdempotency(tx, [c], now)
      assert.deepEqual(await claimOnce(c), { kind: 'running' })
      await storeIdempotency(tx, [{ ...c, status: 202, response }], now)
      assert.deepEqual(await claimOnce(c), { kind: 'running' }, 'an answer nobody committed')
      throw new Error('crash')
    }),
    /crash/,
  )
  assert.deepEqual(await claimOnce(c), { kind: 'fresh' })
})

// covers: PFM-208
test('of many transactions at once one is fresh; after it all replay', async () => {
  const c = claim('race')
  const attempt = () =>
    database.db.tx(async tx => {
      const [result] = await claimIdempotency(tx, [c], now)
      if (result!.kind === 'fresh') await storeIdempotency(tx, [{ ...c, status: 202, response }], now)
      return result!.kind
    })
  const kinds = await Promise.all(Array.from({ length: 40 }, attempt))
  assert.equal(kinds.filter(kind => kind === 'fresh').length, 1)
  assert.ok(kinds.every(kind => kind === 'fresh' || kind === 'running' || kind === 'replay'))
  assert.equal(await attempt(), 'replay')
})

test('many claims in one call keep their order, and the second of two equal ones runs', async () => {
  const [kept, held, a, b] = [claim('kept'), claim('held'), claim('a'), claim('b')]
  await database.db.tx(tx => storeIdempotency(tx, [{ ...kept, status: 201, response }], now))
  await database.db.tx(async other => {
    await claimIdempotency(other, [held], now)
    await database.db.tx(async tx => {
      const results = await claimIdempotency(tx, [a, held, kept, a, b, claim('kept', { x: 1 })], now)
      assert.deepEqual(
        results.map(result => result.kind),
        ['fresh', 'running', 'replay', 'running', 'fresh', 'mismatch'],
      )
      await storeIdempotency(
        tx,
        [a, b].map(c => ({ ...c, status: 202, response })),
        now,
      )
    })
  })
  assert.equal((await claimOnce(b)).kind, 'replay')
  assert.deepEqual(await database.db.tx(tx => claimIdempotency(tx, [], now)), [])
})

test('an expired answer makes room for a new one', async () => {
  const c = claim('expires', { a: 1 })
  await database.db.tx(tx => storeIdempotency(tx, [{ ...c, status: 202, response }], now))
  const later = new Date(now.getTime() + IDEMPOTENCY_TTL_MS)
  assert.equal((await claimOnce(c, new Date(later.getTime() - 1))).kind, 'replay')
  const other = claim('expires', { a: 2 })
  await database.db.tx(async tx => {
    assert.deepEqual(await claimIdempotency(tx, [other], later), [{ kind: 'fresh' }])
    await storeIdempotency(tx, [{ ...other, status: 200, response }], later)
  })
  assert.deepEqual(await claimOnce(other, later), { kind: 'replay', status: 200, response })
})

test('an answer cannot replace one that still counts', async () => {
  const c = claim('twice')
  await database.db.tx(tx => storeIdempotency(tx, [{ ...c, status: 202, response }], now))
  await assert.rejects(
    database.db.tx(tx => storeIdempotency(tx, [{ ...c, status: 500, response }], now)),
    /not fresh/,
  )
  assert.deepEqual(await claimOnce(c), { kind: 'replay', status: 202, response })
})

test('mismatch is 422; running is 409 with a wait', () => {
  assert.equal(idempotencyError('mismatch').status, 422)
  assert.equal(idempotencyError('running').status, 409)
  assert.equal(idempotencyError('running').retryAfterSeconds, 1)
})
