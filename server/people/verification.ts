import { createHash, randomBytes, randomInt, timingSafeEqual } from 'node:crypto'
import { newId } from '../db/ids.ts'
import { type Queryable, type Tx, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Channel, Id, TenantId, UserId } from '../types.ts'
import { CHANNELS } from '../types.ts'

/** A code of six digits is guessed within five tries by one in 200,000, and then there is a new code. */
export const CODE_DIGITS = 6
export const CODE_MINUTES = 10
export const MAX_ATTEMPTS = 5
/** Whoever asks for codes for somebody else's number should not be able to pester them, or to spend our money. */
export const RESEND_SECONDS = 30
export const MAX_SENT_PER_HOUR = 5

/** Codes are for what people read; a webhook proves itself by answering. */
export const VERIFIABLE: readonly Channel[] = ['email', 'sms', 'whatsapp', 'voice']

export interface StartedVerification {
  channel: Channel
  /** Under which the code is to travel. */
  eventId: Id
  address: string
  code: string
  expiresAt: Date
}

interface AddressRow {
  channel: number
  address: string
  verification: 'pending' | 'verified' | 'failed'
}

interface VerificationRow {
  salt: Buffer
  hash: Buffer
  expires_at: Date
  attempts: number
  sent: number
  window_at: Date
  sent_at: Date
  event_id: Id | null
}

const findAddress = sql(
  'verification_address',
  `select channel, address, verification from addresses where tenant_id = $1 and user_id = $2 and id = $3 for update`,
)
const findVerification = sql(
  'find_verification',
  `select salt, hash, expires_at, attempts, sent, window_at, sent_at, event_id from address_verifications
   where tenant_id = $1 and address_id = $2 for update`,
)
const putVerification = sql(
  'put_verification',
  `insert into address_verifications (tenant_id, address_id, salt, hash, expires_at, sent, window_at, sent_at, event_id)
   values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
   on conflict (tenant_id, address_id) do update
     set salt = excluded.salt, hash = excluded.hash, expires_at = excluded.expires_at, attempts = 0,
         sent = excluded.sent, window_at = excluded.window_at, sent_at = excluded.sent_at, event_id = excluded.event_id`,
)
const setAttempts = sql(
  'set_verification_attempts',
  `update address_verifications set attempts = $3 where tenant_id = $1 and address_id = $2`,
)
const endVerification = sql(
  'end_verification',
  `delete from address_verifications where tenant_id = $1 and address_id = $2`,
)
const markVerified = sql(
  'mark_address_verified',
  `update addresses set verification = 'verified', verified_at = $4, updated_at = now()
   where tenant_id = $1 and user_id = $2 and id = $3 and verification <> 'verified'`,
)

/**
 * Makes a new code for an address; whoever calls it sends it there. The one before is void.
 *
 * @throws AppError not_found; conflict when the address is verified already; invalid_request for a channel that takes
 * no code; rate_limited when the last code is too recent or there were too many within an hour
 */
export async function startVerification(
  tx: Tx,
  tenantId: TenantId,
  userId: UserId,
  addressId: Id,
  now: Date,
): Promise<StartedVerification> {
  const found = await owned(tx, tenantId, userId, addressId)
  const channel = CHANNELS[found.channel]!
  if (!VERIFIABLE.includes(channel)) {
    throw new AppError('invalid_request', `An address for ${channel} takes no code.`, { field: '/id' })
  }
  if (found.verification === 'verified') throw new AppError('conflict', 'The address is verified already.')
  const before = await tx.one<VerificationRow>(findVerification, [tenantId, addressId])
  let sent = 1
  let windowAt = now
  if (before) {
    const since = (now.getTime() - before.sent_at.getTime()) / 1000
    if (since < RESEND_SECONDS) throw tooSoon(Math.ceil(RESEND_SECONDS - since))
    const hour = 3600 - (now.getTime() - before.window_at.getTime()) / 1000
    if (hour > 0) {
      if (before.sent >= MAX_SENT_PER_HOUR) throw tooSoon(Math.ceil(hour))
      sent = before.sent + 1
      windowAt = before.window_at
    }
  }
  const code = String(randomInt(10 ** CODE_DIGITS)).padStart(CODE_DIGITS, '0')
  const salt = randomBytes(16)
  const eventId = newId(now.getTime())
  const expiresAt = new Date(now.getTime() + CODE_MINUTES * 60_000)
  await tx.run(putVerification, [
    tenantId,
    addressId,
    salt,
    digest(salt, code),
    expiresAt,
    sent,
    windowAt,
    now,
    eventId,
  ])
  return { channel, eventId, address: found.address, code, expiresAt }
}

