import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, matchesGlob, normalize } from 'node:path'
import { test } from 'node:test'

/**
 * Who may import whom. The first row whose pattern fits a file is the row of that file; besides what stands in the
 * row it may import its own folder. A target that ends with `/` is the whole folder. Everything points downwards:
 * no two rows reach each other.
 */
const WORDS = [
  'server/types.ts',
  'server/errors.ts',
  'server/reasons.ts',
  'server/spelling.ts',
  'server/sms-size.ts',
  'server/text-links.ts',
]
const BASE = ['server/db/', 'server/time/', ...WORDS]
const EVERYTHING = ['server/', 'solutions/index.ts']

const TABLE: [files: string, mayImport: string[]][] = [
  // In the browser: it knows the server by its API alone.
  ['console/**', ['console/']],

  // Outside the server.
  ['solutions/index.ts', ['solutions/', 'server/solution.ts']],
  ['solutions/**', ['server/solution.ts']],
  [
    'cli/**',
    [
      'server/main.ts',
      'server/config.ts',
      'server/solution.ts',
      'solutions/index.ts',
      'server/observe/ready.ts',
      'server/ledger/audit.ts',
      'server/replay/',
      ...BASE,
    ],
  ],
  ['bench/**', EVERYTHING],
  ['scripts/**', EVERYTHING],

  // The whole is put together at the top.
  [
    'server/main.ts',
    ['server/app.ts', 'server/config.ts', 'server/observe/', 'server/admin/tenants.ts', ...BASE],
  ],
  ['server/app.ts', EVERYTHING],
  [
    'server/pipeline.ts',
    [
      'server/plan/',
      'server/assets/asset-book.ts',
      'server/experiments/experiment-book.ts',
      'server/match/',
      'server/render/',
      'server/ledger/',
      'server/limits/',
      'server/people/',
      ...BASE,
    ],
  ],
  // Where the stages meet: each is called here, and none of them knows it.
  [
    'server/plan/**',
    [
      'server/alerts/alert.ts',
      'server/assets/asset-book.ts',
      'server/experiments/experiment-book.ts',
      'server/match/',
      'server/decide/',
      'server/render/',
      'server/ledger/',
      'server/digest/compose.ts',
      'server/digest/wish.ts',
      'server/limits/',
      'server/people/',
      ...BASE,
    ],
  ],
  // Which digest a delivery joins is decided with it; closing digests is somebody else's.
  ['server/digest/wish.ts', ['server/match/policy.ts', 'server/people/', ...BASE]],
  ['server/digest/compose.ts', WORDS],
  ['server/digest/closer.ts', ['server/ledger/', 'server/people/', ...BASE]],
  ['server/digest/group-state.ts', ['server/decide/candidate.ts', ...BASE]],
  ['server/digest/store.ts', ['server/ledger/', ...BASE]],
  // When a group goes, who stands against its alerts is asked once more.
  [
    'server/alerts/standing-again.ts',
    ['server/alerts/standing-book.ts', 'server/digest/group-state.ts', 'server/people/facts.ts', ...BASE],
  ],
  [
    'server/digest/routes.ts',
    ['server/admin/audit.ts', 'server/digest/store.ts', 'server/http/', 'server/ledger/', ...BASE],
  ],
  // The stages again, without the ledger: what-if, and stories of rules kept as code.
  [
    'server/replay/routes.ts',
    [
      'server/replay/',
      'server/alerts/',
      'server/limits/',
      'server/match/',
      'server/people/',
      'server/render/',
      'server/http/',
      ...BASE,
    ],
  ],
  [
    'server/replay/**',
    [
      'server/pipeline.ts',
      'server/alerts/',
      'server/match/',
      'server/decide/trace.ts',
      'server/digest/compose.ts',
      'server/digest/group-state.ts',
      'server/http/validator.ts',
      'server/render/',
      'server/limits/',
      'server/ledger/plan.ts',
      'server/people/',
      ...BASE,
    ],
  ],
  ['server/dry-run.ts', ['server/pipeline.ts', 'server/match/', 'server/decide/trace.ts', ...BASE]],
  // Questions across the stages: what was decided, beside what came of it.
  ['server/explain/because.ts', ['server/decide/trace.ts', 'server/ledger/', ...BASE]],
  ['server/explain/rule.ts', ['server/decide/trace.ts', 'server/match/', ...BASE]],
  ['server/explain/explain.ts', ['server/explain/', 'server/decide/trace.ts', 'server/ledger/', ...BASE]],
  ['server/explain/routes.ts', ['server/explain/', 'server/http/', 'server/ledger/', ...BASE]],
  ['server/explain/**', ['server/explain/', 'server/ledger/status.ts', 'server/people/users.ts', ...BASE]],

  // A provider can be written knowing one file. What several of them share lies beside their folders.
  ['server/deliver/providers/index.ts', ['server/deliver/provider.ts', 'server/deliver/providers/']],
  [
    'server/deliver/providers/**',
    [
      'server/deliver/provider.ts',
      'server/deliver/providers/mail-reply.ts',
      'server/deliver/providers/answers.ts',
      'server/deliver/providers/hmac-sha256.ts',
      'server/deliver/providers/webhook-auth.ts',
      'server/aws.ts',
      'server/deliver/providers/email.ts',
      'server/deliver/providers/h2-connection.ts',
      'server/deliver/providers/phone.ts',
      'server/deliver/providers/push-encryption.ts',
      'server/deliver/providers/push.ts',
      'server/deliver/providers/slack-blocks.ts',
      'server/deliver/providers/sms-text.ts',
      'server/deliver/providers/sns-message.ts',
      'server/deliver/providers/twilio-api.ts',
      'server/deliver/providers/twilio-verify-api.ts',
      'server/deliver/providers/whatsapp-content.ts',
      'server/sms-size.ts',
      'server/types.ts',
    ],
  ],

  [
    'server/track/routes.ts',
    ['server/deliver/provider.ts', 'server/deliver/open-provider.ts', 'server/http/', ...BASE],
  ],

  // Limits as they stand, read back from where they are counted.
  [
    'server/allowance/*-routes.ts',
    [
      'server/allowance/',
      'server/limits/',
      'server/http/',
      'server/people/',
      'server/admin/audit.ts',
      ...BASE,
    ],
  ],
  [
    'server/allowance/**',
    ['server/limits/', 'server/decide/limits.ts', 'server/ledger/usage.ts', 'server/people/', ...BASE],
  ],

  // A module's routes: the module at the door. They see its own folder and the door.
  [
    'server/*/{routes,*-routes}.ts',
    ['server/http/', 'server/admin/', 'server/people/', 'server/ledger/', 'server/config.ts', ...BASE],
  ],

  // Doors for programs with a language of their own.
  ['server/ingest/senders/routes.ts', ['server/http/', 'server/ingest/', 'server/admin/audit.ts', ...BASE]],

  // The stages, in the order of an event's way. None knows another; all but the pure ones know the ledger.
  // A CloudEvent may bring JSON within its JSON, for which the bounds of the door hold as well.
  [
    'server/ingest/**',
    ['server/ledger/', 'server/people/', 'server/admin/audit.ts', 'server/http/json-body.ts', ...BASE],
  ],
  ['server/alerts/**', ['server/admin/audit.ts', ...BASE]],
  ['server/experiments/**', ['server/admin/audit.ts', ...BASE]],
  ['server/assets/**', ['server/admin/audit.ts', 'server/aws.ts', ...BASE]],
  ['server/match/**', ['server/people/', 'server/admin/audit.ts', ...BASE]],
  ['server/decide/**', ['server/people/', 'server/limits/usage.ts', ...BASE]],
  ['server/render/**', ['server/people/', 'server/admin/audit.ts', ...BASE]],
  // What is configured becomes what is open.
  ['server/deliver/{set-up,provider-settings}.ts', ['server/config.ts', ...BASE]],
  ['server/deliver/**', ['server/ledger/', 'server/people/', 'server/admin/audit.ts', ...BASE]],
  // What vendors tell later, read by the provider it came to.
  [
    'server/track/**',
    [
      'server/deliver/provider.ts',
      'server/deliver/providers/mail-reply.ts',
      'server/ledger/',
      'server/people/',
      ...BASE,
    ],
  ],
  // The live stream is a door of its own, so it knows callers.
  ['server/feed/**', ['server/ledger/', 'server/people/', 'server/http/', ...BASE]],
  // What is watched over time, and becomes an event.
  ['server/streams/**', ['server/ledger/', 'server/admin/audit.ts', ...BASE]],
  ['server/heartbeats/**', ['server/ledger/', 'server/admin/audit.ts', ...BASE]],
  ['server/ledger/**', ['server/people/', 'server/limits/usage.ts', ...BASE]],
  ['server/limits/**', ['server/people/', 'server/admin/audit.ts', ...BASE]],

  // What the stages and the doors stand on.
  ['server/people/**', ['server/admin/audit.ts', ...BASE]],
  ['server/admin/**', ['server/http/', ...BASE]],
  ['server/http/**', ['server/config.ts', ...BASE]],
  ['server/observe/**', ['server/config.ts', ...BASE]],
  // The shapes of what the core lends, and words to ask for it with.
  [
    'server/solution.ts',
    [
      'server/config-values.ts',
      'server/explain/explain.ts',
      'server/feed/',
      'server/http/',
      'server/ingest/acceptor.ts',
      'server/render/template.ts',
      ...BASE,
    ],
  ],
  ['server/config.ts', ['server/config-values.ts', 'server/db/seal.ts', ...WORDS]],
  ['server/config-values.ts', ['server/db/seal.ts', ...WORDS]],
  ['server/db/**', WORDS],
  ['server/time/**', ['server/errors.ts', 'server/types.ts']],
  ['server/aws.ts', []],
  ['server/spelling.ts', ['server/types.ts']],
  ['server/sms-size.ts', []],
  ['server/text-links.ts', []],
  ['server/reasons.ts', ['server/types.ts']],
  ['server/errors.ts', ['server/types.ts']],
  ['server/types.ts', []],
]

