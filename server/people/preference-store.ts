import { isDeepStrictEqual } from 'node:util'
import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, type Channel, type Id, type JsonObject, type TenantId, type UserId } from '../types.ts'
import { addReceipts, type NewReceipt, type Origin, receiptSubject } from './consents.ts'
import type { PreferenceRow } from './facts.ts'
import type { PreferenceSettings } from './preference-settings.ts'

/** In place of a user id: the tenant's defaults. */
export const TENANT = ''

/** One person says at most so many different things: all of them travel with the person through every cache. */
export const MAX_ROWS = 1_000

export interface StoredPreference extends PreferenceRow {
  id: Id
  createdAt: Date
  updatedAt: Date
}

/** A change of one row. What is left out stays as it is. */
export interface PreferenceChange {
  /** '' is everything. */
  scope: string
  /** null: all channels. */
  channel: Channel | null
  /** null: no opinion. */
  enabled?: boolean | null | undefined
  /** null takes a setting away. */
  settings?: { [K in keyof PreferenceSettings]?: PreferenceSettings[K] | null | undefined } | undefined
}

interface Row {
  id: Id
  scope: string
  channel: number
  enabled: boolean | null
  settings: JsonObject
  created_at: Date
  updated_at: Date
}

const ALL_CHANNELS = -1
const codeOf = (channel: Channel | null) => (channel === null ? ALL_CHANNELS : CHANNELS.indexOf(channel))

const listOf = sql(
  'list_preferences',
  `select id, scope, channel, enabled, settings, created_at, updated_at from preferences
   where tenant_id = $1 and user_id = $2 order by scope, channel`,
)
const lockTenant = sql('lock_tenant_defaults', 'select id from tenants where id = $1 for no key update')
const lockPerson = sql(
  'lock_preferences_of_user',
  'select user_id from users where tenant_id = $1 and user_id = $2 for no key update',
)
const putRows = sql(
  'put_preferences',
  `insert into preferences (tenant_id, user_id, scope, channel, enabled, settings)
   select $1, $2, i.scope, i.channel, i.enabled, i.settings
   from unnest($3::text[], $4::int2[], $5::boolean[], $6::jsonb[]) as i (scope, channel, enabled, settings)
   order by i.scope, i.channel
   on conflict (tenant_id, user_id, scope, channel)
   do update set enabled = excluded.enabled, settings = excluded.settings, updated_at = now()`,
)
const deleteRows = sql(
  'delete_preferences',
  `delete from preferences p using unnest($3::text[], $4::int2[]) as i (scope, channel)
   where p.tenant_id = $1 and p.user_id = $2 and p.scope = i.scope and p.channel = i.channel`,
)
// Even where no switch changed, something did: the row bears the time.
const touch = sql(
  'touch_preferences',
  `insert into preferences (tenant_id, user_id, scope, channel) values ($1, $2, '', -1)
   on conflict (tenant_id, user_id, scope, channel) do update set updated_at = now()`,
)

/** What one person said, or with TENANT the tenant's defaults, as stored. By scope, all channels before each. */
export async function readPreferences(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
): Promise<StoredPreference[]> {
  const rows = await q.rows<Row>(listOf, [tenantId, userId])
  return rows.flatMap(({ channel, created_at, updated_at, ...row }) => {
    const name = CHANNELS[channel]
    // A newer version's channel, met while an upgrade is under way.
    if (name === undefined && channel !== ALL_CHANNELS) return []
    return [{ ...row, channel: name ?? null, createdAt: created_at, updatedAt: updated_at }]
  })
}

/**
 * Whoever changes preferences of a person, or of a tenant, holds this for the rest of the transaction: rows are
 * read, merged and written, and must not change in between. There is nothing to lock of somebody nobody created.
 */
export async function lockPreferences(tx: Queryable, tenantId: TenantId, userId: UserId): Promise<void> {
  if (userId === TENANT) await tx.run(lockTenant, [tenantId])
  else await tx.run(lockPerson, [tenantId, userId])
}

