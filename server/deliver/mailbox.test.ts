import assert from 'node:assert/strict'
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import type { InjectOptions } from 'fastify'
import { createTransport } from 'nodemailer'
import type { Auth } from '../http/auth.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { buildServer } from '../http/server.ts'
import type { JsonObject, Message } from '../types.ts'
import { openHttp } from './http.ts'
import { type Mailbox, type MailboxOptions, openMailbox } from './mailbox.ts'
import { mailboxRoutes } from './mailbox-routes.ts'
import { openProvider } from './open-provider.ts'
import { DeliveryError } from './provider.ts'
import { exampleMessage } from './providers/conformance.ts'
import { smtp } from './providers/smtp/smtp.ts'

async function folder(t: TestContext): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'carillon-mailbox-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  return dir
}

/** A mailbox, and a way to mail to it through the real provider. */
async function setUp(t: TestContext, options: Partial<MailboxOptions> = {}) {
  const dir = options.dir ?? (await folder(t))
  const mailbox = await openMailbox({ dir, port: 0, ...options })
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings: JsonObject = {
    host: '127.0.0.1',
    port: mailbox.port,
    from: 'Carillon <noreply@carillon.example>',
  }
  const opened = await openProvider(smtp, settings, { http, now: () => new Date() })
  let closed = false
  const close = async () => {
    if (closed) return
    closed = true
    await opened.close()
    await mailbox.close()
    await http.close()
  }
  t.after(close)
  const send = (more: Partial<Message> = {}) =>
    opened.send(exampleMessage({ to: 'alice@example.com', ...more }), new AbortController().signal)
  return { mailbox, send, dir, close }
}

const subjectsOf = async (mailbox: Mailbox) => (await mailbox.list()).items.map(each => each.subject)
const about = (subject: string): Partial<Message> => ({ content: { subject, body: `About ${subject}` } })

test('what is mailed can be read, newest first', async t => {
  const { mailbox, send } = await setUp(t)
  await send(about('one'))
  await send({
    content: {
      subject: 'Zwei ✓',
      body: 'Grüße',
      html: '<p>Grüße</p>',
      data: {
        email: {
          bcc: 'bob@example.com',
          attachments: [{ filename: 'a.txt', contentType: 'text/plain', content: 'aGVsbG8=' }],
        },
      },
    },
  })
  assert.deepEqual(await subjectsOf(mailbox), ['Zwei ✓', 'one'])
  const [newest] = (await mailbox.list()).items
  assert.ok(newest)
  const message = await mailbox.get(newest.id)
  assert.deepEqual(
    [message?.from, message?.to, message?.recipients, message?.text?.trim(), message?.html?.trim()],
    [
      'Carillon <noreply@carillon.example>',
      'alice@example.com',
      ['alice@example.com', 'bob@example.com'],
      'Grüße',
      '<p>Grüße</p>',
    ],
  )
  assert.deepEqual(message?.attachments, [{ filename: 'a.txt', contentType: 'text/plain', size: 5 }])
  assert.ok(
    message?.headers.some(({ name, value }) => name === 'Auto-Submitted' && value === 'auto-generated'),
  )
  assert.match((await mailbox.raw(newest.id))?.toString() ?? '', /^Delivered-To: alice@example\.com\r\n/)
  assert.equal(await mailbox.get('019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'), undefined)
  assert.equal(await mailbox.raw('../../etc/passwd'), undefined)
})

test('a message cannot pretend to have gone to others', async t => {
  const { mailbox } = await setUp(t)
  const transport = createTransport({ host: '127.0.0.1', port: mailbox.port, secure: false })
  const raw = 'Delivered-To: eve@example.com\r\nReturn-Path: <eve@example.com>\r\nSubject: x\r\n\r\nx\r\n'
  await transport.sendMail({ envelope: { from: 'a@example.com', to: 'alice@example.com' }, raw })
  assert.deepEqual((await mailbox.list()).items[0]?.recipients, ['alice@example.com'])
})

