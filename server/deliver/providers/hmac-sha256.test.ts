import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { hmacSha256 } from './hmac-sha256.ts'

const expected = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest('base64')

test('it is what OpenSSL computes, for keys and texts of any length, one after the other', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 200 }).map(Buffer.from),
      fc.array(fc.string({ unit: 'binary', maxLength: 300 }), { minLength: 1, maxLength: 5 }),
      (key, texts) => {
        const hmac = hmacSha256(key)
        for (const text of texts) assert.equal(hmac(text), expected(key, text))
      },
    ),
    { numRuns: 300 },
  )
})

test('keys around a block of SHA-256, and texts larger than what is kept at hand', () => {
  for (const length of [1, 63, 64, 65, 128]) {
    const key = Buffer.alloc(length, 0xa7)
    for (const text of ['', 'a', 'ü€😀'.repeat(9_000), 'x'.repeat(22_000), 'y'.repeat(200_000)]) {
      assert.equal(hmacSha256(key)(text), expected(key, text))
    }
  }
})

test('two keys in turns do not meet', () => {
  const [one, other] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
  const [a, b] = [hmacSha256(one), hmacSha256(other)]
  for (const text of ['first', 'second']) {
    assert.equal(a(text), expected(one, text))
    assert.equal(b(text), expected(other, text))
  }
})
