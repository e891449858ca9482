import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { parse } from 'yaml'
import { AppError } from '../errors.ts'
import { compileFolder, readFolder } from './files.ts'
import { type Report, readStory, runStory } from './story.ts'

async function folder(t: TestContext, files: Record<string, string>) {
  const dir = await mkdtemp(join(tmpdir(), 'carillon-rules-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  for (const [file, text] of Object.entries(files)) {
    await mkdir(dirname(join(dir, file)), { recursive: true })
    await writeFile(join(dir, file), text)
  }
  return readFolder(dir)
}

const RAIN = {
  'templates/rain.yaml': `
name: rain
channels:
  default: { subject: 'Rain in {{data.city}}', body: 'Take an umbrella, {{user.id}}.' }
`,
  'rules/weather.yaml': `
name: Rain alert
eventTypes: [weather.rain]
eventPattern: event.data.chance >= 0.7
channels: [in_app, email]
recipientSelector: { topics: [weather] }
templateId: rain
policy: { cooldown: { seconds: 3600 } }
---
name: News
eventTypes: [news.*]
channels: [email]
recipientSelector: { groups: [readers] }
policy: { digest: { windowSeconds: 600 } }
`,
}

async function run(t: TestContext, story: string, files: Record<string, string> = RAIN): Promise<Report> {
  const compiled = await compileFolder(await folder(t, files))
  assert.deepEqual(compiled.problems, [])
  return runStory(readStory(parse(story), 'story'), compiled)
}

// covers: AUR-089, AUR-090
test('quiet hours, a cooldown and a pattern, under a clock of the story', async t => {
  const report = await run(
    t,
    `
start: 2026-11-21T21:30:00Z
users:
  ana:
    timezone: Europe/Berlin
    addresses: { email: ana@example.org }
    topics: { weather: ALL }
    preferences: [{ quietHours: { enabled: true, start: '22:00', end: '07:00' } }]
  bob: { topics: { weather: ALL } }
events:
  - { type: weather.rain, data: { city: Berlin, chance: 0.5 } }
  - { at: +1m, type: weather.rain, data: { city: Berlin, chance: 0.9 } }
  - { at: +30m, type: weather.rain, data: { city: Berlin, chance: 0.9 } }
expect:
  - { to: ana, channel: in_app, at: +1m, subject: Rain in Berlin, body: '/umbrella, ana\\.$/' }
  - { to: ana, channel: email, at: '2026-11-22T07:00:00+01:00', rule: Rain alert }
  - { to: bob, channel: in_app, at: +1m }
  - { to: bob, channel: email, not: missing_address }
  - { to: ana, channel: email, not: cooldown }
  - { to: ana, channel: sms, not: true }
`,
  )
  assert.deepEqual(report.failures, [])
})

test('what is collected leaves with its digest, which is decided anew; one alone leaves as itself', async t => {
  const story = (events: number) => `
users:
  ana:
    addresses: { email: ana@example.org }
    groups: [readers]
events:
${Array.from({ length: events }, (_, i) => `  - { at: +${i}m, type: news.tech, data: { title: 'Part ${i + 1}' } }`).join('\n')}
expect: []
`
  const three = await run(t, story(3))
  assert.deepEqual(
    three.told.map(said => [said.at.toISOString(), said.content.subject, said.items]),
    [['2026-01-05T12:10:00.000Z', '3 notifications', 3]],
  )
  const one = await run(t, story(1))
  assert.deepEqual(
    one.told.map(said => [said.at.toISOString(), said.content.subject, said.items]),
    [['2026-01-05T12:10:00.000Z', 'Part 1', undefined]],
  )
  const later = await run(t, story(11))
  assert.deepEqual(
    later.told.map(said => [said.at.toISOString(), said.items]),
    [
      ['2026-01-05T12:10:00.000Z', 10],
      ['2026-01-05T12:20:00.000Z', undefined],
    ],
  )
})

test('a failure says what was expected, what there was, and why not', async t => {
  const { passed, failures } = await run(
    t,
    `
users:
  ana: { topics: { weather: ALL } }
events:
  - { type: weather.rain, data: { city: Rom, chance: 1 } }
expect:
  - { to: ana, channel: email }
  - { to: ana, channel: in_app, subject: Rain in Wien }
  - { to: ana, channel: in_app, not: true }
  - { to: ana, not: quiet_hours }
`,
  )
  assert.equal(passed, false)
  assert.deepEqual(
    failures.map(failure => failure.split('\n')[0]!.split(':')[0]),
    ['missing', 'missing', 'should not be', 'missing "no"', 'unexpected'],
  )
  assert.match(failures[0]!, /not told: email weather\.rain: missing_address/)
  assert.match(failures[1]!, /there was in_app to ana at .* by "Rain alert": Rain in Rom; other subject/)
})

test('a folder with mistakes names each with its file, line and field', async t => {
  const found = await folder(t, {
    'rules/a.yaml': `name: A\nchannels: [email]\nrecipientSelector: { users: [x] }\neventPattern: 'event.data.x >'\n---\nname: B\nchannels: [pigeon]\nrecipientSelector: { users: [x] }\n`,
    'rules/b.yaml': 'name: [\n',
    'rules/c.yaml': `name: C\nchannels: [email]\nrecipientSelector: { users: [x] }\ntemplateId: nowhere\n---\nname: A\nchannels: [email]\nrecipientSelector: { users: [x] }\n`,
    'templates/t.yaml': `name: T\nchannels: { default: { body: '{{#if x}}' } }\n`,
    'notes.yaml': 'a: 1\n',
  })
  const problems = [...found.problems, ...(await compileFolder(found)).problems]
  assert.deepEqual(problems.map(({ file, line, field }) => `${file}:${line} ${field}`).sort(), [
    'notes.yaml:1 ',
    'rules/a.yaml:1 /eventPattern',
    'rules/a.yaml:6 /channels/0',
    'rules/b.yaml:2 ',
    'rules/c.yaml:1 /templateId',
    'rules/c.yaml:6 /name',
    'templates/t.yaml:1 /channels/default/body',
  ])
})

test('a story with mistakes names the field', () => {
  const field = (text: string) => {
    try {
      readStory(parse(text), 's')
      return 'nothing'
    } catch (error) {
      assert.ok(error instanceof AppError)
      return error.errors?.[0]?.field
    }
  }
  assert.deepEqual(
    [
      field('user: {}'),
      field('users: { a: { timezone: Mars/Base } }'),
      field('users: { a: { preferences: [{ quietHours: { start: "25:00", end: "07:00" } }] } }'),
      field('events: [{ at: soon, type: x }]'),
      field('events: [{ data: {} }]'),
      field('expect: [{ channel: email }]'),
      field('expect: [{ to: a, channel: pigeon }]'),
    ],
    [
      '/user',
      '/users/a/timezone',
      '/users/a/preferences/0/quietHours/start',
      '/events/0/at',
      '/events/0/type',
      '/expect/0/to',
      '/expect/0/channel',
    ],
  )
})

test('the folder of the guide is valid, and its story holds', async t => {
  const guide = readFileSync(new URL('../../docs/guides/rules-as-code.md', import.meta.url), 'utf8')
  const blocks = [...guide.matchAll(/^```yaml\n# (\S+)\n([\s\S]*?)^```$/gm)]
  assert.equal(blocks.length, 3)
  const found = await folder(t, Object.fromEntries(blocks.map(([, file, text]) => [file!, text!])))
  const compiled = await compileFolder(found)
  assert.deepEqual([found.problems, compiled.problems], [[], []])
  const [file] = found.stories
  const report = await runStory(readStory(file!.story, file!.file), compiled)
  assert.deepEqual(report.failures, [])
})

test('texts of a folder say its messages, in the language of whoever reads; what nobody says is named', async t => {
  const files = {
    'messages/en.yaml': 'locale: en\nmessages: { rain: "Rain in {city}" }',
    'messages/others.yaml':
      'locale: de_at\nmessages: { rain: "Regn in {city}" }\n---\nlocale: de\nmessages: { rain: "Regen in {city}" }',
    'templates/rain.yaml': `name: rain\nchannels: { default: { body: '{{t "rain" city=data.city}}' } }`,
    'rules/rain.yaml':
      'name: rain\neventTypes: [rain]\nchannels: [in_app]\nrecipientSelector: { users: [ana, ben, cas] }\ntemplateId: rain',
  }
  const report = await run(
    t,
    `
users: { ana: { locale: de-CH }, ben: { locale: de-AT }, cas: { locale: ja } }
events: [{ type: rain, data: { city: Linz } }]
expect:
  - { to: ana, body: Regen in Linz }
  - { to: ben, body: Regn in Linz }
  - { to: cas, body: Rain in Linz }
`,
    files,
  )
  assert.deepEqual(report.failures, [])
  const wrong = await compileFolder(
    await folder(t, {
      ...files,
      'messages/en.yaml': 'locale: en\nmessages: { rain: "{n, plural, one {" }',
      'messages/no.yaml': 'locale: "no language-"\nmessages: {}',
      'templates/other.yaml': `name: other\nchannels: { default: { body: '{{t "sun"}}' } }`,
    }),
  )
  assert.deepEqual(
    wrong.problems.map(({ file, field }) => [file, field]),
    [
      ['messages/en.yaml', '/messages/rain'],
      ['messages/no.yaml', '/locale'],
      ['templates/other.yaml', '/channels/default/body'],
    ],
  )
})

test('limits, silences and inhibitions of the folder hold in its stories', async t => {
  const files = {
    'rules/ops.yaml': `
name: Ops
eventTypes: [ops.*]
channels: [email]
recipientSelector: { users: [ana] }
`,
    'limits/mails.yaml':
      'name: Two a day\nscope: user\nchannels: [email]\nmax: 2\nwindow: day\noverflow: skip\n',
    'silences/disks.yaml': `
comment: The disks are being exchanged
author: ops
matchers: [{ name: data.disk, value: sda }]
endsAt: 2026-01-05T13:00:00Z
`,
    'inhibitions/critical.yaml': `
name: Critical covers warning
sourceMatchers: [{ name: severity, value: critical }]
targetMatchers: [{ name: severity, value: warning }]
equal: [host]
`,
  }
  const report = await run(
    t,
    `
users: { ana: { addresses: { email: ana@example.org } } }
events:
  - { type: ops.disk, data: { title: Silenced, disk: sda } }
  - { at: +1m, type: ops.alert, data: { title: Down, fingerprint: c, status: firing, labels: { severity: critical, host: a } } }
  - { at: +2m, type: ops.alert, data: { title: Slow, fingerprint: w, status: firing, labels: { severity: warning, host: a } } }
  - { at: +3m, type: ops.alert, data: { title: Up, fingerprint: c, status: resolved, labels: { severity: critical, host: a } } }
  - { at: +2h, type: ops.disk, data: { title: The third, disk: sda } }
expect:
  - { to: ana, subject: Down, at: +1m }
  - { to: ana, subject: Up, at: +3m }
  - { to: ana, not: silenced }
  - { to: ana, not: inhibited }
  - { to: ana, not: over_limit }
`,
    files,
  )
  assert.deepEqual(report.failures, [])
})

test('limits, silences and inhibitions with mistakes are named by file and field', async t => {
  const found = await folder(t, {
    'limits/a.yaml': 'name: A\nscope: user\nmax: -1\nwindow: day\n---\nname: B\nscope: user\nwindow: gap\n',
    'silences/a.yaml': `comment: C\nauthor: x\nendsAt: 2026-01-05T13:00:00Z\nmatchers: [{ name: x, op: '=~', value: '[' }]\n`,
    'inhibitions/a.yaml': `name: D\nsourceMatchers: [{ name: x, value: y }]\ntargetMatchers: [{ name: data.x, value: y }]\n`,
    'rules/a.yaml': `name: E\nchannel: [email]\nchannels: [email]\nrecipientSelector: { users: [x] }\npolicy: { group: {} }\n`,
  })
  const { problems } = await compileFolder(found)
  assert.deepEqual(
    problems.map(({ file, line, field }) => `${file}:${line} ${field}`),
    [
      'rules/a.yaml:1 /channel',
      'limits/a.yaml:1 /max',
      'limits/a.yaml:6 /gapSeconds',
      'silences/a.yaml:1 /matchers/0/value',
      'inhibitions/a.yaml:1 /targetMatchers/0/name',
    ],
  )
})

test('groups in stories: wait, interval, told again while something fires, over when nothing does', async t => {
  const alert = (at: string, name: string, status = 'firing') =>
    `  - { at: ${at}, type: ops.alert, data: { title: ${name} is ${status}, fingerprint: ${name}, status: ${status}, labels: { cluster: a } } }`
  const report = await run(
    t,
    `
users: { ana: { addresses: { email: ana@example.org } } }
events:
${[
  alert('+0s', 'Disk'),
  alert('+10s', 'Load'),
  alert('+60s', 'Cpu'),
  alert('+2h', 'Disk', 'resolved'),
  alert('+2h', 'Cpu', 'resolved'),
  alert('+4h', 'Load', 'resolved'),
  alert('+245m', 'Late'),
].join('\n')}
expect:
  - { to: ana, at: +30s, items: 2, body: Load is firing }
  - { to: ana, at: +330s, subject: Cpu is firing }
  # An hour after the last message, all three still fire.
  - { to: ana, at: +3930s, items: 3, body: Disk is firing }
  - { to: ana, at: +7230s, items: 2, body: Cpu is resolved }
  - { to: ana, at: +10830s, subject: Load is firing }
  - { to: ana, at: +14430s, subject: Load is resolved }
  # The group was over, so it waits as a new one does.
  - { to: ana, at: +14730s, subject: Late is firing }
`,
    {
      'rules/ops.yaml': `
name: Ops
eventTypes: [ops.*]
channels: [email]
recipientSelector: { users: [ana] }
policy: { group: { by: [event.data.labels.cluster], waitSeconds: 30, intervalSeconds: 300, repeatSeconds: 3600 } }
`,
    },
  )
  assert.deepEqual(report.failures, [])
})
