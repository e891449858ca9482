import assert from 'node:assert/strict'
import type { lookup as dnsLookup } from 'node:dns'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { type TestContext, test } from 'node:test'
import fc from 'fast-check'
import { type HttpOptions, openHttp } from './http.ts'
import { networkGuard } from './network-guard.ts'
import { DeliveryError, type HttpRequest } from './provider.ts'

const LOOPBACK = ['127.0.0.1/32']
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'

/** A server that sees bytes: `answer` is called once per complete request. */
async function listen(t: TestContext, answer: (socket: Socket, request: string) => unknown) {
  const sockets = new Set<Socket>()
  const requests: string[] = []
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    let bytes = Buffer.alloc(0)
    socket.on('data', chunk => {
      bytes = Buffer.concat([bytes, chunk])
      const end = bytes.indexOf('\r\n\r\n')
      const head = bytes.toString('latin1', 0, end)
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0)
      if (end === -1 || bytes.length < end + 4 + length) return
      const request = bytes.toString('utf8')
      bytes = Buffer.alloc(0)
      requests.push(request)
      answer(socket, request)
    })
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  t.after(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}/`, port, requests, sockets }
}

function door(t: TestContext, options: HttpOptions = {}) {
  const http = openHttp({ allowPrivate: LOOPBACK, ...options })
  t.after(() => http.close())
  const fails = async (request: HttpRequest): Promise<DeliveryError> => {
    const error = await http.request(request).then(
      response => assert.fail(`answered ${response.status}`),
      (thrown: unknown) => thrown,
    )
    assert.ok(error instanceof DeliveryError, String(error))
    return error
  }
  return { http, fails }
}

const resolving = (...addresses: string[]) =>
  ((_name: string, _options: unknown, done: (error: null, found: unknown) => void) =>
    done(
      null,
      addresses.map(address => ({ address, family: address.includes(':') ? 6 : 4 })),
    )) as unknown as typeof dnsLookup

test('a request arrives whole, an answer comes back whole', async t => {
  const { url, requests } = await listen(t, socket => {
    // Two chunks that split a character.
    const head = 'HTTP/1.1 201 Created\r\nX-One: 1\r\ntransfer-encoding: chunked\r\n\r\n3\r\nGr\xc3\r\n'
    socket.write(head, 'latin1', () => socket.write('4\r\n\xbc\xc3\x9fe\r\n0\r\n\r\n', 'latin1'))
  })
  const { http } = door(t, { userAgent: 'Carillon/test' })
  const response = await http.request({ url: `${url}a?b=c`, headers: { 'x-two': '2' }, body: 'hällo' })
  assert.deepEqual(
    [response.status, response.headers['x-one'], response.body, response.complete],
    [201, '1', 'Grüße', true],
  )
  assert.match(requests[0] ?? '', /^POST \/a\?b=c HTTP\/1\.1\r\n/)
  assert.match(requests[0] ?? '', /\r\nx-two: 2\r\n/)
  assert.match(requests[0] ?? '', /\r\nuser-agent: Carillon\/test\r\n/)
  assert.match(requests[0] ?? '', /\r\n\r\nhällo$/)
})

test('connections are kept', async t => {
  const used = new Set<Socket>()
  const { url } = await listen(t, socket => {
    used.add(socket)
    socket.write(OK)
  })
  const { http } = door(t)
  for (let n = 0; n < 20; n++) await http.request({ url })
  // Two, not one: undici frees a connection one turn of the event loop after its answer.
  assert.ok(used.size <= 2, `${used.size} connections`)
})

test('at most so many connections per origin, further requests wait their turn', async t => {
  let most = 0
  const { url, sockets, requests } = await listen(t, socket => {
    most = Math.max(most, sockets.size)
    setImmediate(() => socket.write(OK))
  })
  const { http } = door(t, { connections: 3 })
  const answers = await Promise.all(Array.from({ length: 30 }, () => http.request({ url })))
  assert.equal(answers.filter(each => each.status === 200).length, 30)
  assert.equal(requests.length, 30)
  assert.ok(most <= 3, `${most} connections`)
})

test('too many waiting requests are busy; one that gives up just leaves', async t => {
  const answers: (() => void)[] = []
  const { url, requests } = await listen(t, socket => answers.push(() => socket.write(OK)))
  const { http, fails } = door(t, { connections: 1, waiting: 2 })
  const first = http.request({ url, body: '1' })
  const given = new AbortController()
  const second = fails({ url, body: '2', signal: given.signal })
  const third = http.request({ url, body: '3' })
  assert.deepEqual(await fails({ url, body: '4' }).then(e => [e.kind, e.code]), ['temporary', 'busy'])
  given.abort()
  assert.deepEqual(await second.then(e => [e.kind, e.code]), ['temporary', 'aborted'])
  while (requests.length < 1) await new Promise(resolve => setImmediate(resolve))
  answers.shift()?.()
  await first
  while (requests.length < 2) await new Promise(resolve => setImmediate(resolve))
  answers.shift()?.()
  await third
  assert.deepEqual(
    requests.map(each => each.at(-1)),
    ['1', '3'],
  )
})

// covers: DIC-120
test('addresses outside the public networks are refused, however they are written', async t => {
  const { fails } = door(t, { allowPrivate: [] })
  const hosts = [
    '127.0.0.1',
    '127.1',
    '2130706433',
    '0x7f000001',
    '0177.0.0.1',
    '127.0.0.1.',
    '0.0.0.0',
    '10.0.0.1',
    '172.16.0.1',
    '192.168.1.1',
    '100.64.0.1',
    '169.254.169.254',
    '192.0.2.1',
    '198.18.0.1',
    '224.0.0.1',
    '255.255.255.255',
    '[::1]',
    '[::]',
    '[::127.0.0.1]',
    '[::ffff:127.0.0.1]',
    '[::ffff:a00:1]',
    '[64:ff9b::7f00:1]',
    '[64:ff9b:1::1]',
    '[2002:7f00:1::]',
    '[2001::1]',
    '[fc00::1]',
    '[fd00:ec2::254]',
    '[fe80::1]',
    '[fec0::1]',
    '[ff02::1]',
    '[2001:db8::1]',
    '[4000::1]',
  ]
  for (const host of hosts) {
    const error = await fails({ url: `http://${host}:9/` })
    assert.deepEqual([error.kind, error.code], ['permanent', 'blocked_address'], host)
  }
})

