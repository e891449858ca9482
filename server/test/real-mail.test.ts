import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { connect } from 'node:net'
import { after, before, test } from 'node:test'
import { createTransport } from 'nodemailer'
import PostalMime from 'postal-mime'
import { auditLedger } from '../ledger/audit.ts'
import { verifyDkim } from '../deliver/providers/dkim.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'
import { type MailServer, freePort, noMailServer, startMailServer } from './mail-server.ts'

const skip = noMailServer()
const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })

let t: TestApp
let server: MailServer
before(async () => {
  if (skip) return
  // Each needs the other's port. The door's is free again for the moment until the product takes it.
  const bouncePort = await freePort()
  server = await startMailServer(bouncePort)
  t = await testApp({
    SMTP_HOST: '127.0.0.1',
    SMTP_PORT: String(server.port),
    SMTP_SECURE: 'none',
    SMTP_FROM: 'Carillon <noreply@shop.example>',
    SMTP_DKIM_SELECTOR: 'test',
    SMTP_DKIM_KEY: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string,
    HOST: '127.0.0.1',
    CARILLON_BOUNCE_ADDRESS: 'bounces@bounces.test',
    CARILLON_BOUNCE_PORT: String(bouncePort),
  })
})
after(async () => {
  await t?.stop()
  await server?.stop()
})

const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
  const answer = await t.call(method, path, { as: t.tenant.adminKey, body })
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.text}`)
  return answer.body
}
const send = async (userId: string, address: string): Promise<string> => {
  await call('PUT', `/api/users/${userId}`, { addresses: [{ channel: 'email', address, verified: true }] })
  const { id } = await call('POST', '/api/notifications', {
    recipientId: userId,
    channels: ['email'],
    subject: 'Grüße',
    body: 'Hello.',
  })
  return id
}
const delivery = async (id: string): Promise<Loose> =>
  (await call('GET', `/api/notifications/${id}`)).deliveries[0]

// covers: DIC-102, DIC-103
test('mail goes through a real server, signed, and arrives', { skip }, async () => {
  const id = await send('alice', 'alice@home.test')
  const raw = await eventually('the mail', () => {
    const inbox = server.inbox()
    return inbox.includes(id) && inbox
  })
  // An mbox file: a line of its own, then the message with what the server put before it.
  const message = raw.slice(raw.indexOf('\n') + 1).replaceAll(/\r?\n/g, '\r\n')
  const mail = await PostalMime.parse(message)
  assert.equal(mail.subject, 'Grüße')
  const header = (name: string) => mail.headers.find(({ key }) => key === name)?.value
  assert.match(header('return-path')!, /^<?bounces\+[a-z2-7]{42}@bounces\.test>?$/)
  assert.match(header('list-unsubscribe')!, /^<http.*\/u\/[\w-]+>$/)
  assert.equal(header('list-unsubscribe-post'), 'List-Unsubscribe=One-Click')
  const signed = verifyDkim(message.replace(/(\r\n)+$/, '\r\n'), publicKey)
  assert.deepEqual([signed.ok, signed.domain, signed.selector], [true, 'shop.example', 'test'])
  // RFC 8058 §4.
  for (const name of ['from', 'list-unsubscribe', 'list-unsubscribe-post'])
    assert.ok(signed.fields.includes(name))
  assert.equal(verifyDkim(message.replace('Hello.', 'Hallo.'), publicKey).ok, false)
})

// covers: DIC-103
test('a bounce of a real server comes back, is believed, and keeps the address from more', {
  skip,
}, async () => {
  const id = await send('nobody', 'nobody@home.test')
  // The server took it, as servers do that find out later.
  await eventually('the bounce', async () => (await delivery(id)).status === 'bounced').catch(error => {
    throw new Error(`${(error as Error).message}\n${server.log()}`)
  })
  // The address follows the delivery, in a transaction of its own.
  const items = await eventually('the suppression', async () => {
    const found = (await call('GET', '/api/suppressions')).items
    return found.length > 0 && found
  })
  assert.deepEqual(
    items.map((one: Loose) => [one.channel, one.address, one.reason, one.source]),
    [['email', 'nobody@home.test', 'hard_bounce', 'bounces']],
  )
  const again = await call('POST', '/api/notifications', {
    recipientId: 'nobody',
    channels: ['email'],
    body: 'Again',
  })
  assert.equal(again.suppressed, 1)
  const letters = await call('GET', '/api/dead-letters')
  assert.ok(letters.items.some((one: Loose) => one.notificationId === id && one.code === 'unknown_address'))
  assert.deepEqual(await auditLedger(t.db), [])
})

test('the door takes reports about messages of ours, and nothing else', { skip }, async () => {
  const port = t.app.bouncePort!
  const transport = createTransport({ host: '127.0.0.1', port, ignoreTLS: true })
  const rcpt = (to: string) =>
    transport.sendMail({ envelope: { from: '', to }, text: 'x' }).then(
      () => 250,
      (error: { responseCode: number }) => error.responseCode,
    )
  for (const to of ['alice@home.test', 'postmaster@bounces.test', `bounces+${'a'.repeat(42)}@bounces.test`])
    assert.equal(await rcpt(to), 550, to)
  // Somebody who is away.
  assert.equal(await rcpt('bounces@bounces.test'), 250)

  // A complaint comes to the bare address; the message that it returns proves which one it is about.
  const id = await send('alice', 'alice@home.test')
  const inbox = await eventually('the mail', () => server.inbox().includes(id) && server.inbox())
  const mail = inbox.slice(inbox.lastIndexOf('\nFrom ', inbox.indexOf(id)) + 1)
  const returned = mail.slice(mail.indexOf('\n') + 1)
  const report = (message: string) => `From: fbl@provider.example
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary="b"

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
Version: 1

--b
Content-Type: message/rfc822

${message}
--b--
`
  const complain = (message: string) =>
    transport.sendMail({ envelope: { from: '', to: 'bounces@bounces.test' }, raw: report(message) })
  const complaints = async () =>
    (await call('GET', '/api/suppressions')).items.filter((one: Loose) => one.reason === 'complaint')
  await complain(returned.replaceAll(/bounces\+\w+@/g, `bounces+${'a'.repeat(42)}@`))
  assert.deepEqual(await complaints(), [])
  await complain(returned)
  await eventually('the complaint', async () => (await complaints()).length > 0)
  assert.deepEqual(
    (await complaints()).map((one: Loose) => one.address),
    ['alice@home.test'],
  )
  transport.close()

  // What breaks off in the middle does no harm.
  const socket = connect(port, '127.0.0.1')
  await new Promise(resolve => socket.once('data', resolve))
  socket.destroy()
  assert.equal(await rcpt('nobody@bounces.test'), 550)
})
