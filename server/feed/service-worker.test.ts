import assert from 'node:assert/strict'
import { createECDH, randomBytes } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import { after, before, test } from 'node:test'
import { createContext, runInContext } from 'node:vm'
import { type BrowserContext, type CDPSession, chromium, type Page, type Worker } from 'playwright-core'
import { sql } from '../db/pool.ts'
import { openHttp } from '../deliver/http.ts'
import { openProvider } from '../deliver/open-provider.ts'
import { exampleMessage, httpVendor } from '../deliver/providers/conformance.ts'
import { generateVapidKeys } from '../deliver/providers/push-encryption.ts'
import { webPush } from '../deliver/providers/web-push/web-push.ts'
import { pushRoutes } from '../people/push-routes.ts'
import { peopleRoutes } from '../people/routes.ts'
import { type TestApi, testApi } from '../test/api.ts'
import { eventually } from '../test/app.ts'
import type { Content, Message } from '../types.ts'

const CHROMIUM = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync)
const skip = CHROMIUM === undefined ? 'there is no Chromium here' : false

const { decrypt } = createRequire(import.meta.url)('http_ece') as {
  decrypt(body: Buffer, params: object): Buffer
}
const browserKeys = createECDH('prime256v1')
const KEYS = { p256dh: browserKeys.generateKeys('base64url'), auth: randomBytes(16).toString('base64url') }
const VAPID = generateVapidKeys()

/** What a browser decrypts when the provider sends these, each as it came over the wire. */
async function pushed(...messages: (Partial<Message> & { content: Content })[]): Promise<string[]> {
  const texts: string[] = []
  const vendor = await httpVendor({ accept: { status: 201 } }, undefined, undefined, bytes => {
    const params = { version: 'aes128gcm', privateKey: browserKeys, authSecret: KEYS.auth }
    const text = decrypt(bytes, params).toString('utf8')
    texts.push(text)
    return text
  })
  const http = openHttp({ allowPrivate: ['127.0.0.1/32'] })
  const settings = { ...VAPID, subject: 'mailto:ops@example.org', timeoutSeconds: 30 }
  const opened = await openProvider(webPush, settings, { http, now: () => new Date() })
  try {
    for (const [at, message] of messages.entries()) {
      const to = `http://127.0.0.1:${vendor.port}/push/1`
      const own = { channel: 'web_push', to, addressSettings: KEYS, idempotencyKey: `key-${at}` } as const
      await opened.send(exampleMessage({ ...own, ...message }), new AbortController().signal)
    }
  } finally {
    await opened.close()
    await http.close()
    await vendor.close()
  }
  return texts
}

/* ---------------------------------------------------------------- in Chromium */

interface Shown {
  title: string
  body: string
  tag: string
  icon: string
  lang: string
  requireInteraction: boolean
  silent: boolean | null
}

let t: TestApi
let origin: string
before(async () => {
  if (skip) return
  t = await testApi({
    routes: [
      peopleRoutes,
      (api, deps) => pushRoutes(api, { ...deps, vapidPublicKey: VAPID.publicKey }),
      api => {
        for (const path of ['/', '/orders/17', '/track']) {
          api.get(
            path,
            { config: { access: { role: 'public' } }, schema: { hide: true } },
            (_request, reply) =>
              reply
                .header('content-security-policy', "default-src 'self'")
                .type('text/html')
                .send('<!doctype html><title>shop</title>'),
          )
        }
      },
    ],
  })
  await t.api.listen({ port: 0, host: '127.0.0.1' })
  origin = `http://127.0.0.1:${(t.api.server.address() as AddressInfo).port}`
})
after(() => t?.close())

interface Browser {
  context: BrowserContext
  page: Page
  worker: Worker
  /** As if the push service had delivered it. */
  deliver(text: string): Promise<void>
  shown(): Promise<Shown[]>
}

