import { idFloor } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Queryable, Statement, Tx } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import { CHANNELS, OUTCOMES, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Content, Id, Priority, RecipientType, TenantId } from '../types.ts'
import type { AddressedContent } from './plan.ts'
import { OUTCOME_CODE, channelsOf } from './rows.ts'
import { NOTIFICATION_WORD, deliveriesOf, notificationStatus } from './status.ts'
import type { DeliveryView, NotificationStatus } from './status.ts'

export interface NotificationView {
  id: Id
  eventId: Id
  eventType: string
  recipient: { type: RecipientType; id: string }
  ruleId: Id | null
  templateId: Id | null
  revision: number | null
  locale: string | null
  /** The experiment that counts it, and the variant it says. */
  experiment: { id: Id; variant: string } | null
  /** What it belongs to. */
  thread: string | null
  priority: Priority
  category: string
  channels: Channel[]
  fallbackChannels: Channel[]
  status: NotificationStatus
  createdAt: Date
  scheduledAt: Date | null
  expiresAt: Date | null
  traceId: string | null
  deliveries: DeliveryView[]
  sealed: Buffer
}

export interface NotificationFilter {
  recipientId?: string
  eventId?: Id
  channel?: Channel
  status?: NotificationStatus
  from?: Date
  to?: Date
}

interface Row {
  id: string
  event_id: string
  event_type: string
  recipient_type: number
  recipient_id: string
  rule_id: string | null
  template_id: string | null
  revision: number | null
  locale: string | null
  priority: number
  category: string
  channels: Buffer
  fallback: Buffer | null
  created_at: Date
  scheduled_at: Date | null
  expires_at: Date | null
  trace_id: string | null
  experiment_id: string | null
  variant: string | null
  thread: string | null
  content: Buffer
}

const COLUMNS =
  'n.id, n.event_id, n.event_type, n.recipient_type, n.recipient_id, n.rule_id, n.template_id, n.revision, n.locale, ' +
  'n.priority, n.category, n.channels, n.fallback, n.created_at, n.scheduled_at, n.expires_at, n.trace_id, n.experiment_id, ' +
  'n.variant, n.thread, n.content'

const selectOne = sql(
  'find_notification',
  `select ${COLUMNS} from notifications n where n.tenant_id = $1 and n.id = $2`,
)

const BOUNDS = `n.tenant_id = $1 and n.id >= $2 and n.id < $3`
// One statement an index: a plan for "recipient or anybody" would walk the whole tenant.
const selectAll = sql(
  'list_notifications',
  `select ${COLUMNS} from notifications n where ${BOUNDS} order by n.id desc limit $4`,
)
const selectOfRecipient = sql(
  'list_notifications_of_recipient',
  `select ${COLUMNS} from notifications n where ${BOUNDS} and n.recipient_id = $5 order by n.id desc limit $4`,
)
// What is rare is not looked for among all that is not: candidates first, judged like all others afterwards.
const selectEnded = sql(
  'list_notifications_by_outcome',
  `with ended as (
     select x.notification_id as id from unnest($5::int2[]) as o (code) cross join lateral (
       select a.notification_id from attempts a
       where a.tenant_id = $1 and a.outcome = o.code and a.final and a.outcome > 1
         and a.notification_id >= $2 and a.notification_id < $3
       order by a.notification_id desc limit $4
     ) x
     union
     select x.notification_id from unnest($5::int2[]) as o (code) cross join lateral (
       select s.notification_id from delivery_state s
       where s.tenant_id = $1 and s.outcome = o.code and s.outcome > 1
         and s.notification_id >= $2 and s.notification_id < $3
       order by s.notification_id desc limit $4
     ) x
   ), page as (select id from ended order by id desc limit $4)
   select ${COLUMNS} from page join notifications n on n.tenant_id = $1 and n.id = page.id order by n.id desc`,
)
const selectWaiting = sql(
  'list_notifications_by_job',
  `with page as (
     select distinct j.notification_id as id from jobs j
     where j.tenant_id = $1 and j.notification_id >= $2 and j.notification_id < $3 and (j.kind = 'retry') = $5
     order by id desc limit $4
   )
   select ${COLUMNS} from page join notifications n on n.tenant_id = $1 and n.id = page.id order by n.id desc`,
)
const eventRange = sql(
  'notification_range_of_event',
  `select min(first_id::text)::uuid as first, max(last_id::text)::uuid as last from (
     select first_id, last_id from events where tenant_id = $1 and id = $2
     union all
     select first_id, last_id from plans where tenant_id = $1 and event_id = $2
   ) r`,
)

