import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { chromium } from 'playwright-core'
import { commandPath, need } from '../../scripts/needs.ts'
import { type Loose, type TestApp, eventually, testApp } from '../test/app.ts'

let t: TestApp
before(async () => {
  t = await testApp()
})
after(() => t.stop())

/** The link of a mail that really went out, on this server. */
async function linkOf(userId: string, locale: string): Promise<string> {
  const { status, text } = await t.call('PUT', `/api/users/${userId}`, {
    as: t.tenant.adminKey,
    body: { locale, addresses: [{ channel: 'email', address: `${userId}@example.org`, verified: true }] },
  })
  assert.equal(status, 201, text)
  await t.call('POST', '/api/notifications', {
    as: t.tenant.adminKey,
    body: { recipientId: userId, channels: ['email'], body: 'x' },
  })
  const mail = await eventually('the mail', async () => {
    const { items } = (await t.call('GET', '/dev/mailbox.json')).body
    const found = items.find((one: Loose) => JSON.stringify(one.to).includes(`${userId}@`))
    return found && (await t.call('GET', `/dev/mailbox.json/${found.id}`)).body
  })
  const token = /\/u\/([\w-]+)/.exec(JSON.stringify(mail))![1]!
  return `${t.url}/u/${token}/preferences`
}
const preferences = async (userId: string): Promise<Loose> =>
  (await t.call('GET', `/api/preferences/${userId}`, { as: t.tenant.adminKey })).body

test('the page shows and takes choices without a script, with a keyboard, in the language of its reader', {
  skip: need('chromium'),
}, async () => {
  const link = await linkOf('pia', 'pt-BR')
  const browser = await chromium.launch({ executablePath: commandPath('chromium')!, args: ['--no-sandbox'] })
  try {
    const context = await browser.newContext({ javaScriptEnabled: false })
    const page = await context.newPage()
    await page.goto(link)
    assert.equal(await page.locator('html').getAttribute('lang'), 'pt')
    assert.equal(await page.title(), 'O que você recebe, e como')
    // Every field has a name that a screen reader says, and every group its legend.
    for (const field of await page.locator('input').all()) {
      const label = await field.locator('xpath=ancestor::label').innerText()
      assert.ok(label.trim().length > 0)
    }
    assert.equal(await page.locator('fieldset').count(), await page.locator('legend').count())

    await page.getByLabel('E-mail').focus()
    await page.keyboard.press('Space')
    await page.getByLabel('Não me perturbe neste horário').focus()
    await page.keyboard.press('Space')
    await page.getByLabel('Um resumo por dia').focus()
    await page.keyboard.press('Space')
    await page.getByRole('button', { name: 'Salvar' }).focus()
    await page.keyboard.press('Enter')
    await page.getByRole('status').waitFor()
    assert.equal(await page.getByRole('status').innerText(), 'Suas escolhas foram salvas.')
    assert.equal(await page.getByLabel('E-mail').isChecked(), false)
  } finally {
    await browser.close()
  }
  const saved = await preferences('pia')
  assert.deepEqual(
    [
      saved.channels.email.enabled,
      saved.quietHours.enabled,
      saved.frequency.digestEnabled,
      saved.frequency.digestFrequency,
    ],
    [false, true, true, 'DAILY'],
  )
})

test('a choice about advertising leaves a receipt; what was not touched stays the default', async () => {
  const link = await linkOf('max', 'en')
  const form = (more: Record<string, string>) =>
    fetch(link, {
      method: 'POST',
      redirect: 'manual',
      body: new URLSearchParams({ quietFrom: '22:00', quietUntil: '08:00', summary: 'INSTANT', ...more }),
    })
  const kinds = { 'class.transactional': 'on', 'class.alerts': 'on', 'class.social': 'on' }
  const answer = await form({
    all: 'on',
    'channel.inApp': 'on',
    'channel.email': 'on',
    'class.marketing': 'on',
    ...kinds,
  })
  assert.deepEqual([answer.status, answer.headers.get('location')], [303, '?saved'])
  const { items } = (await t.call('GET', '/api/users/max/consents', { as: t.tenant.adminKey })).body
  assert.ok(items.some((one: Loose) => /class:marketing/.test(one.subject) && one.newValue.enabled === true))
  assert.ok(
    items.every((one: Loose) => one.origin === 'preference page' && /class:marketing/.test(one.subject)),
  )

  assert.equal((await form({ quietFrom: '25:00' })).status, 400)
  assert.equal((await form({ summary: 'SOMETIMES' })).status, 400)
  assert.equal((await fetch(link.replace('/u/', '/u/x'))).status, 404)
  const page = await fetch(link)
  assert.match(page.headers.get('content-security-policy')!, /default-src 'none'/)
  assert.doesNotMatch(await page.text(), /max@example|<script/)
})
