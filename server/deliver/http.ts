import type { lookup as dnsLookup } from 'node:dns'
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { connect as connectTls, getCACertificates } from 'node:tls'
import { LRUCache } from 'lru-cache'
import { type Dispatcher, Pool } from 'undici'
import { networkGuard } from './network-guard.ts'
import {
  type ConnectRequest,
  DeliveryError,
  type Http,
  type HttpRequest,
  type HttpResponse,
  permanent,
  temporary,
  unknown,
} from './provider.ts'

export interface HttpOptions {
  /** CIDRs of non-public networks that may be called. Default: none. */
  allowPrivate?: readonly string[]
  /** Refuse plain http. Default false. */
  httpsOnly?: boolean
  /** Connections per origin. Default 256: more did not raise the rate against a local sink. */
  connections?: number
  /** Requests per origin that may wait for a connection; further ones are `busy`. Default 10,000. */
  waiting?: number
  /** Origins kept open; the one unused for longest is closed. Default 500. */
  origins?: number
  /** DNS, TCP and TLS together. Default 5,000. */
  connectTimeoutMs?: number
  /** Caps what a request asks for. Default 60,000. */
  maxTimeoutMs?: number
  /** Added to the system's certificate authorities. */
  ca?: string
  userAgent?: string
  /** For tests: the resolver behind the guard. */
  resolve?: typeof dnsLookup
}

export interface OpenHttp extends Http {
  /** Lets what runs finish, then closes every connection. */
  close(): Promise<void>
}

interface Target {
  origin: string
  path: string
}

/** One origin: its connections, and whoever waits for one of them. */
interface Lane {
  pool: Pool
  running: number
  /** In order of arrival; a start function leaves it when its request gives up. */
  waiting: Set<() => void>
  retired: boolean
  gone: PromiseWithResolvers<void>
}

const MAX_URL_LENGTH = 8_192

/**
 * Opens the one door to the outside, on undici's dispatch: a fetch costs four to seven times as much, and even
 * `Pool.request` builds a stream per answer that nobody needs here.
 */
