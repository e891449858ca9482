import { hash } from 'node:crypto'
import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { EffectivePreference, PreferenceCap } from '../people/effective-preference.ts'
import { CHANNELS } from '../types.ts'
import type { Channel, Id, JsonObject, Priority, TenantId, UserId } from '../types.ts'
import { contentKey } from './sameness.ts'
import type { Said } from './sameness.ts'
import { LIMIT_COLUMNS, OTHER_TIER, TIERS, limitOf } from './store.ts'
import type { LimitDefinition, LimitRow, StoredLimit } from './store.ts'
import type { Cap } from './usage.ts'

/** One possible delivery, as limits see it. */
export interface LimitQuestion {
  tenantId: TenantId
  /** Null: a bare address. */
  userId: UserId | null
  address: string | null
  channel: Channel
  category: string
  eventType: string
  priority: Priority
  ruleId: Id | null
  preference: EffectivePreference | null
  zone: string
  attributes: JsonObject
  /** It tells of others that a bound held back, so no share of the bound is kept from it. */
  summary: boolean
  /** What it would say, written when a limit asks; null: it cannot be written. */
  said(): Said | null
}

/** The limits in force, in memory, as of the last look. */
export interface LimitBook {
  /** Reloads what changed. To be called right after a look. */
  refresh(q: Queryable): Promise<void>
  caps(question: LimitQuestion): readonly Cap[]
}

const NO_CAPS: readonly Cap[] = []
const NO_LIMITS: readonly StoredLimit[] = []

/** Only what people ask for themselves. */
export const ownCaps: LimitBook = {
  refresh: async () => {},
  caps: question => allCaps(NO_LIMITS, question),
}

const loadLimits = sql(
  'load_limits',
  `select ${LIMIT_COLUMNS} from limits where enabled order by tenant_id, id`,
)

/** Those that may concern a delivery on a channel, in the order of their making. */
type TenantLimits = Map<Channel, StoredLimit[]>

/** What operators set, and what people ask for themselves. Limits are few: all of them are read at each change. */
export function limitBook(watch: ChangeWatch): LimitBook {
  let limits = new Map<TenantId, TenantLimits>()
  let version = 1
  let loaded = 0
  const stale = () => void version++
  watch.on('limit', stale)
  watch.onReset(stale)

  return {
    async refresh(q) {
      if (loaded === version) return
      const loading = version
      const fresh = new Map<TenantId, TenantLimits>()
      for (const row of await q.rows<LimitRow>(loadLimits)) {
        let mine = fresh.get(row.tenant_id)
        if (!mine) fresh.set(row.tenant_id, (mine = new Map()))
        const limit = limitOf(row)
        for (const channel of limit.channels.length > 0 ? limit.channels : CHANNELS) {
          const list = mine.get(channel)
          if (list) list.push(limit)
          else mine.set(channel, [limit])
        }
      }
      // Several lanes load at once, and a slow one must not undo a later one.
      if (loading > loaded) {
        limits = fresh
        loaded = loading
      }
    },
    caps: question => allCaps(limits.get(question.tenantId)?.get(question.channel) ?? NO_LIMITS, question),
  }
}

/** Those of these limits that a delivery falls under, and its reader's own. Pure. */
export function allCaps(
  limits: readonly (LimitDefinition & { id: Id })[],
  question: LimitQuestion,
): readonly Cap[] {
  // The inbox is held back by no limit, so nothing of it is to be counted.
  if (question.channel === 'in_app') return NO_CAPS
  const own = capsOfPerson(question)
  if (limits.length === 0) return own
  const caps: Cap[] = []
  for (const limit of limits) {
    const cap = capOf(limit, question)
    if (cap) caps.push(cap)
  }
  return caps.length === 0 ? own : own.length === 0 ? caps : [...caps, ...own]
}

