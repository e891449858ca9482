import assert from 'node:assert/strict'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { auditLedger } from '../ledger/audit.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'
import type { OpenedProvider } from './open-provider.ts'
import { exampleMessage } from './providers/conformance.ts'
import { stateful } from './stateful.ts'

/** A door opens and closes, and one message in Slack says how it stands. */
const TOKEN = 'xoxb-000-example'
let t: TestApp
let dir: string
/** What the channel shows, by timestamp. */
const shown = new Map<string, string>()
const calls: string[] = []
/** Of messages in a thread: what they say, and under which one. */
const under: [text: string, first: string][] = []
let stamps = 0

/** Slack's side: https://docs.slack.dev/reference/methods/chat.postMessage, chat.update and chat.delete. */
const slack = createServer((request, response) => {
  let text = ''
  request
    .setEncoding('utf8')
    .on('data', (chunk: string) => (text += chunk))
    .on('end', () => {
      const method = request.url!.split('/').at(-1)!
      const body: Loose = JSON.parse(text || '{}')
      calls.push(method)
      const answer = (ok: boolean, more: object) => {
        response.setHeader('content-type', 'application/json; charset=utf-8')
        response.end(JSON.stringify({ ok, ...more }))
      }
      if (request.headers.authorization !== `Bearer ${TOKEN}`) return answer(false, { error: 'invalid_auth' })
      if (body.channel !== 'C024BE91L') return answer(false, { error: 'channel_not_found' })
      if (method === 'chat.postMessage') {
        if (body.thread_ts !== undefined) {
          if (!shown.has(body.thread_ts)) return answer(false, { error: 'thread_not_found' })
          under.push([body.text, body.thread_ts])
        }
        const ts = `1503435956.${String(++stamps).padStart(6, '0')}`
        shown.set(ts, body.text)
        return answer(true, { channel: body.channel, ts })
      }
      if (!shown.has(body.ts)) return answer(false, { error: 'message_not_found' })
      if (method === 'chat.update') shown.set(body.ts, body.text)
      else shown.delete(body.ts)
      return answer(true, { channel: body.channel, ts: body.ts })
    })
})

before(async () => {
  await new Promise<void>(resolve => slack.listen(0, '127.0.0.1', resolve))
  dir = await mkdtemp(join(tmpdir(), 'carillon-stateful-'))
  const file = join(dir, 'providers.yaml')
  process.env.STATEFUL_TEST_TOKEN = TOKEN
  await writeFile(
    file,
    `- provider: slack-bot
  settings:
    token: \${STATEFUL_TEST_TOKEN}
    apiUrl: http://127.0.0.1:${(slack.address() as AddressInfo).port}/api
`,
  )
  t = await testApp({ CARILLON_PROVIDERS_FILE: file })
})
after(async () => {
  await t.stop()
  slack.closeAllConnections()
  await new Promise(resolve => slack.close(resolve))
  await rm(dir, { recursive: true, force: true })
})

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const rule = (name: string, earlier: string): Promise<Loose> =>
  call('POST', '/api/rules', {
    name,
    eventTypes: [name],
    channels: ['slack'],
    recipientSelector: { targets: { slack: ['C024BE91L'] } },
    policy: { state: { key: ['event.data.door'], resolved: 'event.data.open == false', earlier } },
  })
async function says(type: string, door: string, open: boolean): Promise<string> {
  const { eventId } = await call('POST', '/api/events/publish', {
    type,
    data: { door, open, title: `${door} is ${open ? 'open' : 'closed'}` },
  })
  const { items } = await call('GET', `/api/notifications?eventId=${eventId}`)
  await eventually('the message', async () => {
    const { deliveries } = await call('GET', `/api/notifications/${items[0].id}`)
    assert.ok(
      ['in_flight', 'backlog', 'held', 'delivered'].includes(deliveries[0].status),
      deliveries[0].code,
    )
    return deliveries[0].status === 'delivered'
  })
  return items[0].id
}
const texts = () => [...shown.values()]

