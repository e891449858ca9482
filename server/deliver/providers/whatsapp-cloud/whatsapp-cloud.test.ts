import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../../../errors.ts'
import type { Json, JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { type CallbackRequest, DeliveryError } from '../../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { whatsAppCloud } from './whatsapp-cloud.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const NUMBER_ID = '106540352242922'
const TOKEN = 'EAAG-a-system-user-token'
const APP_SECRET = 'the-secret-of-the-app'
const VERIFY_TOKEN = 'chosen-by-the-operator'
const WAMID = 'wamid.HBgLMTU1NTEyMzQ1NjcVAgARGBI='
const CALLBACK = 'https://carillon.example/webhooks/whatsapp-cloud'

const whatsapp = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'whatsapp', to: '+15551234567', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  phoneNumberId: NUMBER_ID,
  accessToken: TOKEN,
  appSecret: APP_SECRET,
  verifyToken: VERIFY_TOKEN,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

/* ------------------------------------------------- a stand-in that is as strict as the Graph API */

const metaError = (status: number, code: number, details: string): HttpReply => ({
  status,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({
    error: {
      message: `(#${code}) refused`,
      type: 'OAuthException',
      code,
      error_data: { messaging_product: 'whatsapp', details },
      fbtrace_id: 'AbCdEf',
    },
  }),
})
const invalid = (details: string) => metaError(400, 100, details)

const accepted: HttpReply = {
  status: 200,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({
    messaging_product: 'whatsapp',
    contacts: [{ input: '+15551234567', wa_id: '15551234567' }],
    messages: [{ id: WAMID, message_status: 'accepted' }],
  }),
}

const FIELDS = ['messaging_product', 'recipient_type', 'to', 'type', 'biz_opaque_callback_data']
const word = (json: Json | undefined) => (typeof json === 'string' ? json : '')
const MEDIA = ['image', 'video', 'audio', 'document']

function strict({ method, path, headers, body }: Asked): HttpReply | undefined {
  if (headers.authorization !== `Bearer ${TOKEN}`) return metaError(401, 190, 'Invalid OAuth access token')
  if (method === 'GET') {
    return path === `/v24.0/${NUMBER_ID}?fields=id`
      ? { status: 200, body: `{"id":"${NUMBER_ID}"}` }
      : metaError(404, 33, 'Unknown object')
  }
  if (method !== 'POST' || path !== `/v24.0/${NUMBER_ID}/messages`) return metaError(404, 33, 'Unknown path')
  if (headers['content-type'] !== 'application/json') return invalid('Content-Type')
  const sent = JSON.parse(body) as JsonObject
  const type = sent.type as string
  for (const name of Object.keys(sent)) {
    if (!FIELDS.includes(name) && name !== type) return invalid(`Unexpected key ${name}`)
  }
  if (sent.messaging_product !== 'whatsapp') return invalid('messaging_product')
  if (typeof sent.to !== 'string' || !/^\+?[1-9]\d{6,14}$/.test(sent.to)) return invalid('to')
  if (word(sent.biz_opaque_callback_data).length > 512) return invalid('biz_opaque_callback_data')
  const part = sent[type] as JsonObject | undefined
  if (part === undefined) return invalid(`${type} is missing`)
  if (type === 'text') {
    const { body: text } = part
    return typeof text === 'string' && text !== '' && text.length <= 4_096 ? undefined : invalid('text.body')
  }
  if (MEDIA.includes(type)) {
    if (!word(part.link).startsWith('https://')) return invalid('link')
    if (part.caption !== undefined && (type === 'audio' || word(part.caption).length > 1_024)) {
      return invalid('caption')
    }
    return part.filename !== undefined && type !== 'document' ? invalid('filename') : undefined
  }
  if (type === 'template') {
    const { name, language, components = [] } = part
    if (typeof name !== 'string' || typeof (language as JsonObject)?.code !== 'string')
      return invalid('template')
    return /[\n\t]| {5}/.test(stringsOf(components).join('|'))
      ? metaError(400, 132018, 'line ends')
      : undefined
  }
  return metaError(400, 131051, 'Unsupported message type')
}

const stringsOf = (json: Json): string[] =>
  typeof json === 'string'
    ? [json]
    : typeof json === 'object' && json !== null
      ? Object.values(json).flatMap(stringsOf)
      : []

const metaVendor = (answer: (asked: Asked) => HttpReply | undefined = () => undefined) =>
  httpVendor({ refuse: metaError(400, 131026, 'Message undeliverable') }, asked => {
    const refusal = strict(asked)
    return refusal ?? answer(asked) ?? accepted
  })

/* ------------------------------------------------- callbacks as Meta posts them */

function posted(value: JsonObject, key = APP_SECRET): CallbackRequest {
  const body = Buffer.from(
    JSON.stringify({
      object: 'whatsapp_business_account',
      entry: [
        {
          id: '102290129340398',
          changes: [
            {
              field: 'messages',
              value: {
                messaging_product: 'whatsapp',
                metadata: { display_phone_number: '15557654321', phone_number_id: NUMBER_ID },
                ...value,
              },
            },
          ],
        },
      ],
    }),
  )
  const signature = createHmac('sha256', key).update(body).digest('hex')
  return {
    method: 'POST',
    url: CALLBACK,
    headers: { 'content-type': 'application/json', 'x-hub-signature-256': `sha256=${signature}` },
    body,
  }
}

const status = (word: string, more: JsonObject = {}): JsonObject => ({
  id: WAMID,
  status: word,
  timestamp: '1795262370',
  recipient_id: '15551234567',
  biz_opaque_callback_data: `${NOTIFICATION}.1`,
  ...more,
})
const receipt = (word: string) => ({
  at: new Date('2026-11-21T11:59:30.000Z'),
  providerMessageId: WAMID,
  receiptId: `${WAMID}:${word}`,
  notificationId: NOTIFICATION,
  address: '+15551234567',
})
const wrote = (more: JsonObject): JsonObject => ({
  from: '15551234567',
  id: 'wamid.incoming',
  timestamp: '1795262370',
  ...more,
})
const reply = { at: receipt('').at, address: '+15551234567', receiptId: 'wamid.incoming' }

testProvider(whatsAppCloud, {
  vendor: () => metaVendor(),
  settings: settingsFor,
  message: () => whatsapp(),
  callbacks: [
    {
      name: 'sent, delivered and read',
      request: () => posted({ statuses: [status('sent'), status('delivered'), status('read')] }),
      receipts: [
        { kind: 'delivered', ...receipt('delivered') },
        { kind: 'opened', ...receipt('read') },
      ],
    },
    {
      name: 'failed',
      request: () =>
        posted({
          statuses: [
            status('failed', { errors: [{ code: 131047, title: 'Re-engagement message' }] }),
            status('failed', { id: 'wamid.2', errors: [{ code: 131026, title: 'Message undeliverable' }] }),
          ],
        }),
      receipts: [
        { ...receipt('failed'), kind: 'failed', code: 'content_refused', vendorCode: '131047' },
        {
          ...receipt('failed'),
          kind: 'failed',
          code: 'unavailable',
          vendorCode: '131026',
          providerMessageId: 'wamid.2',
          receiptId: 'wamid.2:failed',
        },
      ],
    },
    {
      // One app hears for all its numbers, at one address: another one may be a provider of ours as well.
      name: 'another number of the same app',
      request: () =>
        posted({
          metadata: { display_phone_number: '15550001111', phone_number_id: '999' },
          statuses: [status('delivered')],
          messages: [wrote({ type: 'text', text: { body: 'Stop' } })],
        }),
      receipts: [
        { kind: 'delivered', ...receipt('delivered') },
        { ...reply, kind: 'unsubscribed', detail: 'Stop' },
      ],
    },
    {
      name: 'answers',
      request: () =>
        posted({
          messages: [
            wrote({ type: 'text', text: { body: 'Thanks' }, context: { from: '1', id: WAMID } }),
            wrote({ type: 'button', button: { text: 'Confirm', payload: 'yes' } }),
            wrote({
              type: 'interactive',
              interactive: { type: 'button_reply', button_reply: { id: 'a', title: 'Later' } },
            }),
            wrote({ type: 'text', text: { body: 'Stop' } }),
          ],
        }),
      receipts: [
        { ...reply, kind: 'replied', detail: 'Thanks', providerMessageId: WAMID },
        { ...reply, kind: 'replied', detail: 'Confirm' },
        { ...reply, kind: 'replied', detail: 'Later' },
        { ...reply, kind: 'unsubscribed', detail: 'Stop' },
      ],
    },
  ],
})

/** One try against the local stand-in: what it got, what came of it. */
async function deliver(
  message: Message,
  more: { settings?: JsonObject; answer?: (asked: Asked) => HttpReply | undefined } = {},
) {
  const vendor = await metaVendor(more.answer)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(whatsAppCloud, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    const bodies = vendor.received.map(
      ({ raw }) => JSON.parse(raw.slice(raw.indexOf('\r\n\r\n') + 4)) as JsonObject,
    )
    return { sent, bodies }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

async function callback(request: CallbackRequest, settings = settingsFor()) {
  const http = openHttp()
  const opened = await openProvider(whatsAppCloud, settings, { http, now: () => NOW })
  try {
    return await opened.callback(request, new AbortController().signal)
  } finally {
    await http.close()
  }
}

const common = {
  messaging_product: 'whatsapp',
  recipient_type: 'individual',
  to: '+15551234567',
  biz_opaque_callback_data: `${NOTIFICATION}.1`,
}

test('text goes out, the id comes back', async () => {
  const { sent, bodies } = await deliver(whatsapp({ content: { body: 'Grüße' } }), {
    settings: { costPerMessage: 0.05, currency: 'EUR' },
  })
  assert.deepEqual(bodies, [{ ...common, type: 'text', text: { body: 'Grüße', preview_url: false } }])
  assert.deepEqual(sent, {
    outcome: 'sent',
    providerMessageId: WAMID,
    code: 'accepted',
    response: 'accepted',
    cost: { amount: 0.05, currency: 'EUR' },
  })
})

// covers: AUR-103
test('templates and media go out as Meta takes them', async () => {
  const bodyOf = async (content: Message['content']) => (await deliver(whatsapp({ content }))).bodies[0]
  const components = [{ type: 'body', parameters: [{ type: 'text', text: 'Alice' }] }]
  assert.deepEqual(
    await bodyOf({
      body: 'read by nobody',
      data: { template: { name: 'order_shipped', language: 'pt_BR', components } },
    }),
    {
      ...common,
      type: 'template',
      template: { name: 'order_shipped', language: { code: 'pt_BR' }, components },
    },
  )
  assert.deepEqual(
    await bodyOf({
      body: '',
      data: {
        template: { name: 'a', language: 'en', variables: { 10: 'ten', 2: 'two\n lines', 1: 'one' } },
      },
    }),
    {
      ...common,
      type: 'template',
      template: {
        name: 'a',
        language: { code: 'en' },
        components: [
          { type: 'body', parameters: ['one', 'two  lines', 'ten'].map(text => ({ type: 'text', text })) },
        ],
      },
    },
  )
  assert.deepEqual(
    await bodyOf({
      body: '',
      data: { template: { name: 'a', language: 'en', variables: { who: 'Alice' } } },
    }),
    {
      ...common,
      type: 'template',
      template: {
        name: 'a',
        language: { code: 'en' },
        components: [{ type: 'body', parameters: [{ type: 'text', parameter_name: 'who', text: 'Alice' }] }],
      },
    },
  )
  assert.deepEqual(await bodyOf({ body: 'Look', image: 'https://cdn.example/a.png' }), {
    ...common,
    type: 'image',
    image: { link: 'https://cdn.example/a.png', caption: 'Look' },
  })
  const link = 'https://cdn.example/bill.pdf'
  assert.deepEqual(
    await bodyOf({
      body: 'x'.repeat(2_000),
      data: { media: { type: 'document', link, filename: 'Bill 17.pdf' } },
    }),
    {
      ...common,
      type: 'document',
      document: { link, caption: `${'x'.repeat(1_023)}…`, filename: 'Bill 17.pdf' },
    },
  )
  assert.deepEqual(await bodyOf({ body: '', data: { media: { type: 'audio', link } } }), {
    ...common,
    type: 'audio',
    audio: { link },
  })
})

test('what cannot be sent as asked is refused, not left out', async () => {
  const bad: Message['content'][] = [
    { body: '' },
    { body: 'x', data: { media: { type: 'audio', link: 'https://cdn.example/a.ogg' } } },
    { body: 'x', data: { template: { contentSid: `HX${'a'.repeat(32)}` } } },
    { body: 'x', data: { template: { name: 'a' } } },
    { body: 'x', data: { template: { name: 'A b', language: 'en' } } },
    { body: 'x', data: { template: { name: 'a', language: 'english' } } },
    { body: 'x', data: { template: { name: 'a', language: 'en', components: ['a'] } } },
  ]
  for (const content of bad) {
    const { sent, bodies } = await deliver(whatsapp({ content }))
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, bodies.length], ['permanent', 'content_refused', 0])
  }
  const { sent } = await deliver(whatsapp({ to: '15551234567' }))
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.code, 'invalid_address')
})

