import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { checkQuietHours, type QuietHours } from '../time/quiet-hours.ts'
import { CHANNELS, type Channel, type Priority, type TenantId, type UserId } from '../types.ts'
import { type AddressSealer, byPosition, preferAddress } from './addresses.ts'
import { makeAudiences, subscribe } from './audiences.ts'
import type { Origin } from './consents.ts'
import { effectivePreference } from './effective-preference.ts'
import type { PreferenceRow, TopicLevel, Verification } from './facts.ts'
import { checkDigest, naming } from './preference-fields.ts'
import { MESSAGE_CLASSES, type MessageClass } from './preference-scopes.ts'
import type { DigestSettings, PreferenceSettings } from './preference-settings.ts'
import {
  changePreferences,
  lockPreferences,
  type PreferenceChange,
  readPreferences,
  TENANT,
  touchPreferences,
} from './preference-store.ts'
import { getUser, lockUser, patchUser } from './users.ts'

/** The channels by the names they have in preferences, in camel case: `inApp`, `webPush`. */
export const PREFERENCE_CHANNELS: ReadonlyMap<string, Channel> = new Map(
  CHANNELS.map(channel => [channel.replace(/_(.)/g, (_, letter: string) => letter.toUpperCase()), channel]),
)

/** The topics that have fields of their own; every other topic is a custom one. */
export const NAMED_TOPICS = [
  'trading',
  'community',
  'marketplace',
  'system',
  'educational',
  'social',
] as const
type NamedTopic = (typeof NAMED_TOPICS)[number]
const isNamed = (name: string): name is NamedTopic => (NAMED_TOPICS as readonly string[]).includes(name)

export const DIGEST_FREQUENCIES = ['HOURLY', 'DAILY', 'WEEKLY'] as const
type DigestFrequency = (typeof DIGEST_FREQUENCIES)[number]

// ---------------------------------------------------------------- shapes

export interface ChannelPreference {
  /** The channel's own switch; `globalEnabled` may still be off. */
  enabled: boolean
  /** The first address by position. Until it is verified, the next verified one is used. */
  address?: string
  verificationStatus?: Uppercase<Verification>
  /** Whether messages of each class may come by this channel. */
  preferences: Record<MessageClass, boolean>
}

export type TopicsView = Partial<Record<NamedTopic, TopicLevel>> & {
  customTopics: Record<string, TopicLevel>
}

export interface FrequencyView {
  /** null: no cap of their own. */
  maxPerHour: number | null
  maxPerDay: number | null
  digestEnabled: boolean
  digestFrequency: DigestFrequency
  /** 'HH:MM' in the person's zone; null: 09:00. */
  digestTime: string | null
  /** 0 is Sunday; null: Monday. */
  digestWeekday: number | null
  instantAlerts: string[]
  batchableEvents: string[]
}

export interface QuietHoursView {
  enabled: boolean
  startTime: string
  endTime: string
  timezone: string
  /** 0 is Sunday: the days on which quiet hours start. */
  weekdays: number[]
  exceptions: string[]
  allowCritical: boolean
}

export interface CategoryView {
  enabled: boolean
  /** null: every channel. */
  channels: Channel[] | null
  minPriority: Priority | null
}

export interface PreferencesView {
  userId: UserId
  globalEnabled: boolean
  channels: Record<string, ChannelPreference>
  /** Only topics the person has subscribed to, or refused. */
  topics: TopicsView
  /** Only categories that somebody, the person or the tenant, said something about. */
  categories: Record<string, CategoryView>
  frequency: FrequencyView
  quietHours: QuietHoursView
  minPriority: Priority | null
  mutedUntil: Date | null
  language: string
  timezone: string
  lastUpdated: Date
}

type Nullable<T> = { [K in keyof T]?: T[K] | null | undefined }

export type TopicsInput = Partial<Record<NamedTopic, TopicLevel | null>> & {
  customTopics?: Record<string, TopicLevel | null>
}

export interface ChannelInput {
  enabled?: boolean | null
  address?: string
  preferences?: Partial<Record<MessageClass, boolean | null>>
}

