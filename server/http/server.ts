import type { Socket } from 'node:net'
import cors from '@fastify/cors'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyReply,
  type FastifyRequest,
  LogController,
  type RouteOptions,
} from 'fastify'
import { newId } from '../db/ids.ts'
import { AppError, ERRORS } from '../errors.ts'
import type { Api, Caller } from './api.ts'
import { type Auth, challenge, credentialsOf, requireAccess } from './auth.ts'
import { parseJsonBody } from './json-body.ts'
import {
  addressKey,
  DEFAULT_LIMITS,
  type Limiter,
  limiter,
  type RequestLimits,
  type Standing,
} from './limits.ts'
import { collectDocs, serveDocs } from './openapi.ts'
import { allowedMethods } from './allowed-methods.ts'
import { PROBLEM_TYPE, slippedThrough, toAppError, toProblem } from './problem.ts'
import { parseTraceParent } from './trace-context.ts'
import { validatorCompiler } from './validator.ts'

export interface ServerOptions {
  auth: Auth
  /** Shown in the OpenAPI document. */
  version: string
  /** Absent: nothing is logged. */
  logger?: FastifyBaseLogger
  /** The largest body, except where a route sets its own `bodyLimit`. Default 1 MiB. */
  bodyLimitBytes?: number
  /** Proxies to believe X-Forwarded-For from: addresses or CIDR ranges. Default: none. */
  trustProxy?: string | string[]
  /** Origins whose pages may call us. Default: none, not even the header. */
  corsOrigins?: string[]
  /** Requests a minute; false: not limited. */
  limits?: Partial<RequestLimits> | false
  /** Counts shared between processes where it was made with a Redis client. */
  limiter?: Limiter
  /** Send Strict-Transport-Security: only where everything on this host name is served over TLS. */
  hsts?: boolean
}

const DEFAULT_BODY_LIMIT = 1024 * 1024
/** From the first byte of a request to its last; answering, streams included, may take longer. */
const REQUEST_TIMEOUT_MS = 30_000
/** Longer than the 60 s of common load balancers, so that it is never us who close a connection they reuse. */
const KEEP_ALIVE_MS = 72_000
/** A user id of 255 characters, percent-encoded. */
const MAX_PARAM_LENGTH = 255 * 12

const JSON_TYPES = ['application/json', 'application/cloudevents+json', 'application/cloudevents-batch+json']

/**
 * Answers are data, for no browser to frame, sniff or run; the few pages bring a policy of their own. The same
 * headers by @fastify/helmet cost 38 µs of CPU a request, set at once they cost 4 (a bare request: 14).
 */
const securityHeaders = ({ corsOrigins, hsts }: ServerOptions): Record<string, string> => ({
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'; base-uri 'none'",
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': corsOrigins?.length ? 'cross-origin' : 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  ...(hsts === true && { 'strict-transport-security': 'max-age=31536000; includeSubDomains' }),
})

/**
 * The HTTP server without its routes: credentials, limits, parsing, validation, problems and docs are settled
 * here, once. Modules add their routes to it before it is made ready.
 */
