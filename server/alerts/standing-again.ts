import type { StandingBook } from './standing-book.ts'
import { sql } from '../db/pool.ts'
import type { Db } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import type { StandingAgain } from '../digest/group-state.ts'
import type { PeopleFacts } from '../people/facts.ts'
import type { Event, Id, JsonObject, TenantId } from '../types.ts'

const loadEvents = sql(
  'standing_again_events',
  `select e.tenant_id, e.id, e.source, e.type, e.subject, e.time, e.received_at, e.sealed_for, e.data
   from unnest($1::int[], $2::uuid[]) as w (tenant_id, id)
   join events e on e.tenant_id = w.tenant_id and e.id = w.id`,
)

interface EventRow {
  tenant_id: TenantId
  id: Id
  source: string
  type: string
  subject: string | null
  time: Date
  received_at: Date
  sealed_for: string | null
  data: Buffer
}

/**
 * Silences and inhibitions once more, when a group goes: what began while it waited counts. So an alert and the one
 * that covers it may come in any order, by any processes, within the wait of their group.
 */
export function standingAgain({
  db,
  sealer,
  people,
  tenantKey,
  book,
}: {
  db: Db
  sealer: Sealer
  people: PeopleFacts
  tenantKey(tenantId: TenantId): Buffer | undefined
  book: StandingBook
}): StandingAgain {
  return async (asked, now) => {
    const concerned = await book.concerned(
      db,
      asked.map(({ tenantId }) => tenantId),
    )
    const wanted = asked.filter(({ tenantId }) => concerned.has(tenantId))
    if (wanted.length === 0) return () => null
    const rows = await db.rows<EventRow>(loadEvents, [
      wanted.map(({ tenantId }) => tenantId),
      wanted.map(({ eventId }) => eventId),
    ])
    const owners = Map.groupBy(
      rows.filter(row => row.sealed_for !== null),
      row => row.tenant_id,
    )
    const facts = await people.load(
      db,
      [...owners].map(([tenantId, of]) => ({ tenantId, userIds: new Set(of.map(row => row.sealed_for!)) })),
    )
    const events: Event[] = []
    for (const row of rows) {
      const { tenant_id: tenantId, sealed_for: owner } = row
      const key = owner === null ? tenantKey(tenantId) : facts.get(tenantId, owner)?.dataKey
      // Whoever was erased hears nothing anyway.
      if (!key) continue
      const { data } = JSON.parse(sealer.open(key, row.data).toString('utf8')) as { data: JsonObject }
      events.push({
        tenantId,
        id: row.id,
        source: row.source,
        type: row.type,
        subject: row.subject ?? undefined,
        time: row.time,
        receivedAt: row.received_at,
        data,
      })
    }
    const standing = await book.standing(db, events, now)
    const found = new Map(events.map(event => [event.id, standing(event)]))
    return eventId => found.get(eventId) ?? null
  }
}
