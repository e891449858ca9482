/**
 * What sending costs on its way out, on one core.
 *
 *   node bench/channels.ts [--seconds 5]
 *
 * The delivery loop with its scheduler, breaker and settlements, and a provider behind it, against the library under
 * that provider alone: mails of 6 KB through nodemailer's pool, and webhooks through undici's. Both sides send the same
 * to the same sink, a process of its own, over as many connections, and take turns. The database is left out:
 * `pipeline.ts` has the whole way. What the library alone does not do: signatures, the one-click link, checks of the
 * address and the network, bounds of time and size, a verdict. The table shows medians of 5 turns.
 */
import { createTransport } from 'nodemailer'
import { Pool } from 'undici'
import { newId } from '../server/db/ids.ts'
import { catalog } from '../server/deliver/catalog.ts'
import type { Delivery } from '../server/deliver/delivery.ts'
import { openHttp } from '../server/deliver/http.ts'
import { deliveryLoop } from '../server/deliver/loop.ts'
import { openProvider } from '../server/deliver/open-provider.ts'
import { unsubscribeLinks } from '../server/people/unsubscribe.ts'
import type { Channel } from '../server/types.ts'
import { argument, figure, machine, median, table } from './machine.ts'
import { atEnd, bench, program, said } from './server.ts'

const TURNS = 5
const SECONDS = argument('seconds', 5)
const GOAL = 0.6
const MAIL_CONNECTIONS = 5
const CONNECTIONS = 64

const html = `<!doctype html><html><body>${'<p style="font:15px/1.5 sans-serif">Your parcel is on its way, and it is <b>large</b>.</p>\n'.repeat(70)}</body></html>`
const text = 'Your parcel is on its way.\n'.repeat(20)
const data = {
  order: 17,
  items: Array.from({ length: 8 }, (_, i) => ({ name: `Thing ${i}`, price: i * 3.5 })),
}
const links = unsubscribeLinks({ publicUrl: 'https://carillon.example', key: Buffer.alloc(32, 7) })
const http = openHttp({ allowPrivate: ['127.0.0.1/32'], connections: CONNECTIONS })

interface Side {
  /** Sends one after the other on each of so many lines until told to stop. @returns how many went out */
  run(until: () => boolean): Promise<number>
  close(): Promise<void>
}

/** Ours: a line hands the next one over when one is settled, as the ledger would. */
async function ours(
  channel: Channel,
  settings: object,
  body: Delivery['body'],
  lines: number,
): Promise<Side> {
  const provider = catalog.get(channel === 'email' ? 'smtp' : 'webhook')!
  const opened = await openProvider(provider, settings, { http, now: () => new Date() })
  let settled: (ok: boolean) => void = () => {}
  const loop = deliveryLoop({
    providers: new Map([[channel, [opened]]]),
    settle: ({ attempts }) =>
      settled(attempts.at(-1)!.outcome === 'sent' || attempts.at(-1)!.outcome === 'delivered'),
    now: () => new Date(),
    random: Math.random,
    inFlight: 20_000,
    perChannel: lines,
    linksFor: ({ tenantId, recipient, notificationId }) =>
      channel === 'email'
        ? { unsubscribeUrl: links.urlFor(tenantId, recipient.id, channel, notificationId) }
        : undefined,
    onError(error) {
      throw error
    },
  })
  const next = (): Delivery => ({
    tenantId: 1,
    notificationId: newId(),
    channel,
    recipient: { type: 'user', id: 'ann' },
    priority: 'NORMAL',
    eventId: '019388c0-0000-7000-8000-000000000000',
    eventType: 'shop.parcel.sent',
    createdAtMs: Date.now(),
    expiresAtMs: null,
    body,
    tries: 0,
    hasFallback: false,
    provider: null,
    batch: null,
  })
  return {
    run: until =>
      new Promise((resolve, reject) => {
        let sent = 0
        let going = lines
        settled = ok => {
          if (!ok) return reject(new Error(`The sink did not take a message by ${channel}`))
          sent++
          if (!until()) loop.push([next()])
          else if (--going === 0) resolve(sent)
        }
        loop.push(Array.from({ length: lines }, next))
      }),
    async close() {
      await loop.drain(1_000)
      await opened.close()
    },
  }
}

