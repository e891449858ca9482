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

test('the page asks about tracking where somebody tracks, and what it is told holds', async () => {
  const link = await linkOf('tia', 'pt')
  const box = async () => /name="tracking" value="on"( checked)?/.exec(await (await fetch(link)).text())
  // Nobody is asked about what nobody does.
  assert.equal(await box(), null)
  const put = await t.call('PUT', '/api/preferences/defaults/opinions', {
    as: t.tenant.adminKey,
    body: { scope: 'tracking:opens', mode: 'OPTED_IN' },
  })
  assert.equal(put.status, 200, put.text)
  assert.equal((await box())![1], ' checked')
  const answer = await fetch(link, {
    method: 'POST',
    redirect: 'manual',
    body: new URLSearchParams({ all: 'on', quietFrom: '22:00', quietUntil: '08:00', summary: 'INSTANT' }),
  })
  assert.equal(answer.status, 303)
  assert.equal((await box())![1], undefined)
  const { items } = (await t.call('GET', '/api/users/tia/consents', { as: t.tenant.adminKey })).body
  assert.ok(
    items.some((one: Loose) => one.subject === 'tracking:opens:email' && one.newValue.enabled === false),
  )
})

// covers: AUR-183
test('the pages are for everybody: contrast, names, focus, size, one column, in light and dark, without a script', {
  skip: need('chromium'),
}, async () => {
  const locales = { uma: 'en', ulf: 'pt-BR', uli: 'zh' }
  const links = await Promise.all(Object.entries(locales).map(([user, locale]) => linkOf(user, locale)))
  const browser = await chromium.launch({ executablePath: commandPath('chromium')!, args: ['--no-sandbox'] })
  try {
    for (const colorScheme of ['light', 'dark'] as const) {
      // WCAG 2.2, 1.4.10: 320 CSS pixels wide.
      const context = await browser.newContext({
        javaScriptEnabled: false,
        colorScheme,
        viewport: { width: 320, height: 640 },
      })
      const page = await context.newPage()
      for (const [at, link] of links.entries()) {
        for (const url of [link, link.replace(/\/preferences$/, '')]) {
          await page.goto(url)
          const where = `${url} ${colorScheme}`
          assert.equal(await page.locator('html').getAttribute('lang'), ['en', 'pt', 'zh'][at], where)
          assert.ok((await page.title()).length > 0)
          assert.equal(await page.locator('h1').count(), 1)
          const found = await page.evaluate<Looked>(LOOK)
          // 1.4.3: 4.5 to 1 for text.
          assert.ok(found.texts.length > 3)
          for (const { text, ratio } of found.texts) assert.ok(ratio >= 4.5, `${where} "${text}" ${ratio}`)
          // 2.5.8 asks for 24 by 24 pixels; ours are 44 high.
          for (const { name, height } of found.targets)
            assert.ok(height >= 43.5, `${where} ${name} ${height}`)
          assert.ok(found.width <= 320, `${where} is ${found.width} wide`)
          // 2.4.7: what has the focus shows it; every target can have it.
          for (let n = 0; n < found.targets.length; n++) {
            await page.keyboard.press('Tab')
            const outline = await page.evaluate<{ element: string; wide: string }>(FOCUS)
            assert.doesNotMatch(outline.element, /^BODY/, where)
            assert.equal(outline.wide, '3px', `${where} ${outline.element}`)
          }
        }
      }
      await context.close()
    }
  } finally {
    await browser.close()
  }
})

interface Looked {
  texts: { text: string; ratio: number }[]
  targets: { name: string; height: number }[]
  width: number
}

/** Run in the page. The element with the focus, and its outline. */
const FOCUS = `(() => {
  const style = getComputedStyle(document.activeElement)
  return {
    element: document.activeElement.tagName + ' ' + (document.activeElement.type ?? ''),
    wide: style.outlineStyle === 'none' ? '0' : style.outlineWidth,
  }
})()`

/** Run in the page. The contrast of each text by WCAG's formula, what can be pressed, how wide it all is. */
const LOOK = `(() => {
  const numbers = color => (color.match(/[\\d.]+/g) ?? []).map(Number)
  const luminance = parts => {
    const [r, g, b] = parts.slice(0, 3).map(part => {
      const c = part / 255
      return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
    })
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
  }
  const backgroundOf = element => {
    for (let one = element; one; one = one.parentElement) {
      const color = numbers(getComputedStyle(one).backgroundColor)
      if (color.length === 3 || color[3] > 0) return color
    }
    throw new Error('no background')
  }
  const texts = []
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const text = node.textContent.trim()
    if (text === '') continue
    const over = luminance(numbers(getComputedStyle(node.parentElement).color))
    const under = luminance(backgroundOf(node.parentElement))
    texts.push({ text, ratio: (Math.max(over, under) + 0.05) / (Math.min(over, under) + 0.05) })
  }
  const targets = Array.from(document.querySelectorAll('label, button, a'), element => ({
    name: element.textContent.trim(),
    height: element.getBoundingClientRect().height,
  }))
  return { texts, targets, width: document.documentElement.scrollWidth }
})()`
