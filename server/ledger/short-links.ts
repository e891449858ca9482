import type { PlannedEvent } from './plan.ts'

/** Keeps where the short links of these plans lead; null: there are none. */
export function shortLinkScript(plans: readonly PlannedEvent[]): string | null {
  const values: string[] = []
  for (const { notifications } of plans) {
    for (const { links } of notifications) {
      for (const { tenantId, hash, box, expiresAt } of links ?? []) {
        values.push(
          `('\\x${hash.toString('hex')}', ${tenantId}, '\\x${box.toString('hex')}', '${expiresAt.toISOString()}')`,
        )
      }
    }
  }
  if (values.length === 0) return null
  // An event that is planned once more says the same, and its links lead to the same.
  return `insert into short_links (hash, tenant_id, box, expires_at) values ${values.join()} on conflict do nothing`
}
