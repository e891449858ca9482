import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, type Channel, type TenantId, type UserId } from '../types.ts'
import { type AddressSealer, byPosition, preferAddress } from './addresses.ts'
import { makeAudiences, subscribe } from './audiences.ts'
import type { TopicLevel, Verification } from './facts.ts'
import { getUser, lockUser, patchUser } from './users.ts'

// ---------------------------------------------------------------- the documented view

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

export interface ChannelPreference {
  /** The channel's own switch; `globalEnabled` may still be off. */
  enabled: boolean
  /** The first address by position. Until it is verified, the next verified one is used. */
  address?: string
  verificationStatus?: Uppercase<Verification>
}

export interface PreferencesView {
  userId: UserId
  globalEnabled: boolean
  channels: Record<string, ChannelPreference>
  /** Only topics the person has subscribed to, or refused. */
  topics: Partial<Record<NamedTopic, TopicLevel>> & { customTopics: Record<string, TopicLevel> }
  language: string
  timezone: string
  lastUpdated: Date
}

/** What is left out stays as it is; null is "no opinion", which lets the tenant's default decide again. */
export interface PreferencesInput {
  globalEnabled?: boolean | null
  channels?: Record<string, { enabled?: boolean | null; address?: string }>
  /** null ends a subscription. */
  topics?: Partial<Record<NamedTopic, TopicLevel | null>> & {
    customTopics?: Record<string, TopicLevel | null>
  }
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

interface StoredRow {
  user_id: UserId
  channel: number
  enabled: boolean | null
  updated_at: Date
}

/** In place of a user id: the tenant's defaults. */
const TENANT = ''
const ALL_CHANNELS = -1

// One person's switches and the tenant's.
const findGlobal = sql(
  'find_global_preferences',
  `select user_id, channel, enabled, updated_at from preferences
   where tenant_id = $1 and user_id in ($2, '') and scope = ''`,
)
const putGlobal = sql(
  'put_global_preferences',
  `insert into preferences (tenant_id, user_id, scope, channel, enabled)
   select $1, $2, '', i.channel, i.enabled from unnest($3::int2[], $4::boolean[]) as i (channel, enabled)
   order by i.channel
   on conflict (tenant_id, user_id, scope, channel) do update set enabled = excluded.enabled, updated_at = now()`,
)
// Even where no switch changed, something did: the row bears the time.
const touch = sql(
  'touch_preferences',
  `insert into preferences (tenant_id, user_id, scope, channel) values ($1, $2, '', -1)
   on conflict (tenant_id, user_id, scope, channel) do update set updated_at = now()`,
)

/** @throws AppError not_found */
export async function getPreferences(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
): Promise<PreferencesView> {
  const user = await getUser(q, tenantId, userId)
  const stored = await q.rows<StoredRow>(findGlobal, [tenantId, userId])
  const opinionOf = (who: UserId, channel: number) =>
    stored.find(row => row.user_id === who && row.channel === channel)?.enabled ?? null
  const switchOf = (channel: number) => opinionOf(userId, channel) ?? opinionOf(TENANT, channel) ?? true
  const addresses = user.addresses.toSorted(byPosition)

  const channels: Record<string, ChannelPreference> = {}
  for (const [name, channel] of PREFERENCE_CHANNELS) {
    const first = addresses.find(address => address.channel === channel)
    const enabled = switchOf(CHANNELS.indexOf(channel))
    channels[name] =
      first === undefined
        ? { enabled }
        : {
            enabled,
            address: first.address,
            verificationStatus: first.verification.toUpperCase() as Uppercase<Verification>,
          }
  }
  const topics: PreferencesView['topics'] = { customTopics: {} }
  for (const { name, level } of user.topics) {
    if (isNamed(name)) topics[name] = level
    else topics.customTopics[name] = level
  }
  const own = stored.filter(row => row.user_id === userId)
  return {
    userId,
    globalEnabled: switchOf(ALL_CHANNELS),
    channels,
    topics,
    language: user.locale,
    timezone: user.timezone,
    lastUpdated: latest([user.updatedAt, ...own.map(row => row.updated_at)]),
  }
}

const latest = (times: Date[]): Date => new Date(Math.max(...times.map(time => time.getTime())))

/**
 * Writes what `getPreferences` shows.
 *
 * @throws AppError not_found, for the user or a custom topic; gone; invalid_request; invalid_address
 */
export async function putPreferences(
  tx: Queryable,
  seal: AddressSealer,
  userId: UserId,
  input: PreferencesInput,
): Promise<void> {
  const { tenantId } = seal
  await lockUser(tx, tenantId, userId)
  if (input.language !== undefined || input.timezone !== undefined) {
    await patchUser(tx, tenantId, userId, { locale: input.language, timezone: input.timezone })
  }
  await putSwitches(tx, tenantId, userId, input)
  for (const [name, { address }] of Object.entries(input.channels ?? {})) {
    if (address !== undefined) {
      await preferAddress(tx, seal, userId, channelOf(name), address, `/channels/${name}/address`)
    }
  }
  if (input.topics !== undefined) {
    const { customTopics = {}, ...named } = input.topics
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
  await tx.run(touch, [tenantId, userId])
}

async function putSwitches(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  { globalEnabled, channels = {} }: DefaultsInput,
): Promise<void> {
  const switches: [channel: number, enabled: boolean | null][] = []
  if (globalEnabled !== undefined) switches.push([ALL_CHANNELS, globalEnabled])
  for (const [name, { enabled }] of Object.entries(channels)) {
    if (enabled !== undefined) switches.push([CHANNELS.indexOf(channelOf(name)), enabled])
  }
  if (switches.length === 0) return
  await tx.run(putGlobal, [
    tenantId,
    userId,
    switches.map(([channel]) => channel),
    switches.map(([, enabled]) => enabled),
  ])
}

function channelOf(name: string): Channel {
  const channel = PREFERENCE_CHANNELS.get(name)
  if (channel !== undefined) return channel
  throw new AppError('invalid_request', `There is no channel "${name.slice(0, 40)}".`, { field: `/channels` })
}

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
export const putChannelSwitch = (
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  channel: Channel,
  enabled: boolean,
): Promise<{ before: boolean | null } | undefined> =>
  q.one<{ before: boolean | null }>(putSwitch, [tenantId, userId, CHANNELS.indexOf(channel), enabled])

export async function getDefaults(q: Queryable, tenantId: TenantId): Promise<DefaultsView> {
  const stored = await q.rows<StoredRow>(findGlobal, [tenantId, TENANT])
  const enabled = (channel: number) => stored.find(row => row.channel === channel)?.enabled ?? null
  return {
    globalEnabled: enabled(ALL_CHANNELS),
    channels: Object.fromEntries(
      [...PREFERENCE_CHANNELS].map(([name, channel]) => [
        name,
        { enabled: enabled(CHANNELS.indexOf(channel)) },
      ]),
    ),
    lastUpdated: stored.length === 0 ? null : latest(stored.map(row => row.updated_at)),
  }
}

/** What everybody of the tenant has who says nothing else. */
export const putDefaults = (tx: Queryable, tenantId: TenantId, input: DefaultsInput): Promise<void> =>
  putSwitches(tx, tenantId, TENANT, input)
