import assert from 'node:assert/strict'
import { test } from 'node:test'
import { VERIFICATION_EVENT } from '../../../people/verification-routes.ts'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { type OpenedProvider, openProvider } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import { type Behaviour, testProvider } from '../conformance.ts'
import { NOW } from '../one-delivery.ts'
import {
  againstVerifyContract,
  CODE_EVENT,
  codeMessage,
  NOT_APPLICABLE,
  verifySettings,
  type VerifyVendor,
  verifyVendor,
} from '../twilio-verify-vendor.ts'
import { twilioVerify } from './twilio-verify.ts'

testProvider(twilioVerify, {
  vendor: () => verifyVendor(),
  settings: verifySettings,
  message: () => codeMessage(),
  notApplicable: NOT_APPLICABLE,
})

const TO = '+15551234567'
const never = new AbortController().signal

interface Scene {
  vendor: VerifyVendor
  opened: OpenedProvider
  send(more?: Partial<Message>): Promise<string>
}

async function scene(
  script: (world: Scene) => Promise<void>,
  { codes = 'carillon', ...own }: { codes?: 'carillon' | 'twilio'; timeoutSeconds?: number } = {},
) {
  const vendor = await verifyVendor({ ours: codes === 'carillon' })
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings: JsonObject = { ...verifySettings(vendor), codes, timeoutSeconds: 20, ...own }
  const opened = await openProvider(twilioVerify, settings, { http, now: () => NOW })
  try {
    await script({
      vendor,
      opened,
      send: async more => (await opened.send(codeMessage(more), never)).providerMessageId!,
    })
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}
const formOf = (vendor: VerifyVendor, at = -1) => {
  const { raw } = vendor.received.at(at)!
  return Object.fromEntries(new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4)))
}
const pathOf = (vendor: VerifyVendor) =>
  /^POST \S*\/VA[0-9a-f]{32}(\S+)/.exec(vendor.received.at(-1)!.raw)![1]

test('number, code and language go out, the SID comes back', async () => {
  assert.equal(CODE_EVENT, VERIFICATION_EVENT)
  await scene(async ({ vendor, opened }) => {
    const content = { body: 'Seu código', data: { code: '654321' }, language: 'pt-BR' }
    const sent = await opened.send(codeMessage({ content }), never)
    assert.deepEqual(formOf(vendor), { To: TO, Channel: 'sms', CustomCode: '654321', Locale: 'pt-BR' })
    const { providerMessageId, ...rest } = sent
    assert.match(providerMessageId!, /^VE[0-9a-f]{32}$/)
    assert.deepEqual(rest, { outcome: 'sent', code: 'pending', response: 'pending' })
  })
  await scene(
    async ({ vendor, send }) => {
      await send()
      assert.deepEqual(formOf(vendor), { To: TO, Channel: 'sms' }, 'the code is Twilio’s')
      assert.notEqual(vendor.codes.get(TO), '123456')
    },
    { codes: 'twilio' },
  )
})

test('its own words are in the reader’s language, where that is one', async () => {
  await scene(async ({ vendor, send }) => {
    for (const [language, said] of [
      ['zh-Hant-TW', 'zh-Hant-TW'],
      ['x&To=+1900', undefined],
      [7, undefined],
    ] as const) {
      await send({ content: { body: 'x', data: { code: '1234', language } } })
      assert.equal(formOf(vendor).Locale, said)
    }
  })
})

test('the stand-in holds every form against the published contract', t => {
  if (againstVerifyContract('/Verifications', '') === undefined) {
    return t.skip('the vendor contracts are not beside this checkout')
  }
  assert.deepEqual(againstVerifyContract('/Verifications', 'To=x&Channel=sms&Locale=de&CustomCode=1234'), [])
  assert.ok(againstVerifyContract('/Verifications', 'To=x')!.length > 0, 'a field is missing')
  assert.ok(againstVerifyContract('/VerificationCheck', 'Code=1234&VerificationSid=VE1')!.length > 0)
  assert.ok(againstVerifyContract(`/Verifications/VE${'0'.repeat(32)}`, 'Status=done')!.length > 0)
})

test('nothing but codes goes this way', async () => {
  await scene(async ({ opened }) => {
    assert.equal(opened.accepts(codeMessage()), true)
    assert.equal(opened.accepts(codeMessage({ eventType: 'shop.order' })), false)
    assert.equal(opened.accepts(codeMessage({ content: { body: '123456' } })), false)
  })
})

