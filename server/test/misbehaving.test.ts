import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { eventually, testApp } from './app.ts'
import type { TestApp } from './app.ts'

let app: TestApp
before(async () => {
  app = await testApp({ CARILLON_OUTBOUND_TIMEOUT_MS: '400' })
})
after(async () => {
  for (const close of closing) close()
  await app.stop()
})
const closing: (() => void)[] = []

const call = async (method: string, path: string, body?: unknown) => {
  const answer = await app.call(method, path, { as: app.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`)
  return answer.body
}

const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n'

/** A far end of raw sockets: `behave` decides what becomes of the nth request; the keys it saw are remembered. */
async function farEnd(
  behave: (socket: Socket, nth: number) => void,
): Promise<{ url: string; keys: string[] }> {
  const keys: string[] = []
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {})
    let text = ''
    socket.on('data', chunk => {
      text += chunk
      const head = text.indexOf('\r\n\r\n')
      const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? -1)
      if (head < 0 || Buffer.byteLength(text) < head + 4 + length) return
      keys.push(/webhook-id: (\S+)/i.exec(text)![1]!)
      text = ''
      behave(socket, keys.length)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  closing.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`, keys }
}

async function person(userId: string, webhook: string): Promise<void> {
  await call('PUT', `/api/users/${userId}`, {
    addresses: [
      { channel: 'webhook', address: webhook, verified: true },
      { channel: 'email', address: `${userId}@example.org`, verified: true },
    ],
  })
}

interface Delivery {
  channel: string
  status: string
  tries: { outcome: string; final: boolean; code: string; at: string }[]
  waitsFor: { reason: string } | null
}
const send = async (userId: string, more: object = {}): Promise<string> =>
  (
    await call('POST', '/api/notifications', {
      recipientId: userId,
      channels: ['webhook'],
      body: 'x',
      ...more,
    })
  ).id
const deliveries = async (id: string): Promise<Delivery[]> =>
  (await call('GET', `/api/notifications/${id}`)).deliveries
const ended = (id: string, channel = 'webhook') =>
  eventually(`the end of ${channel}`, async () => {
    const one = (await deliveries(id)).find(each => each.channel === channel)
    return one && !['in_flight', 'retrying', 'held', 'backlog'].includes(one.status) ? one : undefined
  })

// covers: ALP-104, DIC-119, PFM-182, PFM-186, PFM-189
test('each way of misbehaving ends as it should, under one idempotency key', async () => {
  const ways: Record<string, { behave: (socket: Socket, nth: number) => void; outcomes: string[] }> = {
    hangs: { behave: () => {}, outcomes: ['unknown', 'unknown', 'unknown'] },
    resets: { behave: socket => socket.resetAndDestroy(), outcomes: ['unknown', 'unknown', 'unknown'] },
    talks_garbage: {
      behave: socket => void socket.end('220 smtp.example.org ESMTP\r\n'),
      outcomes: ['unknown', 'unknown', 'unknown'],
    },
    always_fails: {
      behave: socket => void socket.write('HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n'),
      outcomes: ['failed', 'failed', 'failed'],
    },
    fails_once: {
      behave: (socket, nth) =>
        void socket.write(nth === 1 ? 'HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n' : OK),
      outcomes: ['failed', 'delivered'],
    },
    asks_to_wait: {
      behave: (socket, nth) =>
        void socket.write(nth === 1 ? 'HTTP/1.1 429 No\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n' : OK),
      outcomes: ['failed', 'delivered'],
    },
    refuses: {
      behave: socket => void socket.write('HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n'),
      outcomes: ['failed'],
    },
    is_slow: { behave: socket => void setTimeout(() => socket.write(OK), 250), outcomes: ['delivered'] },
  }
  await Promise.all(
    Object.entries(ways).map(async ([name, { behave, outcomes }]) => {
      const end = await farEnd(behave)
      await person(name, end.url)
      const id = await send(name)
      const delivery = await ended(id)
      assert.deepEqual(
        delivery.tries.map(one => one.outcome),
        outcomes,
        name,
      )
      assert.deepEqual(
        delivery.tries.map(one => one.final),
        outcomes.map((_, i) => i === outcomes.length - 1),
        name,
      )
      assert.equal(delivery.status, outcomes.at(-1), name)
      assert.equal(end.keys.length, outcomes.length, name)
      assert.deepEqual(new Set(end.keys), new Set([`${id}.webhook`]), name)
      if (name === 'asks_to_wait') {
        const [first, second] = delivery.tries.map(one => Date.parse(one.at))
        assert.ok(second! - first! >= 2000, 'before the time it asked for')
      }
    }),
  )
  assert.deepEqual(await auditLedger(app.db, {}), [])
})

test('an event may ask for its own number of tries', async () => {
  const end = await farEnd(socket => void socket.write('HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n'))
  await person('impatient', end.url)
  const { eventId } = await call('POST', '/api/events/publish', {
    type: 'TRADING',
    subtype: 'ORDER_FILLED',
    userId: 'impatient',
    channels: ['webhook'],
    maxRetries: 0,
    data: { text: 'x' },
  })
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
  const delivery = await ended(items[0].id)
  assert.deepEqual(
    delivery.tries.map(one => one.outcome),
    ['failed'],
  )
})

// covers: AUR-120, PFM-202
test('what failed for good is a dead letter, and goes out when it is redriven', async () => {
  let mended = false
  const end = await farEnd(
    socket => void socket.write(mended ? OK : 'HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n'),
  )
  await person('dead', end.url)
  const id = await send('dead')
  assert.equal((await ended(id)).status, 'failed')
  const letters = await call('GET', '/api/dead-letters?kind=delivery&limit=200')
  const letter = letters.items.find((one: { notificationId: string }) => one.notificationId === id)
  assert.ok(letter, 'it is not among the dead letters')
  mended = true
  await call('POST', `/api/dead-letters/${letter.id}/redrive`)
  await eventually('the redriven one', async () => (await deliveries(id))[0]!.status === 'delivered')
  assert.deepEqual(new Set(end.keys), new Set([`${id}.webhook`]))
  assert.deepEqual(await auditLedger(app.db, {}), [])
})

// covers: DIC-135, DIC-137, AUR-121
test('the fallback begins when nothing else arrived, and only then', async () => {
  const gone = await farEnd(socket => void socket.write('HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n'))
  const fine = await farEnd(socket => void socket.write(OK))
  await person('fallen', gone.url)
  await person('standing', fine.url)
  const [fallen, standing] = [
    await send('fallen', { fallbackChannels: ['email'] }),
    await send('standing', { fallbackChannels: ['email'] }),
  ]
  assert.equal((await ended(fallen, 'email')).status, 'sent')
  assert.equal((await ended(standing)).status, 'delivered')
  assert.deepEqual(
    (await deliveries(standing)).map(one => one.channel),
    ['webhook'],
  )
  assert.deepEqual(await auditLedger(app.db, {}), [])
})

// covers: DIC-134
test('a far end that keeps failing is left alone, and the operator hears of it once', async () => {
  const end = await farEnd(socket => void socket.write('HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n'))
  await person('broken', end.url)
  await call('PUT', '/api/users/operator', {})
  await call('POST', '/api/rules', {
    name: 'breakers',
    eventTypes: ['system.circuit_breaker.opened'],
    channels: ['in_app'],
    recipientSelector: { users: ['operator'] },
  })
  const ids: string[] = []
  for (let i = 0; i < 12; i++) ids.push(await send('broken'))
  const held = await eventually('what waits for the breaker', async () => {
    for (const id of ids) {
      const [one] = await deliveries(id)
      if (one!.waitsFor?.reason === 'breaker_open') return one
    }
    return undefined
  })
  assert.equal(held.status, 'held')
  const before = end.keys.length
  assert.ok(before < 12 * 3, 'every try went out')
  const feed = await eventually('the alert', async () => {
    const { items } = await call('GET', '/api/notifications/feed?userId=operator')
    return items.length > 0 ? (items as { eventType: string }[]) : undefined
  })
  assert.deepEqual(
    feed.map(item => item.eventType),
    ['system.circuit_breaker.opened'],
  )
  assert.deepEqual(await auditLedger(app.db, {}), [])
})

// covers: DIC-140
test('what is held can be cancelled; what is on its way or over cannot', async () => {
  const fine = await farEnd(socket => void socket.write(OK))
  await person('calm', fine.url)
  const held = await send('calm', { scheduledAt: new Date(Date.now() + 3_600_000).toISOString() })
  await call('POST', `/api/notifications/${held}/cancel`)
  assert.equal((await deliveries(held))[0]!.status, 'cancelled')
  const over = await send('calm')
  await ended(over)
  const late = await app.call('POST', `/api/notifications/${over}/cancel`, { as: app.tenant.adminKey })
  assert.equal(late.status, 409)
  assert.deepEqual(fine.keys, [`${over}.webhook`])
  assert.deepEqual(await auditLedger(app.db, {}), [])
})
