import { LRUCache } from 'lru-cache'
import type { Db } from '../db/pool.ts'
import type { Channel, TenantId } from '../types.ts'
import { removeDeadDevices, touchDevices } from './devices.ts'
import type { DeviceKind } from './facts.ts'

/** What deliveries teach about devices, gathered and written together, off their way. */
export interface DeviceKeeper {
  /** It was sent something: noted once an hour. */
  reached(tenantId: TenantId, channel: Channel, token: string): void
  /** The app was removed, or the browser's permission: nothing will ever arrive there again. */
  gone(tenantId: TenantId, channel: Channel, token: string): void
  /** Writes what was gathered. */
  flush(): Promise<void>
  stop(): Promise<void>
}

interface Device {
  tenantId: TenantId
  kind: DeviceKind
  token: string
}

const FLUSH_MS = 500
/** A burst beyond this is forgotten: the next message says the same again. */
const MAX_GATHERED = 20_000
const HOUR_MS = 3_600_000

/** A token does not say whose service it belongs to; each kind that the channel may mean is looked for. */
const KINDS: Partial<Record<Channel, readonly DeviceKind[]>> = {
  push: ['fcm', 'apns'],
  web_push: ['web_push'],
}

export function deviceKeeper({
  db,
  now,
  onError,
}: {
  db: Db
  now(): Date
  onError(error: unknown): void
}): DeviceKeeper {
  const touched = new LRUCache<string, true>({ max: 100_000, ttl: HOUR_MS })
  let reached: Device[] = []
  let gone: Device[] = []
  let timer: NodeJS.Timeout | undefined
  let writing = Promise.resolve()

  function gather(list: Device[], tenantId: TenantId, channel: Channel, token: string): void {
    for (const kind of KINDS[channel] ?? []) {
      if (list.length < MAX_GATHERED) list.push({ tenantId, kind, token })
    }
    timer ??= setTimeout(() => void flush().catch(onError), FLUSH_MS)
  }

  function flush(): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    const [sent, dead] = [reached, gone]
    reached = []
    gone = []
    writing = writing
      .catch(() => {})
      .then(async () => {
        for (const [tenantId, devices] of byTenant(sent)) await touchDevices(db, tenantId, devices, now())
        for (const [tenantId, devices] of byTenant(dead)) await removeDeadDevices(db, tenantId, devices)
      })
    return writing
  }

  return {
    reached(tenantId, channel, token) {
      const name = `${tenantId} ${token}`
      if (KINDS[channel] === undefined || touched.has(name)) return
      touched.set(name, true)
      gather(reached, tenantId, channel, token)
    },
    gone(tenantId, channel, token) {
      if (KINDS[channel] !== undefined) gather(gone, tenantId, channel, token)
    },
    flush,
    async stop() {
      await flush().catch(onError)
    },
  }
}

const byTenant = (devices: readonly Device[]): Map<TenantId, Device[]> =>
  Map.groupBy(devices, ({ tenantId }) => tenantId)
