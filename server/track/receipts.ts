import { createHash } from 'node:crypto'
import { idTime, newId } from '../db/ids.ts'
import { sql } from '../db/pool.ts'
import type { Db, Tx } from '../db/pool.ts'
import type { Receipt } from '../deliver/provider.ts'
import { counterDelta } from '../ledger/counters.ts'
import { ENDED_BADLY, startFallbacks } from '../ledger/settle.ts'
import { CHANNEL_CODE, OUTCOME_CODE } from '../ledger/rows.ts'
import { forward } from '../ledger/status.ts'
import { normalizeAddress, noteWriters } from '../people/addresses.ts'
import { OUTCOMES, RECIPIENT_TYPES } from '../types.ts'
import type { Channel, Event, Id, JsonObject, Outcome, TenantId } from '../types.ts'
import { earlyReceipts } from './early-receipts.ts'
import type { EarlyReceiptsParts } from './early-receipts.ts'

/**
 * What vendors tell later about deliveries: moved forward only, counted in the same transaction, so that the books
 * balance at every moment. Each receipt is a transaction of its own: one that cannot be used does not hold up others.
 */
export interface Receipts {
  /** @returns how many found their delivery */
  take(provider: string, channel: Channel, receipts: readonly Receipt[]): Promise<number>
  /** Takes up what came too early, also what a process that died has left. */
  start(): void
  close(): Promise<void>
}

export interface ReceiptParts {
  db: Db
  /** The address a delivery went to, as its sealed content says; undefined for the erased. */
  addressOf(tenantId: TenantId, notificationId: Id, channel: Channel): Promise<string | undefined>
  /** Tells the application. @returns false when it was told before */
  publish(event: Event): Promise<boolean>
  seal: EarlyReceiptsParts['seal']
  /** A receipt told of a failure, and another channel stands in. */
  onFallback(): void
  now(): Date
  shard: number
  onError(error: unknown): void
}

/** The delivery a receipt is about. */
interface About {
  tenant_id: TenantId
  notification_id: Id
  recipient_type: number
  recipient_id: string
  event_id: Id
  event_type: string
  has_fallback: boolean
}

interface Standing {
  outcome: number
  final: boolean
  receipt: number | null
  opened_at: Date | null
  clicked_at: Date | null
  detail: string | null
}

/** A failure that is told later than this starts no other channel: the news is no news any more. */
const FALLBACK_MS = 86_400_000
/**
 * Messages to one address that were put off, with none delivered in between, before the address counts as dead. A
 * vendor reports each of its own tries: those of one message count once, or an hour of greylisting would do it.
 */
export const SOFT_BOUNCES = 5
/** Older ones have been forgotten. */
const SOFT_BOUNCE_DAYS = 90
/** Deliveries whose receipts are taken at a time. */
const ABREAST = 4
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

