import assert from 'node:assert/strict'
import { globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { ensureFirstTenant } from '../server/admin/tenants.ts'
import { startApp } from '../server/app.ts'
import { loadConfig, masterKeyring } from '../server/config.ts'
import { SOLUTIONS } from '../solutions/index.ts'
import { sealer } from '../server/db/seal.ts'
import { createLogger } from '../server/observe/log.ts'
import { type TestDatabase, testDatabase } from '../server/test/database.ts'

/**
 * A code block whose first line names a request, as in `json POST /api/rules`. With `as rule` at the end of that line,
 * `$rule` is the id of what it made, in the requests of the same guide that follow.
 */
interface Example {
  guide: string
  method: string
  path: string
  body: string
  as: string | undefined
}

const GUIDES = join(import.meta.dirname, '..', 'docs', 'guides')

const examples: Example[] = globSync('*.md', { cwd: GUIDES })
  .sort()
  .flatMap(guide =>
    [
      ...readFileSync(join(GUIDES, guide), 'utf8').matchAll(
        /^```json (\w+) (\S+)(?: as (\w+))?\n([\s\S]*?)^```$/gm,
      ),
    ].map(([, method, path, as, body]) => ({ guide, method: method!, path: path!, as, body: body! })),
  )

let database: TestDatabase
let app: Awaited<ReturnType<typeof startApp>>
let key: string
const dataDir = mkdtempSync(join(tmpdir(), 'carillon-guides-'))

before(async () => {
  database = await testDatabase()
  const config = loadConfig(
    { PORT: '0', MAILBOX_PORT: '0', CARILLON_DATA_DIR: dataDir, LOG_LEVEL: 'silent' },
    [],
    undefined,
    SOLUTIONS,
  )
  key = (await ensureFirstTenant(database.db, sealer(masterKeyring(config).reveal()))).adminKey!
  app = await startApp({ config, databaseUrl: database.url, log: createLogger({ level: 'silent' }) })
})

after(async () => {
  await app?.stop()
  await database?.drop()
  rmSync(dataDir, { recursive: true, force: true })
})

test('the guides have examples', () => {
  assert.ok(examples.length >= 12)
})

/** Guides repeat names that others used; each request is a step of its own guide, in its order. */
const made = new Map<string, string>()
for (const { guide, method, path, body, as } of examples) {
  test(`${guide}: ${method} ${path}`, async () => {
    const known = (text: string) =>
      text.replaceAll(/\$(\w+)/g, (_, name: string) => made.get(`${guide} ${name}`) ?? name)
    const response = await fetch(app.url + known(path), {
      method,
      headers: { authorization: `Bearer ${key}`, ...(body && { 'content-type': 'application/json' }) },
      body: known(body) || undefined,
    })
    const text = await response.text()
    assert.ok(response.ok, `${response.status} ${text}`)
    if (as) made.set(`${guide} ${as}`, (JSON.parse(text) as { id: string }).id)
  })
}
