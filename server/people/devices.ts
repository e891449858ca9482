import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Id, TenantId, UserId } from '../types.ts'
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

export interface DeviceInput {
  kind: DeviceKind
  /** FCM or APNs token; for web push the subscription's endpoint. */
  token: string
  /** Of a web push subscription: base64url of the browser's P-256 point and of 16 bytes (RFC 8291 §3.1). */
  keys?: { p256dh: string; auth: string }
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
const removeDead = sql(
  'delete_dead_devices',
  `delete from devices d using unnest($2::text[], $3::text[]) as i (kind, token)
   where d.tenant_id = $1 and d.kind = i.kind and d.token = i.token`,
)

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
  tenantId: TenantId,
  userId: UserId,
  { kind, token, keys, userAgent }: DeviceInput,
): Promise<Device & { created: boolean }> {
  checkDevice(kind, token, keys)
  await tx.run(takeFromOthers, [tenantId, kind, token, userId])
  const values = [tenantId, newId(), userId, kind, token, JSON.stringify(keys ?? {}), userAgent ?? null]
  const device = await tx.one<Device & { created: boolean }>(put, values)
  if (device === undefined) throw new AppError('conflict', 'The device is being registered for another user.')
  if (device.created) await tx.run(dropLongestUnused, [tenantId, userId])
  return device
}

function checkDevice(kind: DeviceKind, token: string, keys: DeviceInput['keys']): void {
  // Tokens are opaque, but none has blanks, control characters or letters beyond ASCII; nor has a URL on the wire.
  if (!/^[\x21-\x7e]+$/.test(token)) throw refused('This is not a device token.', '/token')
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

/** Devices a provider has declared gone, such as by 410 or `UNREGISTERED`. Returns how many there were. */
export const removeDeadDevices = (
  tx: Queryable,
  tenantId: TenantId,
  devices: readonly { kind: DeviceKind; token: string }[],
): Promise<number> => tx.run(removeDead, [tenantId, devices.map(d => d.kind), devices.map(d => d.token)])
