import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { stripVTControlCharacters } from 'node:util'

const SCRIPT = join(import.meta.dirname, 'carillon.ts')
const SHIM = join(import.meta.dirname, 'carillon.js')
const EVENT = '0198c5f2-0000-7000-8000-000000000001'
const OTHER = '0198c5f2-0000-7000-8000-000000000002'

interface Ended {
  code: number | null
  out: string
  err: string
}

/** Nothing of this machine's own settings reaches the command. */
const CLEAN = { PATH: process.env.PATH, HOME: process.env.HOME }

function start(
  args: string[],
  env: NodeJS.ProcessEnv = {},
  options: { cwd?: string; node?: string; script?: string } = {},
) {
  const child = spawn(options.node ?? process.execPath, [options.script ?? SCRIPT, ...args], {
    env: { ...CLEAN, ...env },
    cwd: options.cwd,
  })
  const ended = new Promise<Ended>(resolve => {
    let [out, err] = ['', '']
    child.stdout.on('data', chunk => (out += chunk))
    child.stderr.on('data', chunk => (err += chunk))
    child.on('close', code =>
      resolve({ code, out: stripVTControlCharacters(out), err: stripVTControlCharacters(err) }),
    )
  })
  return { child, ended }
}

function carillon(args: string[], env: NodeJS.ProcessEnv = {}, input?: string, cwd?: string): Promise<Ended> {
  const { child, ended } = start(args, env, { cwd })
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  return ended
}

interface Seen {
  method: string
  url: string
  headers: NodeJS.Dict<string | string[]>
  body: unknown
}

/** A server that answers by script and remembers what it was asked. */
async function scripted(
  t: TestContext,
  answer: (request: Seen, response: ServerResponse, nth: number) => void,
): Promise<{ seen: Seen[]; env: NodeJS.ProcessEnv; port: number }> {
  const seen: Seen[] = []
  const server = createServer((request, response) => void take(request, response))
  async function take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let text = ''
    for await (const chunk of request) text += chunk
    const one = {
      method: request.method!,
      url: request.url!,
      headers: request.headers,
      body: text === '' ? undefined : (JSON.parse(text) as unknown),
    }
    seen.push(one)
    answer(one, response, seen.length)
  }
  await new Promise<void>(done => server.listen(0, '127.0.0.1', done))
  t.after(() => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return { seen, port, env: { CARILLON_URL: `http://127.0.0.1:${port}`, CARILLON_KEY: 'crl_test' } }
}

const json = (response: ServerResponse, status: number, body: unknown) =>
  void response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))

