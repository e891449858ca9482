import { inspect } from 'node:util'
import ipaddr from 'ipaddr.js'
import { type MasterKey, parseMasterKeys } from './db/seal.ts'
import { CHANNELS, type Channel } from './types.ts'

export interface Setting<T> {
  readonly name: string
  /** What it means, with its unit. */
  readonly about: string
  /** The default, as the reference shows it. */
  readonly shown: string
  readonly fallback: T
  /** `NAME_FILE` may name a file to read it from. */
  readonly file: boolean
  readonly secret: boolean
  /** Also `--flag value` of `carillon start`. */
  readonly flag: string | undefined
  /** @throws Error that says what was expected; of a secret it must not repeat the value. */
  read(text: string): T
}

/** Settings by the name they have in the code. */
export type SettingsTable = Readonly<Record<string, Setting<unknown>>>

/** What a table of settings comes to. */
export type ValuesOf<G> = { readonly [K in keyof G]: G[K] extends Setting<infer T> ? T : never }

export interface Roles {
  readonly api: boolean
  readonly plan: boolean
  readonly schedule: boolean
  /** Channels it delivers; empty: none. */
  readonly deliver: readonly Channel[]
  /** As given, for the table `processes`. */
  readonly names: readonly string[]
}

/** A value that must not be read by accident: printing, logging, inspecting or serialising it shows `<secret>`. */
export interface Secret<T = string> {
  reveal(): T
  toString(): string
  toJSON(): string
}

const HIDDEN = '<secret>'

export const secret = <T>(value: T): Secret<T> =>
  Object.freeze({
    reveal: () => value,
    toString: () => HIDDEN,
    toJSON: () => HIDDEN,
    [inspect.custom]: () => HIDDEN,
  })

// ---------------------------------------------------------------- kinds of settings

interface More {
  flag?: string
  file?: boolean
  secret?: boolean
}

export function setting<T>(
  name: string,
  fallback: T,
  shown: string,
  about: string,
  read: (text: string) => T,
  more: More = {},
): Setting<T> {
  return { name, fallback, shown, about, read, file: false, secret: false, flag: undefined, ...more }
}

export function optional<T>(
  name: string,
  about: string,
  read: (text: string) => T,
  more: More = {},
): Setting<T | undefined> {
  return setting<T | undefined>(name, undefined, 'none', about, read, more)
}

/** `readOne` wraps what `read` returns. */
export function confidential<T>(
  name: string,
  about: string,
  read: (text: string) => T,
): Setting<Secret<T> | undefined> {
  return optional(name, about, read, { file: true, secret: true }) as Setting<unknown> as Setting<
    Secret<T> | undefined
  >
}

export function integer(
  name: string,
  fallback: number,
  min: number,
  max: number,
  about: string,
  more: More = {},
) {
  const read = (text: string): number => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (!(value >= min && value <= max))
      throw new Error(`"${text}" is not a whole number from ${min} to ${max}`)
    return value
  }
  return setting(name, fallback, String(fallback), about, read, more)
}

// A year 10,000 from now has no partition: the bound keeps arithmetic on dates sane.
export function days(name: string, fallback: number, about: string) {
  return integer(name, fallback, 1, 36_500, `${about} In days.`)
}

const UNITS: Record<string, number> = { '': 1, KB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 }

export function bytes(name: string, fallback: number, min: number, max: number, about: string) {
  const read = (text: string): number => {
    const match = /^(\d{1,15}) ?(KB|MB|GB)?$/i.exec(text)
    const value = match === null ? Number.NaN : Number(match[1]) * UNITS[(match[2] ?? '').toUpperCase()]!
    if (!(value >= min && value <= max))
      throw new Error(`"${text}" is not a size from ${min} to ${max} bytes, such as 2MB`)
    return value
  }
  const shown = fallback % 1024 ** 2 === 0 ? `${fallback / 1024 ** 2}MB` : `${fallback / 1024}KB`
  return setting(name, fallback, shown, `${about} KB, MB and GB are understood.`, read)
}

export function toggle(name: string, fallback: boolean, about: string) {
  const words: Record<string, boolean> = {
    true: true,
    '1': true,
    yes: true,
    on: true,
    false: false,
    '0': false,
    no: false,
    off: false,
  }
  const read = (text: string): boolean => {
    const value = words[text.toLowerCase()]
    if (value === undefined) throw new Error(`"${text}" is neither true nor false`)
    return value
  }
  return setting(name, fallback, String(fallback), about, read)
}

// ---------------------------------------------------------------- readers

export function readText(text: string): string {
  if (text.length > 4096) throw new Error('it is longer than 4096 characters')
  return text
}

export function oneOf<const T extends string>(...words: T[]): (text: string) => T {
  return text => {
    const word = words.find(each => each === text.toLowerCase())
    if (word === undefined) throw new Error(`"${text}" is none of ${words.join(', ')}`)
    return word
  }
}

const items = (text: string): string[] =>
  text
    .split(',')
    .map(item => item.trim())
    .filter(item => item !== '')