// covers: AUR-113
test('after 24 hours the fallback template goes out instead of the text', async () => {
  const closed = ({ body }: Asked) =>
    (JSON.parse(body) as JsonObject).type === 'template'
      ? undefined
      : metaError(400, 131047, 'More than 24 hours have passed')
  // By what we know it is open; the vendor knows better.
  const message = whatsapp({
    content: { body: 'Order 17\nis on its way' },
    addressSettings: { wroteAt: NOW.getTime() - 60_000 },
  })
  const without = await deliver(message, { answer: closed })
  assert.ok(without.sent instanceof DeliveryError)
  assert.deepEqual([without.sent.kind, without.sent.code], ['permanent', 'content_refused'])
  assert.match(without.sent.response ?? '', /24 hours.*data\.template/)
  assert.equal(without.bodies.length, 1)

  const fallbackTemplate = { name: 'news', language: 'en_US' }
  const withText = await deliver(message, { answer: closed, settings: { fallbackTemplate } })
  assert.ok(!(withText.sent instanceof DeliveryError))
  assert.equal(withText.sent.providerMessageId, WAMID)
  assert.deepEqual(withText.bodies[1], {
    ...common,
    type: 'template',
    template: {
      name: 'news',
      language: { code: 'en_US' },
      components: [{ type: 'body', parameters: [{ type: 'text', text: 'Order 17 is on its way' }] }],
    },
  })
  const plain = await deliver(message, {
    answer: closed,
    settings: { fallbackTemplate: { ...fallbackTemplate, withText: false } },
  })
  assert.deepEqual(plain.bodies[1]?.template, { name: 'news', language: { code: 'en_US' } })

  // A template that is refused as well, or any other refusal, is not followed by another try.
  const never = () => metaError(400, 131047, 'no')
  const twice = await deliver(message, { answer: never, settings: { fallbackTemplate } })
  assert.ok(twice.sent instanceof DeliveryError)
  assert.equal(twice.bodies.length, 2)
  const own = whatsapp({ content: { body: '', data: { template: { name: 'a', language: 'en' } } } })
  assert.equal((await deliver(own, { answer: never, settings: { fallbackTemplate } })).bodies.length, 1)
  const other = () => metaError(400, 131026, 'no')
  assert.equal((await deliver(message, { answer: other, settings: { fallbackTemplate } })).bodies.length, 1)
})

