import {
  createCipheriv,
  createDecipheriv,
  createSecretKey,
  hkdfSync,
  type KeyObject,
  randomBytes,
  randomFillSync,
} from 'node:crypto'

/**
 * Sealing content with AES-256-GCM (NIST SP 800-38D).
 *
 *     sealed content    1 | nonce (12) | ciphertext | tag (16)
 *     wrapped data key  1 | master key id (1) | nonce (12) | ciphertext (32) | tag (16)
 *
 * Content is sealed with a data key, one for each person or tenant; data keys are wrapped by the master key.
 * Destroying a wrapped data key therefore makes everything sealed with it unreadable, backups included.
 */
export interface Sealer {
  /** A fresh data key, wrapped by the newest master key: 62 bytes to be stored. */
  newDataKey(): Buffer
  /** @throws Error when the master key is unknown or the bytes are not what was wrapped. */
  unwrap(wrapped: Buffer): Buffer
  /** The same data key under the newest master key; undefined when it is wrapped by that one already. */
  rewrap(wrapped: Buffer): Buffer | undefined
  /**
   * `key` is what `unwrap` gave; keep that buffer and pass it again, never change it. `aad` is not stored:
   * opening takes the same bytes again, so that content cannot be moved to another row.
   */
  seal(key: Buffer, plaintext: Buffer | string, aad?: Buffer | string): Buffer
  /** @throws Error when the key or `aad` is another one, or a bit of `sealed` was changed. */
  open(key: Buffer, sealed: Buffer, aad?: Buffer | string): Buffer
}

export interface MasterKey {
  /** 0 to 255; written into every data key it wraps. Never give an id to a second key. */
  id: number
  key: Buffer
}

const VERSION = 1
const KEY_BYTES = 32
const NONCE_BYTES = 12
const TAG_BYTES = 16
const WRAPPED_BYTES = 2 + NONCE_BYTES + KEY_BYTES + TAG_BYTES
const SEAL_HEAD = Buffer.from([VERSION])
// Without it Node would take shortened tags, which are easier to guess.
const OPTIONS = { authTagLength: TAG_BYTES }

/**
 * Reads the configured keyring, oldest key first: one key as 64 hex digits or 44 base64 characters, or several
 * as `id:key` separated by commas. A single key without an id has the id 0, so that rotating means to write
 * `0:<old>,1:<new>`. The message of the error never shows a key.
 */
export function parseMasterKeys(text: string): MasterKey[] {
  const parts = text.split(',').map(part => part.trim())
  const keys = parts.map((part, index) => {
    const [, id, encoded] = /^(?:(\d{1,3}):)?([^:]*)$/.exec(part) ?? []
    if (encoded === undefined || (id === undefined && parts.length > 1) || Number(id ?? 0) > 255) {
      throw new Error(
        `Master key ${index + 1}: with several keys each is written as <id from 0 to 255>:<key>`,
      )
    }
    return { id: Number(id ?? 0), key: decodeKey(encoded, index + 1) }
  })
  if (new Set(keys.map(key => key.id)).size !== keys.length)
    throw new Error('Two master keys have the same id')
  return keys
}

function decodeKey(encoded: string, place: number): Buffer {
  const key = /^[0-9a-f]{64}$/i.test(encoded)
    ? Buffer.from(encoded, 'hex')
    : /^[A-Za-z0-9+/_-]{43}=?$/.test(encoded)
      ? Buffer.from(encoded, 'base64')
      : Buffer.alloc(0)
  if (key.length === KEY_BYTES) return key
  throw new Error(`Master key ${place} is not 32 bytes in hex or base64; "openssl rand -hex 32" makes one`)
}

/**
 * Keys for another purpose than sealing, one of each master key in their order, so that the last is the newest:
 * HKDF with SHA-256 (RFC 5869), 32 bytes, `label` as info. No salt: a master key is uniformly random (§3.1). What one
 * label's key leaks says nothing about the master key or another label's.
 */
export function derivedKeys(masterKeys: string | readonly MasterKey[], label: string): Buffer[] {
  const ring = typeof masterKeys === 'string' ? parseMasterKeys(masterKeys) : masterKeys
  return ring.map(({ key }) => Buffer.from(hkdfSync('sha256', key, '', `carillon ${label}`, KEY_BYTES)))
}