export async function buildServer(options: ServerOptions): Promise<Api> {
  const api: Api = Fastify({
    ...(options.logger === undefined ? { logger: false } : { loggerInstance: options.logger }),
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    genReqId: () => newId(),
    bodyLimit: options.bodyLimitBytes ?? DEFAULT_BODY_LIMIT,
    requestTimeout: REQUEST_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    http: { headersTimeout: 15_000 },
    trustProxy: options.trustProxy ?? false,
    onProtoPoisoning: 'error',
    onConstructorPoisoning: 'error',
    routerOptions: { maxParamLength: MAX_PARAM_LENGTH },
    // A request that comes while we stop is answered like any other; the load balancer learns it from /readyz.
    return503OnClosing: false,
    forceCloseConnections: 'idle',
    frameworkErrors: (error, request, reply) => void answer(error, request, reply),
    clientErrorHandler: refuseUnreadable,
  })
  api.setValidatorCompiler(validatorCompiler())
  api.setErrorHandler(answer)

  api.decorateRequest('caller', null as unknown as Caller)
  api.decorateRequest('rawBody', undefined)
  api.decorateRequest('traceParent', {
    getter(this: FastifyRequest) {
      return parseTraceParent(this.headers.traceparent)
    },
  })
  api.decorateRequest('traceId', {
    getter(this: FastifyRequest) {
      return this.traceParent?.traceId
    },
  })

  if (options.corsOrigins?.length) {
    // Before the door: a preflight bears no credentials.
    await api.register(cors, {
      origin: options.corsOrigins,
      exposedHeaders: [
        'X-Request-Id',
        'Retry-After',
        'RateLimit-Limit',
        'RateLimit-Remaining',
        'RateLimit-Reset',
      ],
      maxAge: 600,
    })
  }

  const routes: RouteOptions[] = []
  api.decorate('allRoutes', routes)
  api.addHook('onRoute', route => void routes.push(route))
  api.addHook('onReady', async () => {
    const open = routes.filter(route => route.config?.access === undefined)
    if (open.length > 0) {
      throw new Error(`Routes without access: ${open.map(r => `${r.method} ${r.url}`).join(', ')}`)
    }
  })
  api.addHook('onRequest', door(options))
  addParsers(api)

  const methods = allowedMethods(routes)
  api.setNotFoundHandler(request => {
    const allowed = methods(pathOf(request))
    if (allowed.length === 0) throw new AppError('not_found', 'Nothing is at this path.')
    const allow = allowed.join(', ')
    throw new AppError('method_not_allowed', `This path offers ${allow}.`, { extra: { allow } })
  })

  await collectDocs(api, options.version)
  await serveDocs(api)
  return api
}

/** Who is it, may they, and not too often: the one hook before every route, and before any body is read. */
function door(options: ServerOptions) {
  const { auth, limits, limiter: given } = options
  const headers = securityHeaders(options)
  const numbers: RequestLimits | false = limits === false ? false : { ...DEFAULT_LIMITS, ...limits }
  const counts = given ?? limiter()

  function limit(reply: FastifyReply, ...standings: Standing[]): void {
    // The tightest one is what the caller has to go by.
    let worst = standings[0]!
    for (const s of standings) if (!s.allowed || (worst.allowed && s.remaining < worst.remaining)) worst = s
    reply.header('ratelimit-limit', worst.limit)
    reply.header('ratelimit-remaining', worst.remaining)
    reply.header('ratelimit-reset', worst.resetSeconds)
    if (!worst.allowed) {
      throw new AppError('rate_limited', `No more than ${worst.limit} requests a minute.`, {
        retryAfterSeconds: worst.resetSeconds,
      })
    }
  }

  return async (request: FastifyRequest, reply: FastifyReply): Promise<void> => {
    reply.headers(headers).header('x-request-id', request.id)
    // PostgreSQL has no NUL in text. In headers the HTTP parser refuses it, in JSON bodies parseJsonBody.
    if (request.url.includes('%00')) {
      throw new AppError('invalid_request', 'The address holds a NUL character.')
    }
    const { access, limit: ownLimit } = request.routeOptions.config
    const ip = numbers === false ? '' : addressKey(request.ip)

    if (access?.role === 'public' || request.is404) {
      if (numbers !== false && ownLimit !== false)
        limit(reply, counts.take(`ip ${ip}`, ownLimit ?? numbers.perIp))
      return
    }
    if (access === undefined) throw new AppError('forbidden', 'The path says not who may use it.')

    if (numbers !== false) {
      const failures = counts.peek(`failed ${ip}`, numbers.failuresPerIp)
      if (!failures.allowed) limit(reply, failures)
    }
    let caller: Caller
    try {
      caller = await auth.authenticate(credentialsOf(request, access))
    } catch (error) {
      if (numbers !== false && error instanceof AppError && error.code === 'unauthenticated') {
        limit(reply, counts.take(`failed ${ip}`, numbers.failuresPerIp))
      }
      throw error
    }
    request.caller = caller
    if (numbers !== false) {
      const { tenantId, kind, id, role } = caller
      const person = kind === 'user' && role !== 'service'
      const name = `${kind} ${tenantId} ${id}`
      if (person) limit(reply, counts.take(name, numbers.perUser), counts.take(`ip ${ip}`, numbers.perIp))
      else limit(reply, counts.take(name, numbers.perKey))
    }
    requireAccess(caller, access)
  }
}

