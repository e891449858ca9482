import { isUtf8 } from 'node:buffer'
import { AppError } from '../errors.ts'

/**
 * Deeper than any real event (GitHub's deepest webhook has 7 levels), far from where a recursive function,
 * such as JSON.stringify, runs out of stack.
 */
export const MAX_DEPTH = 64

// \u0000, or one half of a surrogate pair: rare in real bodies, so a hit alone says nothing.
const SUSPICIOUS = /\\u(?:0000|[dD][89a-fA-F])/

/**
 * Refuses, before or right after parsing, what JSON allows and nobody behind us can hold: invalid UTF-8, NUL
 * characters and half surrogate pairs (PostgreSQL refuses both in text and jsonb), nesting without end.
 *
 * @throws AppError malformed_body, invalid_request; or what `parse` throws
 */
export function parseJsonBody(body: Buffer, parse: (text: string) => unknown): unknown {
  if (body.length === 0) return undefined
  if (!isUtf8(body)) throw new AppError('malformed_body', 'The body is not valid UTF-8.')
  const text = body.toString('utf8')
  if (tooDeep(text)) {
    throw new AppError('invalid_request', `The body is nested more than ${MAX_DEPTH} levels deep.`)
  }
  const value = parse(text)
  if (SUSPICIOUS.test(text) && !storable(value)) {
    throw new AppError(
      'invalid_request',
      'A text holds a NUL character or half a surrogate pair; neither can be stored.',
    )
  }
  return value
}

const QUOTE = 0x22
const BACKSLASH = 0x5c

/** Counts brackets outside strings; what is no JSON anyway may be counted wrong. */
function tooDeep(text: string): boolean {
  let depth = 0
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (c === QUOTE) {
      do {
        i = text.indexOf('"', i + 1)
        if (i === -1) return false
      } while (escaped(text, i))
    } else if (c === 0x7b || c === 0x5b) {
      if (++depth > MAX_DEPTH) return true
    } else if (c === 0x7d || c === 0x5d) depth--
  }
  return false
}

function escaped(text: string, quote: number): boolean {
  let i = quote - 1
  while (text.charCodeAt(i) === BACKSLASH) i--
  return (quote - i) % 2 === 0
}

/** Whether every text in it, names included, can be stored. Nesting is bounded by then. */
function storable(value: unknown): boolean {
  if (typeof value === 'string') return !value.includes('\0') && value.isWellFormed()
  if (typeof value !== 'object' || value === null) return true
  if (Array.isArray(value)) return value.every(storable)
  return Object.entries(value).every(([name, part]) => storable(name) && storable(part))
}
