import assert from 'node:assert/strict'
import { generateKeyPairSync } from 'node:crypto'
import { test } from 'node:test'
import { loadConfig } from '../server/config.ts'
import { type Lookup, mailDns } from './mail-dns.ts'

const { privateKey, publicKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
const PEM = privateKey.export({ type: 'pkcs8', format: 'pem' }) as string
const P = publicKey.export({ type: 'spki', format: 'der' }).toString('base64')

async function findings(txt: Record<string, string[]>, environment: Record<string, string> = {}) {
  const asked: string[] = []
  const lookup: Lookup = {
    async txt(name) {
      asked.push(name)
      return txt[name] ?? []
    },
    mx: async name => (name === 'mail.shop.example' ? ['mx.shop.example'] : []),
  }
  const config = loadConfig({
    SMTP_HOST: 'localhost',
    SMTP_FROM: 'Shop <hello@shop.example>',
    ...environment,
  })
  const found = await mailDns(config, lookup)
  return { states: Object.fromEntries(found.map(({ name, state }) => [name, state])), found, asked }
}
const SIGNING = { SMTP_DKIM_SELECTOR: 's1', SMTP_DKIM_KEY: PEM }
const GOOD = {
  'shop.example': ['some other record', 'v=spf1 include:provider.example -all'],
  's1._domainkey.shop.example': [`v=DKIM1; k=rsa; p=${P.slice(0, 100)} ${P.slice(100)}`],
  '_dmarc.shop.example': ['v=DMARC1; p=reject'],
}

test('records that hold are fine, and a published key is compared with the one that signs', async () => {
  assert.deepEqual((await findings(GOOD, SIGNING)).states, { spf: 'ok', dkim: 'ok', dmarc: 'ok' })
  const other = generateKeyPairSync('rsa', { modulusLength: 1024 }).publicKey.export({
    type: 'spki',
    format: 'der',
  })
  const changed = { ...GOOD, 's1._domainkey.shop.example': [`v=DKIM1; p=${other.toString('base64')}`] }
  const { states, found } = await findings(changed, SIGNING)
  assert.equal(states.dkim, 'fail')
  assert.ok(found.find(({ name }) => name === 'dkim')!.advice!.includes(P))
  assert.ok(!JSON.stringify(found).includes('PRIVATE'))
  assert.equal((await findings(GOOD)).states.dkim, 'ok')
})

test('what is missing, double or open to everybody is said, with what to publish', async () => {
  const { states, found } = await findings({}, SIGNING)
  assert.deepEqual(states, { spf: 'warn', dkim: 'fail', dmarc: 'warn' })
  assert.ok(found.every(({ advice }) => advice!.includes('TXT')))
  const spf = async (...records: string[]) => (await findings({ 'shop.example': records })).states.spf
  assert.equal(await spf('v=spf1 -all', 'v=spf1 ~all'), 'fail')
  assert.equal(await spf('v=spf1 +all'), 'fail')
  assert.equal(await spf('v=spf1 all'), 'fail')
  assert.equal(await spf('v=spf10 -all'), 'warn')
})

test('the record of the organisation stands for names below it', async () => {
  const { states, asked } = await findings(GOOD, { SMTP_FROM: 'a@news.eu.shop.example' })
  assert.equal(states.dmarc, 'ok')
  assert.ok(asked.includes('_dmarc.news.eu.shop.example') && !asked.includes('_dmarc.example'))
})

test('bounces elsewhere take SPF away from DMARC; below the domain they do not', async () => {
  const elsewhere = await findings(GOOD, { CARILLON_BOUNCE_ADDRESS: 'b@other.example' })
  assert.deepEqual(
    [elsewhere.states.dmarc, elsewhere.states.bounces, elsewhere.states.spf],
    ['warn', 'warn', 'warn'],
  )
  const below = await findings(GOOD, { CARILLON_BOUNCE_ADDRESS: 'b@mail.shop.example' })
  assert.deepEqual([below.states.dmarc, below.states.bounces], ['ok', 'ok'])
})
