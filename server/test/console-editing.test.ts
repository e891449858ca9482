import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { need } from '../../scripts/needs.ts'
import { png } from '../assets/test-pictures.ts'
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
  signIn,
  testConsole,
  write,
} from './console-tab.ts'

/** What people do in the editor besides a first mail: translate, upload, disagree, go back, try out. */

const skip = need('chromium')
let opened: TestConsole
let t: TestApp
before(async () => {
  if (skip) return
  opened = await testConsole()
  t = opened.t
})
after(() => opened?.stop())

const stored = async (id: string, revision: number | 'last' = 'last'): Promise<Loose> =>
  (await t.call('GET', `/api/templates/${id}?revision=${revision}`, { as: t.tenant.adminKey })).body

// covers: ALP-143, ALP-138
test('a mail is translated beside its original, what is missing is marked, and readers get their language', {
  skip,
}, async () => {
  const { page, wrong, context } = await opened.tab()
  const id = await newTemplate(page, 'hello')
  await write(page, page.getByRole('textbox', { name: 'Subject' }), 'Hello')
  await write(page, block(page, 'Heading').getByRole('textbox'), 'Good morning')
  await write(page, block(page, 'Text').getByRole('textbox'), 'Nice to see you.')
  await write(page, block(page, 'Button').getByRole('textbox'), 'Come in')

  await page.getByRole('button', { name: 'Language', exact: true }).click()
  await page.getByRole('button', { name: 'German', exact: true }).click()
  await page.getByText('German has nothing for E-mail yet').waitFor()
  await page.getByText('0 of 3 translated').waitFor()
  await write(page, page.getByRole('textbox', { name: 'Subject', exact: true }), 'Hallo')
  await write(page, page.getByRole('textbox', { name: 'Heading, German' }), 'Guten Morgen')
  await page.getByText('1 of 3 translated').waitFor()
  await write(page, page.getByRole('textbox', { name: 'Text, German' }), 'Schön, dich zu sehen.')
  await frame(page).getByText('Guten Morgen').waitFor()
  assert.equal(await page.getByText('not translated').count(), 1)

  // What is built differently later is built so in every language, with the words it has.
  await page.getByRole('button', { name: 'English', exact: true }).click()
  await block(page, 'Heading').focus()
  await page.keyboard.press('Alt+ArrowDown')
  await eventually('the heading is second', async () => (await kinds(page))[1] === 'heading')
  // Its button leads nowhere.
  await publish(page, true)

  await person(t, 'dora', 'de-AT')
  await person(t, 'emil', 'en-GB')
  for (const recipientId of ['dora', 'emil']) {
    const body = { recipientId, channels: ['email'], templateId: id }
    assert.equal((await t.call('POST', '/api/notifications', { as: t.tenant.adminKey, body })).status, 202)
  }
  const [german, english] = [await mailTo(t, 'dora@example.org'), await mailTo(t, 'emil@example.org')]
  assert.deepEqual([german.subject, english.subject], ['Hallo', 'Hello'])
  assert.match(german.text, /Schön, dich zu sehen\.[^]*Guten Morgen[^]*Come in/)
  assert.match(english.text, /Nice to see you\.[^]*Good morning[^]*Come in/)
  assert.deepEqual(wrong, [])
  await context.close()
})

