import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from 'fastify'
import type { TenantId, UserId } from '../types.ts'

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
  interface FastifyContextConfig {
    /** Required on every route; a test walks all routes and refuses one without. */
    access?: Access
  }
  interface FastifyRequest {
    /** Present on every route that is not public. */
    caller: Caller
  }
}
