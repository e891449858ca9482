import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError, type ErrorCode } from '../errors.ts'
import { MAX_DEPTH, parseJsonBody } from './json-body.ts'

const read = (text: string | Buffer) => parseJsonBody(Buffer.from(text as string), JSON.parse)
const refuses = (text: string | Buffer, code: ErrorCode) =>
  assert.throws(
    () => read(text),
    (error: unknown) => error instanceof AppError && error.code === code,
    String(text).slice(0, 80),
  )

test('whatever JSON can be stored is what JSON.parse makes of it', () => {
  fc.assert(
    fc.property(fc.json({ maxDepth: 8, stringUnit: 'grapheme' }), text => {
      fc.pre(!text.includes('\\u0000'))
      assert.deepEqual(read(text), JSON.parse(text))
    }),
  )
})

test('no body at all is nothing', () => assert.equal(read(''), undefined))

test('NUL characters and half pairs are refused wherever they stand', () => {
  for (const text of [
    '"a\\u0000"',
    '{"a\\u0000b":1}',
    '[[{"x":["\\u0000"]}]]',
    '"\\ud800"',
    '"\\uDC00 x"',
    '{"\\udbff":0}',
    '"\\\\\\u0000"',
  ]) {
    refuses(text, 'invalid_request')
  }
})

test('what only looks like them is kept', () => {
  assert.equal(read('"\\\\u0000"'), '\\u0000')
  assert.equal(read('"C:\\\\udead"'), 'C:\\udead')
  assert.equal(read('"\\ud83d\\udd14"'), '🔔')
})

test('invalid UTF-8 is refused', () => refuses(Buffer.from([0x22, 0xc3, 0x28, 0x22]), 'malformed_body'))

test('nesting ends at the bound, whatever the strings hold', () => {
  const nested = (depth: number) => '['.repeat(depth) + ']'.repeat(depth)
  assert.ok(read(nested(MAX_DEPTH)))
  refuses(nested(MAX_DEPTH + 1), 'invalid_request')
  refuses('{"a":'.repeat(MAX_DEPTH + 1) + '1' + '}'.repeat(MAX_DEPTH + 1), 'invalid_request')
  refuses(nested(400_000), 'invalid_request')
  const brackets = '[{'.repeat(1000)
  assert.equal(read(JSON.stringify(brackets)), brackets)
  assert.deepEqual(read(JSON.stringify([`"${brackets}\\`, brackets])), [`"${brackets}\\`, brackets])
  assert.ok(read(`[${'[],'.repeat(10_000)}[]]`), 'wide is not deep')
  assert.throws(() => read('"never closed [[['), SyntaxError)
})
