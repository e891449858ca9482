import type pg from 'pg'
import { newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db, Tx } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import type { CommitOptions } from '../ledger/commit.ts'
import { ledgerWriter } from '../ledger/commit.ts'
import { SHARDS } from '../ledger/counters.ts'
import type { AddressedContent, PlannedEvent } from '../ledger/plan.ts'
import { settler } from '../ledger/settle.ts'
import type { Settlement } from '../ledger/settle.ts'
import type { PeopleFacts, UserFacts } from '../people/facts.ts'
import { type Lookout, lookout } from '../time/lookout.ts'
import { CHANNELS, PRIORITIES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Event, Id, InlineContent, Priority, TenantId } from '../types.ts'
import { DIGEST_EVENT, type DigestItem, composeDigest } from './compose.ts'
import { type GroupSpec, type StandingAgain, groupStates, toldOf } from './group-state.ts'

/**
 * Closes digests whose time has come: their items end as parts of the digest, and one event takes their place,
 * which is planned, decided and delivered like every other. All of it is one transaction, so every item is in
 * exactly one closed digest, or was released, cancelled or expired; a crash leaves the digest as it was.
 */
export interface Closer extends Lookout {
  /** Closes what is due; true when there may be more at once. */
  runOnce(): Promise<boolean>
}

export interface CloserParts {
  db: Db
  sealer: Sealer
  people: PeopleFacts
  /** Makes the facts current (server/db/changes.ts). */
  look(): Promise<void>
  tenantKey(tenantId: TenantId): Buffer | undefined
  ledger(): Pick<CommitOptions, 'owner' | 'nextBatchId' | 'leaseSeconds' | 'roomFor'>
  /** So many events wait to be planned; some items are due now. */
  onClosed(told: number, released: number): void
  /** Silences and inhibitions once more, for the alerts of groups. */
  standing?: StandingAgain
  now(): Date
  pollMs: number
  onError(error: unknown): void
}

/**
 * Digests closed in one transaction. Of 100,000 with two items each, due at one instant, one process closes 4,100 a
 * second by 50, and 4,900 by 200, which would hold up to four times the contents in memory at once.
 */
const CLOSE = 50

interface DigestRow {
  tenant_id: TenantId
  id: Id
  recipient_type: number
  recipient_id: string
  channel: number
  key: string
  rule_id: Id | null
  reason: string
  opened_at: Date
  items: number
  max_items: number
  spec: {
    retain?: 'all' | 'first' | 'last' | 'highest'
    single?: 'release' | 'digest'
    template?: string
  } & GroupSpec
}

interface ItemRow {
  tenant_id: TenantId
  digest_id: Id
  id: Id
  channel: number
  event_id: Id
  event_type: string
  priority: number
  category: string
  created_at: Date
  expires_at: Date | null
  trace_id: string | null
  fallback: Buffer | null
  content: Buffer
}

/** What telling of an item needs. */
type TellableRow = Pick<ItemRow, 'id' | 'event_type' | 'priority' | 'category' | 'created_at' | 'content'>