/** Tests may reach for anything. What is not a test may not reach for them. */
const TESTS = [
  '**/*.test.ts',
  'server/test/**',
  'console/src/blocks/test-mails.ts',
  'server/assets/test-pictures.ts',
  'server/assets/test-store.ts',
  'server/feed/test-inbox.ts',
  'server/ledger/test-ledger.ts',
  'server/deliver/providers/conformance.ts',
  'server/deliver/providers/one-delivery.ts',
  'server/deliver/providers/slack-vendor.ts',
  'server/deliver/providers/twilio-vendor.ts',
  'server/deliver/providers/twilio-verify-vendor.ts',
]

const ROOT = join(import.meta.dirname, '..', '..')
const isTest = (file: string) => TESTS.some(pattern => matchesGlob(file, pattern))
const rowOf = (file: string) => TABLE.find(([pattern]) => matchesGlob(file, pattern))
const within = (target: string, allowed: string) =>
  allowed.endsWith('/') ? target.startsWith(allowed) : target === allowed

const files = globSync('{server,cli,bench,scripts,solutions,console}/**/*.{ts,tsx}', {
  cwd: ROOT,
  exclude: ['**/node_modules', '**/dist'],
}).sort()

/** The files of this repository that a file names in its import and export lines, types included. */
function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), 'utf8')
  return [
    ...text.matchAll(
      /^(?:import|export|\}).*?from '(\.[^']+)'|^import '(\.[^']+)'|\bimport\('(\.[^']+)'\)/gm,
    ),
  ]
    .map(([, from, bare, dynamic]) => from ?? bare ?? dynamic!)
    .map(path => normalize(join(dirname(file), path)))
}

