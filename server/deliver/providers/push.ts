import { createHash } from 'node:crypto'
import { OPERATOR_TENANT_ID } from '../../types.ts'
import type { Json, JsonObject, Message, TenantId } from '../../types.ts'
import { fit, permanent } from '../provider.ts'
import { isHttpUrl, isObject, textAt } from './answers.ts'

/**
 * What `content.data` adds for push, the same whichever service carries it; what does not fit is left out, as none
 * of it is the message itself:
 *
 * - `link`: what a tap opens: a URL or an app's own scheme; else the first action with a URL. In a browser also a path.
 * - `sound`: of the app, `default` or `none`; `badge`: the number on the app; `icon`: a URL.
 * - `ttl`: seconds after which nobody wants it any more; 0: now or never.
 * - `collapseKey`: what it replaces, shown or still on its way; `group`: what it is shown together with; else its thread.
 * - `silent`: wakes the app and shows nothing.
 * - `custom`: members for the app; what is no text becomes JSON.
 * - `android`, `apns`, `webpush`: as FCM's HTTP v1 API has them, laid over what we wrote; APNs itself takes
 *   `apns.payload`, browsers `webpush.notification`.
 */
export interface PushContent {
  title?: string
  body: string
  image?: string
  icon?: string
  link?: string
  actions: { id: string; label: string; url?: string }[]
  custom: Record<string, string>
  sound?: string
  badge?: number
  ttlSeconds?: number
  /** What this one takes the place of; the delivery's own key unless said otherwise, so that a repeated try does. */
  tag: string
  /** Set only where the content names it. */
  collapseKey?: string
  group?: string
  silent: boolean
}

const MAX_URL = 2_048
const MAX_CUSTOM = 50
/** What one line shows, with room; it leaves the rest of the payload to the text. */
export const MAX_TITLE = 250
/** Both FCM and APNs keep a message for four weeks at most. */
export const MAX_TTL = 28 * 24 * 60 * 60

export function pushContent({ content, idempotencyKey, notificationId, thread }: Message): PushContent {
  const { data = {} } = content
  const title = content.subject?.replaceAll(/\s+/g, ' ').trim() ?? ''
  const body = content.body.trim()
  const actions = (content.actions ?? []).map(({ id, label, url }) => ({
    id,
    label: fit(label.trim() || id, 50),
    ...(url !== undefined && isLink(url) ? { url } : {}),
  }))
  const collapseKey = textAt(data, 'collapseKey')
  const found: PushContent = {
    body: body === '' && title === '' ? 'Notification' : body,
    actions,
    custom: customOf(data.custom, notificationId),
    tag: keyOf(collapseKey ?? idempotencyKey),
    silent: data.silent === true,
  }
  if (title !== '') found.title = fit(title, MAX_TITLE)
  const link = textAt(data, 'link')
  found.link =
    link !== undefined && (isLink(link) || isPath(link)) ? link : actions.find(each => each.url)?.url
  if (found.link === undefined) delete found.link
  const icon = textAt(data, 'icon')
  if (icon !== undefined && isPicture(icon)) found.icon = icon
  if (content.image !== undefined && isPicture(content.image)) found.image = content.image
  const sound = textAt(data, 'sound')
  if (sound !== undefined && /^[\w. -]{1,100}$/.test(sound)) found.sound = sound
  if (isWhole(data.badge, 99_999)) found.badge = data.badge
  if (isWhole(data.ttl, MAX_TTL)) found.ttlSeconds = data.ttl
  if (collapseKey !== undefined) found.collapseKey = keyOf(collapseKey)
  const group = textAt(data, 'group')
  if (group !== undefined) found.group = fit(group, 64)
  // Not cut: two threads with the same beginning are two.
  else if (thread !== undefined) found.group = keyOf(thread)
  return found
}

const isWhole = (value: Json | undefined, max: number): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max

const isPicture = (url: string): boolean => url.length <= MAX_URL && isHttpUrl(url)

/** A browser or an app that opens one of these would run or read what it should not. */
const NEVER = /^(?:javascript|data|vbscript|file|blob|about|view-source|intent):/i