/** So many rows are looked at for one page; what is rarer than that comes in several, perhaps empty, pages. */
const WINDOW = 1_000
const LAST_ID = 'ffffffff-ffff-ffff-ffff-ffffffffffff'

/**
 * Newest first. The status is derived, not stored, so it is judged on the rows that the other filters let through.
 *
 * @returns `next`: where the next page begins, also after a page that is not full
 */
export async function listNotifications(
  q: Queryable,
  tenantId: TenantId,
  filter: NotificationFilter,
  before: Id | undefined,
  limit: number,
): Promise<{ items: NotificationView[]; next: Id | null }> {
  let low = filter.from === undefined ? idFloor(0) : idFloor(filter.from.getTime())
  let high = filter.to === undefined ? LAST_ID : idFloor(filter.to.getTime())
  if (before !== undefined && before < high) high = before
  if (filter.eventId !== undefined) {
    const range = await q.one<{ first: Id | null; last: Id | null }>(eventRange, [tenantId, filter.eventId])
    if (!range?.first || !range.last) return { items: [], next: null }
    if (range.first > low) low = range.first
    // Inclusive here, exclusive in the statement.
    const beyond = after(range.last)
    if (beyond < high) high = beyond
  }
  const narrow = filter.eventId !== undefined || filter.channel !== undefined || filter.status !== undefined
  const window = narrow ? WINDOW : limit + 1
  const [statement, ...more] = source(filter)
  const rows = await q.rows<Row>(statement, [tenantId, low, high, window, ...more])
  const code = filter.channel === undefined ? undefined : CHANNELS.indexOf(filter.channel)
  const fitting = rows.filter(
    row =>
      (filter.eventId === undefined || row.event_id === filter.eventId) &&
      (code === undefined || row.channels.includes(code) || row.fallback?.includes(code) === true),
  )
  // Without a filter on status only the page itself needs its deliveries.
  const candidates = filter.status === undefined ? fitting.slice(0, limit) : fitting
  const deliveries = await deliveriesOf(
    q,
    tenantId,
    candidates.map(row => row.id),
  )
  const views = candidates
    .map(row => view(row, deliveries.get(row.id) ?? []))
    .filter(
      ({ status, deliveries }) =>
        (filter.status === undefined || status === filter.status) &&
        // A fallback channel counts once it was begun.
        (filter.channel === undefined || deliveries.some(d => d.channel === filter.channel)),
    )
  const items = views.slice(0, limit)
  const next =
    views.length > limit
      ? items.at(-1)!.id
      : candidates.length < fitting.length
        ? candidates.at(-1)!.id
        : rows.length === window
          ? rows.at(-1)!.id
          : null
  return { items, next }
}

/** Where candidates are found: the statement, and what it wants beside tenant, bounds and their number. */
function source({
  recipientId,
  eventId,
  status,
}: NotificationFilter): [statement: Statement, ...more: unknown[]] {
  if (recipientId !== undefined) return [selectOfRecipient, recipientId]
  if (eventId !== undefined || status === undefined) return [selectAll]
  if (status === 'retrying') return [selectWaiting, true]
  if (status === 'pending') return [selectWaiting, false]
  if (status === 'failed' || status === 'cancelled') return [selectEnded, outcomesOf(status)]
  return [selectAll]
}

const outcomesOf = (status: NotificationStatus): number[] =>
  OUTCOMES.filter(outcome => NOTIFICATION_WORD[outcome] === status).map(outcome => OUTCOME_CODE[outcome])

/** The id right after; ids are compared as text in lower case, as PostgreSQL compares their bytes. */
function after(id: Id): Id {
  const next = (BigInt(`0x${id.replaceAll('-', '')}`) + 1n).toString(16).padStart(32, '0')
  return `${next.slice(0, 8)}-${next.slice(8, 12)}-${next.slice(12, 16)}-${next.slice(16, 20)}-${next.slice(20)}`
}

export async function findNotification(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
): Promise<NotificationView | undefined> {
  const row = await q.one<Row>(selectOne, [tenantId, id])
  return row && view(row, (await deliveriesOf(q, tenantId, [id])).get(row.id) ?? [])
}

