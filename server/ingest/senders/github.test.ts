import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { AppError } from '../../errors.ts'
import { type Answered, type Loose, type TestApp, testApp } from '../../test/app.ts'
import { githubEvent, githubSecrets, isSignature } from './github.ts'

const PAYLOADS = new URL('../../../../shared/contracts/github-webhooks/', import.meta.url)
const skip = !existsSync(PAYLOADS) && `needs ${PAYLOADS.pathname}`
const payloads = skip ? [] : readdirSync(PAYLOADS).filter(name => !name.startsWith('_'))
const read = (name: string) => readFileSync(new URL(name, PAYLOADS), 'utf8')
const eventOf = (name: string) => name.split('.')[0]!

const origin = { tenantId: 1, now: new Date('2026-01-02T03:04:05Z'), traceId: undefined }
const headersOf = (event: string, delivery = '72d3162e-cc78-11e3-81ab-4c9367dc0958') => ({
  'x-github-event': event,
  'x-github-delivery': delivery,
})

// ------------------------------------------------------------------ signatures

test('the published signature of the published body holds, and no other', { skip }, () => {
  const { secret, body, headers } = JSON.parse(read('_signature-vector.json'))
  const signature = headers['X-Hub-Signature-256'] as string
  const bytes = Buffer.from(body)
  assert.equal(isSignature(signature, bytes, secret), true)
  assert.equal(isSignature(signature, Buffer.from(`${body} `), secret), false)
  assert.equal(isSignature(signature, bytes, `${secret}.`), false)
  const bad = [
    undefined,
    '',
    'sha256=',
    signature.slice(0, -1),
    signature.replace('sha256', 'sha1'),
    [signature],
  ]
  for (const header of bad) assert.equal(isSignature(header, bytes, secret), false, String(header))
})

test('each key has a secret of its own, which outlives a change of the master key', () => {
  const [old, next, stranger] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2), Buffer.alloc(32, 3)]
  const [one, other] = ['01a1fca9-dac7-7001-8961-e4e33925320f', '01a1fca9-dac7-7001-8961-e4e339253210']
  const before = githubSecrets([old])
  const after = githubSecrets([old, next])
  const body = Buffer.from('{}')
  const sign = (secret: string) => `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`
  const signature = sign(before.secretOf(one))
  assert.match(before.secretOf(one), /^[0-9a-f]{64}$/)
  assert.notEqual(after.secretOf(one), before.secretOf(one))
  assert.equal(after.signed(one, body, signature), true)
  assert.equal(after.signed(one.toUpperCase(), body, signature), true)
  assert.equal(after.signed(one, body, sign(after.secretOf(one))), true)
  assert.equal(after.signed(other, body, signature), false)
  assert.equal(githubSecrets([next, stranger]).signed(one, body, signature), false)
})

// ------------------------------------------------------------------ what becomes of a payload

test("GitHub's own examples become events that say what happened", { skip }, () => {
  const said = payloads.map(name => {
    const body = read(name)
    const { type, source, subject, data } = githubEvent(
      headersOf(eventOf(name)),
      JSON.parse(body),
      true,
      origin,
    )
    assert.match(data.url as string, /^(https:\/\/|$)/, name)
    assert.deepEqual([data.payload, data.truncated], [JSON.parse(body), false])
    return [type, source, subject, data.title]
  })
  const hello = 'github:Codertocat/Hello-World'
  for (const expected of [
    [
      'github.issues.opened',
      hello,
      '#1',
      '[Codertocat/Hello-World] issues opened: Spelling error in the README file',
    ],
    [
      'github.pull_request.opened',
      hello,
      '#2',
      '[Codertocat/Hello-World] pull request opened: Update the README with new information.',
    ],
    ['github.release.published', hello, '0.0.1', '[Codertocat/Hello-World] release published: 0.0.1'],
    ['github.membership.removed', 'github:Octocoders', undefined, '[Octocoders] membership removed'],
    ['github.ping', 'github:Octocoders', undefined, '[Octocoders] ping'],
    ['github.delete', hello, 'simple-tag', '[Codertocat/Hello-World] delete: simple-tag'],
  ])
    assert.ok(
      said.some(one => JSON.stringify(one) === JSON.stringify(expected)),
      `${JSON.stringify(expected)} in\n${said.map(one => JSON.stringify(one)).join('\n')}`,
    )
  assert.equal(said.length, payloads.length)
})

