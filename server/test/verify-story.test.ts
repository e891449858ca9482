import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, beforeEach, test } from 'node:test'
import type { Vendor } from '../deliver/providers/conformance.ts'
import { ACCOUNT_SID, AUTH_TOKEN, twilioVendor } from '../deliver/providers/twilio-vendor.ts'
import { verifySettings, type VerifyVendor, verifyVendor } from '../deliver/providers/twilio-verify-vendor.ts'
import { type Answered, eventually, type TestApp, testApp } from './app.ts'

/** Numbers get codes of Twilio's, mail those of ours; plain texts stand by. */
let t: TestApp
let verify: VerifyVendor
let mails: VerifyVendor
let texts: Vendor
let folder: string
before(async () => {
  verify = await verifyVendor({ ours: false })
  mails = await verifyVendor({ by: 'email' })
  texts = await twilioVendor()
  folder = mkdtempSync(join(tmpdir(), 'carillon-verify-'))
  const file = join(folder, 'providers.yaml')
  const providers = [
    {
      provider: 'twilio',
      settings: {
        accountSid: ACCOUNT_SID,
        authToken: AUTH_TOKEN,
        from: '+15005550006',
        baseUrl: `http://127.0.0.1:${texts.port}`,
      },
    },
    // Behind the one that takes everything, and behind the mail server: codes find it all the same.
    { provider: 'twilio-verify', settings: { ...verifySettings(verify), codes: 'twilio' } },
    { provider: 'twilio-verify-email', settings: verifySettings(mails) },
  ]
  writeFileSync(file, JSON.stringify(providers))
  t = await testApp({ CARILLON_PROVIDERS_FILE: file })
})
after(async () => {
  await t?.stop()
  await Promise.all([verify?.close(), mails?.close(), texts?.close()])
  rmSync(folder, { recursive: true, force: true })
})
beforeEach(() => {
  for (const vendor of [verify, mails, texts]) vendor.behave('accept')
})

interface Person {
  start(): Promise<void>
  /** Once the try that brought the code is on record: only then is it known whom to ask. */
  sent(provider: string): Promise<void>
  confirm(code: string): Promise<Answered>
  verified(): Promise<boolean>
}

async function person(userId: string, channel: 'sms' | 'email', address: string): Promise<Person> {
  const { body } = await t.call('PUT', `/api/users/${userId}`, {
    as: t.tenant.adminKey,
    body: { locale: 'pt-BR', addresses: [{ channel, address }] },
  })
  const as = await t.tenant.token(userId)
  const path = `/api/users/${userId}/addresses/${body.addresses[0].id}/verification`
  return {
    async start() {
      const { status, text } = await t.call('POST', path, { as })
      assert.equal(status, 202, text)
    },
    async sent(provider) {
      await eventually(`${provider} to have sent the code`, async () => {
        const { rows } = await t.db.pool.query(
          `select 1 from address_verifications v
           join events e on e.tenant_id = v.tenant_id and e.id = v.event_id
           join attempts a on a.tenant_id = v.tenant_id and a.notification_id between e.first_id and e.last_id
           where v.tenant_id = $1 and v.address_id = $2 and a.provider = $3 and a.outcome = 1`,
          [t.tenant.id, body.addresses[0].id, provider],
        )
        return rows.length > 0
      })
    },
    confirm: code => t.call('POST', `${path}/confirm`, { as, body: { code } }),
    async verified() {
      const { items } = (await t.call('GET', `/api/users/${userId}/addresses`, { as })).body
      return items[0].verification === 'verified'
    },
  }
}
const checksOf = (vendor: Vendor) =>
  vendor.received.filter(({ raw }) => raw.includes('/VerificationCheck')).length

