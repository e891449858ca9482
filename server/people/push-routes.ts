import { readFileSync } from 'node:fs'
import { type Static, Type } from 'typebox'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api, Caller } from '../http/api.ts'
import { requireSelf } from '../http/auth.ts'
import type { UserId } from '../types.ts'
import { DeviceSchema, showDevice, SubscriptionKeysField } from './devices-routes.ts'
import { ownerOfSubscription, registerDevice, removeDeviceByToken } from './devices.ts'
import { UserIdField } from './fields.ts'
import { lockUser, type PeopleSealer } from './users.ts'

const strict = { additionalProperties: false }
const EndpointField = Type.String({
  minLength: 1,
  maxLength: 2048,
  description: 'Of the subscription: where its push service takes messages.',
})
const UserAgentField = Type.String({ maxLength: 500 })
const Subscription = Type.Object(
  {
    endpoint: EndpointField,
    // Browsers write it, and none sets it to anything.
    expirationTime: Type.Optional(Type.Union([Type.Number(), Type.Null()])),
    keys: SubscriptionKeysField,
  },
  { ...strict, description: 'What `JSON.stringify` makes of a browser’s PushSubscription.' },
)
const ReaderQuery = {
  userId: Type.Optional(
    Type.String({
      ...UserIdField,
      description: 'Whose; keys name it, people need not: it is they themselves.',
    }),
  ),
}
const Removal = Type.Object({ endpoint: Type.Optional(EndpointField) }, strict)
const NoQuery = Type.Object({}, strict)

const tags = ['Devices']
const write = { role: 'user', scope: 'people:write' } as const
const open = { role: 'public' } as const

/** Somebody without credentials may try so often a minute; browsers renew once in weeks. */
const RENEWALS_PER_MINUTE = 30

/** The browser's half of web push; read once, as it is part of the program. */
const WORKER = readFileSync(new URL('../feed/service-worker.js', import.meta.url), 'utf8')

/**
 * Web push from the browser's side (AUR §7, §10): the key to subscribe with, subscriptions that come, change and go,
 * and the service worker that shows what is pushed.
 *
 * `vapidPublicKey`: of the provider `web-push`; without it the channel is closed and nobody can subscribe.
 */