function addParsers(api: Api): void {
  const parse = api.getDefaultJsonParser('error', 'error')
  // The default parser calls back before it returns.
  const parseText = (request: FastifyRequest) => (text: string) => {
    let value: unknown
    void parse(request, text, (error, parsed) => {
      if (error !== null) throw error
      value = parsed
    })
    return value
  }

  api.removeAllContentTypeParsers()
  api.addContentTypeParser(JSON_TYPES, { parseAs: 'buffer' }, (request, body, done) => {
    const bytes = body as Buffer
    if (request.routeOptions.config.rawBody === true) request.rawBody = bytes
    try {
      done(null, parseJsonBody(bytes, parseText(request)))
    } catch (error) {
      done(error as Error)
    }
  })
  // Whatever else comes: only a route that reads the bytes itself may have it, and then at most its body limit.
  api.addContentTypeParser('*', { parseAs: 'buffer' }, (request, body, done) => {
    if (request.routeOptions.config.rawBody !== true) {
      const accepted = JSON_TYPES.slice(0, 1).join(', ')
      done(new AppError('unsupported_media_type', `Send ${accepted}.`, { field: 'content-type' }))
      return
    }
    request.rawBody = body as Buffer
    done(null, body)
  })
}

function answer(thrown: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const error = toAppError(thrown)
  const { status } = ERRORS[error.code]
  const about = {
    err: thrown,
    requestId: request.id,
    method: request.method,
    route: request.routeOptions.url,
  }
  if (status >= 500) request.log.error(about, 'request failed')
  else if (slippedThrough(error)) request.log.warn(about, 'request refused by the database')

  if (error.retryAfterSeconds !== undefined) reply.header('retry-after', Math.ceil(error.retryAfterSeconds))
  const ask = challenge(request, error)
  if (ask !== undefined) reply.header('www-authenticate', ask)
  if (typeof error.extra?.allow === 'string') reply.header('allow', error.extra.allow)
  // A body that was not read to its end would be taken for the next request.
  if (status === 413) reply.header('connection', 'close')

  const problem = toProblem(error, { path: pathOf(request), requestId: request.id })
  return reply
    .code(status)
    .header('cache-control', 'no-store')
    .type(PROBLEM_TYPE)
    .send(JSON.stringify(problem))
}

/** Without the query: it may hold an access token. */
function pathOf(request: FastifyRequest): string {
  const end = request.url.indexOf('?')
  return end === -1 ? request.url : request.url.slice(0, end)
}

/** What is not even HTTP, or never became a whole request: there is no request object to answer through. */
function refuseUnreadable(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed || !socket.writable) {
    socket.destroy()
    return
  }
  const [status, detail] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'The headers are too large.']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'The request did not arrive in time.']
        : ['400 Bad Request', 'This is not a valid HTTP request.']
  const body = JSON.stringify({
    ...toProblem(new AppError('invalid_request', detail), { path: '/', requestId: newId() }),
    status: Number.parseInt(status, 10),
  })
  socket.end(
    `HTTP/1.1 ${status}\r\nContent-Type: ${PROBLEM_TYPE}\r\nContent-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}