const claimDue = sql(
  'claim_due_digests',
  `select tenant_id, id, recipient_type, recipient_id, channel, key, rule_id, reason, opened_at, items, max_items, spec
   from digests where state = 'open' and closes_at <= $1
   order by closes_at limit ${CLOSE} for update skip locked`,
)
// An item that was cancelled has no job any more. Taking the jobs makes them ours, as the settler wants them, and
// lets a cancellation that comes now see them as being on their way.
const takeItems = sql(
  'take_digest_items',
  `with items as materialized (
     select i.tenant_id, i.digest_id, i.notification_id, i.channel
     from unnest($1::int[], $2::uuid[]) as d (tenant_id, id)
     join digest_items i on i.tenant_id = d.tenant_id and i.digest_id = d.id and i.state = 'collected'
   ), mine as (
     update jobs j set owner = $3, lease_until = now() + interval '1 minute'
     from items i
     where j.tenant_id = i.tenant_id and j.notification_id = i.notification_id and j.channel = i.channel
       and j.kind = 'collected' and j.owner = 0
     returning j.tenant_id, j.notification_id, j.channel, i.digest_id
   )
   select m.tenant_id, m.digest_id, n.id, m.channel, n.event_id, n.event_type, n.priority, n.category, n.created_at,
     n.expires_at, n.trace_id, n.fallback, n.content
   from mine m join notifications n on n.tenant_id = m.tenant_id and n.id = m.notification_id
   order by n.id`,
)
const endItems = sql(
  'end_digest_items',
  `update digest_items i set state = e.state
   from unnest($1::int[], $2::uuid[], $3::int2[], $4::text[]) as e (tenant_id, notification_id, channel, state)
   where i.tenant_id = e.tenant_id and i.notification_id = e.notification_id and i.channel = e.channel`,
)
const releaseJobs = sql(
  'release_digest_jobs',
  `update jobs j set kind = 'held', reason = 'digest', run_at = $4, owner = 0, lease_until = null
   from unnest($1::int[], $2::uuid[], $3::int2[]) as r (tenant_id, notification_id, channel)
   where j.tenant_id = r.tenant_id and j.notification_id = r.notification_id and j.channel = r.channel`,
)
const closeDigests = sql(
  'close_digests',
  `update digests d set state = c.state, closed_at = $5, event_id = c.event_id, told = c.told::uuid[]
   from unnest($1::int[], $2::uuid[], $3::text[], $4::uuid[], $6::text[]) as c (tenant_id, id, state, event_id, told)
   where d.tenant_id = c.tenant_id and d.id = c.id`,
)
// Without items, until something new comes or its time has.
const openAgain = sql(
  'open_digests_again',
  `insert into digests (tenant_id, id, recipient_type, recipient_id, channel, key, rule_id, reason, opened_at, closes_at,
     latest_at, max_items, items, spec)
   select d.tenant_id, w.new_id, d.recipient_type, d.recipient_id, d.channel, d.key, d.rule_id, d.reason, $4, w.at, w.at,
     d.max_items, 0, d.spec
   from unnest($1::int[], $2::uuid[], $3::uuid[], $5::timestamptz[]) as w (tenant_id, id, new_id, at)
   join digests d on d.tenant_id = w.tenant_id and d.id = w.id
   on conflict (tenant_id, recipient_id, channel, key) where state = 'open' do nothing`,
)
const findTemplates = sql(
  'find_digest_templates',
  `select w.tenant_id, w.name, t.id
   from unnest($1::int[], $2::text[]) as w (tenant_id, name)
   join templates t on t.tenant_id = w.tenant_id and (t.name = w.name or t.id::text = w.name) and t.deleted_at is null`,
)
const nextDue = sql('next_due_digest', `select min(closes_at) as at from digests where state = 'open'`)

/** What becomes of an item. */
type Fate = 'closed' | 'released' | 'expired' | 'cancelled'

