import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { test } from 'node:test'
import { inspect } from 'node:util'
import PostalMime from 'postal-mime'
import type { JsonObject, Message } from '../../../types.ts'
import { openHttp } from '../../http.ts'
import { openProvider } from '../../open-provider.ts'
import { DeliveryError } from '../../provider.ts'
import { exampleMessage, smtpVendor, testProvider, type Vendor } from '../conformance.ts'
import { verifyDkim } from '../dkim.ts'
import { smtp } from './smtp.ts'

const email = (more: Partial<Message> = {}) =>
  exampleMessage({ channel: 'email', to: 'alice@example.com', ...more })
const settingsFor = (vendor: Vendor): JsonObject => ({
  host: vendor.host,
  port: vendor.port,
  from: 'Carillon <noreply@carillon.example>',
  timeoutSeconds: 1,
})

testProvider(smtp, {
  vendor: () => smtpVendor({ user: 'carillon', password: 'correct horse' }),
  settings: vendor => ({ ...settingsFor(vendor), user: 'carillon', password: 'correct horse' }),
  message: () => email(),
  notApplicable: {
    'rate limit': 'SMTP has no Retry-After; a 4xx reply is temporary',
    redirect: 'SMTP has no redirects that a client would follow',
  },
})

/** One try against a local server: what it got, what came of it. */
async function deliver(
  message: Message,
  more: { vendor?: Vendor; settings?: JsonObject; before?: (vendor: Vendor) => void } = {},
) {
  const vendor = more.vendor ?? (await smtpVendor())
  more.before?.(vendor)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...settingsFor(vendor), ...more.settings }
  const opened = await openProvider(smtp, settings, { http, now: () => new Date() })
  try {
    const sent = await opened.send(message, new AbortController().signal).catch((error: unknown) => {
      assert.ok(error instanceof DeliveryError)
      return error
    })
    return { sent, received: vendor.received }
  } finally {
    await opened.close()
    await vendor.close()
    await http.close()
  }
}

// covers: DIC-103
test('a message has text and HTML, copies, reply-to and attachments', async () => {
  const { sent, received } = await deliver(
    email({
      content: {
        subject: 'Überraschung ✓',
        body: 'as text',
        html: '<p>as <b>HTML</b></p>',
        data: {
          email: {
            cc: ['bob@example.com'],
            bcc: 'charlie@example.com',
            replyTo: 'help@example.com',
            attachments: [
              {
                filename: 'Grüße.txt',
                contentType: 'text/plain',
                content: Buffer.from('hello').toString('base64'),
              },
            ],
          },
        },
      },
    }),
  )
  assert.ok(!(sent instanceof DeliveryError), inspect(sent))
  const [mail] = received
  assert.ok(mail)
  assert.deepEqual(mail.to, ['alice@example.com', 'bob@example.com', 'charlie@example.com'])
  const parsed = await PostalMime.parse(mail.raw)
  assert.equal(parsed.subject, 'Überraschung ✓')
  assert.equal(parsed.text?.trim(), 'as text')
  assert.equal(parsed.html?.trim(), '<p>as <b>HTML</b></p>')
  assert.deepEqual(parsed.from, { name: 'Carillon', address: 'noreply@carillon.example' })
  assert.deepEqual(
    parsed.to?.map(each => each.address),
    ['alice@example.com'],
  )
  assert.deepEqual(
    parsed.cc?.map(each => each.address),
    ['bob@example.com'],
  )
  assert.deepEqual(
    parsed.replyTo?.map(each => each.address),
    ['help@example.com'],
  )
  assert.ok(!mail.raw.includes('charlie@example.com'), 'a blind copy shows')
  const [attachment] = parsed.attachments
  assert.equal(attachment?.filename, 'Grüße.txt')
  assert.equal(Buffer.from(attachment?.content as ArrayBuffer).toString(), 'hello')
})

test('the same message goes out each time, under one Message-ID', async () => {
  const first = await deliver(email())
  const second = await deliver(email({ attempt: 2 }))
  const id = '<019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d.1@carillon.example>'
  for (const { received, sent } of [first, second]) {
    const headers = received[0]?.headers ?? {}
    assert.equal(headers['message-id'], id)
    assert.equal(headers.date, 'Sat, 21 Nov 2026 11:59:59 +0000')
    assert.equal(headers['auto-submitted'], 'auto-generated')
    assert.equal(headers['x-carillon-notification'], '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d')
    assert.equal(headers['list-unsubscribe'], undefined)
    assert.ok(!(sent instanceof DeliveryError))
    assert.equal(sent.providerMessageId, id)
  }
})

