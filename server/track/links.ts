import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { isId } from '../db/ids.ts'
import { isOwnLink } from '../text-links.ts'
import { CHANNELS, type Channel, type Id, type TenantId } from '../types.ts'

/** The delivery a link or a picture was in. */
export interface Tracked {
  tenantId: TenantId
  notificationId: Id
  channel: Channel
}

/**
 * Links that come to us first and go on to where they were meant to (`<publicUrl>/l/<token>`), and the picture of one
 * pixel whose loading says that a mail was opened (`<publicUrl>/i/<token>`). The target is part of what is signed: this
 * server redirects only to where one of its own messages points. Nothing is looked up to follow one.
 */
export interface TrackingLinks {
  /** Undefined for a target that is not to be wrapped: no absolute http or https URL, or too long. */
  linkFor(to: Tracked, target: string): string | undefined
  pictureFor(to: Tracked): string
  readLink(token: string): (Tracked & { target: string }) | undefined
  readPicture(token: string): Tracked | undefined
  /** Whether an address is one of ours that must stay as it is: unsubscribing, preferences, a link of this kind. */
  own(url: string): boolean
}

/**
 * The token is base64url of
 *
 *     1 | kind (1) | channel (1) | tenant (4) | notification id (16) | target, ASCII | MAC (16)
 *
 * The MAC is HMAC-SHA-256 cut to 128 bits (RFC 2104 §5 allows half). It never expires: a mail is kept for years.
 */
const VERSION = 1
const LINK = 1
const PICTURE = 2
const MAC_BYTES = 16
const HEAD_BYTES = 23
/** Mail programs and proxies cut addresses beyond some 2,000 to 4,000 characters; base64 adds a third. */
const MAX_TARGET = 2_000
export const MAX_TOKEN = Math.ceil(((HEAD_BYTES + MAX_TARGET + MAC_BYTES) * 4) / 3)

export function trackingLinks(options: {
  /** Without a slash at the end. */
  publicUrl: string
  /** Of `derivedKeys` (server/db/seal.ts): the last one signs, all are believed. */
  keys: readonly Buffer[]
}): TrackingLinks {
  const { publicUrl } = options
  // As a KeyObject: with the bytes themselves each MAC costs five times as much.
  const keys = options.keys.map(key => createSecretKey(key))
  const newest = keys.at(-1)
  if (newest === undefined) throw new Error('Tracking links need a key')
  const macOf = (key: KeyObject, text: Buffer) =>
    createHmac('sha256', key).update(text).digest().subarray(0, MAC_BYTES)

  function tokenOf(kind: number, { tenantId, notificationId, channel }: Tracked, target: string): string {
    const text = Buffer.alloc(HEAD_BYTES + target.length)
    text[0] = VERSION
    text[1] = kind
    text[2] = CHANNELS.indexOf(channel)
    text.writeUInt32BE(tenantId, 3)
    text.write(notificationId.replaceAll('-', ''), 7, 'hex')
    text.write(target, HEAD_BYTES, 'latin1')
    return Buffer.concat([text, macOf(newest!, text)]).toString('base64url')
  }

  function read(kind: number, token: string): (Tracked & { target: string }) | undefined {
    if (token.length > MAX_TOKEN) return undefined
    const bytes = Buffer.from(token, 'base64url')
    // Node skips what is not base64url: one link is one spelling.
    if (bytes.length < HEAD_BYTES + MAC_BYTES || bytes.toString('base64url') !== token) return undefined
    const text = bytes.subarray(0, -MAC_BYTES)
    const mac = bytes.subarray(-MAC_BYTES)
    if (!keys.some(key => timingSafeEqual(macOf(key, text), mac))) return undefined
    const channel = CHANNELS[text[2]!]
    const target = text.toString('latin1', HEAD_BYTES)
    if (text[0] !== VERSION || text[1] !== kind || channel === undefined) return undefined
    if ((kind === LINK) !== (targetOf(target) === target)) return undefined
    return {
      tenantId: text.readUInt32BE(3),
      notificationId: idOf(text.subarray(7, HEAD_BYTES)),
      channel,
      target,
    }
  }

  return {
    linkFor(to, target) {
      const url = targetOf(target)
      if (url === undefined || !isId(to.notificationId)) return undefined
      return `${publicUrl}/l/${tokenOf(LINK, to, url)}`
    },
    pictureFor: to => `${publicUrl}/i/${tokenOf(PICTURE, to, '')}`,
    readLink: token => read(LINK, token),
    readPicture(token) {
      const found = read(PICTURE, token)
      return (
        found && { tenantId: found.tenantId, notificationId: found.notificationId, channel: found.channel }
      )
    },
    own: url => isOwnLink(publicUrl, url),
  }
}

/** As the browser would ask for it, all ASCII; undefined for anything but an http or https URL of bounded length. */
export function targetOf(text: string): string | undefined {
  if (!/^https?:\/\//i.test(text) || text.length > MAX_TARGET) return undefined
  const url = URL.parse(text)
  if (!url || (url.protocol !== 'http:' && url.protocol !== 'https:')) return undefined
  return url.href.length <= MAX_TARGET ? url.href : undefined
}

export const idOf = (bytes: Buffer): Id =>
  bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