export function closer(parts: CloserParts): Closer {
  const { db } = parts
  const writer = ledgerWriter((parts.ledger().owner * 16 + 9) % SHARDS)
  const ledger = settler((parts.ledger().owner * 16 + 11) % SHARDS)

  async function runOnce(): Promise<boolean> {
    const now = parts.now()
    const done = await db.tx(async tx => {
      const due = await tx.rows<DigestRow>(claimDue, [now])
      if (due.length === 0) return null
      const items = await tx.rows<ItemRow>(takeItems, [
        due.map(digest => digest.tenant_id),
        due.map(digest => digest.id),
        parts.ledger().owner,
      ])
      return close(tx, due, items, now)
    })
    if (done === null) return false
    parts.onClosed(done.told, done.released)
    return done.digests === CLOSE
  }

  async function close(tx: Tx, due: readonly DigestRow[], items: readonly ItemRow[], now: Date) {
    const keys = await keysOf(due)
    const templates = await templatesOf(tx, due)
    const byDigest = new Map<string, ItemRow[]>()
    for (const item of items) {
      const list = byDigest.get(item.digest_id)
      if (list) list.push(item)
      else byDigest.set(item.digest_id, [item])
    }

    const groups = await groupStates(
      tx,
      due.filter(({ spec }) => spec.intervalSeconds !== undefined),
      items,
      parts.standing,
      now,
    )

    const settlements: Settlement[] = []
    const fates: { item: ItemRow; fate: Fate }[] = []
    const plans: PlannedEvent[] = []
    const closed: { digest: DigestRow; state: 'closed' | 'released'; eventId: Id | null }[] = []
    const again: { digest: DigestRow; at: Date }[] = []
    const toldBy = new Map<Id, Id[] | null>()
    const end = (
      item: ItemRow,
      fate: Fate,
      outcome: 'suppressed' | 'expired' | 'cancelled',
      code: string,
      by: string,
    ) => {
      fates.push({ item, fate })
      settlements.push(ended(item, outcome, code, by, now))
    }

    for (const digest of due) {
      const key = keys(digest)
      const group = groups.get(digest.id)
      const live: ItemRow[] = []
      for (const item of byDigest.get(digest.id) ?? []) {
        if (!key) end(item, 'cancelled', 'cancelled', 'user_erased', digest.id)
        else if (item.expires_at && item.expires_at <= now)
          end(item, 'expired', 'expired', 'expired', digest.id)
        else {
          const standing = group?.standing(item.event_id)
          if (standing) end(item, 'closed', 'suppressed', standing.reason, digest.id)
          else live.push(item)
        }
      }
      if (group) {
        const told = toldOf(group)
        toldBy.set(digest.id, group.alive ? told : told && [])
        const { repeatSeconds } = digest.spec
        if (key && group.alive && repeatSeconds !== undefined && told && told.length > 0) {
          again.push({ digest, at: new Date(now.getTime() + repeatSeconds * 1000) })
        }
        // It waited to tell of what still fires.
        if (digest.items === 0) {
          const fires = group.members.filter(
            member => member.firing === true && group.standing(member.event_id) === null,
          )
          if (!key || !group.alive || fires.length === 0) {
            closed.push({ digest, state: 'closed', eventId: null })
          } else {
            const person = keys.person(digest)
            const event = tell(digest, fires, key, person, templates, now)
            plans.push(accepted(event, person, key))
            closed.push({ digest, state: 'closed', eventId: event.id })
          }
          continue
        }
      }
      const { retain = 'all', single = 'release' } = digest.spec
      const kept = retain === 'all' ? live : [keep(retain, live)].filter(item => item !== undefined)
      for (const item of live) {
        if (!kept.includes(item)) end(item, 'closed', 'suppressed', 'not_retained', digest.id)
      }
      if (kept.length === 0) {
        closed.push({ digest, state: 'closed', eventId: null })
      } else if (kept.length === 1 && (retain !== 'all' || single === 'release')) {
        fates.push({ item: kept[0]!, fate: 'released' })
        closed.push({ digest, state: 'released', eventId: null })
      } else {
        const person = keys.person(digest)
        const event = tell(digest, kept, key!, person, templates, now)
        for (const item of kept) end(item, 'closed', 'suppressed', 'in_digest', event.id)
        plans.push(accepted(event, person, key!))
        closed.push({ digest, state: 'closed', eventId: event.id })
      }
    }

    const released = fates.filter(({ fate }) => fate === 'released').map(({ item }) => item)
    if (released.length > 0) {
      await tx.run(releaseJobs, [
        released.map(item => item.tenant_id),
        released.map(item => item.id),
        released.map(item => item.channel),
        now,
      ])
    }
    await tx.run(endItems, [
      fates.map(({ item }) => item.tenant_id),
      fates.map(({ item }) => item.id),
      fates.map(({ item }) => item.channel),
      fates.map(({ fate }) => fate),
    ])
    await tx.run(closeDigests, [
      closed.map(({ digest }) => digest.tenant_id),
      closed.map(({ digest }) => digest.id),
      closed.map(({ state }) => state),
      closed.map(({ eventId }) => eventId),
      now,
      closed.map(({ digest }) => {
        const told = toldBy.get(digest.id)
        return told ? `{${told.join(',')}}` : null
      }),
    ])
    if (again.length > 0) {
      await tx.run(openAgain, [
        again.map(({ digest }) => digest.tenant_id),
        again.map(({ digest }) => digest.id),
        again.map(() => newId(now.getTime())),
        now,
        again.map(({ at }) => at),
      ])
    }
    await ledger.write(tx.client, settlements, parts.ledger().owner, now)
    await writeEvents(tx.client, plans, now)
    return { digests: due.length, told: plans.length, released: released.length }
  }

  async function writeEvents(client: pg.ClientBase, plans: PlannedEvent[], now: Date): Promise<void> {
    if (plans.length === 0) return
    await writer.commit(client, plans, {
      ...parts.ledger(),
      insertEvents: true,
      inTransaction: false,
      nowMs: now.getTime(),
    })
  }

  function tell(
    digest: DigestRow,
    items: readonly TellableRow[],
    key: Buffer,
    person: UserFacts | undefined,
    templates: ReadonlyMap<string, Id>,
    now: Date,
  ): Event {
    const channel = CHANNELS[digest.channel]!
    let to = ''
    let last: AddressedContent | undefined
    const shown = items.slice(0, digest.max_items).map((item): DigestItem => {
      const bodies = JSON.parse(parts.sealer.open(key, item.content).toString('utf8')) as Partial<
        Record<Channel, AddressedContent>
      >
      const content = bodies[channel]
      to = content?.to ?? to
      last = content
      return {
        notificationId: item.id,
        eventType: item.event_type,
        at: item.created_at,
        priority: PRIORITIES[item.priority]!,
        subject: content?.subject,
        body: content?.body ?? '',
      }
    })
    const categories = new Set(items.map(item => item.category))
    const user = RECIPIENT_TYPES[digest.recipient_type] === 'user'
    const { content, data } = composeDigest({
      id: digest.id,
      key: digest.key,
      items: shown,
      count: items.length,
      locale: person?.locale ?? 'en',
    })
    // One that is told again says what it said; it is no summary.
    const said = items.length === 1 && digest.items === 0 && last ? contentOf(last) : content
    const template = digest.spec.template && templates.get(`${digest.tenant_id} ${digest.spec.template}`)
    return {
      tenantId: digest.tenant_id,
      id: newId(now.getTime()),
      source: 'carillon',
      type: DIGEST_EVENT,
      subject: digest.id,
      time: now,
      receivedAt: now,
      data,
      priority: mostUrgent(items),
      category: categories.size === 1 ? items[0]!.category : 'digest',
      direct: {
        recipients: user ? [{ type: 'user', id: digest.recipient_id }] : [],
        ...(user ? {} : { addresses: { [channel]: [to] } }),
        channels: [channel],
        fallback: [],
        ...(template === undefined || template === '' ? { content: said } : { templateId: template }),
      },
    }
  }

  async function keysOf(due: readonly DigestRow[]) {
    const wanted = new Map<TenantId, Set<string>>()
    for (const digest of due) {
      if (RECIPIENT_TYPES[digest.recipient_type] !== 'user') continue
      const users = wanted.get(digest.tenant_id) ?? new Set()
      wanted.set(digest.tenant_id, users.add(digest.recipient_id))
    }
    await parts.look()
    const facts = await parts.people.load(
      db,
      [...wanted].map(([tenantId, userIds]) => ({ tenantId, userIds })),
    )
    const person = ({ tenant_id, recipient_type, recipient_id }: DigestRow): UserFacts | undefined =>
      RECIPIENT_TYPES[recipient_type] === 'user' ? facts.get(tenant_id, recipient_id) : undefined
    const keyOf = (digest: DigestRow): Buffer | undefined =>
      RECIPIENT_TYPES[digest.recipient_type] === 'user'
        ? person(digest)?.dataKey
        : parts.tenantKey(digest.tenant_id)
    return Object.assign(keyOf, { person })
  }

  async function templatesOf(tx: Tx, due: readonly DigestRow[]): Promise<Map<string, Id>> {
    const named = due.filter(digest => digest.spec.template !== undefined)
    if (named.length === 0) return new Map()
    const rows = await tx.rows<{ tenant_id: TenantId; name: string; id: Id }>(findTemplates, [
      named.map(digest => digest.tenant_id),
      named.map(digest => digest.spec.template!),
    ])
    return new Map(rows.map(row => [`${row.tenant_id} ${row.name}`, row.id]))
  }

  function accepted(event: Event, person: UserFacts | undefined, key: Buffer): PlannedEvent {
    return {
      event,
      sealed: parts.sealer.seal(key, JSON.stringify({ data: event.data, direct: event.direct })),
      sealedFor: person?.userId,
      planned: false,
      planAt: event.receivedAt,
      trace: null,
      notifications: [],
      deliveries: 0,
      suppressed: 0,
    }
  }

  const outlook = lookout({
    look: async () =>
      (await runOnce()) ? 'more' : ((await db.one<{ at: Date | null }>(nextDue))?.at ?? null),
    now: parts.now,
    atLatestMs: parts.pollMs,
    onError: parts.onError,
  })
  return { ...outlook, runOnce }
}

