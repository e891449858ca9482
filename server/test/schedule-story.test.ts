import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { startApp } from '../app.ts'
import { loadConfig } from '../config.ts'
import { auditLedger } from '../ledger/audit.ts'
import { createLogger } from '../observe/log.ts'
import { HOUR_MS, instantOf, localTime, wallClock } from '../time/zone.ts'
import { eventually, type Loose, testApp } from './app.ts'

interface Machines {
  call(method: string, path: string, body?: unknown): Promise<Loose>
  /** `data.i` of each webhook that arrived at alice's, and the keys of all of them. */
  received: { i: string; key: string }[]
  /** The clock of the machines that deliver; the one that takes events stays awake. */
  sleepUntil(at: Date): void
  /** Nothing is held or on its way any more. */
  settled(): Promise<void>
  /** What the audit found wrong. */
  audit(): Promise<unknown[]>
}

/** One machine that takes events, and three that deliver. */
async function withMachines(story: (machines: Machines) => Promise<void>): Promise<void> {
  const settings = {
    CARILLON_MASTER_KEY: randomBytes(32).toString('hex'),
    OUTBOUND_ALLOW: '127.0.0.1/32',
    MAILBOX_PORT: '0',
    PORT: '0',
    LOG_LEVEL: 'error',
  }
  const received: Machines['received'] = []
  const sink = createServer((request, response) => {
    let text = ''
    request
      .setEncoding('utf8')
      .on('data', (chunk: string) => (text += chunk))
      .on('end', () => {
        const i = /number (\d+)/.exec(text)?.[1] ?? 'none'
        received.push({ i, key: String(request.headers['webhook-id']) })
        response.end('ok')
      })
  }).listen(0, '127.0.0.1')
  const folder = await mkdtemp(join(tmpdir(), 'carillon-schedule-'))
  const front = await testApp({ ...settings, CARILLON_ROLE: 'api' })
  let asleepMs = 0
  const workers = await Promise.all(
    [1, 2, 3].map(() =>
      startApp({
        config: loadConfig({ ...settings, CARILLON_ROLE: 'plan,deliver', CARILLON_DATA_DIR: folder }),
        databaseUrl: front.databaseUrl,
        log: createLogger({ level: 'error' }),
        now: () => new Date(Date.now() + asleepMs),
      }),
    ),
  )
  const call: Machines['call'] = async (method, path, body) => {
    const answer = await front.call(method, path, { as: front.tenant.adminKey, body })
    assert.ok(answer.status < 300, answer.text)
    return answer.body
  }
  try {
    const url = `http://127.0.0.1:${(sink.address() as AddressInfo).port}/`
    await call('PUT', '/api/users/alice', {
      addresses: [{ channel: 'webhook', address: url, verified: true }],
    })
    await story({
      call,
      received,
      sleepUntil: at => (asleepMs = at.getTime() - Date.now()),
      async settled() {
        await eventually('the end of all work', async () => {
          const { rows } = await front.db.pool.query(
            'select (select count(*) from jobs) + (select count(*) from batches) as live',
          )
          return Number(rows[0].live) === 0
        })
      },
      audit: () => auditLedger(front.db, {}),
    })
  } finally {
    for (const worker of workers) await worker.stop()
    sink.close()
    await front.stop()
    await rm(folder, { recursive: true, force: true })
  }
}

const publish = async ({ call }: Machines, type: string, i: number): Promise<string> => {
  const { id } = await call('POST', '/api/events/publish', { type, data: { message: `number ${i}` } })
  return id
}
const decisionsOf = async ({ call }: Machines, event: string): Promise<Loose[]> =>
  (await call('GET', `/api/events/${event}/explain`)).rules[0].recipients[0].decisions

// covers: DIC-061
test('what waits for a local time goes once, though three machines slept until long after it', async () => {
  await withMachines(async machines => {
    const { call, received } = machines
    const timezone = 'Asia/Kolkata'
    const due = new Date(Math.ceil((Date.now() + HOUR_MS) / 60_000) * 60_000)
    await call('POST', '/api/rules', {
      name: 'Daily',
      eventTypes: ['report.ready'],
      recipientSelector: { users: ['alice'] },
      channels: ['webhook'],
      schedule: { daily: localTime(timezone, due.getTime()).local.slice(11, 16) },
      timezone,
    })
    const events: string[] = []
    for (let i = 0; i < 30; i++) events.push(await publish(machines, 'report.ready', i))
    const [held] = await decisionsOf(machines, events[0]!)
    assert.deepEqual([held.decision, held.reason, held.until], ['hold', 'rule_schedule', due.toISOString()])
    assert.deepEqual(received, [])

    machines.sleepUntil(new Date(due.getTime() + 4 * HOUR_MS))
    await eventually('all of them', () => received.length >= events.length)
    await machines.settled()
    const { deliveries } = await call('GET', `/api/events/status/${events[0]}`)
    assert.equal(deliveries[0].status, 'delivered')
    assert.equal(received.length, events.length)
    assert.equal(new Set(received.map(({ key }) => key)).size, events.length)
    assert.deepEqual(await machines.audit(), [])
  })
})

