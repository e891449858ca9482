import { hash } from 'node:crypto'
import { fingerprint } from './canonical.ts'
import type { Sameness } from './usage.ts'

/** A text, and to whom it is said where. */
export interface Said {
  recipientType: string
  recipientId: string
  channel: string
  text: { subject?: string; body: string }
}

/** How far a rule wants a text told apart from what was said before. */
export interface SamenessQuestion extends Said {
  ruleId: string
  repeat?: { seconds: number }
  similar?: { seconds?: number; threshold?: number }
}

/** "Similar to one of the last 30 minutes." */
const SIMILAR_SECONDS = 1800
/** Of ten words and pairs of words, eight are the same: another name or number in a sentence is another message. */
const SIMILAR_THRESHOLD = 0.8
/** No more than this many earlier texts are kept and compared. */
export const MAX_REMEMBERED = 20
/** A message is told by its beginning; more would make the cost of comparing the sender's choice. */
const MAX_CHARS = 10_000
/** Hashes of a sketch: short texts, most notifications, fit whole, and then the comparison is exact. */
const SKETCH = 64

/** The same for equal texts to one person on one channel, whoever says them. */
export const contentKey = ({ recipientType, recipientId, channel, text }: Said): string =>
  fingerprint({ recipientType, recipientId, channel, words: wordsOf(text) })

/** What repeats and likenesses of one text are known by. Pure. */
export function sameness(question: SamenessQuestion): Sameness | null {
  const { ruleId, recipientType, recipientId, channel, repeat, similar } = question
  const words = wordsOf(question.text)
  const of = { ruleId, recipientType, recipientId, channel }
  const made: Sameness = {}
  if (repeat) {
    made.repeat = { key: `repeat:${fingerprint({ ...of, words })}`, seconds: repeat.seconds }
  }
  if (similar && words.length > 0) {
    const key = `similar:${fingerprint(of)}`
    const { seconds = SIMILAR_SECONDS, threshold = SIMILAR_THRESHOLD } = similar
    const mine = sketchOf(words, key)
    made.similar = {
      key,
      seconds,
      likeness(note, atMs) {
        let most = 0
        for (const one of read(note)) {
          if (one.untilMs > atMs) most = Math.max(most, likeness(mine, one.sketch))
        }
        return most >= threshold ? most : null
      },
      noted(note, atMs, untilMs) {
        const kept = read(note).filter(one => one.untilMs > atMs)
        return write([...kept, { untilMs, sketch: mine }].slice(-MAX_REMEMBERED))
      },
    }
  }
  return made.repeat || made.similar ? made : null
}

// A letter of a script that writes without spaces is a word of its own.
const WORDS =
  /[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}]|[[\p{L}\p{M}\p{N}]--[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}\p{sc=Thai}]]+/gv

/** The text without what makes no difference to a reader: case, width, punctuation, spaces. */
function wordsOf({ subject = '', body }: SamenessQuestion['text']): string[] {
  return `${subject}\n${body}`.slice(0, MAX_CHARS).normalize('NFKC').toLowerCase().match(WORDS) ?? []
}

/**
 * The smallest hashes of the text's words and pairs of neighbours: a bottom-k sketch (Cohen and Kaplan, PODC 2007).
 * Salted by its owner, so that sketches of two people say nothing about each other.
 */
export function sketchOf(words: readonly string[], salt: string): Uint32Array {
  const seed = hash('sha256', salt, 'buffer').readUInt32LE()
  const hashes = new Set<number>()
  for (const [i, word] of words.entries()) {
    hashes.add(fnv(word, seed))
    if (i > 0) hashes.add(fnv(`${words[i - 1]} ${word}`, seed))
  }
  return Uint32Array.from(hashes).sort().slice(0, SKETCH)
}

/** FNV-1a, then mixed (Murmur3's finalizer): a sketch takes the smallest, so all bits must be even. */
function fnv(text: string, seed: number): number {
  let h = (seed ^ 0x811c9dc5) >>> 0
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
  return (h ^ (h >>> 16)) >>> 0
}

/** How much two texts have in common, 0 to 1 (Jaccard): exact for short ones, else from the smallest hashes of both. */
export function likeness(a: Uint32Array, b: Uint32Array): number {
  const whole = a.length < SKETCH && b.length < SKETCH
  let union = 0
  let shared = 0
  for (let i = 0, j = 0; (i < a.length || j < b.length) && (whole || union < SKETCH); union++) {
    if (i < a.length && j < b.length && a[i] === b[j]) {
      shared++
      i++
      j++
    } else if (j >= b.length || (i < a.length && a[i]! < b[j]!)) i++
    else j++
  }
  return union === 0 ? 1 : shared / union
}

interface Remembered {
  untilMs: number
  sketch: Uint32Array
}

/** `until:hashes` in base 36 and base64, one a text. */
const write = (list: readonly Remembered[]): string =>
  list
    .map(({ untilMs, sketch }) => {
      const bytes = Buffer.alloc(sketch.length * 4)
      for (const [i, value] of sketch.entries()) bytes.writeUInt32LE(value, i * 4)
      return `${untilMs.toString(36)}:${bytes.toString('base64url')}`
    })
    .join(' ')

function read(note: string | null): Remembered[] {
  if (note === null || note === '') return []
  return note.split(' ').map(part => {
    const at = part.indexOf(':')
    const bytes = Buffer.from(part.slice(at + 1), 'base64url')
    return {
      untilMs: Number.parseInt(part.slice(0, at), 36),
      sketch: Uint32Array.from({ length: bytes.length >> 2 }, (_, i) => bytes.readUInt32LE(i * 4)),
    }
  })
}
