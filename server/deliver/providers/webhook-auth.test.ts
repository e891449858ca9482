import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Webhook } from 'standardwebhooks'
import { normalizeAddresses } from '../../people/addresses.ts'
import type { JsonObject, Message } from '../../types.ts'
import { openHttp } from '../http.ts'
import { type OpenedProvider, openProvider, readSettings } from '../open-provider.ts'
import type { DeliveryError, Sent } from '../provider.ts'
import {
  type Asked,
  exampleMessage,
  type HttpReply,
  httpVendor,
  testProvider,
  type Vendor,
} from './conformance.ts'
import { webhook } from './webhook/webhook.ts'

const SECRET = `whsec_${Buffer.from('a key of twenty-four by.').toString('base64')}`

testProvider(webhook, {
  vendor: () =>
    httpVendor({}, ({ headers }) =>
      headers.authorization === 'Bearer plain-token' ? undefined : { status: 401 },
    ),
  settings: () => ({ timeoutSeconds: 0.5, auth: { type: 'bearer', token: 'plain-token' }, method: 'PUT' }),
  message: vendor => exampleMessage({ to: `http://${vendor.host}:${vendor.port}/hook` }),
})

interface Far {
  vendor: Vendor
  opened: OpenedProvider
  send(more?: Partial<Message>): Promise<Sent | DeliveryError>
  /** Adds to the clock. */
  later(seconds: number): void
  paths(): string[]
}

/** A server that gives tokens at /token and takes notifications at /hook. */
async function scene(
  settings: (base: string) => JsonObject,
  reads: (asked: Asked) => HttpReply | undefined,
  work: (far: Far) => Promise<void>,
) {
  const vendor = await httpVendor({ accept: { status: 204 } }, reads)
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const base = `http://${vendor.host}:${vendor.port}`
  let now = Date.parse('2026-11-21T12:00:00Z')
  let open: OpenedProvider | undefined
  try {
    const opened = await openProvider(webhook, settings(base), { http, now: () => new Date(now) })
    open = opened
    await work({
      vendor,
      opened,
      send: more =>
        opened
          .send(exampleMessage({ to: `${base}/hook`, ...more }), new AbortController().signal)
          .catch((error: unknown) => error as DeliveryError),
      later(seconds) {
        now += seconds * 1000
      },
      paths: () => vendor.received.map(each => each.to[0]!),
    })
  } finally {
    await open?.close()
    await http.close()
    await vendor.close()
  }
}

// covers: DIC-118, DIC-119
test('each kind of proof travels in its header, beside the signature', async () => {
  for (const [auth, header, value] of [
    [{ type: 'bearer', token: 'abc' }, 'authorization', 'Bearer abc'],
    [{ type: 'apikey', token: 'abc' }, 'x-api-key', 'abc'],
    [{ type: 'apikey', token: 'abc', header: 'X-Own' }, 'x-own', 'abc'],
    // RFC 7617 §2.1, with its own example.
    [{ type: 'basic', username: 'test', password: '123£' }, 'authorization', 'Basic dGVzdDoxMjPCow=='],
  ] as [JsonObject, string, string][]) {
    const headers = { authorization: 'replaced', 'x-own': 'replaced' }
    const check = async ({ vendor, send }: Far, more: Partial<Message>, method: string) => {
      assert.equal(((await send(more)) as Sent).outcome, 'delivered')
      const { raw, headers: sent } = vendor.received[0]!
      assert.equal(sent[header], value)
      assert.ok(raw.startsWith(`${method} /hook`))
      new Webhook(SECRET).verify(raw.slice(raw.indexOf('\r\n\r\n') + 4), {
        ...sent,
        'webhook-timestamp': sent['webhook-timestamp']!,
      })
    }
    const realTime = { secret: SECRET, headers }
    await scene(
      () => ({ auth, ...realTime }),
      () => undefined,
      far => checkAt(far, () => check(far, {}, 'POST')),
    )
    const own = { auth, method: 'PUT', secret: SECRET }
    await scene(
      () => ({ auth: { type: 'bearer', token: 'of-the-provider' } }),
      () => undefined,
      far => checkAt(far, () => check(far, { addressSettings: own }, 'PUT')),
    )
  }
})

