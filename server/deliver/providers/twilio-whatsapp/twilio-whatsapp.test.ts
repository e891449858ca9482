import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import { exampleMessage, type HttpReply, testProvider, type Vendor } from '../conformance.ts'
import {
  ACCOUNT_SID,
  againstContract,
  AUTH_TOKEN,
  refusal,
  SID,
  signedForm,
  twilioVendor,
} from '../twilio-vendor.ts'
import { twilioWhatsApp } from './twilio-whatsapp.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const CALLBACK = 'https://carillon.example/webhooks/twilio-whatsapp'
const REPORTED = `${CALLBACK}?delivery=${NOTIFICATION}.1`
const CONTENT_SID = `HX${'ab'.repeat(16)}`

const whatsapp = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'whatsapp', to: '+15551234567', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  accountSid: ACCOUNT_SID,
  authToken: AUTH_TOKEN,
  from: '+15557654321',
  statusCallback: CALLBACK,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

const status = (word: string, more: Record<string, string> = {}) =>
  signedForm(REPORTED, {
    AccountSid: ACCOUNT_SID,
    ChannelPrefix: 'whatsapp',
    From: 'whatsapp:+15557654321',
    MessageSid: SID,
    MessageStatus: word,
    SmsSid: SID,
    SmsStatus: word,
    To: 'whatsapp:+15551234567',
    ...more,
  })
const receipt = (word: string) => ({
  at: NOW,
  providerMessageId: SID,
  receiptId: `${SID}:${word}`,
  notificationId: NOTIFICATION,
  address: '+15551234567',
})

testProvider(twilioWhatsApp, {
  vendor: () => twilioVendor(),
  settings: settingsFor,
  message: () => whatsapp(),
  callbacks: [
    {
      name: 'delivered',
      request: () => status('delivered'),
      receipts: [{ kind: 'delivered', ...receipt('delivered') }],
    },
    {
      name: 'read',
      request: () => status('read', { EventType: 'READ' }),
      receipts: [{ kind: 'opened', ...receipt('read') }],
    },
    {
      name: 'outside the 24 hours',
      request: () => status('failed', { ErrorCode: '63016' }),
      receipts: [{ ...receipt('failed'), kind: 'failed', code: 'content_refused', vendorCode: '63016' }],
    },
    {
      name: 'an answer to one of ours',
      request: () =>
        signedForm(CALLBACK, {
          MessageSid: `SM${'2'.repeat(32)}`,
          SmsStatus: 'received',
          From: 'whatsapp:+15551234567',
          To: 'whatsapp:+15557654321',
          Body: 'Thanks!',
          OriginalRepliedMessageSid: SID,
        }),
      receipts: [
        {
          kind: 'replied',
          at: NOW,
          address: '+15551234567',
          detail: 'Thanks!',
          providerMessageId: SID,
          receiptId: `SM${'2'.repeat(32)}`,
        },
      ],
    },
  ],
})

