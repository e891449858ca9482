import assert from 'node:assert/strict'
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer as createTcpServer } from 'node:net'
import type { AddressInfo, Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { inspect } from 'node:util'
import { stringify } from 'yaml'
import { catalog } from '../deliver/catalog.ts'
import { openHttp } from '../deliver/http.ts'
import { openProvider } from '../deliver/open-provider.ts'
import { exampleMessage } from '../deliver/providers/conformance.ts'
import type { JsonObject } from '../types.ts'
import { type Loose, type TestApp, eventually, testApp } from './app.ts'

/**
 * Secrets of every kind are planted, everything is made to fail before far ends that repeat what they were told, and
 * whatever the product says, writes or keeps is searched for them.
 */
const planted = new Map<string, string>()

/** What stands in the text, and what whoever decodes its parts would read. */
function* readings(text: string): Generator<string> {
  yield text
  yield text.replaceAll(/%[0-9A-Fa-f]{2}/g, code => String.fromCharCode(Number.parseInt(code.slice(1), 16)))
  for (let shift = 0; shift < 4; shift++) {
    const runs = text.matchAll(/[A-Za-z0-9+/_-]{16,}/g)
    yield Array.from(runs, ([run]) => Buffer.from(run.slice(shift), 'base64').toString('latin1')).join('\n')
  }
}

function plant(
  name: string,
  secret = `canary${name.replaceAll(/\W/g, '')}${randomBytes(8).toString('hex')}`,
): string {
  planted.set(name, secret)
  return secret
}

function assertClean(where: string, text: string): void {
  for (const reading of readings(text)) {
    for (const [name, secret] of planted) {
      const at = reading.indexOf(secret)
      assert.equal(
        at,
        -1,
        `${where} shows the secret "${name}": …${reading.slice(Math.max(0, at - 100), at)}`,
      )
    }
  }
}

type Answer = (request: IncomingMessage, said: string, response: ServerResponse) => void

/** Says back all it was told, in every place where vendors put their words. */
const echo =
  (status: number, headers: Record<string, string> = {}): Answer =>
  (request, said, response) => {
    const told = `${request.url} ${JSON.stringify(request.headers)} ${said}`
    const body = JSON.stringify({
      message: told,
      error: { message: told, code: told, status: 'X', details: [{ errorCode: told }] },
      error_description: told,
      errors: [{ message: told, description: told, code: 1, field: told }],
      Message: told,
      description: told,
      detail: told,
      ok: false,
    })
    response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body)
  }
const garbage: Answer = (request, said, response) =>
  void response.writeHead(200).end(`${request.url} ${JSON.stringify(request.headers)} ${said}`)
const reset: Answer = request => void request.socket.destroy()

let answer: Answer = echo(500)
const spans: string[] = []
const far = createServer((request, response) => {
  const chunks: Buffer[] = []
  request.on('data', (chunk: Buffer) => chunks.push(chunk))
  request.on('end', () => {
    const said = Buffer.concat(chunks)
    if (request.url!.endsWith('/v1/traces')) {
      // Protobuf: the texts stand in it as they are.
      spans.push(said.toString('latin1'))
      return void response.writeHead(200).end()
    }
    answer(request, said.toString('latin1'), response)
  })
})
/** A mail server that refuses everybody, with what they said. */
const mail = createTcpServer(socket => {
  socket.on('error', () => {})
  socket.write('220 far.example ESMTP\r\n')
  socket.on('data', data => {
    const said = data.toString('latin1').trim()
    if (/^EHLO/i.test(said)) socket.write('250-far.example\r\n250 AUTH PLAIN LOGIN\r\n')
    else socket.write(`535 5.7.8 refused: ${said}\r\n`)
  })
})
const listen = (server: Server): Promise<number> =>
  new Promise(resolve => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)))

