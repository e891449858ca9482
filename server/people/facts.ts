import { type Queryable, sql } from '../db/pool.ts'
import { CHANNELS, type Channel, type JsonObject, type TenantId, type UserId } from '../types.ts'

export type Verification = 'pending' | 'verified' | 'failed'
export type SuppressionReason = 'hard_bounce' | 'complaint' | 'unsubscribe' | 'manual' | 'erased'
export type DeviceKind = 'fcm' | 'apns' | 'web_push'
export type TopicLevel = 'ALL' | 'IMPORTANT' | 'NONE'
export type AudienceKind = 'group' | 'role' | 'topic'

export interface Suppression {
  reason: SuppressionReason
  /** Milliseconds since 1970; absent: for ever. Compare with the decision's clock. */
  until?: number
}

export interface AddressFact {
  id: string
  address: string
  verification: Verification
  /** As stored: secrets in it are sealed. */
  settings: JsonObject
  suppression?: Suppression
}

export interface DeviceFact {
  id: string
  kind: DeviceKind
  token: string
  keys: JsonObject
}

export interface PreferenceRow {
  /** '' is global, else 'category:x', 'topic:x', 'rule:<id>' … */
  scope: string
  /** null: all channels. */
  channel: Channel | null
  /** null: no opinion at this layer. */
  enabled: boolean | null
  settings: JsonObject
}

/**
 * What deciding and rendering need to know of one person. Shared between batches: never change one.
 * A user nobody has created is a fact as well: `known` is false and the rest is empty.
 */
export interface UserFacts {
  readonly tenantId: TenantId
  readonly userId: UserId
  readonly known: boolean
  readonly enabled: boolean
  readonly erased: boolean
  readonly locale: string
  readonly timezone: string
  readonly attributes: JsonObject
  /** Seals this person's content. Unwrapped when first read; absent once erased, and for the unknown. */
  readonly dataKey: Buffer | undefined
  /** Verified ones first, then by position: the first one is the one to use. */
  readonly addresses: Partial<Record<Channel, readonly AddressFact[]>>
  /** Enabled ones, the most recently used first. */
  readonly devices: readonly DeviceFact[]
  /** Stored ones, and what the person's topics come to: NONE switches one off, IMPORTANT asks for HIGH. */
  readonly preferences: readonly PreferenceRow[]
}

/** The people of one batch, as of its look. Stays as it is whatever other batches forget meanwhile. */
export interface BatchFacts {
  /** Undefined only for somebody who was not asked for. */
  get(tenantId: TenantId, userId: UserId): UserFacts | undefined
  tenantDefaults(tenantId: TenantId): readonly PreferenceRow[]
}

export interface Wanted {
  tenantId: TenantId
  userIds: Iterable<UserId>
}

export interface PeopleFacts {
  /** Makes sure that everybody wanted, and their tenants' defaults, are at hand: one statement for all misses. */
  load(q: Queryable, wanted: readonly Wanted[]): Promise<BatchFacts>
  /** From the cache alone. A caller that decides by it must have looked and loaded in the same tick. */
  get: (tenantId: TenantId, userId: UserId) => UserFacts | undefined
  tenantDefaults: (tenantId: TenantId) => readonly PreferenceRow[] | undefined
  /** To be told by the change watch, as `reset`. */
  forget: (tenantId: TenantId, userId: UserId) => void
  reset: () => void
  /** Users held, known or not. Never above `max`. */
  readonly size: number
}

