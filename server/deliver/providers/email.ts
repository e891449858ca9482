import { createHash } from 'node:crypto'
import { Type } from 'typebox'
import type { Attachment as RenderedAttachment, Json, Message } from '../../types.ts'
import { type DeliveryError, fit, permanent } from '../provider.ts'
import { isObject } from './answers.ts'

/** What every provider that sends e-mail shares: senders, the parts of a message, and how they are checked. */

/** One person or program with an address. */
export interface Mailbox {
  /** Empty when there is none. */
  name: string
  address: string
}

export interface EmailAttachment {
  filename: string
  contentType?: string
  content: Buffer
}

/** A message in the terms of e-mail, ready to be written in whatever form the vendor takes. */
export interface Email {
  from: Mailbox
  to: Mailbox
  /** Plain addresses. No address stands in two of to, cc and bcc. */
  cc: string[]
  bcc: string[]
  replyTo?: Mailbox
  /** One line. */
  subject: string
  text: string
  html?: string
  attachments: EmailAttachment[]
  /** `<…@domain>`, the same for every try: receivers can see a repetition (RFC 5322 §3.6.4). */
  messageId: string
  /** Of the notification, not of the try: the message is the same each time. */
  date: Date
  /** Beyond those that the fields above become. ASCII, one line each. */
  headers: Record<string, string>
}

export interface Sender {
  from: string
  replyTo?: string
}

// `a@b` or `Name <a@b>`: the name without brackets, the address without blanks.
const MAILBOX = '^(?:[^\\r\\n\\0<>]*<[^\\s<>@]+@[^\\s<>@]+>|[^\\s<>@]+@[^\\s<>@]+)$'

export const senderSettings = {
  from: Type.String({
    title: 'From',
    description: 'Such as: Example <noreply@example.com>',
    minLength: 3,
    maxLength: 998,
    pattern: MAILBOX,
  }),
  replyTo: Type.Optional(Type.String({ title: 'Reply-To', maxLength: 998, pattern: MAILBOX })),
}

const MAX_COPIES = 50
const MAX_ATTACHMENTS = 20
/** Decoded. Base64 makes 13.4 MB of it, below the 25 MB at which large providers stop. */
const MAX_ATTACHMENT_BYTES = 10_000_000

/**
 * Checks and arranges what is to be sent. `content.data.email` may carry `cc`, `bcc` (addresses), `replyTo` (one
 * address) and `attachments`, which come after those of the content itself.
 *
 * @throws DeliveryError, final: leaving out what cannot be sent would send another message.
 */
export function composeEmail(message: Message, sender: Sender): Email {
  const { content } = message
  const address = plainAddress(message.to, 'The address')
  const { email } = content.data ?? {}
  const extras = isObject(email) ? email : {}
  const seen = new Set([address.toLowerCase()])
  const cc = copies(extras.cc, 'cc', seen)
  const bcc = copies(extras.bcc, 'bcc', seen)
  const from = mailboxOf(sender.from)

  const headers: Record<string, string> = {
    // RFC 3834 §5: keeps out-of-office programs from answering.
    'Auto-Submitted': 'auto-generated',
    'X-Carillon-Notification': message.notificationId,
  }
  if (message.unsubscribeUrl !== undefined) {
    // RFC 2369 §3.2, RFC 8058 §3.1. Serialised by the URL parser, so it holds neither blank nor line end nor `>`.
    headers['List-Unsubscribe'] = `<${new URL(message.unsubscribeUrl).href}>`
    headers['List-Unsubscribe-Post'] = 'List-Unsubscribe=One-Click'
  }
  const domain = from.address.split('@').at(-1)
  if (message.thread !== undefined) {
    // RFC 5322 §3.6.4. Nobody ever got the mail they all refer to: mail programs group by the reference all the same.
    const root = createHash('sha256')
      .update(`${message.tenantId} ${message.thread}`)
      .digest('hex')
      .slice(0, 32)
    headers['In-Reply-To'] = headers.References = `<thread.${root}@${domain}>`
  }
  return {
    from,
    to: { name: '', address },
    cc,
    bcc,
    replyTo: replyToOf(extras.replyTo, sender.replyTo),
    // Control characters and line ends have no place in a header, whatever the vendor does with them.
    subject: (content.subject ?? '').replaceAll(/[\p{Cc}\u2028\u2029]+/gu, ' '),
    text: content.body,
    html: content.html,
    attachments: attachmentsOf(content.attachments, extras.attachments),
    messageId: `<${stableKey(message)}@${domain}>`,
    date: new Date(message.createdAt),
    headers,
  }
}

/** The idempotency key where it may stand in a Message-ID or a header, else its hash: the same for every try. */
export const stableKey = ({ idempotencyKey: key }: Message): string =>
  /^[A-Za-z0-9_.-]{1,128}$/.test(key) ? key : createHash('sha256').update(key).digest('hex')

/** Reads what `senderSettings` let pass: `Name <address>`, `"Name" <address>` or the address alone. */
export function mailboxOf(text: string): Mailbox {
  const [, given = '', address = text] = /^([^<]*)<([^<>]+)>\s*$/.exec(text) ?? []
  const name = /^"(.*)"$/.exec(given.trim())?.[1]?.replaceAll(/\\(.)/g, '$1') ?? given.trim()
  return { name, address: address.trim() }
}