const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({
  type: 'pkcs8',
  format: 'pem',
})
const ec = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const p8 = String(ec.privateKey.export({ type: 'pkcs8', format: 'pem' }))
const vapid = ec.privateKey.export({ format: 'jwk' })
const lineOf = (pem: string | Buffer) => String(pem).split('\n')[1]!
const browser = generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.export({ format: 'jwk' })
const point = (key: { x?: string; y?: string }) =>
  Buffer.concat([
    Buffer.from([4]),
    Buffer.from(key.x!, 'base64url'),
    Buffer.from(key.y!, 'base64url'),
  ]).toString('base64url')

const TRACE = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
const PHONE = '+15005550001'
const SID = `AC${'0'.repeat(32)}`

/** Each provider with its settings, and an address of its own kind. */
function setUp(
  port: number,
  mailPort: number,
): Record<string, { settings: JsonObject; to: string; of?: JsonObject }> {
  const url = `http://127.0.0.1:${port}`
  const from = 'Shop <shop@example.org>'
  const aws = (id: string) => ({
    region: 'eu-west-1',
    accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
    secretAccessKey: plant(`${id} secretAccessKey`),
    sessionToken: plant(`${id} sessionToken`),
    endpoint: url,
  })
  const twilio = (id: string) => ({
    accountSid: SID,
    authToken: plant(`${id} authToken`),
    baseUrl: url,
    from: '+15005550006',
  })
  const verify = (id: string) => ({
    accountSid: SID,
    authToken: plant(`${id} authToken`),
    baseUrl: url,
    serviceSid: `VA${'0'.repeat(32)}`,
  })
  plant('fcm private key', lineOf(rsa))
  plant('apns key', lineOf(p8))
  return {
    sendgrid: { settings: { apiKey: plant('sendgrid apiKey'), from, baseUrl: url }, to: 'a@example.org' },
    mailgun: {
      settings: {
        apiKey: plant('mailgun apiKey'),
        domain: 'mg.example.org',
        from,
        webhookSigningKey: plant('mailgun webhookSigningKey'),
        baseUrl: url,
      },
      to: 'a@example.org',
    },
    ses: { settings: { ...aws('ses'), from }, to: 'a@example.org' },
    smtp: {
      settings: {
        host: '127.0.0.1',
        port: mailPort,
        secure: false,
        tls: 'off',
        user: 'shop',
        password: plant('smtp password'),
        from,
      },
      to: 'a@example.org',
    },
    messagebird: {
      settings: {
        accessKey: plant('messagebird accessKey'),
        originator: 'Shop',
        signingKey: plant('messagebird signingKey'),
        baseUrl: url,
      },
      to: PHONE,
    },
    twilio: { settings: twilio('twilio'), to: PHONE },
    sns: { settings: aws('sns'), to: PHONE },
    'twilio-verify': { settings: { ...verify('twilio-verify'), codes: 'twilio' }, to: PHONE },
    'twilio-verify-call': { settings: verify('twilio-verify-call'), to: PHONE },
    'twilio-verify-email': { settings: verify('twilio-verify-email'), to: 'ann@example.org' },
    'twilio-verify-whatsapp': { settings: verify('twilio-verify-whatsapp'), to: PHONE },
    'twilio-voice': { settings: twilio('twilio-voice'), to: PHONE },
    'twilio-whatsapp': { settings: twilio('twilio-whatsapp'), to: PHONE },
    'whatsapp-cloud': {
      settings: {
        phoneNumberId: '1234567890',
        accessToken: plant('whatsapp-cloud accessToken'),
        appSecret: plant('whatsapp-cloud appSecret'),
        verifyToken: plant('whatsapp-cloud verifyToken'),
        baseUrl: url,
      },
      to: PHONE,
    },
    fcm: {
      settings: {
        serviceAccount: JSON.stringify({
          type: 'service_account',
          project_id: 'demo-project',
          client_email: 'push@demo.iam.gserviceaccount.com',
          private_key: rsa,
          token_uri: `${url}/token`,
        }),
        baseUrl: url,
      },
      to: plant('fcm device token', `canary:${'a'.repeat(140)}`),
      of: { kind: 'fcm' },
    },
    apns: {
      settings: {
        topic: 'org.example.shop',
        teamId: 'ABCDE12345',
        keyId: 'ABCDE12345',
        key: p8,
        host: '127.0.0.1',
        port,
      },
      to: plant('apns device token', randomBytes(32).toString('hex')),
      of: { kind: 'apns' },
    },
    'web-push': {
      settings: {
        publicKey: point(vapid),
        privateKey: plant('web-push privateKey', vapid.d),
        subject: 'mailto:ops@example.org',
      },
      to: `${url}/push/${plant('web-push endpoint')}`,
      of: { p256dh: point(browser), auth: plant('web-push auth', randomBytes(16).toString('base64url')) },
    },
    'slack-bot': {
      settings: {
        token: plant('slack-bot token'),
        signingSecret: plant('slack-bot signingSecret'),
        apiUrl: url,
      },
      to: '#ops',
    },
    'slack-webhook': { settings: { url: `${url}/services/${plant('slack-webhook url')}` }, to: '#ops' },
    webhook: {
      settings: {
        auth: { type: 'basic', username: 'shop', password: plant('webhook password') },
        secret: `whsec_${plant('webhook secret', randomBytes(30).toString('base64'))}`,
      },
      to: `${url}/hook`,
      of: { auth: { type: 'bearer', token: plant('address token') } },
    },
    pagerduty: {
      settings: { routingKey: plant('pagerduty routingKey', randomBytes(16).toString('hex')), apiUrl: url },
      to: 'default',
    },
    discord: { settings: { url: `${url}/api/webhooks/1/${plant('discord url')}` }, to: 'default' },
    telegram: { settings: { token: `42:${plant('telegram token')}`, apiUrl: url }, to: '4242' },
    teams: { settings: { url: `${url}/workflows/${plant('teams url')}` }, to: 'default' },
    ntfy: { settings: { server: url, token: plant('ntfy token') }, to: 'ops' },
  }
}

