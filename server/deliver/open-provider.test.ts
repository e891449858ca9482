import assert from 'node:assert/strict'
import { readFileSync, readdirSync } from 'node:fs'
import { test } from 'node:test'
import { inspect } from 'node:util'
import { type Static, Type } from 'typebox'
import { AppError } from '../errors.ts'
import { catalog } from './catalog.ts'
import { openHttp } from './http.ts'
import { openProvider, readSettings } from './open-provider.ts'
import { DeliveryError, permanent, type Provider, secret, temporary } from './provider.ts'
import { exampleMessage } from './providers/conformance.ts'

const settings = Type.Object(
  {
    key: secret({ description: 'A key' }),
    older: Type.Optional(Type.Array(secret({ description: 'Former keys' }))),
    region: Type.String({ default: 'eu' }),
  },
  { additionalProperties: false },
)
type Settings = Static<typeof settings>

const plain: Provider<Settings> = {
  id: 'plain',
  channel: 'sms',
  title: 'Plain',
  settings,
  send: async () => ({ outcome: 'sent' }),
}
const world = { http: openHttp(), now: () => new Date(0) }
const { signal } = new AbortController()
const open = (more: Partial<Provider<Settings>>, raw: unknown = { key: 'hunter2' }) =>
  openProvider({ ...plain, ...more }, raw, world)

test('settings are validated, filled in and sealed', async () => {
  let seen: Settings | undefined
  const opened = await open(
    {
      async send(_message, ctx) {
        seen = ctx.settings
        return { outcome: 'sent' }
      },
    },
    { key: 'hunter2', older: ['hunter1'] },
  )
  await opened.send(exampleMessage(), signal)
  assert.equal(seen?.region, 'eu')
  assert.equal(seen?.key.reveal(), 'hunter2')
  assert.equal(seen?.older?.[0]?.reveal(), 'hunter1')
  assert.ok(!inspect(seen, { depth: 9, showHidden: true }).includes('hunter'))
  assert.equal(JSON.stringify(seen), '{"key":"<secret>","older":["<secret>"],"region":"eu"}')

  for (const [raw, field] of [
    [{}, '/key'],
    [null, '/key'],
    [{ key: 7 }, '/key'],
    [{ key: 'k', extra: 1 }, '/extra'],
    ['text', '/'],
  ] as const) {
    await assert.rejects(open({}, raw), (error: unknown) => {
      assert.ok(error instanceof AppError && error.code === 'invalid_request')
      assert.ok(
        error.errors?.some(each => each.field === field),
        inspect(error.errors),
      )
      return true
    })
  }
})

test('whatever is thrown becomes a DeliveryError without secrets, sockets or content', async () => {
  const cause = Object.assign(new Error('GET /?key=hunter2 failed'), {
    code: 'ECONNRESET',
    socket: { auth: 'hunter2' },
  })
  const opened = await open({
    send: async () => {
      throw temporary('server_error', 'said hunter2', {
        cause,
        vendorCode: 'E-hunter2',
        response: 'hunter2?',
      })
    },
  })
  const error = await opened.send(exampleMessage(), signal).catch((thrown: unknown) => thrown)
  assert.ok(error instanceof DeliveryError)
  assert.ok(!inspect(error, { depth: 9, showHidden: true }).includes('hunter2'), inspect(error))
  assert.deepEqual(
    [error.kind, error.code, error.message, error.vendorCode, error.response],
    ['temporary', 'server_error', 'said <secret>', 'E-<secret>', '<secret>?'],
  )
  assert.equal((error.cause as NodeJS.ErrnoException).code, 'ECONNRESET')
  assert.ok(!('socket' in (error.cause as object)))

  const surprised = await open({
    send: async () => {
      throw new TypeError('undefined is not a function')
    },
  })
  await assert.rejects(surprised.send(exampleMessage(), signal), { kind: 'temporary', code: 'unexpected' })
})

test("an address's own secrets are blotted out too", async () => {
  const opened = await open({
    addressSettings: Type.Object({ token: secret({ description: 'A token' }) }),
    send: async message => {
      throw permanent('refused', `no ${JSON.stringify(message.addressSettings?.token)}`)
    },
  })
  const message = exampleMessage({ addressSettings: { token: 'tok-1' } })
  await assert.rejects(opened.send(message, signal), { message: 'no "<secret>"' })
})

