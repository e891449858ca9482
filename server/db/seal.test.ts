import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseMasterKeys, sealer } from './seal.ts'

const OLD = 'a1'.repeat(32)
const NEW = Buffer.alloc(32, 0xb2).toString('base64')

const bytes = fc.uint8Array({ maxLength: 3_000 }).map(array => Buffer.from(array))
const aads = fc.option(bytes, { nil: undefined })

test('what was sealed is opened again, bytes and text', () => {
  const { newDataKey, unwrap, seal, open } = sealer(OLD)
  const key = unwrap(newDataKey())
  fc.assert(
    fc.property(bytes, aads, (plaintext, aad) => {
      assert.deepEqual(open(key, seal(key, plaintext, aad), aad), plaintext)
    }),
  )
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), text => {
      assert.equal(open(key, seal(key, text, 'row 7'), 'row 7').toString('utf8'), text)
    }),
  )
})

test('any changed bit, cut, other key and other aad is noticed', () => {
  const { newDataKey, unwrap, seal, open } = sealer(OLD)
  const key = unwrap(newDataKey())
  const other = unwrap(newDataKey())
  fc.assert(
    fc.property(bytes, bytes, fc.nat(), fc.nat({ max: 7 }), (plaintext, aad, at, bit) => {
      const sealed = seal(key, plaintext, aad)
      const changed = Buffer.from(sealed)
      changed[at % changed.length]! ^= 1 << bit
      assert.throws(() => open(key, changed, aad), /cannot be opened|not sealed content/)
      assert.throws(
        () => open(key, sealed.subarray(0, at % sealed.length), aad),
        /cannot be opened|not sealed/,
      )
      assert.throws(() => open(other, sealed, aad), /content cannot be opened/)
      assert.throws(() => open(key, sealed, Buffer.concat([aad, Buffer.of(0)])), /content cannot be opened/)
    }),
  )
})

test('the sealed form is as documented, and no nonce comes twice', () => {
  const { newDataKey, unwrap, seal } = sealer(OLD)
  const key = unwrap(newDataKey())
  const sealed = Array.from({ length: 5_000 }, () => seal(key, 'secret'))
  assert.ok(sealed.every(one => one.length === 1 + 12 + 6 + 16 && one[0] === 1 && !one.includes('secret')))
  assert.equal(new Set(sealed.map(one => one.toString('hex', 1, 13))).size, sealed.length)
})

test('a data key is bound to its master key; the newest wraps, the older ones still open', () => {
  const before = sealer(OLD)
  const wrapped = before.newDataKey()
  const sealed = before.seal(before.unwrap(wrapped), 'hello')
  assert.equal(wrapped.length, 62)

  const after = sealer(`0:${OLD},1:${NEW}`)
  assert.equal(after.open(after.unwrap(wrapped), sealed).toString(), 'hello')
  const fresh = after.newDataKey()
  assert.equal(fresh[1], 1)
  assert.throws(() => before.unwrap(fresh), /master key 1, which is not in the keyring/)

  const rewrapped = after.rewrap(wrapped)!
  assert.equal(after.rewrap(rewrapped), undefined)
  const later = sealer(`1:${NEW}`)
  assert.equal(later.open(later.unwrap(rewrapped), sealed).toString(), 'hello')
  assert.throws(() => later.unwrap(wrapped), /master key 0, which is not in the keyring/)
})

test('a wrapped key that was changed in any bit is refused', () => {
  const { newDataKey, unwrap } = sealer(`0:${OLD},1:${OLD}`)
  const wrapped = newDataKey()
  for (let at = 0; at < wrapped.length; at++) {
    const changed = Buffer.from(wrapped)
    changed[at]! ^= 1
    assert.throws(() => unwrap(changed), /data key/, `byte ${at}`)
  }
  assert.throws(() => unwrap(wrapped.subarray(1)), /not a wrapped data key/)
})

test('master keys are read in hex and base64, and never shown when they are wrong', () => {
  assert.deepEqual(
    parseMasterKeys(` 3:${OLD} , 4:${NEW}`).map(({ id, key }) => [id, key.length]),
    [
      [3, 32],
      [4, 32],
    ],
  )
  const wrong = [`${OLD}0`, `0:${OLD},${NEW}`, `0:${OLD},0:${NEW}`, `256:${OLD}`, 'short', '', `x:${OLD}`]
  for (const text of wrong) {
    assert.throws(
      () => parseMasterKeys(text),
      (error: Error) => /[Mm]aster key/.test(error.message) && !error.message.includes(OLD.slice(0, 8)),
      text,
    )
  }
})
