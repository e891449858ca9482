import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdir, mkdtemp, readFile, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { testApp } from '../server/test/app.ts'

test('push brings a folder to the server, once; pull writes it back as it was; prune switches off', async t => {
  const app = await testApp()
  t.after(() => app.stop())
  const dir = await mkdtemp(join(tmpdir(), 'carillon-push-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  const folder = join(dir, 'mine')
  await mkdir(join(folder, 'rules'), { recursive: true })
  await mkdir(join(folder, 'templates'))
  await writeFile(
    join(folder, 'templates', 'all.yaml'),
    `name: rain\nchannels: { default: { subject: Rain, body: 'In {{data.city}}' } }\n`,
  )
  const rule = (chance: number) => `name: Rain
eventTypes: [weather.rain]
eventPattern: event.data.chance > ${chance}
channels: [in_app, EMAIL]
batchWindow: 5m
recipientSelector: { groups: [walkers] }
templateId: rain
policy: { cooldown: { seconds: 60 } }
`
  await writeFile(join(folder, 'rules', 'rain.yaml'), rule(0.5))

  const carillon = async (...args: string[]) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'carillon.ts'), ...args], {
      env: { ...process.env, CARILLON_URL: app.url, CARILLON_KEY: app.tenant.adminKey },
    })
    let out = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => void (out += chunk))
    const code = await new Promise<number | null>(resolve => child.on('close', resolve))
    return { code, out }
  }

  const before = await carillon('diff', folder)
  assert.equal(before.code, 1, before.out)
  assert.match(before.out, /\+ templates rain[\s\S]*\+ rules Rain[\s\S]*2 to change/)
  const first = await carillon('push', folder)
  assert.equal(first.code, 0, first.out)
  assert.match(first.out, /2 changed/)
  assert.match((await carillon('push', folder)).out, /^Nothing to do\.$/m)
  assert.equal((await carillon('diff', folder)).code, 0)

  await writeFile(join(folder, 'rules', 'rain.yaml'), rule(0.7))
  assert.match(
    (await carillon('diff', folder)).out,
    /~ rules Rain.*\n {4}eventPattern: "event\.data\.chance > 0\.5" → /,
  )
  assert.match((await carillon('push', folder)).out, /1 changed/)

  const copy = join(dir, 'theirs')
  assert.equal((await carillon('pull', copy)).code, 0)
  assert.deepEqual((await readdir(copy, { recursive: true })).sort(), [
    'rules',
    'rules/rain.yaml',
    'templates',
    'templates/rain.yaml',
  ])
  assert.match(await readFile(join(copy, 'rules', 'rain.yaml'), 'utf8'), /templateId: rain\n/)
  assert.match((await carillon('diff', copy)).out, /^Nothing to do\.$/m)

  await rm(join(copy, 'rules', 'rain.yaml'))
  assert.match((await carillon('push', copy)).out, /^Nothing to do\.$/m)
  assert.match((await carillon('push', '--prune', copy)).out, /- rules Rain/)
  const { items } = (await app.call('GET', '/api/rules', { as: app.tenant.adminKey })).body
  assert.deepEqual(
    items.map((one: { name: string; enabled: boolean }) => [one.name, one.enabled]),
    [['Rain', false]],
  )

  // What if? Documents of the folder, one or a list of them.
  const limit = join(dir, 'limit.yaml')
  const silence = join(dir, 'silences.yaml')
  await writeFile(limit, 'name: mails\nscope: user\nmax: 1\nwindow: day\n')
  await writeFile(
    silence,
    `- comment: c\n  author: a\n  endsAt: 2099-01-01T00:00:00Z\n  matchers: [{ name: x, value: y }]\n`,
  )
  const whatIf = await carillon('replay', '--limit', limit, '--silence', silence, '--since', '1h', '--json')
  assert.equal(whatIf.code, 0, whatIf.out)
  assert.deepEqual(JSON.parse(whatIf.out).totals, { new: 0, lost: 0, changed: 0, moved: 0 })
  const wrong = await carillon('replay', '--limit', silence, '--since', '1h')
  assert.equal(wrong.code, 1)
  assert.match(wrong.out, /\/limits\/0\//)

  await writeFile(join(folder, 'rules', 'rain.yaml'), 'name: Rain\nchannels: [pigeon]\n')
  const refused = await carillon('push', folder)
  assert.equal(refused.code, 1)
  assert.match(refused.out, /rules\/rain\.yaml:1 \/channels\/0: /)
})

test('templates of a folder take in each other and the files beside them; a newer layout reaches all of them', async t => {
  const app = await testApp()
  t.after(() => app.stop())
  const dir = await mkdtemp(join(tmpdir(), 'carillon-push-'))
  t.after(() => rm(dir, { recursive: true, force: true }))
  await mkdir(join(dir, 'templates', 'email'), { recursive: true })
  const put = (name: string, text: string) => writeFile(join(dir, 'templates', name), text)
  // Read first, and pushed second.
  await put(
    'a-letter.yaml',
    'name: letter\nchannels: { email: { subject: s, html: { file: email/letter.hbs } } }\n',
  )
  await put('email/letter.hbs', '{{#> brand}}{{> sign}}{{/brand}}')
  await put('brand.yaml', 'name: brand\nchannels: { email: { html: "one {{> @partial-block}}" } }\n')

  const carillon = async (...args: string[]) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'carillon.ts'), ...args], {
      env: { ...process.env, CARILLON_URL: app.url, CARILLON_KEY: app.tenant.adminKey },
    })
    let out = ''
    for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => void (out += chunk))
    const code = await new Promise<number | null>(resolve => child.on('close', resolve))
    return { code, out }
  }
  const said = async (): Promise<string> => {
    const body = { templateId: 'letter', channel: 'email' }
    return (await app.call('POST', '/api/notifications/preview', { as: app.tenant.adminKey, body })).body
      .content.html
  }

  const wrong = await carillon('push', dir)
  assert.equal(wrong.code, 1)
  assert.match(wrong.out, /a-letter\.yaml.*\/channels\/email\/html.*there is no partial "sign"/)
  await put(
    'a-letter.yaml',
    'name: letter\nchannels: { email: { subject: s, html: { file: email/letter.hbs } } }\npartials: { sign: { file: email/nothing.hbs } }\n',
  )
  assert.match((await carillon('validate', dir)).out, /a-letter\.yaml.*\/partials\/sign.*no such file/)
  await put('email/nothing.hbs', 'Yours\n')
  const pushed = await carillon('push', dir)
  assert.match(pushed.out, /\+ templates brand[^]*\+ templates letter[^]*2 changed/)
  assert.equal(await said(), 'one Yours')
  assert.match((await carillon('push', dir)).out, /^Nothing to do\.$/m)

  await put('brand.yaml', 'name: brand\nchannels: { email: { html: "two {{> @partial-block}}" } }\n')
  assert.match((await carillon('push', dir)).out, /~ templates brand[^]*1 changed/)
  assert.equal(await said(), 'two Yours')
  assert.match((await carillon('diff', dir)).out, /^Nothing to do\.$/m)
  const copy = join(dir, 'copy')
  assert.equal((await carillon('pull', copy)).code, 0)
  assert.match(await readFile(join(copy, 'templates', 'letter.yaml'), 'utf8'), /partials:\n {2}sign: Yours\n/)
  assert.match((await carillon('diff', copy)).out, /^Nothing to do\.$/m)
})
