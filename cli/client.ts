import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { request } from 'undici'
import { type Input, UsageError } from './command.ts'
import { plain } from './print.ts'

/** Speaks to a running server. */
export interface Client {
  readonly url: string
  get<T>(path: string, query?: Query): Promise<T>
  /** Sends an Idempotency-Key of its own, or the one given. */
  post<T>(path: string, body: unknown, idempotencyKey?: string): Promise<T>
  put<T>(path: string, body: unknown): Promise<T>
  delete<T>(path: string): Promise<T>
  patch<T>(path: string, body: unknown): Promise<T>
  /** Something that takes long: its progress a line at a time, then its result. */
  lines<T>(path: string, body: unknown, onProgress: (progress: { events: number }) => void): Promise<T>
  /** One connection's server-sent events, until the server ends it. */
  events(
    path: string,
    query: Query,
    options: { lastEventId?: string; signal?: AbortSignal },
  ): AsyncIterable<ServerSentEvent>
}

type Query = Record<string, string | number | undefined>

export interface ServerSentEvent {
  id: string | undefined
  event: string
  data: string
}

/** The server said no. The message is its problem (RFC 9457), told to a person. */
export class ApiError extends Error {
  readonly status: number
  readonly problem: unknown
  constructor(status: number, message: string, problem: unknown) {
    super(message)
    this.status = status
    this.problem = problem
  }
}

/** Nobody answered, or the connection broke. */
export class Unreachable extends Error {}

const TIMEOUT_MS = 30_000
const MAX_BODY_BYTES = 64 * 1024 * 1024

/** @throws UsageError when there is no key to be found */
export function createClient(input: Input): Client {
  const url = serverUrl(input)
  const authorization = `Bearer ${findKey(input, url)}`

  async function call(
    method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE',
    path: string,
    options: { query?: Query; body?: unknown; key?: string },
  ) {
    const { query, body, key } = options
    const {
      statusCode,
      headers,
      body: stream,
    } = await send(url, path, query, {
      method,
      headers: {
        authorization,
        accept: 'application/json',
        ...(body === undefined
          ? {}
          : { 'content-type': 'application/json', 'idempotency-key': key ?? randomUUID() }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
      headersTimeout: TIMEOUT_MS,
      bodyTimeout: TIMEOUT_MS,
    })
    const text = await readAll(stream)
    const value = /json/.test(String(headers['content-type'])) ? parse(text) : undefined
    if (statusCode >= 400) throw problemError(statusCode, value, url)
    return value
  }

  return {
    url,
    get: async <T>(path: string, query?: Query) => (await call('GET', path, { query })) as T,
    post: async <T>(path: string, body: unknown, key?: string) =>
      (await call('POST', path, { body, key })) as T,
    delete: async <T>(path: string) => (await call('DELETE', path, {})) as T,
    put: async <T>(path: string, body: unknown) => (await call('PUT', path, { body })) as T,
    patch: async <T>(path: string, body: unknown) => (await call('PATCH', path, { body })) as T,
    async lines<T>(path: string, body: unknown, onProgress: (progress: { events: number }) => void) {
      const { statusCode, body: stream } = await send(url, path, undefined, {
        method: 'POST',
        headers: { authorization, accept: 'application/x-ndjson', 'content-type': 'application/json' },
        body: JSON.stringify(body),
        headersTimeout: TIMEOUT_MS,
        bodyTimeout: TIMEOUT_MS,
      })
      if (statusCode >= 400) throw problemError(statusCode, parse(await readAll(stream)), url)
      stream.setEncoding('utf8')
      let rest = ''
      for await (const chunk of stream as AsyncIterable<string>) {
        const parts = (rest + chunk).split('\n')
        rest = parts.pop()!
        for (const part of parts) {
          const line = parse(part) as {
            progress?: { events: number }
            result?: T
            error?: { code: string; message: string }
          }
          if (line.progress) onProgress(line.progress)
          if (line.error) throw new ApiError(500, line.error.message, line.error)
          if (line.result) return line.result
        }
      }
      throw new Unreachable(`The connection to ${url} broke before the result`)
    },
    async *events(path, query, { lastEventId, signal }) {
      const { statusCode, body } = await send(url, path, query, {
        method: 'GET',
        headers: {
          authorization,
          accept: 'text/event-stream',
          ...(lastEventId === undefined ? {} : { 'last-event-id': lastEventId }),
        },
        signal,
        headersTimeout: TIMEOUT_MS,
        // Heartbeats come more often than that.
        bodyTimeout: 10 * TIMEOUT_MS,
      })
      if (statusCode >= 400) throw problemError(statusCode, parse(await readAll(body)), url)
      try {
        body.setEncoding('utf8')
        yield* serverSentEvents(body as AsyncIterable<string>)
      } catch (error) {
        if (signal?.aborted) return
        throw new Unreachable(`The connection to ${url} broke: ${(error as Error).message}`, { cause: error })
      }
    },
  }
}

type Response = Awaited<ReturnType<typeof request>>

async function send(
  url: string,
  path: string,
  query: Query | undefined,
  options: Parameters<typeof request>[1],
): Promise<Response> {
  const address = new URL(url.replace(/\/+$/, '') + path)
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== undefined) address.searchParams.set(name, String(value))
  }
  try {
    return await request(address, options)
  } catch (error) {
    if (options?.signal && (options.signal as AbortSignal).aborted) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED') {
      throw new Unreachable(
        `No server answers at ${url}. Start one with "carillon start", or say where it is with CARILLON_URL.`,
        { cause: error },
      )
    }
    throw new Unreachable(`${url} cannot be reached: ${(error as Error).message}`, { cause: error })
  }
}