// One round trip for everybody missing. Nested aggregates instead of four statements: the rows arrive grouped and
// sorted, and most people have no device and no preference, which costs one index probe and no row.
const loadFacts = sql(
  'load_people_facts',
  `select w.tenant_id, w.user_id, u.user_id is not null as known, u.enabled, u.erased_at is not null as erased,
          u.locale, u.timezone, u.attributes, u.data_key,
          (select json_agg(json_build_array(a.channel, a.id, a.address, a.verification, a.settings, s.reason,
                                            (extract(epoch from s.expires_at) * 1000)::int8)
                           order by a.channel, a.verification <> 'verified', a.position, a.id)
             from addresses a
             left join suppressions s
               on s.tenant_id = a.tenant_id and s.channel = a.channel and s.address = a.address
              and (s.expires_at is null or s.expires_at > now())
            where a.tenant_id = w.tenant_id and a.user_id = w.user_id) as addresses,
          (select json_agg(json_build_array(d.id, d.kind, d.token, d.keys)
                           order by coalesce(d.last_used_at, d.created_at) desc, d.id)
             from devices d
            where d.tenant_id = w.tenant_id and d.user_id = w.user_id and d.enabled) as devices,
          (select json_agg(json_build_array(p.scope, p.channel, p.enabled, p.settings))
             from (select scope, channel, enabled, settings from preferences
                   where tenant_id = w.tenant_id and user_id = w.user_id
                   union all
                   select 'topic_level:' || name, -1, case level when 'NONE' then false end,
                          case level when 'IMPORTANT' then '{"minPriority": "HIGH"}' else '{}' end::jsonb
                   from memberships
                   where tenant_id = w.tenant_id and user_id = w.user_id and kind = 'topic' and level <> 'ALL'
                  ) p) as preferences
   from unnest($1::int[], $2::text[]) as w (tenant_id, user_id)
   left join users u on u.tenant_id = w.tenant_id and u.user_id = w.user_id`,
)

type AddressRow = [
  channel: number,
  id: string,
  address: string,
  verification: Verification,
  settings: JsonObject,
  reason: SuppressionReason | null,
  until: number | null,
]
type DeviceRow = [id: string, kind: DeviceKind, token: string, keys: JsonObject]
type PreferenceRowArray = [scope: string, channel: number, enabled: boolean | null, settings: JsonObject]

interface FactsRow {
  tenant_id: TenantId
  user_id: UserId
  known: boolean
  enabled: boolean | null
  erased: boolean
  locale: string | null
  timezone: string | null
  attributes: JsonObject | null
  data_key: Buffer | null
  addresses: AddressRow[] | null
  devices: DeviceRow[] | null
  preferences: PreferenceRowArray[] | null
}

type UsersById = Map<UserId, UserFacts>
type ByTenant = Map<TenantId, UsersById>

/** A statement on its way: what is forgotten before it answers may already be old in its answer. */
interface Flight {
  doubtful: Map<TenantId, Set<UserId>>
  all: boolean
}

// Frozen and shared: most people have none of these, and 100,000 empty objects are megabytes.
const NOTHING: JsonObject = Object.freeze({})
const NO_ADDRESSES: UserFacts['addresses'] = Object.freeze({})
const NO_DEVICES: readonly DeviceFact[] = Object.freeze([])
const NO_PREFERENCES: readonly PreferenceRow[] = Object.freeze([])

/** Rows under this user id are the tenant's defaults. */
const TENANT = ''

/**
 * The people cache. At most `max` users, in two generations: when the young one is half of `max`, it becomes the
 * old one and the old one goes. What is read moves to the young one, so whoever is in use stays, without the
 * list of links a strict LRU costs per entry.
 */