/** What is left out stays as it is; null is "no opinion", which lets the tenant's default decide again. */
export interface PreferencesInput {
  globalEnabled?: boolean | null
  channels?: Record<string, ChannelInput>
  /** null ends a subscription. */
  topics?: TopicsInput
  categories?: Record<string, Nullable<CategoryView> | null>
  frequency?: Nullable<FrequencyView> | null
  quietHours?: Nullable<QuietHoursView> | null
  minPriority?: Priority | null
  language?: string
  timezone?: string
}

export interface DefaultsView {
  /** null: no opinion. */
  globalEnabled: boolean | null
  channels: Record<string, { enabled: boolean | null }>
  lastUpdated: Date | null
}

export type DefaultsInput = Pick<PreferencesInput, 'globalEnabled'> & {
  channels?: Record<string, { enabled?: boolean | null }>
}

// ---------------------------------------------------------------- reading

/** @throws AppError not_found */
export async function getPreferences(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
): Promise<PreferencesView> {
  const user = await getUser(q, tenantId, userId)
  const own = await readPreferences(q, tenantId, userId)
  const defaults = await readPreferences(q, tenantId, TENANT)
  const all = settingsOf(own, defaults)
  return {
    userId,
    globalEnabled: globally(own) ?? globally(defaults) ?? true,
    channels: channelsView(own, defaults, user.addresses.toSorted(byPosition)),
    topics: topicsView(user.topics),
    categories: categoriesView(own, defaults),
    frequency: frequencyView(all),
    quietHours: quietHoursView(all.quietHours, user.timezone),
    minPriority: all.minPriority ?? null,
    mutedUntil: all.mutedUntil === undefined ? null : new Date(all.mutedUntil),
    language: user.locale,
    timezone: user.timezone,
    lastUpdated: latest([user.updatedAt, ...own.map(row => row.updatedAt)]),
  }
}

const latest = (times: Date[]): Date => new Date(Math.max(...times.map(time => time.getTime())))

const isGlobal = (row: PreferenceRow) => row.scope === '' && row.channel === null
const globally = (rows: readonly PreferenceRow[]) => rows.find(isGlobal)?.enabled ?? null

/** What is said of everything, the person before the tenant. */
const settingsOf = (
  own: readonly PreferenceRow[],
  defaults: readonly PreferenceRow[],
): PreferenceSettings => ({
  ...(defaults.find(isGlobal)?.settings as PreferenceSettings | undefined),
  ...(own.find(isGlobal)?.settings as PreferenceSettings | undefined),
})

/**
 * One switch by itself, as the evaluation weighs it: a message goes by a channel when everything, the channel and
 * the class are on.
 */
function switches(own: readonly PreferenceRow[], defaults: readonly PreferenceRow[], scope: string) {
  const of = (rows: readonly PreferenceRow[]) => rows.filter(row => row.scope === scope && !isGlobal(row))
  const user = of(own)
  const tenant = of(defaults)
  const scopes = scope === '' ? [] : [scope]
  return (channel: Channel): boolean =>
    effectivePreference(user, tenant, { channel, scopes, eventType: '', priority: 'NORMAL' }).enabled
}

function channelsView(
  own: readonly PreferenceRow[],
  defaults: readonly PreferenceRow[],
  addresses: readonly { channel: Channel; address: string; verification: Verification }[],
): Record<string, ChannelPreference> {
  const open = switches(own, defaults, '')
  const classes = MESSAGE_CLASSES.map(name => [name, switches(own, defaults, `class:${name}`)] as const)
  const channels: Record<string, ChannelPreference> = {}
  for (const [name, channel] of PREFERENCE_CHANNELS) {
    const first = addresses.find(address => address.channel === channel)
    channels[name] = {
      enabled: open(channel),
      ...(first !== undefined && {
        address: first.address,
        verificationStatus: first.verification.toUpperCase() as Uppercase<Verification>,
      }),
      preferences: Object.fromEntries(
        classes.map(([one, wanted]) => [one, wanted(channel)]),
      ) as ChannelPreference['preferences'],
    }
  }
  return channels
}

export function topicsView(subscriptions: readonly { name: string; level: TopicLevel }[]): TopicsView {
  const topics: TopicsView = { customTopics: {} }
  for (const { name, level } of subscriptions) {
    if (isNamed(name)) topics[name] = level
    else topics.customTopics[name] = level
  }
  return topics
}

