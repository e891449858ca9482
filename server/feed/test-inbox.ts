import { randomBytes, randomUUID } from 'node:crypto'
import { idFloor, newId } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import { type Sealer, sealer as openSealer } from '../db/seal.ts'
import type { Id, TenantId, UserId } from '../types.ts'
import { appendFeed } from '../ledger/append-feed.ts'
import { type FeedView, feedView, type InAppContent } from './feed.ts'
import type { Published } from './hub.ts'

/** For tests: people whose inboxes can be filled the way the ledger does it. */
export interface TestInbox {
  sealer: Sealer
  tenant(): Promise<TenantId>
  person(tenantId: TenantId, userId: UserId): Promise<void>
  /** Commits one notification a person in one transaction, and gives what the pipeline would publish. */
  add(tenantId: TenantId, userIds: readonly UserId[], more?: AddOptions): Promise<Added[]>
}

export interface AddOptions {
  expiresAt?: Date
  content?: InAppContent
  createdAt?: Date
  thread?: string
}

export type Added = Published & { data: FeedView; id: Id }

const insertTenant = sql(
  'test_insert_tenant',
  `insert into tenants (name, data_key) values ($1, $2) returning id`,
)
const insertUser = sql(
  'test_insert_user',
  `insert into users (tenant_id, user_id, data_key) values ($1, $2, $3) on conflict do nothing`,
)
const userKeys = sql(
  'test_user_keys',
  `select user_id, data_key from users where tenant_id = $1 and user_id = any($2)`,
)
const insertNotification = sql(
  'test_insert_notification',
  `insert into notifications (tenant_id, id, event_id, event_type, recipient_type, recipient_id, priority, category,
     channels, created_at, expires_at, content)
   select $1, n.id, n.event_id, 'order.shipped', 0, n.user_id, 1, 'orders', '\\x00', $5, $6, n.content
   from unnest($2::uuid[], $3::uuid[], $4::text[], $7::bytea[]) as n (id, event_id, user_id, content)`,
)

export function testInbox(db: Db, given?: Sealer): TestInbox {
  const sealer = given ?? openSealer(randomBytes(32).toString('hex'))
  let tenants = 0
  return {
    sealer,
    tenant: async () =>
      (await db.one<{ id: TenantId }>(insertTenant, [
        `inbox-${process.pid}-${++tenants}`,
        sealer.newDataKey(),
      ]))!.id,
    person: async (tenantId, userId) =>
      void (await db.run(insertUser, [tenantId, userId, sealer.newDataKey()])),
    async add(tenantId, userIds, { expiresAt, createdAt: given, content, thread } = {}) {
      const createdAt = given ?? new Date()
      const keys = await db.rows<{ user_id: UserId; data_key: Buffer }>(userKeys, [tenantId, userIds])
      const items = userIds.map(userId => ({
        id: given === undefined ? newId() : idAt(given),
        eventId: newId(),
        userId,
      }))
      const text = (id: Id): InAppContent =>
        content ?? { subject: 'Shipped', body: `Parcel ${id}`, data: { id } }
      const sealed = items.map(({ id, userId }) => {
        const key = keys.find(row => row.user_id === userId)!.data_key
        return sealer.seal(sealer.unwrap(key), JSON.stringify({ in_app: { to: userId, ...text(id) } }))
      })
      const appended = await db.tx(async tx => {
        await tx.run(insertNotification, [
          tenantId,
          items.map(item => item.id),
          items.map(item => item.eventId),
          items.map(item => item.userId),
          createdAt,
          expiresAt ?? null,
          sealed,
        ])
        return appendFeed(
          tx,
          items.map(({ id, userId }) => ({
            tenantId,
            userId,
            notificationId: id,
            createdAt,
            expiresAt,
            thread,
          })),
        )
      })
      return items.map(({ id, userId, eventId }, at) => {
        const { seq, unseen, unread } = appended[at]!
        const data = feedView({
          id,
          seq,
          eventId,
          eventType: 'order.shipped',
          priority: 'HIGH',
          category: 'orders',
          thread,
          createdAt,
          expiresAt,
          content: text(id),
        })
        return {
          id,
          tenantId,
          userId,
          seq,
          type: 'notification',
          at: createdAt,
          data,
          counts: { unseen, unread },
        }
      })
    },
  }
}

/** `newId` never goes back in time; old notifications have old ids. */
const idAt = (at: Date): Id => `${idFloor(at.getTime()).slice(0, 15)}${randomUUID().slice(15)}`