test("Meta's errors are judged by their number", async () => {
  const table: [status: number, code: number, kind: string, word: string][] = [
    [400, 131026, 'rejected', 'unavailable'],
    [400, 131030, 'rejected', 'forbidden'],
    [400, 131047, 'permanent', 'content_refused'],
    [400, 131050, 'rejected', 'opted_out'],
    [400, 132001, 'permanent', 'content_refused'],
    [400, 100, 'permanent', 'invalid_request'],
    [401, 190, 'temporary', 'auth'],
    [403, 200, 'temporary', 'auth'],
    [403, 283, 'temporary', 'auth'],
    [400, 33, 'temporary', 'invalid_settings'],
    [400, 80007, 'rate_limited', 'rate_limited'],
    [500, 131000, 'temporary', 'server_error'],
    [503, 131016, 'temporary', 'unavailable'],
    // Not in the table: the status decides.
    [400, 999999, 'permanent', 'refused'],
    [500, 999999, 'temporary', 'server_error'],
  ]
  for (const [httpStatus, code, kind, word] of table) {
    const { sent } = await deliver(whatsapp(), { answer: () => metaError(httpStatus, code, 'no') })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, sent.vendorCode], [kind, word, String(code)], String(code))
  }
})

test('a pace that Meta names without a time has ours', async () => {
  const until = async (code: number, headers: Record<string, string> = {}) => {
    const answer = metaError(400, code, 'slower')
    const { sent } = await deliver(whatsapp(), {
      answer: () => ({ ...answer, headers: { ...answer.headers, ...headers } }),
    })
    assert.ok(sent instanceof DeliveryError)
    // One recipient's limit holds nobody else up.
    assert.equal(sent.alone, code === 131056)
    return (sent.until?.getTime() ?? 0) - NOW.getTime()
  }
  assert.equal(await until(131056), 6_000)
  assert.equal(await until(130429), 1_000)
  assert.equal(await until(131056, { 'retry-after': '30' }), 30_000)
})

