import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { isId } from '../db/ids.ts'
import { CHANNELS, type Channel, type Id, type TenantId, type UserId } from '../types.ts'

/** Whom an unsubscribe link is for. */
export interface Unsubscribe {
  tenantId: TenantId
  userId: UserId
  channel: Channel
  /** The notification the link came with. */
  notificationId?: Id
}

/** Links that switch one channel of one person off: `<publicUrl>/u/<token>` (RFC 8058, RFC 2369 §3.2). */
export interface UnsubscribeLinks {
  urlFor(tenantId: TenantId, userId: UserId, channel: Channel, notificationId?: Id): string
  /** Undefined when it was not signed by one of the keys, or is not of this version. */
  read(token: string): Unsubscribe | undefined
}

/**
 * The token is base64url of
 *
 *     1 | channel (1) | tenant (4) | 0, or 1 and notification id (16) | user id, UTF-8 | MAC (16)
 *
 * It never expires: a link must work as long as somebody keeps the message. The MAC is HMAC-SHA-256 cut to 128
 * bits (RFC 2104 §5 allows half).
 */
const VERSION = 1
const MAC_BYTES = 16
const ID_BYTES = 16
/** Version, channel, tenant, whether a notification follows. */
const HEAD_BYTES = 7
/** 255 characters of four bytes each, a notification id, and the rest; a longer one is not even decoded. */
const MAX_TOKEN = Math.ceil(((HEAD_BYTES + ID_BYTES + 255 * 4 + MAC_BYTES) * 4) / 3)

/**
 * `key` is of `derivedKeys` (server/db/seal.ts): one, or several of which the last one signs and all are believed,
 * so that links outlive a change of the master key as long as the old one stays in the ring.
 */
export function unsubscribeLinks(options: {
  /** Without a slash at the end. */
  publicUrl: string
  key: Buffer | readonly Buffer[]
}): UnsubscribeLinks {
  // As KeyObjects: with the bytes themselves each MAC costs five times as much.
  const keys = [options.key].flat().map(key => createSecretKey(key))
  const newest = keys.at(-1)
  if (newest === undefined) throw new Error('Unsubscribe links need a key')
  const macOf = (key: KeyObject, text: Buffer) =>
    createHmac('sha256', key).update(text).digest().subarray(0, MAC_BYTES)

  return {
    urlFor(tenantId, userId, channel, notificationId) {
      const head = Buffer.alloc(HEAD_BYTES)
      head[0] = VERSION
      head[1] = CHANNELS.indexOf(channel)
      head.writeUInt32BE(tenantId, 2)
      // An id of another shape is no id of ours; the link works without it.
      const id = notificationId !== undefined && isId(notificationId) ? bytesOf(notificationId) : NOTHING
      head[6] = id.length === 0 ? 0 : 1
      const text = Buffer.concat([head, id, Buffer.from(userId, 'utf8')])
      const token = Buffer.concat([text, macOf(newest, text)]).toString('base64url')
      return `${options.publicUrl}/u/${token}`
    },

    read(token) {
      if (token.length > MAX_TOKEN) return undefined
      const bytes = Buffer.from(token, 'base64url')
      // Node skips what is not base64url: one link is one spelling.
      if (bytes.length <= HEAD_BYTES + MAC_BYTES || bytes.toString('base64url') !== token) return undefined
      const text = bytes.subarray(0, -MAC_BYTES)
      const mac = bytes.subarray(-MAC_BYTES)
      if (!keys.some(key => timingSafeEqual(macOf(key, text), mac))) return undefined

      const channel = CHANNELS[text[1]!]
      if (text[0] !== VERSION || channel === undefined) return undefined
      const end = text[6] === 1 ? HEAD_BYTES + ID_BYTES : HEAD_BYTES
      const userId = text.toString('utf8', end)
      const found: Unsubscribe = { tenantId: text.readUInt32BE(2), userId, channel }
      if (text[6] === 1) found.notificationId = idOf(text.subarray(HEAD_BYTES, end))
      return found
    },
  }
}

const NOTHING = Buffer.alloc(0)
const bytesOf = (id: Id) => Buffer.from(id.replaceAll('-', ''), 'hex')
const idOf = (bytes: Buffer): Id =>
  bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