test('a code of Twilio’s is checked by Twilio: right, wrong, too often, too late', async () => {
  await scene(
    async ({ vendor, opened, send }) => {
      const messageId = await send()
      const code = vendor.codes.get(TO)!
      const confirm = (typed: string, about: { messageId?: string } = { messageId }) =>
        opened.confirmCode!({ to: TO, code: typed, ours: false, ...about }, never)
      assert.equal(await confirm('0000'), 'wrong')
      assert.deepEqual(
        [pathOf(vendor), formOf(vendor)],
        ['/VerificationCheck', { Code: '0000', VerificationSid: messageId }],
      )
      assert.equal(await confirm(code), 'right')
      assert.deepEqual(vendor.approved, [TO])
      assert.equal(await confirm(code), 'expired', 'it is forgotten once it was right')

      // Sent, and no answer came: the address says which one is meant.
      await send()
      assert.equal(await confirm(vendor.codes.get(TO)!, {}), 'right')
      assert.equal(formOf(vendor).To, TO)

      const third = await send()
      for (let n = 0; n < 5; n++) assert.equal(await confirm('0000', { messageId: third }), 'wrong')
      assert.equal(await confirm(vendor.codes.get(TO)!, { messageId: third }), 'spent')
      vendor.expire()
      assert.equal(await confirm(vendor.codes.get(TO)!, { messageId: third }), 'expired')
    },
    { codes: 'twilio' },
  )
})

test('of a code of ours Twilio is told that it was right, which ends its limits on the number', async () => {
  await scene(async ({ vendor, opened, send }) => {
    const messageId = await send()
    const confirm = (ours: boolean) => opened.confirmCode!({ to: TO, code: '123456', messageId, ours }, never)
    const before = vendor.received.length
    assert.equal(await confirm(false), 'wrong')
    assert.equal(vendor.received.length, before, 'that is not Twilio’s to say')
    assert.equal(await confirm(true), 'right')
    assert.deepEqual(
      [pathOf(vendor), formOf(vendor)],
      [`/Verifications/${messageId}`, { Status: 'approved' }],
    )
    assert.deepEqual(vendor.approved, [TO])
    // That it cannot be told is no reason to refuse somebody.
    vendor.behave('fail')
    assert.equal(await confirm(true), 'right')
    vendor.behave('reset')
    assert.equal(await confirm(true), 'right')
    assert.equal(await opened.confirmCode!({ to: TO, code: '123456', ours: true }, never), 'right')
  })
})

test('a check that cannot be made says so, and nothing of the code', async () => {
  const cases: [Behaviour, string, string][] = [
    ['fail', 'temporary', 'server_error'],
    ['rate_limit', 'rate_limited', 'rate_limited'],
    ['reset', 'unknown', 'no_answer'],
    ['garbage', 'unknown', 'no_answer'],
    ['hang', 'unknown', 'timeout'],
  ]
  for (const [behaviour, kind, code] of cases) {
    await scene(
      async ({ vendor, opened }) => {
        vendor.behave(behaviour)
        const given = { to: TO, code: '918273', messageId: `VE${'a'.repeat(32)}`, ours: false }
        const error = await opened.confirmCode!(given, never).catch((thrown: unknown) => thrown)
        assert.ok(error instanceof DeliveryError, behaviour)
        assert.equal(error.kind, kind, behaviour)
        if (behaviour !== 'garbage') assert.equal(error.code, code, behaviour)
        assert.doesNotMatch(`${error.message} ${error.response} ${String(error.cause)}`, /918273|5551234567/)
      },
      { codes: 'twilio', timeoutSeconds: behaviour === 'hang' ? 0.2 : 20 },
    )
  }
})

test('each of Verify’s errors has its meaning', async () => {
  await scene(
    async ({ vendor, opened, send }) => {
      for (let n = 0; n < 5; n++) await send()
      const error = await opened
        .send(codeMessage(), never)
        .catch((thrown: unknown) => thrown as DeliveryError)
      assert.ok(error instanceof DeliveryError)
      assert.deepEqual([error.kind, error.code, error.vendorCode], ['rejected', 'rate_limited', '60203'])
      vendor.expire()
      await send()
    },
    { codes: 'twilio' },
  )
  // Custom codes are not switched on for the service: whoever set it up mends it, and another provider may serve.
  const vendor = await verifyVendor({ ours: false })
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const opened = await openProvider(twilioVerify, verifySettings(vendor), { http, now: () => NOW })
  const error = await opened.send(codeMessage(), never).catch((thrown: unknown) => thrown as DeliveryError)
  await opened.close()
  await vendor.close()
  await http.close()
  assert.ok(error instanceof DeliveryError)
  assert.deepEqual([error.kind, error.code, error.vendorCode], ['temporary', 'invalid_settings', '60204'])
})