function folder(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-cli-'))
  t.after(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

test('help of everything, and what cannot be understood', async () => {
  const all = await carillon(['--help'])
  assert.equal(all.code, 0)
  const names = [...all.out.matchAll(/^ {2}(\S+(?: \S+)?) {2,}/gm)].map(match => match[1]!)
  assert.deepEqual(names, [
    'start',
    'doctor',
    'migrate',
    'key create',
    'send',
    'event publish',
    'beat',
    'why',
    'tail',
    'audit',
    'redrive',
    'schedule next',
    'validate',
    'test',
    'schema',
    'replay',
    'diff',
    'push',
    'pull',
  ])
  const helps = await Promise.all(names.map(name => carillon([...name.split(' '), '--help'])))
  for (const [i, { code, out }] of helps.entries()) {
    assert.equal(code, 0, names[i])
    assert.ok(out.includes(`Usage: carillon ${names[i]} [options]`), out)
  }

  const misused: [string[], RegExp][] = [
    [[], /^$/],
    [['dance'], /"dance" is not a command/],
    [['send', '--colour', 'red'], /Unknown option '--colour'.*See "carillon send --help"/],
    [['key', 'create'], /<name> is missing/],
    [['why', 'x'], /"x" is not an id/],
    [['why', EVENT, '--notification', OTHER], /either an event or/],
    [['event', 'publish', 'a', 'b'], /"b" is too much/],
    [['event', 'publish', 'a', '--data', '{'], /--data is not JSON/],
    [['event', 'publish', 'a', '--data', '[1]'], /--data is not a JSON object/],
    [['event', 'publish', 'a', '--time', 'soon'], /--time: "soon" is not a time/],
    [['event', 'publish', 'a', '--priority', 'urgent'], /--priority is none of CRITICAL/],
    [['send', '--body', 'x'], /Nobody is named/],
    [['send', '--user', 'a'], /Nothing is said/],
    [['send', '--user', 'a', '--body', 'x', '--channel', 'fax'], /"fax" is none of in_app/],
    [['send', '--to', 'email', '--body', 'x'], /not CHANNEL=ADDRESS/],
    [['tail', 'alice', '--after', 'x'], /--after is not a whole number/],
    [['redrive', 'x'], /"x" is not an id/],
    [['redrive', EVENT, '--all'], /not both/],
    [['start', '--port', 'x', '--role', 'cook'], /--port: "x".*\n.*--role: "cook"/],
  ]
  const ends = await Promise.all(misused.map(([args]) => carillon(args, { CARILLON_KEY: 'k' })))
  for (const [i, { code, err }] of ends.entries()) {
    assert.equal(code, 2, `${misused[i]![0].join(' ')}: ${err}`)
    assert.match(err, misused[i]![1])
  }
})

test('event publish sends what was said, with a key that makes trying again safe', async t => {
  const { seen, env } = await scripted(t, (_request, response) =>
    json(response, 202, { id: EVENT, status: 'accepted' }),
  )
  const args = [
    'event',
    'publish',
    'order.shipped',
    '--subject',
    'alice',
    '--id',
    'A-17',
    '--priority',
    'high',
  ]
  const ended = await carillon(
    [...args, '--data', '-', '--scheduled-at', '2026-12-24T18:00:00+01:00'],
    env,
    '{"order":"A-17"}',
  )
  assert.equal(ended.code, 0, ended.err)
  assert.match(ended.out, new RegExp(`^${EVENT}  accepted\n$`))
  const [{ method, url, headers, body }] = seen as [Seen]
  assert.equal(`${method} ${url}`, 'POST /api/events/publish')
  assert.equal(headers.authorization, 'Bearer crl_test')
  assert.match(String(headers['idempotency-key']), /^[0-9a-f-]{36}$/)
  assert.deepEqual(body, {
    type: 'order.shipped',
    source: 'carillon-cli',
    subject: 'alice',
    id: 'A-17',
    priority: 'HIGH',
    data: { order: 'A-17' },
    scheduledAt: '2026-12-24T17:00:00.000Z',
  })
  const asJson = await carillon([...args, '--json', '--idempotency-key', 'mine'], env)
  assert.deepEqual(JSON.parse(asJson.out), { id: EVENT, status: 'accepted' })
  assert.equal(seen[1]!.headers['idempotency-key'], 'mine')
})

test('send: people, lists and bare addresses', async t => {
  const { seen, env } = await scripted(t, (_request, response) =>
    json(response, 202, { id: EVENT, status: 'accepted' }),
  )
  const args = [
    'send',
    '--user',
    'alice',
    '--group',
    'kitchen',
    '--to',
    'email=bob@example.org',
    '--fallback',
    'sms',
  ]
  const ended = await carillon([...args, '--subject', 'Hello', '--body', '-'], env, 'Lunch is ready\n')
  assert.equal(ended.code, 0, ended.err)
  assert.equal(seen[0]!.url, '/api/notifications')
  assert.deepEqual(seen[0]!.body, {
    recipients: [
      { type: 'user', id: 'alice' },
      { type: 'group', id: 'kitchen' },
    ],
    channels: ['email', 'in_app'],
    addresses: { email: ['bob@example.org'] },
    fallbackChannels: ['sms'],
    subject: 'Hello',
    body: 'Lunch is ready',
  })
})

test('a refusal is told with its fields, and the request id where it was our fault', async t => {
  const { env } = await scripted(t, ({ url }, response) => {
    const problem = url.includes('keys')
      ? { title: 'Oops', detail: 'The request failed.\u001b[2J', code: 'internal', requestId: 'r-1' }
      : {
          title: 'Bad',
          detail: 'The body is wrong.',
          code: 'invalid_request',
          errors: [{ field: '/data', message: 'must be object' }],
        }
    response.writeHead(url.includes('keys') ? 500 : 400, { 'content-type': 'application/problem+json' })
    response.end(JSON.stringify(problem))
  })
  const refused = await carillon(['event', 'publish', 'x'], env)
  assert.equal(refused.code, 1)
  assert.equal(refused.out, '')
  assert.match(refused.err, /^The body is wrong\. \(invalid_request\)\n {2}\/data: must be object\n$/)
  const asJson = await carillon(['event', 'publish', 'x', '--json'], env)
  assert.equal((JSON.parse(asJson.err) as { code: string }).code, 'invalid_request')
  const failed = await carillon(['key', 'create', 'x'], env)
  assert.match(failed.err, /The request failed\. .*\(internal\)\nRequest r-1\n$/)
})

test('nobody there, somebody else there, and a connection that breaks', async t => {
  const nobody = await carillon(['event', 'publish', 'x'], {
    CARILLON_URL: 'http://127.0.0.1:9',
    CARILLON_KEY: 'k',
  })
  assert.equal(nobody.code, 1)
  assert.match(
    nobody.err,
    /--idempotency-key [0-9a-f-]{36}[\s\S]*No server answers at http:\/\/127\.0\.0\.1:9\. Start one with "carillon start"/,
  )

  const { env } = await scripted(t, ({ url }, response) => {
    if (url.includes('keys')) response.destroy()
    else response.writeHead(404, { 'content-type': 'text/html' }).end('<h1>nginx</h1>')
  })
  assert.match(
    (await carillon(['event', 'publish', 'x'], env)).err,
    /HTTP 404 .* does not look like Carillon/,
  )
  assert.match((await carillon(['key', 'create', 'x'], env)).err, /cannot be reached/)
})

test('the key: from the data folder of this machine, never to another machine', async t => {
  const { seen, env, port } = await scripted(t, (_request, response) =>
    json(response, 201, { key: 'crl_new', name: 'shop', role: 'service', id: OTHER }),
  )
  const dir = folder(t)
  mkdirSync(join(dir, 'data'))
  writeFileSync(join(dir, 'data', 'admin.key'), 'crl_embedded\n', { mode: 0o600 })
  const args = ['key', 'create', 'shop', '--scope', 'events:write', '--scope', 'events:read']
  const made = await carillon(args, { PORT: String(port) }, undefined, dir)
  assert.equal(made.out, 'crl_new\n')
  assert.equal(seen[0]!.headers.authorization, 'Bearer crl_embedded')
  assert.deepEqual(seen[0]!.body, { name: 'shop', role: 'service', scopes: ['events:write', 'events:read'] })

  const elsewhere = await carillon(args, { CARILLON_URL: 'http://carillon.example:4400' }, undefined, dir)
  assert.equal(elsewhere.code, 2)
  assert.match(elsewhere.err, /Set CARILLON_KEY to a key of/)
  const none = await carillon(args, { CARILLON_URL: env.CARILLON_URL }, undefined, folder(t))
  assert.equal(none.code, 2)
  assert.match(none.err, /There is no key/)
  const file = join(dir, 'other.key')
  writeFileSync(file, 'crl_other')
  await carillon(args, { CARILLON_URL: env.CARILLON_URL, CARILLON_KEY_FILE: file }, undefined, dir)
  assert.equal(seen[1]!.headers.authorization, 'Bearer crl_other')
})

const EXPLANATION = {
  event: {
    id: EVENT,
    type: 'order.shipped',
    source: 'shop',
    time: '2026-11-21T04:12:03.250Z',
    receivedAt: '2026-11-21T04:12:03.300Z',
    status: 'completed',
  },
  rules: [
    { id: OTHER, name: 'VIP', matched: false, why: 'pattern_false' },
    {
      id: OTHER,
      name: 'Tell the buyer',
      matched: true,
      recipients: [
        {
          type: 'user',
          id: 'alice',
          notificationId: OTHER,
          decisions: [
            { channel: 'email', decision: 'send' },
            {
              channel: 'sms',
              decision: 'skip',
              reason: 'unverified_address',
              detail: 'pending since Monday',
            },
            { channel: 'in_app', decision: 'hold', reason: 'scheduled', until: '2026-11-22T08:00:00.000Z' },
          ],
          deliveries: [
            {
              channel: 'email',
              status: 'delivered',
              attempts: [
                {
                  attempt: 1,
                  at: '2026-11-21T04:12:04.000Z',
                  outcome: 'failed',
                  provider: 'smtp',
                  code: 'timeout',
                  durationMs: 10000,
                  error: 'No answer came in time',
                },
                {
                  attempt: 2,
                  at: '2026-11-21T04:12:16.000Z',
                  outcome: 'delivered',
                  provider: 'smtp',
                  durationMs: 81,
                },
              ],
            },
          ],
        },
      ],
    },
  ],
}

test('why tells rules, decisions with their reasons, and every try', async t => {
  const { seen, env } = await scripted(t, (_request, response) => json(response, 200, EXPLANATION))
  const { out, code } = await carillon(['why', EVENT, '--user', 'alice'], env)
  assert.equal(code, 0)
  assert.equal(seen[0]!.url, `/api/explain?user=alice&event=${EVENT}`)
  assert.equal(
    out,
    `order.shipped  ${EVENT}
  from shop, 2026-11-21 04:12:03.250, completed

  ✓ rule Tell the buyer
      user alice  ${OTHER}
        email   send  → delivered
        sms     skip  The user's address for this channel is not verified (unverified_address): pending since Monday
        in_app  hold  until 2026-11-22 08:00:00.000  It is to be sent at a later time (scheduled)
          email #1  2026-11-21 04:12:04.000  failed     smtp  10000 ms  timeout: No answer came in time
          email #2  2026-11-21 04:12:16.000  delivered  smtp  81 ms

  – rule VIP
      The rule's pattern is false for this event (pattern_false)
`,
  )
  await carillon(['why', EVENT], env)
  await carillon(['why', '--notification', OTHER], env)
  assert.deepEqual(
    seen.slice(1).map(one => one.url),
    [`/api/events/${EVENT}/explain`, `/api/notifications/${OTHER}/explain`],
  )
  assert.deepEqual(JSON.parse((await carillon(['why', EVENT, '--json'], env)).out), EXPLANATION)
})

test('why shows an event that no rule took', async t => {
  const { env } = await scripted(t, (_request, response) =>
    json(response, 200, { ...EXPLANATION, rules: [] }),
  )
  assert.match((await carillon(['why', EVENT], env)).out, /No rule matched the event \(no_rule_matched\)/)
})

const envelope = (seq: number, type: string, data: object) =>
  `id: ${seq}\ndata: ${JSON.stringify({ seq, type, at: '2026-11-21T04:12:03.250Z', data })}\n\n`

test('tail follows, goes on where it stopped, and shows no control characters', async t => {
  const { seen, env } = await scripted(t, (_request, response, nth) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' })
    if (nth === 1) {
      response.write('retry: 1000\n: connected\n\n')
      response.write(envelope(7, 'notification', { subject: 'First\u001b[31m', body: 'one' }))
      // The connection breaks in the middle of an event.
      response.write('id: 8\ndata: {"seq"', () => response.destroy())
    } else {
      response.write(envelope(8, 'counts', { unread: 2 }))
      response.write(envelope(9, 'notification', { subject: 'Second', body: 'two' }))
    }
  })
  const { out, err, code } = await carillon(['tail', 'alice', '--after', '6', '--count', '2'], env)
  assert.equal(code, 0, err)
  assert.deepEqual(
    out
      .trim()
      .split('\n')
      .map(line => line.replaceAll(/ +/g, ' ')),
    [
      '04:12:03 7 notification First [31m one',
      '04:12:03 8 counts {"unread":2}',
      '04:12:03 9 notification Second two',
    ],
  )
  assert.equal(seen[0]!.url, '/realtime?userId=alice')
  assert.deepEqual(
    seen.map(one => one.headers['last-event-id']),
    ['6', '7'],
  )
  assert.match(err, /Trying again/)
})

test('tail ends at Ctrl-C, and at a refusal', async t => {
  const { promise: open, resolve } = Promise.withResolvers<void>()
  const { env } = await scripted(t, ({ url }, response) => {
    if (url.includes('mallory'))
      return json(response, 403, { title: 'No', detail: 'Not yours.', code: 'forbidden' })
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': connected\n\n')
    resolve()
  })
  const { child, ended } = start(['tail', 'alice', '--json'], env)
  await open
  child.kill('SIGINT')
  assert.equal((await ended).code, 0)
  const refused = await carillon(['tail', 'mallory'], env)
  assert.equal(refused.code, 1)
  assert.match(refused.err, /Not yours\. \(forbidden\)/)
})