// covers: DIC-061, DIC-064
test('intervals and cron patterns go once and do not drift, though three machines slept over many of their times', async () => {
  await withMachines(async machines => {
    const { call, received } = machines
    // An odd number of seconds, counted from a moment of its own.
    const everyMs = 5_003_000
    const validFrom = new Date(Math.floor(Date.now() / 1000) * 1000 - 7 * everyMs - 1_234_000)
    const rule = (name: string, schedule: object) =>
      call('POST', '/api/rules', {
        name,
        eventTypes: [name],
        recipientSelector: { users: ['alice'] },
        channels: ['webhook'],
        schedule,
        validFrom: validFrom.toISOString(),
        timezone: 'UTC',
      })
    await rule('every', { interval_seconds: everyMs / 1000 })
    await rule('cron', { cron: '*/20 * * * *' })
    const nextTimes: Record<string, () => number> = {
      every: () => validFrom.getTime() + Math.ceil((Date.now() - validFrom.getTime()) / everyMs) * everyMs,
      cron: () => Math.ceil(Date.now() / 1_200_000) * 1_200_000,
    }
    let published = 0
    const publishBoth = async () => {
      for (const [type, next] of Object.entries(nextTimes)) {
        for (let i = 0; i < 15; i++) {
          // Asked twice, as the time may come between them.
          const before = next()
          const [held] = await decisionsOf(machines, await publish(machines, type, published++))
          const until = new Date(held.until).getTime()
          assert.ok(until === before || until === next(), `${type}: ${held.until}`)
          assert.deepEqual([held.decision, held.reason], ['hold', 'rule_schedule'])
        }
      }
    }
    await publishBoth()

    // They wake between two times, after four of the one and eighteen of the other.
    machines.sleepUntil(new Date(nextTimes['every']!() + 4 * everyMs + 777_000))
    await eventually('all of them', () => received.length >= published)
    await machines.settled()
    // What comes now has the same times as before: nothing was counted from the late run.
    await publishBoth()
    await machines.settled()
    assert.equal(received.length, published)
    assert.equal(new Set(received.map(({ key }) => key)).size, published)
    assert.deepEqual(
      received.map(({ i }) => Number(i)).sort((a, b) => a - b),
      Array.from({ length: published }, (_, i) => i),
    )
    assert.deepEqual(await machines.audit(), [])
  })
})

// covers: AUR-090, DIC-082, PFM-136, PFM-137
test('what comes late in the evening goes at seven in the morning; the inbox has it at once', async () => {
  await withMachines(async machines => {
    const { call, received } = machines
    // Somewhere it is always between ten and eleven in the evening.
    const timezone = Array.from(
      { length: 27 },
      (_, n) => `Etc/GMT${n > 14 ? '+' : '-'}${n > 14 ? n - 14 : n}`,
    ).find(zone => wallClock(zone, Date.now()).hour === 22)!
    const evening = wallClock(timezone, Date.now())
    const morning = (hour: number, minute: number) =>
      new Date(instantOf(timezone, { ...evening, day: evening.day + 1, hour, minute, second: 0 }))
    await call('PATCH', '/api/users/alice', { timezone })
    await call('PUT', '/api/preferences/alice/quiet-hours', {
      enabled: true,
      startTime: '22:00',
      endTime: '07:00',
    })
    await call('POST', '/api/rules', {
      name: 'Weather',
      eventTypes: ['weather.rain'],
      recipientSelector: { users: ['alice'] },
      channels: ['in_app', 'webhook'],
    })
    await call('POST', '/api/rules', {
      name: 'Storm',
      eventTypes: ['weather.storm'],
      recipientSelector: { users: ['alice'] },
      channels: ['webhook'],
      priority: 'CRITICAL',
    })

    const rain = await publish(machines, 'weather.rain', 1)
    const decisions = await decisionsOf(machines, rain)
    assert.deepEqual(
      decisions.map(({ channel, decision, reason, until }) => [channel, decision, reason, until]),
      [
        ['in_app', 'send', undefined, undefined],
        ['webhook', 'hold', 'quiet_hours', morning(7, 0).toISOString()],
      ],
    )

    // At one minute to seven the storm, which is critical, passes; the rain still waits.
    machines.sleepUntil(morning(6, 59))
    await publish(machines, 'weather.storm', 2)
    await eventually('the storm', () => received.length > 0)
    assert.deepEqual(
      received.map(({ i }) => i),
      ['2'],
    )

    machines.sleepUntil(morning(7, 0))
    await eventually('the rain', () => received.length > 1)
    await machines.settled()
    assert.deepEqual(
      received.map(({ i }) => i),
      ['2', '1'],
    )
    assert.deepEqual(await machines.audit(), [])
  })
})