test('messages survive a restart, half-written ones do not', async t => {
  const first = await setUp(t)
  await first.send(about('kept'))
  await first.close()
  await writeFile(join(first.dir, '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d.part'), 'half')
  await writeFile(join(first.dir, 'notes.txt'), 'not ours')
  const second = await setUp(t, { dir: first.dir })
  await second.send(about('later'))
  assert.deepEqual(await subjectsOf(second.mailbox), ['later', 'kept'])
  const names = await readdir(first.dir)
  assert.equal(names.filter(name => name.endsWith('.part')).length, 0)
  assert.ok(names.includes('notes.txt'))
})

test('the oldest go first, by number and by size', async t => {
  const byNumber = await setUp(t, { keep: 3 })
  for (const subject of ['1', '2', '3', '4', '5']) await byNumber.send(about(subject))
  assert.deepEqual(await subjectsOf(byNumber.mailbox), ['5', '4', '3'])
  assert.equal((await readdir(byNumber.dir)).length, 3)
  await byNumber.close()
  const fewer = await setUp(t, { dir: byNumber.dir, keep: 1 })
  assert.deepEqual(await subjectsOf(fewer.mailbox), ['5'])

  const bySize = await setUp(t, { keepBytes: 25_000 })
  for (const subject of ['1', '2', '3']) await bySize.send({ content: { subject, body: 'x'.repeat(9_000) } })
  assert.deepEqual(await subjectsOf(bySize.mailbox), ['3', '2'])
})

test('what is too large is refused for good', async t => {
  const { mailbox, send, dir } = await setUp(t, { maxMessageBytes: 20_000 })
  await assert.rejects(
    send({ content: { body: 'x'.repeat(40_000) } }),
    (error: unknown) =>
      error instanceof DeliveryError && error.kind === 'permanent' && error.code === 'too_large',
  )
  await send(about('small'))
  assert.deepEqual(await subjectsOf(mailbox), ['small'])
  assert.equal((await readdir(dir)).length, 1)
})

test('pages join without gap or repetition while mail comes in', async t => {
  const { mailbox, send } = await setUp(t)
  for (let n = 1; n <= 7; n++) await send(about(String(n)))
  const seen: string[] = []
  let cursor: string | null = null
  do {
    const page: Awaited<ReturnType<Mailbox['list']>> = await mailbox.list({
      cursor: cursor ?? undefined,
      limit: 3,
    })
    seen.push(...page.items.map(each => each.subject))
    cursor = page.nextCursor
    await send(about('new'))
  } while (cursor !== null)
  assert.deepEqual(seen, ['7', '6', '5', '4', '3', '2', '1'])
})

test('messages sent at once are all kept', async t => {
  const { mailbox, send } = await setUp(t)
  await Promise.all(Array.from({ length: 25 }, (_, n) => send(about(String(n)))))
  assert.equal(new Set(await subjectsOf(mailbox)).size, 25)
})

test('a taken port is told at once', async t => {
  const { mailbox } = await setUp(t)
  await assert.rejects(openMailbox({ dir: await folder(t), port: mailbox.port }), { code: 'EADDRINUSE' })
})

/* ---------------------------------------------------------------- pages */

async function setUpPages(t: TestContext) {
  const parts = await setUp(t)
  // The mailbox asks for no credentials; a server that asked for some would fail here.
  const auth = { authenticate: () => Promise.reject(new Error('no credentials are read')) } as unknown as Auth
  const api = await buildServer({ auth, version: 'test', limits: false })
  mailboxRoutes(api, { mailbox: parts.mailbox })
  await api.ready()
  t.after(() => api.close())
  const get = (url: string, more: InjectOptions = {}) => api.inject({ method: 'GET', url, ...more })
  return { ...parts, api, get }
}