test("the vendor's words are kept without the number and the text", async () => {
  const message = whatsapp({ content: { body: 'the text' } })
  const { sent } = await deliver(message, {
    answer: () => metaError(400, 131009, 'the text to +15551234567 or 15551234567'),
  })
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.response, '<content> to <address> or <address>')
})

test('an acceptance without an id is no acceptance', async () => {
  for (const body of [
    '{}',
    '[]',
    'ok',
    '{"messages":[]}',
    '{"messages":[{"id":7}]}',
    '{"messages":[null]}',
  ]) {
    const { sent } = await deliver(whatsapp(), { answer: () => ({ status: 200, body }) })
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['unknown', 'garbled_answer'], body)
  }
})

const refused = (error: unknown) => error instanceof AppError && error.code === 'unauthenticated'

test('the callback address is verified by its token', async () => {
  const ask = (query: Record<string, string>, settings = settingsFor()) =>
    callback(
      { method: 'GET', url: `${CALLBACK}?${new URLSearchParams(query)}`, headers: {}, body: Buffer.alloc(0) },
      settings,
    )
  const good = { 'hub.mode': 'subscribe', 'hub.verify_token': VERIFY_TOKEN, 'hub.challenge': '1158201444' }
  assert.deepEqual(await ask(good), {
    receipts: [],
    reply: { status: 200, contentType: 'text/plain', body: '1158201444' },
  })
  for (const bad of [
    { ...good, 'hub.verify_token': 'guessed' },
    { ...good, 'hub.verify_token': '' },
    { ...good, 'hub.mode': 'unsubscribe' },
    { ...good, 'hub.challenge': '<script>' },
    { 'hub.mode': 'subscribe', 'hub.challenge': '1' },
    {},
  ]) {
    await assert.rejects(ask(bad as Record<string, string>), refused)
  }
  const { verifyToken, ...without } = settingsFor()
  assert.equal(verifyToken, VERIFY_TOKEN)
  await assert.rejects(ask(good, without), refused)
})

