import { randomFillSync } from 'node:crypto'

/**
 * uuidv7 (RFC 9562 §5.7) that never goes backwards within a process: the 12 bits after the time count up inside
 * one millisecond, and an overflow or a clock that steps back borrows from the next millisecond (§6.2 method 1).
 * Strict order is what lets a batch, or an event, name its rows by first and last id.
 */
const pool = Buffer.allocUnsafe(8 * 512)
let used = pool.length
let lastMs = 0
let counter = 0

const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))

export function newId(nowMs: number = Date.now()): string {
  if (nowMs > lastMs) {
    lastMs = nowMs
    // Start low, so that a burst inside one millisecond rarely has to borrow.
    counter = 0
  } else if (++counter > 0xfff) {
    lastMs++
    counter = 0
  }
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const time = lastMs.toString(16).padStart(12, '0')
  const r = pool
  const i = used
  used += 8
  return (
    `${time.slice(0, 8)}-${time.slice(8)}-7${counter.toString(16).padStart(3, '0')}-` +
    `${HEX[(r[i]! & 0x3f) | 0x80]}${HEX[r[i + 1]!]}-` +
    `${HEX[r[i + 2]!]}${HEX[r[i + 3]!]}${HEX[r[i + 4]!]}${HEX[r[i + 5]!]}${HEX[r[i + 6]!]}${HEX[r[i + 7]!]}`
  )
}

/** The instant inside a uuidv7, in milliseconds since 1970. */
export const idTime = (id: string): number => Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)

/** The smallest uuid of that millisecond: a bound for partition pruning and keyset lists by time. */
export function idFloor(ms: number): string {
  const time = Math.max(0, Math.floor(ms)).toString(16).padStart(12, '0')
  return `${time.slice(0, 8)}-${time.slice(8)}-7000-8000-000000000000`
}

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export const isId = (text: string): boolean => UUID.test(text)
