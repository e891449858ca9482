import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { after, before, test } from 'node:test'
import { newId } from '../db/ids.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, testApi } from '../test/api.ts'
import type { Channel } from '../types.ts'
import { peopleFacts } from './facts.ts'
import { effectivePreference } from './effective-preference.ts'
import { unsubscribeLinks } from './unsubscribe.ts'
import { unsubscribeRoutes } from './unsubscribe-routes.ts'
import { upsertUsers } from './users.ts'

const NOW = new Date('2026-11-21T10:00:00Z')
const signing = { publicUrl: '', key: randomBytes(32) }
const links = unsubscribeLinks(signing)
const routes = [
  (api: TestApi['api'], { db }: { db: TestApi['db'] }) =>
    unsubscribeRoutes(api, { db, links, now: () => NOW }),
]

let server: TestApi
let base: string
before(async () => {
  server = await testApi({ routes })
  base = await server.api.listen({ port: 0, host: '127.0.0.1' })
})
after(() => server.close())

const ONE_CLICK = 'List-Unsubscribe=One-Click'
const FORM = 'application/x-www-form-urlencoded'

const post = (path: string, body: string | FormData = ONE_CLICK, type = FORM) =>
  fetch(base + path, {
    method: 'POST',
    body,
    headers: typeof body === 'string' ? { 'content-type': type } : {},
    redirect: 'manual',
  })

/** A new person, and the path of their link. */
async function somebody(
  userId: string,
  channel: Channel = 'email',
  notificationId?: string,
): Promise<string> {
  const { db, sealer, tenant } = server
  await db.tx(tx => upsertUsers(tx, sealer, tenant.id, [{ userId }]))
  return links.urlFor(tenant.id, userId, channel, notificationId)
}

/** As deciding sees it. */
async function told(userId: string, channel: Channel = 'email', tenantId = server.tenant.id) {
  const facts = await peopleFacts({ sealer: server.sealer }).load(server.db, [
    { tenantId, userIds: [userId] },
  ])
  const { preferences } = facts.get(tenantId, userId)!
  const { enabled, layer } = effectivePreference(preferences, facts.tenantDefaults(tenantId), {
    channel,
    scopes: [],
    eventType: 'news.published',
    priority: 'NORMAL',
  })
  return { enabled, layer }
}

const receipts = async (userId: string) =>
  (
    await server.db.pool.query(
      `select subject, old_value as old, new_value as new, actor, origin, at from consents
       where tenant_id = $1 and user_id = $2 order by id`,
      [server.tenant.id, userId],
    )
  ).rows

const OFF = { enabled: false, layer: 'user:email' }
const ON = { enabled: true, layer: 'user:email' }
const BUILT_IN = { enabled: true, layer: 'built_in' }

test('one click of a mail program switches e-mail off, leaves a receipt, and changes nothing else', async () => {
  const notificationId = newId()
  const path = await somebody('alice', 'email', notificationId)
  const answer = await post(path)
  assert.equal(answer.status, 200)
  assert.deepEqual(await told('alice'), OFF)
  assert.deepEqual(await told('alice', 'sms'), BUILT_IN)
  assert.deepEqual(await told('alice', 'email', server.other.id), BUILT_IN)
  assert.deepEqual(await receipts('alice'), [
    {
      subject: 'channel:email',
      old: { enabled: null },
      new: { enabled: false, notificationId },
      actor: 'user',
      origin: 'unsubscribe link',
      at: NOW,
    },
  ])

  // Again, and all at once: the same answer and no second receipt.
  const again = await Promise.all([post(path), post(path), post(path)])
  assert.deepEqual(
    again.map(one => one.status),
    [200, 200, 200],
  )
  assert.equal((await receipts('alice')).length, 1)
})

test('clicks at the same moment leave one receipt', async () => {
  const path = await somebody('twice')
  await Promise.all([1, 2, 3, 4].map(() => post(path)))
  assert.equal((await receipts('twice')).length, 1)
})

test('RFC 8058: the form may also come as multipart/form-data', async () => {
  const path = await somebody('bob')
  const form = new FormData()
  form.set('List-Unsubscribe', 'One-Click')
  assert.equal((await post(path, form)).status, 200)
  assert.deepEqual(await told('bob'), OFF)
})

test('a body that does not say so changes nothing', async () => {
  const path = await somebody('carol')
  const wrong = new FormData()
  wrong.set('List-Unsubscribe', 'Two-Clicks')
  wrong.set('other', 'One-Click')
  for (const answer of [
    await post(path, ''),
    await post(path, 'Undo=Yes'),
    await post(path, 'List-Unsubscribe=Later'),
    await post(path, ONE_CLICK, 'text/plain'),
    await post(path, `{"List-Unsubscribe":"One-Click"}`, 'application/json'),
    await post(path, wrong),
    await post(`${path}?undo`, ONE_CLICK),
  ]) {
    assert.equal(answer.status, 400)
    assert.match(await answer.text(), /Nothing was changed/)
  }
  assert.equal((await post(path, `${ONE_CLICK}&x=${'x'.repeat(5000)}`)).status, 413)
  assert.deepEqual(await told('carol'), BUILT_IN)
  assert.deepEqual(await receipts('carol'), [])
})