/** Undefined when `file` may import `target`, else the reason why not. */
function refused(file: string, target: string): string | undefined {
  if (isTest(file)) return undefined
  if (isTest(target)) return 'code may not import tests'
  const row = rowOf(file)
  if (row === undefined) return 'no row of the table fits the file'
  if (`${dirname(target)}/`.startsWith(`${dirname(file)}/`) && dirname(file) !== 'server') return undefined
  return row[1].some(allowed => within(target, allowed)) ? undefined : `the row ${row[0]} does not allow it`
}

test('imports point one way', () => {
  const wrong = files.flatMap(file =>
    importsOf(file).flatMap(target => {
      const reason = refused(file, target)
      return reason === undefined ? [] : `${file} imports ${target}: ${reason}`
    }),
  )
  assert.deepEqual(wrong, [])
})

test('every file has a row, and import lines are really found', () => {
  assert.deepEqual(
    files.filter(file => !isTest(file) && rowOf(file) === undefined),
    [],
  )
  assert.ok(importsOf('server/db/migrate.ts').includes('server/db/pool.ts'))
  // A multi-line import, whose path stands on the line of the closing brace.
  assert.ok(importsOf('server/test/imports.test.ts').length === 0)
  assert.ok(importsOf('server/db/embedded.ts').includes('server/db/file-lock.ts'))
})