test('the next word about a thing changes the message that told of it; another thing has its own', async () => {
  await rule('doors', 'update')
  await says('doors', 'North gate', true)
  await says('doors', 'South gate', true)
  assert.equal(shown.size, 2)
  const closed = await says('doors', 'North gate', false)
  assert.deepEqual(calls, ['chat.postMessage', 'chat.postMessage', 'chat.update'])
  assert.match(texts()[0]!, /North gate is closed/)
  assert.match(texts()[1]!, /South gate is open/)

  // Somebody removed it in Slack: then it is told anew.
  shown.delete([...shown.keys()][0]!)
  await says('doors', 'North gate', true)
  assert.equal(shown.size, 2)
  assert.match(texts()[1]!, /North gate is open/)

  // What a notification said is taken back where it stands; what is gone may be taken back again.
  const last = await says('doors', 'North gate', false)
  const first = await call('POST', `/api/notifications/${last}/retract`)
  assert.deepEqual(first.takenBack, ['slack'])
  assert.equal(shown.size, 1)
  assert.deepEqual((await call('POST', `/api/notifications/${last}/retract`)).takenBack, ['slack'])
  assert.notEqual(closed, last)
})

test('with retract the earlier one goes and the new one comes as new; with keep both stay', async () => {
  shown.clear()
  await rule('lights', 'retract')
  await says('lights', 'Hall', true)
  const [earlier] = shown.keys()
  await says('lights', 'Hall', false)
  assert.equal(shown.size, 1)
  assert.notEqual([...shown.keys()][0], earlier)

  await rule('taps', 'keep')
  await says('taps', 'Kitchen', true)
  await says('taps', 'Kitchen', false)
  assert.equal(shown.size, 3)
  assert.deepEqual(await auditLedger(t.db), [])
})

test('messages of a thread go under its first one; where that is gone another thread begins', async () => {
  shown.clear()
  const say = async (thread: string, body: string) => {
    const { id } = await call('POST', '/api/notifications', {
      recipientType: 'system',
      address: 'C024BE91L',
      channels: ['slack'],
      body,
      thread,
    })
    await eventually(body, async () => {
      const { deliveries } = await call('GET', `/api/notifications/${id}`)
      return deliveries[0].status === 'delivered'
    })
    return [...shown.keys()].at(-1)!
  }
  const first = await say('order:1', 'Packed')
  const other = await say('order:2', 'Packed as well')
  await say('order:1', 'On its way')
  await say('order:1', 'Arrived')
  assert.deepEqual(
    under.map(([text, ts]) => [/On its way|Arrived/.exec(text)?.[0], ts]),
    [
      ['On its way', first],
      ['Arrived', first],
    ],
  )
  shown.delete(first)
  const second = await say('order:1', 'Sent back')
  await say('order:1', 'Refunded')
  await say('order:2', 'Lost')
  assert.deepEqual(
    under.slice(2).map(([, ts]) => ts),
    [second, other],
  )
})

test('an older word that comes late does not undo a newer one', async () => {
  const { rows } = await t.db.pool.query('select count(*)::int as n from channel_messages')
  assert.ok(rows[0].n >= 2)
  await says('doors', 'West gate', true)
  // Somebody told of it since, with a notification that was made later.
  await t.db.pool.query(
    `update channel_messages set notification_id = 'ffffffff-ffff-7fff-bfff-ffffffffffff' where key like '%West gate%'`,
  )
  const before = texts()
  const asked = calls.length
  await says('doors', 'West gate', false)
  assert.deepEqual(texts(), before)
  assert.equal(calls.length, asked)
})

test('the first of a thread that died before it was settled is not put under itself', async () => {
  const said: string[] = []
  const provider: OpenedProvider = {
    id: 'chat',
    channel: 'slack',
    limits: {},
    mayRepeat: false,
    accepts: () => true,
    lane: () => 'chat',
    group: () => undefined,
    async send({ notificationId }) {
      said.push(notificationId)
      return { outcome: 'delivered', providerMessageId: `message ${said.length}` }
    },
    async reply({ notificationId }, firstId) {
      said.push(`${notificationId} under ${firstId}`)
      return { outcome: 'delivered', providerMessageId: `message ${said.length}` }
    },
    sendMany: async () => [],
    callback: async () => ({ receipts: [] }),
    check: async () => {},
    close: async () => {},
  }
  const chat = stateful(provider, {
    db: t.db,
    now: () => new Date(),
    onError: error => assert.fail(error as Error),
  })
  const signal = AbortSignal.timeout(60_000)
  const first = exampleMessage({ channel: 'slack', thread: 'order:died' })
  const next = { ...first, notificationId: first.notificationId.replace(/.$/, 'f') }
  await chat.send(first, signal)
  // Another process has it again, and cannot know more.
  const again = await chat.send({ ...first, attempt: 1 }, signal)
  assert.deepEqual([again.outcome, again.providerMessageId], ['sent', 'message 1'])
  await chat.send(next, signal)
  assert.deepEqual(said, [first.notificationId, `${next.notificationId} under message 1`])
})
