import { timingSafeEqual } from 'node:crypto'
import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { AppError } from '../errors.ts'
import type { Id, JsonObject, TenantId, UserId } from '../types.ts'
import { type AddressSealer, tenantKey } from './addresses.ts'
import type { DeviceKind } from './facts.ts'

/** One person has at most so many devices; a further one takes the place of the longest unused. */
export const MAX_DEVICES = 50

/** A phone or browser that push notifications go to. */
export interface Device {
  id: Id
  kind: DeviceKind
  /** Its last characters, to recognise it by: whoever holds the whole token could push to it. */
  tokenEnd: string
  userAgent: string | null
  enabled: boolean
  createdAt: Date
  lastUsedAt: Date | null
}

/** Of a web push subscription: base64url of the browser's P-256 point and of 16 bytes (RFC 8291 §3.1). */
export interface SubscriptionKeys {
  p256dh: string
  auth: string
}

export interface DeviceInput {
  kind: DeviceKind
  /** FCM or APNs token; for web push the subscription's endpoint. */
  token: string
  keys?: SubscriptionKeys
  userAgent?: string
}

const columns = `id, kind, right(token, 6) as "tokenEnd", user_agent as "userAgent", enabled,
  created_at as "createdAt", last_used_at as "lastUsedAt"`
const list = sql(
  'list_devices',
  `select ${columns} from devices where tenant_id = $1 and user_id = $2
   order by coalesce(last_used_at, created_at) desc, id`,
)
// A delete and an insert, not an update: the change must be noted for the former owner as well.
const takeFromOthers = sql(
  'take_device_from_others',
  'delete from devices where tenant_id = $1 and kind = $2 and token = $3 and user_id <> $4',
)
const put = sql(
  'put_device',
  `insert into devices (tenant_id, id, user_id, kind, token, keys, user_agent, last_used_at)
   values ($1, $2, $3, $4, $5, $6, $7, now())
   on conflict (tenant_id, kind, token) do update
   set keys = excluded.keys, user_agent = excluded.user_agent, enabled = true, last_used_at = now()
   where devices.user_id = excluded.user_id
   returning ${columns}, (xmax = 0) as created`,
)
const dropLongestUnused = sql(
  'drop_longest_unused_devices',
  `delete from devices where tenant_id = $1 and id in (
     select id from devices where tenant_id = $1 and user_id = $2
     order by coalesce(last_used_at, created_at) desc, id desc offset ${MAX_DEVICES})`,
)
const removeOne = sql(
  'delete_device',
  'delete from devices where tenant_id = $1 and user_id = $2 and id = $3',
)
const removeToken = sql(
  'delete_device_by_token',
  'delete from devices where tenant_id = $1 and user_id = $2 and kind = $3 and token = $4',
)
// Noted as a change of the person, whom every cache then reads again: an hour is exact enough.
const touch = sql(
  'touch_devices',
  `update devices d set last_used_at = $4
   from unnest($2::text[], $3::text[]) as i (kind, token)
   where d.tenant_id = $1 and d.kind = i.kind and d.token = i.token
     and (d.last_used_at is null or d.last_used_at < $4::timestamptz - interval '1 hour')`,
)
const findSubscription = sql(
  'find_subscription',
  `select d.tenant_id, d.user_id, d.keys, t.data_key
   from tenants t join devices d on d.tenant_id = t.id and d.kind = 'web_push' and d.token = $2
   where t.name = $1 and t.enabled`,
)
const removeDead = sql(
  'delete_dead_devices',
  `delete from devices d using unnest($2::text[], $3::text[]) as i (kind, token)
   where d.tenant_id = $1 and d.kind = i.kind and d.token = i.token`,
)

const pushTokens = sql(
  'list_push_tokens',
  `select id, kind, token from devices where tenant_id = $1 and user_id = $2 and kind <> 'web_push' order by id`,
)

/** A person's phones with their tokens, which leave to their services alone: MAX_DEVICES at most. */
export const listPushTokens = (
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
): Promise<{ id: Id; kind: 'fcm' | 'apns'; token: string }[]> => q.rows(pushTokens, [tenantId, userId])

export const listDevices = (q: Queryable, tenantId: TenantId, userId: UserId): Promise<Device[]> =>
  q.rows<Device>(list, [tenantId, userId])

/**
 * Registers a device, again or for the first time; whoever used it before loses it. The caller holds the lock of
 * the user's row.
 *
 * @throws AppError invalid_address; conflict when somebody else registers it at the same moment
 */
export async function registerDevice(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  { kind, token, keys, userAgent }: DeviceInput,
): Promise<Device & { created: boolean }> {
  const { tenantId } = seal
  checkDevice(kind, token, keys)
  await tx.run(takeFromOthers, [tenantId, kind, token, userId])
  const stored: StoredKeys = {}
  if (keys !== undefined) {
    const key = await tenantKey(tx, seal)
    stored.sealed = seal.sealer.seal(key, JSON.stringify(keys), sealedFor(kind, token)).toString('base64')
  }
  const values = [tenantId, newId(), userId, kind, token, JSON.stringify(stored), userAgent ?? null]
  const device = await tx.one<Device & { created: boolean }>(put, values)
  if (device === undefined) throw new AppError('conflict', 'The device is being registered for another user.')
  if (device.created) await tx.run(dropLongestUnused, [tenantId, userId])
  return device
}

