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
import { teams } from './teams.ts'

const PATH = '/workflows/0a1b2c/triggers/manual/paths/invoke?api-version=1&sig=example-signature'
const error = (status: number, code: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ error: { code, message: 'in words' } }),
})
const mismatch = error(400, 'TriggerInputSchemaMismatch')

/** Refuses what the workflow and the card's renderer refuse. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (path !== PATH) return error(404, 'WorkflowNotFound')
  if (method !== 'POST' || headers['content-type'] !== 'application/json') return mismatch
  if (Buffer.byteLength(body) > 28 * 1024) return { status: 413 }
  const { type, attachments } = JSON.parse(body) as JsonObject
  if (type !== 'message' || !Array.isArray(attachments) || attachments.length !== 1) return mismatch
  const { contentType, content } = attachments[0] as JsonObject
  if (contentType !== 'application/vnd.microsoft.card.adaptive') return mismatch
  const card = content as { type: string; version: string; body: JsonObject[]; actions?: JsonObject[] }
  if (card.type !== 'AdaptiveCard' || !['1.4', '1.5'].includes(card.version) || card.body.length === 0)
    return mismatch
  for (const block of card.body) {
    const known = ['RichTextBlock', 'FactSet', 'Image'].includes(block.type as string)
    if (!known) return mismatch
  }
  for (const { type: kind, title, url } of card.actions ?? []) {
    if (kind !== 'Action.OpenUrl' || !title || !/^https?:/.test(url as string)) return mismatch
  }
  return undefined
}
const vendorOf =
  (refuse = mismatch) =>
  () =>
    httpVendor({ accept: { status: 202 }, refuse }, reads)
const urlOf = (vendor: Vendor) => `http://${vendor.host}:${vendor.port}${PATH}`

testProvider(teams, {
  vendor: vendorOf(),
  settings: () => ({ timeoutSeconds: 0.5 }),
  message: vendor => exampleMessage({ channel: 'teams', to: urlOf(vendor) }),
  notApplicable: { 'idempotency key': 'a workflow takes none' },
})

const deliver = (more: Partial<Message> = {}, settings: JsonObject = {}, refuse?: HttpReply) =>
  deliverOne(
    teams,
    vendorOf(refuse),
    () => settings,
    vendor => ({ to: urlOf(vendor), ...more }),
    refuse === undefined ? 'accept' : 'refuse',
  )

test('an Adaptive Card shows text as it is, line by line', async () => {
  const { outcome, bodies } = await deliver(
    {
      content: {
        subject: 'Pool exhausted',
        body: 'No [connection](https://evil.example) is free.\nReally.\n\nNone.',
        image: 'https://example.org/graph.png',
        actions: [
          { id: 'd', label: 'Dashboard', url: 'https://example.org/d' },
          { id: 'x', label: 'Nowhere' },
        ],
        data: { fields: [{ title: 'Service', value: 'db' }] },
      },
    },
    { cardVersion: '1.5' },
  )
  assert.deepEqual(outcome, { outcome: 'sent', code: '202' })
  const run = (text: string, spacing: string, style: JsonObject = {}) => ({
    type: 'RichTextBlock',
    inlines: [{ type: 'TextRun', text, ...style }],
    spacing,
  })
  assert.deepEqual(bodies, [
    {
      type: 'message',
      attachments: [
        {
          contentType: 'application/vnd.microsoft.card.adaptive',
          contentUrl: null,
          content: {
            $schema: 'http://adaptivecards.io/schemas/adaptive-card.json',
            type: 'AdaptiveCard',
            version: '1.5',
            body: [
              run('Pool exhausted', 'default', { size: 'large', weight: 'bolder' }),
              run('No [connection](https://evil.example) is free.', 'default'),
              run('Really.', 'none'),
              run('None.', 'medium'),
              { type: 'FactSet', facts: [{ title: 'Service', value: 'db' }] },
              { type: 'Image', url: 'https://example.org/graph.png', altText: 'Pool exhausted' },
            ],
            actions: [{ type: 'Action.OpenUrl', title: 'Dashboard', url: 'https://example.org/d' }],
            msteams: { width: 'Full' },
          },
        },
      ],
    },
  ])
})

test('whatever the content, the card is taken and below 28 KB', async () => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.constantFrom('漢字\n'.repeat(3_000), '\u0001'.repeat(12_000), 'x'.repeat(12_000)),
  )
  const action = fc.record({ id: text, label: text, url: fc.webUrl() })
  const content = fc.record(
    {
      subject: text,
      body: text,
      actions: fc.array(action, { maxLength: 12 }),
      data: fc.record({ fields: fc.dictionary(text, text, { maxKeys: 30 }) }),
    },
    { requiredKeys: ['body'] },
  )
  await fc.assert(
    fc.asyncProperty(content, async given => {
      const { outcome } = await deliver({ content: given })
      assert.equal((outcome as Sent).outcome, 'sent', JSON.stringify(outcome))
    }),
    { numRuns: 40 },
  )
})

test('each answer has its meaning, those within a 200 too', async () => {
  const meaning = async (answer: HttpReply) => (await deliver({}, {}, answer)).outcome as DeliveryError
  const within = (status: number): HttpReply => ({
    status: 200,
    body: `Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error ${status} with ContextId x`,
  })
  for (const [answer, kind, code] of [
    [error(404, 'WorkflowNotFound'), 'bounced', 'gone'],
    [error(400, 'WorkflowTriggerIsNotEnabled'), 'temporary', 'unavailable'],
    [mismatch, 'permanent', 'content_refused'],
    [error(401, 'DirectApiAuthorizationRequired'), 'temporary', 'auth'],
    [{ status: 413 }, 'permanent', 'too_large'],
    [{ status: 502 }, 'temporary', 'server_error'],
    [within(413), 'permanent', 'too_large'],
    [within(503), 'temporary', 'unavailable'],
  ] as [HttpReply, string, string][]) {
    const { kind: actual, code: actualCode } = await meaning(answer)
    assert.deepEqual([answer, actual, actualCode], [answer, kind, code])
  }
  const limited = await meaning(within(429))
  assert.deepEqual([limited.kind, limited.until?.getTime()], ['rate_limited', NOW.getTime() + 5_000])
  assert.deepEqual((await deliver({}, {}, { status: 200, body: '1' })).outcome, {
    outcome: 'sent',
    code: '200',
  })
})

test('what is no URL goes to the URL that is set', async () => {
  const { outcome } = await deliverOne(
    teams,
    vendorOf(),
    vendor => ({ url: urlOf(vendor) }),
    () => ({ to: 'ops' }),
  )
  assert.equal((outcome as Sent).outcome, 'sent')
  assert.equal(((await deliver({ to: 'ops' })).outcome as DeliveryError).code, 'invalid_address')
})
