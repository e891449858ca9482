import { Type } from 'typebox'
import { SINGLE, type SmsSize, smsSize } from '../../sms-size.ts'

export { type SmsSize, smsSize }

// How to make a text short enough for an SMS.

const graphemes = new Intl.Segmenter('en', { granularity: 'grapheme' })

/**
 * The text itself when it fits, else as much of its beginning as fits with an ellipsis, without splitting a
 * character as people see it (UAX 29). The ellipsis is `...` in GSM 7-bit text, because `…` would turn 160
 * characters into 70.
 */
export function fitSegments(text: string, maxSegments: number): string {
  // No segment holds more than 160 units, so what lies beyond need not be looked at.
  if (text.length <= maxSegments * SINGLE.gsm7 && smsSize(text).segments <= maxSegments) return text
  const ends = [0]
  for (const { index } of graphemes.segment(text.slice(0, maxSegments * SINGLE.gsm7 + 1))) ends.push(index)
  // Longer beginnings never take fewer segments, so the longest that fits is found by halving.
  let fits = 0
  let tooLong = ends.length
  while (tooLong - fits > 1) {
    const middle = (fits + tooLong) >> 1
    if (smsSize(shortened(text, ends[middle] ?? 0)).segments <= maxSegments) fits = middle
    else tooLong = middle
  }
  return shortened(text, ends[fits] ?? 0)
}

function shortened(text: string, end: number): string {
  const kept = text.slice(0, end).trimEnd()
  return smsSize(kept).encoding === 'gsm7' ? `${kept}...` : `${kept}…`
}

const LOOKALIKES: Record<string, string> = {
  '‘': "'",
  '’': "'",
  '‚': "'",
  '‛': "'",
  '“': '"',
  '”': '"',
  '„': '"',
  '‟': '"',
  '«': '"',
  '»': '"',
  '‹': "'",
  '›': "'",
  '‐': '-',
  '‑': '-',
  '‒': '-',
  '–': '-',
  '—': '-',
  '−': '-',
  '•': '-',
  '·': '.',
  '…': '...',
  '\t': ' ',
  '\u00a0': ' ',
  '\u2009': ' ',
  '\u202f': ' ',
  '\u200b': '',
  '\ufeff': '',
  ł: 'l',
  Ł: 'L',
  đ: 'd',
  Đ: 'D',
  ı: 'i',
  œ: 'oe',
  Œ: 'OE',
}

/**
 * The text in the GSM alphabet where only typography and accents stand in the way (`“Zoë” – 5 °` does not), else
 * the text as it was: half a translation reads worse than a dearer message.
 */
export function transliterated(text: string): string {
  if (smsSize(text).encoding === 'gsm7') return text
  let plain = ''
  for (const character of text.normalize('NFC')) {
    if (isGsm(character)) {
      plain += character
      continue
    }
    const replaced = LOOKALIKES[character] ?? character.normalize('NFKD').replaceAll(/\p{Mn}/gu, '')
    if (!isGsm(replaced)) return text
    plain += replaced
  }
  return plain
}

const isGsm = (text: string): boolean => smsSize(text).encoding === 'gsm7'

/** What an SMS provider does with the text and what it costs: the same settings for each of them. */
export const smsSettings = (most: number) => ({
  maxSegments: Type.Integer({
    title: 'Segments',
    description: `A longer text is cut. One segment is 160 characters, or 70 beyond the GSM alphabet.`,
    default: 1,
    minimum: 1,
    maximum: most,
  }),
  transliterate: Type.Boolean({
    title: 'Transliterate',
    description: 'Writes typography and accents in the GSM alphabet where that is all it takes.',
    default: false,
  }),
  ...costSettings('Per segment, where the vendor names no price.'),
})

export const costSettings = (description: string) => ({
  costPerMessage: Type.Optional(
    Type.Number({ title: 'Cost per message', description, minimum: 0, maximum: 1000 }),
  ),
  currency: Type.String({
    title: 'Currency',
    description: 'Of the cost, ISO 4217.',
    default: 'USD',
    pattern: '^[A-Z]{3}$',
  }),
})

/** The text as it goes out under these settings, and its size. */
export function smsText(
  body: string,
  settings: { maxSegments: number; transliterate: boolean },
): { text: string; size: SmsSize } {
  const text = fitSegments(settings.transliterate ? transliterated(body) : body, settings.maxSegments)
  return { text, size: smsSize(text) }
}