let port: number
let mailPort: number
let set: ReturnType<typeof setUp>
before(async () => {
  port = await listen(far)
  mailPort = await listen(mail)
  set = setUp(port, mailPort)
})
after(() => {
  far.closeAllConnections()
  far.close()
  mail.close()
})

const BEHAVIOURS: [string, Answer][] = [
  ...[200, 202, 400, 401, 403, 404, 413, 422, 429, 500, 503].map(
    status => [String(status), echo(status)] as [string, Answer],
  ),
  ['redirect', echo(302, { location: 'http://127.0.0.1:1/' })],
  ['garbage', garbage],
  ['reset', reset],
]

test('every provider is set up here with every secret it has', () => {
  assert.deepEqual(Object.keys(set).sort(), [...catalog.keys()].sort())
})

// covers: DIC-130
test('no provider lets a secret out in what it throws or returns, whatever the far end says', async () => {
  for (const [id, { settings, to, of }] of Object.entries(set)) {
    const provider = catalog.get(id)!
    const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
    const opened = await openProvider(provider, settings, { http, now: () => new Date() })
    const code = {
      eventType: 'carillon.address.verification',
      content: { body: 'x', data: { code: '123456' } },
    }
    const message = exampleMessage({
      channel: provider.channel,
      to,
      addressSettings: of,
      ...(provider.confirmCode && code),
    })
    /** Everything else that a vendor may be asked. */
    const questions: (() => Promise<unknown> | undefined)[] = [
      () => opened.validateDeviceToken?.(to, AbortSignal.timeout(20_000)),
      () => opened.updateTopicSubscription?.(to, 'news', true, AbortSignal.timeout(20_000)),
      () => opened.getDeliveryStatus?.('SM1', AbortSignal.timeout(20_000)),
      () => opened.confirmCode?.({ to, code: '123456', ours: true }, AbortSignal.timeout(20_000)),
    ]
    try {
      for (const [name, behaviour] of BEHAVIOURS) {
        answer = behaviour
        const result = await opened
          .send(message, AbortSignal.timeout(20_000))
          .catch((error: unknown) => error as object)
        assertClean(`${id} at ${name}`, inspect(result, { depth: 10, showHidden: true }))
        const { response } = result as { response?: string }
        if (response !== undefined) assertClean(`${id} at ${name}`, response)
        for (const ask of questions) {
          const said = await Promise.resolve(ask()).catch((error: unknown) => error)
          assertClean(`${id} asked at ${name}`, inspect(said, { depth: 10, showHidden: true }))
        }
      }
      const forged = {
        method: 'POST',
        url: `http://127.0.0.1/webhooks/${id}`,
        headers: {},
        body: Buffer.from('{}'),
      }
      await opened.callback(forged, AbortSignal.timeout(20_000)).then(
        said => assertClean(`${id} callback`, JSON.stringify(said)),
        (error: unknown) => assertClean(`${id} callback`, inspect(error, { depth: 10, showHidden: true })),
      )
    } finally {
      await opened.close()
      await http.close()
    }
  }
})