test('beat tries again while nobody can answer, and no longer than it is worth', async t => {
  let asked = 0
  const { seen, env } = await scripted(t, ({ url }, response) => {
    if (url.includes('unknown')) {
      return json(response, 404, {
        title: 'No',
        detail: 'There is no heartbeat of this name.',
        code: 'not_found',
      })
    }
    asked++
    if (asked === 2) return response.writeHead(204).end()
    json(response, 503, { title: 'No', detail: 'The server is shutting down', code: 'shutting_down' })
  })
  const heard = await carillon(['beat', 'backup.nightly'], env)
  assert.deepEqual([heard.code, heard.out], [0, 'backup.nightly was heard.\n'])
  assert.match(heard.err, /shutting down.*; trying again/)
  const once = await carillon(['beat', 'backup.nightly', '--patience', '0'], env)
  assert.equal(once.code, 1)
  const unknown = await carillon(['beat', 'unknown'], env)
  assert.equal(unknown.code, 1)
  assert.match(unknown.err, /no heartbeat of this name/)
  assert.deepEqual(
    seen.map(one => `${one.method} ${one.url}`),
    [
      ...Array.from({ length: 3 }, () => 'POST /api/heartbeats/backup.nightly/beat'),
      'POST /api/heartbeats/unknown/beat',
    ],
  )
  assert.equal((await carillon(['beat', 'x', '--patience', 'long'], env)).code, 2)
})

