import assert from 'node:assert/strict'
import { after, before, beforeEach, test } from 'node:test'
import { type ObjectStoreOptions, objectStore } from './object-store.ts'
import { png } from './test-pictures.ts'
import { KEY, type TestStore, testStore } from './test-store.ts'

let there: TestStore
before(async () => {
  there = await testStore({ bucket: 'pictures', region: 'eu-central-1' })
})
beforeEach(() => {
  there.objects.clear()
  there.asked.length = 0
  there.answers.length = 0
})
after(() => there.close())

const open = (more: Partial<ObjectStoreOptions> = {}) =>
  objectStore({
    bucket: 'pictures',
    prefix: 'carillon/a',
    region: 'eu-central-1',
    endpoint: there.url,
    ...KEY,
    now: () => new Date(),
    ...more,
  })

// covers: ALP-142
test('what was put is got again, byte for byte, until it is removed', async () => {
  const store = open()
  const bytes = png(5, 5)
  await store.put('1/abc', bytes, 'image/png')
  assert.deepEqual(there.objects.get('carillon/a/1/abc'), { bytes, type: 'image/png' })
  assert.deepEqual(await store.get('1/abc', 10_000), bytes)
  await store.remove('1/abc')
  await store.remove('1/abc')
  assert.equal(await store.get('1/abc', 10_000), undefined)
})

test('a wrong secret, region, clock or bucket is refused, and said without repeating a secret', async () => {
  const wrong: [Partial<ObjectStoreOptions>, string][] = [
    [{ secretAccessKey: 'another' }, 'SignatureDoesNotMatch'],
    [{ accessKeyId: 'another' }, 'InvalidAccessKeyId'],
    [{ region: 'us-east-1' }, 'AuthorizationHeaderMalformed'],
    [{ now: () => new Date(Date.now() - 3_600_000) }, 'RequestTimeTooSkewed'],
    [{ bucket: 'another' }, 'NoSuchBucket'],
  ]
  for (const [more, code] of wrong) {
    await assert.rejects(open(more).put('k', png(), 'image/png'), (error: Error & { code: string }) => {
      assert.equal(error.code, 'external_service_error')
      assert.ok(error.message.includes(code), error.message)
      assert.ok(!error.message.includes(KEY.secretAccessKey))
      return true
    })
  }
})

test('a fault of theirs is tried once more; a lasting one is said', async () => {
  const store = open()
  there.answers.push(response => response.writeHead(503).end('<Code>SlowDown</Code>'))
  await store.put('k', png(), 'image/png')
  assert.equal(there.asked.length, 2)
  there.answers.push(response => response.destroy())
  assert.ok(await store.get('k', 10_000))
  const down = (response: { writeHead(status: number): { end(text: string): unknown } }) =>
    void response.writeHead(500).end('garbage')
  there.answers.push(down, down)
  await assert.rejects(store.get('k', 10_000), /refused to give one: 500/)
  there.answers.push(
    response => response.destroy(),
    response => response.destroy(),
  )
  await assert.rejects(store.remove('k'), /cannot be reached/)
  await assert.rejects(
    open({ timeoutMs: 50, endpoint: 'http://127.0.0.1:1' }).get('k', 1),
    /cannot be reached/,
  )
})

test('more than was kept is not read; a redirect is not followed', async () => {
  const store = open()
  await store.put('k', png(), 'image/png')
  await assert.rejects(store.get('k', 10), /another file/)
  there.answers.push(response =>
    response.writeHead(301, { location: `${there.url}/pictures/carillon/a/k` }).end(),
  )
  await assert.rejects(store.get('k', 10_000), /301/)
})
