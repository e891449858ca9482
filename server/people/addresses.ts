import { domainToASCII } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, type Channel, type Id, type JsonObject, type TenantId, type UserId } from '../types.ts'
import type { Verification } from './facts.ts'

/** One person has at most so many addresses, over all channels. */
export const MAX_ADDRESSES = 50

/** How a webhook endpoint is shown who we are: the members that each kind needs stand in `AUTH_NEEDS`. */
export interface AddressAuth {
  type: 'bearer' | 'apikey' | 'basic' | 'oauth2'
  /** The bearer token or the API key. */
  token?: string
  /** What carries the API key; X-API-Key unless given. */
  header?: string
  username?: string
  password?: string
  /** OAuth 2.0 client credentials (RFC 6749 §4.4). */
  tokenUrl?: string
  clientId?: string
  clientSecret?: string
  scope?: string
}

/** What belongs to a webhook endpoint. `secret`, `formerSecrets`, `headers` and `auth` are sealed and never shown. */
export interface AddressSettings {
  auth?: AddressAuth
  /** POST unless given. */
  method?: 'POST' | 'PUT'
  /** `whsec_` and base64 of 24 to 64 bytes (Standard Webhooks). */
  secret?: string
  /** Signed with as well, while the receiver changes over. */
  formerSecrets?: string[]
  headers?: Record<string, string>
  /** Up to so many notifications in one request. */
  batch?: number
  /**
   * Of a WhatsApp address, and kept by us: when its owner last wrote to us, in milliseconds since 1970 (`noteWriters`).
   */
  wroteAt?: number
}

/** Fields left out stay as they are; null takes one away. */
export type AddressSettingsChange = {
  [K in Exclude<keyof AddressSettings, 'wroteAt'>]?: AddressSettings[K] | null
}

export interface AddressInput {
  channel: Channel
  address: string
  label?: string | null
  position?: number
  /** Left out: a new address is pending, an old one stays what it is. */
  verified?: boolean
  settings?: AddressSettingsChange
}

export type AddressChange = Partial<Omit<AddressInput, 'channel'>>

export interface AddressView {
  id: Id
  channel: Channel
  address: string
  label: string | null
  position: number
  verification: Verification
  verifiedAt: Date | null
  settings: {
    batch?: number
    method?: 'POST' | 'PUT'
    authType?: AddressAuth['type']
    hasSecret?: boolean
    headerNames?: string[]
  }
  createdAt: Date
  updatedAt: Date
}

/** What `settings` holds in the database. */
interface StoredSettings {
  batch?: number
  method?: 'POST' | 'PUT'
  authType?: AddressAuth['type']
  hasSecret?: boolean
  headerNames?: string[]
  wroteAt?: number
  /** base64 of the sealed JSON of secret, formerSecrets, headers and auth. */
  sealed?: string
}

// ---------------------------------------------------------------- what an address looks like