// Providers of the installation serve every tenant, so every tenant may be meant; the list makes the index usable.
const listTenants = sql('receipt_tenants', `select id from tenants`)
const byMessage = sql(
  'receipts_by_message',
  `select m.at, a.tenant_id, a.notification_id, n.recipient_type, n.recipient_id, n.event_id, n.event_type,
     n.fallback is not null as has_fallback
   from unnest($3::text[]) with ordinality as m (id, at)
   cross join lateral (
     select x.tenant_id, x.notification_id from attempts x
     where x.tenant_id = any ($1::int[]) and x.provider = $2 and x.message_id = m.id and x.channel = $4 limit 1
   ) a
   join notifications n on n.tenant_id = a.tenant_id and n.id = a.notification_id`,
)
const byNotification = sql(
  'receipts_by_notification',
  `select m.at, n.tenant_id, n.id as notification_id, n.recipient_type, n.recipient_id, n.event_id, n.event_type,
     n.fallback is not null as has_fallback
   from unnest($2::uuid[]) with ordinality as m (id, at)
   join notifications n on n.tenant_id = any ($1::int[]) and n.id = m.id`,
)
const standing = sql(
  'receipt_standing',
  `select a.outcome, a.final, s.outcome as receipt, s.opened_at, s.clicked_at, s.detail
   from (
     select outcome, final from attempts
     where tenant_id = $1 and notification_id = $2 and channel = $3
     order by attempt desc, final desc, worker desc limit 1
   ) a
   left join delivery_state s on s.tenant_id = $1 and s.notification_id = $2 and s.channel = $3`,
)
// Receipts of one delivery one after the other, also between processes.
const lock = sql('receipt_lock', `select pg_advisory_xact_lock(hashtextextended($1, 11))`)
const putState = sql(
  'put_delivery_state',
  `insert into delivery_state (tenant_id, notification_id, channel, outcome, at, opened_at, clicked_at, detail)
   values ($1, $2, $3, $4, $5, $6, $7, $8)
   on conflict (tenant_id, notification_id, channel) do update
     set outcome = excluded.outcome, at = excluded.at, detail = coalesce(excluded.detail, delivery_state.detail),
         opened_at = coalesce(delivery_state.opened_at, excluded.opened_at),
         clicked_at = coalesce(delivery_state.clicked_at, excluded.clicked_at)`,
)
const insertEngagement = sql(
  'insert_receipt_engagement',
  `insert into engagement (tenant_id, id, notification_id, channel, kind, at, detail)
   select $1, $2, $3, $4, $5, $6, $7
   where not exists (
     select from engagement e where e.tenant_id = $1 and e.notification_id = $3 and e.channel = $4
       and e.kind = $5 and e.detail ->> 'receipt' = $8)`,
)
// A try whose price the vendor names later.
const putCost = sql(
  'receipt_cost',
  `update attempts set cost = $4
   where tenant_id = $1 and notification_id = $2 and channel = $3 and cost is distinct from $4
     and case when $5::text is null then final else message_id = $5 and provider = $6 end`,
)
const bury = sql(
  'receipt_dead_letter',
  `insert into dead_letters (tenant_id, id, at, kind, event_id, notification_id, channel, event_type, code, error)
   values ($1, $2, $3, 'delivery', $4, $5, $6, $7, $8, $9)`,
)
const suppressed = sql(
  'receipt_suppressed',
  `select 1 from suppressions where tenant_id = $1 and channel = $2 and address = $3 and expires_at is null`,
)
const suppress = sql(
  'receipt_suppress',
  `insert into suppressions as s (tenant_id, channel, address, reason, source, expires_at)
   values ($1, $2, $3, $4, $5, null)
   on conflict (tenant_id, channel, address) do update
     set reason = excluded.reason, source = excluded.source, expires_at = null
   where s.expires_at is not null`,
)
// By month, so that housekeeping finds them; those of the months before are added.
const countBounce = sql(
  'count_soft_bounce',
  `with this as (
     insert into counters as c (tenant_id, key, window_at, count)
     values ($1, $2, date_trunc('month', $3::timestamptz at time zone 'UTC') at time zone 'UTC', 1)
     on conflict (tenant_id, key, window_at) do update set count = c.count + 1
     returning window_at, count
   )
   select (this.count + coalesce((
     select sum(c.count) from counters c
     where c.tenant_id = $1 and c.key = $2 and c.window_at < this.window_at and c.window_at > $3::timestamptz - $4 * interval '1 day'
   ), 0))::int as count from this`,
)
const forgetBounces = sql('forget_soft_bounces', `delete from counters where tenant_id = $1 and key = $2`)

const unsubscribed = sql(
  'receipt_unsubscribed',
  `select 1 from suppressions where tenant_id = $1 and channel = $2 and address = $3 and reason = 'unsubscribe'`,
)
const resubscribe = sql(
  'receipt_resubscribe',
  `delete from suppressions where tenant_id = $1 and channel = $2 and address = $3 and reason = 'unsubscribe'`,
)

