import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { newId } from '../db/ids.ts'
import { AppError } from '../errors.ts'
import { decodeCursor, encodeCursor } from './cursor.ts'

const refuses = (work: () => unknown) =>
  assert.throws(work, (error: unknown) => error instanceof AppError && error.code === 'invalid_cursor')

test('a cursor gives back the keys it was made of', () => {
  const id = newId()
  const time = new Date('2026-03-29T01:30:00.123Z')
  const text = encodeCursor('audit', [id, 7, 'naïve "text"', time])
  assert.match(text, /^[A-Za-z0-9_-]+$/)
  assert.deepEqual(decodeCursor('audit', text, ['id', 'int', 'text', 'time']), [
    id,
    7,
    'naïve "text"',
    time.toISOString(),
  ])
})

test('every keyset survives the way there and back', () => {
  const key = fc.oneof(
    fc.string({ unit: 'grapheme' }).filter(s => !s.includes('\0')),
    fc.maxSafeInteger().filter(n => !Object.is(n, -0)),
  )
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.array(key, { maxLength: 8 }), (list, keys) => {
      const text = encodeCursor(list, keys)
      fc.pre(text.length <= 2048)
      assert.deepEqual(decodeCursor(list, text), keys)
    }),
  )
})

test('a cursor of another list is refused', () =>
  refuses(() => decodeCursor('rules', encodeCursor('audit', ['a']))))

test('keys of another kind or number are refused', () => {
  refuses(() => decodeCursor('l', encodeCursor('l', ['not-an-id']), ['id']))
  refuses(() => decodeCursor('l', encodeCursor('l', ['1']), ['int']))
  refuses(() => decodeCursor('l', encodeCursor('l', [1]), ['text']))
  refuses(() => decodeCursor('l', encodeCursor('l', [1.5]), ['int']))
  refuses(() => decodeCursor('l', encodeCursor('l', ['2026-02-31T00:00:00.000Z']), ['time']))
  refuses(() => decodeCursor('l', encodeCursor('l', ['a', 'b']), ['text']))
  refuses(() => decodeCursor('l', encodeCursor('l', []), ['text']))
  refuses(() => decodeCursor('l', encodeCursor('l', ['nul\0'])))
  refuses(() => decodeCursor('l', encodeCursor('l', Array(9).fill(1))))
  const odd = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
  for (const key of [null, true, {}, []]) refuses(() => decodeCursor('l', odd(['l', key])))
  for (const value of [{}, null, 'l']) refuses(() => decodeCursor('l', odd(value)))
})

test('whatever text comes, it is decoded or refused, never anything else', () => {
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.base64String()), text => {
      refuses(() => decodeCursor('list', text, ['id']))
    }),
  )
  refuses(() => decodeCursor('l', 'A'.repeat(100_000)))
})
