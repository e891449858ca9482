import { PassThrough } from 'node:stream'
import websocket from '@fastify/websocket'
import type { FastifyRequest } from 'fastify'
import { Type } from 'typebox'
import type { WebSocket } from 'ws'
import { type Db } from '../db/pool.ts'
import { isId } from '../db/ids.ts'
import { AppError } from '../errors.ts'
import type { Access, Api, Caller } from '../http/api.ts'
import { type Auth, credentialsOf, requireAccess } from '../http/auth.ts'
import { type FeedStore, MAX_MARKED } from './feed.ts'
import type { EndReason, Envelope, Hub, Person, Sink, Subscription } from './hub.ts'
import { readerOf } from './reader.ts'
import { type Reader, issueTicket, redeemTicket } from './tickets.ts'

/** WebSocket subprotocols (RFC 6455 §1.9): the first is ours, the second carries a ticket. */
const PROTOCOL = 'carillon.v1'
const TICKET_PROTOCOL = 'carillon.ticket.'

const MAX_MESSAGE_BYTES = 4096
/** Messages a client may send in ten seconds, and marks of one client that may be waiting. */
const MESSAGES = 100
const MESSAGES_MS = 10_000
const MAX_WAITING_MARKS = 16
const MISSED_PONGS = 2
/** How long the other end gets to close properly. */
const CLOSE_MS = 2_000
const MAX_POLL_SECONDS = 60

/** RFC 6455 §7.4.1 and its registry; 4001 is ours. */
const CLOSE_CODES: Record<EndReason, number> = { restart: 1012, age: 4001, slow: 1013, dead: 1006 }

const tags = ['Realtime']
const userId = Type.Optional(Type.String({ minLength: 1, maxLength: 255 }))
const After = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const ACCESS: Access = { role: 'user', scope: 'notifications:read', queryToken: true }

/**
 * The words of a solution for what happens in an inbox: another shape of an envelope, the same envelope, or nothing.
 * Numbers, resuming and credentials are as they are.
 */
export type Dialect = (envelope: Envelope, person: Person) => object | undefined

interface StreamQuery {
  userId?: string
  as?: string
  after?: number
  ticket?: string
  access_token?: string
}

export interface RealtimeDeps {
  db: Db
  auth: Auth
  feed: FeedStore
  hub: Hub
  now?: () => Date
  /** By the name under which a client asks for it. */
  dialects?: ReadonlyMap<string, Dialect>
  /** Told about marks that failed; the client's connection is closed with 1011. */
  onError?: (error: unknown) => void
}