// covers: ALP-107, AUR-112, AUR-180
test('a code of the vendor’s is checked by the vendor, whose word is the last', async () => {
  const number = '+15551110001'
  const vera = await person('vera', 'sms', number)
  await vera.start()
  await vera.sent('twilio-verify')
  assert.equal(texts.received.length, 0, 'the plain text stands by')
  assert.match(verify.received[0]!.raw, /&Locale=pt-BR$/, 'in her language')
  const wrong = await vera.confirm('0000')
  assert.deepEqual([wrong.status, wrong.body.code, wrong.body.attemptsLeft], [400, 'invalid_request', 4])
  assert.equal(await vera.verified(), false)

  // The vendor is away: that is no attempt.
  verify.behave('fail')
  const away = await vera.confirm('0000')
  assert.deepEqual([away.status, away.body.code], [500, 'external_service_error'])
  verify.behave('rate_limit')
  const slower = await vera.confirm('0000')
  assert.deepEqual([slower.status, slower.body.code], [429, 'rate_limited'])
  assert.ok(Number(slower.headers.get('retry-after')) > 0)
  verify.behave('accept')
  assert.equal((await vera.confirm('0000')).body.attemptsLeft, 3)

  const right = await vera.confirm(verify.codes.get(number)!)
  assert.deepEqual([right.status, right.body], [200, { verified: true }])
  assert.equal(await vera.verified(), true)
})

test('after five wrong ones, or once the vendor forgot it, another code is needed', async () => {
  const number = '+15551110002'
  const otto = await person('otto', 'sms', number)
  await otto.start()
  await otto.sent('twilio-verify')
  for (let left = 4; left >= 0; left--) assert.equal((await otto.confirm('0000')).body.attemptsLeft, left)
  const before = checksOf(verify)
  const spent = await otto.confirm(verify.codes.get(number)!)
  assert.match(spent.body.detail, /too many attempts/)
  assert.equal(checksOf(verify), before, 'the vendor is not asked any more')

  const ines = await person('ines', 'sms', '+15551110003')
  await ines.start()
  await ines.sent('twilio-verify')
  verify.expire()
  const late = await ines.confirm(verify.codes.get('+15551110003')!)
  assert.deepEqual([late.status, late.body.attemptsLeft], [400, 0])
  assert.match(late.body.detail, /expired/)
})

test('where the vendor of codes is away, a plain text brings ours, and nobody else judges it', async () => {
  const paul = await person('paul', 'sms', '+15551110004')
  verify.behave('fail')
  await paul.start()
  await paul.sent('twilio')
  verify.behave('accept')
  const { raw } = texts.received.at(-1)!
  const form = new URLSearchParams(raw.slice(raw.indexOf('\r\n\r\n') + 4))
  const code = /\b\d{6}\b/.exec(form.get('Body')!)![0]
  const before = checksOf(verify)
  assert.equal((await paul.confirm(String((Number(code) + 1) % 1_000_000).padStart(6, '0'))).status, 400)
  assert.equal((await paul.confirm(code)).status, 200)
  assert.equal(checksOf(verify), before)
  assert.equal(await paul.verified(), true)
})

test('of a code of ours the vendor hears that it was right', async () => {
  const address = 'rosa@example.org'
  const rosa = await person('rosa', 'email', address)
  await rosa.start()
  await rosa.sent('twilio-verify-email')
  const code = mails.codes.get(address)!
  assert.match(code, /^\d{6}$/)
  assert.equal((await rosa.confirm(code)).status, 200)
  assert.deepEqual(mails.approved, [address])
  assert.equal(checksOf(mails), 0)
  // Other mail takes the usual way.
  const { body } = await t.call('POST', '/api/delivery/email', {
    as: t.tenant.adminKey,
    body: { userId: 'rosa', subject: 'Welcome', body: 'It works' },
  })
  const stands = await eventually('the mail', async () => {
    const { body: found } = await t.call('GET', `/api/delivery/status/${body.deliveryId}`, {
      as: t.tenant.adminKey,
    })
    return found.status !== 'PENDING' && found
  })
  assert.deepEqual([stands.status, stands.provider], ['SENT', 'smtp'])
})
