/**
 * How long a text is as an SMS.
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

/** Units of a text that is one segment. */
export const SINGLE = { gsm7: 160, ucs2: 70 }
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
