import { hash } from 'node:crypto'
import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { TenantId } from '../types.ts'

/**
 * `Idempotency-Key` (draft-ietf-httpapi-idempotency-key-header): the same request again gets the first one's
 * answer, however often and wherever it arrives. The claim and the answer belong into the transaction that
 * accepts the request: a crash in between leaves neither.
 */

/** Visible ASCII (RFC 9110 VCHAR), with the quotes of a structured-field string or without. */
const KEY = /^[\x21-\x7e]{1,255}$/

/**
 * The header's key; undefined when the request has none.
 *
 * @throws AppError invalid_request
 */
export function readIdempotencyKey(header: string | string[] | undefined): string | undefined {
  if (header === undefined) return undefined
  if (typeof header === 'string' && KEY.test(header)) return header
  throw new AppError('invalid_request', 'Idempotency-Key must be 1 to 255 visible ASCII characters.', {
    field: 'idempotency-key',
  })
}

/**
 * The key's row: a uuid text of the first 128 bits of a SHA-256. Another caller, or another route, may use the
 * same key for something else. `route` is the pattern, such as `POST /api/events/publish`.
 */
export function keyOf(
  caller: { tenantId: TenantId; kind: string; id: string },
  route: string,
  key: string,
): string {
  const { tenantId, kind, id } = caller
  // The id is a caller's own text, so it goes last but one and with its length.
  const hex = hash('sha256', `${tenantId}\0${kind}\0${route}\0${id.length}\0${id}\0${key}`, 'hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`
}

/** What makes two bodies the same: their JSON value, whatever the order of names and the white space. 32 bytes. */
export const fingerprint = (body: unknown): Buffer => hash('sha256', canonical(body), 'buffer')

/** Like JSON.stringify, with names in order. Parsed bodies only: their nesting is bounded (json-body.ts). */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(',')}]`
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null'
  const entries = Object.entries(value).filter(([, part]) => part !== undefined)
  entries.sort(([a], [b]) => (a < b ? -1 : 1))
  return `{${entries.map(([name, part]) => `${JSON.stringify(name)}:${canonical(part)}`).join(',')}}`
}

export interface IdempotencyClaim {
  tenantId: TenantId
  /** From `keyOf`. */
  key: string
  /** From `fingerprint`. */
  fingerprint: Buffer
}

export type ClaimResult =
  /** Nobody has answered it: go on, and store the answer in the same transaction. */
  | { kind: 'fresh' }
  /** Answered before. `response` is what was stored, sealed as it was. */
  | { kind: 'replay'; status: number; response: Buffer }
  /** The key was used with another body. */
  | { kind: 'mismatch' }
  /** Another transaction holds the key, or an earlier claim of this very call does. */
  | { kind: 'running' }

// The lock lasts as long as the transaction and needs no row: a crash frees it. It is asked for in a statement
// of its own: the next one's snapshot is then taken under the lock and sees whatever its last holder committed.
const lockKeys = sql(
  'lock_idempotency_keys',
  `select pg_try_advisory_xact_lock(l) as free from unnest($1::bigint[]) with ordinality as k (l, n) order by n`,
)
const findKeys = sql(
  'find_idempotency_keys',
  `select i.tenant_id, i.key, i.fingerprint, i.status, i.response
   from unnest($1::int[], $2::uuid[]) as k (tenant_id, key)
   join idempotency_keys i on i.tenant_id = k.tenant_id and i.key = k.key
   where i.expires_at > $3`,
)
const storeKeys = sql(
  'store_idempotency_keys',
  `insert into idempotency_keys as i (tenant_id, key, fingerprint, status, response, created_at, expires_at)
   select k.tenant_id, k.key, k.fingerprint, k.status, k.response, $6, $7
   from unnest($1::int[], $2::uuid[], $3::bytea[], $4::int2[], $5::bytea[])
     as k (tenant_id, key, fingerprint, status, response)
   on conflict (tenant_id, key) do update
     set fingerprint = excluded.fingerprint, status = excluded.status, response = excluded.response,
         created_at = excluded.created_at, expires_at = excluded.expires_at
     where i.expires_at <= excluded.created_at`,
)

interface KeyRow {
  tenant_id: TenantId
  key: string
  fingerprint: Buffer
  status: number
  response: Buffer
}

/**
 * Claims many keys at once, in two statements, for requests that are accepted in one transaction; the results
 * stand in the order of the claims. A claim holds until the transaction ends.
 */
export async function claimIdempotency(
  tx: Queryable,
  claims: readonly IdempotencyClaim[],
  now: Date,
): Promise<ClaimResult[]> {
  if (claims.length === 0) return []
  // The session that holds a lock gets it again, so the second of two equal claims is told apart here.
  const first = new Map<string, number>()
  for (const [i, claim] of claims.entries()) {
    const name = nameOf(claim.tenantId, claim.key)
    if (!first.has(name)) first.set(name, i)
  }
  const mine = [...first.values()].map(i => claims[i]!)
  const locks = await tx.rows<{ free: boolean }>(lockKeys, [mine.map(lockOf)])
  const held = new Set(mine.filter((_, i) => locks[i]!.free).map(claim => nameOf(claim.tenantId, claim.key)))
  const rows = await tx.rows<KeyRow>(findKeys, [mine.map(c => c.tenantId), mine.map(c => c.key), now])
  const known = new Map(rows.map(row => [nameOf(row.tenant_id, row.key), row]))

  return claims.map((claim, i): ClaimResult => {
    const name = nameOf(claim.tenantId, claim.key)
    const row = known.get(name)
    if (row !== undefined) {
      if (!row.fingerprint.equals(claim.fingerprint)) return { kind: 'mismatch' }
      return { kind: 'replay', status: row.status, response: row.response }
    }
    return { kind: held.has(name) && first.get(name) === i ? 'fresh' : 'running' }
  })
}

export interface IdempotentAnswer extends IdempotencyClaim {
  status: number
  /** Sealed by the tenant's key: answers hold what requests hold. */
  response: Buffer
}

/** How long an answer is kept for those who ask again. */
export const IDEMPOTENCY_TTL_MS = 24 * 60 * 60 * 1000

/**
 * Keeps the answers of fresh claims, in the transaction that claimed them.
 *
 * @throws Error when one is kept already: it was not fresh, and the transaction must not commit
 */
export async function storeIdempotency(
  tx: Queryable,
  answers: readonly IdempotentAnswer[],
  now: Date,
  ttlMs: number = IDEMPOTENCY_TTL_MS,
): Promise<void> {
  if (answers.length === 0) return
  const stored = await tx.run(storeKeys, [
    answers.map(a => a.tenantId),
    answers.map(a => a.key),
    answers.map(a => a.fingerprint),
    answers.map(a => a.status),
    answers.map(a => a.response),
    now,
    new Date(now.getTime() + ttlMs),
  ])
  if (stored !== answers.length)
    throw new Error('An answer was stored for an Idempotency-Key that was not fresh.')
}

/**
 * The error behind a claim that is neither fresh nor a replay.
 *
 * @returns AppError idempotency_mismatch, or idempotency_running with a Retry-After of one second
 */
export function idempotencyError(kind: 'mismatch' | 'running'): AppError {
  return kind === 'mismatch'
    ? new AppError('idempotency_mismatch', 'This Idempotency-Key came with another body before.', {
        field: 'idempotency-key',
      })
    : new AppError('idempotency_running', 'The first request with this Idempotency-Key is not finished.', {
        field: 'idempotency-key',
        retryAfterSeconds: 1,
      })
}

const nameOf = (tenantId: TenantId, key: string): string => `${tenantId} ${key}`

/** The key's first 64 bits, as the signed number that advisory locks take. The key's hash has the tenant in it. */
const lockOf = ({ key }: IdempotencyClaim): string =>
  BigInt.asIntN(64, BigInt(`0x${key.slice(0, 18).replaceAll('-', '')}`)).toString()
