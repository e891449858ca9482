import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { TenantId, UserId } from '../types.ts'
import type { TraceParent } from './trace-context.ts'

/** The server as modules see it: their `routes.ts` adds routes with TypeBox schemas to it. */
export type Api = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>

/** From least to most; a higher role may do whatever a lower one may. */
export const ROLES = ['user', 'service', 'admin'] as const
export type Role = (typeof ROLES)[number]

export const SCOPES = [
  'events:write',
  'events:read',
  'notifications:write',
  'notifications:read',
  'rules:write',
  'rules:read',
  'templates:write',
  'templates:read',
  'people:write',
  'people:read',
  'admin:write',
  'admin:read',
] as const
export type Scope = (typeof SCOPES)[number]

/** Who may call a route. `public` skips authentication altogether. */
export interface Access {
  role: Role | 'public'
  /** What a scoped key must hold as well. Users are not scoped: they reach their own things only. */
  scope?: Scope
  /** Only the first tenant's admins: whoever runs this installation (server/admin/tenants.ts). */
  operator?: boolean
  /**
   * Credentials may also come as `?access_token=` (RFC 6750 §2.3), for what a browser opens without headers:
   * WebSocket and EventSource. Never elsewhere: addresses end up in logs and histories.
   */
  queryToken?: boolean
}

/** Whoever called, proven by an API key or a token. */
export interface Caller {
  tenantId: TenantId
  kind: 'key' | 'user'
  role: Role
  /** Key id, or the token's subject. */
  id: string
  /** Set when the caller is a person: the only user whose things a `user` may touch. */
  userId?: UserId
  /** null: not limited. */
  scopes: readonly Scope[] | null
}

declare module 'fastify' {
  interface FastifyInstance {
    /** Every route added so far, for the tests that walk them (route-rules.ts). */
    allRoutes: readonly RouteOptions[]
  }
  interface FastifyContextConfig {
    /** Required on every route: one without it stops the start. */
    access?: Access
    /** Keeps the exact bytes in `request.rawBody`, and hands bodies of any type on: for signed callbacks. */
    rawBody?: boolean
    /** Requests a minute from one address, in place of the general number; false: not counted. Public routes only. */
    limit?: number | false
  }
  interface FastifyRequest {
    /** Present on every route that is not public. */
    caller: Caller
    /** With `config.rawBody`: the body as it came. `body` is then the parsed JSON, or these bytes. */
    rawBody: Buffer | undefined
    /** The caller's W3C trace context, when it sent a valid one. */
    readonly traceParent: TraceParent | undefined
    /** Its trace id: 32 hex digits. */
    readonly traceId: string | undefined
  }
}