test('the table refuses what it should', () => {
  assert.match(refused('server/match/rules.ts', 'server/render/view.ts')!, /does not allow/)
  assert.match(refused('server/decide/decide.ts', 'server/ledger/rows.ts')!, /does not allow/)
  assert.match(refused('server/deliver/providers/smtp/smtp.ts', 'server/db/pool.ts')!, /does not allow/)
  assert.match(
    refused('server/deliver/providers/smtp/smtp.ts', 'server/deliver/providers/webhook/webhook.ts')!,
    /./,
  )
  assert.match(refused('server/people/facts.ts', 'server/http/api.ts')!, /does not allow/)
  assert.match(refused('server/http/server.ts', 'server/feed/feed.ts')!, /does not allow/)
  assert.match(refused('solutions/companion/index.ts', 'server/feed/feed.ts')!, /does not allow/)
  assert.match(refused('server/feed/feed.ts', 'server/solution.ts')!, /does not allow/)
  assert.match(refused('server/db/pool.ts', 'server/test/database.ts')!, /may not import tests/)
  assert.match(refused('console/src/main.tsx', 'server/types.ts')!, /does not allow/)
  assert.equal(refused('server/people/routes.ts', 'server/http/api.ts'), undefined)
  assert.equal(refused('server/deliver/providers/smtp/smtp.ts', 'server/deliver/provider.ts'), undefined)
})

test('the table has no circle', () => {
  // Routes stand above all modules although they lie in their folders; what may see everything is above as well.
  const rows = TABLE.filter(([pattern, may]) => !pattern.includes('routes') && may !== EVERYTHING)
  const below = (pattern: string) => {
    const may = rows.find(row => row[0] === pattern)![1]
    return rows
      .map(row => row[0])
      .filter(other => other !== pattern && may.some(allowed => folderOf(other) === folderOf(allowed)))
  }
  const visit = (pattern: string, path: string[]): void => {
    assert.ok(!path.includes(pattern), `circle: ${[...path, pattern].join(' -> ')}`)
    for (const next of below(pattern)) visit(next, [...path, pattern])
  }
  for (const [pattern] of rows) visit(pattern, [])
})

/** `server/match/**` and `server/match/rules.ts` → `server/match`; files of server/ itself stay files. */
const folderOf = (pattern: string) => (/^server\/[^/]+\.ts$/.test(pattern) ? pattern : dirname(pattern))
