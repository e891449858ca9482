import { createWriteStream } from 'node:fs'
import { mkdir, readdir, readFile, rename, rm, stat } from 'node:fs/promises'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { callbackify } from 'node:util'
import PostalMime, { type Address, type Email } from 'postal-mime'
import { SMTPServer, type SMTPServerDataStream, type SMTPServerSession } from 'smtp-server'
import { idTime, isId, newId } from '../db/ids.ts'

/**
 * A real SMTP server on loopback that keeps what it is sent, so that embedded mode sends mail from the first
 * minute and nobody outside ever gets one. The newest messages survive restarts as `<id>.eml` files.
 */
export interface Mailbox {
  /** On 127.0.0.1. */
  port: number
  /** Newest first. `cursor`: the `nextCursor` of the page before. */
  list(page?: {
    cursor?: string
    limit?: number
  }): Promise<{ items: MailSummary[]; nextCursor: string | null }>
  get(id: string): Promise<MailMessage | undefined>
  /** The message as it came, behind the trace headers that say from and to whom it really went. */
  raw(id: string): Promise<Buffer | undefined>
  close(): Promise<void>
}

export interface MailSummary {
  id: string
  receivedAt: Date
  /** Bytes, as it came. */
  size: number
  /** Of the envelope: blind copies included. */
  recipients: string[]
  from: string
  to: string
  subject: string
}

export interface MailMessage extends MailSummary {
  /** In their order, unfolded. */
  headers: { name: string; value: string }[]
  text: string | undefined
  html: string | undefined
  attachments: { filename: string; contentType: string; size: number }[]
}

export interface MailboxOptions {
  /** Made when absent. */
  dir: string
  /** 0: any free one. */
  port: number
  /** Messages kept; the oldest goes first. Default 1,000. */
  keep?: number
  /** Bytes kept, all together. Default 100 MB. */
  keepBytes?: number
  /** A larger message is refused with 552. Default 30 MB. */
  maxMessageBytes?: number
}

interface Entry {
  id: string
  size: number
  /** Read when first asked for. */
  summary?: MailSummary
}

const MAX_PAGE = 200
/** Far more than the pools of one process open; a loop gone wild is told 421 instead of eating the memory. */
const MAX_CLIENTS = 100
/** What is shown of one body; the raw message has the rest. */
const MAX_SHOWN_CHARS = 1_000_000

