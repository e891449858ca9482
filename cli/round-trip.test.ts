import assert from 'node:assert/strict'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { KINDS, readFolder } from '../server/replay/files.ts'
import type { Kind } from '../server/replay/files.ts'
import { testApp } from '../server/test/app.ts'
import type { TestApp } from '../server/test/app.ts'
import { createClient } from './client.ts'
import type { Client } from './client.ts'
import { readInput } from './command.ts'
import { command as pullCommand, pull } from './pull.ts'
import { apply, compare } from './sync.ts'
import { problemsOf } from './validate.ts'

let app: TestApp
let client: Client
let dir: string
before(async () => {
  app = await testApp()
  dir = await mkdtemp(join(tmpdir(), 'carillon-round-'))
  client = createClient(
    readInput(pullCommand, [dir], { CARILLON_URL: app.url, CARILLON_KEY: app.tenant.adminKey }),
  )
})
after(async () => {
  await app.stop()
  await rm(dir, { recursive: true, force: true })
})

const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined, freq: 1 })
const word = fc.stringMatching(/^[a-z]{1,8}$/)
const text = fc.string({ minLength: 1, maxLength: 30 }).map(said => `x${said.replaceAll(/[{}<>\\\0]/g, '')}`)
const channel = fc.constantFrom('email', 'EMAIL', 'sms', 'in_app', 'inApp', 'BROWSER_PUSH')
const channels = fc.uniqueArray(channel, { minLength: 1, maxLength: 3 })
const outside = fc.uniqueArray(fc.constantFrom('email', 'sms', 'push'), { maxLength: 2 })
const seconds = fc.integer({ min: 1, max: 86_400 })
const matcher = fc.record(
  { name: word, op: fc.constantFrom('=', '=~'), value: word },
  { requiredKeys: ['name', 'value'] },
)
const matchers = fc.array(matcher, { minLength: 1, maxLength: 3 })
const content = fc.oneof(
  fc.record({ subject: text, body: text }, { requiredKeys: ['body'] }),
  fc.record({ title: text, body: text }),
  // What every folder here has messages for.
  fc.constant({ body: '{{t "run"}}' }),
  fc.constant({ body: 'Dear {{.Name}}', htmlBody: '<style>p { color: red }</style><p>{{data.x}}</p>' }),
  fc.constant({
    body: 'x',
    mjml: '<mjml><mj-body><mj-section><mj-column><mj-text>{{data.x}}</mj-text></mj-column></mj-section></mj-body></mjml>',
  }),
)

const DOCUMENTS: Record<Kind, fc.Arbitrary<Record<string, unknown>>> = {
  messages: fc.record({ messages: fc.dictionary(word, text) }),
  templates: fc.record(
    {
      channels: fc.record({ default: content, email: maybe(content) }, { requiredKeys: ['default'] }),
      translations: fc.dictionary(fc.constantFrom('de', 'pt-BR'), fc.record({ default: content })),
      description: text,
      tags: fc.uniqueArray(word, { maxLength: 3 }),
      category: word,
      enabled: fc.boolean(),
      locale: fc.constantFrom('en', 'de'),
      schemaVersion: fc.constantFrom('1.0', '2'),
      variables: fc.uniqueArray(
        fc.record({ name: word, required: fc.boolean() }, { requiredKeys: ['name'] }),
        {
          selector: ({ name }) => name,
          maxLength: 2,
        },
      ),
    },
    { requiredKeys: ['channels'] },
  ),
  rules: fc.record(
    {
      channels,
      recipientSelector: fc.oneof(
        fc.record({ users: fc.array(word, { minLength: 1, maxLength: 3 }) }),
        fc.record({ type: fc.constant('role'), Roles: fc.array(word, { minLength: 1, maxLength: 2 }) }),
        fc.record({ topics: fc.array(word, { minLength: 1 }), expression: fc.constant('event.data.who') }),
        fc.constant({ targets: { EMAIL: ['ops@example.org'] } }),
      ),
      eventTypes: fc.uniqueArray(word, { maxLength: 3 }),
      eventPattern: fc.constantFrom('', 'event.data.n > 5', 'event.type == "a"\n && event.data.x'),
      priority: fc.constantFrom('HIGH', 'MEDIUM', 'LOW', 'critical', 'NORMAL'),
      schedule: fc.constantFrom({ cron: '0 7 * * *' }, { daily: '07:00' }, null),
      timezone: fc.constantFrom('UTC', 'Europe/Lisbon'),
      batchWindow: fc.constantFrom('90s', '5m', '1h'),
      validUntil: fc.constantFrom('2099-01-01T01:00:00+01:00', null),
      templateVars: fc.dictionary(word, fc.oneof(word, fc.integer())),
      category: word,
      enabled: fc.boolean(),
      policy: fc.record(
        {
          cooldown: fc.record({ seconds }),
          repeat: fc.record({ seconds }),
          quietHours: fc.constantFrom('ignore', 'in_app'),
          escalation: fc.constant([{ afterSeconds: 60, unless: 'seen', channels: ['sms'] }]),
        },
        { requiredKeys: [] },
      ),
    },
    { requiredKeys: ['channels', 'recipientSelector'] },
  ),
  limits: fc.oneof(
    fc.record(
      {
        scope: fc.constantFrom('user', 'tenant', 'address'),
        window: fc.constantFrom('hour', 'day'),
        max: fc.nat(1000),
        channels: outside,
        per: fc.constantFrom('delivery', 'notification'),
        overflow: fc.constantFrom('hold', 'skip', 'digest'),
        criticalPasses: fc.boolean(),
        shares: fc.constantFrom({}, { LOW: 0.5 }),
        enabled: fc.boolean(),
      },
      { requiredKeys: ['scope', 'window', 'max'] },
    ),
    fc.record({ scope: fc.constant('user'), window: fc.constant('gap'), gapSeconds: seconds }),
  ),
  silences: fc.record(
    {
      matchers,
      author: word,
      startsAt: fc.constantFrom('2026-01-01T00:00:00Z', '2050-01-01T00:00:00+02:00'),
      endsAt: fc.constant('2050-06-01T00:00:00Z'),
    },
    { requiredKeys: ['matchers', 'author', 'endsAt'] },
  ),
  inhibitions: fc.record(
    {
      sourceMatchers: matchers,
      targetMatchers: matchers,
      equal: fc.uniqueArray(word, { maxLength: 2 }),
      enabled: fc.boolean(),
    },
    { requiredKeys: ['sourceMatchers', 'targetMatchers'] },
  ),
}