/** What became of a code: `wrong` leaves so many attempts. */
export type Confirmation =
  | { verified: true }
  | { verified: false; why: 'wrong' | 'expired' | 'spent'; left: number }

/** A code that was typed, and whether it is ours; whoever sent it may have sent another one, and has to be asked. */
export interface TypedCode {
  channel: Channel
  address: string
  eventId: Id | null
  ours: boolean
  /** When it is wrong. */
  left: number
}

/**
 * Counts the attempt whatever comes of it, before anybody is asked, so that no two at once are one: the transaction has
 * to commit also when the code is wrong.
 *
 * @throws AppError not_found, also when no code was sent
 */
export async function typeCode(
  tx: Tx,
  tenantId: TenantId,
  userId: UserId,
  addressId: Id,
  code: string,
  now: Date,
): Promise<Confirmation | TypedCode> {
  const found = await owned(tx, tenantId, userId, addressId)
  if (found.verification === 'verified') return { verified: true }
  const sent = await tx.one<VerificationRow>(findVerification, [tenantId, addressId])
  if (!sent) throw new AppError('not_found', 'No code was sent to this address.')
  if (sent.expires_at <= now) return { verified: false, why: 'expired', left: 0 }
  if (sent.attempts >= MAX_ATTEMPTS) return { verified: false, why: 'spent', left: 0 }
  await tx.run(setAttempts, [tenantId, addressId, sent.attempts + 1])
  return {
    channel: CHANNELS[found.channel]!,
    address: found.address,
    eventId: sent.event_id,
    ours: timingSafeEqual(sent.hash, digest(sent.salt, code)),
    left: MAX_ATTEMPTS - sent.attempts - 1,
  }
}

/**
 * What follows from the verdict on a typed code; undefined: nobody could say, and the attempt does not count. Where
 * another code was sent meanwhile, or the address changed, the verdict is about nothing any more.
 */
export async function judgeCode(
  tx: Tx,
  tenantId: TenantId,
  userId: UserId,
  addressId: Id,
  typed: TypedCode,
  verdict: 'right' | 'wrong' | 'expired' | 'spent' | undefined,
  now: Date,
): Promise<Confirmation> {
  const found = await owned(tx, tenantId, userId, addressId)
  if (found.verification === 'verified') return { verified: true }
  const sent = await tx.one<VerificationRow>(findVerification, [tenantId, addressId])
  if (!sent || sent.event_id !== typed.eventId || found.address !== typed.address) {
    return { verified: false, why: 'expired', left: 0 }
  }
  if (verdict === 'right') {
    await tx.run(markVerified, [tenantId, userId, addressId, now])
    await tx.run(endVerification, [tenantId, addressId])
    return { verified: true }
  }
  const spent = verdict === 'spent' || verdict === 'expired'
  if (spent) await tx.run(setAttempts, [tenantId, addressId, MAX_ATTEMPTS])
  if (verdict === undefined) await tx.run(setAttempts, [tenantId, addressId, Math.max(0, sent.attempts - 1)])
  return { verified: false, why: verdict ?? 'wrong', left: spent ? 0 : typed.left }
}

async function owned(q: Queryable, tenantId: TenantId, userId: UserId, addressId: Id): Promise<AddressRow> {
  const found = await q.one<AddressRow>(findAddress, [tenantId, userId, addressId])
  if (!found) throw new AppError('not_found', 'This person has no address with this id.')
  return found
}

const tooSoon = (seconds: number) =>
  new AppError('rate_limited', 'Too many codes were asked for.', { retryAfterSeconds: seconds })

const digest = (salt: Buffer, code: string): Buffer => createHash('sha256').update(salt).update(code).digest()
