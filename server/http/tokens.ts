import { createPublicKey } from 'node:crypto'
import {
  createLocalJWKSet,
  createRemoteJWKSet,
  decodeProtectedHeader,
  errors,
  type JWTPayload,
  type JWTVerifyGetKey,
  jwtVerify,
} from 'jose'
import { AppError } from '../errors.ts'
import { ROLES, type Role, SCOPES, type Scope } from './api.ts'

export const HMAC_ALGORITHMS = ['HS256', 'HS384', 'HS512'] as const
export const KEY_PAIR_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
  'Ed25519',
] as const
export type TokenAlgorithm = (typeof HMAC_ALGORITHMS)[number] | (typeof KEY_PAIR_ALGORITHMS)[number]

/** Whose tokens are believed. Any one of `secret`, `publicKey` and `jwksUrl`, or `secret` beside one of the others. */
export interface TokenSettings {
  /** For HS256/384/512 only: at least 32 bytes (RFC 7518 §3.2). */
  secret?: string | Uint8Array
  /** PEM (SPKI), a JWK, or a JWK set, as text: for RS, PS, ES and EdDSA only. */
  publicKey?: string
  /** Where the issuer publishes its keys. */
  jwksUrl?: string
  /** Narrows the allow-list, which is otherwise every algorithm that fits the keys given. Never `none`. */
  algorithms?: readonly TokenAlgorithm[]
  issuer?: string | string[]
  audience?: string | string[]
  /** The claim that names the tenant; default `tenant`. */
  tenantClaim?: string
  /** The tenant of tokens without that claim. Without it such tokens are refused. */
  defaultTenant?: string
  clockToleranceSeconds?: number
}

/** What a valid token says. */
export interface VerifiedToken {
  subject: string
  tenant: string
  role: Role
  scopes: readonly Scope[] | null
  /** Milliseconds since 1970, tolerance included. */
  validUntil: number
}

export interface TokenVerifier {
  /**
   * @returns undefined for a token that is not to be believed, whatever the reason
   * @throws AppError external_service_error when the issuer's keys cannot be fetched
   */
  verify(token: string, now: Date): Promise<VerifiedToken | undefined>
}

const MAX_TOKEN_LENGTH = 8_192
const MIN_SECRET_BYTES = 32
const DEFAULT_TOLERANCE_SECONDS = 30

/** @throws Error when the settings are unsafe or make no sense: they are read at start */
export function tokenVerifier(settings: TokenSettings): TokenVerifier {
  const secret = typeof settings.secret === 'string' ? Buffer.from(settings.secret) : settings.secret
  if (secret !== undefined && secret.length < MIN_SECRET_BYTES) {
    throw new Error(`The JWT secret is shorter than ${MIN_SECRET_BYTES} bytes.`)
  }
  const keyPairs = keyPairSource(settings)
  // One list per kind of key, so that a public key is never tried as an HMAC secret, nor the other way round
  // (RFC 8725 §2.1).
  const allowed = (all: readonly TokenAlgorithm[], usable: boolean): string[] =>
    usable ? all.filter(a => settings.algorithms === undefined || settings.algorithms.includes(a)) : []
  const hmac = allowed(HMAC_ALGORITHMS, secret !== undefined)
  const signed = allowed(KEY_PAIR_ALGORITHMS, keyPairs !== undefined)
  if (hmac.length + signed.length === 0)
    throw new Error('No JWT algorithm fits the keys that are configured.')

  const tolerance = settings.clockToleranceSeconds ?? DEFAULT_TOLERANCE_SECONDS
  const checks = {
    issuer: settings.issuer,
    audience: settings.audience,
    clockTolerance: tolerance,
    requiredClaims: ['sub', 'exp'],
  }

  return {
    async verify(token, now) {
      if (token.length > MAX_TOKEN_LENGTH) return undefined
      try {
        const { alg } = decodeProtectedHeader(token)
        const payload = hmac.includes(alg ?? '')
          ? (await jwtVerify(token, secret!, { ...checks, algorithms: hmac, currentDate: now })).payload
          : signed.includes(alg ?? '')
            ? (await jwtVerify(token, keyPairs!, { ...checks, algorithms: signed, currentDate: now })).payload
            : undefined
        return payload && fromClaims(payload, settings, tolerance)
      } catch (error) {
        if (error instanceof AppError) throw error
        return undefined
      }
    },
  }
}

function keyPairSource(settings: TokenSettings): JWTVerifyGetKey | undefined {
  const { publicKey, jwksUrl } = settings
  if (publicKey !== undefined && jwksUrl !== undefined) {
    throw new Error('Configure either a public key or a JWKS address, not both.')
  }
  if (jwksUrl !== undefined) return fetchedKeys(new URL(jwksUrl))
  if (publicKey === undefined) return undefined
  if (publicKey.trimStart().startsWith('{')) {
    const jwk = JSON.parse(publicKey)
    return createLocalJWKSet(Array.isArray(jwk.keys) ? jwk : { keys: [jwk] })
  }
  if (publicKey.includes('PRIVATE KEY')) throw new Error('The JWT public key is a private key.')
  const key = createPublicKey(publicKey)
  // jose refuses a key that does not fit the token's algorithm.
  return () => key
}

/** The issuer's keys, fetched when needed and kept ten minutes; an unknown key id asks again, at most twice a minute. */
function fetchedKeys(url: URL): JWTVerifyGetKey {
  const keys = createRemoteJWKSet(url, {
    timeoutDuration: 5_000,
    cooldownDuration: 30_000,
    cacheMaxAge: 600_000,
  })
  return async (header, token) => {
    try {
      return await keys(header, token)
    } catch (error) {
      if (NO_SUCH_KEY.some(refusal => error instanceof refusal)) throw error
      // The address was away, late or answered nonsense: nothing that the caller could put right.
      throw new AppError('external_service_error', "The token issuer's keys cannot be fetched. Try again.", {
        cause: error,
        retryAfterSeconds: 5,
      })
    }
  }
}

const NO_SUCH_KEY = [errors.JWKSNoMatchingKey, errors.JWKSMultipleMatchingKeys, errors.JOSENotSupported]

function fromClaims(
  claims: JWTPayload,
  settings: TokenSettings,
  toleranceSeconds: number,
): VerifiedToken | undefined {
  const tenant = claims[settings.tenantClaim ?? 'tenant'] ?? settings.defaultTenant
  const subject = claims.sub!
  if (typeof tenant !== 'string' || typeof subject !== 'string') return undefined
  if (subject.length === 0 || subject.length > 255 || subject.includes('\0') || !subject.isWellFormed()) {
    return undefined
  }
  return {
    subject,
    tenant,
    role: roleOf(claims),
    scopes: scopesOf(claims),
    validUntil: (claims.exp! + toleranceSeconds) * 1000,
  }
}

const texts = (claim: unknown): string[] =>
  typeof claim === 'string'
    ? claim.split(' ')
    : Array.isArray(claim)
      ? claim.filter(c => typeof c === 'string')
      : []

/** The highest of `role` and `roles` that we know; a token that names none is a user's. */
function roleOf(claims: JWTPayload): Role {
  const named = [...texts(claims.role), ...texts(claims.roles)]
  return ROLES.toReversed().find(role => named.includes(role)) ?? 'user'
}

/** `scope` (RFC 8693 §4.2) or `scp`. Issuers fill it with words of their own, so only ours limit anything. */
function scopesOf(claims: JWTPayload): Scope[] | null {
  const named = [...texts(claims.scope), ...texts(claims.scp)]
  const ours = SCOPES.filter(scope => named.includes(scope))
  return ours.length === 0 ? null : ours
}
