import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { ConfigError, listSettings, loadConfig, masterKeyring, secret } from './config.ts'
import { CHANNELS } from './types.ts'

const KEY = 'mCk0rYq0s1nB0mM2n8cYJm8m1vF0m8Xo0u3cT0b7v1Q='
const OTHER_KEY = 'a3f1c2d4e5968778695a4b3c2d1e0ff0123456789abcdeffedcba98765432100'
const SERVER = { DATABASE_URL: 'postgres://carillon:hunter2@db/carillon', CARILLON_MASTER_KEY: KEY }

/** The problems that reading this reports. */
function problems(env: NodeJS.ProcessEnv, argv: string[] = []): readonly string[] {
  try {
    loadConfig(env, argv)
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error))
    return error.problems
  }
  return assert.fail('nothing was refused')
}

test('an empty environment means: embedded, on this machine only, everything in one process', () => {
  const config = loadConfig({})
  assert.equal(config.mode, 'embedded')
  assert.equal(config.http.host, '127.0.0.1')
  assert.equal(config.http.publicUrl, 'http://localhost:4400')
  assert.deepEqual(config.process.roles.deliver, CHANNELS)
  assert.ok(config.process.roles.api && config.process.roles.plan && config.process.roles.schedule)
  assert.deepEqual(config.warnings, [])
})

test('with a database of its own it listens to the network', () => {
  const config = loadConfig(SERVER)
  assert.equal(config.mode, 'external')
  assert.equal(config.http.host, '0.0.0.0')
  assert.equal(loadConfig({ ...SERVER, HOST: '::1' }).http.host, '::1')
})

// covers: DIC-130
test('no way of printing the configuration shows a secret', () => {
  const canaries = {
    DATABASE_URL: 'postgres://carillon:canary-database@db/carillon',
    REDIS_URL: 'redis://:canary-redis@cache:6379',
    JWT_SECRET: 'canary-jwt-Vb7kq0Zr9tLxwYp2mNc4dGh6',
    SMTP_HOST: 'mail',
    SMTP_FROM: 'a@example.org',
    SMTP_USERNAME: 'me',
    SMTP_PASSWORD: 'canary-smtp',
    OTEL_EXPORTER_OTLP_HEADERS: 'api-key=canary-otlp',
    CARILLON_MASTER_KEY: KEY,
  }
  const config = loadConfig(canaries)
  const printed = [
    inspect(config, { depth: null, showHidden: true }),
    JSON.stringify(config),
    `${config.smtp.password}`,
    String(config.auth.jwtSecret),
    inspect(config.data.masterKeys, { showHidden: true, customInspect: false }),
  ].join('\n')
  assert.doesNotMatch(printed, /canary|mCk0rY/)
  assert.doesNotMatch(printed, new RegExp(Buffer.from(KEY, 'base64').toString('hex').slice(0, 12), 'i'))
  assert.equal(JSON.stringify({ a: secret('x') }), '{"a":"<secret>"}')
  assert.equal(config.smtp.password?.reveal(), 'canary-smtp')
  assert.deepEqual(config.observe.otlpHeaders?.reveal(), { 'api-key': 'canary-otlp' })
})

test('an error never repeats a secret', () => {
  const found = problems({
    DATABASE_URL: 'mysql://carillon:canary@db',
    REDIS_URL: 'canary',
    JWT_SECRET: 'canary',
    CARILLON_MASTER_KEY: 'canary',
    OTEL_EXPORTER_OTLP_HEADERS: 'canary',
  })
  assert.equal(found.length, 5)
  assert.doesNotMatch(found.join(), /canary/)
})

test('everything wrong is reported at once, each with its variable', () => {
  const found = problems(
    {
      PORT: '70000',
      CARILLON_LANES: '0',
      OUTBOUND_ALLOW: '10.0.0.0/99',
      JWKS_URL: 'ftp://x',
      CARILLON_BODY_LIMIT: 'much',
    },
    ['--role', 'cook', '--colour', 'red'],
  )
  for (const name of [
    'PORT',
    'CARILLON_LANES',
    'OUTBOUND_ALLOW',
    'JWKS_URL',
    'CARILLON_BODY_LIMIT',
    '--role',
    '--colour',
  ]) {
    assert.equal(
      found.filter(problem => problem.startsWith(name)).length,
      1,
      `${name} in ${found.join(' | ')}`,
    )
  }
})

