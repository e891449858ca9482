import { type Db, sql } from '../db/pool.ts'
import type { Sealer } from '../db/seal.ts'
import type { Receipt } from '../deliver/provider.ts'
import { CHANNEL_CODE } from '../ledger/rows.ts'
import { CHANNELS } from '../types.ts'
import type { Channel } from '../types.ts'

/**
 * Receipts that came before their attempt was written: outcomes are gathered for some milliseconds, and after a crash
 * they come late. They are in the database before the vendor is answered, and any process takes them up again.
 */
export interface EarlyReceipts {
  /** @returns how many there was room for */
  keep(provider: string, channel: Channel, receipts: readonly Receipt[]): Promise<number>
  start(): void
  close(): Promise<void>
}

export interface EarlyReceiptsParts {
  db: Db
  /** Receipts name addresses and repeat what people wrote. */
  seal: { sealer: Pick<Sealer, 'seal' | 'open'>; keys: readonly Buffer[] }
  /** @returns those that still have no delivery */
  take(provider: string, channel: Channel, receipts: readonly Receipt[]): Promise<readonly Receipt[]>
  onError(error: unknown): void
}

/** Seconds after which a receipt is asked again, the last time after five minutes; then it is not about us. */
const AGAIN_SECONDS = [1, 5, 30, 300]
/** Other applications of the same vendor account post here too, and theirs are never found. */
const MOST = 10_000
const CHUNK = 200
/** For those of a process that died. */
const POLL_MS = 30_000

const insert = sql(
  'keep_early_receipts',
  `insert into early_receipts (provider, channel, due_at, receipt)
   select $1, $2, clock_timestamp() + $4 * interval '1 second', r.receipt
   from unnest($3::bytea[]) with ordinality as r (receipt, at)
   where r.at <= $5 - (select count(*) from early_receipts)`,
)
// The lease is the next time it is due: what a process that dies has taken comes back by itself.
const claim = sql(
  'claim_early_receipts',
  `update early_receipts e
   set round = e.round + 1,
       due_at = clock_timestamp() + coalesce(($1::int[])[e.round + 2], 60) * interval '1 second'
   where e.id in (
     select id from early_receipts where due_at <= clock_timestamp() order by due_at limit $2 for update skip locked
   )
   returning e.id, e.provider, e.channel, e.round, e.receipt`,
)
const forget = sql('forget_early_receipts', `delete from early_receipts where id = any ($1::bigint[])`)
const nextDue = sql(
  'next_early_receipt',
  `select extract(epoch from min(due_at) - clock_timestamp())::float8 * 1000 as ms from early_receipts`,
)

interface Row {
  id: number
  provider: string
  channel: number
  round: number
  receipt: Buffer
}

export function earlyReceipts(parts: EarlyReceiptsParts): EarlyReceipts {
  const { db, seal, take, onError } = parts
  let timer: NodeJS.Timeout | undefined
  let dueAt = Number.POSITIVE_INFINITY
  let looking: Promise<void> | undefined
  let closed = false

  function expect(ms: number): void {
    const at = performance.now() + ms
    if (closed || (timer !== undefined && at >= dueAt)) return
    clearTimeout(timer)
    dueAt = at
    timer = setTimeout(
      () => {
        timer = undefined
        looking = (looking ?? Promise.resolve()).then(look).finally(() => {
          looking = undefined
        })
      },
      Math.max(0, ms),
    ).unref()
  }

  async function look(): Promise<void> {
    let next = POLL_MS
    try {
      for (;;) {
        const rows = await db.rows<Row>(claim, [AGAIN_SECONDS, CHUNK])
        await again(rows)
        if (rows.length < CHUNK || closed) break
      }
      const due = await db.one<{ ms: number | null }>(nextDue)
      if (due?.ms != null) next = Math.min(next, due.ms + 10)
    } catch (error) {
      onError(error)
    }
    expect(next)
  }

  async function again(rows: readonly Row[]): Promise<void> {
    const posts = Map.groupBy(rows, ({ provider, channel }) => `${channel} ${provider}`)
    for (const post of posts.values()) {
      const { provider, channel } = post[0]!
      const receipts = new Map<Receipt, Row>()
      const over: number[] = []
      for (const row of post) {
        const receipt = open(row.receipt)
        if (receipt) receipts.set(receipt, row)
        else over.push(row.id)
      }
      const lost = new Set(await take(provider, CHANNELS[channel]!, [...receipts.keys()]))
      for (const [receipt, { id, round }] of receipts)
        if (!lost.has(receipt) || round >= AGAIN_SECONDS.length) over.push(id)
      await db.run(forget, [over])
    }
  }

  function open(sealed: Buffer): Receipt | undefined {
    for (const key of seal.keys.toReversed()) {
      try {
        const receipt = JSON.parse(seal.sealer.open(key, sealed).toString('utf8')) as Receipt & { at: string }
        return { ...receipt, at: new Date(receipt.at) }
      } catch {
        // Of another key of the ring.
      }
    }
    return undefined
  }

  return {
    async keep(provider, channel, receipts) {
      if (receipts.length === 0) return 0
      const kept = await db.run(insert, [
        provider,
        CHANNEL_CODE[channel],
        receipts.map(receipt => seal.sealer.seal(seal.keys.at(-1)!, JSON.stringify(receipt))),
        AGAIN_SECONDS[0],
        MOST,
      ])
      expect(AGAIN_SECONDS[0]! * 1000)
      return kept
    },
    start: () => expect(0),
    async close() {
      closed = true
      clearTimeout(timer)
      await looking
    },
  }
}
