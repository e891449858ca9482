import { hostname } from 'node:os'
import type pg from 'pg'
import { queryable, sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'

/**
 * This process as an owner of batches. The owner number is drawn from a sequence and held by an advisory lock on
 * a connection of its own: when the process dies, however it dies, the server drops the lock at once and every
 * other process may take its batches over. A lease is the fallback for a connection that hangs half-open.
 */
export interface Owner {
  readonly number: number
  /** Unique in the whole database: owner × 2³² + counter; both stay below 2⁵³ together for 2²¹ process starts. */
  nextBatchId(): number
  /** Is any other process alive? Then what we commit must be announced. */
  othersAlive(): boolean
  /** Renews the lease of our batches and notes that we are alive. Called every few seconds. */
  renew(): Promise<void>
  /**
   * The control connection broke, so others may have taken our batches: everything in memory must be dropped, and
   * a new number drawn.
   */
  onLost(listener: () => void): void
  close(): Promise<void>
}

/** First key of every advisory lock we hold as an owner; the second is the owner's number. */
export const OWNER_LOCK = 7
export const LEASE_SECONDS = 30

const drawOwner = sql('draw_owner', `select nextval('owner_seq')::int as number`)
const lockOwner = sql('lock_owner', `select pg_advisory_lock(${OWNER_LOCK}, $1)`)
const registerProcess = sql(
  'register_process',
  `insert into processes (owner, roles, host, pid, version) values ($1, $2, $3, $4, $5)`,
)
const renewLeases = sql(
  'renew_leases',
  `with mine as (
     update batches set lease_until = now() + interval '${LEASE_SECONDS} seconds'
     where owner = $1 and lease_until < now() + interval '${LEASE_SECONDS * 0.7} seconds'
   ), jobs_of_mine as (
     update jobs set lease_until = now() + interval '${LEASE_SECONDS} seconds'
     where owner = $1 and lease_until < now() + interval '${LEASE_SECONDS * 0.7} seconds'
   ), seen as (
     update processes set seen_at = now() where owner = $1
   )
   select count(*)::int as others from processes
   where owner <> $1 and seen_at > now() - interval '${LEASE_SECONDS} seconds'`,
)
const forgetProcess = sql('forget_process', `delete from processes where owner = $1`)

export async function claimOwner(
  db: Db,
  about: { roles: readonly string[]; version: string },
): Promise<Owner> {
  const client: pg.Client = await db.connect('carillon owner')
  const control = queryable(client)
  const lost: (() => void)[] = []
  let closed = false

  const { number } = (await control.one<{ number: number }>(drawOwner))!
  await control.run(lockOwner, [number])
  await control.run(registerProcess, [number, about.roles, hostname(), process.pid, about.version])
  let counter = 0
  let others = (await control.one<{ others: number }>(renewLeases, [number]))!.others

  client.on('end', () => {
    if (closed) return
    closed = true
    for (const listener of lost) listener()
  })

  return {
    number,
    nextBatchId: () => number * 0x1_0000_0000 + counter++,
    othersAlive: () => others > 0,
    async renew() {
      others = (await control.one<{ others: number }>(renewLeases, [number]))?.others ?? 0
    },
    onLost: listener => void lost.push(listener),
    async close() {
      if (closed) return
      closed = true
      await control.run(forgetProcess, [number]).catch(() => {})
      await client.end()
    },
  }
}