export function openHttp(options: HttpOptions = {}): OpenHttp {
  const guard = networkGuard(options.allowPrivate ?? [], options.resolve)
  const connections = options.connections ?? 256
  const maxWaiting = options.waiting ?? 10_000
  const maxTimeoutMs = options.maxTimeoutMs ?? 60_000
  const connectTimeoutMs = Math.min(options.connectTimeoutMs ?? 5_000, maxTimeoutMs)
  const userAgent = options.userAgent ?? 'Carillon'
  // Node takes `ca` in place of the system's authorities, so they are named as well.
  const tls = options.ca === undefined ? {} : { ca: [...getCACertificates('default'), options.ca] }
  const onAbort = abortRegistry()
  const closing = new Set<Promise<void>>()
  let closed = false

  const lanes = new LRUCache<string, Lane>({
    max: options.origins ?? 500,
    // Also called while others still wait for this origin: the last of them closes it.
    dispose: lane => {
      lane.retired = true
      closing.add(lane.gone.promise)
      closeWhenIdle(lane)
    },
  })
  // Parsing and checking a URL costs about as much as writing the request; endpoints repeat.
  const targets = new LRUCache<string, Target>({ max: 10_000 })

  const laneOf = (origin: string): Lane => {
    const open = lanes.get(origin)
    if (open !== undefined) return open
    const pool = new Pool(origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      // One timer of ours bounds the whole request; the parser's own two would only add to it.
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { ...tls, timeout: connectTimeoutMs, lookup: guard.lookup },
    })
    const gone = Promise.withResolvers<void>()
    const lane: Lane = { pool, running: 0, waiting: new Set(), retired: false, gone }
    lanes.set(origin, lane)
    return lane
  }

  const closeWhenIdle = (lane: Lane): void => {
    if (!lane.retired || lane.running > 0 || lane.waiting.size > 0) return
    void lane.pool.close().finally(() => {
      closing.delete(lane.gone.promise)
      lane.gone.resolve()
    })
  }

  const release = (lane: Lane): void => {
    lane.running--
    const [next] = lane.waiting
    if (next !== undefined) {
      lane.waiting.delete(next)
      next()
    } else {
      closeWhenIdle(lane)
    }
  }

  const targetOf = (text: string): Target => {
    const known = targets.get(text)
    if (known !== undefined) return known
    if (text.length > MAX_URL_LENGTH || !URL.canParse(text)) {
      throw permanent('invalid_address', 'The URL cannot be parsed')
    }
    const url = new URL(text)
    if (url.protocol !== 'https:' && url.protocol !== 'http:') {
      throw permanent('invalid_address', 'The URL is neither http nor https')
    }
    if (url.username !== '' || url.password !== '') {
      throw permanent('invalid_address', 'The URL carries credentials')
    }
    if (options.httpsOnly === true && url.protocol === 'http:') {
      throw permanent('blocked_address', 'The URL is not https')
    }
    const refusal = guard.refuseLiteral(url.hostname)
    if (refusal !== undefined) throw refusal
    const target = { origin: url.origin, path: url.pathname + url.search }
    targets.set(text, target)
    return target
  }

  const request = (asked: HttpRequest): Promise<HttpResponse> =>
    new Promise((resolve, reject) => {
      if (closed) throw temporary('aborted', 'The door is closed')
      const { signal } = asked
      if (signal?.aborted) throw temporary('aborted')
      const target = targetOf(asked.url)
      const lane = laneOf(target.origin)
      const maxBytes = asked.maxResponseBytes ?? 65_536

      let controller: Dispatcher.DispatchController | undefined
      let started = false
      // True from just before the first byte: from then on nobody can say that nothing arrived.
      let written = false
      let settled = false
      let status = 0
      let headers: HttpResponse['headers'] = {}
      const chunks: Buffer[] = []
      let size = 0

      const settle = (): void => {
        settled = true
        clearTimeout(timer)
        if (signal !== undefined) onAbort.remove(signal, abort)
        if (started) release(lane)
        else lane.waiting.delete(start)
      }
      const answer = (complete: boolean): void => {
        settle()
        const body =
          chunks.length === 0
            ? ''
            : chunks.length === 1
              ? (chunks[0] as Buffer).toString('utf8')
              : Buffer.concat(chunks, size).toString('utf8')
        resolve({ status, headers, body, complete })
      }
      const fail = (error: DeliveryError): void => {
        settle()
        reject(error)
      }
      // A refusal stands even when its explanation breaks off. An acceptance whose body breaks off may lack what
      // the caller needs (the vendor's id), so it is an answer only to callers who said the status is enough.
      const breakOff = (error: DeliveryError): void => {
        if (status >= 300 || (status >= 200 && asked.statusIsEnough === true)) answer(false)
        else fail(error)
      }
      const giveUp = (code: 'timeout' | 'aborted'): void => {
        breakOff(written ? unknown(code) : temporary(code))
        controller?.abort(new Error(code))
      }
      const abort = (): void => giveUp('aborted')

      const handler: Dispatcher.DispatchHandler = {
        onRequestStart(opened) {
          // Given up while the connection was being made: stop before the first byte.
          if (settled) return opened.abort(new Error('given up'))
          controller = opened
          written = true
        },
        onResponseStart(_controller, code, received) {
          if (settled || code < 200) return
          status = code
          headers = received
        },
        onResponseData(_controller, chunk) {
          if (settled) return
          const room = maxBytes - size
          if (chunk.length <= room) {
            size += chunk.length
            chunks.push(chunk)
            return
          }
          chunks.push(chunk.subarray(0, room))
          size += room
          answer(false)
          controller?.abort(new Error('answer longer than wanted'))
        },
        onResponseEnd() {
          if (!settled) answer(true)
        },
        onResponseError(_controller, error) {
          if (settled) return
          breakOff(written ? judgeBroken(error) : judgeUnsent(error))
        },
      }

      const start = (): void => {
        started = true
        lane.running++
        const fields = asked.headers ?? {}
        lane.pool.dispatch(
          {
            path: target.path,
            method: asked.method ?? 'POST',
            headers: flat(fields, userAgent),
            body: asked.body ?? null,
          },
          handler,
        )
      }

      if (lane.running >= connections && lane.waiting.size >= maxWaiting) throw temporary('busy')
      const timer = setTimeout(giveUp, Math.min(asked.timeoutMs ?? 10_000, maxTimeoutMs), 'timeout')
      if (signal !== undefined) onAbort.add(signal, abort)
      // Waiting here instead of in the pool: who gives up just leaves. In the pool's own queue a request that
      // gave up would still be handed a connection and spoil it.
      if (lane.running < connections) start()
      else lane.waiting.add(start)
    })

  const connect = (asked: ConnectRequest): Promise<Socket> =>
    new Promise((resolve, reject) => {
      if (closed) throw temporary('aborted', 'The door is closed')
      const { signal } = asked
      if (signal?.aborted) throw temporary('aborted')
      const refusal = guard.refuseLiteral(asked.host)
      if (refusal !== undefined) throw refusal

      const address = { host: asked.host, port: asked.port, lookup: guard.lookup, noDelay: true }
      const wanted = asked.tls === true ? {} : asked.tls
      const open = (): Socket => {
        if (!wanted) return connectTcp(address)
        const { alpn, servername, ...certificate } = wanted
        return connectTls({
          ...tls,
          ...address,
          ...certificate,
          // RFC 6066 §3: an IP address is no server name.
          servername: servername ?? (isIP(asked.host) === 0 ? asked.host : undefined),
          ALPNProtocols: alpn,
        })
      }
      let socket: Socket
      try {
        socket = open()
      } catch {
        // What OpenSSL says may quote what it could not read.
        throw temporary('tls_failed', 'The client certificate or its key cannot be read')
      }

      const settle = (): void => {
        clearTimeout(timer)
        if (signal !== undefined) onAbort.remove(signal, abort)
        socket.off('error', broken)
      }
      const fail = (error: DeliveryError): void => {
        settle()
        // What the system still reports about a socket that was given up interests nobody.
        socket.on('error', () => {}).destroy()
        reject(error)
      }
      const broken = (error: Error): void => fail(judgeUnsent(error))
      const abort = (): void => fail(temporary('aborted'))
      const timeoutMs = Math.min(asked.timeoutMs ?? connectTimeoutMs, maxTimeoutMs)
      const timer = setTimeout(() => fail(temporary('connect_timeout')), timeoutMs)
      if (signal !== undefined) onAbort.add(signal, abort)
      socket.on('error', broken)
      socket.once(wanted ? 'secureConnect' : 'connect', () => {
        settle()
        resolve(socket)
      })
    })

  return {
    request,
    connect,
    async close() {
      closed = true
      lanes.clear()
      while (closing.size > 0) await Promise.all(closing)
    },
  }
}

