import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { need } from '../../scripts/needs.ts'
import { type Loose, type TestApp, eventually } from './app.ts'
import {
  type TestConsole,
  block,
  frame,
  kinds,
  mailTo,
  newTemplate,
  person,
  publish,
  saved,
  testConsole,
  write,
} from './console-tab.ts'

/** People who have never seen HTML write what is sent, in a real browser, and it is sent. */

const skip = need('chromium')
let opened: TestConsole
let t: TestApp
before(async () => {
  if (skip) return
  opened = await testConsole()
  t = opened.t
})
after(() => opened?.stop())

const published = async (id: string): Promise<Loose> =>
  (await t.call('GET', `/api/templates/${id}`, { as: t.tenant.adminKey })).body

// covers: ALP-143
test('a mail put together from blocks is previewed, published, sent, and opened as blocks again', {
  skip,
}, async () => {
  const { page, wrong, context } = await opened.tab()
  const id = await newTemplate(page, 'order-paid')

  // ---- a list of what was bought
  await page.getByRole('tab', { name: 'Variables' }).click()
  await page.getByRole('button', { name: 'Add a variable' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('name')
  await page.getByRole('button', { name: 'Add a variable' }).click()
  await page.getByRole('textbox', { name: 'Name' }).nth(1).fill('lines')
  await page.getByLabel('Type').nth(1).selectOption('List')
  await page.getByRole('textbox', { name: 'Default' }).nth(1).fill('[{"what":"A sample","price":3}]')

  await page.getByRole('tab', { name: 'Content' }).click()
  await write(page, page.getByRole('textbox', { name: 'Subject' }), 'Thank you, {{name}}')
  await write(page, block(page, 'Heading').getByRole('textbox'), 'Hello {{name}}!')
  await write(page, block(page, 'Text').getByRole('textbox'), 'Your payment of <b> & "more" has come in.')
  await write(page, block(page, 'Button').getByRole('textbox'), 'See the order')
  await write(
    page,
    page.getByRole('textbox', { name: 'Leads to' }),
    'https://shop.example/orders?a=1&id={{data.order}}',
  )

  await page.getByRole('button', { name: 'Add List of items' }).click()
  await page.getByLabel('List', { exact: true }).selectOption('lines')
  const item = page.locator('[data-kind=each] [data-kind=text] [role=textbox]')
  await write(page, item, 'Item: ')
  await page.locator('[data-kind=each]').getByRole('button', { name: 'Insert into Text' }).click()
  await page.getByRole('menuitem', { name: 'what', exact: true }).click()
  await page.locator('[data-kind=each] .chip', { hasText: 'what' }).waitFor()

  // ---- the preview has the sample, in a frame that runs nothing
  await frame(page).getByText('Item: A sample').waitFor()
  await frame(page).getByText('Hello Sam!').waitFor()
  assert.equal(await page.locator('iframe[title="The mail"]').getAttribute('sandbox'), '')
  await page.getByText('Thank you, Sam').waitFor()

  await saved(page)
  assert.equal((await published(id)).publishedRevision, null, 'a draft is not sent')
  await publish(page)
  const kept = await published(id)
  assert.equal(kept.publishedRevision, kept.lastRevision)

  // ---- and it is what people get
  await person(t, 'olga', 'en')
  const rule = {
    name: 'paid',
    eventTypes: ['order.paid'],
    recipientSelector: { users: ['olga'] },
    channels: ['email'],
    templateId: id,
  }
  assert.equal((await t.call('POST', '/api/rules', { as: t.tenant.adminKey, body: rule })).status, 201)
  const event = {
    type: 'order.paid',
    data: { name: 'Olga', order: 'R7', lines: [{ what: 'Tea <x>' }, { what: 'Cup' }] },
  }
  assert.equal(
    (await t.call('POST', '/api/events/publish', { as: t.tenant.adminKey, body: event })).status,
    202,
  )
  const mail = await mailTo(t, 'olga@example.org')
  assert.equal(mail.subject, 'Thank you, Olga')
  assert.match(mail.html, />Hello Olga!<\/h1>/)
  assert.match(mail.html, /Your payment of &lt;b&gt; &amp; "more" has come in\./)
  assert.match(mail.html, /Item: Tea &lt;x&gt;[^]*Item: Cup/)
  assert.match(mail.html, /href="https:\/\/shop\.example\/orders\?a=1&(amp;)?id=R7"/)
  assert.match(mail.text, /Hello Olga![^]*Item: Tea <x>[^]*Item: Cup/)
  assert.doesNotMatch(mail.html, /mj-class|fonts\.googleapis/)

  // ---- opened again, it is blocks
  await page.goto(`${t.url}/console/templates/${id}`)
  await block(page, 'Heading').waitFor()
  assert.deepEqual(await kinds(page), ['heading', 'text', 'button', 'each', 'text'])
  assert.equal(await block(page, 'Heading').getByRole('textbox').innerText(), 'Hello name\u200b!')
  assert.deepEqual(wrong, [])
  await context.close()
})

test('it goes without a mouse: from the list to what is published, blocks moved and removed on the way', {
  skip,
}, async () => {
  const { page, wrong, context } = await opened.tab()
  const { keyboard } = page
  // As texts: what runs in the page is not of this program.
  const focused = () =>
    page.evaluate<string>(
      `document.activeElement?.getAttribute('aria-label') ?? document.activeElement?.textContent?.trim() ?? ''`,
    )
  const SEEN = `(() => {
    const at = document.activeElement
    if (at === document.body || at.tagName === 'IFRAME') return true
    const { outlineStyle, outlineWidth } = getComputedStyle(at)
    const around = at.closest('label')
    return (outlineStyle !== 'none' && Number.parseFloat(outlineWidth) >= 1) ||
      (around !== null && getComputedStyle(around).outlineStyle !== 'none')
  })()`
  /** Tab until something has the focus; every stop on the way must be one that can be seen. */
  const tabTo = async (name: string) => {
    for (let n = 0; n < 80; n++) {
      await keyboard.press('Tab')
      const seen = await page.evaluate<boolean>(SEEN)
      const at = await focused()
      assert.ok(seen, `the focus on "${at}" can be seen`)
      if (at === name) return
    }
    assert.fail(`Tab never came to "${name}"`)
  }

  await page.evaluate('document.activeElement?.blur()')
  await tabTo('New template')
  await keyboard.press('Enter')
  await page.getByRole('textbox', { name: 'Name' }).waitFor()
  await eventually(
    'the focus in the field',
    async () => (await page.evaluate(`document.activeElement.tagName`)) === 'INPUT',
  )
  await keyboard.type('by-keyboard')
  await keyboard.press('Enter')
  await page.getByRole('heading', { name: 'by-keyboard' }).waitFor()
  const id = new URL(page.url()).pathname.split('/').at(-1)!

  await tabTo('Add Line')
  await keyboard.press('Enter')
  await eventually('the new block', async () => (await focused()) === 'Line' || undefined)
  await keyboard.press('Alt+ArrowUp')
  await eventually('it is moved', async () => (await kinds(page))[2] === 'divider' || undefined)
  assert.deepEqual(await kinds(page), ['heading', 'text', 'divider', 'button'])
  await eventually('the focus goes with it', async () => (await focused()) === 'Line' || undefined)
  await keyboard.press('Delete')
  await eventually('it is gone', async () => (await kinds(page)).length === 3 || undefined)
  await keyboard.press('ControlOrMeta+z')
  await eventually('it is back', async () => (await kinds(page)).length === 4 || undefined)
  await keyboard.press('ControlOrMeta+Shift+z')
  await eventually('it is gone again', async () => (await kinds(page)).length === 3 || undefined)

  // Into the text of a block and out of it again.
  await block(page, 'Heading').focus()
  await keyboard.press('Enter')
  await keyboard.press('ControlOrMeta+a')
  await keyboard.type('No hands')
  await keyboard.press('Escape')
  await eventually('out of the text', async () => (await focused()) === 'Heading' || undefined)
  await keyboard.press('ControlOrMeta+s')
  await page.getByText('All changes saved').waitFor()
  await page.getByRole('button', { name: 'Publish' }).focus()
  await keyboard.press('Enter')
  // The button it began with was never told where to lead.
  await page.getByText('The button leads nowhere yet.').last().waitFor()
  assert.equal((await published(id)).publishedRevision, null)
  await tabTo('Publish all the same')
  await keyboard.press('Enter')
  await page.getByText('Published', { exact: true }).first().waitFor()
  assert.match((await published(id)).channels.email.mjml, />No hands<\/h1>/)
  assert.deepEqual(wrong, [])
  await context.close()
})

test('a wrong key is refused in words, one without rights too, and signing out forgets it', {
  skip,
}, async () => {
  const context = await opened.browser.newContext()
  const page = await context.newPage()
  const sign = async (key: string) => {
    await page.getByLabel('API key').fill(key)
    await page.getByRole('button', { name: 'Sign in' }).click()
  }
  await page.goto(`${t.url}/console/templates`)
  await sign('crl_wrong')
  await page.getByText('The server does not know this key.').waitFor()
  const made = await t.call('POST', '/api/keys', {
    as: t.tenant.adminKey,
    body: { name: 'events only', role: 'service', scopes: ['events:write'] },
  })
  await sign(made.body.key)
  await page.getByText('it needs the scope templates:read').waitFor()
  await sign(t.tenant.serviceKey)
  await page.getByRole('heading', { name: 'Templates', exact: true }).waitFor()
  assert.equal(await page.evaluate('localStorage.length'), 0)
  assert.equal((await context.cookies()).length, 0)
  await page.getByRole('button', { name: 'Sign out' }).click()
  await page.getByLabel('API key').waitFor()
  assert.equal(await page.evaluate('sessionStorage.length'), 0)
  await context.close()
})

test('pages are never framed or kept, files are kept for good, and nothing is written there', {
  skip,
}, async () => {
  const root = await fetch(t.url, { redirect: 'manual' })
  assert.deepEqual([root.status, root.headers.get('location')], [302, '/console'])
  const page = await t.call('GET', '/console/templates/anything')
  assert.equal(page.status, 200)
  assert.equal(page.headers.get('cache-control'), 'no-cache')
  const policy = page.headers.get('content-security-policy')!
  assert.match(policy, /script-src 'self';/)
  assert.match(policy, /frame-ancestors 'none'/)
  assert.doesNotMatch(page.text, /<script(?![^>]*\ssrc=)/)
  const files = [...page.text.matchAll(/(?:src|href)="(\/console\/assets\/[^"]+)"/g)].map(match => match[1]!)
  assert.ok(files.length >= 2)
  for (const file of files) {
    const answer = await t.call('GET', file)
    assert.equal(answer.status, 200, file)
    assert.match(answer.headers.get('cache-control')!, /max-age=31536000, immutable/)
    assert.equal((await t.call('HEAD', file)).status, 200)
  }
  assert.equal((await t.call('GET', '/console/assets/nothing.js')).status, 404)
  assert.equal((await t.call('GET', '/console/assets/%2e%2e/built-from')).text.includes('built'), false)
  assert.equal((await t.call('POST', '/console/templates')).status, 405)
  assert.ok(existsSync(join(import.meta.dirname, '..', '..', 'console', 'dist', 'built-from')))
})
