import { AppError } from '../errors.ts'
import { isId } from '../db/ids.ts'

/** What one key of a keyset is; a cursor that came back with anything else was not issued by us. */
export type CursorKind = 'id' | 'int' | 'text' | 'time'

/** A key as it travels: ids, texts and times (ISO 8601) as strings, whole numbers as numbers. */
export type CursorKey = string | number

/** Far beyond any keyset of ours; a longer text is refused before it is decoded. */
const MAX_LENGTH = 2048
const MAX_KEYS = 8
const BASE64URL = /^[A-Za-z0-9_-]+$/

/**
 * The opaque place in a list where the next page begins: the list's name and the keyset of the last row shown.
 * It is neither secret nor signed: statements carry the tenant besides, so a forged one reaches no other row.
 */
export function encodeCursor(list: string, keys: readonly (CursorKey | Date)[]): string {
  const plain = keys.map(key => (key instanceof Date ? key.toISOString() : key))
  return Buffer.from(JSON.stringify([list, ...plain])).toString('base64url')
}

/**
 * The keys that `encodeCursor` got. Name the `kinds` of a keyset whose column is not text: PostgreSQL would
 * answer a forged key of the wrong kind with an error of its own.
 *
 * @throws AppError invalid_cursor, also for a cursor of another list
 */
export function decodeCursor(list: string, text: string, kinds?: readonly CursorKind[]): CursorKey[] {
  const [name, ...keys] = parse(text)
  if (name !== list) throw refused()
  if (kinds === undefined ? keys.length > MAX_KEYS : keys.length !== kinds.length) throw refused()
  for (const [i, key] of keys.entries()) if (!fits(key, kinds?.[i])) throw refused()
  return keys as CursorKey[]
}

function parse(text: string): unknown[] {
  if (text.length > MAX_LENGTH || !BASE64URL.test(text)) throw refused()
  try {
    const value: unknown = JSON.parse(Buffer.from(text, 'base64url').toString('utf8'))
    if (Array.isArray(value)) return value
  } catch {}
  throw refused()
}

function fits(key: unknown, kind: CursorKind | undefined): boolean {
  if (typeof key === 'number') return Number.isSafeInteger(key) && (kind === undefined || kind === 'int')
  if (typeof key !== 'string' || key.includes('\0') || !key.isWellFormed()) return false
  if (kind === 'id') return isId(key)
  if (kind === 'time') return isTime(key)
  return kind !== 'int'
}

/** Exactly what `Date.toISOString` writes for the years PostgreSQL and people share. */
function isTime(text: string): boolean {
  const ms = Date.parse(text)
  return !Number.isNaN(ms) && text.length === 24 && new Date(ms).toISOString() === text
}

const refused = () =>
  new AppError('invalid_cursor', 'Use nextCursor of this list exactly as it was returned.', {
    field: 'cursor',
  })
