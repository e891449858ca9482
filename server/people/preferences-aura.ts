import type { Queryable } from '../db/pool.ts'
import { checkQuietHours } from '../time/quiet-hours.ts'
import type { Channel, Id, TenantId, UserId } from '../types.ts'
import type { Origin } from './consents.ts'
import { effectivePreference } from './effective-preference.ts'
import type { PreferenceRow } from './facts.ts'
import {
  changePreferences,
  readPreferences,
  type StoredPreference,
  TENANT,
  touchPreferences,
} from './preference-store.ts'
import { DEFAULT_THRESHOLD, type PreferenceSettings } from './preference-settings.ts'
import { getUser, lockUser } from './users.ts'

/** The channels that always have a row to show; another one has once something was said of it. */
export const AURA_CHANNELS = ['in_app', 'web_push', 'sms', 'whatsapp', 'email'] as const satisfies Channel[]

/** What a person says about one channel: of everything, or of what one aura sends. */
export interface NotificationPreference {
  /** null: nothing was said yet, and what is shown are the defaults. */
  id: Id | null
  userId: UserId
  /** null: everything. */
  auraId: string | null
  channel: Channel
  enabled: boolean
  quietHours: { enabled: boolean; start: string; end: string; timezone: string }
  /** null: no cap of its own. */
  maxPerDay: number | null
  priorityThreshold: number
  createdAt: Date | null
  updatedAt: Date | null
}

export interface AuraPreferences {
  global: NotificationPreference[]
  byAura: Record<string, NotificationPreference[]>
}

export interface AuraSettings {
  enabled: boolean
  quietHours?: { enabled: boolean; start: string; end: string; timezone: string } | null
  maxPerDay?: number | null
  priorityThreshold?: number | null
}

const AURA = 'aura:'

/**
 * With the defaults filled in, channel by channel.
 *
 * @throws AppError not_found
 */
export async function getAuraPreferences(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  auraId?: string,
): Promise<AuraPreferences> {
  const { timezone } = await getUser(q, tenantId, userId)
  const own = await readPreferences(q, tenantId, userId)
  const defaults = await readPreferences(q, tenantId, TENANT)
  const show = (scope: string, channel: Channel, row: StoredPreference | undefined) =>
    toView({ own, defaults, userId, timezone }, scope, channel, row)

  const rowOf = (channel: Channel) => own.find(row => row.scope === '' && row.channel === channel)
  const more = own.flatMap(({ scope, channel }) =>
    scope === '' && channel !== null && !AURA_CHANNELS.some(one => one === channel) ? [channel] : [],
  )
  const byAura = new Map<string, NotificationPreference[]>()
  for (const row of own) {
    if (!row.scope.startsWith(AURA) || row.channel === null) continue
    const id = row.scope.slice(AURA.length)
    if (auraId !== undefined && id !== auraId) continue
    const list = byAura.get(id) ?? []
    byAura.set(id, [...list, show(row.scope, row.channel, row)])
  }
  return {
    global: [...AURA_CHANNELS, ...more].map(channel => show('', channel, rowOf(channel))),
    byAura: Object.fromEntries(byAura),
  }
}

interface World {
  own: readonly PreferenceRow[]
  defaults: readonly PreferenceRow[]
  userId: UserId
  timezone: string
}

/** The switch by itself, whether or not everything is on; the settings as they hold there. */
function toView(
  { own, defaults, userId, timezone }: World,
  scope: string,
  channel: Channel,
  row: StoredPreference | undefined,
): NotificationPreference {
  const others = (rows: readonly PreferenceRow[]) =>
    rows.map(one => (one.scope === '' && one.channel === null ? { ...one, enabled: null } : one))
  const scopes = scope === '' ? [] : [scope]
  const question = { channel, scopes, eventType: '', priority: 'NORMAL' } as const
  const found = effectivePreference(others(own), others(defaults), question)
  const quiet = found.quietHours
  return {
    id: row?.id ?? null,
    userId,
    auraId: scope === '' ? null : scope.slice(AURA.length),
    channel,
    enabled: found.enabled,
    quietHours: {
      enabled: quiet?.enabled ?? false,
      start: quiet?.start ?? '22:00',
      end: quiet?.end ?? '07:00',
      timezone: quiet?.timezone ?? timezone,
    },
    maxPerDay: (row?.settings as PreferenceSettings | undefined)?.maxPerDay ?? null,
    priorityThreshold: found.priorityThreshold ?? DEFAULT_THRESHOLD,
    createdAt: row?.createdAt ?? null,
    updatedAt: row?.updatedAt ?? null,
  }
}

/**
 * What `settings` leaves out stays as it is; null takes it away.
 *
 * @throws AppError not_found; gone; invalid_schedule; conflict
 */
export async function putAuraPreference(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  by: Origin,
  { auraId, channel, settings }: { auraId?: string; channel: Channel; settings: AuraSettings },
): Promise<NotificationPreference> {
  const { enabled, quietHours, maxPerDay, priorityThreshold } = settings
  await lockUser(tx, tenantId, userId)
  const scope = auraId === undefined ? '' : `${AURA}${auraId}`
  const own = await readPreferences(tx, tenantId, userId)
  const before = own.find(row => row.scope === scope && row.channel === channel)?.settings as
    | PreferenceSettings
    | undefined
  await changePreferences(tx, tenantId, userId, by, [
    {
      scope,
      channel,
      enabled,
      settings: {
        // Weekdays and exceptions, which this shape does not know, stay as another one wrote them.
        quietHours: quietHours && {
          ...before?.quietHours,
          ...checkQuietHours(quietHours, '/settings/quietHours'),
        },
        maxPerDay,
        priorityThreshold,
      },
    },
  ])
  await touchPreferences(tx, tenantId, userId)
  const { global, byAura } = await getAuraPreferences(tx, tenantId, userId, auraId)
  return (auraId === undefined ? global : (byAura[auraId] ?? [])).find(one => one.channel === channel)!
}