function alone(lines: number, send: () => Promise<unknown>, close: () => Promise<void>): Side {
  return {
    async run(until) {
      let sent = 0
      const line = async () => {
        while (!until()) {
          await send()
          sent++
        }
      }
      await Promise.all(Array.from({ length: lines }, line))
      return sent
    },
    close,
  }
}

interface Turn {
  rate: number
  /** µs of this process's CPU a message; the sinks are elsewhere. */
  cpu: number
}

async function turn(side: Side): Promise<Turn> {
  const started = performance.now()
  const before = process.cpuUsage()
  const sent = await side.run(() => performance.now() - started >= SECONDS * 1000)
  const { user, system } = process.cpuUsage(before)
  return { rate: sent / ((performance.now() - started) / 1000), cpu: (user + system) / sent }
}

const portOf = async (file: string): Promise<number> =>
  Number((await said(program(file), 'port')).split(' ')[1])

await bench(10, async () => {
  atEnd(() => http.close())
  console.log(
    `${machine()}; the delivery loop and a provider against the library alone; ${TURNS} turns of ${SECONDS} s each\n`,
  )
  const mailPort = await portOf('smtp-sink.ts')
  const webPort = await portOf('sink.ts')
  const mailTo = 'ann@example.org'
  const url = `http://127.0.0.1:${webPort}/hook`

  const pool = createTransport({
    pool: true,
    host: '127.0.0.1',
    port: mailPort,
    ignoreTLS: true,
    maxConnections: MAIL_CONNECTIONS,
  })
  const undici = new Pool(new URL(url).origin, { connections: CONNECTIONS })
  const posted = JSON.stringify({
    type: 'shop.parcel.sent',
    timestamp: new Date(),
    data: { subject: 'Your parcel', body: text, ...data },
  })

  const races: [name: string, library: string, ours: Side, theirs: Side][] = [
    [
      'mail of 6 KB',
      'nodemailer',
      await ours(
        'email',
        {
          host: '127.0.0.1',
          port: mailPort,
          tls: 'off',
          from: 'Shop <noreply@shop.example>',
          connections: MAIL_CONNECTIONS,
        },
        { to: mailTo, subject: 'Your parcel', body: text, html },
        // Each connection has the next one waiting, as in a busy server.
        MAIL_CONNECTIONS * 4,
      ),
      alone(
        MAIL_CONNECTIONS * 4,
        () =>
          pool.sendMail({
            from: 'Shop <noreply@shop.example>',
            to: mailTo,
            subject: 'Your parcel',
            text,
            html,
          }),
        async () => pool.close(),
      ),
    ],
    [
      'webhook, signed',
      'undici',
      await ours(
        'webhook',
        {},
        {
          to: url,
          subject: 'Your parcel',
          body: text,
          data,
          settings: { secret: `whsec_${Buffer.alloc(32, 9).toString('base64')}` },
        },
        CONNECTIONS,
      ),
      alone(
        CONNECTIONS,
        async () => {
          const { body } = await undici.request({
            path: '/hook',
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: posted,
          })
          await body.dump()
        },
        () => undici.close(),
      ),
    ],
  ]

  const rows: string[][] = []
  for (const [name, library, mine, theirs] of races) {
    const turns: [Turn[], Turn[]] = [[], []]
    // The first of each warms up.
    for (let n = 0; n <= TURNS; n++) {
      for (const [at, side] of [mine, theirs].entries()) {
        const one = await turn(side)
        if (n > 0) turns[at]!.push(one)
      }
    }
    const rate = turns.map(list => median(list.map(one => one.rate)))
    const cpu = turns.map(list => median(list.map(one => one.cpu)))
    const ratio = median(turns[0].map((one, n) => one.rate / turns[1][n]!.rate))
    rows.push([
      name,
      `${figure(rate[0]!)}/s`,
      `${figure(cpu[0]!)} µs`,
      `${library}: ${figure(rate[1]!)}/s`,
      `${figure(cpu[1]!)} µs`,
      `${figure(ratio)}${ratio < GOAL ? ' (below the aim)' : ''}`,
    ])
    await mine.close()
    await theirs.close()
  }
  console.log(table(['', 'ours', 'CPU', 'alone', 'CPU', `ratio, aim ${GOAL}`], rows))
})
