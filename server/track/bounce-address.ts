import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { isId } from '../db/ids.ts'
import type { Id } from '../types.ts'

/**
 * Addresses to which bounces come back, one for each notification: `bounces+<token>@mail.example.org` (VERP). Whoever
 * writes to one has seen the message, so a bounce that nobody can have sent is not believed.
 */
export interface BounceAddresses {
  addressFor(notificationId: Id): string | undefined
  /** The notification of one of these addresses; undefined for what we did not make. */
  read(address: string): Id | undefined
  /** The address without a token: where mailbox providers send complaints. */
  isBare(address: string): boolean
  /** The notification named by the first address of ours within a text. */
  find(text: string): Id | undefined
}

/**
 * The token is base32, as servers on the way may change the case of letters, of
 *
 *     notification id (16) | MAC (10)
 *
 * HMAC-SHA-256 cut to the 80 bits that RFC 2104 §5 has as the least; it guards one fact about one message.
 */
const ID_BYTES = 16
const MAC_BYTES = 10
const TOKEN_CHARS = Math.ceil(((ID_BYTES + MAC_BYTES) * 8) / 5)
const ALPHABET = 'abcdefghijklmnopqrstuvwxyz234567'
/** Addresses of ours looked at in one text. */
const MOST_FOUND = 20

export function bounceAddresses(options: {
  /** `bounces@mail.example.org`, in lower case. */
  address: string
  /** Of `derivedKeys` (server/db/seal.ts): the last one signs, all are believed. */
  keys: readonly Buffer[]
}): BounceAddresses {
  const [name, domain] = options.address.split('@') as [string, string]
  const keys = options.keys.map(key => createSecretKey(key))
  const newest = keys.at(-1)!
  const macOf = (key: KeyObject, id: Buffer) =>
    createHmac('sha256', key).update(id).digest().subarray(0, MAC_BYTES)
  const escaped = options.address.replaceAll(/[.+-]/g, '\\$&').split('@') as [string, string]
  const ours = new RegExp(
    `(?<![\\w.+-])${escaped[0]}\\+([a-z2-7]{${TOKEN_CHARS}})@${escaped[1]}(?![\\w-])`,
    'gi',
  )

  function idOf(token: string): Id | undefined {
    const bytes = fromBase32(token.toLowerCase())
    if (!bytes) return undefined
    const [id, mac] = [bytes.subarray(0, ID_BYTES), bytes.subarray(ID_BYTES)]
    if (!keys.some(key => timingSafeEqual(macOf(key, id), mac))) return undefined
    return id.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
  }

  const find = (text: string): Id | undefined => {
    let looked = 0
    for (const [, token] of text.matchAll(ours)) {
      const id = idOf(token!)
      if (id !== undefined || ++looked === MOST_FOUND) return id
    }
    return undefined
  }

  return {
    addressFor(notificationId) {
      if (!isId(notificationId)) return undefined
      const id = Buffer.from(notificationId.replaceAll('-', ''), 'hex')
      return `${name}+${toBase32(Buffer.concat([id, macOf(newest, id)]))}@${domain}`
    },
    read: address =>
      address.length === name.length + 1 + TOKEN_CHARS + 1 + domain.length ? find(address) : undefined,
    isBare: address => address.toLowerCase() === options.address,
    find,
  }
}

/** RFC 4648 §6, without padding, in lower case. */
function toBase32(bytes: Buffer): string {
  let text = ''
  let bits = 0
  let value = 0
  for (const byte of bytes) {
    value = ((value << 8) | byte) & 0xfff
    bits += 8
    for (; bits >= 5; bits -= 5) text += ALPHABET[(value >> (bits - 5)) & 31]
  }
  return bits === 0 ? text : text + ALPHABET[(value << (5 - bits)) & 31]
}

/** Undefined for what `toBase32` does not write: one address is one spelling. */
function fromBase32(text: string): Buffer | undefined {
  const bytes: number[] = []
  let bits = 0
  let value = 0
  for (const letter of text) {
    value = ((value << 5) | ALPHABET.indexOf(letter)) & 0xfff
    bits += 5
    if (bits < 8) continue
    bits -= 8
    bytes.push((value >> bits) & 255)
  }
  const found = Buffer.from(bytes)
  return toBase32(found) === text ? found : undefined
}