async function readAll(body: Response['body']): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  try {
    for await (const chunk of body as AsyncIterable<Buffer>) {
      size += chunk.length
      if (size > MAX_BODY_BYTES) throw new Error('the answer is too large')
      chunks.push(chunk)
    }
  } catch (error) {
    throw new Unreachable(`The answer broke off: ${(error as Error).message}`, { cause: error })
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function problemError(status: number, value: unknown, url: string): ApiError {
  const problem = (typeof value === 'object' && value !== null ? value : {}) as {
    title?: string
    detail?: string
    code?: string
    requestId?: string
    errors?: { field: string; message: string }[]
  }
  if (problem.title === undefined && problem.detail === undefined) {
    return new ApiError(status, `HTTP ${status} from ${url}, which does not look like Carillon`, value)
  }
  const lines = [`${problem.detail ?? problem.title} (${problem.code ?? status})`]
  for (const { field, message } of problem.errors ?? []) {
    if (message !== problem.detail) lines.push(`  ${field}: ${message}`)
  }
  if (status === 401) lines.push('Check CARILLON_KEY; "carillon key create" makes a new key.')
  if (status >= 500 && problem.requestId !== undefined) lines.push(`Request ${problem.requestId}`)
  return new ApiError(status, lines.map(plain).join('\n'), value)
}

// ---------------------------------------------------------------- where, and as whom

function serverUrl(input: Input): string {
  const given = input.text('url') ?? (input.env.CARILLON_URL || undefined)
  if (given === undefined) return `http://127.0.0.1:${input.env.PORT || 4400}`
  if (!URL.canParse(given) || !/^https?:$/.test(new URL(given).protocol)) {
    throw new UsageError(`"${given}" is not an address such as http://127.0.0.1:4400`)
  }
  return given
}

const LOOPBACK = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/

function findKey(input: Input, url: string): string {
  const { env } = input
  if (env.CARILLON_KEY) return env.CARILLON_KEY.trim()
  if (env.CARILLON_KEY_FILE) return readKey(env.CARILLON_KEY_FILE)
  const file = join(input.text('data-dir') ?? (env.CARILLON_DATA_DIR || 'data'), 'admin.key')
  // The key of the server on this machine must not be shown to another one.
  if (!LOOPBACK.test(new URL(url).hostname)) {
    throw new UsageError(`Set CARILLON_KEY to a key of ${url}`)
  }
  try {
    return readKey(file)
  } catch (error) {
    throw new UsageError(
      `There is no key: set CARILLON_KEY, or run this where the embedded server keeps its data. ${(error as Error).message}`,
    )
  }
}

function readKey(file: string): string {
  const key = readFileSync(file, 'utf8').trim()
  if (!/^[\x21-\x7e]+$/.test(key)) throw new UsageError(`${file} holds no key`)
  return key
}

// ---------------------------------------------------------------- server-sent events

/** https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation */
export async function* serverSentEvents(chunks: AsyncIterable<string>): AsyncIterable<ServerSentEvent> {
  let rest = ''
  let id: string | undefined
  let event = 'message'
  let data: string[] = []
  for await (const chunk of chunks) {
    rest += chunk
    // A CR at the very end may be the first half of a CRLF.
    const lines = rest.split(/\r\n|\n|\r(?!$)/)
    rest = lines.pop()!
    for (const line of lines) {
      if (line === '') {
        if (data.length > 0) yield { id, event, data: data.join('\n') }
        event = 'message'
        data = []
        continue
      }
      const at = line.indexOf(':')
      const field = at === -1 ? line : line.slice(0, at)
      const value = at === -1 ? '' : line.slice(at + 1).replace(/^ /, '')
      if (field === 'data') data.push(value)
      else if (field === 'event') event = value || 'message'
      else if (field === 'id' && !value.includes('\0')) id = value
    }
  }
}
