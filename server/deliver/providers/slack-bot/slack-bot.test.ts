import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import { AppError } from '../../../errors.ts'
import type { Json, JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import type { CallbackRequest, Sent } from '../../provider.ts'
import {
  type Asked,
  type Behaviour,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { contract, decodeSlack, refusesMessage, slackError } from '../slack-vendor.ts'
import { slackBot } from './slack-bot.ts'

const TOKEN = 'xoxb-000-example'
const SIGNING_SECRET = '8f742231b10e8888abcd99yyyzzz85a5'
const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = exampleMessage().notificationId

const ok = (body: JsonObject): HttpReply => ({
  status: 200,
  headers: { 'content-type': 'application/json; charset=utf-8' },
  body: JSON.stringify({ ok: true, ...body }),
})

/** Slack's Web API as far as we use it; refuses what Slack refuses, in Slack's words. */
function reads({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (headers.authorization !== `Bearer ${TOKEN}`) return slackError('invalid_auth')
  const url = new URL(path, 'https://slack.com')
  if (url.pathname === '/api/auth.test') return ok({ user_id: 'U0BOT', team_id: 'T0' })
  if (url.pathname === '/api/users.lookupByEmail') {
    if (method !== 'GET' || body !== '') return slackError('invalid_arguments')
    if (url.searchParams.get('email') !== 'ann+ops@example.org') return slackError('users_not_found')
    return ok({ user: { id: 'U024BE7LH' } })
  }
  if (method !== 'POST') return slackError('invalid_post_type')
  if (headers['content-type'] !== 'application/json; charset=utf-8') return slackError('missing_charset')
  const asked = JSON.parse(body) as JsonObject
  if (url.pathname === '/api/conversations.open') {
    return asked.users === 'U024BE7LH' ? ok({ channel: { id: 'D024BE91L' } }) : slackError('user_not_found')
  }
  if (url.pathname !== '/api/chat.postMessage') return slackError('unknown_method')
  const wrong = refusesMessage(asked)
  if (wrong !== undefined) return slackError(wrong)
  if (!/^([CDG][A-Z0-9]{8,20}|#[a-z-]+)$/.test(asked.channel as string))
    return slackError('channel_not_found')
  const { event_type: type, event_payload: payload } = asked.metadata as JsonObject
  if (typeof type !== 'string' || typeof payload !== 'object') return slackError('invalid_metadata_format')
  return undefined
}

const slack = (replies: Parameters<typeof httpVendor>[0] = {}) =>
  httpVendor(
    {
      accept: ok({ channel: 'C024BE91L', ts: '1503435956.000247', message: { type: 'message' } }),
      refuse: slackError('channel_not_found'),
      ...replies,
    },
    reads,
    decodeSlack,
  )
const settingsFor = (vendor: Vendor): JsonObject => ({
  token: TOKEN,
  signingSecret: SIGNING_SECRET,
  apiUrl: `http://${vendor.host}:${vendor.port}/api`,
  timeoutSeconds: 0.5,
})

/* ---------------------------------------------------------------- callbacks */

const signed = (body: string, type: string, at = NOW): CallbackRequest => {
  const stamp = String(Math.floor(at.getTime() / 1000))
  const signature = `v0=${createHmac('sha256', SIGNING_SECRET).update(`v0:${stamp}:${body}`).digest('hex')}`
  return {
    method: 'POST',
    url: 'https://carillon.example/webhooks/slack-bot',
    headers: { 'content-type': type, 'x-slack-request-timestamp': stamp, 'x-slack-signature': signature },
    body: Buffer.from(body),
  }
}
const pressed = (actions: Json, more: JsonObject = {}) =>
  signed(
    new URLSearchParams({
      payload: JSON.stringify({
        type: 'block_actions',
        user: { id: 'U024BE7LH', username: 'ann' },
        trigger_id: '1.2.x',
        container: { type: 'message', message_ts: '1503435956.000247', channel_id: 'C024BE91L' },
        channel: { id: 'C024BE91L', name: 'ops' },
        actions,
        ...more,
      }),
    }).toString(),
    'application/x-www-form-urlencoded',
  )
const BLOCK = `carillon:${NOTIFICATION}:2`
const BUTTON = {
  type: 'button',
  block_id: BLOCK,
  action_id: 'approve',
  value: 'approve',
  action_ts: '1795262399.500000',
}
const RECEIPT = {
  at: new Date('2026-11-21T11:59:59.500Z'),
  receiptId: '1795262399.500000:U024BE7LH:approve',
  providerMessageId: 'C024BE91L/1503435956.000247',
}

// covers: DIC-114, DIC-115, DIC-129
testProvider(slackBot, {
  vendor: slack,
  settings: settingsFor,
  message: () => exampleMessage({ channel: 'slack', to: 'C024BE91L' }),
  callbacks: [
    {
      name: 'a button was pressed',
      request: () => pressed([BUTTON]),
      receipts: [{ kind: 'replied', detail: 'approve', notificationId: NOTIFICATION, ...RECEIPT }],
    },
    {
      name: 'a link was opened, an option chosen',
      request: () =>
        pressed(
          [
            { ...BUTTON, value: undefined as never },
            { ...BUTTON, action_id: 'team', selected_option: { value: 'db' } },
          ],
          {
            message: {
              ts: '1503435956.000247',
              blocks: [
                {
                  type: 'actions',
                  block_id: BLOCK,
                  elements: [{ action_id: 'approve', url: 'https://a.example/' }],
                },
              ],
            },
          },
        ),
      receipts: [
        { kind: 'clicked', detail: 'https://a.example/', notificationId: NOTIFICATION, ...RECEIPT },
        {
          kind: 'replied',
          detail: 'team: db',
          notificationId: NOTIFICATION,
          ...RECEIPT,
          receiptId: '1795262399.500000:U024BE7LH:team',
        },
      ],
    },
    {
      name: "in a template's own block the metadata names the notification",
      request: () =>
        pressed([{ ...BUTTON, block_id: 'own' }], {
          message: { metadata: { event_payload: { notification_id: NOTIFICATION } } },
        }),
      receipts: [{ kind: 'replied', detail: 'approve', notificationId: NOTIFICATION, ...RECEIPT }],
    },
    {
      name: 'what is nobody’s button is not kept',
      request: () => signed('{"type":"event_callback","event":{"type":"message"}}', 'application/json'),
      receipts: [],
    },
  ],
})

async function scene<T>(
  work: (far: {
    vendor: Vendor
    send: (more: Partial<Message>) => Promise<Sent | DeliveryError>
    opened: Awaited<ReturnType<typeof openProvider>>
  }) => Promise<T>,
  replies: Parameters<typeof httpVendor>[0] = {},
  behaviour: Behaviour = 'accept',
  more: JsonObject = {},
  now = NOW,
): Promise<T> {
  const vendor = await slack(replies)
  vendor.behave(behaviour)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const opened = await openProvider(
    slackBot,
    { ...settingsFor(vendor), timeoutSeconds: 10, ...more },
    { http, now: () => now },
  )
  const { signal } = new AbortController()
  try {
    const send = (part: Partial<Message>) =>
      opened
        .send(exampleMessage({ channel: 'slack', to: 'C024BE91L', ...part }), signal)
        .catch((error: unknown) => error as DeliveryError)
    return await work({ vendor, send, opened })
  } finally {
    await opened.close()
    await http.close()
    await vendor.close()
  }
}
const bodyOf = (raw: string) => JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject

test('a reply goes under the first message, in the conversation where that stands and in no other', async () => {
  const first = 'C024BE91L/1503435956.000247'
  const raws = await scene(async ({ vendor, opened }) => {
    const reply = (more: Partial<Message>, firstId = first) =>
      opened.reply!(
        exampleMessage({ channel: 'slack', ...more }),
        firstId,
        new AbortController().signal,
      ).catch((error: unknown) => error as DeliveryError)
    assert.equal(((await reply({ to: 'C024BE91L' })) as Sent).outcome, 'delivered')
    await reply({ to: 'C024BE91L', content: { body: 'x', data: { thread_ts: '1503435956.000300' } } })
    for (const [to, firstId] of [
      ['C099ZZ99Z', first],
      ['C024BE91L', 'nothing of ours'],
    ] as const) {
      const refused = await reply({ to }, firstId)
      assert.ok(refused instanceof DeliveryError && refused.code === 'gone')
    }
    return vendor.received.map(each => each.raw)
  })
  assert.deepEqual(
    raws.map(raw => bodyOf(raw).thread_ts),
    ['1503435956.000247', '1503435956.000300'],
    'what the content says goes before; what cannot be put there is not sent',
  )
})

test('the body holds what the contract names, and metadata, which is newer', async t => {
  const spec = contract('slack-web-api.swagger2.json') as JsonObject | undefined
  if (spec === undefined) return t.skip('the vendor contracts are not beside this checkout')
  const parameters = (path: string): Map<string, JsonObject> => {
    const { post } = (spec.paths as Record<string, JsonObject>)[path]!
    return new Map(
      ((post as JsonObject).parameters as JsonObject[]).map(each => [String(each.name as string), each]),
    )
  }
  const raws = await scene(async ({ vendor, send }) => {
    await send({
      to: 'U024BE7LH',
      content: {
        subject: 'S',
        body: 'B',
        data: {
          thread_ts: '1503435956.000247',
          reply_broadcast: true,
          unfurl_links: false,
          unfurl_media: true,
        },
      },
    })
    return vendor.received.map(each => each.raw)
  })
  assert.equal(raws.length, 2)
  for (const [at, path] of ['/conversations.open', '/chat.postMessage'].entries()) {
    assert.ok(raws[at]!.startsWith(`POST /api${path}\r\n`))
    const known = parameters(path)
    for (const [name, value] of Object.entries(bodyOf(raws[at]!))) {
      if (name === 'metadata') continue
      const type = known.get(name)?.type
      assert.ok(type !== undefined, `${path} has no argument ${name}`)
      // Lists are strings of JSON in a form and lists in JSON.
      if (name !== 'blocks') assert.equal(typeof value, type)
    }
    for (const [name, { required, in: place }] of known) {
      if (required === true && place === 'formData')
        assert.ok(name in bodyOf(raws[at]!), `${name} is missing`)
    }
  }
})

// covers: DIC-115
test('people are found by e-mail, once for all who write to them at the same time', async () => {
  await scene(async ({ vendor, send }) => {
    const sent = await Promise.all([1, 2, 3].map(() => send({ to: 'ann+ops@example.org' })))
    for (const each of sent) {
      assert.deepEqual(each, {
        outcome: 'delivered',
        code: 'ok',
        providerMessageId: 'C024BE91L/1503435956.000247',
      })
    }
    const paths = vendor.received.map(each => each.to[0]!.split('?')[0])
    assert.equal(paths.filter(path => path === '/api/users.lookupByEmail').length, 1)
    assert.equal(paths.filter(path => path === '/api/conversations.open').length, 1)
    const posts = vendor.received.filter(each => each.to[0] === '/api/chat.postMessage')
    assert.deepEqual(
      posts.map(each => bodyOf(each.raw).channel),
      ['D024BE91L', 'D024BE91L', 'D024BE91L'],
    )
    const missing = (await send({ to: 'nobody@example.org' })) as DeliveryError
    assert.deepEqual(
      [missing.kind, missing.code, missing.vendorCode],
      ['bounced', 'unknown_address', 'users_not_found'],
    )
  })
})

test('while the lookup gives no answer nothing was sent; the next message asks again', async () => {
  await scene(async ({ vendor, send }) => {
    vendor.behave('reset')
    assert.equal(((await send({ to: 'ann+ops@example.org' })) as DeliveryError).kind, 'temporary')
    vendor.behave('accept')
    assert.equal(((await send({ to: 'ann+ops@example.org' })) as Sent).outcome, 'delivered')
  })
})

// covers: DIC-116
test('channels go by id or name; what names none goes to the default; nonsense is refused here', async () => {
  await scene(
    async ({ vendor, send, opened }) => {
      for (const to of ['#ops-alerts', '']) assert.equal(((await send({ to })) as Sent).outcome, 'delivered')
      assert.deepEqual(
        vendor.received.map(each => bodyOf(each.raw).channel),
        ['#ops-alerts', '#alerts'],
      )
      assert.equal(((await send({ to: 'no such thing!' })) as DeliveryError).code, 'invalid_address')
      const wrong = (await send({
        content: { body: 'x', data: { thread_ts: 'yesterday' } },
      })) as DeliveryError
      assert.equal(wrong.code, 'content_refused')
      assert.equal(vendor.received.length, 2)
      assert.equal(opened.accepts(exampleMessage({ to: 'https://hooks.slack.com/x' })), false)
      assert.notEqual(opened.lane(exampleMessage({ to: '#a' })), opened.lane(exampleMessage({ to: '#b' })))
      // Operators see lanes; whom somebody writes to is none of their business.
      const person = opened.lane(exampleMessage({ to: 'alice@example.com' }))
      assert.notEqual(person, opened.lane(exampleMessage({ to: 'bob@example.com' })))
      assert.doesNotMatch(person, /alice|example/)
      assert.equal(opened.limits.perSecond, 1)
    },
    {},
    'accept',
    { defaultChannel: '#alerts' },
  )
})

test("each of Slack's errors has its meaning, those of its contract too", async t => {
  const meaning = async (reply: HttpReply) =>
    scene(async ({ send }) => (await send({})) as DeliveryError, { refuse: reply }, 'refuse')
  for (const [error, kind, code] of [
    ['channel_not_found', 'bounced', 'unknown_address'],
    ['user_not_found', 'bounced', 'unknown_address'],
    ['not_in_channel', 'rejected', 'forbidden'],
    ['is_archived', 'bounced', 'gone'],
    ['msg_too_long', 'permanent', 'too_large'],
    ['invalid_blocks', 'permanent', 'content_refused'],
    ['invalid_auth', 'temporary', 'auth'],
    ['account_inactive', 'temporary', 'auth'],
    ['token_revoked', 'temporary', 'auth'],
    ['missing_scope', 'temporary', 'auth'],
    ['service_unavailable', 'temporary', 'unavailable'],
    ['fatal_error', 'unknown', 'no_answer'],
    ['something_new', 'permanent', 'refused'],
  ] as const) {
    const found = await meaning(slackError(error))
    assert.deepEqual([error, found.kind, found.code, found.vendorCode], [error, kind, code, error])
  }
  const waiting = { ...slackError('ratelimited', 429), headers: { 'retry-after': '30' } }
  assert.equal((await meaning(waiting)).until?.getTime(), NOW.getTime() + 30_000)
  assert.equal((await meaning(slackError('rate_limited'))).until?.getTime(), NOW.getTime() + 60_000)

  const spec = contract('slack-web-api.swagger2.json') as JsonObject | undefined
  if (spec === undefined) return t.diagnostic('the vendor contracts are not beside this checkout')
  const text = JSON.stringify((spec.paths as JsonObject)['/chat.postMessage'])
  const [, list] = /"enum":(\["channel_not_found".*?\])/.exec(text)!
  for (const error of JSON.parse(list!) as string[]) {
    assert.notEqual((await meaning(slackError(error))).code, 'refused', `${error} is not in the table`)
  }
})

test("Slack's own vector verifies, at its own time, and not changed", async t => {
  const vector = contract('slack-request-signature-vector.json') as Record<string, Json> | undefined
  if (vector === undefined) return t.skip('the vendor contracts are not beside this checkout')
  const headers = Object.fromEntries(
    Object.entries(vector.headers as Record<string, string>).map(([name, value]) => [
      name.toLowerCase(),
      value,
    ]),
  )
  const body = vector.body as string
  const read = (text: string, secondsLater: number, more: JsonObject = {}) =>
    scene(
      ({ opened }) => {
        const request = {
          method: 'POST',
          url: 'https://carillon.example/webhooks/slack-bot',
          headers: { ...headers, 'content-type': 'application/x-www-form-urlencoded' },
          body: Buffer.from(text),
        }
        return opened.callback(request, new AbortController().signal)
      },
      {},
      'accept',
      { signingSecret: vector.signing_secret as string, ...more },
      new Date(((vector.now as number) + secondsLater) * 1000),
    )
  const refused = (error: unknown) => error instanceof AppError && error.code === 'unauthenticated'
  assert.deepEqual((await read(body, 0)).receipts, [])
  assert.deepEqual((await read(body, 300)).receipts, [])
  await assert.rejects(read(body, 301), refused)
  await assert.rejects(read(body, -301), refused)
  await assert.rejects(read(body + (vector.invalid_body_suffix as string), 0), refused)
  await assert.rejects(read(body, 0, { signingSecret: 'another' }), refused)
})

test('the handshake is answered with its challenge', async () => {
  await scene(async ({ opened }) => {
    const request = signed(
      '{"type":"url_verification","token":"x","challenge":"3eZbrw1aB"}',
      'application/json',
    )
    const { receipts, reply } = await opened.callback(request, new AbortController().signal)
    assert.deepEqual([receipts, reply], [[], { status: 200, contentType: 'text/plain', body: '3eZbrw1aB' }])
  })
})
