import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { fitSegments, smsSize, smsText, transliterated } from './sms-text.ts'

const GSM = [
  ...'@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡',
  ...'ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà',
]
const EXTENDED = [...'\f^{}\\[~]|€']

const gsmText = fc.string({ unit: fc.constantFrom(...GSM, ...EXTENDED), maxLength: 700, size: 'max' })
const anyText = fc.oneof(
  gsmText,
  fc.string({ unit: 'grapheme', maxLength: 400, size: 'max' }),
  fc.string({
    unit: fc.constantFrom('a', ' ', '€', '…', '👩‍👩‍👧‍👦', '🇪🇺', 'ё', '𝒳'),
    maxLength: 400,
    size: 'max',
  }),
)
const segmenter = new Intl.Segmenter('en', { granularity: 'grapheme' })

/** The plain reading of the rule: characters one by one into segments, none of them split. */
function packed(text: string): { encoding: string; segments: string[] } {
  const gsm = [...text].every(each => GSM.includes(each) || EXTENDED.includes(each))
  const width = (each: string) => (gsm ? (EXTENDED.includes(each) ? 2 : 1) : each.length)
  const total = [...text].reduce((sum, each) => sum + width(each), 0)
  const encoding = gsm ? 'gsm7' : 'ucs2'
  if (total <= (gsm ? 160 : 70)) return { encoding, segments: [text] }
  const segments: string[] = []
  let current = ''
  let used = 0
  for (const each of text) {
    if (used + width(each) > (gsm ? 153 : 67)) {
      segments.push(current)
      current = ''
      used = 0
    }
    current += each
    used += width(each)
  }
  return { encoding, segments: [...segments, current] }
}

// covers: PFM-169
test('a segment holds 160 characters of the GSM alphabet or 70 of any other', () => {
  assert.equal(GSM.length, 127)
  assert.deepEqual(smsSize(''), { encoding: 'gsm7', units: 0, segments: 1 })
  assert.deepEqual(smsSize('a'.repeat(160)), { encoding: 'gsm7', units: 160, segments: 1 })
  assert.deepEqual(smsSize('a'.repeat(161)), { encoding: 'gsm7', units: 161, segments: 2 })
  assert.deepEqual(smsSize('a'.repeat(306)), { encoding: 'gsm7', units: 306, segments: 2 })
  assert.deepEqual(smsSize('a'.repeat(307)), { encoding: 'gsm7', units: 307, segments: 3 })
  assert.deepEqual(smsSize('€'.repeat(80)), { encoding: 'gsm7', units: 160, segments: 1 })
  assert.deepEqual(smsSize('ж'.repeat(70)), { encoding: 'ucs2', units: 70, segments: 1 })
  assert.deepEqual(smsSize('ж'.repeat(71)), { encoding: 'ucs2', units: 71, segments: 2 })
  assert.deepEqual(smsSize('ж'.repeat(134)), { encoding: 'ucs2', units: 134, segments: 2 })
  assert.deepEqual(smsSize('ж'.repeat(135)), { encoding: 'ucs2', units: 135, segments: 3 })
})

test('neither an escaped character nor a surrogate pair is split between segments', () => {
  // 306 septets would fill two segments, but the euro sign at the end of the first has to move.
  assert.equal(smsSize(`${'a'.repeat(152)}€${'a'.repeat(152)}`).segments, 3)
  assert.equal(smsSize(`${'a'.repeat(151)}€${'a'.repeat(153)}`).segments, 2)
  assert.equal(smsSize(`${'ж'.repeat(66)}😀${'ж'.repeat(66)}`).segments, 3)
  assert.equal(smsSize(`${'ж'.repeat(65)}😀${'ж'.repeat(67)}`).segments, 2)
})

test('the size is what packing character by character gives', () => {
  fc.assert(
    fc.property(anyText, text => {
      const { encoding, segments } = packed(text)
      const size = smsSize(text)
      assert.deepEqual([size.encoding, size.segments], [encoding, segments.length])
    }),
  )
})

// covers: PFM-159
test('a text that is too long ends in three dots and stays in the GSM alphabet', () => {
  const long = 'x'.repeat(161)
  assert.equal(fitSegments(long, 1), `${'x'.repeat(157)}...`)
  assert.equal(fitSegments('x'.repeat(160), 1), 'x'.repeat(160))
  assert.equal(fitSegments('x'.repeat(400), 2), `${'x'.repeat(303)}...`)
  // The emoji that would halve the room lies behind the cut.
  assert.equal(fitSegments(`${'x'.repeat(200)}😀`, 1), `${'x'.repeat(157)}...`)
  assert.equal(fitSegments(`${'x'.repeat(100)}😀${'x'.repeat(100)}`, 1), `${'x'.repeat(100)}...`)
  assert.equal(fitSegments('ж'.repeat(100), 1), `${'ж'.repeat(69)}…`)
})

test('a cut text fits, is a beginning of the text, ends between characters, and wastes no room', () => {
  fc.assert(
    fc.property(anyText, fc.integer({ min: 1, max: 4 }), (text, max) => {
      const short = fitSegments(text, max)
      assert.ok(smsSize(short).segments <= max)
      if (smsSize(text).segments <= max) return assert.equal(short, text)
      const kept = short.replace(/(\.\.\.|…)$/, '')
      assert.ok(text.startsWith(kept))
      assert.equal(short.endsWith('…'), smsSize(kept).encoding === 'ucs2')
      const clusters = [...segmenter.segment(text)]
      const ends = [0, ...clusters.map(({ index, segment }) => index + segment.length)]
      // Blanks before the dots are left out, so the cut itself may lie behind them.
      const cut = ends.find(end => text.slice(0, end).trimEnd() === kept)
      assert.notEqual(cut, undefined)
      const next = ends.find(end => text.slice(0, end).trimEnd().length > kept.length)
      assert.ok(next !== undefined)
      const longer = text.slice(0, next).trimEnd()
      const dots = smsSize(longer).encoding === 'gsm7' ? '...' : '…'
      assert.ok(smsSize(longer + dots).segments > max, 'one more character would have fitted')
    }),
  )
})

test('a very long text is cut without being read to its end', () => {
  const short = fitSegments('long '.repeat(1_000_000), 1)
  assert.equal(smsSize(short).segments, 1)
  assert.ok(short.length > 155)
})

// covers: PFM-169
test('typography and accents are written in the GSM alphabet where that is all it takes', () => {
  assert.equal(transliterated('“Zoë’s” café – 5 €…'), '"Zoe\'s" café - 5 €...')
  assert.equal(transliterated('Łódź, Đakovo, garçon, cœur'), 'Lodz, Dakovo, garcon, coeur')
  assert.equal(transliterated('Привет “мир”'), 'Привет “мир”')
  assert.equal(transliterated('fine 😀'), 'fine 😀')
  fc.assert(
    fc.property(anyText, text => {
      const plain = transliterated(text)
      assert.ok(plain === text || smsSize(plain).encoding === 'gsm7')
    }),
  )
  const settings = { maxSegments: 1, transliterate: true }
  assert.deepEqual(smsText('a – b', settings).size, { encoding: 'gsm7', units: 5, segments: 1 })
  assert.equal(smsText('a – b', { ...settings, transliterate: false }).text, 'a – b')
})