test('without the embedded database a master key is required, and a guessable one is refused', () => {
  const { DATABASE_URL } = SERVER
  assert.match(problems({ DATABASE_URL }).join(), /^CARILLON_MASTER_KEY is required/)
  const guessable = [
    Buffer.alloc(32).toString('base64'),
    'ab'.repeat(32),
    '0123456789abcdef'.repeat(4),
    '000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f',
    Buffer.from('changemechangemechangemechangeme').toString('base64'),
  ]
  for (const key of guessable) {
    assert.match(
      problems({ DATABASE_URL, CARILLON_MASTER_KEY: key }).join(),
      /^CARILLON_MASTER_KEY: it is a well-known/,
    )
  }
  for (const key of ['abc', KEY.slice(4), `${KEY},${OTHER_KEY}`, `0:${KEY},1:${KEY}`, ',', 'päss']) {
    assert.match(
      problems({ DATABASE_URL, CARILLON_MASTER_KEY: key }).join(),
      /^CARILLON_MASTER_KEY: (it|Master key)/,
    )
  }
})

test('several master keys are a keyring, each with its id', () => {
  const { masterKeys } = loadConfig({ ...SERVER, CARILLON_MASTER_KEY: `0:${OTHER_KEY}, 1:${KEY}` }).data
  assert.deepEqual(masterKeys?.reveal(), [
    { id: 0, key: Buffer.from(OTHER_KEY, 'hex') },
    { id: 1, key: Buffer.from(KEY, 'base64') },
  ])
})

test('the embedded master key is made once, for its owner only, and never replaced', t => {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-config-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const config = loadConfig({ CARILLON_DATA_DIR: join(dir, 'data') })
  const [first, ...more] = masterKeyring(config).reveal()
  assert.equal(first?.key.length, 32)
  assert.deepEqual(more, [])
  const file = join(dir, 'data', 'master.key')
  assert.equal(statSync(file).mode & 0o777, 0o600)
  assert.deepEqual(masterKeyring(config).reveal(), [first])
  writeFileSync(file, 'damaged')
  assert.throws(() => masterKeyring(config), ConfigError)
  assert.equal(readFileSync(file, 'utf8'), 'damaged')
  assert.throws(() => masterKeyring({ mode: 'external', data: { ...config.data } }), ConfigError)
})

test('NAME_FILE takes a secret from a file; both at once is a mistake', t => {
  const dir = mkdtempSync(join(tmpdir(), 'carillon-config-'))
  t.after(() => rmSync(dir, { recursive: true }))
  const file = join(dir, 'key')
  writeFileSync(file, `${KEY}\n`)
  const { DATABASE_URL } = SERVER
  const config = loadConfig({ DATABASE_URL, CARILLON_MASTER_KEY_FILE: file })
  assert.deepEqual(config.data.masterKeys?.reveal(), [{ id: 0, key: Buffer.from(KEY, 'base64') }])
  assert.match(problems({ ...SERVER, CARILLON_MASTER_KEY_FILE: file }).join(), /both set/)
  writeFileSync(file, ' \n')
  assert.match(
    problems({ DATABASE_URL, CARILLON_MASTER_KEY_FILE: file }).join(),
    /CARILLON_MASTER_KEY_FILE: .* is empty/,
  )
  assert.match(problems({ JWT_SECRET_FILE: join(dir, 'none') }).join(), /^JWT_SECRET_FILE: .* cannot be read/)
  for (const one of listSettings()) if (one.secret) assert.ok(one.file, one.name)
})

test('a variable nobody reads is pointed out, with the one that was meant', () => {
  const { warnings } = loadConfig({
    CARILLON_PORT: '1',
    CARILLON_KEEP_EVENT: '3',
    CARILLON_NONSENSE: '',
    CARILLON_URL: 'http://x',
  })
  assert.deepEqual(warnings, [
    'CARILLON_KEEP_EVENT is not a setting; did you mean CARILLON_KEEP_EVENTS?',
    'CARILLON_NONSENSE is not a setting',
    'CARILLON_PORT is not a setting; did you mean PORT?',
  ])
})

test('flags win over variables, variables over defaults, and an empty variable is none', () => {
  assert.equal(loadConfig({ PORT: '5000' }, ['--port', '6000']).http.port, 6000)
  assert.equal(loadConfig({ PORT: '5000' }, ['--port=0']).http.port, 0)
  assert.equal(loadConfig({ PORT: '' }).http.port, 4400)
  assert.equal(loadConfig({ DATABASE_URL: '' }).mode, 'embedded')
  assert.match(problems({}, ['--port']).join(), /--port needs a value/)
})

