import assert from 'node:assert/strict'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { type JWK, importJWK, jwtVerify } from 'jose'
import { exampleMessage } from '../deliver/providers/conformance.ts'
import { generateVapidKeys } from '../deliver/providers/push-encryption.ts'
import { ses } from '../deliver/providers/ses/ses.ts'
import { webPush } from '../deliver/providers/web-push/web-push.ts'
import { DeliveryError } from '../deliver/provider.ts'
import type { JsonObject } from '../types.ts'
import { type Browser, openCaller, pushFarEnd, sesFarEnd } from './far-ends.ts'

/* ---------------------------------------------------------------- Amazon SES */

// covers: DIC-102, DIC-103
test('SES of other hands keeps field by field what was sent', async t => {
  const far = await sesFarEnd()
  t.after(() => far.close())
  const caller = await openCaller(ses, {
    region: 'eu-west-1',
    accessKeyId: 'AKIDEXAMPLE123456789',
    secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
    from: 'Grüße <noreply@carillon.example>',
    replyTo: 'Help <help@carillon.example>',
    endpoint: far.url,
    timeoutSeconds: 60,
  })
  t.after(() => caller.close())
  const text = 'Grüße, 你好, 👩‍👩‍👧‍👦 — „quoted“ & <tagged>'
  const logo = Buffer.from([0, 1, 2, 0xff, 0xfe, 10, 13])
  const everything = exampleMessage({
    channel: 'email',
    to: 'alice@example.com',
    unsubscribeUrl: 'https://carillon.example/u/abc?t=1&x=ä',
    content: {
      subject: `Order 17: ${text}`,
      body: text,
      html: `<p>${text}</p>`,
      attachments: [{ filename: 'größe.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
      data: {
        email: {
          cc: ['bob@example.com'],
          bcc: 'carol@example.com',
          attachments: [{ filename: 'logo.png', content: logo.toString('base64') }],
        },
      },
    },
  })
  const plain = exampleMessage({ channel: 'email', to: 'dave@example.com' })

  const [first, second] = [await caller.send(everything), await caller.send(plain)]
  assert.ok(!(first instanceof DeliveryError) && !(second instanceof DeliveryError), inspect(first))

  const mails = await far.mails()
  assert.deepEqual(
    mails.map(({ messageId }) => messageId),
    [first.providerMessageId, second.providerMessageId],
  )
  const [mail, bare] = mails
  assert.equal(
    mail!.from,
    `=?UTF-8?B?${Buffer.from('Grüße').toString('base64')}?= <noreply@carillon.example>`,
  )
  assert.deepEqual(mail!.replyTo, ['"Help" <help@carillon.example>'])
  assert.deepEqual(mail!.destination, {
    to: ['alice@example.com'],
    cc: ['bob@example.com'],
    bcc: ['carol@example.com'],
  })
  assert.equal(mail!.subject, `Order 17: ${text}`)
  assert.deepEqual(mail!.body, { html: `<p>${text}</p>`, text })
  assert.deepEqual(
    mail!.attachments.map(each => [each.filename, each.contentType, each.contentDisposition, each.content]),
    [
      ['größe.txt', 'text/plain', 'ATTACHMENT', 'aGVsbG8='],
      // A type that nobody named is the emulator's own guess.
      ['logo.png', 'application/octet-stream', 'ATTACHMENT', logo.toString('base64')],
    ],
  )
  assert.deepEqual(Object.fromEntries(mail!.headers.map(({ name, value }) => [name, value])), {
    'Auto-Submitted': 'auto-generated',
    'X-Carillon-Notification': everything.notificationId,
    'X-Carillon-Delivery': everything.idempotencyKey,
    'List-Unsubscribe': '<https://carillon.example/u/abc?t=1&x=%C3%A4>',
    'List-Unsubscribe-Post': 'List-Unsubscribe=One-Click',
  })

  assert.deepEqual([bare!.subject, bare!.body], [plain.content.subject, { text: plain.content.body }])
  assert.deepEqual(bare!.attachments, [])
  assert.ok(!bare!.headers.some(({ name }) => name.startsWith('List-')))
})

/* ---------------------------------------------------------------- web push */

const vapid = generateVapidKeys()
const own = { ...vapid, subject: 'mailto:ops@carillon.example', timeoutSeconds: 60 }
const pushTo = ({ endpoint, keys }: Browser, idempotencyKey: string, body: string) =>
  exampleMessage({
    channel: 'web_push',
    to: endpoint,
    addressSettings: keys,
    idempotencyKey,
    content: { subject: 'Order 17', body, data: { link: '/orders/17', ttl: 600 } },
  })

// covers: DIC-111, AUR-180
test('browsers of other hands read what was pushed to them and to nobody else', async t => {
  const far = await pushFarEnd()
  t.after(() => far.close())
  const caller = await openCaller(webPush, own)
  t.after(() => caller.close())
  const [alice, bob, open] = [
    await far.subscribe(vapid.publicKey),
    await far.subscribe(vapid.publicKey),
    await far.subscribe(),
  ]
  const texts = ['It arrives on Monday.', 'Grüße, 你好, 👩‍👩‍👧‍👦 — „quoted“', '漢字'.repeat(3_000)]
  for (const [at, text] of texts.entries()) {
    const sent = await caller.send(pushTo(alice, `alice-${at}`, text))
    assert.ok(!(sent instanceof DeliveryError), inspect(sent))
    assert.deepEqual([sent.outcome, sent.code], ['sent', '201'])
  }
  await caller.send(pushTo(bob, 'bob-0', 'For Bob'))
  await caller.send(pushTo(open, 'open-0', 'For whoever subscribed without a key'))

  const read = (await alice.read()).map(text => JSON.parse(text) as JsonObject)
  assert.deepEqual(
    read.map(({ key, title, link }) => [key, title, link]),
    texts.map((_, at) => [`alice-${at}`, 'Order 17', '/orders/17']),
  )
  assert.deepEqual([read[0]!.body, read[1]!.body], texts.slice(0, 2))
  // One record holds 3,993 bytes; what is longer is cut between characters.
  const cut = read[2]!.body as string
  assert.ok(cut.length > 1_000 && cut.endsWith('字…') !== cut.endsWith('漢…'), cut.slice(-3))
  const bodies = async (browser: Browser) =>
    (await browser.read()).map(text => (JSON.parse(text) as { body: string }).body)
  assert.deepEqual(await bodies(bob), ['For Bob'])
  assert.deepEqual(await bodies(open), ['For whoever subscribed without a key'])

  // The token's signature, audience and life, by a library that did not write it (RFC 8292 §2).
  for (const { request } of caller.exchanges) {
    const headers = request.headers!
    assert.deepEqual([headers['content-encoding'], headers.ttl], ['aes128gcm', '600'])
    const [, token = '', key = ''] = /^vapid t=([^,]+), k=([\w-]+)$/.exec(headers.authorization!) ?? []
    assert.equal(key, vapid.publicKey)
    const point = Buffer.from(key, 'base64url')
    const jwk: JWK = {
      kty: 'EC',
      crv: 'P-256',
      x: point.subarray(1, 33).toString('base64url'),
      y: point.subarray(33).toString('base64url'),
    }
    const { payload } = await jwtVerify(token, await importJWK(jwk, 'ES256'), {
      audience: far.url,
      algorithms: ['ES256'],
    })
    assert.equal(payload.sub, own.subject)
    assert.ok(payload.exp! - Date.now() / 1000 < 24 * 60 * 60)
  }
})

// covers: AUR-180
test('a subscription that ended is gone; one that belongs to other keys takes nothing', async t => {
  const far = await pushFarEnd()
  t.after(() => far.close())
  const caller = await openCaller(webPush, own)
  t.after(() => caller.close())
  const stranger = await openCaller(webPush, { ...own, ...generateVapidKeys() })
  t.after(() => stranger.close())
  const browser = await far.subscribe(vapid.publicKey)

  const refused = await stranger.send(pushTo(browser, 'stranger', 'x'))
  assert.ok(refused instanceof DeliveryError && refused.final, inspect(refused))
  const garbled = pushTo(browser, 'garbled', 'x')
  const other = await far.subscribe(vapid.publicKey)
  const unread = await caller.send({ ...garbled, addressSettings: other.keys })
  assert.ok(unread instanceof DeliveryError && unread.final, 'keys of another browser')
  assert.deepEqual(await browser.read(), [])

  const taken = await caller.send(pushTo(browser, 'first', 'x'))
  assert.ok(!(taken instanceof DeliveryError), inspect(taken))
  await browser.expire()
  const ended = await caller.send(pushTo(browser, 'second', 'x'))
  assert.ok(ended instanceof DeliveryError)
  assert.deepEqual([ended.kind, ended.code, ended.vendorCode], ['bounced', 'gone', '410'])
  assert.equal((await browser.read()).length, 1)
})
