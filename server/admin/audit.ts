import { newId } from '../db/ids.ts'
import { type Queryable, sql } from '../db/pool.ts'
import type { Caller } from '../http/api.ts'
import type { TenantId } from '../types.ts'

/** Whoever did it: a caller, or we ourselves (bootstrap, command line, house-keeping). */
export type Actor =
  | Pick<Caller, 'tenantId' | 'kind' | 'id'>
  | { tenantId: TenantId; kind: 'system'; id?: string }

/** One change of configuration or access, for the people who must be able to ask who did it. */
export interface AuditEntry {
  /** What happened, past tense: 'rule.updated', 'key.revoked'. */
  action: string
  /** 'rule', 'key', 'user' … */
  objectKind: string
  objectId: string
  /** Configuration before and after. Never content, never secrets. */
  details?: object
  traceId?: string
}

const insertAudit = sql(
  'insert_audit',
  `insert into audit (tenant_id, id, actor_kind, actor_id, action, object_kind, object_id, details, trace_id)
   select $1, e.id, $2, $3, e.action, e.object_kind, e.object_id, e.details, e.trace_id
   from unnest($4::uuid[], $5::text[], $6::text[], $7::text[], $8::jsonb[], $9::text[])
     as e (id, action, object_kind, object_id, details, trace_id)`,
)

/**
 * Writes who did what. Call it inside the transaction of the change, so that neither exists without the other.
 * Several entries go in one statement.
 */
export async function audit(tx: Queryable, actor: Actor, entry: AuditEntry | AuditEntry[]): Promise<void> {
  const entries = Array.isArray(entry) ? entry : [entry]
  if (entries.length === 0) return
  await tx.run(insertAudit, [
    actor.tenantId,
    actor.kind,
    actor.id ?? null,
    entries.map(() => newId()),
    entries.map(e => e.action),
    entries.map(e => e.objectKind),
    entries.map(e => e.objectId),
    entries.map(e => JSON.stringify(e.details ?? {})),
    entries.map(e => e.traceId ?? null),
  ])
}