/** A page whose service worker is ours, with the permission to show notifications. */
async function inBrowser(script: (browser: Browser) => Promise<void>): Promise<void> {
  const browser = await chromium.launch({
    executablePath: CHROMIUM,
    args: ['--no-sandbox', '--disable-gpu'],
    timeout: 120_000,
  })
  try {
    const context = await browser.newContext()
    context.setDefaultTimeout(120_000)
    await context.grantPermissions(['notifications'], { origin })
    const page = await context.newPage()
    await page.goto(`${origin}/`)
    const cdp: CDPSession = await context.newCDPSession(page)
    const registered = Promise.withResolvers<string>()
    cdp.on('ServiceWorker.workerRegistrationUpdated', ({ registrations }) => {
      const [first] = registrations
      if (first !== undefined) registered.resolve(first.registrationId)
    })
    await cdp.send('ServiceWorker.enable')
    const appeared = context.waitForEvent('serviceworker')
    await page.evaluate(`(async () => {
      await navigator.serviceWorker.register('/sw.js?tenant=${t.tenant.name}')
      await navigator.serviceWorker.ready
      if (!navigator.serviceWorker.controller) {
        await new Promise(resolve => navigator.serviceWorker.addEventListener('controllerchange', resolve))
      }
      const { controller } = navigator.serviceWorker
      while (controller.state !== 'activated') {
        await new Promise(resolve => controller.addEventListener('statechange', resolve, { once: true }))
      }
    })()`)
    const worker = await appeared
    const registrationId = await registered.promise
    await script({
      context,
      page,
      worker,
      async deliver(data) {
        await cdp.send('ServiceWorker.deliverPushMessage', { origin, registrationId, data })
      },
      shown: () =>
        page.evaluate(`(async () => {
          const registration = await navigator.serviceWorker.ready
          const list = await registration.getNotifications()
          return list.map(({ title, body, tag, icon, lang, requireInteraction, silent }) =>
            ({ title, body, tag, icon, lang, requireInteraction, silent }))
        })()`),
    })
  } finally {
    await browser.close()
  }
}

// covers: DIC-126, AUR-111
test('Chromium shows what the provider sent: alone, replaced, grouped, and whatever else comes', {
  skip,
}, async () => {
  const order = (subject: string, body: string, data: Content['data'] = {}) => ({
    content: { subject, body, data },
  })
  const [first, other, moved, groupA, groupB, groupAgain] = await pushed(
    {
      ...order('Order 17', 'It arrives on Monday — 你好 👩‍👩‍👧', {
        collapseKey: 'order-17',
        link: '/orders/17',
      }),
      priority: 'CRITICAL',
    },
    order('Order 18', 'It is paid.'),
    order('Order 17', 'It arrives on Tuesday.', { collapseKey: 'order-17' }),
    order('New message', 'From Ann', { group: 'chat' }),
    order('New message', 'From Bob', { group: 'chat' }),
    { ...order('New message', 'From Bob', { group: 'chat' }), idempotencyKey: 'key-4' },
  )
  await inBrowser(async ({ deliver, shown }) => {
    // Push services deliver at least once: what got lost on the way comes again, and must change nothing more.
    const see = async (text: string, what: string, look: (list: Shown[]) => boolean) => {
      let looks = 0
      return eventually(what, async () => {
        if (looks++ % 100 === 0) await deliver(text)
        const list = await shown()
        return look(list) ? list : undefined
      })
    }
    const body = (list: Shown[], title: string) => list.find(each => each.title === title)?.body

    const [one] = await see(first!, 'the first', list => list.length === 1)
    assert.deepEqual(
      [one!.title, one!.body, one!.tag, one!.requireInteraction],
      ['Order 17', 'It arrives on Monday — 你好 👩‍👩‍👧', 'order-17', true],
    )
    await see(other!, 'two beside each other', list => list.length === 2)
    const list = await see(
      moved!,
      'the news in its place',
      all => body(all, 'Order 17') === 'It arrives on Tuesday.',
    )
    assert.equal(list.length, 2)

    await see(groupA!, 'the first of a group', all => body(all, 'New message') === 'From Ann')
    await see(groupB!, 'two as one', all => body(all, 'New message (2)') === 'From Bob\nFrom Ann')
    // The same one again, after an answer got lost: it is still two.
    await deliver(groupAgain!)
    const all = await see('no JSON at all', 'a text as it is', every =>
      every.some(each => each.body === 'no JSON at all'),
    )
    assert.equal(body(all, 'New message (2)'), 'From Bob\nFrom Ann')
    assert.equal(all.filter(each => each.body !== 'no JSON at all').length, 3)
  })
})

