import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import type { Api } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import { type Device, listDevices, MAX_DEVICES, registerDevice, removeDevice } from './devices.ts'
import { IdField, MaybeTimeField, TimeField, UserIdField } from './fields.ts'
import { getUser, lockUser, type PeopleSealer } from './users.ts'

export const DeviceSchema = Type.Object({
  id: IdField,
  kind: Type.Enum(['fcm', 'apns', 'web_push']),
  tokenEnd: Type.String({ description: 'The last characters of the token.' }),
  userAgent: Type.Union([Type.String(), Type.Null()]),
  enabled: Type.Boolean(),
  createdAt: TimeField,
  lastUsedAt: MaybeTimeField,
})
export const SubscriptionKeysField = Type.Object(
  { p256dh: Type.String({ maxLength: 100 }), auth: Type.String({ maxLength: 50 }) },
  {
    additionalProperties: false,
    description: 'Of a web push subscription, as the browser gives them. Sealed and never shown.',
  },
)
const DeviceInput = Type.Object(
  {
    kind: Type.Enum(['fcm', 'apns', 'web_push']),
    token: Type.String({
      minLength: 1,
      maxLength: 2048,
      description: 'FCM or APNs token; for web push the endpoint of the subscription.',
    }),
    keys: Type.Optional(SubscriptionKeysField),
    userAgent: Type.Optional(Type.String({ maxLength: 500 })),
  },
  { additionalProperties: false },
)
const Params = Type.Object({ userId: UserIdField }, { additionalProperties: false })

const read = { role: 'user', scope: 'people:read' } as const
const write = { role: 'user', scope: 'people:write' } as const

/** The phones and browsers of a person. They come and go by themselves, so no audit rows. */
export function devicesRoutes(api: Api, { db, sealer }: { db: Db; sealer: PeopleSealer }): void {
  api.get(
    '/api/users/:userId/devices',
    {
      config: { access: read },
      schema: {
        tags: ['Devices'],
        operationId: 'listDevices',
        summary: 'The devices of a user, the last used first',
        params: Params,
        response: { 200: Type.Object({ items: Type.Array(DeviceSchema, { maxItems: MAX_DEVICES }) }) },
      },
    },
    async request => {
      const { userId } = request.params
      requireSelf(request, userId)
      const { tenantId } = request.caller
      const devices = await listDevices(db, tenantId, userId)
      if (devices.length === 0) await getUser(db, tenantId, userId)
      return { items: devices.map(showDevice) }
    },
  )

  api.post(
    '/api/users/:userId/devices',
    {
      config: { access: write },
      schema: {
        tags: ['Devices'],
        operationId: 'registerDevice',
        summary: 'Register a device, or say that it is still used',
        description: `Whoever used the device before loses it. Of more than ${MAX_DEVICES} devices the longest unused goes.`,
        params: Params,
        body: DeviceInput,
        response: { 200: DeviceSchema, 201: DeviceSchema },
      },
    },
    async (request, reply) => {
      const { caller, params, body } = request
      const { userId } = params
      requireSelf(request, userId)
      const { created, ...device } = await db.tx(async tx => {
        await lockUser(tx, caller.tenantId, userId)
        return registerDevice(tx, { sealer, tenantId: caller.tenantId }, userId, body)
      })
      if (created) {
        reply.code(201).header('location', `/api/users/${encodeURIComponent(userId)}/devices/${device.id}`)
      }
      return showDevice(device)
    },
  )

  api.delete(
    '/api/users/:userId/devices/:id',
    {
      config: { access: write },
      schema: {
        tags: ['Devices'],
        operationId: 'removeDevice',
        summary: 'Remove a device',
        params: Type.Object({ userId: UserIdField, id: IdField }, { additionalProperties: false }),
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { userId, id } = request.params
      requireSelf(request, userId)
      await removeDevice(db, request.caller.tenantId, userId, id)
      return reply.code(204).send(null)
    },
  )
}

export const showDevice = ({ createdAt, lastUsedAt, ...device }: Device): Static<typeof DeviceSchema> => ({
  ...device,
  createdAt: createdAt.toISOString(),
  lastUsedAt: lastUsedAt?.toISOString() ?? null,
})