/** `/realtime` by WebSocket and SSE, `/realtime/poll`, and tickets for clients that cannot send headers. */
export function realtimeRoutes(api: Api, deps: RealtimeDeps): void {
  const { db, auth, feed, hub, onError = () => {} } = deps
  const now = deps.now ?? (() => new Date())
  const sockets = new Set<WebSocket>()
  /** Who opened it, from before the upgrade to the handler. */
  const readers = new WeakMap<object, Reader>()

  api.post(
    '/realtime/ticket',
    {
      config: { access: { role: 'user', scope: 'notifications:read' } },
      schema: {
        tags,
        operationId: 'createRealtimeTicket',
        summary: 'Get a ticket that opens one stream, once',
        description:
          'For browsers: `?ticket=` at /realtime, or the WebSocket subprotocols `carillon.v1` and `carillon.ticket.<ticket>`.',
        querystring: Type.Object({ userId }, { additionalProperties: false }),
        response: {
          201: Type.Object({ ticket: Type.String(), expiresAt: Type.String({ format: 'date-time' }) }),
        },
      },
    },
    async (request, reply) => {
      const { ticket, expiresAt } = await issueTicket(
        db,
        readerFor(request.caller, request.query.userId),
        now(),
      )
      return reply
        .code(201)
        .header('cache-control', 'no-store')
        .send({ ticket, expiresAt: expiresAt.toISOString() })
    },
  )

  api.get(
    '/realtime/poll',
    {
      config: { access: ACCESS },
      schema: {
        tags,
        operationId: 'pollRealtime',
        summary: 'Wait for what comes after a number, and take it',
        description: 'Without `after` it answers at once with where the inbox stands.',
        querystring: Type.Object(
          {
            userId,
            after: Type.Optional(After),
            timeout: Type.Optional(
              Type.Integer({ minimum: 0, maximum: MAX_POLL_SECONDS, default: 25, description: 'Seconds' }),
            ),
            access_token: Type.Optional(Type.String({ maxLength: 8192 })),
          },
          { additionalProperties: false },
        ),
        response: {
          200: Type.Object({
            envelopes: Type.Array(
              Type.Object({
                seq: Type.Integer(),
                type: Type.String(),
                at: Type.String({ format: 'date-time' }),
                data: Type.Unknown(),
              }),
            ),
            after: Type.Integer(),
          }),
        },
      },
    },
    async (request, reply) => {
      const { after = null, timeout = 25 } = request.query
      const person = readerOf(request.caller, request.query.userId)
      reply.header('cache-control', 'no-store')
      return poll(person, after, timeout * 1000, done => reply.raw.once('close', done))
    },
  )

  function poll(
    person: Person,
    after: number | null,
    timeoutMs: number,
    onGone: (done: () => void) => void,
  ): Promise<{ envelopes: Envelope[]; after: number }> {
    const envelopes: Envelope[] = []
    let counts: Envelope | undefined
    let bytes = 0
    return new Promise(resolve => {
      const finish = () => {
        clearTimeout(timer)
        subscription.unsubscribe()
        resolve({
          envelopes: [...envelopes, ...(counts ? [counts] : [])],
          after: subscription.seq ?? after ?? 0,
        })
      }
      const sink: Sink = {
        send(envelope, json) {
          if (envelope.type === 'ping') return
          // Of the badge only the last word counts.
          if (envelope.type === 'counts') counts = envelope
          else envelopes.push(envelope)
          bytes += json.length
          // The rest of the page comes in the same turn. Counts alone are no news, except as the first answer.
          if (envelope.type !== 'counts' || after === null) queueMicrotask(finish)
        },
        buffered: () => bytes,
        end: finish,
      }
      const subscription = hub.subscribe(person, after, sink)
      const timer = setTimeout(finish, timeoutMs)
      onGone(finish)
    })
  }

  // In its own scope: the plugin must be there before the route that it upgrades.
  void api.register(async scope => {
    if (!scope.hasDecorator('websocketServer')) {
      await scope.register(websocket, {
        options: {
          maxPayload: MAX_MESSAGE_BYTES,
          handleProtocols: protocols => (protocols.has(PROTOCOL) ? PROTOCOL : false),
        },
        errorHandler(_error, socket) {
          // Broken frames, too large messages, resets: the other end's doing, and the socket is closed with its code.
          socket.terminate()
        },
        preClose: () => endAll(),
      })
    } else {
      scope.addHook('preClose', () => endAll())
    }

    scope.route<{ Querystring: StreamQuery }>({
      method: 'GET',
      url: '/realtime',
      // Credentials come in more ways than everywhere else, so they are looked at here.
      config: { access: { role: 'public' } },
      exposeHeadRoute: false,
      schema: {
        tags,
        operationId: 'openRealtime',
        summary: 'Follow an inbox live, by WebSocket or as server-sent events',
        description:
          'Envelopes `{seq, type, at, data}`; any of their `seq` is a place to resume from, with `after` or, for ' +
          'server-sent events, `Last-Event-ID`. Credentials: Authorization, `?access_token=`, or a ticket. A ' +
          'WebSocket client may send `{"type":"ping"}`, `{"type":"ack","seq":n}`, `{"type":"read","ids":[…]}` and ' +
          '`{"type":"seen","ids":[…]}`.',
        querystring: Type.Object(
          {
            userId,
            as: Type.Optional(
              Type.String({ maxLength: 50, description: 'Whose words it speaks: those of a solution.' }),
            ),
            after: Type.Optional(After),
            ticket: Type.Optional(Type.String({ maxLength: 64 })),
            access_token: Type.Optional(Type.String({ maxLength: 8192 })),
          },
          { additionalProperties: false },
        ),
        response: { 200: { content: { 'text/event-stream': { schema: Type.String() } } } },
      },
      preHandler: async request => {
        dialectOf(request.query)
        readers.set(request, await whoOpens(request, request.query))
      },
      handler: (request, reply) => {
        const after = lastEventId(request) ?? request.query.after ?? null
        const stream = new PassThrough()
        const raw = reply.raw
        const reader = readers.get(request)!
        const say = dialectOf(request.query)
        const sink: Sink = {
          send(envelope, json) {
            const said = inWords(say, envelope, json, reader)
            if (said !== undefined) stream.write(`id: ${envelope.seq}\ndata: ${said}\n\n`)
          },
          buffered: () => stream.writableLength + stream.readableLength + raw.writableLength,
          end: () => void stream.end(),
        }
        const subscription = hub.subscribe(reader, after, sink)
        stream.on('drain', () => subscription.drained())
        stream.on('close', () => subscription.unsubscribe())
        raw.on('close', () => stream.destroy())
        // The client learns at once that it is connected, and waits a second before it connects again.
        stream.write('retry: 1000\n: connected\n\n')
        return (
          reply
            .header('content-type', 'text/event-stream; charset=utf-8')
            // Kept alive, it would be idle after its end, and hold up a process that stops for the idle timeout.
            .header('connection', 'close')
            .header('cache-control', 'no-store')
            .header('x-accel-buffering', 'no')
            .send(stream)
        )
      },
      wsHandler: (socket, request) => {
        serve(socket, readers.get(request)!, request.query.after ?? null, dialectOf(request.query))
      },
    })
  })

  async function whoOpens(request: FastifyRequest, query: StreamQuery): Promise<Reader> {
    const ticket = query.ticket ?? ticketProtocol(request)
    if (ticket === undefined) {
      const caller = await auth.authenticate(credentialsOf(request, ACCESS))
      requireAccess(caller, ACCESS)
      return readerFor(caller, query.userId)
    }
    const reader = await redeemTicket(db, ticket, now())
    if (reader === undefined) throw new AppError('unauthenticated', 'The ticket was used or has expired.')
    if (query.userId !== undefined && query.userId !== reader.userId) {
      throw new AppError('forbidden', 'The ticket opens the inbox of another person.')
    }
    return reader
  }

  function dialectOf({ as }: StreamQuery): Dialect | undefined {
    if (as === undefined) return undefined
    const found = deps.dialects?.get(as)
    if (found === undefined)
      throw new AppError('invalid_request', 'Nobody here speaks like that.', { field: 'as' })
    return found
  }

  function serve(socket: WebSocket, person: Reader, after: number | null, say: Dialect | undefined): void {
    sockets.add(socket)
    let unanswered = 0
    let subscription: Subscription | undefined
    const sink: Sink = {
      send(envelope, json) {
        const said = inWords(say, envelope, json, person)
        if (said === undefined) return
        // Called back when the kernel took it: until then it counts as buffered.
        socket.send(said, () => {
          if (socket.bufferedAmount < LOW_BYTES) subscription?.drained()
        })
      },
      buffered: () => socket.bufferedAmount,
      alive() {
        if (unanswered >= MISSED_PONGS) return false
        unanswered++
        socket.ping()
        return true
      },
      end(reason) {
        if (reason === 'dead') socket.terminate()
        else closeSocket(socket, CLOSE_CODES[reason], reason)
      },
    }
    socket.on('pong', () => {
      unanswered = 0
    })
    socket.on('close', () => {
      sockets.delete(socket)
      subscription?.unsubscribe()
    })
    try {
      subscription = hub.subscribe(person, after, sink)
    } catch (error) {
      closeSocket(socket, 1013, error instanceof AppError ? error.code : 'internal')
      return
    }
    const current = subscription

    let marks = Promise.resolve()
    let waitingMarks = 0
    let received = 0
    let windowEnds = 0
    socket.on('message', (data, isBinary) => {
      if (socket.readyState !== socket.OPEN) return
      unanswered = 0
      const at = now()
      if (at.getTime() >= windowEnds) {
        windowEnds = at.getTime() + MESSAGES_MS
        received = 0
      }
      const message = isBinary ? undefined : parseMessage((data as Buffer).toString('utf8'))
      if (++received > MESSAGES || waitingMarks >= MAX_WAITING_MARKS) {
        closeSocket(socket, 1008, 'too many messages')
      } else if (message === undefined) {
        closeSocket(socket, 1008, 'not a message of this protocol')
      } else if (message.type === 'ping') {
        const envelope: Envelope = { seq: current.seq ?? 0, type: 'ping', at: at.toISOString(), data: {} }
        sink.send(envelope, JSON.stringify(envelope))
      } else if (message.type !== 'ack' && !person.mayMark) {
        closeSocket(socket, 1008, 'these credentials may not mark items')
      } else if (message.type !== 'ack') {
        // One after the other: a client cannot hold more than one connection of the database.
        const { type, ids } = message
        waitingMarks++
        marks = marks.then(async () => {
          try {
            hub.publish((await feed.mark(person.tenantId, person.userId, type, ids, now())).changes)
          } catch (error) {
            onError(error)
            closeSocket(socket, 1011, 'the mark failed')
          } finally {
            waitingMarks--
          }
        })
      }
    })
  }

  async function endAll(): Promise<void> {
    hub.close()
    const open = [...sockets]
    await Promise.race([
      Promise.all(open.map(socket => new Promise(resolve => void socket.once('close', resolve)))),
      new Promise(resolve => void setTimeout(resolve, CLOSE_MS).unref()),
    ])
    for (const socket of open) socket.terminate()
  }
}