test('public addresses pass, and networks that are allowed', () => {
  const guard = networkGuard(['10.20.0.0/16', 'fd12::/32'])
  for (const host of [
    '8.8.8.8',
    '[2606:4700::1111]',
    '[64:ff9b::808:808]',
    '10.20.3.4',
    '[fd12::1]',
    'a.example',
  ]) {
    assert.equal(guard.refuseLiteral(host), undefined, host)
  }
  for (const host of ['10.21.0.1', '[fd13::1]', '127.0.0.1']) assert.ok(guard.refuseLiteral(host), host)
  assert.throws(() => networkGuard(['10.20.0.0']), /not a network/)
  assert.throws(() => networkGuard(['everything']), /not a network/)
})

test('no private IPv4 address passes in any notation', () => {
  const guard = networkGuard([])
  const octet = fc.integer({ min: 0, max: 255 })
  const inside = fc.oneof(
    fc.tuple(fc.constant(10), octet, octet, octet),
    fc.tuple(fc.constant(127), octet, octet, octet),
    fc.tuple(fc.constant(172), fc.integer({ min: 16, max: 31 }), octet, octet),
    fc.tuple(fc.constant(192), fc.constant(168), octet, octet),
    fc.tuple(fc.constant(169), fc.constant(254), octet, octet),
    fc.tuple(fc.constant(100), fc.integer({ min: 64, max: 127 }), octet, octet),
    fc.tuple(fc.constant(0), octet, octet, octet),
    fc.tuple(fc.integer({ min: 224, max: 255 }), octet, octet, octet),
  )
  fc.assert(
    fc.property(inside, ([a, b, c, d]) => {
      const number = ((a * 256 + b) * 256 + c) * 256 + d
      const dotted = [a, b, c, d].join('.')
      const notations = [
        dotted,
        String(number),
        `0x${number.toString(16)}`,
        [a, b, c, d].map(each => `0${each.toString(8)}`).join('.'),
        `${a}.${b}.${c * 256 + d}`,
        `[::ffff:${dotted}]`,
        `[64:ff9b::${dotted}]`,
      ]
      for (const each of notations) assert.ok(guard.refuseLiteral(new URL(`http://${each}/`).hostname), each)
    }),
  )
})

