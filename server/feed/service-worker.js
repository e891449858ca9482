/*
 * Carillon's service worker: shows what is pushed, opens what is tapped, renews subscriptions.
 *
 *   const registration = await navigator.serviceWorker.register('/sw.js?tenant=acme')
 *   await registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: publicKey })
 *
 * `tenant` lets it renew a subscription that the browser replaced; `origins`, separated by commas, are those besides
 * its own that a notification may open. The provider web-push writes what it reads.
 */

const parameters = new URL(self.location.href).searchParams
const origins = new Set([self.location.origin, ...(parameters.get('origins') ?? '').split(',')])

/** Of a group, so many texts are shown; the title tells how many there are. */
const MAX_LINES = 4
/** Of a group, so many keys are remembered, to tell a repeated message from a new one. */
const MAX_KEYS = 50
const MAX_TEXT = 1_000

self.addEventListener('install', () => self.skipWaiting())
self.addEventListener('activate', event => event.waitUntil(self.clients.claim()))
self.addEventListener('push', event => event.waitUntil(inTurn(() => show(read(event.data)))))
self.addEventListener('notificationclick', event => {
  event.notification.close()
  event.waitUntil(opened(event.notification, event.action))
})
self.addEventListener('pushsubscriptionchange', event => event.waitUntil(renew(event)))

/* ---------------------------------------------------------------- showing */

/** Whatever came, something is shown: a browser that pushes in vain takes the permission away. */
function read(data) {
  try {
    const value = data?.json()
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value
  } catch {}
  return { body: data?.text() ?? '' }
}

let last = Promise.resolve()

/** One after the other: two of a group that come at once would both count from the same number. */
function inTurn(work) {
  last = last.then(work, work)
  return last
}

const text = value => (typeof value === 'string' ? value.slice(0, MAX_TEXT) : '')

async function show(payload) {
  const grouped = text(payload.group) !== ''
  const tag = grouped ? `group ${text(payload.group)}` : text(payload.tag)
  const key = text(payload.key) || tag
  const [former] = tag === '' ? [] : await self.registration.getNotifications({ tag })
  const before = former?.data?.keys ?? []
  // The same one twice, after an answer got lost on its way: nobody is alerted again.
  const repeated = before.includes(key)

  const body = text(payload.body)
  let keys = [key]
  let lines = [body]
  let count = 1
  if (grouped && former !== undefined) {
    keys = repeated ? before : [key, ...before].slice(0, MAX_KEYS)
    lines = repeated ? (former.data.lines ?? [body]) : [body, ...(former.data.lines ?? [])].slice(0, MAX_LINES)
    count = (former.data.count ?? 1) + (repeated ? 0 : 1)
  }
  const title = text(payload.title) || self.location.host
  await self.registration.showNotification(count > 1 ? `${title} (${count})` : title, {
    ...options(payload),
    body: lines.filter(line => line !== '').join('\n'),
    ...(tag === '' ? {} : { tag, renotify: former !== undefined && !repeated && payload.silent !== true }),
    data: { own: payload.data, link: payload.link, actions: payload.actions, keys, lines, count },
  })
  await badge(payload.count)
}

const TEXTS = ['icon', 'badge', 'image', 'lang']
const FLAGS = ['silent', 'requireInteraction']

function options(payload) {
  const found = { dir: 'auto' }
  for (const name of TEXTS) if (typeof payload[name] === 'string') found[name] = payload[name]
  for (const name of FLAGS) if (payload[name] === true) found[name] = true
  if (typeof payload.timestamp === 'number') found.timestamp = payload.timestamp
  if (Array.isArray(payload.vibrate) && found.silent !== true) found.vibrate = payload.vibrate
  if (Array.isArray(payload.actions)) {
    found.actions = payload.actions
      .filter(each => text(each?.action) !== '' && text(each?.title) !== '')
      .map(({ action, title, icon }) => ({ action, title, ...(typeof icon === 'string' && { icon }) }))
  }
  return found
}

/** The number on the app's icon, where it is installed. */
async function badge(count) {
  if (!Number.isInteger(count)) return
  try {
    if (count > 0) await self.navigator.setAppBadge?.(count)
    else await self.navigator.clearAppBadge?.()
  } catch {}
}

/* ---------------------------------------------------------------- opening */

/** The link of the button, or of the whole, where it may be opened; else our own first page. */
function targetOf({ data }, action) {
  const chosen = (Array.isArray(data?.actions) ? data.actions : []).find(each => each?.action === action)
  const link = chosen?.link ?? data?.link
  try {
    const url = new URL(text(link) || '/', self.location.origin)
    if (/^https?:$/.test(url.protocol) && origins.has(url.origin)) return url
  } catch {}
  return new URL('/', self.location.origin)
}

async function opened(notification, action) {
  const url = targetOf(notification, action)
  const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true })
  const message = { type: 'carillon:click', action, url: url.href, data: notification.data?.own }
  for (const each of windows) each.postMessage(message)

  const there = windows.find(each => each.url === url.href)
  if (there !== undefined) return focus(there)
  const near = windows.find(each => new URL(each.url).origin === url.origin)
  if (near !== undefined) {
    try {
      // Only of windows that this worker controls.
      const moved = await near.navigate(url.href)
      if (moved !== null) return focus(moved)
    } catch {}
  }
  return self.clients.openWindow(url.href)
}

/** A browser may not want to: the page is there all the same. */
const focus = async client => {
  try {
    await client.focus()
  } catch {}
}

/* ---------------------------------------------------------------- renewing */

/** The browser gave the subscription up, or another one in its place. */
async function renew({ oldSubscription: old, newSubscription: given }) {
  const fresh = given ?? (await subscribe(old))
  const { endpoint, keys } = fresh.toJSON()
  const subscription = { endpoint, keys }
  if (old !== null && old !== undefined && (await replaced(old.toJSON(), subscription))) return
  // A page that is open has its own credentials: it subscribes again.
  const windows = await self.clients.matchAll({ type: 'window', includeUncontrolled: true })
  for (const each of windows) each.postMessage({ type: 'carillon:subscription', subscription })
}

async function subscribe(old) {
  const applicationServerKey = old?.options?.applicationServerKey ?? (await publicKey())
  return self.registration.pushManager.subscribe({ userVisibleOnly: true, applicationServerKey })
}

async function publicKey() {
  const response = await fetch('/api/notifications/push/public-key')
  return (await response.json()).publicKey
}

async function replaced({ endpoint, keys: { auth } }, subscription) {
  const tenant = parameters.get('tenant')
  if (tenant === null) return false
  const response = await fetch('/api/notifications/push/renew', {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ tenant, endpoint, auth, subscription }),
  })
  return response.ok
}
