import { createHmac, timingSafeEqual } from 'node:crypto'
import type { TenantId } from '../types.ts'
import { EXTENSIONS, type ImageType } from './image.ts'

/** A file as a link names it. */
export interface FileKey {
  tenantId: TenantId
  /** 128 random bits in base64url: nobody comes upon one. */
  publicId: string
}

/** The addresses of files: `<publicUrl>/media/<tenant>-<public id>/<name>`. */
export interface AssetLinks {
  /** For as long as the file is there. */
  url(file: FileKey & { name: string; type: ImageType }): string
  /** The same with a signature, for a private file: until `expires`. */
  signedUrl(file: FileKey & { name: string; type: ImageType }, expires: Date): string
  /** Undefined for what names no file. */
  read(key: string): FileKey | undefined
  /** @returns until when it may be seen; undefined: not, or no more */
  check(file: FileKey, signature: { expires?: string; signature?: string }, now: Date): Date | undefined
}

const MAC_BYTES = 16
const PUBLIC_ID = /^[A-Za-z0-9_-]{22}$/

/**
 * The signature is HMAC-SHA-256 over tenant, file and end, cut to 128 bits (RFC 2104 §5). `key` is of `derivedKeys`: the
 * last one signs and all are believed, so that links outlive a change of the master key.
 */
export function assetLinks({ publicUrl, key }: { publicUrl: string; key: readonly Buffer[] }): AssetLinks {
  const newest = key.at(-1)
  if (newest === undefined) throw new Error('Links to assets need a key')
  const mac = (by: Buffer, { tenantId, publicId }: FileKey, expires: number) =>
    createHmac('sha256', by)
      .update(`asset\0${tenantId}\0${publicId}\0${expires}`)
      .digest()
      .subarray(0, MAC_BYTES)

  const url: AssetLinks['url'] = ({ tenantId, publicId, name, type }) =>
    `${publicUrl}/media/${tenantId}-${publicId}/${encodeURIComponent(fileName(name, type))}`

  return {
    url,
    signedUrl(file, expires) {
      const seconds = Math.floor(expires.getTime() / 1000)
      return `${url(file)}?expires=${seconds}&signature=${mac(newest, file, seconds).toString('base64url')}`
    },
    read(text) {
      const [, tenant, publicId] = /^(\d{1,10})-(.+)$/.exec(text) ?? []
      const tenantId = Number(tenant)
      if (publicId === undefined || !PUBLIC_ID.test(publicId) || tenantId > 0x7fff_ffff) return undefined
      return { tenantId, publicId }
    },
    check(file, { expires = '', signature = '' }, now) {
      if (!/^\d{1,11}$/.test(expires)) return undefined
      const given = Buffer.from(signature, 'base64url')
      // Node skips what is not base64url: one link is one spelling.
      if (given.length !== MAC_BYTES || given.toString('base64url') !== signature) return undefined
      const seconds = Number(expires)
      if (!key.some(by => timingSafeEqual(mac(by, file, seconds), given))) return undefined
      const until = new Date(seconds * 1000)
      return until > now ? until : undefined
    },
  }
}

/** `logo` is `logo.png`: what a browser saves it as. */
export const fileName = (name: string, type: ImageType): string => {
  const extension = EXTENSIONS[type]
  return name.toLowerCase().endsWith(`.${extension}`) ? name : `${name}.${extension}`
}