/** The package that verifies asks the real clock. */
async function checkAt(far: Far, work: () => Promise<void>) {
  far.later((Date.now() - Date.parse('2026-11-21T12:00:00Z')) / 1000)
  await work()
}

const CLIENT = { type: 'oauth2', clientId: 'a client', clientSecret: 'p&ss=word', scope: 'notify write' }
// RFC 6749 §2.3.1: form-encoded, then Basic.
const PAIR = `Basic ${Buffer.from('a+client:p%26ss%3Dword').toString('base64')}`

/** Gives the tokens t1, t2, …, and takes those that `good` names. */
const issuer = (good: Set<string>, more: (given: number) => JsonObject = () => ({ expires_in: 3600 })) => {
  let given = 0
  return ({ method, path, headers, body }: Asked): HttpReply | undefined => {
    if (path !== '/token') return good.has(headers.authorization ?? '') ? undefined : { status: 401 }
    const form = new URLSearchParams(body)
    const asks =
      method === 'POST' &&
      headers['content-type'] === 'application/x-www-form-urlencoded' &&
      form.get('grant_type') === 'client_credentials' &&
      form.get('scope') === 'notify write'
    if (!asks) return { status: 400, body: '{"error":"invalid_request"}' }
    if (headers.authorization !== PAIR) return { status: 401, body: '{"error":"invalid_client"}' }
    given++
    return {
      status: 200,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ access_token: `t${given}`, token_type: 'Bearer', ...more(given) }),
    }
  }
}
const good = (...tokens: string[]) => new Set(tokens.map(token => `Bearer ${token}`))
const oauth = (base: string) => ({ auth: { ...CLIENT, tokenUrl: `${base}/token` } })

// covers: DIC-118, DIC-119
test('an access token is fetched once for all, and again before it ends', async () => {
  await scene(oauth, issuer(good('t1', 't2')), async ({ send, later, paths }) => {
    const sent = await Promise.all([1, 2, 3, 4].map(() => send()))
    assert.ok(sent.every(each => (each as Sent).outcome === 'delivered'))
    assert.equal(paths().filter(path => path === '/token').length, 1)
    later(3600 - 61)
    await send()
    assert.equal(paths().filter(path => path === '/token').length, 1)
    later(2)
    assert.equal(((await send()) as Sent).outcome, 'delivered')
    assert.equal(paths().filter(path => path === '/token').length, 2)
  })
})

test('a token that ended before its time is replaced once, and only once', async () => {
  await scene(oauth, issuer(good('t2')), async ({ send, paths }) => {
    assert.equal(((await send()) as Sent).outcome, 'delivered')
    assert.deepEqual(paths(), ['/token', '/hook', '/token', '/hook'])
    assert.equal(((await send()) as Sent).outcome, 'delivered')
    assert.deepEqual(paths().slice(4), ['/hook'])
  })
  await scene(oauth, issuer(good()), async ({ send, paths }) => {
    const error = (await send()) as DeliveryError
    assert.deepEqual([error.kind, error.code], ['temporary', 'auth'])
    assert.deepEqual(paths(), ['/token', '/hook', '/token', '/hook'])
  })
})

test('who knows another secret gets no token that was given to somebody else', async () => {
  await scene(oauth, issuer(good('t1')), async ({ vendor, send, paths }) => {
    assert.equal(((await send()) as Sent).outcome, 'delivered')
    const tokenUrl = `http://${vendor.host}:${vendor.port}/token`
    const error = (await send({
      addressSettings: { auth: { ...CLIENT, tokenUrl, clientSecret: 'guessed' } },
    })) as DeliveryError
    assert.deepEqual([error.kind, error.code], ['temporary', 'auth'])
    assert.deepEqual(paths(), ['/token', '/hook', '/token'])
  })
})

test('without a token nothing is sent, and the next message asks again', async () => {
  for (const [more, code] of [
    [{ access_token: 7 }, 'garbled_answer'],
    [{ access_token: 'a\r\nb' }, 'garbled_answer'],
    [{ token_type: 'mac' }, 'garbled_answer'],
  ] as [JsonObject, string][]) {
    const reads = issuer(good('t2'), given => (given === 1 ? more : { expires_in: '3600' }))
    await scene(oauth, reads, async ({ send, paths }) => {
      const error = (await send()) as DeliveryError
      assert.deepEqual([error.kind, error.code, paths()], ['temporary', code, ['/token']])
      assert.equal(((await send()) as Sent).outcome, 'delivered')
    })
  }
  for (const behaviour of ['reset', 'fail', 'rate_limit', 'refuse', 'redirect'] as const) {
    await scene(oauth, issuer(good('t1')), async ({ vendor, send }) => {
      vendor.behave(behaviour)
      const error = (await send()) as DeliveryError
      assert.equal(error.kind, behaviour === 'rate_limit' ? 'rate_limited' : 'temporary', behaviour)
      assert.equal(vendor.received.length, 1)
    })
  }
})