/** http, https or an app's own scheme. */
export const isLink = (text: string): boolean =>
  text.length <= MAX_URL &&
  /^[a-z][a-z0-9+.-]*:[\x21-\x7e]+$/i.test(text) &&
  !NEVER.test(text) &&
  URL.canParse(text)

/** Within the site that the browser subscribed at: not `//elsewhere`, which would be another. */
const isPath = (text: string): boolean =>
  text.length <= MAX_URL && /^\/(?![/\\])[\x21-\x7e]*$/.test(text) && !text.includes('\\')

function customOf(given: Json | undefined, notificationId: string): Record<string, string> {
  const entries = isObject(given) ? Object.entries(given).slice(0, MAX_CUSTOM) : []
  return Object.fromEntries([
    ...entries
      .filter(([name, value]) => value !== null && /^[A-Za-z][\w.-]{0,99}$/.test(name))
      .map(([name, value]) => [name, typeof value === 'string' ? value : JSON.stringify(value)]),
    ['notificationId', notificationId],
  ])
}

/** At most 64 visible characters, which every service takes; what is longer or has others becomes its digest. */
export const keyOf = (text: string): string =>
  /^[\x21-\x7e]{1,64}$/.test(text) ? text : createHash('sha256').update(text).digest('base64url')

/** An address of push that is no device but a topic which the vendor keeps, as FCM's own SDKs write it. */
const TOPIC_ADDRESS = /^\/topics\/(.*)$/s
/** https://firebase.google.com/docs/reference/fcm/fcmtopics/rest/v1/projects.registrations.topicSubscriptions */
export const TOPIC_NAME = /^[a-zA-Z0-9\-_.~%]{1,900}$/

/** The name of the topic in an address; undefined for the address of a device. */
export const topicIn = (address: string): string | undefined => TOPIC_ADDRESS.exec(address)?.[1]

/** How topics of tenants begin; the operator's own that look so stand apart, too. */
const OF_TENANT = /^t\d+\./

/**
 * What the vendor knows a tenant's topic by. All tenants share the vendor's project: topics of the operator's are called
 * as its apps call them, those of others stand apart, and nobody tells another tenant's readers anything.
 */
export const vendorTopic = (tenantId: TenantId, name: string): string =>
  tenantId === OPERATOR_TENANT_ID && !OF_TENANT.test(name) ? name : `t${tenantId}.${name}`

/** What of a device comes with the message: the service its token belongs to (`devices.kind`). */
export type PushKind = 'fcm' | 'apns'

/**
 * Which service knows the address. Where nobody said, its look tells: APNs tokens are hexadecimal, 64 digits and
 * more; FCM's never are.
 */
export function kindOf({ to, addressSettings }: Message): PushKind {
  const kind = addressSettings?.kind
  if (kind === 'fcm' || kind === 'apns') return kind
  return /^[0-9a-f]{64,200}$/i.test(to) ? 'apns' : 'fcm'
}

/** `over` laid on `base`, objects member by member. */
export function merge(base: JsonObject, over: Json | undefined): JsonObject {
  if (!isObject(over)) return base
  return Object.fromEntries([
    ...Object.entries(base).filter(([name]) => !Object.hasOwn(over, name)),
    ...Object.entries(over).map(([name, value]) => {
      const below = Object.hasOwn(base, name) ? base[name] : undefined
      return [name, isObject(below) && isObject(value) ? merge(below, value) : value]
    }),
  ])
}

export const bytesOf = (text: string): number => Buffer.byteLength(text)

/**
 * What `write` makes of the text, cut so that it has at most `max` bytes.
 *
 * @throws DeliveryError `too_large` when even the rest alone is larger
 */
export function fitPayload<T>(
  text: string,
  max: number,
  write: (text: string) => T,
  size: (written: T) => number,
): T {
  const whole = write(text)
  if (size(whole) <= max) return whole
  let fits = write('')
  if (size(fits) > max) throw permanent('too_large', `The payload without its text is over ${max} bytes`)
  // The most characters that fit: a character takes at least one byte, so no more than `max` of them do.
  for (let low = 0, high = Math.min(text.length, max); low < high; ) {
    const middle = Math.ceil((low + high) / 2)
    const written = write(fit(text, middle))
    if (size(written) <= max) {
      fits = written
      low = middle
    } else high = middle - 1
  }
  return fits
}
