import { createHash, randomBytes } from 'node:crypto'
import { type Db, sql } from '../db/pool.ts'
import type { TenantId, UserId } from '../types.ts'

/** Long enough to open a connection, too short to be worth finding in a log. */
export const TICKET_SECONDS = 30

const insertTicket = sql(
  'insert_realtime_ticket',
  `insert into realtime_tickets (tenant_id, hash, user_id, may_mark, expires_at) values ($1, $2, $3, $4, $5)`,
)
const takeTicket = sql(
  'take_realtime_ticket',
  `delete from realtime_tickets where tenant_id = $1 and hash = $2 
   returning user_id as "userId", may_mark as "mayMark", expires_at as "expiresAt"`,
)

/** Whose inbox somebody may follow, and whether they may mark its items too. */
export interface Reader {
  tenantId: TenantId
  userId: UserId
  mayMark: boolean
}

/**
 * A ticket opens one stream of one person's inbox, once, in any process: for browsers, whose WebSocket and
 * EventSource send no headers, and whose addresses end up in logs.
 */
export async function issueTicket(
  db: Db,
  reader: Reader,
  now: Date,
): Promise<{ ticket: string; expiresAt: Date }> {
  const ticket = `${reader.tenantId}.${randomBytes(24).toString('base64url')}`
  const expiresAt = new Date(now.getTime() + TICKET_SECONDS * 1000)
  await db.run(insertTicket, [reader.tenantId, hashOf(ticket), reader.userId, reader.mayMark, expiresAt])
  return { ticket, expiresAt }
}

/** Whose stream the ticket opens; undefined when it was used, has expired or never was. */
export async function redeemTicket(db: Db, ticket: string, now: Date): Promise<Reader | undefined> {
  const [, tenant] = /^([1-9]\d{0,8})\.[\w-]{32}$/.exec(ticket) ?? []
  if (tenant === undefined) return undefined
  const tenantId = Number(tenant)
  const row = await db.one<{ userId: UserId; mayMark: boolean; expiresAt: Date }>(takeTicket, [
    tenantId,
    hashOf(ticket),
  ])
  if (row === undefined || row.expiresAt <= now) return undefined
  return { tenantId, userId: row.userId, mayMark: row.mayMark }
}

// 192 random bits need no slow hash.
const hashOf = (ticket: string): Buffer => createHash('sha256').update(ticket).digest()