test('a link unsubscribes with one click (RFC 8058)', async () => {
  const unsubscribeUrl = `https://carillon.example/u/${'token'.repeat(40)}?a=b`
  const { received } = await deliver(email({ unsubscribeUrl }))
  assert.equal(received[0]?.headers['list-unsubscribe'], `<${unsubscribeUrl}>`)
  assert.equal(received[0]?.headers['list-unsubscribe-post'], 'List-Unsubscribe=One-Click')
  assert.ok(received[0]?.raw.includes(`List-Unsubscribe: <${unsubscribeUrl}>\r\n`), 'the link is folded')
})

test('a message is signed so that another implementation finds it whole, its one-click headers included', async () => {
  const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
  const dkim = { selector: 's1', privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }) as string }
  const { received } = await deliver(
    email({
      unsubscribeUrl: `https://carillon.example/u/${'t'.repeat(120)}`,
      content: { subject: 'Grüße  an\tAlle', body: 'a  b \n\n.\n', html: '<p>ü</p>' },
    }),
    { settings: { dkim } },
  )
  const raw = received[0]!.raw
  const checked = verifyDkim(raw, publicKey)
  assert.deepEqual([checked.ok, checked.domain, checked.selector], [true, 'carillon.example', 's1'])
  for (const name of ['from', 'to', 'subject', 'list-unsubscribe', 'list-unsubscribe-post'])
    assert.ok(checked.fields.includes(name), name)
  assert.equal(verifyDkim(raw.replace('To: alice', 'To: malice'), publicKey).ok, false)
  assert.equal(verifyDkim(raw.replace('One-Click', 'Two-Click'), publicKey).ok, false)

  // nodemailer would send it without a signature, and say nothing.
  const http = openHttp()
  const other = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
  for (const bad of ['certainly not a key, and much too long to be a word', other]) {
    const settings = {
      host: '127.0.0.1',
      from: 'noreply@carillon.example',
      dkim: { ...dkim, privateKey: bad },
    }
    await assert.rejects(openProvider(smtp, settings, { http, now: () => new Date() }), error => {
      assert.ok(error instanceof DeliveryError && error.code === 'invalid_settings')
      return !inspect(error).includes(bad.slice(30, 45))
    })
  }
  await http.close()
})

test('bounces go to the address of the message, unless the provider has one of its own', async () => {
  const returnPath = 'bounces+abc@mail.example'
  assert.equal((await deliver(email({ returnPath }))).received[0]!.from, returnPath)
  const settings = { returnPath: 'own@mail.example' }
  assert.equal((await deliver(email({ returnPath }), { settings })).received[0]!.from, 'own@mail.example')
  assert.equal((await deliver(email())).received[0]!.from, 'noreply@carillon.example')
})

test('a key that fits no Message-ID is hashed, not changed', async () => {
  const one = await deliver(email({ idempotencyKey: 'a b>' }))
  const other = await deliver(email({ idempotencyKey: 'a b<' }))
  const ids = [one, other].map(each => each.received[0]?.headers['message-id'] ?? '')
  for (const id of ids) assert.match(id, /^<[0-9a-f]{64}@carillon\.example>$/)
  assert.notEqual(ids[0], ids[1])
})