export function pushRoutes(
  api: Api,
  { db, sealer, vapidPublicKey }: { db: Db; sealer: PeopleSealer; vapidPublicKey?: string },
): void {
  const publicKey = (): string => {
    if (vapidPublicKey === undefined) throw new AppError('not_found', 'Web push is not set up here.')
    return vapidPublicKey
  }

  api.get(
    '/api/notifications/push/public-key',
    {
      config: { access: open },
      schema: {
        tags,
        operationId: 'getPushPublicKey',
        summary: 'The key that browsers subscribe with',
        description: 'VAPID (RFC 8292), base64url: the `applicationServerKey` of `pushManager.subscribe`.',
        querystring: NoQuery,
        response: { 200: Type.Object({ publicKey: Type.String() }) },
      },
    },
    () => ({ publicKey: publicKey() }),
  )

  const keep = async (
    tenantId: Caller['tenantId'],
    userId: UserId,
    { endpoint, keys }: Static<typeof Subscription>,
    userAgent: string | undefined,
    replaces?: string,
  ) =>
    db.tx(async tx => {
      await lockUser(tx, tenantId, userId)
      if (replaces !== undefined && replaces !== endpoint) {
        await removeDeviceByToken(tx, tenantId, userId, 'web_push', replaces)
      }
      const input = { kind: 'web_push', token: endpoint, keys, userAgent } as const
      return registerDevice(tx, { sealer, tenantId }, userId, input)
    })

  api.post(
    '/api/notifications/push/subscribe',
    {
      config: { access: write },
      schema: {
        tags,
        operationId: 'subscribePush',
        summary: 'Push to this browser from now on',
        description: 'Again or for the first time. Who subscribed with this browser before loses it.',
        querystring: Type.Object(ReaderQuery, strict),
        body: Type.Object({ subscription: Subscription, userAgent: Type.Optional(UserAgentField) }, strict),
        response: { 200: DeviceSchema, 201: DeviceSchema },
      },
    },
    async (request, reply) => {
      const { caller, body } = request
      publicKey()
      const userId = personOf(caller, request.query.userId)
      const { created, ...device } = await keep(caller.tenantId, userId, body.subscription, body.userAgent)
      if (created) {
        reply.code(201).header('location', `/api/users/${encodeURIComponent(userId)}/devices/${device.id}`)
      }
      return showDevice(device)
    },
  )

  const remove = async (caller: Caller, named: UserId | undefined, endpoint: string | undefined) => {
    if (endpoint === undefined) {
      throw new AppError('invalid_request', 'Name the endpoint of the subscription.', { field: 'endpoint' })
    }
    const userId = personOf(caller, named)
    // One that is not there is what the caller wanted.
    await removeDeviceByToken(db, caller.tenantId, userId, 'web_push', endpoint)
  }
  const removal = {
    tags,
    description: 'The endpoint comes in the body or, as some proxies drop bodies of DELETE, in the query.',
    querystring: Type.Object({ ...ReaderQuery, endpoint: Type.Optional(EndpointField) }, strict),
    response: { 204: Type.Null() },
  }

  api.delete(
    '/api/notifications/push/unsubscribe',
    {
      config: { access: write },
      schema: {
        ...removal,
        operationId: 'unsubscribePush',
        summary: 'Push to this browser no more',
        // Absent with most clients.
        body: Type.Union([Removal, Type.Null()]),
      },
    },
    async (request, reply) => {
      const { endpoint, userId } = request.query
      await remove(request.caller, userId, request.body?.endpoint ?? endpoint)
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/notifications/push/unsubscribe',
    {
      config: { access: write },
      schema: {
        ...removal,
        operationId: 'unsubscribePushByPost',
        summary: 'Push to this browser no more, by POST',
        body: Removal,
      },
    },
    async (request, reply) => {
      const { endpoint, userId } = request.query
      await remove(request.caller, userId, request.body.endpoint ?? endpoint)
      return reply.code(204).send(null)
    },
  )

  api.post(
    '/api/notifications/push/renew',
    {
      config: { access: open, limit: RENEWALS_PER_MINUTE },
      schema: {
        tags,
        operationId: 'renewPush',
        summary: 'Another subscription in the place of one that ended',
        description:
          'For service workers, which have no token: the secret of the old subscription, that only its browser and this server know, is the credential.',
        body: Type.Object(
          {
            tenant: Type.String({ minLength: 1, maxLength: 100 }),
            endpoint: EndpointField,
            auth: Type.String({ minLength: 1, maxLength: 50 }),
            subscription: Subscription,
            userAgent: Type.Optional(UserAgentField),
          },
          strict,
        ),
        response: { 204: Type.Null() },
      },
    },
    async (request, reply) => {
      const { tenant, endpoint, auth, subscription, userAgent } = request.body
      const owner = await ownerOfSubscription(db, sealer, tenant, endpoint, auth)
      if (owner === undefined) throw new AppError('not_found', 'There is no such subscription.')
      await keep(owner.tenantId, owner.userId, subscription, userAgent, endpoint)
      return reply.code(204).send(null)
    },
  )

  api.get(
    '/sw.js',
    {
      config: { access: open },
      schema: {
        hide: true,
        // What `register` adds is for the worker itself.
        querystring: Type.Object(
          {
            tenant: Type.Optional(Type.String({ maxLength: 100 })),
            origins: Type.Optional(Type.String({ maxLength: 2000 })),
          },
          { additionalProperties: true },
        ),
      },
    },
    (_request, reply) =>
      reply
        .type('text/javascript; charset=utf-8')
        // Asked again each time it may have changed; it decides what people are shown.
        .header('cache-control', 'no-cache')
        .header('service-worker-allowed', '/')
        // It renews subscriptions here, and loads nothing from elsewhere.
        .header('content-security-policy', "default-src 'none'; connect-src 'self'")
        .send(WORKER),
  )
}

/** The caller, or whom a service names. */
function personOf(caller: Caller, userId: UserId | undefined): UserId {
  const person = userId ?? caller.userId
  if (person === undefined) {
    throw new AppError('invalid_request', 'Name the person whose browser this is.', { field: 'userId' })
  }
  requireSelf({ caller }, person)
  return person
}
