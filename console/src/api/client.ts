import { currentKey, expire } from '../session/session.ts'
import { type Operations, PATHS } from './schema.ts'

type Name = keyof Operations
export type Answer<N extends Name> = Operations[N]['answer']
export type Body<N extends Name> = Operations[N]['body']

export interface FieldError {
  /** JSON pointer. */
  field: string
  message: string
}

/** A request that was refused, as the server said it (RFC 9457). */
export class ApiError extends Error {
  readonly status: number
  /** Of the server's table of errors; `unreachable` when there was no answer. */
  readonly code: string
  readonly errors: readonly FieldError[]

  constructor(status: number, code: string, message: string, errors: readonly FieldError[] = []) {
    super(message)
    this.status = status
    this.code = code
    this.errors = errors
  }
}

type Given<N extends Name> = (Operations[N]['params'] extends undefined
  ? { params?: undefined }
  : { params: Operations[N]['params'] }) & {
  query?: Operations[N]['query']
  body?: Operations[N]['body'] | Blob
  /** In place of the one that is signed in: to try one out. */
  key?: string
  signal?: AbortSignal
}

/**
 * One call of the API, by the name of its operation.
 *
 * @throws ApiError for every answer that is no success
 */
export async function call<N extends Name>(name: N, given: Given<N>): Promise<Answer<N>> {
  const [method, path] = PATHS[name]
  const { params, query, body, key = currentKey(), signal } = given as Given<Name>
  const url = new URL(filled(path, params ?? {}), location.origin)
  for (const [field, value] of Object.entries(query ?? {})) {
    if (value !== undefined && value !== '') url.searchParams.set(field, String(value))
  }
  const raw = body instanceof Blob
  let response: Response
  try {
    response = await fetch(url, {
      method,
      signal: signal ?? null,
      credentials: 'omit',
      headers: {
        ...(key !== undefined && { authorization: `Bearer ${key}` }),
        ...(body !== undefined && { 'content-type': raw ? body.type : 'application/json' }),
      },
      ...(body !== undefined && { body: raw ? body : JSON.stringify(body) }),
    })
  } catch (error) {
    if ((error as Error).name === 'AbortError') throw error
    throw new ApiError(0, 'unreachable', 'The server cannot be reached. Nothing of your work here is lost.')
  }
  const text = await response.text()
  const answer = parsed(text)
  if (response.ok) return answer as Answer<N>
  const { code = 'unknown', detail, errors = [] } = (answer ?? {}) as Problem
  // The key was taken back, or has passed: what is on the screen stays until somebody signs in again.
  if (response.status === 401 && key === currentKey()) expire()
  throw new ApiError(response.status, code, detail ?? `The server answered ${response.status}.`, errors)
}

interface Problem {
  code?: string
  detail?: string
  errors?: FieldError[]
}

const filled = (path: string, params: object): string =>
  path.replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(String((params as Record<string, unknown>)[name])),
  )

function parsed(text: string): unknown {
  try {
    return text === '' ? null : JSON.parse(text)
  } catch {
    return null
  }
}
