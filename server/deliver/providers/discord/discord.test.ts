import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { Content, JsonObject, Message } from '../../../types.ts'
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
import { discord } from './discord.ts'

const PATH = '/api/webhooks/1156588479912874087/example-token'
const json = (status: number, body: unknown, headers: Record<string, string> = {}): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json', ...headers },
  body: JSON.stringify(body),
})
const formError = json(400, { code: 50035, message: 'Invalid Form Body' })

/** Refuses what Discord refuses (https://docs.discord.com/developers/resources/webhook#execute-webhook). */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  const url = new URL(path, 'https://discord.com')
  if (url.pathname !== PATH) return json(404, { code: 10015, message: 'Unknown Webhook' })
  if (method !== 'POST' || headers['content-type'] !== 'application/json') return json(400, { code: 50109 })
  if (url.searchParams.get('wait') !== 'true') return { status: 204 }
  const { embeds, allowed_mentions: mentions } = JSON.parse(body) as JsonObject
  if (!Array.isArray(embeds) || embeds.length > 10 || (mentions as JsonObject).parse === undefined)
    return formError
  let total = 0
  const fits = (text: unknown, max: number): boolean => {
    if (typeof text !== 'string' || text.trim() === '' || text.length > max) return false
    total += text.length
    return true
  }
  for (const { title, description, fields = [], url: link } of embeds as JsonObject[]) {
    if (title === undefined && description === undefined) return json(400, { code: 50006 })
    if (title !== undefined && !fits(title, 256)) return formError
    if (description !== undefined && !fits(description, 4_096)) return formError
    if (link !== undefined && !/^https?:/.test(link as string)) return formError
    if ((fields as JsonObject[]).length > 25) return formError
    for (const { name, value } of fields as JsonObject[])
      if (!fits(name, 256) || !fits(value, 1_024)) return formError
  }
  return total > 6_000 ? formError : undefined
}
const vendorOf =
  (refuse = formError) =>
  () =>
    httpVendor({ accept: json(200, { id: '1310000000000000001', type: 0 }), refuse }, reads)
const urlOf = (vendor: Vendor) => `http://${vendor.host}:${vendor.port}${PATH}`

testProvider(discord, {
  vendor: vendorOf(),
  settings: () => ({ timeoutSeconds: 0.5 }),
  message: vendor => exampleMessage({ channel: 'discord', to: urlOf(vendor) }),
  notApplicable: { 'idempotency key': 'a webhook of Discord takes none' },
})

const deliver = (more: Partial<Message> = {}, settings: JsonObject = {}, refuse?: HttpReply) =>
  deliverOne(
    discord,
    vendorOf(refuse),
    () => settings,
    vendor => ({ to: urlOf(vendor), ...more }),
    refuse === undefined ? 'accept' : 'refuse',
  )

test('one embed says it all, and notifies nobody by itself', async () => {
  const { outcome, bodies, received } = await deliver(
    {
      priority: 'CRITICAL',
      content: {
        subject: 'Pool exhausted',
        body: '@everyone look',
        image: 'https://example.org/graph.png',
        actions: [
          { id: 'd', label: 'Dashboard', url: 'https://example.org/d' },
          { id: 'x', label: 'Nowhere' },
        ],
        data: { fields: { Service: 'db', Waiting: 17, nested: {} }, thread_id: '42' },
      },
    },
    { username: 'Carillon' },
  )
  assert.deepEqual(outcome, { outcome: 'delivered', code: '200', providerMessageId: '1310000000000000001' })
  assert.equal(received[0]!.to[0], `${PATH}?wait=true&thread_id=42`)
  assert.deepEqual(bodies, [
    {
      embeds: [
        {
          color: 0xc0392b,
          timestamp: '2026-11-21T11:59:59.000Z',
          title: 'Pool exhausted',
          description: '@everyone look',
          url: 'https://example.org/d',
          fields: [
            { name: 'Service', value: 'db', inline: true },
            { name: 'Waiting', value: '17', inline: true },
            { name: 'Dashboard', value: 'https://example.org/d', inline: false },
          ],
          image: { url: 'https://example.org/graph.png' },
        },
      ],
      allowed_mentions: { parse: [] },
      username: 'Carillon',
    },
  ])
})

test('whatever the content, Discord takes it', async () => {
  const text = fc.oneof(fc.string({ unit: 'binary', maxLength: 300 }), fc.constant('long '.repeat(1_000)))
  const content = fc.record(
    {
      subject: text,
      body: text,
      data: fc.record({ fields: fc.oneof(fc.dictionary(text, text, { maxKeys: 30 }), fc.jsonValue()) }),
      actions: fc.array(fc.record({ id: text, label: text, url: fc.webUrl() }), { maxLength: 30 }),
    },
    { requiredKeys: ['body'] },
  )
  await fc.assert(
    fc.asyncProperty(content, async given => {
      const { outcome } = await deliver({ content: given as Content })
      assert.equal((outcome as Sent).outcome, 'delivered', JSON.stringify(outcome))
    }),
    { numRuns: 40 },
  )
})

test("each of Discord's answers has its meaning", async () => {
  const meaning = async (reply: HttpReply) => (await deliver({}, {}, reply)).outcome as DeliveryError
  for (const [reply, kind, code, vendorCode] of [
    [json(404, { code: 10015 }), 'bounced', 'gone', '10015'],
    [json(401, { code: 50027 }), 'bounced', 'unknown_address', '50027'],
    [json(403, { code: 50013 }), 'rejected', 'forbidden', '50013'],
    [formError, 'permanent', 'content_refused', '50035'],
    [json(401, {}), 'bounced', 'unknown_address', '401'],
    [json(500, {}), 'temporary', 'server_error', '500'],
  ] as const) {
    const { kind: actual, code: actualCode, vendorCode: actualVendor } = await meaning(reply)
    assert.deepEqual([actual, actualCode, actualVendor], [kind, code, vendorCode])
  }
  const exact = await meaning(json(429, { retry_after: 1.5, global: false }, { 'retry-after': '2' }))
  assert.equal(exact.until?.getTime(), NOW.getTime() + 1_500)
  assert.equal((await meaning(json(429, {}, { 'retry-after': '2' }))).until?.getTime(), NOW.getTime() + 2_000)
  assert.equal((await meaning(json(200, {}))).kind, 'unknown')
})

test('what is no URL goes to the URL that is set', async () => {
  const { outcome } = await deliverOne(
    discord,
    vendorOf(),
    vendor => ({ url: urlOf(vendor) }),
    () => ({ to: 'ops' }),
  )
  assert.equal((outcome as Sent).outcome, 'delivered')
  assert.equal(((await deliver({ to: 'ops' })).outcome as DeliveryError).code, 'invalid_address')
})