test('a name is checked where it resolves to, and only checked addresses are called', async t => {
  const inside = await listen(t, socket => socket.write(OK))
  const url = `http://inside.example:${inside.port}/`
  for (const addresses of [['127.0.0.1'], ['::1', '169.254.169.254'], ['::ffff:127.0.0.1']]) {
    const { fails } = door(t, { allowPrivate: [], resolve: resolving(...addresses) })
    const error = await fails({ url })
    assert.deepEqual([error.kind, error.code], ['permanent', 'blocked_address'], addresses.join())
  }
  // Of a mixed answer only the allowed address is called: 10.0.0.1 would not answer.
  const { http } = door(t, { resolve: resolving('10.0.0.1', '127.0.0.1') })
  assert.equal((await http.request({ url })).status, 200)
  assert.equal(inside.requests.length, 1)
})

test('a name that turns inwards after the first look gains nothing', async t => {
  const inside = await listen(t, socket => socket.end(OK.replace('\r\n', '\r\nconnection: close\r\n')))
  let looks = 0
  const turning = ((name: string, options: unknown, done: never) => {
    looks++
    return resolving(looks === 1 ? '127.0.0.1' : '127.0.0.2')(name, options as never, done)
  }) as unknown as typeof dnsLookup
  const { http, fails } = door(t, { resolve: turning })
  const url = `http://rebinding.example:${inside.port}/`
  await http.request({ url })
  assert.equal((await fails({ url })).code, 'blocked_address')
})

test('localhost is not public', async t => {
  const { fails } = door(t, { allowPrivate: [] })
  assert.equal((await fails({ url: 'http://localhost:9/' })).code, 'blocked_address')
})

test('what is no plain http address is refused', async t => {
  const { fails } = door(t)
  for (const url of [
    '',
    'not a url',
    'ftp://a.example/',
    'file:///etc/passwd',
    'http://user:password@127.0.0.1/',
    'http://user@127.0.0.1/',
    `http://127.0.0.1/${'x'.repeat(10_000)}`,
  ]) {
    const error = await fails({ url })
    assert.deepEqual([error.kind, error.code], ['permanent', 'invalid_address'], url.slice(0, 50))
    assert.ok(!error.message.includes('password'))
  }
  const { fails: failsHttps } = door(t, { httpsOnly: true })
  assert.equal((await failsHttps({ url: 'http://127.0.0.1/' })).code, 'blocked_address')
})

test('a header that cannot be written fails before a byte goes out', async t => {
  const { url, requests } = await listen(t, socket => socket.write(OK))
  const { http, fails } = door(t)
  const bad: Record<string, string>[] = [{ 'x-a': 'b\r\nx-canary: 1' }, { 'x a': 'b' }, { 'x-a': 'b\0' }]
  for (const headers of bad) {
    const error = await fails({ url, headers })
    assert.deepEqual([error.kind, error.code], ['permanent', 'invalid_request'])
  }
  assert.equal(requests.length, 0)
  await http.request({ url })
})

test('redirects are answers, not orders', async t => {
  const { url, requests } = await listen(t, socket =>
    socket.write('HTTP/1.1 302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n'),
  )
  const { http } = door(t)
  assert.equal((await http.request({ url })).status, 302)
  assert.equal(requests.length, 1)
})