function categoriesView(
  own: readonly PreferenceRow[],
  defaults: readonly PreferenceRow[],
): Record<string, CategoryView> {
  const categories: Record<string, CategoryView> = {}
  // The person's words come last and win.
  for (const { scope, channel, enabled, settings } of [...defaults, ...own]) {
    if (channel !== null || !scope.startsWith('category:')) continue
    const name = scope.slice('category:'.length)
    const before = Object.hasOwn(categories, name) ? categories[name] : undefined
    const said = settings as PreferenceSettings
    // As an own property, whatever it is called.
    Object.defineProperty(categories, name, {
      value: {
        enabled: enabled ?? before?.enabled ?? true,
        channels: said.channels ?? before?.channels ?? null,
        minPriority: said.minPriority ?? before?.minPriority ?? null,
      },
      enumerable: true,
      configurable: true,
      writable: true,
    })
  }
  return categories
}

const frequencyView = ({ maxPerHour, maxPerDay, digest }: PreferenceSettings): FrequencyView => ({
  maxPerHour: maxPerHour ?? null,
  maxPerDay: maxPerDay ?? null,
  digestEnabled: digest?.enabled ?? false,
  digestFrequency: (digest?.frequency.toUpperCase() ?? 'DAILY') as DigestFrequency,
  digestTime: digest?.at ?? null,
  digestWeekday: digest?.weekday === undefined ? null : digest.weekday % 7,
  instantAlerts: digest?.instant ?? [],
  batchableEvents: digest?.batchable ?? [],
})

const EVERY_DAY = [0, 1, 2, 3, 4, 5, 6]
/** Where nobody has named times: off, and these when they are switched on. */
const NIGHT: QuietHours = { enabled: false, start: '22:00', end: '08:00' }

export const quietHoursView = (quiet: QuietHours = NIGHT, timezone: string): QuietHoursView => ({
  enabled: quiet.enabled,
  startTime: quiet.start,
  endTime: quiet.end,
  timezone: quiet.timezone ?? timezone,
  weekdays: quiet.weekdays?.map(day => day % 7).sort((a, b) => a - b) ?? EVERY_DAY,
  exceptions: quiet.exceptions ?? [],
  allowCritical: quiet.allowCritical ?? true,
})

// ---------------------------------------------------------------- writing

/**
 * Writes what `getPreferences` shows.
 *
 * @throws AppError not_found, for the user or a custom topic; gone; invalid_request; invalid_schedule;
 * invalid_address; conflict
 */
export async function putPreferences(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  by: Origin,
  input: PreferencesInput,
): Promise<void> {
  const { tenantId } = seal
  await lockUser(tx, tenantId, userId)
  if (input.language !== undefined || input.timezone !== undefined) {
    await patchUser(tx, tenantId, userId, { locale: input.language, timezone: input.timezone })
  }
  const own = await readPreferences(tx, tenantId, userId)
  const settings = (own.find(isGlobal)?.settings ?? {}) as PreferenceSettings
  await changePreferences(tx, tenantId, userId, by, [
    { scope: '', channel: null, enabled: input.globalEnabled, settings: globalSettings(settings, input) },
    ...channelChanges(input.channels ?? {}),
    ...categoryChanges(input.categories ?? {}),
  ])
  for (const [name, { address }] of Object.entries(input.channels ?? {})) {
    if (address !== undefined) {
      await preferAddress(tx, seal, userId, channelOf(name), address, `/channels/${name}/address`)
    }
  }
  if (input.topics !== undefined) await putTopics(tx, tenantId, userId, input.topics)
  await touchPreferences(tx, tenantId, userId)
}

function channelChanges(channels: Record<string, ChannelInput>): PreferenceChange[] {
  return Object.entries(channels).flatMap(([name, { enabled, preferences = {} }]) => {
    const channel = channelOf(name)
    return [
      { scope: '', channel, enabled },
      ...Object.entries(preferences).map(([one, wanted]) => ({
        scope: `class:${one}`,
        channel,
        enabled: wanted,
      })),
    ]
  })
}

