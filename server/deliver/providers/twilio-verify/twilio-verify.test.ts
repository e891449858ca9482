import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { VERIFICATION_EVENT } from '../../../people/verification-routes.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from '../conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, refusal } from '../twilio-vendor.ts'
import { twilioVerify } from './twilio-verify.ts'

const SERVICE = `VA${'0123456789abcdef'.repeat(2)}`
const SID = `VE${'fedcba9876543210'.repeat(2)}`
const NOW = new Date('2026-11-21T12:00:00.000Z')

const code = (more: Partial<Message> = {}) =>
  exampleMessage({
    channel: 'sms',
    to: '+15551234567',
    eventType: VERIFICATION_EVENT,
    content: { body: '123456 is your code.', data: { code: '123456' } },
    ...more,
  })

/** Verify as its documentation has it: https://www.twilio.com/docs/verify/api/verification */
const verifyVendor = (): Promise<Vendor> =>
  httpVendor({ refuse: refusal(400, 60205, 'SMS is not supported by landline phone number') }, asked =>
    strict(asked),
  )

function strict({ method, path, headers, body }: Asked): HttpReply {
  const basic = Buffer.from(`${ACCOUNT_SID}:${AUTH_TOKEN}`).toString('base64')
  if (headers.authorization !== `Basic ${basic}`) return refusal(401, 20003, 'Authenticate')
  if (method !== 'POST' || path !== `/v2/Services/${SERVICE}/Verifications`) {
    return refusal(404, 20404, 'The requested resource was not found')
  }
  const form = new URLSearchParams(body)
  if (!/^\+[1-9]\d{6,14}$/.test(form.get('To') ?? '')) return refusal(400, 60200, 'Invalid parameter: To')
  if (form.get('Channel') !== 'sms') return refusal(400, 60200, 'Invalid parameter: Channel')
  if (!/^.{4,10}$/.test(form.get('CustomCode') ?? ''))
    return refusal(400, 60200, 'Invalid parameter: CustomCode')
  return {
    status: 201,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ sid: SID, service_sid: SERVICE, status: 'pending', channel: 'sms', valid: false }),
  }
}

const settingsFor = (vendor?: Vendor): JsonObject => ({
  accountSid: ACCOUNT_SID,
  authToken: AUTH_TOKEN,
  serviceSid: SERVICE,
  ...(vendor === undefined ? {} : { baseUrl: `http://${vendor.host}:${vendor.port}` }),
})

testProvider(twilioVerify, {
  vendor: verifyVendor,
  settings: settingsFor,
  message: () => code(),
  notApplicable: {
    'idempotency key': 'Verify takes none',
    unicode: 'the words are those of Verify',
  },
})

async function deliver(message: Message) {
  const vendor = await verifyVendor()
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const opened = await openProvider(twilioVerify, settingsFor(vendor), { http, now: () => NOW })
  try {
    const sent = await opened.send(message, new AbortController().signal)
    const raw = vendor.received[0]!.raw
    return { sent, form: new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4)) }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

test('number, code and language go out, the SID comes back; all of it is in the published contract', async t => {
  const { sent, form } = await deliver(
    code({ content: { body: 'Seu código', data: { code: '654321' }, language: 'pt-BR' } }),
  )
  assert.deepEqual(Object.fromEntries(form), {
    To: '+15551234567',
    Channel: 'sms',
    CustomCode: '654321',
    Locale: 'pt-BR',
  })
  assert.deepEqual(sent, { outcome: 'sent', providerMessageId: SID, code: 'pending', response: 'pending' })

  let contract: string
  try {
    const file = '../../../../../shared/contracts/twilio-verify-v2.openapi.json'
    contract = readFileSync(new URL(file, import.meta.url), 'utf8')
  } catch {
    return t.skip('the vendor contracts are not beside this checkout')
  }
  const { paths } = JSON.parse(contract)
  const { schema } =
    paths['/v2/Services/{ServiceSid}/Verifications'].post.requestBody.content[
      'application/x-www-form-urlencoded'
    ]
  for (const name of schema.required as string[]) assert.ok(form.has(name), name)
  for (const name of form.keys()) assert.ok(name in schema.properties, name)
})

test('nothing but codes goes this way', async () => {
  const http = openHttp()
  const opened = await openProvider(twilioVerify, settingsFor(), { http, now: () => NOW })
  try {
    assert.equal(opened.accepts(code()), true)
    assert.equal(opened.accepts(code({ eventType: 'shop.order' })), false)
    assert.equal(opened.accepts(code({ content: { body: '123456' } })), false)
  } finally {
    await opened.close()
    await http.close()
  }
})