/** @throws when the port is taken or the folder cannot be written */
export async function openMailbox(options: MailboxOptions): Promise<Mailbox> {
  const { dir, keep = 1_000, keepBytes = 100_000_000, maxMessageBytes = 30_000_000 } = options
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const pathOf = (id: string): string => join(dir, `${id}.eml`)

  // Oldest first: ids are in order of arrival.
  const entries = await readEntries(dir)
  let bytes = entries.reduce((sum, entry) => sum + entry.size, 0)

  const makeRoom = async (): Promise<void> => {
    while (entries.length > keep || (bytes > keepBytes && entries.length > 1)) {
      const oldest = entries.shift()
      if (oldest === undefined) return
      bytes -= oldest.size
      await rm(pathOf(oldest.id), { force: true })
    }
  }
  await makeRoom()

  const keepMessage = async (stream: SMTPServerDataStream, session: SMTPServerSession): Promise<void> => {
    const temporary = join(dir, `${newId()}.part`)
    try {
      const file = createWriteStream(temporary, { mode: 0o600 })
      file.write(traceHeaders(session))
      await pipeline(stream, file)
      if (stream.sizeExceeded) throw smtpError(552, `5.3.4 Larger than ${maxMessageBytes} bytes`)
      const { size } = await stat(temporary)
      // Named when complete, so that names are in the order of the answers.
      const id = newId()
      await rename(temporary, pathOf(id))
      entries.push({ id, size })
      bytes += size
    } catch (error) {
      await rm(temporary, { force: true })
      throw error instanceof Error && 'responseCode' in error
        ? error
        : smtpError(451, '4.3.0 Cannot be stored')
    }
    await makeRoom()
  }

  const server = new SMTPServer({
    banner: 'Carillon mailbox',
    disabledCommands: ['AUTH', 'STARTTLS'],
    authOptional: true,
    disableReverseLookup: true,
    size: maxMessageBytes,
    maxClients: MAX_CLIENTS,
    closeTimeout: 1_000,
    logger: false,
    onData: callbackify(keepMessage),
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.port, '127.0.0.1', () => {
      server.off('error', reject)
      resolve()
    })
  })
  // From now on: clients that break off, which is their business.
  server.on('error', () => {})

  const read = async (entry: Entry): Promise<{ raw: Buffer; mail: Email } | undefined> => {
    // Between the look and the read it may have made room for a newer one.
    const raw = await readFile(pathOf(entry.id)).catch(() => undefined)
    if (raw === undefined) return undefined
    return { raw, mail: await PostalMime.parse(raw).catch(unreadable) }
  }
  const summaryOf = async (entry: Entry): Promise<MailSummary | undefined> => {
    if (entry.summary === undefined) {
      const found = await read(entry)
      if (found !== undefined) entry.summary = summarise(entry, found.mail)
    }
    return entry.summary
  }

  return {
    port: (server.server.address() as AddressInfo).port,

    async list({ cursor, limit = 50 } = {}) {
      const newestFirst = entries.toReversed().filter(entry => cursor === undefined || entry.id < cursor)
      const page = newestFirst.slice(0, Math.max(1, Math.min(limit, MAX_PAGE)))
      const items: MailSummary[] = []
      // One after the other: a page of large messages must not be in memory at once.
      for (const entry of page) {
        const summary = await summaryOf(entry)
        if (summary !== undefined) items.push(summary)
      }
      const more = newestFirst.length > page.length
      return { items, nextCursor: more ? (page.at(-1)?.id ?? null) : null }
    },

    async get(id) {
      const entry = entries.find(each => each.id === id)
      const found = entry === undefined ? undefined : await read(entry)
      if (entry === undefined || found === undefined) return undefined
      const { mail } = found
      return {
        ...summarise(entry, mail),
        headers: mail.headers.map(({ originalKey, value }) => ({ name: originalKey, value })),
        text: mail.text?.slice(0, MAX_SHOWN_CHARS),
        html: mail.html?.slice(0, MAX_SHOWN_CHARS),
        attachments: mail.attachments.map(({ filename, mimeType, content }) => ({
          filename: filename ?? 'unnamed',
          contentType: mimeType,
          size: typeof content === 'string' ? content.length : content.byteLength,
        })),
      }
    },

    async raw(id) {
      const entry = entries.find(each => each.id === id)
      return entry === undefined ? undefined : (await read(entry))?.raw
    },

    close: () => new Promise(resolve => server.close(() => resolve())),
  }
}

async function readEntries(dir: string): Promise<Entry[]> {
  const entries: Entry[] = []
  for (const name of (await readdir(dir)).toSorted()) {
    // Left behind by a process that ended in the middle of a message; its sender was never told it was taken.
    if (name.endsWith('.part')) await rm(join(dir, name), { force: true })
    const id = name.slice(0, -'.eml'.length)
    if (!name.endsWith('.eml') || !isId(id)) continue
    entries.push({ id, size: (await stat(join(dir, name))).size })
  }
  return entries
}

/**
 * Who it really came from and went to, which the headers of a message need not say (RFC 5321 §4.4 for
 * Return-Path; Delivered-To is common use). The SMTP server has refused addresses with control characters.
 */
function traceHeaders({ envelope }: SMTPServerSession): string {
  const from = envelope.mailFrom === false ? '' : envelope.mailFrom.address
  const to = envelope.rcptTo.map(each => each.address)
  return [...to.map(each => `Delivered-To: ${each}`), `Return-Path: <${from}>`, ''].join('\r\n')
}

function summarise(entry: Entry, mail: Email): MailSummary {
  // Ours come first and end with Return-Path; what follows was in the message.
  const recipients: string[] = []
  for (const { key, value } of mail.headers) {
    if (key !== 'delivered-to') break
    recipients.push(value)
  }
  return {
    id: entry.id,
    receivedAt: new Date(idTime(entry.id)),
    size: entry.size,
    recipients,
    from: mail.from === undefined ? '' : showAddress(mail.from),
    to: (mail.to ?? []).map(showAddress).join(', '),
    subject: mail.subject ?? '',
  }
}

const showAddress = ({ name, address }: Address): string =>
  name === '' ? (address ?? '') : address === undefined ? name : `${name} <${address}>`

/** A message that cannot be parsed is still listed; its raw form can be read. */
const unreadable = (): Email => ({ headers: [], headerLines: [], attachments: [], subject: '(unreadable)' })

const smtpError = (responseCode: number, message: string): Error =>
  Object.assign(new Error(message), { responseCode })
