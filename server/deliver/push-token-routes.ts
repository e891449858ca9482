import { Type } from 'typebox'
import { audit } from '../admin/audit.ts'
import type { Db } from '../db/pool.ts'
import { AppError } from '../errors.ts'
import type { Api } from '../http/api.ts'
import { listPushTokens, removeDeadDevices } from '../people/devices.ts'
import { UserIdField } from '../people/fields.ts'
import { getUser } from '../people/users.ts'
import type { Message, TenantId } from '../types.ts'
import type { OpenedProvider } from './open-provider.ts'
import { asDeliveryError } from './provider.ts'
import type { DeliveryError } from './provider.ts'
import { type PushKind, TOPIC_NAME, topicIn, vendorTopic } from './providers/push.ts'
import type { ListedProvider } from './set-up.ts'

export interface PushTokenRoutesDeps {
  db: Db
  listed: readonly ListedProvider[]
  now?: () => Date
}

/** As many as the vendors' own libraries take in one call. */
export const MAX_TOKENS = 1_000
/** Requests on their way at once: the vendor takes one token in each. */
const ABREAST = 16
/** For one call with everything in it. */
const PATIENCE_MS = 30_000

const strict = { additionalProperties: false }
const Token = Type.String({ minLength: 1, maxLength: 2048, pattern: '^[\\x21-\\x7e]+$' })
const Kind = Type.Optional(
  Type.Enum(['fcm', 'apns'], { description: 'Whose token it is; where nobody says, its look tells.' }),
)
const Maybe = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) => Type.Union([type, Type.Null()])
const Verdict = {
  code: Maybe(
    Type.String({
      description:
        'As in docs/reference/delivery-codes.md, or `unsupported` where the service has no topics.',
    }),
  ),
  vendorCode: Maybe(Type.String()),
  retryAt: Maybe(Type.String({ format: 'date-time', description: 'Not before this, says the vendor.' })),
}

/**
 * What can be asked about device tokens besides sending to them (ALP-108): whether the vendor would still deliver, and
 * which of the vendor's topics they are in. A device that the vendor gave up goes, as after a message.
 */
