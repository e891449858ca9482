import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import { limitsAt } from '../decide/limits.ts'
import { AppError } from '../errors.ts'
import { readUsage } from '../ledger/usage.ts'
import { effectivePreference } from '../people/effective-preference.ts'
import { peopleFacts } from '../people/facts.ts'
import type { UserFacts } from '../people/facts.ts'
import { scopesOf } from '../people/preference-scopes.ts'
import type { PreferenceSettings } from '../people/preference-settings.ts'
import { TENANT, readPreferences } from '../people/preference-store.ts'
import type { StoredPreference } from '../people/preference-store.ts'
import type { Decision } from '../reasons.ts'
import { zoneOrUtc } from '../time/zone.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Priority, TenantId, UserId } from '../types.ts'
import { allCaps, limitKey, ofTier, ownKey, zoneOf } from '../limits/limit-book.ts'
import type { LimitScope, LimitWindow, StoredLimit } from '../limits/store.ts'
import { allLimits } from '../limits/store.ts'
import { capWindow, claimName, usage, usageName } from '../limits/usage.ts'
import type { Cap } from '../limits/usage.ts'

/** One counter of one limit as it stands: what the views at `/api/rate-limits` and `/api/quotas` show. */
export interface Allowance {
  /** The limit's, or of somebody's own setting a name made of its scope, channel and window. */
  id: string
  name: string
  scope: LimitScope
  /** `limit`: an operator's. `preference`: the reader's own, or the tenant's default of it. */
  source: 'limit' | 'preference'
  set: string | null
  userId: UserId | null
  /** null: counted over all of `channels` together. */
  channel: Channel | null
  /** Empty: all outside channels. */
  channels: readonly Channel[]
  categories: readonly string[]
  eventTypes: readonly string[]
  window: LimitWindow
  every: number
  gapSeconds: number | null
  max: number
  costs: Partial<Record<Channel, number>>
  /** null: one counter for each value of something that is not listed here. */
  used: number | null
  from: Date
  until: Date
  enabled: boolean
  createdAt: Date
  updatedAt: Date
  /** The counter, or the claim of a gap; null where there are many. */
  key: string | null
}

export interface Person {
  user: UserFacts
  zone: string
  own: StoredPreference[]
  defaults: StoredPreference[]
}

/** @throws AppError not_found */
export async function findPerson(
  q: Queryable,
  sealer: { unwrap(wrapped: Buffer): Buffer },
  tenantId: TenantId,
  userId: UserId,
): Promise<Person> {
  const facts = await peopleFacts({ sealer, max: 2 }).load(q, [{ tenantId, userIds: [userId] }])
  const user = facts.get(tenantId, userId)
  if (!user?.known) throw new AppError('not_found', 'There is no such user.')
  return {
    user,
    zone: zoneOrUtc(user.timezone),
    own: await readPreferences(q, tenantId, userId),
    defaults: await readPreferences(q, tenantId, TENANT),
  }
}

/** Everything that bounds one person: operators' limits on each reader, and what they ask for themselves. */
export async function allowancesOf(
  q: Queryable,
  tenantId: TenantId,
  person: Person,
  now: Date,
): Promise<Allowance[]> {
  const { user, zone } = person
  const { userId } = user
  const open = OUTSIDE.filter(channel => reaches(user, channel))
  const allowances: Open[] = []
  for (const limit of await allLimits(q, tenantId)) {
    if (limit.tiers.length > 0 && !ofTier(limit.tiers, user.attributes)) continue
    if (limit.scope === 'user') allowances.push(opened(limit, userId, null, limitKey(limit.id, userId)))
    if (limit.scope === 'user_channel') {
      for (const channel of limit.channels.length > 0 ? limit.channels : open) {
        allowances.push(opened(limit, userId, channel, limitKey(limit.id, `${userId}:${channel}`)))
      }
    }
  }
  return counted(q, tenantId, [...allowances, ...ownAllowances(person)], zone, now)
}

/** Everything that bounds all readers together. */
export async function sharedAllowances(q: Queryable, tenantId: TenantId, now: Date): Promise<Allowance[]> {
  const allowances = (await allLimits(q, tenantId)).flatMap((limit): Open[] => {
    switch (limit.scope) {
      case 'tenant':
        return [opened(limit, null, null, limitKey(limit.id, ''))]
      case 'channel':
        return (limit.channels.length > 0 ? limit.channels : OUTSIDE).map(channel =>
          opened(limit, null, channel, limitKey(limit.id, channel)),
        )
      case 'category':
        return limit.categories.length === 0
          ? [opened(limit, null, null, null)]
          : limit.categories.map(name => ({
              ...opened(limit, null, null, limitKey(limit.id, name)),
              categories: [name],
            }))
      default:
        return []
    }
  })
  return counted(q, tenantId, allowances, 'UTC', now)
}

