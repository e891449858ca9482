import type pg from 'pg'
import type { Db } from '../db/pool.ts'
import { SHARDS } from '../ledger/counters.ts'
import { LEASE_LOST, settler } from '../ledger/settle.ts'
import type { Settlement } from '../ledger/settle.ts'

/**
 * Writes what became of deliveries, many in one transaction: after a few milliseconds or a thousand items,
 * whichever comes first, and one transaction at a time. Nothing is forgotten while the database is away.
 */
export interface Outcomes {
  add(settlement: Settlement): void
  /** Resolves when everything added so far is durable. */
  flushed(): Promise<void>
  close(): Promise<void>
  readonly waiting: number
}

export interface OutcomesParts {
  db: Db
  owner(): number
  now(): Date
  flushMs: number
  flushItems: number
  /** After each commit. */
  onSettled(settlements: readonly Settlement[], seconds: number): void
  onError(error: unknown): void
}

const RECONNECT_MS = 200

export function outcomes(parts: OutcomesParts): Outcomes {
  const done: Settlement[] = []
  let timer: NodeJS.Timeout | undefined
  let writing: Promise<void> | undefined
  let client: pg.Client | undefined
  let closed = false
  const ledger = settler((parts.owner() * 16 + 15) % SHARDS)

  function schedule(): void {
    if (writing || timer || done.length === 0) return
    if (done.length >= parts.flushItems) {
      writing = write()
      return
    }
    timer = setTimeout(() => {
      timer = undefined
      if (!writing && done.length > 0) writing = write()
    }, parts.flushMs)
  }

  async function write(): Promise<void> {
    const batch = done.splice(0, parts.flushItems)
    try {
      await settle(batch)
    } finally {
      writing = undefined
      schedule()
    }
  }

  async function settle(batch: Settlement[]): Promise<void> {
    const started = performance.now()
    try {
      client ??= await connect()
      await ledger.write(client, batch, parts.owner(), parts.now())
    } catch (error) {
      if (isDataError(error)) return isolate(batch, error)
      // The database is away: what was done stays in memory until it can be written.
      parts.onError(error)
      await client?.end().catch(() => {})
      client = undefined
      await new Promise(resolve => setTimeout(resolve, RECONNECT_MS))
      if (closed) throw error
      return settle(batch)
    }
    parts.onSettled(batch, (performance.now() - started) / 1000)
  }

  /** One outcome that cannot be written must not hold up the others; its lease brings it back. */
  async function isolate(batch: Settlement[], error: unknown): Promise<void> {
    if (batch.length === 1) {
      // A lease that was taken over is settled by whoever has it.
      if ((error as { code?: string }).code !== LEASE_LOST) parts.onError(error)
      return
    }
    const half = batch.length >> 1
    await settle(batch.slice(0, half))
    await settle(batch.slice(half))
  }

  async function connect(): Promise<pg.Client> {
    return parts.db.connect('carillon settle')
  }

  return {
    add(settlement) {
      done.push(settlement)
      if (!timer) schedule()
      else if (done.length >= parts.flushItems) {
        clearTimeout(timer)
        timer = undefined
        schedule()
      }
    },
    async flushed() {
      while (done.length > 0 || writing) {
        if (timer) {
          clearTimeout(timer)
          timer = undefined
        }
        if (!writing && done.length > 0) writing = write()
        await writing
      }
    },
    async close() {
      await this.flushed()
      closed = true
      await client?.end().catch(() => {})
    },
    get waiting() {
      return done.length
    },
  }
}

/** SQLSTATE classes 22 (data), 23 (integrity): the rows are at fault, not the connection. */
const isDataError = (error: unknown): boolean =>
  typeof (error as { code?: unknown }).code === 'string' && /^2[23]/.test((error as { code: string }).code)
