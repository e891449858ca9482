import { createHash } from 'node:crypto'
import PostalMime from 'postal-mime'
import type { Attachment, Email } from 'postal-mime'
import { mailBlame } from '../deliver/providers/mail-reply.ts'
import type { Receipt } from '../deliver/provider.ts'
import type { Id } from '../types.ts'

/** Of these, no more is read: recipients of one report. */
const MOST_RECIPIENTS = 60

/**
 * What a mail server or a mailbox provider reports about a message: delivery status notifications (RFC 3464, RFC 6533)
 * and complaints (ARF, RFC 5965). Empty for anything else, such as the automatic answer of somebody who is away.
 */
export async function readReport(raw: Buffer, notificationId: Id, now: Date): Promise<Receipt[]> {
  let mail: Email
  try {
    mail = await PostalMime.parse(raw, { maxNestingDepth: 20, maxHeadersSize: 256 * 1024 })
  } catch {
    return []
  }
  const part = (...types: string[]) =>
    mail.attachments.find(one => types.includes(one.mimeType.toLowerCase()))
  const complaint = part('message/feedback-report')
  if (complaint) return complaintOf(textOf(complaint), notificationId, now)
  const status = part('message/delivery-status', 'message/global-delivery-status')
  return status ? bouncesOf(textOf(status), notificationId, now) : []
}

const textOf = ({ content }: Attachment): string =>
  typeof content === 'string' ? content : Buffer.from(content as ArrayBuffer).toString('utf8')

/** Blocks of fields: the first is about the message, each other about one recipient (RFC 3464 §2.1). */
function blocksOf(text: string): Map<string, string>[] {
  return text
    .replaceAll(/\r\n?/g, '\n')
    .split(/\n[ \t]*\n/)
    .slice(0, MOST_RECIPIENTS + 1)
    .map(block => {
      const fields = new Map<string, string>()
      for (const line of block.replaceAll(/\n[ \t]+/g, ' ').split('\n')) {
        const colon = line.indexOf(':')
        const name = line.slice(0, colon).trim().toLowerCase()
        if (colon > 0 && !fields.has(name)) fields.set(name, line.slice(colon + 1).trim())
      }
      return fields
    })
}

function bouncesOf(text: string, notificationId: Id, now: Date): Receipt[] {
  return blocksOf(text).flatMap(fields => {
    const action = fields.get('action')?.toLowerCase().split(/\s/, 1)[0]
    const judged = judge(action, fields.get('status'), fields.get('diagnostic-code'))
    if (!judged) return []
    const address = addressOf(fields.get('original-recipient')) ?? addressOf(fields.get('final-recipient'))
    const diagnostic = fields.get('diagnostic-code')
    return {
      ...judged,
      at: now,
      notificationId,
      ...(address !== undefined && { address }),
      receiptId: idOf(action!, address ?? '', judged.vendorCode ?? ''),
      ...(diagnostic !== undefined && { detail: withoutAddress(diagnostic, address).slice(0, 500) }),
    }
  })
}

type Judged = Pick<Receipt, 'kind' | 'code' | 'vendorCode'>

/**
 * RFC 3463. Servers that relay put the finer status into the diagnostic, and `5.0.0` where the status belongs. Only what
 * says that the address does not exist bounces; a full mailbox or a policy is about today, or about us.
 */
function judge(action: string | undefined, status = '', diagnostic = ''): Judged | undefined {
  if (action === 'delivered') return { kind: 'delivered' }
  const told = /\b([245])\.(\d{1,3})\.(\d{1,3})\b/
  const own = told.exec(status)
  const theirs = told.exec(diagnostic)
  const [, cls, subject, detail] = (own && own[2] !== '0' ? own : (theirs ?? own)) ?? []
  const reply = /\b([45]\d\d)\b/.exec(diagnostic)?.[1]
  const vendorCode = cls === undefined ? reply : `${cls}.${subject}.${detail}`
  const facts = vendorCode === undefined ? {} : { vendorCode }
  if (action === 'delayed') return { kind: 'deferred', code: 'unavailable', ...facts }
  if (action !== 'failed') return undefined

  if (cls === '4' || (cls === undefined && reply?.startsWith('4')))
    return { kind: 'failed', code: 'unavailable', ...facts }
  switch (
    mailBlame(cls === undefined ? undefined : `${cls}.${subject}.${detail}`, Number(reply), diagnostic)
  ) {
    case 'address':
    case 'nowhere':
      return { kind: 'bounced', code: 'unknown_address', ...facts }
    case 'full':
      return { kind: 'failed', code: 'mailbox_full', ...facts }
    case 'size':
      return { kind: 'failed', code: 'too_large', ...facts }
    case 'content':
      return { kind: 'failed', code: 'content_refused', ...facts }
    case 'system':
      return { kind: 'failed', code: subject === '4' ? 'unavailable' : 'refused', ...facts }
    case 'sender':
    case 'policy':
      return { kind: 'failed', code: 'refused', ...facts }
  }
}

/** RFC 5965 §3. What somebody took back, and reports on signatures (RFC 6591), are no complaints. */
function complaintOf(text: string, notificationId: Id, now: Date): Receipt[] {
  const [fields] = blocksOf(text)
  const type = fields?.get('feedback-type')?.toLowerCase() ?? ''
  if (!fields || type === '' || type === 'not-spam' || type === 'auth-failure') return []
  const address = addressOf(fields.get('original-rcpt-to') ?? fields.get('removal-recipient'))
  return [
    {
      kind: 'complained',
      at: now,
      notificationId,
      // Most providers blot it out.
      ...(address !== undefined && { address }),
      receiptId: idOf('complaint', address ?? '', type),
      vendorCode: type.slice(0, 100),
    },
  ]
}

/** `rfc822; a@b` and `<a@b>`; what was escaped as xtext (RFC 3461 §4) is read. */
function addressOf(field: string | undefined): string | undefined {
  const text = field
    ?.slice(field.indexOf(';') + 1)
    .trim()
    .replace(/^<(.*)>$/, '$1')
    .replaceAll(/\+([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16)))
  return text !== undefined && /^[^\s<>@]+@[^\s<>@]+$/.test(text) && text.length <= 254 ? text : undefined
}

const withoutAddress = (words: string, address: string | undefined): string =>
  address === undefined ? words : words.replaceAll(address, '<address>')

/** The same for a report that comes again. */
const idOf = (...words: string[]): string =>
  createHash('sha256').update(words.join('\0').toLowerCase()).digest('base64url').slice(0, 22)
