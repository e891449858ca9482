import { AppError } from '../errors.ts'

export const IMAGE_TYPES = ['image/png', 'image/jpeg', 'image/gif', 'image/webp'] as const
export type ImageType = (typeof IMAGE_TYPES)[number]

/** What the bytes say of themselves. */
export interface Image {
  type: ImageType
  /** In pixels. */
  width: number
  height: number
}

/** Whoever opens a picture needs four bytes for each of its pixels, however few it has as a file. */
export const MAX_SIDE = 10_000
export const MAX_PIXELS = 40_000_000

export const EXTENSIONS: Record<ImageType, string> = {
  'image/png': 'png',
  'image/jpeg': 'jpg',
  'image/gif': 'gif',
  'image/webp': 'webp',
}

/**
 * Reads type and size of a picture from its bytes: never from a name or a header, which say what somebody wishes.
 *
 * SVG is refused: it is a document that may bring scripts, and mail clients do not show it
 * (https://www.caniemail.com/features/image-svg/).
 *
 * @throws AppError unsupported_media_type for anything but a whole PNG, JPEG, GIF or WebP; invalid_request for one of
 * more than MAX_SIDE or MAX_PIXELS
 */
export function readImage(bytes: Buffer): Image {
  const image = readPng(bytes) ?? readJpeg(bytes) ?? readGif(bytes) ?? readWebp(bytes)
  if (!image) {
    throw new AppError(
      'unsupported_media_type',
      looksLikeSvg(bytes)
        ? 'SVG may bring scripts, and mail clients do not show it. Send PNG, JPEG, GIF or WebP.'
        : 'These bytes are no PNG, JPEG, GIF or WebP picture, or not a whole one.',
    )
  }
  const { width, height } = image
  if (width === 0 || height === 0 || width > MAX_SIDE || height > MAX_SIDE || width * height > MAX_PIXELS) {
    throw new AppError(
      'invalid_request',
      `A picture has 1 to ${MAX_SIDE} pixels a side and at most ${MAX_PIXELS} in all; this one has ${width} × ${height}.`,
    )
  }
  return image
}

const PNG = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a])

/** W3C PNG, §5: the signature, then chunks of length, name, data and sum, IHDR first and IEND last. */
function readPng(bytes: Buffer): Image | undefined {
  if (bytes.length < 45 || !bytes.subarray(0, 8).equals(PNG)) return undefined
  if (bytes.readUInt32BE(8) !== 13 || bytes.toString('latin1', 12, 16) !== 'IHDR') return undefined
  let at = 8
  while (at + 12 <= bytes.length) {
    const name = bytes.toString('latin1', at + 4, at + 8)
    at += 12 + bytes.readUInt32BE(at)
    if (name === 'IEND') {
      return at > bytes.length
        ? undefined
        : { type: 'image/png', width: bytes.readUInt32BE(16), height: bytes.readUInt32BE(20) }
    }
  }
  return undefined
}

/**
 * ITU-T T.81, annex B: markers, of which SOF0 to SOF15 without DHT, JPG and DAC (C4, C8, CC) say the size. A picture
 * begins with SOI and has EOI; cameras append more behind it.
 */
function readJpeg(bytes: Buffer): Image | undefined {
  if (bytes.length < 4 || bytes[0] !== 0xff || bytes[1] !== 0xd8) return undefined
  let at = 2
  while (at + 4 <= bytes.length) {
    if (bytes[at] !== 0xff) return undefined
    const marker = bytes[at + 1]!
    // Fill bytes, §B.1.1.2.
    if (marker === 0xff) {
      at++
      continue
    }
    const length = bytes.readUInt16BE(at + 2)
    if (marker >= 0xc0 && marker <= 0xcf && marker !== 0xc4 && marker !== 0xc8 && marker !== 0xcc) {
      if (length < 8 || at + 9 > bytes.length || bytes.lastIndexOf(Buffer.from([0xff, 0xd9])) < at)
        return undefined
      return { type: 'image/jpeg', height: bytes.readUInt16BE(at + 5), width: bytes.readUInt16BE(at + 7) }
    }
    // The scan, or the end, before any size.
    if (marker === 0xda || marker === 0xd9 || length < 2) return undefined
    at += 2 + length
  }
  return undefined
}

/** GIF89a specification, §17, §18 and §27: header, logical screen, and a trailer; some writers pad behind it. */
function readGif(bytes: Buffer): Image | undefined {
  if (bytes.length < 14 || !/^GIF8[79]a$/.test(bytes.toString('latin1', 0, 6))) return undefined
  if (bytes.lastIndexOf(0x3b) < 13) return undefined
  return { type: 'image/gif', width: bytes.readUInt16LE(6), height: bytes.readUInt16LE(8) }
}

/** RFC 9649: a RIFF container whose first chunk is VP8 (lossy), VP8L (lossless) or VP8X (extended). */
function readWebp(bytes: Buffer): Image | undefined {
  if (bytes.length < 30 || bytes.toString('latin1', 0, 4) !== 'RIFF') return undefined
  if (bytes.toString('latin1', 8, 12) !== 'WEBP' || bytes.readUInt32LE(4) + 8 > bytes.length) return undefined
  const type = 'image/webp'
  switch (bytes.toString('latin1', 12, 16)) {
    case 'VP8 ':
      // RFC 6386 §9.1: a frame tag, the start code, then 14 bits a side.
      if (bytes.readUIntBE(23, 3) !== 0x9d012a) return undefined
      return { type, width: bytes.readUInt16LE(26) & 0x3fff, height: bytes.readUInt16LE(28) & 0x3fff }
    case 'VP8L': {
      if (bytes[20] !== 0x2f) return undefined
      const bits = bytes.readUInt32LE(21)
      return { type, width: (bits & 0x3fff) + 1, height: ((bits >>> 14) & 0x3fff) + 1 }
    }
    case 'VP8X':
      return { type, width: bytes.readUIntLE(24, 3) + 1, height: bytes.readUIntLE(27, 3) + 1 }
    default:
      return undefined
  }
}

const looksLikeSvg = (bytes: Buffer): boolean => /<svg[\s>]/i.test(bytes.toString('utf8', 0, 4_096))