test('whatever a payload holds, it becomes an event that can be stored, or a refusal', () => {
  const thing = fc.oneof(
    fc.jsonValue(),
    fc.dictionary(
      fc.constantFrom('title', 'body', 'number', 'html_url'),
      fc.string({ unit: 'binary', maxLength: 700 }),
    ),
  )
  const payload = fc.dictionary(
    fc.constantFrom(
      'action',
      'issue',
      'pull_request',
      'comment',
      'commits',
      'ref',
      'repository',
      'sender',
      'toString',
    ),
    thing,
  )
  fc.assert(
    fc.property(payload, fc.constantFrom('push', 'issues', 'x'), (given, event) => {
      try {
        const { type, source, subject, data } = githubEvent(headersOf(event), given, true, origin)
        assert.match(type, /^github\.[a-z][a-z0-9_-]*(\.[a-z][a-z0-9_-]*)?$/)
        assert.ok(type.length <= 255 && source.length <= 500 && (subject ?? '').length <= 500)
        for (const text of [data.title, data.message, data.url]) assert.equal(typeof text, 'string')
      } catch (error) {
        assert.ok(error instanceof AppError && error.code === 'invalid_request', String(error))
        assert.ok('action' in given)
      }
    }),
  )
})

test('a cut never leaves half a character', () => {
  for (const pad of ['', 'x']) {
    const body = `${pad}${'😀'.repeat(6000)}`
    const { data } = githubEvent(headersOf('issues'), { issue: { body, title: body } }, true, origin)
    for (const text of [data.message as string, data.title as string]) {
      assert.ok(text.isWellFormed() && text.endsWith('…') && text.length <= 5000)
    }
  }
})

test('a payload too large for an event is left out, and the event still says what happened', () => {
  const payload = {
    ref: 'refs/heads/main',
    commits: Array.from({ length: 2048 }, (_, n) => ({ id: `${n}`, message: `Change ${n}\n\nWhy` })),
  }
  const { data } = githubEvent(headersOf('push'), payload, false, origin)
  assert.deepEqual([data.payload, data.truncated, data.title], [null, true, 'push to main: 2048 commits'])
  assert.equal((data.message as string).split('\n').length, 20)
})

// ------------------------------------------------------------------ over HTTP

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t?.stop())

async function webhookOf(keyId: string): Promise<{ path: string; secret: string }> {
  const { status, body, text } = await t.call('POST', `/api/keys/${keyId}/github`, { as: t.tenant.adminKey })
  assert.equal(status, 200, text)
  return { path: new URL(body.url).pathname, secret: body.secret }
}

const makeKey = async (more: object = {}) => {
  const made = await t.call('POST', '/api/keys', {
    as: t.tenant.adminKey,
    body: { name: 'GitHub', role: 'service', scopes: ['events:write'], ...more },
  })
  assert.equal(made.status, 201, made.text)
  return made.body as { id: string; key: string }
}

function deliver(
  { path, secret }: { path: string; secret: string },
  raw: string,
  headers: Record<string, string>,
): Promise<Answered> {
  const signature = `sha256=${createHmac('sha256', secret).update(raw).digest('hex')}`
  return t.call('POST', path, {
    raw,
    headers: { 'content-type': 'application/json', 'x-hub-signature-256': signature, ...headers },
  })
}

test('every example, signed, is accepted once; a repeated delivery is known', { skip }, async () => {
  const { id } = await makeKey()
  const hook = await webhookOf(id)
  const rule = await t.call('POST', '/api/rules', {
    as: t.tenant.adminKey,
    body: {
      name: 'issues',
      eventTypes: ['github.issues.opened'],
      eventPattern:
        'event.data.payload.issue.number == 1 && event.data.repository == "Codertocat/Hello-World"',
      channels: ['in_app'],
      recipientSelector: { users: ['maintainer'] },
    },
  })
  assert.equal(rule.status, 201, rule.text)
  const user = await t.call('PUT', '/api/users/maintainer', { as: t.tenant.adminKey, body: {} })
  assert.ok(user.status < 300, user.text)
  for (const [at, name] of payloads.entries()) {
    const send = () => deliver(hook, read(name), headersOf(eventOf(name), `delivery-${at}`))
    const first = await send()
    assert.deepEqual([first.status, first.body], [202, { accepted: 1, duplicates: 0, refused: 0 }], name)
    assert.deepEqual((await send()).body, { accepted: 0, duplicates: 1, refused: 0 }, name)
  }
  const feed = await t.call('GET', '/api/notifications/feed', { as: await t.tenant.token('maintainer') })
  assert.deepEqual(
    feed.body.items.map((item: Loose) => item.subject ?? item.title),
    ['[Codertocat/Hello-World] issues opened: Spelling error in the README file'],
    feed.text,
  )
  const { items } = (await t.call('GET', '/api/keys', { as: t.tenant.adminKey })).body
  assert.ok(items.find((key: Loose) => key.id === id).lastUsedAt)
})

