import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { derivedKeys } from '../db/seal.ts'
import { brokenRouteRules } from '../http/route-rules.ts'
import { type TestApi, type TestTenant, testApi } from '../test/api.ts'
import { assetKeeper } from './keeper.ts'
import { assetLinks } from './links.ts'
import { assetRoutes } from './routes.ts'
import { MAX_FILES } from './store.ts'
import { GIF, jpeg, png } from './test-pictures.ts'

const BASE = 'https://notify.example.org'
const TENANT_BYTES = 20_000
let t: TestApi
let clock = new Date('2026-11-21T12:00:00Z')
before(async () => {
  t = await testApi({
    routes: [
      (api, { db }) =>
        assetRoutes(api, {
          db,
          objects: undefined,
          links: assetLinks({ publicUrl: BASE, key: derivedKeys('a'.repeat(64), 'asset links') }),
          now: () => clock,
          maxBytes: 10_000,
          tenantBytes: TENANT_BYTES,
        }),
    ],
  })
})
after(() => t?.close())

const put = async (
  name: string,
  bytes: Buffer,
  { as = t.tenant.adminKey, type = 'image/png', query = '' } = {},
) => {
  const response = await t.request('PUT', `/api/assets/${name}${query}`, {
    as,
    payload: bytes,
    headers: { 'content-type': type },
  })
  return { status: response.statusCode, body: response.json(), headers: response.headers }
}
const call = async (method: string, url: string, payload?: object, as = t.tenant.adminKey) => {
  const response = await t.request(method, url, { as, ...(payload && { payload }) })
  return { status: response.statusCode, body: response.body === '' ? undefined : response.json() }
}
/** As a mail program does it: without credentials. */
const fetched = (url: string, headers: Record<string, string> = {}, method = 'GET') => {
  assert.ok(url.startsWith(`${BASE}/media/`), url)
  return t.request(method, url.slice(BASE.length), { headers })
}
const blobs = async (tenant: TestTenant = t.tenant) =>
  (await t.db.pool.query('select hash, unused_since from asset_blobs where tenant_id = $1', [tenant.id])).rows

test('every route keeps the rules of routes', () => {
  assert.deepEqual(brokenRouteRules(t.api), [])
})

// covers: ALP-141
test('a picture is uploaded, listed, and served to everybody, for ever', async () => {
  const bytes = png(64, 32)
  const made = await put('logo', bytes)
  assert.equal(made.status, 201)
  assert.equal(made.headers.location, '/api/assets/logo')
  const { url, sha256, createdBy, createdAt, updatedAt, ...rest } = made.body
  assert.ok(createdBy && createdAt && updatedAt)
  assert.match(sha256, /^[0-9a-f]{64}$/)
  assert.deepEqual(rest, {
    name: 'logo',
    public: true,
    contentType: 'image/png',
    bytes: bytes.length,
    width: 64,
    height: 32,
  })
  assert.match(url, /\/media\/\d+-[A-Za-z0-9_-]{22}\/logo\.png$/)
  assert.deepEqual((await call('GET', '/api/assets/logo')).body, made.body)

  const served = await fetched(url)
  assert.equal(served.statusCode, 200)
  assert.deepEqual(served.rawPayload, bytes)
  const { headers } = served
  assert.equal(headers['content-type'], 'image/png')
  assert.equal(headers['cache-control'], 'public, max-age=31536000, immutable')
  assert.equal(headers['x-content-type-options'], 'nosniff')
  assert.equal(headers['content-disposition'], 'inline; filename="logo.png"')
  assert.equal(headers['content-security-policy'], "default-src 'none'; sandbox")
  assert.equal(headers['cross-origin-resource-policy'], 'cross-origin')
  const etag = String(headers.etag)
  for (const asked of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
    const again = await fetched(url, { 'if-none-match': asked })
    assert.deepEqual([again.statusCode, again.body, again.headers.etag], [304, '', etag])
  }
  assert.equal((await fetched(url, { 'if-none-match': '"x"' })).statusCode, 200)
  const head = await fetched(url, {}, 'HEAD')
  assert.deepEqual(
    [head.statusCode, head.body, head.headers['content-length']],
    [200, '', String(bytes.length)],
  )

  // The name at the end is for people; what is before it is the address.
  assert.equal((await fetched(url.replace('logo.png', 'x'))).statusCode, 200)
  for (const other of [
    url.replace(/-.{22}/, `-${'A'.repeat(22)}`),
    url.replace(/\/\d+-/, '/999-'),
    `${BASE}/media/x/y`,
  ]) {
    assert.equal((await fetched(other)).statusCode, 404)
  }
})

test('another file moves the asset on; what was sent before still shows the earlier one', async () => {
  const [one, two] = [png(1, 1, 'one'), jpeg(2, 2)]
  const first = (await put('banner', one)).body
  const same = await put('banner', one)
  assert.deepEqual([same.status, same.body], [200, first])
  const second = await put('banner', two, { type: 'image/jpeg' })
  assert.equal(second.status, 200)
  assert.notEqual(second.body.url, first.url)
  assert.deepEqual((await fetched(first.url)).rawPayload, one)
  assert.deepEqual((await fetched(second.body.url)).rawPayload, two)
  assert.equal((await fetched(second.body.url)).headers['content-type'], 'image/jpeg')
})

test('the type is what the bytes are: a header that says otherwise, SVG and the rest are refused', async () => {
  assert.equal((await put('a', GIF, { type: 'application/octet-stream' })).status, 201)
  assert.equal((await put('a', GIF, { type: 'image/png' })).status, 415)
  assert.equal((await put('a', Buffer.from('<svg/>'), { type: 'image/svg+xml' })).status, 415)
  assert.equal((await put('a', Buffer.from('{}'), { type: 'application/json' })).status, 415)
  assert.equal((await put('a', Buffer.alloc(0))).status, 415)
  assert.equal((await put('a', Buffer.concat([png(), Buffer.alloc(10_000)]))).status, 413)
  for (const name of ['.hidden', 'a%2Fb', 'a%20b', 'x'.repeat(101)])
    assert.equal((await put(name, png())).status, 400)
})