/**
 * Merges changes into what is stored, with a receipt for every switch of the person on which consent to marketing
 * hangs; `by` null: the caller writes its own. The caller holds the lock.
 *
 * @throws AppError conflict when it would be too much
 */
export async function changePreferences(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  by: Origin | null,
  changes: readonly PreferenceChange[],
): Promise<void> {
  if (changes.length === 0) return
  const stored = new Map(
    (await readPreferences(tx, tenantId, userId)).map(row => [keyOf(row), row as PreferenceRow]),
  )
  const after = new Map(stored)
  for (const change of changes) after.set(keyOf(change), merged(after.get(keyOf(change)), change))

  const puts: PreferenceRow[] = []
  const gone: PreferenceRow[] = []
  const receipts: NewReceipt[] = []
  for (const [key, row] of after) {
    const before = stored.get(key)
    if (isEmpty(row)) {
      if (before !== undefined) gone.push(row)
    } else if (before === undefined || !same(before, row)) puts.push(row)
    const subject = receiptSubject(row.scope, row.channel)
    const was = before?.enabled ?? null
    if (by !== null && userId !== TENANT && subject !== undefined && was !== row.enabled) {
      receipts.push({ subject, oldValue: { enabled: was }, newValue: { enabled: row.enabled } })
    }
  }
  if (after.size - gone.length > MAX_ROWS) {
    throw new AppError('conflict', `One person, or one tenant, has at most ${MAX_ROWS} preferences.`)
  }
  if (puts.length > 0) {
    await tx.run(putRows, [
      tenantId,
      userId,
      puts.map(row => row.scope),
      puts.map(row => codeOf(row.channel)),
      puts.map(row => row.enabled),
      puts.map(row => JSON.stringify(row.settings)),
    ])
  }
  if (gone.length > 0) {
    await tx.run(deleteRows, [
      tenantId,
      userId,
      gone.map(row => row.scope),
      gone.map(row => codeOf(row.channel)),
    ])
  }
  if (by !== null) await addReceipts(tx, tenantId, userId, by, receipts)
}

/** Takes one row back, switch and settings, with its receipt. The caller holds the lock. */
export async function removePreference(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  by: Origin | null,
  { scope, channel }: { scope: string; channel: Channel | null },
): Promise<void> {
  const rows = await readPreferences(tx, tenantId, userId)
  const settings = rows.find(row => row.scope === scope && row.channel === channel)?.settings ?? {}
  const gone = Object.fromEntries(Object.keys(settings).map(name => [name, null]))
  await changePreferences(tx, tenantId, userId, by, [{ scope, channel, enabled: null, settings: gone }])
}

/** Notes that something of this person changed now, whatever it was. */
export const touchPreferences = async (tx: Queryable, tenantId: TenantId, userId: UserId): Promise<void> => {
  await tx.run(touch, [tenantId, userId])
}

const keyOf = ({ scope, channel }: { scope: string; channel: Channel | null }) =>
  `${codeOf(channel)} ${scope}`

const same = (a: PreferenceRow, b: PreferenceRow) =>
  a.enabled === b.enabled && isDeepStrictEqual(a.settings, b.settings)

/** The global row stays: it bears the time of the last change. */
const isEmpty = ({ scope, channel, enabled, settings }: PreferenceRow) =>
  enabled === null && Object.keys(settings).length === 0 && (scope !== '' || channel !== null)

function merged(before: PreferenceRow | undefined, change: PreferenceChange): PreferenceRow {
  const settings = { ...before?.settings }
  for (const [name, value] of Object.entries(change.settings ?? {})) {
    if (value === null) delete settings[name]
    else if (value !== undefined) settings[name] = value as unknown as JsonObject
  }
  return {
    scope: change.scope,
    channel: change.channel,
    enabled: change.enabled === undefined ? (before?.enabled ?? null) : change.enabled,
    settings,
  }
}
