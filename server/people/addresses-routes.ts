import { type Static, Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import {
  type AddressView,
  addAddress,
  changeAddress,
  listAddresses,
  MAX_ADDRESSES,
  MAX_POSITION,
  removeAddress,
} from './addresses.ts'
import { ChannelField, IdField, MaybeTimeField, TimeField, UserIdField } from './fields.ts'
import { getUser, lockUser, type PeopleSealer } from './users.ts'

const Secret = Type.String({ minLength: 1, maxLength: 200 })
const orNull = <S extends Parameters<typeof Type.Union>[0][number]>(schema: S) =>
  Type.Union([schema, Type.Null()])

const text = (maxLength: number) => Type.Optional(Type.String({ minLength: 1, maxLength }))
const AUTH_TYPES = ['bearer', 'apikey', 'basic', 'oauth2'] as const

const AuthInput = Type.Object(
  {
    type: Type.Enum(AUTH_TYPES),
    token: text(4000),
    header: text(100),
    username: text(255),
    password: text(1000),
    tokenUrl: text(1510),
    clientId: text(500),
    clientSecret: text(1000),
    scope: text(1000),
  },
  {
    additionalProperties: false,
    description:
      'bearer and apikey need `token` (an API key travels in `header`, X-API-Key unless given), basic needs `username` and `password`, oauth2 needs `tokenUrl`, `clientId` and `clientSecret` and takes `scope`.',
  },
)

const SettingsInput = Type.Object(
  {
    auth: Type.Optional(orNull(AuthInput)),
    method: Type.Optional(orNull(Type.Enum(['POST', 'PUT']))),
    secret: Type.Optional(orNull(Secret)),
    formerSecrets: Type.Optional(orNull(Type.Array(Secret, { maxItems: 4 }))),
    headers: Type.Optional(
      orNull(
        Type.Record(Type.String({ maxLength: 100 }), Type.String({ maxLength: 2000 }), { maxProperties: 20 }),
      ),
    ),
    batch: Type.Optional(orNull(Type.Integer({ minimum: 1, maximum: 50 }))),
  },
  {
    additionalProperties: false,
    description:
      'Of a webhook: `secret` (whsec_…) signs requests, `formerSecrets` too while receivers change over, `headers` go along, `batch` lets so many notifications share a request, `auth` shows who we are, `method` is POST or PUT. Secrets, header values and `auth` are sealed and never shown. null takes one away; what is left out stays.',
  },
)

const changeFields = {
  label: Type.Optional(orNull(Type.String({ maxLength: 100 }))),
  position: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: MAX_POSITION,
      description: 'Of the verified addresses of a channel, the lowest position is used.',
    }),
  ),
  verified: Type.Optional(
    Type.Boolean({ description: 'For services and admins: whether you know that it is the person’s.' }),
  ),
  settings: Type.Optional(SettingsInput),
}
const AddressField = Type.String({ minLength: 1, maxLength: 2048 })

export const AddressInputSchema = Type.Object(
  { channel: ChannelField, address: AddressField, ...changeFields },
  { additionalProperties: false },
)

export const AddressSchema = Type.Object({
  id: IdField,
  channel: ChannelField,
  address: Type.String(),
  label: orNull(Type.String()),
  position: Type.Integer(),
  verification: Type.Enum(['pending', 'verified', 'failed']),
  verifiedAt: MaybeTimeField,
  settings: Type.Object({
    batch: Type.Optional(Type.Integer()),
    method: Type.Optional(Type.Enum(['POST', 'PUT'])),
    authType: Type.Optional(Type.Enum(AUTH_TYPES)),
    hasSecret: Type.Optional(Type.Boolean()),
    headerNames: Type.Optional(Type.Array(Type.String())),
  }),
  createdAt: TimeField,
  updatedAt: TimeField,
})

const Params = Type.Object({ userId: UserIdField }, { additionalProperties: false })
const OneParams = Type.Object({ userId: UserIdField, id: IdField }, { additionalProperties: false })

const read = { role: 'user', scope: 'people:read' } as const
const write = { role: 'user', scope: 'people:write' } as const