export function peopleFacts({
  sealer,
  max = 200_000,
}: {
  sealer: { unwrap(wrapped: Buffer): Buffer }
  max?: number
}): PeopleFacts {
  const half = Math.max(1, Math.floor(max / 2))
  let young: ByTenant = new Map()
  let old: ByTenant = new Map()
  let youngSize = 0
  let oldSize = 0
  const flights = new Set<Flight>()
  const intern = interner()

  // The getter lives on a prototype, one for all: a getter in each object would cost a closure each, and keys
  // unwrapped when loaded would be unwrapped for people whom nothing is sent to.
  // Wrapped keys wait as strings, a third of what as many small buffers take.
  const lazyKey = {
    wrapped: undefined as string | undefined,
    key: undefined as Buffer | undefined,
    get dataKey(): Buffer | undefined {
      if (this.key === undefined && this.wrapped !== undefined) {
        this.key = sealer.unwrap(Buffer.from(this.wrapped, 'latin1'))
        this.wrapped = undefined
      }
      return this.key
    },
  }

  const get = (tenantId: TenantId, userId: UserId): UserFacts | undefined => {
    const fresh = young.get(tenantId)?.get(userId)
    if (fresh !== undefined) return fresh
    const users = old.get(tenantId)
    const found = users?.get(userId)
    if (found === undefined) return undefined
    users!.delete(userId)
    oldSize--
    put(found)
    return found
  }

  const put = (facts: UserFacts): void => {
    if (youngSize >= half) {
      old = young
      oldSize = youngSize
      young = new Map()
      youngSize = 0
    }
    let users = young.get(facts.tenantId)
    if (users === undefined) young.set(facts.tenantId, (users = new Map()))
    const before = users.size
    users.set(facts.userId, facts)
    youngSize += users.size - before
    if (old.get(facts.tenantId)?.delete(facts.userId)) oldSize--
  }

  const read = async (q: Queryable, tenantIds: TenantId[], userIds: UserId[], batch: ByTenant) => {
    const flight: Flight = { doubtful: new Map(), all: false }
    flights.add(flight)
    try {
      for (const row of await q.rows<FactsRow>(loadFacts, [tenantIds, userIds])) {
        const facts = toFacts(row)
        batch.get(facts.tenantId)!.set(facts.userId, facts)
        // A doubtful answer is as new as this batch's own look and good for this batch; the next one reads again.
        if (!flight.all && !flight.doubtful.get(facts.tenantId)?.has(facts.userId)) put(facts)
      }
    } finally {
      flights.delete(flight)
    }
  }

  const toFacts = (row: FactsRow): UserFacts =>
    ({
      __proto__: lazyKey,
      tenantId: row.tenant_id,
      userId: row.user_id,
      known: row.known,
      enabled: row.enabled ?? false,
      erased: row.erased,
      locale: intern(row.locale ?? 'en'),
      timezone: intern(row.timezone ?? 'UTC'),
      attributes: orNothing(row.attributes),
      wrapped: row.data_key?.toString('latin1'),
      key: undefined,
      addresses: row.addresses === null ? NO_ADDRESSES : toAddresses(row.addresses),
      devices: row.devices === null ? NO_DEVICES : row.devices.map(toDevice),
      preferences: row.preferences === null ? NO_PREFERENCES : row.preferences.map(toPreference),
    }) as unknown as UserFacts

  const toPreference = ([scope, channel, enabled, settings]: PreferenceRowArray): PreferenceRow => ({
    scope: intern(scope),
    channel: CHANNELS[channel] ?? null,
    enabled,
    settings: orNothing(settings),
  })

  return {
    async load(q, wanted) {
      const batch: ByTenant = new Map()
      const tenantIds: TenantId[] = []
      const userIds: UserId[] = []
      const want = (tenantId: TenantId, users: UsersById, userId: UserId): void => {
        if (users.has(userId)) return
        const facts = get(tenantId, userId)
        // Undefined holds the place, so that nobody is asked for twice.
        users.set(userId, facts as UserFacts)
        if (facts === undefined) {
          tenantIds.push(tenantId)
          userIds.push(userId)
        }
      }
      for (const { tenantId, userIds: ids } of wanted) {
        let users = batch.get(tenantId)
        if (users === undefined) batch.set(tenantId, (users = new Map()))
        want(tenantId, users, TENANT)
        for (const id of ids) want(tenantId, users, id)
      }
      if (userIds.length > 0) await read(q, tenantIds, userIds, batch)
      return {
        get: (tenantId, userId) => batch.get(tenantId)?.get(userId),
        tenantDefaults: tenantId => batch.get(tenantId)?.get(TENANT)?.preferences ?? NO_PREFERENCES,
      }
    },
    get,
    tenantDefaults: tenantId => get(tenantId, TENANT)?.preferences,
    forget(tenantId, userId) {
      if (young.get(tenantId)?.delete(userId)) youngSize--
      if (old.get(tenantId)?.delete(userId)) oldSize--
      for (const { doubtful } of flights) {
        const users = doubtful.get(tenantId)
        if (users === undefined) doubtful.set(tenantId, new Set([userId]))
        else users.add(userId)
      }
    },
    reset() {
      young = new Map()
      old = new Map()
      youngSize = 0
      oldSize = 0
      for (const flight of flights) flight.all = true
    },
    get size() {
      return youngSize + oldSize
    },
  }
}

