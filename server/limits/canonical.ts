import { hash } from 'node:crypto'

/** What a fingerprint is taken of: JSON, and whole numbers beyond its range. */
export type Canonical =
  | string
  | number
  | boolean
  | bigint
  | null
  | undefined
  | readonly Canonical[]
  | { readonly [key: string]: Canonical }

/** Deeper than any decision's data; what goes deeper is refused rather than overflowing the stack. */
const MAX_DEPTH = 64

/**
 * One text for each value, however its keys are ordered: keys by code unit as in RFC 8785, no spaces, undefined
 * left out of objects and null in lists, as JSON has it. A bigint is a string, as it is on its way in and out.
 *
 * @throws RangeError for what JSON cannot say (NaN, Infinity) and for more than 64 levels
 */
export function canonicalJson(value: Canonical, depth = 0): string {
  if (depth > MAX_DEPTH) throw new RangeError(`Nested more than ${MAX_DEPTH} levels deep`)
  if (value === null || value === undefined) return 'null'
  if (typeof value === 'bigint') return `"${value}"`
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new RangeError(`${value} has no JSON`)
    // -0 and 0 are the same number.
    return JSON.stringify(value === 0 ? 0 : value)
  }
  if (typeof value !== 'object') return JSON.stringify(value)
  if (isList(value)) return `[${value.map(item => canonicalJson(item, depth + 1)).join(',')}]`
  const parts: string[] = []
  for (const key of Object.keys(value).toSorted(byCodeUnit)) {
    const item = value[key]
    if (item !== undefined) parts.push(`${JSON.stringify(key)}:${canonicalJson(item, depth + 1)}`)
  }
  return `{${parts.join(',')}}`
}

const isList = (value: object): value is readonly Canonical[] => Array.isArray(value)
const byCodeUnit = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

/** SHA-256 of the canonical text: 43 characters of base64url. */
export const fingerprint = (value: Canonical): string => hash('sha256', canonicalJson(value), 'base64url')
