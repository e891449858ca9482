import { CHANNELS } from '../types.ts'
import type { Channel, Outcome, TenantId } from '../types.ts'

/**
 * Changes of the accounting counters, gathered while a batch is worked on and written as one statement in its
 * transaction. A shard is one writer (a lane, or the settler of a process): writers never wait for each other.
 */
export interface CounterDelta {
  planned(tenantId: TenantId, dayMs: number, channel: Channel | null, n?: number): void
  settled(tenantId: TenantId, dayMs: number, channel: Channel | null, outcome: Outcome, n?: number): void
  event(tenantId: TenantId, dayMs: number, change: Partial<Record<EventCount, number>>): void
  /** SQL text of the gathered changes, integers and dates only; then forgets them. Empty when nothing changed. */
  take(shard: number): string
}

const EVENT_COUNTS = ['received', 'planned', 'failed', 'cancelled', 'duplicates', 'planning_ms'] as const
export type EventCount = (typeof EVENT_COUNTS)[number]

const LEDGER_COUNTS = [
  'planned',
  'delivered',
  'sent',
  'failed',
  'bounced',
  'rejected',
  'unknown',
  'cancelled',
  'expired',
  'suppressed',
] as const
type LedgerCount = (typeof LEDGER_COUNTS)[number]

const DAY_MS = 86_400_000
/** Skipped by a decision: no delivery was made, so no channel's column would be true. */
const NO_CHANNEL = -1
const CHANNEL_CODE = new Map<Channel | null, number>(CHANNELS.map((channel, code) => [channel, code]))

export const SHARDS = 4096

export function counterDelta(): CounterDelta {
  const ledger = new Map<string, Map<LedgerCount, number>>()
  const events = new Map<string, Map<EventCount, number>>()

  const add = <K>(into: Map<string, Map<K, number>>, row: string, column: K, n: number) => {
    let counts = into.get(row)
    if (!counts) into.set(row, (counts = new Map()))
    counts.set(column, (counts.get(column) ?? 0) + n)
  }
  const ledgerRow = (tenantId: TenantId, ms: number, channel: Channel | null) =>
    `${tenantId},date '1970-01-01' + ${Math.floor(ms / DAY_MS)},${CHANNEL_CODE.get(channel) ?? NO_CHANNEL}`

  return {
    planned: (tenantId, ms, channel, n = 1) => add(ledger, ledgerRow(tenantId, ms, channel), 'planned', n),
    settled: (tenantId, ms, channel, outcome, n = 1) =>
      add(ledger, ledgerRow(tenantId, ms, channel), outcome, n),
    event(tenantId, ms, change) {
      const row = `${tenantId},date '1970-01-01' + ${Math.floor(ms / DAY_MS)}`
      for (const name of EVENT_COUNTS) if (change[name]) add(events, row, name, change[name])
    },
    take(shard) {
      const text =
        upsert('ledger_counters', 'tenant_id, day, channel, shard', LEDGER_COUNTS, ledger, shard) +
        upsert('event_counters', 'tenant_id, day, shard', EVENT_COUNTS, events, shard)
      ledger.clear()
      events.clear()
      return text
    },
  }
}

function upsert<K extends string>(
  table: string,
  key: string,
  columns: readonly K[],
  rows: Map<string, Map<K, number>>,
  shard: number,
): string {
  if (rows.size === 0) return ''
  const values = [...rows]
    // One order for all writers of a shard: a process that took over a dead one's number cannot deadlock with it.
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([row, counts]) => `(${row},${shard},${columns.map(column => Math.trunc(counts.get(column) ?? 0))})`)
  return (
    `insert into ${table} (${key}, ${columns}) values ${values.join()} on conflict (${key}) do update set ` +
    `${columns.map(column => `${column} = ${table}.${column} + excluded.${column}`)};\n`
  )
}