test('in Chromium a tap leads the open page to the link; a new subscription replaces the old', {
  skip,
}, async () => {
  const [text] = await pushed({
    content: {
      body: 'Tap me',
      data: { link: '/orders/17' },
      actions: [{ id: 'track', label: 'Track', url: `${origin}/track` }],
    },
  })
  await inBrowser(async ({ deliver, shown, page, worker }) => {
    await deliver(text!)
    await eventually('it is shown', async () => ((await shown()).length === 1 ? true : undefined))
    const tap = (action: string) =>
      worker.evaluate(`(async () => {
        const [notification] = await self.registration.getNotifications()
        const event = new NotificationEvent('notificationclick', { notification, action: '${action}' })
        self.dispatchEvent(event)
      })()`)
    await tap('track')
    await page.waitForURL(`${origin}/track`)
    await eventually('it is closed', async () => ((await shown()).length === 0 ? true : undefined))
    await deliver(text!)
    await eventually('it is shown again', async () => ((await shown()).length === 1 ? true : undefined))
    await tap('')
    await page.waitForURL(`${origin}/orders/17`)

    const { auth, p256dh } = KEYS
    const endpoint = 'https://push.example.net/old'
    await t.request('PUT', '/api/users/alice', { as: t.tenant.serviceKey, payload: {} })
    const subscribed = await t.request('POST', '/api/notifications/push/subscribe?userId=alice', {
      as: t.tenant.serviceKey,
      payload: { subscription: { endpoint, keys: KEYS } },
    })
    assert.equal(subscribed.statusCode, 201)
    const tokens = async () =>
      (
        await t.db.rows<{ token: string }>(
          sql('test_tokens', 'select token from devices where tenant_id = $1'),
          [t.tenant.id],
        )
      ).map(({ token }) => token)
    // A browser makes these events by itself only; one of ours may not extend its life, and its work is done by then.
    await worker.evaluate(`(() => {
      const subscription = endpoint => ({ toJSON: () => ({ endpoint, keys: ${JSON.stringify({ auth, p256dh })} }) })
      self.dispatchEvent(Object.assign(new Event('pushsubscriptionchange'), {
        waitUntil: () => {},
        oldSubscription: subscription('${endpoint}'),
        newSubscription: subscription('https://push.example.net/new'),
      }))
    })()`)
    await eventually('the new one is there', async () =>
      (await tokens()).includes('https://push.example.net/new') ? true : undefined,
    )
    assert.deepEqual(await tokens(), ['https://push.example.net/new'])
  })
})

/* ---------------------------------------------------------------- what a browser only does for people */

interface Window {
  url: string
  focused?: boolean
  messages: unknown[]
  postMessage(message: unknown): void
  focus(): Promise<void>
  navigate(url: string): Promise<Window | null>
}

/** The worker in a world of its own: windows that are open, and what becomes of them. */
function world(options: { search?: string; windows?: string[]; controlled?: boolean } = {}) {
  const listeners = new Map<string, (event: unknown) => void>()
  const opened: string[] = []
  const fetched: { url: string; body: unknown }[] = []
  const windows = (options.windows ?? []).map(
    (url): Window => ({
      url,
      messages: [],
      postMessage(message: unknown) {
        this.messages.push(message)
      },
      async focus() {
        this.focused = true
      },
      async navigate(to: string) {
        if (options.controlled === false) throw new TypeError('not controlled')
        this.url = to
        return this
      },
    }),
  )
  const subscribed: unknown[] = []
  const fresh = {
    toJSON: () => ({ endpoint: 'https://push.example.net/new', keys: KEYS, expirationTime: null }),
  }
  const self = {
    location: new URL(`https://shop.example/sw.js${options.search ?? ''}`),
    addEventListener: (type: string, listener: (event: unknown) => void) => listeners.set(type, listener),
    clients: {
      matchAll: async () => windows,
      openWindow: async (url: string) => {
        opened.push(url)
      },
    },
    registration: {
      pushManager: {
        subscribe: async (given: unknown) => {
          subscribed.push(given)
          return fresh
        },
      },
    },
  }
  const fetch = async (url: string, init?: { body: string }) => {
    fetched.push({ url, body: init === undefined ? undefined : JSON.parse(init.body) })
    return { ok: true, json: async () => ({ publicKey: 'the-key' }) }
  }
  const source = readFileSync(new URL('./service-worker.js', import.meta.url), 'utf8')
  runInContext(source, createContext({ self, URL, fetch }))
  return {
    windows,
    opened,
    fetched,
    subscribed,
    /** Resolves when all is done that the event waits for. */
    async fire(type: string, event: object): Promise<void> {
      const waits: Promise<unknown>[] = []
      listeners.get(type)!({ ...event, waitUntil: (work: Promise<unknown>) => waits.push(work) })
      await Promise.all(waits)
    },
  }
}
/** Objects of the worker's world have prototypes of their own. */
const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
const clicked = (data: object, action = '') => ({ action, notification: { close() {}, data } })