/** Nothing of the request was written. */
function judgeUnsent(error: Error): DeliveryError {
  // Several addresses were tried (RFC 8305): the first failure stands for all.
  const first = error instanceof AggregateError ? (error.errors[0] as Error) : error
  if (first instanceof DeliveryError) return first
  const code = codeOf(first)
  const facts = { cause: error }
  if (code === 'UND_ERR_INVALID_ARG') return permanent('invalid_request', undefined, facts)
  if (code === 'UND_ERR_CONNECT_TIMEOUT' || code === 'ETIMEDOUT') {
    return temporary('connect_timeout', undefined, facts)
  }
  if (code === 'ENOTFOUND' || code.startsWith('EAI_')) return temporary('dns_failed', undefined, facts)
  if (/^(ERR_TLS|ERR_SSL|EPROTO|CERT_|DEPTH_ZERO|SELF_SIGNED|UNABLE_TO|HOSTNAME_MISMATCH)/.test(code)) {
    return temporary('tls_failed', code, facts)
  }
  return temporary('connection_failed', code === '' ? undefined : code, facts)
}

/** The request was written, at least in part. */
function judgeBroken(error: Error): DeliveryError {
  const code = codeOf(error)
  const garbled =
    error.name === 'HTTPParserError' ||
    code === 'UND_ERR_HEADERS_OVERFLOW' ||
    code === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH'
  return unknown(garbled ? 'garbled_answer' : 'no_answer', undefined, { cause: error })
}

const codeOf = (error: Error): string => {
  const { code } = error as NodeJS.ErrnoException
  return typeof code === 'string' ? code : ''
}

/** Names and values in turn: what undici reads without a copy of its own. */
function flat(headers: Record<string, string>, userAgent: string): string[] {
  const list: string[] = []
  for (const name of Object.keys(headers)) list.push(name, headers[name]!)
  if (!('user-agent' in headers)) list.push('user-agent', userAgent)
  return list
}

/**
 * One listener per signal, however many requests hang on it: an EventTarget walks all its listeners on every
 * addition, and the whole process shares one or two signals.
 */
function abortRegistry() {
  const bySignal = new WeakMap<AbortSignal, Set<() => void>>()
  return {
    add(signal: AbortSignal, listener: () => void): void {
      let listeners = bySignal.get(signal)
      if (listeners === undefined) {
        const fresh = new Set<() => void>()
        bySignal.set(signal, fresh)
        signal.addEventListener('abort', () => {
          for (const each of fresh) each()
        })
        listeners = fresh
      }
      listeners.add(listener)
    },
    remove(signal: AbortSignal, listener: () => void): void {
      bySignal.get(signal)?.delete(listener)
    },
  }
}
