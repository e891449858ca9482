import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { Webhook, WebhookVerificationError } from 'standardwebhooks'
import { AppError } from '../../../errors.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
import { type Behaviour, exampleMessage, httpVendor, type Received, testProvider } from '../conformance.ts'
import { sign, webhook } from './webhook.ts'

const SECRET = `whsec_${Buffer.from('a key of twenty-four by.').toString('base64')}`
const NEWER = `whsec_${Buffer.from('the next key, also fine.').toString('base64')}`

// covers: DIC-120
testProvider(webhook, {
  settings: () => ({ timeoutSeconds: 0.5, headers: { authorization: 'Bearer provider-token' } }),
  message: vendor =>
    exampleMessage({
      to: `http://${vendor.host}:${vendor.port}/hooks/alice?tag=1`,
      addressSettings: { secret: SECRET },
    }),
})

/** Sends to a local endpoint and gives back what arrived. */
async function deliver(
  messages: Partial<Message>[],
  settings: JsonObject = {},
  now = new Date(),
  behaviour: Behaviour = 'accept',
) {
  const vendor = await httpVendor()
  vendor.behave(behaviour)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const opened = await openProvider(webhook, settings, { http, now: () => now })
  const { signal } = new AbortController()
  const to = `http://${vendor.host}:${vendor.port}/hook`
  const [first, ...rest] = messages.map(each => exampleMessage({ to, ...each }))
  assert.ok(first)
  const sent =
    rest.length === 0 ? [await opened.send(first, signal)] : await opened.sendMany([first, ...rest], signal)
  await http.close()
  await vendor.close()
  const [received] = vendor.received
  assert.ok(received)
  return { sent, received, opened, first }
}

const bodyOf = ({ raw }: Received) => raw.slice(raw.indexOf('\r\n\r\n') + 4)

// covers: ALP-190, DIC-121
test('a receiver verifies it with the standardwebhooks package', async () => {
  const { received, sent } = await deliver([
    {
      addressSettings: { secret: SECRET },
      content: { body: 'Grüße', html: '<b>Grüße</b>', data: { a: [1] } },
    },
  ])
  const payload = new Webhook(SECRET).verify(bodyOf(received), received.headers)
  assert.deepEqual(payload, {
    type: 'commerce.order.shipped',
    timestamp: '2026-11-21T11:59:59.000Z',
    data: {
      notificationId: '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d',
      eventId: '019a9f3e-7a43-7d52-9f00-aa55aa55aa55',
      eventType: 'commerce.order.shipped',
      recipient: { type: 'user', id: 'alice' },
      priority: 'NORMAL',
      body: 'Grüße',
      html: '<b>Grüße</b>',
      data: { a: [1] },
    },
  })
  assert.equal(received.headers['webhook-id'], exampleMessage().idempotencyKey)
  assert.deepEqual(sent, [{ outcome: 'delivered', code: '200', response: 'HTTP 200' }])

  const tampered = bodyOf(received).replace('NORMAL', 'LOW')
  assert.throws(() => new Webhook(SECRET).verify(tampered, received.headers), WebhookVerificationError)
})

test('while a secret is changed, each of the two verifies', async () => {
  for (const [message, settings] of [
    [{ addressSettings: { secret: NEWER, formerSecrets: [SECRET] } }, {}],
    [{}, { secret: NEWER, formerSecrets: [SECRET] }],
  ] as const) {
    const { received } = await deliver([message as Partial<Message>], settings as JsonObject)
    for (const each of [NEWER, SECRET]) new Webhook(each).verify(bodyOf(received), received.headers)
  }
})

test("an endpoint's own secret wins over the provider's", async () => {
  const { received } = await deliver([{ addressSettings: { secret: NEWER } }], { secret: SECRET })
  new Webhook(NEWER).verify(bodyOf(received), received.headers)
  assert.throws(() => new Webhook(SECRET).verify(bodyOf(received), received.headers))
})

test('a 2xx is delivered even when its body breaks off', async () => {
  const { sent } = await deliver([{}], {}, new Date(), 'half')
  assert.deepEqual(sent, [{ outcome: 'delivered', code: '200', response: 'HTTP 200' }])
})

test('without a secret nothing is signed', async () => {
  const { received } = await deliver([{}])
  assert.equal(received.headers['webhook-signature'], undefined)
})

test('signs as the library does, whatever the body', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 1, maxLength: 64 }),
      fc.string({ unit: 'grapheme' }),
      fc.integer({ min: 0, max: 2_000_000_000 }),
      (key, body, seconds) => {
        const text = `whsec_${Buffer.from(key).toString('base64')}`
        const expected = new Webhook(text).sign('msg_1', new Date(seconds * 1000), body)
        assert.equal(sign(text, 'msg_1', seconds, body), expected)
      },
    ),
  )
})