test('roles: single channels, several flags, and nonsense', () => {
  const roles = (...argv: string[]) => loadConfig(SERVER, argv).process.roles
  assert.deepEqual(roles('--role', 'deliver:email,sms', '--role', 'plan'), {
    api: false,
    plan: true,
    schedule: false,
    deliver: ['email', 'sms'],
    names: ['deliver:email', 'deliver:sms', 'plan'],
  })
  assert.deepEqual(roles('--role', 'api').deliver, [])
  assert.deepEqual(roles('--role', 'deliver').deliver, CHANNELS)
  for (const role of ['email', 'deliver:fax', 'api:email', 'plan,sms', ',']) {
    assert.match(problems(SERVER, ['--role', role]).join(), /^--role: /, role)
  }
})

test('settings that contradict each other are refused', () => {
  assert.match(problems({ SMTP_HOST: 'mail' }).join(), /SMTP_FROM is required/)
  assert.match(problems({ SMTP_USERNAME: 'me' }).join(), /belong together/)
  assert.match(problems({ CARILLON_KEEP_FEED: '91' }).join(), /CARILLON_KEEP_FEED/)
  assert.match(problems({ CARILLON_KEEP_ATTEMPTS: '89' }).join(), /CARILLON_KEEP_ATTEMPTS/)
  assert.match(problems({ PORT: '4425' }).join(), /PORT and MAILBOX_PORT/)
  assert.match(
    problems({ JWT_PUBLIC_KEY: '{"kty":"EC"}', JWKS_URL: 'https://issuer/keys' }).join(),
    /use one/,
  )
})

test('a private key is not taken for a public one', () => {
  assert.match(problems({ JWT_PUBLIC_KEY: '{"kty":"EC","d":"x"}' }).join(), /private key/)
  assert.match(problems({ JWT_PUBLIC_KEY: '-----BEGIN PRIVATE KEY-----' }).join(), /private key/)
})

test('whatever the variables hold, they are read or refused by name, never anything else', () => {
  const names = listSettings().map(one => one.name)
  fc.assert(
    fc.property(fc.dictionary(fc.constantFrom(...names), fc.string(), { maxKeys: 5 }), env => {
      try {
        loadConfig(env)
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error))
        for (const problem of error.problems) assert.match(problem, /^[A-Z_]+\b/)
      }
    }),
  )
})

test('sizes, switches, ratios and origins in the forms people write', () => {
  const config = loadConfig({
    CARILLON_BODY_LIMIT: '2mb',
    CARILLON_METRICS_PUBLIC: 'Yes',
    OTEL_TRACES_SAMPLER_ARG: '0.25',
    CORS_ORIGINS: 'https://App.example.org/, http://localhost:3000',
    OUTBOUND_ALLOW: '10.0.0.0/8, 192.0.2.7, ::1',
    PUBLIC_URL: 'https://example.org/notify/',
    SMTP_SECURE: 'true',
  })
  assert.equal(config.http.bodyLimitBytes, 2 * 1024 * 1024)
  assert.equal(config.http.metricsPublic, true)
  assert.equal(config.observe.sampleRatio, 0.25)
  assert.deepEqual(config.http.corsOrigins, ['https://app.example.org', 'http://localhost:3000'])
  assert.deepEqual(config.outbound.allow, ['10.0.0.0/8', '192.0.2.7/32', '::1/128'])
  assert.equal(config.http.publicUrl, 'https://example.org/notify')
  assert.equal(config.smtp.security, 'tls')
  for (const [name, value] of [
    ['OTEL_TRACES_SAMPLER_ARG', '1.5'],
    ['OTEL_TRACES_SAMPLER_ARG', 'NaN'],
    ['CORS_ORIGINS', 'https://example.org/path'],
    ['PUBLIC_URL', 'https://user:pass@example.org'],
    ['SMTP_FROM', 'a@b\r\nBcc: c@d'],
    ['CARILLON_METRICS_PUBLIC', 'maybe'],
  ] as const) {
    assert.match(problems({ [name]: value }).join(), new RegExp(`^${name}: `))
  }
})

test('no two settings share a variable or flag, and every default is its own reading', () => {
  const all = listSettings()
  assert.equal(new Set(all.map(one => one.name)).size, all.length)
  const flags = all.flatMap(one => one.flag ?? [])
  assert.equal(new Set(flags).size, flags.length)
  for (const one of all) {
    if (typeof one.fallback === 'number' || typeof one.fallback === 'boolean') {
      assert.deepEqual(one.read(one.shown), one.fallback, one.name)
    }
  }
})