test('text beyond the limits is cut before the provider sees it', async () => {
  const got: string[] = []
  const opened = await open({
    limits: { subjectChars: 5, bodyChars: 10 },
    async send({ content }) {
      got.push(`${content.subject}|${content.body}`)
      return { outcome: 'sent' }
    },
  })
  await opened.send(exampleMessage({ content: { subject: 'a subject', body: 'a long body text' } }), signal)
  await opened.send(exampleMessage({ content: { body: 'short' } }), signal)
  assert.deepEqual(got, ['a su…|a long bo…', 'undefined|short'])
})

test('many messages always get one result each', async () => {
  const messages = [1, 2, 3].map(n => exampleMessage({ idempotencyKey: `k${n}` }))
  const oneByOne = await open({
    async send(message) {
      if (message.idempotencyKey === 'k2') throw permanent('gone')
      return { outcome: 'sent' }
    },
  })
  const kinds = (results: unknown[]) =>
    results.map(each => (each instanceof DeliveryError ? `${each.kind} ${each.code}` : 'sent'))
  assert.deepEqual(kinds(await oneByOne.sendMany(messages, signal)), ['sent', 'permanent gone', 'sent'])

  const short = await open({ sendMany: async () => [{ outcome: 'sent' }, permanent('gone')] })
  assert.deepEqual(kinds(await short.sendMany(messages, signal)), [
    'sent',
    'permanent gone',
    'temporary unexpected',
  ])

  const failing = await open({
    sendMany: async () => {
      throw temporary('server_error')
    },
  })
  assert.deepEqual(kinds(await failing.sendMany(messages, signal)), Array(3).fill('temporary server_error'))
})

test('a connection is opened once and closed once', async () => {
  const calls: string[] = []
  const provider: Provider<Settings, { close(): void; n: number }> = {
    id: 'pooled',
    channel: 'sms',
    title: 'Pooled',
    settings,
    open: () => {
      calls.push('open')
      return { n: 1, close: () => calls.push('close') }
    },
    async send(_message, ctx) {
      calls.push(`send ${ctx.connection.n}`)
      return { outcome: 'sent' }
    },
  }
  const opened = await openProvider(provider, { key: 'k' }, world)
  await opened.send(exampleMessage(), signal)
  await opened.send(exampleMessage(), signal)
  await opened.close()
  assert.deepEqual(calls, ['open', 'send 1', 'send 1', 'close'])
})

test('every provider is a folder with its code, its test and its logo, and a line in the list', () => {
  const root = new URL('./providers/', import.meta.url)
  const folders = readdirSync(root, { withFileTypes: true }).filter(each => each.isDirectory())
  assert.deepEqual(folders.map(each => each.name).toSorted(), [...catalog.keys()].toSorted())
  for (const { name } of folders) {
    const files = readdirSync(new URL(`${name}/`, root))
    for (const file of [`${name}.ts`, `${name}.test.ts`, 'logo.svg'])
      assert.ok(files.includes(file), `${name}/${file}`)
    const source = readFileSync(new URL(`${name}/${name}.ts`, root), 'utf8')
    const inside = [...source.matchAll(/from '(\.[^']+)'/g)].map(match => match[1])
    for (const path of inside) {
      // `../phone.ts` and the like lie beside the folders for several of them; another provider's folder is closed.
      const shared = path?.startsWith('./') || /^\.\.\/[a-z0-9-]+\.ts$/.test(path ?? '')
      assert.ok(
        shared || ['../../provider.ts', '../../../types.ts', '../../../aws.ts'].includes(path!),
        `${name} imports ${path}`,
      )
    }
  }
})

test('settings of every provider say what they are', () => {
  for (const provider of catalog.values()) {
    assert.throws(() => readSettings(provider.settings, { surprise: 1 }), AppError, provider.id)
  }
})

test("a pace that is asked for without a time is a pause that grows, where pauses are the lane's", async () => {
  const slower = {
    send: () => Promise.reject(temporary('rate_limited', 'slower', { vendorCode: '20429' })),
  }
  const waits = async (more: Partial<Provider<Settings>>) => {
    const opened = await open({ ...slower, ...more })
    return Promise.all(
      [1, 2, 3, 10, 20].map(async attempt => {
        const error = (await opened
          .send(exampleMessage({ attempt }), signal)
          .catch((thrown: unknown) => thrown)) as DeliveryError
        assert.deepEqual([error.code, error.vendorCode, error.message], ['rate_limited', '20429', 'slower'])
        return [error.kind, error.until?.getTime()]
      }),
    )
  }
  assert.deepEqual(
    await waits({ limits: { slowsLane: true } }),
    [5_000, 10_000, 20_000, 600_000, 600_000].map(ms => ['rate_limited', ms]),
  )
  assert.deepEqual(await waits({}), Array(5).fill(['temporary', undefined]))
})