async function deliver(message: Message, more: { settings?: JsonObject; refuses?: HttpReply } = {}) {
  const vendor = await twilioVendor(more)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(twilioWhatsApp, settings, { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    const raw = vendor.received[0]?.raw ?? ''
    const body = raw.slice(raw.indexOf('\r\n\r\n') + 4)
    return { sent, body, form: new URLSearchParams(body), requests: vendor.received.length }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

// covers: AUR-103
test('text, media and templates go out as Twilio takes them', async t => {
  const text = await deliver(whatsapp({ content: { body: 'Hello' } }))
  assert.deepEqual(Object.fromEntries(text.form), {
    To: 'whatsapp:+15551234567',
    From: 'whatsapp:+15557654321',
    Body: 'Hello',
    StatusCallback: REPORTED,
  })
  const image = await deliver(
    whatsapp({ content: { body: 'Look', image: 'https://cdn.example/a picture.png' } }),
  )
  assert.equal(image.form.get('MediaUrl'), 'https://cdn.example/a%20picture.png')
  assert.equal(image.form.get('Body'), 'Look')
  const document = await deliver(
    whatsapp({
      content: { body: '', data: { media: { type: 'document', link: 'https://cdn.example/a.pdf' } } },
    }),
  )
  assert.equal(document.form.get('MediaUrl'), 'https://cdn.example/a.pdf')
  assert.equal(document.form.get('Body'), null)
  const template = await deliver(
    whatsapp({
      content: {
        body: 'read by nobody',
        data: { template: { contentSid: CONTENT_SID, variables: { 1: 'Alice\nB.', 2: 17 } } },
      },
    }),
  )
  assert.equal(template.form.get('ContentSid'), CONTENT_SID)
  assert.equal(template.form.get('ContentVariables'), '{"1":"Alice B.","2":"17"}')
  assert.equal(template.form.get('Body'), null)
  for (const { body } of [text, image, document, template]) {
    const problems = againstContract('Messages', body)
    if (problems === undefined) return t.skip('the vendor contracts are not beside this checkout')
    assert.deepEqual(problems, [])
  }
})

test('what cannot be sent as asked is refused, not left out', async () => {
  const bad: JsonObject[] = [
    { template: 'order_shipped' },
    { template: {} },
    { template: { name: 'order_shipped', language: 'en' } },
    { template: { contentSid: 'HX1' } },
    { template: { contentSid: CONTENT_SID, variables: { 1: ['a'] } } },
    { template: { contentSid: CONTENT_SID, variables: 'a' } },
    { template: { contentSid: CONTENT_SID, components: 'a' } },
    { media: 'https://cdn.example/a.png' },
    { media: { type: 'sticker', link: 'https://cdn.example/a.png' } },
    { media: { link: 'http://cdn.example/a.png' } },
    { media: { link: 'https://user:secret@cdn.example/a.png' } },
    { media: { link: 'file:///etc/passwd' } },
  ]
  for (const data of bad) {
    const { sent, requests } = await deliver(whatsapp({ content: { body: 'Hello', data } }))
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code, requests], ['permanent', 'content_refused', 0])
  }
  const { sent } = await deliver(whatsapp({ to: 'whatsapp:+15551234567' }))
  assert.ok(sent instanceof DeliveryError)
  assert.equal(sent.code, 'invalid_address')
})

// covers: AUR-113
test('outside the 24 hours the answer says what to do', async () => {
  const { sent } = await deliver(whatsapp(), { refuses: refusal(400, 63016, 'Failed to send freeform') })
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code, sent.vendorCode], ['permanent', 'content_refused', '63016'])
  assert.match(sent.response ?? '', /24 hours.*contentSid/)
})

// covers: AUR-103, AUR-113
test('with a fallback template, free text goes out only while the recipient is known to have written', async () => {
  const settings = { fallbackTemplate: { contentSid: CONTENT_SID, withText: true } }
  const content = { body: 'Order 17\nis on its way' }
  const hours = (n: number) => NOW.getTime() - n * 3_600_000
  const open = { content, addressSettings: { wroteAt: hours(1) } }
  const text = await deliver(whatsapp(open), { settings })
  assert.deepEqual([text.form.get('Body'), text.form.get('ContentSid')], [content.body, null])
  const closed: (JsonObject | undefined)[] = [undefined, {}, { wroteAt: hours(24) }]
  for (const addressSettings of closed) {
    const { form, requests } = await deliver(whatsapp({ content, addressSettings }), { settings })
    assert.deepEqual([form.get('Body'), form.get('ContentSid'), requests], [null, CONTENT_SID, 1])
    assert.equal(form.get('ContentVariables'), '{"1":"Order 17 is on its way"}')
  }
  const bare = await deliver(whatsapp({ content }), {
    settings: { fallbackTemplate: { contentSid: CONTENT_SID, withText: false } },
  })
  assert.deepEqual([bare.form.get('ContentSid'), bare.form.get('ContentVariables')], [CONTENT_SID, null])
  // We thought it open, and the vendor says at once that it is not: two requests, of which one was refused.
  const late = await deliver(whatsapp(open), { settings, refuses: refusal(400, 63016, 'freeform') })
  assert.equal(late.requests, 2)
  const other = await deliver(whatsapp(open), { settings, refuses: refusal(400, 63024, 'recipient') })
  assert.equal(other.requests, 1)
})
