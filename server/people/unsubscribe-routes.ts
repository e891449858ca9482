import type { FastifyReply } from 'fastify'
import { Type } from 'typebox'
import { newId } from '../db/ids.ts'
import { type Db, sql } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import type { Channel } from '../types.ts'
import { escapeText, languageOf, type PageLanguage, pageOf, sendPage } from './page.ts'
import { channelSwitch, putChannelSwitch } from './preferences.ts'
import type { Unsubscribe, UnsubscribeLinks } from './unsubscribe.ts'

const findLocale = sql('unsubscribe_locale', `select locale from users where tenant_id = $1 and user_id = $2`)
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
    const { token } = request.params
    const who = links.read(token)
    if (who === undefined) return page(reply, 404, UNKNOWN, 'en')
    const language = await languageFor(db, who)
    const pages = pagesFor(who, token, language)
    const on = (await channelSwitch(db, who.tenantId, who.userId, who.channel)) !== false
    const shown = on ? (request.query.undo === undefined ? pages.ask : pages.on) : pages.off
    return page(reply, 200, shown, language)
  })

  api.post(
    '/u/:token',
    // The bytes as they come, and so of any type: mail programs send a form of one of two types.
    { config: { ...config, rawBody: true }, bodyLimit: BODY_LIMIT, schema },
    async (request, reply) => {
      const { token } = request.params
      const who = links.read(token)
      if (who === undefined) return page(reply, 404, UNKNOWN, 'en')
      const language = await languageFor(db, who)
      const pages = pagesFor(who, token, language)
      const enabled = request.query.undo !== undefined
      const { field, value } = FORMS[enabled ? 'on' : 'off']
      if (!says(request.rawBody, request.headers['content-type'], field, value)) {
        return page(reply, 400, pages.unclear, language)
      }
      await setSwitch(db, who, enabled, now())
      return page(reply, 200, enabled ? pages.on : pages.off, language)
    },
  )
}

/** Of the person, as far as known. */
const languageFor = async (db: Db, { tenantId, userId }: Unsubscribe): Promise<PageLanguage> =>
  languageOf((await db.one<{ locale: string }>(findLocale, [tenantId, userId]))?.locale)

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

/** What is said where; `{}` is the name of the channel. */
interface Words {
  ask: string
  askText: string
  off: string
  offText: string
  on: string
  onText: string
  unsubscribe: string
  again: string
  more: string
  unknown: string
  unknownText: string
  unclear: string
  unclearText: string
  names: Partial<Record<Channel, string>>
}

const WORDS: Record<PageLanguage, Words> = {
  en: {
    ask: 'Stop notifications by {}?',
    askText: 'You will get no more notifications by {} until you switch them on again.',
    off: 'Notifications by {} are off',
    offText: 'You are unsubscribed. If that was a mistake, switch them on again here.',
    on: 'Notifications by {} are on',
    onText: 'You have not unsubscribed.',
    unsubscribe: 'Unsubscribe',
    again: 'Switch on again',
    more: 'Choose more precisely',
    unknown: 'This link is not valid',
    unknownText:
      'It may have been cut off. Copy the whole link from the message, or use the link in a newer one.',
    unclear: 'Nothing was changed',
    unclearText:
      'The form arrived incomplete. Open the link from the message again and use the button there.',
    names: {
      email: 'e-mail',
      sms: 'SMS',
      whatsapp: 'WhatsApp',
      voice: 'telephone',
      push: 'mobile push',
      web_push: 'browser',
    },
  },
  pt: {
    ask: 'Parar as notificações por {}?',
    askText: 'Você não receberá mais notificações por {} até ativá-las de novo.',
    off: 'As notificações por {} estão desativadas',
    offText: 'Sua inscrição foi cancelada. Se foi um engano, ative as notificações de novo aqui.',
    on: 'As notificações por {} estão ativadas',
    onText: 'Você não cancelou a inscrição.',
    unsubscribe: 'Cancelar inscrição',
    again: 'Ativar de novo',
    more: 'Escolher com mais detalhe',
    unknown: 'Este link não é válido',
    unknownText:
      'Ele pode ter sido cortado. Copie o link inteiro da mensagem ou use o de uma mensagem mais nova.',
    unclear: 'Nada foi alterado',
    unclearText: 'O formulário chegou incompleto. Abra de novo o link da mensagem e use o botão.',
    names: {
      email: 'e-mail',
      sms: 'SMS',
      whatsapp: 'WhatsApp',
      voice: 'telefone',
      push: 'celular',
      web_push: 'navegador',
    },
  },
  zh: {
    ask: '停止通过{}发送通知？',
    askText: '在您重新开启之前，将不再通过{}向您发送通知。',
    off: '已关闭通过{}发送的通知',
    offText: '您已退订。如果是误操作，可在此重新开启。',
    on: '已开启通过{}发送的通知',
    onText: '您尚未退订。',
    unsubscribe: '退订',
    again: '重新开启',
    more: '更详细的选择',
    unknown: '此链接无效',
    unknownText: '链接可能不完整。请从邮件中复制完整链接，或使用较新邮件中的链接。',
    unclear: '未作任何更改',
    unclearText: '表单不完整。请重新打开邮件中的链接并使用页面上的按钮。',
    names: {
      email: '电子邮件',
      sms: '短信',
      whatsapp: 'WhatsApp',
      voice: '电话',
      push: '手机推送',
      web_push: '浏览器',
    },
  },
}

interface Page {
  title: string
  text: string
  button?: { label: string; action: string; field: string; value: string }
  /** To the page with every choice. */
  more?: { label: string; href: string }
}

const UNKNOWN: Page = { title: WORDS.en.unknown, text: WORDS.en.unknownText }

/** The pages of one link, in the language of whoever it is for. */
function pagesFor({ channel }: Unsubscribe, token: string, language: PageLanguage) {
  const words = WORDS[language]
  const name = words.names[channel] ?? channel.replaceAll('_', ' ')
  const of = (text: string) => text.replace('{}', name)
  // Relative, as a proxy may have put the path elsewhere: an action of only a query keeps it; "?" alone takes the query.
  const more = { label: words.more, href: `${token}/preferences` }
  const off = { label: words.unsubscribe, action: '?', ...FORMS.off }
  return {
    ask: { title: of(words.ask), text: of(words.askText), button: off, more },
    off: {
      title: of(words.off),
      text: words.offText,
      button: { label: words.again, action: '?undo', ...FORMS.on },
      more,
    },
    on: { title: of(words.on), text: words.onText, button: off, more },
    unclear: { title: words.unclear, text: words.unclearText },
  } satisfies Record<string, Page>
}

/** Every word in it is ours; nothing of the person is shown. */
function page(
  reply: FastifyReply,
  status: number,
  { title, text, button, more }: Page,
  language: PageLanguage,
) {
  const form =
    button === undefined
      ? ''
      : `<form method="post" action="${button.action}"><input type="hidden" name="${button.field}" value="${button.value}">` +
        `<button type="submit">${escapeText(button.label)}</button></form>`
  const link = more === undefined ? '' : `<p><a href="${more.href}">${escapeText(more.label)}</a></p>`
  return sendPage(reply, status, pageOf(language, title, `<p>${escapeText(text)}</p>${form}${link}`))
}