test('what cannot be sent as asked is refused, not changed', async () => {
  const attachment = { filename: 'a.txt', content: 'aGVsbG8=' }
  const bad: [JsonObject, string][] = [
    [{ cc: 'a@example.com, b@example.com' }, 'invalid_address'],
    [{ bcc: ['a@example.com\r\nRCPT TO:<b@example.com>'] }, 'invalid_address'],
    [{ replyTo: 'Help <help@example.com>' }, 'invalid_address'],
    [{ cc: Array<string>(51).fill('a@example.com') }, 'too_large'],
    [{ attachments: [{ ...attachment, filename: '../../etc/passwd' }] }, 'content_refused'],
    [{ attachments: [{ ...attachment, filename: 'a\r\nX: y' }] }, 'content_refused'],
    [{ attachments: [{ ...attachment, contentType: 'text/html\r\nX: y' }] }, 'content_refused'],
    [{ attachments: [{ filename: 'a', path: '/etc/passwd' }] }, 'content_refused'],
    [{ attachments: [{ filename: 'a', content: 'not base64!' }] }, 'content_refused'],
    [{ attachments: 'a' }, 'content_refused'],
    [{ attachments: Array(21).fill(attachment) }, 'too_large'],
    [{ attachments: [{ ...attachment, content: 'A'.repeat(14_000_000) }] }, 'too_large'],
  ]
  for (const [extras, code] of bad) {
    const { sent, received } = await deliver(email({ content: { body: 'x', data: { email: extras } } }))
    assert.ok(sent instanceof DeliveryError && sent.final, inspect(extras).slice(0, 200))
    assert.equal(sent.code, code, inspect(extras).slice(0, 200))
    assert.equal(received.length, 0)
  }
})

test('an address is one address', async () => {
  for (const to of [
    'a@b.example, c@d.example',
    'Alice <a@b.example>',
    'a b@c.example',
    '@',
    'a@',
    'a'.repeat(300),
  ]) {
    const { sent, received } = await deliver(email({ to }))
    assert.ok(sent instanceof DeliveryError)
    assert.deepEqual([sent.kind, sent.code], ['permanent', 'invalid_address'])
    assert.equal(received.length, 0)
  }
})

// covers: DIC-103
test('replies of the server are judged by command, status and enhanced code', async () => {
  const cases: [string, string, string, string][] = [
    ['RCPT TO', '550 5.1.1 no such user', 'bounced', 'unknown_address'],
    ['RCPT TO', '550 5.1.10 null MX', 'bounced', 'unknown_address'],
    ['RCPT TO', '550 5.2.1 disabled', 'bounced', 'unknown_address'],
    ['RCPT TO', '552 5.2.2 full', 'bounced', 'mailbox_full'],
    ['RCPT TO', '550 no such user', 'bounced', 'unknown_address'],
    ['RCPT TO', '550 relay not permitted', 'rejected', 'refused'],
    ['RCPT TO', '550 5.1.8 Sender address rejected: Domain not found', 'rejected', 'forbidden'],
    ['RCPT TO', '553 5.1.7 Bad sender', 'rejected', 'forbidden'],
    ['RCPT TO', '550 5.2.3 longer than this mailbox takes', 'permanent', 'too_large'],
    ['RCPT TO', '550 5.4.4 host not found', 'bounced', 'unknown_address'],
    ['RCPT TO', '550 5.7.1 you are listed', 'rejected', 'refused'],
    ['RCPT TO', '554 go away', 'rejected', 'refused'],
    ['RCPT TO', '450 4.2.0 greylisted', 'temporary', 'unavailable'],
    ['RCPT TO', '452 4.2.2 full', 'temporary', 'mailbox_full'],
    ['RCPT TO', '421 4.3.2 going down', 'temporary', 'unavailable'],
    ['RCPT TO', '503 5.5.1 bad sequence', 'temporary', 'unavailable'],
    ['MAIL FROM', '553 5.7.1 not your sender', 'rejected', 'forbidden'],
    ['MAIL FROM', '530 5.7.0 authenticate first', 'temporary', 'auth'],
    ['MAIL FROM', '552 5.3.4 too large', 'permanent', 'too_large'],
    ['MAIL FROM', '451 4.3.0 later', 'temporary', 'unavailable'],
    ['EHLO', '421 4.3.2 going down', 'temporary', 'unavailable'],
    ['greeting', '554 5.3.2 no service here', 'temporary', 'unavailable'],
    ['DATA', '554 5.7.1 spam', 'rejected', 'content_refused'],
    ['DATA', '552 5.3.4 too large', 'permanent', 'too_large'],
    ['DATA', '451 4.3.0 later', 'temporary', 'unavailable'],
    ['DATA', '550 5.7.26 unauthenticated', 'rejected', 'content_refused'],
  ]
  for (const [command, reply, kind, code] of cases) {
    const { sent } = await deliver(email(), { vendor: await replyingVendor(command, reply) })
    assert.ok(sent instanceof DeliveryError, `${command} ${reply}`)
    assert.deepEqual([sent.kind, sent.code], [kind, code], `${command} ${reply}`)
    assert.equal(sent.vendorCode, /^\d+( \d\.\d+\.\d+)?/.exec(reply)?.[0])
    assert.ok(sent.blamesLane === (kind === 'temporary'))
  }
})