test('without the app secret no callback is taken', async () => {
  const { appSecret, ...without } = settingsFor()
  assert.equal(appSecret, APP_SECRET)
  await assert.rejects(callback(posted({ statuses: [status('read')] }), without), refused)
  await assert.rejects(callback(posted({ statuses: [status('read')] }, 'another secret')), refused)
})

test('whatever is posted, signed, is read without failing', async () => {
  const names = fc.constantFrom(
    'id',
    'status',
    'timestamp',
    'recipient_id',
    'errors',
    'type',
    'text',
    'from',
    'context',
  )
  const events = fc.oneof(
    fc.jsonValue({ maxDepth: 2 }),
    fc.array(
      fc.dictionary(names, fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom('failed', 'text', '1'))),
    ),
  )
  await fc.assert(
    fc.asyncProperty(events, events, async (statuses, messages) => {
      const { receipts } = await callback(posted({ statuses: statuses as Json, messages: messages as Json }))
      for (const { at } of receipts) assert.ok(at <= NOW)
    }),
    { numRuns: 50 },
  )
})

test('what cannot be read is left out of a batch, the rest stands', async () => {
  const { receipts } = await callback(
    posted({
      statuses: [null, 'x', {}, status('deleted'), { ...status('read'), id: 7 }, status('delivered')],
      messages: [
        null,
        {},
        wrote({ type: 'system' }),
        wrote({ type: 'text' }),
        wrote({ from: 'x', type: 'text' }),
      ],
    }),
  )
  assert.deepEqual(receipts, [{ kind: 'delivered', ...receipt('delivered') }])
  const late = status('delivered', { timestamp: '99999999999', recipient_id: 'group', errors: 'x' })
  const [first] = (await callback(posted({ statuses: [late] }))).receipts
  assert.deepEqual([first?.at, first?.address], [NOW, undefined])
  const body = Buffer.from('not json')
  const signature = createHmac('sha256', APP_SECRET).update(body).digest('hex')
  const odd = { ...posted({}), body, headers: { 'x-hub-signature-256': `sha256=${signature}` } }
  assert.deepEqual((await callback(odd)).receipts, [])
})

