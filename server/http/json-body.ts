import { isUtf8 } from 'node:buffer'
import { AppError } from '../errors.ts'

/**
 * Deeper than any real event (GitHub's deepest webhook has 7 levels), far from where a recursive function,
 * such as JSON.stringify, runs out of stack.
 */
export const MAX_DEPTH = 64

/**
 * Refuses what JSON allows and nobody behind us can hold: invalid UTF-8, NUL characters and half surrogate pairs
 * (PostgreSQL refuses both in text and jsonb), nesting without end.
 *
 * `parse` must not recurse itself; V8's JSON.parse does not. Looking through the parsed value costs a tenth of
 * parsing it, and a third of looking for brackets in the text.
 *
 * @throws AppError malformed_body, invalid_request; or what `parse` throws
 */
export function parseJsonBody(body: Buffer, parse: (text: string) => unknown): unknown {
  if (body.length === 0) return undefined
  if (!isUtf8(body)) throw new AppError('malformed_body', 'The body is not valid UTF-8.')
  const text = body.toString('utf8')
  const value = parse(text)
  // Only an escape can bring either into valid UTF-8, and most bodies have none.
  check(value, 0, text.includes('\\u'))
  return value
}

/** Every text in it, names included, is looked at only where `texts` says so. */
function check(value: unknown, depth: number, texts: boolean): void {
  if (typeof value === 'string') {
    if (texts && !storable(value)) throw unstorable()
    return
  }
  if (typeof value !== 'object' || value === null) return
  if (depth === MAX_DEPTH) {
    throw new AppError('invalid_request', `The body is nested more than ${MAX_DEPTH} levels deep.`)
  }
  if (Array.isArray(value)) {
    for (const part of value) check(part, depth + 1, texts)
    return
  }
  for (const name in value) {
    if (texts && !storable(name)) throw unstorable()
    check((value as Record<string, unknown>)[name], depth + 1, texts)
  }
}

const storable = (text: string): boolean => !text.includes('\0') && text.isWellFormed()

const unstorable = () =>
  new AppError(
    'invalid_request',
    'A text holds a NUL character or half a surrogate pair; neither can be stored.',
  )