test('a tap opens links of our own site and of those that were named, and no others', async () => {
  const cases: [link: string | undefined, opens: string][] = [
    ['/orders/17', 'https://shop.example/orders/17'],
    ['https://shop.example/a?b=c', 'https://shop.example/a?b=c'],
    ['https://help.example/faq', 'https://help.example/faq'],
    ['https://evil.example/', 'https://shop.example/'],
    ['//evil.example/', 'https://shop.example/'],
    ['http://shop.example/', 'https://shop.example/'],
    ['javascript:alert(1)', 'https://shop.example/'],
    ['data:text/html,x', 'https://shop.example/'],
    ['http://[', 'https://shop.example/'],
    [undefined, 'https://shop.example/'],
  ]
  for (const [link, opens] of cases) {
    const there = world({ search: '?origins=https://help.example' })
    await there.fire('notificationclick', clicked({ link }))
    assert.deepEqual(there.opened, [opens], link)
  }
  const there = world()
  const actions = [{ action: 'track', link: '/track' }, { action: 'later' }]
  await there.fire('notificationclick', clicked({ link: '/orders/17', actions }, 'track'))
  await there.fire('notificationclick', clicked({ link: '/orders/17', actions }, 'later'))
  assert.deepEqual(there.opened, ['https://shop.example/track', 'https://shop.example/orders/17'])
})

test('a window that is open is used: the one at the link, else one of the site, else a new one', async () => {
  const at = world({ windows: ['https://shop.example/', 'https://shop.example/orders/17'] })
  await at.fire('notificationclick', clicked({ link: '/orders/17' }))
  assert.deepEqual([at.windows[0]!.focused, at.windows[1]!.focused, at.opened], [undefined, true, []])

  const near = world({ windows: ['https://shop.example/'] })
  await near.fire('notificationclick', clicked({ link: '/orders/17', own: { order: '17' } }, 'track'))
  assert.deepEqual(
    [near.windows[0]!.url, near.windows[0]!.focused, near.opened],
    ['https://shop.example/orders/17', true, []],
  )
  const url = 'https://shop.example/orders/17'
  assert.deepEqual(plain(near.windows[0]!.messages), [
    { type: 'carillon:click', action: 'track', url, data: { order: '17' } },
  ])

  const foreign = world({ windows: ['https://shop.example/'], controlled: false })
  await foreign.fire('notificationclick', clicked({ link: '/orders/17' }))
  assert.deepEqual(foreign.opened, ['https://shop.example/orders/17'])
})

test('a subscription that ended is renewed, by the worker or by a page that is open', async () => {
  const old = {
    options: { applicationServerKey: 'old-key' },
    toJSON: () => ({ endpoint: 'https://push.example.net/old', keys: KEYS }),
  }
  const subscription = { endpoint: 'https://push.example.net/new', keys: KEYS }
  const alone = world({ search: '?tenant=acme', windows: ['https://shop.example/'] })
  await alone.fire('pushsubscriptionchange', { oldSubscription: old, newSubscription: null })
  assert.deepEqual(plain(alone.subscribed), [{ userVisibleOnly: true, applicationServerKey: 'old-key' }])
  const body = { tenant: 'acme', endpoint: 'https://push.example.net/old', auth: KEYS.auth, subscription }
  assert.deepEqual(alone.fetched, [{ url: '/api/notifications/push/renew', body }])
  assert.deepEqual(alone.windows[0]!.messages, [])

  // Without the old one nobody can prove anything: pages have credentials.
  const asked = world({ search: '?tenant=acme', windows: ['https://shop.example/'] })
  await asked.fire('pushsubscriptionchange', { oldSubscription: null, newSubscription: null })
  assert.deepEqual(plain(asked.subscribed), [{ userVisibleOnly: true, applicationServerKey: 'the-key' }])
  assert.deepEqual(plain(asked.windows[0]!.messages), [{ type: 'carillon:subscription', subscription }])
})
