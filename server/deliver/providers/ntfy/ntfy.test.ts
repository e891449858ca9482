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
import { ntfy } from './ntfy.ts'

const TOKEN = 'tk_AgQdq7mVBoFD37zQVN29RhuMzNIz2'
const refused = (code: number): HttpReply => ({
  status: Number(String(code).slice(0, 3)),
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ code, http: Number(String(code).slice(0, 3)), error: 'in words' }),
})

/** Refuses what the server refuses, by its own codes. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (path === '/v1/health') return { status: 200, body: '{"healthy":true}' }
  if (path !== '/' && path !== '/own/') return refused(40401)
  if (method !== 'POST') return refused(40401)
  if (path === '/' && headers.authorization !== `Bearer ${TOKEN}`) return refused(40101)
  if (path === '/own/' && headers.authorization !== undefined) return refused(40101)
  const { topic, message, title, priority, actions = [], tags = [], click } = JSON.parse(body) as JsonObject
  if (!/^[-_A-Za-z0-9]{1,64}$/.test(topic as string)) return refused(40009)
  // Longer ones become attachments.
  if (typeof message !== 'string' || message === '' || Buffer.byteLength(message) > 4_096)
    return refused(40014)
  if (title !== undefined && (typeof title !== 'string' || /[\r\n]/.test(title))) return refused(40017)
  if (!Number.isInteger(priority) || (priority as number) < 1 || (priority as number) > 5)
    return refused(40007)
  if ((actions as JsonObject[]).length > 3) return refused(40018)
  for (const { action, label, url } of actions as JsonObject[]) {
    if (action !== 'view' || !label || !/^https?:/.test(url as string)) return refused(40018)
  }
  if (!(tags as unknown[]).every(tag => typeof tag === 'string')) return refused(40017)
  return click === undefined || typeof click === 'string' ? undefined : refused(40017)
}
const accepted: HttpReply = { status: 200, body: '{"id":"hwQ2YpKdmg","event":"message"}' }
const vendorOf =
  (refuse = refused(40009)) =>
  () =>
    httpVendor({ accept: accepted, refuse }, reads)
const serverOf = (vendor: Vendor) => `http://${vendor.host}:${vendor.port}`
const settings = (vendor: Vendor): JsonObject => ({
  server: serverOf(vendor),
  token: TOKEN,
  timeoutSeconds: 0.5,
})

testProvider(ntfy, {
  vendor: vendorOf(),
  settings,
  message: () => exampleMessage({ channel: 'ntfy', to: 'ops-alerts' }),
  notApplicable: { 'idempotency key': 'ntfy takes none; a push that comes twice is the smaller harm' },
})

const deliver = (more: Partial<Message> = {}, own: JsonObject = {}, refuse?: HttpReply) =>
  deliverOne(
    ntfy,
    vendorOf(refuse),
    vendor => ({ ...settings(vendor), timeoutSeconds: 10, ...own }),
    () => ({ to: 'ops-alerts', ...more }),
    refuse === undefined ? 'accept' : 'refuse',
  )

test('title, priority, tags, link, buttons and picture each have their member', async () => {
  const { outcome, bodies } = await deliver({
    priority: 'CRITICAL',
    content: {
      subject: 'Pool\nexhausted',
      body: 'No connection is free.',
      image: 'https://example.org/graph.png',
      actions: [
        { id: 'd', label: 'Dashboard', url: 'https://example.org/d' },
        { id: 'x', label: 'Nowhere' },
      ],
      data: { tags: ['warning', 'not a tag', 7] },
    },
  })
  assert.deepEqual(outcome, { outcome: 'sent', code: '200', providerMessageId: 'hwQ2YpKdmg' })
  assert.deepEqual(bodies, [
    {
      topic: 'ops-alerts',
      message: 'No connection is free.',
      title: 'Pool exhausted',
      priority: 5,
      click: 'https://example.org/d',
      actions: [{ action: 'view', label: 'Dashboard', url: 'https://example.org/d' }],
      tags: ['warning'],
      attach: 'https://example.org/graph.png',
    },
  ])
  const low = await deliver({
    priority: 'LOW',
    content: { body: 'x', data: { click: 'https://example.org/own' } },
  })
  assert.deepEqual([low.bodies[0]!.priority, low.bodies[0]!.click], [2, 'https://example.org/own'])
})

test('a topic of another server is published there, without our token', async () => {
  const { outcome, bodies, received } = await deliverOne(
    ntfy,
    vendorOf(),
    () => ({ token: TOKEN }),
    vendor => ({
      to: `${serverOf(vendor)}/own/ops`,
    }),
  )
  assert.equal((outcome as Sent).outcome, 'sent')
  assert.deepEqual([received[0]!.to, bodies[0]!.topic], [['/own/'], 'ops'])
  assert.equal(((await deliver({ to: '' }, { topic: 'default' })).bodies[0] as JsonObject).topic, 'default')
  for (const to of ['no topic', 'https://ntfy.sh/', '']) {
    assert.equal(((await deliver({ to })).outcome as DeliveryError).code, 'invalid_address')
  }
})

test('whatever the content, the server takes it', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.constantFrom('漢字'.repeat(2_000), 'é'.repeat(4_096)),
  )
  const action = fc.record({ id: text, label: text, url: fc.webUrl() })
  const content = fc.record(
    {
      subject: text,
      body: text,
      actions: fc.array(action, { maxLength: 6 }),
      data: fc.record({ tags: fc.jsonValue() }),
    },
    { requiredKeys: ['body'] },
  )
  await fc.assert(
    fc.asyncProperty(content, async given => {
      const { outcome } = await deliver({ content: given as Content })
      assert.equal((outcome as Sent).outcome, 'sent', JSON.stringify(outcome))
    }),
    { numRuns: 40 },
  )
})

test("each of the server's answers has its meaning", async () => {
  const meaning = async (answer: HttpReply) => (await deliver({}, {}, answer)).outcome as DeliveryError
  for (const [code, kind, meant] of [
    [40009, 'bounced', 'unknown_address'],
    [40010, 'bounced', 'unknown_address'],
    [40018, 'permanent', 'content_refused'],
    [40101, 'temporary', 'auth'],
    [40301, 'rejected', 'forbidden'],
    [41301, 'permanent', 'too_large'],
    [50001, 'temporary', 'server_error'],
  ] as const) {
    const found = await meaning(refused(code))
    assert.deepEqual([code, found.kind, found.code], [code, kind, meant])
    assert.ok(`${code}`.startsWith(found.vendorCode!))
  }
  assert.equal((await meaning(refused(42901))).until?.getTime(), NOW.getTime() + 5_000)
  assert.equal((await meaning(refused(42908))).until?.getTime(), NOW.getTime() + 3_600_000)
  assert.equal((await meaning({ status: 200, body: '<html>' })).kind, 'unknown')
})
