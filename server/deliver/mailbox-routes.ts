import { createHash } from 'node:crypto'
import { isIP } from 'node:net'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery } from '../http/page.ts'
import type { Mailbox, MailMessage, MailSummary } from './mailbox.ts'

const LIST = 'mailbox'

const Summary = Type.Object({
  id: Type.String({ format: 'uuid' }),
  receivedAt: Type.String({ format: 'date-time' }),
  size: Type.Integer({ description: 'Bytes.' }),
  recipients: Type.Array(Type.String(), { description: 'Of the envelope: blind copies included.' }),
  from: Type.String(),
  to: Type.String(),
  subject: Type.String(),
})
const Full = Type.Object({
  ...Summary.properties,
  headers: Type.Array(Type.Object({ name: Type.String(), value: Type.String() })),
  text: Type.Optional(Type.String()),
  html: Type.Optional(Type.String()),
  attachments: Type.Array(
    Type.Object({ filename: Type.String(), contentType: Type.String(), size: Type.Integer() }),
  ),
})
const Params = Type.Object({ id: Type.String({ format: 'uuid' }) }, { additionalProperties: false })
const Query = Type.Object(pageQuery, { additionalProperties: false })
const NoQuery = Type.Object({}, { additionalProperties: false })

/**
 * The local mailbox, to read: pages at /dev/mailbox, the same as JSON beside them. Without credentials, because
 * the newcomer who opens it has none at hand, and therefore only for this machine.
 */