test('what is not signed for that very key is refused', async () => {
  const [{ id }, { id: otherId }] = [await makeKey(), await makeKey()]
  const hook = await webhookOf(id)
  const other = await webhookOf(otherId)
  const headers = headersOf('ping', 'p-1')
  const forged = [
    await deliver({ ...hook, secret: other.secret }, '{}', headers),
    await deliver({ path: other.path, secret: hook.secret }, '{}', headers),
    await deliver({ ...hook, path: '/webhooks/github/01a1fca9-dac7-7001-8961-e4e33925320f' }, '{}', headers),
    await deliver(hook, '{}', { ...headers, 'x-hub-signature-256': 'sha256=0' }),
    await t.call('POST', hook.path, { body: {}, headers }),
    await t.call('POST', hook.path, { as: t.tenant.adminKey, body: {}, headers }),
  ]
  for (const { status, body } of forged) assert.deepEqual([status, body.code], [401, 'unauthenticated'])
  assert.equal((await deliver(hook, '{}', headers)).status, 202)

  const gone = await t.call('DELETE', `/api/keys/${id}`, { as: t.tenant.adminKey })
  assert.equal(gone.status, 204)
  assert.equal((await deliver(hook, '{}', headersOf('ping', 'p-2'))).status, 401)
  const shown = await t.call('POST', `/api/keys/${id}/github`, { as: t.tenant.adminKey })
  assert.deepEqual([shown.status, shown.body.code], [404, 'not_found'])
})

test('a push larger than an event may be arrives without its payload', async () => {
  const hook = await webhookOf((await makeKey()).id)
  const commits = Array.from({ length: 2048 }, (_, n) => ({
    id: `${n}`.padStart(40, '0'),
    message: 'x'.repeat(200),
  }))
  const raw = JSON.stringify({ ref: 'refs/heads/main', commits })
  assert.ok(raw.length > 256 * 1024)
  const answer = await deliver(hook, raw, headersOf('push', 'large'))
  assert.deepEqual([answer.status, answer.body.accepted], [202, 1], answer.text)
})

test('a key that may not publish opens no door for GitHub', async () => {
  const { id } = await makeKey({ scopes: ['rules:read'] })
  const answer = await deliver(await webhookOf(id), '{}', headersOf('ping'))
  assert.deepEqual([answer.status, answer.body.code], [403, 'forbidden'])
})

test('the secret is shown to admins of the tenant who may publish themselves, and that is written down', async () => {
  const { id, key } = await makeKey()
  const path = `/api/keys/${id}/github`
  assert.equal((await t.call('POST', path)).status, 401)
  assert.equal((await t.call('POST', path, { as: key })).status, 403)
  assert.equal((await t.call('POST', path, { as: t.other.adminKey })).status, 404)
  const limited = await makeKey({ role: 'admin', scopes: ['admin:write'] })
  assert.equal((await t.call('POST', path, { as: limited.key })).status, 403)
  const shown = await t.call('POST', path, { as: t.tenant.adminKey })
  assert.equal(shown.headers.get('cache-control'), 'no-store')
  const { items } = (await t.call('GET', `/api/audit?objectId=${id}`, { as: t.tenant.adminKey })).body
  assert.equal(items.filter((row: Loose) => row.action === 'key.github_shown').length, 1)
  assert.ok(!JSON.stringify(items).includes(shown.body.secret))
})

test('what GitHub would never send is refused by field', async () => {
  const hook = await webhookOf((await makeKey()).id)
  const table: [string, Record<string, string>, number, string | undefined][] = [
    ['{}', { 'x-github-delivery': 'd' }, 400, 'x-github-event'],
    ['{}', { 'x-github-event': 'ping' }, 400, 'x-github-delivery'],
    ['{}', headersOf('A B'), 400, 'x-github-event'],
    ['{}', headersOf('ping', 'x'.repeat(101)), 400, 'x-github-delivery'],
    ['[]', headersOf('ping'), 400, '/'],
    ['{"action":7}', headersOf('ping'), 400, '/action'],
    ['{"action":"a b"}', headersOf('ping'), 400, '/action'],
    ['{', headersOf('ping'), 400, undefined],
    [
      'payload=%7B%7D',
      { ...headersOf('ping'), 'content-type': 'application/x-www-form-urlencoded' },
      415,
      'content-type',
    ],
  ]
  for (const [raw, headers, status, field] of table) {
    const answer = await deliver(hook, raw, headers)
    assert.deepEqual(
      [answer.status, answer.body.errors?.[0]?.field],
      [status, field],
      `${raw} ${answer.text}`,
    )
  }
  const large = await deliver(hook, JSON.stringify({ x: 'y'.repeat(5 * 1024 * 1024) }), headersOf('ping'))
  assert.deepEqual([large.status, large.body.code], [413, 'body_too_large'])
})