test('what fails before the request is written is temporary', async t => {
  const { port: closedPort } = await freedPort()
  const plain = createServer(socket => socket.on('error', () => {}).write('this is not TLS\r\n'))
  await new Promise<void>(resolve => plain.listen(0, '127.0.0.1', resolve))
  t.after(() => plain.close())
  const nameless = ((_name: string, _options: unknown, done: (error: Error) => void) =>
    done(Object.assign(new Error('no such name'), { code: 'ENOTFOUND' }))) as unknown as typeof dnsLookup

  const { fails } = door(t)
  const { fails: failsDns } = door(t, { resolve: nameless })
  const outcomes = [
    await fails({ url: `http://127.0.0.1:${closedPort}/` }),
    await failsDns({ url: 'http://nowhere.example/' }),
    await fails({ url: `https://127.0.0.1:${(plain.address() as AddressInfo).port}/` }),
  ].map(error => [error.kind, error.code])
  assert.deepEqual(outcomes, [
    ['temporary', 'connection_failed'],
    ['temporary', 'dns_failed'],
    ['temporary', 'tls_failed'],
  ])
})

/** A port on which nobody listens any more. */
async function freedPort() {
  const server = createServer()
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise(resolve => server.close(resolve))
  return { port }
}

test('a connection that never comes about is given up in time', async t => {
  // Accepts the connection and never says a TLS word.
  const silent = createServer(socket => socket.on('error', () => {}))
  await new Promise<void>(resolve => silent.listen(0, '127.0.0.1', resolve))
  t.after(() => silent.close())
  const { port } = silent.address() as AddressInfo
  const { fails, http } = door(t, { connectTimeoutMs: 50 })
  const inTime = await fails({ url: `https://127.0.0.1:${port}/` })
  assert.deepEqual([inTime.kind, inTime.code], ['temporary', 'connect_timeout'])
  const total = await fails({ url: `https://127.0.0.1:${port}/`, timeoutMs: 10 })
  assert.deepEqual([total.kind, total.code], ['temporary', 'timeout'])
  await assert.rejects(http.connect({ host: '127.0.0.1', port, tls: true }), {
    kind: 'temporary',
    code: 'connect_timeout',
  })
  const unreadable = { pfx: Buffer.from('no certificate') }
  await assert.rejects(http.connect({ host: '127.0.0.1', port, tls: unreadable }), {
    kind: 'temporary',
    code: 'tls_failed',
  })
})