/** `json` is the envelope as text, made once for all who hear it as it is. */
function inWords(
  say: Dialect | undefined,
  envelope: Envelope,
  json: string,
  person: Person,
): string | undefined {
  if (say === undefined) return json
  const said = say(envelope, person)
  return said === envelope ? json : said && JSON.stringify(said)
}

/** Keys may be limited to reading; people mark their own items. */
function readerFor(caller: Caller, named: string | undefined): Reader {
  const mayMark =
    caller.role === 'user' || caller.scopes === null || caller.scopes.includes('notifications:write')
  return { ...readerOf(caller, named), mayMark }
}

/** From here on a stream that was too slow is served again. */
const LOW_BYTES = 256 << 10

function closeSocket(socket: WebSocket, code: number, reason: string): void {
  socket.close(code, reason)
  setTimeout(() => socket.terminate(), CLOSE_MS).unref()
}

function ticketProtocol(request: FastifyRequest): string | undefined {
  const offered = request.headers['sec-websocket-protocol']?.split(',').map(name => name.trim())
  return offered?.find(name => name.startsWith(TICKET_PROTOCOL))?.slice(TICKET_PROTOCOL.length)
}

/** What EventSource sends when it connects again by itself: later than the address it was given. */
function lastEventId(request: FastifyRequest): number | undefined {
  const text = request.headers['last-event-id']
  if (text === undefined || text === '') return undefined
  const seq = typeof text === 'string' && /^\d{1,16}$/.test(text) ? Number(text) : Number.NaN
  if (!Number.isSafeInteger(seq)) {
    throw new AppError('invalid_request', 'This is no number of this stream.', { field: 'Last-Event-ID' })
  }
  return seq
}

type ClientMessage =
  | { type: 'ping' }
  | { type: 'ack'; seq: number }
  | { type: 'read' | 'seen'; ids: string[] }

/** Undefined: not a message of ours, and the connection ends. Exported for its test. */
export function parseMessage(text: string): ClientMessage | undefined {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return undefined
  }
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return undefined
  const { type, ...rest } = value as Record<string, unknown>
  const keys = Object.keys(rest)
  if (type === 'ping') return keys.length === 0 ? { type } : undefined
  if (type === 'ack') {
    const { seq } = rest
    return keys.length === 1 && typeof seq === 'number' && Number.isSafeInteger(seq) && seq >= 0
      ? { type, seq }
      : undefined
  }
  if (type === 'read' || type === 'seen') {
    const { ids } = rest
    return keys.length === 1 &&
      Array.isArray(ids) &&
      ids.length >= 1 &&
      ids.length <= MAX_MARKED &&
      ids.every(id => typeof id === 'string' && isId(id))
      ? { type, ids: ids as string[] }
      : undefined
  }
  return undefined
}
