import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../../../errors.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider, readSettings } from '../../open-provider.ts'
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
import { spoken, twilioVoice } from './twilio-voice.ts'

const NOW = new Date('2026-11-21T12:00:00.000Z')
const NOTIFICATION = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
const CALLBACK = 'https://carillon.example/webhooks/twilio-voice'
const REPORTED = `${CALLBACK}?delivery=${NOTIFICATION}.1`
const CALL_SID = SID.replace('SM', 'CA')

const call = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'voice', to: '+15551234567', ...more })
const settingsFor = (vendor?: Vendor): JsonObject => ({
  accountSid: ACCOUNT_SID,
  authToken: AUTH_TOKEN,
  from: '+15557654321',
  statusCallback: CALLBACK,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

const ENTITIES: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" }

/** XML's character data, read as XML does. */
const plain = (text = '') =>
  text.replaceAll(/&([^;]*);|&/g, (entity, name: string | undefined) => {
    const character = ENTITIES[name ?? '']
    assert.ok(character !== undefined, `${entity} is no entity`)
    return character
  })

const status = (word: string, more: Record<string, string> = {}) =>
  signedForm(REPORTED, {
    AccountSid: ACCOUNT_SID,
    CallSid: CALL_SID,
    CallStatus: word,
    CallDuration: '21',
    From: '+15557654321',
    SequenceNumber: '0',
    Timestamp: 'Sat, 21 Nov 2026 11:59:30 +0000',
    To: '+15551234567',
    ...more,
  })
const receipt = (word: string) => ({
  at: new Date('2026-11-21T11:59:30.000Z'),
  providerMessageId: CALL_SID,
  receiptId: `${CALL_SID}:${word}`,
  notificationId: NOTIFICATION,
  address: '+15551234567',
})

testProvider(twilioVoice, {
  vendor: () => twilioVendor({ decode: plain }),
  settings: settingsFor,
  message: () => call(),
  callbacks: [
    {
      name: 'completed',
      request: () => status('completed'),
      receipts: [{ kind: 'delivered', ...receipt('completed') }],
    },
    {
      name: 'nobody answered',
      request: () => status('no-answer'),
      receipts: [{ ...receipt('no-answer'), kind: 'failed', code: 'unavailable', vendorCode: 'no-answer' }],
    },
    {
      name: 'busy',
      request: () => status('busy'),
      receipts: [{ ...receipt('busy'), kind: 'failed', code: 'unavailable', vendorCode: 'busy' }],
    },
    {
      name: 'no such number',
      request: () => status('failed', { SipResponseCode: '404' }),
      receipts: [{ ...receipt('failed'), kind: 'bounced', code: 'unknown_address', vendorCode: 'SIP 404' }],
    },
    {
      name: 'not connected',
      request: () => status('failed', { SipResponseCode: '503' }),
      receipts: [{ ...receipt('failed'), kind: 'failed', code: 'connection_failed', vendorCode: 'failed' }],
    },
    {
      name: 'not allowed there',
      request: () => status('failed', { ErrorCode: '13227' }),
      receipts: [{ ...receipt('failed'), kind: 'failed', code: 'forbidden', vendorCode: '13227' }],
    },
    { name: 'ringing', request: () => status('ringing'), receipts: [] },
  ],
})

async function deliver(
  messages: Message[],
  more: { settings?: JsonObject; accepts?: object; refuses?: HttpReply } = {},
) {
  const vendor = await twilioVendor(more)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(twilioVoice, settings, { http, now: () => NOW })
  try {
    const sent = await opened.sendMany(messages, new AbortController().signal)
    const bodies = vendor.received.map(({ raw }) => raw.slice(raw.indexOf('\r\n\r\n') + 4))
    return { sent, bodies }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

/** What Twilio would say, read as XML; throws on what is no such document. */
function sayings(body: string | undefined): { attributes: string; text: string }[] {
  const twiml = new URLSearchParams(body).get('Twiml') ?? ''
  const whole =
    /^<Response><Say ([^<>]*)>([^<>]*)<\/Say><Pause length="1"\/><Say ([^<>]*)>([^<>]*)<\/Say><\/Response>$/.exec(
      twiml,
    )
  assert.ok(whole !== null, twiml)
  assert.ok(twiml.length <= 4_000)
  const [, first = '', firstText, second = '', secondText] = whole
  return [
    { attributes: first, text: plain(firstText) },
    { attributes: second, text: plain(secondText) },
  ]
}

test('the text is said twice, escaped, in its language', async t => {
  const body = 'Grüße, 你好 & <tagged> „quoted“ it\'s "fine"'
  const { bodies } = await deliver([
    call({ content: { body, language: 'de-CH' } }),
    call({ content: { body } }),
  ])
  assert.deepEqual(sayings(bodies[0]), Array(2).fill({ attributes: 'language="de-DE"', text: body }))
  assert.equal(sayings(bodies[1])[0]?.attributes, 'language="en-US"')
  const [form] = bodies.map(each => new URLSearchParams(each))
  assert.equal(form?.get('To'), '+15551234567')
  assert.equal(form?.get('From'), '+15557654321')
  assert.equal(form?.get('Timeout'), '25')
  assert.equal(form?.get('StatusCallback'), REPORTED)
  const problems = againstContract('Calls', bodies[0] ?? '')
  if (problems === undefined) return t.skip('the vendor contracts are not beside this checkout')
  assert.deepEqual(problems, [])
})

test('whatever the text holds, it is one document within the limit', async () => {
  const texts = fc.sample(
    fc.oneof(
      fc.string({ unit: 'binary', maxLength: 6_000, size: 'max' }),
      fc.string({
        unit: fc.constantFrom('&', '<', '"', 'a', '👩‍👩‍👧‍👦', '\0', '\ud800'),
        maxLength: 6_000,
        size: 'max',
      }),
    ),
    40,
  )
  const { sent, bodies } = await deliver(texts.map(body => call({ content: { body } })))
  assert.ok(sent.every(each => !(each instanceof DeliveryError)))
  assert.equal(bodies.length, texts.length)
  for (const body of bodies) sayings(body)
  const long = await deliver([call({ content: { body: '&'.repeat(4_000) } })])
  const [first] = sayings(long.bodies[0])
  // 4,000 characters hold two times 390 escaped ampersands beside the markup.
  assert.ok((first?.text.length ?? 0) > 380 && first?.text.endsWith('…'))
})

test('languages are named as Twilio names them', () => {
  const table: [string | undefined, string | undefined][] = [
    ['en-GB', 'en-GB'],
    ['en-gb', 'en-GB'],
    ['en', 'en-US'],
    ['en-JM', 'en-US'],
    ['pt', 'pt-BR'],
    ['pt-PT', 'pt-PT'],
    ['ar-EG', 'arb'],
    ['no', 'nb-NO'],
    ['zh-Hant', 'zh-TW'],
    ['zh-Hans-CN', 'zh-CN'],
    ['zh', 'zh-CN'],
    ['tlh', undefined],
    ['not a tag', undefined],
    ['', undefined],
    [undefined, undefined],
  ]
  for (const [tag, expected] of table) assert.equal(spoken(tag), expected, tag)
})

test('a language that Twilio does not speak cannot be the default', () => {
  readSettings(twilioVoice.settings, { ...settingsFor(), language: 'fr-CA' })
  for (const more of [{ language: 'tlh' }, { from: 'Carillon' }, { voice: 'a"b' }, { ringSeconds: 4 }]) {
    assert.throws(() => readSettings(twilioVoice.settings, { ...settingsFor(), ...more }), AppError)
  }
})

test('voice and ring time are settings; a call has a cost', async () => {
  const { sent, bodies } = await deliver([call({ content: { body: 'x', language: 'tlh' } })], {
    settings: { voice: 'Polly.Amy', language: 'en-GB', ringSeconds: 40, costPerMessage: 0.014 },
  })
  assert.equal(sayings(bodies[0])[0]?.attributes, 'language="en-GB" voice="Polly.Amy"')
  assert.equal(new URLSearchParams(bodies[0]).get('Timeout'), '40')
  assert.deepEqual(sent, [
    {
      outcome: 'sent',
      providerMessageId: CALL_SID,
      code: 'queued',
      response: 'queued',
      cost: { amount: 0.014, currency: 'USD' },
    },
  ])
})

test("Twilio's errors about calls are judged by their number", async () => {
  const table: [code: number, kind: string, word: string][] = [
    [21217, 'bounced', 'invalid_address'],
    // Neither says that nobody has the number: 13224 is also said while no carrier gets through.
    [21214, 'rejected', 'unavailable'],
    [13224, 'rejected', 'unavailable'],
    [10004, 'rate_limited', 'rate_limited'],
    [13225, 'rejected', 'forbidden'],
    [21215, 'rejected', 'forbidden'],
    [21210, 'temporary', 'invalid_settings'],
    [12100, 'permanent', 'content_refused'],
  ]
  for (const [code, kind, word] of table) {
    const { sent } = await deliver([call()], { refuses: refusal(400, code, 'no') })
    const [error] = sent
    assert.ok(error instanceof DeliveryError)
    assert.deepEqual([error.kind, error.code, error.vendorCode], [kind, word, String(code)])
  }
})