const categoryChanges = (categories: NonNullable<PreferencesInput['categories']>): PreferenceChange[] =>
  Object.entries(categories).map(([name, said]) => ({
    scope: `category:${name}`,
    channel: null,
    enabled: said === null ? null : said.enabled,
    settings:
      said === null
        ? { channels: null, minPriority: null }
        : { channels: said.channels, minPriority: said.minPriority },
  }))

function globalSettings(
  before: PreferenceSettings,
  { frequency, quietHours, minPriority }: PreferencesInput,
): NonNullable<PreferenceChange['settings']> {
  return {
    minPriority,
    ...(frequency === null && { maxPerHour: null, maxPerDay: null, digest: null }),
    ...(frequency && {
      maxPerHour: frequency.maxPerHour,
      maxPerDay: frequency.maxPerDay,
      digest: mergeDigest(before.digest, frequency),
    }),
    quietHours: quietHours && mergeQuietHours(before.quietHours, quietHours, '/quietHours'),
  }
}

/** Undefined when nothing was said of it. */
function mergeDigest(
  before: DigestSettings | undefined,
  given: Nullable<FrequencyView>,
): DigestSettings | undefined {
  const { digestEnabled, digestFrequency, digestTime, digestWeekday, instantAlerts, batchableEvents } = given
  const said = [digestEnabled, digestFrequency, digestTime, digestWeekday, instantAlerts, batchableEvents]
  if (said.every(one => one === undefined)) return undefined
  const frequency = (digestFrequency?.toLowerCase() ??
    before?.frequency ??
    'daily') as DigestSettings['frequency']
  const at = digestTime === undefined ? before?.at : (digestTime ?? undefined)
  const weekday = digestWeekday === undefined ? before?.weekday : toIso(digestWeekday)
  const instant = instantAlerts ?? (instantAlerts === null ? undefined : before?.instant)
  const batchable = batchableEvents ?? (batchableEvents === null ? undefined : before?.batchable)
  const digest: DigestSettings = { enabled: digestEnabled ?? before?.enabled ?? false, frequency }
  // What another frequency does not have is dropped where it was kept from before, and refused where it is given.
  if (at !== undefined && (frequency !== 'hourly' || digestTime != null)) digest.at = at
  if (weekday !== undefined && (frequency === 'weekly' || digestWeekday != null)) digest.weekday = weekday
  if (instant !== undefined) digest.instant = instant
  if (batchable !== undefined) digest.batchable = batchable
  return naming(
    field => field.replace(/weekday$/, 'digestWeekday').replace(/at$/, 'digestTime'),
    () => checkDigest(digest, '/frequency'),
  )
}

/** 0 is Sunday there, 7 here. */
const toIso = (weekday: number | null): number | undefined => (weekday === null ? undefined : weekday || 7)

export function mergeQuietHours(
  before: QuietHours = NIGHT,
  given: Nullable<QuietHoursView>,
  field: string,
): QuietHours {
  const { enabled, startTime, endTime, timezone, weekdays, exceptions, allowCritical } = given
  const quiet = {
    enabled: enabled ?? before.enabled,
    start: startTime ?? before.start,
    end: endTime ?? before.end,
    timezone: timezone === undefined ? before.timezone : timezone,
    weekdays: weekdays === undefined ? before.weekdays : weekdays?.map(day => day || 7),
    exceptions: exceptions === undefined ? before.exceptions : exceptions,
    allowCritical: allowCritical ?? before.allowCritical,
  }
  return naming(
    name => name.replace(/\/(start|end)$/, '/$1Time'),
    () => checkQuietHours(quiet, field),
  )
}

async function putTopics(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  { customTopics = {}, ...named }: TopicsInput,
): Promise<void> {
  const levels = new Map<string, TopicLevel | null>(Object.entries(customTopics))
  // They are documented, so they exist as soon as somebody asks for them.
  await makeAudiences(
    tx,
    tenantId,
    Object.keys(named).map(name => ({ kind: 'topic' as const, name })),
  )
  for (const [name, level] of Object.entries(named)) if (level !== undefined) levels.set(name, level)
  await subscribe(tx, tenantId, userId, levels)
}

/** @throws AppError invalid_request */
export function channelOf(name: string): Channel {
  const channel = PREFERENCE_CHANNELS.get(name)
  if (channel !== undefined) return channel
  throw new AppError('invalid_request', `There is no channel "${name.slice(0, 40)}".`, { field: `/channels` })
}