// ---------------------------------------------------------------- would one more be let through?

export interface CheckInput {
  channel: Channel
  category: string
  eventType: string
  priority: Priority
  /** What it would say, for limits on equal texts. */
  text?: { subject?: string; body: string }
  /** Only limits with these windows. */
  windows?: ReadonlySet<LimitWindow>
}

export interface Checked {
  /** What limits would decide about it now. */
  decision: Decision
  /** Every limit that it falls under, CRITICAL or not. */
  caps: { cap: Cap; used: number; until: Date }[]
}

/** Asks the limits about a delivery that might be, as deciding does, and counts nothing. */
export async function checkLimits(
  q: Queryable,
  tenantId: TenantId,
  { user, zone }: Person,
  input: CheckInput,
  now: Date,
): Promise<Checked> {
  const { channel, category, eventType, priority, text, windows } = input
  const { userId, attributes, preferences } = user
  const defaults = await readPreferences(q, tenantId, TENANT)
  const caps = allCaps(
    (await allLimits(q, tenantId)).filter(
      limit => limit.enabled && (limit.channels.length === 0 || limit.channels.includes(channel)),
    ),
    {
      tenantId,
      userId,
      address: user.addresses[channel]?.[0]?.address ?? null,
      channel,
      category,
      eventType,
      priority,
      ruleId: null,
      preference: effectivePreference(preferences, defaults, {
        channel,
        scopes: scopesOf({ category, eventType }),
        eventType,
        priority,
      }),
      zone,
      attributes,
      summary: false,
      said: () => (text ? { recipientType: 'user', recipientId: userId, channel, text } : null),
    },
  ).filter(cap => windows === undefined || windows.has(cap.window))
  const read = await readUsage(q, {
    counts: caps.flatMap(cap =>
      cap.window === 'gap'
        ? []
        : [{ tenantId, key: cap.key, fromMs: capWindow(cap.window, cap, now.getTime()).start }],
    ),
    claims: caps.filter(({ window }) => window === 'gap').map(({ key }) => ({ tenantId, key })),
  })
  const book = usage(read)
  const decision = limitsAt(
    { event: { tenantId }, channel, caps, usage: book, telling: {}, overflow: OVERFLOW },
    now,
  )
  return {
    decision: decision ?? { kind: 'send' },
    caps: caps.map(cap => {
      if (cap.window === 'gap') {
        const untilMs = book.claimedUntil(tenantId, cap.key)
        const taken = untilMs > now.getTime()
        return { cap, used: taken ? 1 : 0, until: taken ? new Date(untilMs) : now }
      }
      const { start, end } = capWindow(cap.window, cap, now.getTime())
      return { cap, used: book.used(tenantId, cap.key, start), until: new Date(end) }
    }),
  }
}

// ---------------------------------------------------------------- starting again

const clearCounts = sql(
  'reset_counters',
  `with held as (
     select c.tenant_id, c.key, c.window_at from unnest($2::text[], $3::timestamptz[]) as w (key, window_at)
     join counters c on c.tenant_id = $1 and c.key = w.key and c.window_at = w.window_at
     where c.count > 0 order by c.key collate "C", c.window_at for update of c
   )
   update counters c set count = 0 from held h
   where c.tenant_id = h.tenant_id and c.key = h.key and c.window_at = h.window_at`,
)
const clearClaims = sql('reset_claims', `delete from claims where tenant_id = $1 and key = any ($2)`)

/**
 * Begins the current windows of these anew, and ends pauses. Windows to come stay as they are: what waits has its
 * place there.
 *
 * @returns how many counters and pauses there were to clear
 */
export async function resetAllowances(
  tx: Queryable,
  tenantId: TenantId,
  allowances: readonly Allowance[],
): Promise<number> {
  const named = allowances.filter(({ key }) => key !== null)
  const counters = named.filter(({ window }) => window !== 'gap')
  const gaps = named.filter(({ window }) => window === 'gap')
  let cleared = 0
  if (counters.length > 0) {
    cleared += await tx.run(clearCounts, [
      tenantId,
      counters.map(({ key }) => key),
      counters.map(({ from }) => from),
    ])
  }
  if (gaps.length > 0) cleared += await tx.run(clearClaims, [tenantId, gaps.map(({ key }) => key)])
  return cleared
}

// ---------------------------------------------------------------- what was used before

const history = sql(
  'counter_history',
  `select w.key, c.window_at as at, c.count::float8 as n from unnest($2::text[]) as w (key)
   cross join lateral (
     select window_at, count from counters where tenant_id = $1 and key = w.key order by window_at desc limit $3
   ) c order by c.window_at desc`,
)

