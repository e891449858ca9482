import assert from 'node:assert/strict'
import { test } from 'node:test'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import { testProvider } from '../conformance.ts'
import { NOW } from '../one-delivery.ts'
import { codeMessage, NOT_APPLICABLE, verifySettings, verifyVendor } from '../twilio-verify-vendor.ts'
import { twilioVerifyWhatsApp } from './twilio-verify-whatsapp.ts'

const to = '+15551234567'
const code = (address = to) => codeMessage({ channel: 'whatsapp', to: address })

testProvider(twilioVerifyWhatsApp, {
  vendor: () => verifyVendor({ by: 'whatsapp' }),
  settings: verifySettings,
  message: () => code(),
  notApplicable: NOT_APPLICABLE,
})

test('twilio-verify-whatsapp: the code goes by its channel, and is confirmed by its address', async () => {
  const vendor = await verifyVendor({ by: 'whatsapp', ours: false })
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...verifySettings(vendor), codes: 'twilio' }
  const opened = await openProvider(twilioVerifyWhatsApp, settings, { http, now: () => NOW })
  const { signal } = new AbortController()
  try {
    const { providerMessageId: messageId } = await opened.send(code(), signal)
    const { raw } = vendor.received[0]!
    const form = new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4))
    assert.deepEqual(Object.fromEntries(form), { To: to, Channel: 'whatsapp' })
    const typed = vendor.codes.get(to)!
    assert.equal(await opened.confirmCode!({ to, code: typed, messageId, ours: false }, signal), 'right')
    for (const wrong of ['5551234567', 'ann@example.org']) {
      const error = await opened.send(code(wrong), signal).catch((thrown: unknown) => thrown)
      assert.ok(error instanceof DeliveryError, wrong)
      assert.deepEqual([error.kind, error.code], ['permanent', 'invalid_address'], wrong)
    }
    assert.equal(vendor.received.length, 2)
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
})