export function pushTokenRoutes(api: Api, { db, listed, now = () => new Date() }: PushTokenRoutesDeps): void {
  const tags = ['Deliveries']
  const config = { access: { role: 'service', scope: 'people:write' } } as const

  /** The first provider that is for this token, as for a message. */
  const providerFor = (tenantId: TenantId, token: string, kind?: PushKind): OpenedProvider | undefined =>
    listed.find(
      ({ provider, opened }) =>
        provider.channel === 'push' && opened?.accepts(probe(tenantId, token, kind, now())),
    )?.opened

  /** Forgets those devices that will never get anything again. */
  const bury = async (tenantId: TenantId, dead: readonly string[]): Promise<void> => {
    if (dead.length === 0) return
    const kinds = ['fcm', 'apns'] as const
    await removeDeadDevices(
      db,
      tenantId,
      dead.flatMap(token => kinds.map(kind => ({ kind, token }))),
    )
  }

  api.post(
    '/api/delivery/push/validate',
    {
      config,
      schema: {
        tags,
        operationId: 'validateDeviceToken',
        summary: 'Ask the push service whether it would deliver to a device token; sends nothing',
        description:
          'A device that is gone is removed. Answers 409 where the service can only be asked by sending, as APNs.',
        body: Type.Object({ token: Token, kind: Kind }, strict),
        response: {
          200: Type.Object({
            valid: Maybe(
              Type.Boolean({ description: 'null: the service could not say now; `code` says why.' }),
            ),
            provider: Type.String(),
            ...Verdict,
          }),
        },
      },
    },
    async request => {
      const { token, kind } = request.body
      const { tenantId } = request.caller
      if (topicIn(token) !== undefined) {
        throw new AppError('invalid_request', 'A topic is no device.', { field: '/token' })
      }
      const provider = providerFor(tenantId, token, kind)
      if (provider?.validateDeviceToken === undefined) {
        throw new AppError('conflict', 'No push service that is set up here can tell without sending.')
      }
      const failure = await provider
        .validateDeviceToken(token, AbortSignal.timeout(PATIENCE_MS))
        .then(() => undefined, asDeliveryError)
      if (failure?.kind === 'bounced') await bury(tenantId, [token])
      const valid = failure === undefined ? true : failure.final ? false : null
      return { valid, provider: provider.id, ...shown(failure) }
    },
  )

  for (const [verb, subscribe] of [
    ['subscribe', true],
    ['unsubscribe', false],
  ] as const) {
    api.post(
      `/api/delivery/push/topics/:topic/${verb}`,
      {
        config,
        schema: {
          tags,
          operationId: subscribe ? 'subscribeToPushTopic' : 'unsubscribeFromPushTopic',
          summary: subscribe
            ? 'Put devices into a topic that the push service keeps'
            : 'Take devices out of a topic that the push service keeps',
          description:
            `Of one person, or up to ${MAX_TOKENS} tokens. Each has a result of its own; saying it again changes ` +
            'nothing. A message to the address `/topics/<topic>` of push reaches all of them. Where the service ' +
            'refuses to go on, those it was not asked about have the same code.',
          params: Type.Object(
            {
              topic: Type.String({
                maxLength: 850,
                pattern: TOPIC_NAME.source,
                description: 'Of the tenant: another tenant’s topic of the same name is another one.',
              }),
            },
            strict,
          ),
          body: Type.Object(
            {
              userId: Type.Optional(UserIdField),
              tokens: Type.Optional(Type.Array(Token, { minItems: 1, maxItems: MAX_TOKENS })),
            },
            strict,
          ),
          response: {
            200: Type.Object({
              changed: Type.Integer({ description: 'Tokens of which the service confirmed it.' }),
              failed: Type.Integer(),
              results: Type.Array(
                Type.Object({
                  deviceId: Maybe(Type.String({ description: 'Where a person was named.' })),
                  tokenEnd: Type.String({ description: 'In the order of the tokens.' }),
                  ok: Type.Boolean(),
                  ...Verdict,
                }),
              ),
            }),
          },
        },
      },
      async request => {
        const { caller, params, body, traceId } = request
        const { tenantId } = caller
        if ((body.userId === undefined) === (body.tokens === undefined)) {
          throw new AppError('invalid_request', 'Name a person or tokens, one of the two.', {
            field: '/userId',
          })
        }
        const topic = vendorTopic(tenantId, params.topic)
        const devices = await devicesIn(tenantId, body)
        const targets = devices.map(device => ({
          ...device,
          provider: providerFor(tenantId, device.token, device.kind),
        }))
        if (targets.length > 0 && targets.every(({ provider }) => !provider?.updateTopicSubscription)) {
          throw new AppError(
            'conflict',
            'No push service that is set up here keeps topics for these devices.',
          )
        }

        const failures = new Map<string, DeliveryError>()
        const signal = AbortSignal.timeout(PATIENCE_MS)
        // Asked no further once the service is away or wants a pause: a thousand timeouts would help nobody.
        const stopped = new Map<OpenedProvider, DeliveryError>()
        await abreast(targets, ABREAST, async ({ token, provider }) => {
          if (!provider?.updateTopicSubscription) return
          const before = stopped.get(provider)
          const failure =
            before ??
            (await provider
              .updateTopicSubscription(token, topic, subscribe, signal)
              .then(() => undefined, asDeliveryError))
          if (failure === undefined) return
          failures.set(token, failure)
          if (!failure.final) stopped.set(provider, failure)
        })

        await bury(
          tenantId,
          [...failures].filter(([, { kind }]) => kind === 'bounced').map(([token]) => token),
        )
        const results = targets.map(({ id, token, provider }) => {
          const failure = failures.get(token)
          const supported = provider?.updateTopicSubscription !== undefined
          return {
            deviceId: id ?? null,
            tokenEnd: token.slice(-6),
            ok: supported && failure === undefined,
            ...(supported ? shown(failure) : { code: 'unsupported', vendorCode: null, retryAt: null }),
          }
        })
        const changed = results.filter(({ ok }) => ok).length
        await audit(db, caller, {
          action: subscribe ? 'push_topic.subscribed' : 'push_topic.unsubscribed',
          objectKind: body.userId === undefined ? 'push_topic' : 'user',
          objectId: body.userId ?? params.topic.slice(0, 255),
          details: { topic: params.topic, changed, failed: results.length - changed },
          traceId,
        })
        return { changed, failed: results.length - changed, results }
      },
    )
  }

  async function devicesIn(
    tenantId: TenantId,
    { userId, tokens }: { userId?: string; tokens?: string[] },
  ): Promise<{ id?: string; kind?: PushKind; token: string }[]> {
    if (userId === undefined) {
      const at = tokens!.findIndex(token => topicIn(token) !== undefined)
      if (at >= 0) throw new AppError('invalid_request', 'A topic is no device.', { field: `/tokens/${at}` })
      return [...new Set(tokens)].map(token => ({ token }))
    }
    await getUser(db, tenantId, userId)
    return listPushTokens(db, tenantId, userId)
  }
}

const shown = (failure: DeliveryError | undefined) => ({
  code: failure?.code ?? null,
  vendorCode: failure?.vendorCode ?? null,
  retryAt: failure?.until?.toISOString() ?? null,
})

/** `work` on each, so many at once. */
async function abreast<T>(
  items: readonly T[],
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const rest = items.values()
  const lane = async () => {
    for (const item of rest) await work(item)
  }
  await Promise.all(Array.from({ length: Math.min(width, items.length) }, lane))
}

/** What a provider, and the conditions it has here, are asked about: a message that nobody sends. */
const probe = (tenantId: TenantId, to: string, kind: PushKind | undefined, now: Date): Message => ({
  tenantId,
  notificationId: '',
  channel: 'push',
  idempotencyKey: '',
  to,
  recipient: { type: 'system', id: to },
  content: { body: '' },
  priority: 'NORMAL',
  attempt: 1,
  eventId: '',
  eventType: 'carillon.device.check',
  createdAt: now.getTime(),
  ...(kind && { addressSettings: { kind } }),
})