const view = (row: Row, deliveries: DeliveryView[]): NotificationView => ({
  id: row.id,
  eventId: row.event_id,
  eventType: row.event_type,
  recipient: { type: RECIPIENT_TYPES[row.recipient_type]!, id: row.recipient_id },
  ruleId: row.rule_id,
  templateId: row.template_id,
  revision: row.revision,
  locale: row.locale,
  experiment: row.experiment_id === null ? null : { id: row.experiment_id, variant: row.variant! },
  thread: row.thread,
  priority: PRIORITIES[row.priority]!,
  category: row.category,
  channels: channelsOf(row.channels),
  fallbackChannels: channelsOf(row.fallback),
  status: notificationStatus(deliveries),
  createdAt: row.created_at,
  scheduledAt: row.scheduled_at,
  expiresAt: row.expires_at,
  traceId: row.trace_id,
  deliveries,
  sealed: row.content,
})

/** What each channel sends, or would; null once the person was erased: then nothing can open it. */
export type OpenedContent = Partial<Record<Channel, Content & { to: string }>> | null

export type ContentOpener = (
  q: Queryable,
  tenantId: TenantId,
  items: readonly Pick<NotificationView, 'recipient' | 'sealed'>[],
) => Promise<OpenedContent[]>

const dataKeys = sql(
  'notification_data_keys',
  `select null as user_id, data_key from tenants where id = $1
   union all
   select user_id, data_key from users where tenant_id = $1 and user_id = any ($2::text[])`,
)

type KeyOf = (recipient: NotificationView['recipient']) => Buffer | null

/** The keys that seal what these are told: the person's, or the tenant's for a bare address; null for the erased. */
async function keysOf(
  q: Queryable,
  sealer: Pick<Sealer, 'unwrap'>,
  tenantId: TenantId,
  recipients: readonly NotificationView['recipient'][],
): Promise<KeyOf> {
  const people = recipients.filter(({ type }) => type === 'user').map(({ id }) => id)
  const rows = await q.rows<{ user_id: string | null; data_key: Buffer | null }>(dataKeys, [tenantId, people])
  const keys = new Map(rows.map(row => [row.user_id, row.data_key && sealer.unwrap(row.data_key)]))
  return ({ type, id }) => keys.get(type === 'user' ? id : null) ?? null
}

type Bodies = Record<string, AddressedContent>

/** Opens content with the key that sealed it. */
export function contentOpener(sealer: Pick<Sealer, 'unwrap' | 'open'>): ContentOpener {
  return async (q, tenantId, items) => {
    const keyOf = await keysOf(
      q,
      sealer,
      tenantId,
      items.map(({ recipient }) => recipient),
    )
    return items.map(({ recipient, sealed }) => {
      const key = keyOf(recipient)
      if (!key) return null
      const bodies = JSON.parse(sealer.open(key, sealed).toString('utf8')) as Bodies
      // Settings are an address's secrets, such as what signs a webhook, and so are the tokens of devices: never shown.
      return Object.fromEntries(
        Object.entries(bodies).map(([channel, { settings: _, others: __, ...body }]) => [channel, body]),
      )
    })
  }
}

export type ContentChanger = (
  tx: Tx,
  tenantId: TenantId,
  item: Pick<NotificationView, 'recipient' | 'sealed'>,
  change: (channel: Channel, body: AddressedContent) => AddressedContent,
) => Promise<Buffer | null>

/** Seals content again, changed; null once the person was erased. */
export function contentChanger(sealer: Pick<Sealer, 'unwrap' | 'open' | 'seal'>): ContentChanger {
  return async (tx, tenantId, { recipient, sealed }, change) => {
    const key = (await keysOf(tx, sealer, tenantId, [recipient]))(recipient)
    if (!key) return null
    const bodies = JSON.parse(sealer.open(key, sealed).toString('utf8')) as Bodies
    const changed = Object.entries(bodies).map(([channel, body]) => [
      channel,
      change(channel as Channel, body),
    ])
    return sealer.seal(key, JSON.stringify(Object.fromEntries(changed)))
  }
}

const findSealed = sql(
  'find_sealed_content',
  `select recipient_type, recipient_id, content from notifications where tenant_id = $1 and id = $2`,
)

/** What a notification says, sealed, for `contentOpener`. */
export async function sealedContent(
  q: Queryable,
  tenantId: TenantId,
  id: Id,
): Promise<{ recipient: { type: RecipientType; id: string }; sealed: Buffer } | undefined> {
  const row = await q.one<{ recipient_type: number; recipient_id: string; content: Buffer }>(findSealed, [
    tenantId,
    id,
  ])
  return (
    row && {
      recipient: { type: RECIPIENT_TYPES[row.recipient_type]!, id: row.recipient_id },
      sealed: row.content,
    }
  )
}
