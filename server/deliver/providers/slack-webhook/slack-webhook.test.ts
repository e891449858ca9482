import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import type { DeliveryError } from '../../provider.ts'
import { type Asked, exampleMessage, type HttpReply, httpVendor, testProvider } from '../conformance.ts'
import { decodeSlack, refusesMessage } from '../slack-vendor.ts'
import { slackWebhook } from './slack-webhook.ts'

const PATH = '/services/T000/B000/example'

/** Refuses what Slack's webhooks refuse, in Slack's words. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (path !== PATH) return { status: 404, body: 'no_service' }
  if (method !== 'POST' || headers['content-type'] !== 'application/json') {
    return { status: 400, body: 'invalid_payload' }
  }
  const wrong = refusesMessage(JSON.parse(body) as JsonObject)
  return wrong === undefined ? undefined : { status: 400, body: wrong }
}
const slack = (replies: Parameters<typeof httpVendor>[0] = {}) =>
  httpVendor(
    {
      accept: { status: 200, headers: { 'content-type': 'text/html' }, body: 'ok' },
      refuse: { status: 400, body: 'invalid_payload' },
      ...replies,
    },
    reads,
    decodeSlack,
  )

// covers: DIC-114, DIC-129
testProvider(slackWebhook, {
  vendor: slack,
  settings: () => ({ timeoutSeconds: 0.5 }),
  message: vendor => exampleMessage({ channel: 'slack', to: `http://${vendor.host}:${vendor.port}${PATH}` }),
  notApplicable: { 'idempotency key': 'an incoming webhook takes none' },
})

async function deliver(more: Partial<Message>, settings: JsonObject = {}, refuse?: HttpReply) {
  const vendor = await slack(refuse === undefined ? {} : { refuse })
  if (refuse !== undefined) vendor.behave('refuse')
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const url = `http://${vendor.host}:${vendor.port}${PATH}`
  const now = new Date('2026-11-21T12:00:00Z')
  const filled = JSON.parse(JSON.stringify(settings).replaceAll('URL', url)) as JsonObject
  const opened = await openProvider(slackWebhook, filled, { http, now: () => now })
  try {
    const message = exampleMessage({ channel: 'slack', to: url, ...more })
    const outcome = await opened
      .send(message, new AbortController().signal)
      .catch((error: unknown) => error as DeliveryError)
    return { outcome, received: vendor.received, opened }
  } finally {
    await http.close()
    await vendor.close()
  }
}

// The words of https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks#handling_errors
test("each of Slack's words has its meaning", async () => {
  for (const [status, word, kind, code] of [
    [400, 'invalid_payload', 'permanent', 'content_refused'],
    [400, 'user_not_found', 'bounced', 'unknown_address'],
    [404, 'channel_not_found', 'bounced', 'unknown_address'],
    [410, 'channel_is_archived', 'bounced', 'gone'],
    [403, 'action_prohibited', 'rejected', 'forbidden'],
    [403, 'posting_to_general_channel_denied', 'rejected', 'forbidden'],
    [404, 'no_service', 'bounced', 'gone'],
    [500, 'rollup_error', 'temporary', 'server_error'],
    [404, 'something_new', 'permanent', 'gone'],
    [503, 'busy', 'temporary', 'unavailable'],
    [400, 'constructor', 'permanent', 'refused'],
  ] as const) {
    const { outcome } = await deliver({}, {}, { status, body: word })
    const { kind: actual, code: actualCode, vendorCode } = outcome as DeliveryError
    assert.deepEqual([word, actual, actualCode, vendorCode], [word, kind, code, word])
  }
})

test('a 200 without the word "ok" may be anything', async () => {
  const { outcome } = await deliver({}, {}, { status: 200, body: '<html>please log in</html>' })
  assert.equal((outcome as DeliveryError).kind, 'unknown')
})

test('what is no URL goes to the URL that is set', async () => {
  const { outcome, received } = await deliver({ to: '#alerts' }, { url: 'URL' })
  assert.deepEqual(outcome, { outcome: 'delivered', code: 'ok' })
  assert.equal(received.length, 1)
  const without = await deliver({ to: '#alerts' })
  assert.equal((without.outcome as DeliveryError).code, 'invalid_address')
  assert.equal(without.received.length, 0)
})

test('it takes URLs, and everything where one is set', async () => {
  const accepts = async (settings: JsonObject, to: string) =>
    (await deliver({}, settings)).opened.accepts(exampleMessage({ to }))
  assert.equal(await accepts({}, 'https://hooks.slack.com/services/x'), true)
  assert.equal(await accepts({}, '#ops'), false)
  assert.equal(await accepts({ url: 'URL' }, '#ops'), true)
})

test('lanes tell webhooks apart and do not show them', async () => {
  const { opened } = await deliver({})
  const lane = (to: string) => opened.lane(exampleMessage({ to }))
  assert.notEqual(lane('https://hooks.slack.com/a'), lane('https://hooks.slack.com/b'))
  assert.ok(!lane('https://hooks.slack.com/services/secret').includes('secret'))
})
