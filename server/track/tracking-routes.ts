import { createHash } from 'node:crypto'
import type { FastifyReply, FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { Api } from '../http/api.ts'
import { MAX_TOKEN } from './links.ts'
import type { Tracked, TrackingLinks } from './links.ts'
import { machineOf } from './machines.ts'
import type { Receipts } from './receipts.ts'

/** A transparent GIF of one pixel: 42 bytes. */
const PIXEL = Buffer.from('R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7', 'base64')
/** Image proxies of large mailbox providers and gateways of companies load for thousands of people. */
const PER_ADDRESS_A_MINUTE = 6_000
/** Notes that are being written; a burst beyond them is answered and not noted, for the database's sake. */
const MOST_AT_ONCE = 500
/** However often somebody loads it, it is noted once in this time. */
const ONCE_MS = 3_600_000

const Params = Type.Object(
  { token: Type.String({ maxLength: MAX_TOKEN + 4 }) },
  { additionalProperties: false },
)
// As long as a token: whoever copied more than the code is told so in words, not as a program is.
const ShortParams = Type.Object(
  { code: Type.String({ maxLength: MAX_TOKEN + 4 }) },
  { additionalProperties: false },
)
const Query = Type.Object({}, { additionalProperties: true })

const NOT_VALID =
  '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>This link is not valid</title></head>' +
  '<body><main><h1>This link is not valid</h1><p>It may have been cut off. Copy the whole link from the message.</p>' +
  '</main></body></html>\n'

/**
 * Where links and pictures of tracked mails lead. A link redirects at once, to a target that its signature covers, and
 * the note is written behind it: a reader does not wait for our database, and finds the way while it is down.
 */
export function trackingRoutes(
  api: Api,
  parts: {
    links: Pick<TrackingLinks, 'readLink' | 'readPicture'>
    /** What a short link leads to; undefined: it never was one of ours, or is too old. */
    findShort(code: string): Promise<(Tracked & { target: string; noted: boolean }) | undefined>
    receipts: Pick<Receipts, 'take'>
    now(): Date
    onError(error: unknown): void
  },
): void {
  const { links, findShort, receipts, now, onError } = parts
  let writing = 0

  function note(request: FastifyRequest, { notificationId, channel }: Tracked, what: Note): void {
    // A check of the link, not a visit.
    if (request.method === 'HEAD' || writing >= MOST_AT_ONCE) return
    const at = now()
    const { headers } = request
    const machine = machineOf({
      userAgent: headers['user-agent'],
      purpose: [headers.purpose, headers['sec-purpose'], headers['x-moz']].flat().join(' '),
    })
    const hour = Math.floor(at.getTime() / ONCE_MS)
    const of =
      what.detail === undefined
        ? ''
        : createHash('sha256').update(what.target!).digest('base64url').slice(0, 16)
    writing++
    receipts
      .take('carillon', channel, [
        {
          kind: what.kind,
          at,
          notificationId,
          receiptId: [what.kind, of, machine ?? '', hour].join(' '),
          ...(machine !== undefined && { machine }),
          ...(what.detail !== undefined && { detail: what.detail }),
        },
      ])
      .catch(onError)
      .finally(() => writing--)
  }

  const config = { access: { role: 'public' }, limit: PER_ADDRESS_A_MINUTE } as const
  const schema = { hide: true, params: Params, querystring: Query } as const
  const shortSchema = { hide: true, params: ShortParams, querystring: Query } as const

  api.get('/l/:token', { config, schema }, async (request, reply) => {
    const link = links.readLink(request.params.token)
    if (!link) return plain(reply.code(404)).type('text/html; charset=utf-8').send(NOT_VALID)
    note(request, link, { kind: 'clicked', target: link.target, detail: withoutKeys(link.target) })
    return plain(reply.code(302)).header('location', link.target).send()
  })

  api.get('/s/:code', { config, schema: shortSchema }, async (request, reply) => {
    const link = await findShort(request.params.code)
    if (!link) return plain(reply.code(404)).type('text/html; charset=utf-8').send(NOT_VALID)
    if (link.noted)
      note(request, link, { kind: 'clicked', target: link.target, detail: withoutKeys(link.target) })
    return plain(reply.code(302)).header('location', link.target).send()
  })

  api.get('/i/:token', { config, schema }, async (request, reply) => {
    const picture = links.readPicture(request.params.token)
    if (!picture) return plain(reply.code(404)).send()
    note(request, picture, { kind: 'opened' })
    return plain(reply.code(200)).type('image/gif').send(PIXEL)
  })
}

interface Note {
  kind: 'opened' | 'clicked'
  target?: string
  detail?: string
}

/** What is kept of a target: queries and fragments carry keys, such as those that log somebody in. */
function withoutKeys(target: string): string {
  const { origin, pathname } = new URL(target)
  return `${origin}${pathname}`
}

const plain = (reply: FastifyReply): FastifyReply =>
  reply.headers({
    'cache-control': 'no-store, private',
    'referrer-policy': 'no-referrer',
    'x-robots-tag': 'noindex, nofollow',
  })
