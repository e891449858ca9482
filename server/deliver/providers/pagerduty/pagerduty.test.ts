import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { Ajv } from 'ajv'
import fc from 'fast-check'
import type { JsonObject, Message, Priority } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import type { DeliveryError, Sent } from '../../provider.ts'
import { type Asked, exampleMessage, type HttpReply, httpVendor, testProvider } from '../conformance.ts'
import { pagerduty } from './pagerduty.ts'

const KEY = 'e93facc04764012d7bfb002500d5d1a6'
const NOW = new Date('2026-11-21T12:00:00.000Z')

const invalid = (...errors: string[]): HttpReply => ({
  status: 400,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ status: 'invalid event', message: 'Event object is invalid', errors }),
})

type Fits = ((event: unknown) => boolean) & { errors?: unknown }

/** The schema of the vendor's own contract for an event, or undefined where it does not lie beside the checkout. */
function contractOfEvent(): Fits | undefined {
  let spec: { paths: Record<string, JsonObject>; components: JsonObject }
  try {
    const file = new URL('../../../../../shared/contracts/pagerduty-events-v2.openapi.json', import.meta.url)
    spec = JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return undefined
  }
  const { post } = spec.paths['/enqueue'] as { post: { requestBody: { content: JsonObject } } }
  const { schema } = post.requestBody.content['application/json'] as { schema: JsonObject }
  // Members it does not name are wrong here, though OpenAPI would let them pass.
  return new Ajv({ strict: false, validateFormats: false }).compile({
    ...schema,
    additionalProperties: false,
    components: spec.components,
  }) as Fits
}