test('the mailbox can be read in a browser', async t => {
  const { api, get, send } = await setUpPages(t)
  assert.match((await get('/dev/mailbox')).body, /No message yet/)
  const attack = '<script>alert(1)</script>"\'&'
  await send({
    content: { subject: attack, body: attack, html: `<html><head></head><p>${attack}</p></html>` },
  })

  const list = await get('/dev/mailbox')
  assert.equal(list.statusCode, 200)
  assert.match(list.headers['content-type'] ?? '', /^text\/html/)
  const link = /href="(\/dev\/mailbox\/[0-9a-f-]{36})"/.exec(list.body)?.[1]
  assert.ok(link)
  const page = await get(link)
  for (const { body, headers } of [list, page]) {
    assert.ok(!body.includes('<script'), 'a subject became markup')
    assert.ok(body.includes('&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;'))
    assert.match(String(headers['content-security-policy']), /^default-src 'none'; style-src 'sha256-/)
    assert.match(body, /<html lang="en">/)
    assert.match(body, /<h1>/)
  }
  const frame = /<iframe title="[^"]+" sandbox="([^"]*)"[^>]* src="([^"]+)"/.exec(page.body)
  assert.ok(frame?.[2])
  assert.ok(!frame[1]?.includes('allow-scripts') && !frame[1]?.includes('allow-same-origin'))
  const html = await get(frame[2])
  const policy = String(html.headers['content-security-policy'])
  assert.match(policy, /^sandbox /)
  assert.ok(
    !policy.includes('allow-scripts') &&
      !policy.includes('script-src') &&
      policy.includes("default-src 'none'"),
  )
  assert.match(html.body, /<head><base target="_blank">/)

  const raw = await get(`${link}/raw`)
  assert.match(raw.body, /^Delivered-To: /)
  assert.equal(raw.headers['content-type'], 'message/rfc822')
  assert.deepEqual(brokenRouteRules(api), [])
})

test('the same as JSON, in pages', async t => {
  const { get, send } = await setUpPages(t)
  for (const subject of ['1', '2', '3']) await send(about(subject))
  const first = (await get('/dev/mailbox.json?limit=2')).json()
  assert.deepEqual(
    first.items.map((each: { subject: string }) => each.subject),
    ['3', '2'],
  )
  const second = (await get(`/dev/mailbox.json?limit=2&cursor=${first.nextCursor}`)).json()
  assert.deepEqual(
    second.items.map((each: { subject: string }) => each.subject),
    ['1'],
  )
  assert.equal(second.nextCursor, null)
  const one = (await get(`/dev/mailbox.json/${first.items[0].id}`)).json()
  assert.equal(one.text.trim(), 'About 3')
  assert.deepEqual(one.recipients, ['alice@example.com'])
  assert.match((await get(`/dev/mailbox?cursor=${first.nextCursor}`)).body, />1<\/a>/)

  assert.equal((await get('/dev/mailbox.json?cursor=nonsense')).statusCode, 400)
  assert.equal((await get('/dev/mailbox.json?surprise=1')).statusCode, 400)
  assert.equal((await get('/dev/mailbox.json/not-an-id')).statusCode, 400)
  const absent = '019a9f3e-7a44-7bb1-8c1d-5a3e2f1b0c9d'
  for (const path of [
    `/dev/mailbox.json/${absent}`,
    ...['', '/html', '/raw'].map(end => `/dev/mailbox/${absent}${end}`),
  ]) {
    assert.equal((await get(path)).statusCode, 404, path)
  }
})

test('only this machine reads it, and only by its own name', async t => {
  const { get } = await setUpPages(t)
  for (const allowed of ['localhost:4400', '127.0.0.1:4400', '[::1]:4400', 'localhost']) {
    assert.equal((await get('/dev/mailbox', { headers: { host: allowed } })).statusCode, 200, allowed)
  }
  const refused: InjectOptions[] = [
    { remoteAddress: '192.0.2.7' },
    { headers: { host: 'rebound.example:4400' } },
    { headers: { host: '127.0.0.1.rebound.example' } },
    { headers: { 'x-forwarded-for': '127.0.0.1' } },
  ]
  for (const each of refused) {
    for (const path of ['/dev/mailbox', '/dev/mailbox.json']) {
      const answer = await get(path, each)
      assert.deepEqual([answer.statusCode, answer.json().code], [403, 'forbidden'], JSON.stringify(each))
    }
  }
})
