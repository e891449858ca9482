import assert from 'node:assert/strict'
import { test } from 'node:test'
import { LANGUAGES, STATES, WORDS, languageOf, say } from './words.ts'
import { type Loose, eventually, testApp } from '../test/app.ts'

test('every reason has a sentence in every language, and no blank is left in any', () => {
  const at = new Date('2026-11-22T06:00:00Z')
  for (const [reason, said] of [...Object.entries(WORDS), ...Object.entries(STATES)]) {
    for (const language of LANGUAGES) {
      const whole = say(said, { locale: language, timezone: 'Europe/Berlin', channel: 'sms', at })
      const timeless = say(said, { locale: language, timezone: 'UTC', channel: 'sms' })
      for (const text of [whole, timeless]) {
        assert.ok(text.length > 4, `${reason} ${language}`)
        assert.doesNotMatch(text, /[{}]|undefined| {2}| \./, `${reason} ${language}: ${text}`)
      }
      if (said[language].includes('{time}'))
        assert.match(whole, /7:00|07:00/, `${reason} ${language}: ${whole}`)
    }
    assert.equal(
      new Set(LANGUAGES.map(language => said[language])).size,
      LANGUAGES.length,
      `${reason} is translated`,
    )
  }
})

test('the language of a reader, and what is not ours, reads English', () => {
  assert.deepEqual(['pt-BR', 'zh_CN', 'EN', 'de', ''].map(languageOf), ['pt', 'zh', 'en', 'en', 'en'])
})

test('people learn in their own words why something waits, came, or did not come; and only their own', async t => {
  const carillon = await testApp()
  t.after(() => carillon.stop())
  const admin = async (method: string, path: string, body?: unknown): Promise<Loose> => {
    const answer = await carillon.call(method, path, { as: carillon.tenant.adminKey, body })
    assert.ok(answer.status < 300, answer.text)
    return answer.body
  }
  // Noon is quiet time for Ana, all day long but for one minute that is over when the test begins.
  await admin('PUT', '/api/users/ana', {
    locale: 'pt-BR',
    timezone: 'America/Sao_Paulo',
    addresses: [{ channel: 'email', address: 'ana@example.org', verified: true }],
  })
  const start = new Date(Date.now() - 60 * 60_000)
  const clock = (date: Date) => date.toISOString().slice(11, 16)
  await admin('PUT', '/api/preferences/ana/quiet-hours', {
    enabled: true,
    startTime: clock(start),
    endTime: clock(new Date(start.getTime() + 12 * 3_600_000)),
    timezone: 'UTC',
  })
  const sent = await admin('POST', '/api/notifications', {
    recipientId: 'ana',
    channels: ['in_app', 'email', 'webhook'],
    body: 'Olá',
  })
  const ana = await carillon.tenant.token('ana')
  const ask = async (query: string, as = ana) => carillon.call('GET', `/api/me/explain?${query}`, { as })
  const own = await eventually('the answer', async () => {
    const answer = await ask(`notification=${sent.id}`)
    return answer.status === 200 && answer.body
  })
  assert.equal(own.language, 'pt')
  const said = Object.fromEntries(own.channels.map((one: Loose) => [one.channel, one]))
  assert.deepEqual(
    [said.in_app.state, said.email.state, said.email.reason, said.webhook.state, said.webhook.reason],
    ['delivered', 'waiting', 'quiet_hours', 'not_sent', 'missing_address'],
  )
  assert.match(said.email.text, /^Espera o fim do seu horário de silêncio e chegará por e-mail às /)
  assert.ok(Date.parse(said.email.at) > Date.now())
  assert.equal(said.webhook.text, 'Não há um endereço seu para webhook.')
  assert.doesNotMatch(JSON.stringify(own), /rule|recipient/i)

  const event = await admin('POST', '/api/events/publish', { type: 'shop.nobody', data: {} })
  const nothing = await ask(`event=${event.eventId}`)
  assert.deepEqual(
    [nothing.body.channels, nothing.body.text],
    [[], 'Isto não se destinava a você; nada foi enviado.'],
  )

  const eve = await carillon.tenant.token('eve')
  assert.equal((await ask(`notification=${sent.id}`, eve)).status, 404)
  assert.equal((await ask('', ana)).status, 400)
  assert.equal((await ask(`notification=${sent.id}`, carillon.tenant.adminKey)).status, 403)
})
