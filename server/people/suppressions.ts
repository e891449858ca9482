import { type Queryable, sql } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import { CHANNELS, type Channel, type TenantId } from '../types.ts'
import { normalizeAddress } from './addresses.ts'
import type { SuppressionReason } from './facts.ts'

/** An address that is not written to, whoever has it. */
export interface SuppressionEntry {
  channel: Channel
  address: string
  reason: SuppressionReason
  /** What said so: a provider, a person, an import. */
  source: string
  createdAt: Date
  /** null: for ever. */
  expiresAt: Date | null
}

interface SuppressionRow extends Omit<SuppressionEntry, 'channel'> {
  channel: number
}

const columns = 'channel, address, reason, source, created_at as "createdAt", expires_at as "expiresAt"'
const listAfter = sql(
  'list_suppressions',
  `select ${columns} from suppressions
   where tenant_id = $1 and (channel, address) > ($2::int2, $3) and ($4::int2 is null or channel = $4)
   order by channel, address limit $5`,
)
const upsert = sql(
  'put_suppressions',
  `insert into suppressions (tenant_id, channel, address, reason, source, expires_at)
   select $1, i.channel, i.address, i.reason, i.source, i.expires_at
   from unnest($2::int2[], $3::text[], $4::text[], $5::text[], $6::timestamptz[])
     as i (channel, address, reason, source, expires_at)
   order by i.channel, i.address
   on conflict (tenant_id, channel, address) do update
   set reason = excluded.reason, source = excluded.source, expires_at = excluded.expires_at
   returning ${columns}`,
)
const remove = sql(
  'delete_suppression',
  'delete from suppressions where tenant_id = $1 and channel = $2 and address = $3',
)

const toEntry = (row: SuppressionRow): SuppressionEntry => ({ ...row, channel: CHANNELS[row.channel]! })

/**
 * Suppresses addresses, each named once; one that is suppressed already gets the new reason and end.
 *
 * @throws AppError invalid_address
 */
export async function suppress(
  tx: Queryable,
  tenantId: TenantId,
  entries: readonly {
    channel: Channel
    address: string
    reason: SuppressionReason
    source?: string
    expiresAt?: Date
  }[],
): Promise<SuppressionEntry[]> {
  if (entries.length === 0) return []
  const rows = await tx.rows<SuppressionRow>(upsert, [
    tenantId,
    entries.map(entry => CHANNELS.indexOf(entry.channel)),
    entries.map(entry => normalizeAddress(entry.channel, entry.address)),
    entries.map(entry => entry.reason),
    entries.map(entry => entry.source ?? ''),
    entries.map(entry => entry.expiresAt ?? null),
  ])
  return rows.map(toEntry)
}

/** @throws AppError not_found; invalid_address */
export async function unsuppress(
  tx: Queryable,
  tenantId: TenantId,
  channel: Channel,
  address: string,
): Promise<void> {
  const values = [tenantId, CHANNELS.indexOf(channel), normalizeAddress(channel, address)]
  if ((await tx.run(remove, values)) === 0) throw new AppError('not_found', 'The address is not suppressed.')
}

/** By channel code and address, after `after`. Expired ones are listed too, until the house-keeping deletes them. */
export async function listSuppressions(
  q: Queryable,
  tenantId: TenantId,
  channel: Channel | undefined,
  after: { code: number; address: string } | undefined,
  limit: number,
): Promise<SuppressionEntry[]> {
  const only = channel === undefined ? null : CHANNELS.indexOf(channel)
  const { code, address } = after ?? { code: -1, address: '' }
  return (await q.rows<SuppressionRow>(listAfter, [tenantId, code, address, only, limit])).map(toEntry)
}