/** What `keys` holds in the database: base64 of the sealed JSON of SubscriptionKeys. */
interface StoredKeys {
  sealed?: string
}

/** Bound to the token: copied into another row, it cannot be opened. */
const sealedFor = (kind: DeviceKind, token: string): string => `device ${kind} ${token}`

/**
 * What a provider gets of a device beside its token: whose token it is, and the keys of a subscription, opened. `key`
 * is the tenant's data key, unwrapped.
 *
 * @throws Error when the keys were not sealed for this device
 */
export function openDeviceSettings(
  sealer: Pick<Sealer, 'open'>,
  key: Buffer,
  { kind, token, keys }: { kind: DeviceKind; token: string; keys: JsonObject },
): JsonObject {
  const { sealed } = keys as StoredKeys
  if (sealed === undefined) return { kind }
  const text = sealer.open(key, Buffer.from(sealed, 'base64'), sealedFor(kind, token)).toString('utf8')
  return { kind, ...(JSON.parse(text) as SubscriptionKeys) }
}

function checkDevice(kind: DeviceKind, token: string, keys: DeviceInput['keys']): void {
  // Tokens are opaque, but none has blanks, control characters or letters beyond ASCII; nor has a URL on the wire.
  if (!/^[\x21-\x7e]+$/.test(token)) throw refused('This is not a device token.', '/token')
  // An app that registered as a topic would have its messages told to everybody in it.
  if (token.startsWith('/topics/')) throw refused('A topic is no device.', '/token')
  if (kind !== 'web_push') {
    if (keys !== undefined) throw refused('Only web push subscriptions have keys.', '/keys')
    return
  }
  if (!URL.canParse(token) || new URL(token).protocol !== 'https:') {
    throw refused('The token of a web push subscription is its endpoint, an https URL.', '/token')
  }
  if (keys === undefined) throw refused('A web push subscription has keys.', '/keys')
  const point = Buffer.from(keys.p256dh, 'base64url')
  if (point.length !== 65 || point[0] !== 4) throw refused('Not an uncompressed P-256 point.', '/keys/p256dh')
  if (Buffer.from(keys.auth, 'base64url').length !== 16) throw refused('Not 16 bytes.', '/keys/auth')
}

const refused = (detail: string, field: string) => new AppError('invalid_address', detail, { field })

/** @throws AppError not_found */
export async function removeDevice(tx: Queryable, tenantId: TenantId, userId: UserId, id: Id): Promise<void> {
  if ((await tx.run(removeOne, [tenantId, userId, id])) === 0) {
    throw new AppError('not_found', 'The user has no such device.')
  }
}

/** Whether the user had it. */
export const removeDeviceByToken = async (
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  kind: DeviceKind,
  token: string,
): Promise<boolean> => (await tx.run(removeToken, [tenantId, userId, kind, token])) > 0

/**
 * Whose subscription this is, to whoever knows its `auth` secret: only the browser does, and we. Undefined alike for
 * one we do not know and for a wrong secret.
 */
export async function ownerOfSubscription(
  q: Queryable,
  sealer: Pick<Sealer, 'open' | 'unwrap'>,
  tenant: string,
  endpoint: string,
  auth: string,
): Promise<{ tenantId: TenantId; userId: UserId } | undefined> {
  const row = await q.one<{ tenant_id: TenantId; user_id: UserId; keys: JsonObject; data_key: Buffer }>(
    findSubscription,
    [tenant, endpoint],
  )
  if (row === undefined) return undefined
  const device = { kind: 'web_push', token: endpoint, keys: row.keys } as const
  const known = openDeviceSettings(sealer, sealer.unwrap(row.data_key), device) as Partial<SubscriptionKeys>
  const [theirs, ours] = [Buffer.from(auth, 'base64url'), Buffer.from(known.auth ?? '', 'base64url')]
  if (theirs.length !== ours.length || !timingSafeEqual(theirs, ours)) return undefined
  return { tenantId: row.tenant_id, userId: row.user_id }
}

/** Says that something was sent to them; noted once an hour. */
export const touchDevices = (
  tx: Queryable,
  tenantId: TenantId,
  devices: readonly { kind: DeviceKind; token: string }[],
  at: Date,
): Promise<number> => tx.run(touch, [tenantId, devices.map(d => d.kind), devices.map(d => d.token), at])

/** Devices a provider has declared gone, such as by 410 or `UNREGISTERED`. Returns how many there were. */
export const removeDeadDevices = (
  tx: Queryable,
  tenantId: TenantId,
  devices: readonly { kind: DeviceKind; token: string }[],
): Promise<number> => tx.run(removeDead, [tenantId, devices.map(d => d.kind), devices.map(d => d.token)])
