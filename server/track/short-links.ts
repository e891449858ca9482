import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject } from 'node:crypto'
import { type Queryable, sql } from '../db/pool.ts'
import type { PlannedLink } from '../ledger/plan.ts'
import { CODE_LENGTH, shortLength, withLinks } from '../text-links.ts'
import { CHANNELS } from '../types.ts'
import { type Tracked, type TrackingLinks, idOf, targetOf } from './links.ts'

/**
 * Links short enough for a text message, `<publicUrl>/s/<code>`. A signed target has no room there, so it is kept in a
 * table, in the transaction that accepts the message, and found by its code.
 *
 * The table tells nobody where a link leads: a row is named by a MAC of the code and sealed with a key made of the code,
 * and the code itself stands only in the message, which is sealed under its reader's key.
 */
export interface ShortLinks {
  /** For one message. `noted`, asked where something is shortened: whether its clicks are noticed. */
  of(to: Tracked, noted: () => boolean, now: Date): LinkShortener
  find(
    q: Queryable,
    code: string,
    now: Date,
  ): Promise<(Tracked & { target: string; noted: boolean }) | undefined>
}

export interface LinkShortener {
  /** The text with its http and https links short, where that makes them shorter; the same each time. */
  shorten(text: string): string
  /** What has to be kept for those that stand in a text. */
  kept(text: string): PlannedLink[]
}

/**
 * A code has 65 bits: guessing hits one of a billion links in 50 billion tries. It is made of what it stands for, so that
 * a text says the same however often it is written. That two of a billion links get one code has a chance of 1 in 100.
 */
const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz'
const CODES = 62n ** BigInt(CODE_LENGTH)
const VERSION = 1
const NAME_BYTES = 16
const TAG_BYTES = 16
const HEAD_BYTES = 19
// Each key seals one row.
const NONCE = Buffer.alloc(12)
/** No text is so full of links; what is beyond stays long. */
const MAX_LINKS = 20

const find = sql(
  'find_short_link',
  `select tenant_id as "tenantId", hash, box from short_links
   where hash = any ($1::bytea[]) and expires_at > $2 limit 1`,
)

export function shortLinks(options: {
  /** Without a slash at the end. */
  publicUrl: string
  /** Of `derivedKeys` (server/db/seal.ts): the last one makes codes, all are believed. */
  keys: readonly Buffer[]
  /** How long a link leads on. */
  keptMs: number
  links: Pick<TrackingLinks, 'own'>
}): ShortLinks {
  const { publicUrl, keptMs, links } = options
  const keys = options.keys.map(key => createSecretKey(key))
  const newest = keys.at(-1)
  if (newest === undefined) throw new Error('Short links need a key')
  const length = shortLength(publicUrl)
  const mac = (key: KeyObject, what: string, text: Buffer | string) =>
    createHmac('sha256', key).update(what).update(text).digest()
  const nameOf = (key: KeyObject, code: string) => mac(key, 'name', code).subarray(0, NAME_BYTES)

  return {
    of(to, noted, now) {
      const made = new Map<string, { code: string; plain: Buffer }>()
      const codeOf = (url: string): string | undefined => {
        const target = targetOf(url)
        if (target === undefined) return undefined
        let known = made.get(target)
        if (!known) {
          if (made.size >= MAX_LINKS) return undefined
          const plain = plainOf(to, noted(), target)
          const tenant = Buffer.alloc(4)
          tenant.writeUInt32BE(to.tenantId)
          known = { code: inDigits(mac(newest, 'code', Buffer.concat([tenant, plain]))), plain }
          made.set(target, known)
        }
        return known.code
      }
      return {
        shorten: text =>
          withLinks(text, url => {
            if (url.length <= length || links.own(url)) return url
            const code = codeOf(url)
            return code === undefined ? url : `${publicUrl}/s/${code}`
          }),
        kept(text) {
          const kept: PlannedLink[] = []
          for (const { code, plain } of made.values()) {
            if (!text.includes(`/s/${code}`)) continue
            kept.push({
              tenantId: to.tenantId,
              hash: nameOf(newest, code),
              box: sealed(mac(newest, 'box', code), plain),
              expiresAt: new Date(now.getTime() + keptMs),
            })
          }
          return kept
        },
      }
    },
    async find(q, code, now) {
      if (code.length !== CODE_LENGTH || !/^[0-9A-Za-z]+$/.test(code)) return undefined
      const names = keys.map(key => nameOf(key, code))
      const row = await q.one<{ tenantId: number; hash: Buffer; box: Buffer }>(find, [names, now])
      const key = row && keys[names.findIndex(name => name.equals(row.hash))]
      const plain = key && opened(mac(key, 'box', code), row.box)
      const channel = plain && CHANNELS[plain[2]!]
      if (!plain || plain[0] !== VERSION || channel === undefined) return undefined
      return {
        tenantId: row.tenantId,
        notificationId: idOf(plain.subarray(3, HEAD_BYTES)),
        channel,
        noted: plain[1] === 1,
        target: plain.toString('latin1', HEAD_BYTES),
      }
    },
  }
}

/** version (1) | noted (1) | channel (1) | notification id (16) | target, ASCII */
function plainOf({ notificationId, channel }: Tracked, noted: boolean, target: string): Buffer {
  const plain = Buffer.alloc(HEAD_BYTES + target.length)
  plain[0] = VERSION
  plain[1] = noted ? 1 : 0
  plain[2] = CHANNELS.indexOf(channel)
  plain.write(notificationId.replaceAll('-', ''), 3, 'hex')
  plain.write(target, HEAD_BYTES, 'latin1')
  return plain
}

function inDigits(bytes: Buffer): string {
  let rest = BigInt(`0x${bytes.toString('hex')}`) % CODES
  let code = ''
  for (let at = 0; at < CODE_LENGTH; at++) {
    code = DIGITS[Number(rest % 62n)]! + code
    rest /= 62n
  }
  return code
}

function sealed(key: Buffer, plain: Buffer): Buffer {
  const cipher = createCipheriv('aes-256-gcm', key, NONCE)
  return Buffer.concat([cipher.update(plain), cipher.final(), cipher.getAuthTag()])
}

function opened(key: Buffer, box: Buffer): Buffer | undefined {
  const cipher = createDecipheriv('aes-256-gcm', key, NONCE, { authTagLength: TAG_BYTES })
  cipher.setAuthTag(box.subarray(-TAG_BYTES))
  try {
    return Buffer.concat([cipher.update(box.subarray(0, -TAG_BYTES)), cipher.final()])
  } catch {
    return undefined
  }
}
