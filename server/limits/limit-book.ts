import type { ChangeWatch } from '../db/changes.ts'
import { sql } from '../db/pool.ts'
import type { Queryable } from '../db/pool.ts'
import type { EffectivePreference } from '../people/effective-preference.ts'
import type { Channel, Id, JsonObject, Priority, TenantId, UserId } from '../types.ts'
import { LIMIT_COLUMNS, limitOf } from './store.ts'
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
export const ownCaps: LimitBook = { refresh: async () => {}, caps: capsOfPerson }

const loadLimits = sql(
  'load_limits',
  `select ${LIMIT_COLUMNS} from limits where enabled order by tenant_id, id`,
)

/** What operators set, and what people ask for themselves. Limits are few: all of them are read at each change. */
export function limitBook(watch: ChangeWatch): LimitBook {
  let limits = new Map<TenantId, StoredLimit[]>()
  let version = 1
  let loaded = 0
  const stale = () => void version++
  watch.on('limit', stale)
  watch.onReset(stale)

  return {
    async refresh(q) {
      if (loaded === version) return
      const loading = version
      const fresh = new Map<TenantId, StoredLimit[]>()
      for (const row of await q.rows<LimitRow>(loadLimits)) {
        const list = fresh.get(row.tenant_id)
        if (list) list.push(limitOf(row))
        else fresh.set(row.tenant_id, [limitOf(row)])
      }
      // Several lanes load at once, and a slow one must not undo a later one.
      if (loading > loaded) {
        limits = fresh
        loaded = loading
      }
    },
    caps: question => allCaps(limits.get(question.tenantId) ?? NO_LIMITS, question),
  }
}

/** Those of these limits that a delivery falls under, and its reader's own. Pure. */
export function allCaps(
  limits: readonly (LimitDefinition & { id: Id })[],
  question: LimitQuestion,
): readonly Cap[] {
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
  const { channel, category, priority, zone } = question
  if (channel === 'in_app') return null
  if (limit.channels.length > 0 && !limit.channels.includes(channel)) return null
  if (limit.categories.length > 0 && !limit.categories.includes(category)) return null
  const whose = valueOf(limit.scope, question)
  if (whose === null) return null
  const share = limit.shares[priority]
  const max = share === undefined ? limit.max : Math.floor(limit.max * share)
  const span = limit.window === 'gap' ? `gap of ${limit.gapSeconds} s` : `${max}/${limit.window}`
  return {
    key: `limit:${limit.id}:${whose}`.slice(0, 500),
    max,
    window: limit.window,
    ...(limit.gapSeconds === null ? {} : { gapSeconds: limit.gapSeconds }),
    zone,
    cost: 1,
    per: limit.per,
    overflow: limit.overflow,
    bypass: limit.criticalPasses && priority === 'CRITICAL',
    reason: limit.window === 'gap' ? 'minimum_gap' : 'limit',
    label: `${limit.name} ${span}`,
  }
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
    case 'address':
      return question.address === null ? null : `${question.channel}:${question.address}`
  }
}

function capsOfPerson({ preference, userId, priority, zone }: LimitQuestion): readonly Cap[] {
  if (preference === null || preference.caps.length === 0) return NO_CAPS
  return preference.caps.map(({ window, max, scope, channel, layer }) => ({
    key: `own:${userId}:${scope}:${channel ?? ''}:${window}`,
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