// covers: ALP-141
test('words are made bold, a link and a list; blocks are dragged; a picture is uploaded and shown', {
  skip,
}, async () => {
  const { page, wrong, context } = await opened.tab()
  const id = await newTemplate(page, 'pictured')
  const text = block(page, 'Text').getByRole('textbox')
  await write(page, text, 'Very important')
  await page.keyboard.press('ControlOrMeta+a')
  await page.getByRole('button', { name: 'Bold' }).click()
  await page.getByRole('button', { name: 'Link', exact: true }).click()
  await page.getByRole('textbox', { name: 'Address' }).fill('https://example.org/more')
  await page.getByRole('button', { name: 'Set the link' }).click()
  await frame(page)
    .locator('a[href="https://example.org/more"] strong', { hasText: 'Very important' })
    .waitFor()
  await text.click()
  await page.keyboard.press('ControlOrMeta+End')
  await page.keyboard.press('Enter')
  await page.keyboard.type('first')
  await page.getByRole('button', { name: 'List', exact: true }).click()
  await page.keyboard.press('Enter')
  await page.keyboard.type('second')
  await frame(page).locator('li', { hasText: 'second' }).waitFor()
  assert.equal(await frame(page).locator('li').count(), 2)

  await block(page, 'Button').click({ position: { x: 300, y: 10 } })
  await block(page, 'Button')
    .getByTitle('Drag to move')
    .dragTo(block(page, 'Heading'), {
      targetPosition: { x: 60, y: 4 },
    })
  await eventually('the button is first', async () => (await kinds(page))[0] === 'button')

  await page.getByRole('button', { name: 'Add Picture' }).click()
  await page.getByText('No picture is chosen yet.').waitFor()
  await page
    .getByLabel('Picture file')
    .setInputFiles({ name: 'Our logo.png', mimeType: 'image/png', buffer: png() })
  const shown = frame(page).locator('img')
  await shown.waitFor()
  await eventually('the picture is there', () =>
    shown.evaluate<boolean, Loose>(image => image.complete && image.naturalWidth > 0),
  )
  await saved(page)
  const { channels } = await stored(id)
  assert.match(channels.email.mjml, /src="\{\{asset 'Our-logo'\}\}"/)
  await page.reload()
  await block(page, 'Picture').waitFor()
  assert.deepEqual(await kinds(page), ['button', 'image', 'heading', 'text'])
  assert.equal(await block(page, 'Text').locator('strong a, a strong').innerText(), 'Very important')
  assert.deepEqual(wrong, [])
  await context.close()
})

test('MJML written by hand opens as source, is kept as it is, and a mistake stands at its line', {
  skip,
}, async () => {
  const mjml =
    '<mjml>\n  <mj-body>\n    <mj-section><mj-column>\n      <mj-text>Mine {{name}}</mj-text>\n    </mj-column></mj-section>\n  </mj-body>\n</mjml>\n'
  const made = await t.call('POST', '/api/templates', {
    as: t.tenant.adminKey,
    body: { name: 'by-hand', channels: { email: { subject: 'By hand', mjml } } },
  })
  assert.equal(made.status, 201, made.text)
  const { page, wrong, context } = await opened.tab()
  await page.getByText('by-hand').click()
  const source = page.getByRole('textbox', { name: 'MJML source' })
  await source.waitFor()
  assert.equal(await page.locator('[data-block]').count(), 0)
  await frame(page).getByText('Mine').waitFor()
  await write(page, page.getByRole('textbox', { name: 'Subject' }), 'Still by hand')
  await saved(page)
  assert.equal((await stored(made.body.id)).channels.email.mjml, mjml)

  await source.click()
  await page.keyboard.press('ControlOrMeta+End')
  await page.keyboard.press('ArrowUp')
  await page.keyboard.press('ArrowUp')
  await page.keyboard.press('Home')
  await page.keyboard.type('<mj-nonsense />')
  await page.getByText('One thing has to be mended').waitFor()
  await page.locator('.cm-lintRange-error', { hasText: 'mj-nonsense' }).waitFor()
  await page.getByText('There is no preview of this').waitFor()
  await page.getByRole('button', { name: 'Save draft' }).click()
  await page.getByText('It was not saved').first().waitFor()
  assert.equal((await stored(made.body.id)).channels.email.mjml, mjml)
  assert.deepEqual(wrong, [])
  await context.close()
})

// covers: ALP-144
test('who saves later is told, loses nothing, and either revision can be had again', { skip }, async () => {
  const { page, wrong, context } = await opened.tab()
  const id = await newTemplate(page, 'shared', 'A text for every channel')
  await write(page, page.getByRole('textbox', { name: 'Title' }), 'Mine')
  // Meanwhile somebody else:
  const theirs = { name: 'shared', channels: { default: { subject: 'Theirs', body: 'x' } } }
  assert.equal(
    (await t.call('PUT', `/api/templates/${id}`, { as: t.tenant.adminKey, body: theirs })).status,
    200,
  )
  await page.getByRole('button', { name: 'Save draft' }).click()
  await page.getByRole('heading', { name: 'Somebody else saved this template' }).waitFor()
  assert.equal((await stored(id)).channels.default.subject, 'Theirs')
  await page.getByRole('button', { name: 'Keep mine' }).click()
  assert.equal(await page.getByRole('textbox', { name: 'Title' }).innerText(), 'Mine')
  await publish(page)
  assert.equal((await stored(id)).channels.default.subject, 'Mine')

  // Not left by accident.
  await write(page, page.getByRole('textbox', { name: 'Title' }), '?')
  await page.getByRole('link', { name: 'Templates', exact: true }).click()
  await page.getByRole('heading', { name: 'Leave without saving?' }).waitFor()
  await page.getByRole('button', { name: 'Stay' }).click()
  assert.equal(await page.getByRole('textbox', { name: 'Title' }).innerText(), '?')
  await page.keyboard.press('ControlOrMeta+z')
  await page.getByText('All changes saved').waitFor()

  await page.getByRole('tab', { name: 'History' }).click()
  await page.getByRole('button', { name: 'Show changes' }).first().click()
  await page.getByLabel('Before').getByText('Theirs').waitFor()
  await page.getByLabel('After').getByText('Mine').waitFor()
  await page
    .getByRole('listitem')
    .filter({ hasText: 'Revision 2' })
    .getByRole('button', { name: 'Go back to it' })
    .click()
  await page.getByRole('button', { name: 'Publish revision 2 again' }).click()
  await page.getByRole('tab', { name: 'Content' }).click()
  await eventually(
    'theirs is back',
    async () => (await page.getByRole('textbox', { name: 'Title' }).innerText()) === 'Theirs',
  )
  assert.equal((await stored(id)).publishedRevision, 4)
  assert.deepEqual(wrong, [])
  await context.close()
})

