import type { FastifyError } from 'fastify'
import { AppError, ERRORS, type ErrorCode, type ErrorDetail } from '../errors.ts'
import type { JsonObject } from '../types.ts'

/** What a failed request answers: RFC 9457, media type application/problem+json. */
export interface Problem {
  /** Where the code is explained, relative to this server. */
  type: string
  title: string
  status: number
  /** About this occurrence; never content, never secrets. */
  detail: string
  /** The path that was asked for. */
  instance: string
  /** Stable; the key of the table in server/errors.ts. */
  code: ErrorCode
  /** The documented number, for the codes that have one (AUR-148). */
  number?: number
  /** Which fields, where it is about fields. */
  errors?: ErrorDetail[]
  requestId: string
}

export const PROBLEM_TYPE = 'application/problem+json; charset=utf-8'

/** The members of `extra` stand beside the documented ones and never replace them (RFC 9457 §3.2). */
export function toProblem(
  error: AppError,
  request: { path: string; requestId: string },
): Problem & JsonObject {
  const row: { status: number; title: string; numeric?: number } = ERRORS[error.code]
  return {
    ...error.extra,
    type: `/docs/errors#${error.code}`,
    title: row.title,
    status: row.status,
    detail: error.message,
    instance: request.path,
    code: error.code,
    ...(row.numeric !== undefined && { number: row.numeric }),
    ...(error.errors !== undefined && {
      errors: error.errors.map(({ field, message }) => ({ field, message })),
    }),
    requestId: request.requestId,
  }
}

/** Whether the caller's mistake got as far as the database: true, but a schema should have caught it. */
export const slippedThrough = (error: AppError): boolean =>
  error.status < 500 && error.cause instanceof Error && 'severity' in error.cause

/**
 * Any thrown thing as an error of the table. What nobody expected becomes `internal` with a fixed sentence, so
 * that nothing leaks; the original stays as its cause, for the log.
 */
export function toAppError(error: unknown): AppError {
  if (error instanceof AppError) return error
  return fromFastify(error) ?? fromDatabase(error) ?? internal(error)
}

const internal = (cause: unknown) =>
  new AppError('internal', 'The request failed. Report it with its requestId.', { cause })

// https://fastify.dev/docs/latest/Reference/Errors/
const FASTIFY_CODES: Record<string, [ErrorCode, string]> = {
  FST_ERR_CTP_BODY_TOO_LARGE: ['body_too_large', 'The body is larger than this path accepts.'],
  FST_ERR_CTP_INVALID_MEDIA_TYPE: [
    'unsupported_media_type',
    'Send JSON, with content-type application/json.',
  ],
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: ['malformed_body', 'The body is not as long as content-length says.'],
  FST_ERR_CTP_EMPTY_JSON_BODY: ['malformed_body', 'The body is empty.'],
  FST_ERR_CTP_INVALID_JSON_BODY: ['malformed_body', 'The body is not valid JSON.'],
  FST_ERR_BAD_URL: ['invalid_request', 'The path is not correctly percent-encoded.'],
  FST_ERR_MAX_PARAM_LENGTH: ['invalid_request', 'A part of the path is too long.'],
  FST_ERR_NOT_FOUND: ['not_found', 'Nothing is at this path.'],
}

function fromFastify(error: unknown): AppError | undefined {
  const { code, statusCode } = error as Partial<FastifyError>
  // A DOMException, as of an aborted signal, has a number there.
  if (typeof code !== 'string') return undefined
  const row = FASTIFY_CODES[code]
  if (row !== undefined) return new AppError(row[0], row[1], { cause: error })
  // A request that broke off while its body was read, and the like: not our fault, and nobody reads the answer.
  const ofRequest = code.startsWith('FST_') || code === 'ECONNRESET'
  if (ofRequest && statusCode !== undefined && statusCode >= 400 && statusCode < 500) {
    return new AppError('invalid_request', 'The request cannot be processed.', { cause: error })
  }
  return undefined
}

// ENOENT is a Unix socket that is not there; the same code of any other call, such as open, is not meant.
const UNREACHABLE = new Set([
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
  'ENOTFOUND',
  'ENOENT',
  'EAI_AGAIN',
])
const NETWORK_CALLS = new Set(['connect', 'getaddrinfo', 'read', 'write'])
const LOST =
  /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Cannot use a pool after calling end/

// https://www.postgresql.org/docs/18/errcodes-appendix.html
// A safety net: schemas and statements should catch these first, but a caller who meets a gap is told what is
// true, and the log says which statement had it.
const SQLSTATES: Record<string, [ErrorCode, string]> = {
  '22001': ['invalid_request', 'A value is too long.'],
  '22003': ['invalid_request', 'A number is out of range.'],
  '22007': ['invalid_request', 'A time cannot be understood.'],
  '22008': ['invalid_request', 'A time is out of range.'],
  '22021': ['invalid_request', 'A text holds a character that cannot be stored.'],
  '22P02': ['invalid_request', 'A value has the wrong form.'],
  '22P05': ['invalid_request', 'A text holds a character that cannot be stored.'],
  '23503': ['conflict', 'Something that the request refers to does not exist, or is still referred to.'],
  '23505': ['already_exists', 'There is one like this already.'],
  '23514': ['invalid_request', 'A value is outside its bounds.'],
  '40001': ['database_error', 'The database was too busy with competing changes.'],
  '40P01': ['database_error', 'The database was too busy with competing changes.'],
}

function fromDatabase(error: unknown): AppError | undefined {
  if (!(error instanceof Error)) return undefined
  const { code, severity, syscall } = error as Error & { code?: string; severity?: string; syscall?: string }
  if (severity !== undefined && code !== undefined) {
    // 08: connection, 53: resources, 57P0x: the server is starting, stopping or was killed.
    if (/^(08|53|57P0)/.test(code)) return unreachable(error)
    const row = SQLSTATES[code]
    if (row === undefined) return undefined
    return new AppError(row[0], row[1], {
      cause: error,
      retryAfterSeconds: row[0] === 'database_error' ? 1 : undefined,
    })
  }
  const lost = LOST.test(error.message) || (NETWORK_CALLS.has(syscall ?? '') && UNREACHABLE.has(code ?? ''))
  // Both addresses of one name refused: an AggregateError that bears the code alone.
  const refused = error instanceof AggregateError && UNREACHABLE.has(code ?? '')
  return lost || refused ? unreachable(error) : undefined
}

const unreachable = (cause: unknown) =>
  new AppError('database_error', 'The database cannot be reached. Try again.', {
    cause,
    retryAfterSeconds: 1,
  })