const orNothing = (value: JsonObject | null): JsonObject => {
  if (value === null) return NOTHING
  for (const _ in value) return value
  return NOTHING
}

function toAddresses(rows: AddressRow[]): UserFacts['addresses'] {
  const addresses: Partial<Record<Channel, AddressFact[]>> = {}
  for (const [channel, id, address, verification, settings, reason, until] of rows) {
    const name = CHANNELS[channel]
    // A newer version's channel, met while an upgrade is under way: this version cannot deliver there.
    if (name === undefined) continue
    const fact: AddressFact = { id, address, verification, settings: orNothing(settings) }
    if (reason !== null) fact.suppression = until === null ? { reason } : { reason, until }
    const list = addresses[name]
    if (list === undefined) addresses[name] = [fact]
    else list.push(fact)
  }
  return addresses
}

const toDevice = ([id, kind, token, keys]: DeviceRow): DeviceFact => ({
  id,
  kind,
  token,
  keys: orNothing(keys),
})

/** One string object for the few values that everybody shares; bounded, as users choose some of them. */
function interner(max = 2_000): (text: string) => string {
  const known = new Map<string, string>()
  return text => {
    const same = known.get(text)
    if (same !== undefined) return same
    if (known.size < max) known.set(text, text)
    return text
  }
}

/** The suppression in force at that instant, of an address whose facts are at hand. */
export const activeSuppression = (address: AddressFact, nowMs: number): Suppression | undefined =>
  address.suppression !== undefined &&
  (address.suppression.until === undefined || address.suppression.until > nowMs)
    ? address.suppression
    : undefined

export interface Member {
  userId: UserId
  /** Of a topic: the strongest of the subscriptions that brought this person in. ALL for groups and roles. */
  level: Exclude<TopicLevel, 'NONE'>
}

// Whoever is among the first `limit` of the union is among the first `limit` of some audience, so each is walked
// along its key no further than that.
const listMembers = sql(
  'list_audience_members',
  `select m.user_id as "userId", case when bool_or(m.level = 'ALL') then 'ALL' else 'IMPORTANT' end as level
   from (select distinct unnest($3::text[])) as n (name)
   cross join lateral (
     select user_id, level from memberships
     where tenant_id = $1 and kind = $2 and name = n.name and user_id > $4 and level <> 'NONE'
     order by user_id limit $5
   ) m
   group by m.user_id order by m.user_id limit $5`,
)

/**
 * Up to `limit` different members of any of these audiences, by user id, after `after`. Those who set a topic
 * to NONE are not among them.
 */
export const audienceMembers = (
  q: Queryable,
  tenantId: TenantId,
  kind: AudienceKind,
  names: readonly string[],
  after: UserId | undefined,
  limit: number,
): Promise<Member[]> => q.rows<Member>(listMembers, [tenantId, kind, names, after ?? '', limit])

const findSuppressions = sql(
  'find_suppressions',
  `select w.i::int as i, s.reason, (extract(epoch from s.expires_at) * 1000)::int8 as until
   from unnest($2::int2[], $3::text[]) with ordinality as w (channel, address, i)
   join suppressions s on s.tenant_id = $1 and s.channel = w.channel and s.address = w.address
   where s.expires_at is null or s.expires_at > now()`,
)

/** For bare addresses, normalised as in server/people/addresses.ts: the answers in the order of the questions. */
export async function suppressionsFor(
  q: Queryable,
  tenantId: TenantId,
  addresses: readonly { channel: Channel; address: string }[],
): Promise<(Suppression | undefined)[]> {
  const found: (Suppression | undefined)[] = addresses.map(() => undefined)
  if (addresses.length === 0) return found
  const rows = await q.rows<{ i: number; reason: SuppressionReason; until: number | null }>(
    findSuppressions,
    [tenantId, addresses.map(a => CHANNELS.indexOf(a.channel)), addresses.map(a => a.address)],
  )
  for (const { i, reason, until } of rows) found[i - 1] = until === null ? { reason } : { reason, until }
  return found
}