/** Where a person can be reached. People keep their own addresses; only services say that one is verified. */
export function addressesRoutes(api: Api, { db, sealer }: { db: Db; sealer: PeopleSealer }): void {
  api.get(
    '/api/users/:userId/addresses',
    {
      config: { access: read },
      schema: {
        tags: ['Addresses'],
        operationId: 'listAddresses',
        summary: 'The addresses of a user, in the order in which they are used',
        params: Params,
        response: { 200: Type.Object({ items: Type.Array(AddressSchema, { maxItems: MAX_ADDRESSES }) }) },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      const { tenantId } = request.caller
      const addresses = (await listAddresses(db, tenantId, [userId])).get(userId)
      // Nothing found: is it the user who is unknown?
      if (addresses === undefined) await getUser(db, tenantId, userId)
      return { items: (addresses ?? []).map(showAddress) }
    },
  )

  api.post(
    '/api/users/:userId/addresses',
    {
      config: { access: write },
      schema: {
        tags: ['Addresses'],
        operationId: 'addAddress',
        summary: 'Add an address',
        description: 'It is pending, and not used, until it is verified.',
        params: Params,
        body: AddressInputSchema,
        response: { 201: AddressSchema },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params, body } = request
      const { userId } = params
      requireSelf(request, userId)
      requireMayVerify(caller, body)
      const address = await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        const added = await addAddress(tx, { sealer, tenantId: caller.tenantId }, userId, body)
        await audit(tx, caller, {
          action: 'address.created',
          objectKind: 'user',
          objectId: userId,
          details: { id: added.id, channel: added.channel, verification: added.verification },
          traceId,
        })
        return added
      })
      reply.code(201).header('location', `/api/users/${encodeURIComponent(userId)}/addresses/${address.id}`)
      return showAddress(address)
    },
  )

  api.patch(
    '/api/users/:userId/addresses/:id',
    {
      config: { access: write },
      schema: {
        tags: ['Addresses'],
        operationId: 'changeAddress',
        summary: 'Change an address',
        description: 'Another address has to be verified again.',
        params: OneParams,
        body: Type.Object(
          { address: Type.Optional(AddressField), ...changeFields },
          { additionalProperties: false, minProperties: 1 },
        ),
        response: { 200: AddressSchema },
      },
    },
    async request => {
      const { caller, traceId, params, body } = request
      const { userId, id } = params
      requireSelf(request, userId)
      requireMayVerify(caller, body)
      return showAddress(
        await db.tx(async tx => {
          await lockUser(tx, caller.tenantId, userId)
          const changed = await changeAddress(tx, { sealer, tenantId: caller.tenantId }, userId, id, body)
          await audit(tx, caller, {
            action: 'address.updated',
            objectKind: 'user',
            objectId: userId,
            details: {
              id,
              channel: changed.channel,
              verification: changed.verification,
              fields: Object.keys(body),
            },
            traceId,
          })
          return changed
        }),
      )
    },
  )

  api.delete(
    '/api/users/:userId/addresses/:id',
    {
      config: { access: write },
      schema: {
        tags: ['Addresses'],
        operationId: 'removeAddress',
        summary: 'Remove an address',
        params: OneParams,
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { caller, traceId, params } = request
      const { userId, id } = params
      requireSelf(request, userId)
      await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        const channel = await removeAddress(tx, caller.tenantId, userId, id)
        const details = { id, channel }
        await audit(tx, caller, {
          action: 'address.removed',
          objectKind: 'user',
          objectId: userId,
          details,
          traceId,
        })
      })
      return reply.code(204).send(null)
    },
  )
}

/** A person who could say "verified" could have our mail sent to anybody. */
function requireMayVerify(caller: Caller, { verified }: { verified?: boolean }): void {
  if (verified !== undefined && caller.role === 'user') {
    throw new AppError('forbidden', 'Only services say whether an address is verified.', {
      field: '/verified',
    })
  }
}

export const showAddress = ({
  verifiedAt,
  createdAt,
  updatedAt,
  ...address
}: AddressView): Static<typeof AddressSchema> => ({
  ...address,
  verifiedAt: verifiedAt?.toISOString() ?? null,
  createdAt: createdAt.toISOString(),
  updatedAt: updatedAt.toISOString(),
})
