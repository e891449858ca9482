import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { loadConfig } from '../config.ts'
import { AppError } from '../errors.ts'
import { configuredProviders, readProvidersFile } from './provider-settings.ts'
import { openProviders } from './set-up.ts'

const dir = mkdtempSync(join(tmpdir(), 'carillon-providers-'))
after(() => rmSync(dir, { recursive: true, force: true }))
const fileOf = (text: string): string => {
  const file = join(dir, 'providers.yaml')
  writeFileSync(file, text)
  return file
}
const configured = (env: Record<string, string>, publicUrl = 'https://carillon.example') =>
  configuredProviders(loadConfig({ CARILLON_DATA_DIR: dir, ...env }).providers, publicUrl, env)

// covers: DIC-105, DIC-110, DIC-116
test('documented variables set up their provider, those of the file first', () => {
  const found = configured({
    CARILLON_PROVIDERS_FILE: fileOf('- provider: sns\n  settings: { region: eu-west-1 }\n'),
    SENDGRID_API_KEY: 'SG.key',
    SENDGRID_FROM_EMAIL: 'shop@example.org',
    SENDGRID_FROM_NAME: 'Shop',
    TWILIO_ACCOUNT_SID: 'AC1',
    TWILIO_AUTH_TOKEN: 'token',
    TWILIO_FROM_NUMBER: '+15551234567',
    SLACK_BOT_TOKEN: 'xoxb-1',
    SLACK_WEBHOOK_URL: 'https://hooks.slack.com/services/1',
  })
  assert.deepEqual(
    found.map(({ provider }) => provider),
    ['sns', 'sendgrid', 'twilio', 'slack-bot', 'slack-webhook'],
  )
  assert.deepEqual(found[1]!.settings, { apiKey: 'SG.key', from: 'Shop <shop@example.org>' })
  assert.deepEqual(found[2]!.settings, {
    accountSid: 'AC1',
    authToken: 'token',
    from: '+15551234567',
    statusCallback: 'https://carillon.example/webhooks/twilio',
  })
})

test('vendors are told where to report only where they can reach it, by the name that the provider has here', () => {
  const file = fileOf(`- provider: twilio
  name: twilio-us
  weight: 2
  when: { countries: [US], tenants: [1] }
  settings: { accountSid: AC1 }
- provider: messagebird
  settings: { reportUrl: https://elsewhere.example/hook }
`)
  const [twilio, bird] = configured({ CARILLON_PROVIDERS_FILE: file })
  assert.deepEqual(twilio, {
    provider: 'twilio',
    name: 'twilio-us',
    weight: 2,
    when: { countries: ['US'], tenants: [1] },
    settings: { accountSid: 'AC1', statusCallback: 'https://carillon.example/webhooks/twilio-us' },
  })
  assert.equal(bird!.settings.reportUrl, 'https://elsewhere.example/hook')
  const [local] = configured({ CARILLON_PROVIDERS_FILE: file }, 'http://127.0.0.1:4400')
  assert.equal(local!.settings.statusCallback, undefined)
})

test('secrets come from the environment, at any depth, and a missing one is named', () => {
  const file = fileOf(`- provider: webhook
  settings:
    auth: { type: basic, username: 'a-\${WHO}', password: '\${PASSWORD}' }
    formerSecrets: ['\${OLD}']
`)
  assert.deepEqual(readProvidersFile(file, { WHO: 'me', PASSWORD: 'a${WHO}b', OLD: 'x' })[0]!.settings, {
    // What a variable holds is taken as it is.
    auth: { type: 'basic', username: 'a-me', password: 'a${WHO}b' },
    formerSecrets: ['x'],
  })
  assert.throws(
    () => readProvidersFile(file, { WHO: 'me', PASSWORD: 'hunter2' }),
    (error: unknown) =>
      error instanceof AppError && /OLD/.test(error.message) && !/hunter2/.test(error.message),
  )
})

test('a setting that does not fit is named with its provider, and its value is not', async () => {
  const open = (settings: string) =>
    openProviders({
      config: loadConfig({ CARILLON_DATA_DIR: dir, CARILLON_ROLE: 'api,deliver:sms' }),
      now: () => new Date(),
      more: readProvidersFile(fileOf(`- provider: messagebird\n  name: bird\n  settings: ${settings}`), {}),
    })
  await assert.rejects(open('{ accessKey: abc, originator: Shop, signingkey: hidden }'), {
    message: 'Provider "bird": The settings do not fit: /signingkey is not known',
  })
  await assert.rejects(
    open('{ accessKey: abc, originator: 7 }'),
    /^AppError: Provider "bird": .*\/originator/,
  )
})

test('a file that is no such list is refused with its place', () => {
  for (const [text, message] of [
    ['provider: twilio', /list/],
    ['- settings: {}', /entry 1 names no provider/],
    ['- provider: twilio\n  setings: {}', /setings/],
    ['- provider: twilio\n  settings: []', /entry 1 are a mapping/],
    ['- provider: twilio\n  name: Twilio US', /name of entry 1/],
    ['- provider: twilio\n  weight: 0', /weight of entry 1/],
    ['- provider: twilio\n  when: { country: US }', /entry 1: when: \/country is not known$/],
    ['- [', /./],
  ] as const) {
    assert.throws(() => readProvidersFile(fileOf(text), {}), message, text)
  }
  assert.throws(() => readProvidersFile(join(dir, 'absent.yaml'), {}), AppError)
})
