import { Type } from 'typebox'

/**
 * How long a text is as an SMS, and how to make it short enough.
 *
 * A message carries 140 bytes: 160 characters of 7 bits when all of them are in the GSM alphabet (3GPP TS 23.038
 * §6.2.1), else 70 UTF-16 units. A longer text travels in segments that each give 6 bytes to the header that joins
 * them (TS 23.040 §9.2.3.24.1): 153 or 67. Operators bill by segment.
 */
export interface SmsSize {
  encoding: 'gsm7' | 'ucs2'
  /** Septets or UTF-16 units. */
  units: number
  segments: number
}

const BASIC =
  '@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !"#¤%&\'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿' +
  'abcdefghijklmnopqrstuvwxyzäöñüà'
/** Written as an escape and a character: two septets. */
const EXTENDED = '\f^{}\\[~]|€'

/** Septets by UTF-16 unit; 0 for what the alphabet lacks. The euro sign (U+20AC) is its highest character. */
const SEPTETS = new Uint8Array(0x20ad)
for (const character of BASIC) SEPTETS[character.charCodeAt(0)] = 1
for (const character of EXTENDED) SEPTETS[character.charCodeAt(0)] = 2

const SINGLE = { gsm7: 160, ucs2: 70 }
const JOINED = { gsm7: 153, ucs2: 67 }

export function smsSize(text: string): SmsSize {
  let units = 0
  for (let at = 0; at < text.length; at++) {
    const septets = SEPTETS[text.charCodeAt(at)] ?? 0
    if (septets === 0) return sizeOf(text, 'ucs2', text.length)
    units += septets
  }
  return sizeOf(text, 'gsm7', units)
}

function sizeOf(text: string, encoding: SmsSize['encoding'], units: number): SmsSize {
  if (units <= SINGLE[encoding]) return { encoding, units, segments: 1 }
  // An escape and its character, or a surrogate pair, stay in one segment: a gap may be left at its end.
  const room = JOINED[encoding]
  let segments = 1
  let used = 0
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at)
    let width = encoding === 'gsm7' ? (SEPTETS[code] ?? 1) : 1
    if (encoding === 'ucs2' && isHigh(code) && isLow(text.charCodeAt(at + 1))) {
      width = 2
      at++
    }
    if (used + width > room) {
      segments++
      used = 0
    }
    used += width
  }
  return { encoding, units, segments }
}

const isHigh = (code: number): boolean => code >= 0xd800 && code <= 0xdbff
const isLow = (code: number): boolean => code >= 0xdc00 && code <= 0xdfff

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