test('when a key ends, what was being written is still there for the next', { skip }, async () => {
  const { status, body } = await t.call('POST', '/api/keys', {
    as: t.tenant.adminKey,
    body: { name: 'for a day', role: 'service', scopes: ['templates:read', 'templates:write'] },
  })
  assert.equal(status, 201)
  const { page, wrong, context } = await opened.tab({ as: { ...t.tenant, adminKey: body.key } })
  await newTemplate(page, 'unfinished', 'A text for every channel')
  await write(page, page.getByRole('textbox', { name: 'Title' }), 'A long thought')
  assert.equal((await t.call('DELETE', `/api/keys/${body.id}`, { as: t.tenant.adminKey })).status, 204)
  await page.getByRole('button', { name: 'Save draft' }).click()
  await page.getByText('The server does not take your key any more.').waitFor()
  await page.getByLabel('API key').fill(t.tenant.serviceKey)
  await page.getByRole('button', { name: 'Sign in' }).click()
  assert.equal(await page.getByRole('textbox', { name: 'Title' }).innerText(), 'A long thought')
  await saved(page)
  assert.deepEqual(wrong, [])
  await context.close()
})

test('what is not saved yet can be tried out, with sample data, in a mailbox and as an SMS', {
  skip,
}, async () => {
  const { page, wrong, context } = await opened.tab()
  const id = await newTemplate(page, 'tried')
  await page.getByRole('tab', { name: 'Variables' }).click()
  await page.getByRole('button', { name: 'Add a variable' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill('colour')
  await page.getByRole('textbox', { name: 'Default' }).fill('green')
  await page.getByRole('tab', { name: 'Content' }).click()
  await write(page, page.getByRole('textbox', { name: 'Subject' }), 'It is ')
  await page.getByRole('button', { name: 'Insert into Subject' }).click()
  await page.getByRole('menuitem', { name: 'colour', exact: true }).click()
  await page.getByText('It is green').waitFor()
  await page.getByText('Sample data').click()
  await page.getByLabel('What the event says, as JSON').fill('{"colour": "blue"}')
  await page.getByText('It is blue').waitFor()

  await page.getByRole('button', { name: 'Send a test' }).click()
  await page.getByRole('textbox', { name: 'Address' }).fill('tester@example.org')
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  await page.getByText('It is on its way.').waitFor()
  await page.getByRole('textbox', { name: 'Address' }).fill('nobody')
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  await page.getByText('An e-mail address looks like').waitFor()
  const mail = await mailTo(t, 'tester@example.org')
  assert.equal(mail.subject, 'It is blue')
  assert.match(mail.html, /Some text\./)
  await page.keyboard.press('Escape')
  assert.equal((await stored(id)).publishedRevision, null)

  await page.getByRole('button', { name: 'Channel', exact: true }).click()
  await page.getByRole('menuitem', { name: 'SMS' }).click()
  await write(
    page,
    page.getByRole('textbox', { name: 'Text', exact: true }),
    `${'x'.repeat(150)} {{colour}} – wide`,
  )
  await page.getByText('3 segments').waitFor()
  await page.getByText(/UCS-2/).waitFor()
  assert.deepEqual(wrong, [])
  await context.close()
})

test('every page is for everybody: names, contrast, no sideways scrolling, in both modes and on a phone', {
  skip,
}, async () => {
  const made = await t.call('POST', '/api/templates', {
    as: t.tenant.adminKey,
    body: {
      name: 'looked-at',
      description: 'For looking at',
      category: 'some',
      channels: { default: { subject: 'Hi {{name}}', body: 'Hello' }, sms: { body: 'Hi {{name}}' } },
      translations: { de: { default: { subject: 'Hallo {{name}}', body: 'Hallo' } } },
      variables: [{ name: 'name', required: true }],
      messages: { en: { hello: 'Hello' } },
    },
  })
  assert.equal(made.status, 201, made.text)
  for (const [colorScheme, width] of [
    ['light', 1280],
    ['dark', 1280],
    ['light', 360],
  ] as const) {
    const { page, wrong, context } = await opened.tab({ colorScheme, width })
    const look = async (where: string) => {
      assert.deepEqual(await page.evaluate<string[]>(WRONG), [], `${where}, ${colorScheme}, ${width}`)
    }
    await page.getByText('looked-at').waitFor()
    await look('the list')
    await page.getByRole('button', { name: 'New template' }).click()
    await page.getByRole('radio', { name: 'order-shipped' }).waitFor()
    await look('a new template')
    await page.keyboard.press('Escape')
    await page.getByRole('link', { name: /looked-at/ }).click()
    await page.getByRole('heading', { name: 'looked-at' }).waitFor()
    for (const name of ['Variables', 'Messages', 'Settings', 'History', 'Content']) {
      await page.getByRole('tab', { name }).click()
      await look(name)
    }
    await page.getByRole('button', { name: /^German/ }).click()
    await look('a translation')
    await page.getByRole('button', { name: 'English', exact: true }).click()
    await page.getByRole('button', { name: 'Channel', exact: true }).click()
    await page.getByRole('menuitem', { name: 'E-mail' }).click()
    await page.getByRole('button', { name: 'Design it with blocks' }).click()
    await page.getByRole('button', { name: 'Add Columns' }).click()
    await page.getByRole('button', { name: 'Add Only if' }).click()
    await page.getByText('What it depends on is not chosen yet.').waitFor()
    await look('blocks')
    assert.deepEqual(wrong, [])
    await context.close()
  }
})

test('the check of pages sees what is wrong', { skip }, async () => {
  const { page, context } = await opened.tab()
  await page.evaluate(
    `document.querySelector('main').insertAdjacentHTML('beforeend',
      '<input><p style="color:#999">pale</p><button></button><div id="root"></div><div style="width:3000px">wide</div>')`,
  )
  const found = await page.evaluate<string[]>(WRONG)
  for (const part of [
    /no name: <input>/,
    /contrast 2\.\d+: <p/,
    /no name: <button>/,
    /twice the id root/,
    /sideways/,
  ]) {
    assert.ok(
      found.some(one => part.test(one)),
      `${part} in ${found.join()}`,
    )
  }
  await context.close()
})

test('many templates come a page at a time, and are found by name, category and state', {
  skip,
}, async () => {
  const make = (body: object) => t.call('POST', '/api/templates', { as: t.other.adminKey, body })
  for (let n = 1; n <= 60; n++) {
    const { status, text } = await make({
      name: `letter ${n}`,
      category: n === 7 ? 'rare' : 'usual',
      enabled: n !== 9,
      channels: { default: { body: 'x' } },
    })
    assert.equal(status, 201, text)
  }
  const { page, wrong, context } = await opened.tab({ as: t.other })
  const items = page.getByRole('list', { name: 'Templates' }).getByRole('listitem')
  const shows = (count: number) =>
    eventually(`${count} templates`, async () => (await items.count()) === count)
  await shows(50)
  await page.getByRole('button', { name: 'More' }).click()
  await shows(60)
  await page.getByRole('searchbox', { name: 'Search by name' }).fill('LETTER 5')
  await shows(11)
  await page.getByRole('searchbox', { name: 'Search by name' }).fill('')
  await page.getByRole('searchbox', { name: 'Category' }).fill('rare')
  await shows(1)
  await page.getByRole('searchbox', { name: 'Category' }).fill('')
  await page.getByLabel('State').selectOption('Off')
  await eventually('the one that is off', async () =>
    (await items.allInnerTexts()).join().includes('letter 9'),
  )
  await page.reload()
  await shows(1)

  // And one is thrown away.
  await items.first().click()
  await page.getByRole('button', { name: 'More' }).click()
  await page.getByRole('menuitem', { name: 'Delete the template' }).click()
  await page.getByRole('button', { name: 'Delete', exact: true }).click()
  await page.getByRole('heading', { name: 'Templates', exact: true }).waitFor()
  const left = await t.call('GET', '/api/templates?name=letter%209', { as: t.other.adminKey })
  assert.deepEqual(left.body.items, [])
  assert.deepEqual(wrong, [])
  await context.close()
})

test('a tenant sees its own templates alone', { skip }, async () => {
  const { page, context } = await opened.tab({ as: t.other })
  await page.getByRole('list', { name: 'Templates' }).waitFor()
  assert.doesNotMatch(
    await page.getByRole('list', { name: 'Templates' }).innerText(),
    /looked-at|shared|hello/,
  )
  await page.getByRole('button', { name: 'Sign out' }).click()
  await signIn(page, t.tenant.adminKey)
  await page.getByRole('list', { name: 'Templates' }).waitFor()
  await context.close()
})

/**
 * What keeps somebody from using the page, as far as it can be computed in it. A text, since it runs in the page. WCAG
 * 2.2: 1.3.1, 4.1.2 (names), 1.4.3 (contrast), 1.4.10 (reflow), 2.4.2, 3.1.1, 4.1.1 (ids).
 */
const WRONG = `(() => {
  const found = []
  const visible = at => at.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && at.getClientRects().length > 0
  const hidden = at => at.closest('[aria-hidden=true], [inert], [data-base-ui-inert]') !== null
  const told = at => at.outerHTML.slice(0, 120)
  if (!document.documentElement.lang || !document.title) found.push('no language or title')
  if (document.documentElement.scrollWidth > innerWidth + 1) found.push('scrolls sideways: ' + document.documentElement.scrollWidth)
  const ids = [...document.querySelectorAll('[id]')].map(at => at.id)
  for (const id of new Set(ids.filter((id, at) => ids.indexOf(id) !== at))) found.push('twice the id ' + id)
  for (const at of document.querySelectorAll('[aria-labelledby], [aria-describedby]')) {
    for (const name of ['aria-labelledby', 'aria-describedby']) {
      for (const id of (at.getAttribute(name) ?? '').split(' ').filter(Boolean)) {
        if (!document.getElementById(id)) found.push(name + ' leads nowhere: ' + told(at))
      }
    }
  }
  const nameOf = at => at.getAttribute('aria-label') || (at.getAttribute('aria-labelledby') ?? '').split(' ').map(id => document.getElementById(id)?.textContent ?? '').join(' ').trim()
    || [...(at.labels ?? [])].map(label => label.textContent).join(' ').trim() || at.textContent.trim() || at.getAttribute('alt') || at.getAttribute('title')
  for (const at of document.querySelectorAll('button, a[href], input, select, textarea, [role=textbox], [role=tab], iframe, img')) {
    if (!visible(at) || hidden(at) || (at.tagName === 'IMG' && at.hasAttribute('alt'))) continue
    const field = at.matches('input, select, textarea, [role=textbox]')
    const named = field ? at.getAttribute('aria-label') || at.getAttribute('aria-labelledby') || at.labels?.length : nameOf(at)
    if (!named) found.push('no name: ' + told(at))
  }
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
  canvas.canvas.width = canvas.canvas.height = 1
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1)
    canvas.fillStyle = colour
    canvas.fillRect(0, 0, 1, 1)
    return [...canvas.getImageData(0, 0, 1, 1).data]
  }
  const over = ([r, g, b, a], under) => [r, g, b].map((part, at) => (part * a + under[at] * (255 - a)) / 255)
  const groundOf = at => {
    const layers = []
    for (let one = at; one; one = one.parentElement) layers.unshift(rgba(getComputedStyle(one).backgroundColor))
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255])
  }
  const light = parts => parts.map(part => part / 255).map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0)
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
  const checked = new Set()
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    const at = node.parentElement
    if (!node.textContent.trim() || checked.has(at) || !visible(at) || hidden(at) || at.closest(':disabled, .cm-editor, .sr-only, script, noscript')) continue
    checked.add(at)
    const ground = groundOf(at)
    const [a, b] = [light(over(rgba(getComputedStyle(at).color), ground)), light(ground)]
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
    if (contrast < 4.5) found.push('contrast ' + contrast.toFixed(2) + ': ' + told(at))
  }
  return found
})()`