/** A silence may last a year, so one that begins today must end soon. */
const soon = (body: Record<string, unknown>): Record<string, unknown> =>
  body['startsAt'] === '2050-01-01T00:00:00+02:00'
    ? body
    : { ...body, startsAt: undefined, endsAt: new Date(Date.now() + 86_400_000).toISOString() }

let runs = 0
test('law: what is pushed is there; what is pulled is valid, and differs in nothing', async () => {
  const folder = fc.record(
    Object.fromEntries(
      Object.entries(DOCUMENTS).map(([kind, one]) => [kind, fc.array(one, { minLength: 1, maxLength: 2 })]),
    ) as Record<Kind, fc.Arbitrary<Record<string, unknown>[]>>,
  )
  await fc.assert(
    fc.asyncProperty(folder, async documents => {
      const mine = join(dir, `mine-${++runs}`)
      for (const kind of Object.keys(KINDS) as Kind[]) {
        await mkdir(join(mine, kind), { recursive: true })
        for (const [i, body] of documents[kind].entries()) {
          const name = `${kind} ${runs} ${i}`
          const document: Record<string, unknown> =
            kind === 'silences'
              ? { comment: name, ...soon(body) }
              : kind === 'messages'
                ? { locale: ['DE', 'pt_br'][i], messages: { ...(body['messages'] as object), run: name } }
                : { name, ...body }
          if (kind === 'rules' && i === 0) document['templateId'] = `templates ${runs} 0`
          await writeFile(join(mine, kind, `${i}.yaml`), stringify(JSON.parse(JSON.stringify(document))))
        }
      }
      const written = await readFolder(mine)
      assert.deepEqual(await problemsOf(written), [])
      const wanted = (await compare(client, written.resources)).filter(({ what }) => what !== 'disable')
      assert.equal(wanted.length, written.resources.length)
      for (const change of wanted) await apply(client, change)
      const again = (await compare(client, written.resources)).filter(({ what }) => what !== 'disable')
      assert.deepEqual(again, [], 'a second push does nothing')

      const theirs = join(dir, `theirs-${runs}`)
      await pull(client, theirs)
      const pulled = await readFolder(theirs)
      assert.deepEqual(await problemsOf(pulled), [], 'what is pulled is valid')
      assert.deepEqual(await compare(client, pulled.resources), [], 'and differs in nothing')
    }),
    { numRuns: 8 },
  )
})

test('what the folder no longer has is switched off, and a silence ended', async () => {
  const changes = await compare(client, [])
  for (const change of changes) await apply(client, change)
  assert.ok(changes.length > 5)
  assert.deepEqual(await compare(client, []), [])
})