/** Refuses what PagerDuty refuses. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (method !== 'POST' || path !== '/v2/enqueue') return { status: 404, body: '{"status":"not found"}' }
  if (headers['content-type'] !== 'application/json') return invalid('not JSON')
  if (Buffer.byteLength(body) > 524_288) return { status: 413, body: '' }
  const event = JSON.parse(body) as JsonObject
  if (event.routing_key !== KEY) return invalid("'routing_key' is invalid")
  if (!['trigger', 'acknowledge', 'resolve'].includes(event.event_action as string))
    return invalid("'event_action'")
  if (typeof event.dedup_key !== 'string' || event.dedup_key.length > 255)
    return invalid("'dedup_key' is too long")
  if (event.event_action === 'trigger') {
    const { summary, severity, source, timestamp } = event.payload as Record<string, string>
    if (!summary || summary.length > 1_024) return invalid("'payload.summary' is missing or too long")
    if (!['critical', 'error', 'warning', 'info'].includes(severity ?? ''))
      return invalid("'payload.severity'")
    if (!source || Number.isNaN(Date.parse(timestamp ?? ''))) return invalid("'payload.source'")
  }
  return {
    status: 202,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ status: 'success', message: 'Event processed', dedup_key: event.dedup_key }),
  }
}

const vendorOf = (refuse = invalid("Length of 'payload' is incorrect")) =>
  httpVendor({ accept: { status: 202, body: '{"status":"success"}' }, refuse }, reads)

// covers: DIC-127, DIC-129
testProvider(pagerduty, {
  vendor: () => vendorOf(),
  settings: vendor => ({ apiUrl: `http://${vendor.host}:${vendor.port}/v2`, timeoutSeconds: 0.5 }),
  message: () => exampleMessage({ channel: 'pagerduty', to: KEY }),
})

async function deliver(more: Partial<Message>, settings: JsonObject = {}, refuse?: HttpReply) {
  const vendor = await vendorOf(refuse)
  if (refuse !== undefined) vendor.behave('refuse')
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const apiUrl = `http://${vendor.host}:${vendor.port}/v2`
  const opened = await openProvider(pagerduty, { apiUrl, ...settings }, { http, now: () => NOW })
  try {
    const outcome = await opened
      .send(exampleMessage({ channel: 'pagerduty', to: KEY, ...more }), new AbortController().signal)
      .catch((error: unknown) => error as DeliveryError)
    const raw = vendor.received[0]?.raw ?? ''
    const body = raw === '' ? {} : (JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject)
    return { outcome, body, opened }
  } finally {
    await http.close()
    await vendor.close()
  }
}

// covers: DIC-128
test('a critical notification triggers an incident under its own key', async () => {
  const { outcome, body } = await deliver(
    {
      to: 'on-call',
      priority: 'CRITICAL',
      content: {
        subject: 'Pool\nexhausted',
        body: 'No connection is free.',
        image: 'https://example.org/graph.png',
        actions: [
          { id: 'd', label: 'Dashboard', url: 'https://example.org/d' },
          { id: 'x', label: 'No link' },
        ],
        data: {
          component: 'postgres',
          waiting: 17,
          links: [{ href: 'https://example.org/runbook', text: 'Runbook' }, { href: 'javascript:x' }],
          images: [{ src: 'http://example.org/plain.png' }],
        },
      },
    },
    { routingKey: KEY, client: 'Carillon', clientUrl: 'https://carillon.example' },
  )
  const dedupKey = exampleMessage().idempotencyKey
  assert.deepEqual(body, {
    routing_key: KEY,
    event_action: 'trigger',
    dedup_key: dedupKey,
    payload: {
      summary: 'Pool exhausted',
      severity: 'critical',
      source: 'carillon',
      timestamp: '2026-11-21T11:59:59.000Z',
      component: 'postgres',
      custom_details: { waiting: 17, body: 'No connection is free.' },
    },
    links: [
      { href: 'https://example.org/d', text: 'Dashboard' },
      { href: 'https://example.org/runbook', text: 'Runbook' },
    ],
    images: [{ src: 'https://example.org/graph.png' }],
    client: 'Carillon',
    client_url: 'https://carillon.example',
  })
  assert.deepEqual(outcome, { outcome: 'sent', code: '202', providerMessageId: dedupKey })
})

test('an incident is acknowledged and resolved by its key, and never without one', async () => {
  for (const action of ['acknowledge', 'resolve']) {
    const data = { event_action: action, dedup_key: 'srv01/HTTP' }
    const { outcome, body } = await deliver({ content: { body: 'over', data } })
    assert.deepEqual(body, { routing_key: KEY, event_action: action, dedup_key: 'srv01/HTTP' })
    assert.equal((outcome as Sent).providerMessageId, 'srv01/HTTP')
    const without = await deliver({ content: { body: 'over', data: { event_action: action } } })
    assert.deepEqual([(without.outcome as DeliveryError).code, without.body], ['content_refused', {}])
  }
  for (const data of [{ event_action: 'explode' }, { dedup_key: 'x'.repeat(256) }] as JsonObject[]) {
    const { outcome } = await deliver({ content: { body: 'x', data } })
    assert.equal((outcome as DeliveryError).code, 'content_refused')
  }
})

test('priority gives the severity, unless the content does', async () => {
  const severity = async (priority: Priority, data?: JsonObject) =>
    ((await deliver({ priority, content: { body: 'x', ...(data && { data }) } })).body.payload as JsonObject)
      .severity
  assert.deepEqual(
    await Promise.all((['CRITICAL', 'HIGH', 'NORMAL', 'LOW'] as const).map(each => severity(each))),
    ['critical', 'error', 'warning', 'info'],
  )
  assert.equal(await severity('LOW', { severity: 'critical' }), 'critical')
  assert.equal(await severity('LOW', { severity: 'apocalyptic' }), 'info')
})

test("whatever the content, the event fits the vendor's contract and is taken", async t => {
  const fits = contractOfEvent()
  if (fits === undefined) return t.skip('the vendor contracts are not beside this checkout')
  assert.equal(fits({ routing_key: KEY, event_action: 'trigger', surprise: 1 }), false)
  const text = fc.string({ unit: 'binary', maxLength: 1_500 })
  const data = fc.dictionary(
    fc.oneof(
      fc.string(),
      fc.constantFrom('links', 'images', 'custom_details', 'severity', 'source', 'group'),
    ),
    fc.jsonValue(),
  )
  await fc.assert(
    fc.asyncProperty(
      fc.record({ subject: text, body: text, image: fc.webUrl(), data }, { requiredKeys: ['body'] }),
      async content => {
        const { outcome, body } = await deliver({ content: content as Message['content'] })
        assert.equal((outcome as Sent).outcome, 'sent')
        assert.ok(fits(body), JSON.stringify(fits.errors))
      },
    ),
    { numRuns: 40 },
  )
})

test("each of PagerDuty's answers has its meaning", async () => {
  const meaning = async (reply: HttpReply) => (await deliver({}, {}, reply)).outcome as DeliveryError
  const key = await meaning(invalid("'routing_key' is invalid"))
  assert.deepEqual([key.kind, key.code, key.vendorCode], ['bounced', 'unknown_address', 'invalid_event'])
  const other = await meaning(invalid("Length of 'payload' is incorrect"))
  assert.deepEqual([other.kind, other.code], ['permanent', 'content_refused'])
  assert.equal((await meaning({ status: 429 })).until?.getTime(), NOW.getTime() + 60_000)
  assert.equal((await meaning({ status: 503 })).kind, 'temporary')
  assert.equal((await meaning({ status: 413 })).code, 'too_large')
  // Nothing but 202 says that the event was taken.
  assert.equal((await meaning({ status: 200, body: '<html>' })).kind, 'unknown')
  assert.equal((await meaning({ status: 202, body: '<html>' })).kind, 'unknown')
})

test('it takes integration keys, and everything where one is set', async () => {
  const accepts = async (settings: JsonObject, to: string) =>
    (await deliver({}, settings)).opened.accepts(exampleMessage({ to }))
  assert.equal(await accepts({}, KEY), true)
  assert.equal(await accepts({}, 'on-call'), false)
  assert.equal(await accepts({ routingKey: KEY }, 'on-call'), true)
  assert.equal(((await deliver({ to: 'on-call' })).outcome as DeliveryError).code, 'invalid_address')
})