// covers: DIC-120
test("a token endpoint in a private network is not called on an address's word", async () => {
  await scene(
    () => ({}),
    () => undefined,
    async ({ send, vendor }) => {
      for (const tokenUrl of [
        'http://127.0.0.2/token',
        'http://169.254.169.254/latest',
        'http://[::1]/token',
      ]) {
        const error = (await send({ addressSettings: { auth: { ...CLIENT, tokenUrl } } })) as DeliveryError
        assert.deepEqual([error.kind, error.code], ['permanent', 'blocked_address'])
      }
      assert.equal(vendor.received.length, 0)
    },
  )
})

test('settings that miss what their kind needs do not open', async () => {
  for (const auth of [
    { type: 'bearer' },
    { type: 'apikey' },
    { type: 'basic', username: 'x' },
    { type: 'oauth2', tokenUrl: 'https://id.example/token', clientId: 'x' },
  ] as JsonObject[]) {
    await assert.rejects(
      scene(
        () => ({ auth }),
        () => undefined,
        async () => {},
      ),
      { code: 'invalid_settings' },
    )
    await scene(
      () => ({}),
      () => undefined,
      async ({ send, vendor }) => {
        const error = (await send({ addressSettings: { auth } })) as DeliveryError
        assert.deepEqual(
          [error.kind, error.code, vendor.received.length],
          ['permanent', 'invalid_settings', 0],
        )
      },
    )
  }
  await scene(
    () => ({}),
    () => undefined,
    async ({ send }) => {
      for (const header of ['Host', 'Webhook-Signature', 'Content-Length']) {
        const auth = { type: 'apikey', token: 'x', header }
        assert.equal(((await send({ addressSettings: { auth } })) as DeliveryError).code, 'invalid_settings')
      }
    },
  )
})

test('where an address is written and where it is used, the same settings hold', () => {
  const oauth2 = { type: 'oauth2', tokenUrl: 'https://id.example/t', clientId: 'c', clientSecret: 's' }
  const holds: [JsonObject, boolean][] = [
    [{ auth: { type: 'bearer', token: 'abc' }, method: 'PUT' }, true],
    [{ auth: { type: 'apikey', token: 'abc', header: 'X-Key' } }, true],
    [{ auth: { type: 'basic', username: 'ann', password: 'pass word £' } }, true],
    [{ auth: { ...oauth2, scope: 'a b' } }, true],
    [{ auth: { type: 'digest', token: 'abc' } }, false],
    [{ auth: { type: 'bearer', token: 'a b' } }, false],
    [{ auth: { type: 'bearer', token: 'a\r\nb' } }, false],
    [{ auth: { type: 'bearer', token: '' } }, false],
    [{ auth: { type: 'apikey', token: 'abc', header: 'X Key' } }, false],
    [{ auth: { type: 'basic', username: 'an:n', password: 'x' } }, false],
    [{ auth: { type: 'basic', username: 'ann', password: 'a\nb' } }, false],
    [{ auth: { ...oauth2, tokenUrl: 'ftp://id.example/t' } }, false],
    [{ auth: { ...oauth2, scope: 'a "b"' } }, false],
    [{ auth: { ...oauth2, clientId: 'ü' } }, false],
    [{ method: 'DELETE' }, false],
  ]
  const does = (work: () => unknown): boolean => {
    try {
      work()
      return true
    } catch {
      return false
    }
  }
  const address = { channel: 'webhook', address: 'https://example.org/hook' } as const
  for (const [settings, expected] of holds) {
    const written = does(() => normalizeAddresses([{ ...address, settings }], ''))
    const used = does(() => readSettings(webhook.addressSettings!, settings))
    assert.deepEqual([settings, written, used], [settings, expected, expected])
  }
})
