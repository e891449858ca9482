import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { adminRoutes } from '../admin/routes.ts'
import { ERRORS } from '../errors.ts'
import { type TestApi, testApi } from '../test/api.ts'

let t: TestApi
before(async () => {
  t = await testApi({ routes: [adminRoutes] })
})
after(() => t.close())

type Operation = {
  operationId?: string
  security: object[]
  responses: Record<string, object>
  description: string
}
interface Document {
  openapi: string
  paths: Record<string, Record<string, Operation>>
  components: Record<string, Record<string, Record<string, unknown>>>
}
const document = async (): Promise<Document> => (await t.request('GET', '/docs/openapi.json')).json()

test('the document is OpenAPI 3.1 of the routes, and needs no credentials', async () => {
  const { openapi, paths } = await document()
  assert.equal(openapi, '3.1.0')
  assert.deepEqual(Object.keys(paths).toSorted(), [
    '/api/audit',
    '/api/keys',
    '/api/keys/{id}',
    '/api/tenants',
    '/api/tenants/{name}',
  ])
  assert.equal(paths['/api/keys']!.post!.operationId, 'createKey')
})

test('every operation says who may call it and which problems it may answer', async () => {
  const { paths, components } = await document()
  const create = paths['/api/tenants']!.post!
  assert.equal(create.security.length, 3)
  assert.match(create.description, /Role: admin\. Scope: `admin:write`\. Operator/)
  assert.deepEqual(Object.keys(create.responses), [
    '201',
    '400',
    '401',
    '403',
    '404',
    '409',
    '413',
    '415',
    '422',
    '429',
    '500',
    '503',
  ])
  assert.deepEqual(Object.keys(paths['/api/keys']!.get!.responses), [
    '200',
    '400',
    '401',
    '403',
    '404',
    '429',
    '500',
    '503',
  ])
  const described = Object.values(components.responses!).map(r => String(r.description))
  for (const code of Object.keys(ERRORS)) {
    assert.ok(
      described.some(text => text.includes(`\`${code}\``)),
      code,
    )
  }
})

test('every reference in the document leads somewhere', async () => {
  const doc = await document()
  const refs: string[] = []
  JSON.stringify(doc, (name, value) => {
    if (name === '$ref') refs.push(value)
    return value
  })
  assert.ok(refs.length > 10)
  for (const ref of refs) {
    const target = ref
      .slice(2)
      .split('/')
      .reduce<unknown>((part, name) => (part as Record<string, unknown> | undefined)?.[name], doc)
    assert.ok(target, ref)
  }
})

test('the pages load nothing from elsewhere and run no inline script', async () => {
  const page = await t.request('GET', '/docs')
  assert.equal(page.statusCode, 200)
  assert.match(String(page.headers['content-security-policy']), /default-src 'none'.*script-src 'self';/)
  assert.doesNotMatch(page.body, /https?:\/\//)
  assert.doesNotMatch(page.body, /<script(?![^>]*src=)/)
  for (const [, path] of page.body.matchAll(/(?:src|href)="([^"]+)"/g)) {
    assert.equal((await t.request('GET', path!)).statusCode, 200, path)
  }
  const shown = await t.request('GET', '/docs/json')
  assert.deepEqual(shown.json(), await document(), 'the page shows the very document that is served')
})

test('where a problem points, its code is explained', async () => {
  const problem = (await t.request('GET', '/nowhere')).json()
  const [path, fragment] = problem.type.split('#')
  const page = await t.request('GET', path)
  assert.equal(page.statusCode, 200)
  assert.ok(page.body.includes(`id="${fragment}"`))
  for (const [code, { title }] of Object.entries(ERRORS)) {
    assert.ok(page.body.includes(`id="${code}"`) && page.body.includes(title), code)
  }
})