function parseUrl(text: string, protocols: string[], example: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined
  // Never repeated: such addresses carry passwords.
  if (url === undefined || !protocols.includes(url.protocol))
    throw new Error(`it is not an address such as ${example}`)
  return url
}

export function readWebUrl(text: string): string {
  const url = parseUrl(text, ['http:', 'https:'], 'https://example.org')
  if (url.username !== '' || url.password !== '') throw new Error('it must not carry credentials')
  if (url.search !== '' || url.hash !== '') throw new Error('it must not have a query or fragment')
  return text
}

/** Where files lie: a bucket of a store that speaks S3. */
export interface BucketAddress {
  bucket: string
  /** Before every key; may be empty. */
  prefix: string
  region: string
  /** Undefined: Amazon's own. */
  endpoint: string | undefined
}

/** `s3://bucket/folder?region=eu-central-1&endpoint=https://minio.example.org`, or `gs://bucket/folder`. */
export function readBucket(text: string): BucketAddress {
  const example = 's3://bucket/folder?region=eu-central-1'
  const url = parseUrl(text, ['s3:', 'gs:'], example)
  if (url.username !== '' || url.password !== '') throw new Error('it must not carry credentials')
  const known = ['region', 'endpoint']
  const other = [...url.searchParams.keys()].find(name => !known.includes(name))
  if (other !== undefined) throw new Error(`it has region and endpoint, and no ${other.slice(0, 50)}`)
  // https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html; Google allows _ as well.
  if (!/^[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]$/.test(url.hostname))
    throw new Error(`it names no bucket, as ${example} does`)
  const prefix = url.pathname.replace(/^\/+|\/+$/g, '')
  if (!/^[A-Za-z0-9/._-]{0,200}$/.test(prefix))
    throw new Error('its folder has letters, digits and ._-/ only')
  const google = url.protocol === 'gs:'
  const region = url.searchParams.get('region') ?? (google ? 'auto' : undefined)
  if (region === undefined || !/^[a-z0-9-]{1,50}$/.test(region))
    throw new Error(`it names its region, as ${example} does`)
  const given = url.searchParams.get('endpoint') ?? (google ? 'https://storage.googleapis.com' : undefined)
  return {
    bucket: url.hostname,
    prefix,
    region,
    endpoint: given === undefined ? undefined : readWebUrl(given),
  }
}

export function readDatabaseUrl(text: string): string {
  parseUrl(text, ['postgres:', 'postgresql:'], 'postgres://user:password@host:5432/carillon')
  return text
}

export function readRedisUrl(text: string): string {
  parseUrl(text, ['redis:', 'rediss:'], 'redis://:password@host:6379')
  return text
}

export function readOrigins(text: string): readonly string[] {
  return items(text).map(item => {
    if (item === '*') return item
    const url = parseUrl(item, ['http:', 'https:'], 'https://app.example.org')
    if (url.origin !== item.replace(/\/$/, '').toLowerCase())
      throw new Error(`"${item}" is not an origin such as ${url.origin}`)
    return url.origin
  })
}

export function readNetworks(text: string): readonly string[] {
  return items(text).map(item => {
    const cidr = item.includes('/') ? item : `${item}/${item.includes(':') ? 128 : 32}`
    if (!ipaddr.isValidCIDR(cidr)) throw new Error(`"${item}" is not a network such as 10.0.0.0/8`)
    return cidr
  })
}

export function readRatio(text: string): number {
  const value = /^(0|1|0?\.\d{1,9}|1\.0{1,9}|0\.\d{1,9})$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= 0 && value <= 1)) throw new Error(`"${text}" is not a number from 0 to 1`)
  return value
}

