import { createCipheriv, createECDH, hkdfSync, randomBytes } from 'node:crypto'

/** Base64url, as VAPID (RFC 8292) and browsers write keys: 65 bytes of a P-256 point, 32 of its private number. */
export interface VapidKeys {
  publicKey: string
  privateKey: string
}

/** The key pair of an installation. A new one makes every subscription useless: browsers subscribe with it. */
export function generateVapidKeys(): VapidKeys {
  const pair = createECDH('prime256v1')
  pair.generateKeys()
  const privateKey = pair.getPrivateKey()
  // A private number with leading zero bytes comes without them.
  const whole = Buffer.concat([Buffer.alloc(32 - privateKey.length), privateKey])
  return { publicKey: pair.getPublicKey('base64url'), privateKey: whole.toString('base64url') }
}

/** Undefined where the private key is none. */
export function publicKeyOf(privateKey: string): string | undefined {
  try {
    const pair = createECDH('prime256v1')
    pair.setPrivateKey(Buffer.from(privateKey, 'base64url'))
    return pair.getPublicKey('base64url')
  } catch {
    return undefined
  }
}

const RECORD_SIZE = 4_096
const CEK_INFO = Buffer.from('Content-Encoding: aes128gcm\0')
const NONCE_INFO = Buffer.from('Content-Encoding: nonce\0')
const KEY_INFO = Buffer.from('WebPush: info\0')
/** RFC 8188 §2: of the last record, which is the only one. */
const DELIMITER = Buffer.from([2])

const hkdf = (ikm: Buffer, salt: Buffer, info: Buffer, length: number): Buffer =>
  Buffer.from(hkdfSync('sha256', ikm, salt, info, length))

/**
 * The body of a push message: one aes128gcm record (RFC 8188) under keys that only the browser can find (RFC 8291
 * §3). Undefined where the subscription's keys are none. `once` is for test vectors: each message has its own.
 */
export function encryptPush(
  text: Buffer,
  subscription: { p256dh: unknown; auth: unknown },
  once: { privateKey?: Buffer; salt: Buffer } = { salt: randomBytes(16) },
): Buffer | undefined {
  const theirs = bytesIn(subscription.p256dh)
  const auth = bytesIn(subscription.auth)
  if (theirs?.length !== 65 || auth?.length !== 16) return undefined
  const pair = createECDH('prime256v1')
  if (once.privateKey === undefined) pair.generateKeys()
  else pair.setPrivateKey(once.privateKey)
  const ours = pair.getPublicKey()
  let shared: Buffer
  try {
    shared = pair.computeSecret(theirs)
  } catch {
    // Not a point of the curve.
    return undefined
  }
  const ikm = hkdf(shared, auth, Buffer.concat([KEY_INFO, theirs, ours]), 32)
  const key = hkdf(ikm, once.salt, CEK_INFO, 16)
  const nonce = hkdf(ikm, once.salt, NONCE_INFO, 12)
  const cipher = createCipheriv('aes-128-gcm', key, nonce)
  const sizes = Buffer.alloc(5)
  sizes.writeUInt32BE(RECORD_SIZE)
  sizes[4] = ours.length
  return Buffer.concat([
    once.salt,
    sizes,
    ours,
    cipher.update(text),
    cipher.update(DELIMITER),
    cipher.final(),
    cipher.getAuthTag(),
  ])
}

const bytesIn = (value: unknown): Buffer | undefined =>
  typeof value === 'string' && /^[A-Za-z0-9_+/-]{1,100}={0,2}$/.test(value)
    ? Buffer.from(value, 'base64url')
    : undefined
