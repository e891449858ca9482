import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../errors.ts'
import { MAX_SIDE, readImage } from './image.ts'
import { GIF, WEBP_EXTENDED, WEBP_LOSSLESS, WEBP_LOSSY, jpeg, png } from './test-pictures.ts'

const refused = (bytes: Buffer) => {
  try {
    readImage(bytes)
  } catch (error) {
    assert.ok(error instanceof AppError, String(error))
    return error.code
  }
  return 'taken'
}

test('type and size are what the bytes say', () => {
  assert.deepEqual(readImage(png(640, 12)), { type: 'image/png', width: 640, height: 12 })
  assert.deepEqual(readImage(GIF), { type: 'image/gif', width: 1, height: 1 })
  for (const webp of [WEBP_LOSSY, WEBP_LOSSLESS, WEBP_EXTENDED]) {
    assert.deepEqual(readImage(webp), { type: 'image/webp', width: 1, height: 1 })
  }
  // Baseline, extended, progressive, lossless; a table of Huffman codes (C4) is no frame.
  for (const frame of [0xc0, 0xc1, 0xc2, 0xc3]) {
    assert.deepEqual(readImage(jpeg(300, 1000, frame)), { type: 'image/jpeg', width: 300, height: 1000 })
  }
  assert.equal(refused(jpeg(300, 1000, 0xc4)), 'unsupported_media_type')
  // Cameras append previews behind the picture.
  assert.equal(readImage(Buffer.concat([jpeg(3, 4), Buffer.from('more')])).width, 3)
})

test('what is no picture, or not a whole one, or hides something else, is refused', () => {
  for (const text of [
    '',
    '<svg xmlns="http://www.w3.org/2000/svg"/>',
    '<?xml version="1.0"?>\n<!-- a --><svg onload="alert(1)"/>',
    '<html><script>alert(1)</script>',
    '%PDF-1.7',
    'GIF89a',
    'BM',
  ]) {
    assert.equal(refused(Buffer.from(text)), 'unsupported_media_type', text)
  }
  assert.throws(() => readImage(Buffer.from('<svg/>'.replace('/', ' /'))), /SVG may bring scripts/)
  for (const whole of [png(), GIF, WEBP_LOSSY, WEBP_LOSSLESS, WEBP_EXTENDED, jpeg(3, 4)]) {
    assert.equal(refused(whole.subarray(0, -1)), 'unsupported_media_type')
  }
  assert.equal(refused(readFileSync(import.meta.filename)), 'unsupported_media_type')
})

test('a picture that would fill a reader’s memory is refused', () => {
  assert.equal(refused(png(MAX_SIDE, 1)), 'taken')
  assert.equal(refused(png(MAX_SIDE + 1, 1)), 'invalid_request')
  assert.equal(refused(png(8_000, 8_000)), 'invalid_request')
  assert.equal(refused(jpeg(0, 5)), 'invalid_request')
})

test('whatever the bytes are, it is taken or refused, and nothing else', () => {
  const starts = [png(), GIF, WEBP_LOSSY, WEBP_LOSSLESS, WEBP_EXTENDED, jpeg(3, 4)]
  fc.assert(
    fc.property(
      fc.constantFrom(...starts),
      fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 8 }),
      fc.nat(200),
      (start, changes, length) => {
        const bytes = Buffer.from(start.subarray(0, length))
        for (const [at, value] of changes) if (at < bytes.length) bytes[at] = value
        refused(bytes)
      },
    ),
    { numRuns: 2_000 },
  )
})