// covers: DIC-121
test('signs as the published vector says', t => {
  const file = new URL('../../../../../shared/contracts/standard-webhooks-vectors.json', import.meta.url)
  let vectors: {
    sign_vector: { secret: string; msg_id: string; timestamp: number; payload: string; expected: string }
    invalid_secrets: string[]
  }
  try {
    vectors = JSON.parse(readFileSync(file, 'utf8'))
  } catch {
    return t.skip('the vendor contracts are not beside this checkout')
  }
  const { secret, msg_id, timestamp, payload, expected } = vectors.sign_vector
  assert.equal(sign(secret, msg_id, timestamp, payload), expected)
  assert.equal(sign(secret.replace('whsec_', ''), msg_id, timestamp, payload), expected)
  for (const each of vectors.invalid_secrets) assert.throws(() => sign(each, msg_id, timestamp, payload))
})

test('many notifications travel in one signed request', async () => {
  const messages = [1, 2, 3].map(n => ({
    idempotencyKey: `key-${n}`,
    addressSettings: { secret: SECRET, batch: 20 },
    content: { body: `Number ${n}` },
  }))
  const { received, sent, opened, first } = await deliver(messages)
  const payload = new Webhook(SECRET).verify(bodyOf(received), received.headers) as {
    type: string
    items: { id: string; data: { body: string } }[]
  }
  assert.equal(payload.type, 'batch')
  assert.deepEqual(
    payload.items.map(({ id, data }) => [id, data.body]),
    [1, 2, 3].map(n => [`key-${n}`, `Number ${n}`]),
  )
  assert.equal(sent.length, 3)
  assert.match(received.headers['webhook-id'] ?? '', /^batch_/)
  const again = await deliver(messages)
  assert.equal(again.received.headers['webhook-id'], received.headers['webhook-id'])
  assert.equal(opened.group(first)?.max, 20)
})

test('only messages to one endpoint of one tenant with the same settings are grouped', async () => {
  const { opened } = await deliver([{}])
  const group = (more: Partial<Message>) =>
    opened.group(exampleMessage({ to: 'https://a.example/x', addressSettings: { batch: 10 }, ...more }))?.key
  assert.equal(group({}), group({ notificationId: 'another' }))
  const others = [
    group({}),
    group({ tenantId: 2 }),
    group({ to: 'https://a.example/y' }),
    group({ addressSettings: { batch: 10, secret: SECRET } }),
  ]
  assert.equal(new Set(others).size, others.length)
  assert.equal(group({ addressSettings: { batch: 1 } }), undefined)
  assert.equal(group({ addressSettings: undefined }), undefined)
})

test('an endpoint that is down is its own lane', async () => {
  const { opened } = await deliver([{}])
  const lane = (to: string) => opened.lane(exampleMessage({ to }))
  assert.equal(lane('https://a.example/x?y=/z'), lane('https://a.example/other'))
  assert.equal(lane('https://a.example'), lane('https://a.example/x'))
  assert.notEqual(lane('https://a.example/x'), lane('https://b.example/x'))
})

test("callers' headers travel, ours cannot be replaced", async () => {
  const { received } = await deliver(
    [
      {
        traceId: '0af7651916cd43dd8448eb211c80319c',
        addressSettings: {
          headers: {
            'X-Own': 'mine',
            'Webhook-Id': 'forged',
            'Content-Type': 'text/html',
            Host: 'other.example',
            'Transfer-Encoding': 'chunked',
            'X-Bad': 'a\r\nX-Canary: 1',
          },
        },
      },
    ],
    { headers: { authorization: 'Bearer token', 'x-own': 'theirs' } },
  )
  assert.equal(received.headers['x-own'], 'mine')
  assert.equal(received.headers.authorization, 'Bearer token')
  assert.equal(received.headers['webhook-id'], exampleMessage().idempotencyKey)
  assert.equal(received.headers['content-type'], 'application/json')
  assert.match(received.headers.host ?? '', /^127\.0\.0\.1:/)
  assert.equal(received.headers['transfer-encoding'], undefined)
  assert.equal(received.headers['x-bad'], undefined)
  assert.equal(received.headers['x-canary'], undefined)
  assert.equal(received.headers.traceparent, '00-0af7651916cd43dd8448eb211c80319c-8c1d5a3e2f1b0c9d-01')
})

test('settings that do not fit are refused by name, without their value', () => {
  const bad: [JsonObject, string][] = [
    [{ secret: 'not base64!' }, '/secret'],
    [{ secret: '' }, '/secret'],
    [{ headers: { 'x-a': 'a\r\nb: c' } }, '/headers/x-a'],
    [{ headers: { 'x a': 'b' } }, '/headers/x a'],
    [{ batch: 51 }, '/batch'],
    [{ batch: 0 }, '/batch'],
    [{ timeoutSeconds: 61 }, '/timeoutSeconds'],
    [{ surprise: true }, '/surprise'],
  ]
  for (const [settings, field] of bad) {
    assert.throws(
      () => readSettings(webhook.settings, settings),
      (error: unknown) => {
        assert.ok(error instanceof AppError)
        assert.equal(error.code, 'invalid_request')
        assert.ok(
          error.errors?.some(each => each.field === field),
          JSON.stringify(error.errors),
        )
        assert.ok(!JSON.stringify(error.errors).includes('not base64!'))
        return true
      },
    )
  }
})