export function mailboxRoutes(api: Api, { mailbox }: { mailbox: Mailbox }): void {
  const config = { access: { role: 'public' as const }, limit: false as const }
  const preHandler = async (request: FastifyRequest) => requireThisMachine(request)
  const hidden = { hide: true }

  const find = async (id: string): Promise<MailMessage> => {
    const message = await mailbox.get(id)
    if (message === undefined) throw new AppError('not_found', 'The mailbox holds no such message.')
    return message
  }
  const list = async ({ cursor, limit }: { cursor?: string; limit: number }) => {
    const [before] = cursor === undefined ? [] : decodeCursor(LIST, cursor, ['id'])
    const page = await mailbox.list({ cursor: before as string | undefined, limit })
    return {
      items: page.items,
      nextCursor: page.nextCursor === null ? null : encodeCursor(LIST, [page.nextCursor]),
    }
  }

  api.get(
    '/dev/mailbox.json',
    {
      config,
      preHandler,
      schema: {
        tags: ['Mailbox'],
        summary: 'List the messages in the local mailbox, newest first',
        operationId: 'listMailbox',
        querystring: Query,
        response: { 200: pageOf(Summary) },
      },
    },
    async request => {
      const { items, nextCursor } = await list(request.query)
      return { items: items.map(summaryJson), nextCursor }
    },
  )

  api.get(
    '/dev/mailbox.json/:id',
    {
      config,
      preHandler,
      schema: {
        tags: ['Mailbox'],
        summary: 'Read a message in the local mailbox',
        operationId: 'getMailboxMessage',
        params: Params,
        querystring: NoQuery,
        response: { 200: Full },
      },
    },
    async request => {
      const message = await find(request.params.id)
      const { headers, text, html, attachments } = message
      return { ...summaryJson(message), headers, text, html, attachments }
    },
  )

  api.get(
    '/dev/mailbox',
    { config, preHandler, schema: { ...hidden, querystring: Query } },
    async (request, reply) => {
      const { items, nextCursor } = await list(request.query)
      return sendPage(reply, listPage(items, nextCursor))
    },
  )

  api.get(
    '/dev/mailbox/:id',
    { config, preHandler, schema: { ...hidden, params: Params, querystring: NoQuery } },
    async (request, reply) => sendPage(reply, messagePage(await find(request.params.id))),
  )

  // The HTML of a message, for the frame of its page. Sandboxed by its own policy too, should it be opened alone:
  // no scripts, no forms, nothing from elsewhere, not even pictures, which would tell their sender of the reader.
  api.get(
    '/dev/mailbox/:id/html',
    { config, preHandler, schema: { ...hidden, params: Params, querystring: NoQuery } },
    async (request, reply) => {
      const { html } = await find(request.params.id)
      if (html === undefined) throw new AppError('not_found', 'The message has no HTML.')
      return reply
        .header(
          'content-security-policy',
          "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        )
        .header('cache-control', 'no-store')
        .type('text/html; charset=utf-8')
        .send(openingLinksOutside(html))
    },
  )

  api.get(
    '/dev/mailbox/:id/raw',
    { config, preHandler, schema: { ...hidden, params: Params, querystring: NoQuery } },
    async (request, reply) => {
      const raw = await mailbox.raw(request.params.id)
      if (raw === undefined) throw new AppError('not_found', 'The mailbox holds no such message.')
      return reply
        .header('content-disposition', `attachment; filename="${request.params.id}.eml"`)
        .header('cache-control', 'no-store')
        .type('message/rfc822')
        .send(raw)
    },
  )
}

const summaryJson = ({ id, receivedAt, size, recipients, from, to, subject }: MailSummary) => ({
  id,
  receivedAt: receivedAt.toISOString(),
  size,
  recipients,
  from,
  to,
  subject,
})

/**
 * The connection must come from this machine, and the browser must have meant it: a foreign page whose name was
 * turned to 127.0.0.1 (DNS rebinding) still sends its own name as Host.
 */
function requireThisMachine({ headers, socket }: FastifyRequest): void {
  const forwarded = headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined
  const host = (headers.host ?? '').replace(/:\d+$/, '')
  if (!forwarded && isLoopback(socket.remoteAddress ?? '') && isLoopback(host)) return
  throw new AppError('forbidden', 'The mailbox is shown to this machine only: open it by http://localhost.')
}

function isLoopback(host: string): boolean {
  if (host === 'localhost') return true
  const bare = host.replace(/^\[(.*)\]$/, '$1').replace(/^::ffff:/, '')
  return bare === '::1' || (isIP(bare) === 4 && bare.startsWith('127.'))
}

/* ---------------------------------------------------------------- pages */

const STYLE = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 64rem; margin: 0 auto; padding: 1rem 1.25rem 3rem }
h1 { font-size: 1.4rem; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
caption { text-align: start; padding-block: .5rem; opacity: .75 }
th, td { text-align: start; vertical-align: top; padding: .45rem .6rem; border-bottom: 1px solid #8886; overflow-wrap: anywhere }
th { font-weight: 600 }
tbody th { width: 12rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; padding: 1rem; border: 1px solid #8886; border-radius: .4rem }
iframe { width: 100%; height: 32rem; border: 1px solid #8886; border-radius: .4rem; background: #fff }
a:focus-visible, summary:focus-visible, iframe:focus-visible { outline: 3px solid #2f6fde; outline-offset: 2px }
time, .size { white-space: nowrap }
`
const STYLE_HASH = createHash('sha256').update(STYLE).digest('base64')

const sendPage = (reply: FastifyReply, page: string) =>
  reply
    .header(
      'content-security-policy',
      `default-src 'none'; style-src 'sha256-${STYLE_HASH}'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    )
    .header('cache-control', 'no-store')
    .type('text/html; charset=utf-8')
    .send(page)

const ENTITIES: Record<string, string> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}
const escape = (text: string): string => text.replaceAll(/[&<>"']/g, character => ENTITIES[character] ?? '')

const document = (title: string, body: string): string => `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escape(title)} – Carillon mailbox</title>
<style>${STYLE}</style>
</head>
<body>
${body}
</body>
</html>
`

function listPage(items: MailSummary[], nextCursor: string | null): string {
  const rows = items.map(
    ({ id, receivedAt, recipients, from, subject, size }) => `<tr>
<td><a href="/dev/mailbox/${id}">${escape(subject) || '(no subject)'}</a></td>
<td>${escape(recipients.join(', '))}</td>
<td>${escape(from)}</td>
<td>${time(receivedAt)}</td>
<td class="size">${kilobytes(size)}</td>
</tr>`,
  )
  const table = `<table>
<caption>Newest first. Mail stays on this machine; nobody else gets it.</caption>
<thead><tr><th scope="col">Subject</th><th scope="col">To</th><th scope="col">From</th><th scope="col">Received</th><th scope="col">Size</th></tr></thead>
<tbody>
${rows.join('\n')}
</tbody>
</table>`
  const older =
    nextCursor === null
      ? ''
      : `\n<nav aria-label="Pages"><p><a rel="next" href="/dev/mailbox?cursor=${encodeURIComponent(nextCursor)}">Older messages</a></p></nav>`
  return document(
    'Messages',
    `<main>
<h1>Mailbox</h1>
${items.length === 0 ? '<p>No message yet. Mail that Carillon sends appears here.</p>' : table}${older}
</main>`,
  )
}

function messagePage(message: MailMessage): string {
  const { id, subject, text, html, headers, attachments } = message
  const facts: [string, string][] = [
    ['From', escape(message.from)],
    ['To', escape(message.to)],
    ['Delivered to', escape(message.recipients.join(', '))],
    ['Received', time(message.receivedAt)],
    ['Size', kilobytes(message.size)],
  ]
  const row = ([name, value]: [string, string]) => `<tr><th scope="row">${name}</th><td>${value}</td></tr>`
  const parts = [
    `<table>\n<tbody>\n${facts.map(row).join('\n')}\n</tbody>\n</table>`,
    text === undefined ? '' : `<h2>Text</h2>\n<pre>${escape(text)}</pre>`,
    html === undefined
      ? ''
      : `<h2>HTML</h2>\n<iframe title="The message as HTML" sandbox="allow-popups allow-popups-to-escape-sandbox" referrerpolicy="no-referrer" src="/dev/mailbox/${id}/html"></iframe>`,
    attachments.length === 0
      ? ''
      : `<h2>Attachments</h2>\n<ul>\n${attachments
          .map(
            each =>
              `<li>${escape(each.filename)} (${escape(each.contentType)}, ${kilobytes(each.size)})</li>`,
          )
          .join('\n')}\n</ul>`,
    `<h2>Headers</h2>\n<table>\n<tbody>\n${headers
      .map(({ name, value }) => row([escape(name), escape(value)]))
      .join('\n')}\n</tbody>\n</table>`,
    `<p><a href="/dev/mailbox/${id}/raw" download>The message as it came</a></p>`,
  ]
  return document(
    subject || '(no subject)',
    `<nav aria-label="Mailbox"><p><a href="/dev/mailbox">All messages</a></p></nav>
<main>
<h1>${escape(subject) || '(no subject)'}</h1>
${parts.filter(part => part !== '').join('\n')}
</main>`,
  )
}

const time = (at: Date): string =>
  `<time datetime="${at.toISOString()}">${at.toISOString().slice(0, 19).replace('T', ' ')} UTC</time>`

const kilobytes = (bytes: number): string => `${(bytes / 1000).toFixed(1)} kB`

/** Links would otherwise open inside the small frame. */
function openingLinksOutside(html: string): string {
  const base = '<base target="_blank">'
  const head = /<head[^>]{0,1000}>/i.exec(html)
  if (head === null) return base + html
  const end = head.index + head[0].length
  return html.slice(0, end) + base + html.slice(end)
}