test('redrive lists, sends single ones, and all that fit', async t => {
  const { seen, env } = await scripted(t, ({ method, url }, response) => {
    if (method === 'GET') {
      const item = {
        id: EVENT,
        at: '2026-11-21T04:12:03.250Z',
        kind: 'delivery',
        channel: 'email',
        eventType: 'order.shipped',
        code: 'timeout',
        error: 'No answer',
      }
      return json(response, 200, { items: [item], nextCursor: 'more' })
    }
    if (url.includes(OTHER))
      return json(response, 409, { title: 'No', detail: 'It was sent again before.', code: 'conflict' })
    json(response, 200, { redriven: 12 })
  })
  const listed = await carillon(['redrive', '--channel', 'email', '--limit', '1'], env)
  assert.match(listed.out, /order\.shipped {2}timeout: No answer\nThere are more\.\n$/)
  const some = await carillon(['redrive', EVENT, OTHER], env)
  assert.equal(some.code, 1)
  assert.match(some.out, new RegExp(`${EVENT}  sent again\n${OTHER}  failed: It was sent again before`))
  const all = await carillon(['redrive', '--all', '--code', 'timeout', '--kind', 'delivery'], env)
  assert.equal(all.out, '12 sent again.\n')
  assert.deepEqual(
    seen.map(one => `${one.method} ${one.url}`),
    [
      'GET /api/dead-letters?channel=email&limit=1',
      `POST /api/dead-letters/${EVENT}/redrive`,
      `POST /api/dead-letters/${OTHER}/redrive`,
      'POST /api/dead-letters/redrive',
    ],
  )
  assert.deepEqual(seen[3]!.body, { filter: { kind: 'delivery', code: 'timeout' } })
})