test('when only the copy is accepted, the recipient has bounced', async () => {
  const message = email({ content: { body: 'x', data: { email: { cc: 'bob@example.com' } } } })
  const vendor = await replyingVendor('RCPT TO', '550 5.1.1 no such user', 'alice@example.com')
  const { sent } = await deliver(message, { vendor })
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code], ['bounced', 'unknown_address'])
})

test('a wrong password is temporary, opens the breaker, and shows nowhere', async () => {
  const { sent } = await deliver(email(), {
    vendor: await smtpVendor({ user: 'carillon', password: 'right' }),
    settings: { user: 'carillon', password: 'wrong horse' },
  })
  assert.ok(sent instanceof DeliveryError)
  assert.deepEqual([sent.kind, sent.code, sent.blamesLane], ['temporary', 'auth', true])
  assert.match(sent.response ?? '', /wrong password <secret>/)
  assert.ok(!inspect(sent, { depth: 10, showHidden: true }).includes('wrong horse'))
})

test('without TLS nothing is sent, unless asked for or on this machine', async () => {
  const required = await deliver(email(), { settings: { tls: 'required' } })
  assert.ok(required.sent instanceof DeliveryError)
  assert.deepEqual([required.sent.kind, required.sent.code], ['temporary', 'tls_failed'])
  assert.equal(required.received.length, 0)
  const secure = await deliver(email(), { settings: { secure: true } })
  assert.ok(secure.sent instanceof DeliveryError)
  assert.equal(secure.sent.kind, 'temporary')
  assert.equal(secure.received.length, 0)
  const off = await deliver(email(), { settings: { tls: 'off' } })
  assert.ok(!(off.sent instanceof DeliveryError))
})

test('a reply keeps the address to itself', async () => {
  const vendor = await replyingVendor('RCPT TO', '550 5.1.1 <alice@example.com> unknown')
  const { sent } = await deliver(email(), { vendor })
  assert.ok(sent instanceof DeliveryError)
  assert.ok(!inspect(sent, { depth: 10 }).includes('alice@example.com'), inspect(sent, { depth: 10 }))
  assert.match(sent.response ?? '', /<address>/)
})

test('connections are kept and shared', async () => {
  const vendor = await smtpVendor()
  const inner = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  let connected = 0
  const http = {
    ...inner,
    connect: (request: Parameters<typeof inner.connect>[0]) => {
      connected++
      return inner.connect(request)
    },
  }
  const settings = { ...settingsFor(vendor), connections: 2 }
  const opened = await openProvider(smtp, settings, { http, now: () => new Date() })
  const { signal } = new AbortController()
  await Promise.all(
    Array.from({ length: 20 }, (_, n) => opened.send(email({ idempotencyKey: `key-${n}` }), signal)),
  )
  assert.equal(new Set(vendor.received.map(each => each.headers['message-id'])).size, 20)
  assert.ok(connected <= 2, `${connected} connections`)
  await opened.close()
  await vendor.close()
  await inner.close()
})

/** A server that gives one fixed reply to one command. */
async function replyingVendor(command: string, reply: string, onlyFor?: string): Promise<Vendor> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    let body = false
    socket.on('error', () => {})
    socket.write(`${command === 'greeting' ? reply : '220 local ESMTP'}\r\n`)
    let rest = ''
    socket.on('data', chunk => {
      const lines = (rest + chunk.toString()).split('\r\n')
      rest = lines.pop() ?? ''
      for (const line of lines) {
        const verb = body ? (line === '.' ? 'DATA' : '') : line
        if (verb === '') continue
        if (!body && line === 'DATA') {
          body = true
          socket.write('354 go on\r\n')
          continue
        }
        body = false
        const hit = verb.startsWith(command) && (onlyFor === undefined || line.includes(onlyFor))
        socket.write(`${hit ? reply : '250 2.0.0 fine'}\r\n`)
      }
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  return {
    host: '127.0.0.1',
    port: (server.address() as AddressInfo).port,
    behave: () => {},
    received: [],
    arrival: () => Promise.reject(new Error('not kept')),
    close: () =>
      new Promise(resolve => {
        server.close(() => resolve())
        for (const socket of sockets) socket.destroy()
      }),
  }
}