export function receipts(parts: ReceiptParts): Receipts {
  const { db } = parts
  const delta = counterDelta()

  const tenants = async (): Promise<TenantId[]> =>
    (await db.rows<{ id: TenantId }>(listTenants)).map(({ id }) => id)

  const early = earlyReceipts({
    db,
    seal: parts.seal,
    take: async (provider, channel, list) => (await takeNow(provider, channel, list)).lost,
    onError: parts.onError,
  })

  async function takeNow(
    provider: string,
    channel: Channel,
    list: readonly Receipt[],
  ): Promise<{ found: number; lost: Receipt[] }> {
    let found = 0
    const lost: Receipt[] = []
    const all = await tenants()
    const about = await find(all, provider, channel, list)
    // Those of one delivery stay in their order, and do not wait for each other's lock.
    const turns = new Map<string, number[]>()
    for (const at of list.keys()) {
      const name = about[at]?.notification_id ?? `none ${list[at]!.address ?? ''}`
      const turn = turns.get(name)
      if (turn) turn.push(at)
      else turns.set(name, [at])
    }
    const waitingTurns = [...turns.values()]
    const work = async (): Promise<void> => {
      for (let turn = waitingTurns.pop(); turn; turn = waitingTurns.pop()) {
        for (const at of turn) {
          const receipt = list[at]!
          try {
            if (await one(all, provider, channel, receipt, about[at])) found++
            else lost.push(receipt)
          } catch (error) {
            parts.onError(error)
            lost.push(receipt)
          }
        }
      }
    }
    await Promise.all(Array.from({ length: ABREAST }, work))
    return { found, lost }
  }

  async function take(provider: string, channel: Channel, list: readonly Receipt[]): Promise<number> {
    await note(channel, list)
    const { found, lost } = await takeNow(provider, channel, list)
    // Whose receipt names no message of ours can find none later either.
    const mayCome = lost.filter(
      ({ providerMessageId, notificationId }) => providerMessageId ?? UUID.test(notificationId ?? ''),
    )
    const kept = await early.keep(provider, channel, mayCome)
    if (kept < mayCome.length) {
      parts.onError(
        new Error(`${mayCome.length - kept} receipts of ${provider} came too early, and too many wait`),
      )
    }
    return found
  }

  /** Who writes to a WhatsApp number may be answered freely for a day, whatever it was about. */
  async function note(channel: Channel, list: readonly Receipt[]): Promise<void> {
    if (channel !== 'whatsapp') return
    const nowMs = parts.now().getTime()
    const writers = list.flatMap(({ kind, address: given, at }) => {
      const address = WROTE.has(kind) ? readAddress(channel, given) : undefined
      return address === undefined ? [] : [{ address, at: new Date(Math.min(at.getTime(), nowMs)) }]
    })
    if (writers.length === 0) return
    try {
      await noteWriters(db, await tenants(), channel, writers)
    } catch (error) {
      parts.onError(error)
    }
  }

  async function one(
    all: readonly TenantId[],
    provider: string,
    channel: Channel,
    receipt: Receipt,
    about: About | undefined,
  ): Promise<boolean> {
    const named = readAddress(channel, receipt.address)
    const reason = AWAY[receipt.kind]
    if (!about) {
      // About an address alone: an inbound message, or a complaint of somebody whose message we no longer know.
      if (named === undefined || receipt.providerMessageId !== undefined) return false
      const own = receipt.kind === 'complained' || receipt.kind === 'unsubscribed'
      for (const tenantId of own ? all : [])
        await keepAway(tenantId, channel, named, reason!, provider, receipt)
      if (receipt.kind === 'resubscribed')
        for (const tenantId of all) await letBack(tenantId, channel, named, provider, receipt)
      // Whose customer has written is known only where there is one tenant.
      if (receipt.kind === 'replied' && all.length === 1) await tellReply(all[0]!, channel, provider, receipt)
      return true
    }
    const { tenant_id: tenantId, notification_id: id } = about
    const went =
      reason ||
      isSoft(receipt) ||
      receipt.kind === 'resubscribed' ||
      receipt.kind === 'delivered' ||
      (channel === 'email' && named)
        ? await parts.addressOf(tenantId, id, channel)
        : undefined
    // Copies of a mail have the same message id. What became of one says nothing about the delivery itself.
    if (channel === 'email' && named !== undefined && went !== undefined && !same(named, went)) {
      if (reason) await keepAway(tenantId, channel, named, reason, provider, receipt, id)
      return true
    }
    const address = went ?? (reason && named)
    const moved = await db.tx(tx => move(tx, about, channel, provider, receipt, address))
    if (!moved) return false
    if (moved.fallback) parts.onFallback()
    if (receipt.kind === 'resubscribed' && (named ?? went) !== undefined)
      await letBack(tenantId, channel, (named ?? went)!, provider, receipt)
    if (address !== undefined) {
      if (reason) await keepAway(tenantId, channel, address, reason, provider, receipt, id)
      else if (moved.softBounces >= SOFT_BOUNCES)
        await keepAway(tenantId, channel, address, 'hard_bounce', provider, receipt, id)
    }
    if (receipt.kind === 'replied') await tellReply(tenantId, channel, provider, receipt, about)
    return true
  }

  /** At the place of each receipt what it is about. */
  async function find(
    all: readonly TenantId[],
    provider: string,
    channel: Channel,
    list: readonly Receipt[],
  ): Promise<(About | undefined)[]> {
    const found: (About | undefined)[] = list.map(() => undefined)
    const ask = async (
      statement: typeof byMessage,
      given: (id: string[]) => unknown[],
      idOf: (receipt: Receipt) => string | undefined,
    ) => {
      const asked = [...list.keys()].filter(at => found[at] === undefined && idOf(list[at]!) !== undefined)
      if (asked.length === 0) return
      const rows = await db.rows<About & { at: string }>(statement, given(asked.map(at => idOf(list[at]!)!)))
      for (const { at, ...about } of rows) found[asked[Number(at) - 1]!] = about
    }
    await ask(
      byNotification,
      ids => [all, ids],
      ({ notificationId }) => (UUID.test(notificationId ?? '') ? notificationId : undefined),
    )
    await ask(
      byMessage,
      ids => [all, provider, ids, CHANNEL_CODE[channel]],
      ({ providerMessageId }) => providerMessageId,
    )
    return found
  }

  /** Undefined when the delivery has not ended yet as far as we know: the receipt was faster than we. */
  async function move(
    tx: Tx,
    about: About,
    channel: Channel,
    provider: string,
    receipt: Receipt,
    address: string | undefined,
  ): Promise<{ softBounces: number; fallback: boolean } | undefined> {
    const { tenant_id: tenantId, notification_id: id } = about
    const code = CHANNEL_CODE[channel]
    await tx.run(lock, [`${tenantId} ${id} ${channel}`])
    const found = await tx.one<Standing>(standing, [tenantId, id, code])
    if (!found?.final) return undefined
    const first = OUTCOMES[found.outcome]!
    const current = found.receipt === null ? first : forward(first, OUTCOMES[found.receipt]!)
    // Scanners look at mail before it is delivered, and mail programs load pictures nobody looks at.
    const proof = receipt.machine === undefined
    const said = proof || ENGAGED[receipt.kind] === undefined ? SAID[receipt.kind] : undefined
    const next = said === undefined ? current : forward(current, said)
    const opened = proof && (receipt.kind === 'opened' || receipt.kind === 'clicked') ? receipt.at : null
    const clicked = proof && receipt.kind === 'clicked' ? receipt.at : null
    const why = (receipt.vendorCode ?? receipt.code ?? '').slice(0, 100)
    // A message that was put off once is marked so, and not counted again.
    const soft = isSoft(receipt) && current === 'sent' && found.detail === null
    const fresh = next !== current || (opened && !found.opened_at) || (clicked && !found.clicked_at) || soft
    if (fresh) {
      await tx.run(putState, [
        tenantId,
        id,
        code,
        OUTCOME_CODE[next],
        receipt.at,
        opened,
        clicked,
        receipt.kind === 'bounced' || receipt.kind === 'failed' || soft
          ? `${receipt.kind} ${why}`.trim()
          : null,
      ])
    }
    if (receipt.cost !== undefined) {
      const { cost, providerMessageId = null } = receipt
      await tx.run(putCost, [tenantId, id, code, cost.amount, providerMessageId, provider])
    }
    let fallback = false
    if (ENDED_BADLY.has(next) && !ENDED_BADLY.has(current)) {
      await tx.run(bury, [
        tenantId,
        newId(parts.now().getTime()),
        parts.now(),
        about.event_id,
        id,
        code,
        about.event_type,
        (receipt.code ?? next).slice(0, 100),
        (receipt.detail ?? receipt.vendorCode ?? next).slice(0, 2000),
      ])
      fallback = about.has_fallback && parts.now().getTime() - idTime(id) < FALLBACK_MS
      if (fallback) await tx.client.query(startFallbacks([`(${tenantId}, '${id}'::uuid)`], parts.shard))
    }
    if (next !== current) {
      delta.settled(tenantId, idTime(id), channel, current, -1)
      delta.settled(tenantId, idTime(id), channel, next)
      await tx.client.query(delta.take(parts.shard))
    }
    const kind = ENGAGED[receipt.kind]
    if (kind) {
      const receiptId = receipt.receiptId ?? `${receipt.kind} ${receipt.at.getTime()}`
      await tx.run(insertEngagement, [
        tenantId,
        newId(parts.now().getTime()),
        id,
        code,
        kind,
        receipt.at,
        JSON.stringify({
          provider,
          receipt: receiptId,
          ...(receipt.machine === undefined ? {} : { machine: receipt.machine }),
          ...(receipt.detail === undefined ? {} : { detail: receipt.detail.slice(0, 2000) }),
        }),
        receiptId,
      ])
    }
    if (address === undefined) return { softBounces: 0, fallback }
    const key = bounceKey(channel, address)
    // Only the first word of it: a repeated receipt of an older message must not wash off what came since.
    if (next === 'delivered' && next !== current) await tx.run(forgetBounces, [tenantId, key])
    if (!soft) return { softBounces: 0, fallback }
    const row = await tx.one<{ count: number }>(countBounce, [tenantId, key, parts.now(), SOFT_BOUNCE_DAYS])
    return { softBounces: row!.count, fallback }
  }

  /** Whoever bounced or complained is not written to again. Told first: a crash in between tells it twice, as one. */
  async function keepAway(
    tenantId: TenantId,
    channel: Channel,
    address: string,
    reason: 'hard_bounce' | 'complaint' | 'unsubscribe',
    provider: string,
    receipt: Receipt,
    id?: Id,
  ): Promise<void> {
    if (await db.one(suppressed, [tenantId, CHANNEL_CODE[channel], address])) return
    await tell(tenantId, 'carillon.address.suppressed', [provider, nameOf(receipt), address], {
      channel,
      address,
      reason,
      provider,
      ...(id === undefined ? {} : { notificationId: id }),
    })
    await db.run(suppress, [tenantId, CHANNEL_CODE[channel], address, reason, provider])
  }

  /** Whoever asked to be left alone asks for more. A bounce or a complaint is not theirs to take back. */
  async function letBack(
    tenantId: TenantId,
    channel: Channel,
    address: string,
    provider: string,
    receipt: Receipt,
  ): Promise<void> {
    const values = [tenantId, CHANNEL_CODE[channel], address]
    if (!(await db.one(unsubscribed, values))) return
    // One that comes again, by mistake or by malice, must not undo a STOP that came since.
    const fresh = await tell(tenantId, 'carillon.address.restored', [provider, nameOf(receipt), address], {
      channel,
      address,
      provider,
    })
    if (fresh) await db.run(resubscribe, values)
  }

  /** A pressed button, or an answer: for the application to act on. */
  async function tellReply(
    tenantId: TenantId,
    channel: Channel,
    provider: string,
    receipt: Receipt,
    about?: About,
  ): Promise<void> {
    await tell(tenantId, 'carillon.interaction', [provider, nameOf(receipt)], {
      channel,
      provider,
      reply: receipt.detail ?? '',
      at: receipt.at.toISOString(),
      ...(receipt.address ? { address: receipt.address } : {}),
      ...(about && {
        notificationId: about.notification_id,
        recipient: { type: RECIPIENT_TYPES[about.recipient_type]!, id: about.recipient_id },
      }),
    })
  }

  /** An event of our own, once for each `name` however often it is told. */
  async function tell(
    tenantId: TenantId,
    type: string,
    name: readonly string[],
    data: JsonObject,
  ): Promise<boolean> {
    const at = parts.now()
    return parts.publish({
      tenantId,
      id: newId(at.getTime()),
      externalId: hashOf(type, ...name),
      source: 'carillon',
      type,
      time: at,
      receivedAt: at,
      data,
    })
  }

  return { take, start: early.start, close: early.close }
}