test('a closed pipe is no failure', async t => {
  const items = Array.from({ length: 200 }, () => ({ id: EVENT, error: 'x'.repeat(2000) }))
  const { env } = await scripted(t, (_request, response) => json(response, 200, { items, nextCursor: null }))
  const { child, ended } = start(['redrive', '--json'], env)
  child.stdout.destroy()
  assert.equal((await ended).err, '')
})

// ---------------------------------------------------------------- the database itself

test('doctor on a fresh machine finds nothing wrong and leaves nothing behind', async t => {
  const dir = folder(t)
  const { code, out } = await carillon(['doctor', '--json'], { PORT: '0' }, undefined, dir)
  const { ok, findings } = JSON.parse(out) as { ok: boolean; findings: { name: string; state: string }[] }
  assert.equal(code, 0, out)
  assert.equal(ok, true)
  assert.deepEqual(
    findings.filter(one => one.state === 'fail'),
    [],
  )
  assert.equal(existsSync(join(dir, 'data')), false)
})

test('doctor names what is wrong and what to do', async t => {
  const dir = folder(t)
  mkdirSync(join(dir, 'data'))
  writeFileSync(join(dir, 'data', 'admin.key'), 'crl_x')
  chmodSync(join(dir, 'data', 'admin.key'), 0o644)
  const foreign = await scripted(t, (_request, response) => void response.end('not ours'))
  const mail = createTcpServer(socket => socket.end('554 go away\r\n'))
  await new Promise<void>(done => mail.listen(0, '127.0.0.1', done))
  t.after(() => mail.close())
  const { code, out } = await carillon(
    ['doctor'],
    {
      PORT: String(foreign.port),
      CARILLON_PROT: '1',
      REDIS_URL: 'redis://127.0.0.1:9',
      SMTP_HOST: '127.0.0.1',
      SMTP_PORT: String((mail.address() as AddressInfo).port),
      SMTP_FROM: 'a@example.org',
      JWKS_URL: 'http://127.0.0.1:9/keys',
      OTEL_EXPORTER_OTLP_ENDPOINT: 'http://127.0.0.1:9',
    },
    undefined,
    dir,
  )
  assert.equal(code, 1)
  for (const line of [
    /! warn {2}configuration CARILLON_PROT is not a setting/,
    /✗ fail {2}data folder {3}others may read admin\.key\n.*→ chmod 600/,
    /✗ fail {2}port .* is used by another program\n.*→ Set PORT/,
    /! warn {2}redis .*\n.*→ Work goes on without it/,
    /✗ fail {2}mail .* refuses: 554 go away/,
    /✗ fail {2}token issuer .*cannot be used/,
    /! warn {2}collector /,
  ]) {
    assert.match(out, line)
  }
  const unusable = await carillon(['doctor'], { PORT: 'x', DATABASE_URL: 'postgres://u:canary@h/d' })
  assert.equal(unusable.code, 1)
  assert.match(
    unusable.out,
    /fail {2}configuration PORT: "x"[\s\S]*fail {2}configuration CARILLON_MASTER_KEY is required/,
  )
  assert.doesNotMatch(unusable.out, /canary/)
})

