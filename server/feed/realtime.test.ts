import assert from 'node:assert/strict'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { type TestContext, after, before, test } from 'node:test'
import { Agent, fetch as fetchWith } from 'undici'
import { WebSocket } from 'ws'
import { type Fanout, notifyFanout } from './fanout.ts'
import { type FeedStore, feedStore } from './feed.ts'
import { type Envelope, type Hub, type HubOptions, createHub } from './hub.ts'
import { parseMessage, realtimeRoutes } from './realtime.ts'
import { feedRoutes } from './routes.ts'
import { type TestInbox, testInbox } from './test-inbox.ts'
import { auth as openAuth } from '../http/auth.ts'
import { buildServer } from '../http/server.ts'
import { type TestApi, testApi } from '../test/api.ts'

/** Two processes over one database, as far as anybody outside can tell: two servers, two hubs, NOTIFY between. */
interface Process {
  url: string
  hub: Hub
  close(): Promise<void>
}

let t: TestApi
let inbox: TestInbox
let feed: FeedStore
let first: Process
let second: Process
let people = 0
/** An aborted request leaves its client a fresh connection without a request, which a closing server waits for. */
const agent = new Agent()
const fetch = (url: string, init: Parameters<typeof fetchWith>[1] = {}) =>
  fetchWith(url, { ...init, dispatcher: agent })

before(async () => {
  // The fan-out opens a connection of its own, so it comes once the database is there.
  const late: { fanout?: Fanout } = {}
  let wake: Parameters<Fanout['onWake']>[0] = () => {}
  let hub: Hub | undefined
  t = await testApi({
    routes: [
      (api, { db, sealer, auth }) => {
        feed = feedStore(db, sealer)
        hub = hubOver({
          fanout: {
            publish: hints => late.fanout?.publish(hints),
            onWake: given => void (wake = given),
            close: async () => {},
          },
        })
        feedRoutes(api, { feed, hub })
        realtimeRoutes(api, { db, auth, feed, hub })
      },
    ],
  })
  inbox = testInbox(t.db, t.sealer)
  late.fanout = await notifyFanout(t.db)
  late.fanout.onWake(hints => wake(hints))
  await t.api.listen({ port: 0, host: '127.0.0.1' })
  first = { url: addressOf(t.api.server), hub: hub!, close: () => late.fanout!.close() }
  second = await secondProcess()
})
after(async () => {
  await agent.destroy()
  await second.close()
  await first.close()
  await t.close()
})