const hashOf = (...words: readonly string[]): string =>
  createHash('sha256').update(JSON.stringify(words)).digest('hex').slice(0, 32)

/** The same for a receipt that comes again. */
const nameOf = ({ kind, receiptId, providerMessageId, at, detail }: Receipt): string =>
  receiptId ?? hashOf(kind, providerMessageId ?? '', String(at.getTime()), detail ?? '')

/** Counters outlive people, so the address itself does not stand in them. */
const bounceKey = (channel: Channel, address: string): string =>
  `bounce:${CHANNEL_CODE[channel]}:${hashOf(address.toLowerCase())}`

const same = (a: string, b: string): boolean => a.toLowerCase() === b.toLowerCase()

/** As it is kept, so that it is found again; undefined for what is no address. */
function readAddress(channel: Channel, given: string | undefined): string | undefined {
  if (!given) return undefined
  try {
    return normalizeAddress(channel, given)
  } catch {
    return undefined
  }
}

/** About today, not about the address: put off, or given up for the time being. */
const isSoft = ({ kind, code }: Receipt): boolean =>
  kind === 'deferred' || (kind === 'failed' && (code === 'mailbox_full' || code === 'unavailable'))

const AWAY: Partial<Record<Receipt['kind'], 'hard_bounce' | 'complaint' | 'unsubscribe'>> = {
  bounced: 'hard_bounce',
  complained: 'complaint',
  unsubscribed: 'unsubscribe',
}

/** What comes of a message that somebody wrote to us. */
const WROTE: ReadonlySet<Receipt['kind']> = new Set(['replied', 'unsubscribed', 'resubscribed'])

const SAID: Partial<Record<Receipt['kind'], Outcome>> = {
  delivered: 'delivered',
  failed: 'failed',
  bounced: 'bounced',
  // Whoever opens, clicks or complains has it.
  opened: 'delivered',
  clicked: 'delivered',
  complained: 'delivered',
}

const ENGAGED: Partial<Record<Receipt['kind'], 'opened' | 'clicked' | 'acknowledged'>> = {
  opened: 'opened',
  clicked: 'clicked',
  replied: 'acknowledged',
}
