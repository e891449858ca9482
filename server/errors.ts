import type { JsonObject } from './types.ts'

/**
 * Every error a caller can see, once. The key is the stable code; `status` is HTTP; `title` never changes
 * with the occurrence (RFC 9457 §3.1.3); `numeric` is Aura's documented number (AUR-148).
 * docs/reference/errors.md lists the same table and a test compares the two.
 */
export const ERRORS = {
  invalid_request: { status: 400, title: 'The request does not have the documented shape' },
  malformed_body: { status: 400, title: 'The body cannot be parsed' },
  invalid_cursor: { status: 400, title: 'The cursor was not issued by this list' },
  invalid_expression: { status: 400, title: 'The CEL expression cannot be compiled' },
  invalid_template: { status: 400, title: 'The template cannot be compiled' },
  invalid_variables: { status: 400, title: 'The template needs other variables' },
  invalid_schema: { status: 400, title: 'The JSON Schema cannot be compiled' },
  invalid_schedule: { status: 400, title: 'The schedule, time or zone cannot be understood' },
  invalid_address: { status: 400, title: 'The address does not fit its channel' },
  invalid_cloudevent: { status: 400, title: 'The event does not follow CloudEvents 1.0' },
  invalid_rule: { status: 400, numeric: 4001, title: 'The rule is not valid' },
  invalid_sensor_data: { status: 400, numeric: 4002, title: 'The sensor data is not valid' },
  missing_preferences: {
    status: 400,
    numeric: 4003,
    title: 'The channel needs data that the user never gave',
  },
  unauthenticated: { status: 401, title: 'No valid credentials were given' },
  forbidden: { status: 403, title: 'The credentials do not allow this' },
  tier_limit_exceeded: { status: 403, numeric: 4031, title: "The user's plan does not allow more" },
  channel_not_allowed: { status: 403, numeric: 4032, title: "The user's plan does not include this channel" },
  quiet_hours_active: { status: 403, numeric: 4033, title: 'Quiet hours are active' },
  not_found: { status: 404, title: 'There is no such thing' },
  method_not_allowed: { status: 405, title: 'The path does not offer this method' },
  conflict: { status: 409, title: 'The state of the thing does not allow this' },
  already_exists: { status: 409, title: 'A thing with this name exists already' },
  idempotency_running: { status: 409, title: 'A request with this Idempotency-Key is still running' },
  gone: { status: 410, title: 'The thing was removed' },
  body_too_large: { status: 413, title: 'The body is larger than allowed' },
  unsupported_media_type: { status: 415, title: 'The content type is not accepted here' },
  idempotency_mismatch: { status: 422, title: 'The Idempotency-Key was used with another body' },
  event_schema_violation: { status: 422, title: "The event does not fit its type's JSON Schema" },
  rate_limited: { status: 429, title: 'Too many requests' },
  internal: { status: 500, title: 'Something went wrong on our side' },
  delivery_failed: { status: 500, numeric: 5001, title: 'The delivery failed' },
  channel_unavailable: {
    status: 500,
    numeric: 5002,
    title: 'The channel is switched off or has no provider',
  },
  external_service_error: { status: 500, numeric: 5003, title: 'The provider answered with an error' },
  worker_overloaded: { status: 503, numeric: 5031, title: 'The workers are overloaded' },
  queue_full: { status: 503, numeric: 5032, title: 'The queue is full' },
  database_error: { status: 503, numeric: 5033, title: 'The database cannot be reached' },
  shutting_down: { status: 503, title: 'The server is shutting down' },
} as const satisfies Record<string, { status: number; title: string; numeric?: number }>

export type ErrorCode = keyof typeof ERRORS

export interface ErrorDetail {
  /** JSON pointer into the body, or the name of a query parameter or header. */
  field: string
  message: string
}

/** An error with a code from the table above. `detail` is for the caller: no content, no secrets. */
export class AppError extends Error {
  readonly code: ErrorCode
  readonly errors: ErrorDetail[] | undefined
  readonly retryAfterSeconds: number | undefined
  readonly extra: JsonObject | undefined

  constructor(
    code: ErrorCode,
    detail: string,
    more: {
      field?: string
      errors?: ErrorDetail[]
      retryAfterSeconds?: number
      extra?: JsonObject
      cause?: unknown
    } = {},
  ) {
    super(detail, more.cause === undefined ? undefined : { cause: more.cause })
    this.name = 'AppError'
    this.code = code
    this.errors =
      more.errors ?? (more.field === undefined ? undefined : [{ field: more.field, message: detail }])
    this.retryAfterSeconds = more.retryAfterSeconds
    this.extra = more.extra
  }

  get status(): number {
    return ERRORS[this.code].status
  }
}