test('what fails after the request was written is unknown', async t => {
  const cases: [string, (socket: Socket) => unknown, string][] = [
    ['silence', () => {}, 'timeout'],
    ['reset', socket => socket.resetAndDestroy(), 'no_answer'],
    ['end', socket => socket.end(), 'no_answer'],
    ['garbage', socket => socket.end('\0\x01 hello\r\n\r\n'), 'garbled_answer'],
    ['half a head', socket => socket.end('HTTP/1.1 200 OK\r\ncontent-le'), 'no_answer'],
    ['half a body', socket => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf'), 'no_answer'],
    ['stalled body', socket => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf'), 'timeout'],
    [
      'huge head',
      socket => socket.write(`HTTP/1.1 200 OK\r\nx: ${'y'.repeat(50_000)}\r\n\r\n`),
      'garbled_answer',
    ],
  ]
  for (const [name, answer, code] of cases) {
    const { url } = await listen(t, answer)
    const { fails } = door(t)
    const error = await fails({ url, body: 'x', timeoutMs: 200 })
    assert.deepEqual([error.kind, error.code], ['unknown', code], name)
  }
})

test('a refusal stands even when its body breaks off; an acceptance only where the status is enough', async t => {
  const broken = (status: number) => (socket: Socket) =>
    socket.write(`HTTP/1.1 ${status} X\r\ncontent-length: 9\r\n\r\nhalf`, () => socket.resetAndDestroy())
  const refusing = await listen(t, broken(503))
  const accepting = await listen(t, broken(200))
  const { http, fails } = door(t)
  const refusal = await http.request({ url: refusing.url })
  assert.deepEqual([refusal.status, refusal.complete], [503, false])
  assert.equal((await fails({ url: accepting.url })).kind, 'unknown')
  const enough = await http.request({ url: accepting.url, statusIsEnough: true })
  assert.deepEqual([enough.status, enough.complete], [200, false])
})

test('a long answer is cut and its connection dropped', async t => {
  const { url, sockets } = await listen(t, socket => {
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    const pour = (): void => {
      while (!socket.destroyed && socket.write('x'.repeat(65_536))) {}
    }
    socket.on('drain', pour)
    pour()
  })
  const { http } = door(t)
  const response = await http.request({ url, maxResponseBytes: 1_000 })
  assert.deepEqual([response.body.length, response.complete], [1_000, false])
  for (const socket of sockets) await new Promise(resolve => socket.once('close', resolve))
})

test('one signal gives up everything that hangs on it', async t => {
  const arrived = Promise.withResolvers<void>()
  let count = 0
  const { url } = await listen(t, () => {
    if (++count === 20) arrived.resolve()
  })
  const { fails } = door(t, { connections: 20 })
  const { signal, abort } = abortable()
  const all = Array.from({ length: 25 }, () => fails({ url, signal }))
  await arrived.promise
  abort()
  const kinds = (await Promise.all(all)).map(error => `${error.kind} ${error.code}`)
  assert.equal(kinds.filter(each => each === 'unknown aborted').length, 20)
  assert.equal(kinds.filter(each => each === 'temporary aborted').length, 5)
  assert.equal((await fails({ url, signal })).kind, 'temporary')
})

const abortable = () => {
  const controller = new AbortController()
  return { signal: controller.signal, abort: () => controller.abort() }
}

test('only so many origins stay open; one that is pushed out still finishes', async t => {
  const answers: (() => void)[] = []
  const first = await listen(t, socket => answers.push(() => socket.write(OK)))
  const second = await listen(t, socket => socket.write(OK))
  const { http } = door(t, { origins: 1, connections: 1 })
  const running = [http.request({ url: first.url }), http.request({ url: first.url })]
  assert.equal((await http.request({ url: second.url })).status, 200)
  for (const each of running) {
    while (answers.length === 0) await new Promise(resolve => setImmediate(resolve))
    answers.shift()?.()
    assert.equal((await each).status, 200)
  }
  for (const socket of first.sockets) await new Promise(resolve => socket.once('close', resolve))
})

test('closing waits for what runs and takes nothing new', async t => {
  const answers: (() => void)[] = []
  const { url } = await listen(t, socket => answers.push(() => socket.write(OK)))
  const { http, fails } = door(t)
  const running = http.request({ url })
  while (answers.length === 0) await new Promise(resolve => setImmediate(resolve))
  let closed = false
  const closing = http.close().then(() => {
    closed = true
  })
  assert.equal((await fails({ url })).kind, 'temporary')
  assert.equal(closed, false)
  answers.shift()?.()
  assert.equal((await running).status, 200)
  await closing
})

test('a bare socket is opened under the same guard', async t => {
  const { port } = await listen(t, () => {})
  const { http } = door(t)
  const socket = await http.connect({ host: '127.0.0.1', port })
  assert.equal(socket.remotePort, port)
  socket.destroy()
  for (const host of ['127.0.0.2', '::1', '[::1]', 'localhost6.invalid']) {
    await assert.rejects(
      door(t, { resolve: resolving('::1') }).http.connect({ host, port }),
      { kind: 'permanent', code: 'blocked_address' },
      host,
    )
  }
  const { signal, abort } = abortable()
  abort()
  await assert.rejects(http.connect({ host: '127.0.0.1', port, signal }), {
    kind: 'temporary',
    code: 'aborted',
  })
})
