import { hash } from 'node:crypto'
import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import { newId } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import type { Channel } from '../types.ts'
import { channelSwitch, putChannelSwitch } from './preferences.ts'
import type { Unsubscribe, UnsubscribeLinks } from './unsubscribe.ts'

const insertReceipt = sql(
  'insert_unsubscribe_receipt',
  `insert into consents (tenant_id, id, user_id, at, subject, old_value, new_value, actor, origin)
   values ($1, $2, $3, $4, $5, $6, $7, 'user', 'unsubscribe link')`,
)

/** What each form says: the first is RFC 8058's, the second only our page sends. */
const FORMS = {
  off: { field: 'List-Unsubscribe', value: 'One-Click' },
  on: { field: 'Undo', value: 'Yes' },
} as const

/** Beyond these few fields nobody has anything to say. */
const BODY_LIMIT = 4096

const Params = Type.Object({ token: Type.String({ maxLength: 3000 }) }, { additionalProperties: false })
// Security gateways and link trackers add parameters of their own.
const Query = Type.Object(
  { undo: Type.Optional(Type.String({ maxLength: 10 })) },
  { additionalProperties: true },
)

/**
 * Unsubscribing with one click (RFC 8058). Whoever has the link may follow it: it is the credential. Looking at it
 * changes nothing, as mail scanners look at every link; the page's button, or the mail program, POSTs.
 */
export function unsubscribeRoutes(
  api: Api,
  deps: { db: Db; links: Pick<UnsubscribeLinks, 'read'>; now?: () => Date },
): void {
  const { db, links } = deps
  const now = deps.now ?? (() => new Date())
  const config = { access: { role: 'public' } } as const
  // Pages for people, no part of the API.
  const schema = { hide: true, params: Params, querystring: Query } as const

  api.get('/u/:token', { config, schema }, async (request, reply) => {
    const who = links.read(request.params.token)
    if (who === undefined) return page(reply, 404, UNKNOWN)
    const on = (await channelSwitch(db, who.tenantId, who.userId, who.channel)) !== false
    if (!on) return page(reply, 200, isOff(who))
    return page(reply, 200, request.query.undo === undefined ? askOff(who) : isOn(who))
  })

  api.post(
    '/u/:token',
    // The bytes as they come, and so of any type: mail programs send a form of one of two types.
    { config: { ...config, rawBody: true }, bodyLimit: BODY_LIMIT, schema },
    async (request, reply) => {
      const who = links.read(request.params.token)
      if (who === undefined) return page(reply, 404, UNKNOWN)
      const enabled = request.query.undo !== undefined
      const { field, value } = FORMS[enabled ? 'on' : 'off']
      if (!says(request.rawBody, request.headers['content-type'], field, value)) {
        return page(reply, 400, UNCLEAR)
      }
      await setSwitch(db, who, enabled, now())
      return page(reply, 200, enabled ? isOn(who) : isOff(who))
    },
  )
}

/** With its receipt, and only where it changes something. */
const setSwitch = (db: Db, who: Unsubscribe, enabled: boolean, at: Date): Promise<void> =>
  db.tx(async tx => {
    const { tenantId, userId, channel, notificationId } = who
    const changed = await putChannelSwitch(tx, tenantId, userId, channel, enabled)
    if (changed === undefined) return
    await tx.run(insertReceipt, [
      tenantId,
      newId(at.getTime()),
      userId,
      at,
      `channel:${channel}`,
      JSON.stringify({ enabled: changed.before }),
      JSON.stringify({ enabled, ...(notificationId !== undefined && { notificationId }) }),
    ])
  })

/**
 * Whether the form says `field=value`. RFC 8058 §3.1 wants multipart/form-data from mail programs and allows
 * application/x-www-form-urlencoded. Of multipart (RFC 7578) only this one question is asked: is there a part of
 * that name that holds just that value?
 */