/**
 * A client's own copy, made while it was away. The one that was changed later wins as a whole.
 *
 * @returns whether the client's did
 */
export async function syncPreferences(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  by: Origin,
  input: PreferencesInput,
  changedAt: Date,
): Promise<boolean> {
  await lockUser(tx, seal.tenantId, userId)
  const { lastUpdated } = await getPreferences(tx, seal.tenantId, userId)
  if (changedAt <= lastUpdated) return false
  await putPreferences(tx, seal, userId, by, input)
  return true
}

/**
 * Mutes everything, a scope or a channel of it, until an instant; null ends it.
 *
 * @throws AppError not_found; gone
 */
export async function mute(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  by: Origin,
  { scope = '', channel = null, until }: { scope?: string; channel?: Channel | null; until: string | null },
): Promise<void> {
  await lockUser(tx, tenantId, userId)
  await changePreferences(tx, tenantId, userId, by, [{ scope, channel, settings: { mutedUntil: until } }])
  await touchPreferences(tx, tenantId, userId)
}

// ---------------------------------------------------------------- one switch, for links

const findSwitch = sql(
  'find_channel_switch',
  `select enabled from preferences where tenant_id = $1 and user_id = $2 and scope = '' and channel = $3`,
)
// Nothing is written where nothing changes, nor for the erased, whose id must not come back.
const putSwitch = sql(
  'put_channel_switch',
  `insert into preferences as p (tenant_id, user_id, scope, channel, enabled)
   select t.id, $2, '', $3, $4 from tenants t
   where t.id = $1
     and not exists (select from users u where u.tenant_id = $1 and u.user_id = $2 and u.erased_at is not null)
   on conflict (tenant_id, user_id, scope, channel) do update set enabled = excluded.enabled, updated_at = now()
   where p.enabled is distinct from excluded.enabled
   returning old.enabled as before`,
)

/** What the person said about the channel; null: nothing. */
export async function channelSwitch(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  channel: Channel,
): Promise<boolean | null> {
  const found = await q.one<{ enabled: boolean | null }>(findSwitch, [
    tenantId,
    userId,
    CHANNELS.indexOf(channel),
  ])
  return found?.enabled ?? null
}

/**
 * Sets what the person says about the channel, also for somebody nobody has created: a wish to be left alone
 * counts all the same. Undefined when it was so already, or the person was erased.
 */
export async function putChannelSwitch(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  channel: Channel,
  enabled: boolean,
): Promise<{ before: boolean | null } | undefined> {
  await lockPreferences(tx, tenantId, userId)
  return tx.one<{ before: boolean | null }>(putSwitch, [tenantId, userId, CHANNELS.indexOf(channel), enabled])
}

// ---------------------------------------------------------------- the tenant's defaults

export async function getDefaults(q: Queryable, tenantId: TenantId): Promise<DefaultsView> {
  const stored = await readPreferences(q, tenantId, TENANT)
  const enabled = (channel: Channel | null) =>
    stored.find(row => row.scope === '' && row.channel === channel)?.enabled ?? null
  return {
    globalEnabled: enabled(null),
    channels: Object.fromEntries(
      [...PREFERENCE_CHANNELS].map(([name, channel]) => [name, { enabled: enabled(channel) }]),
    ),
    lastUpdated: stored.length === 0 ? null : latest(stored.map(row => row.updatedAt)),
  }
}

/** What everybody of the tenant has who says nothing else. */
export async function putDefaults(
  tx: Queryable,
  tenantId: TenantId,
  { globalEnabled, channels = {} }: DefaultsInput,
): Promise<void> {
  await lockPreferences(tx, tenantId, TENANT)
  // A plain switch is a plain default: what was required before is so no longer.
  const plain = (enabled: boolean | null | undefined) => ({
    enabled,
    settings: enabled === undefined ? {} : { mode: null },
  })
  await changePreferences(tx, tenantId, TENANT, null, [
    { scope: '', channel: null, ...plain(globalEnabled) },
    ...Object.entries(channels).map(([name, { enabled }]) => ({
      scope: '',
      channel: channelOf(name),
      ...plain(enabled),
    })),
  ])
}