/** https://opentelemetry.io/docs/specs/otel/protocol/exporter/: the form of W3C Baggage. */
export function readHeaders(text: string): Readonly<Record<string, string>> {
  return Object.fromEntries(
    items(text).map(item => {
      const at = item.indexOf('=')
      const name = item.slice(0, at).trim()
      if (at < 1 || !/^[!#$%&'*+.^_`|~\w-]+$/.test(name))
        throw new Error('it is not a list such as name=value,other=value')
      try {
        return [name.toLowerCase(), decodeURIComponent(item.slice(at + 1).trim())]
      } catch {
        throw new Error(`the value of ${name} is not percent-encoded`)
      }
    }),
  )
}

// The one key that every tutorial shows.
const KNOWN_KEY = '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f'

export function readMasterKeys(text: string): MasterKey[] {
  const keys = parseMasterKeys(text)
  if (keys.length > 10) throw new Error('it holds more than 10 keys')
  for (const { key } of keys) {
    // 32 random bytes hold about 30 different ones and never fewer than 16; what a person types does.
    if (key.toString('hex') === KNOWN_KEY || new Set(key).size < 16) {
      throw new Error('it is a well-known or guessable key; make one with: openssl rand -hex 32')
    }
  }
  if (new Set(keys.map(({ key }) => key.toString('hex'))).size < keys.length) {
    throw new Error('it holds one key under two ids')
  }
  return keys
}

export function readJwtSecret(text: string): string {
  const size = Buffer.byteLength(text)
  if (size < 32) throw new Error(`it has ${size} bytes; HMAC with SHA-256 needs at least 32 (RFC 7518 §3.2)`)
  if (new Set(text).size < 10 || /secret|change.?me|password|example/i.test(text)) {
    throw new Error('it is a guessable secret; make one with: openssl rand -base64 48')
  }
  return text
}

export function readPem(text: string): string {
  const pem = text.replaceAll('\\n', '\n')
  if (!/-----BEGIN CERTIFICATE-----[\s\S]+-----END CERTIFICATE-----/.test(pem))
    throw new Error('it holds no PEM certificate')
  return pem
}

export function readPublicKey(text: string): string {
  if (text.startsWith('{')) {
    let jwk: { kty?: unknown; keys?: unknown; d?: unknown }
    try {
      jwk = JSON.parse(text)
    } catch {
      throw new Error('it begins like a JWK and is not JSON')
    }
    if (jwk.d !== undefined) throw new Error('it is a private key')
    if (typeof jwk.kty !== 'string' && !Array.isArray(jwk.keys))
      throw new Error('it is neither a JWK nor a JWK set')
    return text
  }
  const pem = text.replaceAll('\\n', '\n')
  if (/PRIVATE KEY-----/.test(pem)) throw new Error('it is a private key')
  if (!/-----BEGIN PUBLIC KEY-----[\s\S]+-----END PUBLIC KEY-----/.test(pem)) {
    throw new Error('it is neither PEM (BEGIN PUBLIC KEY) nor a JWK')
  }
  return pem
}

export type SmtpSecurity = 'auto' | 'tls' | 'starttls' | 'opportunistic' | 'none'

/** nodemailer and many others say `secure=false` and mean: begin in plain text, then STARTTLS. */
export function readSmtpSecurity(text: string): SmtpSecurity {
  const word = oneOf('auto', 'tls', 'starttls', 'opportunistic', 'none', 'true', 'false')(text)
  return word === 'true' ? 'tls' : word === 'false' ? 'starttls' : word
}

/** The token behind the name takes 43 characters of the 64 that RFC 5321 §4.5.3.1.1 grants the part before the @. */
export function readBounceAddress(text: string): string {
  if (!/^[A-Za-z0-9._-]{1,20}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?$/.test(text)) {
    throw new Error(`"${text}" is not a plain address with at most 20 characters before the @`)
  }
  return text.toLowerCase()
}

export function readPort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  if (!(port <= 65_535)) throw new Error(`"${text}" is not a port from 0 to 65535`)
  return port
}

export function readSender(text: string): string {
  if (/[\r\n]/.test(text) || text.length > 320) throw new Error('it is not one short line')
  if (!/^(?:[^<>]*<[^\s<>@]+@[^\s<>@]+>|[^\s<>@]+@[^\s<>@]+)$/.test(text)) {
    throw new Error(`"${text}" is not a sender such as Carillon <notify@example.org>`)
  }
  return text
}

export function allRoles(): Roles {
  return {
    api: true,
    plan: true,
    schedule: true,
    deliver: CHANNELS,
    names: ['api', 'plan', 'deliver', 'schedule'],
  }
}

/** `api,plan,deliver:email,deliver:sms`; after one `deliver:…` a bare channel adds to it. */
/** Which there are is known only to who calls: names are checked by `loadConfig`. */
export function readSolutions(text: string): 'all' | readonly string[] {
  const ids = [...new Set(items(text.toLowerCase()))]
  if (ids.length === 1 && ids[0] === 'all') return 'all'
  if (ids.length === 1 && ids[0] === 'none') return []
  if (ids.length === 0) throw new Error('it names no solution; none opens none')
  return ids
}

export function readRoles(text: string): Roles {
  const names = new Set<string>()
  const isChannel = (word: string | undefined) => (CHANNELS as readonly (string | undefined)[]).includes(word)
  let listing = false
  for (const item of items(text.toLowerCase())) {
    if (listing && isChannel(item)) {
      names.add(`deliver:${item}`)
      continue
    }
    listing = item.startsWith('deliver:')
    if (item === 'all') for (const name of allRoles().names) names.add(name)
    else if (allRoles().names.includes(item)) names.add(item)
    else if (listing && isChannel(item.slice('deliver:'.length))) names.add(item)
    else {
      throw new Error(
        `"${item}" is no role; roles are api, plan, schedule, deliver and deliver:CHANNEL (${CHANNELS.join(', ')})`,
      )
    }
  }
  if (names.size === 0) throw new Error('it names no role')
  return {
    api: names.has('api'),
    plan: names.has('plan'),
    schedule: names.has('schedule'),
    deliver: CHANNELS.filter(channel => names.has('deliver') || names.has(`deliver:${channel}`)),
    names: [...names],
  }
}
