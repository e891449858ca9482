import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
} from 'node:http2'
import { TLSSocket } from 'node:tls'
import {
  type ClientCertificate,
  type Connection,
  type DeliveryError,
  type Http,
  type HttpResponse,
  permanent,
  temporary,
  unknown,
} from '../provider.ts'
import { readObject, textAt, wordOf } from './answers.ts'

export interface H2Request {
  path: string
  headers: Record<string, string>
  body: string
}

export interface H2Context {
  http: Http
  signal: AbortSignal
  now: () => Date
  /** For everything, the connection included. */
  timeoutMs: number
}

/**
 * One HTTP/2 connection that many requests share, opened when the first one needs it and again after it ended.
 * Whatever goes wrong is thrown already judged: `temporary` where the far end says, or the protocol guarantees, that
 * it took nothing (RFC 9113 §8.7), `unknown` otherwise.
 */
export interface H2Connection extends Connection {
  post(request: H2Request, ctx: H2Context): Promise<HttpResponse>
}

/** What we have open at once; the far end usually allows about as much and may say less. */
const MAX_STREAMS = 1_000
const MAX_WAITING = 10_000
/** Connections that one request is tried on, where the far end closed them without having looked at it. */
const MAX_LINES = 3
/** Networks forget connections that are silent, and nobody tells us: longer silence is broken by a PING. */
const IDLE_MS = 60_000
const PING_MS = 2_000
const MAX_ANSWER = 16_384

const { NGHTTP2_CANCEL, NGHTTP2_REFUSED_STREAM, HTTP2_HEADER_STATUS } = constants

interface Line {
  session: ClientHttp2Session
  /** Places that requests have, from before their stream is open to after its end. */
  taken: number
  /** Requests that wait for a place: each looks again when called. */
  waiting: Set<() => void>
  usedAtMs: number
  /** Whether it still lives, while that is being asked. */
  asked: Promise<boolean> | undefined
  retired: boolean
  /** From GOAWAY: higher stream ids were not looked at (RFC 9113 §6.8). */
  lastStreamId: number
  /** Why, in the far end's word, such as BadCertificate. */
  reason: string | undefined
}

/** The request left no trace at the far end and may go out again. */
const NOT_TAKEN = Symbol('not taken')