/** How much each window of these counted, the latest first; those to come have places that are taken already. */
export async function historyOf(
  q: Queryable,
  tenantId: TenantId,
  allowances: readonly Allowance[],
  most: number,
): Promise<Map<string, { from: Date; used: number }[]>> {
  const keys = allowances.flatMap(({ key }) => key ?? [])
  const found = new Map<string, { from: Date; used: number }[]>(keys.map(key => [key, []]))
  if (keys.length === 0) return found
  const rows = await q.rows<{ key: string; at: Date; n: number }>(history, [tenantId, keys, most])
  for (const { key, at, n } of rows) found.get(key)!.push({ from: at, used: n })
  return found
}

// ---------------------------------------------------------------- the parts

type Open = Omit<Allowance, 'used' | 'from' | 'until'>

const OUTSIDE = CHANNELS.filter(channel => channel !== 'in_app')
/** Something to join: whether there is one makes no difference to the answer. */
const OVERFLOW: Parameters<typeof limitsAt>[0]['overflow'] = {
  key: 'overflow',
  ruleId: null,
  reason: 'attention',
  closesAt: new Date(0),
  latestAt: new Date(0),
  quietSeconds: null,
  maxItems: 1,
  spec: {},
}

const reaches = ({ addresses, devices }: UserFacts, channel: Channel): boolean =>
  (addresses[channel]?.length ?? 0) > 0 ||
  ((channel === 'push' || channel === 'web_push') &&
    devices.some(({ kind }) => (kind === 'web_push') === (channel === 'web_push')))

function opened(
  limit: StoredLimit,
  userId: UserId | null,
  channel: Channel | null,
  key: string | null,
): Open {
  const { id, name, set, scope, channels, categories, eventTypes, window, every, gapSeconds, max } = limit
  const { costs, enabled, createdAt, updatedAt } = limit
  return {
    id,
    name,
    source: 'limit',
    set,
    scope,
    userId,
    channel: channel ?? (channels.length === 1 ? channels[0]! : null),
    channels,
    categories,
    eventTypes,
    window,
    every,
    gapSeconds,
    max,
    costs,
    enabled,
    createdAt,
    updatedAt,
    key,
  }
}

/** The person's word before the tenant's, as weighing does it. */
function ownAllowances({ user: { userId }, own, defaults }: Person): Open[] {
  const found = new Map<string, Open>()
  for (const { scope, channel, settings, createdAt, updatedAt } of [...own, ...defaults]) {
    const said = settings as PreferenceSettings
    for (const window of ['hour', 'day'] as const) {
      const max = window === 'hour' ? said.maxPerHour : said.maxPerDay
      const key = ownKey(userId, { scope, channel, window })
      if (max === undefined || found.has(key)) continue
      const id = [scope === '' ? 'own' : `own:${scope}`, channel ?? 'all', window].join(':')
      found.set(key, {
        id,
        name: id,
        source: 'preference',
        set: null,
        scope: 'user',
        userId,
        channel,
        channels: channel === null ? [] : [channel],
        categories: scope.startsWith('category:') ? [scope.slice('category:'.length)] : [],
        eventTypes: [],
        window,
        every: 1,
        gapSeconds: null,
        max,
        costs: {},
        enabled: true,
        createdAt,
        updatedAt,
        key,
      })
    }
  }
  return [...found.values()]
}

async function counted(
  q: Queryable,
  tenantId: TenantId,
  allowances: readonly Open[],
  readersZone: string,
  now: Date,
): Promise<Allowance[]> {
  const nowMs = now.getTime()
  const windows = allowances.map(({ window, every, scope }) =>
    window === 'gap' ? null : capWindow(window, { every, zone: zoneOf(scope, readersZone) }, nowMs),
  )
  const read = await readUsage(q, {
    counts: allowances.flatMap(({ key }, i) =>
      key !== null && windows[i] ? [{ tenantId, key, fromMs: windows[i].start }] : [],
    ),
    claims: allowances.flatMap(({ key, window }) =>
      key !== null && window === 'gap' ? [{ tenantId, key }] : [],
    ),
  })
  return allowances.map((allowance, i) => {
    const { key } = allowance
    const window = windows[i]
    if (window) {
      const { start, end } = window
      const used = key === null ? null : (read.counts.get(usageName(tenantId, key, start)) ?? 0)
      return { ...allowance, used, from: new Date(start), until: new Date(end) }
    }
    const untilMs = (key !== null && read.claims.get(claimName(tenantId, key))) || 0
    const taken = untilMs > nowMs
    const from = taken ? new Date(untilMs - (allowance.gapSeconds ?? 0) * 1000) : now
    return { ...allowance, used: taken ? 1 : 0, from, until: taken ? new Date(untilMs) : now }
  })
}