/** Of items in the order of their ids. */
function keep(retain: 'first' | 'last' | 'highest', items: readonly ItemRow[]): ItemRow | undefined {
  if (retain === 'first') return items[0]
  if (retain === 'last') return items.at(-1)
  // The earliest of the most urgent.
  return items.reduce<ItemRow | undefined>(
    (best, item) => (best === undefined || item.priority < best.priority ? item : best),
    undefined,
  )
}

const contentOf = ({ subject, body, html }: AddressedContent): InlineContent => ({
  ...(subject !== undefined && { subject }),
  body,
  ...(html !== undefined && { html }),
})

// CRITICAL is never collected, and a digest is not urgent for holding something that was.
const mostUrgent = (items: readonly TellableRow[]): Priority =>
  PRIORITIES[Math.max(1, Math.min(...items.map(item => item.priority)))]!

function ended(
  item: ItemRow,
  outcome: 'suppressed' | 'expired' | 'cancelled',
  code: string,
  by: string,
  now: Date,
): Settlement {
  const channel = CHANNELS[item.channel]!
  return {
    tenantId: item.tenant_id,
    notificationId: item.id,
    channel,
    priority: PRIORITIES[item.priority]!,
    eventType: item.event_type,
    eventId: item.event_id,
    attempts: [
      {
        tenantId: item.tenant_id,
        notificationId: item.id,
        channel,
        attempt: 1,
        outcome,
        final: true,
        atMs: now.getTime(),
        durationMs: null,
        provider: 'digest',
        messageId: by,
        code,
        error: null,
        cost: null,
      },
    ],
    again: null,
    batch: null,
    hasFallback: false,
  }
}
