import { createHash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import { type Static, Type } from 'typebox'
import {
  asDeliveryError,
  type Connection,
  type DeliveryError,
  type HttpResponse,
  judge,
  permanent,
  type SendContext,
  secret,
  temporary,
} from '../provider.ts'
import { isHttpUrl, readObject } from './answers.ts'

/** How we prove to an endpoint who we are, besides the signature that every request bears. */
export const authSchema = Type.Object(
  {
    type: Type.Enum(['bearer', 'apikey', 'basic', 'oauth2'], {
      title: 'Kind',
      description:
        'bearer and apikey: token; basic: username, password; oauth2: tokenUrl, clientId, clientSecret.',
    }),
    token: Type.Optional(
      secret({
        title: 'Token',
        description: 'The bearer token or the API key.',
        pattern: '^[\\x21-\\x7e]{1,4000}$',
      }),
    ),
    header: Type.Optional(
      Type.String({
        title: 'Header',
        description: 'What carries the API key. Default: X-API-Key.',
        pattern: "^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$",
      }),
    ),
    username: Type.Optional(Type.String({ title: 'User name', pattern: '^[^:\\x00-\\x1f\\x7f]{1,255}$' })),
    password: Type.Optional(
      secret({ title: 'Password', description: 'For basic.', pattern: '^[^\\x00-\\x1f\\x7f]{1,1000}$' }),
    ),
    tokenUrl: Type.Optional(
      Type.String({
        title: 'Token endpoint',
        description: 'Where OAuth 2.0 client credentials become an access token.',
        pattern: '^https?://[^\\s#]{1,1500}$',
      }),
    ),
    clientId: Type.Optional(Type.String({ title: 'Client id', pattern: '^[\\x20-\\x7e]{1,500}$' })),
    clientSecret: Type.Optional(
      secret({ title: 'Client secret', description: 'For oauth2.', pattern: '^[\\x20-\\x7e]{1,1000}$' }),
    ),
    scope: Type.Optional(
      Type.String({
        title: 'Scope',
        description: 'Words with blanks between.',
        pattern: '^[\\x21\\x23-\\x5b\\x5d-\\x7e ]{1,1000}$',
      }),
    ),
  },
  { additionalProperties: false, title: 'Authentication' },
)

/** The settings once they are read: secrets as `Secret` in the provider's own, plain in those of an address. */
type Sealed = Static<typeof authSchema>
export type Auth = { [K in keyof Sealed]: K extends 'type' ? Sealed['type'] : string | undefined }

export const plainAuth = (auth: Sealed): Auth => ({
  ...auth,
  token: auth.token?.reveal(),
  password: auth.password?.reveal(),
  clientSecret: auth.clientSecret?.reveal(),
})

const NEEDS: Record<Auth['type'], (keyof Auth)[]> = {
  bearer: ['token'],
  apikey: ['token'],
  basic: ['username', 'password'],
  oauth2: ['tokenUrl', 'clientId', 'clientSecret'],
}

/** The first member that this kind needs and that is missing. */
export const missingIn = (auth: Auth): string | undefined => NEEDS[auth.type]?.find(name => !auth[name])

/** Access tokens by who they were given to. A promise serves all who ask at the same time. */
export interface Tokens extends Connection {
  cache: LRUCache<string, Promise<Token>>
}

interface Token {
  value: string
  /** Milliseconds since 1970. */
  until: number
}

export const openTokens = (): Tokens => {
  const cache = new LRUCache<string, Promise<Token>>({ max: 10_000 })
  return { cache, close: () => cache.clear() }
}

type Context = Pick<SendContext<unknown, Tokens>, 'http' | 'signal' | 'now' | 'connection'> & {
  timeoutMs: number
}

/**
 * The headers that prove it, and what to do when the endpoint answers 401: `again` gives headers with a new token,
 * or nothing where there is no other to be had.
 */
export async function authHeaders(
  auth: Auth,
  ctx: Context,
): Promise<{ headers: Record<string, string>; again?: () => Promise<Record<string, string>> }> {
  if (missingIn(auth) !== undefined) throw permanent('invalid_settings', `auth/${missingIn(auth)} is missing`)
  switch (auth.type) {
    case 'bearer':
      return { headers: { authorization: `Bearer ${auth.token}` } }
    case 'apikey':
      return { headers: { [(auth.header ?? 'x-api-key').toLowerCase()]: auth.token! } }
    case 'basic': {
      // RFC 7617 §2.1: UTF-8.
      const pair = Buffer.from(`${auth.username}:${auth.password}`).toString('base64')
      return { headers: { authorization: `Basic ${pair}` } }
    }
    case 'oauth2': {
      const token = await tokenFor(auth, ctx)
      const headersOf = ({ value }: Token) => ({ authorization: `Bearer ${value}` })
      return {
        headers: headersOf(token),
        again: async () => {
          await forget(auth, token, ctx)
          return headersOf(await tokenFor(auth, ctx))
        },
      }
    }
  }
}

/* ---------------------------------------------------------------- OAuth 2.0 client credentials (RFC 6749 §4.4) */

/** A token is not used in its last minute, or in the last tenth of a short life. */
const MARGIN_MS = 60_000
/** Of a token whose end is not told (§5.1 lets the server leave it out). */
const UNTOLD_SECONDS = 300
const MAX_SECONDS = 24 * 60 * 60

/** The secret is part of the key: who does not know it gets no token that another was given. */
const keyOf = ({ tokenUrl, clientId, clientSecret, scope }: Auth): string =>
  createHash('sha256')
    .update(JSON.stringify([tokenUrl, clientId, clientSecret, scope]))
    .digest('base64')

async function tokenFor(auth: Auth, ctx: Context): Promise<Token> {
  const { cache } = ctx.connection
  const key = keyOf(auth)
  const known = cache.get(key)
  if (known !== undefined) {
    const token = await known
    if (token.until > ctx.now().getTime()) return token
    // Whoever comes first asks; the others find the new promise.
    if (cache.get(key) === known) cache.delete(key)
    return tokenFor(auth, ctx)
  }
  const asked = askForToken(auth, ctx).catch((error: unknown) => {
    if (cache.get(key) === asked) cache.delete(key)
    throw nothingSent(asDeliveryError(error))
  })
  cache.set(key, asked)
  return asked
}

/** Only the token that failed: another may have been fetched meanwhile. */
async function forget(auth: Auth, token: Token, { connection: { cache } }: Context): Promise<void> {
  const key = keyOf(auth)
  const known = cache.get(key)
  if (known === undefined) return
  const current = await known.catch(() => undefined)
  if (current === token && cache.get(key) === known) cache.delete(key)
}

async function askForToken(auth: Auth, { http, signal, now, timeoutMs }: Context): Promise<Token> {
  const form = new URLSearchParams({ grant_type: 'client_credentials' })
  if (auth.scope !== undefined) form.set('scope', auth.scope)
  // §2.3.1: both are form-encoded before they become Basic.
  const pair = `${formEncoded(auth.clientId!)}:${formEncoded(auth.clientSecret!)}`
  const response = await http.request({
    url: auth.tokenUrl!,
    headers: {
      authorization: `Basic ${Buffer.from(pair).toString('base64')}`,
      'content-type': 'application/x-www-form-urlencoded',
      accept: 'application/json',
    },
    body: form.toString(),
    signal,
    timeoutMs,
    maxResponseBytes: 32_768,
  })
  return tokenIn(response, now())
}

const formEncoded = (text: string): string => new URLSearchParams([['', text]]).toString().slice(1)

function tokenIn(response: HttpResponse, now: Date): Token {
  const error = judge(response.status, response.headers, now)
  if (error !== undefined) {
    // Credentials that are not taken are mended by whoever set them.
    throw error.final
      ? temporary('auth', `Token endpoint: HTTP ${response.status}`, { vendorCode: error.vendorCode })
      : error
  }
  const answer = readObject(response.body)
  const { access_token: value, token_type: type = 'bearer', expires_in: seconds } = answer ?? {}
  const usable = typeof value === 'string' && /^[\x21-\x7e]{1,8000}$/.test(value)
  if (!response.complete || !usable || typeof type !== 'string' || type.toLowerCase() !== 'bearer') {
    throw temporary('garbled_answer', 'The token endpoint gave no bearer token')
  }
  // Some servers write the number as a string.
  const told = Number(seconds ?? UNTOLD_SECONDS)
  const life = Math.min(told > 0 ? told : UNTOLD_SECONDS, MAX_SECONDS) * 1000
  return { value, until: now.getTime() + life - Math.min(MARGIN_MS, life / 10) }
}

/** Until the notification itself is posted, no answer means that nothing was sent. */
function nothingSent(error: DeliveryError): DeliveryError {
  if (error.kind !== 'unknown') return error
  return temporary(error.code, `Token endpoint: ${error.message}`, { cause: error.cause })
}

/** Address settings as they lie in the database: checked again, as the row may be older than the schema. */
export function authIn(value: unknown): Auth | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const auth = value as Record<string, unknown>
  if (!Object.hasOwn(NEEDS, String(auth.type)))
    throw permanent('invalid_settings', 'auth/type is none that is known')
  for (const each of Object.values(auth)) {
    // oxlint-disable-next-line no-control-regex -- what would end a header early
    if (typeof each !== 'string' || /[\x00-\x1f\x7f]/.test(each))
      throw permanent('invalid_settings', 'auth is not plain text')
  }
  if (auth.tokenUrl !== undefined && !isHttpUrl(auth.tokenUrl as string)) {
    throw permanent('invalid_settings', 'auth/tokenUrl is no URL')
  }
  return auth as unknown as Auth
}