function says(body: Buffer | undefined, type: string | undefined, field: string, value: string): boolean {
  const text = body?.toString('latin1') ?? ''
  const media = (type ?? '').split(';')[0]!.trim().toLowerCase()
  if (media === 'application/x-www-form-urlencoded') return new URLSearchParams(text).get(field) === value
  if (media !== 'multipart/form-data') return false
  const part = text
    .split(/\r?\n--|^--/)
    .find(one => new RegExp(`; *name="?${field}"?(?:[;\\s]|$)`, 'i').test(one))
  return part !== undefined && part.split(/\r?\n\r?\n/)[1]?.trim() === value
}

// ---------------------------------------------------------------- pages

interface Page {
  title: string
  text: string
  button?: { label: string; action: string; field: string; value: string }
}

const NAMES: Partial<Record<Channel, string>> = {
  email: 'E-mail',
  sms: 'SMS',
  in_app: 'In-app',
  web_push: 'Browser',
}
const nameOf = (channel: Channel) =>
  NAMES[channel] ?? channel.charAt(0).toUpperCase() + channel.slice(1).replaceAll('_', ' ')

const UNKNOWN: Page = {
  title: 'This link is not valid',
  text: 'It may have been cut off. Copy the whole link from the message, or use the link in a newer one.',
}
const UNCLEAR: Page = {
  title: 'Nothing was changed',
  text: 'The form arrived incomplete. Open the link from the message again and use the button there.',
}
// An action of only a query keeps the path, wherever a proxy has put it; "?" alone takes the query away.
const askOff = ({ channel }: Unsubscribe): Page => ({
  title: `Stop ${lower(nameOf(channel))} notifications?`,
  text: `You will get no more ${lower(nameOf(channel))} notifications until you switch them on again.`,
  button: { label: 'Unsubscribe', action: '?', ...FORMS.off },
})
const isOff = ({ channel }: Unsubscribe): Page => ({
  title: `${nameOf(channel)} notifications are off`,
  text: 'You are unsubscribed. If that was a mistake, switch them on again here.',
  button: { label: 'Switch on again', action: '?undo', ...FORMS.on },
})
const isOn = ({ channel }: Unsubscribe): Page => ({
  title: `${nameOf(channel)} notifications are on`,
  text: 'You have not unsubscribed.',
  button: { label: 'Unsubscribe', action: '?', ...FORMS.off },
})
const lower = (name: string) => (/^[A-Z]+$/.test(name) ? name : name.charAt(0).toLowerCase() + name.slice(1))

const STYLE =
  ':root{color-scheme:light dark}body{font:1.125rem/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;' +
  'padding:0 1.25rem}h1{font-size:1.5rem;line-height:1.25}button{font:inherit;padding:.6rem 1.2rem;min-height:2.75rem}'

/** The style may run because of its hash; nothing else may, and the form may come back to us alone. */
const POLICY =
  `default-src 'none'; style-src 'sha256-${hash('sha256', STYLE, 'base64')}'; form-action 'self'; ` +
  `frame-ancestors 'none'; base-uri 'none'`

/** Every word in it is ours; nothing of the request or the person is shown, so nothing needs escaping. */
function page(reply: FastifyReply, status: number, { title, text, button }: Page): FastifyReply {
  const form =
    button === undefined
      ? ''
      : `<form method="post" action="${button.action}"><input type="hidden" name="${button.field}" value="${button.value}">` +
        `<button type="submit">${button.label}</button></form>`
  return reply
    .code(status)
    .type('text/html; charset=utf-8')
    .headers({
      'content-security-policy': POLICY,
      'cache-control': 'no-store',
      'x-robots-tag': 'noindex, nofollow',
    })
    .send(
      `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">` +
        `<meta name="viewport" content="width=device-width, initial-scale=1"><title>${title}</title>` +
        `<style>${STYLE}</style></head><body><main><h1>${title}</h1><p>${text}</p>${form}</main></body></html>\n`,
    )
}