function capOf(limit: LimitDefinition & { id: Id }, question: LimitQuestion): Cap | null {
  const { channel, category, priority } = question
  if (limit.channels.length > 0 && !limit.channels.includes(channel)) return null
  if (limit.categories.length > 0 && !limit.categories.includes(category)) return null
  if (limit.eventTypes.length > 0 && !limit.eventTypes.some(type => covers(type, question.eventType))) {
    return null
  }
  if (limit.tiers.length > 0 && !ofTier(limit.tiers, question.attributes)) return null
  const whose = valueOf(limit.scope, question)
  if (whose === null) return null
  const max = question.summary ? limit.max : shareOf(limit, priority)
  const { every } = limit
  const window = every === 1 ? limit.window : `${every} ${limit.window}s`
  const span = limit.window === 'gap' ? `gap of ${limit.gapSeconds} s` : `${max}/${window}`
  return {
    key: limitKey(limit.id, whose),
    max,
    window: limit.window,
    ...(limit.gapSeconds === null ? {} : { gapSeconds: limit.gapSeconds }),
    ...(every === 1 ? {} : { every }),
    zone: zoneOf(limit.scope, question.zone),
    cost: limit.costs[channel] ?? 1,
    per: limit.per,
    overflow: limit.overflow,
    bypass: limit.criticalPasses && priority === 'CRITICAL',
    reason: limit.reason ?? (limit.window === 'gap' ? 'minimum_gap' : 'limit'),
    label: `${limit.name} ${span}`,
  }
}

/** Of one reader the days are the reader's; what readers share has one day for all of them. */
export const zoneOf = (scope: LimitDefinition['scope'], zone: string): string =>
  scope === 'user' || scope === 'user_channel' || scope === 'content' ? zone : 'UTC'

/** The counter of one limit and one user, address, category … */
export const limitKey = (id: Id, whose: string): string =>
  `limit:${id}:${whose.length <= MAX_WHOSE ? whose : hash('sha256', whose, 'base64url')}`
/** A key has 500 characters; an address may have more. */
const MAX_WHOSE = 450

export const covers = (pattern: string, type: string): boolean =>
  pattern.endsWith('.*') ? type.startsWith(pattern.slice(0, -1)) : pattern === type

const KNOWN_TIERS: ReadonlySet<string> = new Set(TIERS)
export function ofTier(tiers: readonly string[], { tier }: JsonObject): boolean {
  const name = typeof tier === 'string' ? tier.toLowerCase() : ''
  return tiers.includes(name) || (tiers.includes(OTHER_TIER) && !KNOWN_TIERS.has(name))
}

/** A share of little is little, not nothing: half of one is one. */
function shareOf({ max, shares }: LimitDefinition, priority: Priority): number {
  const share = shares[priority]
  if (share === undefined) return max
  return share === 0 || max === 0 ? 0 : Math.max(1, Math.floor(max * share))
}

/** What is counted together; null: the limit does not concern this one. */
function valueOf(scope: LimitDefinition['scope'], question: LimitQuestion): string | null {
  switch (scope) {
    case 'tenant':
      return ''
    case 'channel':
      return question.channel
    case 'category':
      return question.category
    case 'rule':
      return question.ruleId
    case 'user':
      return question.userId
    case 'user_channel':
      return question.userId === null ? null : `${question.userId}:${question.channel}`
    case 'content':
      return contentOf(question)
    case 'address':
      return question.address === null ? null : `${question.channel}:${question.address}`
  }
}

/** The counter of a limit that somebody set for themself. */
export const ownKey = (
  userId: UserId,
  { scope, channel, window }: Pick<PreferenceCap, 'scope' | 'channel' | 'window'>,
): string => `own:${userId}:${scope}:${channel ?? ''}:${window}`

function contentOf({ said }: LimitQuestion): string | null {
  const text = said()
  return text && contentKey(text)
}

function capsOfPerson({ preference, userId, priority, zone }: LimitQuestion): readonly Cap[] {
  if (preference === null || preference.caps.length === 0) return NO_CAPS
  return preference.caps.map(({ window, max, scope, channel, layer }) => ({
    key: ownKey(userId!, { scope, channel, window }),
    max,
    window,
    zone,
    cost: 1,
    per: channel === null ? 'notification' : 'delivery',
    overflow: 'hold',
    // Limits of one's own are about being disturbed; what is critical disturbs.
    bypass: priority === 'CRITICAL',
    reason: 'limit',
    label: `${layer} ${max}/${window}`,
  }))
}
