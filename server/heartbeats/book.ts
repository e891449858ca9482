import type { ChangeWatch } from '../db/changes.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Event, TenantId } from '../types.ts'
import { slackMs } from './heartbeat.ts'
import { type Beat, beatScript } from './store.ts'

/** Which accepted events are beats, as of the last look at `changes`. */
export interface HeartbeatBook {
  /** To be called after a look; asks only when heartbeats changed. */
  refresh(q: Queryable): Promise<void>
  /** The beats of these events; null: none is one, as always while no heartbeat goes by events. */
  heard(accepted: readonly { event: Event }[], now: Date): HeardBeats | null
}

export interface HeardBeats {
  /** A statement for the script of the commit that accepts the events. */
  script: string
  /** To be called after that commit. */
  written(): void
}

interface Listening {
  tenantId: TenantId
  name: string
  source: string | null
  subject: string | null
  slackMs: number
  /** The last beat that this process wrote. */
  writtenMs: number
}

interface OfTenant {
  byType: Map<string, Listening[]>
  /** Prefixes that end with a dot; '' is every type. */
  byPrefix: [prefix: string, listening: Listening][]
}

const load = sql(
  'load_heartbeats',
  `select tenant_id, name, every_seconds, event_types, event_source, event_subject
   from heartbeats where not paused and event_types <> '{}' order by tenant_id, name`,
)

interface Row {
  tenant_id: TenantId
  name: string
  every_seconds: number
  event_types: string[]
  event_source: string | null
  event_subject: string | null
}

/** Heartbeats are few: all of them are read at each change. */
export function heartbeatBook(watch: ChangeWatch): HeartbeatBook {
  let tenants = new Map<TenantId, OfTenant>()
  let version = 1
  let loaded = 0
  const stale = () => void version++
  watch.on('heartbeat', stale)
  watch.onReset(stale)

  return {
    async refresh(q) {
      if (loaded === version) return
      const loading = version
      const fresh = new Map<TenantId, OfTenant>()
      for (const row of await q.rows<Row>(load)) add(fresh, row)
      // Several lanes load at once, and a slow one must not undo a later one.
      if (loading > loaded) {
        tenants = fresh
        loaded = loading
      }
    },
    heard(accepted, now) {
      if (tenants.size === 0) return null
      const nowMs = now.getTime()
      const heard = new Set<Listening>()
      for (const { event } of accepted) {
        const of = tenants.get(event.tenantId)
        if (of) hear(of, event, nowMs, heard)
      }
      if (heard.size === 0) return null
      const beats = [...heard].map(({ tenantId, name }): Beat => ({ tenantId, name, at: now }))
      return {
        script: beatScript(beats),
        written() {
          for (const one of heard) one.writtenMs = Math.max(one.writtenMs, nowMs)
        },
      }
    },
  }
}

function add(tenants: Map<TenantId, OfTenant>, row: Row): void {
  let of = tenants.get(row.tenant_id)
  if (!of) tenants.set(row.tenant_id, (of = { byType: new Map(), byPrefix: [] }))
  const listening: Listening = {
    tenantId: row.tenant_id,
    name: row.name,
    source: row.event_source,
    subject: row.event_subject,
    slackMs: slackMs({ everyMs: row.every_seconds * 1000 }),
    writtenMs: Number.NEGATIVE_INFINITY,
  }
  for (const type of row.event_types) {
    if (type.endsWith('*')) of.byPrefix.push([type.slice(0, -1), listening])
    else {
      const list = of.byType.get(type)
      if (list) list.push(listening)
      else of.byType.set(type, [listening])
    }
  }
}

function hear({ byType, byPrefix }: OfTenant, event: Event, nowMs: number, heard: Set<Listening>): void {
  // What is asked of us to be sent is no sign of a source.
  if (event.direct) return
  const take = (one: Listening) => {
    if (nowMs - one.writtenMs < one.slackMs && nowMs >= one.writtenMs) return
    if (one.source !== null && one.source !== event.source) return
    if (one.subject !== null && one.subject !== event.subject) return
    heard.add(one)
  }
  for (const one of byType.get(event.type) ?? NOBODY) take(one)
  for (const [prefix, one] of byPrefix) if (event.type.startsWith(prefix)) take(one)
}

const NOBODY: readonly Listening[] = []