// ---------------------------------------------------------------- the shim

/** A Node older than 24, if this machine has one. */
function olderNode(): string | undefined {
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    const node = join(dir, 'node')
    if (!existsSync(node)) continue
    const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' })
    const major = Number(/^v(\d+)\./.exec(stdout)?.[1])
    if (major >= 20 && major < 24) return node
  }
  return undefined
}

test('the shim runs under Node 24 itself', async () => {
  const { ended } = start(['--version'], {}, { script: SHIM })
  assert.match((await ended).out, /^\d+\.\d+\.\d+\n$/)
})

test('the shim hands over from an older Node: arguments, exit code, signals', async t => {
  const node = olderNode()
  if (node === undefined) return t.skip('no Node 20 to 23 on this machine')
  const run = (args: string[], env: NodeJS.ProcessEnv = {}): { child: ChildProcess; ended: Promise<Ended> } =>
    start(args, env, { node, script: SHIM })
  assert.match((await run(['--version']).ended).out, /^\d+\.\d+\.\d+\n$/)
  const misused = await run(['why', 'with space']).ended
  assert.equal(misused.code, 2)
  assert.match(misused.err, /"with space" is not an id/)
  const missing = await run(['--version'], { CARILLON_NODE: '/nowhere/node' }).ended
  assert.equal(missing.code, 1)
  assert.match(missing.err, /needs Node 24.*\n.*\/nowhere\/node\n.*npm ci/)

  const { promise: open, resolve } = Promise.withResolvers<void>()
  const { env } = await scripted(t, (_request, response) => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(': connected\n\n')
    resolve()
  })
  const { child, ended } = run(['tail', 'alice'], env)
  await open
  child.kill('SIGTERM')
  assert.equal((await ended).code, 0)
})