const addressOf = (server: { address(): unknown }) =>
  `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const hubOver = (options: Partial<HubOptions> = {}): Hub =>
  createHub({
    catchUp: (waiting, limit) => feed.catchUp(waiting, limit),
    heads: whom => feed.heads(whom),
    ...options,
  })

async function secondProcess(options: Partial<HubOptions> = {}): Promise<Process> {
  const fanout = await notifyFanout(t.db)
  const hub = hubOver({ fanout, ...options })
  const auth = openAuth({ db: t.db })
  const api = await buildServer({ auth, version: '0', limits: false })
  realtimeRoutes(api, { db: t.db, auth, feed, hub })
  await api.listen({ port: 0, host: '127.0.0.1' })
  return {
    url: addressOf(api.server),
    hub,
    async close() {
      await api.close()
      await fanout.close()
    },
  }
}

async function until(what: string, condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!condition()) {
    assert.ok(Date.now() < deadline, `never came: ${what}`)
    await pause(2)
  }
}

async function someone(): Promise<string> {
  const userId = `person-${++people}`
  await inbox.person(t.tenant.id, userId)
  return userId
}
const add = (userId: string, n = 1) =>
  inbox.add(
    t.tenant.id,
    Array.from({ length: n }, () => userId),
  )

interface Client {
  got: Envelope[]
  socket: WebSocket
  closed: Promise<number>
}
async function connect(
  c: TestContext,
  process: Process,
  query: string,
  options: { as?: string; protocols?: string[] } = {},
): Promise<Client> {
  const headers = options.as === undefined ? {} : { authorization: `Bearer ${options.as}` }
  const socket = new WebSocket(
    `${process.url.replace('http', 'ws')}/realtime${query}`,
    options.protocols ?? [],
    { headers },
  )
  c.after(() => socket.terminate())
  const got: Envelope[] = []
  socket.on('message', data => void got.push(JSON.parse((data as Buffer).toString()) as Envelope))
  const closed = once(socket, 'close').then(([code]) => code as number)
  closed.catch(() => {})
  await once(socket, 'open')
  return { got, socket, closed }
}

const numbered = (got: readonly Envelope[]) =>
  got.filter(({ type }) => type === 'notification' || type === 'change').map(({ seq }) => seq)
const upTo = (n: number) => Array.from({ length: n }, (_, at) => at + 1)

/** Reads server-sent events until told to stop. */
function events(c: TestContext, process: Process, query: string, headers: Record<string, string>) {
  const abort = new AbortController()
  c.after(() => abort.abort())
  const got: (Envelope & { id: string })[] = []
  let ended = false
  const opened = (async () => {
    const response = await fetch(`${process.url}/realtime${query}`, { headers, signal: abort.signal })
    if (response.status !== 200) return response.status
    assert.match(response.headers.get('content-type')!, /^text\/event-stream/)
    void (async () => {
      let text = ''
      const decoder = new TextDecoder()
      try {
        for await (const chunk of response.body!) {
          text += decoder.decode(chunk as Uint8Array, { stream: true })
          const parts = text.split('\n\n')
          text = parts.pop()!
          for (const part of parts) {
            const id = /^id: (.*)$/m.exec(part)?.[1]
            const data = /^data: (.*)$/m.exec(part)?.[1]
            if (data !== undefined) got.push({ ...(JSON.parse(data) as Envelope), id: id! })
          }
        }
      } catch {}
      ended = true
    })()
    return 200
  })()
  return { got, opened, stop: () => abort.abort(), ended: () => ended }
}

// covers: AUR-136, DIC-122, DIC-123, AUR-132
test('one envelope by WebSocket, server-sent events and long poll, to its reader alone', async c => {
  const [ann, ben] = [await someone(), await someone()]
  const as = await t.tenant.token(ann)
  const socket = await connect(c, first, '?after=0', { as })
  const stream = events(c, first, '?after=0', { authorization: `Bearer ${as}` })
  const foreign = await connect(c, first, '?after=0', { as: await t.tenant.token(ben) })
  const namesake = await connect(c, first, '?after=0', { as: await t.other.token(ann) })
  assert.equal(await stream.opened, 200)
  await until('all settled', () => [socket, foreign, namesake, stream].every(({ got }) => got.length > 0))
  const polled = t.request('GET', '/realtime/poll?after=0&timeout=20', { as })
  await until('the poll', () => first.hub.stats().connections === 5)

  const [item] = await add(ann)
  first.hub.publish([item!])
  await until('both', () => numbered(socket.got).length === 1 && numbered(stream.got).length === 1)
  const expected = { seq: 1, type: 'notification', at: item!.at.toISOString(), data: item!.data }
  assert.deepEqual(
    socket.got.find(({ seq }) => seq === 1),
    expected,
  )
  assert.deepEqual(
    stream.got.find(({ seq }) => seq === 1),
    { ...expected, id: '1' },
  )
  const { envelopes, after } = (await polled).json<{ envelopes: Envelope[]; after: number }>()
  assert.deepEqual([envelopes[0], after], [expected, 1])
  assert.deepEqual([numbered(foreign.got), numbered(namesake.got)], [[], []])
})

// covers: AUR-135
test('what is read on one device shows on the others, and may be said through the socket', async c => {
  const ann = await someone()
  const as = await t.tenant.token(ann)
  const [one, two] = await add(ann, 2)
  const [phone, desk] = [
    await connect(c, first, '?after=2', { as }),
    await connect(c, first, '?after=2', { as }),
  ]
  await until('settled', () => phone.got.length > 0 && desk.got.length > 0)
  await t.request('PATCH', `/api/notifications/${one!.id}/read`, { as })
  phone.socket.send(JSON.stringify({ type: 'read', ids: [two!.id] }))
  phone.socket.send(JSON.stringify({ type: 'ack', seq: 2 }))
  for (const { got } of [phone, desk]) {
    await until('both changes', () => numbered(got).length === 2)
    const changes = got.filter(({ type }) => type === 'change')
    assert.deepEqual(
      changes.map(({ seq, data }) => [seq, (data as { id: string }).id, (data as { change: string }).change]),
      [
        [3, one!.id, 'read'],
        [4, two!.id, 'read'],
      ],
    )
    await until('the badge', () => got.some(({ type, seq }) => type === 'counts' && seq === 4))
    assert.deepEqual(got.findLast(({ type }) => type === 'counts')!.data, { unseen: 0, unread: 0 })
  }
})

test('resuming after forced reconnects, on either process, by any transport: no gap and no duplicate', async c => {
  const users = [await someone(), await someone(), await someone()]
  const heads = new Map(users.map(user => [user, 0]))
  const serviceKey = t.tenant.serviceKey
  const start = Number(process.env.SEED ?? Date.now() % 2147483646)
  c.diagnostic(`SEED=${start} repeats this order`)
  let seed = start + 1
  const random = (below: number) => (seed = (seed * 48271) % 2147483647) % below
  let writing = true
  const writer = async (own: Process) => {
    for (let round = 0; round < 30; round++) {
      const items = await inbox.add(
        t.tenant.id,
        Array.from({ length: 1 + random(8) }, () => users[random(3)]!),
      )
      for (const { userId, seq } of items) heads.set(userId, Math.max(seq, heads.get(userId)!))
      own.hub.publish(items)
    }
  }
  const reader = async (user: string) => {
    const seqs: number[] = []
    let after = 0
    const deadline = Date.now() + 30_000
    while (writing || after < heads.get(user)!) {
      assert.ok(Date.now() < deadline)
      const own = random(2) ? first : second
      const want = 1 + random(10)
      const transport = random(3)
      if (transport === 0) {
        const response = await fetch(`${own.url}/realtime/poll?after=${after}&timeout=1&userId=${user}`, {
          headers: { authorization: `Bearer ${serviceKey}` },
        })
        seqs.push(...numbered(((await response.json()) as { envelopes: Envelope[] }).envelopes))
      } else {
        const enough = (got: Envelope[]) =>
          numbered(got).length >= want || (!writing && after + numbered(got).length >= heads.get(user)!)
        if (transport === 1) {
          const client = await connect(c, own, `?after=${after}&userId=${user}`, { as: serviceKey })
          await until('some', () => enough(client.got))
          client.socket.terminate()
          await client.closed
          seqs.push(...numbered(client.got))
        } else {
          const stream = events(c, own, `?userId=${user}`, {
            authorization: `Bearer ${serviceKey}`,
            'last-event-id': String(after),
          })
          assert.equal(await stream.opened, 200)
          await until('some', () => enough(stream.got))
          stream.stop()
          await until('the end', stream.ended)
          seqs.push(...numbered(stream.got))
        }
      }
      after = seqs.at(-1) ?? 0
    }
    return seqs
  }
  const reading = users.flatMap(user => [reader(user), reader(user)])
  await Promise.all([writer(first), writer(second), writer(first), writer(second)])
  writing = false
  for (const [at, seqs] of (await Promise.all(reading)).entries()) {
    assert.deepEqual(seqs, upTo(heads.get(users[Math.floor(at / 2)]!)!))
  }
})

test('what one process commits shows at the other, also after its listener was killed', async c => {
  const ann = await someone()
  const client = await connect(c, second, `?after=0&userId=${ann}`, { as: t.tenant.serviceKey })
  await until('settled', () => client.got.length > 0)
  first.hub.publish(await add(ann))
  await until('the first', () => numbered(client.got).length === 1)

  await t.db.pool.query(
    `select pg_terminate_backend(pid) from pg_stat_activity
     where application_name = 'carillon feed' and datname = current_database()`,
  )
  // Said while nobody listens: looked up when the listener is back.
  first.hub.publish(await add(ann))
  await until('the second', () => numbered(client.got).length === 2)
  assert.deepEqual(numbered(client.got), [1, 2])
})

test('a ticket opens one stream, once, on any process, for its person only', async c => {
  const ann = await someone()
  const as = await t.tenant.token(ann)
  const ticket = async (path = '', credentials = as) => {
    const response = await t.request('POST', `/realtime/ticket${path}`, { as: credentials })
    assert.equal(response.statusCode, 201, response.body)
    return response.json<{ ticket: string }>().ticket
  }
  const [item] = await add(ann)

  const byQuery = await ticket()
  const client = await connect(c, second, `?after=0&ticket=${byQuery}`)
  await until('the item', () => numbered(client.got).length === 1)
  await assert.rejects(connect(c, first, `?after=0&ticket=${byQuery}`), /401/)

  const byProtocol = await connect(c, first, '', {
    protocols: ['carillon.v1', `carillon.ticket.${await ticket()}`],
  })
  assert.equal(byProtocol.socket.protocol, 'carillon.v1')
  byProtocol.socket.send(JSON.stringify({ type: 'seen', ids: [item!.id] }))
  await until('the mark', () => numbered(client.got).length === 2)

  const stream = events(c, first, `?after=0&ticket=${await ticket()}`, {})
  assert.equal(await stream.opened, 200)
  await until('the items', () => numbered(stream.got).length === 2)

  const ben = await someone()
  await assert.rejects(connect(c, first, `?userId=${ben}&ticket=${await ticket()}`), /403/)
  await assert.rejects(connect(c, first, `?ticket=${t.other.id}.${'a'.repeat(32)}`), /401/)
  const old = await ticket()
  await t.db.pool.query(`update realtime_tickets set expires_at = now() - interval '1 second'`)
  await assert.rejects(connect(c, first, `?ticket=${old}`), /401/)

  // A key that may only read gives no ticket that may mark.
  const reading = await t.tenant.scopedKey('service', ['notifications:read'])
  const weak = await connect(c, first, `?ticket=${await ticket(`?userId=${ann}`, reading)}`)
  weak.socket.send(JSON.stringify({ type: 'read', ids: [item!.id] }))
  assert.equal(await weak.closed, 1008)
})

// covers: AUR-132
test('foreign inboxes, missing and wrong credentials are refused before the upgrade', async c => {
  const [ann, ben] = [await someone(), await someone()]
  const as = await t.tenant.token(ann)
  const keyless = await t.tenant.scopedKey('service', ['rules:read'])
  await assert.rejects(connect(c, first, ''), /401/)
  await assert.rejects(connect(c, first, '', { as: 'nonsense' }), /401/)
  await assert.rejects(connect(c, first, `?userId=${ben}`, { as }), /403/)
  await assert.rejects(connect(c, first, `?userId=${ann}`, { as: keyless }), /403/)
  await assert.rejects(connect(c, first, '', { as: t.tenant.serviceKey }), /400/)
  await assert.rejects(connect(c, first, '?after=-1', { as }), /400/)
  assert.equal(await events(c, first, `?userId=${ben}`, { authorization: `Bearer ${as}` }).opened, 403)
  const bad = events(c, first, '', { authorization: `Bearer ${as}`, 'last-event-id': 'x' })
  assert.equal(await bad.opened, 400)
  const byToken = await connect(c, first, `?access_token=${as}`)
  await until('settled', () => byToken.got.length > 0)
  const poll = await t.request('GET', `/realtime/poll?userId=${ben}`, { as })
  assert.equal(poll.statusCode, 403)
})

test('a client that sends what it should not is disconnected, others stay', async c => {
  const as = await t.tenant.token(await someone())
  const good = await connect(c, first, '', { as })
  const send = async (data: string | Buffer) => {
    const client = await connect(c, first, '', { as })
    client.socket.send(data)
    return client.closed
  }
  assert.equal(await send('{'), 1008)
  assert.equal(await send('{"type":"archive","ids":[]}'), 1008)
  assert.equal(await send(Buffer.from([1, 2, 3])), 1008)
  assert.ok([1006, 1009].includes(await send('x'.repeat(5000))))
  const flood = await connect(c, first, '', { as })
  for (let n = 0; n < 101; n++) flood.socket.send('{"type":"ping"}')
  assert.equal(await flood.closed, 1008)
  good.socket.send('{"type":"ping"}')
  await until('the answer', () => good.got.some(({ type }) => type === 'ping'))
})

test('only the four messages are understood, in their exact shape', () => {
  const id = '0197a000-0000-7000-8000-000000000000'
  for (const good of [
    { type: 'ping' },
    { type: 'ack', seq: 0 },
    { type: 'read', ids: [id] },
    { type: 'seen', ids: [id] },
  ]) {
    assert.deepEqual(parseMessage(JSON.stringify(good)), good)
  }
  const bad = [
    '',
    '1',
    'null',
    '[]',
    '{}',
    '{"type":"ping","a":1}',
    '{"type":"ack"}',
    '{"type":"ack","seq":-1}',
    '{"type":"ack","seq":1.5}',
    '{"type":"read"}',
    '{"type":"read","ids":[]}',
    '{"type":"read","ids":["x"]}',
    '{"type":"read","ids":[1]}',
    JSON.stringify({ type: 'read', ids: Array.from({ length: 201 }, () => id) }),
    JSON.stringify({ type: 'read', ids: [id], userId: 'b' }),
  ]
  for (const text of bad) assert.equal(parseMessage(text), undefined, text)
})

test('a client that stops reading costs a bounded amount and catches up when it reads again', async c => {
  const ann = await someone()
  const slow = await connect(c, first, `?after=0&userId=${ann}`, { as: t.tenant.serviceKey })
  const quick = await connect(c, second, `?after=0&userId=${ann}`, { as: t.tenant.serviceKey })
  await until('settled', () => slow.got.length > 0 && quick.got.length > 0)
  slow.socket.pause()
  const body = 'x'.repeat(100_000)
  // Far more than the kernel's buffers and ours hold together.
  for (let n = 0; n < 15; n++) {
    first.hub.publish(
      await inbox.add(
        t.tenant.id,
        Array.from({ length: 10 }, () => ann),
        { content: { body } },
      ),
    )
  }
  await until('the quick one', () => numbered(quick.got).length === 150)
  assert.ok(numbered(slow.got).length < 150)
  const before = first.hub.stats()
  assert.ok(before.fromMemory + before.fromDatabase > 0)
  slow.socket.resume()
  await until('the slow one', () => numbered(slow.got).length === 150)
  assert.deepEqual(numbered(slow.got), upTo(150))
  assert.ok(first.hub.stats().fromDatabase > before.fromDatabase, 'the rest was read, not held in memory')
})

test('a process that stops says so to every client', async c => {
  const third = await secondProcess()
  const ann = await someone()
  const client = await connect(c, third, `?userId=${ann}`, { as: t.tenant.serviceKey })
  const stream = events(c, third, `?userId=${ann}`, { authorization: `Bearer ${t.tenant.serviceKey}` })
  assert.equal(await stream.opened, 200)
  const poll = fetch(`${third.url}/realtime/poll?after=0&timeout=60&userId=${ann}`, {
    headers: { authorization: `Bearer ${t.tenant.serviceKey}` },
  })
  await until('all there', () => third.hub.stats().connections === 3)
  await third.close()
  assert.equal(await client.closed, 1012)
  await until('the end of events', stream.ended)
  const { envelopes } = (await (await poll).json()) as { envelopes: Envelope[] }
  assert.deepEqual(numbered(envelopes), [])
})

test('a twenty-first stream of one person is refused', async c => {
  const ann = await someone()
  const as = await t.tenant.token(ann)
  const clients = []
  for (let n = 0; n < 20; n++) clients.push(await connect(c, first, '', { as }))
  const more = await connect(c, first, '', { as })
  assert.equal(await more.closed, 1013)
  assert.equal(await events(c, first, '', { authorization: `Bearer ${as}` }).opened, 429)
  clients[0]!.socket.close()
  await clients[0]!.closed
  await until('room', () => first.hub.stats().connections < 20)
  assert.equal(await events(c, first, '', { authorization: `Bearer ${as}` }).opened, 200)
})
