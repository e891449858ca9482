import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { JsonObject, Message } from '../../../types.ts'
import type { DeliveryError, Sent } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { deliverOne, NOW } from '../one-delivery.ts'
import { telegram } from './telegram.ts'

const TOKEN = '123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11'
const reply = (status: number, body: JsonObject): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ ok: status === 200, ...(status !== 200 && { error_code: status }), ...body }),
})
const bad = (description: string) => reply(400, { description: `Bad Request: ${description}` })

/** What Telegram shows of its HTML: bold text and three entities are all we use. */
const decode = (text: string): string =>
  text
    .replaceAll(/<\/?b>/g, '')
    .replaceAll('&lt;', '<')
    .replaceAll('&gt;', '>')
    .replaceAll('&amp;', '&')

/** Refuses what Telegram refuses. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (!path.startsWith(`/bot${TOKEN}/`)) return reply(401, { description: 'Unauthorized' })
  if (path.endsWith('/getMe')) return reply(200, { result: { id: 1, is_bot: true } })
  if (!path.endsWith('/sendMessage')) return reply(404, { description: 'Not Found' })
  if (method !== 'POST' || headers['content-type'] !== 'application/json') return bad('message text is empty')
  const { chat_id: chat, text, parse_mode: mode, reply_markup: markup } = JSON.parse(body) as JsonObject
  if (typeof chat !== 'number' && !/^@\w{4,32}$/.test(chat as string)) return bad('chat not found')
  if (mode !== 'HTML' || typeof text !== 'string') return bad('unsupported parse_mode')
  if (/<(?!\/?b>)|&(?!(?:lt|gt|amp);)/.test(text)) return bad("can't parse entities")
  if (decode(text).trim() === '') return bad('message text is empty')
  if (decode(text).length > 4_096) return bad('message is too long')
  for (const row of ((markup as JsonObject | undefined)?.inline_keyboard ?? []) as {
    text: string
    url: string
  }[][]) {
    for (const button of row)
      if (button.text === '' || !/^https?:/.test(button.url)) return bad('BUTTON_URL_INVALID')
  }
  return undefined
}
const vendorOf =
  (refuse = bad('chat not found')) =>
  () =>
    httpVendor({ accept: reply(200, { result: { message_id: 17, date: 1 } }), refuse }, reads, decode)
const settings = (vendor: Vendor): JsonObject => ({
  token: TOKEN,
  apiUrl: `http://${vendor.host}:${vendor.port}`,
  timeoutSeconds: 0.5,
})

testProvider(telegram, {
  vendor: vendorOf(),
  settings,
  message: () => exampleMessage({ channel: 'telegram', to: '-1001234567890' }),
  notApplicable: { 'idempotency key': 'the Bot API takes none' },
})

const deliver = (more: Partial<Message> = {}, own: JsonObject = {}, refuse?: HttpReply) =>
  deliverOne(
    telegram,
    vendorOf(refuse),
    vendor => ({ ...settings(vendor), timeoutSeconds: 10, ...own }),
    () => ({ to: '42', ...more }),
    refuse === undefined ? 'accept' : 'refuse',
  )

test('text is escaped, links become buttons, the picture its preview', async () => {
  const { outcome, bodies } = await deliver(
    {
      content: {
        subject: 'a < b',
        body: 'Look & <see>',
        image: 'https://example.org/graph.png',
        actions: [
          { id: 'd', label: 'Dashboard', url: 'https://example.org/d' },
          { id: 'x', label: 'Nowhere' },
        ],
        data: { message_thread_id: 7 },
      },
    },
    { silentBelowHigh: true },
  )
  assert.deepEqual(outcome, { outcome: 'delivered', code: '200', providerMessageId: '42/17' })
  assert.deepEqual(bodies, [
    {
      chat_id: 42,
      text: '<b>a &lt; b</b>\nLook &amp; &lt;see&gt;',
      parse_mode: 'HTML',
      disable_notification: true,
      message_thread_id: 7,
      link_preview_options: {
        url: 'https://example.org/graph.png',
        prefer_large_media: true,
        show_above_text: true,
      },
      reply_markup: { inline_keyboard: [[{ text: 'Dashboard', url: 'https://example.org/d' }]] },
    },
  ])
  const urgent = await deliver({ to: '@ops_alerts', priority: 'CRITICAL' }, { silentBelowHigh: true })
  assert.equal(urgent.bodies[0]!.disable_notification, undefined)
  assert.equal(urgent.bodies[0]!.chat_id, '@ops_alerts')
})

test('whatever the content, Telegram takes it', async () => {
  const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 300 }), fc.constant('<&> '.repeat(2_000)))
  const action = fc.record({ id: text, label: text, url: fc.webUrl() })
  const content = fc.record(
    { subject: text, body: text, actions: fc.array(action, { maxLength: 12 }) },
    { requiredKeys: ['body'] },
  )
  await fc.assert(
    fc.asyncProperty(content, async given => {
      const { outcome } = await deliver({ content: given })
      assert.equal((outcome as Sent).outcome, 'delivered', JSON.stringify(outcome))
    }),
    { numRuns: 40 },
  )
})

test("each of Telegram's answers has its meaning", async () => {
  const meaning = async (answer: HttpReply) => (await deliver({}, {}, answer)).outcome as DeliveryError
  for (const [answer, kind, code] of [
    [reply(403, { description: 'Forbidden: bot was blocked by the user' }), 'bounced', 'opted_out'],
    [reply(403, { description: 'Forbidden: user is deactivated' }), 'bounced', 'gone'],
    [reply(403, { description: 'Forbidden: bot was kicked from the group chat' }), 'bounced', 'opted_out'],
    [
      reply(403, { description: "Forbidden: bot can't initiate conversation with a user" }),
      'rejected',
      'forbidden',
    ],
    [bad('chat not found'), 'bounced', 'unknown_address'],
    [bad("can't parse entities"), 'permanent', 'content_refused'],
    [bad('message is too long'), 'permanent', 'too_large'],
    [reply(400, { description: 'x', parameters: { migrate_to_chat_id: -100 } }), 'bounced', 'gone'],
    [reply(401, { description: 'Unauthorized' }), 'temporary', 'auth'],
    [reply(500, {}), 'temporary', 'server_error'],
    [reply(200, { ok: false }), 'unknown', 'garbled_answer'],
  ] as const) {
    const { kind: actual, code: actualCode } = await meaning(answer)
    assert.deepEqual([answer.body, actual, actualCode], [answer.body, kind, code])
  }
  const limited = await meaning(
    reply(429, { description: 'Too Many Requests', parameters: { retry_after: 31 } }),
  )
  assert.equal(limited.until?.getTime(), NOW.getTime() + 31_000)
})

test('lanes tell chats apart, and show public channels only', () => {
  const lane = (to: string) => telegram.lane!(exampleMessage({ to }))
  assert.notEqual(lane('4242'), lane('4243'))
  assert.doesNotMatch(lane('4242424242'), /4242424242/)
  assert.equal(lane('@ops_alerts'), '@ops_alerts')
})

test('what names no chat goes to the default, nonsense nowhere', async () => {
  assert.equal(((await deliver({ to: '' }, { defaultChat: '7' })).bodies[0] as JsonObject).chat_id, 7)
  const { outcome, received } = await deliver({ to: '+41791234567' })
  assert.deepEqual([(outcome as DeliveryError).code, received.length], ['invalid_address', 0])
})
