import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import type { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { decodeCursor, encodeCursor } from '../http/cursor.ts'
import { pageOf, pageQuery, toPage } from '../http/page.ts'
import type { JsonObject } from '../types.ts'
import { AddressInputSchema, AddressSchema, showAddress } from './addresses-routes.ts'
import { MAX_ADDRESSES } from './addresses.ts'
import type { AudienceKind } from './facts.ts'
import {
  AudienceNameField,
  LocaleField,
  LevelField,
  MaybeTimeField,
  TimeField,
  TimezoneField,
  UserIdField,
} from './fields.ts'
import {
  eraseUser,
  getUser,
  listUsers,
  type PeopleSealer,
  patchUser,
  type UserInput,
  type UserView,
  upsertUsers,
} from './users.ts'

/** Users of one bulk request, and groups, roles or topics of one user in a request. */
const MAX_BULK = 1_000
const MAX_NAMES = 500
const BULK_BODY_BYTES = 8 * 1024 * 1024

const Attributes = Type.Record(Type.String(), Type.Any(), {
  maxProperties: 200,
  description: 'Whatever templates and rules are to know; 16 KiB of JSON at most.',
})
const Subscription = Type.Object(
  { name: AudienceNameField, level: LevelField },
  { additionalProperties: false },
)
const SubscriptionInput = Type.Object(
  { name: AudienceNameField, level: Type.Optional(LevelField) },
  { additionalProperties: false },
)

const UserSchema = Type.Object({
  userId: Type.String(),
  enabled: Type.Boolean(),
  locale: Type.String(),
  timezone: Type.String(),
  attributes: Type.Record(Type.String(), Type.Any()),
  addresses: Type.Array(AddressSchema),
  groups: Type.Array(Type.String()),
  roles: Type.Array(Type.String()),
  topics: Type.Array(Subscription),
  createdAt: TimeField,
  updatedAt: TimeField,
  erasedAt: MaybeTimeField,
})

const ownFields = {
  enabled: Type.Optional(Type.Boolean()),
  locale: Type.Optional(LocaleField),
  timezone: Type.Optional(TimezoneField),
  attributes: Type.Optional(Attributes),
}
const fields = {
  ...ownFields,
  addresses: Type.Optional(Type.Array(AddressInputSchema, { maxItems: MAX_ADDRESSES })),
  groups: Type.Optional(Type.Array(AudienceNameField, { maxItems: MAX_NAMES })),
  roles: Type.Optional(Type.Array(AudienceNameField, { maxItems: MAX_NAMES })),
  topics: Type.Optional(Type.Array(SubscriptionInput, { maxItems: MAX_NAMES })),
}
const UserBody = Type.Object(fields, { additionalProperties: false })
const BulkBody = Type.Object(
  {
    users: Type.Array(Type.Object({ userId: UserIdField, ...fields }, { additionalProperties: false }), {
      minItems: 1,
      maxItems: MAX_BULK,
    }),
  },
  { additionalProperties: false },
)
const BulkResult = Type.Object({
  created: Type.Integer(),
  updated: Type.Integer(),
  failed: Type.Integer(),
  results: Type.Array(
    Type.Object({
      userId: Type.String(),
      status: Type.Enum(['created', 'updated', 'failed']),
      error: Type.Optional(
        Type.Object({ code: Type.String(), detail: Type.String(), field: Type.Optional(Type.String()) }),
      ),
    }),
    { description: 'One for each user of the request, in its order.' },
  ),
})
const Params = Type.Object({ userId: UserIdField }, { additionalProperties: false })

const read = { role: 'service', scope: 'people:read' } as const
const readSelf = { role: 'user', scope: 'people:read' } as const
const write = { role: 'service', scope: 'people:write' } as const

export function usersRoutes(api: Api, { db, sealer }: { db: Db; sealer: PeopleSealer }): void {
  api.put(
    '/api/users/:userId',
    {
      config: { access: write },
      schema: {
        tags: ['Users'],
        operationId: 'putUser',
        summary: 'Create a user, or change what is named',
        description:
          'What is left out stays as it is. `addresses`, `groups`, `roles` and `topics`, where given, replace what was there; an address that is still listed keeps its id and verification.',
        params: Params,
        body: UserBody,
        response: { 200: UserSchema, 201: UserSchema },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params, body } = request
      const { userId } = params
      const { status, user } = await db.tx(async tx => {
        const [result] = await upsertUsers(tx, sealer, caller.tenantId, [toInput({ userId, ...body })])
        if (result === undefined || result.status === 'failed') throw result?.error ?? new Error('no result')
        await audit(tx, caller, {
          action: `user.${result.status}`,
          objectKind: 'user',
          objectId: userId,
          // What changed, not to what: that is the person's.
          details: { fields: Object.keys(body) },
          traceId,
        })
        return { status: result.status, user: await getUser(tx, caller.tenantId, userId) }
      })
      if (status === 'created') reply.code(201).header('location', pathOf(userId))
      return showUser(user)
    },
  )

  api.post(
    '/api/users/bulk',
    {
      config: { access: write },
      bodyLimit: BULK_BODY_BYTES,
      schema: {
        tags: ['Users'],
        operationId: 'putUsers',
        summary: 'Create or change up to 1,000 users',
        description:
          'Each user as in `PUT /api/users/{userId}`. A user that cannot be taken fails alone and says why.',
        body: BulkBody,
        response: { 200: BulkResult },
      },
    },
    async request => {
      const { caller, traceId, body } = request
      const results = await db.tx(async tx => {
        const results = await upsertUsers(tx, sealer, caller.tenantId, body.users.map(toInput))
        const ids = results.flatMap(r => (r.status === 'failed' ? [] : [r.userId]))
        if (ids.length > 0) {
          await audit(tx, caller, {
            action: 'users.imported',
            objectKind: 'user',
            objectId: '*',
            details: { count: ids.length, first: ids[0], last: ids.at(-1) },
            traceId,
          })
        }
        return results
      })
      const count = (status: string) => results.filter(result => result.status === status).length
      return {
        created: count('created'),
        updated: count('updated'),
        failed: count('failed'),
        results: results.map(result => ({
          userId: result.userId,
          status: result.status,
          ...(result.status === 'failed' ? { error: showError(result.error) } : {}),
        })),
      }
    },
  )

  api.get(
    '/api/users',
    {
      config: { access: read },
      schema: {
        tags: ['Users'],
        operationId: 'listUsers',
        summary: 'List users by id',
        querystring: Type.Object(
          {
            ...pageQuery,
            enabled: Type.Optional(Type.Boolean()),
            group: Type.Optional(AudienceNameField),
            role: Type.Optional(AudienceNameField),
            topic: Type.Optional(AudienceNameField),
          },
          { additionalProperties: false },
        ),
        response: { 200: pageOf(UserSchema) },
      },
    },
    async request => {
      const { limit, cursor, enabled, ...names } = request.query
      const [after] = cursor === undefined ? [] : (decodeCursor('users', cursor, ['text']) as string[])
      const audiences = (['group', 'role', 'topic'] as const).flatMap((kind: AudienceKind) =>
        names[kind] === undefined ? [] : [{ kind, name: names[kind] }],
      )
      const users = await listUsers(db, request.caller.tenantId, { enabled, audiences }, after, limit + 1)
      return toPage(users.map(showUser), limit, last => encodeCursor('users', [last.userId]))
    },
  )

  api.get(
    '/api/users/:userId',
    {
      config: { access: readSelf },
      schema: {
        tags: ['Users'],
        operationId: 'getUser',
        summary: 'One user',
        params: Params,
        response: { 200: UserSchema },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      return showUser(await getUser(db, request.caller.tenantId, userId))
    },
  )

  api.patch(
    '/api/users/:userId',
    {
      config: { access: write },
      schema: {
        tags: ['Users'],
        operationId: 'patchUser',
        summary: 'Change a user',
        description: 'Attributes are merged one level deep; null takes an attribute away.',
        params: Params,
        body: Type.Object(ownFields, { additionalProperties: false, minProperties: 1 }),
        response: { 200: UserSchema },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const { userId } = params
      return showUser(
        await db.tx(async tx => {
          await patchUser(tx, caller.tenantId, userId, body)
          const details = { fields: Object.keys(body) }
          await audit(tx, caller, {
            action: 'user.updated',
            objectKind: 'user',
            objectId: userId,
            details,
            traceId,
          })
          return getUser(tx, caller.tenantId, userId)
        }),
      )
    },
  )

  api.delete(
    '/api/users/:userId',
    {
      config: { access: write },
      schema: {
        tags: ['Users'],
        operationId: 'disableUser',
        summary: 'Disable a user',
        description: 'Nothing is sent to a disabled user. The person’s data stays; `…/erase` destroys it.',
        params: Params,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const { userId } = params
      await db.tx(async tx => {
        await patchUser(tx, caller.tenantId, userId, { enabled: false })
        await audit(tx, caller, { action: 'user.disabled', objectKind: 'user', objectId: userId, traceId })
      })
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/users/:userId/erase',
    {
      config: { access: { role: 'admin', scope: 'people:write' } },
      schema: {
        tags: ['Users'],
        operationId: 'eraseUser',
        summary: 'Erase a person, for good',
        description:
          'Destroys the key that everything sent to the person was sealed with, and removes addresses, devices, memberships, preferences and attributes. The id stays taken.',
        params: Params,
        response: { 200: UserSchema },
      },
    },
    async request => {
      const { caller, traceId, params } = request
      const { userId } = params
      return showUser(
        await db.tx(async tx => {
          if (await eraseUser(tx, caller.tenantId, userId)) {
            await audit(tx, caller, { action: 'user.erased', objectKind: 'user', objectId: userId, traceId })
          }
          return getUser(tx, caller.tenantId, userId)
        }),
      )
    },
  )
}

export const pathOf = (userId: string): string => `/api/users/${encodeURIComponent(userId)}`

type BulkItem = Static<typeof BulkBody>['users'][number]

const toInput = ({ topics, attributes, ...item }: BulkItem): UserInput => ({
  ...item,
  attributes: attributes as JsonObject | undefined,
  topics: topics?.map(({ name, level = 'ALL' }) => ({ name, level })),
})

const showError = ({ code, message, errors }: AppError) => {
  const field = errors?.[0]?.field
  return field === undefined ? { code, detail: message } : { code, detail: message, field }
}

const showUser = ({
  erasedAt,
  createdAt,
  updatedAt,
  addresses,
  ...user
}: UserView): Static<typeof UserSchema> => ({
  ...user,
  addresses: addresses.map(showAddress),
  createdAt: createdAt.toISOString(),
  updatedAt: updatedAt.toISOString(),
  erasedAt: erasedAt?.toISOString() ?? null,
})