// RFC 5321 §4.1.2 "Dot-string". Quoted local parts are legal and unused, and nobody escapes them alike.
const LOCAL_PART = /^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*$/
// RFC 1035 §2.3.1 labels, at least two, the last one no number: it would be an IP address.
const DOMAIN = /^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+(?!\d+$)[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])$/
// E.164: at most 15 digits, and no country code begins with 0.
const PHONE = /^\+[1-9]\d{6,14}$/
// Slack's ids of conversations and people, or a channel's name.
const SLACK = /^(?:[CDGUW][A-Z0-9]{8,20}|#[\p{L}\p{N}_-]{1,80})$/u
// The id of a chat (at most 52 significant bits; groups are negative) or the name of a public channel:
// https://core.telegram.org/bots/api#chat and #sendmessage.
const TELEGRAM = /^(?:-?[1-9]\d{0,15}|@[A-Za-z][A-Za-z0-9_]{3,31})$/
// A topic (https://docs.ntfy.sh/publish/, `^[-_A-Za-z0-9]{1,64}$` in its server).
const NTFY = /^[-_A-Za-z0-9]{1,64}$/
// Events API v2 integration key.
const PAGERDUTY = /^[A-Za-z0-9]{32}$/

/**
 * The one spelling under which an address is stored, compared and suppressed. Doing it again changes nothing.
 *
 * @throws AppError invalid_address
 */
export function normalizeAddress(channel: Channel, text: string, field = '/address'): string {
  const address = text.trim()
  switch (channel) {
    case 'email':
      return normalizeEmail(address, field)
    case 'sms':
    case 'whatsapp':
    case 'voice':
      if (PHONE.test(address)) return address
      throw refused('A phone number is written as in E.164: +, country code, number, digits only.', field)
    case 'webhook':
      return normalizeUrl(address, field)
    case 'slack':
      if (SLACK.test(address)) return address
      // Of an incoming webhook, or of a person whom the bot looks up.
      if (/^https:/i.test(address)) return normalizeUrl(address, field)
      if (address.includes('@')) return normalizeEmail(address, field)
      throw refused(
        'A Slack address is an id such as C024BE91L, a channel such as #ops, an e-mail address or the https URL of an incoming webhook.',
        field,
      )
    case 'pagerduty':
      if (PAGERDUTY.test(address)) return address
      throw refused('A PagerDuty address is an integration key of 32 letters and digits.', field)
    case 'discord':
    case 'teams':
      if (/^https:/i.test(address)) return normalizeUrl(address, field)
      throw refused('A Discord or Teams address is the https URL of a webhook.', field)
    case 'telegram':
      if (TELEGRAM.test(address)) return address
      throw refused('A Telegram address is the id of a chat or a public channel such as @ops_alerts.', field)
    case 'ntfy':
      if (NTFY.test(address)) return address
      if (/^https?:/i.test(address)) return normalizeUrl(address, field)
      throw refused('An ntfy address is a topic or its URL, such as https://ntfy.sh/ops-alerts.', field)
    case 'push':
    case 'web_push':
      throw refused('Push goes to devices, which register at /api/users/{userId}/devices.', field)
    case 'in_app':
      throw refused('In-app needs no address: it is the user.', field)
  }
}

/** The domain is case-insensitive (RFC 1035 §2.3.3), the local part is the receiver's business (RFC 5321 §2.4). */
function normalizeEmail(address: string, field: string): string {
  const at = address.lastIndexOf('@')
  const local = address.slice(0, Math.max(0, at))
  const given = address.slice(at + 1)
  // domainToASCII brings international names into the form DNS knows (RFC 5891). It would also resolve percent
  // signs and the like, so it sees nothing but letters, digits, dots and hyphens.
  const domain = /^[\p{L}\p{N}\p{M}.-]{1,255}$/u.test(given) ? domainToASCII(given) : ''
  // Each part has a limit of its own (RFC 5321 §4.5.3.1), together 320; a mailbox that mail can reach has 254.
  const fits = local.length <= 64 && domain.length <= 253 && local.length + domain.length < 254
  if (fits && LOCAL_PART.test(local) && DOMAIN.test(domain)) return `${local}@${domain}`
  throw refused('This is not an e-mail address such as ann@example.org.', field)
}

/** With a user id of 255 characters it still fits an index entry, which takes 2,704 bytes. */
const MAX_URL = 1_500

function normalizeUrl(address: string, field: string): string {
  const url = URL.canParse(address) ? new URL(address) : undefined
  if (url === undefined || (url.protocol !== 'https:' && url.protocol !== 'http:')) {
    throw refused('A webhook is an absolute http or https URL.', field)
  }
  // They would be stored in the clear; a header is sealed.
  if (url.username !== '' || url.password !== '') {
    throw refused('A webhook URL holds no credentials: put them into settings.headers.', field)
  }
  url.hash = ''
  if (url.href.length > MAX_URL) throw refused(`A webhook URL has at most ${MAX_URL} characters.`, field)
  return url.href
}

const refused = (detail: string, field: string) => new AppError('invalid_address', detail, { field })

// ---------------------------------------------------------------- settings

/** RFC 9110 §5.1 token, and visible ASCII, blank and tab (§5.5). */
const HEADER_NAME = /^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$/
const HEADER_VALUE = /^[\t\x20-\x7e]{0,2000}$/
/** Ours, and those that decide where a message ends (RFC 9112 §6); `webhook-…` carry the signature. */
const RESERVED_HEADERS = new Set(
  'connection content-length content-type expect host keep-alive proxy-connection te traceparent trailer transfer-encoding upgrade user-agent'.split(
    ' ',
  ),
)
const MAX_HEADERS = 20
const MAX_FORMER_SECRETS = 4
const MAX_BATCH = 50

const AUTH_NEEDS: Record<AddressAuth['type'], (keyof AddressAuth)[]> = {
  bearer: ['token'],
  apikey: ['token'],
  basic: ['username', 'password'],
  oauth2: ['tokenUrl', 'clientId', 'clientSecret'],
}
/** The same as in server/deliver/providers/webhook/auth.ts; its test compares the two. */
const AUTH_FIELDS: Record<Exclude<keyof AddressAuth, 'type'>, RegExp> = {
  token: /^[\x21-\x7e]{1,4000}$/,
  header: HEADER_NAME,
  // RFC 7617 §2: a user name holds no colon.
  // oxlint-disable-next-line no-control-regex -- control characters are what is refused
  username: /^[^:\x00-\x1f\x7f]{1,255}$/,
  // oxlint-disable-next-line no-control-regex -- as above
  password: /^[^\x00-\x1f\x7f]{1,1000}$/,
  tokenUrl: /^https?:\/\/[^\s#]{1,1500}$/,
  clientId: /^[\x20-\x7e]{1,500}$/,
  clientSecret: /^[\x20-\x7e]{1,1000}$/,
  // RFC 6749 §3.3
  scope: /^[\x21\x23-\x5b\x5d-\x7e ]{1,1000}$/,
}

/** Sealing for one tenant, of addresses and devices. The key is asked for only where something is to be sealed. */
export interface AddressSealer {
  sealer: Pick<Sealer, 'seal' | 'open' | 'unwrap'>
  tenantId: TenantId
}

const findTenantKey = sql('find_tenant_data_key', 'select data_key from tenants where id = $1')

/** @throws AppError not_found */
export async function tenantKey(q: Queryable, { sealer, tenantId }: AddressSealer): Promise<Buffer> {
  const row = await q.one<{ data_key: Buffer }>(findTenantKey, [tenantId])
  if (row === undefined) throw new AppError('not_found', 'There is no such tenant.')
  return sealer.unwrap(row.data_key)
}

/**
 * What a provider gets of an address's settings: everything, opened. `key` is the tenant's data key, unwrapped.
 *
 * @throws Error when the settings were not sealed for this address
 */
export function openAddressSettings(
  sealer: Pick<Sealer, 'open'>,
  key: Buffer,
  { id, settings }: { id: Id; settings: JsonObject },
): AddressSettings {
  const { batch, method, wroteAt, sealed } = settings as StoredSettings
  const open: AddressSettings =
    sealed === undefined
      ? {}
      : JSON.parse(sealer.open(key, Buffer.from(sealed, 'base64'), id).toString('utf8'))
  if (batch !== undefined) open.batch = batch
  if (method !== undefined) open.method = method
  if (wroteAt !== undefined) open.wroteAt = wroteAt
  return open
}

/** @throws AppError invalid_address, naming the field below `field` */
function checkSettings(channel: Channel, change: AddressSettingsChange, field: string): void {
  if (channel !== 'webhook') throw refused('Only webhooks have settings.', field)
  const { secret, formerSecrets, headers, batch } = change
  for (const each of [...(secret ? [secret] : []), ...(formerSecrets ?? [])]) {
    const bytes = /^whsec_[A-Za-z0-9+/]+={0,2}$/.test(each) ? Buffer.from(each.slice(6), 'base64').length : 0
    if (bytes < 24 || bytes > 64)
      throw refused('A secret is whsec_ and base64 of 24 to 64 bytes.', `${field}/secret`)
  }
  if ((formerSecrets?.length ?? 0) > MAX_FORMER_SECRETS) {
    throw refused(`At most ${MAX_FORMER_SECRETS} former secrets.`, `${field}/formerSecrets`)
  }
  const names = Object.entries(headers ?? {})
  if (names.length > MAX_HEADERS) throw refused(`At most ${MAX_HEADERS} headers.`, `${field}/headers`)
  for (const [name, value] of names) {
    if (!mayBeSet(name)) throw refused('A header has a name that may not be set.', `${field}/headers`)
    if (!HEADER_VALUE.test(value))
      throw refused('A header has a value that cannot be sent.', `${field}/headers`)
  }
  if (batch != null && !(Number.isInteger(batch) && batch >= 1 && batch <= MAX_BATCH)) {
    throw refused(`A request takes 1 to ${MAX_BATCH} notifications.`, `${field}/batch`)
  }
  if (change.method != null && change.method !== 'POST' && change.method !== 'PUT') {
    throw refused('The method is POST or PUT.', `${field}/method`)
  }
  if (change.auth != null) checkAuth(change.auth, `${field}/auth`)
}

function mayBeSet(name: string): boolean {
  const lower = name.toLowerCase()
  return HEADER_NAME.test(name) && !RESERVED_HEADERS.has(lower) && !lower.startsWith('webhook-')
}

function checkAuth(auth: AddressAuth, field: string): void {
  if (!Object.hasOwn(AUTH_NEEDS, auth.type)) {
    throw refused(`The kind is one of ${Object.keys(AUTH_NEEDS).join(', ')}.`, `${field}/type`)
  }
  for (const [name, pattern] of Object.entries(AUTH_FIELDS)) {
    const value = auth[name as keyof AddressAuth]
    if (value === undefined) {
      const needed = AUTH_NEEDS[auth.type].includes(name as keyof AddressAuth)
      if (needed) throw refused(`${auth.type} needs it.`, `${field}/${name}`)
    } else if (!pattern.test(value)) throw refused('It cannot be sent.', `${field}/${name}`)
  }
  if (auth.header !== undefined && !mayBeSet(auth.header)) {
    throw refused('This header may not be set.', `${field}/header`)
  }
  if (auth.tokenUrl !== undefined) normalizeUrl(auth.tokenUrl, `${field}/tokenUrl`)
}

/** The stored form of `change` applied to `before`; `key` is asked for only when there is something to seal. */
async function changeSettings(
  sealer: AddressSealer['sealer'],
  key: () => Promise<Buffer>,
  id: Id,
  before: StoredSettings,
  change: AddressSettingsChange,
): Promise<StoredSettings> {
  const sealsNothing =
    change.secret === undefined &&
    change.formerSecrets === undefined &&
    change.headers === undefined &&
    change.auth === undefined
  if (sealsNothing) {
    const after = { ...before }
    if (change.batch === null) delete after.batch
    else if (change.batch !== undefined) after.batch = change.batch
    if (change.method === null) delete after.method
    else if (change.method !== undefined) after.method = change.method
    return after
  }
  const opened = openAddressSettings(sealer, await key(), { id, settings: before as JsonObject })
  const open: AddressSettings = { ...opened }
  for (const [name, value] of Object.entries(change)) {
    if (value === null) delete open[name as keyof AddressSettings]
    else if (value !== undefined) Object.assign(open, { [name]: value })
  }
  // Sealing the same again would look like a change.
  if (isDeepStrictEqual(open, opened)) return before
  const { batch, method, wroteAt, ...secrets } = open
  const stored: StoredSettings = {}
  if (batch !== undefined) stored.batch = batch
  if (method !== undefined) stored.method = method
  if (wroteAt !== undefined) stored.wroteAt = wroteAt
  if (secrets.auth !== undefined) stored.authType = secrets.auth.type
  if (secrets.secret !== undefined) stored.hasSecret = true
  if (secrets.headers !== undefined) stored.headerNames = Object.keys(secrets.headers).sort()
  if (Object.keys(secrets).length > 0) {
    // Bound to the address: copied into another row, it cannot be opened.
    stored.sealed = sealer.seal(await key(), JSON.stringify(secrets), id).toString('base64')
  }
  return stored
}

// ---------------------------------------------------------------- the store

interface AddressRow {
  id: Id
  user_id: UserId
  channel: number
  address: string
  label: string | null
  position: number
  verification: Verification
  verified_at: Date | null
  settings: StoredSettings
  created_at: Date
  updated_at: Date
}

const columns =
  'id, user_id, channel, address, label, position, verification, verified_at, settings, created_at, updated_at'

const listOf = sql(
  'list_addresses',
  `select ${columns} from addresses where tenant_id = $1 and user_id = any ($2)
   order by user_id, channel, verification <> 'verified', position, id`,
)
const deleteAddresses = sql(
  'delete_addresses',
  'delete from addresses where tenant_id = $1 and id = any ($2::uuid[])',
)
const insertAddresses = sql(
  'insert_addresses',
  `insert into addresses (tenant_id, id, user_id, channel, address, label, position, verification, verified_at, settings)
   select $1, i.id, i.user_id, i.channel, i.address, i.label, i.position,
          case when i.verified then 'verified' else 'pending' end, case when i.verified then now() end, i.settings
   from unnest($2::uuid[], $3::text[], $4::int2[], $5::text[], $6::text[], $7::int2[], $8::boolean[], $9::jsonb[])
     as i (id, user_id, channel, address, label, position, verified, settings)`,
)
const updateAddresses = sql(
  'update_addresses',
  `update addresses a
   set address = i.address, label = i.label, position = i.position, settings = i.settings,
       verification = i.verification,
       verified_at = case when i.verification <> 'verified' then null
                          when a.verification = 'verified' and a.address = i.address then a.verified_at
                          else now() end,
       updated_at = now()
   from unnest($2::uuid[], $3::text[], $4::text[], $5::int2[], $6::jsonb[], $7::text[])
     as i (id, address, label, position, settings, verification)
   where a.tenant_id = $1 and a.id = i.id`,
)

const toView = (row: AddressRow): AddressView => {
  const { batch, method, authType, hasSecret, headerNames } = row.settings
  return {
    id: row.id,
    // A channel of a newer version has no name here; listAddresses leaves it out.
    channel: CHANNELS[row.channel]!,
    address: row.address,
    label: row.label,
    position: row.position,
    verification: row.verification,
    verifiedAt: row.verified_at,
    settings: { batch, method, authType, hasSecret, headerNames },
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  }
}

/** In the order in which they are used: verified ones first, then by position. */
export async function listAddresses(
  q: Queryable,
  tenantId: TenantId,
  userIds: readonly UserId[],
): Promise<Map<UserId, AddressView[]>> {
  const found = new Map<UserId, AddressView[]>()
  for (const row of await q.rows<AddressRow>(listOf, [tenantId, userIds])) {
    if (CHANNELS[row.channel] === undefined) continue
    const list = found.get(row.user_id)
    if (list === undefined) found.set(row.user_id, [toView(row)])
    else list.push(toView(row))
  }
  return found
}

/**
 * The given addresses in their stored spelling.
 *
 * @throws AppError invalid_address, naming the item below `field`; also for the same address twice
 */
export function normalizeAddresses(inputs: readonly AddressInput[], field: string): AddressInput[] {
  const seen = new Set<string>()
  return inputs.map((given, i) => {
    const input = normalizeInput(given, `${field}/${i}`)
    const name = `${input.channel} ${input.address}`
    if (seen.has(name)) throw refused('The same address is given twice.', `${field}/${i}/address`)
    seen.add(name)
    return input
  })
}

function normalizeInput(input: AddressInput, field: string): AddressInput {
  const address = normalizeAddress(input.channel, input.address, `${field}/address`)
  if (input.settings !== undefined) checkSettings(input.channel, input.settings, `${field}/settings`)
  return { ...input, address }
}

interface Writes {
  inserts: { id: Id; userId: UserId; input: AddressInput; position: number; settings: StoredSettings }[]
  updates: { row: AddressRow; settings: StoredSettings; input: AddressChange }[]
  deletes: Id[]
}

/**
 * Makes these the addresses of each user: what is not listed goes, what is listed already keeps its id and its
 * verification. The caller holds the locks of the users' rows (users.ts `lockUsers`), so nobody else writes here.
 */
export async function replaceAddresses(
  tx: Queryable,
  seal: AddressSealer,
  wanted: ReadonlyMap<UserId, readonly AddressInput[]>,
): Promise<void> {
  if (wanted.size === 0) return
  const existing = new Map<string, AddressRow>()
  const nameOf = (userId: UserId, channel: number, address: string) => `${channel} ${address} ${userId}`
  for (const row of await tx.rows<AddressRow>(listOf, [seal.tenantId, [...wanted.keys()]])) {
    existing.set(nameOf(row.user_id, row.channel, row.address), row)
  }
  const key = once(() => tenantKey(tx, seal))
  const writes: Writes = { inserts: [], updates: [], deletes: [] }
  for (const [userId, inputs] of wanted) {
    for (const [i, input] of inputs.entries()) {
      const name = nameOf(userId, CHANNELS.indexOf(input.channel), input.address)
      const row = existing.get(name)
      existing.delete(name)
      const id = row?.id ?? newId()
      const before = row?.settings ?? {}
      const settings =
        input.settings === undefined
          ? before
          : await changeSettings(seal.sealer, key, id, before, input.settings)
      // Left to themselves, they are used in the order in which they are listed.
      const position = input.position ?? i
      if (row === undefined) writes.inserts.push({ id, userId, input, position, settings })
      else if (differs(row, { ...input, position }, settings)) {
        writes.updates.push({ row, settings, input: { ...input, position } })
      }
    }
  }
  for (const { id } of existing.values()) writes.deletes.push(id)
  await write(tx, seal.tenantId, writes)
}

/**
 * Adds one address to a user whose row the caller has locked.
 *
 * @throws AppError invalid_address; already_exists; conflict when there are too many
 */
export async function addAddress(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  given: AddressInput,
): Promise<AddressView> {
  const input = normalizeInput(given, '')
  const { channel, address } = input
  const existing = (await listAddresses(tx, seal.tenantId, [userId])).get(userId) ?? []
  if (existing.some(a => a.channel === channel && a.address === address)) {
    throw new AppError('already_exists', 'The user has this address already.', { field: '/address' })
  }
  if (existing.length >= MAX_ADDRESSES) {
    throw new AppError('conflict', `A user has at most ${MAX_ADDRESSES} addresses.`)
  }
  const id = newId()
  const last = Math.max(-1, ...existing.filter(a => a.channel === channel).map(a => a.position))
  const settings = await changeSettings(
    seal.sealer,
    once(() => tenantKey(tx, seal)),
    id,
    {},
    input.settings ?? {},
  )
  const position = input.position ?? Math.min(last + 1, MAX_POSITION)
  await write(tx, seal.tenantId, {
    inserts: [{ id, userId, input: input, position, settings }],
    updates: [],
    deletes: [],
  })
  return (await findAddress(tx, seal.tenantId, userId, id))!
}

/** Positions are small numbers. */
export const MAX_POSITION = 1_000

/**
 * Changes one address of a user whose row the caller has locked. Another address is pending again unless
 * `verified` says otherwise.
 *
 * @throws AppError not_found; invalid_address; already_exists
 */
export async function changeAddress(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  id: Id,
  change: AddressChange,
): Promise<AddressView> {
  const rows = await tx.rows<AddressRow>(listOf, [seal.tenantId, [userId]])
  const row = rows.find(r => r.id === id)
  const channel = row === undefined ? undefined : CHANNELS[row.channel]
  if (row === undefined || channel === undefined) throw noAddress()
  const input = { ...change }
  if (change.address !== undefined) {
    input.address = normalizeAddress(channel, change.address)
    if (rows.some(r => r.id !== id && r.channel === row.channel && r.address === input.address)) {
      throw new AppError('already_exists', 'The user has this address already.', { field: '/address' })
    }
  }
  if (change.settings !== undefined) checkSettings(channel, change.settings, '/settings')
  const before = { ...row.settings }
  // Another number has not written.
  if (input.address !== undefined && input.address !== row.address) delete before.wroteAt
  const settings = await changeSettings(
    seal.sealer,
    once(() => tenantKey(tx, seal)),
    id,
    before,
    change.settings ?? {},
  )
  if (differs(row, input, settings)) {
    await write(tx, seal.tenantId, { inserts: [], updates: [{ row, settings, input }], deletes: [] })
  }
  return (await findAddress(tx, seal.tenantId, userId, id))!
}

// Once in a while is enough for windows of 24 hours, and each change makes every process read the person again.
const noteWroteAt = sql(
  'note_wrote_at',
  `update addresses a set settings = a.settings || jsonb_build_object('wroteAt', w.at)
   from (select address, max(at) as at from unnest($3::text[], $4::int8[]) as i (address, at) group by 1) w
   where a.tenant_id = any ($1::int[]) and a.channel = $2 and a.address = w.address
     and coalesce((a.settings ->> 'wroteAt')::int8, 0) < w.at - $5`,
)
const NOTE_EVERY_MS = 10 * 60_000

/**
 * Somebody wrote to us from these addresses: on some channels that alone allows us to answer freely for a while. A
 * number of ours serves all tenants, so all of them may.
 */
export const noteWriters = async (
  q: Queryable,
  tenantIds: readonly TenantId[],
  channel: Channel,
  writers: readonly { address: string; at: Date }[],
): Promise<void> => {
  await q.run(noteWroteAt, [
    tenantIds,
    CHANNELS.indexOf(channel),
    writers.map(({ address }) => address),
    writers.map(({ at }) => at.getTime()),
    NOTE_EVERY_MS,
  ])
}

/**
 * Makes this address, new or not, the first of its channel. It is used once it is verified; until then the next
 * verified one is. The caller holds the lock of the user's row.
 *
 * @throws AppError invalid_address; conflict when there are too many
 */
export async function preferAddress(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  channel: Channel,
  text: string,
  field: string,
): Promise<void> {
  const address = normalizeAddress(channel, text, field)
  const code = CHANNELS.indexOf(channel)
  const read = () => tx.rows<AddressRow>(listOf, [seal.tenantId, [userId]])
  let rows = (await read()).filter(row => row.channel === code)
  if (!rows.some(row => row.address === address)) {
    await addAddress(tx, seal, userId, { channel, address })
    rows = (await read()).filter(row => row.channel === code)
  }
  rows.sort((a, b) => Number(b.address === address) - Number(a.address === address) || byPosition(a, b))
  const updates = rows.flatMap((row, position) =>
    row.position === position ? [] : [{ row, settings: row.settings, input: { position } }],
  )
  await write(tx, seal.tenantId, { inserts: [], updates, deletes: [] })
}

/** As people see them: the first is the one they named last, verified or not. */
export const byPosition = (a: { position: number; id: Id }, b: { position: number; id: Id }): number =>
  a.position - b.position || (a.id < b.id ? -1 : 1)

/** @throws AppError not_found */
export async function removeAddress(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  id: Id,
): Promise<Channel> {
  const address = await findAddress(tx, tenantId, userId, id)
  if (address === undefined) throw noAddress()
  await tx.run(deleteAddresses, [tenantId, [id]])
  return address.channel
}

export async function findAddress(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  id: Id,
): Promise<AddressView | undefined> {
  return (await listAddresses(q, tenantId, [userId])).get(userId)?.find(a => a.id === id)
}

const noAddress = () => new AppError('not_found', 'The user has no such address.')

/** What the address is after the change. */
function verificationOf(row: AddressRow, input: AddressChange): Verification {
  if (input.verified !== undefined) return input.verified ? 'verified' : 'pending'
  return input.address === undefined || input.address === row.address ? row.verification : 'pending'
}

/** A sync that brings nothing new writes nothing, and no cache forgets the person. */
function differs(row: AddressRow, input: AddressChange, settings: StoredSettings): boolean {
  return (
    (input.address !== undefined && input.address !== row.address) ||
    (input.label !== undefined && input.label !== row.label) ||
    (input.position !== undefined && input.position !== row.position) ||
    verificationOf(row, input) !== row.verification ||
    !isDeepStrictEqual(settings, row.settings)
  )
}

async function write(
  tx: Queryable,
  tenantId: TenantId,
  { inserts, updates, deletes }: Writes,
): Promise<void> {
  if (deletes.length > 0) await tx.run(deleteAddresses, [tenantId, deletes])
  if (updates.length > 0) {
    await tx.run(updateAddresses, [
      tenantId,
      updates.map(u => u.row.id),
      updates.map(u => u.input.address ?? u.row.address),
      updates.map(u => (u.input.label === undefined ? u.row.label : u.input.label)),
      updates.map(u => u.input.position ?? u.row.position),
      updates.map(u => JSON.stringify(u.settings)),
      updates.map(u => verificationOf(u.row, u.input)),
    ])
  }
  if (inserts.length > 0) {
    await tx.run(insertAddresses, [
      tenantId,
      inserts.map(i => i.id),
      inserts.map(i => i.userId),
      inserts.map(i => CHANNELS.indexOf(i.input.channel)),
      inserts.map(i => i.input.address),
      inserts.map(i => i.input.label ?? null),
      inserts.map(i => i.position),
      inserts.map(i => i.input.verified ?? false),
      inserts.map(i => JSON.stringify(i.settings)),
    ])
  }
}

function once<T>(make: () => Promise<T>): () => Promise<T> {
  let made: Promise<T> | undefined
  return () => (made ??= make())
}
