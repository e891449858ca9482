import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Channel, Id, JsonObject, TenantId, UserId } from '../types.ts'
import { classOf, isKind } from './preference-scopes.ts'
import { TRACK_CLICKS, TRACK_OPENS } from './tracking-consent.ts'

/** Who changed something, and where: what a receipt must be able to say years later. */
export interface Origin {
  /** `user` for the person, else `key:<id>`, `user:<id>`, `import` … */
  actor: string
  /** Route, page or list it came by. */
  origin: string
}

/** What somebody agreed to or refused. Receipts are only ever added (server/admin/housekeeping.ts keeps them). */
export interface Receipt extends Origin {
  id: Id
  userId: UserId
  at: Date
  /** `class:marketing`, `class:marketing:email`, `channel:email`, `global` … */
  subject: string
  oldValue: JsonObject | null
  newValue: JsonObject | null
}

export interface NewReceipt {
  subject: string
  oldValue: JsonObject | null
  newValue: JsonObject
  at?: Date
}

const insertReceipts = sql(
  'insert_consents',
  `insert into consents (tenant_id, id, user_id, at, subject, old_value, new_value, actor, origin)
   select $1, i.id, $2, coalesce(i.at, now()), i.subject, i.old_value, i.new_value, $3, $4
   from unnest($5::uuid[], $6::timestamptz[], $7::text[], $8::jsonb[], $9::jsonb[])
     as i (id, at, subject, old_value, new_value)`,
)
const listReceiptsBefore = sql(
  'list_consents',
  `select id, user_id as "userId", at, subject, old_value as "oldValue", new_value as "newValue", actor, origin
   from consents
   where tenant_id = $1 and user_id = $2 and ($3::uuid is null or id < $3) and ($4::text is null or subject = $4)
   order by id desc limit $5`,
)

/** In the transaction of the change itself, so that neither is there without the other. @returns their ids */
export async function addReceipts(
  tx: Queryable,
  tenantId: TenantId,
  userId: UserId,
  { actor, origin }: Origin,
  receipts: readonly NewReceipt[],
): Promise<Id[]> {
  const ids = receipts.map(() => newId())
  if (ids.length === 0) return ids
  await tx.run(insertReceipts, [
    tenantId,
    userId,
    actor,
    origin,
    ids,
    receipts.map(r => r.at ?? null),
    receipts.map(r => r.subject),
    receipts.map(r => r.oldValue && JSON.stringify(r.oldValue)),
    receipts.map(r => JSON.stringify(r.newValue)),
  ])
  return ids
}

/** The latest written first, before `before`. */
export const listReceipts = (
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  { subject, before, limit }: { subject?: string | undefined; before?: Id | undefined; limit: number },
): Promise<Receipt[]> =>
  q.rows<Receipt>(listReceiptsBefore, [tenantId, userId, before ?? null, subject ?? null, limit])

/**
 * What a receipt calls a switch. Undefined for one that nobody's agreement to marketing hangs on: those are
 * everything, whole channels, and kinds of message that are marketing.
 */
export function receiptSubject(scope: string, channel: Channel | null): string | undefined {
  if (scope === '') return channel === null ? 'global' : `channel:${channel}`
  const name = scope.slice(scope.indexOf(':') + 1)
  // What is noticed of a reader is as much a matter of consent (tracking-consent.ts).
  if (scope === TRACK_OPENS || scope === TRACK_CLICKS) return channel === null ? scope : `${scope}:${channel}`
  if (!isKind(scope) || scope.startsWith('topic:') || classOf(name, '') !== 'marketing') return undefined
  return channel === null ? scope : `${scope}:${channel}`
}

const findLatest = sql(
  'find_latest_consent',
  `select max(at) as at from consents where tenant_id = $1 and user_id = $2 and subject = $3`,
)

/** When the person last agreed to or refused it, as far as receipts tell. */
export async function latestReceiptAt(
  q: Queryable,
  tenantId: TenantId,
  userId: UserId,
  subject: string,
): Promise<Date | null> {
  const found = await q.one<{ at: Date | null }>(findLatest, [tenantId, userId, subject])
  return found?.at ?? null
}