// covers: DIC-130
test('no secret reaches a log, a trace, a metric, an answer or the database', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'carillon-secrets-'))
  const file = join(dir, 'providers.yaml')
  // The mail server is named by the environment; one push address is one vendor's.
  const listed = Object.entries(set).filter(([id]) => id !== 'smtp')
  await writeFile(file, stringify(listed.map(([provider, { settings }]) => ({ provider, settings }))))
  const lines: string[] = []
  const environment = {
    CARILLON_PROVIDERS_FILE: file,
    SMTP_HOST: '127.0.0.1',
    SMTP_PORT: String(mailPort),
    SMTP_SECURE: 'none',
    SMTP_USERNAME: 'shop',
    SMTP_PASSWORD: plant('environment SMTP_PASSWORD'),
    SMTP_FROM: 'shop@example.org',
    OTEL_EXPORTER_OTLP_ENDPOINT: `http://127.0.0.1:${port}`,
    OTEL_EXPORTER_OTLP_HEADERS: `authorization=${plant('environment OTLP header')}`,
    LOG_LEVEL: 'trace',
  }
  answer = echo(500)
  const t: TestApp = await testApp(environment, { log: { write: line => void lines.push(line) } })
  const read: string[] = []
  /** Content for admins, with the addresses it went to. */
  const toWhom: string[] = []
  const call = async (method: string, path: string, body?: unknown): Promise<Loose> => {
    const got = await t.call(method, path, { as: t.tenant.adminKey, body, headers: { traceparent: TRACE } })
    assert.ok(got.status < 300, `${method} ${path}: ${got.text}`)
    read.push(`${method} ${path} ${JSON.stringify([...got.headers])} ${got.text}`)
    return got.body
  }
  try {
    await call('PUT', '/api/users/carol', {
      addresses: [
        { channel: 'email', address: 'carol@example.org', verified: true },
        ...(['sms', 'whatsapp', 'voice'] as const).map(channel => ({
          channel,
          address: PHONE,
          verified: true,
        })),
        { channel: 'slack', address: '#ops', verified: true },
        { channel: 'telegram', address: '4242', verified: true },
        { channel: 'ntfy', address: 'ops', verified: true },
        {
          channel: 'webhook',
          address: `http://127.0.0.1:${port}/hook`,
          verified: true,
          settings: {
            secret: `whsec_${plant('address secret', randomBytes(30).toString('base64'))}`,
            auth: { type: 'bearer', token: planted.get('address token') },
          },
        },
      ],
    })
    await call('PUT', '/api/users/dave', {})
    await call('POST', '/api/users/dave/devices', { kind: 'fcm', token: set.fcm!.to })
    await call('POST', '/api/users/carol/devices', { kind: 'apns', token: set.apns!.to })
    await call('POST', '/api/users/carol/devices', {
      kind: 'web_push',
      token: `https://127.0.0.1:${port}/push/${planted.get('web-push endpoint')}`,
      keys: { p256dh: set['web-push']!.of!.p256dh, auth: set['web-push']!.of!.auth },
    })
    const channels = [
      'email',
      'sms',
      'whatsapp',
      'voice',
      'push',
      'web_push',
      'slack',
      'webhook',
      'telegram',
      'ntfy',
    ]
    const sent: Loose[] = []
    for (const behaviour of [echo(500), echo(401), echo(400), garbage, reset]) {
      answer = behaviour
      const made = await call('POST', '/api/notifications', {
        recipients: ['carol', 'dave'].map(id => ({ type: 'user', id })),
        channels,
        subject: 'Hello',
        body: 'Hello',
      })
      for (const { id } of made.notifications) {
        // One that is not tried waits for a breaker to close.
        await eventually('every channel had its turn', async () => {
          const { deliveries } = await call('GET', `/api/notifications/${id}`)
          return deliveries.every((one: Loose) => one.attempts > 0 || one.waitsFor)
        })
      }
      sent.push(made)
    }
    // Several of a channel were tried one after the other: each of them failed once at least.
    const { rows } = await t.db.pool.query<{ provider: string }>('select distinct provider from attempts')
    const tried = new Set(rows.map(row => row.provider))
    for (const id of [
      'smtp',
      'sendgrid',
      'mailgun',
      'ses',
      'messagebird',
      'twilio',
      'sns',
      'fcm',
      'slack-bot',
      'webhook',
    ]) {
      assert.ok(tried.has(id), `${id} was tried: ${[...tried].join()}`)
    }

    for (const { eventId, notifications } of sent) {
      await call('GET', `/api/events/${eventId}/explain`)
      for (const { id } of notifications) {
        await call('GET', `/api/notifications/${id}?include=content`)
        toWhom.push(read.pop()!)
      }
    }
    for (const path of [
      '/api/notifications',
      '/api/dead-letters',
      '/api/users/carol',
      '/api/users/carol/addresses',
      '/api/users/carol/devices',
      '/api/keys',
      '/api/audit',
      '/api/suppressions',
      '/api/providers/catalog',
      '/docs/openapi.json',
    ]) {
      await call('GET', path)
    }
    for (const behaviour of [echo(401), garbage]) {
      answer = behaviour
      for (const { name, checkable } of (await call('GET', '/api/providers')).items) {
        if (checkable) await call('POST', `/api/providers/${name}/check`, {})
      }
    }
    // Doors that refuse, and what they say of it.
    const key = plant('a mistyped key', `crl_${randomBytes(24).toString('base64url')}`)
    for (const refused of [
      ...[...catalog.keys()].map(id => t.call('POST', `/webhooks/${id}`, { body: {} })),
      t.call('GET', '/api/users', { as: key }),
      t.call('GET', `/api/users?limit=${key}`),
      t.call('POST', '/api/notifications', {
        as: t.tenant.adminKey,
        raw: `{"apiKey": "${key}`,
        headers: { 'content-type': 'application/json' },
      }),
    ]) {
      const { status, text } = await refused
      assert.ok(status >= 400 || status === 204)
      // A problem names the path and query that was asked for.
      read.push(text.replaceAll(/"instance":"[^"]*"/g, ''))
    }
    read.push((await t.call('GET', '/metrics', { as: t.tenant.adminKey })).text)
    plant('the admin key', t.tenant.adminKey)

    // A device's token is its address: the database holds it and admins see it, like phone numbers.
    const addresses = ['fcm device token', 'apns device token', 'web-push endpoint'].map(
      name => [name, planted.get(name)!] as const,
    )
    for (const [name] of addresses) planted.delete(name)
    const tables = await t.db.pool.query<{ name: string }>(
      `select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where c.relkind = 'r' and n.nspname = 'public'`,
    )
    for (const text of toWhom) assertClean('content', text)
    let kept = 0
    for (const { name } of tables.rows) {
      const all = await t.db.pool.query<{ row: string }>(`select t::text as row from ${name} t`)
      kept += all.rows.length
      assertClean(`table ${name}`, all.rows.map(({ row }) => row).join('\n'))
    }
    assert.ok(kept > 50)
    for (const [name, token] of addresses) planted.set(name, token)
  } finally {
    await t.stop()
    await rm(dir, { recursive: true, force: true })
  }
  assert.ok(lines.length > 0)
  assertClean('the log', lines.join(''))
  assert.ok(spans.length > 0)
  assertClean('a trace', spans.join('\n'))
  for (const text of read) assertClean(text.slice(0, 80), text)
})