export function h2Connection(target: {
  host: string
  port: number
  certificate?: ClientCertificate
}): H2Connection {
  let opening: Promise<Line> | undefined
  const lines = new Set<Line>()
  let closed = false

  async function lineFor(ctx: H2Context, deadline: number): Promise<Line> {
    const mine = (opening ??= openLine(ctx, deadline))
    let line: Line
    try {
      line = await mine
    } catch (error) {
      if (opening === mine) opening = undefined
      throw error
    }
    if (!line.retired && ctx.now().getTime() - line.usedAtMs > IDLE_MS) {
      // One question for all who ask at the same time.
      line.asked ??= answers(line.session)
      if (await line.asked) line.usedAtMs = ctx.now().getTime()
      else {
        retire(line)
        line.session.destroy()
      }
      line.asked = undefined
    }
    if (line.retired) {
      if (opening === mine) opening = undefined
      return lineFor(ctx, deadline)
    }
    return line
  }

  async function openLine({ http, signal, now }: H2Context, deadline: number): Promise<Line> {
    const tls = { alpn: ['h2'], ...target.certificate }
    const timeoutMs = left(deadline)
    const socket = await http.connect({ host: target.host, port: target.port, tls, signal, timeoutMs })
    if (closed) {
      socket.destroy()
      throw temporary('aborted', 'The provider is closed')
    }
    if (socket instanceof TLSSocket && socket.alpnProtocol !== 'h2') {
      socket.destroy()
      throw temporary('tls_failed', 'The far end does not speak HTTP/2')
    }
    const session = connectHttp2(`https://${target.host}:${target.port}`, {
      createConnection: () => socket,
      settings: { enablePush: false },
    })
    const line: Line = {
      session,
      taken: 0,
      waiting: new Set(),
      usedAtMs: now().getTime(),
      asked: undefined,
      retired: false,
      lastStreamId: Number.POSITIVE_INFINITY,
      reason: undefined,
    }
    lines.add(line)
    session.on('goaway', (_code: number, lastStreamId: number, data?: Uint8Array) => {
      line.lastStreamId = lastStreamId
      line.reason = wordOf(textAt(readObject(Buffer.from(data ?? []).toString()) ?? {}, 'reason'))
      retire(line)
    })
    // Each stream tells its own end; what is said of the session as a whole adds nothing.
    session.on('error', () => retire(line))
    session.on('close', () => {
      retire(line)
      lines.delete(line)
    })
    session.on('remoteSettings', () => wake(line))
    await settled(line, signal, deadline)
    return line
  }

  /** Until the far end has said how much it takes at once, nothing is sent. */
  const settled = ({ session }: Line, signal: AbortSignal, deadline: number): Promise<void> =>
    new Promise((resolve, reject) => {
      const done = (error?: DeliveryError): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        session.off('remoteSettings', ready).off('close', broken)
        if (error === undefined) return resolve()
        session.destroy()
        reject(error)
      }
      const ready = (): void => done()
      const broken = (): void =>
        done(temporary('connection_failed', 'The connection ended before its settings'))
      const abort = (): void => done(temporary('aborted'))
      const timer = setTimeout(() => done(temporary('connect_timeout')), left(deadline))
      session.on('remoteSettings', ready).on('close', broken)
      signal.addEventListener('abort', abort)
      if (signal.aborted) abort()
    })

  /** No new request; what runs, runs on. */
  function retire(line: Line): void {
    if (line.retired) return
    line.retired = true
    if (!line.session.closed) line.session.close()
    wake(line)
  }

  function wake({ waiting }: Line): void {
    for (const look of waiting) look()
  }

  const roomIn = ({ session, taken }: Line): boolean =>
    taken < Math.min(session.remoteSettings.maxConcurrentStreams ?? MAX_STREAMS, MAX_STREAMS)

  /** True: a place was taken. False: the line retired meanwhile. */
  function place(line: Line, { signal }: H2Context, deadline: number): Promise<boolean> {
    if (signal.aborted) return Promise.reject(temporary('aborted'))
    if (line.retired) return Promise.resolve(false)
    if (roomIn(line) && line.waiting.size === 0) {
      line.taken++
      return Promise.resolve(true)
    }
    if (line.waiting.size >= MAX_WAITING) return Promise.reject(temporary('busy'))
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        line.waiting.delete(look)
      }
      const look = (): void => {
        if (!line.retired && !roomIn(line)) return
        leave()
        if (!line.retired) line.taken++
        resolve(!line.retired)
      }
      const giveUp = (code: 'timeout' | 'aborted'): void => {
        leave()
        reject(temporary(code))
      }
      const abort = (): void => giveUp('aborted')
      const timer = setTimeout(giveUp, left(deadline), 'timeout')
      signal.addEventListener('abort', abort)
      line.waiting.add(look)
    })
  }

  /** Gives its place back at the end of the stream. */
  function exchange(
    line: Line,
    { path, headers, body }: H2Request,
    { signal, now }: H2Context,
    deadline: number,
  ): Promise<HttpResponse | typeof NOT_TAKEN> {
    return new Promise((resolve, reject) => {
      let stream: ClientHttp2Stream
      if (signal.aborted) {
        line.taken--
        throw temporary('aborted')
      }
      try {
        stream = line.session.request({ ':method': 'POST', ':path': path, ...headers })
      } catch (error) {
        line.taken--
        const { code } = error as NodeJS.ErrnoException
        if (/^ERR_HTTP2_(?:INVALID_SESSION|GOAWAY_SESSION|OUT_OF_STREAMS)$/.test(code ?? '')) {
          retire(line)
          return resolve(NOT_TAKEN)
        }
        throw permanent('invalid_request', code)
      }
      line.usedAtMs = now().getTime()
      let over = false
      let failure: NodeJS.ErrnoException | undefined
      let status = 0
      let answered: HttpResponse['headers'] = {}
      const chunks: Buffer[] = []
      let size = 0

      const end = (): boolean => {
        if (over) return false
        over = true
        clearTimeout(timer)
        signal.removeEventListener('abort', abort)
        return true
      }
      const answer = (complete: boolean): void =>
        resolve({ status, headers: answered, body: Buffer.concat(chunks).toString('utf8'), complete })
      const giveUp = (code: 'timeout' | 'aborted'): void => {
        if (!end()) return
        stream.close(NGHTTP2_CANCEL)
        // A connection that answers nobody any more looks like this from here.
        if (code === 'timeout') retire(line)
        if (status !== 0) answer(false)
        else reject(unknown(code))
      }
      const abort = (): void => giveUp('aborted')
      const timer = setTimeout(giveUp, left(deadline), 'timeout')
      signal.addEventListener('abort', abort)

      stream.on('response', received => {
        status = Number(received[HTTP2_HEADER_STATUS])
        answered = received
      })
      stream.on('data', (chunk: Buffer) => {
        if (over) return
        const part = chunk.subarray(0, MAX_ANSWER - size)
        chunks.push(part)
        size += part.length
        if (part.length === chunk.length) return
        if (end()) answer(false)
        stream.close(NGHTTP2_CANCEL)
      })
      stream.on('end', () => {
        if (status !== 0 && end()) answer(true)
      })
      stream.on('error', error => {
        failure = error
      })
      stream.on('close', () => {
        line.taken--
        wake(line)
        if (!end()) return
        if (status !== 0) return answer(false)
        // Without an id it never left this process.
        const untouched =
          stream.id === undefined ||
          stream.id > line.lastStreamId ||
          stream.rstCode === NGHTTP2_REFUSED_STREAM
        if (untouched) {
          retire(line)
          return resolve(NOT_TAKEN)
        }
        const garbled = failure?.code === 'ERR_HTTP2_ERROR'
        reject(unknown(garbled ? 'garbled_answer' : 'no_answer', undefined, { cause: failure }))
      })
      stream.end(body)
    })
  }

  return {
    async post(request, ctx) {
      const deadline = performance.now() + ctx.timeoutMs
      let reason: string | undefined
      for (let tries = 0; tries < MAX_LINES; tries++) {
        if (closed) throw temporary('aborted', 'The provider is closed')
        if (ctx.signal.aborted) throw temporary('aborted')
        const line = await lineFor(ctx, deadline)
        if (await place(line, ctx, deadline)) {
          const response = await exchange(line, request, ctx, deadline)
          if (response !== NOT_TAKEN) return response
        }
        reason = line.reason
      }
      const facts = { vendorCode: reason }
      if (reason?.includes('Certificate')) throw temporary('auth', `GOAWAY: ${reason}`, facts)
      throw temporary('unavailable', `The connection was closed${reason ? `: ${reason}` : ''}`, facts)
    },
    close() {
      closed = true
      for (const { session } of lines) session.destroy()
      opening = undefined
    },
  }
}

/** Milliseconds; `deadline` is of the monotonic clock. */
const left = (deadline: number): number => Math.max(0, deadline - performance.now())

/** Whether the far end still hears us. */
const answers = (session: ClientHttp2Session): Promise<boolean> =>
  new Promise(resolve => {
    if (session.closed || session.destroyed) return resolve(false)
    const timer = setTimeout(() => resolve(false), PING_MS)
    session.ping(error => {
      clearTimeout(timer)
      resolve(error === null)
    })
  })
