import type { Queryable } from '../db/pool.ts'
import { checkQuietHours } from '../time/quiet-hours.ts'
import type { Channel, Priority, TenantId, UserId } from '../types.ts'
import type { Origin } from './consents.ts'
import { effectivePreference } from './effective-preference.ts'
import { changePreferences, readPreferences, TENANT, touchPreferences } from './preference-store.ts'
import type { PreferenceSettings } from './preference-settings.ts'
import { getUser, lockUser } from './users.ts'

/** What triage documents of a person's preferences (PRO-081): a view of those about everything. */
export interface ProactivePreferences {
  enabled: boolean
  /** Less urgent messages are not sent. */
  minUrgency: Priority
  quietHours: { enabled: boolean; start: string; end: string; timezone: string; allowCritical: boolean }
  /** How long rules that gather wait for more; null: as each rule says. */
  batchIntervalMinutes: number | null
  /** The switches of these channels alone. */
  channels: Record<string, boolean>
}

/** What is left out stays as it is; null takes it away. */
export interface ProactiveChange {
  enabled?: boolean | null
  minUrgency?: Priority | null
  quietHours?: {
    enabled: boolean
    start: string
    end: string
    timezone?: string
    allowCritical?: boolean
  } | null
  batchIntervalMinutes?: number | null
  channels?: Partial<Record<Channel, boolean | null>>
}

const SHOWN = ['in_app', 'email', 'push', 'web_push', 'sms'] as const satisfies Channel[]

/** @throws AppError not_found */
export async function getProactivePreferences(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
): Promise<ProactivePreferences> {
  const { timezone } = await getUser(q, tenantId, userId)
  const own = await readPreferences(q, tenantId, userId)
  const defaults = await readPreferences(q, tenantId, TENANT)
  const global = own.find(row => row.scope === '' && row.channel === null)
  // The switch by itself, whether or not everything is on.
  const others = own.map(row => (row === global ? { ...row, enabled: null } : row))
  const of = (channel: Channel) =>
    effectivePreference(others, defaults, { channel, scopes: [], eventType: '', priority: 'NORMAL' })
  const { minPriority, quietHours, batchMinutes } = of('email')
  const said = own.flatMap(({ scope, channel }) => (scope === '' && channel !== null ? [channel] : []))
  return {
    enabled: global?.enabled ?? true,
    minUrgency: minPriority ?? 'LOW',
    quietHours: {
      enabled: quietHours?.enabled ?? false,
      start: quietHours?.start ?? '22:00',
      end: quietHours?.end ?? '07:00',
      timezone: quietHours?.timezone ?? timezone,
      allowCritical: quietHours?.allowCritical ?? true,
    },
    batchIntervalMinutes: batchMinutes ?? null,
    channels: Object.fromEntries(
      [...new Set<Channel>([...SHOWN, ...said])].map(channel => [channel, of(channel).enabled]),
    ),
  }
}

/** @throws AppError not_found; gone; invalid_schedule; conflict */
export async function patchProactivePreferences(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  by: Origin,
  { enabled, minUrgency, quietHours, batchIntervalMinutes, channels = {} }: ProactiveChange,
): Promise<ProactivePreferences> {
  await lockUser(tx, tenantId, userId)
  const own = await readPreferences(tx, tenantId, userId)
  const before = own.find(row => row.scope === '' && row.channel === null)?.settings as
    | PreferenceSettings
    | undefined
  await changePreferences(tx, tenantId, userId, by, [
    {
      scope: '',
      channel: null,
      enabled,
      settings: {
        minPriority: minUrgency,
        // Weekdays and exceptions, which this shape does not know, stay as another one wrote them.
        quietHours: quietHours && { ...before?.quietHours, ...checkQuietHours(quietHours, '/quietHours') },
        batchMinutes: batchIntervalMinutes,
      },
    },
    ...Object.entries(channels).map(([channel, on]) => ({
      scope: '',
      channel: channel as Channel,
      enabled: on,
    })),
  ])
  await touchPreferences(tx, tenantId, userId)
  return getProactivePreferences(tx, tenantId, userId)
}