/** The keyring may be given as configured, or parsed; its last key is the newest, which wraps. */
export function sealer(masterKeys: string | MasterKey[]): Sealer {
  const ring = typeof masterKeys === 'string' ? parseMasterKeys(masterKeys) : masterKeys
  const newest = ring.at(-1)
  if (newest === undefined) throw new Error('A sealer needs at least one master key')
  const masters = new Map(ring.map(({ id, key }) => [id, createSecretKey(key)]))
  const master = (id: number) => {
    const key = masters.get(id)
    if (key !== undefined) return key
    throw new Error(`The data key was wrapped by master key ${id}, which is not in the keyring`)
  }
  const wrapHead = Buffer.from([VERSION, newest.id])

  // The head is authenticated too: a wrapped key cannot be passed off as another master key's.
  const wrap = (dataKey: Buffer) => encrypt(master(newest.id), wrapHead, dataKey, wrapHead)

  function unwrap(wrapped: Buffer): Buffer {
    if (wrapped.length !== WRAPPED_BYTES || wrapped[0] !== VERSION) {
      throw new Error('These bytes are not a wrapped data key')
    }
    const head = wrapped.subarray(0, wrapHead.length)
    return decrypt(master(wrapped[1]!), wrapped, head.length, head, 'data key')
  }

  return {
    newDataKey: () => wrap(randomBytes(KEY_BYTES)),
    unwrap,
    rewrap: wrapped => (wrapped[1] === newest.id ? undefined : wrap(unwrap(wrapped))),
    seal: (key, plaintext, aad) => encrypt(imported(key), SEAL_HEAD, plaintext, aad),
    open(key, sealed, aad) {
      if (sealed.length < SEAL_HEAD.length + NONCE_BYTES + TAG_BYTES || sealed[0] !== VERSION) {
        throw new Error('These bytes are not sealed content')
      }
      return decrypt(imported(key), sealed, SEAL_HEAD.length, aad, 'content')
    },
  }
}

function encrypt(key: KeyObject, head: Buffer, plaintext: Buffer | string, aad?: Buffer | string): Buffer {
  const iv = nextNonce()
  const cipher = createCipheriv('aes-256-gcm', key, iv, OPTIONS)
  if (aad !== undefined) cipher.setAAD(asBuffer(aad))
  const body = cipher.update(asBuffer(plaintext))
  cipher.final() // No bytes are left in a stream mode; this makes the tag.
  const start = head.length + NONCE_BYTES
  const sealed = Buffer.allocUnsafe(start + body.length + TAG_BYTES)
  sealed.set(head, 0)
  sealed.set(iv, head.length)
  sealed.set(body, start)
  sealed.set(cipher.getAuthTag(), start + body.length)
  return sealed
}

function decrypt(
  key: KeyObject,
  sealed: Buffer,
  from: number,
  aad: Buffer | string | undefined,
  what: string,
): Buffer {
  const start = from + NONCE_BYTES
  const end = sealed.length - TAG_BYTES
  const decipher = createDecipheriv('aes-256-gcm', key, sealed.subarray(from, start), OPTIONS)
  if (aad !== undefined) decipher.setAAD(asBuffer(aad))
  decipher.setAuthTag(sealed.subarray(end))
  const plaintext = decipher.update(sealed.subarray(start, end))
  try {
    decipher.final()
  } catch (cause) {
    throw new Error(`The ${what} cannot be opened: it was changed, or belongs to another key or place`, {
      cause,
    })
  }
  return plaintext
}

/**
 * Nonces: 64 random bits drawn when this module loads (once in each process and worker), then a 32 bit counter,
 * and new random bits when the counter is through. Purely random nonces are limited to 2^32 messages a key
 * (SP 800-38D §8.3), which a tenant's key reaches in three days at 15,000 events a second. Here two nonces can
 * only be equal when two drawings of 64 bits are: for a key used through 10,000 starts and counter runs
 * (4 * 10^13 messages) that is one in 3 * 10^11.
 */
const nonce = Buffer.alloc(NONCE_BYTES)
let counter = 0xffff_ffff

/** The same buffer each time, filled anew: the cipher copies it when it is made. */
function nextNonce(): Buffer {
  if (counter === 0xffff_ffff) {
    randomFillSync(nonce, 0, 8)
    counter = 0
  } else {
    counter++
  }
  nonce.writeUInt32BE(counter, 8)
  return nonce
}

/**
 * Node takes 10 us to make a cipher from the bytes of a key and 1.5 us from one it has imported before. Kept on the
 * bytes: all entries of a WeakMap, one a person, are gone through at each collection, with everything at a stand.
 */
const IMPORTED: unique symbol = Symbol('imported key')

function imported(key: Buffer & { readonly [IMPORTED]?: KeyObject }): KeyObject {
  const known = key[IMPORTED]
  if (known !== undefined) return known
  const object = createSecretKey(key)
  Object.defineProperty(key, IMPORTED, { value: object })
  return object
}

const asBuffer = (value: Buffer | string): Buffer =>
  typeof value === 'string' ? Buffer.from(value, 'utf8') : value