/**
 * `"Name" <address>` (RFC 5322 §3.4). `encode`: a name beyond ASCII as encoded words (RFC 2047 §2), each of at
 * most 75 characters; otherwise as it is, for vendors that encode themselves.
 */
export function mailboxText({ name, address }: Mailbox, encode: boolean): string {
  if (name === '') return address
  if (!encode || /^[\x20-\x7e]*$/.test(name)) return `"${name.replaceAll(/["\\]/g, '\\$&')}" <${address}>`
  const words: string[] = []
  let word = ''
  for (const character of name) {
    // 42 bytes become 56 characters of base64; with the frame that makes 68.
    if (Buffer.byteLength(word + character) > 42) {
      words.push(word)
      word = ''
    }
    word += character
  }
  words.push(word)
  const encoded = words.map(each => `=?UTF-8?B?${Buffer.from(each).toString('base64')}?=`)
  return `${encoded.join(' ')} <${address}>`
}

/** Vendors like to repeat the address; attempts and logs outlive the person's data. */
export const withoutAddress = (words: string, to: string): string =>
  to === '' ? words : words.replaceAll(to, '<address>')

/** Why a message did not arrive, as the far end put it: for whoever looks into it, without the address. */
export const whyOf = (words: string | undefined, address: string | undefined): string | undefined =>
  words === undefined ? undefined : fit(withoutAddress(words, address ?? ''), 500)

/** Without the fields that say nothing: receipts are compared and stored as they are. */
export const defined = <T extends object>(given: T): T =>
  Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as T

/** More addresses than the vendor takes, copies included. */
export function tooManyRecipients(mail: Email, most: number): DeliveryError | undefined {
  if (1 + mail.cc.length + mail.bcc.length <= most) return undefined
  return permanent('too_large', `There are more than ${most} recipients`)
}

// One address and nothing else: without the characters that would make a list, a name or a header of it.
// Quoted local parts (RFC 5321 §4.1.2) are legal and unused; leaving them out leaves out their escapes.
const PLAIN_ADDRESS = /^[^\s\p{Cc}<>()[\]\\,;:"@]{1,64}@[^\s\p{Cc}<>()[\]\\,;:"@]{1,253}$/u

function plainAddress(given: Json | undefined, what: string): string {
  if (typeof given === 'string' && given.length <= 254 && PLAIN_ADDRESS.test(given)) return given
  throw permanent('invalid_address', `${what} is not a plain e-mail address`)
}

function replyToOf(given: Json | undefined, fallback: string | undefined): Mailbox | undefined {
  if (given !== undefined) return { name: '', address: plainAddress(given, 'replyTo') }
  return fallback === undefined ? undefined : mailboxOf(fallback)
}

/** Leaves out whom `seen` holds: vendors refuse a message that names one address twice, people dislike it. */
function copies(given: Json | undefined, what: string, seen: Set<string>): string[] {
  if (given === undefined) return []
  const list = Array.isArray(given) ? given : [given]
  if (list.length > MAX_COPIES) throw permanent('too_large', `${what} has more than ${MAX_COPIES} addresses`)
  return list
    .map(each => plainAddress(each, what))
    .filter(each => {
      const key = each.toLowerCase()
      if (seen.has(key)) return false
      seen.add(key)
      return true
    })
}

function attachmentsOf(rendered: RenderedAttachment[] = [], given: Json | undefined): EmailAttachment[] {
  if (given !== undefined && !Array.isArray(given)) {
    throw permanent('content_refused', 'attachments is not a list')
  }
  const all: readonly unknown[] = [...rendered, ...(given ?? [])]
  if (all.length > MAX_ATTACHMENTS) {
    throw permanent('too_large', `There are more than ${MAX_ATTACHMENTS} attachments`)
  }
  let bytes = 0
  return all.map((each, at) => {
    const { filename, contentType, content } = isObject(each as Json) ? (each as { [key: string]: Json }) : {}
    if (typeof filename !== 'string' || !/^[^\p{Cc}/\\]{1,255}$/u.test(filename)) {
      throw permanent('content_refused', `Attachment ${at} has no proper file name`)
    }
    if (contentType !== undefined && !isMediaType(contentType)) {
      throw permanent('content_refused', `Attachment ${at} has no proper content type`)
    }
    if (typeof content !== 'string' || !/^[A-Za-z0-9+/]*={0,2}$/.test(content)) {
      throw permanent('content_refused', `Attachment ${at} is not base64`)
    }
    const decoded = Buffer.from(content, 'base64')
    bytes += decoded.length
    if (bytes > MAX_ATTACHMENT_BYTES) {
      throw permanent('too_large', `The attachments exceed ${MAX_ATTACHMENT_BYTES} bytes`)
    }
    return { filename, contentType, content: decoded }
  })
}

const isMediaType = (given: Json | undefined): given is string =>
  typeof given === 'string' && /^[\w.+-]{1,100}\/[\w.+-]{1,100}$/.test(given)