/** Presses the only button of a page, as a browser without JavaScript does. */
async function press(path: string, html: string): Promise<Response> {
  const [, action] = /<form method="post" action="([^"]*)">/.exec(html)!
  const fields = [...html.matchAll(/<input type="hidden" name="([^"]+)" value="([^"]+)">/g)]
  const body = new URLSearchParams(fields.map(([, name, value]) => [name!, value!] as [string, string]))
  const url = new URL(action!, base + path)
  return post(url.pathname + url.search, body.toString())
}

test('on the page: looking changes nothing, a button switches off, another on again', async () => {
  const path = await somebody('dave', 'sms')
  for (const method of ['GET', 'HEAD']) {
    assert.equal((await fetch(base + path, { method })).status, 200)
    assert.equal((await fetch(`${base + path}?undo`, { method })).status, 200)
    assert.equal((await fetch(`${base + path}?utm_source=mail`, { method })).status, 200)
  }
  assert.deepEqual(await told('dave', 'sms'), BUILT_IN)
  assert.deepEqual(await receipts('dave'), [])

  const first = await (await fetch(base + path)).text()
  assert.match(first, /<h1>Stop notifications by SMS\?<\/h1>/)
  const off = await (await press(path, first)).text()
  assert.match(off, /<h1>Notifications by SMS are off<\/h1>/)
  assert.deepEqual(await told('dave', 'sms'), { ...OFF, layer: 'user:sms' })
  assert.equal(await (await fetch(base + path)).text(), off)

  const on = await (await press(path, off)).text()
  assert.match(on, /<h1>Notifications by SMS are on<\/h1>/)
  assert.deepEqual(await told('dave', 'sms'), { ...ON, layer: 'user:sms' })
  assert.equal(await (await fetch(`${base + path}?undo`)).text(), on)
  await press(`${path}?undo`, on)
  assert.deepEqual(await told('dave', 'sms'), { ...OFF, layer: 'user:sms' })
  assert.deepEqual(
    (await receipts('dave')).map(one => [one.old.enabled, one.new.enabled]),
    [
      [null, false],
      [false, true],
      [true, false],
    ],
  )
})

test('the page runs nothing, is not kept, indexed or framed, and shows nothing of the person', async () => {
  const path = await somebody('private-person-1')
  const answer = await fetch(base + path)
  const html = await answer.text()
  assert.equal(answer.headers.get('content-type'), 'text/html; charset=utf-8')
  assert.equal(answer.headers.get('cache-control'), 'no-store')
  assert.equal(answer.headers.get('x-robots-tag'), 'noindex, nofollow')
  assert.equal(answer.headers.get('referrer-policy'), 'no-referrer')
  const policy = answer.headers.get('content-security-policy')!
  assert.match(
    policy,
    /^default-src 'none'; style-src 'sha256-[A-Za-z0-9+/]{43}='; form-action 'self'; frame-anc/,
  )
  const style = Buffer.from(/<style>(.*)<\/style>/s.exec(html)![1]!)
  const digest = Buffer.from(await crypto.subtle.digest('SHA-256', style)).toString('base64')
  assert.ok(policy.includes(`'sha256-${digest}'`))
  assert.doesNotMatch(html, /<script|private-person-1|\son\w+=| style=/)
  assert.match(html, /<html lang="en">.*<title>.+<\/title>.*<main><h1>/s)
})

test('a link of somebody else, or a changed one, is a plain 404 page', async () => {
  const path = await somebody('erin')
  const foreign = unsubscribeLinks({ ...signing, key: randomBytes(32) })
  const changed = path.slice(0, -1) + (path.endsWith('A') ? 'B' : 'A')
  for (const bad of [foreign.urlFor(server.tenant.id, 'erin', 'email'), changed, '/u/x']) {
    for (const answer of [await fetch(base + bad), await post(bad), await post(`${bad}?undo`, 'Undo=Yes')]) {
      assert.equal(answer.status, 404)
      assert.equal(answer.headers.get('content-type'), 'text/html; charset=utf-8')
      assert.match(await answer.text(), /This link is not valid/)
    }
  }
  assert.deepEqual(await told('erin'), BUILT_IN)
})

test('somebody nobody created may refuse as well; the erased come not back', async () => {
  const { db, tenant } = server
  assert.equal((await post(links.urlFor(tenant.id, 'stranger', 'email'))).status, 200)
  assert.deepEqual(await told('stranger'), OFF)

  const path = await somebody('gone')
  await db.pool.query(
    `update users set erased_at = now(), data_key = null where tenant_id = $1 and user_id = 'gone'`,
    [tenant.id],
  )
  assert.equal((await post(path)).status, 200)
  assert.deepEqual(await receipts('gone'), [])
  const { rows } = await db.pool.query(`select from preferences where user_id = 'gone'`)
  assert.equal(rows.length, 0)
})

test('one address may not ask without end', async () => {
  const limited = await testApi({ routes, limits: { perIp: 2 }, limitsNow: () => NOW.getTime() })
  try {
    const ask = async () => (await limited.request('POST', '/u/x')).statusCode
    assert.deepEqual([await ask(), await ask(), await ask()], [404, 404, 429])
  } finally {
    await limited.close()
  }
})

test('the routes keep the rules of all routes', () => {
  assert.deepEqual(brokenRouteRules(server.api), [])
})
