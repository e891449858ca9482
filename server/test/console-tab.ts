import { type Browser, type BrowserContext, type Locator, type Page, chromium } from 'playwright-core'
import { buildConsole } from '../../scripts/build-console.ts'
import { commandPath } from '../../scripts/needs.ts'
import { type AppTenant, type Loose, type TestApp, eventually, testApp } from './app.ts'

/** The console of a server of its own, opened in real tabs. */
export interface TestConsole {
  t: TestApp
  browser: Browser
  /** A tab of its own, signed in; whatever goes wrong in it is in `wrong`. */
  tab(options?: {
    as?: AppTenant
    colorScheme?: 'light' | 'dark'
    width?: number
  }): Promise<{ page: Page; wrong: string[]; context: BrowserContext }>
  stop(): Promise<void>
}

export async function testConsole(): Promise<TestConsole> {
  await buildConsole()
  const t = await testApp()
  const browser = await chromium.launch({ executablePath: commandPath('chromium')!, args: ['--no-sandbox'] })
  return {
    t,
    browser,
    async tab({ as = t.tenant, colorScheme = 'light', width = 1440 } = {}) {
      const context = await browser.newContext({
        viewport: { width, height: 900 },
        colorScheme,
        locale: 'en-GB',
      })
      const page = await context.newPage()
      page.setDefaultTimeout(60_000)
      const wrong: string[] = []
      // A refused request is also a line of its own in the browser's log; which are refused, the tests say themselves.
      page.on('console', message => {
        if (
          message.type() === 'error' &&
          !/the server responded with a status of 4\d\d/.test(message.text())
        ) {
          wrong.push(message.text())
        }
      })
      page.on('pageerror', error => void wrong.push(error.message))
      page.on('request', request => {
        const own = [t.url, 'data:', 'blob:', 'about:'].some(start => request.url().startsWith(start))
        if (!own) wrong.push(`asked ${request.url()}`)
      })
      await page.goto(`${t.url}/console`)
      await signIn(page, as.adminKey)
      return { page, wrong, context }
    },
    async stop() {
      await browser.close()
      await t.stop()
    },
  }
}

export async function signIn(page: Page, key: string): Promise<void> {
  await page.getByLabel('API key').fill(key)
  await page.getByRole('button', { name: 'Sign in' }).click()
  await page.getByRole('heading', { name: 'Templates', exact: true }).waitFor()
}

/** Its id; the editor is open then. */
export async function newTemplate(page: Page, name: string, start = 'An e-mail'): Promise<string> {
  await page.getByRole('button', { name: 'New template' }).click()
  await page.getByRole('textbox', { name: 'Name' }).fill(name)
  await page.getByRole('radio', { name: start }).check()
  await page.getByRole('button', { name: 'Make the template' }).click()
  await page.getByRole('heading', { name, exact: true }).waitFor()
  return new URL(page.url()).pathname.split('/').at(-1)!
}

/** What the preview of a mail shows. */
export const frame = (page: Page) => page.frameLocator('iframe[title="The mail"]')

export const block = (page: Page, name: string, nth = 0): Locator =>
  page.locator(`[role=group][aria-label="${name}"][data-block]`).nth(nth)

export const kinds = (page: Page): Promise<(string | undefined)[]> =>
  page.locator('[data-block]').evaluateAll(all => all.map(one => one.dataset.kind))

/** In place of what a field holds. */
export async function write(page: Page, field: Locator, text: string): Promise<void> {
  await field.click()
  await page.keyboard.press('ControlOrMeta+a')
  await page.keyboard.type(text)
}

export async function saved(page: Page): Promise<void> {
  await page.getByRole('button', { name: 'Save draft' }).click()
  await page.getByText('All changes saved').waitFor()
}

/** `unfinished`: something is missing in it, and it is published all the same. */
export async function publish(page: Page, unfinished = false): Promise<void> {
  await page.getByRole('button', { name: 'Publish' }).click()
  if (unfinished) await page.getByRole('button', { name: 'Publish all the same' }).click()
  await page.getByRole('heading', { name: 'Published' }).first().waitFor()
}

export async function person(t: TestApp, userId: string, locale: string): Promise<void> {
  const { status, text } = await t.call('PUT', `/api/users/${userId}`, {
    as: t.tenant.adminKey,
    body: { locale, addresses: [{ channel: 'email', address: `${userId}@example.org`, verified: true }] },
  })
  if (status !== 201) throw new Error(text)
}

export const mailTo = (t: TestApp, address: string): Promise<Loose> =>
  eventually('the mail', async () => {
    const { items } = (await t.call('GET', '/dev/mailbox.json')).body
    const found = items.find((one: Loose) => one.recipients.includes(address))
    return found && (await t.call('GET', `/dev/mailbox.json/${found.id}`)).body
  })
