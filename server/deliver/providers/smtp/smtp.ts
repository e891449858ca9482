import { createPrivateKey, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import { Transform } from 'node:stream'
import { getCACertificates } from 'node:tls'
import { callbackify } from 'node:util'
import { createTransport, type SendMailOptions } from 'nodemailer'
import { type Static, Type } from 'typebox'
import type { Message } from '../../../types.ts'
import { mailBlame } from '../mail-reply.ts'
import {
  bounced,
  type Connection,
  DeliveryError,
  type OpenContext,
  permanent,
  type Provider,
  rejected,
  secret,
  temporary,
  unknown,
} from '../../provider.ts'
import { composeEmail, mailboxOf, senderSettings, withoutAddress } from '../email.ts'

const ONE_LINE = '^[^\\r\\n\\0]+$'

const settings = Type.Object(
  {
    host: Type.String({ title: 'Host', minLength: 1, maxLength: 253, pattern: '^[A-Za-z0-9.:_-]+$' }),
    port: Type.Integer({
      title: 'Port',
      description: '587 for submission with STARTTLS, 465 for TLS from the first byte.',
      default: 587,
      minimum: 1,
      maximum: 65_535,
    }),
    secure: Type.Optional(
      Type.Boolean({ title: 'TLS from the first byte', description: 'Default: on port 465 only.' }),
    ),
    tls: Type.Union(
      [Type.Literal('auto'), Type.Literal('required'), Type.Literal('opportunistic'), Type.Literal('off')],
      {
        title: 'STARTTLS',
        description:
          'auto: required, except towards this machine itself. opportunistic: where it is offered.',
        default: 'auto',
      },
    ),
    ca: Type.Optional(
      Type.String({
        title: 'Certificate authority',
        description: 'PEM; trusted besides those of the system.',
        maxLength: 100_000,
      }),
    ),
    user: Type.Optional(Type.String({ title: 'User', minLength: 1, maxLength: 320 })),
    password: Type.Optional(secret({ title: 'Password', description: 'Of the SMTP account.' })),
    ...senderSettings,
    returnPath: Type.Optional(
      Type.String({
        title: 'Return path',
        description:
          'Where bounces go. Default: CARILLON_BOUNCE_ADDRESS, with what names the delivery, where that is set; else From.',
        maxLength: 254,
        pattern: ONE_LINE,
      }),
    ),
    dkim: Type.Optional(
      Type.Object(
        {
          selector: Type.String({
            title: 'Selector',
            pattern: '^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$',
          }),
          domain: Type.Optional(
            Type.String({
              title: 'Domain',
              description: 'Default: that of From.',
              pattern: '^[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$',
            }),
          ),
          privateKey: secret({
            title: 'Private key',
            description: 'RSA, 1,024 bits or more (RFC 8301), PEM.',
          }),
        },
        {
          additionalProperties: false,
          title: 'DKIM',
          description: 'Signs every message (RFC 6376), where the mail server does not do so itself.',
        },
      ),
    ),
    clientName: Type.Optional(
      Type.String({
        title: 'EHLO name',
        description: 'Default: the host name of this machine.',
        maxLength: 253,
        pattern: '^[A-Za-z0-9.:_\\[\\]-]+$',
      }),
    ),
    connections: Type.Integer({ title: 'Connections', default: 5, minimum: 1, maximum: 100 }),
    messagesPerConnection: Type.Integer({
      title: 'Messages per connection',
      default: 100,
      minimum: 1,
      maximum: 100_000,
    }),
    timeoutSeconds: Type.Number({
      title: 'Timeout',
      description: 'Seconds without an answer of the server; a whole message may take three times as long.',
      default: 30,
      minimum: 0.1,
      maximum: 600,
    }),
  },
  { additionalProperties: false },
)

export type SmtpSettings = Static<typeof settings>

interface SmtpConnection extends Connection {
  transport: ReturnType<typeof openTransport>
}

/** E-mail through any SMTP server (RFC 5321), over a pool of connections. */
export const smtp: Provider<SmtpSettings, SmtpConnection> = {
  id: 'smtp',
  channel: 'email',
  title: 'SMTP',
  settings,

  open(ctx) {
    const transport = openTransport(ctx)
    return { transport, close: () => transport.close() }
  },

  async send(message, { connection, settings: own, signal }) {
    const mail = compose(message, own)
    // A message is only delivered once its last line and the final dot arrived (RFC 5321 §4.1.1.4): before that
    // a broken connection means that nothing happened.
    let written = false
    const deadline = AbortSignal.timeout(own.timeoutSeconds * 3000)
    try {
      const info = await connection.transport.sendMail({
        ...mail,
        signal: AbortSignal.any([signal, deadline]),
        onWritten: () => {
          written = true
        },
      } as TrackedMail)
      // Copies may have been accepted where the recipient was not.
      const refusal = info.rejectedErrors?.find(each => each.recipient === message.to)
      if (refusal !== undefined) throw judgeReply(refusal, message.to)
      return {
        outcome: 'sent',
        providerMessageId: info.serverMessageId ?? mail.messageId,
        code: info.response.slice(0, 3),
        response: withoutAddress(info.response, message.to),
      }
    } catch (thrown) {
      const error = thrown as SmtpError
      if (error.code !== 'EABORT') throw judge(error, written, message.to)
      const why = signal.aborted ? 'aborted' : 'timeout'
      throw written ? unknown(why) : temporary(why)
    }
  },

  async check({ connection }) {
    try {
      await connection.transport.verify()
    } catch (thrown) {
      throw judge(thrown as SmtpError, false, '')
    }
  },
}

/* ---------------------------------------------------------------- connections */

interface TrackedMail extends SendMailOptions {
  messageId: string
  /** Called when the last byte of the message was handed to the connection. */
  onWritten?: () => void
}

function openTransport({ http, settings: own }: OpenContext<SmtpSettings>) {
  const secure = own.secure ?? own.port === 465
  const here = isThisMachine(own.host)
  const timeoutMs = own.timeoutSeconds * 1000
  const transport = createTransport({
    pool: true,
    host: own.host,
    port: own.port,
    secure,
    requireTLS: !secure && (own.tls === 'required' || (own.tls === 'auto' && !here)),
    // A relay on this machine often has a certificate that nobody signed, and nobody listens in between.
    ignoreTLS: own.tls === 'off' || (own.tls === 'auto' && here),
    tls: {
      minVersion: 'TLSv1.2',
      ca: own.ca === undefined ? undefined : [...getCACertificates('default'), own.ca],
    },
    auth: own.user === undefined ? undefined : { user: own.user, pass: own.password?.reveal() ?? '' },
    name: own.clientName,
    maxConnections: own.connections,
    maxMessages: own.messagesPerConnection,
    // Only ever repeats a message of which not a byte was sent, on a connection the server had dropped while
    // it was idle.
    maxRequeues: 1,
    connectionTimeout: timeoutMs,
    greetingTimeout: timeoutMs,
    socketTimeout: timeoutMs,
    dkim: own.dkim && signerFor(own.dkim, own.from),
    disableFileAccess: true,
    disableUrlAccess: true,
    getSocket: callbackify(async (_options: unknown) => ({
      connection: await http.connect({ host: own.host, port: own.port, timeoutMs }),
    })),
  })
  transport.use('stream', (mail, done) => {
    const { onWritten } = mail.data as TrackedMail
    mail.message.transform(
      () =>
        new Transform({
          transform: (chunk, _encoding, next) => next(null, chunk),
          flush(next) {
            onWritten?.()
            next()
          },
        }),
    )
    done()
  })
  // What goes wrong with a message is told to its sender; an idle connection that breaks interests nobody.
  transport.on('error', () => {})
  return transport
}

// RFC 6376 §5.4.1, and what RFC 8058 §4 demands of one-click unsubscribing. Not what servers on the way may change.
const SIGNED =
  'From:Sender:Reply-To:Subject:Date:Message-ID:To:Cc:MIME-Version:Content-Type:Content-Transfer-Encoding:' +
  'List-Unsubscribe:List-Unsubscribe-Post:Auto-Submitted'

/** Refuses a key that cannot sign: nodemailer would leave the signature out and say nothing. */
function signerFor({ selector, domain, privateKey }: NonNullable<SmtpSettings['dkim']>, from: string) {
  let key: KeyObject
  try {
    key = createPrivateKey(privateKey.reveal())
  } catch {
    // What OpenSSL says may quote the key.
    throw permanent('invalid_settings', 'The DKIM key is no private key in PEM form without a passphrase')
  }
  const bits = key.asymmetricKeyDetails?.modulusLength ?? 0
  if (key.asymmetricKeyType !== 'rsa' || bits < 1024)
    throw permanent('invalid_settings', 'The DKIM key is not RSA with 1,024 bits or more')
  return {
    keySelector: selector,
    domainName: domain ?? mailboxOf(from).address.split('@').at(-1)!,
    privateKey: key,
    headerFieldNames: SIGNED,
  }
}

const isThisMachine = (host: string): boolean =>
  host === 'localhost' || host === '::1' || (isIP(host) === 4 && host.startsWith('127.'))

/* ---------------------------------------------------------------- the message */

function compose(message: Message, own: SmtpSettings): TrackedMail {
  const mail = composeEmail(message, own)
  const headers: Record<string, string | { prepared: true; value: string }> = { ...mail.headers }
  const unsubscribe = mail.headers['List-Unsubscribe']
  // "prepared", because folding would break the link in two for some receivers.
  if (unsubscribe !== undefined) headers['List-Unsubscribe'] = { prepared: true, value: unsubscribe }
  return {
    messageId: mail.messageId,
    date: mail.date,
    from: mail.from,
    to: mail.to,
    cc: mail.cc,
    bcc: mail.bcc,
    replyTo: mail.replyTo,
    envelope: {
      from: own.returnPath ?? message.returnPath ?? mail.from.address,
      to: [mail.to.address, ...mail.cc, ...mail.bcc],
    },
    // Servers that know of it (RFC 3461) name the address we wrote to, whatever it was forwarded to. One field holds
    // for all recipients, so with copies there is none.
    dsn: {
      ret: 'HDRS',
      notify: ['FAILURE', 'DELAY'],
      ...(mail.cc.length + mail.bcc.length === 0 && { recipient: mail.to.address }),
    },
    subject: mail.subject,
    text: mail.text,
    html: mail.html,
    attachments: mail.attachments,
    headers,
    xMailer: false,
  }
}

/* ---------------------------------------------------------------- verdicts */

/** What nodemailer attaches to its errors. */
interface SmtpError extends Error {
  code?: string
  command?: string
  response?: string
  responseCode?: number
  recipient?: string
  rejectedErrors?: SmtpError[]
}

function judge(error: SmtpError, written: boolean, to: string): DeliveryError {
  if (error instanceof DeliveryError) return error
  const own = error.rejectedErrors?.find(each => each.recipient === to)
  if ((own ?? error).responseCode !== undefined && (own ?? error).responseCode !== 0)
    return judgeReply(own ?? error, to)
  const facts = { cause: error }
  if (written) {
    if (error.code === 'ETIMEDOUT') return unknown('timeout', undefined, facts)
    const garbled = error.code === 'EMESSAGE' || error.code === 'EPROTOCOL'
    return unknown(garbled ? 'garbled_answer' : 'no_answer', undefined, facts)
  }
  switch (error.code) {
    case 'EAUTH':
    case 'ENOAUTH':
      return temporary('auth', undefined, facts)
    case 'ETLS':
      return temporary('tls_failed', undefined, facts)
    case 'EMESSAGE':
      // The one that comes without a reply: the server announced its limit (RFC 1870) and this is beyond it.
      return permanent('too_large', undefined, facts)
    case 'EENVELOPE':
      return permanent('invalid_address', undefined, facts)
    case 'EPROTOCOL':
      return temporary('unavailable', 'The server does not speak SMTP', facts)
    default:
      return temporary('connection_failed', undefined, facts)
  }
}

/** A reply of the server (RFC 5321 §4.2), finer where it carries an enhanced code (RFC 3463). */
function judgeReply(error: SmtpError, to: string): DeliveryError {
  const reply = error.response ?? ''
  const status = error.responseCode ?? Number(reply.slice(0, 3))
  const enhanced = /^\d{3}[ -](\d)\.(\d{1,3})\.(\d{1,3})/.exec(reply)
  const code = enhanced === null ? undefined : `${enhanced[1]}.${enhanced[2]}.${enhanced[3]}`
  const facts = {
    vendorCode: code === undefined ? String(status) : `${status} ${code}`,
    response: withoutAddress(reply, to),
  }
  const detail = `SMTP ${facts.vendorCode}${error.command === undefined ? '' : ` at ${error.command}`}`

  // Our account, not this message: 530 and 534 ask for authentication, 535 refuses it (RFC 4954 §6).
  if (error.code === 'EAUTH' || status === 530 || status === 534 || status === 535) {
    return temporary('auth', detail, facts)
  }
  const full = code?.endsWith('.2.2') === true || status === 552 || status === 452
  const atRecipient = error.command === 'RCPT TO'
  if (error.code === 'ETLS') return temporary('tls_failed', detail, facts)
  // What is said before the message's own commands (a greeting of 554, a refused EHLO) is about the session.
  if (!atRecipient && error.command !== 'MAIL FROM' && error.command !== 'DATA') {
    return temporary('unavailable', detail, facts)
  }
  if (status < 500) {
    return temporary(full && atRecipient ? 'mailbox_full' : 'unavailable', detail, facts)
  }
  // "Bad sequence of commands" says something about the session, nothing about the message.
  if (status === 503) return temporary('unavailable', detail, facts)
  if (atRecipient) {
    if (full) return bounced('mailbox_full', detail, facts)
    switch (mailBlame(code, status, reply)) {
      case 'address':
      case 'nowhere':
        return bounced('unknown_address', detail, facts)
      // Servers look at the sender when they hear the recipient; said of one it is said of all.
      case 'sender':
        return rejected('forbidden', detail, facts)
      case 'size':
        return permanent('too_large', detail, facts)
      default:
        return rejected('refused', detail, facts)
    }
  }
  if (error.command === 'MAIL FROM') {
    return full ? permanent('too_large', detail, facts) : rejected('forbidden', detail, facts)
  }
  if (full || code === '5.3.4') return permanent('too_large', detail, facts)
  return rejected('content_refused', detail, facts)
}