// covers: AUR-103, AUR-113
test('free text goes out while the recipient is known to have written within 24 hours, else the template', async () => {
  const fallbackTemplate = { name: 'news', language: 'en_US' }
  const typeAfter = async (wroteAt: number | undefined, settings: JsonObject, data?: JsonObject) => {
    const message = whatsapp({
      content: { body: 'Hello', ...(data && { data }) },
      ...(wroteAt !== undefined && { addressSettings: { wroteAt } }),
    })
    const { bodies } = await deliver(message, { settings })
    assert.equal(bodies.length, 1)
    return [bodies[0]!.type, (bodies[0]!.template as JsonObject)?.name]
  }
  const hours = (n: number) => NOW.getTime() - n * 3_600_000
  assert.deepEqual(await typeAfter(hours(23), { fallbackTemplate }), ['text', undefined])
  assert.deepEqual(await typeAfter(hours(24), { fallbackTemplate }), ['template', 'news'])
  assert.deepEqual(await typeAfter(hours(23.995), { fallbackTemplate }), ['template', 'news'])
  assert.deepEqual(await typeAfter(undefined, { fallbackTemplate }), ['template', 'news'])
  // Nothing to say instead; nobody tells us who writes; a template of the message's own.
  assert.deepEqual(await typeAfter(undefined, {}), ['text', undefined])
  const deaf = { fallbackTemplate, appSecret: undefined } as unknown as JsonObject
  assert.deepEqual(await typeAfter(undefined, deaf), ['text', undefined])
  const own = { template: { name: 'order_shipped', language: 'en' } }
  assert.deepEqual(await typeAfter(undefined, { fallbackTemplate }, own), ['template', 'order_shipped'])
})
