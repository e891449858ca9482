import { Type } from 'typebox'
import { AppError } from '../errors.ts'
import { CHANNELS, type JsonObject } from '../types.ts'

/**
 * A user's id: the caller's own opaque text. `defaults` and `global` are words in the paths where ids stand, and
 * no URL can carry `.` or `..` there; control characters would end up in logs and headers.
 */
export const UserIdField = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: '^(?!(?:defaults|global|\\.{1,2})$)[^\\u0000-\\u001f\\u007f]+$',
  description: 'Your own id of the person; `defaults` and `global` are taken.',
})

/** The name of a group, role or topic. */
export const AudienceNameField = Type.String({
  minLength: 1,
  maxLength: 255,
  pattern: '^(?!\\.{1,2}$)[^\\u0000-\\u001f\\u007f]+$',
})

export const ChannelField = Type.Enum(CHANNELS)
export const IdField = Type.String({ format: 'uuid' })
export const TimeField = Type.String({ format: 'date-time' })
export const MaybeTimeField = Type.Union([TimeField, Type.Null()])
export const LocaleField = Type.String({
  minLength: 2,
  maxLength: 35,
  description: 'BCP 47 language tag, such as `de-CH`.',
})
export const TimezoneField = Type.String({
  minLength: 1,
  maxLength: 64,
  description: 'IANA zone name, such as `Europe/Zurich`.',
})

/** @throws AppError invalid_request when it is no BCP 47 tag; otherwise its canonical form: `de-ch` → `de-CH` */
export function canonicalLocale(tag: string, field: string): string {
  try {
    const canonical = Intl.getCanonicalLocales(tag)[0]
    // Canonical forms can be longer than what was given; the column has room for 35 (RFC 5646 §4.4.1).
    if (canonical !== undefined && canonical.length <= 35) return canonical
  } catch {}
  throw new AppError('invalid_request', `"${tag.slice(0, 35)}" is not a BCP 47 language tag.`, { field })
}

/** Bytes of JSON: what one person's attributes may take. */
export const MAX_ATTRIBUTES = 16_384

/** @throws AppError invalid_request when they are larger than a row should be */
export function checkAttributes(attributes: JsonObject, field: string): JsonObject {
  if (Buffer.byteLength(JSON.stringify(attributes)) > MAX_ATTRIBUTES) {
    throw new AppError('invalid_request', `Attributes take at most ${MAX_ATTRIBUTES} bytes of JSON.`, {
      field,
    })
  }
  return attributes
}

export const LevelField = Type.Enum(['ALL', 'IMPORTANT', 'NONE'], {
  description: 'What of a topic a person wants; NONE is a refusal that stays.',
})
