import { createHash } from 'node:crypto'
import { type Db, sql } from '../db/pool.ts'
import type { Callback } from '../deliver/provider.ts'
import { OPERATOR_TENANT_ID } from '../types.ts'

/**
 * Tells whether a vendor's token may speak for this event: the first one it came with, however often that is repeated, and
 * no other. Kept in the database, among the keys that clients repeat requests by, so that another process knows it, also
 * after a restart.
 */
export type CallbackOnce = (provider: string, once: NonNullable<Callback['once']>) => Promise<boolean>

const take = sql(
  'take_callback_token',
  `insert into idempotency_keys as i (tenant_id, key, fingerprint, status, response, created_at, expires_at)
   values ($1, $2, $3, 200, '', $4, $5)
   on conflict (tenant_id, key) do update
     set fingerprint = excluded.fingerprint, created_at = excluded.created_at, expires_at = excluded.expires_at
     where i.fingerprint = excluded.fingerprint or i.expires_at <= excluded.created_at
   returning 1`,
)

export function callbackOnce(db: Db, now: () => Date): CallbackOnce {
  return async (provider, { token, event, until }) => {
    const digest = hashOf('callback', provider, token)
    // 128 bits in the form of a uuid, as all keys there have.
    const key = digest.subarray(0, 16).toString('hex')
    const values = [OPERATOR_TENANT_ID, key, hashOf(event), now(), until]
    return (await db.one(take, values)) !== undefined
  }
}

const hashOf = (...words: readonly string[]): Buffer => createHash('sha256').update(words.join('\0')).digest()
