import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import Fastify from 'fastify'
import { consoleRoutes } from './console.ts'

async function served(t: TestContext, built = true) {
  const folder = await mkdtemp(join(tmpdir(), 'console-'))
  t.after(() => rm(folder, { recursive: true }))
  if (built) {
    await mkdir(join(folder, 'assets'))
    await writeFile(join(folder, 'index.html'), '<!doctype html>the page')
    await writeFile(join(folder, 'assets', 'index-Bx_1.js'), 'script')
    await writeFile(join(folder, 'secret.txt'), 'not to be had')
  }
  const api = Fastify()
  t.after(() => api.close())
  await consoleRoutes(api, { folder })
  return (url: string) => api.inject({ url })
}

test('every path of the console is its page, under its policy; files of it never change', async t => {
  const get = await served(t)
  for (const path of ['/console', '/console/', '/console/templates/7', '/console/secret.txt']) {
    const page = await get(path)
    assert.deepEqual([page.statusCode, page.body], [200, '<!doctype html>the page'], path)
    assert.match(String(page.headers['content-security-policy']), /default-src 'none'/)
    assert.equal(page.headers['cache-control'], 'no-cache')
  }
  const file = await get('/console/assets/index-Bx_1.js')
  assert.equal(file.body, 'script')
  assert.match(String(file.headers['cache-control']), /max-age=31536000, immutable/)
})

test('there is no way out of the folder of its files, nor to the page without its policy', async t => {
  const get = await served(t)
  for (const name of ['..', '%2e%2e', '.', '', '..%2fsecret.txt', '../secret.txt', 'none.js']) {
    const { statusCode, body, headers } = await get(`/console/assets/${name}`)
    if (statusCode === 200) assert.ok(headers['content-security-policy'], `${name}: ${body}`)
    else assert.equal(statusCode, 404, name)
    assert.doesNotMatch(body, /not to be had/)
  }
})

test('a console that is not built says how to build it', async t => {
  const page = await (await served(t, false))('/console')
  assert.equal(page.statusCode, 503)
  assert.match(page.body, /npm run build:console/)
})