test('a private picture is seen with a signed link, while that holds', async () => {
  const { body } = await put('contract', png(9, 9), { query: '?public=false' })
  assert.equal(body.public, false)
  assert.equal((await fetched(body.url)).statusCode, 404)
  const link = (await call('POST', '/api/assets/contract/link', { seconds: 600 })).body
  assert.equal(link.expiresAt, new Date(clock.getTime() + 600_000).toISOString())
  const served = await fetched(link.url)
  assert.equal(served.statusCode, 200)
  assert.equal(served.headers['cache-control'], 'private, max-age=600')
  const forged = [
    link.url.replace(/expires=(\d+)/, (_: string, at: string) => `expires=${Number(at) + 1}`),
    link.url.replace(/signature=./, (head: string) => (head.endsWith('A') ? 'signature=B' : 'signature=A')),
    link.url.replace(/signature=.*/, ''),
    `${link.url}A`,
  ]
  for (const [at, url] of forged.entries()) assert.equal((await fetched(url)).statusCode, 404, String(at))
  // Signed for one file is not signed for another.
  const other = (await put('other', png(8, 8), { query: '?public=false' })).body.url
  assert.equal((await fetched(other + new URL(link.url).search)).statusCode, 404)
  const before = clock
  clock = new Date(clock.getTime() + 600_000)
  assert.equal((await fetched(link.url)).statusCode, 404)
  clock = before
  // To be made public is to be seen by everybody, under the same address.
  assert.equal((await put('contract', png(9, 9))).body.url, body.url)
  assert.equal((await fetched(body.url)).statusCode, 200)
})

test('equal bytes are kept once, and forgotten a while after the last file with them', async () => {
  const bytes = png(3, 3, 'dedup')
  const before = (await blobs()).length
  const one = (await put('twin-1', bytes)).body
  const two = (await put('twin-2', bytes)).body
  assert.notEqual(one.url, two.url)
  assert.equal((await blobs()).length, before + 1)
  await put('twin-1', bytes, { as: t.other.adminKey })
  assert.equal((await blobs()).length, before + 1, 'another tenant has its own')

  const keeper = assetKeeper({ db: t.db, objects: undefined, now: () => clock, onError: assert.fail })
  assert.equal((await call('DELETE', '/api/assets/twin-1')).status, 204)
  assert.equal((await call('DELETE', '/api/assets/twin-1')).status, 404)
  assert.equal((await fetched(one.url)).statusCode, 404)
  assert.equal((await fetched(two.url)).statusCode, 200)
  assert.equal(await keeper.runOnce(), 0)
  await call('DELETE', '/api/assets/twin-2')
  const start = clock
  clock = new Date(start.getTime() + 3_599_000)
  assert.equal(await keeper.runOnce(), 0)
  // Taken again within the hour: nothing is forgotten.
  await put('twin-3', bytes)
  clock = new Date(start.getTime() + 7_200_000)
  assert.equal(await keeper.runOnce(), 0)
  await call('DELETE', '/api/assets/twin-3')
  clock = new Date(clock.getTime() + 3_601_000)
  assert.equal(await keeper.runOnce(), 1)
  assert.equal((await blobs()).length, before)
  assert.equal((await blobs(t.other)).length, 1)
  clock = start
})

test('a tenant has so many bytes, and an asset so many files; deleting makes room', async () => {
  const as = t.other.adminKey
  const filled = (n: number) => png(1, 1, `${n}${'x'.repeat(6_000)}`)
  const answers: number[] = []
  for (let n = 0; n < 4; n++) answers.push((await put(`big-${n}`, filled(n), { as })).status)
  assert.deepEqual(answers, [201, 201, 201, 409])
  // What is there already needs no room.
  assert.equal((await put('big-again', filled(0), { as })).status, 201)
  await call('DELETE', '/api/assets/big-1', undefined, as)
  assert.equal((await put('big-3', filled(3), { as })).status, 201)

  for (let n = 0; n < MAX_FILES; n++) assert.ok((await put('moving', png(1, n + 1))).status < 300)
  assert.equal((await put('moving', png(2, 1))).status, 409)
  // At once, and still not one byte more.
  await Promise.all(Array.from({ length: 6 }, (_, n) => put(`many-${n}`, filled(100 + n), { as })))
  const { rows } = await t.db.pool.query(
    'select sum(bytes)::int as n from asset_blobs where tenant_id = $1 and unused_since is null',
    [t.other.id],
  )
  assert.ok(rows[0].n <= TENANT_BYTES)
})

test('lists go by name, in pages; another tenant sees none of them', async () => {
  const names: string[] = []
  let cursor = ''
  do {
    const { body } = await call('GET', `/api/assets?limit=2${cursor}`)
    names.push(...body.items.map((one: { name: string }) => one.name))
    cursor = body.nextCursor ? `&cursor=${body.nextCursor}` : ''
  } while (cursor)
  assert.deepEqual(names, [...names].sort())
  assert.ok(names.includes('logo') && names.length > 4)
  assert.equal((await call('GET', '/api/assets/logo', undefined, t.other.adminKey)).status, 404)
  assert.equal((await call('DELETE', '/api/assets/logo', undefined, t.other.adminKey)).status, 404)
  assert.equal((await call('POST', '/api/assets/logo/link', {}, t.other.adminKey)).status, 404)
})
